"""Linear probes: hand-checked margins, held-out probabilities, and a ridge regression that does not see its own row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.rivals.linear import class_probabilities, logistic_regression, ridge
from benchmarks.rivals.material import Material
from benchmarks.rivals.tuning import auroc
from tests.rivals_fixtures import noisy_set, unit


def test_margins_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    material = Material(np.eye(3), np.eye(3), np.eye(3), labels=np.array([0, 1, 2]), probabilities=probabilities)
    np.testing.assert_allclose(logistic_regression(material), [-0.5, 0.3, -0.7])
    np.testing.assert_allclose(logistic_regression(material, margin=False), [0.3, 0.7, 0.2])
    with pytest.raises(ValueError, match="held-out probabilities"):
        logistic_regression(replace(material, probabilities=None))


def test_class_probabilities_are_held_out():
    rng = np.random.default_rng(0)
    noise = unit(rng.standard_normal((90, 200)))  # nothing to learn, but enough dimensions to learn by heart
    labels = rng.permutation(np.arange(90) % 3)
    probabilities = class_probabilities(noise, labels, strength=1e4)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (probabilities.argmax(1) == labels).mean() < 0.6


def test_ridge_finds_pairs_that_no_map_explains():
    material, wrong = noisy_set(blur=2.0)
    assert auroc(ridge(material), wrong) > 0.9


def test_ridge_does_not_learn_its_own_row_by_heart():
    rng = np.random.default_rng(1)
    image, text = unit(rng.standard_normal((100, 300))), unit(rng.standard_normal((100, 20)))
    material = Material(np.eye(100), image, text)
    wrong = np.arange(100) < 50  # no row is different from any other
    assert abs(auroc(ridge(material), wrong) - 0.5) < 0.2
    learned = np.linalg.lstsq(image, text, rcond=None)[0]
    assert np.allclose(image @ learned, text, atol=1e-3)  # which it could have
