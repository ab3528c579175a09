"""How sure: how many pairs are wrong, how likely each one is, and how many good ones score as high.

The scores of a set are taken as a mixture: good pairs, which fall off like exp(-|x|^shape) on their upper side, and
wrong pairs, which score like the virtual plants of one kind or another. Many explanations are weighed by their
likelihood above a low quantile (what lies below tells nothing of wrong pairs): locations, widths and shapes of the
good pairs on a grid, each with the first kind of plants alone and with others, whose shares are fitted by EM. A further
kind has to pay for itself as in the Bayesian information criterion: plants that are nearly right score like the tail
of good pairs, which would else be taken for them. What is told is the mean over the explanations, intervals are their
spread. Everything here is model-based: wrong pairs of a kind that
no plant resembles are taken for good ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from audit_plugin.arrays import Bools, Floats

LEAST = 20
BINS = 120
FROM = 0.35  # quantile from which the fit looks at the scores
SMOOTHING = 0.15  # width of the plants' kernel, in their standard deviations
STEPS = 60
# Of good pairs' upper side (1 is exponential, 2 normal), with how likely they are before anything is seen: what clean
# development sets had.
SHAPES = {1.25: 1 / 7, 1.5: 2 / 7, 2.0: 3 / 7, 3.0: 1 / 7}
ENOUGH = 2000  # scores that the fit believes in: no model is truer than that
MOST = 0.95
NOTHING = 0.01  # where fewer wrong pairs than this share are certain, a set may be clean
NODES = 7
CONFIDENCE = 0.9


@dataclass(frozen=True)
class MixtureHypotheses:
    """What the scores may be made of, in g ways.

    Attributes:
        weight: `[g]`, summing to 1.
        shares: `[g, kinds]`, of the whole set.
        good: `[g, b + 1]`, share of the whole set that is good and scores at least as high as each edge.
        edges: `[b + 1]`, ascending, from the lower end of the fit.
    """

    weight: Floats
    shares: Floats
    good: Floats
    edges: Floats

    def middle(self, values: Floats) -> Floats:
        """`[b]`: the weighted median of `[g, b]` values."""
        order = np.argsort(values, axis=0)
        at = (np.cumsum(self.weight[order], axis=0) < 0.5).sum(0)
        return np.take_along_axis(values, order, axis=0)[at, np.arange(values.shape[1])]

    def quantiles(self, values: Floats) -> tuple[float, float]:
        """The central `CONFIDENCE` of `[g]` values."""
        order = np.argsort(values)
        at = np.searchsorted(np.cumsum(self.weight[order]), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        low, high = values[order][np.minimum(at, len(values) - 1)]
        return float(low), float(high)


@dataclass(frozen=True)
class Calibration:
    """What the fit says.

    Attributes:
        shares: kind of plant -> share of the set that is wrong in that way; empty without a fit.
        interval: central 90 % of the summed share.
        probability: `[n]` of being wrong, rising with the score; NaN where not scored.
        false_positive_rate: `[n]` share of good pairs that score at least as high; NaN where not scored.
        explanations: behind it, or None without a fit.
    """

    shares: Mapping[str, float]
    interval: tuple[float, float]
    probability: Floats
    false_positive_rate: Floats
    explanations: MixtureHypotheses | None = None

    @property
    def share(self) -> float:
        """Share of wrong pairs of all kinds; NaN without a fit."""
        return float(sum(self.shares.values())) if self.shares else float("nan")

    def precision(self, scores: Floats, flagged: Bools) -> tuple[float, float, float]:
        """Share of the flagged that is wrong, with its central 90 %: what good pairs are expected above the cut."""
        found = self.explanations
        if not flagged.any() or found is None:
            return float("nan"), float("nan"), float("nan")
        cut, share = scores[flagged].min(), flagged.sum() / np.isfinite(scores).sum()
        at = np.searchsorted(found.edges, cut, side="right") - 1  # no better than at the edge below
        low, high = found.quantiles(np.clip(1 - found.good[:, max(at, 0)] / share, 0, 1))
        said = float(np.nanmean(self.probability[flagged]))
        return said, min(low, said), max(high, said)


def calibrate(scores: Floats, plants: Mapping[str, Floats]) -> Calibration:
    """Fits the mixture; O(n log n).

    Args:
        scores: `[n]`, higher is more suspicious, NaN where not scored.
        plants: kind -> scores `[q]` of pairs that are wrong by construction, the least like good ones first.

    Returns:
        NaN throughout, and no shares, with fewer than 20 scores or plants.
    """
    known = np.isfinite(scores)
    values = scores[known].astype(np.float64)
    kinds = {kind: v[np.isfinite(v)].astype(np.float64) for kind, v in plants.items()}
    kinds = {kind: v for kind, v in kinds.items() if len(v) >= LEAST}
    nothing = np.full(len(scores), np.nan, dtype=np.float32)
    if len(values) < LEAST or not kinds:
        return Calibration({}, (float("nan"), float("nan")), nothing, nothing)
    found = _explain(values, list(kinds.values()))
    shares = found.weight @ found.shares
    interval = found.quantiles(found.shares.sum(1))
    probability, false_positive_rate = nothing.copy(), nothing.copy()
    probability[known] = _probability(values, list(kinds.values()), found)
    false_positive_rate[known] = _false_alarm(values, shares.sum() if interval[0] >= NOTHING else 0.0, found)
    return Calibration(
        dict(zip(kinds, shares.tolist(), strict=True)), interval, probability, false_positive_rate, found
    )


def _explain(values: Floats, plants: list[Floats]) -> MixtureHypotheses:
    """All explanations of the scores, those of no weight left out."""
    from scipy.stats import gennorm

    top = max([values.max(), *(v.max() for v in plants)]) + 1e-3
    edges = np.linspace(np.quantile(values, FROM), top, BINS + 1)
    seen, masses = np.histogram(values, edges)[0] / len(values), np.stack([_mass(v, edges) for v in plants])
    centers, n = _grid(values), min(len(values), ENOUGH)
    others = range(1, len(plants))
    choices = [[0, *some] for size in range(len(plants)) for some in combinations(others, size)]
    found: list[tuple[Floats, ...]] = []
    for shape, prior in SHAPES.items():
        tail = gennorm.sf((edges - centers[:, :1]) / centers[:, 1:], shape)
        tail /= np.maximum(tail[:, :1], 1e-12)
        for chosen in choices:
            shares = np.zeros((len(centers), len(plants)))
            likelihood, shares[:, chosen], spread = _fit(seen, -np.diff(tail, axis=1), masses[chosen])
            price = 0.5 * np.log(n) * (len(chosen) - 1)
            found.append((n * likelihood - price + np.log(prior), shares, spread / np.sqrt(n), tail))
    likelihood, shares, spread, tail = (np.concatenate(part) for part in zip(*found, strict=True))
    possible = shares.sum(1) <= MOST
    possible |= not possible.any()  # plants that score like the set itself: `_widened` takes the shares back to MOST
    weight = np.where(possible, np.exp(likelihood - likelihood.max(where=possible, initial=-np.inf)), 0)
    kept = weight > 1e-4 * weight.max()
    return _widened(weight[kept], shares[kept], spread[kept], tail[kept], edges, (seen.sum(), masses.sum(1)))


def _fit(seen: Floats, good: Floats, plants: Floats) -> tuple[Floats, Floats, Floats]:
    """(mean log likelihood `[g]`, share of each kind `[g, kinds]`, deviation `[g]` of their sum for one score), by EM.

    Args:
        seen: `[b]`, share of the set in each bin.
        good: `[g, b]`, good pairs' mass in each bin, of those above the start.
        plants: `[kinds, b]`, mass of each kind in each bin; what is missing to 1 lies below the start.
    """
    inside = np.maximum(plants.sum(1), 1e-9)
    kinds, total = plants / inside[:, None], max(seen.sum(), 1e-12)
    weight = np.full((len(good), len(plants)), 0.05)
    for _ in range(STEPS if len(plants) else 0):
        density = (1 - weight.sum(1, keepdims=True)) * good + weight @ kinds + 1e-9
        weight *= (seen / density) @ kinds.T / total
    density = (1 - weight.sum(1, keepdims=True)) * good + weight @ kinds + 1e-9
    if not len(plants):
        return np.log(density) @ seen, weight, np.zeros(len(good))
    portion = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
    information = np.square((portion @ kinds - good) / density) @ seen  # Fisher's, on the sum of the weights
    spread = total * (portion @ (1 / inside)) / np.sqrt(np.maximum(information, 1e-12))
    return np.log(density) @ seen, weight * total / inside, spread


def _widened(
    weight: Floats, shares: Floats, spread: Floats, tail: Floats, edges: Floats, seen: tuple[float, Floats]
) -> MixtureHypotheses:
    """Each explanation once for every one of `NODES` equally likely sizes of its wrong part."""
    from scipy.stats import norm

    sums = shares.sum(1)
    factors = 1 + norm.ppf((np.arange(NODES) + 0.5) / NODES)[:, None] * spread / np.maximum(sums, 1e-9)
    shares = np.clip(factors * (sums > 0), 0, MOST / np.maximum(sums, 1e-9))[:, :, None] * shares
    above, inside = seen
    good = np.maximum(above - shares @ inside, 0)[:, :, None] * tail
    weight = np.tile(weight, NODES) / (NODES * weight.sum())
    return MixtureHypotheses(weight, shares.reshape(len(weight), -1), good.reshape(len(weight), -1), edges)


def _mass(plants: Floats, edges: Floats) -> Floats:
    """`[b]`: share of the plants in each bin, by a kernel estimate, so that empty bins are no proof."""
    from scipy.ndimage import gaussian_filter1d

    wide = np.linspace(min(plants.min(), edges[0]) - 2, max(plants.max(), edges[-1]) + 2, 1001)
    step = wide[1] - wide[0]
    smooth = gaussian_filter1d(np.histogram(plants, wide)[0].astype(float), max(SMOOTHING * plants.std() / step, 0.5))
    total = np.concatenate([[0], np.cumsum(smooth)]) / max(smooth.sum(), 1e-12)
    return np.diff(np.interp(edges, wide, total))


def _grid(values: Floats) -> Floats:
    """`[g, 2]` locations and widths of good pairs to try: with many wrong ones they lie left of the set's median."""
    median = np.median(values)
    width = max(float(np.quantile(values, 0.75) - median), 1e-3) / 0.6745
    locations, widths = np.meshgrid(np.linspace(-2.4, 0.5, 24), np.geomspace(0.15, 2, 28), indexing="ij")
    tried = np.stack([median + width * locations.ravel(), width * widths.ravel()], axis=1)
    return tried[np.searchsorted(np.sort(values), tried[:, 0]) >= 0.1 * len(values)]


def _probability(values: Floats, plants: list[Floats], found: MixtureHypotheses) -> Floats:
    """`[n]`: wrong pairs' part of the density at each score; below the fit's start, of what was seen there."""
    from sklearn.isotonic import isotonic_regression

    low = np.linspace(values.min() - 1e-6, found.edges[0], BINS + 1)
    edges = np.concatenate([low[:-1], found.edges])
    bad = (found.weight @ found.shares) @ np.stack([_mass(v, edges) for v in plants])
    seen = np.histogram(values, edges)[0] / len(values)
    good = np.concatenate([np.maximum(seen - bad, 0)[:BINS], -np.diff(found.weight @ found.good)])
    ratio = bad / np.maximum(bad + good, 1e-12)
    rising = np.clip(isotonic_regression(ratio, sample_weight=seen + 1e-9), 0, 1)
    return np.asarray(np.interp(values, (edges[1:] + edges[:-1]) / 2, rising), dtype=np.float32)


def _false_alarm(values: Floats, share: float, found: MixtureHypotheses) -> Floats:
    """`[n]`: share of good pairs that score at least as high.

    No less than what is left when a `share` of the set (none, if it may be clean) is taken for wrong ones from the top:
    should the good pairs' tail be heavier than any that was tried, a clean set still has no more flags than the rate.
    """
    ranked = np.sort(values)
    above = 1 - np.searchsorted(ranked, values, side="left") / len(ranked)
    good = found.middle(found.good / (1 - found.shares.sum(1, keepdims=True)))
    left = (above - share) / max(1 - share, 1e-9)
    modeled = np.where(values >= found.edges[0], np.interp(values, found.edges, good), np.maximum(left, good[0]))
    return np.asarray(np.clip(np.maximum(modeled, left), 0, 1), dtype=np.float32)
