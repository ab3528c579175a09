from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.scoring import text_surprise
from audit_plugin.scoring.text_surprise import bits_per_letter


def naive(texts: list[str]) -> list[float]:
    """Every text against the counted letter pairs of the others."""
    distinct = list(dict.fromkeys(texts))
    framed = [f" {' '.join(t.lower().split())[: text_surprise.MAX_LETTERS]} " if t.strip() else "" for t in distinct]
    alphabet = len(set("".join(framed)))
    bits = []
    for own, text in enumerate(framed):
        pairs, before = Counter(), Counter()
        for other in framed[:own] + framed[own + 1 :]:
            pairs.update(itertools.pairwise(other))
            before.update(other[:-1])
        a = text_surprise.SMOOTHING
        bits.append([-np.log2((pairs[x, y] + a) / (before[x] + a * alphabet)) for x, y in itertools.pairwise(text)])
    all_bits = [b for row in bits for b in row]
    set_mean, prior = (float(np.mean(all_bits)) if all_bits else 0.0), text_surprise.PRIOR_LETTERS
    value = {t: (sum(b) + prior * set_mean) / (len(b) + prior) for t, b in zip(distinct, bits, strict=True)}
    return [value[t] for t in texts]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet="abC é\U0001f600 ", max_size=9), max_size=8))
def test_surprise_is_what_counting_finds(texts: list[str]) -> None:
    values = bits_per_letter(texts)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, naive(texts), rtol=1e-4, atol=1e-4)


def test_the_size_of_a_block_changes_nothing() -> None:
    texts = ["a red cat", "a red dog", "", "zzz", "a red cat", "日本", "a green tree"]
    whole = bits_per_letter(texts)
    assert all(bits_per_letter(texts, block).tobytes() == whole.tobytes() for block in (1, 2, 5))


def test_random_letters_stand_out_among_words_and_repeats_do_not_vouch_for_themselves() -> None:
    things, colors = ("cat", "dog", "house", "tree", "boat"), ("red", "green", "blue", "grey")
    texts = [f"a {color} {thing}" for thing in things for color in colors]
    odd = ["xqzvk wjpf"] * 3
    values = bits_per_letter(texts + odd)
    assert values[-3:].min() > values[:-3].max() + 1
    assert len(set(values[-3:].tolist())) == 1


@pytest.mark.parametrize("texts", [[], [""], ["", "  "], ["a"], ["\ud800x", "a"]])
def test_texts_without_letters_or_with_broken_ones_have_a_number(texts: list[str]) -> None:
    values = bits_per_letter(texts)
    assert len(values) == len(texts)
    assert np.isfinite(values).all()
