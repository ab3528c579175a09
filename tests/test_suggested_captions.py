from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.suggest import captions as suggestions
from audit_plugin.scoring.suggest.captions import (
    HOLDER,
    MUTUAL,
    TOP,
    Suggestions,
    apply_suggestions,
    ask_captioner,
    rank_captions,
    suggest,
)
from audit_plugin.scoring.suggest.pair_scores import Weighing, embed_rows, own_suspicion, suspicion, weigh, with_tables
from audit_plugin.scoring.text_checks import TextProblems
from tests.relabel_fixtures import CAPTIONS, IDS, LINE, PAIR, N, mixed_up

SWAPS = ((0, 120), (31, 77), (50, 200))
RING = [12, 190, 66, 150, 8, 99, 230, 41, 170, 110]
WRONG = [*sum(SWAPS, ()), *RING]
RIGHT = [row for row in range(N) if row not in WRONG]
SHIFT = range(100, 180)
Case = tuple[Evidence, np.ndarray]


@pytest.fixture(scope="module")
def swapped() -> Case:
    """Captions changed places here and there: three swaps and one ring."""
    takes = LINE.copy()
    for a, b in SWAPS:
        takes[[a, b]] = b, a
    takes[RING] = np.roll(RING, 1)
    return mixed_up(takes, noise=0.4), takes


@pytest.fixture(scope="module")
def shifted() -> Case:
    """From row 100 to 179 each row holds the caption of the row above."""
    takes = LINE.copy()
    takes[SHIFT] -= 1
    return mixed_up(takes), takes


def found_in(case: Case, rows: range | list[int]) -> Suggestions:
    evidence, takes = case
    return suggest(evidence, np.isin(LINE, rows), [CAPTIONS[j] for j in takes], 0, LINE, IDS)


# --- swaps, cycles and single captions ------------------------------------------------------------------------------


def test_swapped_rows_get_their_own_caption_back(swapped: Case) -> None:
    found = found_in(swapped, WRONG)
    given = [row for row in WRONG if found.captions[row]]
    assert len(given) > len(WRONG) / 2
    assert np.mean([found.captions[row] == CAPTIONS[row] for row in given]) > 0.9
    assert not any(found.captions[RIGHT])
    assert np.isfinite(found.score[given]).all()
    assert np.isnan(found.score[RIGHT]).all()


def ranks_of(weighing: Weighing, **margin: float) -> np.ndarray:
    """`[n, n]`: the rank of every caption for every medium."""
    return np.concatenate([rank for _, rank, _ in rank_captions(weighing, LINE, LINE, **margin)])


def test_a_caption_ranks_by_its_fit_and_by_how_ill_it_and_its_own_medium_fit(swapped: Case) -> None:
    weighing = with_tables(weigh(swapped[0], PAIR), LINE)
    held = embed_rows(weighing, LINE)
    own, table = own_suspicion(weighing), suspicion(weighing, held, held)
    ranks = ranks_of(weighing, margin=-np.inf)
    for i, j in ((0, 120), (31, 5), (7, 50)):
        expected = -table[i, j] + HOLDER * np.clip(own[j], -4, 4) + MUTUAL * np.clip(own[j] - table[j, i], 0, 4)
        assert ranks[i, j] == pytest.approx(expected, abs=1e-4)
    assert np.isnan(ranks.diagonal()).all()
    close = ranks_of(weighing)
    np.testing.assert_array_equal(np.isfinite(close), np.isfinite(ranks) & (own[:, None] - table > 1))


def test_how_many_are_ranked_at_once_changes_nothing(swapped: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    weighing = with_tables(weigh(swapped[0], PAIR), LINE)
    whole, found = ranks_of(weighing), found_in(swapped, WRONG)
    monkeypatch.setattr(suggestions, "CELLS", 7 * N)
    np.testing.assert_allclose(ranks_of(weighing), whole, atol=1e-4)
    again = found_in(swapped, WRONG)
    assert (again.captions == found.captions).all()
    assert [(r.kind, r.rows, r.sources) for r in again.repairs] == [(r.kind, r.rows, r.sources) for r in found.repairs]


def test_the_best_three_are_found_though_many_say_the_same() -> None:
    vectors = np.eye(3, dtype=np.float32)[np.r_[np.zeros(100, int), 1, 2]]
    rank = np.r_[np.linspace(3, 2, 100), 1.0, np.nan].astype(np.float32)
    assert suggestions._best_three(rank, vectors) == [0, 100]
    assert suggestions._best_three(np.r_[rank[:101], np.float32(0.5)], vectors) == [0, 100, 101]
    assert suggestions._best_three(np.full(102, np.nan, np.float32), vectors) == []


def test_where_very_many_are_wrong_the_most_suspicious_are_helped(
    swapped: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suggestions, "MAX_ROWS", 6)
    found = found_in(swapped, WRONG)
    assert found.note == "16 samples are misaligned; captions were searched for the 6 most suspicious ones"
    own = own_suspicion(weigh(swapped[0], PAIR))
    worst = sorted(WRONG, key=lambda row: -own[row])[:6]
    assert set(np.flatnonzero(found.captions != "")) <= set(worst)
    assert any(found.captions)


def test_swaps_are_named_with_their_partner(swapped: Case) -> None:
    found = found_in(swapped, WRONG)
    swaps = [repair for repair in found.repairs if repair.kind == "swap"]
    named = {frozenset(s.rows) for s in swaps}
    assert named >= {frozenset(pair) for pair in SWAPS}
    assert len(named) <= len(SWAPS) + 1  # two rows of the ring may seem to hold each other's caption
    row, partner = swaps[0].rows
    assert found.repair[row] == f"swap with {IDS[partner]}"
    assert found.why[row] == swaps[0].sentence
    assert swaps[0].gain > 1


def test_the_best_three_differ_and_are_ranked(swapped: Case) -> None:
    found = found_in(swapped, WRONG)
    assert set(found.top) == {row for row in range(N) if found.captions[row]}
    for row, best in found.top.items():
        assert 1 <= len(best) <= TOP
        assert best[0][0] == found.captions[row]
        assert best[0][1] > 0
        assert len({text for text, _ in best}) == len(best)
        assert CAPTIONS[swapped[1][row]] not in [text for text, _ in best]


def test_personal_data_are_offered_to_no_other_row_unless_their_caption_is_out_of_place(swapped: Case) -> None:
    evidence, takes = swapped
    first, second = SWAPS[0]  # each holds the caption of the other
    kinds = np.where(second == LINE, "phone number", "").astype(object)
    found = replace(TextProblems.none(N), personal=kinds)
    personal = replace(evidence, text_problems={"text": found})
    theirs = CAPTIONS[takes[second]]
    assert found_in(swapped, [first]).captions[first] == theirs
    offered = found_in((personal, takes), [first]).top.get(first, [])
    assert theirs not in [text for text, _ in offered]
    assert found_in((personal, takes), [first, second]).captions[first] == theirs


def test_rows_that_fit_get_none_though_they_were_flagged(swapped: Case) -> None:
    given = [sum(map(bool, found_in(swapped, RIGHT[start::4]).captions)) for start in range(4)]
    assert sum(given) <= 0.02 * len(RIGHT)
    assert not any(found_in(swapped, []).captions)


def test_a_clean_set_has_no_repair_and_hardly_a_suggestion() -> None:
    clean = (mixed_up(LINE), LINE)
    rows = np.random.default_rng(1).choice(N, 40, replace=False).tolist()
    found = found_in(clean, rows)
    assert found.repairs == ()
    assert sum(map(bool, found.captions)) <= 4


def test_a_wrong_label_gets_the_right_class_first() -> None:
    """Copies of a class's caption are many, and none is displaced: the class that fits best is proposed."""
    rng = np.random.default_rng(3)
    label = rng.permutation(np.arange(N) % 12)
    hidden = 1.5 * rng.standard_normal((12, 8))[label] + 0.3 * rng.standard_normal((N, 8))
    wrong = rng.choice(N, 24, replace=False)
    given = label.copy()
    given[wrong] = (label[wrong] + rng.integers(1, 12, len(wrong))) % 12
    first = np.unique(label, return_index=True)[1]  # one row of each class: equal labels are equal captions
    names = [f"class {number}" for number in given]
    found = suggest(mixed_up(first[given], hidden, noise=0.3), np.isin(LINE, wrong), names, 0, LINE, IDS)
    proposed = [row for row in wrong if found.captions[row]]
    assert len(proposed) > 0.8 * len(wrong)
    assert np.mean([found.captions[row] == f"class {label[row]}" for row in proposed]) > 0.95
    assert found.repairs == ()


def test_untrained_sets_get_none(swapped: Case) -> None:
    evidence, takes = swapped
    for changed in (replace(evidence, trials=None), replace(evidence, words={})):
        found = found_in((changed, takes), range(N))
        assert not any(found.captions)
        assert np.isnan(found.score).all()


# --- shifts ---------------------------------------------------------------------------------------------------------


def test_rows_of_a_shift_get_their_captions_though_none_is_flagged(shifted: Case) -> None:
    found = found_in(shifted, [])
    (repair,) = found.repairs
    assert [row for row in range(N) if found.captions[row]] == list(SHIFT)[:-1]
    assert all(found.captions[row] == CAPTIONS[row] for row in list(SHIFT)[:-1])
    assert found.repair[140] == "shift of +1, rows 100 to 178"
    action, reason = np.full(N, "keep", object), np.full(N, "", object)
    action[120] = "remove"
    action, reason = apply_suggestions(action, reason, found)
    lost = repair.lost[0]
    assert (action[lost], action[120], action[140], action[20]) == ("review", "remove", "relabel", "keep")
    assert (reason[140], reason[20]) == (repair.sentence, "")
    assert repair.sentence in reason[lost]


def test_a_caption_that_a_shift_gives_back_is_offered_to_nobody_else(shifted: Case) -> None:
    found = found_in(shifted, range(N))
    back = {CAPTIONS[row] for row in list(SHIFT)[:-1]}
    outside = [text for row, best in found.top.items() if row not in SHIFT for text, _ in best]
    assert not back.intersection(outside)


# --- captioner ------------------------------------------------------------------------------------------------------


NOW = ["a cat", "a dog", "a  plane", "a tree"]


def test_a_captioner_that_repeats_the_present_caption_suggests_nothing() -> None:
    nothing = Suggestions(np.full(4, "", object), np.full(4, np.nan), np.full(4, "", object))
    wanted = np.array([True, False, True, True])
    got = ask_captioner(nothing, wanted, NOW, list("abcd"), lambda _paths: ["a  cat ", "a plane", "an oak"])
    assert got.captions.tolist() == ["", "", "", "an oak"]
    assert (got.same_again, nothing.same_again) == (2, 0)


def test_a_captioner_is_asked_for_the_rest_only() -> None:
    found = Suggestions(np.array(["known", "", "", ""], object), np.full(4, np.nan), np.full(4, "", object))
    asked: list[list[str]] = []

    def caption(paths: list[str]) -> list[str]:
        asked.append(paths)
        return ["a  red\ncar", " "]

    wanted = np.array([True, True, False, True])
    got = ask_captioner(found, wanted, NOW, ["a.png", "b.png", "c.png", "d.png"], caption)
    assert asked == [["b.png", "d.png"]]
    assert got.captions.tolist() == ["known", "a red car", "", ""]
    assert "captioner" in got.why[1]
    assert set(got.why) == {1}
    assert found.captions[1] == ""
    ask_captioner(found, np.zeros(4, bool), NOW, ["a.png"] * 4, caption)
    assert len(asked) == 1
    for answer in (["one"], [1, 2]):
        with pytest.raises(AuditError, match="captioner gave"):
            ask_captioner(found, wanted, NOW, ["a.png"] * 4, lambda _paths, answer=answer: answer)
