"""The demo set: drawn persons with descriptions, faults planted at known rows, and the count of those found."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from audit_plugin.arrays import AuditResult, Floats

from .folders import check_packages, claimed, mark, write_csv
from .plan import FAULTS, Row, plan_rows

__all__ = ["FAULTS", "draw_demo", "found_missed", "swap_auroc"]

FORM = 1  # raised when the same seed begins to give another set
MARKER = "demo.json"
FLAG_OF = {
    "swapped": "is_misaligned",
    "vague": "is_vague",
    "non-persona": "is_outlier",
    "conflict": "is_conflict",
    "placeholder": "is_placeholder",
}

Progress = Callable[[str, int, int], None]


def draw_demo(out: str | Path, samples: int = 600, seed: int = 0, progress: Progress | None = None) -> Path:
    """Draws the demo set into the folder `out`: `images/*.png`, `manifest.csv` and `truth.csv`.

    `manifest.csv` has id, image (relative to it) and caption; `truth.csv` has id, fault (`none` or one of `FAULTS`)
    and detail. Equal numbers and seeds give equal bytes; a complete set with the same two is left as it is.

    Args:
        out: folder, made if missing; one with other things in it is refused.
        samples: number of rows, at least 20.
        seed: seed of everything drawn.
        progress: called as progress("draw", done, total).

    Returns:
        The path of the manifest.

    Raises:
        AuditError: packages missing, too few samples, or a folder that holds something else.
    """
    out = Path(out)
    marker: dict[str, object] = {"form": FORM, "samples": samples, "seed": seed, "complete": True}
    found = claimed(out, MARKER, "demo set")
    if found == marker and _is_whole(out, samples):
        return out / "manifest.csv"
    check_packages()
    rows = plan_rows(samples, seed)
    mark(out, MARKER, marker | {"complete": False})
    _draw_images(rows, out / "images", seed, progress)
    write_csv(out / "manifest.csv", ("id", "image", "caption"), [(r.id, f"images/{r.id}.png", r.caption) for r in rows])
    write_csv(out / "truth.csv", ("id", "fault", "detail"), [(r.id, r.fault, r.told()) for r in rows])
    mark(out, MARKER, marker)
    return out / "manifest.csv"


def _is_whole(out: Path, samples: int) -> bool:
    files = ("manifest.csv", "truth.csv")
    return all((out / name).is_file() for name in files) and len(list((out / "images").glob("*.png"))) == samples


def _draw_images(rows: list[Row], folder: Path, seed: int, progress: Progress | None) -> None:
    from .oddities import altered, odd_svg, placeholder_png
    from .persons import SIDE, person_svg
    from .render import draw_all

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("demo-*.png"):
        old.unlink()
    jobs = []
    for row in rows:
        if row.subject >= 0:
            svg, _ = odd_svg(row.subject, random.Random(f"{seed} {row.subject}"))
            jobs.append((str(folder / f"{row.id}.png"), svg))
        elif row.fault not in ("conflict", "placeholder"):
            jobs.append((str(folder / f"{row.id}.png"), person_svg(row.person)))
    draw_all(jobs, SIDE, lambda done: progress("draw", done, len(rows)) if progress else None)
    card = placeholder_png()
    for row in rows:
        if row.fault == "placeholder":
            (folder / f"{row.id}.png").write_bytes(card)
        elif row.fault == "conflict" and row.source:
            picture = (folder / f"{row.source.id}.png").read_bytes()
            (folder / f"{row.id}.png").write_bytes(altered(picture, row.way))
    if progress:
        progress("draw", len(rows), len(rows))


def _read_truth(truth: str | Path) -> dict[str, str]:
    with Path(truth).open(encoding="utf-8", newline="") as file:
        return {row["id"]: row["fault"] for row in csv.DictReader(file)}


def found_missed(truth: str | Path, result: AuditResult) -> list[tuple[str, int, int]]:
    """(fault, found, planted) for each kind, in the order of `FAULTS`.

    A planted fault is found when the row has the kind's own flag; a row that the result does not have is missed.

    Args:
        truth: `truth.csv` of a demo set.
        result: an audit of that set, its rows in any order.
    """
    faults = _read_truth(truth)
    flagged = {
        kind: {row for row, hit in zip(result.ids, result.columns[flag], strict=True) if hit}
        for kind, flag in FLAG_OF.items()
    }
    planted = {kind: [row for row, fault in faults.items() if fault == kind] for kind in FAULTS}
    return [(kind, sum(row in flagged[kind] for row in planted[kind]), len(planted[kind])) for kind in FAULTS]


def swap_auroc(truth: str | Path, result: AuditResult) -> float:
    """AUROC of `misalignment` for swapped captions against rows without a planted fault; NaN where undefined.

    Rows without a score are left out.
    """
    faults = _read_truth(truth)
    kinds = np.array([faults.get(row, "") for row in result.ids])
    scores = np.asarray(result.columns["misalignment"], dtype=np.float32)
    known = np.isfinite(scores)
    return auroc(scores[known & (kinds == "swapped")], scores[known & (kinds == "none")])


def auroc(bad: Floats, good: Floats) -> float:
    """The chance that a score of `bad` `[p]` is above one of `good` `[q]`, ties counted half; NaN if one is empty."""
    if not len(bad) or not len(good):
        return float("nan")
    order = np.sort(good)
    below = np.searchsorted(order, bad, side="left") + np.searchsorted(order, bad, side="right")
    return float(below.mean() / (2 * len(good)))
