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
LEAST_SIDE = 512  # to which large JPEGs are reduced for encoders, which take 448 pixels at most
READING = f"jpeg{LEAST_SIDE}"  # part of an image encoder's key: images that are read differently have other features
MARGIN = 0.1  # of a box's width and height, on each side: the surroundings help to recognize an object
_SEPARATOR = "\0"  # between a path, which cannot contain it, and a box


def crop_of(path: str, box: Sequence[float]) -> str:
    """The value that stands for an object in an image; it is read as the object's box with a small margin.

    `box` is left, top, width, height, as shares of the upright image's width and height.
    """
    return f"{path}{_SEPARATOR}{','.join(f'{side:.6f}' for side in box)}"


def image_digest(value: str) -> str:
    """sha256 (hex) of a file's bytes, or of these and the box of an object in the image."""
    path, box = _path_and_box(value)
    digest = file_digest(path)
    return hashlib.sha256(f"{digest} {box} {MARGIN}".encode()).hexdigest() if box else digest


def read_image(path: str, least: int | None = None) -> Image.Image:
    """The image, or its first frame, as upright RGB: transparency on white, 16 bits scaled (not clipped) to 8.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where both sides keep `least` pixels: many times faster.
    """
    from PIL import ImageOps

    with opened(path) as image:
        if least:
            image.draft(None, (least, least))
        return flatten(ImageOps.exif_transpose(image))


def read_image_or_crop(value: str) -> Image.Image:
    """As encoders take it: the image of a path, reduced if it is large, or the object of a value from `crop_of`."""
    path, box = _path_and_box(value)
    image = read_image(path, None if box else LEAST_SIDE)
    return image.crop(_box_pixels(box, image.width, image.height)) if box else image


def _path_and_box(value: str) -> tuple[str, tuple[float, ...]]:
    """(path, box); the box is empty where the value is the path of an image."""
    path, separator, sides = value.partition(_SEPARATOR)
    if not separator:
        return path, ()
    try:
        left, top, width, height = map(float, sides.split(","))
    except ValueError as error:
        raise MediaError("path or bounding box is not valid") from error
    return path, (left, top, width, height)


def _box_pixels(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the box with its margin, within the image, at least one pixel.

    Raises:
        MediaError: the box has no area, or lies outside the image.
    """
    x, y, box_width, box_height = box
    if not all(map(math.isfinite, box)) or box_width <= 0 or box_height <= 0:
        raise MediaError("bounding box has no area")
    if x >= 1 or y >= 1 or x + box_width <= 0 or y + box_height <= 0:
        raise MediaError("bounding box lies outside the image")
    left, right = _side_pixels(x, box_width, width)
    top, bottom = _side_pixels(y, box_height, height)
    return left, top, right, bottom


def _side_pixels(start: float, length: float, pixels: int) -> tuple[int, int]:
    """First pixel and the one after the last of an interval (shares of a side of the image) with its margin."""
    with_margin = max(0.0, start - MARGIN * length), min(1.0, start + (1 + MARGIN) * length)
    first = min(round(with_margin[0] * pixels), pixels - 1)
    return first, max(round(with_margin[1] * pixels), first + 1)


@contextlib.contextmanager
def opened(path: str, formats: tuple[str, ...] | None = None, kind: str = "image") -> Iterator[Image.Image]:
    """An open image whose size, checked before any pixel is decoded, is within the limit; errors are `MediaError`s."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; the limit is checked here
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
        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        brightest = float(values.max())
        white = 65535.0 if image.mode.startswith("I") else brightest or 1.0
        image = Image.fromarray(np.clip(values / max(white, brightest) * 255, 0, 255).astype(np.uint8))
    elif image.mode == "P" or "A" in image.getbands() or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")
