"""What a panel reads of an audit: counts, scores of all rows, histograms, points, views by a rule.

Columns are read once per state of the dataset and kept: a slider asks for them many times a second. Views are made from
rules on fields, never from lists of ids, so that they stay small whatever the dataset's size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.config import FLAG_KINDS

from .objects import images_of, objects_where, root_of
from .runs import AuditRunConfig, audit_info, database, list_audits
from .views import places_of

SCORE_OF = {"misaligned": "misalignment", "memorized": "multimem", "outlier": "outlier"}
MAP = ("map_x", "map_y")
KEPT = 48  # readings
BINS = 40
MOST_POINTS = 3_000

_readings: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
_lock = Lock()


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
        false_alarms: how many of the flagged are expected to be fine, by the audit's model; None: not told.
    """

    kind: str
    count: int
    score: str = ""
    low: float = 0.0
    high: float = 0.0
    threshold: float = 0.0
    kept: bool = False
    false_alarms: float | None = None


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

    def read() -> dict[str, Any]:
        found = root.load_run_results(run, cache=False, load_view=False)
        return dict(getattr(found, "summary", None) or {})

    return dict(_kept(("summary", root._doc.id, run, root.get_run_info(run).timestamp), read))


def cards(dataset: SampleCollection, run: str) -> list[Card]:
    """A card for each kind that the audit looked for, in the order of `FLAG_KINDS`.

    Raises:
        AuditError: no such audit, or the database was lost.
    """
    kinds = [kind for kind in FLAG_KINDS if has_column(dataset, run, f"is_{kind}")]
    scores = [SCORE_OF[kind] for kind in SCORE_OF if has_column(dataset, run, SCORE_OF[kind])]
    read_columns(dataset, run, (*(f"is_{kind}" for kind in kinds), *scores))  # all at once: one pass of the database
    kept = getattr(audit_info(dataset, run), "thresholds", None) or {}
    return [_card(dataset, run, kind, kept) for kind in kinds]


def count_above(dataset: SampleCollection, run: str, kind: str, threshold: float) -> int:
    """How many rows a threshold would flag."""
    return int((_score(dataset, run, kind) >= threshold).sum())  # NaN is never above


def false_alarms_above(dataset: SampleCollection, run: str, kind: str, threshold: float) -> float | None:
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
    return int(_kept((*_state(root, run), "new"), lambda: new_rows(root, run).count()))


def has_column(dataset: SampleCollection, run: str, column: str) -> bool:
    """Whether the audit wrote the column: those without any value are left out."""
    record = audit_info(dataset, run)
    return _path(record, run, column) in record.fields


def read_columns(dataset: SampleCollection, run: str, columns: tuple[str, ...]) -> dict[str, Any]:
    """Columns of an audit over all its rows, in the dataset's order; kept until the dataset changes.

    Args:
        dataset: the dataset or a view of it.
        run: key of the audit.
        columns: columns that the audit wrote, or "id".

    Returns:
        Column -> `[n]`: scores float64 with NaN where not scored, flags bool, anything else object. A group is one row.

    Raises:
        AuditError: no such audit or column, or the database was lost.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r} of dataset {root.name!r}"):
        state = _state(root, run)
        with _lock:
            out = {name: _readings[(*state, name)] for name in columns if (*state, name) in _readings}
        missing = [name for name in columns if name not in out]
        out |= _read(root, run, missing) if missing else {}
    with _lock:
        for name, values in out.items():
            _keep((*state, name), values)
    return out


def _card(dataset: SampleCollection, run: str, kind: str, kept: Mapping[str, float]) -> Card:
    flagged = read_columns(dataset, run, (f"is_{kind}",))[f"is_{kind}"]
    count, score = int(flagged.sum()), SCORE_OF.get(kind, "")
    if not score or not has_column(dataset, run, score):
        return Card(kind, count)
    values = _score(dataset, run, kind)
    known = values[np.isfinite(values)]
    if not len(known):
        return Card(kind, count)
    low, high = float(np.median(known)), float(known.max())
    own = float(np.nanmin(values[flagged])) if np.isfinite(values[flagged]).any() else high
    cut = float(kept.get(kind, own))
    return Card(kind, count, score, min(low, cut), high, cut, kind in kept, false_alarms_above(dataset, run, kind, cut))


def _score(dataset: SampleCollection, run: str, kind: str) -> Floats:
    values: Floats = read_columns(dataset, run, (SCORE_OF[kind],))[SCORE_OF[kind]]
    return values


def _read(root: fo.Dataset, run: str, columns: list[str]) -> dict[str, Any]:
    record = audit_info(root, run)
    lacking = [name for name in columns if name != "id" and _path(record, run, name) not in record.fields]
    if lacking:
        raise AuditError(f"audit {run!r} of dataset {root.name!r} has no column {lacking[0]!r}; run it again")
    if record.label_field:
        base = root_of(record.label_field)
        paths = [f"{base}.id" if name == "id" else _path(record, run, name) for name in ("action", *columns)]
        found = images_of(root).values(paths, unwind=True)
    elif record.slices:
        paths = ["id" if name == "id" else f"{run}_{name}" for name in ("action", *columns)]
        flat = root.select_group_slices(record.slices, _allow_mixed=True)
        groups, *found = flat.values([f"{root.group_field}.id", *paths])
        first = np.unique(np.array(groups, dtype=object).astype(str), return_index=True)[1]
        found = [[values[at] for at in np.sort(first)] for values in found]
    else:
        found = root.values([f"{run}_action", *("id" if name == "id" else f"{run}_{name}" for name in columns)])
    audited = [at for at, action in enumerate(found[0]) if action is not None]
    return {name: _array(name, [values[at] for at in audited]) for name, values in zip(columns, found[1:], strict=True)}


def _array(column: str, values: list[Any]) -> Any:
    if column.startswith("is_"):
        return np.array([value is True for value in values], dtype=bool)
    if all(value is None or isinstance(value, float | int) for value in values):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.array(values, dtype=object)


def _path(record: AuditRunConfig, run: str, column: str) -> str:
    return f"{root_of(record.label_field)}.{run}_{column}" if record.label_field else f"{run}_{column}"


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


def _state(root: fo.Dataset, run: str) -> tuple[Any, ...]:
    """What tells one state of the dataset from another: what was read in the same state need not be read again."""
    samples = root._sample_collection
    newest = samples.find_one({}, {"last_modified_at": 1, "_id": 0}, sort=[("last_modified_at", -1)]) or {}
    changed = newest.get("last_modified_at")
    return root._doc.id, run, root.get_run_info(run).timestamp, changed, samples.estimated_document_count()


def _kept(key: tuple[Any, ...], read: Any) -> Any:
    with _lock:
        if key in _readings:
            _readings.move_to_end(key)
            return _readings[key]
    value = read()
    with _lock:
        _keep(key, value)
    return value


def _keep(key: tuple[Any, ...], value: Any) -> None:
    _readings[key] = value
    _readings.move_to_end(key)
    while len(_readings) > KEPT:
        _readings.popitem(last=False)
