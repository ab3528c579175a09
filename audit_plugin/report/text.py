"""Hostile text as harmless HTML: escaped, what hides or reorders made visible, what is long cut."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from markupsafe import Markup, escape

# Zl and Zp break lines, Cf reorders or hides, Cs cannot be written as UTF-8
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji need them, and they move nothing
SHORT, LONG = 260, 2000


def visible(text: str) -> Markup:
    """Escaped text; each character that is not seen, or moves others, as its code point in a small box."""
    return Markup("").join(map(_character, text)) if _hides(text) else escape(text)


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


def _hides(text: str) -> bool:
    return not text.isascii() or not text.isprintable()


def _character(c: str) -> Markup:
    if c in "\n\t":
        return Markup('<b class="u">{}</b> ').format("↵" if c == "\n" else "⇥")
    if c in JOINERS or unicodedata.category(c) not in HIDDEN:
        return escape(c)
    return Markup('<b class="u">U+{}</b>').format(f"{ord(c):04X}")
