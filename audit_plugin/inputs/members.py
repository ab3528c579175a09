"""Media inside tar shards: named by where their bytes lie, read from there, never unpacked."""

from __future__ import annotations

import io
import re
from typing import IO

MAX_BYTES = 1 << 30  # of one member, which is read whole
_VALUE = re.compile(r"(?P<tar>.+\.tar)::(?P<name>[\w.-]+)@(?P<start>\d{1,18})\+(?P<size>\d{1,18})", re.DOTALL)
_NAME = 100  # characters of a member's name that are kept


def member_of(tar: str, name: str, start: int, size: int) -> str:
    """The value of a member of an uncompressed tar file: read like any path, it gives the member's bytes.

    Args:
        tar: path of the file, which ends in `.tar`.
        name: the member's own name, of which only what is harmless in a path stays.
        start: offset of its bytes in the file.
        size: number of its bytes.
    """
    harmless = re.sub(r"[^\w.-]+", "_", name.rpartition("/")[2])[-_NAME:] or "member"
    return f"{tar}::{harmless}@{start}+{size}"


def name_of_member(value: str) -> str:
    """The harmless name of the member that a value stands for; "" where it is a path."""
    found = _VALUE.fullmatch(value)
    return found["name"] if found else ""


def open_medium(value: str) -> IO[bytes]:
    """The bytes of a file, or of a member of a tar file.

    Raises:
        OSError: there is no such file, or it ends before the member does.
        ValueError: the path holds a null character.
    """
    found = _VALUE.fullmatch(value)
    if found is None:
        return open(value, "rb")
    size = int(found["size"])
    if size > MAX_BYTES:
        raise OSError(f"{size} bytes, over the limit of {MAX_BYTES}")
    with open(found["tar"], "rb") as file:
        file.seek(int(found["start"]))
        data = file.read(size)
    if len(data) < size:
        raise OSError("the tar file ends too early")
    return io.BytesIO(data)
