from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin import sharded
from audit_plugin.neighbors import search, seek
from audit_plugin.sharded import search_shards, seek_in_shards
from tests.core_fixtures import unit


def shuffled(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Pieces are finished in any order."""
    items = list(items)
    for at in np.random.default_rng(0).permutation(len(items)):
        yield items[at], function(items[at])


def rows(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 25), st.integers(1, 25))
def test_any_cut_finds_what_one_search_finds(n: int, k: int, queries: int, shard: int) -> None:
    vectors = rows(n)
    expected, found = search(vectors, k), search_shards(vectors, k, shuffled, queries, shard)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.similarities, expected.similarities, atol=1e-6)
    assert found.similarities.dtype == np.float32


def test_hand_checked_neighbours_across_shards() -> None:
    angles = np.deg2rad([0, 10, 90, 25, 180])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = search_shards(vectors, 2, shuffled, 2, 2)
    np.testing.assert_array_equal(found.indices, [[1, 3], [0, 3], [3, 1], [1, 0], [2, 3]])
    np.testing.assert_allclose(found.similarities[0], np.cos(np.deg2rad([10, 25])), atol=1e-6)


def test_exact_repeats_tie_by_index_and_a_row_never_finds_itself() -> None:
    vectors = np.repeat(rows(3), 8, axis=0)
    found = search_shards(vectors, 5, shuffled, 4, 5)
    for row, near in enumerate(found.indices):
        same = [i for i in range(row // 8 * 8, row // 8 * 8 + 8) if i != row]
        assert near.tolist() == same[:5]


def test_missing_neighbours_are_marked() -> None:
    found = search_shards(rows(3), 5, shuffled, 2, 2)
    assert (found.indices[:, 2:] == -1).all()
    assert np.isnan(found.similarities[:, 2:]).all()
    assert np.isfinite(found.similarities[:, :2]).all()


def test_what_fits_one_piece_is_one_search() -> None:
    def never(*_: object) -> Iterator[tuple[Any, Any]]:
        raise AssertionError

    expected, found = seek(rows(50), 3), seek_in_shards(rows(50), 3, "cpu", 0, never)
    np.testing.assert_array_equal(found.neighbors.indices, expected.neighbors.indices)
    np.testing.assert_array_equal(found.neighbors.similarities, expected.neighbors.similarities)


def test_what_does_not_is_exact_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "QUERIES", 20)
    found = seek_in_shards(rows(50), 3, "cpu", 0, shuffled)
    assert (found.recall, found.method) == (1.0, "exact")
    np.testing.assert_array_equal(found.neighbors.indices, search(rows(50), 3).indices)


@pytest.mark.parametrize("pieces", [(7, 50), (50, 7)])
def test_pieces_read_arrays_that_may_not_be_written(pieces: tuple[int, int]) -> None:
    vectors = rows(50)
    vectors.flags.writeable = False  # as they come out of Ray's shared memory
    np.testing.assert_array_equal(search_shards(vectors, 4, shuffled, *pieces).indices, search(rows(50), 4).indices)
