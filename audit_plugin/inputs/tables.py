"""Writes and reads tables, writes reports: each file completely or not at all, equal bytes for equal content."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError
from audit_plugin.store import disk_error, open_regular, raise_shortage, write_bytes

from .files import first_line
from .parquet import ParquetTable, cells_of
from .rows import RowReader, Unusable, as_text, brief
from .spreadsheet import csv_text

FOOTER_KEY = "audit_plugin"
MAX_CELLS = 300_000_000  # of a table
MAX_JSON = 1 << 26  # bytes of a report


def write_table(path: Path, columns: Mapping[str, NDArray[Any]], footer: str = "") -> str:
    """Writes columns `[n]` as CSV (see `spreadsheet`) or JSONL by suffix, else as Parquet with a footer.

    The result is the sha256 (hex) of its bytes.

    Values that are not finite are empty in CSV, null in JSONL and NaN in Parquet.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl"):
        import pyarrow as pa
        import pyarrow.parquet

        arrays = {}
        for name, values in columns.items():
            arrays[name] = pa.array(_plain(values), pa.string()) if values.dtype == object else pa.array(values)
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(pa.table(arrays).replace_schema_metadata({FOOTER_KEY: footer}), sink)
        return _replace(path, bytes(sink.getvalue()))
    rows = zip(*map(_plain, columns.values()), strict=True)
    if suffix == ".csv":
        text = csv_text([columns.keys(), *rows])
    else:
        text = "".join(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
    return _replace(path, text.encode())


def read_table(path: Path, is_wanted: Callable[[str], bool] | None = None) -> tuple[dict[str, NDArray[Any]], str]:
    """(columns, footer) of a Parquet file that `write_table` wrote; texts as object arrays, footer "" for none.

    Args:
        path: of the file.
        is_wanted: whether a column of a name is read; None: all are.

    Raises:
        AuditError: the file cannot be read as Parquet, is too large, or has columns that `write_table` does not write.
    """
    try:
        with open_regular(path) as file:
            table = ParquetTable(file, str(path))
            reader = RowReader(path.name, (), (), table.header)
            reader.check_header(table.header)
            if len(table.header) * table.rows > MAX_CELLS:
                raise AuditError(f"{path} has {len(table.header):,} columns of {table.rows:,} rows; write it in parts")
            names = [name for name in table.header if is_wanted is None or is_wanted(name)]
            nested = [name for name in names if _is_nested(table.type_of(name))]
            if nested:
                raise AuditError(f"{path}: column {brief(nested[0])} holds {table.type_of(nested[0])}; leave it out")
            parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
            for batch in table.batches(names):
                for name in names:
                    parts[name].append(_values(batch.column(name), name, reader))
    except AuditError:
        raise
    except (OSError, ValueError) as error:
        raise_shortage(error)
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise AuditError(
            f"{path} cannot be read as Parquet ({reason}); name a table written by score --out NAME.parquet or by save"
        ) from error
    columns = {name: np.concatenate(arrays) if arrays else np.zeros(0, object) for name, arrays in parts.items()}
    return columns, table.footer.get(FOOTER_KEY.encode(), b"").decode("utf-8", "replace")


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds, as `write_json` wrote it.

    Raises:
        FileNotFoundError: there is no such file.
        AuditError: it cannot be read, is too large, or holds something else.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_JSON + 1)
        if len(data) > MAX_JSON:
            raise ValueError(f"more than {MAX_JSON:,} bytes")
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise AuditError(f"{path} cannot be read ({reason}); write it again, or remove it") from error
    return content


def _is_nested(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_nested(kind.value_type if pa.types.is_dictionary(kind) else kind))


def _values(values: Any, name: str, reader: RowReader) -> NDArray[Any]:
    """The values of a batch of a column; texts are counted, so that they cannot fill the memory."""
    import pyarrow as pa

    if not (pa.types.is_dictionary(values.type) or pa.types.is_null(values.type)):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    texts = [cell if cell is None else reader.usable(name, cell) for cell in cells_of(values)]
    return np.array([None if isinstance(text, Unusable) else text for text in texts], dtype=object)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a report; values that are not finite become null."""
    _replace(path, (json.dumps(jsonable(content), indent=2) + "\n").encode())


def _plain(values: NDArray[Any]) -> list[Any]:
    """Python values: None where not finite, float32 in its shortest form, text that UTF-8 can hold."""
    if values.dtype.kind == "f":
        return [float(str(v)) if np.isfinite(v) else None for v in values]
    if values.dtype == object or values.dtype.kind == "U":
        return [as_text(v) for v in values.tolist()]
    return list(values.tolist())


def jsonable(value: object) -> object:
    """The value without numpy types and NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _replace(path: Path, data: bytes) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(path, error) from error
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()
