"""The keys of the queue in the panel beside the grid, in a browser. Screenshots are kept in artifacts/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import browsing
from tests.browsing import App, need_browser, press, settle, shot

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
FLAGGED = (4, 1, 6, 8, 9, 11, 12, 15)
PREPARED = browsing.flagging(FLAGGED)
LEDGER = """
from audit_plugin.fiftyone_io import decisions
dataset = fo.load_dataset(name)
ids = dataset.values("id")
result = [(ids.index(made.sample), made.kind, made.text) for made in decisions(dataset)]
"""


@pytest.fixture(scope="module")
def app() -> App:
    app = browsing.serve()
    browsing.make_dataset(app, "press", browsing.persons(120)[:20], PREPARED)
    return app


@pytest.fixture
def name(app: App, request: pytest.FixtureRequest) -> str:
    """Of the test's own copy of the dataset."""
    return browsing.copy_dataset(app, "press", f"press-{request.node.name[5:20]}")


@pytest.fixture
def page(app: App, name: str, chromium: Any) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, name, 1280, 720)


@pytest.fixture
def queue(page: Any) -> Any:
    """The panel, its tab Queue opened."""
    panel = browsing.open_panel(page)
    browsing.open_tab(panel, "Queue", panel.get_by_role("button", name="Keep (1)"))
    settle(page)
    return panel


def shown(panel: Any) -> str:
    """The caption that is in question."""
    return str(panel.get_by_text("Caption:").first.locator("xpath=..").inner_text())


def test_keys_press_the_buttons_of_the_queue(app: App, name: str, page: Any, queue: Any) -> None:
    browsing.retry(  # the App loads plugins' scripts when it likes
        lambda: page.keyboard.press("h"),
        lambda: page.get_by_role("dialog", name="Review by keyboard").wait_for(timeout=1000),
        times=60,
    )
    shot(page, "keys-1-help")
    page.keyboard.press("h")
    for key in ("1", "2", "3", "4", "5"):
        press(page, key)
    texts = [("keep", ""), ("remove", ""), ("relabel", f"better {FLAGGED[2]}"), ("skip", ""), ("unsure", "")]
    assert app.do(LEDGER, name=name) == [(row, *text) for row, text in zip(FLAGGED, texts, strict=False)]
    press(page, "u")
    assert app.do(LEDGER, name=name)[-1][:2] == (FLAGGED[4], "undone")
    first = shown(queue)
    press(page, "n")
    assert shown(queue) != first
    press(page, "b")
    assert shown(queue) == first
    queue.get_by_text("Caption:").first.click()  # a tab that was clicked takes the arrows
    press(page, "ArrowRight")
    press(page, "ArrowLeft")
    assert shown(queue) == first
    assert len(app.do(LEDGER, name=name)) == 6


def test_a_held_key_a_double_press_and_keys_for_others_decide_nothing(
    app: App, name: str, page: Any, queue: Any
) -> None:
    press(page, "n")  # by now the script is there
    drawn = queue.locator("[data-audit-drawn]").first
    before = drawn.get_attribute("data-audit-drawn")
    page.wait_for_timeout(500)
    for _ in range(12):
        page.keyboard.down("1")  # held
    page.keyboard.up("1")
    page.keyboard.press("1")  # and pressed again at once
    expect(drawn).not_to_have_attribute("data-audit-drawn", before)
    page.wait_for_timeout(2500)
    (made,) = app.do(LEDGER, name=name)
    assert made[1] == "keep"

    queue.get_by_label("Note").click()
    page.keyboard.type("1 2 u", delay=60)
    expect(queue.get_by_label("Note")).to_have_value("1 2 u")
    page.keyboard.press("Enter")  # leaves the field
    queue.get_by_role("combobox").filter(has_text="All findings").click()
    page.get_by_role("listbox").wait_for()
    page.keyboard.press("1")
    page.wait_for_timeout(800)
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_have_count(0)
    form = browsing.open_operator(page, "Decide in bulk")
    form.get_by_text("Findings").first.click()
    page.keyboard.press("1")
    page.wait_for_timeout(800)
    form.get_by_role("button", name="Cancel").click()
    expect(form).to_be_hidden()
    browsing.open_tab(queue, "Report and apply", queue.get_by_role("button", name="Export", exact=True))
    for key in "12u":
        page.wait_for_timeout(400)
        page.keyboard.press(key)
    page.wait_for_timeout(1500)
    assert app.do(LEDGER, name=name) == [made]
    browsing.open_tab(queue, "Queue", queue.get_by_role("button", name="Keep (1)"))
    settle(page)
    press(page, "2")
    app.eventually(LEDGER, lambda after: [kind for _, kind, _ in after] == ["keep", "remove"], name=name)


def test_e_edits_the_caption_enter_saves_it_and_escape_leaves_it(app: App, name: str, page: Any, queue: Any) -> None:
    press(page, "n")  # by now the script is there
    press(page, "b")
    settle(page)
    field = queue.get_by_label("New caption (e)")
    caption = field.input_value()
    assert caption in shown(queue)
    page.wait_for_timeout(500)
    browsing.edit(page, field)
    expect(field).to_have_value(caption)  # the key is not typed
    page.keyboard.press("Enter")
    page.get_by_text("The new caption is the present one").wait_for()
    expect(field).not_to_be_focused()
    assert app.do(LEDGER, name=name) == []
    page.wait_for_timeout(500)
    browsing.edit(page, field)
    page.keyboard.type(" 1")
    page.keyboard.press("Escape")
    expect(field).not_to_be_focused()
    expect(field).to_have_value(f"{caption} 1")
    page.wait_for_timeout(500)
    assert app.do(LEDGER, name=name) == []
    browsing.edit(page, field)
    page.keyboard.type("23")
    shot(page, "keys-2-edited")
    page.keyboard.press("Enter")
    expect(field).not_to_have_value(f"{caption} 123")
    (made,) = app.do(LEDGER, name=name)
    assert made[1:] == ("relabel", f"{caption} 123")
    page.wait_for_timeout(1500)  # by then the App has put the cursor somewhere
    expect(field).not_to_be_focused()
    press(page, "1")
    assert [kind for _, kind, _ in app.do(LEDGER, name=name)] == ["relabel", "keep"]


def test_an_open_sample_has_the_keys_and_escape_in_a_field_does_not_close_it(
    app: App, name: str, page: Any, queue: Any
) -> None:
    press(page, "n")
    modal = page.locator('[data-cy="modal"]')
    press(page, "b")
    queue.get_by_role("button", name="Open sample").click()
    modal.wait_for()
    beside = modal.locator('[data-cy="panel-content-audit_sample"]')
    tab, keep = modal.get_by_text("Audit", exact=True).first, beside.get_by_role("button", name="Keep (1)")
    browsing.retry(lambda: tab.click(timeout=5000), lambda: keep.wait_for(timeout=10_000))
    settle(page)
    field = beside.get_by_label("New caption (e)")
    browsing.edit(page, field)
    page.keyboard.press("Escape")
    expect(field).not_to_be_focused()
    expect(modal).to_be_visible()
    shot(page, "keys-3-modal")
    before = page.url
    browsing.tap(page, "5")
    page.wait_for_url(lambda url: url != before)
    (made,) = app.do(LEDGER, name=name)
    assert made == (4, "unsure", "")
    settle(page)
    before, refused = page.url, page.get_by_text("The new caption is the present one").last

    def save_unchanged() -> None:
        browsing.edit(page, field)
        page.keyboard.press("Enter")

    browsing.retry(save_unchanged, lambda: refused.wait_for(timeout=5000))  # nothing was changed, and the keys go on
    settle(page)
    browsing.tap(page, "1")
    page.wait_for_url(lambda url: url != before)
    assert [kind for _, kind, _ in app.do(LEDGER, name=name)] == ["unsure", "keep"]
