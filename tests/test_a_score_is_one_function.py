"""A score is one function in one place: a registered score, and a flag of it, appear everywhere without more lists."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_plugin.config import AuditConfig
from audit_plugin.scoring.columns import all_columns, column_help
from audit_plugin.scoring.flags import FLAGS, exceeds, flag
from audit_plugin.scoring.scores import SCORES, score
from tests.panel_fixtures import App, names_in
from tests.test_operators import form_of, operator

pytestmark = pytest.mark.fiftyone
pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
reports = importlib.import_module("audit_plugin.fiftyone_io.results.reports")

N = 30
FLAGGED = 3
QUICK = {"text": "caption", "encoder": "offline", "trials": 2, "epochs": 1, "device": "cpu"}


@pytest.fixture
def registered() -> Iterator[None]:
    """The score "brightness" and the flag "bright", registered as the project registers its own."""

    @score("Brightness", "How bright the sample is")
    def brightness(evidence: Any) -> Any:
        return np.arange(len(evidence), dtype=np.float32)

    @flag("Bright", "Brighter than most", score="brightness", tail=True)
    def bright(columns: Any, evidence: Any, rate: float) -> Any:
        return exceeds(columns["brightness"], len(evidence) - FLAGGED - 0.5)

    yield
    del SCORES["brightness"], FLAGS["bright"]


@pytest.fixture
def audited(registered: None, make_dataset: Callable[..., Any]) -> Any:
    """A dataset with two audits, and the result of the first."""
    dataset = make_dataset(N)
    result = fio.audit_view(dataset, AuditConfig(**QUICK))
    fio.audit_view(dataset, AuditConfig(run="later", **QUICK))
    return dataset, result


def test_it_is_a_column_of_the_result(audited: Any) -> None:
    dataset, result = audited
    assert np.isfinite(result.columns["brightness"]).all()
    assert result.columns["is_bright"].sum() == result.summary["flags"]["bright"] == FLAGGED
    assert all_columns()["brightness"].label == "Brightness"
    assert column_help("is_bright") == "Brighter than most"
    assert dataset.count("audit_brightness") == N
    assert len(dataset.match_tags("audit:bright")) == FLAGGED


def test_forms_offer_the_flag_and_its_threshold(audited: Any) -> None:
    dataset, _ = audited
    assert "bright" in form_of("set_threshold", dataset)["kind"]["type"]["values"]
    bulk = form_of("decide_flagged", dataset, kind="bright")
    assert "bright" in bulk["kind"]["type"]["values"]
    assert "threshold" in bulk
    assert operator("set_threshold")(dataset, "audit", "bright", N - 5.0) == 5 - FLAGGED
    assert len(dataset.match_tags("audit:bright")) == 5


def test_the_panel_has_its_card_histogram_and_queue(audited: Any) -> None:
    dataset, result = audited
    app = App(dataset)
    app.send("on_load")
    drawn = app.send("on_run", value="audit")
    assert {"bright", "threshold_bright", "show_bright"} <= names_in(drawn)
    assert f"**Bright: {FLAGGED}**" in json.dumps(drawn)
    assert "hist_brightness" in names_in(app.send("on_tab", value="plots"))
    app.send("on_bar", path="plots.hist_brightness", idx=0)
    assert "audit_brightness" in json.dumps(app.of("set_view"))
    app.send("on_tab", value="queue")
    drawn = app.send("on_kind", value="bright")
    assert "bright" in drawn["queue"]["type"]["properties"]["top"]["type"]["properties"]["kind"]["type"]["values"]
    brightest = result.ids[int(np.argmax(result.columns["brightness"]))]
    assert app.row == [brightest, 0], "ranked by its own score"
    assert "- Brightness: " in json.dumps(drawn, ensure_ascii=False)


def test_the_report_shows_it(audited: Any, tmp_path: Path) -> None:
    from audit_plugin.report import write_report

    path = tmp_path / "report.html"
    write_report(reports.review_report(audited[0], "audit"), path)
    page = path.read_text(encoding="utf-8")
    assert "Brighter than most" in page
    assert "How bright the sample is" in page


def test_the_comparison_counts_and_correlates_it(audited: Any) -> None:
    comparison = reports.compare_audits(audited[0], "audit", "later")
    assert len(comparison.kinds["bright"].still) == FLAGGED
    assert comparison.correlation["brightness"] == pytest.approx(1)


def test_the_terminal_lists_it(audited: Any) -> None:
    from rich.console import Console

    from audit_plugin.arrays import Samples
    from audit_plugin.report.display import show_result

    _, result = audited
    out = StringIO()
    show_result(Console(file=out, width=120), result, Samples(result.ids, {"text": ("",) * N}), [])
    assert "bright" in out.getvalue()
