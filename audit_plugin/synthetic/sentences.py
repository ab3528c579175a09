"""English descriptions of drawn persons, with the attributes that each one names."""

from __future__ import annotations

import random

from .looks import Look
from .persons import Person

FORMS = (
    "{A} {noun} with {has}, wearing {wears}{aside}.",
    "Portrait of {a} {noun} in {wears}, with {has}{aside}.",
    "{Has}, {wears}: a drawing of {a} {noun}{place}.",
    "This {noun} wears {wears} and has {has}.",
    "Cartoon avatar of {a} {noun} who has {has} and is dressed in {wears}{aside}.",
    "In {wears}, {a} {noun} with {has} poses{place}.",
    "An illustration of {a} {noun} with {has}; the outfit is {wears}.",
    "Wearing {wears}, {a} {noun} with {has} faces the viewer{place}.",
    "Profile picture: {a} {noun}, {has}, {wears}{aside}.",
    "You can see {a} {noun} in {wears} who has {has}.",
)
COLOR_WORDS = {
    "black": ("black", "black", "jet-black"),
    "brown": ("brown", "chestnut"),
    "grey": ("grey", "silver"),
    "blonde": ("blonde", "golden"),
    "red": ("red", "ginger"),
    "pink": ("pink", "dyed pink"),
    "blue": ("blue", "dyed blue"),
    "green": ("green", "dyed green"),
}
FABRIC_WORDS = {
    "navy": ("navy", "navy blue"),
    "turquoise": ("turquoise", "teal"),
    "purple": ("purple", "violet"),
    "grey": ("grey", "gray"),
    "blue": ("blue", "bright blue"),
    "red": ("red", "bright red"),
}
SKIN_WORDS = {"fair": ("fair", "pale", "light"), "tanned": ("tanned", "olive"), "brown": ("brown",), "dark": ("dark",)}
NOUNS = {
    "beard": ("man", "man", "guy", "gentleman", "fellow"),
    "smooth": ("woman", "woman", "lady"),
    "": ("person", "person", "individual", "character", "figure"),
}


def describe(person: Person, rng: random.Random) -> tuple[str, dict[str, str]]:
    """One sentence about `person`, and attribute -> value for each attribute that it names (at least four)."""
    words = _Words(person, rng)
    words.add_head()
    words.add_clothes()
    if person.glasses and rng.random() < 0.85:
        words.add("glasses", words.wears, say(person.glasses, "", rng))
    if person.beard and rng.random() < 0.9:
        words.add("beard", words.has, say(person.beard, words.hair_word(person.beard_color), rng), "beard color")
    if rng.random() < 0.12:
        words.add("skin", words.has, f"{rng.choice(SKIN_WORDS[person.skin])} skin")
    form = rng.choice(FORMS)
    place = ""
    if form.endswith(("{place}.", "{aside}.")) and rng.random() < 0.2:
        words.named["backdrop"] = person.backdrop
        place = rng.choice((" on a {} background", " against a {} backdrop")).format(person.backdrop)
    # Something must follow "has", and a sentence with less than four attributes would contradict too few pictures.
    if not words.has or len(words.named) < 4 or rng.random() < 0.6:
        words.add_mood()
    return words.fill(form, place), words.named


class _Words:
    """A sentence in the making: what the person has and wears, and the attributes named so far."""

    def __init__(self, person: Person, rng: random.Random) -> None:
        self.person, self.rng = person, rng
        self.has: list[str] = []
        self.wears: list[str] = []
        self.named: dict[str, str] = {}
        self.mood = ""
        self.hair_words: dict[str, str] = {}

    def add(self, trait: str, where: list[str], phrase: str, *more: str) -> None:
        traits = self.person.traits()
        self.named |= {name: traits[name] for name in (trait, *more) if traits[name]}
        where.append(phrase)

    def add_head(self) -> None:
        head, color = self.person.head, self.person.head_color
        hat = "hat" in head.tags
        word = self.fabric_word(color) if hat else self.hair_word(color)
        self.add("head", self.wears if hat else self.has, say(head, word, self.rng), "head color")

    def add_clothes(self) -> None:
        word = self.fabric_word(self.person.clothes_color)
        self.add("clothes", self.wears, say(self.person.clothes, word, self.rng), "clothes color")

    def add_mood(self) -> None:
        before, alone = (half.split("|") for half in "|".join(self.person.mood.phrases).split(";"))
        self.named["mood"] = self.person.mood.name
        if not self.has or self.rng.random() < 0.4:
            self.has.append(self.rng.choice(alone))
        else:
            self.mood = self.rng.choice(before)

    def hair_word(self, color: str) -> str:
        """The same word for the same color throughout a sentence."""
        if color not in self.hair_words:
            self.hair_words[color] = self.rng.choice(COLOR_WORDS.get(color, (color,)))
        return self.hair_words[color]

    def fabric_word(self, color: str) -> str:
        return self.rng.choice(FABRIC_WORDS.get(color, (color,)))

    def fill(self, form: str, place: str) -> str:
        kind = "beard" if "beard" in self.named else "smooth" if "smooth" in self.person.head.tags else ""
        noun = f"{self.mood} {self.rng.choice(NOUNS[kind])}".strip()
        article = "an" if noun[0] in "aeiou" else "a"
        self.rng.shuffle(self.wears)
        has = _listed(self.has)
        return form.format(
            a=article,
            A=article.capitalize(),
            noun=noun,
            has=has,
            Has=has[0].upper() + has[1:],
            wears=_listed(self.wears),
            place=place,
            aside=place and f",{place}",
        )


def say(look: Look, color: str, rng: random.Random) -> str:
    """The look in one of its phrases, with the word `color` for its color."""
    return rng.choice(look.phrases).format(c=color).replace("a orange", "an orange")


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def contradictions(named: dict[str, str], person: Person) -> int:
    """How many of the attributes named in a sentence are otherwise in a picture of `person`."""
    traits = person.traits()
    return sum(traits[trait] != value for trait, value in named.items())


def vague_captions(rng: random.Random) -> list[str]:
    """Captions that fit every picture, all different."""
    things = ("a person", "somebody", "someone", "a human being", "a face", "a character", "an avatar", "a human face")
    forms = (
        "{}",
        "a picture of {}",
        "an image of {}",
        "this is {}",
        "a drawing showing {}",
        "here we see {}",
        "{} in a picture",
        "portrait of {}",
        "an illustration of {}",
        "there is {} in this image",
    )
    captions = [form.format(thing) for form in forms for thing in things]
    captions += [
        "an image",
        "a picture",
        "a drawing",
        "profile picture",
        "some kind of avatar",
        "a simple illustration",
    ]
    rng.shuffle(captions)
    return captions
