"""The FiftyOne edge: read a dataset or view, audit it, write fields, tags and a run that can be deleted again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, AuditResult, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io.ledger.changes import (
    ChangeSet,
    apply,
    delete_removed,
    list_changes,
    plan_of,
    recover,
    undo,
)
from audit_plugin.fiftyone_io.ledger.decisions import (
    decide,
    decide_many,
    decisions,
    disagreements,
    refresh,
    resolved,
    suggestions,
    undo_last,
)
from audit_plugin.fiftyone_io.ledger.exports import (
    CLEAN,
    clean_view,
    export_clean,
    export_decisions,
    export_removed,
    import_decisions,
)
from audit_plugin.fiftyone_io.ledger.spot_checks import (
    SpotCheck,
    record_spot_check,
    spot_check,
    spot_refit,
    start_spot_check,
)
from audit_plugin.fiftyone_io.read.contents import REMOVED
from audit_plugin.fiftyone_io.read.items import objects_field, patches_of
from audit_plugin.fiftyone_io.read.samples import load_manifest_dataset, load_view, read_samples
from audit_plugin.fiftyone_io.read.sources import (
    caption_field,
    default_media,
    media_choices,
    modality_sources,
    resolve,
    string_fields,
    text_fields,
)
from audit_plugin.fiftyone_io.results.queues import ReviewQueue, batch_rows, queue_of, repair_decisions, review_table
from audit_plugin.fiftyone_io.results.views import flagged_view
from audit_plugin.fiftyone_io.write.datasets import import_scores
from audit_plugin.fiftyone_io.write.results import add_result, check_writable, write_result

from .cross_modal import delete_transfer, list_transfers, load_personas, people_view, transfer_found, transfer_view
from .runs import (
    AuditRun,
    AuditRunConfig,
    AuditRunResults,
    audit_info,
    delete_audit,
    explained,
    list_audits,
    settings_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "CLEAN",
    "REMOVED",
    "AuditRun",
    "AuditRunConfig",
    "AuditRunResults",
    "ChangeSet",
    "ReviewQueue",
    "SpotCheck",
    "apply",
    "audit_info",
    "audit_view",
    "batch_rows",
    "caption_field",
    "check_writable",
    "clean_view",
    "decide",
    "decide_many",
    "decisions",
    "default_media",
    "delete_audit",
    "delete_removed",
    "delete_transfer",
    "disagreements",
    "explained",
    "export_clean",
    "export_decisions",
    "export_removed",
    "flagged_view",
    "import_decisions",
    "import_scores",
    "list_audits",
    "list_changes",
    "list_transfers",
    "load_manifest_dataset",
    "load_personas",
    "load_view",
    "media_choices",
    "modality_sources",
    "objects_field",
    "patches_of",
    "people_view",
    "plan_of",
    "preview_view",
    "queue_of",
    "read_samples",
    "record_spot_check",
    "recover",
    "refresh",
    "removal_view",
    "repair_decisions",
    "resolve",
    "resolved",
    "review_table",
    "scan_new",
    "spot_check",
    "spot_refit",
    "start_spot_check",
    "string_fields",
    "suggestions",
    "text_fields",
    "transfer_found",
    "transfer_view",
    "undo",
    "undo_last",
    "write_result",
]


def audit_view(
    view: SampleCollection,
    config: AuditConfig | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    run_dir: str | Path | None = None,
) -> AuditResult:
    """Audit a dataset or view and write what was found into it.

    Args:
        view: the samples to audit, or a view of the patches of their detections; only these are changed.
        config: settings, all defaults if None.
        progress: called as `progress(stage, done, total)`; the stages are those of the pipeline, then "write".
        run_dir: where arrays and heads are kept (default: the pipeline's choice).

    Returns:
        One value per sample and column, in the order of the view; `ids` are sample ids. A grouped view has one row
        per group, written on the group's samples in all slices used. A list of texts has one row per text; the sample
        bears the worst text's values, and parallel lists. A view of patches has one row per object; `ids` are label
        ids, and the results are attributes and tags of the labels.

    Raises:
        AuditError: the view cannot be audited, a field of the user's own is in the way, or the database was lost.
    """
    from audit_plugin.audit.run import run_audit

    config = resolve(view, config or AuditConfig())
    samples = read_samples(view, config)
    check_writable(view, config.run)  # before hours of work, not after
    result = run_audit(samples, config, progress, run_dir)
    write_result(view, result, config, progress, caption_numbers(samples))
    return result


def scan_new(
    dataset: SampleCollection, run: str, progress: Callable[[str, int, int], None] | None = None
) -> AuditResult:
    """Score the samples that came after an audit by its heads, and write them into it; nothing is trained anew.

    Args:
        dataset: the dataset, or a view of it; all samples (groups, objects) without the audit's results are scanned.
        run: key of the audit.
        progress: as in `audit_view`.

    Returns:
        One value per new sample and column; their MultiMem is NaN, since nothing was trained on them.

    Raises:
        AuditError: nothing is new, the audit cannot be extended (then audit anew), or the database was lost.
    """
    from audit_plugin.audit.extend import extend_run
    from audit_plugin.fiftyone_io.results.findings import new_rows

    record, view = audit_info(dataset, run), new_rows(dataset, run)
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
    return tuple(-1 if text is None else at for at, text in zip(samples.caption, samples.media["text"], strict=True))


def removal_view(
    view: SampleCollection,
    config: AuditConfig | None = None,
    amounts: tuple[int, ...] | None = None,
    seeds: int = 5,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """What the removal of a view's worst rows does to a model. Writes nothing into the dataset.

    Returns:
        The report of `removal_study`, with sample ids, `dataset`, and `saved`: where it lies as JSON.

    Raises:
        AuditError: the view cannot be read or is too small, or an amount is too large.
    """
    import json

    from audit_plugin.audit.removal_study import removal_study
    from audit_plugin.config import digest_of
    from audit_plugin.encoders.embed import silent
    from audit_plugin.store import cache_root, write_atomically

    config = resolve(view, config or AuditConfig())
    report = removal_study(read_samples(view, config), config, amounts, seeds, progress or silent)
    report = {**report, "dataset": view._root_dataset.name}
    text = json.dumps(report, indent=2) + "\n"
    path = cache_root() / "removal" / f"{digest_of(text)[:16]}.json"
    write_atomically(path, lambda file: file.write(text.encode()))
    return {**report, "saved": str(path)}


def preview_view(view: SampleCollection, config: AuditConfig, limit: int | None = None) -> dict[str, Any]:
    """What an audit of the view would cost: the pipeline's plan.

    Args:
        view: the samples.
        config: settings.
        limit: judge a larger view by that many of its first rows, scaled up: for a form, which cannot wait until
            every file of a large view is read.

    Raises:
        AuditError: the view cannot be audited with this config.
    """
    from audit_plugin.audit.cost import plan_audit

    rows = view.count()
    head = view.limit(limit) if limit and rows > limit else view
    plan = dict(plan_audit(read_samples(head, config), resolve(view, config)))
    scale = rows / max(1, head.count())  # of texts there may be several per sample
    if scale > 1:
        plan["encodes"] = {name: round(count * scale) for name, count in plan["encodes"].items()}
        plan["minutes"], plan["disk_mb"] = plan["minutes"] * scale, plan["disk_mb"] * scale
    return plan | {"rows": round(plan["rows"] * scale)}
