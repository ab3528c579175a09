"""Manifests in, score tables out: CSV, TSV, JSONL and Parquet."""

from __future__ import annotations

from .reading import read_manifest
from .writing import check_output, write_csv, write_json, write_scores

__all__ = ["check_output", "read_manifest", "write_csv", "write_json", "write_scores"]
