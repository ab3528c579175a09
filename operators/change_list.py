"""The changes that decisions ask for, as pages of a table with the old and the new text of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audit_plugin.review.text_changes import text_edits

from .markdown import Markdown, code, escaped
from .panel_words import BLANK, changes_text, cut, visible_line

if TYPE_CHECKING:
    from audit_plugin.review import ChangePlan, PlannedChange
    from audit_plugin.review.plan import ItemKey

PAGE = 10  # changes
MOST = 400  # characters of a text
MISSING, EMPTY = Markdown("*no caption*"), Markdown(f"*{BLANK}*")
HIDES, RESTORES, LOSES = Markdown("*hidden as removed*"), Markdown("*restored*"), Markdown("*removed from the list*")


@dataclass(frozen=True)
class ChangePage:
    """One page of the changes.

    Attributes:
        plan: all changes, and what is left out.
        number: of the page, from 0.
        pages: how many there are.
        table: Markdown; "" without changes.
        samples: ids of its samples.
    """

    plan: ChangePlan
    number: int
    pages: int
    table: str
    samples: tuple[str, ...]

    @property
    def label(self) -> str:
        """`Changes 11 to 20 of 34`."""
        first, total = self.number * PAGE, len(self.plan.changes)
        return f"Changes {first + 1:,} to {min(first + PAGE, total):,} of {total:,}"


def page_of_changes(dataset: Any, number: int) -> ChangePage:
    """A page of what `apply` would do now; of a number that is too high the last one."""
    from audit_plugin.fiftyone_io.ledger.changes import plan_with_texts

    plan, texts = plan_with_texts(dataset)
    pages = max(1, -(-len(plan.changes) // PAGE))
    number = min(max(number, 0), pages - 1)
    shown = plan.changes[number * PAGE : (number + 1) * PAGE]
    samples = tuple(dict.fromkeys(change.sample for change in shown))
    return ChangePage(plan, number, pages, changes_table(shown, texts), samples)


def changes_table(changes: Sequence[PlannedChange], texts: Mapping[ItemKey, tuple[str | None, ...]]) -> str:
    """A Markdown table with a row for each text or sample that changes; `texts`: the present ones of each sample."""
    lines = []
    for change in changes:
        name = Markdown(f"{code(change.sample)}, object {code(change.label)}" if change.label else code(change.sample))
        present = texts.get((change.sample, change.label), ())
        lines += [f"| {name} {now} | {after} |" for now, after in _cells(change, present)]
    return "\n".join(("| Sample, and its caption now | After |", "|---|---|", *lines)) if lines else ""


def _cells(change: PlannedChange, present: Sequence[str | None]) -> Iterator[tuple[Markdown, Markdown]]:
    """(the text as it is, what becomes of it) for each text that a change concerns; of a removed sample the first."""
    if change.kind == "removed":
        yield _shown(next(iter(present), None)), HIDES if change.after else RESTORES
    for _, before, after in text_edits(change):
        yield _shown(before), LOSES if after is None else _compared(before, after)


def _shown(text: str | None) -> Markdown:
    if not text:
        return MISSING
    return escaped(cut(text, MOST)) if visible_line(cut(text, MOST)) else EMPTY


def _compared(before: str | None, after: str) -> Markdown:
    """The new text, with what it changes of the old one."""
    is_seen = visible_line(cut(after, MOST))
    return changes_text(before or "", after, MOST) if is_seen else _shown(after)
