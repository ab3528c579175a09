"""What is to be reviewed in a dataset: the queue of an audit, and the decisions of a whole repair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError
from audit_plugin.audit.caption_lists import INDEX, LIST
from audit_plugin.config import FLAG_KINDS
from audit_plugin.fiftyone_io.ledger.decisions import Row, decide_many, read_ledger
from audit_plugin.fiftyone_io.read.contents import Subject, dig, subjects_of_rows
from audit_plugin.fiftyone_io.read.items import root_of
from audit_plugin.fiftyone_io.runs import audit_info, database
from audit_plugin.review import Content, Decision, ReviewProgress, content_digest, progress, queue, resolve, stale

from .findings import SCORE_OF
from .tables import FLAGGED_COLUMNS, OF_TEXT, QUEUED, WORDS, flagged_query, flagged_rows

Table = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ReviewQueue:
    """The rows of a review, and what was decided of them.

    Attributes:
        rows: all of them, most suspicious first; in a spot check shuffled.
        decided: row -> the decision that holds, unless its text changed since.
        progress: how far the review is.
    """

    rows: tuple[Row, ...]
    decided: Mapping[Row, Decision]
    progress: ReviewProgress

    @property
    def left(self) -> tuple[Row, ...]:
        """The rows still to be decided; those that were skipped come last."""
        skipped = tuple(row for row in self.rows if row in self.decided and self.decided[row].kind == "skip")
        return tuple(row for row in self.rows if row not in self.decided) + skipped

    def next(self, after: Row | None = None) -> Row | None:
        """The next row to decide, from the start again at the end; None where all are decided."""
        at = self.rows.index(after) + 1 if after in self.rows else 0
        ahead = self.rows[at:] + self.rows[:at]
        fresh = (row for row in ahead if row not in self.decided)
        skipped = (row for row in ahead if row in self.decided and self.decided[row].kind == "skip")
        return next(chain(fresh, skipped), None)

    def previous(self, before: Row | None) -> Row | None:
        """The row before, decided or not; the first one stays."""
        at = self.rows.index(before) if before in self.rows else 0
        return self.rows[max(at - 1, 0)] if self.rows else None

    def row_of(self, name: str) -> Row | None:
        """The row of a sample or object: of several captions the next to be decided; None if it has none."""
        return next((row for row in (*self.left, *self.rows) if row[0] == name), None)


def queue_of(dataset: SampleCollection, run: str, kinds: Sequence[str] = (), reviewer: str = "") -> ReviewQueue:
    """An audit's findings, and what was decided of them.

    A row whose text changed since it was decided counts as undecided again. Files are not read.

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
        order = tuple(rows[at] for at in queue(columns, kinds))
        ledger = read_ledger(root, {"reviewer": reviewer} if reviewer else {})
        return queue_with(order, decisions_of(root, run, order, resolve(ledger).current))


def queue_with(rows: tuple[Row, ...], decided: Mapping[Row, Decision]) -> ReviewQueue:
    """A queue whose progress counts what is decided; a skipped row is not."""
    done = [decision.seconds for decision in decided.values() if decision.kind != "skip"]
    return ReviewQueue(rows, decided, progress(len(rows), len(done), done))


def batch_rows(
    dataset: SampleCollection, run: str, kind: str, decision: str, threshold: float | None = None
) -> tuple[Row, ...]:
    """The rows of one kind that a decision can be made for at one stroke, most suspicious first.

    What somebody decided already is left out. Of duplicates only those that the audit would remove are removed, so
    that one of each group stays; only rows with a suggestion are relabeled.

    Args:
        dataset: the dataset, or a view of it: only its samples.
        run: key of the audit.
        kind: of finding.
        decision: keep, remove, relabel, skip or unsure.
        threshold: lowest score that counts; None: the rows that are flagged.

    Raises:
        AuditError: no such audit or kind, or a threshold for a kind that has no score.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r}"):
        rows, columns = review_table(dataset, run, flagged=threshold is None)
        if threshold is not None:
            if kind not in SCORE_OF:
                raise AuditError(f"kind {kind!r} has no score; set a threshold for one of {', '.join(SCORE_OF)}")
            columns[f"is_{kind}"] = columns[SCORE_OF[kind]] >= threshold
        if decision == "relabel":
            columns[f"is_{kind}"] = columns[f"is_{kind}"] & (columns["suggestion"] != "")
        elif decision == "remove" and kind == "duplicate":
            columns["is_duplicate"] &= columns["action"] == "remove"
        order = tuple(rows[at] for at in queue(columns, [kind]))
        decided = decisions_of(root, run, order, resolve(read_ledger(root, {})).current)
    return tuple(row for row in order if row not in decided)


def review_table(dataset: SampleCollection, run: str, flagged: bool = True) -> tuple[list[Row], Table]:
    """The rows of an audit with what a queue is made of.

    Args:
        dataset: the dataset, or a view of it.
        run: key of the audit.
        flagged: only rows with a flag or something proposed; else all that the audit wrote on.

    Returns:
        Rows, and columns `[n]`: scores, flags, action, suggestion. A sample with a list of texts has a row for each
        misaligned text, or else one for its worst text. A group has one row.
    """
    record, root = audit_info(dataset, run), dataset._root_dataset
    only = None if dataset is root else {str(name) for name in _ids_of(dataset)}
    rows: list[Row] = []
    names = (*QUEUED, *(f"is_{kind}" for kind in FLAG_KINDS), "action", "suggestion")
    values: dict[str, list[Any]] = {name: [] for name in names}
    for name, sample, document in _results(root, run, record, flagged):
        if only is not None and sample not in only:
            continue
        for caption, found in _rows_of(document):
            rows.append((name, caption))
            for column, held in values.items():
                held.append(found.get(column))
    return rows, {name: _column(name, held) for name, held in values.items()}


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
        Decision(name, "relabel", int(found.get(INDEX) or 0), text=found["suggestion"])
        for name, _, found in _results(root, run, record, flagged=True)
        if found.get("reason") == sentence and found.get("suggestion")
    ]
    if not proposed:
        raise AuditError(f"no sample of audit {run!r} belongs to the repair {sentence!r}; take one from its summary")
    made = [replace(d, source="repair", reviewer=reviewer, note=note or sentence) for d in proposed]
    return decide_many(root, made, run)


def _results(dataset: fo.Dataset, run: str, record: Any, flagged: bool) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(id of the row, id of its sample, what the audit wrote) per sample, group or object."""
    if flagged and not record.label_field and not dataset.group_field:
        yield from ((name, name, found) for name, found in flagged_rows(dataset, run).items())
        return
    for document in _documents(dataset, run, record, flagged):
        name = str(document["_id"])
        found = {path.removeprefix(f"{run}_"): value for path, value in document.items()}
        yield name, str(document.get("_sample", name)), found


def _documents(dataset: fo.Dataset, run: str, record: Any, flagged: bool) -> Iterator[dict[str, Any]]:
    names = [f"{run}_{name}" for name in FLAGGED_COLUMNS]
    wanted = flagged_query(run) if flagged else {f"{run}_action": {"$exists": True}}
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


def _rows_of(found: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(caption, values) for each misaligned text of a sample, or for its worst one."""
    worst = max(0, found.get(INDEX) or 0)
    yield worst, found
    lists = [found.get(f"{name}{LIST}") or [] for name in OF_TEXT]
    for at, values in enumerate(zip_longest(*lists)):
        of_text = dict(zip(OF_TEXT, values, strict=True))
        if of_text["is_misaligned"] and at != worst:
            yield at, {**of_text, "action": "review"}


def _column(name: str, values: list[Any]) -> NDArray[Any]:
    if name in WORDS:
        return np.array(["" if value is None else value for value in values], dtype=object)
    if name.startswith("is_"):
        return np.array([value is True for value in values], dtype=bool)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def decisions_of(
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


def _ids_of(view: SampleCollection) -> list[Any]:
    if view.media_type == "group":
        view = view.select_group_slices(_allow_mixed=True)
    path = "sample_id" if getattr(view, "_is_generated", False) else "id"
    return list(view.values(path))
