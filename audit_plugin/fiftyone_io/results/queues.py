"""What is to be reviewed in a dataset: the queue of an audit, rows for batch decisions, and those of a join bug."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import database, documents_by_id
from audit_plugin.fiftyone_io.ledger.decisions import decide_many
from audit_plugin.fiftyone_io.ledger.entries import read_ledger
from audit_plugin.fiftyone_io.read.contents import items_of_rows
from audit_plugin.fiftyone_io.runs import audited_items
from audit_plugin.review import (
    Decision,
    Resolution,
    ReviewQueue,
    Row,
    content_digest,
    queue,
    resolve,
    rows_per_text,
    stale,
)
from audit_plugin.scoring.columns import CAPTION_INDEX, LIST
from audit_plugin.scoring.flags import FLAGS, movable_flags
from audit_plugin.scoring.memorized import memorized_lists, rank_memorized
from audit_plugin.scoring.suggest.join_bugs import UNCERTAIN

from .tables import Columns, read_flagged, read_rows

LISTED_SCORES = ("misalignment", "probability", "outlier", "multimem")


def queue_of(dataset: SampleCollection, run: str, kinds: Sequence[str] = ()) -> ReviewQueue:
    """An audit's findings, and what was decided of them.

    Of a view only its samples; of some `kinds` only rows with one of these flags, else with any flag or an action other
    than keep. A row whose text changed since it was decided counts as undecided again. Files are not read.

    Raises:
        AuditError: no such audit or kind.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r}"):
        rows, columns = review_table(dataset, run)
        order = tuple(rows[position] for position in queue(columns, kinds))
        return ReviewQueue(order, decisions_of(root, run, order, resolve(read_ledger(root, {}))))


def decision_of(dataset: SampleCollection, run: str, row: Row) -> Decision | None:
    """The decision that holds on one row, whether a queue has it or not; None where its text changed since.

    Raises:
        AuditError: no such audit.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r}"):
        return decisions_of(root, run, [row], resolve(read_ledger(root, {}))).get(row)


def memorized_rows(dataset: SampleCollection, run: str, most: int) -> dict[str, tuple[Row, ...]]:
    """List of memorized rows (`scoring.memorized.ADVICE`) -> its rows; `highest`: the first `most`, flagged or not.

    Of a view only its samples. Rows with a decision are among them.

    Raises:
        AuditError: no such audit.
    """
    with database(f"reading audit {run!r}"):
        rows, columns = review_table(dataset, run, flagged=False)
    lists = memorized_lists(columns) | {"highest": rank_memorized(columns)[:most]}
    return {name: tuple(rows[position] for position in positions) for name, positions in lists.items()}


@dataclass(frozen=True)
class ListedRow:
    """A row of a review as a list shows it. Texts are unchanged; escape them before they are shown.

    Attributes:
        name: id of the sample or object.
        caption: position of the text that is in question.
        path: of the sample's file.
        text: the caption or class label.
        suggestion: what the audit suggests instead, or "".
        scores: column -> value, as far as there are any.
        flags: kinds.
        action: what the audit proposes.
        reason: why.
    """

    name: str
    caption: int
    path: str
    text: str
    suggestion: str
    scores: Mapping[str, float]
    flags: tuple[str, ...]
    action: str
    reason: str


def list_rows(dataset: SampleCollection, run: str, rows: Sequence[Row]) -> list[ListedRow]:
    """What a list shows of rows, in their order; those that are gone are left out. Files are not read.

    Raises:
        AuditError: no such audit.
    """
    audited, names = audited_items(dataset, run), list(dict.fromkeys(name for name, _ in rows))
    with database(f"reading audit {run!r}"):
        items = items_of_rows(audited.dataset, run, names, media=False)
        values = read_rows(audited, names, audited.columns)
        holders = {item.sample for item in items.values()}
        documents = documents_by_id(audited.dataset._sample_collection, holders, {"filepath": 1})
    listed = []
    for name, caption in rows:
        item, of_row = items.get(name), values.get(name, {})
        if item is None:
            continue
        texts = {column: value_of_text(of_row, column, caption) for column in ("suggestion", "action", "reason")}
        scores = {column: value_of_text(of_row, column, caption) for column in LISTED_SCORES}
        listed.append(
            ListedRow(
                name,
                caption,
                str(documents.get(item.sample, {}).get("filepath", "")),
                item.content.text(caption) or "",
                str(texts["suggestion"] or ""),
                {column: float(value) for column, value in scores.items() if value is not None},
                tuple(kind for kind in FLAGS if of_row.get(f"is_{kind}")),
                str(texts["action"] or "review"),
                str(texts["reason"] or ""),
            )
        )
    return listed


def value_of_text(values: Mapping[str, Any], column: str, caption: int) -> Any:
    """A column's value for one text of a row; of a column without lists, the worst text's is not the others'."""
    if (texts := values.get(f"{column}{LIST}")) is not None:
        return texts[caption] if caption < len(texts) else None
    return values.get(column) if caption == max(0, values.get(CAPTION_INDEX) or 0) else None


def batch_rows(
    dataset: SampleCollection, run: str, kind: str, decision: str, threshold: float | None = None
) -> tuple[Row, ...]:
    """The rows of a view with one kind of finding that a batch decision can be made for, most suspicious first.

    They are the flagged ones, or those with a score of at least a `threshold`. Rows with a decision are left out.
    Of duplicates only those that the audit would remove are removed, so that one of each group stays; only rows with a
    suggestion are relabeled.

    Raises:
        AuditError: no such audit or kind, or a threshold for a kind that has no score.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r}"):
        rows, columns = review_table(dataset, run, flagged=threshold is None)
        flag = f"is_{kind}"
        if threshold is not None:
            if kind not in movable_flags():
                raise AuditError(f"kind {kind!r} has no score; set a threshold for one of {', '.join(movable_flags())}")
            columns[flag] = columns[movable_flags()[kind]] >= threshold
        if decision == "relabel" and flag in columns:
            columns[flag] = columns[flag] & (columns["suggestion"] != "")
        elif decision == "remove" and kind == "duplicate":
            columns[flag] = columns[flag] & (columns["action"] == "remove")
        order = tuple(rows[position] for position in queue(columns, [kind]))
        decided = decisions_of(root, run, order, resolve(read_ledger(root, {})))
    return tuple(row for row in order if row not in decided)


def review_table(dataset: SampleCollection, run: str, flagged: bool = True) -> tuple[list[Row], Columns]:
    """The rows of an audit, all or only those with a flag or a proposal, with what a queue is made of.

    Returns:
        Rows, and columns `[n]`: scores, flags, action, suggestion. A sample with a list of texts has a row for each
        misaligned text, or else one for its worst text. A group has one row.
    """
    table = read_flagged(dataset, run, flagged)
    ids = audited_items(dataset, run).ids_in(dataset)
    if ids is not None:
        inside = np.array([name in ids for name in table["id"]], dtype=bool)
        table = {name: values[inside] for name, values in table.items()}
    return rows_per_text(table)


def repair_decisions(
    dataset: SampleCollection, run: str, sentence: str, reviewer: str = "", uncertain: bool = False
) -> list[Decision]:
    """Relabel the rows of a suggested shift, swap or cycle to the captions suggested for them, as one batch.

    The sentence is that of one of the run's `summary["repairs"]`; the reviewer "" is the user of this machine. Rows at
    an end of a shift that is not certain are left out, unless `uncertain` relabels them as well.

    Raises:
        AuditError: no row of the audit belongs to the repair.
    """
    root = dataset._root_dataset
    table = read_flagged(root, run)
    reasons = [sentence, f"{UNCERTAIN}{sentence}"] if uncertain else [sentence]
    rows = np.flatnonzero(np.isin(table["reason"].astype(str), reasons) & (table["suggestion"] != ""))
    if not len(rows) and not uncertain and uncertain_rows(root, run, sentence):
        raise AuditError(
            f"all rows of the repair {sentence!r} are uncertain; look at them, and give uncertain=True to relabel them"
        )
    if not len(rows):
        raise AuditError(f"no sample of audit {run!r} belongs to the repair {sentence!r}; take one from its summary")
    captions = np.maximum(table[CAPTION_INDEX], 0).tolist()
    proposed = [Decision(table["id"][row], "relabel", captions[row], text=table["suggestion"][row]) for row in rows]
    made = [replace(d, source="repair", reviewer=reviewer, note=sentence) for d in proposed]
    return decide_many(root, made, run)


def uncertain_rows(dataset: SampleCollection, run: str, sentence: str) -> list[str]:
    """Ids of the rows at an end of a suggested shift that is not certain, by the sentence of the repair.

    Raises:
        AuditError: no such audit.
    """
    table = read_flagged(dataset._root_dataset, run)
    return [str(name) for name in table["id"][table["reason"] == f"{UNCERTAIN}{sentence}"]]


def decisions_of(dataset: fo.Dataset, run: str, rows: Sequence[Row], ledger: Resolution) -> dict[Row, Decision]:
    """Row -> its decision, where there is one and its text has not changed since."""
    current = ledger.current
    decided_ids = {sample for sample, _, _ in current} | {label for _, label, _ in current}
    candidates = [row for row in rows if row[0] in decided_ids]
    items = items_of_rows(dataset, run, [name for name, _ in candidates], media=False) if candidates else {}
    decided = {}
    for name, caption in candidates:
        item = items.get(name)
        decision = current.get((item.sample, item.label, caption)) if item else None
        if item and decision and not stale(decision, content_digest(item.content.text(caption), "")):
            decided[name, caption] = decision
    return decided
