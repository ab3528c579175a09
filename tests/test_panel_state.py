"""A decision changes nothing in the browser but what is drawn: the App reads its page again for each new state."""

from __future__ import annotations

from typing import Any

import pytest

from tests.panel_fixtures import App, button_of, dataset, element_of, names_in  # noqa: F401 (a fixture)


@pytest.fixture
def queue(dataset: Any) -> App:  # noqa: F811
    """The queue of four findings."""
    app = App(dataset)
    app.send("on_load")
    app.send("on_tab", value="queue")
    return app


@pytest.mark.parametrize("choice", ["keep", "remove", "skip", "unsure"])
def test_a_decision_changes_no_state_of_the_browser(queue: App, choice: str) -> None:
    rows = [queue.row]
    for _ in range(3):
        queue.press(choice)
        assert not queue.of("patch_panel_state"), choice
        rows.append(queue.row)
    assert len({tuple(row) for row in rows}) == len(rows), "each decision goes on"


@pytest.mark.parametrize("event", ["on_change_current_sample", "on_tick", "on_load"])
def test_events_that_the_app_sends_on_its_own_show_the_same_row(queue: App, event: str) -> None:
    for step in ("keep", "remove", "on_next", "unsure", "on_previous", "keep"):
        if step.startswith("on_"):
            queue.send(step, **moved_from(queue))
        else:
            queue.press(step)
        shown = queue.row
        if event == "on_tick":
            queue.state["jobs"] = ["a run that has ended"]
        queue.send(event)
        assert queue.of("show_panel_output")
        assert queue.row == shown, step


def test_buttons_go_on_from_the_row_that_they_are_drawn_beside(queue: App) -> None:
    first = queue.row
    queue.press("keep")
    second = queue.row
    queue.send("on_history", **moved_from(queue))
    assert queue.row == second
    queue.send("on_next", **moved_from(queue))
    third = queue.row
    assert third not in (first, second)
    queue.send("on_previous", **moved_from(queue))
    assert queue.row == second
    queue.send("on_previous", **moved_from(queue))
    assert queue.row == first  # decided, and looked at again
    queue.press("remove")
    assert queue.row == second
    queue.send("on_open", **moved_from(queue))
    assert [params["id"] for params in queue.of("open_sample")] == [second[0]]


def test_a_row_whose_decision_was_undone_elsewhere_is_shown_again(queue: App) -> None:
    first, other = queue.row, App(queue.dataset)
    queue.press("keep")
    assert queue.row != first
    other.send("on_load")
    other.send("on_tab", value="queue")
    other.send("on_undo_last")
    queue.send("on_change_current_sample")
    assert queue.row == first


def test_what_is_skipped_again_and_again_goes_round(queue: App) -> None:
    rows = []
    for _ in range(9):
        rows.append(queue.row)
        queue.press("skip")
        shown = queue.row
        queue.send("on_change_current_sample")
        assert queue.row == shown
    assert rows[:4] == rows[4:8]
    assert rows[8] == rows[0]


def test_buttons_beside_a_row_that_was_decided_elsewhere_are_of_that_row(queue: App) -> None:
    rows = rows_of(App(queue.dataset))
    queue.press("keep")
    other = App(queue.dataset)
    other.send("on_load")
    other.send("on_tab", value="queue")
    assert other.row == queue.row == rows[1]
    other.press("remove")
    beside = moved_from(queue)
    queue.send("on_open", **beside)
    assert [params["id"] for params in queue.of("open_sample")] == [rows[1][0]]
    queue.send("on_next", **beside)
    assert queue.row == rows[2]
    queue.send("on_previous", **moved_from(queue))
    assert queue.row == rows[1]
    queue.send("on_previous", **moved_from(queue))
    assert queue.row == rows[0]


def test_the_second_event_of_one_click_draws_nothing(queue: App) -> None:
    queue.press("keep")
    before, button = dict(queue.state), button_of(queue.drawn, "remove")
    other = App(queue.dataset)
    other.send("on_load")
    other.send("on_tab", value="queue")
    other.press("unsure")
    queue.send("on_decide", **button)  # refused: decided meanwhile
    shown, after = queue.row, queue.state
    queue.state = before  # as it was when the click was made
    queue.send("on_decide", **button)
    assert queue.sent == []
    queue.state = after
    assert queue.row == shown == button["row"]


def test_a_decision_is_timed_from_when_its_row_was_drawn_first(queue: App) -> None:
    since = button_of(queue.drawn, "keep")["since"]
    queue.send("on_history", **moved_from(queue), since=since)
    assert button_of(queue.drawn, "keep")["since"] == since
    queue.press("keep")
    assert button_of(queue.drawn, "keep")["since"] > since


def test_sliders_keep_their_thresholds_beside_each_other_and_of_their_audit_alone(queue: App) -> None:
    queue.send("on_tab", value="overview")
    queue.slide("misaligned", 2.0)
    queue.slide("memorized", -1.5)
    assert queue.state["thresholds"] == {"misaligned": 2.0, "memorized": -1.5}
    assert {"set_misaligned", "set_memorized"} <= names_in(queue.drawn)
    before = queue.drawn
    for event in ("on_slide", "on_rest"):
        queue.send(event, kind="misaligned", run="another", value=3.0)
        assert queue.sent == []
    button = element_of(before, "set_misaligned")["view"]["params"]
    queue.send("on_set", **{**button, "run": "another"})
    assert "out of date" in queue.of("notify")[0]["message"]
    assert queue.state["thresholds"] == {"misaligned": 2.0, "memorized": -1.5}


def rows_of(app: App) -> list[list[Any]]:
    """The rows of the queue, in order."""
    app.send("on_load")
    app.send("on_tab", value="queue")
    rows = [app.row]
    for _ in range(3):
        app.send("on_next", **moved_from(app))
        rows.append(app.row)
    return rows


def moved_from(app: App) -> dict[str, Any]:
    """The parameters of the buttons *Previous* and *Next* as they are drawn."""
    return {"row": app.row, "seen": button_of(app.drawn, "keep")["seen"]}
