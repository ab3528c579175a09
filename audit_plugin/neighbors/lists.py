"""Rows in lists around centers: a list's rows look for their neighbors in the lists nearest to it, not in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audit_plugin.arrays import Floats, Ints

from .scan import SPARE, Space, scan

if TYPE_CHECKING:
    from torch import Tensor

LIST_ROWS = 128  # on average
MOST_LISTS = 8192
FIT_ROWS = 48  # per list, on which the centers are fitted
ROUNDS = 6
VOTES = 8  # lists nearest to a row that its own list looks at first
BLOCK = 8192


@dataclass(frozen=True)
class Lists:
    """Which rows stand together, and where each list looks.

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
        """int64 `[l, 2]`: (lists, rows) at which each list looks: `depth` lists, more where they hold few rows."""
        held = np.cumsum(np.diff(self.ends, prepend=0)[self.ranking], axis=1)
        lists = np.maximum(depth, (held < least).sum(1) + 1)
        return np.stack([lists, np.take_along_axis(held, lists[:, None] - 1, 1)[:, 0]], 1)


def make_lists(space: Space, seed: int) -> Lists:
    """Lists of about `LIST_ROWS` rows around centers of a k-means with a seed."""
    n = len(space.coarse)
    count = min(MOST_LISTS, max(1, n // LIST_ROWS))
    centers = _fit_centers(space.coarse, count, np.random.default_rng(seed))
    number, votes = np.empty(n, dtype=np.int64), np.zeros(count * count, dtype=np.int32)
    for start in range(0, n, BLOCK):
        near = (space.coarse[start : start + BLOCK] @ centers.T).float()
        first = near.topk(min(VOTES, count), dim=1).indices.cpu().numpy()
        number[start : start + BLOCK] = first[:, 0]
        np.add.at(votes, (first[:, :1] * count + first).ravel(), 1)
    near = (centers @ centers.T).float().cpu().numpy()
    near = near / 4 + votes.reshape(count, count)  # similarity decides where votes are equal
    ranking = np.argsort(-near, axis=1, kind="stable").astype(np.int32)
    order = np.argsort(number, kind="stable")
    return Lists(number, order, np.cumsum(np.bincount(number, minlength=count)), ranking)


def _fit_centers(coarse: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """`[count, d]` unit centers: a few rounds of spherical k-means on a sample of the rows."""
    import torch

    n = len(coarse)
    fit = coarse[torch.from_numpy(np.sort(rng.choice(n, min(n, FIT_ROWS * count), replace=False)))]
    centers = fit[torch.from_numpy(np.sort(rng.choice(len(fit), count, replace=False)))]
    for _ in range(ROUNDS):
        nearest = torch.cat([(part @ centers.T).argmax(1) for part in fit.split(BLOCK)])
        sums = torch.zeros(centers.shape, device=fit.device).index_add_(0, nearest, fit.float())
        length = sums.norm(dim=1, keepdim=True)
        centers = torch.where(length > 0, sums / length.clamp_min(1e-12), centers.float()).to(coarse.dtype)
    return centers


def depth_for(lists: Lists, rows: Ints, neighbors: Ints, share: float) -> int:
    """How many lists must be looked at so that `share` of known neighbors `[s, k]` of rows `[s]` stand in them."""
    place = np.empty(len(lists.ends), dtype=np.int64)
    places = np.empty(neighbors.shape, dtype=np.int64)
    for at, (row, near) in enumerate(zip(rows, neighbors, strict=True)):
        place[lists.ranking[lists.number[row]]] = np.arange(len(place))
        places[at] = place[lists.number[near]]
    return int(np.sort(places.ravel())[int(np.ceil(share * places.size)) - 1]) + 1


def scan_lists(space: Space, lists: Lists, depth: int, k: int, numbers: Ints) -> tuple[Ints, Ints, Floats]:
    """(rows `[q]` of these lists, indices `[q, k]`, similarities `[q, k]`): among those of the lists they look at."""
    import torch

    device, visits = space.coarse.device, lists.looked_at(depth, k + SPARE)[:, 0]
    own = [lists.rows(number) for number in numbers.tolist()]
    indices, similarities = np.empty((sum(map(len, own)), k), np.int64), np.empty((sum(map(len, own)), k), np.float32)
    start = 0
    for number, rows in zip(numbers.tolist(), own, strict=True):
        if not len(rows):
            continue
        members = np.concatenate([lists.rows(other) for other in lists.ranking[number, : visits[number]].tolist()])
        index, near = scan(space, torch.from_numpy(rows).to(device), torch.from_numpy(members).to(device), k)
        some = slice(start, start + len(rows))
        indices[some], similarities[some] = index.cpu().numpy(), near.cpu().numpy()
        start += len(rows)
    return np.concatenate(own), indices, similarities
