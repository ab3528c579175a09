"""Time of the combined score beside the trials that it reads, and agreement of its pool of negatives with all.

Run as `python -m benchmarks.scoring_cost [--pairs 5000 10000 20000] [--trials 32]`. Pairs are synthetic features of
256 dimensions with a common truth. Expected: below 30% of the trials' time at 10,000 pairs, and growth with n like
that of the neighbor search or slower; scores with the pool agree with those over all pairs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Features, Floats, SampleFacts
from audit_plugin.audit.score import gather_evidence, search_of
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import silent
from audit_plugin.neighbors.neighborhood import find_neighborhood
from audit_plugin.scoring import calibration as mixture
from audit_plugin.scoring import contrast
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.scores import pair_misalignment
from audit_plugin.store import RunFolder
from audit_plugin.trials.learners import head_projections, heads_learner
from audit_plugin.trials.run import Job
from benchmarks.record import write_report
from benchmarks.training_speed import features


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every size once, after a small one that warms up, and writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[5000, 10_000, 20_000])
    parser.add_argument("--trials", type=int, default=32)
    options = parser.parse_args(arguments)
    measure(500, 8)
    rows = []
    for n in options.pairs:
        rows.append(measure(n, options.trials)[0])
        print(json.dumps(rows[-1]), flush=True)
    report = {"trials": options.trials, "sizes": rows, "pool": contrast.POOL_SIZE, "agreement": agreement(10_000)}
    write_report(
        "scoring-cost", "seconds of trials and of the score that reads them; agreement of pool and all", report
    )
    print(json.dumps(report["agreement"]))


def measure(n: int, trials: int) -> tuple[dict[str, Any], Floats]:
    """(seconds per stage, misalignment `[n]`) of synthetic pairs, one in twenty of them exchanged."""
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run", {}) as run:
        vectors = unit_features(n)
        frozen = Features(vectors, np.ones((n, 2), dtype=bool))
        job = Job(AuditConfig(trials=trials, device="cpu"), "cpu", run, silent)
        contents = dict.fromkeys(vectors, np.arange(n))
        rows = SampleFacts(contents, dict.fromkeys(vectors, ""), {"text": np.full(n, 8)})
        start = time.perf_counter()
        find_neighborhood(frozen, rows, search_of(job), job.run, job.progress)
        neighbors = time.perf_counter() - start
        start = time.perf_counter()
        evidence, _ = gather_evidence(
            frozen, rows, lambda plan, r: heads_learner(frozen, (), head_projections(frozen), r, plan, job), job
        )
        whole = time.perf_counter() - start
        score = score_again(frozen, rows, job)
    row = {
        "pairs": n,
        "neighbors": round(neighbors, 2),
        "trials": round(whole - score["seconds"], 2),
        "score": round(score["seconds"], 2),
        "share": round(score["seconds"] / (whole - score["seconds"]), 3),
    }
    assert evidence.trials is not None
    return row, score["values"]


def score_again(frozen: Features, rows: SampleFacts, job: Job) -> dict[str, Any]:
    """Seconds from trained trials to misalignment and probabilities; neighbors and trials from the run folder."""
    (job.run.path / "held_out.npz").unlink()
    start = time.perf_counter()
    evidence, _ = gather_evidence(
        frozen, rows, lambda plan, r: heads_learner(frozen, (), head_projections(frozen), r, plan, job), job
    )
    values = pair_misalignment(evidence, evidence.pairs[0])
    mixture.calibrate(values, probe_contrasts(evidence))
    return {"seconds": time.perf_counter() - start, "values": values}


def probe_contrasts(evidence: Evidence) -> dict[str, Floats]:
    """Kind -> contrast of the probe pairs, which is enough to time the fit."""
    return {kind: parts["contrast"][0] for kind, parts in evidence.probe_evidence.items()}


def agreement(n: int) -> dict[str, float]:
    """Rank correlation of the scores with the pool and with all pairs as negatives, 8 trials."""
    from scipy.stats import spearmanr

    pooled = measure(n, 8)[1]
    size, drawn = contrast.POOL_SIZE, contrast.draw_pool
    contrast.draw_pool = lambda rows, seed, _size=n: drawn(rows, seed, n)  # type: ignore[assignment]
    try:
        full = measure(n, 8)[1]
    finally:
        contrast.draw_pool = drawn
    top = max(n // 20, 1)
    shared = len(set(np.argsort(-pooled)[:top].tolist()) & set(np.argsort(-full)[:top].tolist())) / top
    return {"pairs": n, "pool": size, "spearman": round(float(spearmanr(pooled, full)[0]), 5), "top_5_percent": shared}


def unit_features(n: int) -> dict[str, Floats]:
    """Two modalities' unit rows; every twentieth text is the next such row's."""
    image, text = (np.array(v) for v in features(n, 0))
    rows = np.arange(0, n, 20)
    text[rows] = text[np.roll(rows, 1)]
    return {
        name: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)
        for name, v in (("image", image), ("text", text))
    }


if __name__ == "__main__":
    main()
