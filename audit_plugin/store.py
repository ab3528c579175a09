"""What is on disk: the run folder and the feature cache. Atomic, resumable, digest-guarded, locked, private.

A file is written under a temporary name and renamed, so it is whole or absent: a killed run finds what was finished.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from .arrays import AuditError, Bools, Floats, Ints
from .config import digest_of

MOST_LINKS = 40  # that are followed from one path, as the kernel does


def cache_root() -> Path:
    """Where features and default run folders live: `$AUDIT_PLUGIN_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("AUDIT_PLUGIN_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen).expanduser() if chosen else Path(base).expanduser() / "audit-plugin"


def private_folder(path: Path) -> Path:
    """The folder, made for this user only if it did not exist."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(path, error) from error
    return path


def disk_error(path: Path, error: OSError) -> AuditError:
    """One sentence for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AuditError(
            f"no space left on the disk while writing {path}; free some space and run the same "
            "command again: finished parts are kept"
        )
    return AuditError(f"{path} cannot be written ({error.strerror or error}); choose another folder")


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Calls `write(file)` on a temporary file, flushes it to the disk and renames it to `path`.

    A file that is replaced passes its permissions on; a link of the user's own is followed to the file it names.

    Raises:
        AuditError: the disk is full, or the place cannot be written or holds something other than a file.
    """
    path, mode = writable_file(path)
    part = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}.part")
    try:
        with open(part, "wb") as file:
            if mode is not None:
                os.chmod(part, mode)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def writable_file(path: Path) -> tuple[Path, int | None]:
    """(the file that `path` names, its permissions or None where it does not exist); links are followed.

    Raises:
        AuditError: a folder, device, pipe or socket; a write-protected file; a link to itself, or one that another
            user made, who could have it name any file of this user.
    """
    try:
        for _ in range(MOST_LINKS):
            status = path.lstat()
            if not stat.S_ISLNK(status.st_mode):
                break
            if hasattr(os, "getuid") and status.st_uid not in (0, os.getuid()):
                raise AuditError(f"{path} is a link that another user made; name the file itself")
            path = path.parent / os.readlink(path)
        else:
            raise AuditError(f"{path} is a link that leads to itself; name another file")
    except FileNotFoundError:
        return path, None
    except (OSError, ValueError) as error:
        raise AuditError(f"{str(path)!r} cannot be written ({error}); name another file") from error
    if not stat.S_ISREG(status.st_mode):
        raise AuditError(f"{path} is {kind_of_file(status.st_mode)}, not a file; name another")
    if not os.access(path, os.W_OK):
        raise AuditError(f"{path} is write-protected; change its permissions, or name another file")
    return path, stat.S_IMODE(status.st_mode) & 0o777


def open_regular(path: str | Path) -> io.BufferedReader:
    """Opens a regular file, links followed, for reading bytes; never waits for a pipe and touches no device.

    Raises:
        OSError: there is no such file, or it is something else.
        ValueError: the path holds a null character.
    """
    for_reading = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    mode = os.stat(path).st_mode  # before opening it, since that alone makes some devices act
    if stat.S_ISREG(mode):
        file = open(os.open(path, for_reading), "rb")  # noqa: SIM115
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return file
        file.close()
    raise OSError(errno.EINVAL, f"it is {kind_of_file(mode)}, not a file", str(path))


def kind_of_file(mode: int) -> str:
    """What a path names that is not a regular file, in words."""
    names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


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
        if identity is None and not (Path(path) / "run.json").is_file():
            raise AuditError(f"{path} is not the folder of a run; the summary of an audit names its own (run_dir)")
        self.path = private_folder(Path(path))
        self._lock = _lock(self.path)
        try:
            if identity is not None:
                self._claim(identity)
        except BaseException:
            self.close()
            raise

    def _claim(self, identity: dict[str, Any]) -> None:
        record = self.path / "run.json"
        if not record.exists():
            if any(p.name != ".lock" for p in self.path.iterdir()):
                raise AuditError(f"run folder {self.path} holds other files; choose an empty or new folder")
            text = json.dumps(identity, indent=1, sort_keys=True).encode()
            write_atomically(record, lambda file: file.write(text))
            return
        try:
            stored = dict(json.loads(record.read_text()))
        except (ValueError, TypeError) as error:
            raise AuditError(f"{record} is damaged; delete {self.path} and run again") from error
        was, now = _flat(stored), _flat(identity)
        for key in sorted(set(was) | set(now)):
            if was.get(key) != now.get(key):
                raise AuditError(
                    f"run folder {self.path} belongs to another run ({key} was {was.get(key)!r}, "
                    f"now {now.get(key)!r}); choose another --run-dir, or delete it"
                )

    def close(self) -> None:
        """Lets other processes use the folder."""
        os.close(self._lock)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, name: str, **arrays: np.ndarray) -> None:
        """Writes one finished part."""
        write_atomically(self.path / f"{name}.npz", lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """A finished part, or None where there is none (or a damaged one, which is then made again)."""
        path = self.path / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except FileNotFoundError:
            return None
        except Exception:
            path.unlink(missing_ok=True)
            return None

    def once(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The part `name`: loaded if finished, else made and saved."""
        arrays = self.load(name)
        if arrays is None:
            arrays = make()
            self.save(name, **arrays)
        return arrays


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """One level: a setting that differs is to be named itself, not the whole record around it."""
    out: dict[str, Any] = {}
    for key, value in identity.items():
        out |= value if isinstance(value, dict) else {key: value}
    return out


def _lock(folder: Path) -> int:
    try:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise disk_error(folder / ".lock", error) from error
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass  # no file locks on this system
    except OSError as error:
        os.close(handle)
        raise AuditError(
            f"run folder {folder} is in use by another audit; wait for it, or choose another --run-dir"
        ) from error
    return handle


class FeatureCache:
    """Features by content digest, one folder per encoder: append-only shards, memory-mapped when read.

    A shard is `X.npy` (float16 `[s, d]`) and `X.keys.npy` (digests); the keys are written last and make it valid.
    What is stored is rounded to float16, and features are taken from here alone, fresh ones too: a run's numbers do
    not depend on what was known before it.
    """

    def __init__(self, encoder_key: str, root: Path | None = None) -> None:
        # the format is part of the name: older caches held float32
        self.path = private_folder((root or cache_root() / "features") / digest_of(encoder_key, "float16")[:24])

    def _shards(self) -> Iterator[tuple[np.ndarray, Path]]:
        """(digests, file of features) of the shards that are whole: a damaged one is a miss, not an error."""
        for name in sorted(self.path.glob("*.keys.npy")):
            with contextlib.suppress(OSError, ValueError, EOFError):
                keys, path = np.load(name, allow_pickle=False), name.with_name(name.name.replace(".keys", ""))
                values = np.load(path, mmap_mode="r", allow_pickle=False)
                if values.dtype == np.float16 and values.shape[:-1] == keys.shape:
                    yield keys, path

    def known(self) -> set[str]:
        """All digests with a stored feature."""
        return {key.decode() for keys, _ in self._shards() for key in keys.tolist()}

    def has(self, wanted: Sequence[str]) -> Bools:
        """Which of `wanted` are stored, bool `[n]`."""
        return self._find(wanted)[1] >= 0

    def missing(self, wanted: Sequence[str]) -> list[str]:
        """Those of `wanted` that are not stored."""
        return [digest for digest, is_stored in zip(wanted, self.has(wanted), strict=True) if not is_stored]

    def load(self, wanted: Sequence[str]) -> tuple[Floats, Bools]:
        """The features of `wanted`, which may repeat, as float32 `[n, d]`, and which of them are stored `[n]`.

        The others are rows of zeros; d is 1 where nothing is stored. Needs little memory besides the result.
        """
        paths, shard, row = self._find(wanted)
        out = np.zeros((len(wanted), 1), dtype=np.float32)
        by_shard = shard.argsort(kind="stable")
        cuts = np.searchsorted(shard[by_shard], np.arange(len(paths)))
        for path, rows in zip(paths, np.split(by_shard, cuts)[1:], strict=True):
            if len(rows):
                values = np.load(path, mmap_mode="r", allow_pickle=False)
                if out.shape[1] != values.shape[1]:
                    out = np.zeros((len(wanted), values.shape[1]), dtype=np.float32)
                out[rows] = values[row[rows]]
        return out, shard >= 0

    def _find(self, wanted: Sequence[str]) -> tuple[list[Path], Ints, Ints]:
        """(the shards, number of each digest's shard `[n]` or -1, its row there `[n]`)."""
        names, place = np.unique(np.array(wanted, dtype="S64"), return_inverse=True)
        shard, row = np.full(len(names), -1), np.zeros(len(names), dtype=np.int64)
        paths: list[Path] = []
        for keys, path in self._shards() if len(names) else ():
            at = np.minimum(np.searchsorted(names, keys), len(names) - 1)
            hit = (names[at] == keys) & (shard[at] < 0)  # two runs at once may both have stored it
            shard[at[hit]], row[at[hit]] = len(paths), np.flatnonzero(hit)
            paths.append(path)
        return paths, shard[place], row[place]

    def append(self, features: Mapping[str, Floats]) -> None:
        """Stores one shard, rounded to float16."""
        if not features:
            return
        stem = uuid.uuid4().hex
        values = np.stack([np.asarray(feature, dtype=np.float16) for feature in features.values()])
        keys = np.array(list(features), dtype="S64")
        write_atomically(self.path / f"{stem}.npy", lambda file: np.save(file, values))
        write_atomically(self.path / f"{stem}.keys.npy", lambda file: np.save(file, keys))
