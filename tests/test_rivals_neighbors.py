"""Deep k-NN, Discrepancy and Diversity, neighbor captions."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.rivals.material import Material
from benchmarks.rivals.neighbors import VARIANTS, cluster, deep_knn, discrepancy, neighbor_captions
from tests.rivals_fixtures import unit

LINE = unit(np.column_stack([np.cos([0, 0.1, 0.3, 0.6]), np.sin([0, 0.1, 0.3, 0.6])]))


def test_deep_knn_by_hand():
    # nearest two of 0: 1 2; of 1: 0 2; of 2: 1 and 0 or 3 (at .3 each); of 3: 2 1
    material = Material(np.eye(4), LINE, LINE, labels=np.array([0, 0, 1, 0]))
    found = deep_knn(material, k=2)
    np.testing.assert_allclose(found, [0.5, 0.5, 1, 0.5])


def test_captions_are_clustered_where_there_are_no_labels():
    rng = np.random.default_rng(0)
    text = unit(np.repeat(np.eye(4), 10, axis=0) + 0.01 * rng.standard_normal((40, 4)))
    image = text.copy()
    image[0] = text[15]
    image[0, 0] += 0.01
    material = Material(image @ text.T, unit(image), text)
    found = deep_knn(material, k=5, clusters=4)
    assert found[0] == 1
    assert found[1:].max() <= 0.2


def test_clusters_do_not_depend_on_the_order():
    rng = np.random.default_rng(1)
    features = unit(rng.standard_normal((80, 8)))
    move = rng.permutation(80)
    here, there = cluster(features, 6)[move], cluster(features[move], 6)
    np.testing.assert_array_equal(here[:, None] == here[None], there[:, None] == there[None])
    assert len(np.unique(cluster(features, 100))) == 40


@pytest.mark.parametrize("variant", VARIANTS)
def test_discrepancy_is_the_naive_loop(variant):
    rng = np.random.default_rng(2)
    n, k = 15, 3
    x, y = unit(rng.standard_normal((n, 6))), unit(rng.standard_normal((n, 5)))
    near = [sorted((j for j in range(n) if j != i), key=lambda j: -float(y[i] @ y[j]))[:k] for i in range(n)]
    z = x if variant.endswith("image") else y
    wanted = []
    for i in range(n):
        if variant.startswith("diversity"):
            values = [1 - float(z[a] @ z[b]) for a in near[i] for b in near[i]]
        else:
            values = [1 - float(z[i] @ z[b]) for a in near[i] for b in near[a] if b != i]
        wanted.append(np.mean(values))
    np.testing.assert_allclose(discrepancy(Material(np.eye(n), x, y), variant, k), wanted, atol=1e-6)


def test_neighbor_captions_by_hand():
    text = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    found = neighbor_captions(Material(np.eye(4), LINE, text), k=2)
    # mean captions of 0's and 1's neighbors point at 45 degrees, so do those of 3
    half = 1 - np.sqrt(0.5)
    np.testing.assert_allclose(found[[0, 1, 3]], half, atol=1e-6)
