"""Groups of near-duplicates, and partitions that are joined. numpy; scipy inside the functions."""

from __future__ import annotations

import numpy as np

from audit_plugin.arrays import Floats, Ints, Neighbors

LINKAGE_ROWS = 4096
LOCAL_NEIGHBORS = 10
NEAR = 0.2
FAR = 0.4  # where neighbors are farther than this, there is no scale to be near on


def near_duplicate_groups(vectors: Floats, neighbors: Neighbors, same: Ints, largest: int) -> tuple[Ints, int]:
    """Groups of near-duplicates by complete linkage: every two members are near-duplicates.

    Two contents are near-duplicates if their distance is at most `NEAR` of what is usual around them: the geometric
    mean of their distances to their tenth neighbors. A fixed cosine would call all of a narrow set repeats.

    Args:
        vectors: unit rows `[n, d]`.
        neighbors: of the same rows, over distinct contents, `similarities` their cosines: where candidates come from.
        same: `[n]`, equal values are exact repeats and always stay together.
        largest: groups of near-duplicates above this many contents are split.

    Returns:
        (group `[n]`, numbered by first row; number of groups that were split).
    """
    if not len(same):
        return same, 0
    _, first, content = np.unique(same, return_index=True, return_inverse=True)
    usual = usual_distance(neighbors)
    label = _components(first, content, neighbors, usual)
    groups, size = label.copy(), np.bincount(label)
    split, taken = 0, len(size)
    order, ends = np.argsort(label, kind="stable"), np.cumsum(size)
    for component in np.flatnonzero(size > 1):
        part = order[ends[component] - size[component] : ends[component]]
        inner, cut = _complete_linkage(vectors[first[part]], usual[first[part]], largest)
        groups[part] = inner + taken
        taken += int(inner.max()) + 1
        split += cut
    return number_by_first(groups[content]), split


def usual_distance(neighbors: Neighbors) -> Floats:
    """`[n]`: distance to the tenth neighbor (the last, where there are fewer), at most `FAR`; 0 without any."""
    distance = np.where(np.isfinite(neighbors.similarities), 1 - neighbors.similarities, -np.inf)
    distance = np.sort(distance, axis=1)  # missing ones first
    count = np.isfinite(distance).sum(1)
    tenth = distance.shape[1] - count + np.minimum(count, LOCAL_NEIGHBORS) - 1
    usual = np.take_along_axis(distance, np.maximum(tenth, 0)[:, None], 1)[:, 0]
    return np.where(count > 0, np.clip(usual, 0, FAR), 0).astype(np.float32)


def _components(first: Ints, content: Ints, neighbors: Neighbors, usual: Floats) -> Ints:
    """`[u]`: connected components of distinct contents over the pairs that are near-duplicates."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    scale = np.sqrt(usual[:, None] * usual[np.maximum(neighbors.indices, 0)])
    rows, columns = np.nonzero((1 - neighbors.similarities <= NEAR * scale + 1e-6) & (neighbors.indices >= 0))
    left, right = content[rows], content[neighbors.indices[rows, columns]]
    edges = coo_matrix((np.ones(len(left)), (left, right)), shape=(len(first), len(first)))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def _complete_linkage(vectors: Floats, usual: Floats, largest: int) -> tuple[Ints, int]:
    """(group of each row, whether a group had to be split because of its size)."""
    groups, taken, cut = np.empty(len(vectors), dtype=np.int64), 0, 0
    for start in range(0, len(vectors), LINKAGE_ROWS):  # a larger component would need a larger square
        block = slice(start, start + LINKAGE_ROWS)
        inner = _link(vectors[block], usual[block])
        for group in np.flatnonzero(np.bincount(inner) > largest):
            members = np.flatnonzero(inner == group)
            inner[members] = inner.max() + 1 + np.arange(len(members)) // largest
            cut = 1
        groups[block] = inner + taken
        taken += int(inner.max()) + 1
    return groups, cut


def _link(vectors: Floats, usual: Floats) -> Ints:
    if len(vectors) == 1:
        return np.zeros(1, dtype=np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    i, j = np.triu_indices(len(vectors), 1)
    scale = np.sqrt(usual[i] * usual[j]) * NEAR + 1e-6
    tree = linkage(0.5 * pdist(vectors.astype(np.float64), "sqeuclidean") / scale, method="complete")
    return fcluster(tree, 1.0, criterion="distance").astype(np.int64) - 1


def number_by_first(groups: Ints) -> Ints:
    """The same partition, groups numbered in the order of their first row."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def join_groups(left: Ints, right: Ints) -> Ints:
    """The finest partition `[n]` in which rows that share a group in either argument share one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(left)
    size = int(left.max(initial=-1)) + int(right.max(initial=-1)) + 2
    edges = coo_matrix((np.ones(n), (left, right + int(left.max(initial=-1)) + 1)), shape=(size, size))
    return number_by_first(connected_components(edges, directed=False)[1][left].astype(np.int64))
