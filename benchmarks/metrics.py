"""Quality of a suspicion against known wrong rows, and intervals of the difference between two of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from sklearn.metrics import average_precision_score

from audit_plugin.arrays import Bools, Floats
from benchmarks.rivals.tuning import auroc

DRAWS = 2000
AP_DRAWS = 500  # each sums over all rows


def quality(values: Floats, wrong: Bools, flagged: int) -> dict[str, float]:
    """AUROC, average precision, and precision among as many rows as were flagged."""
    top = np.argsort(-values, kind="stable")[:flagged]
    return {
        "auroc": round(float(auroc(values, wrong)), 5),
        "ap": round(float(average_precision_score(wrong, values)), 5),
        "precision": round(float(wrong[top].mean()), 5) if flagged else float("nan"),
    }


def flag_quality(values: Floats, flagged: Bools, wrong: Bools, rate: float) -> dict[str, float]:
    """Realized false-positive rate and recall of flags, and the recall of the best threshold at the set rate."""
    right = values[~wrong]
    best = np.sort(right)[::-1][int(rate * len(right))]  # exceeded by a share `rate` of right rows at most
    return {
        "flagged": int(flagged.sum()),
        "false_positive_rate": round(float(flagged[~wrong].mean()), 5),
        "recall": round(float(flagged[wrong].mean()), 5) if wrong.any() else float("nan"),
        "best_recall": round(float((values[wrong] > best).mean()), 5) if wrong.any() else float("nan"),
    }


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of those that are known; None where none is."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    return round(float(np.mean(known)), 5) if known else None


def placements(values: Floats, wrong: Bools) -> Floats:
    """`[n]`: for a wrong row the share of right rows below it, for a right row that of wrong rows above it."""
    out = np.empty(len(values))
    for rows, others, sign in ((wrong, ~wrong, 1.0), (~wrong, wrong, -1.0)):
        ranked = np.sort(sign * values[others])
        at = sign * values[rows]
        out[rows] = (np.searchsorted(ranked, at, "left") + np.searchsorted(ranked, at, "right")) / (2 * len(ranked))
    return out


def auroc_difference(pairs: Sequence[tuple[Floats, Floats, Bools]], seed: int = 0) -> dict[str, float]:
    """Mean over seeds of AUROC(first) - AUROC(second), with a paired bootstrap over rows.

    The seeds plant other errors in the same rows: a draw takes the same rows, as often, for all of them. A draw's AUROC
    is taken as the mean of the drawn placements, which is exact to first order.

    Args:
        pairs: per seed (first `[n]`, second `[n]`, wrong `[n]`).
        seed: of the draws.

    Returns:
        mean; low and high, the central 95%.
    """
    counts = _drawn_rows(len(pairs[0][2]), DRAWS, seed)
    draws, mean = np.zeros(DRAWS), 0.0
    for first, second, wrong in pairs:
        gap = placements(first, wrong) - placements(second, wrong)
        mean += float(gap[wrong].mean()) / len(pairs)
        for rows in (wrong, ~wrong):
            # both kinds of placements estimate the same AUROC; each brings its own sampling error
            drawn = counts[:, rows] @ gap[rows] / np.maximum(counts[:, rows].sum(1), 1)
            draws += (drawn - gap[rows].mean()) / len(pairs)
    return _with_bounds(mean, mean + draws)


def ap_difference(pairs: Sequence[tuple[Floats, Floats, Bools]], seed: int = 0) -> dict[str, float]:
    """As `auroc_difference`, of average precision: drawn rows are counted as often as they were drawn."""
    counts = _drawn_rows(len(pairs[0][2]), AP_DRAWS, seed)
    draws, mean = np.zeros(AP_DRAWS), 0.0
    for first, second, wrong in pairs:
        mean += float(average_precision_score(wrong, first) - average_precision_score(wrong, second)) / len(pairs)
        draws += (weighted_ap(first, wrong, counts) - weighted_ap(second, wrong, counts)) / len(pairs)
    return _with_bounds(mean, draws)


def _drawn_rows(n: int, draws: int, seed: int) -> Floats:
    """How often each of n rows is in each draw of n rows, `[draws, n]`."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def weighted_ap(values: Floats, wrong: Bools, counts: Floats) -> Floats:
    """Average precision `[draws]` of a suspicion `[n]` where row i counts `counts[draw, i]` times.

    AP = sum over wrong rows of the precision at their value, ties included, divided by the number of wrong rows.
    """
    order = np.argsort(-values, kind="stable")
    ranked, is_wrong, weights = -values[order], wrong[order], counts[:, order]
    last = np.searchsorted(ranked, ranked[is_wrong], "right") - 1  # the last row of the same value
    found, seen = np.cumsum(weights * is_wrong, axis=1), np.cumsum(weights, axis=1)
    precision = found[:, last] / np.maximum(seen[:, last], 1)
    of_wrong = weights[:, is_wrong]
    return np.asarray((of_wrong * precision).sum(1) / np.maximum(of_wrong.sum(1), 1))


def _with_bounds(mean: float, draws: Floats) -> dict[str, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"mean": round(mean, 5), "low": round(float(low), 5), "high": round(float(high), 5)}
