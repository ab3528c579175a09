"""Calibrate as a mode of the queue: the same search as on the command line, and all numbers follow its threshold."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from audit_plugin.review.flag_quality import Calibration, quality_of_flags
from audit_plugin.scoring.wrong_pairs import Interval
from tests.panel_fixtures import App, button_of, element_of, names_in
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
findings = importlib.import_module("audit_plugin.fiftyone_io.results.findings")
page = importlib.import_module("audit_plugin.report.page")
reports = importlib.import_module("audit_plugin.fiftyone_io.results.reports")
thresholds = importlib.import_module("audit_plugin.fiftyone_io.results.thresholds")


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    """Sixty samples, of which the first thirty are flagged; the first 25 are wrong."""
    made = make_dataset(60)
    written(made, tuple(range(30)))
    return made


def calibrating(dataset: Any) -> App:
    app = App(dataset)
    app.send("on_load")
    app.state["head"] = {"reviewer": "ann"}
    app.send("on_tab", value="queue")
    app.send("on_kind", value="calibrate")
    return app


def progress_of(app: App) -> str:
    return str(element_of(app.drawn, "progress")["default"])


def on_the_command_line(dataset: Any, precision: str) -> tuple[list[str], list[str]]:
    """(ids that the command asks for next, what it says)."""
    from audit_plugin.cli import app

    done = CliRunner().invoke(app, ["review", "spot-check", dataset.name, "--precision", precision])
    assert done.exit_code == 0, done.output
    return [line.split("\t")[0] for line in done.stdout.splitlines()[1:]], done.stderr.splitlines()


def test_the_queue_asks_for_what_the_command_line_asks_for_and_ends_with_the_same_threshold(dataset: Any) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, ids[40:], "keep", reviewer="bob")  # a batch: no labels
    app = calibrating(dataset)
    assert progress_of(app).startswith("0 of about ")
    assert "skip" not in names_in(app.drawn)  # the search waits for this row
    for number in range(200):
        if not app.row:
            break
        asked, said = on_the_command_line(dataset, "0.9") if number % 10 == 0 else ([], [])
        if asked:
            assert (asked[0], said[0]) == (app.row[0], progress_of(app))
        elif number == 7:  # it is left, a label is made elsewhere, and it is gone on with
            name, caption = app.row
            fio.decide(dataset, name, "remove" if name in ids[:25] else "keep", caption=caption, reviewer="cid")
            app = calibrating(dataset)
            continue
        app.press("remove" if app.row[0] in ids[:25] else "keep")
        assert not app.of("notify")
    asked, said = on_the_command_line(dataset, "0.9")
    assert asked == []
    search = fio.threshold_check(dataset, "audit").search(0.9)
    assert progress_of(app) == said[0]
    assert f"threshold {search.threshold:.2f} keeps 90% so far" in said[0]
    assert f"**Found**: {said[1].removeprefix('guarantee: ')}" in json.dumps(app.drawn)
    assert "No more labels are needed" in json.dumps(app.drawn)
    app.send("on_previous")
    assert button_of(app.drawn, "keep")["row"][0] in ids  # the labels can be looked at, and changed
    follow_the_threshold(dataset, app, search)


def button(app: App) -> dict[str, Any]:
    """The parameters of the button that uses the threshold."""
    params: dict[str, Any] = element_of(app.drawn, "calibrated")["view"]["params"]
    return params


def of_report(dataset: Any) -> tuple[dict[str, str], str]:
    """(the lines of the card of misaligned pairs in the report, whose numbers they are)."""
    card = next(card for card in page.cards(reports.review_report(dataset, "audit")) if card["kind"] == "misaligned")
    return dict(card["lines"]), card["source"]


def follow_the_threshold(dataset: Any, app: App, search: Any) -> None:
    """The threshold is used: flags, tags, card and report follow; another threshold ends that."""
    flagged = dataset.match_tags("audit:misaligned").count()
    # a button that shows another threshold than the labels of now give
    app.send("on_calibrated", **(button(app) | {"threshold": search.threshold + 0.5}))
    assert app.of("notify")[0]["variant"] == "warning"
    assert dataset.match_tags("audit:misaligned").count() == flagged
    app.send("on_calibrated", **button(app))
    assert app.of("notify")[0]["variant"] == "success"
    assert dataset.match_tags("audit:misaligned").count() == search.rows != flagged
    quality = findings.flag_quality(dataset, "audit")
    assert (quality.flagged, quality.precision.low, quality.precision.high) == (search.rows, 0.9, 1.0)
    assert quality.labels <= search.labeled
    drawn = json.dumps(app.send("on_tab", value="overview"))
    assert f"Wrong among the flagged: {quality.precision_text}." in drawn
    assert f"Calibrated with {quality.labels} labels: the lower bound holds with 90%" in drawn
    lines, source = of_report(dataset)
    assert lines["estimated precision"] == quality.precision_text
    assert source == quality.source
    assert findings.flag_quality(dataset, "audit", search.threshold - 1).labels == 0
    thresholds.set_threshold(dataset, "audit", "misaligned", search.threshold - 1)
    assert findings.flag_quality(dataset, "audit").labels == 0
    assert "estimated precision" not in of_report(dataset)[0]
    thresholds.set_threshold(dataset, "audit", "misaligned", search.threshold)
    assert findings.flag_quality(dataset, "audit").labels == 0


def test_another_precision_uses_the_same_labels_and_without_one_nothing_is_set(dataset: Any) -> None:
    app, ids = calibrating(dataset), dataset.values("id")
    for _ in range(4):
        app.press("remove" if app.row[0] in ids[:25] else "keep")
    app.send("on_precision", value="70%")
    assert progress_of(app) == on_the_command_line(dataset, "0.7")[1][0]
    app.send("on_precision", value="0.7")
    assert "choose one of 70%, 80%" in app.of("notify")[0]["message"]
    app.send("on_precision", value="99%")
    assert "calibrated" not in names_in(app.drawn)
    row = app.row
    app.press("unsure")
    app.send("on_undo_last")
    assert app.row == row
    assert len(fio.threshold_check(dataset, "audit").labels) == 4
    app.send("on_calibrated", token="x")
    assert app.of("notify")[0]["variant"] == "error"


def test_a_batch_decision_on_the_next_row_is_seen_and_replaced(dataset: Any) -> None:
    app = calibrating(dataset)
    name, _ = app.row
    other = next(n for n in dataset.values("id") if n != name)
    fio.decide(dataset, [name, other], "unsure", reviewer="bob")
    app.press("keep")
    assert "decided meanwhile: unsure by bob" in app.of("notify")[0]["message"]
    assert app.row[0] == name
    app.press("keep")
    assert not app.of("notify")
    assert app.row[0] != name


def test_what_a_calibration_says_stands_beside_the_model_and_gives_way_to_a_spot_check() -> None:
    summary = {
        "estimated": {
            "in_one_space": False,
            "pairs": 3,
            "pairs_interval": [2, 4],
            "precision": 0.5,
            "precision_interval": [0.2, 0.8],
        }
    }
    scores = np.array([3.0, 2.0, 1.0, 0.0])
    calibration = Calibration(precision=0.8, threshold=2.0, rows=2, labeled=2, wrong=2)
    quality = quality_of_flags(summary, scores, scores >= 2, None, False, calibration)
    assert (quality.precision, quality.wrong) == (Interval(1.0, 0.8, 1.0), Interval(3, 2, 4))
    assert quality.precision_text == "100% (80% to 100%)"
    assert quality.source == (
        "calibrated with 2 labels: the lower bound holds with 90%; the whole set: model-based, not checked"
    )
    assert (quality.correct_text, quality.wrong_text) == ("about 0 of them are", "at least 2")
    assert quality_of_flags({}, scores, scores >= 2, None, False, calibration).source.endswith("holds with 90%")
    assert quality_of_flags({}, scores, scores >= 1, None, False, calibration).labels == 0  # a row came since
    assert Calibration(0.8, 2.0, 20, 10, 7).share == Interval(0.8, 0.8, 1.0)  # the bound holds, whatever came after it
