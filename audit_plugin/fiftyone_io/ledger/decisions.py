"""Decide, undo decisions, and show them on the samples.

The ledger is append-only, independent of audits, and safe for several reviewers. The sample's field `audit_decision` is
a copy of the decision that holds, for filters in the App; the ledger is what counts.
"""

from __future__ import annotations

import getpass
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from difflib import get_close_matches
from itertools import chain
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from pymongo import UpdateMany

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import batches, database, object_ids, update_of
from audit_plugin.fiftyone_io.lease import Lease, leased
from audit_plugin.fiftyone_io.read.contents import AuditedItem, class_names, items_of_rows, read_items, text_path
from audit_plugin.fiftyone_io.read.items import check_editable
from audit_plugin.fiftyone_io.results.tables import read_rows, value_of_text
from audit_plugin.fiftyone_io.runs import audited_items
from audit_plugin.review import (
    KINDS,
    NO_TIME,
    UNDONE,
    Decision,
    Resolution,
    Row,
    check_decision,
    check_name,
    check_seconds,
    check_text,
    check_whole,
    resolve,
    shortened,
    standing,
    strongest,
    to_redo,
    to_undo,
)
from audit_plugin.scoring.columns import CAPTION_INDEX, LIST

from .entries import append, ids_in_ledger, last_interrupted, ledger, read_head, read_ledger, set_shown
from .journal import in_force, journal

FIELD = "audit_decision"
WAIT_SECONDS = 20.0  # for operations of others: a reviewer decides while they go on
# what a command that is given again has in common with the first time
ASKED = (
    "sample",
    "label",
    "caption",
    "kind",
    "text",
    "note",
    "reviewer",
    "run",
    "source",
    "seconds",
    "field",
    "digest",
)


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
    rows = _rows(ids, check_whole("caption", caption))
    check_name("run", run)
    check_name("reviewer", reviewer)
    check_text("text", text)
    check_text("note", note)
    if kind not in KINDS:
        raise AuditError(f"decision {shortened(kind)} is unknown; use one of {', '.join(sorted(KINDS))}")
    texts = dict.fromkeys(rows, text)
    if kind == "relabel" and not text:
        texts = suggestions(dataset, run, rows)
    source = "person" if len(rows) == 1 else "batch"
    same: dict[str, Any] = {"note": note, "reviewer": reviewer, "source": source}
    same["seconds"] = check_seconds("seconds", seconds)
    proposed = [Decision(name, kind, position, text=texts[name, position], **same) for name, position in rows]
    return decide_many(dataset, proposed, run)


def decide_batch(
    dataset: SampleCollection,
    ids: Sequence[str | Row],
    kind: str,
    run: str = "audit",
    text: str = "",
    caption: int = 0,
    new_class: bool = False,
    **options: Any,
) -> tuple[list[Decision], dict[Row, str]]:
    """Decide the same for all rows that it can be decided for; takes what `decide` takes.

    `new_class`: where the texts are names of classes, the text of a relabel may be one that the dataset lacks.

    Returns:
        What was written into the ledger; row that was skipped -> why, in a few words.

    Raises:
        AuditError: it can be decided for none of the rows, the text is a new class, or as `decide`.
    """
    if kind == "relabel" and text and not new_class:
        check_class(dataset._root_dataset, check_name("run", run), check_text("text", text))
    rows = _rows(ids, check_whole("caption", caption))
    skipped = _undecidable(dataset, rows, kind, check_name("run", run), text)
    left = [row for row in rows if row not in skipped]
    # with none left, `decide` says of the first one what is wrong
    return decide(dataset, left or rows, kind, run, text, **options), skipped


def _undecidable(dataset: SampleCollection, rows: Sequence[Row], kind: str, run: str, text: str) -> dict[Row, str]:
    """Row -> why the decision cannot be made for it, of those for which it cannot."""
    names = [name for name, _ in rows]
    items = items_of_rows(dataset._root_dataset, run, names, media=False)
    proposed = _suggestions(dataset, run, rows) if kind == "relabel" and not text else {}

    def reason(row: Row) -> str:
        name, caption = row
        item = items.get(name)
        if item is None:
            return "not in the dataset"
        if caption and caption >= len(item.content.texts):
            return f"no caption {caption}"
        if kind != "relabel":
            return ""
        if not item.field:
            return "no text that could be relabeled"
        return "" if text or proposed.get(row) else "no suggestion of the audit"

    return {row: why for row in rows if (why := reason(row))}


def check_class(dataset: fo.Dataset, run: str, text: str) -> None:
    """Raise an `AuditError` for a text that is no class of the dataset, where an audit's texts are names of classes."""
    classes = class_names(dataset, run)
    if classes is None or text in classes:
        return
    similar = get_close_matches(text, classes, n=5, cutoff=0.5) or sorted(classes)[:8]
    raise AuditError(
        f"{shortened(text)} is not among the {len(classes):,} classes of dataset {dataset.name!r} "
        f"({', '.join(similar)}); correct it, or add it with --new-class"
    )


def decide_many(dataset: SampleCollection, proposed: Sequence[Decision], run: str = "audit") -> list[Decision]:
    """Write decisions, made as one batch in the review of an audit, into the ledger, all or none; `run` may be "".

    The `sample` of each is an id as `decide` takes it, its `label` empty. Digests, times and ids that are missing, and
    the fields of the texts, are filled in. A command that was interrupted, and is given again, decides once.

    Raises:
        AuditError: as `decide`.
    """
    root = dataset._root_dataset
    check_name("run", run)
    for decision in proposed:
        check_decision(decision)
    with database(f"deciding on samples of {root.name!r}"), leased(root, "deciding", WAIT_SECONDS) as lease:
        made = completed(root, proposed, run)
        _check_ids(root, [d.id for d in proposed if d.id])
        return write(root, lease, made)


def _check_other_texts(dataset: fo.Dataset, made: Sequence[Decision]) -> None:
    """Raise an `AuditError` where a decision would silently replace one on another text of the same sample.

    The ledger has one decision for a sample, an object or a position in a list; samples may have texts in several
    fields, of different audits. What a decision asks for is not lost: it is to be applied, or undone, first.
    """
    # the removal of a sample is one whatever its texts
    listed = {field: text_path(dataset, field).listed for field in {d.field for d in made if d.field}}
    of_texts = [d for d in made if d.field and (d.kind != "remove" or listed[d.field])]
    if not of_texts:
        return
    current = resolve(read_ledger(dataset, {"sample": {"$in": list({d.sample for d in of_texts})}})).current
    held = [(current[d.key], d) for d in of_texts if d.key in current]
    others = [h for h, d in held if h.kind in ("relabel", "remove") and h.field and d.field != h.field]
    if not others:
        return
    applied = {name for entry in journal().find(in_force(dataset), {"decisions": 1}) for name in entry["decisions"]}
    for decision in others:
        if decision.id not in applied:
            raise AuditError(
                f"sample {decision.sample} has a decision on its text {decision.field!r} that is not applied yet "
                f"({decision.kind}), which this one would replace; apply or undo that decision first"
            )


def completed(dataset: fo.Dataset, proposed: Sequence[Decision], run: str) -> list[Decision]:
    """Decisions with all that the ledger records of them, but for their numbers.

    Raises:
        AuditError: as `decide`.
    """
    items = items_of_rows(dataset, run, [d.sample for d in proposed])
    batch = str(ObjectId()) if len(proposed) > 1 else ""
    now = current_time()
    return [_completed(d, items.get(d.sample), run, batch, now) for d in proposed]


def current_time() -> datetime:
    """The time in whole milliseconds, as the database has it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def storable(decision: Decision, now: datetime) -> Decision:
    """The decision as the database can hold it, with a time."""
    return replace(
        decision,
        caption=int(decision.caption),  # not numpy's
        seconds=float(decision.seconds),
        # no lone surrogates
        text=decision.text.encode("utf-8", "replace").decode(),
        note=decision.note.encode("utf-8", "replace").decode(),
        time=now if decision.time == NO_TIME else decision.time,
    )


def write(dataset: fo.Dataset, lease: Lease, made: Sequence[Decision]) -> list[Decision]:
    """Write complete entries into the ledger, all or none, and show them on the samples.

    Returns:
        The entries with their numbers. Those of the last operation of their reviewers, if that was interrupted and
        wrote the same: its command was given again.

    Raises:
        AuditError: an entry would replace one on another text field that is not applied yet.
    """
    if not made:
        return []
    declare_field(dataset)
    show(dataset)  # what an interrupted operation left to be shown
    owner, former = last_interrupted(dataset, lease, {d.reviewer for d in made})
    if former and [_asked(d) for d in former] == [_asked(d) for d in made]:
        lease.settle(owner)
        return former
    _check_other_texts(dataset, made)
    written = append(dataset, lease, made)
    show(dataset)
    return written


def decisions(dataset: SampleCollection, run: str | None = None) -> list[Decision]:
    """All entries of the ledger, or of the review of one audit, oldest first, undone ones and undoing ones included."""
    with database("reading decisions"):
        return read_ledger(dataset._root_dataset, {} if run is None else {"run": check_name("run", run)})


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
    return _revert(dataset, reviewer, redo=False)


def redo_last(dataset: SampleCollection, reviewer: str = "") -> list[Decision]:
    """Redo what a reviewer undid last, a whole batch at once, at its place in the ledger.

    Nothing is deleted: an entry is added for each, which reverts the one that undid. Once the reviewer has decided
    anew, there is nothing to redo.

    Returns:
        The decisions that stand again; none if none were left.
    """
    return _revert(dataset, reviewer, redo=True)


def _revert(dataset: SampleCollection, reviewer: str, redo: bool) -> list[Decision]:
    """Revert a reviewer's last decisions, or the entries of the last undo; the decisions concerned."""
    root, name = dataset._root_dataset, check_name("reviewer", reviewer) or default_reviewer()
    doing = f"{'redoing' if redo else 'undoing'} a decision"
    with database(f"{doing} on {root.name!r}"), leased(root, doing, WAIT_SECONDS) as lease:
        show(root)
        entries = read_ledger(root, {"reviewer": name})
        by_id = {d.id: d for d in entries}
        owner, former = last_interrupted(root, lease, [name])
        if former and all(d.kind == UNDONE and _is_redo(d, by_id) == redo for d in former):
            lease.settle(owner)  # this command, given again
            reverted = former
        else:
            same: dict[str, Any] = {"kind": UNDONE, "text": "", "note": "", "time": current_time(), "seconds": 0.0}
            batch, last = str(ObjectId()), to_redo(entries, name) if redo else to_undo(entries, name)
            reverted = [replace(d, **same, id=str(ObjectId()), batch=batch, undoes=d.id) for d in last]
            append(root, lease, reverted)
            show(root)
    undoes = [by_id[d.undoes].undoes if redo else d.undoes for d in reverted]
    return [by_id[name] for name in undoes if name in by_id]


def _is_redo(entry: Decision, by_id: Mapping[str, Decision]) -> bool:
    return entry.undoes in by_id and by_id[entry.undoes].kind == UNDONE


def last_decisions(dataset: SampleCollection, count: int = 10) -> list[list[Decision]]:
    """The last decisions that stand, of all reviewers and newest first; those of a batch together."""
    made: dict[str, list[Decision]] = {}
    for decision in reversed(standing(decisions(dataset))):
        batch = decision.batch or decision.id
        if batch not in made and len(made) == count:
            break
        made.setdefault(batch, []).append(decision)
    return list(made.values())


def suggestions(dataset: SampleCollection, run: str, rows: Sequence[Row]) -> dict[Row, str]:
    """Row -> the text that an audit suggests.

    Raises:
        AuditError: there is none for a row.
    """
    texts = _suggestions(dataset, run, rows)
    if missing := [row for row in rows if not texts[row]]:
        raise AuditError(f"audit {run!r} has no suggestion for {missing[0][0]}; give a text to relabel it to")
    return {row: str(text) for row, text in texts.items()}


def _suggestions(dataset: SampleCollection, run: str, rows: Sequence[Row]) -> dict[Row, str | None]:
    """Row -> the text that an audit suggests, if any."""
    columns = ["suggestion", f"suggestion{LIST}", CAPTION_INDEX]
    values = read_rows(audited_items(dataset, run), [name for name, _ in rows], columns)
    return {row: value_of_text(values.get(row[0], {}), "suggestion", row[1]) for row in rows}


def default_reviewer() -> str:
    """The user of this machine, as the reviewer's name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "reviewer"


def refresh(dataset: SampleCollection, samples: Iterable[str] | None = None) -> None:
    """Bring the field `audit_decision` of samples (None: all ever decided) up to date with the ledger.

    Of several captions or objects a sample shows the most urgent decision (`strongest`); all samples of a group show
    the same.
    """
    root = dataset._root_dataset
    with database(f"showing decisions on {root.name!r}"), leased(root, "showing decisions", WAIT_SECONDS):
        if samples is None:
            samples = ledger().distinct("sample", {"dataset": root._doc.id})
        names = list(dict.fromkeys(samples))
        if names:
            declare_field(root)
        for batch in batches(names):
            _show_on(root, batch)


def show(dataset: fo.Dataset) -> None:
    """Show the entries of the ledger that are not shown yet on their samples."""
    head = read_head(dataset)
    if head.shown < head.number:
        refresh(dataset, [d.sample for d in read_ledger(dataset, {"number": {"$gt": head.shown}})])
        set_shown(dataset, head.number)


def _show_on(dataset: fo.Dataset, names: Sequence[str]) -> None:
    current = resolve(read_ledger(dataset, {"sample": {"$in": names}})).current
    kinds: dict[str, list[str]] = {name: [] for name in names}
    for decision in current.values():
        kinds[decision.sample].append(decision.kind)
    items = read_items(dataset, {(name, ""): "" for name in names}, media=False)
    by_kind: dict[str, list[str]] = {}
    for (name, _), item in items.items():
        by_kind.setdefault(strongest(kinds[name]), []).extend(item.members)
    dataset._bulk_write([_mark(kind, ids) for kind, ids in by_kind.items()], ids=list(chain(*by_kind.values())))


def _check_ids(dataset: fo.Dataset, ids: Sequence[str]) -> None:
    if repeated := [name for name, count in Counter(ids).items() if count > 1]:
        raise AuditError(f"decision {repeated[0]!r} is given twice; give each decision an id of its own, or none")
    if existing := ids_in_ledger(dataset, ids):
        raise AuditError(f"decision {min(existing)!r} is in the ledger already; give the new one another id, or none")


def _rows(ids: Any, caption: int) -> list[Row]:
    """The rows that are named, each once."""
    named = [ids] if isinstance(ids, str) else ids
    if not isinstance(named, Iterable) or isinstance(named, bytes | Mapping):
        raise AuditError(f"ids {shortened(ids)} are not ids; give a list of ids of samples or objects")
    rows: dict[Row, None] = {}
    for row in named:
        name, position = row if isinstance(row, tuple | list) and len(row) == 2 else (row, caption)
        rows[check_name("id", name), check_whole("caption", position)] = None
    return list(rows)


def _asked(decision: Decision) -> tuple[Any, ...]:
    return tuple(getattr(decision, name) for name in ASKED)


def _completed(decision: Decision, item: AuditedItem | None, run: str, batch: str, now: datetime) -> Decision:
    if item is None:
        raise AuditError(
            f"{decision.sample} is not a sample or object of the dataset; take ids from the audit's results"
        )
    texts = len(item.content.texts)
    if decision.caption and decision.caption >= texts:
        raise AuditError(f"sample {decision.sample} has no caption {decision.caption}, but {texts}; count from 0")
    if decision.kind == "relabel" and not item.field:
        raise AuditError(f"sample {decision.sample} has no text that could be relabeled; name a run whose text it is")
    return replace(
        storable(decision, now),
        sample=item.sample,
        label=item.label,
        field=item.field,
        digest=decision.digest or item.content.digest(decision.caption),
        reviewer=decision.reviewer or default_reviewer(),
        run=run or decision.run,
        id=decision.id or str(ObjectId()),
        batch=decision.batch or batch,
    )


def declare_field(dataset: fo.Dataset) -> None:
    """Add the field `audit_decision`.

    Raises:
        AuditError: the user has another field of that name.
    """
    field = dataset.get_field(FIELD)
    if field is not None and not isinstance(field, fo.StringField):
        raise AuditError(
            f"field {FIELD!r} of dataset {dataset.name!r} is a {type(field).__name__}, but decisions are shown there "
            "as strings; rename it"
        )
    check_editable(dataset, [FIELD], "deciding")
    if field is None:
        dataset.add_sample_field(FIELD, fo.StringField, description="What reviewers decided (a copy of the ledger)")


def _mark(kind: str, ids: Sequence[str]) -> UpdateMany:
    other: dict[str, Any] = {"$ne": kind} if kind else {"$exists": True}
    return UpdateMany({"_id": {"$in": object_ids(ids)}, FIELD: other}, update_of({FIELD: kind or None}))
