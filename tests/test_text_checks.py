"""Checks of texts by themselves: each kind of fault by hand, what is no fault, and what a set's style is."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.arrays import Samples
from audit_plugin.audit.caption_lists import per_sample
from audit_plugin.audit.run import run_audit
from audit_plugin.scoring import personal_data, text_checks, text_cleaning
from audit_plugin.scoring.cleaned_texts import AGAINST_CAPTION
from audit_plugin.scoring.text_checks import CHECKS, DAMAGE, OTHER_LANGUAGE, check_texts
from audit_plugin.scoring.text_cleaning import clean_text
from tests.captions import CLEAN, FAULTY, IN_OTHER_LANGUAGES, ORDINARY
from tests.pipeline_fixtures import QUICK, draw


@pytest.mark.parametrize("text", FAULTY)
def test_a_fault_is_named_with_its_piece(text: str) -> None:
    kind, piece = FAULTY[text]
    found = check_texts([*CLEAN, text])
    assert (f'{kind} "{piece}"' if piece else kind) in found.problems[-1].split("; ")
    assert not any(found.problems[:-1])
    assert not found.notes


@pytest.mark.parametrize("text", ORDINARY)
def test_what_captions_may_hold_is_no_fault(text: str) -> None:
    found = check_texts([*CLEAN, text])
    assert (found.problems[-1], found.cleaned[-1], found.personal[-1]) == ("", "", "")


@pytest.mark.parametrize("language", IN_OTHER_LANGUAGES)
def test_nor_is_the_language_of_the_set(language: str) -> None:
    found = check_texts(IN_OTHER_LANGUAGES[language])
    assert (set(found.problems), set(found.personal), found.notes) == ({""}, {""}, ())


def test_every_check_has_an_example_and_the_tables_are_large() -> None:
    assert {kind for kind, _ in FAULTY.values()} == {DAMAGE, OTHER_LANGUAGE, *(check.name for check in CHECKS)}
    assert min(len(ORDINARY), len(FAULTY)) >= 60


def test_what_many_texts_show_is_the_style_of_the_set() -> None:
    with_prices = [f"{text} for ${number}" for number, text in enumerate(CLEAN)]
    found = check_texts([*CLEAN, *with_prices])
    assert not any(found.problems)
    assert len(found.notes) == 1
    assert '50% of the distinct texts have the text problem "price"' in found.notes[0]
    assert not any(check_texts([str(digit) for digit in range(10)] * 3).problems)  # classes of digits
    assert not any(check_texts(["0", "1"] * 20).problems)
    damaged = [f"{text} cafÃ©" for text in CLEAN]
    assert all(check_texts(damaged).problems)  # damage is never a style


def test_a_set_in_another_language_is_judged_by_its_own() -> None:
    things, colors = ("Hund", "Baum", "Stuhl", "Tisch", "Wagen", "Turm"), ("roter", "blauer", "alter")
    german = [f"ein {color} {thing} steht neben der alten Mauer im Garten" for thing in things for color in colors]
    english = "a woman rides her bicycle through the park in the morning"
    found = check_texts([*german, english])
    assert found.problems[-1] == f'{OTHER_LANGUAGE} "English"'
    assert not any(found.problems[:-1])
    russian = [f"собака номер {number} бежит по старому мосту" for number in range(20)]
    found = check_texts([*russian, english])
    assert found.problems[-1] == f'{OTHER_LANGUAGE} "English"'
    assert not any(found.problems[:-1])


@settings(deadline=None)
@given(st.lists(st.text(max_size=60), max_size=8))
def test_any_text_has_an_answer_that_depends_on_the_set_only(texts: list[str]) -> None:
    found = check_texts(texts)
    assert len(found.problems) == len(found.cleaned) == len(found.personal) == len(texts)
    order = list(range(len(texts)))
    random.Random(0).shuffle(order)
    shuffled = check_texts([texts[at] for at in order])
    for name in ("problems", "cleaned", "personal"):
        assert getattr(shuffled, name).tolist() == getattr(found, name)[order].tolist()
    assert not any(text == cleaned for text, cleaned in zip(texts, found.cleaned, strict=True) if cleaned)


PIECES = [
    "a", "1", "<", "[", "&", "!", " ", "ä", "@", "-", ".", "w.", "a@", "<b ", "[b=", "4 ", "....", "{{", "<a ", "&#",
    "www.", "1 ", "((", "![", "%(", "${", "[a](/", "<b a=", "a.com", "a.com.", "a-", "1.", "1,", "1/", "+1", "00 1",
    "(1", "DE89", "DE89 ", "A1 ", "a@a.", "a%40", "IMG_1", "photo", "a.jpg", "jpg.", "tel", "tel ", "tel 1",
    "call us ", "$1", "1€", "no image ", "log in ", "on sale", "| ", " - ", "sign ", "ha ", "a b ", "©", "Ã©", "â€",
    "\ufffd", "&amp;", "&amp;amp;", "犬", "я ", "\u200d", "\n", "\0", "http://", "see www.a.com ", "[url=", "[img]",
    "a" * 63 + ".", "[" + "a" * 60 + "]", "x=", "<a b", "\u00a0",
]  # fmt: skip
ENDS = ["", ".jpg", "@a.com]>)}} USD"]
SECONDS = 1.0  # for texts of 10,000 and 20,000 letters; a quadratic search took six and 24


def _patterns() -> dict[str, re.Pattern[str]]:
    modules = (text_checks, text_cleaning, personal_data)
    found = {f"{module.__name__}.{name}": value for module in modules for name, value in vars(module).items()}
    found |= {f"address {number}": pattern for number, pattern in enumerate(text_cleaning.ADDRESSES)}
    return {name: value for name, value in found.items() if isinstance(value, re.Pattern)}


def _seconds(act: Callable[[], object]) -> float:
    start = time.process_time()
    act()
    return time.process_time() - start


@pytest.mark.timeout(600)
def test_no_pattern_takes_more_than_linear_time() -> None:
    """Of each pattern all hostile texts together, of 10,000 letters: a quadratic one takes seconds for a single one."""
    for name, pattern in _patterns().items():
        for piece in PIECES:
            text = piece * (10_000 // len(piece))
            seconds = _seconds(lambda pattern=pattern, text=text: [pattern.search(text + end) for end in ENDS])
            assert seconds < SECONDS, (name, piece, seconds)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("piece", PIECES)
def test_hostile_texts_are_checked_and_cleaned_in_time(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    actions = {check.name: check.find for check in CHECKS}
    actions |= {"personal data": personal_data.hide_personal_data, "cleaning": clean_text}
    for name, act in actions.items():
        for hostile in (text, text[: text_checks.READ]):
            seconds = _seconds(lambda act=act, hostile=hostile: act(hostile))
            assert seconds < SECONDS, (name, len(hostile), seconds)
    assert len(check_texts([*CLEAN, text]).problems) == len(CLEAN) + 1


def test_empty_sets_and_empty_texts() -> None:
    assert len(check_texts([]).problems) == 0
    assert check_texts(["", ""]).problems.tolist() == ["", ""]
    assert np.asarray(check_texts([*CLEAN, ""]).problems)[-1] == ""


# --- in an audit ------------------------------------------------------------------------------------------------------


def test_an_audit_flags_them_says_what_they_hold_and_suggests_the_cleaned_text(tmp_path: Path) -> None:
    texts = [draw(tmp_path / f"{row}.png", row) for row in range(96)]
    true = texts.copy()
    tagged = [3, 20, 60, 77]
    for row in tagged:
        texts[row] = f"<b>{true[row]}</b>"
    texts[40] = f"{true[40]}, jane@example.org"
    paths = tuple(str(tmp_path / f"{row}.png") for row in range(96))
    samples = Samples(tuple(map(str, range(96))), {"image": paths, "text": tuple(texts)})
    result = run_audit(samples, replace(QUICK, trials=8), run_dir=tmp_path / "run")

    assert np.flatnonzero(result.flagged("text_problem")).tolist() == tagged
    assert np.flatnonzero(result.flagged("personal")).tolist() == [40]
    assert result.columns["text_problem"][3] == 'markup "<b>"'
    assert result.columns["text_problem"][40] == "personal data: e-mail address"
    assert not any("jane" in str(values[40]) for values in result.columns.values())
    others = [kind for kind in AGAINST_CAPTION if kind != "outlier"]  # which markup alone makes of a text
    against = np.logical_or.reduce([result.flagged(kind) for kind in others])
    assert not against[tagged].all()
    for row in np.array(tagged)[~against[tagged]]:
        assert (result.columns["action"][row], result.columns["suggestion"][row]) == ("relabel", true[row])
    assert all('markup "<b>"' in reason for reason in result.columns["reason"][tagged])
    assert any("1 sample has personal data in a text" in note for note in result.summary["notes"])
    assert result.summary["flags"]["text_problem"] == len(tagged)


LABELS = ["Null", "N/A", "IMG_2034.jpg", "jane@example.org", "no image", "<b>", "12"]


def test_texts_that_are_not_checked_to_their_end_are_counted() -> None:
    end = "call jane@example.org"
    beyond = "some words of a long text " * 400 + end
    found = check_texts([end, beyond, beyond, "a chair"])
    assert found.personal.tolist() == ["e-mail address", "", "", ""]
    assert [note for note in found.notes if "longer" in note] == [
        "1 distinct text is longer than 10,000 characters: the rest was not checked, including for personal data"
    ]
    assert not check_texts([end, "a chair"]).notes


@pytest.mark.parametrize("distinct", [True, False])
def test_class_labels_are_not_judged_as_captions(tmp_path: Path, distinct: bool) -> None:
    """The same words are judged where they are texts of few samples among many captions."""
    n = 140
    shown = [draw(tmp_path / f"{row}.png", row) for row in range(n)]
    texts = [f"{shown[row]}, number {row} of them" for row in range(n)] if distinct else LABELS * (n // len(LABELS))
    texts[: len(LABELS)] = LABELS
    paths = tuple(str(tmp_path / f"{row}.png") for row in range(n))
    samples = Samples(tuple(map(str, range(n))), {"image": paths, "text": tuple(texts)})
    result = run_audit(samples, QUICK, run_dir=tmp_path / "run")
    flagged = result.flagged("text_problem") | result.flagged("personal")
    assert np.flatnonzero(flagged).tolist() == (list(range(len(LABELS))) if distinct else [])
    assert not any("text problem" in note for note in result.summary["notes"])


def test_a_sample_with_several_texts_says_what_any_of_them_holds(tmp_path: Path) -> None:
    texts = [draw(tmp_path / f"{row}.png", row) for row in range(64)]
    ids = [str(row) for row in range(64) for _ in range(2)]
    paths = tuple(str(tmp_path / f"{row}.png") for row in range(64) for _ in range(2))
    both = [f"{text}{more}" for text in texts for more in ("", " on paper")]
    both[10], both[11] = f"{both[10]} &amp;", f"{both[11]} {both[11]}.jpg"
    both[20], both[21] = f"{both[20]} jane@example.org", f"{both[21]}, joe@example.org"
    samples = Samples(tuple(ids), {"image": paths, "text": tuple(both)}, caption=(0, 1) * 64)
    result = run_audit(samples, QUICK, run_dir=tmp_path / "run")
    assert any("1 sample has personal data in a text" in note for note in result.summary["notes"])  # in both captions
    of_samples = per_sample(result, samples.caption)
    assert np.flatnonzero(of_samples.flagged("text_problem")).tolist() == [5]
    assert 'markup "&amp;"' in of_samples.columns["text_problem"][5]
    assert "file name" in of_samples.columns["text_problem"][5]
