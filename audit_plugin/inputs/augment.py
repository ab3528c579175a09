"""Augmented views: the same medium, seen a little differently. Each is a function of the medium and a generator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .audio import Sound

if TYPE_CHECKING:
    from PIL import Image

WORD_DROPOUT = 0.15
SMALLEST_CROP = 0.6  # of the area
JITTER = 0.2
SHIFT = 0.1  # of the duration
NOISE_DB = (20.0, 30.0)
GAIN_DB = 6.0


def augment_image(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Random resized crop, mirrored half of the time, with a little change of brightness, contrast and color."""
    return augment_video([image], rng)[0]


def augment_video(frames: list[Image.Image], rng: np.random.Generator) -> list[Image.Image]:
    """One crop, mirroring and change of color for all frames, as of `augment_image`."""
    area, aspect = rng.uniform(SMALLEST_CROP, 1), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    left, top = rng.uniform(size=2)
    mirrored = rng.uniform() < 0.5
    factors = rng.uniform(1 - JITTER, 1 + JITTER, 3)
    return [_seen(frame, area, aspect, (left, top), mirrored, factors) for frame in frames]


def _seen(
    image: Image.Image, area: float, aspect: float, corner: tuple[float, float], mirrored: bool, factors: np.ndarray
) -> Image.Image:
    from PIL import ImageEnhance, ImageOps

    pixels = area * image.width * image.height
    width = min(image.width, max(1, round(math.sqrt(pixels * aspect))))
    height = min(image.height, max(1, round(math.sqrt(pixels / aspect))))
    left, top = round(corner[0] * (image.width - width)), round(corner[1] * (image.height - height))
    view: Image.Image = image.crop((left, top, left + width, top + height))
    view = ImageOps.mirror(view) if mirrored else view
    for enhance, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
    ):
        view = enhance(view).enhance(float(factor))
    return view


def augment_text(text: str, rng: np.random.Generator) -> str:
    """The text without a random part of its words; at least one stays, and a single word stays as it is."""
    words = text.split()
    if len(words) < 2:
        return text
    kept = rng.uniform(size=len(words)) >= WORD_DROPOUT
    kept[rng.integers(len(words))] |= not kept.any()
    return " ".join(word for word, stays in zip(words, kept, strict=True) if stays)


def augment_audio(sound: Sound, rng: np.random.Generator) -> Sound:
    """Rolled by up to a tenth, with white noise 20 to 30 dB below the signal, louder or softer by up to 6 dB."""
    shift, noise_db = rng.uniform(-SHIFT, SHIFT), rng.uniform(*NOISE_DB)
    gain = 10 ** (rng.uniform(-GAIN_DB, GAIN_DB) / 20)
    pieces = []
    for piece in sound.pieces:
        power = float(np.mean(np.square(piece), dtype=np.float64))
        noise = rng.standard_normal(len(piece)) * math.sqrt(power / 10 ** (noise_db / 10))
        pieces.append(((np.roll(piece, round(shift * len(piece))) + noise) * gain).astype(np.float32))
    return Sound(tuple(pieces), sound.seconds)
