"""Recall across modalities as statistics of arrays (after Wen et al., arXiv 2506.05198): rates, gaps, intervals.

R[s -> m] is the recall in modality m of what was learned in modality s. The identity is the unit: hits are averaged
over the variants and seeds of an identity first, and intervals are percentiles of bootstraps over identities, paired
where two rates are of the same identities. `chance` is what a model that learned nothing recalls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints, dense_ids, spearman

BOTH, NONE = "both", "none"  # arms that learn from both modalities, and from neither
DRAWS = 2000  # of a bootstrap
LEVEL = 0.95  # of intervals
RECALLED = 0.5  # share of an identity's questions from which it counts as recalled
MIN_CEILING = 0.05  # above chance: what both modalities together do not teach cannot be recalled across

Estimate = dict[str, float]  # value, low, high, identities


def per_identity(hits: Floats, identity: Ints, count: int) -> Floats:
    """`[e]`: mean of `[s, t]` hits over seeds and questions of each of `count` identities; NaN where none was asked."""
    asked = np.bincount(identity, minlength=count)
    total = np.bincount(identity, weights=np.asarray(hits, dtype=np.float64).mean(0), minlength=count)
    return np.where(asked > 0, total / np.maximum(asked, 1), np.nan)


def with_interval(value: float, draws: Sequence[float] | Floats, identities: int) -> Estimate:
    """The estimate `value` with the central `LEVEL` of its bootstrap draws; NaN bounds if none is finite."""
    finite = np.asarray(draws, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(finite) else (np.nan, np.nan)
    return {"value": float(value), "low": float(low), "high": float(high), "identities": identities}


def estimate(statistic: Callable[..., Floats], columns: Sequence[Floats]) -> Estimate:
    """A statistic of means over identities, with its bootstrap interval; NaN without identities.

    Args:
        statistic: of the columns' means, each `[draws]` or a scalar, to the same shape.
        columns: `[e]` each, of the same identities; those with a NaN in any are left out.
    """
    table = np.stack([np.asarray(column, dtype=np.float64) for column in columns])
    table = table[:, np.isfinite(table).all(0)]
    count = table.shape[1]
    if not count:
        return with_interval(np.nan, [], 0)
    drawn = np.random.default_rng(0).integers(0, count, (DRAWS, count))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(*table.mean(1)))
        draws = statistic(*(column[drawn].mean(1) for column in table))
    return with_interval(value, draws, count)


def rate(values: Floats) -> Estimate:
    """Mean of `[e]`."""
    return estimate(lambda mean: mean, [values])


def gap(source: Floats, target: Floats) -> Estimate:
    """Source less target recall `[e]`, paired; what does not cross, mixed with how hard the target is to read."""
    return estimate(lambda source_mean, target_mean: source_mean - target_mean, [source, target])


def above_floor(value: Floats, ceiling: Floats, floor: Floats | float) -> Floats:
    """(value - floor) / (ceiling - floor); NaN where the ceiling is hardly above the floor."""
    span = np.asarray(ceiling) - floor
    return np.where(span > MIN_CEILING, (np.asarray(value) - floor) / span, np.nan)


def transfer_ratio(target: Floats, ceiling: Floats, chance: float) -> Estimate:
    """(R[s -> t] - chance) / (R[both -> t] - chance): 1 where one modality teaches the other all that can be taught."""
    return estimate(lambda recall, best: above_floor(recall, best, chance), [target, ceiling])


def joint_table(source: Floats, target: Floats) -> dict[str, int]:
    """How many identities `[e]` are recalled in both modalities, in one only, in neither."""
    known = np.isfinite(source) & np.isfinite(target)
    in_source, in_target = is_recalled(source[known]), is_recalled(target[known])
    return {
        "both": int((in_source & in_target).sum()),
        "source only": int((in_source & ~in_target).sum()),
        "target only": int((~in_source & in_target).sum()),
        "neither": int((~in_source & ~in_target).sum()),
    }


def is_recalled(values: Floats) -> Bools:
    """bool `[e]`: identities recalled in at least `RECALLED` of their questions."""
    return np.asarray(np.nan_to_num(values) >= RECALLED)


def pair_retrieval(left: Floats, right: Floats, identity: Ints) -> Floats:
    """`[t]`: 1 where the most similar right row of a left row `[t, d]` is of its identity, mean of both directions."""
    similarity = left @ right.T
    left_to_right = (identity[similarity.argmax(1)] == identity).astype(np.float64)
    right_to_left = (identity[similarity.argmax(0)] == identity).astype(np.float64)
    return np.asarray((left_to_right + right_to_left) / 2)


def retrieval_chance(identity: Ints) -> float:
    """Expected `pair_retrieval` of unrelated rows: the sum of the squared shares of the identities."""
    share = np.bincount(identity) / max(len(identity), 1)
    return float(np.square(share).sum())


def is_aligned(retrieval: Mapping[str, float], chance: float) -> bool:
    """Whether the modalities were aligned at all: held-out pair retrieval is significantly above twice chance."""
    return bool(np.isfinite(retrieval["low"]) and retrieval["low"] > 2 * chance)


def modality_gap(left: Floats, right: Floats) -> float:
    """Distance of the modalities' mean unit rows (Liang et al., NeurIPS 2022); it is not the recall gap."""
    return float(np.linalg.norm(left.mean(0, dtype=np.float64) - right.mean(0, dtype=np.float64)))


def rank_correlation(left: Floats, right: Floats, unit: Ints | None = None) -> Estimate:
    """Spearman's correlation of `[n]` and `[n]` over rows where both are known, with a bootstrap over units.

    Rows of one `unit` `[n]` are drawn together; each by itself if None.
    """
    known = np.isfinite(left) & np.isfinite(right)
    left, right = left[known], right[known]
    unit = np.arange(len(left)) if unit is None else dense_ids(unit[known])
    value = spearman(left, right)
    if np.isnan(value):
        return with_interval(value, [], len(np.unique(unit)))
    by_unit = np.argsort(unit, kind="stable")
    rows_of = np.split(by_unit, np.cumsum(np.bincount(unit))[:-1])
    rng, draws = np.random.default_rng(0), []
    for _ in range(DRAWS):
        rows = np.concatenate([rows_of[number] for number in rng.integers(0, len(rows_of), len(rows_of))])
        draws.append(spearman(left[rows], right[rows]))
    return with_interval(value, draws, len(rows_of))
