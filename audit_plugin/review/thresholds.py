"""What flags and proposals become when a person sets a threshold, from the scores alone."""

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
    """Flags, actions and reasons under thresholds: a function of these, the scores and what the audit itself found.

    A failed row, a row whose flags are the audit's own, and a proposed removal of a copy or placeholder stay as the
    audit had them.

    Args:
        columns: of the audit, `[n]` each.
        own: the `changed_columns` as the audit wrote them, `[n]` each.
        thresholds: kind -> lowest score that is flagged.

    Returns:
        The columns of `own` under the thresholds.
    """
    flags = {name: values for name, values in own.items() if name.startswith("is_")}
    for kind, threshold in thresholds.items():
        flags[f"is_{kind}"] = columns[FLAGS[kind].score] >= threshold  # False for NaN
    return reflag({**columns, **own}, flags)
