"""LEMoN: the paper's formula by hand and by loop, and a search that never loses to the fixed setting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.rivals import RIVALS
from benchmarks.rivals.lemon import lemon
from benchmarks.rivals.material import Material
from benchmarks.rivals.tuning import choose, mean_auroc
from tests.rivals_fixtures import noisy_set, unit

SIDES = {"tau1_n": 1.0, "tau2_n": 2.0, "tau1_m": 0.5, "tau2_m": 3.0}


def pair_of_rows(**more):
    image = np.array([[1.0, 0], [0, 1]])
    text = np.array([[1.0, 0], [0.5, math.sqrt(0.75)]])
    return Material(np.array([[0.8, 0.1], [0.2, 0.6]]), image, text, **more)


def test_fixed_by_hand():
    # image distance 1, text distance .5, d_mm .2 and .4
    first = 0.2 + 5 * 0.5 * math.exp(-0.1 * 1 - 5 * 0.4) + 5 * 1 * math.exp(-0.1 * 0.5 - 5 * 0.4)
    second = 0.4 + 5 * 0.5 * math.exp(-0.1 * 1 - 5 * 0.2) + 5 * 1 * math.exp(-0.1 * 0.5 - 5 * 0.2)
    np.testing.assert_allclose(lemon(pair_of_rows()), [first, second])


def test_without_weight_it_is_clip_similarity():
    material, _ = noisy_set(n=60)
    np.testing.assert_allclose(lemon(material, beta=0, gamma=0), 1 - material.own, rtol=1e-6)


def test_labels_make_the_texts_discrete():
    # of different classes: text distance 1, and nobody shares the class
    np.testing.assert_allclose(
        lemon(pair_of_rows(labels=np.array([0, 1]))), [0.2 + 5 * math.exp(-2.1), 0.4 + 5 * math.exp(-1.1)]
    )
    # of one class: text distance 0, the other row is the nearest text
    np.testing.assert_allclose(
        lemon(pair_of_rows(labels=np.array([1, 1]))), [0.2 + 5 * math.exp(-2), 0.4 + 5 * math.exp(-1)]
    )


@pytest.mark.parametrize(("metric", "scale"), [("cosine", 1), ("euclidean", 2)])
def test_free_text_is_the_naive_loop(metric, scale):
    rng = np.random.default_rng(3)
    n, k = 14, 4
    x, y = unit(rng.standard_normal((n, 6))), unit(rng.standard_normal((n, 5)))
    repeats = np.zeros((n, n), dtype=bool)
    repeats[0, 1] = repeats[1, 0] = True
    own = rng.uniform(-1, 1, n)
    material = Material(np.where(np.eye(n), own, 0.0), x, y, repeats)

    def apart(u, i, j):
        return scale * (1 - float(u[i] @ u[j]))

    def side(here, there, i, tau1, tau2):
        others = sorted((j for j in range(n) if j != i and not repeats[i, j]), key=lambda j: apart(here, i, j))[:k]
        terms = (
            apart(there, i, j) * math.exp(-tau1 * apart(here, i, j)) * math.exp(-tau2 * scale * (1 - own[j]))
            for j in others
        )
        return sum(terms) / k

    wanted = [scale * (1 - own[i]) + 2 * side(x, y, i, 1.0, 2.0) + 3 * side(y, x, i, 0.5, 3.0) for i in range(n)]
    np.testing.assert_allclose(lemon(material, k=k, metric=metric, beta=2, gamma=3, **SIDES), wanted, rtol=1e-5)


def test_class_term_is_the_mean_over_the_class():
    rng = np.random.default_rng(4)
    n = 12
    x = unit(rng.standard_normal((n, 6)))
    labels = np.arange(n) % 3
    own = rng.uniform(0, 1, n)
    material = Material(np.where(np.eye(n), own, 0.0), x, x, labels=labels)
    wanted = []
    for i in range(n):
        same = [j for j in range(n) if j != i and labels[j] == labels[i]]
        s_m = np.mean([(1 - x[i] @ x[j]) * math.exp(-3 * (1 - own[j])) for j in same])
        wanted.append(1 - own[i] + 2 * s_m)
    np.testing.assert_allclose(lemon(material, beta=0, gamma=2, tau2_m=3), wanted, rtol=1e-5)


def test_the_search_beats_the_fixed_setting_on_its_own_cells():
    cells = [noisy_set(n=150, seed=seed, blur=2.5, concepts=15) for seed in (0, 1)]
    found = choose(RIVALS["LEMoN tuned"], cells)
    assert set(found) == {"k", "metric", "beta", "gamma", "tau1_n", "tau2_n", "tau1_m", "tau2_m"}
    assert min(value for name, value in found.items() if name != "metric") >= 0
    tuned, fixed = (mean_auroc(RIVALS["LEMoN tuned"], at, cells) for at in (found, {}))
    assert fixed + 0.01 < tuned
    assert choose(RIVALS["LEMoN tuned"], cells) == found
