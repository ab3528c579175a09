from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin import neighbors as nn
from audit_plugin.arrays import Neighbors
from audit_plugin.neighbors import exact, near_duplicates
from tests.core_fixtures import unit


def naive(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All similarities, self struck out, sorted by similarity and then by index."""
    n = len(vectors)
    similarities = vectors @ vectors.T
    indices, values = np.full((n, k), -1), np.full((n, k), np.nan, np.float32)
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: (-similarities[i, j], j))[:k]
        indices[i, : len(others)] = others
        values[i, : len(others)] = similarities[i, others]
    return indices, values


@pytest.mark.parametrize(("n", "k"), [(40, 5), (300, 20), (6, 5), (5, 5), (4, 9), (2, 1), (2, 3)])
def test_search_is_the_sorted_full_product(n: int, k: int) -> None:
    vectors = unit(np.random.default_rng(n).standard_normal((n, 16)))
    found = nn.exact_search(vectors, k)
    indices, values = naive(vectors, k)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.similarities, values, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_without_another_row_there_is_no_neighbor(n: int) -> None:
    found = nn.exact_search(np.ones((n, 3), np.float32), 4)
    assert found.indices.shape == (n, 4)
    assert (found.indices == -1).all()
    assert np.isnan(found.similarities).all()


@pytest.mark.parametrize("copies", [2, 3, 8])
def test_exact_repeats_never_hide_a_row_behind_itself(copies: int) -> None:
    vectors = np.repeat(np.eye(4, dtype=np.float32), copies, axis=0)  # rows of a block are equal
    found = nn.exact_search(vectors, 4)
    rows = np.arange(len(vectors))
    assert (found.indices != rows[:, None]).all()
    same = np.minimum(copies - 1, 4)
    assert (found.indices[:, :same] // copies == (rows // copies)[:, None]).all()
    assert (found.similarities[:, :same] == 1).all()
    assert (found.similarities[:, same:] == 0).all()
    assert all(len(set(row)) == 4 for row in found.indices.tolist())


def test_all_rows_equal_gives_k_different_others() -> None:
    found = nn.exact_search(np.ones((50, 3), np.float32) / np.sqrt(np.float32(3)), 6)
    assert all(len(set(row)) == 6 for row in found.indices.tolist())
    assert (found.indices != np.arange(50)[:, None]).all()


def test_the_search_without_faiss_finds_the_same() -> None:
    vectors = unit(np.random.default_rng(1).standard_normal((50, 8)))
    values, indices = exact.top_products(vectors, 7, vectors)
    for block in (7, 1024):
        torch_values, torch_indices = exact._top_products_torch(vectors, 7, vectors, block)
        np.testing.assert_array_equal(torch_indices, indices)
        np.testing.assert_allclose(torch_values, values, atol=1e-6)


# --- groups --------------------------------------------------------------------------------------------------------


def clumps(seed: int, n: int = 60, spread: float = 0.25) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit(rng.standard_normal((8, 6))[rng.integers(0, 8, n)] + spread * rng.standard_normal((n, 6)))


def usual_distance(found: Neighbors) -> np.ndarray:
    """Distance to the tenth or last neighbor, capped; 0 without any."""
    known = [np.sort(1 - row[np.isfinite(row)]) for row in found.similarities]
    return np.array(
        [min(d[: near_duplicates.LOCAL_NEIGHBORS][-1], near_duplicates.FAR) if len(d) else 0 for d in known]
    )


def grouped(vectors: np.ndarray, same: np.ndarray, largest: int = 1000) -> tuple[np.ndarray, int, np.ndarray]:
    """(groups, number split, usual distances), neighbors sought over distinct contents as the contract says."""
    _, first, content = np.unique(same, return_index=True, return_inverse=True)
    among = nn.exact_search(vectors[first], 20)
    found = Neighbors(np.where(among.indices >= 0, first[among.indices], -1)[content], among.similarities[content])
    return *nn.group_near_duplicates(vectors, found, same, largest), usual_distance(found)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.05, 0.1, 0.25]))
def test_every_two_members_of_a_group_are_near_duplicates(seed: int, spread: float) -> None:
    vectors = clumps(seed, spread=spread)
    groups, split, usual = grouped(vectors, np.arange(60))
    assert split == 0
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        distance = 1 - vectors[rows].astype(np.float64) @ vectors[rows].T
        assert (distance <= near_duplicates.NEAR * np.sqrt(np.outer(usual[rows], usual[rows])) + 3e-6).all()
    first = [int(np.flatnonzero(groups == g)[0]) for g in range(groups.max() + 1)]
    assert first == sorted(first)  # numbered by first row, without gaps


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_groups_follow_their_rows(seed: int) -> None:
    vectors, order = clumps(seed, spread=0.1), np.random.default_rng(seed).permutation(60)
    groups, moved = grouped(vectors, np.arange(60))[0][order], grouped(vectors[order], np.arange(60))[0]
    np.testing.assert_array_equal(groups[:, None] == groups, moved[:, None] == moved)


def circle(degrees: list[float]) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_a_chain_is_not_one_group() -> None:
    # twelve rows spread over the circle set the scale (tenth neighbors beyond FAR). On it, cosine distances up to
    # NEAR * FAR are near: a step of .9 of that angle is near, two steps are not; single linkage would take all three
    step = float(np.degrees(np.arccos(1 - near_duplicates.NEAR * near_duplicates.FAR))) * 0.9
    far = [90.0 + 20 * i for i in range(12)]
    groups = grouped(circle([0, step, 2 * step, *far]), np.arange(15))[0]
    assert len(set(groups[:3].tolist())) == 2
    assert groups[1] in (groups[0], groups[2])
    assert not set(groups[:3].tolist()) & set(groups[3:].tolist())


def test_near_duplicates_are_found_whatever_the_width_of_the_set() -> None:
    """A pair a hundredth of the usual distance apart is found in a wide set and in a narrow cone alike."""
    rng = np.random.default_rng(8)
    for width in (1.0, 0.05):
        cloud = rng.standard_normal((80, 12)) * width
        cloud[1] = cloud[0] + 0.02 * width * rng.standard_normal(12)
        cloud[:, 0] += 0 if width == 1 else 1
        groups = grouped(unit(cloud), np.arange(80))[0]
        assert groups[0] == groups[1]
        assert len(set(groups.tolist())) == 79


def test_exact_repeats_stay_together_and_large_groups_are_split() -> None:
    vectors = np.concatenate([np.tile(circle([0]), (30, 1)), circle([60.0 + 20 * i for i in range(12)])])
    same = np.concatenate([np.arange(30) // 6, np.arange(10, 22)])  # five contents that look alike, six rows each
    groups, split, _ = grouped(vectors, same, largest=2)
    assert split == 1
    assert all(len(set(groups[same == s].tolist())) == 1 for s in range(5))
    contents_of = [len(set(same[groups == g].tolist())) for g in np.unique(groups[:30])]
    assert sorted(contents_of) == [1, 2, 2]


def test_unlike_rows_stand_alone_in_order() -> None:
    groups, split, _ = grouped(np.eye(5, dtype=np.float32), np.arange(5))
    assert groups.tolist() == [0, 1, 2, 3, 4]
    assert split == 0


def test_one_row_is_one_group() -> None:
    assert grouped(np.ones((1, 3), np.float32), np.zeros(1, int))[0].tolist() == [0]


labels = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25)


@settings(deadline=None)
@given(labels)
def test_joined_groups_are_the_finest_partition_above_both(pairs: list[tuple[int, int]]) -> None:
    left, right = (np.array(side) for side in zip(*pairs, strict=True))
    joined = nn.join_groups(left, right)
    linked = (left[:, None] == left) | (right[:, None] == right)
    reach = linked
    for _ in range(len(pairs)):  # transitive closure
        reach = (reach.astype(int) @ linked.astype(int)) > 0
    np.testing.assert_array_equal(joined[:, None] == joined, reach)
    assert joined[0] == 0


def exactly(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    """Rows by similarity in float64, then by index; each row summed by itself, so that equal rows are equal."""
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    near = np.array([[np.sum(a * b) for b in v] for a in q]).astype(np.float32)
    return np.array([sorted(range(len(v)), key=lambda j: (-row[j], j))[:k] for row in near])


@pytest.mark.parametrize(("queries", "n", "k"), [(1, 300, 4), (3, 300, 4), (300, 300, 9), (2, 40, 40), (2, 5, 9)])
def test_nearest_is_exact_with_ties_in_order(queries: int, n: int, k: int) -> None:
    rng = np.random.default_rng(n + k)
    vectors = unit(rng.standard_normal((n, 8)))
    vectors[n // 2 :] = vectors[rng.integers(0, 5, n - n // 2)]  # more repeats than any shortlist holds
    asked = vectors[rng.integers(0, n, queries)]
    indices, similarities = nn.nearest(asked, vectors, k)
    np.testing.assert_array_equal(indices, exactly(asked, vectors, k))
    assert (np.diff(similarities, axis=1) <= 0).all()
    least, far = nn.nearest(-asked, vectors, k)
    np.testing.assert_array_equal(least, exactly(-asked, vectors, k))
    np.testing.assert_allclose(-far[:, 0], (asked @ vectors.T).min(1), atol=1e-6)


def test_nearest_of_nothing_and_to_nothing() -> None:
    none = np.zeros((0, 4), np.float32)
    assert nn.nearest(np.ones((2, 4), np.float32), none, 3)[0].shape == (2, 0)
    assert nn.nearest(none, np.ones((2, 4), np.float32), 3)[0].shape == (0, 2)


def test_within_a_distance_equal_rows_are_at_zero() -> None:
    vectors = unit(np.random.default_rng(1).standard_normal((50, 700)))
    vectors[[20, 30]] = vectors[10]
    found = nn.within(vectors, vectors, 0.0)
    assert [rows.tolist() for rows, _ in found] == [[10, 20, 30] if i in (10, 20, 30) else [i] for i in range(50)]
    for row, (rows, near) in enumerate(nn.within(vectors, vectors, 0.97)):
        np.testing.assert_array_equal(rows, np.flatnonzero(vectors @ vectors[row] >= 0.03))
        np.testing.assert_allclose(near, (vectors @ vectors[row])[rows], atol=1e-6)


def test_similarities_of_pairs_are_those_of_the_rows_named() -> None:
    vectors = unit(np.random.default_rng(3).standard_normal((40, 9)))
    vectors[7] = vectors[30]
    others = np.random.default_rng(4).integers(-1, 40, (40, 6))
    others[1] = [7, 30, -1, 7, 30, 1]
    found = nn.pair_similarities(vectors, others)
    expected = np.where(others >= 0, np.einsum("nd,nkd->nk", vectors, vectors[others]), np.nan)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(set(found[1, [0, 1, 3, 4]].tolist())) == 1  # equal rows, equal to the last digit


@pytest.mark.parametrize("n", [1_500, 6_000])
def test_near_duplicates_many_rows_are_found_in_seconds(n: int) -> None:
    """Each content twice, a hair apart, among others: a pair each; no loop over those that stand alone."""
    rng = np.random.default_rng(n)
    half = unit(rng.standard_normal((n // 2, 64)))
    vectors = unit(np.concatenate([half, half[: n // 10] + 1e-3 * rng.standard_normal((n // 10, 64))]))
    start = time.perf_counter()
    groups, split, _ = grouped(vectors, np.arange(len(vectors)))
    assert split == 0
    np.testing.assert_array_equal(groups[: n // 2], np.arange(n // 2))
    np.testing.assert_array_equal(groups[n // 2 :], np.arange(n // 10))
    assert time.perf_counter() - start < 20
