"""What is wrong with a text whatever it describes: damage, markup, addresses, file names, advertising, repetition.

Each check looks at one text and names the piece that shows the fault, which people see. Checks marked `by_set` find
what may be the style of a set (prices in a shop, captions of digits): they count only where at most `COMMON` of the
distinct texts show it, and are noted otherwise. Personal data are looked for first, and hidden from the checks, so that
no piece holds them; they are not a fault. Phrases are English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ftfy
import numpy as np
from ftfy.badness import is_bad
from numpy.typing import NDArray

from audit_plugin.arrays import count_text
from audit_plugin.inputs.languages import unlike_most

from .personal_data import FILE_ENDINGS, MASK, hide_personal_data, without_long_numbers
from .text_cleaning import READ, clean_text, find_address, find_markup, unescape

COMMON = 0.1  # share of the distinct texts above which what a check `by_set` finds is the set's style
LEAST_TEXTS, MOST = 3, 0.5  # fewer distinct ones are a style only if they are most of the set
LONGEST_PIECE = 40  # characters of a piece that is shown
READ_FOR_PERSONAL = READ + 100  # so that a number at the end of what is looked at is whole

WORD_TIMES, PHRASE_TIMES, LETTER_TIMES = 4, 3, 6  # in a row: a repetition
REPEATED_TIMES = 8  # of the words that people repeat
REPEATED = {
    "very", "so", "really", "much", "far", "long", "big", "more", "many", "ha", "haha", "la", "na", "no", "yes",
    "oh", "hey", "bla", "blah", "knock", "tick",
}  # fmt: skip
LONGEST_PHRASE = 12  # words
LEAST_WORDS, LEAST_DISTINCT = 10, 0.35  # of a text, from which on it must have this share of distinct words
LETTERS_IN_A_ROW = re.compile(rf"([^\W\d_]|[!?.,*=_~-])\1{{{LETTER_TIMES - 1},}}")

# Names that cameras give, and words that they begin with only where digits follow at once or after a sign.
CAMERA_NAME = re.compile(
    r"(?<![^\W_])(?:"
    r"(?:IMG|DSC[FN]?|MVI|GOPR|PXL|CIMG)[_-]?\d{4,20}"
    r"|(?:SAM|MG|WP|VID|DJI|Screenshot|image|photo|picture|pic)[_-]\d{4,20}"
    r"|(?:image|photo|picture|pic)\d{5,20}"
    r"|P\d{7}(?!\d))(?:[\w()-]{0,40}\.\w{3,4})?\b"
    r"|^\W*(?:IMG|DSC[FN]?|MVI|GOPR|PXL|CIMG) \d{4,20}\W*$",
    re.IGNORECASE,
)
FILE_ENDING = re.compile(rf"(?<=[\w()%+.,{MASK}-])\.(?:{FILE_ENDINGS})\b", re.IGNORECASE)
IN_FILE_NAME = re.compile(rf"[\w()%+.,{MASK}-]")
LONGEST_FILE_NAME = 255

# A sign in a picture may say what would be advertising as a caption.
DEPICTED = re.compile(
    r"\b(?:sign(?! (?:up|in)\b)|signs|says?|saying|reading|written|banner|billboard|words|letters|price tag)\b",
    re.IGNORECASE,
)
NOTE_OR_COIN = r"(?! ?(?:bills?|notes?|coins?|banknotes?|million|billion|[mb]n)\b)(?![\d.,]*\d)"
AMOUNT = r"\d[\d.,]{0,20}"
PRICE = re.compile(
    rf"(?:[$€£¥₹] ?{AMOUNT}|(?<![\w.,]){AMOUNT} ?(?:[€£¥₹]|(?:USD|EUR|GBP|JPY|INR|CNY)\b)){NOTE_OR_COIN}"
)
# What is never said of a picture.
SURE_ADVERTISING = re.compile(
    r"\b(?:all rights reserved|stock (?:photos?|images?|vectors?|illustrations?|footage|video)|royalty[- ]free|"
    r"getty images|shutterstock|istock(?:photo)?|alamy|dreamstime|depositphotos|123rf|"
    r"please (?:log ?in|sign (?:in|up)|register|subscribe|click))\b|©\s?(?:\d{4}|(?-i:[A-Z]))",
    re.IGNORECASE,
)
# What is said of a picture only where it shows a sign.
CALL = re.compile(
    r"\b(?:free (?:shipping|delivery|download|returns)|buy (?:now|online|\d+ get)|add to (?:cart|basket|bag)|"
    r"click here|shop now|order now)\b",
    re.IGNORECASE,
)
# What is advertising as a clause of its own: "wooden chair, in stock", but not "a store with shoes in stock".
OFFERS = (
    r"on sale|in stock|out of stock|sold out|best price|(?:save |get |up to |extra ){0,2}\d{1,2} ?% off|"
    r"sign up|sign in|log ?in|(?:read|learn|see|view) more|coming soon|(?:on|via|from) pinterest|"
    r"cookie policy|privacy policy|terms of (?:use|service)"
)
OFFER = re.compile(rf"\b(?:{OFFERS})(?!\w)", re.IGNORECASE)
WHOLE_OFFER = re.compile(
    rf"(?:now |currently )?(?:{OFFERS})(?: now| today| here| online)?"
    r"|(?:log ?in|sign (?:in|up)) (?:to continue|to view|to see|to your|for our|for free)\b.{0,200}"
    r"|(?:read|learn) more (?:about|at|on|here)\b.{0,200}"
    r"|click to (?:enlarge|view|zoom|see|buy|open|download|play)\b.{0,200}",
    re.IGNORECASE,
)
BREAK = re.compile(r"[|•·»\n]|\s[-–—]{1,3}\s")  # between a caption and what is added to it
CLAUSE_END = re.compile(r"[|•·»\n.,;:!?()]|\s[-–—]{1,3}\s")
AROUND_CLAUSE = " \t.,;:!?()[]<>\"'*-–—"

MEDIUM = r"(?:image|photo|picture|caption|description)"
WHOLE_NO_CAPTION = re.compile(
    rf"placeholder|untitled|no title|n/?a|null|none|nan|undefined|tbd|todo|alt text|(?:no|missing) {MEDIUM}",
    re.IGNORECASE,
)
NO_CAPTION = re.compile(
    rf"\blorem ipsum\b|\bno {MEDIUM}s? (?:is |are )?(?:yet |currently )?(?:available|provided|found)\b"
    rf"|\b{MEDIUM} (?:is )?(?:not |un)available\b|\b{MEDIUM} (?:not found|coming soon)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Check:
    """One entry of the table.

    Attributes:
        name: as people read it.
        find: text -> the first piece that shows the fault, or "".
        by_set: counts only where few texts of the set show it.
    """

    name: str
    find: Callable[[str], str]
    by_set: bool = False


@dataclass(frozen=True)
class TextProblems:
    """What checks found in n texts.

    Attributes:
        problems: object `[n]`: `web address "www.a.com"; price "$5"`, or "".
        cleaned: object `[n]`: the text without what can be taken off it, where that is a caption without any fault or
            personal data; else "".
        personal: object `[n]`: kinds of personal data, `e-mail address, phone number`, or "": never the data.
        notes: what many texts show, for people.
    """

    problems: NDArray[Any]
    cleaned: NDArray[Any]
    personal: NDArray[Any]
    notes: tuple[str, ...] = field(default=())

    @staticmethod
    def none(n: int) -> TextProblems:
        """Of n texts that were not checked."""
        nothing = np.full(n, "", dtype=object)
        return TextProblems(nothing, nothing, nothing)


@dataclass(frozen=True)
class _Reading:
    """A text as the checks see it: its damage, its repaired letters without personal data, and their kinds.

    `quotes`: whether pieces may be shown. They are not where damage or entities may hide parts of personal data.
    """

    damage: str
    text: str
    personal: tuple[str, ...]
    quotes: bool


def check_texts(texts: Sequence[str]) -> TextProblems:
    """What is wrong with each of n texts; equal texts have equal answers. O(length of the distinct texts)."""
    distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    readings = [_read(text) for text in distinct]
    shown = {DAMAGE: [_shown(DAMAGE, reading.damage, reading.quotes) for reading in readings]}
    for check in CHECKS:
        shown[check.name] = [_shown(check.name, check.find(reading.text), reading.quotes) for reading in readings]
    languages = unlike_most([reading.text for reading in readings])
    shown[OTHER_LANGUAGE] = [_shown_language(language) for language in languages]

    notes = []
    longer = sum(len(text) > READ for text in distinct)
    if longer:
        counted = count_text(longer, "distinct text is", "distinct texts are")
        notes.append(
            f"{counted} longer than {READ:,} characters: the rest was not checked, including for personal data"
        )
    for name in sorted({OTHER_LANGUAGE, *(check.name for check in CHECKS if check.by_set)}):
        count = sum(map(bool, shown[name]))
        share = count / max(len(distinct), 1)
        if share > (COMMON if count >= LEAST_TEXTS else MOST):
            notes.append(
                f'{share:.0%} of the distinct texts have the text problem "{name}": it is taken for the style of the '
                "set and not flagged"
            )
            del shown[name]

    problems = ["; ".join(filter(None, of_text)) for of_text in zip(*shown.values(), strict=True)]
    judged = [check for check in CHECKS if check.name in shown]
    cleaned = []
    for text, reading, problem in zip(distinct, readings, problems, strict=True):
        cleaned.append(_proposal(text, judged) if problem and not reading.personal else "")
    personal = [", ".join(reading.personal) for reading in readings]
    rows = np.array([distinct[text] for text in texts], dtype=np.int64)

    def of_rows(values: list[str]) -> NDArray[Any]:
        return np.array(values, dtype=object)[rows] if len(rows) else np.zeros(0, dtype=object)

    return TextProblems(of_rows(problems), of_rows(cleaned), of_rows(personal), tuple(notes))


def _read(text: str) -> _Reading:
    """The text with repaired letters, so that a damaged one is not a second fault, and its personal data hidden."""
    given = text[:READ_FOR_PERSONAL]
    repaired = ftfy.fix_encoding(given)
    unescaped = unescape(repaired)
    kinds: dict[str, None] = {}  # in the order in which they are found
    for version in dict.fromkeys((repaired, given, unescaped)):
        kinds |= dict.fromkeys(hide_personal_data(version)[0])
    hidden = hide_personal_data(repaired)[1][:READ]
    is_plain = given == repaired == unescaped
    return _Reading(_damage(given[:READ]), hidden, tuple(kinds), is_plain or not kinds)


def _proposal(text: str, judged: Sequence[Check]) -> str:
    """The cleaned text, or "" where a check finds something in it as well."""
    cleaned = clean_text(text)
    has_faults = any(check.find(cleaned) for check in judged)
    return "" if has_faults or hide_personal_data(cleaned)[0] else cleaned


def _shown(name: str, piece: str, quotes: bool) -> str:
    """What is said of a piece: `price "$5"`; without the piece where that may hold personal data; "" without one."""
    if not piece:
        return ""
    piece = without_long_numbers(" ".join(piece.split()))
    if not quotes or not piece.strip(MASK):
        return name
    return f'{name} "{piece if len(piece) <= LONGEST_PIECE else piece[:LONGEST_PIECE] + "…"}"'


def _shown_language(language: str | None) -> str:
    if language is None:
        return ""
    return f'{OTHER_LANGUAGE} "{language}"' if language else OTHER_LANGUAGE


def _first(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def find(text: str) -> str:
        found = pattern.search(text)
        return found[0] if found else ""

    return find


def _damage(text: str) -> str:
    """A piece that was decoded by another encoding than it was written in, or lost; by ftfy."""
    if text.isascii():
        return ""
    if "\ufffd" in text:
        return "\ufffd"
    if ftfy.fix_encoding(text) == text:
        return ""
    return next((word for word in text.split() if is_bad(word)), text)


def _file_name(text: str) -> str:
    if found := CAMERA_NAME.search(text):
        return found[0]
    if ending := FILE_ENDING.search(text):
        start = ending.start()
        while start > max(0, ending.start() - LONGEST_FILE_NAME) and IN_FILE_NAME.match(text[start - 1]):
            start -= 1
        return text[start : ending.end()]
    return ""


def _price(text: str) -> str:
    found = PRICE.search(text)
    return found[0] if found and not DEPICTED.search(text) else ""


def _advertising(text: str) -> str:
    """A phrase that is never said of a picture, or one that stands where it is not said of it."""
    if sure := SURE_ADVERTISING.search(text):
        return sure[0]
    added = _whole_clause(text, BREAK, WHOLE_OFFER)
    if added or DEPICTED.search(text):
        return added
    if call := CALL.search(text):
        return call[0]
    if clause := _whole_clause(text, CLAUSE_END, WHOLE_OFFER):
        return clause
    offers = [found[0] for found in OFFER.finditer(text)]
    several = len(set(map(str.lower, offers))) > 1
    return offers[0] if several else ""


def _no_caption(text: str) -> str:
    """What stands where a caption is missing: "Untitled", "No image available"."""
    if whole := _whole_clause(text, BREAK, WHOLE_NO_CAPTION):
        return whole
    found = NO_CAPTION.search(text)
    return found[0] if found and not DEPICTED.search(text) else ""


def _whole_clause(text: str, end: re.Pattern[str], phrase: re.Pattern[str]) -> str:
    """The first part of a text between ends that is such a phrase as a whole, or ""."""
    for part in end.split(text):
        clause = part.strip(AROUND_CLAUSE)
        if phrase.fullmatch(clause):
            return clause
    return ""


def _repetition(text: str) -> str:
    """A letter, word or phrase several times in a row, or a long text of few words."""
    if letters := LETTERS_IN_A_ROW.search(text):
        return letters[0]
    words = text.split()
    lower = [word.lower().strip(".,;:!?\"'()") for word in words]
    for size in range(1, min(LONGEST_PHRASE, len(words) // 2) + 1):
        run = 0  # of words that are equal to the one a phrase later
        for at in range(len(words) - size):
            run = run + 1 if lower[at] == lower[at + size] != "" else 0
            phrase = lower[at + 1 : at + 1 + size]
            if run >= size and run == size * (_too_many(phrase) - 1):
                return " ".join(words[at + 1 - run : at + 1 + size])
    is_poor = len(words) >= LEAST_WORDS and len(set(lower)) < LEAST_DISTINCT * len(words)
    return words[0] if is_poor else ""


def _too_many(phrase: Sequence[str]) -> int:
    """How many times in a row are a repetition of a phrase."""
    if REPEATED.issuperset(phrase):
        return REPEATED_TIMES
    return WORD_TIMES if len(phrase) == 1 else PHRASE_TIMES


def _no_words(text: str) -> str:
    """A text without a letter: numbers, signs, emoji; but not personal data alone."""
    return "" if MASK in text or any(letter.isalpha() for letter in text) else text.strip()


DAMAGE = "encoding damage"
OTHER_LANGUAGE = "another language"
CHECKS = (
    Check("markup", find_markup),
    Check("web address", find_address),
    Check("file name", _file_name),
    Check("price", _price, by_set=True),
    Check("advertising", _advertising, by_set=True),
    Check("no caption", _no_caption, by_set=True),
    Check("repetition", _repetition, by_set=True),
    Check("no words", _no_words, by_set=True),
)
