"""The panel as a person uses it: in the App, in a browser. Screenshots are kept in artifacts/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests import browsing
from tests.browsing import App, need_browser, shot, submit

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
def page(app: App, chromium: Any) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, "panel")


def counts(page: Any) -> Any:
    return page.locator('[data-cy="entry-counts"]')


def decided(app: App) -> list[tuple[str, str]]:
    return [tuple(made) for made in app.do(DECIDED, name="panel")]


def tab(panel: Any, name: str, shows: Any) -> None:
    """Open a tab of the panel."""
    browsing.retry(
        lambda: panel.get_by_role("tab", name=name).click(timeout=5000), lambda: shows.wait_for(timeout=10_000)
    )


def click_until(button: Any, app: App, wanted: int) -> None:
    """Click a button that decides until the decision is written: it is drawn anew after each."""
    browsing.retry(lambda: button.click(timeout=5000), lambda: wait_decided(app, wanted), times=10)


def wait_decided(app: App, wanted: int) -> None:
    app.eventually(DECIDED, lambda made: len(made) >= wanted, name="panel")


def test_a_threshold_and_the_plots_choose_what_the_grid_shows(page: Any) -> None:
    panel = browsing.open_panel(page)
    expect(panel.get_by_text("8 new samples since the audit")).to_be_visible()
    expect(counts(page)).to_have_text("120 samples")
    shot(page, "panel-1-overview")
    above = panel.get_by_text(re.compile(r"\d+ at or above \d")).first
    before = above.inner_text()
    panel.locator('input[type="range"]').first.focus()
    page.keyboard.press("PageDown")
    expect(panel.get_by_role("button", name="Keep this threshold").first).to_be_visible()
    expect(above).not_to_have_text(before)
    flagged = int(re.match(r"\d+", above.inner_text()).group())
    assert flagged > int(re.match(r"\d+", before).group()), "a lower threshold flags more"
    expect(counts(page)).to_have_text(re.compile(rf"^{flagged} samples?\s*$"))
    shot(page, "panel-2-threshold")
    page.locator('[data-cy="btn-clear-view-bar"]').click()
    expect(counts(page)).to_have_text("120 samples")
    plots = panel.locator(".js-plotly-plot")
    tab(panel, "Plots", plots.first)
    panel.locator(".js-plotly-plot .bars path").first.wait_for(state="attached")
    shot(page, "panel-3-plots")
    scatter = plots.filter(has=page.locator(".scatterlayer")).first
    scatter.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)  # scrolled
    browsing.retry(
        lambda: lasso(page, scatter),
        lambda: expect(counts(page)).not_to_have_text("120 samples", timeout=10_000),
        times=10,
    )
    assert 0 < int(counts(page).inner_text().split()[0]) < 112
    shot(page, "panel-4-lasso")


def lasso(page: Any, plot: Any) -> None:
    """Draw around the left half of a plot."""
    box = plot.locator(".nsewdrag").first.bounding_box()
    right, bottom = box["x"] + box["width"] / 2, box["y"] + box["height"] - 5
    corners = [(box["x"] + 5, box["y"] + 5), (right, box["y"] + 5), (right, bottom), (box["x"] + 5, bottom)]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in (*corners[1:], corners[0]):
        page.mouse.move(*corner, steps=10)
    page.mouse.up()


def test_decide_in_the_queue_apply_and_undo(app: App, page: Any) -> None:
    panel = browsing.open_panel(page)
    captions = app.do(CAPTIONS, name="panel")
    keep = panel.get_by_role("button", name="Keep", exact=True)
    tab(panel, "Queue", keep)
    expect(panel.get_by_text(HOSTILE)).to_be_visible()
    shot(page, "queue-1-hostile")
    click_until(keep, app, 1)
    expect(panel.get_by_text("1 of").first).to_be_visible()
    typed = panel.get_by_text("New caption", exact=True).locator("xpath=following::input[1]")
    browsing.retry(
        lambda: typed.fill("a typed caption", timeout=5000), lambda: expect(typed).to_have_value("a typed caption")
    )
    shot(page, "queue-2-typed")
    click_until(panel.get_by_role("button", name="Relabel to typed text"), app, 2)
    assert decided(app)[-1] == ("relabel", "a typed caption")
    expect(panel.get_by_text("2 of").first).to_be_visible()
    click_until(panel.get_by_role("button", name="Remove", exact=True), app, 3)
    expect(panel.get_by_text("3 of").first).to_be_visible()
    click_until(panel.get_by_role("button", name="Undo last decision"), app, 4)
    expect(panel.get_by_text("2 of").first).to_be_visible()
    shot(page, "queue-3-undone")
    apply = panel.get_by_role("button", name="Apply to 1 sample", exact=True)
    tab(panel, "Report and apply", apply)
    shot(page, "apply-1")
    form = browsing.form_of(page)
    browsing.retry(lambda: apply.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    expect(form.get_by_text("1 sample would change")).to_be_visible()
    shot(page, "apply-2-confirm")
    submit(form, "Apply to 1 sample")
    app.eventually(CAPTIONS, lambda now: now != captions and "a typed caption" in now, name="panel")
    undo = panel.get_by_role("button", name="Undo", exact=True)
    expect(undo).to_be_visible()
    shot(page, "apply-3-applied")
    browsing.retry(lambda: undo.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    submit(form, "Undo")
    app.eventually(CAPTIONS, lambda now: now == captions, name="panel")
    expect(undo).to_be_hidden()
    shot(page, "apply-4-undone")


def test_decide_for_a_selection_and_for_all_flagged(app: App, page: Any) -> None:
    before = len(decided(app))
    browsing.wait_for_grid(page)
    tiles = page.locator('[data-cy="fo-grid"] [data-cy="looker"]')
    for number in range(3):
        tiles.nth(number).hover()
        tiles.nth(number).locator('input[type="checkbox"], [data-cy="checkbox-sample"]').first.click()
    form = browsing.open_operator(page, "Decide: keep, remove or relabel")
    form.get_by_text("Keep: the pair belongs together").click()
    expect(form.get_by_role("button", name="Decide for 3 samples")).to_be_enabled()
    shot(page, "batch-1-selection")
    submit(form, "Decide for 3 samples")
    wait_decided(app, before + 3)
    assert [kind for kind, _ in decided(app)[before:]] == ["keep"] * 3
