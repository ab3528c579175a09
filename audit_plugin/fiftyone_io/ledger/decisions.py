"""The ledger of decisions in FiftyOne's database: append-only, independent of audits, safe for several reviewers.

Every decision is a document of its own, so that two processes that write at once both keep theirs. The sample's field
`audit_decision` is a copy of the decision that holds, for filters in the App; the ledger is what counts.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from pymongo import UpdateMany

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import batches, collection, database, object_ids, update_of
from audit_plugin.fiftyone_io.read.contents import AuditedItem, items_of_rows, read_items
from audit_plugin.fiftyone_io.results.tables import read_rows
from audit_plugin.fiftyone_io.runs import audited_items
from audit_plugin.review import NO_TIME, UNDONE, Decision, Resolution, Row, resolve, strongest, to_undo
from audit_plugin.scoring.columns import LIST

LEDGER = "audit_plugin.decisions"
FIELD = "audit_decision"
NAMES = tuple(f.name for f in fields(Decision))


def decide(
    dataset: SampleCollection,
    ids: str | Sequence[str | Row],
    kind: str,
    run: str = "audit",
    text: str = "",
    note: str = "",
    reviewer: str = "",
    caption: int = 0,
    seconds: float = 0.0,
) -> list[Decision]:
    """Decide the same for one row or several; several are one batch, which `undo_last` undoes as one.

    Args:
        dataset: the dataset, or a view of it.
        ids: of samples, or of the objects of an audit of objects; of a group, any of its samples. Where several texts
            of a list are meant, (id, position of the text).
        kind: keep, remove, relabel, skip or unsure.
        run: key of the audit that is reviewed, which names the field of the texts; "" for none.
        text: for relabel; "": the audit's suggestion for each row.
        note: in the reviewer's words.
        reviewer: name; "": the user of this machine.
        caption: which text of a list, for ids without one.
        seconds: time that the decision took.

    Returns:
        What was written into the ledger.

    Raises:
        AuditError: a row, a caption, a suggestion or the audit does not exist; nothing is decided then.
    """
    named = [ids] if isinstance(ids, str) else ids
    rows = list(dict.fromkeys((row, caption) if isinstance(row, str) else row for row in named))
    texts = dict.fromkeys(rows, text)
    if kind == "relabel" and not text:
        texts = suggestions(dataset, run, rows)
    source = "person" if len(rows) == 1 else "batch"
    proposed = [
        Decision(row[0], kind, row[1], text=texts[row], note=note, reviewer=reviewer, source=source, seconds=seconds)
        for row in rows
    ]
    return decide_many(dataset, proposed, run)


def decide_many(dataset: SampleCollection, proposed: Sequence[Decision], run: str = "audit") -> list[Decision]:
    """Write decisions, made as one batch in the review of an audit, into the ledger; `run` may be "".

    The `sample` of each is an id as `decide` takes it, its `label` empty. Digests, times and ids that are missing, and
    the fields of the texts, are filled in.

    Raises:
        AuditError: as `decide`.
    """
    root = dataset._root_dataset
    with database(f"deciding on samples of {root.name!r}"):
        items = items_of_rows(root, run, [d.sample for d in proposed])
        batch = str(ObjectId()) if len(proposed) > 1 else ""
        now = {name: _now(root, name) for name in {d.reviewer or default_reviewer() for d in proposed}}
        made = [_completed(d, items.get(d.sample), run, batch, now) for d in proposed]
        append(root, made)
        refresh(root, (d.sample for d in made))
    return made


def decisions(dataset: SampleCollection, run: str | None = None) -> list[Decision]:
    """All entries of the ledger, or of the review of one audit, oldest first, undone ones and undoing ones included."""
    with database("reading decisions"):
        return read_ledger(dataset._root_dataset, {} if run is None else {"run": run})


def current_decisions(dataset: SampleCollection, run: str | None = None) -> Resolution:
    """The decisions that hold, and where the reviewers disagree."""
    return resolve(decisions(dataset, run))


def disagreements(dataset: SampleCollection) -> list[tuple[Decision, ...]]:
    """The latest decisions of reviewers who did not decide the same of one caption, by reviewer."""
    return list(current_decisions(dataset).disagreements.values())


def undo_last(dataset: SampleCollection, reviewer: str = "") -> list[Decision]:
    """Undo a reviewer's last decision, a whole batch at once.

    Nothing is deleted: an entry is added for each. What `apply` changed is undone by `undo`.

    Returns:
        The undone decisions; none if none were left.
    """
    root, name = dataset._root_dataset, reviewer or default_reviewer()
    with database(f"undoing a decision on {root.name!r}"):
        undone = to_undo(read_ledger(root, {"reviewer": name}), name)
        now, batch = _now(root, name), str(ObjectId())
        same: dict[str, Any] = {"kind": UNDONE, "text": "", "note": "", "time": now, "batch": batch, "seconds": 0.0}
        append(root, [replace(d, **same, id=str(ObjectId()), undoes=d.id) for d in undone])
        refresh(root, (d.sample for d in undone))
    return undone


def suggestions(dataset: SampleCollection, run: str, rows: Sequence[Row]) -> dict[Row, str]:
    """Row -> the text that an audit suggests.

    Raises:
        AuditError: there is none for a row.
    """
    items = audited_items(dataset, run)
    values = read_rows(items, [name for name, _ in rows], ["suggestion", f"suggestion{LIST}"])
    texts = {row: _suggestion(values.get(row[0], {}), row[1]) for row in rows}
    if missing := [row for row in rows if not texts[row]]:
        raise AuditError(f"audit {run!r} has no suggestion for {missing[0][0]}; give a text to relabel it to")
    return {row: str(text) for row, text in texts.items()}


def _suggestion(values: Mapping[str, Any], caption: int) -> str | None:
    texts = values.get(f"suggestion{LIST}")
    if not texts:
        return values.get("suggestion")
    return texts[caption] if caption < len(texts) else None


def default_reviewer() -> str:
    """The user of this machine, as the reviewer's name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "reviewer"


def refresh(dataset: fo.Dataset, samples: Iterable[str] | None = None) -> None:
    """Bring the field `audit_decision` of samples (None: all ever decided) up to date with the ledger.

    Of several captions or objects a sample shows the most urgent decision (`strongest`); all samples of a group show
    the same.
    """
    if samples is None:
        samples = ledger().distinct("sample", {"dataset": dataset._doc.id})
    names = list(dict.fromkeys(samples))
    if not names:
        return
    _declare(dataset)
    for batch in batches(names):
        current = resolve(read_ledger(dataset, {"sample": {"$in": batch}})).current
        kinds: dict[str, list[str]] = {name: [] for name in batch}
        for decision in current.values():
            kinds[decision.sample].append(decision.kind)
        items = read_items(dataset, {(name, ""): "" for name in batch}, media=False)
        by_kind: dict[str, list[str]] = {}
        for (name, _), item in items.items():
            by_kind.setdefault(strongest(kinds[name]), []).extend(item.members)
        dataset._bulk_write([_mark(kind, ids) for kind, ids in by_kind.items()], ids=list(chain(*by_kind.values())))


def read_ledger(dataset: fo.Dataset, query: dict[str, Any]) -> list[Decision]:
    """Entries that meet a query, in the order of writing."""
    documents = ledger().find({"dataset": dataset._doc.id, **query}).sort("_id", 1)
    entries = [Decision(**{name: document[name] for name in NAMES if name in document}) for document in documents]
    return sorted(entries, key=lambda entry: entry.order)


def append(dataset: fo.Dataset, entries: Sequence[Decision]) -> None:
    """Write entries at the end of the ledger."""
    if entries:
        ledger().insert_many([{"dataset": dataset._doc.id, **asdict(entry)} for entry in entries], ordered=False)


def ledger() -> Any:
    """The collection, indexed."""
    entries = collection(LEDGER, "dataset sample")
    entries.create_index([("dataset", 1), ("id", 1)], unique=True)
    return entries


def _completed(
    decision: Decision, item: AuditedItem | None, run: str, batch: str, now: dict[str, datetime]
) -> Decision:
    """The decision with all that the ledger records of it."""
    if item is None:
        raise AuditError(
            f"{decision.sample} is not a sample or object of the dataset; take ids from the audit's results"
        )
    texts = len(item.content.texts)
    if decision.caption and decision.caption >= texts:
        raise AuditError(f"sample {decision.sample} has no caption {decision.caption}, but {texts}; count from 0")
    if decision.kind == "relabel" and not item.field:
        raise AuditError(f"sample {decision.sample} has no text that could be relabeled; name a run whose text it is")
    name = decision.reviewer or default_reviewer()
    return replace(
        decision,
        sample=item.sample,
        label=item.label,
        # the database takes no lone surrogates
        text=decision.text.encode("utf-8", "replace").decode(),
        note=decision.note.encode("utf-8", "replace").decode(),
        field=item.field,
        digest=decision.digest or item.content.digest(decision.caption),
        reviewer=name,
        time=now[name] if decision.time == NO_TIME else decision.time,
        run=run or decision.run,
        id=decision.id or str(ObjectId()),
        batch=decision.batch or batch,
    )


def _now(dataset: fo.Dataset, reviewer: str) -> datetime:
    """The time, in whole milliseconds, after all that the reviewer decided: clocks may be set back."""
    last = ledger().find_one({"dataset": dataset._doc.id, "reviewer": reviewer}, {"time": 1}, sort=[("time", -1)])
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    return max(now, last["time"] + timedelta(milliseconds=1)) if last else now


def _declare(dataset: fo.Dataset) -> None:
    field = dataset.get_field(FIELD)
    if field is not None and not isinstance(field, fo.StringField):
        raise AuditError(
            f"field {FIELD!r} of dataset {dataset.name!r} is a {type(field).__name__}, but decisions are shown there "
            "as strings; rename it"
        )
    if field is None:
        dataset.add_sample_field(FIELD, fo.StringField, description="What reviewers decided (a copy of the ledger)")


def _mark(kind: str, ids: Sequence[str]) -> UpdateMany:
    other: dict[str, Any] = {"$ne": kind} if kind else {"$exists": True}
    return UpdateMany({"_id": {"$in": object_ids(ids)}, FIELD: other}, update_of({FIELD: kind or None}))
