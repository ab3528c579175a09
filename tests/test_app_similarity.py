"""Similarity search by a typed text as a person does it: in the App, in a browser. Screenshots go to artifacts/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import browsing
from tests.browsing import App, need_browser, shot, submit

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
ROWS, WANTED = 60, 24  # a person whose description is right


@pytest.fixture(scope="module")
def app() -> App:
    app = browsing.serve()
    browsing.make_dataset(app, "search", browsing.persons(120)[:ROWS], browsing.audit())
    return app


@pytest.fixture
def page(app: App, chromium: Any) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, "search", width=1900)  # in less the App cuts the button off


def test_a_typed_text_finds_the_person(page: Any) -> None:
    browsing.wait_for_grid(page)
    form = browsing.open_operator(page, "Create similarity index")
    expect(form.get_by_text("Embeddings", exact=True)).to_be_visible()
    submit(form, "Create index")
    expect(page.get_by_role("dialog").get_by_text("vectors created; search by sample or text")).to_be_visible()
    shot(page, "search-1-indexed")
    page.get_by_role("button", name="Done").click()
    words, description = "a green beard and a chef's hat", browsing.persons(120)[WANTED][1]
    field = page.get_by_placeholder("Type anything!")
    magnifier = page.locator('[data-cy="action-sort-by-similarity"]')
    browsing.retry(lambda: magnifier.click(timeout=5000), lambda: field.wait_for(timeout=5000))
    field.fill(words)
    shot(page, "search-2-words")
    field.press("Enter")
    # The App lists searches in a panel of its own, and the grid changes once one of them is chosen there.
    results = page.locator('[data-cy="panel-content-similarity_search_panel"]')
    expect(results.get_by_text("25 results")).to_be_visible()
    shot(page, "search-3-results")
    counts = page.locator('[data-cy="entry-counts"]')
    show = results.get_by_role("button", name="Show results", exact=True)
    browsing.retry(  # by force: the card around the button says that it is disabled, the button is not
        lambda: show.click(timeout=5000, force=True),
        lambda: expect(counts).to_have_text("25 samples", timeout=5000),
        times=10,
    )
    shot(page, "search-4-found")
    page.locator('[data-cy="fo-grid"] [data-cy="looker"]').first.click()
    expect(page.locator('[data-cy="modal"]')).to_contain_text(description)
    shot(page, "search-5-first")
