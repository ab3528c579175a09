"""Reads the rows of a manifest one by one, with all of their columns: what an export copies.

The rows are those of `inputs.manifest.read_manifest`, in the same order; the caller compares their ids.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.files import first_line
from audit_plugin.inputs.rows import ID_COLUMN, as_text
from audit_plugin.inputs.text_rows import Lines, csv_records, json_object
from audit_plugin.store import open_regular

from .values import ShardMember
from .webdataset import is_shards, shard_rows

BATCH = 256  # rows of Parquet that are read at once; they may hold images


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a manifest.

    Attributes:
        ids: the names that a table of scores may have for it; empty where the row is torn.
        cells: column -> value.
        members: of a tar shard.
        problem: why the row cannot be read, "" if it can.
    """

    ids: tuple[str, ...]
    cells: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[ShardMember, ...] = ()
    problem: str = ""


def source_rows(path: Path) -> Iterator[SourceRow]:
    """The rows of a CSV, TSV, JSONL, JSON or Parquet file, or of tar shards.

    Raises:
        AuditError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    try:
        if is_shards(path):
            for key, shard, cells, members, problem in shard_rows(path):
                yield SourceRow((key, f"{shard}/{key}") if not problem else (), cells, members, problem)
        elif suffix in (".parquet", ".pq"):
            yield from _numbered((cells, "") for cells in _parquet_cells(path))
        else:
            with open_regular(path) as file:
                yield from _numbered(_text_cells(file, path))
    except FileNotFoundError:
        raise AuditError(f"manifest {str(path)!r} does not exist; name the one that was scored: --manifest") from None
    except OSError as error:
        raise AuditError(f"manifest {str(path)!r} cannot be read ({error.strerror or error}); check the file") from None
    except UnicodeDecodeError as error:
        raise AuditError(f"{path.name} is not UTF-8 ({error.reason}); score and export a file in UTF-8") from None


def _numbered(rows: Iterator[tuple[dict[str, Any], str]]) -> Iterator[SourceRow]:
    """Rows with their id, which is their number without a column of ids."""
    for number, (cells, problem) in enumerate(rows):
        name = as_text(cells.get(ID_COLUMN)) or str(number)
        yield SourceRow((name,) if not problem else (), cells, problem=problem)


def _parquet_cells(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=False, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise AuditError(f"{path.name} cannot be read as Parquet ({first_line(error)}); write it again") from None


def _text_cells(file: io.BufferedReader, path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    start = file.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    lines = Lines(io.TextIOWrapper(file, "utf-8-sig", newline=""), path.name)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _csv_cells(lines, "\t" if path.suffix.lower() == ".tsv" else ",")
    return _list_cells(path) if start.startswith(b"[") else _json_cells(lines)


def _json_cells(lines: Lines) -> Iterator[tuple[dict[str, Any], str]]:
    for line in lines:
        lines.next_record()
        if line.strip():
            try:
                cells = json.loads(line, object_pairs_hook=json_object)
            except (ValueError, RecursionError) as error:
                yield {}, f"line {lines.number} cannot be parsed as JSON ({first_line(error)})"
                continue
            yield (cells, "") if isinstance(cells, dict) else ({}, f"line {lines.number} is not a JSON object")


def _list_cells(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=json_object)
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{path.name} starts as a JSON list but cannot be parsed ({first_line(error)})") from None
    for number, entry in enumerate(entries, 1):
        yield (entry, "") if isinstance(entry, dict) else ({}, f"entry {number} is not an object")


def _csv_cells(lines: Lines, delimiter: str) -> Iterator[tuple[dict[str, Any], str]]:
    limit = csv.field_size_limit(2**31 - 1)
    header: list[str] = []
    try:
        for line, cells, problem in csv_records(lines, delimiter):
            if problem:
                yield {}, f"line {line} cannot be read ({problem})"
            elif not header:
                header = cells if any(cell.strip() for cell in cells) else []
            elif cells and len(cells) != len(header):
                yield {}, f"line {line} has {len(cells)} columns where the header names {len(header)}"
            elif cells:
                yield dict(zip(header, cells, strict=True)), ""
    finally:
        csv.field_size_limit(limit)


def source_header(path: Path) -> tuple[tuple[str, ...], dict[str, str], Any]:
    """(columns in their order, what each one holds, Arrow schema or None).

    Of JSON and of shards it is known only once all rows were read.
    """
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq") and not is_shards(path):
        import pyarrow as pa
        import pyarrow.parquet

        try:
            schema = pyarrow.parquet.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise AuditError(f"{str(path)!r} cannot be read as Parquet ({first_line(error)}); check it") from None
        return tuple(schema.names), {}, schema
    kinds: dict[str, str] = {}
    for row in source_rows(path):
        for name, value in row.cells.items():
            kinds[name] = _joined(kinds.get(name, ""), value)
        if suffix in (".csv", ".tsv") and kinds:
            break  # the first row names all columns, and all cells are texts
    return tuple(kinds), {name: kind or "text" for name, kind in kinds.items()}, None


def _joined(kind: str, value: object) -> str:
    """The kind of a column with one more value."""
    if value is None:
        return kind
    names = {bool: "bool", int: "int", float: "float", str: "text"}
    new = names.get(type(value), "json")
    if new == "int" and abs(value) >= 1 << 53:  # type: ignore[arg-type]
        new = "json"
    if kind in ("", new):
        return new
    return "float" if {kind, new} == {"int", "float"} else "json"
