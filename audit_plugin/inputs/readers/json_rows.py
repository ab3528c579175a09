"""JSON as people write it: an object per line, a list of objects, or a table of columns as pandas writes it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.files import first_line
from audit_plugin.inputs.rows import MAX_NAMES, brief

from .source import Row
from .text_files import opened_bytes, opened_lines

MAX_DOCUMENT = 1 << 29  # bytes of a JSON document that is parsed as a whole
LISTS = ("data", "rows", "samples", "items", "records", "examples", "train")  # names of a list of objects in an object


class JsonLinesSource:
    """The objects of a JSONL file, one per line."""

    title = "JSON Lines"
    columns: Mapping[str, str] = {}

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent
        self.header: list[str] = []
        self.notes: list[str] = []

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """The rows; a line that cannot be parsed has a problem."""
        header = dict.fromkeys(self.header)
        is_empty = True
        with opened_lines(self.path) as lines:
            for line in lines:
                lines.next_record()
                if line.strip():
                    is_empty = False
                    yield _row_of(_parsed(line, lines.number), f"line {lines.number}", header, wanted)
        self.header = list(header)
        if is_empty:
            raise AuditError(f"{self.path.name} is empty; give one row per sample below a header")
        if not header:
            raise AuditError(
                f"{self.path.name}: no line is a JSON object with columns; write one object per line, "
                'such as {"id": "1", "image": "a.png", "text": "a cat"}'
            )


class JsonDocumentSource:
    """The objects in a JSON document: a list, a list in an object, or columns of equal length."""

    columns: Mapping[str, str] = {}

    def __init__(self, path: Path, document: Any) -> None:
        self.path, self.folder = path, path.parent
        self.title, self._entries = _entries_of(document, path.name)
        names = (name for entry in self._entries if isinstance(entry, dict) for name in entry)
        self.header = list(dict.fromkeys(names))[:MAX_NAMES]
        self.notes: list[str] = []

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """The rows; an entry that is no object has a problem."""
        for number, entry in enumerate(self._entries, 1):
            yield _row_of(entry, f"entry {number}", {}, wanted)


def is_document(start: bytes) -> bool:
    """Whether JSON that begins so is one document, and not one object per line."""
    text = start.decode("utf-8-sig", "replace").lstrip()
    if text.startswith("["):
        return True
    line, _, rest = text.partition("\n")
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        # an object over several lines, or one that is longer than what was read; else the first line is torn
        return text.startswith("{") and not rest.startswith("{")
    return isinstance(first, dict) and not rest.strip() and _is_table(first)


def read_document(path: Path) -> Any:
    """The JSON document in a file.

    Raises:
        AuditError: it cannot be parsed, or is too large.
    """
    with opened_bytes(path) as file:
        data = file.read(MAX_DOCUMENT + 1)
    try:
        if len(data) > MAX_DOCUMENT:
            raise ValueError(f"it has more than {MAX_DOCUMENT:,} bytes, the limit of a document")
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=json_object)
    except UnicodeDecodeError as error:
        raise AuditError(f"{path.name} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        what = "a list" if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") else "an object"
        raise AuditError(
            f"{path.name} starts as a JSON {what.split()[1]} but cannot be parsed ({_message(error)}); write one JSON "
            "object per line"
        ) from None


def _is_table(document: Mapping[str, Any]) -> bool:
    """Whether an object is a table, and not one row of it."""
    is_coco = all(isinstance(document.get(name), list) for name in ("images", "annotations"))
    if is_coco or any(_is_rows(document.get(name)) for name in (*LISTS, "images")):
        return True
    if isinstance(document.get("columns"), list) and isinstance(document.get("data"), list):
        return True
    values = list(document.values())
    are_columns = len(values) > 1 and all(isinstance(value, dict | list) and value for value in values)
    has_rows_in_lists = any(isinstance(value, list) and isinstance(value[0], dict) for value in values if value)
    return are_columns and not has_rows_in_lists and len({len(value) for value in values}) == 1


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value[:10])


def _entries_of(document: Any, name: str) -> tuple[str, list[Any]]:
    """(what it is, the rows) of a document."""
    if isinstance(document, list):
        return "a JSON list", document
    if isinstance(document, dict):
        if set(document) >= {"columns", "data"} and isinstance(document["columns"], list):  # pandas, orient="split"
            names = [str(column) for column in document["columns"]]
            return "a JSON table of pandas (split)", [
                dict(zip(names, cells, strict=False)) if isinstance(cells, list) else cells
                for cells in document["data"]
            ]
        lists = [name for name in LISTS if _is_rows(document.get(name))]
        if len(lists) == 1:
            return f"a JSON list under {lists[0]!r}", document[lists[0]]
        if _is_table(document):
            return "JSON columns", _rows_of_columns(document)
    raise AuditError(
        f"{name} is a JSON document without rows that are known; write a list of objects, one object per line, or "
        "columns"
    )


def _rows_of_columns(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`{"a": {"0": 1, "1": 2}}` or `{"a": [1, 2]}` as `[{"a": 1}, {"a": 2}]`; keys in the order of the first column."""
    first = next(iter(columns.values()))
    if isinstance(first, list):
        return [{name: values[at] for name, values in columns.items()} for at in range(len(first))]
    return [{name: values.get(key) for name, values in columns.items()} for key in first]


def _parsed(line: str, number: int) -> Any:
    """The value of a line, or the reason (a `ValueError`) why it has none."""
    try:
        return json.loads(line, object_pairs_hook=json_object)
    except (ValueError, RecursionError) as error:
        return ValueError(f"line {number} cannot be parsed as JSON ({_message(error)})")


def _row_of(entry: Any, what: str, header: dict[str, None], wanted: Collection[str] | None) -> Row:
    """The row of an object, whose names are added to the header."""
    if isinstance(entry, ValueError):
        return Row(problem=str(entry))
    if not isinstance(entry, dict):
        is_line = what.startswith("line")
        return Row(problem=f"{what} is not {'a JSON' if is_line else 'an'} object")
    for name in entry:
        if len(header) < MAX_NAMES or (wanted is not None and name in wanted):
            header[name] = None
    return Row(entry if wanted is None else {name: entry[name] for name in wanted if name in entry})


def _message(error: Exception) -> str:
    return getattr(error, "msg", "") or first_line(error)


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
