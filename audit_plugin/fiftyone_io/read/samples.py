"""Datasets and views -> Samples: one row per sample, or per group of a grouped dataset, read in bulk."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import ROLES, AuditError, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io.database import count_samples, database
from audit_plugin.inputs.embeddings import parse_embeddings
from audit_plugin.inputs.images import crop_of

from .items import objects_field, patches_of, ungrouped
from .sources import Source, key_field, modality_sources, name_of, similar_names, used_slices
from .vectors import vector_sources, with_vectors

KEYS = ("group", "label", "role", "split")
SPLITS = ("train", "test", "validation", "val")  # of a list of tags, the one that is meant


def load_view(name: str, view_name: str | None = None, patches: str | None = None) -> SampleCollection:
    """A dataset, or one of its saved views, by name; or the objects of a field of detections in it.

    Raises:
        AuditError: no such dataset (names near it are listed), saved view or field of detections.
    """
    with database(f"reading dataset {name!r}"):
        names = fo.list_datasets()
        if name not in names:
            raise AuditError(f"dataset {name!r} does not exist; {similar_names(name, names, 'datasets')}")
        dataset = fo.load_dataset(name)
        if view_name is not None and not dataset.has_saved_view(view_name):
            views = dataset.list_saved_views()
            choices = similar_names(view_name, views, "views")
            raise AuditError(f"dataset {name!r} has no saved view {view_name!r}; {choices}")
        view = dataset if view_name is None else dataset.load_saved_view(view_name)
        return view if patches is None else patches_of(view, patches)


def read_samples(view: SampleCollection, config: AuditConfig, only_media: bool = False) -> Samples:
    """The rows of a dataset or view, in its order, with sample ids as ids.

    A grouped dataset gives one row per group: its id is that of the first sample among the slices used, a modality
    whose slice is missing in the group is None. A list of texts gives one row per text, with repeated ids; an empty
    one a row without text. A view of patches gives one row per object, whose id is the label's and whose image is its
    crop; the objects of one image belong together unless another group is named.

    `only_media` leaves the embeddings that the config names out: for what shows rows and encodes nothing.

    Raises:
        AuditError: empty view, nothing to compare, a field that is missing or of the wrong kind, or the database was
            lost.
    """
    with database(f"reading dataset {name_of(view)!r}"):
        view = ungrouped(view)
        objects = objects_field(view)
        if not count_samples(view):
            what = f"the view of the objects {objects!r}" if objects else "the view"
            raise AuditError(f"{what} of dataset {name_of(view)!r} is empty; choose a dataset or view with samples")
        sources = modality_sources(view, config)
        named = {name: getattr(config, name) for name in KEYS if getattr(config, name)}
        keys = {name: Source(key_field(view, name, path)) for name, path in named.items()}
        vectors = {} if only_media else vector_sources(view, config, sources)
        ids, columns = _columns(view, sources, {**sources, **keys, **vectors})
        if objects:
            boxes, images = view.values([f"{objects}.bounding_box", "sample_id"])
            files = zip(columns["image"], boxes, strict=True)
            columns["image"] = [crop_of(path, box) if box else None for path, box in files]
            columns.setdefault("group", images)
    for name, role in zip(ids, columns.get("role", [""] * len(ids)), strict=True):
        if role not in (*ROLES, None, ""):
            choices = ", ".join(ROLES)
            raise AuditError(
                f"role field {config.role!r} of sample {name} is {role!r}; a role is one of {choices}, or nothing"
            )
    captions: list[int] = []
    if "text" in sources and sources["text"].many:
        ids, columns, captions = _row_per_text(ids, columns)
    words = {name: tuple(_word(v) for v in columns.get(name, ())) for name in KEYS}
    samples = Samples(
        tuple(ids),
        {modality: tuple(columns[modality]) for modality in sources}
        | {modality: (None,) * len(ids) for modality in parse_embeddings(config.embeddings) if modality not in sources},
        groups=words["group"],
        caption=tuple(captions),
        labels=words["label"],
        roles=words["role"],
        splits=words["split"],
        source=f"dataset {name_of(view)}",
    )
    if only_media:
        return samples
    with database(f"reading dataset {name_of(view)!r}"):
        return with_vectors(view, config, samples, columns)


def _word(value: Any) -> str:
    """A group, label, role or split; of a list, such as the samples' tags, the split that it names."""
    if isinstance(value, list):
        return next((name for name in SPLITS if name in value), "")
    return "" if value is None else str(value)


def _row_per_text(ids: list[str], columns: dict[str, list[Any]]) -> tuple[list[str], dict[str, list[Any]], list[int]]:
    """Ids, columns and number of the text, with a row for each text of a list; for an empty list one without text."""
    texts: list[str | None] = []
    rows: list[int] = []
    numbers: list[int] = []
    for row, texts_of_row in enumerate(columns["text"]):
        of_sample = ["" if text is None else text for text in texts_of_row or ()] or [None]
        texts += of_sample
        rows += [row] * len(of_sample)
        numbers += range(len(of_sample))
    repeated = {name: [values[row] for row in rows] for name, values in columns.items()}
    return [ids[row] for row in rows], {**repeated, "text": texts}, numbers


def samples_of_rows(view: SampleCollection, config: AuditConfig) -> dict[str, list[str]]:
    """Row id -> ids of all samples on which its result belongs: of an object the one that holds it.

    Of a group they are its samples in the slices used. Empty where each row is one sample.
    """
    view = ungrouped(view)
    if objects_field(view):
        return {label: [sample] for label, sample in zip(*view.values(["id", "sample_id"]), strict=True)}
    if view.media_type != "group":
        return {}
    ids, _, groups = _groups(view, used_slices(view, modality_sources(view, config)), [])
    members = [[ids[position] for position in group.values()] for group in groups]
    return {samples[0]: samples for samples in members}


def _columns(
    view: SampleCollection, media: dict[str, Source], sources: dict[str, Source]
) -> tuple[list[str], dict[str, list[Any]]]:
    """Ids of the rows, and a value per row of each source; the slices read are those of `media`."""
    fields = [source.field for source in sources.values()]
    if view.media_type != "group":
        ids, *values = view.values(["id", *fields])
        return ids, dict(zip(sources, values, strict=True))
    ids, values, groups = _groups(view, used_slices(view, media), fields)
    columns = {
        name: [_pick(column, group, source.slice) for group in groups]
        for (name, source), column in zip(sources.items(), values, strict=True)
    }
    return [ids[next(iter(group.values()))] for group in groups], columns


def _groups(
    view: SampleCollection, slices: list[str], fields: list[str]
) -> tuple[list[str], list[list[Any]], list[dict[str, int]]]:
    """Sample ids, values per field, and per group in the view's order: slice -> position in these.

    Slices of different media types can be read at once only by a switch that FiftyOne does not document.
    """
    group = view.group_field
    flat = view.select_group_slices(slices, _allow_mixed=True)
    ids, numbers, names, *values = flat.values(["id", f"{group}.id", f"{group}.name", *fields])
    groups: dict[str, dict[str, int]] = {}
    for position, (number, name) in enumerate(zip(numbers, names, strict=True)):
        groups.setdefault(number, {})[name] = position
    return ids, values, [{name: group[name] for name in slices if name in group} for group in groups.values()]


def _pick(values: list[Any], group: dict[str, int], slice_name: str) -> Any:
    """The group's value in a slice; where none is named, the first slice that has one."""
    if slice_name:
        return values[group[slice_name]] if slice_name in group else None
    return next((values[position] for position in group.values() if not _is_empty(values[position])), None)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list) and not value)
