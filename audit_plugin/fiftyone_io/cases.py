"""The queue of a review as the App shows it: which row comes next, and all that is known of one row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError
from audit_plugin.config import FLAG_KINDS
from audit_plugin.review import Decision, Progress, progress, queue

from .contents import Subject, subjects_of_rows
from .decisions import decisions, resolved
from .findings import has_column, read_columns
from .objects import images_of, root_of
from .runs import audit_info, every_sample, explained

SCORES = ("misalignment", "multimem", "outlier", "duplicate", "alignment", "clip_score")
TEXTS = ("action", "reason", "suggestion", "repair", "culprit")
NEIGHBORS, WORDS = 3, 5  # shown: of each side; of a caption


@dataclass(frozen=True)
class Queue:
    """The rows of a review, most suspicious first.

    Attributes:
        rows: ids of all rows, decided or not.
        decided: row id -> the decision that holds.
        progress: how many are decided, and what time they take.
    """

    rows: list[str]
    decided: Mapping[str, Decision]
    progress: Progress

    def next(self, after: str = "") -> str:
        """The next row that is not decided, from the start again at the end; "" where all are."""
        at = self.rows.index(after) + 1 if after in self.rows else 0
        skipped = {row for row, decision in self.decided.items() if decision.kind == "skip"}
        for rows in (self.rows[at:], self.rows[:at]):
            for row in rows:
                if row not in self.decided:
                    return row
        return next((row for row in self.rows if row in skipped and row != after), "")

    def previous(self, before: str) -> str:
        """The row before, decided or not."""
        at = self.rows.index(before) if before in self.rows else 0
        return self.rows[max(at - 1, 0)] if self.rows else ""


@dataclass(frozen=True)
class Case:
    """One row with its evidence. Texts stand in it as they are: whoever shows them makes them harmless.

    Attributes:
        row: its id; sample: the sample that is shown for it.
        path, media: its file, and what it is (image, video, ...).
        text: the caption that is in question, `caption` its position in a list.
        scores: column -> (value, share of the audit's rows with a lower value).
        said: action, reason, suggestion, ... where there are any.
        flags: kinds.
        words: the caption's words that fit least, first.
        neighbors: {"near", "other", "voters": [{"id", "caption", "agreement", "path"}]}: who disagrees.
        decision: what was decided, or None.
    """

    row: str
    sample: str
    path: str
    media: str
    text: str
    caption: int
    scores: Mapping[str, tuple[float, float]]
    said: Mapping[str, str]
    flags: tuple[str, ...]
    words: tuple[str, ...] = ()
    neighbors: tuple[Mapping[str, Any], ...] = ()
    decision: Decision | None = None


def review_queue(dataset: SampleCollection, run: str, kinds: tuple[str, ...] = ()) -> Queue:
    """The queue of an audit, of some kinds of findings or of all.

    Raises:
        AuditError: no such audit, or an unknown kind.
    """
    flags = [f"is_{kind}" for kind in FLAG_KINDS if has_column(dataset, run, f"is_{kind}")]
    scores = [name for name in SCORES[:4] if has_column(dataset, run, name)]
    found = read_columns(dataset, run, ("id", "action", *flags, *scores))
    order = queue({name: values for name, values in found.items() if name != "id"}, kinds)
    rows = [str(name) for name in found["id"][order]]
    standing = resolved(dataset).current
    decided = {key[1] or key[0]: decision for key, decision in standing.items()}
    done = [decided[row] for row in rows if row in decided and decided[row].kind != "skip"]
    told = progress(len(rows), len(done), [decision.seconds for decision in done])
    return Queue(rows, decided, told)


def case_of(dataset: SampleCollection, run: str, row: str, decision: Decision | None = None) -> Case:
    """All that is shown of a row.

    Raises:
        AuditError: no such audit, or the row is gone.
    """
    root = dataset._root_dataset
    subject = subjects_of_rows(root, run, [row], media=False).get(row)
    if subject is None:
        raise AuditError(f"sample {row} is not in dataset {root.name!r} any more; go to the next one")
    scores = {name: value for name in SCORES if (value := _standing(root, run, name, row)) is not None}
    kinds = [kind for kind in FLAG_KINDS if has_column(root, run, f"is_{kind}")]
    flags = tuple(kind for kind in kinds if bool(_value(root, run, f"is_{kind}", row)))
    record, shown = _record(root, run, row), every_sample(root)[subject.sample]
    said = {name: word for name in TEXTS if (word := _word(root, run, name, row, shown))}
    caption = int(record.get("caption_index") or 0)
    return Case(
        row,
        subject.sample,
        str(shown.filepath),
        str(shown.media_type),
        _caption(subject, caption),
        caption,
        scores,
        said,
        flags,
        _misfits(record),
        tuple(_neighbors(root, run, record)),
        decision,
    )


def decision_counts(dataset: SampleCollection) -> dict[str, int]:
    """Kind of decision -> how many captions or objects it holds for."""
    kinds = [decision.kind for decision in resolved(dataset).current.values()]
    return {kind: kinds.count(kind) for kind in ("keep", "remove", "relabel", "unsure", "skip") if kind in kinds}


def last_decided(dataset: SampleCollection) -> str:
    """Row id of the newest entry of the ledger; "" where there is none."""
    found = decisions(dataset)
    return (found[-1].label or found[-1].sample) if found else ""


def _value(root: fo.Dataset, run: str, column: str, row: str) -> Any:
    found = read_columns(root, run, ("id", column))
    at = np.flatnonzero(found["id"] == row)
    return found[column][at[0]] if len(at) else None


def _standing(root: fo.Dataset, run: str, column: str, row: str) -> tuple[float, float] | None:
    if not has_column(root, run, column):
        return None
    value, values = _value(root, run, column, row), read_columns(root, run, (column,))[column]
    if value is None or not np.isfinite(value):
        return None
    return float(value), float((values < value).sum() / max(np.isfinite(values).sum(), 1))


def _word(root: fo.Dataset, run: str, column: str, row: str, shown: fo.Sample) -> str:
    """A text of the row; of a sample its own field is read, not the whole column."""
    if not has_column(root, run, column):
        return ""
    objects = audit_info(root, run).label_field
    return str((_value(root, run, column, row) if objects else shown[f"{run}_{column}"]) or "")


def _caption(subject: Subject, caption: int) -> str:
    texts = subject.content.texts
    return (texts[caption] if caption < len(texts) else None) or ""


def _record(root: fo.Dataset, run: str, row: str) -> dict[str, Any]:
    """The worst caption's record; {} where the row was not explained."""
    records = explained(root, run, row)
    return max(records, key=lambda found: found.get("misalignment") or float("-inf"), default={})


def _misfits(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(word["text"] for word in record.get("words") or () if (word.get("gain") or 0) > 0)[:WORDS]


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
