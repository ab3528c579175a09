from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin import memorization as mm


def units(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.standard_normal(shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


# --- masks ---------------------------------------------------------------------------------------------------------

group_lists = st.lists(st.integers(0, 12), min_size=2, max_size=40).map(np.array)


@settings(deadline=None)
@given(group_lists, st.integers(0, 5))
def test_masks_are_complementary_balanced_and_keep_groups_together(groups: np.ndarray, seed: int) -> None:
    member = mm.member_masks(groups, 8, seed)
    assert member.shape == (8, len(groups))
    assert (member[0::2] == ~member[1::2]).all()
    for group in np.unique(groups):
        assert (member[:, groups == group].sum(1) % (groups == group).sum() == 0).all()
    largest = np.bincount(groups).max()  # a cut anywhere in the drawn order misses the half by less than a group
    assert (np.abs(member.sum(1) - len(groups) / 2) < max(largest, 1)).all()


@settings(deadline=None)
@given(group_lists, st.integers(0, 5))
def test_masks_do_not_depend_on_the_number_of_trials_or_on_names(groups: np.ndarray, seed: int) -> None:
    member = mm.member_masks(groups, 12, seed)
    assert (mm.member_masks(groups, 4, seed) == member[:4]).all()
    assert (mm.member_masks(1000 - 7 * groups, 12, seed) == member).all()


def test_masks_differ_between_pairs_and_seeds() -> None:
    member = mm.member_masks(np.arange(64), 8, 0)
    assert len({row.tobytes() for row in member}) == 8
    assert (member != mm.member_masks(np.arange(64), 8, 1)).any()
    assert (member.sum(1) == 32).all()


def test_every_sample_is_a_member_in_half_of_the_trials() -> None:
    assert (mm.member_masks(np.arange(33) // 2, 10, 3).sum(0) == 5).all()


# --- cross-modal consistency ---------------------------------------------------------------------------------------


def matrix_form(embeddings: list[np.ndarray], member: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The definition, sample by sample: 1'PP'1/2 less the mean over the reference of 1'P_x P_h'1/2."""
    phi = np.stack(embeddings, axis=1).astype(np.float64)  # [n, m, d]
    ones = np.ones(phi.shape[1])
    out = np.full(len(phi), np.nan)
    for x in range(len(phi)):
        reference = np.flatnonzero(~member & (groups != groups[x]))
        if len(reference):
            own = ones @ phi[x] @ phi[x].T @ ones
            out[x] = 0.5 * own - 0.5 * np.mean([ones @ phi[x] @ phi[h].T @ ones for h in reference])
    return out


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_closed_form_is_the_matrix_form_without_the_own_group(m: int) -> None:
    rng = np.random.default_rng(m)
    embeddings = [units(rng, 14, 5) for _ in range(m)]
    groups = np.array([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    member = mm.member_masks(groups, 2, 0)[0]
    got = mm.consistency(embeddings, member, groups)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, matrix_form(embeddings, member, groups), atol=2e-6)


def test_consistency_by_hand() -> None:
    # Two modalities in the plane. v(0) = (1,0)+(1,0) = (2,0); the reference of 0 is row 1 with v = (0,1)+(1,0) = (1,1).
    # CMC(0) = (2*2 + 0)/2 - (2*1 + 0*1)/2 = 2 - 1 = 1. Row 1 has no reference but itself.
    image = np.array([[1, 0], [0, 1]], np.float32)
    text = np.array([[1, 0], [1, 0]], np.float32)
    got = mm.consistency([image, text], np.array([True, False]), np.array([0, 1]))
    assert got[0] == 1
    assert np.isnan(got[1])


@pytest.mark.parametrize("m", [2, 3, 4])
def test_multimem_of_all_modalities_is_the_sum_over_pairs_and_the_own_terms(m: int) -> None:
    """MM_all = sum over pairs MM_ab + (m-2)/2 * sum over a of the change of <phi_a, mean of phi_a over H>.

    1/2<v,v> holds m halves (|phi_a| = 1) that cancel between two models. -1/2<v, v_H> holds each same-modality term
    once, the pairs together hold it m-1 times: the sum over pairs has (m-2) times -1/2<phi_a, phi_a,H> too much.
    """
    rng = np.random.default_rng(10 + m)
    groups, member = np.arange(12), np.arange(12) % 2 == 0
    models = [[units(rng, 12, 6) for _ in range(m)] for _ in range(2)]

    def change(value: object) -> np.ndarray:
        f, g = (value(model) for model in models)  # type: ignore[operator]
        return f - g

    every = change(lambda e: mm.consistency(e, member, groups))
    pairs = sum(
        change(lambda e, a=a, b=b: mm.consistency([e[a], e[b]], member, groups))
        for a, b in itertools.combinations(range(m), 2)
    )

    def own_terms(embeddings: list[np.ndarray]) -> np.ndarray:
        total = np.zeros(12)
        for phi in embeddings:
            for x in range(12):
                reference = np.flatnonzero(~member & (groups != groups[x]))
                total[x] += phi[x] @ phi[reference].mean(0)
        return total

    np.testing.assert_allclose(every, pairs + (m - 2) / 2 * change(own_terms), atol=5e-6)


def test_consistency_follows_its_rows_and_leaves_its_input_alone() -> None:
    rng = np.random.default_rng(3)
    embeddings, groups = [units(rng, 20, 4), units(rng, 20, 4)], rng.integers(0, 8, 20)
    member, order = rng.random(20) < 0.5, rng.permutation(20)
    copies = [e.copy() for e in embeddings]
    got = mm.consistency(embeddings, member, groups)
    moved = mm.consistency([e[order] for e in embeddings], member[order], groups[order])
    np.testing.assert_allclose(moved, got[order], atol=1e-6)
    assert all((a == b).all() for a, b in zip(embeddings, copies, strict=True))


# --- the estimator -------------------------------------------------------------------------------------------------

MEMBER = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]], bool)
VALUES = np.array([[5, 4, 1, 3], [2, 2, 6, 4], [7, 1, 6, 1], [3, 4, 2, 6]], np.float32)


def test_offsets_are_the_means_over_non_members() -> None:
    # trial 0: non-members 1 and 3, mean 2; trial 1: 2 and 2, mean 2; trial 2: 1 and 1; trial 3: 3 and 2, mean 2.5
    want = VALUES - np.array([[2], [2], [1], [2.5]])
    np.testing.assert_allclose(mm.remove_offsets(VALUES, MEMBER), want)


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_drift_common_to_a_trial_is_not_memory(drift: list[float]) -> None:
    shifted = VALUES + np.array(drift, np.float32)[:, None]
    plain = mm.multimem(mm.remove_offsets(VALUES, MEMBER), MEMBER)[0]
    np.testing.assert_allclose(mm.multimem(mm.remove_offsets(shifted, MEMBER), MEMBER)[0], plain, atol=1e-4)


def test_multimem_and_its_error_by_hand() -> None:
    # differences in minus out, pair 0: 5-2, 4-2, 6-1, 4-3 = 3 2 5 1; pair 1: 7-3, 4-1, 6-2, 6-1 = 4 3 4 5
    np.testing.assert_array_equal(mm.pair_differences(VALUES, MEMBER), [[3, 2, 5, 1], [4, 3, 4, 5]])
    mean, error = mm.multimem(VALUES, MEMBER)
    np.testing.assert_allclose(mean, [3.5, 2.5, 4.5, 3])
    # with two differences s_d = |d1 - d2| / sqrt 2, so the error is |d1 - d2| / 2
    np.testing.assert_allclose(error, [0.5, 0.5, 0.5, 2], rtol=1e-6)
    assert mean.dtype == error.dtype == np.float32


def test_the_score_is_the_member_mean_less_the_other_mean() -> None:
    rng = np.random.default_rng(0)
    member, values = mm.member_masks(np.arange(30), 10, 0), rng.standard_normal((10, 30)).astype(np.float32)
    want = [values[member[:, x], x].mean() - values[~member[:, x], x].mean() for x in range(30)]
    np.testing.assert_allclose(mm.multimem(values, member)[0], want, atol=1e-6)


def test_one_pair_gives_no_error_bar_and_no_reliability() -> None:
    mean, error = mm.multimem(VALUES[:2], MEMBER[:2])
    assert mean.tolist() == [3, 2, 5, 1]
    assert np.isnan(error).all()
    assert np.isnan(mm.reliability(VALUES[:2], MEMBER[:2]))


def test_held_out_mean_by_hand() -> None:
    # sample 0 is no member in trials 1 and 3: (2 + 3) / 2; sample 1 in 1, 2; sample 2 in 0, 3; sample 3 in 0, 2
    np.testing.assert_allclose(mm.held_out_mean(VALUES, MEMBER), [2.5, 1.5, 1.5, 2])


def test_standard_error_covers_the_truth() -> None:
    """With noise of known size, the error bar of 16 pairs must be that noise over 4, times sqrt 2 for a difference."""
    rng = np.random.default_rng(1)
    member = mm.member_masks(np.arange(400), 32, 0)
    values = (member * 0.5 + rng.standard_normal((32, 400))).astype(np.float32)
    mean, error = mm.multimem(values, member)
    assert np.median(error) == pytest.approx(np.sqrt(2) / 4, rel=0.05)
    assert np.mean(np.abs(mean - 0.5) < 2.13 * error) == pytest.approx(0.95, abs=0.03)  # t quantile, 15 degrees


def test_reliability_knows_noise_from_signal() -> None:
    rng = np.random.default_rng(2)
    member = mm.member_masks(np.arange(2000), 16, 0)
    signal, noise = rng.standard_normal(2000), rng.standard_normal((16, 2000))
    pure = mm.reliability(noise.astype(np.float32), member)
    assert abs(pure) < 0.15
    # a difference is signal + noise of variance 2: with 8 pairs, reliability = 1 / (1 + 2/8) = 0.8
    assert mm.reliability((member * signal + noise).astype(np.float32), member) == pytest.approx(0.8, abs=0.03)
    assert np.isnan(mm.reliability(np.zeros((16, 2000), np.float32), member))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 0.79), st.integers(1, 40))
def test_the_named_number_of_trials_reaches_the_target(measured: float, half: int) -> None:
    trials = 2 * half
    need = mm.trials_needed(measured, trials)
    factor = need / trials
    assert need % 2 == 0
    assert factor * measured / (1 + (factor - 1) * measured) >= 0.8 - 1e-9
    fewer = (need - 2) / trials
    assert fewer * measured / (1 + (fewer - 1) * measured) < 0.8 + 1e-9


def test_trials_needed_without_a_usable_measurement_stays() -> None:
    assert mm.trials_needed(float("nan"), 16) == mm.trials_needed(-0.2, 16) == mm.trials_needed(0.95, 16) == 16
