"""Held-out similarities: what the trials say of pairs that they have not seen, the evidence of misalignment.

The held-out similarity of sample i's side a and sample j's side b is a mean over the trials t with neither in training:

    s_ij = sum_t out_ti out_tj <phi_a^t(x_i), phi_b^t(y_j)> / sum_t out_ti out_tj,    out_ti = 1 where t held i out

Embeddings of members are set to zero, so that plain products sum over the right trials. Similarities are averaged
before they are contrasted, not contrasts afterward, so that the temperature can be low: single trials are noisy, and a
low temperature looks at the strongest rival only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Ints

from .contrast import BLOCK_ROWS, LogMeans, Negatives, SimilarityBlock, block_log_means, contrast_with_probes

TEMPERATURE = 1 / 100  # of the contrast; chosen on the development sets, see docs/detection.md

# (trial number, rows or None for all) -> unit embeddings `[q, o]` per modality
Embed = Callable[[int, torch.Tensor | None], list[torch.Tensor]]


@dataclass(frozen=True)
class Question:
    """What is read from r trials on n samples and p pairs of modalities.

    Attributes:
        member: bool `[r, n]`.
        pairs: positions (a, b) of the modalities of each pair.
        text_sides: position of a pair -> its side that is text (0 or 1), for the pairs with one text.
        negatives: of the samples; the first columns of `repeats` are the modalities' contents.
        probes: rows (i, j) `[q, 2]` of probe pairs: i's side a, j's side b.
    """

    member: Bools
    pairs: list[tuple[int, int]]
    text_sides: dict[int, int]
    negatives: Negatives
    probes: Ints


def read_trials(embed: Embed, question: Question) -> dict[str, Floats]:
    """Held-out measures over all trials; O(r n P o) for a pool of P and embeddings of dimension o.

    Returns:
        `cosine` (s_ii), `contrast` and `generality` float32 `[p, n]`, and `planted` `[p, q]`, the contrast of the probe
        pairs. NaN where no trial held the pair out. Generality: mean divided by standard deviation of a text's
        similarities to the pool.
    """
    negatives, probes = question.negatives, question.probes
    device = negatives.pool.device
    out = torch.from_numpy(~question.member).float().to(device)  # [r, n]
    own, probe, hard_sums, pool_embeddings = _sum_over_trials(embed, question, out)
    left, right = (torch.from_numpy(probes[:, side]).to(device) for side in (0, 1))
    own /= out.sum(0)
    probe /= (out[:, left] * out[:, right]).sum(0)

    forward, backward = torch.empty_like(own), torch.empty_like(own)  # log means, [p, n]
    generality = torch.full_like(own, torch.nan)
    for rows in torch.arange(out.shape[1], device=device).split(BLOCK_ROWS):
        for position, block in enumerate(_similarity_blocks(embed, question, out, hard_sums, pool_embeddings, rows)):
            row_mean, column_mean = block_log_means(block, rows, negatives, TEMPERATURE)
            forward[position, rows], backward[position, rows] = row_mean, column_mean
            if position in question.text_sides:
                of_text = block.backward if question.text_sides[position] else block.forward
                generality[position, rows] = _generality(of_text)

    contrasts, probe_contrasts = [], []
    for position, pair in enumerate(question.pairs):
        log_means = LogMeans(forward[position], backward[position], TEMPERATURE)
        of_samples, of_probes = contrast_with_probes(log_means, own[position], probe[position], probes, negatives, pair)
        contrasts.append(of_samples)
        probe_contrasts.append(of_probes)
    is_held_out = torch.isfinite(own)
    return {
        "cosine": torch.where(is_held_out, own, torch.nan).cpu().numpy(),
        "contrast": np.stack(contrasts),
        "generality": torch.where(is_held_out, generality, torch.nan).cpu().numpy(),
        "planted": np.stack(probe_contrasts),  # the key of stored runs
    }


def _sum_over_trials(
    embed: Embed, question: Question, out: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[list[torch.Tensor]]]:
    """Sums of inner products over the trials that held both samples out, in one pass.

    Returns:
        (of the own pairs `[p, n]`; of the probe pairs `[p, q]`; `[p, 2, n, h]` of side a with the hard negatives'
        side b and of side b with their side a; per trial and modality the pool's embeddings `[P, o]`, members zeroed,
        none for a trial without non-members)
    """
    p, n = len(question.pairs), out.shape[1]
    pool, hard = question.negatives.pool, question.negatives.hard
    device = pool.device
    left, right = (torch.from_numpy(question.probes[:, side]).to(device) for side in (0, 1))
    own = torch.zeros(p, n, device=device)
    probe = torch.zeros(p, len(left), device=device)
    hard_sums = torch.zeros(p, 2, n, hard.shape[1], device=device)
    pool_embeddings: list[list[torch.Tensor]] = []
    for trial, trial_out in enumerate(out):
        rows = torch.nonzero(trial_out)[:, 0]
        if not len(rows):
            pool_embeddings.append([])
            continue
        place = torch.zeros_like(trial_out, dtype=torch.int64)  # [n], of each non-member among the embeddings
        place[rows] = torch.arange(len(rows), device=device)
        embeddings = [e.float() for e in embed(trial, rows)]
        pool_embeddings.append([e[place[pool]] * trial_out[pool, None] for e in embeddings])
        for position, (a, b) in enumerate(question.pairs):
            own[position, rows] += torch.einsum("no,no->n", embeddings[a], embeddings[b])
            of_probes = (embeddings[a][place[left]] * embeddings[b][place[right]]).sum(1)
            probe[position] += of_probes * trial_out[left] * trial_out[right]
            for block in rows.split(BLOCK_ROWS) if hard.shape[1] else ():
                candidates = hard[block].clamp_min(0).long()
                for direction, (one, other) in enumerate(((a, b), (b, a))):
                    left_rows, right_rows = embeddings[one][place[block]], embeddings[other][place[candidates]]
                    products = torch.einsum("qo,qho->qh", left_rows, right_rows)
                    hard_sums[position, direction, block] += products * trial_out[candidates]
        del embeddings  # before the next ones are made
    return own, probe, hard_sums, pool_embeddings


def _similarity_blocks(
    embed: Embed,
    question: Question,
    out: torch.Tensor,
    hard_sums: torch.Tensor,
    pool_embeddings: list[list[torch.Tensor]],
    rows: torch.Tensor,
) -> list[SimilarityBlock]:
    """s of q rows with the pool and their hard negatives, one block per pair; -inf where no trial held out both."""
    pool, hard = question.negatives.pool, question.negatives.hard[rows].clamp_min(0).long()
    pool_is_everything = len(pool) == out.shape[1]
    similarity = torch.zeros(len(question.pairs), 2, len(rows), len(pool), device=pool.device)
    for trial, of_pool in enumerate(pool_embeddings):
        row_out = torch.nonzero(out[trial, rows])[:, 0]  # only the rows that the trial held out: half of the product
        if not len(row_out):
            continue
        if pool_is_everything:
            row_embeddings = [e[rows[row_out]] for e in of_pool]
        else:
            row_embeddings = [e.float() for e in embed(trial, rows[row_out])]
        # to distinct rows: no sum depends on the order in which a GPU adds them
        for position, (a, b) in enumerate(question.pairs):
            similarity[position, 0].index_add_(0, row_out, row_embeddings[a] @ of_pool[b].T)
            similarity[position, 1].index_add_(0, row_out, row_embeddings[b] @ of_pool[a].T)

    count = out[:, rows].T @ out[:, pool]  # [q, P], trials that held out both
    similarity.div_(count).masked_fill_(count == 0, -torch.inf)
    hard_count = (out[:, rows, None] * out[:, hard]).sum(0)  # [q, h]
    hard_similarity = (hard_sums[:, :, rows] / hard_count).masked_fill_(hard_count == 0, -torch.inf)
    return [SimilarityBlock(*both, *both_hard) for both, both_hard in zip(similarity, hard_similarity, strict=True)]


def _generality(similarity: torch.Tensor) -> torch.Tensor:
    """`[q]`: mean divided by standard deviation of each row's known similarities `[q, P]`."""
    known = torch.isfinite(similarity)
    count = known.sum(1).clamp_min(1)
    mean = similarity.masked_fill(~known, 0).sum(1) / count
    deviation = (similarity - mean[:, None]).masked_fill(~known, 0)
    spread = (deviation.square().sum(1) / count).sqrt()
    return mean / spread.clamp_min(1e-6)


@dataclass(frozen=True)
class HeldOutEmbeddings:
    """u rows under r trials, each under those alone that held it out.

    Attributes:
        rows: int64 `[u]`.
        out: float32 `[u, r]`, 1 for the trials that held a row out.
        places: per trial, int64 `[v]`: which of the rows it held out.
        left: per trial, `[v, o]`: their embeddings on the pair's side a.
        right: the same on side b.
    """

    rows: Ints
    out: torch.Tensor
    places: list[torch.Tensor]
    left: list[torch.Tensor]
    right: list[torch.Tensor]

    def similarity(self, others: HeldOutEmbeddings) -> Floats:
        """float32 `[u, p]`: held-out similarity s_ij of these rows on side a with p others on side b; copies neither.

        NaN where no trial held out both. O(u p r o); for all samples against a pool see `read_trials`.
        """
        count = self.out @ others.out.T
        total = torch.zeros_like(count)
        for row, left, column, right in zip(self.places, self.left, others.places, others.right, strict=True):
            products = total.new_zeros(len(row), total.shape[1]).index_copy_(1, column, left @ right.T)
            total.index_add_(0, row, products)  # distinct rows
        return np.asarray(total.div_(count).cpu().numpy())  # over no trial 0 / 0 = NaN


def embed_held_out(embed: Embed, member: Bools, pair: tuple[int, int], rows: Ints) -> HeldOutEmbeddings:
    """Rows `[u]` under the trials with the masks `member` `[r, n]`; 8 o bytes for a row and a trial that held it out.

    `pair`: positions of the modalities a and b.
    """
    index, out = torch.from_numpy(rows), torch.from_numpy(~member[:, rows])  # [r, u]
    places, left, right = [], [], []
    for trial, trial_out in enumerate(out):
        place = torch.nonzero(trial_out)[:, 0]
        embeddings = embed(trial, index[place])
        places.append(place.to(embeddings[0].device))
        left.append(embeddings[pair[0]].float())
        right.append(embeddings[pair[1]].float())
    return HeldOutEmbeddings(rows, out.T.float().contiguous().to(left[0].device), places, left, right)
