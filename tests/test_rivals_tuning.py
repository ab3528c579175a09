"""Hyper-parameters are chosen by mean AUROC over development cells."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.rivals.material import Rival
from benchmarks.rivals.tuning import auroc, choose, mean_auroc

WRONG = np.array([True, False, False, False])


def test_auroc_by_hand():
    assert auroc(np.array([2.0, 3, 1, 2]), WRONG) == pytest.approx(0.5)  # one above, one below, one tie
    np.testing.assert_allclose(auroc(np.array([[9.0, 3, 1, 2], [0, 3, 1, 2]]), WRONG), [1, 0])


def test_auroc_is_scikit_learns():
    rng = np.random.default_rng(0)
    score, wrong = rng.integers(0, 20, 300).astype(float), rng.random(300) < 0.2
    assert auroc(score, wrong) == pytest.approx(roc_auc_score(wrong, score))


def test_auroc_refuses_what_cannot_be_ranked():
    with pytest.raises(ValueError, match="nothing to rank"):
        auroc(np.zeros(4), np.zeros(4, dtype=bool))
    with pytest.raises(ValueError, match="1 suspicions are NaN"):
        auroc(np.array([np.nan, 0, 1, 2]), WRONG)


def test_the_best_mean_wins_and_the_first_of_equals():
    cells = [(np.array([3.0, 0, 1, 2]), WRONG), (np.array([1.5, 0, 1, 2]), WRONG)]
    rival = Rival("x", lambda given, sign=1, power=1: sign * given**power, {"sign": (-1, 1), "power": (1, 3)})
    assert choose(rival, cells) == {"sign": 1, "power": 1}
    assert mean_auroc(rival, {"sign": 1}, cells) == pytest.approx((1 + 2 / 3) / 2)


def test_nothing_to_choose_and_a_search_of_its_own():
    assert choose(Rival("x", lambda given: given), []) == {}
    assert choose(Rival("x", lambda given: given, tune=lambda cells: {"cells": len(cells)}), [1, 2]) == {"cells": 2}
