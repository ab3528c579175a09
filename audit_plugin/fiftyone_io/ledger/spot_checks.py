"""Spot checks: a random part of an audit's rows, decided one by one, estimates how many flags are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import collection, database
from audit_plugin.fiftyone_io.lease import JOURNALED, leased, next_number
from audit_plugin.fiftyone_io.leftovers import SPOT_CHECKS
from audit_plugin.fiftyone_io.read.contents import items_of_rows
from audit_plugin.fiftyone_io.results.queues import decisions_of, moved_texts, review_table, table_of_present_texts
from audit_plugin.fiftyone_io.results.tables import read_fact
from audit_plugin.review import (
    KINDS,
    Decision,
    ReviewQueue,
    Row,
    check_name,
    check_whole,
    resolve,
    shortened,
    spot_order,
    verdict,
)
from audit_plugin.review.flag_quality import Calibration
from audit_plugin.review.spot_check import SIZE, SpotCheckPlan, SpotEstimate, estimate
from audit_plugin.review.threshold_search import SIZE as SEARCH_SIZE
from audit_plugin.review.threshold_search import ThresholdSearch, percent_text, search_threshold

from .decisions import decide_many
from .entries import read_head, read_ledger

SPOT = "spot-check"
LOOKED_AT = ("person", SPOT)  # sources of decisions on single rows that a person looked at


@dataclass(frozen=True)
class SpotCheck:
    """A spot check: the rows to review in their order, with what was decided, and how they were drawn.

    Attributes:
        queue: the rows that were drawn, and still exist where they were.
        plan: all rows that were drawn, also those that were deleted since.
        plan_verdicts: a verdict for each row of the plan, "" where there is none; that of a deleted row stays.
    """

    queue: ReviewQueue
    plan: SpotCheckPlan
    plan_verdicts: tuple[str, ...]

    @property
    def verdicts(self) -> tuple[str, ...]:
        """A verdict for each row of the queue, "" where there is none yet."""
        decided = self.queue.decided
        return tuple(verdict(decided[row].kind) if row in decided else "" for row in self.queue.rows)

    def estimate(self, confidence: float = 0.9) -> SpotEstimate:
        """The precision and recall of the flags (`audit_plugin.review.spot_check.estimate`)."""
        return estimate(self.plan, self.plan_verdicts, confidence)


@dataclass(frozen=True)
class ThresholdCheck:
    """A search for the threshold that keeps a precision: the rows of an audit in canonical order, and their labels.

    Attributes:
        rows: one per sample, its worst text.
        scores, probability: misalignment and the model's probability, `[n]`.
        labels: row number -> verdict.
        decided: row -> the decision that the verdict is of.
    """

    rows: tuple[Row, ...]
    scores: NDArray[Any]
    probability: NDArray[Any] | None
    labels: Mapping[int, str]
    decided: Mapping[Row, Decision]

    def search(self, precision: float, size: int = SEARCH_SIZE) -> ThresholdSearch:
        """The threshold and the next row (`audit_plugin.review.threshold_search.search_threshold`)."""
        return search_threshold(self.scores, self.labels, precision, self.probability, size)

    def queue(self, search: ThresholdSearch) -> ReviewQueue:
        """The rows whose labels a search used, and the one to label next."""
        rows = [self.rows[number] for number in search.used]
        left = [] if search.next_row is None else [self.rows[search.next_row]]
        return ReviewQueue((*rows, *left), {row: self.decided[row] for row in rows})

    def calibration(self, precision: float, search: ThresholdSearch) -> Calibration:
        """What the search found, with how many of the labels are at or above its threshold.

        Raises:
            AuditError: it has no threshold so far.
        """
        if not search.rows:
            raise AuditError(f"no threshold is known to keep {percent_text(precision)} yet; go on labeling")
        above = [self.labels[row] for row in search.used if self.scores[row] >= search.threshold]
        return Calibration(precision, search.threshold, search.rows, len(above), above.count("wrong"))

    def with_label(self, row: int, word: str) -> ThresholdCheck:
        """The same search with one more label."""
        return replace(self, labels={**self.labels, row: word})

    def ahead(self, precision: float, size: int, count: int) -> list[Row]:
        """The rows that are asked for next, at most `count`, if all of them turn out to be wrong."""
        check, rows = self, list[Row]()
        while len(rows) < count and (row := check.search(precision, size).next_row) is not None:
            rows.append(self.rows[row])
            check = check.with_label(row, "wrong")
        return rows


def threshold_check(dataset: SampleCollection, run: str) -> ThresholdCheck:
    """The search for a threshold of the misaligned flags, with the decisions that hold as labels.

    Nothing is stored but decisions. Those on single rows count, of the review and of spot checks; batch decisions and
    imported ones do not, since nobody may have looked at the row.

    Raises:
        AuditError: no such audit.
    """
    root = dataset._root_dataset
    check_name("run", run)

    def canonical() -> tuple[tuple[Row, ...], NDArray[Any], NDArray[Any] | None]:
        table, columns = review_table(root, run, flagged=False)
        worst = _worst_rows(table, columns["misalignment"])
        order = worst[np.argsort([table[position][0] for position in worst], kind="stable")]
        scores = np.asarray(columns["misalignment"], np.float64)[order]
        probability = columns["probability"][order] if "probability" in columns else None
        return tuple(table[position] for position in order), scores, probability

    with database(f"reading audit {run!r}"):
        rows, scores, probability = read_fact(root, run, "rows of a threshold search", canonical, of_columns=True)
        ledger = read_ledger(root, {"source": {"$in": list(LOOKED_AT)}, "run": run})
        moved = moved_texts(root, run)
        decided = decisions_of(root, run, rows, resolve(ledger), moved)
        if moved:
            kept = np.array([row[0] not in moved or row in decided for row in rows], dtype=bool)
            rows = tuple(row for row, stays in zip(rows, kept, strict=True) if stays)
            scores, probability = scores[kept], None if probability is None else probability[kept]
    numbers = {row: number for number, row in enumerate(rows) if row in decided}
    labels = {number: verdict(decided[row].kind) for row, number in numbers.items()}
    return ThresholdCheck(rows, scores, probability, labels, decided)


def start_spot_check(dataset: SampleCollection, run: str, size: int = SIZE, seed: int = 0) -> SpotCheck:
    """Draw the rows of a new spot check of the misaligned flags; it replaces an earlier one of the run.

    Raises:
        AuditError: no such audit, or a size below 2.
    """
    root = dataset._root_dataset
    check_name("run", run)
    size, seed = check_whole("size", size), check_whole("seed", seed, high=2**62)
    with database(f"starting a spot check of audit {run!r}"), leased(root, "starting a spot check") as lease:
        rows, columns = table_of_present_texts(root, run)
        worst = _worst_rows(rows, columns["misalignment"])
        rows = [rows[position] for position in worst]
        columns = {name: values[worst] for name, values in columns.items()}
        plan = spot_order([name for name, _ in rows], columns, size, seed)
        drawn = [list(rows[position]) for position in plan.rows]
        facts = {"rows": drawn, "stratum": plan.stratum.tolist(), "sizes": list(plan.sizes)}
        last = _latest(root, run)
        if last and last.get("operation") in lease.interrupted and all(last[name] == facts[name] for name in facts):
            lease.settle(last["operation"])  # an interrupted start that is given again, and was complete
        else:
            facts |= {"dataset": root._doc.id, "run": run, "time": datetime.now(UTC), "operation": lease.owner}
            # its own number among the spot checks, and the place in the ledger after which its decisions stand
            numbers = {"number": next_number(root), "order": read_head(root).number}
            _checks().insert_one(facts | numbers)
    return spot_check(dataset, run)


def record_spot_check(
    dataset: SampleCollection,
    run: str,
    row: Row,
    kind: str,
    text: str = "",
    note: str = "",
    reviewer: str = "",
    seconds: float = 0.0,
) -> list[Decision]:
    """Decide on a row of a spot check: remove or relabel if it is wrong, keep if it is right.

    It is a decision like any other, but only such ones count as verdicts: a batch decision looked at nothing.
    """
    if kind not in KINDS:
        raise AuditError(f"decision {shortened(kind)} is unknown; use one of {', '.join(sorted(KINDS))}")
    if not isinstance(row, Sequence) or len(row) != 2:
        raise AuditError(f"row {shortened(row)} is not a row of the spot check; give the id and the caption of one")
    made = Decision(row[0], kind, row[1], text=text, note=note, reviewer=reviewer, source=SPOT, seconds=seconds)
    return decide_many(dataset, [made], run)


def spot_check(dataset: SampleCollection, run: str) -> SpotCheck:
    """The latest spot check of an audit, with the verdicts made so far.

    Raises:
        AuditError: none was started.
    """
    root = dataset._root_dataset
    check_name("run", run)
    with database(f"reading the spot check of audit {run!r}"):
        check = _latest(root, run)
    if check is None:
        raise AuditError(f"no spot check of audit {run!r} was started in dataset {root.name!r}; start one")
    drawn = tuple((str(name), int(caption)) for name, caption in check["rows"])
    ledger = resolve(d for d in read_ledger(root, {"source": SPOT, "run": run}) if _is_since(d, check))
    existing = items_of_rows(root, run, [name for name, _ in drawn], media=False)
    moved = moved_texts(root, run)
    decided = decisions_of(root, run, [row for row in drawn if row[0] in existing], ledger, moved)
    rows = tuple(row for row in drawn if row[0] in existing and (row[0] not in moved or row in decided))
    # of a row that was deleted, as after its removal was applied, the verdict stays
    by_row = {(label or sample, caption): made for (sample, label, caption), made in ledger.current.items()}
    held = [(decided if row[0] in existing else by_row).get(row) for row in drawn]
    plan = SpotCheckPlan(np.arange(len(drawn)), np.array(check["stratum"], dtype=np.int64), tuple(check["sizes"]))
    return SpotCheck(ReviewQueue(rows, decided), plan, tuple(verdict(made.kind) if made else "" for made in held))


def _latest(dataset: fo.Dataset, run: str) -> dict[str, Any] | None:
    query = {"dataset": dataset._doc.id, "run": run}
    latest: dict[str, Any] | None = _checks().find_one(query, sort=[("number", -1), ("_id", -1)])
    return latest


def _is_since(decision: Decision, check: Mapping[str, Any]) -> bool:
    """Whether a decision was made after the start of a spot check; of former versions there are times only."""
    if "order" in check:
        return bool(decision.number > check["order"])
    return bool(decision.number > 0 or decision.time >= check["time"])


def _checks() -> Any:
    return collection(SPOT_CHECKS, "dataset run").with_options(write_concern=JOURNALED)


def _worst_rows(rows: Sequence[Row], scores: NDArray[Any]) -> NDArray[Any]:
    """Positions of the worst row of each sample: a spot check draws samples."""
    order = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    names = np.array([rows[position][0] for position in order])
    return np.sort(order[np.unique(names, return_index=True)[1]])
