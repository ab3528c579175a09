"""Reads tables of vectors: npy, npz, safetensors, Parquet, Arrow, Lance; `READERS` has one function a format."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import VECTOR_TYPES, AuditError, Floats
from audit_plugin.store import open_regular

from .files import first_line
from .rows import ID_COLUMN, MAX_ROWS, brief

COLUMN = "#"  # between a file and the array or column in it
MAX_DIMENSIONS = 1 << 16
MAX_HEADER = 1 << 24  # bytes, of safetensors
BATCH = 4096  # rows of a table that are decoded at once
ID_ARRAYS = (ID_COLUMN, "ids")
# names of safetensors' types; the last one has no type of NumPy's
TENSOR_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class VectorTable:
    """Vectors of a file or of several: parts `[q, d]`, with an id per row where the file has them."""

    parts: tuple[Floats, ...]
    source: str  # for messages
    ids: tuple[str, ...] | None = None


def read_vectors(source: str) -> VectorTable:
    """The vectors that a source names: a file, a folder of files in the order of their numbers, `FILE#COLUMN`.

    Raises:
        AuditError: no such file, an ending that is not known, no or several columns of vectors, damaged contents.
    """
    place, column = source, ""
    if not os.path.exists(source) and COLUMN in source:
        place, _, column = source.rpartition(COLUMN)
    path = Path(place).expanduser()
    suffix = path.suffix.lower()
    if path.is_dir() and suffix not in FOLDERS:
        return _read_folder(path, column)
    if suffix not in READERS:
        raise AuditError(
            f"{brief(place)} ends in {suffix or 'nothing'!r}; embeddings are read from {', '.join(READERS)}, or from a "
            "folder of such files"
        )
    with _errors(place):
        return READERS[suffix](path, column)


def _read_folder(folder: Path, column: str) -> VectorTable:
    """The files of a folder one after the other, ordered by the numbers in their names."""
    paths = numbered_files(folder, tuple(READERS))
    if not paths:
        raise AuditError(f"{brief(str(folder))} holds no file of {', '.join(READERS)}; name a file, or another folder")
    tables = [read_vectors(f"{path}{COLUMN}{column}" if column else str(path)) for path in paths]
    return join_tables(tables, str(folder))


def join_tables(tables: Sequence[VectorTable], source: str) -> VectorTable:
    """Tables one below the other.

    Raises:
        AuditError: they differ in type, dimensions, or in having ids.
    """
    first = tables[0]
    for table in tables[1:]:
        if _form(table) != _form(first):
            raise AuditError(
                f"{table.source} holds {_form(table)}, {first.source} {_form(first)}; files of one folder have one form"
            )
    ids = tuple(name for table in tables for name in table.ids or ()) if first.ids is not None else None
    return VectorTable(tuple(part for table in tables for part in table.parts), source, ids)


def _form(table: VectorTable) -> str:
    part = table.parts[0]
    return f"{part.dtype.name} of {part.shape[1]} numbers {'with' if table.ids is not None else 'without'} ids"


def numbered_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder with one of these endings, by the numbers in their names: part 10 comes after part 9."""

    def key(path: Path) -> list[Any]:
        return [int(piece) if piece.isdigit() else piece for piece in re.split(r"([0-9]+)", path.name)]

    files = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return sorted(files, key=key)


@contextlib.contextmanager
def _errors(place: str) -> Iterator[None]:
    """What a decoder raises as an `AuditError` that names the file."""
    try:
        yield
    except AuditError:
        raise
    except FileNotFoundError:
        raise AuditError(f"embeddings {brief(place)} do not exist; check the path") from None
    except Exception as error:  # each format's library has exceptions of its own
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise AuditError(f"embeddings {brief(place)} cannot be read ({reason}); write the file again") from error


# --- arrays ------------------------------------------------------------------------------------------------------


def _read_npy(path: Path, column: str) -> VectorTable:
    if column:
        raise AuditError(f"{brief(str(path))} is one array without names; leave {COLUMN}{column} out")
    with open_regular(path) as file:
        shape, is_fortran, dtype = _npy_header(file)
        array = _mapped(file, path.name, shape, dtype, file.tell(), "F" if is_fortran else "C")
    return VectorTable((array,), str(path))


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _mapped(
    file: io.BufferedReader, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, order: Any = "C"
) -> Floats:
    """An array that stays in the file, whose size was checked: nothing is read."""
    _check_form(name, shape, dtype)
    needed, size = offset + math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size
    if size < needed:
        raise AuditError(f"{name} is cut off: it has {size:,} bytes of {needed:,}; copy it again")
    return np.memmap(file, dtype, "r", offset, shape, order)


def _check_form(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raises AuditError for what is no table of floating-point numbers, before anything is read."""
    if dtype.name not in VECTOR_TYPES:
        raise AuditError(
            f"{name} holds {dtype}, embeddings are {', '.join(VECTOR_TYPES)}; convert it, for example by numpy's "
            "astype('float32')"
        )
    if len(shape) != 2 or not all(shape):
        raise AuditError(
            f"{name} has the shape {' x '.join(map(str, shape)) or 'of one number'}; embeddings are a table of one row "
            "per sample"
        )
    if shape[0] > MAX_ROWS or shape[1] > MAX_DIMENSIONS:
        raise AuditError(
            f"{name} has {shape[0]:,} rows of {shape[1]:,} numbers; the limits are {MAX_ROWS:,} and "
            f"{MAX_DIMENSIONS:,}: audit it in parts"
        )


def _read_npz(path: Path, column: str) -> VectorTable:
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        headers = {}
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                with archive.open(info) as member:
                    headers[info.filename.removesuffix(".npy")] = (info, _npy_header(member))
        tables = [name for name, (_, (shape, _, _)) in headers.items() if len(shape) == 2]
        name = _choose(path.name, column, tables, list(headers), "arrays")
        info, (shape, _, dtype) = headers[name]
        _check_form(f"{path.name}{COLUMN}{name}", shape, dtype)
        if info.file_size < math.prod(shape) * dtype.itemsize:
            raise AuditError(f"{path.name} is damaged: array {name!r} is shorter than it says; write it again")
        with archive.open(info) as member:
            vectors = np.lib.format.read_array(member, allow_pickle=False)
        ids = next((_npz_ids(archive, *headers[key]) for key in ID_ARRAYS if key in headers), None)
    _check_ids(path.name, ids, len(vectors))
    return VectorTable((vectors,), f"{path}{COLUMN}{name}" if column else str(path), ids)


def _npz_ids(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: Any) -> tuple[str, ...]:
    shape, _, dtype = header
    if len(shape) != 1 or dtype.kind not in "USiu" or info.file_size < math.prod(shape) * dtype.itemsize:
        raise AuditError(
            f"array {info.filename!r} holds {dtype} of the shape {shape}; ids are one row of texts or whole numbers: "
            "write them so, or leave them out to match rows by their order"
        )
    with archive.open(info) as member:
        values = np.lib.format.read_array(member, allow_pickle=False).tolist()
    return tuple(value.decode() if isinstance(value, bytes) else str(value) for value in values)


def _read_safetensors(path: Path, column: str) -> VectorTable:
    """By its own header, since the library copies what it reads: a length, JSON, then the numbers."""
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MAX_HEADER, os.fstat(file.fileno()).st_size):
            raise AuditError(f"{path.name} is no safetensors file: its header would have {length:,} bytes; check it")
        header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tables = [name for name, entry in tensors.items() if len(entry["shape"]) == 2]
        name = _choose(path.name, column, tables, list(tensors), "tensors")
        entry, label = tensors[name], f"{path.name}{COLUMN}{name}"
        if entry["dtype"] not in TENSOR_TYPES:
            raise AuditError(f"{label} holds {entry['dtype']}; embeddings are {', '.join(TENSOR_TYPES)}: convert it")
        shape, is_brain = tuple(map(int, entry["shape"])), entry["dtype"] == "BF16"
        dtype = np.dtype(TENSOR_TYPES[entry["dtype"]])
        _check_form(label, shape, np.dtype("float16") if is_brain else dtype)
        start, end = entry["data_offsets"]
        if start < 0 or end - start != math.prod(shape) * dtype.itemsize:
            raise AuditError(
                f"{label} is damaged: {shape} numbers do not fit into bytes {start} to {end}; write it again"
            )
        if is_brain:  # the upper half of a float32
            file.seek(8 + length + start)
            halves = np.frombuffer(file.read(end - start), dtype)
            if len(halves) < math.prod(shape):
                raise AuditError(f"{label} is cut off; copy the file again")
            vectors = (halves.astype(np.uint32) << 16).view(np.float32).reshape(shape)
        else:
            vectors = _mapped(file, label, shape, dtype, 8 + length + start)
    return VectorTable((vectors,), f"{path}{COLUMN}{name}" if column else str(path))


# --- tables ------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, column: str) -> VectorTable:
    import pyarrow.parquet

    with open_regular(path) as file:
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
        return _read_table(
            path,
            column,
            table.schema_arrow,
            table.metadata.num_rows,
            lambda columns: table.iter_batches(BATCH, columns=columns, use_threads=False),
        )


def _read_arrow(path: Path, column: str) -> VectorTable:
    import pyarrow as pa
    import pyarrow.ipc

    with open_regular(path) as file:
        try:
            reader = pyarrow.ipc.open_file(file)
            numbers = range(reader.num_record_batches)
            rows = sum(reader.get_batch(number).num_rows for number in numbers)
            return _read_table(path, column, reader.schema, rows, lambda _: map(reader.get_batch, numbers))
        except pa.ArrowInvalid:  # a stream of batches, or none of both
            file.seek(0)
            batches = list(pyarrow.ipc.open_stream(file))
            if not batches:
                raise AuditError(f"{path.name} holds no rows; write the embeddings into it") from None
            return _read_table(path, column, batches[0].schema, sum(map(len, batches)), lambda _: iter(batches))


def _read_lance(path: Path, column: str) -> VectorTable:
    try:
        import lance
    except ImportError:
        raise AuditError(
            f"{brief(str(path))} is a Lance table, which the package pylance reads; install it, or write the table as "
            "Parquet"
        ) from None
    table = lance.dataset(str(path))
    return _read_table(
        path,
        column,
        table.schema,
        table.count_rows(),
        lambda columns: table.to_batches(columns=columns, batch_size=BATCH),
    )


def _read_table(path: Path, column: str, schema: Any, rows: int, batches: Callable[[list[str]], Any]) -> VectorTable:
    """The vectors, and the ids, of a table in batches, copied into one array."""
    columns = {name: _vector_type(schema.field(name).type) for name in schema.names}
    name = _choose(path.name, column, [n for n, kind in columns.items() if kind], schema.names, "columns of vectors")
    label = f"{path.name}{COLUMN}{name}"
    if not columns[name]:
        raise AuditError(
            f"{label} holds {schema.field(name).type}, not vectors; name a column of lists of {', '.join(VECTOR_TYPES)}"
        )
    if not rows:
        raise AuditError(f"{path.name} holds no rows; write the embeddings into it")
    has_ids = ID_COLUMN in schema.names and name != ID_COLUMN
    vectors: Floats | None = None
    ids: list[str] = []
    row = 0
    for batch in batches([name, ID_COLUMN] if has_ids else [name]):
        numbers = batch.column(name)
        numbers = getattr(numbers, "storage", numbers)  # of a tensor
        sizes = np.array([-1 if size is None else size for size in numbers.value_lengths().to_pylist()])
        if vectors is None and (sizes > 0).any():
            width = int(sizes[sizes > 0][0])
            _check_form(label, (rows, width), np.dtype(columns[name]))
            vectors = np.zeros((rows, width), columns[name])
        if vectors is not None:
            _fill(vectors, row, numbers, sizes, label)
        if has_ids:
            ids += _ids_of(batch.column(ID_COLUMN), row, path.name)
        row += len(sizes)
    if vectors is None:
        raise AuditError(f"{label} holds no vector in any of its {rows:,} rows; name another column")
    return VectorTable((vectors,), f"{path}{COLUMN}{name}" if column else str(path), tuple(ids) if has_ids else None)


def _fill(vectors: Floats, row: int, numbers: Any, sizes: np.ndarray, label: str) -> None:
    """Copies the vectors of a batch to the rows from `row` on; where there is none the row stays zeros."""
    numbers.validate(full=True)
    width = vectors.shape[1]
    if (wrong := np.flatnonzero((sizes > 0) & (sizes != width))).size:
        raise AuditError(
            f"{label}: row {row + int(wrong[0])} (counted from 0) has {sizes[wrong[0]]} numbers where others have "
            f"{width}; all vectors have one length"
        )
    flat = numbers.flatten().to_numpy(zero_copy_only=False)  # of null vectors nothing; null numbers are NaN
    vectors[row + np.flatnonzero(sizes > 0)] = flat.reshape(-1, width)


def _ids_of(values: Any, row: int, name: str) -> list[str]:
    cells = values.to_pylist()
    for number, cell in enumerate(cells, row):
        if not isinstance(cell, str | int) or cell == "":
            raise AuditError(
                f"{name}: row {number} (counted from 0) has {brief(cell)} in the column {ID_COLUMN!r}; give every "
                "row an id, or leave the column out to match rows by their order"
            )
    return [str(cell) for cell in cells]


def _vector_type(kind: Any) -> str:
    """The type of the numbers in lists of floating-point numbers; "" for any other column."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    names = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float64"}
    return names.get(kind.value_type, "") if is_list else ""


def _choose(file: str, named: str, vectors: Sequence[str], names: Sequence[str], what: str) -> str:
    """The name of the array or column that is meant: the one that is named, or the only one that can be."""
    listed = ", ".join(brief(name, 40) for name in names[:20]) or "none"
    if named:
        if named not in names:
            raise AuditError(f"{file} has no {named!r}; it holds {listed}")
        return named
    if not vectors:
        raise AuditError(f"{file} holds no {what} (it holds {listed}); write lists of numbers, or a table of numbers")
    if len(vectors) > 1:
        choices = ", ".join(f"{file}{COLUMN}{name}" for name in vectors[:20])
        raise AuditError(f"{file} holds {len(vectors)} {what}; name the one that is meant: {choices}")
    return vectors[0]


def _check_ids(file: str, ids: tuple[str, ...] | None, rows: int) -> None:
    if ids is not None and len(ids) != rows:
        raise AuditError(f"{file} has {len(ids):,} ids for {rows:,} vectors; give each vector one")


READERS: Mapping[str, Callable[[Path, str], VectorTable]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
    ".ipc": _read_arrow,
    ".lance": _read_lance,
}
FOLDERS = (".lance",)  # what is a folder itself
