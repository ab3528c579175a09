"""The speed tables of README and docs/scale.md, from the committed measurements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.record import RESULTS

STAGES = {
    "read": "read and digest media",
    "encode": "find features in the cache",
    "neighbours": "neighbours, three spaces",
    "trials": "train the trials",
    "held out": "read what they held out",
    "score": "score, flag, propose",
    "explain": "explain what is flagged",
}
LARGE = 12_000_000


def speed_table() -> str:
    """Ratios, both sides of each measured in one run."""
    embedding, found = _read("embedding-speed"), _read("neighbor-speed")
    training, writing = _read("training-speed"), _read("writing-speed")
    rows = [*_embedding_rows(embedding), *_neighbor_rows(found), *_training_rows(training), _writing_row(writing)]
    machine = found["machine"]
    return "\n".join(
        [
            f"On {machine['cores']} cores of {machine['cpu']} with bf16 matrix units, Python {machine['python']}; the",
            "sides of a ratio took turns in one run. Nothing of this was measured on a GPU.",
            "",
            "| what | ours | against | times faster |",
            "|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            *_audit_lines(_read("audit-speed")),
        ]
    )


def _embedding_rows(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    speed, ratio, settings = report["images_per_second"], report["times_faster"], report["settings"]
    names = {"fiftyone": "FiftyOne's compute_embeddings", "loop": "a plain PyTorch loop"}
    return [
        (
            f"{settings['model']}, JPEGs of {settings['side']} pixels, {ours.removeprefix('ours ')}",
            f"{speed[ours]:.1f} images/s",
            f"{names[rival]}, fp32: {speed[rival]:.1f}",
            f"{ratio[f'{ours} than {rival}']:.2f}",
        )
        for ours in ("ours bf16", "ours fp32")
        for rival in names
    ]


def _neighbor_rows(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    names = {
        "brain": "FiftyOne Brain's default",
        "scikit-learn": "scikit-learn, all cores",
        "faiss exact": "faiss, exact",
    }
    kinds = {"clusters": "in clusters", "even": "in all directions"}
    return [
        (
            f"{report['k']} neighbours of {report['vectors']:,} x {report['dimensions']}, rows {kinds[kind]}",
            f"{cells['seconds']['ours']:.1f} s, recall {cells['recall']['ours']:.3f}",
            f"{names[rival]}: {cells['seconds'][rival]:.1f} s",
            f"{cells['times_faster'][rival]:.1f}",
        )
        for kind, cells in report["sets"].items()
        for rival in names
    ]


def _training_rows(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    settings = report["settings"]
    return [
        (
            f"{settings['trials']} trials of heads on {settings['pairs']:,} pairs, {products}",
            f"{report[way]['seconds']:.1f} s",
            f"trial by trial, fp32: {report['one by one']['seconds']:.1f} s",
            f"{report[way]['ratio']:.2f}",
        )
        for way, products in (("groups", settings["products"]), ("groups in fp32", "fp32"))
    ]


def _writing_row(report: dict[str, Any]) -> tuple[str, str, str, str]:
    return (
        f"{report['fields']} fields of {report['samples']:,} samples written into FiftyOne",
        f"{report['audit']:.1f} s",
        f"FiftyOne's set_values: {report['set_values']:.1f} s",
        f"{report['ratio']:.1f}",
    )


def _audit_lines(report: dict[str, Any]) -> list[str]:
    sizes = [
        f"{row['pairs']:,} pairs: {_clock(row['seconds'])}, {row['peak_mb'] / 1000:.1f} GB" for row in report["sizes"]
    ]
    return [
        f"A whole audit from cached embeddings ({report['settings']['trials']} trials, {report['settings']['dim']} "
        f"numbers a side): {'; '.join(sizes)}. [docs/scale.md](docs/scale.md) has the stages, and what a larger set "
        "would cost."
    ]


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def stages_table() -> str:
    """Milliseconds per pair of each stage, by size, and how the stage grows."""
    sizes = _read("audit-speed")["sizes"]
    head = ["stage", *(f"{row['pairs']:,} pairs" for row in sizes), "grows as"]
    rows = []
    for stage, label in STAGES.items():
        seconds = [row["stages"][stage] for row in sizes]
        cells = [f"{1000 * value / row['pairs']:.3f}" for value, row in zip(seconds, sizes, strict=True)]
        rows.append([label, *cells, f"n^{growth([row['pairs'] for row in sizes], seconds):.2f}"])
    power = growth([row["pairs"] for row in sizes], [row["seconds"] for row in sizes])
    rows.append(["**the whole audit**", *(f"{row['milliseconds_per_pair']:.3f}" for row in sizes), f"n^{power:.2f}"])
    rows.append(["peak memory, MB", *(f"{row['peak_mb']:,}" for row in sizes), ""])
    rows.append(["features on both sides, MB", *(f"{row['features_mb']:,}" for row in sizes), ""])
    rows.append(["run folder, MB", *(f"{row['run_folder_mb']:,}" for row in sizes), ""])
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def growth(pairs: Sequence[int], seconds: Sequence[float]) -> float:
    """Exponent of n between the smallest and the largest size."""
    return float(np.log(max(seconds[-1], 1e-3) / max(seconds[0], 1e-3)) / np.log(pairs[-1] / pairs[0]))


def forecast_table() -> str:
    """What the largest measured size says of `LARGE` pairs on the same machine, stage by stage."""
    last = _read("audit-speed")["sizes"][-1]
    factor = LARGE / last["pairs"]
    rows = []
    for stage, label in STAGES.items():
        power = 2 if stage == "neighbours" else 1
        hours = last["stages"][stage] * factor**power / 3600
        rows.append(f"| {label} | {'n²' if power == 2 else 'n'} | {hours:,.1f} |")
    head = ["| stage | taken to grow as | hours |", "|---|---|---|"]
    return "\n".join([*head, *rows])


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found
