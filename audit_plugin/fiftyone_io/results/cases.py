"""All that a reviewer is shown of one row: its media, text and scores, what speaks against it, and who disagrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import punctuation
from typing import Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError
from audit_plugin.audit.caption_lists import INDEX, LIST
from audit_plugin.config import FLAG_KINDS
from audit_plugin.fiftyone_io.ledger.decisions import Row, resolved
from audit_plugin.fiftyone_io.read.contents import subjects_of_rows
from audit_plugin.fiftyone_io.read.items import images_of, root_of
from audit_plugin.fiftyone_io.runs import AuditRunConfig, audit_info, every_sample, explained
from audit_plugin.review import Decision

from .findings import standing
from .queues import ReviewQueue

TEXTS = ("action", "reason", "suggestion", "repair", "culprit")
NEIGHBORS, WORDS = 3, 5  # shown: of each side; of a caption


@dataclass(frozen=True)
class Case:
    """One row with its evidence. Texts stand in it as they are: whoever shows them makes them harmless.

    Attributes:
        row: id of the sample or object, and the position of the text that is in question.
        sample: the sample that is shown for it.
        path, media: its file, and what it is (image, video, ...).
        text: the caption that is in question.
        scores: column -> (value, share of the audit's rows with a lower value).
        said: action, reason, suggestion, ... where there are any.
        flags: kinds.
        words: the caption's words that fit least, first.
        neighbors: {"near", "other", "voters": [{"id", "caption", "agreement", "path"}]}: who disagrees.
        decision: what was decided, or None.
    """

    row: Row
    sample: str
    path: str
    media: str
    text: str
    scores: Mapping[str, tuple[float, float]]
    said: Mapping[str, str]
    flags: tuple[str, ...]
    words: tuple[str, ...] = ()
    neighbors: tuple[Mapping[str, Any], ...] = ()
    decision: Decision | None = None


def case_of(dataset: SampleCollection, run: str, row: Row, decision: Decision | None = None) -> Case:
    """All that is shown of a row.

    Raises:
        AuditError: no such audit, or the row is gone.
    """
    root, (name, caption) = dataset._root_dataset, row
    subject = subjects_of_rows(root, run, [name], media=False).get(name)
    if subject is None:
        raise AuditError(f"sample {name} is not in dataset {root.name!r} any more; go to the next one")
    shown, record = every_sample(root)[subject.sample], _record(root, run, row)
    told = _results(shown, run, audit_info(root, run), name)
    return Case(
        row,
        subject.sample,
        str(shown.filepath),
        str(shown.media_type),
        subject.content.text(caption) or "",
        standing(root, run, name),
        {said: str(word) for said in TEXTS if (word := _of_caption(told, said, caption))},
        tuple(kind for kind in FLAG_KINDS if told.get(f"is_{kind}")),
        _misfits(record),
        tuple(_neighbors(root, run, record)),
        decision,
    )


def open_row(dataset: SampleCollection, run: str, queue: ReviewQueue, sample: str) -> Row:
    """The row to show for a sample that is open in the App: the queue's, of an audit of objects its worst object's.

    A sample that nothing was found of is shown too, with its first or worst text.

    Raises:
        AuditError: no object of the sample is in the queue.
    """
    root, record = dataset._root_dataset, audit_info(dataset, run)
    if record.label_field:
        labels = images_of(root).select(sample).values(f"{root_of(record.label_field)}.id", unwind=True)
        found = next((row for row in map(queue.row_of, [sample, *labels]) if row is not None), None)
        if found is None:
            raise AuditError("nothing was found of the objects of this sample; open another one")
        return found
    subject = subjects_of_rows(root, run, [sample], media=False).get(sample)
    name = subject.sample if subject else sample  # of a group, the sample that stands for it
    return queue.row_of(name) or (name, _index(root, run, name))


def sample_of(dataset: SampleCollection, run: str, row: Row) -> str:
    """Id of the sample that is shown for a row: of an object the one that holds it.

    Raises:
        AuditError: it is gone.
    """
    found = subjects_of_rows(dataset._root_dataset, run, [row[0]], media=False).get(row[0])
    if found is None:
        raise AuditError(f"sample {row[0]} is not in the dataset any more; go to the next one")
    return found.sample


def decision_counts(dataset: SampleCollection) -> dict[str, int]:
    """Kind of decision -> how many captions or objects it holds for."""
    kinds = [decision.kind for decision in resolved(dataset).current.values()]
    return {kind: kinds.count(kind) for kind in ("keep", "remove", "relabel", "unsure", "skip") if kind in kinds}


def _results(shown: fo.Sample, run: str, record: AuditRunConfig, name: str) -> dict[str, Any]:
    """Column -> value that an audit wrote on a sample, or on one of its objects."""
    bearer: Any = shown
    if record.label_field:
        labels = shown[record.label_field].detections if shown[record.label_field] else []
        bearer = next(label for label in labels if label.id == name)
    columns = (path.rpartition(f"{run}_")[2] for path in record.fields)
    return {name: bearer[f"{run}_{name}"] for name in columns if bearer.has_field(f"{run}_{name}")}


def _of_caption(told: Mapping[str, Any], column: str, caption: int) -> Any:
    """A text of `_results` for one caption: where nothing is told of each, the worst caption's is not the others'."""
    if (texts := told.get(f"{column}{LIST}")) is not None:
        return texts[caption] if caption < len(texts) else None
    return told.get(column) if caption == max(0, told.get(INDEX) or 0) else None


def _index(root: fo.Dataset, run: str, name: str) -> int:
    """Position of a sample's worst text."""
    field = f"{run}_{INDEX}"
    return max(0, every_sample(root)[name][field] or 0) if root.has_sample_field(field) else 0


def _record(root: fo.Dataset, run: str, row: Row) -> dict[str, Any]:
    """What explains the row's text, or else its worst one; {} where the row was not explained."""
    records = explained(root, run, row[0])
    own = [found for found in records if int(found.get(INDEX) or 0) == row[1]]
    return max(own or records, key=lambda found: found.get("misalignment") or float("-inf"), default={})


def _misfits(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The words without which the caption fits better; what clings to them as punctuation is left out."""
    found = [word["text"].strip(punctuation) for word in record.get("words") or () if (word.get("gain") or 0) > 0]
    return tuple(word for word in dict.fromkeys(found) if word)[:WORDS]


def _neighbors(root: fo.Dataset, run: str, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The voters that disagree most, with the files to show."""
    sides = [{**side, "voters": side["voters"][:NEIGHBORS]} for side in record.get("neighbors") or ()]
    paths = _paths(root, run, [voter["id"] for side in sides for voter in side["voters"]])
    return [{**side, "voters": [{**v, "path": paths.get(v["id"], "")} for v in side["voters"]]} for side in sides]


def _paths(root: fo.Dataset, run: str, rows: list[str]) -> dict[str, str]:
    """Row id -> the file to show."""
    label_field = audit_info(root, run).label_field
    if not rows or not label_field:
        return dict(zip(*every_sample(root).select(rows).values(["id", "filepath"]), strict=True)) if rows else {}
    view = images_of(root).select_labels(ids=rows, fields=label_field)
    files, labels = view.values(["filepath", f"{root_of(label_field)}.id"])
    return {label: path for path, found in zip(files, labels, strict=True) for label in found or ()}
