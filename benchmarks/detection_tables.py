"""From the cells that were run to one JSON and the tables made from it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.scoring.wrong_pairs import LEAST_SHARE
from benchmarks import flag_rates
from benchmarks.data import DATA
from benchmarks.design import REPORT, SEEDS, TRIALS, Cell
from benchmarks.metrics import ap_difference, auroc_difference, mean_of
from benchmarks.record import markdown_table
from benchmarks.rivals import RIVALS

OURS = "misalignment"
LEAST_REPORTED = {"wrong_pairs": 1, "precision": LEAST_SHARE}  # lower bounds that an audit reports, from here on
ENDS = ("low", "high")
MARGINS = {"auroc": 0.005, "ap": 0.02}  # by which another method has to be higher to count as better in a cell
NAMES = {"foods": "foods", "stamps": "things, cut out", "activities": "places and things", "sky": "nebulae, galaxies"}
CAPTIONS = {"random": "of any other", "category": "of the same kind"}
DIFFERENCES = {"auroc": auroc_difference, "ap": ap_difference}


def summarize(cells: Iterable[Cell] = REPORT, folder: Path = DATA / "detection") -> dict[str, Any]:
    """Means over seeds of every cell, with the paired differences to the best other methods, and over all cells."""
    cells, rows, commits = list(cells), [], set()
    for cell in cells:
        if seeds := _read(cell, folder):
            row = _cell(cell, seeds)
            commits |= {run["git"] for run in seeds}
            if row["methods"]:
                row["best"] = _best_others(row["methods"], [folder / f"{cell.name}-{run['seed']}.npz" for run in seeds])
            rows.append(row)
    return {
        "measured_at": sorted(commits),
        "trials": TRIALS,
        "seeds": SEEDS,
        "planned": sum(len(cell.seeds) for cell in cells),
        "cells": rows,
        "means": _means(rows),
        "ablation": _means(rows, ablation=True),
        "flag_rates": flag_rates.summarize(rows),
        "coverage": coverage(rows),
    }


def _read(cell: Cell, folder: Path) -> list[dict[str, Any]]:
    paths = [folder / f"{cell.name}-{seed}.json" for seed in cell.seeds]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def _cell(cell: Cell, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    said = [run["said"] for run in seeds]
    flags = [run["flags"] for run in seeds]
    return {
        "name": cell.name,
        **asdict(cell),
        "runs": len(seeds),
        "samples": seeds[0]["samples"],
        "wrong": mean_of(run["wrong"] for run in seeds),
        "methods": {
            name: {key: mean_of(run["methods"][name][key] for run in seeds) for key in ("auroc", "ap", "precision")}
            for name in seeds[0]["methods"]
        },
        "flags": {rate: {key: mean_of(one[rate][key] for one in flags) for key in flags[0][rate]} for rate in flags[0]},
        "others": {kind: mean_of(one["others"][kind] for one in said) for kind in said[0]["others"]},
        **{number: [one[number] for one in said] for number in LEAST_REPORTED},
        "reliability": [one["reliability"] for one in said],
        "seconds": mean_of(run["seconds"]["audit"] for run in seeds),
    } | ({"culprit_right": mean_of(one["culprit_right"] for one in said)} if "culprit_right" in said[0] else {})


def _best_others(methods: dict[str, dict[str, float]], scores: list[Path]) -> dict[str, dict[str, Any]]:
    """Figure -> the label-free method of others that is highest in it, and ours less it, paired over rows."""
    out = {}
    for figure, difference in DIFFERENCES.items():
        name = max(_label_free(methods), key=lambda name: methods[name][figure])
        pairs = []
        for path in scores:
            with np.load(path, allow_pickle=False) as arrays:
                pairs.append((arrays[OURS], arrays[name], arrays["wrong"]))
        out[figure] = {"method": name, "value": methods[name][figure], "difference": difference(pairs)}
    return out


def _label_free(methods: Iterable[str]) -> list[str]:
    return [name for name in methods if name in RIVALS and RIVALS[name].label_free]


def _means(rows: list[dict[str, Any]], ablation: bool = False) -> dict[str, dict[str, Any]]:
    """Method -> mean AUROC and AP over the cells that it ran on, beside ours, and in how many of them it is better."""
    figures: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = defaultdict(list)
    for row in rows:
        for name, quality in row["methods"].items():
            if (name.startswith(("only ", "without "))) == ablation or name == OURS:
                figures[name].append((quality, row["methods"][OURS]))
    return {
        name: {
            "cells": len(pairs),
            **{key: mean_of(other[key] for other, _ in pairs) for key in MARGINS},
            **{f"ours_{key}": mean_of(ours[key] for _, ours in pairs) for key in MARGINS},
            **{
                f"higher_{key}": sum(o[key] - ours[key] > margin for o, ours in pairs)
                for key, margin in MARGINS.items()
            },
            "label_free": name not in RIVALS or RIVALS[name].label_free,
        }
        for name, pairs in figures.items()
    }


def coverage(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Encoder -> number -> of the runs with noise, those with a bound, and the share of them in which each end held."""
    ends: dict[str, dict[str, list[tuple[bool, bool]]]] = defaultdict(lambda: {number: [] for number in LEAST_REPORTED})
    for row in rows:
        for number, least in LEAST_REPORTED.items() if row["noise"] != "none" else ():
            for one in row[number]:
                if one is not None and one["low"] >= least:
                    ends[row["encoder"]][number].append((one["low"] <= one["true"], one["true"] <= one["high"]))
    return {
        encoder: {
            number: {"runs": len(held)}
            | {
                end: round(float(np.mean([each[at] for each in held])), 4) if held else None
                for at, end in enumerate(ENDS)
            }
            for number, held in numbers.items()
        }
        for encoder, numbers in ends.items()
    }


def methods_table(report: dict[str, Any]) -> str:
    """Every method's mean over its cells, ours on the same cells beside it, and where it is better."""
    means = {name: m for name, m in report["means"].items() if name not in (OURS, "MultiMem")}
    ranked = [OURS, *sorted(means, key=lambda name: -means[name]["auroc"]), "MultiMem"]
    header = [
        "method",
        "cells",
        "AUROC",
        "AP",
        f"`{OURS}` on these cells (AUROC / AP)",
        "cells where it is higher (AUROC, AP)",
    ]
    lines = []
    for name in ranked:
        m = report["means"][name]
        label = f"**{name}**" if name == OURS else name + ("" if m["label_free"] else " (needs labels)")
        beside = (
            ("", "")
            if name == OURS
            else (f"{m['ours_auroc']:.3f} / {m['ours_ap']:.3f}", f"{m['higher_auroc']}, {m['higher_ap']}")
        )
        lines.append([label, str(m["cells"]), f"{m['auroc']:.3f}", f"{m['ap']:.3f}", *beside])
    return "\n".join(markdown_table(header, lines))


def cells_table(report: dict[str, Any]) -> str:
    """Cell by cell: ours, bold where it leads beyond the interval, the best label-free methods, and the flags."""
    header = [
        "cell",
        "wrong",
        "AUROC",
        "best other: AUROC",
        "AP",
        "best other: AP",
        "flagged",
        "false-positive rate",
        "recall (of the best threshold)",
    ]
    lines = []
    for row in report["cells"]:
        flags = row["flags"][flag_rates.DEFAULT]
        figures = ["", "", "", ""]
        if row["methods"]:
            figures = [
                text
                for figure, best in row["best"].items()
                for text in _beside_best(row["methods"][OURS][figure], best)
            ]
        recall = f"{flags['recall']:.0%} ({flags['best_recall']:.0%})" if row["methods"] else ""
        lines.append(
            [
                row["name"],
                f"{row['wrong']:.0f} of {row['samples']}",
                *figures,
                f"{flags['flagged']:.0f}",
                f"{flags['false_positive_rate']:.1%}",
                recall,
            ]
        )
    return "\n".join(markdown_table(header, lines))


def _beside_best(ours: float, best: dict[str, Any]) -> tuple[str, str]:
    """Our figure, bold where the whole interval of the difference is above 0; the best other with that difference."""
    gap = best["difference"]
    label = f"**{ours:.3f}**" if gap["low"] > 0 else f"{ours:.3f}"
    return label, f"{best['method']} {best['value']:.3f}; {gap['mean']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})"


def beaten_lines(report: dict[str, Any]) -> str:
    """The cells where a label-free method is better by more than the margins, and in how many that is not chance."""
    lines, noisy = [], [row for row in report["cells"] if row["methods"]]
    for row in noisy:
        gaps = [
            f"{best['method']} by {-best['difference']['mean']:.3f} {figure.upper()}"
            + ("" if best["difference"]["high"] < 0 else " (not beyond chance)")
            for figure, best in row["best"].items()
            if best["difference"]["mean"] < -MARGINS[figure]
        ]
        lines += [f"- {row['name']}: {', '.join(gaps)}"] if gaps else []
    leads = {figure: sum(row["best"][figure]["difference"]["low"] > 0 for row in noisy) for figure in MARGINS}
    sentence = (
        f"Of {len(noisy)} cells, `{OURS}` leads all label-free methods beyond the interval in {leads['auroc']} by "
        f"AUROC and in {leads['ap']} by AP."
    )
    margins = f"by more than {MARGINS['auroc']} AUROC or {MARGINS['ap']} AP"
    if not lines:
        return f"{sentence} In no cell is another one better {margins}."
    head = f"In {len(lines)} another one is better {margins}:"
    return "\n".join([f"{sentence} {head}", "", *lines])


def photographs_table(report: dict[str, Any]) -> str:
    """AUROC / AP of each cell: ours, bold where it leads beyond the interval, what people use, and the best other."""
    used = {"CLIP similarity": "similarity", "Deep k-NN": "k-NN", "Datalab outlier": "Datalab"}
    header = ["photographs", "wrong captions", f"`{OURS}`", *used.values(), "best other method"]
    lines = []
    for row in report["cells"]:
        if not row["methods"]:
            continue
        best = [(one["method"], f"{one['value']:.3f}") for one in row["best"].values()]
        names = list(dict.fromkeys(name for name, _ in best))
        ours = [_beside_best(row["methods"][OURS][figure], one)[0] for figure, one in row["best"].items()]
        others = [f"{row['methods'][name]['auroc']:.3f} / {row['methods'][name]['ap']:.3f}" for name in used]
        wrong = f"{row['rate']:.0%}: {CAPTIONS[row['noise']]}"
        best_of = f"{' / '.join(value for _, value in best)} ({', '.join(names)})"
        lines.append([f"{row['samples']} {NAMES[row['set']]}", wrong, " / ".join(ours), *others, best_of])
    return "\n".join(markdown_table(header, lines))


def coverage_table(report: dict[str, Any]) -> str:
    """How often the ends of an audit's 90% intervals hold, by encoder."""
    names = {"wrong_pairs": "number of wrong pairs", "precision": "precision of the flags"}
    lines = [
        [encoder, names[number], str(one["runs"]), *("" if one[end] is None else f"{one[end]:.0%}" for end in ENDS)]
        for encoder, numbers in report["coverage"].items()
        for number, one in numbers.items()
    ]
    header = ["encoder", "number", "audits with a bound", "at least the lower bound", "at most the upper bound"]
    return "\n".join(markdown_table(header, lines))


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
