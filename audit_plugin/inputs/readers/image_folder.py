"""Media in a folder per class, as torchvision's `ImageFolder` reads images, maybe below a folder per split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.inputs.located import Located
from audit_plugin.inputs.rows import ID_COLUMN

from .folders import NOUNS, endings_of, files_below, folders_in, has_files, is_split, name_problem, names_of, walk
from .source import Row, Source

LEAST_CLASSES = 2  # by which a folder is recognized: a single one may hold anything


class ClassFolderSource:
    """The media of all classes, ordered by split, class and name.

    Args:
        folder: with the classes, or with the splits.
        classes: (split or "", folder of the class) of each.
        modality: of the media.
    """

    def __init__(self, folder: Path, classes: list[tuple[str, Path]], modality: str) -> None:
        self.path = self.folder = folder
        self._modality = modality
        self._classes = classes
        splits = {split for split, _ in classes if split}
        names = {path.name for _, path in classes}
        parts = f" in {count_text(len(splits), 'split')}" if splits else ""
        self.title = f"{NOUNS[modality]} in folders of {count_text(len(names), 'class', 'classes')}{parts}"
        keys = ("label", "split") if splits else ("label",)
        self.header = [ID_COLUMN, modality, *keys]
        self.columns: Mapping[str, str] = {name: name for name in (modality, *keys)}
        self.notes: list[str] = []

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """One row per medium."""
        files = [
            (str((place / name).relative_to(self.folder)), split, place.name)
            for split, place in self._classes
            for name in files_below(place, endings_of(self._modality))
        ]
        for (path, split, label), name in zip(files, names_of([path for path, _, _ in files]), strict=True):
            if problem := name_problem(path):
                yield Row(key=name, problem=problem)
                continue
            cells = {ID_COLUMN: name, self._modality: Located(str(self.folder / path)), "label": label}
            yield Row({**cells, "split": split} if "split" in self.header else cells)


def is_class_folder(folder: Path, modality: str) -> bool:
    """Whether a folder holds media of a modality in folders of two classes or more."""
    endings = endings_of(modality)
    classes = {place.name for _, place in _classes_in(folder, endings) if _own_files(place, endings)}
    return len(classes) >= LEAST_CLASSES


def open_class_folder(folder: Path, modality: str) -> list[Source]:
    """The source of a folder; raises `AuditError` where it has no folders of classes."""
    endings, noun = endings_of(modality), NOUNS[modality]
    classes = _classes_in(folder, endings)
    if not classes:
        example = f"CLASS/1{endings[0]}"
        raise AuditError(f"{str(folder)!r} holds no folders with {noun}; put those of each class into one: {example}")
    source = ClassFolderSource(folder, classes, modality)
    used = {place.parent for _, place in classes}
    left_out = [place.name for place in folders_in(folder) if used != {folder} and place not in used]
    if left_out:
        source.notes.append(
            f"left out: {count_text(len(left_out), 'folder')} without folders of classes: {', '.join(left_out[:5])}"
        )
    if beside := sum(1 for _ in walk(folder, endings, 1)):
        source.notes.append(f"left out: {count_text(beside, f'{modality} file')} beside the folders of the classes")
    return [source]


def _classes_in(folder: Path, endings: tuple[str, ...]) -> list[tuple[str, Path]]:
    """(split, folder of the class): below folders called as splits where there are any with classes."""
    of_splits = [
        (split.name, place)
        for split in folders_in(folder)
        if is_split(split.name)
        for place in folders_in(split)
        if has_files(place, endings)
    ]
    counts = Counter(split for split, _ in of_splits)
    known = {place.name for split, place in of_splits if counts[split] > 1}
    # a single folder such as `val/images`, which is no class of the other splits, holds images without classes
    alone = {split for split, place in of_splits if counts[split] == 1 and known and place.name not in known}
    if of_splits:
        return [(split, place) for split, place in of_splits if split not in alone]
    places = [place for place in folders_in(folder) if has_files(place, endings)]
    # `train` and `test` with media, but without folders of classes, are no classes themselves
    return [] if all(is_split(place.name) for place in places) else [("", place) for place in places]


def _own_files(folder: Path, endings: tuple[str, ...]) -> int:
    """How many files with one of the endings lie in the folder itself, or in its folder `images`."""
    inner = folder / "images"
    own = sum(1 for _ in walk(inner, endings, 1)) if inner.is_dir() else 0
    return own + sum(1 for _ in walk(folder, endings, 1))


FOLDER_READERS = {
    f"{modality}-folder": (partial(open_class_folder, modality=modality), partial(is_class_folder, modality=modality))
    for modality in NOUNS
}
