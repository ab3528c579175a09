"""WebDataset: tar shards whose members belong together by their names, `KEY.jpg`, `KEY.txt`, `KEY.json`.

Samples that come from shards keep their shard, their keys and the bytes of all of their members.
"""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from audit_plugin.arrays import MODALITIES, AuditError
from audit_plugin.inputs.files import MediaError, first_line, member_of
from audit_plugin.inputs.shards import SUFFIX, _shard_paths

from .values import (
    BLOCK,
    ExportSample,
    Layout,
    Medium,
    SafeNames,
    ShardMember,
    as_json,
    is_safe_member,
    opened_medium,
    suffix_of,
)

SHARD_SAMPLES, SHARD_BYTES = 10_000, 1 << 30  # of a shard, at most
MAX_TEXT_BYTES = 1 << 20
CAPTIONS = "captions"  # field of the JSON member with a sample's captions, where it has several
ORIGINAL = "original_id"  # field of the JSON member with the id, where the key is another


class ShardWriter:
    """Writes shards `00000.tar`, `00001.tar`, …, or those of the source under their names."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._layout = folder, layout
        self._names = SafeNames()
        self._shard_names = SafeNames()
        self._file: IO[bytes] | None = None
        self._source, self._shards, self._samples = "", 0, 0

    def add(self, sample: ExportSample) -> None:
        if sample.members:
            if sample.members[0].tar != self._source:
                self._source = sample.members[0].tar
                self._next(self._shard_names.of(Path(self._source).stem))
        elif self._file is None or self._samples >= SHARD_SAMPLES or self._file.tell() >= SHARD_BYTES:
            self._next(f"{self._shards:05d}")
        assert self._file is not None
        start = self._file.tell()
        try:
            for name, medium, when in self._members(sample):
                _append(self._file, name, medium, when)
        except MediaError:
            self._file.seek(start)
            self._file.truncate()
            raise
        self._samples += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.write(bytes(2 * tarfile.BLOCKSIZE))  # the end of a tar file
            self._file.close()
            self._file = None

    def _next(self, name: str) -> None:
        self.close()
        self._file = open(self._folder / f"{name}{SUFFIX}", "xb")  # noqa: SIM115 (open across many samples)
        self._shards, self._samples = self._shards + 1, 0

    def _members(self, sample: ExportSample) -> Iterator[tuple[str, Medium | ShardMember, int]]:
        return self._copied(sample) if sample.members else self._made(sample)

    def _copied(self, sample: ExportSample) -> Iterator[tuple[str, Medium | ShardMember, int]]:
        """The members of the source; only a caption that changed is another."""
        safe_key = ""
        for member in sample.members:
            name = member.name
            if not is_safe_member(name):
                safe_key = safe_key or self._names.of(sample.id)
                name = f"{safe_key}.{SafeNames().of(member.suffix.replace('.', '_'))}"
            changed = self._changed(sample, member) if sample.relabeled else None
            yield name, member if changed is None else changed, member.time

    def _changed(self, sample: ExportSample, member: ShardMember) -> bytes | None:
        """The new bytes of the member that holds the captions; None: it is another member."""
        column = self._layout.text_column
        suffixes = next((m.suffixes for m in MODALITIES.values() if m.is_text and m.name == column), ())
        has_text = any(other.suffix in suffixes for other in sample.members)
        if member.suffix in suffixes:
            return (sample.text or "").encode()
        if member.suffix != "json" or has_text:
            return None
        fields = json.loads(member.read())
        fields[column] = list(sample.texts) if sample.listed else sample.text
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")

    def _made(self, sample: ExportSample) -> Iterator[tuple[str, Medium | ShardMember, int]]:
        key = self._names.of(sample.id)
        for modality, medium in sample.media.items():
            yield f"{key}.{suffix_of(medium, modality)}", medium, 0
        if sample.text is not None:
            yield f"{key}.txt", sample.text.encode("utf-8", "replace"), 0
        fields = {name: value for name, value in sample.fields.items() if value is not None}
        if sample.listed:
            fields[CAPTIONS] = list(sample.texts)
        if sample.box:
            fields["box"] = list(sample.box)
        if key != sample.id:
            fields[ORIGINAL] = sample.id
        if fields:
            yield f"{key}.json", json.dumps(as_json(fields), ensure_ascii=False).encode("utf-8", "replace"), 0


def _append(file: IO[bytes], name: str, medium: Medium | ShardMember, when: int) -> None:
    """One member at the end of a tar file: its header is written once its size is known."""
    info = tarfile.TarInfo(name)
    info.mtime = when or int(time.time())
    if isinstance(medium, ShardMember):
        info.size = medium.size
        file.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        medium.copy(file)
    elif isinstance(medium, bytes):
        info.size = len(medium)
        file.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + medium)
    else:
        with opened_medium(medium) as source:
            info.size = source.seek(0, 2)
            source.seek(0)
            if not info.size:
                raise MediaError("file is empty (0 bytes)")
            file.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
            copied = 0
            while block := source.read(min(BLOCK, info.size - copied)):
                file.write(block)
                copied += len(block)
            if copied < info.size:
                raise MediaError("the file became shorter while it was copied")
    file.write(bytes(-info.size % tarfile.BLOCKSIZE))


# --- reading -------------------------------------------------------------------------------------------------------


@dataclass
class _Key:
    """The members of one key, its cells, and what is wrong with it ("" if nothing)."""

    members: list[ShardMember] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    cells: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


ShardRow = tuple[str, str, dict[str, Any], tuple[ShardMember, ...], str]


def is_shards(path: Path) -> bool:
    """Whether a manifest names tar shards: a tar file, a folder or a pattern of them."""
    return path.suffix.lower() == SUFFIX or path.is_dir()


def shard_rows(path: Path) -> Iterator[ShardRow]:
    """(key, name of the shard, cells, members, problem) of each key, one shard in memory at a time."""
    for shard in _shard_paths(path):
        for key, row in _read_shard(shard).items():
            yield key, shard.stem, {**row.fields, **row.cells}, tuple(row.members), row.problem


def _read_shard(path: Path) -> dict[str, _Key]:
    columns = {suffix: name for name, modality in MODALITIES.items() for suffix in modality.suffixes}
    keys: dict[str, _Key] = {}
    try:
        with tarfile.open(path, "r:") as shard:
            try:
                while (member := shard.next()) is not None:
                    shard.members = []  # type: ignore[misc]  # of no use here, and they fill the memory
                    if member.isreg() and not member.issparse():
                        _add_member(keys, columns, member, str(path))
            except (tarfile.TarError, OSError) as error:
                last = next(reversed(keys), "")
                keys[f"after {last}"] = _Key(problem=f"{path.name} breaks off ({first_line(error)})")
    except (tarfile.TarError, OSError) as error:
        raise AuditError(f"{str(path)!r} cannot be read as a tar file ({first_line(error)}); check it") from error
    return keys


def _add_member(keys: dict[str, _Key], columns: dict[str, str], info: tarfile.TarInfo, path: str) -> None:
    name = info.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").removeprefix("./")
    folder, slash, file = name.rpartition("/")
    stem, _, _ = file.partition(".")
    if not stem:
        return  # a hidden file
    row = keys.setdefault(folder + slash + stem, _Key())
    member = ShardMember(name, path, info.offset_data, info.size, int(info.mtime))
    row.members.append(member)
    column = columns.get(member.suffix, "")
    try:
        if member.suffix == "json":
            row.fields = json.loads(_text_of(member))
            if not isinstance(row.fields, dict):
                row.fields = {}
                raise ValueError("not a JSON object")
        elif column in row.cells:
            raise ValueError(f"two members are its {column}")
        elif column and MODALITIES[column].is_text:
            row.cells[column] = _text_of(member)
        elif column:
            row.cells[column] = member_of(path, name, member.start, member.size)
    except (ValueError, RecursionError, MediaError) as error:
        row.problem = f"{file!r} cannot be used ({first_line(error)})"


def _text_of(member: ShardMember) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise ValueError(f"{member.size} bytes, the limit is {MAX_TEXT_BYTES}")
    return member.read().decode("utf-8")
