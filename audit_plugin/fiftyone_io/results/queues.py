"""What is to be reviewed in a dataset: the queue of an audit, rows for batch decisions, and those of a join bug."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import database, documents_by_id
from audit_plugin.fiftyone_io.ledger.decisions import decide_many
from audit_plugin.fiftyone_io.ledger.entries import read_ledger
from audit_plugin.fiftyone_io.ledger.journal import shortened_lists
from audit_plugin.fiftyone_io.read.contents import class_path, items_of_rows, read_items
from audit_plugin.fiftyone_io.runs import audited_items
from audit_plugin.review import (
    MOST_UNCERTAIN,
    Decision,
    Resolution,
    ReviewQueue,
    Row,
    content_digest,
    most_uncertain,
    queue,
    resolve,
    rows_per_text,
    stale,
    unsettled,
)
from audit_plugin.review.decisions import Key
from audit_plugin.scoring.columns import CAPTION_INDEX, LIST
from audit_plugin.scoring.flags import FLAGS, movable_flags
from audit_plugin.scoring.memorized import memorized_lists, rank_memorized
from audit_plugin.scoring.suggest.join_bugs import UNCERTAIN

from .tables import Columns, read_columns, read_fact, read_flagged, read_rows, value_of_text

SAME_TEXT, SAME_MEDIA = SIMILAR = ("same caption", "same placeholder")
LISTED_SCORES = ("misalignment", "probability", "outlier", "multimem")


def queue_of(dataset: SampleCollection, run: str, kinds: Sequence[str] = ()) -> ReviewQueue:
    """An audit's findings, and what was decided of them.

    Of a view only its samples; of some `kinds` only rows with one of these flags, else with any flag or an action other
    than keep; or of `review.MOST_UNCERTAIN` alone, flagged and other rows. A row whose text changed since it was
    decided counts as undecided again. Files are not read.

    Raises:
        AuditError: no such audit or kind.
    """
    return queues_of(dataset, run, [kinds])[0]


def queues_of(dataset: SampleCollection, run: str, choices: Sequence[Sequence[str]]) -> list[ReviewQueue]:
    """`queue_of` for each choice of kinds; what they have in common is read once.

    Raises:
        AuditError: no such audit or kind.
    """
    root, names = dataset._root_dataset, f"flags {', '.join(FLAGS)}"
    table = functools.cache(lambda: review_table(dataset, run))

    def ordered(kinds: Sequence[str]) -> tuple[Row, ...]:
        if tuple(kinds) == (MOST_UNCERTAIN,):
            return _most_uncertain(dataset, run)
        rows, columns = table()
        return tuple(rows[position] for position in queue(columns, kinds))

    def order_of(kinds: Sequence[str]) -> tuple[Row, ...]:
        if dataset is not root:
            return ordered(kinds)
        name = f"queue of {', '.join(kinds)}, {names}"
        order: tuple[Row, ...] = read_fact(root, run, name, lambda: ordered(kinds), of_columns=True)
        return order

    with database(f"reading audit {run!r}"):
        orders = [order_of(kinds) for kinds in choices]
        ledger = resolve(read_ledger(root, {}))
        moved = moved_texts(root, run)
        decided = decisions_of(root, run, list(dict.fromkeys(chain.from_iterable(orders))), ledger, moved)
    return [_queue_of_order(order, decided, moved) for order in orders]


def _most_uncertain(dataset: SampleCollection, run: str) -> tuple[Row, ...]:
    items = audited_items(dataset, run)
    wanted = ("probability", "duplicate_group", CAPTION_INDEX, f"probability{LIST}")
    table = read_columns(dataset, run, ["id", *filter(items.has, wanted)])
    ids = items.ids_in(dataset)
    rows = most_uncertain(table) if "probability" in table else []
    return tuple(row for row in rows if ids is None or row[0] in ids)


def _queue_of_order(order: Sequence[Row], decided: Mapping[Row, Decision], moved: Set[str]) -> ReviewQueue:
    rows = tuple(row for row in order if row[0] not in moved or row in decided)
    return ReviewQueue(rows, {row: decided[row] for row in rows if row in decided})


def moved_texts(dataset: fo.Dataset, run: str) -> frozenset[str]:
    """Ids of the rows whose lists of texts lost some since the audit, so that its positions are those of other texts.

    They lost them by decisions that were applied. What the audit found in their other texts is found by a new audit.
    """
    audited, column = audited_items(dataset, run), f"misalignment{LIST}"
    names = shortened_lists(dataset) if audited.has(column) else ()
    if not names:
        return frozenset()
    items = items_of_rows(dataset, run, sorted(names), media=False)
    values = read_rows(audited, list(items), [column])
    return frozenset(
        name for name, item in items.items() if len(item.content.texts) != len(values.get(name, {}).get(column) or ())
    )


def disagreements_of(dataset: SampleCollection, run: str) -> tuple[ReviewQueue, dict[Row, tuple[Decision, ...]]]:
    """(the rows on which reviewers disagree, row -> the latest decision of each reviewer), the latest ones first.

    A row is decided once somebody has decided on it after the reviewers disagreed. Rows of other audits' samples are
    among them, and those whose text changed since are not.

    Raises:
        AuditError: no such audit.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r}"):
        entries = read_ledger(root, {})
        resolution, waiting = resolve(entries), unsettled(entries)
        newest = sorted(resolution.disagreements, key=lambda key: resolution.current[key].order, reverse=True)
        keys: dict[Row, Key] = {
            (label or sample, caption): (sample, label, caption) for sample, label, caption in newest
        }
        held = decisions_of(root, run, list(keys), resolution)
    decided = {row: decision for row, decision in held.items() if keys[row] not in waiting}
    rows = tuple(row for row in keys if row in held)
    return ReviewQueue(rows, decided), {row: resolution.disagreements[keys[row]] for row in rows}


def decision_of(dataset: SampleCollection, run: str, row: Row) -> Decision | None:
    """The decision that holds on one row, whether a queue has it or not; None where its text changed since.

    Raises:
        AuditError: no such audit.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r}"):
        item = items_of_rows(root, run, [row[0]], media=False).get(row[0])
        if item is None:
            return None
        current = resolve(read_ledger(root, {"sample": item.sample})).current
        decision = current.get((item.sample, item.label, row[1]))
        is_stale = decision and stale(decision, content_digest(item.content.text(row[1]), ""))
        return None if is_stale else decision


def without_effect(dataset: SampleCollection, made: Sequence[Decision]) -> tuple[list[Decision], list[Decision]]:
    """(those of some decisions whose sample or object is gone, those whose text has changed since).

    Files are not read: a change of a picture is not seen here.
    """
    root = dataset._root_dataset
    with database(f"reading decisions on {root.name!r}"):
        items = read_items(root, {(d.sample, d.label): d.field for d in made}, media=False)
    held = [(decision, items.get((decision.sample, decision.label))) for decision in made]
    gone = [decision for decision, item in held if item is None]
    changed = [
        decision
        for decision, item in held
        if item is not None and stale(decision, content_digest(item.content.text(decision.caption), ""))
    ]
    return gone, changed


def memorized_rows(dataset: SampleCollection, run: str, most: int) -> dict[str, tuple[Row, ...]]:
    """List of memorized rows (`scoring.memorized.ADVICE`) -> its rows; `highest`: the first `most`, flagged or not.

    Of a view only its samples. Rows with a decision are among them.

    Raises:
        AuditError: no such audit.
    """
    with database(f"reading audit {run!r}"):
        rows, columns = table_of_present_texts(dataset, run)
    lists = memorized_lists(columns) | {"highest": rank_memorized(columns)[:most]}
    return {name: tuple(rows[position] for position in positions) for name, positions in lists.items()}


@dataclass(frozen=True)
class ListedRow:
    """A row of a review as a list shows it. Texts are unchanged; escape them before they are shown.

    Attributes:
        name: id of the sample or object.
        caption: position of the text that is in question.
        path: of the sample's file.
        text: the caption or class label.
        suggestion: what the audit suggests instead, or "".
        scores: column -> value, as far as there are any.
        flags: kinds.
        action: what the audit proposes.
        reason: why.
    """

    name: str
    caption: int
    path: str
    text: str
    suggestion: str
    scores: Mapping[str, float]
    flags: tuple[str, ...]
    action: str
    reason: str


def list_rows(dataset: SampleCollection, run: str, rows: Sequence[Row]) -> list[ListedRow]:
    """What a list shows of rows, in their order; those that are gone are left out. Files are not read.

    Raises:
        AuditError: no such audit.
    """
    audited, names = audited_items(dataset, run), list(dict.fromkeys(name for name, _ in rows))
    with database(f"reading audit {run!r}"):
        items = items_of_rows(audited.dataset, run, names, media=False)
        values = read_rows(audited, names, audited.columns)
        holders = {item.sample for item in items.values()}
        documents = documents_by_id(audited.dataset._sample_collection, holders, {"filepath": 1})
    listed = []
    for name, caption in rows:
        item, of_row = items.get(name), values.get(name, {})
        if item is None:
            continue
        texts = {column: value_of_text(of_row, column, caption) for column in ("suggestion", "action", "reason")}
        scores = {column: value_of_text(of_row, column, caption) for column in LISTED_SCORES}
        listed.append(
            ListedRow(
                name,
                caption,
                str(documents.get(item.sample, {}).get("filepath", "")),
                item.content.text(caption) or "",
                str(texts["suggestion"] or ""),
                {column: float(value) for column, value in scores.items() if value is not None},
                flags_of_text(of_row, caption),
                str(texts["action"] or "review"),
                str(texts["reason"] or ""),
            )
        )
    return listed


def flags_of_text(values: Mapping[str, Any], caption: int) -> tuple[str, ...]:
    """The kinds of flags of one text of a row: its own, where each text has its own, and those of the row's media."""

    def has(column: str) -> bool:
        is_listed = values.get(f"{column}{LIST}") is not None
        return bool(value_of_text(values, column, caption) if is_listed else values.get(column))

    return tuple(kind for kind in FLAGS if has(f"is_{kind}"))


def batch_rows(
    dataset: SampleCollection, run: str, kind: str, decision: str, threshold: float | None = None
) -> tuple[Row, ...]:
    """The rows of a view with one kind of finding that a batch decision can be made for, most suspicious first.

    They are the flagged ones, or those with a score of at least a `threshold`, of a list of texts that of the worst
    one. Rows with a decision are left out. Of duplicates only those that the audit would remove are removed, so that
    one of each group stays; of a sample that it would remove, all texts are. Only rows with a suggestion are relabeled,
    and those with a text problem only where that is proposed: a cleaned text may be outdated.

    Raises:
        AuditError: no such audit or kind, or a threshold for a kind that has no score.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r}"):
        rows, columns = review_table(dataset, run, flagged=threshold is None)
        flag = f"is_{kind}"
        if threshold is not None:
            if kind not in movable_flags():
                raise AuditError(f"kind {kind!r} has no score; set a threshold for one of {', '.join(movable_flags())}")
            columns[flag] = columns[movable_flags()[kind]] >= threshold
        if decision == "relabel" and flag in columns:
            is_proposed = ~columns["is_text_problem"] | (columns["action"] == "relabel")
            columns[flag] = columns[flag] & (columns["suggestion"] != "") & is_proposed
        elif decision == "remove" and kind == "duplicate":
            columns[flag] = columns[flag] & (columns["action"] == "remove")
        order = [rows[position] for position in queue(columns, [kind])]
        if decision == "remove":
            whole = {rows[position] for position in np.flatnonzero(columns["action"] == "remove")}
            order = _with_other_texts(root, run, order, whole)
    return undecided(dataset, run, order)


def _with_other_texts(dataset: fo.Dataset, run: str, rows: Sequence[Row], whole: Set[Row]) -> list[Row]:
    """The rows, and after each of the `whole` ones, whose sample is to be removed, those of its other texts."""
    column = f"action{LIST}"
    values = read_rows(audited_items(dataset, run), [name for name, _ in whole], [column])
    found = []
    for name, caption in rows:
        texts = values.get(name, {}).get(column) if (name, caption) in whole else None
        found += [(name, caption), *((name, at) for at in range(len(texts or ())) if at != caption)]
    return list(dict.fromkeys(found))


def similar_rows(dataset: SampleCollection, run: str, row: Row, findings: ReviewQueue) -> dict[str, tuple[Row, ...]]:
    """`SIMILAR` -> the undecided rows among some findings that share a fault with a row, itself among them.

    Those with the same caption, unless it is a class, and of a row that is flagged as a placeholder those with the same
    picture or sound; only where there are several.

    Raises:
        AuditError: no such audit.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r}"):
        own = items_of_rows(root, run, [row[0]], media=False).get(row[0])
        text = line_of(own.content.text(row[1])) if own and class_path(root, run) is None else ""
        name = f"rows by text, flags {', '.join(FLAGS)}"  # as they were read first: those that share it are read again
        by_text = read_fact(root, run, name, lambda: _rows_by_text(root, run), of_columns=True)
        of_media = read_fact(root, run, "placeholders by group", lambda: _placeholders(root, run), of_columns=True)
        group: frozenset[str] = next((names for names in of_media.values() if row[0] in names), frozenset())
        left = set(findings.left)
        shared = dict.fromkeys((row, *by_text.get(text, ()))) if text else {}
        same_text = [other for other in findings.rows if other in shared and other in left]
        items = items_of_rows(root, run, [name for name, _ in same_text], media=False)
    same_text = [
        (name, caption)
        for name, caption in same_text
        if name in items and line_of(items[name].content.text(caption)) == text
    ]
    found = {SAME_TEXT: tuple(same_text), SAME_MEDIA: tuple(other for other in findings.left if other[0] in group)}
    return {kind: rows for kind, rows in found.items() if len(rows) > 1}


def undecided(dataset: SampleCollection, run: str, rows: Sequence[Row]) -> tuple[Row, ...]:
    """Those of some rows without a decision that holds, and whose texts did not move (`moved_texts`).

    Raises:
        AuditError: no such audit.
    """
    root = dataset._root_dataset
    with database(f"reading audit {run!r}"):
        moved = moved_texts(root, run)
        decided = decisions_of(root, run, rows, resolve(read_ledger(root, {})), moved)
    return tuple(row for row in rows if row not in decided and row[0] not in moved)


def with_suggestion(dataset: SampleCollection, run: str, rows: Sequence[Row]) -> tuple[Row, ...]:
    """Those of some rows that the audit suggests a text for, by the rule of `batch_rows`.

    Raises:
        AuditError: no such audit.
    """
    names, columns = [name for name, _ in rows], ("suggestion", "action", "is_text_problem")
    read = [CAPTION_INDEX, *columns, *(f"{column}{LIST}" for column in columns)]
    values = read_rows(audited_items(dataset, run), names, read)

    def is_proposed(row: Row) -> bool:
        text, action, has_problem = (value_of_text(values.get(row[0], {}), column, row[1]) for column in columns)
        return bool(text) and (not has_problem or action == "relabel")

    return tuple(filter(is_proposed, rows))


def line_of(text: str | None) -> str:
    """A caption as it is compared: its words, without regard to case and blanks."""
    return " ".join((text or "").casefold().split())


def _rows_by_text(dataset: fo.Dataset, run: str) -> dict[str, list[Row]]:
    rows = queue_of(dataset, run).rows
    items = items_of_rows(dataset, run, [name for name, _ in rows], media=False)
    by_text: dict[str, list[Row]] = {}
    for name, caption in rows:
        if name in items:
            by_text.setdefault(line_of(items[name].content.text(caption)), []).append((name, caption))
    return by_text


def _placeholders(dataset: fo.Dataset, run: str) -> dict[str, frozenset[str]]:
    """Group of copies -> the ids of its rows that are flagged as placeholders."""
    audited = audited_items(dataset, run)
    if not audited.has("duplicate_group") or not audited.has("is_placeholder"):
        return {}
    columns = read_columns(dataset, run, ["id", "duplicate_group", "is_placeholder"])
    groups: dict[str, set[str]] = {}
    for position in np.flatnonzero(columns["is_placeholder"]).tolist():
        if group := columns["duplicate_group"][position]:
            groups.setdefault(group, set()).add(columns["id"][position])
    return {group: frozenset(names) for group, names in groups.items()}


def review_table(dataset: SampleCollection, run: str, flagged: bool = True) -> tuple[list[Row], Columns]:
    """The rows of an audit, all or only those with a flag or a proposal, with what a queue is made of.

    Returns:
        Rows, and columns `[n]`: scores, flags, action, suggestion. A sample with a list of texts has a row for each
        misaligned text, or else one for its worst text. A group has one row.
    """
    table = read_flagged(dataset, run, flagged)
    ids = audited_items(dataset, run).ids_in(dataset)
    if ids is not None:
        inside = np.array([name in ids for name in table["id"]], dtype=bool)
        table = {name: values[inside] for name, values in table.items()}
    return rows_per_text(table)


def table_of_present_texts(dataset: SampleCollection, run: str) -> tuple[list[Row], Columns]:
    """`review_table` of all rows, without those whose texts moved since the audit (`moved_texts`)."""
    rows, columns = review_table(dataset, run, flagged=False)
    if not (moved := moved_texts(dataset._root_dataset, run)):
        return rows, columns
    stays = np.array([name not in moved for name, _ in rows], dtype=bool)
    return [row for row, kept in zip(rows, stays, strict=True) if kept], {n: v[stays] for n, v in columns.items()}


def repair_decisions(
    dataset: SampleCollection, run: str, sentence: str, reviewer: str = "", uncertain: bool = False
) -> list[Decision]:
    """Relabel the rows of a suggested shift, swap or cycle to the captions suggested for them, as one batch.

    The sentence is that of one of the run's `summary["repairs"]`; the reviewer "" is the user of this machine. Rows at
    an end of a shift that is not certain are left out, unless `uncertain` relabels them as well.

    Raises:
        AuditError: no row of the audit belongs to the repair.
    """
    root = dataset._root_dataset
    table = read_flagged(root, run)
    reasons = [sentence, f"{UNCERTAIN}{sentence}"] if uncertain else [sentence]
    rows = np.flatnonzero(np.isin(table["reason"].astype(str), reasons) & (table["suggestion"] != ""))
    if not len(rows) and not uncertain and uncertain_rows(root, run, sentence):
        raise AuditError(
            f"all rows of the repair {sentence!r} are uncertain; look at them, and give uncertain=True to relabel them"
        )
    if not len(rows):
        raise AuditError(f"no sample of audit {run!r} belongs to the repair {sentence!r}; take one from its summary")
    captions = np.maximum(table[CAPTION_INDEX], 0).tolist()
    proposed = [Decision(table["id"][row], "relabel", captions[row], text=table["suggestion"][row]) for row in rows]
    made = [replace(d, source="repair", reviewer=reviewer, note=sentence) for d in proposed]
    return decide_many(root, made, run)


def uncertain_rows(dataset: SampleCollection, run: str, sentence: str) -> list[str]:
    """Ids of the rows at an end of a suggested shift that is not certain, by the sentence of the repair.

    Raises:
        AuditError: no such audit.
    """
    table = read_flagged(dataset._root_dataset, run)
    return [str(name) for name in table["id"][table["reason"] == f"{UNCERTAIN}{sentence}"]]


def decisions_of(
    dataset: fo.Dataset, run: str, rows: Sequence[Row], ledger: Resolution, moved: Set[str] = frozenset()
) -> dict[Row, Decision]:
    """Row -> its decision, where there is one and its text has not changed since.

    Of rows whose texts `moved` (`moved_texts`) the decisions hold that were made before.
    """
    current = ledger.current
    decided_ids = {sample for sample, _, _ in current} | {label for _, label, _ in current}
    candidates = [row for row in rows if row[0] in decided_ids]
    items = items_of_rows(dataset, run, [name for name, _ in candidates], media=False) if candidates else {}
    decided = {}
    for name, caption in candidates:
        item = items.get(name)
        decision = current.get((item.sample, item.label, caption)) if item else None
        if item is None or decision is None:
            continue
        if name in moved or not stale(decision, content_digest(item.content.text(caption), "")):
            decided[name, caption] = decision
    return decided
