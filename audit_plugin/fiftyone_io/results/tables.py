"""What an audit wrote on all its rows, kept in memory and brought up to date by what changed since it was read.

Whoever decides changes one sample at a time: of a hundred thousand samples, that one is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError
from audit_plugin.audit.caption_lists import INDEX, LIST
from audit_plugin.config import FLAG_KINDS
from audit_plugin.fiftyone_io.read.items import images_of, root_of
from audit_plugin.fiftyone_io.runs import AuditRunConfig, audit_info, database

from .views import TO_DO

Columns = dict[str, NDArray[Any]]
QUEUED = ("misalignment", "multimem", "outlier", "duplicate", "probability")
WORDS = ("action", "reason", "suggestion")
OF_TEXT = ("misalignment", "is_misaligned", "suggestion")  # told of each text of a list
FLAGGED_COLUMNS = (
    *QUEUED,
    *WORDS,
    *(f"is_{kind}" for kind in FLAG_KINDS),
    INDEX,
    *(f"{name}{LIST}" for name in OF_TEXT),
)
KEPT = 4  # audits
MOST_CHANGED = 1_000  # samples that are read one by one; of more, everything is read again
SLACK = timedelta(seconds=10)  # a write may arrive this much later than the time that it bears
ROWS, VALUES = 200_000, 800_000  # in one answer of the database, which may hold 16 MB


@dataclass
class Table:
    """What was read of an audit.

    Attributes:
        state: tells one state of the dataset from another.
        columns: whole columns, in the order of the dataset.
        flagged: id -> the values of a row with a flag or a proposal; None: not read yet.
        places: id -> position in the columns; None: not needed yet.
        facts: what else was found out in this state.
        time: when it was so.
    """

    state: tuple[Any, ...]
    columns: Columns = field(default_factory=dict)
    flagged: dict[str, Mapping[str, Any]] | None = None
    places: dict[str, int] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


_tables: dict[tuple[Any, str], Table] = {}
_lock = RLock()  # two panels that open at the same time read once


def read_columns(dataset: SampleCollection, run: str, columns: tuple[str, ...]) -> Columns:
    """Columns of an audit over all its rows, in the dataset's order; kept until the dataset changes.

    Args:
        dataset: the dataset or a view of it.
        run: key of the audit.
        columns: columns that the audit wrote, or "id".

    Returns:
        Column -> `[n]`, not to be written on: scores float64 with NaN where not scored, flags bool, anything else
        object. A group is one row.

    Raises:
        AuditError: no such audit or column, or the database was lost.
    """
    root = dataset._root_dataset
    record = audit_info(root, run)
    lacking = [name for name in columns if name != "id" and path_of(record, run, name) not in record.fields]
    if lacking:
        raise AuditError(f"audit {run!r} of dataset {root.name!r} has no column {lacking[0]!r}; run it again")
    with database(f"reading audit {run!r} of dataset {root.name!r}"), _lock:
        table = _table(root, run)
        if missing := [name for name in columns if name not in table.columns]:
            found = _read(root, run, record, missing)
            if len({len(values) for values in (*table.columns.values(), *found.values())}) > 1:
                table.columns, table.places = {}, None  # rows came or went between two readings
                found = _read(root, run, record, list(columns))
            table.columns |= found
        return {name: table.columns[name] for name in columns}


def read_flagged(dataset: SampleCollection, run: str) -> Columns:
    """The rows with a flag, or with a proposal other than to keep them: few, so only they are read.

    Returns:
        "id", "action", `is_{kind}` of every kind, and the scores of `QUEUED`, `[f]` each, in the order of the ids;
        as in `read_columns`, False and NaN where the audit has no such column.

    Raises:
        AuditError: no such audit, or the database was lost.
    """
    root = dataset._root_dataset
    record = audit_info(root, run)
    names = ("action", *(f"is_{kind}" for kind in FLAG_KINDS), *QUEUED)
    if record.label_field or record.slices:
        there = [name for name in names if path_of(record, run, name) in record.fields]
        found = read_columns(root, run, ("id", *there))
        chosen = np.isin(found["action"].astype(str), TO_DO)
        chosen |= np.logical_or.reduce([found[name] for name in there if name.startswith("is_")])
        nothing = as_array("is_", [None] * int(chosen.sum()))
        some = {name: values[chosen] for name, values in found.items()}
        return {
            name: some.get(name, nothing if name.startswith("is_") else nothing * np.nan) for name in ("id", *names)
        }
    rows = flagged_rows(root, run)
    ids = sorted(rows)
    found = {name: as_array(name, [rows[at].get(name) for at in ids]) for name in names}
    return {"id": as_array("id", ids), **found}


def flagged_rows(root: fo.Dataset, run: str) -> dict[str, Mapping[str, Any]]:
    """Id -> `FLAGGED_COLUMNS` of the samples with a flag or a proposal, of an audit of samples that are no groups.

    Raises:
        AuditError: no such audit, or the database was lost.
    """
    audit_info(root, run)
    with database(f"reading audit {run!r} of dataset {root.name!r}"), _lock:
        table = _table(root, run)
        if table.flagged is None:
            documents = root._sample_collection.find(flagged_query(run), _projection(run, FLAGGED_COLUMNS))
            table.flagged = {str(document["_id"]): _values(document, run, FLAGGED_COLUMNS) for document in documents}
        return dict(table.flagged)


def flagged_query(run: str) -> dict[str, Any]:
    """What finds samples, or objects, with a flag or a proposal."""
    marks: list[dict[str, Any]] = [{f"{run}_is_{kind}": True} for kind in FLAG_KINDS]
    return {"$or": [*marks, {f"{run}_action": {"$in": list(TO_DO)}}]}


def read_fact(dataset: SampleCollection, run: str, name: str, find: Callable[[], Any]) -> Any:
    """What `find` gives, asked once per state of the dataset."""
    root = dataset._root_dataset
    audit_info(root, run)
    with database(f"reading audit {run!r} of dataset {root.name!r}"), _lock:
        facts = _table(root, run).facts
        if name not in facts:
            facts[name] = find()
        return facts[name]


def path_of(record: AuditRunConfig, run: str, column: str) -> str:
    """Where a column of an audit is in a sample."""
    return f"{root_of(record.label_field)}.{run}_{column}" if record.label_field else f"{run}_{column}"


def _table(root: fo.Dataset, run: str) -> Table:
    """What is known of an audit as the dataset is now; the audits asked for last are kept."""
    key, state = (root._doc.id, run), _state(root, run)
    held = _tables.pop(key, None)
    if held is None or (held.state != state and not _caught_up(root, run, held, state)):
        held = Table(state)
    _tables[key] = held
    while len(_tables) > KEPT:
        _tables.pop(next(iter(_tables)))
    return held


def _state(root: fo.Dataset, run: str) -> tuple[Any, ...]:
    """(time of the run, number of samples, time of the last change)."""
    samples = root._sample_collection
    newest = samples.find_one({}, {"last_modified_at": 1, "_id": 0}, sort=[("last_modified_at", -1)]) or {}
    return root.get_run_info(run).timestamp, samples.estimated_document_count(), newest.get("last_modified_at")


def _caught_up(root: fo.Dataset, run: str, table: Table, state: tuple[Any, ...]) -> bool:
    """Whether the table could be brought up to a state by reading the samples that changed; rows stay the same."""
    record = audit_info(root, run)
    if record.label_field or record.slices or table.state[:2] != state[:2] or not (table.state[2] and state[2]):
        return False
    names = tuple(dict.fromkeys([*FLAGGED_COLUMNS, *(name for name in table.columns if name != "id")]))
    now = datetime.now(UTC)
    # all that was written earlier had arrived; the database gives times without their zone
    unseen = min(table.state[2], (table.time - SLACK).replace(tzinfo=table.state[2].tzinfo))
    samples, since = root._sample_collection, {"$gt": unseen}
    if samples.find_one({"created_at": since}, {"_id": 1}):
        return False  # as many samples as before may be others: some came, some went
    documents = list(samples.find({"last_modified_at": since}, _projection(run, names)).limit(MOST_CHANGED + 1))
    if len(documents) > MOST_CHANGED:
        return False
    rows = {str(document["_id"]): _values(document, run, names) for document in documents}
    if table.columns and not _placed(root, run, table, rows):
        return False
    for name, row in rows.items():
        if table.flagged is not None:
            table.flagged.pop(name, None)
            if row["action"] in TO_DO or any(row[f"is_{kind}"] is True for kind in FLAG_KINDS):
                table.flagged[name] = row
    table.state, table.facts, table.time = state, {}, now
    return True


def _placed(root: fo.Dataset, run: str, table: Table, rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Puts the values of samples into whole columns; False if a sample became a row of the audit, or is none now."""
    if table.places is None:
        ids = table.columns["id"] if "id" in table.columns else _read_samples(root, run, ["id"])["id"]
        if any(len(values) != len(ids) for values in table.columns.values()):
            return False
        table.places = {name: at for at, name in enumerate(ids)}
    if any((row["action"] is not None) != (name in table.places) for name, row in rows.items()):
        return False
    there = {table.places[name]: row for name, row in rows.items() if name in table.places}
    for name, values in table.columns.items():
        if name != "id" and there:
            new = values.copy()  # whoever was given the old ones goes on with them
            new[list(there)] = as_array(name, [row[name] for row in there.values()])
            new.setflags(write=False)
            table.columns[name] = new
    return True


def _read(root: fo.Dataset, run: str, record: AuditRunConfig, columns: list[str]) -> Columns:
    if record.label_field:
        base = root_of(record.label_field)
        paths = [f"{base}.id" if name == "id" else path_of(record, run, name) for name in ("action", *columns)]
        found = images_of(root).values(paths, unwind=True)
    elif record.slices:
        paths = ["id" if name == "id" else f"{run}_{name}" for name in ("action", *columns)]
        flat = root.select_group_slices(record.slices, _allow_mixed=True)
        groups, *found = flat.values([f"{root.group_field}.id", *paths])
        first = np.unique(np.array(groups, dtype=object).astype(str), return_index=True)[1]
        found = [[values[at] for at in np.sort(first)] for values in found]
    else:
        return _read_samples(root, run, columns)
    audited = [at for at, action in enumerate(found[0]) if action is not None]
    return {
        name: as_array(name, [values[at] for at in audited]) for name, values in zip(columns, found[1:], strict=True)
    }


def _read_samples(root: fo.Dataset, run: str, columns: list[str]) -> Columns:
    """Columns of numbers as lists that the database makes, a few at a time: twice as fast as reading documents."""
    samples = root._sample_collection
    rows = samples.estimated_document_count()
    numbers = [name for name in columns if name == "id" or _is_number(root, f"{run}_{name}")]
    texts = [name for name in columns if name not in numbers]
    found: dict[str, list[Any]] = {name: [] for name in columns}
    width = max(1, VALUES // max(1, min(rows, ROWS)))
    for start in range(0, len(numbers), width):
        some = numbers[start : start + width]
        lists = {f"v{at}": {"$push": {"$ifNull": [_field(run, name), None]}} for at, name in enumerate(some)}
        for match in _parts(samples, run, rows):
            for part in samples.aggregate([*match, {"$group": {"_id": None, **lists}}]):
                for at, name in enumerate(some):
                    found[name] += part[f"v{at}"]
    for match in _parts(samples, run, rows) if texts else ():
        for document in samples.aggregate([*match, {"$project": _projection(run, texts)}]):
            for name in texts:
                found[name].append(document.get(f"{run}_{name}"))
    found |= {"id": [str(name) for name in found["id"]]} if "id" in found else {}
    return {name: as_array(name, values) for name, values in found.items()}


def _parts(samples: Any, run: str, rows: int) -> Iterable[list[dict[str, Any]]]:
    """What chooses the audited samples, in the order of the dataset: all at once, or where they are many in parts."""
    audited: dict[str, Any] = {f"{run}_action": {"$ne": None}}
    if rows <= ROWS:
        yield [{"$match": audited}]
        return
    after: dict[str, Any] = {}
    while edge := list(samples.find(after, {"_id": 1}).sort("_id", 1).skip(ROWS - 1).limit(1)):
        yield [{"$match": {**audited, "_id": {**after.get("_id", {}), "$lte": edge[0]["_id"]}}}, {"$sort": {"_id": 1}}]
        after = {"_id": {"$gt": edge[0]["_id"]}}
    yield [{"$match": {**audited, **after}}, {"$sort": {"_id": 1}}]


def _is_number(root: fo.Dataset, path: str) -> bool:
    return isinstance(root.get_field(path), fo.FloatField | fo.IntField | fo.BooleanField)


def _field(run: str, name: str) -> str:
    return "$_id" if name == "id" else f"${run}_{name}"


def _projection(run: str, names: Iterable[str]) -> dict[str, int]:
    return {f"{run}_{name}": 1 for name in names}


def _values(document: Mapping[str, Any], run: str, names: Iterable[str]) -> dict[str, Any]:
    return {name: document.get(f"{run}_{name}") for name in names}


def as_array(column: str, values: list[Any]) -> NDArray[Any]:
    """A column, which nobody may write on: flags bool, numbers float64 with NaN for None, anything else object."""
    if column.startswith("is_"):
        out: NDArray[Any] = np.array([value is True for value in values], dtype=bool)
    elif column != "id" and all(value is None or isinstance(value, float | int) for value in values):
        out = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    else:
        out = np.array(values, dtype=object)
    out.setflags(write=False)
    return out
