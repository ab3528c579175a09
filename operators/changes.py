"""Apply decisions, undo that, delete removed samples, export: each form shows the count before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from .base import AuditOperator, audit_key, changes_text, choose_audit, count_text, operator_config, samples_text

# What can be exported -> its label, the end of its default name.
EXPORTS = {
    "report": ("HTML report, one self-contained file", "audit.html"),
    "decisions": ("Table of decisions, .csv or .jsonl", "decisions.csv"),
    "removed": ("Ids of removed samples, for a training script", "removed.txt"),
    "dataset": ("Copy of the dataset without removed samples", "clean"),
}


class ApplyDecisions(AuditOperator):
    """Applies the decisions and records each change in a journal."""

    listing = operator_config(
        "apply_decisions",
        "Apply decisions",
        "done_all",
        "medium",
        "Relabel and hide samples as decided. Each change is recorded and can be undone; no file is deleted",
    )

    def resolve_input(self, ctx: Any) -> types.Property:
        from audit_plugin import fiftyone_io

        form, plan = types.Object(), fiftyone_io.plan_of(ctx.dataset)
        count = count_text(len(plan.changes), "change")
        label = f"{count} will be applied." if plan.changes else "There is nothing to apply."
        if plan.stale:
            label += f" {len(plan.stale):,} decisions are skipped: the sample changed since."
        notice = form.view("what", types.Notice(label=label))
        notice.invalid = not plan.changes
        return self.prompt(form, f"Apply {count}")

    def perform(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        change_set = fiftyone_io.apply(ctx.dataset)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Applied: {changes_text(change_set.counts)}", variant="success")
        return {"change_set": change_set.id, **change_set.counts}

    def __call__(self, sample_collection: Any, run: str | None = None) -> Any:
        """Apply from Python; see `audit_plugin.fiftyone_io.apply`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.apply(sample_collection, run)


class UndoChanges(AuditOperator):
    """Undoes the changes that were applied last, or the last deletion."""

    listing = operator_config(
        "undo_changes",
        "Undo applied changes",
        "settings_backup_restore",
        "medium",
        "Restore exactly what was changed or deleted last. Decisions stay",
    )

    def resolve_input(self, ctx: Any) -> types.Property:
        form, last = types.Object(), applied_changes(ctx.dataset, ctx.params.get("change_set"))
        label = "There is nothing to undo."
        if last:
            label = f"Applied {last.time:%Y-%m-%d %H:%M} UTC: {changes_text(last.counts)}."
        notice = form.view("what", types.Notice(label=label))
        notice.invalid = last is None
        return self.prompt(form, "Undo")

    def perform(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        change_set = fiftyone_io.undo(ctx.dataset, ctx.params.get("change_set"))
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Undone: {changes_text(change_set.counts)}", variant="success")
        return {"change_set": change_set.id}

    def __call__(self, sample_collection: Any, change_set: str | None = None) -> Any:
        """Undo from Python; see `audit_plugin.fiftyone_io.undo`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.undo(sample_collection, change_set)


class DeleteRemoved(AuditOperator):
    """Deletes the samples hidden as removed from the dataset, and keeps a copy of each in the journal."""

    listing = operator_config(
        "delete_removed",
        "Delete removed samples",
        "delete",
        "high",
        "Delete the samples hidden as removed from the dataset. A full copy of each is stored and can be restored",
    )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form, in which the number of samples has to be typed."""
        from audit_plugin.fiftyone_io import REMOVED

        form, count = types.Object(), ctx.dataset.match_tags(REMOVED).count()
        form.view("what", types.Warning(label=f"{samples_text(count)} will be deleted. Media files stay."))
        typed = form.int("count", label=f"Type {count} to confirm", required=True)
        if ctx.params.get("count") != count or not count:
            typed.invalid, typed.error_message = True, f"{samples_text(count)} hidden as removed"
        return self.prompt(form, "Delete")

    def perform(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        change_set = fiftyone_io.delete_removed(ctx.dataset, ctx.params["count"])
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"{changes_text(change_set.counts)}; 'Undo applied changes' restores them", variant="success")
        return {"change_set": change_set.id, **change_set.counts}

    def __call__(self, sample_collection: Any, confirm_count: int) -> Any:
        """Delete from Python; see `audit_plugin.fiftyone_io.delete_removed`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.delete_removed(sample_collection, confirm_count)


class ExportReview(AuditOperator):
    """Writes the report, the decisions or the ids of removed samples, or makes a clean copy of the dataset."""

    listing = operator_config(
        "export_review",
        "Export review",
        "summarize",
        "low",
        "Write a self-contained HTML report, the decisions or the ids of removed samples, or make a clean dataset",
    )

    def resolve_input(self, ctx: Any) -> types.Property:
        form, what = types.Object(), ctx.params.get("what") or "report"
        choose_audit(form, ctx.dataset, ctx.params)
        choices = types.RadioGroup()
        for name, (label, _) in EXPORTS.items():
            choices.add_choice(name, label=label)
        form.enum("what", list(EXPORTS), label="Export", default="report", required=True, view=choices)
        name = f"{ctx.dataset.name}-{EXPORTS[what][1]}"
        if what == "dataset":
            form.str(what, label="Name of the new dataset", default=name, required=True)
        else:
            form.str(what, label="File, on the server", default=str(Path.home() / name), required=True)
        return self.prompt(form, "Export")

    def perform(self, ctx: Any) -> dict[str, Any]:
        what = ctx.params.get("what") or "report"
        target = ctx.params[what]
        written = self(ctx.dataset, what, target, audit_key(ctx.dataset, ctx.params))
        ctx.ops.notify(written, variant="success")
        link = f"[Open report](/media?filepath={quote(str(Path(target).expanduser()))})" if what == "report" else ""
        return {"written": written, "link": link}

    def resolve_output(self, ctx: Any) -> types.Property:
        """What was written, and a link to the report."""
        output = types.Object()
        output.str("written", view=types.LabelValueView(read_only=True), label="Result")
        if ctx.results.get("link"):
            output.str("link", view=types.MarkdownView())
        return types.Property(output, view=types.View(label=self.listing.label))

    def __call__(self, sample_collection: Any, what: str, to: str, run: str = "audit") -> str:
        """Export from Python.

        Args:
            sample_collection: the dataset.
            what: of `EXPORTS`.
            to: a path; for a dataset, its name.
            run: key of the audit.

        Returns:
            A sentence on what was written.
        """
        from audit_plugin import fiftyone_io

        if what not in EXPORTS:
            raise AuditError(f"cannot export {what!r}; choose one of {', '.join(EXPORTS)}")
        if what == "dataset":
            return (
                f"Created dataset {to!r} with {samples_text(fiftyone_io.export_clean(sample_collection, to).count())}"
            )
        path = Path(to).expanduser()
        if what == "decisions":
            count = fiftyone_io.export_decisions(sample_collection, path, run)
            return f"Wrote {count_text(count, 'decision')} to {path}"
        if what == "removed":
            return f"Wrote {count_text(fiftyone_io.export_removed(sample_collection, path), 'id')} to {path}"
        from audit_plugin.fiftyone_io.results.reports import review_report
        from audit_plugin.report import write_report

        if path.suffix.lower() not in (".html", ".htm"):
            raise AuditError(f"cannot write the report to {to!r}; the file name of a report ends in .html")
        write_report(review_report(sample_collection, run), path)
        return f"Wrote the report ({path.stat().st_size / 1e6:.1f} MB) to {path}"


def applied_changes(dataset: Any, change_set: str | None = None) -> Any:
    """The change set with this id, by default the newest one, if it is applied; else None."""
    from audit_plugin import fiftyone_io

    changes = [changes for changes in fiftyone_io.list_changes(dataset) if changes.state == "applied"]
    return next((changes for changes in reversed(changes) if change_set in (None, changes.id)), None)
