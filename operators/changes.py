"""Apply decisions, undo that, delete removed samples, export: each form shows the count before anything is done."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from . import checks, files
from .base import (
    FormOperator,
    audit_key,
    block,
    changes_text,
    choose_audit,
    count_text,
    notify,
    operator_config,
    samples_text,
)
from .markdown import without_markdown

# What can be exported -> its label, the end of its default name, the endings of its file.
EXPORTS = {
    "report": ("HTML report, one self-contained file", "audit.html", (".html", ".htm")),
    "decisions": ("Table of decisions, .csv or .jsonl", "decisions.csv", (".csv", ".jsonl")),
    "removed": ("Ids of removed samples, for a training script", "removed.txt", (".txt",)),
    "dataset": ("Copy of the dataset without removed samples", "clean", ()),
}
MOST_NAME = 100  # characters of a dataset's name


class ApplyDecisions(FormOperator):
    """Applies the decisions and records each change in a journal."""

    listing = operator_config(
        "apply_decisions",
        "Apply decisions",
        "done_all",
        "medium",
        "Relabel and hide samples as decided. Each change is recorded and can be undone; no file is deleted",
    )

    def form(self, ctx: Any) -> types.Property:
        from audit_plugin import fiftyone_io

        form, plan = types.Object(), fiftyone_io.plan_of(ctx.dataset)
        count = count_text(len(plan.changes), "change")
        label = f"{count} will be applied." if plan.changes else "There is nothing to apply."
        if plan.stale:
            label += f" {len(plan.stale):,} decisions are skipped: the sample changed since."
        notice = form.view("what", types.Notice(label=label))
        notice.invalid = not plan.changes
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
        "Undo applied changes",
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
        "Delete removed samples",
        "delete",
        "high",
        "Delete the samples hidden as removed from the dataset. A full copy of each is stored and can be restored",
    )

    def form(self, ctx: Any) -> types.Property:
        """The form, in which the number of samples has to be typed."""
        from audit_plugin import fiftyone_io

        form, count = types.Object(), fiftyone_io.count_removed(ctx.dataset)
        form.view("what", types.Warning(label=f"{samples_text(count)} will be deleted. Media files stay."))
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


class ExportReview(FormOperator):
    """Writes the report, the decisions or the ids of removed samples, or makes a clean copy of the dataset."""

    listing = operator_config(
        "export_review",
        "Export review",
        "summarize",
        "low",
        "Write a self-contained HTML report, the decisions or the ids of removed samples, or make a clean dataset",
    )

    def form(self, ctx: Any) -> types.Property:
        form, params = types.Object(), ctx.params
        choose_audit(form, ctx.dataset, params)
        choices = types.RadioGroup()
        for name, (label, _, _) in EXPORTS.items():
            choices.add_choice(name, label=label)
        form.enum("what", list(EXPORTS), label="Export", default="report", required=True, view=choices)
        what = checks.choice(params, "what", EXPORTS, "report")
        if what == "dataset":
            name = f"{ctx.dataset.name}-{EXPORTS[what][1]}"
            form.str(what, label="Name of the new dataset", default=name, required=True)
            return self.prompt(form, "Export")
        about = f"Written into the folder {files.export_folder()} of the server ({files.FOLDER}), and downloaded"
        form.str(what, label="File name", description=about, default=self._default(ctx, what), required=True)
        try:
            _, _, state = self._target(ctx)
        except AuditError as error:
            block(form, "refused", types.Error(label="Cannot write this file", description=str(error)))
            return self.prompt(form, "Export")
        if state is not None:
            tick = form.bool("replace", label=f"Replace the file ({files.state_text(state)})", default=False)
            if params.get("replace") is not True:
                tick.invalid, tick.error_message = True, "The file exists; tick to replace it, or give another name"
        return self.prompt(form, "Export")

    def shown(self, ctx: Any) -> Any:
        """What is exported, and the file that would be replaced."""
        what, name, state = self._target(ctx)
        return [audit_key(ctx.dataset, ctx.params), what, name, state]

    def perform(self, ctx: Any) -> dict[str, Any]:
        what, name, state = self._target(ctx)
        run = audit_key(ctx.dataset, ctx.params)
        if what == "dataset":
            sentence = self(ctx.dataset, what, name, run)
            notify(ctx, sentence, "success")
            return {"written": sentence, "link": ""}
        if state is not None and ctx.params.get("replace") is not True:
            raise AuditError(f"{name!r} exists ({files.state_text(state)}); tick to replace it, or give another name")
        with files.exported(name, state) as path:
            sentence = write_export(ctx.dataset, what, path, run)
        url = f"/media?filepath={quote(str(files.export_folder() / name))}"
        ctx.ops.browser_download(url, filename=name)
        notify(ctx, f"Wrote {sentence} to {name}", "success")
        link = f"[{'Open report' if what == 'report' else 'Open file'}]({url})"
        return {"written": f"Wrote {sentence} to {files.export_folder() / name}", "link": link}

    def _target(self, ctx: Any) -> tuple[str, str, files.State | None]:
        """What is exported, its name, and the state of a file of that name."""
        what = checks.choice(ctx.params, "what", EXPORTS, "report")
        if what == "dataset":
            default = f"{ctx.dataset.name}-{EXPORTS[what][1]}"
            return what, checks.text(ctx.params, what, default, most=MOST_NAME), None
        given = checks.text(ctx.params, what, self._default(ctx, what), most=1000)
        name = files.checked_name(given, EXPORTS[what][2])
        return what, name, files.state_of(name)

    def _default(self, ctx: Any, what: str) -> str:
        return files.proposed_name(ctx.dataset.name, EXPORTS[what][1])

    def resolve_output(self, ctx: Any) -> types.Property:
        """What was written, and a link to the report."""
        output = types.Object()
        output.str("written", view=types.LabelValueView(read_only=True), label="Result")
        if ctx.results.get("link"):
            output.str("link", view=types.MarkdownView())
        return without_markdown(types.Property(output, view=types.View(label=self.listing.label)))

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
            copy = fiftyone_io.export_clean(sample_collection, to)
            return f"Created dataset {to!r} with {samples_text(fiftyone_io.count_samples(copy))}"
        path = Path(to).expanduser()
        return f"Wrote {write_export(sample_collection, what, path, run)} to {path}"


def write_export(dataset: Any, what: str, path: Path, run: str) -> str:
    """Write a file of `EXPORTS`; return what was written, such as `12 decisions`.

    Raises:
        AuditError: the file cannot be written, or its ending does not fit.
    """
    from audit_plugin import fiftyone_io
    from audit_plugin.fiftyone_io.results.reports import review_report
    from audit_plugin.report import write_report

    if what == "decisions":
        return count_text(fiftyone_io.export_decisions(dataset, path, run), "decision")
    if what == "removed":
        return count_text(fiftyone_io.export_removed(dataset, path), "id")
    if path.suffix.lower() not in (".html", ".htm"):
        raise AuditError(f"cannot write the report to {str(path)!r}; the file name of a report ends in .html")
    write_report(review_report(dataset, run), path)
    return f"the report ({path.stat().st_size / 1e6:.1f} MB)"


def applied_changes(dataset: Any, change_set: str | None = None) -> Any:
    """The change set with this id, by default the newest one, if it is applied; else None."""
    from audit_plugin import fiftyone_io

    changes = [changes for changes in fiftyone_io.list_changes(dataset) if changes.state == "applied"]
    return next((changes for changes in reversed(changes) if change_set in (None, changes.id)), None)
