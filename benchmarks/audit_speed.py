"""Time and memory of an audit from cached embeddings, stage by stage, by the number of pairs.

Run as `python -m benchmarks.audit_speed [--pairs 10000 100000] [--trials 16] [--rows clusters] [--data DIR]`; each
size runs in a process of its own, so that its peak memory is its own. Pairs are synthetic: a hidden vector seen from
both sides, in clusters of fifty, one pair in twenty exchanged; their features stand in the cache under the key of an
open_clip ViT-B/32 with random weights (512 dimensions on both sides), their media are files of some hundred bytes.
`--rows spread` lets the clusters overlap so much that neighbors stand anywhere: the worst for whoever seeks them.
Expected: 100,000 pairs in under 15 minutes and 3 GB on 2 cores; cost per pair does not grow.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Samples
from benchmarks.data import DATA
from benchmarks.record import RESULTS, git_hash, machine, write_report
from benchmarks.rivals.tuning import auroc

DIM, HIDDEN, CLUSTER, CHUNK = 512, 64, 50, 10_000
SWAPPED = 20
MODEL = "ViT-B-32"
CENTER = {"clusters": 3.0, "spread": 1.0}  # weight of what the rows of a cluster share, beside 1 for their own


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures each size once and writes one JSON; sizes that were measured before are kept beside the new ones."""
    args = options(arguments)
    if args.alone:
        print(json.dumps(measure(args.pairs[0], args.trials, args.rows, args.data)))
        return
    settings = {"epochs": "default", "dim": DIM, "seed": 0, "device": "cpu"}
    sizes = measured_before(settings)
    for n in args.pairs:
        prepare(n, args.rows, args.data)
        load = os.getloadavg()[0]
        key = (args.rows, n)
        sizes[key] = {**in_own_process(n, args), "git": git_hash(), "load_before": round(load, 1)}
        print(json.dumps(sizes[key]), flush=True)
        if not args.dry_run:
            question = "seconds per stage and peak memory of an audit from cached embeddings, by pairs"
            report = {"settings": settings, "sizes": [sizes[key] for key in sorted(sizes)]}
            print(write_report("audit-speed", question, report))


def measured_before(settings: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """(rows, pairs) -> what an earlier call with these settings measured on such a machine: the largest takes hours."""
    path = RESULTS / "audit-speed.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    alike = report.get("settings") == settings and report.get("machine") == machine()
    return {(row["rows"], row["pairs"]): row for row in report["sizes"]} if alike else {}


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `alone` is one measurement, in the process that main starts for it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--rows", choices=tuple(CENTER), default="clusters")
    parser.add_argument("--data", type=Path, default=DATA / "synthetic")
    parser.add_argument("--dry-run", action="store_true", help="write no JSON")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def in_own_process(n: int, args: argparse.Namespace) -> dict[str, Any]:
    """One measurement, in memory that nobody else has used before; its progress goes to the terminal."""
    command = [sys.executable, "-m", "benchmarks.audit_speed", "--alone", "--pairs", str(n)]
    command += ["--trials", str(args.trials), "--rows", args.rows, "--data", str(args.data)]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=root, env=cached(args.rows, args.data)
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def cached(rows: str, data: Path) -> dict[str, str]:
    """The environment in which the features of these rows are known."""
    return os.environ | {"AUDIT_PLUGIN_CACHE": str(data / f"cache-{rows}")}


def measure(n: int, trials: int, rows: str, data: Path) -> dict[str, Any]:
    """Seconds per stage and in all, peak memory in MB, what was found of the exchanged pairs."""
    import tempfile

    from audit_plugin.audit.run import run_audit
    from audit_plugin.config import AuditConfig

    samples = load(n, data)
    config = AuditConfig(encoder=encoder_name(data), trials=trials, device="cpu")
    before, timeline = memory_mb(), Timeline()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = run_audit(samples, config, timeline.tell, Path(folder) / "run")
        seconds = time.perf_counter() - start
        run_bytes = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    wrong = np.zeros(n, dtype=bool)
    wrong[::SWAPPED] = True
    return {
        "rows": rows,
        "pairs": n,
        "trials": trials,
        "seconds": round(seconds, 1),
        "milliseconds_per_pair": round(1000 * seconds / n, 3),
        "stages": {**result.summary["seconds"], **timeline.within_training()},
        "peak_mb": round(memory_mb()),
        "before_mb": round(before),
        "features_mb": round(2 * n * DIM * 4 / 1e6),
        "run_folder_mb": round(run_bytes / 1e6),
        "auroc": round(float(auroc(result.columns["misalignment"], wrong)), 4),
        "flagged": int(result.flagged("misaligned").sum()),
        "flagged_right": int((result.flagged("misaligned") & wrong).sum()),
        "encoded_now": result.summary["encoded_now"],
    }


class Timeline:
    """When each stage began and ended, also printed on the error stream."""

    def __init__(self) -> None:
        self.start, self.marks = time.perf_counter(), dict[tuple[str, str], float]()

    def tell(self, stage: str, done: int, total: int) -> None:
        """The progress of an audit."""
        now = time.perf_counter() - self.start
        if done in (0, total):
            self.marks.setdefault((stage, "began"), now)
            self.marks[stage, "ended"] = now
            print(f"{now:7.1f} s, {memory_mb():6.0f} MB: {stage} {done}/{total}", file=sys.stderr, flush=True)

    def within_training(self) -> dict[str, float]:
        """The audit's stage "train" in its parts: neighbors, trials, and what the trials say of the held out."""
        spans = {
            "neighbors": self.marks["neighbors", "ended"] - self.marks["neighbors", "began"],
            "trials": self.marks["train", "ended"] - self.marks["train", "began"],
            "held out": self.marks["score", "began"] - self.marks["train", "ended"],
        }
        return {name: round(seconds, 3) for name, seconds in spans.items()}


def memory_mb() -> float:
    """Peak of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def prepare(n: int, rows: str, data: Path) -> None:
    """Media files, a checkpoint and the cached features of the first n pairs, unless they are there."""
    code = f"from benchmarks.audit_speed import *; make({n}, {rows!r}, Path({str(data)!r}))"
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1], env=cached(rows, data))


def make(n: int, kind: str, data: Path) -> None:
    """See `prepare`; in chunks, so that a larger set goes on where a smaller one ended."""
    from audit_plugin.encoders.embed import digest_contents, silent
    from audit_plugin.encoders.registry import identify
    from audit_plugin.store import FeatureCache

    data.mkdir(parents=True, exist_ok=True)
    caches = {m: FeatureCache(w.key) for m, w in identify(encoder_name(data), ("image", "text")).items()}
    for start, image, text in chunks(n, kind):
        rows = range(start, start + len(image))
        done = data / f"media{start:08d}-{len(rows)}.done"
        if not done.exists():
            for row in rows:
                path = Path(media_path(data, row))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture(row))
            done.touch()
        digests = digest_contents(samples_of(rows, data), silent).digests
        for name, vectors in (("image", image), ("text", text)):
            if caches[name].missing(digests[name]):
                caches[name].append(dict(zip(digests[name], vectors, strict=True)))


def chunks(n: int, kind: str) -> Iterator[tuple[int, Floats, Floats]]:
    """(first row, image features, text features float32 unit `[c, 512]`), each chunk from its own generator.

    Every twentieth text of a chunk is that of the next such row.
    """
    maps = [np.random.default_rng((1, side)).standard_normal((HIDDEN, DIM), dtype=np.float32) for side in (0, 1)]
    for start in range(0, n, CHUNK):
        rng = np.random.default_rng((2, start))
        count = min(CHUNK, n - start)
        center = rng.standard_normal((CHUNK // CLUSTER, HIDDEN), dtype=np.float32)
        centers = rng.integers(0, len(center), CHUNK)
        own = rng.standard_normal((CHUNK, HIDDEN), dtype=np.float32)
        hidden = CENTER[kind] * center[centers] + own
        sides = [hidden @ m / 8 + rng.standard_normal((CHUNK, DIM), dtype=np.float32) for m in maps]
        image, text = (v[:count] / np.linalg.norm(v[:count], axis=1, keepdims=True) for v in sides)
        swapped = np.arange(0, count, SWAPPED)
        text[swapped] = text[np.roll(swapped, 1)]
        yield start, image, text


def load(n: int, data: Path) -> Samples:
    """The first n pairs."""
    return samples_of(range(n), data)


def samples_of(rows: range, data: Path) -> Samples:
    """Rows with their media: a small file, a caption of eight words."""
    media = {"image": tuple(media_path(data, row) for row in rows), "text": tuple(caption(row) for row in rows)}
    return Samples(tuple(f"{row:08d}" for row in rows), media)


def media_path(data: Path, row: int) -> str:
    """Thousand files a folder."""
    return str(data / "media" / f"{row // 1000:05d}" / f"{row:08d}.png")


def picture(row: int) -> bytes:
    """A PNG of 8 x 8 pixels that no other row has."""
    import io

    from PIL import Image

    pixels = np.random.default_rng((3, row)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def caption(row: int) -> str:
    """Eight words, the last of which no other row has."""
    words = ("red", "small", "old", "bright", "wooden", "round", "quiet", "broken", "green", "tall")
    chosen = np.random.default_rng((4, row)).integers(0, len(words), 7)
    return " ".join([*(words[at] for at in chosen), f"thing{row}"])


def encoder_name(data: Path) -> str:
    """ViT-B/32 with random weights, from a checkpoint that is made here."""
    path = data / f"{MODEL}.pt"
    if not path.exists():
        import open_clip
        import torch

        torch.manual_seed(0)
        torch.save(open_clip.create_model(MODEL).state_dict(), path)
    return f"open_clip:{MODEL}:{path}"


if __name__ == "__main__":
    main()
