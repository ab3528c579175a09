"""The changes that decisions ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .decisions import Content, Decision, stale

ItemKey = tuple[str, str]  # sample, label (object in it, "" for the sample as a whole)


@dataclass(frozen=True)
class PlannedChange:
    """One change of a sample or an object.

    Attributes:
        sample, label: the sample, and the object in it ("": the sample itself).
        kind: "text" (one text), "texts" (the whole list) or "removed" (the mark that hides it).
        field: name of the field with the text.
        caption: position of the text.
        before, after: by kind texts (None: missing), tuples of texts, or booleans.
        decisions: ids of the decisions that ask for it.
        positions: for "texts": of each text in `after`, its position in `before`.
    """

    sample: str
    label: str
    kind: str
    before: str | tuple[str | None, ...] | bool | None
    after: str | tuple[str | None, ...] | bool | None
    field: str = ""
    caption: int = 0
    decisions: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()


@dataclass(frozen=True)
class ChangePlan:
    """What applying the decisions would change.

    Attributes:
        changes: at most one per text, list and mark.
        stale: decisions on content that has changed since; they are not applied.
        lost: decisions on samples or objects that no longer exist.
    """

    changes: tuple[PlannedChange, ...]
    stale: tuple[Decision, ...]
    lost: tuple[Decision, ...]


def plan_changes(
    decisions: Iterable[Decision], current: Mapping[ItemKey, Content], done: frozenset[str] = frozenset()
) -> ChangePlan:
    """The changes that decisions ask for.

    A relabel sets a text. A sample is removed if remove was decided for all its captions; a single caption is removed
    from its list. Any other decision on a removed sample restores it.

    Args:
        decisions: the current ones, one per key.
        current: the current content by sample and label.
        done: ids of decisions that were applied and not undone; they are not applied again, and are never stale.
    """
    by_item: dict[ItemKey, list[Decision]] = {}
    for decision in decisions:
        by_item.setdefault((decision.sample, decision.label), []).append(decision)
    changes: list[PlannedChange] = []
    stale_decisions: list[Decision] = []
    lost: list[Decision] = []
    for item, entries in by_item.items():
        content = current.get(item)
        if content is None:
            lost += [d for d in entries if d.id not in done]
            continue
        valid: list[Decision] = []
        for decision in entries:
            is_stale = decision.id not in done and stale(decision, content.digest(decision.caption))
            (stale_decisions if is_stale else valid).append(decision)
        changes += _item_changes(item, valid, content, done)
    return ChangePlan(tuple(changes), tuple(stale_decisions), tuple(lost))


def join_plans(plans: Iterable[ChangePlan]) -> ChangePlan:
    """One plan of several that concern different texts; the mark of a removal, which they share, is set once."""
    changes: dict[tuple[Any, ...], PlannedChange] = {}
    stale_decisions: list[Decision] = []
    lost: list[Decision] = []
    for plan in plans:
        stale_decisions += plan.stale
        lost += plan.lost
        for change in plan.changes:
            where = () if change.kind == "removed" else (change.field, change.caption)
            changes.setdefault((change.sample, change.label, change.kind, *where), change)
    return ChangePlan(tuple(changes.values()), tuple(stale_decisions), tuple(lost))


def _item_changes(
    item: ItemKey, decisions: Sequence[Decision], content: Content, done: frozenset[str]
) -> list[PlannedChange]:
    """All changes of one sample or object."""
    changes = []
    removed = {d.caption for d in decisions if d.kind == "remove"}
    all_removed = bool(removed) and removed >= set(range(max(1, len(content.texts))))
    ids = tuple(d.id for d in decisions)
    if all_removed and not content.removed and any(d.kind == "remove" and d.id not in done for d in decisions):
        changes.append(PlannedChange(*item, "removed", False, True, decisions=ids))
    elif content.removed and not all_removed and any(d.kind in ("keep", "relabel", "unsure") for d in decisions):
        changes.append(PlannedChange(*item, "removed", True, False, decisions=ids))
    edits = [d for d in decisions if d.id not in done and _changes_text(d, content, all_removed)]
    if any(d.kind == "remove" for d in edits):
        return [*changes, _list_change(item, edits, content)]
    for d in edits:
        before = content.text(d.caption)
        changes.append(PlannedChange(*item, "text", before, d.text, d.field, d.caption, (d.id,)))
    return changes


def _changes_text(decision: Decision, content: Content, all_removed: bool) -> bool:
    """Whether a decision asks for a text other than the current one."""
    in_list = decision.caption < len(content.texts)
    if decision.kind == "relabel":
        return (in_list or not content.listed) and content.text(decision.caption) != decision.text
    return decision.kind == "remove" and content.listed and in_list and not all_removed


def _list_change(item: ItemKey, decisions: Sequence[Decision], content: Content) -> PlannedChange:
    """One change of the whole list, because removing a text moves those after it."""
    new_texts = {d.caption: d.text for d in decisions if d.kind == "relabel"}
    removed = {d.caption for d in decisions if d.kind == "remove"}
    positions = tuple(at for at in range(len(content.texts)) if at not in removed)
    after = tuple(new_texts.get(at, content.texts[at]) for at in positions)
    ids = tuple(d.id for d in decisions)
    return PlannedChange(*item, "texts", content.texts, after, decisions[0].field, decisions=ids, positions=positions)
