"""Realized false-positive rate and recall of flags, by the rate that a user sets, over the report cells of `design`.

Cells with 5 to 20% wrong rows, and clean ones. Expected: at most `ABOVE` over the rate that was set in every cell, and
at least 80% of what the best threshold at that rate would find; a clean set has no more flags than the default rate.
Kinds of wrong pairs that no probe pair is like (`UNLIKE`) are counted separately.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats
from audit_plugin.scoring.calibration import calibrate
from audit_plugin.scoring.flags import flag_misaligned
from benchmarks.metrics import flag_quality

RATES = (0.01, 0.05, 0.1)  # the default, and what a user may set to review more
DEFAULT = str(RATES[0])
JUDGED = (0.05, 0.2)  # rates of wrong rows between which flags are judged
ABOVE, FOUND = 0.02, 0.8
UNLIKE = ("vague", "outside")  # noise, or a way of planting it, that the probe pairs do not cover


def flags_at(values: Floats, probe_scores: Mapping[str, Floats], wrong: Bools) -> dict[str, dict[str, float]]:
    """False-positive rate, as text -> quality of the flags at that rate."""
    calibration = calibrate(values, probe_scores)
    known = np.nan_to_num(values, nan=float(np.nanmedian(values)))
    return {
        str(rate): flag_quality(known, flag_misaligned(calibration.false_positive_rate, rate), wrong, rate)
        for rate in RATES
    }


def summarize(cells: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Per rate: in how many noisy cells flags stay within it, and have the recall of the best threshold.

    Args:
        cells: means over seeds: `name`, `noise`, `how`, `rate` of the wrong rows, `flags` as of `flags_at`, and
            `others`, the share of rows with each of the other flags.
    """
    cells = list(cells)
    clean = [cell for cell in cells if cell["noise"] == "none"]
    noisy = [cell for cell in cells if cell["noise"] != "none" and JUDGED[0] <= cell["rate"] <= JUDGED[1]]
    worst = {kind: max(cell["others"][kind] for cell in clean) for kind in (clean[0]["others"] if clean else ())}
    worst["misaligned"] = max((cell["flags"][DEFAULT]["false_positive_rate"] for cell in clean), default=float("nan"))
    return {"rates": {str(rate): _outcome(noisy, rate) for rate in RATES}, "clean": worst}


def _outcome(cells: list[Mapping[str, Any]], rate: float) -> dict[str, Any]:
    flags = {cell["name"]: cell["flags"][str(rate)] for cell in cells}
    missed = [name for name, one in flags.items() if one["recall"] < FOUND * one["best_recall"]]
    covered = [cell["name"] for cell in cells if not {cell["noise"], cell["how"]} & set(UNLIKE)]
    return {
        "cells": len(cells),
        "kept": sum(one["false_positive_rate"] <= rate + ABOVE for one in flags.values()),
        "highest": max((one["false_positive_rate"] for one in flags.values()), default=float("nan")),
        "found": len(cells) - len(missed),
        "covered": len(covered),
        "covered_found": sum(name not in missed for name in covered),
        "missed": missed,
    }
