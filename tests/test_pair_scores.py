from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.held_out import TEMPERATURE
from audit_plugin.scoring.scores import WEIGHTS, pair_misalignment
from audit_plugin.scoring.suggest.pair_scores import (
    Weighing,
    embed_rows,
    own_suspicion,
    similarities,
    suspicion,
    text_pairs,
    weigh,
    with_tables,
)
from tests.relabel_fixtures import LINE, PAIR, N, mixed_up


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    takes = LINE.copy()
    takes[[3, 90]] = 90, 3
    return replace(mixed_up(takes), weights={PAIR: WEIGHTS})


@pytest.fixture(scope="module")
def weighing(evidence: Evidence) -> Weighing:
    return with_tables(weigh(evidence, PAIR), LINE)


def test_similarities_are_means_over_trials_that_saw_neither(evidence: Evidence, weighing: Weighing) -> None:
    rows, pool = np.array([0, 3, 40]), np.arange(0, N, 2)
    got = embed_rows(weighing, rows).similarity(embed_rows(weighing, pool))
    for a, i in enumerate(rows):
        for b, j in enumerate(pool):
            out = [t for t, member in enumerate(evidence.required_trials.member) if not member[i] and not member[j]]
            values = [
                float(evidence.required_trials.embed(t)[0][i] @ evidence.required_trials.embed(t)[1][j]) for t in out
            ]
            assert got[a, b] == pytest.approx(np.mean(values), abs=1e-5) if out else np.isnan(got[a, b])


def test_hubs_are_log_means_over_all_others(weighing: Weighing) -> None:
    held = embed_rows(weighing, LINE)
    similarity = held.similarity(held)
    for side, table in enumerate((similarity, similarity.T)):
        for i in (0, 77):
            others = np.delete(table[i], i)
            others = others[np.isfinite(others)]
            hub = TEMPERATURE / 2 * np.log(np.mean(np.exp(others.astype(np.float64) / TEMPERATURE)))
            assert weighing.hubs["contrast"][side, i] == pytest.approx(hub, abs=1e-5)


def test_a_candidate_has_no_voice_among_the_neighbors(weighing: Weighing) -> None:
    rows, pool = np.array([0, 77]), LINE
    of_rows, of_pool = embed_rows(weighing, rows), embed_rows(weighing, pool)
    found = similarities(weighing, of_rows, of_pool)["neighbors_a"]
    votes, views = weighing.tables["neighbors_a"].votes, weighing.evidence.projections["text"]
    for a, i in enumerate(rows):
        voters = votes.voters[i].tolist()
        for j in (voters[0], voters[4], 200):
            said = sum(
                w * float(views[v] @ views[j])
                for w, v in zip(votes.weights[i], voters, strict=True)
                if v not in (j, -1)
            )
            assert found[a, j] == pytest.approx(said, abs=1e-5)
    back = similarities(weighing, of_pool, of_rows)["neighbors_b"]
    assert back.shape == (N, 2)


def test_own_pairs_are_weighed_like_any_and_as_their_misalignment(evidence: Evidence, weighing: Weighing) -> None:
    own, held = own_suspicion(weighing), embed_rows(weighing, LINE)
    np.testing.assert_allclose(np.diagonal(suspicion(weighing, held, held)), own, atol=1e-3)
    assert np.corrcoef(own, pair_misalignment(evidence, PAIR))[0, 1] > 0.99
    assert set(np.argsort(own)[-2:]) == {3, 90}


def test_a_displaced_caption_fits_its_own_medium(weighing: Weighing) -> None:
    media, captions = embed_rows(weighing, np.array([3, 90])), embed_rows(weighing, LINE)
    table, own = suspicion(weighing, media, captions), own_suspicion(weighing)
    for at, (row, home) in enumerate(((3, 90), (90, 3))):
        assert table[at, home] < own[row] - 2
        assert (table[at] < table[at, home]).mean() < 0.03


def test_evidence_without_weight_is_not_asked(evidence: Evidence) -> None:
    weights = {PAIR: dict.fromkeys(WEIGHTS, 0.0) | {"contrast": 1.0}}
    bare = weigh(replace(evidence, weights=weights), PAIR)
    assert set(bare.own) == {"contrast"}
    assert with_tables(bare, LINE).tables == {}


def test_tables_of_some_samples_say_what_those_of_all_say(weighing: Weighing) -> None:
    """Whatever their order: each kind of evidence, with the votes of neighbors that are not among the samples."""
    media, captions = np.array([90, 3, 41]), np.array([77, 3, 120, 91])
    some = with_tables(weighing, np.concatenate([captions, media]))
    assert set(some.tables) == set(weighing.weights) - {"contrast"}
    for kind, tables in some.tables.items():
        assert len(tables.media) == len(tables.captions) == len(tables.rows) == 6
        wanted = weighing.tables[kind].similarity(media, captions)
        np.testing.assert_allclose(tables.similarity(media, captions), wanted, atol=1e-6, err_msg=kind)
    of_media, of_captions = embed_rows(weighing, media), embed_rows(weighing, captions)
    np.testing.assert_allclose(
        suspicion(some, of_media, of_captions), suspicion(weighing, of_media, of_captions), atol=1e-4
    )


def test_pairs_of_other_samples_than_the_tables_are_refused(weighing: Weighing) -> None:
    few = with_tables(weighing, np.array([3, 90]))
    held = embed_rows(weighing, np.array([3, 4]))
    with pytest.raises(ValueError, match="of other samples"):
        suspicion(few, held, held)
    with pytest.raises(KeyError):
        suspicion(replace(weighing, tables={}), held, held)


def test_encoders_that_share_a_space_are_asked_too(evidence: Evidence) -> None:
    evidence = replace(evidence, space=dict.fromkeys(PAIR, "one"))
    shared = with_tables(weigh(evidence, PAIR), LINE)
    assert set(shared.own) == set(WEIGHTS)
    rows = np.array([0, 5, 9])
    held = embed_rows(shared, rows)
    found = similarities(shared, held, held)["zero_shot"]
    np.testing.assert_allclose(found, evidence.vectors["image"][rows] @ evidence.vectors["text"][rows].T)
    np.testing.assert_allclose(np.diagonal(suspicion(shared, held, held)), own_suspicion(shared)[rows], atol=1e-3)


def test_the_text_stands_last(evidence: Evidence) -> None:
    assert text_pairs(evidence) == [PAIR]
    assert text_pairs(replace(evidence, words={"image": evidence.words["text"]})) == [PAIR[::-1]]
    assert text_pairs(replace(evidence, words={})) == []
