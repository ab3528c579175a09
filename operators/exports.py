"""Export the report, decisions, removed ids or the clean data as one file to download, or make a clean dataset."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fiftyone.operators import types

from audit_plugin.arrays import AuditError, count_text

from . import checks, files
from .base import BackgroundOperator, Progress, audit_key, block, choose_audit, notify, operator_config, samples_text
from .stages import stages_named

if TYPE_CHECKING:
    from audit_plugin.audit.export import ExportReport

REPORT = "report"  # is only downloaded: an HTML file that the App served would run with the App's rights
KEEPS_NOTHING = "No file of it is kept on the server"
DOWNLOADED = f"Downloaded by your browser. {KEEPS_NOTHING}"
# What can be exported -> its label, the end of its default name, the endings of its file.
EXPORTS = {
    "report": ("HTML report, one self-contained file", "audit.html", (".html", ".htm")),
    "data": ("Clean data, ready to train on", "clean", ()),
    "decisions": ("Table of decisions, .csv or .jsonl", "decisions.csv", (".csv", ".jsonl")),
    "removed": ("Ids of removed samples, for a training script", "removed.txt", (".txt",)),
    "dataset": ("Copy of the dataset without removed samples", "clean", ()),
}
MOST_NAME = 100  # characters of a dataset's name
MOST_LINES = 8  # of counts in the form
DEFAULT_FORMAT = "webdataset"


@dataclass(frozen=True)
class Target:
    """What a form asks for.

    Attributes:
        what: of `EXPORTS`.
        run: key of the audit.
        name: of the file, or of the new dataset.
        state: of the file in the export folder that has this name; None: there is none, or it is not written there.
        format: of the clean data, else "".
        relabel: captions that the audit proposes are applied to the clean data.
    """

    what: str
    run: str
    name: str
    state: files.State | None = None
    format: str = ""
    relabel: bool = False


class ExportReview(BackgroundOperator):
    """Writes the report, the decisions, the ids of removed samples or the clean data, or makes a clean copy."""

    listing = operator_config(
        "export_review",
        "Audit: Export review",
        "summarize",
        "low",
        "Write the clean data, ready to train on, the decisions or the ids of removed samples, download a "
        "self-contained HTML report, or make a clean dataset",
        execute_as_generator=True,
    )
    ends_with_page = True  # which gets the file

    def form(self, ctx: Any) -> types.Property:
        form, params = types.Object(), ctx.params
        choose_audit(form, ctx.dataset, params)
        choices = types.DropdownView()  # takes less room than buttons: the counts are to be seen without scrolling
        for name, (label, _, _) in EXPORTS.items():
            choices.add_choice(name, label=label)
        form.enum("what", list(EXPORTS), label="Export", default="report", required=True, view=choices)
        what = checks.choice(params, "what", EXPORTS, "report")
        default = _default_name(ctx.dataset, what)
        if what == "dataset":
            form.str(what, label="Name of the new dataset", default=default, required=True)
            return self.prompt(form, "Export")
        folder = f"Written into {files.export_folder()} ({files.FOLDER} of the server), and downloaded"
        about, button = DOWNLOADED if what == REPORT else folder, "Export"
        target = None
        try:
            if what == "data":
                about = f"{_add_format(form, params)}. {folder}"
                button = _add_counts(form, ctx.dataset, params)
            target = _target(ctx.dataset, params)
        except AuditError as error:
            block(form, "refused", types.Error(label="Cannot write this file", description=str(error)))
        if target is not None and target.state is not None:
            _add_tick(form, target, params)
        form.str(what, label="File name", description=about, default=default, required=what != "data")
        return self.prompt(form, button)

    def shown(self, ctx: Any) -> Any:
        """What is exported, the file that would be replaced, and the counts of the clean data."""
        target = _target(ctx.dataset, ctx.params)
        shown = [target.run, target.what, target.name, target.state]
        if target.what != "data":
            return shown
        return [*shown, target.format, target.relabel, _count(ctx.dataset, target.run, target.relabel).lines()]

    def target(self, ctx: Any) -> Any:
        return ctx.dataset

    def stages(self, samples: Any, params: Mapping[str, Any]) -> dict[str, float]:  # noqa: ARG002
        return stages_named({"exporting", "packing"})

    def work(self, samples: Any, params: Mapping[str, Any], progress: Progress) -> tuple[Target, str, bytes]:
        """(what was asked for, what was written, the file where it is downloaded only)."""
        target = _target(samples, params)
        if target.what == "dataset":
            return target, self(samples, target.what, target.name, target.run), b""
        if target.what == REPORT:
            with tempfile.TemporaryDirectory(prefix="audit-report-") as folder:
                path = Path(folder) / target.name
                return target, write_export(samples, target.what, path, target.run), path.read_bytes()
        if target.state is not None and params.get("replace") is not True:
            raise AuditError(
                f"{target.name!r} exists ({files.state_text(target.state)}); tick to replace it, or give another name"
            )
        with files.exported(target.name, target.state) as path:
            if target.what == "data":
                written = _write_data(samples, target, path, progress)
            else:
                written = write_export(samples, target.what, path, target.run)
        return target, written, b""

    def show(
        self,
        ctx: Any,
        params: Mapping[str, Any],  # noqa: ARG002 (the operators' signature)
        result: tuple[Target, str, bytes],
    ) -> Iterator[Any]:
        target, written, content = result
        output, values = types.Object(), {"written": written}
        output.str("written", view=types.LabelValueView(read_only=True), label="Result")
        if target.what == "dataset":
            yield notify(ctx, written, "success")
        elif target.what == REPORT:
            values = {"written": f"Your browser has downloaded {written} as {target.name}. {KEEPS_NOTHING}."}
            url = f"data:text/html;base64,{base64.b64encode(content).decode()}"
            yield ctx.ops.browser_download(url, filename=target.name)
            yield notify(ctx, f"Downloaded {written} as {target.name}", "success")
        else:
            path = files.export_folder() / target.name
            url = f"/media?filepath={quote(str(path))}"
            output.str("link", view=types.MarkdownView())
            link = f"[Open file]({url})"
            values = {"written": f"Wrote {written} to {path}", "link": link}
            yield ctx.ops.browser_download(url, filename=target.name)
            yield notify(ctx, f"Wrote {written} to {target.name}", "success")
        yield self.page(ctx, output, values)

    def __call__(self, sample_collection: Any, what: str, to: str, run: str = "audit") -> str:
        """Export from Python.

        Args:
            sample_collection: the dataset.
            what: of `EXPORTS`; the clean data in the format that the ending of `to` says.
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
        if what == "data":
            report = fiftyone_io.export_audited(sample_collection, run, path)
            return f"Wrote {count_text(report.exported, 'row')} to {path}"
        return f"Wrote {write_export(sample_collection, what, path, run)} to {path}"


def write_export(dataset: Any, what: str, path: Path, run: str) -> str:
    """Write a report, decisions or removed ids to a file; return what was written, such as `12 decisions`.

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


def _target(dataset: Any, params: Mapping[str, Any]) -> Target:
    """What the parameters ask for.

    Raises:
        AuditError: they ask for something that is not possible.
    """
    what = checks.choice(params, "what", EXPORTS, "report")
    run = audit_key(dataset, params)
    if what == "dataset":
        return Target(what, run, checks.text(params, what, _default_name(dataset, what), most=MOST_NAME))
    name = checks.text(params, what, _default_name(dataset, what), most=1000)
    if what != "data":
        name = files.checked_name(name, EXPORTS[what][2])
        return Target(what, run, name, None if what == REPORT else files.state_of(name))
    form = _format(params)
    name = files.checked_name(_with_ending(name, form), _endings(form))
    return Target(what, run, name, files.state_of(name), form, checks.switch(params, "relabel") is True)


def _default_name(dataset: Any, what: str) -> str:
    end = EXPORTS[what][1]
    return f"{dataset.name}-{end}" if what == "dataset" else files.proposed_name(dataset.name, end)


def _format(params: Mapping[str, Any]) -> str:
    from audit_plugin.inputs.formats import FORMATS

    return checks.choice(params, "format", FORMATS, DEFAULT_FORMAT)


def _endings(form: str) -> tuple[str, ...]:
    """The endings of the one file that is downloaded: the table itself, or a packed folder."""
    from audit_plugin.inputs.formats import ARCHIVE, FORMATS

    return (*FORMATS[form].endings, ARCHIVE)


def _with_ending(name: str, form: str) -> str:
    """The name with an ending of the format; that of another format, which was chosen before, is replaced."""
    from audit_plugin.inputs.formats import ARCHIVE, FORMATS

    endings = _endings(form)
    if name.lower().endswith(endings):
        return name
    others = {ending for entry in FORMATS.values() for ending in (*entry.endings, ARCHIVE)}
    stem = next((name[: -len(ending)] for ending in others if name.lower().endswith(ending)), name)
    return f"{stem}{endings[0]}"


def _add_tick(form: types.Object, target: Target, params: Mapping[str, Any]) -> None:
    """Add what has to be ticked before a file is replaced."""
    assert target.state is not None
    label = f"Replace the file {target.name} ({files.state_text(target.state)})"
    tick = form.bool("replace", label=label, default=False)
    if params.get("replace") is not True:
        tick.invalid, tick.error_message = True, "The file exists; tick to replace it, or give another name"


def _add_format(form: types.Object, params: Mapping[str, Any]) -> str:
    """Add the fields for the format and the captions; return a sentence on the file's ending."""
    from audit_plugin.inputs.formats import ARCHIVE, FORMATS

    choices = types.DropdownView()
    for name, entry in FORMATS.items():
        choices.add_choice(name, label=f"{name}: {entry.label}")
    form.enum("format", list(FORMATS), label="Format", default=DEFAULT_FORMAT, view=choices)
    about = "Captions that a person decided always are"
    form.bool("relabel", label="Apply the captions that the audit proposes", description=about, default=False)
    ending = _endings(_format(params))[0]
    if ending == ARCHIVE:
        return f"{ARCHIVE}: a folder, packed, with removed.parquet and audit.md"
    return f"{ending}, or {ARCHIVE} to pack it with removed.parquet and audit.md"


def _add_counts(form: types.Object, dataset: Any, params: Mapping[str, Any]) -> str:
    """Add what would be exported and removed; return the label of the button."""
    report = _count(dataset, audit_key(dataset, params), checks.switch(params, "relabel") is True)
    lines = [line.strip() for line in report.lines()[1:]]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES - 1 :] = [f"and {count_text(len(lines) - MOST_LINES + 1, 'other reason')}"]
    removed = f"{report.rows - report.exported:,} removed"
    label = f"{report.exported:,} of {count_text(report.rows, 'row')} will be exported, {removed}."
    notice = form.view("count", types.Notice(label=label, description="; ".join(lines)))
    if not report.exported:
        notice.invalid, notice.error_message = True, "Nothing would be exported"
    return f"Export {count_text(report.exported, 'row')}"


def _count(dataset: Any, run: str, relabel: bool) -> ExportReport:
    from audit_plugin import fiftyone_io

    return fiftyone_io.count_exported(dataset, run, relabel)


def _write_data(dataset: Any, target: Target, path: Path, progress: Progress) -> str:
    """Write the clean data; return what was written."""
    from audit_plugin import fiftyone_io
    from audit_plugin.audit.export import Rules

    rules = Rules(relabel=target.relabel)
    report = fiftyone_io.export_audited(dataset, target.run, path, target.format, rules, progress=progress)
    unreadable = f" ({count_text(report.unreadable, 'row')} could not be read)" if report.unreadable else ""
    return f"{count_text(report.exported, 'row')}{unreadable}"
