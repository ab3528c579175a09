from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import gennorm

from audit_plugin.scoring.calibration import (
    CONFIDENCE,
    Calibration,
    MixtureHypotheses,
    _false_positive_rate,
    _fit_shares,
    _spread_shares,
    calibrate,
)
from audit_plugin.scoring.wrong_pairs import Interval, own_precision, precision_of_flags, summarize_wrong_pairs


def mixture(share: float, near: float = 0.0, seed: int = 3, n: int = 3000) -> tuple[np.ndarray, np.ndarray, dict]:
    """(scores of a set with random and near wrong pairs, which are wrong, scores of probes of both kinds)."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, n, p=[1 - share - near, share, near])
    good = np.where(rng.random(n) < 0.5, -abs(rng.normal(0, 1.5, n)), abs(rng.normal(0, 0.7, n)))  # left is longer
    scores = np.choose(kind, [good, rng.normal(4, 1, n), rng.normal(2.2, 0.8, n)])
    probes = {"random": rng.normal(4, 1, 800), "neighborhood": rng.normal(2.2, 0.8, 800)}
    return scores.astype(np.float32), kind > 0, probes


def precision_of(calibration: Calibration, scores: np.ndarray, flagged: np.ndarray) -> tuple[float, float, float]:
    known = own_precision(summarize_wrong_pairs(calibration, scores, flagged))
    assert known is not None
    return known.value, known.low, known.high


def one_hypothesis(share: float, good_above: list[float]) -> MixtureHypotheses:
    """Edges at 0, 1, 2, ...; one kind."""
    edges = np.arange(len(good_above), dtype=float)
    return MixtureHypotheses(np.ones(1), np.array([[share]]), np.array([good_above]), edges)


@pytest.mark.parametrize(("share", "near"), [(0.05, 0.0), (0.1, 0.0), (0.2, 0.0), (0.0, 0.1), (0.05, 0.1)])
def test_shares_precision_and_false_positive_rate_are_recovered(share: float, near: float) -> None:
    outcomes = []
    for seed in range(6):
        scores, wrong, probes = mixture(share, near, seed)
        calibration = calibrate(scores, probes)
        flagged = calibration.false_positive_rate <= 0.01
        precision, low, high = precision_of(calibration, scores, flagged)
        covered = calibration.interval[0] <= wrong.mean() <= calibration.interval[1]
        outcomes.append(
            (
                calibration.share - wrong.mean(),
                flagged[~wrong].mean(),
                precision - wrong[flagged].mean(),
                covered,
                low <= precision <= high,
            )
        )
    share_error, false_positives, precision_error, coverage, ordered = np.mean(outcomes, axis=0)
    assert share_error == pytest.approx(0, abs=0.03)
    assert 0.002 < false_positives < 0.03  # many near misses make it err on the high side
    assert precision_error == pytest.approx(0, abs=0.08)
    assert coverage >= 4 / 6
    assert ordered == 1


def test_kinds_are_distinguished() -> None:
    for share, near, kind in ((0.15, 0.0, "random"), (0.0, 0.15, "neighborhood")):
        scores, _, probes = mixture(share, near)
        shares = calibrate(scores, probes).shares
        assert max(shares, key=lambda name: shares[name]) == kind
        assert shares[kind] == pytest.approx(0.15, abs=0.04)


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_set_has_no_wrong_pair_and_no_more_flags_than_the_rate(seed: int) -> None:
    scores, _, probes = mixture(0.0, seed=seed)
    calibration = calibrate(scores, probes)
    assert calibration.share < 0.005
    assert calibration.interval[0] < 1e-3
    assert (calibration.false_positive_rate <= 0.01).mean() <= 0.01


@pytest.mark.parametrize("shape", [1.2, 1.5, 2.0, 3.0])
def test_a_heavy_tail_of_good_pairs_is_not_taken_for_near_misses(shape: float) -> None:
    rng = np.random.default_rng(0)
    scores = gennorm.rvs(shape, size=3000, random_state=rng).astype(np.float32)
    probes = {"random": rng.normal(4, 1, 800), "neighborhood": rng.normal(1.6, 0.8, 800)}
    calibration = calibrate(scores, probes)
    assert calibration.share < 0.02
    assert (calibration.false_positive_rate <= 0.01).mean() <= 0.01


def test_beyond_the_effective_scores_intervals_get_no_narrower() -> None:
    widths = []
    for n in (2000, 40_000):
        scores, _, probes = mixture(0.1, 0.1, n=n)
        low, high = calibrate(scores, probes).interval
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 120), st.integers(20, 120))
@example(48, 30, 97)  # most of the set looks like the probes: no hypothesis with a possible share fits
def test_probabilities_rise_and_false_positive_rate_fall_with_the_score(seed: int, n: int, q: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(n).astype(np.float32)
    probes = (rng.standard_normal(q) + rng.uniform(-1, 5)).astype(np.float32)
    scores[: n // 10], probes[:2] = np.nan, np.nan
    known = np.isfinite(scores)
    if known.sum() < 20 or q < 22:
        return
    calibration = calibrate(scores, {"random": probes})
    order = np.argsort(scores[known], kind="stable")
    assert 0 <= calibration.share <= 1
    for values in (calibration.probability, calibration.false_positive_rate):
        assert (np.isfinite(values) == known).all()
        assert values[known].min() >= 0
        assert values[known].max() <= 1
    assert (np.diff(calibration.probability[known][order]) >= -1e-6).all()
    assert (np.diff(calibration.false_positive_rate[known][order]) <= 1e-6).all()


def test_too_few_scores_or_probes_give_nan() -> None:
    few, many = np.arange(5, dtype=np.float32), np.arange(500, dtype=np.float32)
    for scores, probes in ((few, many), (many, few), (many * np.nan, many), (many, many * np.nan)):
        calibration = calibrate(scores, {"random": probes})
        assert np.isnan(calibration.share)
        assert len(calibration.probability) == len(scores)
        assert np.isnan(calibration.probability).all()
        assert np.isnan(calibration.false_positive_rate).all()
        assert summarize_wrong_pairs(calibration, scores, np.ones(len(scores), bool)) == {}


def test_scores_have_one_dimension() -> None:
    with pytest.raises(ValueError, match=r"one-dimensional, got \(2, 50\)"):
        calibrate(np.zeros((2, 50)), {})


def test_equal_scores_do_not_break_the_fit() -> None:
    calibration = calibrate(np.zeros(100, np.float32), {"random": np.zeros(100, np.float32)})
    assert np.isfinite(calibration.share)


def test_shares_by_hand() -> None:
    # Good pairs fill the first bin, probes the second, and half of the probes lie below the start: of the 80 % of the
    # set above it a quarter is wrong, w = 0.2 / 0.8; share = w * above / inside = 0.25 * 0.8 / 0.5.
    observed, good, probe = np.array([0.6, 0.2]), np.array([[1.0, 0.0]]), np.array([[0.0, 0.5]])
    log_likelihood, shares, deviation = _fit_shares(observed, good, probe)
    np.testing.assert_allclose(shares, [[0.4]], rtol=1e-6)
    np.testing.assert_allclose(log_likelihood, [0.6 * np.log(0.75) + 0.2 * np.log(0.25)], rtol=1e-6)
    information = 0.6 * (1 / 0.75) ** 2 + 0.2 * (1 / 0.25) ** 2
    np.testing.assert_allclose(deviation, [0.8 / 0.5 / np.sqrt(information)], rtol=1e-6)


def test_the_fit_is_the_maximum_of_the_likelihood() -> None:
    rng = np.random.default_rng(2)
    observed, good = 0.7 * rng.dirichlet(np.ones(9)), rng.dirichlet(np.ones(9), 1)
    probe = 0.8 * rng.dirichlet(np.ones(9), 1)
    log_likelihood, shares, _ = _fit_shares(observed, good, probe)
    w = np.linspace(0, 1, 2001)[:, None]
    likelihood = np.log((1 - w) * good + w * probe / 0.8 + 1e-9) @ observed
    assert log_likelihood[0] == pytest.approx(likelihood.max(), abs=1e-4)
    assert shares[0, 0] == pytest.approx(w[likelihood.argmax(), 0] * 0.7 / 0.8, abs=0.02)


def test_spread_shares_keep_their_mean_and_proportions() -> None:
    shares = np.array([[0.2, 0.1], [0.0, 0.0]])
    spread = _spread_shares(shares, np.array([0.05, 0.05]))
    np.testing.assert_allclose(spread.mean(0), shares, atol=1e-9)
    np.testing.assert_allclose(spread[:, 0, 0], 2 * spread[:, 0, 1])
    assert 0.02 < spread[:, 0].sum(1).std() < 0.05


def test_medians_and_intervals_are_weighted() -> None:
    hypotheses = MixtureHypotheses(np.array([0.9, 0.06, 0.04]), np.zeros((3, 1)), np.zeros((3, 2)), np.arange(2.0))
    assert hypotheses.interval(np.array([5.0, 1.0, 9.0])) == (1.0, 5.0)
    assert hypotheses.quantile(np.array([[5.0, 1.0], [1.0, 2.0], [9.0, 3.0]]), 0.5).tolist() == [5.0, 1.0]
    assert CONFIDENCE == 0.9


def test_precision_by_hand() -> None:
    # Two of ten scores are flagged, from 1.5 on; at the edge below, 1, 5 % of the set is good: 1 - 0.05 / 0.2.
    scores = np.array([0.0] * 8 + [1.5, 3.0])
    probability = np.array([0.1] * 8 + [0.7, 0.9])
    hypothesis = one_hypothesis(0.2, [0.3, 0.05, 0.0])
    calibration = Calibration({"random": 0.2}, (0.1, 0.3), probability, probability, hypothesis)
    assert precision_of(calibration, scores, scores > 1) == pytest.approx((0.75, 0.75, 0.75))
    estimated = summarize_wrong_pairs(calibration, scores, scores > 1)
    assert (estimated["pairs"], estimated["judged"], estimated["pairs_interval"]) == (2, 10, [1, 3])
    unscored = np.append(scores, np.nan)
    assert summarize_wrong_pairs(calibration, unscored, unscored > 1)["judged"] == 10
    higher = precision_of_flags(estimated, scores, scores > 2)  # from 3 on, at the edge 2: nothing good is there
    assert higher == Interval(1, 1, 1)
    assert precision_of_flags(estimated, scores, scores > 9) is None
    none = summarize_wrong_pairs(calibration, scores, scores > 9)
    assert (none["precision"], none["precision_interval"]) == (None, [None, None])
    assert own_precision(none) is None
    assert precision_of_flags({"precision": 0.5}, scores, scores > 1) is None  # of a former version


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_precision_of_any_threshold_is_near_the_truth_or_not_told(share: float) -> None:
    """Planted wrong pairs are the truth; a clean set is never told that a large part of it is wrong."""
    scores, wrong, probes = mixture(share)
    calibration = calibrate(scores, probes)
    estimated = summarize_wrong_pairs(calibration, scores, calibration.false_positive_rate <= 0.01)
    told = []
    for quantile in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 0.97):
        flagged = scores >= np.quantile(scores, quantile)
        known = precision_of_flags(estimated, scores, flagged)
        if known is not None:
            assert known.value == pytest.approx(wrong[flagged].mean(), abs=0.15), quantile
        told.append(known is not None)
    assert told == [False] * 4 + [True] * 5  # from the start of the fit on, the 35% quantile
    flagged = scores >= np.quantile(scores, 0.5)
    unscored = np.append(scores, np.nan).astype(np.float32)
    assert precision_of_flags(estimated, unscored, np.append(flagged, True)) == precision_of_flags(
        estimated, scores, flagged
    )


@given(st.integers(0, 10**6), st.floats(0.02, 0.98))
def test_what_a_summary_keeps_is_what_the_hypotheses_say_at_any_threshold(seed: int, quantile: float) -> None:
    """Against the precision under each hypothesis: 1 - good_above / flagged, its weighted median and interval."""
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.normal(size=200))
    good = np.sort(rng.uniform(0, 0.6, (30, 12)))[:, ::-1]
    weights = rng.dirichlet(np.ones(30))
    edges = np.linspace(-1, 3, 12)
    hypotheses = MixtureHypotheses(weights, np.full((30, 1), 0.1), good, edges)
    calibration = Calibration({"random": 0.1}, (0.0, 0.2), scores, scores, hypotheses)
    flagged = scores >= np.quantile(scores, quantile)
    cut = scores[flagged].min()
    if cut < edges[0]:  # below the start nothing is modeled
        assert precision_of_flags(summarize_wrong_pairs(calibration, scores, flagged), scores, flagged) is None
        return
    found = precision_of(calibration, scores, flagged)
    each = np.clip(1 - good[:, int((edges <= cut).sum()) - 1] / flagged.mean(), 0, 1)
    order = np.argsort(-each, kind="stable")
    median = each[order][np.searchsorted(np.cumsum(weights[order]), 0.5)]
    assert found[0] == pytest.approx(median, abs=2e-4)
    assert weights[each < found[1] - 2e-4].sum() <= 0.05 + 1e-9
    assert weights[each > found[2] + 2e-4].sum() <= 0.05 + 1e-9


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
def test_the_precision_lies_within_its_interval_and_near_the_truth(share: float) -> None:
    scores, wrong, probes = mixture(share)
    calibration = calibrate(scores, probes)
    for rate in (0.01, 0.05):
        flagged = calibration.false_positive_rate <= rate
        precision, low, high = precision_of(calibration, scores, flagged)
        assert low <= precision <= high
        assert precision == pytest.approx(wrong[flagged].mean(), abs=0.15)


def test_false_positive_rate_by_hand() -> None:
    # 80 % of the set is good. Of these 0.2 / 0.8 score 1 or more and 0.04 / 0.8 score 2 or more.
    scores = np.concatenate([np.full(50, -1.0), np.full(50, 2.0)])
    hypotheses = one_hypothesis(0.2, [0.4, 0.2, 0.04])
    assert _false_positive_rate(scores, 0.5, hypotheses)[-1] == pytest.approx(0.05)
    # half of the set scores 2 or more, and with no wrong pair that is certain all of them may be good
    assert _false_positive_rate(scores, 0.0, hypotheses)[-1] == pytest.approx(0.5)
    assert _false_positive_rate(scores, 0.0, hypotheses)[0] == pytest.approx(1.0)


def test_hypotheses_add_up() -> None:
    scores, _, probes = mixture(0.1)
    calibration = calibrate(scores, probes)
    hypotheses = calibration.hypotheses
    assert hypotheses.weights.sum() == pytest.approx(1)
    assert calibration.share == pytest.approx(float(hypotheses.weights @ hypotheses.shares.sum(1)))
    assert (np.diff(hypotheses.good_above, axis=1) <= 1e-12).all()
    # good pairs and wrong ones above the start are all that was observed there
    start = hypotheses.edges[0]
    inside = np.array([(kind > start).mean() for kind in probes.values()])
    above = hypotheses.weights @ (hypotheses.good_above[:, 0] + hypotheses.shares @ inside)
    assert above == pytest.approx((scores >= start).mean(), abs=0.01)
