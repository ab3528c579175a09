"""Neighbors' votes: what the media of similar samples say of a pair, contrastively normalized.

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

from audit_plugin.arrays import Floats, Ints, Neighbors

from .contrast import Negatives, SimilarityBlock, all_log_means, contrast_with_probes

TEMPERATURE = 1 / 20
KERNEL = 0.07
LEAST_DISTRUST, MOST_DISTRUST = -2.0, 3.0
ROWS = 16_384  # whose votes are collected at once


@dataclass(frozen=True)
class NeighborVotes:
    """What the neighbors of n samples on one side say of the other side.

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


def collect_votes(found: Neighbors, near: Ints, other: Ints, vectors: Floats, distrust: Floats) -> NeighborVotes:
    """Collects the votes.

    Args:
        found: neighbors over distinct contents of the side that is asked, `[n, k]`.
        near: `[n]` content numbers of that side.
        other: `[n]` content numbers of the side that is voted on.
        vectors: unit rows `[n, d]` of the side that is voted on.
        distrust: `[n]`, how suspect a sample is itself, in robust deviations.
    """
    from scipy.sparse import csr_array

    n, size = len(near), np.bincount(near)
    mean = csr_array(((1 / size[near]).astype(np.float32), (near, np.arange(n))), (len(size), n)) @ vectors
    doubt = np.bincount(near, np.clip(np.nan_to_num(distrust), LEAST_DISTRUST, MOST_DISTRUST)) / size
    same = _as_often(near, other)
    weight, prediction = np.empty(found.indices.shape, np.float32), np.empty_like(vectors)
    for start in range(0, n, ROWS):
        some = slice(start, start + ROWS)
        mine, content = near[some], near[np.maximum(found.indices[some], 0)]
        rest = size[mine] - same[some]  # samples that share this side with the row, but not the other
        logits = np.where(found.indices[some] >= 0, found.similarities[some] / KERNEL - doubt[content], -np.inf)
        own_logit = np.where(rest > 0, 1 / KERNEL - doubt[mine], -np.inf)
        shares = _shares(np.concatenate([logits, own_logit[:, None]], axis=1))
        weight[some] = shares[:, :-1]
        row = np.repeat(np.arange(len(mine)), content.shape[1])
        voting = csr_array((weight[some].ravel(), (row, content.ravel())), (len(mine), len(mean)))
        own = mean[mine] * size[mine, None] - same[some, None] * vectors[some]  # equal contents have equal vectors
        prediction[some] = voting @ mean + own * (shares[:, -1] / np.maximum(rest, 1))[:, None]
    alone = np.where((size == 1)[near[np.maximum(found.indices, 0)]], weight, np.float32(0))
    return NeighborVotes(prediction, found.indices, weight, alone)


def _as_often(near: Ints, other: Ints) -> Ints:
    """`[n]`: how many samples have both contents of each sample."""
    both = near * (int(other.max(initial=0)) + 1) + other
    _, pair, repeats = np.unique(both, return_inverse=True, return_counts=True)
    return np.asarray(repeats[pair.reshape(-1)], dtype=np.int64)


def _shares(logits: Floats) -> Floats:
    """Softmax of the rows `[n, k]`; zeros where a row has no finite entry."""
    weight = np.exp(logits - logits.max(1, keepdims=True, initial=-1e30))
    return weight / np.maximum(weight.sum(1, keepdims=True), 1e-30)


def vote_contrast(
    votes: NeighborVotes, vectors: Floats, negatives: Negatives, plants: Ints, pair: tuple[int, int]
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
    log_mean = all_log_means(
        lambda rows: _block(vote, vector, voter, alone, negatives, rows), len(vote), negatives, TEMPERATURE
    )
    left, right = (torch.from_numpy(plants[:, side]).to(device) for side in (0, 1))
    own = (vote * vector).sum(1)
    planted = (vote[left] * vector[right]).sum(1) - _part(voter[left], alone[left], right[:, None])[:, 0]
    silent = torch.from_numpy(votes.prediction.any(1)).to(device).logical_not()
    own[silent], planted[silent[left]] = torch.nan, torch.nan
    return contrast_with_probes(log_mean, own, planted, plants, negatives, pair, TEMPERATURE)


def _block(
    vote: torch.Tensor,
    vector: torch.Tensor,
    voter: torch.Tensor,
    alone: torch.Tensor,
    negatives: Negatives,
    rows: torch.Tensor,
) -> SimilarityBlock:
    pool, hard = negatives.pool, negatives.hard[rows]
    at = hard.clamp_min(0)
    forward, backward = vote[rows] @ vector[pool].T, vector[rows] @ vote[pool].T
    _take_out(forward, voter[rows], alone[rows], pool)
    _take_out(backward.T, voter[pool], alone[pool], rows)
    near = torch.einsum("qd,qhd->qh", vote[rows], vector[at]) - _part(voter[rows], alone[rows], at)
    back = torch.einsum("qd,qhd->qh", vector[rows], vote[at])
    back -= (alone[at] * (voter[at] == rows[:, None, None])).sum(2)
    return SimilarityBlock(forward, backward, *(v.masked_fill(hard < 0, -torch.inf) for v in (near, back)))


def _take_out(similarity: torch.Tensor, voter: torch.Tensor, alone: torch.Tensor, columns: torch.Tensor) -> None:
    """Subtracts from `[q, c]`, in place, what the samples `columns` (ascending) had in the rows' votes."""
    at = torch.searchsorted(columns, voter).clamp_max(len(columns) - 1)
    hit = columns[at] == voter
    row = torch.arange(len(voter), device=voter.device)[:, None].expand_as(voter)
    similarity.index_put_((row[hit], at[hit]), -alone[hit], accumulate=True)


def _part(voter: torch.Tensor, alone: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """`[q, h]`: the candidates' own part in the rows' votes."""
    return (alone[:, None, :] * (voter[:, None, :] == candidates[:, :, None])).sum(2)
