"""Decide, take back, go to the next: what a person does with one finding after another, or with a selection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError

DECISIONS = {
    "keep": "Keep: the pair belongs together",
    "remove": "Remove: hide it once the decisions are applied",
    "relabel": "Relabel: give it another text",
    "skip": "Skip: come back to it last",
    "unsure": "Unsure: neither right nor wrong can be said",
}


def told(ctx: Any, work: Callable[[], Any]) -> Any:
    """What the work gives; an error that the person can mend becomes a notice, and None."""
    try:
        return work()
    except AuditError as error:
        ctx.ops.notify(str(error), variant="error")
        return None


def run_of(dataset: Any, params: dict[str, Any]) -> str:
    """The audit that is meant: the one named, else the only or the first one.

    Raises:
        AuditError: the dataset has none.
    """
    from audit_plugin import fiftyone_io

    runs = fiftyone_io.list_audits(dataset)
    if not runs:
        raise AuditError(f"dataset {dataset.name!r} has no audit; run one first")
    return str(params.get("run") or ("audit" if "audit" in runs else runs[0]))


def chosen_rows(ctx: Any) -> list[str]:
    """Ids of what is decided: the sample that is open, else the selected objects, else the selected samples."""
    if ctx.current_sample:
        return [str(ctx.current_sample)]
    return [label["label_id"] for label in ctx.selected_labels or ()] or [str(name) for name in ctx.selected or ()]


class Decide(foo.Operator):
    """Writes one decision for the open sample, or one for each of the selected ones."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        return foo.OperatorConfig(
            name="decide",
            label="Decide: keep, remove or relabel",
            icon="gavel",
            dynamic=True,
            risk_level="low",
            view_target=False,
            description="Record what you chose for the open sample or for the selected ones; nothing changes until the "
            "decisions are applied, and every decision can be taken back",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form, which says for how many samples."""
        form, rows = types.Object(), chosen_rows(ctx)
        if not rows:
            lacking = form.view("none", types.Warning(label="Open a sample or select some first"))
            lacking.invalid = True
        form.enum("decision", list(DECISIONS), label="Decision", required=True, view=_choices())
        if ctx.params.get("decision") == "relabel":
            about = "Empty: the audit's suggestion for each"
            form.str("text", label="Text", description=about, view=types.TextFieldView(multiline=True))
        form.str("note", label="Note", description="In your own words, for whoever reads the decisions later")
        button = "Decide" if len(rows) < 2 else f"Decide for {len(rows):,} samples"
        return types.Property(form, view=types.PromptView(label="Decide", submit_button_label=button))

    def resolve_placement(self, ctx: Any) -> types.Placement:  # noqa: ARG002 (FiftyOne's signature)
        """A button above the open sample."""
        button = types.Button(label="Decide: keep, remove or relabel", icon="gavel", prompt=True)
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, button)

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Write the decisions; from the keyboard go on to the next finding."""
        return told(ctx, lambda: self._decide(ctx)) or {}

    def _decide(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        rows, params = chosen_rows(ctx), ctx.params
        if not rows:
            raise AuditError("no sample is open or selected; open one or select some, then decide")
        run, kind = run_of(ctx.dataset, params), params["decision"]
        before = fiftyone_io.queue_of(ctx.dataset, run).rows
        text, note = params.get("text") or "", params.get("note") or ""
        made = fiftyone_io.decide(ctx.dataset, rows, kind, run, text, note, params.get("reviewer") or "")
        left = fiftyone_io.queue_of(ctx.dataset, run)
        ctx.ops.notify(f"{progress_words(kind, len(made), left.progress)}", variant="success")
        if params.get("from_modal"):
            go_to(ctx, next_after(rows[0], before, left.rows, 1))
        else:
            ctx.ops.reload_samples()
        return {"decided": len(made), "done": left.progress.done, "total": left.progress.total}

    def __call__(self, sample_collection: Any, ids: Any, decision: str, **given: Any) -> Any:
        """Decide from Python; see `audit_plugin.fiftyone_io.decide`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.decide(sample_collection, ids, decision, **given)


class UndoDecision(foo.Operator):
    """Takes back the last decision of this machine's reviewer."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        return foo.OperatorConfig(
            name="undo_decision",
            label="Take back the last decision",
            icon="undo",
            risk_level="low",
            view_target=False,
            description="Take back what you decided last, a whole batch at once; what was applied stays as it is",
        )

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
            go_to(ctx, gone[0].sample)
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
        return foo.OperatorConfig(
            name="open_next",
            label="Open the next finding",
            icon="skip_next",
            risk_level="low",
            view_target=False,
            description="Open the next sample of the review's queue; with step -1 the one before",
        )

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Open it."""
        return told(ctx, lambda: self._open(ctx)) or {}

    def _open(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        rows = fiftyone_io.queue_of(ctx.dataset, run_of(ctx.dataset, ctx.params)).rows
        found = next_after(str(ctx.current_sample or ""), rows, rows, int(ctx.params.get("step", 1)))
        go_to(ctx, found)
        return {"sample": found}


def next_after(row: str, before: Any, left: Any, step: int) -> str:
    """Id of the finding `step` places after a row in the queue as it was, of those that are left; "" if none is.

    Args:
        row: id of the row; one that is not in the queue stands before its first.
        before: the queue `(id, caption)` with the row in it.
        left: those of them that are still to be decided.
        step: 1 or -1; the ends of the queue join.
    """
    names, still = [name for name, _ in before], {name for name, _ in left} - {row}
    at = names.index(row) if row in names else -min(step, 0) - 1
    for offset in range(1, len(names) + 1):
        name = names[(at + step * offset) % len(names)]
        if name in still:
            return str(name)
    return ""


def go_to(ctx: Any, name: str) -> None:
    """Open a sample, or say that the queue is empty. Of an object its sample opens."""
    if not name:
        ctx.ops.notify("The queue is done: nothing is left to decide", variant="success")
        return
    ctx.ops.open_sample(id=name)


def progress_words(kind: str, count: int, progress: Any) -> str:
    """`Keep · 37 of 412 decided, about 12 minutes left`."""
    what = kind.capitalize() if count == 1 else f"{kind.capitalize()}: {count:,} samples"
    left = f", about {max(progress.minutes, 1):.0f} minutes left" if progress.minutes > 0 else ""
    return f"{what} · {progress.done:,} of {progress.total:,} decided{left}"


def _choices() -> types.RadioGroup:
    choices = types.RadioGroup()
    for name, label in DECISIONS.items():
        choices.add_choice(name, label=label)
    return choices
