"""The panel as a person uses it: in the App, in a browser. Screenshots are kept in artifacts/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests import browsing
from tests.browsing import App, need_browser, settle, shot, submit

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> **bold** [y](http://e.example) =cmd|' /C calc'!A0"
DECIDED = """
from audit_plugin.fiftyone_io import decisions
result = [(made.kind, made.text) for made in decisions(fo.load_dataset(name))]
"""
CAPTIONS = "result = fo.load_dataset(name).values('caption')"
# the worst sample's caption is replaced by a hostile one
PREPARED = """
from audit_plugin.fiftyone_io import flagged_view
worst = flagged_view(dataset, "audit").first()
worst["caption"] = hostile
worst.save()
"""


@pytest.fixture(scope="module")
def app() -> App:
    """Of 120 persons 112 are audited."""
    app = browsing.serve()
    prepared = browsing.audit("dataset[:112]") + f"hostile = {HOSTILE!r}\n" + PREPARED
    browsing.make_dataset(app, "panel", browsing.persons(120), prepared)
    return app


@pytest.fixture
def name(app: App, request: pytest.FixtureRequest) -> str:
    """Of the test's own copy of the dataset."""
    return browsing.copy_dataset(app, "panel", f"panel-{request.node.name[5:20]}")


@pytest.fixture
def page(app: App, name: str, chromium: Any) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, name)


def counts(page: Any) -> Any:
    return page.locator('[data-cy="entry-counts"]')


def decided(app: App, name: str) -> list[tuple[str, str]]:
    return [tuple(made) for made in app.do(DECIDED, name=name)]


def decide(page: Any, panel: Any, button: str, done: int) -> None:
    """Click a button that decides or takes back, and see the progress."""
    browsing.press(page, panel.get_by_role("button", name=button, exact=True))
    panel.get_by_text(re.compile(rf"^{done} of \d+ decided")).wait_for()


def test_a_threshold_and_the_plots_choose_what_the_grid_shows(page: Any) -> None:
    panel = browsing.open_panel(page)
    expect(panel.get_by_text("8 new samples since the audit")).to_be_visible()
    expect(counts(page)).to_have_text("120 samples")
    shot(page, "panel-1-overview")
    above = panel.get_by_text(re.compile(r"\d+ samples? with a score of \d")).first
    before = above.inner_text()
    panel.locator('input[type="range"]').first.focus()
    page.keyboard.press("PageDown")
    expect(panel.get_by_role("button", name="Use this threshold").first).to_be_visible()
    expect(above).not_to_have_text(before)
    flagged = int(re.match(r"\d+", above.inner_text()).group())
    assert flagged > int(re.match(r"\d+", before).group()), "a lower threshold flags more"
    expect(counts(page)).to_have_text(re.compile(rf"^{flagged} samples?\s*$"))
    shot(page, "panel-2-threshold")
    page.locator('[data-cy="btn-clear-view-bar"]').click()
    expect(counts(page)).to_have_text("120 samples")
    plots = panel.locator(".js-plotly-plot")
    browsing.open_tab(panel, "Plots", plots.first)
    panel.locator(".js-plotly-plot .bars path").first.wait_for(state="attached")
    shot(page, "panel-3-plots")
    scatter = plots.filter(has=page.locator(".scatterlayer")).first
    scatter.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)  # scrolled
    shown = panel.locator("img").first  # of the point that is clicked, below the plot
    browsing.retry(lambda: click_point(page, scatter), lambda: shown.wait_for(timeout=10_000), times=10)
    settle(page)  # with the click the App sends an empty selection, whose answer may come later
    expect(panel.get_by_role("button", name="Show", exact=True)).to_be_visible()
    expect(counts(page)).to_have_text("120 samples")
    shot(page, "panel-4-point")
    scatter.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    browsing.retry(
        lambda: lasso(page, scatter),
        lambda: expect(counts(page)).not_to_have_text("120 samples", timeout=10_000),
        times=10,
    )
    assert 0 < int(counts(page).inner_text().split()[0]) < 112
    shot(page, "panel-5-lasso")


def click_point(page: Any, plot: Any) -> None:
    """Click a point of a scatter plot, which lies under the layer that is dragged."""
    box = browsing.box_of(plot.locator(".scatterlayer .point").nth(3))
    place = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(place[0] + 20, place[1] + 20)
    page.mouse.move(*place)
    page.wait_for_timeout(500)  # a click is of the point that the pointer was found to be on
    page.mouse.click(*place)


def lasso(page: Any, plot: Any) -> None:
    """Draw around the left half of a plot."""
    box = browsing.box_of(plot.locator(".nsewdrag").first)
    right, bottom = box["x"] + box["width"] / 2, box["y"] + box["height"] - 5
    corners = [(box["x"] + 5, box["y"] + 5), (right, box["y"] + 5), (right, bottom), (box["x"] + 5, bottom)]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in (*corners[1:], corners[0]):
        page.mouse.move(*corner, steps=10)
    page.mouse.up()


def test_decide_in_the_queue_apply_undo_and_audit_again(app: App, name: str, page: Any) -> None:
    panel, form = browsing.open_panel(page), browsing.form_of(page)
    captions = app.do(CAPTIONS, name=name)
    browsing.open_tab(panel, "Queue", panel.get_by_role("button", name="Keep (1)"))
    expect(panel.get_by_text(HOSTILE).first).to_be_visible()
    shot(page, "queue-1-hostile")
    decide(page, panel, "Keep (1)", 1)
    typed = panel.get_by_label("New caption (e)")
    typed.fill("a typed caption")
    page.wait_for_timeout(1000)  # the App sends what was typed a moment later
    shot(page, "queue-2-typed")
    decide(page, panel, "Relabel (Enter)", 2)
    assert decided(app, name) == [("keep", ""), ("relabel", "a typed caption")]
    decide(page, panel, "Remove (2)", 3)
    decide(page, panel, "Undo (u)", 2)
    shot(page, "queue-3-undone")
    apply = panel.get_by_role("button", name="Apply 1 change", exact=True)
    browsing.open_tab(panel, "Report and apply", apply)
    shot(page, "apply-1")
    browsing.retry(lambda: apply.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    expect(form.get_by_text("1 change will be applied")).to_be_visible()
    shot(page, "apply-2-confirm")
    submit(form, "Apply 1 change")
    app.eventually(CAPTIONS, lambda now: "a typed caption" in now, name=name)
    undo = panel.get_by_role("button", name="Undo", exact=True)
    expect(undo).to_be_visible()
    shot(page, "apply-3-applied")
    browsing.retry(lambda: undo.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    submit(form, "Undo")
    app.eventually(CAPTIONS, lambda now: now == captions, name=name)
    expect(undo).to_be_hidden()
    audit_again(app, name, page, panel)


def audit_again(app: App, name: str, page: Any, panel: Any) -> None:
    """A new audit, under another key, keeps the decisions."""
    form, before = browsing.form_of(page), decided(app, name)
    again = panel.get_by_role("button", name="New audit")
    browsing.retry(lambda: again.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    expect(form.get_by_text("120 samples")).to_be_visible()
    trials, rate = form.locator('input[type="number"]').all()
    trials.fill("8")
    rate.fill("0.1")
    form.get_by_text("Advanced options").click()
    key = form.get_by_text("Run key", exact=True).locator("xpath=following::input[1]")
    key.fill("second")
    shot(page, "again-1-form")
    submit(form, "Audit")
    page.get_by_text("120 samples audited").wait_for()
    page.get_by_role("button", name="Done").click()
    expect(panel.get_by_text(re.compile("second \\("))).to_be_visible()
    assert decided(app, name) == before
    progress = panel.get_by_text(re.compile(r"^2 of \d+ decided"))
    browsing.open_tab(panel, "Queue", progress)
    shot(page, "again-2-queue")


def test_decide_for_a_selection_in_the_light_theme(app: App, name: str, page: Any) -> None:
    browsing.wait_for_grid(page)
    page.get_by_title("Light mode").click()
    tiles = page.locator('[data-cy="fo-grid"] [data-cy="looker"]')
    for number in range(3):
        tiles.nth(number).hover()
        tiles.nth(number).locator("label").first.click()
    expect(page.locator('[data-cy="action-manage-selected"]')).to_have_text("3")
    form = browsing.open_operator(page, "Decide")
    form.get_by_text("Keep: the sample is correct").click()
    expect(form.get_by_role("button", name="Save decision for 3 samples")).to_be_enabled()
    shot(page, "light-1-selection")
    submit(form, "Save decision for 3 samples")
    app.eventually(DECIDED, lambda made: len(made) == 3, name=name)
    assert decided(app, name) == [("keep", "")] * 3
    panel = browsing.open_panel(page)
    panel.get_by_role("button", name="Show").first.wait_for()
    shot(page, "light-2-overview")
    browsing.open_tab(panel, "Plots", panel.locator(".js-plotly-plot").first)
    panel.locator(".js-plotly-plot .bars path").first.wait_for(state="attached")
    shot(page, "light-3-plots")
    browsing.open_tab(panel, "Queue", panel.get_by_role("button", name="Keep (1)"))
    shot(page, "light-4-queue")
    page.get_by_title("Dark mode").click()
    page.wait_for_timeout(500)
    shot(page, "light-5-dark-again")
