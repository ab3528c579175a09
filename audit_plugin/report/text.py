"""Hostile text as harmless HTML: escaped, what hides or reorders made visible, what is long cut."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from markupsafe import Markup, escape

# Zl and Zp break lines, Cf reorders or hides, Cs cannot be written as UTF-8
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
REPLACED = Markup("\N{REPLACEMENT CHARACTER}")
JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji need them, and they move nothing
SHORT, LONG = 260, 1500
MOST_BOXES = 100  # in one text: what hides beyond is a plain sign, or a text of nothing else would fill megabytes


def visible(text: str) -> Markup:
    """Escaped text; each character that is not seen, or moves others, as its code point in a small box."""
    if text.isascii() and text.isprintable():
        return escape(text)
    parts, boxes = [], 0
    for c in text:
        shown = _character(c) if boxes < MOST_BOXES or not _hidden(c) else REPLACED
        boxes += _hidden(c)
        parts.append(shown)
    return Markup("").join(parts)


def cut(text: str, most: int = SHORT) -> str:
    """The text, or its beginning with an ellipsis; never longer than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def marked(text: str, spans: Iterable[tuple[int, int]]) -> Markup:
    """`visible` text with the characters from start to end of each span marked; spans that overlap are left out."""
    parts, at = [], 0
    for start, end in sorted(spans):
        if at <= start < end <= len(text):
            parts += [visible(text[at:start]), Markup("<mark>{}</mark>").format(visible(text[start:end]))]
            at = end
    return Markup("").join([*parts, visible(text[at:])])


def finalized(value: object) -> object:
    """What becomes of every value that the template prints: no text of the data gets around `visible`."""
    if value is None:
        return ""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _hidden(c: str) -> bool:
    return c not in JOINERS and unicodedata.category(c) in HIDDEN


def _character(c: str) -> Markup:
    if c in "\n\t":
        return Markup('<b class="u">{}</b> ').format("↵" if c == "\n" else "⇥")
    if not _hidden(c):
        return escape(c)
    return Markup('<b class="u">U+{}</b>').format(f"{ord(c):04X}")
