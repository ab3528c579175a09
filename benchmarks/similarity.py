"""What the similarity backend costs against FiftyOne's default, and whether it answers twice alike.

Run as `python -m benchmarks.similarity [--vectors 100000] [--dimensions 512] [--queries 10]`. Random unit vectors in a
real dataset without media files, on the database of this machine. Each backend is built, asked by sample and by vector
for its 25 nearest, and loaded anew, in turn, in one process; the JSON holds seconds and ratios (default / ours).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np

from audit_plugin.arrays import Floats
from audit_plugin.similarity import BACKEND
from benchmarks.record import write_report

K = 25
DEFAULT = "sklearn"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both backends and writes one JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--queries", type=int, default=10)
    chosen = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((chosen.vectors, chosen.dimensions)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    asked = rng.integers(0, chosen.vectors, chosen.queries)
    dataset = fo.Dataset()
    try:
        dataset.add_samples((fo.Sample(filepath=f"/none/{row}.png") for row in range(len(values))), progress=False)
        found = {name: measure(dataset, name, values, asked) for name in (DEFAULT, BACKEND)}
    finally:
        for key in dataset.list_brain_runs():
            dataset.delete_brain_run(key)
        dataset.delete()
    steps = found[BACKEND]["seconds"]
    ratios = {step: round(found[DEFAULT]["seconds"][step] / seconds, 2) for step, seconds in steps.items()}
    report = {**vars(chosen), "k": K, "backends": found, "times_faster": ratios}
    write_report("similarity", "What does the FAISS backend cost against the default one?", report)
    print(json.dumps(report, indent=1))


def measure(dataset: fo.Dataset, backend: str, values: Floats, asked: Sequence[int]) -> dict[str, Any]:
    """Median seconds per step of one backend, and what its answers are worth."""
    ids, key = dataset.values("id"), f"by_{backend}"
    seconds: dict[str, list[float]] = {}
    # a copy: the default backend changes what it is given
    index = timed(
        seconds,
        "build",
        lambda: fob.compute_similarity(dataset, embeddings=values.copy(), backend=backend, brain_key=key),
    )

    def by_vector(row: int) -> list[str]:
        return index.sort_by_similarity(values[row], k=K).values("id")

    def by_id(row: int) -> list[str]:
        return index.sort_by_similarity(ids[row], k=K).values("id")

    before = [timed(seconds, "by_vector", partial(by_vector, row)) for row in asked]
    for row in asked:
        timed(seconds, "by_id", partial(by_id, row))
    view = dataset.select(ids[::10])
    with index.use_view(view):
        for row in asked:
            timed(seconds, "in_a_tenth", partial(by_vector, row))
    index._kneighbors(query=[ids[asked[0]]], k=K)  # what other methods of the Brain ask
    after = [by_vector(row) for row in asked]
    exact = [brute_force(values, row, ids) for row in asked]
    dataset._brain_cache.clear()
    loaded = timed(seconds, "load", lambda: dataset.load_brain_results(key))
    timed(seconds, "first_query_after_load", lambda: loaded.sort_by_similarity(ids[asked[0]], k=K).values("id"))
    return {
        "seconds": {step: round(statistics.median(runs), 4) for step, runs in seconds.items()},
        "exact": float(np.mean([a == b for a, b in zip(before, exact, strict=True)])),
        "same_again": float(np.mean([a == b for a, b in zip(before, after, strict=True)])),
        "of_25_again": float(np.mean([len({*a} & {*b}) for a, b in zip(before, after, strict=True)])),
    }


def timed(seconds: dict[str, list[float]], step: str, work: Callable[[], Any]) -> Any:
    """What the work gives; how long it took is noted under `step`."""
    start = time.perf_counter()
    result = work()
    seconds.setdefault(step, []).append(time.perf_counter() - start)
    return result


def brute_force(values: Floats, row: int, ids: Sequence[str]) -> list[str]:
    """The 25 nearest by the definition."""
    return [ids[i] for i in np.argsort(-(values.astype(np.float64) @ values[row]), kind="stable")[:K]]


if __name__ == "__main__":
    main()
