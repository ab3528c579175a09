"""Detection of wrong pairs: ours and its rivals on the same embeddings, over the cells of `design`.

    python -m benchmarks.detection tune     # chooses the rivals' settings on development cells, once
    python -m benchmarks.detection run      # report cells; finished ones are kept, so that it can be interrupted
    python -m benchmarks.detection photographs    # the same on photographs of packages (460 MB of downloads)
    python -m benchmarks.detection tables   # results/detection.json and photographs.json, of the cells that were run
    python -m benchmarks.detection quick    # three small cells in under a minute; writes nothing

Expected: `misalignment` above every label-free rival in the mean, and in no cell beaten by more than chance.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats
from audit_plugin.audit.prepare import Clock, Prepared, prepare
from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import evidence_of, finish, run_identity
from audit_plugin.audit.score import score_probes
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import silent
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.scores import WEIGHTS, combine, robust_z
from audit_plugin.scoring.wrong_pairs import Interval, own_precision
from audit_plugin.store import RunFolder
from audit_plugin.trials.run import Job
from benchmarks import shared_space
from benchmarks.data import DATA
from benchmarks.design import DEVELOPMENT, PHOTOGRAPHS, QUICK, REPORT, SHARED, TRIALS, Cell
from benchmarks.flag_rates import flags_at
from benchmarks.materials import materials, rival_scores
from benchmarks.metrics import quality
from benchmarks.noise import Planted, plant
from benchmarks.record import RESULTS, git_hash, write_report
from benchmarks.rivals import RIVALS
from benchmarks.rivals.tuning import choose
from benchmarks.sets import load_set

CELLS = DATA / "detection"
FORMAT = 2  # of a cell's JSON; cells of others are run again
SETTINGS = RESULTS / "detection-settings.json"


def main() -> None:
    """One of the commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("tune", "run", "photographs", "tables", "quick"))
    command = parser.parse_args().command
    if command == "tune":
        tune()
    elif command == "quick":
        for row in quick():
            print(json.dumps(row))
    else:
        from benchmarks.detection_tables import summarize

        reports = {"run": ("detection", REPORT), "photographs": ("photographs", PHOTOGRAPHS)}
        if command != "tables":
            reports = {command: reports[command]}
            run(reports[command][1])
        for name, cells in reports.values():
            report = summarize(cells)
            if report["cells"]:
                question = "Detection of wrong pairs: AUROC, AP, flags; design in benchmarks/design.py"
                write_report(name, question, report)


def run(cells: tuple[Cell, ...], folder: Path = CELLS) -> None:
    """Runs the cells that are not in the folder yet: a JSON and the scores of each cell and seed, seed by seed."""
    settings = rival_settings()
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(max(len(cell.seeds) for cell in cells)):
        for cell in (cell for cell in cells if seed in cell.seeds):
            path = folder / f"{cell.name}-{seed}.json"
            if path.exists() and json.loads(path.read_text(encoding="utf-8")).get("format") == FORMAT:
                continue
            row, scores = run_cell(cell, seed, settings, TRIALS)
            np.savez_compressed(path.with_suffix(".npz"), **scores)
            partial = path.with_suffix(".part")
            partial.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
            partial.replace(path)  # last, and whole: what is there is finished
            print(path.stem, row["methods"].get("misalignment", {}), row["flags"], row["seconds"], flush=True)


def quick() -> list[dict[str, Any]]:
    """Small cells with the settings as frozen; for the test suite."""
    return [run_cell(cell, 0, rival_settings(), trials=8)[0] for cell in QUICK]


def rival_settings() -> dict[str, dict[str, Any]]:
    """Rival -> hyper-parameters as chosen on development cells, or {}: their published ones."""
    return json.loads(SETTINGS.read_text(encoding="utf-8"))["settings"] if SETTINGS.exists() else {}


def tune() -> None:
    """Chooses every rival's hyper-parameters on the development cells (one seed each)."""
    developed = []
    for cell in DEVELOPMENT:
        with tempfile.TemporaryDirectory() as folder:
            planted, prepared, evidence, _ = audit(cell, 0, Path(folder), TRIALS)
            by_pair = materials(prepared, evidence)
        developed.append((next(iter(by_pair.values()))[0], planted.wrong[prepared.order.rows]))
        print(cell.name, flush=True)
    settings = {}
    for rival in RIVALS.values():
        usable = [(material, wrong) for material, wrong in developed if rival.runs_on(material)]
        settings[rival.name] = choose(rival, usable) if usable else {}
        print(rival.name, settings[rival.name], flush=True)
    cells = [asdict(cell) for cell in DEVELOPMENT]
    write_report(SETTINGS.stem, "Rivals' settings, chosen on development cells", {"settings": settings, "cells": cells})


def run_cell(
    cell: Cell, seed: int, settings: dict[str, dict[str, Any]], trials: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what is reported of one planted set, every method's suspicion `[n]` in the caller's order)."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        planted, prepared, evidence, result = audit(cell, seed, Path(folder), trials)
        audited = time.perf_counter() - start
        scores = our_scores(result, prepared, evidence)
        wrong = planted.wrong
        rivals = rival_scores(materials(prepared, evidence), settings) if wrong.any() else {}
    flagged = np.asarray(result.columns["is_misaligned"])
    methods = {name: quality(values, wrong, int(flagged.sum())) for name, values in scores.items() if wrong.any()}
    for name, columns in rivals.items():
        # of two kinds of similarity each rival gets the better one, cell by cell
        of_rival = [np.full(len(wrong), np.median(values)) for values in columns]
        for values, column in zip(of_rival, columns, strict=True):
            values[prepared.order.rows] = column
        each = [quality(values, wrong, int(flagged.sum())) for values in of_rival]
        best = max(range(len(each)), key=lambda at: each[at]["auroc"])
        methods[name], scores[name] = each[best], of_rival[best]
    ordered = {name: np.asarray(values)[prepared.order.rows] for name, values in result.columns.items()}
    row = {
        "format": FORMAT,
        "git": git_hash(),
        **asdict(cell),
        "seed": seed,
        "samples": len(wrong),
        "wrong": int(wrong.sum()),
        "methods": methods,
        "flags": flags_at(np.asarray(result.columns["misalignment"]), score_probes(evidence, ordered), wrong),
        "said": claims(result, planted),
        "seconds": {"audit": round(audited, 1), "whole": round(time.perf_counter() - start, 1)},
    }
    return row, {"wrong": wrong, "probability": result.columns["probability"], **scores}


def audit(cell: Cell, seed: int, folder: Path, trials: int) -> tuple[Planted, Prepared, Evidence, AuditResult]:
    """The steps of `run_audit`, with what rivals need from between them."""
    planted = plant(load_set(cell.set, cell.rows), cell.noise, cell.rate, cell.how, seed)
    encoder = cell.encoder
    if encoder == SHARED:
        shared_space.register()
        encoder = shared_space.encoder_name()
    config = AuditConfig(encoder=encoder, trials=trials, seed=seed, device="cpu")
    clock = Clock(silent)
    prepared = prepare(planted.samples, config, clock)
    with RunFolder(folder / "run", run_identity(prepared, config)) as run:
        job = Job(config, prepared.device, run, silent)
        evidence, notes = evidence_of(prepared, job, clock)
        return planted, prepared, _loaded(evidence), finish(prepared, evidence, job, clock, notes)


def _loaded(evidence: Evidence) -> Evidence:
    """The same, with the embeddings of its trials in memory, since the folder will be gone."""
    from dataclasses import replace

    trials = evidence.required_trials
    embeddings = [trials.embed(number) for number in range(len(trials.member))]
    return replace(evidence, trials=replace(trials, embed=lambda number: embeddings[number]))


def our_scores(result: AuditResult, prepared: Prepared, evidence: Evidence) -> dict[str, Floats]:
    """The combined score, its parts, and what it would be without each of them, `[n]` in the caller's order."""
    out = {"misalignment": np.asarray(result.columns["misalignment"])}
    out["MultiMem"] = np.asarray(result.columns["multimem"])
    if evidence.trials is None:
        return out
    left_out: dict[str, tuple[str, ...]] = {f"without {name}": (name,) for name in WEIGHTS if name != "contrast"}
    left_out["without votes"] = ("neighbors_a", "neighbors_b")
    for name in WEIGHTS:
        parts = [e[name] for e in evidence.parts.values() if name in e]
        if parts:
            out[f"only {name}"] = _worst(parts, prepared)
    for label, names in left_out.items():
        if any(name in e for e in evidence.parts.values() for name in names):
            rest = [
                combine({k: v for k, v in e.items() if k not in names}, None, evidence.weights[pair])
                for pair, e in evidence.parts.items()
            ]
            out[label] = _worst(rest, prepared)
    out["without choosing weights"] = _worst([combine(e) for e in evidence.parts.values()], prepared)
    return {name: np.nan_to_num(values, nan=float(np.nanmedian(values))) for name, values in out.items()}


def _worst(parts: list[Floats], prepared: Prepared) -> Floats:
    worst = parts[0] if len(parts) == 1 else np.fmax.reduce([robust_z(v) for v in parts])
    return np.asarray(prepared.order.back(worst, np.float32(np.nan)))


def claims(result: AuditResult, planted: Planted) -> dict[str, Any]:
    """Estimates of the audit for the whole set, beside the truth."""
    flagged, wrong = np.asarray(result.columns["is_misaligned"]), planted.wrong
    probability = np.nan_to_num(np.asarray(result.columns["probability"]))
    estimated = result.summary["estimated"]  # also what is not reported
    pairs = Interval(estimated["pairs"], *estimated["pairs_interval"]) if estimated else None
    out: dict[str, Any] = {
        "wrong_pairs": _beside(pairs, float(wrong.sum())),
        "precision": _beside(own_precision(estimated), float(wrong[flagged].mean()) if flagged.any() else None),
        "recall_model": result.summary["probe_recall"],
        "others": {kind: float(np.mean(result.columns[f"is_{kind}"])) for kind in ("outlier", "conflict", "memorized")},
    }
    out["reliability"] = _reliability(probability, wrong)
    if len(result.summary["encoder"]) > 2:
        culprit = np.asarray(result.columns["culprit"])[wrong & flagged]
        truth = np.array(planted.culprit, dtype=object)[wrong & flagged]
        out["culprit_right"] = round(float((culprit == truth).mean()), 4) if len(truth) else None
    return out


def _beside(said: Interval | None, true: float | None) -> dict[str, Any] | None:
    """An estimate with its interval, beside the truth; None where there is none."""
    return None if said is None or true is None else {**asdict(said), "true": true}


def _reliability(probability: Floats, wrong: Bools) -> list[list[float]]:
    """Per tenth of the probability: rows, mean probability, share of wrong rows."""
    bins = np.minimum((probability * 10).astype(int), 9)
    tenths = [(at, bins == at) for at in range(10) if (bins == at).any()]
    return [[at, int(rows.sum()), float(probability[rows].mean()), float(wrong[rows].mean())] for at, rows in tenths]


if __name__ == "__main__":
    main()
