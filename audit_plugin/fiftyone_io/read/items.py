"""What the rows of an audit are: samples, groups of samples, or objects of a label field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection
from fiftyone.core.patches import PatchesView
from pymongo import UpdateMany, UpdateOne

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import batches, dig, documents_by_id, object_ids, update_of
from audit_plugin.fiftyone_io.lease import check_lease

Condition = Callable[[Callable[[str], Any]], Any]
Document = Mapping[str, Any]
CHUNK = 5_000  # samples that are written at once


@dataclass(frozen=True)
class AuditedItems:
    """The items that a run wrote on, one row of its results each.

    An object is named by the id of its label, a group by the id of its sample in the first of the slices.
    """

    dataset: fo.Dataset
    run: str  # its key; a column is the field or attribute `{run}_{column}`
    label_field: str = ""  # the field of detections whose objects are the rows; "" where samples or groups are
    slices: tuple[str, ...] = ()  # those of a grouped dataset with the results; empty where it is not grouped
    fields: tuple[str, ...] = ()  # paths of the fields that the run wrote

    @property
    def are_samples(self) -> bool:
        """Whether each row is one sample of a dataset that is not grouped."""
        return not self.label_field and not self.slices

    @property
    def objects(self) -> str:
        """Path of the list of objects in a sample."""
        return objects_path(self.label_field)

    def path(self, column: str) -> str:
        """Where a column is in a sample."""
        return f"{self.objects}.{self.run}_{column}" if self.label_field else f"{self.run}_{column}"

    def has(self, column: str) -> bool:
        """Whether the run wrote the column: those without any value are left out."""
        return self.path(column) in self.fields

    @property
    def columns(self) -> list[str]:
        """The columns that the run wrote."""
        return [path.removeprefix(self.path("")) for path in self.fields]

    # --- views ---------------------------------------------------------------------------------------------------

    def where(self, condition: Condition, order: str = "", last: Condition | None = None) -> fo.DatasetView:
        """A view of the items that meet a condition, made of rules on fields and never of lists of ids.

        The condition is called with a function that returns the expression of a column; the view is sorted by the
        column `order`, the highest first, if the run wrote it; items that meet the condition `last` come
        after the others.
        """
        if self.label_field:
            met = condition(lambda column: F(f"{self.run}_{column}"))
            view = image_samples(self.dataset).filter_labels(self.label_field, met).to_patches(self.label_field)
            prefix = f"{self.label_field}."
        else:
            view = self.dataset.match(F.any([condition(self._field(prefix)) for prefix in self._prefixes]))
            prefix = self._prefixes[0]
        return self._sorted(view, prefix, order, last)

    def without_results(self) -> fo.DatasetView:
        """The items that the run did not write on, such as samples that came later."""
        if self.label_field:
            return self.where(lambda column: ~column("action").exists())
        written = [self._field(prefix)("action").exists() for prefix in self._prefixes]
        return self.dataset.match(~F.any(written))

    def select(self, ids: Sequence[str], order: str = "") -> fo.DatasetView:
        """A view of the rows with these ids, sorted by the column `order` as in `where`."""
        if self.label_field:
            labels = image_samples(self.dataset).select_labels(ids=ids, fields=self.label_field)
            return self._sorted(labels.to_patches(self.label_field), f"{self.label_field}.", order)
        if not self.slices:
            return self._sorted(self.dataset.select(ids), "", order)
        groups = all_samples(self.dataset).select(ids).values(f"{self.dataset.group_field}.id")
        view = self.dataset.select_groups(list(dict.fromkeys(groups)))
        return self._sorted(view, self._prefixes[0], order)

    def _sorted(self, view: fo.DatasetView, prefix: str, order: str, last: Condition | None = None) -> fo.DatasetView:
        if not order or not self.has(order):
            return view
        path = f"{prefix}{self.run}_{order}"
        if last is None:
            return view.sort_by(path, reverse=True)
        return view.sort_by([(last(self._field(prefix)), 1), (path, -1)])

    @property
    def _prefixes(self) -> list[str]:
        """What stands before a field's name in a query, so that it finds groups whatever slice was written on.

        The default slice needs nothing, and is found without looking up the other samples of each group.
        """
        if not self.slices or self.dataset.default_group_slice in self.slices:
            return [""]
        return [f"groups.{name}." for name in self.slices]

    def _field(self, prefix: str) -> Callable[[str], Any]:
        return lambda column: F(f"{prefix}{self.run}_{column}")

    # --- ids -----------------------------------------------------------------------------------------------------

    def samples(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """Row id -> ids of the samples with its results, of a group its own sample first.

        Objects and groups that are not in the dataset are left out.
        """
        if self.label_field:
            documents = self.dataset._sample_collection
            holders: dict[str, list[str]] = {}
            for batch in batches(ids):
                labels_in, rows = {f"{self.objects}._id": {"$in": object_ids(batch)}}, set(batch)
                for document in documents.find(labels_in, {f"{self.objects}._id": 1}):
                    labels = {str(element["_id"]) for element in dig(document, self.objects) or ()}
                    holders |= {label: [str(document["_id"])] for label in labels & rows}
            return holders
        if not self.slices:
            return {name: [name] for name in ids}
        group = self.dataset.group_field
        samples = {}
        for name, members in group_members(self.dataset, ids, {group: 1}).items():
            written = [str(member["_id"]) for member in members if dig(member, f"{group}.name") in self.slices]
            samples[name] = [name, *(other for other in written if other != name)]
        return samples

    def ids_in(self, view: SampleCollection) -> set[str] | None:
        """Ids of the rows in a view, those of all objects of its samples; None for the whole dataset."""
        if view is self.dataset:
            return None
        samples = all_samples(view).values("sample_id" if is_generated(view) else "id")
        if not self.label_field:
            return set(map(str, samples))
        images = image_samples(self.dataset).select(list(map(str, samples)))
        return set(images.values(f"{self.objects}.id", unwind=True))

    # --- writing, under the lease of the dataset -----------------------------------------------------------------

    def write(self, rows: Iterable[tuple[str, Sequence[str], Mapping[str, Any]]]) -> None:
        """Set columns of rows: (id of the row, ids of the samples to write on, column -> value; None removes it).

        All of a sample or object is one update, so that a crash leaves none half written; `set_values` takes one field
        at a time, which is as many times slower as there are fields.
        """
        updates: list[tuple[str, UpdateOne]] = []
        for name, samples, values in rows:
            prefix = f"{self.objects}.$[one]." if self.label_field else ""
            update = update_of({f"{prefix}{self.run}_{column}": value for column, value in values.items()})
            chosen = [{"one._id": ObjectId(name)}] if self.label_field else None
            updates += [(each, UpdateOne({"_id": ObjectId(each)}, update, array_filters=chosen)) for each in samples]
        for batch in batches(updates, CHUNK):
            check_lease(self.dataset)
            # one message to the server, where FiftyOne's own function sends several
            self.dataset._sample_collection.bulk_write([update for _, update in batch], ordered=False)
            samples_written = [sample for sample, _ in batch]
            fo.Sample._reload_docs(self.dataset._sample_collection_name, sample_ids=samples_written)

    def tag(self, ids: Iterable[str], tag: str) -> None:
        """Tag samples, or objects, by id."""
        for batch in batches(ids):
            check_lease(self.dataset)
            if self.label_field:
                self._change_tags(batch, {"$addToSet": {f"{self.objects}.$[one].tags": tag}})
            else:
                all_samples(self.dataset).select(batch).tag_samples(tag)

    def untag(self, ids: Iterable[str], tag: str) -> None:
        """Take a tag from samples, or objects, by id."""
        for batch in batches(ids):
            check_lease(self.dataset)
            if self.label_field:
                self._change_tags(batch, {"$pull": {f"{self.objects}.$[one].tags": tag}})
            else:
                all_samples(self.dataset).select(batch).match_tags(tag).untag_samples(tag)

    def untag_flagged(self, tags: Iterable[str]) -> None:
        """Take the run's tags `{run}:{kind}` from what has that flag: where nobody knows any more what it tagged."""
        documents = self.dataset._sample_collection
        now = {"last_modified_at": datetime.now(UTC)}
        for tag in tags:
            check_lease(self.dataset)
            flag = f"{self.run}_is_{tag.removeprefix(f'{self.run}:')}"
            if self.label_field:
                change = {"$pull": {f"{self.objects}.$[one].tags": tag}, "$set": now}
                flagged = [{f"one.{flag}": True, "one.tags": tag}]
                documents.update_many({f"{self.objects}.{flag}": True}, change, array_filters=flagged)
            else:
                documents.update_many({flag: True, "tags": tag}, {"$pull": {"tags": tag}, "$set": now})
        fo.Sample._reload_docs(self.dataset._sample_collection_name)

    def remove_fields(self) -> None:
        """Remove the run's fields with their values, also where FiftyOne's schema does not know them (any more)."""
        documents = self.dataset._sample_collection
        exists: list[Mapping[str, Any]] = [{path: {"$exists": True}} for path in self.fields]
        if exists:
            below = f"{self.objects}." if self.label_field else ""
            paths = [path.replace(below, f"{below}$[].", 1) if below else path for path in self.fields]
            change = {"$unset": dict.fromkeys(paths, ""), "$set": {"last_modified_at": datetime.now(UTC)}}
            check_lease(self.dataset)
            documents.update_many({"$or": exists}, change)
        if declared := [path for path in self.fields if self.dataset.has_sample_field(path)]:
            check_lease(self.dataset)
            self.dataset.delete_sample_fields(declared)

    def tagged(self, tag: str) -> set[str]:
        """Ids of the samples, or objects, with a tag."""
        if self.label_field:
            return tagged_objects(self.dataset, self.label_field, tag)
        return set(all_samples(self.dataset).match_tags(tag).values("id"))

    def _change_tags(self, ids: Iterable[str], change: dict[str, Any]) -> None:
        labels = {"$in": object_ids(ids)}
        update = {**change, "$set": {"last_modified_at": datetime.now(UTC)}}
        write = UpdateMany({f"{self.objects}._id": labels}, update, array_filters=[{"one._id": labels}])
        self.dataset._bulk_write([write])

    # --- reading -------------------------------------------------------------------------------------------------

    def values(self, columns: Sequence[str]) -> dict[str, list[Any]]:
        """Column, or "id" -> value of each audited group or object, in the order of the dataset.

        Where rows are samples, `results.tables` reads faster.
        """
        names = ["action", *columns]
        if self.label_field:
            paths = [f"{self.objects}.id" if name == "id" else self.path(name) for name in names]
            values = image_samples(self.dataset).values(paths, unwind=True)
        else:
            group = self.dataset.group_field
            paths = ["id" if name == "id" else self.path(name) for name in names]
            members = self.dataset.select_group_slices(list(self.slices), _allow_mixed=True)
            groups, slices, *values = members.values([f"{group}.id", f"{group}.name", *paths])
            chosen = self._first_slices(groups, slices)
            values = [[column[row] for row in chosen] for column in values]
        audited = [row for row, action in enumerate(values[0]) if action is not None]
        return {name: [column[row] for row in audited] for name, column in zip(columns, values[1:], strict=True)}

    def _first_slices(self, groups: Sequence[str], slices: Sequence[str]) -> list[int]:
        """Position of each group's sample in the first of the slices, groups in the order in which they appear."""
        order = np.array([self.slices.index(name) for name in slices], dtype=np.int64)
        first: dict[str, int] = {}
        for row in np.argsort(order, kind="stable").tolist():
            first.setdefault(groups[row], row)
        return [first[name] for name in dict.fromkeys(groups)]


def group_members(dataset: fo.Dataset, ids: Iterable[str], projection: Mapping[str, int]) -> dict[str, list[Document]]:
    """Sample id -> documents of all samples of its group, in the order of the slices; of the one sample otherwise."""
    documents = documents_by_id(dataset._sample_collection, ids, projection)
    field = dataset.group_field
    if not field:
        return {name: [document] for name, document in documents.items()}
    order = {name: position for position, name in enumerate(dataset.group_slices)}
    groups: dict[Any, list[Document]] = {dig(document, f"{field}._id"): [] for document in documents.values()}
    for batch in batches(groups):
        for document in dataset._sample_collection.find({f"{field}._id": {"$in": batch}}, projection):
            groups[dig(document, f"{field}._id")].append(document)
    for members in groups.values():
        members.sort(key=lambda document: order.get(dig(document, f"{field}.name"), len(order)))
    return {name: groups[dig(document, f"{field}._id")] for name, document in documents.items()}


def objects_path(label_field: str) -> str:
    """Path of the objects of a field of detections in a sample."""
    return f"{label_field}.detections"


def is_generated(view: SampleCollection) -> bool:
    """Whether the rows of a view are patches, frames or clips."""
    return bool(getattr(view, "_is_generated", False))


def ungrouped(view: SampleCollection) -> SampleCollection:
    """The samples of a view that `group_by` made (dynamic groups), as rows of their own; any other view as it is."""
    return view.flatten() if getattr(view, "_is_dynamic_groups", False) else view


def check_editable(dataset: fo.Dataset, paths: Iterable[str], doing: str) -> None:
    """Raises `AuditError` for the first field that its owner made read-only: FiftyOne itself refuses to write it."""
    for path in paths:
        parts = path.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            field = dataset.get_field(name)
            if field is not None and field.read_only:
                raise AuditError(
                    f"field {name!r} of dataset {dataset.name!r} is read-only and {doing} would change it; nothing was "
                    f"changed. To allow it: field = dataset.get_field({name!r}); field.read_only = False; field.save()"
                )


def objects_field(view: SampleCollection) -> str:
    """The field of a view of patches whose objects are its rows; "" for a view of samples.

    Raises:
        AuditError: a view of frames, of clips, of an evaluation, or of patches that are not boxes.
    """
    if not is_generated(view):
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
            f"the patches of {field!r} in {name!r} are not single detections; pass to_patches of a field of detections"
        )
    return str(field)


def patches_of(view: SampleCollection, field: str) -> SampleCollection:
    """One row per object of a field.

    Raises:
        AuditError: no such field of detections.
    """
    detections = detection_fields(view)
    if is_generated(view) or field not in detections:
        choices = f"its fields of detections are {', '.join(detections)}" if detections else "it has no detections"
        raise AuditError(f"patches field {field!r} is not a field of detections of the dataset; {choices}")
    return image_samples(view).to_patches(field)


def detection_fields(view: SampleCollection) -> list[str]:
    """Paths of the fields of detections."""
    fields = view.get_field_schema(ftype=fo.EmbeddedDocumentField)
    return [path for path, field in fields.items() if field.document_type is fo.Detections]


def image_samples(view: SampleCollection) -> SampleCollection:
    """The samples with images: of a grouped dataset, those of every slice of images."""
    return view.select_group_slices(media_type="image") if view.media_type == "group" else view


def all_samples(view: SampleCollection) -> SampleCollection:
    """All samples, of every slice: of a grouped dataset, queries see the active slice alone."""
    return view.select_group_slices(_allow_mixed=True) if view.media_type == "group" else view


def tagged_objects(dataset: fo.Dataset, field: str, tag: str) -> set[str]:
    """Ids of the objects of a field with a tag."""
    view = image_samples(dataset).select_labels(tags=tag, fields=field)
    return set(view.values(f"{objects_path(field)}.id", unwind=True))


def existing_attributes(dataset: fo.Dataset, field: str, names: Iterable[str]) -> list[str]:
    """Those of the names that objects have as attributes already, declared in the dataset or not."""
    paths = {name: f"{objects_path(field)}.{name}" for name in names}
    documents = dataset._sample_collection
    any_of: list[Mapping[str, Any]] = [{path: {"$exists": True}} for path in paths.values()]
    undeclared = bool(any_of) and documents.find_one({"$or": any_of}, {"_id": 1}) is not None

    def exists(path: str) -> bool:
        if dataset.has_sample_field(path):
            return True
        return undeclared and documents.find_one({path: {"$exists": True}}, {"_id": 1}) is not None

    return [name for name, path in paths.items() if exists(path)]
