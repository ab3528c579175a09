"""The gate's benchmark: what it counts, by hand, and one small set through all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gate import cell_of, gate_table, run_cell, summarize


def outcome(rate: float, low: float, high: float, wrong: int, fails: bool, seed: int = 0) -> dict[str, object]:
    estimate = {"pairs": (low + high) / 2, "low": low, "high": high}
    return {"set": "s", "rate": rate, "seed": seed, "rows": 1000, "wrong": wrong, **estimate, "fails": fails}


def test_cells_are_counted_over_their_seeds() -> None:
    runs = [outcome(0.0, 0, 4, 0, False), outcome(0.0, 2, 6, 0, False, 1)]
    runs += [outcome(0.03, 21, 39, 30, True), outcome(0.03, 11, 29, 30, False, 1)]
    report = summarize(runs)
    clean, noisy = report["cells"]
    assert (clean["failed"], clean["covered"], clean["as_expected"]) == (0, 1, True)
    assert (noisy["failed"], noisy["covered"], noisy["as_expected"]) == (1, 1, False)
    header, _, first, second = gate_table(report).splitlines()
    assert header.startswith("| set | rows | planted |")
    assert first == "| s | 1,000 | 0% | 0.3% (0.1% to 0.5%) | 0 of 2 | 1 of 2 |"
    assert second == "| s | 1,000 | 3% | 2.5% (1.6% to 3.4%) | **1 of 2** | 1 of 2 |"


def test_a_small_set_is_audited_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    cell = cell_of("persons", 0.2, 60)
    run = run_cell(cell, 0, tmp_path, trials=4)
    assert (run["wrong"], run["rows"]) == (12, 60)
    assert run["fails"] is (run["low"] > 0.02 * 60)
    (stored,) = tmp_path.glob("persons-*.json")
    stored.write_text(stored.read_text().replace('"wrong": 12', '"wrong": 99'))
    assert run_cell(cell, 0, tmp_path, trials=4)["wrong"] == 99
