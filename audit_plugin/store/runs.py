"""The folder of one run: finished parts, each sealed for its name and this run, so that a run resumes."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError

from .files import (
    Damaged,
    digest_of,
    is_sealed,
    lock_if_free,
    private_folder,
    read_json,
    read_regular,
    read_sealed,
    remove_leftovers,
    sealed_json,
    write_bytes,
    write_sealed,
)
from .shortages import disk_error

RECORD, LOCK, ABOUT = "run.json", ".lock", "about.json"


class RunFolder:
    """The folder of one run: `run.json` says whose it is, `NAME.npz` hold finished parts.

    Args:
        path: created if missing.
        identity: settings and data digest; a folder that holds another identity is refused. None opens a run that
            is there, whoever made it.

    Raises:
        AuditError: the folder is of another run, in use by another process, or not writable; or there is no run.
    """

    def __init__(self, path: Path, identity: dict[str, Any] | None) -> None:
        if identity is None and not (Path(path) / RECORD).is_file():
            raise AuditError(f"{path} is not the folder of a run; the summary of an audit names its own (run_dir)")
        self.path = private_folder(Path(path))
        self._damaged: list[str] = []
        self._lock = _lock(self.path)
        try:
            if identity is None:
                identity = stored_identity(self.path)
            else:
                self._claim(identity)
            self.owner = digest_of(identity)
        except BaseException:
            self.close()
            raise

    def _claim(self, identity: dict[str, Any]) -> None:
        """Makes the folder that of this run, or raises AuditError. What a killed run of it left is no obstacle."""
        remove_leftovers(self.path)
        record, text, owner = self.path / RECORD, sealed_json(identity, RECORD), digest_of(identity)
        try:
            stored, is_whole = read_json(record, RECORD)
        except FileNotFoundError:
            if self._is_empty() or self._is_of(owner):
                write_bytes(record, text)
                return
            raise AuditError(f"run folder {self.path} holds other files; choose an empty or new folder") from None
        except Damaged as error:
            if not self._is_of(owner) and not (self._is_empty() and _is_beginning(record, text)):
                raise AuditError(
                    f"{record} is damaged, and nothing in the folder shows whose run it is; move {self.path} away, or "
                    "choose another --run-dir, and run again"
                ) from error
            self._clear(record)
            write_bytes(record, text)
            self._damaged.append(RECORD)
            return
        if digest_of(stored) != owner and self.path.name != owner[:16]:
            raise _other_run(self.path, stored, identity)
        if not is_whole or digest_of(stored) != owner:  # of a former version, or exchanged in a folder of ours
            write_bytes(record, text)

    def _is_empty(self) -> bool:
        return all(path.name in (LOCK, RECORD, ABOUT) for path in self.path.iterdir())

    def _is_of(self, owner: str) -> bool:
        """Whether the folder shows that it is this run's: by its name, which we choose, or by a part."""
        if self.path.name == owner[:16]:
            return True
        for path in sorted(self.path.glob("*.npz")):
            with contextlib.suppress(OSError, Damaged), read_regular(path) as file:
                if is_sealed(file, _place(owner, path.name)):
                    return True
        return False

    def _clear(self, path: Path) -> None:
        """Removes a link, pipe or socket that stands where a file of the run belongs: it holds nothing by itself."""
        with contextlib.suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                raise AuditError(f"{path} is a folder where a file of the run belongs; move it away and run again")
            if not stat.S_ISREG(mode):
                path.unlink()

    def close(self) -> None:
        """Lets other processes use the folder."""
        os.close(self._lock)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def describe(self, **facts: Any) -> None:
        """Stores facts for people who list or delete run folders: what the run read, how many rows."""
        path = self.path / ABOUT
        with contextlib.suppress(FileNotFoundError, Damaged):
            if read_json(path, ABOUT) == (facts, True):
                return
        self._clear(path)
        write_bytes(path, sealed_json(facts, ABOUT))

    def save(self, name: str, **arrays: np.ndarray) -> None:
        """Writes one finished part."""
        path = self.path / f"{name}.npz"
        self._clear(path)
        write_sealed(path, _place(self.owner, path.name), arrays)

    @property
    def notes(self) -> list[str]:
        """For people: what was damaged and made again, in one sentence."""
        names = list(dict.fromkeys(self._damaged))
        if not names:
            return []
        what = "1 stored part of the run was" if len(names) == 1 else f"{len(names)} stored parts of the run were"
        return [f"{what} damaged and made again ({', '.join(names)})"]

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """A finished part, or None where there is none, or one that is damaged or not of this run: to be made again."""
        path = self.path / f"{name}.npz"
        try:
            return read_sealed(path, _place(self.owner, path.name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Damaged:
            self._damaged.append(name)
            return None

    def once(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The part `name`: loaded if finished, else made and saved."""
        arrays = self.load(name)
        if arrays is None:
            arrays = make()
            self.save(name, **arrays)
        return arrays

    def save_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes one finished part that is not arrays, as `NAME.json`; `load_json` reads it."""
        path = self.path / f"{name}.json"
        self._clear(path)
        write_bytes(path, sealed_json(content, _place(self.owner, path.name), indent=None))


def load_json(run_dir: Path, name: str) -> dict[str, Any]:
    """What `save_json` wrote into a run's folder, which need not be locked for it.

    Raises:
        FileNotFoundError: nothing is there.
        Damaged: the part is not as it was written, or is that of another run.
    """
    path = run_dir / f"{name}.json"
    owner = digest_of(stored_identity(run_dir)) if (run_dir / RECORD).exists() else ""
    content, _ = read_json(path, _place(owner, path.name))
    return content


def stored_identity(run_dir: Path) -> dict[str, Any]:
    """Settings and data digest of the run in a folder.

    Raises:
        AuditError: the folder has none, or a damaged one.
    """
    record = run_dir / RECORD
    try:
        return read_json(record, RECORD)[0]
    except FileNotFoundError as error:
        raise AuditError(f"{run_dir} is not the folder of a run; the summary of an audit names its own") from error
    except Damaged as error:
        raise AuditError(
            f"{record} is damaged; run the command that made {run_dir} again: it restores this file and trains nothing"
        ) from error


def _place(owner: str, file_name: str) -> str:
    return f"{owner}/{file_name}"


def _is_beginning(record: Path, text: bytes) -> bool:
    """Whether a record is what a lost power leaves of `text`: its beginning, or zeros."""
    with contextlib.suppress(OSError, Damaged), read_regular(record) as file:
        data = file.read(len(text) + 1)
        return text.startswith(data) or not data.strip(b"\0")
    return False


def _other_run(path: Path, stored: dict[str, Any], identity: dict[str, Any]) -> AuditError:
    was, now = _flat(stored), _flat(identity)
    key = min((key for key in {*was, *now} if was.get(key) != now.get(key)), default="identity")
    return AuditError(
        f"run folder {path} belongs to another run ({key} was {was.get(key)!r}, now {now.get(key)!r}); choose another "
        "--run-dir, or delete it"
    )


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """One level: a setting that differs is to be named itself, not the whole record around it."""
    out: dict[str, Any] = {}
    for key, value in identity.items():
        out |= value if isinstance(value, dict) else {key: value}
    return out


def _lock(folder: Path) -> int:
    handle = try_lock(folder / LOCK)
    if handle is None:
        raise AuditError(f"run folder {folder} is in use by another audit; wait for it, or choose another --run-dir")
    os.utime(handle)  # the folder's last use
    return handle


def try_lock(path: Path) -> int | None:
    """The open lock file, which unlocks when it is closed; None where another process has the lock."""
    try:
        # a link there is not followed, a pipe not waited for
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        raise disk_error(path, error) from error
    if not lock_if_free(handle):
        os.close(handle)
        return None
    return handle
