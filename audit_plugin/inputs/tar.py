"""The members of an uncompressed tar file, read header by header: fast, and bounded whatever the headers declare.

The standard library's reader keeps each header in memory and copies what an extended header says into all later ones,
so that a small hostile file takes minutes.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 512
MAX_MEMBERS = 1_000_000  # of one file
MAX_HEADER = 1 << 20  # bytes of one extended header
HEADER_BYTES, HEADER_BYTES_PER_MEMBER = 64 << 20, 1024  # of all extended headers of a file
MAX_NAME = 4096  # bytes, as of a path
_REGULAR = (b"0", b"\0", b"7")
_SHOWN = 50  # bytes at both ends of a name that is too long
_EXTENDED = (b"L", b"K", b"x", b"X", b"g")
# Links, devices, folders and pipes, which have no content.
_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")


class TarError(Exception):
    """The file cannot be read on as a tar file; `position` is where, in bytes (0: no tar file at all)."""

    def __init__(self, reason: str, position: int, is_too_large: bool = False) -> None:
        super().__init__(reason)
        self.position = position
        self.is_too_large = is_too_large


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file in a tar file: its name, where its bytes lie, and what is wrong with it ("" if nothing)."""

    name: str
    start: int
    size: int
    problem: str = ""


def tar_members(file: io.BufferedReader) -> Iterator[TarMember]:
    """The regular files in a tar file, in their order; links, devices, pipes and folders are left out.

    Raises:
        TarError: the file breaks off, is damaged, is not a tar file, or has too many members or headers.
    """
    end = os.fstat(file.fileno()).st_size
    position = members = headers = 0
    fields: dict[bytes, bytes] = {}  # of the extended headers before a member
    while block := _block(file, position, end):
        size, kind, start = _checked_size(block, position), block[156:157], position + BLOCK
        if kind in _EXTENDED:
            headers += size
            if size > MAX_HEADER or headers > HEADER_BYTES + HEADER_BYTES_PER_MEMBER * members:
                raise TarError(f"a header of {size} bytes, {headers} in all, the limit is {MAX_HEADER}", position)
            fields |= _extended_fields(kind, _read(file, start, size, end), position)
        else:
            members += 1
            if members > MAX_MEMBERS:
                raise TarError(f"more than {MAX_MEMBERS:,} members, the limit", position, is_too_large=True)
            if kind in _WITHOUT_CONTENT:
                size = 0
            elif b"size" in fields:
                size = _decimal(fields[b"size"], position)
            if kind == b"S":
                start = _after_sparse_map(file, block, start, end)
            if kind in (*_REGULAR, b"S"):
                yield _member(block, fields, start, size, is_sparse=kind == b"S")
            fields = {}
        position = start - (-size // BLOCK) * BLOCK  # up to the next block


def _member(block: bytes, fields: dict[bytes, bytes], start: int, size: int, is_sparse: bool) -> TarMember:
    name = fields.get(b"GNU.sparse.name") or fields.get(b"path")
    if name is None:
        name = block[:100].split(b"\0")[0]
        prefix = block[345:500].split(b"\0")[0]
        if prefix and block[257:263] == b"ustar\0":
            name = prefix + b"/" + name
    problem = ""
    if is_sparse or any(key.startswith(b"GNU.sparse.") for key in fields):
        problem = "it is stored with holes (sparse)"
    if len(name) > MAX_NAME:
        problem = f"its name has {len(name):,} bytes, the limit is {MAX_NAME:,}"
        name = name[:_SHOWN] + "…".encode() + name[-_SHOWN:]
    return TarMember(name.decode("utf-8", "replace"), start, size, problem)


def _block(file: io.BufferedReader, position: int, end: int) -> bytes:
    """A header; b"" at the end of the file, or where only zeros follow."""
    if position == end and position:
        return b""
    if position > end:
        raise TarError("it ends before its last member does", position)
    block = _read(file, position, BLOCK, end)
    if block.strip(b"\0"):
        return block
    # a damaged header must not pass for the end
    if file.read(BLOCK).strip(b"\0"):
        raise TarError("a header is damaged", position)
    return b""


def _read(file: io.BufferedReader, start: int, size: int, end: int) -> bytes:
    if start + size > end:
        raise TarError("it ends in the middle of a header", start)
    file.seek(start)
    data = file.read(size)
    if len(data) < size:
        raise TarError("it ends in the middle of a header", start)
    return data


def _checked_size(block: bytes, position: int) -> int:
    """The size that a header declares, in bytes, if the checksum of the header is right."""
    stored = _number(block[148:156], position)
    # The sum of all bytes, those of the checksum itself taken for blanks. Adler-32 is the fast way to add bytes: its
    # lower half is 1 + their sum, modulo 65521.
    total = stored - 8 * 32 + sum(block[148:156])
    if zlib.adler32(block) & 0xFFFF != (total + 1) % 65521:
        signed = sum(block) - 256 * sum(byte > 127 for byte in block)  # as some old programs add them
        if signed != total - 256 * sum(byte > 127 for byte in block[148:156]):
            raise TarError("a header is damaged", position)
    return _number(block[124:136], position)


def _number(digits: bytes, position: int) -> int:
    """A number of a header: octal, or binary where it is large."""
    if digits[0] == 0x80:
        return int.from_bytes(digits[1:], "big")
    text = digits.split(b"\0")[0].strip()
    if text.strip(b"01234567"):
        raise TarError("a header is damaged", position)
    return int(text or b"0", 8)


def _decimal(digits: bytes, position: int) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise TarError("an extended header is damaged", position)
    return int(digits)


def _extended_fields(kind: bytes, content: bytes, position: int) -> dict[bytes, bytes]:
    """What an extended header says about the next member: its name, its size, and whether it has holes."""
    if kind == b"L":
        return {b"path": content.split(b"\0")[0]}
    return _pax_fields(content, position) if kind in (b"x", b"X") else {}


def _pax_fields(content: bytes, position: int) -> dict[bytes, bytes]:
    """Those fields of an extended header, lines of `LENGTH KEY=VALUE`, that say where a member lies or what it is."""
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(content) and content[at]:
        blank = content.find(b" ", at, at + 12)
        length = _decimal(content[at:blank], position) if blank > 0 else 0
        if not blank - at < length <= len(content) - at:
            raise TarError("an extended header is damaged", position)
        key, _, value = content[blank + 1 : at + length - 1].partition(b"=")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse."):
            fields[key] = value
        at += length
    return fields


def _after_sparse_map(file: io.BufferedReader, block: bytes, start: int, end: int) -> int:
    """Where the content of a sparse member begins: after the blocks that go on with the map of its parts."""
    goes_on = block[482]
    while goes_on:
        goes_on = _read(file, start, BLOCK, end)[504]
        start += BLOCK
    return start
