"""Which pairs a judge is asked about, and what its answers do to probabilities: by hand, and on drawn judges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.judge.combining import LEAST_CONTROL, choose_pairs, combine, update


def names_of(n: int) -> list[tuple[str, int]]:
    return [(f"r{row}", 0) for row in range(n)]


def test_three_quarters_are_the_most_suspicious_and_the_rest_is_drawn_of_the_others() -> None:
    scores = np.arange(100.0)
    suspicious, control = choose_pairs(scores, names_of(100), np.ones(100, bool), 20)
    assert suspicious.tolist() == list(range(99, 84, -1))
    assert len(control) == 5
    assert control.max() < 85
    assert choose_pairs(scores, names_of(100), np.ones(100, bool), 1)[0].tolist() == [99]


def test_rows_that_may_not_be_sent_or_have_no_score_are_not_chosen() -> None:
    scores = np.array([np.nan, 5, 4, 3])
    suspicious, control = choose_pairs(scores, names_of(4), np.array([True, False, True, True]), 100)
    assert [*suspicious, *control] == [2, 3]


@pytest.mark.parametrize("rows", [4, 20, 100])
def test_a_set_that_is_smaller_than_the_budget_has_a_control_part_too(rows: int) -> None:
    suspicious, control = choose_pairs(np.arange(float(rows)), names_of(rows), np.ones(rows, bool), 200)
    assert len(control) == rows // 4
    assert len(suspicious) + len(control) == rows


@given(st.permutations(range(30)))
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    scores, names = np.arange(30.0) // 4, names_of(30)
    chosen = choose_pairs(scores, names, np.ones(30, bool), 12)
    again = choose_pairs(scores[order], [names[row] for row in order], np.ones(30, bool), 12)
    for rows, others in zip(chosen, again, strict=True):
        assert [names[row] for row in rows] == [names[order[row]] for row in others]


def test_a_larger_budget_asks_about_all_suspicious_pairs_again_and_nearly_all_others() -> None:
    small, large = (set(np.concatenate(choose_pairs(np.arange(500.0), names_of(500), np.ones(500, bool), budget)))
                    for budget in (40, 80))  # fmt: skip
    assert small <= large


def drawn(n: int, alarms: float, sensitivity: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    """(probability, truth, says_wrong, is_control): calibrated probabilities, and a judge of known rates."""
    rng = np.random.default_rng(seed)
    is_control = np.arange(n) < n // 2
    probability = np.where(is_control, rng.uniform(0, 0.1, n), rng.uniform(0, 1, n))
    wrong = rng.random(n) < probability
    says = rng.random(n) < np.where(wrong, sensitivity, alarms)
    return probability.astype(np.float32), wrong, says, is_control


@pytest.mark.parametrize(("alarms", "sensitivity"), [(0.05, 0.9), (0.2, 0.7), (0.4, 0.95)])
def test_the_rates_of_a_judge_are_found_without_knowing_the_truth(alarms: float, sensitivity: float) -> None:
    probability, wrong, says, is_control = drawn(6000, alarms, sensitivity)
    after, rates = combine(probability, says, is_control)
    assert rates
    assert rates.false_alarms == pytest.approx(alarms, abs=0.05)
    assert rates.sensitivity == pytest.approx(sensitivity, abs=0.05)

    def brier(values: np.ndarray) -> float:
        return float(np.square(values - wrong).mean())

    assert brier(after) < brier(probability)
    for tenth in range(10):  # calibrated before, calibrated after
        rows = (after * 10).astype(int) == tenth
        if rows.sum() > 100:
            error = 4 * np.sqrt(after[rows].mean() * (1 - after[rows].mean()) / rows.sum())
            assert after[rows].mean() == pytest.approx(wrong[rows].mean(), abs=error)


def test_bayes_rule_by_hand() -> None:
    # no control pair: a stays at its prior mean 0.2; one pair of p = 0.5, found wrong, with s the fixed point of
    # s = (4 + p') / (5 + p') and p' = s / (s + 0.2)
    after, rates = update(np.array([0.5]), np.array([True]), np.array([False]))
    p = after[0]
    assert rates.false_alarms == pytest.approx(0.2)
    assert rates.sensitivity == pytest.approx((4 + p) / (5 + p), abs=1e-6)
    assert p == pytest.approx(rates.sensitivity / (rates.sensitivity + 0.2), abs=1e-6)


@pytest.mark.parametrize("says_wrong", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4, 8, 20, 60, 500])
def test_a_judge_that_always_says_the_same_changes_nothing(says_wrong: bool, count: int) -> None:
    probability = np.linspace(0.05, 0.95, count).astype(np.float32)
    after, rates = combine(probability, np.full(count, says_wrong), np.arange(count) < count // 2)
    assert rates is None
    assert np.array_equal(after, probability)


def test_a_judge_that_says_the_opposite_changes_nothing() -> None:
    probability, _, says, is_control = drawn(2000, 0.9, 0.1)
    after, rates = combine(probability, says, is_control)
    assert rates is None
    assert np.array_equal(after, probability)


@pytest.mark.parametrize("count", [2, 4, 8, 12, 20, 40, 200])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_few_judges_that_toss_coins_change_anything(rate: float, count: int) -> None:
    passed = 0
    for seed in range(100):
        probability, _, says, is_control = drawn(count, rate, rate, seed)
        after, rates = combine(probability, says, is_control)
        assert rates or np.array_equal(after, probability)
        passed += rates is not None
    assert passed <= 12  # 5 are expected


@pytest.mark.parametrize(("count", "least"), [(40, 18), (200, 20)])
def test_good_judges_do(count: int, least: int) -> None:
    found = [combine(p, says, control)[1] for p, _, says, control in (drawn(count, 0.1, 0.9, s) for s in range(20))]
    assert sum(rates is not None for rates in found) >= least


def test_nothing_is_estimated_without_probabilities_or_control_pairs() -> None:
    probability, _, says, is_control = drawn(200, 0.1, 0.9)
    unknown = np.full(200, np.nan, np.float32)
    assert combine(unknown, says, is_control)[1] is None
    assert combine(probability, says, is_control & (np.arange(200) < LEAST_CONTROL - 1))[1] is None


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1, width=32) | st.just(float("nan")), st.booleans(), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_any_answers_give_probabilities_and_keep_what_is_unknown(pairs: list[tuple[float, bool, bool]]) -> None:
    probability = np.array([p for p, _, _ in pairs], dtype=np.float32)
    after, rates = combine(probability, np.array([w for _, w, _ in pairs]), np.array([c for _, _, c in pairs]))
    assert np.array_equal(np.isnan(after), np.isnan(probability))
    known = after[~np.isnan(after)]
    assert ((known >= 0) & (known <= 1)).all()
    assert rates is None or all(0 < rate < 1 for rate in rates)
