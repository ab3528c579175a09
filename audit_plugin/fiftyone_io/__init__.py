"""The FiftyOne edge: read a dataset or view, audit it, write fields, tags and a run that can be deleted again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditResult
from audit_plugin.config import AuditConfig

from .reading import caption_field, load_manifest_dataset, load_view, read_samples, string_fields
from .runs import AuditRun, AuditRunConfig, AuditRunResults, audit_info, delete_audit, list_audits
from .writing import check_writable, flagged_view, write_result

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "AuditRun",
    "AuditRunConfig",
    "AuditRunResults",
    "audit_info",
    "audit_view",
    "caption_field",
    "check_writable",
    "delete_audit",
    "flagged_view",
    "list_audits",
    "load_manifest_dataset",
    "load_view",
    "preview_view",
    "read_samples",
    "string_fields",
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
        view: the samples to audit; only these are changed.
        config: settings, all defaults if None.
        progress: called as `progress(stage, done, total)`; the stages are those of the pipeline, then "write".
        run_dir: where arrays and heads are kept (default: the pipeline's choice).

    Returns:
        One value per sample and column, in the order of the view; `ids` are sample ids.

    Raises:
        AuditError: the view cannot be audited, a field of the user's own is in the way, or the database was lost.
    """
    from audit_plugin.pipeline import run_audit

    config = config or AuditConfig()
    samples = read_samples(view, config)
    check_writable(view, config.run)  # before hours of work, not after
    result = run_audit(samples, config, progress, run_dir)
    write_result(view, result, config, progress)
    return result


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
    from audit_plugin.pipeline import plan_audit

    rows = view.count()
    head = view.limit(limit) if limit and rows > limit else view
    plan = dict(plan_audit(read_samples(head, config), config))
    scale = rows / max(1, plan["rows"])
    if scale > 1:
        plan["encodes"] = {name: round(count * scale) for name, count in plan["encodes"].items()}
        plan["minutes"], plan["disk_mb"] = plan["minutes"] * scale, plan["disk_mb"] * scale
    return plan | {"rows": rows}
