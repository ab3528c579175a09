"""How unusual a text's spelling is, judged by the set's other texts alone: no dictionary, any language. Pure numpy.

A text is a chain of letters, lower-cased, with a space at both ends. Its surprise under the counts of letter pairs of
the *other* distinct texts is the mean over its pairs (a, b) of

    -log2 P(b | a),    P(b | a) = (count_ab + SMOOTHING) / (count_a + SMOOTHING * number of letters in the set)

taken together with PRIOR_LETTERS pairs of the set's mean surprise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audit_plugin.arrays import Floats, Ints

SMOOTHING = 0.1
PRIOR_LETTERS = 4  # a text of two letters says little about its spelling
MAX_LETTERS = 400  # of a text that are read
BLOCK_TEXTS = 20_000  # texts whose letters are in memory at once; changes no result
CODE_POINTS = 1 << 21  # above every code point: a pair (a, b) is the number a * CODE_POINTS + b

_Counts = tuple[Ints, Ints]  # distinct values `[u]`, ascending, and how often each occurs `[u]`


def bits_per_letter(texts: Sequence[str], block: int = BLOCK_TEXTS) -> Floats:
    """`[n]` float32: mean bits per letter of each text, see above; 0 where no text has a letter.

    O(L log L) for L letters in all, in memory for the letters of `block` texts.
    """
    position = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    if not position:
        return np.zeros(0, dtype=np.float32)
    distinct = list(position)
    blocks = [distinct[start : start + block] for start in range(0, len(distinct), block)]

    block_counts = []
    for block_texts in blocks:
        _, left, right = _letter_pairs(block_texts)
        block_counts.append(np.unique(left * CODE_POINTS + right, return_counts=True))
    pairs = _merge(block_counts)
    letters = _merge([(pairs[0] // CODE_POINTS, pairs[1])])  # first letters of the pairs
    total, length = np.concatenate([_sum_bits(block_texts, pairs, letters) for block_texts in blocks], axis=1)
    set_mean = total.sum() / max(length.sum(), 1)
    mean = (total + PRIOR_LETTERS * set_mean) / (length + PRIOR_LETTERS)
    surprise = np.where(length > 0, mean, set_mean).astype(np.float32)
    return surprise[[position[text] for text in texts]]


def _merge(parts: Sequence[_Counts]) -> _Counts:
    """The counts of all parts together; a part may name a value several times."""
    values, inverse = np.unique(np.concatenate([values for values, _ in parts]), return_inverse=True)
    counts = np.bincount(inverse.reshape(-1), np.concatenate([counts for _, counts in parts]), minlength=len(values))
    return values, counts.astype(np.int64)


def _letter_pairs(texts: list[str]) -> tuple[Ints, Ints, Ints]:
    """(position of the text, letter, next letter) of all adjacent letters `[L]`, as code points."""
    framed = [f" {' '.join(text.lower().split())[:MAX_LETTERS]} " if text.strip() else "" for text in texts]
    codes = np.frombuffer("".join(framed).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)
    text = np.repeat(np.arange(len(framed)), [len(letters) for letters in framed])
    same_text = text[1:] == text[:-1] if len(text) else np.zeros(0, dtype=bool)
    return text[:-1][same_text], codes[:-1][same_text], codes[1:][same_text]


def _sum_bits(texts: list[str], pairs: _Counts, letters: _Counts) -> Floats:
    """`[2, q]`: sum of -log2 P(b | a) over each text's letter pairs, number of these pairs."""
    text, left, right = _letter_pairs(texts)
    count_ab = _count_in_others(text, left * CODE_POINTS + right, pairs)
    count_a = _count_in_others(text, left, letters)
    bits = -np.log2((count_ab + SMOOTHING) / (count_a + SMOOTHING * len(letters[0])))
    return np.stack([np.bincount(text, bits, minlength=len(texts)), np.bincount(text, minlength=len(texts))])


def _count_in_others(text: Ints, values: Ints, counts: _Counts) -> Ints:
    """`[L]`: how often each of the `values` `[L]` occurs in other texts than its own."""
    distinct, total = counts
    number = np.searchsorted(distinct, values)
    _, inverse, own_counts = np.unique(text * len(distinct) + number, return_inverse=True, return_counts=True)
    return np.asarray(total[number] - own_counts[inverse.reshape(-1)])
