"""The tab "Queue" and the panel of the open sample: one sample with its evidence, and buttons to decide."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError
from audit_plugin.review.flag_quality import quality_of_spot_check
from audit_plugin.scoring.flags import FLAGS

from . import checks
from .base import audit_key, notify
from .panel_base import AuditPanelBase, Tab, changing, drawn, guarded, of_parts, run_of, say, with_token, wrapped
from .panel_case import (
    ALL,
    NEW_CLASS,
    SMALL,
    SPOT_CHECK,
    decision_id,
    finding_kinds,
    new_drawing,
    pressed_by,
    row_key,
    show_case,
    show_decisions,
    show_evidence,
    text_fields,
)
from .panel_words import in_lines
from .review import MOST_ID, note_of, open_sample_of, reviewer_of, timed, undo_last

if TYPE_CHECKING:
    from audit_plugin.review import Decision, ReviewQueue, Row

CHOICES = ("keep", "remove", "suggested", "typed", "skip", "unsure")  # of the buttons


class Queue(Tab):
    """Elements and handlers of the tab."""

    def show_queue(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The choice of findings, the progress, the row and the buttons."""
        from audit_plugin.fiftyone_io.results import cases

        queue, is_spot_check = self._queue(ctx, run, ctx.panel.state.kind), ctx.panel.state.kind == SPOT_CHECK
        choices = types.DropdownView(compact=True)
        kinds = finding_kinds()
        for name in kinds:
            choices.add_choice(name, label=name.capitalize())
        top = wrapped(panel, "top", gap=2, align_y="center")
        kind = ctx.panel.state.kind if ctx.panel.state.kind in kinds else ALL
        top.enum("kind", list(kinds), default=kind, label="Findings", view=choices, on_change=self.on_kind)
        if queue is None:
            self._show_spot_check(panel, run, queue, ctx)
            return
        say(top, "progress", progress_text(queue.progress))
        row = self._shown(ctx, queue)
        if row is None or (is_spot_check and not queue.left):
            if is_spot_check:
                self._show_spot_check(panel, run, queue, ctx)
            done = "All samples are decided. Apply the decisions in *Report and apply*, or choose other findings."
            if not queue.rows:
                done = "Nothing to review: this audit flagged no samples of this kind."
                if kind == "memorized":
                    done += " The card *Memorized* in *Overview* shows the highest MultiMem."
            say(panel, "done", done)
            self._show_navigation(ctx, panel, row)
            return
        case = cases.case_of(ctx.dataset, run, row, held_decision(ctx, run, row, queue))
        show_case(panel, case, blind=is_spot_check)
        show_decisions(ctx, panel, case, self.on_decide, kind)
        self._show_navigation(ctx, panel, row)
        if is_spot_check:
            self._show_spot_check(panel, run, queue, ctx)
        else:
            show_evidence(panel, case)

    def _show_spot_check(self, panel: types.Object, run: str, queue: ReviewQueue | None, ctx: Any) -> None:
        """What a spot check is, its estimates so far, and a button to draw one."""
        from audit_plugin import fiftyone_io

        about = (
            "**Spot check**: random samples, half of them flagged, in random order and without scores. Your decisions "
            "on them measure the precision of the flags; *unsure* counts too."
        )
        if queue is not None:
            about += f"\n\n{spot_check_text(fiftyone_io.spot_check(ctx.dataset, run))}"
        say(panel, "about_spot", about)
        if queue is None or not queue.left:
            label = "Start spot check" if queue is None else "Start new spot check"
            self.form_button(panel, "start_spot_check", label, name="draw", variant="contained", icon="casino")

    def _show_navigation(self, ctx: Any, panel: types.Object, row: Row | None) -> None:
        buttons, drawn = wrapped(panel, "moves"), new_drawing()
        undo = with_token(ctx, self.on_undo_last)
        for name, label, key, on_click, params in (
            ("previous", "Previous (b)", "b", self.on_previous, {}),
            ("next", "Next (n)", "n", self.on_next, {}),
            ("undo", "Undo (u)", "u", self.on_undo_last, undo),
        ):
            look = {"variant": "outlined", **pressed_by(key, drawn)}
            buttons.btn(name, label=label, on_click=on_click, params=params, **look)
        if row:
            look = of_parts(button=SMALL)
            buttons.btn("open", label="Open sample", variant="outlined", on_click=self.on_open, **look)

    def load_queue(self, ctx: Any) -> None:
        """Begin with the first undecided row; leave a row that was decided elsewhere since it was shown."""
        run = run_of(ctx)
        queue = self._queue(ctx, run, ctx.panel.state.kind)
        row = self._shown(ctx, queue)
        held = decision_id(held_decision(ctx, run, row, queue))
        if not ctx.panel.state.row:
            self._go_after(ctx, None, queue)
        elif held != (ctx.panel.state.seen or "") and held:
            self._go_after(ctx, row, queue)
        elif held != (ctx.panel.state.seen or ""):  # undone elsewhere: it is to be decided again
            self._go_to(ctx, row, queue)

    def _queue(self, ctx: Any, run: str, kind: str | None) -> ReviewQueue | None:
        """The rows of a kind of findings, or of the spot check; None if none was started."""
        from audit_plugin import fiftyone_io

        if kind != SPOT_CHECK:
            return fiftyone_io.queue_of(ctx.dataset, run, (kind,) if kind in FLAGS else ())
        try:
            return fiftyone_io.spot_check(ctx.dataset, run).queue
        except AuditError:
            return None

    def _shown(self, ctx: Any, queue: ReviewQueue | None) -> Row | None:
        """The chosen row; the next one where the queue does not have it any more, as after another threshold."""
        row = checks.row({"row": ctx.panel.state.row})
        return row if queue is None or row in queue.rows else queue.next()

    def _go_after(self, ctx: Any, row: Row | None, queue: ReviewQueue | None = None) -> None:
        """Go to the next undecided row, of the queue as it is now."""
        queue = queue or self._queue(ctx, run_of(ctx), ctx.panel.state.kind)
        self._go_to(ctx, queue.next(row) if queue else None, queue)

    def _go_to(self, ctx: Any, row: Row | None, queue: ReviewQueue | None) -> None:
        ctx.panel.state.row = list(row) if row else None
        ctx.panel.state.seen = decision_id(held_decision(ctx, run_of(ctx), row, queue))
        ctx.panel.state.since = time.time()

    @guarded
    def on_change_current_sample(self, ctx: Any) -> None:
        """Another sample was opened or closed, where decisions may have been made."""
        if ctx.panel.state.run:
            self.load_queue(ctx)

    @guarded
    def on_kind(self, ctx: Any) -> None:
        """Other findings were chosen."""
        value = checks.text(ctx.params, "value")
        if value and value != (ctx.panel.state.kind or ALL):
            ctx.panel.state.kind = value
            self._go_after(ctx, None)

    @changing
    def on_decide(self, ctx: Any) -> None:
        """Record the decision on the button's row, among the findings that it was shown in, and go on."""
        run, row = run_of(ctx), checks.required(checks.row(ctx.params), "row")
        kind = checks.choice(ctx.params, "kind", finding_kinds(), ALL)
        queue = self._queue(ctx, run, kind)
        if record_decision(ctx, run, row, queue, kind == SPOT_CHECK):
            self._go_after(ctx, row)
        elif row != self._shown(ctx, queue):
            self._go_to(ctx, row, queue)

    @guarded
    def on_next(self, ctx: Any) -> None:
        queue = self._queue(ctx, run_of(ctx), ctx.panel.state.kind)
        self._go_after(ctx, self._shown(ctx, queue), queue)

    @guarded
    def on_previous(self, ctx: Any) -> None:
        """Go to the row before, decided or not."""
        queue = self._queue(ctx, run_of(ctx), ctx.panel.state.kind)
        self._go_to(ctx, queue.previous(self._shown(ctx, queue)) if queue else None, queue)

    @changing
    def on_undo_last(self, ctx: Any) -> None:
        """Undo the last decision and show its row."""
        if undone := undo_last(ctx, reviewer_of(ctx)):
            row = (undone[-1].label or undone[-1].sample, undone[-1].caption)
            self._go_to(ctx, row, self._queue(ctx, run_of(ctx), ctx.panel.state.kind))

    @guarded
    def on_open(self, ctx: Any) -> None:
        """Open the sample."""
        from audit_plugin.fiftyone_io.results import cases

        run = run_of(ctx)
        if row := self._shown(ctx, self._queue(ctx, run, ctx.panel.state.kind)):
            ctx.ops.open_sample(id=cases.sample_of(ctx.dataset, run, row))


class AuditSamplePanel(AuditPanelBase):
    """The newest audit's evidence on the open sample; after a decision, the next finding is opened."""

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="audit_sample",
            label="Audit",
            icon="fact_check",
            surfaces="modal",
            help_markdown="Evidence on this sample, and buttons to decide",
        )

    @guarded
    def on_load(self, ctx: Any) -> None:
        """Start timing the decision."""
        ctx.panel.state.since = time.time()

    @guarded
    def on_change_current_sample(self, ctx: Any) -> None:
        ctx.panel.state.since = time.time()

    @changing
    def on_decide(self, ctx: Any) -> None:
        """Record the decision and open the next finding."""
        from audit_plugin import fiftyone_io

        run, row = audit_key(ctx.dataset, {}), checks.required(checks.row(ctx.params), "row")
        if record_decision(ctx, run, row, fiftyone_io.queue_of(ctx.dataset, run)):
            open_sample_of(ctx, run, fiftyone_io.queue_of(ctx.dataset, run).next(row))

    @drawn
    def render(self, ctx: Any, panel: types.Object) -> None:
        """The row of the open sample."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import cases

        if not isinstance(ctx.current_sample, str) or not ctx.current_sample:
            say(panel, "none", "Open a sample to see its results.")
            return
        try:
            run = audit_key(ctx.dataset, {})
            queue = fiftyone_io.queue_of(ctx.dataset, run)
            row = cases.row_to_show(ctx.dataset, run, queue, ctx.current_sample)
        except AuditError as error:  # no audit, or no object of the sample was flagged
            panel.view("none", types.Notice(label=str(error)))
            return
        case = cases.case_of(ctx.dataset, run, row, held_decision(ctx, run, row, queue))
        say(panel, "progress", f"{progress_text(queue.progress)}. Press **h** for keyboard shortcuts.")
        show_case(panel, case, blind=False)
        show_decisions(ctx, panel, case, self.on_decide)
        show_evidence(panel, case)


def held_decision(ctx: Any, run: str, row: Row | None, queue: ReviewQueue | None) -> Decision | None:
    """The decision that holds on a row, in the queue or beside it: a sample without findings may be decided as well."""
    from audit_plugin import fiftyone_io

    if row is None or queue is None:
        return None
    return queue.decided.get(row) if row in queue.rows else fiftyone_io.decision_of(ctx.dataset, run, row)


def record_decision(ctx: Any, run: str, row: Row, queue: ReviewQueue | None, is_spot_check: bool = False) -> bool:
    """Record the decision of a button.

    Args:
        ctx: of the button's event, with the parameters of `show_decisions`.
        run: key of the audit.
        row: what is decided on.
        queue: as it is now.
        is_spot_check: whether the decision belongs to a spot check.

    Returns:
        Whether a decision was recorded; not if its text is no new one or there is a decision that the button did not
        show, which the reviewer is told.

    Raises:
        AuditError: the row is gone, or has no suggestion.
    """
    from audit_plugin import fiftyone_io

    held = held_decision(ctx, run, row, queue)
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
    seconds, reviewer = timed(time.time() - float(ctx.panel.state.since or 0)), reviewer_of(ctx)
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
    who = f" by {decision.reviewer}" if decision.reviewer else ""
    return (
        f"This sample was decided meanwhile: {decision.kind}{who}. Nothing was recorded: press the button again to "
        "replace that decision."
    )


def progress_text(progress: Any) -> str:
    """`**37 of 412** decided, 8 s each, about 50 min left`."""
    text = f"**{progress.done:,} of {progress.total:,}** decided"
    if progress.seconds == progress.seconds and progress.done < progress.total:  # seconds are NaN if nothing was timed
        text += f", {progress.seconds:.0f} s each, about {max(progress.minutes, 1):.0f} min left"
    return text


def spot_check_text(check: Any) -> str:
    """The estimates of a spot check, for the flagged samples and for the set; "" before the first decision."""
    estimate = check.estimate()
    if not estimate.reviewed:
        return ""
    quality = quality_of_spot_check(estimate)
    estimates = f"wrong among the flagged: {quality.precision_text}; in the whole set: {quality.wrong_text}"
    return f"Spot check ({estimate.reviewed:,} decided, {estimate.confidence:.0%} intervals): {estimates}."
