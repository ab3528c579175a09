"""The rows of a manifest while they are read: only the cells that are wanted, each one usable or with a reason why not.

Manifests come from anywhere. The limits are far beyond real sets; they keep a hostile file from filling the memory.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit_plugin.arrays import AuditError, count_text

from .located import Located

ID_COLUMN = "id"
MAX_ROWS = 5_000_000
MAX_CHARACTERS = 1 << 31  # of all cells that are read
MAX_TEXT = 1 << 20  # characters of one cell
MAX_ID = 1000  # characters
MAX_CAPTIONS = 1000  # of one sample
MAX_PRINTED = 1 << 16  # characters of a list or an object that Python printed
MAX_NAMES = 10_000  # of fields, of all JSON objects together
LISTED = 20  # columns that a message names
# What programs write for a text that is not there; and what of it people call classes, such as that without defects.
MISSING = frozenset(("nan", "NaN", "None", "null", "NULL", "N/A", "n/a", "<NA>", "#N/A"))
CLASS_WORDS = frozenset(("None", "N/A", "n/a"))
# Objects that are read as texts: turns of conversations, and COCO's captions as Karpathy splits have them.
READ_OBJECTS = ({"from", "value"}, {"role", "content"}, {"user", "assistant"}, {"raw"})
HUMAN = ("human", "user", "system")  # whose turns of a conversation describe no medium
# One text of a printed list, with the separator after it.
_PRINTED = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?:\s*,\s*|\s+|(?=\]))""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TornRow:
    """A row of a manifest that cannot be read, with the id that it seems to have, "" if none."""

    reason: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A cell that cannot be used: what it is, such as "list" or "1,500,000 characters"."""

    what: str


Row = Mapping[str, Any] | TornRow  # cells by column


class RowReader:
    """Collects the rows of one manifest, of which it keeps the cells of the named columns.

    Args:
        source: name of the manifest, for messages.
        media: columns with paths.
        texts: columns with texts, or lists of texts.
        keys: other columns, whose values are compared as text.
        missing: texts that stand for a missing one.
    """

    def __init__(
        self,
        source: str,
        media: Sequence[str],
        texts: Sequence[str],
        keys: Sequence[str] = (),
        missing: frozenset[str] = MISSING,
    ) -> None:
        self.source, self._missing = source, missing
        self.media, self.texts, self._named = frozenset(media), frozenset(texts), (*media, *texts, *keys)
        self.columns = frozenset({*self._named, ID_COLUMN})
        self.rows: list[Row] = []
        self.counts: Counter[str] = Counter()  # of what was not taken as it is written, for notes
        self._characters = 0

    def check_header(self, header: Sequence[str], listing: str = "", name: str = "") -> None:
        """Raises `AuditError` for a column that the header does not have, or has twice.

        Args:
            header: of a file.
            listing: what the message names in place of the header.
            name: of the file.
        """
        source = name or self.source
        for column in self._named:
            if (count := header.count(column)) > 1:
                raise AuditError(f"{source} has several columns named {column!r}; rename all but one")
            if count == 1:
                continue
            by_folded = {each.strip().casefold(): each for each in header[:MAX_NAMES] if len(each) <= MAX_ID}
            similar = difflib.get_close_matches(column.strip().casefold(), by_folded, n=1)
            hint = f"did you mean {by_folded[similar[0]]!r}? " if similar else ""
            names = listing or ", ".join(brief(name, 40) for name in header[:LISTED]) or "none"
            more = f" and {len(header) - LISTED:,} more" if len(header) > LISTED and not listing else ""
            is_nested = column.split(".")[0] in header
            nested = "; fields of its objects are no columns, unless written so (in pandas: json_normalize)"
            raise AuditError(
                f"{source} has no column {column!r}; {hint}its columns are {names}{more}{nested if is_nested else ''}"
            )

    def add(self, cells: Mapping[str, object]) -> None:
        """One more row, of which the cells of other columns are dropped.

        Raises:
            AuditError: the manifest is too large.
        """
        self.add_usable({name: self.usable(name, cells[name]) for name in self.columns if name in cells})

    def add_usable(self, row: Mapping[str, Any]) -> None:
        """One more row, of cells that `usable` returned."""
        name = row.get(ID_COLUMN) or ""
        if isinstance(name, Unusable) or len(name) > MAX_ID:
            what = name.what if isinstance(name, Unusable) else f"{len(name):,} characters"
            self.tear(f"its {ID_COLUMN!r} holds {what}; the limit is {MAX_ID:,} characters")
        else:
            self._append(row)

    def tear(self, reason: str, name: str = "") -> None:
        """One more row, which cannot be read."""
        self._append(TornRow(reason, name if len(name) <= MAX_ID else ""))

    def usable(self, column: str, cell: object) -> Any:
        """The cell as text, None, a list of these for a column of texts, a `Located` as it is, or `Unusable`.

        Raises:
            AuditError: the manifest is too large.
        """
        if isinstance(cell, Located):
            return cell
        if column in self.texts:
            return self._caption(cell)
        if column in self.media:
            return self._medium(cell)
        try:
            return self._text(str(cell) if isinstance(cell, list | tuple | dict | bytes) else cell)
        except RecursionError:
            return Unusable("values nested too deeply")

    def _caption(self, cell: object) -> Any:
        if isinstance(cell, str) and cell.startswith(("[", "{")):
            if (texts := listed_texts(cell)) is not None:
                self.counts["lists written as text"] += 1
                cell = texts
            elif isinstance(written_value(cell), dict):
                self.counts["captions that are objects of JSON, read as they are written"] += 1
        if isinstance(cell, list | tuple):
            if (turns := said_in(cell)) is not None:
                self.counts["conversations"] += 1
                return self._text(turns or None)
            if len(cell) > MAX_CAPTIONS:
                return Unusable(f"a list of {len(cell):,} texts, the limit is {MAX_CAPTIONS:,}")
            return [self._one_caption(text) for text in cell]
        return self._one_caption(cell)

    def _one_caption(self, cell: object) -> str | Unusable | None:
        text = self._text(cell["raw"] if isinstance(cell, dict) and isinstance(cell.get("raw"), str) else cell)
        word = text.strip() if isinstance(text, str) else ""
        if word in self._missing:
            self.counts["captions that say nothing (such as nan)"] += 1
            return None
        if word in MISSING:
            self.counts[f"rows of a class called {word!r} (where a row has none, leave its class empty)"] += 1
        return text

    def _medium(self, cell: object) -> Any:
        if isinstance(cell, str) and cell.startswith(("[", "{")):
            written = listed_texts(cell) or written_value(cell)
            cell = written if isinstance(written, list | dict) else cell
        if isinstance(cell, dict) and isinstance(cell.get("path"), str) and cell.get("bytes") is None:
            cell = cell["path"]
        if isinstance(cell, list | tuple):
            if len(cell) == 1:
                return self._medium(cell[0])
            return Unusable(f"a list of {len(cell):,} values") if cell else None
        return self._text(cell)

    def check_count(self, count: int) -> None:
        """Raises `AuditError` for more rows than a manifest may have."""
        if count > MAX_ROWS:
            raise AuditError(f"{self.source} has more than {MAX_ROWS:,} rows, the limit; audit it in parts")

    def _text(self, cell: object) -> str | Unusable | None:
        if isinstance(cell, list | tuple | dict | bytes):
            return Unusable(what_of_fields(cell) if isinstance(cell, dict) else type(cell).__name__)
        text = cell if isinstance(cell, Unusable) else as_text(cell)
        if text is None or isinstance(text, Unusable):
            return text
        if len(text) > MAX_TEXT:
            return Unusable(f"{len(text):,} characters, the limit is {MAX_TEXT:,}")
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise AuditError(
                f"{self.source} holds more than {MAX_CHARACTERS:,} characters in the columns that are read, the limit; "
                "audit it in parts"
            )
        return text

    def _append(self, row: Row) -> None:
        self.check_count(len(self.rows) + 1)
        self.rows.append(row)


def what_of_fields(names: Iterable[object]) -> str:
    """What an object is, for messages."""
    listed = [brief(name, 30) for name in names]
    return f"an object with {', '.join(listed[:4])}{' and others' if len(listed) > 4 else ''}"


def listed_texts(cell: str) -> list[Any] | None:
    """The texts, or the turns of a conversation, of a list that JSON, Python or NumPy wrote as text; else None."""
    if not cell.startswith("["):
        return None
    texts = written_value(cell)
    is_list = isinstance(texts, list) and all(text is None or isinstance(text, str) for text in texts)
    is_read = is_list or (isinstance(texts, list) and said_in(texts) is not None)
    return texts if is_read and texts else None


def written_value(cell: str) -> Any:
    """The list or object that JSON or Python wrote as text; None where it is none."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        pass
    if (texts := _printed_texts(cell)) is not None:  # first, since Python joins the texts that NumPy prints
        return texts
    try:
        return ast.literal_eval(cell) if len(cell) <= MAX_PRINTED and cell[-1:] in "]}" else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _printed_texts(cell: str) -> list[str] | None:
    """The texts of `['a', "b"]` or, as NumPy prints them, `['a' 'b']`; None for anything else."""
    texts, at = [], 1
    if not cell.startswith("["):
        return None
    while at < len(cell) and cell[at] != "]":
        match = _PRINTED.match(cell, at)
        if match is None:
            return None
        try:
            texts.append(ast.literal_eval(match[1]))
        except (ValueError, SyntaxError):
            return None
        at = match.end()
    return texts if cell[at:].strip() == "]" else None


def said_in(turns: Sequence[Any]) -> str | None:
    """What the model says in a conversation, None if it is none.

    Turns are LLaVA's `from` and `value`, `role` and `content` (a text, or parts with a `text`), or pairs of `user` and
    `assistant`.
    """
    said = []
    for turn in turns:
        if not isinstance(turn, dict):
            return None
        if isinstance(turn.get("user"), str) and isinstance(turn.get("assistant"), str):
            said.append(turn["assistant"].strip())
            continue
        speaker, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        if isinstance(text, list) and all(isinstance(part, dict) for part in text):
            text = "\n".join(part["text"] for part in text if isinstance(part.get("text"), str))
        if not isinstance(speaker, str) or not isinstance(text, str):
            return None
        if speaker.casefold() not in HUMAN:
            said.append(text.strip())
    return "\n".join(said) if turns else None


def as_text(cell: object) -> str | None:
    """A cell as text that UTF-8 can hold; None where it is missing."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    text = str(cell)
    if text.isascii():
        return text
    # JSON may carry lone surrogates (half an emoji), which no UTF-8 file can store.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def brief(value: object, most: int = 80) -> str:
    """`repr` of a value, cut: for messages about values from a file."""
    text = repr(value[:most] if isinstance(value, str) else value)
    return text if len(text) <= most + 2 and (not isinstance(value, str) or len(value) <= most) else f"{text[:most]}…"


def grouped(reasons: Iterable[str], most: int = 3) -> str:
    """Reasons with their counts, those that differ by numbers and names only taken together."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for reason in reasons:
        kind = kind_of(reason)
        first.setdefault(kind, reason)
        counts[kind] += 1
    parts = [
        f"{count_text(count, 'time')} such as {brief(first[kind], 160)}" for kind, count in counts.most_common(most)
    ]
    more = len(counts) - most
    return "; ".join(parts) + (f"; {count_text(more, 'other reason')}" if more > 0 else "")


def kind_of(reason: str) -> str:
    """A reason without its numbers and names."""
    return re.sub(r"-?\d+(?:\.\d+)?|'[^']*'", "#", reason)
