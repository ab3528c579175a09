"""Parquet: one row per sample, its media as paths, or as structs `{bytes, path}` as Hugging Face stores them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.files import first_line, name_of_member

from .values import ExportSample, Layout, Medium, SafeNames, as_json, bytes_of, path_from, suffix_of, text_cell

TABLE_ROWS = 10_000  # of a table of documents that are written at once
GROUP_ROWS, GROUP_BYTES = 5_000, 32 << 20  # of a row group, at most


class ParquetWriter:
    """Writes one Parquet file.

    Args:
        path: of the file.
        layout: of the source.
        with_bytes: media are written as `{bytes, path}`, where `path` is a safe name of the file.
        simple: other columns than numbers, booleans and texts are written as JSON texts.
        metadata: of the schema.
    """

    def __init__(
        self, path: Path, layout: Layout, with_bytes: bool = False, simple: bool = False, metadata: Any = None
    ) -> None:
        import pyarrow.parquet

        self._layout, self._with_bytes = layout, with_bytes
        self.schema = arrow_schema(layout, with_bytes, simple).with_metadata(metadata)
        self._as_text = {
            f.name for f in self.schema if f.name in layout.others and f.type in ("string", "large_string")
        }
        self._names = SafeNames()
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self.written = 0  # bytes of media
        self._file = pyarrow.parquet.ParquetWriter(path, self.schema)

    def add(self, sample: ExportSample) -> None:
        row: dict[str, Any] = {"id": sample.id}
        for modality, column in self._layout.media.items():
            row[column] = self._medium(sample, modality)
        if self._layout.text_column:
            row[self._layout.text_column] = list(sample.texts) if self._layout.listed else text_cell(sample)
        for name in self._layout.others:
            row[name] = _cell(sample.fields.get(name), name in self._as_text)
        self._rows.append(row)
        if len(self._rows) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _medium(self, sample: ExportSample, modality: str) -> Any:
        medium = sample.media.get(modality)
        if medium is None:
            return None
        if not self._with_bytes:
            return path_from(medium, self._layout.folder)
        data = bytes_of(medium)
        self._bytes += len(data)
        self.written += len(data)
        return {"bytes": data, "path": self._name(sample.id, medium, modality)}

    def _name(self, sample_id: str, medium: Medium, modality: str) -> str:
        """The name of the file where that is safe, else one made of the id."""
        if isinstance(medium, str):
            name = os.path.basename(name_of_member(medium) or medium)
            if name == SafeNames().of(Path(name).stem) + Path(name).suffix:
                return name
        return f"{self._names.of(sample_id)}.{suffix_of(medium, modality)}"

    def _flush(self) -> None:
        import pyarrow as pa

        try:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=self.schema))
        except (pa.ArrowException, TypeError, OverflowError) as error:
            first = self._rows[0]["id"]
            raise AuditError(
                f"rows from {first!r} on hold values that do not fit their columns ({first_line(error)}); export them "
                "as .jsonl"
            ) from error
        self._rows, self._bytes = [], 0


def _cell(value: object, as_text: bool) -> object:
    if as_text and value is not None and not isinstance(value, str):
        return json.dumps(as_json(value), ensure_ascii=False)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def arrow_schema(layout: Layout, with_bytes: bool, simple: bool) -> Any:
    """The Arrow schema of the export: columns of a Parquet source keep their types, unless `simple` asks for others."""
    import pyarrow as pa

    medium = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if with_bytes else pa.string()
    kinds: Mapping[str, Any] = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
    fields = [pa.field("id", pa.string()), *(pa.field(column, medium) for column in layout.media.values())]
    if layout.text_column:
        fields.append(pa.field(layout.text_column, pa.list_(pa.string()) if layout.listed else pa.string()))
    for name in layout.others:
        kind = kinds.get(layout.kinds.get(name, ""), pa.string())
        if layout.schema is not None:
            kind = layout.schema.field(name).type
            if simple and not (pa.types.is_primitive(kind) and not pa.types.is_temporal(kind)):
                kind = pa.string()
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


class RowTable:
    """A Parquet table that is written row by row."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        types = {"string": pa.string(), "int64": pa.int64(), "float": pa.float32()}
        self._schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
        self._file = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[tuple[Any, ...]] = []

    def add(self, *values: Any) -> None:
        """One more row, in the order of the columns."""
        self._rows.append(tuple(_utf8(value) for value in values))
        if len(self._rows) >= TABLE_ROWS:
            self._flush()

    def close(self) -> None:
        """Completes the file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._file.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []


def _utf8(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
