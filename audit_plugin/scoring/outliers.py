"""Distances that make a sample an outlier, and how far is too far. Pure numpy.

A sample is as odd as it is far from the part of the set that is nearest to it: the mean distance to the nearest
`SHARE` of a pool of samples. A fixed ten neighbors would call nothing odd that comes in a dozen: twenty photographs
of one place among drawings are each other's neighbors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from audit_plugin.arrays import Floats, Ints

POOL = 4096
SHARE = 0.05
LEAST_NEIGHBORS = 10
ROUNDS = 20
APART = 1.4
CLASS_ROWS = 10
CLASS_SHARE = 0.001
BLOCK = 2048


def mean_neighbor_distance(vectors: Mapping[str, Floats], group: Ints, rows: Ints) -> Floats:
    """`[n]`: mean cosine distance to the nearest `SHARE` of a pool, at least `LEAST_NEIGHBORS` samples.

    The pool is `POOL` groups drawn from a generator of its own, so that a medium in many rows counts once; the
    distance to a group is the mean over its rows, and a sample's own group is left out. With several modalities the
    distance is their mean. Cost O(n * POOL * d) at most, memory O(BLOCK * POOL).

    Args:
        vectors: modality -> unit rows `[n, d_a]`.
        group: `[n]`, equal values repeat each other.
        rows: those that may stand in the pool, in canonical order.

    Returns:
        float32 `[n]`; NaN without another group.
    """
    pool = np.unique(group[rows])
    if len(pool) > POOL:
        pool = pool[np.sort(np.random.default_rng(29).choice(len(pool), POOL, replace=False))]
    standing = rows[np.isin(group[rows], pool)]  # means of the pool alone: a copy of all rows would be the dear part
    number = np.searchsorted(pool, group[standing])
    means = {name: _means(v[standing], number, len(pool)) for name, v in vectors.items()}
    wanted = max(LEAST_NEIGHBORS, round(SHARE * len(pool)))
    out = np.full(len(group), np.nan, dtype=np.float32)
    for start in range(0, len(group) if len(pool) else 0, BLOCK):
        block = slice(start, start + BLOCK)
        distance = np.zeros((len(group[block]), len(pool)), dtype=np.float32)
        for name, v in vectors.items():
            distance -= v[block] @ means[name].T
        distance /= len(vectors)
        distance[group[block][:, None] == pool] = np.inf
        distance.partition(min(wanted, len(pool)) - 1, axis=1)
        near = distance[:, :wanted]
        there = np.isfinite(near)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[block] = 1 + np.where(there, near, 0).sum(1, dtype=np.float64) / there.sum(1)
    return out


def _means(vectors: Floats, number: Ints, count: int) -> Floats:
    """`[count, d]`: mean of the rows of each group."""
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(count))
    if not count:
        return vectors[:0]
    sums = np.add.reduceat(vectors[order], starts, axis=0)
    return np.asarray(sums / np.bincount(number, minlength=count)[:, None], dtype=np.float32)


def is_individual(content: Ints) -> np.ndarray:
    """bool `[n]`: the medium is the sample's own, not one that a class of samples shares.

    "a photo of a cat" in hundreds of rows is a label: how far it lies from other labels says nothing about one row.
    """
    count = np.bincount(content)[content] if len(content) else content
    return np.asarray(count <= max(CLASS_ROWS, CLASS_SHARE * len(content)))


def tail_scale(values: Floats) -> tuple[float, float]:
    """(median, width of a logistic upper tail) of the finite values.

    The width is read at the upper quartile, where up to a quarter of bad samples cannot reach it, and at the 85th
    percentile and the lower quartile, for sets whose bulk is skewed; the widest counts.
    """
    known = values[np.isfinite(values)]
    if len(known) < 4:
        return 0.0, float("inf")
    low, median, upper, high = np.quantile(known, [0.25, 0.5, 0.75, 0.85])
    width = max((upper - median) / np.log(3), (high - median) / np.log(0.85 / 0.15), 0.5 * (upper - low) / np.log(3))
    return float(median), max(float(width), 1e-6)


def outlier_cut(values: Floats, rate: float) -> float:
    """The value that a share `rate` of clean samples exceeds, for the largest of several distances.

    A logistic tail from the median up, its width read at the upper quartile and at the 85th percentile, the wider
    counting. Samples beyond the cut, less those that a clean set would have there, are left out and the rest is fitted
    again: what outliers a set holds would else hide behind the width they make. Where fewer than `APART` times as many
    lie beyond it as a heavier, exponential tail of the rest would put there, they are no group of their own, and the
    cut is raised: to where a share `rate` of the set lies beyond it, or half that share of the exponential tail.
    """
    known = np.sort(values[np.isfinite(values)])
    if len(known) < 4:
        return float("inf")
    at, left_out, cut = np.log([3, 0.85 / 0.15, (1 - rate) / rate]), 0, 0.0
    for _ in range(ROUNDS):
        median, *upper = np.quantile(known[: len(known) - left_out], [0.5, 0.75, 0.85])
        cut = float(median + max(np.max((upper - median) / at[:2]), 1e-6) * at[2])
        beyond = int((known > cut).sum() - rate * (len(known) - left_out))
        if beyond <= left_out:
            break
        left_out = beyond
    slope = max((upper[1] - upper[0]) / np.log(0.25 / 0.15), 1e-6)
    if (known > cut).sum() >= APART * 0.15 * np.exp((upper[1] - cut) / slope) * len(known):
        return cut
    far = upper[1] + slope * np.log(0.15 / (0.5 * rate))
    return max(cut, min(float(far), float(np.quantile(known, 1 - rate))))


def in_tail_units(values: Floats, reference: Floats) -> Floats:
    """Distance from the median of `reference` in widths of its upper tail (`tail_scale`); NaN stays NaN.

    Columns of different shapes become comparable: x is exceeded by a share of about exp(-x) of clean samples.
    """
    median, width = tail_scale(reference)
    return ((values - median) / width).astype(np.float32)


def count_user_groups(content: Ints, owners: Ints) -> Ints:
    """`[n]`: how many samples hold a row's content."""
    if not len(content):
        return content
    pairs = np.unique(np.stack([content, owners], axis=1), axis=0)[:, 0]
    return np.asarray(np.bincount(pairs, minlength=int(content.max()) + 1)[content])
