"""What a button of a review does: the decision that it shows is checked against the ledger, then recorded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from . import checks
from .base import notify
from .panel_base import panel_reviewer
from .panel_case import NEW_CLASS, decision_id, row_key, text_fields
from .panel_words import in_lines, shown_name
from .review import MOST_ID, note_of, reviewer_of, timed

if TYPE_CHECKING:
    from audit_plugin.review import Decision, ReviewQueue, Row

CHOICES = ("keep", "remove", "suggested", "typed", "skip", "unsure")  # of the buttons


def who_decides(ctx: Any) -> str:
    """The name given in this browser, else what FiftyOne knows of its user, else ""."""
    return panel_reviewer(ctx) or reviewer_of(ctx)


def decision_that_holds(ctx: Any, run: str, row: Row | None, blind: ReviewQueue | None = None) -> Decision | None:
    """The decision that holds on a row, in a queue or beside it: a sample without findings may be decided as well.

    `blind`: a spot check, in which only its own decisions are known.
    """
    from audit_plugin import fiftyone_io

    if row is None:
        return None
    return blind.decided.get(row) if blind is not None else fiftyone_io.decision_of(ctx.dataset, run, row)


def record_decision(ctx: Any, run: str, row: Row, held: Decision | None, is_spot_check: bool = False) -> bool:
    """Record the decision of a button.

    Args:
        ctx: of the button's event, with the parameters of `show_decisions`.
        run: key of the audit.
        row: what is decided on.
        held: the decision that holds on it now.
        is_spot_check: whether the decision belongs to a spot check.

    Returns:
        Whether a decision was recorded; not if its text is no new one or there is a decision that the button did not
        show, which the reviewer is told.

    Raises:
        AuditError: the row is gone, or has no suggestion.
    """
    from audit_plugin import fiftyone_io

    if decision_id(held) != checks.text(ctx.params, "seen", most=MOST_ID):
        notify(ctx, meanwhile_text(held), "warning")
        return False
    choice = checks.required(checks.choice(ctx.params, "choice", CHOICES), "choice")
    fields, text = text_fields(ctx), ""
    if choice == "typed":
        text = checks.text(fields, f"typed_{row_key(row)}").strip()
        is_untouched = f"typed_{row_key(row)}" not in fields
        if problem := problem_of(ctx, run, row, text, is_untouched, fields.get(f"new_{row_key(row)}") is True):
            notify(ctx, problem, "warning")
            return False
    kind = "relabel" if choice in ("suggested", "typed") else choice
    note = note_of({"note": fields.get(f"note_{row_key(row)}")})
    seconds, reviewer = timed(time.time() - checks.number(ctx.params, "since", 0.0)), who_decides(ctx)
    if is_spot_check:
        fiftyone_io.record_spot_check(ctx.dataset, run, row, kind, text, note, reviewer, seconds=seconds)
    else:
        fiftyone_io.decide(ctx.dataset, [row], kind, run, text, note, reviewer, seconds=seconds)
    return True


def problem_of(ctx: Any, run: str, row: Row, text: str, is_untouched: bool, is_new: bool) -> str:
    """Why a row cannot be relabeled with a text: it is empty or the present one, or no class of the dataset; or "".

    `is_untouched`: nothing was typed into the field, which holds the present caption then; `is_new`: the text may be a
    new class.
    """
    from audit_plugin.fiftyone_io.results import cases

    present, classes = cases.text_of(ctx.dataset, run, row), cases.classes_of(ctx.dataset, run)
    if is_untouched and not classes:
        text = present
    if not text or in_lines(text) == in_lines(present):
        what = "is the present one" if text else "is empty; the present one is"
        return f"The new caption {what}: {checks.short(present)}. Change it first, or press Keep."
    if classes and text not in classes and not is_new:
        return f"{checks.short(text)} is not among the {len(classes):,} classes. Choose one, or tick {NEW_CLASS!r}."
    return ""


def meanwhile_text(decision: Decision | None) -> str:
    """What a reviewer is told whose button did not show the decision that holds by now."""
    if decision is None:
        return "The decision on this sample was undone meanwhile. Nothing was recorded: decide again."
    who = f" by {shown_name(decision.reviewer)}" if decision.reviewer else ""
    return (
        f"This sample was decided meanwhile: {decision.kind}{who}. Nothing was recorded: press the button again to "
        "replace that decision."
    )
