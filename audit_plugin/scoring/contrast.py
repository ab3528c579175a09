"""Contrastive normalization: does a pair fit better than its media fit others?

For similarities M `[n, n]` (row: side a, column: side b), the form of negCLIPLoss (Wang et al., NeurIPS 2024):

    contrast_ij = tau/2 * (log mean_k exp(M_ik / tau) + log mean_k exp(M_kj / tau)) - M_ij

with k over samples that share neither medium, text nor group with the pair; higher is more suspicious. It is asked of
every kind of evidence here (trained heads, frozen encoders, neighbors' votes): a cosine alone says how generic a
caption is as much as whether it is right. M is never held whole: rows come in blocks, columns are a fixed pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Ints

POOL_SIZE = 4096
BLOCK_ROWS = 512  # rows whose similarities to the pool stay in the cache
FROZEN_TEMPERATURE = 1 / 100


@dataclass(frozen=True)
class Negatives:
    """With whom n samples are compared.

    Attributes:
        repeats: int32 `[n, c]`: equal in any column means no negative (same medium, text or group).
        pool: int64 `[P]`, ascending: a seeded draw of the known samples, or all of them.
        known: how many samples the pool stands for.
        hard: int64 `[n, h]`, near samples in the frozen spaces, which are always compared with; -1 where none.
            h is 0 where the pool holds all.
        copies: float `[n, c]`, how many samples have the same value in each column of `repeats`.
    """

    repeats: torch.Tensor
    pool: torch.Tensor
    known: int
    hard: torch.Tensor
    copies: torch.Tensor


@dataclass(frozen=True)
class SimilarityBlock:
    """Similarities of q rows to their negatives, -inf where unknown: M[rows, .] and M[., rows], of pool and hard."""

    forward: torch.Tensor
    backward: torch.Tensor
    forward_hard: torch.Tensor
    backward_hard: torch.Tensor


def draw_pool(rows: Ints, seed: int, size: int = POOL_SIZE) -> Ints:
    """At most `size` of the rows, ascending; a seeded draw."""
    if len(rows) <= size:
        return rows
    return np.sort(np.random.default_rng((seed, 7)).choice(rows, size, replace=False))


def make_negatives(repeats: Ints, near: Ints, known: Bools, seed: int, device: str) -> Negatives:
    """Negatives of n samples.

    Args:
        repeats: `[n, c]`.
        near: `[n, h]` near samples, -1 where none.
        known: bool `[n]`, who may be a negative.
        seed: of the pool.
        device: where to compare.
    """
    rows = np.flatnonzero(known)
    pool = draw_pool(rows, seed)
    hard = np.empty((len(repeats), 0), np.int64) if len(pool) == len(rows) else _usable(near, repeats, known)
    copies = np.stack([np.bincount(column)[column] for column in repeats.T], axis=1).astype(np.float32)
    given = (repeats.astype(np.int32), pool, hard, copies)
    repeated, pooled, chosen, counts = (torch.from_numpy(np.ascontiguousarray(v)).to(device) for v in given)
    return Negatives(repeated, pooled, len(rows), chosen, counts)


def _usable(near: Ints, repeats: Ints, known: Bools) -> Ints:
    """Near samples that are negatives, each once; -1 for the others."""
    out = np.sort(near, axis=1)
    out[:, 1:][out[:, 1:] == out[:, :-1]] = -1  # near in several modalities, but one negative
    at = np.maximum(out, 0)
    own = np.zeros(out.shape, dtype=bool)
    for column in repeats.T:
        own |= column[at] == column[:, None]
    out[own | ~known[at]] = -1
    return out


def all_log_means(
    block_of: Callable[[torch.Tensor], SimilarityBlock], count: int, negatives: Negatives, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log mean_k exp(M_ik / tau), log mean_k exp(M_ki / tau)) for all n samples, `[n]`; -inf without a negative."""
    every = torch.arange(count, device=negatives.pool.device)
    parts = [block_log_means(block_of(rows), rows, negatives, temperature) for rows in every.split(BLOCK_ROWS)]
    forward, backward = (torch.cat(side) for side in zip(*parts, strict=True))
    return forward, backward


def block_log_means(
    block: SimilarityBlock, rows: torch.Tensor, negatives: Negatives, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both log means for q rows, `[q]`.

    The pool stands for all but the hard negatives, which are taken exactly: the mean is
    (sum over hard + (K - h) * mean over the rest of the pool) / K for K negatives.
    """
    left_out = same_in_any(negatives.repeats[rows], negatives.repeats[negatives.pool])
    hard = negatives.hard[rows]
    at = torch.searchsorted(negatives.pool, hard).clamp_max(len(negatives.pool) - 1)
    row, column = torch.nonzero((hard >= 0) & (negatives.pool[at] == hard), as_tuple=True)
    left_out[row, at[row, column]] = True
    sides = ((block.forward, block.forward_hard), (block.backward, block.backward_hard))
    forward, backward = (_log_mean(m, h, left_out, negatives.known, temperature) for m, h in sides)
    return forward, backward


def _log_mean(pool: torch.Tensor, hard: torch.Tensor, left_out: torch.Tensor, known: int, tau: float) -> torch.Tensor:
    logits = pool.div(tau).masked_fill_(left_out, -torch.inf)
    rest = (logits > -torch.inf).sum(1)
    stands_for = rest * ((known - hard.shape[1]) / pool.shape[1])
    count = stands_for + (hard > -torch.inf).sum(1)
    total = logits.logsumexp(1) + stands_for.clamp_min(1).log() - rest.clamp_min(1).log()
    if hard.shape[1]:
        total = torch.logaddexp(total, (hard / tau).logsumexp(1))
    return torch.where(count > 0, total - count.clamp_min(1).log(), -torch.inf)


def same_in_any(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """bool `[q, p]`: equal in any column of `[q, c]` and `[p, c]`."""
    out = left[:, None, 0] == right[None, :, 0]
    for column in range(1, left.shape[1]):
        out |= left[:, None, column] == right[None, :, column]
    return out


def contrast(
    forward: torch.Tensor, backward: torch.Tensor, similarity: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The contrastively normalized dissimilarity `[n]`; NaN where a side has no negative or the pair was not seen."""
    value = 0.5 * temperature * (forward + backward) - similarity
    return torch.where(torch.isfinite(value), value, torch.nan)


def contrast_with_probes(
    log_mean: tuple[torch.Tensor, torch.Tensor],
    own: torch.Tensor,
    planted: torch.Tensor,
    plants: Ints,
    negatives: Negatives,
    pair: tuple[int, int],
    tau: float,
) -> tuple[Floats, Floats]:
    """(contrast of the samples `[n]`, contrast of the virtual pairs `[q]`), float32.

    A virtual pair stands for captions that were exchanged, whose true owners are still in the set: what i and j
    really belong to is among their negatives.

    Args:
        log_mean: forward and backward, `[n]` each.
        own: `[n]` similarity of each sample's own pair.
        planted: `[q]` similarity of i's side a and j's side b.
        plants: rows (i, j) `[q, 2]`.
        negatives: of the samples.
        pair: columns of `negatives.repeats` with the contents of sides a and b.
        tau: temperature.
    """
    left, right = (torch.from_numpy(plants[:, side]).to(own.device) for side in (0, 1))
    copies = negatives.copies[:, pair[1]], negatives.copies[:, pair[0]]
    forward, backward = (
        torch.logaddexp(side + np.log(negatives.known), own / tau + count.log()) - (negatives.known + count).log()
        for side, count in zip(log_mean, copies, strict=True)
    )
    found = contrast(*log_mean, own, tau), contrast(forward[left], backward[right], planted, tau)
    samples, pairs = (value.float().cpu().numpy() for value in found)
    return samples, pairs


def frozen_contrast(
    a: torch.Tensor, b: torch.Tensor, negatives: Negatives, plants: Ints, pair: tuple[int, int]
) -> tuple[Floats, Floats]:
    """The contrast under frozen encoders that share a space, at CLIP's own temperature: nothing is held out.

    Args:
        a: unit `[n, d]`.
        b: unit `[n, d]`.
        negatives: of the samples.
        plants: `[q, 2]`.
        pair: columns of `negatives.repeats` with the contents of a and b.

    Returns:
        (contrast `[n]`, contrast of the plants `[q]`).
    """

    def block_of(rows: torch.Tensor) -> SimilarityBlock:
        hard = negatives.hard[rows]
        near = [torch.einsum("qd,qhd->qh", x[rows], y[hard.clamp_min(0)]) for x, y in ((a, b), (b, a))]
        return SimilarityBlock(
            a[rows] @ b[negatives.pool].T, b[rows] @ a[negatives.pool].T, *(_known(v, hard) for v in near)
        )

    log_mean = all_log_means(block_of, len(a), negatives, FROZEN_TEMPERATURE)
    left, right = (torch.from_numpy(plants[:, side]).to(a.device) for side in (0, 1))
    own, planted = (a * b).sum(1), (a[left] * b[right]).sum(1)
    return contrast_with_probes(log_mean, own, planted, plants, negatives, pair, FROZEN_TEMPERATURE)


def _known(values: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
    return values.masked_fill(hard < 0, -torch.inf)
