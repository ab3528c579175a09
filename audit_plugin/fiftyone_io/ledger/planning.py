"""From the ledger to the entries of the journal: what is to be changed, with the values as the database has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone as fo
from bson import ObjectId

from audit_plugin.fiftyone_io.read.contents import Place, Subject, find_by_ids, place_of, read_subjects
from audit_plugin.review import ChangePlan, Decision, PlannedChange, plan_changes

from .decisions import resolved
from .journal import change_sets, journal, value_at


def planned(dataset: fo.Dataset, run: str | None) -> tuple[ChangePlan, dict[tuple[str, str, str], Subject]]:
    """The plan, and the subjects by sample, label and field: audits of different texts are planned one by one."""
    by_field: dict[str, list[Decision]] = {}
    for decision in resolved(dataset, run).current.values():
        by_field.setdefault(decision.field, []).append(decision)
    done = _carried_out(dataset)
    plans: list[ChangePlan] = []
    subjects: dict[tuple[str, str, str], Subject] = {}
    for field, found in by_field.items():
        there = read_subjects(dataset, {(d.sample, d.label): field for d in found})
        plans.append(plan_changes(found, {key: s.content for key, s in there.items()}, done))
        subjects |= {(*key, field): subject for key, subject in there.items()}
    removals, changes = set(), []
    for change in (change for plan in plans for change in plan.changes):
        if change.kind != "removed" or (change.sample, change.label) not in removals:
            changes.append(change)
        if change.kind == "removed":
            removals.add((change.sample, change.label))
    stale, lost = (tuple(d for plan in plans for d in getattr(plan, name)) for name in ("stale", "lost"))
    return ChangePlan(tuple(changes), stale, lost), subjects


def _carried_out(dataset: fo.Dataset) -> frozenset[str]:
    """Ids of the decisions that were carried out and not undone."""
    query = {"dataset": dataset._doc.id, "kind": "apply", "state": {"$in": ["writing", "applied"]}}
    sets = [d["_id"] for d in change_sets().find(query, {"_id": 1})]
    entries = journal().find({"set": {"$in": sets}, "missed": {"$ne": True}}, {"decisions": 1})
    return frozenset(name for entry in entries for name in entry["decisions"])


def entries_for(
    dataset: fo.Dataset, changes: Sequence[PlannedChange], subjects: dict[tuple[str, str, str], Subject]
) -> Iterator[dict[str, Any]]:
    """The journal of changes, with values exactly as the database has them."""
    by_pair = {key[:2]: subject for key, subject in subjects.items()}
    of_change = [subjects.get((c.sample, c.label, c.field)) or by_pair[c.sample, c.label] for c in changes]
    places = {s.field: place_of(dataset, s.field) for s in of_change if s.field}
    holders = {s.holder for c, s in zip(changes, of_change, strict=True) if c.kind != "removed"}
    roots = dict.fromkeys([place.root for place in places.values()], 1)
    documents = {str(d["_id"]): d for d in find_by_ids(dataset._sample_collection, holders, roots)}
    for change, subject in zip(changes, of_change, strict=True):
        facts = {"decisions": list(change.decisions)}
        if change.kind == "removed":
            yield from ({**entry, **facts} for entry in _mark_entries(change, subject, places))
        else:
            entry = _text_entry(change, subject, places[subject.field], documents[subject.holder])
            yield {**_with_label(dataset, entry, documents[subject.holder]), **facts}


def _mark_entries(change: PlannedChange, subject: Subject, places: dict[str, Place]) -> Iterator[dict[str, Any]]:
    mark = {"op": "tag", "before": change.before, "after": change.after}
    if change.label:
        root = places[subject.field].root
        yield {**mark, "sample": ObjectId(change.sample), "label": ObjectId(change.label), "root": root}
        return
    for name in subject.members:
        if (name in subject.marked) != change.after:
            yield {**mark, "sample": ObjectId(name)}


def _text_entry(change: PlannedChange, subject: Subject, place: Place, document: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"op": "set", "sample": ObjectId(subject.holder), "root": place.root}
    if change.kind == "texts":
        before = value_at(document, place.root)[0]
        entry |= {"path": place.root, "before": before, "after": _shortened(before, change, place.leaf)}
        return entry
    leaf, holder = f".{place.leaf}" if place.leaf else "", document
    path = f"{place.root}.{change.caption}{leaf}" if place.listed else place.root
    if change.label:
        things = value_at(document, place.root)[0]
        holder = next(thing for thing in things if str(thing["_id"]) == change.label)
        entry["label"], path = ObjectId(change.label), place.leaf
    found = value_at(holder, path)
    return {**entry, "path": path, "after": change.after, **({"before": found[0]} if found else {})}


def _with_label(dataset: fo.Dataset, entry: dict[str, Any], document: Any) -> dict[str, Any]:
    """The entry; where a sample has no label whose text could be set, one that sets a new label."""
    parent, _, leaf = entry["path"].rpartition(".")
    there = value_at(document, parent) if parent else [{}]
    if entry.get("label") or there[:1] not in ([], [None]):
        return entry
    label = dataset.get_field(parent).document_type(**{leaf: entry["after"]})
    new = {**entry, "path": parent, "root": parent, "after": label.to_mongo().to_dict()}
    new.pop("before", None)
    return new | ({"before": None} if there else {})


def _shortened(elements: Sequence[Any], change: PlannedChange, leaf: str) -> list[Any]:
    """The elements that stay, with their new texts."""
    out = []
    for at, text in zip(change.positions, change.after or (), strict=True):  # type: ignore[arg-type]
        element = elements[at]
        if not leaf:
            element = text
        elif value_at(element, leaf) != [text] and text is not None:
            element = {**element, leaf: text}
        out.append(element)
    return out
