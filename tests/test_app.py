"""The audit as a person does it: in the App, in a browser. Screenshots are kept in artifacts/."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
fo = pytest.importorskip("fiftyone")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = "/usr/bin/chromium" if Path("/usr/bin/chromium").exists() else shutil.which("chromium")
if not CHROMIUM:
    pytest.skip("chromium is not installed (apt-get install chromium)", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / "artifacts"
# Its own process and database: what the server keeps of a session would leak into other tests.
SERVER = """
import json, sys
import fiftyone as fo
dataset = fo.Dataset("browser", persistent=True)
samples = json.loads(sys.argv[1])
dataset.add_samples([fo.Sample(filepath=path, caption=text) for path, text in samples])
session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=int(sys.argv[2]))
print("READY", flush=True)
session.wait(-1)
"""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[str]:
    yield from serve(tmp_path, SERVER)


def serve(tmp_path: Path, program: str) -> Iterator[str]:
    """Address of an App that shows 60 drawn persons, some of them with the description of another."""
    from audit_plugin.demo import draw_demo

    manifest = draw_demo(tmp_path / "demo", 60, seed=1)
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = [(str(manifest.parent / row["image"]), row["caption"]) for row in csv.DictReader(file)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "FIFTYONE_DATABASE_DIR": str(tmp_path / "db"), "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(rows), str(port)],
        env=env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line)
            if "READY" in line:
                break
        assert lines
        assert "READY" in lines[-1], "".join(lines)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


@pytest.fixture
def page(app: str) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60_000)
        page.add_init_script("window.IS_PLAYWRIGHT=true; localStorage.setItem('fiftyone-do-not-track','true')")
        page.route(lambda url: not url.startswith(app), lambda route: route.abort())
        page.goto(f"{app}/datasets/browser")
        page.wait_for_selector('[data-cy="fo-grid"] [data-cy="looker"]')
        yield page
        browser.close()


def shot(page: Any, name: str) -> None:
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"app-{name}.png")


def open_operator(page: Any, label: str) -> Any:
    page.locator("body").click(position={"x": 5, "y": 5})
    page.keyboard.press("Backquote")
    browser = page.locator('[data-cy="operators-browser"]')
    browser.locator("input").fill(label)
    browser.get_by_text(label, exact=True).click()
    return page.locator('[data-cy="operators-prompt-modal"]')


def submit(form: Any, label: str) -> None:
    """Click the button until the App takes it: until its execution options have come, a click does nothing."""
    button = form.get_by_role("button", name=label, exact=True)
    playwright.expect(button).to_be_enabled()
    for _ in range(30):
        with contextlib.suppress(playwright.TimeoutError):
            button.click(timeout=2000)
        with contextlib.suppress(playwright.TimeoutError):
            return button.wait_for(state="hidden", timeout=2000)
    raise AssertionError(f"the button {label!r} does nothing")


def filter_by_tag(page: Any, tag: str) -> None:
    page.locator('[data-cy="sidebar-field-arrow-enabled-tags"]').click()
    page.locator('[data-cy="selector-sidebar-search-tags"]').click()
    page.locator('[data-cy="selector-results-container-sidebar-search-tags"]').get_by_text(tag, exact=True).click()


def test_audit_60_samples_and_filter_by_tag(page: Any) -> None:
    expect = playwright.expect
    expect.set_options(timeout=30_000)
    counts = page.locator('[data-cy="entry-counts"]')
    form = open_operator(page, "Audit dataset")
    expect(form.get_by_text("60 samples")).to_be_visible()
    form.get_by_text("Advanced options").click()
    expect(form.get_by_text("Epochs")).to_be_visible()
    expect(form.get_by_text("60 samples")).to_be_visible()
    shot(page, "1-advanced")
    form.get_by_text("Advanced options").click()
    expect(form.get_by_text("Epochs")).to_be_hidden()
    trials, rate = form.locator('input[type="number"]').all()
    trials.fill("16")
    rate.fill("0.1")  # so few samples make faint scores
    expect(form.get_by_text("60 samples")).to_be_visible()
    expect(form.get_by_role("button", name="Audit", exact=True)).to_be_enabled()
    shot(page, "2-form")
    submit(form, "Audit")
    page.get_by_text(re.compile(r"^[A-Z][a-z ]+: \d+ of \d+$")).first.wait_for()
    shot(page, "3-progress")
    page.get_by_text("60 samples audited").wait_for(timeout=300_000)
    shot(page, "4-result")
    row = page.get_by_role("row").filter(has_text="audit:misaligned")
    tagged = int(row.get_by_role("cell").nth(1).inner_text())
    assert 1 <= tagged < 30
    page.get_by_role("button", name="Show the flagged samples").click()
    page.get_by_role("button", name="Done").click()
    expect(page).to_have_url(re.compile("view=audit-flagged"))
    expect(counts).not_to_have_text("60 samples")
    page.wait_for_timeout(1000)
    shot(page, "5-flagged")
    page.locator('[data-cy="btn-clear-view-bar"]').click()
    expect(counts).to_have_text("60 samples")
    page.reload()  # the App reads the groups of the sidebar only when it opens a dataset
    page.wait_for_selector('[data-cy="fo-grid"] [data-cy="looker"]')
    expect(page.locator('[data-cy="sidebar-group-AUDIT"]')).to_be_visible()
    filter_by_tag(page, "audit:misaligned")
    expect(counts).to_have_text(re.compile(rf"^{tagged} samples?\s*$"))
    page.wait_for_timeout(1000)  # thumbnails
    shot(page, "6-misaligned")
