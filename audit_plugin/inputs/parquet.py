"""Reads Parquet in small batches, within limits: a file of a few bytes can stand for a billion rows."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.store import raise_shortage

from .files import first_line
from .rows import MAX_ROWS, MAX_TEXT, Unusable

BATCH = 512  # rows that are decoded at once
SMALL_BATCH = 16  # the same where equal texts are decoded each for itself
MAX_VALUES = 20_000_000  # of one column, whose cells may be lists
MAX_BYTES = 1 << 32  # of the columns that are read


class ParquetTable:
    """An open Parquet file, of which only some columns are read; what a decoder raises is an `AuditError`."""

    def __init__(self, file: io.BufferedReader, name: str) -> None:
        import pyarrow.parquet

        self.name = name
        self._file = file
        with self._errors():
            self._metadata = pyarrow.parquet.read_metadata(file)
            self.schema = self._metadata.schema.to_arrow_schema()
        self.header: list[str] = self.schema.names
        self.footer: Mapping[bytes, bytes] = self._metadata.metadata or {}
        self.rows: int = self._metadata.num_rows
        if self.rows > MAX_ROWS:
            raise AuditError(f"{name} has {self.rows:,} rows, the limit is {MAX_ROWS:,}; audit it in parts")

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Batches of rows (`pyarrow.RecordBatch`) of columns that stand in the header once.

        Texts are indices into a dictionary: equal ones are held once, however often the file repeats them.

        Raises:
            AuditError: the file cannot be read, or the columns are too large.
        """
        import pyarrow.parquet

        leaves = self._leaves(columns)
        repeated = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        rows = 0
        with self._errors():
            self._file.seek(0)
            table = pyarrow.parquet.ParquetFile(self._file, read_dictionary=repeated, pre_buffer=False)
            for group in range(self._metadata.num_row_groups):
                for batch in self._group(table, group, columns):
                    batch.validate(full=True)  # a damaged file may have indices beyond its dictionaries
                    rows += batch.num_rows
                    if rows > MAX_ROWS:
                        raise AuditError(f"{self.name} has more than {MAX_ROWS:,} rows, the limit; audit it in parts")
                    yield batch

    def _group(self, table: Any, group: int, columns: Sequence[str]) -> Iterator[Any]:
        """The batches of one row group: lists and structs whose dictionary breaks off are read without it."""
        import pyarrow.lib
        import pyarrow.parquet

        wanted = {"row_groups": [group], "columns": list(columns), "use_threads": False}
        rows = 0
        try:
            for batch in table.iter_batches(BATCH, **wanted):
                rows += batch.num_rows
                yield batch
        except pyarrow.lib.ArrowNotImplementedError:
            plain = pyarrow.parquet.ParquetFile(self._file, pre_buffer=False)
            seen = 0
            for batch in plain.iter_batches(SMALL_BATCH, **wanted):
                seen += batch.num_rows
                if seen > rows:
                    yield batch.slice(max(0, batch.num_rows - (seen - rows)))

    def type_of(self, column: str) -> Any:
        """The type of a column that stands in the header once."""
        return self.schema.field(column).type

    def is_whole(self, leaf: str) -> bool:
        """Whether the file says that a leaf (`image.bytes`) has a value in every row."""
        groups = (self._metadata.row_group(at) for at in range(self._metadata.num_row_groups))
        chunks = (group.column(at) for group in groups for at in range(group.num_columns))
        nulls = [
            chunk.statistics.null_count if chunk.is_stats_set and chunk.statistics.has_null_count else 1
            for chunk in chunks
            if chunk.path_in_schema == leaf
        ]
        return bool(nulls) and not any(nulls)

    def _leaves(self, columns: Sequence[str]) -> list[Any]:
        """The primitive columns of which columns consist, within the limits."""
        schema = self._metadata.schema
        paths = [schema.column(at).path for at in range(len(schema))]
        roots = tuple(f"{column}." for column in columns)
        wanted = [at for at, path in enumerate(paths) if path in columns or path.startswith(roots)]
        values, size = dict.fromkeys(wanted, 0), 0
        for group in range(self._metadata.num_row_groups):
            for at in wanted:
                chunk = self._metadata.row_group(group).column(at)
                values[at] += chunk.num_values
                size += chunk.total_uncompressed_size
        if max(values.values(), default=0) > MAX_VALUES or size > MAX_BYTES:
            raise AuditError(
                f"{self.name} holds {max(values.values()):,} values in one column and {size:,} bytes in those that are "
                f"read; the limits are {MAX_VALUES:,} and {MAX_BYTES:,}: audit it in parts"
            )
        return [schema.column(at) for at in wanted]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        import pyarrow.lib

        try:
            yield
        except AuditError:
            raise
        except (pyarrow.lib.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
            raise_shortage(error)
            raise AuditError(f"{self.name} cannot be read as Parquet ({first_line(error)}); write it again") from error


def cells_of(values: Any) -> list[Any]:
    """The cells of an Arrow array as Python values; equal texts are one object, and overlong ones `Unusable`."""
    import pyarrow as pa

    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        flat = iter(cells_of(values.flatten()))
        sizes = values.value_lengths().to_pylist()
        return [None if size is None else [next(flat) for _ in range(size)] for size in sizes]
    if not pa.types.is_dictionary(values.type):
        return list(values.to_pylist())
    words: dict[int, Any] = {}
    cells = []
    for index in values.indices.to_pylist():
        if index is not None and index not in words:
            word = values.dictionary[index]
            size = word.as_buffer().size if word.is_valid and hasattr(word, "as_buffer") else 0
            words[index] = Unusable(f"{size:,} bytes") if size > 4 * MAX_TEXT else word.as_py()
        cells.append(None if index is None else words[index])
    return cells
