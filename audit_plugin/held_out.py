"""What one trained trial says about the samples that it has not seen: the evidence of misalignment.

For a pair of modalities (a, b), s_ij = <phi_a(x_i), phi_b(x_j)>. The contrastively normalised similarity (the form of
negCLIPLoss, Wang et al., NeurIPS 2024) of a pair (i, j) is

    contrast_ij = tau/2 * (log mean_k exp(s_ik / tau) + log mean_k exp(s_kj / tau)) - s_ij

with k over non-members that share neither medium, text nor group with the pair: higher is more suspicious. It asks
whether a caption fits its image better than other captions do, not whether a cosine is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .arrays import Bools, Floats, Ints

TEMPERATURE = 1 / 45  # sharper than in training: a pair is judged by its strongest rivals
CLIP_TEMPERATURE = 1 / 100
POOL = 8192
BLOCK = 2048
CSLS_NEIGHBORS = 10


@dataclass(frozen=True)
class Negatives:
    """Which samples a sample is compared with.

    Attributes:
        repeats: int32 `[n, c]`: equal in any column means no negative (same medium, text or group).
        hard: int64 `[n, h]`, near samples in the frozen spaces, -1 where none: always among the negatives.
        seed: of the pool.
    """

    repeats: torch.Tensor
    hard: torch.Tensor
    seed: int


@dataclass(frozen=True)
class Directed:
    """Side a against side b over the negatives; all `[q]`, q the rows asked for.

    Attributes:
        log_mean: log of the mean of exp(s / tau); -inf without any negative.
        nearest: mean of the highest similarities (CSLS's local scaling).
    """

    log_mean: torch.Tensor
    nearest: torch.Tensor


def draw_pool(outside: Ints, seed: int) -> Ints:
    """At most `POOL` of the rows `outside`, in ascending order; a prefix-free seeded draw."""
    if len(outside) <= POOL:
        return outside
    return np.sort(np.random.default_rng((seed, 7)).choice(outside, POOL, replace=False))


def compare(
    left: torch.Tensor,
    right: torch.Tensor,
    rows: torch.Tensor,
    outside: torch.Tensor,
    pool: torch.Tensor,
    negatives: Negatives,
    temperature: float = TEMPERATURE,
) -> Directed:
    """How the rows' vectors in `left` lie to their negatives' vectors in `right`.

    The pool stands for all of `outside` but the hard ones, which are taken exactly: the mean is
    (sum over hard + (M - h) * mean over the rest of the pool) / M for M negatives. Memory O(BLOCK * POOL).

    Args:
        left: unit `[n, o]`.
        right: unit `[n, o]`.
        rows: `[q]` rows to describe.
        outside: `[n]` bool, the trial's non-members.
        pool: `[p]` rows of the pool, ascending.
        negatives: masks and hard rows.
        temperature: of the softmax.
    """
    n = len(left)
    position = torch.full((n + 1,), -1, dtype=torch.long, device=left.device)
    position[pool] = torch.arange(len(pool), device=left.device)
    parts = [
        _compare_block(left, right, block, outside, pool, position, negatives, temperature)
        for block in rows.split(BLOCK)
    ]
    return Directed(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _compare_block(
    left: torch.Tensor,
    right: torch.Tensor,
    rows: torch.Tensor,
    outside: torch.Tensor,
    pool: torch.Tensor,
    position: torch.Tensor,
    negatives: Negatives,
    temperature: float,
) -> tuple[torch.Tensor, ...]:
    sampled = len(pool) < int(outside.sum())
    logits = left[rows] @ right[pool].T / temperature
    logits.masked_fill_(_repeated(negatives.repeats[rows], negatives.repeats[pool]), -torch.inf)
    log_weight, count = torch.zeros(len(rows), 1, device=left.device), torch.isfinite(logits).sum(1)
    if sampled:
        hard, use = _hard_rows(rows, outside, negatives)
        near = torch.einsum("qo,qho->qh", left[rows], right[hard]) / temperature
        near = near.masked_fill(~use, -torch.inf)
        at = torch.where(use & (position[hard] >= 0), position[hard], len(pool))  # not twice: out of the pool
        logits = torch.cat([logits, logits.new_empty(len(rows), 1)], 1).scatter_(1, at, -torch.inf)[:, : len(pool)]
        rest = torch.isfinite(logits).sum(1, keepdim=True)
        every = rest * (outside.sum() / len(pool))  # negatives that the rest of the pool stands for
        log_weight = torch.log(every.clamp_min(1) / rest.clamp_min(1))
        count = every[:, 0] + use.sum(1)
        logits = torch.cat([logits + log_weight, near], 1)
    log_mean = torch.where(count > 0, logits.logsumexp(1) - torch.log(count.clamp_min(1).float()), -torch.inf)
    logits[:, : len(pool)] -= log_weight
    top = logits.topk(min(CSLS_NEIGHBORS, logits.shape[1]), dim=1).values * temperature
    finite = torch.isfinite(top)
    return log_mean, torch.where(finite, top, 0).sum(1) / finite.sum(1).clamp_min(1)


def _hard_rows(rows: torch.Tensor, outside: torch.Tensor, negatives: Negatives) -> tuple[torch.Tensor, torch.Tensor]:
    """(hard negatives `[q, h]`, bool `[q, h]`: non-member, no repeat of the row, and not named before)."""
    hard = negatives.hard[rows].sort(dim=1).values
    there, hard = hard >= 0, hard.clamp_min(0)
    own = negatives.repeats[rows][:, None, :] == negatives.repeats[hard]
    use = there & outside[hard] & ~own.any(-1)
    use[:, 1:] &= hard[:, 1:] != hard[:, :-1]  # near in several modalities, but one negative
    return hard, use


def _repeated(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """bool `[q, p]`: equal in any column."""
    out = left[:, None, 0] == right[None, :, 0]
    for column in range(1, left.shape[1]):
        out |= left[:, None, column] == right[None, :, column]
    return out


def contrast(
    forward: torch.Tensor, backward: torch.Tensor, similarity: torch.Tensor, temperature: float = TEMPERATURE
) -> torch.Tensor:
    """The contrastively normalised dissimilarity, NaN where one side has no negative."""
    value = 0.5 * temperature * (forward + backward) - similarity
    return torch.where(torch.isfinite(value), value, torch.nan)


MEASURES = ("cosine", "contrast", "csls")


def describe_trial(
    embeddings: Sequence[torch.Tensor],
    pair: tuple[int, int],
    member: Bools,
    known: Bools,
    negatives: Negatives,
    plants: Ints,
) -> tuple[dict[str, Floats], Floats]:
    """Held-out measures of one trial for one pair of modalities.

    Args:
        embeddings: unit `[n, o]` per modality.
        pair: positions of a and b.
        member: bool `[n]`.
        known: bool `[n]`, samples that may be negatives.
        negatives: what to compare with.
        plants: `[q, 2]`, rows (i, j): the virtual pair of i's side a and j's side b.

    Returns:
        (measure -> float32 `[n]`, NaN for members; contrast of the plants `[q]`, NaN unless i and j are both
        non-members).
    """
    a, b = embeddings[pair[0]], embeddings[pair[1]]
    outside = np.flatnonzero(~member)
    pool = torch.from_numpy(draw_pool(np.flatnonzero(~member & known), negatives.seed)).to(a.device)
    rows, mask = torch.from_numpy(outside).to(a.device), torch.from_numpy(~member & known).to(a.device)
    forward = compare(a, b, rows, mask, pool, negatives)
    backward = compare(b, a, rows, mask, pool, negatives)
    similarity = (a[rows] * b[rows]).sum(1)
    values = (
        similarity,
        contrast(forward.log_mean, backward.log_mean, similarity),
        forward.nearest + backward.nearest - 2 * similarity,
    )
    measures = {}
    for name, value in zip(MEASURES, values, strict=True):
        measures[name] = np.full(len(member), np.nan, dtype=np.float32)
        measures[name][outside] = value.float().cpu().numpy()
    return measures, _plant_contrast(a, b, outside, forward, backward, member, plants)


def zero_shot(a: torch.Tensor, b: torch.Tensor, negatives: Negatives, plants: Ints) -> tuple[Floats, Floats]:
    """The same contrast under frozen encoders that share a space, at CLIP's own temperature; nothing is held out.

    Returns:
        (contrast `[n]`, contrast of the plants `[q]`).
    """
    every = np.arange(len(a))
    pool = torch.from_numpy(draw_pool(every, negatives.seed)).to(a.device)
    rows, mask = torch.from_numpy(every).to(a.device), torch.ones(len(a), dtype=torch.bool, device=a.device)
    forward = compare(a, b, rows, mask, pool, negatives, CLIP_TEMPERATURE).log_mean
    backward = compare(b, a, rows, mask, pool, negatives, CLIP_TEMPERATURE).log_mean
    own = contrast(forward, backward, (a * b).sum(1), CLIP_TEMPERATURE)
    i, j = (torch.from_numpy(plants[:, side]).to(a.device) for side in (0, 1))
    planted = contrast(forward[i], backward[j], (a[i] * b[j]).sum(1), CLIP_TEMPERATURE)
    return own.float().cpu().numpy(), planted.float().cpu().numpy()


def reference_fit(texts: torch.Tensor, media: torch.Tensor, member: Bools, references: Ints) -> Floats:
    """How each held-out text fits a fixed draw of media: float32 `[n, f]`, zero rows for members.

    Summed over trials and divided by their number, it tells a text that fits everything a little (high mean, low
    spread) from one that fits something.
    """
    fit = (texts @ media[torch.from_numpy(references).to(media.device)].T).float().cpu().numpy()
    fit[member] = 0
    return fit


def _plant_contrast(
    a: torch.Tensor, b: torch.Tensor, outside: Ints, forward: Directed, backward: Directed, member: Bools, plants: Ints
) -> Floats:
    values = np.full(len(plants), np.nan, dtype=np.float32)
    usable = np.flatnonzero(~member[plants].any(1))
    at = np.full(len(member), -1)
    at[outside] = np.arange(len(outside))
    left, right = (torch.from_numpy(plants[usable, side]).to(a.device) for side in (0, 1))
    i, j = (torch.from_numpy(at[plants[usable, side]]).to(a.device) for side in (0, 1))
    similarity = (a[left] * b[right]).sum(1)
    values[usable] = contrast(forward.log_mean[i], backward.log_mean[j], similarity).float().cpu().numpy()
    return values
