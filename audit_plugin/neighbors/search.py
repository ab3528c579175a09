"""Neighbors as fast as the machine allows: exact for few rows, else with a recall that is measured and reported.

Many rows are put in lists around centers: a list's rows look for neighbors in the lists nearest to it, not in all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from audit_plugin.arrays import Floats, Ints, Neighbors
from audit_plugin.encoders.devices import has_bf16_unit

from .exact import check_rows, exact_search, top_others
from .scan import SPARE, Space, make_space, nearest_members

if TYPE_CHECKING:
    from torch import Tensor

EXACT_ROWS = 30_000  # up to so many rows, the search is exact
TARGET = 0.99  # least recall, on the second half of the sampled rows
GOAL = 0.994  # aimed at on the first half, so that the second half reaches the target
SAMPLED_ROWS = 500  # in each half, whose exact neighbors are known
COARSE_LOSS = 0.002  # share of the neighbors that bfloat16 candidates may miss
WORTH = 0.5  # of all products: above it lists save nothing
ROUNDING = 1e-6  # of float32 similarities
PIECE = 2**14  # rows that are searched as one piece of work
LIST_ROWS = 128  # on average
MOST_LISTS = 8192
FIT_ROWS = 48  # per list, on which the centers are fitted
ROUNDS = 6  # of k-means
VOTES = 8  # lists nearest to a row that its own list looks at first
BLOCK = 8192  # rows multiplied with all centers at once

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[Any, Any]]]
Report = Callable[[int, int], None]  # (rows done, of how many)
Part = tuple[Ints, Ints, Floats]  # rows `[q]`, their neighbors `[q, k]`, the similarities of these


@dataclass(frozen=True)
class SearchResult:
    """Neighbors of n rows and, for people, how they were found."""

    neighbors: Neighbors
    recall: float  # share of the true neighbors that were found, on a sample of rows; 1 for an exact search
    method: str


def nearest_neighbors(
    vectors: Floats,
    k: int,
    device: str = "cpu",
    seed: int = 0,
    report: Report = lambda _done, _total: None,
    each: Each | None = None,
) -> SearchResult:
    """The k most similar other rows of each row by inner product: exact, or with a recall of `TARGET` and more.

    Up to `EXACT_ROWS` rows: `exact_search`. Above, candidates come from coarse products with the lists nearest to a
    row's own, or with all rows where that takes as long. How many lists is read from the exact neighbors of
    `SAMPLED_ROWS` rows, the recall from those of as many others; below `TARGET` the effort is raised. Similarities are
    always exact, and ties are ordered by index.

    Which neighbors an approximate search misses depends on the rows' order: pass them in canonical order. Memory,
    besides the result: a bfloat16 copy of the vectors where the machine multiplies those faster, a table of 8 bytes
    per pair of lists, and blocks of fixed size.

    Args:
        vectors: float32 `[n, d]`, unit rows.
        k: neighbors wanted; fewer exist when n <= k.
        device: "cpu" or "cuda".
        seed: of the sample and the centers.
        report: called with (rows done, of how many); with more effort it starts again from 0.
        each: function, items -> (item, the function's value), in any order: runs the pieces of work of an approximate
            search on several machines. None: in this process. The result is the same.
    """
    check_rows(vectors)
    n = len(vectors)
    if n <= max(EXACT_ROWS, k + SPARE):
        return SearchResult(exact_search(vectors, k), 1.0, "exact")
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    sampled = np.random.default_rng(seed).choice(n, min(n, 2 * SAMPLED_ROWS), replace=False)
    halves = [np.sort(half) for half in np.array_split(sampled, 2)]
    tuning, measuring = (ExactSample(rows, *top_others(vectors, rows, k)) for rows in halves)
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
    similarities: Floats
    indices: Ints

    def recall(self, similarities: Floats) -> float:
        """Share of `[s, k]` found similarities that are at least the true k-th: equally near rows are as good."""
        return float((similarities >= self.similarities[:, -1:] - ROUNDING).mean())


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
        parts = (_search_piece(space, lists, depth, k, piece) for piece in pieces)
    else:
        vectors, coarse = space.exact.cpu().numpy(), space.coarse is not space.exact
        work = functools.partial(_search_piece_remotely, vectors, coarse, space.exact.device.type, lists, depth, k)
        parts = (part for _, part in each(work, pieces))
    indices = np.empty((n, k), dtype=np.int32)
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


@dataclass(frozen=True)
class Lists:
    """Which rows are together in a list, and where each list looks."""

    number: Ints  # int64 [n], the list of each row
    order: Ints  # int64 [n], rows by list, ascending within
    ends: Ints  # [l], where each list ends in `order`
    ranking: Ints  # int32 [l, l], the lists in the order in which a list looks at them, itself among the first

    def rows(self, number: int) -> Ints:
        """Rows of a list."""
        return self.order[self.ends[number - 1] if number else 0 : self.ends[number]]

    def looked_at(self, depth: int, least: int) -> Ints:
        """int64 `[l, 2]`: (lists, rows) at which each list looks: `depth` lists, or as many as hold `least` rows."""
        sizes = np.diff(self.ends, prepend=0)
        rows_by_depth = np.cumsum(sizes[self.ranking], axis=1)  # [l, l]
        lists = np.maximum(depth, (rows_by_depth < least).sum(1) + 1)
        rows = np.take_along_axis(rows_by_depth, lists[:, None] - 1, 1)[:, 0]
        return np.stack([lists, rows], 1)


def make_lists(space: Space, seed: int) -> Lists:
    """Lists of about `LIST_ROWS` rows around centers of a k-means with a seed.

    A list ranks the others by how many of its rows have them among their `VOTES` nearest, then by the centers'
    similarity.
    """
    n = len(space.coarse)
    count = min(MOST_LISTS, max(1, n // LIST_ROWS))
    centers = _fit_centers(space.coarse, count, np.random.default_rng(seed))
    number = np.empty(n, dtype=np.int64)
    votes = np.zeros(count * count, dtype=np.int32)
    for start in range(0, n, BLOCK):
        similarities = (space.coarse[start : start + BLOCK] @ centers.T).float()
        nearest = similarities.topk(min(VOTES, count), dim=1).indices.cpu().numpy()  # [b, VOTES]
        own = nearest[:, :1]
        number[start : start + BLOCK] = own[:, 0]
        np.add.at(votes, (own * count + nearest).ravel(), 1)
    center_similarities = (centers @ centers.T).float().cpu().numpy()
    # votes are whole numbers and similarities / 4 differ by at most 1 / 2: they decide where votes are equal
    preference = center_similarities / 4 + votes.reshape(count, count)
    ranking = np.argsort(-preference, axis=1, kind="stable").astype(np.int32)
    order = np.argsort(number, kind="stable")
    return Lists(number, order, np.cumsum(np.bincount(number, minlength=count)), ranking)


def _fit_centers(coarse: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """`[count, d]` unit centers: a few rounds of spherical k-means on a sample of the rows."""
    import torch

    n = len(coarse)
    sampled = np.sort(rng.choice(n, min(n, FIT_ROWS * count), replace=False))
    fit = coarse[torch.from_numpy(sampled)]
    centers = fit[torch.from_numpy(np.sort(rng.choice(len(fit), count, replace=False)))]
    for _ in range(ROUNDS):
        nearest = torch.cat([(part @ centers.T).argmax(1) for part in fit.split(BLOCK)])
        sums = torch.zeros(centers.shape, device=fit.device).index_add_(0, nearest, fit.float())
        length = sums.norm(dim=1, keepdim=True)
        # a center without rows stays where it is
        centers = torch.where(length > 0, sums / length.clamp_min(1e-12), centers.float()).to(coarse.dtype)
    return centers


def depth_for(lists: Lists, rows: Ints, neighbors: Ints, share: float) -> int:
    """How many lists must be looked at so that they hold `share` of the known neighbors `[s, k]` of rows `[s]`."""
    rank_of_list = np.empty(len(lists.ends), dtype=np.int64)
    ranks = np.empty(neighbors.shape, dtype=np.int64)
    for at, (row, row_neighbors) in enumerate(zip(rows, neighbors, strict=True)):
        rank_of_list[lists.ranking[lists.number[row]]] = np.arange(len(rank_of_list))
        ranks[at] = rank_of_list[lists.number[row_neighbors]]
    return int(np.sort(ranks.ravel())[int(np.ceil(share * ranks.size)) - 1]) + 1


def scan_lists(space: Space, lists: Lists, depth: int, k: int, numbers: Ints) -> tuple[Ints, Ints, Floats]:
    """(rows `[q]` of the lists `numbers`, indices `[q, k]`, similarities `[q, k]`) in the lists that they look at."""
    import torch

    device = space.coarse.device
    list_counts = lists.looked_at(depth, k + SPARE)[:, 0]
    rows = [lists.rows(number) for number in numbers.tolist()]
    indices, similarities = [np.zeros((0, k), np.int64)], [np.zeros((0, k), np.float32)]
    for number, own in zip(numbers.tolist(), rows, strict=True):
        if len(own):
            looked_at = lists.ranking[number, : list_counts[number]].tolist()
            members = np.concatenate([lists.rows(other) for other in looked_at])
            best = nearest_members(space, torch.from_numpy(own).to(device), torch.from_numpy(members).to(device), k)
            indices.append(best[0].cpu().numpy())
            similarities.append(best[1].cpu().numpy())
    return np.concatenate(rows), np.concatenate(indices), np.concatenate(similarities)
