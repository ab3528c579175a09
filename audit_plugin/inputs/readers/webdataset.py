"""WebDataset shards: tar files whose members belong together by their names, as img2dataset and LAION write them.

Nothing is unpacked: texts and JSON are read, and media are located in the tar file. A medium of a shard is always a
member of it: what a JSON member says is never taken for the path of one.

Columns are the members' suffixes (`jpg`, `input.png`, `cls`), the modality of a suffix where one member has it
(`image`, `text`), and the fields of the JSON members.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audit_plugin.arrays import MODALITIES, AuditError
from audit_plugin.inputs.files import MediaError, first_line, member_of
from audit_plugin.inputs.rows import ID_COLUMN, MAX_NAMES, Unusable, brief
from audit_plugin.inputs.tar import BLOCK, TarError, TarMember, tar_members
from audit_plugin.store import open_regular

from .source import Located, Row, ShardMember

SUFFIX = ".tar"
JSON = "json"
CLASS = "cls"
TEXTS = ("txt", "cls", "text", "caption", "cap")  # suffixes of members that are text
MAX_TEXT_BYTES = 1 << 20  # of one text or one JSON member
_PLAIN_SUFFIX = re.compile(r"[\w-]+(\.[\w-]+)*")


class ShardSource:
    """The rows of one tar file, in the order of the first member of each."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder, self.title = path, path.parent, "WebDataset"
        self.header = [ID_COLUMN]
        self.notes: list[str] = []
        self.suffixes: Counter[str] = Counter()
        self._single: Counter[str] = Counter()  # modality -> keys with one member of it, less those with several

    @property
    def columns(self) -> Mapping[str, str]:
        """The members of the keys that were read so far, which go before the fields of their JSON."""
        own = {modality: modality for modality, count in self._single.items() if count > 0}
        classes = [suffix for suffix in self.suffixes if suffix.rpartition(".")[2] == CLASS]
        return own | ({"label": classes[0]} if len(classes) == 1 else {})

    def has_several(self, modality: str) -> bool:
        """Whether most of the keys that were read so far have several members of a modality."""
        return self._single[modality] < 0

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:
        """One row per key; where the file breaks off, one more row says so."""
        header = dict.fromkeys(self.header)
        shard = _read_members(self.path)
        self.suffixes.clear()
        self._single.clear()
        try:
            for key, members in shard.keys.items():
                self.suffixes.update(member.suffix for member, _ in members)
                counts = Counter(filter(None, (modality_of(member.suffix) for member, _ in members)))
                self._single.update({modality: 1 if count == 1 else -1 for modality, count in counts.items()})
                yield _Reading(wanted, media, header).row(key, members)
        finally:  # also where only the first rows are read
            self.header = list(header)
        self.notes = [*shard.notes]
        if shard.problem:
            last = next(reversed(shard.keys), "")
            name = f"after {last}"
            while name in shard.keys:
                name += "'"
            yield Row(key=name, problem=f"{self.path.name} breaks off after {brief(last)} ({shard.problem})")


@dataclass
class _Shard:
    """The members of a tar file by key, each with what is wrong with it, and why the file breaks off."""

    keys: dict[str, list[tuple[ShardMember, str]]] = field(default_factory=dict)
    problem: str = ""
    notes: list[str] = field(default_factory=list)


def _read_members(path: Path) -> _Shard:
    """Raises `AuditError` where nothing of the file can be read, or it has too many members or headers."""
    shard = _Shard()
    members: list[TarMember] = []
    try:
        with open_regular(path) as file:
            for member in tar_members(file):
                name = member.name.removeprefix("./")
                if not name.rpartition("/")[2].startswith(".") and not name.startswith("__MACOSX/"):
                    members.append(replace(member, name=name))
            if members and not _has_end(file):
                shard.notes.append(f"{path.name} has no end mark, and may be cut off")
    except (TarError, OSError) as error:
        is_too_large = isinstance(error, TarError) and error.is_too_large
        if not isinstance(error, TarError) or not error.position or is_too_large:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else first_line(error)
            remedy = "write it as several shards" if is_too_large else "write it again, uncompressed, or leave it out"
            raise AuditError(f"{str(path)!r} cannot be read as a tar file ({reason}); {remedy}") from error
        shard.problem = first_line(error)
    by_last_dot = _ends_at_last_dot([member.name for member in members])
    if by_last_dot:
        shard.notes.append(f"{path.name}: names hold dots, so that keys end at the last one")
    for member in members:
        key, suffix = _key_and_suffix(member.name, by_last_dot)
        part = ShardMember(member.name, str(path), member.start, member.size, suffix)
        shard.keys.setdefault(key, []).append((part, member.problem))
    return shard


def _has_end(file: io.BufferedReader) -> bool:
    """Whether a tar file ends in the two empty blocks that say so."""
    file.seek(-2 * BLOCK, os.SEEK_END)
    return not file.read().strip(b"\0")


def _key_and_suffix(name: str, by_last_dot: bool) -> tuple[str, str]:
    """A member's name, divided at the first dot after its folder, as WebDataset does, or at the last one."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.rpartition(".") if by_last_dot and "." in base else base.partition(".")
    return folder + slash + stem, suffix.lower()


def _ends_at_last_dot(names: list[str]) -> bool:
    """Whether keys hold dots: divided at the first one, suffixes would be as many as samples, or hold odd signs."""
    first = Counter(_key_and_suffix(name, False)[1] for name in names)
    last = Counter(_key_and_suffix(name, True)[1] for name in names)
    if len(first) == len(last):
        return False
    has_other_signs = any(suffix and not _PLAIN_SUFFIX.fullmatch(suffix) for suffix in first)
    return has_other_signs or (len(first) > 2 * len(last) and 2 * len(first) > len(names))


def modality_of(suffix: str) -> str:
    """The modality of the members with a suffix, by its last part; "" for none."""
    ending = suffix.rpartition(".")[2]
    return next((name for name, modality in MODALITIES.items() if ending in modality.suffixes), "")


@dataclass
class _Reading:
    """What is wanted of each key; names of columns are added to `header`."""

    wanted: Collection[str] | None
    media: Collection[str]
    header: dict[str, None]

    def row(self, key: str, members: list[tuple[ShardMember, str]]) -> Row:
        """The row of a key."""
        cells: dict[str, Any] = {}
        problem = ""
        parts = tuple(member for member, _ in members)
        count = Counter(modality_of(part.suffix) for part in parts)
        read: set[str] = set()  # suffixes of JSON members
        # fields last: a member that holds the column goes before them
        for member, reason in sorted(members, key=lambda each: _is_json(each[0])):
            if problem:  # the row is lost: a key may have very many members
                for column in self._columns_of(member, count):
                    self._note(column)
                continue
            try:
                if _is_json(member):
                    if member.suffix in read:
                        raise ValueError("two members are its JSON")
                    read.add(member.suffix)
                    self._add_fields(cells, member, reason)
                else:
                    self._add_member(cells, member, reason, parts, count)
            except (ValueError, MediaError, RecursionError) as error:
                base = member.name.rpartition("/")[2]
                problem = f"{brief(base)} cannot be used ({first_line(error)})"
        return Row({**cells, ID_COLUMN: key}, key, problem, parts)

    def _add_member(
        self,
        cells: dict[str, Any],
        member: ShardMember,
        reason: str,
        parts: tuple[ShardMember, ...],
        count: Mapping[str, int],
    ) -> None:
        columns = self._columns_of(member, count)
        for column in columns:
            self._note(column)
        for column in columns:
            if not self._is_wanted(column, member):
                continue
            if reason:
                raise ValueError(reason)
            if column in cells:
                raise ValueError(f"two members are its {column}{_remedy(column, parts)}")
            cells[column] = self._cell(column, member)

    def _columns_of(self, member: ShardMember, count: Mapping[str, int]) -> list[str]:
        """Its modality, and its suffix unless that says the same; `count` is that of the key's members by modality."""
        modality = modality_of(member.suffix)
        if member.suffix == JSON or not member.suffix:
            return []
        if not modality:
            return [member.suffix]
        has_own_name = member.suffix not in MODALITIES[modality].suffixes
        is_one_of_several = count[modality] > 1
        wants_suffix = self.wanted is not None and member.suffix in self.wanted
        return [modality, member.suffix] if has_own_name or is_one_of_several or wants_suffix else [modality]

    def _is_wanted(self, column: str, member: ShardMember) -> bool:
        if self.wanted is not None:
            return column in self.wanted
        modality = modality_of(member.suffix)
        is_medium = bool(modality) and not MODALITIES[modality].is_text
        # all columns: other members than texts are copied as they are
        return column in self.media or column in MODALITIES or (not is_medium and column in TEXTS)

    def _cell(self, column: str, member: ShardMember) -> Any:
        modality = modality_of(member.suffix)
        is_medium = bool(modality) and not MODALITIES[modality].is_text
        if is_medium:
            return Located(member_of(member.tar, member.name, member.start, member.size))
        return Unusable("text") if column in self.media else _text_of(member).rstrip("\r\n")

    def _add_fields(self, cells: dict[str, Any], member: ShardMember, reason: str) -> None:
        """The fields of a JSON member, except where a member holds the column; of media, the reason why it is none."""
        if reason:
            raise ValueError(reason)
        fields = json.loads(_text_of(member))
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")
        for name, value in fields.items():
            self._note(name)
            if name in cells or (self.wanted is not None and name not in self.wanted):
                continue
            is_medium = name in self.media or (name in MODALITIES and not MODALITIES[name].is_text)
            if not is_medium:
                cells[name] = value
            elif self.wanted is not None and value is not None:
                cells[name] = Unusable("a value of JSON")

    def _note(self, column: str) -> None:
        if len(self.header) < MAX_NAMES or (self.wanted is not None and column in self.wanted):
            self.header[column] = None


def _is_json(member: ShardMember) -> bool:
    return member.suffix == JSON or member.suffix.endswith(f".{JSON}")


def _remedy(column: str, parts: tuple[ShardMember, ...]) -> str:
    suffixes = sorted({part.suffix for part in parts if modality_of(part.suffix) == column})
    return f"; name one: {' or '.join(suffixes)}" if len(suffixes) > 1 else ""


def _text_of(member: ShardMember) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise ValueError(f"{member.size} bytes, the limit is {MAX_TEXT_BYTES}")
    return member.read().decode("utf-8-sig")


def is_tar(start: bytes) -> bool:
    """Whether a file that begins so is a tar file (the first header says `ustar`, or only its name and numbers)."""
    return start[257:262] == b"ustar" or (
        len(start) >= 512 and start[100:107].strip(b" \0").isdigit() and not start[500:512].strip(b"\0")
    )


def listing(suffixes: Mapping[str, int]) -> str:
    """The members by suffix with counts, for messages: `40 .input.png, 40 .outputs.txt`."""
    counts = sorted(suffixes.items(), key=lambda item: -item[1])[:20]
    return ", ".join(f"{count:,} .{os.path.basename(suffix)}" for suffix, count in counts)
