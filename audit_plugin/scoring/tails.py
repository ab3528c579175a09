"""Where the tail of a set's values begins, from its bulk."""

from __future__ import annotations

import numpy as np

from audit_plugin.arrays import Floats


def tail_cut(values: Floats, rate: float) -> float:
    """The value that a share `rate` of clean samples exceeds, from a logistic tail fitted to the set's bulk.

    median + width * log((1 - rate) / rate). The width is read at the upper quartile, where up to a quarter of bad
    samples cannot reach it, and at the lower one for sets with a long lower side; a tail heavier than logistic flags
    more than `rate`, a lighter one less.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < 4:
        return float("inf")
    q25, median, q75 = np.quantile(finite, [0.25, 0.5, 0.75])
    width = max(q75 - median, 0.5 * (q75 - q25)) / np.log(3)  # log(0.75 / 0.25) of a logistic distribution
    return float(median + max(width, 1e-6) * np.log((1 - rate) / rate))
