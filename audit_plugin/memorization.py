"""MultiMem (Wang et al., arXiv 2606.22220) as functions of arrays: masks, consistency, estimator, standard errors.

phi_a(x) is the unit embedding of sample x in modality a, v(x) = sum_a phi_a(x), H the reference samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import Bools, Floats, Ints


def member_masks(groups: Ints, trials: int, seed: int) -> Bools:
    """Complementary half masks, drawn over leave-together groups.

    Args:
        groups: `[n]`, equal values stay on one side of every mask. Rows must be in canonical order, since the
            draw follows it.
        trials: even number r.
        seed: trial pair q draws from its own generator (seed, q), so that masks do not depend on r.

    Returns:
        bool `[r, n]`; rows 2q and 2q+1 are complements, each as near to half of the samples as groups allow.
    """
    names, first, inverse, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first, kind="stable")  # canonical, whatever the groups are called
    masks = np.zeros((trials, len(groups)), dtype=bool)
    for pair in range(trials // 2):
        rng = np.random.default_rng((seed, pair))
        drawn = order[rng.permutation(len(names))]
        chosen = np.zeros(len(names), dtype=bool)
        chosen[drawn] = np.cumsum(sizes[drawn]) <= len(groups) / 2
        masks[2 * pair] = chosen[inverse]
        masks[2 * pair + 1] = ~chosen[inverse]
    return masks


def consistency(embeddings: Sequence[Floats], member: Bools, groups: Ints) -> Floats:
    """Cross-modal consistency of every sample under one trial, against its held-out reference.

    `CMC(x, H) = <v, v>/2 - <v, mean of v over H>/2` with H the trial's non-members outside x's group:
    the closed form of the paper's matrix expression, O(n m d).

    Args:
        embeddings: one `[n, d]` array of unit rows per modality.
        member: `[n]`, in the trial's training set.
        groups: `[n]` leave-together groups.

    Returns:
        float32 `[n]`; NaN where H is empty.
    """
    total = np.asarray(np.sum(embeddings, axis=0, dtype=np.float64))
    outside = ~member
    _, group = np.unique(groups, return_inverse=True)
    in_group = np.zeros((group.max(initial=-1) + 1, total.shape[1]))
    np.add.at(in_group, group[outside], total[outside])
    count = np.bincount(group[outside], minlength=len(in_group))[group]
    size = outside.sum() - count
    mean = (total[outside].sum(0) - in_group[group]) / np.where(size > 0, size, np.nan)[:, None]
    return (0.5 * (total * (total - mean)).sum(1)).astype(np.float32)


def remove_offsets(values: Floats, member: Bools) -> Floats:
    """Each trial's values `[r, n]` less their mean over its non-members: drift common to a model is not memory."""
    out = np.where(member, np.nan, values)
    return (values - np.nanmean(out, axis=1, keepdims=True)).astype(np.float32)


def pair_differences(values: Floats, member: Bools) -> Floats:
    """`[r/2, n]`: value as a member less value as a non-member, within each complementary pair of trials."""
    sign = np.where(member[0::2], 1.0, -1.0).astype(np.float32)
    return sign * (values[0::2] - values[1::2])


def multimem(values: Floats, member: Bools) -> tuple[Floats, Floats]:
    """Ensemble MultiMem and its standard error, both `[n]`.

    Args:
        values: consistency `[r, n]`, offsets removed.
        member: bool `[r, n]`, trials 2q and 2q+1 complementary.

    Returns:
        Mean of the paired differences d (mean over member trials less mean over the others), and s_d / sqrt(r/2);
        the error is NaN with a single pair.
    """
    differences = pair_differences(values, member)
    count = len(differences)
    spread = differences.std(axis=0, ddof=1) if count > 1 else np.full(differences.shape[1], np.nan)
    return differences.mean(0), (spread / np.sqrt(count)).astype(np.float32)


def reliability(values: Floats, member: Bools) -> float:
    """Spearman-Brown reliability of MultiMem from two halves of the pairs; NaN below four trials or without spread."""
    differences = pair_differences(values, member)
    if len(differences) < 2:
        return float("nan")
    left, right = differences[0::2].mean(0), differences[1::2].mean(0)
    if min(left.std(), right.std()) < 1e-9:
        return float("nan")
    half = float(np.corrcoef(left, right)[0, 1])
    return 2 * half / (1 + half) if half > -1 else float("nan")


def trials_needed(measured: float, trials: int, target: float = 0.8) -> int:
    """Trials that would bring a reliability measured at `trials` up to `target` (Spearman-Brown, even)."""
    if not 0 < measured < 1:
        return trials
    factor = target * (1 - measured) / (measured * (1 - target))
    return max(trials, 2 * int(np.ceil(trials * factor / 2)))


def held_out_mean(values: Floats, member: Bools) -> Floats:
    """`[n]`: mean of `[r, n]` over the trials in which each sample was not a member."""
    return np.nanmean(np.where(member, np.nan, values), axis=0).astype(np.float32)
