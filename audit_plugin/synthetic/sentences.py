"""English descriptions of drawn persons, with the attributes that each one names."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

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
    head, hat = person.head, "hat" in person.head.tags
    has: list[str] = []
    wears: list[str] = []
    names = ["head", "head color", "clothes", "clothes color"]  # of the attributes that the sentence names
    head_word = color_word(person.head_color, FABRIC_WORDS if hat else COLOR_WORDS, rng)
    (wears if hat else has).append(say(head, head_word, rng))
    wears.append(say(person.clothes, color_word(person.clothes_color, FABRIC_WORDS, rng), rng))
    if person.glasses and rng.random() < 0.85:
        names.append("glasses")
        wears.append(say(person.glasses, "", rng))
    if person.beard and rng.random() < 0.9:
        names += ["beard", "beard color"]
        # one word for one color of hair throughout the sentence
        is_hair_color = not hat and person.beard_color == person.head_color
        beard_word = head_word if is_hair_color else color_word(person.beard_color, COLOR_WORDS, rng)
        has.append(say(person.beard, beard_word, rng))
    if rng.random() < 0.12:
        names.append("skin")
        has.append(f"{rng.choice(SKIN_WORDS[person.skin])} skin")
    form = rng.choice(FORMS)
    place = ""
    if form.endswith(("{place}.", "{aside}.")) and rng.random() < 0.2:
        names.append("backdrop")
        place = rng.choice((" on a {} background", " against a {} backdrop")).format(person.backdrop)
    traits = person.traits()
    named = {name: traits[name] for name in names if traits[name]}
    mood = ""
    # Something must follow "has", and a sentence with less than four attributes would contradict too few pictures.
    if not has or len(named) < 4 or rng.random() < 0.6:
        named["mood"] = person.mood.name
        before, alone = (half.split("|") for half in "|".join(person.mood.phrases).split(";"))
        if not has or rng.random() < 0.4:
            has.append(rng.choice(alone))
        else:
            mood = rng.choice(before)
    kind = "beard" if "beard" in named else "smooth" if "smooth" in head.tags else ""
    noun = f"{mood} {rng.choice(NOUNS[kind])}".strip()
    article = "an" if noun[0] in "aeiou" else "a"
    rng.shuffle(wears)
    aside = place and f",{place}"
    phrases = {"a": article, "noun": noun, "has": listed(has), "wears": listed(wears), "place": place, "aside": aside}
    return form.format(A=article.capitalize(), Has=capitalized(phrases["has"]), **phrases), named


def color_word(color: str, words: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    """One of the words for a color, by default its name."""
    return rng.choice(words.get(color, (color,)))


def say(look: Look, color: str, rng: random.Random) -> str:
    """The look in one of its phrases, with the word `color` for its color."""
    return rng.choice(look.phrases).format(c=color).replace("a orange", "an orange")


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def capitalized(text: str) -> str:
    """The text with a capital letter at its beginning."""
    return text[0].upper() + text[1:]


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
    captions += ["an image", "a picture", "a drawing", "profile picture"]
    captions += ["some kind of avatar", "a simple illustration"]
    rng.shuffle(captions)
    return captions
