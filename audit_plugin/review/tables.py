"""Decisions as CSV and JSONL; captions and ids are hostile text, which CSV escapes and reading reverts exactly."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.spreadsheet import csv_text, original
from audit_plugin.store import open_regular

from .cvat import decisions_from_cvat
from .decisions import Decision, check_numbers
from .label_studio import decisions_from_label_studio

COLUMNS = tuple(f.name for f in fields(Decision))
REQUIRED = ("sample", "kind")
MOST_BYTES = 1 << 30  # of a table of decisions


def decisions_to_csv(decisions: Iterable[Decision]) -> str:
    """CSV with all columns, one row per entry of the ledger."""
    return csv_text([COLUMNS, *(_plain(decision).values() for decision in decisions)], line_end="\r\n")


def decisions_to_jsonl(decisions: Iterable[Decision]) -> str:
    """JSONL, one object per line, ASCII only."""
    return "".join(json.dumps(_plain(decision)) + "\n" for decision in decisions)


def table_kind(path: Path) -> str:
    """`csv` or `jsonl`, by the ending of a table of decisions.

    Raises:
        AuditError: another ending.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("csv", "jsonl"):
        raise AuditError(
            f"decisions are stored as .csv or .jsonl, not as {path.name!r}; give the file one of these endings"
        )
    return kind


def read_decisions(path: Path) -> list[Decision]:
    """The decisions of a table, .csv or .jsonl, of an export of Label Studio, .json, or one of CVAT, .xml.

    Raises:
        AuditError: another ending, a file that cannot be read or is too large, or what its reader refuses.
    """
    ending = path.suffix.lower()
    kind = ending if ending in (".json", ".xml") else table_kind(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MOST_BYTES:
                raise AuditError(f"{path} has {size:,} bytes; name a table of at most {MOST_BYTES:,}")
            data = file.read(MOST_BYTES)
        if kind == ".xml":
            return decisions_from_cvat(data)
        text = data.decode("utf-8")
    except OSError as error:
        raise AuditError(f"{path} cannot be read ({error.strerror or error}); name a table of decisions") from error
    except UnicodeDecodeError as error:
        raise AuditError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    return decisions_from_label_studio(text) if kind == ".json" else decisions_from(text, kind)


def decisions_from(text: str, kind: str) -> list[Decision]:
    """Decisions read from the text of a csv or jsonl table; columns other than `sample` and `kind` may be missing.

    Raises:
        AuditError: a column is missing or unknown, or a value is invalid; names the row.
    """
    rows = _csv_rows(text) if kind == "csv" else _json_rows(text)
    return [_decision(row, number) for number, row in rows]


def _plain(decision: Decision) -> dict[str, Any]:
    return asdict(decision) | {"time": decision.time.astimezone(UTC).isoformat(timespec="milliseconds")}


def _csv_rows(text: str) -> list[tuple[int, dict[str, Any]]]:
    limit = csv.field_size_limit(2**31 - 1)  # a text may be longer than the module's own limit
    try:
        reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
        lines = [line for line in reader if line]
    except csv.Error as error:
        raise AuditError(
            f"the table of decisions is not valid CSV ({error}); save it as comma-separated UTF-8"
        ) from error
    finally:
        csv.field_size_limit(limit)
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
        except (ValueError, RecursionError) as error:
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
        decision = Decision(**values)
        check_numbers(decision)
        return decision
    except (TypeError, ValueError, OverflowError) as error:  # an AuditError of the decision itself is a ValueError
        raise AuditError(f"row {number} of the decisions is invalid ({error}); fix or remove it") from error


def _aware(text: str) -> datetime:
    """A time in ISO format, in UTC if it has no time zone."""
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _whole(value: Any) -> Any:
    """A whole number from the text of a cell; JSON has numbers of its own, which are checked as they are."""
    return int(value) if isinstance(value, str) else value


def _seconds(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "caption": _whole, "number": _whole, "seconds": _seconds, "time": _aware
}  # fmt: skip
