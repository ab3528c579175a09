"""A decision changes nothing in the browser but what is drawn: the App reads its page again for each new state."""

from __future__ import annotations

from typing import Any

import pytest

from tests.panel_fixtures import App, button_of, dataset  # noqa: F401 (a fixture)


@pytest.fixture
def queue(dataset: Any) -> App:  # noqa: F811
    """The queue of five findings."""
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
        queue.send(event)
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


def moved_from(app: App) -> dict[str, Any]:
    """The parameters of the buttons *Previous* and *Next* as they are drawn."""
    return {"row": app.row, "seen": button_of(app.drawn, "keep")["seen"]}
