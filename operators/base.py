"""What the operators share: forms with tokens, errors as notices, long work with progress, common form fields."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Container, Generator, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError, count_text

from . import checks
from .markdown import without_markdown

logger = logging.getLogger(__name__)

PLUGIN = "@multimem/audit"
REFRESH_SECONDS = 0.3
TOKEN = "token"  # name of the forms' hidden field
HIDDEN = {"container": {"sx": {"display": "none"}}}  # the App sends no defaults of its HiddenView
STALE = "The form is out of date; open it again"
MOST_NOTICE = 500  # characters of a notice
CHANGE_LABELS = {
    "relabeled": "relabeled",
    "captions_removed": "with a caption removed",
    "removed": "hidden as removed",
    "brought_back": "restored",
    "deleted": "deleted from the dataset",
}
# Usual duration of each stage relative to the others: one progress bar is made of many counters.
STAGE_WEIGHTS = {
    "read": 0.02,
    "encode image": 0.45,
    "encode text": 0.08,
    "encode audio": 0.3,
    "encode video": 0.9,
    "neighbors": 0.03,
    "train": 0.35,
    "towers": 2.0,
    "score": 0.02,
    "explain": 0.02,
    "write": 0.05,
    "removal": 1.0,
}
BACKGROUND = {"execute_as_generator": True, "allow_delegated_execution": True}

Event = tuple[str, int, int]  # stage, steps done, steps in total
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

    `ends_with_page`: the work stops when the page that asked for it is closed.
    """

    ends_with_page = False

    def execute(self, ctx: Any) -> Iterator[Any]:
        try:
            self.admit(ctx)
            samples, params = self.target(ctx), dict(ctx.params)
            stages = self.stages(samples, params)
        except Exception as error:
            if was_queued(ctx):
                raise
            yield from failed(ctx, error)
            return

        def work(progress: Progress) -> Any:
            return self.work(samples, params, progress)

        result = yield from in_background(ctx, work, stages, self.ends_with_page)
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


def failed(ctx: Any, error: Exception) -> Iterator[Any]:
    """A notice and an error page."""
    sentence = logged_text(error)
    output = types.Object()
    output.view("error", types.Error(label="The operator failed", description=sentence))
    yield notify(ctx, sentence, "error")
    yield ctx.ops.show_output(without_markdown(types.Property(output)).to_json(), {})


def in_background(
    ctx: Any, work: Callable[[Progress], Any], stages: Mapping[str, float], ends_with_page: bool = False
) -> Generator[Any, None, Any]:
    """Run `work(progress)` in a thread; yield progress and, if it failed, a notice and an error page.

    With `ends_with_page`, the work stops at its next report of progress when nobody listens to this generator any more.

    Returns:
        The result of the work; None if it failed.

    Raises:
        Exception: the error of delegated work, which marks the queued run as failed.
    """
    events: SimpleQueue[Event] = SimpleQueue()
    outcome: dict[str, Any] = {}
    closed = threading.Event()

    def progress(stage: str, done: int, total: int) -> None:
        if closed.is_set() and ends_with_page:
            raise AuditError("the page that asked for this was closed; nothing was written")
        events.put((stage, done, total))

    def run() -> None:
        try:
            outcome["result"] = work(progress)
        except Exception as error:  # whatever it is, the user has to see it
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    queued = was_queued(ctx)
    try:
        for stage, done, total in _latest_events(events, thread.is_alive):
            share, label = overall_progress(stage, done, total, stages)
            if queued:
                ctx.set_progress(progress=share, label=label)
            else:
                yield ctx.ops.set_progress(progress=share, label=label)
    finally:
        closed.set()
    error = outcome.get("error")
    if error and queued:
        raise error
    if error:
        yield from failed(ctx, error)
    return outcome.get("result")


def _latest_events(events: SimpleQueue[Event], alive: Callable[[], bool]) -> Iterator[Event]:
    """The newest event of every `REFRESH_SECONDS` while the work lasts; older ones are skipped."""
    while alive():
        newest = None
        try:
            newest = events.get(timeout=REFRESH_SECONDS)
            while True:
                newest = events.get_nowait()
        except Empty:
            if newest:
                yield newest


def overall_progress(stage: str, done: int, total: int, stages: Mapping[str, float]) -> tuple[float, str]:
    """Progress over all stages: a share from 0 to 1, and a label."""
    names = list(stages)
    before = sum(stages[name] for name in names[: names.index(stage)]) if stage in stages else 0.0
    share = before + stages.get(stage, 0.0) * (done / total if total else 1.0)
    return min(share, 1.0), f"{stage.capitalize()}: {done:,} of {total:,}"


def audit_stages(view: Any, params: Mapping[str, Any], last: str = "write") -> dict[str, float]:
    """The stages of an audit of the view, with `last` as the last one; their shares of the time sum to 1."""
    from audit_plugin import fiftyone_io

    try:
        config = checks.settings(params)
        encodings = {f"encode {modality}" for modality in fiftyone_io.modality_sources(view, config)}
    except AuditError:
        return {}  # the audit raises it again, and then it is shown
    training = "towers" if config.train == "towers" else "train"
    names = encodings | {"read", "neighbors", training, "score", "explain", last}
    return stages_named(names)


def stages_named(names: Container[str]) -> dict[str, float]:
    """The stages with these names in their order; their shares of the time sum to 1."""
    return shares_of_time({name: weight for name, weight in STAGE_WEIGHTS.items() if name in names})


def shares_of_time(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights divided by their sum."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def error_text(error: Exception) -> str:
    """One sentence on an error: of the user, of the machine (disk, memory), or an unexpected one with its type."""
    from audit_plugin.store import plain_error

    if isinstance(error, AuditError):
        return str(error)
    if sentence := plain_error(error):
        return sentence
    return f"Unexpected error: {error} ({type(error).__name__}); see the server log for details"


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
