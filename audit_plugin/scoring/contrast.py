"""Contrastive normalization: does a pair fit better than its two sides fit others?

For similarities M `[n, n]` (row: side a, column: side b), the form of negCLIPLoss (Wang et al., NeurIPS 2024):

    contrast_ij = tau/2 * (log mean_k exp(M_ik / tau) + log mean_k exp(M_kj / tau)) - M_ij

over *negatives* k, which share neither content nor group with the pair; higher is more suspicious. A similarity alone
says as much about how generic a caption is as about whether it is right, so every kind of evidence is contrasted: the
trained heads, the frozen encoders, the neighbor votes. M is never held in full: rows come in blocks, and a pool of
columns stands for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Ints, check_lengths

POOL_SIZE = 4096  # what a pool leaves out: benchmarks/scoring_cost.py
BLOCK_ROWS = 512  # rows whose similarities to the pool stay in the processor's cache; changes no result
FROZEN_TEMPERATURE = 1 / 100  # CLIP's own, where its training ends


@dataclass(frozen=True)
class Negatives:
    """The samples that each of n samples is compared with.

    Attributes:
        repeats: int32 `[n, c]`: two samples that are equal in any column (same content of a modality, or same group)
            are not negatives of each other.
        pool: int64 `[P]`, ascending: a seeded draw of the known samples, or all of them.
        population: number of known samples, which the pool stands for.
        hard: int32 `[n, h]`, near samples in the frozen spaces, which are always compared with; -1 where there are
            fewer. h is 0 where the pool holds all.
        repeat_counts: float32 `[n, c]`, how many samples have the same value in each column of `repeats`.
    """

    repeats: torch.Tensor
    pool: torch.Tensor
    population: int
    hard: torch.Tensor
    repeat_counts: torch.Tensor


@dataclass(frozen=True)
class SimilarityBlock:
    """Similarities of q rows to the pool and to their hard negatives; -inf where unknown, any beside a hard -1.

    Attributes:
        forward: `[q, P]`, M[rows, pool].
        backward: `[q, P]`, M[pool, rows] transposed.
        forward_hard: `[q, h]`, M[row, its hard negatives].
        backward_hard: `[q, h]`, M[its hard negatives, row].
    """

    forward: torch.Tensor
    backward: torch.Tensor
    forward_hard: torch.Tensor
    backward_hard: torch.Tensor


@dataclass(frozen=True)
class LogMeans:
    """How well n samples fit their negatives.

    Attributes:
        forward: `[n]`, log mean_k exp(M_ik / tau); -inf without a negative.
        backward: `[n]`, log mean_k exp(M_ki / tau).
        temperature: tau.
    """

    forward: torch.Tensor
    backward: torch.Tensor
    temperature: float


def draw_pool(rows: Ints, seed: int, size: int = POOL_SIZE) -> Ints:
    """At most `size` of the rows, ascending; a seeded draw."""
    if len(rows) <= size:
        return rows
    return np.sort(np.random.default_rng((seed, 7)).choice(rows, size, replace=False))


def make_negatives(repeats: Ints, nearest: Ints, known: Bools, seed: int, device: str) -> Negatives:
    """Negatives of n samples, see `Negatives`; those in `known` (bool `[n]`) may be negatives.

    `nearest`: `[n, h]` near samples, -1 where there are fewer. ValueError when the arrays are not of one length.
    """
    check_lengths(repeats=repeats, nearest=nearest, known=known)
    rows = np.flatnonzero(known)
    pool = draw_pool(rows, seed)
    everything = len(pool) == len(rows)
    hard = np.empty((len(repeats), 0), np.int32) if everything else _hard_negatives(nearest, repeats, known)
    repeat_counts = np.stack([np.bincount(column)[column] for column in repeats.T], axis=1).astype(np.float32)
    return Negatives(
        tensor(repeats.astype(np.int32), device),
        tensor(pool, device),
        len(rows),
        tensor(hard.astype(np.int32), device),
        tensor(repeat_counts, device),
    )


def tensor(values: Floats | Ints, device: torch.device | str) -> torch.Tensor:
    """The values on a device."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


def _hard_negatives(nearest: Ints, repeats: Ints, known: Bools) -> Ints:
    """`[n, h]`: the nearest samples that are negatives, each once; -1 for the others."""
    hard = np.sort(nearest, axis=1)
    hard[:, 1:][hard[:, 1:] == hard[:, :-1]] = -1  # near in several modalities, but one negative
    candidates = np.maximum(hard, 0)
    related = np.zeros(hard.shape, dtype=bool)
    for column in repeats.T:
        related |= column[candidates] == column[:, None]
    hard[related | ~known[candidates]] = -1
    return hard


def all_log_means(
    block_of: Callable[[torch.Tensor], SimilarityBlock], count: int, negatives: Negatives, temperature: float
) -> LogMeans:
    """The log means of all n samples, block by block."""
    # one array for all: small ones made among the large tables would keep glibc from reusing the tables' memory
    forward, backward = torch.empty(2, count, device=negatives.pool.device)
    for rows in torch.arange(count, device=negatives.pool.device).split(BLOCK_ROWS):
        forward[rows], backward[rows] = block_log_means(block_of(rows), rows, negatives, temperature)
    return LogMeans(forward, backward, temperature)


def block_log_means(
    block: SimilarityBlock, rows: torch.Tensor, negatives: Negatives, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(forward, backward) log means of q rows, `[q]`, see `LogMeans`."""
    hard = negatives.hard[rows].long()
    missing = hard < 0
    excluded = same_in_any(negatives.repeats[rows], negatives.repeats[negatives.pool])  # [q, P]
    # Hard negatives are taken exactly, so the pool must not count them again.
    position = torch.searchsorted(negatives.pool, hard).clamp_max(len(negatives.pool) - 1)
    in_pool = ~missing & (negatives.pool[position] == hard)
    row, column = torch.nonzero(in_pool, as_tuple=True)
    excluded[row, position[row, column]] = True
    forward_hard = block.forward_hard.masked_fill(missing, -torch.inf)
    backward_hard = block.backward_hard.masked_fill(missing, -torch.inf)
    forward = _log_mean(block.forward, forward_hard, excluded, negatives.population, temperature)
    backward = _log_mean(block.backward, backward_hard, excluded, negatives.population, temperature)
    return forward, backward


def _log_mean(
    pooled: torch.Tensor, hard: torch.Tensor, excluded: torch.Tensor, population: int, tau: float
) -> torch.Tensor:
    """`[q]`: log of the weighted mean of exp(M / tau) over the negatives.

    Each of the P samples of the pool stands for v = (population - h) / P samples, a hard negative for itself:
    (sum_hard exp(M / tau) + v sum_pool exp(M / tau)) / (number of hard + v number in the pool).
    """
    logits = pooled.div(tau).masked_fill_(excluded, -torch.inf)
    in_pool = (logits > -torch.inf).sum(1)
    represented = in_pool * ((population - hard.shape[1]) / pooled.shape[1])
    count = represented + (hard > -torch.inf).sum(1)
    log_sum = logits.logsumexp(1) + represented.clamp_min(1).log() - in_pool.clamp_min(1).log()
    if hard.shape[1]:
        log_sum = torch.logaddexp(log_sum, (hard / tau).logsumexp(1))
    return torch.where(count > 0, log_sum - count.clamp_min(1).log(), -torch.inf)


def same_in_any(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """bool `[q, p]`: equal in any column of `[q, c]` and `[p, c]`."""
    out = left[:, None, 0] == right[None, :, 0]
    for column in range(1, left.shape[1]):
        out |= left[:, None, column] == right[None, :, column]
    return out


def contrast(log_means: LogMeans, similarity: torch.Tensor) -> torch.Tensor:
    """`[q]`: the contrast of pairs with a similarity `[q]`; NaN without a negative or a similarity."""
    value = 0.5 * log_means.temperature * (log_means.forward + log_means.backward) - similarity
    return torch.where(torch.isfinite(value), value, torch.nan)


def contrast_with_probes(
    log_means: LogMeans,
    own: torch.Tensor,
    probe: torch.Tensor,
    probes: Ints,
    negatives: Negatives,
    content_columns: tuple[int, int],
) -> tuple[Floats, Floats]:
    """(contrast of the samples `[n]`, of the probe pairs `[q]`), float32.

    A probe pair (i, j) stands for captions that were exchanged, so the true partners of i and j are in the set and
    among its negatives: i's own content of side b, and j's own of side a, as often as the set holds it.

    `own` `[n]` holds M_ii and `probe` `[q]` M_ij for the `probes` (i, j) `[q, 2]`, i's side a with j's side b;
    `content_columns` are the columns of `negatives.repeats` with the contents of sides a and b.
    """
    samples = contrast(log_means, own)
    left, right = (torch.from_numpy(probes[:, side]).to(own.device) for side in (0, 1))
    copies_a, copies_b = (negatives.repeat_counts[:, column] for column in content_columns)
    tau, population = log_means.temperature, negatives.population
    forward = _with_partner(log_means.forward, own, copies_b, population, tau)
    backward = _with_partner(log_means.backward, own, copies_a, population, tau)
    pairs = contrast(LogMeans(forward[left], backward[right], tau), probe)
    return samples.float().cpu().numpy(), pairs.float().cpu().numpy()


def _with_partner(
    log_mean: torch.Tensor, own: torch.Tensor, copies: torch.Tensor, population: int, tau: float
) -> torch.Tensor:
    """`[n]`: the log mean with the true partner added: (N exp(log mean) + copies exp(M_ii / tau)) / (N + copies)."""
    log_sum = torch.logaddexp(log_mean + np.log(population), own / tau + copies.log())
    return log_sum - (population + copies).log()


def embedding_contrast(
    a: torch.Tensor,
    b: torch.Tensor,
    negatives: Negatives,
    probes: Ints,
    content_columns: tuple[int, int],
    temperature: float = FROZEN_TEMPERATURE,
) -> tuple[Floats, Floats]:
    """(contrast of the samples `[n]`, of the probe pairs `[q]`) under unit rows `[n, d]` of both sides in one space.

    Those of frozen encoders, or of one side and its prediction; nothing is held out here. Otherwise as
    `contrast_with_probes`.
    """
    if a.shape != b.shape:
        raise ValueError(f"features of one space have one shape, got {tuple(a.shape)} and {tuple(b.shape)}")

    def block_of(rows: torch.Tensor) -> SimilarityBlock:
        pool, hard = negatives.pool, negatives.hard[rows].clamp_min(0).long()
        forward_hard = torch.einsum("qd,qhd->qh", a[rows], b[hard])
        backward_hard = torch.einsum("qd,qhd->qh", b[rows], a[hard])
        return SimilarityBlock(a[rows] @ b[pool].T, b[rows] @ a[pool].T, forward_hard, backward_hard)

    log_means = all_log_means(block_of, len(a), negatives, temperature)
    left, right = (torch.from_numpy(np.ascontiguousarray(probes[:, side])).to(a.device) for side in (0, 1))
    own, probe = torch.linalg.vecdot(a, b), torch.linalg.vecdot(a[left], b[right])
    return contrast_with_probes(log_means, own, probe, probes, negatives, content_columns)
