"""How well planted wrong captions are found on emoji sets: `misalignment` against the plain signals of the same run.

Settings were tuned on the Twitter emoji; Google was looked at once, to choose between two compromises. Run as
`python -m benchmarks.detection [--vendor google] [--seeds 3]`. Each cell runs `audit-plugin score` in a process of its
own, so that seconds and peak memory are those of the command. Expected: `misalignment` above each of its parts.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.data import manifest
from benchmarks.record import write_report

NOISES = ("random", "category", "none")


def main() -> None:
    """Runs all cells and writes one JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vendor", default="google")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    cells = [(noise, seed) for noise in NOISES for seed in range(options.seeds if noise != "none" else 1)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for noise, seed in cells:
            rows.append(run_cell(options.vendor, noise, seed, Path(folder) / f"{noise}{seed}"))
            print(json.dumps(rows[-1]), flush=True)
    report = {"vendor": options.vendor, "cells": rows, "means": means(rows)}
    write_report(f"detection-{options.vendor}", "AUROC of planted swaps (10 %, copied), offline encoder", report)
    print(table(report))


def run_cell(vendor: str, noise: str, seed: int, out: Path) -> dict[str, Any]:
    """One manifest, one audit: AUROCs, flags, seconds, memory."""
    path = manifest(vendor, noise=noise, rate=0.1, copied=True, seed=seed, out=out)
    scores = out / "scores.parquet"
    command = [
        sys.executable,
        "-m",
        "audit_plugin",
        "score",
        str(path),
        "--image",
        "image",
        "--text",
        "caption",
        "--encoder",
        "offline",
        "--device",
        "cpu",
        "--seed",
        str(seed),
        "--out",
        str(scores),
    ]
    subprocess.run([*command, "--run-dir", str(out / "run")], check=True, stdout=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    table_ = pq.read_table(scores).to_pydict()
    summary = json.loads(scores.with_suffix(".json").read_text())
    with open(path.parent / "truth.csv", encoding="utf-8") as file:
        truth = {row["id"]: row["is_swapped"] == "1" for row in csv.DictReader(file)}
    swapped = np.array([truth[i] for i in table_["id"]])
    flagged = np.array(table_["is_misaligned"])
    row = {
        "noise": noise,
        "seed": seed,
        "samples": len(swapped),
        "swapped": int(swapped.sum()),
        "flagged": int(flagged.sum()),
        "flagged_swaps": int((flagged & swapped).sum()),
        "memorized": int(np.sum(table_["is_memorized"])),
        "reliability": summary["reliability"],
        "seconds_after_embedding": round(sum(v for k, v in summary["seconds"].items() if k in ("train", "score")), 1),
        "peak_memory_gb": round(peak, 2),
    }
    if swapped.any():
        row["auroc"] = {name: round(roc_auc_score(swapped, v), 4) for name, v in signals(table_, out / "run").items()}
        row["average_precision"] = round(average_precision_score(swapped, np.array(table_["misalignment"])), 4)
    return row


def signals(columns: dict[str, Any], run: Path) -> dict[str, np.ndarray]:
    """Name -> suspicion per row: ours, and the plain signals that stand beside it."""
    with np.load(run / "evidence.npz", allow_pickle=False) as parts:
        at = {key: i for i, key in enumerate(parts["ids"].tolist())}
        rows = [at[key] for key in columns["id"]]
        held = {
            name: np.nan_to_num(parts[f"{name}_image_text"][rows], nan=np.nanmedian(parts[f"{name}_image_text"]))
            for name in ("cosine", "contrast", "neighbors_a", "neighbors_b")
        }
    return {
        "misalignment": np.array(columns["misalignment"]),
        "multimem": np.array(columns["multimem"]),
        "held-out cosine": -held["cosine"],
        "held-out contrast": held["contrast"],
        "image neighbours": held["neighbors_a"],
        "text neighbours": held["neighbors_b"],
    }


def means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Noise -> signal -> mean AUROC over seeds."""
    out = {}
    for noise in NOISES:
        cells = [row["auroc"] for row in rows if row["noise"] == noise and "auroc" in row]
        if cells:
            out[noise] = {name: round(float(np.mean([cell[name] for cell in cells])), 4) for name in cells[0]}
    return out


def table(report: dict[str, Any]) -> str:
    """The README's table, in Markdown."""
    kinds = list(report["means"])
    names = list(next(iter(report["means"].values())))
    lines = [
        "| AUROC, mean over seeds | " + " | ".join(f"{kind} swaps" for kind in kinds) + " |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    lines += [
        f"| {name} | " + " | ".join(f"{report['means'][kind][name]:.3f}" for kind in kinds) + " |" for name in names
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
