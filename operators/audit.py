"""Run an audit and delete one, from the App, from Python, or queued."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from . import forms

logger = logging.getLogger(__name__)
REFRESH_SECONDS = 0.3


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
            description="Find misaligned image-caption pairs, outliers, duplicates and memorized samples; writes "
            "scores as fields, tags what is flagged, changes nothing else",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        form = forms.audit_form(ctx.target_view(require_flat=True), ctx.params)
        return types.Property(form, view=types.PromptView(label="Audit dataset", submit_button_label="Audit"))

    def resolve_run_name(self, ctx: Any) -> str:
        """What a queued audit is called in lists of runs."""
        return f"Audit {ctx.dataset_name}"

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Audit in a thread; yield progress, then what was found, or one sentence on why nothing was."""
        view, delegated = ctx.target_view(require_flat=True), ctx.delegated
        events: SimpleQueue[tuple[str, int, int]] = SimpleQueue()
        outcome: dict[str, Any] = {}
        work = Thread(target=_audit, args=(view, dict(ctx.params), events, outcome), daemon=True)
        work.start()
        for stage, done, total in _latest(events, work.is_alive):
            share, label = forms.overall(stage, done, total)
            if delegated:
                ctx.set_progress(progress=share, label=label)
            else:
                yield ctx.ops.set_progress(progress=share, label=label)
        if error := outcome.get("error"):
            if delegated:
                raise error  # the queue shows it and marks the run as failed
            yield from _show_error(ctx, error)
            return
        yield from _show_result(ctx, outcome["result"], outcome["run"])

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
        params = {
            **config,
            "text": fiftyone_io.caption_field(sample_collection, settings.text),
            "view_target": "CURRENT_VIEW",
        }
        ctx = {"view": sample_collection.view(), "params": params}
        return foo.execute_operator(self.uri, ctx, request_delegation=True)


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
            description="Remove one audit: its fields, its own tags, its saved view and its record; decisions, your "
            "own fields and tags and other audits stay",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form, whose button is the confirmation."""
        view = types.PromptView(label="Delete an audit", submit_button_label="Delete")
        return types.Property(forms.delete_form(ctx.dataset), view=view)

    def execute(self, ctx: Any) -> None:
        """Delete; a failure becomes one sentence."""
        from audit_plugin import fiftyone_io

        run = ctx.params["run"]
        try:
            fiftyone_io.delete_audit(ctx.dataset, run)
        except AuditError as error:
            ctx.ops.notify(str(error), variant="error")
            return
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Audit {run!r} is deleted", variant="success")

    def __call__(self, sample_collection: Any, run: str = "audit") -> None:
        """Delete an audit from Python; see `audit_plugin.fiftyone_io.delete_audit`."""
        from audit_plugin import fiftyone_io

        fiftyone_io.delete_audit(sample_collection, run)


def _audit(
    view: Any, params: dict[str, Any], events: SimpleQueue[tuple[str, int, int]], outcome: dict[str, Any]
) -> None:
    from audit_plugin import fiftyone_io

    try:
        config = forms.config_from(params)
        outcome["run"] = config.run
        outcome["result"] = fiftyone_io.audit_view(view, config, lambda *event: events.put(event))
    except Exception as error:  # must reach the person who waits, whatever it is
        if not isinstance(error, AuditError):
            logger.exception("The audit failed")
        outcome["error"] = error


def _latest(events: SimpleQueue[tuple[str, int, int]], alive: Callable[[], bool]) -> Iterator[tuple[str, int, int]]:
    """The newest event every now and then, as long as the work lasts; older ones are passed over."""
    while alive():
        newest = None
        try:
            newest = events.get(timeout=REFRESH_SECONDS)
            while True:
                newest = events.get_nowait()
        except Empty:
            if newest:
                yield newest


def _show_error(ctx: Any, error: Exception) -> Iterator[Any]:
    known = isinstance(error, AuditError)
    sentence = str(error) if known else f"The audit stopped: {error} ({type(error).__name__}); the log has more"
    yield ctx.ops.notify(sentence, variant="error")
    yield ctx.ops.show_output(types.Property(forms.error_output(sentence)).to_json(), {})


def _show_result(ctx: Any, result: Any, run: str) -> Iterator[Any]:
    output, values = forms.result_output(result.summary, run, result.run_dir)
    yield ctx.ops.reload_dataset()
    yield ctx.ops.notify(f"Audit {run!r} is done; flagged samples: saved view {run}_flagged", variant="success")
    yield ctx.ops.show_output(types.Property(output, view=types.View(label="Audit result")).to_json(), values)
