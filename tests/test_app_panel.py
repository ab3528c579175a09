"""The panel as a person uses it: in the App, in a browser. Screenshots are kept in artifacts/."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_app import CHROMIUM, FLAGS, shot

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = pytest.importorskip("playwright.sync_api")
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> **bold** [y](http://e.example) =cmd|' /C calc'!A0"
# An audit of few trials, the caption of its worst sample replaced by a hostile one, and the App's server. Not through
# launch_app: it gives up when a busy machine is slow to start.
SERVER = """
import json, runpy, sys
import fiftyone as fo
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io import audit_view, flagged_view
rows, port, hostile = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
dataset = fo.Dataset("panel", persistent=True)
dataset.add_samples([fo.Sample(filepath=path, caption=text) for path, text in rows])
settings = dict(trials=8, epochs=10, encoder="offline", device="cpu", false_alarms=0.1)
audit_view(dataset[:112], AuditConfig(**settings))
worst = flagged_view(dataset, "audit").first()
worst["caption"] = hostile
worst.save()
import fiftyone.server.main as server
sys.argv = ["main.py", "--port", port, "--address", "127.0.0.1"]
runpy.run_path(server.__file__, run_name="__main__")
"""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[str]:
    """Address of an App that shows 120 drawn persons, 112 of them audited."""
    from audit_plugin.demo import draw_demo

    manifest = draw_demo(tmp_path / "demo", 120, seed=1)
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = [(str(manifest.parent / row["image"]), row["caption"]) for row in csv.DictReader(file)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, json.dumps(rows), str(port), HOSTILE],
        env={**os.environ, "FIFTYONE_DATABASE_DIR": str(tmp_path / "db"), "PYTHONUNBUFFERED": "1"},
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
            if "Running on" in line:
                break
        assert lines
        assert "Running on" in lines[-1], "".join(lines)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


@pytest.fixture
def page(app: str) -> Iterator[Any]:
    """The dataset's page with the panel open; an alert or an uncaught error fails the test."""
    faults: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.set_default_timeout(90_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.add_init_script("window.IS_PLAYWRIGHT=true; localStorage.setItem('fiftyone-do-not-track','true')")
        page.route(lambda url: not url.startswith(app), lambda route: route.abort())
        page.goto(f"{app}/datasets/panel")
        page.locator('[data-cy="new-panel-btn"]').first.click()
        page.locator('[data-cy="new-panel-option-audit_panel"]').click()
        page.wait_for_selector('[data-cy="panel-content-audit_panel"]')
        yield page
        browser.close()
    assert [fault for fault in faults if "loading" not in fault] == []


def test_a_review_in_the_panel(page: Any) -> None:
    expect = playwright.expect
    expect.set_options(timeout=60_000)
    panel = page.locator('[data-cy="panel-content-audit_panel"]')
    counts = page.locator('[data-cy="entry-counts"]')
    expect(panel.get_by_text("8 new samples since the audit")).to_be_visible()
    panel.locator('input[type="range"]').first.focus()
    page.keyboard.press("PageDown")
    panel.get_by_role("button", name="Keep this threshold").first.wait_for()
    expect(counts).not_to_have_text("120 samples")
    shot(page, "panel-1-overview")
    panel.get_by_role("tab", name="Plots").click()
    panel.locator(".js-plotly-plot .bars path").first.wait_for(state="attached")
    shot(page, "panel-2-plots")
    panel.get_by_role("tab", name="Queue").click()
    panel.get_by_role("button", name="Keep", exact=True).wait_for()
    expect(panel.get_by_text(HOSTILE)).to_be_visible()
    shot(page, "panel-3-queue")
    panel.get_by_role("button", name="Keep", exact=True).click()
    expect(panel.get_by_text("1 of").first).to_be_visible()
    panel.get_by_text("New caption", exact=True).locator("xpath=following::input[1]").fill("a typed caption")
    panel.get_by_role("button", name="Relabel to typed text").click()
    expect(panel.get_by_text("2 of").first).to_be_visible()
    panel.get_by_role("button", name="Remove", exact=True).click()
    expect(panel.get_by_text("3 of").first).to_be_visible()
    panel.get_by_role("button", name="Undo last decision").click()
    expect(panel.get_by_text("2 of").first).to_be_visible()
    panel.get_by_role("tab", name="Apply").click()
    panel.get_by_role("button", name="Apply 1 change", exact=True).click()
    shot(page, "panel-4-confirm")
    page.get_by_role("button", name="Apply 1 change", exact=True).last.click()
    panel.get_by_role("button", name="Undo 1 change", exact=True).wait_for()
    shot(page, "panel-5-applied")
