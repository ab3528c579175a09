"""COCO: a JSON document with images and their annotations; one row per caption, or per box."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.inputs.located import Located
from audit_plugin.inputs.rows import ID_COLUMN, MAX_NAMES, as_text, brief

from .folders import BOX_COLUMNS, ImageFinder, box_row, folders_in, is_split, name_problem, names_of, size_of, split_in
from .json_rows import is_document, read_document
from .source import Row, Source
from .text_files import first_bytes

FILE_NAME, CAPTION, SAMPLE_ID = "file_name", "caption", "sample_id"
FOLDERS = ("annotations", "Annotations")
# What the names of COCO's own files begin with, beside those of captions and instances.
OTHERS = ("person_keypoints", "image_info", "stuff", "panoptic")
PEEKED = 50  # images by which their folder is found
MAX_PLACES = 100
_IMAGES = re.compile(rb'"images"\s*:\s*\[\s*[{\]]')
_ANNOTATIONS = re.compile(rb'"annotations"\s*:\s*\[\s*[{\]]')


def is_coco(document: object) -> bool:
    """Whether a JSON document is one of COCO."""
    if not isinstance(document, dict):
        return False
    lists = [document.get(name) for name in ("images", "annotations")]
    return all(
        isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries[:10]) for entries in lists
    )


class CocoSource:
    """The captions, or the boxes, of a document, in the order of its images.

    Args:
        path: of the document.
        document: its content.
        root: folder that holds it and the images.
        split: of all of its rows; None: nobody says one.
        prefix: of the ids, where several documents are read.
        notes: on what was left out.

    Raises:
        AuditError: the document has neither captions nor boxes, or both.
    """

    def __init__(
        self,
        path: Path,
        document: Mapping[str, Any],
        root: Path | None = None,
        split: str | None = None,
        prefix: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        self.path, self.folder = path, root or path.parent
        self._document, self._split, self._prefix = document, split, prefix
        self._has_boxes = _has_boxes(document, path.name)
        keys = BOX_COLUMNS if self._has_boxes else (FILE_NAME, CAPTION)
        own = {name: name for name in keys} if self._has_boxes else {"image": FILE_NAME, "text": CAPTION}
        if split is not None:
            keys, own = (*keys, "split"), {**own, "split": "split"}
        fields = () if self._has_boxes else _fields_of(document["images"], (ID_COLUMN, SAMPLE_ID, *keys))
        self._fields = fields
        self.header = [ID_COLUMN, *keys, *fields]
        self.columns: Mapping[str, str] = own
        self.title = "COCO with boxes" if self._has_boxes else "COCO with captions"
        self._first_notes, self.notes = tuple(notes), list(notes)

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """One row per annotation; one that names no image, or no box, has a problem."""
        images = self._document["images"]
        ids = [_key(image.get("id")) if isinstance(image, dict) else None for image in images]
        by_image: dict[str | None, list[Mapping[str, Any]]] = {key: [] for key in ids}
        lost: list[str] = []
        for number, annotation in enumerate(self._document["annotations"], 1):
            key = _key(annotation.get("image_id")) if isinstance(annotation, dict) else None
            if key is None or key not in by_image:
                lost.append(f"annotation {number} belongs to no image of the file")
            else:
                by_image[key].append(annotation)
        self.notes = [*self._first_notes, *_notes(by_image)]
        finder = _finder(self.path, self.folder, [_file_name(image) for image in images if isinstance(image, dict)])
        names = names_of([str(_file_name(image)) if isinstance(image, dict) else "?" for image in images])
        categories = _categories(self._document)
        for image, key, name in zip(images, ids, names, strict=True):
            # of two images with one id, the first one has the annotations
            annotations = by_image.pop(key, [])
            own = self._prefix + name
            if annotations:
                yield from self._rows_of(image, annotations, own, finder, categories)
        for number, problem in enumerate(lost, 1):
            yield Row(key=f"{self._prefix}lost annotation {number}", problem=problem)

    def _rows_of(
        self,
        image: Mapping[str, Any],
        annotations: list[Mapping[str, Any]],
        name: str,
        finder: ImageFinder,
        categories: Mapping[Any, str],
    ) -> Iterator[Row]:
        try:
            path = finder.find(_file_name(image))
            if problem := name_problem(path):
                raise ValueError(problem)
        except ValueError as error:
            for number in range(1, len(annotations) + 1):
                yield Row(key=f"{name}#{number}", problem=f"{FILE_NAME} {error}")
            return
        split = {} if self._split is None else {"split": self._split}
        for number, annotation in enumerate(annotations, 1):
            given = annotation.get(SAMPLE_ID)
            own = given if isinstance(given, str) and given else ""
            if not self._has_boxes:
                cells = {field: image.get(field) for field in self._fields}
                caption = annotation.get(CAPTION)
                yield Row({**cells, **split, ID_COLUMN: own or name, FILE_NAME: Located(path), CAPTION: caption})
                continue
            category = _key(annotation.get("category_id"))
            if category is not None and category not in categories:
                problem = f"category {brief(category)} is not among the {len(categories):,} categories"
                yield Row(key=own or f"{name}#{number}", problem=problem)
                continue
            label = categories.get(category) or None
            cells = {ID_COLUMN: own, "label": label, "group": os.path.relpath(path, self.folder), **split}
            try:
                box = _box_of(annotation, image, path)
            except ValueError as error:
                yield Row(key=own or f"{name}#{number}", problem=str(error))
                continue
            yield box_row(name, number, path, box, cells)


def _file_name(image: Mapping[str, Any]) -> object:
    """The name of an image: of LVIS, the end of its address, `val2017/1.jpg`."""
    address = image.get("coco_url")
    if image.get(FILE_NAME) or not isinstance(address, str):
        return image.get(FILE_NAME)
    return "/".join(address.split("/")[-2:])


def _notes(by_image: Mapping[str | None, list[Mapping[str, Any]]]) -> list[str]:
    """What of the document is not read."""
    counts = Counter(
        field
        for annotations in by_image.values()
        for annotation in annotations
        for field in ("segmentation", "keypoints")
        if annotation.get(field)
    )
    notes = [f"{count:,} annotations have a {field}, which is not read" for field, count in counts.items()]
    empty = sum(not annotations for annotations in by_image.values())
    return [*notes, f"left out: {count_text(empty, 'image')} without an annotation"] if empty else notes


def _key(value: object) -> str | None:
    """An id as text, since some files have numbers in one list and texts in the other; None for none."""
    return str(value) if isinstance(value, int | str) else None


def _has_boxes(document: Mapping[str, Any], name: str) -> bool:
    """Whether the annotations are boxes, and not captions."""
    annotations = [entry for entry in document["annotations"] if isinstance(entry, dict)]
    captions = sum(isinstance(entry.get(CAPTION), str) for entry in annotations)
    boxes = sum(bool(entry.get("bbox")) for entry in annotations)
    if not document["images"] or not captions + boxes:
        raise AuditError(f"{name} is a COCO file without captions and boxes; name one that has some")
    if captions and boxes:
        raise AuditError(f"{name} holds {captions:,} captions and {boxes:,} boxes; write them into a file each")
    return boxes > 0


def _fields_of(images: list[Any], taken: Collection[str]) -> tuple[str, ...]:
    """The other fields of the images, which exports carry on."""
    names = dict.fromkeys(name for image in images if isinstance(image, dict) for name in image if name not in taken)
    return tuple(names)[:MAX_NAMES]


def _categories(document: Mapping[str, Any]) -> dict[str | None, str]:
    """Id of each category -> its name."""
    entries = document.get("categories")
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return {_key(entry.get("id")): (as_text(entry.get("name")) or "").strip() for entry in entries}


def _box_of(annotation: Mapping[str, Any], image: Mapping[str, Any], path: str) -> tuple[float, ...]:
    """Left, top, width, height as shares of the image; raises `ValueError` where there is no box."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(side) for side in box):
        raise ValueError(f"its bbox is {brief(box, 60)}; a box has x, y, width and height in pixels")
    width, height = size_of(path, image.get("width"), image.get("height"))
    x, y, w, h = map(float, box)
    return x / width, y / height, w / width, h / height


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e9


# --- files -----------------------------------------------------------------------------------------------------------


def _finder(path: Path, root: Path, names: list[object]) -> ImageFinder:
    """Finds the images of a document: beside it, in `images`, or in a folder such as `train2017` there or above.

    Folders of another split than the document's are not looked into: their images may have the same names.
    """
    split = split_in(path.stem)
    places: dict[Path, None] = {}
    parents = list(dict.fromkeys((path.parent, root, path.parent.parent)))
    for parent in parents:
        places |= dict.fromkeys((parent, parent / "images"))
    is_apart = path.parent.name in FOLDERS or root != path.parent
    for parent in parents if is_apart else parents[:1]:
        for place in (parent, parent / "images"):
            places |= dict.fromkeys(folders_in(place)[:MAX_PLACES])
    fitting = [place for place in places if not split or not is_split(place.name) or split_in(place.name) == split]
    existing = [place for place in fitting if place.is_dir()]
    return ImageFinder(existing or [path.parent], root).sorted_by(names[:PEEKED])


def is_coco_folder(folder: Path) -> bool:
    """Whether a folder holds documents of COCO."""
    return bool(_documents_in(folder))


def open_coco(path: Path) -> list[Source]:
    """The sources of a document, or of all those in a folder.

    Raises:
        AuditError: there is none, or some hold captions and others boxes.
    """
    if not path.is_dir():
        return [_opened(path, path.parent)]
    documents = _documents_in(path)
    kinds = {kind for document in documents for kind in ("captions", "instances") if document.name.startswith(kind)}
    if len(kinds) > 1:
        names = ", ".join(str(document.relative_to(path)) for document in documents[:6])
        raise AuditError(
            f"{str(path)!r} holds captions and boxes of COCO ({names}); name files of one kind, such as "
            f"'{documents[0].parent.relative_to(path)}/captions_*.json'"
        )
    left_out = [document for document in documents if kinds and document.name.startswith(OTHERS)]
    documents = [document for document in documents if document not in left_out]
    if not documents:
        raise AuditError(f"{str(path)!r} holds no COCO file with images and annotations; name the file")
    notes = [f"left out: {', '.join(document.name for document in left_out[:5])}"] if left_out else []
    sources: list[Source] = []
    for document in documents:
        split = split_in(document.stem) or (document.parent.name if is_split(document.parent.name) else "")
        is_one = len(documents) == 1
        prefix = "" if is_one else f"{split or document.stem}/"
        sources.append(_opened(document, path, None if is_one else split, prefix, notes))
    if len({source.title for source in sources}) > 1:
        raise AuditError(f"{str(path)!r} holds captions and boxes of COCO; name the files of one kind")
    return sources


def _opened(
    path: Path, root: Path, split: str | None = None, prefix: str = "", notes: Sequence[str] = ()
) -> CocoSource:
    document = read_document(path)
    if not is_coco(document):
        raise AuditError(f"{path.name} is not a COCO file: it has no lists of images and annotations")
    return CocoSource(path, document, root, split, prefix, notes)


def _documents_in(folder: Path) -> list[Path]:
    """The JSON files that begin as COCO's do: in `annotations`, else in the folder, else in folders of splits."""
    splits = [place for place in folders_in(folder) if is_split(place.name)]
    for places in ([folder / name for name in FOLDERS], [folder], splits):
        paths = [
            place / name
            for place in places
            if place.is_dir()
            for name in sorted(os.listdir(place))
            if name.lower().endswith(".json") and not name.startswith(".") and (place / name).is_file()
        ]
        if documents := [path for path in paths if _begins_as_coco(path)]:
            return documents
    return []


def _begins_as_coco(path: Path) -> bool:
    start = first_bytes(path)
    has_lists = _IMAGES.search(start) or (_ANNOTATIONS.search(start) and b'"image_id"' in start)
    return bool(has_lists) and is_document(start)
