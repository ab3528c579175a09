"""Neighbors as fast as the machine allows: exact for few rows, else with a recall that is measured and reported."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints, Neighbors
from audit_plugin.encoders.devices import has_bf16_unit

from .exact import check_rows, exact_search, self_hits, top_products
from .lists import Lists, depth_for, make_lists, scan_lists
from .scan import SPARE, Space, make_space, nearest_members

EXACT_ROWS = 30_000  # up to so many rows, the search is exact
TARGET = 0.99  # least recall, on the second half of the sampled rows
GOAL = 0.994  # aimed at on the first half, so that the second half reaches the target
SAMPLED_ROWS = 500  # in each half, whose exact neighbors are known
COARSE_LOSS = 0.002  # share of the neighbors that bfloat16 candidates may miss
WORTH = 0.5  # of all products: above it lists save nothing
ROUNDING = 1e-6
PIECE = 2**14  # rows that are searched as one piece of work

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[Any, Any]]]
Report = Callable[[int, int], None]  # (rows done, of how many)
Part = tuple[Ints, Ints, Floats]  # rows `[q]`, their neighbors `[q, k]`, the similarities of these


@dataclass(frozen=True)
class SearchResult:
    """Neighbors and how they were found.

    Attributes:
        neighbors: of n rows.
        recall: share of the true neighbors that were found, on a sample of rows; 1 for an exact search.
        method: for people.
    """

    neighbors: Neighbors
    recall: float
    method: str


def ignore_progress(_done: int, _total: int) -> None:
    """Reports progress to nobody."""


def nearest_neighbors(
    vectors: Floats,
    k: int,
    device: str = "cpu",
    seed: int = 0,
    report: Report = ignore_progress,
    each: Each | None = None,
) -> SearchResult:
    """The k most similar other rows of each row by inner product: exact, or with a recall of `TARGET` and more.

    Up to `EXACT_ROWS` rows: `exact_search`. Above, candidates come from coarse products with the lists nearest to a
    row's own, or with all rows where that takes as long. How many lists is read from the exact neighbors of
    `SAMPLED_ROWS` rows, the recall from those of as many others; below `TARGET` the effort is raised. Similarities are
    always exact, ties are ordered by index, self is removed by index.

    Where the search is approximate, which neighbors are missed depends on the rows' order: pass them in canonical
    order. Equal input gives equal results on one machine. Memory, besides the result: a bfloat16 copy of the vectors
    where the machine multiplies those faster, a table of 8 bytes per pair of lists, and blocks of fixed size.

    Args:
        vectors: float32 `[n, d]`, unit rows.
        k: neighbors wanted; fewer exist when n <= k.
        device: "cpu" or "cuda".
        seed: of the sample and the centers.
        report: called with (rows done, of how many); with more effort it starts again from 0.
        each: function, items -> (item, the function's value), in any order: runs the pieces of work of an approximate
            search on several machines. None: in this process. The result is the same.

    Raises:
        ValueError: `vectors` is not a matrix.
    """
    check_rows(vectors)
    n = len(vectors)
    if n <= max(EXACT_ROWS, k + SPARE):
        return SearchResult(exact_search(vectors, k), 1.0, "exact")
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    sampled = np.random.default_rng(seed).choice(n, min(n, 2 * SAMPLED_ROWS), replace=False)
    tuning, measuring = (_exact_sample(vectors, np.sort(half), k) for half in np.array_split(sampled, 2))
    space = _make_space(vectors, device, tuning)
    lists = make_lists(space, seed)
    depth = depth_for(lists, tuning.rows, tuning.indices, GOAL)
    while (share := _share_of_products(lists, depth, k)) <= WORTH:
        neighbors = _search(space, lists, depth, k, report, each)
        recall = measuring.recall(neighbors.similarities[measuring.rows])
        if recall >= TARGET:
            method = f"{depth:,} of {len(lists.ends):,} lists, {share:.1%} of all products"
            return SearchResult(neighbors, recall, method)
        depth *= 2
    neighbors = _search(space, None, 0, k, report, each)
    recall = measuring.recall(neighbors.similarities[measuring.rows])
    if recall >= TARGET:
        return SearchResult(neighbors, recall, "all products")
    return SearchResult(exact_search(vectors, k), 1.0, "exact")


@dataclass(frozen=True)
class ExactSample:
    """A sample of rows `[s]` with their exact neighbors `[s, k]`."""

    rows: Ints
    indices: Ints
    similarities: Floats

    def recall(self, similarities: Floats) -> float:
        """Share of `[s, k]` found similarities that are at least the true k-th: equally near rows are as good."""
        return float((similarities >= self.similarities[:, -1:] - ROUNDING).mean())


def _exact_sample(vectors: Floats, rows: Ints, k: int) -> ExactSample:
    similarities, indices = top_products(vectors, k + 1, vectors[rows])
    others = ~self_hits(indices, rows)
    return ExactSample(rows, indices[others].reshape(-1, k), similarities[others].reshape(-1, k))


def _make_space(vectors: Floats, device: str, sample: ExactSample) -> Space:
    """Coarse where that is faster and, on the sampled rows, loses next to nothing."""
    import torch

    exact = torch.from_numpy(vectors).to(device)
    if has_bf16_unit(device):
        space = make_space(exact, exact.to(torch.bfloat16))
        rows = torch.from_numpy(sample.rows).to(device)
        _, similarities = nearest_members(space, rows, None, sample.indices.shape[1])
        if sample.recall(similarities.cpu().numpy()) >= 1 - COARSE_LOSS:
            return space
    return make_space(exact, exact)


def _share_of_products(lists: Lists, depth: int, k: int) -> float:
    """Share of all n^2 products that are made when each list looks at `depth` lists."""
    if depth >= len(lists.ends):
        return 1.0
    sizes = np.diff(lists.ends, prepend=0)
    rows_looked_at = lists.looked_at(depth, k + SPARE)[:, 1]
    return float((sizes * rows_looked_at).sum() / sizes.sum() ** 2)


def _search(space: Space, lists: Lists | None, depth: int, k: int, report: Report, each: Each | None) -> Neighbors:
    """Neighbors of all rows: in the `depth` lists that their own list looks at, or without lists among all rows."""
    n = len(space.exact)
    pieces = np.array_split(np.arange(n if lists is None else len(lists.ends)), -(-n // PIECE))
    parts: Iterable[Part]
    if each is None:
        parts = (_search_piece(space, lists, depth, k, piece) for piece in pieces if len(piece))
    else:
        vectors, coarse = space.exact.cpu().numpy(), space.coarse is not space.exact
        work = functools.partial(_search_piece_remotely, vectors, coarse, space.exact.device.type, lists, depth, k)
        parts = (part for _, part in each(work, pieces))
    indices = np.empty((n, k), dtype=np.int64)
    similarities = np.empty((n, k), dtype=np.float32)
    done = 0
    for rows, row_indices, row_similarities in parts:
        indices[rows] = row_indices
        similarities[rows] = row_similarities
        done += len(rows)
        report(done, n)
    return Neighbors(indices, similarities)


def _search_piece_remotely(
    vectors: Floats, coarse: bool, device: str, lists: Lists | None, depth: int, k: int, piece: Ints
) -> Part:
    """`_search_piece` in another process, which makes its own space."""
    import torch

    exact = torch.from_numpy(vectors).to(device)
    return _search_piece(make_space(exact, exact.to(torch.bfloat16) if coarse else exact), lists, depth, k, piece)


def _search_piece(space: Space, lists: Lists | None, depth: int, k: int, piece: Ints) -> Part:
    """Neighbors of the rows of these lists, or without lists of these rows."""
    import torch

    if lists is not None:
        return scan_lists(space, lists, depth, k, piece)
    rows = torch.from_numpy(piece).to(space.exact.device)
    indices, similarities = nearest_members(space, rows, None, k)
    return piece, indices.cpu().numpy(), similarities.cpu().numpy()
