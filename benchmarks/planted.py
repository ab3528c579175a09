"""Sets with planted outliers, copies, conflicts and placeholders: real or drawn pictures, faults at known rows."""

from __future__ import annotations

import hashlib
import io
import json
import random
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from audit_plugin.inputs.images import flatten, read_image
from benchmarks.data import DATA, SOURCES, fetch

PHOTOS = 30  # crops of photographs
NOISES = 20
GIBBERISH = 20  # of each of two kinds
COPIES = 60  # of each of: repeats with their own caption, repeats with another row's
PLACEHOLDERS = 20
CAPTIONS = 5
PERSONS = 800
WAYS = ("exact", "re-encoded", "resized", "brightened", "cropped")


@dataclass(frozen=True)
class PlantedRow:
    """One sample: `image` is a file, or PNG bytes that were made; `fault` what was planted, of row `source`."""

    id: str
    image: Path | bytes
    captions: tuple[str, ...]
    fault: str = ""
    source: str = ""


def emoji(vendor: str) -> list[PlantedRow]:
    """The clean set of one vendor."""
    folder = fetch(vendor, DATA)
    return [PlantedRow(p.id, folder / p.image, (p.caption,)) for p in SOURCES[vendor].read(folder)]


def persons(out: Path, captions: int = 1, count: int = PERSONS) -> list[PlantedRow]:
    """Drawn persons with so many descriptions each, none of them wrong."""
    from audit_plugin.synthetic.persons import SIDE, draw_persons, person_svg
    from audit_plugin.synthetic.render import draw_all
    from audit_plugin.synthetic.sentences import describe

    rng = random.Random(0)
    folder = out / "persons"
    rows, jobs = [], []
    for number, person in enumerate(draw_persons(count, rng)):
        path = folder / f"{number:04d}.png"
        rows.append(PlantedRow(f"p{number:04d}", path, tuple(describe(person, rng)[0] for _ in range(captions))))
        if not path.is_file():
            jobs.append((str(path), person_svg(person)))
    folder.mkdir(parents=True, exist_ok=True)
    draw_all(jobs, SIDE, lambda _done: None)
    return rows


def repeated(rows: list[PlantedRow]) -> set[str]:
    """Ids of rows whose picture stands in another row too, byte for byte: true copies of the set as it comes."""
    digests = [hashlib.sha256(row.image if isinstance(row.image, bytes) else row.image.read_bytes()).digest()
               for row in rows]  # fmt: skip
    count = Counter(digests)
    return {row.id for row, digest in zip(rows, digests, strict=True) if count[digest] > 1}


def plant_outliers(rows: list[PlantedRow], seed: int) -> list[PlantedRow]:
    """Photographs and noise in the place of pictures, gibberish in the place of captions; ids and order stay."""
    rng = np.random.default_rng(seed)
    side = read_image(str(rows[0].image)).width
    makers: list[tuple[str, int, Callable[[int], PlantedRow]]] = [
        ("photo", PHOTOS, lambda i: PlantedRow("", photo(i, side, rng), ())),
        ("noise", NOISES, lambda i: PlantedRow("", noise(i, side, rng), ())),
        ("letters", GIBBERISH, lambda _i: PlantedRow("", b"", (letters(rng),))),
        ("words", GIBBERISH, lambda _i: PlantedRow("", b"", (words(rng),))),
    ]
    out = list(rows)
    free = iter(rng.permutation(len(rows)).tolist())
    for fault, count, make in makers:
        for i in range(count):
            at, made = next(free), make(i)
            image, captions = made.image or out[at].image, out[at].captions
            if made.captions:
                captions = (*made.captions, *captions[1:])
            out[at] = replace(out[at], image=image, captions=captions, fault=fault)
    return out


def plant_copies(rows: list[PlantedRow], seed: int) -> list[PlantedRow]:
    """Copied pictures: with their own caption (`copy`), with another row's (`conflict`), and one card (`placeholder`).

    A copy takes the place of a row; each of `WAYS` has an equal share.
    """
    rng = np.random.default_rng(seed)
    out = list(rows)
    free = iter(rng.permutation(len(rows)).tolist())
    for fault in ("copy", "conflict"):
        for i in range(COPIES):
            at, of = next(free), next(free)
            made = altered(rows[of].image, WAYS[i % len(WAYS)])
            captions = rows[of].captions if fault == "copy" else (rows[at].captions[0], *rows[of].captions[1:])
            out[at] = replace(rows[at], image=made, captions=captions, fault=fault, source=rows[of].id)
    card = placeholder()
    for _ in range(PLACEHOLDERS):
        at = next(free)
        out[at] = replace(rows[at], image=card, fault="placeholder")
    return out


def photo(number: int, side: int, rng: np.random.Generator) -> bytes:
    """A crop, a quarter to a half as wide as the whole, of one of the photographs that scikit-learn carries."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    images = load_sample_images().images
    whole = Image.fromarray(images[number % len(images)])
    wide = int(rng.integers(whole.width // 4, whole.width // 2))
    x, y = int(rng.integers(0, whole.width - wide)), int(rng.integers(0, whole.height - wide))
    return png(whole.crop((x, y, x + wide, y + wide)).resize((side, side)))


def noise(number: int, side: int, rng: np.random.Generator) -> bytes:
    """Pixels that show nothing: uniform, grey, coarse, salt and pepper, or one color with a little grain."""
    from PIL import Image

    def uniform(size: int, *channels: int) -> np.ndarray:
        return rng.integers(0, 256, (size, size, *channels)).astype(np.uint8)

    coarse = np.asarray(Image.fromarray(uniform(6, 3)).resize((side, side), Image.Resampling.BICUBIC))
    makers = (
        lambda: uniform(side, 3),
        lambda: uniform(side, 1).repeat(3, axis=2),
        lambda: coarse,
        lambda: np.where(uniform(side, 1) > 127, 255, 0).astype(np.uint8).repeat(3, axis=2),
        lambda: np.clip(rng.integers(0, 256, 3) + rng.integers(-25, 26, (side, side, 3)), 0, 255).astype(np.uint8),
    )
    return png(Image.fromarray(makers[number % len(makers)]()))


def letters(rng: np.random.Generator) -> str:
    """A few strings of random lower-case letters."""
    alphabet = list(string.ascii_lowercase)
    return " ".join("".join(rng.choice(alphabet, rng.integers(3, 11))) for _ in range(rng.integers(1, 5)))


def words(rng: np.random.Generator) -> str:
    """A few English words that have nothing to do with each other or with pictures, from Python's own manual."""
    from pydoc_data.topics import topics

    known = sorted({w for text in topics.values() for w in text.lower().split() if w.isalpha() and len(w) > 3})
    return " ".join(rng.choice(known, rng.integers(2, 7)))


def altered(image: Path | bytes, way: str) -> bytes:
    """A copy that looks the same; all of `WAYS` but `exact` have other bytes."""
    from PIL import Image, ImageEnhance

    if way == "exact":
        return image if isinstance(image, bytes) else image.read_bytes()
    whole = flatten(Image.open(io.BytesIO(image))) if isinstance(image, bytes) else read_image(str(image))
    wide, high = whole.size
    if way == "re-encoded":
        packed = io.BytesIO()
        whole.save(packed, "JPEG", quality=95, subsampling=0)
        whole = Image.open(packed)
    elif way == "resized":
        whole = whole.resize((wide * 15 // 16, high * 15 // 16), Image.Resampling.BICUBIC)
    elif way == "brightened":
        whole = ImageEnhance.Brightness(whole).enhance(1.05)
    else:
        cut = max(1, wide // 100)
        whole = whole.crop((cut, cut, wide, high))
    return png(whole)


def placeholder() -> bytes:
    """The card of the demo."""
    from audit_plugin.synthetic.oddities import placeholder_png

    return placeholder_png()


def png(image: object) -> bytes:
    """Bytes of a PNG file."""
    packed = io.BytesIO()
    image.save(packed, "PNG")  # type: ignore[attr-defined]
    return packed.getvalue()


@dataclass(frozen=True)
class Written:
    """A manifest and what is true of it: id -> (fault, source)."""

    manifest: Path
    truth: dict[str, tuple[str, str]] = field(default_factory=dict)


def write(rows: list[PlantedRow], out: Path) -> Written:
    """`out/manifest.jsonl` (id, image, caption) with the made pictures beside it; one caption is a plain string."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "manifest.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            path = row.image
            if isinstance(path, bytes):
                path = out / f"{row.id}.png"
                path.write_bytes(row.image)  # type: ignore[arg-type]
            caption = list(row.captions) if len(row.captions) > 1 else row.captions[0]
            file.write(json.dumps({"id": row.id, "image": str(path.resolve()), "caption": caption}) + "\n")
    return Written(out / "manifest.jsonl", {row.id: (row.fault, row.source) for row in rows})
