"""Takes the README's pictures and its short film, in a headless browser: `python docs/screenshots.py`.

2,000 photographs of clothing that lie beside the project (CC0), of whose labels 8% are replaced by those of other
photographs, are audited in a database of their own, never the user's. Uses the helpers of the browser tests.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from audit_plugin.arrays import Samples  # noqa: E402 (the root has to be found first)
from benchmarks import own_database  # noqa: E402
from benchmarks.noise import plant  # noqa: E402
from benchmarks.sets import load_set  # noqa: E402
from tests import browsing  # noqa: E402

DATASET, RUN = "clothing", "audit"
IMAGES = ROOT / "docs" / "images"
ROWS, WRONG, SEED = 2000, 0.08, 2  # photographs, share of wrong labels, and which
LARGE, SMALL = (1500, 950), (1280, 720)  # of the window
QUALITY = 80  # of WebP
FILM_WIDTH, FILM_QUALITY, LARGEST_FILM = 960, 55, 3_000_000  # pixels, of WebP, bytes
SETTLE_MS = 3000  # thumbnails fade in, plots are drawn
DECIDED = 6  # findings, in the film
AUDITED = """
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io import audit_view
dataset = fo.Dataset(name, persistent=True)
labels = [fo.Classification(label=label) for _, label in rows]
dataset.add_samples([fo.Sample(filepath=path, ground_truth=of) for (path, _), of in zip(rows, labels)])
audit_view(dataset, AuditConfig(run=run, text="ground_truth", encoder="offline", device="cpu"))
"""
REPORT = """
from audit_plugin.fiftyone_io.results.reports import review_report
from audit_plugin.report import write_report
write_report(review_report(fo.load_dataset(dataset), run), path)
"""


def main() -> None:
    """All pictures, and the film."""
    IMAGES.mkdir(exist_ok=True)
    database = own_database.start()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        plugins = home / "plugins"  # this clone's plugin, whatever is linked on this machine
        plugins.mkdir()
        (plugins / "audit").symlink_to(ROOT, target_is_directory=True)
        settings = {"FIFTYONE_PLUGINS_DIR": str(plugins), "FIFTYONE_DO_NOT_TRACK": "true"}
        app = browsing.launch(home, **settings, **database)
        samples = photographs()
        rows = list(zip(samples.media["image"], samples.media["text"], strict=True))
        app.do(AUDITED, name=DATASET, run=RUN, rows=rows)
        for browser in browsing.chromium():
            for page in browsing.open_page(browser, app, f"{DATASET}?view={RUN}-flagged", *LARGE):
                show_app(page)
            for page in browsing.open_page(browser, app, DATASET, *SMALL):
                film(page)
            app.do(REPORT, dataset=DATASET, run=RUN, path=str(home / "report.html"))
            page = browser.new_page(viewport={"width": LARGE[0], "height": LARGE[1]})
            page.goto(f"file://{home / 'report.html'}")
            keep(page, "report")


def photographs() -> Samples:
    """Photographs with their labels, of which a share `WRONG` is that of another photograph."""
    return plant(load_set(DATASET, ROWS), "random", WRONG, "copied", SEED).samples


def show_app(page: Any) -> None:
    """The grid, then the panel beside it, tab by tab; the queue in a small window and in light colors, too."""
    browsing.wait_for_grid(page)
    keep(page, "flagged")
    panel = browsing.open_panel(page)
    panel.get_by_role("button", name="Show", exact=True).first.wait_for()
    browsing.wait_for_grid(page)  # drawn again beside the panel
    keep(page, "overview")
    plots = panel.locator(".js-plotly-plot")
    browsing.open_tab(panel, "Plots", plots.first)
    scatter = plots.filter(has=page.locator(".scatterlayer")).first
    scatter.wait_for()
    scatter.scroll_into_view_if_needed()
    keep(page, "plots")
    browsing.open_tab(panel, "Queue", panel.get_by_role("button", name="Keep (1)"))
    keep(page, "queue")
    page.set_viewport_size({"width": SMALL[0], "height": SMALL[1]})
    page.get_by_title("Light mode").click()
    keep(page, "queue-small")
    page.get_by_title("Dark mode").click()


def film(page: Any) -> None:
    """From the summary through some decisions by key to what will be applied."""
    frames: list[tuple[bytes, int]] = []  # pictures, and how long each is seen, in ms

    def see(milliseconds: int, settle: int = SETTLE_MS) -> None:
        page.wait_for_timeout(settle)
        frames.append((page.screenshot(), milliseconds))

    browsing.wait_for_grid(page)
    see(1500)
    panel = browsing.open_panel(page)
    panel.get_by_role("button", name="Show", exact=True).first.wait_for()
    browsing.wait_for_grid(page)
    see(3000)
    browsing.open_tab(panel, "Queue", panel.get_by_role("button", name="Keep (1)"))
    see(2500)
    for _ in range(DECIDED):
        has_suggestion = panel.get_by_role("button", name="Suggestion (3)", exact=True).is_visible()
        browsing.press(page, "3" if has_suggestion else "1")
        see(1200, 700)
    apply = panel.get_by_role("button", name="Apply")
    browsing.open_tab(panel, "Report and apply", apply.first)
    see(4000)
    write_film(frames, IMAGES / "tour.webp")


def write_film(frames: list[tuple[bytes, int]], path: Path) -> None:
    """An animated WebP of pictures that are seen for so many milliseconds each."""
    from PIL import Image

    pictures = [Image.open(io.BytesIO(picture)).convert("RGB") for picture, _ in frames]
    height = round(pictures[0].height * FILM_WIDTH / pictures[0].width)
    small = [picture.resize((FILM_WIDTH, height), Image.Resampling.LANCZOS) for picture in pictures]
    small[0].save(
        path,
        save_all=True,
        append_images=small[1:],
        duration=[milliseconds for _, milliseconds in frames],
        loop=0,
        quality=FILM_QUALITY,
        method=6,
    )
    size = path.stat().st_size
    sys.stdout.write(f"{path.relative_to(ROOT)}: {len(frames)} pictures, {size / 1000:.0f} kB\n")
    if size > LARGEST_FILM:
        raise SystemExit(f"{path} has {size} bytes, more than {LARGEST_FILM}; take fewer pictures or a lower quality")


def keep(page: Any, name: str) -> None:
    """A picture of the page."""
    from PIL import Image

    page.mouse.move(0, 0)  # nothing is lit up
    page.wait_for_timeout(SETTLE_MS)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = IMAGES / f"{name}.webp"
    picture.save(path, quality=QUALITY, method=6)
    sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
