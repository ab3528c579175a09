"""Which modality of a flagged row is to blame, with three or more modalities: from the parts of its scores alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats

# Column -> the flags of which a row has one where it is named; "" for all other rows, with which nothing is wrong.
NAMED_WHERE = {"culprit": ("misaligned", "conflict"), "driver": ("memorized",)}
LOST_WITHOUT = "multimem_due_"  # what a modality contributes to MultiMem


def named_modalities(columns: Mapping[str, Any], flags: Mapping[str, Bools]) -> dict[str, Any]:
    """`culprit` and `driver` of n rows, object `[n]` each: named where the flags of `NAMED_WHERE` say, else "".

    Args:
        columns: scores, `[n]` each, with their parts by pair and modality; those that are missing name nothing.
        flags: kind -> bool `[n]`.
    """
    names = [column.removeprefix(LOST_WITHOUT) for column in columns if column.startswith(LOST_WITHOUT)]
    named = {"culprit": most_misaligned(columns, names), "driver": most_memorized(columns, names)}
    flagged = {name: np.logical_or.reduce([flags[kind] for kind in kinds]) for name, kinds in NAMED_WHERE.items()}
    return {name: np.where(flagged[name], values, "").astype(object) for name, values in named.items()}


def most_misaligned(columns: Mapping[str, Any], modalities: Sequence[str]) -> Any:
    """object `[n]`: the modality whose removal lowers the misalignment most, flagged or not.

    Removing m leaves max of `misalignment_a_b` over the pairs without m. "" where a part is NaN, and with two
    modalities, of which either may be wrong.
    """
    parts = {pair: _part(columns, *pair) for pair in combinations(modalities, 2)}
    if len(modalities) < 3 or any(values is None for values in parts.values()):
        return _nothing_named(columns)
    left = [np.fmax.reduce([values for pair, values in parts.items() if name not in pair]) for name in modalities]
    return _name_of_highest(modalities, [-values for values in left])


def most_memorized(columns: Mapping[str, Any], modalities: Sequence[str]) -> Any:
    """object `[n]`: the modality that contributes most to MultiMem, flagged or not.

    "" where a part is NaN, and with two modalities, which share all of it.
    """
    if len(modalities) < 3 or any(f"{LOST_WITHOUT}{name}" not in columns for name in modalities):
        return _nothing_named(columns)
    return _name_of_highest(modalities, [columns[f"{LOST_WITHOUT}{name}"] for name in modalities])


def _nothing_named(columns: Mapping[str, Any]) -> Any:
    """object `[n]` of ""."""
    return np.full(len(next(iter(columns.values()), ())), "", dtype=object)


def _part(columns: Mapping[str, Any], a: str, b: str) -> Any:
    """The misalignment of a pair in either order; None where there is none."""
    return columns.get(f"misalignment_{a}_{b}", columns.get(f"misalignment_{b}_{a}"))


def _name_of_highest(names: Sequence[str], values: Sequence[Floats]) -> Any:
    """object `[n]`: the name whose values `[n]` are highest, "" where one of them is NaN."""
    table = np.stack(values)
    out = np.full(table.shape[1], "", dtype=object)
    is_finite = np.isfinite(table).all(0)
    out[is_finite] = np.array(names, dtype=object)[table[:, is_finite].argmax(0)]
    return out
