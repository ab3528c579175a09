"""Tables of docs/detection.md beside those of the main comparison: flags, repairs, oddities, spot checks, cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

SHIFTS = {"shift round": "cyclic", "shift dropped": "last caption dropped"}


def rates_table(report: dict[str, Any]) -> str:
    """Realized false-positive rate and recall of the flags at each rate, and flags on clean sets."""
    lines = [
        "| rate (setting) | measured at most 2 points above it | highest measured | recall at least 80% of the best | "
        "the same, noise like the probe pairs |",
        "|---|---|---|---|---|",
    ]
    for rate, outcome in report["flag_rates"]["rates"].items():
        name = f"{float(rate):.0%}" + ("" if len(lines) > 2 else " (default)")
        lines.append(
            f"| {name} | {outcome['kept']} of {outcome['cells']} cells | {outcome['highest']:.1%} "
            f"| {outcome['found']} of {outcome['cells']} | {outcome['covered_found']} of {outcome['covered']} |"
        )
    clean = report["flag_rates"]["clean"]
    sentence = (
        f"On clean sets at the default rate, at most {clean['misaligned']:.1%} of the pairs are flagged as misaligned, "
        f"{clean['outlier']:.1%} as outliers, {clean['conflict']:.1%} as conflicts and {clean['memorized']:.1%} as "
        "memorized."
    )
    return "\n".join([*lines, "", sentence])


def missed_lines(report: dict[str, Any]) -> str:
    """Cells where the recall of the flags is below 80% of the best threshold's: (recall, the best one)."""
    flags = {cell["name"]: cell["flags"] for cell in report["cells"]}
    return "\n".join(
        f"- {float(rate):.0%}: "
        + (
            ", ".join(
                f"{name} ({flags[name][rate]['recall']:.0%} of {flags[name][rate]['best_recall']:.0%})"
                for name in outcome["missed"]
            )
            or "none"
        )
        for rate, outcome in report["flag_rates"]["rates"].items()
    )


def shifts_table(report: dict[str, Any]) -> str:
    """Shifts of 200 rows: detected or not, error of the bounds, rows that got their own captions back."""
    lines = ["| set | shift | detected | largest error of the bounds | rows repaired |", "|---|---|---|---|---|"]
    for (name, role, plant), cells in _grouped(report["cells"]).items():
        if not plant.startswith("shift"):
            continue
        outcomes = [_shift(cell) for cell in cells]
        detected = [outcome for outcome in outcomes if outcome]
        off = max((outcome[0] for outcome in detected), default=None)
        repaired = np.mean([outcome[1] if outcome else 0.0 for outcome in outcomes])
        lines.append(
            f"| {name} ({role}) | {SHIFTS[plant]} | {len(detected)} of {len(cells)} "
            f"| {'' if off is None else f'{off} row' + 's' * (off != 1)} | {repaired:.0%} |"
        )
    return "\n".join(lines)


def _shift(cell: dict[str, Any]) -> tuple[int, float] | None:
    """(rows by which the bounds are off, share of the planted rows that got their captions), or None: not found."""
    shift = next(r for r in cell["repairs"] if r["kind"] == "shift")
    if not shift["count"]:
        return None
    first, last = cell["block"]
    return max(abs(shift["first"] - first), abs(shift["last"] - last)), shift["right"] / cell["wrong"]


def recall_table(report: dict[str, Any]) -> str:
    """Share of wrong rows whose own caption comes first, and among the first three: suggestions, baselines, chance."""
    lines = [
        "| set | wrong captions | suggestions @1 / @3 | captions like the nearest image's "
        "| captions of the nearest images | chance |",
        "|---" * 6 + "|",
    ]
    for (name, role, plant), cells in _grouped(report["cells"]).items():
        if plant not in ("swaps", "permuted", "labels"):
            continue
        means = {key: np.mean([cell["recall"][key] for cell in cells], axis=0) for key in cells[0]["recall"]}
        figures = [
            f"{means[key][0]:.2f} / {means[key][1]:.2f}" for key in ("ranking", "like_nearest", "nearest", "chance")
        ]
        lines.append(f"| {name} ({role}) | {plant} | **{figures[0]}** | {' | '.join(figures[1:])} |")
    return "\n".join(lines)


def _grouped(cells: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    groups = defaultdict(list)
    for cell in cells:
        groups[cell["set"], cell["role"], cell["plant"]].append(cell)
    return groups


def oddities_table(report: dict[str, Any]) -> str:
    """Per set: planted outliers, copies, conflicts and placeholders, and what is flagged without any."""
    lines = [
        "| set | outliers: AUROC (flagged) | duplicates: recall / precision | conflicts | placeholders "
        "| clean set: flagged as outlier, conflict |",
        "|---" * 6 + "|",
    ]
    cells = {(cell["set"], cell["cell"]): cell for cell in report["cells"]}
    for name in dict.fromkeys(cell["set"] for cell in report["cells"]):
        odd, copies = cells[name, "outliers"], cells[name, "copies"]
        clean = cells[name, "clean"]["flagged_beside_plants"]
        both = [
            f"{copies['recall'][k]:.3f} / {copies['precision'][k]:.3f}"
            for k in ("duplicate", "conflict", "placeholder")
        ]
        lines.append(
            f"| {name} | {odd['auroc']['all']:.3f} ({odd['recall']['all']:.0%}) | {' | '.join(both)} "
            f"| {clean['outlier']:.1%}, {clean['conflict']:.1%} |"
        )
    return "\n".join(lines)


def spot_check_table(report: dict[str, Any]) -> str:
    """Coverage of the 90% intervals of simulated spot checks."""
    names = ("precision", "missed", "wrong", "recall")
    lines = [f"| set | rows | flagged | {' | '.join(names)} |", "|---" * 7 + "|"]
    for row in report["sets"]:
        figures = [f"{row['coverage'][name]:.2f}" if name in row["coverage"] else "" for name in names]
        lines.append(f"| {row['set']} | {row['rows']:,} | {row['flagged']} | {' | '.join(figures)} |")
    return "\n".join(
        [*lines, f"\n{report['checks']} simulated spot checks per set; lowest coverage {report['lowest']:.2f}."]
    )


def search_table(report: dict[str, Any]) -> str:
    """What searches for a threshold keep, cost and find."""
    sizes = list(report["searches"][0]["after"])
    lines = ["| set | rows | wrong | labels | kept | rows at the threshold | found, of the best |", "|---" * 7 + "|"]
    for row in report["searches"]:
        for size in sizes:
            after = row["after"][size]
            share = "" if after["found_of_best"] is None else f"{after['found_of_best']:.2f}"
            counts = f"{row['rows']:,} | {row['wrong']:,} | {after['labels']['median']:.0f}"
            lines.append(f"| {row['set']} | {counts} | {after['kept']:.2f} | {after['rows']:.0f} | {share} |")
    kept = min(row["after"][size]["kept"] for row in report["searches"] for size in sizes)
    sentence = f"{report['checks']} simulated searches per row; the precision was kept in {kept:.1%} of them or more."
    return "\n".join([*lines, f"\n{sentence}"])


def cost_table(report: dict[str, Any]) -> str:
    """Seconds of the score beside those of its trials."""
    lines = ["| pairs | neighbor search | trials | score | score / trials |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['pairs']:,} | {row['neighbors']:.1f} s | {row['trials']:.1f} s | {row['score']:.1f} s "
        f"| {row['share']:.0%} |"
        for row in report["sizes"]
    ]
    agree = report["agreement"]
    lines.append(
        f"\n{report['trials']} trials. The scores with a pool of {agree['pool']:,} negatives and with "
        f"all {agree['pairs']:,} pairs as negatives have a rank correlation of {agree['spearman']:.4f} and share "
        f"{agree['top_5_percent']:.0%} of the most suspicious 5%."
    )
    return "\n".join(lines)
