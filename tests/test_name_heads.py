"""Name heads on features whose relation is known: recall within and across modalities, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audit_plugin.arrays import Features
from audit_plugin.crossmodal.name_heads import STEPS, Answers, NamingTask, ask_name_heads, join_rows
from audit_plugin.crossmodal.sentences import recall_rows, sentences
from audit_plugin.crossmodal.statistics import BOTH, NONE
from audit_plugin.crossmodal.summary import identity_table, row_columns, summarize
from tests.core_fixtures import unit

PEOPLE, LEARN, ASK, OTHERS, HIDDEN, DIM = 20, 4, 3, 400, 16, 48
NAMES = ("image", "text")


def made(noise: float = 0.5, only_seen: int = 0, seed: int = 0) -> NamingTask:
    """Hidden vectors of identities, seen from both sides through noise.

    Args:
        noise: of each view.
        only_seen: dimensions of the hidden vector that texts say nothing of.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    identity = np.r_[np.repeat(np.arange(PEOPLE), LEARN + ASK), PEOPLE + np.repeat(np.arange(OTHERS), 2)]
    hidden = rng.standard_normal((identity.max() + 1, HIDDEN))[identity]
    maps = rng.standard_normal((2, HIDDEN, DIM)) / np.sqrt(HIDDEN)
    maps[1, :only_seen] = 0
    views = [unit(hidden @ m + noise * rng.standard_normal((len(identity), DIM))) for m in maps]
    number = np.arange(len(identity))
    mine = number < PEOPLE * (LEARN + ASK)
    learn = mine & (number % (LEARN + ASK) < LEARN)
    present = np.ones((len(identity), 2), dtype=bool)
    features = Features(dict(zip(NAMES, (v.astype(np.float32) for v in views), strict=True)), present)
    return NamingTask(features, identity, ((learn, mine & ~learn),), ~mine)


@pytest.fixture(scope="module")
def answers() -> Answers:
    return ask_name_heads(made(), (0, 1))


def test_names_are_recalled_within_and_across_modalities_with_the_same_information(answers: Answers) -> None:
    found = summarize(answers, NAMES)
    assert "refused" not in found
    assert found["chance"] == 1 / PEOPLE
    for name in NAMES:
        assert found["recall"][name][name]["value"] > 0.9
        assert found["recall"][BOTH][name]["value"] > 0.9
        assert found["recall"][NONE][name]["value"] < 0.25
        assert found["transfer_ratio"][name]["value"] > 0.7
        low, value, high = (found["gap"][name][key] for key in ("low", "value", "high"))
        assert low <= value <= high
    assert found["alignment"]["retrieval"]["value"] > 0.5
    assert len(found["curve"]["image"]["text"]) == len(STEPS)
    assert np.shape(found["seeds"]["image"]["text"]) == (2,)
    assert "image to text" in sentences(found)[0]
    assert [row[0] for row in recall_rows(found)] == ["image", "text", "both", "nothing"]


def test_information_missing_in_one_modality_leaves_a_gap(answers: Answers) -> None:
    seen = summarize(ask_name_heads(made(only_seen=13), (0, 1)), NAMES)
    assert seen["gap"]["image"]["low"] > 0.1
    assert seen["gap"]["image"]["value"] > summarize(answers, NAMES)["gap"]["image"]["value"] + 0.1


def test_without_alignment_the_gap_is_refused(answers: Answers) -> None:
    alone = summarize(ask_name_heads(made(), (0, 1), align=False), NAMES)
    assert alone["refused"].startswith("the modalities are not aligned: held-out pairs are retrieved in")
    assert not {"gap", "transfer_ratio", "joint", "mitigation"} & set(alone)
    assert alone["recall"]["image"]["image"]["value"] > 0.9
    assert alone["recall"]["image"]["text"]["value"] < 0.25
    assert sentences(alone) == [alone["refused"]]


def test_equal_seeds_give_equal_answers_and_row_order_means_nothing() -> None:
    asked = made(noise=0.9)
    first, second = ask_name_heads(asked, (3,)), ask_name_heads(asked, (3,))
    for key, hits in first.hits.items():
        np.testing.assert_array_equal(hits, second.hits[key])
    # the same rows, asked in two parts of which each holds the other's questions back
    learn, ask = asked.parts[0]
    halves = ask_name_heads(replace(asked, parts=((learn, ask), (ask, learn))), (3,))
    assert len(halves.rows) == PEOPLE * (LEARN + ASK)
    whole = set(halves.rows.tolist())
    assert len(whole) == len(halves.rows)
    np.testing.assert_array_equal(halves.hits["image", "text"][:, : ask.sum()], first.hits["image", "text"])


def test_identities_and_rows_say_the_same(answers: Answers) -> None:
    people = [f"person {number:02d}" for number in range(PEOPLE)]
    records = identity_table(answers, NAMES, people)
    assert sorted(record["identity"] for record in records) == people
    assert [record["gap"] for record in records] == sorted((record["gap"] for record in records), reverse=True)
    asked = made()
    columns = row_columns(answers, NAMES, len(asked.identity))
    assert set(columns) == {f"recall_{a}_{m}" for a in (*NAMES, BOTH) for m in NAMES}
    for record in records:
        rows = asked.parts[0][1] & (asked.identity == people.index(record["identity"]))
        assert record["questions"] == rows.sum()
        assert record["recall_image_text"] == pytest.approx(float(columns["recall_image_text"][rows].mean()), abs=1e-3)
        stays = record["recall_image_image"] >= 0.5 > record["recall_image_text"]
        assert ("image" in record["stays_in"]) == stays
    assert np.isnan(columns["recall_image_text"][asked.alignment_rows]).all()


def test_joined_answers_weigh_every_question_alike(answers: Answers) -> None:
    twice = join_rows([answers, answers])
    assert twice.hits["image", "text"].shape == (2, 2 * len(answers.rows))
    np.testing.assert_allclose(twice.curve["image", "text"], answers.curve["image", "text"])
    assert twice.chance == answers.chance
