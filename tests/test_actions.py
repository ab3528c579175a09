"""What is proposed for flagged rows: the strongest flag decides, and no reason is lost."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.scoring import flags as rules
from audit_plugin.scoring.cleaned_texts import AGAINST_CAPTION, suggest_cleaned
from audit_plugin.scoring.flags import FLAGS, propose_actions
from audit_plugin.scoring.problem_texts import problem_texts
from audit_plugin.scoring.reflag import reflag
from audit_plugin.scoring.suggest.captions import Suggestions
from audit_plugin.scoring.text_checks import TextProblems
from tests.core_fixtures import planted


def nothing_found(n: int) -> dict[str, np.ndarray]:
    return {name: np.full(n, "", dtype=object) for name in rules.PROBLEMS}


def expected(flagged: dict[str, bool], suggested: bool, cleaned: bool, is_copy: bool) -> str:
    """Precedence as documented; `cleaned`: the suggestion is the row's own text."""
    if flagged["placeholder"] or is_copy:
        return "remove"
    if flagged["misaligned"]:
        return "relabel" if suggested and not cleaned else "review"
    if flagged["text_problem"] and suggested and cleaned:
        return "relabel"
    if flagged["memorized"] and suggested and not cleaned:
        return "review"  # another text may fit better
    to_review = {*FLAGS} - {"misaligned", "memorized", "vague", "duplicate", "placeholder"}
    return "review" if any(flagged[kind] for kind in to_review) else "keep"


def test_actions_follow_the_precedence_and_only_the_unflagged_need_no_reason() -> None:
    """All sets of up to three flags and 1,000 larger ones, each with a suggestion or without, cleaned, or of a copy."""
    few = [np.isin(range(len(FLAGS)), three) for three in combinations_with_replacement(range(-1, len(FLAGS)), 3)]
    sets = np.unique(np.concatenate([few, np.random.default_rng(0).random((1000, len(FLAGS))) < 0.5]), axis=0)
    beside = np.array(list(product([False, True], repeat=3)))
    cases = np.concatenate([sets.repeat(len(beside), 0), np.tile(beside, (len(sets), 1))], axis=1)
    flagged = {kind: cases[:, at] for at, kind in enumerate(FLAGS)}
    has_suggestion, cleaned, copies = cases[:, -3], cases[:, -2], cases[:, -1]
    n = len(cases)
    suggestions = np.where(has_suggestion, "a cat", "").astype(object)
    scores = {name: np.arange(n, dtype=np.float32) for name in ("outlier", "misalignment", "multimem")}
    removals = np.where(copies, "exact duplicate", "").astype(object)
    action, reason = propose_actions(flagged, suggestions, cleaned, removals, scores, nothing_found(n))
    for i in range(n):
        flags = {kind: bool(flagged[kind][i]) for kind in FLAGS}
        assert action[i] == expected(flags, has_suggestion[i], cleaned[i], copies[i]), flags
        has_reason = copies[i] or any(flags[kind] for kind in FLAGS if kind != "duplicate")
        assert bool(reason[i]) is bool(has_reason), flags


REASONS = {  # kind -> what is said of it beside other kinds
    "misaligned": "do not fit",
    "memorized": "a model memorizes it",
    "outlier": "unlike the rest",
    "likely_copy": "mirrored copy of 7",
    "leak": "also in train: 3",
    "conflict": "contradicting",
    "placeholder": "placeholder",
    "vague": "fits almost everything",
    "boilerplate": "nothing in common",
    "text_problem": 'markup "<b>"',
    "image_problem": "blurred",
    "box_problem": "tiny",
    "personal": "personal data",
}


@settings(deadline=None)
@given(st.sets(st.sampled_from(sorted(REASONS)), min_size=2), st.booleans())
def test_no_reason_is_lost_beside_others(kinds: set[str], suggested: bool) -> None:
    flagged = {kind: np.array([kind in kinds]) for kind in FLAGS}
    words = {
        "leak_of": "also in train: 3",
        "copy_of": "mirrored copy of 7",
        "text_problem": 'markup "<b>"',
        "image_problem": "blurred (0.7)",
        "box_problem": "tiny (1 pixel)",
    }
    found = {name: np.array([text], dtype=object) for name, text in words.items()}
    found["text_problem"][0] += "; personal data: phone number" if "personal" in kinds else ""
    scores = {name: np.zeros(1) for name in ("outlier", "misalignment")}
    suggestion = np.array(["a cat" if suggested else ""], dtype=object)
    no = np.zeros(1, bool)
    _, reason = propose_actions(flagged, suggestion, no, np.full(1, "", object), scores, found)
    assert all(REASONS[kind] in reason[0] for kind in kinds)
    assert reason[0].count("personal data") <= 1
    assert ("keep it" in reason[0]) is False


def test_every_flag_with_a_reason_is_in_the_table() -> None:
    assert set(REASONS) == set(FLAGS) - {"duplicate"}


@pytest.mark.parametrize("kind", FLAGS)
def test_a_cleaned_text_is_proposed_only_where_the_row_keeps_its_caption(kind: str) -> None:
    """Row 0 has a text problem and one other flag, row 1 the problem alone."""
    evidence = planted().evidence
    n = len(evidence)
    problems = np.full(n, "", dtype=object)
    cleaned = problems.copy()
    problems[:2], cleaned[:2] = 'markup "<b>"', "a red boat"
    evidence = replace(evidence, text_problems={"text": TextProblems(problems, cleaned, np.full(n, "", object))})
    flagged = {name: np.zeros(n, bool) for name in FLAGS}
    flagged["text_problem"][:2] = flagged[kind][0] = True
    none = Suggestions(np.full(n, "", object), np.full(n, np.nan, np.float32), np.full(n, "", object))
    scores = {name: np.zeros(n) for name in ("outlier", "misalignment", "outlier_image", "outlier_text")}
    scores["outlier_image"][:2] = 9
    kept = np.zeros(n, bool)

    suggested, is_cleaned = suggest_cleaned(none, evidence, flagged, scores, kept)
    captions = suggested.captions
    assert is_cleaned.tolist() == (captions != "").tolist()
    assert captions[1] == "a red boat"
    assert (captions[0] == "") is (kind in AGAINST_CAPTION)
    in_repair = replace(none, why={1: "row of a shift"})
    assert suggest_cleaned(in_repair, evidence, flagged, scores, kept)[0].captions[1] == ""
    assert not suggest_cleaned(none, evidence, flagged, scores, ~kept)[0].captions.any()
    of_text = scores | {"outlier_image": scores["outlier_text"], "outlier_text": scores["outlier_image"]}
    by_text = suggest_cleaned(none, evidence, flagged, of_text, kept)[0].captions
    assert (by_text[0] == "") is (
        kind in AGAINST_CAPTION and kind != "outlier"
    )  # markup alone makes a text unlike others

    found = nothing_found(n) | {"text_problem": problems}
    action, reason = propose_actions(flagged, captions, is_cleaned, np.full(n, "", object), scores, found)
    assert action[1] == "relabel"
    assert (action[0] == "relabel") is (kind not in AGAINST_CAPTION)
    assert 'markup "<b>"' in reason[0]


@pytest.mark.parametrize("kind", AGAINST_CAPTION)
def test_a_stored_cleaned_text_is_no_reason_to_relabel_once_such_a_flag_is_raised(kind: str) -> None:
    columns = {
        "is_text_problem": np.array([True, True]),
        "is_memorized": np.zeros(2, bool),
        "text_problem": np.array(['markup "<b>"'] * 2, dtype=object),
        "suggestion": np.array(["a red boat"] * 2, dtype=object),
        "suggestion_score": np.full(2, np.nan),
        "action": np.array(["relabel"] * 2, dtype=object),
        "reason": np.array(['markup "<b>"'] * 2, dtype=object),
        f"is_{kind}": np.zeros(2, bool),
        "misalignment": np.zeros(2),
        "outlier": np.zeros(2),
    }
    changed = reflag(columns, {f"is_{kind}": np.array([True, False])})
    assert changed["action"].tolist() == ["remove" if kind == "placeholder" else "review", "relabel"]
    assert 'markup "<b>"' in changed["reason"][0]
    if kind == "placeholder":
        return  # what is to be removed stays so
    again = columns | changed
    for is_memorized in (True, False):  # another flag changes nothing about that
        again |= reflag(again, {"is_memorized": np.array([is_memorized] * 2)})
        assert again["action"].tolist() == ["review", "relabel"]
    again |= reflag(again, {f"is_{kind}": np.zeros(2, bool)})
    assert again["action"].tolist() == ["relabel", "relabel"]


@pytest.mark.parametrize(("score", "captioner"), [(3.0, False), (np.nan, True)])
def test_another_text_is_no_longer_proposed_once_the_row_fits(score: float, captioner: bool) -> None:
    """Of the set, or a captioner's, which has no score either: it is not the text of the row without its problem."""
    columns = {
        **{f"is_{kind}": np.array([kind in ("misaligned", "text_problem")]) for kind in FLAGS},
        "text_problem": np.array(['web address "www.a.com"'], dtype=object),
        "suggestion": np.array(["a text of another row"], dtype=object),
        "suggestion_score": np.array([score]),
        "action": np.array(["relabel"], dtype=object),
        "reason": np.array(["media do not fit"], dtype=object),
        "misalignment": np.array([2.0]),
        "outlier": np.zeros(1),
    }
    changed = reflag(columns, {"is_misaligned": np.array([False])})
    assert changed["action"].tolist() == ["review"]
    assert changed["reason"].tolist() == ['web address "www.a.com"']
    back = reflag({**columns, **changed}, {"is_misaligned": np.array([True])})
    assert back["action"].tolist() == ["review" if captioner else "relabel"]  # what has no score is not weighed again


def test_several_texts_of_a_sample_are_named_in_what_is_found() -> None:
    evidence = planted().evidence
    n = len(evidence)

    def problems(first: str, personal: str) -> TextProblems:
        values = [np.full(n, "", dtype=object) for _ in range(3)]
        values[0][0], values[2][0] = first, personal
        return TextProblems(*values)

    of_title = problems('markup "<b>"', "")
    alone = replace(evidence, text_problems={"title": of_title})
    ids = [str(row) for row in range(n)]
    assert problem_texts(alone, ids)["text_problem"][0] == 'markup "<b>"'
    both = replace(evidence, text_problems={"title": of_title, "text": problems('price "$5"', "phone number")})
    found = problem_texts(both, ids)["text_problem"]
    assert found[0] == 'in title: markup "<b>"; in text: price "$5"; personal data: phone number'
    assert not any(found[1:])


def test_reasons_name_the_flag_and_its_score() -> None:
    flagged = {kind: np.zeros(3, bool) for kind in FLAGS}
    flagged["outlier"][0] = flagged["memorized"][1] = flagged["vague"][2] = True
    scores = {"outlier": np.array([7.25, 0, 0]), "misalignment": np.zeros(3)}
    no = np.zeros(3, bool)
    _, reason = propose_actions(
        flagged, np.array(["", "", ""], object), no, np.full(3, "", object), scores, nothing_found(3)
    )
    assert reason[0].endswith("(outlier 7.2)")
    assert "memorized" in reason[1]
    assert "everything" in reason[2]
