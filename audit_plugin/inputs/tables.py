"""Writes and reads tables, writes reports: each file completely or not at all, equal bytes for equal content."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError
from audit_plugin.store import disk_error, remove_leftovers, write_bytes

from .rows import as_text
from .spreadsheet import csv_text

FOOTER_KEY = "audit_plugin"


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


def read_table(path: Path) -> tuple[dict[str, NDArray[Any]], str]:
    """(columns, footer) of a Parquet file that `write_table` wrote; texts as object arrays, footer "" for none.

    Raises:
        AuditError: the file cannot be read as Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AuditError(
            f"{path} cannot be read as Parquet ({reason}); name a table written by score --out NAME.parquet or by save"
        ) from error
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return columns, (table.schema.metadata or {}).get(FOOTER_KEY.encode(), b"").decode()


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
    remove_leftovers(path.parent, path.name)
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()
