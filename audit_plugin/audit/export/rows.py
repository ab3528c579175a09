"""The audited rows with their contents, one by one: from a manifest, or from samples that a program holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from audit_plugin.arrays import MODALITIES, AuditError, Samples
from audit_plugin.inputs.columns import Columns, known_header, missing_words
from audit_plugin.inputs.formats.values import BOX_SEPARATOR, Layout, Medium
from audit_plugin.inputs.paths import Place, local_path, paths_of, real_folder
from audit_plugin.inputs.readers import (
    CocoSource,
    CsvSource,
    Row,
    ShardMember,
    ShardSource,
    Source,
    TableSource,
    open_sources,
)
from audit_plugin.inputs.remote import copied, is_remote, name_of
from audit_plugin.inputs.rows import ID_COLUMN, RowReader, as_text
from audit_plugin.inputs.samples import SampleNames, media_of, read_samples, shown, texts_of

ANNOTATIONS = ("annotations", "Annotations")  # folders of COCO's files


@dataclass(frozen=True, slots=True)
class AuditedRow:
    """One sample with all of its captions.

    Attributes:
        ids: names that the table of scores may have for it; empty where the row cannot be read.
        media: modality -> where its bytes are; without what is missing.
        texts: the captions; one that is None where there is none.
        listed: the captions are a list.
        fields: the other columns.
        members: of a sample in a tar shard.
        box: of an object in its image, () for a whole image.
        problem: why the row cannot be exported.
        first: position of its first caption among those of the sample.
    """

    ids: tuple[str, ...]
    media: Mapping[str, Medium] = field(default_factory=dict)
    texts: tuple[str | None, ...] = (None,)
    listed: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[ShardMember, ...] = ()
    box: tuple[float, ...] = ()
    problem: str = ""
    first: int = 0


class RowSource(Protocol):
    """Where the audited rows come from."""

    name: str
    is_shards: bool

    def layout(self, folder: Path, needs_columns: bool, listed: bool) -> Layout:
        """The columns; all of them where the format needs them before the first row."""

    def rows(self) -> Iterator[AuditedRow]:
        """The rows, in the order of the table of scores."""


class ManifestSource:
    """The rows of a manifest, in whatever format it is, as `inputs.samples.read_samples` reads them.

    Args:
        path: of the manifest, which is read again whenever `rows` is called.
        columns: modality -> column.
        media_root: folder in which all media must lie; None: anywhere.
        format: of the manifest, "" to recognize it.
        name: of the manifest, for people; "": its path.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, str],
        media_root: Path | None = None,
        format: str = "",  # noqa: A002 (as the option is called)
        name: str = "",
    ) -> None:
        self.name, self._path, self._columns = name or str(path), path, columns
        self.media_root = media_root
        self._sources = open_sources(path, format)
        self.is_shards = any(isinstance(source, ShardSource) for source in self._sources)
        self._media = {name: column for name, column in columns.items() if not MODALITIES[name].is_text}
        self._text = next((column for name, column in columns.items() if MODALITIES[name].is_text), "")
        self._missing = missing_words(self._sources, self._text)

    def layout(self, folder: Path, needs_columns: bool, listed: bool) -> Layout:
        header, kinds, schema = self._header() if needs_columns else ((), {}, None)
        return Layout(self._columns, tuple(header), folder, kinds, schema, listed)

    def rows(self) -> Iterator[AuditedRow]:
        root = real_folder(self.media_root) if self.media_root else ""
        names = SampleNames(self.name, any(ID_COLUMN in known_header(source) for source in self._sources))
        media = set(self._media.values())
        number = 0
        for source in self._sources:
            place = paths_of(source.folder, root)
            for row in source.rows(None, media):
                if row.problem:
                    yield AuditedRow((), problem=row.problem)
                else:
                    yield self._audited(number, source, row, place, names)
                number += 1

    def _audited(self, number: int, source: Source, row: Row, place: Place, names: SampleNames) -> AuditedRow:
        cells = self._usable(row, self._missing)
        media, problem = media_of(cells, Columns(self._columns, {}), place)
        if problem and self.media_root and "names a file outside" in problem:
            raise AuditError(
                f"{self.name}: row {_name_of(row, number)!r} has a medium "
                f"outside of {self.media_root}; if the manifest is yours, name it (--manifest), or the folder of its "
                "media (--media-root)"
            )
        texts = texts_of(cells, self._text)
        if not problem and any(text is not None and not isinstance(text, str) for text in texts):
            problem = f"column {self._text!r} holds other things than texts"
        ids, first = self._ids(number, source, row, media, texts, names)
        # a caption such as "nan" is missing, and leaves as it is
        written = texts_of(self._usable(row, frozenset()), self._text)
        plain = tuple(text if isinstance(text, str) else None for text in written)
        box: tuple[float, ...] = ()
        paths: dict[str, Medium] = {}
        for name, value in media.items():
            if value:
                path, separator, sides = value.partition(BOX_SEPARATOR)
                paths[name] = path
                box = tuple(map(float, sides.split(","))) if separator else box
        audited = {ID_COLUMN, *self._media.values(), self._text}
        fields = {name: value for name, value in row.cells.items() if name not in audited}
        listed = isinstance(cells.get(self._text), list)
        return AuditedRow(ids, paths, plain, listed, fields, row.members, box, problem, first)

    def _usable(self, row: Row, missing: frozenset[str]) -> dict[str, Any]:
        """The audited cells, as the audit read them."""
        # a new reader for each row: it counts what it reads, against limits that the audit has checked
        texts = (self._text,) if self._text else ()
        reader = RowReader(self.name, tuple(self._media.values()), texts, missing=missing)
        return {column: reader.usable(column, row.cells.get(column)) for column in (*self._media.values(), *texts)}

    def _ids(
        self, number: int, source: Source, row: Row, media: Mapping[str, Any], texts: Any, names: SampleNames
    ) -> tuple[tuple[str, ...], int]:
        """(the names that a table of scores may have for a row, position of its first caption)."""
        if row.key:  # where keys repeat, the name of the shard is part of the id
            return (row.key, f"{source.path.stem}/{row.key}"), 0
        name, position = names.name(number, as_text(row.cells.get(ID_COLUMN)) or "", shown(media), texts)
        return (name,), position

    def _header(self) -> tuple[tuple[str, ...], dict[str, str], Any]:
        """(columns, what each one holds, Arrow schema or None); of JSON and of shards all rows are read."""
        source = self._sources[0]
        if isinstance(source, TableSource):
            return tuple(source.whole_schema.names), {}, source.whole_schema
        if isinstance(source, CsvSource):
            return tuple(source.header), dict.fromkeys(source.header, "text"), None
        kinds: dict[str, str] = {}
        for each in self._sources:
            for row in each.rows(None, set(self._media.values())):
                for name, value in row.cells.items():
                    kinds[name] = _joined(kinds.get(name, ""), value)
        return tuple(kinds), {name: kind or "text" for name, kind in kinds.items()}, None


def _name_of(row: Row, number: int) -> str:
    return (row.key or as_text(row.cells.get(ID_COLUMN)) or str(number))[:80]


def _joined(kind: str, value: object) -> str:
    """The kind of a column with one more value."""
    if value is None:
        return kind
    names = {bool: "bool", int: "int", float: "float", str: "text"}
    new = names.get(type(value), "json")
    if new == "int" and abs(value) >= 1 << 53:  # type: ignore[arg-type]
        new = "json"
    if kind in ("", new):
        return new
    return "float" if {kind, new} == {"int", "float"} else "json"


class SamplesSource:
    """The rows of samples in memory, in which the captions of one sample follow each other."""

    def __init__(self, samples: Samples) -> None:
        self.name, self.is_shards, self._samples = "samples", False, samples
        others = {"group": samples.groups, "label": samples.labels, "role": samples.roles, "split": samples.splits}
        self._others = {name: values for name, values in others.items() if values}

    def layout(self, folder: Path, needs_columns: bool, listed: bool) -> Layout:  # noqa: ARG002 (all are known)
        header = ("id", *self._samples.media, *self._others)
        return Layout({name: name for name in self._samples.media}, header, folder, {}, None, listed)

    def rows(self) -> Iterator[AuditedRow]:
        ids, captions = self._samples.ids, self._samples.caption
        start = 0
        for end in range(1, len(ids) + 1):
            if end == len(ids) or not captions or captions[end] == 0 or ids[end] != ids[start]:
                yield self._row(start, end)
                start = end

    def _row(self, start: int, end: int) -> AuditedRow:
        samples = self._samples
        if start in samples.problems:
            return AuditedRow((), texts=(None,) * (end - start), problem=samples.problems[start])
        media: dict[str, Medium] = {}
        box: tuple[float, ...] = ()
        texts: tuple[str | None, ...] = (None,)
        for name, values in samples.media.items():
            value = values[start]
            if MODALITIES[name].is_text:
                texts = tuple(values[start:end])
            elif value:
                path, separator, sides = value.partition(BOX_SEPARATOR)
                media[name] = path
                box = tuple(map(float, sides.split(","))) if separator else box
        fields = {name: values[start] for name, values in self._others.items()}
        return AuditedRow((samples.ids[start],), media, texts, bool(samples.caption), fields, (), box)


def manifest_source(
    summary: Mapping[str, Any],
    manifest: str | Path | None,
    name: str,
    progress: Callable[[str, int, int], None] | None = None,
    media_root: Path | None = None,
) -> ManifestSource:
    """The manifest of an audit, from where its summary says.

    Args:
        summary: of the audit.
        manifest: in place of the recorded one, whose media must lie in its folder; or None.
        name: of the table of scores, for messages.
        progress: called while a `manifest` on remote storage is fetched.
        media_root: folder in which all media must lie; None: of a recorded manifest in its folder.

    Raises:
        AuditError: the summary does not say which manifest was scored, by which columns.
    """
    recorded = summary.get("manifest")
    config = summary.get("config", {})
    config = config if isinstance(config, Mapping) else {}
    columns = {modality: str(config[modality]) for modality in MODALITIES if config.get(modality)}
    if not columns:
        raise AuditError(
            f"the columns that were scored are not known: the summary (.json) of {name} is not beside it; put it there"
        )
    form = str(summary.get("format") or "")
    if manifest is not None and is_remote(manifest):
        read_samples(manifest, columns, format=form, progress=progress)  # fetches what is not in the cache
        path, root = copied(name_of(manifest))
        return ManifestSource(path, columns, media_root or root, form, name_of(manifest))
    if manifest is not None:
        return ManifestSource(Path(local_path(str(manifest))), columns, media_root, form)
    if not isinstance(recorded, str) or not recorded:
        raise AuditError(f"the summary of {name} does not name the manifest that was scored; name it: --manifest")
    path, root = recorded_place(recorded)
    return ManifestSource(path, columns, media_root or root, form, recorded)


def recorded_place(recorded: str) -> tuple[Path, Path]:
    """(path, the folder in which its media must lie) of the manifest that a summary names.

    A table of scores may come from anybody: it must not make us copy files from anywhere, nor fetch anything.

    Raises:
        AuditError: it is on remote storage, and its copy is not in the cache.
    """
    if is_remote(recorded):
        return copied(recorded)
    return Path(recorded), folder_of(Path(recorded))


def _holds_coco(manifest: Path) -> bool:
    try:
        return isinstance(open_sources(manifest)[0], CocoSource)
    except AuditError:
        return False


def folder_of(manifest: Path) -> Path:
    """The folder in which the media of a manifest lie by default; of a pattern, the last one without wild cards.

    Of COCO's file in a folder `annotations` it is the one around that, where the images lie beside: names of images in
    COCO lead out of no folder, which paths in other manifests may.
    """
    if manifest.is_dir():
        return manifest
    if manifest.is_file():  # whose folders may have brackets in their names
        folder = manifest.absolute().parent
        return folder.parent if folder.name in ANNOTATIONS and _holds_coco(manifest) else folder
    return next(folder for folder in manifest.absolute().parents if not re.search(r"[*?\[{]", str(folder)))
