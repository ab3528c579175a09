from __future__ import annotations

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.inputs.spreadsheet import NUMBER, SIGNS, csv_text, harmless, original, tsv_line

TEXTS = st.text(st.characters(), max_size=20) | st.text(
    st.sampled_from("='+-@\t\r\n \\u0041x\"',;\x1b\u202e"), max_size=9
)


@given(TEXTS)
def test_a_cell_is_harmless_and_gives_the_text_back(text: str) -> None:
    cell = harmless(text)
    assert original(cell) == text
    assert cell.lstrip()[:1] not in tuple("=+-@") or not cell or NUMBER.fullmatch(cell)
    assert cell[:1] not in ("\t", "\r", "\n")
    assert not {c for c in cell if ord(c) < 32 and c not in "\t\r\n"}
    assert "\u202e" not in cell
    cell.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("a - b", "a - b"),
        ("'tis", "'tis"),
        ("'=x", "''=x"),
        (" +1", "' +1"),
        ("\x1b[31m\u202eevil", "\\u001b[31m\\u202eevil"),
        ("\\u0041", "\\u005cu0041"),
        ("C:\\new", "C:\\new"),
        ("-5.2e3", "-5.2e3"),
        ("-5+1", "'-5+1"),
        ("\u200b=1", "\\u200b=1"),
        ("\u200d=1", "'\u200d=1"),
        ("\xa0=1", "'\xa0=1"),
        ("\u3164@x", "'\u3164@x"),
        ("\u0300+x", "'\u0300+x"),
        ("\ufe62x", "'\ufe62x"),
        ("\uff1d1", "'\uff1d1"),
        ("\u22121+1", "'\u22121+1"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("", ""),
    ],
)
def test_cells_by_hand(text: str, cell: str) -> None:
    assert harmless(text) == cell
    assert original(cell) == text


def test_signs_are_all_that_are_read_as_the_plain_ones() -> None:
    same = {c for c in map(chr, range(0x10FFFF)) if unicodedata.normalize("NFKC", c)[:1] in ("=", "+", "-", "@")}
    assert set(SIGNS) >= same


@given(st.lists(st.lists(TEXTS | st.none() | st.integers() | st.floats(allow_nan=False), min_size=2), min_size=1))
def test_a_table_gives_its_cells_back(rows: list[list[object]]) -> None:
    read = list(csv.reader(io.StringIO(csv_text(rows), newline=""), strict=True))
    assert [[original(cell) for cell in row] for row in read] == [
        [cell if isinstance(cell, str) else "" if cell is None else str(cell) for cell in row] for row in rows
    ]


def test_what_ends_a_cell_anywhere_is_quoted() -> None:
    assert csv_text([["a;=1", "b\t=1", "c", -5, None]]) == '"a;=1","b\t=1",c,-5,\n'
    assert csv_text([[""], ["x"]]) == '""\nx\n'


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_line_of_tsv_is_one_line_and_gives_the_texts_back(texts: list[str]) -> None:
    line = tsv_line([*texts, None, 3])
    assert len(line.splitlines()) <= 1
    *cells, empty, number = line.split("\t")
    assert ([original(cell) for cell in cells], empty, number) == (texts, "", "3")
