"""Images that a program holds, as PNG: PIL images, arrays and tensors."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

CHANNELS = (1, 3, 4)  # gray, RGB, RGBA
AS_THEY_ARE = ("1", "L", "LA", "RGB", "RGBA", "I;16")  # modes that PNG has
WITHOUT_COLORS = ("I", "F", "I;16B", "I;16L", "I;16N")  # whose numbers are checked as those of an array are


def is_pixels(value: object) -> bool:
    """Whether a value is a PIL image, an array or a tensor."""
    return _is_pil(value) or hasattr(value, "__array__")


def png_of(value: Any) -> bytes:
    """The image as PNG, upright, equal bytes for equal pixels.

    Args:
        value: a PIL image, or an array or tensor `[h, w]`, `[h, w, c]` or `[c, h, w]` with 1, 3 or 4 channels: bool,
            uint8, uint16, other whole numbers from 0 to 255, or floats from 0 to 1.

    Raises:
        ValueError: why this is not an image.
    """
    from PIL import Image, ImageOps

    if _is_pil(value):
        image = ImageOps.exif_transpose(value)
        if image.mode in WITHOUT_COLORS:
            image = _image_of(np.asarray(image))
        elif image.mode not in AS_THEY_ARE:
            has_transparency = image.mode == "PA" or "transparency" in image.info
            image = image.convert("RGBA" if has_transparency else "RGB")
    else:
        image = _image_of(_array_of(value))
    bare = Image.new(image.mode, image.size)  # without the comments and profiles of the file that it came from
    bare.paste(image)
    out = io.BytesIO()
    bare.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _is_pil(value: object) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def _array_of(value: Any) -> NDArray[Any]:
    """An array or tensor, on whatever device, with the channels last."""
    is_tensor = hasattr(value, "detach")
    array = np.asarray(value.detach().cpu() if is_tensor else value)
    if array.ndim == 3 and array.shape[0] in CHANNELS and (is_tensor or array.shape[2] not in CHANNELS):
        array = np.moveaxis(array, 0, 2)
    return array


def _image_of(array: NDArray[Any]) -> Image.Image:
    from PIL import Image

    shape = " x ".join(map(str, array.shape))
    if array.ndim == 4:
        raise ValueError(f"an array of {shape}, which is a batch or a video; give one image a row")
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in CHANNELS):
        raise ValueError(
            f"an array of {shape or 'one number'}; an image is [h, w] or [h, w, c] with 1, 3 or 4 channels"
        )
    pixels = _whole_numbers(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        pixels = (pixels >> 8).astype(np.uint8)  # PNG has colors of 16 bits, Pillow does not
    return Image.fromarray(np.ascontiguousarray(pixels))


def _whole_numbers(array: NDArray[Any]) -> NDArray[Any]:
    """The pixels as uint8 or uint16."""
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype.kind not in "fiu":
        raise ValueError(f"an array of {array.dtype}; pixels are numbers")
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "f":
        if not (low >= 0 and high <= 1):  # NaN included
            raise ValueError(
                f"an array of floats from {low:.4g} to {high:.4g}; pixels as floats lie between 0 and 1, before they "
                "are normalized for a model"
            )
        return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if low < 0 or high > 65_535:
        raise ValueError(
            f"an array of {array.dtype} from {low:.0f} to {high:.0f}; pixels lie between 0 and 255 or 65535"
        )
    return array.astype(np.uint8 if high <= 255 else np.uint16)
