"""Reading still images, and animated ones frame by frame."""

from __future__ import annotations

import contextlib
import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .files import MediaError, damaged, file_digest, open_medium

if TYPE_CHECKING:
    from PIL import Image

MAX_MEGAPIXELS = 100
LEAST_SIDE = 512  # of what is decoded of a large JPEG for an encoder: these take 448 pixels at most
READING = f"jpeg{LEAST_SIDE}"  # part of an image encoder's key: features of media read otherwise are others
MARGIN = 0.1  # of a box's width and height, on each side: what an object is often shows at its rim
_CUT = "\0"  # between a path, which cannot hold it, and a box


def crop_of(path: str, box: Sequence[float]) -> str:
    """The value of an object in an image: read like any other, it gives the object's box with a small margin.

    Args:
        path: the image.
        box: left, top, width, height, as shares of the upright image's width and height.
    """
    return f"{path}{_CUT}{','.join(f'{side:.6f}' for side in box)}"


def image_digest(value: str) -> str:
    """sha256 (hex) of a file's bytes, or of these and the box of an object in it."""
    path, box = _parted(value)
    digest = file_digest(path)
    return hashlib.sha256(f"{digest} {box} {MARGIN}".encode()).hexdigest() if box else digest


def read_image(path: str, least: int | None = None) -> Image.Image:
    """First frame as RGB, upright, transparency laid on white, 16 bits scaled (not clipped) to 8.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where both sides keep `least` pixels: many times faster.
    """
    from PIL import ImageOps

    with opened(path) as image:
        if least:
            image.draft(None, (least, least))
        return flatten(ImageOps.exif_transpose(image))


def read_whole_or_crop(value: str) -> Image.Image:
    """For encoders: the image of a path, a large one reduced, or the object that `crop_of` names."""
    path, box = _parted(value)
    image = read_image(path, None if box else LEAST_SIDE)
    return image.crop(_pixels(box, image.width, image.height)) if box else image


def _parted(value: str) -> tuple[str, tuple[float, ...]]:
    """(path, box), the box empty for a whole image."""
    path, cut, sides = value.partition(_CUT)
    try:
        box = tuple(float(side) for side in sides.split(",")) if cut else ()
    except ValueError:
        box = (0.0,)
    if len(box) not in (0, 4):
        raise MediaError("path or bounding box is not valid")
    return path, box


def _pixels(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the box with its margin, within the image, at least one pixel.

    Raises:
        MediaError: the box has no area, or lies outside the image.
    """
    left, top, wide, high = box
    if not all(map(math.isfinite, box)) or wide <= 0 or high <= 0:
        raise MediaError("bounding box has no area")
    if left >= 1 or top >= 1 or left + wide <= 0 or top + high <= 0:
        raise MediaError("bounding box lies outside the image")
    near = [max(0.0, start - MARGIN * side) for start, side in ((left, wide), (top, high))]
    far = [min(1.0, start + (1 + MARGIN) * side) for start, side in ((left, wide), (top, high))]
    x, y = (min(round(start * size), size - 1) for start, size in zip(near, (width, height), strict=True))
    right, bottom = (round(end * size) for end, size in zip(far, (width, height), strict=True))
    return x, y, max(right, x + 1), max(bottom, y + 1)


@contextlib.contextmanager
def opened(path: str, formats: tuple[str, ...] | None = None, kind: str = "image") -> Iterator[Image.Image]:
    """An image whose size is within the limit, before any pixel is decoded; what decoders raise is a `MediaError`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here
            with open_medium(path) as file, Image.open(file, formats=formats) as image:
                check_size(image.width, image.height, kind)
                yield image
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError("not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise MediaError(f"{kind} is over the limit of {MAX_MEGAPIXELS} megapixels") from error
    except FileNotFoundError as error:
        raise MediaError("file not found") from error
    except Exception as error:  # decoders raise anything on hostile bytes; one bad file must not end the run
        raise damaged(kind, error) from error


def check_size(width: int, height: int, kind: str = "image") -> None:
    """Raises `MediaError` above `MAX_MEGAPIXELS`."""
    megapixels = width * height / 1e6
    if megapixels > MAX_MEGAPIXELS:
        raise MediaError(f"{kind} has {megapixels:.0f} megapixels, the limit is {MAX_MEGAPIXELS}")


def flatten(image: Image.Image) -> Image.Image:
    """RGB of any mode: transparency laid on white, 16 bits and floats scaled."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        return _scale_to_8_bits(image)
    if image.mode == "P" or "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    top = 65535.0 if image.mode.startswith("I") else float(values.max()) or 1.0
    grey = np.clip(values / max(top, float(values.max())) * 255, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
