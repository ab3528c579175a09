"""Virtual plants and what they tell: recall per kind, and how likely a sample is really mismatched.

A plant is the mismatched pair (x_i, y_j), scored in the trials in which neither i nor j was a member. Nothing is
planted in the data or in the training: the same scores are asked of a pair that is wrong by construction.
"""

from __future__ import annotations

import numpy as np

from .arrays import Floats, Ints
from .scores import Evidence, combine, neighbor_disagreement, scale_of

PLANTS_PER_KIND = 512
MIN_FIT = 20


def draw_plants(evidence_neighbors: Ints, leave_together: Ints, contents: Ints, seed: int) -> dict[str, Ints]:
    """Kind -> rows (i, j) `[q, 2]`: j anywhere, or j among i's neighbours; never of i's group or with i's content.

    Args:
        evidence_neighbors: `[n, k]` neighbours of i in the first modality.
        leave_together: `[n]` groups.
        contents: `[n, m]` content numbers.
        seed: of the draw; rows are in canonical order.
    """
    rng = np.random.default_rng((seed, 11))
    n = len(leave_together)
    left = rng.permutation(n)[:PLANTS_PER_KIND]
    chosen = {
        "random": rng.integers(0, n, len(left)),
        "neighbourhood": evidence_neighbors[left, rng.integers(0, max(evidence_neighbors.shape[1], 1), len(left))],
    }
    plants = {}
    for kind, right in chosen.items():
        fits = (right >= 0) & (leave_together[left] != leave_together[right])
        fits &= (contents[left] != contents[right]).all(1)
        plants[kind] = np.stack([left[fits], right[fits]], axis=1)
    return plants


def plant_scores(
    evidence: Evidence, pair: tuple[str, str], plants: Ints, contrast: Floats, zero_shot: Floats
) -> Floats:
    """`[q]`: the combined misalignment that the virtual pairs would get, on the scale of the real samples.

    Args:
        evidence: of the set.
        pair: its modalities.
        plants: rows (i, j) `[q, 2]`.
        contrast: `[q]`, their held-out contrast.
        zero_shot: `[q]`, their contrast under the frozen encoders; not used unless these share a space.
    """
    a, b = pair
    real = evidence.parts[pair]
    distance = 1 - evidence.trials.held_out["cosine"][evidence.pairs.index(pair)]  # type: ignore[union-attr]
    i, j = plants[:, 0], plants[:, 1]
    parts = {"contrast": contrast}
    if "zero_shot" in real:
        parts["zero_shot"] = zero_shot
    parts["neighbors_a"] = neighbor_disagreement(evidence, a, b, distance, i, j)
    parts["neighbors_b"] = neighbor_disagreement(evidence, b, a, distance, j, i)
    return combine(parts, {name: scale_of(values, evidence) for name, values in real.items()})


def wrong_share(scores: Floats, plants: Floats) -> tuple[float, Floats, Floats]:
    """Model-based share of wrong pairs, and per sample a probability and a false-alarm rate.

    The set is taken as a mixture of good pairs and of pairs that score like the plants. The share is what the upper
    tail allows: the smallest ratio of P(score > t) to P(plant > t) over thresholds t in the plants' upper half (about
    right where good pairs do not reach that tail; wrong pairs that score lower than random ones are missed). The
    probability weighs the share's plants against the rest of the set's density, which is good pairs, but no more than
    a normal tail of the set's bulk: what lies far beyond it is not good. It is made to rise with the score.

    Args:
        scores: `[n]`, NaN where not scored.
        plants: `[q]`, random mismatches.

    Returns:
        (share in [0, 1]; probability of being wrong `[n]`; share of good pairs that score at least as high `[n]`).
        NaN where not scored or where there are too few of either to fit.
    """
    known = np.isfinite(scores)
    planted = np.sort(plants[np.isfinite(plants)])
    probability, false_alarm = np.full((2, len(scores)), np.nan, dtype=np.float32)
    if known.sum() < MIN_FIT or len(planted) < MIN_FIT:
        return float("nan"), probability, false_alarm
    values = scores[known]
    ranked = np.sort(values)
    grid = np.quantile(planted, np.linspace(0.5, 0.8, 7))
    half = 0.5 / len(ranked)  # a tail without a sample is still no proof that there is none
    share = float(np.clip(((_above(ranked, grid) + half) / np.maximum(_above(planted, grid), 1e-9)).min(), 0, 1))
    order = np.argsort(values, kind="stable")
    bad = share * _density(planted, values)
    rest = np.clip(_density(values, values) - bad, 0, (1 - share) * _bulk(ranked, values))
    ratio = bad / np.maximum(bad + rest, 1e-9)
    rising = np.empty(len(values))
    rising[order] = np.clip(_isotonic(ratio[order]), 0, 1)
    probability[known] = rising
    good = np.empty(len(values))  # expected good pairs among those that score at least as high
    good[order[::-1]] = np.cumsum(1 - rising[order[::-1]])
    false_alarm[known] = np.minimum(good / max((1 - share) * len(values), 1e-9), 1)
    return share, probability, false_alarm


def _bulk(ranked: Floats, at: Floats) -> Floats:
    """Density of good pairs above the median, were they normal with the set's upper quartile: bounds their tail."""
    median, three = np.quantile(ranked, [0.5, 0.75])
    scale = max(float(three - median) / 0.6745, 1e-6)
    return np.exp(-0.5 * np.maximum((at - median) / scale, 0) ** 2) / (scale * np.sqrt(2 * np.pi))


def _above(ranked: Floats, at: Floats) -> Floats:
    """Share of `ranked` (ascending) at or above each value."""
    return (1 - np.searchsorted(ranked, at, side="left") / len(ranked)).astype(np.float32)


def _density(sample: Floats, at: Floats) -> Floats:
    """Kernel density, Silverman's width by the interquartile range, on a grid and interpolated: O(n)."""
    from scipy.ndimage import gaussian_filter1d

    low, high = float(min(sample.min(), at.min())), float(max(sample.max(), at.max()))
    quartiles = np.quantile(sample, [0.25, 0.75])
    width = max(0.9 * float(quartiles[1] - quartiles[0]) / 1.34 * len(sample) ** -0.2, (high - low) / 2000, 1e-9)
    edges = np.linspace(low - 4 * width, high + 4 * width, 2049)
    counts = np.histogram(sample, edges)[0] / (len(sample) * (edges[1] - edges[0]))
    smooth = gaussian_filter1d(counts, width / (edges[1] - edges[0]))
    return np.interp(at, (edges[1:] + edges[:-1]) / 2, smooth).astype(np.float32)


def _isotonic(values: Floats) -> Floats:
    from sklearn.isotonic import isotonic_regression

    return isotonic_regression(values)
