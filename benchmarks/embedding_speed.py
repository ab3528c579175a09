"""Speed of embedding images, against FiftyOne's compute_embeddings and a plain PyTorch loop.

Run as `python -m benchmarks.embedding_speed [--images 512] [--repeats 3] [--device cpu]` (about ten minutes on two
cores). One open_clip model with random weights and the same JPEG files of drawn persons for
all. FiftyOne and the loop first try batch sizes and numbers of workers and keep their best; then all ways take turns,
models loaded. Ours reads, digests, encodes and stores: what an audit with an empty cache does. FiftyOne's dataset is
made before its time begins.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from benchmarks import own_database

os.environ.update(own_database.settings())  # before FiftyOne is imported

import fiftyone as fo
import numpy as np
import open_clip
import torch
from fiftyone.utils.open_clip import TorchOpenClipModel, TorchOpenClipModelConfig
from PIL import Image

from audit_plugin.arrays import Floats, Samples
from audit_plugin.encoders.base import Encoder
from audit_plugin.encoders.embed import digest_contents, embed, silent
from audit_plugin.encoders.precision import bf16_encoder, choose_precision
from audit_plugin.encoders.registry import load_encoders
from benchmarks.record import write_report

MODEL, SIDE, SEED = "ViT-B-32", 256, 0
BATCHES, WORKERS = (16, 32, 64), (0, 1, 2)
CUDA_BATCHES, CUDA_WORKERS = (64, 256), (4, 8, 16)
TUNED_ON = 4  # a quarter of the images tells which setting is the best

# paths of images -> (seconds, features `[n, d]`)
Way = Callable[[Sequence[str]], tuple[float, Floats]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures all ways in turn and writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedding_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dry-run", action="store_true", help="write no report")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = {
            "settings": {**vars(options), "model": MODEL, "side": SIDE, "seed": SEED},
            **measured(options, folder),
        }
    if not options.dry_run:
        name = "embedding-speed" + ("" if options.device == "cpu" else f"-{options.device}")
        print(write_report(name, "images embedded per second, medians of runs in turn", report))
    print(json.dumps(report, indent=1))


def measured(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Settings that were found best, images per second and ratios, and whether all ways give the same features."""
    paths = draw(Path(folder) / "images", options.images)
    name, full, trial = encoders(Path(folder), paths, options.device)
    few = paths[: max(64, len(paths) // TUNED_ON)]
    baselines = {
        "fiftyone": tuned(fiftyone_ways(name, options.device), few),
        "loop": tuned(loop_ways(name, options.device), few),
    }
    ways: dict[str, Way] = {key: way for key, (_, way) in baselines.items()}
    ways |= {"ours fp32": ours(full, folder), "ours bf16": ours(bf16_encoder(full), folder)}
    runs: dict[str, list[float]] = {key: [] for key in ways}
    features = {key: way(few[:64])[1] for key, way in ways.items()}  # which warms all of them up
    for _ in range(options.repeats):
        for key, way in ways.items():
            runs[key].append(len(paths) / way(paths)[0])
            print(key, round(runs[key][-1], 2), flush=True)
    return {
        "chosen": {key: settings for key, (settings, _) in baselines.items()},
        "trial": trial,
        "images_per_second": {key: round(median(rates), 2) for key, rates in runs.items()},
        "times_faster": {
            f"{key} than {rival}": round(median(a / b for a, b in zip(runs[key], runs[rival], strict=True)), 3)
            for key, rival in product(("ours fp32", "ours bf16"), baselines)
        },
        "least_cosine_to_loop": {key: least_cosine(values, features["loop"]) for key, values in features.items()},
        "runs": {key: [round(value, 2) for value in rates] for key, rates in runs.items()},
    }


def draw(folder: Path, count: int) -> list[str]:
    """JPEG files of drawn persons, `SIDE` pixels wide and high."""
    from audit_plugin.synthetic.persons import draw_persons, person_svg
    from audit_plugin.synthetic.render import draw_batch

    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(count)]
    persons = draw_persons(count, random.Random(SEED))
    draw_batch([(str(path), person_svg(p)) for path, p in zip(paths, persons, strict=True)], SIDE)
    for path in paths:
        with Image.open(path) as image:
            image.convert("RGB").save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    return [str(path.with_suffix(".jpg")) for path in paths]


def encoders(folder: Path, paths: Sequence[str], device: str) -> tuple[str, Encoder, dict[str, Any]]:
    """(name of a model with random weights, its image encoder at full precision, result of the bf16 check)."""
    torch.manual_seed(SEED)
    torch.save(open_clip.create_model(MODEL).state_dict(), folder / "weights.pt")
    name = f"open_clip:{MODEL}:{folder / 'weights.pt'}"
    samples, encoder = images(paths), load_encoders(name, ("image",), device)["image"]
    identity, load = {"image": encoder.identity}, lambda: {"image": encoder}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as cache, patch.dict("os.environ", AUDIT_PLUGIN_CACHE=cache):
        settled = choose_precision(samples, digest_contents(samples, silent), identity, load, "auto", device)
    return name, encoder, {"seconds": round(time.perf_counter() - start, 2), "notes": settled.notes}


def images(paths: Sequence[str]) -> Samples:
    """Rows of one modality."""
    return Samples(tuple(map(str, range(len(paths)))), {"image": tuple(paths)})


def ours(encoder: Encoder, folder: str) -> Way:
    """Everything between files and features, with an empty cache."""

    def way(paths: Sequence[str]) -> tuple[float, Floats]:
        samples, keys = images(paths), {"image": encoder.identity.key}
        with tempfile.TemporaryDirectory(dir=folder) as cache, patch.dict("os.environ", AUDIT_PLUGIN_CACHE=cache):
            start = time.perf_counter()
            embedded = embed(samples, digest_contents(samples, silent), keys, lambda: {"image": encoder}, silent)
            vectors = embedded.features.vectors["image"]  # read back from the cache
            return time.perf_counter() - start, vectors

    return way


def fiftyone_ways(name: str, device: str) -> dict[str, Way]:
    """Settings -> FiftyOne's compute_embeddings with them, as its model zoo sets the model up."""
    _, model_name, weights = name.split(":", 2)
    settings = {
        "clip_model": model_name,
        "pretrained": weights,
        "entrypoint_fcn": "",
        "text_prompt": "A photo of",
        "classes": ["person", "animal"],
        "output_processor_cls": "fiftyone.utils.torch.ClassifierOutputProcessor",
        "embeddings_layer": "visual",
        "device": device,
    }
    model = TorchOpenClipModel(TorchOpenClipModelConfig(settings))

    def run(paths: Sequence[str], batch: int, workers: int) -> tuple[float, Floats]:
        dataset = fo.Dataset()
        try:
            dataset.add_samples([fo.Sample(filepath=path) for path in paths], progress=False)
            start = time.perf_counter()
            vectors = dataset.compute_embeddings(model, batch_size=batch, num_workers=workers, progress=False)
            return time.perf_counter() - start, np.asarray(vectors)
        finally:
            dataset.delete()

    return by_setting(run, device)


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """What a plain loop reads."""

    def __init__(self, paths: Sequence[str], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            return self.transform(image)


def loop_ways(name: str, device: str) -> dict[str, Way]:
    """Settings -> a plain loop over a DataLoader with them; on a GPU with automatic mixed precision."""
    _, model_name, weights = name.split(":", 2)
    model, _, transform = open_clip.create_model_and_transforms(model_name, pretrained=weights, device=device)
    model.eval()

    def run(paths: Sequence[str], batch: int, workers: int) -> tuple[float, Floats]:
        start = time.perf_counter()
        loader = torch.utils.data.DataLoader(
            Files(paths, transform), batch, num_workers=workers, pin_memory=device == "cuda"
        )
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            vectors = [model.encode_image(pixels.to(device, non_blocking=True)).float().cpu() for pixels in loader]
        return time.perf_counter() - start, torch.cat(vectors).numpy()

    return by_setting(run, device)


def by_setting(run: Callable[[Sequence[str], int, int], tuple[float, Floats]], device: str) -> dict[str, Way]:
    """Name of each pair of batch size and number of workers -> the way with them."""

    def way(batch: int, workers: int) -> Way:
        return lambda paths: run(paths, batch, workers)

    settings = product(BATCHES, WORKERS) if device == "cpu" else product(CUDA_BATCHES, CUDA_WORKERS)
    return {f"batch {batch}, workers {workers}": way(batch, workers) for batch, workers in settings}


def tuned(ways: dict[str, Way], paths: Sequence[str]) -> tuple[str, Way]:
    """The settings with which these images take the least time, and the way with them."""
    next(iter(ways.values()))(paths[:16])
    seconds = {name: way(paths)[0] for name, way in ways.items()}
    print({name: round(len(paths) / value, 2) for name, value in seconds.items()}, flush=True)
    best = min(seconds, key=seconds.__getitem__)
    return best, ways[best]


def least_cosine(a: Floats, b: Floats) -> float:
    """The worst cosine between the rows of two matrices."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return round(float(((a * b).sum(1) / lengths).min()), 6)


if __name__ == "__main__":
    main()
