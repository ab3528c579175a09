"""The spot check: which few rows a person looks at, and what the verdicts say of the whole set. Pure numpy, scipy.

The rows are drawn without replacement from three strata: the flagged ones, the upper quarter of the others by score,
and the rest. Every interval is found by inverting an exact test (Wendell and Schmee, JASA 1996, for stratified finite
populations): a bound is the most extreme value over all populations `K` (wrong rows per stratum) under which a
sample at least as extreme as the one seen has probability (1 - confidence) / 2 or more. No normal approximation, no
model, correction for the finite population included; the price is that the intervals are a little wide.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Floats, Ints

SIZE = 60
UPPER = 0.25  # of the rows that are not flagged: they get half of what is drawn from these
STRATA = ("flagged", "upper", "rest")
VERDICTS = ("wrong", "right", "unsure", "")
COARSE, FINE = 65, 2001
IDENTITY_SPREAD = (2.0, 0.5)  # prior deviations of the shift and of the log slope of the recalibration


@dataclass(frozen=True)
class SpotPlan:
    """What is to be reviewed.

    Attributes:
        rows: int64 `[s]`, in the order of the review: shuffled, so that it tells nothing and may be broken off.
        stratum: int64 `[s]`, position in `STRATA`.
        sizes: rows of each stratum in the set.
    """

    rows: Ints
    stratum: Ints
    sizes: tuple[int, ...]

    @property
    def drawn(self) -> Ints:
        """int64 `[3]`: rows drawn from each stratum."""
        return np.bincount(self.stratum, minlength=len(STRATA))

    @property
    def weights(self) -> Floats:
        """float64 `[s]`: rows of the set that a drawn row stands for, 1 / inclusion probability."""
        return (np.array(self.sizes) / np.maximum(self.drawn, 1))[self.stratum]


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds; NaN where nothing was reviewed that could tell."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SpotEstimate:
    """What the verdicts say of the set.

    Attributes:
        precision: share of the flagged rows that are wrong.
        missed: share of the rows not flagged that are wrong.
        wrong: number of wrong rows in the set.
        recall: share of the wrong rows that are flagged; its value is NaN where no wrong row was seen.
        reviewed: rows with a verdict; unsure: those of them without a decision.
        confidence: of every interval by itself.
    """

    precision: Interval
    missed: Interval
    wrong: Interval
    recall: Interval
    reviewed: int
    unsure: int
    confidence: float


def plan_spot_check(flagged: Bools, scores: Floats, size: int = SIZE, seed: int = 0) -> SpotPlan:
    """Draws the rows to review: half flagged, half not; where one half has too few rows the other gets their share.

    Args:
        flagged: bool `[n]`.
        scores: `[n]`, higher is more suspicious. Rows with NaN that are not flagged belong to no stratum: they were
            not scored, and nothing is said of them.
        size: rows to draw; all rows where the set has fewer.
        seed: of the draw, which is made over the rows as they stand: hand them in canonical order.

    Raises:
        AuditError: a size below 2.
    """
    if size < 2:
        raise AuditError(f"the spot check has {size} rows; draw at least 2")
    others = np.flatnonzero(~flagged & np.isfinite(scores))
    ranked = others[np.argsort(-scores[others], kind="stable")]
    cut = int(np.ceil(UPPER * len(ranked)))
    strata = [np.flatnonzero(flagged), ranked[:cut], ranked[cut:]]
    sizes = [len(rows) for rows in strata]
    half = min(len(others), size - min(sizes[0], size // 2))
    upper = min(sizes[1], half - min(sizes[2], half // 2))
    take = [min(sizes[0], size - half), upper, half - upper]
    rng = np.random.default_rng((seed, 23))
    drawn = [rng.permutation(rows)[:count] for rows, count in zip(strata, take, strict=True)]
    order = rng.permutation(sum(take))
    stratum = np.repeat(np.arange(len(STRATA)), take)
    return SpotPlan(np.concatenate(drawn).astype(np.int64)[order], stratum[order], tuple(sizes))


def estimate(plan: SpotPlan, verdicts: Sequence[str], confidence: float = 0.9) -> SpotEstimate:
    """Weighted estimates with exact intervals.

    A row that nobody could decide counts as right for a lower bound and as wrong for an upper one, so that the
    intervals hold whatever it is. Rows without a verdict are left out: the order was shuffled, so those seen first
    are a sample too.

    Args:
        plan: what was drawn.
        verdicts: `[s]`, one of `VERDICTS` per row of the plan.
        confidence: of the two-sided intervals; each side errs with at most half of the rest.

    Raises:
        AuditError: verdicts of another number or kind.
    """
    wrong, unsure, right = _counted(plan, verdicts)
    strata, sizes = _Strata(plan.sizes, wrong + unsure + right), np.array(plan.sizes)
    flagged, others = strata.of(slice(0, 1)), strata.of(slice(1, None))
    alpha, high = (1 - confidence) / 2, wrong + unsure
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = wrong / (wrong + right)  # an undecided row tells nothing of the share
    found = np.where(sizes > 0, sizes * rates, 0.0)
    precision, missed = _total(flagged, wrong[:1], high[:1], alpha), _total(others, wrong[1:], high[1:], alpha)
    # The two parts of the set are independent samples: bounds at this level hold for both together.
    both = 1 - np.sqrt(1 - alpha)
    caught, lost = _total(flagged, wrong[:1], high[:1], both), _total(others, wrong[1:], high[1:], both)
    # For the other two bounds a test on all strata at once is sharper; here it would let a rate among the many rows
    # outside the flags make up for what was seen among the flags.
    total = (caught[0] + lost[0], _most(strata, high, alpha))
    recall = (_least_recall(strata, wrong, high, alpha), caught[1] / (caught[1] + lost[0]) if caught[1] else 1.0)
    return SpotEstimate(
        _interval(rates[0], precision, sizes[0]),
        _interval(found[1:].sum() / max(sizes[1:].sum(), 1), missed, sizes[1:].sum()),
        Interval(float(found.sum()), *total),
        Interval(_ratio(found), *recall),
        int(strata.seen.sum()),
        int(unsure.sum()),
        confidence,
    )


def _interval(share: float, rows: tuple[float, float], size: int) -> Interval:
    """A share of `size` rows from bounds on their number."""
    if not size:
        return Interval(float("nan"), float("nan"), float("nan"))
    return Interval(float(share), rows[0] / size, rows[1] / size)


def _ratio(found: Floats) -> float:
    return float(found[0] / found.sum()) if found.sum() > 0 else float("nan")


def _counted(plan: SpotPlan, verdicts: Sequence[str]) -> tuple[Ints, Ints, Ints]:
    """(wrong, unsure, right) per stratum, int64 `[3]`."""
    if len(verdicts) != len(plan.rows):
        raise AuditError(f"the plan has {len(plan.rows)} rows, but there are {len(verdicts)} verdicts; give one each")
    if unknown := set(verdicts) - set(VERDICTS):
        raise AuditError(f"verdict {min(unknown)!r} is not known; use wrong, right, unsure, or leave it empty")
    given = np.array(verdicts, dtype=object)
    wrong, right, unsure = (
        np.bincount(plan.stratum[given == word], minlength=len(STRATA)) for word in ("wrong", "right", "unsure")
    )
    return wrong, unsure, right


@dataclass(frozen=True)
class _Strata:
    """Rows in each stratum and rows seen of it."""

    sizes: tuple[int, ...]
    seen: Ints

    def of(self, which: slice) -> _Strata:
        return _Strata(self.sizes[which], self.seen[which])

    @property
    def weights(self) -> list[float]:
        return [size / max(int(seen), 1) for size, seen in zip(self.sizes, self.seen, strict=True)]

    @property
    def outcomes(self) -> list[Ints]:
        """Per stratum the numbers of wrong rows that a sample may show, broadcastable to all combinations."""
        counts = [np.arange(int(seen) + 1) for seen in self.seen]
        return list(np.ix_(*counts))


def _total(strata: _Strata, low: Ints, high: Ints, alpha: float) -> tuple[float, float]:
    """Bounds on the number of wrong rows; `low` and `high` are the wrong ones seen without and with the unsure."""
    return sum(strata.sizes) - _most(strata, strata.seen - low, alpha), _most(strata, high, alpha)


def _most(strata: _Strata, seen: Ints, alpha: float) -> float:
    """Upper bound on the rows of a kind of which `seen` were seen; samples are ordered by the weighted estimate."""
    estimated = sum(w * x for w, x in zip(strata.weights, strata.outcomes, strict=True))
    mine = sum(w * int(x) for w, x in zip(strata.weights, seen, strict=True))
    return _largest(strata, np.asarray(estimated <= mine + 1e-9), lambda *k: sum(k), alpha)


def _least_recall(strata: _Strata, low: Ints, high: Ints, alpha: float) -> float:
    """Lower bound on the share of wrong rows that are flagged (1 where no row is wrong).

    Samples are ordered by their estimated recall with half a wrong row added to each stratum that was not seen
    whole: without it all samples with no wrong row outside the flags would tie, however many were found within.
    Among the flagged rows it is the right ones that are counted, so that more of anything means less recall.
    """
    flagged, *others = strata.outcomes
    caught = _smooth_recall(strata, [strata.seen[0] - flagged, *others])
    mine = _smooth_recall(strata, [low[0], *high[1:]])

    def lost(right: Floats, *wrong: Floats) -> Floats:
        inside, outside = strata.sizes[0] - right, sum(wrong)
        return np.asarray(outside / np.maximum(inside + outside, 1))

    return 1 - _largest(strata, np.asarray(caught >= mine - 1e-12), lost, alpha)


def _smooth_recall(strata: _Strata, wrong: Sequence[Ints]) -> Floats:
    added = [0.5 * (1 - 1 / w) if w else 0.0 for w in strata.weights]  # none in a stratum that was seen whole
    inside, *outside = (w * (x + more) for w, x, more in zip(strata.weights, wrong, added, strict=True))
    return np.asarray(inside / np.maximum(inside + sum(outside), 1e-12))


def _largest(strata: _Strata, extreme: Bools, objective: Callable[..., Floats], alpha: float) -> float:
    """The largest objective over the populations under which the outcomes `extreme` have probability >= alpha.

    Args:
        strata: H of them.
        extreme: bool `[s_1 + 1, ..., s_H + 1]` over numbers of wrong rows seen; with an outcome it holds all lower
            ones, so that its probability falls with every K.
        objective: of the wrong rows K_1 ... K_H; rises with each of them.
        alpha: the level of the test.
    """
    last = int(np.argmax(strata.sizes))
    others = [h for h in range(len(strata.sizes)) if h != last]
    chance = np.moveaxis(extreme.astype(np.float64), last, -1)
    grids = []
    for at, h in enumerate(others):
        grid, table = _outcome_table(strata.sizes[h], int(strata.seen[h]), COARSE)
        chance = np.moveaxis(np.tensordot(table, chance, (1, at)), 0, at)
        grids.append(grid)
    grid, table = _outcome_table(strata.sizes[last], int(strata.seen[last]), FINE)
    chance = chance.reshape(-1, chance.shape[-1])
    low, high = np.zeros(len(chance), np.int64), np.full(len(chance), len(grid))
    while (high - low > 1).any():  # the last K at which the test does not reject, by halving
        middle = (low + high) // 2
        kept = (chance * table[np.minimum(middle, len(grid) - 1)]).sum(1) >= alpha
        low, high = np.where(kept, middle, low), np.where(kept, high, middle)
    possible = (chance * table[0]).sum(1) >= alpha
    # between two values of the grid the test was not asked: all up to the next one count as possible
    most = np.append(grid[1:] - 1, grid[-1])[low]
    tested = [k.reshape(-1) for k in np.meshgrid(*grids, indexing="ij")] if grids else []
    tested.insert(last, most)
    return float(np.max(np.asarray(objective(*tested), dtype=np.float64)[possible]))


@functools.lru_cache(maxsize=64)
def _outcome_table(size: int, seen: int, points: int) -> tuple[Ints, Floats]:
    """(numbers K of wrong rows, ascending `[g]`; hypergeometric P(x wrong among those seen | K) `[g, seen + 1]`)."""
    from scipy.stats import hypergeom

    grid = np.unique(np.linspace(0, size, min(points, size + 1)).round().astype(np.int64))
    if not seen:
        return grid, np.ones((len(grid), 1))
    return grid, hypergeom.pmf(np.arange(seen + 1)[None, :], size, grid[:, None], seen)


@dataclass(frozen=True)
class Refit:
    """A probability per sample after the verdicts.

    Attributes:
        probability: float32 `[n]`, NaN where there was none.
        share: expected share of wrong rows among those with a probability.
        threshold: the lowest new probability from which flags keep to the wanted share of false ones; infinite
            where none does.
        shift, slope: new log-odds = shift + slope * old log-odds.
    """

    probability: Floats
    share: float
    threshold: float
    shift: float
    slope: float


def refit(plan: SpotPlan, verdicts: Sequence[str], probability: Floats, false_flags: float = 0.2) -> Refit:
    """Recalibrates the model-based probabilities by the verdicts: `logit q = shift + slope * logit p`.

    The two numbers are the mode of a posterior whose prior is centered on no change (deviations `IDENTITY_SPREAD` of
    the shift and of the log slope), so that sixty verdicts cannot overfit and none change nothing. Verdicts count
    once each: how rows were drawn depends on the score alone, which the probability stands for.

    Args:
        plan: what was drawn.
        verdicts: `[s]`, see `estimate`; only wrong and right ones are used.
        probability: `[n]` of being wrong, by the model.
        false_flags: the share of flags that may be false.

    Raises:
        AuditError: verdicts of another number or kind, or no sample with a probability.
    """
    from scipy.optimize import minimize

    _counted(plan, verdicts)
    known = np.isfinite(probability)
    if not known.any():
        raise AuditError("no sample has a model-based probability to refit; the set was too small to estimate one")
    log_odds = _logit(np.where(known, probability, 0.5))
    given = np.array(verdicts, dtype=object)
    used = np.isin(given, ("wrong", "right")) & known[plan.rows]
    at, wrong = log_odds[plan.rows[used]], (given[used] == "wrong").astype(np.float64)

    def loss(x: Floats) -> float:
        z = x[0] + np.exp(x[1]) * at
        prior = 0.5 * ((x / np.array(IDENTITY_SPREAD)) ** 2).sum()
        return float((np.logaddexp(0, z) - wrong * z).sum() + prior)

    shift, slope = minimize(loss, np.zeros(2), method="BFGS").x
    slope = float(np.exp(slope))
    new = np.where(known, 1 / (1 + np.exp(-(shift + slope * log_odds))), np.nan).astype(np.float32)
    ranked = np.sort(new[known].astype(np.float64))[::-1]
    false = np.cumsum(1 - ranked) / np.arange(1, len(ranked) + 1)
    allowed = np.flatnonzero(false <= false_flags)
    threshold = float(ranked[allowed[-1]]) if len(allowed) else float("inf")
    return Refit(new, float(ranked.mean()), threshold, float(shift), slope)


def _logit(probability: Floats) -> Floats:
    inside = np.clip(np.asarray(probability, dtype=np.float64), 1e-4, 1 - 1e-4)
    return np.log(inside / (1 - inside))
