"""From the cells that were run to one JSON and the tables made from it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import DATA
from benchmarks.design import REPORT, RIVAL, SEEDS, TRIALS, Cell
from benchmarks.metrics import difference, holm, mean_of
from benchmarks.rivals import RIVALS

OURS = "misalignment"


def summarize(cells: Iterable[Cell] = REPORT, folder: Path = DATA / "detection") -> dict[str, Any]:
    """Means over seeds of every cell, and the pre-named rival's paired differences."""
    cells, rows, gaps = list(cells), [], {}
    for cell in cells:
        seeds = _read(cell, folder)
        if not seeds:
            continue
        rows.append(_cell(cell, seeds))
        if seeds[0]["methods"]:
            gaps[cell.name] = difference([_scores(folder / f"{cell.name}-{run['seed']}.npz") for run in seeds])
    adjusted = holm({name: gap["p"] for name, gap in gaps.items()})
    for row in rows:
        if row["name"] in gaps:
            row["against_rival"] = gaps[row["name"]] | {"p_holm": round(adjusted[row["name"]], 5)}
    return {
        "rival": RIVAL,
        "trials": TRIALS,
        "seeds": SEEDS,
        "planned": sum(len(cell.seeds) for cell in cells),
        "cells": rows,
        "means": _means(rows),
        "ablation": _means(rows, ablation=True),
    }


def _read(cell: Cell, folder: Path) -> list[dict[str, Any]]:
    paths = [folder / f"{cell.name}-{seed}.json" for seed in cell.seeds]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def _scores(path: Path) -> tuple[Any, Any, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[OURS], arrays[RIVAL], arrays["wrong"]


def _cell(cell: Cell, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    methods = {
        name: {key: mean_of(run["methods"][name][key] for run in seeds) for key in ("auroc", "ap", "precision")}
        for name in seeds[0]["methods"]
    }
    flags = {key: mean_of(run["flags"][key] for run in seeds) for key in seeds[0]["flags"]}
    claims = [run["said"] for run in seeds]
    return {
        "name": cell.name,
        **asdict(cell),
        "runs": len(seeds),
        "samples": seeds[0]["samples"],
        "wrong": mean_of(run["wrong"] for run in seeds),
        "methods": methods,
        "flags": flags,
        "others": {kind: mean_of(one["others"][kind] for one in claims) for kind in claims[0]["others"]},
        "share_said": mean_of(one["wrong_share"] for one in claims),
        "share_true": mean_of(one["true_share"] for one in claims),
        "precision_said": mean_of(one["precision_model"] for one in claims),
        "precision_true": mean_of(one["precision"] for one in claims),
        "reliability": [one["reliability"] for one in claims],
        "seconds": mean_of(run["seconds"]["audit"] for run in seeds),
    } | ({"culprit_right": mean_of(one["culprit_right"] for one in claims)} if "culprit_right" in claims[0] else {})


def _means(rows: list[dict[str, Any]], ablation: bool = False) -> dict[str, dict[str, Any]]:
    """Method -> mean AUROC and AP over the cells that it ran on, beside ours on the same cells."""
    figures: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = defaultdict(list)
    for row in rows:
        for name, quality in row["methods"].items():
            if (name.startswith(("only ", "without "))) == ablation or name == OURS:
                figures[name].append((quality, row["methods"][OURS]))
    return {
        name: {
            "cells": len(pairs),
            **{key: mean_of(rival[key] for rival, _ in pairs) for key in ("auroc", "ap")},
            **{f"ours_{key}": mean_of(ours[key] for _, ours in pairs) for key in ("auroc", "ap")},
            "label_free": name not in RIVALS or RIVALS[name].label_free,
        }
        for name, pairs in figures.items()
    }


def methods_table(report: dict[str, Any]) -> str:
    """Every method's mean over its cells, ours on the same cells beside it."""
    means = {name: m for name, m in report["means"].items() if name != "MultiMem"} | {
        "MultiMem": report["means"]["MultiMem"]
    }
    ranked = sorted(means, key=lambda name: -means[name]["auroc"] + (name != OURS) * 2)
    lines = ["| method | cells | AUROC | AP | `misalignment` on these cells (AUROC / AP) |", "|---|---|---|---|---|"]
    for name in ranked:
        m = means[name]
        label = f"**{name}**" if name == OURS else name + ("" if m["label_free"] else " (needs labels)")
        ours = "" if name == OURS else f"{m['ours_auroc']:.3f} / {m['ours_ap']:.3f}"
        lines.append(f"| {label} | {m['cells']} | {m['auroc']:.3f} | {m['ap']:.3f} | {ours} |")
    return "\n".join(lines)


def cells_table(report: dict[str, Any]) -> str:
    """Cell by cell: ours, the pre-named rival, the best label-free rival, and the flags."""
    lines = [
        f"| cell | wrong | AUROC / AP | {report['rival']} | difference in AUROC (95%) | best label-free baseline |"
        " flagged | false-positive rate | recall (of the best threshold) |",
        "|---" * 9 + "|",
    ]
    for row in report["cells"]:
        flags = row["flags"]
        head = f"| {row['name']} | {row['wrong']:.0f} of {row['samples']} "
        tail = f"| {flags['flagged']:.0f} | {flags['false_positive_rate']:.1%} |"
        if not row["methods"]:
            lines.append(f"{head}| | | | {tail} |")
            continue
        ours, rival, gap = row["methods"][OURS], row["methods"][report["rival"]], row["against_rival"]
        free = {n: m for n, m in row["methods"].items() if n in RIVALS and RIVALS[n].label_free}
        best = max(free, key=lambda name: free[name]["auroc"])
        lines.append(
            f"{head}| **{ours['auroc']:.3f}** / {ours['ap']:.3f} | {rival['auroc']:.3f} / {rival['ap']:.3f} "
            f"| {gap['mean']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f}) | {best} {free[best]['auroc']:.3f} "
            f"{tail} {flags['recall']:.0%} ({flags['best_recall']:.0%}) |"
        )
    return "\n".join(lines)


def ablation_table(report: dict[str, Any]) -> str:
    """The score from each part alone, and without each part."""
    lines = ["| evidence | cells | AUROC | AP | `misalignment` on these cells (AUROC / AP) |", "|---|---|---|---|---|"]
    for name, m in sorted(report["ablation"].items()):
        if name != OURS:
            lines.append(
                f"| {name} | {m['cells']} | {m['auroc']:.3f} | {m['ap']:.3f} "
                f"| {m['ours_auroc']:.3f} / {m['ours_ap']:.3f} |"
            )
    return "\n".join(lines)


def reliability_table(report: dict[str, Any]) -> str:
    """Calibration over all rows of the noisy cells: mean probability and share of wrong rows, by tenth."""
    rows: dict[int, list[tuple[int, float, float]]] = defaultdict(list)
    for cell in report["cells"]:
        for run in cell["reliability"] if cell["methods"] else []:
            for at, count, predicted, true in run:
                rows[at].append((count, predicted, true))
    lines = ["| probability | pairs | mean probability | share wrong |", "|---|---|---|---|"]
    for at in sorted(rows):
        count = sum(n for n, _, _ in rows[at])
        predicted, true = (sum(n * row[side] for n, *row in rows[at]) / count for side in (0, 1))
        lines.append(f"| {at / 10:.1f} to {(at + 1) / 10:.1f} | {count:,} | {predicted:.2f} | {true:.2f} |")
    return "\n".join(lines)
