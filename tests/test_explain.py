from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit import explain as explanations
from audit_plugin.audit.explain import explain, find, load_explanations, words
from audit_plugin.audit.explain.records import duplicate_records, pair_shares
from audit_plugin.audit.explain.rivals import lift
from audit_plugin.audit.explain.words import (
    LEAST_CAPTIONS,
    LEAST_GAIN,
    frequent_words,
    likelihood_ratios,
    misfit_words,
    spans_of,
)
from audit_plugin.audit.prepare import Clock, Prepared, prepare
from audit_plugin.audit.run import evidence_of, run_identity
from audit_plugin.audit.score import Scored, score
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import silent
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.held_out import embed_held_out
from audit_plugin.store import RunFolder
from audit_plugin.trials.run import Job
from tests.core_fixtures import planted
from tests.pipeline_fixtures import COLORS, draw

CONFIG = AuditConfig(encoder="offline", trials=8, epochs=20, neighbors=10, device="cpu")
N = 128
WRONG = range(0, N, 11)


@dataclass(frozen=True)
class Made:
    """A real audit of drawn pictures, up to its scores, and the explanations of the rows whose captions are wrong."""

    ready: Prepared
    evidence: Evidence
    scored: Scored
    found: dict[str, Any]
    folder: Path
    words: dict[str, str]


def audited(samples: Samples, folder: Path, flagged: set[str]) -> tuple[Prepared, Evidence, Scored, dict[str, Any]]:
    """Flags these ids as misaligned, and no others: what is explained must not depend on a threshold here."""
    ready = prepare(samples, CONFIG, Clock(silent))
    with RunFolder(folder, run_identity(ready, CONFIG)) as run:
        job = Job(CONFIG, "cpu", run, silent)
        evidence, _ = evidence_of(ready, job, Clock(silent))
        scored = flag(score(ready, evidence, job), ready, flagged)
        return ready, evidence, scored, explain(ready, scored, job)


def flag(scored: Scored, ready: Prepared, flagged: set[str]) -> Scored:
    nothing = np.zeros(len(ready.order.rows), dtype=bool)
    chosen = np.array([ready.samples.ids[row] in flagged for row in ready.order.rows], dtype=bool)
    flags = {kind: chosen if kind == "misaligned" else nothing for kind in scored.flags}
    texts = {**scored.verdicts, "action": np.where(chosen, "review", "keep").astype(object)}
    return replace(scored, flags=flags, verdicts=texts)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """128 drawn pictures; every eleventh caption names another color than the picture's."""
    folder = tmp_path_factory.mktemp("explained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_PLUGIN_CACHE", str(folder / "cache"))
        captions, words = [draw(folder / f"{row}.png", row) for row in range(N)], {}
        for row in WRONG:
            words[f"s{row}"] = COLORS[(row + 3) % 8]
            captions[row] = captions[row].replace(COLORS[row % 8], words[f"s{row}"], 1)
        paths = tuple(str(folder / f"{row}.png") for row in range(N))
        samples = Samples(tuple(f"s{row}" for row in range(N)), {"image": paths, "text": tuple(captions)})
        return Made(*audited(samples, folder / "run", set(words)), folder, words)


def records(made: Made) -> dict[str, dict[str, Any]]:
    return {sample: found[0] for sample, found in made.found["samples"].items()}


def test_every_flagged_sample_and_no_other_is_explained(made):
    assert set(made.found["samples"]) == set(made.words)
    assert made.found["notes"] == []
    for record in records(made).values():
        assert record["flags"] == ["misaligned"]
        assert record["action"] == "review"


def test_the_wrong_word_is_the_one_that_fits_least(made):
    """Of twelve captions with three words each; where little speaks against a word, none is named."""
    marked = {sample: found["words"] for sample, found in records(made).items() if found["words"]}
    right = [words[0]["text"] == made.words[sample] for sample, words in marked.items()]
    assert len(right) >= 3, marked
    assert all(right), marked


def true_color_among_rivals(sample: str, record: dict[str, Any]) -> bool:
    better = record["rivals"]["image_text"]["better"]
    return any(COLORS[int(sample[1:]) % 8] == rival["caption"].split()[1] for rival in better)


def test_words_stand_where_they_say(made):
    for sample, found in records(made).items():
        caption = made.ready.samples.media["text"][int(sample[1:])]
        assert all(caption[w["start"] : w["end"]] == w["text"] for w in found["words"])
        assert {w["text"] for w in found["words"]} <= set(caption.split()) - {"a", "on", "background"}
        gains = [w["gain"] for w in found["words"]]
        assert gains == sorted(gains, reverse=True)
        assert all(gain >= LEAST_GAIN for gain in gains)


def test_the_parts_add_up_to_the_score(made):
    rows = np.arange(len(made.evidence))
    whole, parts = pair_shares(made.evidence, ("image", "text"), rows)
    known = np.isfinite(whole)
    assert known.all()
    np.testing.assert_allclose(sum(part["share"] for part in parts.values()), whole, atol=1e-5)
    np.testing.assert_array_equal(whole, made.scored.scores["misalignment_image_text"])
    for record in records(made).values():
        pair = record["pairs"]["image_text"]
        assert sum(part["share"] for part in pair["parts"].values()) == pytest.approx(pair["score"], abs=1e-3)
        assert pair["score"] == pytest.approx(record["misalignment"], abs=1e-4)


def test_three_modalities_have_three_pairs():
    evidence = planted(3).evidence
    for pair in evidence.pairs:
        whole, parts = pair_shares(evidence, pair, np.arange(20))
        np.testing.assert_allclose(sum(part["share"] for part in parts.values()), whole, atol=1e-5)


def test_voters_are_neighbors_and_the_picture_s_own_disagree(made):
    order = [made.ready.samples.ids[row] for row in made.ready.order.rows]
    neighbors = made.evidence.neighbors
    for sample, found in records(made).items():
        for side in found["neighbors"]:
            voters = {order[i] for i in neighbors[side["near"]].indices[order.index(sample)] if i >= 0}
            assert side["voters"]
            assert {v["id"] for v in side["voters"]} <= voters - {sample}
            assert all(v["caption"] == made.ready.samples.media["text"][int(v["id"][1:])] for v in side["voters"])
            against = [v["weight"] * (1 - v["agreement"]) for v in side["voters"]]
            assert against == pytest.approx(sorted(against, reverse=True), abs=1e-3)


def test_rivals_fit_better_by_the_models(made):
    for found in records(made).values():
        fit = found["rivals"]["image_text"]
        assert all(rival["lift"] > fit["own"]["lift"] for rival in fit["better"])
        assert len({rival["caption"] for rival in fit["better"]}) == len(fit["better"])
    assert any(true_color_among_rivals(sample, found) for sample, found in records(made).items())


def test_held_out_similarity_is_the_mean_over_trials_that_saw_neither(made):
    evidence, left, right = made.evidence, np.array([3, 50, 50]), np.array([7, 3, 100, 90])
    trials = evidence.required_trials
    media, captions = (embed_held_out(trials.embed, trials.member, (0, 1), rows) for rows in (left, right))
    found = media.similarity(captions)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            values = [
                float(evidence.required_trials.embed(t)[0][a] @ evidence.required_trials.embed(t)[1][b])
                for t, member in enumerate(evidence.required_trials.member)
                if not member[a] and not member[b]
            ]
            expected = np.mean(values) if values else np.nan
            np.testing.assert_allclose(found[i, j], expected, atol=1e-5)


def test_lift_of_a_text_that_fits_everything_is_nothing():
    references = np.array([[0.5, 0.0], [0.5, 0.1], [0.5, np.nan]])
    np.testing.assert_allclose(lift(np.array([0.5, 0.5]), references)[0], 0, atol=1e-6)
    assert lift(np.array([0.5, 0.5]), references)[1] > 0.4


def test_lift_is_unknown_without_a_known_reference():
    references = np.array([[0.5, np.nan], [0.5, np.nan]])
    assert np.isfinite(lift(np.array([0.5, 0.5]), references)).tolist() == [True, False]


def test_the_order_of_the_rows_changes_nothing(made, tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(made.folder / "cache"))
    samples = made.ready.samples
    order = np.random.default_rng(0).permutation(N)
    other = Samples(
        tuple(samples.ids[r] for r in order), {m: tuple(v[r] for r in order) for m, v in samples.media.items()}
    )
    assert audited(other, tmp_path / "run", set(made.words))[3] == made.found


def explain_again(made: Made, flagged: set[str]) -> dict[str, Any]:
    """Explains other rows of the same run."""
    with RunFolder(made.folder / "run", None) as run:
        job = Job(CONFIG, "cpu", run, silent)
        return explain(made.ready, flag(made.scored, made.ready, flagged), job)


def test_nothing_flagged_is_not_explained(made):
    assert explain_again(made, set())["samples"] == {}


def test_words_do_not_depend_on_which_other_rows_are_explained(made):
    some = set(list(made.words)[:4])
    again = explain_again(made, some)
    assert set(again["samples"]) == some
    for sample in some:
        gains = [{w["text"]: w["gain"] for w in found["samples"][sample][0]["words"]} for found in (again, made.found)]
        assert gains[0] == pytest.approx(gains[1], abs=0.05)  # lambda is chosen for all words that are asked about


def test_the_file_gives_back_what_was_found(made):
    found = explain_again(made, set(made.words))
    assert found == made.found == load_explanations(made.folder / "run")
    assert find(found, "s11") == found["samples"]["s11"][0]
    assert find(found, "s1") is None


def test_records_go_by_the_ids_of_a_dataset():
    record = {"id": "a", "caption_index": 0, "caption": "a", "duplicates": ["b"], "conflicts": []}
    record["neighbors"] = [{"near": "image", "voters": [{"id": "b", "caption": "b"}]}]
    record["rivals"] = {"image_text": {"better": [{"id": "b", "caption": "a"}]}}
    found = explanations.renamed({"a": [record]}, {"a": "A", "b": "B"})
    other = {"id": "A", "caption_index": 0, "caption": "a", "duplicates": ["B"], "conflicts": []}
    other["neighbors"] = [{"near": "image", "voters": [{"id": "B", "caption": "b"}]}]
    other["rivals"] = {"image_text": {"better": [{"id": "B", "caption": "a"}]}}
    assert found == {"A": [other]}


def test_limits_are_said(made, monkeypatch):
    monkeypatch.setattr(explanations, "MOST_ROWS", 5)
    monkeypatch.setattr(explanations, "MOST_RIVALS", 3)
    found = explain_again(made, set(made.words))
    assert len(found["samples"]) == 5
    assert sum("rivals" in r[0] for r in found["samples"].values()) == 3
    assert sum("words" in r[0] for r in found["samples"].values()) == 5
    assert [note.split()[0] for note in found["notes"]] == [str(len(made.words))] * 2
    worst = max(records(made), key=lambda s: records(made)[s]["misalignment"])
    assert "words" in found["samples"][worst][0]


def test_fewer_explained_rows_than_misfits(made, monkeypatch):
    monkeypatch.setattr(explanations, "MOST_ROWS", 2)
    samples = explain_again(made, set(made.words))["samples"]
    assert [set(r[0]) >= {"rivals", "words"} for r in samples.values()] == [True, True]


def test_duplicates_are_copies_by_pixels_of_other_samples(made):
    """Rows 0 to 3 share a picture, row 4 only looks alike; rows 0 and 1 are captions of one sample."""
    n = len(made.evidence)
    groups, copies, owners = np.arange(n), np.arange(n), np.arange(n)
    groups[:5], copies[:4], owners[:2] = 0, 0, 0
    evidence = replace(made.evidence, near_duplicates={"image": groups}, copies={"image": copies}, user_groups=owners)
    nothing = np.zeros(n, dtype=bool)
    flags = {**made.scored.flags, "conflict": nothing | (np.arange(n) == 0)}
    found = duplicate_records(replace(made.scored, evidence=evidence, flags=flags), np.arange(5), made.ready)
    ids = [made.ready.samples.ids[row] for row in made.ready.order.rows]
    assert [found[row]["duplicates"] for row in (0, 1, 2, 4)] == [ids[2:4], ids[2:4], [*ids[:2], ids[3]], []]
    assert set(found[0]["conflicts"]) <= set(ids[1:4])


def test_a_missing_or_torn_file_is_one_sentence(tmp_path):
    with pytest.raises(AuditError, match="holds no explanations"):
        load_explanations(tmp_path)
    (tmp_path / "explanations.json").write_text('{"format": 1, "sam')
    with pytest.raises(AuditError, match="is damaged"):
        load_explanations(tmp_path)
    (tmp_path / "explanations.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(AuditError, match="another version"):
        load_explanations(tmp_path)


# --- words ----------------------------------------------------------------------------------------------------------


def test_words_are_told_without_punctuation_and_case():
    assert spans_of('a  "Red",\tcircle -- ok') == [(0, 1, "a"), (3, 9, "red"), (10, 16, "circle"), (20, 22, "ok")]
    assert spans_of("") == spans_of(" \n") == spans_of("!?") == []
    assert len(spans_of("x y " * 100_000)) == 1000


def test_words_of_some_but_not_of_most_captions_are_examined():
    captions = ["a red cat"] * LEAST_CAPTIONS + ["a dog"] * (LEAST_CAPTIONS + 1) + ["a bird"] * (LEAST_CAPTIONS - 1)
    assert frequent_words(captions, {"a", "red", "cat", "dog", "bird", "cow"}) == ["dog", "cat", "red"]
    assert frequent_words(captions, {"red"}) == ["red"]
    assert frequent_words([], {"red"}) == []


def test_words_keep_their_marks_and_lose_their_punctuation():
    words = [word for *_, word in spans_of("लड़का, लड़की (का) के! ที่ cafe\u0301. «rot» -- 'tis x_y _")]
    assert words == ["लड़का", "लड़की", "का", "के", "ที่", "cafe\u0301", "rot", "tis", "x_y"]


def test_likelihood_ratios_by_hand():
    """m1 = .8, m0 = .2, s^2 = .01 for the first word; the second and third are not predicted higher with them."""
    predicted = np.array(
        [[0.9, 0.5, 0.2], [0.7, 0.5, 0.1], [0.1, 0.5, 0.8], [0.3, 0.5, 0.9], [0.2, 0.5, 0]], np.float32
    )
    has_word = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]], np.float32)
    fitted = np.array([True, True, True, True, False])
    ratios = likelihood_ratios(predicted, has_word, fitted)
    np.testing.assert_allclose(ratios[:, 0], [-24, -12, 24, 12, 18], rtol=1e-4)
    np.testing.assert_array_equal(ratios[:, 1:], 0)


def test_a_single_word_is_not_taken_apart(made, monkeypatch):
    monkeypatch.setattr(words, "LEAST_GAIN", -np.inf)
    rows, evidence = np.arange(4), made.evidence
    assert all(not found["words"] for found in misfit_words(evidence, ["red"] * N, rows, 0).values())
    captions = ["red circle", "blue square"] * (N // 2)
    assert all(found["words"] for found in misfit_words(evidence, captions, rows, 0).values())


def test_words_of_hostile_captions_stay_text(made):
    captions = ["<script>alert(1)</script> \0 \u202e =cmd() \ud800 \u2028 a"] * (N // 2) + ["x y"] * (N // 2)
    found = misfit_words(made.evidence, captions, np.array([0]), 0)[0]["words"]
    assert all(captions[0][word["start"] : word["end"]] == word["text"] for word in found)
