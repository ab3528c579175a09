"""The tables of docs/multimem.md, from the JSON of the experiments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from audit_plugin.arrays import mean_interval
from benchmarks.record import RESULTS, markdown_table

CORRUPTION_COLUMNS = (("excess", 2, True), ("in_top", 2, False), ("t5_change", 4, True))


def tables() -> dict[str, str]:
    """Name of the marked part -> Markdown."""
    return {
        "groups": groups(),
        "misaligned": misaligned(),
        "noise": noise(),
        "regroup": regroup(),
        "removal": removal(),
        "reliability": reliability(),
        "robustness": robustness(),
        "list": memorized_list(),
        "corruptions": corruptions(),
    }


def load(name: str) -> dict[str, Any]:
    """One report."""
    return json.loads((RESULTS / f"multimem-{name}.json").read_text(encoding="utf-8"))


def shown(cell: Mapping[str, Any], digits: int = 3, signed: bool = False, top: float = float("inf")) -> str:
    """`0.41 (0.39 to 0.43)`: mean and 95% interval, cut at what the value can be at most."""
    if cell["low"] is not None:
        cell = {**cell, "high": min(cell["high"], top)}
    sign = "+" if signed else ""
    mean = f"{cell['mean']:{sign}.{digits}f}"
    return (
        mean if cell["low"] is None else f"{mean} ({cell['low']:{sign}.{digits}f} to {cell['high']:{sign}.{digits}f})"
    )


def rows(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; names in the stored reports have a space before the percent sign."""
    return "\n".join(markdown_table(header, lines)).replace(" %", "%")


def groups() -> str:
    """Means of the split protocol's groups."""
    lines = []
    for train in ("heads", "towers"):
        for name, entry in load(f"groups-{train}")["sets"].items():
            for score, cells in entry["scores"].items():
                label = f"{name} ({entry['samples']:,}), {train}: {score}"
                lines.append((label, *(shown(cells[g]) for g in ("candidate", "independent", "shared"))))
    return rows(("set, trained models, score", "S_C", "S_I", "S_S"), lines)


def misaligned() -> str:
    """AUROC of known misalignments, by the wrong modality."""
    report = load("misaligned")
    faults = ("text", "video", "image", "audio", "all")
    lines = [(score, *(shown(by_fault[f], 2, top=1) for f in faults)) for score, by_fault in report["auroc"].items()]
    lines.append(
        (
            "MultiMem above clean pairs, in standard deviations",
            *(shown(report["excess"][f], 2) for f in faults[:-1]),
            "",
        )
    )
    lines.append(("`culprit` is the wrong modality", *(shown(report["culprit"][f], 2, top=1) for f in faults[:-1]), ""))
    lines.append(("`driver` is the wrong modality", *(shown(report["driver"][f], 2, top=1) for f in faults[:-1]), ""))
    due = ("share of MultiMem that is lost without the modality, clean set (`due_*`)",)
    lines.append((*due, *(shown(report["attribution"][f"due_{f}"], 2) for f in faults[:-1]), ""))
    return rows(("AUROC against clean pairs, wrong modality", *faults), lines)


def noise() -> str:
    """Noise per modality against memorization and retrieval."""
    report = load("noise")["rows"]
    keys = list(next(iter(report.values())))
    lines = []
    for name, figures in report.items():
        gains = np.array(figures["T@5"]["values"]) - np.array(report["none"]["T@5"]["values"])
        gain = dict(zip(("mean", "low", "high"), mean_interval(gains), strict=True))
        paired = "" if name == "none" else shown(gain, signed=True)
        lines.append((name, *(f"{figures[key]['mean']:.3f}" for key in keys), paired))
    return rows(("noise on", *keys, "gain in T@5, paired by seed"), lines)


def regroup() -> str:
    """Each treatment from the first epoch on, and from the one that was best for T@5."""
    report = load("regroup")["change_against_none"]
    lines = []
    for name, cells in report.items():
        best = max(cells, key=lambda epoch: cells[epoch]["T@5"]["mean"])
        keys = ("multimem", "multimem of the top 5 %", "T@5")
        for epoch in dict.fromkeys((next(iter(cells)), best)):
            said = f"{epoch} (best)" if epoch == best else epoch
            lines.append((name, said, *(shown(cells[epoch][key], 4, signed=True) for key in keys)))
    return rows(("treatment", "start (epoch)", "MultiMem", "MultiMem of the top 5 %", "held-out T@5"), lines)


def removal() -> str:
    """The recommended N per method and its gain."""
    lines = []
    for name, study in load("removal")["sets"].items():
        for method, figures in study["methods"].items():
            chosen = figures["recommended"]
            lines.append((name, method, str(chosen["amount"]), shown(chosen["test_gain"], 3, signed=True)))
    return rows(("set", "ranked by", "chosen N", "gain in test T@5 over the control"), lines)


def reliability() -> str:
    """Reliability against the number of trials."""
    sets = load("reliability")["sets"]
    steps = ("8", "16", "32", "48", "64", "128")
    lines = [
        (f"{n} ({e['samples']:,})", *(f"{e['reliability'].get(s, float('nan')):.3f}" for s in steps))
        for n, e in sets.items()
    ]
    return rows(("trials", *steps), lines)


def robustness() -> str:
    """Other reference samples, other sizes of the split."""
    report = load("robustness")
    lines = [(f"H: {n}", shown(e["mean"]), shown(e["rank"])) for n, e in report["choice_of_h"].items()]
    first = rows(("", "mean MultiMem", "rank correlation with the default"), lines)
    lines = [(n, *(shown(e[g]) for g in ("S_C", "S_I", "S_S"))) for n, e in report["sizes"].items()]
    return first + "\n\n" + rows(("S_C : S_I, percent of the set", "S_C", "S_I", "S_S"), lines)


def memorized_list() -> str:
    """What the list of memorized rows of the demo holds, and what MultiMem adds to held-out alignment."""
    report = load("memorized-list")
    first, auroc = report["swapped"], report["auroc"]
    lines = [
        (f"swapped pairs among the first {first}, by MultiMem alone", report["swapped_among_first_by_multimem_alone"]),
        (f"swapped pairs among the first {first}, explained rows last", report["swapped_among_first"]),
        ("clean pairs that are flagged", f"{report['clean_flagged']} of {report['clean']}"),
    ]
    for name, size in report["lists"].items():
        lines.append((f"list `{name}`: rows, of which swapped", f"{size}, {report['swapped_in_lists'][name]}"))
    lines.append(
        ("Spearman's correlation of MultiMem and held-out alignment", f"{report['spearman_with_alignment']:.3f}")
    )
    lines += [(f"AUROC of {name}, swapped against clean pairs", f"{value:.3f}") for name, value in auroc.items()]
    return rows((f"demo set, {report['samples']} rows", ""), [(label, str(value)) for label, value in lines])


def corruptions() -> str:
    """Memorization and retrieval by kind of fault."""
    report = load("corruptions")
    lines = [
        (kind, *(shown(report[key][kind], digits, signed) for key, digits, signed in CORRUPTION_COLUMNS))
        for kind in sorted(report["excess"], key=lambda kind: -report["excess"][kind]["mean"])
    ]
    header = (
        "rows",
        "MultiMem above untouched rows, in standard deviations",
        "share among the highest 5%",
        "change of held-out T@5",
    )
    return rows(header, lines)
