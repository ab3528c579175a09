"""Images of more than 8 bits a value (X-ray, thermal, depth, CT, raw photographs) as 8 bits, by the range in use.

Black and white are chosen for each image from its finite values, without the lowest and the highest 0.1 % (dead
pixels, burnt-in marks), in this order:

1. Values from 0 on that fit into 8, 9, ... or 16 bits, or lie between 0 and 1, and use at least a quarter of that
   range: black is 0, white the largest value of so many bits. So 12 bits in a 16-bit file look as 8 bits would, and
   what uses all 16 bits is divided by 65,535. Brighter and darker images of one set stay apart.
2. All others (negative values, a narrow band far from 0): black is the lowest, white the highest value.
3. A single value that fits no such range is mid-gray.

NaN becomes black, infinite values black and white. Colors and their 16 bits share one range, so that hues stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

STRAY = 0.001  # of the values, at either end, that have no say in the range
LEAST_USED = 0.25  # of the range of so many bits
WHITES = (1, *(2**bits - 1 for bits in range(8, 17)))
ALL_VALUES = 1 << 16  # of 16 bits
SAMPLED = 1 << 22  # values from which the range is taken, evenly spaced
STRIP_VALUES = 1 << 22  # scaled at once
PADDING = 256  # pixels a side that FFmpeg may add before it compares with its limit
ORIENTATION = 0x0112  # EXIF's tag of how the camera was held
CODECS = {"PNG": "png", "TIFF": "tiff"}  # FFmpeg's names, by Pillow's, of formats whose 16-bit colors it keeps


def is_deep(image: Image.Image) -> bool:
    """Whether an image has one value a pixel, of more than 8 bits: modes I, I;16 and F."""
    return image.mode.startswith(("I", "F"))


def has_deep_colors(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has colors of 16 bits, of which Pillow gives the high bytes alone."""
    tiles: Any = getattr(image, "tile", ())
    arguments = [tile[3] for tile in tiles]
    raw_modes = [raw[0] if isinstance(raw, tuple) else raw for raw in arguments if raw]
    return image.format in CODECS and not is_deep(image) and any(";16" in str(raw) for raw in raw_modes)


def deep_colors(image: Image.Image, data: bytes) -> Image.Image | None:
    """RGB or RGBA of a file with colors of 16 bits, by the range in use; None where Pillow's high bytes are that.

    Args:
        image: as Pillow opened it.
        data: the bytes of its file.
    """
    from PIL import Image

    counts = np.reshape(image.convert("RGB").histogram(), (3, 256)).sum(0)
    shares = np.cumsum(counts) / counts.sum()
    low, high = np.searchsorted(shares, [STRAY, 1 - STRAY])
    if high - low >= LEAST_USED * 255:
        return None
    values = _sixteen_bits(image, data)
    if values is None:
        return None
    colors, opacity = values[..., :3], values[..., 3:]
    rows = max(1, STRIP_VALUES // (3 * values.shape[1]))
    strips = [slice(top, top + rows) for top in range(0, len(values), rows)]
    black, white = value_range((colors[strip] for strip in strips), colors.size)
    opaque = next(float(white) for white in WHITES if opacity.max(initial=0) <= white)
    out = np.empty(values.shape, np.uint8)
    for strip in strips:
        out[strip, :, :3] = to_eight_bits(colors[strip], black, white)
        out[strip, :, 3:] = to_eight_bits(opacity[strip], 0, opaque)
    flat = Image.fromarray(out)
    flat.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
    return flat


def _sixteen_bits(image: Image.Image, data: bytes) -> NDArray[np.uint16] | None:
    """uint16 `[height, width, 3 or 4]` as FFmpeg decodes the file; None where it does not."""
    import av

    codec: Any = av.CodecContext.create(CODECS[image.format or ""], "r")
    codec.thread_count = 1
    codec.options = {"max_pixels": str((image.width + PADDING) * (image.height + PADDING))}
    try:
        frame = next(frame for packet in (av.Packet(data), None) for frame in codec.decode(packet))
        has_alpha = any(part.is_alpha for part in frame.format.components)
        values = frame.reformat(format="rgba64le" if has_alpha else "rgb48le").to_ndarray()
    except (av.FFmpegError, StopIteration, ValueError):
        return None
    return values if values.shape[:2] == (image.height, image.width) else None


def value_range(parts: Iterable[NDArray[Any]], total: int) -> tuple[float, float]:
    """(black, white) of `total` values that come in parts of any shape."""
    step = max(1, total // SAMPLED)
    sampled = [part.reshape(-1)[::step].astype(np.float64) for part in parts]
    values = np.concatenate([np.zeros(0), *(part[np.isfinite(part)] for part in sampled)])
    if not len(values):
        return 0.0, 1.0
    low = float(np.quantile(values, STRAY, method="lower"))
    high = float(np.quantile(values, 1 - STRAY, method="higher"))
    if low == high:  # a few pixels on a plain ground
        low, high = float(values.min()), float(values.max())
    white = next((white for white in WHITES if high <= white), None)
    if low >= 0 and white and (low == high or high - low >= LEAST_USED * white):
        return 0.0, float(white)
    return (low, high) if low < high else (low - 1, low + 1)


def to_eight_bits(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    """uint8 of the same shape: `(value - black) / (white - black) * 255`, cut to whole numbers within 0 and 255."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2 and values.size > ALL_VALUES:
        table = to_eight_bits(np.arange(ALL_VALUES), black, white)  # several times faster for many pixels
        looked_up: NDArray[np.uint8] = table[values]
        return looked_up
    finite = np.nan_to_num(values.astype(np.float64), nan=black, posinf=white, neginf=black)
    scaled: NDArray[np.uint8] = np.clip((finite - black) * 255 / (white - black), 0, 255).astype(np.uint8)
    return scaled
