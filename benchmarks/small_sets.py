"""How well sets of 12 to 300 pairs are ranked: the score, beside its kinds of evidence alone.

Run as `python -m benchmarks.small_sets [--seeds 10]`; finished audits are kept, so that it can be interrupted. Random
subsets of photographs (and of emoji, which are none) exchange 10% of their captions, at least two. Expected: the mean
AUROC of `misalignment` is at least that of the better of the frozen encoders alone and the trained heads alone, less
0.01, at every size.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from audit_plugin.arrays import Floats
from audit_plugin.audit.prepare import Clock, prepare
from audit_plugin.audit.run import evidence_of, run_identity
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import silent
from audit_plugin.scoring.evidence import NEAR_MISS
from audit_plugin.scoring.evidence_weights import FULL_SAMPLES, UNTRAINED_WEIGHTS, separation, weigh_evidence
from audit_plugin.scoring.scores import WEIGHTS, combine
from audit_plugin.store import RunFolder
from audit_plugin.trials.run import Job
from benchmarks.data import DATA
from benchmarks.design import TRIALS
from benchmarks.drawn import once
from benchmarks.metrics import mean_of
from benchmarks.noise import plant
from benchmarks.record import markdown_table, write_report
from benchmarks.rivals.tuning import auroc
from benchmarks.sets import CLOTHING, PairSet, load_set

SIZES = (12, 20, 31, 40, 80, 150, 300)
POOL = 900  # samples of a set that subsets are drawn from
RATE = 0.1
CELLS = CLOTHING.parent / "bccd"
CELL_NAMES = {"RBC": "a red blood cell", "WBC": "a white blood cell", "Platelets": "platelets"}
COLORS = {
    "black": (20, 20, 20),
    "gray": (128, 128, 128),
    "white": (235, 235, 235),
    "red": (180, 30, 40),
    "pink": (230, 150, 170),
    "orange": (230, 130, 40),
    "yellow": (225, 205, 70),
    "green": (60, 120, 60),
    "blue": (45, 75, 150),
    "light blue": (140, 180, 215),
    "purple": (110, 60, 130),
    "brown": (110, 75, 50),
    "beige": (205, 185, 155),
}
MISALIGNMENT = "misalignment"
KINDS = (MISALIGNMENT, "zero_shot", "contrast", "weights not shrunk", "usual weights", "probe pairs")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing and writes results/small-sets.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_sets", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=DATA / "small-sets")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    cells = []
    for name, load in SOURCES.items():
        whole = load()
        for size in SIZES:
            runs = [run_cell(whole, name, size, seed, options.out) for seed in range(options.seeds)]
            cells.append(
                {"set": name, "samples": size, **{kind: mean_of(run.get(kind) for run in runs) for kind in KINDS}}
            )
            print(cells[-1], flush=True)
    question = "AUROC of small sets with 10% exchanged captions"
    write_report("small-sets", question, {"trials": TRIALS, "seeds": options.seeds, "cells": cells})


def run_cell(whole: PairSet, name: str, size: int, seed: int, out: Path) -> dict[str, float]:
    """Kind -> AUROC of one subset; the evidence of its audit is kept in `out`."""
    path = out / f"{name}-{size}-{seed}.npz"
    if not path.exists():
        np.savez_compressed(path, **audit_subset(whole, size, seed))  # type: ignore[arg-type]
    with np.load(path) as arrays:
        return figures(dict(arrays))


def audit_subset(whole: PairSet, size: int, seed: int) -> dict[str, Floats]:
    """Audits one subset: its truth, its evidence, that of its probe pairs, and which side's texts are classes."""
    chosen = np.sort(np.random.default_rng((seed, size)).choice(len(whole), size, replace=False))
    planted = plant(whole.rows(chosen.tolist()), "random", max(RATE, 2 / size), "permuted", seed)
    config = AuditConfig(encoder="offline", trials=TRIALS, seed=seed, device="cpu")
    prepared = prepare(planted.samples, config, Clock(silent))
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder(Path(folder) / "run", run_identity(prepared, config)) as run,
    ):
        evidence, _ = evidence_of(prepared, Job(config, prepared.device, run, silent), Clock(silent))
    arrays = {"wrong": planted.wrong[prepared.order.rows], "classes": np.array("text" in evidence.class_predictions)}
    arrays |= {f"own {kind}": values for kind, values in evidence.parts["image", "text"].items()}
    for probe_kind, on_probes in evidence.probe_evidence.items():
        arrays |= {f"{probe_kind} {kind}": values[0] for kind, values in on_probes.items()}
    return arrays


def figures(arrays: dict[str, Floats]) -> dict[str, float]:
    """Score, or kind of evidence alone -> AUROC; `probe pairs`: what the note on a small set says."""
    own, near, random = (
        {name.removeprefix(f"{part} "): values for name, values in arrays.items() if name.startswith(f"{part} ")}
        for part in ("own", NEAR_MISS, "random")
    )
    trained, trust = "contrast" in own, min(len(arrays["wrong"]) / FULL_SAMPLES, 1)
    weights = weigh_evidence(own, near, None, 1 if arrays["classes"] else None) if trained else UNTRAINED_WEIGHTS
    scores = {MISALIGNMENT: combine(own, None, weights), **own}
    if trained:
        chosen = {kind: WEIGHTS[kind] + (weight - WEIGHTS[kind]) / trust for kind, weight in weights.items()}
        scores |= {"weights not shrunk": combine(own, None, chosen), "usual weights": combine(own)}
    aurocs = {
        name: float(auroc(np.nan_to_num(values, nan=float(np.nanmedian(values))), arrays["wrong"].astype(bool)))
        for name, values in scores.items()
    }
    return aurocs | {"probe pairs": separation(scores[MISALIGNMENT], combine(random, own, weights))}


def clothing_classes() -> PairSet:
    """Photographs of clothing with the names of their classes."""
    return load_set("clothing", POOL)


def clothing_captions() -> PairSet:
    """The same with captions of class and colors: those of the middle and of the corners of the picture."""
    clean = load_set("clothing", POOL, seed=1)
    captions = tuple(map(describe_clothing, clean.media["image"], clean.labels))
    return replace(clean, media={**clean.media, "text": captions}, labels=())


def describe_clothing(path: str, label: str) -> str:
    """The caption of a photograph of clothing."""
    from PIL import Image

    pixels = np.asarray(Image.open(path).convert("RGB").resize((64, 64)), dtype=float)
    middle = pixels[24:40, 24:40].reshape(-1, 3)
    corners = np.concatenate([pixels[rows, columns].reshape(-1, 3) for rows in (slice(8), slice(56, 64))
                              for columns in (slice(8), slice(56, 64))])  # fmt: skip
    return f"{nearest_color(middle)} {label} on a {nearest_color(corners)} background"


def nearest_color(pixels: Floats) -> str:
    """The color of `COLORS` nearest to the median of RGB pixels `[q, 3]`."""
    median = np.median(pixels, axis=0)
    return min(COLORS, key=lambda name: float(np.square(median - COLORS[name]).sum()))


def blood_cells() -> PairSet:
    """Photographs of single blood cells with the names of their kinds, which no class of ImageNet is near to."""
    folder = once(DATA / "blood-cells", crop_cells).resolve()
    files = sorted(folder.glob("*/*.png"))
    labels = tuple(path.parent.name for path in files)
    media = {"image": tuple(map(str, files)), "text": tuple(CELL_NAMES[label] for label in labels)}
    return PairSet("blood cells", tuple(path.stem for path in files), media, labels, labels=labels)


def crop_cells(folder: Path) -> None:
    """Writes at most a third of `POOL` cells of each kind."""
    from PIL import Image

    count = dict.fromkeys(CELL_NAMES, 0)
    for label in CELL_NAMES:
        (folder / label).mkdir()
    for path in sorted((CELLS / "Annotations").glob("*.xml")):
        image = Image.open(CELLS / "JPEGImages" / f"{path.stem}.jpg").convert("RGB")
        for number, item in enumerate(ElementTree.parse(path).getroot().iter("object")):
            label = item.findtext("name") or ""
            box = [int(item.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")]
            if count[label] < POOL // 3 and min(box[2] - box[0], box[3] - box[1]) >= 16:
                image.crop((box[0], box[1], box[2], box[3])).save(folder / label / f"{path.stem}-{number}.png")
                count[label] += 1


SOURCES: dict[str, Callable[[], PairSet]] = {
    "clothing, classes": clothing_classes,
    "clothing, captions": clothing_captions,
    "blood cells, classes": blood_cells,
    "emoji, names": lambda: load_set("twitter", POOL),
}


def small_sets_table(report: dict[str, Any]) -> str:
    """One row per size: means over the sets."""
    sizes = sorted({cell["samples"] for cell in report["cells"]})
    lines = []
    for size in sizes:
        cells = [cell for cell in report["cells"] if cell["samples"] == size]
        means = [mean_of(cell[kind] for cell in cells) for kind in KINDS]
        lines.append([str(size), *("" if mean is None else f"{mean:.3f}" for mean in means)])
    titles = [f"`{kind}`" if kind in (MISALIGNMENT, *WEIGHTS) else kind for kind in KINDS]
    return "\n".join(markdown_table(["pairs", *titles], lines))


if __name__ == "__main__":
    main()
