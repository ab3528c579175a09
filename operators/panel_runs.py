"""The cards of runs that go on, at the top of the panel, and the operators that stop one and open the panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from . import checks
from .audits import RunAudit
from .base import AuditOperator, FormOperator, notify, operator_config
from .markdown import escaped
from .panel_base import Tab, box, changing, guarded, say, with_token, wrapped
from .stages import progress_text, time_text

if TYPE_CHECKING:
    from audit_plugin.fiftyone_io.jobs import Job

BUSY, IDLE = 3_000, 10_000  # milliseconds between two looks at the runs, while one goes on and else
WAITS = "waits for a worker: start one on the server with `fiftyone delegated launch`"
MOST_ID = 100  # characters
AUDIT = RunAudit.listing.label


class Runs(Tab):
    """Elements and handlers of the cards."""

    load_tab: Callable[[Any], None]  # of the panel
    on_audited: Callable[[Any], None]  # of the panel: chooses the newest audit

    def show_runs(self, ctx: Any, panel: types.Object) -> None:
        """A card for each run that goes on or waits: stage, time left, and a button to stop it."""
        from audit_plugin.fiftyone_io import jobs, queued_runs

        running = [job for job in jobs.jobs_of(ctx.dataset) if not job.outcome]
        waiting = queued_runs.queued_runs(ctx.dataset)
        for number, job in enumerate(running):
            place = box(panel, f"job{number}")
            place.float("progress", default=job.share, view=types.ProgressView(label=progress_text(job)))
            self._show_line(ctx, place, job.label, f"running for {time_text(job.seconds)}", job.id)
        for number, run in enumerate(waiting):
            place = box(panel, f"queued{number}")
            status, is_running = getattr(run, "status", None), run.run_state == "running"
            about = "queued, runs now" if is_running else f"queued, {WAITS}"
            if is_running and status is not None:
                view = types.ProgressView(label=str(status.label or ""))
                place.float("progress", default=float(status.progress or 0), view=view)
            self._show_line(ctx, place, run.label or run.operator, about, str(run.id))
        interval = BUSY if running or waiting else IDLE
        panel.view("timer", types.TimerView(interval=interval, on_interval=self.on_tick))

    def _show_line(self, ctx: Any, place: types.Object, label: str, about: str, name: str) -> None:
        line = wrapped(place, "line", align_y="center")
        say(line, "about", f"**{escaped(label)}**: {about}")
        signed = with_token(ctx, self.on_stop, id=name)
        line.btn("stop", label="Stop", icon="stop", variant="outlined", on_click=self.on_stop, params=signed)

    def note_runs(self, ctx: Any) -> None:
        """Keep in the state which runs go on, and report those that have ended since, or without anybody there."""
        from audit_plugin.fiftyone_io import jobs, queued_runs

        now = runs_now(ctx.dataset)
        before = [name for name in ctx.panel.state.jobs or () if isinstance(name, str)]
        if now != before:  # the App reads its page again with each new state
            ctx.panel.state.jobs = now
        ended = {job.id: job for job in jobs.jobs_of(ctx.dataset) if job.outcome}
        unseen = [*unreported(ctx.dataset), *queued_runs.ended_since(ctx.dataset, now)]
        for name in dict.fromkeys([*before, *unseen]):
            if name in ended:
                self._report_job(ctx, ended[name])
            elif name not in now:
                self._report_queued(ctx, name)

    def _report_job(self, ctx: Any, job: Job) -> None:
        """A notice on a run of this process that ended, where its own page cannot show it, and what it has changed."""
        if job.is_hidden:
            job.is_reported = True
            variant = {"done": "success", "failed": "error"}.get(job.outcome, "info")
            notify(ctx, f"{job.label}: {job.error or job.outcome}", variant)
        self._show_end(ctx, is_audit=job.outcome == "done" and job.label == AUDIT)

    def _report_queued(self, ctx: Any, name: str) -> None:
        """A notice on a queued run that ended, and what it has changed."""
        from audit_plugin.fiftyone_io import queued_runs

        run = queued_runs.queued_run(ctx.dataset, name)
        if run is None:
            if queued_runs.was_deleted(name):
                notify(ctx, "A queued run was stopped: it was deleted from the list of runs", "warning")
            return
        label = run.label or run.operator
        if run.run_state == "completed":
            notify(ctx, f"Queued run complete: {label}", "success")
            self._show_end(ctx, is_audit=run.operator.endswith("/run_audit"))
        else:
            error = getattr(run.result, "error", None) or ""
            reason = str(error).strip().rpartition("\n")[2]
            notify(ctx, f"Queued run ended: {label}. {reason}".strip(), "warning")

    def _show_end(self, ctx: Any, is_audit: bool) -> None:
        """Show a new audit, or what else a run has changed."""
        if is_audit:
            self.on_audited(ctx)
            return
        ctx.dataset.reload()
        self.load_tab(ctx)

    @guarded
    def on_tick(self, ctx: Any) -> None:
        """Look again; the panel is drawn again after each event."""
        self.note_runs(ctx)

    @changing
    def on_stop(self, ctx: Any) -> None:
        """Stop a run of this process at its next step, or a queued one."""
        from audit_plugin.fiftyone_io import jobs, queued_runs

        name = checks.required(checks.text(ctx.params, "id", most=MOST_ID), "id")
        if run := queued_runs.queued_run(ctx.dataset, name):
            queued_runs.stop_queued(run)
        else:
            jobs.running_job(ctx.dataset, name).is_stopping = True
        self.note_runs(ctx)


def runs_now(dataset: Any) -> list[str]:
    """Ids of the runs on a dataset that go on or wait."""
    from audit_plugin.fiftyone_io import jobs, queued_runs

    running = [job.id for job in jobs.jobs_of(dataset) if not job.outcome]
    return [*running, *(str(run.id) for run in queued_runs.queued_runs(dataset))]


def unreported(dataset: Any) -> list[str]:
    """Ids of the runs of this process that ended after their page was closed, and were not reported yet."""
    from audit_plugin.fiftyone_io import jobs

    return [job.id for job in jobs.jobs_of(dataset) if job.outcome and job.is_hidden and not job.is_reported]


def is_known(ctx: Any, state: Mapping[str, Any], is_still: bool) -> bool:
    """Whether a look at the runs would show nothing new: none goes on, or none began or ended where all `is_still`."""
    try:
        dataset = checks.dataset_of(ctx)
    except AuditError:  # drawn, and said
        return False
    now = runs_now(dataset)
    if unreported(dataset):
        return False
    shown = state.get("jobs")
    is_shown = now == (list(shown) if isinstance(shown, list | tuple) else [])
    return is_shown and (is_still or not now)


class StopRun(FormOperator):
    """Stops a run of this process at its next step, or hides its page; what was encoded and trained is kept."""

    listing = operator_config(
        "stop_run",
        "Audit: Stop run",
        "stop",
        "low",
        "Stop a run that goes on, at its next step, or hide its page. What was encoded and trained is kept",
        unlisted=True,
    )

    def form(self, ctx: Any) -> types.Property:  # noqa: ARG002
        form = types.Object()
        form.str("job", label="Run", required=True)
        form.bool("hide", label="Hide its page only", default=False)
        return self.prompt(form, "Stop")

    def shown(self, ctx: Any) -> Any:
        """The run, and what is done with it."""
        return [checks.text(ctx.params, "job", most=MOST_ID), checks.switch(ctx.params, "hide") is True]

    def perform(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin.fiftyone_io import jobs

        job = jobs.running_job(ctx.dataset, checks.text(ctx.params, "job", most=MOST_ID))
        if checks.switch(ctx.params, "hide") is True:
            job.is_hidden = True
            return {"hidden": job.id}
        job.is_stopping = True
        notify(ctx, f"{job.label}: stopping after the present step")
        return {"stopping": job.id}


class OpenAudit(AuditOperator):
    """Opens the panel beside the samples."""

    listing = operator_config(
        "open_audit",
        "Audit: Open panel",
        "fact_check",
        "low",
        "Open the panel Audit: results of audits, the review queue, the report. Changes nothing",
    )

    def resolve_placement(self, ctx: Any) -> types.Placement:  # noqa: ARG002 (FiftyOne's signature)
        """A button above the grid."""
        button = types.Button(label="Audit", icon=self.listing.icon, prompt=False)
        return types.Placement(types.Places.SAMPLES_GRID_ACTIONS, button)

    def perform(self, ctx: Any) -> dict[str, Any]:
        ctx.ops.open_panel("audit_panel", is_active=True, layout="horizontal")
        return {}
