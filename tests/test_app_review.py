"""The review as a person does it by keyboard: in the sample modal, in a browser. Screenshots are kept in artifacts/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
pytest.importorskip("fiftyone")
playwright = pytest.importorskip("playwright.sync_api")

from tests.test_app import CHROMIUM, FLAGS, open_operator, serve, shot, submit  # noqa: E402

# Audited before the App starts; one caption is hostile, and two samples are sounds.
SERVER = """
import json, sys
import fiftyone as fo
from audit_plugin import fiftyone_io
from audit_plugin.config import AuditConfig
dataset = fo.Dataset("browser", persistent=True)
samples = json.loads(sys.argv[1])
samples[0][1] = "<img src=x onerror=document.title='hacked'> =cmd|' /C calc'!A0"
dataset.add_samples([fo.Sample(filepath=path, caption=text) for path, text in samples])
fiftyone_io.audit_view(dataset, AuditConfig(encoder="offline", trials=8, false_alarms=0.1, device="cpu"))
session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=int(sys.argv[2]))
print("READY", flush=True)
session.wait(-1)
"""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[str]:
    yield from serve(tmp_path, SERVER)


@pytest.fixture
def page(app: str) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60_000)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.add_init_script("window.IS_PLAYWRIGHT=true; localStorage.setItem('fiftyone-do-not-track','true')")
        page.route(lambda url: not url.startswith(app), lambda route: route.abort())
        page.goto(f"{app}/datasets/browser?view=audit-flagged")
        page.wait_for_selector('[data-cy="fo-grid"] [data-cy="looker"]')
        yield page
        browser.close()


def press(page: Any, key: str, said: str) -> str:
    """Press a key until the App says what happened; the words."""
    page.keyboard.press(key)
    notice = page.get_by_text(re.compile(said)).last
    notice.wait_for()
    return str(notice.inner_text())


def test_decide_by_keyboard_apply_and_undo(page: Any) -> None:
    expect = playwright.expect
    expect.set_options(timeout=30_000)
    page.locator('[data-cy="fo-grid"] [data-cy="looker"]').first.click()
    page.locator('[data-cy="modal"]').wait_for()
    help_box = page.get_by_role("dialog", name="Review by keyboard")
    for _ in range(60):  # the App loads plugins' scripts when it likes
        page.keyboard.press("h")
        if help_box.is_visible():
            break
        page.wait_for_timeout(500)
    expect(help_box.get_by_text("undo the last decision")).to_be_visible()
    shot(page, "review-1-help")
    page.keyboard.press("h")
    expect(help_box).to_be_hidden()
    total = 0
    for number, (key, word) in enumerate((("2", "Remove"), ("1", "Keep"), ("2", "Remove"), ("1", "Keep")), 1):
        words = press(page, key, rf"{word} · {number} of \d+ decided")
        total = int(re.search(r"of (\d+)", words).group(1))
    assert total >= 4
    shot(page, "review-2-decided")
    press(page, "u", "Taken back: keep")
    page.keyboard.press("n")
    page.wait_for_timeout(1500)
    shot(page, "review-3-next")
    page.keyboard.press("Escape")
    page.locator('[data-cy="modal"]').wait_for(state="detached")
    form = open_operator(page, "Apply decisions")
    expect(form.get_by_text("2 samples would change")).to_be_visible()
    submit(form, "Apply to 2 samples")
    page.get_by_text("Applied: 2 hidden as removed").wait_for()
    shot(page, "review-4-applied")
    form = open_operator(page, "Undo applied changes")
    expect(form.get_by_text("2 hidden as removed")).to_be_visible()
    submit(form, "Undo")
    page.get_by_text("Undone: 2 hidden as removed").wait_for()
    assert page.title() != "hacked"
    assert page.errors == []
