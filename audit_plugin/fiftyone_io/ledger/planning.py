"""From the decisions to the entries of the journal: what is to be changed, with the values as the database has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fiftyone as fo
from bson import ObjectId

from audit_plugin.fiftyone_io.database import documents_by_id, value_at
from audit_plugin.fiftyone_io.read.contents import AuditedItem, TextPath, read_items, text_path
from audit_plugin.review import ChangePlan, Decision, PlannedChange, join_plans, plan_changes

from .decisions import resolved
from .journal import change_sets, journal

# (sample, label, field) -> the item: one item may have texts in several fields, of audits of different texts
Items = dict[tuple[str, str, str], AuditedItem]


def plan_with_items(dataset: fo.Dataset, run: str | None) -> tuple[ChangePlan, Items]:
    """The plan, and what it concerns: audits of different texts are planned one by one."""
    by_field: dict[str, list[Decision]] = {}
    for decision in resolved(dataset, run).current.values():
        by_field.setdefault(decision.field, []).append(decision)
    done = _carried_out(dataset)
    plans: list[ChangePlan] = []
    items: Items = {}
    for field, decisions in by_field.items():
        current = read_items(dataset, {(d.sample, d.label): field for d in decisions})
        plans.append(plan_changes(decisions, {key: item.content for key, item in current.items()}, done))
        items |= {(*key, field): item for key, item in current.items()}
    return join_plans(plans), items


def _carried_out(dataset: fo.Dataset) -> frozenset[str]:
    """Ids of the decisions that were carried out and not undone."""
    query = {"dataset": dataset._doc.id, "kind": "apply", "state": {"$in": ["writing", "applied"]}}
    sets = [d["_id"] for d in change_sets().find(query, {"_id": 1})]
    entries = journal().find({"set": {"$in": sets}, "missed": {"$ne": True}}, {"decisions": 1})
    return frozenset(name for entry in entries for name in entry["decisions"])


def entries_for(dataset: fo.Dataset, changes: Sequence[PlannedChange], items: Items) -> Iterator[dict[str, Any]]:
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
