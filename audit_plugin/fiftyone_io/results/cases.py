"""All that a reviewer is shown of one row: its media, text and scores, the evidence against it, and its decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from string import punctuation
from typing import Any

from fiftyone.core.collections import SampleCollection
from fiftyone.core.media import get_media_type

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import database
from audit_plugin.fiftyone_io.ledger.decisions import current_decisions
from audit_plugin.fiftyone_io.ledger.entries import read_ledger
from audit_plugin.fiftyone_io.read.contents import (
    AuditedItem,
    class_path,
    declared_classes,
    items_of_rows,
    used_classes,
)
from audit_plugin.fiftyone_io.read.items import AuditedItems, all_samples, image_samples
from audit_plugin.fiftyone_io.runs import audited_items
from audit_plugin.review import Decision, ReviewQueue, Row, resolve
from audit_plugin.scoring.columns import CAPTION_INDEX

from .findings import row_of, score_ranks
from .queues import decisions_of, flags_of_text, moved_texts
from .tables import SLACK, explained, read_row, read_rows, value_of_text, worst_text

TEXTS = ("action", "reason", "suggestion", "repair", "culprit")
NEIGHBORS, WORDS = 3, 5  # shown: of each side; of a caption
CLASSES_SECONDS = 300


@dataclass(frozen=True)
class CachedClasses:
    """The classes that samples have: of all of them at the time `read`, of changed ones until `changed`."""

    names: frozenset[str]
    count: int  # of samples
    read: datetime
    changed: datetime


_classes: dict[tuple[Any, str], CachedClasses] = {}  # by dataset and field


@dataclass(frozen=True)
class ReviewCase:
    """One row with its evidence. Texts are unchanged; escape them before they are shown.

    `neighbors` disagree: {"near", "other", "voters": [{"id", "caption", "agreement", "path", "media"}]}.
    """

    row: Row  # id of the sample or object, and the position of the text that is in question
    sample: str  # the sample that is shown for it
    path: str
    media: str  # image, video, ...
    text: str  # the caption that is in question
    scores: Mapping[str, tuple[float, float]]  # column -> (value, share of the audit's rows with a lower value)
    texts: Mapping[str, str]  # action, reason, suggestion, ... where there are any
    flags: tuple[str, ...]  # kinds
    classes: tuple[str, ...] = ()  # names of the dataset's classes, where the text is one
    captions: int = 0  # how many texts the sample or object has in a list; 0 where its text is not in a list
    is_last: bool = False  # whether it is decided to remove all other texts of the list
    words: tuple[str, ...] = ()  # the caption's words that fit least, first
    neighbors: tuple[Mapping[str, Any], ...] = ()
    decision: Decision | None = None


def case_of(dataset: SampleCollection, run: str, row: Row, decision: Decision | None = None) -> ReviewCase:
    """All that is shown of a row.

    Raises:
        AuditError: no such audit, or the row does not exist any more.
    """
    items, (name, caption) = audited_items(dataset, run), row
    item = _item(items, name)
    shown = all_samples(items.dataset)[item.sample]
    is_moved = name in moved_texts(items.dataset, run)  # what was found of this position was another text
    values, record = ({}, {}) if is_moved else (read_row(items, name), explanation_of(items, row))
    texts = {column: value_of_text(values, column, caption) for column in TEXTS}
    return ReviewCase(
        row,
        item.sample,
        str(shown.filepath),
        str(shown.media_type),
        item.content.text(caption) or "",
        {} if is_moved else score_ranks(items.dataset, run, row),
        {column: str(text) for column, text in texts.items() if text},
        flags_of_text(values, caption),
        classes_of(items.dataset, run),
        len(item.content.texts) if item.content.listed else 0,
        item.content.listed and _is_last(items, row, len(item.content.texts)),
        misaligned_words(record, caption),
        tuple(_neighbors(items, record)),
        decision,
    )


def row_to_show(dataset: SampleCollection, run: str, queue: ReviewQueue, sample: str) -> Row:
    """The row to show for a sample that is open in the App: the queue's, of an audit of objects its worst object's.

    A sample without findings is shown too, with its first or worst text.

    Raises:
        AuditError: no object of the sample is in the queue.
    """
    items = audited_items(dataset, run)
    if items.label_field:
        labels = image_samples(items.dataset).select(sample).values(f"{items.objects}.id", unwind=True)
        rows = [row for row in map(queue.row_of, [sample, *labels]) if row is not None]
        if not rows:
            raise AuditError(f"no object of sample {sample} was flagged; open another sample")
        return rows[0]
    item = items_of_rows(items.dataset, run, [sample], media=False).get(sample)
    name = item.sample if item else sample  # of a group, its row's sample
    return queue.row_of(name) or row_of(items.dataset, run, name)


def rows_to_show(dataset: SampleCollection, run: str, queue: ReviewQueue, names: Sequence[str]) -> tuple[Row, ...]:
    """`row_to_show` for the samples or objects of a selection, each row once; of objects the named ones themselves."""
    items = audited_items(dataset, run)
    if items.label_field or items.slices:
        return tuple(dict.fromkeys(row_to_show(dataset, run, queue, name) for name in names))
    in_queue: dict[str, Row] = {}
    for row in (*queue.left, *queue.rows):
        in_queue.setdefault(row[0], row)
    values = read_rows(items, [name for name in names if name not in in_queue], [CAPTION_INDEX])
    others = {name: (name, worst_text(of_row)) for name, of_row in values.items()}
    return tuple(dict.fromkeys({**in_queue, **others}.get(name, (name, 0)) for name in names))


def sample_of(dataset: SampleCollection, run: str, row: Row) -> str:
    """Id of the sample that is shown for a row: of an object the one that holds it.

    Raises:
        AuditError: it does not exist any more.
    """
    return _item(audited_items(dataset, run), row[0]).sample


def media_of(path: str) -> str:
    """The kind of a file by its name: image, video, ..."""
    return str(get_media_type(path))


def text_of(dataset: SampleCollection, run: str, row: Row) -> str:
    """The present text of a row; "" where it has none.

    Raises:
        AuditError: the row does not exist any more.
    """
    return _item(audited_items(dataset, run), row[0]).content.text(row[1]) or ""


def texts_of(dataset: SampleCollection, run: str, rows: Sequence[Row]) -> dict[Row, str]:
    """Row -> its present text, "" where it has none; rows that do not exist any more are left out."""
    items = items_of_rows(dataset._root_dataset, run, [name for name, _ in rows], media=False)
    return {row: items[row[0]].content.text(row[1]) or "" for row in rows if row[0] in items}


def classes_of(dataset: SampleCollection, run: str) -> tuple[str, ...]:
    """Names of the dataset's classes, sorted, where an audit's texts are names of classes; else empty.

    Only samples that changed are asked again, for `CLASSES_SECONDS` or until samples come or go: a class that no sample
    has any more is offered for so long.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r}"):
        place = class_path(root, run)
        if place is None:
            return ()
        key, now = (root._doc.id, place), datetime.now(UTC)
        count = root._sample_collection.estimated_document_count()
        former = _classes.get(key)
        if former and former.count == count and now - former.read < timedelta(seconds=CLASSES_SECONDS):
            names = former.names | used_classes(root, place, former.changed - SLACK)
            _classes[key] = replace(former, names=names, changed=now)
        else:
            names = frozenset(used_classes(root, place))
            _classes[key] = CachedClasses(names, count, now, now)
    return tuple(sorted(names | declared_classes(root, place)))


def decision_counts(dataset: SampleCollection) -> dict[str, int]:
    """Kind of decision -> how many captions or objects it holds for."""
    kinds = [decision.kind for decision in current_decisions(dataset).current.values()]
    return {kind: kinds.count(kind) for kind in ("keep", "remove", "relabel", "unsure", "skip") if kind in kinds}


def _item(items: AuditedItems, name: str) -> AuditedItem:
    item = items_of_rows(items.dataset, items.run, [name], media=False).get(name)
    if item is None:
        raise AuditError(f"sample {name} is not in dataset {items.dataset.name!r} any more; go to the next one")
    return item


def _is_last(items: AuditedItems, row: Row, count: int) -> bool:
    """Whether the decisions that hold remove all of a list of texts but the row's."""
    others = [(row[0], position) for position in range(count) if position != row[1]]
    resolution = resolve(read_ledger(items.dataset, {"sample": items.samples([row[0]])[row[0]][0]}))
    decided = decisions_of(items.dataset, items.run, others, resolution) if others else {}
    return len(decided) == len(others) and all(decision.kind == "remove" for decision in decided.values())


def explanation_of(items: AuditedItems, row: Row) -> dict[str, Any]:
    """What explains the row's text, or else its worst one; {} where the row was not explained."""
    records = explained(items.dataset, items.run, row[0])
    of_text = [record for record in records if worst_text(record) == row[1]]
    return max(of_text or records, key=lambda record: record.get("misalignment") or float("-inf"), default={})


def misaligned_words(record: Mapping[str, Any], caption: int) -> tuple[str, ...]:
    """The words that its medium speaks against, without their punctuation; () of the record of another caption."""
    if worst_text(record) != caption:
        return ()
    words = [word["text"].strip(punctuation) for word in record.get("words") or () if (word.get("gain") or 0) > 0]
    return tuple(word for word in dict.fromkeys(words) if word)[:WORDS]


def _neighbors(items: AuditedItems, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The voters that disagree most, with the files to show."""
    sides = [
        {**side, "voters": [dict(voter) for voter in side["voters"][:NEIGHBORS]]}
        for side in record.get("neighbors") or ()
    ]
    voters = [voter["id"] for side in sides for voter in side["voters"]]
    if not voters:
        return sides
    holders = {name: samples[0] for name, samples in items.samples(voters).items()}
    shown = all_samples(items.dataset).select(list(set(holders.values())))
    paths = dict(zip(*shown.values(["id", "filepath"]), strict=True))
    for side in sides:
        for voter in side["voters"]:
            path = paths.get(holders.get(voter["id"]), "")
            voter |= {"path": path, "media": get_media_type(path)}
    return sides
