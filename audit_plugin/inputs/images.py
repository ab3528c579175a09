"""Reading still images, and animated ones frame by frame."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .files import MediaError, damaged, file_digest, open_medium, unreadable
from .value_range import deep_colors, has_deep_colors, is_deep, to_eight_bits, value_range

if TYPE_CHECKING:
    from PIL import Image

MAX_MEGAPIXELS = 100
MAX_SIDE = 100_000  # pixels
MAX_IMAGE_BYTES = 1 << 30
STRIP_PIXELS = 1 << 22  # converted at once: what lies between the file and RGB is larger than both
# Pillow knows forty more, and starts Ghostscript for one of them.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
HEIF = "HEIF"  # read where `allow_heic` was called: in the processes that decode, and nowhere else
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
HEIC_NEEDS = 'HEIC images need the package pillow-heif; install it with: pip install "audit-plugin[heic]"'
LEAST_SIDE = 512  # to which large JPEGs are reduced for encoders, which take 448 pixels at most
READING = (
    f"jpeg{LEAST_SIDE}-range"  # part of an image encoder's key: images that are read differently have other features
)
FULL_SIZE = "full size"  # in `Image.info`: (width, height) of an image before it was reduced, or of a box
MARGIN = 0.1  # of a box's width and height, on each side: the surroundings help to recognize an object
_SEPARATOR = "\0"  # between a path, which cannot contain it, and a box
FAR = 1e6  # shares of an image, which no box is away from it
# Why a box shows nothing, as messages say it after "its box" or "bounding box"
NO_NUMBERS, NO_AREA, OUTSIDE = "holds values that no box has", "has no area", "lies outside of the image"


def crop_of(path: str, box: Sequence[float]) -> str:
    """The value that stands for an object in an image; it is read as the object's box with a small margin.

    `box` is left, top, width, height, as shares of the upright image's width and height.
    """
    return f"{path}{_SEPARATOR}{','.join(f'{side:.6f}' for side in box)}"


def image_digest(value: str) -> str:
    """sha256 (hex) of a file's bytes, or of these and the box of an object in the image."""
    path, box = path_and_box(value)
    digest = file_digest(path, MAX_IMAGE_BYTES)
    return hashlib.sha256(f"{digest} {box} {MARGIN}".encode()).hexdigest() if box else digest


def read_image(path: str, least: int | None = None) -> Image.Image:
    """The image, or its first frame, as upright RGB: transparency on white, more than 8 bits as `value_range` says.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where both sides keep `least` pixels: many times faster.
    """
    from PIL import ImageOps

    with opened(path) as image:
        full = image.size
        if least:
            image.draft(None, (least, least))
        whole = image
        if has_deep_colors(image):
            with open_medium(path, MAX_IMAGE_BYTES) as file:
                whole = deep_colors(image, file.read()) or image
        reduced = whole.size
        ImageOps.exif_transpose(whole, in_place=True)
        flat = flatten(whole)
        flat.info[FULL_SIZE] = full if whole.size == reduced else full[::-1]  # a square one is its own reverse
        return flat


def read_image_or_crop(value: str) -> Image.Image:
    """As encoders take it: the image of a path, reduced if it is large, or the object of a value from `crop_of`."""
    path, box = path_and_box(value)
    image = read_image(path, None if box else LEAST_SIDE)
    if not box:
        return image
    crop = image.crop(_box_pixels(box, image.width, image.height))
    crop.info[FULL_SIZE] = crop.size
    return crop


def is_crop(value: str) -> bool:
    """Whether a value is one from `crop_of`, and not the path of an image."""
    return _SEPARATOR in value


def path_and_box(value: str) -> tuple[str, tuple[float, ...]]:
    """(path, box); the box is empty where the value is the path of an image.

    Raises:
        MediaError: the value is damaged.
    """
    path, separator, sides = value.partition(_SEPARATOR)
    if not separator:
        return path, ()
    try:
        left, top, width, height = map(float, sides.split(","))
    except ValueError as error:
        raise MediaError("path or bounding box is not valid") from error
    return path, (left, top, width, height)


# also `its bbox is [1, 2, 3]; ...`, of annotations that hold no box
_BOX_FAILURE = re.compile(rf"(?:\w+: )?(?:(?:its|bounding) box (?:{NO_NUMBERS}|{NO_AREA}|{OUTSIDE}) \(|its bbox is )")


def box_fault(box: Sequence[float]) -> str:
    """Why a box (left, top, width, height as shares) shows nothing, with its values; "" if it does."""
    x, y, width, height = box
    if not all(math.isfinite(side) and abs(side) < FAR for side in box):
        return f"{NO_NUMBERS} ({', '.join(f'{side:.5g}' for side in box)})"
    if width <= 0 or height <= 0:
        return f"{NO_AREA} (width {width:.2%}, height {height:.2%} of the image)"
    if x >= 1 or y >= 1 or x + width <= 0 or y + height <= 0:
        sides = f"{x:.2%} to {x + width:.2%} of its width, {y:.2%} to {y + height:.2%} of its height"
        return f"{OUTSIDE} ({sides})"
    return ""


def is_box_fault(failure: str) -> bool:
    """Whether a row failed since its box shows nothing."""
    return bool(_BOX_FAILURE.match(failure))


def _box_pixels(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the box with its margin, within the image, at least one pixel.

    Raises:
        MediaError: the box has no area, or lies outside the image.
    """
    if fault := box_fault(box):
        raise MediaError(f"bounding box {fault}")
    x, y, box_width, box_height = box
    left, right = _side_pixels(x, box_width, width)
    top, bottom = _side_pixels(y, box_height, height)
    return left, top, right, bottom


def _side_pixels(start: float, length: float, pixels: int) -> tuple[int, int]:
    """First pixel and the one after the last of an interval (shares of a side of the image) with its margin."""
    with_margin = max(0.0, start - MARGIN * length), min(1.0, start + (1 + MARGIN) * length)
    first = min(round(with_margin[0] * pixels), pixels - 1)
    return first, max(round(with_margin[1] * pixels), first + 1)


@contextlib.contextmanager
def opened(path: str, formats: tuple[str, ...] = FORMATS, kind: str = "image") -> Iterator[Image.Image]:
    """An open image whose size, checked before any pixel is decoded, is within the limits; errors are `MediaError`s."""
    from PIL import Image, UnidentifiedImageError

    try:
        file = open_medium(path, MAX_IMAGE_BYTES)
    except (OSError, ValueError) as error:
        raise unreadable(error) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; the limit is checked here
            if formats == FORMATS and _is_heic(file):
                formats = (HEIF,)
                if HEIF not in Image.OPEN:
                    raise MediaError(HEIC_NEEDS)
            with file, Image.open(file, formats=_known_formats(formats)) as image:
                check_size(image.width, image.height, kind)
                yield image
    except (MediaError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise MediaError("not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise MediaError(f"{kind} is over the limit of {MAX_MEGAPIXELS} megapixels") from error
    except Exception as error:  # decoders raise anything on hostile bytes; one bad file must not end the run
        raise damaged(kind, error) from error


def is_heic(path: str) -> bool:
    """Whether a file says at its beginning that it is HEIC or another kind of HEIF, but AVIF."""
    with contextlib.suppress(OSError, ValueError), open_medium(path) as file:
        return _is_heic(file)
    return False


def _is_heic(file: io.BufferedReader) -> bool:
    """The same of a file that is open at its beginning, and stays there."""
    head = file.read(64)
    file.seek(0)
    brands = head[8 : int.from_bytes(head[:4], "big")]
    return head[4:8] == b"ftyp" and brands.startswith(_HEIC_BRANDS) and b"avif" not in brands


def allow_heic() -> None:
    """Lets `opened` read HEIC in this process, where pillow-heif is installed: its main image only, in one thread."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


@functools.lru_cache(maxsize=2)
def _known_formats(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Those that this build of Pillow reads."""
    from PIL import Image

    Image.init()
    return tuple(name for name in formats if name in Image.OPEN)


def check_size(width: int, height: int, kind: str = "image") -> None:
    """Raises `MediaError` above `MAX_MEGAPIXELS` or `MAX_SIDE`."""
    megapixels = width * height / 1e6
    if megapixels > MAX_MEGAPIXELS:
        raise MediaError(f"{kind} has {megapixels:.0f} megapixels, the limit is {MAX_MEGAPIXELS}")
    if max(width, height) > MAX_SIDE:
        raise MediaError(f"{kind} has {width} x {height} pixels, the limit is {MAX_SIDE} a side")


def strips(image: Image.Image) -> Iterator[tuple[tuple[int, int, int, int], Image.Image]]:
    """(box, the image in it) from top to bottom, at most `STRIP_PIXELS` each (or one row); a small image is one."""
    if image.width * image.height <= STRIP_PIXELS:
        yield (0, 0, *image.size), image
        return
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield box, image.crop(box)


def flatten(image: Image.Image) -> Image.Image:
    """RGB of any mode: transparency laid on white, more than 8 bits a value by the range in use."""
    from PIL import Image

    black, white = 0.0, 1.0
    if is_deep(image):
        black, white = value_range((np.asarray(strip) for _, strip in strips(image)), image.width * image.height)
    if image.width * image.height <= STRIP_PIXELS:
        return _flatten_strip(image, black, white)
    flat = Image.new("RGB", image.size)
    for box, strip in strips(image):
        flat.paste(_flatten_strip(strip, black, white), box)
    return flat


def _flatten_strip(image: Image.Image, black: float, white: float) -> Image.Image:
    """RGB of a part of an image; `black` and `white` are those of the whole where it has more than 8 bits a value."""
    from PIL import Image

    if is_deep(image):
        image = Image.fromarray(to_eight_bits(np.asarray(image), black, white))
    elif image.mode == "P" or "A" in image.getbands() or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")
