"""Speed of the encoders `offline`, against the same networks in PyTorch as fast as it computes them.

Run as `python -m benchmarks.offline_speed [--images 96] [--texts 1024] [--repeats 3]` (about ten minutes on two
cores). All ways take turns in one run, with the same files, reading, batches of the pipeline and cache: what an audit
with an empty cache does. Times of the processor are given beside those of the clock, since other programs on the
machine change them less.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from audit_plugin.arrays import Floats, Samples
from audit_plugin.encoders import offline
from audit_plugin.encoders.base import Encode, Encoder
from audit_plugin.encoders.devices import encode_on
from audit_plugin.encoders.embed import digest_contents, embed, silent
from benchmarks.record import write_report

CPU = torch.device("cpu")
SIZES = ((256, 171), (640, 427))  # pixels of the photographs
FORMER_BATCHES = {"image": 32, "text": 64}
Forward = Callable[[torch.Tensor], torch.Tensor]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures all ways in turn and writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="write no report")
    options = parser.parse_args(arguments)
    settings = {**vars(options), "threads": torch.get_num_threads()}
    images, texts = image_encoders(), text_encoders()
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            f"photographs of {width} x {height}": in_turn("image", paths, images, options.repeats)
            for width, height in SIZES
            for paths in [photographs(Path(folder) / str(width), options.images, (width, height))]
        }
        sets["captions"] = in_turn("text", captions(options.texts), texts, options.repeats)
    report = {"settings": settings, "sets": sets}
    if not options.dry_run:
        print(write_report("offline-speed", "media encoded per second by offline, medians of runs in turn", report))
    print(json.dumps(report, indent=1))


def photographs(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    """JPEG files of two photographs, shifted and mirrored."""
    folder.mkdir()
    generator = random.Random(0)
    originals = [Image.fromarray(image) for image in load_sample_images().images]
    paths = []
    for number in range(count):
        image = originals[number % 2]
        shift = generator.uniform(0, 0.1), generator.uniform(0, 0.1)
        left, top = shift[0] * image.width, shift[1] * image.height
        image = image.resize(
            size, Image.Resampling.BICUBIC, (left, top, left + 0.9 * image.width, top + 0.9 * image.height)
        )
        paths.append(str(folder / f"{number}.jpg"))
        (ImageOps.mirror(image) if number % 4 > 1 else image).save(paths[-1], quality=90)
    return paths


def captions(count: int) -> list[str]:
    """Sentences of one to four names of ImageNet's classes."""
    generator = random.Random(0)
    names = [name.split(",")[0] for name in offline.class_names()]
    return [f"a photo of {', '.join(generator.sample(names, generator.randint(1, 4)))}" for _ in range(count)]


def image_encoders() -> dict[str, Encoder]:
    """Name of each way -> the image encoder with it."""
    encoder = offline.load("offline", ("image",), CPU)["image"]
    model = offline.image_model(CPU)
    example = torch.zeros((1, 224, 224, 3), dtype=torch.uint8)
    to_floats, low = offline.image_model(CPU)
    low.to(torch.bfloat16)

    def in_bf16(pixels: torch.Tensor) -> torch.Tensor:
        return low(to_floats(pixels).to(torch.bfloat16))

    return {
        "ours": encoder,
        "PyTorch, batches": as_before(encoder, "image", model),
        "PyTorch, compiled, one image a thread": replace(encoder, encode=few_a_thread(compiled(model, example))),
        "PyTorch, bf16, one image a thread": replace(encoder, encode=few_a_thread(in_bf16)),
    }


def text_encoders() -> dict[str, Encoder]:
    """Name of each way -> the text encoder with it."""
    encoder = offline.load("offline", ("text",), CPU)["text"]
    model = offline.text_model(CPU)
    return {
        "ours": encoder,
        "PyTorch, batches": as_before(encoder, "text", model),
        "PyTorch, few texts a thread": replace(encoder, encode=few_a_thread(model)),
    }


def as_before(encoder: Encoder, modality: str, forward: Forward) -> Encoder:
    """The encoder with the network in PyTorch, full batches and PyTorch's own threads."""
    return replace(encoder, batch=FORMER_BATCHES[modality], encode=encode_on(CPU, forward), any_batch=False)


def compiled(model: torch.nn.Module, example: torch.Tensor) -> Forward:
    """The network traced, frozen and optimized for inference."""
    with torch.no_grad():
        return torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, example)))


def few_a_thread(forward: Forward) -> Encode:
    """An encoder's `encode` that gives each thread one image, or few texts, at a time."""
    threads = torch.get_num_threads()
    encode = encode_on(CPU, forward)

    def encode_rows(batch: np.ndarray) -> Floats:
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                at_once = max(1, offline.TOKENS_AT_ONCE // batch.shape[1])  # 1 of images, of 224 rows
                parts = [batch[start : start + at_once] for start in range(0, len(batch), at_once)]
                return np.concatenate(list(pool.map(encode, parts)))
        finally:
            torch.set_num_threads(threads)

    return encode_rows


def in_turn(modality: str, values: Sequence[str], encoders: dict[str, Encoder], repeats: int) -> dict[str, Any]:
    """Media per second, milliseconds of the processor per medium, ratios and the worst cosine to PyTorch."""
    rates: dict[str, list[float]] = {name: [] for name in encoders}
    processor: dict[str, list[float]] = {name: [] for name in encoders}
    vectors: dict[str, Floats] = {}
    for encoder in encoders.values():
        run(modality, values[:16], encoder)  # warms up
    for _ in range(repeats):
        for name, encoder in encoders.items():
            seconds, processor_seconds, vectors[name] = run(modality, values, encoder)
            rates[name].append(len(values) / seconds)
            processor[name].append(1000 * processor_seconds / len(values))
            print(modality, name, round(rates[name][-1], 1), round(processor[name][-1], 2), flush=True)
    others = [name for name in encoders if name != "ours"]
    return {
        "per_second": {name: round(median(values), 1) for name, values in rates.items()},
        "processor_ms": {name: round(median(values), 2) for name, values in processor.items()},
        "times_faster": {name: ratio(rates["ours"], rates[name]) for name in others},
        "times_less_processor": {name: ratio(processor[name], processor["ours"]) for name in others},
        "least_cosine": {
            name: float((vectors[name] * vectors["PyTorch, batches"]).sum(1).min().round(6)) for name in encoders
        },
        "runs": {name: [round(value, 2) for value in values] for name, values in rates.items()},
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median ratio of runs in turn."""
    return round(median(a / b for a, b in zip(ours, theirs, strict=True)), 2)


def run(modality: str, values: Sequence[str], encoder: Encoder) -> tuple[float, float, Floats]:
    """(seconds, seconds of the processor, features) of everything between media and features, with an empty cache."""
    samples, keys = (
        Samples(tuple(map(str, range(len(values)))), {modality: tuple(values)}),
        {modality: encoder.identity.key},
    )
    with tempfile.TemporaryDirectory() as cache, patch.dict("os.environ", AUDIT_PLUGIN_CACHE=cache):
        start, processor_start = time.perf_counter(), time.process_time()
        embedded = embed(samples, digest_contents(samples, silent), keys, lambda: {modality: encoder}, silent)
        features = embedded.features.vectors[modality]
        return time.perf_counter() - start, time.process_time() - processor_start, features


if __name__ == "__main__":
    main()
