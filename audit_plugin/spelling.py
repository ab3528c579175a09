"""How strange a text is spelled, judged by the set's other texts alone: no dictionary, any language. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import Floats, Ints

SMOOTHING = 0.1
PRIOR_LETTERS = 4  # a text of two letters says little about its spelling
LONGEST = 400  # letters of a text that are read


def surprise(texts: Sequence[str]) -> Floats:
    """`[n]` float32: mean bits per letter under a letter-pair model of the other texts, 0 for a text without letters.

    -log2 P(b | a) over the neighbouring letters (a, b) of a text, counts from the distinct other texts of the set
    with `SMOOTHING` added, letters lower-cased and ends counted as spaces. Cost O(L log L) for L letters in all.
    """
    distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    if not distinct:
        return np.zeros(0, dtype=np.float32)
    owner, left, right = _letter_pairs(list(distinct))
    bits = -np.log2(_probability(owner, left, right))
    total = np.bincount(owner, bits, minlength=len(distinct))
    count = np.bincount(owner, minlength=len(distinct))
    usual = bits.mean() if len(bits) else 0.0
    mean = (total + PRIOR_LETTERS * usual) / (count + PRIOR_LETTERS)
    values = np.where(count > 0, mean, usual).astype(np.float32)
    return values[[distinct[text] for text in texts]]


def _letter_pairs(texts: list[str]) -> tuple[Ints, Ints, Ints]:
    """(text, letter, next letter) of all neighbouring letters, letters numbered from 0."""
    framed = [f" {' '.join(text.lower().split())[:LONGEST]} " if text.strip() else "" for text in texts]
    codes = np.frombuffer("".join(framed).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    letters = np.unique(codes, return_inverse=True)[1].reshape(-1)
    of = np.repeat(np.arange(len(framed)), [len(text) for text in framed])
    inside = of[1:] == of[:-1] if len(of) else np.zeros(0, dtype=bool)
    return of[:-1][inside], letters[:-1][inside], letters[1:][inside]


def _probability(owner: Ints, left: Ints, right: Ints) -> Floats:
    """P(right | left) of each pair from the pairs of the other texts."""
    alphabet = int(max(left.max(initial=0), right.max(initial=0))) + 1
    pair = left * alphabet + right
    together = _elsewhere(owner, pair)
    before = _elsewhere(owner, left)
    return (together + SMOOTHING) / (before + SMOOTHING * alphabet)


def _elsewhere(owner: Ints, what: Ints) -> Floats:
    """How often each value occurs in texts that are not its own."""
    number = np.unique(what, return_inverse=True)[1].reshape(-1)
    span = int(number.max(initial=0)) + 1
    own = np.unique(owner * span + number, return_inverse=True, return_counts=True)
    return np.bincount(number)[number] - own[2][own[1].reshape(-1)] if len(number) else np.zeros(0)
