"""Calibrate in the queue, and a bulk decision on one caption, in a browser. Screenshots are kept in artifacts/."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import browsing
from tests.browsing import (
    SIZES,
    App,
    assert_in_sight,
    assert_nothing_is_cut_off,
    need_browser,
    press,
    settle,
    shot,
    submit,
)
from tests.test_app_batches import ask, choose

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
size = browsing.each_size(SIZES[:1])
SAME_TEXT = """
captions = dataset.values("caption")
dataset.set_values("caption", ["a photo" if 3 <= row < 11 else text for row, text in enumerate(captions)])
"""
PREPARED = browsing.flagging(range(3, 33), SAME_TEXT)
SEARCH = """
from audit_plugin.fiftyone_io import threshold_check
from audit_plugin.review.threshold_search import progress_text
result = progress_text(threshold_check(fo.load_dataset(name), "audit").search(precision), precision)
"""
DECIDED = """
from audit_plugin.fiftyone_io import current_decisions
result = [(made.kind, made.reviewer) for made in current_decisions(fo.load_dataset(name)).current.values()]
"""
FLAGGED = "result = fo.load_dataset(name).match_tags('audit:misaligned').count()"


@pytest.fixture(scope="module")
def app() -> App:
    app = browsing.serve()
    browsing.make_dataset(app, "checked", browsing.persons(120)[:60], PREPARED)
    return app


@pytest.fixture
def name(app: App, size: tuple[int, int]) -> str:
    return browsing.copy_dataset(app, "checked", f"checked-{size[0]}")


@pytest.fixture
def page(app: App, name: str, chromium: Any, size: tuple[int, int]) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, name, *size)


def test_a_batch_of_one_caption_and_a_calibration(app: App, name: str, page: Any, size: tuple[int, int]) -> None:
    panel = browsing.open_panel(page)
    browsing.open_tab(panel, "Queue", panel.get_by_role("button", name="Keep (1)"))
    settle(page)
    page.evaluate("localStorage.setItem('audit-reviewer', 'ann'); window.dispatchEvent(new Event('audit-reviewer'))")
    expect(panel.locator('[data-cy="audit-reviewer"]')).to_have_text("Reviewer:ann")
    form = ask(page, panel.get_by_role("button", name="All 8 with the same caption"))
    form.get_by_text("Remove: hide it when decisions are applied").click()
    expect(form.get_by_text("Remove 8 samples with the same caption.")).to_be_visible()
    expect(form.locator("img")).to_have_count(6)
    form.locator("img").first.scroll_into_view_if_needed()
    shot(page, f"batch-{size[0]}-caption")
    submit(form, "Remove 8 samples")
    expect(panel.get_by_text("8 of 30 decided")).to_be_visible()
    assert app.do(DECIDED, name=name) == [("remove", "ann")] * 8
    settle(page)
    press(page, "u")
    assert app.do(DECIDED, name=name) == []  # undone as one

    choose(page, panel.get_by_role("combobox").filter(has_text="All findings"), "Calibrate")
    expect(panel.get_by_text(re.compile("^0 of about .* labels"))).to_be_visible()
    settle(page)
    for number in range(1, 4):
        press(page, "2")
        expect(panel.get_by_text(app.do(SEARCH, name=name, precision=0.9))).to_be_visible()
        expect(panel.get_by_text(re.compile(f"^{number} of about"))).to_be_visible()
    look(page, panel, size)
    choose(page, panel.get_by_role("combobox").filter(has_text="Precision 90%"), "Precision 70%")
    expect(panel.get_by_text(app.do(SEARCH, name=name, precision=0.7))).to_be_visible()
    use = panel.get_by_role("button", name=re.compile("^Use threshold"))
    for _ in range(30):
        if use.count():
            break
        press(page, "2")
        expect(panel.get_by_text(app.do(SEARCH, name=name, precision=0.7))).to_be_visible()  # drawn with this label
    said = panel.get_by_text("with a probability of")
    said.wait_for()
    shot(page, f"calibrate-{size[0]}-found")

    def flagged_and_said() -> tuple[int, int]:
        return app.do(FLAGGED, name=name), int(re.search(r"of the (\d+) samples", said.inner_text()).group(1))

    # refused where the panel showed another threshold than that of the last label
    browsing.retry(lambda: press(page, use), lambda: same(page, flagged_and_said), times=3)
    assert 20 <= app.do(FLAGGED, name=name) <= 30


def same(page: Any, values: Callable[[], tuple[int, int]]) -> None:
    """Wait until both values are the same."""
    for _ in range(20):
        if len(set(values())) == 1:
            return
        page.wait_for_timeout(500)
    raise AssertionError(values())


def look(page: Any, panel: Any, size: tuple[int, int]) -> None:
    """All that is decided by stays in sight, in both themes."""
    for theme in ("dark", "light"):
        if theme == "light":
            page.get_by_title("Light mode").click()
            page.wait_for_timeout(1000)
        assert_in_sight(page, panel.locator("img").first, "picture")
        for button in ("Keep (1)", "Remove (2)", "Suggestion (3)", "Unsure (5)"):
            assert_in_sight(page, panel.get_by_role("button", name=button, exact=True), button)
        assert_nothing_is_cut_off(panel, "calibrate")
        shot(page, f"calibrate-{size[0]}-{theme}")
    page.get_by_title("Dark mode").click()
    page.wait_for_timeout(500)
