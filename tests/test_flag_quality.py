from __future__ import annotations

import math

import numpy as np
import pytest

from audit_plugin.review.flag_quality import quality_of_flags
from audit_plugin.review.headline import wrong_sentence
from audit_plugin.review.spot_check import SpotEstimate
from audit_plugin.scoring.wrong_pairs import Interval, share_text

SCORES = np.array([0.0, 1.0, 2.0, 3.0, np.nan])
OWN = {
    "in_one_space": False,
    "judged": 4,
    "pairs": 2,
    "pairs_interval": [1, 3],
    "precision": 0.9,
    "precision_interval": [0.8, 1.0],
}
KNOWN = {**OWN, "good_above": {"edges": [0.0, 2.0], "share": [0.5, 0.1], "low": [0.4, 0.0], "high": [0.6, 0.2]}}


def spot(flagged: int, low: float = 0.5, high: float = 0.9) -> SpotEstimate:
    share, unknown = Interval(0.75, low, high), Interval(math.nan, math.nan, math.nan)
    return SpotEstimate(share, unknown, Interval(2, 1, 3), unknown, 20, 0, 0.9, flagged, 5)


def test_the_model_tells_until_a_person_does() -> None:
    flagged = SCORES >= 2
    quality = quality_of_flags({"estimated": KNOWN}, SCORES, flagged)
    assert (quality.precision_text, quality.wrong_text) == ("at least 80%", "at least 1 of 4")
    assert (quality.correct_text, quality.source) == ("at most 1 of them is", "model-based, not checked")
    quality = quality_of_flags({"estimated": KNOWN}, SCORES, flagged, is_own=False)  # 2 of 4 are flagged: 1 - .1 / .5
    assert (quality.precision_text, quality.correct_text) == ("at least 60%", "at most 1 of them is")
    quality = quality_of_flags({"estimated": KNOWN}, SCORES, flagged, spot(2))
    assert (quality.precision_text, quality.source) == ("75% (50% to 90%)", "spot check, 90% intervals")
    assert quality.correct_text == "about 0 of them are"


def test_of_encoders_that_share_a_space_nothing_is_reported_before_a_spot_check() -> None:
    flagged = SCORES >= 2
    summary = {"estimated": {**KNOWN, "in_one_space": True}, "flags": {"misaligned": 2}}
    for quality in (
        quality_of_flags(summary, SCORES, flagged),
        quality_of_flags(summary, SCORES, flagged, None, False),
    ):
        assert (quality.precision_text, quality.wrong_text) == ("not known", "not known")
        assert not quality.correct_text
    checked = quality_of_flags(summary, SCORES, flagged, spot(2))
    assert checked.wrong_text == "about 2 of 5 (1 to 3)"


def test_a_bound_of_nothing_is_not_reported() -> None:
    none = {**OWN, "pairs_interval": [0, 3], "precision_interval": [0.001, 0.9]}
    quality = quality_of_flags({"estimated": none}, SCORES, SCORES >= 2)
    assert (quality.precision_text, quality.correct_text) == ("not known", "")
    assert quality.wrong_text == "none that can be distinguished from chance"


def test_bounds_are_rounded_to_the_safe_side() -> None:
    scores = np.arange(6.0)
    for low, flagged, share, correct in (
        (0.9962, 3, "at least 99%", "at most 1 of them is"),
        (0.85, 3, "at least 85%", "at most 1 of them is"),
        (0.58, 5, "at least 58%", "at most 3 of them are"),  # 0.58 * 100 is 57.99999999999999
        (0.8, 5, "at least 80%", "at most 1 of them is"),
        (1.0, 5, "at least 100%", "at most 0 of them are"),
        (0.0079, 5, "at least 0.7%", "at most 5 of them are"),
    ):
        summary = {"estimated": {**OWN, "precision": 1.0, "precision_interval": [low, 1.0]}}
        quality = quality_of_flags(summary, scores, scores >= 6 - flagged)
        assert (quality.precision_text, quality.correct_text) == (share, correct)


@pytest.mark.parametrize(
    "change",
    [
        {"pairs_interval": None},
        {"pairs_interval": [None, None]},
        {"pairs_interval": [math.nan, 5]},
        {"pairs_interval": ["1", "3"]},
        {"pairs": "2"},
        {"in_one_space": "false"},
        {"in_one_space": True},
    ],
)
def test_estimates_that_cannot_be_read_are_not_known(change: dict) -> None:
    quality = quality_of_flags({"estimated": {**KNOWN, **change}}, SCORES, SCORES >= 2)
    assert (quality.precision_text, quality.wrong_text, quality.correct_text) == ("not known", "not known", "")
    assert wrong_sentence(quality) == "How many pairs are wrong is not known."
    assert quality_of_flags({"estimated": [1]}, SCORES, SCORES >= 2).wrong is None
    strange = {"estimated": {**OWN, "precision_interval": [math.nan, math.nan]}}
    assert quality_of_flags(strange, SCORES, SCORES >= 2).precision_text == "not known"


def test_audits_of_former_versions_are_known_to_have_separate_encoders_only_with_the_offline_ones() -> None:
    former = {name: value for name, value in OWN.items() if name != "in_one_space"}
    for encoder, text in (("offline", "at least 1 of 4"), ("open_clip:ViT-B-32:x", "not known"), (None, "not known")):
        summary = {"estimated": former, "encoder_name": encoder}
        assert quality_of_flags(summary, SCORES, SCORES >= 2).wrong_text == text


def test_what_is_not_known_is_said() -> None:
    flagged = SCORES >= 2
    for summary in ({}, {"estimated": {}}, {"estimated": None}):
        quality = quality_of_flags(summary, SCORES, flagged)
        assert (quality.precision_text, quality.wrong_text, quality.correct_text) == ("not known", "not known", "")
    former = quality_of_flags({"estimated": OWN}, SCORES, flagged, is_own=False)  # knows its own flags alone
    assert (former.precision_text, former.wrong_text) == ("not known", "at least 1 of 4")
    others = quality_of_flags({"estimated": KNOWN}, SCORES, flagged, spot(3))
    assert (others.precision, others.wrong_text) == (None, "about 2 of 5 (1 to 3)")
    few = quality_of_flags({"estimated": KNOWN}, SCORES, flagged, spot(2, 0.05, 0.95))
    assert (few.precision_text, few.correct_text) == ("too few labels to tell", "")
    assert quality_of_flags({"estimated": KNOWN}, SCORES, SCORES > 9, is_own=False).precision is None


def test_shares_are_shown_only_where_they_tell_something() -> None:
    assert share_text(Interval(0.07, 0.0, 0.2), "?") == "7% (0% to 20%)"
    assert share_text(Interval(math.nan, 0.1, 0.3), "?") == "10% to 30%"
    assert share_text(Interval(0.07, 0.0, 0.95), "?") == share_text(Interval(0.5, math.nan, math.nan), "?") == "?"
