"""The copy of a remote folder in the cache: the files that were asked for, each whole, and what is known of each.

A file is written under another name and moved to its own once it is whole; `fetched.jsonl` then gets a line with the
size and version that the storage told for it. A file of which the storage tells the same is not fetched again. Large
files come in blocks, and go on after the last one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.rows import brief
from audit_plugin.inputs.threads import ReadingThreads
from audit_plugin.store import (
    Damaged,
    cache_root,
    digest_of,
    disk_error,
    private_folder,
    read_json,
    sealed_json,
    size_text,
    write_bytes,
)
from audit_plugin.store.inventory import FETCHED, FETCHED_FILES
from audit_plugin.store.runs import ABOUT, LOCK, try_lock

from .addresses import shown, stays_below, within
from .network import NotWholeError, UnavailableError, attempted

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]

THREADS = 16
TICK_SECONDS = 0.2
MAX_FILE = 100 * 10**9  # bytes
MAX_TOTAL = 2 * 10**12  # bytes of one source with its media
SPARE = 10**9  # bytes of the disk that stay free
BLOCK, LARGE = 1 << 25, 1 << 27  # bytes of a block, and of the files that are fetched in blocks
PARTS, JOURNAL = "parts", "fetched.jsonl"
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EILSEQ)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of the storage; raises `UnavailableError` for a path that leads out of the folder.

    Attributes:
        path: from the folder on.
        address: as the file system of fsspec names it.
        size: in bytes; None where the storage does not tell.
        version: differs between two contents, as far as the storage tells; "" where it tells nothing.
    """

    path: str
    address: str
    size: int | None = None
    version: str = ""

    def __post_init__(self) -> None:
        if not stays_below(self.path):
            raise UnavailableError(f"{brief(self.path)} is not the name of a file in the folder of the source")


@dataclass(frozen=True)
class Copy:
    """What lies in the cache of a remote folder: its address without secrets, and the folder with its files."""

    url: str
    files: str


def copy_at(path: str | Path) -> Copy | None:
    """The copy of a remote folder that a path lies in, None where it lies in none."""
    root = os.path.join(os.path.abspath(cache_root() / FETCHED), "")
    place = os.path.abspath(path)
    if not place.startswith(root):
        return None
    key, _, rest = place[len(root) :].partition(os.sep)
    if rest.split(os.sep)[0] != FETCHED_FILES:
        return None
    with contextlib.suppress(OSError, Damaged, KeyError):
        url = str(read_json(Path(root) / key / ABOUT, ABOUT)[0]["source"])
        return Copy(url, os.path.join(root, key, FETCHED_FILES))
    return None


def folder_of_copy(url: str) -> Path:
    """Where the copy of a remote folder lies, or will."""
    return Path(os.path.abspath(cache_root())) / FETCHED / digest_of(shown(url))[:24]


def sources_of_copy(folder: Path) -> list[str]:
    """The addresses, without secrets, of the sources in a folder that were fetched as a whole."""
    with contextlib.suppress(OSError, Damaged, KeyError):
        return list(map(str, read_json(folder / ABOUT, ABOUT)[0]["sources"]))
    return []


class Mirror:
    """The copy of a remote folder, for one process at a time.

    Args:
        url: address of the folder.
        file_system: of fsspec.
        progress: called with stage, steps done and steps in all.

    Raises:
        AuditError: another process fetches into it, or the cache cannot be written.
    """

    def __init__(self, url: str, file_system: Any, progress: Progress) -> None:
        self.url, self._file_system, self.progress = shown(url), file_system, progress
        self.folder = private_folder(folder_of_copy(url))
        self.files = private_folder(self.folder / FETCHED_FILES)
        self.fetched_bytes = self.fetched_files = self.known_files = 0
        self.current: set[str] = set()  # paths that were fetched, or compared with the storage, by this process
        handle = try_lock(self.folder / LOCK)
        if handle is None:
            raise AuditError(f"{self.url} is being fetched by another process into {self.folder}; wait for it")
        self._handle = handle
        os.utime(handle)  # the last use, for `cache prune`
        self._clean(r"[0-9a-f]{32}")  # of processes that were killed
        self._known = self._read_journal()
        self._sources = sources_of_copy(self.folder)
        self._describe()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._clean(".*")
        os.close(self._handle)

    def _clean(self, names: str) -> None:
        """Removes parts of files, by a pattern of their names: 24 digits where the next try can go on with them."""
        for part in private_folder(self.folder / PARTS).iterdir():
            if re.fullmatch(names, part.name):
                part.unlink(missing_ok=True)

    def finish(self, source: str) -> None:
        """Notes that a source was fetched as a whole; its address without secrets."""
        if source not in self._sources:
            self._sources.append(source)
            self._describe()

    def _describe(self) -> None:
        facts = {"source": self.url, "sources": self._sources}
        write_bytes(self.folder / ABOUT, sealed_json(facts, ABOUT))

    # --- what is known ---------------------------------------------------------------------------------------------

    def _read_journal(self) -> dict[str, list[Any]]:
        """Path -> [size that was told, version, bytes that were written]; a line that was cut off is left out."""
        known = {}
        with contextlib.suppress(FileNotFoundError), open(self.folder / JOURNAL, encoding="utf-8") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    path, *facts = json.loads(line)
                    known[path] = facts
        return known

    def _note(self, file: RemoteFile, size: int) -> None:
        """Adds a line to the journal; one that a killed process left unfinished ends before it."""
        self._known[file.path] = [file.size, file.version, size]
        line = json.dumps([file.path, file.size, file.version, size])
        try:
            with open(self.folder / JOURNAL, "a", encoding="utf-8") as journal:
                journal.write(f"\n{line}\n")
        except OSError as error:
            raise disk_error(self.folder / JOURNAL, error) from error

    def _has(self, file: RemoteFile) -> bool:
        """Whether a file lies here as the storage has it now."""
        facts = self._known.get(file.path)
        if not facts or not file.version or facts[:2] != [file.size, file.version]:
            return False
        try:
            status = os.lstat(self.files / file.path)
        except (OSError, ValueError):
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == facts[2]

    def remove(self, paths: Iterable[str]) -> None:
        """Removes files that the storage does not have any more."""
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(self.files / path)

    def known_paths(self) -> list[str]:
        """Paths of all files that were fetched at some time."""
        return list(self._known)

    # --- fetching --------------------------------------------------------------------------------------------------

    def fetch(self, files: Sequence[RemoteFile], most: int = MAX_FILE) -> dict[str, str]:
        """Fetches what is missing or has changed; path -> why a file could not be had.

        Args:
            files: of the storage.
            most: bytes that one may have.

        Raises:
            AuditError: the storage cannot be reached, or there is too much for the limits or the disk.
        """
        missing = [file for file in files if not self._has(file)]
        self.known_files += len(files) - len(missing)
        self.current.update(file.path for file in files)
        total = sum(file.size or 0 for file in missing)
        self._check_room(len(missing), total)
        problems: dict[str, str] = {}
        count = _Count()
        limits = f"limits: {size_text(most)} a file, {size_text(MAX_TOTAL)} in all"
        size = f", {size_text(total)}," if total else ""
        stage = f"fetch {_files(len(missing))}{size} of {self.url} ({limits})"
        in_mb = total >= 10**7 and all(file.size is not None for file in missing)
        steps = (lambda: count.bytes // 10**6, total // 10**6) if in_mb else (lambda: count.files, len(missing))
        stage += ", MB" if in_mb else ""

        def show() -> None:
            self.progress(stage, min(steps[0](), steps[1]), steps[1])
            if self.fetched_bytes + count.bytes > MAX_TOTAL:
                raise AuditError(
                    f"{self.url} has more than {size_text(MAX_TOTAL)}, the limit of a source; name parts of it"
                )

        def arrived(file: RemoteFile, result: int | UnavailableError) -> None:
            count.files += 1
            if isinstance(result, UnavailableError):
                problems[file.path] = str(result)
            else:
                self._note(file, result)

        if missing:
            show()
            in_parallel(lambda file, threads: self._download(file, most, count, threads), missing, arrived, show)
            show()
        self.fetched_files += len(missing) - len(problems)
        self.fetched_bytes += count.bytes
        return problems

    def _check_room(self, files: int, size: int) -> None:
        """Raises `AuditError` for more bytes than the limit, or than the disk has room for."""
        if size > MAX_TOTAL:
            raise AuditError(
                f"{self.url}: {_files(files)} of {size_text(size)} are to be fetched, and the limit of a source is "
                f"{size_text(MAX_TOTAL)}; name parts of it"
            )
        free = shutil.disk_usage(self.folder).free - SPARE
        if size > free:
            raise AuditError(
                f"{self.url}: {_files(files)} of {size_text(size)} are to be fetched, and {size_text(max(0, free))} "
                f"are free in {self.folder}; free some space, or set AUDIT_PLUGIN_CACHE to a folder of another disk"
            )

    def _download(self, file: RemoteFile, most: int, count: _Count, threads: ReadingThreads) -> int:
        """Fetches one file; its size in bytes."""
        url = within(self.url, file.path)
        if file.size is not None and file.size > most:
            raise UnavailableError(f"{url!r} has {size_text(file.size)}, and the limit of a file is {size_text(most)}")
        in_blocks = bool(file.version) and (file.size or 0) >= LARGE
        name = digest_of(file.path, file.size, file.version)[:24] if in_blocks else uuid.uuid4().hex
        part = self.folder / PARTS / name

        def get() -> int:
            with count.attempt(threads, most, url) as callback:
                if not in_blocks or not self._get_blocks(file, part, callback):
                    # the package of Hugging Face reads in a slower way where it is given any callback
                    kwargs = {} if "hf" in _protocols(self._file_system) else {"callback": callback}
                    self._file_system.get_file(file.address, str(part), **kwargs)
                size = part.stat().st_size
                if size > most:
                    raise UnavailableError(f"{url!r} has more than {size_text(most)}, the limit of a file")
                if file.size is not None and size != file.size:
                    part.unlink()
                    raise NotWholeError("the file was cut off, or is being changed")
                callback.finished(size)
            return size

        try:
            size = attempted(get, url)
            self._move(part, file.path)
            return size
        finally:
            if not in_blocks:
                part.unlink(missing_ok=True)

    def _get_blocks(self, file: RemoteFile, part: Path, callback: Any) -> bool:
        """Appends what is missing of a file to its part; False where the storage gives no parts of files."""
        left = file.size or 0
        with (
            open(part, "ab") as out,
            self._file_system.open(file.address, "rb", block_size=BLOCK, cache_type="none") as source,
        ):
            left -= out.tell()
            try:
                source.seek(out.tell())
                callback.relative_update(out.tell())
                while left > 0 and (data := source.read(min(BLOCK, left))):
                    out.write(data)
                    left -= len(data)
                    callback.relative_update(len(data))
            except ValueError:
                callback.restart()
                return False
        if version_of(self._file_system.info(file.address)) != file.version:
            part.unlink()
            raise NotWholeError("the file was changed meanwhile")
        return True

    def _move(self, part: Path, path: str) -> None:
        """Moves a file that is whole to its place."""
        target = self.files / path
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, target)
        except OSError as error:
            if error.errno in _NAME_ERRORS:  # such as a file and a folder of one name, which S3 can have
                raise UnavailableError(
                    f"{within(self.url, path)!r} cannot be stored under its name on this disk ({error.strerror})"
                ) from None
            raise disk_error(target, error) from error


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _protocols(file_system: Any) -> tuple[str, ...]:
    protocol = file_system.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


class _Count:
    """How much has arrived, of all threads together."""

    def __init__(self) -> None:
        self.files = self.bytes = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self.bytes += size

    @contextlib.contextmanager
    def attempt(self, threads: ReadingThreads, most: int, url: str) -> Any:
        """A callback of fsspec for one try at a file, whose bytes are taken back where it fails."""
        from fsspec.callbacks import Callback

        count = self

        class Counted(Callback):
            bytes = 0

            def relative_update(self, inc: int = 1) -> None:
                threads.check()
                self.bytes += inc
                count.add(inc)
                if self.bytes > most:
                    raise UnavailableError(f"{url!r} has more than {size_text(most)}, the limit of a file")

            def restart(self) -> None:
                self.finished(0)

            def finished(self, size: int) -> None:
                count.add(size - self.bytes)
                self.bytes = size

        callback = Counted()
        try:
            yield callback
        except BaseException:
            count.add(-callback.bytes)
            raise


def in_parallel(
    function: Callable[[Item, ReadingThreads], Result],
    items: Iterable[Item],
    arrived: Callable[[Item, Result | UnavailableError], None],
    tick: Callable[[], None],
) -> None:
    """Calls a function for each item in threads; results, and errors of single items, go to `arrived` in this one.

    Any other error, also one of `tick` (called several times a second) and an interrupt, ends all of it.
    """
    with ReadingThreads(THREADS) as threads:
        pending: dict[Future[Result], Item] = {}
        shown_at = [time.monotonic()]

        def collect(most: int) -> None:
            while len(pending) > most:
                done, _ = wait(pending, TICK_SECONDS, FIRST_COMPLETED)
                for future in done:
                    item = pending.pop(future)
                    try:
                        result: Result | UnavailableError = future.result()
                    except UnavailableError as error:
                        result = error
                    arrived(item, result)
                if (now := time.monotonic()) - shown_at[0] >= TICK_SECONDS / 2:
                    shown_at[0] = now
                    tick()

        for item in items:
            pending[threads.submit(function, item, threads)] = item
            collect(4 * THREADS)
        collect(0)


# What a storage tells of a content, the surest first: listings tell less than questions about one file.
_VERSIONS = (
    *("etag", "content-md5", "digest", "md5hash", "content_md5", "checksum", "blob_id", "generation"),
    *("last-modified", "lastmodified", "last_modified", "modified", "mtime", "updated", "created"),
)


def version_of(info: Mapping[str, Any]) -> str:
    """What differs between two contents of a file, as far as a storage tells; "" where it tells nothing."""
    facts = {name.lower(): value for name, value in info.items()}
    told = next((facts[name] for name in _VERSIONS if facts.get(name)), "")
    if isinstance(told, datetime):
        told = told.timestamp()
    return digest_of(str(told))[:16] if told else ""
