"""The one folder of the server that the App writes into, by file names only, and files that a browser uploads."""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import os
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError

from . import checks

FOLDER = "AUDIT_EXPORT_DIR"
UNFINISHED, LOCK = ".export-", "lock"  # folders of exports that are not complete, and a file that they lock
MOST_BYTES = 200  # of a file name; file systems take 255, and the temporary name needs some
MOST_UPLOAD = 50_000_000  # bytes
# Names that are devices on Windows, also with an ending.
DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(10))}
FORBIDDEN = set('/\\:*?"<>|')

State = tuple[int, int, int]  # of a file: inode, size in bytes, time of the last change in nanoseconds


def export_folder() -> Path:
    """`$AUDIT_EXPORT_DIR`, else a folder in the user's data folder; made if it does not exist.

    Raises:
        AuditError: it cannot be made, or is no folder.
    """
    from audit_plugin.store import private_folder

    chosen = os.environ.get(FOLDER)
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    folder = Path(chosen).expanduser() if chosen else Path(data).expanduser() / "audit-plugin" / "exports"
    return private_folder(folder).resolve()


def checked_name(name: str, endings: Sequence[str]) -> str:
    """The file name; raise an `AuditError` if it is a path, hidden, a device, too long, or has another ending."""
    problem = ""
    if not name:
        problem = "is empty"
    elif FORBIDDEN & set(name) or any(unicodedata.category(c)[0] in "CZ" and c != " " for c in name):
        problem = "has characters other than letters, digits, blanks and signs such as - _ . ( )"
    elif name.startswith((".", " ", "-", "~")) or name.endswith((".", " ")):
        problem = "begins or ends with a dot, a blank, a hyphen or a tilde"
    elif name.partition(".")[0].strip().lower() in DEVICES:
        problem = "is the name of a device"
    elif len(name.encode("utf-8", "replace")) > MOST_BYTES:
        problem = f"is longer than {MOST_BYTES} bytes"
    elif not name.lower().endswith(tuple(endings)):
        problem = f"does not end in {' or '.join(endings)}"
    if problem:
        raise AuditError(
            f"file name {checks.short(name)} {problem}; give a name without a folder, such as a{endings[0]}"
        )
    return name


def proposed_name(start: str, end: str) -> str:
    """A file name made of any text and an ending."""
    letters = "".join(c if c.isalnum() or c in "-_" else "-" for c in start)
    while len(letters.encode("utf-8", "replace")) > MOST_BYTES - 50:
        letters = letters[:-1]
    return f"{letters.strip('-') or 'dataset'}-{end}"


def state_of(name: str) -> State | None:
    """The state of a file in the export folder; None if there is none.

    Raises:
        AuditError: it is something else than a regular file, which is never replaced.
    """
    try:
        status = os.lstat(export_folder() / name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AuditError(f"{name!r} cannot be written ({error.strerror}); choose another name") from error
    if not stat.S_ISREG(status.st_mode):
        raise AuditError(f"{name!r} in {export_folder()} is not a regular file; choose another name")
    return status.st_ino, status.st_size, status.st_mtime_ns


def state_text(state: State) -> str:
    """`written 2026-01-31 12:00 UTC, 3.0 MB`."""
    time = datetime.fromtimestamp(state[2] / 1e9, UTC)
    return f"written {time:%Y-%m-%d %H:%M} UTC, {state[1] / 1e6:,.1f} MB"


@contextlib.contextmanager
def exported(name: str, replaces: State | None) -> Iterator[Path]:
    """A path to write to; afterwards the file is in the export folder as a whole, under its name.

    Args:
        name: a `checked_name`.
        replaces: the file that may be replaced; None: none.

    Raises:
        AuditError: there is a file, or another one than was to be replaced, or the disk refuses.
    """
    from audit_plugin.store import disk_error

    folder = export_folder()
    target = folder / name
    _remove_unfinished(folder)
    try:
        with _temporary_folder(folder) as temporary:
            written = temporary / name
            yield written
            if state_of(name) != replaces:
                raise AuditError(f"{name!r} was written or deleted by another at the same time; open the form again")
            if replaces is None:
                _publish(written, target)
            else:
                os.replace(written, target)
    except FileExistsError as error:
        raise AuditError(f"{name!r} was written by another at the same time; open the form again") from error
    except OSError as error:
        raise disk_error(target, error) from error


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A folder for what is not complete, locked while this process lives."""
    from audit_plugin.store import lock_if_free

    with (
        tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as temporary,
        open(Path(temporary) / LOCK, "wb") as lock,
    ):
        lock_if_free(lock.fileno())
        yield Path(temporary)


def _remove_unfinished(folder: Path) -> None:
    """Delete what exports of dead processes left half written."""
    from audit_plugin.store import lock_if_free

    for path in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):  # none of ours, or another process deletes it too
            if path.is_symlink() or not path.is_dir():
                continue
            with open(path / LOCK, "rb") as lock:
                if lock_if_free(lock.fileno(), without_locks=False):
                    shutil.rmtree(path)


def _publish(written: Path, target: Path) -> None:
    """Give the file its name, unless another file has it."""
    try:
        os.link(written, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        target.open("xb").close()  # a file system without hard links: the name is taken first, never half a file
        os.replace(written, target)


@contextlib.contextmanager
def uploaded(params: Mapping[str, Any], name: str, endings: Sequence[str]) -> Iterator[Path]:
    """A file that was chosen in the browser, as a temporary file.

    Raises:
        AuditError: no file, too large, or another ending.
    """
    upload = params.get(name)
    if upload is None:
        raise AuditError("no file was chosen; choose one")
    if not isinstance(upload, Mapping):
        raise AuditError(f"{name} is of type {type(upload).__name__}; it must be an uploaded file")
    named = checks.text(upload, "name", most=1000).lower()
    ending = next((ending for ending in endings if named.endswith(ending)), "")
    if not ending:
        raise AuditError(f"the file {checks.short(named)} does not end in {' or '.join(endings)}; choose another one")
    content = checks.required(upload.get("content"), "the content of the file")
    if not isinstance(content, str) or len(content) > MOST_UPLOAD * 4 / 3 + 4:
        raise AuditError(f"the file is larger than {MOST_UPLOAD / 1e6:.0f} MB; import it from Python")
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AuditError("the file did not arrive as a whole; choose it again") from error
    with tempfile.TemporaryDirectory(prefix="audit-upload-") as temporary:
        path = Path(temporary) / f"upload{ending}"
        path.write_bytes(data)
        yield path
