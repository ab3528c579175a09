"""Time and recall of all rows' nearest neighbors: ours against FiftyOne's default, scikit-learn and faiss.

Run as `python -m benchmarks.neighbor_speed [--vectors 100000] [--dimensions 512] [--runs 3] [--device cpu]`. Two sets
of unit rows with a mean near zero: `clusters` around sqrt(n) centers with heavy-tailed widths, and `even` in all
directions, the hardest case for any index. Each way finds the 30 nearest other rows of every row; the ways take turns,
in one process, all cores allowed. `brain` is what FiftyOne's similarity index asks for all its rows: scikit-learn's
neighbors as FiftyOne sets them up. Recall is the share of true neighbors, or equally near ones, on 1,000 rows drawn
apart from those on which ours measures its own.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks import own_database

os.environ.update(own_database.settings())  # before FiftyOne is imported, further below

from audit_plugin.arrays import Floats, Ints
from audit_plugin.neighbors import exact_search, nearest, nearest_neighbors
from benchmarks.record import write_report

K = 30
ASKED = 1000
OURS = "ours"
HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 64, 128
ROUNDING = 1e-5


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures all ways on both sets and writes one JSON."""
    args = options(arguments)
    ways = {name: WAYS[name] for name in args.ways}
    small = even(2_000, args.dimensions, args.seed)
    for way in ways.values():  # loads and warms what it needs
        way(small, args.device)
    sets = {name: compared(MAKE[name](args.vectors, args.dimensions, args.seed), ways, args) for name in args.sets}
    report = {**vars(args), "k": K, "threads": os.environ.get("OMP_NUM_THREADS", ""), "sets": sets}
    if not args.dry_run:
        write_report("neighbor-speed", "How long do the neighbors of all rows take, and how many are true?", report)
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


MAKE = {"clusters": clusters, "even": even}


def ours(vectors: Floats, device: str) -> Ints:
    """As an audit asks."""
    neighbors = nearest_neighbors(vectors, K, device)
    print(f"{OURS}: {neighbors.method}, estimated recall {neighbors.recall:.4f}", flush=True)
    return neighbors.neighbors.indices


def brain(vectors: Floats, _device: str) -> Ints:
    """What FiftyOne's default index asks for the neighbors of all rows, without the database around it."""
    from fiftyone.brain.internal.core.sklearn import NeighborsHelper

    helper = NeighborsHelper(vectors.copy(), "cosine")
    return other_rows(helper.get_neighbors(can_use_dists=False)[0].kneighbors(None, K, return_distance=False))


def scikit_learn(vectors: Floats, _device: str) -> Ints:
    """Brute force on all cores."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute", n_jobs=-1).fit(vectors)
    return other_rows(index.kneighbors(None, return_distance=False))


def faiss_exact(vectors: Floats, _device: str) -> Ints:
    """Our own exact search."""
    return exact_search(vectors, K).indices


def faiss_hnsw(vectors: Floats, _device: str) -> Ints:
    """A graph index, built and asked."""
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = HNSW_BUILD, HNSW_SEARCH
    index.add(vectors)
    return other_rows(index.search(vectors, K + 1)[1])


def other_rows(indices: Ints) -> Ints:
    """`[n, K]`: the first K that are not the row itself."""
    own = indices == np.arange(len(indices))[:, None]
    return np.take_along_axis(indices, np.argsort(own, axis=1, kind="stable")[:, :K], 1)


WAYS: dict[str, Callable[[Floats, str], Ints]] = {
    OURS: ours,
    "brain": brain,
    "scikit-learn": scikit_learn,
    "faiss exact": faiss_exact,
    "faiss hnsw": faiss_hnsw,
}


def compared(vectors: Floats, ways: dict[str, Callable[[Floats, str], Ints]], args: argparse.Namespace) -> Any:
    """Way -> seconds and recall, medians over runs in which the ways took turns; and times faster than each."""
    rows = np.sort(np.random.default_rng((args.seed, 1)).choice(len(vectors), min(ASKED, len(vectors)), replace=False))
    kth = other_similarities(vectors, rows)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    recall = {}
    for _ in range(args.runs):
        for name, way in ways.items():
            start = time.perf_counter()
            indices = way(vectors, args.device)
            seconds[name].append(round(time.perf_counter() - start, 3))
            similarity = np.einsum("nd,nkd->nk", vectors[rows], vectors[indices[rows]])
            recall[name] = round(float((similarity >= kth[:, None] - ROUNDING).mean()), 4)
            print(name, seconds[name][-1], recall[name], f"load {os.getloadavg()[0]:.1f}", flush=True)
    return {
        "recall": recall,
        "seconds": {name: median(runs) for name, runs in seconds.items()},
        "runs": seconds,
        "times_faster": {
            name: round(median(other / own for other, own in zip(runs, seconds[OURS], strict=True)), 2)
            for name, runs in seconds.items()
            if OURS in ways
        },
    }


def other_similarities(vectors: Floats, rows: Ints) -> Floats:
    """`[s]`: similarity of each row to its true K-th neighbor."""
    index, similarity = nearest(vectors[rows], vectors, K + 1)
    similarity[index == rows[:, None]] = np.inf  # itself, wherever it stands
    return np.sort(similarity, axis=1)[:, 0]


if __name__ == "__main__":
    main()
