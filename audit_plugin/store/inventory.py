"""What lies in the cache folder, and its removal: files of our formats only, never through a link, never in use."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit_plugin.arrays import AuditError, count_text

from .features import ABOUT as ENCODER
from .features import FEATURES
from .files import LEFTOVER, Damaged, cache_root, read_json, remove_leftovers
from .runs import ABOUT, LOCK, RECORD, try_lock

IN_USE_SECONDS = 600.0  # features that were used so recently may belong to a run that goes on
# The files of each kind of folder; whatever else lies in it is not ours and stays.
FEATURE_FILES = re.compile(r"[0-9a-f]{32}(\.float16|\.float32|\.index\.npz|\.npy|\.keys\.npy)|encoder\.json")
RUN_FILES = re.compile(r"[\w-]+\.npz|run\.json|about\.json|explanations\.json|\.lock")
RUN_FOLDERS = re.compile(r"(extended|lacking)-[0-9a-f]{16}|train")
MEDIA = "media"  # folder of the cache with what programs held in memory (`inputs.stored_media`)
MEDIA_FILES = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{1,5}")
FETCHED = "remote"  # folder of the cache with copies of remote folders (`inputs.remote`)
FETCHED_FILES = "files"  # folder of a copy, with files of any name
COPY_FILES = re.compile(r"about\.json|fetched\.jsonl|\.lock")
VECTOR_FILES = re.compile(r"[0-9a-f]{32}\.npz")
REPORT = re.compile(r"[0-9a-f]{16}\.json")
PRECISION = "precision"  # folder of the cache with the precision chosen for each encoder (`encoders.precision`)
# Folder of the cache -> (names of what it holds, what that is, its files)
PLACES = (
    (FEATURES, re.compile(r"[0-9a-f]{24}"), "features", FEATURE_FILES),
    ("runs", re.compile(r"[0-9a-f]{16}"), "run", RUN_FILES),
    ("removal", re.compile(r"[0-9a-f]{16}"), "removal study", RUN_FILES),
    ("removal", re.compile(r"[0-9a-f]{24}"), "removal reports", REPORT),
    ("similarity", re.compile(r"[0-9a-f]{24}"), "similarity index", VECTOR_FILES),
    (MEDIA, re.compile(r"[0-9a-f]{24}"), "media", MEDIA_FILES),
    (FETCHED, re.compile(r"[0-9a-f]{24}"), "fetched files", COPY_FILES),
)
# Folder of the cache -> (names of files that are entries themselves, what each is, what its JSON is sealed for)
SINGLE_FILES = (
    ("removal", REPORT, "removal report", "removal"),
    (PRECISION, re.compile(r"[0-9a-f]{24}\.json"), "precision choice", PRECISION),
)

OF_DATASET = ("similarity index", "removal reports")  # in a folder called by the dataset's id


@dataclass(frozen=True)
class Stored:
    """A folder of the cache, or a file of `SINGLE_FILES`.

    Attributes:
        path: where it lies.
        kind: features, run, removal study, removal reports (of one dataset), removal report (of a former version),
            similarity index, media (of programs), fetched files, or precision choice (of an encoder on a chip).
        source: for people: the encoder of features and of precision choices; the address of fetched files; the
            manifest or dataset of the others; "" where it is not known.
        rows: of the run; None where they are not known.
        size: of its files, in bytes.
        used: when it was last used, in seconds since 1970.
    """

    path: Path
    kind: str
    source: str
    rows: int | None
    size: int
    used: float


def inventory(root: Path | None = None) -> list[Stored]:
    """What lies in the cache, what was used last first; links and what is not of our formats are left out."""
    root = root or cache_root()
    entries = []
    for place, names, kind, files in PLACES:
        for path in _children(root / place):
            if names.fullmatch(path.name) and stat.S_ISDIR(path.lstat().st_mode):
                entries.append(_folder(path, kind, files))
    for place, names, kind, sealed_for in SINGLE_FILES:
        for path in _children(root / place):
            status = path.lstat()
            if names.fullmatch(path.name) and stat.S_ISREG(status.st_mode):
                source = _source(path, sealed_for)
                entries.append(Stored(path, kind, source, None, status.st_size, status.st_mtime))
    return sorted(entries, key=lambda entry: (-entry.used, entry.path))


def _folder(path: Path, kind: str, files: re.Pattern[str]) -> Stored:
    own = [file.lstat() for file in _own_files(path, files)]
    used = max((status.st_mtime for status in own), default=path.lstat().st_mtime)
    source, rows = "", None
    with contextlib.suppress(OSError, Damaged, TypeError, ValueError):
        if kind == "features":
            source = "" if (path / ENCODER).exists() else "a former version, which is not read any more"
            source = str(read_json(path / ENCODER, ENCODER)[0]["encoder"])
        elif kind in OF_DATASET:
            source = f"dataset id {path.name}"
        elif kind == "media":
            source = f"{count_text(len(own), 'file')} of Python programs"
        elif kind == "fetched files":
            source = str(read_json(path / ABOUT, ABOUT)[0]["source"])
        else:
            about, _ = read_json(path / ABOUT, ABOUT)
            source, rows = str(about["source"]), int(about["rows"])
    return Stored(path, kind, source, rows, sum(status.st_size for status in own), used)


def _source(file: Path, sealed_for: str) -> str:
    with contextlib.suppress(OSError, Damaged, TypeError, KeyError):
        record = read_json(file, sealed_for)[0]
        return str(record["encoder"]) if sealed_for == PRECISION else f"dataset {record['dataset']}"
    return ""


def _children(folder: Path) -> list[Path]:
    """The entries of a folder, none where it is not there or is a link."""
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            return sorted(folder.iterdir())
    return []


def _own_files(folder: Path, files: re.Pattern[str]) -> Iterator[Path]:
    """The regular files of our formats in a folder, and in the folders of ours in it."""
    for path in _children(folder):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and (files.fullmatch(path.name) or LEFTOVER.fullmatch(path.name)):
            yield path
        elif stat.S_ISDIR(mode) and files is RUN_FILES and RUN_FOLDERS.fullmatch(path.name):
            yield from _own_files(path, files)
        elif stat.S_ISDIR(mode) and files is COPY_FILES and path.name in (FETCHED_FILES, "parts"):
            yield from _files_below(path)


def _files_below(folder: Path) -> Iterator[Path]:
    """All regular files below a folder, links not followed."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def chosen(
    entries: Sequence[Stored], older_than: float | None = None, max_size: int | None = None, gone: Sequence[Stored] = ()
) -> list[Stored]:
    """Those to delete: not used for `older_than` seconds, or gone, or the longest unused until `max_size` bytes remain.

    Indexes of similarity are chosen only where they are gone: a dataset's brain run cannot be made without them.
    """
    now = time.time()
    named = [e for e in entries if e in gone or (older_than is not None and now - e.used > older_than and _cached(e))]
    left = sum(entry.size for entry in entries if entry not in named)
    for entry in sorted(entries, key=lambda entry: entry.used):
        if max_size is not None and left > max_size and entry not in named and _cached(entry):
            named.append(entry)
            left -= entry.size
    return named


def gone(
    entries: Sequence[Stored], is_manifest_gone: Callable[[str], bool], datasets: Mapping[str, str] | None = None
) -> list[Stored]:
    """The entries whose manifest, or dataset, does not exist any more; features and precisions belong to neither.

    Args:
        entries: of the cache.
        is_manifest_gone: path or pattern of a manifest -> whether it was deleted.
        datasets: id -> name of all datasets; None: nothing is known of datasets.
    """

    def is_gone(entry: Stored) -> bool:
        owner, _, name = entry.source.partition(" ")
        if entry.kind in ("features", "precision choice"):
            return False
        if owner == "manifest":
            return is_manifest_gone(name)
        if datasets is None:
            return False
        if entry.kind in OF_DATASET:
            return entry.path.name not in datasets
        return owner == "dataset" and name not in datasets.values()

    return [entry for entry in entries if is_gone(entry)]


def _cached(entry: Stored) -> bool:
    return entry.kind != "similarity index"


def delete(entry: Stored) -> int:
    """Deletes the files of an entry; their size in bytes.

    Raises:
        AuditError: a run uses it, or it cannot be deleted.
    """
    with contextlib.ExitStack() as stack:
        if entry.kind in ("run", "removal study", "fetched files"):
            handle = try_lock(entry.path / LOCK)
            if handle is None:
                raise AuditError(f"{entry.path} is in use by a run; wait for it")
            stack.callback(os.close, handle)
        if entry.kind in ("features", "media", "fetched files") and time.time() - entry.used < IN_USE_SECONDS:
            raise AuditError(f"{entry.path} was used within the last 10 minutes, perhaps by a run that goes on; wait")
        try:
            return _delete(entry)
        except OSError as error:
            raise AuditError(f"{entry.path} cannot be deleted ({error.strerror or error})") from error


def _delete(entry: Stored) -> int:
    if any(entry.kind == kind for _, _, kind, _ in SINGLE_FILES):
        entry.path.unlink()
        return entry.size
    files = next(files for _, _, kind, files in PLACES if kind == entry.kind)
    # what says whose folder it is goes last, so that a second call finishes what was interrupted
    own = sorted(_own_files(entry.path, files), key=lambda path: path.name in (RECORD, ABOUT, ENCODER, LOCK))
    freed = 0
    for path in own:
        freed += path.lstat().st_size
        path.unlink()
    folders = {folder for path in own for folder in path.parents if folder.is_relative_to(entry.path)}
    if entry.kind == "fetched files":
        folders |= {entry.path / FETCHED_FILES, entry.path / "parts"}
    for folder in sorted(folders | {entry.path}, key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):  # holds something that is not ours
            folder.rmdir()
    return freed


def delete_leftovers(root: Path | None = None) -> int:
    """Deletes the temporary files of dead processes in the folders of the cache; their number."""
    places = [root or cache_root()]
    places += [path for place in places for path in _children(place) if path.is_dir() and not path.is_symlink()]
    places += [path for place in places[1:] for path in _children(place) if path.is_dir() and not path.is_symlink()]
    return sum(remove_leftovers(place) for place in places)
