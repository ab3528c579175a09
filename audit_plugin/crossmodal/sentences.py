"""Measurements in sentences: each with its interval, and plainly where nothing was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

CELL = Mapping[str, float]
# what canaries are trained on, and what a question about them shows
ARM_PHRASES = {"image": "pictures", "both": "pictures with descriptions", "text": "texts", "left out": "nothing"}
QUESTION_PHRASES = {
    "planted picture": "a picture from training",
    "other picture": "another picture",
    "description": "a description",
}


def interval(cell: CELL) -> str:
    """`82% (75% to 88%)`."""
    return f"{cell['value']:.0%} ({cell['low']:.0%} to {cell['high']:.0%})"


def signed(cell: CELL) -> str:
    """`+3.0 points (-1.0 to +7.0)`."""
    return f"{100 * cell['value']:+.1f} points ({100 * cell['low']:+.1f} to {100 * cell['high']:+.1f})"


def correlation(cell: CELL) -> str:
    """`-0.12 (-0.20 to -0.04)`."""
    if math.isnan(cell["value"]):
        return "undefined (all samples have the same value)"
    return f"{cell['value']:+.2f} ({cell['low']:+.2f} to {cell['high']:+.2f})"


def recall_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(learned from, recall in each modality) for every arm."""
    rows = []
    for arm, cells in summary["recall"].items():
        recall = [interval(cells[name]) for name in summary["modalities"]]
        rows.append(("nothing" if arm == "none" else arm, *recall))
    return rows


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """The findings, most important first."""
    if "refused" in summary:
        return [summary["refused"]]
    first, second = summary["modalities"]
    lines = []
    for source, target in ((first, second), (second, first)):
        lines += _recall_sentences(source, target, summary)
    for source, target in ((first, second), (second, first)):
        # only where an audit of the same samples was at hand
        if cell := summary.get("memorization", {}).get(f"recall_{source}_{target}"):
            link = correlation(cell)
            lines.append(f"{source} to {target}: rank correlation of MultiMem with the recall of a sample {link}")
    return lines


def _recall_sentences(source: str, target: str, summary: Mapping[str, Any]) -> list[str]:
    gap, ratio = summary["gap"][source], summary["transfer_ratio"][source]
    verdict = "a gap" if gap["low"] > 0 else "no gap distinguishable from zero"
    share = f"{interval(ratio)} of what both modalities together teach is recalled across"
    if math.isnan(ratio["value"]):
        share = "both modalities together teach too little to say what is recalled across"
    joint = summary["joint"][source]
    gain = summary["mitigation"][source]["gain"]
    change = "does not measurably change" if gain["low"] <= 0 <= gain["high"] else "changes"
    return [
        f"{source} to {target}: {verdict}, {signed(gap)}; {share}",
        f"learned from {source}: {joint['both']} of {sum(joint.values())} identities are recalled in both, "
        f"{joint['source only']} in {source} only, {joint['target only']} in {target} only, {joint['neither']} in "
        "neither",
        f"centering each modality {change} the recall in {target} of what was learned from {source}: {signed(gain)}",
    ]


def canary_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(arm, people, relative rank of the right name by what is asked with, each with its interval)."""
    rows = []
    for arm, cells in summary["place"].items():
        places = ["" if cell["identities"] == 0 else interval(cell) for cell in cells.values()]
        rows.append((arm, str(summary["people"][arm]), *places))
    return rows


def canary_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What the model memorized of the canaries, beyond the people left out."""
    lines = []
    for arm, cells in summary["memorized"].items():
        for kind, cell in cells.items():
            verdict = "not distinguishable from the people left out"
            if cell["low"] > 0:
                verdict = "recalled"
            elif cell["high"] < 0:
                verdict = "ranked below the people left out"
            question = f"trained on {ARM_PHRASES[arm]}, asked with {QUESTION_PHRASES[kind]}"
            lines.append(f"{question}: {verdict}, {signed(cell)}")
    return lines
