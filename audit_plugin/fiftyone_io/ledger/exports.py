"""What leaves a review: a dataset without the removed, decisions as a table, a list of removed ids."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import collection, database
from audit_plugin.fiftyone_io.lease import JOURNALED, Lease, leased
from audit_plugin.fiftyone_io.leftovers import EXPORTS, unfinished_name
from audit_plugin.fiftyone_io.read.contents import REMOVED
from audit_plugin.fiftyone_io.read.items import all_samples, detection_fields, tagged_objects
from audit_plugin.review import (
    UNDONE,
    Decision,
    check_decision,
    check_name,
    check_path,
    decisions_to_csv,
    decisions_to_jsonl,
    read_decisions,
    shortened,
    table_kind,
)
from audit_plugin.store import write_atomically

from .clean_view import clean_view
from .decisions import WAIT_SECONDS, completed, current_time, decisions, default_reviewer, show, storable, write
from .entries import ids_in_ledger


def export_clean(dataset: SampleCollection, name: str) -> fo.Dataset:
    """A persistent copy of the dataset without what is marked as removed; media files are shared, not copied.

    It is made under a temporary name, and renamed when it is complete.

    Raises:
        AuditError: another process is changing the dataset, or there is a dataset of that name.
    """
    root = dataset._root_dataset
    check_name("name", name)
    with database(f"cloning dataset {root.name!r}"):
        with leased(root, "copying it without the removed samples") as lease:
            if (complete := _remove_unfinished(root, name)) is not None:
                return complete
            _check_free(name)
            clone = _clone(root, lease, name)
        # not before: what stands under the name is ours, if this command is given again after a crash at the end
        _exports().delete_many({"clone": clone._doc.id})
    return clone


def _clone(dataset: fo.Dataset, lease: Lease, name: str) -> fo.Dataset:
    """The copy; a record that is written first says what is ours."""
    temporary = unfinished_name()
    record = {"dataset": dataset._doc.id, "name": name, "temporary": temporary, "source": _state(dataset)}
    number = _exports().insert_one(record).inserted_id
    marked = [path for path in detection_fields(dataset) if tagged_objects(dataset, path, REMOVED)]
    clone = clean_view(dataset, marked).clone(temporary, persistent=True)
    lease.check()
    _exports().update_one({"_id": number}, {"$set": {"clone": clone._doc.id}})
    try:
        clone.name = name
    except ValueError as error:  # another process took the name meanwhile
        clone.delete()
        raise AuditError(f"{str(error).rstrip('.')}; choose another name") from error
    return clone


def _remove_unfinished(dataset: fo.Dataset, name: str) -> fo.Dataset | None:
    """Delete the copies that interrupted exports left half done; the complete one, where its export is given again."""
    complete = None
    for record in list(_exports().find({"dataset": dataset._doc.id})):
        if fo.dataset_exists(record["temporary"]):
            fo.delete_dataset(record["temporary"])
        elif (record["name"], record["source"]) == (name, _state(dataset)) and fo.dataset_exists(name):
            clone = fo.load_dataset(name)
            complete = clone if clone._doc.id == record.get("clone") else complete
        _exports().delete_one({"_id": record["_id"]})
    return complete


def _state(dataset: fo.Dataset) -> list[str]:
    """What differs after any change of the samples."""
    samples = dataset._sample_collection
    last = samples.find_one({}, {"last_modified_at": 1}, sort=[("last_modified_at", -1)]) or {}
    return [str(samples.count_documents({})), str(last.get("last_modified_at"))]


def _check_free(name: str) -> None:
    if fo.dataset_exists(name):
        raise AuditError(f"dataset {name!r} exists already; choose another name")
    try:
        fo.core.dataset._validate_dataset_name(name)
    except ValueError as error:
        raise AuditError(f"a dataset cannot be named {shortened(name)} ({error}); choose another name") from error


def _exports() -> Any:
    return collection(EXPORTS, "dataset").with_options(write_concern=JOURNALED)


def export_decisions(dataset: SampleCollection, path: str | Path, run: str | None = None) -> int:
    """Write the whole ledger, or that of one audit, as .csv or .jsonl; the number of entries.

    Raises:
        AuditError: another ending, or the file cannot be written.
    """
    target = check_path("path", path)
    kind = table_kind(target)
    entries = decisions(dataset, run)
    text = decisions_to_csv(entries) if kind == "csv" else decisions_to_jsonl(entries)
    write_atomically(target, lambda file: file.write(text.encode()))
    return len(entries)


def import_decisions(
    dataset: SampleCollection, path: str | Path, run: str = "", key: str = "id", reviewer: str = ""
) -> int:
    """Read decisions made elsewhere into the ledger, all or none; the number of new ones.

    Entries that the ledger has already are left out, so that a table may be read twice: those with the same `id`, or,
    of rows without one, with the same content (the nth of several equal rows is that row read before).

    Args:
        dataset: the dataset, or a view of it.
        path: .csv or .jsonl with the columns `sample` and `kind` at least.
        run: audit whose texts are meant, where the table names none.
        key: field by whose values `sample` names samples (id, filepath, manifest_id, ...).
        reviewer: where the table names none.

    Raises:
        AuditError: the table cannot be read, or a row cannot be used; nothing is imported then.
    """
    root, source = dataset._root_dataset, check_path("path", path)
    check_name("run", run)
    check_name("key", key)
    name = check_name("reviewer", reviewer) or default_reviewer()
    rows = read_decisions(source)
    for position, row in enumerate(rows, 1):
        _check_row(position, row)
    with database(f"importing decisions into {root.name!r}"), leased(root, "importing", WAIT_SECONDS) as lease:
        show(root)
        rows = [replace(d, run=d.run or run, reviewer=d.reviewer or name) for d in rows]
        rows = [replace(d, sample=sample) for d, sample in zip(rows, _samples(root, rows, key), strict=True)]
        rows = _with_ids(rows)
        existing = ids_in_ledger(root, [d.id for d in rows])
        new = [replace(d, source="import") for d in rows if d.id not in existing]
        write(root, lease, _completed_rows(root, new))
    return len(new)


def _check_row(position: int, row: Decision) -> None:
    try:
        check_decision(row)
        if row.kind == UNDONE and not row.undoes:
            raise AuditError("it names no decision that it undoes")
    except AuditError as error:
        raise AuditError(f"decision {position} of the table is invalid ({error}); fix or remove it") from error


def _with_ids(rows: Sequence[Decision]) -> list[Decision]:
    """Rows with an id each, made of its content and its number among equal ones, in the order of their ledger."""
    named = []
    seen: Counter[str] = Counter()
    for row in rows:
        name = row.id
        if not name:
            content = json.dumps(astuple(replace(row, number=0)), default=str)
            digest = hashlib.sha256(content.encode()).hexdigest()[:32]
            seen[digest] += 1
            name = f"row-{digest}-{seen[digest]}"
        named.append(replace(row, id=name))
    if repeated := [name for name, count in Counter(row.id for row in named).items() if count > 1]:
        raise AuditError(f"decision {repeated[0]!r} stands twice in the table; remove one of them")
    return sorted(named, key=lambda row: (row.number, row.time))  # stable: rows without either stay in their order


def _completed_rows(dataset: fo.Dataset, rows: Sequence[Decision]) -> list[Decision]:
    """The entries of the ledger that the rows become, in their order."""
    runs, batch = dataset.list_runs(), str(ObjectId()) if len(rows) > 1 else ""
    entries = {row.id: storable(row, current_time()) for row in rows if row.kind == UNDONE}
    made = [row for row in rows if row.kind != UNDONE]
    for run in dict.fromkeys(row.run for row in made):
        # through the ledger's own checks, with objects named by their own ids
        named = [replace(row, sample=row.label or row.sample) for row in made if row.run == run]
        for entry in completed(dataset, named, run if run in runs else ""):
            entries[entry.id] = entry
    return [replace(entries[row.id], batch=row.batch or batch) for row in rows]


def export_removed(dataset: SampleCollection, path: str | Path, field: str = "id") -> int:
    """Write each removed sample's id, filepath, or whatever names it for training scripts, one per line; their number.

    Raises:
        AuditError: no such field, or a value that does not fit into one line.
    """
    root, target = dataset._root_dataset, check_path("path", path)
    if not root.has_sample_field(check_name("field", field)):
        raise AuditError(f"field {field!r} does not exist in dataset {root.name!r}; name one such as id or filepath")
    values = [str(value) for value in all_samples(root).match_tags(REMOVED).values(field)]
    if broken := [value for value in values if value.splitlines() != [value]]:
        raise AuditError(f"value {broken[0]!r} of field {field!r} does not fit into one line; name another field")
    write_atomically(target, lambda file: file.write("".join(f"{value}\n" for value in values).encode()))
    return len(values)


def _samples(dataset: fo.Dataset, rows: Sequence[Decision], key: str) -> list[str]:
    """The id of each row's sample."""
    if key == "id":
        return [d.sample for d in rows]
    if not dataset.has_sample_field(key):
        raise AuditError(f"key field {key!r} does not exist in dataset {dataset.name!r}; name one, such as filepath")
    values, ids = all_samples(dataset).values([key, "id"])
    ids_of: dict[str, list[str]] = {}
    for value, name in zip(values, ids, strict=True):
        ids_of.setdefault(str(value), []).append(name)
    for decision in rows:
        count = len(ids_of.get(decision.sample, ()))
        if count != 1:
            raise AuditError(f"{count} samples have the {key} {decision.sample!r} of a decision; each must name one")
    return [ids_of[d.sample][0] for d in rows]
