from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from audit_plugin.arrays import AuditError
from audit_plugin.review.threshold_search import CONFIDENCE, ThresholdSearch, labels_needed, search_threshold, spending

# --- the test of one cut -----------------------------------------------------------------------------------------


def passes(right_rows: tuple[int, ...], needed: tuple[int, ...], size: int) -> bool:
    """Whether a cut passes when these draws are right rows: after any number of draws, few enough of them."""
    return any(
        sum(at < drawn for at in right_rows) == e and drawn >= m
        for drawn in range(size + 1)
        for e, m in enumerate(needed)
    )


SHARES = spending(0.9)


@pytest.mark.parametrize("precision", [0.9, 0.5])
@pytest.mark.parametrize(
    ("right", "size", "level"), [(1, 6, 0.2), (2, 9, 0.1), (2, 12, 0.3), (3, 12, 0.075), (5, 13, 0.2), (9, 12, 0.1)]
)
def test_a_false_cut_passes_at_most_as_often_as_its_level_allows(right, size, level, precision):
    """Naive reference: all orders, also those of more right rows than the least that makes the precision too low."""
    needed = labels_needed(right, size, level, spending(precision))
    assert list(needed) == sorted(needed)
    for more in range(right, size + 1):
        share = np.mean([passes(places, needed, size) for places in combinations(range(size), more)])
        assert share <= level + 1e-12


@pytest.mark.parametrize(("right", "size", "level"), [(3, 25, 0.075), (21, 200, 0.1), (100, 1000, 0.1)])
def test_without_right_rows_the_number_is_that_of_the_hypergeometric_test_of_half_the_level(right, size, level):
    chances = (comb(size - right, m) / comb(size, m) for m in range(size + 1))
    assert labels_needed(right, size, level, SHARES)[0] == next(
        m for m, chance in enumerate(chances) if chance <= level / 2
    )


@pytest.mark.parametrize("precision", [0.01, 0.5, 0.7, 0.9, 0.99])
def test_the_level_is_spent_step_by_step_and_wholly(precision):
    shares = spending(precision)
    assert 0 < shares[0] < shares[-1] == 1
    assert sorted(set(shares)) == list(shares)
    assert spending(0.9) == pytest.approx((0.5, 0.75, 0.875, 0.9375, 1))
    # a cut just good enough has a share 1 - p of right rows; as many as in 40 labels do not end a test
    assert len(shares) >= 40 * (1 - precision)


def test_what_needs_no_draw():
    assert labels_needed(0, 10, 0.1, SHARES) == ()  # too many right rows are known
    assert labels_needed(4, 3, 0.1, SHARES) == (0,)  # even if all others were right, the precision is kept


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 30), st.floats(0.001, 0.5))
def test_a_cut_that_is_labeled_whole_passes_if_it_keeps_the_precision(right, size, level):
    needed = labels_needed(right, size, level, SHARES)
    for e in range(min(right, len(needed))):
        assert needed[e] <= size


# --- the search --------------------------------------------------------------------------------------------------


def words_of(wrong: np.ndarray) -> dict[int, str]:
    return {row: "wrong" if is_wrong else "right" for row, is_wrong in enumerate(wrong.tolist())}


def kept(found: ThresholdSearch, scores: np.ndarray, wrong: np.ndarray, precision: float) -> bool:
    """Whether the rows at or above the threshold have the precision; no rows have none to lack."""
    chosen = scores >= found.threshold
    assert chosen.sum() == found.rows
    return not chosen.any() or wrong[chosen].sum() >= precision * chosen.sum() - 1e-9


def mixture(n: int = 800, rate: float = 0.1, shift: float = 4.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """(scores, truth, probability): wrong rows score `shift` deviations higher, and the model knows it."""
    rng = np.random.default_rng(seed)
    wrong = np.arange(n) < rate * n
    scores = rng.standard_normal(n) + shift * wrong
    odds = rate / (1 - rate) * np.exp(np.clip(shift * scores - shift**2 / 2, -30, 30))
    return scores, wrong, odds / (1 + odds)


def every(period: int, n: int, first: int = 0) -> np.ndarray:
    """Truth by rank, most suspicious first: of `period` rows one is right."""
    return (np.arange(n) + first) % period != 0


N = 300
ADVERSARIAL = {
    "just too low at every cut": every(9, N, 1),
    "just too low, right rows last": np.arange(N) < 0.89 * N,
    "right rows first": np.arange(N) >= 0.11 * N,
    "good up to a cliff": np.arange(N) < 40,
    "bad first, good later": np.concatenate([every(2, 40), np.ones(N - 40, bool)]),
    "good, then just too low": np.concatenate([np.ones(30, bool), every(7, N - 30)]),
    "every second one": every(2, N),
    "none": np.zeros(N, bool),
    "one lapse in eleven": every(11, N),
    "blocks": (np.arange(N) // 12) % 4 != 3,
    "nearly the precision, then nothing": np.concatenate([every(10, 60, 1), np.zeros(N - 60, bool)]),
}
BELIEFS = {"no model": None, "sure of all": np.ones(N), "sure of a third": (np.arange(N) < N / 3).astype(float)}
SEARCHES = 400


@pytest.mark.parametrize("belief", BELIEFS)
@pytest.mark.parametrize("truth", ADVERSARIAL)
@pytest.mark.parametrize("precision", [0.9, 0.5])
def test_the_guarantee_holds_for_any_truth_and_any_model(truth, belief, precision):
    wrong, scores = ADVERSARIAL[truth], -np.arange(N, dtype=float)
    results = [
        kept(search_threshold(scores, words_of(wrong), precision, BELIEFS[belief], 200, seed), scores, wrong, precision)
        for seed in range(SEARCHES)
    ]
    # if the guarantee holds, fewer are kept with probability 1e-5 at most
    assert sum(results) >= binom.ppf(1e-5, SEARCHES, CONFIDENCE)


@pytest.mark.parametrize("size", [5, 20, 40, 90])
def test_the_guarantee_holds_wherever_one_stops(size):
    """The set is at the limit: every cut from the start on is just too low."""
    wrong, scores = every(9, 2000, 1), -np.arange(2000, dtype=float)
    results = [
        kept(search_threshold(scores, words_of(wrong), 0.9, wrong * 1.0, size, seed), scores, wrong, 0.9)
        for seed in range(SEARCHES)
    ]
    assert sum(results) >= binom.ppf(1e-5, SEARCHES, CONFIDENCE)


@pytest.mark.parametrize(("shift", "rate", "share"), [(4.0, 0.1, 0.85), (6.0, 0.3, 0.9), (2.5, 0.05, 0.8)])
def test_most_of_what_the_best_threshold_finds_is_found_with_few_labels(shift, rate, share):
    scores, wrong, probability = mixture(1500, rate, shift)
    caught = np.cumsum(wrong[np.argsort(-scores)])
    best = max((int(c) for k, c in enumerate(caught, 1) if c >= 0.9 * k), default=0)
    found = [search_threshold(scores, words_of(wrong), 0.9, probability, seed=seed) for seed in range(40)]
    assert np.median([one.labeled for one in found]) <= 45
    assert np.mean([wrong[scores >= one.threshold].sum() for one in found]) >= share * best


@pytest.mark.parametrize(("precision", "share"), [(0.5, 0.76), (0.7, 0.7)])
def test_at_a_low_precision_right_rows_among_the_labels_do_not_end_the_search(precision, share):
    scores, wrong, probability = mixture(2000, 0.1, 2.0)
    caught = np.cumsum(wrong[np.argsort(-scores)])
    best = max(int(c) for k, c in enumerate(caught, 1) if c >= precision * k)
    found = [search_threshold(scores, words_of(wrong), precision, probability, seed=seed) for seed in range(40)]
    assert np.median([one.labeled for one in found]) == 40
    assert np.mean([wrong[scores >= one.threshold].sum() for one in found]) >= share * best


def test_without_a_signal_there_is_no_threshold_and_few_labels_tell():
    scores, wrong, probability = mixture(shift=0.0)
    found = [search_threshold(scores, words_of(wrong), 0.9, probability, seed=seed) for seed in range(20)]
    assert {one.threshold for one in found} == {float("inf")}
    assert max(one.labeled for one in found) < 30


# --- resume ------------------------------------------------------------------------------------------------------


def asked_one_by_one(scores: np.ndarray, answers: dict[int, str], **options) -> tuple[list[int], ThresholdSearch]:
    labels: dict[int, str] = {}
    rows = []
    while (found := search_threshold(scores, labels, **options)).next_row is not None:
        rows.append(found.next_row)
        labels[found.next_row] = answers[found.next_row]
    return rows, found


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.6, 0.9]), st.sampled_from([0.5, 2.0, 4.0]))
def test_the_labels_are_the_state(seed, precision, shift):
    scores, wrong, probability = mixture(150, 0.2, shift, seed)
    answers, options = words_of(wrong), {"precision": precision, "probability": probability, "seed": seed}
    rows, found = asked_one_by_one(scores, answers, **options)
    assert len(set(rows)) == len(rows) == found.labeled
    assert found.wrong == wrong[rows].sum()
    # all answers given beforehand, in any order: the same draws, so the same result
    assert search_threshold(scores, answers, **options) == found
    some = {row: answers[row] for row in reversed(rows[: len(rows) // 2])}
    if len(some) < len(rows):
        assert search_threshold(scores, some, **options).next_row == rows[len(some)]


def test_labels_of_rows_that_were_not_drawn_change_nothing():
    """A person who looks for wrong rows labels no random sample."""
    scores, wrong, probability = mixture()
    rows, found = asked_one_by_one(scores, words_of(wrong), probability=probability)
    chosen = {row: "wrong" for row in np.flatnonzero(wrong).tolist() if row not in rows}
    drawn = {row: words_of(wrong)[row] for row in rows}
    assert len(chosen) > 20
    assert search_threshold(scores, {**chosen, **drawn}, probability=probability) == found
    start = search_threshold(scores, {}, probability=probability)
    with_chosen = search_threshold(scores, chosen, probability=probability)
    assert (with_chosen.next_row, with_chosen.labeled) == (start.next_row, 0)


def test_unsure_counts_as_right():
    scores, wrong, probability = mixture(shift=2.5)
    as_unsure = {row: word.replace("right", "unsure") for row, word in words_of(wrong).items()}
    options = {"probability": probability, "precision": 0.8}
    assert search_threshold(scores, as_unsure, **options) == search_threshold(scores, words_of(wrong), **options)


def test_unsure_never_helps():
    scores, wrong, probability = mixture()
    words = words_of(wrong)
    doubtful = {row: "unsure" if row % 4 == 0 else word for row, word in words.items()}
    for seed in range(20):
        sure = search_threshold(scores, words, probability=probability, seed=seed, size=60)
        assert search_threshold(scores, doubtful, probability=probability, seed=seed, size=60).rows <= sure.rows


# --- what sets look like -----------------------------------------------------------------------------------------


def test_rows_of_the_same_score_are_never_parted():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 12, 400).astype(float)
    wrong = scores >= 9
    for seed in range(20):
        found = search_threshold(scores, words_of(wrong), seed=seed)
        assert found.rows == (scores >= found.threshold).sum()
        assert found.threshold in (9, 10, 11)


def test_rows_without_a_score_are_left_out():
    scores, wrong, _ = mixture()
    more = np.concatenate([[np.nan, -np.inf], scores])
    found = search_threshold(more, {0: "right", **{row + 2: word for row, word in words_of(wrong).items()}})
    plain = search_threshold(scores, words_of(wrong))
    assert (found.threshold, found.labeled) == (plain.threshold, plain.labeled)
    empty = search_threshold(np.full(3, np.nan), {}, probability=np.full(3, np.nan))
    assert (empty.next_row, empty.rows, empty.threshold) == (None, 0, float("inf"))


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_a_small_set_is_labeled_whole_and_known_exactly(count):
    scores = np.arange(count, dtype=float)
    found = search_threshold(scores, words_of(np.ones(count, bool)), 0.99)
    assert (found.rows, found.threshold, found.labeled) == (count, 0.0, count)
    assert search_threshold(scores, words_of(np.zeros(count, bool)), 0.99).rows == 0


def test_what_to_read_follows_the_model():
    scores, _, probability = mixture()
    ranked = probability[np.argsort(-scores)]
    read = search_threshold(scores, {}, probability=probability).read
    assert ranked[:read].sum() >= 0.8 * ranked.sum() > ranked[: read - 1].sum()
    assert search_threshold(scores, {}).read is None


def test_the_start_says_about_how_many_labels_are_missing():
    scores, wrong, probability = mixture()
    start = search_threshold(scores, {}, probability=probability)
    assert 20 <= start.about <= 60
    _, found = asked_one_by_one(scores, words_of(wrong), probability=probability)
    assert abs(found.labeled - start.about) <= 20


def test_errors_name_the_remedy():
    scores = np.arange(9.0)
    with pytest.raises(AuditError, match=r"precision 1\.0 is not between 0 and 1"):
        search_threshold(scores, {}, 1.0)
    with pytest.raises(AuditError, match="allow at least 1"):
        search_threshold(scores, {}, size=0)
    with pytest.raises(AuditError, match="'maybe' is unknown"):
        search_threshold(scores, {3: "maybe"})
