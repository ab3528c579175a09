"""From decisions to the changes that they ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .decisions import Content, Decision, stale

Subject = tuple[str, str]  # sample, label


@dataclass(frozen=True)
class Change:
    """One change of a sample or an object.

    Attributes:
        sample, label: whose.
        kind: "text", one text; "texts", the whole list; "removed", the mark that hides it.
        field: where the text is.
        caption: position of the text.
        before, after: texts (None: there is none), tuples of texts, or booleans, by kind.
        decisions: ids of the decisions that ask for it.
        kept: of a list, the positions in `before` of what is in `after`.
    """

    sample: str
    label: str
    kind: str
    before: str | tuple[str | None, ...] | bool | None
    after: str | tuple[str | None, ...] | bool | None
    field: str = ""
    caption: int = 0
    decisions: tuple[str, ...] = ()
    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        changes: at most one per thing that can be changed.
        stale: decisions on content that has changed since; nothing is done about these.
        lost: decisions on samples or objects that are not there any more.
    """

    changes: tuple[Change, ...]
    stale: tuple[Decision, ...]
    lost: tuple[Decision, ...]


def plan_changes(
    decisions: Iterable[Decision], current: Mapping[Subject, Content], done: frozenset[str] = frozenset()
) -> Plan:
    """The changes that decisions ask for.

    A relabel sets a text. A sample is removed if that was decided for all its captions; a single caption is taken out
    of its list, the others stay. Anything else decided for a removed sample brings it back.

    Args:
        decisions: those that hold, one per key.
        current: what there is, by sample and label.
        done: ids of decisions that were carried out and not undone: these are not carried out twice, and what they
            changed does not make them stale.
    """
    by_subject: dict[Subject, list[Decision]] = {}
    for decision in decisions:
        by_subject.setdefault((decision.sample, decision.label), []).append(decision)
    changes: list[Change] = []
    old: list[Decision] = []
    lost: list[Decision] = []
    for subject, found in by_subject.items():
        content = current.get(subject)
        if content is None:
            lost += [d for d in found if d.id not in done]
            continue
        fresh = [d for d in found if d.id in done or not stale(d, content.digest(d.caption))]
        old += [d for d in found if d not in fresh]
        changes += _of_subject(subject, fresh, content, done)
    return Plan(tuple(changes), tuple(old), tuple(lost))


def _of_subject(subject: Subject, decisions: list[Decision], content: Content, done: frozenset[str]) -> list[Change]:
    """All changes of one sample or object."""
    sample, label = subject
    gone = {d.caption for d in decisions if d.kind == "remove"}
    every = bool(gone) and gone >= set(range(max(1, len(content.texts))))
    ids = tuple(d.id for d in decisions)
    changes = []
    kept = any(d.kind in ("keep", "relabel", "unsure") for d in decisions)
    new = any(d.kind == "remove" and d.id not in done for d in decisions)
    if every and new and not content.removed:
        changes.append(Change(sample, label, "removed", False, True, decisions=ids))
    elif content.removed and kept and not every:
        changes.append(Change(sample, label, "removed", True, False, decisions=ids))
    texts = [d for d in decisions if d.id not in done and _asks(d, content, every)]
    if any(d.kind == "remove" for d in texts):
        changes.append(_of_list(subject, texts, content))
    else:
        changes += [
            Change(sample, label, "text", content.text(d.caption), d.text, d.field, d.caption, (d.id,)) for d in texts
        ]
    return changes


def _asks(decision: Decision, content: Content, every: bool) -> bool:
    """Whether a decision asks for another text than there is."""
    if decision.kind == "relabel":
        there = not content.listed or decision.caption < len(content.texts)
        return there and content.text(decision.caption) != decision.text
    return decision.kind == "remove" and content.listed and not every and decision.caption < len(content.texts)


def _of_list(subject: Subject, decisions: list[Decision], content: Content) -> Change:
    """One change of the whole list: taking a text out moves those behind it."""
    new = {d.caption: d.text for d in decisions if d.kind == "relabel"}
    out = {d.caption for d in decisions if d.kind == "remove"}
    kept = tuple(at for at in range(len(content.texts)) if at not in out)
    after = tuple(new.get(at, content.texts[at]) for at in kept)
    ids = tuple(d.id for d in decisions)
    return Change(*subject, "texts", content.texts, after, decisions[0].field, decisions=ids, kept=kept)
