"""The clean data as a person exports them in the App, in a browser: counts, format, download."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import browsing
from tests.browsing import App, need_browser, shot, submit

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
DECIDED = """
from audit_plugin.fiftyone_io import decide
decide(dataset, dataset.values("id")[:2], "remove", reviewer="ann")
"""


@pytest.fixture(scope="module")
def app() -> App:
    app = browsing.serve()
    browsing.make_dataset(app, "exports", browsing.persons(120)[:60], browsing.audit() + DECIDED)
    return app


@pytest.fixture
def page(app: App, chromium: Any) -> Iterator[Any]:
    yield from browsing.open_page(chromium, app, "exports")


def open_form(page: Any) -> Any:
    """The form for the clean data."""
    page.set_viewport_size({"width": 1280, "height": 720})
    browsing.wait_for_grid(page)
    form = browsing.open_operator(page, "Export review")
    choose(page, form, "HTML report, one self-contained file", "Clean data, ready to train on")
    return form


def choose(page: Any, form: Any, shown: str, label: str) -> None:
    """Choose in the list that shows `shown`."""
    option = page.get_by_role("option", name=label)
    browsing.retry(
        lambda: form.get_by_text(shown, exact=True).click(timeout=5000), lambda: option.wait_for(timeout=5000)
    )
    option.click()


def test_the_clean_data_are_counted_and_downloaded(page: Any, tmp_path: Path) -> None:
    form = open_form(page)
    expect(form.get_by_text(re.compile(r"^\d+ of 60 rows will be exported"))).to_be_visible()
    expect(form.get_by_text("2 rows: decision remove (by ann)")).to_be_visible()
    shot(page, "exports-1-counts")
    count = re.match(r"\d+", form.get_by_text(re.compile(r"^\d+ of 60 rows will be exported")).inner_text())
    assert count is not None
    assert int(count[0]) <= 58
    choose(page, form, "webdataset: tar shards", "hf-folder: media and metadata.jsonl for load_dataset")
    shot(page, "exports-2-format")
    with page.expect_download() as download:
        submit(form, f"Export {count[0]} rows")
    download.value.save_as(tmp_path / "clean.zip")
    with zipfile.ZipFile(tmp_path / "clean.zip") as archive:
        names = archive.namelist()
    assert sum(name.endswith(".png") for name in names) == int(count[0])
    assert {"exports-clean/metadata.jsonl", "exports-clean/removed.parquet", "exports-clean/audit.md"} <= set(names)
    expect(page.get_by_text(re.compile(rf"^Wrote {count[0]} rows to .*exports-clean.zip"))).to_have_count(2)
    shot(page, "exports-3-written")


def test_a_table_is_downloaded_and_replaced_only_after_a_tick(page: Any, tmp_path: Path) -> None:
    for again in (False, True):
        form = open_form(page)
        choose(page, form, "webdataset: tar shards", "csv: a table with paths of media")
        button = form.get_by_role("button", name=re.compile(r"^Export \d+ rows$"))
        if again:
            expect(button).to_be_disabled()
            shot(page, "exports-4-exists")
            form.get_by_role("checkbox", name=re.compile("^Replace the file")).check()
        expect(button).to_be_enabled()
        with page.expect_download() as download:
            submit(form, button.inner_text())
        download.value.save_as(tmp_path / "clean.csv")
        assert (tmp_path / "clean.csv").read_text().startswith("id,image,text")
        page.get_by_role("button", name="Done").click()
