"""The panel on small and large screens: nothing is cut off, and a decision needs no scrolling, dark and light."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import browsing
from tests.browsing import App, assert_in_sight, assert_nothing_is_cut_off, need_browser, shot

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
size = browsing.each_size()
ROOT = Path(__file__).resolve().parents[1]
CAPTION = (
    "a photo of a friendly person with short dark hair and a wide smile who wears a bright orange sweater over a white "
    "shirt and stands in front of a plain light blue wall on a sunny afternoon in early spring while holding some cup"
)
SUGGESTION = CAPTION.replace("dark", "very blond").replace("orange", "purple").replace("some cup", "a cup")
# The worst row has a caption and a suggestion of 230 characters, the next ones the longest that are shown.
PREPARED = """
import sys
sys.path.insert(0, root)
from tests.review_fixtures import written
written(dataset, (4, 1, 6))
dataset.set_values("audit_suggestion", [suggestion] * len(dataset))
texts = dict(zip((4, 1, 6), (caption, 4 * caption, "x" * 700)))
dataset.set_values("caption", [texts.get(number, text) for number, text in enumerate(dataset.values("caption"))])
"""
FIT = "picture => getComputedStyle(picture).objectFit"


@pytest.fixture(scope="module")
def app() -> App:
    app, rows = browsing.serve(), browsing.persons(120)[:60]
    browsing.make_dataset(app, "fits", rows, browsing.audit("dataset[:52]"))
    names = f"root, caption, suggestion = {str(ROOT)!r}, {CAPTION!r}, {SUGGESTION!r}\n"
    browsing.make_dataset(app, "fits-long", rows[:20], names + PREPARED)
    return app


@pytest.fixture
def page(app: App, chromium: Any, size: tuple[int, int]) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, "fits", *size)


@pytest.fixture
def long(app: App, chromium: Any, size: tuple[int, int]) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, "fits-long", *size)


def test_no_tab_is_wider_than_the_panel(page: Any, size: tuple[int, int]) -> None:
    panel = browsing.open_panel(page)
    name = f"layout-{size[0]}"
    panel.get_by_role("button", name="Show", exact=True).first.wait_for()
    panel.locator('input[type="range"]').first.focus()
    page.keyboard.press("PageDown")  # a moved threshold has the most buttons
    panel.get_by_role("button", name="Use this threshold").first.wait_for()
    assert_nothing_is_cut_off(panel, "overview")
    shot(page, f"{name}-overview")
    browsing.open_tab(panel, "Plots", panel.locator(".js-plotly-plot").first)
    panel.locator(".js-plotly-plot .bars path").first.wait_for(state="attached")
    page.wait_for_timeout(1500)  # plots take the panel's width a moment later
    assert_nothing_is_cut_off(panel, "plots")
    shot(page, f"{name}-plots")
    browsing.open_tab(panel, "Queue", panel.get_by_role("button", name="Keep (1)"))
    assert_nothing_is_cut_off(panel, "queue")
    shot(page, f"{name}-queue")
    browsing.open_tab(panel, "Report and apply", panel.get_by_role("button", name="Export", exact=True))
    assert_nothing_is_cut_off(panel, "apply")
    browsing.open_tab(panel, "Cross-modal", panel.get_by_role("button", name="Measure cross-modal recall"))
    assert_nothing_is_cut_off(panel, "cross-modal")


def test_a_decision_needs_no_scrolling(long: Any, size: tuple[int, int]) -> None:
    page, panel = long, browsing.open_panel(long)
    keep, caption = panel.get_by_role("button", name="Keep (1)"), panel.get_by_text(CAPTION, exact=True).first
    browsing.open_tab(panel, "Queue", keep)
    for theme in ("dark", "light"):
        if theme == "light":
            page.get_by_title("Light mode").click()
        page.wait_for_timeout(1000)
        picture = panel.locator("img").first
        assert picture.evaluate(FIT) == "contain"  # not distorted
        assert_in_sight(page, picture, "picture")
        assert_in_sight(page, caption, "caption")
        assert_in_sight(page, panel.get_by_text(re.compile("^Suggestion: a photo")), "suggestion")
        for name in ("Keep (1)", "Remove (2)", "Suggestion (3)", "Skip (4)", "Unsure (5)"):
            assert_in_sight(page, panel.get_by_role("button", name=name, exact=True), name)
        assert_nothing_is_cut_off(panel, theme)
        shot(page, f"layout-{size[0]}-{theme}")
    expect(panel.locator("del")).to_have_count(3)  # the words that the suggestion replaces
    for what in ("the longest caption", "a caption without blanks"):
        browsing.press(page, "n")
        for name in ("Keep (1)", "Unsure (5)"):
            assert_in_sight(page, panel.get_by_role("button", name=name, exact=True), what)
        assert_nothing_is_cut_off(panel, what)
    shot(page, f"layout-{size[0]}-long")
    page.get_by_title("Dark mode").click()
