"""The section on memorized rows: three lists with their advice, and the command that writes exactly each of them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from audit_plugin.arrays import Ints, spearman
from audit_plugin.scoring.memorized import ADVICE, NONE_BEYOND, is_explained, memorized_lists, rank_memorized

from .content import ReportContent
from .listed_rows import row_head
from .markup import SMALL, Draw, cut

SHOWN = 12  # rows of each list
TABLE = ".parquet"
HEADINGS = {
    "misaligned": "Memorized and misaligned",
    "fitting": "Memorized but fitting",
    "explained": "Memorized, and explained by another flag",
}
Line = tuple[str, str]  # (label, value)


def memorized_section(content: ReportContent, draw: Draw) -> dict[str, Any]:
    """`lists` (`heading`, `advice`, `size`, `rows`, `command`), `none_beyond` and `correlation`; {} without MultiMem.

    Where no fitting row is flagged, the fitting rows with the highest MultiMem are listed; where nothing is flagged,
    the highest of all rows.
    """
    ranked = rank_memorized(content.columns)
    if not len(ranked):
        return {}
    lists = memorized_lists(content.columns)
    shown = [
        _list(content, draw, HEADINGS[name], ADVICE[name], rows, name) for name, rows in lists.items() if len(rows)
    ]
    if not len(lists["fitting"]):
        shown.append(_highest(content, draw, ranked, lists))
    return {"lists": shown, "correlation": held_out_correlation(content)}


def held_out_correlation(content: ReportContent) -> str:
    """Spearman's rank correlation of MultiMem with held-out alignment, "" where it is not defined."""
    multimem, alignment = content.numbers("multimem"), content.numbers("alignment")
    known = np.isfinite(multimem) & np.isfinite(alignment)
    value = spearman(multimem[known], alignment[known]) if known.sum() > 2 else float("nan")
    return f"{value:.2f}" if np.isfinite(value) else ""


def memorized_lines(content: ReportContent) -> list[Line]:
    """What to do with the lists of memorized rows; threshold and median of MultiMem, and its reliability."""
    lines: list[Line] = []
    lists = memorized_lists(content.columns)
    if any(len(rows) for rows in lists.values()):
        lines.append(("misaligned as well: correct the captions", f"{len(lists['misaligned']):,}"))
        lines.append(("fitting but rare: keep, collect more, or regroup", f"{len(lists['fitting']):,}"))
        lines.append(("explained by another flag: follow that flag", f"{len(lists['explained']):,}"))
    elif len(rank_memorized(content.columns)):
        lines.append(("highest MultiMem", "within what good pairs reach"))
    memorized = content.summary.get("memorized") or {}
    if memorized.get("cut") is not None and memorized.get("median") is not None:
        lines.append(("threshold on MultiMem", f"{memorized['cut']:.2f}"))
        lines.append(("median MultiMem", f"{memorized['median']:.2f}"))
    if correlation := held_out_correlation(content):
        lines.append(("rank correlation with held-out alignment", correlation))
    reliability = content.summary.get("reliability")
    if reliability is not None:
        level = "repeatable" if reliability >= 0.8 else "fairly so" if reliability >= 0.6 else "low: use more trials"
        lines.append(("reliability (0 to 1): would another run rank alike?", f"{reliability:.2f} ({level})"))
    return lines


def _highest(content: ReportContent, draw: Draw, ranked: Ints, lists: Mapping[str, Ints]) -> dict[str, Any]:
    """The first rows that are not flagged as memorized: of those that fit, or of all where nothing is flagged."""
    if not any(len(rows) for rows in lists.values()):
        return _list(content, draw, "Highest MultiMem, not flagged", NONE_BEYOND, ranked[:SHOWN], "highest")
    fits = ~(content.flags("memorized") | content.flags("misaligned") | is_explained(content.columns))
    advice = "no fitting row is memorized more than nearly all good pairs; these come nearest"
    return _list(
        content, draw, "Highest MultiMem of the fitting rows, not flagged", advice, ranked[fits[ranked]][:SHOWN]
    )


def _list(
    content: ReportContent, draw: Draw, heading: str, advice: str, rows: Ints, select: str = ""
) -> dict[str, Any]:
    """One list; `select` is its name for `audit-plugin select --memorized`, "" where it has none."""
    multimem, alignment = content.numbers("multimem"), content.numbers("alignment")
    shown = []
    for row in rows[:SHOWN].tolist():
        numbers = f"MultiMem {multimem[row]:.2f}"
        if np.isfinite(alignment[row]):
            numbers += f" · held-out alignment {alignment[row]:.2f}"
        shown.append({**row_head(content, row, draw, SMALL), "numbers": numbers})
    command = cut(_command(content.title, select, len(rows))) if select else ""
    return {"heading": heading, "advice": advice, "size": len(rows), "rows": shown, "command": command}


def _command(title: str, name: str, size: int) -> str:
    """The command that writes exactly one list of a table of scores, or lists the memorized rows of a dataset."""
    if not title.endswith(TABLE):
        return f"audit-plugin review list {shlex.quote(title)} --kind memorized"
    budget = f" --budget {size}" if name == "highest" else ""
    return f"audit-plugin select {shlex.quote(title)} --memorized {name}{budget} --out memorized-{name}.csv"
