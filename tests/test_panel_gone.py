"""Samples that are deleted and texts that change while they are reviewed: the panel says so and goes on."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.operator_requests import execute, filled_in, notices_of
from tests.panel_fixtures import App, button_of, dataset
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
foo = pytest.importorskip("fiftyone.operators")
fio = importlib.import_module("audit_plugin.fiftyone_io")

__all__ = ["dataset"]  # a fixture

KINDS = ("all findings", "misaligned", "reviewers disagree", "spot check", "calibrate")


def in_queue(dataset: Any, kind: str = "all findings") -> App:
    """The panel with its tab Queue open, in ann's browser."""
    app = App(dataset)
    app.send("on_load")
    app.state["head"] = {"reviewer": "ann"}
    app.send("on_tab", value="queue")
    app.send("on_kind", value=kind)
    return app


def messages_of(app: App) -> list[str]:
    return [notice["message"] for notice in app.of("notify")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event", ["on_undo_last", "on_redo_last"])
def test_undo_and_redo_of_a_deleted_sample_say_so_and_show_the_next_finding(
    dataset: Any, kind: str, event: str
) -> None:
    ids = dataset.values("id")
    if kind == "spot check":
        foo.get_operator("@multimem/audit/start_spot_check")(dataset, "audit", 8)
    for reviewer in ("bob", "cid"):  # they disagree on a sample that stays
        fio.decide(dataset, ids[1], "keep" if reviewer == "bob" else "remove", reviewer=reviewer)
    fio.decide(dataset, ids[7], "keep", run="audit", reviewer="ann")
    app = in_queue(dataset, kind)
    if event == "on_redo_last":
        app.send("on_undo_last")
    dataset.delete_samples([ids[7]])
    app.send(event)
    done = "Undone" if event == "on_undo_last" else "Redone"
    assert messages_of(app) == [f"{done}: keep; its sample is not in the dataset any more"]
    assert "Cannot show this panel" not in json.dumps(app.drawn)
    shown = button_of(app.drawn, "keep")["row"][0]
    assert shown in ids
    assert shown != ids[7]
    app.press("unsure")  # and the review goes on
    assert not messages_of(app)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_that_is_deleted_while_it_is_shown_is_left(dataset: Any, kind: str) -> None:
    ids = dataset.values("id")
    if kind == "spot check":
        foo.get_operator("@multimem/audit/start_spot_check")(dataset, "audit", 8)
    for row in (1, 3, 7) if kind == "reviewers disagree" else ():
        fio.decide(dataset, ids[row], "keep", reviewer="bob")
        fio.decide(dataset, ids[row], "remove", reviewer="cid")
    app = in_queue(dataset, kind)
    for _ in range(2):
        name, _ = app.row
        dataset.delete_samples([name])
        for event in ("on_change_current_sample", "on_previous", "on_next"):
            app.send(event)
            assert "Cannot show this panel" not in json.dumps(app.drawn)
            assert (button_of(app.drawn, "keep").get("row") or [""])[0] != name


def test_a_decision_opened_beside_the_queue_is_left_when_its_sample_is_deleted(dataset: Any) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, ids[6], "keep", reviewer="bob")  # without a finding
    app = in_queue(dataset)
    app.send("on_open_decision", row=[ids[6], 0])
    assert button_of(app.drawn, "keep")["row"][0] == ids[6]
    dataset.delete_samples([ids[6]])
    app.send("on_history")
    assert button_of(app.drawn, "keep")["row"][0] == ids[7]


@pytest.mark.parametrize("name", ["undo_decision", "redo_decision"])
def test_by_keyboard_no_deleted_sample_is_opened(dataset: Any, name: str) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, [ids[7], ids[3]], "keep", reviewer="ann")
    if name == "redo_decision":
        fio.undo_last(dataset, "ann")
    dataset.delete_samples([ids[7]])
    request = filled_in(name, dataset, {"from_modal": True, "reviewer": "ann"}, current_sample=ids[3])
    _, steps = execute(name, request)
    assert "of 1 of them the sample is not in the dataset any more" in notices_of(steps)[0]
    opened = [step["params"]["id"] for step in steps if step["operator_uri"].endswith("open_sample")]
    assert opened == [ids[3]]


def test_verdicts_of_a_spot_check_stay_when_their_samples_are_removed_and_deleted(
    make_dataset: Callable[..., Any],
) -> None:
    dataset = make_dataset(24)
    written(dataset, tuple(range(12)))
    check = fio.start_spot_check(dataset, "audit", 12)
    rows = check.queue.rows
    for number, row in enumerate(rows[:10]):
        fio.record_spot_check(dataset, "audit", row, "remove" if number % 2 else "keep")
    before = fio.spot_check(dataset, "audit").estimate()
    dataset.delete_samples([rows[1][0], rows[3][0], rows[11][0]])
    after = fio.spot_check(dataset, "audit")
    assert after.estimate() == before
    assert len(after.verdicts) == len(after.queue.rows) == 9
    assert after.queue.left == (rows[10],)


@pytest.mark.parametrize("many", [False, True])
def test_redo_on_a_text_that_changed_says_that_the_decision_does_not_hold(dataset: Any, many: bool) -> None:
    ids = dataset.values("id")
    names = [ids[7], ids[3]] if many else [ids[7]]
    fio.decide(dataset, names, "remove", run="audit", reviewer="ann")
    app = in_queue(dataset)
    app.send("on_undo_last")
    sample = dataset[ids[7]]
    sample["caption"] = "another caption"
    sample.save()
    app.send("on_redo_last")
    (told,) = app.of("notify")
    assert told["variant"] == "warning"
    what = "2 decisions; 1 of them does not hold" if many else "remove, but it does not hold"
    assert told["message"] == (f"Redone: {what}, since the text has changed since that decision: decide again")
    assert "Decided: **remove**" not in json.dumps(app.drawn) or app.row[0] != ids[7]
    app.send("on_undo_last")
    sample["caption"] = "one more"
    sample.save()
    request = filled_in("redo_decision", dataset, {"from_modal": True, "reviewer": "ann"}, current_sample=ids[7])
    assert "not hold, since the text has changed" in notices_of(execute("redo_decision", request)[1])[0]
