"""Realized false-positive rate and recall of flags, by the certainty with which a rate of 1% is kept.

Run as `python -m benchmarks.rate_certainty` (about ten minutes). One seed of each development cell of `design`, of
their sets without wrong pairs, and of the `shared` encoder, whose good pairs have the longest tails, at further rates.
`scoring.calibration.RATE_CERTAINTY` is the least of `CERTAINTIES` whose realized rate is at most 3% in all cells with
room to spare. Expected on other cells: at most 3%.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from audit_plugin.arrays import Bools, Floats
from audit_plugin.audit.score import score_probes
from audit_plugin.scoring import calibration
from audit_plugin.scoring.flags import flag_misaligned
from benchmarks.design import DEVELOPMENT, ROWS, SHARED, TRIALS, Cell
from benchmarks.detection import audit
from benchmarks.metrics import flag_quality
from benchmarks.record import markdown_table, write_report

RATE = 0.01
CERTAINTIES = (0.5, 0.75, 0.8, 0.85, 0.9)
CELLS = (
    *DEVELOPMENT,
    Cell("facebook", "random", 0.05, encoder=SHARED, rows=ROWS),
    Cell("facebook", "random", 0.2, encoder=SHARED, rows=ROWS),
    Cell("facebook", "category", 0.05, encoder=SHARED, rows=ROWS),
    Cell("facebook", "none", encoder=SHARED, rows=ROWS),
    *(Cell(name, "none") for name in ("twitter", "persons", "glyphs")),
)


def main() -> None:
    """Audits each cell once and writes results/rate-certainty.json."""
    rows = {}
    for cell in CELLS:
        with tempfile.TemporaryDirectory() as folder:
            planted, prepared, evidence, result = audit(cell, 0, Path(folder), TRIALS)
            order = prepared.order.rows
            probes = score_probes(evidence, {name: np.asarray(v)[order] for name, v in result.columns.items()})
            rows[cell.name] = by_certainty(np.asarray(result.columns["misalignment"]), probes, planted.wrong)
        print(cell.name, rows[cell.name], flush=True)
    question = "How often is a good pair flagged at a rate of 1%, by the certainty with which the rate is kept?"
    write_report("rate-certainty", question, {"rate": RATE, "trials": TRIALS, "cells": rows})


def by_certainty(values: Floats, probes: Mapping[str, Floats], wrong: Bools) -> dict[str, Any]:
    """Certainty, as text -> quality of the flags at `RATE`."""
    quality = {}
    for certainty in CERTAINTIES:
        with patch.object(calibration, "RATE_CERTAINTY", certainty):
            rates = calibration.calibrate(values, probes).false_positive_rate
        of_flags = flag_quality(values, flag_misaligned(rates, RATE), wrong, RATE)
        quality[str(certainty)] = {name: value if np.isfinite(value) else None for name, value in of_flags.items()}
    return quality


def certainty_table(report: Mapping[str, Any]) -> str:
    """A row per cell: realized rate and recall at each certainty."""

    def cell_of(quality: Mapping[str, Any]) -> str:
        recall = quality["recall"]
        return f"{quality['false_positive_rate']:.1%}" + ("" if recall is None else f" / {recall:.0%}")

    rows = [(name, *(cell_of(by[str(c)]) for c in CERTAINTIES)) for name, by in report["cells"].items()]
    return "\n".join(markdown_table(("development cell", *(f"{c:.0%}" for c in CERTAINTIES)), rows))


if __name__ == "__main__":
    main()
