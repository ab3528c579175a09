"""What an audit left in a dataset, read back as plain values: for the report, and to be compared with another run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.caption_lists import INDEX, LIST
from audit_plugin.fiftyone_io.cross_modal import newest_transfer, transfer_found
from audit_plugin.fiftyone_io.ledger.changes import plan_of
from audit_plugin.fiftyone_io.ledger.decisions import resolved
from audit_plugin.fiftyone_io.ledger.spot_checks import spot_check
from audit_plugin.fiftyone_io.read.items import objects_where
from audit_plugin.fiftyone_io.read.samples import read_samples
from audit_plugin.fiftyone_io.runs import AuditRunConfig, audit_info, database, settings_of
from audit_plugin.report import ReportContent, now
from audit_plugin.review.comparison import Comparison, compare
from audit_plugin.review.spot_check import SpotEstimate
from audit_plugin.store import cache_root

Columns = dict[str, NDArray[Any]]


def review_report(dataset: SampleCollection, run: str) -> ReportContent:
    """The report of an audit with the decisions that hold, and with its spot check where one was begun.

    Raises:
        AuditError: as `report_of_dataset`.
    """
    held = [{**asdict(d), "stale": False} for d in resolved(dataset, run).current.values()]
    stale = {(d.sample, d.caption) for d in plan_of(dataset, run).stale}
    for entry in held:
        entry["stale"] = (entry["sample"], entry["caption"]) in stale
    try:
        check = spot_check(dataset, run)
    except AuditError:  # none was started
        return report_of_dataset(dataset, run, held)
    return report_of_dataset(dataset, run, held, check.estimate() if any(check.verdicts) else None)


def report_of_dataset(
    dataset: SampleCollection, run: str, decisions: Sequence[Mapping[str, Any]] = (), spot: SpotEstimate | None = None
) -> ReportContent:
    """The report of an audit of a dataset: its fields, summary and explanations, with the captions as they are now.

    Args:
        dataset: the dataset or a view of it; the report is of all that the run audited.
        run: key of the audit.
        decisions: what people decided, one mapping each; see `ReportContent`.
        spot: what a spot check said, or None.

    Returns:
        One row per sample, per group (with the id of its first sample) or per object; of a list of texts the worst one.

    Raises:
        AuditError: no such audit, nothing left of what it audited, or a field that it read is gone.
    """
    root = dataset._root_dataset
    record = audit_info(root, run)
    with database(f"reading audit {run!r} of dataset {root.name!r}"):
        view = _audited(root, run, record)
        ids, columns = _values(view, run, record, "id")
        rows = read_samples(root if record.slices else view, settings_of(record))
        found = root.load_run_results(run, load_view=False)
    samples, order = _worst_texts(rows, ids, columns.pop(INDEX, None))
    return ReportContent(
        root.name,
        samples,
        {name: values[order] for name, values in columns.items()},
        {"config": record.settings} | dict(getattr(found, "summary", None) or {}),
        getattr(found, "explanations", None) or {},
        decisions,
        spot,
        now(),
        _transfer(root),
    )


def _transfer(root: fo.Dataset) -> dict[str, Any]:
    """The newest measurement of recall across modalities, {} where there is none."""
    run = newest_transfer(root)
    if not run:
        return {}
    summary, identities = transfer_found(root, run)
    return summary | {"people": identities}


def audit_scores(dataset: SampleCollection, run: str) -> Columns:
    """The columns of an audit with `id`, one row per sample, group or object, as `comparison.compare` takes them.

    Rows of groups go by the group's id, which is the same whatever slices an audit used.

    Raises:
        AuditError: no such audit, or the database was lost.
    """
    root = dataset._root_dataset
    record = audit_info(root, run)
    with database(f"reading audit {run!r} of dataset {root.name!r}"):
        key = f"{root.group_field}.id" if record.slices else "id"
        ids, columns = _values(_audited(root, run, record), run, record, key)
    columns.pop(INDEX, None)
    first = np.unique(np.array(ids, dtype=object), return_index=True)[1] if ids else np.zeros(0, np.int64)
    return {"id": np.array(ids, dtype=object)[first], **{name: values[first] for name, values in columns.items()}}


def compare_audits(dataset: SampleCollection, before: str, after: str) -> Comparison:
    """What changed between two audits of a dataset.

    Raises:
        AuditError: no such audit, no row in common, or the database was lost.
    """
    return compare(audit_scores(dataset, before), audit_scores(dataset, after))


def removal_report(dataset: SampleCollection) -> dict[str, Any] | None:
    """The newest removal study of the dataset (`removal_view`), None where there is none."""
    name, folder = dataset._root_dataset.name, cache_root() / "removal"
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        report = json.loads(path.read_text(encoding="utf-8"))
        if report.get("dataset") == name:
            return dict(report)
    return None


def _audited(root: fo.Dataset, run: str, record: AuditRunConfig) -> SampleCollection:
    """A view of everything that bears results of the run."""
    bears = F(f"{run}_action").exists()
    if record.label_field:
        return objects_where(root, record.label_field, bears)
    return (root.select_group_slices(record.slices, _allow_mixed=True) if record.slices else root).match(bears)


def _values(view: SampleCollection, run: str, record: AuditRunConfig, key: str) -> tuple[list[str], Columns]:
    """Keys, and column -> values `[q]`, of what a view of `_audited` holds; lists per text are left out."""
    names = [path.rsplit(".", 1)[-1] for path in record.fields]
    names = [name for name in names if not name.endswith(LIST)]
    prefix = f"{record.label_field}." if record.label_field else ""
    keys, *values = view.values([key, *(prefix + name for name in names)])
    return keys, {name.removeprefix(f"{run}_"): _column(name, v) for name, v in zip(names, values, strict=True)}


def _column(name: str, values: Sequence[Any]) -> NDArray[Any]:
    if any(isinstance(value, bool) for value in values):
        return np.array([bool(value) for value in values], dtype=bool)
    if any(isinstance(value, str) for value in values):
        return np.array(["" if value is None else value for value in values], dtype=object)
    if name.endswith(INDEX):
        return np.array([0 if value is None else value for value in values], dtype=np.int64)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _worst_texts(rows: Samples, ids: Sequence[str], index: NDArray[Any] | None) -> tuple[Samples, NDArray[np.int64]]:
    """The audited rows, of several texts of a sample the one of `index`; and where the values of each are.

    Args:
        rows: all rows of the dataset.
        ids: `[q]` that the values are of.
        index: `[q]` position of the text that each value is of, or None where samples have one.
    """
    place = {name: at for at, name in enumerate(ids)}
    number = rows.caption or (0,) * len(rows)
    kept: dict[str, int] = {}
    for row, name in enumerate(rows.ids):
        if name in place and (name not in kept or (index is not None and number[row] == index[place[name]])):
            kept[name] = row
    if not kept:
        raise AuditError("nothing of what was audited is left in the dataset; audit it again")
    chosen = list(kept.values())
    media = {modality: tuple(values[row] for row in chosen) for modality, values in rows.media.items()}
    caption = tuple(number[row] for row in chosen) if index is not None else ()
    return Samples(tuple(kept), media, caption=caption), np.array([place[name] for name in kept], dtype=np.int64)
