"""Detection of planted outliers, copies, conflicts and placeholders, and flags on clean sets.

Thresholds were chosen on Twitter emoji and drawn persons; other sets had no part in that. Run as
`python -m benchmarks.oddities [--sets twitter persons five] [--seed 0] [--trials 16]`.

Expected: AUROC of outliers above 0.97 on each set; copies and conflicts found with precision and recall above 0.98; at
most 1% of a clean set flagged an outlier or a conflict. Emoji hold pictures that are the same byte for byte under
several names (families, flags of islands): true copies and conflicts of the set as it comes. These rows are set aside:
they count neither way, and how many were flagged is reported.

A conflict is two samples with one picture and captions that contradict each other: `conflict` counts such pairs, found
if either side is flagged; `wrong_caption` asks in addition that it is the side whose caption was planted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.inputs.samples import read_samples
from benchmarks import planted
from benchmarks.record import write_report

CELLS = ("clean", "outliers", "copies")
FLAGS = ("outlier", "duplicate", "conflict", "placeholder")


def main() -> None:
    """Runs all cells and writes one JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=["twitter", "persons", "five"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=16)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            for cell in CELLS:
                rows.append(run_cell(name, cell, options.seed, options.trials, Path(folder)))
                print(json.dumps(rows[-1]), flush=True)
    write_report("oddities", "planted outliers, copies, conflicts, placeholders; offline encoder", {"cells": rows})


def run_cell(name: str, cell: str, seed: int, trials: int, folder: Path) -> dict[str, Any]:
    """One set with one kind of planted fault: recall and precision, and what else was flagged."""
    rows = clean_rows(name, folder)
    own = planted.repeated(rows)
    if cell != "clean":
        rows = (planted.plant_outliers if cell == "outliers" else planted.plant_copies)(rows, seed)
    written = planted.write(rows, folder / f"{name}-{cell}")
    samples = read_samples(written.manifest, {"image": "image", "text": "caption"})
    config = AuditConfig(encoder="offline", device="cpu", trials=trials, seed=seed)
    result = run_audit(samples, config, run_dir=folder / f"{name}-{cell}-run")
    fault = np.array([written.truth[i][0] for i in samples.ids])
    caption = np.array(samples.caption or (0,) * len(samples))
    if cell == "outliers":
        letters = np.isin(fault, ["letters", "words"]) & (caption > 0)
        fault[letters] = ""  # only the first of several captions was replaced
    involved = np.isin(samples.ids, [source for _, source in written.truth.values() if source])
    excluded = np.isin(samples.ids, list(own)) & (fault == "") & ~involved
    flags = {kind: result.flagged(kind) for kind in FLAGS}
    cell_report: dict[str, Any] = {"set": name, "cell": cell, "seed": seed, "trials": trials, "rows": len(samples)}
    beside = (fault == "") & ~involved & ~excluded
    cell_report["flagged_beside_plants"] = {kind: rate(hit[beside]) for kind, hit in flags.items()}
    cell_report["set_aside"] = {"rows": int(excluded.sum())} | {
        kind: int(hit[excluded].sum()) for kind, hit in flags.items()
    }
    if cell == "outliers":
        cell_report |= outlier_figures(fault, np.asarray(result.columns["outlier"]), flags["outlier"])
    if cell == "copies":
        counted = {kind: hit & ~excluded for kind, hit in flags.items()}
        cell_report |= copy_figures(np.array(samples.ids), fault, caption, written.truth, counted)
    return cell_report


def copy_figures(
    ids: np.ndarray, fault: np.ndarray, caption: np.ndarray, truth: dict[str, tuple[str, str]], flags: dict[str, Any]
) -> dict[str, Any]:
    """Recall and precision per kind of flag.

    Args:
        ids: of the rows, one sample's captions sharing one.
        fault: what was planted in each row.
        caption: number of the row's caption in its sample: only the first was replaced.
        truth: id -> (fault, source).
        flags: kind -> bool per row.
    """
    first = (fault == "conflict") & (caption == 0)
    copies = np.isin(fault, ["copy", "conflict"])
    any_copy = copies | (fault == "placeholder") | np.isin(ids, [source for _, source in truth.values() if source])
    pairs = [{i, source} for i, (kind, source) in truth.items() if kind == "conflict"]
    flagged_ids = set(ids[flags["conflict"]].tolist())
    recall = {
        "duplicate": rate(flags["duplicate"][copies]),
        "conflict": rate(np.array([bool(flagged_ids & pair) for pair in pairs])),
        "wrong_caption": rate(flags["conflict"][first]),
        "placeholder": rate(flags["placeholder"][fault == "placeholder"]),
    }
    precision = {
        "duplicate": rate(any_copy[flags["duplicate"]]),
        "conflict": rate(np.array([any(i in pair for pair in pairs) for i in flagged_ids])),
        "wrong_caption": rate(first[flags["conflict"]]),
        "placeholder": rate((fault == "placeholder")[flags["placeholder"]]),
    }
    return {"recall": recall, "precision": precision}


def clean_rows(name: str, folder: Path) -> list[planted.PlantedRow]:
    """The set without a fault: an emoji vendor, drawn persons, or these with five captions each (`five`)."""
    if name in ("persons", "five"):
        return planted.persons(folder, planted.CAPTIONS if name == "five" else 1)
    return planted.emoji(name)


def outlier_figures(fault: np.ndarray, score: np.ndarray, flagged: np.ndarray) -> dict[str, Any]:
    """AUROC and share flagged of each kind against the rows without a fault, and of all kinds together."""
    kinds = {kind: fault == kind for kind in ("photo", "noise", "letters", "words")} | {"all": fault != ""}
    against = {kind: hit | (fault == "") for kind, hit in kinds.items()}
    auroc = {k: round(float(roc_auc_score(hit[against[k]], score[against[k]])), 4) for k, hit in kinds.items()}
    return {"auroc": auroc, "recall": {kind: rate(flagged[hit]) for kind, hit in kinds.items()}}


def rate(hits: np.ndarray) -> float | None:
    """Share of hits; None of none."""
    return round(float(np.mean(hits)), 4) if len(hits) else None


if __name__ == "__main__":
    main()
