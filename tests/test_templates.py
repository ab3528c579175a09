"""Captions that are the same but for rare words: found, quoted without personal data, and ordinary sets left alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.audit.text_notes import LEAST_TEXTS, template_notes
from tests.captions import ORDINARY


def texts_of(form: str, count: int, seed: int = 0) -> list[str]:
    draws = random.Random(seed)
    return [form.format("".join(draws.choices("abcdefghij", k=8))) for _ in range(count)]


def test_templates_are_named_with_their_shares() -> None:
    texts = texts_of("a photo of a {}, high quality", 90) + texts_of("{} for sale in good condition", 30)
    texts += [" ".join(texts_of("{}", 7, seed)) for seed in range(80)]  # texts that have nothing in common
    (note,) = template_notes(texts * 2)  # a repeated text counts once
    assert "'a photo of a … high quality' (45%), '… for sale in good condition' (15%) of the distinct texts" in note


def test_ordinary_captions_follow_none() -> None:
    others = [" ".join(texts_of("{}", 6, seed)) for seed in range(LEAST_TEXTS)]
    assert template_notes([*ORDINARY, *others]) == []


def test_few_texts_short_ones_and_class_names_follow_none() -> None:
    assert template_notes(texts_of("a photo of a {}", LEAST_TEXTS - 1)) == []
    assert template_notes(texts_of("a {}", 300)) == []
    assert template_notes(["cat", "dog"] * 300) == []


@pytest.mark.parametrize("contact", ["jane@example.org", "+49 170 1234567", "030 1234567"])
def test_personal_data_in_a_template_are_not_quoted(contact: str) -> None:
    (note,) = template_notes(texts_of(f"a chair of {{}} wood, call {contact} today", 300))
    assert "a chair of … wood, call" in note
    assert not any(part in note for part in contact.split())


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), max_size=150), st.randoms())
def test_any_texts_in_any_order_give_the_same_note(texts: list[str], draws: random.Random) -> None:
    texts = [*texts, *texts_of("a photo of a {} at sea", 120)]
    shuffled = draws.sample(texts, len(texts))
    assert template_notes(shuffled) == template_notes(texts)
