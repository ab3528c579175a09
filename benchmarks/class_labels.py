"""Wrong class labels on real photographs: our ranking and suggestions beside linear probes, k-NN and cleanlab.

Run as `python -m benchmarks.class_labels [--seeds 5]`; finished cells are kept, so that it can be interrupted. Labels
of 3,781 photographs of clothing (a development set) are replaced by any other class, or by one that is mixed up with
it. All methods read the same features. Expected: `misalignment` ranks at least as well as the linear probe, and the
suggestions name the true class of at least 80% of the wrong labels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints, dense_ids
from benchmarks.data import DATA
from benchmarks.design import TRIALS, Cell
from benchmarks.detection import audit
from benchmarks.metrics import mean_of, quality
from benchmarks.record import markdown_table, write_report
from benchmarks.rivals.linear import class_probabilities

CELLS = [Cell("clothing", noise, rate, "copied") for noise in ("random", "category") for rate in (0.05, 0.1, 0.2)]
TOP = 50  # rows that a reviewer looks at first
NEIGHBORS = 10
OURS = "misalignment"
NOISES = {"random": "any other class", "category": "a class that is mixed up with it"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing and writes results/class-labels.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.class_labels", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(arguments)
    rows = [run_seeds(cell, options.seeds, DATA / "class-labels") for cell in CELLS]
    question = "AUROC, AP, precision at 50 and suggestions for wrong class labels on real photographs"
    write_report("class-labels", question, {"trials": TRIALS, "seeds": options.seeds, "cells": rows})


def run_seeds(cell: Cell, seeds: int, folder: Path) -> dict[str, Any]:
    """Means over the seeds of a cell; a JSON in the folder for each."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in range(seeds):
        path = folder / f"{cell.name}-{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(run_cell(cell, seed, TRIALS), indent=1) + "\n", encoding="utf-8")
            print(path.stem, json.dumps(json.loads(path.read_text(encoding="utf-8"))["methods"][OURS]), flush=True)
        runs.append(json.loads(path.read_text(encoding="utf-8")))
    methods = {
        name: {figure: mean_of(run["methods"][name][figure] for run in runs) for figure in figures}
        for name, figures in runs[0]["methods"].items()
    }
    more = {
        key: mean_of(run[key] for run in runs) for key in ("suggested_right", "probe_right", "flagged", "precision")
    }
    return {"noise": cell.noise, "rate": cell.rate, "samples": runs[0]["samples"], "methods": methods, **more}


def run_cell(cell: Cell, seed: int, trials: int) -> dict[str, Any]:
    """One set of wrong labels."""
    with tempfile.TemporaryDirectory() as folder:
        planted, prepared, evidence, result = audit(cell, seed, Path(folder), trials)
    rows = prepared.order.rows
    wrong = planted.wrong[rows]
    given = np.array(planted.samples.media["text"], dtype=object)[rows]
    true = np.array([label_of(path) for path in np.array(planted.samples.media["image"], dtype=object)[rows]])
    numbers = dense_ids(given)
    names = np.array([given[np.flatnonzero(numbers == number)[0]] for number in range(numbers.max() + 1)])

    features = evidence.vectors["image"]
    probability = class_probabilities(features, numbers)
    flagged = np.asarray(result.columns["is_misaligned"])[rows]
    methods = {OURS: np.asarray(result.columns["misalignment"])[rows], **rivals(features, numbers, probability)}
    suggested = np.asarray(result.columns["suggestion"])[rows]
    return {
        "samples": len(wrong),
        "wrong": int(wrong.sum()),
        "methods": {name: quality(values, wrong, TOP) for name, values in methods.items()},
        "suggested_right": float((suggested == true)[wrong].mean()),
        "probe_right": float((names[probability.argmax(1)] == true)[wrong].mean()),
        "flagged": int(flagged.sum()),
        "precision": float(wrong[flagged].mean()) if flagged.any() else None,
    }


def label_of(path: str) -> str:
    """The true class of a photograph: its folder."""
    return Path(path).parent.name


def rivals(features: Floats, labels: Ints, probability: Floats) -> dict[str, Floats]:
    """Method -> suspicion `[n]`.

    Logistic regression by the probability of the given class and by the margin to the best other; the share of the
    nearest neighbors with another label; cleanlab's label quality, as Datalab ranks label issues.
    """
    from cleanlab.rank import get_label_quality_scores

    rows = np.arange(len(labels))
    own = probability[rows, labels]
    others = probability.copy()
    others[rows, labels] = -1
    cosines = features @ features.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argpartition(-cosines, NEIGHBORS, axis=1)[:, :NEIGHBORS]
    closeness = np.take_along_axis(cosines, nearest, 1)
    disagree = (labels[nearest] != labels[:, None]).mean(1) + 1e-3 * closeness.mean(1)  # ties: the nearer, the worse
    return {
        "logistic regression": others.max(1) - own,
        "logistic regression, p": -own,
        "k-NN": disagree,
        "Datalab": 1 - get_label_quality_scores(labels, probability),
    }


def labels_table(report: dict[str, Any]) -> str:
    """One row per noise and rate: AUROC / AP / precision at 50 of each method, and suggestions."""
    names = list(report["cells"][0]["methods"])
    header = ["wrong labels", *(f"`{name}`" if name == OURS else name for name in names), "true class suggested"]
    lines = []
    for cell in report["cells"]:
        best = {figure: max(m[figure] for m in cell["methods"].values()) for figure in ("auroc", "ap", "precision")}
        cells = [
            " / ".join(
                f"**{value:.3f}**" if value == best[figure] else f"{value:.3f}" for figure, value in method.items()
            )
            for method in cell["methods"].values()
        ]
        lines.append([f"{cell['rate']:.0%}: {NOISES[cell['noise']]}", *cells, f"{cell['suggested_right']:.0%}"])
    return "\n".join(markdown_table(header, lines))


if __name__ == "__main__":
    main()
