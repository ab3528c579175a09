"""Media inside tables: the bytes of one cell of a Parquet or Arrow file, read where they are and copied nowhere.

Neighbors are read together, as media are mostly wanted in the order of the table; each thread has its own place.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from audit_plugin.store import open_regular

PARQUET, ARROW = ("parquet", "pq"), ("arrow", "feather")
BATCH_BYTES, BATCH_ROWS = 32 << 20, 256  # of the cells that are read at once
MAX_GROUP = 1 << 36  # bytes that the column of a row group may declare
OPEN_TABLES = 4  # of a thread
_of_thread = threading.local()  # `tables`: (path, column) -> `_Cells`


# How the base64 of media begins, and from how many characters on no path does.
_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkqA", "TU0AK", "SUQz", "ZkxhQ", "T2dnUw")
_LEAST_BASE64 = 64


def is_base64(text: str) -> bool:
    """Whether a text is a medium in base64, or a `data:` address with one."""
    if text.startswith("data:"):
        return ";base64," in text[:200]
    return (len(text) >= _LEAST_BASE64 and text.startswith(_BASE64)) or (len(text) > 256 and text.startswith("AAAA"))


def cell_bytes(path: str, row: int, column: int) -> bytes:
    """The bytes in a row of a column, counted from 0.

    Raises:
        OSError: the table cannot be read, ends before the row, or the cell holds no bytes.
    """
    import pyarrow as pa

    tables: dict[tuple[str, int], _Cells] = _of_thread.__dict__.setdefault("tables", {})
    cells = tables.pop((path, column), None) or _Cells(path, column)
    try:
        data = bytes_in(cells.at(row))
    except (pa.ArrowException, ValueError, KeyError, IndexError, OverflowError) as error:
        cells.close()
        raise OSError(
            f"the table cannot be read: {str(error).splitlines()[0][:100] if str(error) else error!r}"
        ) from error
    except BaseException:
        cells.close()
        raise
    tables[path, column] = cells
    while len(tables) > OPEN_TABLES:
        tables.pop(next(iter(tables))).close()
    if data is None:
        raise OSError("the cell holds no bytes")
    return data


def bytes_in(cell: Any) -> bytes | None:
    """The bytes that a cell holds: as such, in `{"bytes": ..., "path": ...}`, as base64, or in a list of one."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes")
    if isinstance(cell, list | tuple):
        return bytes_in(cell[0]) if len(cell) == 1 else None
    if isinstance(cell, str):
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode(cell.rpartition(";base64,")[2], validate=True)
        return None
    if isinstance(cell, bytes) and cell[:16].isascii() and is_base64(cell[:256].decode("latin-1")):
        return bytes_in(cell.decode("latin-1"))
    return cell if isinstance(cell, bytes) else None


class _Cells:
    """The cells of a column, of which those from the last one on are read on, and earlier ones from the start."""

    def __init__(self, path: str, column: int) -> None:
        self._file = open_regular(path)
        is_parquet = path.lower().endswith(PARQUET)
        try:
            self._table: _Parquet | _Arrow = _Parquet(self._file, column) if is_parquet else _Arrow(self._file, column)
        except BaseException:
            self._file.close()
            raise
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = ()
        self._start = self._end = 0  # rows of the batch

    def at(self, row: int) -> Any:
        """The value of a row."""
        if not self._start <= row < self._end:
            begin, batches = self._table.batches_to(row, self._end)
            if batches is not None:
                self._batches, self._start, self._end = batches, begin, begin
            while row >= self._end:
                self._batch = next(self._batches, None)
                if self._batch is None:
                    self._start = self._end = 0
                    raise OSError("the table ends too early")
                self._start, self._end = self._end, self._end + len(self._batch)
        return self._batch[row - self._start].as_py()

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """One column of a Parquet file."""

    def __init__(self, file: Any, column: int) -> None:
        import pyarrow.parquet

        metadata = pyarrow.parquet.read_metadata(file)
        schema = metadata.schema
        self._name = schema.to_arrow_schema().names[column]
        leaves = [schema.column(at) for at in range(len(schema)) if schema.column(at).path.split(".")[0] == self._name]
        repeated = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        file.seek(0)
        # a dictionary is kept once, however many rows repeat its values; inside of lists and structs it may break off
        flat = [path for path in repeated if path == self._name]
        self._file = pyarrow.parquet.ParquetFile(file, read_dictionary=flat, pre_buffer=False, buffer_size=1 << 20)
        self._starts, self._sizes = [0], []
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group)
            columns = [rows.column(at) for at in range(rows.num_columns)]
            size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == self._name)
            if size > MAX_GROUP:
                raise OSError(f"a row group has {size:,} bytes, the limit is {MAX_GROUP:,}")
            self._sizes.append(size / max(1, rows.num_rows))
            self._starts.append(self._starts[-1] + rows.num_rows)

    def batches_to(self, row: int, end: int) -> tuple[int, Iterator[Any] | None]:
        """(first row, batches) of the row group of a row; None where those that are read already come to it."""
        group = bisect.bisect_right(self._starts, row) - 1
        if group >= len(self._sizes):
            raise OSError("the table ends too early")
        start = self._starts[group]
        if start < end <= row:
            return start, None
        size = int(max(1, min(BATCH_ROWS, BATCH_BYTES / max(1.0, self._sizes[group]))))
        batches = self._file.iter_batches(size, row_groups=[group], columns=[self._name], use_threads=False)
        return start, (batch.column(0) for batch in batches)


class _Arrow:
    """One column of an Arrow file, as a file or as a stream."""

    def __init__(self, file: Any, column: int) -> None:
        self._file, self._column = file, column

    def batches_to(self, row: int, end: int) -> tuple[int, Iterator[Any] | None]:
        """(0, all batches); None where those that are read already come to the row."""
        if 0 < end <= row:
            return 0, None
        return 0, arrow_columns(self._file, self._column)


def arrow_columns(file: Any, column: int) -> Iterator[Any]:
    """One column of all batches of an open Arrow file."""
    for batch in arrow_batches(file, [column]):
        yield batch.column(0)


def arrow_batches(file: Any, columns: list[int]) -> Iterator[Any]:
    """Batches of columns, by their positions in the file's schema, of an open Arrow file or stream."""
    import pyarrow as pa
    import pyarrow.ipc

    file.seek(0)
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    source = pa.PythonFile(file, mode="r")
    options = pyarrow.ipc.IpcReadOptions(included_fields=sorted(set(columns)), use_threads=False)
    if is_file:
        reader = pyarrow.ipc.open_file(source, options=options)
        batches = (reader.get_batch(at) for at in range(reader.num_record_batches))
    else:
        batches = iter(pyarrow.ipc.open_stream(source, options=options))
    for batch in batches:
        batch.validate(full=True)  # offsets of a damaged file may lead out of its buffers, which ends the process
        yield batch
