"""Altered copies told from look-alikes: features propose, pixels decide. numpy; scipy for components.

Features of small drawings put a man and a woman closer together than a picture and its own crop. Thumbnails do not: a
copy that was re-encoded, resized, brightened a little or cropped by a per cent keeps every patch, apart from its
edges. They are compared patch by patch, for what tells two clocks apart is one thin hand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints, Neighbors

from . import number_by_first, usual_distance

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 64
POOL = 2
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
LOOSE = 0.7  # of the usual distance around: farther than features put an altered copy
GAIN = (0.9, 1.11)
UNSATURATED = 247  # of 255
LEAST_UNSATURATED = 25
PLAIN = 0.05  # what a patch may differ by, of the range of a channel, where nothing is around
BUSY_GREY, BUSY_COLOR = 0.15, 0.25  # and so much more, of the contrast around it
BLOCK = 32
LOOKS = 8192

Read = Callable[[int], "Image | None"]


def signature(image: Image) -> Any:
    """`[SIDE, SIDE, 3]` uint8: mean color of each patch of an RGB picture, stretched to a square."""
    from PIL import Image as Pil

    return np.asarray(image.resize((SIDE, SIDE), Pil.Resampling.BILINEAR), np.uint8)


def difference(left: Any, right: Any) -> Floats:
    """`[q]` float32: how far the worst patch of two pictures is apart, in units of what is allowed (at most 1: a copy).

    Grey values are compared patch by patch, colors over `POOL` x `POOL` patches, as codecs keep them. A patch may
    take any value between the darkest and the lightest of its neighbors in the other picture, which is what a small
    crop does to it, and lie outside by `PLAIN` of the range of a channel, and by a share of the contrast within two
    patches. Brightness is fitted on what is not saturated. Of the two directions the smaller counts: symmetric.

    Args:
        left: signatures `[q, SIDE, SIDE, 3]` uint8.
        right: the same of the other pictures.
    """
    x, y = left.astype(np.float32), right.astype(np.float32)
    there, back = _gain(x, y), _gain(y, x)
    apart = [
        np.minimum(_one_way(a, b, there, busy), _one_way(b, a, back, busy))
        for a, b, busy in ((x @ GREY, y @ GREY, BUSY_GREY), (_pooled(x), _pooled(y), BUSY_COLOR))
    ]
    return np.asarray(np.maximum(*apart), dtype=np.float32)


def _pooled(values: Floats) -> Floats:
    side = SIDE // POOL
    return np.asarray(values.reshape(-1, side, POOL, side, POOL, 3).mean((2, 4)))


def _one_way(left: Floats, right: Floats, gain: Floats, busy: float) -> Floats:
    fitted = np.minimum(right * gain.reshape(-1, *[1] * (right.ndim - 1)), 255)
    low, high = _around(left, np.minimum), _around(left, np.maximum)
    allowed = (_around(high, np.maximum) - _around(low, np.minimum)) * busy + 255 * PLAIN
    beyond = np.maximum(fitted - high, low - fitted) / allowed
    return np.asarray(beyond.reshape(len(left), -1).max(1).clip(0))


def _gain(left: Floats, right: Floats) -> Floats:
    """`[q]`: factor on the right that fits the left best, read at every other patch each way."""
    x, y = left[:, ::2, ::2], right[:, ::2, ::2]
    use = (x < UNSATURATED) & (y < UNSATURATED)
    gain = (x * y * use).sum((1, 2, 3)) / np.maximum((y * y * use).sum((1, 2, 3)), 1)
    return np.where(use.sum((1, 2, 3)) < LEAST_UNSATURATED, 1, np.clip(gain, *GAIN)).astype(np.float32)


def _around(values: Floats, best: np.ufunc) -> Floats:
    """The least or greatest value of each patch and its eight neighbors."""
    rest = [(0, 0)] * (values.ndim - 2)
    tall = np.pad(values, ((0, 0), (1, 1), *rest), mode="edge")
    tall = best(best(tall[:, :-2], tall[:, 1:-1]), tall[:, 2:])
    wide = np.pad(tall, ((0, 0), (0, 0), (1, 1), *rest[1:]), mode="edge")
    return np.asarray(best(best(wide[:, :, :-2], wide[:, :, 1:-1]), wide[:, :, 2:]))


def copy_groups(neighbors: Neighbors, content: Ints, groups: Ints, read: Read) -> Ints:
    """`[n]`: altered copies of one picture, numbered by first row; all members are copies of one of them.

    Only pictures with a near neighbor are read. One that cannot be read is a copy of those it shares a group with,
    as the features alone would have it. Memory: 12 KB for each of the `LOOKS` pictures that were looked at last; one
    that is met again later is read again.

    Args:
        neighbors: over distinct contents, `similarities` their cosines in the plain features, `[n, k]`.
        content: `[n]`, equal numbers are the same picture.
        groups: `[n]`, near-duplicates by features (`near_duplicate_groups`).
        read: row -> the picture as RGB, or None.
    """
    _, first, number = np.unique(content, return_index=True, return_inverse=True)
    label = np.arange(len(first))
    looks = functools.lru_cache(maxsize=LOOKS)(lambda one: _look(read(int(first[one]))))
    for proposed in _components(_proposed(neighbors, first, number.reshape(-1)), len(first)):
        copies = proposed[_judge(proposed, looks, groups[first])]
        for linked in _components(copies, len(first)):
            _lead(linked, looks, groups[first], label)
    return number_by_first(label[number.reshape(-1)])


def _proposed(neighbors: Neighbors, first: Ints, number: Ints) -> Ints:
    """`[q, 2]`: pairs of contents nearer to each other than `LOOSE` of what is usual around them."""
    near, cosine, usual = neighbors.indices[first], neighbors.similarities[first], usual_distance(neighbors)
    scale = np.sqrt(usual[first][:, None] * usual[np.maximum(near, 0)])
    with np.errstate(invalid="ignore"):
        at, column = np.nonzero((near >= 0) & (1 - cosine <= LOOSE * scale + 1e-6))
    return np.unique(np.sort(np.stack([at, number[near[at, column]]], 1), axis=1), axis=0)


def _components(pairs: Ints, total: int) -> Iterator[Ints]:
    """The pairs `[q, 2]` of each connected component."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(pairs):
        return
    edges = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(total, total))
    label = connected_components(edges, directed=False)[1][pairs[:, 0]]
    order = np.argsort(label, kind="stable")
    yield from np.split(pairs[order], np.flatnonzero(np.diff(label[order])) + 1)


def _look(image: Image | None) -> Any:
    return None if image is None else signature(image)


def _judge(pairs: Ints, looks: Callable[[int], Any], groups: Ints) -> Bools:
    """bool `[q]`: the two contents of each pair are copies."""
    out = groups[pairs[:, 0]] == groups[pairs[:, 1]]
    for block in np.array_split(np.arange(len(pairs)), -(-len(pairs) // BLOCK) or 1):
        both = [(at, looks(a), looks(b)) for at, (a, b) in zip(block, pairs[block].tolist(), strict=True)]
        seen = [(at, left, right) for at, left, right in both if left is not None and right is not None]
        if seen:
            rows, left, right = zip(*seen, strict=True)
            out[list(rows)] = difference(np.stack(left), np.stack(right)) <= 1
    return out


def _lead(copies: Ints, looks: Callable[[int], Any], groups: Ints, label: Ints) -> None:
    """Writes the label of each member of a component: whoever has the most copies leads those, then again.

    Linear in the members for every group found, where complete linkage would compare each with each.
    """
    left = np.unique(copies)
    while len(left):
        inside = copies[np.isin(copies, left).all(axis=1)]
        count = np.bincount(np.searchsorted(left, inside.ravel()), minlength=len(left))
        leader = left[count.argmax()]
        others = left[left != leader]
        same = _judge(np.stack([np.full_like(others, leader), others], axis=1), looks, groups)
        label[others[same]] = label[leader]
        left = others[~same]
