"""The tables of docs/speed.md and docs/scale.md, from the committed measurements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, markdown_table

STAGES = {
    "read": "read and hash media",
    "encode": "read features from the cache",
    "neighbors": "neighbors, three spaces",
    "trials": "train trials",
    "held out": "held-out similarities",
    "score": "score, flag and suggest",
    "explain": "explain flagged samples",
}
COLD = {"encode": "encode", "train": "neighbors and trials", "whole": "the whole process"}  # without a cache
SHORT_STAGE = 0.5  # seconds; of shorter ones a ratio says nothing
PER_TRIAL = ("trials", "held out")
LARGE, LARGE_TRIALS = 12_000_000, 16


def speed_table() -> str:
    """Ratios, both sides of each measured in one run."""
    parts = {
        "offline-speed": _offline_rows,
        "embedding-speed": _embedding_rows,
        "neighbor-speed": _neighbor_rows,
        "training-speed": _training_rows,
        "writing-speed": _writing_rows,
    }
    reports = {name: _read(name) for name in parts}
    rows = [(*row, _chip(reports[name])) for name, part in parts.items() for row in part(reports[name])]
    return "\n".join(
        [
            "Speed on two cores of an AMD EPYC with AVX512-BF16 or of an Intel Xeon with AMX (last column). The two",
            "sides of each ratio alternated in one run. Nothing was measured on a GPU.",
            "",
            "| task | audit-plugin | compared with | speedup | processor |",
            "|---|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            *_audit_lines(_read("audit-speed")),
        ]
    )


def _chip(report: dict[str, Any]) -> str:
    return "Intel" if "Intel" in report["machine"]["cpu"] else "AMD"


def _offline_rows(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """In time of the processor: the machine was busy, and PyTorch's threads wait for each other."""
    names = {
        "PyTorch, batches": "batches of the same network in PyTorch",
        "PyTorch, compiled, one image a thread": "the same, frozen and optimized, an image a thread",
        "PyTorch, few texts a thread": "the same, few texts a thread",
    }
    return [
        (
            f"encoder `offline`, {media}, fp32",
            f"{cells['processor_ms']['ours']:.1f} ms of a core each",
            f"{rival}: {cells['processor_ms'][name]:.1f} ms",
            f"{cells['times_less_processor'][name]:.2f}",
        )
        for media, cells in report["sets"].items()
        for name, rival in names.items()
        if name in cells["processor_ms"]
    ]


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


RIVALS = {"brain": "FiftyOne Brain's default", "scikit-learn": "scikit-learn", "faiss exact": "faiss, exact"}
VECTORS = {"clusters": "in clusters", "even": "without clusters", "photographs": "of crops of photographs"}


def _neighbor_rows(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (
            f"{report['k']} neighbors of {cells['rows']:,} x {cells['dimensions']}, vectors {VECTORS[kind]}, one core",
            f"{cells['cpu_seconds']['ours']:.1f} s, recall {cells['recall']['ours']:.3f}",
            f"{name}: {cells['cpu_seconds'][rival]:.1f} s",
            f"{cells['times_faster'][rival]:.1f}",
        )
        for kind, cells in report["sets"].items()
        for rival, name in RIVALS.items()
    ]


def neighbors_table() -> str:
    """Our search, the former one and others: seconds of one core, and recall."""
    reports = [_read(name) for name in ("neighbor-speed", "neighbor-speed-100000")]
    names = {"ours": "ours", "former": "the former search", "faiss hnsw": "faiss, HNSW"} | RIVALS
    rows = [
        (f"{cells['rows']:,} x {cells['dimensions']}, {VECTORS[kind]}", f"{names[way]}{_in_brackets(cells, way)}",
         f"{seconds:.1f}", f"{cells['recall'][way]:.4f}")
        for report in reports
        for kind, cells in report["sets"].items()
        for way, seconds in cells["cpu_seconds"].items()
    ]  # fmt: skip
    return "\n".join(
        [
            f"Seconds of one core ({_chip(reports[0])}) for the {reports[0]['k']} neighbors of all vectors, and the",
            "recall of 1,000 of them. The machine was shared, so processor time was measured. The crops are of 4,145",
            "photographs, encoded by `offline` and projected as in an audit (`python -m benchmarks.crop_features`).",
            "",
            *markdown_table(("vectors", "search", "seconds", "recall"), rows),
        ]
    )


def _in_brackets(cells: dict[str, Any], way: str) -> str:
    method = cells["methods"].get(way, "").replace(" (", "; ").replace(")", "")
    return f" ({method})" if method else ""


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


def _writing_rows(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (
            f"write {report['fields']} fields of {report['samples']:,} samples into FiftyOne",
            f"{report['audit']:.1f} s",
            f"FiftyOne's set_values: {report['set_values']:.1f} s",
            f"{report['ratio']:.1f}",
        )
    ]


def contention_table() -> str:
    """Stage by stage: seconds alone and beside a busy process on every core."""
    report = _read("contention")
    stages = {name: one for name, one in report["stages"].items() if name == "whole" or one["alone"] >= SHORT_STAGE}
    lines = [
        [{**STAGES, **COLD}.get(name, name), f"{one['alone']:.1f} s", f"{one['beside']:.1f} s", f"{one['times']:.1f}"]
        for name, one in stages.items()
    ]
    return "\n".join(markdown_table(["stage", "alone", "beside", "times"], lines))


def _audit_lines(report: dict[str, Any]) -> list[str]:
    sizes = [
        f"{row['pairs']:,} pairs ({row['rows']}), {row['trials']} trials: {_clock(row['seconds'])}, "
        f"{row['peak_mb'] / 1000:.1f} GB"
        for row in report["sizes"]
    ]
    return [
        f"A complete audit from cached embeddings ({report['settings']['dim']} numbers per modality, {_chip(report)}): "
        f"{'; '.join(sizes)}. [scale.md](scale.md) has the time of each stage and estimates for larger sets."
    ]


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def stages_table() -> str:
    """Milliseconds per pair of each stage, by size, and how the stage grows where rows are in clusters."""
    sizes = _read("audit-speed")["sizes"]
    alike = [row for row in sizes if row["rows"] == "clusters"]
    rows = [["stage", *(f"{row['pairs']:,} pairs, {row['rows']}" for row in sizes), "grows as"]]
    rows.append(["---"] * len(rows[0]))
    for stage, label in STAGES.items():
        cells = [f"{1000 * _stage_seconds(row, stage) / row['pairs']:.3f}" for row in sizes]
        power = growth([row["pairs"] for row in alike], [_stage_seconds(row, stage) for row in alike])
        rows.append([f"{label}, per trial" if stage in PER_TRIAL else label, *cells, f"n^{power:.2f}"])
    rows.append(["**complete audit**", *(f"{row['milliseconds_per_pair']:.3f}" for row in sizes), ""])
    rows.append(["trials", *(str(row["trials"]) for row in sizes), ""])
    rows.append(["minutes", *(f"{row['seconds'] / 60:.1f}" for row in sizes), ""])
    rows.append(["peak memory, MB", *(f"{row['peak_mb']:,}" for row in sizes), ""])
    rows.append(["features of both modalities, MB", *(f"{row['features_mb']:,}" for row in sizes), ""])
    rows.append(["run folder, MB", *(f"{row['run_folder_mb']:,}" for row in sizes), ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _stage_seconds(row: dict[str, Any], stage: str) -> float:
    return float(row["stages"][stage] / (row["trials"] if stage in PER_TRIAL else 1))


def growth(pairs: Sequence[int], seconds: Sequence[float]) -> float:
    """Exponent of n between the smallest and the largest size."""
    return float(np.log(max(seconds[-1], 1e-3) / max(seconds[0], 1e-3)) / np.log(pairs[-1] / pairs[0]))


def forecast_table() -> str:
    """What the largest measured sizes say of `LARGE` pairs on the same machine, stage by stage."""
    sizes = _read("audit-speed")["sizes"]
    before, last = [row for row in sizes if row["rows"] == "clusters"][-2:]
    spread = [row for row in sizes if row["rows"] == "spread"][-1]
    lines = ["| stage | assumed growth | hours |", "|---|---|---|"]
    for stage, label in STAGES.items():
        if stage != "neighbors":
            lines.append(_forecast(label, last, stage, 1, "n"))
            continue
        power = growth([row["pairs"] for row in (before, last)], [row["stages"][stage] for row in (before, last)])
        lines.append(
            _forecast(f"{label}, clusters", last, stage, power, f"n^{power:.2f}, measured between the two largest sets")
        )
        lines.append(_forecast(f"{label}, spread", spread, stage, 2, "n²"))
    return "\n".join(lines)


def _forecast(label: str, row: dict[str, Any], stage: str, power: float, words: str) -> str:
    trials = LARGE_TRIALS if stage in PER_TRIAL else 1
    hours = _stage_seconds(row, stage) * trials * (LARGE / row["pairs"]) ** power / 3600
    return f"| {label} | {words} | {hours:,.1f} |"


def _read(name: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return report


PEAKS = {"score": "its audit", "export webdataset": "its export to shards", "export parquet-bytes": "to Parquet"}


def workers_line() -> str:
    """What reading in worker processes costs: ratios of times with 90% intervals."""
    report = _read("reading-speed")
    parts = []
    for name, result in report["sets"].items():
        low, high = result["interval"]
        parts.append(f"{result['ratio']:.3f} ({low:.3f} to {high:.3f}) for {name}")
    settings = report["settings"]
    return (
        f"Time to encode {settings['images']:,} images by `{settings['encoder']}` that worker processes read, over the "
        f"time where the process itself reads them, with 90% intervals: {'; '.join(parts)}."
    )


def table_memory_line() -> str:
    """Peak memory of one Parquet table with image bytes and own embeddings."""
    report = _read("table-memory-200000")
    peaks = {step: f"{result['peak_bytes'] / 1e9:.2f}" for step, result in report["steps"].items() if step in PEAKS}
    said = [f"{PEAKS[step]} {peak} GB" for step, peak in peaks.items()]
    return (
        f"Peak resident memory for one Parquet table of {report['rows']:,} rows with small images in it and own "
        f"embeddings of {report['dim']} numbers a side, {report['trials']} trials: {', '.join(said)}; of the first, "
        f"{report['steps']['score']['file_bytes'] / 1e9:.2f} GB are pages of files, mostly of torch's libraries."
    )
