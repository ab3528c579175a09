"""The paths in the cells of manifests: relative ones, addresses of files, forms of Unicode, and the media root."""

from __future__ import annotations

import os
import re
import unicodedata
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from audit_plugin.arrays import AuditError

from .files import file_of
from .located import Located
from .remote import Copy, below, copy_at, shown
from .rows import brief
from .table_cells import is_base64

MAX_PATH = 4096  # bytes
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://|data:")

Place = Callable[[str | Located], tuple[str | None, str]]  # cell -> (absolute path, what is wrong with it)


def real_folder(media_root: str | Path) -> str:
    """The folder without links; raises `AuditError` where it is none."""
    root = os.path.realpath(media_root)
    if not os.path.isdir(root):
        raise AuditError(f"the media root {brief(str(media_root))} is not a folder; name one that is")
    return root


def paths_of(folder: str | Path, root: str) -> Place:
    """A function from a cell of a file in `folder` to (absolute path, ""), or to (None, what is wrong with the cell).

    The medium must lie in the folder `root`, whose links are resolved; "": anywhere. Of a manifest that was fetched
    from remote storage it must lie in the same remote folder, unless another `root` is named.
    """
    base = os.path.abspath(folder)
    copy = copy_at(base)
    if copy and root in ("", os.path.realpath(copy.files)):
        return _paths_of_copy(base, copy)
    real_folders: dict[str, str] = {}

    def confined(path: str) -> tuple[str | None, str]:
        file = file_of(path.partition("\0")[0])  # a box may follow the path
        parent = os.path.dirname(file)
        if parent not in real_folders:
            real_folders[parent] = os.path.realpath(parent)
        real = os.path.join(real_folders[parent], os.path.basename(file))
        if os.path.islink(real):
            real = os.path.realpath(real)
        is_inside = not root or real.startswith(os.path.join(root, ""))
        return (path, "") if is_inside else (None, f"names a file outside of the media root {root}")

    def place(cell: str | Located) -> tuple[str | None, str]:
        if isinstance(cell, Located):
            return confined(cell.value)
        if problem := _no_path(cell):
            return None, problem
        path = as_written(os.path.abspath(os.path.join(base, local_path(cell))))
        if ("\\" in cell or "%" in cell) and not os.path.lexists(file_of(path)):
            path = _of_other_programs(base, cell) or path
        if root and not os.path.exists(file_of(path)):
            in_root = as_written(os.path.abspath(os.path.join(root, local_path(cell))))
            path = in_root if os.path.exists(file_of(in_root)) else path
        return confined(path) if root else (path, "")

    return place


def _paths_of_copy(base: str, copy: Copy) -> Place:
    """`paths_of` for a manifest of remote storage, whose cells are relative paths, or addresses in its folder."""

    def place(cell: str | Located) -> tuple[str | None, str]:
        if isinstance(cell, Located):
            return cell.value, ""
        if path := below(copy.url, shown(cell)):
            return as_written(os.path.join(copy.files, path)), ""
        if problem := _no_path(cell):
            return None, problem
        # Windows separates folders by a backslash, which no name that is fetched holds
        path = as_written(os.path.abspath(os.path.join(base, local_path(cell).replace("\\", "/"))))
        is_below = path.startswith(os.path.join(copy.files, ""))
        return (path, "") if is_below else (None, f"names a file outside of {copy.url}")

    return place


def _no_path(cell: str) -> str:
    """Why a cell is not a path, "" if it may be one."""
    if is_base64(cell):
        return "holds a medium in base64, not a path; write the table as Parquet, in which it is read"
    if "\0" in cell:
        return "holds a null character, not a path"
    if len(cell.encode("utf-8", "replace")) > MAX_PATH:
        return f"holds {len(cell):,} characters, which no path has"
    if _URL.match(local_path(cell)):
        return f"holds a URL ({brief(cell, 40)}), not a path: download the file"
    return ""


def local_path(cell: str) -> str:
    """The path in a `file://` address of this machine; other cells as they are."""
    if not cell.lower().startswith("file://"):
        return cell
    address = urllib.parse.urlsplit(cell)
    return urllib.parse.unquote(address.path) if address.netloc in ("", "localhost") else cell


def _of_other_programs(base: str, cell: str) -> str:
    """The file that a path with the separators of Windows, or with `%20` for a blank, names; "" where none is there."""
    for form in (cell.replace("\\", "/"), urllib.parse.unquote(cell)):
        path = as_written(os.path.abspath(os.path.join(base, form)))
        if "\0" not in form and os.path.lexists(file_of(path)):
            return path
    return ""


def as_written(path: str) -> str:
    """The path in the form of Unicode in which a file is there: accents as letters of their own, or not."""
    if path.isascii() or os.path.lexists(file_of(path)):
        return path
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, path)
        if os.path.lexists(file_of(other)):
            return other
    return path
