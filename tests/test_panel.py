"""The panel's handlers and what it draws, on a real database: as the App calls them, without a browser."""

from __future__ import annotations

import html
import importlib
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from audit_plugin.scoring.suggest.join_bugs import UNCERTAIN
from tests.findings_fixtures import made_up
from tests.panel_fixtures import App, dataset, element_of, helpers, names_in

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
foo = pytest.importorskip("fiftyone.operators")
fio = importlib.import_module("audit_plugin.fiftyone_io")
config = importlib.import_module("audit_plugin.config")
changes = importlib.import_module("audit_plugin.fiftyone_io.ledger.changes")
decisions = importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions")

__all__ = ["dataset"]  # a fixture


def test_without_an_audit_it_offers_one_and_with_two_the_newer(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    app = App(dataset)
    assert set(app.send("on_load")) == {"start", "begin", "cross_modal", "timer"}
    app.send("on_start")
    assert app.of("prompt_user_for_operation")[0]["operator_uri"] == "@multimem/audit/run_audit"
    for run in ("b_first", "a_second"):
        fio.write_result(dataset, made_up(dataset.values("id")), config.AuditConfig(run=run))
    drawn = app.send("on_audited")
    assert drawn["head"]["type"]["properties"]["chosen"]["type"]["values"] == ["a_second", "b_first"]
    assert app.state["run"] == "a_second"
    app.send("on_run", value="b_first")
    assert app.state["run"] == "b_first"


def test_the_overview_counts_and_its_threshold_is_moved_set_and_reset(dataset: Any) -> None:
    app = App(dataset)
    names = names_in(app.send("on_load"))
    assert {"misaligned", "threshold_misaligned", "show_misaligned", "show_duplicate", "scan"} <= names
    assert not {"threshold_duplicate", "set_misaligned", "show_vague"} & names
    drawn = app.send("on_slide", kind="misaligned", run="audit", value=3.0)
    assert "set_misaligned" not in names_in(drawn)  # where it stands
    drawn = app.send("on_slide", kind="misaligned", run="audit", value=2.0)
    assert [step for step, _ in app.sent] == ["show_panel_output"]  # the panel does not wait for the grid
    app.send("on_rest", kind="misaligned", run="audit", value=2.0)
    assert "audit_misalignment" in json.dumps(app.of("set_view"))
    assert app.state["thresholds"] == {"misaligned": 2.0}
    assert "set_misaligned" in names_in(drawn)
    assert "**4 samples** with a score of 2.00 or higher" in json.dumps(drawn)
    drawn = app.use_threshold("misaligned")
    assert len(dataset.match_tags("audit:misaligned")) == 4
    assert "reset_misaligned" in names_in(drawn)
    drawn = app.send("on_reset", kind="misaligned")
    assert len(dataset.match_tags("audit:misaligned")) == 3
    slider = element_of(drawn, "threshold_misaligned")["view"]
    assert slider["threshold"] == 3.0
    assert slider["spoken"] == "Threshold of Misaligned"
    assert app.state["thresholds"] == {}
    drawn = app.slide("misaligned", 1e9)  # beyond the slider's end
    drawn = app.use_threshold("misaligned")
    assert element_of(drawn, "threshold_misaligned")["view"]["threshold"] == slider["high"]
    app.send("on_reset", kind="misaligned")
    app.send("on_show", kind="duplicate")
    assert "audit_is_duplicate" in json.dumps(app.of("set_view"))
    assert "No row is memorized more than nearly all good pairs" in json.dumps(drawn)
    app.send("on_show", kind="memorized")  # none is flagged: those with the highest
    assert "audit_multimem" in json.dumps(app.of("set_view"))
    assert "audit_is_memorized" not in json.dumps(app.of("set_view"))
    app.send("on_open_form", operator="scan_new")
    assert app.of("prompt_user_for_operation")[0]["operator_uri"] == "@multimem/audit/scan_new"


def test_every_number_of_a_card_and_of_the_report_has_one_source(make_dataset: Callable[..., Any]) -> None:
    """Untouched, with a slider that was moved, with another threshold kept, and after a spot check."""
    from audit_plugin.fiftyone_io.results.findings import flag_quality
    from audit_plugin.fiftyone_io.results.reports import review_report
    from audit_plugin.report.page import misaligned_lines

    dataset = make_dataset(8)
    ids = dataset.values("id")
    result = made_up(ids, [-1.0, 0.0, 0.1, 0.2, 1.0, 2.0, 3.0, 4.0])
    good_above = {"edges": [0.0, 1.0, 2.0, 3.0], "share": [0.6, 0.25, 0.125, 0.0]}
    good_above |= {"low": [0.5, 0.2, 0.0625, 0.0], "high": [0.7, 0.375, 0.25, 0.0625]}
    estimated = {
        "in_one_space": False,
        "judged": 8,
        "pairs": 3,
        "pairs_interval": [2, 4],
        "precision": 1.0,
        "precision_interval": [0.75, 1.0],
    }
    summary = {**result.summary, "estimated": {**estimated, "good_above": good_above}}
    fio.write_result(dataset, replace(result, summary=summary), config.AuditConfig())
    app = App(dataset)

    def of_report() -> dict[str, str]:
        return dict(misaligned_lines(review_report(dataset, "audit")))

    flagged = int(flag_quality(dataset, "audit").flagged)
    drawn = json.dumps(app.send("on_load"))
    own = "Wrong in the whole set: at least 2 of 8. Wrong among the flagged: at least 75%. (Model-based, not checked.)"
    assert own in drawn
    assert f"**{flagged} samples** with a score of" in drawn
    assert "; at most 1 of them is probably correct" in drawn  # .25 of 1, rounded up
    assert of_report()["estimated precision"] == "at least 75%"
    drawn = json.dumps(app.slide("misaligned", 1.0))
    assert own in drawn  # of what is flagged
    assert "**4 samples** with a score of 1.00 or higher; at most 3 of them are probably correct" in drawn  # .375 / .5
    drawn = json.dumps(app.use_threshold("misaligned"))
    assert "Wrong among the flagged: at least 25%." in drawn
    assert "at most 3 of them are probably correct" in drawn
    lines = of_report()
    assert (lines["estimated wrong pairs"], lines["estimated precision"]) == ("at least 2 of 8", "at least 25%")

    foo.get_operator("@multimem/audit/start_spot_check")(dataset, "audit", 8)
    for name, caption in fio.spot_check(dataset, "audit").queue.rows:
        kind = "remove" if name in ids[5:] else "keep"
        fio.record_spot_check(dataset, "audit", (name, caption), kind)
    drawn = json.dumps(app.send("on_load"))
    assert (
        "Wrong in the whole set: about 3 of 8 (3 to 3). Wrong among the flagged: 75% (75% to 75%). (Spot check" in drawn
    )
    assert "about 1 of them is probably correct" in drawn
    assert of_report()["estimated precision"] == "75% (75% to 75%)"
    app.slide("misaligned", 3.0)
    drawn = json.dumps(app.use_threshold("misaligned"))  # of these flags the check says nothing
    assert "Wrong in the whole set: about 3 of 8 (3 to 3). The spot check was of other flags: start a new one" in drawn
    assert "probably correct" not in drawn
    assert of_report()["estimated precision"] == "not known"
    assert of_report()["estimated wrong pairs"] == "about 3 of 8 (3 to 3)"


def test_a_repair_of_uncertain_rows_alone_has_no_button_for_none(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    result = made_up(dataset.values("id"))
    repair = {"kind": "shift", "rows": [3, 5], "sources": [4, 6], "sentence": "a shift", "uncertain": [3, 5]}
    summary = {**result.summary, "repairs": [repair]}
    fio.write_result(dataset, replace(result, summary=summary), config.AuditConfig())
    app = App(dataset)
    names, drawn = names_in(app.send("on_load")), json.dumps(app.drawn)
    assert "ask" in names
    assert "accept" not in names
    assert "Relabel 0" not in drawn


def test_the_overview_suggests_a_repair_and_shows_the_rows_that_it_asks_about(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    ids = dataset.values("id")
    result = made_up(ids)
    reason = result.columns["reason"].copy()
    reason[5] = f"{UNCERTAIN}a shift"
    repair = {"kind": "shift", "rows": [3, 5], "sources": [4, 6], "sentence": "a shift", "uncertain": [5], "same": [4]}
    columns = {
        **result.columns,
        "reason": reason,
        "action": np.where(np.arange(8) == 5, "review", "keep").astype(object),
    }
    summary = {**result.summary, "repairs": [repair]}
    fio.write_result(dataset, replace(result, columns=columns, summary=summary), config.AuditConfig())
    app = App(dataset)
    drawn = json.dumps(app.send("on_load"))
    assert "Suggested repair" in drawn
    assert "a shift. The batch relabels 1 row; asks about 1 row at an end that is not certain; 1 row would get" in drawn
    assert "Relabel 1 sample" in drawn
    assert "Show the uncertain 1 sample" in drawn
    app.send("on_show_uncertain", repair="a shift")
    assert ids[5] in json.dumps(app.of("set_view"))
    app.send("on_show_uncertain", repair="another")
    assert not app.of("set_view")


def test_plots_filter_by_range_and_lasso_by_ids(dataset: Any) -> None:
    app = App(dataset)
    app.send("on_load")
    drawn = app.send("on_tab", value="plots")
    assert {"hist_misalignment", "quadrants", "make_map"} <= names_in(drawn)
    data = json.dumps(app.of("patch_panel_data"))
    assert "NaN" not in data
    assert data.count(dataset.first().id) == 1
    assert html.escape(dataset.first().caption) in data  # beside the pointer
    app.send("on_bar", path="plots.hist_misalignment", idx=0)
    assert "audit_misalignment" in json.dumps(app.of("set_view"))
    app.send("on_lasso", data=[])
    assert not app.of("set_view")
    app.send("on_lasso", data=[{"id": name} for name in dataset.values("id")[:2]])
    assert dataset.values("id")[1] in json.dumps(app.of("set_view"))


def test_what_the_app_sends_on_its_own_does_not_draw_the_panel_from_an_older_state(dataset: Any) -> None:
    """Lists say what they show once they are drawn, plots that nothing is selected."""
    app = App(dataset)
    app.send("on_load")
    before = dict(app.state)
    for event, sent in (
        ("on_run", {"value": "audit"}),
        ("on_kind", {"value": "all findings"}),
        ("on_earlier", {"value": "none"}),
        ("on_precision", {"value": "90%"}),
        ("on_lasso", {"data": []}),
    ):
        app.state = dict(before)
        app.send(event, **sent)
        assert app.sent == [], event
    app.state = dict(before)
    app.send("on_tab", value="queue")
    assert app.of("show_panel_output")


def test_a_point_shows_its_picture_and_text_below_its_plot(dataset: Any) -> None:
    app, sample = App(dataset), dataset.first()
    app.send("on_load")
    assert "point_quadrants" not in names_in(app.send("on_tab", value="plots"))
    drawn = app.send("on_point", id=sample.id, path="plots.quadrants")
    assert "point_quadrants" in names_in(drawn)
    assert {"picture", "caption", "show_point"} <= names_in(drawn)
    assert sample.caption in json.dumps(drawn)
    assert not app.of("set_view")  # the grid stays as it is
    app.send("on_show_point", id=sample.id)
    assert sample.id in json.dumps(app.of("set_view"))


@pytest.mark.parametrize("point", [{"id": "0" * 24}, {"id": "nonsense"}, {"id": 5}, {"id": ["a"]}, {"id": ""}, {}])
def test_a_point_that_is_not_there_leaves_the_plots(dataset: Any, point: dict[str, Any]) -> None:
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="plots")
    app.state["point"] = {**point, "plot": "quadrants", "run": "audit"}
    for event in ("on_point", "on_load"):
        drawn = app.send(event, path="plots.quadrants", **point)
        assert "hist_misalignment" in names_in(drawn), drawn
        assert "failed" not in names_in(drawn)


def test_requests_at_the_same_time_do_not_disturb_each_other(make_dataset: Callable[..., Any]) -> None:
    """FiftyOne reloads the samples that the server holds, to which the threads of other requests add some."""
    dataset = make_dataset(300)
    app, done = App(dataset), threading.Event()

    def read() -> None:
        while not done.is_set():
            for sample in dataset:
                held.append(sample)
            held.clear()

    held: list[Any] = []
    reader = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader.start()
    try:
        for _ in range(20):
            app.send("on_load")
            assert not app.of("notify"), app.of("notify")
    finally:
        done.set()
        reader.join()
        sys.setswitchinterval(interval)


def test_the_last_tab_asks_the_operators_and_compares(dataset: Any) -> None:
    app, ids = App(dataset), dataset.values("id")
    decisions.decide(dataset, ids[7], "relabel", text="better", reviewer="ann")
    decisions.decide(dataset, ids[3], "remove", reviewer="ann")
    decisions.decide(dataset, ids[3], "keep", reviewer="bob")
    app.send("on_load")
    drawn = app.send("on_tab", value="apply")
    assert {"apply_decisions", "export", "import", "show_differing"} <= names_in(drawn)
    assert not {"undo_changes", "delete_removed", "earlier"} & names_in(drawn)
    assert "ann: remove, bob: keep" in json.dumps(drawn)
    assert "Apply 1 change" in json.dumps(drawn)
    app.send("on_open_form", operator="apply_decisions")
    assert app.of("prompt_user_for_operation")[0]["operator_uri"] == "@multimem/audit/apply_decisions"
    changes.apply(dataset)
    drawn = app.send("on_form_done")
    assert "undo_changes" in names_in(drawn)
    assert "apply_decisions" not in names_in(drawn)
    later = made_up(ids[:8], [0.5, 3.0, 0.1, 4.0, 1.0, 2.0, 0.0, 0.2])  # the last row is mended
    fio.write_result(dataset[:8], later, config.AuditConfig(run="later"))
    app.send("on_run", value="later")
    drawn = app.send("on_earlier", value="audit")
    assert "| misaligned | 1 | 2 | 0 |" in json.dumps(drawn)
    app.send("on_compared", what="still")
    assert ids[3] in json.dumps(app.of("set_view"))
    app.send("on_differing")
    assert ids[3] in json.dumps(app.of("set_view"))
    changes.undo(dataset)


def test_errors_become_messages_and_never_a_traceback(dataset: Any) -> None:
    app = App(dataset)
    app.send("on_load")
    app.send("on_show", kind="no such kind")
    assert app.send("on_decide", choice="keep", row=["x", 0])["overview"]  # without a token
    app.state |= {"row": ["0" * 24, 0], "tab": "queue"}
    app.send("on_open")
    assert app.of("open_sample")[0]["id"] == dataset.values("id")[7]  # what is shown in place of a row that is gone
    app.state["run"] = "gone"
    app.send("on_open")
    assert app.of("notify")[0]["variant"] == "error"
    app.state["run"] = "audit"
    app.state["tab"] = "no such tab"
    assert "overview" in app.send("on_load")


def test_stages_are_shares_of_the_work_that_is_done(dataset: Any) -> None:
    scan = foo.get_operator("@multimem/audit/scan_new").stages(dataset, {})
    encoding = ["read", "read image vectors", "read text vectors", "encode image", "encode text"]
    work = ["neighbors", "compare images", "train", "score", "explain", "write"]
    assert list(scan) == [*encoding, "measure images", *work]
    index = foo.get_operator("@multimem/audit/index_audit").stages(dataset, {"run": "audit", "modality": "image"})
    assert list(index) == [*encoding, "measure images"]
    assert sum(scan.values()) == pytest.approx(1) == sum(index.values())


def test_undo_shows_the_changes_that_it_undoes(dataset: Any) -> None:
    ids = dataset.values("id")
    decisions.decide(dataset, ids[3], "remove")
    first = fio.apply(dataset).id
    decisions.decide(dataset, [ids[1], ids[2]], "remove")
    fio.apply(dataset)
    applied = helpers("changes").applied_changes
    assert applied(dataset).counts["removed"] == 2
    assert applied(dataset, first).counts["removed"] == 1
    assert applied(dataset, "another") is None
