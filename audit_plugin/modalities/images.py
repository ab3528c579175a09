"""Reading still images, and animated ones frame by frame."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .media import MediaError, damaged

if TYPE_CHECKING:
    from PIL import Image

MAX_MEGAPIXELS = 100


def read_image(path: str) -> Image.Image:
    """First frame as RGB, upright, transparency laid on white, 16 bits scaled (not clipped) to 8."""
    from PIL import ImageOps

    with opened(path) as image:
        return flatten(ImageOps.exif_transpose(image))


@contextlib.contextmanager
def opened(path: str, formats: tuple[str, ...] | None = None, kind: str = "image") -> Iterator[Image.Image]:
    """An image whose size is within the limit, before any pixel is decoded; what decoders raise is a `MediaError`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here
            with Image.open(path, formats=formats) as image:
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
