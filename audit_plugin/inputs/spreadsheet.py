r"""Tables as CSV, safe to open in a spreadsheet or to print in a terminal, whatever the texts in them are.

Ids and captions are hostile text. Cells that a spreadsheet would take for a formula get an apostrophe in front, and
invisible or reordering characters become `\uXXXX`; `original` reverts both exactly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Signs that start a formula in some spreadsheet, also the full-width, small and raised ones that are read as plain ones
SIGNS = (
    "=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u207a\u208a\u207c\u208c\u2a75\u2a76\ufb29\u2212\u207b\u208b"
)
STARTS = frozenset(SIGNS + "\t\r\n")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
ESCAPE = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
# Unicode categories: Zl and Zp break lines, Cf reorders or hides, Cs cannot be written as UTF-8
JOINERS = "\u200c\u200d"  # are parts of words and emoji, and harmless
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
SHOWN = {"\t", "\r", "\n", *JOINERS}
# What may stand unseen before a formula: blanks, marks without a letter, joiners, and letters that show nothing
UNSEEN = {"Zs", "Mn", "Me", "Cc", "Cf"}
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
LINE_MARKS = {ord(character): f"\\u{ord(character):04x}" for character in "\t\r\n"}  # `original` reverts them too
QUOTED = re.compile(r'[,;\t|"\r\n]|^\s|\s$')  # all that some spreadsheet takes for the end of a cell


def csv_text(rows: Iterable[Iterable[object]], line_end: str = "\n") -> str:
    """Rows as the text of a CSV file: None is an empty cell, texts are made `harmless`, numbers stay as they are."""
    lines = []
    for row in rows:
        line = ",".join(map(_cell, row))
        lines.append((line or '""') + line_end)  # an empty line would be no row
    return "".join(lines)


def tsv_line(cells: Iterable[object]) -> str:
    r"""Cells as a line of TSV: None is an empty cell; texts are `harmless`, with tabs and line ends as `\uXXXX`."""
    return "\t".join(_cell_in_tsv(cell) for cell in cells)


def _cell_in_tsv(cell: object) -> str:
    if isinstance(cell, str):
        return harmless(cell, one_line=True)
    return "" if cell is None else str(cell)


def harmless(text: str, one_line: bool = False) -> str:
    r"""Text as a CSV cell, `one_line` with tabs and line ends as `\uXXXX` too; `original` reverts it."""
    if text.isascii() and text.isprintable() and "\\" not in text and text[:1].isalnum():
        return text
    shown = visible(ESCAPE.sub(lambda match: "\\u005c" + match[0][1:], text))
    if one_line:
        shown = shown.translate(LINE_MARKS)
    return f"'{shown}" if _is_formula(shown) and not NUMBER.fullmatch(shown) else shown


def original(cell: str) -> str:
    """The text of a cell that `harmless` wrote; apostrophes that do not mark a formula are kept."""
    text = cell[1:] if cell.startswith("'") and _is_formula(cell) else cell
    return ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16) & 0x1FFFFF), text)


def visible(text: str) -> str:
    r"""Text in which each character that hides, reorders or moves the cursor is written as `\uXXXX`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if character in SHOWN or unicodedata.category(character) not in HIDDEN:
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_formula(cell: str) -> bool:
    """Whether the first character that is seen, apostrophes aside, may start a formula."""
    for character in cell:
        if character in STARTS:
            return True
        if character not in "'" + FILLERS and unicodedata.category(character) not in UNSEEN:
            return False
    return False


def _cell(cell: object) -> str:
    if not isinstance(cell, str):
        return "" if cell is None else str(cell)
    text = harmless(cell) if cell else cell
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) else text


def clean(text: str, width: int = 0) -> str:
    """Text in one line without characters that move the cursor, hide or reorder text; at most `width` characters."""
    shown = (c if c in JOINERS or unicodedata.category(c) not in HIDDEN else " " for c in text[: 4 * width or None])
    line = " ".join("".join(shown).split())
    return line if not width or len(line) <= width else line[: width - 1] + "…"


def place_line(text: str) -> str:
    r"""A line that names files, as it is, save that characters which `clean` would remove are written as `\uXXXX`."""
    return visible(text).translate({ord("\t"): r"\t", ord("\n"): r"\n", ord("\r"): r"\r"})
