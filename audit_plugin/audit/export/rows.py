"""The audited rows with their contents, one by one: from a manifest, or from samples that a program holds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from audit_plugin.arrays import MODALITIES, AuditError, Samples
from audit_plugin.inputs.files import name_of_member
from audit_plugin.inputs.formats.sources import SourceRow, source_header, source_rows
from audit_plugin.inputs.formats.values import BOX_SEPARATOR, Layout, Medium, ShardMember
from audit_plugin.inputs.formats.webdataset import is_shards
from audit_plugin.inputs.manifest import paths_of
from audit_plugin.inputs.rows import MAX_CAPTIONS, as_text


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
    """

    ids: tuple[str, ...]
    media: Mapping[str, Medium] = field(default_factory=dict)
    texts: tuple[str | None, ...] = (None,)
    listed: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[ShardMember, ...] = ()
    box: tuple[float, ...] = ()
    problem: str = ""


class RowSource(Protocol):
    """Where the audited rows come from."""

    name: str
    is_shards: bool

    def layout(self, folder: Path, needs_columns: bool, listed: bool) -> Layout:
        """The columns; all of them where the format needs them before the first row."""

    def rows(self) -> Iterator[AuditedRow]:
        """The rows, in the order of the table of scores."""


class ManifestSource:
    """The rows of a manifest.

    Args:
        path: of the manifest, which is read again whenever `rows` is called.
        columns: modality -> column.
        media_root: folder in which all media must lie; None: anywhere.
    """

    def __init__(self, path: Path, columns: Mapping[str, str], media_root: Path | None = None) -> None:
        self.name, self._path, self._columns = str(path), path, columns
        self.media_root = media_root
        self.is_shards = is_shards(path)
        self._media = {name: column for name, column in columns.items() if not MODALITIES[name].is_text}
        self._text = next((column for name, column in columns.items() if MODALITIES[name].is_text), "")

    def layout(self, folder: Path, needs_columns: bool, listed: bool) -> Layout:
        header, kinds, schema = source_header(self._path) if needs_columns else ((), {}, None)
        return Layout(self._columns, tuple(header), folder, kinds, schema, listed)

    def rows(self) -> Iterator[AuditedRow]:
        place = paths_of(self._path, os.path.realpath(self.media_root) if self.media_root else "")
        audited = {"id", *self._media.values(), self._text}
        for row in source_rows(self._path):
            yield AuditedRow((), problem=row.problem) if row.problem else self._audited(row, place, audited)

    def _audited(self, row: SourceRow, place: Any, audited: set[str]) -> AuditedRow:
        media: dict[str, Medium] = {}
        problem, box = "", ()
        for name, column in self._media.items():
            medium, why = _medium(row.cells.get(column), place, bool(row.members))
            if why and self.media_root and why.startswith("names a file outside"):
                raise AuditError(
                    f"{self.name}, which the summary of the scores names: row {row.ids[0][:80]!r} has a medium "
                    f"outside of {self.media_root}; if the manifest is yours, name it: --manifest"
                )
            problem = problem or (f"column {column!r} {why}" if why else "")
            if medium is not None:
                media[name] = medium
        cell = row.cells.get(self._text) if self._text else None
        texts, listed, why = _texts(cell)
        problem = problem or (f"column {self._text!r} {why}" if why else "")
        others = {name: value for name, value in row.cells.items() if name not in audited}
        return AuditedRow(row.ids, media, texts, listed, others, row.members, box, problem)


def _medium(cell: object, place: Any, in_shard: bool) -> tuple[Medium | None, str]:
    """(where the bytes are, what is wrong with the cell)."""
    if isinstance(cell, Mapping) and set(cell) >= {"bytes", "path"}:
        cell = cell["bytes"] if cell["bytes"] is not None else cell["path"]
    if cell is None or isinstance(cell, bytes):
        return cell, ""
    if in_shard:
        return (cell, "") if isinstance(cell, str) and name_of_member(cell) else (None, "names no member of the shard")
    text = as_text(cell) if isinstance(cell, str | int | float) else None
    if text is None:
        return None, f"holds {type(cell).__name__}, not a path" if not isinstance(cell, float) else ""
    return place(text.strip()) if text.strip() else (None, "")


def _texts(cell: object) -> tuple[tuple[str | None, ...], bool, str]:
    """(captions, they are a list, what is wrong with the cell)."""
    if isinstance(cell, list | tuple):
        if len(cell) > MAX_CAPTIONS:
            return (None,), True, f"holds {len(cell):,} texts"
        wrong = any(isinstance(text, list | dict | bytes) for text in cell)
        texts = tuple(None if isinstance(text, list | dict | bytes) else as_text(text) for text in cell)
        return texts or (None,), True, "holds a list of other things than texts" if wrong else ""
    if isinstance(cell, dict | bytes):
        return (None,), False, f"holds {type(cell).__name__}, not text"
    return (as_text(cell),), False, ""


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


def manifest_source(summary: Mapping[str, Any], manifest: Path | None, name: str) -> ManifestSource:
    """The manifest of an audit, from where its summary says.

    Args:
        summary: of the audit.
        manifest: in place of the recorded one, whose media must lie in its folder; or None.
        name: of the table of scores, for messages.

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
    if manifest is not None:
        return ManifestSource(manifest, columns)
    if not isinstance(recorded, str) or not recorded:
        raise AuditError(f"the summary of {name} does not name the manifest that was scored; name it: --manifest")
    # a table of scores may come from anybody: it must not make us copy files from anywhere
    return ManifestSource(Path(recorded), columns, folder_of(Path(recorded)))


def folder_of(manifest: Path) -> Path:
    """The folder in which the media of a manifest lie by default; of a pattern, the last one without wild cards."""
    if manifest.is_dir():
        return manifest
    if manifest.is_file():  # whose folders may have brackets in their names
        return manifest.absolute().parent
    return next(folder for folder in manifest.absolute().parents if not re.search(r"[*?\[{]", str(folder)))
