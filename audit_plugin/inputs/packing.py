"""How a medium travels from the process that decodes it: a small header in JSON, and its numbers as plain bytes.

The sender may have been taken over by a hostile file. So nothing is unpickled, and every number is checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .audio import MAX_PIECES, MAX_SECONDS, RATE, Sound
from .images import FULL_SIZE, MAX_MEGAPIXELS, MAX_SIDE, strips
from .video import FRAMES

if TYPE_CHECKING:
    from PIL import Image

Medium = Any  # an RGB image, a list of them, or a Sound
MAX_BODY = round(3e6 * MAX_MEGAPIXELS)  # more than eight frames of a video, or 100 s of sound


def packed(medium: Medium) -> tuple[dict[str, Any], Iterator[bytes]]:
    """(header, the bytes that follow it)."""
    if isinstance(medium, Sound):
        header = {"lengths": [len(piece) for piece in medium.pieces], "seconds": medium.seconds}
        return {**header, "bytes": 4 * sum(map(len, medium.pieces))}, (piece.tobytes() for piece in medium.pieces)
    images = medium if isinstance(medium, list) else [medium]
    sizes = [list(image.size) for image in images]
    body = (strip.tobytes() for image in images for _, strip in strips(image))
    return {
        "sizes": sizes,
        "full_sizes": [list(image.info.get(FULL_SIZE, image.size)) for image in images],
        "is_list": isinstance(medium, list),
        "bytes": sum(3 * width * height for width, height in sizes),
    }, body


def unpacked(header: Mapping[str, Any], body: bytearray) -> Medium:
    """The medium that was packed.

    Raises:
        ValueError: the header does not fit the body, or any limit.
    """
    if "lengths" in header:
        return _sound(header["lengths"], header["seconds"], body)
    images = _images(header["sizes"], body)
    for image, (width, height) in zip(images, header["full_sizes"], strict=True):
        image.info[FULL_SIZE] = _number(width, MAX_SIDE), _number(height, MAX_SIDE)
    return images if header["is_list"] else images[0]


def body_size(header: Mapping[str, Any]) -> int:
    """The number of bytes that follow a header.

    Raises:
        ValueError: no such number, or one above the limit.
    """
    return _number(header.get("bytes", 0), MAX_BODY)


def _number(value: object, most: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is not a number from 0 to {most}")
    return value


def _sound(lengths: Any, seconds: Any, body: bytearray) -> Sound:
    longest = math.ceil(MAX_SECONDS * RATE) + 1
    counts = [_number(length, longest) for length in lengths]
    values = np.frombuffer(body, np.float32)
    if not 0 < len(counts) <= MAX_PIECES or sum(counts) != len(values) or not min(counts):
        raise ValueError(f"{len(values)} samples are not the {counts} that were named")
    pieces = np.split(values, np.cumsum(counts)[:-1])
    if not math.isfinite(float(seconds)) or not np.isfinite(values).all():
        raise ValueError("sound is not finite")
    return Sound(tuple(pieces), float(seconds))


def _images(sizes: Any, body: bytearray) -> list[Image.Image]:
    from PIL import Image

    if not 0 < len(sizes) <= FRAMES:
        raise ValueError(f"{len(sizes)} images")
    images, at = [], 0
    for width, height in sizes:
        size = _number(width, MAX_BODY), _number(height, MAX_BODY)
        end = at + 3 * size[0] * size[1]
        if not at < end <= len(body):
            raise ValueError(f"{len(body)} bytes are not the {sizes} that were named")
        images.append(Image.frombytes("RGB", size, memoryview(body)[at:end]))
        at = end
    if at != len(body):
        raise ValueError(f"{len(body)} bytes are not the {sizes} that were named")
    return images
