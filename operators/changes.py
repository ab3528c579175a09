"""Apply what was decided, undo it, delete what is hidden, export: each asks before it does, with the count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from .review import run_of, told

WORDS = {
    "relabelled": "relabelled",
    "captions_removed": "with a caption taken out",
    "removed": "hidden as removed",
    "brought_back": "brought back",
    "deleted": "deleted from the dataset",
}


def counted(counts: dict[str, int]) -> str:
    """`3 relabelled, 12 hidden as removed`; nothing for nothing."""
    return ", ".join(f"{count:,} {WORDS[name]}" for name, count in counts.items() if count)


def _config(name: str, label: str, icon: str, risk: str, description: str) -> foo.OperatorConfig:
    return foo.OperatorConfig(
        name=name, label=label, icon=icon, dynamic=True, risk_level=risk, view_target=False, description=description
    )


class ApplyDecisions(foo.Operator):
    """Carries the decisions out, through a journal."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Relabel and hide as decided; every change is kept in a journal and can be undone; no file is deleted"
        return _config("apply_decisions", "Apply decisions", "done_all", "medium", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """What would be done, as a confirmation."""
        from audit_plugin import fiftyone_io

        form, plan = types.Object(), fiftyone_io.plan_of(ctx.dataset)
        what = [f"{len(plan.changes):,} samples would change"] if plan.changes else ["There is nothing to apply"]
        what += [f"{len(plan.stale):,} decisions are left out, since their content changed"] if plan.stale else []
        notice = form.view("what", types.Notice(label=". ".join(what) + "."))
        notice.invalid = not plan.changes
        button = f"Apply to {len(plan.changes):,} samples"
        return types.Property(form, view=types.PromptView(label="Apply decisions", submit_button_label=button))

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Apply."""
        from audit_plugin import fiftyone_io

        done = told(ctx, lambda: fiftyone_io.apply(ctx.dataset))
        if done is None:
            return {}
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Applied: {counted(done.counts) or 'nothing to do'}", variant="success")
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
        return _config("undo_changes", "Undo applied changes", "settings_backup_restore", "medium", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """What would be taken back, as a confirmation."""
        from audit_plugin import fiftyone_io

        form = types.Object()
        last = next((c for c in reversed(fiftyone_io.list_changes(ctx.dataset)) if c.state == "applied"), None)
        label = f"Of {last.time:%Y-%m-%d %H:%M} UTC: {counted(last.counts)}." if last else "There is nothing to undo."
        form.view("what", types.Notice(label=label)).invalid = last is None
        return types.Property(form, view=types.PromptView(label="Undo applied changes", submit_button_label="Undo"))

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
        return _config("delete_removed", "Delete removed samples", "delete", "high", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """The number has to be typed."""
        from audit_plugin.fiftyone_io import REMOVED

        form, count = types.Object(), ctx.dataset.match_tags(REMOVED).count()
        form.view("what", types.Warning(label=f"{count:,} samples leave the dataset. Their media files stay."))
        given = form.int("count", label=f"Type {count} to confirm", required=True)
        if ctx.params.get("count") != count or not count:
            given.invalid, given.error_message = True, f"{count} samples are hidden as removed"
        return types.Property(form, view=types.PromptView(label="Delete removed samples", submit_button_label="Delete"))

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


class ExportReview(foo.Operator):
    """Writes the report, the decisions and the removed ids into files."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Write one self-contained HTML report, the decisions as CSV, or the ids of removed samples"
        return _config("export_review", "Export review", "summarize", "low", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """Where to, and what: told by the file's ending."""
        form = types.Object()
        where = f"{ctx.dataset.name}-audit.html"
        about = "On the server. .html: the report; .csv or .jsonl: the decisions; .txt: ids of removed samples"
        form.str("path", label="File", description=about, default=str(Path.home() / where), required=True)
        return types.Property(form, view=types.PromptView(label="Export review", submit_button_label="Export"))

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Write it."""
        path = Path(ctx.params["path"]).expanduser()
        size = told(ctx, lambda: export(ctx.dataset, run_of(ctx.dataset, ctx.params), path))
        if size is None:
            return {}
        ctx.ops.notify(f"Written: {path} ({size})", variant="success")
        return {"path": str(path)}

    def __call__(self, sample_collection: Any, path: str, run: str = "audit") -> str:
        """Export from Python; the ending of the path says what."""
        return export(sample_collection, run, Path(path))


def export(dataset: Any, run: str, path: Path) -> str:
    """Write a review into a file whose ending says what is meant; how much it is, in words.

    Raises:
        AuditError: another ending, no such audit, or a file that cannot be written.
    """
    from audit_plugin import fiftyone_io

    if path.suffix in (".csv", ".jsonl"):
        return f"{fiftyone_io.export_decisions(dataset, path, run):,} decisions"
    if path.suffix == ".txt":
        return f"{fiftyone_io.export_removed(dataset, path):,} ids"
    if path.suffix != ".html":
        raise AuditError(f"{path.name!r} is neither .html, .csv, .jsonl nor .txt; name the file so")
    from audit_plugin.fiftyone_io.reports import review_report
    from audit_plugin.report import write_report

    write_report(review_report(dataset, run), path)
    return f"{path.stat().st_size / 1e6:.1f} MB"
