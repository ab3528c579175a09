"""Time and recall of all rows' nearest neighbors: ours against FiftyOne's default, scikit-learn and faiss.

Run as `python -m benchmarks.neighbor_speed [--vectors 100000] [--dimensions 512] [--runs 3] [--device cpu]`. Two sets
of unit rows with a mean near zero: `clusters` around sqrt(n) centers with heavy-tailed widths, and `even` in all
directions, the hardest case for any index. `--features FILE` adds `photographs`: real features (see
`benchmarks.crop_features`), projected as an audit does. Each way finds the 30 nearest other rows of every row; the ways
take turns. `brain` is what FiftyOne's similarity index asks for all its rows: scikit-learn's neighbors as FiftyOne sets
them up. `--former FOLDER` adds the search of a former checkout of this package. Recall is the share of true neighbors,
or equally near ones, on 1,000 rows drawn apart from those on which ours measures its own. On a shared machine, compare
`cpu_seconds`, those of the process, under OMP_NUM_THREADS=1, and not `seconds`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import own_database

os.environ.update(own_database.settings())  # before FiftyOne is imported, further below

from audit_plugin.arrays import Floats, Ints
from audit_plugin.neighbors import exact_search, nearest, nearest_neighbors
from audit_plugin.neighbors.neighborhood import WHITENING
from audit_plugin.neighbors.projection import fit_projection, project
from benchmarks.record import write_report

K = 30
ASKED = 1000
OURS, FORMER, REAL = "ours", "former", "photographs"
HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 64, 128
ROUNDING = 1e-5

Measured = tuple[Ints, tuple[float, float], str]  # indices [n, K], seconds (on the wall, of the process), the method


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures all ways on all sets and writes one JSON."""
    args = options(arguments)
    ways = {name: WAYS[name] for name in args.ways if name != FORMER or args.former}
    small = even(2_000, args.dimensions, args.seed)
    for way in ways.values():  # loads and warms what it needs
        way(small, args)
    sets = {name: compared(MAKE[name](args), ways, args) for name in args.sets if name != REAL or args.features}
    settings = {**vars(args), "features": args.features is not None, "former": args.former and args.former.name}
    report = {**settings, "k": K, "threads": os.environ.get("OMP_NUM_THREADS", ""), "sets": sets}
    if not args.dry_run:
        question = "How long do the neighbors of all rows take, and how many are true?"
        write_report(args.name, question, report)
    print(json.dumps(report, indent=1))


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbor_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of ours; the others run on the CPU")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--sets", nargs="+", choices=tuple(MAKE), default=list(MAKE))
    parser.add_argument("--features", type=Path, help=".npy of real features")
    parser.add_argument("--former", type=Path, help="folder of a former checkout")
    parser.add_argument("--name", default="neighbor-speed", help="of the JSON")
    parser.add_argument("--dry-run", action="store_true", help="write no JSON")
    return parser.parse_args(arguments)


def clusters(n: int, d: int, seed: int) -> Floats:
    """Unit rows around sqrt(n) centers of uneven size, their widths heavy-tailed."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((round(n**0.5), d), dtype=np.float32)
    weight = 0.2 + rng.pareto(1.5, len(centers))
    rows = centers[rng.choice(len(centers), n, p=weight / weight.sum())]
    width = (0.3 + 0.5 * rng.pareto(3, (n, 1))).astype(np.float32)
    return centered(rows + width * rng.standard_normal((n, d), dtype=np.float32))


def even(n: int, d: int, seed: int) -> Floats:
    """Unit rows in all directions alike."""
    return centered(np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32))


def centered(rows: Floats) -> Floats:
    """Unit rows about their mean: FiftyOne moves its vectors there and would else have other neighbors."""
    rows -= rows.mean(0)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def photographs(args: argparse.Namespace) -> Floats:
    """Projections of real features, as an audit searches them."""
    features = np.load(args.features)[: args.vectors]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return project(features, fit_projection(features, WHITENING))


MAKE: dict[str, Callable[[argparse.Namespace], Floats]] = {
    "clusters": lambda args: clusters(args.vectors, args.dimensions, args.seed),
    "even": lambda args: even(args.vectors, args.dimensions, args.seed),
    REAL: photographs,
}


def ours(vectors: Floats, args: argparse.Namespace) -> Measured:
    """As an audit asks."""
    start = clocks()
    found = nearest_neighbors(vectors, K, args.device)
    return found.neighbors.indices, elapsed(start), found.method


def former(vectors: Floats, args: argparse.Namespace) -> Measured:
    """As an audit asked in a former checkout, in a process of its own; without the time of loading it."""
    code = f"""
import json, sys, time, numpy as np
from audit_plugin.neighbors import nearest_neighbors
rows = np.load("rows.npy")
nearest_neighbors(rows[:2000], {K})
start = time.perf_counter(), time.process_time()
found = nearest_neighbors(rows, {K}, {args.device!r})
print(json.dumps([time.perf_counter() - start[0], time.process_time() - start[1], found.method]))
np.save("indices.npy", found.neighbors.indices)
"""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "rows.npy", vectors)
        environment = {**os.environ, "PYTHONPATH": str(args.former.resolve())}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
        wall, cpu, method = json.loads(done.stdout)
        return np.load(Path(folder) / "indices.npy"), (wall, cpu), method


def brain(vectors: Floats, _args: argparse.Namespace) -> Measured:
    """What FiftyOne's default index asks for the neighbors of all rows, without the database around it."""
    from fiftyone.brain.internal.core.sklearn import NeighborsHelper

    start = clocks()
    helper = NeighborsHelper(vectors.copy(), "cosine")
    indices = helper.get_neighbors(can_use_dists=False)[0].kneighbors(None, K, return_distance=False)
    return other_rows(indices), elapsed(start), ""


def scikit_learn(vectors: Floats, _args: argparse.Namespace) -> Measured:
    """Brute force on all cores."""
    from sklearn.neighbors import NearestNeighbors

    start = clocks()
    index = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute", n_jobs=-1).fit(vectors)
    return other_rows(index.kneighbors(None, return_distance=False)), elapsed(start), ""


def faiss_exact(vectors: Floats, _args: argparse.Namespace) -> Measured:
    """The exact search."""
    start = clocks()
    return exact_search(vectors, K).indices, elapsed(start), ""


def faiss_hnsw(vectors: Floats, _args: argparse.Namespace) -> Measured:
    """A graph index, built and asked."""
    import faiss

    start = clocks()
    index = faiss.IndexHNSWFlat(vectors.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = HNSW_BUILD, HNSW_SEARCH
    index.add(vectors)
    return other_rows(index.search(vectors, K + 1)[1]), elapsed(start), ""


def clocks() -> tuple[float, float]:
    """Seconds on the wall and of this process."""
    return time.perf_counter(), time.process_time()


def elapsed(start: tuple[float, float]) -> tuple[float, float]:
    """Seconds since then."""
    wall, cpu = clocks()
    return wall - start[0], cpu - start[1]


def other_rows(indices: Ints) -> Ints:
    """`[n, K]`: the first K that are not the row itself."""
    own = indices == np.arange(len(indices))[:, None]
    return np.take_along_axis(indices, np.argsort(own, axis=1, kind="stable")[:, :K], 1)


WAYS: dict[str, Callable[[Floats, argparse.Namespace], Measured]] = {
    OURS: ours,
    FORMER: former,
    "brain": brain,
    "scikit-learn": scikit_learn,
    "faiss exact": faiss_exact,
    "faiss hnsw": faiss_hnsw,
}


def compared(vectors: Floats, ways: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Way -> seconds and recall, medians over runs in which the ways took turns; and times faster than each."""
    rows = np.sort(np.random.default_rng((args.seed, 1)).choice(len(vectors), min(ASKED, len(vectors)), replace=False))
    kth = other_similarities(vectors, rows)
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    recall: dict[str, float] = {}
    methods: dict[str, str] = {}
    for _ in range(args.runs):
        for name, way in ways.items():
            indices, seconds, method = way(vectors, args)
            wall[name].append(round(seconds[0], 3))
            cpu[name].append(round(seconds[1], 3))
            similarity = np.einsum("nd,nkd->nk", vectors[rows], vectors[indices[rows]])
            recall[name] = round(float((similarity >= kth[:, None] - ROUNDING).mean()), 4)
            methods |= {name: method} if method else {}
            print(name, *seconds, recall[name], method, f"load {os.getloadavg()[0]:.1f}", flush=True)
    ratios = {
        name: round(median(other / own for other, own in zip(runs, cpu[OURS], strict=True)), 2)
        for name, runs in cpu.items()
        if OURS in ways
    }
    return {
        "rows": len(vectors),
        "dimensions": vectors.shape[1],
        "recall": recall,
        "methods": methods,
        "seconds": {name: median(runs) for name, runs in wall.items()},
        "cpu_seconds": {name: median(runs) for name, runs in cpu.items()},
        "runs": wall,
        "cpu_runs": cpu,
        "times_faster": ratios,
    }


def other_similarities(vectors: Floats, rows: Ints) -> Floats:
    """`[s]`: similarity of each row to its true K-th neighbor."""
    index, similarity = nearest(vectors[rows], vectors, K + 1)
    similarity[index == rows[:, None]] = np.inf  # itself, wherever it stands
    return np.sort(similarity, axis=1)[:, 0]


if __name__ == "__main__":
    main()
