"""Made-up people for controlled measurements: traits that stay, looks that vary, facts that no picture shows.

An identity is a name with traits that can be seen (hair, skin, beard, glasses) and facts that cannot (a job, a city).
Each of its pictures has other clothes, another background, mood, crop, tilt and side; each of its descriptions names
the traits in other words. So what is recognized on unseen variants is the identity, not a picture or a sentence.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .looks import BACKDROPS, FABRICS, HAIR_COLORS, HAIRS, MOODS, SKINS
from .persons import CANVAS, Person, clothes_for, color_apart, draw_person, person_svg
from .sentences import COLOR_WORDS, SKIN_WORDS, say

TRAITS = ("head", "head color", "beard", "beard color", "glasses", "skin")
JOBS = ("baker", "pilot", "carpenter", "nurse", "florist", "painter", "plumber", "tailor", "farmer", "librarian")
CITIES = ("Lisbon", "Oslo", "Nairobi", "Kyoto", "Lima", "Dublin", "Hanoi", "Quebec", "Tunis", "Riga")
FACTS = {"job": JOBS, "city": CITIES}
LEFT_OUT = 0.25  # chance that a description leaves out one of four traits or more
CROP, TILT = (0.82, 1.0), 7.0  # share of the canvas that is shown; degrees to either side

_STARTS = "Ba Be Bo Da De Fe Ga Go Ha Ja Ka Ke La Le Lo Ma Me Mi Na Ne No Pa Pe Ra Re Ro Sa Se Si Ta Te To Va Ve Za"
_MIDDLES = "la le li lo ma mi na ne ni no ra re ri ro sa si ta te ti to va vi"
_ENDS = "da dan kel len lin mar mel nar nel ner ran ren rin sel son tan ten tor vel ven"
_FORMS = (
    "{A} person with {traits}.",
    "Somebody with {traits}.",
    "This is a person who has {traits}.",
    "A drawing of a person with {traits}.",
    "The character has {traits}.",
    "You can tell this person by {traits}.",
    "{Traits}: that is who it is.",
    "Look for {traits}.",
)


@dataclass(frozen=True)
class Identity:
    """A made-up person.

    Attributes:
        name: two words that no other identity has.
        person: whose traits named in `TRAITS` are the identity's; the rest varies from picture to picture.
        facts: name of a fact -> its value.
    """

    name: str
    person: Person
    facts: dict[str, str]

    def traits(self) -> dict[str, str]:
        """Trait -> value, "" where the identity has none."""
        every = self.person.traits()
        return {name: every[name] for name in TRAITS}


def draw_identities(count: int, rng: random.Random, known: Sequence[Identity] = (), apart: int = 2) -> list[Identity]:
    """Identities of which any two, those `known` included, differ in at least `apart` traits, with names of their own.

    Args:
        count: how many.
        rng: draws everything.
        known: drawn before.
        apart: traits; color and shape of the hair count one each.
    """
    codes = [tuple(identity.traits().values()) for identity in known]
    names = {identity.name for identity in known}
    found: list[Identity] = []
    while len(found) < count:
        person = draw_person(rng, heads=HAIRS)
        identity = Identity(_name(rng), person, {fact: rng.choice(values) for fact, values in FACTS.items()})
        code = tuple(identity.traits().values())
        near = any(sum(a != b for a, b in zip(code, other, strict=True)) < apart for other in codes)
        if identity.name not in names and not near:
            names.add(identity.name)
            codes.append(code)
            found.append(identity)
    return found


def _name(rng: random.Random) -> str:
    first, last = ("".join(rng.choice(part.split()) for part in (_STARTS, _MIDDLES, _ENDS)) for _ in range(2))
    return f"{first} {last}"


def variant(identity: Identity, rng: random.Random) -> Person:
    """The identity in other clothes, before another background, in another mood."""
    person = identity.person
    hair = [HAIR_COLORS[color] for color in (person.head_color, person.beard_color) if color]
    backdrop = color_apart(rng, BACKDROPS, *hair)
    clothes = clothes_for(rng, person.head, person.beard)
    mood = rng.choice([m for m in MOODS if not ("eyes" in m.tags and person.glasses and "dark" in person.glasses.tags)])
    around = (SKINS[person.skin], BACKDROPS[backdrop], clothes.clash)
    return replace(
        person,
        backdrop=backdrop,
        clothes=clothes,
        clothes_part=rng.choice(clothes.parts),
        clothes_color=color_apart(rng, FABRICS, *around),
        mood=mood,
        mood_part=rng.choice(mood.parts),
    )


def picture_of(identity: Identity, rng: random.Random) -> str:
    """One picture as SVG text: a variant, cropped, tilted, and as often as not seen from the other side."""
    svg = person_svg(variant(identity, rng))
    side = CANVAS * rng.uniform(*CROP)
    left, top = (rng.uniform(0, CANVAS - side) for _ in range(2))
    start, end = svg.index(">") + 1, svg.rindex("</svg>")
    crop = f"scale({CANVAS / side:.4f}) translate({-left:.2f} {-top:.2f})"
    mirror = f" translate({CANVAS} 0) scale(-1 1)" if rng.random() < 0.5 else ""
    turn = f" rotate({rng.uniform(-TILT, TILT):.2f} {CANVAS / 2} {CANVAS / 2})"
    ground = svg[start : svg.index("/>", start) + 2]  # what a tilt shows beyond the drawing is more of the background
    return f'{svg[:start]}{ground}<g transform="{crop}{mirror}{turn}">{svg[start:end]}</g></svg>'


def description_of(identity: Identity, rng: random.Random) -> tuple[str, dict[str, str]]:
    """One sentence, and trait -> value for each trait that it names. The name is not in it."""
    person, traits = identity.person, identity.traits()
    hair, beard = (rng.choice(COLOR_WORDS.get(color, (color,))) for color in (person.head_color, person.beard_color))
    said: list[tuple[tuple[str, ...], str]] = [(("head", "head color"), say(person.head, hair, rng))]
    if person.beard:
        said.append((("beard", "beard color"), say(person.beard, beard, rng)))
    if person.glasses:
        said.append((("glasses",), say(person.glasses, "", rng)))
    said.append((("skin",), f"{rng.choice(SKIN_WORDS[person.skin])} skin"))
    if len(said) > 3 and rng.random() < LEFT_OUT:
        said.pop(rng.randrange(1, len(said)))
    rng.shuffle(said)
    named = {name: traits[name] for names, _ in said for name in names if traits[name]}
    phrases = [phrase for _, phrase in said]
    listed = f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return rng.choice(_FORMS).format(A="A", traits=listed, Traits=listed[0].upper() + listed[1:]), named
