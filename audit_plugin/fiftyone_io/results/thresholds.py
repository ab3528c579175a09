"""A threshold that a person chose: flags, tags and proposals rewritten from the scores, and back, without computing.

What the audit itself said of a row is put down before the row changes for the first time, so that taking all
thresholds back restores the very same values, in whatever order they were set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.core.runs as fors
import numpy as np
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from pymongo import UpdateOne

from audit_plugin.arrays import AuditError
from audit_plugin.config import FLAG_KINDS
from audit_plugin.fiftyone_io.runs import audit_info, batches, database, every_sample

from .findings import SCORE_OF, has_column

Own = dict[str, dict[str, Any]]


def set_threshold(dataset: SampleCollection, run: str, kind: str, threshold: float | None) -> int:
    """Flag the samples whose score is at least `threshold`, for one kind; None takes the audit's own flags back.

    Flag, tag, action and reason of the samples that this changes are rewritten; removals proposed for copies and
    placeholders stay. Nothing else is touched, and a tag that the user had set stays.

    Args:
        dataset: the dataset or a view of it; all samples of the audit are concerned.
        run: key of the audit.
        kind: misaligned, memorized or outlier.
        threshold: lowest score that is flagged, or None.

    Returns:
        How many samples changed.

    Raises:
        AuditError: no such audit, a kind without a score, an audit of objects or of lists of texts, or a lost database.
    """
    root = dataset._root_dataset
    record = audit_info(root, run)
    _check(root, run, kind, threshold)
    with database(f"setting a threshold of audit {run!r} in dataset {root.name!r}", "set the threshold again"):
        thresholds = {**(getattr(record, "thresholds", None) or {}), kind: threshold}
        thresholds = {name: value for name, value in thresholds.items() if value is not None}
        found = root.load_run_results(run, cache=False, load_view=False)
        own: Own = dict(getattr(found, "own", None) or {})
        rows = _rows(root, run)
        wanted = {name: _wanted(row, own.get(name), thresholds) for name, row in rows.items()}
        changed = {name: new for name, new in wanted.items() if any(rows[name][key] != new[key] for key in new)}
        own = {name: _own_of(rows[name]) for name in changed if name not in own} | own
        flagged = [name for name, row in rows.items() if {**row, **changed.get(name, {})}[f"is_{kind}"]]
        bare = _without_tag(root, flagged, f"{run}:{kind}")
        _record(root, run, found, own, {f"{run}:{kind}": bare}, thresholds)
        _write(root, run, changed)
        _retag(root, f"{run}:{kind}", bare, set(found.tagged[f"{run}:{kind}"]) - set(flagged))
    return len(changed)


def thresholds_of(dataset: SampleCollection, run: str) -> dict[str, float]:
    """Kind -> threshold that a person set; empty where the audit's own flags stand."""
    return dict(getattr(audit_info(dataset, run), "thresholds", None) or {})


def _check(root: fo.Dataset, run: str, kind: str, threshold: float | None) -> None:
    record = audit_info(root, run)
    if kind not in SCORE_OF:
        raise AuditError(f"kind {kind!r} has no score; choose one of {', '.join(SCORE_OF)}")
    if threshold is not None and not np.isfinite(threshold):
        raise AuditError(f"threshold {threshold} is no number; give one, or none to take the audit's own flags back")
    if record.label_field or has_column(root, run, "caption_index"):
        what = "objects" if record.label_field else "lists of texts"
        raise AuditError(f"audit {run!r} is of {what}, whose thresholds cannot be set; audit again with another rate")
    lacking = [name for name in (f"is_{kind}", SCORE_OF[kind]) if not has_column(root, run, name)]
    if lacking:
        raise AuditError(f"audit {run!r} has no column {lacking[0]!r}, so nothing can be flagged by it")


def _rows(root: fo.Dataset, run: str) -> dict[str, dict[str, Any]]:
    """Sample id -> what its flags, proposal and scores are."""
    names = [*(f"is_{kind}" for kind in FLAG_KINDS), *SCORE_OF.values(), "action", "reason", "suggestion", "failure"]
    names = [name for name in names if has_column(root, run, name)]
    ids, *columns = every_sample(root).values(["id", *(f"{run}_{name}" for name in names)])
    rows = zip(ids, *columns, strict=True)
    table = {name: dict(zip(names, values, strict=True)) for name, *values in rows}
    return {name: row for name, row in table.items() if row["action"] is not None}


def _own_of(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in (*(f"is_{kind}" for kind in SCORE_OF), "action", "reason") if name in row}


def _wanted(row: Mapping[str, Any], own: Mapping[str, Any] | None, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """Flags, action and reason of a row under the thresholds: a function of these and of what the audit said."""
    said = dict(own) if own else _own_of(row)
    flags = {name: value for name, value in said.items() if name.startswith("is_")}
    for kind, cut in thresholds.items():
        score = row.get(SCORE_OF[kind])
        flags[f"is_{kind}"] = score is not None and score >= cut
    if row.get("failure") or all(bool(said[name]) == bool(value) for name, value in flags.items()):
        return said
    return {**flags, **_proposal({**row, **flags}, said)}


def _proposal(row: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Action and reason by the audit's own rules."""
    from audit_plugin.scoring.flags import propose_actions

    if said["action"] == "remove":
        return {"action": "remove", "reason": said["reason"]}
    flags = {kind: np.array([bool(row.get(f"is_{kind}"))]) for kind in FLAG_KINDS}
    scores = {name: np.array([np.nan if row.get(name) is None else row[name]]) for name in SCORE_OF.values()}
    no = np.zeros(1, dtype=bool)
    action, reason = propose_actions(flags, [row.get("suggestion") or ""], ~no, no, scores)
    return {"action": str(action[0]), "reason": str(reason[0]) or None}


def _record(
    root: fo.Dataset, run: str, found: Any, own: Own, tags: Mapping[str, Sequence[str]], thresholds: Mapping[str, float]
) -> None:
    """Put down what is about to change: what can be taken back, and which tags are the run's to take away."""
    record = audit_info(root, run)
    found.own = own
    for tag, names in tags.items():
        found.tagged[tag] = list(dict.fromkeys([*found.tagged.get(tag, ()), *names]))
    record.tags = list(dict.fromkeys([*record.tags, *tags]))
    record.thresholds = dict(thresholds)
    fors.Run.save_run_results(root, run, found, cache=False)
    fors.Run.update_run_config(root, run, record)


def _without_tag(root: fo.Dataset, ids: Sequence[str], tag: str) -> list[str]:
    """Those of the samples that do not bear the tag: what bears it already is the user's, or done."""
    bears = set(every_sample(root).match_tags(tag).values("id"))
    return [name for name in ids if name not in bears]


def _write(root: fo.Dataset, run: str, changed: Mapping[str, Mapping[str, Any]]) -> None:
    now = datetime.now(UTC)
    updates = []
    for name, new in changed.items():
        there = {f"{run}_{key}": value for key, value in new.items() if value is not None}
        gone = {f"{run}_{key}": "" for key, value in new.items() if value is None}
        change = {"$set": there | {"last_modified_at": now}} | ({"$unset": gone} if gone else {})
        updates.append(UpdateOne({"_id": ObjectId(name)}, change))
    if updates:
        root._bulk_write(updates, ids=list(changed))


def _retag(root: fo.Dataset, tag: str, on: Sequence[str], off: Iterable[str]) -> None:
    """Tags follow the flags; a tag that the run did not set is the user's and stays."""
    for batch in batches(list(on)):
        every_sample(root).select(batch).tag_samples(tag)
    for batch in batches(list(off)):
        every_sample(root).select(batch).match_tags(tag).untag_samples(tag)
