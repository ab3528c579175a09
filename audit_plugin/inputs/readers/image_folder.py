"""Images in a folder per class, as torchvision's `ImageFolder` reads them, maybe below a folder per split."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.located import Located
from audit_plugin.inputs.rows import ID_COLUMN

from .folders import IMAGE_ENDINGS, files_below, folders_in, has_images, is_split, name_problem, names_of, walk
from .source import Row, Source

LEAST_CLASSES = 2  # by which a folder is recognized: a single one may hold anything


class ImageFolderSource:
    """The images of all classes, ordered by split, class and name.

    Args:
        folder: with the classes, or with the splits.
        classes: (split or "", folder of the class) of each.
    """

    def __init__(self, folder: Path, classes: list[tuple[str, Path]]) -> None:
        self.path = self.folder = folder
        self._classes = classes
        splits = {split for split, _ in classes if split}
        names = {path.name for _, path in classes}
        parts = f" in {len(splits)} splits" if splits else ""
        self.title = f"images in folders of {len(names)} classes{parts}"
        keys = ("label", "split") if splits else ("label",)
        self.header = [ID_COLUMN, "image", *keys]
        self.columns: Mapping[str, str] = {name: name for name in ("image", *keys)}
        self.notes: list[str] = []

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """One row per image."""
        files = [
            (str((place / name).relative_to(self.folder)), split, place.name)
            for split, place in self._classes
            for name in files_below(place)
        ]
        for (path, split, label), name in zip(files, names_of([path for path, _, _ in files]), strict=True):
            if problem := name_problem(path):
                yield Row(key=name, problem=problem)
                continue
            cells = {ID_COLUMN: name, "image": Located(str(self.folder / path)), "label": label}
            yield Row({**cells, "split": split} if "split" in self.header else cells)


def is_image_folder(folder: Path) -> bool:
    """Whether a folder holds images in folders of two classes or more."""
    classes = {place.name for _, place in _classes_in(folder) if _has_own_images(place)}
    return len(classes) >= LEAST_CLASSES


def open_image_folder(folder: Path) -> list[Source]:
    """The source of a folder; raises `AuditError` where it has no folders of classes."""
    classes = _classes_in(folder)
    if not classes:
        raise AuditError(f"{str(folder)!r} holds no folders with images; put those of each class into one: CLASS/1.jpg")
    source = ImageFolderSource(folder, classes)
    used = {place.parent for _, place in classes}
    left_out = [place.name for place in folders_in(folder) if used != {folder} and place not in used]
    if left_out:
        source.notes.append(f"{len(left_out)} folders that are not splits are left out: {', '.join(left_out[:5])}")
    if beside := sum(1 for path in walk(folder, IMAGE_ENDINGS, 1) if os.sep not in path):
        source.notes.append(f"{beside:,} images beside the folders of the classes are left out")
    return [source]


def _classes_in(folder: Path) -> list[tuple[str, Path]]:
    """(split, folder of the class): below folders called as splits where there are any with classes."""
    of_splits = [
        (split.name, place)
        for split in folders_in(folder)
        if is_split(split.name)
        for place in folders_in(split)
        if has_images(place)
    ]
    if of_splits:
        return of_splits
    places = [place for place in folders_in(folder) if has_images(place)]
    # `train` and `test` with images, but without folders of classes, are no classes themselves
    return [] if all(is_split(place.name) for place in places) else [("", place) for place in places]


def _has_own_images(folder: Path) -> bool:
    """Whether images lie in the folder itself."""
    return any(os.sep not in path for path in walk(folder, IMAGE_ENDINGS, 1))
