"""What the readers of folders share: lists of files, names of samples, splits, and images that annotations name.

The names in annotation files are hostile: those that lead out of the folder are refused. Links are followed, as for
all media; a media root confines them.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit_plugin.arrays import MODALITIES, AuditError
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.images import box_fault, crop_of
from audit_plugin.inputs.located import Located
from audit_plugin.inputs.paths import MAX_PATH, as_written
from audit_plugin.inputs.rows import ID_COLUMN, MAX_ROWS, brief
from audit_plugin.store import open_regular

from .source import Row

IMAGE_ENDINGS = tuple(f".{suffix}" for suffix in MODALITIES["image"].suffixes)
NOUNS = {"image": "images", "audio": "sounds", "video": "videos"}  # what folders are read for
BOX_COLUMNS = ("image", "label", "group")  # of the readers of boxes; `split` follows where there are several
LOOKED_AT = 2_000  # files, and folders, by which a format is recognized
_SPLIT = r"train(?:ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?|eval"
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_DRIVE = re.compile(r"[a-zA-Z]:/")


def endings_of(modality: str) -> tuple[str, ...]:
    """The endings of the files of a modality, with their dots."""
    return tuple(f".{suffix}" for suffix in MODALITIES[modality].suffixes)


def is_split(name: str) -> bool:
    """Whether a folder is called as splits are, such as `train` or `val2017`."""
    return re.fullmatch(rf"({_SPLIT})\d*", name, re.IGNORECASE) is not None


def split_in(name: str) -> str:
    """The split that a file's name says, such as `val` of `instances_val2017`; "" for none."""
    words = re.findall(rf"(?<![a-z])({_SPLIT})(?![a-z])", name.lower())
    return str(words[0]) if len(words) == 1 else ""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's."""
    return name.startswith(".") or name == "__MACOSX"


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, links followed, in the order of their names."""
    try:
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as error:
        raise _unreadable(folder, error) from error
    return [folder / name for name in names if not is_hidden(name) and (folder / name).is_dir()]


def walk(folder: Path, endings: tuple[str, ...], most: float = math.inf) -> Iterator[str]:
    """The paths from `folder` of the files below it with one of the endings.

    Folders that are links are not entered, and no more than `most` folders are looked into.
    """

    def refuse(error: OSError) -> None:
        raise _unreadable(folder, error) from error

    for count, (parent, folders, names) in enumerate(os.walk(folder, onerror=refuse)):
        if count >= most:
            return
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(names):
            if name.lower().endswith(endings) and not is_hidden(name):
                yield os.path.relpath(os.path.join(parent, name), folder)


def files_below(folder: Path, endings: tuple[str, ...] = IMAGE_ENDINGS) -> list[str]:
    """All of `walk`, in order; raises `AuditError` for more than a set may have."""
    paths = []
    for path in walk(folder, endings):
        paths.append(path)
        if len(paths) > MAX_ROWS:
            raise AuditError(f"{str(folder)!r} holds more than {MAX_ROWS:,} files, the limit; audit it in parts")
    return sorted(paths)


def has_files(folder: Path, endings: tuple[str, ...]) -> bool:
    """Whether a file with one of the endings lies below a folder."""
    return next(walk(folder, endings, LOOKED_AT), "") != ""


def _unreadable(folder: Path, error: OSError) -> AuditError:
    return AuditError(f"folder {brief(str(folder))} cannot be read ({error.strerror}); check its permissions")


def read_text(path: str | Path, most: int) -> str:
    """A small text in UTF-8.

    Raises:
        ValueError: it cannot be read, is not UTF-8, or has more than `most` bytes.
    """
    name = os.path.basename(path)
    try:
        with open_regular(path) as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{brief(name)} cannot be read ({reason})") from None
    if len(data) > most:
        raise ValueError(f"{brief(name)} has more than {most:,} bytes, the limit")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{brief(name)} is not UTF-8 (byte {error.start})") from None


def names_of(paths: Sequence[str]) -> list[str]:
    """Ids for files: their paths without ending, or with it where two differ by nothing else; each another one."""
    whole = [path.replace(os.sep, "/").encode("utf-8", "replace").decode() for path in paths]
    stems = [os.path.splitext(path)[0] for path in whole]
    counts = Counter(stems)
    names = [stem if counts[stem] == 1 else path for stem, path in zip(stems, whole, strict=True)]
    taken: set[str] = set()
    for number, name in enumerate(names):
        while name in taken:
            name += "'"  # noqa: PLW2901 (until it is free)
        taken.add(name)
        names[number] = name
    return names


def name_problem(path: str) -> str:
    """Why a file cannot be used by its name, "" if it can."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"the name of {brief(path)} is not UTF-8; rename the file"
    return ""


def name_inside(name: object, folder: str | Path) -> str:
    """The path from `folder` of a file that an annotation names.

    Raises:
        ValueError: it is no path, or leads out of the folder.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name or len(name) > MAX_PATH:
        raise ValueError(f"{brief(name, 60)} is not the name of an image")
    if _URL.match(name):
        raise ValueError(f"{brief(name, 60)} is a URL, not a file: download it")
    path = name.replace("\\", "/")
    below = os.path.join(str(folder), "")
    path = os.path.normpath(path.removeprefix(below))
    if os.path.isabs(path) or _DRIVE.match(path) or path.split("/")[0] == "..":
        raise ValueError(f"{brief(name, 60)} lies outside of the folder; name images relative to it")
    return path


@dataclass
class ImageFinder:
    """Finds the images that annotations name, in the first of some folders that holds them.

    Attributes:
        folders: where a name may begin.
        root: whose absolute paths are taken too.
    """

    folders: Sequence[Path]
    root: Path

    def find(self, name: object) -> str:
        """The absolute path of an image, in the first folder where none holds it.

        Raises:
            ValueError: the name leads out of the folders, or is none.
        """
        inside = name_inside(name, self.root)
        first = ""
        for folder in self.folders:
            path = as_written(os.path.join(folder, inside))
            if os.path.lexists(path):
                return path
            first = first or path
        return first

    def sorted_by(self, names: Iterable[object]) -> ImageFinder:
        """The same, beginning with the folder that holds most of some images."""
        inside = []
        for name in names:
            try:
                inside.append(name_inside(name, self.root))
            except ValueError:
                continue
        hits = {folder: sum(os.path.lexists(os.path.join(folder, name)) for name in inside) for folder in self.folders}
        return ImageFinder(sorted(self.folders, key=lambda folder: -hits[folder]), self.root)


def size_of(path: str, width: object, height: object) -> tuple[float, float]:
    """Width and height of an image in pixels: as its annotation says, else as its file says.

    Raises:
        ValueError: neither does.
    """
    from audit_plugin.inputs.image_size import upright_size

    sizes = [side for side in (width, height) if isinstance(side, int | float) and 0 < side < math.inf]
    if len(sizes) == 2:
        return float(sizes[0]), float(sizes[1])
    try:
        return upright_size(path)
    except MediaError as error:
        raise ValueError(f"the size of its image is not noted, and {error}") from None


def box_row(name: str, number: int, path: str, box: Sequence[float], cells: Mapping[str, str | None]) -> Row:
    """The row of an object.

    Args:
        name: of the image.
        number: of the object in it, from 1.
        path: of the image.
        box: left, top, width, height as shares of the image.
        cells: the other columns.
    """
    own = str(cells.get(ID_COLUMN) or f"{name}#{number}")
    fault = box_fault(box)
    if problem := name_problem(path) or (fault and f"its box {fault}"):
        return Row(key=own, problem=problem)
    return Row({**cells, ID_COLUMN: own, "image": Located(crop_of(path, box))})
