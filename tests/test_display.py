from __future__ import annotations

import io
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from audit_plugin.arrays import Samples
from audit_plugin.audit.result import AuditResult
from audit_plugin.report import display

SUMMARY = {
    "samples": 3,
    "failures": 2,
    "flags": {"misaligned": 1, "outlier": 0},
    "reliability": 0.914,
    "probe_recall": {"random": 0.93, "vague": None},
    "seconds": {"train": 12.34},
    "encoder": {"image": "efficientnet-lite0"},
    "notes": ["15 rows are too few for trials"],
}


def printed(result: AuditResult, captions: tuple[str | None, ...]) -> str:
    out = Console(file=io.StringIO(), width=120, markup=False, emoji=False, highlight=False)
    samples = Samples(result.ids, {"image": (None,) * len(result), "text": captions})
    display.show_result(out, result, samples, ["scores: scores.parquet"])
    return out.file.getvalue()  # type: ignore[attr-defined]


def make_result(*scores: float, failure: tuple[str, ...] = ()) -> AuditResult:
    n = len(scores)
    columns = {"misalignment": np.array(scores, np.float32), "failure": np.array(failure or ("",) * n, dtype=object)}
    return AuditResult(tuple(f"row{i}" for i in range(n)), columns, SUMMARY)


def test_closing_table_names_every_number() -> None:
    text = printed(make_result(1.0, 2.0, np.nan, failure=("", "", "image is truncated")), ("x", "y", "z"))
    for words in (
        "samples 3",
        "failures 2",
        "1: image is truncated",
        "flagged misaligned 1",
        "flagged outlier 0",
        "reliability of MultiMem 0.91",
        "probe recall, random mismatches 93% would be flagged",
        "probe recall, vague not measured",
        "seconds: train 12.3",
        "note: 15 rows are too few",
        "scores: scores.parquet",
    ):
        assert words in " ".join(text.replace("│", " ").split()), words


def test_what_was_trained_attribution_and_groups_are_shown() -> None:
    summary = {
        **SUMMARY,
        "trained": "small heads",
        "attribution": {"due_image": 0.5, "due_text": 0.25, "image_text": 0.75},
        "protocol": {
            "groups": {
                "candidate": {"mean": 0.0312, "low": 0.03, "high": 0.0324, "sd": 0.1, "n": 1200},
                "shared": {"mean": None, "low": None, "high": None, "sd": None, "n": 0},
            },
            "mirror": {"mean": -0.001, "low": -0.003, "high": 0.001},
        },
    }
    made = make_result(1.0)
    result = AuditResult(made.ids, made.columns, summary)
    samples = Samples(("row0",), {"image": ("/x/y.png",), "audio": ("a.wav",), "video": ("b.mp4",)})
    out = Console(file=io.StringIO(), width=120, markup=False)
    display.show_result(out, result, samples, [])
    text = " ".join(out.file.getvalue().replace("│", " ").split())  # type: ignore[attr-defined]
    for words in (
        "trained small heads",
        "lost without image 50.0%",
        "image and text 75.0%",
        "candidate +0.0312 +0.0300 to +0.0324 1,200",
        "shared not measured 0",
        "candidate + independent (0 if mirrored) -0.0010 -0.0030 to +0.0010",
        "row0 1.000 y.png",
    ):
        assert words in text, words
    assert "Attribution" not in printed(AuditResult(made.ids, made.columns, summary), ("x",))  # two modalities


def advice(amount: int, gain: float) -> dict[str, object]:
    interval = {"mean": gain, "low": gain - 0.01, "high": gain + 0.01, "values": []}
    return {
        "recommended": {
            "amount": amount,
            "beats_control": amount > 0,
            "confirmed": gain > 0.01,
            "test_gain": interval,
            "validation_gain": interval,
        }
    }


def test_one_removal_is_recommended_and_only_a_confirmed_one() -> None:
    methods = {"cosine": advice(30, 0.02), "multimem": advice(1200, 0.0231), "random": advice(50, 0.9)}
    text = display.removal_advice({"methods": methods})
    assert text.startswith("Recommended: review the 1,200 rows that multimem ranks highest")
    assert "+0.0231 (+0.0131 to +0.0331)" in text
    for unsure in (advice(30, 0.005), advice(0, 0.0)):
        text = display.removal_advice({"methods": {"multimem": unsure, "random": advice(50, 0.9)}})
        assert text.startswith("Recommended: remove none")


def test_removal_shows_each_methods_number_and_gain() -> None:
    report = {"methods": {"multimem": advice(1200, 0.0231), "random": advice(0, 0.0)}, "notes": ["look first"]}
    out = Console(file=io.StringIO(), width=120, markup=False)
    display.show_removal(out, report, ["report: r.json"])
    text = " ".join(out.file.getvalue().replace("│", " ").split())  # type: ignore[attr-defined]
    assert "multimem 1,200 +0.0231 +0.0131 to +0.0331" in text
    assert "random 0 (none better than the control) +0.0000" in text
    assert "Recommended: review the 1,200 rows that multimem ranks highest" in text
    assert text.endswith("note: look first report: r.json")


def test_worst_rows_come_first_and_never_the_unscored() -> None:
    scores = np.array([0.5, np.nan, 3.0, np.inf, 2.0, 2.0, 0.1, 0.2], np.float32)
    assert display.worst_rows(scores).tolist() == [2, 4, 5, 0, 7]
    assert display.worst_rows(np.full(3, np.nan, np.float32)).tolist() == []


def test_hostile_captions_are_shown_as_text() -> None:
    caption = "[bold]cat[/bold] :smile: \x1b[31mred\x07 \u202etac\u202c\nnext " + "x" * 100_000
    text = printed(make_result(1.0), (caption,))
    assert "[bold]cat[/bold] :smile: [31mred tac next xxxx" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert len(text) < 4000


@given(st.text(), st.integers(1, 80))
def test_cleaned_text_has_one_line_of_the_asked_width(text: str, width: int) -> None:
    shown = display.clean(text, width)
    assert len(shown) <= width
    assert not any(unicodedata.category(c) in {"Cc", "Zl", "Zp"} or c == "\u202e" for c in shown)


def test_cleaning_keeps_words_and_joined_emoji() -> None:
    assert display.clean("zwei Hunde 👩‍🚀, 日本", 60) == "zwei Hunde 👩‍🚀, 日本"
    assert display.clean("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_duration(seconds: float, shown: str) -> None:
    assert display.duration(seconds) == shown


def lines_of(*steps: tuple[float, str, int, int], terminal: bool = False) -> list[str]:
    """What is printed for calls at the given times."""
    out = Console(file=io.StringIO(), width=100, markup=False, force_terminal=terminal)
    times = iter(step[0] for step in steps)
    with display.StageDisplay(out, clock=lambda: next(times)) as progress:
        for _, stage, done, total in steps:
            progress(stage, done, total)
    return out.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_plain_progress_names_stage_rate_and_time_left_every_few_seconds() -> None:
    steps = [(float(t), "encode image", 10 * t, 100) for t in range(11)]
    assert lines_of(*steps, (11.0, "train", 0, 4)) == [
        "encode image: 0/100",
        "encode image: 50/100, 10/s, 5 s left",
        "encode image: 100/100, 10 s",
        "train: 0/4",
    ]


def test_a_resumed_stage_counts_only_what_it_did_itself() -> None:
    assert lines_of((0.0, "train", 50, 100), (10.0, "train", 60, 100))[-1] == "train: 60/100, 1/s, 40 s left"


def test_the_warming_up_gives_no_estimate() -> None:
    steps = [(0.0, "encode image", 0, 600), (9.0, "encode image", 1, 600), (15.0, "encode image", 30, 600)]
    assert lines_of(*steps)[1:] == ["encode image: 1/600", "encode image: 30/600, 2/s, 4 min 45 s left"]


def test_progress_in_a_terminal_is_a_bar() -> None:
    text = "\n".join(lines_of((0.0, "train", 0, 4), (2.0, "train", 2, 4), terminal=True))
    assert "train" in text
    assert "2/4, 1/s, 2 s left" in text


def test_plan() -> None:
    out = Console(file=io.StringIO(), width=100, markup=False)
    plan = {
        "rows": 1911,
        "encodes": {"image": 1911, "text": 0},
        "minutes": 1.5,
        "disk_mb": 12.0,
        "downloads": [],
        "encoder": "offline",
        "device": "cpu",
        "unreadable": 3,
        "notes": ["3 of 1,911 rows (0.2%) could not be read"],
    }
    display.show_cost(out, plan)
    text = " ".join(out.file.getvalue().replace("│", " ").split())  # type: ignore[attr-defined]
    for words in (
        "rows 1,911",
        "encode: image 1,911",
        "encode: text 0",
        "about 1 min 30 s",
        "12.0 MB",
        "encoder offline",
        "device cpu",
        "download none",
    ):
        assert words in text, words


def test_any_score() -> None:
    assert display.any_score(make_result(np.nan, 0.0))
    assert not display.any_score(make_result(np.nan, np.nan))


def test_wrong_pairs_are_shown_with_their_intervals_or_as_none() -> None:
    estimate = {
        "in_one_space": False,
        "pairs": 12,
        "pairs_interval": [8, 20],
        "precision": 0.81,
        "precision_interval": [0.7, 0.9],
    }
    text = display.wrong_pairs({"estimated_wrong_share": 0.02, "estimated": estimate})
    assert text == "at least 8; precision of the flags at least 70%"
    none = {**estimate, "pairs": 0, "pairs_interval": [0, 3]}
    text = display.wrong_pairs({"estimated_wrong_share": 0.0, "estimated": none})
    assert text == "none that can be distinguished from chance"
    assert display.wrong_pairs({"estimated": {**estimate, "in_one_space": True}}) == "not known"


def test_neighbor_search_is_named_with_its_recall():
    found = {"image": {"method": "exact", "recall": 1.0}, "joint": {"method": "9 of 80 lists", "recall": 0.9934}}
    assert display.neighbor_methods({"neighbors": found}) == {"image": "exact", "joint": "9 of 80 lists; recall 99.3%"}
    assert display.neighbor_methods({}) == {}
