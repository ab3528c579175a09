"""CSV in the dialects that people have: separated by commas, semicolons, tabs or bars, with quotes or without.

The dialect is the one in which the beginning of the file reads best: most rows have as many cells as the header.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.inputs.rows import ID_COLUMN, brief

from .source import Row
from .text_files import START, Lines, encoding_of, first_bytes, opened_lines, plain_name

_IN_QUOTES = re.compile(r'\s*".+"\s*', re.DOTALL)
MOST_TORN = 0.25  # of the rows, beyond which quotes are taken for letters
JUDGED = 1000  # records by which a dialect is judged
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n?')  # the first line, as Excel writes it
_TOKENS = ("image", "caption")  # columns of a file without header, whose lines are `NAME.jpg#0<tab>caption`
_TOKEN = re.compile(r"\S[^\t]*\.(jpe?g|png|webp|gif|bmp)#\d+\t[^\t]*", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_MEDIUM = re.compile(r"\S.*\.(jpe?g|png|webp|gif|bmp|tiff?|wav|mp3|flac|ogg|mp4|webm|mkv|mov)(#\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    r"""How a table is written.

    Attributes:
        delimiter: between cells.
        quotes: `"..."` around cells, in which `""` is a quote (or, with `escapes`, `\"`); without them a quote is a
            letter like any other.
        escapes: a backslash takes the meaning from the character after it.
        blanks: around the delimiter, which belong to no cell.
        skipped: lines before the header, such as `sep=;` or comments behind `#`.
        header: the columns of a file without header; (): it has one.
    """

    delimiter: str
    quotes: bool = True
    escapes: bool = False
    blanks: bool = False
    skipped: int = 0
    header: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """In words."""
        if self.header:
            return "lines of NAME.jpg#NUMBER and a caption"
        how = "" if self.quotes else ", without quotes"
        return f"CSV separated by {DELIMITERS[self.delimiter]}{how}{', with backslashes' if self.escapes else ''}"

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """The records of a table."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE,
            quotechar='"' if self.quotes else None,
            doublequote=not self.escapes,
            escapechar="\\" if self.escapes else None,
            skipinitialspace=self.blanks,
            strict=True,
        )

    def cells(self, record: list[str]) -> list[str]:
        """The cells of a record."""
        return [cell.strip(" ") for cell in record] if self.blanks else record


class CsvSource:
    """The rows of a CSV or TSV file."""

    columns: Mapping[str, str] = {}

    def __init__(self, path: Path, delimiter: str = "") -> None:
        self.path, self.folder = path, path.parent
        self._dialect = dialect_of(path, delimiter)
        self.title = self._dialect.title
        self.notes: list[str] = []
        self.header = self._read_header()

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """The rows; one that cannot be read has a problem, and the next line is read."""
        positions = [(at, name) for at, name in enumerate(self.header) if wanted is None or name in wanted]
        is_header = not self._dialect.header
        with opened_lines(self.path) as lines:
            for line, cells, problem in csv_records(lines, self._dialect):
                if is_header:
                    is_header = not any(cell.strip() for cell in cells)
                elif problem:
                    yield Row(problem=f"line {line} cannot be read ({problem})")
                elif cells:
                    yield self._row(line, _without_empty_end(cells, len(self.header)), positions)

    def _row(self, line: int, cells: list[str], positions: list[tuple[int, str]]) -> Row:
        if self._dialect.header and cells:
            cells[0] = re.sub(r"#\d+$", "", cells[0])
        if len(cells) == len(self.header):
            return Row({name: cells[at] for at, name in positions})
        key = cells[0] if self.header[0] == ID_COLUMN else ""
        return Row(
            key=key,
            problem=f"line {line} has {count_text(len(cells), 'column')} where the header names {len(self.header)}",
        )

    def _read_header(self) -> list[str]:
        if self._dialect.header:
            return list(self._dialect.header)
        with opened_lines(self.path) as lines:
            for line, cells, problem in csv_records(lines, self._dialect):
                if problem:
                    raise AuditError(
                        f"{self.path.name}: the header in line {line} cannot be read ({problem}); correct it"
                    )
                if any(cell.strip() for cell in cells):
                    if media := [cell for cell in cells if _is_value(cell.strip())]:
                        raise AuditError(
                            f"{self.path.name} begins with a sample ({brief(media[0], 40)}) and names no columns; add "
                            "a first line with their names, such as image,caption"
                        )
                    return _without_empty_end(cells, len(cells) - 1)
        raise AuditError(f"{self.path.name} is empty; give one row per sample below a header")


def _is_value(cell: str) -> bool:
    """Whether a cell names a file or an address, as no header does."""
    return bool(_MEDIUM.fullmatch(cell) or _ADDRESS.fullmatch(cell))


def _without_empty_end(cells: list[str], most: int) -> list[str]:
    """The cells without empty ones after `most`: some programs end each line with a delimiter."""
    end = len(cells)
    while end > max(most, 1) and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


def csv_records(lines: Lines, dialect: Dialect) -> Iterator[tuple[int, list[str], str]]:
    """(line number from 1, cells, problem) of each record.

    A quote that is never closed makes only its own line unreadable: reading goes on with the next one.
    """
    for _ in itertools.islice(lines, dialect.skipped):
        lines.next_record()
    with _long_cells():
        while True:
            try:
                for record in dialect.reader(lines):
                    yield lines.number + 1, dialect.cells(record), ""
                    lines.next_record()
                return
            except csv.Error as error:
                yield lines.number + 1, [], str(error)
                lines.only_first()


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    """Cells may be longer than the module's limit, which is one for the whole process."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


# --- the dialect ---------------------------------------------------------------------------------------------------


def dialect_of(path: Path, delimiter: str = "") -> Dialect:
    """The dialect in which the beginning of a file reads best.

    Args:
        path: of the file.
        delimiter: the one that is used; "": it is recognized.

    Raises:
        AuditError: two delimiters read equally well.
    """
    start = first_bytes(path)
    text = start.decode(encoding_of(start), "replace")
    text = text.removeprefix("\ufeff")
    if len(start) == START:
        text = text.rpartition("\n")[0] or text  # the last line is cut off
    if separator := _SEPARATOR.match(text):
        delimiter = delimiter or separator[1]
        if delimiter not in DELIMITERS:
            raise AuditError(f"{path.name} is separated by {delimiter!r}; write it with commas")
        return replace(_best_quoting(text[separator.end() :], delimiter)[1], skipped=1)
    if not delimiter and plain_name(path).endswith((".tsv", ".tab")):
        delimiter = "\t"
    if not delimiter and _are_tokens(text):
        return Dialect("\t", quotes=False, header=_TOKENS)
    best = _best_dialects(text, delimiter)
    comments = _comments_before(text)
    if comments:
        rest = "".join(list(_lines_of(text))[comments:])
        others = _best_dialects(rest, delimiter)
        if max(share for share, _ in others.values()) > max(share for share, _ in best.values()):
            best = {mark: (share, replace(dialect, skipped=comments)) for mark, (share, dialect) in others.items()}
    share = max(share for share, _ in best.values())
    if share == 0:  # one column
        return best[delimiter or ","][1]
    equal = [mark for mark, (other, _) in best.items() if other == share]
    if len(equal) > 1:
        names = [DELIMITERS[mark] for mark in equal]
        raise AuditError(
            f"{path.name} can be read as separated by {' or by '.join(names)}; say which: "
            f"--format csv-{' or csv-'.join(names)}"
        )
    return best[equal[0]][1]


def _best_dialects(text: str, delimiter: str) -> dict[str, tuple[float, Dialect]]:
    """Delimiter -> (share of rows that fit the header, dialect); only of one where it is named."""
    return {mark: _best_quoting(text, mark) for mark in ([delimiter] if delimiter else DELIMITERS)}


def _comments_before(text: str) -> int:
    """How many lines at the beginning start with `#`."""
    return sum(1 for _ in itertools.takewhile(lambda line: line.startswith("#"), _lines_of(text)))


def _lines_of(text: str) -> io.StringIO:
    """The lines of a text, with any of the usual line ends."""
    return io.StringIO(text, newline=None)


def _are_tokens(text: str) -> bool:
    """Whether the lines are `NAME.jpg#0<tab>caption`, as Flickr8k and Flickr30k come."""
    lines = [line.rstrip("\n") for line in itertools.islice(_lines_of(text), JUDGED) if line.strip()]
    are_tokens = [_TOKEN.fullmatch(line) is not None for line in lines]
    return bool(lines) and are_tokens[0] and sum(are_tokens) > 0.9 * len(lines)


def _best_quoting(text: str, delimiter: str) -> tuple[float, Dialect]:
    """(share of rows that fit the header, dialect) of a delimiter: quotes as usual, unless more rows fit otherwise."""
    header = next(_lines_of(text.lstrip()), "")
    has_blanks = 0 < header.count(delimiter) == header.count(f"{delimiter} ")
    plain = Dialect(delimiter, blanks=has_blanks)
    others = [Dialect(delimiter, escapes=True, blanks=has_blanks)] if '\\"' in text else []
    share, dialect = _share_that_fits(text, plain), plain
    if delimiter in "\t|" or share < 1 - MOST_TORN:  # cells are seldom quoted, and a quote may stand for inches
        others.append(Dialect(delimiter, quotes=False, blanks=has_blanks))
    for other in others:
        if (other_share := _share_that_fits(text, other)) > share:
            share, dialect = other_share, other
    return share, dialect


def _share_that_fits(text: str, dialect: Dialect) -> float:
    """The share of the first records that have as many cells as the first one has; 0 where that has one cell.

    Where quotes are letters, a record with a cell in quotes does not fit: they were meant to hold it together.
    """
    columns = fitting = records = 0
    lines = Lines(io.StringIO(text, newline=""), "")
    for _, record, problem in itertools.islice(csv_records(lines, dialect), JUDGED):
        cells = _without_empty_end(record, columns or len(record) - 1)
        if columns:
            records += bool(cells or problem)
            fitting += len(cells) == columns and (dialect.quotes or not any(map(_IN_QUOTES.fullmatch, cells)))
        elif any(cell.strip() for cell in cells) or problem:
            columns = len(cells)
            if columns < 2:
                return 0
    return fitting / records if records else float(columns > 1)
