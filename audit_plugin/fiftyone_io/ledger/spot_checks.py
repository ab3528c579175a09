"""Spot checks: a random part of an audit's rows, decided one by one, estimates how many flags are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import collection, database
from audit_plugin.fiftyone_io.results.queues import decisions_of, review_table
from audit_plugin.review import Decision, ReviewQueue, Row, resolve, spot_order, verdict
from audit_plugin.review.spot_check import SIZE, SpotCheckPlan, SpotEstimate, estimate

from .decisions import decide_many, read_ledger

CHECKS = "audit_plugin.spot_checks"
SPOT = "spot-check"


@dataclass(frozen=True)
class SpotCheck:
    """A spot check: the rows drawn in the order of the review, with what was decided, and how they were drawn."""

    queue: ReviewQueue
    plan: SpotCheckPlan

    @property
    def verdicts(self) -> tuple[str, ...]:
        """A verdict for each row, "" where there is none yet."""
        decided = self.queue.decided
        return tuple(verdict(decided[row].kind) if row in decided else "" for row in self.queue.rows)

    def estimate(self, confidence: float = 0.9) -> SpotEstimate:
        """The precision and recall of the flags (`audit_plugin.review.spot_check.estimate`)."""
        return estimate(self.plan, self.verdicts, confidence)


def start_spot_check(dataset: SampleCollection, run: str, size: int = SIZE, seed: int = 0) -> SpotCheck:
    """Draw the rows of a new spot check of the misaligned flags; it replaces an earlier one of the run.

    Raises:
        AuditError: no such audit, or a size below 2.
    """
    root = dataset._root_dataset
    with database(f"starting a spot check of audit {run!r}"):
        rows, columns = review_table(root, run, flagged=False)
        worst = _worst_rows(rows, columns["misalignment"])
        rows = [rows[position] for position in worst]
        columns = {name: values[worst] for name, values in columns.items()}
        plan = spot_order([name for name, _ in rows], columns, size, seed)
        drawn = [list(rows[position]) for position in plan.rows]
        facts = {"dataset": root._doc.id, "run": run, "time": datetime.now(UTC), "rows": drawn}
        collection(CHECKS, "dataset run").insert_one(
            {**facts, "stratum": plan.stratum.tolist(), "sizes": list(plan.sizes)}
        )
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
    made = Decision(row[0], kind, row[1], text=text, note=note, reviewer=reviewer, source=SPOT, seconds=seconds)
    return decide_many(dataset, [made], run)


def spot_check(dataset: SampleCollection, run: str) -> SpotCheck:
    """The latest spot check of an audit, with the verdicts made so far.

    Raises:
        AuditError: none was started.
    """
    root = dataset._root_dataset
    check = collection(CHECKS, "dataset run").find_one({"dataset": root._doc.id, "run": run}, sort=[("_id", -1)])
    if check is None:
        raise AuditError(f"no spot check of audit {run!r} was started in dataset {root.name!r}; start one")
    rows = tuple((str(name), int(caption)) for name, caption in check["rows"])
    ledger = read_ledger(root, {"source": SPOT, "run": run, "time": {"$gte": check["time"]}})
    decided = decisions_of(root, run, rows, resolve(ledger))
    plan = SpotCheckPlan(np.arange(len(rows)), np.array(check["stratum"], dtype=np.int64), tuple(check["sizes"]))
    return SpotCheck(ReviewQueue(rows, decided), plan)


def _worst_rows(rows: Sequence[Row], scores: NDArray[Any]) -> NDArray[Any]:
    """Positions of the worst row of each sample: a spot check draws samples."""
    order = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    names = np.array([rows[position][0] for position in order])
    return np.sort(order[np.unique(names, return_index=True)[1]])
