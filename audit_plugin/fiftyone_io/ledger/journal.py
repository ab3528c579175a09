"""The journal: what a change set is about to change, exactly, written before anything of the dataset is touched.

Every write is conditional on the value that it replaces, so that each may be repeated: a broken change set is finished,
or undone, by doing all of it again. An entry is a value at a path (`set`), the mark of a removal (`tag`) or a whole
document that is to be deleted (`copy`, byte for byte).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
import fiftyone.core.tags as fot
from bson import ObjectId
from bson.codec_options import CodecOptions
from pymongo import ReplaceOne, UpdateOne
from pymongo.errors import DocumentTooLarge

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import RAW, batches, collection, dig, object_ids, outermost, value_at
from audit_plugin.fiftyone_io.lease import JOURNALED, Lease, next_number
from audit_plugin.fiftyone_io.leftovers import CHANGE_SETS, JOURNAL
from audit_plugin.fiftyone_io.read.contents import REMOVED

CHUNK = 5_000
Entry = Mapping[str, Any]


def change_sets() -> Any:
    """The collection of change sets, one document each."""
    return collection(CHANGE_SETS, "dataset").with_options(write_concern=JOURNALED)


def journal(raw: bool = False) -> Any:
    """The collection of entries; `raw` gives documents with their original bytes."""
    # values of samples are compared with these: as FiftyOne reads them, without time zones
    return collection(JOURNAL, "set n", RAW if raw else CodecOptions()).with_options(write_concern=JOURNALED)


def begin(
    dataset: fo.Dataset, lease: Lease, kind: str, run: str, entries: Iterable[Entry], facts: Mapping[str, Any]
) -> ObjectId:
    """Write a change set and its entries, then mark it as being carried out.

    Raises:
        AuditError: a document is too large to be copied, or another process took the unfinished set for a broken one.
    """
    order = next_number(dataset)
    record = {"dataset": dataset._doc.id, "kind": kind, "run": run, "state": "planned", "time": datetime.now(UTC)}
    record |= {"number": order, "order": order, "operation": lease.owner, "begun_by": lease.owner}
    number: ObjectId = change_sets().insert_one({**record, **facts}).inserted_id
    numbered = ({**entry, "set": number, "n": n} for n, entry in enumerate(entries))
    try:
        for batch in batches(numbered, CHUNK):
            journal().insert_many(batch, ordered=False)
    except DocumentTooLarge as error:
        discard(number)
        raise AuditError("a sample is too large to be copied before it is deleted; nothing was changed") from error
    if not advance(number, "planned", "writing"):
        discard(number)
        raise AuditError("another process took the change set for a broken one; nothing was changed, try again")
    return number


def advance(number: ObjectId, old: str, new: str, **facts: Any) -> bool:
    """Move a change set on to its next state; False where it is not in the old one, since another process moved it."""
    change = {"$set": {"state": new, **facts}}
    return bool(change_sets().update_one({"_id": number, "state": old}, change).matched_count)


def state_of(number: ObjectId) -> str:
    """The state of a change set, "" of one that is gone."""
    document = change_sets().find_one({"_id": number}, {"state": 1})
    return document["state"] if document else ""


def discard(number: ObjectId) -> bool:
    """Forget a change set that changed nothing; False where it is being carried out, and stays."""
    if not advance(number, "planned", "discarding") and state_of(number) not in ("discarding", ""):
        return False
    journal().delete_many({"set": number})
    change_sets().delete_one({"_id": number, "state": "discarding"})
    return True


def newest_first(dataset: fo.Dataset, order: str, query: Mapping[str, Any]) -> Any:
    """The change sets of a dataset that meet a query, by the counter when they were begun (`number`) or last changed.

    `order` names the one or the other.
    Those of former versions, which had no counter, come last.
    """
    return change_sets().find({"dataset": dataset._doc.id, **query}).sort([(order, -1), ("_id", -1)])


def in_force(dataset: fo.Dataset) -> dict[str, Any]:
    """The query for the entries of the decisions that were carried out and not undone."""
    query = {"dataset": dataset._doc.id, "kind": "apply", "state": {"$in": ["writing", "applied"]}}
    sets = [document["_id"] for document in change_sets().find(query, {"_id": 1})]
    return {"set": {"$in": sets}, "missed": {"$ne": True}}


def shortened_lists(dataset: fo.Dataset) -> set[str]:
    """Ids of samples and objects whose lists of texts lost some by decisions that were carried out and not undone."""
    lists = {**in_force(dataset), "op": "set", "before": {"$type": "array"}, "after": {"$type": "array"}}
    entries = journal().find(lists, {"sample": 1, "label": 1, "before": 1, "after": 1})
    return {str(e.get("label") or e["sample"]) for e in entries if len(e["before"]) != len(e["after"])}


def entries_of(number: ObjectId, raw: bool = False) -> Iterator[list[Any]]:
    """The entries of a change set that count, in parts."""
    return batches(journal(raw).find({"set": number, "missed": {"$ne": True}}).sort("n", 1).batch_size(CHUNK), CHUNK)


def write(dataset: fo.Dataset, entries: list[Entry], back: bool = False, force: bool = False) -> list[Entry]:
    """Carry out `set` and `tag` entries, or take them `back`; with `force` whatever the values are now.

    Returns:
        Those whose value is not the written one afterward, because another process changed it.
    """
    updates = [_update(entry, back, force) for entry in entries]
    done = dataset._sample_collection.bulk_write(updates, ordered=False)
    ids = list({str(entry["sample"]) for entry in entries})
    fo.Sample._reload_docs(dataset._sample_collection_name, sample_ids=ids)
    return [] if done.matched_count == len(entries) else differing(dataset, entries, "before" if back else "after")


def differing(dataset: fo.Dataset, entries: list[Entry], side: str) -> list[Entry]:
    """The entries whose value in the dataset is not that of `side` (before or after)."""
    # MongoDB shows no single element of a list: the whole field is read
    roots = {entry["root"] if entry["op"] == "set" or entry.get("label") else "tags" for entry in entries}
    ids = list({entry["sample"] for entry in entries})
    matches = dataset._sample_collection.find({"_id": {"$in": ids}}, dict.fromkeys(outermost(roots), 1))
    documents = {document["_id"]: document for document in matches}
    return [entry for entry in entries if not _has_value(documents.get(entry["sample"]), entry, side)]


def _has_value(document: Any, entry: Entry, side: str) -> bool:
    if document is None:
        return False
    value = document
    if entry.get("label"):
        labels = dig(document, entry["root"]) or ()
        value = next((label for label in labels if label.get("_id") == entry["label"]), None)
        if value is None:
            return False
    if entry["op"] == "tag":
        return (REMOVED in (value.get("tags") or ())) == entry[side]
    return bool(value_at(value, entry["path"]) == ([entry[side]] if side in entry else []))


def _update(entry: Entry, back: bool, force: bool) -> UpdateOne:
    """The write of one entry, conditional on the value that it replaces."""
    old, new = ("after", "before") if back else ("before", "after")
    label, root = entry.get("label"), entry.get("root")
    path = "tags" if entry["op"] == "tag" else entry["path"]
    if entry["op"] == "tag":
        condition: Any = {"$ne": REMOVED} if entry[new] else REMOVED
        change: dict[str, Any] = {"$push" if entry[new] else "$pull": {}}
        value = REMOVED
    else:
        condition = {"$eq": entry[old], "$exists": True} if old in entry else {"$exists": False}
        change = {"$set" if new in entry else "$unset": {}}
        value = entry.get(new, "")
    if force:
        # a value set beyond the end of a list would fill it up with nulls
        condition = condition if entry["op"] == "tag" else {} if "." not in path else {"$exists": True}
    name = f"{root}.$[one].{path}" if label else path
    next(iter(change.values()))[name] = value
    change.setdefault("$set", {})["last_modified_at"] = datetime.now(UTC)
    query: dict[str, Any] = {"_id": entry["sample"]}
    if label:
        query[str(root)] = {"$elemMatch": {"_id": label, **({path: condition} if condition != {} else {})}}
        return UpdateOne(query, change, array_filters=[{"one._id": label}])
    return UpdateOne({**query, path: condition} if condition != {} else query, change)


def copies(dataset: fo.Dataset, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All documents that go away with samples: their own, their frames, their tags in time."""
    names = {dataset._sample_collection_name: "_id"}
    if dataset._contains_videos(any_slice=True):
        names[dataset._frame_collection_name] = "_sample_id"
    timed = fot._get_existing_collection()
    if timed is not None:
        names[timed.name] = "_sample_id"
    for name, key in names.items():
        documents = foo.get_db_conn().get_collection(name, codec_options=RAW)
        for batch in batches(ids, CHUNK):
            for document in documents.find({key: {"$in": object_ids(batch)}}):
                yield {"op": "copy", "collection": name, "id": document["_id"], "document": document, "decisions": []}


def put_back(dataset: fo.Dataset, number: ObjectId, force: bool) -> None:
    """Write the copies of a deletion where they were; what exists stays, unless forced."""
    for name, entries, present in copies_by_collection(number):
        missing = [entry for entry in entries if force or entry["id"] not in present]
        if missing:
            writes = [ReplaceOne({"_id": entry["id"]}, entry["document"], upsert=True) for entry in missing]
            foo.get_db_conn()[name].bulk_write(writes, ordered=False)
    dataset.reload()


def copies_by_collection(number: ObjectId) -> Iterator[tuple[str, list[Any], set[Any]]]:
    """The copies of a deletion in parts: (collection, entries of it, ids of those documents that exist in it)."""
    for batch in entries_of(number, raw=True):
        for name in dict.fromkeys(entry["collection"] for entry in batch):
            entries = [entry for entry in batch if entry["collection"] == name]
            query = {"_id": {"$in": [entry["id"] for entry in entries]}}
            yield name, entries, {document["_id"] for document in foo.get_db_conn()[name].find(query, {"_id": 1})}
