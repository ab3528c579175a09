"""How strange a text is spelled, judged by the set's other texts alone: no dictionary, any language. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audit_plugin.arrays import Floats, Ints

SMOOTHING = 0.1
PRIOR_LETTERS = 4  # a text of two letters says little about its spelling
LONGEST = 400  # letters of a text that are read
BLOCK = 20_000  # texts whose letters are held at once
PLANES = 1 << 21  # above every code point


def bits_per_letter(texts: Sequence[str], block: int = BLOCK) -> Floats:
    """`[n]` float32: mean bits per letter under a letter-pair model of the other texts, 0 for a text without letters.

    -log2 P(b | a) over the neighboring letters (a, b) of a text, counts from the distinct other texts of the set
    with `SMOOTHING` added, letters lower-cased and ends counted as spaces. Cost O(L log L) for L letters in all, in
    memory for the letters of `block` texts.
    """
    distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    if not distinct:
        return np.zeros(0, dtype=np.float32)
    known = list(distinct)
    blocks = [known[start : start + block] for start in range(0, len(known), block)]
    pairs = [_counted(left * PLANES + right) for _, left, right in map(_letter_pairs, blocks)]
    every, count = _merged(pairs)
    letters, before = _merged([(every // PLANES, count)])
    found = [_bits(some, (every, count), (letters, before)) for some in blocks]
    total, length = (np.concatenate(values) for values in zip(*found, strict=True))
    usual = total.sum() / max(length.sum(), 1)
    mean = (total + PRIOR_LETTERS * usual) / (length + PRIOR_LETTERS)
    values = np.where(length > 0, mean, usual).astype(np.float32)
    return values[[distinct[text] for text in texts]]


Counts = tuple[Ints, Ints]  # values, ascending, and how often each occurs


def _counted(values: Ints) -> Counts:
    found, count = np.unique(values, return_counts=True)
    return found, count


def _merged(parts: Sequence[Counts]) -> Counts:
    """The counts of all parts together; a part may name a value several times."""
    values, inverse = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    weights = np.concatenate([part[1] for part in parts])
    return values, np.bincount(inverse.reshape(-1), weights, minlength=len(values)).astype(np.int64)


def _letter_pairs(texts: list[str]) -> tuple[Ints, Ints, Ints]:
    """(text, letter, next letter) of all neighboring letters, as code points."""
    framed = [f" {' '.join(text.lower().split())[:LONGEST]} " if text.strip() else "" for text in texts]
    codes = np.frombuffer("".join(framed).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)
    of = np.repeat(np.arange(len(framed)), [len(text) for text in framed])
    inside = of[1:] == of[:-1] if len(of) else np.zeros(0, dtype=bool)
    return of[:-1][inside], codes[:-1][inside], codes[1:][inside]


def _bits(texts: list[str], pairs: Counts, letters: Counts) -> tuple[Floats, Ints]:
    """(bits of each text's letter pairs in all, their number): -log2 P(right | left) from the pairs of other texts."""
    owner, left, right = _letter_pairs(texts)
    together = _elsewhere(owner, left * PLANES + right, pairs)
    before = _elsewhere(owner, left, letters)
    bits = -np.log2((together + SMOOTHING) / (before + SMOOTHING * len(letters[0])))
    total = np.bincount(owner, bits, minlength=len(texts)).astype(np.float64)
    return total, np.bincount(owner, minlength=len(texts))


def _elsewhere(owner: Ints, what: Ints, counts: Counts) -> Ints:
    """How often each value occurs in texts that are not its own."""
    number = np.searchsorted(counts[0], what)
    own = np.unique(owner * len(counts[0]) + number, return_inverse=True, return_counts=True)
    return np.asarray(counts[1][number] - own[2][own[1].reshape(-1)])
