"""Small pictures of media as data URIs: one file holds them all, and it stays small."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.modalities import MODALITIES

from .text import visible

LARGE, SMALL = 160, 72  # longest side in pixels
QUALITY = 78
BUDGET = 2_800_000  # characters of all pictures together: text and plots need the rest of 5 MB
SHARE = 0.6  # of the budget, beyond which only large pictures are drawn: neighbors must not crowd out the rows
Draw = Callable[[str, str | None, int], Markup]


def no_pictures(modality: str, value: str | None, side: int) -> Markup:  # noqa: ARG001 (stands where `painter`'s does)
    """Nothing, for a report without media."""
    return Markup("")


def painter(budget: int = BUDGET) -> Draw:
    """A function (modality, path, longest side) -> `<img>` or a box that says why there is none.

    A picture that was drawn before is used again; when the budget is spent, boxes stand for the rest.

    Args:
        budget: characters that all pictures may take together.
    """
    drawn: dict[tuple[str, str, int], Markup] = {}
    spent = 0

    def draw(modality: str, value: str | None, side: int) -> Markup:
        nonlocal spent
        if not value:
            return _box("missing", side)
        if modality == "audio":
            return _box("♪ sound", side)
        key = (modality, value, side)
        limit = budget if side == LARGE else SHARE * budget
        if key not in drawn and spent < limit:
            drawn[key] = _image(modality, value, side)
        if key not in drawn or spent + len(drawn[key]) > limit:
            return _box("left out: the report would be too large", side)
        spent += len(drawn[key])
        return drawn[key]

    return draw


def _image(modality: str, value: str, side: int) -> Markup:
    try:
        read = MODALITIES[modality].read(value)
    except MediaError as error:
        return _box(str(error), side)
    still = read[0] if modality == "video" else read
    return Markup('<img alt="" width="{}" height="{}" src="{}">').format(*_jpeg(still, side))


def _jpeg(image: Any, side: int) -> tuple[int, int, str]:
    """(width, height, data URI); half as many pixels again in a small picture, which sharp screens show."""
    small = image.convert("RGB")
    most = min(LARGE, 3 * side // 2)
    small.thumbnail((most, most))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    scale = min(1.0, side / max(small.size))
    width, height = (max(1, round(length * scale)) for length in small.size)
    return width, height, "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _box(why: str, side: int) -> Markup:
    return Markup('<span class="box" style="width:{0}px;height:{0}px">{1}</span>').format(side, visible(why[:80]))
