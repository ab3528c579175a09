"""What is looked at next, and how far a review is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Floats, Ints
from audit_plugin.config import FLAG_KINDS

from .spot_check import SIZE, SpotPlan, plan_spot_check

# The score by which each kind is ordered; the others are told by rules, and the worst pairs among them come first.
SCORE_OF = {"memorized": "multimem", "outlier": "outlier", "duplicate": "duplicate"}
USUAL = "misalignment"
TO_DO = ("relabel", "remove", "review")


@dataclass(frozen=True)
class Progress:
    """How far a review is: `seconds` per decision (median) and `minutes` left are NaN before the first was timed."""

    done: int
    total: int
    seconds: float
    minutes: float


def queue(columns: Mapping[str, NDArray[Any]], kinds: Sequence[str] = ()) -> Ints:
    """The rows to review, most suspicious first.

    Scores of different kinds cannot be compared, so a row's place is the best that it has among the rows of any of its
    kinds: the worst pair, the worst outlier and the worst duplicate come first, then the second ones.

    Args:
        columns: of a result, `[n]` each; flags `is_{kind}`, scores, `action`.
        kinds: flags of which a row must bear one; none: any flag, or an action other than keep.

    Returns:
        int64 `[q]`, positions.

    Raises:
        AuditError: a kind that does not exist.
    """
    if unknown := set(kinds) - set(FLAG_KINDS):
        raise AuditError(f"kind {min(unknown)!r} is not known; use one of {', '.join(FLAG_KINDS)}")
    n = len(next(iter(columns.values()), ()))
    worst = _score(columns, USUAL, n)
    place = np.full(n, np.inf)
    for kind in kinds or FLAG_KINDS:
        rows = np.flatnonzero(np.asarray(columns.get(f"is_{kind}", np.zeros(n)), dtype=bool))
        _take_places(place, rows, _score(columns, SCORE_OF.get(kind, USUAL), n), worst)
    if not kinds and "action" in columns:
        rest = np.isin(np.asarray(columns["action"], dtype=str), TO_DO) & ~np.isfinite(place)
        _take_places(place, np.flatnonzero(rest), worst, worst)
    rows = np.flatnonzero(np.isfinite(place))
    return rows[np.lexsort((-worst[rows], place[rows]))].astype(np.int64)


def _take_places(place: Floats, rows: Ints, score: Floats, worst: Floats) -> None:
    """Gives the rows their places by a score, where these are better than those that they have."""
    order = rows[np.lexsort((-worst[rows], -score[rows]))]
    place[order] = np.minimum(place[order], np.arange(len(order)))


def _score(columns: Mapping[str, NDArray[Any]], name: str, n: int) -> Floats:
    """`[n]`, -inf where there is no score."""
    values = np.asarray(columns.get(name, np.full(n, np.nan)), dtype=np.float64)
    return np.where(np.isfinite(values), values, -np.inf)


def spot_order(ids: Sequence[str], columns: Mapping[str, NDArray[Any]], size: int = SIZE, seed: int = 0) -> SpotPlan:
    """The spot check of the misaligned flags, drawn whatever the order of the rows; its rows are positions in `ids`."""
    order = np.argsort(np.asarray(ids, dtype=str), kind="stable")
    flagged = np.asarray(columns["is_misaligned"], dtype=bool)[order]
    scores = np.asarray(columns[USUAL], dtype=np.float64)[order]
    plan = plan_spot_check(flagged, scores, size, seed)
    return SpotPlan(order[plan.rows].astype(np.int64), plan.stratum, plan.sizes)


def progress(total: int, done: int, seconds: Sequence[float]) -> Progress:
    """How far a review of `total` rows is.

    Args:
        total: rows of the queue when nothing was decided.
        done: of these, decided.
        seconds: of the decisions; 0 where one was not timed.
    """
    timed = [s for s in seconds if s > 0]
    each = float(np.median(timed)) if timed else float("nan")
    return Progress(done, total, each, each * (total - done) / 60)
