"""Hostile text and media as harmless HTML: escaped text with hidden characters made visible, images as data URIs."""

from __future__ import annotations

import base64
import io
import unicodedata
from collections.abc import Callable, Iterable

from markupsafe import Markup, escape

from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.modalities import MODALITIES, read_medium
from audit_plugin.inputs.spreadsheet import HIDDEN

REPLACED = Markup("\N{REPLACEMENT CHARACTER}")
LINE_BOXES = {"\n": Markup('<b class="u">↵</b> '), "\t": Markup('<b class="u">⇥</b> ')}
JOINERS = "\u200c\u200d"  # needed in Persian, Indic scripts and emoji, and harmless
SHORT, LONG = 260, 1500
MOST_BOXES = 100  # per text; further hidden characters become U+FFFD, or a text of them alone would fill megabytes
LARGE, SMALL = 160, 72  # longest side of an image in pixels
QUALITY = 78
BUDGET = 2_800_000  # characters of all images together; text and plots need the rest of 5 MB
SHARE = 0.6  # of the budget for small images, so that neighbors leave room for the rows themselves
Draw = Callable[[str, str | None, int], Markup]


def visible(text: str) -> Markup:
    """Escaped text; each character that is invisible, or reorders others, as its code point in a small box."""
    if text.isascii() and text.isprintable():
        return escape(text)
    parts, boxes = [], 0
    for c in text:
        if c in JOINERS or unicodedata.category(c) not in HIDDEN:
            parts.append(escape(c))
            continue
        boxes += 1
        if boxes > MOST_BOXES:
            parts.append(REPLACED)
        else:
            parts.append(LINE_BOXES.get(c) or Markup('<b class="u">U+{}</b>').format(f"{ord(c):04X}"))
    return Markup("").join(parts)


def cut(text: str, most: int = SHORT) -> str:
    """The text, or its beginning with an ellipsis; never longer than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def marked(text: str, spans: Iterable[tuple[int, int]]) -> Markup:
    """`visible` text with the characters from start to end of each span marked; spans that overlap are left out."""
    parts, at = [], 0
    for start, end in sorted(spans):
        if at <= start < end <= len(text):
            parts += [visible(text[at:start]), Markup("<mark>{}</mark>").format(visible(text[start:end]))]
            at = end
    return Markup("").join([*parts, visible(text[at:])])


def finalized(value: object) -> object:
    """Applied to every value that the template prints, so that all text of the data passes through `visible`."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return "" if value is None else value


def no_images(modality: str, value: str | None, side: int) -> Markup:  # noqa: ARG001
    """Nothing, for a report without media; has the signature of a `Draw`."""
    return Markup("")


def painter(budget: int = BUDGET) -> Draw:
    """A function (modality, path, longest side) -> `<img>`, or a box with the reason why there is none.

    Equal images are encoded once; once the budget (characters of all images together) is spent, boxes replace them.
    """
    drawn: dict[tuple[str, str, int], Markup] = {}
    spent = 0

    def draw(modality: str, value: str | None, side: int) -> Markup:
        nonlocal spent
        if not value:
            return _box("missing", side)
        if MODALITIES[modality].picture is None:
            return _box(MODALITIES[modality].symbol or modality, side)
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
    """`<img>` with a JPEG of 1.5 times as many pixels per side as shown if it is small, for high-resolution screens."""
    entry = MODALITIES[modality]
    assert entry.picture is not None
    try:
        picture = entry.picture(read_medium(modality, value))
    except MediaError as error:
        return _box(str(error), side)
    small = picture.convert("RGB")
    most = min(LARGE, 3 * side // 2)
    small.thumbnail((most, most))
    small.info.clear()  # pixels only: a comment of the file, for one, would be written again
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    scale = min(1.0, side / max(small.size))
    width, height = (max(1, round(length * scale)) for length in small.size)
    source = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return Markup('<img alt="" width="{}" height="{}" src="{}">').format(width, height, source)


def _box(reason: str, side: int) -> Markup:
    return Markup('<span class="box" style="width:{0}px;height:{0}px">{1}</span>').format(side, visible(reason[:80]))
