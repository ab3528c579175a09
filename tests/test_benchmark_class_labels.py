from __future__ import annotations

import numpy as np
import pytest

from benchmarks.class_labels import CELLS, OURS, labels_table, rivals
from benchmarks.rivals.linear import class_probabilities
from benchmarks.sets import MIXED_UP


def drawn(wrong: int = 12, n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit features of three classes, given labels of which the first are wrong, and which are."""
    rng = np.random.default_rng(0)
    true = np.arange(n) % 3
    features = np.eye(3, 8)[true] + 0.2 * rng.standard_normal((n, 8))
    given = true.copy()
    given[:wrong] = (true[:wrong] + 1) % 3
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), given, np.arange(n) < wrong


def test_every_rival_finds_wrong_labels_of_clear_classes() -> None:
    features, given, wrong = drawn()
    probability = class_probabilities(features, given)
    np.testing.assert_allclose(probability.sum(1), 1)
    for name, values in rivals(features, given, probability).items():
        assert set(np.argsort(-values)[: wrong.sum()]) == set(np.flatnonzero(wrong)), name


def test_neighbors_are_counted_by_hand() -> None:
    features, given, _ = drawn()
    values = rivals(features, given, class_probabilities(features, given))["k-NN"]
    row = 40
    cosines = features @ features[row]
    cosines[row] = -np.inf
    nearest = np.argsort(-cosines)[:10]
    expected = np.mean(given[nearest] != given[row])
    assert values[row] == pytest.approx(expected, abs=2e-3)


def test_the_table_marks_the_best_of_each_figure() -> None:
    figures = {"auroc": 0.9, "ap": 0.5, "precision": 0.7}
    methods = {OURS: figures, "k-NN": {**figures, "ap": 0.6}}
    cell = {"noise": "random", "rate": 0.05, "methods": methods, "suggested_right": 0.8123}
    line = labels_table({"cells": [cell]}).splitlines()[-1]
    assert line == "| 5%: any other class | **0.900** / 0.500 / **0.700** | **0.900** / **0.600** / **0.700** | 81% |"


def test_every_class_that_is_mixed_up_has_another() -> None:
    groups = list(MIXED_UP.values())
    assert min(groups.count(group) for group in groups) >= 2
    assert {cell.noise for cell in CELLS} == {"random", "category"}
