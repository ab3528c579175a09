"""Recall across modalities as statistics of arrays (after Wen et al., arXiv 2506.05198): rates, gaps, intervals.

R[s -> m] is the recall in modality m of what was learned in modality s. The identity is the unit: everything is first
averaged over the variants and seeds of an identity, and intervals are bootstraps over identities, paired where two
rates are of the same identities. `chance` is what a model that learned nothing recalls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints, dense_ids, spearman

BOTH, NONE = "both", "none"  # arms that learn from both modalities, and from neither
DRAWS = 2000
LEVEL = 0.95
RECALLED = 0.5  # share of an identity's questions from which it counts as recalled
LEAST_CEILING = 0.05  # above chance: what both modalities together do not teach cannot be transferred

Estimate = dict[str, float]


def per_identity(hits: Floats, identity: Ints, count: int) -> Floats:
    """`[e]`: mean of `[s, t]` hits over seeds and questions of each of `count` identities; NaN where none was asked."""
    asked = np.bincount(identity, minlength=count)
    total = np.bincount(identity, weights=np.asarray(hits, dtype=np.float64).mean(0), minlength=count)
    return np.where(asked > 0, total / np.maximum(asked, 1), np.nan)


def estimate(
    statistic: Callable[..., Floats], columns: Sequence[Floats], draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """A statistic of means over identities, with its bootstrap interval.

    Args:
        statistic: of the columns' means, each `[draws]` or a scalar, to the same shape.
        columns: `[e]` each, of the same identities; those with a NaN in any are left out.
        draws: of the bootstrap.
        seed: of the draws.

    Returns:
        {"value", "low", "high", "identities"}; NaN without identities.
    """
    table = np.stack([np.asarray(column, dtype=np.float64) for column in columns])
    table = table[:, np.isfinite(table).all(0)]
    count = table.shape[1]
    if not count:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "identities": 0}
    drawn = np.random.default_rng(seed).integers(0, count, (draws, count))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(*table.mean(1)))
        spread = np.asarray(statistic(*(column[drawn].mean(1) for column in table)))
    spread = spread[np.isfinite(spread)]
    low, high = np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(spread) else (np.nan, np.nan)
    return {"value": value, "low": float(low), "high": float(high), "identities": count}


def rate(values: Floats) -> Estimate:
    """Mean of `[e]`."""
    return estimate(lambda mean: mean, [values])


def gap(source: Floats, target: Floats) -> Estimate:
    """Source less target recall `[e]`, paired. It mixes what does not transfer with how hard the target is to read."""
    return estimate(lambda a, b: a - b, [source, target])


def transfer_ratio(target: Floats, ceiling: Floats, chance: float) -> Estimate:
    """(R[s -> t] - chance) / (R[both -> t] - chance): 1 where one modality teaches the other all that can be taught.

    NaN where the ceiling itself is hardly above chance.
    """

    def ratio(mine: Floats, best: Floats) -> Floats:
        above = np.asarray(best) - chance
        return np.where(above > LEAST_CEILING, (np.asarray(mine) - chance) / above, np.nan)

    return estimate(ratio, [target, ceiling])


def joint_table(source: Floats, target: Floats) -> dict[str, int]:
    """How many identities `[e]` are recalled in both modalities, in one only, in neither."""
    known = np.isfinite(source) & np.isfinite(target)
    a, b = source[known] >= RECALLED, target[known] >= RECALLED
    return {
        "both": int((a & b).sum()),
        "source only": int((a & ~b).sum()),
        "target only": int((~a & b).sum()),
        "neither": int((~a & ~b).sum()),
    }


def pair_retrieval(left: Floats, right: Floats, identity: Ints) -> Floats:
    """`[t]`: 1 where the most similar right row of a left row `[t, d]` is of its identity, mean of both ways round."""
    similarity = left @ right.T
    there = (identity[similarity.argmax(1)] == identity).astype(np.float64)
    back = (identity[similarity.argmax(0)] == identity).astype(np.float64)
    return np.asarray((there + back) / 2)


def retrieval_chance(identity: Ints) -> float:
    """What `pair_retrieval` is for rows without any relation."""
    share = np.bincount(identity) / max(len(identity), 1)
    return float(np.square(share).sum())


def modality_gap(left: Floats, right: Floats) -> float:
    """Distance of the modalities' mean unit rows (Liang et al., NeurIPS 2022). It does not stand for the recall gap."""
    return float(np.linalg.norm(left.mean(0, dtype=np.float64) - right.mean(0, dtype=np.float64)))


def rank_correlation(a: Floats, b: Floats, unit: Ints | None = None, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Spearman's correlation of `[n]` and `[n]` over rows where both are known, with a bootstrap over units.

    Args:
        a: values.
        b: values.
        unit: `[n]`, rows that are drawn together; each by itself if None.
        draws: of the bootstrap.
        seed: of the draws.
    """
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    unit = np.arange(len(a)) if unit is None else dense_ids(unit[known])
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "identities": len(np.unique(unit))}
    order = np.argsort(unit, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(unit))[:-1])
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        some = np.concatenate([rows[at] for at in rng.integers(0, len(rows), len(rows))])
        if np.ptp(a[some]) > 0 and np.ptp(b[some]) > 0:
            found.append(spearman(a[some], b[some]))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if found else (np.nan, np.nan)
    return {"value": spearman(a, b), "low": float(low), "high": float(high), "identities": len(rows)}


def aligned(retrieval: Mapping[str, float], chance: float) -> bool:
    """Whether the modalities were aligned at all: retrieval of held-out pairs is above twice chance for sure."""
    return bool(np.isfinite(retrieval["low"]) and retrieval["low"] > 2 * chance)


def recalled(values: Floats) -> Bools:
    """bool `[e]`: identities recalled in at least `RECALLED` of their questions."""
    return np.asarray(np.nan_to_num(values) >= RECALLED)
