"""The audit as a person does it: in the App, in a browser. Screenshots are kept in artifacts/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import browsing
from tests.browsing import App, need_browser, shot, submit
from tests.media_fixtures import tone, write_wav

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)


@pytest.fixture(scope="module")
def app() -> App:
    return browsing.serve()


@pytest.fixture
def page(app: App, chromium: Any) -> Iterator[Any]:
    browsing.make_dataset(app, "start", browsing.persons(120)[:60])
    yield from browsing.open_page(chromium, app, "start")


@pytest.fixture
def sounds(app: App, chromium: Any, tmp_path: Path) -> Iterator[Any]:
    rows = []
    for number in range(6):
        swell = np.abs(np.sin(np.linspace(0, 3 + number, 16_000)))
        rows.append((write_wav(tmp_path / f"tone{number}.wav", swell * tone(220 + 60 * number, 1, 16_000), 16_000), ""))
    browsing.make_dataset(app, "sounds", rows)
    yield from browsing.open_page(chromium, app, "sounds")


def reload_and_filter(page: Any, tag: str) -> None:
    """Filter by a tag in a sidebar that was just opened; what is chosen while the App still counts tags is lost."""
    page.reload()  # the App reads the groups of the sidebar only when it opens a dataset
    browsing.wait_for_grid(page)
    expect(page.locator('[data-cy="sidebar-group-AUDIT"]')).to_be_visible()
    page.locator('[data-cy="sidebar-field-arrow-enabled-tags"]').click()
    page.locator('[data-cy="selector-sidebar-search-tags"]').click()
    page.locator('[data-cy="selector-results-container-sidebar-search-tags"]').get_by_text(tag, exact=True).click()


def test_audit_from_the_panel_and_filter_by_tag(page: Any) -> None:
    counts = page.locator('[data-cy="entry-counts"]')
    browsing.wait_for_grid(page)
    panel = browsing.open_panel(page)
    shot(page, "1-start")
    form = browsing.form_of(page)
    start = panel.get_by_role("button", name="Start audit")
    browsing.retry(lambda: start.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    expect(form.get_by_text("60 samples")).to_be_visible()
    form.get_by_text("Advanced options").click()
    expect(form.get_by_text("Epochs per trial")).to_be_visible()
    shot(page, "2-advanced")
    form.get_by_text("Advanced options").click()
    expect(form.get_by_text("Epochs per trial")).to_be_hidden()
    trials, rate = form.locator('input[type="number"]').all()
    trials.fill("8")
    rate.fill("0.1")  # so few samples make faint scores
    expect(form.get_by_text("60 samples")).to_be_visible()
    shot(page, "3-form")
    submit(form, "Audit")
    page.get_by_text(re.compile(r"^[A-Z][a-z ]+: \d+ of \d+$")).first.wait_for()
    shot(page, "4-progress")
    page.get_by_text("60 samples audited").wait_for(timeout=300_000)
    shot(page, "5-result")
    row = page.get_by_role("row").filter(has_text="audit:misaligned")
    tagged = int(row.get_by_role("cell").nth(1).inner_text())
    assert 1 <= tagged < 30
    page.get_by_role("button", name="Show flagged samples").click()
    page.get_by_role("button", name="Done").click()
    expect(page).to_have_url(re.compile("view=audit-flagged"))
    expect(counts).not_to_have_text("60 samples")
    expect(panel.get_by_text(f"Misaligned: {tagged}", exact=True)).to_be_visible()
    shot(page, "6-flagged")
    page.locator('[data-cy="btn-clear-view-bar"]').click()
    expect(counts).to_have_text("60 samples")
    only_tagged = re.compile(rf"^{tagged} samples?\s*$")
    browsing.retry(
        lambda: reload_and_filter(page, "audit:misaligned"),
        lambda: expect(counts).to_have_text(only_tagged, timeout=20_000),
        times=5,
    )
    shot(page, "7-misaligned")


def test_sounds_have_a_player_with_a_waveform_in_grid_and_modal(sounds: Any) -> None:
    grid = sounds.locator('[data-cy="fo-grid"]')
    tile = grid.locator('[data-cy="audit-audio"]').first
    tile.wait_for()
    expect(tile.locator("audio")).to_be_visible()
    waveform = "e => new Set([...e.querySelectorAll('rect')].map(bar => bar.getAttribute('height'))).size > 5"
    expect(tile.locator("svg")).to_be_visible()
    sounds.wait_for_function(f"() => ({waveform})(document.querySelector('[data-cy=audit-audio]'))")
    shot(sounds, "sound-1-grid")
    modal = sounds.locator('[data-cy="modal"]')
    browsing.retry(lambda: tile.locator("svg").click(timeout=5000), lambda: modal.wait_for(timeout=5000))
    player = modal.locator('[data-cy="audit-audio"]')
    player.wait_for()
    sounds.wait_for_function(f"() => ({waveform})(document.querySelector('[data-cy=modal] [data-cy=audit-audio]'))")
    player.locator("audio").evaluate("player => { player.muted = true; return player.play() }")
    sounds.wait_for_function("() => document.querySelector('[data-cy=modal] audio').currentTime > 0.2")
    shot(sounds, "sound-2-modal")
