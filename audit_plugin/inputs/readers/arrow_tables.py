"""Parquet and Arrow tables, as Hugging Face, img2dataset and pandas write them; media in them are read in place.

A column of media holds paths, bytes, structs `{bytes, path}`, base64 texts, or lists of one of these. Numbers of a
`ClassLabel` of Hugging Face become the names of their classes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.files import first_line, member_of
from audit_plugin.inputs.parquet import ParquetTable, cells_of
from audit_plugin.inputs.rows import MAX_ROWS, READ_OBJECTS, Unusable, what_of_fields
from audit_plugin.inputs.table_cells import arrow_batches, is_base64
from audit_plugin.store import open_regular

from .source import Located, Row


class TableSource:
    """The rows of one Parquet or Arrow file."""

    columns: Mapping[str, str] = {}

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent
        self.notes: list[str] = []
        with self._opened() as file:
            is_named_so = path.suffix.lower() in (".parquet", ".pq")
            start = file.read(4)
            file.seek(0)
            self._is_parquet = start == b"PAR1" or (is_named_so and start != b"ARRO")
            self.schema = self.whole_schema = self._read_schema(file)
            self.header: list[str] = self.schema.names
        self.title = "Parquet" if self._is_parquet else "an Arrow table"
        self._classes = class_names(self.schema)

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:
        """The rows; bytes in columns of media are located, and those of other columns never read unless all are."""
        wanted_names = [name for name in self.schema.names if wanted is None or name in wanted]
        if doubled := [name for name in wanted_names if wanted_names.count(name) > 1]:
            raise AuditError(f"{self.path.name} has several columns named {doubled[0]!r}; rename all but one")
        kinds = {name: self._kind(name, media) for name in wanted_names}
        unusable = {name: Unusable(kind) for name, kind in kinds.items() if kind and wanted is not None}
        for name in unusable:
            if name not in media and len(unusable) == len(kinds):
                raise AuditError(f"{self.path.name}: column {name!r} holds {kinds[name]}, not text; write it as text")
        names = [name for name in kinds if name not in unusable]
        with self._opened() as file:
            start = 0
            located = {name for name in names if name in media and self._holds_bytes(name)}
            if located:
                self._check_ending()
            for columns, count in self._batches(file, names, located):
                cells = [
                    self._located(name, columns.get(name), start, count)
                    if name in located
                    else self._cells(name, columns[name], start, name in media, wanted is not None)
                    for name in names
                ]
                for row in zip(*cells, strict=True) if cells else [()] * count:
                    yield Row({**unusable, **dict(zip(names, row, strict=True))})
                start += count

    def _batches(self, file: Any, names: list[str], located: set[str]) -> Iterator[tuple[dict[str, Any], int]]:
        """(column -> Arrow array, number of rows) of each batch; of what is located only what is needed is read."""
        if self._is_parquet:
            table = ParquetTable(file, self.path.name)
            leaves = {name: _leaf_of_bytes(self._type(name), name) for name in located}
            read = [name for name in names if name not in located or not table.is_whole(leaves[name])]
            paths = [f"{name}.path" for name in located - set(read) if _has_path(self._type(name))]
            for batch in table.batches([*read, *paths]):
                yield {name: batch.column(name) for name in batch.schema.names}, batch.num_rows
            return
        positions = [self.schema.names.index(name) for name in names]
        rows = 0
        for batch in arrow_batches(file, positions):
            rows += batch.num_rows
            if rows > MAX_ROWS:
                raise AuditError(f"{self.path.name} has more than {MAX_ROWS:,} rows, the limit; audit it in parts")
            yield {name: batch.column(name) for name in batch.schema.names}, batch.num_rows

    def _cells(self, name: str, values: Any, start: int, is_medium: bool, names_classes: bool) -> list[Any]:
        """The cells of a batch as Python values; a medium that is written as base64 is located."""
        cells = cells_of(values)
        if is_medium:
            column, path = self.schema.names.index(name), str(self.path.absolute())
            return [
                Located(member_of(path, name, start + row, column)) if _is_base64(cell) else cell
                for row, cell in enumerate(cells)
            ]
        if names_classes and (classes := self._classes.get(name)):
            return [_class_name(cell, classes) for cell in cells]
        return cells

    def _located(self, name: str, values: Any, start: int, count: int) -> list[Any]:
        """Where the bytes of each row are; the path of a row that has one and no bytes; None for neither."""
        column = self.schema.names.index(name)
        cells: list[Any] = []
        for row in range(count):
            path, has_bytes = "", True
            if values is not None:
                if (size := _size_of(values[row])) > 1:
                    cells.append(Unusable(f"a list of {size:,} media"))
                    continue
                path, has_bytes = _path_and_bytes(values[row])
            if has_bytes:
                cells.append(Located(member_of(str(self.path.absolute()), path or name, start + row, column)))
            else:
                cells.append(path or None)
        return cells

    def _check_ending(self) -> None:
        """Raises `AuditError` where the name of the file does not say in which format it holds media."""
        endings = (".parquet", ".pq") if self._is_parquet else (".arrow", ".feather")
        if not self.path.name.lower().endswith(endings):
            raise AuditError(
                f"{self.path.name} is {self.title} with media inside, which are found in it by its ending; rename "
                f"it to {self.path.stem}{endings[0]}"
            )

    def _type(self, name: str) -> Any:
        return self.schema.field(name).type

    def _holds_bytes(self, name: str) -> bool:
        return bool(_leaf_of_bytes(self._type(name), name))

    def _kind(self, name: str, media: Collection[str]) -> str:
        """What a column holds that cannot be used as it is wanted; "" if it can."""
        if name in media and self._holds_bytes(name):
            return ""
        kind = self._type(name)
        one = _one(kind)
        if name in media and _has_path(one):  # of structs without bytes the paths are read
            return ""
        return _unusable_type(kind)

    def _read_schema(self, file: Any) -> Any:
        import pyarrow as pa
        import pyarrow.ipc

        if self._is_parquet:
            table = ParquetTable(file, self.path.name)
            return table.schema
        try:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            source = pa.PythonFile(file, mode="r")
            return (pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)).schema
        except (pa.ArrowException, OSError, ValueError) as error:
            raise AuditError(
                f"{self.path.name} cannot be read as Arrow ({first_line(error)}); write it again"
            ) from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow as pa

        try:
            with open_regular(self.path) as file:
                yield file
        except FileNotFoundError:
            raise AuditError(f"manifest {str(self.path)!r} does not exist; check its path") from None
        except (OSError, ValueError, pa.ArrowException) as error:
            if isinstance(error, AuditError):
                raise
            reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
            raise AuditError(f"manifest {str(self.path)!r} cannot be read ({reason}); check the file") from error


def _is_base64(cell: Any) -> bool:
    if isinstance(cell, list) and len(cell) == 1:
        cell = cell[0]
    return isinstance(cell, str) and is_base64(cell)


def class_names(schema: Any) -> dict[str, list[str]]:
    """Column -> names of its classes, where Hugging Face's metadata says them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        # of a column with several classes in a row, the feature is that of the elements
        elements = {name: feature.get("feature", feature) for name, feature in features.items()}
        return {
            name: [str(each) for each in feature["names"]]
            for name, feature in elements.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _class_name(cell: Any, classes: list[str]) -> Any:
    if isinstance(cell, list):
        return [_class_name(each, classes) for each in cell]
    return classes[cell] if isinstance(cell, int) and 0 <= cell < len(classes) else cell


def _one(kind: Any) -> Any:
    """The type of the elements, of a list or of lists of a fixed size; the values of a dictionary; else the type."""
    import pyarrow as pa

    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return _one(kind.value_type) if is_list or types.is_dictionary(kind) else kind


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(test(kind) for test in tests)


def _leaf_of_bytes(kind: Any, name: str) -> str:
    """The path of the leaf of a column that holds bytes; "" if it has none."""
    import pyarrow as pa

    one = _one(kind)
    if _is_bytes(one):
        return name
    if pa.types.is_struct(one) and one.get_field_index("bytes") >= 0 and _is_bytes(one.field("bytes").type):
        return f"{name}.bytes"
    return ""


def _has_path(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind) and kind.get_field_index("path") >= 0)


def _size_of(scalar: Any) -> int:
    """The length of a list; 1 for what is none."""
    import pyarrow as pa

    types = pa.types
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return len(scalar.values) if scalar.is_valid and any(test(scalar.type) for test in tests) else 1


def _path_and_bytes(scalar: Any) -> tuple[str, bool]:
    """(path, whether there are bytes) in a cell, which is not copied."""
    import pyarrow as pa

    if not scalar.is_valid:
        return "", False
    if pa.types.is_dictionary(scalar.type):
        return _path_and_bytes(scalar.dictionary[scalar.index.as_py()])
    if pa.types.is_struct(scalar.type):
        names = [field.name for field in scalar.type]
        path = scalar["path"].as_py() if "path" in names else None
        has_bytes = "bytes" not in names or scalar["bytes"].is_valid
        return path if isinstance(path, str) else "", has_bytes
    if hasattr(scalar, "values") and not _is_bytes(scalar.type):
        return _path_and_bytes(scalar.values[0]) if len(scalar.values) == 1 else ("", bool(len(scalar.values)))
    return "", True


def _unusable_type(kind: Any) -> str:
    """What a column of this Arrow type holds instead of texts, paths, or lists of them; "" if it can be used."""
    import pyarrow as pa

    types = pa.types
    one = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_list(one) or types.is_large_list(one) or types.is_fixed_size_list(one):
        one = one.value_type
    if _is_bytes(one):
        return "bytes"
    names = [field.name for field in one] if types.is_struct(one) else []
    if any(set(names) >= known for known in READ_OBJECTS):
        return ""
    return what_of_fields(names) if names else "nested lists" if types.is_nested(one) else ""
