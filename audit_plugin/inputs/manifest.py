"""Reads manifests: one row per sample, or several where a text is a list.

A row that cannot be read becomes a row with a problem, and the others are read. Whatever makes the file as a whole
unusable is an `AuditError`.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from audit_plugin.arrays import MODALITIES, ROLES, AuditError, Samples

from .files import first_line
from .shards import ID_COLUMN, SUFFIX, Row, TornRow, read_shards

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")


def read_manifest(
    path: str | Path,
    columns: Mapping[str, str],
    group: str | None = None,
    label: str | None = None,
    role: str | None = None,
    split: str | None = None,
) -> Samples:
    """Reads a manifest into samples, in its row order.

    Args:
        path: a CSV, TSV, JSONL or Parquet file, or tar shards (see `read_shards`). Its column `id` names the samples;
            without one their row number does, counted from 0.
        columns: modality -> column, two or more. Paths are relative to the manifest's folder. In JSONL and Parquet a
            text may be a list, which gives one row per caption with the same id.
        group: column whose equal values belong together.
        label: column with a class per row.
        role: column that says which models saw a row, one of `ROLES` or nothing.
        split: column that says train, test or the like.

    Raises:
        AuditError: if the file as a whole cannot be used, or a role is not known.
    """
    path = Path(path)
    if len(columns) < 2:
        options = ", ".join(f"--{modality} COL" for modality in MODALITIES)
        raise AuditError(
            f"{path.name}: {len(columns)} modality named, an audit compares at least two: "
            f"name two or more columns by {options}"
        )
    named_keys = {"groups": group, "labels": label, "roles": role, "splits": split}
    key_columns = {key: column for key, column in named_keys.items() if column}
    named = (*columns.values(), *key_columns.values())
    header, rows = _read_table(path, {ID_COLUMN, *named})
    for column in named:
        _check_column(path, column, header)
    if not rows:
        raise AuditError(f"{path.name} has a header but no rows; add one row per sample")
    for number, row in enumerate(rows, 1):
        value = _key_value(row, role) if role else ""
        if value and value not in ROLES:
            raise AuditError(
                f"{path.name}: row {number} has {value!r} in column {role!r}; a role is one of {', '.join(ROLES)}, "
                "or nothing"
            )
    return _samples(path, columns, key_columns, rows, _sample_ids(path, header, rows))


def _samples(
    path: Path, columns: Mapping[str, str], key_columns: Mapping[str, str], rows: list[Row], row_ids: list[str]
) -> Samples:
    """The samples of the rows, one per caption where a text is a list."""
    folder = Path(os.path.abspath(path)).parent
    ids: list[str] = []
    captions: list[int] = []
    media: dict[str, list[str | None]] = {modality: [] for modality in columns}
    keys: dict[str, list[str]] = {key: [] for key in key_columns}
    problems: dict[int, str] = {}
    has_lists = False
    for row_id, row in zip(row_ids, rows, strict=True):
        row_per_caption: list[Row] = [row]
        if "text" in columns and not isinstance(row, TornRow) and isinstance(row.get(columns["text"]), list):
            has_lists = True
            texts = row[columns["text"]] or [None]  # an empty list is one row without text
            row_per_caption = [{**row, columns["text"]: text} for text in texts]
        for caption, cells in enumerate(row_per_caption):
            values, problem = _media_values(cells, columns, folder)
            if problem:
                problems[len(ids)] = problem
            ids.append(row_id)
            captions.append(caption)
            for key, column in key_columns.items():
                keys[key].append(_key_value(row, column))
            for modality, value in values.items():
                media[modality].append(value)
    return Samples(
        ids=tuple(ids),
        media={modality: tuple(values) for modality, values in media.items()},
        caption=tuple(captions) if has_lists else (),
        problems=problems,
        **{key: tuple(values) for key, values in keys.items()},
    )


def _key_value(row: Row, column: str) -> str:
    """The group, label, role or split of a row: "" where the row is torn or has none."""
    return "" if isinstance(row, TornRow) else (as_text(row.get(column)) or "").strip()


def _media_values(row: Row, columns: Mapping[str, str], folder: Path) -> tuple[dict[str, str | None], str]:
    """The row's value per modality, and what is wrong with it ("" if nothing); if anything is, all values are None."""
    values: dict[str, str | None] = dict.fromkeys(columns)
    if isinstance(row, TornRow):
        return values, row.reason
    for modality, column in columns.items():
        is_text = MODALITIES[modality].is_text
        cell = row.get(column)
        if isinstance(cell, list | tuple | dict | bytes):
            expected = "text" if is_text else "a path"
            return dict.fromkeys(columns), f"column {column!r} holds {type(cell).__name__}, not {expected}"
        value = as_text(cell)
        if not is_text:
            relative = (value or "").strip()
            value = os.path.abspath(folder / relative) if relative else None
        values[modality] = value
    return values, ""


def as_text(cell: object) -> str | None:
    """A cell as text that UTF-8 can hold; None where it is missing."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    text = str(cell)
    if text.isascii():
        return text
    # JSON may carry lone surrogates (half an emoji), which no UTF-8 file can store.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _sample_ids(path: Path, header: list[str], rows: list[Row]) -> list[str]:
    """One id per row of the manifest, unique. A torn row keeps its id only if no other row has it."""
    if ID_COLUMN not in header:
        return [str(number) for number in range(len(rows))]
    row_of_id: dict[str, int] = {}
    for number, row in enumerate(rows):
        if isinstance(row, TornRow):
            continue
        name = as_text(row.get(ID_COLUMN)) or ""
        if not name:
            raise AuditError(f"{path.name}: row {number + 1} has no {ID_COLUMN!r}; give every row one, or none")
        if name in row_of_id:
            raise AuditError(
                f"{path.name}: id {name!r} stands in rows {row_of_id[name] + 1} and {number + 1}; "
                "give every row an id of its own"
            )
        row_of_id[name] = number
    for number, row in enumerate(rows):
        if isinstance(row, TornRow):
            name = row.id if row.id and row.id not in row_of_id else f"row {number + 1}"
            while name in row_of_id:
                name += "'"
            row_of_id[name] = number
    return sorted(row_of_id, key=row_of_id.__getitem__)


def _check_column(path: Path, column: str, header: list[str]) -> None:
    if header.count(column) == 1:
        return
    if column in header:
        raise AuditError(f"{path.name} has several columns named {column!r}; rename all but one")
    header_by_folded = {name.strip().casefold(): name for name in header}
    similar = difflib.get_close_matches(column.strip().casefold(), header_by_folded, n=1)
    hint = f"did you mean {header_by_folded[similar[0]]!r}? " if similar else ""
    names = ", ".join(map(repr, header)) or "none"
    raise AuditError(f"{path.name} has no column {column!r}; {hint}its columns are {names}")


def _read_table(path: Path, columns: set[str]) -> tuple[list[str], list[Row]]:
    """The header and the rows of any manifest; rows hold at least those of `columns` that exist."""
    suffix = path.suffix.lower()
    if suffix == SUFFIX or path.is_dir():
        return read_shards(path, columns)
    if suffix not in MANIFEST_SUFFIXES:
        raise AuditError(
            f"{path.name} ends in {suffix or 'nothing'!r}; a manifest is one of {', '.join(MANIFEST_SUFFIXES)}, .tar"
        )
    try:
        if suffix in (".parquet", ".pq"):
            return _read_parquet(path, columns)
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise AuditError(f"manifest {str(path)!r} does not exist; check its path") from None
    except OSError as error:
        raise AuditError(f"manifest {str(path)!r} cannot be read ({error.strerror or error}); check the file") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = f"byte {error.start}, line {line}: 0x{error.object[error.start]:02x}"
        raise AuditError(f"{path.name} is not UTF-8 ({byte}); save it as UTF-8") from None
    if not text.strip():
        raise AuditError(f"{path.name} is empty; give one row per sample below a header")
    if suffix in (".csv", ".tsv"):
        return _read_csv(text, "\t" if suffix == ".tsv" else ",")
    return _read_json(path, text)


def _read_csv(text: str, delimiter: str) -> tuple[list[str], list[Row]]:
    # not str.splitlines, which also splits at separators that captions may contain
    lines = io.StringIO(text, newline="").readlines()
    limit = csv.field_size_limit(2**31 - 1)  # cells may be longer than the module's global limit
    try:
        records = _csv_records(lines, delimiter)
        header = next((cells for _, cells, _ in records if cells), [])
        rows: list[Row] = []
        for line, cells, problem in records:
            if problem:
                rows.append(TornRow(f"line {line} cannot be read ({problem})"))
            elif cells and len(cells) != len(header):
                name = cells[0] if header[0] == ID_COLUMN else ""
                reason = f"line {line} has {len(cells)} columns where the header names {len(header)}"
                rows.append(TornRow(reason, name))
            elif cells:
                rows.append(dict(zip(header, cells, strict=True)))
    finally:
        csv.field_size_limit(limit)
    return header, rows


def _csv_records(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """(line number from 1, cells, problem) of each record.

    A quote that is never closed makes only its own line unreadable: reading goes on with the next one.
    """
    start = 0
    while start < len(lines):
        reader = csv.reader((lines[i] for i in range(start, len(lines))), delimiter=delimiter, strict=True)
        first = start
        try:
            for cells in reader:
                yield first + 1, cells, ""
                first = start + reader.line_num
            return
        except csv.Error as error:
            yield first + 1, [], str(error)
            start = first + 1


def _read_json(path: Path, text: str) -> tuple[list[str], list[Row]]:
    rows = [_json_row(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if text.lstrip().startswith("["):
        try:
            rows = [
                row if isinstance(row, dict) else TornRow(f"entry {number} is not an object")
                for number, row in enumerate(json.loads(text), 1)
            ]
        except (ValueError, RecursionError) as error:
            raise AuditError(
                f"{path.name} starts as a JSON list but cannot be parsed ({error}); write one JSON object per line"
            ) from None
    header = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
    if rows and not header:
        raise AuditError(
            f"{path.name}: no line is a JSON object with columns; write one object per line, "
            'such as {"id": "1", "image": "a.png", "text": "a cat"}'
        )
    return header, rows


def _json_row(number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return TornRow(f"line {number} cannot be parsed as JSON ({getattr(error, 'msg', error)})")
    return row if isinstance(row, dict) else TornRow(f"line {number} is not a JSON object")


def _read_parquet(path: Path, columns: set[str]) -> tuple[list[str], list[Row]]:
    import pyarrow.lib
    import pyarrow.parquet

    if path.is_file() and not path.stat().st_size:
        raise AuditError(f"{path.name} is empty; give one row per sample")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            header = file.schema_arrow.names
            # other columns are not read: they may hold the images themselves
            return header, file.read([name for name in header if name in columns]).to_pylist()
    except (pyarrow.lib.ArrowException, UnicodeDecodeError) as error:
        raise AuditError(f"{path.name} cannot be read as Parquet ({first_line(error)}); write it again") from None
