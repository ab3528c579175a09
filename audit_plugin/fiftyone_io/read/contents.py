"""What decisions are about, as it stands in the dataset: texts, media, marks, and the samples that share them.

Read as raw documents: ten thousand of them take a tenth of a second, and what is changed later must be known exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import fiftyone as fo
from bson import ObjectId
from bson.errors import InvalidId

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io.runs import audit_info, batches
from audit_plugin.inputs.files import MediaError, file_digest
from audit_plugin.review import Content

from .items import patches_of, root_of
from .sources import SLICE, caption_field, modality_sources, used_slices

REMOVED = "audit:removed"
READERS = 4  # threads; more only fight for the disk


@dataclass(frozen=True)
class Place:
    """Where a text is: `root` up to the list or the string itself, `leaf` within a list's elements ("" for strings)."""

    root: str
    leaf: str
    listed: bool


@dataclass(frozen=True)
class Subject:
    """A sample (or group, or object) of which something was decided.

    Attributes:
        sample: id of the sample that stands for it; label: id of the object, "" for a sample.
        content: what it holds now.
        field: where its texts are; of a group, with the slice ("" where there is no text).
        holder: id of the sample that holds the text.
        members: ids of all samples of the group, or of the one sample.
        marked: those of the members that are marked as removed.
    """

    sample: str
    label: str
    content: Content
    field: str
    holder: str
    members: tuple[str, ...]
    marked: frozenset[str]


def text_field(dataset: fo.Dataset, run: str) -> str:
    """Where the texts of an audit are, as decisions record it: a path, of a group's slice `slice:NAME.PATH`.

    Without a run: what looks like the caption; "" where nothing does.

    Raises:
        AuditError: no such audit, or its field is gone.
    """
    if not run:
        try:
            return caption_field(dataset)
        except AuditError:
            return ""
    record = audit_info(dataset, run)
    view = patches_of(dataset, record.label_field) if record.label_field else dataset
    sources = modality_sources(view, AuditConfig.from_dict(record.settings))
    if "text" not in sources:
        return ""
    source = sources["text"]
    if record.label_field:
        return f"{root_of(record.label_field)}{source.field.removeprefix(record.label_field)}"
    slices = used_slices(dataset, sources) if dataset.media_type == "group" else []
    name = source.slice or (slices[0] if len(slices) == 1 else "")
    return f"{SLICE}{name}.{source.field}" if name else source.field


def place_of(dataset: fo.Dataset, field: str) -> Place:
    """Where a recorded field is, without its slice.

    Raises:
        AuditError: the dataset has no such field any more.
    """
    path = slice_and_path(dataset, field)[1]
    parts = path.split(".")
    for end in range(1, len(parts) + 1):
        found = dataset.get_field(".".join(parts[:end]))
        if isinstance(found, fo.ListField):
            return Place(".".join(parts[:end]), ".".join(parts[end:]), listed=True)
    if dataset.get_field(path) is None:
        raise AuditError(f"field {path!r} does not exist in dataset {dataset.name!r} any more; decisions name it")
    return Place(path, "", listed=False)


def slice_and_path(dataset: fo.Dataset, field: str) -> tuple[str, str]:
    """(slice, path) of a recorded field; the slice is "" where none is named."""
    if not field.startswith(SLICE):
        return "", field
    rest = field.removeprefix(SLICE)
    name = max((s for s in dataset.group_slices or () if rest.startswith(f"{s}.")), key=len, default="")
    return name, rest.removeprefix(f"{name}.")


def subjects_of_rows(dataset: fo.Dataset, run: str, rows: Iterable[str], media: bool = True) -> dict[str, Subject]:
    """The subject of each row id of an audit: ids of samples, of objects where these were audited.

    Any sample of a group may be named. Rows that are not there are left out.

    Args:
        dataset: where they are.
        run: key of the audit, or "" for none.
        rows: ids.
        media: whether to digest the files; without it nothing is read from them.
    """
    field, names = text_field(dataset, run), list(dict.fromkeys(rows))
    if run and audit_info(dataset, run).label_field:
        root = place_of(dataset, field).root
        pairs = {name: (sample, name) for name, sample in _samples_of_labels(dataset, root, names).items()}
    else:
        pairs = {name: (name, "") for name in names}
    order = _slice_order(dataset, run)
    found = read_subjects(dataset, dict.fromkeys(pairs.values(), field), media, order)
    return {name: found[pair] for name, pair in pairs.items() if pair in found}


def read_subjects(
    dataset: fo.Dataset, wanted: Mapping[tuple[str, str], str], media: bool = True, slices: Sequence[str] = ()
) -> dict[tuple[str, str], Subject]:
    """The subjects of (sample, label) -> field; those that are not there are left out.

    Args:
        dataset: where they are.
        wanted: subject -> where its texts are.
        media: whether to digest the files.
        slices: of a group, those whose sample stands for it, the first that is there; none: the one that was named.
    """
    places = {field: place_of(dataset, field) for field in set(wanted.values()) if field}
    groups = dataset.group_field
    roots = {place.root for place in places.values()}
    # a path below another one may not stand beside it
    shown = {root for root in roots if not any(root.startswith(f"{other}.") for other in roots)}
    projection = dict.fromkeys(["filepath", "tags", *shown, *([groups] if groups else [])], 1)
    documents = _documents(dataset, {sample for sample, _ in wanted}, projection)
    members = _members(dataset, documents, projection) if groups else {name: [d] for name, d in documents.items()}
    found = {}
    for (sample, label), field in wanted.items():
        if sample in members:
            found[sample, label] = _subject(dataset, (sample, label, field), members[sample], places.get(field), slices)
    paths = {pair: file for pair, (_, file) in found.items()}
    digests = _digests(paths.values()) if media else {}
    return {
        pair: _with_media(subject, [digests.get(path, "") for path in paths[pair]])
        for pair, (subject, _) in found.items()
        if subject is not None
    }


def object_ids(names: Iterable[str]) -> list[ObjectId]:
    """Ids as the database has them; what is no id is left out."""
    out = []
    for name in names:
        try:
            out.append(ObjectId(name))
        except (InvalidId, TypeError):
            continue
    return out


def dig(document: Any, path: str) -> Any:
    """The value at a dotted path of embedded documents, None where there is none."""
    for part in path.split(".") if path else ():
        document = document.get(part) if isinstance(document, Mapping) else None
    return document


def find_by_ids(collection: Any, ids: Iterable[str], projection: Mapping[str, int] | None = None) -> Iterator[Any]:
    """Documents by id, in parts that one query can hold."""
    for batch in batches(list(ids)):
        yield from collection.find({"_id": {"$in": object_ids(batch)}}, projection)


def _documents(dataset: fo.Dataset, ids: Iterable[str], projection: Mapping[str, int]) -> dict[str, Any]:
    return {str(d["_id"]): d for d in find_by_ids(dataset._sample_collection, ids, projection)}


def _members(dataset: fo.Dataset, documents: Mapping[str, Any], projection: Mapping[str, int]) -> dict[str, list[Any]]:
    """Sample id -> documents of all samples of its group, in the order of the slices."""
    field, order = dataset.group_field, {name: at for at, name in enumerate(dataset.group_slices)}
    groups: dict[Any, list[Any]] = {}
    ids = list({dig(d, f"{field}._id") for d in documents.values()})
    for start in range(0, len(ids), 10_000):
        query = {f"{field}._id": {"$in": ids[start : start + 10_000]}}
        for document in dataset._sample_collection.find(query, projection):
            groups.setdefault(dig(document, f"{field}._id"), []).append(document)
    for found in groups.values():
        found.sort(key=lambda d: order.get(dig(d, f"{field}.name"), len(order)))
    return {name: groups[dig(d, f"{field}._id")] for name, d in documents.items()}


def _subject(
    dataset: fo.Dataset, key: tuple[str, str, str], members: list[Any], place: Place | None, slices: Sequence[str]
) -> tuple[Subject | None, list[str]]:
    """A subject without the digest of its media, None for an object that is gone; and the files to digest."""
    sample, label, field = key
    grouped = dataset.group_field
    by_slice = {dig(d, f"{grouped}.name"): d for d in members} if grouped else {}
    home = next((by_slice[name] for name in slices if name in by_slice), None)
    holder = home or next(d for d in members if str(d["_id"]) == sample)
    sample = str(holder["_id"])
    if place is not None and grouped:
        wanted = slice_and_path(dataset, field)[0]
        having = [d for d in members if dig(d, place.root) not in (None, "", [])]
        holder = by_slice.get(wanted) or next(iter(having), holder)
        if not wanted:
            field = f"{SLICE}{dig(holder, f'{grouped}.name')}.{field}"
    marked = frozenset(str(d["_id"]) for d in members if REMOVED in (d.get("tags") or ()))
    files = [str(d.get("filepath")) for d in members]
    names = tuple(str(d["_id"]) for d in members)
    if label:
        thing = next((e for e in dig(holder, place.root if place else "") or () if str(e.get("_id")) == label), None)
        if thing is None or place is None:
            return None, files
        box = str(thing.get("bounding_box"))
        content = Content((dig(thing, place.leaf),), box, removed=REMOVED in (thing.get("tags") or ()))
    else:
        content = Content(_texts(holder, place), "", place is not None and place.listed, len(marked) == len(members))
    return Subject(sample, label, content, field, str(holder["_id"]), names, marked), files


def _texts(document: Any, place: Place | None) -> tuple[str | None, ...]:
    if place is None:
        return ()
    value = dig(document, place.root)
    return tuple(dig(element, place.leaf) for element in value or ()) if place.listed else (value,)


def _with_media(subject: Subject, files: list[str]) -> Subject:
    """The subject with one digest of its files and its box; none where one of the files could not be read."""
    media = (
        hashlib.sha256("".join([subject.content.media, *files]).encode()).hexdigest() if files and all(files) else ""
    )
    return replace(subject, content=replace(subject.content, media=media))


def _digests(paths: Iterable[list[str]]) -> dict[str, str]:
    """Path -> sha256 (hex) of the file, "" where it cannot be read; each file once."""
    files = sorted({path for found in paths for path in found})
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(files, pool.map(_digest, files), strict=True))


def _digest(path: str) -> str:
    try:
        return file_digest(path)
    except MediaError:
        return ""


def _samples_of_labels(dataset: fo.Dataset, root: str, labels: Sequence[str]) -> dict[str, str]:
    """Label id -> sample id, in one pass over the dataset per batch."""
    found: dict[str, str] = {}
    for batch in batches(list(labels)):
        wanted = set(batch)
        query = {f"{root}._id": {"$in": object_ids(batch)}}
        for document in dataset._sample_collection.find(query, {f"{root}._id": 1}):
            names = [str(element["_id"]) for element in dig(document, root) or ()]
            found |= {name: str(document["_id"]) for name in names if name in wanted}
    return found


def _slice_order(dataset: fo.Dataset, run: str) -> list[str]:
    """The slices of which the first that a group has stands for it; empty where the dataset is not grouped."""
    if dataset.media_type != "group":
        return []
    used = list(audit_info(dataset, run).slices) if run else []
    return used or [dataset.default_group_slice]
