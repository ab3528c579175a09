"""Rival outlier scores over unit features `[n, d]`, each -> suspicion `[n]`; self is left out by index."""

from __future__ import annotations

import numpy as np

from audit_plugin.arrays import Bools, Floats

from .material import Nearest, canonical, nearest

UNIQUENESS_WEIGHTS = (0.6, 0.3, 0.1)


def kth_neighbor(features: Floats, k: int = 10) -> Floats:
    """Euclidean distance to the k-th nearest (Sun et al., ICML 2022; Ramaswamy et al., SIGMOD 2000). O(n^2 d)."""
    neighbors = _nearest(features, k)
    return np.sqrt(np.maximum(2 - 2 * neighbors.similarity[:, -1], 0))


def mean_neighbors(features: Floats, k: int = 10) -> Floats:
    """Mean Euclidean distance to the k nearest (Angiulli and Pizzuti, PKDD 2002). O(n^2 d)."""
    neighbors = _nearest(features, k)
    return neighbors.mean(np.sqrt(np.maximum(2 - 2 * neighbors.similarity, 0)))


def local_outlier_factor(features: Floats, k: int = 20) -> Floats:
    """LOF (Breunig et al., SIGMOD 2000) by scikit-learn: density of the k nearest over the own. O(n^2 d)."""
    from sklearn.neighbors import LocalOutlierFactor

    return -LocalOutlierFactor(min(k, len(features) - 1)).fit(features).negative_outlier_factor_


def isolation_forest(features: Floats, trees: int = 100) -> Floats:
    """Isolation forest (Liu et al., ICDM 2008) by scikit-learn, seed 0, 256 rows a tree. O(n trees log n)."""
    from sklearn.ensemble import IsolationForest

    order = canonical(features)
    scores = np.empty(len(features))
    forest = IsolationForest(n_estimators=trees, random_state=0).fit(features[order])
    scores[order] = -forest.score_samples(features[order])
    return scores


def uniqueness(features: Floats) -> Floats:
    """FiftyOne Brain's uniqueness, its formula re-implemented because importing the package starts a database.

    Features centered on their mean; cosine distances to the 4 nearest others, of which Brain drops the first (it takes
    it for the sample itself, which its distance matrix has left out already), the other three weighted .6, .3, .1;
    divided by the largest. O(n^2 d).
    """
    centered = features - features.mean(0)
    unit = centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
    neighbors = _nearest(unit, len(UNIQUENESS_WEIGHTS) + 1)
    distances = ((1 - neighbors.similarity[:, 1:]) * UNIQUENESS_WEIGHTS).mean(1)
    return distances / distances.max()


def leaf_area(features: Floats) -> Floats:
    """SelfClean's off-topic score (Groeger et al., NeurIPS 2024) from the single-linkage dendrogram, turned around.

    At every merge the smaller side is drawn first. A node spans a part of its parent's width: the smaller side the
    share p of the leaves that it holds, the larger side the rest of its own share (1 - 2p). Each visited node adds its
    width times the drop in height from its parent; a leaf's area is the sum so far, so rows that join late and in small
    company come first. The order is SelfClean's; its areas also fill gaps between leaves. Suspicion is 1 - area,
    in [0, 1]. Cosine distances over 2. O(n^2) memory.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    n = len(features)
    heights = np.clip((1 - features @ features.T) / 2, 0, 1)
    merges = linkage(squareform(heights, checks=False), "single")
    sizes = np.concatenate([np.ones(n), merges[:, 3]])
    levels = np.concatenate([np.zeros(n), merges[:, 2]])
    areas, area = np.zeros(n), 0.0
    stack = [(2 * n - 2, 1.0, 1.0)]
    while stack:
        node, width, above = stack.pop()
        area += width * (above - levels[node])
        if node < n:
            areas[node] = area
            continue
        left, right = sorted((int(c) for c in merges[node - n, :2]), key=lambda c: sizes[c])
        share = sizes[left] / sizes[node]
        stack.append((right, width * (1 - 2 * share), levels[node]))
        stack.append((left, width * share, levels[node]))
    return 1 - areas


def logistic_cut(suspicion: Floats, guess: float = 0.01, level: float = 0.05) -> Bools:
    """SelfClean's automatic threshold on a suspicion within (0, 1): bool `[n]`, what it flags.

    l = logit(1 - suspicion); a logistic distribution through l's quantiles at `guess` (assumed contamination) and at
    sqrt(guess / 2); flagged where l lies below its quantile at level * guess. Values of 0 and 1 are never flagged.
    """
    inside = (suspicion > 0) & (suspicion < 1)
    flagged = np.zeros(len(suspicion), dtype=bool)
    if inside.sum() < 2:
        return flagged
    logits = np.log((1 - suspicion[inside]) / suspicion[inside])
    low, high = np.quantile(logits, [guess, np.sqrt(guess / 2)])
    at_low, at_high, at_cut = (np.log(p / (1 - p)) for p in (guess, np.sqrt(guess / 2), level * guess))
    scale = (high - low) / (at_high - at_low)
    flagged[inside] = logits < low + scale * (at_cut - at_low)
    return flagged


def _nearest(features: Floats, k: int) -> Nearest:
    return nearest(features, None, k)
