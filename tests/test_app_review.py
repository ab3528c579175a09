"""The review as a person does it by keyboard: in the sample modal, in a browser. Screenshots are kept in artifacts/."""

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
HOSTILE = "<img src=x onerror=document.title='hacked'> =cmd|' /C calc'!A0"
LEDGER = """
from audit_plugin.fiftyone_io import decisions
result = [(made.sample, made.kind) for made in decisions(fo.load_dataset("keys"))]
"""
HIDDEN = """
from audit_plugin.fiftyone_io import REMOVED
result = fo.load_dataset("keys").match_tags(REMOVED).count()
"""


@pytest.fixture(scope="module")
def app() -> App:
    app, rows = browsing.serve(), browsing.persons(120)[:60]
    browsing.make_dataset(app, "keys", [(rows[0][0], HOSTILE), *rows[1:]], browsing.audit())
    return app


@pytest.fixture
def page(app: App, chromium: Any) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, "keys?view=audit-flagged")


def open_first(page: Any) -> None:
    """Open the first sample, and wait until the keys work: the App loads plugins' scripts when it likes."""
    browsing.wait_for_grid(page)
    modal = page.locator('[data-cy="modal"]')
    looker = page.locator('[data-cy="fo-grid"] [data-cy="looker"]').first
    browsing.retry(lambda: looker.click(timeout=5000), lambda: modal.wait_for(timeout=5000))
    help_box = page.get_by_role("dialog", name="Review by keyboard")
    browsing.retry(lambda: page.keyboard.press("h"), lambda: help_box.wait_for(timeout=1000), times=120)
    expect(help_box.get_by_text("undo last decision")).to_be_visible()
    shot(page, "review-1-help")
    page.keyboard.press("h")
    expect(help_box).to_be_hidden()


def test_the_panel_beside_the_sample_leaves_the_keys_to_the_review(app: App, page: Any) -> None:
    """The App puts the cursor into the first field that it draws; a field is typed into after a click alone."""
    open_first(page)
    modal = page.locator('[data-cy="modal"]')
    field = modal.locator('[data-cy="panel-content-audit_sample"] [data-audit-field=note] input')
    tab = modal.get_by_text("Audit", exact=True).first
    browsing.retry(lambda: tab.click(timeout=5000), lambda: field.wait_for(timeout=10_000))
    page.wait_for_timeout(1500)  # by then the App has put the cursor somewhere
    help_box = page.get_by_role("dialog", name="Review by keyboard")
    page.keyboard.press("h")
    help_box.wait_for()
    page.keyboard.press("h")
    expect(help_box).to_be_hidden()
    expect(field).to_have_value("")
    made = app.do(LEDGER)
    field.click()
    page.keyboard.type("h1 2", delay=60)
    expect(field).to_have_value("h1 2")
    expect(help_box).to_be_hidden()
    shot(page, "review-0-typed")
    assert app.do(LEDGER) == made
    # a click beside the fields is no click on one, and ends the typing: what is drawn again then takes no cursor
    modal.locator('[data-cy="panel-content-audit_sample"]').get_by_text("Reason").first.click()
    page.evaluate("document.activeElement && document.activeElement.blur()")
    field.evaluate("field => field.focus()")
    page.keyboard.press("h")
    help_box.wait_for()
    page.keyboard.press("h")
    expect(help_box).to_be_hidden()
    expect(field).to_have_value("h1 2")


def press(page: Any, key: str, told: Any) -> None:
    """Press a key and see its notice, which goes after seconds; then wait until all is drawn."""
    browsing.tap(page, key)
    told.wait_for()
    settle(page)


def ask_before_a_decision_is_replaced(app: App, page: Any) -> None:
    """Go to a sample that is decided: the first key tells so, the second one replaces the decision; that is undone."""
    before = page.url
    browsing.tap(page, "b")
    page.wait_for_url(lambda url: url != before)
    settle(page)
    made = app.do(LEDGER)
    press(page, "5", page.get_by_text("was decided before").last)
    assert app.do(LEDGER) == made
    before = page.url
    press(page, "5", page.get_by_text("Unsure · ").last)
    page.wait_for_url(lambda url: url != before)
    app.eventually(LEDGER, lambda after: len(after) == len(made) + 1)
    press(page, "u", page.get_by_text("Undone: unsure").last)
    app.eventually(LEDGER, lambda after: len(after) == len(made) + 2)


def test_decide_ten_by_keyboard_apply_and_undo(app: App, page: Any) -> None:
    open_first(page)
    for key in "21":  # so fast that the next sample may not be open yet: then the second key counts for nothing
        page.keyboard.press(key)
        page.wait_for_timeout(300)
    app.eventually(LEDGER)
    settle(page)
    made = app.do(LEDGER)
    assert len(dict(made)) == len(made), "a key decided on a sample that the one before had decided"
    for number in range(len(made) + 1, 11):
        word = "Remove" if number % 2 else "Keep"
        before = page.url
        press(page, "2" if number % 2 else "1", page.get_by_text(re.compile(rf"{word} · {number} of \d+ decided")).last)
        page.wait_for_url(lambda url, before=before: url != before)  # the next sample is open
        assert len(dict(app.do(LEDGER))) == number, "each key decides on another sample"
        if number == 5:
            shot(page, "review-2-five")
    shot(page, "review-3-ten")
    press(page, "u", page.get_by_text("Undone: keep").last)
    app.eventually(LEDGER, lambda made: made[-1][1] == "undone")
    ask_before_a_decision_is_replaced(app, page)
    page.keyboard.press("n")
    modal = page.locator('[data-cy="modal"]')  # while the next sample opens, the App does not hear Escape
    browsing.retry(lambda: page.keyboard.press("Escape"), lambda: modal.wait_for(state="detached", timeout=2000))
    form = browsing.open_operator(page, "Apply decisions")
    expect(form.get_by_text("5 changes will be applied")).to_be_visible()
    shot(page, "review-4-apply")
    submit(form, "Apply 5 changes")
    page.get_by_text("Applied: 5 hidden as removed").wait_for()
    app.eventually(HIDDEN, lambda count: count == 5)
    shot(page, "review-5-applied")
    form = browsing.open_operator(page, "Undo applied changes")
    expect(form.get_by_text("5 hidden as removed")).to_be_visible()
    submit(form, "Undo")
    app.eventually(HIDDEN, lambda count: count == 0)
    assert page.title() != "hacked"
