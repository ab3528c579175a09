"""How sure: how many pairs are wrong, how likely each one is, and how many good ones score as high.

The scores of a set are taken as a mixture: good pairs, whose upper half is normal, and wrong pairs, which score like
the virtual plants of one kind or another. Location and width of the good pairs and the share of each kind are fitted
by maximum likelihood above a low quantile; what lies below tells nothing of wrong pairs, and good pairs are not
normal there. Everything here is model-based: wrong pairs of a kind that no plant resembles are taken for good ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .arrays import Bools, Floats

LEAST = 20
BINS = 120
FROM = 0.35  # quantile from which the fit looks at the scores
SMOOTHING = 0.15  # width of the plants' kernel, in their standard deviations
STEPS = 60
PLAIN, TRUSTED = 0.05, 0.7  # a tail so full of plants is plain; so much of it at least is believed
NOTHING = 0.02  # a smaller share of wrong pairs cannot be told from none
DRAWS = 40
CONFIDENCE = 0.9


@dataclass(frozen=True)
class Good:
    """Good pairs: normal above `start`, where they are a share `mass` of the whole set."""

    location: float
    width: float
    start: float
    mass: float

    def above(self, at: Floats) -> Floats:
        """Share of the whole set that is good and at least `at`, for `at` from `start` on."""
        from scipy.stats import norm

        inside = norm.sf((self.start - self.location) / self.width)
        return np.asarray(self.mass * norm.sf((at - self.location) / self.width) / inside)


@dataclass(frozen=True)
class Sure:
    """What the fit says.

    Attributes:
        shares: kind of plant -> share of the set that is wrong in that way; 0 throughout where less than `NOTHING`.
        interval: central 90 % of the summed share over bootstrap draws of the scores.
        good: good pairs as fitted, and as fitted to each draw.
        probability: `[n]` of being wrong, rising with the score; NaN where not scored.
        false_alarm: `[n]` share of good pairs that score at least as high; NaN where not scored.
    """

    shares: Mapping[str, float]
    interval: tuple[float, float]
    probability: Floats
    false_alarm: Floats
    good: tuple[Good, ...] = ()

    @property
    def share(self) -> float:
        """Share of wrong pairs of all kinds; NaN without a fit."""
        return float(sum(self.shares.values())) if self.shares else float("nan")

    def precision(self, scores: Floats, flagged: Bools) -> tuple[float, float, float]:
        """Share of the flagged that is wrong, with its central 90 %: what good pairs are expected above the cut."""
        if not flagged.any() or not self.good:
            return float("nan"), float("nan"), float("nan")
        cut, share = scores[flagged].min(), flagged.sum() / np.isfinite(scores).sum()
        drawn = [1 - float(good.above(np.maximum(cut, good.start))) / share for good in self.good]
        low, high = np.quantile(np.clip(drawn, 0, 1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        said = float(np.nanmean(self.probability[flagged]))
        return said, min(float(low), said), max(float(high), said)


@dataclass(frozen=True)
class _Bins:
    """Counts `[b]` of the scores above the fit's lower end, each kind's mass per bin `[kinds, b]`, the least share."""

    edges: Floats
    counts: Floats
    plants: Floats
    least: float = 0.0


def how_sure(scores: Floats, plants: Mapping[str, Floats], seed: int = 0) -> Sure:
    """Fits the mixture; O(n log n).

    Args:
        scores: `[n]`, higher is more suspicious, NaN where not scored.
        plants: kind -> scores `[q]` of pairs that are wrong by construction, the least like good ones first.
        seed: of the bootstrap.

    Returns:
        NaN throughout, and no shares, with fewer than 20 scores or plants.
    """
    known = np.isfinite(scores)
    values = scores[known].astype(np.float64)
    kinds = {kind: v[np.isfinite(v)].astype(np.float64) for kind, v in plants.items()}
    kinds = {kind: v for kind, v in kinds.items() if len(v) >= LEAST}
    nothing = np.full(len(scores), np.nan, dtype=np.float32)
    if len(values) < LEAST or not kinds:
        return Sure({}, (float("nan"), float("nan")), nothing, nothing)
    bins = _bins(values, list(kinds.values()))
    centres = _grid(values)
    wrong, good = _fit(bins, centres, len(values))
    drawn = _bootstrap(bins, centres, len(values), seed)
    low, high = np.quantile([w.sum() for w, _ in drawn], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    if wrong.sum() < NOTHING or low < NOTHING / 2:
        wrong, low = np.zeros(len(wrong)), 0.0
    probability, false_alarm = nothing.copy(), nothing.copy()
    probability[known] = _probability(values, list(kinds.values()), wrong, good)
    false_alarm[known] = _false_alarm(values, float(wrong.sum()), good)
    shares = dict(zip(kinds, wrong.tolist(), strict=True))
    return Sure(shares, (float(low), float(high)), probability, false_alarm, (good, *(g for _, g in drawn)))


def _bins(values: Floats, plants: list[Floats]) -> _Bins:
    top = max([values.max(), *(v.max() for v in plants)]) + 1e-3
    edges = np.linspace(np.quantile(values, FROM), top, BINS + 1)
    least = _tail_share(values, plants[0])  # random ones: good pairs do not reach where those are
    counts, masses = np.histogram(values, edges)[0].astype(float), np.stack([_mass(v, edges) for v in plants])
    return _Bins(edges, counts, masses, TRUSTED * least if least >= PLAIN else 0.0)


def _tail_share(values: Floats, plants: Floats) -> float:
    """Share of pairs like the plants that fills the set's tail over the whole upper half of the plants' scores.

    Where so many are wrong, a wide normal would swallow them: such a fit is not taken.
    """
    ranked, planted = np.sort(values), np.sort(plants)
    at = np.quantile(planted, np.linspace(0.5, 0.9, 9))
    above, expected = (1 - np.searchsorted(v, at) / len(v) for v in (ranked, planted))
    return float(max(((above - np.sqrt(above / len(ranked))) / np.maximum(expected, 1e-9)).min(), 0))


def _mass(plants: Floats, edges: Floats) -> Floats:
    """`[b]`: share of the plants in each bin, by a kernel estimate, so that empty bins are no proof."""
    from scipy.ndimage import gaussian_filter1d

    wide = np.linspace(min(plants.min(), edges[0]) - 2, max(plants.max(), edges[-1]) + 2, 1001)
    step = wide[1] - wide[0]
    smooth = gaussian_filter1d(np.histogram(plants, wide)[0].astype(float), max(SMOOTHING * plants.std() / step, 0.5))
    total = np.concatenate([[0], np.cumsum(smooth)]) / max(smooth.sum(), 1e-12)
    return np.diff(np.interp(edges, wide, total))


def _grid(values: Floats) -> Floats:
    """`[g, 2]` locations and widths of good pairs to try: with many wrong ones they lie left of the set's median.

    Good pairs were nowhere seen to spread further up than down, so that a wide upper half is a sign of wrong ones.
    """
    median = np.median(values)
    width = max(float(np.quantile(values, 0.75) - median), 1e-3) / 0.6745
    locations, widths = np.meshgrid(np.linspace(-2.4, 0.5, 30), np.linspace(0.2, 1.25, 30), indexing="ij")
    tried = np.stack([median + width * locations.ravel(), width * widths.ravel()], axis=1)
    ranked = np.sort(values)
    below = np.searchsorted(ranked, tried[:, 0])
    left = (tried[:, 0] - ranked[below // 2]) / 0.6745
    return tried[(tried[:, 1] <= np.maximum(left, tried[:, 1].min())) & (below >= 0.1 * len(values))]


def _fit(bins: _Bins, centres: Floats, n: int, counts: Floats | None = None) -> tuple[Floats, Good]:
    """(share of each kind `[kinds]` in the whole set, good pairs): the likeliest of the grid, shares by EM."""
    from scipy.stats import norm

    seen = bins.counts if counts is None else counts
    total = max(seen.sum(), 1.0)
    inside = np.maximum(bins.plants.sum(1), 1e-9)
    kinds = bins.plants / inside[:, None]
    good = np.diff(norm.cdf((bins.edges[None] - centres[:, :1]) / centres[:, 1:]), axis=1)
    good /= np.maximum(good.sum(1, keepdims=True), 1e-12)
    weight = np.full((len(centres), len(kinds)), 0.05)
    for _ in range(STEPS):
        density = (1 - weight.sum(1, keepdims=True)) * good + weight @ kinds + 1e-9
        weight *= (seen / density) @ kinds.T / total
    density = (1 - weight.sum(1, keepdims=True)) * good + weight @ kinds + 1e-9
    likelihood = (seen * np.log(density)).sum(1)
    enough = (weight / inside).sum(1) * (total / n) >= bins.least
    best = int(np.where(enough | ~enough.any(), likelihood, -np.inf).argmax())
    share = weight[best] * (total / n) / inside
    share *= min(1.0, 0.95 / max(float(share.sum()), 1e-9))
    location, width = centres[best]
    return share, Good(location, width, float(bins.edges[0]), float(1 - weight[best].sum()) * total / n)


def _bootstrap(bins: _Bins, centres: Floats, n: int, seed: int) -> list[tuple[Floats, Good]]:
    """The fit over draws of the scores (Poisson counts per bin)."""
    rng = np.random.default_rng((seed, 19))
    near = centres[:: max(len(centres) // 150, 1)]
    return [_fit(bins, near, n, rng.poisson(bins.counts).astype(float)) for _ in range(DRAWS)]


def _probability(values: Floats, plants: list[Floats], wrong: Floats, good: Good) -> Floats:
    """`[n]`: wrong pairs' part of the density at each score; below the fit's start, of what was seen there."""
    from sklearn.isotonic import isotonic_regression

    edges = np.linspace(values.min() - 1e-6, max([values.max(), *(v.max() for v in plants)]) + 1e-3, 2 * BINS + 1)
    bad = wrong @ np.stack([_mass(v, edges) for v in plants])
    seen = np.histogram(values, edges)[0] / len(values)
    tail = -np.diff(good.above(np.maximum(edges, good.start)))
    rest = np.where(edges[:-1] >= good.start, tail, np.maximum(seen - bad, 0))
    ratio = bad / np.maximum(bad + rest, 1e-12)
    rising = np.clip(isotonic_regression(ratio, sample_weight=seen + 1e-9), 0, 1)
    return np.asarray(np.interp(values, (edges[1:] + edges[:-1]) / 2, rising), dtype=np.float32)


def _false_alarm(values: Floats, share: float, good: Good) -> Floats:
    """`[n]`: share of good pairs that score at least as high.

    No less than what is left when as many rows as are wrong in all are taken for wrong ones from the top: should the
    good pairs' tail be heavier than normal, a clean set still has no more flags than the rate.
    """
    ranked = np.sort(values)
    above = 1 - np.searchsorted(ranked, values, side="left") / len(ranked)
    tail = good.above(np.maximum(values, good.start))
    modelled = np.where(values >= good.start, tail, np.maximum(above - share, tail)) / max(1 - share, 1e-9)
    return np.asarray(np.clip(np.maximum(modelled, (above - share) / max(1 - share, 1e-9)), 0, 1), dtype=np.float32)
