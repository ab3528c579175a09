from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from benchmarks import detection, detection_tables
from benchmarks.design import DEVELOPMENT, LEAST_WRONG, PHOTOGRAPHS, QUICK, REPORT, ROWS, Cell
from benchmarks.metrics import ap_difference, auroc_difference, flag_quality, placements, quality, weighted_ap
from benchmarks.rivals import RIVALS
from benchmarks.rivals.tuning import auroc
from benchmarks.sets import SETS

SIZES = {"google": 1911, "openmoji": 2460, "four": 734, "digits": 1797, "five": 3000, "five_one": 600}


def scores(seed: int = 0, n: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < 0.2
    return np.round(rng.standard_normal(n) + wrong, 1), np.round(rng.standard_normal(n) + 0.3 * wrong, 1), wrong


def test_the_design_keeps_sets_apart_and_cells_large() -> None:
    reported = (*REPORT, *PHOTOGRAPHS)
    assert not {cell.set for cell in reported} & {cell.set for cell in DEVELOPMENT}
    assert {SETS[cell.set].role for cell in reported} == {"report"}
    assert {SETS[cell.set].role for cell in (*DEVELOPMENT, *QUICK)} == {"development"}
    for cell in REPORT:
        if cell.noise != "none":
            assert cell.rate * (cell.rows or SIZES[cell.set]) >= LEAST_WRONG, cell.name
    assert len({cell.name for cell in reported}) == len(reported)
    assert {cell.rows for cell in REPORT} <= {None, ROWS}


def test_mean_placements_are_the_auroc() -> None:
    ours, _, wrong = scores()
    placed = placements(ours, wrong)
    assert placed[wrong].mean() == pytest.approx(float(auroc(ours, wrong)))
    assert placed[~wrong].mean() == pytest.approx(float(auroc(ours, wrong)))
    row = int(np.flatnonzero(wrong)[0])
    right = ours[~wrong]
    assert placed[row] == pytest.approx(np.mean((ours[row] > right) + 0.5 * (ours[row] == right)))


@pytest.mark.parametrize(
    ("difference", "figure"), [(auroc_difference, auroc), (ap_difference, lambda v, w: average_precision_score(w, v))]
)
def test_paired_differences_agree_with_a_plain_bootstrap(difference, figure) -> None:
    ours, rival, wrong = scores()
    got = difference([(ours, rival, wrong)])
    assert got["mean"] == pytest.approx(float(figure(ours, wrong) - figure(rival, wrong)), abs=1e-4)
    rng, draws = np.random.default_rng(1), []
    bad, good = np.flatnonzero(wrong), np.flatnonzero(~wrong)
    for _ in range(400):
        rows = np.concatenate([rng.choice(bad, len(bad)), rng.choice(good, len(good))])
        draws.append(float(figure(ours[rows], wrong[rows]) - figure(rival[rows], wrong[rows])))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (got["low"], got["high"]) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))
    back = difference([(rival, ours, wrong)])
    assert (back["mean"], back["low"] < 0) == (pytest.approx(-got["mean"]), True)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30))
def test_weighted_average_precision_is_that_of_the_rows_written_out(rows: list[tuple[int, bool, int]]) -> None:
    values, wrong, counts = (np.array(column) for column in zip(*rows, strict=True))
    assume(counts[wrong].sum() > 0)
    written_out = average_precision_score(np.repeat(wrong, counts), np.repeat(values, counts))
    assert weighted_ap(values, wrong, counts[None])[0] == pytest.approx(written_out)


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
    assert clean["flags"]["0.01"]["false_positive_rate"] <= 0.01
    for row in noisy:
        assert row["methods"]["misalignment"]["auroc"] > 0.8
        assert row["methods"]["misalignment"]["auroc"] > row["methods"]["CLIP similarity"]["auroc"] - 0.01
        assert {name for name, rival in RIVALS.items() if not rival.classes_only} <= set(row["methods"])
        for figure, best in row["best"].items():  # the highest of those that need no labels
            free = {name: m[figure] for name, m in row["methods"].items() if name in RIVALS and RIVALS[name].label_free}
            assert (best["value"], free[best["method"]]) == (max(free.values()), max(free.values()))
            gap = row["methods"]["misalignment"][figure] - best["value"]
            assert best["difference"]["mean"] == pytest.approx(gap, abs=1e-4)
    assert "confident learning" in noisy[1]["methods"]  # the set with classes
    for text in (detection_tables.methods_table(report), detection_tables.cells_table(report)):
        assert text.count("\n") >= len(QUICK)
    assert report["flag_rates"]["clean"]["misaligned"] <= 0.01
    assert set(report["coverage"]["offline"]) == {"wrong_pairs", "precision"}


def test_bounds_are_counted_by_encoder_where_they_are_reported() -> None:
    def said(low: float, high: float, true: float) -> dict[str, float]:
        return {"value": 0.5, "low": low, "high": high, "true": true}

    pairs = [said(8, 12, 10), said(8, 12, 13), said(0, 12, 5), None]  # a bound of 0 is none
    precisions = [said(0.5, 0.9, 0.4), said(0.001, 0.95, 1.0), None]
    rows = [{"encoder": "offline", "noise": "random", "wrong_pairs": pairs, "precision": precisions}]
    rows.append({"encoder": "offline", "noise": "none", "wrong_pairs": [said(5, 9, 0)], "precision": [None]})
    rows.append({"encoder": "shared", "noise": "hard", "wrong_pairs": [said(9, 10, 1)], "precision": [None]})
    assert detection_tables.coverage(rows) == {
        "offline": {
            "wrong_pairs": {"runs": 2, "low": 1.0, "high": 0.5},
            "precision": {"runs": 1, "low": 0.0, "high": 1.0},
        },
        "shared": {
            "wrong_pairs": {"runs": 1, "low": 0.0, "high": 1.0},
            "precision": {"runs": 0, "low": None, "high": None},
        },
    }
    text = detection_tables.coverage_table({"coverage": detection_tables.coverage(rows)})
    assert "| offline | number of wrong pairs | 2 | 100% | 50% |" in text


def test_where_others_are_better_is_said_by_hand() -> None:
    def row(name: str, auroc: tuple[float, float, float], ap: tuple[float, float, float]) -> dict:
        best = {
            figure: {"method": "CSLS", "value": 0.9, "difference": dict(zip(("mean", "low", "high"), gap, strict=True))}
            for figure, gap in (("auroc", auroc), ("ap", ap))
        }
        return {"name": name, "methods": {"misalignment": {}}, "best": best}

    leads, ties = (0.02, 0.01, 0.03), (-0.004, -0.01, 0.01)
    assert detection_tables.beaten_lines({"cells": [{"methods": {}}, row("one", leads, ties)]}) == (
        "Of 1 cells, `misalignment` leads all label-free methods beyond the interval in 1 by AUROC and in 0 by AP. "
        "In no cell is another one better by more than 0.005 AUROC or 0.02 AP."
    )
    cells = [row("one", leads, leads), row("two", (-0.006, -0.01, 0.01), (-0.03, -0.05, -0.01))]
    text = detection_tables.beaten_lines({"cells": cells})
    assert "In 1 another one is better" in text
    assert "- two: CSLS by 0.006 AUROC (not beyond chance), CSLS by 0.030 AP" in text


def test_only_a_lead_beyond_the_interval_is_bold() -> None:
    best = {"method": "CSLS", "value": 0.9, "difference": {"mean": 0.05, "low": 0.01, "high": 0.09}}
    assert detection_tables._beside_best(0.95, best) == ("**0.950**", "CSLS 0.900; +0.050 (+0.010 to +0.090)")
    best["difference"]["low"] = -0.01
    assert detection_tables._beside_best(0.95, best)[0] == "0.950"
