from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import gennorm

from audit_plugin.scoring.calibration import CONFIDENCE, MixtureHypotheses, calibrate


def mixture(share: float, near: float = 0.0, seed: int = 3, n: int = 3000) -> tuple[np.ndarray, np.ndarray, dict]:
    """Scores of a set with random and near wrong pairs, which are wrong, and plants of both kinds."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, n, p=[1 - share - near, share, near])
    good = np.where(rng.random(n) < 0.5, -abs(rng.normal(0, 1.5, n)), abs(rng.normal(0, 0.7, n)))  # left is longer
    scores = np.choose(kind, [good, rng.normal(4, 1, n), rng.normal(2.2, 0.8, n)])
    plants = {"random": rng.normal(4, 1, 800), "neighborhood": rng.normal(2.2, 0.8, 800)}
    return scores.astype(np.float32), kind > 0, plants


@pytest.mark.parametrize(("share", "near"), [(0.05, 0.0), (0.1, 0.0), (0.2, 0.0), (0.0, 0.1), (0.05, 0.1)])
def test_shares_precision_and_false_positive_rate_come_out(share: float, near: float) -> None:
    told = []
    for seed in range(6):
        scores, wrong, plants = mixture(share, near, seed)
        sure = calibrate(scores, plants)
        flagged = sure.false_positive_rate <= 0.01
        said, low, high = sure.precision(scores, flagged)
        told.append((sure.share - wrong.mean(), flagged[~wrong].mean(), said - wrong[flagged].mean(),
                     sure.interval[0] <= wrong.mean() <= sure.interval[1], low <= said <= high))  # fmt: skip
    off, alarms, error, inside, ordered = np.mean(told, axis=0)
    assert off == pytest.approx(0, abs=0.03)
    assert 0.002 < alarms < 0.03  # many near misses make it err on the high side
    assert error == pytest.approx(0, abs=0.08)
    assert inside >= 4 / 6
    assert ordered == 1


def test_kinds_are_told_apart() -> None:
    for share, near, kind in ((0.15, 0.0, "random"), (0.0, 0.15, "neighborhood")):
        shares = calibrate(*mixture(share, near)[::2]).shares
        assert max(shares, key=lambda name: shares[name]) == kind
        assert shares[kind] == pytest.approx(0.15, abs=0.04)


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_set_has_no_wrong_pair_and_no_more_flags_than_the_rate(seed: int) -> None:
    scores, _, plants = mixture(0.0, seed=seed)
    sure = calibrate(scores, plants)
    assert sure.share < 0.005
    assert sure.interval[0] < 1e-3
    assert (sure.false_positive_rate <= 0.01).mean() <= 0.01


@pytest.mark.parametrize("shape", [1.2, 1.5, 2.0, 3.0])
def test_a_heavy_tail_of_good_pairs_is_not_taken_for_near_misses(shape: float) -> None:
    rng = np.random.default_rng(0)
    scores = gennorm.rvs(shape, size=3000, random_state=rng).astype(np.float32)
    plants = {"random": rng.normal(4, 1, 800), "neighborhood": rng.normal(1.6, 0.8, 800)}
    sure = calibrate(scores, plants)
    assert sure.share < 0.02
    assert (sure.false_positive_rate <= 0.01).mean() <= 0.01


def test_more_scores_than_a_model_deserves_do_not_make_it_surer() -> None:
    widths = []
    for n in (2000, 40_000):
        scores, _, plants = mixture(0.1, 0.1, n=n)
        low, high = calibrate(scores, plants).interval
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 120), st.integers(20, 120))
@example(48, 30, 97)  # most of the set looks like the plants: no explanation with a possible share fits
def test_probabilities_rise_and_false_positive_rate_fall_with_the_score(seed: int, n: int, q: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(n).astype(np.float32)
    plants = (rng.standard_normal(q) + rng.uniform(-1, 5)).astype(np.float32)
    scores[: n // 10], plants[:2] = np.nan, np.nan
    known = np.isfinite(scores)
    if known.sum() < 20 or q < 22:
        return
    sure = calibrate(scores, {"random": plants})
    order = np.argsort(scores[known], kind="stable")
    assert 0 <= sure.share <= 1
    for values in (sure.probability, sure.false_positive_rate):
        assert (np.isfinite(values) == known).all()
        assert values[known].min() >= 0
        assert values[known].max() <= 1
    assert (np.diff(sure.probability[known][order]) >= -1e-6).all()
    assert (np.diff(sure.false_positive_rate[known][order]) <= 1e-6).all()


def test_too_few_to_fit_says_nothing() -> None:
    few, many = np.arange(5, dtype=np.float32), np.arange(500, dtype=np.float32)
    for scores, plants in ((few, many), (many, few), (many * np.nan, many), (many, many * np.nan)):
        sure = calibrate(scores, {"random": plants})
        assert np.isnan(sure.share)
        assert len(sure.probability) == len(scores)
        assert np.isnan(sure.probability).all()
        assert np.isnan(sure.false_positive_rate).all()
        assert np.isnan(sure.precision(scores, np.ones(len(scores), bool))[0])


def test_equal_scores_do_not_break_the_fit() -> None:
    sure = calibrate(np.zeros(100, np.float32), {"random": np.zeros(100, np.float32)})
    assert np.isfinite(sure.share)


def test_quantiles_are_weighted() -> None:
    told = MixtureHypotheses(np.array([0.9, 0.06, 0.04]), np.zeros((3, 1)), np.zeros((3, 2)), np.arange(2.0))
    assert told.quantiles(np.array([5.0, 1.0, 9.0])) == (1.0, 5.0)
    assert CONFIDENCE == 0.9


def test_explanations_add_up() -> None:
    scores, _, plants = mixture(0.1)
    sure = calibrate(scores, plants)
    found = sure.explanations
    assert found.weight.sum() == pytest.approx(1)
    assert sure.share == pytest.approx(float(found.weight @ found.shares.sum(1)))
    assert (np.diff(found.good, axis=1) <= 1e-12).all()
    # good pairs above the start and wrong ones above it are all that was seen there
    above = np.array([(v > found.edges[0]).mean() for v in plants.values()])
    seen = (scores >= found.edges[0]).mean()
    assert found.weight @ (found.good[:, 0] + found.shares @ above) == pytest.approx(seen, abs=0.01)
