"""Tables whose media lie in a folder beside them, as in Flickr8k, whose `captions.txt` names those in `Images`."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from audit_plugin.arrays import MODALITIES, AuditError
from audit_plugin.inputs.paths import MAX_PATH, as_written
from audit_plugin.inputs.rows import brief

from .arrow_tables import TableSource
from .csv_table import CsvSource
from .folders import folders_in, is_hidden
from .json_rows import JsonDocumentSource, JsonLinesSource
from .source import Source

PEEKED = 20  # rows by which it is known where media lie
MOST_TEXTS = 20  # .txt files in a folder, beyond which they are texts of samples and no table
_TABLES = (CsvSource, JsonLinesSource, JsonDocumentSource, TableSource)
_ENDINGS = tuple(f".{suffix}" for kind in MODALITIES.values() if not kind.is_text for suffix in kind.suffixes)
_ELSEWHERE = re.compile(r"[/\\~]|[a-zA-Z][a-zA-Z0-9+.-]*:|(.*[/\\])?\.\.([/\\]|$)")  # begins so: no path below a folder


def begin_in_media_folders(sources: Sequence[Source]) -> None:
    """Lets the paths of each table whose media lie in exactly one folder beside it begin there.

    The title of the table says so. Paths that begin beside the table, as is usual, come first.

    Raises:
        AuditError: they lie in several folders.
    """
    plain: set[Path] = set()  # folders with a table whose paths begin in it, as those of the other tables do then
    for source in sources:
        if not isinstance(source, _TABLES) or source.folder in plain:
            continue
        name = _media_folder(source, _named_media(source))
        if not name:
            plain.add(source.folder)
            continue
        source.folder = source.folder / name
        source.title = f"{source.title}, media found in {name}/"


def text_table_in(folder: Path) -> list[Path]:
    """The one .txt file of a folder that is a table of media which are there; none where there are several."""
    with os.scandir(folder) as entries:
        texts = (e.name for e in entries if e.name.lower().endswith(".txt") and e.is_file() and not is_hidden(e.name))
        names = sorted(itertools.islice(texts, MOST_TEXTS + 1))
    if len(names) > MOST_TEXTS:
        return []
    tables = [folder / name for name in names if _is_table(folder / name)]
    return tables if len(tables) == 1 else []


def _is_table(path: Path) -> bool:
    try:
        source = CsvSource(path)
        media = _named_media(source) if len(source.header) > 1 else []
        return _any_in(path.parent, media) or any(_any_in(place, media) for place in folders_in(path.parent))
    except AuditError:
        return False


def _media_folder(source: Source, media: Sequence[str]) -> str:
    """The folder beside a table that holds its media; "" where they lie beside the table, or nowhere."""
    if not media or _any_in(source.folder, media):
        return ""
    holding = [place.name for place in folders_in(source.folder) if _any_in(place, media)]
    if len(holding) > 1:
        raise AuditError(
            f"the media that {source.path.name} names ({brief(media[0], 40)}) lie in {' and in '.join(holding[:5])}; "
            f"write their paths from the folder of the table, such as {holding[0]}/{brief(media[0], 40)[1:-1]}"
        )
    return holding[0] if holding else ""


def _named_media(source: Source) -> list[str]:
    """The relative paths of media in the first rows of a table; none where the rows cannot be read."""
    wanted = None
    if isinstance(source, TableSource):  # the bytes of media are not read for this
        wanted = [field.name for field in source.schema if str(field.type) in ("string", "large_string")]
    with contextlib.suppress(AuditError):
        rows = list(itertools.islice(source.rows(wanted), PEEKED))
        return [cell.strip() for row in rows for cell in row.cells.values() if _is_medium(cell)]
    return []


def _is_medium(cell: object) -> bool:
    if not isinstance(cell, str) or len(cell) > MAX_PATH or "\0" in cell:
        return False
    path = cell.strip()
    return path.lower().endswith(_ENDINGS) and not _ELSEWHERE.match(path)


def _any_in(folder: Path, media: Iterable[str]) -> bool:
    return any(os.path.lexists(as_written(os.path.join(folder, name))) for name in media)
