"""The benchmark of the review drives the App as a person does: on a small dataset, however long it takes."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests import browsing
from tests.browsing import need_browser

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
chromium = pytest.fixture(scope="module")(browsing.chromium)
review_speed = importlib.import_module("benchmarks.review_speed")
MADE = """
from audit_plugin.fiftyone_io import decisions
result = [made.kind for made in decisions(fo.load_dataset("speed"))]
"""


def test_each_step_is_taken_and_decisions_are_made(chromium: Any) -> None:
    app = browsing.serve()
    then = f"{browsing.audit()}flagged = {review_speed.FLAGGED}\n{review_speed.FLAG_MORE}"
    browsing.make_dataset(app, "speed", browsing.persons(120), then)
    for page in browsing.open_page(chromium, app, "speed", *review_speed.WINDOW):
        seconds = review_speed.one_session(page, 2)
    assert set(review_speed.TARGETS) - set(seconds) == {"40 by key", "40 by button"}
    assert {"2 by key", "2 by button", "lasso", "queue"} <= set(seconds)
    assert app.do(MADE) == ["keep"] * 2 + ["undone"] * 2 + ["keep"] * 2
