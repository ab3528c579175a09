"""Neighbors with a measured recall: against the exact search, on easy and on hard sets."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin import neighbors as nn
from audit_plugin.neighbors import scan, search
from tests.core_fixtures import unit

K = 10
PRECISIONS = [torch.float32, torch.bfloat16]


def clustered(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    """Rows around sqrt(n) centers, some dense, some wide."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((int(n**0.5), d))
    widths = 0.1 + 0.3 * rng.pareto(3, n)[:, None]
    return unit(centers[rng.integers(0, len(centers), n)] + widths * rng.standard_normal((n, d)))


def even(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    """Rows in all directions alike: no list is nearer than another."""
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


def space_of(vectors: np.ndarray, precision: torch.dtype = torch.float32) -> scan.Space:
    exact = torch.from_numpy(vectors)
    return scan.make_space(exact, exact.to(precision))


@pytest.fixture
def search_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of few rows as one of many."""
    monkeypatch.setattr(search, "EXACT_ROWS", 100)


# --- scan: candidates by coarse products, float32 decides ------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 700), st.integers(1, 40))
def test_the_largest_are_those_of_a_sort(seed: int, total: int, wanted: int) -> None:
    wanted = min(wanted, total)
    values = np.random.default_rng(seed).random((total, 7), dtype=np.float32)
    found = scan.largest(torch.from_numpy(values).view(torch.int32), wanted).numpy()
    expected = np.argsort(-values, axis=0, kind="stable")[:wanted]
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(expected, axis=0))


def test_the_largest_of_half_precision_are_as_large_as_those_of_a_sort() -> None:
    values = torch.rand(5_000, 5, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    found = values.gather(0, scan.largest(values.view(torch.int16), 20)).float().sort(dim=0).values
    torch.testing.assert_close(found, values.float().sort(dim=0).values[-20:])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("block", [64, 2**16])
def test_a_scan_of_all_rows_is_the_exact_search(
    precision: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "MEMBERS", block)
    vectors = even(700)
    index, near = scan.nearest_members(space_of(vectors, precision), torch.arange(700), None, K)
    expected = nn.exact_search(vectors, K)
    np.testing.assert_array_equal(index.numpy(), expected.indices)
    np.testing.assert_allclose(near.numpy(), expected.similarities, atol=1e-6)


def test_equal_rows_tie_and_are_ordered_by_index() -> None:
    vectors = np.repeat(even(100), 4, axis=0)
    index, near = scan.nearest_members(space_of(vectors), torch.arange(400), None, 3)
    rows = np.arange(400)
    for row in rows:
        same = [other for other in range(row // 4 * 4, row // 4 * 4 + 4) if other != row]
        assert index[row].tolist() == same
        assert len(set(near[row].tolist())) == 1


def test_only_members_are_found() -> None:
    vectors, members = even(500), np.sort(np.random.default_rng(1).choice(500, 90, replace=False))
    index, near = scan.nearest_members(space_of(vectors), torch.tensor([3, 77]), torch.from_numpy(members), K)
    for at, row in enumerate((3, 77)):
        others = members[members != row]
        expected = others[np.argsort(-(vectors[others] @ vectors[row]), kind="stable")[:K]]
        np.testing.assert_array_equal(index[at], expected)
        np.testing.assert_allclose(near[at], vectors[expected] @ vectors[row], atol=1e-6)


def test_products_come_in_few_shapes() -> None:
    sizes = {scan._rounded_up(count) for count in range(1, 60_000)}
    assert len(sizes) < 100
    assert all(scan._rounded_up(size) == size for size in sizes)
    assert all(count <= scan._rounded_up(count) <= max(64, 1.13 * count + 64) for count in range(1, 60_000, 7))


def test_without_faiss_pairs_are_multiplied_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = torch.from_numpy(even(300))
    rows, others = torch.arange(50), torch.randint(0, 300, (50, 9), generator=torch.Generator().manual_seed(0))
    found = scan.inner_products(exact, rows, others)
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(scan, "GATHERED_NUMBERS", 1000)
    torch.testing.assert_close(scan.inner_products(exact, rows, others), found, atol=1e-6, rtol=0)
    torch.testing.assert_close(found, (exact[rows][:, None] * exact[others]).sum(2), atol=1e-6, rtol=0)


# --- lists -----------------------------------------------------------------------------------------------------------


def test_every_row_is_in_one_list_and_every_list_ranks_all() -> None:
    found = search.make_lists(space_of(clustered(3_000)), 0)
    count = len(found.ends)
    assert count == 3_000 // search.LIST_ROWS
    np.testing.assert_array_equal(np.sort(np.concatenate([found.rows(i) for i in range(count)])), np.arange(3_000))
    for number in range(count):
        assert (found.number[found.rows(number)] == number).all()
        assert sorted(found.ranking[number]) == list(range(count))


def test_depth_is_the_least_that_holds_the_share() -> None:
    vectors = clustered(3_000)
    found, rows = search.make_lists(space_of(vectors), 0), np.arange(0, 3_000, 30)
    near = nn.exact_search(vectors, K).indices[rows]

    def held(depth: int) -> float:
        """Share of the neighbors that stand in the first lists, one by one."""
        seen = [set(found.ranking[found.number[row], :depth].tolist()) for row in rows]
        return float(np.mean([[found.number[j] in some for j in js] for some, js in zip(seen, near, strict=True)]))

    for share in (0.5, 0.9, 0.99, 1.0):
        depth = search.depth_for(found, rows, near, share)
        assert held(depth) >= share
        assert depth == 1 or held(depth - 1) < share


def test_a_list_looks_at_enough_rows() -> None:
    found = search.make_lists(space_of(clustered(3_000)), 0)
    seen = found.looked_at(1, 400)
    sizes = np.diff(found.ends, prepend=0)
    for number, (count, rows) in enumerate(seen):
        assert rows == sizes[found.ranking[number, :count]].sum() >= 400
        assert count == 1 or sizes[found.ranking[number, : count - 1]].sum() < 400


def test_looking_at_all_lists_is_exact() -> None:
    vectors = clustered(1_500)
    space = space_of(vectors)
    found = search.make_lists(space, 0)
    rows, index, near = search.scan_lists(space, found, len(found.ends), K, np.arange(len(found.ends)))
    assert sorted(rows.tolist()) == list(range(len(vectors)))
    expected = nn.exact_search(vectors, K)
    np.testing.assert_allclose(near, expected.similarities[rows], atol=1e-6)
    assert (index == expected.indices[rows]).mean() > 0.999  # products that differ in the last digit


# --- search ----------------------------------------------------------------------------------------------------------


def test_few_rows_are_searched_exactly() -> None:
    vectors = even(300)
    found, expected = nn.nearest_neighbors(vectors, K), nn.exact_search(vectors, K)
    assert (found.method, found.recall) == ("exact", 1.0)
    np.testing.assert_array_equal(found.neighbors.indices, expected.indices)


@pytest.mark.parametrize("make", [clustered, even])
def test_pieces_that_are_searched_elsewhere_are_the_whole(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "EXACT_ROWS", 1_000)
    monkeypatch.setattr(search, "PIECE", 700)
    vectors, handed = make(4_000), []

    def backwards(function: Any, items: Any) -> Any:
        for item in reversed(list(items)):
            handed.append(len(item))
            yield item, pickle.loads(pickle.dumps(function))(item)

    here, elsewhere = nn.nearest_neighbors(vectors, K), nn.nearest_neighbors(vectors, K, each=backwards)
    assert len(handed) > 4
    assert here.method == elsewhere.method
    np.testing.assert_array_equal(here.neighbors.indices, elsewhere.neighbors.indices)
    np.testing.assert_array_equal(here.neighbors.similarities, elsewhere.neighbors.similarities)


def share_found(vectors: np.ndarray, found: nn.SearchResult) -> float:
    """Share of all rows' k true neighbors, or of equally near ones, that were found."""
    kth = np.sort(vectors @ vectors.T - 3 * np.eye(len(vectors)), axis=1)[:, -K]
    return float((found.neighbors.similarities >= kth[:, None] - 1e-6).mean())


@pytest.mark.usefixtures("search_all")
@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_the_recall_said_is_the_recall_measured(seed: int, hard: bool) -> None:
    vectors = (even if hard else clustered)(2_500, seed=seed)
    found = nn.nearest_neighbors(vectors, K, seed=seed)
    measured = share_found(vectors, found)
    assert found.recall >= search.TARGET
    assert abs(measured - found.recall) < 0.01  # the sample's own error
    assert not hard or found.method == "all products"
    own = np.arange(len(vectors))[:, None]
    index, near = found.neighbors.indices, found.neighbors.similarities
    assert (index != own).all()
    assert all(len(set(row)) == K for row in index.tolist())
    assert (np.diff(near, axis=1) <= 0).all()
    np.testing.assert_allclose(near, np.einsum("nd,nkd->nk", vectors, vectors[index]), atol=1e-6)


@pytest.mark.usefixtures("search_all")
def test_equal_input_gives_equal_results_and_order_hardly_matters() -> None:
    vectors = clustered(2_500)
    once, again = nn.nearest_neighbors(vectors, K), nn.nearest_neighbors(vectors, K)
    np.testing.assert_array_equal(once.neighbors.indices, again.neighbors.indices)
    np.testing.assert_array_equal(once.neighbors.similarities, again.neighbors.similarities)
    assert (once.recall, once.method) == (again.recall, again.method)
    assert "lists" in once.method
    order = np.random.default_rng(1).permutation(len(vectors))
    moved = nn.nearest_neighbors(vectors[order], K)
    same = order[moved.neighbors.indices] == once.neighbors.indices[order]
    assert same.mean() > 2 * search.TARGET - 1


@pytest.mark.usefixtures("search_all")
def test_too_little_effort_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(2_500, seed=3)
    monkeypatch.setattr(search, "depth_for", lambda *_: 1)  # as if the first half of the sample had misled
    found = nn.nearest_neighbors(vectors, K)
    assert found.recall >= search.TARGET
    assert share_found(vectors, found) > search.TARGET - 0.006


@pytest.mark.usefixtures("search_all")
def test_where_candidates_fail_the_search_is_exact() -> None:
    """On a bent simplex all similarities are below zero, where candidates are not told apart."""
    vectors = unit(np.eye(400) - 1 / 400 + 2e-4 * np.random.default_rng(0).standard_normal((400, 400)))
    assert (vectors @ vectors.T < 2 * np.eye(400)).all()
    found = nn.nearest_neighbors(vectors, K)
    assert (found.method, found.recall) == ("exact", 1.0)
    assert share_found(vectors, found) == 1
