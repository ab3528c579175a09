"""The operators of a review, as the App runs them: their forms, what they write, their notices."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.review_fixtures import kinds, written
from tests.operator_requests import execute, filled_in, form_of, notices_of

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
runs = importlib.import_module("audit_plugin.fiftyone_io.runs")


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    """Ten samples, three of them misaligned, the worst first."""
    made = make_dataset(10)
    written(made, (4, 1, 6))
    yield made
    importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions").ledger().delete_many({"dataset": made._doc.id})


def notices(name: str, data: Any, selected: tuple[str, ...] = (), **params: Any) -> tuple[list[str], dict[str, Any]]:
    """Run an operator; (its notices, its results)."""
    results, steps = execute(name, filled_in(name, data, params, selected=list(selected)))
    return notices_of(steps), results


def test_a_selection_is_decided_and_undone(dataset: Any) -> None:
    ids = dataset.values("id")
    messages, results = notices("decide", dataset, (ids[4], ids[6]), decision="keep", note="both fine")
    assert messages == ["Keep: 2 samples · 2 of 3 decided"]
    assert results == {"decided": 2, "done": 2, "total": 3}
    assert notices("decide", dataset, decision="keep")[0][0].startswith("no sample is open or selected")
    assert notices("undo_decision", dataset)[0] == ["Undone: 2 decisions"]
    assert notices("undo_decision", dataset)[0] == ["You have no decision to undo"]
    assert kinds(dataset) == [None] * 10


def test_a_bulk_decision_shows_the_count_first(dataset: Any) -> None:
    form = form_of("decide_flagged", dataset, kind="misaligned", decision="relabel")
    assert "Relabel 3 samples." in json.dumps(form["count"])
    messages = notices("decide_flagged", dataset, kind="misaligned", decision="relabel")[0]
    assert messages == ["Relabel: 3 samples decided"]
    assert [d.text for d in fio.decisions(dataset)] == ["better 4", "better 1", "better 6"]
    messages = notices("decide_flagged", dataset, kind="misaligned", decision="keep")[0]
    assert messages[0].startswith("no undecided samples match")
    assert form_of("decide_flagged", dataset, kind="misaligned", decision="keep")["count"]["invalid"]


def test_a_repair_is_accepted(dataset: Any) -> None:
    assert form_of("decide_repair", dataset)["no_repair"]["invalid"]
    results = dataset.load_run_results("audit", cache=False)
    results.summary = {**results.summary, "repairs": [{"kind": "shift", "rows": [1, 4, 6], "sentence": "why"}]}
    runs.fors.Run.save_run_results(dataset, "audit", results, cache=False)
    importlib.import_module("audit_plugin.fiftyone_io.results.tables")._tables.clear()
    assert form_of("decide_repair", dataset)["repair"]["type"]["values"] == ["why"]
    messages = notices("decide_repair", dataset, repair="why")[0]
    assert messages == ["Relabel: 3 samples decided; apply the decisions to change the captions"]
    assert notices("decide_repair", dataset, repair="another")[0][0].startswith("no sample of audit 'audit' belongs")


def test_exports_come_back_in(dataset: Any, tmp_path: Path) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, ids[4], "remove", note="=cmd|' /C calc'!A0")
    table, removed = tmp_path / "made.csv", tmp_path / "removed.txt"
    assert notices("export_review", dataset, what="decisions", decisions=str(table))[0] == [
        f"Wrote 1 decision to {table}"
    ]
    fio.apply(dataset)
    notices("export_review", dataset, what="removed", removed=str(removed))
    assert removed.read_text().split() == [ids[4]]
    name = f"{dataset.name}-clean"
    assert notices("export_review", dataset, what="dataset", dataset=name)[0] == [
        f"Created dataset {name!r} with 9 samples"
    ]
    fo.delete_dataset(name)
    assert notices("export_review", dataset, what="tables", tables="x")[0][0].startswith("cannot export 'tables'")
    refused = notices("export_review", dataset, what="report", report=str(tmp_path / "report.pdf"))[0][0]
    assert "the file name of a report ends in .html" in refused
    assert notices("import_decisions", dataset, path=str(table))[0] == ["0 new decisions"]  # the ledger has it already
    assert "no-such" in notices("import_decisions", dataset, path=str(tmp_path / "no-such.csv"))[0][0]
    fio.undo(dataset)


def test_without_an_audit_every_operator_says_so(make_dataset: Callable[..., Any]) -> None:
    bare = make_dataset(4)
    for name, params in (
        ("decide", {"decision": "keep"}),
        ("open_next", {}),
        ("decide_flagged", {"kind": "outlier", "decision": "keep"}),
        ("decide_repair", {"repair": "x"}),
        ("start_spot_check", {"size": 4}),
        ("export_review", {"what": "report", "report": "/tmp/x.html"}),
    ):
        messages = notices(name, bare, tuple(bare.values("id")[:1]), **params)[0]
        assert messages == [f"dataset {bare.name!r} has no audit; run one first"], name
