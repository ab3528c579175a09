"""The held-out similarity matrix is the naive mean over trials that saw neither side."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.rivals.held_out import held_out_similarity
from tests.rivals_fixtures import unit


def test_it_is_the_naive_loop():
    rng = np.random.default_rng(0)
    r, n = 6, 13
    member = rng.random((r, n)) < 0.6
    vectors = [[torch.from_numpy(unit(rng.standard_normal((n, 5)))) for _ in range(2)] for _ in range(r)]
    found = held_out_similarity(lambda number: vectors[number], member)
    assert found.dtype == np.float32
    for i in range(n):
        for j in range(n):
            seen = [
                float(vectors[t][0][i] @ vectors[t][1][j]) for t in range(r) if not member[t, i] and not member[t, j]
            ]
            if seen:
                np.testing.assert_allclose(found[i, j], np.mean(seen), atol=1e-6)
            else:
                assert np.isnan(found[i, j])
    assert np.isnan(found).any()


def test_what_members_say_changes_nothing():
    rng = np.random.default_rng(1)
    member = np.array([[True, False, False], [False, True, False]])
    vectors = [[torch.from_numpy(unit(rng.standard_normal((3, 4)))) for _ in range(2)] for _ in range(2)]
    before = held_out_similarity(lambda number: vectors[number], member)
    vectors[0][0][0] = torch.tensor([0.0, 0, 0, 1])
    np.testing.assert_array_equal(held_out_similarity(lambda number: vectors[number], member), before)
