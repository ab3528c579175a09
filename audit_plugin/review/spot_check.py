"""Spot checks: the rows that a person reviews, and what the verdicts say about the accuracy of the flags.

Rows are drawn without replacement from three strata: the flagged rows, the upper quarter of the others by score, and
the rest. Of the N_h rows of stratum h, K_h are wrong; among n_h reviewed ones, x_h ~ Hypergeometric(N_h, K_h, n_h) are.

Intervals invert an exact test (Wendell and Schmee, JASA 1996): a bound is the most extreme value over all populations
K = (K_1, ..., K_H) under which outcomes at least as extreme as the observed x have probability (1 - confidence) / 2 or
more. They need neither a model nor a normal approximation, and hold for small strata; they are slightly too wide.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Floats, Ints
from audit_plugin.scoring.wrong_pairs import Interval

SIZE = 60
UPPER = 0.25  # share of the unflagged rows in the upper stratum, from which half of the unflagged sample is drawn
STRATA = ("flagged", "upper", "rest")
VERDICTS = ("wrong", "right", "unsure", "")
COARSE, FINE = 65, 2001  # values of K_h that are tested, in the smaller strata and in the largest one


@dataclass(frozen=True)
class SpotCheckPlan:
    """The rows to review.

    Attributes:
        rows: int64 `[s]`, in random order, so that a review can stop at any row.
        stratum: int64 `[s]`, index into `STRATA`.
        sizes: number of rows of each stratum in the set, N_h.
    """

    rows: Ints
    stratum: Ints
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class SpotEstimate:
    """Accuracy of the flags, estimated from the verdicts.

    Attributes:
        precision: share of the flagged rows that are wrong.
        missed: share of the unflagged rows that are wrong.
        wrong: number of wrong rows in the set.
        recall: share of the wrong rows that are flagged; its value is NaN if no wrong row was seen.
        reviewed: number of rows with a verdict; unsure: those of them without a decision.
        confidence: of each interval.
        flagged: number of rows that were flagged when the check was drawn, of which `precision` is.
        judged: number of rows that it was drawn from, of which `wrong` is.
    """

    precision: Interval
    missed: Interval
    wrong: Interval
    recall: Interval
    reviewed: int
    unsure: int
    confidence: float
    flagged: int
    judged: int


def plan_spot_check(flagged: Bools, scores: Floats, size: int = SIZE, seed: int = 0) -> SpotCheckPlan:
    """Draws the rows to review: half flagged, half not; if one half has too few rows, the other is larger.

    Args:
        flagged: bool `[n]`.
        scores: `[n]`, higher is more suspicious. Unflagged rows with NaN were not scored and belong to no stratum.
        size: number of rows to draw; all rows if the set has fewer.
        seed: of the draw, which depends on the order of the rows: pass them in canonical order.

    Raises:
        AuditError: a size below 2.
    """
    if size < 2:
        raise AuditError(f"the spot check has {size} rows; draw at least 2")
    unflagged = np.flatnonzero(~flagged & np.isfinite(scores))
    ranked = unflagged[np.argsort(-scores[unflagged], kind="stable")]
    cut = int(np.ceil(UPPER * len(ranked)))
    strata = [np.flatnonzero(flagged), ranked[:cut], ranked[cut:]]
    sizes = tuple(len(rows) for rows in strata)
    from_unflagged = min(len(unflagged), size - min(sizes[0], size // 2))
    from_upper = min(sizes[1], from_unflagged - min(sizes[2], from_unflagged // 2))
    counts = [min(sizes[0], size - from_unflagged), from_upper, from_unflagged - from_upper]
    rng = np.random.default_rng((seed, 23))
    drawn = [rng.permutation(rows)[:count] for rows, count in zip(strata, counts, strict=True)]
    order = rng.permutation(sum(counts))
    stratum = np.repeat(np.arange(len(STRATA)), counts)
    return SpotCheckPlan(np.concatenate(drawn).astype(np.int64)[order], stratum[order], sizes)


def estimate(plan: SpotCheckPlan, verdicts: Sequence[str], confidence: float = 0.9) -> SpotEstimate:
    """Stratified estimates with exact intervals.

    An unsure row counts as right for lower bounds and as wrong for upper bounds, so that the intervals hold either way.
    Rows without a verdict are left out: in random order, the rows reviewed so far are a random sample as well.

    Args:
        plan: the rows drawn.
        verdicts: `[s]`, one of `VERDICTS` per row of the plan.
        confidence: of the two-sided intervals; each side errs with probability (1 - confidence) / 2 at most.

    Raises:
        AuditError: another number of verdicts than rows, or an unknown verdict.
    """
    wrong, unsure, right = _verdict_counts(plan, verdicts)
    sample = _Sample(np.array(plan.sizes), wrong + unsure + right, wrong, wrong + unsure)
    flagged, unflagged = sample.strata(slice(0, 1)), sample.strata(slice(1, None))
    # Point estimates: K_h = N_h x_h / n_h, where unsure rows carry no information.
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = wrong / (wrong + right)
    expected = np.where(sample.sizes > 0, sample.sizes * rates, 0.0)
    recall = float(expected[0] / expected.sum()) if expected.sum() > 0 else float("nan")
    unflagged_rate = expected[1:].sum() / max(sample.sizes[1:].sum(), 1)

    alpha = (1 - confidence) / 2
    # Flagged and unflagged rows are independent samples: two bounds, each with error 1 - sqrt(1 - alpha), hold together
    # with error alpha. For the lower total and the upper recall this is sharper than one test on all strata, in which
    # the rate among the many unflagged rows could compensate for what was seen among the flagged ones.
    joint = 1 - np.sqrt(1 - alpha)
    flagged_low, flagged_high = _wrong_bounds(flagged, joint)
    unflagged_low, _ = _wrong_bounds(unflagged, joint)
    most_recall = flagged_high / (flagged_high + unflagged_low) if flagged_high else 1.0
    return SpotEstimate(
        precision=_share(rates[0], flagged, alpha),
        missed=_share(unflagged_rate, unflagged, alpha),
        wrong=Interval(float(expected.sum()), flagged_low + unflagged_low, _upper_bound(sample, sample.high, alpha)),
        recall=Interval(recall, _least_recall(sample, alpha), most_recall),
        reviewed=int(sample.seen.sum()),
        unsure=int(unsure.sum()),
        confidence=confidence,
        flagged=plan.sizes[0],
        judged=sum(plan.sizes),
    )


def _verdict_counts(plan: SpotCheckPlan, verdicts: Sequence[str]) -> tuple[Ints, Ints, Ints]:
    """(wrong, unsure, right) per stratum, int64 `[3]`."""
    if len(verdicts) != len(plan.rows):
        raise AuditError(f"the plan has {len(plan.rows)} rows, but there are {len(verdicts)} verdicts; give one each")
    if unknown := set(verdicts) - set(VERDICTS):
        raise AuditError(f"verdict {min(unknown)!r} is unknown; use wrong, right, unsure, or leave it empty")
    words = np.array(verdicts, dtype=object)

    def count(word: str) -> Ints:
        return np.bincount(plan.stratum[words == word], minlength=len(STRATA))

    return count("wrong"), count("unsure"), count("right")


@dataclass(frozen=True)
class _Sample:
    """What was seen of H strata; int64 `[H]` each.

    Attributes:
        sizes: rows in the set, N_h.
        seen: reviewed rows, n_h.
        low, high: wrong rows among them, x_h, with unsure ones taken as right and as wrong.
    """

    sizes: Ints
    seen: Ints
    low: Ints
    high: Ints

    def strata(self, chosen: slice) -> _Sample:
        return _Sample(self.sizes[chosen], self.seen[chosen], self.low[chosen], self.high[chosen])

    @property
    def weights(self) -> Floats:
        """`[H]`: rows of the set per reviewed row, N_h / n_h."""
        return np.asarray(self.sizes / np.maximum(self.seen, 1))

    @property
    def outcomes(self) -> list[Ints]:
        """Per stratum, the possible x_h from 0 to n_h, broadcastable to all outcomes `[n_1 + 1, ..., n_H + 1]`."""
        return list(np.ix_(*(np.arange(seen + 1) for seen in self.seen)))


def _share(value: float, sample: _Sample, alpha: float) -> Interval:
    """A share of the rows in the strata, with bounds."""
    size = sample.sizes.sum()
    if not size:
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = _wrong_bounds(sample, alpha)
    return Interval(float(value), low / size, high / size)


def _wrong_bounds(sample: _Sample, alpha: float) -> tuple[float, float]:
    """Bounds on the number of wrong rows; the lower one comes from the upper bound on the right rows."""
    most_right = _upper_bound(sample, sample.seen - sample.low, alpha)
    return float(sample.sizes.sum() - most_right), _upper_bound(sample, sample.high, alpha)


def _upper_bound(sample: _Sample, observed: Ints, alpha: float) -> float:
    """Upper bound on the rows of a kind of which `observed` `[H]` were seen.

    Outcomes are ordered by the estimated total, sum_h N_h / n_h x_h.
    """
    totals = sum(weight * x for weight, x in zip(sample.weights, sample.outcomes, strict=True))
    extreme = np.asarray(totals <= sample.weights @ observed + 1e-9)
    return _largest(sample, extreme, lambda *wrong: np.asarray(sum(wrong)), alpha)


def _least_recall(sample: _Sample, alpha: float) -> float:
    """Lower bound on the share of wrong rows that are flagged (1 if no row is wrong).

    Outcomes are ordered by their estimated recall. Among the flagged rows the right ones are counted, so that recall
    falls with every count, as `_largest` requires.
    """
    flagged, *unflagged = sample.outcomes
    recalls = _smoothed_recall(sample, [sample.seen[0] - flagged, *unflagged])
    observed = _smoothed_recall(sample, [sample.low[0], *sample.high[1:]])

    def miss_rate(right_flagged: Ints, *wrong_unflagged: Ints) -> Floats:
        caught, missed = sample.sizes[0] - right_flagged, sum(wrong_unflagged)
        return np.asarray(missed / np.maximum(caught + missed, 1))

    return 1 - _largest(sample, np.asarray(recalls >= observed - 1e-12), miss_rate, alpha)


def _smoothed_recall(sample: _Sample, wrong: Sequence[Ints]) -> Floats:
    """Estimated recall with up to half a wrong row added per stratum, none in a stratum that was seen completely.

    Without the addition, all outcomes with no wrong row outside the flags would tie.
    """
    totals = []
    for weight, x in zip(sample.weights, wrong, strict=True):
        added = 0.5 * (1 - 1 / weight) if weight else 0.0
        totals.append(weight * (x + added))
    flagged, *unflagged = totals
    return np.asarray(flagged / np.maximum(flagged + sum(unflagged), 1e-12))


def _largest(sample: _Sample, extreme: Bools, objective: Callable[..., Floats], alpha: float) -> float:
    """The largest objective over all populations K under which the outcomes `extreme` have probability >= alpha.

    Args:
        sample: of H strata.
        extreme: bool `[n_1 + 1, ..., n_H + 1]` over the outcomes x; with an outcome it contains all lower ones, so that
            its probability falls with every K_h.
        objective: function of K_1, ..., K_H that rises with each of them.
        alpha: level of the test.
    """
    last = int(np.argmax(sample.sizes))
    others = [h for h in range(len(sample.sizes)) if h != last]
    # P(extreme) = sum_x extreme[x] prod_h P(x_h | K_h): sum over the outcomes of one stratum after the other, on a
    # coarse grid of K_h, up to the largest stratum.
    probability = np.moveaxis(extreme.astype(np.float64), last, -1)
    grids = []
    for axis, h in enumerate(others):
        grid, pmf = _outcome_table(int(sample.sizes[h]), int(sample.seen[h]), COARSE)
        probability = np.moveaxis(np.tensordot(pmf, probability, (1, axis)), 0, axis)
        grids.append(grid)
    probability = probability.reshape(-1, probability.shape[-1])  # [combinations of K_h, n_last + 1]
    # In the largest stratum: the largest K on a fine grid that the test does not reject, by bisection.
    grid, pmf = _outcome_table(int(sample.sizes[last]), int(sample.seen[last]), FINE)
    low, high = np.zeros(len(probability), np.int64), np.full(len(probability), len(grid))
    while (high - low > 1).any():
        middle = (low + high) // 2
        accepted = (probability * pmf[middle]).sum(1) >= alpha
        low, high = np.where(accepted, middle, low), np.where(accepted, high, middle)
    possible = (probability * pmf[0]).sum(1) >= alpha
    # Values between two grid points were not tested: all up to the next grid point count as possible.
    largest = np.append(grid[1:] - 1, grid[-1])[low]
    population = [k.reshape(-1) for k in np.meshgrid(*grids, indexing="ij")] if grids else []
    population.insert(last, largest)
    return float(np.max(np.asarray(objective(*population), dtype=np.float64)[possible]))


@functools.lru_cache(maxsize=64)
def _outcome_table(size: int, seen: int, points: int) -> tuple[Ints, Floats]:
    """(values of K, ascending `[g]`; hypergeometric probabilities P(x | K) of x wrong rows `[g, seen + 1]`)."""
    from scipy.stats import hypergeom

    grid = np.unique(np.linspace(0, size, min(points, size + 1)).round().astype(np.int64))
    if not seen:
        return grid, np.ones((len(grid), 1))
    return grid, hypergeom.pmf(np.arange(seen + 1)[None, :], size, grid[:, None], seen)
