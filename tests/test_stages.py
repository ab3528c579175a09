"""The progress of long work: every stage that is reported is in the table, and the progress never falls."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_plugin.arrays import MODALITIES
from tests.operator_requests import execute, filled_in, module_of, operator

pytestmark = pytest.mark.fiftyone
pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
jobs = importlib.import_module("audit_plugin.fiftyone_io.jobs")

PACKAGE = Path(__file__).resolve().parents[1] / "audit_plugin"
# Rooms and files whose stages only commands of the terminal show
TERMINAL = ("cli", "judge", "synthetic", "inputs/remote", "audit/export/similarity.py")
QUICK = {"encoder": "offline", "trials": 8, "epochs": 4, "device": "cpu", "text": "caption", "advanced": True}
AUDITS: dict[str, dict[str, Any]] = {
    "heads": {},
    "own embeddings": {"embeddings": "image=field:mine,text=field:mine"},
    "own embeddings of one modality": {"embeddings": "image=field:mine"},
    "towers": {"train": "towers", "tower": "small", "trials": 2, "epochs": 1},
    "no trials": {"trials": 0},
    "no texts": {"text": "none"},
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own: nothing was encoded or trained before."""
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, Any]]:
    """(stage, share of the whole, job) at each report of an operator's work."""
    found: list[tuple[str, float, Any]] = []
    real = jobs.Job.report

    def report(job: Any, stage: str, done: int, total: int) -> None:
        real(job, stage, done, total)
        found.append((stage, job.share, job))

    monkeypatch.setattr(jobs.Job, "report", report)
    return found


def check(reports: list[tuple[str, float, Any]]) -> None:
    """All stages are among the job's, the share never falls, and it ends near 1."""
    (job,) = {id(job): job for _, _, job in reports}.values()
    assert job.outcome == "done", job.error
    assert {stage.partition(",")[0] for stage, _, _ in reports} <= set(job.stages)
    shares = [share for _, share, _ in reports]
    assert shares == sorted(shares)
    assert shares[-1] > 0.9  # a last stage that finds nothing to do, such as to measure images again, reports nothing
    assert sum(job.stages.values()) == pytest.approx(1)


def with_vectors(dataset: Any) -> Any:
    rng = np.random.default_rng(0)
    dataset.set_values("mine", [rng.normal(size=8) for _ in range(len(dataset))])
    return dataset


@pytest.mark.parametrize("kind", AUDITS)
def test_an_audit_reports_stages_that_its_progress_knows(
    make_dataset: Callable[..., Any], reports: list[tuple[str, float, Any]], kind: str
) -> None:
    dataset = with_vectors(make_dataset(40))
    execute("run_audit", filled_in("run_audit", dataset, {**QUICK, **AUDITS[kind]}))
    check(reports)


def test_work_on_an_audit_reports_stages_that_its_progress_knows(
    make_dataset: Callable[..., Any], reports: list[tuple[str, float, Any]], pictures: list[str]
) -> None:
    dataset = make_dataset(40)
    operator("run_audit")(dataset, **{name: value for name, value in QUICK.items() if name != "advanced"})
    sample = importlib.import_module("fiftyone").Sample(filepath=pictures[50], caption="a green square")
    dataset.add_sample(sample)
    for name, params in (
        ("scan_new", {"run": "audit"}),
        ("index_audit", {"run": "audit", "modality": "image", "brain_key": "by_image"}),
        ("index_audit", {"run": "audit", "modality": "joint", "brain_key": "by_both"}),
    ):
        reports.clear()
        execute(name, filled_in(name, dataset, params))
        check(reports)


def names_in_source() -> Iterator[tuple[str, str]]:
    """(file, name of a stage that it reports); a stage of each modality gives a name for each."""
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if place.startswith(TERMINAL):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned: dict[str, list[ast.expr]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                assigned.setdefault(node.targets[0].id, []).append(node.value)
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name != "progress" or len(node.args) != 3:  # type: ignore[attr-defined]
                continue
            first = node.args[0]  # type: ignore[attr-defined]
            values = assigned.get(first.id, []) if isinstance(first, ast.Name) else [first]
            for value in values:
                yield from ((place, text) for text in texts_of(value))


def texts_of(value: ast.expr) -> list[str]:
    """The texts that an expression may be; `{modality}` in it is each of the modalities."""
    if isinstance(value, ast.IfExp):
        return texts_of(value.body) + texts_of(value.orelse)
    if isinstance(value, ast.Constant):
        return [value.value]
    assert isinstance(value, ast.JoinedStr), ast.dump(value)
    parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in value.values]
    fields = [ast.unparse(part.value) for part in value.values if isinstance(part, ast.FormattedValue)]
    assert fields[0] == "modality", fields
    return ["".join(map(str, parts)).format(name, *fields[1:]) for name in MODALITIES]


def test_every_stage_in_the_source_is_in_the_table() -> None:
    found = dict.fromkeys(names_in_source())
    assert len(found) > 20, "the calls are found"
    table = module_of("stages").STAGE_WEIGHTS
    assert [(place, name) for place, name in found if name.partition(",")[0] not in table] == []


def test_the_table_has_no_stage_that_nothing_reports() -> None:
    assert set(module_of("stages").STAGE_WEIGHTS) == {name.partition(",")[0] for _, name in names_in_source()}
