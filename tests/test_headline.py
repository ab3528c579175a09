"""The sentences at the top of the panel and of the report, from numbers that were made up."""

from __future__ import annotations

from typing import Any

import pytest

from audit_plugin.review.flag_quality import FlagQuality
from audit_plugin.review.headline import review_sentence, weakness_sentence, wrong_sentence
from audit_plugin.scoring.wrong_pairs import Interval

NAN = float("nan")


@pytest.mark.parametrize(
    ("wrong", "is_checked", "sentence"),
    [
        (Interval(93, 71, 116), False, "At least 71 wrong of 1,000, by the model. A spot check measures how many."),
        (Interval(93.4, 70.6, 115.9), True, "About 93 wrong of 1,000 (71 to 116)."),
        (Interval(NAN, 0, 12), True, "0 to 12 wrong of 1,000."),
        (
            Interval(5, 0, 9),
            False,
            "No wrong pairs of 1,000 can be distinguished from chance. A spot check measures how many there are.",
        ),
        (Interval(0, 0, 9), True, "About 0 wrong of 1,000 (0 to 9)."),
        (Interval(NAN, NAN, NAN), True, "How many of 1,000 pairs are wrong is not known."),
        (None, False, "How many of 1,000 pairs are wrong is not known."),
    ],
)
def test_how_many_are_wrong(wrong: Interval | None, is_checked: bool, sentence: str) -> None:
    assert wrong_sentence(FlagQuality(64, None, wrong, 1000, is_checked, 0.9)) == sentence
    former = wrong_sentence(FlagQuality(64, None, wrong, None, is_checked, 0.9))  # of a run that did not store it
    assert former == sentence.replace(" of 1,000", "")


@pytest.mark.parametrize(
    ("done", "total", "sentence"),
    [
        (21, 64, "64 flagged, 21 decided: review 43 more."),
        (0, 1064, "1,064 flagged, 0 decided: review 1,064 more."),
        (64, 64, "64 flagged, all decided."),
        (0, 0, "Nothing is flagged."),
    ],
)
def test_how_far_the_review_is(done: int, total: int, sentence: str) -> None:
    assert review_sentence(total, done) == sentence


def test_weak_flags_are_called_so_by_what_the_probe_pairs_measured() -> None:
    weak: dict[str, Any] = {"probe_recall": {"random": 0.1, "neighborhood": 0.004, "other": None}}
    sentence = weakness_sentence(weak, is_own=True)
    assert (
        "only 10% of the pairs mismatched at random and 0.4% of the pairs mismatched with a similar sample" in sentence
    )
    assert "Look at the worst 30 instead." in sentence
    assert not weakness_sentence(weak, is_own=False)  # measured with the audit's own threshold
    assert not weakness_sentence({"probe_recall": {"random": 0.5, "neighborhood": 0.1}}, is_own=True)
    assert not weakness_sentence({"probe_recall": {"random": None}}, is_own=True)
    assert not weakness_sentence({}, is_own=True)
