from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import detection, detection_tables
from benchmarks.design import DEVELOPMENT, LEAST_WRONG, QUICK, REPORT, RIVAL, ROWS, Cell
from benchmarks.metrics import difference, flag_quality, holm, placements, quality
from benchmarks.rivals import RIVALS
from benchmarks.rivals.tuning import auroc
from benchmarks.sets import SETS

SIZES = {"google": 1911, "openmoji": 2460, "four": 734, "digits": 1797, "five": 3000, "five_one": 600}


def scores(seed: int = 0, n: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < 0.2
    return np.round(rng.standard_normal(n) + wrong, 1), np.round(rng.standard_normal(n) + 0.3 * wrong, 1), wrong


def test_the_design_keeps_sets_apart_and_cells_large() -> None:
    assert not {cell.set for cell in REPORT} & {cell.set for cell in DEVELOPMENT}
    assert {SETS[cell.set].role for cell in REPORT} == {"report"}
    assert {SETS[cell.set].role for cell in (*DEVELOPMENT, *QUICK)} == {"development"}
    for cell in REPORT:
        if cell.noise != "none":
            assert cell.rate * (cell.rows or SIZES[cell.set]) >= LEAST_WRONG, cell.name
    assert len({cell.name for cell in REPORT}) == len(REPORT)
    assert {cell.rows for cell in REPORT} <= {None, ROWS}
    assert RIVAL in RIVALS


def test_mean_placements_are_the_auroc() -> None:
    ours, _, wrong = scores()
    placed = placements(ours, wrong)
    assert placed[wrong].mean() == pytest.approx(float(auroc(ours, wrong)))
    assert placed[~wrong].mean() == pytest.approx(float(auroc(ours, wrong)))
    row = int(np.flatnonzero(wrong)[0])
    right = ours[~wrong]
    assert placed[row] == pytest.approx(np.mean((ours[row] > right) + 0.5 * (ours[row] == right)))


def test_paired_difference_agrees_with_a_plain_bootstrap() -> None:
    ours, rival, wrong = scores()
    got = difference([(ours, rival, wrong)])
    assert got["mean"] == pytest.approx(float(auroc(ours, wrong) - auroc(rival, wrong)), abs=1e-4)
    rng, draws = np.random.default_rng(1), []
    bad, good = np.flatnonzero(wrong), np.flatnonzero(~wrong)
    for _ in range(400):
        rows = np.concatenate([rng.choice(bad, len(bad)), rng.choice(good, len(good))])
        draws.append(float(auroc(ours[rows], wrong[rows]) - auroc(rival[rows], wrong[rows])))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (got["low"], got["high"]) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
    assert difference([(rival, ours, wrong)])["p"] < 0.05 < got["p"]


def test_holm_by_hand() -> None:
    # ranked .01, .02, .04: times 3, 2, 1, never falling
    assert holm({"a": 0.04, "b": 0.01, "c": 0.02}) == pytest.approx({"b": 0.03, "c": 0.04, "a": 0.04})


def test_flags_are_held_against_the_best_threshold() -> None:
    values = np.arange(100.0)
    wrong = np.zeros(100, bool)
    wrong[[99, 98, 90]] = True
    found = flag_quality(values, values >= 97, wrong, 0.02)  # 97 right rows: one of them may be flagged
    assert found == {"flagged": 3, "false_positive_rate": round(1 / 97, 5), "recall": round(2 / 3, 5),
                     "best_recall": round(2 / 3, 5)}  # fmt: skip
    assert quality(values, wrong, 3)["precision"] == pytest.approx(2 / 3, abs=1e-4)


def test_the_quick_benchmark_runs_and_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cell, "seeds", range(1))
    monkeypatch.setattr(detection, "TRIALS", 8)
    detection.run(QUICK, tmp_path)
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(written) == 2 * len(QUICK)
    detection.run(QUICK, tmp_path)  # finished cells are kept
    assert written == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    report = detection_tables.summarize(QUICK, tmp_path)
    clean, *noisy = report["cells"]
    assert clean["flags"]["false_positive_rate"] <= 0.01
    for row in noisy:
        assert row["methods"]["misalignment"]["auroc"] > 0.8
        assert row["methods"]["misalignment"]["auroc"] > row["methods"]["CLIP similarity"]["auroc"] - 0.01
        assert {name for name, rival in RIVALS.items() if not rival.classes_only} <= set(row["methods"])
    assert "confident learning" in noisy[1]["methods"]  # the set with classes
    for text in (detection_tables.methods_table(report), detection_tables.cells_table(report)):
        assert text.count("\n") >= len(QUICK)
