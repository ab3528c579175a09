"""Confident learning and Datalab's checks: the package's own code, against its published formulas."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.rivals.labeled import (
    confident_learning,
    datalab_near_duplicate,
    datalab_near_duplicate_flags,
    datalab_outlier,
    datalab_outlier_flags,
    datalab_pair_outlier,
)
from benchmarks.rivals.material import Material
from benchmarks.rivals.tuning import auroc
from tests.rivals_fixtures import noisy_set, unit


def test_self_confidence_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.3, 0.7], [0.95, 0.05], [0.1, 0.9]])
    material = Material(np.eye(6), np.eye(6), np.eye(6), labels=np.array([0, 0, 1, 1, 1, 0]))
    material = Material(material.similarity, material.image, material.text, None, None, material.labels, probabilities)
    plain = confident_learning(material, flagged_first=False)
    np.testing.assert_allclose(plain, [0.1, 0.2, 0.2, 0.3, 0.95, 0.9])
    # class means of the own probability: .6 and .517; rows 4 and 5 reach the other class's threshold alone
    np.testing.assert_allclose(confident_learning(material) - plain, [0, 0, 0, 0, 1, 1])


@pytest.mark.parametrize("flagged_first", [True, False])
def test_label_noise_is_found(flagged_first):
    material, wrong = noisy_set(classes=True, concepts=10)
    assert auroc(confident_learning(material, flagged_first=flagged_first), wrong) > 0.95


def test_without_probabilities_it_says_so():
    with pytest.raises(ValueError, match="held-out probabilities"):
        confident_learning(noisy_set(n=40)[0])


def distances(features):
    d = 1 - features @ features.T
    np.fill_diagonal(d, np.inf)
    return np.sort(d, axis=1)


def test_datalab_outlier_is_its_formula():
    features = unit(np.random.default_rng(0).standard_normal((80, 6)) + 1.5).astype(float)
    features[0] = unit(-np.ones((1, 6)))
    mean = distances(features)[:, :10].mean(1)
    np.testing.assert_allclose(datalab_outlier(features), 1 - np.exp(-mean / np.median(mean)), rtol=1e-6)
    q1, q3 = np.percentile(mean, [25, 75])
    np.testing.assert_array_equal(datalab_outlier_flags(features), mean > q3 + (1 / 0.37037 - 1) * (q3 - q1))
    assert datalab_outlier_flags(features)[0]


def test_datalab_near_duplicates_are_its_formula():
    features = unit(np.random.default_rng(1).standard_normal((60, 6))).astype(float)
    features[5] = unit(features[4:5] + 1e-3)
    nearest = distances(features)[:, 0]
    found = datalab_near_duplicate(features)
    np.testing.assert_allclose(found, np.exp(-nearest / np.median(nearest)), rtol=1e-5, atol=1e-6)
    assert np.flatnonzero(datalab_near_duplicate_flags(features)).tolist() == [4, 5]


def test_pairs_are_judged_on_both_sides():
    material, wrong = noisy_set(blur=2.0)
    assert auroc(datalab_pair_outlier(material), wrong) > 0.8
