"""Time that a reviewer waits for the App: the panel, a threshold, a lasso, and decisions by key and by button.

Run as `python -m benchmarks.review_speed [--rows 300] [--repeats 3]`. Up to 1,000 rows are drawn persons, audited as
the demo is; more rows have no media files and get what an audit writes (`benchmarks.panel_open`). A real server and
Chromium are driven as a person does it; each repeat has a copy of the dataset and a fresh page. A decision takes from
the key or click until the next row is drawn. The JSON holds seconds. Measure on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import own_database

os.environ.update(own_database.settings())  # before FiftyOne is imported

from benchmarks.panel_open import audited
from benchmarks.record import write_report

browsing: Any = importlib.import_module("tests.browsing")
ROOT = Path(__file__).resolve().parents[1]
DRAWN = 1_000  # rows at most that get pictures and a real audit
FLAGGED, DECIDED = 60, 40  # rows in the queue of the demo; decisions by key, and by button
TARGETS = {
    "decision by key": 0.4,
    "decision by button": 0.8,
    "panel": 1.5,
    "threshold": 0.5,
    "lasso": 2.0,
    "40 by key": 25.0,
    "40 by button": 45.0,
}
WINDOW = 1280, 720  # pixels
TWICE_SECONDS = 0.26  # a second key within 250 ms counts as a double press
FLAG_MORE = """
import numpy as np
from audit_plugin.fiftyone_io.results.thresholds import set_threshold
scores = np.sort(np.array(dataset.values("audit_misalignment"), dtype=float))[::-1]
set_threshold(dataset, "audit", "misaligned", float(scores[min(flagged, len(scores)) - 1]))
"""
PANEL = '[data-cy="panel-content-audit_panel"]'
# which drawing of the panel is shown, and how many are decided
STATE = f"""() => {{
  const panel = document.querySelector('{PANEL}'), drawn = panel && panel.querySelector("[data-audit-drawn]");
  const done = panel && panel.innerText.match(/[\\d,]+ of [\\d,]+ decided/);
  return [drawn && drawn.getAttribute("data-audit-drawn"), done && done[0]];
}}"""
IS_DECIDED = f"before => ({STATE})().every((part, at) => part && part !== before[at])"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures all steps several times, writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.review_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--decisions", type=int, default=DECIDED, help=argparse.SUPPRESS)
    parser.add_argument("--try", dest="trial", action="store_true", help="print the numbers, and write no JSON")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    runs = measure(options.rows, options.repeats, options.decisions)
    steps = {step: [run[step] for run in runs] for step in runs[0]}
    report = {
        "rows": options.rows,
        "repeats": options.repeats,
        "decisions": options.decisions,
        "load": {"before": load, "after": os.getloadavg()[0]},
        "window": WINDOW,
        "targets": TARGETS,
        "median": {step: round(statistics.median(values), 3) for step, values in steps.items()},
        "longest": {step: round(max(values), 3) for step, values in steps.items()},
        "clicks": {"to the first case": 4, "each decision by key": 1, "each decision by button": 1},
    }
    if not options.trial:
        write_report(f"review-speed-{options.rows}", "How many seconds does a reviewer wait for the App?", report)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


def measure(rows: int, repeats: int, decisions: int) -> list[dict[str, float]]:
    """Step -> seconds, of each repeat."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as app:
        prepare(app, "measured", rows, Path(folder))
        found = []
        for browser in browsing.chromium():
            for number in range(repeats):
                browsing.copy_dataset(app, "measured", f"measured-{number}")
                app.do(browsing.FORGET)
                page = browser.new_context(viewport=dict(zip(("width", "height"), WINDOW, strict=True))).new_page()
                page.set_default_timeout(1000 * browsing.PATIENCE)
                page.add_init_script("localStorage.setItem('fiftyone-do-not-track', 'true')")
                page.goto(f"{app.address}/datasets/measured-{number}")
                found.append(one_session(page, decisions))
                page.context.close()
    return found


@contextmanager
def served(home: Path) -> Iterator[Any]:
    """A server with this checkout as its only plugin, which it keeps in memory, as `make app` starts it."""
    plugins = home / "plugins"
    plugins.mkdir()
    (plugins / "audit").symlink_to(ROOT, target_is_directory=True)
    settings = {"FIFTYONE_PLUGINS_DIR": str(plugins), "FIFTYONE_PLUGINS_CACHE_ENABLED": "true"}
    yield browsing.launch(home, **settings, FIFTYONE_DO_NOT_TRACK="true")


def prepare(app: Any, name: str, rows: int, folder: Path) -> None:
    """A dataset to review."""
    if rows <= DRAWN:
        browsing.make_dataset(app, name, browsing.persons(rows), f"{browsing.audit()}flagged = {FLAGGED}\n{FLAG_MORE}")
        return
    dataset, _ = audited(rows, folder)
    dataset.name = name


def one_session(page: Any, decisions: int) -> dict[str, float]:
    """Step -> seconds, as a reviewer takes them one after the other."""
    browsing.wait_for_grid(page)
    page.wait_for_timeout(2000)  # the App loads plugins when it likes
    seconds: dict[str, float] = {}
    panel = page.locator('[data-cy="panel-content-audit_panel"]')
    option = browsing.offered(page)
    with timed(seconds, "panel"):
        option.click()
        panel.get_by_role("button", name="Show", exact=True).first.wait_for()
    page.wait_for_timeout(2000)  # the App draws a tab again that was just opened
    above = panel.get_by_text(re.compile(r"samples? with a score of -?\d")).first
    before = above.inner_text()
    panel.locator('input[type="range"]').first.focus()
    with timed(seconds, "threshold"):
        page.keyboard.press("PageUp")  # lower may not be possible
        page.wait_for_function(
            "([node, text]) => !node.isConnected || node.innerText !== text", arg=[above.element_handle(), before]
        )
    page.wait_for_timeout(2000)
    seconds["lasso"] = lassoed(page, panel)
    with timed(seconds, "queue"):
        panel.get_by_role("tab", name="Queue").click()
        panel.get_by_role("button", name="Keep (1)").wait_for()
    page.wait_for_timeout(2000)
    seconds |= decided(page, "key", decisions, lambda: page.keyboard.press("1"))
    keep = panel.get_by_role("button", name="Keep (1)", exact=True)
    undo_all(page, decisions)
    return seconds | decided(page, "button", decisions, keep.click)


def lassoed(page: Any, panel: Any) -> float:
    """Seconds from the end of a lasso until the grid shows what is inside."""
    found: dict[str, float] = {}
    plots, counts = panel.locator(".js-plotly-plot"), page.locator('[data-cy="entry-counts"]')
    browsing.open_tab(panel, "Plots", plots.first)
    scatter = plots.filter(has=page.locator(".scatterlayer")).first
    scatter.scroll_into_view_if_needed()
    page.wait_for_timeout(2000)
    box, before = scatter.locator(".nsewdrag").first.bounding_box(), counts.inner_text()
    left, top, right, bottom = box["x"] + 5, box["y"] + 5, box["x"] + box["width"] / 2, box["y"] + box["height"] - 5
    page.mouse.move(left, top)
    page.mouse.down()
    for corner in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(*corner, steps=10)
    with timed(found, "lasso"):
        page.mouse.up()
        page.wait_for_function(
            "text => document.querySelector('[data-cy=\"entry-counts\"]').innerText !== text", arg=before
        )
    return found["lasso"]


def decided(page: Any, by: str, count: int, act: Callable[[], None]) -> dict[str, float]:
    """Seconds of each decision until the next row is drawn (median), and of all of them."""
    waits, start = [], time.perf_counter()
    for _ in range(count):
        begun = time.perf_counter()
        drawn_after(page, act)
        waits.append(time.perf_counter() - begun)
        page.wait_for_timeout(1000 * max(0.0, TWICE_SECONDS - waits[-1]))
    return {f"decision by {by}": statistics.median(waits), f"{count} by {by}": time.perf_counter() - start}


def undo_all(page: Any, count: int) -> None:
    """Take decisions back, so that as many rows are left."""
    for _ in range(count):
        drawn_after(page, lambda: page.keyboard.press("u"))
        page.wait_for_timeout(1000 * TWICE_SECONDS)


def drawn_after(page: Any, act: Callable[[], None]) -> None:
    """Act, and wait until the panel is drawn again with another number of decisions: it is drawn at other times too."""
    before = page.evaluate(STATE)
    act()
    page.wait_for_function(IS_DECIDED, arg=before)


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Puts the seconds that a block takes into a dictionary."""
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


if __name__ == "__main__":
    main()
