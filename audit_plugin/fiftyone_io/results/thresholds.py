"""A threshold that a person sets: flags, tags and proposals rewritten from the scores, and back, without computing.

The audit's own flags and proposals are recorded before a row changes for the first time, so that taking all thresholds
back restores the very same values, in whatever order they were set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import database
from audit_plugin.fiftyone_io.lease import leased
from audit_plugin.fiftyone_io.read.items import AuditedItems
from audit_plugin.fiftyone_io.records import collect_files, config_of, update_run
from audit_plugin.fiftyone_io.runs import audited_items, finished_document, items_of, run_results
from audit_plugin.fiftyone_io.write.results import take_back_added
from audit_plugin.review.flag_quality import Calibration
from audit_plugin.scoring.columns import CAPTION_INDEX
from audit_plugin.scoring.flags import movable_flags
from audit_plugin.scoring.named_modality import NAMED_WHERE
from audit_plugin.scoring.reflag import reflag, reflag_needs

from .tables import Columns, as_array, read_columns


def set_threshold(
    dataset: SampleCollection, run: str, kind: str, threshold: float | None, calibration: Calibration | None = None
) -> int:
    """Flag the samples whose score is at least `threshold`, for one kind; None restores the audit's own flags.

    Flag, tag, action and reason of the samples that this changes are rewritten; removals proposed for copies and
    placeholders stay. Nothing else is touched, and a tag that the user had set stays. The kind is misaligned, memorized
    or outlier; all samples of the audit are concerned.

    `calibration`: what labels say of this threshold of misaligned pairs; it is recorded with it, and goes with it.

    Returns:
        How many samples changed.

    Raises:
        AuditError: no such audit, a kind without a score, an audit of objects or of lists of texts, another process
            changes the dataset, or a lost database (set it again then).
    """
    root = dataset._root_dataset
    doing = f"setting a threshold of audit {run!r}"
    with database(f"{doing} in dataset {root.name!r}", "set the threshold again"), leased(root, doing):
        collect_files(root)
        take_back_added(root, run)
        read = finished_document(root, run)
        record = config_of(read)
        items, results = items_of(root, run, record), run_results(root, f"audit {run!r}", read)
        _check(items, kind, threshold)
        thresholds = {**(getattr(record, "thresholds", None) or {}), kind: threshold}
        thresholds = {name: value for name, value in thresholds.items() if value is not None}
        recorded = dict(getattr(results, "own", None) or {})

        columns = read_columns(root, run, ["id", *filter(reflag_needs, items.columns)])
        own = _own_columns(columns, recorded)
        changed = _reflagged(columns, own, thresholds)
        differs = np.logical_or.reduce([changed[name] != columns[name] for name in changed])
        rows = np.flatnonzero(differs)
        samples = items.samples(columns["id"].tolist())

        # recorded before anything changes: what can be restored, and which tags are the run's to remove
        changing = {name: _row(own, row) for row in rows.tolist() for name in samples[columns["id"][row]]}
        results.own = {**changing, **recorded}
        tagging = [name for name in movable_flags() if record.status == "setting" and f"{run}:{name}" in results.tagged]
        kinds = dict.fromkeys([kind, *tagging])  # those of a change that was interrupted too
        flagged = {f"{run}:{name}": _samples_of(columns["id"][changed[f"is_{name}"]], samples) for name in kinds}
        untagged = {}  # of the flagged ones; others have the tag already
        for tag, ids in flagged.items():
            tagged = items.tagged(tag)
            untagged[tag] = [name for name in ids if name not in tagged]
            results.tagged[tag] = list(dict.fromkeys([*results.tagged.get(tag, ()), *untagged[tag]]))
        record.tags = list(dict.fromkeys([*record.tags, *flagged]))
        record.thresholds, record.status = thresholds, "setting"
        if kind == "misaligned":
            record.calibration = None if calibration is None else asdict(calibration)
        read = update_run(root, read, record, results)

        names = [(columns["id"][row], row) for row in rows.tolist()]
        items.write((name, samples[name], _row(changed, row)) for name, row in names)
        for tag, ids in flagged.items():
            items.tag(untagged[tag], tag)
            items.untag(set(results.tagged[tag]) - set(ids), tag)
        record.status = "done"  # what was read of the rows meanwhile is read again
        update_run(root, read, record)
    return sum(len(samples[name]) for name, _ in names)


def can_move_threshold(dataset: SampleCollection, run: str, kind: str) -> bool:
    """Whether `set_threshold` can flag the audit's rows of a kind again."""
    return not _why_fixed(audited_items(dataset, run), kind)


def _reflagged(
    columns: Mapping[str, Any], own: Mapping[str, Any], thresholds: Mapping[str, float]
) -> dict[str, NDArray[Any]]:
    """The columns of `reflag` under some thresholds, from the audit's `own`."""
    flags = {name: values for name, values in own.items() if name.startswith("is_")}
    for name, value in thresholds.items():
        flags[f"is_{name}"] = columns[movable_flags()[name]] >= value  # False for NaN
    return reflag({**columns, **own}, flags)


def _check(items: AuditedItems, kind: str, threshold: float | None) -> None:
    if threshold is not None and not np.isfinite(threshold):
        raise AuditError(f"threshold {threshold} is not a finite number; give one, or None for the audit's own flags")
    if why := _why_fixed(items, kind):
        raise AuditError(why)


def _why_fixed(items: AuditedItems, kind: str) -> str:
    """Why a threshold of this kind cannot be set; "" where it can."""
    if kind not in movable_flags():
        return f"kind {kind!r} has no score; choose one of {', '.join(movable_flags())}"
    if items.label_field or items.has(CAPTION_INDEX):
        what = "objects" if items.label_field else "lists of texts"
        return f"audit {items.run!r} is of {what}, whose thresholds cannot be set; audit again with another rate"
    missing = [name for name in (f"is_{kind}", movable_flags()[kind]) if not items.has(name)]
    if missing:
        return f"audit {items.run!r} has no column {missing[0]!r}, by which rows would be flagged; audit again"
    return ""


def _own_columns(columns: Columns, recorded: dict[str, dict[str, Any]]) -> Columns:
    """The columns that thresholds change, `[n]`, as the audit wrote them: as recorded, or else as they are now."""
    own = {}
    for name in (*(f"is_{kind}" for kind in movable_flags()), "action", "reason", *NAMED_WHERE):
        if name in columns:
            values = zip(columns["id"], columns[name].tolist(), strict=True)
            own[name] = as_array(name, [recorded.get(item, {}).get(name, value) for item, value in values])
    return own


def _samples_of(rows: Iterable[str], samples: Mapping[str, Sequence[str]]) -> list[str]:
    return list(chain.from_iterable(samples[row] for row in rows))


def _row(columns: dict[str, NDArray[Any]], row: int) -> dict[str, Any]:
    """Column -> value of one row as the database has it, None for no text."""
    return {
        name: bool(values[row]) if values.dtype == bool else values[row] or None for name, values in columns.items()
    }
