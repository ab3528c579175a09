"""Record many decisions at once: by flag, selected, with the same fault, or for a suggested repair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError
from audit_plugin.scoring.flags import FLAGS, movable_flags

from . import checks
from .base import FormOperator, audit_key, block, choose_audit, notify, operator_config, samples_text
from .panel_base import column, of_parts, plain_text
from .panel_case import show_file
from .panel_words import cut
from .review import DECISIONS, add_decision, add_reviewer, chosen_ids, note_of, repairs_of, reviewer_of

if TYPE_CHECKING:
    from audit_plugin.review import Row

FLAGGED, SELECTED, *_ = WHICH = ("flagged", "selected", "same caption", "same placeholder")
DEFAULT_KIND = "misaligned"
PREVIEW, PREVIEW_CHARACTERS = 6, 60  # rows that a form shows of those it decides; characters of a caption


class DecideFlagged(FormOperator):
    """Records the same decision for many undecided samples at once: by flag, selected, or with the same fault."""

    listing = operator_config(
        "decide_flagged",
        "Audit: Decide in bulk",
        "playlist_add_check",
        "medium",
        "Record the same decision for all undecided samples with a flag or with a score above a threshold, for the "
        "selected samples, or for those with the same caption or placeholder",
    )

    def form(self, ctx: Any) -> types.Property:
        """The form, whose notice and button show the number of samples; some of them are shown below."""
        form, params = types.Object(), ctx.params
        run = choose_audit(form, ctx.dataset, params)
        which = self._which(ctx)
        kind = checks.choice(params, "kind", FLAGS, DEFAULT_KIND)
        decision = checks.choice(params, "decision", DECISIONS)
        offered = [name for name in WHICH if name == which or name in (FLAGGED, SELECTED)]
        form.enum("which", offered, label="Samples", default=which, view=which_choices(ctx, offered))
        if which == FLAGGED:
            form.enum("kind", list(FLAGS), label="Findings", default=kind, view=types.DropdownView())
            if kind in movable_flags():
                about = "Lowest score of the samples to decide; empty: all flagged samples"
                form.float("threshold", label="Threshold", description=about)
        rows = self._show_rows(ctx, form, run, which, kind) if run else ()
        add_decision(form, params)
        button = f"{decision.capitalize()} {samples_text(len(rows))}" if run and decision else "Save decisions"
        return self.prompt(form, button)

    def _show_rows(self, ctx: Any, form: types.Object, run: str, which: str, kind: str) -> tuple[Row, ...]:
        """Add how many samples are decided and some of them; before a decision is chosen, those that can be."""
        decision = checks.choice(ctx.params, "decision", DECISIONS)
        try:
            rows = self._rows(ctx, run)
        except AuditError as error:
            block(form, "count", types.Error(label=str(error)))
            return ()
        about = bulk_text(len(rows), kind if which == FLAGGED else which, decision)
        form.view("count", types.Notice(label=about)).invalid = not rows
        add_preview(form, ctx.dataset, run, rows)
        return rows

    def perform(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        params, run = ctx.params, audit_key(ctx.dataset, ctx.params)
        kind = checks.required(checks.choice(params, "decision", DECISIONS), "decision")
        rows = self._rows(ctx, run)
        if not rows:
            raise AuditError("no undecided samples match; choose another kind or threshold")
        text = checks.text(params, "text")
        made = fiftyone_io.decide(ctx.dataset, rows, kind, run, text, note_of(params), reviewer_of(ctx))
        ctx.ops.reload_samples()
        notify(ctx, f"{kind.capitalize()}: {samples_text(len(made))} decided", "success")
        return {"decided": len(made)}

    def shown(self, ctx: Any) -> Any:
        """The decision and its samples; nothing until a decision is chosen."""
        from audit_plugin.fiftyone_io import tokens

        run, decision = audit_key(ctx.dataset, ctx.params), checks.choice(ctx.params, "decision", DECISIONS)
        rows = self._rows(ctx, run) if decision else ()
        return [run, decision, tokens.digest(rows)]

    def _which(self, ctx: Any) -> str:
        """Which samples: as chosen, else the selected ones, else those with a flag."""
        is_selected = bool(ctx.selected or ctx.selected_labels) and "kind" not in ctx.params
        return checks.choice(ctx.params, "which", WHICH, SELECTED if is_selected else FLAGGED)

    def _rows(self, ctx: Any, run: str) -> tuple[Row, ...]:
        """The rows that the decision, if one is chosen, can be made for; those with a decision are left out."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import cases

        dataset, params, which = ctx.dataset, ctx.params, self._which(ctx)
        kind = checks.choice(params, "kind", FLAGS, DEFAULT_KIND)
        decision = checks.choice(params, "decision", DECISIONS)
        if which == FLAGGED:
            threshold = checks.number(params, "threshold") if kind in movable_flags() else None
            # a text is a relabel for rows without a suggestion, too
            limited = "" if decision == "relabel" and checks.text(params, "text") else decision
            return fiftyone_io.batch_rows(dataset, run, kind, limited, threshold)
        queue = fiftyone_io.queue_of(dataset, run)
        if which == SELECTED:
            rows = cases.rows_to_show(dataset, run, queue, chosen_ids(ctx))
            rows = fiftyone_io.undecided(dataset, run, rows)
        else:
            row = checks.required(checks.row(params), "row")
            rows = fiftyone_io.similar_rows(dataset, run, row, queue).get(which, ())
        if decision == "relabel" and not checks.text(params, "text"):
            rows = fiftyone_io.with_suggestion(dataset, run, rows)
        return rows

    def __call__(self, sample_collection: Any, kind: str, decision: str, run: str = "audit", **options: Any) -> Any:
        """Decide from Python; `threshold`, and the other options of `audit_plugin.fiftyone_io.decide`."""
        from audit_plugin import fiftyone_io

        threshold = options.pop("threshold", None)
        rows = fiftyone_io.batch_rows(sample_collection, run, kind, decision, threshold)
        return fiftyone_io.decide(sample_collection, rows, decision, run, **options) if rows else []


def which_choices(ctx: Any, offered: Sequence[str]) -> types.Choices:
    """Which samples a bulk decision may be for."""
    selected = samples_text(len(chosen_ids(ctx))) if ctx.selected or ctx.selected_labels else "none is selected"
    labels = {FLAGGED: "Those with a flag", SELECTED: f"The selected ones ({selected})"}
    choices = types.DropdownView()
    for name in offered:
        choices.add_choice(name, label=labels.get(name, f"Those with the {name}"))
    return choices


def add_preview(form: types.Object, dataset: Any, run: str, rows: Sequence[Row]) -> None:
    """Add pictures and captions of some of the rows: the first and the last ones."""
    from audit_plugin import fiftyone_io
    from audit_plugin.fiftyone_io.results import cases

    chosen = [*rows] if len(rows) <= PREVIEW else [*rows[: PREVIEW - 2], *rows[-2:]]
    if not chosen:
        return
    shown = fiftyone_io.list_rows(dataset, run, chosen)  # without those that are gone
    place = types.Object()
    columns = of_parts(grid={"gridTemplateColumns": f"repeat({PREVIEW}, minmax(0, 1fr))"})
    title = "Some of them" if len(rows) > len(chosen) else "All of them"
    view = types.GridView(label=title, orientation="horizontal", gap=1, **columns)
    form.define_property("preview", place, label=title, view=view)
    for number, row in enumerate(shown):
        cell = types.Object()
        place.define_property(f"row{number}", cell, view=column(gap=0))
        show_file(cell, "picture", row.path, cases.media_of(row.path), "72px")
        plain_text(cell, "caption", "", cut(row.text, PREVIEW_CHARACTERS) or "(no caption)")


class DecideRepair(FormOperator):
    """Records the decision to relabel the samples of a suggested shift, swap or cycle; asks about uncertain ends."""

    listing = operator_config(
        "decide_repair",
        "Audit: Accept suggested repair",
        "auto_fix_high",
        "medium",
        "Accept a suggested shift, swap or cycle: relabel its samples with the captions suggested for them",
    )

    def form(self, ctx: Any) -> types.Property:
        form = types.Object()
        run = choose_audit(form, ctx.dataset, ctx.params)
        repairs = repairs_of(ctx.dataset, run) if run else {}
        if not repairs:
            block(form, "no_repair", types.Warning(label="The audit suggests no repair of a shift, swap or cycle"))
            return self.prompt(form, "Relabel")
        first = next(iter(repairs))
        form.enum("repair", list(repairs), label="Suggested repair", required=True, default=first)
        sentence = checks.text(ctx.params, "repair", first)
        if sentence not in repairs:
            return self.prompt(form, "Relabel")
        from audit_plugin.scoring.suggest.join_bugs import batch_rows

        certain, uncertain, _ = batch_rows(repairs[sentence])
        if uncertain:
            form.bool(
                "uncertain",
                default=False,
                label=f"Relabel the {samples_text(len(uncertain))} at the uncertain end as well",
                description="Look at them first: they are in the queue, and the panel Audit shows them",
            )
        add_reviewer(form)
        count = len(certain) + (len(uncertain) if with_uncertain(ctx) else 0)
        return self.prompt(form, f"Relabel {samples_text(count)}")

    def shown(self, ctx: Any) -> Any:
        """The repair and its samples."""
        run, sentence = self._chosen(ctx)
        return [run, sentence, repairs_of(ctx.dataset, run)[sentence]["rows"], with_uncertain(ctx)]

    def perform(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        run, sentence = self._chosen(ctx)
        decisions = fiftyone_io.repair_decisions(ctx.dataset, run, sentence, reviewer_of(ctx), with_uncertain(ctx))
        ctx.ops.reload_samples()
        count = samples_text(len(decisions))
        notify(ctx, f"Relabel: {count} decided; apply the decisions to change the captions", "success")
        return {"decided": len(decisions)}

    def _chosen(self, ctx: Any) -> tuple[str, str]:
        """The audit and the sentence of its repair, by default its first one."""
        run = audit_key(ctx.dataset, ctx.params)
        repairs = repairs_of(ctx.dataset, run)
        sentence = checks.text(ctx.params, "repair", next(iter(repairs), ""))
        if sentence not in repairs:
            raise AuditError(f"audit {run!r} has no repair {checks.short(sentence)}; choose one of its repairs")
        return run, sentence

    def __call__(self, sample_collection: Any, repair: str, run: str = "audit", uncertain: bool = False) -> Any:
        """Accept a suggested repair from Python, named by its sentence in the summary; `uncertain`: all of its rows."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.repair_decisions(sample_collection, run, repair, uncertain=uncertain)


def with_uncertain(ctx: Any) -> bool:
    """Whether the rows at an uncertain end are relabeled as well."""
    return ctx.params.get("uncertain") is True


def bulk_text(count: int, which: str, decision: str) -> str:
    """What a bulk decision records, "" before one is chosen; `which`: of `WHICH`, or a kind of findings."""
    whose = {SELECTED: " of the selection"}.get(which, f" with the {which}" if which in WHICH else "")
    text = f"{decision.capitalize()} {samples_text(count)}{whose}.".strip().capitalize()
    if decision == "remove" and which == "duplicate":
        text += " One sample of each group is kept."
    if decision == "relabel":
        text += " Samples without a suggestion are left out, unless a text is given."
    return f"{text} Samples that already have a decision are left out. Undone as one."
