"""Hyper-parameters of rivals, chosen on development cells, then frozen: each rival is judged at its best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats

from .material import Rival

Cells = Sequence[tuple[Any, Bools]]


def auroc(suspicion: Floats, wrong: Bools) -> Floats:
    """Area under the ROC curve, ties half: the Mann-Whitney statistic of the ranks. `[..., n]` -> `[...]`.

    Raises:
        ValueError: all rows are wrong, or none, or a suspicion is NaN.
    """
    from scipy.stats import rankdata

    bad = int(wrong.sum())
    good = len(wrong) - bad
    if not bad or not good:
        raise ValueError(f"{bad} of {len(wrong)} rows are wrong: there is nothing to rank")
    if np.isnan(suspicion).any():
        raise ValueError(f"{int(np.isnan(suspicion).sum())} suspicions are NaN")
    ranks = rankdata(suspicion, axis=-1)
    return np.asarray((ranks[..., wrong].sum(-1) - bad * (bad + 1) / 2) / (bad * good))


def choose(rival: Rival, cells: Cells) -> dict[str, Any]:
    """The hyper-parameters with the best mean AUROC over development cells; {} where there is nothing to choose.

    Args:
        rival: with a grid, or with a search of its own.
        cells: (material or features, bool `[n]` the wrong rows); the grid's first point wins a tie.
    """
    if rival.tune is not None:
        return rival.tune(cells)
    if not rival.grid:
        return {}
    points = rival.points()
    # cell by cell: what a method keeps of a set between its settings is then made once
    means = sum(np.array([auroc(rival.function(material, **at), wrong) for at in points]) for material, wrong in cells)
    return points[int(np.argmax(means))]


def mean_auroc(rival: Rival, parameters: Mapping[str, Any], cells: Cells) -> float:
    """Mean over the cells of the AUROC under these hyper-parameters."""
    return float(np.mean([auroc(rival.function(material, **parameters), wrong) for material, wrong in cells]))
