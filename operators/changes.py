"""Apply decisions, undo that, delete removed samples: each form shows the count before anything is done."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import count_text

from . import checks
from .base import FormOperator, changes_text, notify, operator_config, samples_text
from .change_list import page_of_changes


class ApplyDecisions(FormOperator):
    """Applies the decisions and records each change in a journal."""

    listing = operator_config(
        "apply_decisions",
        "Audit: Apply decisions",
        "done_all",
        "medium",
        "Relabel and hide samples as decided. Each change is recorded and can be undone; no file is deleted",
    )

    def form(self, ctx: Any) -> types.Property:
        """The form, with the old and the new text of all changes, page by page."""
        form = types.Object()
        page = page_of_changes(ctx.dataset, checks.whole(ctx.params, "page", 1, low=1) - 1)
        plan, total = page.plan, len(page.plan.changes)
        count = count_text(total, "change")
        label = f"{count} will be applied." if plan.changes else "There is nothing to apply."
        notice = form.view("what", types.Notice(label=f"{label}{stale_text(plan)}"))
        notice.invalid = not plan.changes
        if page.pages > 1:
            form.int("page", label="Page", min=1, max=page.pages, default=1, description=page.label)
        if page.table:
            form.md(page.table, name=f"changes_{page.number}")  # under one name the App would keep the first page
        return self.prompt(form, f"Apply {count}")

    def shown(self, ctx: Any) -> Any:
        """All changes, one by one."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io import tokens

        plan = fiftyone_io.plan_of(ctx.dataset)
        return tokens.digest([asdict(change) for change in plan.changes], len(plan.stale))

    def perform(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        change_set = fiftyone_io.apply(ctx.dataset)
        ctx.ops.reload_dataset()
        notify(ctx, f"Applied: {changes_text(change_set.counts)}", "success")
        return {"change_set": change_set.id, **change_set.counts}

    def __call__(self, sample_collection: Any, run: str | None = None) -> Any:
        """Apply from Python; see `audit_plugin.fiftyone_io.apply`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.apply(sample_collection, run)


class UndoChanges(FormOperator):
    """Undoes the changes that were applied last, or the last deletion."""

    listing = operator_config(
        "undo_changes",
        "Audit: Undo applied changes",
        "settings_backup_restore",
        "medium",
        "Restore exactly what was changed or deleted last. Decisions stay",
    )

    def form(self, ctx: Any) -> types.Property:
        form, last = types.Object(), self._changes(ctx)
        label = "There is nothing to undo."
        if last:
            label = f"Applied {last.time:%Y-%m-%d %H:%M} UTC: {changes_text(last.counts)}."
        notice = form.view("what", types.Notice(label=label))
        notice.invalid = last is None
        return self.prompt(form, "Undo")

    def perform(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        last = self._changes(ctx)
        change_set = fiftyone_io.undo(ctx.dataset, last.id if last else None)
        ctx.ops.reload_dataset()
        notify(ctx, f"Undone: {changes_text(change_set.counts)}", "success")
        return {"change_set": change_set.id}

    def shown(self, ctx: Any) -> Any:
        """The change set."""
        last = self._changes(ctx)
        return None if last is None else [last.id, last.counts]

    def _changes(self, ctx: Any) -> Any:
        return applied_changes(ctx.dataset, checks.text(ctx.params, "change_set", most=100) or None)

    def __call__(self, sample_collection: Any, change_set: str | None = None) -> Any:
        """Undo from Python; see `audit_plugin.fiftyone_io.undo`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.undo(sample_collection, change_set)


class DeleteRemoved(FormOperator):
    """Deletes the samples hidden as removed from the dataset, and keeps a copy of each in the journal."""

    listing = operator_config(
        "delete_removed",
        "Audit: Delete removed samples",
        "delete",
        "high",
        "Delete the samples hidden as removed from the dataset. A full copy of each is stored and can be restored",
    )

    def form(self, ctx: Any) -> types.Property:
        """The form, in which the number of samples has to be typed."""
        from audit_plugin import fiftyone_io

        form, count = types.Object(), fiftyone_io.count_removed(ctx.dataset)
        about = (
            "The journal of changes keeps a full copy of each. To restore them: Undo in the tab Report and apply, or "
            "the operator Undo applied changes. Media files stay."
        )
        label = f"{samples_text(count)} will be deleted from the dataset."
        form.view("what", types.Warning(label=label, description=about))
        typed = form.int("count", label=f"Type {count} to confirm", required=True)
        if ctx.params.get("count") != count or not count:
            typed.invalid, typed.error_message = True, f"{samples_text(count)} hidden as removed"
        return self.prompt(form, "Delete")

    def shown(self, ctx: Any) -> Any:
        """The samples."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io import tokens

        return tokens.digest(sorted(fiftyone_io.removed_ids(ctx.dataset)))

    def perform(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        count = checks.required(checks.whole(ctx.params, "count"), "the number of samples")
        change_set = fiftyone_io.delete_removed(ctx.dataset, count)
        ctx.ops.reload_dataset()
        notify(ctx, f"{changes_text(change_set.counts)}; 'Undo applied changes' restores them", "success")
        return {"change_set": change_set.id, **change_set.counts}

    def __call__(self, sample_collection: Any, confirm_count: int) -> Any:
        """Delete from Python; see `audit_plugin.fiftyone_io.delete_removed`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.delete_removed(sample_collection, confirm_count)


def stale_text(plan: Any) -> str:
    """How many decisions are skipped, as a sentence with a blank in front; "" where none is."""
    if not plan.stale:
        return ""
    return f" {count_text(len(plan.stale), 'decision is', 'decisions are')} skipped: the sample changed since."


def applied_changes(dataset: Any, change_set: str | None = None) -> Any:
    """The change set with this id, by default the newest one, if it is applied; else None."""
    from audit_plugin import fiftyone_io

    changes = [changes for changes in fiftyone_io.list_changes(dataset) if changes.state == "applied"]
    return next((changes for changes in reversed(changes) if change_set in (None, changes.id)), None)
