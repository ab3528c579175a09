"""Neighbors as fast as the machine allows: exact for few rows, else with a recall that is measured and reported."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints, Neighbors
from audit_plugin.encoders.devices import has_bf16_unit

from .exact import exact_search, top
from .lists import Lists, depth_for, make_lists, scan_lists
from .scan import SPARE, Space, make_space, scan

EXACT_ROWS = 30_000
TARGET = 0.99
GOAL = 0.994  # aimed at on the first half of the asked rows, so that the second half finds the target
ASKED = 500  # rows in each half
COARSE_LOSS = 0.002
WORTH = 0.5  # of all products: above it lists save nothing
ROUNDING = 1e-6
PIECE = 2**14  # rows that a worker elsewhere takes at once, and after which progress is told

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[Any, Any]]]
Told = Callable[[int, int], None]
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


def unheard(_done: int, _total: int) -> None:
    """Progress that nobody watches."""


def nearest_neighbors(
    vectors: Floats, k: int, device: str = "cpu", seed: int = 0, told: Told = unheard, each: Each | None = None
) -> SearchResult:
    """The k most similar other rows of each row by inner product: exact, or with a recall of `TARGET` and more.

    Up to `EXACT_ROWS` rows: `exact_search`. Above, candidates come from coarse products with the lists nearest to a
    row's own, or with all rows where that takes as long. How many lists is read from the exact neighbors of `ASKED`
    rows, the recall from those of as many others; below `TARGET` the effort is raised. Similarities are always exact,
    ties are ordered by index, self is removed by index.

    Where the rows are approximate, which neighbors are missed depends on their order: pass them in canonical order.
    Equal input gives equal results on one machine. Memory, besides the result: a bfloat16 copy of the vectors where
    the machine multiplies those faster, a table of 8 bytes per pair of lists, and blocks of fixed size.

    Args:
        vectors: float32 `[n, d]`, unit rows.
        k: neighbors wanted; fewer exist when n <= k.
        device: "cpu" or "cuda".
        seed: of the sample and the centers.
        told: (rows done, of how many), as they are finished; more effort begins anew.
        each: function, items -> (item, what the function makes of it), in any order: where the lists are gone through
            that are too much for one machine. None: here. The result is the same.
    """
    n = len(vectors)
    if n <= max(EXACT_ROWS, k + SPARE):
        return SearchResult(exact_search(vectors, k), 1.0, "exact")
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    chosen = np.random.default_rng(seed).choice(n, min(n, 2 * ASKED), replace=False)
    halves = [_truth(vectors, np.sort(half), k) for half in np.array_split(chosen, 2)]
    space = _space(vectors, device, halves[0])
    lists = make_lists(space, seed)
    depth = depth_for(lists, halves[0].rows, halves[0].indices, GOAL)
    while (visited := _visited(lists, depth, k)) <= WORTH:
        found = _scanned(space, lists, depth, k, told, each)
        if (recall := halves[1].recall(found.similarities[halves[1].rows])) >= TARGET:
            return SearchResult(found, recall, f"{depth:,} of {len(lists.ends):,} lists, {visited:.1%} of all products")
        depth *= 2
    found = _scanned(space, None, 0, k, told, each)
    if (recall := halves[1].recall(found.similarities[halves[1].rows])) >= TARGET:
        return SearchResult(found, recall, "all products")
    return SearchResult(exact_search(vectors, k), 1.0, "exact")


@dataclass(frozen=True)
class Truth:
    """Some rows `[s]` with their exact neighbors `[s, k]`."""

    rows: Ints
    indices: Ints
    similarities: Floats

    def recall(self, similarities: Floats) -> float:
        """Share of `[s, k]` found similarities that are at least the true k-th: equally near rows are as good."""
        return float((similarities >= self.similarities[:, -1:] - ROUNDING).mean())


def _truth(vectors: Floats, rows: Ints, k: int) -> Truth:
    near, index = top(vectors, k + 1, vectors[rows])
    own = index == rows[:, None]
    own[~own.any(1), -1] = True  # more than k exact repeats
    return Truth(rows, index[~own].reshape(-1, k), near[~own].reshape(-1, k))


def _space(vectors: Floats, device: str, truth: Truth) -> Space:
    """Coarse where that is faster and, on the asked rows, loses next to nothing."""
    import torch

    exact = torch.from_numpy(vectors).to(device)
    if has_bf16_unit(device):
        space = make_space(exact, exact.to(torch.bfloat16))
        found = scan(space, torch.from_numpy(truth.rows).to(device), None, truth.indices.shape[1])[1]
        if truth.recall(found.cpu().numpy()) >= 1 - COARSE_LOSS:
            return space
    return make_space(exact, exact)


def _visited(lists: Lists, depth: int, k: int) -> float:
    """Share of all products that are made when each list looks at `depth` lists."""
    if depth >= len(lists.ends):
        return 1.0
    sizes = np.diff(lists.ends, prepend=0)
    return float((sizes * lists.looked_at(depth, k + SPARE)[:, 1]).sum() / sizes.sum() ** 2)


def _scanned(space: Space, lists: Lists | None, depth: int, k: int, told: Told, each: Each | None) -> Neighbors:
    """Neighbors of all rows: in the lists that theirs looks at, or without lists among all."""
    n = len(space.exact)
    whole = np.array_split(np.arange(n if lists is None else len(lists.ends)), -(-n // PIECE))
    parts: Iterable[Part]
    if each is None:
        parts = (_scan_part(space, lists, depth, k, piece) for piece in whole if len(piece))
    else:
        vectors, coarse = space.exact.cpu().numpy(), space.coarse is not space.exact
        work = functools.partial(_scan_elsewhere, vectors, coarse, space.exact.device.type, lists, depth, k)
        parts = (found for _, found in each(work, whole))
    indices, similarities = np.empty((n, k), dtype=np.int64), np.empty((n, k), dtype=np.float32)
    done = 0
    for rows, index, near in parts:
        indices[rows], similarities[rows] = index, near
        told(done := done + len(rows), n)
    return Neighbors(indices, similarities)


def _scan_elsewhere(
    vectors: Floats, coarse: bool, device: str, lists: Lists | None, depth: int, k: int, part: Ints
) -> Part:
    """`_scan_part` in another process, which makes the space anew."""
    import torch

    exact = torch.from_numpy(vectors).to(device)
    return _scan_part(make_space(exact, exact.to(torch.bfloat16) if coarse else exact), lists, depth, k, part)


def _scan_part(space: Space, lists: Lists | None, depth: int, k: int, part: Ints) -> Part:
    """Of these lists, or without lists of these rows."""
    import torch

    if lists is not None:
        return scan_lists(space, lists, depth, k, part)
    index, near = scan(space, torch.from_numpy(part).to(space.exact.device), None, k)
    return part, index.cpu().numpy(), near.cpu().numpy()
