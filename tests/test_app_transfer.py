"""Cross-modal recall as a person measures and reads it: in the App, in a browser, on drawn people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from audit_plugin.synthetic.personas import PersonaSet, draw_personas
from tests import browsing
from tests.browsing import App, need_browser, shot, submit

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
pytest.importorskip("python_avatars")
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    """With a dataset of 14 people to ask about and 110 others."""
    folder = tmp_path_factory.mktemp("people") / "set"
    draw_personas(folder, PersonaSet(identities=14, background=110, train=3, test=2, pairs=1, side=96))
    app = browsing.serve()
    load = "from audit_plugin.fiftyone_io import load_personas\nload_personas('people', folder)"
    app.do(load, folder=str(folder))
    return app


@pytest.fixture
def page(app: App, chromium: Any) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, "people")


def test_measure_read_and_look_at_the_people(page: Any) -> None:
    browsing.wait_for_grid(page)
    panel, form = browsing.open_panel(page), browsing.form_of(page)
    shot(page, "transfer-1-start")
    begin = panel.get_by_role("button", name="Measure cross-modal recall")
    browsing.retry(lambda: begin.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    expect(form.get_by_text("180 samples")).to_be_visible()
    shot(page, "transfer-2-form")
    submit(form, "Measure")
    page.get_by_text("14 identities; chance level").wait_for(timeout=300_000)
    shot(page, "transfer-3-result")
    page.get_by_role("button", name="Done").click()
    expect(panel.locator(".js-plotly-plot")).to_have_count(2)
    expect(panel.locator(".js-plotly-plot .heatmaplayer image")).to_have_count(1)
    shot(page, "transfer-4-matrix")
    show = panel.get_by_role("button", name="Show", exact=True).first
    show.scroll_into_view_if_needed()
    shot(page, "transfer-5-people")
    counts = page.locator('[data-cy="entry-counts"]')
    browsing.retry(
        lambda: show.click(timeout=5000), lambda: expect(counts).to_have_text(re.compile(r"^5 samples"), timeout=10_000)
    )
    shot(page, "transfer-6-one")
