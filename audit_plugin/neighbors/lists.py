"""Rows in lists around centers: a list's rows look for their neighbors in the lists nearest to it, not in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audit_plugin.arrays import Floats, Ints

from .scan import SPARE, Space, nearest_members

if TYPE_CHECKING:
    from torch import Tensor

LIST_ROWS = 128  # on average
MOST_LISTS = 8192
FIT_ROWS = 48  # per list, on which the centers are fitted
ROUNDS = 6  # of k-means
VOTES = 8  # lists nearest to a row that its own list looks at first
BLOCK = 8192  # rows multiplied with all centers at once


@dataclass(frozen=True)
class Lists:
    """Which rows are together in a list, and where each list looks.

    Attributes:
        number: int64 `[n]`, the list of each row.
        order: int64 `[n]`, rows by list, ascending within; `ends` `[l]`: where each list ends in it.
        ranking: int32 `[l, l]`, the lists in the order in which a list looks at them, itself among the first.
    """

    number: Ints
    order: Ints
    ends: Ints
    ranking: Ints

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
    total = sum(len(own) for own in rows)
    indices = np.empty((total, k), np.int64)
    similarities = np.empty((total, k), np.float32)
    start = 0
    for number, own in zip(numbers.tolist(), rows, strict=True):
        if not len(own):
            continue
        looked_at = lists.ranking[number, : list_counts[number]].tolist()
        members = np.concatenate([lists.rows(other) for other in looked_at])
        best = nearest_members(space, torch.from_numpy(own).to(device), torch.from_numpy(members).to(device), k)
        part = slice(start, start + len(own))
        indices[part] = best[0].cpu().numpy()
        similarities[part] = best[1].cpu().numpy()
        start += len(own)
    return np.concatenate(rows), indices, similarities
