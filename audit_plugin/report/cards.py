"""One card per kind of finding: how many, how sure, and by what that is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from audit_plugin.review.spot_check import Interval
from audit_plugin.scoring.flags import FLAGS

from .content import ReportContent

Line = tuple[str, str]  # (what, how much)
PLANTS = {"random": "with another row's caption", "neighborhood": "with a similar row's caption"}
BY_CHANCE = ("memorized", "outlier", "vague")


def cards(content: ReportContent) -> list[dict[str, Any]]:
    """Per kind: `label`, `help`, `count`, `share` of the rows, `lines`, and `source` ("model-based", "spot check")."""
    lines = {"misaligned": misaligned_lines(content), "memorized": memorized_lines(content)}
    out = []
    for kind, flag in FLAGS.items():
        count = int(content.flags(kind).sum())
        told = lines.get(kind, []) + (chance_lines(content) if kind in BY_CHANCE else [])
        told += group_lines(content, kind) if kind in ("duplicate", "placeholder", "conflict") and count else []
        card = {"kind": kind, "label": flag.label, "help": flag.help, "count": count, "lines": told}
        card["share"] = percent(count / len(content.samples)) if len(content.samples) else ""
        card["source"] = _source(content) if kind == "misaligned" else ""
        out.append(card)
    return out


def misaligned_lines(content: ReportContent) -> list[Line]:
    """Wrong pairs in the set and among the flagged: by the spot check where there is one, else by the model."""
    found = spot_lines(content) if content.spot else model_lines(content.summary.get("wrong_model") or {})
    if rate := content.summary.get("false_positive_rate"):
        found.append(("good pairs flagged by mistake, by the setting", f"at most {percent(rate)} of them"))
    for kind, words in PLANTS.items():
        if (share := (content.summary.get("probe_recall") or {}).get(kind)) is not None:
            found.append((f"mismatches made {words} that score beyond the cut", percent(share)))
    return found


def model_lines(found: Mapping[str, Any]) -> list[Line]:
    """The model's estimates with their 90 % intervals."""
    if not found:
        return []
    low, high = found["pairs_interval"]
    lines = [("wrong pairs in the whole set", f"about {found['pairs']:,} ({low:,} to {high:,})")]
    if found.get("precision") is not None:
        least, most = found["precision_interval"]
        lines.append(("really wrong among the flagged", f"{percent(found['precision'])}{_between(least, most)}"))
    return lines


def spot_lines(content: ReportContent) -> list[Line]:
    """The estimates of the spot check."""
    spot = content.spot
    assert spot is not None
    shares = (("really wrong among the flagged", spot.precision), ("wrong among the others", spot.missed))
    lines = [("wrong pairs in the whole set", _count(spot.wrong)), *((what, _share(value)) for what, value in shares)]
    lines.append(("of the wrong pairs, flagged", _share(spot.recall)))
    undecided = f", {spot.unsure} undecided" if spot.unsure else ""
    return [*lines, ("reviewed by a person", f"{spot.reviewed} rows{undecided}")]


def memorized_lines(content: ReportContent) -> list[Line]:
    """From which MultiMem on a sample is called memorized, and how repeatable the score is."""
    lines: list[Line] = []
    found = content.summary.get("memorized") or {}
    if found.get("cut") is not None and found.get("median") is not None:
        lines.append(("flagged from a MultiMem of", f"{found['cut']:.2f}"))
        lines.append(("middle of the set", f"{found['median']:.2f}"))
    reliability = content.summary.get("reliability")
    if reliability is not None:
        word = "good" if reliability >= 0.8 else "fair" if reliability >= 0.6 else "low: use more trials"
        lines.append(("reliability (0 to 1)", f"{reliability:.2f} ({word})"))
    return lines


def chance_lines(content: ReportContent) -> list[Line]:
    """How many flags chance alone would raise on a clean set."""
    rate = content.summary.get("false_positive_rate")
    expected = (rate or 0) * len(content.samples)
    return [("by chance alone, on a clean set", f"up to about {expected:,.0f}")] if expected >= 0.5 else []


def group_lines(content: ReportContent, kind: str) -> list[Line]:
    """In how many groups of copies the flagged rows are."""
    names = content.words("duplicate_group")[content.flags(kind)]
    sizes = np.unique(names[names != ""], return_counts=True)[1]
    if not len(sizes):
        return []
    what = {"duplicate": "groups of copies", "placeholder": "different media", "conflict": "groups of copies"}[kind]
    largest = [("largest", f"{int(sizes.max()):,} rows")] if sizes.max() > 1 else []
    return [(what, f"{len(sizes):,}"), *largest]


def percent(share: float) -> str:
    """`4 %`, with a decimal below one per cent; it does not break between two lines."""
    number = f"{100 * share:.1f}" if 0 < share < 0.01 else f"{100 * share:.0f}"
    return f"{number}\N{NO-BREAK SPACE}%"


def _source(content: ReportContent) -> str:
    if content.spot:
        return f"spot check, {percent(content.spot.confidence)} intervals"
    return "model-based, 90\N{NO-BREAK SPACE}% intervals" if content.summary.get("wrong_model") else ""


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({percent(low)} to {percent(high)})"


def _share(found: Interval) -> str:
    value = percent(found.value) if np.isfinite(found.value) else "not seen"
    return value + (_between(found.low, found.high) if np.isfinite(found.low) and np.isfinite(found.high) else "")


def _count(found: Interval) -> str:
    if not np.isfinite(found.low) or not np.isfinite(found.high):
        return "not known"
    value = f"about {found.value:,.0f}" if np.isfinite(found.value) else "not seen"
    return f"{value} ({found.low:,.0f} to {found.high:,.0f})"
