"""Apply decisions, and undo them exactly; both survive a crash half way.

Relabels change texts. Removals only mark samples (`audit:removed`) and save a view without them; deleting the marked
samples is a step of its own, with a copy of each in the journal. Media files are never touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
from bson import ObjectId
from bson.errors import InvalidId
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import batches, database, documents_by_id, value_at
from audit_plugin.fiftyone_io.lease import Lease, leased, next_number
from audit_plugin.fiftyone_io.read.contents import REMOVED, AuditedItem, TextPath, read_items, text_path
from audit_plugin.fiftyone_io.read.items import check_editable
from audit_plugin.review import (
    ChangePlan,
    Decision,
    PlannedChange,
    check_name,
    check_whole,
    join_plans,
    plan_changes,
    shortened,
)
from audit_plugin.review.plan import ItemKey

from .clean_view import check_clean_view, drop_clean_view, mend_clean_view, save_clean_view
from .decisions import WAIT_SECONDS, current_decisions, refresh, show
from .fields import present_field
from .journal import (
    CHUNK,
    advance,
    begin,
    change_sets,
    copies,
    copies_by_collection,
    differing,
    discard,
    entries_of,
    in_force,
    journal,
    newest_first,
    put_back,
    state_of,
    write,
)

# (sample, label, field) -> the item: one item may have texts in several fields, of audits of different texts
Items = dict[tuple[str, str, str], AuditedItem]
FORMER_COUNTS = {"relabelled": "relabeled"}
KINDS = {"text": "relabeled", "texts": "captions_removed", "removed": "removed", "back": "brought_back"}


@dataclass(frozen=True)
class ChangeSet:
    """What `apply` or `delete_removed` changed at once.

    It counts samples or objects: relabeled, captions_removed (lists that lost texts), removed, brought_back, deleted.
    """

    id: str  # names it for `undo`; "" where there was nothing to do
    kind: str  # apply or delete
    state: str  # writing, applied, undoing or undone
    time: datetime  # when it was begun
    counts: dict[str, int]
    missed: tuple[str, ...] = ()  # ids of samples that another process changed meanwhile; they were not changed
    stale: int = 0  # decisions left out since the content changed
    lost: int = 0  # decisions whose sample is gone


def plan_of(dataset: SampleCollection, run: str | None = None) -> ChangePlan:
    """What `apply` would do now, of the review of one audit or of all, and which decisions it would leave out."""
    return _plan_with_items(dataset._root_dataset, run)[0]


def plan_with_texts(dataset: SampleCollection) -> tuple[ChangePlan, dict[ItemKey, tuple[str | None, ...]]]:
    """`plan_of` all reviews, and the present texts of each sample and object that it concerns."""
    plan, items = _plan_with_items(dataset._root_dataset, None)
    texts: dict[ItemKey, tuple[str | None, ...]] = {}
    for (sample, label, _), item in items.items():
        texts.setdefault((sample, label), item.content.texts)
    return plan, texts


def apply(dataset: SampleCollection, run: str | None = None) -> ChangeSet:
    """Carry out the decisions on a dataset, of all reviews or of one audit's, that hold and were not carried out yet.

    Returns:
        What was done; `undo` reverts it.

    Raises:
        AuditError: another process is changing the dataset, a view `audit_clean` of the user's own is in the way, or
            the database was lost (the next `apply`, `undo` or `recover` finishes what was begun).
    """
    root = dataset._root_dataset
    if run is not None:
        check_name("run", run)
    with changing(root, "applying decisions") as lease:
        recovered = recover(root)
        plan, items = _plan_with_items(root, run)
        entries = list(_entries_for(root, plan.changes, items))
        check_editable(root, _written_paths(entries), "applying these decisions")
        facts: dict[str, Any] = {"counts": _counts(plan.changes), "stale": len(plan.stale), "lost": len(plan.lost)}
        if not entries:  # or an interrupted `apply` is given again, and was finished
            nothing = ChangeSet("", "apply", "applied", datetime.now(UTC), **facts)
            return next((c for c in reversed(recovered) if (c.kind, c.state) == ("apply", "applied")), nothing)
        if facts["counts"]["removed"]:
            check_clean_view(root)
        number = begin(root, lease, "apply", run or "", entries, facts)
        _carry_out(root, lease, number)
        return change_set_of(number)


def count_removed(dataset: SampleCollection) -> int:
    """The number of samples that `delete_removed` would delete: all that are marked, of a group those of all slices."""
    root = dataset._root_dataset
    with database(f"counting removed samples of {root.name!r}"):
        return int(root._sample_collection.count_documents({"tags": REMOVED}))


def removed_ids(dataset: SampleCollection) -> list[str]:
    """The ids of the samples that `delete_removed` would delete."""
    root = dataset._root_dataset
    with database(f"listing removed samples of {root.name!r}"):
        return [str(each["_id"]) for each in root._sample_collection.find({"tags": REMOVED}, {"_id": 1})]


def delete_removed(dataset: SampleCollection, confirm_count: int) -> ChangeSet:
    """Delete the samples that are marked as removed from the dataset, with a full copy of each in the journal.

    `undo` puts them back with the same ids, labels and frames; where nothing sorts them they then come last. Media
    files stay. Of a grouped dataset all marked samples of all slices are meant; marked objects stay. `confirm_count` is
    the number of samples that are to be deleted (`count_removed`).

    Raises:
        AuditError: another process is changing the dataset, or another number of samples is marked; nothing is deleted
            then.
    """
    root = dataset._root_dataset
    confirmed = check_whole("confirm_count", confirm_count)
    with changing(root, "deleting removed samples") as lease:
        recover(root)
        ids = removed_ids(root)
        again = None if ids else _given_again(root, lease, "applied", kind="delete")
        if again and again.counts["deleted"] == confirmed:
            return again
        if len(ids) != confirmed:
            raise AuditError(
                f"{len(ids)} samples of {root.name!r} are marked as removed, not {confirmed}; confirm {len(ids)}"
            )
        if not ids:
            return ChangeSet("", "delete", "applied", datetime.now(UTC), {"deleted": 0})
        number = begin(root, lease, "delete", "", copies(root, ids), {"counts": {"deleted": len(ids)}})
        for batch in batches(ids, CHUNK):
            lease.check()
            root.delete_samples(batch)
        finish(number, "writing", "applied")
        return change_set_of(number)


def undo(dataset: SampleCollection, change_set: str | None = None, force: bool = False) -> ChangeSet:
    """Undo a change set of `apply` or `delete_removed` exactly, by default the last one that was not undone.

    With `force` later changes are overwritten. What was interrupted is first finished or undone (`recover`): if that
    undid what is to be undone, nothing else is.

    Raises:
        AuditError: another process is changing the dataset, there is no such change set, or a value changed meanwhile
            (the sample is named; nothing is undone).
    """
    root = dataset._root_dataset
    if change_set is not None:
        check_name("change_set", change_set)
    with changing(root, "undoing changes") as lease:
        reverted = [c for c in recover(root) if c.state == "undone" and change_set in (None, c.id)]
        if reverted:
            return reverted[-1]
        again = _given_again(root, lease, "undone")
        if again and change_set in (None, again.id):
            return again
        number, kind = _to_undo(root, change_set)
        if not force:
            _check_unchanged(root, number, kind)
        if kind == "apply":
            check_editable(
                root, {path for entries in entries_of(number) for path in _written_paths(entries)}, "the undo"
            )
        facts = {"force": force, "order": next_number(root), "operation": lease.owner}
        if not advance(number, "applied", "undoing", **facts):
            raise AuditError(_moved(number))
        _undo(root, lease, number, kind, force)
        return change_set_of(number)


def recover(dataset: SampleCollection) -> list[ChangeSet]:
    """Finish or undo what a crash left half done: changes are finished, deletions undone, and an undo is finished.

    Called by `apply`, `delete_removed` and `undo`; does nothing where nothing is broken.

    Returns:
        The change sets that were finished or undone.
    """
    root, recovered = dataset._root_dataset, []
    with changing(root, "recovering interrupted changes") as lease:
        mend_clean_view(root)
        broken = {"state": {"$in": ["planned", "discarding", "writing", "undoing"]}}
        for document in reversed(list(newest_first(root, "number", broken))):
            number, kind = document["_id"], document["kind"]
            if document["state"] in ("planned", "discarding") and discard(number):
                continue
            if state_of(number) == "writing" and kind == "apply":
                _carry_out(root, lease, number)
            else:
                advance(number, "writing", "undoing", force=False)
                _undo(root, lease, number, kind, bool(document.get("force")))
            lease.settle(document.get("operation", ""))
            recovered.append(change_set_of(number))
        show(root)
        if recovered:
            refresh(root)
    return recovered


def list_changes(dataset: SampleCollection) -> list[ChangeSet]:
    """All change sets of a dataset, oldest first, those that were undone included."""
    begun = {"state": {"$nin": ["planned", "discarding"]}}
    with database("reading the list of changes"):
        documents = list(newest_first(dataset._root_dataset, "number", begun))
        return [_change_set(document) for document in reversed(documents)]


@contextmanager
def changing(dataset: fo.Dataset, doing: str) -> Iterator[Lease]:
    """The lease, and errors in plain words; if the lease was lost, what this process wrote too late is set right."""
    lease: Lease | None = None
    with database(f"{doing} in {dataset.name!r}"):
        try:
            with leased(dataset, doing) as lease:
                yield lease
        except AuditError:
            if lease is not None and lease.doing == doing and lease.is_lost():
                _set_right(dataset, lease.owner)
            raise


def _set_right(dataset: fo.Dataset, owner: str) -> None:
    """After the lease was lost: bring the samples to what the change sets say that now count.

    This process stood still while another one finished, or undid, its change set; then it went on for one more write.
    """
    begun_or_undone = [{"begun_by": owner}, {"operation": owner}]
    own = change_sets().find_one({"dataset": dataset._doc.id, "$or": begun_or_undone})
    if own is None or "number" not in own:
        return
    with leased(dataset, "setting late writes right", WAIT_SECONDS):
        state = state_of(own["_id"])
        if state == "undone" and own["kind"] == "delete":
            put_back(dataset, own["_id"], force=False)
        elif state == "undone":
            for entries in entries_of(own["_id"]):
                write(dataset, entries, back=True)
        later = {"state": "applied", "number": {"$gte": own["number"]}}
        for document in reversed(list(newest_first(dataset, "number", later))):
            for entries in entries_of(document["_id"]):
                if document["kind"] == "apply":
                    write(dataset, entries)
                else:
                    samples = [e["id"] for e in entries if e["collection"] == dataset._sample_collection_name]
                    dataset.delete_samples([str(name) for name in samples])


def finish(number: ObjectId, old: str, new: str) -> None:
    """Move a change set on to its next state.

    Raises:
        AuditError: another process moved it to another state meanwhile.
    """
    if not advance(number, old, new) and state_of(number) != new:
        raise AuditError(_moved(number))


def _moved(number: ObjectId) -> str:
    return (
        f"another process changed change set {number} meanwhile, which is {state_of(number) or 'gone'} now; see the "
        "list of changes, and repeat the command"
    )


def _given_again(dataset: fo.Dataset, lease: Lease, state: str, **facts: str) -> ChangeSet | None:
    """The change set that was changed last, if it is in this state and the operation that brought it there did not end.

    The command of such an operation may be given again, though all of it is done.
    """
    last = next(newest_first(dataset, "order", {}).limit(1), None) if lease.interrupted else None
    if last is None or last.get("operation") not in lease.interrupted:
        return None
    if any(last[name] != value for name, value in {"state": state, **facts}.items()):
        return None
    lease.settle(last["operation"])
    return change_set_of(last["_id"])


def _carry_out(dataset: fo.Dataset, lease: Lease, number: ObjectId) -> None:
    """Write all entries; those whose value was changed first are marked, so that `undo` leaves them alone."""
    for entries in entries_of(number):
        lease.check()
        if missed := write(dataset, entries):
            journal().update_many({"_id": {"$in": [e["_id"] for e in missed]}}, {"$set": {"missed": True}})
    lease.check()
    if journal().find_one({"set": number, "op": "tag", "after": True, "missed": {"$ne": True}}):
        save_clean_view(dataset, sorted({root.rsplit(".", 1)[0] for root in _marks(dataset) if root}))
    finish(number, "writing", "applied")


def _undo(dataset: fo.Dataset, lease: Lease, number: ObjectId, kind: str, force: bool) -> None:
    lease.check()
    if kind == "delete":
        put_back(dataset, number, force)
    else:
        for entries in entries_of(number):
            lease.check()
            write(dataset, entries, back=True, force=force)
    lease.check()
    if kind == "apply" and not _marks(dataset):  # a change set that is being undone is not in force
        drop_clean_view(dataset)
    finish(number, "undoing", "undone")


def _to_undo(dataset: fo.Dataset, name: str | None) -> tuple[ObjectId, str]:
    """Id and kind of a change set that is applied; of the last one if none is named."""
    query: dict[str, Any] = {"state": "applied"}
    if name is not None:
        try:
            query["_id"] = ObjectId(name)
        except InvalidId as error:
            what = f"{shortened(name)} is not the id of a change set"
            raise AuditError(f"{what}; see the list of changes") from error
    change_set = next(newest_first(dataset, "number", query).limit(1), None)
    if change_set is None:
        what = f"change set {name} is not applied" if name else "nothing is applied"
        raise AuditError(f"{what} in dataset {dataset.name!r}: there is nothing to undo")
    return change_set["_id"], change_set["kind"]


def _check_unchanged(dataset: fo.Dataset, number: ObjectId, kind: str) -> None:
    if kind == "delete":
        for _, entries, present in copies_by_collection(number):
            if present:
                restored = next(entry["id"] for entry in entries if entry["id"] in present)
                raise AuditError(
                    f"sample or frame {restored} is in {dataset.name!r} again; delete it, or force the undo"
                )
        return
    for entries in entries_of(number):
        if changed := differing(dataset, entries, "after"):
            first = changed[0]
            raise AuditError(
                f"{first.get('path', 'the mark')} of sample {first['sample']} was changed, or the sample deleted, "
                f"since the change set was applied ({len(changed)} such values); undo that first, or force the undo"
            )


def _marks(dataset: fo.Dataset) -> set[str]:
    """What is marked as removed: paths of objects, "" for samples."""
    entries = {**in_force(dataset), "op": "tag", "after": True}
    return {group["_id"] or "" for group in journal().aggregate([{"$match": entries}, {"$group": {"_id": "$root"}}])}


def _counts(changes: Iterable[PlannedChange]) -> dict[str, int]:
    counts = dict.fromkeys(KINDS.values(), 0)
    for change in changes:
        counts[KINDS["back" if change.kind == "removed" and not change.after else change.kind]] += 1
    return counts


def change_set_of(number: ObjectId) -> ChangeSet:
    """A change set by its id."""
    return _change_set(change_sets().find_one({"_id": number}))


def _change_set(document: Mapping[str, Any]) -> ChangeSet:
    missed = journal().find({"set": document["_id"], "missed": True}, {"sample": 1})
    return ChangeSet(
        str(document["_id"]),
        document["kind"],
        document["state"],
        document["time"],
        {FORMER_COUNTS.get(name, name): count for name, count in document["counts"].items()},
        tuple(sorted({str(entry["sample"]) for entry in missed})),
        document.get("stale", 0),
        document.get("lost", 0),
    )


# --- from decisions to entries of the journal ----------------------------------------------------------------------


def _plan_with_items(dataset: fo.Dataset, run: str | None) -> tuple[ChangePlan, Items]:
    """The plan, and what it concerns: audits of different texts are planned one by one."""
    by_field: dict[str, list[Decision]] = {}
    for decision in current_decisions(dataset, run).current.values():
        by_field.setdefault(decision.field, []).append(decision)
    entries = journal().find(in_force(dataset), {"decisions": 1})
    done = frozenset(name for entry in entries for name in entry["decisions"])
    plans: list[ChangePlan] = []
    items: Items = {}
    for field, decisions in by_field.items():
        current = read_items(dataset, dict.fromkeys(_items_of(decisions), present_field(dataset, field, decisions)))
        plans.append(plan_changes(decisions, {key: item.content for key, item in current.items()}, done))
        items |= {(*key, field): item for key, item in current.items()}
    return join_plans(plans), items


def _items_of(decisions: Iterable[Decision]) -> list[tuple[str, str]]:
    return [(decision.sample, decision.label) for decision in decisions]


def _written_paths(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The paths of the fields that entries of the journal write, each once."""
    paths = (".".join(part for part in (e.get("root"), "tags" if e["op"] == "tag" else "") if part) for e in entries)
    return list(dict.fromkeys(paths))


def _entries_for(dataset: fo.Dataset, changes: Sequence[PlannedChange], items: Items) -> Iterator[dict[str, Any]]:
    """The journal of changes, with values exactly as the database has them."""
    by_pair = {(sample, label): item for (sample, label, _), item in items.items()}
    pairs = [(c, items.get((c.sample, c.label, c.field)) or by_pair[c.sample, c.label]) for c in changes]
    paths = {item.field: text_path(dataset, item.field) for _, item in pairs if item.field}
    roots = dict.fromkeys([path.root for path in paths.values()], 1)
    holders = {item.holder for change, item in pairs if change.kind != "removed"}
    documents = documents_by_id(dataset._sample_collection, holders, roots)
    for change, item in pairs:
        if change.kind == "removed":
            entries = list(_mark_entries(change, item, paths))
        else:
            entry = _text_entry(change, item, paths[item.field], documents[item.holder])
            entries = [_with_label(dataset, entry, documents[item.holder])]
        yield from ({**entry, "decisions": list(change.decisions)} for entry in entries)


def _mark_entries(change: PlannedChange, item: AuditedItem, paths: Mapping[str, TextPath]) -> Iterator[dict[str, Any]]:
    mark = {"op": "tag", "before": change.before, "after": change.after}
    if change.label:
        root = paths[item.field].root
        yield {**mark, "sample": ObjectId(change.sample), "label": ObjectId(change.label), "root": root}
        return
    for name in item.members:
        if (name in item.marked) != change.after:
            yield {**mark, "sample": ObjectId(name)}


def _text_entry(change: PlannedChange, item: AuditedItem, text: TextPath, document: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"op": "set", "sample": ObjectId(item.holder), "root": text.root}
    if change.kind == "texts":
        before = value_at(document, text.root)[0]
        return entry | {"path": text.root, "before": before, "after": _shortened(before, change, text.leaf)}
    leaf, holder = f".{text.leaf}" if text.leaf else "", document
    path = f"{text.root}.{change.caption}{leaf}" if text.listed else text.root
    if change.label:
        labels = value_at(document, text.root)[0]
        holder = next(label for label in labels if str(label["_id"]) == change.label)
        entry["label"], path = ObjectId(change.label), text.leaf
    before = value_at(holder, path)
    return {**entry, "path": path, "after": change.after, **({"before": before[0]} if before else {})}


def _with_label(dataset: fo.Dataset, entry: dict[str, Any], document: Any) -> dict[str, Any]:
    """The entry; where a sample has no label whose text could be set, one that sets a new label."""
    parent, _, leaf = entry["path"].rpartition(".")
    present = value_at(document, parent) if parent else [{}]
    if entry.get("label") or present[:1] not in ([], [None]):
        return entry
    label = dataset.get_field(parent).document_type(**{leaf: entry["after"]})
    new = {**entry, "path": parent, "root": parent, "after": label.to_mongo().to_dict()}
    new.pop("before", None)
    return new | ({"before": None} if present else {})


def _shortened(elements: Sequence[Any], change: PlannedChange, leaf: str) -> list[Any]:
    """The elements that stay, with their new texts."""
    shortened = []
    for position, text in zip(change.positions, change.after or (), strict=True):  # type: ignore[arg-type]
        element = elements[position]
        if not leaf:
            element = text
        elif value_at(element, leaf) != [text] and text is not None:
            element = {**element, leaf: text}
        shortened.append(element)
    return shortened
