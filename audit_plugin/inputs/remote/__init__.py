"""Sources on remote storage: what a user's address names is fetched into the cache, and read there like local files.

Only what the user names is fetched, and of the media only those that its rows name below its folder. What a summary
of an audit names is read from the cache, never from the network: `recorded_place`.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from audit_plugin.arrays import MODALITIES, AuditError, Samples
from audit_plugin.inputs.files import MAX_BYTES, file_of
from audit_plugin.inputs.patterns import MAX_FILES, expand_ranges
from audit_plugin.inputs.rows import MAX_ROWS, brief
from audit_plugin.store import size_text
from audit_plugin.store.inventory import FETCHED_FILES

from .addresses import WEB, Address, below, is_remote, name_of, parsed, shown, within
from .mirror import (
    Copy,
    Mirror,
    Progress,
    RemoteFile,
    copy_at,
    folder_of_copy,
    in_parallel,
    sources_of_copy,
    version_of,
)
from .network import UnavailableError, attempted, opened

__all__ = ["Copy", "Fetched", "below", "copied", "copy_at", "fetched", "is_remote", "name_of", "shown"]

MAX_FOLDERS, MAX_DEPTH = 10_000, 20  # of a web server, whose pages may link to each other without end
LISTED_AT_ONCE = 50  # files of one folder that are listed rather than asked for one by one


def silent(_stage: str, _done: int, _total: int) -> None:
    """Shows no progress."""


class Fetched:
    """A source that was fetched, while its copy belongs to this process.

    Attributes:
        url: its address without secrets.
        path: in the cache: a file, a folder, or a pattern.
    """

    def __init__(self, url: str, address: Address, mirror: Mirror, file_system: Any, root: str) -> None:
        self.url, self.path = shown(url), _path_of(mirror.files, address)
        self._mirror, self._file_system, self._root = mirror, file_system, root

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
        files, missing = _described(self._file_system, self._root, paths, self._mirror.url, self._mirror.progress)
        missing |= self._mirror.fetch(files, MAX_BYTES)
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
    if address.name and not address.is_pattern:
        info = _question(lambda: file_system.info(place), address.url)
        if info.get("type") == "directory":
            address = Address(address.protocol, address.url, "")
    root = file_system._strip_protocol(address.folder)  # as `url_to_fs` does
    with Mirror(address.folder, file_system, progress or silent) as mirror:
        files = _listed(file_system, root, address)
        if not files:
            raise AuditError(f"{brief(shown(url), 200)} names no file; check the address")
        for reason in mirror.fetch(files).values():
            raise AuditError(reason)  # a source of which a part is missing would be another one
        _check_copy(mirror, address, {file.path for file in files})
        mirror.finish(shown(url).rstrip("/"))
        yield Fetched(url, address, mirror, file_system, root)


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


def _question(call: Callable[[], Any], url: str) -> Any:
    """An answer that the source cannot be read without; raises `AuditError`."""
    try:
        return attempted(call, url)
    except UnavailableError as error:
        raise AuditError(f"{error}") from None


# --- what is there ---------------------------------------------------------------------------------------------------


def _listed(file_system: Any, root: str, address: Address) -> list[RemoteFile]:
    """The files of a source, in the order of their paths."""
    if address.is_pattern:
        found: dict[str, Mapping[str, Any]] = {}
        for pattern in expand_ranges(address.name):
            place = f"{root.rstrip('/')}/{pattern}"
            found |= _question(partial(file_system.glob, place, detail=True), address.folder)
    elif address.name:
        place = f"{root.rstrip('/')}/{address.name}{address.query}"
        info = _question(lambda: file_system.info(place), address.url)
        return [RemoteFile(below(root, place.removesuffix(address.query)), place, info.get("size"), version_of(info))]
    elif address.protocol in WEB:
        found = _links(file_system, root, address.folder)
    else:
        found = _question(lambda: file_system.find(root, detail=True), address.folder)
    files = []
    for place, info in found.items():
        path = below(root, place)
        is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))
        if path and info.get("type") != "directory" and not is_hidden:
            files.append(RemoteFile(path, place, info.get("size"), version_of(info)))
    if len(files) > (MAX_FILES if address.is_pattern else MAX_ROWS):
        raise AuditError(f"{shown(address.url)} names {len(files):,} files, more than can be read; name parts of it")
    return sorted(_asked(file_system, files, address), key=lambda file: file.path)


def _asked(file_system: Any, files: Sequence[RemoteFile], address: Address) -> list[RemoteFile]:
    """The files, with what listings of web servers do not tell."""
    if address.protocol not in WEB:
        return list(files)
    answers: list[RemoteFile] = []

    def ask(file: RemoteFile, _threads: Any) -> RemoteFile:
        info = attempted(lambda: file_system.info(file.address), within(address.folder, file.path))
        return replace(file, size=info.get("size"), version=version_of(info))

    def arrived(_file: RemoteFile, answer: RemoteFile | UnavailableError) -> None:
        if isinstance(answer, UnavailableError):
            raise AuditError(str(answer))
        answers.append(answer)

    in_parallel(ask, files, arrived, lambda: None)
    return answers


def _links(file_system: Any, root: str, url: str) -> dict[str, Mapping[str, Any]]:
    """The files that the pages of a web server list below a folder."""
    files: dict[str, Mapping[str, Any]] = {}
    folders, seen = [root.rstrip("/") + "/"], set()
    while folders:
        folder = folders.pop()
        seen.add(folder)
        for info in _question(partial(file_system.ls, folder, detail=True), url):
            place = str(info["name"])
            path = below(root, place.removesuffix("/"))
            if not path or path.count("/") > MAX_DEPTH:
                continue
            if not place.endswith("/"):
                files[place] = info
            elif place not in seen:
                folders.append(place)
        if len(seen) + len(folders) > MAX_FOLDERS or len(files) > MAX_ROWS:
            raise AuditError(f"{shown(url)} lists more folders or files than can be read; name a folder in it")
    return files


def _described(
    file_system: Any, root: str, paths: Sequence[str], url: str, progress: Progress
) -> tuple[list[RemoteFile], dict[str, str]]:
    """(the files that the storage has, path -> why one cannot be had) of relative paths."""
    files: list[RemoteFile] = []
    problems: dict[str, str] = {}
    single: list[str] = []
    for folder, names in _by_folder(paths).items():
        infos = _infos_of_folder(file_system, root, folder, url) if len(names) >= LISTED_AT_ONCE else None
        if infos is None:
            single += names
            continue
        for path in names:
            info = infos.get(within(root, path))
            if info is None:
                problems[path] = f"{within(url, path)!r} does not exist"
            else:
                files.append(RemoteFile(path, within(root, path), info.get("size"), version_of(info)))
    stage = f"look up {len(single):,} files of {url}"

    def ask(path: str, _threads: Any) -> RemoteFile:
        place = within(root, path)
        info = attempted(lambda: file_system.info(place), within(url, path))
        if info.get("type") == "directory":
            raise UnavailableError(f"{within(url, path)!r} is a folder, not a file")
        return RemoteFile(path, place, info.get("size"), version_of(info))

    def arrived(path: str, answer: RemoteFile | UnavailableError) -> None:
        if isinstance(answer, UnavailableError):
            problems[path] = str(answer)
        else:
            files.append(answer)

    in_parallel(ask, single, arrived, lambda: progress(stage, len(files) + len(problems), len(paths)))
    return files, problems


def _by_folder(paths: Sequence[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for path in paths:
        folders.setdefault(path.rpartition("/")[0], []).append(path)
    return folders


def _infos_of_folder(file_system: Any, root: str, folder: str, url: str) -> dict[str, Mapping[str, Any]] | None:
    """Address -> what a listing tells, of the files in a folder; None where they are to be asked for one by one."""
    if root.partition("://")[0] in WEB:
        return None
    try:
        place = within(root, folder) if folder else root
        infos = attempted(lambda: file_system.ls(place, detail=True), within(url, folder))
    except UnavailableError:  # one may read files of many a public bucket, and not list them
        return None
    return {str(info["name"]): info for info in infos if info.get("type") != "directory"}
