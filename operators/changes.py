"""Apply what was decided, undo it, delete what is hidden, export: each asks before it does, with the count."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from .common import choose_audit, counted, listed, prompt, run_of, samples, told


class ApplyDecisions(foo.Operator):
    """Carries the decisions out, through a journal."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Relabel and hide as decided; every change is kept in a journal and can be undone; no file is deleted"
        return listed("apply_decisions", "Apply decisions", "done_all", "medium", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """What would be done, as a confirmation."""
        from audit_plugin import fiftyone_io

        form, plan = types.Object(), fiftyone_io.plan_of(ctx.dataset)
        count = samples(len(plan.changes))
        what = [f"{count} would change"] if plan.changes else ["There is nothing to apply"]
        what += [f"{len(plan.stale):,} decisions are left out, since their content changed"] if plan.stale else []
        notice = form.view("what", types.Notice(label=". ".join(what) + "."))
        notice.invalid = not plan.changes
        return prompt(form, "Apply decisions", f"Apply to {count}")

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Apply."""
        from audit_plugin import fiftyone_io

        done = told(ctx, lambda: fiftyone_io.apply(ctx.dataset))
        if done is None:
            return {}
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Applied: {counted(done.counts)}", variant="success")
        return {"change_set": done.id, **done.counts}

    def __call__(self, sample_collection: Any, run: str | None = None) -> Any:
        """Apply from Python; see `audit_plugin.fiftyone_io.apply`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.apply(sample_collection, run)


class UndoChanges(foo.Operator):
    """Takes back what was applied or deleted last, exactly."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Take back exactly what was applied or deleted last; decisions stay"
        return listed("undo_changes", "Undo applied changes", "settings_backup_restore", "medium", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """What would be taken back, as a confirmation."""
        from audit_plugin import fiftyone_io

        form = types.Object()
        last = next((c for c in reversed(fiftyone_io.list_changes(ctx.dataset)) if c.state == "applied"), None)
        label = f"Of {last.time:%Y-%m-%d %H:%M} UTC: {counted(last.counts)}." if last else "There is nothing to undo."
        form.view("what", types.Notice(label=label)).invalid = last is None
        return prompt(form, "Undo applied changes", "Undo")

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Undo."""
        from audit_plugin import fiftyone_io

        done = told(ctx, lambda: fiftyone_io.undo(ctx.dataset, ctx.params.get("change_set")))
        if done is None:
            return {}
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Undone: {counted(done.counts)}", variant="success")
        return {"change_set": done.id}

    def __call__(self, sample_collection: Any, change_set: str | None = None) -> Any:
        """Undo from Python; see `audit_plugin.fiftyone_io.undo`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.undo(sample_collection, change_set)


class DeleteRemoved(foo.Operator):
    """Deletes the hidden samples from the dataset, with a copy of each in the journal."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Delete the samples hidden as removed from the dataset; a full copy of each is kept and can be put back"
        return listed("delete_removed", "Delete removed samples", "delete", "high", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """The number has to be typed."""
        from audit_plugin.fiftyone_io import REMOVED

        form, count = types.Object(), ctx.dataset.match_tags(REMOVED).count()
        form.view("what", types.Warning(label=f"{samples(count)} would leave the dataset. Media files stay."))
        given = form.int("count", label=f"Type {count} to confirm", required=True)
        if ctx.params.get("count") != count or not count:
            given.invalid, given.error_message = True, f"{count} samples are hidden as removed"
        return prompt(form, "Delete removed samples", "Delete")

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Delete."""
        from audit_plugin import fiftyone_io

        done = told(ctx, lambda: fiftyone_io.delete_removed(ctx.dataset, ctx.params["count"]))
        if done is None:
            return {}
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"{counted(done.counts)}; Undo applied changes brings them back", variant="success")
        return {"change_set": done.id, **done.counts}

    def __call__(self, sample_collection: Any, confirm_count: int) -> Any:
        """Delete from Python; see `audit_plugin.fiftyone_io.delete_removed`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.delete_removed(sample_collection, confirm_count)


EXPORTS = {
    "report": ("HTML report, one file that needs nothing else", "audit.html"),
    "decisions": ("Table of the decisions, .csv or .jsonl", "decisions.csv"),
    "removed": ("Ids of the removed samples, for a training script", "removed.txt"),
    "dataset": ("Copy of the dataset without the removed samples", "clean"),
}


class ExportReview(foo.Operator):
    """Writes the report, the decisions or the removed ids into a file, or makes a clean copy of the dataset."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Write one self-contained HTML report, the decisions, the ids of removed samples, or a clean dataset"
        return listed("export_review", "Export review", "summarize", "low", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """What, and where to."""
        form, what = types.Object(), ctx.params.get("what") or "report"
        choose_audit(form, ctx.dataset, ctx.params)
        choices = types.RadioGroup()
        for name, (label, _) in EXPORTS.items():
            choices.add_choice(name, label=label)
        form.enum("what", list(EXPORTS), label="What", default="report", required=True, view=choices)
        name = f"{ctx.dataset.name}-{EXPORTS[what][1]}"
        if what == "dataset":
            form.str(what, label="Name of the new dataset", default=name, required=True)
        else:
            form.str(what, label="File, on the server", default=str(Path.home() / name), required=True)
        return prompt(form, "Export review", "Export")

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Write it."""
        what = ctx.params.get("what") or "report"
        run = told(ctx, lambda: run_of(ctx.dataset, ctx.params))
        made = run and told(ctx, lambda: self(ctx.dataset, what, ctx.params[what], run))
        if not made:
            return {}
        ctx.ops.notify(made, variant="success")
        url = f"/media?filepath={quote(str(Path(ctx.params[what]).expanduser()))}" if what == "report" else ""
        return {"written": made, "link": f"[Open the report]({url})" if url else ""}

    def resolve_output(self, ctx: Any) -> types.Property:
        """What was written, and a link to the report."""
        output = types.Object()
        output.str("written", view=types.LabelValueView(read_only=True), label="Written")
        if ctx.results.get("link"):
            output.str("link", view=types.MarkdownView())
        return types.Property(output, view=types.View(label="Export review"))

    def __call__(self, sample_collection: Any, what: str, to: str, run: str = "audit") -> str:
        """Export from Python: what of `EXPORTS`, to a path or, of a dataset, a name; a sentence on what was written."""
        from audit_plugin import fiftyone_io

        if what == "dataset":
            return f"Dataset {to!r} of {samples(fiftyone_io.export_clean(sample_collection, to).count())}"
        path = Path(to).expanduser()
        if what == "decisions":
            return f"{path} ({fiftyone_io.export_decisions(sample_collection, path, run):,} decisions)"
        if what == "removed":
            return f"{path} ({fiftyone_io.export_removed(sample_collection, path):,} ids)"
        from audit_plugin.fiftyone_io.results.reports import review_report
        from audit_plugin.report import write_report

        if what != "report" or path.suffix.lower() not in (".html", ".htm"):
            raise AuditError(f"{what} cannot be written to {to!r}; a report's file ends in .html")
        write_report(review_report(sample_collection, run), path)
        return f"{path} ({path.stat().st_size / 1e6:.1f} MB)"
