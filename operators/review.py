"""Decide, take back, go to the next: what a person does with one finding after another, or with a selection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from .common import listed, prompt, run_of, samples, told

if TYPE_CHECKING:
    from audit_plugin.fiftyone_io import ReviewQueue

DECISIONS = {
    "keep": "Keep: the pair belongs together",
    "remove": "Remove: hide it once the decisions are applied",
    "relabel": "Relabel: give it another text",
    "skip": "Skip: come back to it last",
    "unsure": "Unsure: neither right nor wrong can be said",
}
PAUSE = 600.0  # seconds: who takes longer has left the room, and the decision is not timed


class Decide(foo.Operator):
    """Writes one decision for the open sample, or one for each of the selected ones."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = (
            "Record what you chose for the open sample or for the selected ones; nothing changes until the decisions "
            "are applied, and every decision can be taken back"
        )
        return listed("decide", "Decide: keep, remove or relabel", "gavel", "low", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form, which says for how many samples."""
        form, names = types.Object(), chosen_names(ctx)
        if not names:
            lacking = form.view("none", types.Warning(label="Open a sample or select some first"))
            lacking.invalid = True
        ask_decision(form, ctx.params)
        return prompt(form, "Decide", f"Decide for {samples(len(names))}" if names else "Decide")

    def resolve_placement(self, ctx: Any) -> types.Placement:  # noqa: ARG002 (FiftyOne's signature)
        """A button above the open sample."""
        button = types.Button(label="Decide: keep, remove or relabel", icon="gavel", prompt=True)
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, button)

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Write the decisions; from the keyboard go on to the next finding."""
        return told(ctx, lambda: self._decide(ctx)) or {}

    def _decide(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        params, run, kind = ctx.params, run_of(ctx.dataset, ctx.params), ctx.params["decision"]
        rows = chosen_rows(ctx, run, fiftyone_io.queue_of(ctx.dataset, run))
        if not rows:
            raise AuditError("no sample is open or selected; open one or select some, then decide")
        text, note = params.get("text") or "", params.get("note") or ""
        seconds = timed(float(params.get("seconds") or 0))
        reviewer = params.get("reviewer") or ""
        made = fiftyone_io.decide(ctx.dataset, rows, kind, run, text, note, reviewer, seconds=seconds)
        queue = fiftyone_io.queue_of(ctx.dataset, run)
        ctx.ops.notify(decided_words(kind, len(made), queue.progress), variant="success")
        if params.get("from_modal"):
            go_to(ctx, run, queue.next(rows[0]))
        else:
            ctx.ops.reload_samples()
        return {"decided": len(made), "done": queue.progress.done, "total": queue.progress.total}

    def __call__(self, sample_collection: Any, ids: Any, decision: str, **given: Any) -> Any:
        """Decide from Python; see `audit_plugin.fiftyone_io.decide`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.decide(sample_collection, ids, decision, **given)


class UndoDecision(foo.Operator):
    """Takes back the last decision of this machine's reviewer."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Take back what you decided last, a whole batch at once; what was applied stays as it is"
        return listed("undo_decision", "Take back the last decision", "undo", "low", about)

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Take it back and, from the keyboard, show the sample again."""
        return told(ctx, lambda: self._undo(ctx)) or {}

    def _undo(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        gone = fiftyone_io.undo_last(ctx.dataset, ctx.params.get("reviewer") or "")
        if not gone:
            ctx.ops.notify("There is no decision of yours to take back", variant="info")
            return {"undone": 0}
        what = gone[0].kind if len(gone) == 1 else f"{len(gone):,} decisions"
        ctx.ops.notify(f"Taken back: {what}", variant="info")
        if ctx.params.get("from_modal"):
            ctx.ops.open_sample(id=gone[0].sample)
        else:
            ctx.ops.reload_samples()
        return {"undone": len(gone)}

    def __call__(self, sample_collection: Any, reviewer: str = "") -> Any:
        """Take back from Python; see `audit_plugin.fiftyone_io.undo_last`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.undo_last(sample_collection, reviewer)


class OpenNext(foo.Operator):
    """Opens the next or the previous finding of the queue."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Open the next sample of the review's queue; with step -1 the one before, decided or not"
        return listed("open_next", "Open the next finding", "skip_next", "low", about)

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Open it."""
        return told(ctx, lambda: self._open(ctx)) or {}

    def _open(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results.cases import open_row

        run = run_of(ctx.dataset, ctx.params)
        queue = fiftyone_io.queue_of(ctx.dataset, run)
        at = open_row(ctx.dataset, run, queue, str(ctx.current_sample)) if ctx.current_sample else None
        found = queue.previous(at) if int(ctx.params.get("step", 1)) < 0 else queue.next(at)
        go_to(ctx, run, found)
        return {"sample": found[0] if found else ""}


def ask_decision(form: types.Object, params: dict[str, Any]) -> None:
    """The fields of a decision: which, the text of a relabel, a note."""
    choices = types.RadioGroup()
    for name, label in DECISIONS.items():
        choices.add_choice(name, label=label)
    form.enum("decision", list(DECISIONS), label="Decision", required=True, view=choices)
    if params.get("decision") == "relabel":
        about = "Empty: the audit's suggestion for each"
        form.str("text", label="Text", description=about, view=types.TextFieldView(multiline=True))
    form.str("note", label="Note", description="In your own words, for whoever reads the decisions later")


def chosen_names(ctx: Any) -> list[str]:
    """Ids of what is decided: the sample that is open, else the selected objects, else the selected samples."""
    if ctx.current_sample:
        return [str(ctx.current_sample)]
    return [label["label_id"] for label in ctx.selected_labels or ()] or [str(name) for name in ctx.selected or ()]


def chosen_rows(ctx: Any, run: str, queue: ReviewQueue) -> list[tuple[str, int]]:
    """The rows of what is chosen: of several captions or objects of a sample, the one that is in question."""
    from audit_plugin.fiftyone_io.results.cases import open_row

    return [open_row(ctx.dataset, run, queue, name) for name in chosen_names(ctx)]


def go_to(ctx: Any, run: str, row: tuple[str, int] | None) -> None:
    """Open a row's sample, or say that the queue is empty; in a view of objects the object itself."""
    from audit_plugin.fiftyone_io.results.cases import sample_of

    if row is None:
        ctx.ops.notify("The queue is done: nothing is left to decide", variant="success")
        return
    objects = getattr(ctx.view, "_is_generated", False)
    ctx.ops.open_sample(id=row[0] if objects else sample_of(ctx.dataset, run, row))


def timed(seconds: float) -> float:
    """Seconds that a decision took, 0 (not timed) where the reviewer was away meanwhile."""
    return seconds if 0 < seconds < PAUSE else 0.0


def decided_words(kind: str, count: int, progress: Any) -> str:
    """`Keep · 37 of 412 decided, about 12 min left`."""
    what = kind.capitalize() if count == 1 else f"{kind.capitalize()}: {samples(count)}"
    left = f", about {max(progress.minutes, 1):.0f} min left" if progress.minutes > 0 else ""
    return f"{what} · {progress.done:,} of {progress.total:,} decided{left}"
