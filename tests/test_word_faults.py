"""The benchmark of marked words: a planted fault is one stretch of words that says something else than the picture."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from audit_plugin.synthetic.persons import draw_persons
from audit_plugin.synthetic.sentences import describe
from benchmarks import word_faults


@pytest.mark.parametrize(
    ("before", "after", "span"),
    [
        ("a man with red hair", "a man with blue hair", (11, 15)),
        ("a man in a hat", "a man in a blue top hat", None),  # something was added
        ("red hair, red hat", "blue hair, blue hat", None),  # two stretches
        ("a man with red hair", "a man with red hair", None),
        ("a red hat on a man", "a broad pink cap on a man", (2, 16)),
    ],
)
def test_a_fault_is_one_stretch_of_other_words(before: str, after: str, span: tuple[int, int] | None) -> None:
    assert word_faults.changed_span(before, after) == span


def test_faults_of_persons_contradict_the_person_and_nothing_else_changes() -> None:
    people, others = draw_persons(40, random.Random(0)), draw_persons(200, random.Random(1))
    found = 0
    for number, person in enumerate(people):
        fault = word_faults.one_fault(person, others, number, random.Random(number))
        if fault is None:
            continue
        found += 1
        text = describe(person, random.Random(number))[0]
        assert fault.text != text
        assert text.startswith(fault.text[: fault.start])
        assert text.endswith(fault.text[fault.end :])
    assert found > 30


def test_a_color_is_clear_where_most_of_the_middle_has_it(tmp_path: object) -> None:
    pixels = np.full((64, 64, 3), 235, np.uint8)
    pixels[16:48, 16:48] = word_faults.COLORS["red"]
    Image.fromarray(pixels).save(f"{tmp_path}/red.png")
    assert word_faults.clear_color(f"{tmp_path}/red.png") == "red"
    pixels[16:48, 16:32] = word_faults.COLORS["blue"]
    pixels[16:32, 16:48] = word_faults.COLORS["green"]
    Image.fromarray(pixels).save(f"{tmp_path}/mixed.png")
    assert word_faults.clear_color(f"{tmp_path}/mixed.png") == ""
