"""Persons drawn from attributes. Only what can be seen is kept as an attribute, so a description cannot be wrong."""

from __future__ import annotations

import math
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .looks import BACKDROPS, BEARDS, CLOTHES, FABRICS, GLASSES, HAIR_COLORS, HAIRS, HATS, MOODS, PRINTS, SKINS, Look

SIDE = 256  # pixels, width and height of every picture
CANVAS = 280  # units of the drawings, which are 264 wide and 280 high
MIN_TRAITS_APART = 3
MIN_CONTRAST = 75.0  # distance of two RGB colors that are still told apart at a glance


@dataclass(frozen=True)
class Person:
    """What one picture shows: looks with the drawing part and the color name chosen for each ("" for no color)."""

    skin: str
    backdrop: str
    head: Look
    head_part: str
    head_color: str
    clothes: Look
    clothes_part: str
    clothes_color: str
    mood: Look
    mood_part: str
    beard: Look | None = None
    beard_part: str = "NONE"
    beard_color: str = ""
    glasses: Look | None = None
    glasses_part: str = "NONE"

    def traits(self) -> dict[str, str]:
        """Attribute -> value, "" where the person has none; the same keys for every person."""
        return {
            "head": self.head.name,
            "head color": self.head_color,
            "clothes": self.clothes.name,
            "clothes color": self.clothes_color,
            "beard": self.beard.name if self.beard else "",
            "beard color": self.beard_color,
            "glasses": self.glasses.name if self.glasses else "",
            "mood": self.mood.name,
            "skin": self.skin,
            "backdrop": self.backdrop,
        }


def draw_persons(count: int, rng: random.Random) -> list[Person]:
    """`count` random persons, any two of which differ in at least three attributes."""
    persons: list[Person] = []
    codes = np.zeros((count, 10), dtype=np.int64)
    while len(persons) < count:
        person = draw_person(rng)
        # crc32 and not hash(): the latter changes from process to process.
        code = np.array([zlib.crc32(value.encode()) for value in person.traits().values()])
        apart = (codes[: len(persons)] != code).sum(axis=1)
        if not len(apart) or apart.min() >= MIN_TRAITS_APART:
            codes[len(persons)] = code
            persons.append(person)
    return persons


def draw_person(rng: random.Random, heads: Sequence[Look] = ()) -> Person:
    """One random person, with one of these heads, or of all."""
    skin, backdrop = rng.choice(list(SKINS)), rng.choice(list(BACKDROPS))
    around = (SKINS[skin], BACKDROPS[backdrop])
    head = rng.choice(heads) if heads else rng.choice(HATS) if rng.random() < 0.22 else rng.choice(HAIRS)
    hat = "hat" in head.tags
    head_color = "" if "plain" in head.tags else color_apart(rng, FABRICS if hat else HAIR_COLORS, *around, head.clash)
    beard = rng.choice(BEARDS) if "smooth" not in head.tags and rng.random() < 0.4 else None
    # One head, one color of hair; under a hat and on a bald head any will do.
    own = "" if hat or not head_color else head_color
    beard_color = (own or color_apart(rng, HAIR_COLORS, around[0])) if beard else ""
    mood = rng.choice(MOODS)
    glasses = rng.choice(GLASSES) if rng.random() < 0.45 else None
    if glasses and "dark" in glasses.tags and "eyes" in mood.tags:
        glasses = None
    clothes = clothes_for(rng, head, beard)
    return Person(
        skin,
        backdrop,
        head,
        rng.choice(head.parts),
        head_color,
        clothes,
        rng.choice(clothes.parts),
        color_apart(rng, FABRICS, *around, clothes.clash),
        mood,
        rng.choice(mood.parts),
        beard,
        rng.choice(beard.parts) if beard else "NONE",
        beard_color,
        glasses,
        rng.choice(glasses.parts) if glasses else "NONE",
    )


def clothes_for(rng: random.Random, head: Look, beard: Look | None) -> Look:
    """Clothes that what hangs over them does not hide; a headscarf leaves only a plain top to be seen."""
    if "covered" in head.tags:
        return CLOTHES[0]
    if beard and "chin" in beard.tags:
        return rng.choice([c for c in CLOTHES if "neck" not in c.tags])
    return rng.choice(PRINTS) if "drape" not in head.tags and rng.random() < 0.3 else rng.choice(CLOTHES)


def color_apart(rng: random.Random, colors: dict[str, str], *around: str) -> str:
    """The name of a color that stands out from the codes `around` it, "" for none."""
    rgb = {name: bytes.fromhex(code[1:]) for name, code in colors.items()}
    others = [bytes.fromhex(code[1:]) for code in around if code]
    return rng.choice([name for name in rgb if all(math.dist(rgb[name], other) > MIN_CONTRAST for other in others)])


def person_svg(person: Person) -> str:
    """The picture as SVG text."""
    import python_avatars as pa

    mouth, eyes, brows = person.mood_part.split(":")
    part, _, picture = person.clothes_part.partition(":")
    hat = "hat" in person.head.tags
    avatar = pa.Avatar(
        style=pa.AvatarStyle.TRANSPARENT,
        top=(pa.HatType if hat else pa.HairType)[person.head_part],
        hat_color=FABRICS.get(person.head_color, "#ffffff"),
        hair_color=HAIR_COLORS.get(person.head_color, "#ffffff"),
        skin_color=SKINS[person.skin],
        eyes=pa.EyeType[eyes],
        eyebrows=pa.EyebrowType[brows],
        nose=pa.NoseType.DEFAULT,
        mouth=pa.MouthType[mouth],
        accessory=pa.AccessoryType[person.glasses_part],
        facial_hair=pa.FacialHairType[person.beard_part],
        facial_hair_color=HAIR_COLORS.get(person.beard_color, "#ffffff"),
        clothing=pa.ClothingType[part],
        clothing_color=FABRICS[person.clothes_color],
        shirt_graphic=pa.ClothingGraphic[picture or "NONE"],
    )
    drawing = _unmasked(avatar.render())
    drawing = drawing[drawing.index("<svg") :].replace("<svg ", f'<svg x="{(CANVAS - 264) // 2}" ', 1)
    return framed(f'<rect width="{CANVAS}" height="{CANVAS}" fill="{BACKDROPS[person.backdrop]}"/>{drawing}')


# A color laid over the whole canvas and cut out by a mask: how these drawings fill most of their shapes.
_RECT = r'<rect [^<>]*width="264"[^<>]*/>'
_MASKED_FILL = re.compile(
    rf'<g ([^<>]*?)mask="url\(#([^)"]+)\)"([^<>]*)>\s*(?:{_RECT}|<g [^<>]*>\s*{_RECT}\s*</g>)\s*</g>'
)
_MASK_SHAPE = re.compile(r'<mask id="([^"]+)"[^>]*>\s*<use xlink:href="#([^"]+)"')


def _unmasked(drawing: str) -> str:
    """Fills shapes directly instead of through masks, each of which costs the renderer 10 ms of 50."""
    shapes = dict(_MASK_SHAPE.findall(drawing))

    def fill(match: re.Match[str]) -> str:
        shape = shapes.get(match[2])
        return f'<g {match[1]}{match[3]}><use xlink:href="#{shape}"/></g>' if shape else match[0]

    return _MASKED_FILL.sub(fill, drawing)


def framed(body: str) -> str:
    """A whole SVG picture around the elements `body`, drawn in a square of `CANVAS` units."""
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {CANVAS} {CANVAS}">{body}</svg>'
