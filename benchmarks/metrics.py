"""Quality of a suspicion against known wrong rows, and intervals of the difference between two of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from sklearn.metrics import average_precision_score

from audit_plugin.arrays import Bools, Floats
from benchmarks.rivals.tuning import auroc

DRAWS = 2000


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


def difference(pairs: Sequence[tuple[Floats, Floats, Bools]], seed: int = 0) -> dict[str, float]:
    """Mean over seeds of AUROC(first) - AUROC(second), with a paired bootstrap over rows.

    Wrong and right rows are drawn separately; a draw's AUROC is taken as the mean of the drawn placements, which is
    exact to first order.

    Args:
        pairs: per seed (first `[n]`, second `[n]`, wrong `[n]`).
        seed: of the draws.

    Returns:
        mean; low and high, the central 95%; p, one-sided, of "the first is no worse than the second".
    """
    rng = np.random.default_rng(seed)
    draws, mean = np.zeros(DRAWS), 0.0
    for first, second, wrong in pairs:
        gap = placements(first, wrong) - placements(second, wrong)
        mean += float(gap[wrong].mean()) / len(pairs)
        for rows in (gap[wrong], gap[~wrong]):
            counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=DRAWS)
            # both kinds of placements estimate the same AUROC; each brings its own sampling error
            draws += (counts @ rows / len(rows) - rows.mean()) / len(pairs)
    low, high = np.quantile(mean + draws, [0.025, 0.975])
    worse = (1 + (mean + draws >= 0).sum()) / (1 + DRAWS)
    return {"mean": round(mean, 5), "low": round(float(low), 5), "high": round(float(high), 5), "p": float(worse)}


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p values."""
    out, highest = {}, 0.0
    ranked = sorted(p_values, key=lambda name: p_values[name])
    for rank, name in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - rank) * p_values[name]))
        out[name] = highest
    return out
