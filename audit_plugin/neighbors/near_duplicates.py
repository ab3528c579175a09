"""Groups of near-duplicates, and partitions that are joined. numpy; scipy inside the functions."""

from __future__ import annotations

import numpy as np

from audit_plugin.arrays import Floats, Ints, Neighbors, check_lengths, dense_ids

LINKAGE_ROWS = 4096  # contents whose distances are computed as one square
LOCAL_NEIGHBORS = 10  # the usual distance of a content is that to the last of these
NEAR = 0.2  # of the usual distance: the largest distance of near-duplicates
FAR = 0.4  # where neighbors are farther than this, there is no scale to be near on
ROUNDING = 1e-6  # of float32 cosines


def group_near_duplicates(vectors: Floats, neighbors: Neighbors, same: Ints, largest: int) -> tuple[Ints, int]:
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
    check_lengths(vectors=vectors, neighbors=neighbors.indices, same=same)
    if not len(same):
        return same, 0
    _, first, content = np.unique(same, return_index=True, return_inverse=True)
    usual = usual_distance(neighbors)
    # complete linkage within each connected component of the graph of near-duplicates, u contents
    component = component_ids(close_pairs(content, neighbors, NEAR), len(first))
    groups, sizes = component.copy(), np.bincount(component)
    order, ends = np.argsort(component, kind="stable"), np.cumsum(sizes)
    split_count, group_count = 0, len(sizes)
    for at in np.flatnonzero(sizes > 1):
        members = order[ends[at] - sizes[at] : ends[at]]
        rows = first[members]
        linked, was_split = _complete_linkage(vectors[rows], usual[rows], largest)
        groups[members] = linked + group_count
        group_count += int(linked.max()) + 1
        split_count += was_split
    return dense_ids(groups[content], by_first_row=True), split_count


def usual_distance(neighbors: Neighbors) -> Floats:
    """`[n]`: distance to the tenth neighbor (the last, where there are fewer), at most `FAR`; 0 without any."""
    distance = np.where(np.isfinite(neighbors.similarities), 1 - neighbors.similarities, -np.inf)
    distance = np.sort(distance, axis=1)  # missing ones first
    count = np.isfinite(distance).sum(1)
    tenth = distance.shape[1] - count + np.minimum(count, LOCAL_NEIGHBORS) - 1
    usual = np.take_along_axis(distance, np.maximum(tenth, 0)[:, None], 1)[:, 0]
    return np.where(count > 0, np.clip(usual, 0, FAR), 0).astype(np.float32)


def close_pairs(content: Ints, neighbors: Neighbors, share: float) -> Ints:
    """`[q, 2]`: contents `[n]` of rows and neighbors not farther apart than this share of what is usual around them."""
    usual = usual_distance(neighbors)
    scale = np.sqrt(usual[:, None] * usual[np.maximum(neighbors.indices, 0)])
    is_close = (1 - neighbors.similarities <= share * scale + ROUNDING) & (neighbors.indices >= 0)
    rows, columns = np.nonzero(is_close)
    return np.stack([content[rows], content[neighbors.indices[rows, columns]]], axis=1)


def component_ids(pairs: Ints, total: int) -> Ints:
    """int64 `[total]`: connected components of the undirected graph with the edges `[q, 2]`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(total, total))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def _complete_linkage(vectors: Floats, usual: Floats, largest: int) -> tuple[Ints, bool]:
    """(group of each row, whether a group had to be split because of its size)."""
    groups, group_count, was_split = np.empty(len(vectors), dtype=np.int64), 0, False
    for start in range(0, len(vectors), LINKAGE_ROWS):  # a larger component would need a larger square
        block = slice(start, start + LINKAGE_ROWS)
        linked, too_large = split_large_groups(_linked(vectors[block], usual[block]), largest)
        groups[block] = linked + group_count
        group_count += int(linked.max()) + 1
        was_split |= too_large > 0
    return groups, was_split


def split_large_groups(groups: Ints, largest: int) -> tuple[Ints, int]:
    """(groups `[n]` of at most `largest` rows each, divided in the order of their rows; how many were too large)."""
    too_large = np.flatnonzero(np.bincount(groups) > largest)
    if not len(too_large):
        return groups, 0
    part = np.zeros(len(groups), dtype=np.int64)
    for group in too_large:
        members = np.flatnonzero(groups == group)
        part[members] = np.arange(len(members)) // largest
    return dense_ids(groups, part), len(too_large)


def _linked(vectors: Floats, usual: Floats) -> Ints:
    """Groups by complete linkage of distance / (NEAR · usual distance of both), cut at 1."""
    if len(vectors) == 1:
        return np.zeros(1, dtype=np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    left, right = np.triu_indices(len(vectors), 1)
    scale = np.sqrt(usual[left] * usual[right]) * NEAR + ROUNDING
    # 1 - <a, b> = |a - b|² / 2 for unit rows
    distance = 0.5 * pdist(vectors.astype(np.float64), "sqeuclidean")
    tree = linkage(distance / scale, method="complete")
    return fcluster(tree, 1.0, criterion="distance").astype(np.int64) - 1


def join_groups(left: Ints, right: Ints) -> Ints:
    """The finest partition `[n]` in which rows that share a group in either argument share one."""
    # a graph of groups, whose edges are the rows
    right_nodes = right + int(left.max(initial=-1)) + 1
    total = int(right_nodes.max(initial=-1)) + 1
    return dense_ids(component_ids(np.stack([left, right_nodes], axis=1), total)[left], by_first_row=True)
