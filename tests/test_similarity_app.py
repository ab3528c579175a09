"""The App's own similarity search on an index of an audit, in a browser: type words, see the right person first."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
pytest.importorskip("fiftyone")
playwright = pytest.importorskip("playwright.sync_api")

from tests.test_app import CHROMIUM, FLAGS, shot  # noqa: E402 (skips this file too where there is no browser)

SERVER = """
import json, sys
import fiftyone as fo
from audit_plugin import fiftyone_io, similarity
from audit_plugin.config import AuditConfig
dataset = fo.Dataset("searched", persistent=True)
dataset.add_samples([fo.Sample(filepath=path, caption=text) for path, text in json.loads(sys.argv[1])])
fiftyone_io.audit_view(dataset, AuditConfig(encoder="offline", trials=4, epochs=2))
similarity.build_index(dataset, modality="joint")
session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=int(sys.argv[2]))
print("READY", flush=True)
session.wait(-1)
"""
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def persons(tmp_path: Path) -> list[tuple[str, str]]:
    """(picture, description) of 60 drawn persons."""
    from audit_plugin.demo import draw_demo

    manifest = draw_demo(tmp_path / "demo", 60, seed=1)
    with manifest.open(encoding="utf-8", newline="") as file:
        return [(str(manifest.parent / row["image"]), row["caption"]) for row in csv.DictReader(file)]


@pytest.fixture
def app(tmp_path: Path, persons: list[tuple[str, str]]) -> Iterator[str]:
    """Address of an App that shows them, audited and indexed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "FIFTYONE_DATABASE_DIR": str(tmp_path / "db"),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, json.dumps(persons), str(port)],
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
        assert "READY" in "".join(lines[-1:]), "".join(lines)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def test_words_typed_into_the_search_bring_the_right_person_first(app: str, persons: list[tuple[str, str]]) -> None:
    _, words = persons[7]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page: Any = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60_000)
        page.add_init_script("window.IS_PLAYWRIGHT=true; localStorage.setItem('fiftyone-do-not-track','true')")
        page.route(lambda url: not url.startswith(app), lambda route: route.abort())
        page.goto(f"{app}/datasets/searched")
        page.wait_for_selector('[data-cy="fo-grid"] [data-cy="looker"]')
        page.locator('[data-cy="action-sort-by-similarity"]').first.click()
        page.get_by_placeholder("Type anything!").fill(words.rpartition(",")[0])  # not the whole description
        page.keyboard.press("Enter")
        counts = page.locator('[data-cy="entry-counts"]').first
        playwright.expect(counts).to_have_text(re.compile(r"^25 samples"), timeout=120_000)  # the encoder is loaded
        page.wait_for_timeout(2000)  # thumbnails
        shot(page, "similarity-words")
        page.locator('[data-cy="fo-grid"] [data-cy="looker"]').first.click()
        playwright.expect(page.locator('[data-cy="modal"]').get_by_text(words).first).to_be_visible()
        shot(page, "similarity-first")
        browser.close()
