"""Flags and suggested actions under thresholds set by a person, computed from the scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from audit_plugin.scoring.flags import FLAGS, movable_flags, reflag


def changed_columns() -> list[str]:
    """The columns that a threshold changes."""
    return [*(f"is_{kind}" for kind in movable_flags()), "action", "reason"]


def apply_thresholds(
    columns: Mapping[str, NDArray[Any]], own: Mapping[str, NDArray[Any]], thresholds: Mapping[str, float]
) -> dict[str, NDArray[Any]]:
    """The `changed_columns` `[n]` under thresholds.

    Failed rows, rows whose flags do not change, and suggested removals of duplicates or placeholders keep the values
    that the audit gave them.

    Args:
        columns: of the audit, `[n]` each.
        own: the `changed_columns` as the audit wrote them, `[n]` each.
        thresholds: kind -> lowest score that is flagged.
    """
    flags = {name: values for name, values in own.items() if name.startswith("is_")}
    for kind, threshold in thresholds.items():
        flags[f"is_{kind}"] = columns[FLAGS[kind].score] >= threshold  # False for NaN
    return reflag({**columns, **own}, flags)
