"""MultiMem (Wang et al., ECCV 2026, arXiv 2606.22220): masks, consistency, estimator, standard errors, reliability.

phi_a(x) is the unit embedding of sample x in modality a, v(x) = sum_a phi_a(x), H the reference samples. For a set S
of modalities `CMC_S(x, H) = 1/2 sum_{a,b in S} (<phi_a(x), phi_b(x)> - <phi_a(x), mean_H phi_b>)`, so that the
consistency over all modalities, one pair, or all but one is a sum over the sample's `[m, m]` table of these terms.
MultiMem is the consistency under models trained with x less that under models trained without it.

Trials come in blocks of `folds`: within a block every sample is left out once (two trials: complementary halves).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints, Trials, check_lengths, dense_ids

if TYPE_CHECKING:
    import torch

BLOCK = 8192  # rows whose products are computed at once


def member_masks(groups: Ints, trials: int, seed: int, folds: int = 2) -> Bools:
    """Masks in blocks of `folds` trials, each of which leaves out another part, drawn over leave-together groups.

    Args:
        groups: `[n]`, equal values stay on one side of every mask; rows in canonical order, which the draw follows.
        trials: r, a multiple of `folds`.
        seed: block q draws from its own generator (seed, q), so that masks do not depend on r.
        folds: parts of a block; 2 gives complementary halves.

    Returns:
        bool `[r, n]`; the parts of a block are as equal as groups allow.

    Raises:
        ValueError: `trials` is not a multiple of `folds`.
    """
    if trials % folds:
        raise ValueError(f"{trials} trials are not whole blocks of {folds}")
    group = dense_ids(groups, by_first_row=True)  # canonical, whatever the groups are called
    sizes = np.bincount(group)
    masks = np.zeros((trials, len(groups)), dtype=bool)
    for block in range(trials // folds):
        rng = np.random.default_rng((seed, block))
        drawn = rng.permutation(len(sizes))
        # a group's part: where its last sample lies among all samples in the order drawn
        part = np.empty(len(sizes), dtype=np.int64)
        part[drawn] = -(-np.cumsum(sizes[drawn]) * folds // len(groups)) - 1
        for trial in range(folds):
            masks[block * folds + trial] = part[group] != folds - 1 - trial
    return masks


def consistency_terms(embeddings: Sequence[Floats], reference: Bools, groups: Ints) -> Floats:
    """The terms `<phi_a(x), phi_b(x)> - <phi_a(x), mean_H phi_b>` of each sample under one trial.

    H is `reference` without x's own group. O(n m^2 d).

    Args:
        embeddings: one `[n, d]` array of unit rows per modality.
        reference: bool `[n]`, the samples of H.
        groups: `[n]` leave-together groups.

    Returns:
        float64 `[m, m, n]`; NaN where H is empty.
    """
    check_lengths(groups=groups, reference=reference, **{f"modality {a}": v for a, v in enumerate(embeddings)})
    n, m = len(groups), len(embeddings)
    group = dense_ids(groups)
    reference_in_group = np.bincount(group[reference], minlength=group.max(initial=-1) + 1)
    size = reference.sum() - reference_in_group[group]  # [n], |H| without x's group
    weight = 1 / np.where(size > 0, size, np.nan)
    terms = np.empty((m, m, n))
    blocks = _blocks_of_groups(group)
    for b, right in enumerate(embeddings):
        total = right.sum(0, dtype=np.float64, where=reference[:, None])
        for rows, starts in blocks:  # a table of all group sums would take 8 bytes per number of an embedding
            sums = np.add.reduceat(np.where(reference[rows, None], right[rows], 0), starts, axis=0, dtype=np.float64)
            rest = total - np.repeat(sums, np.diff(starts, append=len(rows)), axis=0)  # sum over H without x's group
            for a, left in enumerate(embeddings):
                # unit rows: <phi_a(x), phi_a(x)> = 1
                own = 1.0 if a == b else np.einsum("nd,nd->n", left[rows], right[rows], dtype=np.float64)
                others = np.einsum("nd,nd->n", left[rows], rest, dtype=np.float64)
                terms[a, b, rows] = own - weight[rows] * others
    return terms


def terms_of_embeddings(embeddings: Sequence[torch.Tensor], reference: Bools, groups: Ints) -> Floats:
    """`consistency_terms` of tensors `[n, d]`, computed on the GPU that holds them."""
    if embeddings[0].is_cuda:
        return consistency_terms_on_device(embeddings, reference, groups)
    return consistency_terms([e.numpy() for e in embeddings], reference, groups)


def consistency_terms_on_device(embeddings: Sequence[torch.Tensor], reference: Bools, groups: Ints) -> Floats:
    """`consistency_terms` of tensors `[n, d]` by torch, equal but for the rounding of float64."""
    import torch

    device, m = embeddings[0].device, len(embeddings)
    group = dense_ids(groups)
    reference_in_group = np.bincount(group[reference], minlength=group.max(initial=-1) + 1)
    size = reference.sum() - reference_in_group[group]
    weight = torch.from_numpy(1 / np.where(size > 0, size, np.nan)).to(device)
    in_reference = torch.from_numpy(reference).to(device)
    terms = torch.empty(m, m, len(group), dtype=torch.float64, device=device)
    blocks = [
        (torch.from_numpy(rows).to(device), torch.from_numpy(np.diff(starts, append=len(rows))).to(device))
        for rows, starts in _blocks_of_groups(group)
    ]
    for b, right in enumerate(embeddings):
        total = torch.zeros(right.shape[1], dtype=torch.float64, device=device)
        for part, inside in zip(right.split(BLOCK), in_reference.split(BLOCK), strict=True):
            total += part[inside].double().sum(0)
        for rows, lengths in blocks:
            of_rows = right[rows].double()
            in_group = of_rows * in_reference[rows, None]
            sums = torch.segment_reduce(in_group, "sum", lengths=lengths, axis=0)  # in order: the same each time
            rest = total - sums.repeat_interleave(lengths, 0)
            for a, left in enumerate(embeddings):
                one = left[rows].double()
                own = 1.0 if a == b else torch.linalg.vecdot(one, of_rows)
                terms[a, b, rows] = own - weight[rows] * torch.linalg.vecdot(one, rest)
    return terms.cpu().numpy()


def _blocks_of_groups(group: Ints) -> list[tuple[Ints, Ints]]:
    """(rows `[b]` of whole groups, sorted by group; where in them each group starts): about `BLOCK` rows a time.

    `group` is `[n]`, as `dense_ids` numbers it.
    """
    order, sizes = np.argsort(group, kind="stable"), np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    cuts = np.flatnonzero(np.diff(starts // BLOCK)) + 1  # the first group of each further block
    rows = np.split(order, starts[cuts])
    return [(r, s - s[0]) for r, s in zip(rows, np.split(starts, cuts), strict=True) if len(r)]


def sum_terms(terms: Floats, modalities: Sequence[int] | None = None) -> Floats:
    """`CMC_S` from the terms `[m, m, n]`, for the modalities S (default: all): `[n]`."""
    chosen = range(len(terms)) if modalities is None else modalities
    return 0.5 * terms[np.ix_(chosen, chosen)].sum((0, 1))


def consistency(embeddings: Sequence[Floats], reference: Bools, groups: Ints) -> Floats:
    """Cross-modal consistency `<v, v>/2 - <v, mean of v over H>/2` over all modalities: float32 `[n]`."""
    return sum_terms(consistency_terms(embeddings, reference, groups)).astype(np.float32)


def trial_weights(member: Bools, folds: int) -> Floats:
    """float32 `[r, n]`: each block's sum of weighted values is mean(as a member) - mean(as a non-member).

    0 throughout a block in which a sample was on one side only.
    """
    blocks = member.reshape(-1, folds, member.shape[1])  # [r / folds, folds, n]
    inside = blocks.sum(1, keepdims=True)
    outside = folds - inside
    weight = np.where(blocks, 1 / np.maximum(inside, 1), -1 / np.maximum(outside, 1))
    both_sides = (inside > 0) & (outside > 0)
    return np.where(both_sides, weight, 0).reshape(member.shape).astype(np.float32)


def remove_offsets(values: Floats, member: Bools, offset: Bools | None = None) -> Floats:
    """Each trial's values `[r, n]` less their mean over `offset` (default: its non-members).

    Drift common to a model is not memory. The paper's protocol has samples that no model saw for it, S_E.
    """
    in_offset = ~member if offset is None else offset
    mean = np.nanmean(np.where(in_offset, values, np.nan), axis=1, keepdims=True)
    return (values - mean).astype(np.float32)


def block_differences(values: Floats, member: Bools, folds: int = 2) -> Floats:
    """float32 `[r / folds, n]`: value as a member less value as a non-member, within each block of trials.

    NaN for a sample that was on one side throughout the block.
    """
    shape = (-1, folds, member.shape[1])
    weights = trial_weights(member, folds)
    differences = (weights * values).reshape(shape).sum(1)
    both_sides = (weights != 0).reshape(shape).any(1)
    return np.where(both_sides, differences, np.nan).astype(np.float32)


def estimate_multimem(values: Floats, member: Bools, folds: int = 2) -> tuple[Floats, Floats]:
    """MultiMem and its standard error, both `[n]`.

    The mean of the blocks' differences d (`block_differences` of the consistency, offsets removed), and
    s_d / sqrt(number of blocks); the error is NaN with a single block. NaN for samples that were on one side throughout
    any block; the terms of `trials.run` take such a block's difference as 0, and are NaN if that holds for all blocks.
    """
    differences = block_differences(values, member, folds)
    count = len(differences)
    spread = differences.std(axis=0, ddof=1) if count > 1 else np.full(differences.shape[1], np.nan)
    return differences.mean(0), (spread / np.sqrt(count)).astype(np.float32)


def reliability(values: Floats, member: Bools, folds: int = 2) -> float:
    """Spearman-Brown reliability `2 r / (1 + r)` of MultiMem, r the correlation of two halves of the blocks.

    NaN below two blocks or without spread.
    """
    differences = _complete_differences(values, member, folds)
    if len(differences) < 2 or differences.shape[1] < 3:
        return float("nan")
    left, right = differences[0::2].mean(0), differences[1::2].mean(0)
    if min(left.std(), right.std()) < 1e-9:
        return float("nan")
    half = float(np.corrcoef(left, right)[0, 1])
    return 2 * half / (1 + half) if half > -1 else float("nan")


def _complete_differences(values: Floats, member: Bools, folds: int) -> Floats:
    """`block_differences` of the samples that were on both sides in every block."""
    differences = block_differences(values, member, folds)
    return differences[:, np.isfinite(differences).all(0)]


def trials_needed(measured: float, trials: int, target: float = 0.8, folds: int = 2) -> int:
    """Trials that would bring a reliability measured at `trials` up to `target` (Spearman-Brown, whole blocks)."""
    if not 0 < measured < 1:
        return trials
    # Spearman-Brown: target = f q / (1 + (f - 1) q) for f times as many trials as those of reliability q
    factor = target * (1 - measured) / (measured * (1 - target))
    blocks = round(trials * factor / folds, 9)  # 16.000000000000004 blocks are 16
    return max(trials, folds * int(np.ceil(blocks)))


def top_mean(values: Floats, member: Bools, top: int, folds: int = 2) -> tuple[float, float]:
    """Mean MultiMem of the `top` samples: as chosen, and on trials that had no part in the choice.

    The first is inflated by the winner's curse: samples are at the top partly by luck. The second chooses on one half
    of the blocks and measures on the other, both ways round. NaN below two blocks or `top` samples.
    """
    differences = _complete_differences(values, member, folds)
    if len(differences) < 2 or differences.shape[1] < top:
        return float("nan"), float("nan")

    def mean_of_top(scores: Floats, measured: Floats) -> float:
        return float(measured[np.argsort(-scores, kind="stable")[:top]].mean())

    overall, left, right = differences.mean(0), differences[0::2].mean(0), differences[1::2].mean(0)
    fresh = [mean_of_top(left, right), mean_of_top(right, left)]
    return mean_of_top(overall, overall), float(np.mean(fresh))


def mean_as_non_member(values: Floats, member: Bools) -> Floats:
    """`[n]`: mean of `[r, n]` over the trials in which each sample was not a member; NaN where there was none."""
    count = (~member).sum(0)
    total = np.where(member, 0, values).sum(0)
    return (total / np.where(count > 0, count, np.nan)).astype(np.float32)


def adjusted_consistency(trials: Trials) -> Floats:
    """Consistency `[r, n]` with each trial's offset removed."""
    return remove_offsets(trials.consistency, trials.member, trials.offset_rows)
