"""A folder that `datasets.save_to_disk` of Hugging Face wrote: Arrow files, listed in `state.json`, maybe in splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.store import open_regular

from .arrow_tables import TableSource
from .source import Source
from .splits import with_splits

STATE, SPLITS = "state.json", "dataset_dict.json"
MAX_STATE = 1 << 24  # bytes


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder is a saved dataset, or several splits of one."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def saved_tables(folder: Path) -> list[Source]:
    """The Arrow files of a saved dataset, in the order that it lists.

    Raises:
        AuditError: its lists cannot be read, or name files outside of it.
    """
    if not (folder / SPLITS).is_file():
        return [TableSource(path) for path in _files_of(folder)]
    splits = _read(folder / SPLITS).get("splits")
    if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
        raise AuditError(f"{str(folder / SPLITS)!r} lists no splits; name the folder of one split")
    files = [(path, split) for split in splits for path in _files_of(folder / _inside(split, folder))]
    return with_splits([TableSource(path) for path, _ in files], [split for _, split in files])


def _files_of(folder: Path) -> list[Path]:
    state = _read(folder / STATE)
    if state.get("_indices_data_files"):
        raise AuditError(
            f"{str(folder / STATE)!r} names files of indices, by which rows were selected or shuffled; save the "
            "dataset again after flatten_indices()"
        )
    files = state.get("_data_files")
    names = (
        [file.get("filename") if isinstance(file, dict) else None for file in files] if isinstance(files, list) else []
    )
    if not names or not all(isinstance(name, str) for name in names):
        raise AuditError(f"{str(folder / STATE)!r} lists no data files; save the dataset again")
    return [folder / _inside(str(name), folder) for name in names]


def _inside(name: str, folder: Path) -> str:
    """The name of a file or folder in the folder; raises `AuditError` for one elsewhere."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise AuditError(f"{str(folder)!r} lists {name[:80]!r}, which does not lie in it; save the dataset again")
    return name


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with open_regular(path) as file:
            content = json.loads(file.read(MAX_STATE))
    except (OSError, ValueError, RecursionError) as error:
        raise AuditError(f"{str(path)!r} cannot be read ({error}); save the dataset again") from error
    return content if isinstance(content, dict) else {}
