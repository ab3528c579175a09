"""What an audit left in a dataset, as plain values: for the report, and to be compared with another audit.

All functions raise `AuditError` where the dataset has no such audit, or the database was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError
from audit_plugin.audit.caption_lists import worst_texts
from audit_plugin.fiftyone_io.cross_modal import cross_modal_results, newest_cross_modal_run
from audit_plugin.fiftyone_io.database import database
from audit_plugin.fiftyone_io.ledger.changes import plan_of
from audit_plugin.fiftyone_io.ledger.decisions import current_decisions
from audit_plugin.fiftyone_io.ledger.relabels import applied_decisions, relabels
from audit_plugin.fiftyone_io.read.items import all_samples
from audit_plugin.fiftyone_io.read.samples import read_samples
from audit_plugin.fiftyone_io.runs import audit_info, audited_items, settings_of
from audit_plugin.report import ReportContent, TextChange, now
from audit_plugin.review.comparison import Comparison, compare
from audit_plugin.review.headline import ALL_KINDS, KindProgress
from audit_plugin.review.spot_check import SpotEstimate
from audit_plugin.scoring.columns import CAPTION_INDEX, LIST
from audit_plugin.scoring.flags import FLAGS

from .findings import calibration_of, spot_estimate
from .queues import queues_of
from .tables import Columns, audit_summary, explanations, read_columns


def review_report(dataset: SampleCollection, run: str) -> ReportContent:
    """The report of an audit with the decisions that hold, and with its spot check where one was begun."""
    plan = plan_of(dataset, run)
    outdated = {(d.sample, d.caption) for d in plan.stale}
    current = current_decisions(dataset, run).current.values()
    decisions = [{**asdict(d), "stale": (d.sample, d.caption) in outdated} for d in current]
    content = report_of_dataset(dataset, run, decisions, spot_estimate(dataset, run))
    changed = tuple(
        TextChange(one.decision.label or one.decision.sample, one.before, one.decision.text, one.is_applied)
        for one in relabels(dataset, run, plan)
    )
    return replace(content, progress=kind_progress(dataset, run), relabels=changed, to_apply=len(plan.changes))


def kind_progress(dataset: SampleCollection, run: str) -> tuple[KindProgress, ...]:
    """How far the review is: of all findings, then of each kind that the audit looked for."""
    items, done = audited_items(dataset, run), applied_decisions(dataset)
    kinds = [kind for kind in FLAGS if items.has(f"is_{kind}")]
    queues = queues_of(dataset, run, [(), *((kind,) for kind in kinds)])
    return tuple(
        KindProgress(
            kind,
            queue.progress.total,
            queue.progress.done,
            sum(decision.id in done for decision in queue.decided.values()),
        )
        for kind, queue in zip((ALL_KINDS, *kinds), queues, strict=True)
    )


def report_of_dataset(
    dataset: SampleCollection, run: str, decisions: Sequence[Mapping[str, Any]] = (), spot: SpotEstimate | None = None
) -> ReportContent:
    """The report of all that a run audited: fields, summary and explanations, with the captions as they are now.

    The decisions, and the estimate of a spot check, are shown as they are; see `ReportContent`.

    Raises:
        AuditError: nothing of what was audited is left.
    """
    record, items = audit_info(dataset, run), audited_items(dataset, run)
    root = items.dataset
    with database(f"reading audit {run!r} of dataset {root.name!r}"):
        columns = _all_columns(root, run)
        audited = root if items.slices else items.where(lambda column: column("action").exists())
        rows = read_samples(audited, settings_of(record), only_media=True)
    ids = columns.pop("id")
    listed = CAPTION_INDEX in columns
    worst = np.maximum(columns.pop(CAPTION_INDEX, np.zeros(len(ids), dtype=np.int64)), 0)
    samples = worst_texts(rows, dict(zip(ids, worst.tolist(), strict=True)), listed)
    if not len(samples):
        raise AuditError("nothing of what was audited is left in the dataset; audit it again")
    recall_run = newest_cross_modal_run(root)
    recall, identities = cross_modal_results(root, recall_run) if recall_run else ({}, [])
    positions = {name: position for position, name in enumerate(ids)}
    order = np.array([positions[name] for name in samples.ids], dtype=np.int64)
    return ReportContent(
        root.name,
        samples,
        {name: values[order] for name, values in columns.items()},
        {"config": settings_of(record).to_dict(), **audit_summary(root, run)},
        explanations(root, run),
        decisions,
        spot,
        now(),
        {**recall, "people": identities} if recall_run else {},
        media_source=f"the audited media fields of dataset {root.name!r}",
        thresholds=getattr(record, "thresholds", None) or {},
        calibration=calibration_of(record),
    )


def audit_scores(dataset: SampleCollection, run: str) -> Columns:
    """The columns of an audit with `id`, one row per sample, group or object, as `comparison.compare` takes them.

    Rows of groups go by the group's id, which is the same whatever slices an audit used.
    """
    items = audited_items(dataset, run)
    columns = _all_columns(items.dataset, run)
    columns.pop(CAPTION_INDEX, None)
    if items.slices:
        members = all_samples(items.dataset).values(["id", f"{items.dataset.group_field}.id"])
        groups = dict(zip(*members, strict=True))
        columns["id"] = np.array([groups[name] for name in columns["id"]], dtype=object)
    return columns


def _all_columns(root: fo.Dataset, run: str) -> Columns:
    """The ids and all columns of an audit, without the lists per text."""
    return read_columns(root, run, ["id", *(c for c in audited_items(root, run).columns if not c.endswith(LIST))])


def compare_audits(dataset: SampleCollection, before: str, after: str) -> Comparison:
    """What changed between two audits of a dataset.

    Raises:
        AuditError: they have no row in common.
    """
    return compare(audit_scores(dataset, before), audit_scores(dataset, after))
