"""The one reader of an audit's results: columns of all its rows, the flagged rows, single rows, and its summary.

Whole columns stay in memory and are brought up to date by what changed since they were read: a decision changes one
sample, and of a hundred thousand samples only that one is read again. All raise `AuditError` where the dataset has no
such audit, or the database was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError
from audit_plugin.config import current_names
from audit_plugin.fiftyone_io.database import database, dig, documents_by_id
from audit_plugin.fiftyone_io.read.items import AuditedItems
from audit_plugin.fiftyone_io.records import once
from audit_plugin.fiftyone_io.runs import audit_results, audited_items, finished_audit
from audit_plugin.review.queue import TO_DO, action_of_text
from audit_plugin.scoring.columns import CAPTION_INDEX, LIST, LISTED, all_columns
from audit_plugin.scoring.flags import FLAGS

Columns = dict[str, NDArray[Any]]
LISTS = tuple(f"{name}{LIST}" for name in LISTED)
NUMBERS = (fo.FloatField, fo.IntField, fo.BooleanField)
CACHED_AUDITS = 4
MOST_CHANGED = 1_000  # samples that are read one by one; of more, everything is read again
SLACK = timedelta(seconds=10)  # a write may arrive this much later than its own time
MOST_RECENT = 50_000  # samples changed within the slack, whose times are looked at
EARLIEST = datetime.min.replace(tzinfo=UTC)
SETTLED = timedelta(seconds=1)  # since a change, until another one has another time for certain
ROWS, VALUES = 200_000, 800_000  # in one answer of the database, which may hold 16 MB


@dataclass
class CachedTable:
    """What was read of an audit, at a time, in one state of the dataset."""

    state: tuple[Any, ...]
    columns: Columns = field(default_factory=dict)  # whole columns, in the order of the dataset
    flagged: dict[str, Mapping[str, Any]] | None = None  # id -> a row with a flag or a proposal; None: not read yet
    positions: dict[str, int] | None = None  # id -> position in the columns; None: not needed yet
    facts: dict[str, Any] = field(default_factory=dict)  # other results, by name
    lasting: dict[str, Any] = field(default_factory=dict)  # those that follow from the columns alone
    seen: dict[str, datetime | None] = field(default_factory=dict)  # recently changed and read: see `_settled`
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


_tables: dict[tuple[Any, str], CachedTable] = {}
_stored: dict[Any, tuple[Any, dict[str, Any]]] = {}  # by dataset and run: (results file, what of it is asked for)
_lock = RLock()  # two panels that open at the same time read once


def flag_columns() -> list[str]:
    """The columns of all flags."""
    return [f"is_{kind}" for kind in FLAGS]


def flagged_columns() -> list[str]:
    """The columns that are read of flagged rows: scores that rank them, flags, proposals, and lists of these."""
    scores = dict.fromkeys(["misalignment", *(flag.score for flag in FLAGS.values() if flag.score), "probability"])
    return [*scores, "action", "reason", "suggestion", "suggestion_score", *flag_columns(), CAPTION_INDEX, *LISTS]


def read_columns(dataset: SampleCollection, run: str, columns: Sequence[str]) -> Columns:
    """Columns that an audit wrote, or "id", over all its rows in the dataset's order; cached until the dataset changes.

    Returns:
        Column -> read-only `[n]`, as `as_array` makes it. A group is one row.

    Raises:
        AuditError: the audit has no such column.
    """
    items = audited_items(dataset, run)
    root = items.dataset
    missing = [name for name in columns if name != "id" and not items.has(name)]
    if missing:
        raise AuditError(f"audit {run!r} of dataset {root.name!r} has no column {missing[0]!r}; run it again")
    with database(f"reading audit {run!r} of dataset {root.name!r}"), _lock:
        table = _table(items)
        if unread := [name for name in columns if name not in table.columns]:
            read = _read(items, unread)
            if len({len(values) for values in (*table.columns.values(), *read.values())}) > 1:
                table.columns, table.positions = {}, None  # rows came or went between two readings
                read = _read(items, list(columns))
            table.columns |= read
        return {name: table.columns[name] for name in columns}


def read_flagged(dataset: SampleCollection, run: str, flagged: bool = True) -> Columns:
    """The rows with a flag, or a proposal other than to keep them (`flagged`: few, so of samples only they are read).

    Returns:
        "id" and `flagged_columns`, `[f]` each, flagged samples in the order of their ids; False, NaN or "" where the
        audit has no such column.
    """
    items = audited_items(dataset, run)
    if flagged and items.are_samples:
        rows = _flagged_samples(items)
        ids = sorted(rows)
        table = {name: as_array(name, [rows[row].get(name) for row in ids]) for name in flagged_columns()}
        return {"id": as_array("id", ids), **table}
    table = read_columns(dataset, run, ["id", *filter(items.has, flagged_columns())])
    if flagged:
        flags = [values for name, values in table.items() if name in flag_columns()]
        chosen = np.logical_or.reduce([np.isin(table["action"].astype(str), TO_DO), *flags])
        table = {name: values[chosen] for name, values in table.items()}
    n = len(table["id"])
    return {name: table[name] if name in table else as_array(name, [None] * n) for name in ("id", *flagged_columns())}


def read_row(items: AuditedItems, name: str) -> dict[str, Any]:
    """Column -> value of one row, None where it has none; {} for a row that does not exist."""
    return read_rows(items, [name], items.columns).get(name, {})


def worst_text(values: Mapping[str, Any]) -> int:
    """Position of the worst text in the list of a row with these values; 0 where it has one text or none."""
    return max(0, values.get(CAPTION_INDEX) or 0)


def value_of_text(values: Mapping[str, Any], column: str, caption: int) -> Any:
    """A column's value for one text of a row; of a column without lists, the worst text's is not the others'."""
    if (texts := values.get(f"{column}{LIST}")) is None:
        return values.get(column) if caption == worst_text(values) else None
    value = texts[caption] if caption < len(texts) else None
    return action_of_text(value, values.get(column)) if column == "action" else value


def read_rows(items: AuditedItems, ids: Sequence[str], columns: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Row id -> column -> value as it is in the database, of the existing ones of these ids."""
    columns = list(columns)
    holders = {name: samples[0] for name, samples in items.samples(ids).items()} if items.label_field else {}
    projection = {items.path(column): 1 for column in columns} | {"_id": 1}
    if items.label_field:
        projection[f"{items.objects}._id"] = 1
    documents = documents_by_id(items.dataset._sample_collection, set(holders.values()) or ids, projection)
    rows: dict[str, dict[str, Any]] = {}
    for name in ids:
        document: Any = documents.get(holders.get(name, name))
        if document is None:
            continue
        if items.label_field:
            document = next(label for label in dig(document, items.objects) if str(label["_id"]) == name)
        rows[name] = _values(document, items.run, columns)
    return rows


def read_fact(
    dataset: SampleCollection, run: str, name: str, compute: Callable[[], Any], of_columns: bool = False
) -> Any:
    """The result of `compute`, called once per state of the dataset.

    `of_columns`: it follows from the columns of the audit alone, so that decisions and edits do not change it.
    """
    items = audited_items(dataset, run)
    with database(f"reading audit {run!r} of dataset {items.dataset.name!r}"), _lock:
        table = _table(items)
        facts = table.lasting if of_columns else table.facts
        if name not in facts:
            facts[name] = compute()
        return facts[name]


def audit_summary(dataset: SampleCollection, run: str) -> dict[str, Any]:
    """The summary of an audit: counts, reliability, attribution, what the model estimates of wrong pairs, versions."""
    root = dataset._root_dataset
    return dict(_results(root, run)["summary"])


def explanations(samples: SampleCollection, run: str) -> dict[str, list[dict[str, Any]]]:
    """Id of a sample (of objects: a label) -> why it was flagged: a record per flagged caption."""
    return dict(_results(samples._root_dataset, run)["explanations"])


def explained(samples: SampleCollection, run: str, name: str) -> list[dict[str, Any]]:
    """Why a sample (of objects: a label) was flagged by an audit: a record per flagged caption, or none."""
    return list(explanations(samples, run).get(name, []))


def as_array(column: str, values: Sequence[Any]) -> NDArray[Any]:
    """A read-only column.

    Flags are bool, False for None; numbers float64, NaN for None; texts objects, "" for None; the positions of texts
    int64, -1 for None; "id" and lists objects as they are.
    """
    if column.startswith("is_") and not column.endswith(LIST):
        array: NDArray[Any] = np.array([value is True for value in values], dtype=bool)
    elif column == CAPTION_INDEX:
        array = np.array([-1 if value is None else value for value in values], dtype=np.int64)
    elif column.endswith(LIST):
        array = np.empty(len(values), dtype=object)  # lists of one length would become a matrix
        array[:] = values
    elif column == "id" or getattr(all_columns().get(column), "kind", "") == "text":
        array = np.array(["" if value is None else value for value in values], dtype=object)
    else:
        array = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    array.setflags(write=False)
    return array


def _results(root: fo.Dataset, run: str) -> dict[str, Any]:
    """Summary and explanations of an audit, read once for each results file: whoever changes them writes another."""
    finished_audit(root, run)
    key, version = (root._doc.id, run), root._doc.runs[run].results.grid_id
    with _lock:
        if _stored.get(key, (None, {}))[0] != version:
            results = audit_results(root, run)
            values = {name: getattr(results, name, None) or {} for name in ("summary", "explanations")}
            _stored.pop(key, None)
            _stored[key] = version, {**values, "summary": current_names(values["summary"])}
            while len(_stored) > CACHED_AUDITS:
                _stored.pop(next(iter(_stored)))
        return _stored[key][1]


# --- what is cached -----------------------------------------------------------------------------------------------


def _table(items: AuditedItems) -> CachedTable:
    """What was read of an audit, as the dataset is now; the audits read last stay in memory."""
    key = items.dataset._doc.id, items.run
    state = once(("state", *key), lambda: _state(items.dataset, items.run))
    table = _tables.pop(key, None)
    if table is None or (table.state != state and not _update(items, table, state)):
        now = datetime.now(UTC)
        table = CachedTable(state, seen=_settled(_changed_since(items, now - SLACK), now), time=now)
    _tables[key] = table
    while len(_tables) > CACHED_AUDITS:
        _tables.pop(next(iter(_tables)))
    return table


def _state(root: fo.Dataset, run: str) -> tuple[Any, ...]:
    """(the run with its results, number of samples, time of the last change)."""
    samples = root._sample_collection
    newest = samples.find_one({}, {"last_modified_at": 1, "_id": 0}, sort=[("last_modified_at", -1)]) or {}
    # the clocks of those who write may differ: what this tool writes is told by the run's record
    document = root._doc.runs[run]
    version = document.id, document.results.grid_id, document.config.get("status")
    return version, samples.estimated_document_count(), newest.get("last_modified_at")


def _update(items: AuditedItems, table: CachedTable, state: tuple[Any, ...]) -> bool:
    """Bring a table up to a state by reading the samples that changed; False where all must be read again."""
    if not items.are_samples or table.state[1] != state[1] or not (table.state[2] and state[2]):
        return False
    if table.state[0][0] != state[0][0] or (table.state[0] != state[0] and table.state[2] >= state[2]):
        return False  # another audit, or changes by someone whose clock is behind
    columns = list(dict.fromkeys([*flagged_columns(), *(name for name in table.columns if name != "id")]))
    now = datetime.now(UTC)
    # all that was written earlier than this had arrived; the database counts milliseconds
    since = min(_utc(table.state[2]) + timedelta(milliseconds=1), table.time - SLACK)
    recent = _changed_since(items, since)
    if any(created >= since and name not in table.seen for name, (_, created) in recent.items()):
        return False  # as many samples as before may be others: some came, some went
    changed = [name for name, (changed_at, _) in recent.items() if table.seen.get(name) != changed_at]
    if len(changed) > MOST_CHANGED or len(recent) > MOST_RECENT:
        return False
    documents = documents_by_id(items.dataset._sample_collection, changed, _projection(items.run, columns))
    rows = {name: _values(document, items.run, columns) for name, document in documents.items()}
    before = dict(table.columns)
    if table.columns and not _replace(items, table, rows):
        return False
    is_same = all(_is_same(before[name], values) for name, values in table.columns.items())
    if table.flagged is not None:
        for name, row in rows.items():
            former = table.flagged.pop(name, None)
            is_flagged = row["action"] in TO_DO or any(row[flag] is True for flag in flag_columns())
            if is_flagged:
                table.flagged[name] = row
            if former is None or not is_flagged:
                is_same = is_same and former is None and not is_flagged
            else:
                is_same = is_same and all(former.get(column) == row[column] for column in flagged_columns())
    table.state, table.facts, table.time, table.seen = state, {}, now, _settled(recent, now)
    table.lasting = table.lasting if is_same else {}
    return True


def _changed_since(items: AuditedItems, time: datetime) -> dict[str, tuple[datetime, datetime]]:
    """Id -> (when it changed last, when it was made), of up to `MOST_RECENT` + 1 samples changed from `time` on."""
    query = {"last_modified_at": {"$gte": time}}
    fields = {"last_modified_at": 1, "created_at": 1}
    documents = items.dataset._sample_collection.find(query, fields).limit(MOST_RECENT + 1)
    return {
        str(document["_id"]): (_utc(document["last_modified_at"]), _utc(document.get("created_at")))
        for document in documents
    }


def _settled(changed: Mapping[str, tuple[datetime, datetime]], now: datetime) -> dict[str, datetime | None]:
    """`_changed_since` with None for the time of a change so recent that a later one might have the same."""
    return {name: time if time < now - SETTLED else None for name, (time, _) in changed.items()}


def _utc(time: Any) -> datetime:
    """A time as the database gives it: without its zone, or in the zone of FiftyOne's settings; long ago if none."""
    if not isinstance(time, datetime):
        return EARLIEST
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _is_same(before: NDArray[Any], after: NDArray[Any]) -> bool:
    """Whether a column has the values that it had; lists are compared as they are."""
    return before is after or bool(np.array_equal(before, after, equal_nan=before.dtype.kind == "f"))


def _replace(items: AuditedItems, table: CachedTable, rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Put the values of samples into whole columns; False if a sample became a row of the audit, or is none now."""
    if table.positions is None:
        ids = table.columns["id"] if "id" in table.columns else _read_samples(items, ["id"])["id"]
        if any(len(values) != len(ids) for values in table.columns.values()):
            return False
        table.positions = {name: position for position, name in enumerate(ids)}
    if any((row["action"] is not None) != (name in table.positions) for name, row in rows.items()):
        return False
    changed = {table.positions[name]: row for name, row in rows.items() if name in table.positions}
    for name, values in table.columns.items():
        if name != "id" and changed:
            updated = values.copy()  # callers go on with the arrays that they were given
            updated[list(changed)] = as_array(name, [row[name] for row in changed.values()])
            updated.setflags(write=False)
            table.columns[name] = updated
    return True


# --- reading ------------------------------------------------------------------------------------------------------


def _flagged_samples(items: AuditedItems) -> dict[str, Mapping[str, Any]]:
    """Id -> `flagged_columns` of the samples with a flag or a proposal."""
    run, root = items.run, items.dataset
    with database(f"reading audit {run!r} of dataset {root.name!r}"), _lock:
        table = _table(items)
        if table.flagged is None:
            columns = flagged_columns()
            marks: list[dict[str, Any]] = [{f"{run}_{flag}": True} for flag in flag_columns()]
            query = {"$or": [*marks, {f"{run}_action": {"$in": list(TO_DO)}}]}
            documents = root._sample_collection.find(query, _projection(run, columns))
            table.flagged = {str(document["_id"]): _values(document, run, columns) for document in documents}
        return dict(table.flagged)


def _read(items: AuditedItems, columns: list[str]) -> Columns:
    if items.are_samples:
        return _read_samples(items, columns)
    return {name: as_array(name, values) for name, values in items.values(columns).items()}


def _read_samples(items: AuditedItems, columns: list[str]) -> Columns:
    """Columns of numbers as lists that the database makes, a few at a time: twice as fast as reading documents."""
    run, samples = items.run, items.dataset._sample_collection
    rows = samples.estimated_document_count()
    types = {name: items.dataset.get_field(items.path(name)) for name in columns}
    numbers = [name for name in columns if name == "id" or isinstance(types[name], NUMBERS)]
    others = [name for name in columns if name not in numbers]
    values: dict[str, list[Any]] = {name: [] for name in columns}
    width = max(1, VALUES // max(1, min(rows, ROWS)))
    for start in range(0, len(numbers), width):
        names = numbers[start : start + width]
        paths = ["$_id" if name == "id" else f"${run}_{name}" for name in names]
        lists = {f"v{at}": {"$push": {"$ifNull": [path, None]}} for at, path in enumerate(paths)}
        for match in _parts(samples, run, rows):
            for part in samples.aggregate([*match, {"$group": {"_id": None, **lists}}]):
                for at, name in enumerate(names):
                    values[name] += part[f"v{at}"]
    for match in _parts(samples, run, rows) if others else ():
        for document in samples.aggregate([*match, {"$project": _projection(run, others)}]):
            for name in others:
                values[name].append(document.get(f"{run}_{name}"))
    if "id" in values:
        values["id"] = [str(name) for name in values["id"]]
    return {name: as_array(name, column) for name, column in values.items()}


def _parts(samples: Any, run: str, rows: int) -> Iterable[list[dict[str, Any]]]:
    """Stages that choose the audited samples, in the order of the dataset: all at once, or if many in parts."""
    audited: dict[str, Any] = {f"{run}_action": {"$ne": None}}
    if rows <= ROWS:
        yield [{"$match": audited}]
        return
    after: dict[str, Any] = {}
    while edge := list(samples.find(after, {"_id": 1}).sort("_id", 1).skip(ROWS - 1).limit(1)):
        yield [{"$match": {**audited, "_id": {**after.get("_id", {}), "$lte": edge[0]["_id"]}}}, {"$sort": {"_id": 1}}]
        after = {"_id": {"$gt": edge[0]["_id"]}}
    yield [{"$match": {**audited, **after}}, {"$sort": {"_id": 1}}]


def _projection(run: str, columns: Iterable[str]) -> dict[str, int]:
    return {f"{run}_{name}": 1 for name in columns}


def _values(document: Mapping[str, Any], run: str, columns: Iterable[str]) -> dict[str, Any]:
    return {name: document.get(f"{run}_{name}") for name in columns}
