"""Calibration: how many pairs are wrong, how likely each one is, and how many good ones score as high.

The scores s of a set are taken as a mixture of good pairs and of wrong pairs, which score like the probe pairs of one
kind k or another (`probe_pairs`):

    density(s) = (1 - sum_k share_k) good(s) + sum_k share_k probe_k(s)

Only scores from a start on, a low quantile, are fitted: below it nearly all pairs are good, and of any shape. From the
start on good(s) is a generalized normal distribution, which falls off like exp(-|(s - location) / width|^shape). With
`above` the share of the set from the start on and `inside_k` that of the probes of kind k, the masses of the bins b are

    density_b = (1 - sum_k w_k) good_b + sum_k w_k probe_kb,      share_k = w_k above / inside_k

A *hypothesis* is one location, width and shape, and one choice of kinds; its w_k are fitted by EM. Its weight is

    weight ∝ prior(shape) * exp(n sum_b observed_b log density_b) * n^(-(kinds - 1) / 2),    n = min(scores, 2000)

with observed_b the share of the set in bin b and a flat prior on locations and widths. The last factor is the price of
a further kind by the Bayesian information criterion: near misses score like the tail of good pairs, which would else be
taken for them. The estimate is the mean over the hypotheses, its interval their spread. All of it is model-based: wrong
pairs unlike any probe count as good ones, so that only lower ends are reported (`wrong_pairs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from audit_plugin.arrays import Floats

# Chosen on the development sets, see docs/detection.md.
MIN_SCORES = 20  # fewer scores, or probes of a kind, are not fitted
BINS = 120
START_QUANTILE = 0.35  # from which the fit looks at the scores
KERNEL_WIDTH = 0.15  # of the probes' density, in their standard deviations
EM_STEPS = 60
# Shape of good pairs' upper side (1 is exponential, 2 normal) -> prior probability: how often clean development sets
# had it.
SHAPE_PRIORS = {1.25: 1 / 7, 1.5: 2 / 7, 2.0: 3 / 7, 3.0: 1 / 7}
# Good pairs' locations and widths, in robust deviations of the upper half of the set: with many wrong pairs the good
# ones lie left of the set's median.
LOCATIONS = np.linspace(-2.4, 0.5, 24)
WIDTHS = np.geomspace(0.15, 2, 28)
MIN_SHARE_BELOW_LOCATION = 0.1  # of the scores; good pairs do not lie left of them
EFFECTIVE_SCORES = 2000  # that the likelihood counts at most: no model is truer than that, so intervals stay honest
MIN_RELATIVE_WEIGHT = 1e-4  # hypotheses of less weight than this times the largest are dropped
MAX_WRONG_SHARE = 0.95
CLEAN_BELOW = 0.01  # where the interval of the wrong share begins below this, the set may be clean
# Probability with which a false-positive rate is kept, under the hypotheses; benchmarks/rate_certainty.py.
RATE_CERTAINTY = 0.85
NODES = 7  # values of the wrong share that stand for its distribution under one hypothesis
CONFIDENCE = 0.9


@dataclass(frozen=True)
class MixtureHypotheses:
    """What the scores may be made of: g hypotheses over K kinds of probes and b bins.

    Attributes:
        weights: `[g]`, summing to 1.
        shares: `[g, K]`, share of the whole set that is wrong like each kind.
        good_above: `[g, b + 1]`, share of the whole set that is good and scores at least as high as each edge.
        edges: `[b + 1]` of the bins, ascending, from the start of the fit.
    """

    weights: Floats
    shares: Floats
    good_above: Floats
    edges: Floats

    def quantile(self, values: Floats, share: float) -> Floats:
        """`[c]`: what `[g, c]` values do not exceed with this probability, column by column; 0.5: the median."""
        order = np.argsort(values, axis=0)
        position = (np.cumsum(self.weights[order], axis=0) < share).sum(0)
        position = np.minimum(position, len(values) - 1)
        return np.take_along_axis(values, order, axis=0)[position, np.arange(values.shape[1])]

    def interval(self, values: Floats) -> tuple[float, float]:
        """The central `CONFIDENCE` of `[g]` values."""
        order = np.argsort(values)
        tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
        positions = np.searchsorted(np.cumsum(self.weights[order]), tails)
        low, high = values[order][np.minimum(positions, len(values) - 1)]
        return float(low), float(high)


@dataclass(frozen=True)
class Calibration:
    """How scores translate into probabilities and error rates.

    Attributes:
        shares: kind of probe -> share of the set that is wrong in that way; empty without a fit.
        interval: central 90% of the summed share; NaN without a fit.
        probability: float32 `[n]` of being wrong, rising with the score; NaN where not scored.
        false_positive_rate: float32 `[n]`, share of good pairs that score at least as high, on the safe side
            (`RATE_CERTAINTY`); NaN where not scored.
        hypotheses: behind it, or None without a fit.
    """

    shares: Mapping[str, float]
    interval: tuple[float, float]
    probability: Floats
    false_positive_rate: Floats
    hypotheses: MixtureHypotheses | None = None

    @property
    def share(self) -> float:
        """Share of wrong pairs of all kinds; NaN without a fit."""
        return float(sum(self.shares.values())) if self.shares else float("nan")


def calibrate(scores: Floats, probe_scores: Mapping[str, Floats]) -> Calibration:
    """Fits the mixture to the scores of a set; O(n log n).

    NaN throughout, and no shares, with fewer than 20 scores or no kind with 20 probes.

    Args:
        scores: `[n]`, higher is more suspicious, NaN where not scored.
        probe_scores: kind -> scores `[q]` of pairs that are wrong by construction, the least like good ones first.
    """
    if scores.ndim != 1:
        raise ValueError(f"scores must be one-dimensional, got {scores.shape}")
    is_scored = np.isfinite(scores)
    values = scores[is_scored].astype(np.float64)
    probes = {}
    for kind, kind_scores in probe_scores.items():
        finite = kind_scores[np.isfinite(kind_scores)].astype(np.float64)
        if len(finite) >= MIN_SCORES:
            probes[kind] = finite

    probability = np.full(len(scores), np.nan, dtype=np.float32)
    false_positive_rate = probability.copy()
    if len(values) < MIN_SCORES or not probes:
        return Calibration({}, (float("nan"), float("nan")), probability, false_positive_rate)

    hypotheses = _weigh_hypotheses(values, list(probes.values()))
    shares = hypotheses.weights @ hypotheses.shares  # [K]
    by_kind = dict(zip(probes, shares.tolist(), strict=True))
    interval = hypotheses.interval(hypotheses.shares.sum(1))
    wrong_share_or_zero = float(shares.sum()) if interval[0] >= CLEAN_BELOW else 0.0
    probability[is_scored] = _wrong_probability(values, list(probes.values()), hypotheses)
    false_positive_rate[is_scored] = _false_positive_rate(values, wrong_share_or_zero, hypotheses)
    return Calibration(by_kind, interval, probability, false_positive_rate, hypotheses)


def _weigh_hypotheses(values: Floats, probes: list[Floats]) -> MixtureHypotheses:
    """All hypotheses on the scores `[n]`, those of next to no weight left out."""
    from scipy.stats import gennorm

    highest = max([values.max(), *(kind.max() for kind in probes)]) + 1e-3
    edges = np.linspace(np.quantile(values, START_QUANTILE), highest, BINS + 1)
    observed = np.histogram(values, edges)[0] / len(values)  # [b], summing to `above`
    probe_mass = np.stack([_smoothed_mass(kind, edges) for kind in probes])  # [K, b], summing to `inside`
    location, width = _location_grid(values)  # [l, 1] each
    n = min(len(values), EFFECTIVE_SCORES)

    # The first kind, the least like good pairs, is part of every hypothesis; any of the others may be.
    further = range(1, len(probes))
    choices = [[0, *kinds] for size in range(len(probes)) for kinds in combinations(further, size)]
    log_weights, all_shares, all_deviations, all_tails = [], [], [], []
    for shape, prior in SHAPE_PRIORS.items():
        tail = gennorm.sf((edges - location) / width, shape)  # [l, b + 1]
        tail /= np.maximum(tail[:, :1], 1e-12)  # of the good pairs above the start: share beyond each edge
        for kinds in choices:
            log_likelihood, fitted, deviation = _fit_shares(observed, -np.diff(tail, axis=1), probe_mass[kinds])
            shares = np.zeros((len(location), len(probes)))
            shares[:, kinds] = fitted
            price = 0.5 * np.log(n) * (len(kinds) - 1)
            log_weights.append(n * log_likelihood - price + np.log(prior))
            all_shares.append(shares)
            all_deviations.append(deviation / np.sqrt(n))
            all_tails.append(tail)

    log_weight, shares = np.concatenate(log_weights), np.concatenate(all_shares)
    # Probes that score like the set itself may leave nothing possible; `_spread_shares` then takes shares back.
    possible = shares.sum(1) <= MAX_WRONG_SHARE
    possible |= not possible.any()
    weight = np.where(possible, np.exp(log_weight - log_weight.max(where=possible, initial=-np.inf)), 0)
    likely = weight > MIN_RELATIVE_WEIGHT * weight.max()
    weight, shares = weight[likely], shares[likely]
    deviation, tail = np.concatenate(all_deviations)[likely], np.concatenate(all_tails)[likely]

    spread = _spread_shares(shares, deviation)  # [NODES, g, K]: each hypothesis NODES times
    good_share = np.maximum(observed.sum() - spread @ probe_mass.sum(1), 0)  # [NODES, g], from the start on
    good_above = good_share[:, :, None] * tail
    weights = np.tile(weight, NODES) / (NODES * weight.sum())
    return MixtureHypotheses(weights, spread.reshape(len(weights), -1), good_above.reshape(len(weights), -1), edges)


def _fit_shares(observed: Floats, good: Floats, probe_mass: Floats) -> tuple[Floats, Floats, Floats]:
    """Maximum-likelihood shares of K kinds by EM, under each of l distributions of the good pairs.

    Args:
        observed: `[b]`, share of the set in each bin.
        good: `[l, b]`, mass of the good pairs in each bin, of those above the start.
        probe_mass: `[K, b]`, mass of each kind in each bin; what is missing to 1 lies below the start.

    Returns:
        (sum_b observed_b log density_b `[l]`, shares of the whole set `[l, K]`, the sum's standard error times sqrt(n)
        `[l]`).
    """
    above = max(observed.sum(), 1e-12)
    inside = np.maximum(probe_mass.sum(1), 1e-9)  # [K]
    probe = probe_mass / inside[:, None]  # [K, b], rows sum to 1

    def density(w: Floats) -> Floats:
        """`[l, b]`: (1 - sum_k w_k) good_b + sum_k w_k probe_kb."""
        return (1 - w.sum(1, keepdims=True)) * good + w @ probe + 1e-9

    w = np.full((len(good), len(probe)), 0.05)  # of what lies above the start
    for _ in range(EM_STEPS):
        # w_k <- mean over the scores of their probability to be of kind k, w_k probe_kb / density_b
        w *= (observed / density(w)) @ probe.T / above
    fitted = density(w)

    # Fisher information on the sum of w, its kinds in fixed proportion: mean of (d log density / d sum)^2
    proportion = w / np.maximum(w.sum(1, keepdims=True), 1e-12)  # [l, K]
    information = np.square((proportion @ probe - good) / fitted) @ observed
    to_share = above * (proportion @ (1 / inside))  # share = w above / inside
    deviation = to_share / np.sqrt(np.maximum(information, 1e-12))
    return np.log(fitted) @ observed, w * above / inside, deviation


def _spread_shares(shares: Floats, deviation: Floats) -> Floats:
    """`[NODES, g, K]`: the shares `[g, K]`, scaled to equally likely values of their sum; its deviation is `[g]`."""
    from scipy.stats import norm

    total = shares.sum(1)
    normal = norm.ppf((np.arange(NODES) + 0.5) / NODES)  # midpoints of NODES equal parts of the distribution
    factor = 1 + normal[:, None] * deviation / np.maximum(total, 1e-9)  # [NODES, g]
    factor = np.clip(factor * (total > 0), 0, MAX_WRONG_SHARE / np.maximum(total, 1e-9))
    return factor[:, :, None] * shares


def _smoothed_mass(values: Floats, edges: Floats) -> Floats:
    """`[b]`: share of the probes' scores in each bin, by a normal kernel: an empty bin is no proof of density 0."""
    from scipy.ndimage import gaussian_filter1d

    # Smooths a histogram of 1,000 fine bins that reaches 2 beyond all scores, then reads its distribution at the edges.
    fine = np.linspace(min(values.min(), edges[0]) - 2, max(values.max(), edges[-1]) + 2, 1001)
    kernel_bins = max(KERNEL_WIDTH * values.std() / (fine[1] - fine[0]), 0.5)
    smooth = gaussian_filter1d(np.histogram(values, fine)[0].astype(float), kernel_bins)
    distribution = np.concatenate([[0], np.cumsum(smooth)]) / max(smooth.sum(), 1e-12)
    return np.diff(np.interp(edges, fine, distribution))


def _location_grid(values: Floats) -> tuple[Floats, Floats]:
    """Locations and widths of the good pairs to try, `[l, 1]` each."""
    median = np.median(values)
    deviation = max(float(np.quantile(values, 0.75) - median), 1e-3) / 0.6745  # of a normal distribution
    location, width = np.meshgrid(LOCATIONS, WIDTHS, indexing="ij")
    location, width = median + deviation * location.reshape(-1, 1), deviation * width.reshape(-1, 1)
    scores_below = np.searchsorted(np.sort(values), location[:, 0])
    usable = scores_below >= MIN_SHARE_BELOW_LOCATION * len(values)
    return location[usable], width[usable]


def _wrong_probability(values: Floats, probes: list[Floats], hypotheses: MixtureHypotheses) -> Floats:
    """float32 `[n]`: wrong pairs' part of the density at each score, made to rise with the score."""
    from scipy.optimize import isotonic_regression

    # Bins below the start, then those of the fit.
    below = np.linspace(values.min() - 1e-6, hypotheses.edges[0], BINS + 1)
    edges = np.concatenate([below[:-1], hypotheses.edges])
    observed = np.histogram(values, edges)[0] / len(values)
    shares = hypotheses.weights @ hypotheses.shares  # [K]
    wrong = shares @ np.stack([_smoothed_mass(kind, edges) for kind in probes])
    good_below = np.maximum(observed - wrong, 0)[:BINS]  # not modeled there: the rest of what was observed
    good = np.concatenate([good_below, -np.diff(hypotheses.weights @ hypotheses.good_above)])
    ratio = wrong / np.maximum(wrong + good, 1e-12)
    rising = np.clip(isotonic_regression(ratio, weights=observed + 1e-9).x, 0, 1)
    centers = (edges[1:] + edges[:-1]) / 2
    return np.asarray(np.interp(values, centers, rising), dtype=np.float32)


def _false_positive_rate(values: Floats, wrong_share: float, hypotheses: MixtureHypotheses) -> Floats:
    """float32 `[n]`: share of good pairs that score at least as high, not exceeded with probability `RATE_CERTAINTY`.

    No less than what is left when a share `wrong_share` of the set is taken for wrong pairs from the top: should the
    good pairs' tail be heavier than any that was tried, a clean set still has no more flags than the rate.
    """
    ranked = np.sort(values)
    above = 1 - np.searchsorted(ranked, values, side="left") / len(ranked)  # share of the set that scores as high
    remaining = (above - wrong_share) / max(1 - wrong_share, 1e-9)
    good_share = 1 - hypotheses.shares.sum(1, keepdims=True)
    good_tail = hypotheses.quantile(hypotheses.good_above / good_share, RATE_CERTAINTY)  # [b + 1]
    modeled = np.where(
        values >= hypotheses.edges[0],
        np.interp(values, hypotheses.edges, good_tail),
        np.maximum(remaining, good_tail[0]),  # below the start
    )
    return np.asarray(np.clip(np.maximum(modeled, remaining), 0, 1), dtype=np.float32)
