"""Runs that go on, in the panel: what their cards show, how they are stopped, and that nothing is lost by it."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.operator_requests import PLUGIN, execute, filled_in, notices_of, operator, request_of
from tests.panel_fixtures import App, element_of

pytestmark = pytest.mark.fiftyone
pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
jobs = importlib.import_module("audit_plugin.fiftyone_io.jobs")
tokens = importlib.import_module("audit_plugin.fiftyone_io.tokens")
ROOT = Path(__file__).resolve().parents[1]
QUICK = {"encoder": "offline", "trials": 8, "epochs": 4, "device": "cpu", "text": "caption"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own: nothing was encoded or trained before."""
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path_factory.mktemp("cache")))


def begun(dataset: Any, **params: Any) -> Any:
    """The generator of an audit that was begun in the App."""
    from fiftyone.operators.executor import execute_or_delegate_operator

    request = filled_in("run_audit", dataset, {**QUICK, "advanced": True, **params})
    return asyncio.run(execute_or_delegate_operator(f"{PLUGIN}/run_audit", request)).result


def pages(steps: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(step["params"], default=str) for step in steps if step["operator_uri"].endswith("show_output")]


@pytest.fixture
def in_training(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """An audit waits at its third trial; the function lets it go on. `reached` is set when it waits."""
    reached, go_on = threading.Event(), threading.Event()
    real = jobs.Job.report

    def report(job: Any, stage: str, done: int, total: int) -> None:
        real(job, stage, done, total)
        if stage == "train" and done >= 2 and not go_on.is_set():
            reached.set()
            assert go_on.wait(60)
            real(job, stage, done, total)

    monkeypatch.setattr(jobs.Job, "report", report)
    go_on.reached = reached  # type: ignore[attr-defined]
    yield go_on
    go_on.set()


def test_a_stopped_audit_goes_on_where_it_stopped(
    make_dataset: Callable[..., Any], in_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(40)
    app = App(dataset)
    steps: list[dict[str, Any]] = []
    work = begun(dataset)
    reader = threading.Thread(target=lambda: steps.extend(message.to_json()["body"] for message in work))
    reader.start()
    assert in_training.reached.wait(120)
    app.send("on_load")
    (job,) = jobs.jobs_of(dataset)
    assert app.state["jobs"] == [job.id]
    card = json.dumps(app.drawn["job0"])
    assert "Audit dataset" in card
    assert f"Train: {job.done} of 8" in card
    assert element_of(app.drawn, "progress")["default"] == pytest.approx(job.share)
    assert app.drawn["timer"]["view"]["interval"] == 3000
    app.send("on_stop", **element_of(app.drawn, "line")["type"]["properties"]["stop"]["view"]["params"])
    assert job.is_stopping
    assert "stopping after this step" in json.dumps(app.drawn["job0"])
    in_training.set()
    reader.join(60)
    assert job.outcome == "stopped"
    assert "Stopped. What was encoded and trained is kept" in notices_of(steps)[-1]
    assert "Stopped. What was encoded" in pages(steps)[-1]
    assert fio.list_audits(dataset) == []
    assert not [name for name in dataset.get_field_schema() if name.startswith("audit_")]
    app.send("on_tick")
    assert "job0" not in app.drawn
    assert app.drawn["timer"]["view"]["interval"] == 10_000

    first: dict[str, int] = {}
    real = jobs.Job.report

    def report(job: Any, stage: str, done: int, total: int) -> None:
        first.setdefault(stage, done)
        real(job, stage, done, total)

    monkeypatch.setattr(jobs.Job, "report", report)
    resumed = [message.to_json()["body"] for message in begun(dataset)]
    assert first["train"] >= 2  # trials that were trained before it was stopped
    assert "40 samples audited" in pages(resumed)[-1]


def test_the_page_of_a_run_shows_stage_and_a_button_that_stops_it(
    make_dataset: Callable[..., Any], in_training: Any
) -> None:
    dataset = make_dataset(40)
    work, seen = begun(dataset), []
    for message in work:
        body = message.to_json()["body"]
        seen.append(body)
        fields = (body["params"] or {}).get("outputs", {}).get("type", {}).get("properties", {})
        if "stop" in fields and in_training.reached.is_set():
            button = fields["stop"]["view"]
            assert button["operator"] == f"{PLUGIN}/stop_run"
            execute("stop_run", request_of(dataset, {**button["params"], "token": "x"}))
            assert not jobs.jobs_of(dataset)[0].is_stopping  # another page cannot know the token
            notices = notices_of(execute("stop_run", request_of(dataset, button["params"]))[1])
            assert notices == ["Audit dataset: stopping after the present step"]
            in_training.set()
    assert jobs.jobs_of(dataset)[0].outcome == "stopped"
    assert any("Train: " in page for page in pages(seen))


def test_a_run_goes_on_without_its_page(make_dataset: Callable[..., Any], in_training: Any) -> None:
    dataset, seen = make_dataset(40), []
    app = App(dataset)
    for message in begun(dataset):
        body = message.to_json()["body"]
        seen.append(body)
        fields = (body["params"] or {}).get("outputs", {}).get("type", {}).get("properties", {})
        if "hide" in fields and in_training.reached.is_set():
            execute("stop_run", request_of(dataset, fields["hide"]["view"]["params"]))
        if "hidden" in fields:
            assert "stop" not in fields
            app.send("on_load")
            in_training.set()
    assert "The run goes on. Close this page" in json.dumps(seen[-1]["params"])  # and nothing opens it again
    (job,) = jobs.jobs_of(dataset)
    for _ in range(600):
        if job.outcome:
            break
        threading.Event().wait(0.1)
    assert job.outcome == "done"
    app.send("on_tick")
    assert app.of("notify")[0]["message"] == "Audit dataset: done"
    assert app.state["run"] == "audit"


def test_a_queued_run_is_shown_stopped_and_told_of(make_dataset: Callable[..., Any]) -> None:
    from fiftyone.operators.delegated import DelegatedOperationService

    dataset, service = make_dataset(36), DelegatedOperationService()
    app = App(dataset)
    queued = operator("run_audit")(dataset, delegate=True, run="later", **QUICK)
    app.send("on_load")
    assert "waits for a worker: start one on the server with `fiftyone delegated launch`" in json.dumps(app.drawn)
    service.execute_queued_operations(operator=f"{PLUGIN}/run_audit", limit=1)
    app.send("on_tick")
    assert app.of("notify")[0]["message"].startswith("Queued run complete")
    assert app.state["run"] == "later"
    assert "queued0" not in app.drawn
    app.send("on_tick")
    assert not app.sent  # told once, and not drawn again for nothing

    queued = operator("run_audit")(dataset, delegate=True, run="never", **QUICK)
    app.send("on_tick")
    app.send("on_stop", **element_of(app.drawn["queued0"]["type"]["properties"], "stop")["view"]["params"])
    assert service.get(queued.result["id"]).run_state == "failed"
    assert "Stopped in the panel Audit" in app.of("notify")[0]["message"]
    service.execute_queued_operations(operator=f"{PLUGIN}/run_audit", limit=1)
    assert fio.list_audits(dataset) == ["later"]


def test_a_queued_run_that_goes_on_stops_when_it_is_marked_as_failed(
    make_dataset: Callable[..., Any], in_training: Any
) -> None:
    from fiftyone.operators.delegated import DelegatedOperationService

    dataset, service = make_dataset(40), DelegatedOperationService()
    queued = operator("run_audit")(dataset, delegate=True, **QUICK)
    worker = threading.Thread(target=service.execute_queued_operations, kwargs={"limit": 1})
    worker.start()
    assert in_training.reached.wait(120)
    app = App(dataset)
    app.send("on_load")
    assert "queued, runs now" in json.dumps(app.drawn["queued0"])
    button = element_of(app.drawn["queued0"]["type"]["properties"], "stop")["view"]["params"]
    app.send("on_stop", **button)
    (job,) = jobs.jobs_of(dataset)
    for _ in range(600):  # the worker looks at its record, though the work does not go on
        if job.is_stopping:
            break
        threading.Event().wait(0.1)
    in_training.set()
    worker.join(120)
    assert service.get(queued.result["id"]).run_state == "failed"
    assert fio.list_audits(dataset) == []


@pytest.mark.parametrize("value", ["true", None])
def test_queued_runs_need_a_setting_of_the_server(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/app.md names; without it FiftyOne's form says that Schedule is not available."""
    name = "FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS"
    monkeypatch.delenv(name, raising=False)
    if value:
        monkeypatch.setenv(name, value)
    settings = importlib.import_module("fiftyone.core.config").FiftyOneConfig({})
    assert settings.allow_legacy_orchestrators is bool(value)
    fiftyone = importlib.import_module("fiftyone")
    monkeypatch.setattr(fiftyone.config, "allow_legacy_orchestrators", settings.allow_legacy_orchestrators)
    options = importlib.import_module("fiftyone.operators.executor").ExecutionOptions(allow_delegated_execution=True)
    assert options.orchestrator_registration_enabled is not bool(value)
    assert name in (ROOT / "docs" / "app.md").read_text()
