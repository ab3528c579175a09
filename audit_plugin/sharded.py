"""Exact neighbours in pieces: blocks of queries against shards of rows, merged. Each piece may run anywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .arrays import Floats, Ints, Neighbors
from .neighbors import Sought, nearest, seek

QUERIES, ROWS = 8192, 65536  # of a piece
Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[Any, Any]]]


def seek_in_shards(vectors: Floats, k: int, device: str, seed: int, each: Each) -> Sought:
    """As `neighbors.seek`, but exact for any number of rows, by pieces; what is one piece is sought here."""
    if len(vectors) <= QUERIES:
        return seek(vectors, k, device, seed)
    return Sought(search_shards(vectors, k, each), 1.0, "exact")


def search_shards(vectors: Floats, k: int, each: Each, queries: int = QUERIES, rows: int = ROWS) -> Neighbors:
    """As `neighbors.search`, by pieces that are handed to `each`.

    Args:
        vectors: float32 `[n, d]`, unit rows.
        k: neighbours wanted; fewer exist when n <= k.
        each: function, items -> (item, what the function makes of it), in any order.
        queries: per piece.
        rows: among which a piece looks.
    """
    n = len(vectors)
    pieces = [
        (slice(q, min(q + queries, n)), slice(r, min(r + rows, n)))
        for q in range(0, n, queries)
        for r in range(0, n, rows)
    ]
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    indices, similarities = np.full((n, k), -1, dtype=np.int64), np.full((n, k), -np.inf, dtype=np.float32)
    for (asked, _), (index, near) in each(functools.partial(_search_piece, vectors, k), pieces):
        both = np.concatenate([indices[asked], index], 1), np.concatenate([similarities[asked], near], 1)
        best = np.lexsort((both[0], -both[1]), axis=1)[:, :k]
        indices[asked], similarities[asked] = (np.take_along_axis(part, best, 1) for part in both)
    return Neighbors(indices, np.where(indices < 0, np.float32(np.nan), similarities))


def _search_piece(vectors: Floats, k: int, piece: tuple[slice, slice]) -> tuple[Ints, Floats]:
    """(indices `[q, c]`, similarities `[q, c]`) of the k best of a shard, and of the query itself, which is no find."""
    asked, among = piece
    index, near = nearest(vectors[asked], vectors[among], k + 1)
    index += among.start
    own = index == np.arange(asked.start, asked.stop)[:, None]
    return np.where(own, -1, index), np.where(own, np.float32(-np.inf), near)
