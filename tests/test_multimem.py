from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.arrays import Trials
from audit_plugin.trials import multimem


def units(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.standard_normal(shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


# --- masks ---------------------------------------------------------------------------------------------------------

group_lists = st.lists(st.integers(0, 12), min_size=2, max_size=40).map(np.array)


@settings(deadline=None)
@given(group_lists, st.integers(0, 5))
def test_masks_are_complementary_balanced_and_keep_groups_together(groups: np.ndarray, seed: int) -> None:
    member = multimem.member_masks(groups, 8, seed)
    assert member.shape == (8, len(groups))
    assert (member[0::2] == ~member[1::2]).all()
    for group in np.unique(groups):
        assert (member[:, groups == group].sum(1) % (groups == group).sum() == 0).all()
    largest = np.bincount(groups).max()  # a cut anywhere in the drawn order misses the half by less than a group
    assert (np.abs(member.sum(1) - len(groups) / 2) < max(largest, 1)).all()


@settings(deadline=None)
@given(group_lists, st.integers(0, 5))
def test_masks_do_not_depend_on_the_number_of_trials_or_on_names(groups: np.ndarray, seed: int) -> None:
    member = multimem.member_masks(groups, 12, seed)
    assert (multimem.member_masks(groups, 4, seed) == member[:4]).all()
    assert (multimem.member_masks(1000 - 7 * groups, 12, seed) == member).all()


def test_masks_differ_between_pairs_and_seeds() -> None:
    member = multimem.member_masks(np.arange(64), 8, 0)
    assert len({row.tobytes() for row in member}) == 8
    assert (member != multimem.member_masks(np.arange(64), 8, 1)).any()
    assert (member.sum(1) == 32).all()


def test_every_sample_is_a_member_in_half_of_the_trials() -> None:
    assert (multimem.member_masks(np.arange(33) // 2, 10, 3).sum(0) == 5).all()


@settings(deadline=None)
@given(group_lists, st.integers(2, 6), st.integers(0, 5))
def test_in_a_block_of_folds_every_sample_is_left_out_once_with_its_group(
    groups: np.ndarray, folds: int, seed: int
) -> None:
    member = multimem.member_masks(groups, 3 * folds, seed, folds)
    left_out = ~member.reshape(3, folds, len(groups))
    assert (left_out.sum(1) == 1).all()
    for group in np.unique(groups):
        assert (np.ptp(left_out[:, :, groups == group].astype(int), axis=2) == 0).all()
    if len(set(groups.tolist())) == len(groups):  # parts of single samples are as equal as can be
        assert np.ptp(left_out.sum(2)) <= 1


def former_rule(groups: np.ndarray, trials: int, seed: int) -> np.ndarray:
    """Halves as they were first drawn: groups in drawn order, up to half of the samples, are the first's members."""
    names, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    order = np.argsort(first, kind="stable")
    masks = []
    for pair in range(trials // 2):
        drawn = order[np.random.default_rng((seed, pair)).permutation(len(names))]
        inside = set(names[drawn[np.cumsum(sizes[drawn]) <= len(groups) / 2]].tolist())
        half = np.array([group in inside for group in groups])
        masks += [half, ~half]
    return np.stack(masks)


@settings(deadline=None)
@given(group_lists, st.integers(0, 5))
def test_two_folds_are_complementary_halves_bit_for_bit(groups: np.ndarray, seed: int) -> None:
    np.testing.assert_array_equal(multimem.member_masks(groups, 6, seed, folds=2), former_rule(groups, 6, seed))


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
    member = multimem.member_masks(groups, 2, 0)[0]
    got = multimem.consistency(embeddings, ~member, groups)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, matrix_form(embeddings, member, groups), atol=2e-6)


def test_consistency_by_hand() -> None:
    # Two modalities in the plane. v(0) = (1,0)+(1,0) = (2,0); the reference of 0 is row 1 with v = (0,1)+(1,0) = (1,1).
    # CMC(0) = (2*2 + 0)/2 - (2*1 + 0*1)/2 = 2 - 1 = 1. Row 1 has no reference but itself.
    image = np.array([[1, 0], [0, 1]], np.float32)
    text = np.array([[1, 0], [1, 0]], np.float32)
    got = multimem.consistency([image, text], np.array([False, True]), np.array([0, 1]))
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

    every = change(lambda e: multimem.consistency(e, ~member, groups))
    pairs = sum(
        change(lambda e, a=a, b=b: multimem.consistency([e[a], e[b]], ~member, groups))
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


@pytest.mark.parametrize("m", [2, 3, 4])
def test_every_question_is_a_sum_over_the_table_of_terms(m: int) -> None:
    """One table `[m, m, n]` answers for all modalities, for a pair and for all but one; each is also the definition."""
    rng = np.random.default_rng(20 + m)
    embeddings = [units(rng, 14, 5) for _ in range(m)]
    groups, reference = np.arange(14) // 2, rng.random(14) < 0.5
    terms = multimem.consistency_terms(embeddings, reference, groups)
    assert terms.shape == (m, m, 14)
    subsets = [s for size in range(2, m + 1) for s in itertools.combinations(range(m), size)]
    assert {len(s) for s in subsets} >= {2, m}
    for chosen in subsets:
        part = [embeddings[a] for a in chosen]
        want = matrix_form(part, ~reference, groups)
        np.testing.assert_allclose(multimem.sum_terms(terms, chosen), want, atol=1e-7)
        np.testing.assert_allclose(multimem.consistency(part, reference, groups), want, atol=2e-7 * m)
    np.testing.assert_array_equal(multimem.sum_terms(terms), multimem.sum_terms(terms, range(m)))


def test_how_many_groups_are_summed_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    embeddings = [units(rng, 60, 5) for _ in range(2)]
    groups, reference = rng.integers(0, 25, 60) ** 2, rng.random(60) < 0.5  # of all sizes, their rows apart
    whole = multimem.consistency_terms(embeddings, reference, groups)
    for block in (1, 7, 25):
        monkeypatch.setattr(multimem, "BLOCK", block)
        np.testing.assert_array_equal(multimem.consistency_terms(embeddings, reference, groups), whole)
        monkeypatch.undo()


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_closed_form_is_half_of_v_with_v_less_the_mean_of_v(m: int) -> None:
    rng = np.random.default_rng(30 + m)
    embeddings = [units(rng, 9, 5) for _ in range(m)]
    reference, v = np.arange(9) > 4, np.sum(embeddings, axis=0, dtype=np.float64)
    want = 0.5 * ((v * v).sum(1) - v @ v[reference].mean(0))
    outside = ~reference  # whose own group is not part of H
    np.testing.assert_allclose(
        multimem.consistency(embeddings, reference, np.arange(9))[outside], want[outside], atol=2e-6
    )


def clipmem(embeddings: list[np.ndarray], reference: np.ndarray) -> np.ndarray:
    """CLIPMem's alignment of every image with its text: s(I, T) - mean_h s(I, t_h) - mean_h s(i_h, T)."""
    image, text = (e.astype(np.float64) for e in embeddings)
    return (image * text).sum(1) - image @ text[reference].mean(0) - text @ image[reference].mean(0)


def test_with_two_modalities_multimem_differs_from_clipmem_by_the_stated_terms() -> None:
    """MM - CLIPMem = 1/2 d[s(I, t) + s(i, T)] - 1/2 d[s(I, i) + s(T, t)], d the change from g to f."""
    rng = np.random.default_rng(7)
    reference = np.arange(40) >= 30
    models = [[units(rng, 40, 6).astype(np.float64) for _ in range(2)] for _ in range(2)]
    f, g = (multimem.sum_terms(multimem.consistency_terms(model, reference, np.arange(40))) for model in models)

    def stated(embeddings: list[np.ndarray]) -> np.ndarray:
        image, text = embeddings
        i, t = image[reference].mean(0), text[reference].mean(0)
        return 0.5 * (image @ t + text @ i) - 0.5 * (image @ i + text @ t)

    difference = (f - g) - (clipmem(models[0], reference) - clipmem(models[1], reference))
    want = stated(models[0]) - stated(models[1])
    assert np.abs(want[:30]).max() > 0.05
    np.testing.assert_allclose(difference[:30], want[:30], atol=1e-6)


def test_consistency_follows_its_rows_and_leaves_its_input_alone() -> None:
    rng = np.random.default_rng(3)
    embeddings, groups = [units(rng, 20, 4), units(rng, 20, 4)], rng.integers(0, 8, 20)
    member, order = rng.random(20) < 0.5, rng.permutation(20)
    copies = [e.copy() for e in embeddings]
    got = multimem.consistency(embeddings, member, groups)
    moved = multimem.consistency([e[order] for e in embeddings], member[order], groups[order])
    np.testing.assert_allclose(moved, got[order], atol=1e-6)
    assert all((a == b).all() for a, b in zip(embeddings, copies, strict=True))


# --- the estimator -------------------------------------------------------------------------------------------------

MEMBER = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]], bool)
VALUES = np.array([[5, 4, 1, 3], [2, 2, 6, 4], [7, 1, 6, 1], [3, 4, 2, 6]], np.float32)


def test_offsets_are_the_means_over_non_members() -> None:
    # trial 0: non-members 1 and 3, mean 2; trial 1: 2 and 2, mean 2; trial 2: 1 and 1; trial 3: 3 and 2, mean 2.5
    want = VALUES - np.array([[2], [2], [1], [2.5]])
    np.testing.assert_allclose(multimem.remove_offsets(VALUES, MEMBER), want)


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_drift_common_to_a_trial_is_not_memory(drift: list[float]) -> None:
    shifted = VALUES + np.array(drift, np.float32)[:, None]
    plain = multimem.estimate_multimem(multimem.remove_offsets(VALUES, MEMBER), MEMBER)[0]
    np.testing.assert_allclose(
        multimem.estimate_multimem(multimem.remove_offsets(shifted, MEMBER), MEMBER)[0], plain, atol=1e-4
    )


def test_multimem_and_its_error_by_hand() -> None:
    # differences in minus out, pair 0: 5-2, 4-2, 6-1, 4-3 = 3 2 5 1; pair 1: 7-3, 4-1, 6-2, 6-1 = 4 3 4 5
    np.testing.assert_array_equal(multimem.block_differences(VALUES, MEMBER), [[3, 2, 5, 1], [4, 3, 4, 5]])
    mean, error = multimem.estimate_multimem(VALUES, MEMBER)
    np.testing.assert_allclose(mean, [3.5, 2.5, 4.5, 3])
    # with two differences s_d = |d1 - d2| / sqrt 2, so the error is |d1 - d2| / 2
    np.testing.assert_allclose(error, [0.5, 0.5, 0.5, 2], rtol=1e-6)
    assert mean.dtype == error.dtype == np.float32


def test_five_folds_by_hand() -> None:
    # one block of five; sample 0 is left out by trial 4, sample 1 by trial 0
    member = np.ones((5, 2), bool)
    member[4, 0] = member[0, 1] = False
    values = np.array([[4, 1], [5, 3], [6, 3], [5, 5], [2, 5]], np.float32)
    # 0: (4 + 5 + 6 + 5) / 4 - 2 = 3; 1: (3 + 3 + 5 + 5) / 4 - 1 = 3
    np.testing.assert_allclose(multimem.block_differences(values, member, 5), [[3, 3]], rtol=1e-6)
    weights = multimem.trial_weights(member, 5)
    np.testing.assert_allclose(weights, [[0.25, -1], [0.25, 0.25], [0.25, 0.25], [0.25, 0.25], [-1, 0.25]])
    # a second block with differences 5 and 3: means 4 and 3, errors s_d / sqrt 2 = |d1 - d2| / 2
    both = np.concatenate([values, values + 2 * member * np.array([1, 0], np.float32)])
    mean, error = multimem.estimate_multimem(both, np.tile(member, (2, 1)), 5)
    np.testing.assert_allclose(mean, [4, 3], rtol=1e-6)
    np.testing.assert_allclose(error, [1, 0], atol=1e-6)


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_blocks_are_the_naive_loop(folds: int) -> None:
    rng = np.random.default_rng(folds)
    groups = np.arange(40) // 2
    member, values = multimem.member_masks(groups, 4 * folds, 0, folds), rng.standard_normal((4 * folds, 40))
    want = np.empty((4, 40))
    for block, x in np.ndindex(4, 40):
        trials = range(block * folds, (block + 1) * folds)
        inside = [values[t, x] for t in trials if member[t, x]]
        want[block, x] = np.mean(inside) - np.mean([values[t, x] for t in trials if not member[t, x]])
    values = values.astype(np.float32)
    np.testing.assert_allclose(multimem.block_differences(values, member, folds), want, atol=1e-6)
    mean, error = multimem.estimate_multimem(values, member, folds)
    np.testing.assert_allclose(mean, want.mean(0), atol=1e-6)
    np.testing.assert_allclose(error, want.std(0, ddof=1) / 2, atol=1e-6)
    half = np.corrcoef(want[0::2].mean(0), want[1::2].mean(0))[0, 1]
    assert multimem.reliability(values, member, folds) == pytest.approx(2 * half / (1 + half), abs=1e-4)


@settings(deadline=None)
@given(group_lists, st.integers(2, 5))
def test_weights_compare_and_never_add(groups: np.ndarray, folds: int) -> None:
    """What all trials of a block share counts for nothing; a sample on one side only is not scored at all."""
    member = multimem.member_masks(groups, 2 * folds, 0, folds)
    member[:, 0] = True
    weights = multimem.trial_weights(member, folds)
    np.testing.assert_allclose(weights.reshape(2, folds, -1).sum(1), 0, atol=1e-6)
    assert (weights[:, 0] == 0).all()
    values = np.random.default_rng(0).standard_normal(member.shape).astype(np.float32)
    differences = multimem.block_differences(values, member, folds)
    assert np.isnan(differences[:, 0]).all()
    assert np.isfinite(differences[:, 1:]).all()
    assert np.isnan(multimem.estimate_multimem(values, member, folds)[0][0])


def test_offsets_can_be_taken_from_samples_that_no_model_saw() -> None:
    unseen = np.array([False, True, True, False])
    # means of columns 1 and 2: 2.5, 4, 3.5, 3
    want = VALUES - np.array([[2.5], [4], [3.5], [3]])
    np.testing.assert_allclose(multimem.remove_offsets(VALUES, MEMBER, unseen), want)
    trials = Trials(MEMBER, VALUES, np.zeros((2, 2, 4), np.float32), np.ones(4, bool), offset_rows=unseen)
    np.testing.assert_allclose(multimem.adjusted_consistency(trials), want)


def test_the_mean_of_the_top_is_inflated_unless_other_trials_measure_it() -> None:
    """Winner's curse: the best twenty of pure noise look memorized, but not on trials that did not choose them."""
    fresh = []
    for seed in range(10):
        member = multimem.member_masks(np.arange(1000), 16, seed)
        noise = np.random.default_rng(seed).standard_normal(member.shape).astype(np.float32)
        chosen, again = multimem.top_mean(noise, member, 20)
        assert chosen > 0.9  # a difference has deviation sqrt(2 / 8) = 0.5, the top 2 % lie beyond 2 of it
        fresh.append(again)
    assert abs(np.mean(fresh)) < 0.1  # the noise of each is about 0.7 / sqrt 40 = 0.11, of the mean 0.035
    assert max(np.abs(fresh)) < 0.45


def test_the_mean_of_the_top_by_hand() -> None:
    # differences of the two pairs: 3 2 5 1 and 4 3 4 5, means 3.5 2.5 4.5 3. The best is sample 2 with 4.5;
    # the first pair chooses sample 2, measured 4 by the second; the second chooses sample 3, measured 1 by the first
    assert multimem.top_mean(VALUES, MEMBER, 1) == (4.5, 2.5)
    assert np.isnan(multimem.top_mean(VALUES[:2], MEMBER[:2], 1)).all()
    assert np.isnan(multimem.top_mean(VALUES, MEMBER, 5)).all()


def test_a_signal_is_found_again_by_other_trials() -> None:
    member = multimem.member_masks(np.arange(500), 16, 0)
    signal = np.where(np.arange(500) < 20, 5.0, 0.0)
    noise = np.random.default_rng(0).standard_normal(member.shape)
    chosen, fresh = multimem.top_mean((member * signal + noise).astype(np.float32), member, 20)
    assert chosen == pytest.approx(5, abs=0.4)
    assert fresh == pytest.approx(5, abs=0.4)


def test_the_score_is_the_member_mean_less_the_other_mean() -> None:
    rng = np.random.default_rng(0)
    member, values = multimem.member_masks(np.arange(30), 10, 0), rng.standard_normal((10, 30)).astype(np.float32)
    want = [values[member[:, x], x].mean() - values[~member[:, x], x].mean() for x in range(30)]
    np.testing.assert_allclose(multimem.estimate_multimem(values, member)[0], want, atol=1e-6)


def test_one_pair_gives_no_error_bar_and_no_reliability() -> None:
    mean, error = multimem.estimate_multimem(VALUES[:2], MEMBER[:2])
    assert mean.tolist() == [3, 2, 5, 1]
    assert np.isnan(error).all()
    assert np.isnan(multimem.reliability(VALUES[:2], MEMBER[:2]))


def test_mean_as_non_member_by_hand() -> None:
    # sample 0 is no member in trials 1 and 3: (2 + 3) / 2; sample 1 in 1, 2; sample 2 in 0, 3; sample 3 in 0, 2
    np.testing.assert_allclose(multimem.mean_as_non_member(VALUES, MEMBER), [2.5, 1.5, 1.5, 2])


def test_standard_error_covers_the_truth() -> None:
    """With noise of known size, the error bar of 16 pairs must be that noise over 4, times sqrt 2 for a difference."""
    rng = np.random.default_rng(1)
    member = multimem.member_masks(np.arange(400), 32, 0)
    values = (member * 0.5 + rng.standard_normal((32, 400))).astype(np.float32)
    mean, error = multimem.estimate_multimem(values, member)
    assert np.median(error) == pytest.approx(np.sqrt(2) / 4, rel=0.05)
    assert np.mean(np.abs(mean - 0.5) < 2.13 * error) == pytest.approx(0.95, abs=0.03)  # t quantile, 15 degrees


def test_reliability_knows_noise_from_signal() -> None:
    rng = np.random.default_rng(2)
    member = multimem.member_masks(np.arange(2000), 16, 0)
    signal, noise = rng.standard_normal(2000), rng.standard_normal((16, 2000))
    pure = multimem.reliability(noise.astype(np.float32), member)
    assert abs(pure) < 0.15
    # a difference is signal + noise of variance 2: with 8 pairs, reliability = 1 / (1 + 2/8) = 0.8
    assert multimem.reliability((member * signal + noise).astype(np.float32), member) == pytest.approx(0.8, abs=0.03)
    assert np.isnan(multimem.reliability(np.zeros((16, 2000), np.float32), member))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 0.79), st.integers(1, 40))
def test_the_named_number_of_trials_reaches_the_target(measured: float, half: int) -> None:
    trials = 2 * half
    need = multimem.trials_needed(measured, trials)
    factor = need / trials
    assert need % 2 == 0
    assert factor * measured / (1 + (factor - 1) * measured) >= 0.8 - 1e-9
    fewer = (need - 2) / trials
    assert fewer * measured / (1 + (fewer - 1) * measured) < 0.8 + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 0.79), st.integers(1, 10), st.integers(2, 7))
def test_trials_needed_come_in_whole_blocks(measured: float, blocks: int, folds: int) -> None:
    trials = folds * blocks
    need = multimem.trials_needed(measured, trials, 0.8, folds)
    assert need % folds == 0
    reached = [(t / trials) * measured / (1 + (t / trials - 1) * measured) for t in (need, need - folds)]
    assert reached[0] >= 0.8 - 1e-9 > reached[1] - 2e-9


def test_trials_needed_without_a_usable_measurement_stays() -> None:
    assert (
        multimem.trials_needed(float("nan"), 16)
        == multimem.trials_needed(-0.2, 16)
        == multimem.trials_needed(0.95, 16)
        == 16
    )
    # reliability .6 with 20 trials: .8 takes (.8 * .4) / (.6 * .2) = 2.67 times as many, 54, and 55 in whole blocks
    assert multimem.trials_needed(0.6, 20, 0.8, folds=5) == 55
