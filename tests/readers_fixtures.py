"""Folders and files as readers take them, and what they read, in short."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from audit_plugin.arrays import Samples

BOXED = {"image": "image", "text": "label"}


def picture(path: Path, width: int = 40, height: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (width % 256, height % 256, 7)).save(path)
    return path


def write(path: Path, content: object) -> Path:
    """A text, or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def pairs(samples: Samples) -> dict[str, tuple[str | None, str | None]]:
    """Id -> (image, text)."""
    return dict(zip(samples.ids, zip(samples.media["image"], samples.media["text"], strict=True), strict=True))


def voc(name: str, objects: Sequence[tuple[str, tuple[float, float, float, float]]], size: str = "") -> str:
    size = size or "<size><width>40</width><height>20</height></size>"
    boxes = "".join(
        f"<object><name>{label}</name><part><name>hand</name></part><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for label, (a, b, c, d) in objects
    )
    return f"<annotation><folder>x</folder><filename>{name}</filename>{size}{boxes}</annotation>"
