"""The tab "Queue" and the panel of the open sample: one sample with its evidence, and buttons to decide."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError
from audit_plugin.review.flag_quality import TOO_FEW
from audit_plugin.scoring.flags import FLAGS
from audit_plugin.scoring.wrong_pairs import share_text

from . import checks
from .base import audit_key, notify
from .panel_base import AuditPanelBase, Tab, box, changing, drawn, guarded, plain_text, run_of, say, with_token
from .review import note_of, open_sample_of, reviewer_of, timed, undo_last

if TYPE_CHECKING:
    from audit_plugin.fiftyone_io.results.cases import ReviewCase
    from audit_plugin.review import Decision, ReviewQueue, Row

ALL, SPOT_CHECK = "all findings", "spot check"
KINDS = (ALL, *FLAGS, SPOT_CHECK)
BAR_BLOCKS = 10
MOST_CHARACTERS = 600  # of a caption
MOST_ID = 100  # characters of a decision's id
CHOICES = ("keep", "remove", "suggested", "typed", "skip", "unsure")  # of the buttons


class Queue(Tab):
    """Elements and handlers of the tab."""

    def show_queue(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The choice of findings, the progress, the row and the buttons."""
        from audit_plugin.fiftyone_io.results import cases

        queue, is_spot_check = self._queue(ctx, run, ctx.panel.state.kind), ctx.panel.state.kind == SPOT_CHECK
        choices = types.DropdownView()
        for name in KINDS:
            choices.add_choice(name, label=name.capitalize())
        top = panel.h_stack("top", gap=2, align_y="center")
        kind = ctx.panel.state.kind if ctx.panel.state.kind in KINDS else ALL
        top.enum("kind", list(KINDS), default=kind, label="Findings", view=choices, on_change=self.on_kind)
        if is_spot_check:
            self._show_spot_check(panel, run, queue, ctx)
        if queue is None:
            return
        say(top, "progress", progress_text(queue.progress))
        row = self._shown(ctx, queue)
        if row is None or (is_spot_check and not queue.left):
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
        suggestion = "" if is_spot_check else case.texts.get("suggestion", "")
        show_decisions(ctx, panel, case, suggestion, self.on_decide, kind)
        self._show_navigation(ctx, panel, row)
        if not is_spot_check:  # below the buttons, so that these need no scrolling
            show_neighbors(panel, case)

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
        buttons = panel.h_stack("moves", gap=1)
        buttons.btn("previous", label="Previous", icon="arrow_back", variant="outlined", on_click=self.on_previous)
        buttons.btn("next", label="Next", icon="arrow_forward", variant="outlined", on_click=self.on_next)
        undo = {"on_click": self.on_undo_last, "params": with_token(ctx, self.on_undo_last)}
        buttons.btn("undo", label="Undo last decision", icon="undo", variant="outlined", **undo)
        if row:
            buttons.btn("open", label="Open sample", icon="open_in_full", variant="outlined", on_click=self.on_open)

    def load_queue(self, ctx: Any) -> None:
        """Begin with the first undecided row; leave a row that was decided elsewhere since it was shown."""
        run = run_of(ctx)
        queue = self._queue(ctx, run, ctx.panel.state.kind)
        row = self._shown(ctx, queue)
        held = decision_id(held_decision(ctx, run, row, queue))
        if not ctx.panel.state.row:
            self._go_after(ctx, None)
        elif held != (ctx.panel.state.seen or "") and held:
            self._go_after(ctx, row)
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

    def _go_after(self, ctx: Any, row: Row | None) -> None:
        """Go to the next undecided row."""
        queue = self._queue(ctx, run_of(ctx), ctx.panel.state.kind)
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
        kind = checks.choice(ctx.params, "kind", KINDS, ALL)
        queue = self._queue(ctx, run, kind)
        if record_decision(ctx, run, row, queue, ctx.panel.state.get("queue"), kind == SPOT_CHECK):
            self._go_after(ctx, row)
        elif row != self._shown(ctx, queue):
            self._go_to(ctx, row, queue)

    @guarded
    def on_next(self, ctx: Any) -> None:
        self._go_after(ctx, self._shown(ctx, self._queue(ctx, run_of(ctx), ctx.panel.state.kind)))

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
        if record_decision(ctx, run, row, fiftyone_io.queue_of(ctx.dataset, run), ctx.panel.state._data):
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
        show_decisions(ctx, panel, case, case.texts.get("suggestion", ""), self.on_decide)
        show_neighbors(panel, case)


def show_case(panel: types.Object, case: ReviewCase, blind: bool) -> None:
    """Add the media, texts and scores of a row; blind, without what the audit says of it."""
    place = box(panel, f"case_{_key(case.row)}")
    if case.decision is not None:
        say(place, "decided", f"Decided: **{case.decision.kind}**")
    pair = place.h_stack("pair", gap=2, align_y="top")
    show_file(pair, "picture", case.path, case.media, "220px")
    texts = types.Object()
    pair.define_property("texts", texts, view=types.GridView(orientation="vertical", gap=1))
    plain_text(texts, "caption", "Caption", case.text[:MOST_CHARACTERS] or "(none)")
    if blind:
        return
    if case.words:
        plain_text(texts, "words", "Words that fit least", ", ".join(case.words))
    if case.texts.get("suggestion"):
        plain_text(texts, "suggestion", "Suggestion", case.texts["suggestion"][:MOST_CHARACTERS])
    plain_text(texts, "reason", "Reason", case.texts.get("reason") or ", ".join(case.flags) or "no finding")
    if case.scores:
        say(place, "scores", "\n".join(score_line(name, *score) for name, score in case.scores.items()))


def show_neighbors(panel: types.Object, case: ReviewCase) -> None:
    """Add the neighbors that disagree with the sample, side by side with their captions."""
    sides = [side for side in case.neighbors if side["voters"]]
    if not sides:
        return
    place = box(panel, f"evidence_{_key(case.row)}")
    for number, side in enumerate(sides):
        title = (
            f"**Similar {side['near']}, different {side['other']}.** The number says how well the {side['other']} "
            "agrees (1 = same)."
        )
        say(place, f"side{number}_title", title)
        line = place.h_stack(f"side{number}", gap=2, align_y="top")
        for position, voter in enumerate(side["voters"]):
            neighbor = types.Object()
            line.define_property(f"voter{position}", neighbor, view=types.GridView(orientation="vertical", gap=0))
            show_file(neighbor, "picture", voter["path"], voter["media"], "90px")
            plain_text(neighbor, "caption", f"{voter['agreement'] or 0:.2f}", voter["caption"][:160] or "(none)")


def show_decisions(
    ctx: Any, panel: types.Object, case: ReviewCase, suggestion: str, on_decide: Any, kind: str = ALL
) -> None:
    """Add the fields for a new caption and a note, and a button for each decision.

    A button carries its row, the kind of findings and the decision that is shown beside it: what is pressed is recorded
    of that row, whatever the panel shows by then, and never over a decision that was not seen.
    """
    key = _key(case.row)
    panel.str(f"typed_{key}", label="New caption", view=types.TextFieldView())
    panel.str(f"note_{key}", label="Note", view=types.TextFieldView())
    choices = [("keep", "Keep", "check"), ("remove", "Remove", "delete")]
    if suggestion:
        choices.append(("suggested", "Relabel with suggestion", "edit"))
    choices += [
        ("typed", "Relabel with new caption", "keyboard"),
        ("skip", "Skip", "redo"),
        ("unsure", "Unsure", "help"),
    ]
    buttons, signed = panel.h_stack("buttons", gap=1), with_token(ctx, on_decide)
    seen = decision_id(case.decision)
    for name, label, icon in choices:
        params = {"choice": name, "row": list(case.row), "kind": kind, "seen": seen, **signed}
        buttons.btn(name, label=label, icon=icon, variant="contained", on_click=on_decide, params=params)


def decision_id(decision: Decision | None) -> str:
    """Its id; "" without a decision."""
    return decision.id if decision else ""


def held_decision(ctx: Any, run: str, row: Row | None, queue: ReviewQueue | None) -> Decision | None:
    """The decision that holds on a row, in the queue or beside it: a sample without findings may be decided as well."""
    from audit_plugin import fiftyone_io

    if row is None or queue is None:
        return None
    return queue.decided.get(row) if row in queue.rows else fiftyone_io.decision_of(ctx.dataset, run, row)


def record_decision(
    ctx: Any, run: str, row: Row, queue: ReviewQueue | None, text_fields: Any, is_spot_check: bool = False
) -> bool:
    """Record the decision of a button.

    Args:
        ctx: of the button's event, with the parameters of `show_decisions`.
        run: key of the audit.
        row: what is decided on.
        queue: as it is now.
        text_fields: part of the panel's state that has the text fields.
        is_spot_check: whether the decision belongs to a spot check.

    Returns:
        Whether a decision was recorded; not if its text is missing or there is a decision that the button did not
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
    key, values = _key(row), text_fields or {}
    typed, note = checks.text(values, f"typed_{key}"), note_of({"note": values.get(f"note_{key}")})
    if choice == "typed" and not typed.strip():
        notify(ctx, "Type the new caption first", "warning")
        return False
    kind = "relabel" if choice in ("suggested", "typed") else choice
    text = typed if choice == "typed" else ""
    seconds, reviewer = timed(time.time() - float(ctx.panel.state.since or 0)), reviewer_of(ctx)
    if is_spot_check:
        fiftyone_io.record_spot_check(ctx.dataset, run, row, kind, text, note, reviewer, seconds=seconds)
    else:
        fiftyone_io.decide(ctx.dataset, [row], kind, run, text, note, reviewer, seconds=seconds)
    return True


def meanwhile_text(decision: Decision | None) -> str:
    """What a reviewer is told whose button did not show the decision that holds by now."""
    if decision is None:
        return "The decision on this sample was undone meanwhile. Nothing was recorded: decide again."
    who = f" by {decision.reviewer}" if decision.reviewer else ""
    return (
        f"This sample was decided meanwhile: {decision.kind}{who}. Nothing was recorded: press the button again to "
        "replace that decision."
    )


def show_file(parent: types.Object, name: str, path: str, media: str, height: str) -> None:
    """Add the sample's file, if a panel can show it."""
    url = f"/media?filepath={quote(path)}"
    if media == "video":
        player = types.MediaPlayerView(controls=True, width="100%", height=height)
        parent.obj(name, view=player, default={"url": url})
    elif media == "image":
        parent.str(name, default=url, view=types.ImageView(height=height, alt=""))


def score_line(name: str, value: float, share_below: float) -> str:
    """A score as a name, a bar and a number; the bar is the share of rows with a lower score."""
    from audit_plugin.scoring.columns import all_columns

    full = round(share_below * BAR_BLOCKS)
    bar = f"`{'█' * full}{'░' * (BAR_BLOCKS - full)}`"
    percent = int(100 * share_below + 1e-9)  # rounded down: no sample is above 100% of a set that holds it
    return f"- {all_columns()[name].label}: {bar} {value:.2f}, higher than {percent}% of the set"


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
    precision, wrong = estimate.precision, estimate.wrong
    clauses = []
    if precision.tells:
        clauses.append(f"wrong among the flagged {share_text(precision, TOO_FEW)}")
    if wrong.value == wrong.value:
        interval = f"{wrong.low:,.0f} to {wrong.high:,.0f}"
        clauses.append(f"about {wrong.value:,.0f} samples of the whole set are wrong ({interval})")
    estimates = ", and ".join(clauses) or TOO_FEW
    return f"Spot check ({estimate.reviewed:,} decided, {estimate.confidence:.0%} intervals): {estimates}."


def _key(row: Row) -> str:
    """Part of the names of a row's elements, so that a text typed for one row is never used for the next."""
    return f"{row[0]}_{row[1]}"
