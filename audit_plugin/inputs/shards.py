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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audit_plugin.arrays import MODALITIES, AuditError

from .files import first_line, member_of

SUFFIX = ".tar"
ID_COLUMN = "id"
MAX_TEXT_BYTES = 1 << 20  # of one text or one JSON member
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class TornRow:
    """A row of a manifest that cannot be read, with the id that it seems to have, "" if none."""

    reason: str
    id: str = ""


Row = Mapping[str, Any] | TornRow  # cells by column


def read_shards(path: Path, columns: Set[str]) -> tuple[list[str], list[Row]]:
    """Header and rows: one row per key, in the order of the shards and of the keys in them.

    The header holds `id` (the key, after the shard's name where keys repeat), a column for each modality by the
    members' suffixes, and the fields of the JSON members. A shard that breaks off loses what comes after the break.

    Args:
        path: a tar file, a folder of them, or a pattern such as `s/{00000..00010}.tar`.
        columns: that rows hold; other JSON fields are dropped, to save memory.

    Raises:
        AuditError: there is no shard, or one that is not a tar file.
    """
    header: dict[str, None] = {ID_COLUMN: None}
    keys: list[tuple[str, str]] = []
    rows: list[Row] = []
    for shard in _shard_paths(path):
        for key, sample in _read_shard(shard).items():
            keys.append((shard.stem, key))
            if sample.problem:
                rows.append(TornRow(sample.problem))
                continue
            cells = {**sample.fields, **sample.members}
            header |= dict.fromkeys(cells)
            rows.append({column: cells[column] for column in columns & cells.keys()})
    keys_repeat = len({key for _, key in keys}) < len(keys)
    for number, (shard_name, key) in enumerate(keys):
        name = f"{shard_name}/{key}" if keys_repeat else key
        row = rows[number]
        rows[number] = replace(row, id=name) if isinstance(row, TornRow) else {**row, ID_COLUMN: name}
    return list(header), rows


def _shard_paths(path: Path) -> list[Path]:
    if path.is_dir():
        paths = sorted(path.glob(f"*{SUFFIX}"))
    elif path.exists():
        paths = [path]
    else:
        paths = [Path(name) for pattern in _expand_ranges(str(path)) for name in sorted(glob.glob(pattern))]
    if not paths:
        raise AuditError(
            f"{str(path)!r} names no tar shard; give a .tar file, a folder of them, or a pattern in quotes"
        )
    return [shard.absolute() for shard in paths]


def _expand_ranges(pattern: str) -> Iterator[str]:
    """`a{08..11}` as `a08`, `a09`, `a10`, `a11`."""
    numbers = _RANGE.search(pattern)
    if numbers is None:
        yield pattern
        return
    first, last = numbers.groups()
    for number in range(int(first), int(last) + 1):
        yield from _expand_ranges(f"{pattern[: numbers.start()]}{number:0{len(first)}}{pattern[numbers.end() :]}")


class _BoundedReader(io.BufferedReader):
    """A file that refuses to read more at once than a header or a text may hold, whatever its headers declare."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_TEXT_BYTES:
            raise tarfile.ReadError(f"a header or text of {size} bytes, the limit is {MAX_TEXT_BYTES}")
        return super().read(size)


@dataclass
class _ShardSample:
    """The members of one key by column, the fields of its JSON member, and what is wrong with it ("" if nothing)."""

    members: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def _read_shard(path: Path) -> dict[str, _ShardSample]:
    """Samples by key, in their order; where the file breaks off, one more sample says so."""
    columns = {suffix: name for name, modality in MODALITIES.items() for suffix in modality.suffixes}
    samples: dict[str, _ShardSample] = {}
    try:
        # "r:" is not compressed: members can be read in place
        with _BoundedReader(io.FileIO(path)) as file, tarfile.open(fileobj=file, mode="r:") as shard:
            try:
                for member in shard:
                    if member.isreg() and not member.issparse():
                        _add_member(samples, columns, shard, member, str(path))
                file.seek(shard.offset)
                # tarfile takes a damaged header for the end, which holds only zeros
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError("a header is damaged")
            except (tarfile.TarError, OSError) as error:
                last = next(reversed(samples), "")
                problem = f"{path.name} breaks off after {last!r} ({first_line(error)})"
                samples[f"after {last}"] = _ShardSample(problem=problem)
    except (tarfile.TarError, OSError) as error:
        raise AuditError(
            f"{str(path)!r} cannot be read as a tar file ({first_line(error)}); write it again, uncompressed, or "
            "leave it out"
        ) from error
    return samples


def _add_member(
    samples: dict[str, _ShardSample],
    columns: Mapping[str, str],
    shard: tarfile.TarFile,
    member: tarfile.TarInfo,
    path: str,
) -> None:
    """Adds a member to the sample of its key, which is its name up to the first dot, folders included."""
    name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").removeprefix("./")
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    if not stem:
        return  # a hidden file
    sample = samples.setdefault(folder + slash + stem, _ShardSample())
    column = columns.get(suffix.lower(), "")
    try:
        if suffix.lower() == "json":
            sample.fields = json.loads(_read_text(shard, member))
            if not isinstance(sample.fields, dict):
                raise ValueError("not a JSON object")
        elif column in sample.members:
            raise ValueError(f"two members are its {column}")
        elif column and MODALITIES[column].is_text:
            sample.members[column] = _read_text(shard, member)
        elif column:
            sample.members[column] = member_of(path, name, member.offset_data, member.size)
    except (ValueError, RecursionError) as error:
        sample.problem = f"{file!r} cannot be used ({first_line(error)})"


def _read_text(shard: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise ValueError(f"{member.size} bytes, the limit is {MAX_TEXT_BYTES}")
    file = shard.extractfile(member)
    return file.read().decode("utf-8") if file else ""
