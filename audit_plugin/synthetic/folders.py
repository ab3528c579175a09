"""The folder of a drawn set: a marker says which set it is, so that a complete one is kept and others are refused."""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from audit_plugin.arrays import AuditError
from audit_plugin.store import disk_error


@contextlib.contextmanager
def filling(out: Path) -> Iterator[None]:
    """Raises `AuditError` that names the file or else the folder, where what is drawn cannot be written."""
    try:
        yield
    except OSError as error:
        raise disk_error(Path(error.filename or out), error) from error


def read_marker(out: Path, marker: str, what: str) -> dict[str, object]:
    """The content of the file `marker` in `out`; {} for a new folder.

    Raises:
        AuditError: the folder holds something else, which must not be overwritten.
    """
    try:
        if (out / marker).is_file():
            content = json.loads((out / marker).read_text(encoding="utf-8"))
            return content if isinstance(content, dict) else {}
        draft = _draft(out, marker).name  # all that a kill while the marker is written leaves
        taken = out.exists() and (not out.is_dir() or any(path.name != draft for path in out.iterdir()))
    except (OSError, ValueError):
        taken = True
    if taken:
        raise AuditError(f"{out} is not empty and is not a {what}: name another folder with --out")
    return {}


def write_marker(out: Path, marker: str, content: dict[str, object]) -> None:
    """Writes the marker by renaming a complete file: half a marker after an interruption would lock the folder."""
    out.mkdir(parents=True, exist_ok=True)
    draft = _draft(out, marker)
    draft.write_text(json.dumps(content) + "\n", encoding="utf-8")
    draft.replace(out / marker)


def _draft(out: Path, marker: str) -> Path:
    return out / f"{marker}.part"


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a CSV table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV table by column."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check_packages() -> None:
    """Raises AuditError without the packages that draw."""
    for module, package in (("python_avatars", "python-avatars"), ("resvg_py", "resvg-py")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise AuditError(
                f'{package} is not installed; persons are drawn with it: pip install "audit-plugin[demo]"'
            ) from error
