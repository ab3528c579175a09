"""Comparison of two audits of the same rows: which flags are gone, which remain, which are new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Bools, spearman
from audit_plugin.scoring.flags import FLAGS
from audit_plugin.scoring.scores import SCORES

RowKey = tuple[str, int]  # id of the sample, position of the caption
ANY = "any"


@dataclass(frozen=True)
class ScoreChange:
    """Rows by what changed in one flag; in the order of the earlier audit, `added` in that of the later one.

    Attributes:
        fixed: flagged before, no longer flagged.
        still: flagged before and after.
        newly: flagged after only.
        gone: flagged before, and no longer in the set.
        added: flagged after, and not in the set before.
        unknown: flagged in one audit, and not scored in the other.
    """

    fixed: tuple[RowKey, ...]
    still: tuple[RowKey, ...]
    newly: tuple[RowKey, ...]
    gone: tuple[RowKey, ...]
    added: tuple[RowKey, ...]
    unknown: tuple[RowKey, ...]


@dataclass(frozen=True)
class Comparison:
    """What changed from one audit to another.

    Attributes:
        kinds: flag, and `ANY` for any of them -> what changed.
        common: number of rows in both.
        gone: rows of the earlier audit that the later one lacks.
        added: rows of the later audit that the earlier one lacks.
        correlation: score -> Spearman's correlation over the rows that both audits scored, where it is defined.
    """

    kinds: Mapping[str, ScoreChange]
    common: int
    gone: tuple[RowKey, ...]
    added: tuple[RowKey, ...]
    correlation: Mapping[str, float]


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Compares two audits, with rows matched by id and caption.

    Args:
        before: columns of the earlier audit, each `[n]`: `id` and, where present, `caption_index`, `is_{kind}`, scores,
            `failure`.
        after: columns of the later audit, each `[m]`.

    Raises:
        AuditError: a row occurs twice in an audit, or the two have no row in common.
    """
    old, new = _row_of(before, "earlier"), _row_of(after, "later")
    common = [key for key in old if key in new]
    if not common:
        raise AuditError(
            f"the audits have no row in common ({len(old):,} and {len(new):,} rows with different ids); compare audits "
            "of the same dataset or manifest"
        )
    gone, added = [key for key in old if key not in new], [key for key in new if key not in old]
    old_rows, new_rows = [old[key] for key in common], [new[key] for key in common]
    scored = _scored(before, len(old))[old_rows] & _scored(after, len(new))[new_rows]
    kinds = {}
    for kind in (ANY, *FLAGS):
        flagged_before, flagged_after = _flags(before, kind, len(old)), _flags(after, kind, len(new))
        was, now = flagged_before[old_rows], flagged_after[new_rows]

        def common_rows(chosen: Bools) -> tuple[RowKey, ...]:
            return tuple(common[at] for at in np.flatnonzero(chosen))

        kinds[kind] = ScoreChange(
            fixed=common_rows(was & ~now & scored),
            still=common_rows(was & now),
            newly=common_rows(~was & now & scored),
            gone=tuple(key for key in gone if flagged_before[old[key]]),
            added=tuple(key for key in added if flagged_after[new[key]]),
            unknown=common_rows((was ^ now) & ~scored),
        )
    correlation = {}
    for name in SCORES:
        if name in before and name in after:
            old_score = np.asarray(before[name], dtype=np.float64)[old_rows]
            new_score = np.asarray(after[name], dtype=np.float64)[new_rows]
            known = np.isfinite(old_score) & np.isfinite(new_score)
            value = spearman(old_score[known], new_score[known])
            if np.isfinite(value):
                correlation[name] = value
    return Comparison(kinds, len(common), tuple(gone), tuple(added), correlation)


def _row_of(columns: Mapping[str, Any], which: str) -> dict[RowKey, int]:
    """RowKey -> row number, in the order of the rows."""
    ids = [str(name) for name in columns["id"]]
    captions = columns.get("caption_index", np.zeros(len(ids), dtype=np.int64))
    rows: dict[RowKey, int] = {}
    for row, key in enumerate(zip(ids, map(int, captions), strict=True)):
        if key in rows:
            raise AuditError(f"row {key[0]!r} occurs twice in the {which} audit; give every row a unique id")
        rows[key] = row
    return rows


def _flags(columns: Mapping[str, Any], kind: str, n: int) -> Bools:
    """bool `[n]`; all False if the audit has no such column."""
    if kind == ANY:
        return np.logical_or.reduce([_flags(columns, flag, n) for flag in FLAGS])
    return np.asarray(columns.get(f"is_{kind}", np.zeros(n)), dtype=bool)


def _scored(columns: Mapping[str, Any], n: int) -> Bools:
    """bool `[n]`: the rows that did not fail."""
    return np.array([not failure for failure in columns.get("failure", [""] * n)], dtype=bool)
