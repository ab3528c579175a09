"""Speed of trials of heads trained in groups, as batched matrix products, against one by one in fp32.

Run as `python -m benchmarks.training_speed [--trials 32] [--pairs 10000] [--epochs 3] [--group 8] [--runs 3]
[--device cpu]`; the ways take turns, each run in a process of its own, so that its peak memory is its own. `groups` is
what an audit does on this machine: products in bf16 where the chip has a unit for them.
Expected: groups are never slower, and on a GPU many times faster.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import Floats
from audit_plugin.encoders.devices import matmul_precision, use_matmul_precision
from audit_plugin.trials import heads as training
from audit_plugin.trials import multimem
from benchmarks.record import write_report

DIM, MODALITIES, FOLDS = 256, 2, 2
NOISE = 1.0
MATMUL_SIZE, MATMULS = 2048, 20
ONE_BY_ONE, OURS = "one by one", "groups"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both ways in turn and writes one JSON."""
    args = options(arguments)
    if args.alone:
        with use_matmul_precision(args.precision, args.device):
            print(json.dumps(measure(args, args.group)))
        return
    own = matmul_precision("auto", args.device)
    ways = {ONE_BY_ONE: (1, "fp32"), "groups in fp32": (args.group, "fp32"), OURS: (args.group, own)}
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(args.runs):
        for way, (group, precision) in ways.items():
            runs[way].append(in_own_process(args, group, precision))
            print(way, json.dumps(runs[way][-1]), flush=True)
    settings = {name: getattr(args, name) for name in ("trials", "pairs", "epochs", "group", "seed", "device")}
    settings |= {"modalities": MODALITIES, "dim": DIM, "products": own}
    report = {"settings": settings, **summary(runs, flops(args))}
    if not args.dry_run:
        print(write_report(f"training-speed-{args.device}" if args.device != "cpu" else "training-speed",
                           "seconds to train heads: trials in groups against one by one, medians", report))  # fmt: skip
    print(json.dumps({way: value for way, value in report.items() if way != "runs"}, indent=1))


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `alone` is one measurement, in the process that main starts for it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--group", type=int, default=training.TRIAL_GROUP)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help=argparse.SUPPRESS)
    parser.add_argument("--dry-run", action="store_true", help="write no JSON")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def in_own_process(args: argparse.Namespace, group: int, precision: str) -> dict[str, float]:
    """One measurement of `measure`, whose memory nobody else has used before."""
    values = {name: getattr(args, name) for name in ("trials", "pairs", "epochs", "seed", "device")}
    values |= {"group": group, "precision": precision}
    flags = [f"--{name}={value}" for name, value in values.items()]
    command = [sys.executable, "-m", "benchmarks.training_speed", "--alone", *flags]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure(args: argparse.Namespace, group: int) -> dict[str, float]:
    """Seconds, peak memory in MB above what was there before, and the matmul rate in GFLOP/s right after.

    `similarity` (mean over the trials of a member's own pair) shows that both ways train the same.
    """
    inputs = [torch.from_numpy(x).to(args.device) for x in features(args.pairs, args.seed)]
    alone = np.arange(args.pairs)
    member = multimem.member_masks(alone, args.trials, args.seed, FOLDS)
    size = int(member.sum(1).mean())
    repeats = alone[:, None].astype(np.int32)
    before = memory_mb(args.device)
    training.train_group(inputs, member[:group], list(range(group)), repeats, 1, args.seed, size)  # warms up
    waited(args.device)
    start = time.perf_counter()
    similarity = []
    for first in range(0, args.trials, group):
        numbers = list(range(first, min(first + group, args.trials)))
        heads = training.train_group(inputs, member[numbers], numbers, repeats, args.epochs, args.seed, size)
        waited(args.device)
        start_reading = time.perf_counter()
        similarity += [own_similarity(heads.embed(inputs, i), member[t]) for i, t in enumerate(numbers)]
        start += time.perf_counter() - start_reading  # reading is no training
    seconds, peak = time.perf_counter() - start, memory_mb(args.device) - before
    rate = matmul_gflops(args.device)
    return {"seconds": seconds, "peak_mb": peak, "matmul_gflops": rate, "similarity": float(np.mean(similarity))}


def features(n: int, seed: int) -> list[Floats]:
    """Per modality `[n, DIM]` fp32, rows of about unit variance: one hidden vector per pair, seen through noise."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, DIM), dtype=np.float32)
    noise = [NOISE * rng.standard_normal((n, DIM), dtype=np.float32) for _ in range(MODALITIES)]
    return [((hidden + e) / np.sqrt(1 + NOISE**2)).astype(np.float32) for e in noise]


def own_similarity(embeddings: list[torch.Tensor], inside: np.ndarray) -> float:
    """Mean cosine of the members' own pairs."""
    rows = torch.from_numpy(np.flatnonzero(inside)).to(embeddings[0].device)
    return float((embeddings[0][rows] * embeddings[1][rows]).sum(1).mean())


def waited(device: str) -> None:
    """Returns when the device has nothing left to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def memory_mb(device: str) -> float:
    """Peak so far: of the process, or of what the GPU had allocated."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e6


def matmul_gflops(device: str) -> float:
    """The machine's rate at fp32 products of 2048 x 2048, the best of several."""
    a = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device)
    best = float("inf")
    for _ in range(MATMULS):
        waited(device)
        start = time.perf_counter()
        a @ a
        waited(device)
        best = min(best, time.perf_counter() - start)
    return 2 * MATMUL_SIZE**3 / best / 1e9


def flops(args: argparse.Namespace) -> float:
    """Operations of the matrix products of all trials, forward and backward.

    A layer costs 2·b·d·h forward, again for the weights' gradient and, but for the first layer, for the inputs'.
    """
    size = args.pairs // FOLDS
    steps = -(-size // training.BATCH)
    batch = size // steps
    first = 2 * 2 * batch * DIM * training.HIDDEN_DIM
    second = 3 * 2 * batch * training.HIDDEN_DIM * training.OUTPUT_DIM
    pairs = MODALITIES * (MODALITIES - 1) // 2
    logits = 3 * 2 * batch * batch * training.OUTPUT_DIM * pairs
    return float(args.trials * args.epochs * steps * (MODALITIES * (first + second) + logits))


def summary(runs: dict[str, list[dict[str, float]]], operations: float) -> dict[str, Any]:
    """Medians per way, and how many times faster than one by one (median of the ratios of neighboring runs)."""
    out: dict[str, Any] = {}
    for way, rates in runs.items():
        seconds, rate = (median(run[name] for run in rates) for name in ("seconds", "matmul_gflops"))
        out[way] = {
            "seconds": round(seconds, 3),
            "peak_mb": round(median(run["peak_mb"] for run in rates), 1),
            "gflops": round(operations / seconds / 1e9, 1),
            "matmul_gflops": round(rate, 1),
            "share_of_matmul": round(operations / seconds / 1e9 / rate, 3),
            "similarity": round(median(run["similarity"] for run in rates), 4),
        }
    for way, rates in out.items():
        rates["ratio"] = round(
            median(a["seconds"] / b["seconds"] for a, b in zip(runs[ONE_BY_ONE], runs[way], strict=True)), 2
        )
    return out | {"ratio": out[OURS]["ratio"], "runs": runs}


if __name__ == "__main__":
    main()
