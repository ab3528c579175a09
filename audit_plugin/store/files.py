"""Files that are whole or absent, and are checked when they are read.

A file is written under a temporary name and renamed, so a killed run finds what was finished. A seal in it, a sum of
its bytes and of its place, tells a reader that it is as it was written, and that it is the file of this name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import stat
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from audit_plugin.arrays import AuditError

from .shortages import disk_error

MAX_JSON = 1 << 29  # bytes of a JSON file that is read
# A file that cannot be read for one of these reasons is as good as damaged; others, such as a lack of memory, pass.
UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EINVAL, errno.ESTALE)
LEFTOVER = re.compile(r"\..+\.[0-9a-f]{32}\.part")
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what a system or a network disk without file locks says
LEFTOVER_SECONDS = 60.0  # there, the age from which a temporary file is that of a dead process
SEAL_FORMAT = b"audit1"
SEAL_SIZE = len(SEAL_FORMAT) + 8 + 64
SUMMED_AT_ONCE = 1 << 20


class Damaged(ValueError):  # noqa: N818
    """A stored file is not as it was written: cut, changed, exchanged, or no regular file."""


def digest_of(*parts: Any) -> str:
    """sha256 (hex) of JSON-ready values: names and guards run folders."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def cache_root() -> Path:
    """Where features and default run folders live: `$AUDIT_PLUGIN_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("AUDIT_PLUGIN_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen).expanduser() if chosen else Path(base).expanduser() / "audit-plugin"


def private_folder(path: Path) -> Path:
    """The folder, made for this user only if it did not exist."""
    is_new = not path.exists()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(path, error) from error
    if is_new:
        _sync_folder(path.parent)
    return path


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any], size: int | None = None) -> None:
    """Calls `write(file)` on a temporary file, flushes it to the disk and renames it to `path`.

    A file that is replaced passes its permissions on; a link is not followed. What killed processes left of the same
    file is removed. `size` in bytes, where it is known, is what the error of a full disk names.

    Raises:
        AuditError: the disk is full, or the place cannot be written or holds something other than a file.
    """
    mode = writable_file(path)
    remove_leftovers(path.parent, path.name)
    written = 0
    try:
        part, file = _open_part(path)
        try:
            with file:
                if mode is not None:
                    os.chmod(part, mode)
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):
                written = part.stat().st_size
                part.unlink()
        _sync_folder(path.parent)
    except OSError as error:  # the temporary file is gone by now, so what is free is what the user has
        raise disk_error(path, error, size, written) from error


def _open_part(path: Path) -> tuple[Path, IO[bytes]]:
    """A new temporary file beside `path`, locked until it is closed, also by the death of this process."""
    while True:
        part = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}.part")
        file = open(part, "x+b")  # noqa: SIM115
        if lock_if_free(file.fileno()) and os.fstat(file.fileno()).st_nlink:
            return part, file
        file.close()  # before it was locked, another process took it for a leftover


def write_bytes(path: Path, data: bytes) -> None:
    """`write_atomically` of bytes in memory."""
    write_atomically(path, lambda file: file.write(data), len(data))


def _sync_folder(folder: Path) -> None:
    """Flushes a folder's entries: else the name of a new file may be lost with the power. Not all systems can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def lock_if_free(handle: int, without_locks: bool = True) -> bool:
    """Whether this process has the file's lock now; `without_locks` on systems, or network disks, that have none."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return without_locks
    except OSError as error:
        return error.errno in NO_LOCKS and without_locks
    return True


def remove_leftovers(folder: Path, name: str = "") -> int:
    """Deletes the temporary files that dead processes left in a folder; their number.

    `name` of the file that they were to become, or "" for all.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if LEFTOVER.fullmatch(path.name) and path.name.startswith(f".{name[:50]}."[: None if name else 1]):
                removed += _remove_leftover(path)
    return removed


def _remove_leftover(path: Path) -> bool:
    with contextlib.suppress(OSError), open_regular(path) as file:
        is_old = time.time() - os.fstat(file.fileno()).st_mtime >= LEFTOVER_SECONDS
        if not path.is_symlink() and lock_if_free(file.fileno(), without_locks=is_old):
            path.unlink()
            return True
    return False


def writable_file(path: Path) -> int | None:
    """The permissions of the file that is to be replaced, None where `path` names nothing yet.

    Raises:
        AuditError: a folder, device, pipe, socket or link (in a folder from elsewhere, one may name any file of this
            user), or a write-protected file.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AuditError(f"{str(path)!r} cannot be written ({error}); name another file") from error
    if stat.S_ISLNK(status.st_mode):
        raise AuditError(f"{path} is a link to {os.path.realpath(path)}; name that file itself, or another")
    if not stat.S_ISREG(status.st_mode):
        raise AuditError(f"{path} is {kind_of_file(status.st_mode)}, not a file; name another")
    if not os.access(path, os.W_OK):
        raise AuditError(f"{path} is write-protected; change its permissions, or name another file")
    return stat.S_IMODE(status.st_mode) & 0o777


def open_regular(path: str | Path) -> io.BufferedReader:
    """Opens a regular file, links followed, for reading bytes; never waits for a pipe and touches no device.

    Raises:
        OSError: there is no such file, or it is something else (IsADirectoryError: a folder).
        ValueError: the path holds a null character.
    """
    mode = os.stat(path).st_mode  # before opening it, since that alone makes some devices act
    # if it was replaced since: an open that would wait returns at once, and never takes over a terminal
    for_reading = os.O_RDONLY
    for flag in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"):  # not each system has each of them
        for_reading |= getattr(os, flag, 0)
    if stat.S_ISREG(mode):
        file = open(os.open(path, for_reading), "rb")  # noqa: SIM115
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return file
        file.close()
    number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(number, f"it is {kind_of_file(mode)}, not a file", str(path))


def kind_of_file(mode: int) -> str:
    """What a path names that is not a regular file, in words."""
    names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


# --- reading, with sums ------------------------------------------------------------------------------------------


def read_regular(path: Path) -> io.BufferedReader:
    """`open_regular` of a stored file.

    Raises:
        FileNotFoundError: nothing is there.
        Damaged: something else than a file, or a file that cannot be read.
    """
    with readable(path):
        return open_regular(path)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns the errors of a file that cannot be read into `Damaged`; a lack of memory or descriptors passes."""
    try:
        yield
    except OSError as error:
        if error.errno in UNREADABLE:
            raise Damaged(f"{path} cannot be read ({error.strerror})") from error
        raise


def write_sealed(path: Path, place: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as a zip archive of NumPy files, with a seal in the archive's comment.

    `place` names whose file it is: a reader names the same place, so that an exchanged file is refused.
    """

    def write(file: IO[bytes]) -> None:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        end = file.seek(0, io.SEEK_END)
        total = _sum_of(file, end - 2)
        file.seek(end - 2)  # the length of the comment, which is the end of an archive
        file.write(SEAL_SIZE.to_bytes(2, "little") + _seal(total, place))

    write_atomically(path, write, sum(array.nbytes for array in arrays.values()))


def read_sealed(path: Path, place: str) -> dict[str, np.ndarray]:
    """The arrays that `write_sealed` wrote for this place.

    Raises:
        FileNotFoundError: nothing is there.
        Damaged: the file is not as it was written, or is that of another place.
    """
    with readable(path), read_regular(path) as file:
        if not is_sealed(file, place):
            raise Damaged(f"{path} is damaged, or was written for something else")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise Damaged(f"{path} is damaged ({error})") from error


def is_sealed(file: IO[bytes], place: str) -> bool:
    """Whether an open archive is as `write_sealed` wrote it for this place."""
    end = file.seek(0, io.SEEK_END) - SEAL_SIZE - 2
    if end <= 0:
        return False
    total = _sum_of(file, end)
    file.seek(end)
    return file.read(2 + SEAL_SIZE) == SEAL_SIZE.to_bytes(2, "little") + _seal(total, place)


def _sum_of(file: IO[bytes], size: int) -> int:
    """CRC-32 of the first `size` bytes: it has to notice accidents, at the speed of the memory."""
    file.seek(0)
    total, left = 0, size
    while left > 0 and (data := file.read(min(left, SUMMED_AT_ONCE))):
        total, left = zlib.crc32(data, total), left - len(data)
    return total


def _seal(total: int, place: str) -> bytes:
    return SEAL_FORMAT + f"{total:08x}{digest_of(place)}".encode()


def sealed_json(content: Mapping[str, Any], place: str, indent: int | None = 1) -> bytes:
    """A JSON object with a digest of its content and place as the last key."""
    return json.dumps({**content, "seal": digest_of(place, content)}, indent=indent).encode()


def read_json(path: Path, place: str) -> tuple[dict[str, Any], bool]:
    """(the object that `sealed_json` wrote, True); a file without a seal, of a former version, as (content, False).

    Raises:
        FileNotFoundError: nothing is there.
        Damaged: the file is not as it was written, or is that of another place.
    """
    with readable(path), read_regular(path) as file:
        data = file.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise Damaged(f"{path} is damaged (it has more than {MAX_JSON:,} bytes)")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise Damaged(f"{path} is damaged (it holds no object)")
    seal = content.pop("seal", None)
    if seal not in (None, digest_of(place, content)):
        raise Damaged(f"{path} is damaged, or was written for something else")
    return content, seal is not None
