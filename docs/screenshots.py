"""Takes the README's pictures from the demo dataset, in a headless browser: `python docs/screenshots.py`.

The demo is loaded into a database of its own, never the user's; after `make demo` everything else of it is there
already. Uses the helpers of the browser tests.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import own_database  # noqa: E402 (the root has to be found first)
from tests import browsing  # noqa: E402

DATASET, RUN = "audit-demo", "audit"
IMAGES = ROOT / "docs" / "images"
LARGEST = 200_000  # bytes
SETTLE_MS = 2000  # thumbnails fade in, plots are drawn
REPORT = """
from audit_plugin.fiftyone_io.results.reports import review_report
from audit_plugin.report import write_report
write_report(review_report(fo.load_dataset(dataset), run), path)
"""


def main() -> None:
    """All five."""
    IMAGES.mkdir(exist_ok=True)
    database = own_database.start()
    demo = [sys.executable, "-m", "audit_plugin", "demo", "--out", str(ROOT / "demo")]
    subprocess.run(demo, env={**os.environ, **database}, cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        plugins = home / "plugins"  # this clone's plugin, whatever is linked on this machine
        plugins.mkdir()
        (plugins / "audit").symlink_to(ROOT, target_is_directory=True)
        app = browsing.launch(home, FIFTYONE_PLUGINS_DIR=str(plugins), FIFTYONE_DO_NOT_TRACK="true", **database)
        for browser in browsing.chromium():
            for page in browsing.open_page(browser, app, f"{DATASET}?view={RUN}-flagged"):
                show_app(page)
            app.do(REPORT, dataset=DATASET, run=RUN, path=str(home / "report.html"))
            page = browser.new_page(viewport={"width": 1500, "height": 950})
            page.goto(f"file://{home / 'report.html'}")
            keep(page, "report")


def show_app(page: Any) -> None:
    """The grid, then the panel beside it, tab by tab."""
    browsing.wait_for_grid(page)
    keep(page, "flagged")
    panel = browsing.open_panel(page)
    panel.get_by_role("button", name="Show", exact=True).first.wait_for()
    keep(page, "overview")
    plots = panel.locator(".js-plotly-plot")
    browsing.open_tab(panel, "Plots", plots.first)
    scatter = plots.filter(has=page.locator(".scatterlayer")).first
    scatter.wait_for()
    scatter.scroll_into_view_if_needed()
    keep(page, "plots")
    browsing.open_tab(panel, "Queue", panel.get_by_role("button", name="Keep (1)"))
    keep(page, "queue")


def keep(page: Any, name: str) -> None:
    """A picture of the page, of few enough colors to be small."""
    from PIL import Image

    page.mouse.move(0, 0)  # nothing is lit up
    page.wait_for_timeout(SETTLE_MS)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = IMAGES / f"{name}.png"
    for colors in (256, 128, 64, 32):
        picture.quantize(colors, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size < LARGEST:
            break
    sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
