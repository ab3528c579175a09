"""What the reader of a format gives: a source, whose rows come one after the other, as they are in its files.

What of them can be audited is decided by `inputs.samples`; exports copy all of it.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from audit_plugin.inputs.files import MediaError, unreadable
from audit_plugin.inputs.located import Located

__all__ = ["Located", "Row", "ShardMember", "Source"]

BLOCK = 1 << 20  # bytes that are copied at once


@dataclass(frozen=True, slots=True)
class ShardMember:
    """One member of a tar shard: its name, and where its bytes lie in the file `tar`; `suffix` follows its key."""

    name: str
    tar: str
    start: int
    size: int
    suffix: str

    def read(self) -> bytes:
        """The bytes; raises `MediaError` where the file ends early or is gone."""
        out = io.BytesIO()
        self.copy(out)
        return out.getvalue()

    def copy(self, out: IO[bytes]) -> None:
        """Appends the bytes to a file, as they are."""
        try:
            with open(self.tar, "rb") as file:
                file.seek(self.start)
                left = self.size
                while left:
                    block = file.read(min(BLOCK, left))
                    if not block:
                        raise MediaError("the tar file ends too early")
                    out.write(block)
                    left -= len(block)
        except OSError as error:
            raise unreadable(error) from error


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Attributes:
        cells: column -> value; a medium is `Located`, or a path as text, relative to the source's folder.
        key: the name that the format gives a row where no column does, "" if none.
        problem: why the row cannot be read, "" if it can.
        members: of a tar shard, all of the row's members.
    """

    cells: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    problem: str = ""
    members: tuple[ShardMember, ...] = ()


class Source(Protocol):
    """Rows of one file, or of one folder.

    Attributes:
        path: of the file or folder.
        folder: where relative paths of media begin.
        title: what it was taken for, for people, such as "CSV separated by ;".
        header: the columns; where a format does not list them, those of the rows that were read so far.
        columns: setting -> column, where the format itself says what a column is; empty for plain tables.
        notes: what people should know about the rows that were read so far.
    """

    path: Path
    folder: Path
    title: str
    header: list[str]
    notes: list[str]

    @property
    def columns(self) -> Mapping[str, str]:
        """Setting -> column."""

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:
        """The rows, from the first on.

        Args:
            wanted: columns whose cells are needed; None: all.
            media: columns with media, whose bytes are located instead of read.

        Raises:
            AuditError: the file as a whole cannot be read, or is too large.
        """
