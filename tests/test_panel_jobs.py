"""How the end of long work reaches a person: whatever ends it, with or without its page, queued or deleted."""

from __future__ import annotations

import importlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from audit_plugin.arrays import AuditError
from tests.operator_requests import PLUGIN, execute, filled_in, module_of, notices_of, operator
from tests.panel_fixtures import App

pytestmark = pytest.mark.fiftyone
pytest.importorskip("fiftyone")
jobs = importlib.import_module("audit_plugin.fiftyone_io.jobs")
queued_runs = importlib.import_module("audit_plugin.fiftyone_io.queued_runs")

ERRORS = [
    AuditError("no such column"),
    ValueError("out of range"),
    MemoryError(),
    OSError(28, "No space left on device"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
]


@pytest.fixture
def go_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[BaseException | None], threading.Event]]:
    """Audits wait until the event is set, and then raise the error, or report until they are stopped."""
    event = threading.Event()
    found: list[BaseException | None] = []

    def work(self: Any, samples: Any, params: Any, progress: Any) -> Any:
        progress("read", 0, 4)
        while not event.wait(0.05):
            progress("read", 1, 4)
        if found[0] is not None:
            raise found[0]
        raise AssertionError("it was to be stopped")

    def set_up(error: BaseException | None) -> threading.Event:
        found.append(error)
        return event

    monkeypatch.setattr(type(operator("run_audit")), "work", work)
    yield set_up
    event.set()


def begun(dataset: Any) -> Any:
    """The generator of an audit, which has yielded its first page."""
    import asyncio

    from fiftyone.operators.executor import execute_or_delegate_operator

    request = filled_in("run_audit", dataset, {"text": "caption", "encoder": "offline"})
    work = asyncio.run(execute_or_delegate_operator(f"{PLUGIN}/run_audit", request)).result
    next(work)
    return work


def ended(dataset: Any) -> Any:
    """The job on a dataset, after it has ended."""
    (job,) = jobs.jobs_of(dataset)
    for _ in range(400):
        if job.outcome:
            return job
        threading.Event().wait(0.05)
    raise AssertionError(f"the job goes on: {job}")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_ends_the_work_is_shown_on_its_page(make_dataset: Callable[..., Any], go_on: Any, error: Any) -> None:
    dataset = make_dataset(2)
    go_on(error).set()
    _, steps = execute("run_audit", filled_in("run_audit", dataset, {"text": "caption", "encoder": "offline"}))
    job = ended(dataset)
    assert job.outcome == "failed"
    assert job.error
    assert notices_of(steps) == [job.error]
    app = App(dataset)
    app.send("on_load")
    assert app.of("notify") == []  # it was shown
    assert "job0" not in app.drawn


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_failure_without_its_page_is_logged_and_shown_when_the_panel_is_opened(
    make_dataset: Callable[..., Any], go_on: Any, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, other = make_dataset(2), make_dataset(2)
    event = go_on(error)
    begun(dataset).close()  # the browser's page is closed
    with caplog.at_level(logging.ERROR):
        event.set()
        job = ended(dataset)
        threading.Event().wait(0.1)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == f"Audit dataset failed: {job.error}"
    assert bool(record.exc_info) != isinstance(error, AuditError | MemoryError | OSError)  # whose sentences say all
    elsewhere = App(other)
    elsewhere.send("on_load")
    assert elsewhere.of("notify") == []
    app = App(dataset)
    app.send("on_load")
    (notice,) = app.of("notify")
    assert notice["variant"] == "error"
    assert notice["message"].startswith(f"Audit dataset: {job.error}"[:400])
    again = App(dataset)
    again.send("on_load")
    assert again.of("notify") == []  # shown once


def test_an_open_panel_shows_a_failure_without_its_page_by_itself(make_dataset: Callable[..., Any], go_on: Any) -> None:
    dataset = make_dataset(2)
    event = go_on(ValueError("out of range"))
    app = App(dataset)
    app.send("on_load")
    begun(dataset).close()
    event.set()
    ended(dataset)
    app.send("on_tick")  # which the panel's timer sends
    assert "out of range" in app.of("notify")[0]["message"]


def test_a_page_that_is_closed_after_the_failure_but_before_it_was_shown(
    make_dataset: Callable[..., Any], go_on: Any
) -> None:
    dataset = make_dataset(2)
    event = go_on(ValueError("out of range"))
    page = begun(dataset)
    event.set()
    ended(dataset)
    page.close()
    app = App(dataset)
    app.send("on_load")
    assert "out of range" in app.of("notify")[0]["message"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_a_queued_run_that_something_ends_is_marked_as_failed(
    make_dataset: Callable[..., Any], go_on: Any, error: Any
) -> None:
    """And the worker goes on."""
    from fiftyone.operators.delegated import DelegatedOperationService

    dataset, service = make_dataset(2), DelegatedOperationService()
    go_on(error).set()
    queued = operator("run_audit")(dataset, delegate=True, text="caption", encoder="offline")
    service.execute_queued_operations(operator=f"{PLUGIN}/run_audit", limit=1)
    record = service.get(queued.result["id"])
    assert record.run_state == "failed"
    assert type(error).__name__ in record.result.error


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_a_queued_run_that_was_deleted_is_stopped(make_dataset: Callable[..., Any], go_on: Any, when: str) -> None:
    from bson import ObjectId
    from fiftyone.operators.delegated import DelegatedOperationService

    dataset, service = make_dataset(2), DelegatedOperationService()
    app = App(dataset)
    go_on(None)
    queued = operator("run_audit")(dataset, delegate=True, text="caption", encoder="offline")
    identity = ObjectId(queued.result["id"])
    worker = threading.Thread(target=service.execute_queued_operations, kwargs={"limit": 1})
    if when == "running":
        worker.start()
        for _ in range(400):
            if jobs.jobs_of(dataset) and jobs.jobs_of(dataset)[0].stage:
                break
            threading.Event().wait(0.05)
    run = queued_runs.queued_run(dataset, str(identity))
    app.send("on_load")
    button = app.drawn["queued0"]
    service.delete_operation(identity)  # on FiftyOne's page
    assert queued_runs.queued_run(dataset, str(identity)) is None
    with pytest.raises(AuditError, match="has ended already"):
        queued_runs.stop_queued(run)
    if when == "running":
        assert ended(dataset).outcome == "stopped"
        worker.join(60)
    app.send("on_stop", **stop_of(button))
    assert {notice["message"] for notice in app.of("notify")} == {"this run has ended already"}
    app.send("on_tick")
    assert app.of("notify")[0]["message"] == "A queued run was stopped: it was deleted from the list of runs"
    assert "queued0" not in app.drawn
    app.send("on_tick")
    assert not app.of("notify")


def stop_of(card: Any) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("params"), dict) and "id" in value["params"]:
                found.append(value["params"])
            for inner in value.values():
                visit(inner)

    visit(card)
    return found[0]


def test_a_run_of_another_dataset_is_not_taken_for_a_deleted_one(make_dataset: Callable[..., Any]) -> None:
    dataset, other = make_dataset(2), make_dataset(2)
    queued = operator("run_audit")(other, delegate=True, text="caption", encoder="offline")
    app = App(dataset)
    app.state["jobs"] = [queued.result["id"], "0123456789abcdef", "x"]
    app.send("on_load")
    assert app.of("notify") == []


def test_a_thread_that_cannot_be_started_is_a_failure(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, real = make_dataset(2), threading.Thread.start

    def start(self: threading.Thread) -> None:
        if "_started" in getattr(self._target, "__qualname__", ""):  # type: ignore[attr-defined]
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    _, steps = execute("run_audit", filled_in("run_audit", dataset, {"text": "caption", "encoder": "offline"}))
    assert "no more threads or processes can be started" in notices_of(steps)[0]
    assert ended(dataset).outcome == "failed"
    assert json.dumps(module_of("panel_runs").runs_now(dataset)) == "[]"


@pytest.mark.parametrize("ends", ["fails", "is deleted"])
def test_a_queued_run_that_ended_while_no_panel_was_open_is_reported_once(
    make_dataset: Callable[..., Any], ends: str
) -> None:
    from bson import ObjectId
    from fiftyone.operators.delegated import DelegatedOperationService
    from fiftyone.operators.executor import ExecutionResult

    dataset, service = make_dataset(2), DelegatedOperationService()
    queued = operator("run_audit")(dataset, delegate=True, text="caption", encoder="offline")
    open_panel = App(dataset)
    open_panel.send("on_load")
    identity = ObjectId(queued.result["id"])
    if ends == "fails":
        service.set_failed(identity, ExecutionResult(error="no worker"))
    else:
        service.delete_operation(identity)
    expected = "Queued run ended: " if ends == "fails" else "A queued run was stopped: it was deleted"
    app = App(dataset)  # the page was closed and opened again
    app.send("on_load")
    (notice,) = app.of("notify")
    assert notice["message"].startswith(expected)
    again = App(dataset)
    again.send("on_load")
    assert again.of("notify") == []
    open_panel.send("on_tick")  # of another page that was open all the time: its timer
    assert open_panel.of("notify")[0]["message"].startswith(expected)
