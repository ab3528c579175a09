from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin import reporting
from audit_plugin.arrays import Samples
from audit_plugin.embedding import Embedded
from audit_plugin.encoding import Identity
from audit_plugin.flags import FLAGS
from audit_plugin.reporting import Order, Scored, result_columns, summarize, versions
from audit_plugin.scores import compute_scores
from tests.core_fixtures import CONFIG, N, planted

LOST = 3


def scored(m: int = 2) -> Scored:
    """The planted set as if flags and texts were decided: only what is handed on matters here."""
    gathered = planted(m).gathered
    raised = {kind: np.zeros(N, bool) for kind in FLAGS}
    raised["misaligned"][5] = True
    texts = {name: np.full(N, "", object) for name in ("action", "reason", "suggestion")}
    texts["action"][:] = "keep"
    texts["action"][5], texts["suggestion"][5] = "relabel", "another"
    scores = compute_scores(gathered.evidence)
    return Scored(gathered, scores, np.full(N, 0.25, np.float32), raised, texts, {"random": 0.87654}, 0.123456)


def case(m: int = 2, text: str = "a plain text") -> tuple[Scored, Order, Embedded, Samples]:
    """N complete rows, in reverse in the caller's order, behind three lost ones."""
    order = Order(np.arange(N + LOST - 1, LOST - 1, -1), N + LOST)
    names = planted(m).evidence.modalities
    media = {name: tuple(f"{text} {row}" for row in range(N + LOST)) for name in names}
    features = planted(m).evidence
    embedded = Embedded(features, {0: "image: gone", 1: "text: empty", 2: "gone"}, 0, dict.fromkeys(names, 7))  # type: ignore[arg-type]
    return scored(m), order, embedded, Samples(tuple(f"s{row}" for row in range(N + LOST)), media)


@given(st.permutations(range(12)), st.integers(0, 12))
def test_values_go_back_to_their_rows(rows: list[int], complete: int) -> None:
    order = Order(np.array(rows[:complete], dtype=np.int64), 12)
    back = order.back(np.arange(complete, dtype=np.float32), np.float32(np.nan))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back[rows[:complete]], np.arange(complete))
    assert np.isnan(back[rows[complete:]]).all()


def test_columns_are_the_callers_rows_and_lost_ones_are_not_scored() -> None:
    given_, order, embedded, samples = case()
    columns = result_columns(given_, order, embedded, samples)
    for name in ("misalignment", "multimem", "outlier_image", "duplicate"):
        np.testing.assert_array_equal(columns[name][LOST:], given_.scores[name][::-1])
        assert np.isnan(columns[name][:LOST]).all()
        assert columns[name].dtype == np.float32
    at = N + LOST - 1 - 5
    assert np.flatnonzero(columns["is_misaligned"]).tolist() == [at]
    assert (columns["action"][at], columns["suggestion"][at]) == ("relabel", "another")
    assert columns["failure"][:4].tolist() == ["image: gone", "text: empty", "gone", ""]
    assert columns["reason"][:4].tolist() == ["not scored: see failure"] * 3 + [""]
    assert columns["action"][:LOST].tolist() == ["keep"] * 3


def test_a_score_that_was_added_to_the_table_gets_its_columns() -> None:
    given_, order, embedded, samples = case()
    more = replace(given_, scores={**given_.scores, "novelty": np.arange(N, dtype=np.float32)})
    columns = list(result_columns(more, order, embedded, samples))
    assert columns.index("duplicate_group") < columns.index("novelty") < columns.index("is_misaligned")


def test_members_of_a_group_name_its_first_sample() -> None:
    given_, order, embedded, samples = case()
    named = result_columns(given_, order, embedded, samples)["duplicate_group"][LOST:][::-1]
    group = given_.gathered.evidence.groups["image"]
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        expected = samples.ids[order.rows[members[0]]] if len(members) > 1 else ""
        assert set(named[members]) == {expected}
    assert (named != "").sum() >= 40  # planted: repeats, conflicts, placeholder


def test_the_culprit_of_three_is_the_swapped_one_and_of_two_unknown() -> None:
    assert set(result_columns(*case())["culprit"]) == {""}
    culprit = result_columns(*case(3))["culprit"]
    found = culprit[LOST:][::-1][planted(3).rows["swapped"]]
    assert (found == "text").mean() > 0.9
    assert set(culprit[:LOST]) == {""}


def summary_of(captions: str = "a plain text", **who: Identity) -> dict:
    given_, order, embedded, samples = case(text=captions)
    encoders = {"image": Identity("i"), "text": Identity("t", english=True), **who}
    columns = result_columns(given_, order, embedded, samples)
    return summarize(columns, given_, embedded, samples, CONFIG, encoders)


def test_the_summary_counts() -> None:
    summary = summary_of()
    assert (summary["samples"], summary["failures"]) == (N + LOST, LOST)
    assert summary["flags"] == {kind: int(kind == "misaligned") for kind in FLAGS}
    assert summary["actions"] == {"keep": N + LOST - 1, "relabel": 1, "remove": 0, "review": 0}
    assert (summary["recall"], summary["wrong_share_model"]) == ({"random": 0.8765}, 0.1235)
    assert summary["encoder"] == {"image": "i", "text": "t"}
    assert summary["encoded_now"] == {"image": 7, "text": 7}
    assert (summary["config"], summary["false_alarms"]) == (CONFIG.to_dict(), CONFIG.false_alarms)
    assert 0 < summary["reliability"] <= 1


def test_a_shaky_multimem_says_how_many_trials_would_do() -> None:
    trials = planted().evidence.trials
    noise = replace(trials, consistency=np.random.default_rng(0).random(trials.consistency.shape, np.float32))
    given_, order, embedded, samples = case()
    gathered = replace(given_.gathered, evidence=replace(given_.gathered.evidence, trials=noise))
    columns = result_columns(given_, order, embedded, samples)
    who = {"image": Identity("i"), "text": Identity("t")}
    summary = summarize(columns, replace(given_, gathered=gathered), embedded, samples, CONFIG, who)
    assert summary["reliability"] < 0.8
    assert any("below 0.8; about " in note for note in summary["notes"])


@pytest.mark.parametrize(("english", "told"), [(True, True), (False, False)])
def test_texts_beyond_an_english_encoder_are_told(english: bool, told: bool) -> None:
    notes = summary_of("это подпись", text=Identity("t", english=english))["notes"]
    assert any(f"{N + LOST} of {N + LOST} texts are not in Latin script" in note for note in notes) is told
    assert not any("Latin" in note for note in summary_of("une légende en français")["notes"])


def test_texts_encoded_in_parts_are_told_above_five_percent() -> None:
    given_, order, embedded, samples = case()
    columns = result_columns(given_, order, embedded, samples)
    who = {"image": Identity("i"), "text": Identity("t")}
    for split, told in ((15, False), (16, True)):  # of 303
        notes = summarize(columns, given_, replace(embedded, split_texts=split), samples, CONFIG, who)["notes"]
        assert any(note.startswith(f"{split} texts are longer") for note in notes) is told


def test_versions_name_what_is_installed_and_skip_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"torch", "numpy"} <= set(versions())
    monkeypatch.setattr(reporting, "PACKAGES", ("numpy", "no-such-package"))
    assert versions() == {"numpy": np.__version__}
