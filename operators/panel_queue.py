"""The third tab: one row after the other, with what speaks against it, and what to do about it; or a spot check."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError
from audit_plugin.config import FLAG_KINDS

from .common import PLUGIN
from .panel_base import guarded, say
from .panel_case import Row, decide_buttons, decide_on, show_case, show_neighbors

if TYPE_CHECKING:
    from audit_plugin.fiftyone_io import ReviewQueue

ALL, SPOT = "all findings", "spot check"
CHOICES = (ALL, *FLAG_KINDS, SPOT)


class Queue:
    """Handlers and elements of the tab; a part of the panel."""

    def show_queue(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The filter, the progress, the row and the buttons."""
        from audit_plugin.fiftyone_io.results import cases

        queue, spot = self._queue(ctx, run), ctx.panel.state.kind == SPOT
        choices = types.DropdownView()
        for name in CHOICES:
            choices.add_choice(name, label=name.capitalize())
        top = panel.h_stack("top", gap=2, align_y="center")
        kind = ctx.panel.state.kind or ALL
        top.enum("kind", list(CHOICES), default=kind, label="Findings", view=choices, on_change=self.on_kind)
        if spot:
            self._show_spot(panel, run, queue, ctx)
        if queue is None:
            return
        say(top, "progress", progress_words(queue.progress))
        row = self._row(ctx)
        row = row if row in queue.rows else queue.next()
        if row is None or (spot and not queue.left):
            say(panel, "done", "Everything is decided. *Report and apply* carries it out; or choose other findings.")
            self._moves(panel, row)
            return
        case = cases.case_of(ctx.dataset, run, row, queue.decided.get(row))
        show_case(panel, case, blind=spot)
        decide_buttons(panel, row, "" if spot else case.said.get("suggestion", ""), self.on_decide)
        self._moves(panel, row)
        if not spot:  # below the buttons, which one need not scroll for
            show_neighbors(panel, case)

    def _show_spot(self, panel: types.Object, run: str, queue: ReviewQueue | None, ctx: Any) -> None:
        """What a spot check is, what it says so far, and a button to draw one."""
        from audit_plugin import fiftyone_io

        about = (
            "**Spot check**: samples drawn at random, half of them flagged, in random order and without their scores. "
            "What you decide on them tells how right the flags are; unsure is an answer too."
        )
        if queue is not None:
            about += f"\n\n{spot_words(fiftyone_io.spot_check(ctx.dataset, run))}"
        say(panel, "about_spot", about)
        if queue is None or not queue.left:
            label = "Start a spot check" if queue is None else "Start another one"
            panel.btn("draw", label=label, icon="casino", variant="contained", on_click=self.on_draw)

    def _moves(self, panel: types.Object, row: Row | None) -> None:
        moves = panel.h_stack("moves", gap=1)
        moves.btn("previous", label="Previous", icon="arrow_back", variant="outlined", on_click=self.on_previous)
        moves.btn("next", label="Next", icon="arrow_forward", variant="outlined", on_click=self.on_next)
        moves.btn("undo", label="Undo last decision", icon="undo", variant="outlined", on_click=self.on_undo_last)
        if row:
            moves.btn("open", label="Open", icon="open_in_full", variant="outlined", on_click=self.on_open)

    def load_queue(self, ctx: Any) -> None:
        """Begin with the first row that is not decided."""
        if not ctx.panel.state.row:
            self._go(ctx, None)

    def _queue(self, ctx: Any, run: str) -> ReviewQueue | None:
        """The rows of the chosen findings, or of the spot check; None where none was started."""
        from audit_plugin import fiftyone_io

        kind = ctx.panel.state.kind
        if kind != SPOT:
            return fiftyone_io.queue_of(ctx.dataset, run, (kind,) if kind in FLAG_KINDS else ())
        try:
            return fiftyone_io.spot_check(ctx.dataset, run).queue
        except AuditError:  # none was started
            return None

    def _row(self, ctx: Any) -> Row | None:
        found = ctx.panel.state.row
        return (str(found[0]), int(found[1])) if found else None

    def _go(self, ctx: Any, after: Row | None) -> None:
        queue = self._queue(ctx, ctx.panel.state.run)
        self._show_row(ctx, queue.next(after) if queue else None)

    def _show_row(self, ctx: Any, row: Row | None) -> None:
        ctx.panel.state.row = list(row) if row else None
        ctx.panel.state.since = time.time()

    @guarded
    def on_kind(self, ctx: Any) -> None:
        """Other findings."""
        value = ctx.params.get("value")
        if value and value != (ctx.panel.state.kind or ALL):
            ctx.panel.state.kind = value
            self._go(ctx, None)

    @guarded
    def on_draw(self, ctx: Any) -> None:
        """Ask for a spot check."""
        params = {"run": ctx.panel.state.run}
        ctx.prompt(f"{PLUGIN}/start_spot_check", params=params, on_success=self.on_drawn)

    @guarded
    def on_drawn(self, ctx: Any) -> None:
        """It is there: begin."""
        self._go(ctx, None)

    @guarded
    def on_decide(self, ctx: Any) -> None:
        """Write the decision down and go on."""
        row = self._row(ctx)
        if row is None or list(row) != list(ctx.params["row"]):
            return  # a second event of the same click
        spot = ctx.panel.state.kind == SPOT
        if decide_on(ctx, ctx.panel.state.run, row, ctx.panel.state.get("queue"), spot):
            self._go(ctx, row)

    @guarded
    def on_next(self, ctx: Any) -> None:
        """The next row that is not decided."""
        self._go(ctx, self._row(ctx))

    @guarded
    def on_previous(self, ctx: Any) -> None:
        """The row before, decided or not."""
        queue = self._queue(ctx, ctx.panel.state.run)
        self._show_row(ctx, queue.previous(self._row(ctx)) if queue else None)

    @guarded
    def on_undo_last(self, ctx: Any) -> None:
        """Take the last decision back and show its row."""
        from audit_plugin import fiftyone_io

        gone = fiftyone_io.undo_last(ctx.dataset)
        if not gone:
            ctx.ops.notify("There is no decision to take back", variant="info")
            return
        self._show_row(ctx, (gone[-1].label or gone[-1].sample, gone[-1].caption))

    @guarded
    def on_open(self, ctx: Any) -> None:
        """The sample in the large view."""
        from audit_plugin.fiftyone_io.results import cases

        row = self._row(ctx)
        if row:
            ctx.ops.open_sample(id=cases.sample_of(ctx.dataset, ctx.panel.state.run, row))


def progress_words(progress: Any) -> str:
    """`**37 of 412** decided, 8 s each, about 50 min left`."""
    words = f"**{progress.done:,} of {progress.total:,}** decided"
    if progress.seconds == progress.seconds and progress.done < progress.total:
        words += f", {progress.seconds:.0f} s each, about {max(progress.minutes, 1):.0f} min left"
    return words


def spot_words(check: Any) -> str:
    """What a spot check says so far: of the flags, and of the whole set; "" before the first decision."""
    found = check.estimate()
    if not found.reviewed:
        return ""
    right, wrong = found.precision, found.wrong
    words = f"By the spot check ({found.reviewed:,} decided, {found.confidence:.0%} intervals): "
    if right.value == right.value:
        words += f"{right.value:.0%} of the flagged are wrong ({right.low:.0%} to {right.high:.0%})"
    if wrong.value == wrong.value:
        words += f", and about {wrong.value:,.0f} of the whole set ({wrong.low:,.0f} to {wrong.high:,.0f})"
    return f"{words}."
