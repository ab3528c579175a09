"""Media whose place a reader found itself, and no cell of a file claims."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Located:
    """A medium where the format itself says that it is.

    `value` is an absolute path, bytes in a file (`inputs.files.member_of`), or an object (`inputs.images.crop_of`).
    """

    value: str
