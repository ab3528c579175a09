"""Neighbors with a measured recall: against the exact search, on easy and on hard sets."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin import neighbors as nn
from audit_plugin.neighbors import exact, search
from tests.core_fixtures import unit

K = 10
ALL_ROWS = "all products, in bfloat16 (lists would look at more than 15% of all rows)"


def clustered(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    """Rows around sqrt(n) centers, some dense, some wide."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((int(n**0.5), d))
    widths = 0.1 + 0.3 * rng.pareto(3, n)[:, None]
    return unit(centers[rng.integers(0, len(centers), n)] + widths * rng.standard_normal((n, d)))


def even(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    """Rows in all directions alike: no list is nearer than another."""
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


@pytest.fixture
def search_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of few rows as one of many."""
    monkeypatch.setattr(search, "EXACT_ROWS", 100)
    monkeypatch.setattr(search, "has_bf16_unit", lambda _device: True)


# --- candidates ------------------------------------------------------------------------------------------------------


def neighbors_by(proposal: Any, vectors: np.ndarray, rows: Any, k: int = K) -> Any:
    """(indices, similarities) of rows from the candidates of one proposal."""
    return search._neighbors_of(vectors, proposal[0], k, np.asarray(rows))


def lists_of(vectors: np.ndarray) -> Any:
    """(faiss, an index of the rows, rows per list)."""
    faiss = exact.import_faiss()
    assert faiss is not None
    index = search.make_index(faiss, vectors, 0)
    return faiss, index, [search._rows_of_list(faiss, index, number) for number in range(index.nlist)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("cells", [2**10, 2**24])
def test_products_with_all_rows_find_what_the_exact_search_does(
    precision: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(search.CELLS, "cpu", cells)
    vectors = even(700)
    propose = functools.partial(search._from_products, "cpu", precision)
    indices, similarities = neighbors_by([propose], vectors, np.arange(700))
    expected = nn.exact_search(vectors, K)
    np.testing.assert_array_equal(indices, expected.indices)
    np.testing.assert_allclose(similarities, expected.similarities, atol=1e-6)


def test_equal_rows_tie_and_are_ordered_by_index() -> None:
    vectors = np.repeat(even(100), 4, axis=0)
    propose = functools.partial(search._from_products, "cpu", "float32")
    indices, similarities = neighbors_by([propose], vectors, np.arange(400), 3)
    for row in range(400):
        same = [other for other in range(row // 4 * 4, row // 4 * 4 + 4) if other != row]
        assert indices[row].tolist() == same
        assert len(set(similarities[row].tolist())) == 1


def test_without_faiss_pairs_are_multiplied_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = even(300)
    rows, others = np.arange(50), np.random.default_rng(0).integers(0, 300, (50, 9))
    products = exact.inner_products(vectors, rows, others)
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(exact, "GATHERED_NUMBERS", 1000)
    np.testing.assert_allclose(exact.inner_products(vectors, rows, others), products, atol=1e-6, rtol=0)
    np.testing.assert_allclose(products, np.einsum("qd,qcd->qc", vectors[rows], vectors[others]), atol=1e-6)


def test_every_row_is_in_one_list() -> None:
    _, index, members = lists_of(clustered(3_000))
    assert index.nlist == 3_000 // search.LIST_ROWS
    np.testing.assert_array_equal(np.sort(np.concatenate(members)), np.arange(3_000))


def test_the_lists_looked_at_hold_the_share_aimed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "WORTH", 1.0)
    vectors = clustered(3_000)
    faiss, index, members = lists_of(vectors)
    rows = np.arange(0, 3_000, 30)
    tuning = search.ExactSample(rows, *exact.top_others(vectors, rows, K))
    list_of_row = np.empty(3_000, int)
    for number, own in enumerate(members):
        list_of_row[own] = number
    order = np.argsort(-vectors[rows] @ index.quantizer.reconstruct_n(0, index.nlist).T, axis=1)

    def held(count: int) -> float:
        """Share of the neighbors that stand in the first lists, one by one."""
        seen = [set(lists[:count].tolist()) for lists in order]
        return float(
            np.mean([[list_of_row[j] in own for j in js] for own, js in zip(seen, tuning.indices, strict=True)])
        )

    for goal in (0.5, 0.9, 0.99, 1.0):
        monkeypatch.setattr(search, "GOAL", goal)
        (propose, by_list, method), *_ = search.list_proposals(faiss, vectors, tuning, 0)
        count = propose.args[1]
        assert held(count) >= goal
        assert count == 1 or held(count - 1) < goal
        rows_seen = np.mean([np.isin(list_of_row, lists[:count]).mean() for lists in order])
        assert method == f"{count} of {index.nlist} lists, {rows_seen:.1%} of all rows"
        np.testing.assert_array_equal(np.sort(by_list), np.arange(3_000))


def test_looking_at_all_lists_is_exact() -> None:
    vectors = clustered(1_500)
    _, index, _ = lists_of(vectors)
    propose = functools.partial(search._from_lists, index, index.nlist)
    indices, similarities = neighbors_by([propose], vectors, np.arange(1_500))
    expected = nn.exact_search(vectors, K)
    np.testing.assert_allclose(similarities, expected.similarities, atol=1e-6)
    assert (indices == expected.indices).mean() > 0.999  # products that differ in the last digit


def test_lists_with_too_few_rows_are_no_end() -> None:
    vectors = clustered(1_500)
    _, index, members = lists_of(vectors)
    wanted = max(map(len, members)) + 5  # more than any one list holds
    candidates = search._from_lists(index, 1, vectors, np.arange(1_500), wanted)
    assert candidates.min() >= 0
    assert all(len(set(row)) == wanted for row in candidates.tolist())


# --- search ----------------------------------------------------------------------------------------------------------


def test_few_rows_are_searched_exactly() -> None:
    vectors = even(300)
    found, expected = nn.nearest_neighbors(vectors, K), nn.exact_search(vectors, K)
    assert (found.method, found.recall) == ("exact", 1.0)
    np.testing.assert_array_equal(found.neighbors.indices, expected.indices)


@pytest.mark.usefixtures("search_all")
@pytest.mark.parametrize("make", [clustered, even])
def test_pieces_that_are_searched_elsewhere_are_the_whole(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(search.PIECE, "cpu", 700)
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
    assert not hard or found.method == ALL_ROWS
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
def test_too_few_lists_are_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "WORTH", 1.0)
    monkeypatch.setattr(search, "GOAL", 0.3)  # as if the tuning rows had misled
    vectors, done = clustered(2_500, seed=3), []
    found = nn.nearest_neighbors(vectors, K, report=lambda *step: done.append(step))
    assert "lists" in found.method
    assert found.recall >= search.TARGET
    assert share_found(vectors, found) > search.TARGET - 0.006
    assert done[-1] == (2_500, 2_500)
    assert done == sorted(done), "rows are searched once"


@pytest.mark.usefixtures("search_all")
def test_where_candidates_fail_the_search_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thin cone all similarities are nearly 1: half precision cannot tell them apart."""
    monkeypatch.setattr(search, "WORTH", 0.0)
    vectors = unit(1 + 1e-2 * np.random.default_rng(0).standard_normal((1_500, 32)))
    found = nn.nearest_neighbors(vectors, K)
    assert (found.method, found.recall) == ("exact (lists would look at more than 0% of all rows)", 1.0)
    assert share_found(vectors, found) == 1


@pytest.mark.parametrize("fast", [True, False])
def test_without_faiss_all_rows_are_looked_at(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "EXACT_ROWS", 100)
    monkeypatch.setattr(search, "has_bf16_unit", lambda _device: fast)
    vectors = clustered(1_500)
    expected = nn.exact_search(vectors, K)
    monkeypatch.setitem(sys.modules, "faiss", None)
    found = nn.nearest_neighbors(vectors, K)
    assert found.method == ("all products, in bfloat16" if fast else "exact")
    assert found.recall >= search.TARGET
    np.testing.assert_allclose(found.neighbors.similarities, expected.similarities, atol=1e-6)


def test_on_a_gpu_half_precision_comes_before_full() -> None:
    methods = [method for _, _, method in search.product_proposals(5, "cuda")]
    assert methods == ["all products, in float16", "all products, in float32"]


def test_the_number_of_threads_changes_nothing() -> None:
    code = (
        "import hashlib, sys; sys.path.insert(0, '.');"
        "from audit_plugin.neighbors import nearest_neighbors, search; from tests.test_search import clustered, even;"
        "search.EXACT_ROWS = 1000; search.PIECE['cpu'] = 1500;"
        "found = [nearest_neighbors(rows, 10) for rows in (clustered(6_000, 48), even(3_000, 48))];"
        "print(*[(f.method, f.recall, hashlib.sha256(f.neighbors.indices.tobytes()"
        " + f.neighbors.similarities.tobytes()).hexdigest()) for f in found])"
    )
    seen = set()
    for threads in ("1", "2", "3"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", code]
        seen.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(seen) == 1
    assert "lists" in seen.pop()


def test_torch_is_loaded_before_faiss() -> None:
    code = (
        "import sys; from audit_plugin.neighbors import exact;"
        "assert 'faiss' not in sys.modules; exact.import_faiss();"
        "names = list(sys.modules); assert names.index('torch') < names.index('faiss')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fewer_different_rows_than_lists_leave_lists_empty() -> None:
    """Silent sounds, black pictures, few embeddings of one's own: k-means has fewer centers than it is asked for."""
    rng = np.random.default_rng(0)
    for different in (50, 300):
        rows = unit(rng.standard_normal((different, 16))).astype(np.float32)
        number = np.sort(rng.integers(0, different, search.EXACT_ROWS + 100))
        found = nn.nearest_neighbors(rows[number], 5)
        assert found.recall >= search.TARGET
        np.testing.assert_allclose(found.neighbors.similarities, 1, atol=1e-5)  # the others of the same row
        assert (number[found.neighbors.indices] == number[:, None]).all()
