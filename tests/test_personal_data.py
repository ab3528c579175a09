"""Personal data in texts: their kinds, that they are never quoted, and which numbers are taken for them."""

from __future__ import annotations

import random
import re
import string
import sys
from collections.abc import Callable

import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat

from audit_plugin.scoring.personal_data import ACCOUNT_LENGTHS, MASK, PERSONAL, hide_personal_data
from audit_plugin.scoring.text_checks import CHECKS, DAMAGE, OTHER_LANGUAGE, check_texts
from tests.captions import CLEAN

DATA = {  # kind -> data that are written in several ways
    "e-mail address": ["jane.doe+cats@mail.example.co.uk", "o'brien@example.org", "jörg@müller.example.de"],
    "phone number": ["+44 20 7946 0958", "(650) 253-0000", "+49 170 1234567", "0049 170 1234567", "tel. 030 1234567"],
    "payment card": ["4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444"],
    "bank account": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "NO93 8601 1117 947"],
}
AROUND = {  # check -> texts in which it looks at the data, or at what stands around them
    "markup": ["<b>{}</b>", '<a href="mailto:{}">write</a>', "[write](https://x.y/{})", "{{{{ {} }}}}", "{} &amp; {}"],
    "web address": ["https://example.org/?q={}", "www.example.org/{}", "see {} on www.example.org", "{} - lamps.com"],
    "file name": ["{}.jpg", "scan-{}.png", "IMG_2034 {}", "photo of {} (1).jpeg"],
    "price": ["chair $5 {}", "chair {} $5", "${}", "chair 5 EUR, {}"],
    "advertising": ["buy now {}", "click here: {}", "{} | on sale", "stock photo {}", "© {}", "please call {}"],
    "no caption": ["No image available, {}", "{} | untitled", "lorem ipsum {}"],
    "repetition": ["{} {} {} {} {}", "chair {} chair {} chair {}", "{}!!!!!!!!", "write {} write {} write {} write {}"],
    "no words": ["{}", "({})", "{} / {}", "12 {} 34", "{} :-)"],
    DAMAGE: ["cafÃ© {}", "{}Â â€œ", "â€œ{}â€\x9d", "{} \ufffd", "Â{}Â"],
    OTHER_LANGUAGE: ["ein Hund läuft durch den Park, {} bitte anrufen", "собака {} бежит", "犬が公園 {}"],
}


def _parts(data: str) -> set[str]:
    """What must not be quoted: words of the data, and four letters or digits in a row of them."""
    words = [word for word in re.split(r"[^\w]+", data) if len(word) >= 3 and word not in ("tel", "com", "org")]
    compact = "".join(filter(str.isalnum, data.removeprefix("tel. ")))
    return {*words, *(compact[at : at + 4] for at in range(len(compact) - 3))}


def test_every_kind_and_check_is_in_the_product() -> None:
    assert set(DATA) == set(PERSONAL)
    assert set(AROUND) == {DAMAGE, OTHER_LANGUAGE, *(check.name for check in CHECKS)}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("check", AROUND)
def test_no_check_quotes_personal_data(kind: str, check: str) -> None:
    for data in DATA[kind]:
        for pattern in AROUND[check]:
            text = pattern.replace("{{", "\0").replace("}}", "\1").replace("{}", data).replace("\0", "{{")
            text = text.replace("\1", "}}")
            found = check_texts([*CLEAN, text])
            given = pattern.replace("{}", "")
            said = [found.problems[-1], found.cleaned[-1], *found.notes]
            leaked = [part for part in _parts(data) for words in said if part in words and part not in given]
            assert not leaked, (text, said)


def test_personal_data_in_damage_and_entities_are_found_and_not_quoted() -> None:
    for text in ("tel.Â +49Â 170Â 1234567", "write to jane&#64;example.org", "call &#43;49 170 1234567, cafÃ©"):
        found = check_texts([*CLEAN, text])
        assert found.personal[-1]
        assert '"' not in found.problems[-1]
        assert found.cleaned[-1] == ""


def test_faults_beside_personal_data_are_still_named() -> None:
    found = check_texts([*CLEAN, "<b>write</b> to jane@example.org, see www.lamps.de/jane@example.org"])
    assert found.problems[-1] == f'markup "<b>"; web address "www.lamps.de/{MASK}"'
    assert found.personal[-1] == "e-mail address"
    assert found.cleaned[-1] == ""  # a person decides about the data first


@pytest.mark.parametrize("kind", DATA)
def test_a_text_of_personal_data_alone_is_no_other_fault(kind: str) -> None:
    for data in DATA[kind]:
        found = check_texts([*CLEAN, data])
        assert (found.problems[-1], found.personal[-1]) == ("", kind)


def test_numbers_that_may_be_personal_are_not_quoted_either() -> None:
    for number in ("030 1234567", "12 34 56 78 90", "4111 1111 1111 1112", "0170/1234567"):
        found = check_texts([*CLEAN, number])
        assert (found.personal[-1], found.problems[-1]) == ("", "no words")
    cut = "x" * 9_995 + " +49 170 1234567 "  # where the text is cut that checks look at
    assert "170" not in "".join(check_texts([*CLEAN, cut * 2]).problems)


IMPERSONAL = [
    "an @ sign on a wall",
    "icon@2x.png",
    "built 1889-1901, repaired 2003-2014",
    "card 4111 1111 1111 1112",  # its check digit is wrong
    "card 9111 1111 1111 1111 11",  # no issuer
    "DE88 3704 0044 0532 0130 00",  # so are these
    "the number 3141592653589793 on a wall",
    "a bus of line 42, number 0815",
    "12:30:45, 2023-01-01",
    "a mobile of 2019-2021",
    "call 2023-01-01",
    "a phone with 128 GB",
    "+40.712776-074.005974/",
    "EAN 4006381333931",
    "ISBN 978-3-16-148410-0",
    "order 650253000012",
    "SKU 0012345678905",  # an EAN-13 code
    "its phone is 1234567 pixels wide",
    "a handy tool of 100 000 000 uses",
    "a mobile with 10000000 GB",
    "a phone of 5000000 lumens",
    "cell 1500000 V",
    "call 1 2 3 4 5 6 7 8",
    "handy 3.1415926535",
    "Cell 163 (2015) 1202-1214",
    "Speedometer dial 0 20 40 60 80 100 120",
    "watch with dial 36/40/42/44 mm",
    "Case for mobile phone 6 7 8 11 12 13",
    "call 100 200 300",
    "Mobile phone 64/128/256 GB",
    "cell_0001234.png",
    "phone_20210304_123000.jpg",
    "banner@2x.avif and cat@home.jxl, logo@2x.pdf, icon@2x.ico_1, sound@take.ogg",
    "logo@2x.final.png, sprite@3x.dark.webp, icon@2x.min.js",
    "Grace DE89370400440532013\u017f00",  # letters that are others in capitals
    "\u017fE8937040044053201300000 and \u212aE89 or \u0130T60",
]


@pytest.mark.parametrize("text", IMPERSONAL)
def test_numbers_that_are_no_personal_data(text: str) -> None:
    assert hide_personal_data(text) == ((), text)


def test_dates_addresses_and_decimals_beside_a_word_for_phones_are_none() -> None:
    draws = random.Random(0)
    forms: list[Callable[[], str]] = [
        lambda: draws.choice("./-").join(
            map(str, (draws.randint(1, 28), draws.randint(1, 12), draws.randint(1950, 2030)))
        ),
        lambda: ".".join(str(draws.randint(0, 255)) for _ in range(4)),
        lambda: f"10.{draws.randint(1000, 99999)}/{draws.randint(100, 99999999)}",
        lambda: f"{draws.uniform(0, 99):.8f}",
        lambda: " ".join(_digits(draws, 9)),
        lambda: f"{draws.randint(10**6, 10**8)} {draws.choice(['GB', 'lumens', 'V', 'W', 'px', 'copies'])}",
    ]
    words = ("call", "phone", "cell", "mobile", "Handy", "tel.", "fax no.")
    texts = [f"{word} {form()} of it" for form in forms for word in words for _ in range(50)]
    assert [text for text in texts if hide_personal_data(text)[0]] == []


BESIDE = ["{} 12/25", "12/25 {}", "{} 123", "123 {}", "{} 1234 5678", "1234 5678 {}", "{}/99", "{} and {}", "a_{}.jpg"]
# Each form of writing gives another sign; the last ones are what stands in names of files, and what shows nothing.
SIGNS = {
    " ": ["\u00a0", "\u202f", "\u2009", " ", "_", "\u200b ", "\u3000", "  "],
    "-": ["\u2010", "\u2011", "\u2013", "-", "_", "\u2060-", "\uff0d", "-"],
    "+": ["+", "+", "+", "+", "+", "+", "\uff0b", "+"],
    ".": [".", ".", ".", ".", ".", ".", ".", "."],
}


@pytest.mark.parametrize("kind", sorted({*DATA} - {"e-mail address"}))
@pytest.mark.parametrize("beside", BESIDE)
def test_personal_data_are_found_beside_other_numbers_and_with_the_signs_of_typesetters(kind: str, beside: str) -> None:
    for data in DATA[kind]:
        for number in range(len(SIGNS[" "])):
            written = data.translate({ord(sign): forms[number] for sign, forms in SIGNS.items()})
            text = beside.replace("{}", written)
            kinds, hidden = hide_personal_data(text)
            assert kind in kinds, text
            assert not any(part in hidden for part in _parts(written) if part not in beside), (text, hidden)


@pytest.mark.parametrize(
    "text",
    [
        "Contact john.smith@gmail.com\u2014we reply",
        "john.smith@gmail.com\u2013or call",
        "john.smith@gmail.com_2020.jpg",
        "john.smith@gmail.com-",
        "<a href='mailto:john.smith@gmail.com_x'>",
        "see http://a.com/john.smith@gmail.com\u2014x",
        "card\u200b4111111111111111",
        "card \uff14\uff11\uff11\uff11 1111 1111 1111",
        "card \u0664\u0661\u0661\u0661 1111 1111 1111",
        "4111 1111\n1111 1111",
        "4111\u200e1111\u200e1111\u200e1111",
        "Phone:\u200b212-555-1234\u200bCall",
        "+49 30\n123456",
        "DE 89 3704 0044 0532 0130 00",
        "<b>DE 89 3704 0044 0532 0130 00</b>",
    ],
)
def test_personal_data_are_found_whatever_stands_beside_or_within(text: str) -> None:
    kinds, hidden = hide_personal_data(text)
    assert len(kinds) == 1
    assert not any(part in hidden for part in ("smith", "gmail", "1111", "3704", "555", "123456"))
    found = check_texts([*CLEAN, text])
    assert found.personal[-1] == kinds[0]
    assert found.cleaned[-1] == ""


@pytest.mark.parametrize("address", ["jane\u200b@example.org", "jane\uff20example.org", "jane@example\uff0eorg"])
def test_an_address_with_signs_that_only_look_like_others_is_hidden(address: str) -> None:
    assert hide_personal_data(f"write to {address}, please") == (("e-mail address",), f"write to {MASK}, please")


@pytest.mark.parametrize(
    "text",
    ["+1 2 3 4 5 6 7 8 9 0 " * 1000, "+1.(2)/" * 3000, "0049 1" * 2000, "tel " + "1 " * 9000, "4 " * 9000,
     "DE89 " * 3000, "a@" * 9000, "a.b" * 5000 + "@c." * 3000, "call us now at no. " * 900, "(+1)-(2)-(3)-" * 1500],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    """Bounded by work, counted in calls, not in seconds; regular expressions repeat bounded parts only."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        hide_personal_data(text)
    finally:
        sys.setprofile(None)
    assert calls < 400 * len(text)


def test_a_number_in_a_file_name_is_not_quoted() -> None:
    for number in ("4155552671", "415 555 2671", "415_555_2671", "4111_1111_1111_1111", "4111111111111112"):
        found = check_texts([*CLEAN, f"contact_{number}.jpg"])
        assert found.problems[-1].startswith("file name")
        assert "41" not in found.problems[-1]


def test_what_follows_an_account_is_not_taken_for_a_part_of_it() -> None:
    assert hide_personal_data("pay to DE89 3704 0044 0532 0130 00 BLUE boat") == (
        ("bank account",),
        f"pay to {MASK} BLUE boat",
    )


# --- how often other numbers are taken for personal data, and these are found -----------------------------------------


def _digits(draws: random.Random, count: int) -> str:
    return "".join(draws.choices(string.digits, k=count))


def _ean(draws: random.Random, prefix: str = "") -> str:
    digits = prefix + _digits(draws, 12 - len(prefix))
    total = sum(int(digit) * (1 + 2 * (place % 2)) for place, digit in enumerate(digits))
    return f"{digits}{-total % 10}"


def _sku(draws: random.Random) -> str:
    letters = "".join(draws.choices(string.ascii_uppercase, k=draws.randint(2, 4)))
    patterns = [
        _digits(draws, draws.randint(7, 14)),
        f"{letters}-{_digits(draws, 4)}-{_digits(draws, 4)}",
        f"{letters}{_digits(draws, draws.randint(6, 12))}",
        f"{_digits(draws, 3)}-{_digits(draws, 7)}",
        f"{_digits(draws, 4)}-{_digits(draws, 4)}-{_digits(draws, 4)}",
        f"#{_digits(draws, draws.randint(6, 10))}",
        f"{_digits(draws, 3)}-{_digits(draws, 7)}-{_digits(draws, 7)}",  # of orders
    ]
    return draws.choice(patterns)


def _isbn(draws: random.Random) -> str:
    code = _ean(draws, "978")
    return f"{code[:3]}-{code[3]}-{code[4:6]}-{code[6:12]}-{code[12]}"


def _coordinates(draws: random.Random) -> str:
    north, east = draws.uniform(-90, 90), draws.uniform(-180, 180)
    return draws.choice((f"{north:.6f}, {east:.6f}", f"{north:+.4f} {east:+.4f}", f"{north:+09.5f}{east:+010.5f}/"))


OTHER_NUMBERS: dict[str, Callable[[random.Random], str]] = {
    "SKUs and order numbers": _sku,
    "EAN-13": _ean,
    "ISBN": _isbn,
    "dates": lambda draws: draws.choice(("{}-{:02}-{:02}", "{}/{:02}/{:02}", "{}.{:02}.{:02} 12:30:45")).format(
        draws.randint(1900, 2030), draws.randint(1, 12), draws.randint(1, 28)
    ),
    "coordinates": _coordinates,
    "IP addresses": lambda draws: ".".join(str(draws.randint(0, 255)) for _ in range(4)),
    "spans of years": lambda draws: f"{draws.randint(1900, 1990)}-{draws.randint(1991, 2030)}",
    "prices": lambda draws: f"${draws.randint(1, 999)},{draws.randint(0, 999):03}.{draws.randint(0, 99):02}",
    "16 random digits": lambda draws: _digits(draws, 16),
    "IBAN-like codes": lambda draws: f"{draws.choice(list(ACCOUNT_LENGTHS))}{_digits(draws, 20)}",
}
MOST_TAKEN = {"16 random digits": 0.05, "IBAN-like codes": 0.01}  # one of ten has the right check digit
NUMBERS = 1_000


@pytest.mark.parametrize("sort", OTHER_NUMBERS)
def test_other_numbers_are_rarely_taken_for_personal_data(sort: str) -> None:
    draws = random.Random(0)
    texts = [f"wooden chair {OTHER_NUMBERS[sort](draws)} in oak" for _ in range(NUMBERS)]
    taken = [text for text in texts if hide_personal_data(text)[0]]
    assert len(taken) <= MOST_TAKEN.get(sort, 0.002) * NUMBERS


REGIONS = [
    "US", "CA", "GB", "DE", "FR", "ES", "IT", "NL", "BE", "CH", "AT", "SE", "NO", "DK", "FI", "PL", "CZ", "PT",
    "GR", "IE", "TR", "RU", "UA", "IL", "AE", "SA", "EG", "ZA", "NG", "KE", "IN", "PK", "CN", "JP", "KR", "TH",
    "VN", "ID", "AU", "BR", "MX", "AR",
]  # fmt: skip
FORMS: dict[
    str, tuple[Callable[[phonenumbers.PhoneNumber], str], float]
] = {  # form -> (how it is written, least found)
    "international": (lambda n: phonenumbers.format_number(n, PhoneNumberFormat.INTERNATIONAL), 1.0),
    "E.164": (lambda n: phonenumbers.format_number(n, PhoneNumberFormat.E164), 1.0),
    "with 00": (lambda n: "00" + phonenumbers.format_number(n, PhoneNumberFormat.INTERNATIONAL)[1:], 1.0),
    "national, beside a word": (lambda n: "Tel.: " + phonenumbers.format_number(n, PhoneNumberFormat.NATIONAL), 0.95),
}


@pytest.mark.parametrize("form", FORMS)
def test_phone_numbers_of_many_regions_are_found(form: str) -> None:
    assert len(REGIONS) >= 40
    write, least = FORMS[form]
    kinds = (phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE)
    numbers = [phonenumbers.example_number_for_type(region, kind) for region in REGIONS for kind in kinds]
    texts = [f"please write to {write(number)} for a chair" for number in numbers]
    missed = [text for text in texts if "phone number" not in hide_personal_data(text)[0]]
    assert len(missed) <= (1 - least) * len(texts)


def test_national_numbers_alone_are_found_for_north_america_only() -> None:
    found = set()
    for region in REGIONS:
        number = phonenumbers.format_number(phonenumbers.example_number(region), PhoneNumberFormat.NATIONAL)
        if hide_personal_data(f"at {number} for a chair")[0]:
            found.add(region)
    assert found == {"US", "CA"}


def test_cards_of_all_issuers_are_found() -> None:
    draws = random.Random(0)
    for prefix, length in (("4", 16), ("51", 16), ("2221", 16), ("34", 15), ("6011", 16), ("65", 16), ("36", 14)):
        for _ in range(50):
            digits = prefix + _digits(draws, length - len(prefix) - 1)
            total = 0
            for place, digit in enumerate(reversed(digits)):
                value = int(digit) * (2 - place % 2)
                total += value - 9 if value > 9 else value
            assert hide_personal_data(f"card {digits}{-total % 10}, valid")[0] == ("payment card",)
