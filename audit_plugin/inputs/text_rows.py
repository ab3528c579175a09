"""Reads manifests that are text, line by line: CSV, TSV, JSONL, and JSON lists."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from audit_plugin.arrays import AuditError
from audit_plugin.store import open_regular

from .files import first_line
from .rows import ID_COLUMN, MAX_NAMES, RowReader, brief

MAX_LINE = 1 << 24  # characters of one line, and of one record of several lines
MAX_LINES = 20_000_000
MAX_LIST = 1 << 27  # bytes of a JSON list, which is parsed as a whole


def read_text_rows(file: io.BufferedReader, path: Path, reader: RowReader) -> list[str]:
    """Reads the rows of an open CSV, TSV, JSON or JSONL file; its header.

    Raises:
        AuditError: it is not UTF-8, empty, too large, a JSON list that cannot be parsed, or lacks a column.
    """
    is_list = file.peek().removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    lines = Lines(io.TextIOWrapper(file, "utf-8-sig", newline=""), path.name)
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            return _read_csv(lines, "\t" if path.suffix.lower() == ".tsv" else ",", reader)
        header = _read_json_list(path, reader) if is_list else _read_json(lines, reader)
    except UnicodeDecodeError:
        raise AuditError(f"{path.name} is not UTF-8 ({_first_bad_byte(path)}); save it as UTF-8") from None
    reader.check_header(header)
    return header


def _first_bad_byte(path: Path) -> str:
    with open_regular(path) as file:
        start = 0
        for line, data in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            try:
                data.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"byte {start + error.start}, line {line}: 0x{data[error.start]:02x}"
            start += len(data)
    return "its last character is cut off"


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


def _read_csv(lines: Lines, delimiter: str, reader: RowReader) -> list[str]:
    limit = csv.field_size_limit(2**31 - 1)  # cells may be longer than the module's global limit
    header: list[str] = []
    positions: dict[str, int] = {}
    try:
        for line, cells, problem in csv_records(lines, delimiter):
            if problem and header:
                reader.tear(f"line {line} cannot be read ({problem})")
            elif problem:
                raise AuditError(f"{reader.source}: the header in line {line} cannot be read ({problem}); correct it")
            elif not header and any(cell.strip() for cell in cells):
                header = cells
                reader.check_header(header)
                positions = {name: at for at, name in enumerate(header) if name in reader.columns}
            elif not header or not cells:
                continue
            elif len(cells) != len(header):
                name = cells[0] if header[0] == ID_COLUMN else ""
                reader.tear(f"line {line} has {len(cells)} columns where the header names {len(header)}", name)
            else:
                reader.add({name: cells[at] for name, at in positions.items()})
    finally:
        csv.field_size_limit(limit)
    if not header:
        raise AuditError(f"{reader.source} is empty; give one row per sample below a header")
    return header


def csv_records(lines: Lines, delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """(line number from 1, cells, problem) of each record.

    A quote that is never closed makes only its own line unreadable: reading goes on with the next one.
    """
    while True:
        records = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for cells in records:
                yield lines.number + 1, cells, ""
                lines.next_record()
            return
        except csv.Error as error:
            yield lines.number + 1, [], str(error)
            lines.only_first()


def _read_json(lines: Lines, reader: RowReader) -> list[str]:
    """Reads one object per line; the names in them, in their order."""
    header: dict[str, None] = {}
    is_empty = True
    for line in lines:
        lines.next_record()
        if line.strip():
            is_empty = False
            _add_line(reader, header, lines.number, line)
    if is_empty:
        raise AuditError(f"{reader.source} is empty; give one row per sample below a header")
    if not header:
        raise AuditError(
            f"{reader.source}: no line is a JSON object with columns; write one object per line, "
            'such as {"id": "1", "image": "a.png", "text": "a cat"}'
        )
    return list(header)


def _read_json_list(path: Path, reader: RowReader) -> list[str]:
    """Reads a list of objects; the names in them, in their order."""
    with open_regular(path) as file:
        data = file.read(MAX_LIST + 1)
    try:
        if len(data) > MAX_LIST:
            raise ValueError(f"it has more than {MAX_LIST:,} bytes, the limit of a list")
        entries = json.loads(data.decode("utf-8-sig"), object_pairs_hook=json_object)
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise AuditError(
            f"{path.name} starts as a JSON list but cannot be parsed ({_message(error)}); write one JSON object per "
            "line"
        ) from None
    header: dict[str, None] = {}
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, dict):
            _add_object(reader, header, entry)
        else:
            reader.tear(f"entry {number} is not an object")
    return list(header)


def _add_line(reader: RowReader, header: dict[str, None], number: int, line: str) -> None:
    """Adds the row of a line with a JSON object."""
    try:
        cells = json.loads(line, object_pairs_hook=json_object)
    except (ValueError, RecursionError) as error:
        reader.tear(f"line {number} cannot be parsed as JSON ({_message(error)})")
        return
    if isinstance(cells, dict):
        _add_object(reader, header, cells)
    else:
        reader.tear(f"line {number} is not a JSON object")


def _message(error: Exception) -> str:
    return getattr(error, "msg", "") or first_line(error)


def _add_object(reader: RowReader, header: dict[str, None], cells: Mapping[str, object]) -> None:
    for name in cells:
        if len(header) < MAX_NAMES or name in reader.columns:
            header[name] = None
    reader.add(cells)


def json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, as the hook of its pairs.

    Raises:
        ValueError: of two values under one name, nobody knows which one is meant.
    """
    cells: dict[str, Any] = {}
    for name, value in pairs:
        if name in cells:
            raise ValueError(f"{brief(name)} stands in it twice")
        cells[name] = value
    return cells
