"""WebDataset shards as a manifest: tar files whose members belong together by their names, as img2dataset writes them.

Nothing is unpacked. Texts and JSON are read now; media become values that name their bytes in the tar file. A medium of
a shard is always a member of it: what a JSON member says is never taken for the path of one.
"""

from __future__ import annotations

import glob
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audit_plugin.arrays import MODALITIES, AuditError
from audit_plugin.store import open_regular

from .files import first_line, member_of
from .rows import ID_COLUMN, MAX_NAMES, RowReader, Unusable, brief
from .tar import TarError, TarMember, tar_members

SUFFIX = ".tar"
JSON = "JSON"  # in place of a modality: a member with the fields of its sample
MAX_TEXT_BYTES = 1 << 20  # of one text or one JSON member
MAX_SHARDS = 100_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def read_shards(path: Path, reader: RowReader) -> list[str]:
    """Reads one row per key, in the order of the shards and of the keys in them; the header.

    The header holds `id` (the key, after the shard's name where keys repeat), a column for each modality by the
    members' suffixes, and the fields of the JSON members. A shard that breaks off loses what comes after the break.

    Args:
        path: a tar file, a folder of them, or a pattern such as `s/{00000..00010}.tar`.
        reader: collects the rows.

    Raises:
        AuditError: there is no shard, or one that is not a tar file.
    """
    header: dict[str, None] = {ID_COLUMN: None}
    keys: list[tuple[str, str, _ShardSample]] = []
    for shard in shard_paths(path):
        for key, sample in _read_shard(shard, reader, header).items():
            keys.append((shard.stem, key, sample))
        reader.check_count(len(keys))
    keys_repeat = len({key for _, key, _ in keys}) < len(keys)
    for shard_name, key, sample in keys:
        name = f"{shard_name}/{key}" if keys_repeat else key
        if sample.problem:
            reader.tear(sample.problem, name)
        else:
            reader.add_usable({**sample.cells, ID_COLUMN: name})
    return list(header)


def shard_paths(path: Path) -> list[Path]:
    """The tar files, as absolute paths, that a file, a folder or a pattern such as `s/{00..10}.tar` names.

    Raises:
        AuditError: there is none, or a pattern stands for too many.
    """
    if os.path.isdir(path):
        paths = sorted(path.glob(f"*{SUFFIX}"))
    elif os.path.exists(path):
        paths = [path]
    else:
        paths = []
        for pattern in _expand_ranges(str(path)):
            paths += [Path(name) for name in sorted(glob.glob(pattern))]
    if not paths:
        raise AuditError(
            f"{str(path)!r} names no tar shard; give a .tar file, a folder of them, or a pattern in quotes"
        )
    return [shard.absolute() for shard in paths]


def _expand_ranges(pattern: str) -> Iterator[str]:
    """`a{08..11}` as `a08`, `a09`, `a10`, `a11`."""
    count = 1
    for first, last in _RANGE.findall(pattern):
        count *= max(0, int(last) - int(first) + 1)
    if count > MAX_SHARDS:
        raise AuditError(f"{pattern!r} stands for {count:,} shards; the limit is {MAX_SHARDS:,}")
    numbers = _RANGE.search(pattern)
    if numbers is None:
        yield pattern
        return
    first, last = numbers.groups()
    for number in range(int(first), int(last) + 1):
        yield from _expand_ranges(f"{pattern[: numbers.start()]}{number:0{len(first)}}{pattern[numbers.end() :]}")


@dataclass(slots=True)
class _ShardSample:
    """The cells of one key, the kinds of members seen, and what is wrong with it ("" if nothing)."""

    cells: dict[str, Any] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    problem: str = ""


def _read_shard(path: Path, reader: RowReader, header: dict[str, None]) -> dict[str, _ShardSample]:
    """Samples by key, in their order; where the file breaks off, one more sample says so."""
    samples: dict[str, _ShardSample] = {}
    try:
        for key, column, member, file in members_with_keys(path):
            sample = samples.setdefault(key, _ShardSample())
            if column:
                _add_member(sample, column, file, member, str(path), reader, header)
    except TarError as error:
        last = next(reversed(samples), "")
        name = f"after {last}"
        while name in samples:
            name += "'"
        problem = f"{path.name} breaks off after {brief(last)} ({first_line(error)})"
        samples[name] = _ShardSample(problem=problem)
    return samples


def members_with_keys(path: Path) -> Iterator[tuple[str, str, TarMember, io.BufferedReader]]:
    """(key, column, member, the open file) of a shard's members, without hidden ones and without `./` in their names.

    The key is the name up to the first dot, folders included. The column is the modality of the suffix, `JSON`, or ""
    for other suffixes.

    Raises:
        AuditError: nothing of the file can be read, or it has too many members or headers.
        TarError: it breaks off here.
    """
    columns = {suffix: name for name, modality in MODALITIES.items() for suffix in modality.suffixes}
    columns["json"] = JSON
    try:
        with open_regular(path) as file:
            for member in tar_members(file):
                name = member.name.removeprefix("./")
                folder, slash, base = name.rpartition("/")
                stem, _, suffix = base.partition(".")
                if stem:
                    column = columns.get(suffix.lower(), "")
                    yield folder + slash + stem, column, replace(member, name=name), file
    except (TarError, OSError) as error:
        is_too_large = isinstance(error, TarError) and error.is_too_large
        if isinstance(error, TarError) and error.position and not is_too_large:
            raise
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else first_line(error)
        remedy = "write it as several shards" if is_too_large else "write it again, uncompressed, or leave it out"
        raise AuditError(f"{str(path)!r} cannot be read as a tar file ({reason}); {remedy}") from error


def _add_member(
    sample: _ShardSample,
    column: str,
    file: io.BufferedReader,
    member: TarMember,
    path: str,
    reader: RowReader,
    header: dict[str, None],
) -> None:
    """Adds a member to the sample of its key."""
    try:
        if column in sample.members:
            raise ValueError(f"two members are its {column}")
        sample.members = (*sample.members, column)
        if member.problem:
            raise ValueError(member.problem)
        if column == JSON:
            _add_fields(sample, _read_text(file, member), reader, header)
            return
        if len(header) < MAX_NAMES:
            header[column] = None
        if column not in reader.columns:
            return
        if MODALITIES[column].is_text:
            sample.cells[column] = reader.usable(column, _read_text(file, member))
        else:
            sample.cells[column] = member_of(path, member.name, member.start, member.size)
    except (ValueError, OSError, RecursionError) as error:
        base = member.name.rpartition("/")[2]
        sample.problem = sample.problem or f"{brief(base)} cannot be used ({first_line(error)})"


def _add_fields(sample: _ShardSample, text: str, reader: RowReader, header: dict[str, None]) -> None:
    """The fields of a JSON member, except where a member holds the column; of media, the reason why it is none."""
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    for name, value in fields.items():
        if len(header) < MAX_NAMES or name in reader.columns:
            header[name] = None
        if name not in reader.columns or name in sample.members:
            continue
        is_medium = name in reader.media and value is not None
        sample.cells[name] = Unusable("a value of JSON") if is_medium else reader.usable(name, value)


def _read_text(file: io.BufferedReader, member: TarMember) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise ValueError(f"{member.size} bytes, the limit is {MAX_TEXT_BYTES}")
    file.seek(member.start)
    data = file.read(member.size)
    if len(data) < member.size:
        raise ValueError("the tar file ends too early")
    return data.decode("utf-8")
