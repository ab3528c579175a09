"""The place of an export: written under another name beside it, flushed to the disk, and renamed at the end.

An export that was killed leaves a hidden folder, which the next one to the same place removes. An archive is made of
the finished folder, file by file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.formats import ARCHIVE
from audit_plugin.store import disk_error

MANY_FILES = 1000  # beyond which the whole disk is flushed at once, which is faster
LOCK, FINISHING = "lock", "finishing"
ATTEMPTS, WAIT = 5, 0.1  # at the lock, and seconds between them
STEP = 256  # files between two reports of progress


class Place:
    """Where the parts of an export are written, and where they belong.

    Attributes:
        to: of the export: a file, or a folder.
        is_folder: the documents lie in it: it is a folder, or an archive of one; those of a file lie beside it, under
            its name.
        is_archive: the folder is packed into one file.
        staged: where to write `to`; of an archive, its folder.
    """

    def __init__(self, to: Path, is_folder: bool, hidden: Path) -> None:
        self.to, self.is_folder, self._hidden = to, is_folder, hidden
        self.is_archive = to.suffix.lower() == ARCHIVE
        self.staged = hidden / "export" if is_folder else hidden / f"export{to.suffix}"
        self._documents = self.staged if is_folder else hidden / "documents"
        for folder in {self._documents, *([self.staged] if is_folder else [])}:
            folder.mkdir()

    @property
    def unpacked(self) -> Path:
        """The place of what is written, or for an archive the folder that it unpacks to."""
        return self.to.with_suffix("") if self.is_archive else self.to

    def document(self, name: str) -> Path:
        """Where to write a document such as audit.md."""
        return self._documents / name

    def final(self, name: str) -> Path:
        """Where a document will be."""
        return self.to / name if self.is_folder else self.to.with_name(f"{self.to.name}.{name}")

    def finish(self, progress: Callable[[int, int], None]) -> None:
        """Moves everything to its place, the export last; `progress` is called with (files packed, files)."""
        written = self.staged
        if self.is_archive:
            written = self._hidden / f"export{ARCHIVE}"
            _pack(self.staged, written, self.unpacked.name, progress)
        _flush(self._hidden)
        moved: list[Path] = []
        try:
            if not self.is_folder:
                (self._hidden / FINISHING).touch()
                for document in sorted(self._documents.iterdir()):
                    moved.append(self.final(document.name))
                    os.replace(document, moved[-1])
            if not self.is_folder or self.is_archive:
                check_free(self.to)
            os.rename(written, self.to)
            moved.clear()
            _flush_folder(self.to.parent)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise AuditError(f"{self.to} was made by somebody else meanwhile; name another place: --to") from error
            raise disk_error(self.to, error) from error
        finally:
            for document in moved:
                document.unlink(missing_ok=True)


def _size(folder: Path) -> int:
    """Bytes of the files in it."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _pack(folder: Path, archive: Path, name: str, progress: Callable[[int, int], None]) -> None:
    """Moves the files of a folder into an archive, below a folder `name`: the disk never holds all of them twice."""
    total = sum(len(names) for _, _, names in os.walk(folder))
    done = 0
    # not compressed: media are already
    with zipfile.ZipFile(archive, "x", strict_timestamps=False) as out:
        for base, folders, names in os.walk(folder):
            folders.sort()
            for file in sorted(Path(base) / file_name for file_name in names):
                if done % STEP == 0:
                    progress(done, total)
                out.write(file, f"{name}/{file.relative_to(folder).as_posix()}")
                file.unlink()
                done += 1
    progress(total, total)


def check_free(to: Path) -> None:
    """Raises `AuditError` unless `to` is missing, an empty folder or an empty file."""
    try:
        if "\0" in str(to):
            raise ValueError("it holds a null character")
        if to.is_symlink():
            raise AuditError(f"{to} is a link; name the place itself: --to")
        if to.is_dir():
            taken = f"holds {sorted(p.name for p in to.iterdir())[0]!r}" if any(to.iterdir()) else ""
        else:
            taken = f"exists ({to.stat().st_size:,} bytes)" if to.exists() and to.stat().st_size else ""
    except (OSError, ValueError) as error:
        raise AuditError(f"{str(to)!r} cannot be used ({error}); name another place: --to") from error
    if taken:
        raise AuditError(f"{to} {taken}; name a new place: --to, or delete it")


@contextlib.contextmanager
def opened_place(to: Path, is_folder: bool, documents: tuple[str, ...]) -> Iterator[Place]:
    """A place to write to, which only `Place.finish` makes visible; where that is not reached, nothing stays.

    Args:
        to: of the export.
        is_folder: it is a folder, or an archive of one.
        documents: names of the documents, which must not be there.

    Raises:
        AuditError: the place is taken, cannot be written, or another process exports to it.
    """
    to = Path(os.path.abspath(to))
    _sweep(to.parent)
    check_free(to)
    digest = hashlib.sha256(to.name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    hidden = to.with_name(f".{to.name[:60]}.{digest}.export")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        lock, was_finishing = _claimed(hidden, to)
    except OSError as error:
        raise disk_error(to, error) from error
    try:
        place = Place(to, is_folder, hidden)
        for name in () if is_folder else documents:
            if was_finishing:
                place.final(name).unlink(missing_ok=True)  # of the killed export itself
            check_free(place.final(name))
        if to.is_dir() is not (is_folder and not place.is_archive) and to.exists():
            to.rmdir() if to.is_dir() else to.unlink()  # it is empty
        yield place
    except OSError as error:
        written = _size(hidden)
        with contextlib.suppress(OSError):
            _empty(hidden)  # so that what is free by now is what the user has
        raise disk_error(to, error, written=written) from error
    finally:
        with contextlib.suppress(OSError):
            _remove(hidden)
        os.close(lock)


def _claimed(hidden: Path, to: Path) -> tuple[int, bool]:
    """(handle of the lock, a killed export was moving its documents) of the hidden folder, which is empty now."""
    while True:
        with contextlib.suppress(FileExistsError):
            hidden.mkdir(mode=0o700)
        try:
            names = {path.name for path in hidden.iterdir()} if not hidden.is_symlink() else {str(hidden)}
        except FileNotFoundError:
            continue  # another process has removed it
        except NotADirectoryError:
            names = {str(hidden)}
        # a listing takes its time: the lock may be there since
        if names and LOCK not in names and not (hidden / LOCK).exists():
            raise AuditError(
                f"{hidden}, where the export would be written first, is taken or holds other files; move it away"
            )
        try:
            handle = os.open(hidden / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # another process has removed the empty folder
        try:
            _lock(handle, ATTEMPTS)
        except OSError as error:
            os.close(handle)
            raise AuditError(f"another process exports to {to}; wait for it, or name another place: --to") from error
        # the process that had the lock may have deleted the folder meanwhile
        with contextlib.suppress(OSError):
            if os.stat(hidden / LOCK).st_ino == os.fstat(handle).st_ino:
                break
        os.close(handle)
    was_finishing = (hidden / FINISHING).exists()
    _empty(hidden)
    return handle, was_finishing


def _empty(hidden: Path) -> None:
    """Removes everything but the lock."""
    for path in hidden.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _remove(hidden: Path) -> None:
    """Removes the hidden folder, the lock after everything else: by it others see whose the folder is."""
    _empty(hidden)
    (hidden / LOCK).unlink()
    hidden.rmdir()


def _sweep(folder: Path) -> None:
    """Removes what killed exports left in a folder, wherever in it they were to go."""
    with contextlib.suppress(OSError, ValueError):
        for hidden in folder.glob(".*.????????.export"):
            with contextlib.suppress(OSError):
                _remove_if_dead(hidden)


def _remove_if_dead(hidden: Path) -> None:
    names = {path.name for path in hidden.iterdir()}
    if not names and not hidden.is_symlink():
        hidden.rmdir()  # the lock is removed last, but one
        return
    is_own = LOCK in names and all(name in (LOCK, FINISHING, "documents") or name[:6] == "export" for name in names)
    # where one died between its moves, the next export to its place removes the documents too
    was_between_moves = FINISHING in names and any(name[:6] == "export" for name in names)
    if hidden.is_symlink() or not is_own or was_between_moves:
        return
    handle = os.open(hidden / LOCK, os.O_RDWR)
    try:
        _lock(handle)
        _remove(hidden)
    finally:
        os.close(handle)


def _lock(handle: int, attempts: int = 1) -> None:
    """Raises `OSError` where another process has the lock; one that only sweeps has it for a moment."""
    try:
        import fcntl
    except ImportError:
        return  # no file locks on this system
    for attempt in range(attempts):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if attempt + 1 == attempts:
                raise
            time.sleep(WAIT)


def _flush(folder: Path) -> None:
    """Everything below a folder is on the disk."""
    paths: list[Path] = []
    for base, _, names in os.walk(folder):
        paths += [Path(base), *(Path(base) / name for name in names)]
        if len(paths) > MANY_FILES:
            os.sync()
            return
    for path in paths:
        _flush_folder(path)


def _flush_folder(path: Path) -> None:
    """A file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
