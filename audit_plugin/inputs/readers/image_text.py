"""Images with a text file of the same name beside each, as img2dataset (`files`) writes them."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.located import Located
from audit_plugin.inputs.rows import ID_COLUMN

from .folders import IMAGE_ENDINGS, LOOKED_AT, files_below, name_problem, names_of, read_text, walk
from .source import Row, Source

TEXT_ENDINGS = (".txt", ".caption")
MAX_TEXT_BYTES = 1 << 20
_BOX_LINE = re.compile(r"\d+(\s+-?[\d.]+(e-?\d+)?){4,}")


class ImageTextSource:
    """The images below a folder, each with the text beside it."""

    title = "images with texts beside them"
    columns: Mapping[str, str] = {"image": "image", "text": "text"}

    def __init__(self, folder: Path) -> None:
        self.path = self.folder = folder
        self.header = [ID_COLUMN, "image", "text"]
        self.notes: list[str] = []

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """One row per image; the text is missing where none is beside it."""
        images = files_below(self.folder)
        texts = set(files_below(self.folder, TEXT_ENDINGS))
        if not images:
            raise AuditError(f"{str(self.folder)!r} holds no images; name the folder that does")
        stems = {os.path.splitext(path)[0] for path in images}
        alone = sum(os.path.splitext(path)[0] not in stems for path in texts)
        self.notes = [f"{alone:,} texts have no image beside them and are left out"] if alone else []
        for path, name in zip(images, names_of(images), strict=True):
            text = _text_beside(path, texts)
            try:
                if problem := name_problem(path):
                    raise ValueError(problem)
                caption = read_text(self.folder / text, MAX_TEXT_BYTES).strip("\r\n") if text else None
            except ValueError as error:
                yield Row(key=name, problem=str(error))
                continue
            yield Row({ID_COLUMN: name, "image": Located(str(self.folder / path)), "text": caption})


def _text_beside(image: str, texts: Collection[str]) -> str:
    """The text of an image among the texts of its folder, "" for none."""
    stem = os.path.splitext(image)[0]
    return next((stem + ending for ending in TEXT_ENDINGS if stem + ending in texts), "")


def is_image_text(folder: Path) -> bool:
    """Whether most of the first images below a folder have a text beside them."""
    images, with_text = 0, 0
    for path in itertools.islice(walk(folder, IMAGE_ENDINGS, LOOKED_AT), LOOKED_AT):
        images += 1
        with_text += bool(_text_of(folder, path))
        if images >= 20 and with_text == 0:
            return False
    return 2 * with_text > images


def open_image_text(folder: Path) -> list[Source]:
    """The source of a folder; raises `AuditError` where the texts are boxes of YOLO."""
    for path in itertools.islice(walk(folder, IMAGE_ENDINGS, LOOKED_AT), 20):
        if text := _text_of(folder, path):
            try:
                lines = read_text(text, MAX_TEXT_BYTES).split("\n")
            except ValueError:
                continue
            if any(_BOX_LINE.fullmatch(line.strip()) for line in lines):
                raise AuditError(
                    f"{os.path.basename(text)} beside the images in {str(folder)!r} holds boxes of YOLO; add a "
                    "data.yaml with `train: .` and the `names` of the classes"
                )
    return [ImageTextSource(folder)]


def _text_of(folder: Path, image: str) -> str:
    stem = os.path.splitext(str(folder / image))[0]
    return next((stem + ending for ending in TEXT_ENDINGS if os.path.lexists(stem + ending)), "")
