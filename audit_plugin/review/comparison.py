"""Two audits side by side: what is no longer flagged, what still is, what is new. Pure numpy, scipy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Bools, Floats, spearman
from audit_plugin.config import FLAG_KINDS

Key = tuple[str, int]  # id of the sample, and which of its captions
ANY = "any"
RANKED = ("misalignment", "multimem", "alignment", "outlier")


@dataclass(frozen=True)
class Change:
    """What became of one kind of flag among the rows that both audits scored, in the order of the earlier one.

    Attributes:
        fixed: flagged before, no longer flagged.
        still: flagged before and after.
        newly: flagged after only.
        gone: flagged before, and no longer in the set.
        added: flagged after, and not in the set before.
        unknown: flagged in one audit, and not scored in the other.
    """

    fixed: tuple[Key, ...]
    still: tuple[Key, ...]
    newly: tuple[Key, ...]
    gone: tuple[Key, ...]
    added: tuple[Key, ...]
    unknown: tuple[Key, ...]


@dataclass(frozen=True)
class Comparison:
    """What changed from one audit to another.

    Attributes:
        kinds: kind of flag, and `ANY` of them -> what became of it.
        common: rows in both.
        gone: rows of the earlier audit that the later one lacks.
        added: rows of the later audit that the earlier one lacks.
        correlation: score -> Spearman's rank correlation over the rows that both scored, where both have it and at
            least three rows with a spread.
    """

    kinds: Mapping[str, Change]
    common: int
    gone: tuple[Key, ...]
    added: tuple[Key, ...]
    correlation: Mapping[str, float]


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """What changed between two audits of the same rows, matched by id and caption.

    Args:
        before: columns of the earlier audit, each `[n]`: `id` and, as far as there are any, `caption_index`, flags
            `is_{kind}`, scores, `failure`.
        after: those of the later audit, `[q]`.

    Raises:
        AuditError: a row stands twice in an audit, or the two have no row in common.
    """
    old, new = _keys(before, "earlier"), _keys(after, "later")
    there = {key: row for row, key in enumerate(new)}
    known = {key: row for row, key in enumerate(old)}
    rows = np.array([(row, there[key]) for row, key in enumerate(old) if key in there], dtype=np.int64).reshape(-1, 2)
    if not len(rows):
        raise AuditError(
            f"the audits have no row in common ({len(old)} and {len(new)} rows with different ids); compare audits of "
            "the same dataset or manifest"
        )
    lone = ([row for row, key in enumerate(old) if key not in there], [r for r, k in enumerate(new) if k not in known])
    kinds = {}
    for kind in (ANY, *FLAG_KINDS):
        flags = _flags(before, kind, len(old)), _flags(after, kind, len(new))
        scored = _scored(before, len(old))[rows[:, 0]] & _scored(after, len(new))[rows[:, 1]]
        kinds[kind] = _change(flags, scored, rows, lone, (old, new))
    shared = [name for name in RANKED if name in before and name in after]
    correlations = {name: _rank_correlation(before[name], after[name], rows) for name in shared}
    correlation = {name: value for name, value in correlations.items() if np.isfinite(value)}
    return Comparison(
        kinds, len(rows), tuple(old[row] for row in lone[0]), tuple(new[row] for row in lone[1]), correlation
    )


def _change(
    flags: tuple[Bools, Bools],
    scored: Bools,
    rows: NDArray[np.int64],
    lone: tuple[list[int], list[int]],
    keys: tuple[list[Key], list[Key]],
) -> Change:
    was, now = flags[0][rows[:, 0]], flags[1][rows[:, 1]]
    old, new = keys

    def named(chosen: Bools) -> tuple[Key, ...]:
        return tuple(old[row] for row in rows[chosen, 0])

    return Change(
        fixed=named(was & ~now & scored),
        still=named(was & now),
        newly=named(~was & now & scored),
        gone=tuple(old[row] for row in lone[0] if flags[0][row]),
        added=tuple(new[row] for row in lone[1] if flags[1][row]),
        unknown=named((was ^ now) & ~scored),
    )


def _keys(columns: Mapping[str, Any], which: str) -> list[Key]:
    ids = [str(name) for name in columns["id"]]
    number = columns.get("caption_index", np.zeros(len(ids), dtype=np.int64))
    keys = list(zip(ids, (int(n) for n in number), strict=True))
    if len(set(keys)) < len(keys):
        twice = next(key for row, key in enumerate(keys) if key in keys[:row])
        raise AuditError(f"row {twice[0]!r} stands twice in the {which} audit; give every row an id of its own")
    return keys


def _flags(columns: Mapping[str, Any], kind: str, n: int) -> Bools:
    """bool `[n]`; False throughout where the audit has no such column."""
    if kind == ANY:
        return np.logical_or.reduce([_flags(columns, one, n) for one in FLAG_KINDS])
    return np.asarray(columns.get(f"is_{kind}", np.zeros(n)), dtype=bool)


def _scored(columns: Mapping[str, Any], n: int) -> Bools:
    """bool `[n]`: the rows that did not fail."""
    return np.array([not failure for failure in columns.get("failure", [""] * n)], dtype=bool)


def _rank_correlation(before: Floats, after: Floats, rows: NDArray[np.int64]) -> float:
    """Spearman's correlation over the rows `[q, 2]` that both audits scored; NaN where it is not defined."""
    left = np.asarray(before, np.float64)[rows[:, 0]]
    right = np.asarray(after, np.float64)[rows[:, 1]]
    known = np.isfinite(left) & np.isfinite(right)
    return spearman(left[known], right[known])
