"""Whether the gate `misaligned > 2%` fails where it should: 0, 1, 3 and 5% planted swaps on real and drawn sets.

Run as `python -m benchmarks.gate`; finished audits are kept, so that it can be interrupted. Expected: it fails for 3
and 5% and passes for 0 and 1% with every seed on `EXPECTED`, whose wrong pairs score apart from good ones. The other
sets show what is left where they overlap: intervals are wide there, and a gate that chance must not fail passes more.
Estimates were developed on other sets and seeds (`benchmarks.design.DEVELOPMENT`, seeds of 100 and above).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from audit_plugin.audit.gate import judge, parse_conditions
from benchmarks.data import DATA
from benchmarks.design import SEEDS, TRIALS, Cell
from benchmarks.detection import audit
from benchmarks.metrics import mean_of
from benchmarks.record import markdown_table, write_report

CONDITION = "misaligned > 2%"
RATES = (0.0, 0.01, 0.03, 0.05)
LIMIT = 0.02
EXPECTED = ("digits", "five")
SETS = (*EXPECTED, "google")


def main() -> None:
    """Runs what is missing and writes results/gate.json."""
    folder = DATA / "gate"
    cells = [Cell(name, "random" if rate else "none", rate) for name in SETS for rate in RATES]
    runs = [run_cell(cell, seed, folder) for seed in range(SEEDS) for cell in cells]
    write_report("gate", f"Outcome of the gate {CONDITION!r} by share of planted swaps", summarize(runs))


def run_cell(cell: Cell, seed: int, folder: Path, trials: int = TRIALS) -> dict[str, Any]:
    """How the gate judged one audit; a JSON in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cell.name}-{seed}-{trials}.json"
    if not path.exists():
        with tempfile.TemporaryDirectory() as temporary:
            planted, _, _, result = audit(cell, seed, Path(temporary), trials)
        judgment = judge(parse_conditions([CONDITION]), result.columns, result.summary)[0]
        low, high = judgment.interval or (float("nan"), float("nan"))
        run = {"set": cell.set, "rate": cell.rate, "seed": seed, "rows": judgment.rows}
        run |= {"wrong": int(planted.wrong.sum()), "pairs": judgment.number, "low": low, "high": high}
        path.write_text(json.dumps(run | {"fails": judgment.fails}, indent=1) + "\n", encoding="utf-8")
        print(path.stem, run, judgment.fails, flush=True)
    run = json.loads(path.read_text(encoding="utf-8"))
    return dict(run)


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per set and rate: how many runs fail, the mean estimate and interval, and how many intervals hold the truth."""
    cells = []
    for name in dict.fromkeys(run["set"] for run in runs):
        for rate in dict.fromkeys(run["rate"] for run in runs):
            same = [run for run in runs if (run["set"], run["rate"]) == (name, rate)]
            cell = {"set": name, "rate": rate, "runs": len(same), "failed": sum(run["fails"] for run in same)}
            cell |= {key: mean_of(run[key] for run in same) for key in ("rows", "wrong", "pairs", "low", "high")}
            cell["covered"] = sum(run["low"] <= run["wrong"] <= run["high"] for run in same)
            cell["as_expected"] = cell["failed"] == (len(same) if rate > LIMIT else 0)
            cells.append(cell)
    return {"condition": CONDITION, "trials": TRIALS, "cells": cells, "runs": list(runs)}


def gate_table(report: dict[str, Any]) -> str:
    """One row per set and rate."""
    header = ("set", "rows", "planted", "estimated (mean 90% interval)", "builds failed", "interval holds the truth")
    return "\n".join(markdown_table(header, _rows(report["cells"])))


def _rows(cells: Iterable[dict[str, Any]]) -> Iterable[tuple[str, ...]]:
    for cell in cells:
        shares = [f"{cell[key] / cell['rows']:.1%}" for key in ("pairs", "low", "high")]
        failed = f"{cell['failed']} of {cell['runs']}"
        yield (
            cell["set"],
            f"{cell['rows']:,.0f}",
            f"{cell['rate']:.0%}",
            f"{shares[0]} ({shares[1]} to {shares[2]})",
            failed if cell["as_expected"] else f"**{failed}**",
            f"{cell['covered']} of {cell['runs']}",
        )


if __name__ == "__main__":
    main()
