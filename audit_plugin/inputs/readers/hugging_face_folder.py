"""Files with a table of their metadata, as Hugging Face's `imagefolder` reads them: `metadata.csv` names each file."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from audit_plugin.arrays import MODALITIES, AuditError

from .arrow_tables import TableSource
from .csv_table import CsvSource
from .folders import folders_in, is_split
from .json_rows import JsonLinesSource
from .source import Source
from .splits import with_splits

FILE_NAME = "file_name"
TABLES: dict[str, Callable[[Path], Source]] = {
    "metadata.csv": CsvSource,
    "metadata.jsonl": JsonLinesSource,
    "metadata.parquet": TableSource,
}
PEEKED = 20  # rows by which the modality of the files is known


def is_metadata_folder(folder: Path) -> bool:
    """Whether a folder, or its folders of splits, hold a table of metadata."""
    return bool(_tables_in(folder))


def open_metadata_folder(folder: Path) -> list[Source]:
    """The tables of a folder.

    Raises:
        AuditError: there is none, there are two in one place, or one names no files.
    """
    tables = _tables_in(folder)
    if not tables:
        raise AuditError(f"{str(folder)!r} holds no {' or '.join(TABLES)}; add one with a column {FILE_NAME!r}")
    parents = [path.parent for path, _ in tables]
    if len(set(parents)) < len(parents):
        names = " and ".join(path.name for path, _ in tables)
        raise AuditError(f"{str(folder)!r} holds {names}; name one of them")
    sources = [_opened(path) for path, _ in tables]
    splits = [split for _, split in tables]
    return with_splits(sources, splits) if any(splits) else sources


def _opened(path: Path) -> Any:
    source: Any = TABLES[path.name](path)
    first = list(islice((row.cells for row in source.rows() if not row.problem), PEEKED))
    names = list(dict.fromkeys([*source.header, *(name for cells in first for name in cells)]))
    if FILE_NAME not in names:
        raise AuditError(f"{str(path)!r} has no column {FILE_NAME!r}; name the files in one, or --format csv or json")
    endings = {os.path.splitext(str(cells.get(FILE_NAME)))[1].lower().removeprefix(".") for cells in first}
    media = [name for name, kind in MODALITIES.items() if not kind.is_text]
    modality = next((name for name in media if endings & set(MODALITIES[name].suffixes)), "image")
    others = {name: f"{name}_{FILE_NAME}" for name in media if name != modality and f"{name}_{FILE_NAME}" in names}
    source.header = source.header if len(source.header) > 1 else names
    source.columns = {modality: FILE_NAME, **others}
    source.title = f"a folder with {path.name} ({source.title})"
    return source


def _tables_in(folder: Path) -> list[tuple[Path, str]]:
    """(table, split) of each; those of splits only where the folder itself has none."""
    own = [(folder / name, "") for name in TABLES if (folder / name).is_file()]
    splits = [place for place in folders_in(folder) if is_split(place.name)]
    return own or [(place / name, place.name) for place in splits for name in TABLES if (place / name).is_file()]
