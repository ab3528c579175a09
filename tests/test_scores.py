from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from audit_plugin.arrays import modality_pairs
from audit_plugin.scoring import scores
from audit_plugin.scoring.outliers import in_tail_units, mean_neighbor_distance
from audit_plugin.scoring.scores import SCORES, combine, compute_scores, robust_z
from audit_plugin.trials import multimem
from tests.core_fixtures import permuted, planted, unit

# Which planted fault a score must find, and on which side of the median; a score not named here must find any.
FAULTS = {
    "misalignment": ("swapped", "conflict", "placeholder"),
    "multimem": ("swapped",),
    "alignment": ("swapped",),
    "clip_score": ("swapped",),
    "outlier": ("outlier",),
    "duplicate": ("duplicate", "conflict", "placeholder"),
}
SIMILARITIES = ("alignment", "clip_score")


# --- the table: contracts that every entry keeps -------------------------------------------------------------------


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_float32_of_length_n_and_known_where_its_inputs_are(name: str, m: int) -> None:
    evidence = planted(m).evidence
    computed = SCORES[name].compute(evidence)
    columns = computed if isinstance(computed, dict) else {"": computed}
    assert columns[""].shape == (len(evidence),)
    assert all(np.isfinite(values).all() for values in columns.values())
    pairs = {f"{a}_{b}" for a, b in evidence.pairs}
    parts = {"": set(), "pair": pairs, "modality": set(evidence.modalities), "attribution": set()}
    if m > 2:  # two modalities share all of what there is to attribute
        parts["attribution"] = pairs | {f"due_{name}" for name in evidence.modalities}
    assert set(columns) == {""} | parts[SCORES[name].per] | set(SCORES[name].also)
    assert all(v.dtype == np.float32 for k, v in compute_scores(evidence).items() if k.startswith(name))


@pytest.mark.parametrize("name", SCORES)
def test_a_score_leaves_its_inputs_alone_and_repeats_itself(name: str) -> None:
    evidence = planted().evidence
    arrays = [
        *evidence.vectors.values(),
        *evidence.projections.values(),
        *evidence.contents.values(),
        *evidence.near_duplicates.values(),
        *(n.similarities for n in evidence.neighbors.values()),
        *(n.indices for n in evidence.neighbors.values()),
        evidence.trials.consistency,
        evidence.trials.multimem_terms,
        *evidence.held_out.values(),
    ]
    copies = [a.copy() for a in arrays]
    first, second = SCORES[name].compute(evidence), SCORES[name].compute(evidence)
    np.testing.assert_equal(first, second)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("name", SCORES)
def test_a_score_puts_its_planted_fault_above_the_median(name: str, m: int) -> None:
    evidence, rows = planted(m).evidence, planted(m).rows
    values = compute_scores(evidence)[name] * (-1 if name in SIMILARITIES else 1)
    clean = np.median(values[rows["clean"]])
    wanted = FAULTS.get(name)
    found = {kind: np.median(values[at]) > clean for kind, at in rows.items() if kind != "clean"}
    assert all(found[kind] for kind in wanted) if wanted else any(found.values())
    if wanted:
        assert (values[rows[wanted[0]]] > np.median(values)).mean() > 0.85


@pytest.mark.parametrize("m", [2, 3])
def test_scores_follow_their_rows(m: int) -> None:
    evidence = planted(m).evidence
    order = np.random.default_rng(0).permutation(len(evidence))
    straight, moved = compute_scores(evidence), compute_scores(permuted(evidence, order))
    assert list(straight) == list(moved)
    for name, values in straight.items():
        np.testing.assert_allclose(moved[name], values[order], atol=1e-3, err_msg=name)


def test_without_trials_the_columns_are_the_same_and_trained_ones_empty() -> None:
    evidence = planted(3).evidence
    full, bare = compute_scores(evidence), compute_scores(replace(evidence, trials=None))
    assert list(bare) == list(full)
    for name, values in bare.items():
        trained = any(s.needs_trials for s in SCORES.values() if name == s.name or name.startswith(f"{s.name}_"))
        assert np.isnan(values).all() if trained else np.isfinite(values).all()


def test_a_score_added_to_the_table_appears_and_names_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "SCORES", dict(SCORES))

    @scores.score("Toy", "A toy", per="modality")
    def toy(evidence: scores.Evidence) -> dict[str, np.ndarray]:
        return {"": np.zeros(len(evidence)), "image": np.ones(len(evidence))}

    columns = compute_scores(planted().evidence)
    assert columns["toy"].dtype == np.float32
    assert (columns["toy_image"] == 1).all()
    assert list(columns)[-2:] == ["toy", "toy_image"]


# --- building blocks -----------------------------------------------------------------------------------------------


def test_robust_z_by_hand() -> None:
    # median 3, absolute deviations 2 1 0 1 97, their median 1: z = (v - 3) / 1.4826
    got = robust_z(np.array([1, 2, 3, 4, 100, np.nan], np.float32))
    np.testing.assert_allclose(got[:5], (np.array([1, 2, 3, 4, 100]) - 3) / 1.4826, rtol=1e-6)
    assert np.isnan(got[5])
    against = robust_z(np.array([3.0], np.float32), np.array([0, 1, 2], np.float32))
    assert against[0] == pytest.approx(2 / 1.4826)


def test_robust_z_without_spread_or_without_values() -> None:
    assert (robust_z(np.full(5, 7, np.float32)) == 0).all()
    assert np.isnan(robust_z(np.full(3, np.nan, np.float32))).all()
    assert robust_z(np.zeros(0, np.float32)).shape == (0,)


numbers = hnp.arrays(np.float32, st.integers(3, 30), elements=st.floats(-100, 100, width=32))


@settings(deadline=None)
@given(numbers, st.floats(0.5, 20), st.floats(-50, 50))
def test_robust_z_knows_neither_unit_nor_origin(values: np.ndarray, scale: float, shift: float) -> None:
    plain = robust_z(values)
    spread = np.median(np.abs(values - np.median(values)))
    if spread > 0.1:  # below, the rounding of float32 is part of the spread
        np.testing.assert_allclose(robust_z((values * scale + shift).astype(np.float32)), plain, rtol=0.02, atol=0.02)


def test_missing_evidence_counts_as_the_median_and_a_missing_contrast_is_not_scored() -> None:
    rng = np.random.default_rng(1)
    parts = {name: rng.standard_normal(101).astype(np.float32) for name in ("contrast", "neighbors_a", "neighbors_b")}
    parts["neighbors_a"][7] = np.nan
    parts["contrast"][9] = np.nan
    got = combine(parts)
    assert np.isnan(got[9])
    filled = {**parts, "neighbors_a": parts["neighbors_a"].copy()}
    filled["neighbors_a"][7] = np.nanmedian(parts["neighbors_a"])
    assert got[7] == pytest.approx(combine(filled)[7], abs=0.03)  # the filled value moves the spread a little
    only = combine({"contrast": parts["contrast"]})
    np.testing.assert_allclose(only, robust_z(parts["contrast"]), rtol=1e-6)


def test_combining_against_a_reference_puts_new_values_on_its_scale() -> None:
    rng = np.random.default_rng(2)
    real = {name: rng.standard_normal(50).astype(np.float32) for name in ("contrast", "neighbors_a", "neighbors_b")}
    some = {name: values[:5] for name, values in real.items()}
    np.testing.assert_allclose(combine(some, real), combine(real)[:5], rtol=1e-5)


@pytest.mark.parametrize("m", [2, 3])
def test_the_sample_takes_its_worst_pair(m: int) -> None:
    evidence = planted(m).evidence
    columns = compute_scores(evidence)
    pairs = np.stack([columns[f"misalignment_{a}_{b}"] for a, b in evidence.pairs])
    order = np.argsort(columns["misalignment"], kind="stable")
    assert (np.diff(pairs.max(0)[order]) >= -1e-4).all()
    if m == 2:
        np.testing.assert_array_equal(columns["misalignment"], pairs[0])


def test_a_swapped_text_is_blamed_on_the_pairs_that_hold_it() -> None:
    columns, swapped = compute_scores(planted(3).evidence), planted(3).rows["swapped"]
    with_text = np.minimum(columns["misalignment_image_text"], columns["misalignment_text_audio"])[swapped]
    assert (with_text > columns["misalignment_image_audio"][swapped]).mean() > 0.9


# --- attribution ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [2, 3, 4])
def test_multimem_of_the_whole_is_that_of_its_pairs_and_the_own_terms(m: int) -> None:
    """MM_all = sum over pairs MM_ab + (m-2)/2 sum over a of d<phi_a, mean_H phi_a>, from a really trained run."""
    evidence = planted(m).evidence
    raw = SCORES["multimem"].compute(evidence)[""]
    pairs = [
        multimem.sum_terms(evidence.required_trials.multimem_terms, pair)
        for pair in modality_pairs(evidence.modalities)
    ]
    # the terms hold -<phi_a, mean of phi_a>: <phi_a, phi_a> is 1
    own = -np.einsum("aan->n", evidence.trials.multimem_terms)
    np.testing.assert_allclose(raw, sum(pairs) + (m - 2) / 2 * own, atol=2e-5)
    assert np.abs(own).max() > 0.01


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_mean_over_pairs_is_that_and_not_the_sum_through_their_number(m: int) -> None:
    evidence = planted(m).evidence
    columns = compute_scores(evidence)
    pairs = [
        multimem.sum_terms(evidence.required_trials.multimem_terms, pair)
        for pair in modality_pairs(evidence.modalities)
    ]
    np.testing.assert_allclose(columns["multimem_mean"], np.mean(pairs, axis=0), atol=1e-7)
    if m == 2:
        np.testing.assert_allclose(columns["multimem_mean"], columns["multimem"], atol=1e-5)
    else:
        assert np.abs(columns["multimem_mean"] - columns["multimem"] / len(pairs)).max() > 0.01


@pytest.mark.parametrize("m", [3, 4])
def test_what_is_due_to_a_modality_goes_away_without_it(m: int) -> None:
    evidence = planted(m).evidence
    columns = compute_scores(evidence)
    for at, name in enumerate(evidence.modalities):
        kept = [a for a in range(m) if a != at]
        terms = evidence.trials.multimem_terms[np.ix_(kept, kept)]  # as if the modality had never been there
        without = multimem.sum_terms(terms)
        np.testing.assert_allclose(columns[f"multimem_due_{name}"], columns["multimem"] - without, atol=1e-6)
    if m == 3:  # without one of three, a pair is left
        left = columns["multimem"] - columns["multimem_due_audio"]
        np.testing.assert_allclose(left, columns["multimem_image_text"], atol=1e-6)


def test_a_swapped_texts_memory_is_due_to_the_text() -> None:
    columns, rows = compute_scores(planted(3).evidence), planted(3).rows["swapped"]
    due = np.stack([columns[f"multimem_due_{name}"] for name in ("image", "text", "audio")])
    assert (due[:, rows].argmax(0) == 1).mean() > 0.8
    assert due[1, rows].mean() > due[1, planted(3).rows["clean"]].mean()


# --- a run to which samples were added -----------------------------------------------------------------------------


def test_added_samples_do_not_move_the_scale() -> None:
    evidence = planted().evidence
    known = np.arange(len(evidence)) < 250
    plain, part = compute_scores(evidence), compute_scores(replace(evidence, known=known))
    contrast = evidence.parts["image", "text"]["contrast"]
    assert (scores.of_known(contrast, known) == contrast[:250]).all()
    pair = ("image", "text")
    scale = {k: v[:250] for k, v in evidence.parts[pair].items()}
    want = combine(evidence.parts[pair], scale, evidence.weights[pair])
    np.testing.assert_allclose(part["misalignment"], want, atol=1e-6)
    distance = mean_neighbor_distance(
        {"image": evidence.vectors["image"]}, evidence.near_duplicates["image"], np.arange(250)
    )
    np.testing.assert_allclose(part["outlier_image"], in_tail_units(distance, distance[:250]), atol=1e-5)
    assert (part["misalignment"] != plain["misalignment"]).any()
    for name in ("multimem", "alignment", "duplicate"):  # these have a scale of their own
        np.testing.assert_array_equal(part[name], plain[name])


@pytest.mark.parametrize("m", [2, 3])
def test_the_outlier_score_is_the_largest_of_its_parts_and_the_joint_space(m: int) -> None:
    evidence = planted(m).evidence
    found = SCORES["outlier"].compute(evidence)
    joint = mean_neighbor_distance(evidence.vectors, evidence.leave_together, np.arange(len(evidence)))
    votes = [found[name] for name in evidence.modalities] + [in_tail_units(joint, joint)]
    np.testing.assert_allclose(found[""], np.max(votes, axis=0), atol=1e-5)


def test_class_labels_are_no_outliers_and_strange_spelling_is() -> None:
    evidence = planted().evidence
    labels = np.arange(len(evidence)) % 7
    classed = SCORES["outlier"].compute(replace(evidence, contents={**evidence.contents, "text": labels}))
    assert np.isnan(classed["text"]).all()
    np.testing.assert_array_equal(classed[""], classed["image"])
    strange = np.random.default_rng(0).normal(size=len(evidence)).astype(np.float32)
    strange[:5] += 40
    spelled = SCORES["outlier"].compute(replace(evidence, text_surprise={"text": strange}))
    assert spelled["text"][:5].min() > np.sort(spelled["text"][5:])[-5]


def test_captions_of_one_sample_do_not_repeat_each_other() -> None:
    evidence, rows = planted().evidence, planted().rows["duplicate"]
    owners = np.arange(len(evidence))
    owners[rows[1::2]] = rows[0::2]
    together = SCORES["duplicate"].compute(replace(evidence, user_groups=owners))
    assert (together[rows] < 1).all()
    np.testing.assert_array_equal(np.delete(together, rows), np.delete(SCORES["duplicate"].compute(evidence), rows))


def test_duplicate_is_one_for_repeats_and_the_nearest_cosine_else() -> None:
    evidence = planted().evidence
    got = SCORES["duplicate"].compute(evidence)
    content = evidence.contents["image"]
    repeated = np.bincount(content)[content] > 1
    assert (got[repeated] == 1).all()
    vectors, near = evidence.vectors["image"], evidence.neighbors["image"].indices
    want = [max(float(vectors[i] @ vectors[j]) for j in near[i]) for i in np.flatnonzero(~repeated)]
    np.testing.assert_allclose(got[~repeated], want, atol=1e-5)
    assert repeated.sum() == 20 + 12 + 14


def test_clip_score_is_the_mean_cosine_of_the_pairs_that_share_a_space() -> None:
    evidence = planted(3).evidence
    v = evidence.vectors
    two = replace(evidence, space={"image": "clip", "text": "clip", "audio": ""})
    np.testing.assert_allclose(compute_scores(two)["clip_score"], (v["image"] * v["text"]).sum(1), atol=1e-6)
    pairs = [(v[a] * v[b]).sum(1) for a, b in evidence.pairs]
    np.testing.assert_allclose(compute_scores(evidence)["clip_score"], np.mean(pairs, axis=0), atol=1e-6)
    apart = replace(evidence, space={"image": "a", "text": "b", "audio": ""})
    assert "clip_score" not in compute_scores(apart)
    assert len(modality_pairs(evidence.modalities)) == 3


def test_a_score_of_unit_rows_alone_does_not_depend_on_their_sign() -> None:
    """Turning a whole modality around changes no distance within it."""
    evidence = planted().evidence
    turned = replace(evidence, projections={k: -v for k, v in evidence.projections.items()})
    for name in ("misalignment", "outlier", "duplicate"):
        np.testing.assert_allclose(compute_scores(turned)[name], compute_scores(evidence)[name], atol=1e-4)
    assert unit(np.ones((1, 4))).tolist() == [[0.5] * 4]
