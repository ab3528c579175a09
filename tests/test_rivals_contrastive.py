"""CLIP similarity, negCLIPLoss, CSLS and retrieval rank against cases worked out by hand and against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.rivals.contrastive import clip_similarity, csls, negclip_loss, retrieval_rank
from benchmarks.rivals.material import Material


def material(similarity, repeats=None):
    similarity = np.array(similarity, dtype=float)
    eye = np.eye(len(similarity))
    return Material(similarity, eye, eye, repeats)


def masked(n, *pairs):
    repeats = np.zeros((n, n), dtype=bool)
    for i, j in pairs:
        repeats[i, j] = repeats[j, i] = True
    return repeats


def test_clip_similarity_is_one_less_the_diagonal():
    np.testing.assert_allclose(clip_similarity(material([[0.9, 0.1], [0.3, -0.2]])), [0.1, 1.2])


def test_negclip_by_hand():
    # exponentials at tau 1: [[2, 1], [1, 3]]; means of row and column 0: 1.5, of 1: 2
    found = negclip_loss(material([[math.log(2), 0], [0, math.log(3)]]), temperature=1.0)
    np.testing.assert_allclose(found, [math.log(1.5 / 2), math.log(2 / 3)])


@pytest.mark.parametrize("temperature", [0.005, 0.05, 1.0])
def test_negclip_is_the_naive_loop(temperature):
    rng = np.random.default_rng(0)
    similarity, repeats = rng.uniform(-1, 1, (9, 9)), masked(9, (0, 3), (4, 5))
    similarity[7, 2] = np.nan
    wanted = []
    for i in range(9):
        others = [j for j in range(9) if not repeats[i, j]]
        row = [similarity[i, j] / temperature for j in others if not np.isnan(similarity[i, j])]
        column = [similarity[j, i] / temperature for j in others if not np.isnan(similarity[j, i])]
        sides = [max(v) + math.log(sum(math.exp(x - max(v)) for x in v) / len(v)) for v in (row, column)]
        wanted.append(temperature / 2 * sum(sides) - similarity[i, i])
    np.testing.assert_allclose(negclip_loss(material(similarity, repeats), temperature), wanted)


def test_csls_by_hand():
    found = csls(material([[0.9, 0.1, 0.2], [0.3, 0.8, 0.1], [0.2, 0.4, 0.5]]), k=2)
    # rows' best two .55 .55 .45, columns' .6 .6 .35, less twice the diagonal
    np.testing.assert_allclose(found, [-0.65, -0.45, -0.2])


def test_csls_leaves_repeats_out_and_takes_what_is_there():
    found = csls(material([[0.9, 0.1], [0.3, 0.8]], masked(2, (0, 1))), k=10)
    np.testing.assert_allclose(found, [0, 0], atol=1e-12)


def test_ranks_by_hand():
    similarity = [[0.5, 0.7, 0.6], [0.1, 0.9, 0.2], [0.8, 0.3, 0.4]]
    found = retrieval_rank(material(similarity))
    # ranks among texts 3 1 2, among images 2 1 2
    np.testing.assert_allclose(found, [(math.log(3) + math.log(2)) / 2, 0, math.log(2)])
    np.testing.assert_allclose(retrieval_rank(material(similarity, masked(3, (0, 1))))[0], math.log(2))


def test_ties_of_rank_count_half():
    np.testing.assert_allclose(retrieval_rank(material(np.full((3, 3), 0.4))), math.log(2))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 5))
def test_a_lower_own_similarity_is_never_less_suspicious(seed, row):
    similarity = np.random.default_rng(seed).uniform(-1, 1, (6, 6))
    lower = similarity.copy()
    lower[row, row] -= 0.3
    for method in (clip_similarity, negclip_loss, csls, retrieval_rank):
        assert method(material(lower))[row] >= method(material(similarity))[row] - 1e-9
