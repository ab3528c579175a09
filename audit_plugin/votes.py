"""Neighbours' votes: what the media of similar samples say of a pair, contrastively normalised.

The samples whose side a is near x_i vote for what its side b should be: y~_i = sum_c w_ic mean_{j in c} y_j over the
nearest contents c of side a, w_ic proportional to exp(cos(x_i, x_c) / KERNEL - distrust_c). Voters that are suspect
themselves count less (LEMoN's idea, Zhang et al., arXiv 2407.18941). The vote's similarity to any candidate,
M_ik = <y~_i, y_k>, is then contrasted like any other: a plain distance to the vote says as much about how ordinary a
caption is. A candidate's own part in the vote is taken out of M_ik, else near samples would vote for themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .arrays import Floats, Ints, Neighbors
from .contrast import Block, Negatives, contrasts, with_plants

TEMPERATURE = 1 / 20
KERNEL = 0.07
LEAST_DISTRUST, MOST_DISTRUST = -2.0, 3.0


@dataclass(frozen=True)
class Votes:
    """What the neighbours of n samples on one side say of the other side.

    Attributes:
        prediction: float32 `[n, d]`, y~.
        voter: int64 `[n, k]`, one row of each voting content, -1 where none.
        weight: float32 `[n, k]`, weights of the voters; rows sum to at most 1 (the rest is the vote of samples that
            share the content itself).
        alone: float32 `[n, k]`: the weight where the voter is the only sample with its content, else 0.
    """

    prediction: Floats
    voter: Ints
    weight: Floats
    alone: Floats


def cast_votes(found: Neighbors, near: Ints, other: Ints, vectors: Floats, distrust: Floats) -> Votes:
    """Collects the votes.

    Args:
        found: neighbours over distinct contents of the side that is asked, `[n, k]`.
        near: `[n]` content numbers of that side.
        other: `[n]` content numbers of the side that is voted on.
        vectors: unit rows `[n, d]` of the side that is voted on.
        distrust: `[n]`, how suspect a sample is itself, in robust deviations.
    """
    from scipy.sparse import csr_array

    size = np.bincount(near)
    mean = (csr_array((np.ones(len(near)), (near, np.arange(len(near))))) @ vectors) / size[:, None]
    doubt = np.bincount(near, np.clip(np.nan_to_num(distrust), LEAST_DISTRUST, MOST_DISTRUST)) / size
    own, has_own = _own_content(near, other, vectors, mean, size)
    content = near[np.maximum(found.indices, 0)]
    logits = np.where(found.indices >= 0, found.similarities / KERNEL - doubt[content], -np.inf)
    own_logit = np.where(has_own, 1 / KERNEL - doubt[near], -np.inf)[:, None]
    every = np.concatenate([logits, own_logit], axis=1)
    top = every.max(1, keepdims=True, initial=-1e30)
    weight = np.exp(every - top)
    weight /= np.maximum(weight.sum(1, keepdims=True), 1e-30)
    kept = weight[:, :-1].astype(np.float32)
    row = np.repeat(np.arange(len(near)), content.shape[1])
    voting = csr_array((kept.ravel(), (row, content.ravel())), (len(near), len(mean)))
    prediction = weight[:, -1:] * own + voting @ mean
    alone = np.where(size[content] == 1, kept, 0).astype(np.float32)
    return Votes(prediction.astype(np.float32), found.indices, kept, alone)


def _own_content(near: Ints, other: Ints, vectors: Floats, mean: Floats, size: Ints) -> tuple[Floats, Ints]:
    """(mean `[n, d]` over the samples that share one side but not the other, whether there is one `[n]`)."""
    _, pair, repeats = np.unique(np.stack([near, other], 1), axis=0, return_inverse=True, return_counts=True)
    same = repeats[pair.reshape(-1)]
    rest = size[near] - same
    total = mean[near] * size[near, None] - same[:, None] * vectors  # equal contents have equal vectors
    return total / np.maximum(rest, 1)[:, None], rest > 0


def vote_contrast(
    votes: Votes, vectors: Floats, negatives: Negatives, plants: Ints, pair: tuple[int, int]
) -> tuple[Floats, Floats]:
    """(contrast of each sample's own pair `[n]`, of the virtual pairs `[q]`) under the votes; NaN without a voter.

    Args:
        votes: of the side that is asked.
        vectors: unit rows `[n, d]` of the side that is voted on.
        negatives: of the samples.
        plants: rows (i, j) `[q, 2]`: i's asked side with j's voted side.
        pair: columns of `negatives.repeats` with the contents of the asked and of the voted side.
    """
    device = negatives.pool.device
    vote, vector, voter, alone = (
        torch.from_numpy(np.ascontiguousarray(v)).to(device)
        for v in (votes.prediction, vectors, votes.voter, votes.alone)
    )
    log_mean = contrasts(
        lambda rows: _block(vote, vector, voter, alone, negatives, rows), len(vote), negatives, TEMPERATURE
    )
    left, right = (torch.from_numpy(plants[:, side]).to(device) for side in (0, 1))
    own = (vote * vector).sum(1)
    planted = (vote[left] * vector[right]).sum(1) - _part(voter[left], alone[left], right[:, None])[:, 0]
    silent = torch.from_numpy(votes.prediction.any(1)).to(device).logical_not()
    own[silent], planted[silent[left]] = torch.nan, torch.nan
    return with_plants(log_mean, own, planted, plants, negatives, pair, TEMPERATURE)


def _block(
    vote: torch.Tensor,
    vector: torch.Tensor,
    voter: torch.Tensor,
    alone: torch.Tensor,
    negatives: Negatives,
    rows: torch.Tensor,
) -> Block:
    pool, hard = negatives.pool, negatives.hard[rows]
    at = hard.clamp_min(0)
    forward, backward = vote[rows] @ vector[pool].T, vector[rows] @ vote[pool].T
    _take_out(forward, voter[rows], alone[rows], pool)
    _take_out(backward.T, voter[pool], alone[pool], rows)
    near = torch.einsum("qd,qhd->qh", vote[rows], vector[at]) - _part(voter[rows], alone[rows], at)
    back = torch.einsum("qd,qhd->qh", vector[rows], vote[at])
    back -= (alone[at] * (voter[at] == rows[:, None, None])).sum(2)
    return Block(forward, backward, *(v.masked_fill(hard < 0, -torch.inf) for v in (near, back)))


def _take_out(similarity: torch.Tensor, voter: torch.Tensor, alone: torch.Tensor, columns: torch.Tensor) -> None:
    """Subtracts from `[q, c]`, in place, what the samples `columns` (ascending) had in the rows' votes."""
    at = torch.searchsorted(columns, voter).clamp_max(len(columns) - 1)
    hit = columns[at] == voter
    row = torch.arange(len(voter), device=voter.device)[:, None].expand_as(voter)
    similarity.index_put_((row[hit], at[hit]), -alone[hit], accumulate=True)


def _part(voter: torch.Tensor, alone: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """`[q, h]`: the candidates' own part in the rows' votes."""
    return (alone[:, None, :] * (voter[:, None, :] == candidates[:, :, None])).sum(2)
