"""The table of modalities: how each medium is named, checked and read. A new modality is one entry here.

Readers raise `MediaError` with a short reason; the pipeline records it for that row and goes on with the rest.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

MAX_MEGAPIXELS = 100
_CHUNK = 1 << 20


class MediaError(Exception):
    """One medium cannot be used; the message is the reason that the user reads in `failure`."""


@dataclass(frozen=True)
class Modality:
    """One kind of medium.

    Attributes:
        name: its word in columns, options and fields.
        is_text: values are texts, not paths; near-duplicates are sought in the other modalities only.
        digest: value -> sha256 (hex) of the content, the key of every cache.
        read: value -> what encoders take (`PIL.Image` in RGB, or the text).
    """

    name: str
    is_text: bool
    digest: Callable[[str], str]
    read: Callable[[str], Any]


def file_digest(path: str) -> str:
    """sha256 (hex) of a file's bytes."""
    try:
        if os.path.getsize(path) == 0:
            raise MediaError("file is empty (0 bytes)")
        sha = hashlib.sha256()
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                sha.update(chunk)
    except FileNotFoundError as error:
        raise MediaError("file not found") from error
    except IsADirectoryError as error:
        raise MediaError("is a folder, not a file") from error
    except OSError as error:
        raise MediaError(f"file cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a path with a null character
        raise MediaError("path is not valid") from error
    return sha.hexdigest()


def text_digest(text: str) -> str:
    """sha256 (hex) of a text."""
    if not text.strip():
        raise MediaError("text is empty")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_text(text: str) -> str:
    """The text without surrounding white space; lone surrogates become replacement characters."""
    return text.strip().encode("utf-8", "replace").decode("utf-8")


def read_image(path: str) -> Image.Image:
    """First frame as RGB, upright, transparency laid on white, 16 bits scaled (not clipped) to 8."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size is checked here, before any pixel is decoded
            with Image.open(path) as image:
                megapixels = image.width * image.height / 1e6
                if megapixels > MAX_MEGAPIXELS:
                    raise MediaError(f"image has {megapixels:.0f} megapixels, the limit is {MAX_MEGAPIXELS}")
                return _flatten(ImageOps.exif_transpose(image))
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError("not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise MediaError(f"image is over the limit of {MAX_MEGAPIXELS} megapixels") from error
    except FileNotFoundError as error:
        raise MediaError("file not found") from error
    except Exception as error:  # decoders raise anything on hostile bytes; one bad file must not end the run
        raise MediaError(f"image is damaged ({type(error).__name__}: {str(error)[:80]})") from error


def _flatten(image: Image.Image) -> Image.Image:
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


MODALITIES: dict[str, Modality] = {
    "image": Modality("image", is_text=False, digest=file_digest, read=read_image),
    "text": Modality("text", is_text=True, digest=text_digest, read=read_text),
}
