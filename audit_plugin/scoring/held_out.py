"""What the trained trials say about pairs that they have not seen: the evidence of misalignment.

The held-out similarity of sample i's side a and sample j's side b is the mean of <phi_a(x_i), phi_b(x_j)> over the
trials in which neither was a member. Averaging similarities before they are contrasted, not contrasts afterward, lets
the temperature be low: single trials are noisy, and a low temperature looks at the strongest rival only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Ints

from .contrast import BLOCK_ROWS, Negatives, SimilarityBlock, block_log_means, contrast_with_probes

TEMPERATURE = 1 / 100

# (trial number, rows or None for all) -> unit embeddings `[q, o]` per modality
Embed = Callable[[int, torch.Tensor | None], list[torch.Tensor]]


@dataclass(frozen=True)
class Question:
    """What is read from the trials.

    Attributes:
        member: bool `[r, n]`.
        pairs: positions (a, b) of the modalities of each pair.
        texts: position of a pair -> its side that is text (0 or 1), for the pairs of a medium and a text.
        negatives: of the samples; the first columns of `repeats` are the modalities' contents.
        plants: rows (i, j) `[q, 2]` of virtual pairs: i's side a, j's side b.
    """

    member: Bools
    pairs: list[tuple[int, int]]
    texts: dict[int, int]
    negatives: Negatives
    plants: Ints


@dataclass(frozen=True)
class _Sums:
    """Sums over trials, per pair: `own` `[p, n]`, `planted` `[p, q]`, `hard` `[p, 2, n, h]`; the pool's embeddings."""

    own: torch.Tensor
    planted: torch.Tensor
    hard: torch.Tensor
    pool: list[list[torch.Tensor]]


def read_trials(embed: Embed, asked: Question) -> dict[str, Floats]:
    """Held-out measures over all trials; O(r n P o) for a pool of P and embeddings of dimension o.

    Returns:
        `cosine`, `contrast`, `generality` float32 `[p, n]` and `planted` `[p, q]`, the contrast of the virtual pairs.
        NaN where no trial left the pair out. Generality: mean over spread of a text's similarity to the pool's media.
    """
    device = asked.negatives.pool.device
    outside = torch.from_numpy(~asked.member).float().to(device)
    sums = _walk(embed, asked, outside)
    left, right = (torch.from_numpy(asked.plants[:, side]).to(device) for side in (0, 1))
    own = sums.own / outside.sum(0)
    planted = sums.planted / (outside[:, left] * outside[:, right]).sum(0)
    n, p = outside.shape[1], len(asked.pairs)
    log_mean, general = torch.empty(p, 2, n, device=device), torch.full((p, n), torch.nan, device=device)
    for rows in torch.arange(n, device=device).split(BLOCK_ROWS):
        for at, block in enumerate(_blocks(embed, asked, outside, sums, rows)):
            log_mean[at, 0, rows], log_mean[at, 1, rows] = block_log_means(block, rows, asked.negatives, TEMPERATURE)
            if at in asked.texts:
                general[at, rows] = _generality(block.backward if asked.texts[at] else block.forward)
    found = [
        contrast_with_probes((means[0], means[1]), here, virtual, asked.plants, asked.negatives, pair, TEMPERATURE)
        for means, here, virtual, pair in zip(log_mean, own, planted, asked.pairs, strict=True)
    ]
    return {
        "cosine": torch.where(torch.isfinite(own), own, torch.nan).cpu().numpy(),
        "contrast": np.stack([samples for samples, _ in found]),
        "generality": torch.where(torch.isfinite(own), general, torch.nan).cpu().numpy(),
        "planted": np.stack([pairs for _, pairs in found]),
    }


def _walk(embed: Embed, asked: Question, outside: torch.Tensor) -> _Sums:
    """One walk over the trials: everything that needs all rows, and the embeddings of the pool, members zeroed."""
    p, n = len(asked.pairs), outside.shape[1]
    pool, hard = asked.negatives.pool, asked.negatives.hard
    left, right = (torch.from_numpy(asked.plants[:, side]).to(pool.device) for side in (0, 1))
    own, planted = torch.zeros(p, n, device=pool.device), torch.zeros(p, len(left), device=pool.device)
    near, kept = torch.zeros(p, 2, n, hard.shape[1], device=pool.device), []
    for number, out in enumerate(outside):
        embeddings = [e.float() * out[:, None] for e in embed(number, None)]
        kept.append([e[pool] for e in embeddings])
        for at, (a, b) in enumerate(asked.pairs):
            own[at] += (embeddings[a] * embeddings[b]).sum(1)
            planted[at] += (embeddings[a][left] * embeddings[b][right]).sum(1)
            for side, (x, y) in enumerate(((a, b), (b, a)) if hard.shape[1] else ()):
                _add_hard(near[at, side], embeddings[x], embeddings[y], hard, torch.nonzero(out)[:, 0])
    return _Sums(own, planted, near, kept)


def _add_hard(
    total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, hard: torch.Tensor, outside: torch.Tensor
) -> None:
    for rows in outside.split(BLOCK_ROWS):
        total[rows] += torch.einsum("qo,qho->qh", left[rows], right[hard[rows].clamp_min(0)])


def _blocks(
    embed: Embed, asked: Question, outside: torch.Tensor, sums: _Sums, rows: torch.Tensor
) -> list[SimilarityBlock]:
    """The rows' mean held-out similarities, one block per pair; -inf where no trial left both out."""
    pool, hard = asked.negatives.pool, asked.negatives.hard[rows]
    all_pooled = len(pool) == outside.shape[1]
    shape = (len(asked.pairs), 2, len(rows), len(pool))
    total = torch.zeros(shape, device=pool.device)
    for number, theirs in enumerate(sums.pool):
        out = torch.nonzero(outside[number, rows])[:, 0]  # a trial says nothing of its members: half of the product
        mine = [e[rows[out]] for e in theirs] if all_pooled else [e.float() for e in embed(number, rows[out])]
        for at, (a, b) in enumerate(asked.pairs):
            total[at, 0].index_add_(0, out, mine[a] @ theirs[b].T)
            total[at, 1].index_add_(0, out, mine[b] @ theirs[a].T)
    count = outside[:, rows].T @ outside[:, pool]
    total.div_(count).masked_fill_(count == 0, -torch.inf)
    both = (outside[:, rows, None] * outside[:, hard.clamp_min(0)]).sum(0)
    near = (sums.hard[:, :, rows] / both).masked_fill((hard < 0) | (both == 0), -torch.inf)
    return [SimilarityBlock(total[at, 0], total[at, 1], near[at, 0], near[at, 1]) for at in range(len(asked.pairs))]


@dataclass(frozen=True)
class HeldOut:
    """Some rows under all trials, side by side: one product of two rows sums over the trials that held out both.

    Attributes:
        rows: int64 `[u]`, ascending.
        left: `[u, r * o]`, their embeddings on the pair's side a, zeros under trials that they were members of.
        right: the same on side b.
        outside: float32 `[u, r]`, 1 for the trials that held a row out.
    """

    rows: Ints
    left: torch.Tensor
    right: torch.Tensor
    outside: torch.Tensor

    def similarity(self, left: Ints, right: Ints) -> Floats:
        """float32 `[l, p]`: mean held-out similarity of the rows `left` on side a with the rows `right` on side b.

        NaN where no trial left both out. O(l p r o); for all samples against a pool see `read_trials`.
        """
        mine, theirs = (torch.from_numpy(np.searchsorted(self.rows, rows)) for rows in (left, right))
        total = self.left[mine] @ self.right[theirs].T
        # 0 / 0 is NaN: the sum over no trial is exactly 0
        return np.asarray(total.div_(self.outside[mine] @ self.outside[theirs].T).cpu().numpy())


def hold(embed: Embed, member: Bools, pair: tuple[int, int], rows: Ints) -> HeldOut:
    """Rows `[u]`, which may repeat, under the trials with the masks `member` `[r, n]`; 8 u r o bytes.

    Args:
        embed: of the trials.
        member: bool `[r, n]`.
        pair: positions of the modalities a and b.
        rows: which.
    """
    rows = np.unique(rows)
    outside = torch.from_numpy(~member[:, rows]).float()
    sides: tuple[torch.Tensor, torch.Tensor] | None = None
    for number, out in enumerate(outside):
        found = [embed(number, torch.from_numpy(rows))[side].float() for side in pair]
        if sides is None:
            a, b = (torch.empty(len(rows), len(member), e.shape[1], device=e.device) for e in found)
            sides = a, b
        for side, embeddings in zip(sides, found, strict=True):
            torch.mul(embeddings, out.to(embeddings.device)[:, None], out=side[:, number])
    assert sides is not None
    return HeldOut(rows, sides[0].flatten(1), sides[1].flatten(1), outside.T.contiguous().to(sides[0].device))


def _generality(similarity: torch.Tensor) -> torch.Tensor:
    """`[q]`: mean over standard deviation of each row's known similarities."""
    known = torch.isfinite(similarity)
    values, count = similarity.masked_fill(~known, 0), known.sum(1).clamp_min(1)
    mean = values.sum(1) / count
    spread = ((values - mean[:, None]).masked_fill(~known, 0).square().sum(1) / count).sqrt()
    return mean / spread.clamp_min(1e-6)
