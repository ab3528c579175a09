"""Distances that make a sample an outlier, and how far is too far.

A sample is as odd as it is far from the part of the set that is nearest to it: the mean distance to the nearest
`NEIGHBOR_SHARE` of a pool of samples. A fixed ten neighbors would call nothing odd that comes in a dozen: twenty photos
of one place among drawings are each other's neighbors.

Distances are read on the scale of a logistic tail: with median m and width s, a clean sample exceeds m + s * logit(p)
with probability 1 - p, where logit(p) = log(p / (1 - p)).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints

POOL_GROUPS = 4096  # that stand for all of the set
NEIGHBOR_SHARE = 0.05  # of the pool, to which the distance is read
MIN_NEIGHBORS = 10  # however small the pool
BLOCK_ROWS = 2048  # rows compared with the pool at once; changes no result
DEVICE_ROWS = 65_536  # the same on a GPU
# A content in more than max(10, 0.1%) of the rows is a class label.
CLASS_ROWS = 10
CLASS_SHARE = 0.001
MAX_ROUNDS = 20  # of refitting the tail; it settles in fewer
SEPARATION = 1.4  # times as many beyond the cut as an exponential tail has: a group of outliers. Development sets.
MIN_VALUES = 4  # fewer have no tail
LOGIT_75, LOGIT_85 = np.log(0.75 / 0.25), np.log(0.85 / 0.15)


def mean_neighbor_distance(vectors: Mapping[str, Floats], group: Ints, rows: Ints, device: str = "cpu") -> Floats:
    """`[n]`: mean cosine distance to the nearest `NEIGHBOR_SHARE` of a pool of groups, at least `MIN_NEIGHBORS`.

    Groups, so that a content in many rows counts once; the distance to a group is the mean over its rows, and a
    sample's own group is left out. With several modalities the distance is their mean. The pool is a seeded draw of at
    most `POOL_GROUPS` groups. float32, NaN without another group. O(n * pool * d), in memory for `BLOCK_ROWS` * pool.

    Args:
        vectors: modality -> unit rows `[n, d_a]`.
        group: `[n]`, equal values repeat each other.
        rows: those that may be in the pool, in canonical order.
        device: "cpu" or "cuda".
    """
    distances = np.full(len(group), np.nan, dtype=np.float32)
    pool = np.unique(group[rows])  # [P]
    if not len(pool):
        return distances
    if len(pool) > POOL_GROUPS:
        pool = pool[np.sort(np.random.default_rng(29).choice(len(pool), POOL_GROUPS, replace=False))]
    pooled_rows = rows[np.isin(group[rows], pool)]
    position = np.searchsorted(pool, group[pooled_rows])
    means = {name: _group_means(v[pooled_rows], position, len(pool)) for name, v in vectors.items()}

    neighbors = min(max(MIN_NEIGHBORS, round(NEIGHBOR_SHARE * len(pool))), len(pool))
    if device != "cpu":
        return nearest_distance_on_device(vectors, means, group, pool, neighbors, device)
    for start in range(0, len(group), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        distance = np.zeros((len(group[block]), len(pool)), dtype=np.float32)  # minus the mean cosine
        for name, v in vectors.items():
            distance -= v[block] @ means[name].T
        distance /= len(vectors)
        distance[group[block][:, None] == pool] = np.inf
        distance.partition(neighbors - 1, axis=1)
        nearest = distance[:, :neighbors]
        finite = np.isfinite(nearest)
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN: the pool is the row's own group alone
            distances[block] = 1 + np.where(finite, nearest, 0).sum(1, dtype=np.float64) / finite.sum(1)
    return distances


def nearest_distance_on_device(
    vectors: Mapping[str, Floats], means: Mapping[str, Floats], group: Ints, pool: Ints, neighbors: int, device: str
) -> Floats:
    """`[n]`: 1 - mean of the `neighbors` largest cosines to the groups of the `pool`, with given means, by torch."""
    import torch

    from audit_plugin.encoders.devices import in_blocks

    sides = [(torch.from_numpy(v), torch.from_numpy(means[name]).to(device)) for name, v in vectors.items()]
    pool_groups, groups = torch.from_numpy(pool).to(device), torch.from_numpy(group)

    def distance(start: int, end: int) -> torch.Tensor:
        similarity = torch.stack([v[start:end].to(device) @ of_groups.T for v, of_groups in sides]).mean(0)
        similarity.masked_fill_(groups[start:end].to(device)[:, None] == pool_groups, -torch.inf)
        nearest = similarity.topk(neighbors, dim=1).values
        known = torch.isfinite(nearest)
        return (1 - nearest.masked_fill(~known, 0).sum(1, dtype=torch.float64) / known.sum(1)).float().cpu()

    return torch.cat(in_blocks(distance, len(group), DEVICE_ROWS)).numpy()


def _group_means(vectors: Floats, position: Ints, count: int) -> Floats:
    """`[count, d]`: mean of the rows at each position, each of which has at least one."""
    order = np.argsort(position, kind="stable")
    starts = np.searchsorted(position[order], np.arange(count))
    sums = np.add.reduceat(vectors[order], starts, axis=0)
    return np.asarray(sums / np.bincount(position, minlength=count)[:, None], dtype=np.float32)


def is_individual(content: Ints) -> Bools:
    """bool `[n]`: the content is the sample's own, not one that a class of samples shares.

    "a photo of a cat" in hundreds of rows is a label: how far it lies from other labels says nothing about one row.
    """
    count = np.bincount(content)[content] if len(content) else content
    return np.asarray(count <= max(CLASS_ROWS, CLASS_SHARE * len(content)))


def tail_scale(values: Floats) -> tuple[float, float]:
    """(median, width of a logistic upper tail) of the finite values; (0, inf) for fewer than `MIN_VALUES`.

    The width is read at the upper quartile, where up to a quarter of bad samples cannot reach it, and at the 85th
    percentile and the lower quartile, for sets whose bulk is skewed; the largest counts.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < MIN_VALUES:
        return 0.0, float("inf")
    q25, median, q75, q85 = np.quantile(finite, [0.25, 0.5, 0.75, 0.85])
    width = max((q75 - median) / LOGIT_75, (q85 - median) / LOGIT_85, 0.5 * (q75 - q25) / LOGIT_75)
    return float(median), max(float(width), 1e-6)


def outlier_cut(values: Floats, rate: float) -> float:
    """The value that a share `rate` of clean samples exceeds, for the largest of several distances.

    1. A logistic tail is fitted, and the largest samples are left out: as many as lie beyond its cut and would not in a
       clean set. The tail is fitted again, since outliers widen the tail that should expose them, until it settles.
    2. A heavier, exponential tail is fitted to the rest. If at least `SEPARATION` times as many samples lie beyond the
       cut as that tail has there, they are a group of their own, and the cut stays.
    3. Else the cut is raised to the lower of two values: the one that a share `rate` of the set exceeds, and the one
       that half that share of the exponential tail exceeds.
    """
    finite = np.sort(values[np.isfinite(values)])
    n = len(finite)
    if n < MIN_VALUES:
        return float("inf")
    excluded = 0  # of the largest values
    for _ in range(MAX_ROUNDS):
        bulk = finite[: n - excluded]
        median, q75, q85 = np.quantile(bulk, [0.5, 0.75, 0.85])
        width = max((q75 - median) / LOGIT_75, (q85 - median) / LOGIT_85, 1e-6)
        cut = float(median + width * np.log((1 - rate) / rate))
        beyond = int((finite > cut).sum())
        excess = int(beyond - rate * len(bulk))
        if excess <= excluded:
            break
        excluded = excess

    # Exponential tail through the quantiles q75 and q85: P(value > x) = 0.15 exp((q85 - x) / slope)
    slope = max((q85 - q75) / np.log(0.25 / 0.15), 1e-6)
    if beyond >= SEPARATION * 0.15 * np.exp((q85 - cut) / slope) * n:
        return cut
    half_rate = float(q85 + slope * np.log(0.15 / (0.5 * rate)))
    return max(cut, min(half_rate, float(np.quantile(finite, 1 - rate))))


def in_tail_units(values: Floats, reference: Floats) -> Floats:
    """(values - median) / width of the tail of `reference` (`tail_scale`), float32; NaN stays NaN.

    Columns of different shapes become comparable: a share of about exp(-x) of clean samples exceeds x.
    """
    median, width = tail_scale(reference)
    return ((values - median) / width).astype(np.float32)


def count_user_groups(content: Ints, user_groups: Ints) -> Ints:
    """`[n]`: how many user groups (or samples, where the user named none) hold a row's content."""
    if not len(content):
        return content
    content_of_pair = np.unique(np.stack([content, user_groups], axis=1), axis=0)[:, 0]
    return np.asarray(np.bincount(content_of_pair, minlength=int(content.max()) + 1)[content])
