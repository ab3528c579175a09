"""(ix) Which fault is memorized most, and which one costs the most retrieval?

`python -m benchmarks.multimem.corruptions [--seeds 5]`, on Google's emoji with their names. The paper says that
misaligned samples have the strongest influence; the other faults here, at equal rates, could come out above them:

* misaligned: the text of another of these rows,
* blurred: the image, by a Gaussian of `BLUR` of its width,
* garbled: the letters of each word of the text in random order,
* generic: a text that fits every image,
* rare: no fault, the rows with the fewest like them in both modalities,
* duplicated: rows that are there twice.

Memorization: `RATE` of the rows for each kind in one set; MultiMem above the untouched rows, in standard deviations of
those. Retrieval: `SHARE` of the rows trained on are of one kind, and T@5 of untouched rows that were not trained on is
compared with a training in which clean rows take that place. Both are paired by seed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from audit_plugin.arrays import Bools, Floats, Ints, Samples
from audit_plugin.audit.prepare import Clock, describe_samples, prepare
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import silent
from audit_plugin.trials import multimem
from audit_plugin.trials.learners import head_inputs, head_projections
from benchmarks.multimem import common
from benchmarks.multimem.treatments import Treatment
from benchmarks.record import RESULTS, write_report

KINDS = ("misaligned", "blurred", "garbled", "generic", "rare", "duplicated")
RATE, SHARE, BLUR, TOP_SHARE = 0.04, 0.1, 0.05, 0.05
TRIALS, RETRIEVAL_TRIALS, EPOCHS, LIKE = 48, 16, 20, 10
GENERIC = ("a picture", "an image of something", "a nice picture", "a small drawing", "a symbol")


def main() -> None:
    """Runs the seeds and writes one JSON and one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        variants = Variants.of(common.emoji("google", Path(folder)), Path(folder))
    memorized = [memorization(variants, seed) for seed in range(options.seeds)]
    retrieved = [retrieval(variants, seed) for seed in range(options.seeds)]
    report = {
        "samples": len(variants),
        "rate": RATE,
        "share": SHARE,
        "excess": {kind: common.interval([cell["excess"][kind] for cell in memorized]) for kind in KINDS},
        "in_top": {kind: common.interval([cell["in_top"][kind] for cell in memorized]) for kind in KINDS},
        "t5_clean": common.interval([cell["clean"] for cell in retrieved]),
        "t5_change": {kind: common.interval([cell[kind] - cell["clean"] for cell in retrieved]) for kind in KINDS},
    }
    write_report("multimem-corruptions", "MultiMem and retrieval by kind of fault, Google's emoji", report)
    common.picture(RESULTS / "multimem-corruptions.png", lambda axes: _draw(axes, report), 2)


@dataclass(frozen=True)
class Variants:
    """Every row of a set as it is and with each fault: positions in the inputs of the heads.

    Attributes:
        data: all variants of all rows, one after the other.
        rows: kind of variant -> `[n]`, their positions in `data`; `clean` is one.
        together: `[n]`, leave-together groups of the clean rows.
        rarity: `[n]`, mean rank of the cosine distance to the nearest `LIKE` rows over the modalities; high is rare.
    """

    data: common.Loaded
    rows: dict[str, Ints]
    together: Ints
    rarity: Floats

    def __len__(self) -> int:
        return len(self.together)

    @staticmethod
    def of(samples: Samples, folder: Path) -> Variants:
        """Draws the faults into a folder, and encodes all."""
        rng = np.random.default_rng(91)
        images, texts = (list(map(str, samples.media[name])) for name in ("image", "text"))
        blurred = [_blur(path, folder / f"blurred-{row}.png") for row, path in enumerate(images)]
        garbled = [" ".join(_shuffle(word, rng) for word in text.split()) for text in texts]
        generic = [GENERIC[row % len(GENERIC)] for row in range(len(texts))]
        parts: dict[str, tuple[list[str], list[str]]] = {
            "clean": (images, texts),
            "blurred": (blurred, texts),
            "garbled": (images, garbled),
            "generic": (images, generic),
        }
        everything = Samples(
            ids=tuple(f"{kind}/{name}" for kind in parts for name in samples.ids),
            media={
                "image": tuple(path for part in parts.values() for path in part[0]),
                "text": tuple(text for part in parts.values() for text in part[1]),
            },
        )
        alone, prepared = common.load(samples), prepare(everything, AuditConfig(encoder=common.ENCODER), Clock(silent))
        inputs = head_inputs(prepared.features, head_projections(prepared.features), prepared.device)
        groups = np.arange(len(prepared.order.rows))  # those of the clean rows are taken
        data = common.Loaded(prepared, inputs, describe_samples(prepared).shared_ids(groups))
        places = {name: place for place, name in enumerate(data.column(everything.ids))}
        names = list(alone.column(samples.ids))
        rows = {kind: np.array([places[f"{kind}/{name}"] for name in names]) for kind in parts}
        return Variants(data, rows, alone.together, _rarity([part[rows["clean"]].numpy() for part in data.inputs]))

    def loaded(self, images: Ints, texts: Ints, together: Ints) -> common.Loaded:
        """A set of rows, given by positions of their image and text in `data` and their groups, each `[k]`."""
        shared = self.data.shared_ids
        ids = np.stack([shared[images, 0], shared[texts, 1], together], axis=1).astype(shared.dtype)
        inputs = [self.data.inputs[0][images], self.data.inputs[1][texts]]
        return replace(self.data, inputs=inputs, shared_ids=ids)

    def faulty(self, kind: str, chosen: Ints) -> tuple[Ints, Ints]:
        """(positions of the images, of the texts) of some rows with a fault; each text goes to the next row."""
        clean = self.rows["clean"][chosen]
        if kind == "misaligned":
            return clean, np.roll(clean, 1)
        if kind in ("blurred", "garbled", "generic"):
            changed = self.rows[kind][chosen]
            return (changed, clean) if kind == "blurred" else (clean, changed)
        return clean, clean


def memorization(variants: Variants, seed: int) -> dict[str, Any]:
    """MultiMem of each kind above the untouched rows, and the share of its rows among the highest `TOP_SHARE`."""
    n, rng = len(variants), np.random.default_rng((seed, 92))
    count = round(RATE * n)
    rare = np.argsort(-variants.rarity, kind="stable")[:count]
    order = np.setdiff1d(rng.permutation(n), rare, assume_unique=True)
    order = rng.permutation(order)
    chosen = {"rare": rare} | {
        kind: order[count * at : count * (at + 1)] for at, kind in enumerate(k for k in KINDS if k != "rare")
    }
    images, texts = variants.rows["clean"].copy(), variants.rows["clean"].copy()
    for kind, rows in chosen.items():
        images[rows], texts[rows] = variants.faulty(kind, rows)
    copies = chosen["duplicated"]
    data = variants.loaded(
        np.append(images, images[copies]),
        np.append(texts, texts[copies]),
        np.append(variants.together, variants.together[copies]),
    )
    member = multimem.member_masks(data.together, TRIALS, seed)
    heads = common.train(data, member, Treatment(EPOCHS, seed))
    score = multimem.sum_terms(common.memory_terms(heads, data, member), (0, 1))[:n]
    untouched = np.setdiff1d(np.arange(n), np.concatenate(list(chosen.values())))
    mean, spread = score[untouched].mean(), score[untouched].std()
    top = np.argsort(-score, kind="stable")[: round(TOP_SHARE * n)]
    print(
        seed, {kind: round(float((score[rows].mean() - mean) / spread), 2) for kind, rows in chosen.items()}, flush=True
    )
    return {
        "excess": {kind: float((score[rows].mean() - mean) / spread) for kind, rows in chosen.items()},
        "in_top": {kind: float(np.isin(rows, top).mean()) for kind, rows in chosen.items()},
    }


def retrieval(variants: Variants, seed: int) -> dict[str, float]:
    """T@5 of untouched rows that were not trained on, by what is in the place of `SHARE` of the rows."""
    n, rng = len(variants), np.random.default_rng((seed, 93))
    count = round(SHARE * n)
    rare = np.argsort(-variants.rarity, kind="stable")[:count]
    rest = rng.permutation(np.setdiff1d(np.arange(n), rare))
    place, kept = rest[:count], rest[count:]
    member = multimem.member_masks(variants.together, RETRIEVAL_TRIALS, seed)
    clean = variants.rows["clean"]
    found = {}
    for kind in ("clean", *KINDS):
        slots = {"rare": rare, "duplicated": rng.permutation(kept)[:count]}.get(kind, place)
        images, texts = variants.faulty(kind, slots)
        owners = np.append(kept, slots)
        data = variants.loaded(np.append(clean[kept], images), np.append(clean[kept], texts), variants.together[owners])
        found[kind] = _found(data, member[:, owners], len(kept), seed)
    print(seed, {kind: round(value, 4) for kind, value in found.items()}, flush=True)
    return found


def _found(data: common.Loaded, member: Bools, kept: int, seed: int) -> float:
    """Mean T@5 over trials, of the first `kept` rows that a trial was not trained on."""
    heads = common.train(data, member, Treatment(EPOCHS, seed))
    scores = [
        common.top5(common.embeddings(heads, data, trial), np.flatnonzero(~inside[:kept]), data.shared_ids)[0, 1]
        for trial, inside in enumerate(member)
    ]
    return float(np.mean(scores))


def _rarity(parts: Sequence[Floats]) -> Floats:
    ranks = []
    for vectors in parts:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -np.inf)
        distance = 1 - np.sort(cosines, axis=1)[:, -LIKE:].mean(1)
        ranks.append(np.argsort(np.argsort(distance, kind="stable"), kind="stable"))
    return np.asarray(np.mean(ranks, axis=0))


def _blur(path: str, target: Path) -> str:
    with Image.open(path) as image:
        flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
        flat.filter(ImageFilter.GaussianBlur(BLUR * image.width)).save(target)
    return str(target)


def _shuffle(word: str, rng: np.random.Generator) -> str:
    return "".join(rng.permutation(list(word)))


def _draw(axes: Sequence[Any], report: dict[str, Any]) -> None:
    common.bars(axes[0], report["excess"], "MultiMem above untouched rows, in deviations of those")
    common.bars(axes[1], report["t5_change"], "change of held-out T@5 against clean rows in their place")
    axes[0].set_title("What is memorized")
    axes[1].set_title("What costs retrieval")
    axes[1].locator_params(axis="x", nbins=4)


if __name__ == "__main__":
    main()
