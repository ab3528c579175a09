"""The whole table on a drawn noisy set: it finds the swaps, in any row order, in seconds."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks.rivals import DUPLICATES, OUTLIERS, RIVALS
from benchmarks.rivals.tuning import auroc
from tests.rivals_fixtures import noisy_set

FREE = {name for name, rival in RIVALS.items() if not rival.classes_only}


def test_the_table_is_complete():
    assert all(name == rival.name for table in (RIVALS, OUTLIERS, DUPLICATES) for name, rival in table.items())
    assert {name for name, rival in RIVALS.items() if not rival.label_free} == {"LEMoN tuned"}
    assert {name for name, rival in RIVALS.items() if rival.classes_only} == {
        "confident learning",
        "logistic regression",
    }
    for table in (RIVALS, OUTLIERS, DUPLICATES):
        for rival in table.values():
            assert len(rival.function.__doc__) > 40


@pytest.mark.parametrize("classes", [False, True])
def test_every_rival_finds_easy_swaps_quickly(classes):
    material, wrong = noisy_set(classes=classes, concepts=10 if classes else 40)
    start = time.process_time()
    found = {name: rival.function(material) for name, rival in RIVALS.items() if rival.runs_on(material)}
    assert time.process_time() - start < 5
    assert set(found) == (set(RIVALS) if classes else FREE)
    for name, suspicion in found.items():
        assert suspicion.shape == (400,), name
        assert auroc(suspicion, wrong) > 0.9, name


@pytest.mark.parametrize("name", sorted(FREE))
def test_row_order_does_not_matter(name):
    material, _ = noisy_set(n=150)
    move = np.random.default_rng(3).permutation(150)
    here, there = RIVALS[name].function(material)[move], RIVALS[name].function(material.rows(move))
    np.testing.assert_allclose(here, there, atol=1e-5)


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_every_point_of_a_grid_runs(name):
    material, _ = noisy_set(n=80, classes=True, concepts=8)
    for point in RIVALS[name].points():
        assert np.isfinite(RIVALS[name].function(material, **point)).all(), point


def test_what_is_missing_is_noticed():
    material, _ = noisy_set(n=40)
    assert not RIVALS["confident learning"].runs_on(material)
    assert RIVALS["AUM"].runs_on(material)
