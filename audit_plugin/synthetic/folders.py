"""A folder that holds a drawn set: a marker says which, so that a whole one is kept and a foreign one left alone."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Sequence
from pathlib import Path

from audit_plugin.arrays import AuditError


def claimed(out: Path, marker: str, what: str) -> dict[str, object]:
    """What the file `marker` in `out` says, {} for a new folder.

    Raises:
        AuditError: the folder holds something else, which is not ours to overwrite.
    """
    try:
        if (out / marker).is_file():
            found = json.loads((out / marker).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except (OSError, ValueError):
        taken = True
    if taken:
        raise AuditError(f"{out} is in use and holds no {what}: name another folder with --out")
    return {}


def mark(out: Path, marker: str, content: dict[str, object]) -> None:
    """Writes the marker, through a second file: an interruption leaves no half one, which would lock the folder."""
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f"{marker}.part"
    draft.write_text(json.dumps(content) + "\n", encoding="utf-8")
    draft.replace(out / marker)


def write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with the columns `head`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def check_packages() -> None:
    """Raises AuditError without the packages that draw."""
    for module, package in (("python_avatars", "python-avatars"), ("resvg_py", "resvg-py")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise AuditError(
                f'{package} is not installed and the persons are drawn with it: pip install "audit-plugin[demo]"'
            ) from error
