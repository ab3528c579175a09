"""Reads manifests: one row per sample, or several where a text is a list.

A row that cannot be read becomes a row with a problem, and the others are read. Whatever makes the file as a whole
unusable is an `AuditError`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from audit_plugin.arrays import MODALITIES, ROLES, AuditError, Samples
from audit_plugin.store import open_regular

from .embeddings import parse_embeddings, with_embeddings
from .files import file_of
from .parquet import ParquetTable, cells_of
from .rows import ID_COLUMN, Row, RowReader, TornRow, Unusable, brief
from .shards import SUFFIX, read_shards, shard_paths
from .text_rows import read_text_rows

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
MAX_PATH = 4096  # bytes
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://|data:")


def read_manifest(
    path: str | Path,
    columns: Mapping[str, str],
    group: str | None = None,
    label: str | None = None,
    role: str | None = None,
    split: str | None = None,
    media_root: str | Path | None = None,
    embeddings: str = "",
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
        media_root: folder in which all media must lie, links followed; a row with a medium elsewhere cannot be used.
            None: anywhere that the user may read.
        embeddings: files with your own embeddings (`inputs.embeddings`); their modalities need no column, and a medium
            that one names need not exist.

    Raises:
        AuditError: if the file as a whole cannot be used or is too large, or a role is not known.
    """
    path, own = Path(path), parse_embeddings(embeddings)
    if len({*columns, *own}) < 2:
        options = ", ".join(f"--{modality} COL" for modality in MODALITIES)
        raise AuditError(
            f"{path.name}: {len({*columns, *own})} modality named, an audit compares at least two: "
            f"name two or more columns by {options}"
        )
    named_keys = {"groups": group, "labels": label, "roles": role, "splits": split}
    key_columns = {key: column for key, column in named_keys.items() if column}
    texts = [column for modality, column in columns.items() if MODALITIES[modality].is_text]
    media = [column for modality, column in columns.items() if not MODALITIES[modality].is_text]
    reader = RowReader(path.name, media, texts, tuple(key_columns.values()))
    root = _real_folder(media_root) if media_root is not None else ""
    header = _read_table(path, reader)
    rows = reader.rows
    if not rows:
        raise AuditError(f"{path.name} has a header but no rows; add one row per sample")
    for number, row in enumerate(rows, 1):
        value = _key_value(row, role) if role else ""
        if value and value not in ROLES:
            raise AuditError(
                f"{path.name}: row {number} has {brief(value)} in column {role!r}; a role is one of "
                f"{', '.join(ROLES)}, or nothing"
            )
    place = paths_of(path, root)
    samples = _samples(place, columns, key_columns, rows, _sample_ids(path, header, rows), frozenset(own))
    return with_embeddings(replace(samples, source=f"manifest {os.path.abspath(path)}"), embeddings)


def is_gone(path: str) -> bool:
    """Whether a manifest, or each shard that a pattern names, was deleted; False where nobody can see that."""
    try:
        os.stat(path)
        return False
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError):
        return False
    try:
        return not shard_paths(Path(path))
    except AuditError:
        return True


Place = Callable[[str], tuple[str | None, str]]  # cell -> (absolute path, what is wrong with it)


def _samples(
    place: Place,
    columns: Mapping[str, str],
    key_columns: Mapping[str, str],
    rows: list[Row],
    row_ids: list[str],
    own: Set[str] = frozenset(),
) -> Samples:
    """The samples of the rows, one per caption where a text is a list; `own`: modalities that are not read."""
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
            values, problem = _media_values(cells, columns, key_columns, place, own)
            if problem:
                problems[len(ids)] = problem
            ids.append(row_id)
            captions.append(caption)
            for key, column in key_columns.items():
                keys[key].append(_key_value(row, column))
            for modality, value in values.items():
                media[modality].append(value)
    by_key: dict[str, Any] = {key: tuple(values) for key, values in keys.items()}
    return Samples(
        ids=tuple(ids),
        media={modality: tuple(values) for modality, values in media.items()},
        caption=tuple(captions) if has_lists else (),
        problems=problems,
        **by_key,
    )


def _key_value(row: Row, column: str) -> str:
    """The group, label, role or split of a row: "" where the row is torn or has none."""
    value = "" if isinstance(row, TornRow) else row.get(column)
    return value.strip() if isinstance(value, str) else ""


def _media_values(
    row: Row, columns: Mapping[str, str], key_columns: Mapping[str, str], place: Place, own: Set[str]
) -> tuple[dict[str, str | None], str]:
    """The row's value per modality, and what is wrong with it ("" if nothing); if anything is, all values are None.

    What cannot be used of the modalities `own`, which are not read, is no problem.
    """
    values: dict[str, str | None] = dict.fromkeys(columns)
    if isinstance(row, TornRow):
        return values, row.reason
    for column in key_columns.values():
        if isinstance(cell := row.get(column), Unusable):
            return values, f"column {column!r} holds {cell.what}, not text"
    for modality, column in columns.items():
        is_text = MODALITIES[modality].is_text
        cell = row.get(column)
        problem = ""
        if isinstance(cell, Unusable | list):
            what = cell.what if isinstance(cell, Unusable) else "list"
            problem = f"holds {what}, not {'text' if is_text else 'a path'}"
        elif is_text:
            values[modality] = cell
        elif path := (cell or "").strip():
            values[modality], problem = place(path)
        if problem and modality not in own:
            return dict.fromkeys(columns), f"column {column!r} {problem}"
    return values, ""


def _real_folder(media_root: str | Path) -> str:
    root = os.path.realpath(media_root)
    if not os.path.isdir(root):
        raise AuditError(f"the media root {brief(str(media_root))} is not a folder; name one that is")
    return root


def paths_of(manifest: Path, root: str) -> Place:
    """A function from a cell of a manifest to (absolute path, ""), or to (None, what is wrong with the cell).

    The file must lie in the folder `root`, whose links are resolved; "": anywhere.
    """
    folder = os.path.dirname(os.path.abspath(manifest))
    real_folders: dict[str, str] = {}

    def place(cell: str) -> tuple[str | None, str]:
        if "\0" in cell:
            return None, "holds a null character, not a path"
        if len(cell.encode("utf-8", "replace")) > MAX_PATH:
            return None, f"holds {len(cell):,} characters, which no path has"
        if _URL.match(cell):
            return None, f"holds a URL ({brief(cell, 40)}), not a path: download the file"
        path = os.path.abspath(os.path.join(folder, cell))
        if root:
            file = file_of(path)
            parent = os.path.dirname(file)
            if parent not in real_folders:
                real_folders[parent] = os.path.realpath(parent)
            real = os.path.join(real_folders[parent], os.path.basename(file))
            if os.path.islink(real):
                real = os.path.realpath(real)
            if not real.startswith(os.path.join(root, "")):
                return None, f"names a file outside of the media root {root}"
        return path, ""

    return place


def _sample_ids(path: Path, header: list[str], rows: list[Row]) -> list[str]:
    """One id per row of the manifest, unique. A torn row keeps its id only if no other row has it."""
    if ID_COLUMN not in header:
        return [str(number) for number in range(len(rows))]
    row_of_id: dict[str, int] = {}
    for number, row in enumerate(rows):
        if isinstance(row, TornRow):
            continue
        name = row.get(ID_COLUMN) or ""
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


def _read_table(path: Path, reader: RowReader) -> list[str]:
    """Reads the rows of any manifest; its header."""
    suffix = path.suffix.lower()
    if suffix == SUFFIX or os.path.isdir(path):
        header = read_shards(path, reader)
        reader.check_header(header)
        return header
    if suffix not in MANIFEST_SUFFIXES:
        raise AuditError(
            f"{path.name} ends in {suffix or 'nothing'!r}; a manifest is one of {', '.join(MANIFEST_SUFFIXES)}, .tar"
        )
    try:
        with open_regular(path) as file:
            if suffix in (".parquet", ".pq"):
                return _read_parquet(file, path, reader)
            return read_text_rows(file, path, reader)
    except FileNotFoundError:
        raise AuditError(f"manifest {str(path)!r} does not exist; check its path") from None
    except (OSError, ValueError) as error:
        if isinstance(error, AuditError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise AuditError(f"manifest {brief(str(path))} cannot be read ({reason or error}); check the file") from None


def _read_parquet(file: io.BufferedReader, path: Path, reader: RowReader) -> list[str]:
    if not os.fstat(file.fileno()).st_size:
        raise AuditError(f"{path.name} is empty; give one row per sample")
    table = ParquetTable(file, path.name)
    reader.check_header(table.header)
    # other columns are not read: they may hold the images themselves
    present = [name for name in table.header if name in reader.columns]
    types = {name: _unusable_type(table.type_of(name), name in reader.media) for name in present}
    unusable = {name: Unusable(kind) for name, kind in types.items() if kind}
    columns = [name for name in present if name not in unusable]
    for name in unusable:
        if not columns or name not in (*reader.media, *reader.texts):
            raise AuditError(f"{path.name}: column {name!r} holds {types[name]}, not text; write it as text")
    for batch in table.batches(columns):
        cells = [cells_of(batch.column(name)) for name in columns]
        for row in zip(*cells, strict=True):
            reader.add({**unusable, **dict(zip(columns, row, strict=True))})
    return table.header


def _unusable_type(kind: Any, is_medium: bool) -> str:
    """What a column of this Arrow type holds instead of texts or paths; "" if it can be used."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_list(kind) or types.is_large_list(kind):
        if is_medium:
            return "list"
        kind = kind.value_type
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "bytes"
    return "dict" if types.is_nested(kind) else ""
