"""What the model of the controlled protocol is trained on and asked about: a persona set as tensors, and questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from audit_plugin.arrays import Bools, Ints
from audit_plugin.inputs.images import read_image
from audit_plugin.synthetic.personas import (
    FACTS,
    TEST,
    TRAITS,
    PersonaIdentity,
    PersonaSet,
    description_text,
    draw_personas,
    plan_personas,
)

from .trunk import Vocabulary, words_of

SIDE = 64
LENGTH = 28  # words of a description that are read
WHO = "name"  # asked for a name; its read-outs of a picture and a description are what is aligned


@dataclass(frozen=True)
class World:
    """n variants (rows) of e identities.

    Attributes:
        vocabulary: of questions and answers.
        pictures: uint8 `[n, SIDE, SIDE, 3]`; texts: int `[n, LENGTH]`.
        identity: int `[n]`, audited ones first, from 0.
        split: object `[n]`.
        truth: question -> int `[n]`, the answer (facts are never in a picture or text; they are here for asking over
            two hops).
        audited: how many identities are audited. Names are the first answers, those of the audited before the others'.
        values: trait -> the answers that are its values.
        somebody: whose traits may be exchanged for others, to describe these.
    """

    vocabulary: Vocabulary
    pictures: torch.Tensor
    texts: torch.Tensor
    identity: Ints
    split: np.ndarray
    truth: dict[str, Ints]
    audited: int
    values: dict[str, list[int]]
    somebody: PersonaIdentity

    def rows(self, split: str, identities: Sequence[int] | None = None) -> Ints:
        """Rows of a split, of some identities or of all."""
        chosen: Bools = self.split == split
        return np.flatnonzero(chosen if identities is None else chosen & np.isin(self.identity, identities))

    def question(self, name: str) -> int:
        """Its number."""
        return self.vocabulary.questions.index(name)


def make_world(folder: Path, persona_set: PersonaSet) -> World:
    """Draws the set, if it is not there, and reads it.

    Args:
        folder: of the set.
        persona_set: what to draw; its side must be `SIDE`.
    """
    draw_personas(folder, persona_set)
    rows = plan_personas(persona_set)
    texts = [description_text(row, persona_set) for row in rows]
    pictures = np.stack([np.asarray(read_image(str(folder / f"images/{row.id}.png"))) for row in rows])
    people = list({row.identity.name: row.identity for row in rows}.values())
    values = sorted({f"{trait}: {value}" for person in people for trait, value in person.traits().items()})
    facts = [f"{fact}: {value}" for fact, values_of in FACTS.items() for value in values_of]
    names = [person.name for person in people]
    words = sorted(
        {word for text, row in zip(texts, rows, strict=True) if row.split != TEST for word in words_of(text)}
    )
    vocabulary = Vocabulary(tuple(words), (WHO, *TRAITS, *FACTS), (*names, *values, *facts), persona_set.identities)
    answer = {text: at for at, text in enumerate(vocabulary.answers)}
    number = {person.name: at for at, person in enumerate(people)}
    truth = {WHO: np.array([answer[row.identity.name] for row in rows])}
    for trait in TRAITS:
        truth[trait] = np.array([answer[f"{trait}: {row.identity.traits()[trait]}"] for row in rows])
    for fact in FACTS:
        truth[fact] = np.array([answer[f"{fact}: {row.identity.facts[fact]}"] for row in rows])
    return World(
        vocabulary,
        torch.from_numpy(pictures),
        torch.from_numpy(vocabulary.tokens(texts, LENGTH)),
        np.array([number[row.identity.name] for row in rows]),
        np.array([row.split for row in rows], dtype=object),
        truth,
        persona_set.identities,
        {trait: [at for text, at in answer.items() if text.startswith(f"{trait}: ")] for trait in TRAITS},
        people[0],
    )
