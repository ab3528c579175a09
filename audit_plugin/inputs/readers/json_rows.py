"""JSON as people write it: an object per line, a list of objects, or a table of columns as pandas writes it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.files import first_line
from audit_plugin.inputs.names import is_file_name, is_usual
from audit_plugin.inputs.rows import ID_COLUMN, MAX_NAMES, brief

from .folders import is_split
from .source import Row
from .text_files import START, encoding_of, opened_bytes, opened_lines

SPLIT, SPLITS = "split", "JSON lists of the splits"
SENTENCES = "images with sentences (a Karpathy split)"
KARPATHY = {"filename": "image", "sentences": "text", SPLIT: SPLIT}  # their columns -> what they are
PEEKED = 100  # entries by which a document is judged
MAX_DOCUMENT = 1 << 29  # bytes of a JSON document that is parsed as a whole
# Names of a list of objects in an object.
LISTS = ("data", "rows", "samples", "items", "records", "examples", "entries", "results", "annotations", "images")


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
        try:
            with opened_lines(self.path) as lines:
                for line in lines:
                    lines.next_record()
                    if line.strip():
                        is_empty = False
                        yield _row_of(_parsed(line, lines.number), f"line {lines.number}", header, wanted)
        finally:  # also where only the first rows are read
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
        if not self._entries:
            raise AuditError(f"{path.name} holds no rows; give one object per sample")
        if not any(isinstance(entry, dict) for entry in self._entries):
            kind = {"list": "lists", "str": "texts"}.get(type(self._entries[0]).__name__, "values")
            raise AuditError(
                f"{path.name} is a list of {kind} without names; write a list of objects, such as "
                '[{"image": "a.png", "text": "a cat"}]'
            )
        names = (name for entry in self._entries if isinstance(entry, dict) for name in entry)
        self.header = list(dict.fromkeys(names))[:MAX_NAMES]
        if self.title.startswith(SPLITS):
            self.columns = {SPLIT: SPLIT}
        elif self.title == SENTENCES:
            self.columns = {column: name for name, column in KARPATHY.items() if name in self.header}
        self.notes: list[str] = []

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """The rows; an entry that is no object has a problem."""
        for number, entry in enumerate(self._entries, 1):
            yield _row_of(entry, f"entry {number}", {}, wanted)


def is_document(start: bytes) -> bool:
    """Whether JSON that begins so is one document, and not one object per line."""
    text = start.decode(encoding_of(start), "replace").lstrip("\ufeff \t\r\n")
    if text.startswith("["):
        return True
    line, _, rest = text.partition("\n")
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        # an object over several lines, or one that is longer than what was read; else the first line is torn
        return text.startswith("{") and not rest.startswith("{")
    return isinstance(first, dict) and not rest.strip() and _is_table(first)


def is_json_text(start: bytes) -> bool:
    """Whether a text that begins so is JSON, whatever its name says: its first line is an object."""
    text = start.decode(encoding_of(start), "replace").lstrip("\ufeff \t\r\n")
    try:
        return text.startswith("{") and isinstance(json.loads(text.partition("\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


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
        text = data.decode(encoding_of(data[:START])).removeprefix("\ufeff")
        return json.loads(text, object_pairs_hook=json_object)
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
    names = [name for name in document if name in LISTS or is_split(name)]
    if is_coco or any(_is_rows(document[name]) for name in names):
        return True
    if len(document) > 1 and (_are_files(document) or all(isinstance(value, dict) for value in document.values())):
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
    found = (
        (_entries_in_lists(document, name) or _entries_by_key(document, name)) if isinstance(document, dict) else None
    )
    if found is None and isinstance(document, dict) and any(map(is_usual, document)):
        return "a JSON object", [document]
    if found is None:
        raise AuditError(
            f"{name} is a JSON document without rows that are known; write a list of objects, one object per line, or "
            "columns"
        )
    return found


def _entries_in_lists(document: Mapping[str, Any], name: str) -> tuple[str, list[Any]] | None:
    """The rows of an object that holds lists of them; None where it holds none."""
    if set(document) >= {"columns", "data"} and isinstance(document["columns"], list):  # pandas, orient="split"
        names = [str(column) for column in document["columns"]]
        rows = [dict(zip(names, row, strict=False)) if isinstance(row, list) else row for row in document["data"]]
        return "a JSON table of pandas (split)", rows
    lists = [key for key, value in document.items() if _is_rows(value)]
    if len(lists) > 1 and all(map(is_split, lists)):
        rows = [{SPLIT: split, **row} for split in lists for row in document[split] if isinstance(row, dict)]
        return f"{SPLITS} {', '.join(lists)}", rows
    if len(lists) > 1:
        names_of_lists = " and ".join(map(repr, lists[:4]))
        raise AuditError(
            f"{name} holds lists of objects under {names_of_lists}; write the one with the samples into its own file"
        )
    if not lists:
        return None
    entries = document[lists[0]]
    if all(isinstance(entry, dict) and KARPATHY.keys() - {SPLIT} <= entry.keys() for entry in entries):
        return SENTENCES, [_joined_path(entry) for entry in entries]
    return f"a JSON list under {lists[0]!r}", entries


def _entries_by_key(document: Mapping[str, Any], name: str) -> tuple[str, list[Any]] | None:
    """The rows of an object that has an entry per row or per column; None where it has neither."""
    if _are_files(document):
        return "a JSON object with an entry per file", [_row_of_file(*item) for item in document.items()]
    if _are_rows_by_key(document, name):
        return "a JSON object with an entry per row", [_row_of_key(*item) for item in document.items()]
    return ("JSON columns", _rows_of_columns(document)) if _is_table(document) else None


def _are_files(document: Mapping[str, Any]) -> bool:
    """Whether the names are those of files, and the values captions, lists of captions, or the other columns."""
    values = list(document.values())
    kinds = [{type(value) for value in values} == {kind} for kind in (str, list, dict)]
    return bool(values) and any(kinds) and all(is_file_name(name) for name in document)


def _row_of_file(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"image": name, "caption": value}
    return (
        value
        if any(isinstance(cell, str) and is_file_name(cell) for cell in value.values())
        else {"image": name, **value}
    )


def _are_rows_by_key(document: Mapping[str, Any], name: str) -> bool:
    """Whether an object of objects has one per row (`orient="index"` of pandas), and not one per column.

    Raises:
        AuditError: nobody knows which.
    """
    values = list(document.values())
    if not values or not all(isinstance(value, dict) and value for value in values):
        return False
    inner = dict.fromkeys(key for value in values[:PEEKED] for key in value)
    if any(map(is_usual, document)):
        return False
    if any(map(is_usual, inner)) or all(key.isdigit() for key in document):
        return True
    if all(key.isdigit() for key in inner):
        return False
    raise AuditError(
        f"{name} is a JSON object of objects, which may be rows or columns; write a list of objects, in pandas by "
        'to_json(..., orient="records")'
    )


def _row_of_key(key: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of a key, which is its id unless it is only a number."""
    return value if key.isdigit() or ID_COLUMN in value else {ID_COLUMN: key, **value}


def _joined_path(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An image of a Karpathy split, whose path is in two parts."""
    folder = entry.get("filepath")
    path = f"{folder}/{entry['filename']}" if isinstance(folder, str) and folder else entry["filename"]
    return {name: value for name, value in entry.items() if name != "filepath"} | {"filename": path}


def _rows_of_columns(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`{"a": {"0": 1, "1": 2}}` or `{"a": [1, 2]}` as `[{"a": 1}, {"a": 2}]`; keys in the order of the first column."""
    first = next(iter(columns.values()))
    if len({type(values) for values in columns.values()}) > 1:
        raise AuditError("columns of JSON are lists and objects at once; write a list of objects")
    if isinstance(first, list):
        return [{name: values[at] for name, values in columns.items()} for at in range(len(first))]
    return [{name: values.get(key) for name, values in columns.items()} for key in first]


def _parsed(line: str, number: int) -> Any:
    """The value of a line, or the reason (a `ValueError`) why it has none."""
    try:
        return json.loads(line.rstrip().removesuffix(","), object_pairs_hook=json_object)
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
