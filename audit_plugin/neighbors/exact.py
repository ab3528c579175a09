"""Exact nearest neighbors, by faiss where it is installed."""

from __future__ import annotations

import numpy as np

from audit_plugin.arrays import Floats, Ints, Neighbors

SPARE = 16  # asked for beyond k: rows that float32 cannot tell from the k-th are then told apart exactly
ROUNDING = 1e-5  # how far float32 similarities of unit rows may be off
BLOCK_CELLS = 2**24  # of a product of queries and rows, held at once
WIDENED_ROWS = 4096  # rows held in float64 at once


def exact_search(vectors: Floats, k: int) -> Neighbors:
    """The k most similar other rows of each row by inner product, exactly.

    Self is removed by index, never by position: with exact repeats the first hit need not be the row itself.
    Ties are ordered by index. Cost O(n^2 d).

    Args:
        vectors: float32 `[n, d]`, unit rows.
        k: neighbors wanted; fewer exist when n <= k.
    """
    n = len(vectors)
    indices = np.full((n, k), -1, dtype=np.int64)
    similarities = np.full((n, k), np.nan, dtype=np.float32)
    found = min(k + 1, n)
    if found > 1:
        near, index = top(np.ascontiguousarray(vectors, dtype=np.float32), found)
        is_self = index == np.arange(n)[:, None]
        is_self[~is_self.any(1), -1] = True  # more than k exact repeats: self did not make the list
        keep = ~is_self
        index, near = index[keep].reshape(n, -1), near[keep].reshape(n, -1)
        order = np.lexsort((index, -near), axis=1)
        indices[:, : found - 1] = np.take_along_axis(index, order, 1)
        similarities[:, : found - 1] = np.take_along_axis(near, order, 1)
    return Neighbors(indices, similarities)


def top(vectors: Floats, k: int, queries: Floats | None = None) -> tuple[Floats, Ints]:
    """(similarities `[q, k]`, indices `[q, k]`) of the rows most similar to each query, or to each row, in float32."""
    queries = vectors if queries is None else queries
    try:
        import faiss
    except ImportError:
        return _top_torch(vectors, k, queries=queries)
    return faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)


def _top_torch(vectors: Floats, k: int, block: int = 1024, queries: Floats | None = None) -> tuple[Floats, Ints]:
    """The same without faiss."""
    import torch

    every = torch.from_numpy(vectors)
    asked = every if queries is None else torch.from_numpy(queries)
    hits = [(part @ every.T).topk(k, dim=1) for part in asked.split(block)]
    return torch.cat([h.values for h in hits]).numpy(), torch.cat([h.indices for h in hits]).numpy()


def nearest(queries: Floats, vectors: Floats, k: int) -> tuple[Ints, Floats]:
    """The k rows most similar to each query, exactly: as a sort of all similarities in float64 would give them.

    Found in float32, then told apart in float64, each row by itself: equal rows tie wherever they stand, and ties are
    ordered by index. For the least similar rows pass `-queries`.

    Args:
        queries: float32 `[q, d]`, unit rows.
        vectors: float32 `[n, d]`, unit rows, contiguous.
        k: rows wanted per query; all n if there are fewer.

    Returns:
        (indices `[q, k]`, similarities float32 `[q, k]`, descending).
    """
    k = min(k, len(vectors))
    indices = np.empty((len(queries), k), dtype=np.int64)
    similarities = np.empty((len(queries), k), dtype=np.float32)
    step = max(1, BLOCK_CELLS // max(1, len(vectors)))
    for start in range(0, len(queries) if k else 0, step):
        block = np.ascontiguousarray(queries[start : start + step], dtype=np.float32)
        for row, candidates in enumerate(_candidates(block, vectors, k), start):
            exact = similarities_to(queries[row], vectors, candidates).astype(np.float32)
            best = np.lexsort((candidates, -exact))[:k]
            indices[row], similarities[row] = candidates[best], exact[best]
    return indices, similarities


def _candidates(queries: Floats, vectors: Floats, k: int) -> list[Ints]:
    """Per query, rows among which its k most similar are: all that rounding could have put there."""
    n, wanted = len(vectors), k + SPARE
    if 4 * wanted >= n or _slow_in_faiss(queries):
        return [_above_edge(similarities, k) for similarities in queries @ vectors.T]
    near, found = top(vectors, wanted, queries)
    unclear = near[:, -1] >= near[:, k - 1] - ROUNDING  # more rows than were asked for may tie with the k-th
    return [
        _above_edge(vectors @ queries[row], k) if unclear[row] else np.asarray(found[row])
        for row in range(len(queries))
    ]


def _slow_in_faiss(queries: Floats) -> bool:
    """Whether there are a few: these faiss multiplies row by row, at a tenth of the speed of a matrix product.

    Its own switch is global: changing it would change the results of others in this process.
    """
    return 1 < len(queries) < 256


def _above_edge(similarities: Floats, k: int) -> Ints:
    edge = np.partition(similarities, len(similarities) - k)[len(similarities) - k]
    return np.flatnonzero(similarities >= edge - ROUNDING)


def similarities_to(query: Floats, vectors: Floats, rows: Ints | None = None) -> Floats:
    """float64 `[c]`: inner products of a query `[d]` with all rows, or with those named, each summed by itself.

    A matrix product may give equal rows different last digits, depending on where they stand.
    """
    query = np.asarray(query, dtype=np.float64)
    count = len(vectors) if rows is None else len(rows)
    out = np.empty(count)
    for start in range(0, count, WIDENED_ROWS):
        part = slice(start, start + WIDENED_ROWS)
        some = vectors[part] if rows is None else vectors[rows[part]]
        out[part] = np.einsum("nd,d->n", some.astype(np.float64), query)
    return out


def within(queries: Floats, vectors: Floats, distance: float) -> list[tuple[Ints, Floats]]:
    """Per query, the rows whose cosine distance is at most `distance`, up to the rounding of float32.

    Args:
        queries: float32 `[q, d]`, unit rows.
        vectors: float32 `[n, d]`, unit rows.
        distance: from 0 (the same direction) to 2.

    Returns:
        (indices in order, similarities float32) of each query.
    """
    found: list[tuple[Ints, Floats]] = []
    step = max(1, BLOCK_CELLS // max(1, len(vectors)))
    for start in range(0, len(queries), step):
        for similarities in queries[start : start + step] @ vectors.T:
            rows = np.flatnonzero(similarities >= 1 - distance - ROUNDING / 10)
            found.append((rows, similarities[rows]))
    return found
