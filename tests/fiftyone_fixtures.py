"""What an audit would have written, by hand, and everything of a dataset that it may touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from audit_plugin.audit.result import AuditResult
from audit_plugin.scoring.flags import FLAGS

VOLATILE = {"last_modified_at", "_id", "_dataset_id", "created_at", "_media_type", "_rand"}


def result_for(
    view: Any,
    misaligned: Sequence[int] = (1, 3),
    outlier: Sequence[int] = (2,),
    run_dir: str = "/runs/x",
    base: float = 0.0,
    ids: tuple[str, ...] = (),
) -> AuditResult:
    """A hand-made result: two kinds of flags, one unscored row, one column without any value."""
    ids = ids or tuple(view.values("id"))
    n = len(ids)
    flags = {f"is_{kind}": np.zeros(n, dtype=bool) for kind in FLAGS}
    flags["is_misaligned"][list(misaligned)] = True
    flags["is_outlier"][list(outlier)] = True
    score = base + np.arange(n, dtype=np.float32)
    score[0] = np.nan
    action = np.array(
        ["review" if m or o else "keep" for m, o in zip(flags["is_misaligned"], flags["is_outlier"], strict=True)],
        dtype=object,
    )
    columns = {
        "misalignment": score,
        "culprit": np.full(n, "text", dtype=object),
        "clip_score": np.full(n, np.nan, dtype=np.float32),
        "duplicate_group": np.full(n, -1),
        **flags,
        "action": action,
        "reason": np.array([f"because of {i}" for i in range(n)], dtype=object),
        "failure": np.array(["no image", *[""] * (n - 1)], dtype=object),
    }
    return AuditResult(ids, columns, {"samples": n, "failures": 1, "reliability": 0.9}, run_dir)


def state(dataset: Any) -> dict[str, Any]:
    """Everything about a dataset that an audit may touch."""
    whole = dataset.select_group_slices(_allow_mixed=True) if dataset.media_type == "group" else dataset
    samples = {s.id: {k: v for k, v in s.to_dict(include_private=True).items() if k not in VOLATILE} for s in whole}
    schema = {name: (str(field), field.description) for name, field in dataset.get_field_schema(flat=True).items()}
    groups = dataset.app_config.sidebar_groups
    return {
        "samples": samples,
        "schema": schema,
        "runs": dataset.list_runs(),
        "views": dataset.list_saved_views(),
        "sidebar": groups and [(g.name, list(g.paths)) for g in groups],
        "tags": whole.count_sample_tags(),
        "label_tags": whole.count_label_tags(),
        "info": dict(dataset.info),
    }
