"""The Overview in the App: its summary in sight, the way to the first undecided finding, what the grid shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests import browsing
from tests.browsing import App, assert_in_sight, assert_nothing_is_cut_off, need_browser, shot

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
size = browsing.each_size()
DECIDED = """
from audit_plugin.fiftyone_io import decide
from audit_plugin.fiftyone_io.results.queues import queue_of
rows = queue_of(dataset, "audit").rows
decide(dataset, [rows[0]], "keep", "audit")
"""
SECOND = """
from audit_plugin.fiftyone_io.results.queues import queue_of
from audit_plugin.fiftyone_io.results.cases import text_of
dataset = fo.load_dataset(name)
result = text_of(dataset, "audit", queue_of(dataset, "audit").left[0])
"""
WORST = """
from audit_plugin.fiftyone_io.results.findings import flagged_as
worst = flagged_as(fo.load_dataset(name), "audit", "misaligned").first()
result = [worst["caption"], f"{worst['audit_misalignment']:.3f}", worst["audit_suggestion"] or ""]
"""


@pytest.fixture(scope="module")
def app() -> App:
    app = browsing.serve()
    browsing.make_dataset(app, "overview", browsing.persons(120)[:60], browsing.audit("dataset[:52]") + DECIDED)
    return app


@pytest.fixture
def page(app: App, chromium: Any, size: tuple[int, int]) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, "overview", *size)


def test_the_summary_is_in_sight_and_leads_to_the_first_undecided_finding(
    app: App, page: Any, size: tuple[int, int]
) -> None:
    panel = browsing.open_panel(page)
    review = panel.get_by_role("button", name="Review", exact=True)
    headline = panel.get_by_text(re.compile(r"\d+ flagged, 1 decided: review \d+ more\."))
    for theme in ("dark", "light"):
        if theme == "light":
            page.get_by_title("Light mode").click()
        review.wait_for()
        assert_in_sight(page, headline, f"headline, {theme}")
        assert_in_sight(page, review, f"the button, {theme}")
        assert_in_sight(page, panel.get_by_text(re.compile("^Misaligned: .* left")), f"the counts, {theme}")
        assert_nothing_is_cut_off(panel, theme)
        shot(page, f"overview-{size[0]}-{theme}")
    show = panel.get_by_role("button", name="Show", exact=True).first
    show.click()
    tile = page.locator('[data-cy="fo-grid"] [data-cy="looker"]').first
    for text in app.do(WORST, name="overview"):  # its caption, score and suggestion
        expect(tile).to_contain_text(text)
    shot(page, f"overview-{size[0]}-shown")
    browsing.retry(
        lambda: review.click(timeout=5000),
        lambda: panel.get_by_role("button", name="Keep (1)").wait_for(timeout=10_000),
    )
    expect(panel.get_by_role("tab", name="Queue")).to_have_attribute("aria-selected", "true")
    expect(panel.get_by_text(app.do(SECOND, name="overview"), exact=True).first).to_be_visible()
    shot(page, f"overview-{size[0]}-review")
