"""Tells image copies from images that only look alike: features propose, pixels decide.

Features of small drawings put a man and a woman closer together than an image and its own crop. Thumbnails do not: a
copy that was re-encoded, resized, brightened a little or cropped by a per cent keeps every patch, apart from its
edges. They are compared patch by patch, since two clocks may differ in one thin hand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints, Neighbors, SampleFacts, check_lengths, dense_ids
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.reading import ReadApart

from .near_duplicates import close_pairs, component_ids

if TYPE_CHECKING:
    from PIL.Image import Image

    from .neighborhood import Neighborhood

SIDE = 64  # patches along each side of a thumbnail
POOL = 2  # patches along each side of the blocks in which colors are compared
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
LOOSE = 0.7  # of the usual distance around: farther than features put an altered copy
GAIN = (0.9, 1.11)  # brightness that a copy may have lost or gained
UNSATURATED = 247  # of 255
LEAST_UNSATURATED = 25  # patches that a brightness can be fitted to
PLAIN = 0.05  # what a patch may differ by, of the range of a channel, without any contrast around it
BUSY_GREY, BUSY_COLOR = 0.15, 0.25  # and what more, of the contrast around it
BLOCK = 32  # pairs compared at once
LOOKS = 8192  # thumbnails in memory

Read = Callable[[int], "Image | None"]


def signature(image: Image) -> Any:
    """`[SIDE, SIDE, 3]` uint8: mean color of each patch of an RGB image, stretched to a square."""
    from PIL import Image as Pil

    return np.asarray(image.resize((SIDE, SIDE), Pil.Resampling.BILINEAR), np.uint8)


def difference(left: Any, right: Any) -> Floats:
    """`[q]` float32: how far the worst patch of two images is apart, in units of what is allowed (at most 1: a copy).

    Gray values are compared patch by patch, colors over `POOL` x `POOL` patches, as codecs keep them. A patch may
    take any value between the darkest and the lightest of its neighbors in the other image, which is what a small
    crop does to it, and lie outside by `PLAIN` of the range of a channel, and by a share of the contrast within two
    patches. Brightness is fitted on what is not saturated. Of the two directions the smaller counts: symmetric.
    `left` and `right` are signatures `[q, SIDE, SIDE, 3]` uint8.
    """
    check_lengths(left=left, right=right)
    x, y = left.astype(np.float32), right.astype(np.float32)
    gain_of_right, gain_of_left = _gain(x, y), _gain(y, x)
    worst = np.zeros(len(x), dtype=np.float32)
    blocks = (len(x), SIDE // POOL, POOL, SIDE // POOL, POOL, 3)
    pooled = [values.reshape(blocks).mean((2, 4)) for values in (x, y)]  # [q, SIDE / POOL, SIDE / POOL, 3]
    for a, b, busy in ((x @ GREY, y @ GREY, BUSY_GREY), (*pooled, BUSY_COLOR)):
        smaller = np.minimum(_one_way(a, b, gain_of_right, busy), _one_way(b, a, gain_of_left, busy))
        worst = np.maximum(worst, smaller)
    return worst


def _one_way(left: Floats, right: Floats, gain: Floats, busy: float) -> Floats:
    """`[q]`: how far the right's worst patch lies outside the range around it in the left, in units of the allowed."""
    fitted = np.minimum(right * gain.reshape(-1, *[1] * (right.ndim - 1)), 255)
    low, high = _around(left, np.minimum), _around(left, np.maximum)
    contrast = _around(high, np.maximum) - _around(low, np.minimum)
    outside = np.maximum(fitted - high, low - fitted) / (contrast * busy + 255 * PLAIN)
    return np.asarray(outside.reshape(len(left), -1).max(1).clip(0))


def _gain(left: Floats, right: Floats) -> Floats:
    """`[q]`: factor on the right that fits the left best, `sum xy / sum y²` over every other patch each way."""
    x, y = left[:, ::2, ::2], right[:, ::2, ::2]
    use = (x < UNSATURATED) & (y < UNSATURATED)
    gain = (x * y * use).sum((1, 2, 3)) / np.maximum((y * y * use).sum((1, 2, 3)), 1)
    too_few = use.sum((1, 2, 3)) < LEAST_UNSATURATED
    return np.where(too_few, 1, np.clip(gain, *GAIN)).astype(np.float32)


def _around(values: Floats, extreme: np.ufunc) -> Floats:
    """The least or greatest value of each patch and its eight neighbors: along one axis, then along the other."""
    for axis in (1, 2):
        rows = np.moveaxis(values, axis, 0)
        before, after = np.concatenate([rows[:1], rows[:-1]]), np.concatenate([rows[1:], rows[-1:]])
        values = np.moveaxis(extreme(extreme(before, rows), after), 0, axis)
    return values


def group_image_copies(paths: Sequence[str], facts: SampleFacts, neighborhood: Neighborhood) -> Ints:
    """`[n]`: groups of copies of one picture, distinguished from look-alikes by their pixels (`copy_groups`)."""
    read_image = ReadApart("whole image")

    def read(row: int) -> Image | None:
        try:
            return read_image(paths[row])
        except MediaError:  # gone since it was encoded: features alone decide
            return None

    by_cosine = Neighbors(neighborhood.neighbors["image"].indices, neighborhood.cosines["image"])
    return copy_groups(by_cosine, facts.contents["image"], neighborhood.near_duplicates["image"], read)


def copy_groups(neighbors: Neighbors, content: Ints, groups: Ints, read: Read) -> Ints:
    """`[n]`: altered copies of one image, numbered by first row; all members are copies of one of them.

    Only images with a near neighbor are read. One that cannot be read is a copy of those it shares a group with, as
    the features alone would have it. Memory: 12 KB for each of the `LOOKS` images that were looked at last; one that
    is needed later is read again.

    Args:
        neighbors: over distinct contents, `similarities` their cosines in the plain features, `[n, k]`.
        content: `[n]`, equal numbers are the same image.
        groups: `[n]`, near-duplicates by features (`group_near_duplicates`).
        read: row -> the image as RGB, or None.
    """
    _, first, number = np.unique(content, return_index=True, return_inverse=True)
    number = number.reshape(-1)
    content_groups, label = groups[first], np.arange(len(first))

    @functools.lru_cache(maxsize=LOOKS)
    def look(at: int) -> Any:
        image = read(int(first[at]))
        return None if image is None else signature(image)

    pairs = np.unique(np.sort(close_pairs(number, neighbors, LOOSE), axis=1), axis=0)
    for proposed in pairs_by_component(pairs, len(first)):
        copies = proposed[_are_copies(proposed, look, content_groups)]
        for linked in pairs_by_component(copies, len(first)):
            _label_copies(linked, look, content_groups, label)
    return dense_ids(label[number], by_first_row=True)


def pairs_by_component(pairs: Ints, total: int) -> list[Ints]:
    """The pairs `[q, 2]` of each connected component."""
    if not len(pairs):
        return []
    component = component_ids(pairs, total)[pairs[:, 0]]
    order = np.argsort(component, kind="stable")
    return np.split(pairs[order], np.flatnonzero(np.diff(component[order])) + 1)


def _are_copies(pairs: Ints, look: Callable[[int], Any], groups: Ints) -> Bools:
    """bool `[q]`: the two contents of each pair are copies; by their groups where one of them cannot be read."""
    copies = groups[pairs[:, 0]] == groups[pairs[:, 1]]
    for start in range(0, len(pairs), BLOCK):
        looks = [(look(one), look(other)) for one, other in pairs[start : start + BLOCK].tolist()]
        readable = [at for at, (left, right) in enumerate(looks) if left is not None and right is not None]
        if readable:
            left, right = (np.stack([looks[at][side] for at in readable]) for side in (0, 1))
            copies[start + np.array(readable)] = difference(left, right) <= 1
    return copies


def _label_copies(copies: Ints, look: Callable[[int], Any], groups: Ints, label: Ints) -> None:
    """Writes the label of each content of a component: the one with the most copies leads those, then the next.

    Linear in the members for every group found, where complete linkage would compare each with each.
    """
    remaining = np.unique(copies)
    while len(remaining):
        among_remaining = copies[np.isin(copies, remaining).all(axis=1)]
        count = np.bincount(np.searchsorted(remaining, among_remaining.ravel()), minlength=len(remaining))
        leader = remaining[count.argmax()]
        others = remaining[remaining != leader]
        led = _are_copies(np.stack([np.full_like(others, leader), others], axis=1), look, groups)
        label[others[led]] = label[leader]
        remaining = others[~led]
