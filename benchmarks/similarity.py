"""Time of the similarity backend against FiftyOne's default, and whether a repeated query gives the same answer.

Run as `python -m benchmarks.similarity [--vectors 100000] [--dimensions 512] [--queries 10]`. Random unit vectors in a
real dataset without media files, in a database started for it. As with the embeddings of real encoders their mean is
not zero: two of them have a cosine of 0.5 on average. After a small dataset that warms both up, each backend is built,
asked by vector and by sample for its 25 nearest, and loaded anew, in one process; the JSON holds seconds and ratios
(default / ours). The default backend moves its embeddings to their mean, in place, when first asked for the neighbors
of a sample: what it then answers to a vector is compared with what it had answered before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks import own_database

os.environ.update(own_database.settings())  # before FiftyOne is imported

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np

from audit_plugin.arrays import Floats
from audit_plugin.fiftyone_io.similarity import BACKEND
from benchmarks.record import write_report

K = 25
DEFAULT = "sklearn"
SEED = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both backends and writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.similarity", description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--queries", type=int, default=10)
    options = parser.parse_args(arguments)
    compared(1_000, options.dimensions, 2)
    before = os.getloadavg()[0]
    backends = compared(options.vectors, options.dimensions, options.queries)
    ratios = {
        step: round(backends[DEFAULT]["seconds"][step] / seconds, 2)
        for step, seconds in backends[BACKEND]["seconds"].items()
    }
    report = {
        **vars(options),
        "k": K,
        "seed": SEED,
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "load": {"before": before, "after": os.getloadavg()[0]},
        "backends": backends,
        "times_faster": ratios,
    }
    write_report("similarity", "What does the FAISS backend cost against the default one?", report)
    print(json.dumps(report, indent=1))


def compared(n: int, dimensions: int, queries: int) -> dict[str, Any]:
    """Backend -> what `measure` says of it, on the same dataset and vectors."""
    rng = np.random.default_rng(SEED)
    values = rng.standard_normal((n, dimensions), dtype=np.float32) + 1
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    asked = rng.integers(0, n, queries).tolist()
    dataset = fo.Dataset()
    try:
        dataset.add_samples((fo.Sample(filepath=f"/none/{row}.png") for row in range(n)), progress=False)
        return {name: measure(dataset, name, values, asked) for name in (DEFAULT, BACKEND)}
    finally:
        for key in dataset.list_brain_runs():
            dataset.delete_brain_run(key)
        dataset.delete()


def measure(dataset: fo.Dataset, backend: str, values: Floats, asked: Sequence[int]) -> dict[str, Any]:
    """Median seconds per step of one backend, and what its answers are worth."""
    ids, key = dataset.values("id"), f"by_{backend}"
    seconds: dict[str, list[float]] = {}
    vectors_copy = values.copy()  # the default backend changes what it is given
    build = partial(fob.compute_similarity, dataset, embeddings=vectors_copy, backend=backend, brain_key=key)
    index = timed(seconds, "build", build)

    def by_vector(row: int) -> list[str]:
        return list(index.sort_by_similarity(values[row], k=K).values("id"))

    def by_sample(row: int) -> list[str]:
        return list(index.sort_by_similarity(ids[row], k=K).values("id"))

    before = [timed(seconds, "by_vector", partial(by_vector, row)) for row in asked]
    with index.use_view(dataset.select(ids[::10])):
        for row in asked:
            timed(seconds, "in_a_tenth", partial(by_vector, row))
    samples = [timed(seconds, "by_sample", partial(by_sample, row)) for row in asked]
    index._kneighbors(query=[ids[asked[0]]], k=K)  # what other methods of the Brain ask
    after = [by_vector(row) for row in asked]
    exact = [brute_force(values, row, ids) for row in asked]
    dataset._brain_cache.clear()

    def load_and_ask() -> list[str]:
        return list(dataset.load_brain_results(key).sort_by_similarity(ids[asked[0]], k=K).values("id"))

    loaded = timed(seconds, "load_and_ask", load_and_ask)
    return {
        "seconds": {step: round(statistics.median(runs), 4) for step, runs in seconds.items()},
        "exact_by_vector": alike(before, exact),
        "exact_by_sample": alike(samples, exact),
        "exact_after_loading": loaded == exact[0],
        "same_again": alike(before, after),
        "of_25_again": round(statistics.mean(len({*a} & {*b}) for a, b in zip(before, after, strict=True)), 2),
        "embeddings_unchanged": bool(np.array_equal(index.get_embeddings()[0], values)),
    }


def alike(left: list[list[str]], right: list[list[str]]) -> float:
    """Share of the queries whose 25 answers are the same, in the same order."""
    return statistics.mean(float(a == b) for a, b in zip(left, right, strict=True))


def timed(seconds: dict[str, list[float]], step: str, work: Callable[[], Any]) -> Any:
    """What the work gives; how long it took is noted under `step`."""
    start = time.perf_counter()
    result = work()
    seconds.setdefault(step, []).append(time.perf_counter() - start)
    return result


def brute_force(values: Floats, row: int, ids: Sequence[str]) -> list[str]:
    """The 25 nearest by the definition, in float64."""
    similar = np.concatenate([part.astype(np.float64) @ values[row] for part in np.array_split(values, 20)])
    return [ids[at] for at in np.argsort(-similar, kind="stable")[:K]]


if __name__ == "__main__":
    main()
