"""Writes the tables of README and docs from the code and the committed measurements: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit_plugin.scoring.columns import JUDGE_COLUMNS, all_columns
from benchmarks.boxes import boxes_tables
from benchmarks.chaos_tables import chaos_table
from benchmarks.checks import checks_tables
from benchmarks.claims import claims_tables
from benchmarks.class_labels import labels_table
from benchmarks.crossmodal.tables import crossmodal_parts
from benchmarks.detection_tables import (
    ablation_table,
    beaten_lines,
    cells_table,
    coverage_table,
    methods_table,
    photographs_table,
    reliability_table,
)
from benchmarks.finding_tables import (
    cost_table,
    missed_lines,
    oddities_table,
    rates_table,
    recall_table,
    search_table,
    shifts_table,
    spot_check_table,
)
from benchmarks.gate import gate_table
from benchmarks.judge import judge_table
from benchmarks.multimem.tables import tables
from benchmarks.rate_certainty import certainty_table
from benchmarks.record import RESULTS, markdown_table
from benchmarks.reference_tables import commands_reference, operators_table
from benchmarks.small_sets import small_sets_table
from benchmarks.speed_tables import (
    contention_table,
    forecast_table,
    neighbors_table,
    speed_table,
    stages_table,
    table_memory_line,
    workers_line,
)
from benchmarks.word_faults import words_table

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
MULTIMEM = ROOT / "docs" / "multimem.md"
DETECTION = ROOT / "docs" / "detection.md"
SCALE = ROOT / "docs" / "scale.md"
CROSSMODAL = ROOT / "docs" / "crossmodal.md"
SECURITY = ROOT / "docs" / "security.md"
REVIEW = ROOT / "docs" / "review.md"
JUDGE = ROOT / "docs" / "judge.md"
COLUMNS = ROOT / "docs" / "columns.md"
COMMANDS = ROOT / "docs" / "commands.md"
OPERATORS = ROOT / "docs" / "operators.md"
SPEED = ROOT / "docs" / "speed.md"
CLAIMS = ROOT / "docs" / "claims.md"


def main() -> None:
    """Fills the pages in place."""
    for path, parts in pages().items():
        path.write_text(fill(path.read_text(encoding="utf-8"), parts), encoding="utf-8")


def pages() -> dict[Path, dict[str, str]]:
    """Page -> name of a marked part -> its content."""
    return {
        README: {"photographs": photographs_table(_read("photographs"))},
        COLUMNS: {"columns": columns_table()},
        COMMANDS: {"commands": commands_reference()},
        OPERATORS: {"operators": operators_table()},
        CLAIMS: claims_tables(),
        SPEED: {"speed": speed_table(), "contention": contention_table(), "app": app_table()},
        SCALE: {
            "stages": stages_table(),
            "neighbors": neighbors_table(),
            "workers": workers_line(),
            "table-memory": table_memory_line(),
            "forecast": forecast_table(),
        },
        MULTIMEM: tables(),
        DETECTION: detection_parts()
        | checks_tables(_read("checks"))
        | boxes_tables(_read("boxes"))
        | {"rate-certainty": certainty_table(_read("rate-certainty"))}
        | {"word-faults": "\n".join(words_table(_read("word-faults")))},
        CROSSMODAL: crossmodal_parts(),
        SECURITY: {"attacks": chaos_table()},
        REVIEW: {"review-speed": review_speed_table()},
        JUDGE: {"judge-columns": judge_columns_table(), "judge-measured": judge_table(_read("judge"))},
    }


def fill(text: str, parts: Mapping[str, str]) -> str:
    """The text with its marked parts replaced."""
    for name, content in parts.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = text.split(start)
        text = f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"
    return text


def columns_table() -> str:
    """One row per column of a result."""
    rows = [f"| `{c.name}` | {c.help} |" for c in all_columns().values()]
    return "\n".join(["| column | meaning |", "|---|---|", *rows])


def judge_columns_table() -> str:
    """One row per column that a judge adds."""
    return "\n".join(markdown_table(("column", "meaning"), ((f"`{c.name}`", c.help) for c in JUDGE_COLUMNS)))


def review_speed_table() -> str:
    """How long a reviewer waits for the App, driven in a browser."""
    reports = [_read(f"review-speed-{rows}") for rows in (300, 100_000)]
    steps = {
        "panel": "open the panel",
        "threshold": "move a threshold",
        "lasso": "show what a lasso encloses",
        "decision by key": "decide by key, and see the next row",
        "decision by button": "decide by button, and see the next row",
        "40 by key": "40 decisions by key",
        "40 by button": "40 decisions by button",
    }
    targets, cpu = reports[0]["targets"], reports[0]["machine"]["cpu"]
    rows = []
    for name, label in steps.items():
        measured = [f"{report['median'][name]:.2f} ({report['longest'][name]:.2f})" for report in reports]
        rows.append((label, *measured, f"{targets[name]:g}"))
    headings = [f"{report['rows']:,} samples" for report in reports]
    return "\n".join(
        [
            f"Seconds, median and longest of {reports[0]['repeats']} (`python -m benchmarks.review_speed [--rows "
            f"100000]`, a real server and Chromium on two cores of an {cpu}). Each repeat has a "
            "new copy of the dataset, so that the panel reads all of it when it is opened:",
            "",
            *markdown_table(("step", *headings, "aimed at"), rows),
        ]
    )


def app_table() -> str:
    """How long the App takes on a large dataset, and the similarity index against FiftyOne's own."""
    panel, index = _read("panel-open"), _read("similarity")
    steps = {
        "open the panel": "open",
        "show the plots": "plots",
        "show the queue": "queue",
        "move a threshold": "slide",
        "decide, and show the next sample": "decide again",
    }
    rows = [f"| {what} | {panel['median'][step]:.1f} | {panel['longest'][step]:.1f} |" for what, step in steps.items()]
    ours, default = (index["backends"][name] for name in ("audit_faiss", "sklearn"))
    kinds = {
        "build": "build",
        "by_vector": "query by vector",
        "by_sample": "query by sample",
        "load_and_ask": "load and query",
    }
    times = [
        f"| {label} | {ours['seconds'][name]:.2f} | {default['seconds'][name]:.2f} "
        f"| {index['times_faster'][name]:.1f} |"
        for name, label in kinds.items()
    ]
    same = f"{default['same_again']:.0%}" if default["same_again"] else "none"
    return "\n".join(
        [
            f"Seconds that the panel takes on {panel['samples']:,} samples in a new process (median and maximum of "
            f"{panel['repeats']}; the machine was busy, load {panel['load']:.1f}):",
            "",
            "| step | median | maximum |",
            "|---|---|---|",
            *rows,
            "",
            "Seconds that the similarity index takes, compared with FiftyOne's default backend, for",
            f"{index['vectors']:,} vectors of {index['dimensions']} numbers (load {index['load']['before']:.1f}).",
            f"Both are exact at first. After a query by sample, {ours['same_again']:.0%} of the answers of",
            f"`audit_faiss` to the same query are unchanged, and {same} of the",
            "default's, which changes its embeddings in place:",
            "",
            "| step | audit_faiss | default | speedup |",
            "|---|---|---|---|",
            *times,
        ]
    )


def detection_parts() -> dict[str, str]:
    """The tables of docs/detection.md."""
    report, settings = _read("detection"), _read("detection-settings")["settings"]
    chosen = [f"| {name} | {_settings_text(chosen_settings)} |" for name, chosen_settings in settings.items()]
    photographs = _read("photographs")
    return {
        "photographs-methods": methods_table(photographs),
        "photographs-cells": cells_table(photographs),
        "photographs-beaten": beaten_lines(photographs),
        "beaten": beaten_lines(report),
        "photographs-sure": rates_table(photographs),
        "photographs-coverage": coverage_table(photographs),
        "methods": methods_table(report),
        "cells": cells_table(report),
        "ablation": ablation_table(report),
        "labels": labels_table(_read("class-labels")),
        "small": small_sets_table(_read("small-sets")),
        "sure": rates_table(report),
        "missed": missed_lines(report),
        "gate": gate_table(_read("gate")),
        "reliability": reliability_table(report),
        "coverage": coverage_table(report),
        "settings": "\n".join(["| method | settings |", "|---|---|", *chosen]),
        "cost": cost_table(_read("scoring-cost")),
        "oddities": oddities_table(_read("oddities")),
        "shifts": shifts_table(_read("relabel")),
        "shifts48": shifts_table(_read("relabel-trials-48")),
        "recall": recall_table(_read("relabel")),
        "spot": spot_check_table(_read("spot-check")),
        "searches": search_table(_read("spot-check")),
    }


def _settings_text(settings: dict[str, Any]) -> str:
    values = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in settings.items())
    return ", ".join(values) or "as published (or none to choose)"


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
