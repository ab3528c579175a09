"""Reads the output folder of clip-retrieval: `img_emb/*.npy`, `text_emb/*.npy` and `metadata/*.parquet`, row by row.

Its embeddings are those of one CLIP model, so they share one space. Images are not read, and need not exist.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audit_plugin.arrays import MODALITIES, AuditError, Samples, VectorRows
from audit_plugin.store import open_regular

from .parquet import ParquetTable, cells_of
from .rows import ID_COLUMN, RowReader, brief
from .vector_files import VectorTable, join_tables, numbered_files, read_vectors

FOLDERS = {"image": "img_emb", "text": "text_emb"}
METADATA = "metadata"
COLUMNS = {"image": "image_path", "text": "caption"}  # of the metadata, where no other ones are named


def is_clip_retrieval(path: Path) -> bool:
    """Whether a path is such a folder, by the folders of embeddings in it."""
    folders = any(os.path.isdir(path / name) for name in FOLDERS.values())  # Path.is_dir raises for long names
    return folders and os.path.isdir(path / METADATA)


def read_clip_retrieval(path: Path, columns: Mapping[str, str], keys: Mapping[str, str | None]) -> Samples:
    """The samples of the folder, with its embeddings as `vectors`; a modality without is read from its column.

    Args:
        path: the folder.
        columns: modality -> column of the metadata, in place of `COLUMNS`.
        keys: `group`, `label`, `role` and `split` -> column of the metadata, or None.

    Raises:
        AuditError: files of embeddings and metadata that do not belong together, or cannot be read.
    """
    tables = {}
    parts = numbered_files(path / METADATA, (".parquet",))
    for modality, folder in FOLDERS.items():
        if (path / folder).is_dir():
            files = numbered_files(path / folder, (".npy",))
            if [_number(file) for file in files] != [_number(file) for file in parts] or not files:
                raise AuditError(
                    f"{brief(str(path))} has {len(files)} files in {folder} and {len(parts)} in {METADATA}, whose "
                    "numbers should be equal; let clip-retrieval finish, or copy the folder again"
                )
            tables[modality] = join_tables([read_vectors(str(file)) for file in files], str(path / folder))
    key_columns = {f"{key}s": column for key, column in keys.items() if column}
    cells = _read_metadata(path, parts, tables, {**columns, **key_columns})
    names = {**{m: column for m, column in COLUMNS.items() if column in cells}, **columns}
    key_values: dict[str, Any] = {key: tuple(map(_text, cells[column])) for key, column in key_columns.items()}
    rows = sum(len(part) for table in tables.values() for part in table.parts) // len(tables)
    return Samples(
        ids=tuple(_text(cell) or str(row) for row, cell in enumerate(cells.get(ID_COLUMN, [None] * rows))),
        media={m: tuple(_medium(cell, m) for cell in cells[column]) for m, column in names.items()},
        source=f"clip-retrieval folder {os.path.abspath(path)}",
        vectors={m: VectorRows(table.parts, None, table.source) for m, table in tables.items()},
        **key_values,
    )


def _read_metadata(
    path: Path, parts: Sequence[Path], tables: Mapping[str, VectorTable], named: Mapping[str, str]
) -> dict[str, list[Any]]:
    """Column of the metadata -> its cells, of the named columns and of `COLUMNS` and ids where there are any."""
    cells: dict[str, list[Any]] = {}
    for number, part in enumerate(parts):
        label = os.path.join(path.name, METADATA, part.name)
        try:
            with open_regular(part) as file:
                table = ParquetTable(file, label)
                for modality, vectors in tables.items():
                    if len(vectors.parts[number]) != table.rows:
                        raise AuditError(
                            f"{label} has {table.rows:,} rows, and its file of {modality} embeddings "
                            f"{len(vectors.parts[number]):,}; let clip-retrieval finish, or copy the folder again"
                        )
                reader = RowReader(label, (), (), tuple(named.values()))
                reader.check_header(table.header)
                optional = [name for name in (ID_COLUMN, *COLUMNS.values()) if name in table.header]
                for batch in table.batches(list(dict.fromkeys([*named.values(), *optional]))):
                    for name in batch.schema.names:
                        of_batch = (reader.usable(name, cell) for cell in cells_of(batch.column(name)))
                        cells.setdefault(name, []).extend(of_batch)
        except OSError as error:
            raise AuditError(f"{label} cannot be read ({error.strerror or error}); check the file") from None
    return cells


def _medium(cell: Any, modality: str) -> str | None:
    """A text, or an absolute path; names within shards, which nothing can be read from, are left out."""
    if not isinstance(cell, str):
        return None
    return cell if MODALITIES[modality].is_text or os.path.isabs(cell) else None


def _text(cell: Any) -> str:
    return cell.strip() if isinstance(cell, str) else ""


def _number(path: Path) -> str:
    """The number at the end of a file's name, such as "0" of `img_emb_0.npy`."""
    return re.sub(r".*_", "", path.stem)
