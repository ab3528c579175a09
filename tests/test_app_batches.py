"""A batch, a spot check, the report, new samples: in the App, in a browser. Screenshots are kept in artifacts/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import browsing
from tests.browsing import App, need_browser, settle, shot, submit

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
HOSTILE = "<script>document.title='hacked'</script> =cmd|' /C calc'!A0 \u202etxet"
KINDS = "from audit_plugin.fiftyone_io import current_decisions; " + (
    "result = sorted(d.kind for d in current_decisions(fo.load_dataset('batches')).current.values())"
)
CHECKED = "from audit_plugin.fiftyone_io import spot_check; " + (
    "result = sum(map(bool, spot_check(fo.load_dataset('batches'), 'audit').verdicts))"
)
NEW = (
    "from audit_plugin.fiftyone_io.results.findings import count_new; "
    "result = count_new(fo.load_dataset('batches'), 'audit')"
)


@pytest.fixture(scope="module")
def app() -> App:
    """Of 120 persons 112 are audited; one caption is hostile."""
    app, rows = browsing.serve(), browsing.persons(120)
    browsing.make_dataset(app, "batches", [(rows[0][0], HOSTILE), *rows[1:]], browsing.audit("dataset[:112]"))
    return app


@pytest.fixture
def page(app: App, chromium: Any) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, "batches")


def ask(page: Any, button: Any) -> Any:
    """Click a button that opens a form."""
    form = browsing.form_of(page)
    browsing.retry(lambda: button.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    return form


def choose(page: Any, dropdown: Any, option: str) -> None:
    choice = page.get_by_role("option", name=option, exact=True)
    browsing.retry(lambda: dropdown.click(timeout=5000), lambda: choice.wait_for(timeout=5000))
    choice.click()


def test_a_batch_and_a_spot_check_and_the_report(app: App, page: Any, tmp_path: Path) -> None:
    panel = browsing.open_panel(page)
    card = panel.get_by_text(re.compile(r"^Placeholder: \d+$"))
    card.wait_for()
    bulk = panel.get_by_role("button", name="Decide in bulk")
    form = ask(page, bulk.first)
    form.get_by_text("Remove: hide it when decisions are applied").click()
    notice = form.get_by_text(re.compile(r"^Remove \d+ samples?\.")).inner_text()
    count = int(re.search(r"Remove (\d+) samples?", notice).group(1))
    assert count > 2
    shot(page, "batch-1-form")
    submit(form, f"Remove {count} samples")
    app.eventually(KINDS, lambda kinds: kinds == ["remove"] * count)

    start = panel.get_by_role("button", name="Start spot check")
    keep = panel.get_by_role("button", name="Keep (1)")
    browsing.open_tab(panel, "Queue", keep)
    choose(page, panel.get_by_role("combobox").filter(has_text="All findings"), "Spot check")
    form = ask(page, start)
    form.locator('input[type="number"]').fill("4")
    submit(form, "Draw samples")
    expect(panel.get_by_text("0 of 4")).to_be_visible()
    expect(panel.get_by_text("higher than")).to_have_count(0)  # no scores that would lead
    shot(page, "spot-1-blind")
    decide_all_four(app, page, panel)
    expect(panel.get_by_text("Spot check (4 decided, 90% intervals)")).to_be_visible()
    shot(page, "spot-2-done")
    browsing.open_tab(panel, "Overview", card)
    expect(panel.get_by_text("Spot check, 90% intervals")).to_be_visible()

    export = panel.get_by_role("button", name="Export", exact=True)
    browsing.open_tab(panel, "Report and apply", export)
    form = ask(page, export)
    form.locator("input").last.fill("batches.html")
    shot(page, "report-1-form")
    with page.expect_download() as download:
        submit(form, "Export")
    page.get_by_text("No file of it is kept on the server").last.wait_for()
    shot(page, "report-2-written")
    assert download.value.suggested_filename == "batches.html"
    download.value.save_as(tmp_path / "downloaded.html")
    assert b"<html" in (tmp_path / "downloaded.html").read_bytes()
    report = page.context.new_page()
    report.goto((tmp_path / "downloaded.html").as_uri())
    expect(report.get_by_text(re.compile(r"spot check, 90%")).first).to_be_visible()
    shot(report, "report-3-open")
    assert report.title() != "hacked"
    assert page.title() != "hacked"


def decide_all_four(app: App, page: Any, panel: Any) -> None:
    """Decide on the samples of the spot check, one after the other."""
    settle(page)
    done = panel.get_by_text("All samples are decided")
    for number in range(1, 5):
        name = "Remove (2)" if number % 2 else "Keep (1)"
        browsing.press(page, panel.get_by_role("button", name=name, exact=True))
        expect(panel.get_by_text(f"{number} of 4").or_(done).first).to_be_visible()
        assert app.do(CHECKED) == number
    expect(done).to_be_visible()


def test_new_samples_are_scanned(app: App, page: Any) -> None:
    panel = browsing.open_panel(page)
    browsing.open_tab(panel, "Overview", panel.get_by_text("8 new samples since the audit"))  # the App keeps the tab
    form = ask(page, panel.get_by_role("button", name="Scan new samples"))
    expect(form.get_by_text("8 samples added after the audit.")).to_be_visible()
    submit(form, "Scan 8 samples")
    app.eventually(NEW, lambda count: count == 0)
    expect(panel.get_by_text("new samples since the audit")).to_have_count(0)
    shot(page, "scan-1-done")
