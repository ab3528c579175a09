"""WebDataset: tar shards whose members belong together by their names, `KEY.jpg`, `KEY.txt`, `KEY.json`.

Samples that come from shards keep their shard, their keys and the bytes of all of their members.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from audit_plugin.arrays import MODALITIES
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.readers import ShardMember

from .values import (
    BLOCK,
    MAX_NAME,
    ExportSample,
    Layout,
    Medium,
    SafeNames,
    as_json,
    is_safe_member,
    opened_medium,
    suffix_of,
)

SUFFIX = ".tar"
SHARD_SAMPLES, SHARD_BYTES = 10_000, 1 << 30  # of a shard, at most
CAPTIONS = "captions"  # field of the JSON member with a sample's captions, where it has several
_UNSAFE_SUFFIX = re.compile(r"[^\w.-]+|\.\.+")
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
            for name, medium in self._members(sample):
                _append(self._file, name, medium)
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

    def _members(self, sample: ExportSample) -> Iterator[tuple[str, Medium | ShardMember]]:
        return self._copied(sample) if sample.members else self._made(sample)

    def _copied(self, sample: ExportSample) -> Iterator[tuple[str, Medium | ShardMember]]:
        """The members of the source; only captions that changed, and names that lead out of a folder, are others."""
        is_safe = all(is_safe_member(member.name) for member in sample.members)
        key = "" if is_safe else self._names.of(sample.id)
        has_json = False
        for member in sample.members:
            content = self._changed(sample, member, renamed=not is_safe)
            has_json |= member.suffix == "json"
            name = member.name if is_safe else f"{key}.{_UNSAFE_SUFFIX.sub('_', member.suffix)[:MAX_NAME]}"
            yield name, member if content is None else content
        if not is_safe and not has_json:
            yield f"{key}.json", _json({ORIGINAL: sample.id})

    def _changed(self, sample: ExportSample, member: ShardMember, renamed: bool) -> bytes | None:
        """The new bytes of a member with captions, or of the one that notes another name; None: they stay."""
        column = self._layout.text_column
        suffixes = MODALITIES[column].suffixes if column in MODALITIES else ()
        in_text = any(other.suffix in suffixes for other in sample.members)
        if sample.changed and member.suffix in suffixes:
            return (sample.text or "").encode("utf-8", "replace")
        in_json = sample.changed and not in_text
        if member.suffix != "json" or not (in_json or renamed):
            return None
        fields = json.loads(member.read())
        if in_json:
            fields[column] = list(sample.texts) if sample.listed else sample.text
        return _json({**fields, ORIGINAL: sample.id} if renamed else fields)

    def _made(self, sample: ExportSample) -> Iterator[tuple[str, Medium | ShardMember]]:
        key = self._names.of(sample.id)
        for modality, medium in sample.media.items():
            yield f"{key}.{suffix_of(medium, modality)}", medium
        if sample.text is not None:
            yield f"{key}.txt", sample.text.encode("utf-8", "replace")
        fields = {name: value for name, value in sample.fields.items() if value is not None}
        if sample.listed:
            fields[CAPTIONS] = list(sample.texts)
        if sample.box:
            fields["box"] = list(sample.box)
        if key != sample.id:
            fields[ORIGINAL] = sample.id
        if fields:
            yield f"{key}.json", _json(fields)


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(as_json(fields), ensure_ascii=False).encode("utf-8", "replace")


def _append(file: IO[bytes], name: str, medium: Medium | ShardMember) -> None:
    """One member at the end of a tar file: its header is written once its size is known."""
    info = tarfile.TarInfo(name)
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
