from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audit_plugin.scoring.suggest.join_bugs import Repair
from audit_plugin.scoring.suggest.pair_scores import Weighing, weigh
from audit_plugin.scoring.suggest.shifts import NEAR, offset_gains, shift_repairs
from tests.relabel_fixtures import IDS, LINE, PAIR, N, mixed_up

SHIFT = slice(100, 180)


def repaired(repairs: list[Repair], takes: np.ndarray) -> np.ndarray:
    """Which row's caption each row holds after the repairs."""
    out = takes.copy()
    for repair in repairs:
        out[list(repair.rows)] = takes[list(repair.sources)]
    return out


@pytest.fixture(scope="module")
def rolled() -> tuple[Weighing, np.ndarray]:
    """From row 100 to 179 the captions went round by one."""
    takes = LINE.copy()
    takes[SHIFT] = np.roll(takes[SHIFT], -1)
    return weigh(mixed_up(takes), PAIR), takes


def test_a_block_that_went_round_is_mended(rolled: tuple[Weighing, np.ndarray]) -> None:
    weighing, takes = rolled
    repairs = shift_repairs(weighing, LINE, IDS)
    (repair,) = repairs
    assert (repair.kind, repair.rows[0], repair.rows[-1] + 1, repair.lost) == ("shift", SHIFT.start, SHIFT.stop, ())
    np.testing.assert_array_equal(repaired(repairs, takes), LINE)
    assert repair.gain > 1


def test_the_shift_is_sought_in_the_callers_order(rolled: tuple[Weighing, np.ndarray]) -> None:
    weighing = rolled[0]
    order = np.random.default_rng(1).permutation(N)
    assert shift_repairs(weighing, np.argsort(order), IDS) == []  # shuffled, it is no shift any more
    line = np.insert(LINE, 30, [-1, -1])  # two incomplete rows above it
    (found,) = shift_repairs(weighing, line, ["?"] * len(line))
    (usual,) = shift_repairs(weighing, LINE, IDS)
    assert found.rows == tuple(row + 2 for row in usual.rows)
    assert found.sources == tuple(row + 2 for row in usual.sources)


@pytest.mark.parametrize("step", [-1, 1, 3])
def test_a_lost_caption_is_said_and_not_invented(step: int) -> None:
    takes = LINE.copy()
    takes[SHIFT] += step  # captions at one end stand twice, those at the other end are gone
    repairs = shift_repairs(weigh(mixed_up(takes), PAIR), LINE, IDS)
    (repair,) = repairs
    gone = sorted(set(range(N)) - set(takes.tolist()))
    assert list(repair.lost) == gone
    assert "gone" in repair.sentence
    assert np.flatnonzero(repaired(repairs, takes) != LINE).tolist() == gone


@pytest.mark.parametrize("start", [5, 20, 60, 100, 140])
@pytest.mark.parametrize("step", [1, -2])
def test_a_row_dropped_anywhere_is_found_however_many_captions_are_wrong(start: int, step: int) -> None:
    takes = LINE.copy()
    takes[start:] = np.clip(takes[start:] + step, 0, N - 1)
    (repair,) = shift_repairs(weigh(mixed_up(takes, noise=0.3), PAIR), LINE, IDS)
    assert repair.offset == -step
    assert abs(repair.rows[0] - start) <= 3
    assert abs(repair.rows[-1] - (N - 1)) <= 3
    certain = np.setdiff1d(repair.rows, [*repair.uncertain, *repair.same])
    assert (repaired([repair], takes)[certain] == LINE[certain]).mean() > 0.97


@pytest.mark.parametrize(("first", "second"), [(100, 150), (100, 160), (60, 140), (40, 100)])
@pytest.mark.parametrize("noise", [0.1, 0.6])
def test_two_rows_that_were_dropped_are_two_shifts(first: int, second: int, noise: float) -> None:
    """From the first on captions are one too high up, from the second on two."""
    takes = LINE.copy()
    takes[first:second] += 1
    takes[second:] = np.minimum(takes[second:] + 2, N - 1)
    repairs = shift_repairs(weigh(mixed_up(takes, noise=noise), PAIR), LINE, IDS)
    by_offset = {repair.offset: repair for repair in repairs}
    assert sorted(by_offset) == [-2, -1]
    rows = [row for repair in repairs for row in repair.rows]
    assert len(set(rows)) == len(rows)
    one, two = by_offset[-1], by_offset[-2]
    assert abs(one.rows[0] - (first + 1)) <= 2
    assert abs(one.rows[-1] - second) <= 3
    assert abs(two.rows[0] - (second + 2)) <= 3
    certain = np.setdiff1d(rows, [row for repair in repairs for row in (*repair.uncertain, *repair.same)])
    assert (repaired(repairs, takes)[certain] == LINE[certain]).mean() > 0.95


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_scenes_of_alike_rows_have_no_far_shift(seed: int) -> None:
    """Frames of one scene after the other, all captions right: media of a scene fit its other captions as well."""
    rng = np.random.default_rng([seed, 1000])
    length = int(rng.integers(60, 200))
    hidden = rng.normal(size=(1000 // length + 1, 8)).repeat(length, 0)[:1000]
    hidden = hidden + 0.05 * rng.normal(size=hidden.shape)
    line = np.arange(1000)
    assert shift_repairs(weigh(mixed_up(line, hidden), PAIR), line, [f"id{row}" for row in line]) == []


def hidden_with_one_look(rows: slice) -> np.ndarray:
    """What the rows show, these all the same: any of them fits the caption of any other."""
    hidden = np.random.default_rng(11).standard_normal((N, 8))
    hidden[rows] = hidden[rows.start]
    return hidden


def test_an_end_among_equal_captions_is_a_range_and_nothing_there_is_relabeled() -> None:
    alike = slice(168, 192)  # one look and one caption: the shift ends at row 179, or anywhere in here
    takes = LINE.copy()
    takes[SHIFT] += 1
    takes[(takes >= alike.start) & (takes < alike.stop)] = alike.start
    (repair,) = shift_repairs(weigh(mixed_up(takes, hidden_with_one_look(alike), 0.3), PAIR), LINE, IDS)
    assert repair.first == (SHIFT.start + 1, SHIFT.start + 1)  # this end is clear
    low, high = repair.last
    assert low <= SHIFT.stop - 1 <= high
    assert low <= alike.start
    assert high >= alike.stop - 2
    assert "to one of" in repair.sentence
    inside = set(range(alike.start + 1, alike.stop))
    assert inside.intersection(repair.rows) <= set(repair.same)
    assert not inside.intersection(repair.uncertain)  # their captions stay the same whatever the end
    for row, source in zip(repair.rows, repair.sources, strict=True):
        assert (takes[row] == takes[source]) == (row in repair.same)


def test_an_end_among_media_that_look_alike_is_asked_about() -> None:
    """Captions differ, media do not: which of them a row shows cannot be seen, so a person is asked."""
    alike = slice(170, 188)
    takes = LINE.copy()
    takes[SHIFT] += 1
    (repair,) = shift_repairs(weigh(mixed_up(takes, hidden_with_one_look(alike), 0.3), PAIR), LINE, IDS)
    low, high = repair.last
    assert low <= SHIFT.stop - 1 <= high
    assert low < high
    assert set(range(low + 1, high + 1)) - {180} <= {*repair.uncertain, *repair.same}
    assert set(repair.uncertain) <= set(range(low + 1, high + 1))
    certain = set(repair.rows) - set(repair.uncertain) - set(repair.same)
    truth = takes[list(certain)] - 1  # what each certain row would take is its own caption
    assert truth.tolist() == sorted(certain, key=list(certain).index)


@pytest.mark.parametrize("step", [-2, 1])
def test_clear_ends_are_two_rows_and_nobody_is_asked(step: int) -> None:
    takes = LINE.copy()
    takes[SHIFT] += step
    (repair,) = shift_repairs(weigh(mixed_up(takes, noise=0.1), PAIR), LINE, IDS)
    assert repair.first[0] == repair.first[1]
    assert repair.uncertain == ()
    assert "one of" not in repair.sentence.split(" to ")[0]


def test_a_clean_set_and_one_with_scattered_wrong_captions_have_no_shift() -> None:
    assert shift_repairs(weigh(mixed_up(LINE), PAIR), LINE, IDS) == []
    takes = LINE.copy()
    takes[::5] = np.random.default_rng(2).permutation(takes[::5])
    assert shift_repairs(weigh(mixed_up(takes), PAIR), LINE, IDS) == []


def test_a_block_in_a_random_order_is_no_shift() -> None:
    takes = LINE.copy()
    takes[SHIFT] = np.random.default_rng(3).permutation(takes[SHIFT])
    assert shift_repairs(weigh(mixed_up(takes), PAIR), LINE, IDS) == []


def test_batches_that_changed_places_are_found_far_apart() -> None:
    takes = LINE.copy()
    assert NEAR < 80
    takes[20:55], takes[100:135] = LINE[100:135], LINE[20:55]
    repairs = shift_repairs(weigh(mixed_up(takes), PAIR), LINE, IDS)
    assert sorted(repair.sources[0] - repair.rows[0] for repair in repairs) == [-80, 80]
    np.testing.assert_array_equal(repaired(repairs, takes), LINE)


def test_gains_are_differences_of_contrasts(rolled: tuple[Weighing, np.ndarray]) -> None:
    weighing = rolled[0]
    offsets = np.array([-60, -1, 2])
    gains = offset_gains(weighing, LINE, offsets)
    evidence, hub = weighing.evidence, weighing.hubs["contrast"]
    member, spread = evidence.required_trials.member, weighing.scale["contrast"][1]
    for k, d in enumerate(offsets):
        for i in (0, 99, 140, N - 1):
            j = i + d
            trials = [t for t in range(len(member)) if 0 <= j < N and not member[t, i] and not member[t, j]]
            if not trials:
                assert np.isnan(gains[k, i])
                continue
            fit = np.mean([float((e := evidence.required_trials.embed(t))[0][i] @ e[1][j]) for t in trials])
            fall = weighing.own["contrast"][i] - (hub[0, i] + hub[1, j] - fit)
            assert gains[k, i] == pytest.approx(weighing.weights["contrast"] * fall / spread, abs=1e-3)


def test_encoders_that_share_a_space_are_asked_too(rolled: tuple[Weighing, np.ndarray]) -> None:
    evidence = rolled[0].evidence
    evidence = replace(evidence, space=dict.fromkeys(PAIR, "one"), weights={})
    shared = weigh(evidence, PAIR)
    plain = weigh(replace(evidence, space=dict.fromkeys(PAIR, "")), PAIR)
    both, one = (offset_gains(w, LINE, np.array([1]))[0, :-1] for w in (shared, plain))
    frozen = _from_frozen(shared)
    np.testing.assert_allclose(both - one, frozen, atol=1e-3, equal_nan=True)


def _from_frozen(weighing: Weighing) -> np.ndarray:
    """What the frozen encoders add to the gains of taking the next row's caption; NaN where trials say nothing."""
    x, y = (weighing.evidence.vectors[name] for name in PAIR)
    hub = weighing.hubs["zero_shot"][1]
    fall = (x[:-1] * (y[1:] - y[:-1])).sum(1) - hub[1:] + hub[:-1]
    known = np.isfinite(offset_gains(weighing, LINE, np.array([1]))[0, :-1])
    return np.where(known, weighing.weights["zero_shot"] / weighing.scale["zero_shot"][1] * fall, np.nan)


def test_rows_of_one_group_are_no_evidence(rolled: tuple[Weighing, np.ndarray]) -> None:
    evidence = rolled[0].evidence
    grouped = replace(evidence, leave_together=LINE // 120)
    assert shift_repairs(replace(rolled[0], evidence=grouped), LINE, IDS) == []
