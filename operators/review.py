"""Record decisions: one by one, for a selection, in a spot check, from a file; undo and redo them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.review.spot_check import SIZE

from . import checks, files
from .base import (
    MOST_NAME,
    AuditOperator,
    FormOperator,
    audit_key,
    block,
    choose_audit,
    notify,
    open_view,
    operator_config,
    samples_text,
)
from .panel_words import shown_name

if TYPE_CHECKING:
    from audit_plugin.review import Decision, Row

DECISIONS = {
    "keep": "Keep: the sample is correct",
    "remove": "Remove: hide it when decisions are applied",
    "relabel": "Relabel: replace its text",
    "skip": "Skip: review it last",
    "unsure": "Unsure: cannot tell",
}
PAUSE = 600.0  # seconds: after a longer pause the reviewer was away, and the decision is not timed
MOST_ID = 100  # characters of a decision's id
TABLES = (".csv", ".jsonl", ".json", ".xml")
# Parameters without a form field, sent by the keyboard shortcuts (`ui/index.umd.js`) or by scripts: `from_modal` (bool:
# open the next sample), `seen` (str: id of the decision that the key may replace), `seconds` (float: time of the
# decision, 0 if unknown), `reviewer` (str: name, default the user of the App or of this machine), `token` (from
# `review_tokens`, and then from the result of each decision) and, of `open_next`, `step` (1 or -1). They are an
# interface: keep the names.


class Decide(FormOperator):
    """Records a decision for the open sample, or for each of the selected ones."""

    listing = operator_config(
        "decide",
        "Audit: Decide",
        "gavel",
        "low",
        "Record a decision for the open sample or the selected samples. Nothing changes until decisions are applied, "
        "and each decision can be undone",
    )

    def form(self, ctx: Any) -> types.Property:
        form, ids = types.Object(), chosen_ids(ctx)
        if not ids:
            block(form, "none", types.Warning(label="Open a sample or select samples first"))
        add_decision(form, ctx.params)
        if len(ids) > 1:
            form.view("count", types.Notice(label=f"One decision for {samples_text(len(ids))}, undone as one."))
        return self.prompt(form, f"Save decision for {samples_text(len(ids))}" if ids else "Save decision")

    def shown(self, ctx: Any) -> Any:
        """The selection; nothing of an open sample, which keys decide on without a form."""
        return None if ctx.current_sample else chosen_ids(ctx)

    def resolve_placement(self, ctx: Any) -> types.Placement:  # noqa: ARG002 (FiftyOne's signature)
        """A button above the open sample."""
        button = types.Button(label="Decide", icon=self.listing.icon, prompt=True)
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, button)

    def perform(self, ctx: Any) -> dict[str, Any]:
        """Record the decisions; by keyboard, open the next finding."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import cases

        params, run = ctx.params, audit_key(ctx.dataset, ctx.params)
        kind = checks.required(checks.choice(params, "decision", DECISIONS), "decision")
        queue = fiftyone_io.queue_of(ctx.dataset, run)
        rows = [cases.row_to_show(ctx.dataset, run, queue, name) for name in chosen_ids(ctx)]
        if not rows:
            raise AuditError("no sample is open or selected; open a sample or select samples, then decide")
        if params.get("from_modal"):  # a key does not show what it would replace
            held = fiftyone_io.decision_of(ctx.dataset, run, rows[0])
            if held is not None and held.id != checks.text(params, "seen", most=MOST_ID):
                notify(ctx, decided_before_text(held), "warning")
                return {"decided": 0, "held": held.id, "token": next_token(ctx, self.listing.name)}
        seconds = timed(checks.number(params, "seconds", 0.0))
        text, note, reviewer = checks.text(params, "text"), note_of(params), reviewer_of(ctx)
        made = fiftyone_io.decide(ctx.dataset, rows, kind, run, text, note, reviewer, seconds=seconds)
        queue = fiftyone_io.queue_of(ctx.dataset, run)
        told = decided_text(kind, len(made), queue.progress)
        if params.get("from_modal"):
            captions = cases.texts_of(ctx.dataset, run, rows)
            told += f" · {checks.short(captions.get(rows[0], ''))}"
        notify(ctx, told, "success")
        if params.get("from_modal"):
            open_sample_of(ctx, run, queue.next(rows[0]))
        else:
            ctx.ops.reload_samples()
        counts = {"decided": len(made), "done": queue.progress.done, "total": queue.progress.total}
        return {**counts, "token": next_token(ctx, self.listing.name)}

    def __call__(self, sample_collection: Any, ids: Any, decision: str, **options: Any) -> Any:
        """Decide from Python; see `audit_plugin.fiftyone_io.decide`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.decide(sample_collection, ids, decision, **options)


def decided_before_text(decision: Decision) -> str:
    """What a reviewer is told whose key would replace a decision."""
    who = f" by {shown_name(decision.reviewer)}" if decision.reviewer else ""
    return f"This sample was decided before: {decision.kind}{who}. Press the key again to replace that decision."


class UndoDecision(FormOperator):
    """Undoes the last decision of this machine's reviewer."""

    listing = operator_config(
        "undo_decision",
        "Audit: Undo last decision",
        "undo",
        "low",
        "Undo your last decision, or all decisions of your last bulk decision. Applied changes stay",
    )

    def form(self, ctx: Any) -> types.Property:  # noqa: ARG002
        form = types.Object()
        about = "Your last decision is undone; of a bulk decision, all its decisions"
        form.view("what", types.Notice(label=about))
        add_reviewer(form)
        return self.prompt(form, "Undo")

    def perform(self, ctx: Any) -> dict[str, Any]:
        """Undo it; by keyboard, open its sample."""
        undone = undo_last(ctx, reviewer_of(ctx))
        show_reverted(ctx, undone)
        return {"undone": len(undone), "token": next_token(ctx, self.listing.name)}

    def __call__(self, sample_collection: Any, reviewer: str = "") -> Any:
        """Undo from Python; see `audit_plugin.fiftyone_io.undo_last`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.undo_last(sample_collection, reviewer)


class RedoDecision(FormOperator):
    """Redoes what this reviewer undid last."""

    listing = operator_config(
        "redo_decision",
        "Audit: Redo decision",
        "redo",
        "low",
        "Redo what you undid last. After a new decision there is nothing to redo",
    )

    def form(self, ctx: Any) -> types.Property:  # noqa: ARG002
        form = types.Object()
        form.view("what", types.Notice(label="What you undid last is decided again; of a bulk decision, all of it"))
        add_reviewer(form)
        return self.prompt(form, "Redo")

    def perform(self, ctx: Any) -> dict[str, Any]:
        """Redo it; by keyboard, open its sample."""
        redone = redo_last(ctx, reviewer_of(ctx))
        show_reverted(ctx, redone)
        return {"redone": len(redone), "token": next_token(ctx, self.listing.name)}

    def __call__(self, sample_collection: Any, reviewer: str = "") -> Any:
        """Redo from Python; see `audit_plugin.fiftyone_io.redo_last`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.redo_last(sample_collection, reviewer)


class ReviewTokens(AuditOperator):
    """The first tokens of the keyboard shortcuts: only pages of the App itself can read an operator's results."""

    listing = operator_config(
        "review_tokens",
        "Audit: Tokens of the keyboard shortcuts",
        "key",
        "low",
        "Used by the keyboard shortcuts; changes nothing",
        unlisted=True,
    )

    def perform(self, ctx: Any) -> dict[str, Any]:
        return {by.listing.name: next_token(ctx, by.listing.name) for by in (Decide, UndoDecision, RedoDecision)}


class OpenNext(AuditOperator):
    """Opens the next or the previous finding of the queue."""

    listing = operator_config(
        "open_next",
        "Audit: Open next finding",
        "skip_next",
        "low",
        "Open the next sample of the review queue; with step -1 the previous one, decided or not",
    )

    def perform(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import cases

        run, step = audit_key(ctx.dataset, ctx.params), checks.whole(ctx.params, "step", 1, low=-1, high=1)
        (sample,) = checks.ids([ctx.current_sample]) if ctx.current_sample else ("",)
        queue = fiftyone_io.queue_of(ctx.dataset, run)
        current = cases.row_to_show(ctx.dataset, run, queue, sample) if sample else None
        row = queue.previous(current) if step < 0 else queue.next(current)
        open_sample_of(ctx, run, row)
        return {"sample": row[0] if row else ""}


class StartSpotCheck(FormOperator):
    """Draws random samples, half of them flagged; their decisions measure the precision of the flags."""

    listing = operator_config(
        "start_spot_check",
        "Audit: Start spot check",
        "casino",
        "low",
        "Draw random samples, half of them flagged. Your decisions on them measure the precision of the flags",
    )

    def form(self, ctx: Any) -> types.Property:
        form = types.Object()
        choose_audit(form, ctx.dataset, ctx.params)
        about = "More samples give narrower intervals. Replaces an earlier spot check; its decisions stay"
        form.int("size", label="Samples", description=about, default=SIZE, min=2, required=True)
        return self.prompt(form, "Draw samples")

    def perform(self, ctx: Any) -> dict[str, Any]:
        size = checks.whole(ctx.params, "size", SIZE, low=2)
        check = self(ctx.dataset, audit_key(ctx.dataset, ctx.params), size)
        return {"drawn": len(check.queue.rows)}

    def __call__(self, sample_collection: Any, run: str = "audit", size: int = SIZE, seed: int = 0) -> Any:
        """Draw from Python; see `audit_plugin.fiftyone_io.start_spot_check`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.start_spot_check(sample_collection, run, size, seed)


class ImportDecisions(FormOperator):
    """Imports decisions from a file."""

    listing = operator_config(
        "import_decisions",
        "Audit: Import decisions",
        "upload_file",
        "low",
        "Import decisions from a .csv or .jsonl file with at least the columns sample and kind, or from an export of "
        "Label Studio (.json) or CVAT (.xml)",
    )

    def form(self, ctx: Any) -> types.Property:
        form = types.Object()
        choose_audit(form, ctx.dataset, ctx.params)
        most = f"The file must be smaller than {files.MOST_UPLOAD / 1e6:.0f} MB"
        view = types.FileView(
            label="File",
            description="A .csv, .jsonl, .json or .xml file of this computer",
            types=",".join(TABLES),
            max_size=files.MOST_UPLOAD,
            max_size_error_message=most,
        )
        form.define_property("file", types.UploadedFile(), view=view, required=True)
        about = "Field that identifies the samples in the file: id, filepath, ..."
        form.str("key", label="Key field", description=about, default="id")
        return self.prompt(form, "Import")

    def perform(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        key, run = checks.text(ctx.params, "key", "id", most=200), audit_key(ctx.dataset, ctx.params)
        with files.uploaded(ctx.params, "file", TABLES) as path:
            count = fiftyone_io.import_decisions(ctx.dataset, path, run, key, reviewer_of(ctx))
        ctx.ops.reload_samples()
        notify(ctx, f"{count:,} new decisions", "success")
        return {"imported": count}

    def __call__(self, sample_collection: Any, path: str, run: str = "audit", key: str = "id") -> int:
        """Import from Python; see `audit_plugin.fiftyone_io.import_decisions`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.import_decisions(sample_collection, path, run, key)


def add_decision(form: types.Object, params: Mapping[str, Any]) -> None:
    """Add the fields of a decision: its kind, the text of a relabel, a note."""
    choices = types.RadioGroup()
    for name, label in DECISIONS.items():
        choices.add_choice(name, label=label)
    form.enum("decision", list(DECISIONS), label="Decision", required=True, view=choices)
    if checks.choice(params, "decision", DECISIONS) == "relabel":
        about = "Empty: the audit's suggestion for each sample"
        form.str("text", label="Text", description=about, view=types.TextFieldView(multiline=True))
    form.str("note", label="Note", description="Optional; stored with the decision")
    add_reviewer(form)


def add_reviewer(form: types.Object) -> None:
    """Add the reviewer's name that the browser keeps (`ui/index.umd.js`), with a way to change it."""
    form.str("reviewer", label="Reviewer", view=types.View(component="AuditReviewer"))


def chosen_ids(ctx: Any) -> list[str]:
    """Ids of what is decided: the open sample, or the selected objects, or the selected samples."""
    if ctx.current_sample:
        return checks.ids([ctx.current_sample])
    labels = checks.items({"selected_labels": ctx.selected_labels}, "selected_labels")
    if labels:
        return checks.ids([label.get("label_id") if isinstance(label, Mapping) else None for label in labels])
    return checks.ids(checks.items({"selected": ctx.selected}, "selected"))


def note_of(params: Mapping[str, Any]) -> str:
    """The reviewer's note."""
    return checks.text(params, "note")


def reviewer_of(ctx: Any) -> str:
    """The reviewer's name: as sent by a script, else the user of the App where it knows users, else ""."""
    name = checks.text(ctx.params, "reviewer", most=MOST_NAME)
    user = getattr(ctx, "user", None)
    return name or str(getattr(user, "name", None) or getattr(user, "email", None) or ctx.user_id or "")


def next_token(ctx: Any, operator: str) -> str:
    """A token for the next decision by keyboard."""
    from audit_plugin.fiftyone_io import tokens

    return tokens.new_token(ctx.dataset, operator)


def undo_last(ctx: Any, reviewer: str = "") -> list[Decision]:
    """Undo a reviewer's last decision or bulk decision and report what was undone."""
    from audit_plugin import fiftyone_io
    from audit_plugin.fiftyone_io.results.queues import without_effect

    undone = fiftyone_io.undo_last(ctx.dataset, reviewer)
    gone, _ = without_effect(ctx.dataset, undone)
    report = f"Undone: {kinds_text(undone)}{gone_text(gone, undone)}" if undone else ""
    notify(ctx, report or f"{_whose(reviewer)} no decision to undo")
    return undone


def redo_last(ctx: Any, reviewer: str = "") -> list[Decision]:
    """Redo what a reviewer undid last and report what was redone."""
    from audit_plugin import fiftyone_io
    from audit_plugin.fiftyone_io.results.queues import without_effect

    redone = fiftyone_io.redo_last(ctx.dataset, reviewer)
    gone, changed = without_effect(ctx.dataset, redone)
    report = f"Redone: {kinds_text(redone)}{gone_text(gone, redone)}{changed_text(changed, redone)}" if redone else ""
    notify(ctx, report or f"{_whose(reviewer)} nothing to redo", "warning" if gone or changed else "info")
    return redone


def kinds_text(decisions: Sequence[Decision]) -> str:
    """`keep`; of a bulk decision `15 decisions`."""
    return decisions[0].kind if len(decisions) == 1 else f"{len(decisions):,} decisions"


def gone_text(gone: Sequence[Decision], decisions: Sequence[Decision]) -> str:
    """`; its sample is not in the dataset any more`; "" where all are."""
    if not gone:
        return ""
    if len(decisions) == 1:
        return f"; its {'object' if gone[0].label else 'sample'} is not in the dataset any more"
    return f"; of {len(gone):,} of them the sample is not in the dataset any more"


def changed_text(changed: Sequence[Decision], decisions: Sequence[Decision]) -> str:
    """`, but it does not hold, ...`, where a text has changed since a decision on it; "" where none has."""
    if not changed:
        return ""
    if len(decisions) == 1:
        return ", but it does not hold, since the text has changed since that decision: decide again"
    which = count_text(len(changed), "of them does", "of them do")
    return f"; {which} not hold, since the text has changed since that decision: decide again"


def _whose(reviewer: str) -> str:
    return f"You ({shown_name(reviewer)}) have" if reviewer else "You have"


def show_reverted(ctx: Any, decisions: Sequence[Decision]) -> None:
    """By keyboard, open the sample of what was undone or redone; else reload the samples."""
    from audit_plugin.fiftyone_io.results.queues import without_effect

    if decisions and ctx.params.get("from_modal"):
        gone, _ = without_effect(ctx.dataset, decisions)
        if left := [decision for decision in decisions if decision not in gone]:
            ctx.ops.open_sample(id=left[0].sample)
    elif decisions:
        ctx.ops.reload_samples()


def open_sample_of(ctx: Any, run: str, row: Row | None) -> None:
    """Open a row's sample, in a view of objects its object; without a row, notify that the queue is done."""
    from audit_plugin.fiftyone_io.results.cases import sample_of

    if row is None:
        notify(ctx, "Review queue done: no undecided samples are left", "success")
        return
    shows_objects = getattr(open_view(ctx), "_is_generated", False)
    ctx.ops.open_sample(id=row[0] if shows_objects else sample_of(ctx.dataset, run, row))


def repairs_of(dataset: Any, run: str) -> dict[str, dict[str, Any]]:
    """The audit's repairs by their sentences."""
    from audit_plugin.fiftyone_io import audit_summary

    return {str(repair["sentence"]): repair for repair in audit_summary(dataset, run).get("repairs") or ()}


def timed(seconds: float) -> float:
    """Seconds that a decision took; 0 (not timed) if the reviewer was away."""
    return seconds if 0 < seconds < PAUSE else 0.0


def decided_text(kind: str, count: int, progress: Any) -> str:
    """`Keep · 37 of 412 decided, about 12 min left`."""
    what = kind.capitalize() if count == 1 else f"{kind.capitalize()}: {samples_text(count)}"
    rest = f", about {max(progress.minutes, 1):.0f} min left" if progress.minutes > 0 else ""
    return f"{what} · {progress.done:,} of {progress.total:,} decided{rest}"
