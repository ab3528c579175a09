"""Sources on remote storage: what a user's address names is fetched into the cache, and read there like local files.

Only what the user names is fetched, and of the media only those that its rows name below its folder. What a summary
of an audit names is read from the cache, never from the network: `recorded_place`.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from audit_plugin.arrays import MODALITIES, AuditError, Samples
from audit_plugin.inputs.files import MAX_BYTES, file_of
from audit_plugin.inputs.patterns import expand_ranges
from audit_plugin.inputs.rows import brief
from audit_plugin.store import size_text
from audit_plugin.store.inventory import FETCHED_FILES

from .addresses import Address, below, is_remote, name_of, parsed, shown
from .listing import Storage, described, listed
from .mirror import Copy, Mirror, Progress, copy_at, folder_of_copy, sources_of_copy
from .network import UnavailableError, attempted, opened

__all__ = ["Copy", "Fetched", "below", "copied", "copy_at", "fetched", "is_remote", "name_of", "shown"]


def silent(_stage: str, _done: int, _total: int) -> None:
    """Shows no progress."""


class Fetched:
    """A source that was fetched, while its copy belongs to this process.

    Attributes:
        url: its address without secrets.
        path: in the cache: a file, a folder, or a pattern.
    """

    def __init__(self, url: str, address: Address, mirror: Mirror, storage: Storage) -> None:
        self.url, self.path = shown(url), _path_of(mirror.files, address)
        self._mirror, self._storage = mirror, storage

    def with_media(self, samples: Samples) -> Samples:
        """The samples, with the media that their rows name below the folder of the source fetched.

        Rows whose media cannot be had have that as their problem. Media of which embeddings are given are not fetched.
        """
        copied = os.path.join(str(self._mirror.files), "")
        rows: dict[str, list[int]] = {}  # path from the folder -> rows
        for modality, values in samples.media.items():
            if MODALITIES[modality].is_text or modality in samples.vectors:
                continue
            for row, value in enumerate(values):
                file = file_of((value or "").partition("\0")[0])  # a box may follow the path
                if file.startswith(copied):
                    rows.setdefault(file[len(copied) :], []).append(row)
        paths = [path for path in rows if path not in self._mirror.current]
        files, unavailable = described(self._storage, paths, self._mirror.progress)
        missing = {path: str(error) for path, error in unavailable.items()} | self._mirror.fetch(files, MAX_BYTES)
        self._mirror.remove(missing)  # what the storage has no more is none here
        problems = dict(samples.problems)
        for path, reason in missing.items():
            problems |= {row: reason for row in rows[path] if row not in problems}
        media = {
            name: tuple(None if row in problems else value for row, value in enumerate(values))
            for name, values in samples.media.items()
        }
        source = self.named(samples.source)
        return replace(samples, media=media, problems=problems, source=source, notes=(*samples.notes, self._note()))

    def named(self, text: str) -> str:
        """A text with addresses in place of paths in the cache."""
        return text.replace(str(self.path), self.url).replace(str(self._mirror.files), self._mirror.url)

    def _note(self) -> str:
        mirror = self._mirror
        return (
            f"{mirror.fetched_files:,} files ({size_text(mirror.fetched_bytes)}) were fetched from {mirror.url}, "
            f"{mirror.known_files:,} were in the cache"
        )


@contextmanager
def fetched(url: str, progress: Progress | None = None) -> Iterator[Fetched]:
    """Fetches what an address names: a file, a folder with all below it, or the files of a pattern.

    Files of which the storage tells the same size and version as before are not fetched again.

    Raises:
        AuditError: there is nothing, it cannot be reached or read, there is too much of it, its package is missing, or
            another process fetches from the same folder.
    """
    address = parsed(url)
    file_system, place = opened(address.protocol, address.url)
    try:
        if address.name and not address.is_pattern:
            info = attempted(lambda: file_system.info(place), address.url)
            if info.get("type") == "directory":
                address = Address(address.protocol, address.url, "")
        root = file_system._strip_protocol(address.folder)  # as `url_to_fs` does
        storage = Storage(file_system, root, shown(address.folder))
        with Mirror(address.folder, file_system, progress or silent) as mirror:
            files = listed(storage, address, mirror.progress)
            for reason in mirror.fetch(files).values():
                raise AuditError(reason)  # a source of which a part is missing would be another one
            _check_copy(mirror, address, {file.path for file in files})
            mirror.finish(shown(url).rstrip("/"))
            yield Fetched(url, address, mirror, storage)
    except UnavailableError as error:  # of the source itself
        raise AuditError(str(error)) from None


def _check_copy(mirror: Mirror, address: Address, paths: set[str]) -> None:
    """Removes what the storage has no more, so that the copy of a folder or pattern is read as what was fetched."""
    if not address.name:
        mirror.remove(set(mirror.known_paths()) - paths)
    elif address.is_pattern:
        patterns = expand_ranges(str(_path_of(mirror.files, address)))
        read = {os.path.relpath(path, mirror.files) for pattern in patterns for path in glob.glob(pattern)}
        mirror.remove(read - paths)
        if not paths <= read:
            raise AuditError(
                f"{brief(shown(address.url), 200)} is a pattern that means something else on a disk; use * ? [a-z] "
                "{0..9} only, or name a folder"
            )


def copied(url: str) -> tuple[Path, Path]:
    """(file, folder or pattern, the folder of all its files) of a source that was fetched; nothing is fetched.

    Args:
        url: its address, without secrets.

    Raises:
        AuditError: it is not in the cache.
    """
    address = parsed(url)
    for each in (Address(address.protocol, address.url, ""), address):
        folder = folder_of_copy(each.folder)
        if shown(url).rstrip("/") in sources_of_copy(folder):
            files = folder / FETCHED_FILES
            return _path_of(files, each), files
    raise AuditError(
        f"{brief(shown(url), 200)} is not in the cache any more, and what a summary names is not fetched unasked; name "
        "it: --manifest"
    )


def _path_of(files: Path, address: Address) -> Path:
    """The path of a file, folder or pattern in the folder of a copy, whose own name holds no pattern."""
    if not address.name:
        return files
    return (Path(glob.escape(str(files))) if address.is_pattern else files) / address.local_name
