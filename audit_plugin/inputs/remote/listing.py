"""What is on remote storage: the files of a folder, a pattern or an address, with what the storage tells of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.patterns import MAX_FILES, expand_ranges
from audit_plugin.inputs.rows import MAX_ROWS, brief

from .addresses import WEB, Address, below, shown, within
from .mirror import Progress, RemoteFile, in_parallel, version_of
from .network import MissingError, UnavailableError, attempted

MAX_FOLDERS, MAX_DEPTH = 10_000, 20  # of a web server, whose pages may link to each other without end
LISTED_AT_ONCE = 50  # files of one folder that are listed rather than asked for one by one


@dataclass(frozen=True)
class Storage:
    """A folder of a storage.

    Attributes:
        file_system: of fsspec.
        root: the folder, as the file system names it.
        url: its address without secrets.
    """

    file_system: Any
    root: str
    url: str

    def file(self, path: str, info: Mapping[str, Any]) -> RemoteFile:
        """A file in the folder, with what the storage tells of it."""
        return RemoteFile(path, within(self.root, path), info.get("size"), version_of(info))


def listed(storage: Storage, address: Address, progress: Progress) -> list[RemoteFile]:
    """The files of a source, in the order of their paths; hidden ones, and names that lead elsewhere, are left out.

    Raises:
        AuditError: there are none, or too many.
        UnavailableError: the storage does not let them be read.
    """
    if address.name and not address.is_pattern:
        place = f"{storage.root.rstrip('/')}/{address.name}{address.query}"
        info = attempted(lambda: storage.file_system.info(place), address.url)
        return [RemoteFile(address.local_name, place, info.get("size"), version_of(info))]
    if address.is_pattern:
        files = _of_pattern(storage, address, progress)
    elif address.protocol in WEB:
        files = _asked(storage, _links(storage), progress)
    else:
        found = attempted(lambda: storage.file_system.find(storage.root, detail=True), storage.url)
        files = [storage.file(path, info) for path, info in _usable(storage, found.values())]
    if not files:
        raise AuditError(f"{brief(shown(address.url), 200)} names no file; check the address")
    if len(files) > (MAX_FILES if address.is_pattern else MAX_ROWS):
        raise AuditError(f"{shown(address.url)} names {len(files):,} files, more than can be read; name parts of it")
    return sorted(files, key=lambda file: file.path)


def _of_pattern(storage: Storage, address: Address, progress: Progress) -> list[RemoteFile]:
    """The files of a pattern; of a range of numbers those that are there."""
    patterns = list(expand_ranges(address.local_name))
    with_signs = [pattern for pattern in patterns if re.search(r"[*?\[]", pattern)]
    names = list(dict.fromkeys(pattern for pattern in patterns if not re.search(r"[*?\[]", pattern)))
    files, problems = described(storage, names, progress)
    for error in problems.values():
        if not isinstance(error, MissingError):
            raise error
    for pattern in with_signs:
        place = f"{storage.root.rstrip('/')}/{pattern}"
        found = attempted(partial(storage.file_system.glob, place, detail=True), storage.url)
        usable = dict(_usable(storage, found.values()))
        if address.protocol in WEB:
            files += _asked(storage, list(usable), progress)
        else:
            files += [storage.file(path, info) for path, info in usable.items()]
    return list({file.path: file for file in files}.values())


def _usable(storage: Storage, infos: Iterable[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """(path from the folder, what is told) of the files of a listing that are fetched."""
    pairs = ((below(storage.root, str(info["name"])), info) for info in infos if info.get("type") != "directory")
    return [(path, info) for path, info in pairs if path and not _is_hidden(path)]


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _links(storage: Storage) -> list[str]:
    """The paths of the files that the pages of a web server list below a folder."""
    paths: dict[str, None] = {}
    folders, seen = [storage.root.rstrip("/") + "/"], set()
    while folders:
        folder = folders.pop()
        seen.add(folder)
        for info in attempted(partial(storage.file_system.ls, folder, detail=True), storage.url):
            place = str(info["name"])
            path = below(storage.root, place.removesuffix("/"))
            if not path or _is_hidden(path) or path.count("/") > MAX_DEPTH:
                continue
            if not place.endswith("/"):
                paths[path] = None
            elif place not in seen:
                folders.append(place)
        if len(seen) + len(folders) > MAX_FOLDERS or len(paths) > MAX_ROWS:
            raise AuditError(f"{storage.url} lists more folders or files than can be read; name a folder in it")
    return list(paths)


def _asked(storage: Storage, paths: Sequence[str], progress: Progress) -> list[RemoteFile]:
    """The files that a web server lists, with what its pages do not tell."""
    files, problems = described(storage, paths, progress)
    for error in problems.values():
        raise error
    return files


def described(
    storage: Storage, paths: Sequence[str], progress: Progress
) -> tuple[list[RemoteFile], dict[str, UnavailableError]]:
    """(the files that the storage has, path -> why one cannot be had) of relative paths."""
    files: list[RemoteFile] = []
    problems: dict[str, UnavailableError] = {}
    single: list[str] = []
    for folder, names in _by_folder(paths).items():
        infos = _infos_of_folder(storage, folder) if len(names) >= LISTED_AT_ONCE else None
        if infos is None:
            single += names
            continue
        for path in names:
            if info := infos.get(within(storage.root, path)):
                files.append(storage.file(path, info))
            else:
                problems[path] = MissingError(f"{within(storage.url, path)!r} does not exist")
    stage = f"look up {len(single):,} files of {storage.url}"

    def ask(path: str, _threads: Any) -> RemoteFile:
        url = within(storage.url, path)
        info = attempted(lambda: storage.file_system.info(within(storage.root, path)), url)
        if info.get("type") == "directory":
            raise UnavailableError(f"{url!r} is a folder, not a file")
        return storage.file(path, info)

    def arrived(path: str, answer: RemoteFile | UnavailableError) -> None:
        if isinstance(answer, UnavailableError):
            problems[path] = answer
        else:
            files.append(answer)

    in_parallel(ask, single, arrived, lambda: progress(stage, len(files) + len(problems), len(paths)))
    return files, problems


def _by_folder(paths: Sequence[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for path in paths:
        folders.setdefault(path.rpartition("/")[0], []).append(path)
    return folders


def _infos_of_folder(storage: Storage, folder: str) -> dict[str, Mapping[str, Any]] | None:
    """Address -> what a listing tells, of the files in a folder; None where they are to be asked for one by one."""
    if storage.root.partition("://")[0] in WEB:
        return None
    place = within(storage.root, folder) if folder else storage.root
    try:
        infos = attempted(lambda: storage.file_system.ls(place, detail=True), within(storage.url, folder))
    except UnavailableError:  # one may read files of many a public bucket, and not list them
        return None
    return {str(info["name"]): info for info in infos if info.get("type") != "directory"}
