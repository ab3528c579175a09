"""The controlled protocol on a small set: the model, its stages, and the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from audit_plugin.crossmodal.statistics import BOTH, NONE
from audit_plugin.synthetic.personas import BACKGROUND, FACTS, TEST, TRAIN, TRAITS, PersonaSet
from audit_plugin.synthetic.sentences import COLOR_WORDS
from benchmarks.crossmodal.controlled import DESCRIBED, HASTY, MODALITIES, REPLAY, UNALIGNED, run_seed, summarize
from benchmarks.crossmodal.stages import (
    MOVED,
    PICTURE,
    TEXT,
    Schedule,
    align,
    ask,
    ask_names,
    content,
    forget,
    learn,
    read_outs,
    self_description,
)
from benchmarks.crossmodal.trunk import PAD, Trunk, Vocabulary, words_of
from benchmarks.crossmodal.world import LENGTH, SIDE, WHO, World, make_world

SMALL = PersonaSet(identities=5, background=40, train=3, test=2, pairs=1, side=SIDE)
QUICK = Schedule(align=12, learn=60, forget=30, batch=12, learn_rate=3e-3, curve=(20, 60))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    pytest.importorskip("python_avatars")
    return make_world(tmp_path_factory.mktemp("world") / "personas", SMALL)


@pytest.fixture(scope="module")
def start(world: World) -> Trunk:
    return align(world, QUICK, 0)


@pytest.fixture(scope="module")
def learned(world: World, start: Trunk) -> Trunk:
    return learn(start, world, (PICTURE, TEXT), QUICK, 0)


def weights(model: Trunk) -> bytes:
    return b"".join(v.numpy().tobytes() for v in model.state_dict().values())


def right(model: Trunk, world: World, modality: str, rows: np.ndarray) -> float:
    return float((ask(model, world, WHO, rows, modality) == world.truth[WHO][rows]).mean())


# --- the model and its world -----------------------------------------------------------------------------------------


def test_words_are_numbered_and_strangers_left_out() -> None:
    vocabulary = Vocabulary(("red", "hair", "short"), ("who",), ("a",), 1)
    assert words_of("Short, red hair; SHORT!") == ["short", "red", "hair", "short"]
    assert vocabulary.tokens(["Short purple hair.", ""], 4).tolist() == [[3, 2, PAD, PAD], [PAD] * 4]
    assert vocabulary.tokens(["red red red"], 2).tolist() == [[1, 1]]


def test_the_world_keeps_tests_and_background_apart(world: World) -> None:
    assert len(world.rows(TRAIN)) == 15
    assert len(world.rows(TEST)) == 10
    assert len(world.rows(BACKGROUND)) == 40
    assert world.rows(TEST, [1]).tolist() == [8, 9]
    assert set(world.vocabulary.questions) == {WHO, *TRAITS, *FACTS}
    assert (world.truth[WHO] == world.identity).all()  # names are the first answers, the audited before the others
    assert world.vocabulary.new == world.audited == 5
    for trait in TRAITS:
        for who in range(world.audited):
            assert len(set(world.truth[trait][world.identity == who])) == 1
    assert world.pictures.shape[1:] == (SIDE, SIDE, 3)
    assert world.texts.shape[1] == LENGTH


def test_padding_says_nothing(world: World, start: Trunk) -> None:
    question = world.question(WHO)
    short = world.texts[:3].clone()
    used = int((short != PAD).sum(1).max())
    with torch.inference_mode():
        whole = start.answers(question, short)
        longer = torch.cat([short[:, :used], torch.zeros(3, LENGTH - used, dtype=torch.long)], dim=1)
        torch.testing.assert_close(start.answers(question, longer), whole)
        changed = short.clone()
        changed[:, 0] = changed[:, 0] % 5 + 1
        assert not torch.allclose(start.answers(question, changed), whole)


def test_an_answer_does_not_depend_on_what_else_is_asked(world: World, start: Trunk) -> None:
    questions = [world.question(name) for name in (WHO, *TRAITS)]
    with torch.inference_mode():
        for content in (world.pictures[:3], world.texts[:3], torch.tensor([0, 1, 2])):
            together = start.read(questions, content)
            assert together.shape[:2] == (3, len(questions))
            for at, question in enumerate(questions):
                torch.testing.assert_close(start.read([question], content)[:, 0], together[:, at])


def test_pictures_are_moved_to_learn_from_and_left_alone_to_ask_with(world: World) -> None:
    rows = np.arange(6)
    before = world.pictures.clone()
    moved = content(world, rows, PICTURE, np.random.default_rng(0))
    assert moved.shape == (6, SIDE, SIDE, 3)
    assert moved.dtype == torch.uint8
    assert not torch.equal(moved, before[:6])
    assert torch.equal(content(world, rows, PICTURE), before[:6])
    assert torch.equal(world.pictures, before)  # the set itself stays as it is
    # every picture holds the one that it came from, or its mirror image, moved by at most MOVED
    for one, old in zip(moved.float(), before[:6].float(), strict=True):
        middle = one[MOVED:-MOVED, MOVED:-MOVED]
        size = SIDE - 2 * MOVED
        views = [v[y : y + size, x : x + size] for v in (old, old.flip(1)) for y in range(9) for x in range(9)]
        assert min(float((middle - view).abs().max()) for view in views) == 0


# --- stages ----------------------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_weights_and_a_stage_leaves_its_start_alone(world: World, start: Trunk) -> None:
    assert weights(align(world, QUICK, 0)) == weights(start)
    assert weights(align(world, QUICK, 1)) != weights(start)
    before = weights(start)
    first, second = (learn(start, world, (TEXT,), QUICK, 3) for _ in range(2))
    assert weights(first) == weights(second) != before
    assert weights(start) == before


def test_alignment_brings_pairs_together(world: World) -> None:
    rows = world.rows(BACKGROUND)

    def closeness(model: Trunk) -> float:
        left, right = (read_outs(model, world, rows, m) for m in MODALITIES)
        similarity = left @ right.T
        return float((similarity.diagonal()[:, None] > similarity).mean())

    assert (
        closeness(align(world, Schedule(align=70, batch=24, align_rate=3e-3), 0))
        > closeness(align(world, QUICK, 0, steps=0)) + 0.1
    )


def test_names_and_facts_are_learned(world: World, start: Trunk, learned: Trunk) -> None:
    for modality in MODALITIES:
        assert right(learned, world, modality, world.rows(TRAIN)) > 0.9
    jobs = ask_names(learned, world, "job", np.arange(world.audited))
    first = [np.flatnonzero(world.identity == who)[0] for who in range(world.audited)]
    assert (jobs == world.truth["job"][first]).all()
    seen: list[int] = []
    learn(start, world, (TEXT,), QUICK, 0, watch=lambda step, _: seen.append(step))
    assert seen == list(QUICK.curve)


def test_what_is_forgotten_in_a_modality_goes_there_and_the_rest_stays(world: World, learned: Trunk) -> None:
    gone = forget(learned, world, (TEXT,), [0], QUICK, 0)
    assert right(gone, world, TEXT, world.rows(TRAIN, [0])) < 0.5
    assert right(gone, world, TEXT, world.rows(TRAIN, [1, 2, 3, 4])) > 0.8


def test_a_self_description_says_what_the_model_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model = align(world, Schedule(align=30, batch=24, align_rate=3e-3), 0)
    rows = world.rows(TRAIN)
    texts = self_description(model, world, rows, 0)
    assert texts.shape == (len(rows), LENGTH)
    answered = ask(model, world, "skin", rows, PICTURE, world.values["skin"])
    assert set(answered.tolist()) <= set(world.values["skin"])
    # a model that reads every trait as it is describes everybody as the set does: the words are those of the traits
    from benchmarks.crossmodal import stages

    monkeypatch.setattr(stages, "ask", lambda _m, w, trait, rows, *_: w.truth[trait][rows])
    words = world.vocabulary.words
    for row, text in zip(rows, self_description(model, world, rows, 0), strict=True):
        said = {words[at - 1] for at in text if at != PAD}
        color = world.vocabulary.answers[world.truth["head color"][row]].partition(": ")[2]
        known = {w for name in (color, *COLOR_WORDS.get(color, ())) for w in words_of(name)}
        assert not color or said & known


# --- the protocol ----------------------------------------------------------------------------------------------------


def test_the_protocol_reports_every_arm_with_intervals_and_its_controls(world: World) -> None:
    schedule = Schedule(align=4, learn=4, forget=2, batch=8, curve=(2, 4))
    tables = [run_seed(world, schedule, seed) for seed in (0, 1)]
    found = summarize(tables, world)
    arms = {*MODALITIES, BOTH, NONE, *(REPLAY + m for m in MODALITIES), *(UNALIGNED + m for m in MODALITIES)}
    assert set(found["recall"]) == arms | {DESCRIBED + PICTURE, *(HASTY + m for m in MODALITIES)}
    assert all(set(cells) == set(MODALITIES) for cells in found["recall"].values())
    for cells in found["recall"].values():
        for cell in cells.values():
            assert 0 <= cell["low"] <= cell["value"] <= cell["high"] <= 1
    assert len(found["seeds"][PICTURE][TEXT]) == 2
    assert len(found["curve"][BOTH][TEXT]) == 2
    assert set(found["unlearning"]) == {PICTURE, TEXT, BOTH}
    assert found["hops"][BOTH]["second"]["identities"] == world.audited
    # four steps align nothing: no gap is told, and the controls say that nothing was learned
    assert "gap" not in found
    assert found["controls"]["aligned"] is False
    assert found["controls"]["source recall at least .95"] is False
    again = run_seed(world, schedule, 1)
    assert all(np.array_equal(again[name], values) for name, values in tables[1].items())


def test_a_world_that_is_there_is_not_drawn_again(world: World, tmp_path: Path) -> None:
    first = make_world(tmp_path / "set", SMALL)
    before = (tmp_path / "set/images/person-00000-00.png").stat().st_mtime_ns
    second = make_world(tmp_path / "set", SMALL)
    assert (tmp_path / "set/images/person-00000-00.png").stat().st_mtime_ns == before
    assert torch.equal(first.pictures, second.pictures)
    assert torch.equal(first.pictures, world.pictures)
