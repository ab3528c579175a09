"""The order in which rows are reviewed, and the progress of a review."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Floats, Ints
from audit_plugin.config import FLAG_KINDS
from audit_plugin.scoring.flags import FLAGS

from .spot_check import SIZE, SpotCheckPlan, plan_spot_check

DEFAULT_SCORE = "misalignment"  # ranks the rows of flags that have no score of their own
TO_DO = ("relabel", "remove", "review")


@dataclass(frozen=True)
class ReviewProgress:
    """Progress of a review; `seconds` per decision (median) and `minutes` left are NaN before one was timed."""

    done: int
    total: int
    seconds: float
    minutes: float


def queue(columns: Mapping[str, NDArray[Any]], kinds: Sequence[str] = ()) -> Ints:
    """The rows to review, most suspicious first.

    Scores of different kinds are not comparable, so rows are ordered by rank: first the worst row of every kind, then
    the second ones. A row with several flags has the best of its ranks.

    Args:
        columns: of a result, `[n]` each: flags `is_{kind}`, scores, `action`.
        kinds: flags to review, of which a row has at least one; none: any flag, or an action other than keep.

    Returns:
        int64 `[q]`, row numbers.

    Raises:
        AuditError: an unknown kind.
    """
    if unknown := set(kinds) - set(FLAG_KINDS):
        raise AuditError(f"kind {min(unknown)!r} is unknown; use one of {', '.join(FLAG_KINDS)}")
    n = len(next(iter(columns.values()), ()))
    misalignment = _score(columns, DEFAULT_SCORE, n)
    best_rank = np.full(n, np.inf)

    def rank(rows: Ints, score: Floats) -> None:
        order = rows[np.lexsort((-misalignment[rows], -score[rows]))]
        best_rank[order] = np.minimum(best_rank[order], np.arange(len(order)))

    for kind in kinds or FLAG_KINDS:
        flagged = np.asarray(columns.get(f"is_{kind}", np.zeros(n)), dtype=bool)
        rank(np.flatnonzero(flagged), _score(columns, FLAGS[kind].score or DEFAULT_SCORE, n))
    if not kinds and "action" in columns:
        to_do = np.isin(np.asarray(columns["action"], dtype=str), TO_DO)
        rank(np.flatnonzero(to_do & ~np.isfinite(best_rank)), misalignment)
    rows = np.flatnonzero(np.isfinite(best_rank))
    return rows[np.lexsort((-misalignment[rows], best_rank[rows]))].astype(np.int64)


def _score(columns: Mapping[str, NDArray[Any]], name: str, n: int) -> Floats:
    """float64 `[n]`, -inf where there is no score."""
    values = np.asarray(columns.get(name, np.full(n, np.nan)), dtype=np.float64)
    return np.where(np.isfinite(values), values, -np.inf)


def spot_order(
    ids: Sequence[str], columns: Mapping[str, NDArray[Any]], size: int = SIZE, seed: int = 0
) -> SpotCheckPlan:
    """The spot check of the misaligned flags, independent of the order of the rows; its rows index `ids`."""
    order = np.argsort(np.asarray(ids, dtype=str), kind="stable")
    flagged = np.asarray(columns["is_misaligned"], dtype=bool)[order]
    scores = np.asarray(columns[DEFAULT_SCORE], dtype=np.float64)[order]
    plan = plan_spot_check(flagged, scores, size, seed)
    return SpotCheckPlan(order[plan.rows].astype(np.int64), plan.stratum, plan.sizes)


def progress(total: int, done: int, seconds: Sequence[float]) -> ReviewProgress:
    """Progress of a review.

    Args:
        total: rows of the queue before the first decision.
        done: rows decided.
        seconds: duration of each decision; 0 if not measured.
    """
    timed = [s for s in seconds if s > 0]
    median = float(np.median(timed)) if timed else float("nan")
    return ReviewProgress(done, total, median, median * (total - done) / 60)
