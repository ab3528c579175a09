"""Speed of writing an audit's fields into FiftyOne, against FiftyOne's own `set_values`, one field at a time.

Run as `python -m benchmarks.writing_speed [--samples 100000] [--repeats 3]`; the two ways take turns on one dataset
without media files. Twelve fields: eight numbers, two booleans, two texts.
Expected: 100,000 samples in under 30 seconds on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import own_database

os.environ.update(own_database.settings())  # before FiftyOne is imported

import fiftyone as fo
import numpy as np

from audit_plugin.fiftyone_io.lease import leased
from audit_plugin.fiftyone_io.read.items import AuditedItems
from audit_plugin.fiftyone_io.write.results import FieldValues, write_fields
from benchmarks.record import write_report

SEED = 0
NUMBERS = (
    "misalignment",
    "probability",
    "multimem",
    "multimem_stderr",
    "alignment",
    "outlier",
    "duplicate",
    "suggestion_score",
)
FLAGS, TEXTS = ("is_misaligned", "is_outlier"), ("reason", "suggestion")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both ways in turn and writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.writing_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="write no JSON")
    options = parser.parse_args(arguments)
    dataset = fo.Dataset()
    try:
        dataset.add_samples([fo.Sample(filepath=f"/none/{row}.png") for row in range(options.samples)], progress=False)
        runs = [measure(dataset, number) for number in range(options.repeats)]
    finally:
        dataset.delete()
    report: dict[str, Any] = {
        "samples": options.samples,
        "fields": len(NUMBERS + FLAGS + TEXTS),
        "seed": SEED,
        "runs": runs,
    }
    report |= {way: round(statistics.median(run[way] for run in runs), 2) for way in runs[0]}
    report["ratio"] = round(statistics.median(run["set_values"] / run["audit"] for run in runs), 2)
    if not options.dry_run:
        print(write_report("writing-speed", "seconds to write an audit's fields into FiftyOne", report))
    print(json.dumps(report))


def measure(dataset: fo.Dataset, number: int) -> dict[str, float]:
    """Seconds of both ways, into fields of their own; what they wrote is compared."""
    ids, columns = dataset.values("id"), made(len(dataset), number)
    start = time.perf_counter()
    with leased(dataset, "measuring"):
        write_fields(AuditedItems(dataset, f"ours{number}"), {name: [name] for name in ids}, columns, None)
    middle = time.perf_counter()
    for name, (kind, values) in columns.items():
        dataset.add_sample_field(f"theirs{number}_{name}", **kind)
        dataset.set_values(f"theirs{number}_{name}", values)
    end = time.perf_counter()
    for name, (_, values) in columns.items():
        assert dataset.values(f"ours{number}_{name}") == dataset.values(f"theirs{number}_{name}") == values
    return {"audit": round(middle - start, 2), "set_values": round(end - middle, 2)}


def made(n: int, number: int) -> FieldValues:
    """FieldValues as a result's are: name -> (what the field is, its values)."""
    rng = np.random.default_rng((SEED, number))
    columns: FieldValues = {name: ({"ftype": fo.FloatField}, rng.random(n).tolist()) for name in NUMBERS}
    columns |= {name: ({"ftype": fo.BooleanField}, (rng.random(n) < 0.05).tolist()) for name in FLAGS}
    columns |= {
        name: ({"ftype": fo.StringField}, [f"a reason, number {v}" for v in rng.integers(0, 99, n)]) for name in TEXTS
    }
    return columns


if __name__ == "__main__":
    main()
