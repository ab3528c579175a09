"""The set of `quickstart`: handwritten digits that come with scikit-learn, with the captions of a few exchanged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audit_plugin.arrays import Ints

from .folders import filling, read_marker, write_marker, write_rows

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS = 300
EXCHANGED = 10
SIDE = 64  # pixels, from the 8 that a digit of the set has
SEED = 0
MARKER = "quickstart.json"
ABOUT: dict[str, object] = {"digits": DIGITS, "exchanged": EXCHANGED, "seed": SEED}


@dataclass(frozen=True)
class QuickSet:
    """The set on the disk.

    Attributes:
        manifest: `pairs.csv` with the columns id, image and caption.
        originals: id -> the name of the digit that it shows, of the rows whose caption was exchanged.
    """

    manifest: Path
    originals: dict[str, str]


def write_digits(out: Path) -> QuickSet:
    """Writes images and `pairs.csv` into a folder: the same digits and exchanges each time.

    Raises:
        AuditError: the folder holds something else, or cannot be written.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(SEED)
    rows = rng.choice(len(digits.target), DIGITS, replace=False)
    shown = digits.target[rows]
    named = _exchange(shown, rng)
    ids = [f"digit-{row:04d}" for row in rows]
    with filling(out):
        read_marker(out, MARKER, "set of audit-plugin quickstart")
        write_marker(out, MARKER, ABOUT)
        (out / "images").mkdir(exist_ok=True)
        for name, pixels in zip(ids, digits.images[rows], strict=True):
            ink = 255 - pixels * (255 / 16)  # 0 to 16 in the set, dark on white here
            image = Image.fromarray(ink.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            image.save(out / "images" / f"{name}.png")
        table = [(name, f"images/{name}.png", _caption(digit)) for name, digit in zip(ids, named, strict=True)]
        write_rows(out / "pairs.csv", ("id", "image", "caption"), table)
    originals = {ids[row]: NAMES[shown[row]] for row in np.flatnonzero(shown != named)}
    return QuickSet(out / "pairs.csv", originals)


def _caption(digit: int) -> str:
    return f"the digit {NAMES[digit]}"


def _exchange(digits: Ints, rng: np.random.Generator) -> Ints:
    """The digits `[n]`, of which `EXCHANGED` are exchanged in pairs of two different ones."""
    named = digits.copy()
    order = list(rng.permutation(len(digits)))
    for _ in range(EXCHANGED // 2):
        first = order.pop()
        second = next(row for row in order if digits[row] != digits[first])
        order.remove(second)
        named[first], named[second] = digits[second], digits[first]
    return named
