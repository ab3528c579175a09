"""Pascal VOC: an XML file per image with the boxes of its objects; one row per object."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.inputs.rows import ID_COLUMN, brief
from audit_plugin.store import open_regular

from .folders import (
    BOX_COLUMNS,
    IMAGE_ENDINGS,
    ImageFinder,
    box_row,
    files_below,
    folders_in,
    is_split,
    names_of,
    read_text,
    size_of,
)
from .source import Row, Source

ANNOTATIONS = ("Annotations", "annotations")
IMAGES = ("JPEGImages", "images", "Images", "img")
MAX_XML = 1 << 22  # bytes
MAX_LIST = 1 << 26  # bytes of a list of images
XML = (".xml",)
SIDES = ("xmin", "ymin", "xmax", "ymax")


class VocSource:
    """The objects of all images, in the order of the names of the XML files."""

    title = "Pascal VOC"

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.path = self.folder = folder
        self._files = files
        self._splits = _splits_of(folder, files)
        keys = (*BOX_COLUMNS, "split") if self._splits else BOX_COLUMNS
        self.header = [ID_COLUMN, *keys]
        self.columns: Mapping[str, str] = {name: name for name in keys}
        self.notes: list[str] = []

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """One row per object; an XML file that cannot be read has a problem."""
        empty = 0
        names = names_of([os.path.join(*Path(file).parts[_depth(file) :]) for file in self._files])
        for file, name in zip(self._files, names, strict=True):
            try:
                tree = parsed_xml(self.folder / file)
                image = self._image_of(tree, file)
                objects = tree.findall("object")
            except ValueError as error:
                yield Row(key=name, problem=str(error))
                continue
            empty += not objects
            for number, thing in enumerate(objects, 1):
                try:
                    yield self._row(tree, thing, image, file, f"{name}#{number}")
                except ValueError as error:
                    yield Row(key=f"{name}#{number}", problem=str(error))
        self.notes = [f"left out: {count_text(empty, 'image')} without objects"] if empty else []

    def _row(self, tree: Element, thing: Element, image: str, file: str, own: str) -> Row:
        width, height = (_number(tree.findtext(f"size/{side}")) for side in ("width", "height"))
        width, height = size_of(image, width, height)
        left, top, right, bottom = (_number(thing.findtext(f"bndbox/{side}")) for side in SIDES)
        if None in (left, top, right, bottom):
            raise ValueError("an object has no bndbox with xmin, ymin, xmax and ymax")
        assert left is not None and top is not None and right is not None and bottom is not None  # noqa: PT018
        box = (left / width, top / height, (right - left) / width, (bottom - top) / height)
        label = (thing.findtext("name") or "").strip() or None
        cells = {ID_COLUMN: own, "label": label, "group": os.path.relpath(image, self.folder)}
        if self._splits:
            cells["split"] = self._splits.get(file, "")
        return box_row("", 0, image, box, cells)

    def _image_of(self, tree: Element, file: str) -> str:
        """The image of an XML file: the one that it names, else one of the same name."""
        places = [self.folder / name for name in IMAGES]
        finder = ImageFinder([*places, self.folder / Path(file).parent, self.folder], self.folder)
        named = (tree.findtext("filename") or "").strip()
        stem = Path(file).stem
        try:
            path = finder.find(named or stem)
        except ValueError:
            if not re.match(r"/|[a-zA-Z]:[\\/]", named):
                raise
            path = finder.find(stem)  # the name is a path on the machine of the annotator
        if os.path.isfile(path):
            return path
        for ending in (*IMAGE_ENDINGS, *map(str.upper, IMAGE_ENDINGS)):
            other = finder.find(stem + ending)
            if os.path.lexists(other):
                return other
        return path


def is_voc(folder: Path) -> bool:
    """Whether a folder holds annotations of VOC."""
    files = _files_in(folder, only_first=True)
    try:
        return bool(files) and parsed_xml(folder / files[0]).tag == "annotation"
    except ValueError:
        return "JPEGImages" in os.listdir(folder)


def open_voc(folder: Path) -> list[Source]:
    """The source of a folder; raises `AuditError` where it has no XML files."""
    files = _files_in(folder)
    if not files:
        raise AuditError(f"{str(folder)!r} holds no XML files, in Annotations or beside the images; name their folder")
    return [VocSource(folder, files)]


def _files_in(folder: Path, only_first: bool = False) -> list[str]:
    """The XML files in `Annotations`, else in the folder, else in folders of splits, as paths from the folder."""
    for name in ANNOTATIONS:
        if (folder / name).is_dir() and (files := files_below(folder / name, XML)):
            return [os.path.join(name, file) for file in files]
    own = sorted(name for name in os.listdir(folder) if name.lower().endswith(XML) and not name.startswith("."))
    if own:
        return own
    splits = [place for place in folders_in(folder) if is_split(place.name)]
    return [os.path.join(place.name, file) for place in splits for file in files_below(place, XML)][
        : 1 if only_first else None
    ]


def _depth(file: str) -> int:
    """How many folders at the beginning of a path say nothing about the image."""
    return int(Path(file).parts[0] in ANNOTATIONS)


def _splits_of(folder: Path, files: list[str]) -> dict[str, str]:
    """XML file -> split: by its folder, or by the lists in `ImageSets/Main`; empty where neither says one."""
    of_folders = {file: Path(file).parts[0] for file in files if is_split(Path(file).parts[0])}
    if of_folders:
        return of_folders
    of_stems: dict[str, str] = {}
    for split in ("train", "val", "test"):
        path = folder / "ImageSets" / "Main" / f"{split}.txt"
        if path.is_file():
            try:
                of_stems |= dict.fromkeys(read_text(path, MAX_LIST).split(), split)
            except ValueError as error:
                raise AuditError(f"{error}; correct the list of the split, or remove it") from None
    return {file: of_stems.get(Path(file).stem, "") for file in files} if of_stems else {}


def parsed_xml(path: Path) -> Element:
    """The root of a small XML file without a document type, and so without entities of its own.

    Raises:
        ValueError: it cannot be read, is too large, is no XML, or has a document type.
    """

    def refuse(*_: object) -> None:
        raise ValueError(f"{brief(path.name)} declares a document type, which VOC does not have")

    try:
        with open_regular(path) as file:
            data = file.read(MAX_XML + 1)
    except OSError as error:
        raise ValueError(f"{brief(path.name)} cannot be read ({error.strerror or error})") from None
    if len(data) > MAX_XML:
        raise ValueError(f"{brief(path.name)} has more than {MAX_XML:,} bytes, the limit")
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, LookupError, AssertionError) as error:
        raise ValueError(f"{brief(path.name)} is not XML that can be read ({error})") from None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
