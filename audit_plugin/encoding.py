"""What an encoder is.

It turns one medium into *pieces* (an image is one, a long text several), each piece into a vector; the medium's
feature is the mean over its pieces. Pieces of one shape are encoded in batches of one size, so that a feature never
depends on what else is in its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Floats

MAX_PIECES = 64


@dataclass(frozen=True)
class Identity:
    """What is known of an encoder without loading it.

    Attributes:
        key: name, weights and preprocessing: features with equal keys are interchangeable.
        space: encoders with one non-empty `space` embed into a common space.
        english: captions in other scripts are outside what it was trained on.
    """

    key: str
    space: str = ""
    english: bool = False


@dataclass(frozen=True)
class Encoder:
    """One modality's encoder.

    Attributes:
        identity: who it is.
        batch: pieces per batch.
        prepare: medium as `Modality.read` gives it -> its pieces (arrays).
        encode: stacked pieces `[batch, ...]` -> float32 `[batch, d]`.
    """

    identity: Identity
    batch: int
    prepare: Callable[[Any], list[np.ndarray]]
    encode: Callable[[np.ndarray], Floats]


def split_text(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text in parts that fit the encoder, halved near a space; at most `MAX_PIECES`, from the start."""
    parts: list[str] = []
    todo = [text]
    while todo and len(parts) < MAX_PIECES:
        part = todo.pop()
        if len(part) < 2 or fits(part):
            parts.append(part)
            continue
        middle = len(part) // 2
        space = part.rfind(" ", 0, middle)
        cut = space if space > middle // 2 else middle
        todo += [part[cut:].strip() or part[cut:], part[:cut]]
    return parts
