"""Objects: the labels of a field of detections, each with results of its own as attributes and label tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from fiftyone.core.patches import PatchesView
from pymongo import UpdateMany, UpdateOne

from audit_plugin.arrays import AuditError


def root_of(field: str) -> str:
    """Path of the objects of a field of detections in a sample."""
    return f"{field}.detections"


def objects_field(view: SampleCollection) -> str:
    """The field of a view of patches whose objects are its rows; "" for a view of samples.

    Raises:
        AuditError: a view of frames, of clips, of an evaluation, or of patches that are no boxes.
    """
    if not getattr(view, "_is_generated", False):
        return ""
    name, field = view._root_dataset.name, getattr(view, "patches_field", "")
    kind = getattr(view.get_field(field), "document_type", None) if field else None
    if type(view) is not PatchesView or view._is_frames:
        raise AuditError(
            f"a view of frames, clips or evaluated patches of {name!r} cannot be audited; pass a view of samples, or "
            "of the patches of a field of detections in images"
        )
    if kind is not fo.Detection:
        raise AuditError(
            f"the patches of {field!r} in {name!r} are no single detections; pass to_patches of a field of detections"
        )
    return str(field)


def patches_of(view: SampleCollection, field: str) -> SampleCollection:
    """One row per object of a field.

    Raises:
        AuditError: no such field of detections.
    """
    detections = [
        name
        for name, kept in view.get_field_schema(ftype=fo.EmbeddedDocumentField).items()
        if kept.document_type is fo.Detections
    ]
    if getattr(view, "_is_generated", False) or field not in detections:
        have = f"fields of detections there: {', '.join(detections)}" if detections else "there are no detections"
        raise AuditError(f"patches field {field!r} holds no objects of samples; {have}")
    return images_of(view).to_patches(field)


def images_of(view: SampleCollection) -> SampleCollection:
    """The samples with images: of a grouped dataset, those of every slice of images."""
    return view.select_group_slices(media_type="image") if view.media_type == "group" else view


def samples_of(view: SampleCollection) -> dict[str, str]:
    """Of a view of patches: label id -> id of the sample that holds it."""
    return dict(zip(*view.values(["id", "sample_id"]), strict=True))


def taken_attributes(dataset: fo.Dataset, field: str, names: Iterable[str]) -> list[str]:
    """Those of the names that some object bears already, declared in the dataset or not."""
    paths = {name: f"{root_of(field)}.{name}" for name in names}
    there: list[Mapping[str, Any]] = [{path: {"$exists": True}} for path in paths.values()]
    documents = dataset._sample_collection
    bears = bool(there) and documents.find_one({"$or": there}, {"_id": 1}) is not None
    return [
        name
        for name, path in paths.items()
        if dataset.has_sample_field(path) or (bears and documents.find_one({path: {"$exists": True}}, {"_id": 1}))
    ]


def update_of(field: str, sample: str, label: str, values: Mapping[str, Any]) -> UpdateOne:
    """The write of all attributes of one object."""
    change = {f"{root_of(field)}.$[one].{name}": value for name, value in values.items()}
    change["last_modified_at"] = datetime.now(UTC)
    return UpdateOne({"_id": ObjectId(sample)}, {"$set": change}, array_filters=[{"one._id": ObjectId(label)}])


def tag_objects(dataset: fo.Dataset, field: str, ids: Iterable[str], tag: str) -> None:
    """Tag labels by id, one write for all of them."""
    _change_tags(dataset, field, ids, "$addToSet", tag)


def untag_objects(dataset: fo.Dataset, field: str, ids: Iterable[str], tag: str) -> None:
    """Take a tag from labels by id, one write for all of them."""
    _change_tags(dataset, field, ids, "$pull", tag)


def tagged_objects(dataset: fo.Dataset, field: str, tag: str) -> set[str]:
    """Ids of the labels that bear a tag."""
    return set(images_of(dataset).select_labels(tags=tag, fields=field).values(f"{root_of(field)}.id", unwind=True))


def objects_where(dataset: fo.Dataset, field: str, condition: Any) -> SampleCollection:
    """A view of the objects whose attributes meet a condition."""
    return images_of(dataset).filter_labels(field, condition).to_patches(field)


def _change_tags(dataset: fo.Dataset, field: str, ids: Iterable[str], change: str, tag: str) -> None:
    labels = {"$in": [ObjectId(name) for name in ids]}
    update = {change: {f"{root_of(field)}.$[one].tags": tag}, "$set": {"last_modified_at": datetime.now(UTC)}}
    dataset._bulk_write([UpdateMany({f"{root_of(field)}._id": labels}, update, array_filters=[{"one._id": labels}])])
