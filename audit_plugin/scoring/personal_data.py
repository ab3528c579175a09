"""Personal data in a text: where they are, of which kind, and the text without them.

A kind is named only where its form makes it likely (check digits, issuers, countries, separators), since long numbers
in captions are mostly those of products. What is not certain, such as a national number that stands alone, is not
named; `without_long_numbers` still keeps such numbers out of what is quoted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

Span = tuple[int, int]  # the first character and the one after the last

MASK = "█"  # stands for personal data where a text is quoted: no letter, digit or space, so that no check looks at it
FILE_ENDINGS = "jpe?g|png|gif|webp|bmp|tiff?|heic|avif|jxl|jp2|svgz?|psd|mp4|mov|avi|webm|mkv|wav|mp3|flac|ogg|opus|m4a"
NO_DOMAINS = (
    f"{FILE_ENDINGS}|ico|eps|pdf|txt|csv|json|js|css|zip|gz"  # endings of files, where an address has its domain
)

# Signs of typesetters and of East Asian keyboards, one for one as those of a keyboard, so that places stay.
SPACES, HYPHENS, WIDE = (
    "\t\n\v\f\r\x85\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000",
    "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\uff0d",
    "\uff20\uff0b\uff0e\uff08\uff09\uff1a",  # full width
)
PLAIN = str.maketrans(SPACES + HYPHENS + WIDE, " " * len(SPACES) + "-" * len(HYPHENS) + "@+.():")
# Signs that show nothing: they may stand within a number, or between words
UNSEEN = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufe0f\ufeff"
AS_BLANKS = str.maketrans(UNSEEN, " " * len(UNSEEN))
BETWEEN_DIGITS = re.compile(r"(?<=[\d)])_(?=[\d(])")  # in names of files, where no blank may stand

# Lengths are bounded, as in the standards, so that no text makes a search longer than linear.
EMAIL = re.compile(
    r"(?<![\w.+'%-])[\w.+'%-]{1,64}(?:@|%40|&#64;)(?!\dx\.)"  # icon@2x.png is an icon of twice the size
    rf"(?:[^\W_][\w-]{{0,62}}\.){{1,8}}(?!(?:{NO_DOMAINS})(?![^\W_]))[^\W\d_]{{2,24}}(?![^\W_])",
    re.IGNORECASE,
)
# ISO/IEC 7812: (first and last prefix, lengths). Visa numbers of 13 digits are obsolete, and look like EAN-13 codes.
ISSUERS = (
    (("4", "4"), (16, 19)),  # Visa
    (("51", "55"), (16,)),  # Mastercard
    (("2221", "2720"), (16,)),  # Mastercard
    (("34", "34"), (15,)),  # American Express
    (("37", "37"), (15,)),  # American Express
    (("6011", "6011"), (16, 19)),  # Discover
    (("644", "659"), (16, 19)),  # Discover
    (("300", "305"), (14,)),  # Diners Club
    (("36", "36"), (14,)),  # Diners Club
    (("38", "39"), (14, 16)),  # Diners Club
    (("3528", "3589"), (16,)),  # JCB
    (("62", "62"), (16, 19)),  # UnionPay
)
CARD_GROUPS = ((4, 4, 4, 4, 3), (4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (6, 13), (19,), (16,), (15,), (14,))  # digits
ALONE = r"(?<![^\W_])(?<!\d[.,])", r"(?![^\W_])(?![.,]\d)"  # before and after a number that is no part of another


def _card_pattern(groups: tuple[int, ...]) -> re.Pattern[str]:
    """Groups of digits with the same sign between them; in a lookahead, since other groups may stand beside."""
    written = [sign.join(rf"\d{{{length}}}" for length in groups) for sign in (" {1,2}", "-", r"\.")]
    return re.compile(rf"{ALONE[0]}(?=(?P<card>{'|'.join(written)}){ALONE[1]})")


CARDS = [_card_pattern(groups) for groups in CARD_GROUPS]

ACCOUNT_START = re.compile(r"(?<![^\W_])[A-Za-z]{2} ?\d{2}")
ACCOUNT_LENGTHS = {  # ISO 13616: country -> characters of its IBAN
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18,
    "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24,
    "XK": 20,
}  # fmt: skip

BETWEEN = r"[ ()/.-]{0,3}"  # the digits of a phone number
DEGREES = r"\d{1,3}\.\d{4,8}(?!\d)"  # of a coordinate
INTERNATIONAL = re.compile(
    rf"(?<![^\W_])(?<![.+])(?:\+|00(?=[1-9]))(?!{DEGREES})\(?\d(?:{BETWEEN}\d){{6,24}}(?![^\W_])"
)
_SIGN = r"(?:[-.]| {1,2})"
NORTH_AMERICAN = re.compile(
    rf"(?<![^\W_])(?<![.,+$-])(?:\+?1[-. ])?(?:\(\d{{3}}\)[ -]{{0,2}}|\d{{3}}{_SIGN})\d{{3}}{_SIGN}\d{{4}}"
    r"(?![^\W_]|-|/[^\W\d]|[.,]\d)"
)
PHONE_WORD = (
    r"(?:tel|telephone|telefono?|teléfono|telefone|tél|téléphone|phone|mobile|mobil|móvil|cell|handy|call|dial|fax|"
    r"whatsapp|sms)"
)
LINK_WORD = r"(?:no|nr|num|number|numéro|us|me|him|her|now|at|on|is)"
UNITS = (
    r"(?:px|pixels?|units?|uses?|users?|times|pieces|copies|hours?|mah|[kmgt]i?b|lumens?|lm|volts?|v|watts?|w|[kmg]?hz|[mck]?m|"
    r"[mk]?g|ml|dollars?|euros?|usd|eur)"
)
# What may stand beside such a word, and is no number of a phone
OTHER_NUMBERS = "|".join((
    r"\d{1,3}(?:[ .]\d{3})*[ .]000(?!\d)",  # a round number
    rf"\d+ ?{UNITS}\b",
    r"(?:19|20)\d\d[ ./-](?:(?:19|20)\d\d|\d\d?[ ./-]\d\d?)(?!\d)",  # years, or a date
    r"\d\d?(?P<sign>[./-])\d\d?(?P=sign)(?:19|20)\d\d(?!\d)",  # a date that begins with the day or month
    r"(?:\d{1,3}\.){3}\d{1,3}(?![\d.])",  # an IP address
    r"10\.\d{4,9}/",  # a DOI
    r"\d+\.\d+(?![\d .()/-]*\d)",  # a decimal number
    r"\d(?:[ ()/.-]{1,3}\d)*(?![ ()/.-]{0,3}\d)",  # digits one by one
    r"\d+ \((?:19|20)\d\d\)",  # a volume and year
    rf"\d+\.(?:{FILE_ENDINGS})(?![^\W_])",  # the number of a file
    r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:-\d{4,6})?(?!\d)",  # a time stamp
))  # fmt: skip
BESIDE_WORD = re.compile(
    rf"(?<![^\W_]){PHONE_WORD}(?![^\W_])[.:]{{0,2}}(?:\s{{1,3}}{LINK_WORD}\b[.:]?){{0,3}}[\s_]{{0,3}}"
    rf"(?P<number>(?!{OTHER_NUMBERS})\+?\(?\d(?:{BETWEEN}\d){{6,14}})(?![\w])",
    re.IGNORECASE,
)
PRODUCT_LENGTHS = (12, 13, 14)  # digits of UPC-A, EAN-13 and GTIN-14 codes, some of which begin with 00
PHONE_DIGITS, MOST_TRIED = (7, 15), 4  # of a number with its country's code (ITU E.164); ends that are tried
REGION = "US"  # whose national numbers are recognized by their form alone

# As long as the shortest phone numbers; in names of files, where dates are frequent, as those with an area.
LONG_NUMBER = re.compile(
    r"(?:(?<!\w)\+?\(?\d(?:[ ()/.-]{0,3}\d){6}|(?<=[^\W\d])\d(?:[ ()/.-]{0,3}\d){8})(?:[ ()/.-]{0,3}\d)*"
)


def hide_personal_data(text: str) -> tuple[tuple[str, ...], str]:
    """(kinds of personal data in a text, the text with `MASK` in place of each)."""
    spans: list[Span] = []
    kinds: dict[str, None] = {}
    for plain, places in _readings(text):
        for kind, find in PERSONAL.items():
            for start, end in find(plain):
                kinds[kind] = None
                spans.append((places[start], places[end - 1] + 1))
    return tuple(kind for kind in PERSONAL if kind in kinds), _masked(text, spans)


def _readings(text: str) -> list[tuple[str, Sequence[int]]]:
    """(a text with the digits and signs of a keyboard, the place of each character in the text).

    Signs that show nothing may stand within a number or between words: they are left out, and once they are blanks.
    """
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in text)
    if not any(sign in text for sign in UNSEEN):
        return [(_plain(text), range(len(text)))]
    places = [place for place, sign in enumerate(text) if sign not in UNSEEN]
    without = "".join(text[place] for place in places)
    return [(_plain(without), places), (_plain(text.translate(AS_BLANKS)), range(len(text)))]


def _plain(text: str) -> str:
    return BETWEEN_DIGITS.sub("-", text.translate(PLAIN))


def without_long_numbers(piece: str) -> str:
    """A quoted piece with `MASK` in place of each number that may be personal though it was not recognized."""
    spans = [
        (places[found.start()], places[found.end() - 1] + 1)
        for plain, places in _readings(piece)
        for found in LONG_NUMBER.finditer(plain)
    ]
    return _masked(piece, spans)


def _masked(text: str, spans: list[Span]) -> str:
    """The text with one `MASK` for each stretch that spans cover; overlapping ones are one stretch."""
    parts, end = [], 0
    for start, stop in sorted(spans):
        if start >= end:
            parts += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def _emails(text: str) -> Iterator[Span]:
    for found in EMAIL.finditer(text):
        yield found.span()


def _cards(text: str) -> Iterator[Span]:
    for pattern in CARDS:
        for found in pattern.finditer(text):
            digits = re.sub(r"\D", "", found["card"])
            if _has_issuer(digits) and _has_check_digit(digits):
                yield found.span("card")


def _has_issuer(digits: str) -> bool:
    return any(first <= digits[: len(first)] <= last and len(digits) in lengths for (first, last), lengths in ISSUERS)


def _has_check_digit(digits: str) -> bool:
    """Luhn: the sum of the digits, every second one from the right doubled (less 9 where above 9), ends in 0."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + position % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _accounts(text: str) -> Iterator[Span]:
    """ISO 13616: moved to the end, its country and check digits make it 1 modulo 97; letters count from 10."""
    for start in ACCOUNT_START.finditer(text):
        length = ACCOUNT_LENGTHS.get(start[0][:2].upper())
        rest = re.compile(rf"(?:[ ._-]{{0,2}}[A-Za-z0-9]){{{length - 4}}}(?![^\W_])") if length else None  # re keeps it
        if rest and (found := rest.match(text, start.end())):
            moved = re.sub("[ ._-]", "", found[0] + start[0])
            if int("".join(str(int(letter, 36)) for letter in moved)) % 97 == 1:
                yield start.start(), found.end()


def _phones(text: str) -> Iterator[Span]:
    """Numbers of any country with its code, of North America by their form, and any beside a word such as "tel"."""
    for found in INTERNATIONAL.finditer(text):
        prefix = "+" if found[0].startswith("+") else "00"
        number = found[0].removeprefix(prefix)
        is_product = found[0].isdigit() and len(found[0]) in PRODUCT_LENGTHS and _has_product_digit(found[0])
        if not is_product and (length := _length_of_phone(f"+{number}")):
            yield found.start(), found.start() + len(prefix) + length - 1
    for found in NORTH_AMERICAN.finditer(text):
        if _length_of_phone(found[0]):
            yield found.span()
    for found in BESIDE_WORD.finditer(text):
        if not _is_series(found["number"]):
            yield found.span("number")


def _is_series(number: str) -> bool:
    """Whether short groups of digits rise, as sizes and marks on a dial do: `36/40/42/44`."""
    groups = re.findall(r"\d+", number)
    values = list(map(int, groups))
    is_rising = all(low < high for low, high in pairwise(values))
    return len(groups) >= 3 and is_rising and max(map(len, groups)) <= 3 and not re.match("0.", groups[0])


def _length_of_phone(number: str) -> int:
    """Characters up to the end of the longest phone number that a piece begins with; 0 without one."""
    import phonenumbers

    ends = [found.start() for found in re.finditer(r"(?<=\d)\D", number)] + [len(number)]
    lengths = {end: sum(map(str.isdigit, number[:end])) for end in ends}
    possible = [end for end, digits in lengths.items() if PHONE_DIGITS[0] <= digits <= PHONE_DIGITS[1]]
    for end in reversed(possible[-MOST_TRIED:]):
        if phonenumbers.PhoneNumberMatcher(number[:end], REGION).has_next():
            return end
    return 0


def _has_product_digit(digits: str) -> bool:
    """GS1: the sum of the digits, every second one from the right three times, ends in 0."""
    return sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(reversed(digits))) % 10 == 0


# As people read it -> the finder.
PERSONAL: dict[str, Callable[[str], Iterator[Span]]] = {
    "e-mail address": _emails,
    "phone number": _phones,
    "payment card": _cards,
    "bank account": _accounts,
}
