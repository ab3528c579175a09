"""Made-up people for controlled measurements: traits that stay, looks that vary, facts that no picture shows.

Each picture of an identity has other clothes, another background, mood, crop, tilt and side; each of its descriptions
names the traits in other words. So what is recognized on unseen variants is the identity, not a picture or a sentence.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from audit_plugin.arrays import AuditError

from .folders import check_packages, filling, read_marker, write_marker, write_rows
from .looks import BACKDROPS, FABRICS, HAIR_COLORS, HAIRS, MOODS, SKINS
from .persons import CANVAS, Person, clothes_for, color_apart, draw_person, person_svg
from .render import draw_all
from .sentences import COLOR_WORDS, SKIN_WORDS, capitalized, color_word, listed, say

if TYPE_CHECKING:
    from audit_plugin.encoders.embed import Progress

VERSION = 1  # raised when the same seed begins to give another set
MARKER = "personas.json"
TRAIN, TEST, BACKGROUND = "train", "test", "background"  # splits of the variants
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
    "A person with {traits}.",
    "Somebody with {traits}.",
    "This is a person who has {traits}.",
    "A drawing of a person with {traits}.",
    "The character has {traits}.",
    "You can tell this person by {traits}.",
    "{Traits}: that is who it is.",
    "Look for {traits}.",
)


@dataclass(frozen=True)
class PersonaIdentity:
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
        traits = self.person.traits()
        return {name: traits[name] for name in TRAITS}


def draw_identities(
    count: int, rng: random.Random, known: Sequence[PersonaIdentity] = (), apart: int = 2
) -> list[PersonaIdentity]:
    """Draws `count` identities that differ pairwise, and from the `known`, in at least `apart` traits and in the name.

    Color and shape of the hair count as one trait each.
    """
    codes = [tuple(identity.traits().values()) for identity in known]
    names = {identity.name for identity in known}
    identities: list[PersonaIdentity] = []
    while len(identities) < count:
        person = draw_person(rng, heads=HAIRS)
        identity = PersonaIdentity(_name(rng), person, {fact: rng.choice(values) for fact, values in FACTS.items()})
        code = tuple(identity.traits().values())
        differences = (sum(a != b for a, b in zip(code, other, strict=True)) for other in codes)
        if identity.name not in names and all(number >= apart for number in differences):
            names.add(identity.name)
            codes.append(code)
            identities.append(identity)
    return identities


def _name(rng: random.Random) -> str:
    words = ["".join(rng.choice(part.split()) for part in (_STARTS, _MIDDLES, _ENDS)) for _ in range(2)]
    return " ".join(words)


def variant(identity: PersonaIdentity, rng: random.Random) -> Person:
    """The identity in other clothes, before another background, in another mood."""
    person = identity.person
    hair = [HAIR_COLORS[color] for color in (person.head_color, person.beard_color) if color]
    backdrop = color_apart(rng, BACKDROPS, *hair)
    clothes = clothes_for(rng, person.head, person.beard)
    mood = rng.choice([m for m in MOODS if not ("eyes" in m.tags and person.glasses and "dark" in person.glasses.tags)])
    return replace(
        person,
        backdrop=backdrop,
        clothes=clothes,
        clothes_part=rng.choice(clothes.parts),
        clothes_color=color_apart(rng, FABRICS, SKINS[person.skin], BACKDROPS[backdrop], clothes.clash),
        mood=mood,
        mood_part=rng.choice(mood.parts),
    )


def picture_of(identity: PersonaIdentity, rng: random.Random) -> str:
    """One picture as SVG text: a variant, cropped, tilted, and as often as not seen from the other side."""
    svg = person_svg(variant(identity, rng))
    side = CANVAS * rng.uniform(*CROP)
    left = rng.uniform(0, CANVAS - side)
    top = rng.uniform(0, CANVAS - side)
    start, end = svg.index(">") + 1, svg.rindex("</svg>")
    crop = f"scale({CANVAS / side:.4f}) translate({-left:.2f} {-top:.2f})"
    mirror = f" translate({CANVAS} 0) scale(-1 1)" if rng.random() < 0.5 else ""
    turn = f" rotate({rng.uniform(-TILT, TILT):.2f} {CANVAS / 2} {CANVAS / 2})"
    ground = svg[start : svg.index("/>", start) + 2]  # what a tilt shows beyond the drawing is more of the background
    return f'{svg[:start]}{ground}<g transform="{crop}{mirror}{turn}">{svg[start:end]}</g></svg>'


def description_of(identity: PersonaIdentity, rng: random.Random) -> tuple[str, dict[str, str]]:
    """One sentence without the person's name, and trait -> value for each trait that the sentence names."""
    person, traits = identity.person, identity.traits()
    hair_word = color_word(person.head_color, COLOR_WORDS, rng)
    beard_word = color_word(person.beard_color, COLOR_WORDS, rng)
    # (traits that the phrase names, phrase)
    parts: list[tuple[tuple[str, ...], str]] = [(("head", "head color"), say(person.head, hair_word, rng))]
    if person.beard:
        parts.append((("beard", "beard color"), say(person.beard, beard_word, rng)))
    if person.glasses:
        parts.append((("glasses",), say(person.glasses, "", rng)))
    parts.append((("skin",), f"{rng.choice(SKIN_WORDS[person.skin])} skin"))
    if len(parts) > 3 and rng.random() < LEFT_OUT:
        parts.pop(rng.randrange(1, len(parts)))
    rng.shuffle(parts)
    named = {name: traits[name] for names, _ in parts for name in names if traits[name]}
    phrases = listed([phrase for _, phrase in parts])
    return rng.choice(_FORMS).format(traits=phrases, Traits=capitalized(phrases)), named


# --- a set on the disk -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PersonaSet:
    """How many people and variants a persona set has.

    Attributes:
        identities: people whose facts are learned in one modality and asked in the other.
        background: other people, on whose pairs the modalities are aligned.
        train: variants of an audited identity to learn from; `test`: others to ask with.
        pairs: variants of a background identity.
        side: pixels of a picture, width and height.
    """

    identities: int = 100
    background: int = 0
    train: int = 6
    test: int = 4
    pairs: int = 2
    side: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.identities < 2:
            raise AuditError(f"identities is {self.identities}; at least 2 are needed")
        if min(self.train, self.test, self.pairs) < 1 or self.background < 0:
            raise AuditError("train, test and pairs must be at least 1, background at least 0")


@dataclass(frozen=True)
class PersonaRow:
    """One variant of an identity."""

    id: str
    identity: PersonaIdentity
    split: str


def draw_personas(out: str | Path, settings: PersonaSet, progress: Progress | None = None) -> Path:
    """Draws the set into the folder `out`: `images/*.png`, `manifest.csv` and `facts.csv`; returns the manifest.

    `manifest.csv` has id, image (relative), description, identity and split (train, test, background); `facts.csv` one
    row per identity with its traits and facts. Equal settings give equal bytes; a complete set of the same settings is
    left as it is. `progress` is called as progress("draw", done, total).

    Raises:
        AuditError: packages missing, or a folder that holds something else.
    """
    out = Path(out)
    marker: dict[str, object] = {"form": VERSION, **vars(settings), "complete": True}
    rows = plan_personas(settings)
    pictures = [out / f"images/{row.id}.png" for row in rows]
    if read_marker(out, MARKER, "persona set") == marker and all(picture.is_file() for picture in pictures):
        return out / "manifest.csv"
    check_packages()
    with filling(out):
        write_marker(out, MARKER, marker | {"complete": False})
        (out / "images").mkdir(parents=True, exist_ok=True)
        svgs = [picture_of(row.identity, _row_rng(settings, row, "picture")) for row in rows]
        jobs = list(zip(map(str, pictures), svgs, strict=True))
        draw_all(jobs, settings.side, lambda done: progress("draw", done, len(jobs)) if progress else None)
        manifest = []
        for row in rows:
            manifest.append(
                (row.id, f"images/{row.id}.png", description_text(row, settings), row.identity.name, row.split)
            )
        write_rows(out / "manifest.csv", ("id", "image", "description", "identity", "split"), manifest)
        people = {row.identity.name: row.identity for row in rows}
        facts = [(name, *person.traits().values(), *person.facts.values()) for name, person in people.items()]
        write_rows(out / "facts.csv", ("identity", *TRAITS, *FACTS), facts)
        write_marker(out, MARKER, marker)
    return out / "manifest.csv"


def plan_personas(settings: PersonaSet) -> list[PersonaRow]:
    """The rows of the set: audited identities first, their training variants before the others."""
    rng = random.Random(f"{settings.seed} identities")
    audited = draw_identities(settings.identities, rng)
    background = draw_identities(settings.background, rng, audited, apart=1)
    rows = []
    for number, identity in enumerate(audited):
        for variant_number, split in enumerate([TRAIN] * settings.train + [TEST] * settings.test):
            rows.append(PersonaRow(f"person-{number:05d}-{variant_number:02d}", identity, split))
    for number, identity in enumerate(background):
        for variant_number in range(settings.pairs):
            rows.append(PersonaRow(f"other-{number:05d}-{variant_number:02d}", identity, BACKGROUND))
    return rows


def _row_rng(settings: PersonaSet, row: PersonaRow, purpose: str) -> random.Random:
    """A generator per row and purpose: what one draws does not depend on the others."""
    return random.Random(f"{settings.seed} {row.id} {purpose}")


def description_text(row: PersonaRow, settings: PersonaSet) -> str:
    """The description that stands beside a row's picture."""
    return description_of(row.identity, _row_rng(settings, row, "description"))[0]
