"""What this tool stored in the database for datasets that do not exist any more: listed, and swept away.

So are datasets that were being made by a process that died: until a new dataset is whole, its name is `UNFINISHED` with
the machine and process that make it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
import gridfs
from mongoengine.errors import MongoEngineException

from .database import database
from .lease import LEASES, is_alive, machine_id

PREFIX = "audit_plugin."
SPOT_CHECKS = f"{PREFIX}spot_checks"
CHANGE_SETS, JOURNAL = f"{PREFIX}change_sets", f"{PREFIX}journal"
EXPORTS = f"{PREFIX}exports"  # clean datasets that are being made, under a temporary name
FILES = f"{PREFIX}files"  # results files that may not be named by any run, see `records`
UNFINISHED = "audit-unfinished"  # begins the name of a dataset that is being made
ABANDONED = timedelta(days=1)  # without a lease: made on another machine, whose processes cannot be seen from here
HELD: dict[str, Any] = {"owner": {"$ne": None}, "$expr": {"$gt": ["$expires", "$$NOW"]}}  # of a lease
OUR_RUNS = {"config.cls": {"$regex": r"^audit_plugin\."}}
OUR_VIEWS = {"name": {"$regex": "(_flagged|_one_sided)$|^audit_clean$"}}


@dataclass(frozen=True)
class Leftover:
    """What a collection holds of datasets that do not exist any more."""

    collection: str
    documents: int
    bytes: int


def leftovers() -> list[Leftover]:
    """What `sweep` would delete, one entry for each collection that has any of it."""
    with database("reading what deleted datasets left behind"):
        return _leftovers(foo.get_db_conn())


def _leftovers(connection: Any) -> list[Leftover]:
    size = {"$group": {"_id": None, "documents": {"$sum": 1}, "bytes": {"$sum": {"$bsonSize": "$$ROOT"}}}}
    remains = []
    for name, query in _queries():
        files = connection["fs.files"].find({"_id": {"$in": _results_of(name, query)}}, {"length": 1})
        stored = sum(file["length"] for file in files)
        for total in connection[name].aggregate([{"$match": query}, size]):
            remains.append(Leftover(name, int(total["documents"]), int(total["bytes"] + stored)))
    samples = [document["sample_collection_name"] for document in _abandoned()]
    if samples:
        sizes = (total["bytes"] for name in samples for total in connection[name].aggregate([size]))
        remains.append(Leftover("datasets", len(samples), int(sum(sizes))))
    return remains


def sweep_deleted() -> None:
    """`sweep` if one indexed query finds a dataset that this tool wrote for and that was deleted since.

    Every dataset that this tool wrote for has a lease, which a sweep removes last.
    """
    same = {"$match": {"$expr": {"$eq": ["$_id", "$$id"]}}}
    exists = {"from": "datasets", "let": {"id": "$_id"}, "pipeline": [same, {"$project": {"_id": 1}}], "as": "exists"}
    gone = [{"$match": {"$nor": [HELD]}}, {"$lookup": exists}, {"$match": {"exists": []}}, {"$limit": 1}]
    with database("looking for what deleted datasets left behind"):
        if list(foo.get_db_conn()[LEASES].aggregate(gone)):
            sweep()


def sweep() -> list[Leftover]:
    """Delete what `leftovers` lists, and return it."""
    with database("removing what deleted datasets left behind"):
        connection = foo.get_db_conn()
        remains = _leftovers(connection)
        if remains:
            _delete(connection)
    return remains


def _delete(connection: Any) -> None:
    files = gridfs.GridFS(connection)
    names = [document["name"] for document in _abandoned()]
    for name, query in _queries():
        for number in _results_of(name, query):
            files.delete(number)
        if name == EXPORTS:
            names += connection[name].distinct("temporary", query)
        connection[name].delete_many(query)
    for name in names:
        with contextlib.suppress(ValueError, MongoEngineException):  # not made yet, or another process was faster
            fo.delete_dataset(name)


def _queries() -> Iterator[tuple[str, dict[str, Any]]]:
    """(collection, query for what it holds of datasets that do not exist), of collections that have such documents.

    What a collection names is read before the datasets that exist: none that comes meanwhile is taken for gone. One
    that a process still has the lease of is left for later: that process may be writing. The leases come last.
    """
    connection = foo.get_db_conn()
    names = connection.list_collection_names(filter={"name": {"$regex": rf"^{PREFIX}|^runs$|^views$"}})
    for name in sorted(names, key=lambda name: (name == LEASES, name)):
        ours = {"runs": OUR_RUNS, "views": OUR_VIEWS}.get(name, {})
        if name == JOURNAL:  # its entries belong to change sets, which belong to datasets
            sets = set(connection[name].distinct("set"))
            changes = list(connection[CHANGE_SETS].find({}, {"dataset": 1}))
            existing = _existing_or_held()
            gone = sets - {change["_id"] for change in changes if change["dataset"] in existing}
            query: dict[str, Any] = {"set": {"$in": list(gone)}}
        else:
            field = {"runs": "_dataset_id", "views": "_dataset_id", LEASES: "_id"}.get(name, "dataset")
            gone = set(connection[name].distinct(field, ours)) - _existing_or_held()
            query = {**ours, field: {"$in": list(gone)}}
        if gone:
            yield name, query


def unfinished_name() -> str:
    """A name for a dataset that this process is making."""
    return f"{UNFINISHED}-{_machine_name()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _abandoned() -> list[dict[str, Any]]:
    """The documents of datasets whose maker is dead."""
    connection = foo.get_db_conn()
    names = {"name": {"$regex": f"^{UNFINISHED}-[0-9a-f]+-[0-9]+-[0-9a-f]+$"}}
    abandoned = []
    for document in connection["datasets"].find(names, {"name": 1, "sample_collection_name": 1}):
        made_on, pid = document["name"].removeprefix(f"{UNFINISHED}-").split("-")[:2]
        if made_on == _machine_name():
            is_abandoned = not is_alive(int(pid))
        else:
            is_leased = {"_id": document["_id"], **HELD}
            is_old = datetime.now(UTC) - document["_id"].generation_time > ABANDONED
            is_abandoned = is_old and connection[LEASES].find_one(is_leased, {"_id": 1}) is None
        if is_abandoned:
            abandoned.append(document)
    return abandoned


def _machine_name() -> str:
    return hashlib.sha256(machine_id().encode()).hexdigest()[:8]


def _existing_or_held() -> set[Any]:
    """Ids of the datasets that exist, or that a process still has the lease of which is not seen to be dead."""
    leases = foo.get_db_conn()[LEASES].find(HELD, {"machine": 1, "pid": 1})  # `distinct` knows no server's time
    held = [lease["_id"] for lease in leases if lease["machine"] != machine_id() or is_alive(lease["pid"])]
    return {*held, *existing_datasets()}


def existing_datasets() -> dict[Any, str]:
    """Id -> name of all datasets."""
    return {each["_id"]: each["name"] for each in foo.get_db_conn()["datasets"].find({}, {"name": 1})}


def _results_of(name: str, query: dict[str, Any]) -> list[Any]:
    """Ids of the results files that go away with the documents of a query."""
    field = {"runs": "results", FILES: "_id"}.get(name)
    return [] if field is None else list(filter(None, foo.get_db_conn()[name].distinct(field, query)))
