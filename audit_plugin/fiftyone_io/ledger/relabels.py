"""The texts that decisions replace, as they were: of those that were applied from the journal, else as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from audit_plugin.fiftyone_io.database import database, value_at
from audit_plugin.fiftyone_io.read.contents import text_path
from audit_plugin.review import Decision
from audit_plugin.review.plan import ChangePlan
from audit_plugin.review.text_changes import text_edits

from .decisions import current_decisions
from .fields import present_field
from .journal import in_force, journal


@dataclass(frozen=True)
class Relabel:
    """A text that a decision replaces by `decision.text`; `before` is "" where there was none."""

    decision: Decision
    before: str
    is_applied: bool


def applied_decisions(dataset: SampleCollection) -> frozenset[str]:
    """Ids of the decisions that were carried out and not undone."""
    root = dataset._root_dataset
    with database(f"reading the journal of {root.name!r}"):
        entries = journal().find(in_force(root), {"decisions": 1})
        return frozenset(name for entry in entries for name in entry["decisions"])


def relabels(dataset: SampleCollection, run: str, plan: ChangePlan) -> list[Relabel]:
    """The relabels of an audit's review that were applied, then those that `plan` would apply, by time.

    Decisions for the text that is there already change nothing, and are not among them.
    """
    root = dataset._root_dataset
    decided = {d.id: d for d in current_decisions(root, run).current.values() if d.kind == "relabel"}
    with database(f"reading the journal of {root.name!r}"):
        entries = list(journal().find({**in_force(root), "op": "set"}))
    applied = {name: entry for entry in entries for name in entry["decisions"] if name in decided}
    leaves: dict[str, str] = {}
    for decision in (decided[name] for name in applied):
        if decision.field not in leaves:
            leaves[decision.field] = _leaf(root, decision)
    made = [Relabel(decided[name], _before(entry, decided[name], leaves), True) for name, entry in applied.items()]
    to_apply = {
        (change.sample, change.label, caption): before
        for change in plan.changes
        for caption, before, after in text_edits(change)
        if after is not None
    }
    for decision in decided.values():
        key = (decision.sample, decision.label, decision.caption)
        if key in to_apply and decision.id not in applied:
            made.append(Relabel(decision, to_apply[key] or "", False))
    return sorted(made, key=lambda one: (not one.is_applied, one.decision.time))


def _leaf(root: fo.Dataset, decision: Decision) -> str:
    """Where the text is within an element of a list; "" for strings."""
    return text_path(root, present_field(root, decision.field, [decision])).leaf


def _before(entry: Mapping[str, Any], decision: Decision, leaves: Mapping[str, str]) -> str:
    """The text that an entry of the journal replaced; of a list, the decision's."""
    value = entry.get("before")
    if isinstance(value, list):
        value = value[decision.caption] if decision.caption < len(value) else None
    if isinstance(value, Mapping):
        value = next(iter(value_at(value, leaves[decision.field] or "label")), None)
    return value if isinstance(value, str) else ""
