"""What a measurement says, in sentences: each with its interval, and plainly where nothing was found."""

from __future__ import annotations

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
            f"centring each modality {change} the recall in {target} of what was learned from {source}: {_signed(gain)}"
        )
    return found


def _gap(source: str, target: str, summary: Mapping[str, Any]) -> str:
    gap, ratio = summary["gap"][source], summary["transfer_ratio"][source]
    seen = "a gap" if gap["low"] > 0 else "no gap beyond chance"
    return (
        f"{source} to {target}: {seen}, {_signed(gap)}; of what both modalities together teach, {interval(ratio)} "
        "is transferred"
    )


def _signed(cell: CELL) -> str:
    return f"{100 * cell['value']:+.1f} points ({100 * cell['low']:+.1f} to {100 * cell['high']:+.1f})"
