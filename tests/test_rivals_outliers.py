"""The outlier table: hand-worked cases, naive forms, and the real FiftyOne Brain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import logistic

from benchmarks.rivals import OUTLIERS
from benchmarks.rivals.outliers import (
    isolation_forest,
    kth_neighbor,
    leaf_area,
    local_outlier_factor,
    logistic_cut,
    mean_neighbors,
    uniqueness,
)
from benchmarks.rivals.tuning import auroc
from tests.rivals_fixtures import unit


def circle(*degrees):
    angles = np.radians(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)])


def chord(degrees):
    return 2 * math.sin(math.radians(degrees) / 2)


def crowd(n=200, odd=10, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 32)) * 0.5 + np.repeat(rng.standard_normal((4, 32)) * 2, n // 4, axis=0)
    far = np.zeros(n, dtype=bool)
    far[rng.choice(n, odd, replace=False)] = True
    features[far] = rng.standard_normal((odd, 32)) * 2
    return unit(features), far


def test_neighbor_distances_by_hand():
    features = circle(0, 10, 30, 120)
    np.testing.assert_allclose(kth_neighbor(features, 2), [chord(30), chord(20), chord(30), chord(110)])
    np.testing.assert_allclose(
        mean_neighbors(features, 2)[[0, 3]], [(chord(10) + chord(30)) / 2, (chord(90) + chord(110)) / 2]
    )


def test_local_outlier_factor_is_one_in_an_even_ring():
    np.testing.assert_allclose(local_outlier_factor(circle(*range(0, 360, 10)), k=4), 1, atol=1e-6)


def test_uniqueness_by_hand():
    found = uniqueness(circle(20, -20, 160, -160, 90, -90))  # centered as they are
    # angles to the others of 20: 40, dropped, then 70 110 140; of 90: 70, dropped, then 70 110 110
    gap = {d: 1 - math.cos(math.radians(d)) for d in (70, 110, 140)}
    corner = 0.6 * gap[70] + 0.3 * gap[110] + 0.1 * gap[140]
    top = 0.6 * gap[70] + 0.4 * gap[110]
    np.testing.assert_allclose(found, [1, 1, 1, 1, top / corner, top / corner])


@pytest.mark.fiftyone
def test_uniqueness_is_that_of_the_brain():
    import fiftyone as fo
    import fiftyone.brain as fob

    features, _ = crowd(60, 4)
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{row}.png") for row in range(60)])
    try:
        fob.compute_uniqueness(dataset, embeddings=features.astype(float).copy())
        wanted = dataset.values("uniqueness")
    finally:
        dataset.delete()
    np.testing.assert_allclose(uniqueness(features.astype(float)), wanted, rtol=1e-6)


def test_leaf_area_by_hand():
    found = leaf_area(circle(0, 10, 90))
    low, high = ((1 - math.cos(math.radians(d))) / 2 for d in (10, 80))
    # the root spans 1 down to `high`; the lone row takes a third of the width, the pair the next third
    alone = 1 - high + high / 3
    pair = alone + (high - low) / 3 + low / 6
    np.testing.assert_allclose(found, 1 - np.array([pair, pair, alone]))


def test_logistic_cut_is_the_published_rule():
    rng = np.random.default_rng(0)
    suspicion = 1 / (1 + np.exp(-logistic.rvs(-2, 0.5, 500, random_state=rng)))
    suspicion[:3] = [0.9999, 0.9995, 1.0]
    logits = np.array([math.log((1 - s) / s) if s < 1 else math.inf for s in suspicion])
    known = logits[np.isfinite(logits)]
    points = (0.01, math.sqrt(0.005))
    x, y = np.quantile(known, points), logistic.ppf(points)
    scale = (x[1] - x[0]) / (y[1] - y[0])
    cut = logistic.ppf(0.05 * 0.01, loc=x[0] - scale * y[0], scale=scale)
    found = logistic_cut(suspicion)
    np.testing.assert_array_equal(found, logits < cut)
    assert found[:2].all()
    assert not found[2]
    assert found.sum() <= 3


def test_logistic_cut_flags_little_where_nothing_is_odd():
    suspicion = 1 / (1 + np.exp(-logistic.ppf((np.arange(2000) + 0.5) / 2000)))
    assert logistic_cut(suspicion).sum() <= 1
    assert not logistic_cut(np.array([0.0, 1.0, 0.5])).any()


@pytest.mark.parametrize("name", OUTLIERS)
def test_the_odd_ones_stand_out_in_any_order(name):
    features, far = crowd()
    found = OUTLIERS[name].function(features)
    assert found.shape == (200,)
    # four crowds: a forest looks for what is far from all at once, SelfClean ranks small crowds whole before odd rows
    assert auroc(found, far) > {"isolation forest": 0.6, "SelfClean": 0.8}.get(name, 0.95)
    move = np.random.default_rng(1).permutation(200)
    np.testing.assert_allclose(OUTLIERS[name].function(features[move]), found[move], atol=1e-4)


def test_an_isolation_forest_finds_what_is_far_from_one_crowd():
    rng = np.random.default_rng(2)
    features = unit(rng.standard_normal((200, 8)) * 0.2 + 1)
    features[:5] = unit(rng.standard_normal((5, 8)) - 1)
    assert auroc(isolation_forest(features), np.arange(200) < 5) > 0.99
