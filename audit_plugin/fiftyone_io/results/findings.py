"""What a panel shows of an audit: counts, histograms, points, the rank of a row's scores, and views of rows.

Views are made from rules on fields, never from lists of ids, so that they stay small whatever the dataset's size. All
functions raise `AuditError` where the dataset has no such audit, or the database was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.config import NO_TEXT
from audit_plugin.fiftyone_io.database import database
from audit_plugin.fiftyone_io.ledger.spot_checks import spot_check
from audit_plugin.fiftyone_io.read.contents import items_of_rows
from audit_plugin.fiftyone_io.read.items import AuditedItems, Condition
from audit_plugin.fiftyone_io.read.sources import SLICE
from audit_plugin.fiftyone_io.runs import audit_info, audited_items, settings_of
from audit_plugin.review.flag_quality import Calibration, FlagQuality, quality_of_flags
from audit_plugin.review.queue import TO_DO, Row
from audit_plugin.review.spot_check import SpotEstimate
from audit_plugin.scoring.columns import CAPTION_INDEX
from audit_plugin.scoring.flags import FLAGS, movable_flags
from audit_plugin.scoring.memorized import EXPLAINED_BY, memorized_lists
from audit_plugin.scoring.scores import SCORES

from .tables import (
    audit_summary,
    flag_columns,
    read_columns,
    read_fact,
    read_flagged,
    read_row,
    read_rows,
    value_of_text,
    worst_text,
)

MAP = ("map_x", "map_y")
BINS = 40
MOST_POINTS = 3_000
MOST_MEMORIZED = 50


@dataclass(frozen=True)
class Card:
    """What a panel shows of one kind of finding, and the range of useful thresholds: from its median score up."""

    kind: str  # of `FLAGS`
    count: int  # rows with the flag
    score: str = ""  # the column that a threshold can be set on; "" where there is none
    low: float = 0.0
    high: float = 0.0
    threshold: float = 0.0  # the lowest flagged score; `high` where nothing is flagged
    set_by_person: bool = False  # by `set_threshold`


def cards(dataset: SampleCollection, run: str) -> list[Card]:
    """A card for each kind that the audit looked for, in the order of `FLAGS`."""
    items = audited_items(dataset, run)
    columns = [*movable_flags().values(), "probability"]
    read_columns(dataset, run, [*filter(items.has, columns)])  # in one pass
    flagged = read_flagged(dataset, run)
    thresholds = getattr(audit_info(dataset, run), "thresholds", None) or {}
    return [_card(items, kind, flagged, thresholds) for kind in FLAGS if items.has(f"is_{kind}")]


def _card(items: AuditedItems, kind: str, flagged: Mapping[str, Any], thresholds: Mapping[str, float]) -> Card:
    rows = flagged[f"is_{kind}"]
    count, score = int(rows.sum()), movable_flags().get(kind, "")
    values = read_columns(items.dataset, items.run, [score])[score] if score and items.has(score) else np.zeros(0)
    finite, of_flagged = values[np.isfinite(values)], flagged[score][rows] if score else np.zeros(0)
    if not len(finite):
        return Card(kind, count)
    low, high = float(np.median(finite)), float(finite.max())
    unreached = high + 0.01 * ((high - low) or 1)  # where nothing is flagged: a threshold that no score reaches
    own = float(np.nanmin(of_flagged)) if np.isfinite(of_flagged).any() else unreached
    cut = float(thresholds.get(kind, own))
    return Card(kind, count, score, min(low, cut), max(high, own), cut, kind in thresholds)


def count_above(dataset: SampleCollection, run: str, kind: str, threshold: float) -> int:
    """How many rows a threshold would flag."""
    score = movable_flags()[kind]
    return int((read_columns(dataset, run, [score])[score] >= threshold).sum())  # NaN is never above


def flag_quality(dataset: SampleCollection, run: str, threshold: float | None = None) -> FlagQuality:
    """What is known of the misaligned flags as they are, or as a `threshold` would make them."""
    root = dataset._root_dataset
    record = audit_info(root, run)
    own = (getattr(record, "thresholds", None) or {}).get("misaligned")
    is_own = threshold is None and own is None
    columns = read_columns(root, run, ["misalignment", "is_misaligned"])
    scores = columns["misalignment"]
    flagged = columns["is_misaligned"] if threshold is None else scores >= threshold
    calibration = calibration_of(record, threshold)
    spot = spot_estimate(root, run)
    return quality_of_flags(audit_summary(root, run), scores, flagged, spot, is_own, calibration)


def calibration_of(record: Any, threshold: float | None = None) -> Calibration | None:
    """What labels say of a `threshold` of misaligned pairs, by default that which was set; None where they do not.

    `record`: of the audit.
    """
    stored, own = getattr(record, "calibration", None), (getattr(record, "thresholds", None) or {}).get("misaligned")
    if not stored:
        return None
    calibration = Calibration(**stored)
    return calibration if calibration.threshold == (own if threshold is None else threshold) else None


def spot_estimate(dataset: SampleCollection, run: str) -> SpotEstimate | None:
    """Of the latest spot check of an audit; None before its first verdict."""
    try:
        check = spot_check(dataset, run)
    except AuditError:  # none was started
        return None
    return check.estimate() if any(check.plan_verdicts) else None


def histogram(dataset: SampleCollection, run: str, column: str, bins: int = BINS) -> tuple[Floats, Floats]:
    """Counts `[bins]` and edges `[bins + 1]` of a score; empty where nothing was scored."""
    values = read_columns(dataset, run, [column])[column]
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros(0), np.zeros(0)
    counts, edges = np.histogram(finite, bins=bins)
    return counts.astype(float), edges


def points(dataset: SampleCollection, run: str, columns: tuple[str, ...], most: int = MOST_POINTS) -> dict[str, Any]:
    """Ids and values of at most `most` rows, drawn at random from those that have the first two of the columns.

    Returns:
        {"ids": list of `[k]` ids of rows, "total": rows they were drawn from, column: values `[k]`, ...}.
    """
    table = read_columns(dataset, run, ["id", *columns])
    rows = np.flatnonzero(np.isfinite(table[columns[0]]) & np.isfinite(table[columns[1]]))
    total = len(rows)
    if total > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    return {"ids": table["id"][rows].tolist(), "total": total, **{name: table[name][rows] for name in columns}}


def texts_of_rows(dataset: SampleCollection, run: str, ids: Sequence[str]) -> list[str]:
    """The text of each row, of a list the worst one; "" where it has none, or is gone."""
    audited = audited_items(dataset, run)
    values = read_rows(audited, ids, [CAPTION_INDEX]) if audited.has(CAPTION_INDEX) else {}
    with database(f"reading audit {run!r}"):
        items = items_of_rows(audited.dataset, run, list(ids), media=False)
    worst = {name: worst_text(of_row) for name, of_row in values.items()}
    return [(items[name].content.text(worst.get(name, 0)) or "") if name in items else "" for name in ids]


def row_of(dataset: SampleCollection, run: str, name: str) -> Row:
    """The row of a sample or object: of a list of texts that of the worst one."""
    return name, worst_text(read_row(audited_items(dataset, run), name))


def has_column(dataset: SampleCollection, run: str, column: str) -> bool:
    """Whether the audit wrote the column: those without any value are left out."""
    return audited_items(dataset, run).has(column)


def is_of_lists(dataset: SampleCollection, run: str) -> bool:
    """Whether samples have lists of texts, so that a queue counts texts where a card counts samples."""
    return audited_items(dataset, run).has(CAPTION_INDEX)


def score_ranks(dataset: SampleCollection, run: str, row: Row) -> dict[str, tuple[float, float]]:
    """Score -> (value, share of the audit's samples with a lower one), of `SCORES` where the row has one.

    Of a list, scores that are not stored text by text are those of its worst text, and of the media.
    """
    items = audited_items(dataset, run)
    names = [name for name in SCORES if items.has(name)]
    columns, own = read_columns(dataset, run, names), read_row(items, row[0])
    ranks = {}
    for name in names:
        value = value_of_text(own, name, row[1])
        if value is not None and np.isfinite(value):
            scored = np.isfinite(columns[name]).sum()
            ranks[name] = (float(value), float((columns[name] < value).sum() / max(scored, 1)))
    return ranks


# --- views --------------------------------------------------------------------------------------------------------


def flagged_view(dataset: SampleCollection, run: str) -> fo.DatasetView:
    """The samples with any flag of the run, or with anything proposed but to keep them; most misaligned first.

    Of a grouped dataset: the groups with such a sample. Of an audit of objects: the patches of such objects.
    """
    return flagged_rows(audited_items(dataset, run))


def flagged_rows(items: AuditedItems) -> fo.DatasetView:
    """`flagged_view` of an audit that may still be written."""
    flags = [flag for flag in flag_columns() if items.has(flag)]

    def marked(column: Any) -> Any:
        return F.any([*(column(flag) == True for flag in flags), column("action").is_in(list(TO_DO))])  # noqa: E712

    return items.where(marked, "misalignment")


def flagged_as(dataset: SampleCollection, run: str, kind: str) -> fo.DatasetView:
    """The rows with a flag, the highest score first where the kind has one.

    Memorized rows that another flag explains come last (`scoring.memorized`).
    """
    items = audited_items(dataset, run)
    last = _explained(items) if kind == "memorized" else None
    return items.where(lambda column: column(f"is_{kind}") == True, movable_flags().get(kind, ""), last)  # noqa: E712 (a query)


def memorized_counts(dataset: SampleCollection, run: str) -> dict[str, int]:
    """List of memorized rows (`scoring.memorized.ADVICE`) -> how many rows it has."""
    return {name: len(rows) for name, rows in memorized_lists(read_flagged(dataset, run)).items()}


def most_memorized(dataset: SampleCollection, run: str) -> fo.DatasetView:
    """The `MOST_MEMORIZED` rows with the highest MultiMem, flagged or not, first those that no other flag explains."""
    items = audited_items(dataset, run)
    if not items.has("multimem"):
        raise AuditError(f"audit {run!r} has no MultiMem: nothing was trained; audit at least 32 samples")
    return items.where(lambda column: column("multimem").exists(), "multimem", _explained(items)).limit(MOST_MEMORIZED)


def most_misaligned(dataset: SampleCollection, run: str, count: int) -> fo.DatasetView:
    """The `count` rows with the highest misalignment, flagged or not."""
    return (
        audited_items(dataset, run).where(lambda column: column("misalignment").exists(), "misalignment").limit(count)
    )


def shown_fields(dataset: SampleCollection, run: str, kind: str = "misaligned") -> list[str]:
    """Fields that show on a sample why it has a flag: its caption, the score or else the reason, and the suggestion.

    Of an audit of objects, the field of the objects, which shows their attributes.
    """
    items = audited_items(dataset, run)
    if items.label_field:
        return [items.label_field]
    text = settings_of(audit_info(dataset, run)).text
    caption = text.removeprefix(SLICE).partition(".")[2] if text.startswith(SLICE) else text
    caption = "" if text == NO_TEXT else caption
    columns = [movable_flags().get(kind) or "reason", "suggestion"]
    return [*filter(None, [caption]), *(items.path(column) for column in columns if items.has(column))]


def _explained(items: AuditedItems) -> Condition | None:
    """The condition of `scoring.memorized.is_explained` in the database; None where the audit has no such flag."""
    flags = [f"is_{kind}" for kind in EXPLAINED_BY if items.has(f"is_{kind}")]
    if not flags:
        return None
    return lambda column: F.any([column(flag) == True for flag in flags])  # noqa: E712 (a query)


def scored_above(dataset: SampleCollection, run: str, kind: str, threshold: float) -> fo.DatasetView:
    """The rows that a threshold would flag, the highest score first."""
    return scored_between(dataset, run, movable_flags()[kind], threshold)


def scored_between(
    dataset: SampleCollection, run: str, score: str, low: float, high: float | None = None
) -> fo.DatasetView:
    """The rows whose score lies in [low, high], the highest first."""

    def inside(column: Any) -> Any:
        return column(score) >= low if high is None else (column(score) >= low) & (column(score) <= high)

    return audited_items(dataset, run).where(inside, score)


def view_of_rows(dataset: SampleCollection, run: str, ids: list[str]) -> fo.DatasetView:
    """The rows with these ids, at most `MOST_POINTS`, the most misaligned first.

    Raises:
        AuditError: more ids than a view should list.
    """
    if len(ids) > MOST_POINTS:
        raise AuditError(f"{len(ids):,} rows are too many to be listed one by one; choose at most {MOST_POINTS:,}")
    return audited_items(dataset, run).select(ids, "misalignment")


def count_new(dataset: SampleCollection, run: str) -> int:
    """How many samples (groups, objects) came after the audit."""
    items = audited_items(dataset, run)

    def count() -> int:
        if not items.are_samples:
            return int(items.without_results().count())
        return int(items.dataset._sample_collection.count_documents({f"{run}_action": None}))

    return int(read_fact(dataset, run, "new", count))
