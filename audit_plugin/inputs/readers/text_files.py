"""Opens text files for the readers of CSV and JSON: compressed ones, byte order marks, and line by line."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TextIO

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.files import first_line
from audit_plugin.inputs.rows import brief
from audit_plugin.store import open_regular

MAX_LINE = 1 << 24  # characters of one line, and of one record of several lines
MAX_LINES = 20_000_000
MAX_UNPACKED = 1 << 36  # bytes that a compressed file may stand for
START = 1 << 16  # bytes by which a format is recognized
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
LEAST_NULLS = 0.05  # of the bytes of a text in UTF-16, whose blanks, digits, delimiters and line ends have one each


def compression_of(path: Path) -> str:
    """`gzip`, `zstd` or `bz2` by the ending of a file, "" for none."""
    return COMPRESSIONS.get(path.suffix.lower(), "")


def plain_name(path: Path) -> str:
    """The name of a file in small letters, without the ending of its compression."""
    return path.name.lower().removesuffix(path.suffix.lower()) if compression_of(path) else path.name.lower()


@contextlib.contextmanager
def opened_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a regular file, unpacked where its ending names a compression.

    Raises:
        AuditError: it does not exist, is no regular file, cannot be read, or cannot be unpacked.
    """
    try:
        with open_regular(path) as file:
            packed = compression_of(path)
            yield io.BufferedReader(_Unpacked(file, packed)) if packed else file
    except FileNotFoundError:
        raise AuditError(f"manifest {str(path)!r} does not exist; check its path") from None
    except (OSError, ValueError) as error:
        if isinstance(error, AuditError | UnicodeDecodeError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else "") or first_line(error)
        raise AuditError(f"manifest {brief(str(path), 300)} cannot be read ({reason}); check the file") from error


class _Unpacked(io.RawIOBase):
    """What a compressed file stands for, as a file that is read forward."""

    def __init__(self, file: IO[bytes], compression: str) -> None:
        import pyarrow as pa

        self._stream: Any = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression)
        self._left = MAX_UNPACKED

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(min(len(buffer), 1 << 20))
        except OSError as error:
            raise OSError(f"it is cut off or damaged: {first_line(error)}") from error
        self._left -= len(data)
        if self._left < 0:
            raise OSError(f"unpacked, it has more than {MAX_UNPACKED:,} bytes, the limit")
        buffer[: len(data)] = data
        return len(data)


def first_bytes(path: Path) -> bytes:
    """The beginning of a file, unpacked."""
    with opened_bytes(path) as file:
        return file.read(START)


@contextlib.contextmanager
def opened_lines(path: Path) -> Iterator[Lines]:
    """The lines of a text file in UTF-8, UTF-16 or UTF-32.

    Raises:
        AuditError: as `opened_bytes`, and for text in another encoding.
    """
    encoding = encoding_of(first_bytes(path))
    try:
        with opened_bytes(path) as file, io.TextIOWrapper(file, encoding, newline="") as text:
            yield Lines(text, path.name)
    except UnicodeDecodeError:
        where, remedy = _first_bad_byte(path)
        raise AuditError(f"{path.name} is not UTF-8 ({where}); save it as UTF-8{remedy}") from None


def encoding_of(start: bytes) -> str:
    """The encoding of a text by its byte order mark, or by null bytes as UTF-16 has them; else UTF-8."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return encoding
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) > LEAST_NULLS * len(start) and min(even, odd) == 0:
        return "utf-16-be" if even else "utf-16-le"
    return "utf-8-sig"


def _first_bad_byte(path: Path) -> tuple[str, str]:
    """(the first byte that is not UTF-8, how the file is converted where its encoding can be guessed)."""
    with opened_bytes(path) as file:
        start = 0
        for line, data in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            try:
                data.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = data[error.start]
                where = f"byte {start + error.start}, line {line}: 0x{byte:02x}"
                if not _is_western(data):
                    return where, ""
                return f"{where}, perhaps Windows-1252", f": iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8.csv"
            start += len(data)
    return "its last character is cut off", ""


def _is_western(line: bytes) -> bool:
    """Whether a line reads as text in Windows-1252: accented letters, seldom more than two of them in a row."""
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", line)]
    try:
        return max(runs) < 4 and all(letter.isprintable() or letter.isspace() for letter in line.decode("cp1252"))
    except UnicodeDecodeError:
        return False


class Lines:
    """The lines of a text file, of which those of the current record can be read again."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file = file
        self._name = name
        self._again: deque[str] = deque()
        self._record: list[str] = []
        self._size = 0  # characters of the record
        self.number = 0  # of lines before the record

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        # universal line ends, not str.splitlines, which also splits at separators that captions may contain
        line = self._again.popleft() if self._again else self._file.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        if len(line) > MAX_LINE:
            raise AuditError(
                f"{self._name}: line {self.number + len(self._record) + 1} has more than {MAX_LINE:,} characters, the "
                "limit; write one sample per line"
            )
        self._record.append(line)
        self._size += len(line)
        if self._size > MAX_LINE:
            raise csv.Error("a quote is never closed")
        return line

    def next_record(self) -> None:
        """The record ends here."""
        self.number += len(self._record)
        if self.number > MAX_LINES:
            raise AuditError(f"{self._name} has more than {MAX_LINES:,} lines, the limit; audit it in parts")
        self._record, self._size = [], 0

    def only_first(self) -> None:
        """The record was only its first line; the others are read again."""
        self._again.extendleft(reversed(self._record[1:]))
        del self._record[1:]
        self.next_record()
