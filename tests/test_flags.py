from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from audit_plugin.config import AuditConfig
from audit_plugin.scoring import flags as rules
from audit_plugin.scoring.calibration import calibrate
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.flags import FLAGS, exceeds, memorized_cut, propose_actions, raise_flags
from audit_plugin.scoring.problem_texts import problem_texts
from audit_plugin.scoring.scores import compute_scores
from audit_plugin.scoring.tails import tail_cut
from tests.core_fixtures import planted, probe_scores_of, unit

RATE = AuditConfig().false_positive_rate


@lru_cache
def columns_of(m: int = 2) -> dict[str, np.ndarray]:
    evidence = planted(m).evidence
    scores = compute_scores(evidence)
    probes = np.fmax.reduce([probe_scores_of(evidence, "random", pair) for pair in evidence.pairs])
    calibration = calibrate(scores["misalignment"], {"random": probes})
    rates = {"probability": calibration.probability, "false_positive_rate": calibration.false_positive_rate}
    return {**scores, **rates}


def nothing_found(n: int) -> dict[str, np.ndarray]:
    return {name: np.full(n, "", dtype=object) for name in rules.PROBLEMS}


def raised(m: int = 2) -> dict[str, np.ndarray]:
    return raise_flags(columns_of(m), planted(m).evidence, RATE)


# --- contracts over all flags --------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [2, 3])
def test_every_flag_is_raised_as_one_bool_per_sample(m: int) -> None:
    flagged = raised(m)
    assert list(flagged) == list(FLAGS)
    assert all(values.dtype == bool and len(values) == len(planted(m).evidence) for values in flagged.values())


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize(
    ("kind", "fault", "least"),
    [
        ("misaligned", "swapped", 0.8),
        ("outlier", "outlier", 1.0),
        ("duplicate", "duplicate", 1.0),
        ("duplicate", "conflict", 1.0),
        ("placeholder", "placeholder", 1.0),
    ],
)
def test_planted_faults_are_flagged(kind: str, fault: str, least: float, m: int) -> None:
    assert raised(m)[kind][planted(m).rows[fault]].mean() >= least


@pytest.mark.parametrize("kind", FLAGS)
def test_clean_samples_are_left_alone(kind: str) -> None:
    assert raised()[kind][planted().rows["clean"]].mean() < 0.05


def test_conflicts_are_flagged_on_their_worse_side_only() -> None:
    flagged, rows = raised()["conflict"], planted().rows
    pairs = flagged[rows["conflict"]].reshape(-1, 2)
    assert pairs.any(1).mean() >= 0.8
    assert not pairs.all(1).any()
    assert not flagged[rows["duplicate"]].any()  # equal images, texts that say the same
    assert not flagged[rows["placeholder"]].any()


@pytest.mark.parametrize("bad", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("rate", [0.01, 0.05])
@pytest.mark.parametrize("skew", [0.3, 1.0, 3.0])
def test_of_good_samples_the_rate_is_called_memorized_however_skewed(bad: float, rate: float, skew: float) -> None:
    rng = np.random.default_rng(4)
    wrong = rng.random(20_000) < bad
    multimem = np.where(wrong, rng.normal(20, 1, 20_000), rng.gamma(1 / skew**2, skew, 20_000))
    columns = {"multimem": multimem, "probability": np.where(wrong, 0.9995, 0.0005).astype(np.float32)}
    flagged = multimem > memorized_cut(columns, rate)
    assert flagged[~wrong].mean() == pytest.approx(rate, rel=0.25)
    assert wrong.sum() == 0 or flagged[wrong].mean() > 0.95


def test_without_probabilities_all_samples_count_as_good() -> None:
    values = np.arange(1000, dtype=np.float32)
    values[5] = np.nan
    assert (values > memorized_cut({"multimem": values}, 0.01)).sum() == 9
    unknown = {"multimem": values, "probability": np.full(1000, np.nan)}
    assert memorized_cut(unknown, 0.01) == memorized_cut({"multimem": values}, 0.01)
    assert memorized_cut({"multimem": np.full(3, np.nan)}, 0.01) == np.inf
    assert memorized_cut({"multimem": values[:3], "probability": np.ones(3)}, 0.01) <= 2  # nothing is good


def test_what_is_memorized_has_another_advice_where_it_fits() -> None:
    flagged = {kind: np.zeros(2, bool) for kind in FLAGS}
    flagged["memorized"][:], flagged["misaligned"][1] = True, True
    scores = {"outlier": np.zeros(2), "misalignment": np.array([0.0, 9.0])}
    no = np.zeros(2, bool)
    action, reason = propose_actions(
        flagged, np.array(["", ""], object), no, np.full(2, "", object), scores, nothing_found(2)
    )
    assert action.tolist() == ["keep", "review"]
    assert "rare" in reason[0]
    assert reason[1] == "media do not fit (misalignment 9.0); a model memorizes it"


def test_nothing_scored_raises_no_flag_that_needs_a_score() -> None:
    columns = {name: np.full_like(values, np.nan) for name, values in columns_of().items()}
    flagged = raise_flags(columns, replace(planted().evidence, trials=None), RATE)
    assert not any(flagged[kind].any() for kind in ("misaligned", "memorized", "outlier", "conflict", "vague"))
    assert flagged["duplicate"].any()
    assert flagged["placeholder"].any()


# --- the cut -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_the_tail_cut_keeps_its_rate_on_the_good_and_finds_the_bad(bad: float, rate: float) -> None:
    rng = np.random.default_rng(0)
    good = rng.logistic(size=20_000).astype(np.float32)
    values = np.concatenate([good, rng.normal(25, 2, int(bad * 20_000)).astype(np.float32)])
    cut = tail_cut(values, rate)
    assert (good > cut).mean() <= 1.3 * rate
    assert (values[20_000:] > cut).all()
    if not bad:
        assert (good > cut).mean() >= 0.5 * rate


def test_a_lower_rate_cuts_higher() -> None:
    values = np.random.default_rng(1).normal(size=500).astype(np.float32)
    cuts = [tail_cut(values, rate) for rate in (0.2, 0.05, 0.01, 0.001)]
    assert cuts == sorted(cuts)
    assert len(set(cuts)) == 4


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, st.integers(4, 40), elements=st.floats(-9, 9, width=32)), st.floats(0.5, 9), st.floats(-9, 9)
)
def test_the_tail_cut_moves_with_unit_and_origin(values: np.ndarray, scale: float, shift: float) -> None:
    if np.ptp(np.quantile(values, [0.5, 0.75])) > 0.1:
        cut = tail_cut((scale * values + shift).astype(np.float32), RATE)
        assert cut == pytest.approx(scale * tail_cut(values, RATE) + shift, rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("values", [[], [1.0, 2, 3], [np.nan] * 9])
def test_too_few_values_flag_nothing(values: list[float]) -> None:
    assert tail_cut(np.array(values, np.float32), RATE) == np.inf


def test_equal_values_and_missing_ones_are_never_above() -> None:
    values = np.full(50, 3, np.float32)
    assert not exceeds(values, tail_cut(values, RATE)).any()
    assert exceeds(np.array([np.nan, 1, 3], np.float32), 2.0).tolist() == [False, False, True]
    with_gaps = np.concatenate([np.arange(100), np.full(50, np.nan)]).astype(np.float32)
    assert tail_cut(with_gaps, RATE) == pytest.approx(tail_cut(np.arange(100, dtype=np.float32), RATE))


def flagged_as(kind: str, evidence: Evidence) -> np.ndarray:
    """The rule of a flag that looks at no score."""
    return rules.FLAGS[kind].rule({}, evidence, RATE)


# --- single rules --------------------------------------------------------------------------------------------------


def test_a_text_that_fits_everything_and_is_short_is_vague() -> None:
    evidence = planted().evidence
    generality = evidence.held_out["generality"].copy()
    words = evidence.words["text"].copy()
    general, short = np.arange(10), np.arange(5, 15)  # rows 5 to 9 are both
    generality[0, general] = np.nanmax(generality) + 20
    words[short] = 1
    changed = replace(evidence, words={"text": words}, held_out={**evidence.held_out, "generality": generality})
    flagged = np.flatnonzero(flagged_as("vague", changed))
    assert set(range(5, 10)) <= set(flagged.tolist())
    assert not set(flagged.tolist()) & set(range(5))


def test_a_text_named_before_its_medium_is_vague_as_well() -> None:
    """In the table's order the text comes before sound and video."""
    evidence = planted(3).evidence
    at = evidence.pairs.index(("text", "audio"))
    generality = np.full_like(evidence.held_out["generality"], np.nan)
    generality[at] = np.random.default_rng(0).normal(size=len(evidence))
    generality[at, :5] = 30
    words = evidence.words["text"].copy()
    words[:5] = 1
    held_out = {**evidence.held_out, "generality": generality}
    changed = replace(evidence, words={"text": words}, held_out=held_out)
    assert set(range(5)) <= set(np.flatnonzero(flagged_as("vague", changed)).tolist())


def test_added_samples_do_not_move_the_cut_of_outliers() -> None:
    columns, evidence = dict(columns_of()), planted().evidence
    known = np.arange(len(evidence)) < 150
    columns["outlier"] = np.where(known, columns["outlier"], columns["outlier"] + 50)
    assert raise_flags(columns, replace(evidence, known=known), RATE)["outlier"][~known].all()
    assert not raise_flags(columns, evidence, RATE)["outlier"][~known].any()  # half of the set is no tail


def test_of_equal_samples_in_two_splits_the_one_that_is_trained_on_stays() -> None:
    evidence, rows = planted().evidence, planted().rows["duplicate"]
    contents = {name: content.copy() for name, content in evidence.contents.items()}
    contents["text"][rows[1::2]] = contents["text"][rows[0::2]]
    splits = np.full(len(evidence), "test", dtype=object)
    splits[rows[1::2]] = "train"
    equal = replace(evidence, contents=contents, splits=splits.tolist())
    flags, ids = raise_flags(columns_of(), equal, RATE), [f"id{row}" for row in range(len(evidence))]
    assert flags["leak"][rows[0::2]].all()
    assert not flags["leak"][rows[1::2]].any()
    none, removals = np.zeros(len(evidence), bool), rules.why_removed(equal, ids)
    texts, found = np.full(len(evidence), "", object), problem_texts(equal, ids)
    action, reason = propose_actions(flags, texts, none, removals, columns_of(), found)
    assert (action[rows[0::2]] == "remove").all()
    assert "remove" not in action[rows[1::2]]
    assert f"also in train: id{rows[1]}" in reason[rows[0]]
    apart = {name: np.arange(len(evidence)) if name == "image" else of for name, of in contents.items()}
    nearly = replace(equal, contents=apart)  # copies by their pixels or features
    found, removals = problem_texts(nearly, ids), rules.why_removed(nearly, ids)
    action, reason = propose_actions(flags, texts, none, removals, columns_of(), found)
    assert "remove" not in action[rows]
    assert f"nearly the same in train: id{rows[1]}" in reason[rows[0]]
    assert not raise_flags(columns_of(), evidence, RATE)["leak"].any()


def test_of_equal_samples_the_one_in_no_split_goes_and_the_one_that_is_trained_on_stays() -> None:
    evidence, rows = planted().evidence, planted().rows["duplicate"]
    contents = {name: content.copy() for name, content in evidence.contents.items()}
    contents["text"][rows[1::2]] = contents["text"][rows[0::2]]
    splits = np.full(len(evidence), "train", dtype=object)
    splits[rows[0::2]] = ""  # although it comes first
    why = rules.why_removed(replace(evidence, contents=contents, splits=splits.tolist()), ["x"] * len(evidence))
    assert (why[rows[0::2]] == "exact duplicate of another sample").all()
    assert (why[rows[1::2]] == "").all()


@pytest.mark.parametrize(
    ("first", "second", "removed"),
    [
        ("", "", [1]),
        ("", "train", [0]),
        ("web", "web", [1]),
        ("test", "train", [0]),
        ("train", "test", [1]),
        ("test_a", "test_b", [1]),
        ("unlabeled", "train", []),  # nobody knows what is trained on
        ("query", "gallery", []),
        ("", "gallery", [0]),
    ],
)
def test_which_of_two_equal_samples_goes(first: str, second: str, removed: list[int]) -> None:
    evidence, rows = planted().evidence, planted().rows["duplicate"][:2]
    contents = {name: content.copy() for name, content in evidence.contents.items()}
    contents["text"][rows[1]] = contents["text"][rows[0]]
    splits = np.full(len(evidence), "elsewhere", dtype=object)
    splits[rows] = first, second
    given = replace(evidence, contents=contents, splits=splits.tolist())
    why = rules.why_removed(given, ["x"] * len(evidence))
    assert np.flatnonzero(why[rows] != "").tolist() == removed
    known = np.ones(len(evidence), dtype=bool)
    known[rows[1]] = False  # it comes later: what was there stays, and the new one does not pass in silence
    if "" in (first, second) and first != second:
        why = rules.why_removed(replace(given, known=known), ["x"] * len(evidence))
        assert np.flatnonzero(why[rows] != "").tolist() == [1]


@pytest.mark.parametrize(
    ("splits", "known", "removed"),
    [
        (("train", "A", "A"), (True, True, True), [2]),  # of each split that tells nothing one stays
        (("A", "B", "B"), (True, True, True), [2]),
        (("A", "", "A"), (True, True, True), [1, 2]),
        (("test", "train", "train"), (True, False, False), [0, 2]),  # no two are removed for each other
        (("test", "test", "x"), (True, False, True), [1]),
    ],
)
def test_one_of_three_equal_samples_stays(splits, known, removed) -> None:
    evidence, rows = planted().evidence, np.sort(planted().rows["clean"][:3])
    contents = {name: content.copy() for name, content in evidence.contents.items()}
    groups = {name: group.copy() for name, group in evidence.near_duplicates.items()}
    for content in (*contents.values(), *groups.values()):
        content[rows] = content[rows[0]]
    named, is_known = np.full(len(evidence), "elsewhere", dtype=object), np.ones(len(evidence), bool)
    named[rows], is_known[rows] = splits, known
    given = replace(evidence, contents=contents, near_duplicates=groups, splits=named.tolist(), known=is_known)
    why = rules.why_removed(given, ["x"] * len(evidence))
    assert np.flatnonzero(why[rows] != "").tolist() == removed


def test_a_reason_to_remove_and_the_leak_name_the_same_sample() -> None:
    evidence, rows = planted().evidence, planted().rows["duplicate"]
    contents = {name: content.copy() for name, content in evidence.contents.items()}
    test, exact, near = rows[1], rows[0], rows[2]
    groups = {name: group.copy() for name, group in evidence.near_duplicates.items()}
    groups["image"][[exact, near]] = groups["image"][test]
    splits = np.full(len(evidence), "", dtype=object)
    splits[[near, exact, test]] = "train", "val", "test"
    leaking = replace(evidence, contents=contents, near_duplicates=groups, splits=splits.tolist())
    ids = [f"id{row}" for row in range(len(evidence))]
    assert problem_texts(leaking, ids)["leak_of"][test] == rules.why_removed(leaking, ids)[test]


def test_rows_of_one_sample_are_no_duplicates_and_no_exact_repeats() -> None:
    evidence, rows = planted().evidence, planted().rows["duplicate"]
    contents = {name: content.copy() for name, content in evidence.contents.items()}
    contents["text"][rows[1::2]] = contents["text"][rows[0::2]]
    twice = replace(evidence, contents=contents)
    owners = np.arange(len(evidence))
    owners[rows[1::2]] = rows[0::2]
    one_sample = replace(twice, user_groups=owners)
    assert flagged_as("duplicate", twice)[rows].all()
    assert not flagged_as("duplicate", one_sample)[rows].any()
    copied = rules.copied_from(twice, np.arange(len(evidence)))
    pairs = np.sort(rows.reshape(-1, 2), axis=1)
    assert (copied[pairs[:, 0]] == -1).all()
    assert (copied[pairs[:, 1]] == pairs[:, 0]).all()
    assert (rules.copied_from(one_sample, np.arange(len(evidence))) == -1).all()


def test_look_alikes_are_no_duplicates_where_pixels_differ() -> None:
    evidence = planted().evidence
    apart = replace(evidence, copies={"image": np.arange(len(evidence))})
    assert flagged_as("duplicate", evidence).any()
    assert not flagged_as("duplicate", apart).any()


def five_captions(likeness: float) -> tuple[np.ndarray, dict]:
    """(fit, fields of evidence): rows 0 to 4 share a picture, four texts alike and the last like them to a degree."""
    evidence = planted().evidence
    group, text = np.arange(len(evidence)), evidence.projections["text"].copy()
    group[:5] = 0
    text[:4] = text[0]
    away = text[10] - (text[10] @ text[0]) * text[0]
    text[4] = likeness * text[0] + np.sqrt(1 - likeness**2) * unit(away)
    groups = {"image": group}
    fields = {"copies": groups, "near_duplicates": groups, "projections": {**evidence.projections, "text": text}}
    fit = np.zeros(len(evidence), np.float32)
    fit[:5] = [-0.3, 0.1, 0.6, 1.2, 4]
    return fit, fields


@pytest.mark.parametrize(
    ("likeness", "worst", "one_sample", "flagged"),
    [
        (0.0, 4.0, True, [4]),  # one of the captions of a picture contradicts the others
        (0.6, 4.0, True, []),  # it says something similar
        (0.0, 1.5, True, []),  # it fits about as well: captions of one picture differ
        (0.0, 1.5, False, [4]),  # another sample's: one picture with two stories
        (0.0, -0.1, False, []),  # both stories fit
        (0.0, np.nan, False, []),
    ],
)
def test_a_conflict_is_unlike_the_better_texts_and_fits_worse(
    likeness: float, worst: float, one_sample: bool, flagged: list[int]
) -> None:
    fit, fields = five_captions(likeness)
    fit[4] = worst
    owners = np.arange(len(fit))
    owners[: 5 if one_sample else 4] = 0
    evidence = replace(planted().evidence, user_groups=owners, **fields)
    assert (
        np.flatnonzero(rules.flag_conflicts(evidence, fit, np.zeros(len(fit), bool), worst_good=2)).tolist() == flagged
    )


def test_one_wrong_caption_among_those_of_two_copies_is_the_conflict() -> None:
    """Ten rows, two samples of five captions: the first caption of the second says something else and fits worse."""
    evidence, rng = planted().evidence, np.random.default_rng(0)
    group, owners, text = np.arange(len(evidence)), np.arange(len(evidence)), evidence.projections["text"].copy()
    group[:10], owners[:5], owners[5:10] = 0, 0, 5
    text[:10] = unit(text[0] + 0.5 * text[0].std() * rng.standard_normal((10, text.shape[1])))
    text[5] = -text[0]
    changed = replace(
        evidence, copies={"image": group}, user_groups=owners, projections={**evidence.projections, "text": text}
    )
    fit = rng.normal(-0.5, 0.2, len(evidence)).astype(np.float32)
    for worst, flagged in ((2.5, [5]), (-0.1, []), (np.nan, [])):
        fit[5] = worst
        assert (
            np.flatnonzero(rules.flag_conflicts(changed, fit, np.zeros(len(fit), bool), worst_good=2)).tolist()
            == flagged
        )
    fit[:9] = np.nan
    assert not rules.flag_conflicts(changed, fit, np.zeros(len(fit), bool), worst_good=2).any()


def test_media_without_a_text_cannot_contradict_each_other() -> None:
    evidence = replace(planted().evidence, words={})
    fit = np.random.default_rng(0).normal(size=len(evidence)).astype(np.float32)
    assert not rules.flag_conflicts(evidence, fit, np.zeros(len(fit), bool), worst_good=2).any()


def test_a_text_like_one_of_the_captions_that_stand_is_no_conflict() -> None:
    """Three samples with one picture: the third's text is unlike the best fitting one, but like the second's."""
    evidence = planted().evidence
    group, text = np.arange(len(evidence)), evidence.projections["text"].copy()
    group[:3] = 0
    text[:3] = unit(np.eye(3, text.shape[1]))
    fit = np.zeros(len(evidence), np.float32)
    fit[:3] = [-1, -0.2, 0.5]
    for likeness, flagged in ((0.0, [2]), (0.6, [])):
        text[2] = unit(likeness * text[1] + np.sqrt(1 - likeness**2) * np.eye(3, text.shape[1])[2])
        changed = replace(evidence, copies={"image": group}, projections={**evidence.projections, "text": text})
        assert (
            np.flatnonzero(rules.flag_conflicts(changed, fit, np.zeros(len(fit), bool), worst_good=2)).tolist()
            == flagged
        )
