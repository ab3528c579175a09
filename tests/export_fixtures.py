"""An audited manifest as `audit-plugin score` leaves it, without running an audit: exports only read its files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.inputs.tables import write_table

COLUMNS = {"image": "image", "text": "caption"}


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows as CSV, JSONL or Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def write_scores(
    path: Path,
    manifest: Path,
    ids: Sequence[str],
    captions: Sequence[int] = (),
    columns: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
) -> Path:
    """A table of scores, all rows good unless `columns` says otherwise, with its summary."""
    n = len(ids)
    table: dict[str, Any] = {"id": np.array(ids, dtype=object)}
    if captions:
        table["caption_index"] = np.array(captions, dtype=np.int64)
    table |= {"misalignment": np.linspace(-1, 1, n, dtype=np.float32), "probability": np.full(n, 0.1, np.float32)}
    table["duplicate_group"] = np.full(n, "", dtype=object)
    table |= {f"is_{kind}": np.zeros(n, dtype=bool) for kind in ("misaligned", "outlier", "duplicate")}
    table |= {"action": np.full(n, "keep", dtype=object)}
    table |= {name: np.full(n, "", dtype=object) for name in ("reason", "suggestion", "failure")}
    for name, values in (columns or {}).items():
        table[name] = np.array(values, dtype=table[name].dtype)
    write_table(path, table)
    summary = {
        "manifest": str(manifest),
        "config": {**(names or COLUMNS), "false_positive_rate": 0.02},
        "flags": {"misaligned": int(table["is_misaligned"].sum())},
        "estimated": {
            "in_one_space": False,
            "pairs": 3,
            "pairs_interval": [1, 5],
            "precision": 0.9,
            "precision_interval": [0.8, 0.95],
        },
        "probe_recall": {"swap": 0.97},
    }
    path.with_suffix(".json").write_text(json.dumps(summary))
    return path


def marked(n: int, rows: Mapping[int, Any], default: Any = "") -> list[Any]:
    """A column with values in some rows."""
    return [rows.get(row, default) for row in range(n)]
