"""The present content of samples, groups and objects: texts, media, marks, and the samples that share them.

Read as raw documents: ten thousand of them take a tenth of a second, and what is changed later must be known exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain

import fiftyone as fo

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import dig, outermost
from audit_plugin.fiftyone_io.records import once
from audit_plugin.fiftyone_io.runs import audit_info, audited_items, settings_of
from audit_plugin.inputs.files import MediaError, file_digest
from audit_plugin.inputs.threads import ReadingThreads
from audit_plugin.review import Content

from .items import Document, group_members, objects_path, patches_of
from .sources import SLICE, caption_field, modality_sources, used_slices

REMOVED = "audit:removed"
READERS = 4  # threads; more only fight for the disk


@dataclass(frozen=True)
class TextPath:
    """Where texts are in a document."""

    slice: str  # of the sample that holds them, in a group; "" where none is named
    root: str  # up to the list, or to the string itself
    leaf: str  # within the elements of the list; "" for strings
    listed: bool


@dataclass(frozen=True)
class AuditedItem:
    """A sample, group or object with its present content."""

    sample: str  # id of the sample, of a group that of its row
    label: str  # id of the object, "" for a sample
    content: Content  # its texts, a digest of its media, and whether it is marked as removed
    field: str  # where its texts are; of a group, with the slice ("" where there is no text)
    holder: str  # id of the sample that holds the text
    members: tuple[str, ...]  # ids of all samples of the group, or of the one sample
    marked: frozenset[str]  # those of the members that are marked as removed


def text_field(dataset: fo.Dataset, run: str) -> str:
    """Where the texts of an audit are, as decisions record it: a path, of a group's slice `slice:NAME.PATH`.

    Without a run: what looks like the caption; "" where nothing does.

    Raises:
        AuditError: no such audit, or its field is gone.
    """
    field: str = once(("text field", dataset._doc.id, run), lambda: _text_field(dataset, run))
    return field


def _text_field(dataset: fo.Dataset, run: str) -> str:
    if not run:
        try:
            return caption_field(dataset)
        except AuditError:
            return ""
    record = audit_info(dataset, run)
    view = patches_of(dataset, record.label_field) if record.label_field else dataset
    sources = modality_sources(view, settings_of(record))
    if "text" not in sources:
        return ""
    source = sources["text"]
    if record.label_field:
        return f"{objects_path(record.label_field)}{source.field.removeprefix(record.label_field)}"
    slices = used_slices(dataset, sources) if dataset.media_type == "group" else []
    name = source.slice or (slices[0] if len(slices) == 1 else "")
    return f"{SLICE}{name}.{source.field}" if name else source.field


def text_path(dataset: fo.Dataset, field: str) -> TextPath:
    """Where a recorded field is.

    Raises:
        AuditError: the dataset has no such field any more.
    """
    path = field.removeprefix(SLICE)
    slices = dataset.group_slices or () if path != field else ()
    slice_name = max((name for name in slices if path.startswith(f"{name}.")), key=len, default="")
    path = path.removeprefix(f"{slice_name}.")
    parts = path.split(".")
    for end in range(1, len(parts) + 1):
        root = ".".join(parts[:end])
        if isinstance(dataset.get_field(root), fo.ListField):
            return TextPath(slice_name, root, ".".join(parts[end:]), listed=True)
    if dataset.get_field(path) is None:
        raise AuditError(
            f"field {path!r}, which decisions name, does not exist in dataset {dataset.name!r} any more; add it again"
        )
    return TextPath(slice_name, path, "", listed=False)


def class_names(dataset: fo.Dataset, run: str) -> set[str] | None:
    """The classes of a dataset, used or declared, where an audit's texts are names of classes; None where not.

    Raises:
        AuditError: no such audit, or its field is gone.
    """
    place = class_path(dataset, run)
    return None if place is None else {*declared_classes(dataset, place), *used_classes(dataset, place)}


def class_path(dataset: fo.Dataset, run: str) -> str | None:
    """Where the names of classes are, if an audit's texts are such; raises as `class_names`."""
    field = text_field(dataset, run)
    if not field:
        return None
    path = text_path(dataset, field)
    place = f"{path.root}.{path.leaf}" if path.leaf else path.root
    parent, _, name = place.rpartition(".")
    holder = dataset.get_field(parent) if parent else None
    holder = holder.field if isinstance(holder, fo.ListField) else holder
    is_class = name == "label" and getattr(holder, "document_type", None) in (fo.Classification, fo.Detection)
    return place if is_class else None


def declared_classes(dataset: fo.Dataset, place: str) -> set[str]:
    """The classes that a dataset declares for a field."""
    return set(map(str, dataset.classes.get(place.partition(".")[0]) or dataset.default_classes or ()))


def used_classes(dataset: fo.Dataset, place: str, since: datetime | None = None) -> set[str]:
    """The classes that samples have; `since`: those of samples that changed after this time."""
    query = {} if since is None else {"last_modified_at": {"$gt": since}}
    return {str(name) for name in dataset._sample_collection.distinct(place, query) if name is not None}


def items_of_rows(dataset: fo.Dataset, run: str, rows: Iterable[str], media: bool = True) -> dict[str, AuditedItem]:
    """Row id -> the sample, group or object of an audit (run "": of none); ids that do not exist are left out.

    Rows are ids of samples, any of a group, or of objects where these were audited. Without `media` no files are read.
    """
    field, names = text_field(dataset, run), list(dict.fromkeys(rows))
    audited = audited_items(dataset, run) if run else None
    if audited is not None and audited.label_field:
        keys = {name: (samples[0], name) for name, samples in audited.samples(names).items()}
    else:
        keys = {name: (name, "") for name in names}
    slices: Sequence[str] = ()
    if dataset.media_type == "group":
        slices = (audited.slices if audited else ()) or [dataset.default_group_slice]
    items = read_items(dataset, dict.fromkeys(keys.values(), field), media, slices)
    return {name: items[key] for name, key in keys.items() if key in items}


def read_items(
    dataset: fo.Dataset, fields: Mapping[tuple[str, str], str], media: bool = True, slices: Sequence[str] = ()
) -> dict[tuple[str, str], AuditedItem]:
    """(id of a sample, id of an object or "") -> what is there now; those that do not exist are left out.

    `fields` are where their texts are. Without `media` no files are read. Of a group, the sample in the first of the
    `slices` that exists becomes the item's; without slices the named one.
    """
    paths = {field: text_path(dataset, field) for field in set(fields.values()) if field}
    roots = outermost(path.root for path in paths.values())
    group_field = [dataset.group_field] if dataset.group_field else []
    projection = dict.fromkeys(["filepath", "tags", *roots, *group_field], 1)
    members = group_members(dataset, {sample for sample, _ in fields}, projection)
    items: dict[tuple[str, str], AuditedItem] = {}
    files: dict[tuple[str, str], list[str]] = {}
    for key, field in fields.items():
        item = _read_item(dataset, key, field, paths.get(field), members.get(key[0], []), slices)
        if item is not None:
            items[key] = item
            files[key] = [str(document.get("filepath")) for document in members[key[0]]]
    digests: dict[str, str] = {}
    if media:
        with ReadingThreads(READERS) as pool:
            paths_once = sorted(set(chain(*files.values())))
            digests = dict(zip(paths_once, pool.map(_digest, paths_once), strict=True))
    return {key: _with_media(item, [digests.get(path, "") for path in files[key]]) for key, item in items.items()}


def _read_item(
    dataset: fo.Dataset,
    key: tuple[str, str],
    field: str,
    path: TextPath | None,
    members: Sequence[Document],
    slices: Sequence[str],
) -> AuditedItem | None:
    """An item without the digest of its media; None for a sample or an object that does not exist."""
    if not members:
        return None
    name, label = key
    group = dataset.group_field
    by_slice = {dig(member, f"{group}.name"): member for member in members} if group else {}
    own = next((member for member in members if str(member["_id"]) == name), members[0])
    own = next((by_slice[slice_name] for slice_name in slices if slice_name in by_slice), own)
    holder = own
    if path is not None and group:
        with_text = [member for member in members if dig(member, path.root) not in (None, "", [])]
        holder = by_slice.get(path.slice) or next(iter(with_text), own)
        if not path.slice:
            field = f"{SLICE}{dig(holder, f'{group}.name')}.{field}"
    marked = frozenset(str(member["_id"]) for member in members if REMOVED in (member.get("tags") or ()))
    content = Content(_texts(holder, path), "", path is not None and path.listed, len(marked) == len(members))
    if label:
        labels = dig(holder, path.root) if path else None
        element = next((element for element in labels or () if str(element.get("_id")) == label), None)
        if path is None or element is None:
            return None
        box, removed = str(element.get("bounding_box")), REMOVED in (element.get("tags") or ())
        content = Content((dig(element, path.leaf),), box, removed=removed)
    names = tuple(str(member["_id"]) for member in members)
    return AuditedItem(str(own["_id"]), label, content, field, str(holder["_id"]), names, marked)


def _texts(document: Document, path: TextPath | None) -> tuple[str | None, ...]:
    if path is None:
        return ()
    value = dig(document, path.root)
    return tuple(dig(element, path.leaf) for element in value or ()) if path.listed else (value,)


def _with_media(item: AuditedItem, digests: list[str]) -> AuditedItem:
    """The item with one digest of its box and its files; "" where one of the files could not be read."""
    readable = bool(digests) and all(digests)
    media = hashlib.sha256("".join([item.content.media, *digests]).encode()).hexdigest() if readable else ""
    return replace(item, content=replace(item.content, media=media))


def _digest(path: str) -> str:
    """sha256 (hex) of a file, "" where it cannot be read."""
    try:
        return file_digest(path)
    except MediaError:
        return ""
