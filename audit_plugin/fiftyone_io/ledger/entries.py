"""The entries of the ledger in the database: in the order of a counter, written all or none, never changed.

Entries that are written together count from one write on, which moves the ledger's head past their numbers. What a
process wrote that died before, or that another process took for dead, lies beyond the head or in a gap: it does not
count. The head stands with the lease of the dataset. Former versions wrote entries without numbers, which come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
from pymongo import ReturnDocument

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import batches, collection, ensure_index
from audit_plugin.fiftyone_io.lease import JOURNALED, LEASES, Lease
from audit_plugin.review import Decision

LEDGER = "audit_plugin.decisions"
NAMES = tuple(f.name for f in fields(Decision))
CHUNK = 5_000


@dataclass(frozen=True)
class Head:
    """How far a ledger goes.

    Attributes:
        number: of its last entry.
        gaps: first and last number of each gap, whose entries do not count.
        shown: number up to which the decisions are shown on the samples.
    """

    number: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    shown: int = 0

    def counts(self, number: int) -> bool:
        """Whether an entry counts; those of former versions have the number 0."""
        return number <= self.number and not any(first <= number <= last for first, last in self.gaps)


def read_head(dataset: fo.Dataset) -> Head:
    """How far the ledger of a dataset goes; without a head, to its last entry."""
    state = _heads().find_one({"_id": dataset._doc.id}, {"ledger": 1})
    if state and "ledger" in state:
        return _head_of(state["ledger"])
    last = _last_number(dataset)
    return Head(last, (), last)


def read_ledger(dataset: fo.Dataset, query: dict[str, Any]) -> list[Decision]:
    """Entries that meet a query, in the order of the ledger."""
    head = read_head(dataset)
    documents = list(ledger().find({"dataset": dataset._doc.id, **query}))
    entries = [Decision(**{name: document[name] for name in NAMES if name in document}) for document in documents]
    return sorted((entry for entry in entries if head.counts(entry.number)), key=lambda entry: entry.order)


def ids_in_ledger(dataset: fo.Dataset, ids: Iterable[str]) -> set[str]:
    """Those of the ids that entries of the ledger have."""
    return {entry.id for batch in batches(ids) for entry in read_ledger(dataset, {"id": {"$in": batch}})}


def append(dataset: fo.Dataset, lease: Lease, entries: Sequence[Decision]) -> list[Decision]:
    """Write entries at the end of the ledger, all or none, under the lease; with their numbers.

    Raises:
        AuditError: another process took the lease over meanwhile.
    """
    if not entries:
        return []
    this = {"_id": dataset._doc.id}
    _begin_head(dataset)
    # from here on nobody who took numbers before can move the head: what they wrote may go
    taken = {"$inc": {"ledger.taken": len(entries)}}
    state = _heads().find_one_and_update(this, taken, return_document=ReturnDocument.AFTER)["ledger"]
    head, last = _head_of(state), state["taken"]
    first = last - len(entries) + 1
    beyond = [{"number": {"$gt": head.number}}, *({"number": {"$gte": a, "$lte": b}} for a, b in head.gaps)]
    ledger().delete_many({"dataset": dataset._doc.id, "$or": beyond})
    numbered = [replace(entry, number=number) for number, entry in enumerate(entries, first)]
    facts = {"dataset": dataset._doc.id, "operation": lease.owner}
    for batch in batches(numbered, CHUNK):
        ledger().insert_many([{**facts, **asdict(entry)} for entry in batch], ordered=False)
    gap = [[head.number + 1, first - 1]] if first > head.number + 1 else []
    advanced = {"$set": {"ledger.head": last}, "$push": {"ledger.gaps": {"$each": gap}}}
    if not _heads().update_one({**this, "ledger.taken": last}, advanced).matched_count:
        ledger().delete_many({"dataset": dataset._doc.id, "number": {"$gte": first, "$lte": last}})
        raise AuditError(
            f"another process took over dataset {dataset.name!r} while decisions were written; none of them was "
            "written, repeat the command"
        )
    return numbered


def last_interrupted(dataset: fo.Dataset, lease: Lease, reviewers: Iterable[str]) -> tuple[str, list[Decision]]:
    """The owner of the last operation of these reviewers and what it wrote, if it did not end; else "" and nothing.

    Whoever gave its command may give it again.
    """
    if not lease.interrupted:
        return "", []
    head, names = read_head(dataset), sorted(set(reviewers))
    query = {"dataset": dataset._doc.id, "reviewer": {"$in": names}, "number": {"$lte": head.number}}
    newest = next((d for d in ledger().find(query).sort("number", -1) if head.counts(d["number"])), None)
    owner = (newest or {}).get("operation", "")
    return (owner, read_ledger(dataset, {"operation": owner})) if owner in lease.interrupted else ("", [])


def set_shown(dataset: fo.Dataset, number: int) -> None:
    """The decisions up to a number are shown on the samples."""
    _heads().update_one({"_id": dataset._doc.id, "ledger": {"$exists": True}}, {"$max": {"ledger.shown": number}})


def ledger() -> Any:
    """The collection, indexed."""
    entries = collection(LEDGER, "dataset sample")
    ensure_index(entries, "dataset id", unique=True)
    ensure_index(entries, "dataset number")
    return entries.with_options(write_concern=JOURNALED)


def _begin_head(dataset: fo.Dataset) -> None:
    """Make the head of a ledger that has none."""
    if "ledger" in (_heads().find_one({"_id": dataset._doc.id}, {"ledger": 1}) or {}):
        return
    last = _last_number(dataset)
    head = {"head": last, "taken": last, "gaps": [], "shown": last}
    _heads().update_one({"_id": dataset._doc.id, "ledger": {"$exists": False}}, {"$set": {"ledger": head}})


def _last_number(dataset: fo.Dataset) -> int:
    last = ledger().find_one({"dataset": dataset._doc.id}, {"number": 1}, sort=[("number", -1)])
    return int((last or {}).get("number", 0))


def _head_of(state: Mapping[str, Any]) -> Head:
    gaps = tuple((first, last) for first, last in state["gaps"])
    return Head(state["head"], gaps, state["shown"])


def _heads() -> Any:
    return foo.get_db_conn().get_collection(LEASES, write_concern=JOURNALED)
