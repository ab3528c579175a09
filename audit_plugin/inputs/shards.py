"""WebDataset shards as a manifest: tar files whose members belong together by their names, as img2dataset writes them.

Nothing is unpacked. Texts and JSON are read now; media become values that name their bytes in the tar file.
"""

from __future__ import annotations

import glob
import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError

from .files import member_of


@dataclass(frozen=True)
class TornRow:
    """A row of a manifest that cannot be read.

    Attributes:
        reason: why.
        id: the id it seems to have, "" if none.
    """

    reason: str
    id: str = ""


Row = Mapping[str, Any] | TornRow  # cells by column

SUFFIX = ".tar"
ID_COLUMN = "id"
TEXT_BYTES = 1 << 20  # of one text or one JSON member
# What a member is, by the end of its name: the column that it fills.
KINDS = {
    "image": "jpg jpeg png webp gif bmp tif tiff",
    "text": "txt",
    "audio": "wav mp3 flac ogg opus m4a aac",
    "video": "mp4 m4v webm mkv mov avi",
}
COLUMNS = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes.split()}
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def names_shards(path: Path) -> bool:
    """Whether a path names tar shards: a tar file, a folder, or a pattern such as `s/{00000..00010}.tar`."""
    return path.suffix.lower() == SUFFIX or path.is_dir()


def read_shards(path: Path, wanted: Set[str]) -> tuple[list[str], list[Row]]:
    """Columns and rows: one row per key, in the order of the shards and of the keys in them.

    Columns are `id` (the key, behind the shard's name where keys repeat), `image`, `text`, `audio` and `video` by the
    members' suffixes, and the fields of the JSON members. A shard that breaks off loses what comes after the break.

    Args:
        path: see `names_shards`.
        wanted: columns; other JSON fields are dropped, to save memory.

    Raises:
        AuditError: no shard there, or one that is no tar file.
    """
    header: dict[str, None] = {ID_COLUMN: None}
    keys: list[tuple[str, str]] = []
    rows: list[Row] = []
    for shard in _shards(path):
        for key, row in _read_shard(shard).items():
            keys.append((shard.stem, key))
            if isinstance(row, TornRow):
                rows.append(row)
            else:
                header |= dict.fromkeys(row)
                rows.append({name: row[name] for name in wanted & row.keys()})
    repeated = len({key for _, key in keys}) < len(keys)
    names = [f"{shard}/{key}" if repeated else key for shard, key in keys]
    return list(header), [_named(row, name) for row, name in zip(rows, names, strict=True)]


def _named(row: Row, name: str) -> Row:
    return TornRow(row.reason, name) if isinstance(row, TornRow) else {**row, ID_COLUMN: name}


def _shards(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(path.glob(f"*{SUFFIX}"))
    elif path.exists():
        found = [path]
    else:
        found = [Path(name) for pattern in _expand(str(path)) for name in sorted(glob.glob(pattern))]
    if not found:
        raise AuditError(
            f"{str(path)!r} names no tar shard; give a .tar file, a folder of them, or a pattern in quotes"
        )
    return [shard.absolute() for shard in found]


def _expand(pattern: str) -> Iterator[str]:
    """`a{08..11}` as `a08`, `a09`, `a10`, `a11`."""
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from _expand(f"{pattern[: found.start()]}{number:0{len(first)}}{pattern[found.end() :]}")


class _Careful(io.BufferedReader):
    """A file that gives no more at once than a header or a text may hold, whatever the headers claim."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= TEXT_BYTES:
            raise tarfile.ReadError(f"a header or text of {size} bytes, the limit is {TEXT_BYTES}")
        return super().read(size)


@dataclass
class _Sample:
    """What the members of one key hold, what its JSON says besides, and what is wrong with it."""

    members: dict[str, Any] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    wrong: str = ""

    def row(self) -> Row:
        return TornRow(self.wrong) if self.wrong else {**self.said, **self.members}


def _read_shard(path: Path) -> dict[str, Row]:
    """Key -> its row."""
    found: dict[str, _Sample] = {}
    try:
        # "r:" is not compressed: members are read where they lie
        with _Careful(io.FileIO(path)) as file, tarfile.open(fileobj=file, mode="r:") as shard:
            try:
                for member in shard:
                    if member.isreg() and not member.issparse():
                        _add(found, shard, member, str(path))
                file.seek(shard.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes what is no header for the end
                    raise tarfile.ReadError("a header is damaged")
            except (tarfile.TarError, OSError) as error:
                last = next(reversed(found), "")
                found[f"after {last}"] = _Sample(wrong=f"{path.name} breaks off after {last!r} ({_line(error)})")
    except (tarfile.TarError, OSError) as error:
        raise AuditError(
            f"{str(path)!r} cannot be read as a tar file ({_line(error)}); write it anew, uncompressed, or leave it out"
        ) from error
    return {key: sample.row() for key, sample in found.items()}


def _add(found: dict[str, _Sample], shard: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    """Adds a member to the sample of its key: its name up to the first dot, folders included."""
    name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").removeprefix("./")
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    if not stem:
        return  # a hidden file
    sample, column = found.setdefault(folder + slash + stem, _Sample()), COLUMNS.get(suffix.lower(), "")
    try:
        if suffix.lower() == "json":
            sample.said = _object(_text(shard, member))
        elif column in sample.members:
            raise ValueError(f"two members are its {column}")
        elif column:
            place = (path, name, member.offset_data, member.size)
            sample.members[column] = _text(shard, member) if column == "text" else member_of(*place)
    except (ValueError, RecursionError) as error:
        sample.wrong = f"{file!r} cannot be used ({_line(error)})"


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def _text(shard: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > TEXT_BYTES:
        raise ValueError(f"{member.size} bytes, the limit is {TEXT_BYTES}")
    file = shard.extractfile(member)
    return file.read().decode("utf-8") if file else ""


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
