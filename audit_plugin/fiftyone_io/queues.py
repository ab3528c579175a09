"""What is to be reviewed in a dataset: the queue of an audit, its spot check, and the decisions of a whole repair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
import numpy as np
from bson.codec_options import CodecOptions
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError
from audit_plugin.config import FLAG_KINDS
from audit_plugin.review import (
    Content,
    Decision,
    Progress,
    content_digest,
    progress,
    queue,
    resolve,
    spot_order,
    stale,
    verdict,
)
from audit_plugin.spot_check import SIZE, Refit, SpotEstimate, SpotPlan, estimate, refit

from .captions import INDEX, LIST
from .contents import Subject, dig, subjects_of_rows
from .decisions import decide_many, read_ledger
from .objects import root_of
from .runs import audit_info, database
from .views import TO_DO

CHECKS = "audit_plugin.spot_checks"
SPOT = "spot-check"
SCORES = ("misalignment", "multimem", "outlier", "duplicate", "probability")
WORDS = ("action", "reason", "suggestion")
Table = dict[str, NDArray[Any]]
Row = tuple[str, int]  # id of the sample or object, position of the caption


@dataclass(frozen=True)
class ReviewQueue:
    """Rows still to be reviewed, most suspicious first (in a spot check: shuffled), and how far the review is."""

    rows: tuple[Row, ...]
    progress: Progress


@dataclass(frozen=True)
class SpotCheck:
    """A spot check: the rows drawn, in the order of the review, and a verdict for each ("" where there is none)."""

    rows: tuple[Row, ...]
    verdicts: tuple[str, ...]
    plan: SpotPlan

    def estimate(self, confidence: float = 0.9) -> SpotEstimate:
        """What the verdicts say of the whole set (`audit_plugin.spot_check.estimate`)."""
        return estimate(self.plan, self.verdicts, confidence)


def queue_of(dataset: SampleCollection, run: str, kinds: Sequence[str] = (), reviewer: str = "") -> ReviewQueue:
    """What of an audit's findings is still to be decided.

    Rows whose text changed since they were decided come back; rows that were skipped come last. Files are not read.

    Args:
        dataset: the dataset, or a view of it: only its samples.
        run: key of the audit.
        kinds: flags of which a row must bear one; none: any flag, or an action other than keep.
        reviewer: only this reviewer's own decisions count as made; "": anybody's.

    Raises:
        AuditError: no such audit or kind.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r}"):
        rows, columns = review_table(dataset, run)
        every = queue(columns, kinds)
        ledger = read_ledger(root, {"reviewer": reviewer} if reviewer else {})
        found = _decisions_of(root, run, [rows[at] for at in every], resolve(ledger).current)
        decided = {at for at in every.tolist() if rows[at] in found and found[rows[at]].kind != "skip"}
        skipped = {at for at in every.tolist() if rows[at] in found} - decided
        order = queue(columns, kinds, decided, skipped)
        seconds = [found[rows[at]].seconds for at in decided]
    return ReviewQueue(tuple(rows[at] for at in order), progress(len(every), len(decided), seconds))


def review_table(dataset: SampleCollection, run: str, flagged: bool = True) -> tuple[list[Row], Table]:
    """The rows of an audit with what a queue is made of: flags, scores, action.

    Args:
        dataset: the dataset, or a view of it.
        run: key of the audit.
        flagged: only rows with a flag or something proposed; else all that the audit wrote on.

    Returns:
        Rows, and columns `[n]`. A sample with a list of texts has a row for each misaligned text, or else one for its
        worst text. A group has one row.
    """
    record, root = audit_info(dataset, run), dataset._root_dataset
    only = None if dataset is root else {str(name) for name in _ids_of(dataset)}
    rows: list[Row] = []
    values: dict[str, list[Any]] = {name: [] for name in (*SCORES, *(f"is_{kind}" for kind in FLAG_KINDS), "action")}
    for document in _results(root, run, record, flagged):
        name = str(document["_id"])
        if only is not None and str(document.get("_sample", name)) not in only:
            continue
        for caption, found in _rows_of(document, run):
            rows.append((name, caption))
            for column, held in values.items():
                held.append(found.get(f"{run}_{column}"))
    return rows, {name: _column(name, held) for name, held in values.items()}


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
    verdicts = resolve(ledger).current
    given = _decisions_of(root, run, rows, verdicts)
    plan = SpotPlan(np.arange(len(rows)), np.array(found["stratum"], dtype=np.int64), tuple(found["sizes"]))
    return SpotCheck(rows, tuple(verdict(given[row].kind) if row in given else "" for row in rows), plan)


def spot_refit(dataset: SampleCollection, run: str, false_flags: float = 0.2) -> tuple[list[Row], Refit]:
    """The audit's probabilities after the verdicts of its spot check, per row of the audit.

    Raises:
        AuditError: no spot check was started, or the audit has no probabilities.
    """
    check = spot_check(dataset, run)
    rows, columns = review_table(dataset._root_dataset, run, flagged=False)
    at = {row: number for number, row in enumerate(rows)}
    known = [n for n, row in enumerate(check.rows) if row in at]
    places = np.array([at[check.rows[n]] for n in known], dtype=np.int64)
    plan = SpotPlan(places, check.plan.stratum[known], check.plan.sizes)
    return rows, refit(plan, [check.verdicts[n] for n in known], columns["probability"], false_flags)


def repair_decisions(
    dataset: SampleCollection, run: str, repair: Mapping[str, Any], reviewer: str = "", note: str = ""
) -> list[Decision]:
    """Relabel all rows of a detected shift, swap or cycle to the captions that belong to them, as one batch.

    Args:
        dataset: the dataset, or a view of it.
        run: key of the audit.
        repair: one of the run's `summary["repairs"]`.
        reviewer: name; "": the user of this machine.
        note: "": the repair's own sentence.

    Raises:
        AuditError: no row of the audit belongs to the repair.
    """
    root, sentence = dataset._root_dataset, str(repair["sentence"])
    record = audit_info(root, run)
    proposed = [
        Decision(str(d["_id"]), "relabel", int(d.get(f"{run}_{INDEX}") or 0), text=d[f"{run}_suggestion"])
        for d in _results(root, run, record, flagged=True)
        if d.get(f"{run}_reason") == sentence and d.get(f"{run}_suggestion")
    ]
    if not proposed:
        raise AuditError(f"no sample of audit {run!r} belongs to the repair {sentence!r}; take one from its summary")
    made = [replace(d, source="repair", reviewer=reviewer, note=note or sentence) for d in proposed]
    return decide_many(root, made, run)


def _results(dataset: fo.Dataset, run: str, record: Any, flagged: bool) -> Iterator[dict[str, Any]]:
    """What an audit wrote, per sample, group or object: `_id`, and `_sample` for an object."""
    names = [f"{run}_{n}" for n in (*SCORES, *WORDS, INDEX, f"misalignment{LIST}", f"is_misaligned{LIST}")]
    names += [f"{run}_is_{kind}" for kind in FLAG_KINDS]
    marks: list[dict[str, Any]] = [{f"{run}_is_{kind}": True} for kind in FLAG_KINDS]
    marks.append({f"{run}_action": {"$in": list(TO_DO)}})
    wanted = {"$or": marks} if flagged else {f"{run}_action": {"$exists": True}}
    collection = dataset._sample_collection
    if record.label_field:
        root = root_of(record.label_field)
        stages = [
            {"$match": {f"{root}.{run}_action": {"$exists": True}}},
            {"$unwind": f"${root}"},
            {"$replaceRoot": {"newRoot": {"$mergeObjects": [f"${root}", {"_sample": "$_id"}]}}},
            {"$match": wanted},
            {"$project": dict.fromkeys([*names, "_sample"], 1)},
        ]
        yield from collection.aggregate(stages)
        return
    group = dataset.group_field
    shown = dict.fromkeys([*names, *([group] if group else [])], 1)
    found = collection.find(wanted, shown)
    yield from _one_per_group(found, group, list(record.slices)) if group else found


def _one_per_group(documents: Any, group: str, slices: list[str]) -> Iterator[dict[str, Any]]:
    """Of each group the sample in the first of the slices: the one by which the audit names its rows."""
    best: dict[Any, tuple[int, dict[str, Any]]] = {}
    for document in documents:
        name, number = dig(document, f"{group}.name"), dig(document, f"{group}._id")
        rank = slices.index(name) if name in slices else len(slices)
        if number not in best or rank < best[number][0]:
            best[number] = (rank, document)
    yield from (document for _, document in best.values())


def _rows_of(document: dict[str, Any], run: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(caption, values) for each misaligned text of a sample, or for its worst one."""
    worst = max(0, document.get(f"{run}_{INDEX}") or 0)
    flags = document.get(f"{run}_is_misaligned{LIST}") or []
    scores = document.get(f"{run}_misalignment{LIST}") or []
    yield worst, document
    for at, (flag, score) in enumerate(zip(flags, scores, strict=False)):
        if flag and at != worst:
            yield at, {f"{run}_is_misaligned": True, f"{run}_misalignment": score, f"{run}_action": "review"}


def _column(name: str, values: list[Any]) -> NDArray[Any]:
    if name == "action":
        return np.array(["" if value is None else value for value in values], dtype=object)
    if name.startswith("is_"):
        return np.array([value is True for value in values], dtype=bool)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _decisions_of(
    dataset: fo.Dataset, run: str, rows: Sequence[Row], current: Mapping[tuple[str, str, int], Decision]
) -> dict[Row, Decision]:
    """Row -> its decision, where there is one and its text has not changed since."""
    subjects_decided = {sample for sample, _, _ in current} | {label for _, label, _ in current}
    near = [row for row in rows if row[0] in subjects_decided]
    there = subjects_of_rows(dataset, run, [name for name, _ in near], media=False) if near else {}
    found = {}
    for name, caption in near:
        if name in there:
            subject = there[name]
            decision = current.get((subject.sample, subject.label, caption))
            if decision is not None and not _text_changed(decision, subject):
                found[name, caption] = decision
    return found


def _text_changed(decision: Decision, subject: Subject) -> bool:
    content: Content = subject.content
    return stale(decision, content_digest(content.text(decision.caption), ""))


def _one_each(rows: Sequence[Row], scores: NDArray[Any]) -> NDArray[Any]:
    """Positions of the worst row of each sample: a spot check draws samples."""
    best: dict[str, int] = {}
    worth = np.where(np.isfinite(scores), scores, -np.inf)
    for at, (name, _) in enumerate(rows):
        if name not in best or worth[at] > worth[best[name]]:
            best[name] = at
    return np.array(sorted(best.values()), dtype=np.int64)


def _ids_of(view: SampleCollection) -> list[Any]:
    if view.media_type == "group":
        view = view.select_group_slices(_allow_mixed=True)
    path = "sample_id" if getattr(view, "_is_generated", False) else "id"
    return list(view.values(path))


def _checks() -> Any:
    found = foo.get_db_conn().get_collection(CHECKS, codec_options=CodecOptions(tz_aware=True, tzinfo=UTC))
    found.create_index([("dataset", 1), ("run", 1)])
    return found
