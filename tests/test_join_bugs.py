from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from audit_plugin.scoring.suggest.join_bugs import (
    CHANGE,
    MIN_ROWS,
    Ends,
    Shift,
    _best_path,
    _best_segment,
    _joined,
    _log_odds,
    batch_rows,
    batch_text,
    cycles,
    find_shifts,
    left_over,
    one_to_one,
    possible_ends,
    ring_repair,
    sharpen,
    shift_sentence,
)

OFFSETS = np.r_[-50:0, 1:51]


def noise(n: int, seed: int, blocks: bool = False) -> np.ndarray:
    """Gains of a clean set: own captions fit better; in blocks, neighbors in the file are much alike."""
    rng = np.random.default_rng(seed)
    gains = rng.normal(-1, 0.7, (len(OFFSETS), n))
    if blocks:
        alike = (np.arange(n) // 40) % 5 == 0
        gains[:, alike] = rng.normal(-0.1, 0.3, (len(OFFSETS), alike.sum()))
    return gains


# --- shifts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [False, True])
def test_a_clean_set_of_30000_rows_has_no_shift(blocks: bool) -> None:
    assert find_shifts(noise(30_000, 1, blocks), OFFSETS, len(OFFSETS)) == []


@pytest.mark.parametrize(("offset", "start", "length"), [(-1, 600, 200), (3, 0, 200), (50, 1700, 200), (2, 900, 40)])
def test_a_planted_shift_is_found_with_its_bounds(offset: int, start: int, length: int) -> None:
    gains = noise(2000, 2)
    k = int(np.flatnonzero(offset == OFFSETS)[0])
    gains[k, start : start + length] = np.random.default_rng(3).normal(1, 0.7, length)
    (found,) = find_shifts(gains, OFFSETS, len(OFFSETS))
    assert found.offset == offset
    assert abs(found.start - start) <= 2
    assert abs(found.stop - start - length) <= 2


def test_several_shifts_are_found_each_by_its_own_offset() -> None:
    gains = noise(3000, 4)
    rng = np.random.default_rng(5)
    for offset, start in ((-1, 200), (1, 900), (-7, 2000)):
        gains[offset == OFFSETS, start : start + 150] = rng.normal(1, 0.7, 150)
    found = find_shifts(gains, OFFSETS, len(OFFSETS))
    assert sorted((s.start // 100, s.offset) for s in found) == [(2, -1), (9, 1), (20, -7)]


def test_rows_that_fit_everything_around_them_are_no_shift() -> None:
    gains = noise(2000, 6)
    gains[:, 700:800] = np.random.default_rng(7).normal(0.5, 0.5, (len(OFFSETS), 100))  # at every offset alike
    assert find_shifts(gains, OFFSETS, len(OFFSETS)) == []


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [40, 120, 600])
def test_alike_neighbors_in_a_file_are_no_wide_shift(n: int, seed: int) -> None:
    """Families of ten alike rows in file order, and a list that repeats itself every sixth row: nothing is wrong."""
    rng = np.random.default_rng(seed)
    row = np.arange(n)
    other = row + OFFSETS[:, None]
    inside = (other >= 0) & (other < n)
    for alike in (other // 10 == row // 10, (other - row) % 6 == 0):
        gains = np.where(alike, rng.normal(-0.05, 0.5, inside.shape), rng.normal(-1, 0.5, inside.shape))
        assert find_shifts(np.where(inside, gains, np.nan), OFFSETS, len(OFFSETS)) == []


def test_overlapping_shifts_are_separated_by_what_fits_best() -> None:
    """Between two dropped rows, both the own caption and that at the second offset are wrong: gains of 0 on average."""
    rng = np.random.default_rng(9)
    gains = rng.normal(0, 0.7, (len(OFFSETS), 400))
    gains[:, :80] -= 1
    for offset, rows in ((-1, slice(80, 200)), (-2, slice(200, 400))):
        gains[offset == OFFSETS, rows] = rng.normal(1, 0.5, rows.stop - rows.start)
    found = {shift.offset: shift for shift in find_shifts(gains, OFFSETS, len(OFFSETS))}
    assert sorted(found) == [-2, -1]
    assert abs(found[-1].start - 80) <= 2
    assert abs(found[-1].stop - 200) <= 2
    assert (found[-2].start, found[-2].stop) == (found[-1].stop, 400)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_no_shift_by_itself_is_none_beside_others(seed: int) -> None:
    """Rows that fit everything around them, and, further down, two dropped rows; many refused segments before these."""
    rng = np.random.default_rng(seed)
    gains = rng.normal(-1, 0.7, (len(OFFSETS), 2000))
    gains[:, 300:400] = rng.normal(0.5, 0.5, (len(OFFSETS), 100))
    assert find_shifts(gains, OFFSETS, len(OFFSETS)) == []
    gains[:, 1000:] = rng.normal(0, 0.7, (len(OFFSETS), 1000))
    for offset, rows in ((-1, slice(1000, 1500)), (-2, slice(1500, 2000))):
        gains[offset == OFFSETS, rows] = rng.normal(1, 0.5, 500)
    found = find_shifts(gains, OFFSETS, len(OFFSETS))
    assert sorted(shift.offset for shift in found) == [-2, -1]
    assert all(shift.start > 950 for shift in found)


@given(arrays(np.int8, st.tuples(st.integers(1, 3), st.integers(1, 6)), elements=st.integers(-3, 9)))
def test_the_path_through_the_offsets_is_the_best_of_all(scores: np.ndarray) -> None:
    scores = scores.astype(float)

    def worth(path: tuple[int, ...]) -> float:
        return float(scores[list(path), np.arange(len(path))].sum()) - CHANGE * sum(map(int.__ne__, path, path[1:]))

    every = itertools.product(range(len(scores)), repeat=scores.shape[1])
    assert worth(tuple(_best_path(scores).tolist())) == max(map(worth, every))


def test_unknown_and_shared_rows_say_nothing() -> None:
    gains = noise(1000, 8)
    assert find_shifts(np.full_like(gains, np.nan), OFFSETS, len(OFFSETS)) == []
    gains[:, 300:700] = np.nan  # one label, or five captions of one image
    assert find_shifts(gains, OFFSETS, len(OFFSETS)) == []
    assert find_shifts(np.zeros((2, 0)), np.array([-1, 1]), 2) == []
    assert find_shifts(np.zeros((0, 50)), np.zeros(0, np.int64), 0) == []
    assert find_shifts(gains[:, :5], OFFSETS, len(OFFSETS)) == []


@given(arrays(np.int8, st.integers(MIN_ROWS, 40), elements=st.integers(-3, 3)))
def test_the_best_segment_is_that_of_the_double_loop(values: np.ndarray) -> None:
    values = values.astype(float)
    n = len(values)
    sums = [values[a:b].sum() for a in range(n) for b in range(a + MIN_ROWS, n + 1)]
    found = _best_segment(values, 4, 2.0)
    assert found.strength == 2 * max(sums)
    assert values[found.start : found.stop].sum() * 2 == found.strength
    assert found.stop - found.start >= MIN_ROWS


def test_neighboring_parts_of_one_shift_are_joined() -> None:
    parts = [Shift(1, 0, 40, 30.0), Shift(1, 60, 100, 50.0), Shift(2, 41, 59, 20.0), Shift(1, 300, 340, 90.0)]
    assert _joined(parts) == [Shift(1, 300, 340, 90.0), Shift(1, 0, 100, 80.0), Shift(2, 41, 59, 20.0)]


def test_bounds_move_to_where_the_sum_is_largest() -> None:
    gains = np.where((np.arange(100) >= 20) & (np.arange(100) < 80), 1.0, -1.0)
    none = np.zeros(100)
    assert sharpen(Shift(1, 28, 71, 9.0), gains, none, none) == Shift(1, 20, 80, 9.0)
    assert sharpen(Shift(-1, 12, 99, 9.0), gains, none, none) == Shift(-1, 20, 80, 9.0)
    gains[[20, 79]] = np.nan  # rows that say nothing are taken along
    assert sharpen(Shift(1, 28, 71, 9.0), gains, none, none) == Shift(1, 20, 80, 9.0)


def spread(inside: float, outside: float) -> np.ndarray:
    """100 gains around 1 in rows 20 to 79 and around -1 elsewhere, with these deviations, without chance."""
    is_in = (np.arange(100) >= 20) & (np.arange(100) < 80)
    wave = np.array([-1.0, 0.0, 1.0])[np.arange(100) % 3] * 0.6745  # their median is 0, that of their size 0.6745
    return np.where(is_in, 1 + inside * wave, -1 + outside * wave)


def test_ends_that_the_gains_tell_are_known() -> None:
    none = np.zeros(100)
    ends = possible_ends(Shift(1, 20, 80, 9.0), spread(0.3, 0.3), none, none)
    assert ends == Ends((20, 20), (80, 80))
    assert ends.open_rows == []


def test_ends_do_not_reach_over_rows_of_another_shift() -> None:
    taken = np.zeros(100, bool)
    ends = Ends((10, 20), (80, 90))
    assert ends.outside(taken) == ends
    taken[[12, 15, 30, 84, 95]] = True
    assert ends.outside(taken) == Ends((16, 20), (80, 84))


def test_rows_that_say_nothing_leave_an_end_open() -> None:
    gains, none = spread(0.3, 0.3), np.zeros(100)
    gains[75:85] = np.nan
    ends = possible_ends(Shift(1, 20, 80, 9.0), gains, none, none)
    assert ends == Ends((20, 20), (75, 85))
    assert ends.open_rows == list(range(75, 85))


def test_a_shift_of_few_known_rows_keeps_the_ends_that_its_gains_tell() -> None:
    """Too few rows for a deviation of their own: the gains themselves are summed, and its batch is not lost."""
    gains, none = np.full(100, -1.0), np.zeros(100)
    gains[40:50] = 1.0
    gains[[44, 45]] = np.nan  # 8 known rows
    ends = possible_ends(Shift(1, 40, 50, 9.0), gains, none, none)
    assert ends == Ends((38, 42), (48, 52))  # each row says 1, and log 20 is 2.996
    gains[40:50] = 3.0
    gains[:40] = gains[50:] = -3.0
    assert possible_ends(Shift(1, 40, 50, 9.0), gains, none, none) == Ends((40, 40), (50, 50))


def test_ends_are_open_as_far_as_the_odds_allow() -> None:
    """Against sums by hand; deviations 1, medians 1 and -1, so that the log odds of a gain g are about 2 g."""
    gains, none = spread(1.0, 1.0), np.zeros(100)
    gains[76:80] = [0.3, 0.4, 0.5, 0.6]
    inside = (np.arange(100) >= 20) & (np.arange(100) < 80)
    odds = []
    for gain in gains:
        logs = []
        for values in (gains[inside], gains[~inside]):
            middle = np.median(values)
            logs.append(norm.logpdf(gain, middle, 1.4826 * np.median(np.abs(values - middle))))
        odds.append(logs[0] - logs[1])
    np.testing.assert_allclose(_log_odds(gains, inside), np.clip(odds, -6, 6))
    assert odds[78] == pytest.approx(1.0, abs=0.2)
    sums = {stop: sum(odds[:stop]) for stop in range(60, 101)}
    likely = [stop for stop, value in sums.items() if np.exp(value - max(sums.values())) >= 0.05]
    found = possible_ends(Shift(1, 20, 80, 9.0), gains, none, none).stops
    assert found == (likely[0], likely[-1])
    assert found[0] < 80


@pytest.mark.parametrize(("offset", "lost"), [(1, [80]), (2, [80, 81]), (-1, [19]), (-3, [17, 18, 19])])
def test_a_bound_lies_where_the_rows_beside_it_lost_their_captions(offset: int, lost: list[int]) -> None:
    gains = np.where((np.arange(100) >= 20) & (np.arange(100) < 80), 1.0, -1.0)
    gains[[19, 18, 17, 80, 81, 82]] = 0.1  # by chance the next rows fit the shifted captions a little too
    misfit = np.full(100, -1.0)
    misfit[20:80] = misfit[lost] = 1.0
    found = sharpen(Shift(offset, 25, 75, 9.0), gains, misfit, np.zeros(100))
    near = left_over(found, 100)[0]
    assert near.tolist() == lost


@pytest.mark.parametrize(("offset", "row"), [(1, 22), (-1, 77)])
def test_a_caption_that_stands_twice_marks_where_a_shift_begins(offset: int, row: int) -> None:
    gains = np.where((np.arange(100) >= 20) & (np.arange(100) < 80), 0.5, -0.5)
    repeated = np.zeros(100)
    repeated[row] = 5.0
    found = sharpen(Shift(offset, 30, 70, 9.0), gains, np.zeros(100), repeated)
    assert (found.start, found.stop) == ((22, 80) if offset > 0 else (20, 78))


@pytest.mark.parametrize(
    ("offset", "near", "far"), [(-1, [9], [19]), (-2, [8, 9], [18, 19]), (3, [20, 21, 22], [10, 11, 12])]
)
def test_a_block_that_went_round_is_closed(offset: int, near: list[int], far: list[int]) -> None:
    rows, captions = left_over(Shift(offset, 10, 20, 1.0), 50)
    assert (rows.tolist(), captions.tolist()) == (near, far)
    takes = dict(zip(range(10, 20), range(10 + offset, 20 + offset), strict=True)) | dict(zip(near, far, strict=True))
    assert sorted(takes) == sorted(takes.values())  # every caption of the block is used once


def test_nothing_is_left_over_beyond_the_table_or_around_a_far_shift() -> None:
    assert left_over(Shift(1, 10, 20, 1.0), 20)[0].tolist() == []
    assert left_over(Shift(-1, 0, 10, 1.0), 20)[0].tolist() == []
    assert left_over(Shift(300, 10, 20, 1.0), 2000)[0].tolist() == []


def test_a_shift_is_said_in_words() -> None:
    ids = [f"r{k}" for k in range(9)]
    assert shift_sentence(-2, (3, 3), (5, 5), ids, [1, 2]) == (
        "3 rows from r3 to r5 appear to hold captions shifted by 2: each fits the caption of the row 2 before it; "
        "the caption of r1, r2 is gone"
    )
    assert shift_sentence(1, (3, 3), (5, 5), ids, []).endswith("the row 1 after it")
    assert shift_sentence(1, (1, 2), (5, 7), ids, [8]) == (
        "4 to 7 rows from one of r1 to r2 to one of r5 to r7 appear to hold captions shifted by 1: each fits the "
        "caption of the row 1 after it; 1 caption beside that end may be gone"
    )
    text = shift_sentence(-2, (3, 4), (6, 6), ids, [1, 2])
    assert text.endswith("; 2 captions beside that end may be gone")  # which ones is not known, so none is named
    assert "r1" not in text


def test_what_a_batch_does_is_counted_for_people() -> None:
    repair = {"rows": [3, 4, 5, 6], "uncertain": [6, 7], "same": [4]}  # row 7 is in it only if it ends later
    assert batch_rows(repair) == ([3, 5], [6, 7], [4])
    assert batch_text(repair) == (
        "relabels 2 rows; asks about 2 rows at an end that is not certain; 1 row would get the same caption again"
    )
    assert batch_text({"rows": [1, 2]}) == "relabels 2 rows"  # of a former version


# --- one to one -----------------------------------------------------------------------------------------------------


def assigned(gain: np.ndarray, margin: float) -> np.ndarray:
    row, column = np.nonzero(gain > margin)
    return one_to_one(row, column, gain[row, column] - margin, len(gain))


@settings(deadline=None)  # scipy is imported on the first call
@given(arrays(np.int8, (4, 4), elements=st.integers(-4, 6)))
def test_the_assignment_is_the_best_of_all(gain: np.ndarray) -> None:
    gain = gain.astype(float)
    best = max(sum(max(gain[i, j] - 1, 0) for i, j in enumerate(order)) for order in itertools.permutations(range(4)))
    chosen = assigned(gain, 1.0)
    taken = chosen[chosen >= 0]
    assert len(set(taken.tolist())) == len(taken)
    assert sum(gain[i, j] - 1 for i, j in enumerate(chosen) if j >= 0) == best
    assert all(gain[i, j] > 1 for i, j in enumerate(chosen) if j >= 0)


def test_rows_without_gain_abstain() -> None:
    assert assigned(np.full((3, 3), np.nan), 0.0).tolist() == [-1, -1, -1]
    assert assigned(np.zeros((0, 0)), 0.0).tolist() == []
    two = np.array([[5.0, 4.0], [9.0, 2.0]])  # both want the first: who gains more has it
    assert assigned(two, 3.0).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("takes", "rings"),
    [
        ([1, 0, -1], [[0, 1]]),
        ([2, -1, 1], []),
        ([1, 2, 0, 4, 3], [[0, 1, 2], [3, 4]]),
        ([1, 2, 3, -1], []),
        ([-1, 0, 3, 2], [[2, 3]]),
    ],
)
def test_only_closed_rings_are_cycles(takes: list[int], rings: list[list[int]]) -> None:
    assert cycles(np.array(takes)) == rings


@given(st.permutations(range(8)))
def test_a_permutation_is_made_of_its_cycles(order: list[int]) -> None:
    rings = cycles(np.array(order))
    assert sorted(x for ring in rings for x in ring) == [i for i in range(8) if order[i] != i]
    assert all(order[a] == b for ring in rings for a, b in zip(ring, (*ring[1:], ring[0]), strict=True))


def test_a_ring_becomes_a_repair_that_json_holds() -> None:
    swap = ring_repair({4: 3.0, 2: 5.0}, list("abcdef"))
    assert (swap.kind, swap.rows, swap.sources, swap.gain) == ("swap", (4, 2), (2, 4), 4.0)
    assert swap.sentence == "e and c appear to hold each other's caption"
    cycle = ring_repair(dict.fromkeys((0, 3, 1), 2.0), list("abcdef"))
    assert (cycle.kind, cycle.sources) == ("cycle", (3, 1, 0))
    assert json.loads(json.dumps(cycle.to_dict())) == cycle.to_dict()
