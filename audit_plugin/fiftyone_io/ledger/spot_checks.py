"""Spot checks: a random part of an audit's rows, decided one by one, tells how right the flags are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fiftyone.core.odm as foo
import numpy as np
from bson.codec_options import CodecOptions
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.results.queues import ReviewQueue, decisions_of, queue_with, review_table
from audit_plugin.fiftyone_io.runs import database
from audit_plugin.review import Decision, resolve, spot_order, verdict
from audit_plugin.review.spot_check import SIZE, Refit, SpotCheckPlan, SpotEstimate, estimate, refit

from .decisions import Row, decide_many, read_ledger

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
        given = self.queue.decided
        return tuple(verdict(given[row].kind) if row in given else "" for row in self.queue.rows)

    def estimate(self, confidence: float = 0.9) -> SpotEstimate:
        """What the verdicts say of the whole set (`audit_plugin.review.spot_check.estimate`)."""
        return estimate(self.plan, self.verdicts, confidence)


def start_spot_check(dataset: SampleCollection, run: str, size: int = SIZE, seed: int = 0) -> SpotCheck:
    """Draw the rows of a new spot check of the misaligned flags; it replaces an earlier one of the run.

    Raises:
        AuditError: no such audit, or a size below 2.
    """
    root = dataset._root_dataset
    with database(f"starting a spot check of audit {run!r}"):
        rows, columns = review_table(root, run, flagged=False)
        worst = _one_each(rows, columns["misalignment"])
        rows, columns = [rows[at] for at in worst], {name: values[worst] for name, values in columns.items()}
        plan = spot_order([name for name, _ in rows], columns, size, seed)
        drawn = [list(rows[at]) for at in plan.rows]
        facts = {"dataset": root._doc.id, "run": run, "time": datetime.now(UTC), "rows": drawn}
        _checks().insert_one({**facts, "stratum": plan.stratum.tolist(), "sizes": list(plan.sizes)})
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
    """Decide on a row of a spot check: remove or relabel say that it is wrong, keep that it is right.

    It is a decision like any other, but only such ones count as verdicts: a batch decision looked at nothing.
    """
    made = Decision(row[0], kind, row[1], text=text, note=note, reviewer=reviewer, source=SPOT, seconds=seconds)
    return decide_many(dataset, [made], run)


def spot_check(dataset: SampleCollection, run: str) -> SpotCheck:
    """The latest spot check of an audit, with the verdicts given so far.

    Raises:
        AuditError: none was started.
    """
    root = dataset._root_dataset
    found = _checks().find_one({"dataset": root._doc.id, "run": run}, sort=[("_id", -1)])
    if found is None:
        raise AuditError(f"no spot check of audit {run!r} was started in dataset {root.name!r}; start one")
    rows = tuple((str(name), int(caption)) for name, caption in found["rows"])
    ledger = read_ledger(root, {"source": SPOT, "run": run, "time": {"$gte": found["time"]}})
    given = decisions_of(root, run, rows, resolve(ledger).current)
    plan = SpotCheckPlan(np.arange(len(rows)), np.array(found["stratum"], dtype=np.int64), tuple(found["sizes"]))
    return SpotCheck(queue_with(rows, given), plan)


def spot_refit(dataset: SampleCollection, run: str, false_flags: float = 0.2) -> tuple[list[Row], Refit]:
    """The audit's probabilities after the verdicts of its spot check, per row of the audit.

    Raises:
        AuditError: no spot check was started, or the audit has no probabilities.
    """
    check = spot_check(dataset, run)
    rows, columns = review_table(dataset._root_dataset, run, flagged=False)
    at = {row: number for number, row in enumerate(rows)}
    known = [n for n, row in enumerate(check.queue.rows) if row in at]
    places = np.array([at[check.queue.rows[n]] for n in known], dtype=np.int64)
    plan = SpotCheckPlan(places, check.plan.stratum[known], check.plan.sizes)
    return rows, refit(plan, [check.verdicts[n] for n in known], columns["probability"], false_flags)


def _one_each(rows: Sequence[Row], scores: NDArray[Any]) -> NDArray[Any]:
    """Positions of the worst row of each sample: a spot check draws samples."""
    best: dict[str, int] = {}
    worth = np.where(np.isfinite(scores), scores, -np.inf)
    for at, (name, _) in enumerate(rows):
        if name not in best or worth[at] > worth[best[name]]:
            best[name] = at
    return np.array(sorted(best.values()), dtype=np.int64)


def _checks() -> Any:
    found = foo.get_db_conn().get_collection(CHECKS, codec_options=CodecOptions(tz_aware=True, tzinfo=UTC))
    found.create_index([("dataset", 1), ("run", 1)])
    return found
