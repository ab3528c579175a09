"""Augmented views: slightly different forms of the same medium, drawn from a generator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .audio import Sound

if TYPE_CHECKING:
    from PIL import Image

WORD_DROPOUT = 0.15
SMALLEST_CROP = 0.6  # of the area
JITTER = 0.2  # of brightness, contrast and color
SHIFT = 0.1  # of the duration
NOISE_DB = (20.0, 30.0)
GAIN_DB = 6.0


def augment_image(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random crop, mirrored half of the time, with a slight change of brightness, contrast and color."""
    return augment_video([image], rng)[0]


def augment_video(frames: list[Image.Image], rng: np.random.Generator) -> list[Image.Image]:
    """The same crop, mirroring and change of color for all frames, as in `augment_image`."""
    from PIL import ImageEnhance, ImageOps

    area = rng.uniform(SMALLEST_CROP, 1)
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    left, top = rng.uniform(size=2)
    mirrored = rng.uniform() < 0.5
    factors = rng.uniform(1 - JITTER, 1 + JITTER, 3)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    views = []
    for frame in frames:
        view = _crop(frame, area, aspect, (left, top))
        if mirrored:
            view = ImageOps.mirror(view)
        for enhancer, factor in zip(enhancers, factors, strict=True):
            view = enhancer(view).enhance(float(factor))
        views.append(view)
    return views


def _crop(image: Image.Image, area: float, aspect: float, corner: tuple[float, float]) -> Image.Image:
    """A part of the image: its share of the area, width / height, and its place as shares of the free space."""
    pixels = area * image.width * image.height
    width = min(image.width, max(1, round(math.sqrt(pixels * aspect))))
    height = min(image.height, max(1, round(math.sqrt(pixels / aspect))))
    left = round(corner[0] * (image.width - width))
    top = round(corner[1] * (image.height - height))
    return image.crop((left, top, left + width, top + height))


def augment_text(text: str, rng: np.random.Generator) -> str:
    """The text without a random part of its words; at least one remains, and a single word is not changed."""
    words = text.split()
    if len(words) < 2:
        return text
    remains = rng.uniform(size=len(words)) >= WORD_DROPOUT
    remains[rng.integers(len(words))] |= not remains.any()
    return " ".join(word for word, stays in zip(words, remains, strict=True) if stays)


def augment_audio(sound: Sound, rng: np.random.Generator) -> Sound:
    """Rolled by up to a tenth, with white noise 20 to 30 dB below the signal, louder or softer by up to 6 dB."""
    shift = rng.uniform(-SHIFT, SHIFT)
    noise_db = rng.uniform(*NOISE_DB)
    gain = 10 ** (rng.uniform(-GAIN_DB, GAIN_DB) / 20)
    pieces = []
    for piece in sound.pieces:
        power = float(np.mean(np.square(piece), dtype=np.float64))
        noise = rng.standard_normal(len(piece)) * math.sqrt(power / 10 ** (noise_db / 10))
        rolled = np.roll(piece, round(shift * len(piece)))
        pieces.append(((rolled + noise) * gain).astype(np.float32))
    return Sound(tuple(pieces), sound.seconds)
