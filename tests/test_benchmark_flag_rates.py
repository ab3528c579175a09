from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audit_plugin.audit.score import score_probes
from benchmarks import flag_rates
from benchmarks.design import QUICK
from benchmarks.detection import audit
from benchmarks.finding_tables import missed_lines, rates_table


def cell(name: str, recall: float, alarms: float, noise: str = "random") -> dict:
    flags = {str(rate): {"flagged": 9, "false_positive_rate": alarms, "recall": recall, "best_recall": 0.5}
             for rate in flag_rates.RATES}  # fmt: skip
    others = {"outlier": 0.008, "conflict": 0.002, "memorized": 0.001}
    return {"name": name, "noise": noise, "how": "permuted", "rate": 0.1, "flags": flags, "others": others}


def test_cells_are_counted_by_hand() -> None:
    cells = [
        cell("clean", float("nan"), 0.009, "none"),
        cell("found", 0.4, 0.02),  # exactly 80 % of the best threshold's recall
        cell("alarming", 0.45, 0.08),
        cell("vague", 0.1, 0.0, "vague"),
        cell("many", 0.1, 0.5) | {"rate": 0.4},  # outside of what is judged
    ]
    report = flag_rates.summarize(cells)
    at_one, at_ten = report["rates"]["0.01"], report["rates"]["0.1"]
    assert (at_one["cells"], at_one["kept"], at_one["found"]) == (3, 2, 2)
    assert (at_one["covered"], at_one["covered_found"], at_one["missed"]) == (2, 2, ["vague"])
    assert at_ten["kept"] == 3
    assert report["clean"] == {"outlier": 0.008, "conflict": 0.002, "memorized": 0.001, "misaligned": 0.009}
    whole = {"cells": cells, "flag_rates": report}
    assert "| 1% (default) | 2 of 3 cells | 8.0% | 2 of 3 | 2 of 2 |" in rates_table(whole)
    assert "- 10%: vague (10% of 50%)" in missed_lines(whole)


def test_a_higher_rate_flags_more_and_keeps_it() -> None:
    rng = np.random.default_rng(0)
    wrong = np.arange(3000) < 300
    values = np.where(wrong, rng.normal(4, 1, 3000), rng.normal(0, 1, 3000)).astype(np.float32)
    plants = {kind: rng.normal(4, 1, 500).astype(np.float32) for kind in ("random", "neighborhood")}
    found = flag_rates.flags_at(values, plants, wrong)
    flagged = [found[str(rate)]["flagged"] for rate in flag_rates.RATES]
    assert flagged == sorted(set(flagged))
    for rate in flag_rates.RATES:
        one = found[str(rate)]
        assert one["false_positive_rate"] == pytest.approx(rate, abs=0.02)
        assert one["recall"] >= 0.95 * one["best_recall"] > 0.9


def test_the_default_rate_flags_what_the_audit_flags(tmp_path: Path) -> None:
    clean = QUICK[0]
    made = audit(clean, 0, tmp_path, trials=4)
    _, ready, evidence, result = made
    ordered = {name: np.asarray(values)[ready.order.rows] for name, values in result.columns.items()}
    values = np.asarray(result.columns["misalignment"])
    found = flag_rates.flags_at(values, score_probes(evidence, ordered), np.zeros(len(values), bool))
    assert found[flag_rates.DEFAULT]["flagged"] == int(np.sum(result.columns["is_misaligned"]))
