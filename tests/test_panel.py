"""The panel's handlers and what it draws, on a real database: as the App calls them, without a browser."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from audit_plugin.scoring.suggest.join_bugs import UNCERTAIN
from audit_plugin.scoring.wrong_pairs import Interval
from tests.findings_fixtures import made_up
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
foo = pytest.importorskip("fiftyone.operators")
fio = importlib.import_module("audit_plugin.fiftyone_io")
config = importlib.import_module("audit_plugin.config")
changes = importlib.import_module("audit_plugin.fiftyone_io.ledger.changes")
decisions = importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions")

URI = "@multimem/audit/audit_panel"
HOSTILE = "<script>alert(1)</script> **x** [y](http://e.example)\x07 \u202e=cmd|' /C calc'!A0"


class App:
    """Keeps the panel's state between events, as the browser does."""

    def __init__(self, dataset: Any, uri: str = URI) -> None:
        self.dataset, self.uri, self.state, self.sent, self.sample = dataset, uri, {}, [], None
        self.drawn: Any = {}

    def send(self, event: str, **params: Any) -> dict[str, Any]:
        """One event, with the token of its button; what the App is told to do is kept, what is drawn comes back."""
        from fiftyone.operators.executor import ExecutionContext, Executor

        request = {
            "dataset_name": self.dataset.name,
            "view": [],
            "current_sample": self.sample,
            "params": {
                **token_of(self.drawn, f"{self.uri}#{event}"),
                **params,
                "panel_id": "p",
                "panel_state": self.state,
                "__method__": event,
            },
        }
        executor = Executor()
        ctx = ExecutionContext(request, executor=executor, operator_uri=self.uri)
        with ctx:
            foo.get_operator(self.uri).execute(ctx)
        self.state = ctx.panel.state._data
        steps = [step.to_json() for step in executor._requests]
        self.sent = [(step["operator_uri"].rpartition("/")[2], step["params"] or {}) for step in steps]
        drawn = self.of("show_panel_output")[-1]["output"]
        self.drawn = json.loads(json.dumps(drawn, default=str))["type"]["properties"]
        return self.drawn

    def press(self, choice: str, drawn: Any = None) -> dict[str, Any]:
        """A button of `show_decisions`, as it was drawn last or before."""
        found = button_of(self.drawn if drawn is None else drawn, choice)
        assert found, f"no button {choice}"
        return self.send("on_decide", **found)

    def of(self, name: str) -> list[dict[str, Any]]:
        """The parameters of what the App was told to do."""
        return [params for step, params in self.sent if step == name]


def token_of(elements: Any, event: str) -> dict[str, str]:
    """The token that the drawn button of an event sends, if it has one."""
    if isinstance(elements, dict):
        if event in elements.values() and "token" in (elements.get("params") or {}):
            return {"token": elements["params"]["token"]}
        elements = list(elements.values())
    for element in elements if isinstance(elements, list) else ():
        if token := token_of(element, event):
            return token
    return {}


def button_of(elements: Any, choice: str) -> dict[str, Any]:
    """The parameters of the drawn button of a decision."""
    if isinstance(elements, dict):
        if elements.get("choice") == choice:
            return elements
        elements = list(elements.values())
    for element in elements if isinstance(elements, list) else ():
        if found := button_of(element, choice):
            return found
    return {}


def element_of(elements: Any, name: str) -> dict[str, Any]:
    """The drawn element of a name, at any depth."""
    for found, element in elements.items():
        if found == name:
            return element
        if inner := element_of((element.get("type") or {}).get("properties") or {}, name):
            return inner
    return {}


def attributes(elements: Any, name: str) -> dict[str, str]:
    """Label -> attribute of the drawn buttons that have it."""
    found = {}
    for element in elements.values():
        button = ((element.get("view") or {}).get("componentsProps") or {}).get("button") or {}
        if name in button:
            found[element["view"]["label"]] = button[name]
        found |= attributes((element.get("type") or {}).get("properties") or {}, name)
    return found


def names_in(elements: Any) -> set[str]:
    """Names of all elements, at any depth."""
    names = set()
    for name, element in elements.items():
        inner = (element.get("type") or {}).get("properties") or {}
        names |= {name} | names_in(inner)
    return names


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    """Ten samples, eight of them audited; the worst has a hostile caption."""
    dataset = make_dataset(10, caption=lambda row: HOSTILE if row == 7 else f"number {row}")
    view = dataset[:8]
    fio.write_result(view, made_up(view.values("id")), config.AuditConfig(text="caption"))
    yield dataset
    decisions.ledger().delete_many({"dataset": dataset._doc.id})


def test_without_an_audit_it_offers_one_and_with_two_the_newer(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    app = App(dataset)
    assert set(app.send("on_load")) == {"start", "begin", "cross_modal"}
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
    slide = {"path": "overview.misaligned.threshold_misaligned", "value": 3.0}
    app.send("on_slide", **slide)
    assert not app.of("set_view")  # the App tells the default too
    drawn = app.send("on_slide", **{**slide, "value": 2.0})
    assert "audit_misalignment" in json.dumps(app.of("set_view"))
    assert "set_misaligned" in names_in(drawn)
    assert "**4 samples** with a score of 2.00 or higher" in json.dumps(drawn)
    drawn = app.send("on_set", kind="misaligned")
    assert len(dataset.match_tags("audit:misaligned")) == 4
    assert "reset_misaligned" in names_in(drawn)
    app.send("on_reset", kind="misaligned")
    assert len(dataset.match_tags("audit:misaligned")) == 3
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
    estimated = {"pairs": 3, "pairs_interval": [2, 4], "precision": 1.0, "precision_interval": [0.75, 1.0]}
    summary = {**result.summary, "estimated": {**estimated, "good_above": good_above}}
    fio.write_result(dataset, replace(result, summary=summary), config.AuditConfig())
    app = App(dataset)

    def of_report() -> dict[str, str]:
        return dict(misaligned_lines(review_report(dataset, "audit")))

    flagged = int(flag_quality(dataset, "audit").flagged)
    drawn = json.dumps(app.send("on_load"))
    own = "Wrong in the whole set: about 3 (2 to 4). Wrong among the flagged: 100% (75% to 100%). (Model-based, 90%"
    assert own in drawn
    assert f"**{flagged} samples** with a score of" in drawn
    assert "; about 0 of them are probably correct" in drawn
    assert of_report()["estimated precision"] == "100% (75% to 100%)"
    drawn = json.dumps(app.send("on_slide", path="overview.misaligned.threshold_misaligned", value=1.0))
    assert own in drawn  # of what is flagged
    assert "**4 samples** with a score of 1.00 or higher; about 2 of them are probably correct" in drawn  # .25 / .5
    drawn = json.dumps(app.send("on_set", kind="misaligned"))
    assert "Wrong among the flagged: 50% (25% to 60%)." in drawn
    assert "about 2 of them are probably correct" in drawn
    lines = of_report()
    assert (lines["estimated wrong pairs"], lines["estimated precision"]) == ("about 3 (2 to 4)", "50% (25% to 60%)")

    foo.get_operator("@multimem/audit/start_spot_check")(dataset, "audit", 8)
    for name, caption in fio.spot_check(dataset, "audit").queue.rows:
        kind = "remove" if name in ids[5:] else "keep"
        fio.record_spot_check(dataset, "audit", (name, caption), kind)
    drawn = json.dumps(app.send("on_load"))
    assert "Wrong in the whole set: about 3 (3 to 3). Wrong among the flagged: 75% (75% to 75%). (Spot check" in drawn
    assert "about 1 of them is probably correct" in drawn
    assert of_report()["estimated precision"] == "75% (75% to 75%)"
    app.send("on_slide", path="overview.misaligned.threshold_misaligned", value=3.0)
    drawn = json.dumps(app.send("on_set", kind="misaligned"))  # of these flags the check says nothing
    assert "Wrong in the whole set: about 3 (3 to 3). The spot check was of other flags: start a new one" in drawn
    assert "probably correct" not in drawn
    assert of_report()["estimated precision"] == "not known"
    assert of_report()["estimated wrong pairs"] == "about 3 (3 to 3)"


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
    app.send("on_bar", path="plots.hist_misalignment", idx=0)
    assert "audit_misalignment" in json.dumps(app.of("set_view"))
    app.send("on_lasso", data=[])
    assert not app.of("set_view")
    app.send("on_lasso", data=[{"id": name} for name in dataset.values("id")[:2]])
    assert dataset.values("id")[1] in json.dumps(app.of("set_view"))


def test_the_queue_decides_relabels_and_takes_back(dataset: Any) -> None:
    app, ids = App(dataset), dataset.values("id")
    app.send("on_load")
    drawn = app.send("on_tab", value="queue")
    assert app.state["row"] == [ids[7], 0]  # the worst
    text = json.dumps(drawn)
    assert "**0 of 4** decided" in text
    hostile = drawn["queue"]["type"]["properties"][f"case_{ids[7]}_0"]["type"]["properties"]["pair"]
    caption = hostile["type"]["properties"]["texts"]["type"]["properties"]["caption"]
    assert caption["view"]["name"] == "LabelValueView"  # plain text, no markdown
    assert not {"\x07", "\u202e"} & set(caption["default"])
    pressed = app.drawn
    app.press("keep", pressed)
    app.press("keep", pressed)  # the second event of one click
    assert dataset[ids[7]].audit_decision == "keep"
    assert len(decisions.decisions(dataset)) == 1
    row = app.state["row"]
    app.press("typed")
    assert app.of("notify")[0]["variant"] == "warning"
    app.state["queue"] = {"edit": {f"typed_{row[0]}_0": "what it shows", f"note_{row[0]}_0": "seen twice"}}
    drawn = app.press("typed")
    assert "**2 of 4** decided" in json.dumps(drawn)
    last = decisions.decisions(dataset)[-1]
    assert (last.text, last.note, last.sample) == ("what it shows", "seen twice", row[0])
    assert 0 <= last.seconds < 600
    drawn = app.send("on_undo_last")
    assert app.state["row"] == row
    assert "**1 of 4** decided" in json.dumps(drawn)
    app.send("on_previous")
    assert app.state["row"] == [ids[7], 0]
    assert "Decided: **keep**" in json.dumps(app.send("on_tab", value="queue"))
    app.send("on_kind", value="duplicate")
    assert app.state["row"][0] in ids[:2]


def test_a_button_decides_on_its_own_row_whatever_the_panel_shows_by_then(dataset: Any) -> None:
    """After a threshold was set the queue may not have the row that the state names."""
    app, ids = App(dataset), dataset.values("id")
    app.send("on_load")
    app.send("on_tab", value="queue")
    app.send("on_tab", value="overview")
    app.send("on_slide", path="overview.misaligned.threshold_misaligned", value=3.5)
    app.send("on_slide", path="overview.misaligned.threshold_misaligned", value=3.4)
    app.send("on_set", kind="misaligned")
    app.state["row"] = [ids[9], 0]  # no finding
    drawn = app.send("on_tab", value="queue")
    shown = button_of(drawn, "remove")["row"]
    assert shown != [ids[9], 0]
    app.press("remove")
    (made,) = decisions.decisions(dataset)
    assert (made.sample, made.kind) == (shown[0], "remove")
    assert button_of(app.drawn, "remove")["row"] != shown
    first = button_of(app.drawn, "keep")["row"]
    app.state["row"] = [ids[9], 0]
    app.send("on_next")
    assert button_of(app.drawn, "keep")["row"] != first


def test_a_decision_that_was_not_seen_is_never_replaced_without_asking(dataset: Any) -> None:
    """Two tabs show the same row; the second one's button is refused aloud, and then replaces what it shows."""
    first, second = App(dataset), App(dataset)
    for tab in (first, second):
        tab.send("on_load")
        tab.send("on_tab", value="queue")
    row = first.state["row"]
    first.press("remove")
    second.press("keep")
    assert [made.kind for made in decisions.decisions(dataset)] == ["remove"]
    (told,) = second.of("notify")
    assert told["variant"] == "warning"
    assert "decided meanwhile: remove" in told["message"]
    assert second.state["row"] == row
    assert "Decided: **remove**" in json.dumps(second.drawn)
    second.press("keep")
    assert [made.kind for made in decisions.decisions(dataset)] == ["remove", "keep"]
    assert second.state["row"] != row
    first.send("on_undo_last")
    second.send("on_previous")
    first.send("on_undo_last")
    second.press("remove")
    assert "undone meanwhile" in second.of("notify")[0]["message"]


def test_a_sample_without_findings_is_guarded_as_well(dataset: Any) -> None:
    """It is in no queue, but the panel beside it decides on it, and another tab may have done so."""
    ids = dataset.values("id")
    first, second = (App(dataset, "@multimem/audit/audit_sample") for _ in range(2))
    for tab in (first, second):
        tab.send("on_load")
        tab.sample = ids[6]
        assert "no finding" in json.dumps(tab.send("on_change_current_sample"))
    first.press("remove")
    second.press("keep")
    assert [made.kind for made in decisions.decisions(dataset)] == ["remove"]
    assert "decided meanwhile: remove" in second.of("notify")[0]["message"]
    assert "Decided: **remove**" in json.dumps(second.drawn)
    second.press("keep")
    assert [made.kind for made in decisions.decisions(dataset)] == ["remove", "keep"]


def test_a_button_of_the_spot_check_decides_in_it_whatever_is_chosen_by_then(dataset: Any) -> None:
    """And one of the queue never counts as blind."""
    foo.get_operator("@multimem/audit/start_spot_check")(dataset, "audit", 4)
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    of_queue = app.drawn
    app.send("on_kind", value="spot check")
    of_check = app.drawn
    app.send("on_kind", value="misaligned")
    row = button_of(of_check, "keep")["row"]
    app.press("keep", of_check)
    assert [(made.sample, made.source) for made in decisions.decisions(dataset)] == [(row[0], "spot-check")]
    app.send("on_kind", value="spot check")
    shown = button_of(of_queue, "remove")
    if shown["row"] != row:
        app.press("remove", of_queue)
        assert decisions.decisions(dataset)[-1].source != "spot-check"
        assert decisions.decisions(dataset)[-1].sample == shown["row"][0]
    app.send("on_decide", **{**button_of(app.drawn, "keep"), "kind": "worst"})
    assert "choose one of" in json.dumps(app.of("notify"))


def test_a_row_whose_decision_was_undone_elsewhere_stays(dataset: Any) -> None:
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    row = app.state["row"]
    app.press("keep")
    app.send("on_previous")
    assert app.state["row"] == row
    decisions.undo_last(dataset)
    app.send("on_change_current_sample")
    assert app.state["row"] == row
    assert "Decided" not in json.dumps(app.drawn)
    app.press("remove")
    assert not [notice for notice in app.of("notify") if notice["variant"] == "warning"]
    assert decisions.decisions(dataset)[-1].kind == "remove"


def test_an_open_sample_disturbs_no_panel_without_an_audit(make_dataset: Callable[..., Any]) -> None:
    app = App(make_dataset(3))
    app.send("on_load")
    app.send("on_tab", value="queue")
    app.sample = app.dataset.first().id
    app.send("on_change_current_sample")
    assert not app.of("notify")


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


def test_the_panel_leaves_what_was_decided_beside_the_open_sample(dataset: Any) -> None:
    app, ids = App(dataset), dataset.values("id")
    app.send("on_load")
    app.send("on_tab", value="queue")
    row = app.state["row"]
    decisions.decide(dataset, row[0], "remove", "audit")
    app.sample = ids[0]
    app.send("on_change_current_sample")
    assert app.state["row"] != row
    assert "**1 of 4** decided" in json.dumps(app.drawn)
    shown = app.state["row"]
    app.send("on_previous")
    assert app.state["row"] == row  # a decided row can be looked at, and stays
    app.send("on_change_current_sample")
    assert app.state["row"] == row
    assert shown != row


CHOICES = ("keep", "remove", "unsure", "skip")
STEPS = (*CHOICES, "on_next", "on_previous", "on_undo_last", "on_change_current_sample", "key")


@hypothesis.settings(deadline=None, max_examples=12, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(STEPS)), min_size=1, max_size=12))
def test_any_sequence_of_two_tabs_and_keys_is_the_ledger_or_told(dataset: Any, steps: list[tuple[int, str]]) -> None:
    """A press adds exactly its decision on the row that its button showed, or a warning is shown and nothing added."""
    decisions.ledger().delete_many({"dataset": dataset._doc.id})
    tabs = [App(dataset), App(dataset)]
    for tab in tabs:
        tab.send("on_load")
        tab.send("on_tab", value="queue")
    for number, step in steps:
        tab, before = tabs[number], decisions.decisions(dataset)
        if step == "key":  # in the modal
            decisions.decide(
                dataset, tab.state["row"][0] if tab.state["row"] else dataset.first().id, "unsure", "audit"
            )
        elif step.startswith("on_"):
            tab.send(step)
        elif shown := button_of(tab.drawn, step):
            tab.press(step)
            added = decisions.decisions(dataset)[len(before) :]
            told = [notice for notice in tab.of("notify") if notice["variant"] == "warning"]
            assert [(made.sample, made.caption, made.kind) for made in added] == (
                [] if told else [(*shown["row"], step)]
            )
            assert len(told) <= 1


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


def test_a_spot_check_is_blind_and_its_estimate_replaces_the_audit_s(dataset: Any) -> None:
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    drawn = app.send("on_kind", value="spot check")
    assert "draw" in names_in(drawn)
    assert "keep" not in names_in(drawn)
    app.send("on_open_form", operator="start_spot_check")
    assert app.of("prompt_user_for_operation")[0]["operator_uri"] == "@multimem/audit/start_spot_check"
    foo.get_operator("@multimem/audit/start_spot_check")(dataset, "audit", 4)
    drawn = app.send("on_form_done")
    assert "**0 of 4** decided" in json.dumps(drawn)
    assert not {"scores", "reason", "suggested"} & names_in(drawn)  # nothing that leads
    while app.state["row"]:
        drawn = app.press("remove")
    assert "draw" in names_in(drawn)
    assert "wrong among the flagged 100% (" in json.dumps(drawn)
    assert {d.source for d in decisions.decisions(dataset)} == {"spot-check"}
    overview = json.dumps(app.send("on_tab", value="overview"))
    assert "Wrong among the flagged: 100% (" in overview
    assert "(Spot check, 90% intervals.)" in overview


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


def test_the_panel_beside_an_open_sample_decides_and_goes_on(dataset: Any) -> None:
    ids = dataset.values("id")
    app = App(dataset, "@multimem/audit/audit_sample")
    assert set(app.send("on_load")) == {"none"}
    app.sample = ids[7]
    drawn = app.send("on_change_current_sample")
    assert {f"case_{ids[7]}_0", "keep", f"typed_{ids[7]}_0"} <= names_in(drawn)
    app.state["edit"] = {f"typed_{ids[7]}_0": "what it shows"}
    app.press("typed")
    assert app.of("open_sample")[0]["id"] == fio.queue_of(dataset, "audit").left[0][0] != ids[7]
    assert decisions.decisions(dataset)[-1].text == "what it shows"
    app.sample = ids[6]  # without a finding it can be decided as well
    assert "no finding" in json.dumps(app.send("on_change_current_sample"))
    app.sample = ids[9]  # came after the audit
    assert "keep" in names_in(app.send("on_change_current_sample"))


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


def helpers(module: str) -> Any:
    """A module of the plugin, as FiftyOne loaded it."""
    return sys.modules[type(foo.get_operator(URI)).__module__.rpartition(".")[0] + f".{module}"]


def test_texts_are_whole_sentences_where_a_number_is_missing() -> None:
    panel_review, panel_case = helpers("panel_review"), helpers("panel_case")
    unknown, wrong = Interval(math.nan, math.nan, math.nan), Interval(12.0, 4.0, 20.0)
    estimate = SimpleNamespace(reviewed=10, confidence=0.9, precision=unknown, wrong=wrong)
    text = panel_review.spot_check_text(SimpleNamespace(estimate=lambda: estimate))
    assert text.endswith("(10 decided, 90% intervals): about 12 samples of the whole set are wrong (4 to 20).")
    estimate.wrong = unknown
    text = panel_review.spot_check_text(SimpleNamespace(estimate=lambda: estimate))
    assert text.endswith(": too few labels to tell.")
    assert helpers("forms")._minutes_text(1.3) == "1 minute"
    assert panel_case.score_line("multimem", 0.69, 299 / 300).endswith(" 0.69, higher than 99% of the set")
    assert panel_case.score_line("multimem", 0.69, 0.29).endswith(" 0.69, higher than 29% of the set")


def test_only_pictures_are_drawn_as_images() -> None:
    drawn = {}
    for media in ("image", "video", "audio", "unknown"):
        parent = foo.types.Object()
        helpers("panel_case").show_file(parent, "file", f"/a.{media}", media, "90px")
        drawn[media] = type(parent.properties["file"].view).__name__ if parent.properties else ""
    assert drawn == {"image": "ImageView", "video": "MediaPlayerView", "audio": "", "unknown": ""}


def test_stages_are_shares_of_the_work_that_is_done(dataset: Any) -> None:
    scan = foo.get_operator("@multimem/audit/scan_new").stages(dataset, {})
    assert list(scan) == ["read", "encode image", "encode text", "score", "write"]
    index = foo.get_operator("@multimem/audit/index_audit").stages(dataset, {"run": "audit", "modality": "image"})
    assert list(index) == ["read", "encode image"]
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


def test_words_that_a_suggestion_changes_are_marked_and_hostile_ones_are_inert() -> None:
    words = helpers("panel_words")
    assert words.word_changes("a red  hat", "a blue hat today") == [
        ("same", "a"),
        ("removed", "red"),
        ("added", "blue"),
        ("same", "hat"),
        ("added", "today"),
    ]
    assert words.word_changes("", "new words") == [("added", "new words")]
    assert words.word_changes("gone", "") == [("removed", "gone")]
    assert words.word_changes("as it is", "as  it\nis") == [("same", "as it is")]
    assert [words.cut("12345", most) for most in (6, 5, 4)] == ["12345", "12345", "123…"]
    assert words.changes_text("a red hat", "a blue hat", 100) == "a ~~red~~ **blue** hat"
    assert words.changes_text("one two three", "four five six", 100) == "four five six"  # another caption
    assert words.changes_text("a b c d", "a b c e f", 7) == "a b c ~~d~~ **e**"  # what follows is cut off
    for hostile in (HOSTILE, "~~x~~ **y**", "*", "~~", "![i](http://e.example/i.png)", "<b>", "http://e.example"):
        shown = words.changes_text(f"the same words and {hostile}", f"the same words or {hostile} here {hostile}", 600)
        bare = re.sub(r"\\.", "", shown)  # without what is escaped
        assert re.findall(r"~~|\*\*", bare) == ["~~", "~~", "**", "**", "**", "**"], shown
        assert not re.search(r"[<>!\[\]`]|://", bare), shown


def test_a_caption_is_edited_in_a_field_that_holds_it_and_nothing_else_counts_as_a_relabel(dataset: Any) -> None:
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    app.press("keep")  # of the hostile one
    name, _ = app.state["row"]
    field = element_of(app.drawn, f"typed_{name}_0")
    assert field["view"]["componentsProps"]["field"]["defaultValue"] == dataset[name].caption
    assert field.get("default") is None  # which would be sent with each event
    made = decisions.decisions(dataset)
    present = dataset[name].caption
    for typed in (None, "", "  ", present, f" {present}\n", present.replace(" ", "  ")):
        app.state["queue"] = {"edit": {} if typed is None else {f"typed_{name}_0": typed}}
        app.press("typed")
        (told,) = app.of("notify")
        assert told["variant"] == "warning"
        assert repr(present) in told["message"]
        assert ("empty" in told["message"]) == (typed is not None and not typed.strip())
        assert app.state["row"] == [name, 0]
    assert decisions.decisions(dataset) == made
    app.state["queue"] = {"edit": {f"typed_{name}_0": "half typed"}}
    drawn = app.send("on_tab", value="queue")
    assert element_of(drawn, f"typed_{name}_0")["view"]["componentsProps"]["field"]["defaultValue"] == "half typed"
    for state in ({"edit": "x"}, {"edit": {f"typed_{name}_0": 3}}, {"edit": {"classes": 4}}):
        app.state["queue"] = state  # from a browser that sends anything
        app.press("typed")
        assert app.of("notify")
        app.send("on_previous")
        app.send("on_next")
    assert decisions.decisions(dataset) == made
    app.state["queue"] = {"edit": {f"typed_{name}_0": f"{present} today\n"}}
    app.press("typed")
    assert decisions.decisions(dataset)[-1].text == f"{present} today"


def test_a_long_caption_is_never_cut_by_editing_it(make_dataset: Callable[..., Any]) -> None:
    words = helpers("panel_words")
    assert words.editable("two  words\nand a line \u202e") == "two words\nand a line"
    assert words.editable("x" * words.MOST_EDITED) == "x" * words.MOST_EDITED
    assert words.editable("x" * (words.MOST_EDITED + 1)) == ""
    dataset = make_dataset(8, caption=lambda row: f"{row}" * (words.MOST_EDITED + 1))
    fio.write_result(dataset, made_up(dataset.values("id")), config.AuditConfig(text="caption"))
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    app.press("typed")
    assert app.of("notify")[0]["variant"] == "warning"
    assert not decisions.decisions(dataset)
    app.press("keep")
    assert len(decisions.decisions(dataset)) == 1


def test_keys_are_on_the_buttons_that_they_press(dataset: Any) -> None:
    app = App(dataset)
    app.send("on_load")
    drawn = app.send("on_tab", value="queue")
    assert attributes(drawn, "data-audit-key") == {
        "Keep (1)": "1",
        "Remove (2)": "2",
        "Skip (4)": "4",
        "Unsure (5)": "5",
        "Relabel (Enter)": "Enter",
        "Previous (b)": "b",
        "Next (n)": "n",
        "Undo (u)": "u",
    }
    before = {*attributes(drawn, "data-audit-drawn").values()}
    after = {*attributes(app.send("on_next"), "data-audit-drawn").values()}
    assert before.isdisjoint(after)  # each drawing can be told from the one before


def test_a_list_says_which_caption_is_in_question_and_what_is_removed(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    dataset.clear_sample_field("caption")
    dataset.delete_sample_field("caption")
    dataset.set_values("captions", [[f"first {row}", f"second {row}"] for row in range(8)])
    written(dataset, (4, 1), text="captions")
    app = App(dataset)
    app.send("on_load")
    drawn = app.send("on_tab", value="queue")
    name, caption = app.state["row"]
    assert f'"Caption {caption + 1} of 2"' in json.dumps(drawn)
    assert element_of(drawn, "remove")["view"]["label"] == "Remove caption (2)"
    decisions.decide(dataset, [(name, 1 - caption)], "remove")
    drawn = app.send("on_tab", value="queue")
    assert element_of(app.send("on_change_current_sample"), "remove")["view"]["label"] == "Remove sample (2)"
    app.press("remove")
    (change,) = fio.plan_of(dataset).changes
    assert (change.sample, change.kind) == (name, "removed")  # as the button said


def test_a_class_is_chosen_from_the_classes_and_a_new_one_is_asked_for(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    dataset.set_values("kind", [fo.Classification(label=("cat", "dog")[row % 2]) for row in range(8)])
    written(dataset, (4, 1), text="kind")
    app = App(dataset)
    app.send("on_load")
    drawn = app.send("on_tab", value="queue")
    name, _ = app.state["row"]
    field = element_of(drawn, f"typed_{name}_0")
    assert [choice["value"] for choice in field["view"]["choices"]] == ["cat", "dog"]
    assert '"Class"' in json.dumps(drawn)

    def relabel(text: str, is_new: bool = False) -> list[dict[str, Any]]:
        fields = {f"typed_{name}_0": text, f"new_{name}_0": is_new}
        app.state["queue"] = {"edit": {"classes": fields}}
        app.press("typed")
        return [told for told in app.of("notify") if told["variant"] == "warning"]

    assert "'lynx' is not among the 2 classes" in relabel("lynx")[0]["message"]
    assert "present one: 'cat'" in relabel("cat", is_new=True)[0]["message"]
    assert not decisions.decisions(dataset)
    assert not relabel("lynx", is_new=True)
    name, _ = app.state["row"]
    assert not relabel("cat")
    assert [made.text for made in decisions.decisions(dataset)] == ["lynx", "cat"]
