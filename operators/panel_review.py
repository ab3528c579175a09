"""The tab "Queue" and the panel of the open sample: one sample with its evidence, and buttons to decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError
from audit_plugin.review import MOST_UNCERTAIN
from audit_plugin.review.flag_quality import quality_of_spot_check
from audit_plugin.scoring.flags import FLAGS

from . import checks
from .base import audit_key
from .panel_base import (
    UNCHANGED,
    AuditPanelBase,
    Tab,
    changing,
    drawn,
    forget,
    guarded,
    of_parts,
    once_per_event,
    run_of,
    say,
    set_state,
    show_reviewer,
    with_token,
    wrapped,
)
from .panel_calibrate import Calibrate, queue_of_search
from .panel_case import (
    ALL,
    CALIBRATE,
    DIFFERING,
    SMALL,
    SPOT_CHECK,
    decision_id,
    drawn_since,
    finding_kinds,
    new_drawing,
    pressed_by,
    show_case,
    show_decisions,
    show_differing,
    show_evidence,
)
from .panel_history import row_of, show_history
from .panel_record import decision_that_holds, record_decision, who_decides
from .review import MOST_ID, open_sample_of, redo_last, undo_last

if TYPE_CHECKING:
    from audit_plugin.review import Decision, ReviewQueue, Row


class Queue(Calibrate, Tab):
    """Elements and handlers of the tab."""

    def show_queue(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The choice of findings, the progress, the row and the buttons."""
        from audit_plugin.fiftyone_io.results import cases

        kind = kind_of(ctx)
        queue = queue_now(ctx, run, kind)
        choices = types.DropdownView(compact=True)
        kinds = offered_kinds(ctx, run)
        for name in kinds:
            choices.add_choice(name, label=name.capitalize())
        top = wrapped(panel, "top", gap=2, align_y="center")
        top.enum("kind", list(kinds), default=kind, label="Findings", view=choices, on_change=self.on_kind)
        if queue is None:
            self._show_spot_check(panel, run, queue, ctx)
            return
        if kind == CALIBRATE:
            self.show_precision(ctx, top, run)
        else:
            say(top, "progress", progress_text(queue.progress))
        if ctx.panel.state.history:  # above the case: in sight without scrolling
            show_history(ctx, panel, run, self.on_open_decision, queue if kind == SPOT_CHECK else None)
        row = self._shown(ctx, queue)
        if row is None:
            self._show_check(ctx, panel, run, queue, kind)
            say(panel, "done", done_text(queue, kind))
            self._show_navigation(ctx, panel, row)
            return
        case = cases.case_of(ctx.dataset, run, row, self._held(ctx, run, row))
        show_case(panel, case, blind=kind == SPOT_CHECK)
        if kind == DIFFERING:
            show_differing(panel, self._differing(ctx, run, row))
        show_decisions(ctx, panel, case, self.on_decide, kind)
        self._show_navigation(ctx, panel, row)
        if kind in (ALL, *FLAGS, MOST_UNCERTAIN):
            self._show_similar(ctx, panel, run, row)
        self._show_check(ctx, panel, run, queue, kind)
        if kind != SPOT_CHECK:
            show_evidence(panel, case)

    def _show_check(self, ctx: Any, panel: types.Object, run: str, queue: ReviewQueue, kind: str) -> None:
        """What a spot check or a calibration says so far; nothing of other findings."""
        if kind == SPOT_CHECK:
            self._show_spot_check(panel, run, queue, ctx)
        elif kind == CALIBRATE:
            self.show_calibration(ctx, panel, run)

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
        beside = {}
        if row:
            seen = decision_id(self._held(ctx, run_of(ctx), row))
            beside = {"row": list(row), "seen": seen, "since": drawn_since(ctx, row)}
        undo, redo = with_token(ctx, self.on_undo_last), with_token(ctx, self.on_redo_last)
        for name, label, key, on_click, params in (
            ("previous", "Previous (b)", "b", self.on_previous, beside),
            ("next", "Next (n)", "n", self.on_next, beside),
            ("undo", "Undo (u)", "u", self.on_undo_last, undo),
            ("redo", "Redo (y)", "y", self.on_redo_last, redo),
            ("list", "Decisions (d)", "d", self.on_history, beside),
        ):
            variant = "contained" if name == "list" and ctx.panel.state.history else "outlined"
            buttons.btn(name, label=label, on_click=on_click, params=params, variant=variant, **pressed_by(key, drawn))
        if row:
            look = of_parts(button=SMALL)
            buttons.btn("open", label="Open sample", variant="outlined", on_click=self.on_open, params=beside, **look)

    def _show_similar(self, ctx: Any, panel: types.Object, run: str, row: Row) -> None:
        """A button for each fault that other undecided rows share, which opens the form of a bulk decision."""
        from audit_plugin import fiftyone_io

        findings = queue_now(ctx, run, ALL)
        similar = fiftyone_io.similar_rows(ctx.dataset, run, row, findings) if findings else {}
        buttons = wrapped(panel, "similar") if similar else types.Object()  # an empty line would take room
        for number, (which, rows) in enumerate(similar.items()):
            label, values = f"All {len(rows):,} with the {which}", {"which": which, "row": list(row)}
            self.form_button(buttons, "decide_flagged", label, values=values, name=f"similar{number}")

    def _held(self, ctx: Any, run: str, row: Row | None) -> Decision | None:
        """The decision that is shown of a row; in a spot check those made in it alone."""
        kind = kind_of(ctx)
        queue = queue_now(ctx, run, kind) if kind not in (DIFFERING, CALIBRATE) else None
        if queue is not None and row in queue.rows:
            return queue.decided.get(row)
        return decision_that_holds(ctx, run, row)

    def _differing(self, ctx: Any, run: str, row: Row) -> tuple[Decision, ...]:
        from audit_plugin import fiftyone_io

        return fiftyone_io.disagreements_of(ctx.dataset, run)[1].get(row, ())

    def _shown(self, ctx: Any, queue: ReviewQueue | None) -> Row | None:
        """The chosen row; the next one once it was decided, here or elsewhere, or is in the queue no more.

        Thus a recorded decision changes nothing in the panel's state: the App reads its whole page again with each
        change of it, which takes longer than all else that a decision does.
        """
        row = checks.row({"row": ctx.panel.state.row})
        if queue is None or row is None:
            return row if queue is None else queue.next()
        is_beside = row == checks.row({"row": ctx.panel.state.opened}) and self._exists(ctx, row)
        if row not in queue.rows and not is_beside:  # as after another threshold
            return queue.next()
        held = decision_id(self._held(ctx, run_of(ctx), row))
        return queue.next(row) if held and held != (ctx.panel.state.seen or "") else row

    def _beside(self, ctx: Any, queue: ReviewQueue | None) -> Row | None:
        """The row that the button of an event was drawn beside."""
        return checks.row(ctx.params) or self._shown(ctx, queue)

    def _exists(self, ctx: Any, row: Row) -> bool:
        """Whether the dataset still has a row's sample or object."""
        from audit_plugin.fiftyone_io.results import cases

        return row in cases.texts_of(ctx.dataset, run_of(ctx), [row])

    def _go_to(self, ctx: Any, row: Row | None) -> None:
        """Choose a row; None: the next undecided one."""
        seen = decision_id(self._held(ctx, run_of(ctx), row))
        set_state(ctx, row=list(row) if row else None, opened=None, seen=seen)

    @guarded
    def on_change_current_sample(self, ctx: Any) -> None:
        """Another sample was opened or closed, where decisions may have been made: draw the next row."""

    @guarded
    def on_kind(self, ctx: Any) -> Any:
        """Other findings were chosen."""
        value = checks.text(ctx.params, "value")
        if value == kind_of(ctx):
            return UNCHANGED
        if value:
            ctx.panel.state.kind = value
            self._go_to(ctx, None)
        return None

    @changing
    def on_decide(self, ctx: Any) -> None:
        """Record the decision on the button's row, among the findings that it was shown in, and go on."""
        from audit_plugin.fiftyone_io import read_once

        run, row = run_of(ctx), checks.required(checks.row(ctx.params), "row")
        choose_drawn(ctx)
        kind = checks.choice(ctx.params, "kind", finding_kinds(), ALL)
        is_spot_check = kind == SPOT_CHECK
        with read_once():
            held = decision_that_holds(ctx, run, row, queue_now(ctx, run, kind) if is_spot_check else None)
            is_recorded = record_decision(ctx, run, row, held, is_spot_check)
        if not is_recorded:  # the row stays, with the decision that holds
            set_state(ctx, row=list(row), seen=decision_id(held))
            return
        forget(ctx)
        queue = queue_now(ctx, run, kind_of(ctx))
        following = self._shown(ctx, queue)
        if queue and following and following in queue.decided:  # skipped: whether again, `_shown` cannot know
            set_state(ctx, row=list(following), seen=decision_id(queue.decided[following]))

    @guarded
    def on_next(self, ctx: Any) -> None:
        """Go to the next undecided row."""
        queue = queue_now(ctx, run_of(ctx), kind_of(ctx))
        self._go_to(ctx, queue.next(self._beside(ctx, queue)) if queue else None)

    @guarded
    def on_previous(self, ctx: Any) -> None:
        """Go to the row before, decided or not."""
        queue = queue_now(ctx, run_of(ctx), kind_of(ctx))
        self._go_to(ctx, queue.previous(self._beside(ctx, queue)) if queue else None)

    @changing
    def on_undo_last(self, ctx: Any) -> None:
        """Undo the last decision and show its row."""
        if undone := undo_last(ctx, who_decides(ctx)):
            self._open_again(ctx, row_of(undone[-1]))

    @changing
    def on_redo_last(self, ctx: Any) -> None:
        """Redo what was undone last and show its row."""
        if redone := redo_last(ctx, who_decides(ctx)):
            self._open_again(ctx, row_of(redone[-1]))

    @guarded
    def on_history(self, ctx: Any) -> None:
        """Show or hide the last decisions."""
        choose_drawn(ctx)
        ctx.panel.state.history = not ctx.panel.state.history

    @guarded
    def on_open_decision(self, ctx: Any) -> None:
        """Show the case of one of the last decisions again."""
        from audit_plugin.fiftyone_io.results import cases

        row, run = checks.required(checks.row(ctx.params), "row"), run_of(ctx)
        cases.sample_of(ctx.dataset, run, row)  # raises if it is gone
        queue = queue_now(ctx, run, SPOT_CHECK) if kind_of(ctx) == SPOT_CHECK else None
        if queue is not None and row not in queue.rows:
            raise AuditError("that decision is not of the spot check; choose other findings to open it")
        self._open_again(ctx, row)
        ctx.panel.state.history = False  # what was asked for is in sight

    def _open_again(self, ctx: Any, row: Row) -> None:
        """Show a row of a decision: among the chosen findings if it is one of them, else among all or beside them.

        Of a row that is gone, the next finding is shown. In a spot check nothing but its own rows is shown: evidence on
        another caption of a sample would tell of one that is still to be judged.
        """
        if not self._exists(ctx, row):  # as the notice on what was undone or redone says
            self._go_to(ctx, None)
            return
        kind = kind_of(ctx)
        queue = queue_now(ctx, run_of(ctx), kind)
        if queue is None or row not in queue.rows:
            if queue is not None and kind == SPOT_CHECK:
                return
            ctx.panel.state.kind = ALL
            ctx.panel.state.set("queue.top.kind", ALL)
        self._go_to(ctx, row)
        set_state(ctx, opened=list(row))

    @guarded
    def on_open(self, ctx: Any) -> None:
        """Open the sample."""
        from audit_plugin.fiftyone_io.results import cases

        run = run_of(ctx)
        if row := self._beside(ctx, queue_now(ctx, run, kind_of(ctx))):
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
        """Draw."""

    @guarded
    def on_change_current_sample(self, ctx: Any) -> None:
        """Draw."""

    @changing
    def on_decide(self, ctx: Any) -> None:
        """Record the decision and open the next finding."""
        run, row = audit_key(ctx.dataset, {}), checks.required(checks.row(ctx.params), "row")
        if record_decision(ctx, run, row, decision_that_holds(ctx, run, row)):
            forget(ctx)
            open_sample_of(ctx, run, self._queue(ctx, run).next(row))

    def _queue(self, ctx: Any, run: str) -> ReviewQueue:
        """All findings as they are now."""
        from audit_plugin import fiftyone_io

        queue: ReviewQueue = once_per_event(ctx, ("findings", run), lambda: fiftyone_io.queue_of(ctx.dataset, run))
        return queue

    @drawn
    def render(self, ctx: Any, panel: types.Object) -> None:
        """The row of the open sample."""
        from audit_plugin.fiftyone_io.results import cases

        if not isinstance(ctx.current_sample, str) or not ctx.current_sample:
            say(panel, "none", "Open a sample to see its results.")
            return
        try:
            run = audit_key(ctx.dataset, {})
            queue = self._queue(ctx, run)
            row = cases.row_to_show(ctx.dataset, run, queue, ctx.current_sample)
        except AuditError as error:  # no audit, or no object of the sample was flagged
            panel.view("none", types.Notice(label=str(error)))
            return
        case = cases.case_of(ctx.dataset, run, row, decision_that_holds(ctx, run, row))
        top = wrapped(panel, "head", gap=2, align_y="center")
        say(top, "progress", f"{progress_text(queue.progress)}. Press **h** for keyboard shortcuts.")
        show_reviewer(top)
        show_case(panel, case, blind=False)
        show_decisions(ctx, panel, case, self.on_decide)
        show_evidence(panel, case)


def choose_drawn(ctx: Any) -> None:
    """In this event, choose the row beside which its button was drawn; the browser's state may hold one before it."""
    if row := checks.row(ctx.params):
        ctx.panel_state.update(row=list(row), seen=checks.text(ctx.params, "seen", most=MOST_ID))


def kind_of(ctx: Any) -> str:
    """The findings that are chosen."""
    kind = ctx.panel.state.kind
    return kind if kind in offered_kinds(ctx, run_of(ctx)) else ALL


def offered_kinds(ctx: Any, run: str) -> list[str]:
    """The findings to choose from: those that the audit has columns of; a calibration where flags are movable."""
    from audit_plugin.fiftyone_io.results import findings, thresholds

    def is_offered(kind: str) -> bool:
        if kind == CALIBRATE:
            return thresholds.can_move_threshold(ctx.dataset, run, "misaligned")
        if kind == MOST_UNCERTAIN:
            return findings.has_column(ctx.dataset, run, "probability")
        return kind != SPOT_CHECK or findings.has_column(ctx.dataset, run, "is_misaligned")

    kinds: list[str] = once_per_event(
        ctx, ("kinds", run), lambda: [kind for kind in finding_kinds() if is_offered(kind)]
    )
    return kinds


def queue_now(ctx: Any, run: str, kind: str) -> ReviewQueue | None:
    """The rows of a kind of findings as they are now; None if it is a spot check and none was started."""
    queue: ReviewQueue | None = once_per_event(ctx, ("queue", run, kind), lambda: _queue_of_kind(ctx, run, kind))
    return queue


def _queue_of_kind(ctx: Any, run: str, kind: str) -> ReviewQueue | None:
    from audit_plugin import fiftyone_io

    if kind == DIFFERING:
        return fiftyone_io.disagreements_of(ctx.dataset, run)[0]
    if kind == CALIBRATE:
        return queue_of_search(ctx, run)
    if kind != SPOT_CHECK:
        return fiftyone_io.queue_of(ctx.dataset, run, () if kind == ALL else (kind,))
    try:
        return fiftyone_io.spot_check(ctx.dataset, run).queue
    except AuditError:
        return None


def done_text(queue: ReviewQueue, kind: str) -> str:
    """What is said where no row is left."""
    if kind == CALIBRATE:
        return "No more labels are needed. *Previous* shows those that were used."
    if queue.rows:
        return "All samples are decided. Apply the decisions in *Report and apply*, or choose other findings."
    if kind == DIFFERING:
        return "No two reviewers disagree."
    if kind == MOST_UNCERTAIN:
        return "No sample is uncertain: the audit takes each for right or wrong with a probability above 95%."
    more = " The card *Memorized* in *Overview* shows the highest MultiMem." if kind == "memorized" else ""
    return f"Nothing to review: this audit flagged no samples of this kind.{more}"


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
