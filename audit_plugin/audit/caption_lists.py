"""Results of samples with a list of texts: the worst text's values for the sample, and parallel lists beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import Ints, Samples
from audit_plugin.scoring.columns import CAPTION_INDEX, LIST, LISTED
from audit_plugin.scoring.flags import PROBLEMS

from .result import AuditResult

URGENCY = ("keep", "fix", "remove", "review", "relabel")  # of the texts of one sample, least first
OTHER_TEXT = "another of its texts: "  # before a reason


def per_sample(result: AuditResult, captions: Sequence[int]) -> AuditResult:
    """One row per sample from one row per text, in the order in which the ids `[q]` appear first.

    A sample gets the values of its worst text (highest misalignment), a flag if any of its texts has it, and the most
    urgent action; `remove`, where it is not proposed for all its texts, is `review`, since the others may stay. The
    columns of `scoring.columns.list_columns` are lists parallel to the sample's own.

    `captions`: `[q]` position of each row's text in its sample's list, -1 for a sample without a text.
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(result.ids):
        rows.setdefault(name, []).append(row)
    positions = np.asarray(captions, dtype=np.int64)
    groups = [np.array(of_sample)[np.argsort(positions[of_sample], kind="stable")] for of_sample in rows.values()]
    misalignment = np.nan_to_num(result.columns["misalignment"], nan=-np.inf, posinf=-np.inf)
    worst = np.array([group[misalignment[group].argmax()] for group in groups], dtype=np.int64)
    columns = {name: np.asarray(values)[worst] for name, values in result.columns.items()}
    for name in [c for c in columns if c.startswith("is_")]:
        columns[name] = np.array([bool(result.columns[name][group].any()) for group in groups], dtype=bool)
    for name in (name for name in PROBLEMS if name in columns):
        columns[name] = _joined(result.columns[name], groups)
    if "action" in columns:
        columns |= _actions(result, groups, worst)
    columns[CAPTION_INDEX] = positions[worst]
    with_text = [group[positions[group] >= 0] for group in groups]
    for name in [c for c in LISTED if c in result.columns]:
        columns[f"{name}{LIST}"] = _lists(np.asarray(result.columns[name]), with_text)
    return replace(result, ids=tuple(rows), columns=columns)


def worst_texts(samples: Samples, audited: Mapping[str, int], listed: bool) -> Samples:
    """The audited rows of a dataset, of several texts of a sample the worst one.

    `audited`: id -> position of the sample's worst text; where samples are not `listed`, the first row of each counts.
    """
    positions = samples.caption or (0,) * len(samples)
    rows: dict[str, int] = {}
    for row, name in enumerate(samples.ids):
        if name in audited and (name not in rows or (listed and positions[row] == audited[name])):
            rows[name] = row
    media = {modality: tuple(values[row] for row in rows.values()) for modality, values in samples.media.items()}
    return Samples(tuple(rows), media, caption=tuple(positions[row] for row in rows.values()) if listed else ())


def _actions(result: AuditResult, groups: Sequence[Ints], worst: Ints) -> dict[str, NDArray[Any]]:
    """Action and reason per sample: the worst text's, if a change is proposed for it, or else the most urgent one's."""
    action = np.array(result.columns["action"], dtype=object)
    reason = np.array(result.columns["reason"], dtype=object)
    actions, reasons = [], []
    for group, first in zip(groups, worst, strict=True):
        urgent = max(group, key=lambda row: (URGENCY.index(action[row]), row == first))
        chosen = first if action[first] in ("review", "relabel") else urgent
        others_stay = action[chosen] == "remove" and not np.isin(action[group], ("remove", "fix")).all()
        is_of_other = action[chosen] == "relabel" and chosen != first  # the sample's suggestion is the worst text's
        actions.append("review" if others_stay or is_of_other else action[chosen])
        is_own = reason[chosen] in ("", reason[first])
        reasons.append(reason[chosen] if is_own else f"{OTHER_TEXT}{reason[chosen]}")
    return {"action": np.array(actions, dtype=object), "reason": np.array(reasons, dtype=object)}


def _joined(values: NDArray[Any], groups: Sequence[Ints]) -> NDArray[Any]:
    """Of each sample, what any of its texts has."""
    return np.array(["; ".join(dict.fromkeys(filter(None, values[group]))) for group in groups], dtype=object)


def _lists(values: NDArray[Any], groups: Sequence[Ints]) -> NDArray[Any]:
    lists = np.empty(len(groups), dtype=object)
    for position, group in enumerate(groups):
        lists[position] = values[group].tolist()
    return lists
