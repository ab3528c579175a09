"""What will be applied, old and new, in the App: in sight, nothing cut off, page by page, dark and light."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests import browsing
from tests.browsing import App, assert_in_sight, assert_nothing_is_cut_off, need_browser, shot, submit

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
size = browsing.each_size()
AUDITED = """
import sys
sys.path.insert(0, root)
from tests.review_fixtures import written
written(dataset, (1, 2, 3))
"""
DECIDED = """
from audit_plugin.fiftyone_io import decide
ids, captions = dataset.values(["id", "caption"])
for name, caption in list(zip(ids, captions))[:9]:
    decide(dataset, name, "relabel", text=f"{caption} Seen today")
decide(dataset, ids[9:14], "remove")
"""


@pytest.fixture(scope="module")
def app() -> App:
    app = browsing.serve()
    browsing.make_dataset(app, "apply", browsing.persons(120)[:40], f"root = {str(browsing.ROOT)!r}\n{AUDITED}")
    return app


@pytest.fixture
def page(app: App, chromium: Any, size: tuple[int, int]) -> Iterator[Any]:
    name = browsing.copy_dataset(app, "apply", f"apply-{size[0]}")
    app.do(f"dataset = fo.load_dataset(name)\n{DECIDED}", name=name)
    yield from browsing.open_page(chromium, app, name, *size)


def test_changes_are_seen_before_they_are_applied(page: Any, size: tuple[int, int]) -> None:
    panel, form = browsing.open_panel(page), browsing.form_of(page)
    apply = panel.get_by_role("button", name="Apply 14 changes", exact=True)
    panel.get_by_role("button", name="Report and apply").wait_for()  # all flagged samples are decided
    browsing.open_tab(panel, "Report and apply", apply)
    for theme in ("dark", "light"):
        if theme == "light":
            page.get_by_title("Light mode").click()
        assert_in_sight(page, apply, theme)
        assert_in_sight(page, panel.get_by_text("Changes 1 to 10 of 14"), theme)
        assert_nothing_is_cut_off(panel, theme)
        shot(page, f"apply-{size[0]}-{theme}")
    expect(panel.locator("td strong").filter(has_text="Seen today")).to_have_count(9)
    later = panel.get_by_role("button", name="Next", exact=True)
    browsing.retry(
        lambda: later.click(timeout=5000), lambda: panel.get_by_text("Changes 11 to 14 of 14").wait_for(timeout=10_000)
    )
    expect(panel.get_by_text("hidden as removed", exact=True)).to_have_count(4)
    browsing.retry(lambda: apply.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    expect(form.locator("td strong").filter(has_text="Seen today")).to_have_count(9)
    form.locator('input[type="number"]').fill("2")
    expect(form.get_by_text("Changes 11 to 14 of 14")).to_be_visible()
    expect(form.get_by_text("hidden as removed", exact=True)).to_have_count(4)
    shot(page, f"apply-{size[0]}-form")
    submit(form, "Apply 14 changes")
    clean = panel.get_by_role("button", name="Show clean view")
    clean.wait_for()
    expect(panel.get_by_role("button", name="Create clean dataset")).to_be_visible()
    browsing.retry(
        lambda: clean.click(timeout=5000),
        lambda: expect(page.locator('[data-cy="entry-counts"]')).to_have_text(
            re.compile("^35 samples"), timeout=10_000
        ),
    )
    panel.get_by_role("button", name="Delete 5 samples from the dataset").click()
    expect(form.get_by_text(re.compile("keeps a full copy of each. To restore them: Undo"))).to_be_visible()
    assert_nothing_is_cut_off(panel, "applied")
    shot(page, f"apply-{size[0]}-delete")
