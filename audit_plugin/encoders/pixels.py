"""Measures of an image's pixels, taken when it is decoded for an encoder, and kept beside its features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.images import FULL_SIZE
from audit_plugin.inputs.modalities import read_media
from audit_plugin.inputs.threads import ReadingThreads
from audit_plugin.store import FeatureCache

from .devices import cpu_count

if TYPE_CHECKING:
    from PIL.Image import Image

MEASURES_KEY = "pixels:1"  # of the cache; raised with every change of a measure
MEASURES = ("log_width", "log_height", "dark", "bright", "blur", "entropy", "color", "border")
SIDE = 256  # pixels to which an image is reduced, by whole factors
# Quantiles of the gray values: nearly all of a dark image is darker, of a bright one brighter.
DARKEST, BRIGHTEST = 0.99, 0.05
COLORED = 0.99  # quantile of the difference between an image's channels
RADIUS = 4  # of the square over which a mean blurs an image once more
CHUNK = 8  # images that a thread reads one after the other
IMAGE = "image"  # the modality
Watch = Callable[[str, Any], None]  # given a content's digest and its medium
EDGE = 2  # gray values of 255 that an edge of one color may span


def measure_pixels(image: Image) -> Floats:
    """float32 `[len(MEASURES)]` of an RGB image.

    log_width, log_height: base 2, of the whole image in pixels. dark: the gray value, of 1, below which 99% of the
    pixels lie; bright: above which 95% lie. blur: 0 sharp to 1, the share of the differences between neighboring
    pixels that is left after the image is blurred once more (Crete et al., "The blur effect", 2007). entropy: of the
    gray values, in bits. color: largest difference between channels of 99% of the pixels, of 1. border: share of the
    area in edges of one color.
    """
    from PIL import ImageChops

    width, height = image.info.get(FULL_SIZE, image.size)
    small = image.reduce(max(1, max(image.size) // SIDE))
    gray = small.convert("L")
    red, green, blue = small.split()
    lightest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    spread = ImageChops.subtract(lightest, ImageChops.darker(ImageChops.darker(red, green), blue))
    return np.array(
        [
            np.log2(width),
            np.log2(height),
            _quantile(gray, DARKEST),
            _quantile(gray, BRIGHTEST),
            _blur(gray),
            gray.entropy(),
            _quantile(spread, COLORED),
            _border(np.asarray(gray)),
        ],
        dtype=np.float32,
    )


def _quantile(values: Image, share: float) -> float:
    """The value, of 1, below which a share of the pixels lies."""
    counts = np.cumsum(values.histogram())
    return float(np.searchsorted(counts, share * counts[-1])) / 255


def _blur(gray: Image) -> float:
    """The larger of both directions: sum of min(D, D') / sum of D, D' being D after a mean of a square."""
    from PIL import ImageFilter

    sharp, blurred = (np.asarray(image, dtype=np.int16) for image in (gray, gray.filter(ImageFilter.BoxBlur(RADIUS))))
    shares = [0.0]
    for axis in (0, 1):
        before, after = (np.abs(np.diff(values, axis=axis)) for values in (sharp, blurred))
        shares.append(float(np.minimum(before, after).sum(dtype=np.int64) / max(before.sum(dtype=np.int64), 1)))
    return max(shares)


def _border(gray: Floats) -> float:
    """Share of the area in rows and columns at the edges that have one color."""
    left = 1.0
    for axis in (0, 1):
        low, high = gray.min(axis=1 - axis), gray.max(axis=1 - axis)
        plain = (high.astype(np.int64) - low) <= EDGE
        if plain.all():
            return 0.0  # an empty image has no border
        inner = np.flatnonzero(~plain)
        left *= (inner[-1] - inner[0] + 1) / len(plain)
    return float(1 - left)


def ignore(_digest: str, _medium: Any) -> None:
    """Measures nothing."""


@contextmanager
def measuring(modality: str) -> Iterator[Watch]:
    """Measures the images that it is given, by whatever threads, and stores the measures at the end.

    That is also where the work is given up: what was decoded need not be decoded again. If that fails then, the
    interrupt or error that ended the work is raised, with the failure as its note.
    """
    if modality != IMAGE:
        yield ignore
        return
    measures: dict[str, Floats] = {}

    def watch(digest: str, image: Any) -> None:
        measures[digest] = measure_pixels(image)

    try:
        yield watch
    except BaseException as end:
        try:
            FeatureCache(MEASURES_KEY).append(dict(measures))
        except (AuditError, OSError) as error:
            end.add_note(f"and the measures of the images were not stored: {error}")
        raise
    FeatureCache(MEASURES_KEY).append(measures)


def measure_missing(values: Mapping[str, str], progress: Callable[[str, int, int], None]) -> None:
    """Measures images whose features were known already, or made by other processes: content digest -> path.

    An image that cannot be read is left out.
    """
    missing = FeatureCache(MEASURES_KEY).missing(list(values))
    chunks = [missing[at : at + CHUNK] for at in range(0, len(missing), CHUNK)]
    with measuring(IMAGE) as watch, ReadingThreads(min(8, cpu_count())) as pool:

        def measure(digests: Sequence[str]) -> int:
            for digest, image in zip(digests, read_media(IMAGE, [values[d] for d in digests]), strict=True):
                if not isinstance(image, MediaError):
                    watch(digest, image)
            return len(digests)

        done = 0
        for count in pool.map(measure, chunks):
            done += count
            progress("measure images", done, len(missing))


def stored_measures(digests: Sequence[str]) -> Floats:
    """float32 `[n, len(MEASURES)]` of images by content; NaN where none were taken."""
    measures, stored = FeatureCache(MEASURES_KEY).load(digests)
    return np.where(stored[:, None], measures, np.float32(np.nan)) if stored.any() else not_measured(len(digests))


def not_measured(n: int) -> Floats:
    """The measures of n images of which nothing is known."""
    return np.full((n, len(MEASURES)), np.nan, dtype=np.float32)
