"""What is wrong with an image by its pixels alone: blur, darkness, little information, odd sizes and shapes, borders.

A measure (`encoders.pixels`) must lie beyond an absolute bound, as people see it, and those that vary from set to set
beyond the tail of their set too, whose images may all be dark or soft. What many images show is the style of the set:
it is noted, not flagged. Gray images and borders must be rare: in most sets they are not faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import Floats
from audit_plugin.encoders.pixels import MEASURES

from .tails import tail_cut

COMMON = 0.1  # share of the images above which a trait is a style
LEAST_IMAGES = 3  # that show a style
RATE = 0.001  # share of clean images beyond the tail, for each check: a set's union stays below 1%
TIMES_LARGER = 2.0  # log2 of an area: four times as large or small as the median
SPREADS = 3.0  # and so many times the distance between quartiles beyond them


@dataclass(frozen=True)
class ImageProblems:
    """What checks found in n images: object `[n]` of `plain border (12% of the area)`, or ""; and notes for people."""

    problems: NDArray[Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One entry of the table.

    Attributes:
        name: as people read it.
        trait: what images do that have it, as in "30% of the images {trait}".
        badness: measures by name, `[n]` each -> `[n]`, higher is worse.
        least: from which on people see it.
        show: measures of one image by name -> what is said beside the name.
        by_tail: whether it must lie beyond the tail of its set as well.
        most: share of the images above which it is a style.
    """

    name: str
    trait: str
    badness: Callable[[Mapping[str, Floats]], Floats]
    least: float
    show: Callable[[Mapping[str, float]], str]
    by_tail: bool = True
    most: float = COMMON


def _size(of: Mapping[str, float]) -> str:
    width, height = (float(f"{2 ** of[side]:.2g}") for side in ("log_width", "log_height"))
    return f"about {width:.0f} x {height:.0f} pixels"


CHECKS = (
    Check(
        "blurred",
        "are blurred",
        badness=lambda of: of["blur"],
        least=0.5,
        show=lambda of: f"blur {of['blur']:.2f}, where 0 is sharp and 1 has no detail",
    ),
    Check(
        "dark",
        "are dark",
        badness=lambda of: -of["dark"],
        least=-0.32,
        show=lambda of: f"99% of the pixels are below {of['dark']:.0%} of white",
    ),
    Check(
        "bright",
        "are bright",
        badness=lambda of: of["bright"],
        least=0.95,
        show=lambda of: f"95% of the pixels are above {of['bright']:.0%} of white",
    ),
    Check(
        "little information",
        "hold little information",
        badness=lambda of: -of["entropy"],
        least=-3.0,
        show=lambda of: f"{abs(of['entropy']):.1f} of 8 bits in the gray values",  # of one color it is -0.0
    ),
    Check(
        "odd shape",
        "have an odd shape",
        badness=lambda of: np.abs(of["log_width"] - of["log_height"]),
        least=np.log2(1 / 0.35),
        show=_size,
    ),
    Check(
        "no color",
        "have no color",
        badness=lambda of: -of["color"],
        least=-0.02,
        show=lambda of: f"red, green and blue of 99% of the pixels differ by at most {of['color']:.0%}",
        by_tail=False,
        most=0.01,
    ),
    Check(
        "plain border",
        "have a plain border",
        badness=lambda of: of["border"],
        least=0.05,
        show=lambda of: f"{of['border']:.0%} of the area",
        by_tail=False,
        most=0.05,
    ),
)
ODD_SIZE = "odd size"  # far from the others on either side, which no bound of a badness says


def check_images(measures: Floats) -> ImageProblems:
    """What is wrong with each of n images, `[n, len(MEASURES)]` with NaN where an image was not measured."""
    of: dict[str, Floats] = {name: measures[:, at].astype(np.float64) for at, name in enumerate(MEASURES)}
    found = [(check.name, check.trait, check.show, check.most, _beyond(check.badness(of), check)) for check in CHECKS]
    found.append((ODD_SIZE, "have an odd size", _size, COMMON, _odd_sizes(of["log_width"] + of["log_height"])))
    total, notes = int(np.isfinite(measures).all(axis=1).sum()), []
    parts: list[list[str]] = [[] for _ in measures]
    for name, trait, show, most, has_it in found:
        count = int(has_it.sum())
        if count >= LEAST_IMAGES and count > most * total:
            notes.append(f"{count / total:.0%} of the images {trait}: the style of the set, which is not flagged")
            continue
        for row in np.flatnonzero(has_it):
            parts[row].append(f"{name} ({show({of_name: float(column[row]) for of_name, column in of.items()})})")
    return ImageProblems(np.array(["; ".join(of_row) for of_row in parts], dtype=object), tuple(notes))


def _beyond(badness: Floats, check: Check) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        is_seen = np.asarray(badness >= check.least)
        return is_seen & (badness > tail_cut(badness, RATE)) if check.by_tail else is_seen


def _odd_sizes(log_area: Floats) -> NDArray[np.bool_]:
    """bool `[n]`: far from the median area, and far outside the quartiles."""
    finite = log_area[np.isfinite(log_area)]
    if not len(finite):
        return np.zeros(len(log_area), dtype=bool)
    low, median, high = np.quantile(finite, [0.25, 0.5, 0.75])
    spread = SPREADS * (high - low)
    with np.errstate(invalid="ignore"):
        is_far = np.abs(log_area - median) > TIMES_LARGER
        return np.asarray(is_far & ((log_area < low - spread) | (log_area > high + spread)))
