"""What flags and proposals become when a person sets a threshold, from the scores alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.config import FLAG_KINDS
from audit_plugin.scoring.flags import FLAGS, propose_actions

# The kinds whose threshold can be set, and the score that it is compared with.
SCORE_OF = {kind: flag.score for kind, flag in FLAGS.items() if flag.tail and flag.score}
OWN = (*(f"is_{kind}" for kind in SCORE_OF), "action", "reason")  # columns that a threshold changes


def apply_thresholds(
    columns: Mapping[str, NDArray[Any]], own: Mapping[str, NDArray[Any]], thresholds: Mapping[str, float]
) -> dict[str, NDArray[Any]]:
    """Flags, actions and reasons under thresholds: a function of these, the scores and what the audit itself found.

    A failed row, a row whose flags are the audit's own, and a proposed removal of a copy or placeholder stay as the
    audit had them.

    Args:
        columns: of the audit, `[n]` each.
        own: the columns `OWN` as the audit wrote them, `[n]` each.
        thresholds: kind -> lowest score that is flagged.

    Returns:
        The columns of `own` under the thresholds.
    """
    flags = {name: values for name, values in own.items() if name.startswith("is_")}
    for kind, threshold in thresholds.items():
        flags[f"is_{kind}"] = columns[SCORE_OF[kind]] >= threshold  # False for NaN
    differs = np.logical_or.reduce([flags[name] != own[name] for name in flags])
    if "failure" in columns:
        differs &= columns["failure"] == ""
    rows = np.flatnonzero(differs & (own["action"] != "remove"))

    def of_rows(name: str, missing: Any) -> NDArray[Any]:
        return columns[name][rows] if name in columns else np.full(len(rows), missing)

    all_flags = {
        kind: flags[f"is_{kind}"][rows] if f"is_{kind}" in flags else of_rows(f"is_{kind}", False)
        for kind in FLAG_KINDS
    }
    scores = {name: of_rows(name, np.nan) for name in SCORE_OF.values()}
    no_copy = np.zeros(len(rows), dtype=bool)
    action, reason = propose_actions(all_flags, of_rows("suggestion", ""), ~no_copy, no_copy, scores)
    changed = {name: np.where(differs, values, own[name]) for name, values in flags.items()}
    for name, values in (("action", action), ("reason", reason)):
        changed[name] = own[name].copy()
        changed[name][rows] = values
    return changed
