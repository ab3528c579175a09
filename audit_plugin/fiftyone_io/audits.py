"""Audits of datasets and views: what the operators and the command line call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.result import AuditResult
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io.database import count_samples, database
from audit_plugin.fiftyone_io.read.items import ungrouped
from audit_plugin.fiftyone_io.read.samples import read_samples
from audit_plugin.fiftyone_io.read.sources import resolve_settings
from audit_plugin.fiftyone_io.results.findings import MAP
from audit_plugin.fiftyone_io.write.results import add_result, check_writable, take_back_added, write_result
from audit_plugin.store import Damaged, cache_root, digest_of, private_folder, read_json, sealed_json, write_bytes

from .lease import check_lease, leased
from .records import config_of, update_run
from .runs import audited_items, finish_deletions, finished_audit, finished_document, items_of, list_audits, settings_of

if TYPE_CHECKING:
    from audit_plugin.encoders.embed import Progress

REMOVAL = "removal"  # folder of the reports of removal studies


def audit_view(
    view: SampleCollection,
    config: AuditConfig | None = None,
    progress: Progress | None = None,
    run_dir: str | Path | None = None,
) -> AuditResult:
    """Audit a dataset or view and write the results into it.

    Args:
        view: the samples to audit, or a view of the patches of their detections; only these are changed.
        config: settings, all defaults if None.
        progress: called as `progress(stage, done, total)`; the stages are those of the pipeline, then "write".
        run_dir: where arrays and heads are stored (default: the pipeline's choice).

    Returns:
        One value per sample and column, in the order of the view; `ids` are sample ids. A grouped view has one row
        per group, written on the group's samples in all slices used. A list of texts has one row per text; the sample
        gets the worst text's values, and parallel lists. A view of patches has one row per object; `ids` are label
        ids, and the results are attributes and tags of the labels.

    Raises:
        AuditError: the view cannot be audited, a field of the user's own is in the way, or the database was lost.
    """
    from audit_plugin.audit.run import run_audit

    view = ungrouped(view)
    config = resolve_settings(view, config or AuditConfig())
    samples = read_samples(view, config)
    finish_deletions(view)
    check_writable(view, config.run)  # before hours of work, not after
    result = run_audit(samples, config, progress, run_dir)
    failures = result.columns["failure"]
    if all(failures) and config.run in list_audits(view):  # the disk with the media may not be mounted
        raise AuditError(
            f"no sample can be scored (the first: {failures[0]}); the results of audit {config.run!r} stay as they "
            "were: make the media readable and repeat the audit, or delete it first"
        )
    try:
        write_result(view, result, config, progress, caption_numbers(samples))
    except AuditError as error:
        if result.run_dir in str(error):
            raise
        safe = f"the scores are safe in {result.run_dir}, and the same audit again only writes them"
        raise AuditError(f"{error}; {safe}") from error
    return result


def scan_new(dataset: SampleCollection, run: str, progress: Progress | None = None) -> AuditResult:
    """Score the samples that came after an audit by its heads, and write them into it; nothing is trained.

    All samples (groups, objects) of the dataset without the audit's results are scanned.

    Returns:
        One value per new sample and column; their MultiMem is NaN, since nothing was trained on them.

    Raises:
        AuditError: nothing is new, the audit cannot be extended (then audit again), or the database was lost.
    """
    from audit_plugin.audit.extend import extend_run

    take_back_added(dataset._root_dataset, run)
    record, view = finished_audit(dataset, run), audited_items(dataset, run).without_results()
    if not len(view):
        raise AuditError(f"no sample of dataset {view._root_dataset.name!r} came after audit {run!r}; nothing to scan")
    config = settings_of(record)
    samples = read_samples(view, config)
    result = extend_run(samples, record.run_dir, progress)
    add_result(view, result, config, progress, caption_numbers(samples))
    return result


def caption_numbers(samples: Samples) -> tuple[int, ...]:
    """`[n]` position of each row's text in its sample's list, -1 where that is empty; () where texts are no lists."""
    if not samples.caption:
        return ()
    positions = zip(samples.caption, samples.media["text"], strict=True)
    return tuple(-1 if text is None else position for position, text in positions)


def run_removal_study(
    view: SampleCollection,
    config: AuditConfig | None = None,
    amounts: tuple[int, ...] | None = None,
    seeds: int = 5,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure what the removal of a view's worst rows does to a model. Writes nothing into the dataset.

    Returns:
        The report of `removal_study`, with sample ids, `dataset`, and `saved`: where it lies as JSON.

    Raises:
        AuditError: the view cannot be read or is too small, or an amount is too large.
    """
    from audit_plugin.audit.removal_study import removal_study
    from audit_plugin.encoders.embed import silent

    view = ungrouped(view)
    config = resolve_settings(view, config or AuditConfig())
    report = removal_study(read_samples(view, config), config, amounts, seeds, progress or silent)
    root = view._root_dataset
    report = {**report, "dataset": root.name, "dataset_id": str(root._doc.id)}
    path = private_folder(_removal_folder(root)) / f"{digest_of(report)[:16]}.json"
    write_bytes(path, sealed_json(report, REMOVAL))
    return {**report, "saved": str(path)}


def removal_report(dataset: SampleCollection) -> dict[str, Any] | None:
    """The newest removal study of the dataset (`run_removal_study`), None where there is none.

    Files that cannot be read are passed over.
    """
    root = dataset._root_dataset
    for _, report in _reports(_removal_folder(root)):
        if report.get("dataset_id") == str(root._doc.id):
            return report
    # former versions: all datasets in one folder, without their ids
    for seconds, report in _reports(cache_root() / REMOVAL):
        if report.get("dataset") == root.name and seconds > root._doc.id.generation_time.timestamp():
            return report
    return None


def _removal_folder(root: fo.Dataset) -> Path:
    return cache_root() / REMOVAL / str(root._doc.id)


def _reports(folder: Path) -> Iterator[tuple[float, dict[str, Any]]]:
    """(time in seconds, report) of each readable removal study of a folder, the newest first."""
    times = {}
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError):  # removed meanwhile
            times[path] = path.stat().st_mtime
    for path in sorted(times, key=lambda path: times[path], reverse=True):
        try:
            report, _ = read_json(path, REMOVAL)
        except (OSError, AuditError, Damaged):
            continue
        yield times[path], report


def estimate_cost(view: SampleCollection, config: AuditConfig, limit: int | None = None) -> dict[str, Any]:
    """Estimate what an audit of the view costs: the pipeline's plan.

    With a `limit` a larger view's cost is estimated from that many of its first rows: for a form, which cannot wait
    until every file is read.

    Raises:
        AuditError: the view cannot be audited with this config.
    """
    from audit_plugin.audit.cost import plan_audit

    view = ungrouped(view)
    rows = count_samples(view)
    head = view.limit(limit) if limit and rows > limit else view
    plan = dict(plan_audit(read_samples(head, config), resolve_settings(view, config)))
    scale = rows / max(1, count_samples(head))  # of texts there may be several per sample
    if scale > 1:
        plan["encodes"] = {name: round(count * scale) for name, count in plan["encodes"].items()}
        plan["minutes"], plan["disk_mb"] = plan["minutes"] * scale, plan["disk_mb"] * scale
    return plan | {"rows": round(plan["rows"] * scale)}


def map_embeddings(dataset: SampleCollection, run: str) -> int:
    """Write `{run}_map_x` and `{run}_map_y`: where each sample's embeddings, of all modalities together, lie.

    The embeddings come from the feature cache, so nothing is encoded; deleting the audit deletes the fields.

    Returns:
        How many rows got a position.

    Raises:
        AuditError: no such audit, or its run folder or features are gone.
    """
    from audit_plugin.audit.extend import embedding_map

    root = dataset._root_dataset
    ids, positions = embedding_map(finished_audit(dataset, run).run_dir)
    doing = f"writing the map of audit {run!r}"
    with database(f"{doing} into dataset {root.name!r}"), leased(root, doing):
        read = finished_document(root, run)
        record = config_of(read)
        items = items_of(root, run, record)
        paths = [items.path(name) for name in MAP]
        record.fields = list(dict.fromkeys([*record.fields, *paths]))
        update_run(root, read, record)  # before they are written, so that they can be removed
        for number, path in enumerate(paths, 1):
            about = f"Position of the sample's embeddings along direction {number} of the two with the largest variance"
            check_lease(root)
            root.add_sample_field(path, fo.FloatField, description=about)
        samples = items.samples(ids)
        by_id = dict(zip(ids, positions.tolist(), strict=True))
        items.write((name, samples[name], dict(zip(MAP, by_id[name], strict=True))) for name in samples)
        check_lease(root)  # else another process may have written in between
    return len(samples)
