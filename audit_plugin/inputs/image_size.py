"""The size of an image as people see it, of which boxes are shares."""

from __future__ import annotations

from .images import is_heic, opened
from .reading import ReadApart


def upright_size(path: str) -> tuple[int, int]:
    """Width and height in pixels of the upright image; raises `MediaError` where it cannot be read."""
    if is_heic(path):
        whole_image = ReadApart("whole image")(path)
        return whole_image.width, whole_image.height
    with opened(path) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # the orientation that the camera noted
        return (image.height, image.width) if turned else (image.width, image.height)
