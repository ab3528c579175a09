"""Which languages captions are in, as far as an encoder that reads English must be warned of them.

Texts in other scripts are certainly not English. Of those in Latin letters, a language counts only where it is likely
for the set: one caption of two words says little, and English names and brands look like all languages. Measured: no
language is shown by English captions, by the 1,000 class names of ImageNet, or by 1,949 names of emoji, and by less
than 1 % of random sets of 3 to 25 English names; by 90 % of sets of 10 names of one word in German, French, Spanish,
Italian, Dutch and Swedish, and by all sets of 25.
"""

from __future__ import annotations

import copy
import functools
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

MIN_SHARE = 0.05  # of the distinct texts, and at least `LEAST_TEXTS`: less is no language of the set
LEAST_TEXTS = 3
CERTAIN, LIKELY = 0.02, 0.1  # probability of English, below which a text shows a language, or counts for a shown one
CLEAR = 0.5  # probability of a language, above which `LIKELY` is enough for texts that are judged together
SHORT_WORDS = 3  # texts of fewer words are judged together: names of classes
MOST_SHORT = 500  # distinct ones that are joined
SAMPLED = 20_000  # distinct texts that are looked at, evenly spaced
LETTERS = 200  # of a text that decide about its script
LAST_LATIN = 0x24F  # code point of the last letter of "Latin Extended-B"
LATIN_ADDITIONAL = frozenset(map(chr, range(0x1E00, 0x1F00)))  # "Latin Extended Additional", as in Vietnamese

CLEARLY, HARDLY = 0.99, 1e-4  # probabilities of a text's language, and of that of its set, where they differ clearly
LEAST_WORDS = 5  # of a text that is judged alone, in the script of its set
LEAST_LETTERS = 3  # of a text that is judged alone, in another script: one letter is a sign, such as "π"
NAMED_FROM = 0.9  # probability of a language among those of the tables, below which it is not named

ENGLISH = "en"
LATIN = {
    "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German", "es": "Spanish", "et": "Estonian", "fi": "Finnish",
    "fr": "French", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "lt": "Lithuanian",
    "lv": "Latvian", "ms": "Malay", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "tr": "Turkish", "vi": "Vietnamese",
}  # fmt: skip
OTHER_SCRIPTS = {
    "am": "Amharic", "ar": "Arabic", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "el": "Greek",
    "fa": "Persian", "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi", "hy": "Armenian", "ja": "Japanese",
    "ka": "Georgian", "kk": "Kazakh", "km": "Khmer", "kn": "Kannada", "ko": "Korean", "lo": "Lao", "mk": "Macedonian",
    "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi", "ne": "Nepali", "pa": "Punjabi", "ru": "Russian",
    "si": "Sinhala", "sr": "Serbian", "ta": "Tamil", "te": "Telugu", "th": "Thai", "uk": "Ukrainian", "ur": "Urdu",
    "zh": "Chinese",
}  # fmt: skip
UNNAMED = "another script"  # of texts whose language is not identified


def foreign_languages(texts: Sequence[str]) -> dict[str, int]:
    """Language that is not English -> number of texts in it, most first; names of languages, or `UNNAMED`.

    Without the package py3langid, only texts in other scripts are counted, as `UNNAMED`. Of more than `SAMPLED`
    distinct texts, a part is looked at and the numbers are estimates.
    """
    counts = Counter(texts)
    step = -(-len(counts) // SAMPLED) or 1
    sampled = dict(list(counts.items())[::step])
    identifiers = _identifiers()
    other = [text for text in sampled if is_other_script(text)]
    if identifiers is None:
        languages = dict.fromkeys(other, UNNAMED)
    else:
        in_latin, in_other_scripts, _ = identifiers
        languages = {text: OTHER_SCRIPTS[in_other_scripts.classify(_plain_letters(text))[0]] for text in other}
        latin = [text for text in sampled if text not in languages]
        languages |= {text: LATIN[code] for text, code in _latin_languages(latin, in_latin).items()}
    found: Counter[str] = Counter()
    for text, language in languages.items():
        found[language] += sampled[text]
    scale = len(texts) / max(sum(sampled.values()), 1)
    return {language: round(count * scale) for language, count in found.most_common()}


def unlike_most(texts: Sequence[str]) -> list[str | None]:
    """The language of each text that is clearly not in the one of most, or not in its script; None for the others.

    It is "" where it is not certain which one it is: where it is not likely among the languages of its script, where
    py3langid takes the text for a language that is not in the tables above, and without that package, with which only
    scripts are compared. Which language most texts are in is decided by many of them together, so that names and brands
    do not matter. Texts of few words, and of few letters in another script, are not judged.
    """
    texts = [_plain_letters(text) for text in texts]
    others = [is_other_script(text) for text in texts]
    is_latin = 2 * sum(others) <= len(texts)
    same_script = [text for text, other in zip(texts, others, strict=True) if other != is_latin]
    identifiers = _identifiers()
    unlike: list[str | None] = [None] * len(texts)
    if not same_script:
        return unlike
    of_most = ""
    if identifiers is not None:
        step = -(-len(same_script) // MOST_SHORT) or 1
        of_most = identifiers[not is_latin].rank(", ".join(same_script[::step]))[0][0]
    for position, (text, other) in enumerate(zip(texts, others, strict=True)):
        if other == is_latin:  # in another script than most
            if _letters(text) >= LEAST_LETTERS:
                unlike[position] = _name(text, other)
        elif identifiers is not None and len(text.split()) >= LEAST_WORDS:
            ranked = identifiers[other].rank(text)
            if ranked[0][1] > CLEARLY and dict(ranked)[of_most] < HARDLY:
                unlike[position] = _name(text, other)
    return unlike


def _name(text: str, in_other_script: bool) -> str:
    """The language of a text, or "" where that is not certain."""
    identifiers = _identifiers()
    if identifiers is None:
        return ""
    code, probability = identifiers[in_other_script].rank(text)[0]
    of_all = identifiers[2].classify(text)[0]  # which may be a language that is not in the tables
    is_certain = probability >= NAMED_FROM and of_all == code
    return (LATIN | OTHER_SCRIPTS | {ENGLISH: "English"})[code] if is_certain else ""


def _plain_letters(text: str) -> str:
    """The text with letters of other widths and styles as plain ones, as in fullwidth or mathematical letters."""
    return unicodedata.normalize("NFKC", text)


def _letters(text: str) -> int:
    return sum(letter.isalpha() for letter in text[:LETTERS])


def is_other_script(text: str) -> bool:
    """Whether most letters of a text are not Latin."""
    letters = [letter for letter in _plain_letters(text[:LETTERS]) if letter.isalpha()]
    return sum(not _is_latin(letter) for letter in letters) > len(letters) / 2


def _is_latin(letter: str) -> bool:
    return ord(letter) <= LAST_LATIN or letter in LATIN_ADDITIONAL


def _latin_languages(texts: Sequence[str], identifier: Any) -> dict[str, str]:
    """Code of the language of each text that is not English, among distinct ones in Latin letters."""
    short = [text for text in texts if len(text.split()) < SHORT_WORDS]
    ranked = {text: identifier.rank(_plain_letters(text)) for text in texts if len(text.split()) >= SHORT_WORDS}
    shown = Counter(best[0] for text in ranked if (best := _foreign(ranked[text], CERTAIN)))
    languages = {code for code, count in shown.items() if count >= max(LEAST_TEXTS, MIN_SHARE * len(ranked))}
    codes = {text: best[0] for text in ranked if (best := _foreign(ranked[text], LIKELY)) and best[0] in languages}
    if len(short) >= LEAST_TEXTS:
        ranked_together = identifier.rank(", ".join(short[:MOST_SHORT]))
        best = _foreign(ranked_together, LIKELY)
        if best and (best[1] > CLEAR or _foreign(ranked_together, CERTAIN)):
            codes |= dict.fromkeys(short, best[0])
    return codes


def _foreign(ranked: Sequence[tuple[str, float]], limit: float) -> tuple[str, float] | None:
    """The best language and its probability where that of English is below the limit; else None."""
    return ranked[0] if ranked[0][0] != ENGLISH and dict(ranked)[ENGLISH] < limit else None


@functools.lru_cache(maxsize=1)  # keeps 100 MB and saves half a second
def _identifiers() -> tuple[Any, Any, Any] | None:
    """py3langid for texts in Latin letters, for all others, and of all its languages; None without the package."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    latin = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    others = copy.copy(latin)
    of_all = copy.copy(latin)
    latin.set_languages([ENGLISH, *LATIN])
    others.set_languages(list(OTHER_SCRIPTS))
    return latin, others, of_all
