"""How an audit is found, started, watched and stopped in the App, in a browser."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import browsing
from tests.browsing import SIZES, App, assert_in_sight, assert_nothing_is_cut_off, need_browser, shot, submit

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
size = browsing.each_size(SIZES[:1])
WORDS = ("audit", "wrong", "mislabel", "quality", "duplicates", "outliers", "memorized")
SLOW = """
import time
from audit_plugin.fiftyone_io import jobs
jobs.pause, real = seconds, jobs.Job.report

def report(job, stage, done, total):
    time.sleep(jobs.pause)
    real(job, stage, done, total)

if real.__name__ != "slow":
    jobs.Job.report = report
    report.__name__ = "slow"
"""
AUDITS = "from audit_plugin.fiftyone_io import list_audits\nresult = list_audits(fo.load_dataset(name))"
SETTINGS = "import os\nresult = dict(os.environ)"
ORCHESTRATORS = "fo.config.allow_legacy_orchestrators = allowed"


@pytest.fixture(scope="module")
def app() -> App:
    return browsing.serve()


@pytest.fixture
def name(app: App, request: pytest.FixtureRequest) -> Iterator[str]:
    node = request.node.name
    name = re.sub(r"\W+", "-", f"runs {node[5:25]} {node[-9:]}").strip("-")
    browsing.make_dataset(app, name, browsing.persons(120)[:60])
    yield name
    app.do(SLOW, seconds=0)
    app.do(ORCHESTRATORS, allowed=False)


@pytest.fixture
def page(app: App, name: str, chromium: Any, size: tuple[int, int]) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, name, *size)


def test_the_audit_is_found_by_what_people_look_for_and_by_a_button(page: Any) -> None:
    browsing.wait_for_grid(page)
    button = page.locator('[data-item-id="@multimem/audit/open_audit"]')
    listed = page.locator('[data-cy="operators-browser"]')
    browsing.retry(lambda: page.keyboard.press("Backquote"), lambda: listed.wait_for(timeout=5000))
    for word in WORDS:
        listed.locator("input").fill(word)
        first = listed.get_by_text(re.compile("^Audit")).first
        expect(first).to_have_text("Audit dataset")
        expect(first).to_be_visible()
    listed.locator("input").fill("audit:")
    expect(listed.get_by_text(re.compile("^Audit: ")).nth(15)).to_be_attached()
    listed.locator("input").fill("@multimem")
    shot(page, "runs-operators")
    page.keyboard.press("Escape")
    shot(page, "runs-toolbar")
    panel = page.locator('[data-cy="panel-content-audit_panel"]')
    button.hover()
    expect(page.get_by_text("Audit", exact=True).last).to_be_visible()  # what it says of itself
    browsing.retry(lambda: button.click(timeout=5000), lambda: panel.wait_for(timeout=10_000))
    expect(panel.get_by_role("button", name="Start audit")).to_be_visible()


def test_a_run_shows_its_stage_and_is_stopped_without_loss(
    app: App, name: str, page: Any, size: tuple[int, int]
) -> None:
    panel, form = browsing.open_panel(page), browsing.form_of(page)
    start = panel.get_by_role("button", name="Start audit")
    app.do(SLOW, seconds=1)
    browsing.retry(lambda: start.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    submit(form, "Audit")
    stop = form.get_by_role("button", name="Stop").or_(page.get_by_role("button", name="Stop"))
    stop.first.wait_for()
    page.get_by_text(re.compile(r"^(Read|Encode image|Encode text|Train): .* left$")).first.wait_for()
    shot(page, f"runs-{size[0]}-page")
    card = panel.get_by_text("running for")
    card.wait_for()
    stop.first.click()
    # said until the step ends, which a drawing may miss
    page.get_by_text(re.compile("stopping after this step|^Stopped. What was encoded")).first.wait_for()
    app.do(SLOW, seconds=0)
    page.get_by_text(re.compile("^Stopped. What was encoded and trained is kept")).first.wait_for()
    shot(page, f"runs-{size[0]}-stopped")
    assert app.do(AUDITS, name=name) == []
    page.get_by_role("button", name="Done").click()
    expect(card).to_be_hidden()
    app.do(SLOW, seconds=1)
    browsing.retry(lambda: start.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    submit(form, "Audit")
    stop.first.wait_for()
    hide = page.get_by_role("button", name="Go on in the background")
    browsing.retry(
        lambda: hide.click(timeout=5000),
        lambda: page.get_by_text("The run goes on. Close this page").wait_for(timeout=10_000),
    )
    page.get_by_role("button", name="Done").click()
    card.wait_for()
    for theme in ("dark", "light"):
        if theme == "light":
            browsing.retry(
                lambda: page.get_by_title("Light mode").click(timeout=5000),
                lambda: page.get_by_title("Dark mode").wait_for(timeout=5000),
            )
        assert_in_sight(page, card, theme)
        assert_nothing_is_cut_off(panel, theme)
        shot(page, f"runs-{size[0]}-card-{theme}")
    app.do(SLOW, seconds=0)
    page.get_by_text("Audit dataset: done").wait_for()
    expect(panel.get_by_role("tab", name="Overview")).to_be_visible()
    assert app.do(AUDITS, name=name) == ["audit"]


def test_a_run_is_queued_where_the_server_allows_it_and_stopped(app: App, page: Any) -> None:
    panel = browsing.open_panel(page)
    waits = queued(app, page, panel)
    panel.get_by_role("button", name="Stop").click()
    expect(waits).to_be_hidden()
    shot(page, "runs-queue-stopped")


def test_a_worker_carries_out_a_queued_run_and_the_panel_follows_it(app: App, name: str, page: Any) -> None:
    panel = browsing.open_panel(page)
    waits = queued(app, page, panel)
    with worker(app):
        panel.get_by_text("queued, runs now").wait_for()
        panel.get_by_role("progressbar").first.wait_for()
        shot(page, "runs-queue-runs")
        expect(waits).to_be_hidden()
        page.get_by_text("Queued run complete: Audit dataset").wait_for()
    expect(panel.get_by_role("tab", name="Overview")).to_be_visible()  # the new audit, without a click
    shot(page, "runs-queue-done")
    assert app.do(AUDITS, name=name) == ["audit"]


def queued(app: App, page: Any, panel: Any) -> Any:
    """Queue an audit from its form; the line of its card that says what it waits for."""
    form, start = browsing.form_of(page), panel.get_by_role("button", name="Start audit")
    app.do(ORCHESTRATORS, allowed=True)  # as by FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS=true
    browsing.retry(lambda: start.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    expect(form.get_by_role("button", name="Audit", exact=True)).to_be_enabled()
    shot(page, "runs-queue-form")
    options = form.locator(
        '[data-cy="operators-prompt-split-button"], button:has(svg[data-testid="ArrowDropDownIcon"])'
    )
    schedule = page.get_by_text("Schedule", exact=True)
    browsing.retry(lambda: options.last.click(timeout=5000), lambda: schedule.first.wait_for(timeout=5000))
    shot(page, "runs-queue-options")
    schedule.first.click()
    submit(form, "Schedule")
    waits = panel.get_by_text(re.compile("queued, waits for a worker: start one on the server with"))
    waits.wait_for()  # the panel looks every ten seconds
    shot(page, "runs-queue-card")
    return waits


@contextmanager
def worker(app: App) -> Iterator[None]:
    """`fiftyone delegated launch` on the server's database, with its plugins, as long as the block lasts."""
    program = Path(sys.executable).with_name("fiftyone")
    with app.log.with_name("worker.log").open("w") as log:
        process = subprocess.Popen(
            [program, "delegated", "launch"], env=app.do(SETTINGS), cwd=app.log.parent, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def test_images_without_texts_are_audited(app: App, page: Any, name: str) -> None:
    app.do("fo.load_dataset(name).delete_sample_field('caption')", name=name)
    page.reload()
    browsing.wait_for_grid(page)
    form = browsing.open_operator(page, "Audit dataset")
    expect(form.get_by_text("None: find outliers and duplicates only").first).to_be_visible()
    expect(form.get_by_text(re.compile("^60 samples"))).to_be_visible()
    shot(page, "runs-no-texts")
    submit(form, "Audit")
    page.get_by_text("60 samples audited").wait_for()
    shot(page, "runs-no-texts-done")
