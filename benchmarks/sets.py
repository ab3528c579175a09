"""Clean sets in which wrong pairs are planted: development sets to choose settings, report sets to evaluate.

Each set is fetched or drawn once, into `benchmarks/data`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError
from benchmarks import drawn, photographs
from benchmarks.data import DATA, SOURCES, fetch
from benchmarks.multimem.data import code, emoji, speak, voice


@dataclass(frozen=True)
class PairSet:
    """A set all of whose rows belong together, in its own fixed order.

    Attributes:
        name: of the set.
        ids: one per row; the captions of one picture repeat its id.
        media: modality -> absolute path or text per row.
        category: per row; wrong captions of the kind "category" come from the same one.
        caption: which caption of its picture a row is, or empty where a picture has one.
        labels: class per row, or empty where the set has no classes.
        shown: attribute -> value that a row's picture shows, or empty where it is not known.
        named: attribute -> value that a row's text names, beside `shown`: a text is wrong where the two contradict.
    """

    name: str
    ids: tuple[str, ...]
    media: Mapping[str, tuple[str, ...]]
    category: tuple[str, ...]
    caption: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    shown: tuple[Mapping[str, str], ...] = ()
    named: tuple[Mapping[str, str], ...] = ()

    def __post_init__(self) -> None:
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "media")}
        for name, values in (columns | dict(self.media)).items():
            if len(values) != len(self.ids) and (values or name in ("category", *self.media)):
                raise ValueError(f"{self.name}: {len(values)} values of {name} for {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, keep: Sequence[int]) -> PairSet:
        """The same set with the rows `keep`, in that order."""
        cut: dict[str, Any] = {f.name: tuple(getattr(self, f.name)[i] for i in keep) for f in fields(self)
               if f.name not in ("name", "media") and getattr(self, f.name)}  # fmt: skip
        return replace(self, media={m: tuple(v[i] for i in keep) for m, v in self.media.items()}, **cut)


@dataclass(frozen=True)
class Entry:
    """A set in the table.

    Attributes:
        role: `development` or `report`.
        load: folder of all data -> the set.
        outside: folder of all data -> captions of the same sort that belong to no picture of the set.
    """

    role: str
    load: Callable[[Path], PairSet]
    outside: Callable[[Path], list[str]]


def load_set(name: str, rows: int | None = None, seed: int = 0, data: Path = DATA) -> PairSet:
    """A clean set, fetched or drawn on its first use.

    Args:
        name: one of `SETS`.
        rows: None for all, or about so many: a random choice of whole pictures, in the set's order.
        seed: of that choice.
        data: where sets are kept.

    Raises:
        AuditError: unknown name, too few rows, or what a set needs cannot be had.
    """
    if name not in SETS:
        raise AuditError(f"there is no set {name!r}; choose one of {', '.join(SETS)}")
    clean = SETS[name].load(data)
    if rows is None or rows >= len(clean):
        return clean
    pictures = list(dict.fromkeys(clean.ids))
    count = round(rows * len(pictures) / len(clean))
    if count < 2:
        raise AuditError(f"rows is {rows}; {name} needs at least {2 * len(clean) // len(pictures)}")
    chosen = {pictures[i] for i in np.random.default_rng(seed).permutation(len(pictures))[:count]}
    return clean.rows([i for i, key in enumerate(clean.ids) if key in chosen])


def outside_captions(name: str, data: Path = DATA) -> list[str]:
    """Distinct captions of the same sort as those of the set `name` that belong to none of its pictures."""
    own = set(SETS[name].load(data).media["text"])
    return [text for text in dict.fromkeys(SETS[name].outside(data)) if text not in own]


def _vendor(name: str) -> Callable[[Path], PairSet]:
    def load(data: Path) -> PairSet:
        folder = fetch(name, data).resolve()
        # A skin tone is a second copy of nearly the same picture and name.
        pairs = [pair for pair in SOURCES[name].read(folder) if "skin tone" not in pair.caption]
        media = {
            "image": tuple(str(folder / pair.image) for pair in pairs),
            "text": tuple(pair.caption for pair in pairs),
        }
        return PairSet(name, tuple(pair.id for pair in pairs), media, tuple(pair.category for pair in pairs))

    return load


def _four(data: Path) -> PairSet:
    entries = emoji(data.resolve())
    media = {
        "image": tuple(str(entry.image) for entry in entries),
        "text": tuple(entry.name for entry in entries),
        "audio": tuple(str(speak(entry, voice(entry.id), data.resolve())) for entry in entries),
        "video": tuple(str(entry.video) for entry in entries),
    }
    return PairSet("four", tuple(entry.id for entry in entries), media, tuple(entry.category for entry in entries))


def _drawn(name: str, draw: Callable[[Path], None]) -> Callable[[Path], PairSet]:
    return lambda data: _read_rows(name, drawn.once(data / name, draw).resolve())


def _read_rows(name: str, folder: Path) -> PairSet:
    rows: list[dict[str, Any]] = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    columns: dict[str, Any] = {key: tuple(row[key] for row in rows) for key in rows[0]}
    media = {"image": tuple(str(folder / image) for image in columns["image"]), "text": columns["text"]}
    more = {field: columns[key] for field, key in (("labels", "label"), ("shown", "shown"), ("named", "said"))
            if key in columns}  # fmt: skip
    caption = columns["caption"] if any(columns.get("caption", ())) else ()
    return PairSet(name, columns["id"], media, columns["category"], caption, **more)


def _first_captions(data: Path) -> PairSet:
    five = SETS["five"].load(data)
    return replace(five.rows([i for i, number in enumerate(five.caption) if number == 0]), name="five_one", caption=())


def _other_emoji(name: str) -> Callable[[Path], list[str]]:
    """Names of OpenMoji's emoji that the set does not have, by code point, since one emoji may have two names."""

    def names(data: Path) -> list[str]:
        own = {code(key) for key in SETS[name].load(data).ids}
        others = SETS["openmoji"].load(data)
        return [text for key, text in zip(others.ids, others.media["text"], strict=True) if code(key) not in own]

    return names


def _other_persons(_data: Path) -> list[str]:
    return drawn.person_captions(400, "outside")


def _letters(_data: Path) -> list[str]:
    return [f"a handwritten {sign}" for sign in "ABCDEFGHJKLMNPQRSTUVWXYZ"]


def _greek(_data: Path) -> list[str]:
    names = "alpha beta gamma delta epsilon zeta theta kappa lambda omicron sigma upsilon omega"
    return [f"the letter {name}" for name in names.split()]


def _clothing(_data: Path) -> PairSet:
    """Photographs of clothing, CC0, that lie beside the project; a category holds the classes that are mixed up."""
    if not CLOTHING.is_dir():
        raise AuditError(
            f"the photographs of clothing are not there ({CLOTHING}); put a folder of images by class there"
        )
    files = sorted(CLOTHING.rglob("*.jpg"))
    labels = tuple(path.parent.name for path in files)
    media = {"image": tuple(map(str, files)), "text": labels}
    ids = tuple(str(path.relative_to(CLOTHING)) for path in files)
    return PairSet("clothing", ids, media, tuple(MIXED_UP[label] for label in labels), labels=labels)


def _photographs(name: str, read: Callable[[Path], list[photographs.Photograph]]) -> Entry:
    """Photographs of packages, which no setting was chosen on."""

    def load(data: Path) -> PairSet:
        rows = read(data)
        media = {"image": tuple(str(row.path) for row in rows), "text": tuple(row.text for row in rows)}
        ids = tuple(f"{name}/{number}/{row.path.name}" for number, row in enumerate(rows))
        return PairSet(name, ids, media, tuple(row.category for row in rows))

    return Entry("report", load, lambda _data: [])


CLOTHING = Path(__file__).resolve().parents[2] / "shared" / "data" / "clothing"
MIXED_UP = {
    **dict.fromkeys(("t-shirt", "longsleeve", "shirt", "outwear"), "top"),
    **dict.fromkeys(("dress", "skirt"), "gown"),
    **dict.fromkeys(("pants", "shorts"), "legs"),
    **dict.fromkeys(("hat", "shoes"), "ends"),
}

FIVE = _drawn("five", lambda folder: drawn.persons(folder, 600, "five", drawn.CAPTIONS))

SETS: dict[str, Entry] = {
    "twitter": Entry("development", _vendor("twitter"), _other_emoji("twitter")),
    "facebook": Entry("development", _vendor("facebook"), _other_emoji("facebook")),
    "persons": Entry("development", _drawn("persons", lambda f: drawn.persons(f, 800, "persons")), _other_persons),
    "glyphs": Entry("development", _drawn("glyphs", drawn.glyphs), _greek),
    "clothing": Entry("development", _clothing, lambda _data: []),
    "google": Entry("report", _vendor("google"), _other_emoji("google")),
    "openmoji": Entry("report", _vendor("openmoji"), _other_persons),
    "four": Entry("report", _four, _other_emoji("four")),
    "digits": Entry("report", _drawn("digits", drawn.digits), _letters),
    "five": Entry("report", FIVE, _other_persons),
    "five_one": Entry("report", _first_captions, _other_persons),
    "foods": _photographs("foods", photographs.foods),
    "stamps": _photographs("stamps", photographs.stamps),
    "activities": _photographs("activities", photographs.activities),
    "sky": _photographs("sky", photographs.sky),
}
