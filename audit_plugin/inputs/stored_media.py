"""Media that a program held in memory, as files of the cache: other processes and later commands read them there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from audit_plugin.store import cache_root, disk_error, private_folder
from audit_plugin.store.inventory import MEDIA

from .formats.values import suffix_of


@dataclass(frozen=True)
class InStore:
    """A file of the store, whose folder is known once all files are."""

    name: str

    def path_in(self, folder: Path | None) -> str:
        return str((folder or Path()) / self.name)


class StoredMedia:
    """A folder for the media of one set: each content is written once, and equal sets are stored once.

    As a context manager it removes what was written unless `keep` was called.
    """

    def __init__(self) -> None:
        self._part: Path | None = None
        self._files: dict[str, None] = {}  # names, in the order in which they came

    def __enter__(self) -> StoredMedia:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._part is not None:
            shutil.rmtree(self._part, ignore_errors=True)

    def add(self, data: bytes, modality: str) -> InStore:
        """Stores a medium.

        Raises:
            ValueError: there are no bytes.
            AuditError: the disk is full, or the cache cannot be written.
        """
        if not data:
            raise ValueError("empty (0 bytes)")
        name = f"{hashlib.sha256(data).hexdigest()[:32]}.{suffix_of(data, modality)}"
        if name in self._files:
            return InStore(name)
        if self._part is None:
            self._part = private_folder(cache_root() / MEDIA / uuid.uuid4().hex[:24])
        try:
            (self._part / name).write_bytes(data)
        except OSError as error:
            raise disk_error(self._part / name, error, len(data)) from error
        self._files[name] = None
        return InStore(name)

    def keep(self) -> Path | None:
        """Moves the files to their place, named by all contents; the folder, None where nothing was stored.

        Files that are there already are replaced: they may be damaged, and are not new to `cache prune` any more.
        """
        if self._part is None:
            return None
        digest = hashlib.sha256("\n".join(sorted(self._files)).encode()).hexdigest()[:24]
        folder = private_folder(cache_root() / MEDIA / digest)
        try:
            for name in self._files:
                os.replace(self._part / name, folder / name)
        except OSError as error:
            raise disk_error(folder, error) from error
        with contextlib.suppress(OSError):
            self._part.rmdir()
        self._part = None
        return folder
