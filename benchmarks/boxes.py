"""Checks of boxes of objects: planted faults and clean sets, which of them are flagged: `python -m benchmarks.boxes`.

About a minute on one core; nothing is encoded. One kind of fault is planted into 2% of the boxes of a set that is
unchanged else: real boxes of blood cells, and drawn boxes of three classes (upright, square, wide) whose sizes vary a
little or a lot. Every fault keeps the box within its image but for those that are to leave it.

Expected: at most 1% of each clean set is flagged, of drawn sets with normal spreads of log size. Boxes that leave the
image or lose a side are found nearly always, second boxes up to the overlap at which they count as the same, exchanged
sides where the class is elongated, and wrong sizes where the sizes of the class vary less than the fault.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Boxes, Floats
from audit_plugin.inputs.boxes import boxes_of
from audit_plugin.inputs.images import box_fault
from audit_plugin.inputs.samples import read_samples
from audit_plugin.scoring.box_checks import check_boxes
from benchmarks.record import markdown_table, write_report
from benchmarks.sets import CLOTHING

CELLS = CLOTHING.parent / "bccd"
SHARE = 0.02  # of a set, that is given a fault
SEEDS = 5
DRAWN_IMAGES, DRAWN_PER_IMAGE = 1000, 5
SPREADS = {"drawn, sizes vary little": 0.25, "drawn, sizes vary much": 0.8}  # standard deviation of the log of a side
# Further clean sets: how the logs of sides vary, with a standard deviation of about 1
TAILS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(-1.7, 1.7, n),
    "Laplace": lambda rng, n: rng.laplace(scale=0.7, size=n),
    "Student's t, 3 degrees": lambda rng, n: rng.standard_t(3, size=n) / 1.7,
    "two sizes": lambda rng, n: np.where(rng.random(n) < 0.2, -2.2, 0.5) + 0.2 * rng.normal(size=n),
}
TAIL_SPREAD = 0.4
CLOSE_UPS = (0.03, 0.2)  # shares of further clean sets that fill their image

# (left, top, width and height of q boxes in pixels [q, 4], sizes of their images [q, 2], generator) -> the same, wrong
Change = Callable[[Floats, Floats, np.random.Generator], Floats]


@dataclass(frozen=True)
class Fault:
    """A kind of fault, at one strength.

    Attributes:
        name: short.
        what: for people.
        change: of the boxes.
        adds: the changed box stands beside the right one: "same" or "other" class; "": in its place.
        stays: the changed box is cut at the edges of the image.
    """

    name: str
    what: str
    change: Change
    adds: str = ""
    stays: bool = True


def _moved_out(share: float) -> Change:
    """Moved to the left or down, until a share of the box lies beyond the image."""

    def change(boxes: Floats, sizes: Floats, rng: np.random.Generator) -> Floats:
        out = boxes.copy()
        is_down = rng.random(len(boxes)) < 0.5
        out[:, 0] = np.where(is_down, boxes[:, 0], -share * boxes[:, 2])
        out[:, 1] = np.where(is_down, sizes[:, 1] - (1 - share) * boxes[:, 3], boxes[:, 1])
        return out

    return change


def _collapsed(pixels: float) -> Change:
    def change(boxes: Floats, _sizes: Floats, rng: np.random.Generator) -> Floats:
        out = boxes.copy()
        out[np.arange(len(out)), 2 + rng.integers(0, 2, len(out))] = pixels
        return out

    return change


def _narrowed(times: float) -> Change:
    def change(boxes: Floats, _sizes: Floats, rng: np.random.Generator) -> Floats:
        out = boxes.copy()
        out[np.arange(len(out)), 2 + rng.integers(0, 2, len(out))] /= times
        return out

    return change


def _jittered(share: float) -> Change:
    """Each side moved by up to a share of the box."""

    def change(boxes: Floats, _sizes: Floats, rng: np.random.Generator) -> Floats:
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        corners += rng.uniform(-share, share, corners.shape) * np.tile(boxes[:, 2:], 2)
        return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)

    return change


def _exchanged(boxes: Floats, _sizes: Floats, _rng: np.random.Generator) -> Floats:
    return boxes[:, [0, 1, 3, 2]]


def _scaled(times: float) -> Change:
    def change(boxes: Floats, _sizes: Floats, _rng: np.random.Generator) -> Floats:
        centers = boxes[:, :2] + boxes[:, 2:] / 2
        return np.concatenate([centers - times * boxes[:, 2:] / 2, times * boxes[:, 2:]], axis=1)

    return change


FAULTS = (
    Fault("slightly beyond", "5% of the box lies beyond the image", _moved_out(0.05), stays=False),
    Fault("beyond the image", "30% of the box lies beyond the image", _moved_out(0.3), stays=False),
    Fault("without area", "a side is 0", _collapsed(0.0)),
    Fault("collapsed", "a side is 1 pixel", _collapsed(1.0)),
    Fault("nearly collapsed", "a side is 5 pixels", _collapsed(5.0)),
    Fault("narrow", "a side is divided by 3", _narrowed(3.0)),
    Fault("equal", "a second box of the class, equal", _jittered(0.0), adds="same"),
    Fault("doubled", "a second box of the class, sides off by up to 3%", _jittered(0.03), adds="same"),
    Fault("loosely doubled", "a second box of the class, sides off by up to 6%", _jittered(0.06), adds="same"),
    Fault("another class", "a second box of another class, sides off by up to 3%", _jittered(0.03), adds="other"),
    Fault("exchanged sides", "width and height exchanged", _exchanged),
    Fault("twice as large", "both sides times 2, cut at the edges", _scaled(2.0)),
    Fault("three times", "both sides times 3, cut at the edges", _scaled(3.0)),
    Fault("half", "both sides divided by 2", _scaled(1 / 2)),
    Fault("a third", "both sides divided by 3", _scaled(1 / 3)),
)


def read_boxes(folder: Path) -> tuple[Boxes, list[str], bool, int]:
    """The boxes of a folder that show something, with their classes, as `check_boxes` takes them."""
    samples = read_samples(folder)
    rows = [row for row in range(len(samples)) if row not in samples.problems]
    boxes = boxes_of([samples.media["image"][row] or "" for row in rows], [samples.ids[row] for row in rows])
    assert boxes is not None
    return boxes, [samples.labels[row] for row in rows], True, len(rows)


def drawn_boxes(seed: int, spread: float, tail: str = "normal") -> tuple[Boxes, list[str]]:
    """5,000 boxes in 1,000 images of 640 x 480 pixels: upright, square and wide ones, cut at the edges."""
    rng = np.random.default_rng((seed, 7))
    n = DRAWN_IMAGES * DRAWN_PER_IMAGE
    of_class = rng.integers(0, 3, n)
    side = np.array([60.0, 90.0, 120.0])[of_class] * np.exp(spread * TAILS[tail](rng, n))
    longer = np.exp(np.log([0.4, 1.0, 2.5])[of_class] + 0.15 * TAILS[tail](rng, n))  # width / height
    lengths = np.stack([side * np.sqrt(longer), side / np.sqrt(longer)], axis=1)
    sizes = np.tile([640.0, 480.0], (n, 1))
    pixels = _cut(np.concatenate([rng.random((n, 2)) * sizes - lengths / 2, lengths], axis=1), sizes)
    is_seen = (pixels[:, 2:] > 4).all(axis=1)
    images = np.arange(n) // DRAWN_PER_IMAGE
    rows = np.flatnonzero(is_seen)
    count = np.arange(len(rows))
    shares = pixels[rows] / np.tile(sizes[rows], 2)
    boxes = Boxes(count, images[rows], count, shares, sizes[rows])
    return boxes, [("upright", "square", "wide")[of] for of in of_class[rows]]


def with_close_ups(boxes: Boxes, share: float, rng: np.random.Generator) -> Boxes:
    """The boxes with a share of them from edge to edge of their image, across, down or both; at most one an image."""
    sides = boxes.sides.copy()
    first = np.unique(boxes.images, return_index=True)[1]
    chosen = rng.choice(first, min(len(first), round(share * len(boxes))), replace=False)
    lengths = rng.uniform(0.7, 1.0, (len(chosen), 2))
    lengths[np.arange(len(chosen)), rng.integers(0, 2, len(chosen))] = 1.0
    sides[chosen] = np.concatenate([(1 - lengths) / 2, lengths], axis=1)
    return replace(boxes, sides=sides)


def _cut(pixels: Floats, sizes: Floats) -> Floats:
    """Boxes `[q, 4]` without what lies beyond images of some sizes `[q, 2]`."""
    start = np.clip(pixels[:, :2], 0, sizes)
    end = np.clip(pixels[:, :2] + pixels[:, 2:], 0, sizes)
    return np.concatenate([start, end - start], axis=1)


def plant(
    boxes: Boxes, labels: Sequence[str], fault: Fault, rng: np.random.Generator
) -> tuple[Boxes, list[str], Bools]:
    """(boxes, classes, bool: is wrong): `SHARE` of the boxes with a fault; second boxes come last."""
    chosen = np.sort(rng.choice(len(boxes), max(1, round(SHARE * len(boxes))), replace=False))
    sizes = boxes.sizes[chosen]
    pixels = fault.change(boxes.sides[chosen] * np.tile(sizes, 2), sizes, rng)
    pixels = _cut(pixels, sizes) if fault.stays else pixels
    shares = pixels / np.tile(sizes, 2)
    planted = np.zeros(len(boxes) + len(chosen) * bool(fault.adds), dtype=bool)
    if not fault.adds:
        sides = boxes.sides.copy()
        sides[chosen] = shares
        planted[chosen] = True
        return replace(boxes, sides=sides), list(labels), planted
    planted[len(boxes) :] = True
    planted[chosen] = fault.adds == "other"  # either class may be the wrong one: both boxes are to be flagged
    names = sorted(set(labels))
    other = {name: names[(at + 1) % len(names)] for at, name in enumerate(names)}
    added = [labels[row] if fault.adds == "same" else other[labels[row]] for row in chosen]
    more = Boxes(
        rows=np.arange(len(planted)),
        images=np.concatenate([boxes.images, boxes.images[chosen]]),
        objects=np.arange(len(planted)),
        sides=np.concatenate([boxes.sides, shares]),
        sizes=np.concatenate([boxes.sizes, sizes]),
    )
    return more, [*labels, *added], planted


def found_in(boxes: Boxes, labels: Sequence[str]) -> Bools:
    """bool `[b]`: what an audit flags: boxes that show nothing fail, and the others are checked."""
    shows_nothing = np.array([bool(box_fault(sides)) for sides in boxes.sides.tolist()])
    rows = np.flatnonzero(~shows_nothing)
    left = Boxes(np.arange(len(rows)), boxes.images[rows], boxes.objects[rows], boxes.sides[rows], boxes.sizes[rows])
    found = shows_nothing.copy()
    found[rows] = check_boxes(left, [labels[row] for row in rows.tolist()], True, len(rows)).has_any
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes `results/boxes.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.boxes", description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of Pascal VOC with real boxes")
    args = parser.parse_args(arguments)
    real, classes, *_ = read_boxes(args.cells)
    sets: dict[str, Callable[[int], tuple[Boxes, list[str]]]] = {"blood cells": lambda _seed: (real, classes)}
    sets |= {name: functools.partial(drawn_boxes, spread=spread) for name, spread in SPREADS.items()}
    faults: dict[str, Any] = {}
    for fault in FAULTS:
        faults[fault.name] = {"what": fault.what}
        for name, load in sets.items():
            outcomes = [_outcome(*load(seed), fault, np.random.default_rng((seed, 3))) for seed in range(SEEDS)]
            means = {key: float(np.mean([outcome[key] for outcome in outcomes])) for key in outcomes[0]}
            faults[fault.name][name] = {key: round(share, 4) for key, share in means.items()}
        print(fault.name, faults[fault.name], flush=True)
    clean = {"blood cells": round(float(found_in(real, classes).mean()), 4)}
    for tail in TAILS:
        shares = [found_in(*drawn_boxes(seed, TAIL_SPREAD, tail)).mean() for seed in range(SEEDS)]
        clean[f"drawn, {tail}"] = round(float(np.mean(shares)), 4)
    for share in CLOSE_UPS:
        shares = []
        for seed in range(SEEDS):
            boxes, labels = drawn_boxes(seed, TAIL_SPREAD)
            shares.append(found_in(with_close_ups(boxes, share, np.random.default_rng((seed, 11))), labels).mean())
        clean[f"drawn, {share:.0%} close-ups"] = round(float(np.mean(shares)), 4)
    report = {
        "boxes": {"blood cells": len(real), "drawn": DRAWN_IMAGES * DRAWN_PER_IMAGE},
        "share_with_a_fault": SHARE,
        "seeds": SEEDS,
        "faults": faults,
        "flagged_in_clean_sets": clean,
        "seconds": _times(),
    }
    print(clean, report["seconds"])
    write_report("boxes", "Which wrong boxes are flagged, and how many right ones?", report)


def _outcome(boxes: Boxes, labels: Sequence[str], fault: Fault, rng: np.random.Generator) -> dict[str, float]:
    """Share of the wrong boxes that are flagged; of the others that were not flagged before the fault was planted."""
    before = found_in(boxes, labels)
    wrong, names, planted = plant(boxes, labels, fault, rng)
    found = found_in(wrong, names)
    right = ~planted[: len(before)] & ~before
    return {"recall": float(found[planted].mean()), "newly flagged": float(found[: len(before)][right].mean())}


def _times() -> dict[str, float]:
    """Seconds of the checks of a million boxes in 100,000 images, and of 20,000 equal ones in one image."""
    rng = np.random.default_rng(0)
    n = 1_000_000
    count = np.arange(n)
    sides = np.concatenate([rng.uniform(0, 0.7, (n, 2)), rng.uniform(0.05, 0.3, (n, 2))], axis=1)
    sizes = np.tile([640.0, 480.0], (n, 1))
    many = Boxes(count, count // 10, count, sides, sizes)
    few = count[:20_000]
    equal = Boxes(few, np.zeros_like(few), few, sides[:1].repeat(len(few), 0), sizes[few])
    out = {}
    for name, boxes in (("1,000,000 boxes", many), ("20,000 equal boxes in one image", equal)):
        labels = [f"class {row % 20}" for row in range(len(boxes))]
        start = time.perf_counter()
        check_boxes(boxes, labels, True, len(boxes))
        out[name] = round(time.perf_counter() - start, 2)
    return out


def boxes_tables(report: dict[str, Any]) -> dict[str, str]:
    """Marked part of docs/detection.md -> table."""
    sets = [name for name in next(iter(report["faults"].values())) if name != "what"]
    rows = [[of["what"], *(f"{of[name]['recall']:.0%}" for name in sets)] for of in report["faults"].values()]
    clean = [[name, f"{share:.2%}"] for name, share in report["flagged_in_clean_sets"].items()]
    return {
        "boxes-faults": "\n".join(markdown_table(["fault", *sets], rows)),
        "boxes-clean": "\n".join(markdown_table(["set without a planted fault", "flagged"], clean)),
    }


if __name__ == "__main__":
    main()
