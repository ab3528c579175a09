"""YOLO: a `data.yaml` with the classes and splits, images, and a text file with the boxes of each; one row per box."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.inputs.files import first_line
from audit_plugin.inputs.rows import ID_COLUMN, brief

from .folders import (
    BOX_COLUMNS,
    IMAGE_ENDINGS,
    LOOKED_AT,
    box_row,
    files_below,
    folders_in,
    is_split,
    name_inside,
    names_of,
    read_text,
    walk,
)
from .source import Row, Source

YAML = (".yaml", ".yml")
SPLITS = ("train", "val", "valid", "test")
CLASS_LISTS = ("classes.txt", "labels/classes.txt", "obj.names")
IDS = "samples.jsonl"  # of an export: {"id": …, "label": "labels/….txt"} of each box, in the order of the lines
MAX_YAML, MAX_LABELS, MAX_LIST = 1 << 20, 1 << 24, 1 << 28  # bytes
SHOWN = 5  # splits that a message names


@dataclass(frozen=True)
class YoloSettings:
    """What a `data.yaml` says: names of the classes, split -> its places, and whether key points follow the boxes."""

    names: Mapping[int, str]
    places: Mapping[str, list[str]]
    base: Path
    has_points: bool


class YoloSource:
    """The boxes of all images, in the order of the splits and of the names.

    Raises:
        AuditError: the settings cannot be read, or none of their folders is there.
    """

    def __init__(self, config: Path, settings: YoloSettings | None = None) -> None:
        self.path = config
        self._settings = settings or read_settings(config)
        self.folder = self._settings.base
        self._images, self.notes = _images_of(self._settings)
        splits = {split for split in self._images.values() if split}
        self.title = f"YOLO with {count_text(len(self._settings.names), 'class', 'classes')}"
        keys = (*BOX_COLUMNS, "split") if splits else BOX_COLUMNS
        self.header = [ID_COLUMN, *keys]
        self.columns: Mapping[str, str] = {name: name for name in keys}
        self._first_notes = tuple(self.notes)

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """One row per box; a line that is none has a problem."""
        ids = _ids_of(self.path.parent)
        empty = 0
        paths = list(self._images)
        names = names_of([_without(path, "images") for path in paths])
        for path, name in zip(paths, names, strict=True):
            labels = _labels_of(self.folder, path)
            try:
                text = read_text(self.folder / labels, MAX_LABELS) if labels else ""
            except ValueError as error:
                yield Row(key=name, problem=str(error))
                continue
            lines = [line for line in text.splitlines() if line.strip()]
            empty += not lines
            known = ids.get(labels, [])
            for number, line in enumerate(lines, 1):
                own = known[number - 1] if len(known) == len(lines) else f"{name}#{number}"
                yield self._row(path, line, number, own, labels)
        notes = [f"left out: {count_text(empty, 'image')} without boxes"] if empty else []
        self.notes = [*self._first_notes, *notes]

    def _row(self, image: str, line: str, number: int, own: str, labels: str) -> Row:
        try:
            of_class, box = parsed_box(line, self._settings.has_points)
        except ValueError as error:
            return Row(key=own, problem=f"line {number} of {brief(os.path.basename(labels))} {error}")
        label = self._settings.names.get(of_class)
        if label is None:
            count = len(self._settings.names)
            return Row(key=own, problem=f"class {of_class} is not among the {count} names in {self.path.name}")
        cells = {ID_COLUMN: own, "label": label, "group": image, "split": self._images[image]}
        if "split" not in self.header:
            del cells["split"]
        return box_row("", 0, str(self.folder / image), box, cells)


def parsed_box(line: str, has_points: bool = False) -> tuple[int, tuple[float, float, float, float]]:
    """(class, left, top, width, height as shares) of a line: a box, or the outline of a segment, reduced to its box.

    Args:
        line: class x y w h, maybe with a confidence; or class x1 y1 x2 y2 x3 y3 ….
        has_points: key points follow the box.

    Raises:
        ValueError: it is neither.
    """
    parts = line.split()
    try:
        of_class = int(float(parts[0]))
        values = [float(part) for part in parts[1:]]
    except (ValueError, OverflowError):
        raise ValueError(f"({brief(line, 40)}) holds other things than numbers") from None
    if len(values) in (4, 5) or (has_points and len(values) > 5):
        x, y, width, height = values[:4]
        return of_class, (x - width / 2, y - height / 2, width, height)
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"holds {len(values)} numbers after the class; a box has 4, a segment 6, 8, …")
    xs, ys = values[::2], values[1::2]
    return of_class, (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))


def is_yolo_file(path: Path, start: bytes) -> bool:  # noqa: ARG001 (as all readers)
    """Whether a file may be a `data.yaml`."""
    return path.name.lower().endswith(YAML)


def is_yolo(folder: Path) -> bool:
    """Whether a folder holds a `data.yaml`, images and labels as YOLO has them, or a list of classes and boxes."""
    has_labels = (folder / "images").is_dir() and next(iter((folder / "labels").rglob("*.txt")), None) is not None
    return has_labels or bool(_configs_in(folder)) or (_class_list(folder) is not None and _has_boxes(folder))


def open_yolo(path: Path) -> list[Source]:
    """The source of a folder, or of a `data.yaml`.

    Raises:
        AuditError: there is none or several, or it cannot be used.
    """
    if not path.is_dir():
        return [YoloSource(path)]
    configs = _configs_in(path)
    if not configs and (classes := _class_list(path)):
        return [YoloSource(classes, settings_of_list(classes, path))]
    if len(configs) != 1:
        what = " and ".join(config.name for config in configs[:SHOWN])
        raise AuditError(
            f"{str(path)!r} holds {what}; name one of them as the manifest"
            if configs
            else f"{str(path)!r} holds no data.yaml with the `names` of the classes and `train: images`, which YOLO "
            "needs; add one, or a classes.txt with a name per line"
        )
    return [YoloSource(configs[0])]


def _configs_in(folder: Path) -> list[Path]:
    """The YAML files of a folder that name classes and splits."""
    paths = sorted(folder / name for name in os.listdir(folder) if name.lower().endswith(YAML) and name[0] != ".")
    out = []
    for path in paths:
        try:
            content = _parsed(path)
        except ValueError:
            continue
        if isinstance(content, dict) and "names" in content and any(split in content for split in SPLITS):
            out.append(path)
    return out


def _class_list(folder: Path) -> Path | None:
    """The list of classes, a name per line, that labelImg, Label Studio and Darknet write; None where there is none."""
    paths = [folder / name for name in CLASS_LISTS]
    return next((path for path in paths if path.is_file()), None)


def _has_boxes(folder: Path) -> bool:
    """Whether the first images of a folder have files with boxes beside them, and nothing else."""
    labels = [_labels_of(folder, image) for image in itertools.islice(walk(folder, IMAGE_ENDINGS, LOOKED_AT), SHOWN)]
    try:
        lines = [line for path in labels if path for line in read_text(folder / path, MAX_LABELS).splitlines()]
        return bool(lines) and all(parsed_box(line) for line in lines if line.strip())
    except ValueError:
        return False


def settings_of_list(path: Path, folder: Path) -> YoloSettings:
    """What a list of classes says; the images lie in `images`, maybe in folders of splits, or below the folder.

    Raises:
        AuditError: it cannot be read.
    """
    try:
        lines = read_text(path, MAX_YAML).splitlines()
    except ValueError as error:
        raise AuditError(f"{error}; correct the file") from None
    names = dict(enumerate(line.strip() for line in lines if line.strip()))
    images = "images" if (folder / "images").is_dir() else "."
    splits = [place.name for place in folders_in(folder / images) if is_split(place.name)]
    places = {split: [f"{images}/{split}"] for split in splits} or {"": [images]}
    return YoloSettings(names, places, folder, False)


def _parsed(path: Path) -> Any:
    """The content of a YAML file; raises `ValueError` where it cannot be parsed."""
    import yaml

    text = read_text(path, MAX_YAML)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise ValueError(f"it cannot be parsed: {first_line(error)}") from None


def read_settings(path: Path) -> YoloSettings:
    """What a `data.yaml` says.

    Raises:
        AuditError: it cannot be read, or names no classes or no splits.
    """
    try:
        content = _parsed(path)
    except ValueError as error:
        raise AuditError(f"{path.name} cannot be used ({error}); correct the file") from None
    if not isinstance(content, dict):
        raise AuditError(f"{path.name} holds no settings of YOLO; name a manifest, or a data.yaml")
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    is_named = isinstance(names, dict) and all(
        isinstance(number, int) and isinstance(name, str | int | float) for number, name in names.items()
    )
    if not names or not is_named:
        raise AuditError(f"{path.name} has no `names` of the classes; list them: names: [cat, dog]")
    places = {split: _listed(content[split]) for split in SPLITS if content.get(split)}
    if not any(places.values()):
        raise AuditError(f"{path.name} names no images; add `train: images`, relative to its folder")
    base = _base_of(content.get("path"), path.parent)
    return YoloSettings({n: str(name) for n, name in names.items()}, places, base, bool(content.get("kpt_shape")))


def _listed(value: object) -> list[str]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _base_of(value: object, folder: Path) -> Path:
    """The folder that `path` names where it lies in that of the file, which is taken otherwise."""
    try:
        base = folder / name_inside(value, folder)
    except ValueError:
        return folder
    return base if base.is_dir() else folder


def _images_of(settings: YoloSettings) -> tuple[dict[str, str], list[str]]:
    """(image -> its split, "" where it is in several; what was left out). Paths are relative to the base.

    Raises:
        AuditError: nothing that the file names is there.
    """
    images: dict[str, str] = {}
    missing = []
    for split, places in settings.places.items():
        for place in places:
            try:
                paths = _images_at(place, settings.base)
            except ValueError as error:
                missing.append(f"{split}: {error}")
                continue
            for path in paths:
                images[path] = split if images.get(path, split) == split else ""
    if not images:
        reasons = "; ".join(missing[:SHOWN]) or "its folders are empty"
        raise AuditError(f"no images of the YOLO set in {str(settings.base)!r} were found ({reasons})")
    return images, [f"left out of the YOLO set: {reason}" for reason in missing[:SHOWN]]


def _images_at(place: str, base: Path) -> list[str]:
    """The images that a place names, from `base`: those of a folder, or the lines of a list.

    Raises:
        ValueError: it leads out of the base, or is not there.
    """
    while place.startswith("../"):  # as Roboflow writes, and means the folder of the file
        place = place[3:]
    inside = name_inside(place, base)
    path = base / inside
    if path.is_dir():
        return [os.path.normpath(os.path.join(inside, name)) for name in files_below(path)]
    if path.suffix.lower() != ".txt" or not path.is_file():
        raise ValueError(f"{brief(inside)} does not exist")
    images = []
    for line in map(str.strip, read_text(path, MAX_LIST).splitlines()):
        if line:
            folder = os.path.dirname(inside) if line.startswith("./") else ""  # else from the base
            images.append(os.path.normpath(os.path.join(folder, name_inside(line, base))))
    return images


def _without(path: str, part: str) -> str:
    """The path without one of its folders."""
    return os.path.join(*[each for each in Path(path).parts if each != part])


def _labels_of(base: Path, image: str) -> str:
    """The file with the boxes of an image, "" for none: in `labels` instead of `images`, or beside it."""
    stem = os.path.splitext(image)[0]
    parts = list(Path(stem).parts)
    places = [stem]
    if "images" in parts[:-1]:
        at = len(parts) - 1 - parts[::-1].index("images")
        places.insert(0, os.path.join(*parts[:at], "labels", *parts[at + 1 :]))
    return next((place + ".txt" for place in places if (base / (place + ".txt")).is_file()), "")


def _ids_of(folder: Path) -> dict[str, list[str]]:
    """File of labels -> ids of its lines, as an export noted them; empty without such a file."""
    if not (folder / IDS).is_file():
        return {}
    ids: dict[str, list[str]] = {}
    try:
        for line in read_text(folder / IDS, MAX_LIST).split("\n"):
            entry = json.loads(line) if line.strip() else {}
            if isinstance(entry, dict) and isinstance(entry.get("id"), str) and isinstance(entry.get("label"), str):
                ids.setdefault(entry["label"], []).append(entry["id"])
    except (ValueError, RecursionError):
        return {}
    return ids
