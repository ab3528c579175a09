"""What the operators share: forms with tokens, errors as notices, long work with progress, common form fields."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError, count_text

from . import checks
from .markdown import without_markdown
from .stages import progress_text

if TYPE_CHECKING:
    from audit_plugin.fiftyone_io.jobs import Job

logger = logging.getLogger(__name__)

PLUGIN = "@multimem/audit"
REFRESH_SECONDS = 0.3
TOKEN = "token"  # name of the forms' hidden field
HIDDEN = {"container": {"sx": {"display": "none"}}}  # the App sends no defaults of its HiddenView
HIDDEN_TEXT = "The run goes on. Close this page; the panel Audit shows the run, and a notice its end."
STALE = "The form is out of date; open it again"
MOST_NOTICE = 500  # characters of a notice
MOST_NAME = 200  # characters of a reviewer's name
CHANGE_LABELS = {
    "relabeled": "relabeled",
    "captions_removed": "with a caption removed",
    "removed": "hidden as removed",
    "brought_back": "restored",
    "deleted": "deleted from the dataset",
}
BACKGROUND = {"execute_as_generator": True, "allow_delegated_execution": True}

Progress = Callable[[str, int, int], None]


def operator_config(
    name: str, label: str, icon: str, risk: str, description: str, **options: Any
) -> foo.OperatorConfig:
    """The configuration of an operator whose form is updated while it is filled in."""
    defaults = {"dynamic": True, "view_target": False, **options}
    return foo.OperatorConfig(name=name, label=label, icon=icon, risk_level=risk, description=description, **defaults)


class AuditOperator(foo.Operator):
    """An operator whose errors become notices; subclasses set `listing` and implement `perform`.

    Without a form and without a token: only for what changes nothing and starts no work.
    """

    listing: foo.OperatorConfig

    @property
    def config(self) -> foo.OperatorConfig:
        return self.listing

    def execute(self, ctx: Any) -> Any:
        """The results of `perform`; an error becomes a notice, and the results are empty."""
        try:
            self.admit(ctx)
            return self.perform(ctx)
        except Exception as error:
            if was_queued(ctx):
                raise  # marks the queued run as failed
            notify(ctx, logged_text(error), "error")
            return {}

    def admit(self, ctx: Any) -> None:
        """Raise an `AuditError` if the request is not to be carried out."""
        checks.dataset_of(ctx)

    def perform(self, ctx: Any) -> dict[str, Any]:
        """Do the work and return the operator's results.

        Raises:
            AuditError: a problem that the user can fix.
        """
        raise NotImplementedError


class FormOperator(AuditOperator):
    """An operator with a form, whose hidden token has to come back: other web pages cannot know it.

    Subclasses implement `form`, and `shown` where the form shows what will be changed.
    """

    def form(self, ctx: Any) -> types.Property:
        """The form, without its token.

        Raises:
            AuditError: a problem, which is shown instead of the form.
        """
        raise NotImplementedError

    def shown(self, ctx: Any) -> Any:  # noqa: ARG002
        """What the form shows of what will be changed, JSON-ready: where that differs later, nothing is done.

        Raises:
            AuditError: nothing can be done.
        """
        return None

    def resolve_input(self, ctx: Any) -> types.Property | None:
        """The form with its token; None when FiftyOne executes, since `perform` checks everything itself."""
        if ctx.executor is not None:
            return None
        try:
            checks.dataset_of(ctx)
            prompt = self.form(ctx)
            with contextlib.suppress(AuditError):  # the form shows why; there is no token then
                self._add_token(ctx, prompt.type)
        except Exception as error:
            form = types.Object()
            block(form, "problem", types.Error(label="Cannot show this form", description=logged_text(error)))
            prompt = self.prompt(form, self.listing.label)
            ctx._view_target_resolved = False  # FiftyOne would open the view again
        return without_markdown(prompt)

    def _add_token(self, ctx: Any, form: types.Object) -> None:
        """The token that the form has, while it is valid: another one at each change would resolve the form forever."""
        from audit_plugin.fiftyone_io import tokens

        shown, token = self.shown(ctx), ctx.params.get(TOKEN)
        if not tokens.is_valid(token, ctx.dataset, self.listing.name, shown):
            token = tokens.new_token(ctx.dataset, self.listing.name, shown)
        form.str(TOKEN, default=token, view=types.TextFieldView(componentsProps=HIDDEN))
        form.properties = {
            TOKEN: form.properties.pop(TOKEN),
            **form.properties,
        }  # first: it takes no room between fields

    def has_token(self, ctx: Any) -> bool:
        """Whether the request has a token for what would be done now."""
        from audit_plugin.fiftyone_io import tokens

        try:
            dataset = checks.dataset_of(ctx)
            token, queued = ctx.params.get(TOKEN), was_queued(ctx)
            return tokens.is_valid(token, dataset, self.listing.name, self.shown(ctx), queued)
        except AuditError:
            return False

    def admit(self, ctx: Any) -> None:
        from audit_plugin.fiftyone_io import tokens

        super().admit(ctx)
        # first by type: what the form would show is only looked up for a request that was made by a form
        if not isinstance(ctx.params.get(TOKEN), str):
            raise AuditError(STALE)
        shown = self.shown(ctx)
        if not tokens.is_valid(ctx.params[TOKEN], ctx.dataset, self.listing.name, shown, was_queued(ctx)):
            raise AuditError(STALE)
        if not tokens.use(ctx.params[TOKEN]):
            raise AuditError(STALE)

    def resolve_delegation(self, ctx: Any) -> None:
        """A request without a valid token is not queued: it is carried out at once, which refuses it."""
        if ctx.requesting_delegated_execution and not self.has_token(ctx):
            ctx.request_params["request_delegation"] = False

    def prompt(self, form: types.Object, button: str) -> types.Property:
        """The form under the operator's label, with the text of its submit button."""
        return types.Property(form, view=types.PromptView(label=self.listing.label, submit_button_label=button))


class BackgroundOperator(FormOperator):
    """An operator that works in a thread and shows its progress, in the App or in the queue of delegated runs.

    `ends_with_page`: the work stops when the page that asked for it is closed; `stopped_text`: what the person who
    stopped it reads.
    """

    ends_with_page = False
    stopped_text = "Stopped. Nothing was written into the dataset."

    def execute(self, ctx: Any) -> Iterator[Any]:
        try:
            self.admit(ctx)
            samples, params = self.target(ctx), dict(ctx.params)
            stages = self.stages(samples, params)
        except Exception as error:
            if was_queued(ctx):
                raise
            yield from failed(ctx, logged_text(error))
            return

        def work(progress: Progress) -> Any:
            return self.work(samples, params, progress)

        from audit_plugin.fiftyone_io.jobs import begin_job

        job = begin_job(ctx.dataset, self.listing.label, stages)
        result = yield from in_background(ctx, work, job, self)
        if result is not None:
            yield from self.show(ctx, params, result)

    def target(self, ctx: Any) -> Any:
        """The samples to work on: a dataset or view."""
        return target_view(ctx)

    def stages(self, samples: Any, params: Mapping[str, Any]) -> dict[str, float]:
        """Names of the stages in their order, each with its share of the time."""
        raise NotImplementedError

    def work(self, samples: Any, params: Mapping[str, Any], progress: Progress) -> Any:
        """Do the work in a thread and return its result.

        Raises:
            AuditError: a problem that the user can fix.
        """
        raise NotImplementedError

    def show(self, ctx: Any, params: Mapping[str, Any], result: Any) -> Iterator[Any]:
        """Yield what the App does with the result: reload, notices, the output page."""
        raise NotImplementedError

    def page(self, ctx: Any, output: types.Object, values: Mapping[str, Any]) -> Any:
        """The message that opens an output page under the operator's label."""
        page = without_markdown(types.Property(output, view=types.View(label=self.listing.label)))
        return ctx.ops.show_output(page.to_json(), dict(values))

    def resolve_run_name(self, ctx: Any) -> str:
        """The name of a queued run."""
        return f"{self.listing.label}: {ctx.dataset_name}"


def was_queued(ctx: Any) -> bool:
    """Whether this is a queued run that is carried out now; what the request says of itself does not count."""
    return ctx._delegated_operation_id is not None


def target_view(ctx: Any) -> Any:
    """The dataset or view that the form was filled in for.

    Raises:
        AuditError: the request's view cannot be opened.
    """
    return _opened(ctx, ctx.target_view)


def open_view(ctx: Any) -> Any:
    """The view that is open.

    Raises:
        AuditError: the request's view cannot be opened.
    """
    return _opened(ctx, lambda: ctx.view)


def _opened(ctx: Any, view: Callable[[], Any]) -> Any:
    checks.dataset_of(ctx)
    try:
        return view()
    except Exception as error:  # of FiftyOne, on a view of any kind
        reason = str(error).partition("\n")[0]
        raise AuditError(f"the view cannot be opened ({type(error).__name__}: {checks.short(reason)})") from error


def notify(ctx: Any, sentence: str, variant: str = "info") -> Any:
    """Show a notice of plain text, without characters that hide or reorder text."""
    from audit_plugin.inputs.spreadsheet import clean

    return ctx.ops.notify(clean(sentence, MOST_NOTICE), variant=variant)


def failed(ctx: Any, sentence: str) -> Iterator[Any]:
    """A notice and an error page."""
    output = types.Object()
    output.view("error", types.Error(label="The operator failed", description=sentence))
    yield notify(ctx, sentence, "error")
    yield ctx.ops.show_output(without_markdown(types.Property(output)).to_json(), {})


def in_background(
    ctx: Any, work: Callable[[Progress], Any], job: Job, operator: BackgroundOperator
) -> Generator[Any, None, Any]:
    """Run `work(progress)` in a thread; yield progress with a button to stop it, and how it ended if not well.

    The work of an operator that `ends_with_page` stops at its next report of progress when nobody listens to this
    generator any more; that of a queued run, when its record is marked as failed.

    Returns:
        The result of the work; None if it failed or was stopped, or goes on without its page (`Job.is_hidden`).

    Raises:
        Exception: the error of delegated work, which marks the queued run as failed.
    """
    from audit_plugin.fiftyone_io.jobs import StoppedError

    thread, outcome = _started(job, work)
    queued = was_queued(ctx)
    show = _store_progress(ctx, job) if queued else _show_progress(ctx, job, operator)
    try:
        for _ in _changes(job, thread, always=queued):
            is_last = job.is_hidden
            yield from show()
            if is_last:
                return None
        error = outcome.get("error")
        if error and queued:
            job.is_reported = True  # by its record
            raise error if isinstance(error, Exception) else RuntimeError(job.error) from error
        if isinstance(error, StoppedError):
            yield from stopped(ctx, operator)
        elif error:
            yield from failed(ctx, job.error)
        job.is_reported = True
    finally:
        if not job.is_reported:  # the page was closed: the panel reports the end
            job.is_hidden = True
            job.is_stopping = job.is_stopping or operator.ends_with_page
    return outcome.get("result")


def _started(job: Job, work: Callable[[Progress], Any]) -> tuple[threading.Thread, dict[str, Any]]:
    """The thread that does the work of a job, and a dict that gets its `result`, or else the `error` that ended it."""
    from audit_plugin.fiftyone_io.jobs import StoppedError, end_job

    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = work(job.report)
            end_job(job, "done")
        except StoppedError as error:
            outcome["error"] = error
            end_job(job, "stopped")
        except BaseException as error:  # whatever it is, also SystemExit: the user has to see it
            outcome["error"] = error
            end_job(job, "failed", error_text(error))
            logger.error("%s failed: %s", job.label, job.error, exc_info=None if is_expected(error) else error)

    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # too many threads
        outcome["error"] = error
        end_job(job, "failed", error_text(error))
    return thread, outcome


def _changes(job: Job, thread: threading.Thread, always: bool) -> Iterator[None]:
    """While the work lasts, every `REFRESH_SECONDS`: each time that it went on, or `always`."""
    last = None
    while thread.is_alive():
        thread.join(REFRESH_SECONDS)
        now = (job.stage, job.done, job.is_stopping, job.is_hidden)
        if (always or now != last) and job.stage and thread.is_alive():
            last = now
            yield


def _show_progress(ctx: Any, job: Job, operator: BackgroundOperator) -> Callable[[], Iterator[Any]]:
    """Yields the page of a run in the App: the present stage, the time left, and buttons to stop and to hide it."""
    from audit_plugin.fiftyone_io import tokens

    stop, hide = (
        {"job": job.id, "hide": hides, TOKEN: tokens.new_token(ctx.dataset, "stop_run", [job.id, hides])}
        for hides in (False, True)
    )

    def show() -> Iterator[Any]:
        output = types.Object()
        look = {"variant": "outlined", "on_click": f"{PLUGIN}/stop_run"}
        if job.is_hidden:
            output.view("hidden", types.Notice(label=HIDDEN_TEXT))
        else:
            output.float("progress", view=types.ProgressView(label=progress_text(job)))
        if not job.is_hidden and not job.is_stopping:
            output.btn("stop", label="Stop", icon="stop", params=stop, **look)
            if not operator.ends_with_page:
                output.btn("hide", label="Go on in the background", icon="visibility_off", params=hide, **look)
        yield operator.page(ctx, output, {"progress": job.share})

    return show


def _store_progress(ctx: Any, job: Job) -> Callable[[], Iterator[Any]]:
    """Writes the progress of a queued run into its record; stops the work where that is marked as failed or deleted."""
    from audit_plugin.fiftyone_io.queued_runs import is_given_up

    def store() -> Iterator[Any]:
        if is_given_up(ctx._delegated_operation_id):
            job.is_stopping = True
        else:
            ctx.set_progress(progress=job.share, label=progress_text(job))
        yield from ()

    return store


def stopped(ctx: Any, operator: BackgroundOperator) -> Iterator[Any]:
    """A notice and a page on work that a person stopped."""
    output = types.Object()
    output.view("stopped", types.Notice(label=operator.stopped_text))
    yield notify(ctx, operator.stopped_text)
    yield operator.page(ctx, output, {})


def is_expected(error: BaseException) -> bool:
    """Whether an error is one of the user or of the machine, whose sentence says all: no traceback is needed."""
    from audit_plugin.store import plain_error

    return isinstance(error, AuditError) or plain_error(error) is not None


def error_text(error: BaseException) -> str:
    """One sentence on an error: of the user, of the machine (disk, memory), or an unexpected one with its type."""
    from audit_plugin.store import plain_error

    if isinstance(error, AuditError):
        return str(error)
    if sentence := plain_error(error):
        return sentence
    name = type(error).__name__
    what = f"{error} ({name})" if str(error) else name
    return f"Unexpected error: {what}; see the server log for details"


def logged_text(error: Exception) -> str:
    """One sentence on an error; an unexpected error is logged with its traceback."""
    if not isinstance(error, AuditError):
        logger.error("An operator or panel failed", exc_info=error)
    return error_text(error)


def audit_key(dataset: Any, params: Mapping[str, Any]) -> str:
    """The key of the audit that the parameters name; by default the newest audit.

    Raises:
        AuditError: the dataset has no audit, or none of that key.
    """
    from audit_plugin.fiftyone_io import audits_newest_first

    runs = audits_newest_first(dataset)
    if not runs:
        raise AuditError(f"dataset {dataset.name!r} has no audit; run one first")
    run = checks.text(params, "run", runs[0])
    if run not in runs:
        raise AuditError(f"dataset {dataset.name!r} has no audit {checks.short(run)}; it has {', '.join(runs)}")
    return run


def choose_audit(form: types.Object, dataset: Any, params: Mapping[str, Any]) -> str:
    """Add a field for the audit, by default the newest; return its key, "" if the dataset has none or not this one."""
    from audit_plugin.fiftyone_io import audits_newest_first

    runs = audits_newest_first(dataset)
    if not runs:
        block(form, "none", types.Warning(label="This dataset has no audit", description="Run an audit first"))
        return ""
    form.enum("run", runs, label="Audit", required=True, default=runs[0], view=types.DropdownView())
    try:
        return audit_key(dataset, params)
    except AuditError as error:
        block(form, "unknown", types.Error(label="Choose an audit", description=str(error)))
        return ""


def block(form: types.Object, name: str, notice: types.View) -> None:
    """Add a notice that disables the form's submit button."""
    field = form.view(name, notice)
    field.invalid = True
    field.error_message = notice.description or notice.label


def changes_text(counts: Mapping[str, int]) -> str:
    """`3 relabeled, 12 hidden as removed`; `nothing` without changes."""
    return ", ".join(f"{count:,} {CHANGE_LABELS[name]}" for name, count in counts.items() if count) or "nothing"


def samples_text(count: int) -> str:
    """`1 sample`, `2 samples`."""
    return count_text(count, "sample")
