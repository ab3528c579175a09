"""Run an audit and delete one, from the App, from Python, or queued."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from . import forms
from .background import STAGES, Progress, in_background, stages_of
from .common import choose_audit, prompt, run_of, samples, told
from .results import result_output


class RunAudit(foo.Operator):
    """Audits a dataset, view or selection and writes fields, tags and a run."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        return foo.OperatorConfig(
            name="run_audit",
            label="Audit dataset",
            icon="fact_check",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level="medium",
            description="Find misaligned images, texts, sounds and videos, outliers, duplicates and memorized "
            "samples; writes scores as fields, tags what is flagged, changes nothing else",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        form = forms.audit_form(ctx.target_view(), ctx.params)
        return types.Property(form, view=types.PromptView(label="Audit dataset", submit_button_label="Audit"))

    def resolve_run_name(self, ctx: Any) -> str:
        """What a queued audit is called in lists of runs."""
        return f"Audit {ctx.dataset_name}"

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Audit in a thread; yield progress, then what was found, or one sentence on why nothing was."""
        view, params = ctx.target_view(), dict(ctx.params)

        def work(progress: Progress) -> Any:
            from audit_plugin import fiftyone_io

            config = forms.config_from(params)
            return config.run, fiftyone_io.audit_view(view, config, progress)

        found = yield from in_background(ctx, work, stages_of(view, params))
        if found:
            yield from _show_result(ctx, found[1], found[0])

    def __call__(self, sample_collection: Any, delegate: bool = False, **config: Any) -> Any:
        """Audit a dataset or view from Python.

        Args:
            sample_collection: the dataset or view.
            delegate: queue the audit instead; `fiftyone delegated launch` runs it.
            **config: settings, see `AuditConfig`.

        Returns:
            The `AuditResult`, or FiftyOne's `ExecutionResult` if queued.

        Raises:
            AuditError: the view cannot be audited with these settings.
        """
        from audit_plugin import fiftyone_io
        from audit_plugin.config import AuditConfig

        settings = AuditConfig(**config)
        if not delegate:
            return fiftyone_io.audit_view(sample_collection, settings)
        fiftyone_io.modality_sources(sample_collection, settings)  # now, not when its turn in the queue comes
        params = {**config, "view_target": "CURRENT_VIEW"}
        ctx = {"view": sample_collection.view(), "params": params}
        return foo.execute_operator(self.uri, ctx, request_delegation=True)


class ScanNew(foo.Operator):
    """Scores the samples that came after an audit and writes them into it."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        return foo.OperatorConfig(
            name="scan_new",
            label="Scan new samples",
            icon="manage_search",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level="medium",
            view_target=False,
            description="Score the samples that came after an audit by what it trained, without training anew, and "
            "write them into it",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form, which names the count."""
        from audit_plugin.fiftyone_io.results.findings import count_new

        form = types.Object()
        run = choose_audit(form, ctx.dataset, ctx.params)
        count = count_new(ctx.dataset, run) if run else 0
        notice = form.view("count", types.Notice(label=f"{samples(count)} came after the audit."))
        notice.invalid = not count
        return prompt(form, "Scan new samples", f"Scan {samples(count)}")

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Scan in a thread; yield progress, then what was found, or one sentence on why nothing was."""
        dataset, params = ctx.dataset, dict(ctx.params)

        def work(progress: Progress) -> Any:
            from audit_plugin import fiftyone_io

            return fiftyone_io.scan_new(dataset, run_of(dataset, params), progress)

        found = yield from in_background(ctx, work, STAGES)
        if found is not None:
            flagged = sum(found.summary["flags"].values())
            yield ctx.ops.reload_dataset()
            words = f"{samples(len(found))} scanned, {flagged:,} flags"
            yield ctx.ops.notify(words, variant="success")

    def __call__(self, sample_collection: Any, run: str = "audit") -> Any:
        """Scan from Python; see `audit_plugin.fiftyone_io.scan_new`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.scan_new(sample_collection, run)


class DeleteAudit(foo.Operator):
    """Takes an audit's fields, tags, saved view and record away."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        return foo.OperatorConfig(
            name="delete_audit",
            label="Delete an audit",
            icon="delete_sweep",
            dynamic=True,
            risk_level="high",
            description="Remove one audit or measurement of recall: its fields, its own tags, its saved view and its "
            "record; decisions, your own fields and tags and other audits stay",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form, whose button is the confirmation."""
        view = types.PromptView(label="Delete an audit", submit_button_label="Delete")
        return types.Property(forms.delete_form(ctx.dataset), view=view)

    def execute(self, ctx: Any) -> None:
        """Delete; a failure becomes one sentence."""
        told(ctx, lambda: self._delete(ctx, ctx.params["run"]))

    def _delete(self, ctx: Any, run: str) -> None:
        from audit_plugin import fiftyone_io

        measured = run in fiftyone_io.list_transfers(ctx.dataset)
        (fiftyone_io.delete_transfer if measured else fiftyone_io.delete_audit)(ctx.dataset, run)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"{run!r} is deleted", variant="success")

    def __call__(self, sample_collection: Any, run: str = "audit") -> None:
        """Delete an audit from Python; see `audit_plugin.fiftyone_io.delete_audit`."""
        from audit_plugin import fiftyone_io

        fiftyone_io.delete_audit(sample_collection, run)


def _show_result(ctx: Any, result: Any, run: str) -> Iterator[Any]:
    output, values = result_output(result.summary, run, result.run_dir)
    yield ctx.ops.reload_dataset()
    yield ctx.ops.notify(f"Audit {run!r} is done; flagged samples: saved view {run}_flagged", variant="success")
    yield ctx.ops.show_output(types.Property(output, view=types.View(label="Audit result")).to_json(), values)
