"""Rows whose features are cached: audits of them run the whole pipeline and need no encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from audit_plugin.arrays import Samples
from audit_plugin.audit.result import AuditResult
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.offline import IDENTITIES
from audit_plugin.inputs.files import file_digest, text_digest
from audit_plugin.store import FeatureCache
from tests.core_fixtures import unit

QUICK = AuditConfig(encoder="offline", trials=4, epochs=4)
SWAPPED = 12
TRAINED = ("misalignment", "misalignment_image_text", "probability", "multimem", "multimem_stderr", "alignment")

COLORS = ["red", "green", "blue", "yellow", "black", "white", "purple", "orange"]
SHAPES, GROUNDS = ["circle", "square", "triangle", "cross"], ["grey", "pink", "brown", "cyan"]


def encoded_rows(folder: Path, n: int) -> tuple[Path, Samples]:
    """(a cache of features made from one hidden vector per row, the rows). The first 12 captions are swapped in pairs.

    The images are files of one pixel: their contents differ, their features are those of the cache.
    """
    rng = np.random.default_rng(2)
    hidden = rng.standard_normal((n, 8))
    paths, texts = [str(folder / f"{row}.png") for row in range(n)], [f"the text of row {row}" for row in range(n)]
    for row, path in enumerate(paths):
        Image.new("RGB", (1, 1), (row % 256, row // 256, 0)).save(path)
    digests = {"image": [file_digest(p) for p in paths], "text": [text_digest(t) for t in texts]}
    for name, keys in digests.items():
        seen = unit(hidden @ rng.standard_normal((8, 24)) + 0.5 * rng.standard_normal((n, 24)))
        FeatureCache(IDENTITIES[name].key, folder / "cache" / "features").append(dict(zip(keys, seen, strict=True)))
    for row in range(0, SWAPPED, 2):
        texts[row], texts[row + 1] = texts[row + 1], texts[row]
    return folder / "cache", Samples(tuple(f"s{r}" for r in range(n)), {"image": tuple(paths), "text": tuple(texts)})


def rows_of(samples: Samples, rows: Sequence[int]) -> Samples:
    """The same samples, these rows only, in this order."""
    return Samples(
        tuple(samples.ids[r] for r in rows), {m: tuple(v[r] for r in rows) for m, v in samples.media.items()}
    )


def cells(result: AuditResult, ids: Sequence[str] | None = None) -> dict[tuple[str, str], bytes]:
    """(column, id) -> its bytes, for rows whose ids are distinct."""
    chosen = set(result.ids if ids is None else ids)
    return {
        (name, i): repr(v).encode() if values.dtype == object else v.tobytes()
        for name, values in result.columns.items()
        for i, v in zip(result.ids, values, strict=True)
        if i in chosen
    }


def auroc(score: np.ndarray, bad: np.ndarray) -> float:
    """Share of pairs of a bad and a good row in which the bad one scores higher."""
    return float((score[bad][:, None] > score[~bad][None]).mean())


def draw(path: Path, row: int) -> str:
    """Draws one of 128 pictures; returns what it shows."""
    color, shape, ground = COLORS[row % 8], SHAPES[row // 8 % 4], GROUNDS[row // 32 % 4]
    image = Image.new("RGB", (64, 64), ground)
    pen = ImageDraw.Draw(image)
    x, y = 8 + row % 5, 8 + row % 7
    box = (x, y, x + 40, y + 40)
    if shape == "circle":
        pen.ellipse(box, fill=color)
    elif shape == "square":
        pen.rectangle(box, fill=color)
    elif shape == "triangle":
        pen.polygon([(x, y + 40), (x + 40, y + 40), (x + 20, y)], fill=color)
    else:
        pen.line(box, fill=color, width=9)
        pen.line((x, y + 40, x + 40, y), fill=color, width=9)
    image.save(path)
    return f"a {color} {shape} on a {ground} background"
