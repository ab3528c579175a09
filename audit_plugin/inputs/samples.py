"""Reads samples from whatever format they are in: one row per sample, or several where it has several captions.

A row that cannot be read becomes a row with a problem, and the others are read. Whatever makes the source as a whole
unusable is an `AuditError`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audit_plugin.arrays import MODALITIES, ROLES, AuditError, Samples, count_text

from .clip_retrieval import is_clip_retrieval, read_clip_retrieval
from .columns import Columns, choose_columns, listing_of, missing_words
from .embeddings import parse_embeddings, with_embeddings
from .paths import Place, local_path, paths_of, real_folder
from .patterns import missing_note
from .readers import Located, ShardSource, Source, open_sources
from .remote import fetched, is_remote
from .rows import ID_COLUMN, Row, RowReader, TornRow, Unusable, brief, grouped, kind_of

KEYS = {"groups": "group", "labels": "label", "roles": "role", "splits": "split"}  # of samples -> their setting
LOST_SHARE, LEAST_LOST = 0.25, 5  # of the rows that cannot be read: beyond both the source was read wrongly


def read_samples(  # noqa: PLR0913, PLR0917 (one per option)
    source: str | Path,
    columns: Mapping[str, str] | None = None,
    group: str | None = None,
    label: str | None = None,
    role: str | None = None,
    split: str | None = None,
    media_root: str | Path | None = None,
    format: str = "",  # noqa: A002 (as the option is called)
    embeddings: str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> Samples:
    """Reads samples, in the order of their rows.

    Args:
        source: a file, a folder or a pattern of files of one of the formats in `readers.READERS`, or the address of one
            on remote storage, such as `s3://bucket/pairs.csv`, which is fetched into the cache first (`inputs.remote`),
            with the media that its rows name below its folder. The column `id` names the samples; without one the
            number of their row does, counted from 0. Rows with the same medium are captions of one sample.
        columns: modality -> column, two or more; None, or too few: columns with the usual names are taken, and
            `Samples.notes` says which. Paths are relative to the folder of the file. A text may be a list of captions.
        group: column whose equal values belong together.
        label: column with a class per row.
        role: column that says which models saw a row, one of `ROLES` or nothing.
        split: column that says train, test or the like.
        media_root: folder in which all media must lie, links followed; a row with a medium elsewhere cannot be used.
            Relative paths that do not lie there are looked for in it. None: anywhere that the user may read.
        format: name of the format, "" to recognize it.
        embeddings: files with your own embeddings (`inputs.embeddings`); their modalities need no column, and a medium
            that one names need not exist.
        progress: called while something is fetched, with stage, steps done and steps in all.

    Raises:
        AuditError: if the source as a whole cannot be used, is too large, or most of it cannot be read; if its format
            or columns are not clear; or if a role is not known.
    """
    root = real_folder(media_root) if media_root is not None else ""
    settings = {"group": group, "label": label, "role": role, "split": split}
    if not is_remote(source):
        return _read(Path(local_path(str(source))), columns or {}, settings, root, format, embeddings)
    with fetched(str(source), progress) as copy:
        try:
            samples = _read(copy.path, columns or {}, settings, root, format, embeddings)
        except AuditError as error:
            raise AuditError(copy.named(str(error))) from None
        return copy.with_media(samples)


def _read(
    path: Path, columns: Mapping[str, str], settings: Mapping[str, str | None], root: str, form: str, embeddings: str
) -> Samples:
    """The samples of a source on this machine; `settings` name the columns of `KEYS`."""
    if not form and is_clip_retrieval(path):
        return with_embeddings(read_clip_retrieval(path, columns, settings), embeddings)
    sources = open_sources(path, form)
    own = frozenset(parse_embeddings(embeddings))
    keys = {key: column for key, name in KEYS.items() if (column := settings[name])}
    chosen = choose_columns(sources, columns, keys, own)
    reader, origins = read_rows(path, sources, chosen)
    _check_roles(path, reader.rows, chosen.keys.get("roles", ""))
    places = [paths_of(each.folder, root) for each in sources]
    samples = _samples(path, reader.rows, chosen, [places[at] for at in origins], _has_ids(sources))
    # whose columns hold other things than media and texts; missing files may be found elsewhere, row by row
    if len(samples) >= LEAST_LOST and sum(map(_is_of_kind, samples.problems.values())) == len(samples):
        reasons = grouped(samples.problems.values())
        raise AuditError(
            f"{path.name}: none of its {len(samples):,} rows can be used: {reasons}; name another column, or correct it"
        )
    files = [_taken(sources, chosen, len(reader.rows)), *filter(None, [missing_note(str(path))])]
    notes = (*files, *chosen.notes, *_notes(sources, reader), *samples.notes)
    named = {**chosen.media, **{KEYS[key]: column for key, column in chosen.keys.items()}}
    samples = replace(samples, source=f"manifest {os.path.abspath(path)}", notes=notes, columns=named)
    return with_embeddings(samples, embeddings)


def _is_of_kind(problem: str) -> bool:
    """Whether a row cannot be used by the kind of its values, and not by the place of its medium."""
    return problem.endswith((", not text", ", not a path")) or "in base64" in problem


def _has_ids(sources: Sequence[Source]) -> bool:
    return any(ID_COLUMN in source.header for source in sources)


# --- rows ----------------------------------------------------------------------------------------------------------


def read_rows(path: Path, sources: Sequence[Source], chosen: Columns) -> tuple[RowReader, list[int]]:
    """(reader with the rows of all sources, of each row the number of its source).

    Raises:
        AuditError: a column is missing, there are no rows, or most of them cannot be read.
    """
    texts = [column for modality, column in chosen.media.items() if MODALITIES[modality].is_text]
    media = [column for modality, column in chosen.media.items() if not MODALITIES[modality].is_text]
    missing = missing_words(sources, next(iter(texts), ""))
    reader = RowReader(path.name, media, texts, tuple(chosen.keys.values()), missing)
    origins: list[int] = []
    shard_columns: dict[str, None] = {}  # each member of a shard adds its own
    for number, source in enumerate(sources):
        is_shard = isinstance(source, ShardSource)
        if not is_shard and len(source.header) > 1:  # known before the rows are read
            reader.check_header(source.header, name=source.path.name)
        for row in source.rows(reader.columns, reader.media):
            if row.problem:
                reader.tear(row.problem, row.key)
            else:
                reader.add({ID_COLUMN: row.key, **row.cells} if row.key else row.cells)
            origins.append(number)
        shard_columns.update(dict.fromkeys(source.header if is_shard else ()))
        if not is_shard or number + 1 == len(sources):
            reader.check_header([*shard_columns] or source.header, listing_of(source), source.path.name)
    _tell_apart(sources, origins, reader.rows)
    if not reader.rows:
        raise AuditError(f"{path.name} has a header but no rows; add one row per sample")
    _check_lost(path, reader.rows)
    return reader, origins


def _tell_apart(sources: Sequence[Source], origins: Sequence[int], rows: list[Row]) -> None:
    """Where shards repeat keys, the name of the shard becomes part of the ids."""
    if not isinstance(sources[0], ShardSource):
        return
    keys = [row.id if isinstance(row, TornRow) else row.get(ID_COLUMN) for row in rows]
    if len(set(keys)) == len(keys):
        return
    for number, (row, key) in enumerate(zip(rows, keys, strict=True)):
        name = f"{sources[origins[number]].path.stem}/{key}"
        rows[number] = replace(row, id=name) if isinstance(row, TornRow) else {**row, ID_COLUMN: name}


def _check_lost(path: Path, rows: Sequence[Row]) -> None:
    """Raises `AuditError` where so many rows cannot be read that the file was read wrongly."""
    reasons = [row.reason for row in rows if isinstance(row, TornRow)]
    most = max(Counter(map(kind_of, reasons)).values(), default=0)  # rows of many kinds are bad, and not misread
    if most >= max(LEAST_LOST, LOST_SHARE * len(rows)):
        raise AuditError(
            f"{path.name}: {len(reasons):,} of {len(rows):,} rows cannot be read: {grouped(reasons)}; correct the "
            "file, or name its format by --format"
        )


def _check_roles(path: Path, rows: Sequence[Row], column: str) -> None:
    for number, row in enumerate(rows if column else (), 1):
        value = key_value(row, column)
        if value and value not in ROLES:
            raise AuditError(
                f"{path.name}: row {number} has {brief(value)} in column {column!r}; a role is one of "
                f"{', '.join(ROLES)}, or nothing"
            )


def _taken(sources: Sequence[Source], chosen: Columns, rows: int) -> str:
    """What the source was taken for, in one sentence."""
    files = f"{len(sources):,} files of " if len(sources) > 1 else ""
    columns = ", ".join(f"{name} from {brief(column, 40)}" for name, column in {**chosen.media, **chosen.keys}.items())
    return f"read as {files}{sources[0].title}: {columns or 'no column'}; {count_text(rows, 'row')}"


def _notes(sources: Sequence[Source], reader: RowReader) -> Iterator[str]:
    yield from dict.fromkeys(note for source in sources for note in source.notes)
    for what, count in reader.counts.items():
        yield f"{what}: {count:,}"


# --- samples -------------------------------------------------------------------------------------------------------


@dataclass
class SampleNames:
    """Names samples row by row: by their ids, or the number of their row, or as a caption of a sample before.

    Rows with the same media are captions of one sample, unless both a medium and a text repeat, which makes a copy.
    """

    source: str
    has_ids: bool
    captions: Counter[str] = field(default_factory=Counter)  # of each sample so far
    unnamed: int = 0  # rows without an id where others have one
    _first: dict[str, tuple[int, Any]] = field(default_factory=dict)  # id -> (its first row, media)
    _of_media: dict[Any, str] = field(default_factory=dict)
    _pairs: set[Any] = field(default_factory=set)

    def name(self, number: int, own: str, media: Any, texts: Sequence[Any]) -> tuple[str, int]:
        """(id, position of its first caption) of a row.

        Args:
            number: of the row, from 0.
            own: its id, "" if none.
            media: what it shows, None if nothing.
            texts: its captions.

        Raises:
            AuditError: another row has the id, and shows something else.
        """
        name = own if self.has_ids else ""
        if self.has_ids and not name:
            self.unnamed += 1
            name = f"row {number + 1}"
            while name in self._first:
                name += "'"
        elif not name:
            name = self._of_media.get(media, "") if media is not None and self._is_new(media, texts) else ""
            name = name or str(number)
            if media is not None:
                self._of_media.setdefault(media, name)
        if name in self._first:
            row, other = self._first[name]
            if other != media or media is None:
                raise AuditError(
                    f"{self.source}: id {brief(name)} stands in rows {row + 1} and {number + 1}, which show different "
                    "things; give every sample an id of its own"
                )
        else:
            self._first[name] = (number, media)
        position = self.captions[name]
        self.captions[name] += max(1, len(texts))
        return name, position

    def _is_new(self, media: Any, texts: Sequence[Any]) -> bool:
        pair = (media, tuple(texts))
        if pair in self._pairs:
            return False
        self._pairs.add(pair)
        return True

    def free(self, wanted: str, number: int) -> str:
        """An id that no row has, for one that cannot be read."""
        name = (
            wanted if wanted and wanted not in self._first else (f"row {number + 1}" if self.has_ids else str(number))
        )
        while name in self._first:
            name += "'"
        self._first[name] = (number, None)
        return name


@dataclass(frozen=True)
class _Entry:
    """A row with its name, the position of its first caption, its media, its captions, and what is wrong with it."""

    name: str
    position: int
    media: Mapping[str, str | None]
    texts: Sequence[Any]
    problem: str


def _samples(path: Path, rows: list[Row], chosen: Columns, places: Sequence[Place], has_ids: bool) -> Samples:
    """The samples of the rows, one row per caption."""
    names = SampleNames(path.name, has_ids)
    text_column = next((column for name, column in chosen.media.items() if MODALITIES[name].is_text), "")
    entries: list[_Entry] = []
    torn: list[int] = []
    for number, (row, place) in enumerate(zip(rows, places, strict=True)):
        if isinstance(row, TornRow):
            torn.append(number)
            entries.append(_Entry(row.id, 0, {}, [None], row.reason))
            continue
        texts = texts_of(row, text_column)
        media, problem = media_of(row, chosen, place)
        name, position = names.name(number, _id_of(row), shown(media), texts)
        entries.append(_Entry(name, position, media, texts, problem))
    for number in torn:  # once all ids are known
        entries[number] = replace(entries[number], name=names.free(entries[number].name, number))
    return _joined(entries, rows, names, chosen)


def shown(media: Mapping[str, str | None]) -> tuple[str | None, ...] | None:
    """What a row shows, by which captions of one sample are known; None if nothing."""
    return tuple(media.values()) if any(media.values()) else None


def _joined(entries: Sequence[_Entry], rows: Sequence[Row], names: SampleNames, chosen: Columns) -> Samples:
    ids: list[str] = []
    captions: list[int] = []
    media: dict[str, list[str | None]] = {modality: [] for modality in chosen.media}
    keys: dict[str, list[str]] = {key: [] for key in chosen.keys}
    problems: dict[int, str] = {}
    text = next((name for name in chosen.media if MODALITIES[name].is_text), "")
    for entry, row in zip(entries, rows, strict=True):
        for at, caption in enumerate(entry.texts):
            problem = entry.problem
            if not problem and isinstance(caption, Unusable | Located | list) and text not in chosen.own:
                problem = f"column {chosen.media[text]!r} holds {_what(caption)}, not text"
            if problem:
                problems[len(ids)] = problem
            ids.append(entry.name)
            captions.append(entry.position + at)
            for key, column in chosen.keys.items():
                keys[key].append(key_value(row, column))
            for modality, values in media.items():
                value = entry.media.get(modality) if modality != text else caption
                value = value if isinstance(value, str) else None
                values.append(None if problem else value)
    by_key: dict[str, Any] = {key: tuple(values) for key, values in keys.items()}
    if "groups" not in by_key and names.has_ids and (groups := _groups_of_media(ids, media)):
        by_key["groups"] = groups
    notes = (f"named by number: {count_text(names.unnamed, 'row')} without an id",) if names.unnamed else ()
    return Samples(
        ids=tuple(ids),
        media={modality: tuple(values) for modality, values in media.items()},
        caption=tuple(captions) if any(captions) else (),
        problems=problems,
        notes=notes,
        **by_key,
    )


def _groups_of_media(ids: Sequence[str], media: Mapping[str, Sequence[str | None]]) -> tuple[str, ...]:
    """The media of rows that have ids of their own and show the same; "" for others; empty where none do.

    Of rows with the same media and the same text only the first belongs to the group: the others are its copies.
    """
    seen = [values for name, values in media.items() if not MODALITIES[name].is_text]
    shown = ["\0".join(value or "" for value in values) for values in zip(*seen, strict=True)] if seen else []
    texts = next((values for name, values in media.items() if MODALITIES[name].is_text), [None] * len(ids))
    first: dict[tuple[str, str | None], str] = {}  # of each pair the id that showed it first
    of_shown: dict[str, set[str]] = {}
    for name, what, text in zip(ids, shown, texts, strict=False):
        if what.strip("\0") and first.setdefault((what, text), name) == name:
            of_shown.setdefault(what, set()).add(name)
    groups = tuple(
        what if name in of_shown.get(what, ()) and len(of_shown[what]) > 1 else ""
        for name, what in zip(ids, shown, strict=False)
    )
    return groups if any(groups) else ()


def texts_of(row: Mapping[str, Any], column: str) -> list[Any]:
    """The captions of a row: those of a list, or its one text; an empty list is one caption that is missing."""
    text = row.get(column) if column else None
    return (text or [None]) if isinstance(text, list) else [text]


def _id_of(row: Mapping[str, Any]) -> str:
    name = row.get(ID_COLUMN)
    return name if isinstance(name, str) else ""


def key_value(row: Row, column: str) -> str:
    """The group, label, role or split of a row: "" where the row is torn or has none."""
    value = "" if isinstance(row, TornRow) else row.get(column)
    return value.strip() if isinstance(value, str) else ""


def media_of(row: Mapping[str, Any], chosen: Columns, place: Place) -> tuple[dict[str, str | None], str]:
    """(value of each modality that is not text, what is wrong with the row); if anything is, all values are None."""
    for column in chosen.keys.values():
        if isinstance(cell := row.get(column), Unusable):
            return {}, f"column {column!r} holds {cell.what}, not text"
    values: dict[str, str | None] = {}
    for modality, column in chosen.media.items():
        if MODALITIES[modality].is_text:
            continue
        cell = row.get(column)
        value, problem = None, ""
        if isinstance(cell, Unusable | list):
            problem = f"holds {_what(cell)}, not a path"
        elif isinstance(cell, Located):
            value, problem = place(cell)
        elif path := (cell or "").strip():
            value, problem = place(path)
        if problem and modality not in chosen.own:
            return {}, f"column {column!r} {problem}"
        values[modality] = value
    return values, ""


def _what(cell: Unusable | Located | list[Any]) -> str:
    return cell.what if isinstance(cell, Unusable) else "a medium" if isinstance(cell, Located) else "list"
