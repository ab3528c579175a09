"""What a measurement says, in sentences: each with its interval, and plainly where nothing was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

CELL = Mapping[str, float]


def interval(cell: CELL) -> str:
    """`82 % (75 to 88 %)`."""
    return f"{cell['value']:.0%} ({cell['low']:.0%} to {cell['high']:.0%})"


def recall_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(learned from, recall in each modality) for every arm."""
    names = summary["modalities"]
    return [
        ("nothing" if arm == "none" else arm, *(interval(cells[name]) for name in names))
        for arm, cells in summary["recall"].items()
    ]


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """The findings, most important first."""
    if "refused" in summary:
        return [summary["refused"]]
    return [*_crossing(summary), *_links(summary)]


def _crossing(summary: Mapping[str, Any]) -> list[str]:
    names = summary["modalities"]
    found = []
    for source, target in (tuple(names), tuple(names[::-1])):
        found.append(_gap(source, target, summary))
        table = summary["joint"][source]
        found.append(
            f"learned from {source}: {table['both']} of {sum(table.values())} identities are recalled in both, "
            f"{table['source only']} in {source} only, {table['target only']} in {target} only, {table['neither']} in "
            "neither"
        )
        gain = summary["mitigation"][source]["gain"]
        change = "does not change" if gain["low"] <= 0 <= gain["high"] else "changes"
        found.append(
            f"centering each modality {change} the recall in {target} of what was learned from {source}: {signed(gain)}"
        )
    return found


def _links(summary: Mapping[str, Any]) -> list[str]:
    """Of MultiMem with recall across, where an audit of the same samples was at hand."""
    names = summary["modalities"]
    cells = {(s, t): summary.get("memorization", {}).get(f"recall_{s}_{t}") for s, t in (names, names[::-1])}
    return [
        f"{source} to {target}: rank correlation of MultiMem with the recall of a sample {correlation(cell)}"
        for (source, target), cell in cells.items()
        if cell
    ]


def correlation(cell: CELL) -> str:
    """`-0.12 (-0.20 to -0.04)`."""
    if math.isnan(cell["value"]):
        return "none: every sample is alike"
    return f"{cell['value']:+.2f} ({cell['low']:+.2f} to {cell['high']:+.2f})"


def _gap(source: str, target: str, summary: Mapping[str, Any]) -> str:
    gap, ratio = summary["gap"][source], summary["transfer_ratio"][source]
    seen = "a gap" if gap["low"] > 0 else "no gap beyond chance"
    told = f"of what both modalities together teach, {interval(ratio)} is transferred"
    if math.isnan(ratio["value"]):
        told = "both modalities together teach too little to say what is transferred"
    return f"{source} to {target}: {seen}, {signed(gap)}; {told}"


def signed(cell: CELL) -> str:
    """`+3.0 points (-1.0 to +7.0)`."""
    return f"{100 * cell['value']:+.1f} points ({100 * cell['low']:+.1f} to {100 * cell['high']:+.1f})"


def planted_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(how planted, people, place of the right name by what is asked with, each with its interval)."""
    kinds = list(next(iter(summary["place"].values())))
    return [
        (way, str(summary["people"][way]), *("" if cells[k]["identities"] == 0 else interval(cells[k]) for k in kinds))
        for way, cells in summary["place"].items()
    ]


def planted_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What the model memorized of the planted people, beyond those who were left out."""
    found = []
    for way, cells in summary["memorized"].items():
        for kind, cell in cells.items():
            if cell["low"] > 0:
                verdict = "recalled"
            elif cell["high"] < 0:
                verdict = "below those left out"
            else:
                verdict = "not told apart from those left out"
            found.append(f"learned as {way}, asked with a {kind}: {verdict}, {signed(cell)}")
    return found
