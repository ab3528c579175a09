r"""Decisions as CSV and JSONL, safe to open in a spreadsheet or to print in a terminal.

Captions are hostile text. In CSV, cells that a spreadsheet would take for a formula get an apostrophe in front, and
invisible or reordering characters become `\uXXXX`; both are reverted exactly on reading.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from audit_plugin.arrays import AuditError

from .decisions import Decision

COLUMNS = tuple(f.name for f in fields(Decision))
REQUIRED = ("sample", "kind")
# Full-width signs start formulas in some spreadsheets too, and leading blanks do not always prevent it.
FORMULA = re.compile(r"'*\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
ESCAPE = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
# Unicode categories: Zl and Zp break lines, Cf reorders or hides, Cs cannot be written as UTF-8
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
SHOWN = {"\t", "\r", "\n", "\u200c", "\u200d"}  # the joiners are parts of words and emoji


def harmless(text: str) -> str:
    """Text as a CSV cell; `original` reverts it."""
    escaped = ESCAPE.sub(lambda match: "\\u005c" + match[0][1:], text)
    shown = "".join(map(_visible, escaped))
    return f"'{shown}" if FORMULA.match(shown) else shown


def original(cell: str) -> str:
    """The text of a cell that `harmless` wrote; apostrophes that do not mark a formula are kept."""
    text = cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
    return ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16) & 0x1FFFFF), text)


def decisions_to_csv(decisions: Iterable[Decision]) -> str:
    """CSV with all columns, one row per entry of the ledger."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in map(_plain, decisions):
        writer.writerow([harmless(value) if isinstance(value, str) else value for value in row.values()])
    return out.getvalue()


def decisions_to_jsonl(decisions: Iterable[Decision]) -> str:
    """JSONL, one object per line, ASCII only."""
    return "".join(json.dumps(_plain(decision)) + "\n" for decision in decisions)


def decisions_from(text: str, kind: str) -> list[Decision]:
    """Decisions read from the text of a csv or jsonl table; columns other than `sample` and `kind` may be missing.

    Raises:
        AuditError: a column is missing or unknown, or a value is invalid; names the row.
    """
    rows = _csv_rows(text) if kind == "csv" else _json_rows(text)
    return [_decision(row, number) for number, row in rows]


def _visible(character: str) -> str:
    if character in SHOWN or unicodedata.category(character) not in HIDDEN:
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _plain(decision: Decision) -> dict[str, Any]:
    return asdict(decision) | {"time": decision.time.astimezone(UTC).isoformat(timespec="milliseconds")}


def _csv_rows(text: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
        lines = [line for line in reader if line]
    except csv.Error as error:
        raise AuditError(
            f"the table of decisions is not valid CSV ({error}); save it as comma-separated UTF-8"
        ) from error
    header = lines[0] if lines else []
    _check_columns(header, 1)
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise AuditError(f"row {number} of the decisions has {len(line)} cells for {len(header)} columns; fix it")
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
            raise AuditError(f"row {number} of the decisions is not valid JSON ({error}); fix or remove it") from error
        if not isinstance(row, dict):
            raise AuditError(f"row {number} of the decisions is not a JSON object; fix or remove it")
        _check_columns(list(row), number)
        rows.append((number, row))
    return rows


def _check_columns(names: Sequence[str], number: int) -> None:
    if lacking := [name for name in REQUIRED if name not in names]:
        raise AuditError(f"row {number} of the decisions has no {lacking[0]!r}; columns: {', '.join(COLUMNS)}")
    if unknown := [name for name in names if name not in COLUMNS]:
        raise AuditError(f"column {unknown[0]!r} of the decisions is unknown; columns: {', '.join(COLUMNS)}")


def _decision(row: Mapping[str, Any], number: int) -> Decision:
    values = {name: value for name, value in row.items() if value not in (None, "")}
    try:
        for name, convert in CONVERSIONS.items():
            if name in values:
                values[name] = convert(values[name])
        if wrong := [name for name in values if name not in CONVERSIONS and not isinstance(values[name], str)]:
            raise ValueError(f"{wrong[0]} is not a text")
        if not values.keys() >= set(REQUIRED):
            raise ValueError("sample or kind is empty")
        return Decision(**values)
    except (TypeError, ValueError) as error:  # an AuditError of the decision itself is a ValueError
        raise AuditError(f"row {number} of the decisions is invalid ({error}); fix or remove it") from error


def _aware(text: str) -> datetime:
    """A time in ISO format, in UTC if it has no time zone."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


CONVERSIONS: dict[str, Callable[[Any], Any]] = {"caption": int, "seconds": float, "time": _aware}
