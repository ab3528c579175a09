"""Results of samples with a list of texts: the worst text's values on the sample, and parallel lists beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditResult, Ints

INDEX, LIST = "caption_index", "_list"
# What a review looks at text by text.
LISTED = ("misalignment", "probability", "is_misaligned", "suggestion", "action")
URGENCY = ("keep", "remove", "review", "relabel")


def list_columns() -> list[str]:
    """The columns that only samples with lists of texts get."""
    return [INDEX, *(f"{name}{LIST}" for name in LISTED)]


def list_help(column: str) -> str:
    """One line on a column of `list_columns`; "" for any other."""
    from audit_plugin.scoring.columns import column_help

    if column == INDEX:
        return "Position of the worst text in the sample's list, from 0: the sample's own values are those of this text"
    if column not in list_columns():
        return ""
    return f"{column_help(column.removesuffix(LIST))}; one value per text, in the order of the sample's list"


def per_sample(result: AuditResult, captions: Sequence[int]) -> AuditResult:
    """One row per sample from one row per text.

    A sample bears the values of its worst text (highest misalignment), a flag if any of its texts does, and the most
    urgent action; `remove`, where it is not said of all its texts, is `review`: the others are worth keeping.

    Args:
        result: rows `[q]`, ids repeated.
        captions: `[q]` position of each row's text in its sample's list, -1 for a sample without a text.

    Returns:
        Rows in the order in which their ids appear first, with `list_columns`: lists parallel to the sample's own.
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(result.ids):
        rows.setdefault(name, []).append(row)
    number = np.asarray(captions, dtype=np.int64)
    groups = [np.array(sorted(found, key=lambda row: number[row]), dtype=np.int64) for found in rows.values()]
    worst = np.array([_worst(result, group) for group in groups], dtype=np.int64)
    columns = {name: np.asarray(values)[worst] for name, values in result.columns.items()}
    for name in [c for c in columns if c.startswith("is_")]:
        columns[name] = np.array([bool(result.columns[name][group].any()) for group in groups], dtype=bool)
    if "action" in columns:
        columns |= _actions(result, groups, worst)
    columns[INDEX] = number[worst]
    filled = [group[number[group] >= 0] for group in groups]
    for name in [c for c in LISTED if c in result.columns]:
        columns[f"{name}{LIST}"] = _lists(np.asarray(result.columns[name]), filled)
    return replace(result, ids=tuple(rows), columns=columns)


def _worst(result: AuditResult, group: Ints) -> int:
    scores = np.asarray(result.columns["misalignment"])[group]
    return int(group[np.argmax(np.where(np.isfinite(scores), scores, -np.inf))])


def _actions(result: AuditResult, groups: Sequence[Ints], worst: Ints) -> dict[str, NDArray[Any]]:
    """Action and reason per sample: the worst text's, if it asks for anything, or else the most urgent one's."""
    action, reason = (np.array(result.columns[name], dtype=object) for name in ("action", "reason"))
    chosen = []
    for group, first in zip(groups, worst, strict=True):
        urgent = max(group, key=lambda row: (URGENCY.index(action[row]), row == first))
        chosen.append(first if action[first] in ("review", "relabel") else urgent)
    what, why = action[chosen], reason[chosen]
    partly = [w == "remove" and bool((action[group] != "remove").any()) for w, group in zip(what, groups, strict=True)]
    what[np.array(partly, dtype=bool)] = "review"
    return {"action": what, "reason": why}


def _lists(values: NDArray[Any], groups: Sequence[Ints]) -> NDArray[Any]:
    out = np.empty(len(groups), dtype=object)
    for at, group in enumerate(groups):
        out[at] = values[group].tolist()
    return out
