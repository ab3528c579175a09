"""Hostile names everywhere, in the App, in a browser: no request leaves, no link is made, no script runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests import browsing
from tests.browsing import App, need_browser, shot

pytestmark = [pytest.mark.fiftyone, pytest.mark.browser]
playwright = need_browser()
expect = playwright.expect
chromium = pytest.fixture(scope="module")(browsing.chromium)
ROOT = Path(__file__).resolve().parents[1]
HOSTILE = (
    "![i](http://e.example/i.png) <img src=http://e.example/j.png onerror=document.title='hacked'> "
    "[l](javascript:alert(1)) <script>alert(2)</script> <http://e.example/k> http://e.example/l www.e.example "
    "a@e.example `c` | **b** \u202etxet"
)
# Captions, labels, notes, reviewers, the dataset, and what an audit says: its repairs, notes and what it trained.
PREPARED = """
import sys
sys.path.insert(0, root)
import fiftyone.core.runs as fors
from tests.review_fixtures import written
from audit_plugin.fiftyone_io import decide
dataset = fo.Dataset("names <img src=x onerror=alert(3)> ![i](x)", persistent=True)
dataset.add_samples([
    fo.Sample(filepath=path, caption=hostile, split=hostile, group=hostile, kind=fo.Classification(label=hostile))
    for path, _ in rows
])
written(dataset, (4, 1, 6))
dataset.set_values("audit_suggestion", [f"first {hostile} last"] * 8)  # as what differs from the caption
results = dataset.load_run_results("audit", cache=False)
repairs = [{"kind": "shift", "rows": [1, 4, 6], "sentence": hostile}]
more = {"repairs": repairs, "notes": [hostile], "trained": hostile, "flags": {"misaligned": 3}, "encoder": {},
        "samples": 8, "failures": 0, "probe_recall": {hostile: 0.5}, "protocol": {"groups": {hostile: {"n": 1}}}}
results.summary = {**results.summary, **more}
fors.Run.save_run_results(dataset, "audit", results, cache=False)
ids = dataset.values("id")
decide(dataset, ids[4], "relabel", "audit", text=hostile, note=hostile, reviewer=hostile)
decide(dataset, ids[4], "remove", "audit", reviewer="b" + hostile)
result = dataset.name
"""
PAGE = """
import json, sys
import fiftyone.operators as foo
from fiftyone.operators import types
plugin = type(foo.get_operator("@multimem/audit/run_audit")).__module__.rpartition(".")[0]
outputs, base = sys.modules[plugin + ".outputs"], sys.modules[plugin + ".base"]
summary = fo.load_dataset(name).load_run_results("audit", cache=False).summary
output, values = outputs.audit_output(summary, "audit", "/run/" + hostile)
form = types.Object()
base.block(form, "error", types.Error(label=hostile, description=hostile))
for field, element in form.properties.items():
    output.add_property(field, element)
page = sys.modules[plugin + ".markdown"].without_markdown(types.Property(output))
result = json.loads(json.dumps([page.to_json(), values]))
"""
ACTING = """() => [...document.querySelectorAll(
  'img[src*="e.example"], a[href*="e.example"], a[href^="javascript"], a[href^="mailto"], script:not([src]):not([type])'
)].map((element) => element.outerHTML).filter((html) => html.includes("example") || html.includes("alert"))"""


@pytest.fixture(scope="module")
def app() -> App:
    return browsing.serve()


@pytest.fixture
def page(app: App, chromium: Any) -> Iterator[Any]:
    name = app.do(PREPARED, rows=browsing.persons(20)[:8], hostile=HOSTILE, root=str(ROOT))
    yield from browsing.open_page(chromium, app, quote(name, safe=""))


def show(page: Any, output: Any, values: Any) -> None:
    """Open an output page, as an operator does."""
    page.evaluate(
        "([outputs, results]) => window.__foo__.executeOperator('show_output', {outputs, results})", [output, values]
    )


def test_hostile_names_do_nothing(app: App, page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "e.example" in request.url else None)

    def nothing_acts(name: str) -> None:
        shot(page, f"names-{name}")
        assert page.evaluate(ACTING) == [], name
        assert not asked, (name, asked)

    browsing.wait_for_grid(page)
    panel, form = browsing.open_panel(page), browsing.form_of(page)
    accept = panel.get_by_role("button", name="Relabel 3 samples")
    expect(accept).to_be_visible()
    nothing_acts("overview")
    browsing.retry(lambda: accept.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    nothing_acts("repair")
    form.get_by_role("button", name="Cancel").click()
    browsing.open_tab(panel, "Queue", panel.get_by_role("button", name="Keep (1)"))
    expect(panel.get_by_text("Suggestion: first")).to_be_visible()
    nothing_acts("queue")
    export = panel.get_by_role("button", name="Export", exact=True)
    browsing.open_tab(panel, "Report and apply", export)
    expect(panel.get_by_text("Reviewers disagree")).to_be_visible()
    nothing_acts("apply")
    browsing.retry(lambda: export.click(timeout=5000), lambda: form.wait_for(timeout=5000))
    nothing_acts("export")
    form.get_by_role("button", name="Cancel").click()
    loaded = app.do("result = next(name for name in fo.list_datasets() if name.startswith('names '))")
    show(page, *app.do(PAGE, name=loaded, hostile=HOSTILE))
    expect(page.get_by_text("8 samples audited")).to_be_visible()
    expect(page.get_by_text("![i](http").first).to_be_visible()
    nothing_acts("result")
    assert page.title() != "hacked"
    page.get_by_role("button", name="Done").click()
    # the same text as Markdown does act: what is looked for above can be seen
    output, _ = app.do(PAGE, name=loaded, hostile=HOSTILE)
    show(page, output, {"found": HOSTILE})
    page.locator("img[src*='e.example']").first.wait_for(state="attached")
    assert page.evaluate(ACTING)
    assert asked
