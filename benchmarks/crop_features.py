"""Features of many crops of real photographs: `python -m benchmarks.crop_features --rounds 8 --out crops.npy`.

Each round takes one crop of every photograph beside the project (clothing, blood cells), from a tenth to all of its
area, at a random place, and encodes it with the encoder `offline`, at 112 pixels a side to save time. The file is
written after each round: float32 `[rounds x photographs, 1280]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from audit_plugin.arrays import Floats
from audit_plugin.encoders import offline
from benchmarks.sets import CLOTHING

PHOTOGRAPHS = CLOTHING.parent
LEAST_AREA = 0.1
SIDE = 112
BATCH = 32


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the features, round by round."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crop_features", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    encoder = offline.load("offline", ("image",), torch.device("cpu"))["image"]
    paths = sorted(PHOTOGRAPHS.rglob("*.jpg"))
    rounds = []
    for number in range(args.rounds):
        rng = np.random.default_rng((args.seed, number))
        features = []
        for start in range(0, len(paths), BATCH):
            crops = [random_crop(path, rng) for path in paths[start : start + BATCH]]
            features.append(encoder.encode(np.stack(crops)))
        rounds.append(np.concatenate(features))
        np.save(args.out, np.concatenate(rounds))
        print(f"round {number + 1} of {args.rounds}: {len(paths)} crops", flush=True)


def random_crop(path: Path, rng: np.random.Generator) -> Floats:
    """float32 `[SIDE, SIDE, 3]`, -1 to 1: a part of the photograph, squeezed to a square."""
    with Image.open(path) as photograph:
        scale = float(np.sqrt(rng.uniform(LEAST_AREA, 1)))
        width, height = (max(1, round(scale * side)) for side in photograph.size)
        left = int(rng.integers(0, photograph.width - width + 1))
        top = int(rng.integers(0, photograph.height - height + 1))
        part = photograph.convert("RGB").crop((left, top, left + width, top + height))
    return np.asarray(part.resize((SIDE, SIDE)), dtype=np.float32) / np.float32(127.5) - np.float32(1)


if __name__ == "__main__":
    main()
