"""What reading in worker processes costs: encoding images with them, and with readers in this process.

Run as `python -m benchmarks.reading_speed --photos FOLDER [--images 1000] [--repeats 3]` (a few minutes on two cores;
FOLDER holds at least so many JPEG files). Both ways encode the same images with the encoder `offline` into an empty
cache. They take turns every 128 images, in changing order, so that other work on the machine meets both alike. The
encoder is loaded before; the processes are started anew within the time of each repeat. A second set are drawn images
of 64 pixels a side, of which handing over takes the largest part.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from audit_plugin.arrays import MODALITIES, Floats, Samples
from audit_plugin.encoders.embed import digest_contents, embed, silent
from audit_plugin.encoders.registry import load_encoders
from audit_plugin.inputs import reading
from audit_plugin.inputs.images import read_image_or_crop
from benchmarks.record import write_report

SEED, SIDE, DRAWS, PART = 0, 64, 10_000, 128
WAYS = ("this process", "worker processes")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both ways in turn and writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="write no report")
    options = parser.parse_args(arguments)
    photos = [str(path) for path in sorted(options.photos.rglob("*.jpg"))[: options.images]]
    with tempfile.TemporaryDirectory() as folder:
        small = draw_images(Path(folder), options.images)
        sets = {}
        for name, paths in (("photographs", photos), ("64 pixels", small)):
            sets[name] = compared(paths, options.repeats)
            print(name, sets[name], flush=True)
    settings = {"images": options.images, "repeats": options.repeats, "encoder": "offline"}
    load = {"threads": torch.get_num_threads(), "other_load": round(os.getloadavg()[1], 1)}
    report = {"settings": {**settings, **load}, "sets": sets}
    for name, result in sets.items():
        low, high = result["interval"]
        print(f"{name}: {result['ratio']:.3f} ({low:.3f} to {high:.3f}) of the time, features equal")
    if not options.dry_run:
        print(write_report("reading-speed", "What does reading in worker processes cost?", report))


def draw_images(folder: Path, count: int) -> list[str]:
    """Paths of PNG files of a few colored boxes."""
    rng = np.random.default_rng(SEED)
    paths = []
    for number in range(count):
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        for _ in range(6):
            top, left = rng.integers(0, SIDE - 8, 2)
            pixels[top : top + 24, left : left + 24] = rng.integers(0, 256, 3)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def compared(paths: Sequence[str], repeats: int) -> dict[str, Any]:
    """Seconds of both ways, and the ratio of worker processes to this process with its 90 % interval."""
    encode(paths[:PART], WAYS[0])  # the first batches are slow
    parts = [paths[start : start + PART] for start in range(0, len(paths), PART)]
    seconds, cpu_seconds = np.zeros((repeats, len(parts), 2)), np.zeros(2)
    for repeat in range(repeats):
        reading.close_workers()
        before = cpu_of(resource.RUSAGE_CHILDREN)
        for number, part in enumerate(parts):
            features = {}
            for way in WAYS if (repeat + number) % 2 else WAYS[::-1]:
                began = cpu_of(resource.RUSAGE_SELF)
                seconds[repeat, number, WAYS.index(way)], features[way] = encode(part, way)
                cpu_seconds[WAYS.index(way)] += cpu_of(resource.RUSAGE_SELF) - began
            if not np.array_equal(features[WAYS[0]], features[WAYS[1]]):
                raise RuntimeError("the features differ")
        reading.close_workers()  # their time is counted when they end
        cpu_seconds[1] += cpu_of(resource.RUSAGE_CHILDREN) - before
    turns = seconds.reshape(-1, 2)
    drawn = np.random.default_rng(SEED).integers(0, len(turns), (DRAWS, len(turns)))
    sums = turns[drawn].sum(axis=1)
    interval = np.quantile(sums[:, 1] / sums[:, 0], (0.05, 0.95))
    totals = {way: seconds[:, :, column].sum(axis=1).round(3).tolist() for column, way in enumerate(WAYS)}
    ratio = float(turns[:, 1].sum() / turns[:, 0].sum())
    return {
        "seconds": totals,
        "cpu_seconds": dict(zip(WAYS, cpu_seconds.round(2).tolist(), strict=True)),
        "ratio": round(ratio, 4),
        "interval": [round(float(end), 4) for end in interval],
    }


def cpu_of(whose: int) -> float:
    """Seconds of a processor that this process, or its children that ended, have taken."""
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime


def encode(paths: Sequence[str], way: str) -> tuple[float, Floats]:
    """(seconds, features) with an empty cache."""
    samples = Samples(tuple(map(str, range(len(paths)))), {"image": tuple(paths)})
    with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, AUDIT_PLUGIN_CACHE=cache), read_in(way):
        contents = digest_contents(samples, silent)
        encoders = load_encoders("offline", ("image",), "cpu")
        start = time.perf_counter()
        embedded = embed(samples, contents, {"image": way}, lambda: encoders, silent)
        seconds = time.perf_counter() - start
        if embedded.failures:
            raise RuntimeError(f"not all images were read: {next(iter(embedded.failures.values()))}")
        return seconds, np.array(embedded.features.vectors["image"])


@contextmanager
def read_in(way: str) -> Iterator[None]:
    """Reads images in this process, as modalities are that users register, or in worker processes."""
    entry = MODALITIES["image"]
    here = entry if way == WAYS[1] else replace(entry, read=read_image_or_crop)
    with patch.dict(MODALITIES, image=here):
        yield


if __name__ == "__main__":
    main()
