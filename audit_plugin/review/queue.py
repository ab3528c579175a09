"""The order in which rows are reviewed, and the progress of a review."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Floats, Ints
from audit_plugin.scoring.columns import CAPTION_INDEX, LIST, LISTED, TEXT_FLAGS
from audit_plugin.scoring.flags import FLAGS
from audit_plugin.scoring.memorized import rank_memorized

from .decisions import Decision
from .spot_check import SIZE, SpotCheckPlan, plan_spot_check

MOST_UNCERTAIN = "most uncertain"  # a kind of queue of its own: rows whose label says most, flagged or not
UNCERTAIN_FROM = 0.05  # probability of being wrong; its complement is the upper bound
DEFAULT_SCORE = "misalignment"  # ranks the rows of flags that have no score of their own
TO_DO = ("relabel", "remove", "review")

_BLANK: dict[str, Any] = {"b": False, "f": np.nan, "O": ""}  # by kind of dtype

Row = tuple[str, int]  # id of a sample or object, position of the caption


@dataclass(frozen=True)
class ReviewProgress:
    """Progress of a review; `seconds` per decision (median) and `minutes` left are NaN before one was timed."""

    done: int
    total: int
    seconds: float
    minutes: float


@dataclass(frozen=True)
class ReviewQueue:
    """The rows of a review, and what was decided of them.

    Attributes:
        rows: all of them, most suspicious first; in a spot check shuffled.
        decided: row -> the decision that holds, unless its text changed since.
    """

    rows: tuple[Row, ...]
    decided: Mapping[Row, Decision]

    @property
    def progress(self) -> ReviewProgress:
        """How far the review is; a skipped row is not decided."""
        seconds = [decision.seconds for decision in self.decided.values() if decision.kind != "skip"]
        timed = [s for s in seconds if s > 0]
        median = float(np.median(timed)) if timed else float("nan")
        total, done = len(self.rows), len(seconds)
        return ReviewProgress(done, total, median, median * (total - done) / 60)

    @property
    def left(self) -> tuple[Row, ...]:
        """The rows still to be decided; those that were skipped come last."""
        return tuple(self._open(self.rows))

    def next(self, after: Row | None = None) -> Row | None:
        """The next row to decide, from the start again at the end; None where all are decided."""
        start = self.rows.index(after) + 1 if after in self.rows else 0
        return next(iter(self._open(self.rows[start:] + self.rows[:start])), None)

    def previous(self, before: Row | None) -> Row | None:
        """The row before, decided or not; the first one stays."""
        position = self.rows.index(before) if before in self.rows else 0
        return self.rows[max(position - 1, 0)] if self.rows else None

    def row_of(self, name: str) -> Row | None:
        """The row of a sample or object: of several captions the next to be decided; None if it has none."""
        return next((row for row in (*self.left, *self.rows) if row[0] == name), None)

    def _open(self, rows: Sequence[Row]) -> Iterator[Row]:
        """The undecided ones of some rows, then those that were skipped."""
        yield from (row for row in rows if row not in self.decided)
        yield from (row for row in rows if row in self.decided and self.decided[row].kind == "skip")


def rows_per_text(table: Mapping[str, NDArray[Any]]) -> tuple[list[Row], dict[str, NDArray[Any]]]:
    """A row for each sample's worst text, and one for each other text of its list with a flag or a proposal of its own.

    Args:
        table: of an audit, `[n]` each: id, caption_index, lists per text, and other columns.

    Returns:
        Rows, and the columns without lists, `[r]` each: every text has its own values of the columns that are lists; of
        all else the worst text has the sample's, and another one NaN, False or "". A text is never removed as the
        duplicate that only its sample can be: its action is "review".
    """
    worst = np.maximum(table[CAPTION_INDEX], 0).tolist()
    listed = [column for column in LISTED if f"{column}{LIST}" in table and column in table]
    rows: list[Row] = []
    sources: list[int] = []  # position in the table
    is_worst: list[bool] = []
    of_texts: list[dict[str, Any]] = []  # of each row: column -> its own value
    for position, (name, first) in enumerate(zip(table["id"].tolist(), worst, strict=True)):
        lists = [table[f"{column}{LIST}"][position] or () for column in listed]
        texts = [dict(zip(listed, values, strict=True)) for values in zip_longest(*lists)]
        others = [(at, text) for at, text in enumerate(texts) if at != first and _needs_review(text)]
        for caption, of_text in ((first, texts[first] if first < len(texts) else {}), *others):
            of_text["action"] = action_of_text(of_text.get("action"), table["action"][position])
            rows.append((name, caption))
            sources.append(position)
            is_worst.append(caption == first)
            of_texts.append(of_text)
    columns = {}
    for column in (column for column in table if column not in ("id", CAPTION_INDEX) and not column.endswith(LIST)):
        columns[column] = table[column][sources]
        columns[column][~np.array(is_worst, dtype=bool)] = _BLANK[columns[column].dtype.kind]
        for row, of_text in enumerate(of_texts):
            if of_text.get(column) is not None:
                columns[column][row] = of_text[column]
    return rows, columns


def action_of_text(action: str | None, of_sample: str | None) -> str | None:
    """What is proposed for a text of a list: it is not removed as the duplicate that only its sample can be."""
    return "review" if action == "remove" != of_sample else action


def _needs_review(of_text: Mapping[str, Any]) -> bool:
    """Whether a text of a list has a flag or a suggestion of its own; other actions are those of its sample's media."""
    return of_text.get("action") == "relabel" or any(of_text.get(f"is_{kind}") for kind in TEXT_FLAGS)


def queue(columns: Mapping[str, NDArray[Any]], kinds: Sequence[str] = ()) -> Ints:
    """The rows to review, most suspicious first.

    Scores of different kinds are not comparable, so rows are ordered by rank: first the worst row of every kind, then
    the second ones. A row with several flags has the best of its ranks. Memorized rows that another flag explains come
    after the other memorized ones (`scoring.memorized`).

    Args:
        columns: of a result, `[n]` each: flags `is_{kind}`, scores, `action`.
        kinds: flags to review, of which a row has at least one; none: any flag, or an action other than keep.

    Returns:
        int64 `[q]`, row numbers.

    Raises:
        AuditError: an unknown kind.
    """
    if unknown := set(kinds) - set(FLAGS):
        raise AuditError(f"kind {min(unknown)!r} is unknown; use one of {', '.join(FLAGS)}")
    n = len(next(iter(columns.values()), ()))
    misalignment = _score(columns, DEFAULT_SCORE, n)
    best_rank = np.full(n, np.inf)

    def by_score(rows: Ints, score: Floats) -> Ints:
        return rows[np.lexsort((-misalignment[rows], -score[rows]))]

    def rank(order: Ints) -> None:
        best_rank[order] = np.minimum(best_rank[order], np.arange(len(order)))

    for kind in kinds or FLAGS:
        rows = np.flatnonzero(np.asarray(columns.get(f"is_{kind}", np.zeros(n)), dtype=bool))
        score = _score(columns, FLAGS[kind].score or DEFAULT_SCORE, n)
        rank(rank_memorized(columns, rows) if kind == "memorized" else by_score(rows, score))
    if not kinds and "action" in columns:
        to_do = np.isin(np.asarray(columns["action"], dtype=str), TO_DO)
        rank(by_score(np.flatnonzero(to_do & ~np.isfinite(best_rank)), misalignment))
    rows = np.flatnonzero(np.isfinite(best_rank))
    return rows[np.lexsort((-misalignment[rows], best_rank[rows]))].astype(np.int64)


def most_uncertain(table: Mapping[str, NDArray[Any]]) -> list[Row]:
    """The rows whose label would say most, flagged or not: what to label next.

    A label of a row that is wrong with probability p brings the binary entropy

        H(p) = -p log2 p - (1 - p) log2 (1 - p)

    in bits, most where p is 1/2. Near-duplicates would say the same again: of each group the row with the highest
    entropy comes in its place, the others after all groups. Each text of a list has its own row and probability,
    and says something else than the texts of a copy.

    Args:
        table: of an audit, `[n]` each: id, probability, and as far as it has them duplicate_group, caption_index and
            the list of the probabilities of each text.

    Returns:
        The rows with a probability from `UNCERTAIN_FROM` to its complement.
    """
    n = len(table["id"])
    lists = table.get(f"probability{LIST}", np.full(n, None))
    of_sample = np.asarray(table["probability"], dtype=np.float64)
    worst = np.maximum(table.get(CAPTION_INDEX, np.zeros(n, dtype=np.int64)), 0)
    is_single = np.array([texts is None for texts in lists], dtype=bool)
    texts = [(at, caption, p) for at in np.flatnonzero(~is_single) for caption, p in enumerate(lists[at])]
    single = np.flatnonzero(is_single)
    samples = np.concatenate([single, np.array([at for at, _, _ in texts], dtype=np.int64)])
    captions = np.concatenate([worst[single], np.array([caption for _, caption, _ in texts], dtype=np.int64)])
    probability = np.concatenate([of_sample[single], np.array([p for _, _, p in texts], dtype=np.float64)])

    rows = np.flatnonzero((probability >= UNCERTAIN_FROM) & (probability <= 1 - UNCERTAIN_FROM))
    rows = rows[np.lexsort((captions[rows], samples[rows]))]  # equal ones stay in the order of the samples
    p = probability[rows]
    entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    ranked = rows[np.argsort(-entropy, kind="stable")]
    groups = np.asarray(table.get("duplicate_group", np.full(n, ""))[samples[ranked]], dtype=str)
    groups[~is_single[samples[ranked]]] = ""
    is_first = np.zeros(len(ranked), dtype=bool)
    is_first[np.unique(groups, return_index=True)[1]] = True
    late = ~(is_first | (groups == ""))
    ranked = ranked[np.argsort(late, kind="stable")]
    return [(str(table["id"][samples[row]]), int(captions[row])) for row in ranked]


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
