"""A drawn noisy set for the rivals: concepts in a shared space, captions swapped among some rows."""

from __future__ import annotations

import numpy as np

from benchmarks.rivals import Material


def unit(values):
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def noisy_set(n=400, seed=0, rate=0.1, blur=1.0, concepts=40, classes=False):
    """(material, bool `[n]` the swapped rows): 40 concepts of 10 rows, each modality a space of its own."""
    rng = np.random.default_rng(seed)
    d = 48
    concept = rng.permutation(np.arange(n) % concepts)
    meaning = rng.standard_normal((concepts, d))[concept] + 0.6 * rng.standard_normal((n, d))
    wrong = np.zeros(n, dtype=bool)
    bad = rng.choice(n, int(rate * n), replace=False)
    wrong[bad] = True
    source = np.arange(n)
    source[bad] = np.roll(bad, 1)
    wrong &= concept[source] != concept
    left = unit(meaning + blur * rng.standard_normal((n, d)))
    right = unit(meaning[source] + blur * rng.standard_normal((n, d)))
    image = unit(meaning @ rng.standard_normal((d, 64)) / 8 + 0.2 * rng.standard_normal((n, 64)))
    text = unit(meaning[source] @ rng.standard_normal((d, 32)) / 8 + 0.2 * rng.standard_normal((n, 32)))
    similarity = left @ right.T
    confidences = 0.5 + 0.1 * rng.standard_normal((6, n)) - 0.4 * wrong
    extra = {"margins": 8 * (confidences - 0.5), "confidences": np.clip(confidences, 0, 1), "losses": 1 - confidences}
    if classes:
        likely = np.full((n, concepts), 0.3 / concepts)
        likely[np.arange(n), concept] += 0.7
        likely = likely * rng.uniform(0.5, 1.5, likely.shape)
        extra |= {"labels": concept[source], "probabilities": likely / likely.sum(1, keepdims=True)}
    return Material(similarity, image, text, **extra), wrong
