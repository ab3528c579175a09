"""MultiMem (Wang et al., arXiv 2606.22220) as functions of arrays: masks, consistency, estimator, standard errors.

phi_a(x) is the unit embedding of sample x in modality a, v(x) = sum_a phi_a(x), H the reference samples. For a set S
of modalities `CMC_S(x, H) = 1/2 sum_{a,b in S} (<phi_a(x), phi_b(x)> - <phi_a(x), mean_H phi_b>)`, so everything
that is asked of a sample (all modalities, one pair, all but one) is a sum over its `[m, m]` table of these terms.

Trials come in blocks of `folds`: within a block every sample is left out once (two trials: complementary halves).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints, Trials

BLOCK = 8192  # rows in float64 at once


def member_masks(groups: Ints, trials: int, seed: int, folds: int = 2) -> Bools:
    """Masks in blocks of `folds` trials, each of which leaves out another part, drawn over leave-together groups.

    Args:
        groups: `[n]`, equal values stay on one side of every mask. Rows must be in canonical order, since the
            draw follows it.
        trials: r, a multiple of `folds`.
        seed: block q draws from its own generator (seed, q), so that masks do not depend on r.
        folds: parts of a block; 2 gives complementary halves.

    Returns:
        bool `[r, n]`; the parts of a block are as equal as groups allow.
    """
    names, first, inverse, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first, kind="stable")  # canonical, whatever the groups are called
    masks = np.zeros((trials, len(groups)), dtype=bool)
    for block in range(trials // folds):
        rng = np.random.default_rng((seed, block))
        drawn = order[rng.permutation(len(names))]
        part = np.zeros(len(names), dtype=np.int64)
        part[drawn] = -(-np.cumsum(sizes[drawn]) * folds // len(groups)) - 1
        for trial in range(folds):
            masks[block * folds + trial] = part[inverse] != folds - 1 - trial
    return masks


def consistency_terms(embeddings: Sequence[Floats], reference: Bools, groups: Ints) -> Floats:
    """The terms `<phi_a(x), phi_b(x)> - <phi_a(x), mean_H phi_b>` of every sample under one trial.

    H is `reference` without x's own group. O(n m^2 d), no loop over pairs of samples.

    Args:
        embeddings: one `[n, d]` array of unit rows per modality.
        reference: bool `[n]`, the samples of H.
        groups: `[n]` leave-together groups.

    Returns:
        float64 `[m, m, n]`; NaN where H is empty.
    """
    _, group = np.unique(groups, return_inverse=True)
    count = np.bincount(group[reference], minlength=group.max(initial=-1) + 1)
    size = reference.sum() - count[group]
    share = 1 / np.where(size > 0, size, np.nan)
    m = len(embeddings)
    terms = np.empty((m, m, len(groups)))
    for b, other in enumerate(embeddings):
        in_group = np.zeros((len(count), other.shape[1]))
        np.add.at(in_group, group[reference], other[reference])
        total = in_group.sum(0)
        for start in range(0, len(groups), BLOCK):
            rows = slice(start, start + BLOCK)
            rest = total - in_group[group[rows]]
            for a, own in enumerate(embeddings):
                same = 1.0 if a == b else np.einsum("nd,nd->n", own[rows], other[rows], dtype=np.float64)
                terms[a, b, rows] = same - share[rows] * np.einsum("nd,nd->n", own[rows], rest, dtype=np.float64)
    return terms


def over(terms: Floats, modalities: Sequence[int] | None = None) -> Floats:
    """`CMC_S` from the terms `[m, m, n]`, for the modalities S (default: all): `[n]`."""
    chosen = list(range(len(terms))) if modalities is None else list(modalities)
    return 0.5 * terms[np.ix_(chosen, chosen)].sum((0, 1))


def consistency(embeddings: Sequence[Floats], reference: Bools, groups: Ints) -> Floats:
    """Cross-modal consistency `<v, v>/2 - <v, mean of v over H>/2` over all modalities: float32 `[n]`."""
    return over(consistency_terms(embeddings, reference, groups)).astype(np.float32)


def trial_weights(member: Bools, folds: int) -> Floats:
    """float32 `[r, n]`: each block's sum of weighted values is mean(as a member) - mean(as a non-member).

    0 throughout a block in which a sample was on one side only.
    """
    blocks = member.reshape(-1, folds, member.shape[1])
    inside = blocks.sum(1, keepdims=True)
    outside = folds - inside
    weight = np.where(blocks, 1 / np.maximum(inside, 1), -1 / np.maximum(outside, 1))
    return np.where((inside > 0) & (outside > 0), weight, 0).reshape(member.shape).astype(np.float32)


def remove_offsets(values: Floats, member: Bools, offset: Bools | None = None) -> Floats:
    """Each trial's values `[r, n]` less their mean over `offset` (default: its non-members).

    Drift common to a model is not memory. The paper's protocol has samples that no model saw for it, S_E.
    """
    out = np.where(member, np.nan, values) if offset is None else np.where(offset, values, np.nan)
    return (values - np.nanmean(out, axis=1, keepdims=True)).astype(np.float32)


def block_differences(values: Floats, member: Bools, folds: int = 2) -> Floats:
    """float32 `[r / folds, n]`: value as a member less value as a non-member, within each block of trials.

    NaN for a sample that was on one side throughout the block.
    """
    weights = trial_weights(member, folds)
    blocks = (weights * values).reshape(-1, folds, member.shape[1]).sum(1)
    return np.where((weights != 0).reshape(blocks.shape[0], folds, -1).any(1), blocks, np.nan).astype(np.float32)


def multimem(values: Floats, member: Bools, folds: int = 2) -> tuple[Floats, Floats]:
    """MultiMem and its standard error, both `[n]`.

    Args:
        values: consistency `[r, n]`, offsets removed.
        member: bool `[r, n]`, in blocks.
        folds: trials per block.

    Returns:
        Mean of the blocks' differences d (mean over member trials less mean over the others), and
        s_d / sqrt(number of blocks); the error is NaN with a single block. NaN for samples never on both sides.
    """
    differences = block_differences(values, member, folds)
    count = len(differences)
    spread = differences.std(axis=0, ddof=1) if count > 1 else np.full(differences.shape[1], np.nan)
    return differences.mean(0), (spread / np.sqrt(count)).astype(np.float32)


def reliability(values: Floats, member: Bools, folds: int = 2) -> float:
    """Spearman-Brown reliability of MultiMem from two halves of the blocks; NaN below two blocks or without spread."""
    differences = block_differences(values, member, folds)
    differences = differences[:, np.isfinite(differences).all(0)]
    if len(differences) < 2 or differences.shape[1] < 3:
        return float("nan")
    left, right = differences[0::2].mean(0), differences[1::2].mean(0)
    if min(left.std(), right.std()) < 1e-9:
        return float("nan")
    half = float(np.corrcoef(left, right)[0, 1])
    return 2 * half / (1 + half) if half > -1 else float("nan")


def trials_needed(measured: float, trials: int, target: float = 0.8, folds: int = 2) -> int:
    """Trials that would bring a reliability measured at `trials` up to `target` (Spearman-Brown, whole blocks)."""
    if not 0 < measured < 1:
        return trials
    factor = target * (1 - measured) / (measured * (1 - target))
    blocks = round(trials * factor / folds, 9)  # 16.000000000000004 blocks are 16
    return max(trials, folds * int(np.ceil(blocks)))


def top_mean(values: Floats, member: Bools, top: int, folds: int = 2) -> tuple[float, float]:
    """Mean MultiMem of the `top` samples: as chosen, and on trials that had no part in the choice.

    The first is inflated by the winner's curse: who is at the top is there partly by luck. The second chooses on one
    half of the blocks and measures on the other, both ways round.
    """
    differences = block_differences(values, member, folds)
    differences = differences[:, np.isfinite(differences).all(0)]
    if len(differences) < 2 or differences.shape[1] < top:
        return float("nan"), float("nan")
    halves = differences[0::2].mean(0), differences[1::2].mean(0)
    every = differences.mean(0)
    chosen = float(every[np.argsort(-every, kind="stable")[:top]].mean())
    ways = ((halves[0], halves[1]), (halves[1], halves[0]))
    fresh = [float(measure[np.argsort(-choose, kind="stable")[:top]].mean()) for choose, measure in ways]
    return chosen, float(np.mean(fresh))


def held_out_mean(values: Floats, member: Bools) -> Floats:
    """`[n]`: mean of `[r, n]` over the trials in which each sample was not a member; NaN where there was none."""
    held = (~member).sum(0)
    return (np.where(member, 0, values).sum(0) / np.where(held > 0, held, np.nan)).astype(np.float32)


def adjusted(trials: Trials) -> Floats:
    """Consistency `[r, n]` with each trial's offset removed."""
    return remove_offsets(trials.consistency, trials.member, trials.offset)
