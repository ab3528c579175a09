"""Calibrate, a mode of the queue: it asks for the labels that the search for a threshold wants next.

The labels are decisions, so that the search can be left at any row and gone on with, here or on the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiftyone.operators import types

from audit_plugin.review.threshold_search import guarantee_text, percent_text, progress_text

from . import checks
from .base import notify, samples_text
from .panel_base import (
    UNCHANGED,
    Tab,
    box,
    changing,
    forget,
    guarded,
    of_parts,
    once_per_event,
    run_of,
    say,
    with_token,
)
from .panel_case import SMALL

if TYPE_CHECKING:
    from audit_plugin.fiftyone_io.ledger.spot_checks import ThresholdCheck
    from audit_plugin.review import ReviewQueue
    from audit_plugin.review.threshold_search import ThresholdSearch

PRECISIONS = {f"{percent}%": percent / 100 for percent in (70, 80, 90, 95, 99)}  # to choose from
DEFAULT = "90%"


class Calibrate(Tab):
    """Elements and handlers of the mode."""

    _go_to: Any  # of the queue: chooses a row

    def show_precision(self, ctx: Any, top: types.Object, run: str) -> None:
        """The precision that is asked for, a button that flags by the threshold so far, and one line of progress."""
        choices = types.DropdownView(compact=True)
        for name in PRECISIONS:
            choices.add_choice(name, label=f"Precision {name}")
        chosen = _chosen(ctx)
        top.enum(
            "precision", list(PRECISIONS), default=chosen, label="Precision", view=choices, on_change=self.on_precision
        )
        _, search = search_now(ctx, run)
        if search.rows:
            label, look = f"Use threshold {search.threshold:.2f}", {"variant": "contained", **of_parts(button=SMALL)}
            shown = {"precision": PRECISIONS[chosen], "threshold": search.threshold}
            params = with_token(ctx, self.on_calibrated, **shown)
            top.btn("calibrated", label=label, on_click=self.on_calibrated, params=params, **look)
        say(top, "progress", progress_text(search, PRECISIONS[chosen]))

    def show_calibration(self, ctx: Any, panel: types.Object, run: str) -> None:
        """What the labels so far guarantee."""
        _, search = search_now(ctx, run)
        say(box(panel, "calibration"), "about", conclusion_text(search, PRECISIONS[_chosen(ctx)]))

    @guarded
    def on_precision(self, ctx: Any) -> Any:
        """Another precision was chosen; the labels stay."""
        value = checks.choice(ctx.params, "value", PRECISIONS, DEFAULT)
        if value == _chosen(ctx):
            return UNCHANGED
        ctx.panel.state.precision = PRECISIONS[value]
        forget(ctx)
        self._go_to(ctx, None)
        return None

    @changing
    def on_calibrated(self, ctx: Any) -> None:
        """Flag by the threshold that the button shows, if the labels still guarantee it; all numbers follow."""
        from audit_plugin.fiftyone_io.results import thresholds

        run, precision = run_of(ctx), checks.number(ctx.params, "precision", PRECISIONS[DEFAULT], 0.5, 0.999)
        check, search = search_at(ctx, run, precision)
        if search.threshold != checks.number(ctx.params, "threshold"):
            forget(ctx)
            self._go_to(ctx, None)
            notify(ctx, "Labels came or went since this threshold was shown: look at the new one", "warning")
            return
        calibration = check.calibration(precision, search)
        changed = thresholds.set_threshold(ctx.dataset, run, "misaligned", search.threshold, calibration)
        ctx.ops.reload_samples()
        forget(ctx)
        flagged = f"{samples_text(search.rows)} with a misalignment of {search.threshold:.2f} or more"
        notify(ctx, f"Flagged: {flagged}; {samples_text(changed)} changed", "success")


def search_now(ctx: Any, run: str) -> tuple[ThresholdCheck, ThresholdSearch]:
    """The labels of now and what they say, at the precision that is chosen."""
    return search_at(ctx, run, PRECISIONS[_chosen(ctx)])


def search_at(ctx: Any, run: str, precision: float) -> tuple[ThresholdCheck, ThresholdSearch]:
    """The labels of now and what they say at a precision."""
    from audit_plugin import fiftyone_io

    def search() -> tuple[ThresholdCheck, ThresholdSearch]:
        check = fiftyone_io.threshold_check(ctx.dataset, run)
        return check, check.search(precision)

    found: tuple[ThresholdCheck, ThresholdSearch] = once_per_event(ctx, ("search", run, precision), search)
    return found


def queue_of_search(ctx: Any, run: str) -> ReviewQueue:
    """The rows whose labels the search used, and the one that it wants next."""
    check, search = search_now(ctx, run)
    return check.queue(search)


def conclusion_text(search: ThresholdSearch, precision: float) -> str:
    """What holds so far, and what comes next."""
    share = percent_text(precision)
    about = f"**Calibrate** finds the lowest threshold at which {share} of the flagged samples are wrong. "
    if search.rows:
        sentence = guarantee_text(search, precision)
        about = f"**{'So far' if search.next_row is not None else 'Found'}**: {sentence}. "
    elif search.next_row is None:
        return f"No threshold that keeps {share} was found with {search.labeled:,} labels. Choose a lower precision."
    if search.next_row is None:
        return f"{about}Use it to flag these samples: all numbers follow."
    return f"{about}*Unsure* counts as correct. You may stop at any time and go on later: the labels are decisions."


def _chosen(ctx: Any) -> str:
    """The precision that is chosen, one of `PRECISIONS`."""
    value = ctx.panel.state.precision
    return next((name for name, precision in PRECISIONS.items() if precision == value), DEFAULT)
