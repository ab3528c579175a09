"""The reviewer's name, redo and the last decisions, in a browser. Screenshots are kept in artifacts/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests import browsing
from tests.browsing import SIZES, App, assert_in_sight, assert_nothing_is_cut_off, need_browser, press, settle, shot

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
size = browsing.each_size(SIZES[:1])
FLAGGED = (4, 1, 6, 8, 9, 11, 12, 15)
PREPARED = browsing.flagging(FLAGGED)
LEDGER = """
from audit_plugin.fiftyone_io import decisions
dataset = fo.load_dataset(name)
ids = dataset.values("id")
result = [(ids.index(made.sample), made.kind, made.reviewer) for made in decisions(dataset)]
"""
HOSTILE = "<b>ann</b> & **bob**"


@pytest.fixture(scope="module")
def app() -> App:
    app = browsing.serve()
    browsing.make_dataset(app, "history", browsing.persons(120)[:20], PREPARED)
    return app


@pytest.fixture
def name(app: App, size: tuple[int, int]) -> str:
    return browsing.copy_dataset(app, "history", f"history-{size[0]}")


@pytest.fixture
def page(app: App, name: str, chromium: Any, size: tuple[int, int]) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, name, *size)


def shown(panel: Any) -> str:
    return str(panel.get_by_text("Caption:").first.locator("xpath=..").inner_text())


def test_the_name_is_asked_once_and_the_last_decisions_can_be_changed(app: App, name: str, page: Any) -> None:
    panel = browsing.open_panel(page)
    browsing.open_tab(panel, "Queue", panel.get_by_role("button", name="Keep (1)"))
    settle(page)
    first = shown(panel)
    press(page, "ArrowRight")  # the tab that was clicked leaves the arrows to the queue
    assert shown(panel) != first
    press(page, "ArrowLeft")
    assert shown(panel) == first
    give_a_name(page, panel)
    assert app.do(LEDGER, name=name) == []
    for key in ("2", "1", "5"):
        press(page, key)
    press(page, panel.get_by_role("button", name="Skip (4)", exact=True))
    made = [(row, kind, HOSTILE) for row, kind in zip(FLAGGED, ("remove", "keep", "unsure", "skip"), strict=False)]
    assert app.do(LEDGER, name=name) == made
    for key in ("u", "u", "y", "y", "d"):
        press(page, key)
    assert [kind for _, kind, _ in app.do(LEDGER, name=name)][4:] == ["undone"] * 4
    line = panel.get_by_role("button", name="Remove ·").first
    look_at_the_list(page, panel, line)
    again = panel.get_by_text("Decided: remove")
    browsing.retry(lambda: line.click(timeout=5000), lambda: again.wait_for(timeout=5000))
    assert shown(panel) == first
    expect(line).to_be_hidden()
    press(page, "1")
    assert app.do(LEDGER, name=name)[-1] == (FLAGGED[0], "keep", HOSTILE)
    page.reload()
    panel = page.locator('[data-cy="panel-content-audit_panel"]')
    panel.wait_for()
    change_the_name(page, panel)
    sign_in_the_modal(app, name, page, panel)


def give_a_name(page: Any, panel: Any) -> None:
    """Keys are typed into the field; Escape leaves it, Enter saves."""
    field = panel.get_by_label("Your name")
    field.click()
    page.keyboard.type("1u nobody")
    page.keyboard.press("Escape")
    expect(field).to_have_value("")
    field.click()
    page.keyboard.type(HOSTILE)
    page.keyboard.press("Enter")
    expect(panel.locator('[data-cy="audit-reviewer"]')).to_have_text(f"Reviewer:{HOSTILE}")
    page.wait_for_timeout(500)


def change_the_name(page: Any, panel: Any) -> None:
    """After a reload the browser has it still; a click on it changes it."""
    named = panel.locator('[data-cy="audit-reviewer"]')
    expect(named).to_have_text(f"Reviewer:{HOSTILE}")
    field = panel.get_by_label("Your name")
    browsing.retry(lambda: named.locator("button").click(timeout=5000), lambda: field.wait_for(timeout=5000))
    field.fill("cid")
    page.keyboard.press("Enter")
    expect(named).to_have_text("Reviewer:cid")


def look_at_the_list(page: Any, panel: Any, line: Any) -> None:
    expect(line).to_contain_text(HOSTILE)
    for theme in ("dark", "light"):
        if theme == "light":
            page.get_by_title("Light mode").click()
            page.wait_for_timeout(1000)
        for button in ("Keep (1)", "Unsure (5)"):
            assert_in_sight(page, panel.get_by_role("button", name=button, exact=True), button)
        assert_nothing_is_cut_off(panel, "history")
        shot(page, f"history-{page.viewport_size['width']}-{theme}")
    page.get_by_title("Dark mode").click()
    page.wait_for_timeout(500)


def sign_in_the_modal(app: App, name: str, page: Any, panel: Any) -> None:
    """A key on an open sample is signed too, and says which caption it decided on."""
    open_button = panel.get_by_role("button", name="Open sample")
    browsing.open_tab(panel, "Queue", open_button)
    modal = page.locator('[data-cy="modal"]')
    browsing.retry(lambda: open_button.click(timeout=5000), lambda: modal.wait_for(timeout=5000))
    settle(page)
    captions = app.do("result = fo.load_dataset(name).values('caption')", name=name)
    told = page.get_by_text(re.compile(r"^Keep · \d of 8 decided")).last
    browsing.tap(page, "1")
    told.wait_for()
    said = told.inner_text()  # at once: a notice goes after seconds
    shot(page, f"history-{page.viewport_size['width']}-modal")
    row, kind, reviewer = app.do(LEDGER, name=name)[-1]
    assert (kind, reviewer) == ("keep", "cid")
    assert captions[row][:50] in said
