r"""Decisions as CSV and JSONL. Captions are hostile: a spreadsheet must not execute them, a terminal not obey them.

In CSV two things are written another way, and read back exactly: what a spreadsheet takes for a formula gets an
apostrophe before it, and characters that cannot be seen or that reorder text become `\uXXXX`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from audit_plugin.arrays import AuditError

from .decisions import Decision

COLUMNS = tuple(f.name for f in fields(Decision))
NEEDED = ("sample", "kind")
# Full-width signs are formulas too in some spreadsheets, and blanks before a sign do not always help.
FORMULA = re.compile(r"'*\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
ESCAPE = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
# Unicode categories: Zl and Zp break lines, Cf reorders or hides, Cs cannot be written as UTF-8
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
SHOWN = {"\t", "\r", "\n", "\u200c", "\u200d"}  # the joiners are parts of words and of emoji


def harmless(text: str) -> str:
    """Text as a CSV cell; `original` is the way back."""
    escaped = ESCAPE.sub(lambda found: "\\u005c" + found[0][1:], text)
    shown = "".join(_visible(c) for c in escaped)
    return f"'{shown}" if FORMULA.match(shown) else shown


def original(cell: str) -> str:
    """The text of a cell that `harmless` wrote; an apostrophe of anybody else's that is no such mark stays."""
    text = cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
    return ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16) & 0x1FFFFF), text)


def decisions_to_csv(decisions: Iterable[Decision]) -> str:
    """All columns, one row per entry of the ledger."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in map(_plain, decisions):
        writer.writerow([harmless(value) if isinstance(value, str) else value for value in row.values()])
    return out.getvalue()


def decisions_to_jsonl(decisions: Iterable[Decision]) -> str:
    """One object per line, pure ASCII."""
    return "".join(json.dumps(_plain(decision)) + "\n" for decision in decisions)


def decisions_from(text: str, kind: str) -> list[Decision]:
    """Decisions from a table.

    Args:
        text: of the file.
        kind: csv or jsonl. Columns `sample` and `kind` are needed; the others may be missing or empty.

    Raises:
        AuditError: a column is missing or unknown, or a value cannot be used; the row is named.
    """
    rows = _csv_rows(text) if kind == "csv" else _json_rows(text)
    return [_decision(row, number) for number, row in rows]


def _visible(character: str) -> str:
    if character in SHOWN or unicodedata.category(character) not in HIDDEN:
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _plain(decision: Decision) -> dict[str, Any]:
    row = asdict(decision)
    return row | {"time": decision.time.astimezone(UTC).isoformat(timespec="milliseconds")}


def _csv_rows(text: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
        lines = [line for line in reader if line]
    except csv.Error as error:
        raise AuditError(
            f"the table of decisions is no valid CSV ({error}); save it as comma-separated UTF-8"
        ) from error
    header = lines[0] if lines else []
    _check_columns(header, 1)
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise AuditError(f"row {number} of the decisions has {len(line)} cells for {len(header)} columns; mend it")
        rows.append((number, {name: original(cell) for name, cell in zip(header, line, strict=True)}))
    return rows


def _json_rows(text: str) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise AuditError(f"row {number} of the decisions is no JSON ({error}); mend or remove it") from error
        if not isinstance(row, dict):
            raise AuditError(f"row {number} of the decisions is no JSON object; mend or remove it")
        _check_columns(list(row), number)
        rows.append((number, row))
    return rows


def _check_columns(names: Sequence[str], number: int) -> None:
    if lacking := [name for name in NEEDED if name not in names]:
        raise AuditError(f"row {number} of the decisions has no {lacking[0]!r}; columns: {', '.join(COLUMNS)}")
    if unknown := [name for name in names if name not in COLUMNS]:
        raise AuditError(f"column {unknown[0]!r} of the decisions is not known; columns: {', '.join(COLUMNS)}")


def _decision(row: Mapping[str, Any], number: int) -> Decision:
    given = {name: value for name, value in row.items() if value not in (None, "")}
    try:
        if "caption" in given:
            given["caption"] = int(given["caption"])
        if "seconds" in given:
            given["seconds"] = float(given["seconds"])
        if "time" in given:
            time = datetime.fromisoformat(given["time"])
            given["time"] = time if time.tzinfo else time.replace(tzinfo=UTC)
        words = {name: value for name, value in given.items() if name not in ("caption", "seconds", "time")}
        if wrong := [name for name, value in words.items() if not isinstance(value, str)]:
            raise ValueError(f"{wrong[0]} is no text")
        if "sample" not in given or "kind" not in given:
            raise ValueError("sample or kind is empty")
        return Decision(**given)
    except (TypeError, ValueError) as error:  # an AuditError of the decision itself is a ValueError
        raise AuditError(f"row {number} of the decisions cannot be used ({error}); mend or remove it") from error
