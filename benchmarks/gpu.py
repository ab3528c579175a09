"""What a machine with a GPU has to show, in one command of at most eight minutes.

Run as `python -m benchmarks.gpu [--device cuda] [--parts equality neighbors] [--name gpu]`. Each part runs in a process
of its own with a time limit of its own, and the JSON is written after each one: a run that is killed keeps what it had,
and so does a part, which reports its figures singly. `--device cpu --small` runs every part on small data, as a test
does, so that on the day nothing but the device is new.
Expected: equal ranks (rank correlation .99 or more), equal bytes twice, features of a cosine of .99999 or more (bf16:
.999); on a GPU all parts within their limits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Samples, spearman
from benchmarks.audit_speed import Timeline, caption, chunks, memory_mb
from benchmarks.record import write_report

QUESTION = "equality with the CPU, and speed, of every stage that computes on a GPU"
ROOT = Path(__file__).parents[1]
LEAST_RANKS, LEAST_COSINE, LEAST_COSINE_BF16 = 0.99, 0.99999, 0.999  # expected
SCORES = ("misalignment", "multimem", "alignment", "outlier", "duplicate")
K = 30


@dataclass(frozen=True)
class Sizes:
    """How much each part computes."""

    pairs_compared: int = 2_000  # audited on both devices
    photographs: int = 2_000  # encoded, with decoding
    side: int = 480  # of a photograph, in pixels
    clip: str = "ViT-B-32"  # whose features are compared, with random weights
    pairs_trained: int = 100_000
    trials: int = 32
    rows: tuple[int, ...] = (100_000, 1_000_000)  # whose neighbors are searched
    dim: int = 512
    exact_rows: int = 30_000  # up to which the search is exact
    pairs_audited: int = 100_000
    epochs: int = 20


SMALL = Sizes(120, 24, 96, "ViT-S-32-alt", 200, 8, (400, 600), 64, 100, 160, 3)
Figures = Iterator[dict[str, Any]]  # reported one by one; together they are those of the part


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the parts one after the other, and writes what they found after each."""
    args = options(arguments)
    if args.alone:
        for figures in PARTS[args.alone][0](args.device, SMALL if args.small else Sizes()):
            print(json.dumps(figures), flush=True)
        return
    settings = {"device": args.device, "small": args.small, "k": K, "sizes": vars(SMALL if args.small else Sizes())}
    report: dict[str, Any] = {"settings": settings, "load_before": round(os.getloadavg()[0], 1), "parts": {}}
    for name in args.parts:
        report["parts"][name] = in_own_process(name, args)
        print(json.dumps({name: report["parts"][name]}), flush=True)
        write_report(args.name, QUESTION, {**report, "chip": chip(args.device)})


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `alone` is one part, in the process that main starts for it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="small data: do all parts run?")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--name", default="gpu", help="of the JSON among the results")
    parser.add_argument("--alone", choices=list(PARTS), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def chip(device: str) -> dict[str, Any]:
    """What computed."""
    import torch

    from audit_plugin.encoders.devices import chip_name
    from audit_plugin.neighbors.exact import import_faiss, searches_on_gpu

    on_gpu = device == "cuda" and torch.cuda.is_available()
    return {
        "name": chip_name(device) if on_gpu or device == "cpu" else "",
        "memory_gb": round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1) if on_gpu else None,
        "cuda": torch.version.cuda,
        "faiss": getattr(import_faiss(), "__version__", None),
        "faiss_on_gpu": searches_on_gpu(),
    }


def in_own_process(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Status (`ok`, `failed`, `over its time`), seconds and figures of one part; all it started ends with it."""
    limit = PARTS[name][1]
    command = [sys.executable, "-m", "benchmarks.gpu", "--alone", name, "--device", args.device]
    command += ["--small"] if args.small else []
    start, status = time.perf_counter(), "ok"
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "errors", "w+b") as errors:
        environment = os.environ | {"AUDIT_PLUGIN_CACHE": f"{folder}/cache", "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            output, _ = process.communicate(timeout=limit)
            status = "failed" if process.returncode else "ok"
        except subprocess.TimeoutExpired:
            status = "over its time"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if status == "over its time":
            output, _ = process.communicate()
        errors.seek(0)
        last_words = errors.read().decode(errors="replace")[-2000:]
    figures: dict[str, Any] = {"status": status, "seconds": round(time.perf_counter() - start, 1), "limit": limit}
    for line in output.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError):  # a line that was cut off, or a library's own
            figures |= json.loads(line)
    return figures if status == "ok" else {**figures, "errors": last_words}


# --- the parts ------------------------------------------------------------------------------------------------------


def run_tests(device: str, _sizes: Sizes) -> Figures:
    """The tests that need a GPU, and those that run on any device."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    files = ["tests/test_on_device.py", "tests/test_open_clip_towers.py", "tests/test_towers.py"]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=False)
    yield {"tests": done.stdout.strip().splitlines()[-1:], "tests_passed": done.returncode == 0, "on": device}
    if done.returncode:
        print(done.stdout[-2000:], file=sys.stderr)
        sys.exit(1)


def compare_features(device: str, sizes: Sizes) -> Figures:
    """Least cosine of each encoder's features on the device to those of the CPU, in fp32 and, where it can, in bf16."""
    import open_clip
    import torch

    from audit_plugin.encoders.embed import encode_batch
    from audit_plugin.encoders.precision import bf16_encoder
    from audit_plugin.encoders.registry import load_encoders

    media = {"image": list(photographs(8, sizes.side)), "text": [caption(row) for row in range(16)]}
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)  # random weights: nothing is downloaded
        torch.save(open_clip.create_model(sizes.clip).state_dict(), f"{folder}/clip.pt")
        for name in ("offline", f"open_clip:{sizes.clip}:{folder}/clip.pt"):
            for modality, of_modality in media.items():
                here, there = (load_encoders(name, (modality,), where)[modality] for where in ("cpu", device))
                pieces = [piece for medium in of_modality for piece in here.prepare(medium)]
                pieces = [piece for piece in pieces if piece.shape == pieces[0].shape]
                reference, key = encode_batch(pieces, here), f"cosine_{name.partition(':')[0]}_{modality}"
                yield {key: least_cosine(encode_batch(pieces, there), reference)}
                if there.to_bf16 is not None:
                    yield {f"{key}_bf16": least_cosine(encode_batch(pieces, bf16_encoder(there)), reference)}


def least_cosine(left: Floats, right: Floats) -> float:
    """Of the rows of two matrices."""
    cosines = (left * right).sum(1) / np.maximum(np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1), 1e-12)
    return round(float(cosines.min()), 7)


def compare_scores(device: str, sizes: Sizes) -> Figures:
    """Rank correlation of the scores on the device with those of the CPU, and equal bytes twice."""
    samples = pairs(sizes.pairs_compared, sizes.dim)
    columns = {
        name: audit(samples, where, 16, sizes).columns
        for name, where in (("cpu", "cpu"), ("first", device), ("second", device))
    }
    for score in SCORES:
        left, right = (np.asarray(columns[name][score], np.float64) for name in ("cpu", "first"))
        known = np.isfinite(left) & np.isfinite(right)
        yield {f"ranks_{score}": round(spearman(left[known], right[known]), 5)}
    different = [
        name
        for name, values in columns["first"].items()
        if not np.array_equal(values, columns["second"][name], equal_nan=values.dtype.kind == "f")
    ]
    yield {"equal_bytes_twice": not different, "columns_that_differ": different}


def encode_photographs(device: str, sizes: Sizes) -> Figures:
    """Images per second from files: decoding, resizing and encoding, by `offline`."""
    from audit_plugin.encoders.embed import digest_contents, embed, silent
    from audit_plugin.encoders.registry import identify, load_encoders

    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for row, picture in enumerate(photographs(sizes.photographs, sizes.side)):
            paths.append(f"{folder}/{row}.jpg")
            picture.save(paths[-1], quality=90)
        samples = Samples(tuple(map(str, range(len(paths)))), {"image": tuple(paths)})
        contents = digest_contents(samples, silent)
        encoders = load_encoders("offline", ("image",), device)
        keys = {name: identity.key for name, identity in identify("offline", ("image",), device).items()}
        start = time.perf_counter()
        embedded = embed(samples, contents, keys, lambda: encoders, silent)
        seconds = time.perf_counter() - start
    yield {"images_per_second": round(embedded.encoded["image"] / seconds, 1), "cores": os.cpu_count()}


def train(device: str, sizes: Sizes) -> Figures:
    """Seconds of all trials: training, embedding of all pairs and their consistency."""
    import torch

    from audit_plugin.arrays import Features
    from audit_plugin.config import AuditConfig
    from audit_plugin.store import RunFolder
    from audit_plugin.trials.learners import head_projections, heads_learner
    from audit_plugin.trials.run import Job, plan_trials, run_plan

    sides = vectors_of(sizes.pairs_trained, sizes.dim)
    n = sizes.pairs_trained
    features = Features({"image": sides[0], "text": sides[1]}, np.ones((n, 2), bool))
    config = AuditConfig(trials=sizes.trials, device=device, epochs=sizes.epochs)
    groups = np.arange(n)
    start = time.perf_counter()
    projections = head_projections(features)
    yield {"seconds_projections": round(time.perf_counter() - start, 2)}
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run", {}) as run:
        job = Job(config, device, run, Timeline().tell)
        plan = plan_trials(groups, config)
        learner = heads_learner(features, [], projections, groups[:, None].astype(np.int32), plan, job)
        start = time.perf_counter()
        run_plan(plan, learner, groups, job)
        seconds = time.perf_counter() - start
    each = round(1e6 * seconds / n / sizes.trials, 2)
    yield {"seconds_trials": round(seconds, 2), "microseconds_per_pair_and_trial": each}
    if device == "cuda":
        yield {"peak_gpu_mb": round(torch.cuda.max_memory_allocated() / 1e6)}


def search(device: str, sizes: Sizes) -> Figures:
    """Seconds and recall of the neighbors of all rows: by FAISS where it is usable, and by torch."""
    from audit_plugin.neighbors import exact
    from audit_plugin.neighbors import search as search_module

    search_module.EXACT_ROWS = sizes.exact_rows
    ways: dict[str, dict[str, Any]] = {"faiss": {}, "torch": {"searches_on_gpu": lambda: False}}
    if device == "cpu":
        ways["torch"]["import_faiss"] = lambda: None
    if exact.import_faiss() is None or (device == "cuda" and not exact.searches_on_gpu()):
        del ways["faiss"]
    for n in sizes.rows:
        rows = vectors_of(n, sizes.dim)[0]
        for way, replaced in ways.items():
            usual = {name: getattr(search_module, name) for name in replaced}
            vars(search_module).update(replaced)
            start = time.perf_counter()
            found = search_module.nearest_neighbors(rows, K, device)
            seconds = time.perf_counter() - start
            vars(search_module).update(usual)
            figures = {"seconds": round(seconds, 2), "recall": round(found.recall, 4), "method": found.method}
            yield {f"{way}_{n}": figures}


def audit_cached(device: str, sizes: Sizes) -> Figures:
    """Seconds by stage of a complete audit of given embeddings."""
    import torch

    timeline = Timeline()
    start = time.perf_counter()
    result = audit(pairs(sizes.pairs_audited, sizes.dim), device, 16, sizes, timeline)
    yield {"seconds_audit": round(time.perf_counter() - start, 1), "peak_mb": round(memory_mb())}
    yield {"stages": {**result.summary["seconds"], **timeline.within_training()}}
    if device == "cuda":
        yield {"peak_gpu_mb": round(torch.cuda.max_memory_allocated() / 1e6)}


# part -> (what runs, its limit in seconds); the limits add up to less than eight minutes
PARTS: dict[str, tuple[Callable[[str, Sizes], Figures], int]] = {
    "tests": (run_tests, 60),
    "features": (compare_features, 40),
    "scores": (compare_scores, 50),
    "encoding": (encode_photographs, 40),
    "trials": (train, 60),
    "neighbors": (search, 125),
    "audit": (audit_cached, 100),
}


# --- the data -------------------------------------------------------------------------------------------------------


def vectors_of(n: int, dim: int) -> tuple[Floats, Floats]:
    """Two views of a hidden vector in clusters, unit float32 `[n, dim]`; one pair in twenty with exchanged partners."""
    sides: tuple[list[Floats], list[Floats]] = ([], [])
    for _, left, right in chunks(n, "clusters"):
        for side, rows in zip(sides, (left, right), strict=True):
            part = rows[:, :dim]
            side.append(part / np.linalg.norm(part, axis=1, keepdims=True))
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def pairs(n: int, dim: int) -> Samples:
    """The same as given embeddings of captioned images."""
    left, right = vectors_of(n, dim)
    texts = tuple(caption(row) for row in range(n))
    return Samples(tuple(f"{row:08d}" for row in range(n)), {"text": texts}, vectors={"image": left, "text": right})


def audit(samples: Samples, device: str, trials: int, sizes: Sizes, timeline: Timeline | None = None) -> Any:
    """The result of an audit in a run folder of its own."""
    from audit_plugin.audit.run import run_audit
    from audit_plugin.config import AuditConfig

    config = AuditConfig(trials=trials, device=device)
    config = replace(config, epochs=sizes.epochs, neighbors=min(config.neighbors, len(samples) // 4))
    with tempfile.TemporaryDirectory() as folder:
        return run_audit(samples, config, (timeline or Timeline()).tell, Path(folder) / "run")


def photographs(count: int, side: int) -> Iterator[Any]:
    """Pictures with large and small detail, which take as long to decode as photographs."""
    from PIL import Image

    for row in range(count):
        rng = np.random.default_rng((5, row))
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((side * 4 // 3, side))
        fine = rng.integers(-20, 20, (side, side * 4 // 3, 1))
        yield Image.fromarray(np.clip(np.asarray(coarse, np.int16) + fine, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
