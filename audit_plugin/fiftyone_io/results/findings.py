"""What a panel reads of an audit: counts, scores of all rows, histograms, points, views by a rule.

Views are made from rules on fields, never from lists of ids, so that they stay small whatever the dataset's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.config import FLAG_KINDS
from audit_plugin.fiftyone_io.read.contents import find_by_ids
from audit_plugin.fiftyone_io.read.items import images_of, objects_where
from audit_plugin.fiftyone_io.runs import audit_info, list_audits
from audit_plugin.scoring.flags import FLAGS

from .tables import path_of, read_columns, read_fact, read_flagged
from .views import places_of

SCORE_OF = {kind: flag.score for kind, flag in FLAGS.items() if flag.tail and flag.score}
MAP = ("map_x", "map_y")
SCORES = ("misalignment", "multimem", "outlier", "duplicate", "alignment", "clip_score")
BINS = 40
MOST_POINTS = 3_000

_summaries: dict[Any, tuple[Any, dict[str, Any]]] = {}  # by dataset and run: (what tells it from an older one, it)


@dataclass(frozen=True)
class Card:
    """What is told of one kind of finding.

    Attributes:
        kind: of `FLAG_KINDS`.
        count: rows with the flag.
        score: the column that a threshold can be set on; "" where there is none.
        low, high: what thresholds make sense: from the score's median to its highest value.
        threshold: the lowest flagged score; `high` where nothing is flagged.
        kept: whether a person set the threshold (`set_threshold`).
        false_positive_rate: how many of the flagged are expected to be fine, by the audit's model; None: not told.
    """

    kind: str
    count: int
    score: str = ""
    low: float = 0.0
    high: float = 0.0
    threshold: float = 0.0
    kept: bool = False
    false_positive_rate: float | None = None


def audits_newest_first(dataset: SampleCollection) -> list[str]:
    """Keys of the audits of a dataset, the newest first."""
    root = dataset._root_dataset
    return sorted(list_audits(root), key=lambda run: root.get_run_info(run).timestamp, reverse=True)


def audit_summary(dataset: SampleCollection, run: str) -> dict[str, Any]:
    """The summary of an audit: counts, reliability, attribution, what the model says of wrong pairs, versions.

    Raises:
        AuditError: no such audit.
    """
    root = dataset._root_dataset
    audit_info(root, run)
    # whoever adds to the results (`scan_new`) writes them anew, under another id; the run keeps its time
    key, stamp = (root._doc.id, run), root._doc.runs[run].results.grid_id
    if _summaries.get(key, (None, {}))[0] != stamp:
        found = root.load_run_results(run, cache=False, load_view=False)
        _summaries[key] = stamp, dict(getattr(found, "summary", None) or {})
    return dict(_summaries[key][1])


def cards(dataset: SampleCollection, run: str) -> list[Card]:
    """A card for each kind that the audit looked for, in the order of `FLAG_KINDS`.

    Raises:
        AuditError: no such audit, or the database was lost.
    """
    scores = [name for name in (*SCORE_OF.values(), "probability") if has_column(dataset, run, name)]
    read_columns(dataset, run, tuple(scores))  # all at once: one pass of the database
    flagged, kept = read_flagged(dataset, run), getattr(audit_info(dataset, run), "thresholds", None) or {}
    kinds = [kind for kind in FLAG_KINDS if has_column(dataset, run, f"is_{kind}")]
    return [_card(dataset, run, kind, flagged, kept) for kind in kinds]


def count_above(dataset: SampleCollection, run: str, kind: str, threshold: float) -> int:
    """How many rows a threshold would flag."""
    return int((_score(dataset, run, kind) >= threshold).sum())  # NaN is never above


def false_positive_rate_above(dataset: SampleCollection, run: str, kind: str, threshold: float) -> float | None:
    """How many of the rows that a threshold would flag are expected to be fine.

    Of wrong pairs, the sum of the model's probabilities that they are right; of other kinds nobody knows what is
    right, and the rate at which the audit let clean rows be flagged is told elsewhere: None.
    """
    if kind != "misaligned" or not has_column(dataset, run, "probability"):
        return None
    chosen = _score(dataset, run, kind) >= threshold
    return float(np.nansum(1 - read_columns(dataset, run, ("probability",))["probability"][chosen]))


def histogram(dataset: SampleCollection, run: str, column: str, bins: int = BINS) -> tuple[Floats, Floats]:
    """Counts `[bins]` and edges `[bins + 1]` of a score; empty where nothing was scored."""
    values = read_columns(dataset, run, (column,))[column]
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(0), np.zeros(0)
    counts, edges = np.histogram(known, bins=bins)
    return counts.astype(float), edges


def points(
    dataset: SampleCollection, run: str, columns: tuple[str, ...], most: int = MOST_POINTS, seed: int = 0
) -> dict[str, Any]:
    """Ids and values of at most `most` rows, drawn by a seed from those that have the first two of the columns.

    Returns:
        {"ids": list of `[k]` ids of rows, "total": rows they were drawn from, column: values `[k]`, ...}.
    """
    found = read_columns(dataset, run, ("id", *columns))
    known = np.flatnonzero(np.isfinite(found[columns[0]]) & np.isfinite(found[columns[1]]))
    drawn = known
    if len(known) > most:
        drawn = np.sort(np.random.default_rng(seed).choice(known, most, replace=False))
    ids = [str(name) for name in found["id"][drawn]]
    return {"ids": ids, "total": len(known), **{name: found[name][drawn] for name in columns}}


def flagged_as(dataset: SampleCollection, run: str, kind: str) -> fo.DatasetView:
    """The rows with a flag, the highest score first where the kind has one."""
    return _where(dataset, run, lambda place: F(f"{place}{run}_is_{kind}") == True, SCORE_OF.get(kind, ""))  # noqa: E712


def scored_above(dataset: SampleCollection, run: str, kind: str, threshold: float) -> fo.DatasetView:
    """The rows that a threshold would flag, the highest score first."""
    column = SCORE_OF[kind]
    return _where(dataset, run, lambda place: F(f"{place}{run}_{column}") >= threshold, column)


def scored_between(dataset: SampleCollection, run: str, column: str, low: float, high: float) -> fo.DatasetView:
    """The rows whose score lies in [low, high], the highest first."""

    def inside(place: str) -> Any:
        return (F(f"{place}{run}_{column}") >= low) & (F(f"{place}{run}_{column}") <= high)

    return _where(dataset, run, inside, column)


def chosen_rows(dataset: SampleCollection, run: str, ids: list[str]) -> fo.DatasetView:
    """The rows with these ids, at most `MOST_POINTS`.

    Raises:
        AuditError: more ids than a view can bear.
    """
    if len(ids) > MOST_POINTS:
        raise AuditError(f"{len(ids):,} rows are too many to be listed one by one; choose at most {MOST_POINTS:,}")
    root = dataset._root_dataset
    record = audit_info(root, run)
    if record.label_field:
        return images_of(root).select_labels(ids=ids, fields=record.label_field).to_patches(record.label_field)
    return root.select_groups(_groups_of(root, ids)) if record.slices else root.select(ids)


def new_rows(dataset: SampleCollection, run: str) -> fo.DatasetView:
    """The samples (groups, objects) that came after the audit: those without its results."""
    root = dataset._root_dataset
    record = audit_info(root, run)
    if record.label_field:
        return objects_where(root, record.label_field, ~F(f"{run}_action").exists())
    there = [F(f"{place}{run}_action").exists() for place in places_of(root, record.slices)]
    return root.match(~F.any(there))


def count_new(dataset: SampleCollection, run: str) -> int:
    """How many rows `new_rows` has."""
    root = dataset._root_dataset
    record = audit_info(root, run)

    def count() -> int:
        if record.label_field or record.slices:
            return int(new_rows(root, run).count())
        return int(root._sample_collection.count_documents({f"{run}_action": None}))

    return int(read_fact(root, run, "new", count))


def has_column(dataset: SampleCollection, run: str, column: str) -> bool:
    """Whether the audit wrote the column: those without any value are left out."""
    record = audit_info(dataset, run)
    return path_of(record, run, column) in record.fields


def standing(dataset: SampleCollection, run: str, row: str) -> dict[str, tuple[float, float]]:
    """How the scores of a row stand among all rows.

    Returns:
        Score -> (value, share of the scored rows that have a lower one), of `SCORES` where the row has one.

    Raises:
        AuditError: no such audit, or the database was lost.
    """
    root = dataset._root_dataset
    record = audit_info(root, run)
    names = tuple(name for name in SCORES if has_column(root, run, name))
    whole = read_columns(root, run, ("id", *names) if record.label_field or record.slices else names)
    if "id" in whole:
        at = np.flatnonzero(whole["id"] == row)
        own = {name: float(whole[name][at[0]]) for name in names if len(at)}
    else:  # of a sample its own fields are read, not the ids of all
        shown = {f"{run}_{name}": 1 for name in names}
        found: dict[str, Any] = next(find_by_ids(root._sample_collection, [row], shown), {})
        own = {name: float(found[path]) for name, path in zip(names, shown, strict=True) if found.get(path) is not None}
    shares = {name: (whole[name] < value).sum() / max(np.isfinite(whole[name]).sum(), 1) for name, value in own.items()}
    return {name: (value, float(shares[name])) for name, value in own.items() if np.isfinite(value)}


def _card(
    dataset: SampleCollection, run: str, kind: str, flagged: Mapping[str, Any], kept: Mapping[str, float]
) -> Card:
    rows = flagged[f"is_{kind}"]
    count, score = int(rows.sum()), SCORE_OF.get(kind, "")
    if not score or not has_column(dataset, run, score):
        return Card(kind, count)
    values = _score(dataset, run, kind)
    known, theirs = values[np.isfinite(values)], flagged[score][rows]
    if not len(known):
        return Card(kind, count)
    low, high = float(np.median(known)), float(known.max())
    beyond = high + 0.01 * ((high - low) or 1)  # nothing is flagged: a threshold that nothing reaches
    own = float(np.nanmin(theirs)) if np.isfinite(theirs).any() else beyond
    cut, high = float(kept.get(kind, own)), max(high, own)
    return Card(
        kind, count, score, min(low, cut), high, cut, kind in kept, false_positive_rate_above(dataset, run, kind, cut)
    )


def _score(dataset: SampleCollection, run: str, kind: str) -> Floats:
    values: Floats = read_columns(dataset, run, (SCORE_OF[kind],))[SCORE_OF[kind]]
    return values


def _where(dataset: SampleCollection, run: str, rule: Any, order: str) -> fo.DatasetView:
    """`rule(place)` is a condition on what stands before a field's name: see `places_of`."""
    root = dataset._root_dataset
    record = audit_info(root, run)
    field = record.label_field
    sort = order if order and has_column(root, run, order) else ""
    if field:
        view = objects_where(root, field, rule(""))
        return view.sort_by(f"{field}.{run}_{sort}", reverse=True) if sort else view
    places = places_of(root, record.slices)
    view = root.match(F.any([rule(place) for place in places]))
    return view.sort_by(f"{places[0]}{run}_{sort}", reverse=True) if sort else view


def _groups_of(root: fo.Dataset, ids: list[str]) -> list[str]:
    flat = root.select_group_slices(_allow_mixed=True).select(ids)
    return list(dict.fromkeys(flat.values(f"{root.group_field}.id")))
