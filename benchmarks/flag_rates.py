"""Realized false-positive rate and recall of flags, by the rate that a user sets, over the report cells of `design`.

Run as `python -m benchmarks.flag_rates`: about an hour; finished audits are kept, so that it can be interrupted. Cells
with 5 to 20% wrong rows, and clean ones. Expected: in nine of ten cells at most five points over the rate that
was set, and there at least 80% of what the best threshold at that rate would find; a clean set has no more flags than
the default rate. Kinds of wrong pairs that no probe pair is like (`UNLIKE`) are counted separately.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats
from audit_plugin.audit.score import score_probes
from audit_plugin.scoring.calibration import calibrate
from audit_plugin.scoring.flags import flag_misaligned
from benchmarks.data import DATA
from benchmarks.design import REPORT, TRIALS, Cell
from benchmarks.detection import audit
from benchmarks.metrics import flag_quality, mean_of
from benchmarks.record import write_report

RATES = (0.01, 0.05, 0.1)  # the default, and what a user may set to review more
DEFAULT = str(RATES[0])
JUDGED = (0.05, 0.2)  # rates of wrong rows between which flags are judged
KEPT, FOUND = 0.05, 0.8
UNLIKE = ("vague", "outside")  # noise, or a way of planting it, that the probe pairs do not cover


def main() -> None:
    """Runs what is missing and writes results/flag-rates.json."""
    cells = [cell for cell in REPORT if cell.noise == "none" or JUDGED[0] <= cell.rate <= JUDGED[1]]
    rows = [run_seeds(cell, DATA / "flag-rates") for cell in cells]
    write_report(
        "flag-rates",
        "Realized false-positive rate of flags against the rate that was set",
        {"trials": TRIALS} | summarize(rows),
    )


def run_seeds(cell: Cell, folder: Path, trials: int = TRIALS) -> dict[str, Any]:
    """Means over the cell's seeds; a JSON in the folder for each."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in cell.seeds:
        path = folder / f"{cell.name}-{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(run_cell(cell, seed, trials), indent=1) + "\n", encoding="utf-8")
            print(path.stem, flush=True)
        runs.append(json.loads(path.read_text(encoding="utf-8")))
    flags = {
        rate: {key: mean_of(run["flags"][rate][key] for run in runs) for key in figures}
        for rate, figures in runs[0]["flags"].items()
    }
    others = {kind: mean_of(run["others"][kind] for run in runs) for kind in runs[0]["others"]}
    covered = not {cell.noise, cell.how} & set(UNLIKE)
    return {"name": cell.name, "noise": cell.noise, "covered": covered, "flags": flags, "others": others}


def run_cell(cell: Cell, seed: int, trials: int) -> dict[str, Any]:
    """One audit: flags at every rate, and the share of rows with another flag at the default one."""
    with tempfile.TemporaryDirectory() as folder:
        planted, prepared, evidence, result = audit(cell, seed, Path(folder), trials)
        rows = prepared.order.rows
        probe_scores = score_probes(evidence, {name: np.asarray(v)[rows] for name, v in result.columns.items()})
        return {
            "flags": flags_at(np.asarray(result.columns["misalignment"]), probe_scores, planted.wrong),
            "others": {kind: float(np.mean(result.columns[f"is_{kind}"])) for kind in ("outlier", "conflict")},
        }


def flags_at(values: Floats, probe_scores: Mapping[str, Floats], wrong: Bools) -> dict[str, dict[str, float]]:
    """False-positive rate, as text -> quality of the flags at that rate."""
    calibration = calibrate(values, probe_scores)
    known = np.nan_to_num(values, nan=float(np.nanmedian(values)))
    return {
        str(rate): flag_quality(known, flag_misaligned(calibration.false_positive_rate, rate), wrong, rate)
        for rate in RATES
    }


def summarize(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Per rate: in how many noisy cells flags stay within it, and have the recall of the best threshold."""
    clean, noisy = ([cell for cell in cells if (cell["noise"] == "none") == none] for none in (True, False))
    worst = {kind: max(cell["others"][kind] for cell in clean) for kind in ("outlier", "conflict")}
    worst["misaligned"] = max(cell["flags"][DEFAULT]["false_positive_rate"] for cell in clean)
    return {"rates": {str(rate): _outcome(noisy, rate) for rate in RATES}, "clean": worst, "cells": cells}


def _outcome(cells: list[dict[str, Any]], rate: float) -> dict[str, Any]:
    flags = {cell["name"]: cell["flags"][str(rate)] for cell in cells}
    missed = [name for name, one in flags.items() if one["recall"] < FOUND * one["best_recall"]]
    covered = [cell["name"] for cell in cells if cell["covered"]]
    return {
        "cells": len(cells),
        "alarms_kept": sum(one["false_positive_rate"] <= rate + KEPT for one in flags.values()),
        "highest_alarm": max(one["false_positive_rate"] for one in flags.values()),
        "found": len(cells) - len(missed),
        "covered": len(covered),
        "covered_found": sum(name not in missed for name in covered),
        "missed": missed,
    }


if __name__ == "__main__":
    main()
