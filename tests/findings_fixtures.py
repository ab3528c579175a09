"""An audit result whose numbers can be checked by hand."""

from __future__ import annotations

import numpy as np

from audit_plugin.audit.result import AuditResult
from audit_plugin.scoring.flags import FLAGS

SCORES = [0.5, 3.0, np.nan, 4.0, 1.0, 2.0, 0.0, 5.0]


def made_up(ids: list[str], scores: list[float] = SCORES) -> AuditResult:
    """A result whose numbers can be checked by hand: misaligned from 3.0 on, the row without a score failed."""
    n, values = len(ids), np.array(scores, dtype=np.float64)
    flags = {kind: np.zeros(n, dtype=bool) for kind in FLAGS}
    flags["misaligned"] = values >= 3
    flags["duplicate"][[0, 1]] = True
    failed = np.isnan(values)
    action = np.where(flags["misaligned"], "review", "keep").astype(object)
    action[0] = "remove"
    reason = np.where(flags["misaligned"], "media do not fit", "").astype(object)
    reason[0] = "exact duplicate of another sample"
    suggestion = np.full(n, "", dtype=object)
    suggestion[5] = "another caption"
    columns = {
        "misalignment": values,
        "probability": np.where(failed, np.nan, values / 5),
        "multimem": np.where(failed, np.nan, -values),
        "alignment": np.where(failed, np.nan, 1 - values),
        **{f"is_{kind}": flag for kind, flag in flags.items()},
        "action": action,
        "reason": reason,
        "suggestion": suggestion,
        "failure": np.where(failed, "unreadable", "").astype(object),
    }
    return AuditResult(tuple(ids), columns, {"samples": n, "false_positive_rate": 0.01})
