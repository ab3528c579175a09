"""The last decisions in the queue, undo and redo, the reviewer's name; any sequence of them against a small model."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from audit_plugin.review import Decision
from tests.operator_requests import execute, filled_in, form_of
from tests.panel_fixtures import HOSTILE, App, button_of, dataset, element_of, helpers, names_in

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
foo = pytest.importorskip("fiftyone.operators")
fio = importlib.import_module("audit_plugin.fiftyone_io")
decisions = importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions")

__all__ = ["dataset"]  # a fixture


def in_queue(dataset: Any, reviewer: str = "") -> App:
    """The panel with its tab Queue open, in the browser of a reviewer."""
    app = App(dataset)
    app.send("on_load")
    app.state |= {"head": {"reviewer": reviewer}} if reviewer else {}
    app.send("on_tab", value="queue")
    return app


def warnings_of(app: App) -> list[str]:
    return [notice["message"] for notice in app.of("notify")]


def test_the_last_decisions_are_listed_and_open_their_case_to_be_changed(dataset: Any) -> None:
    app, ids = in_queue(dataset, "ann"), dataset.values("id")
    assert "made0" not in names_in(app.drawn)
    first = app.row
    app.press("remove")
    app.state["queue"] = {"edit": {f"typed_{app.row[0]}_0": "what it shows"}}
    relabeled = app.row
    app.press("typed")
    decisions.decide(dataset, [ids[6], ids[2]], "keep", reviewer="bob")
    drawn = app.send("on_history")
    labels = [element_of(drawn, f"made{number}")["view"]["label"] for number in range(3)]
    number = ids.index(relabeled[0])
    assert labels[0] == "Keep 2 samples · number 2 · just now · bob"
    assert labels[1] == f"Relabel · number {number} → what it shows · just now · ann"
    assert labels[2].startswith("Remove · <script>alert(1)</script> **x** [y](htt…")
    assert not {"\x07", "\u202e"} & set(labels[2])
    assert "made3" not in names_in(drawn)
    app.send("on_open_decision", row=first)
    assert app.row == first
    assert "Decided: **remove** by ann" in json.dumps(app.drawn)
    app.press("keep")
    assert not warnings_of(app)
    assert dataset[first[0]].audit_decision == "keep"
    app.send("on_open_decision", row=[ids[2], 0])  # a sample without a finding
    assert button_of(app.drawn, "keep")["row"] == [ids[2], 0]
    app.press("unsure")
    assert dataset[ids[2]].audit_decision == "unsure"
    app.send("on_kind", value="duplicate")
    app.send("on_open_decision", row=first)  # no duplicate: shown among all findings
    assert (app.state["kind"], app.row) == ("all findings", first)
    app.send("on_open_decision", row=["0" * 24, 0])
    assert "not in dataset" in warnings_of(app)[0]
    assert app.row == first
    assert "made0" not in names_in(app.drawn)  # a click closes the list
    assert "made0" in names_in(app.send("on_history"))
    assert "made0" not in names_in(app.send("on_history"))


def test_a_line_of_the_list_says_what_when_and_by_whom() -> None:
    history, now = helpers("panel_history"), datetime(2026, 3, 2, 12, tzinfo=UTC)
    made = Decision("s", "keep", reviewer=HOSTILE, time=now - timedelta(minutes=5))
    line = history.line_text([made], "x" * 100, now)
    assert line.startswith(f"Keep · {'x' * 39}… · 5 min ago · <script>")
    assert not {"\x07", "\u202e"} & set(line)
    naive = datetime(2026, 3, 2, 9)  # as the database gives it
    assert [history.ago(time, now) for time in (now, naive, now - timedelta(days=2))] == [
        "just now",
        "3 h ago",
        "2026-02-28",
    ]
    assert "(no caption)" in history.line_text([made], "", now)


def test_undo_and_redo_in_the_queue_show_the_row_and_lose_nothing(dataset: Any) -> None:
    app = in_queue(dataset, "ann")
    first = app.row
    app.press("remove")
    second = app.row
    app.press("unsure")
    app.send("on_undo_last")
    app.send("on_undo_last")
    assert app.row == first
    assert dataset[first[0]].audit_decision is None
    app.send("on_redo_last")
    assert app.row == first
    assert warnings_of(app) == ["Redone: remove"]
    assert "Decided: **remove** by ann" in json.dumps(app.drawn)
    app.send("on_redo_last")
    assert app.row == second
    app.send("on_redo_last")
    assert warnings_of(app) == ["You (ann) have nothing to redo"]
    assert [d.kind for d in decisions.decisions(dataset)] == ["remove", "unsure", *["undone"] * 4]
    bob = in_queue(dataset, "bob")
    bob.send("on_undo_last")
    assert warnings_of(bob) == ["You (bob) have no decision to undo"]


def test_the_name_of_the_browser_signs_buttons_keys_and_forms(dataset: Any) -> None:
    app, ids = in_queue(dataset, " ann "), dataset.values("id")
    assert element_of(app.drawn, "kind")  # the tab is drawn
    app.press("keep")
    beside = App(dataset, "@multimem/audit/audit_sample")
    beside.send("on_load")
    beside.state["head"] = {"reviewer": "bob"}
    beside.sample = ids[6]
    beside.send("on_change_current_sample")
    assert element_of(beside.drawn, "reviewer")["view"]["component"] == "AuditReviewer"
    beside.press("remove")
    request = filled_in("decide", dataset, {"decision": "keep", "reviewer": "cid"}, current_sample=ids[5])
    execute("decide", request)
    assert [made.reviewer for made in decisions.decisions(dataset)] == ["ann", "bob", "cid"]
    assert form_of("decide", dataset)["reviewer"]["view"]["component"] == "AuditReviewer"
    app.send("on_open_form", operator="decide_flagged")
    assert app.of("prompt_user_for_operation")[0]["params"]["reviewer"] == " ann ".strip()
    for name in (3, "x" * 300, {"a": 1}):
        app.state["head"] = {"reviewer": name}
        before = decisions.decisions(dataset)
        app.press("keep")
        assert decisions.decisions(dataset) == before
        assert app.of("notify")[0]["variant"] == "error"


def test_disagreements_are_a_queue_of_their_own(dataset: Any) -> None:
    app, ids = in_queue(dataset, "cid"), dataset.values("id")
    drawn = app.send("on_kind", value="reviewers disagree")
    assert "No two reviewers disagree." in json.dumps(drawn)
    for row, kinds in ((3, ("keep", "remove")), (6, ("unsure", "keep")), (7, ("keep", "keep"))):
        for reviewer, kind in zip(("ann", "bob"), kinds, strict=True):
            decisions.decide(dataset, ids[row], kind, reviewer=reviewer)
    drawn = app.send("on_tab", value="overview")
    drawn = app.send("on_tab", value="queue")
    text = json.dumps(drawn)
    assert "**0 of 2** decided" in text
    assert "ann: unsure; bob: keep" in text
    assert app.row == [ids[6], 0]  # the latest; it has no finding
    app.press("keep")
    assert not warnings_of(app)
    assert "ann: keep; bob: remove" in json.dumps(app.drawn)
    app.press("remove")
    assert "All samples are decided" in json.dumps(app.drawn) or "**2 of 2** decided" in json.dumps(app.drawn)
    assert fio.current_decisions(dataset).current[ids[3], "", 0].reviewer == "cid"


CHOICES = ("keep", "remove", "unsure", "skip")
EVENTS = ("on_next", "on_previous", "on_change_current_sample", "on_history")
STEPS = (*CHOICES, *CHOICES, *EVENTS, "undo", "undo", "redo", "key", "threshold", "rename", "batch")
REVIEWERS = ("ann", "bob")


@dataclass
class Model:
    """What a ledger is, in a few lines: decisions in their order, and two stacks for each reviewer."""

    made: list[tuple[tuple[str, int], str, str]] = field(default_factory=list)  # row, kind, reviewer
    gone: set[int] = field(default_factory=set)  # positions that are undone
    done: dict[str, list[list[int]]] = field(default_factory=lambda: {name: [] for name in REVIEWERS})
    undone: dict[str, list[list[int]]] = field(default_factory=lambda: {name: [] for name in REVIEWERS})

    def decide(self, rows: list[tuple[str, int]], kind: str, reviewer: str) -> None:
        positions = range(len(self.made), len(self.made) + len(rows))
        self.made += [(row, kind, reviewer) for row in rows]
        self.done[reviewer].append([*positions])
        self.undone[reviewer] = []

    def revert(self, reviewer: str, redo: bool) -> bool:
        source, target = (self.undone, self.done) if redo else (self.done, self.undone)
        if not source[reviewer]:
            return False
        target[reviewer].append(source[reviewer].pop())
        self.gone ^= set(target[reviewer][-1])
        return True

    def current(self) -> dict[tuple[str, int], tuple[str, str]]:
        latest: dict[tuple[tuple[str, int], str], int] = {}
        for position, (row, _, reviewer) in enumerate(self.made):
            if position not in self.gone:
                latest[row, reviewer] = position
        by_row: dict[tuple[str, int], list[int]] = {}
        for (row, _), position in latest.items():
            by_row.setdefault(row, []).append(position)
        last = {
            row: max([at for at in positions if self.made[at][1] != "skip"] or positions)
            for row, positions in by_row.items()
        }
        return {row: self.made[at][1:] for row, at in last.items()}


PHASES = (hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate)  # to shrink takes minutes


@hypothesis.settings(deadline=None, max_examples=12, phases=PHASES, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(STEPS)), min_size=4, max_size=16))
def test_any_sequence_of_two_tabs_and_keys_is_the_model_or_told(dataset: Any, steps: list[tuple[int, str]]) -> None:
    """A step does what a small model of the ledger does, on the row that its button showed, or a notice says why."""
    decisions.ledger().delete_many({"dataset": dataset._doc.id})
    if "audit" not in dataset.list_runs():
        dataset.rename_run("renamed", "audit")
    model, tabs = Model(), [in_queue(dataset, reviewer) for reviewer in REVIEWERS]
    for number, step in steps:
        take(dataset, model, tabs[number], REVIEWERS[number], step)
        current = fio.current_decisions(dataset).current
        assert {(key[0], key[2]): (d.kind, d.reviewer) for key, d in current.items()} == model.current()
    if "audit" not in dataset.list_runs():
        dataset.rename_run("renamed", "audit")


def take(dataset: Any, model: Model, tab: App, reviewer: str, step: str) -> None:
    """One step in the App and in the model."""
    is_renamed, before = "audit" not in dataset.list_runs(), len(fio.decisions(dataset))
    if step in ("rename", "threshold", "batch"):
        change_elsewhere(dataset, model, reviewer, step, is_renamed)
    elif step == "key":
        press_in_modal(dataset, model, reviewer, is_renamed)
    elif step in ("undo", "redo"):
        tab.send(f"on_{step}_last")
        assert tab.of("notify")
        if len(fio.decisions(dataset)) > before or not is_renamed:
            assert model.revert(reviewer, step == "redo") == (len(fio.decisions(dataset)) > before)
    elif step.startswith("on_"):
        tab.send(step)
    elif shown := button_of(tab.drawn, step):
        tab.press(step)
        added = fio.decisions(dataset)[before:]
        assert len(added) + len(tab.of("notify")) >= 1, "a press was refused without a word"
        assert [(d.sample, d.caption, d.kind, d.reviewer) for d in added] in ([], [(*shown["row"], step, reviewer)])
        if added:
            model.decide([tuple(shown["row"])], step, reviewer)


def change_elsewhere(dataset: Any, model: Model, reviewer: str, step: str, is_renamed: bool) -> None:
    """The run is renamed, its threshold is moved, or a batch is decided."""
    if step == "rename":
        dataset.rename_run(*(("renamed", "audit") if is_renamed else ("audit", "renamed")))
    elif not is_renamed and step == "threshold":
        value = None if dataset.match_tags("audit:misaligned").count() > 3 else 1.5
        foo.get_operator("@multimem/audit/set_threshold")(dataset, "audit", "misaligned", value)
    elif not is_renamed and (rows := fio.batch_rows(dataset, "audit", "misaligned", "unsure")):
        decisions.decide(dataset, rows, "unsure", "audit", reviewer=reviewer)
        model.decide(list(rows), "unsure", reviewer)


def press_in_modal(dataset: Any, model: Model, reviewer: str, is_renamed: bool) -> None:
    """A key on an open sample; a second one where the first one asks."""
    sample, seen = dataset.values("id")[7], ""
    for _ in range(2):
        params = {"decision": "remove", "from_modal": True, "reviewer": reviewer, "seen": seen}
        before = len(fio.decisions(dataset))
        result, told = execute("decide", filled_in("decide", dataset, params, current_sample=sample))
        added = fio.decisions(dataset)[before:]
        assert any(step["operator_uri"].endswith("notify") for step in told)
        if added:
            model.decide([(sample, 0)], "remove", reviewer)
            return
        seen = (result or {}).get("held", "")
    assert is_renamed, "the second key decides"
