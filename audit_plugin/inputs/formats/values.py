"""A sample on its way from one format to another, the names of its files, and its bytes, which are copied as they are.

What users name samples is hostile text: a name of a file is made of it only by `SafeNames`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from audit_plugin.arrays import MODALITIES
from audit_plugin.inputs.files import MediaError, file_of, name_of_member, open_medium, unreadable
from audit_plugin.inputs.readers import ShardMember
from audit_plugin.store import open_regular

BLOCK = 1 << 20  # bytes that are copied at once
FILES_PER_FOLDER = 10_000
MAX_NAME = 100  # bytes of a file's name without its ending
DIGITS = 12  # of a sha256, which tells equal names apart
_UNSAFE = re.compile(r"[^\w-]+|^[-_]+")
# Names that Windows takes for devices, whatever follows their first dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com\d|lpt\d)", re.IGNORECASE)
# How files begin, for media whose name has no ending of their modality.
_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"\x1aE\xdf\xa3", "webm"),
)
BOX_SEPARATOR = "\0"  # between the path of an image and the box of an object in it, see `inputs.images.crop_of`

Medium = str | bytes  # a path, a member of a tar file (`inputs.files.member_of`), or the bytes themselves


@dataclass(frozen=True, slots=True)
class ExportSample:
    """One sample that leaves.

    Attributes:
        id: as in the table of scores.
        media: modality -> where its bytes are; without texts.
        texts: the captions that leave; None where one is missing. Empty: there is no text modality.
        captions: position of each text among the captions of the source.
        listed: the source holds a list of captions.
        fields: the other columns of the source, name -> value.
        members: of a sample from a tar shard, all of its members.
        changed: the texts differ from those of the source.
        box: left, top, width, height of an object in its image, as shares of the image; () for a whole image.
    """

    id: str
    media: Mapping[str, Medium]
    texts: tuple[str | None, ...] = ()
    captions: tuple[int, ...] = ()
    listed: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[ShardMember, ...] = ()
    changed: bool = False
    box: tuple[float, ...] = ()

    @property
    def text(self) -> str | None:
        """The first caption."""
        return self.texts[0] if self.texts else None


@dataclass(frozen=True)
class Layout:
    """What the columns of the source are, for formats that name theirs before the first row.

    Attributes:
        columns: modality -> column of the source.
        header: all columns of the source, in their order.
        folder: of the finished export, from where relative paths are read.
        kinds: column -> bool, int, float, text or json; what the column holds, where it is known.
        schema: Arrow schema of the source, where it is Parquet; else None.
        listed: samples may have several captions.
    """

    columns: Mapping[str, str]
    header: tuple[str, ...]
    folder: Path
    kinds: Mapping[str, str] = field(default_factory=dict)
    schema: Any = None
    listed: bool = False

    @property
    def media(self) -> dict[str, str]:
        """Modality -> column, without texts."""
        return {name: column for name, column in self.columns.items() if not MODALITIES[name].is_text}

    @property
    def text_column(self) -> str:
        """Column of the captions; "" without a text modality."""
        return next((column for name, column in self.columns.items() if MODALITIES[name].is_text), "")

    @property
    def others(self) -> tuple[str, ...]:
        """The columns that are neither the id nor audited."""
        return tuple(c for c in self.header if c != "id" and c not in (*self.media.values(), self.text_column))


class Writer(Protocol):
    """Writes one format: samples are added one by one, and none is remembered."""

    def add(self, sample: ExportSample) -> None:
        """Writes a sample; where it raises `MediaError`, nothing of it was written."""

    def close(self) -> None:
        """Completes the files."""


class SafeNames:
    """Names of files for ids: of letters, digits, `-` and `_`, at most `MAX_NAME` bytes, each different in any case."""

    def __init__(self) -> None:
        self._used: set[int] = set()

    def of(self, name: str) -> str:
        """The name for an id; of an id that is given again, another one."""
        safe = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode("utf-8"))
        safe = _cut(_UNSAFE.sub("_", safe).strip("_") or "sample")
        if _DEVICES.fullmatch(safe):
            safe = f"{safe}_"
        if safe != name or not self._is_new(safe):
            digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
            safe, number = f"{safe}-{digest}", 1
            while not self._is_new(safe):
                number += 1
                safe = f"{safe.partition('.')[0]}-{number}"
        return safe

    def _is_new(self, name: str) -> bool:
        # a number takes a third of the memory of the name
        folded = unicodedata.normalize("NFC", name.casefold()).encode()
        number = int.from_bytes(hashlib.blake2b(folded, digest_size=7).digest(), "big")
        if number in self._used:
            return False
        self._used.add(number)
        return True


def _cut(name: str) -> str:
    return name.encode()[: MAX_NAME - DIGITS - 8].decode("utf-8", "ignore")


def is_safe_member(name: str) -> bool:
    """Whether a member of a tar file may pass its name on: it stays in the folder where somebody unpacks it."""
    parts = name.replace("\\", "/").split("/")
    is_plain = all(part not in ("", ".", "..") and len(part.encode("utf-8", "replace")) < 256 for part in parts)
    return is_plain and ":" not in parts[0] and not any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name)


def suffix_of(medium: Medium, modality: str) -> str:
    """The ending for a file with this medium, without the dot."""
    known = MODALITIES[modality].suffixes
    if isinstance(medium, str):
        suffix = os.path.splitext(name_of_member(medium) or medium)[1].removeprefix(".").lower()
        if suffix in known:
            return suffix
    start = medium[:16] if isinstance(medium, bytes) else _first_bytes(medium)
    if start[:4] == b"RIFF":
        named = {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}.get(start[8:12], "")
    elif start[4:8] == b"ftyp":
        named = "mp4"
    else:
        named = next((suffix for magic, suffix in _MAGIC if start.startswith(magic)), "")
    return named if named in known else (*known, "bin")[0]


def _first_bytes(path: str) -> bytes:
    with opened_medium(path) as file:
        return file.read(16)


def opened_medium(medium: Medium) -> IO[bytes]:
    """The medium, open for reading.

    Raises:
        MediaError: it cannot be read, or is not a regular file.
    """
    if isinstance(medium, bytes):
        return io.BytesIO(medium)
    try:
        # a pipe would never end, and a device may act when it is opened
        return open_medium(medium) if name_of_member(medium) else open_regular(medium)
    except (OSError, ValueError) as error:
        raise unreadable(error) from error


def blocks_of(medium: Medium) -> Iterator[bytes]:
    """The bytes in blocks; `MediaError` where the medium cannot be read or has none."""
    with opened_medium(medium) as file:
        is_empty = True
        try:
            while block := file.read(BLOCK):
                is_empty = False
                yield block
        except OSError as error:
            raise unreadable(error) from error
    if is_empty:
        raise MediaError("file is empty (0 bytes)")


def copy_to(medium: Medium, path: Path) -> None:
    """Writes the bytes to a new file; nothing stays where the medium cannot be read."""
    try:
        with open(path, "xb") as out:
            for block in blocks_of(medium):
                out.write(block)
    except MediaError:
        path.unlink(missing_ok=True)
        raise


class MediaFolder:
    """Files copied into a folder of an export under safe names, `FILES_PER_FOLDER` in each folder below it.

    Args:
        root: folder of the export.
        name: of the folder in it.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name
        self._names = SafeNames()
        self._count = 0

    def copy(self, sample_id: str, medium: Medium, modality: str) -> str:
        """Copies a medium; its path from the root. Raises `MediaError` where it cannot be read."""
        folder = f"{self._name}/{self._count // FILES_PER_FOLDER:05d}"
        (self._root / folder).mkdir(parents=True, exist_ok=True)
        path = f"{folder}/{self._names.of(sample_id)}.{suffix_of(medium, modality)}"
        copy_to(medium, self._root / path)
        self._count += 1
        return path


def bytes_of(medium: Medium) -> bytes:
    """All bytes at once."""
    return b"".join(blocks_of(medium))


def path_from(medium: Medium, folder: Path) -> str:
    """How a table in `folder` names a medium: relative to it if the medium lies below it, else as it is.

    Raises:
        MediaError: the bytes are not in a file, or it cannot be read.
    """
    if isinstance(medium, bytes):
        raise MediaError("its bytes lie inside the table, and have no path")
    try:
        with open_regular(file_of(medium)) as file:
            if not file.read(1):
                raise MediaError("file is empty (0 bytes)")
    except (OSError, ValueError) as error:
        raise unreadable(error) from error
    below = os.path.join(str(folder), "")
    inside = medium.removeprefix(below)
    # The reader of tables cuts white space off.
    return inside if inside != medium and inside == inside.strip() else medium


def text_cell(sample: ExportSample) -> str | list[str | None] | None:
    """The captions as one cell: a list where the source holds one."""
    return list(sample.texts) if sample.listed else sample.text


def as_json(value: object) -> Any:
    """The value with what JSON does not have replaced: bytes by base64, NaN by null, times by ISO format."""
    if isinstance(value, Mapping):
        return {str(name): as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, date | datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def json_line(value: Mapping[str, Any]) -> bytes:
    """One line of JSONL; half characters, which UTF-8 cannot hold, are replaced."""
    return json.dumps(as_json(value), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
