"""The order in which people look at memorized samples, and in which lists: one definition for report, queue and export.

MultiMem is high for whatever a model cannot learn from other samples: wrong pairs, and rare ones, but outliers,
contradictions and vague captions too. What another flag explains already is no news about memorization, so such rows
come after the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints

from .flags import FLAGS

# The flags that explain why a sample is memorized: all but its own, misaligned, with which it makes the first list, and
# that of personal data, which make it worse and explain nothing.
EXPLAINED_BY = tuple(kind for kind in FLAGS if kind not in ("misaligned", "memorized", "personal"))
ADVICE = {  # list -> what to do with its rows
    "misaligned": "memorized and misaligned: correct the caption",
    "fitting": "memorized but fitting: rare, so keep it and collect more like it, or regroup it in training",
    "explained": "memorized, and explained by another flag: follow that flag",
}
NONE_BEYOND = (
    "No row is memorized more than nearly all good pairs: the highest MultiMem lie within what good pairs reach"
)


def beyond_alignment(multimem: Floats, alignment: Floats) -> Floats:
    """float64 `[n]`: MultiMem minus its linear fit (least squares) on held-out alignment; NaN where one is missing.

    MultiMem is nearly held-out alignment turned round (docs/multimem.md): what is left is what it adds.
    """
    left = np.full(len(multimem), np.nan)
    known = np.flatnonzero(np.isfinite(multimem) & np.isfinite(alignment))
    if len(known):
        design = np.stack([np.ones(len(known)), alignment[known]], axis=1).astype(np.float64)
        coefficients = np.linalg.lstsq(design, multimem[known].astype(np.float64), rcond=None)[0]
        left[known] = multimem[known] - design @ coefficients
    return left


def is_explained(columns: Mapping[str, Any]) -> Bools:
    """bool `[n]`: the rows with a flag of `EXPLAINED_BY`; the columns are those of a result, `[n]` each."""
    explained = np.zeros(len(next(iter(columns.values()), ())), dtype=bool)
    for kind in EXPLAINED_BY:
        if f"is_{kind}" in columns:
            explained |= np.asarray(columns[f"is_{kind}"], dtype=bool)
    return explained


def rank_memorized(columns: Mapping[str, Any], rows: Ints | None = None) -> Ints:
    """Rows, int64, in the order in which people look at them: those that no other flag explains, then the others.

    Both parts by MultiMem, highest first; equal values stay in row order, and rows without a MultiMem come last.

    Args:
        columns: of a result, `[n]` each: `multimem` and the flags.
        rows: those to rank; None: all with a MultiMem, flagged or not.
    """
    explained = is_explained(columns)
    multimem = np.asarray(columns.get("multimem", np.full(len(explained), np.nan)), dtype=np.float64)
    if rows is None:
        rows = np.flatnonzero(np.isfinite(multimem))
    score = np.nan_to_num(multimem[rows], nan=-np.inf)
    return rows[np.lexsort((-score, explained[rows]))].astype(np.int64)


def memorized_lists(columns: Mapping[str, Any]) -> dict[str, Ints]:
    """List of `ADVICE` -> its rows, int64, in the order of `rank_memorized`: each flagged row is in one list."""
    explained = is_explained(columns)
    none = np.zeros(len(explained), dtype=bool)
    flagged, misaligned = (
        np.asarray(columns.get(f"is_{kind}", none), dtype=bool) for kind in ("memorized", "misaligned")
    )
    # with a suggestion another text may fit better; a cleaned text has no score, and its caption fits
    gain = np.asarray(columns.get("suggestion_score", np.full(len(none), np.nan)), dtype=np.float64)
    misaligned = misaligned | np.isfinite(gain)
    lists = {
        "misaligned": flagged & misaligned & ~explained,
        "fitting": flagged & ~misaligned & ~explained,
        "explained": flagged & explained,
    }
    return {name: rank_memorized(columns, np.flatnonzero(rows)) for name, rows in lists.items()}
