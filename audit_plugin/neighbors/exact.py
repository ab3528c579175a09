"""Exact nearest neighbors, by faiss where it is installed."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from audit_plugin.arrays import Floats, Ints, Neighbors, check_lengths
from audit_plugin.store import raise_shortage

SPARE = 16  # candidates beyond k, among which float64 orders what float32 cannot
ROUNDING = 1e-5  # how far float32 similarities of unit rows may be off
BLOCK_CELLS = 2**24  # similarities of queries and rows that are in memory at once
WIDENED_ROWS = 4096  # rows that are in memory as float64 at once
PAIR_ROWS = 2**14  # rows whose pairs `pair_similarities` multiplies at once
GATHERED_NUMBERS = 2**22  # gathered at once for products of pairs


def import_faiss() -> ModuleType | None:
    """faiss, or None where it is not installed or does not load."""
    return load_faiss()[0]


def load_faiss() -> tuple[ModuleType | None, str]:
    """(faiss or None, why it does not load): a GPU build raises RuntimeError where CUDA's libraries are missing.

    torch is imported first: its libraries may crash where those of faiss came before them.
    """
    import torch  # noqa: F401

    try:
        import faiss
    except (ImportError, OSError, RuntimeError) as error:
        raise_shortage(error)  # else a moment's lack of memory would change the last digits
        return None, str(error)
    return faiss, ""


def searches_on_gpu() -> bool:
    """Whether the installed faiss is a GPU build that loads and sees a GPU."""
    faiss = import_faiss()
    return faiss is not None and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def exact_search(vectors: Floats, k: int) -> Neighbors:
    """The k most similar other rows of each row by inner product, exactly.

    Ties among what is found are ordered by index. Cost O(n^2 d).

    Args:
        vectors: float32 `[n, d]`, unit rows.
        k: neighbors wanted; fewer exist when n <= k.
    """
    check_rows(vectors)
    n = len(vectors)
    indices = np.full((n, k), -1, dtype=np.int32)
    similarities = np.full((n, k), np.nan, dtype=np.float32)
    count = min(k, n - 1)
    if count > 0:
        hit_similarities, hits = top_others(np.ascontiguousarray(vectors, dtype=np.float32), np.arange(n), count)
        order = np.lexsort((hits, -hit_similarities), axis=1)
        indices[:, :count] = np.take_along_axis(hits, order, 1)
        similarities[:, :count] = np.take_along_axis(hit_similarities, order, 1)
    return Neighbors(indices, similarities)


def check_rows(*matrices: Floats) -> None:
    """Raises ValueError where one of them is not a matrix `[n, d]`."""
    for matrix in matrices:
        if matrix.ndim != 2:
            raise ValueError(f"vectors have shape {matrix.shape}; give one row per item, [n, d]")


def top_others(vectors: Floats, rows: Ints, k: int) -> tuple[Floats, Ints]:
    """As `top_products` for the rows `[q]`, without each row itself.

    It is left out by its index: with exact repeats the first hit need not be the row itself. With more than k of them
    it may not be among its hits; then the last one is left out.
    """
    similarities, indices = top_products(vectors, k + 1, vectors[rows])
    is_self = indices == rows[:, None]  # [q, k + 1], one True per row
    is_self[~is_self.any(1), -1] = True
    return similarities[~is_self].reshape(-1, k), indices[~is_self].reshape(-1, k)


def top_products(vectors: Floats, k: int, queries: Floats) -> tuple[Floats, Ints]:
    """(similarities `[q, k]`, indices `[q, k]`) of the rows most similar to each query, in float32."""
    faiss = import_faiss()
    if faiss is None:
        return _top_products_torch(vectors, k, queries)
    return faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)


def _top_products_torch(vectors: Floats, k: int, queries: Floats, block: int = 1024) -> tuple[Floats, Ints]:
    """The same without faiss, for `block` queries at once."""
    import torch

    rows = torch.from_numpy(vectors)
    hits = [(part @ rows.T).topk(k, dim=1) for part in torch.from_numpy(queries).split(block)]
    return torch.cat([hit.values for hit in hits]).numpy(), torch.cat([hit.indices for hit in hits]).numpy()


def nearest(queries: Floats, vectors: Floats, k: int) -> tuple[Ints, Floats]:
    """The k rows most similar to each query, exactly: as a sort of all similarities in float64 would give them.

    float32 proposes candidates, float64 orders them, each row by itself: equal rows tie wherever they stand, and ties
    are ordered by index. For the least similar rows pass `-queries`.

    Args:
        queries: float32 `[q, d]`, unit rows.
        vectors: float32 `[n, d]`, unit rows, contiguous.
        k: rows wanted per query; all n if there are fewer.

    Returns:
        (indices `[q, k]`, similarities float32 `[q, k]`, descending).
    """
    check_rows(queries, vectors)
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
    # faiss multiplies a few queries row by row, at a tenth of the speed of a matrix product. Its own switch for that
    # is global: changing it would change the results of others in this process.
    slow_in_faiss = 1 < len(queries) < 256
    if 4 * wanted >= n or slow_in_faiss:
        return [_above_edge(similarities, k) for similarities in queries @ vectors.T]
    similarities, indices = top_products(vectors, wanted, queries)
    # where the last candidate may tie with the k-th, so may rows that are not candidates
    unclear = similarities[:, -1] >= similarities[:, k - 1] - ROUNDING
    candidates = list(indices)
    for row in np.flatnonzero(unclear):
        candidates[row] = _above_edge(vectors @ queries[row], k)
    return candidates


def _above_edge(similarities: Floats, k: int) -> Ints:
    """Rows of the k largest of `[n]`, and all that rounding may have put below the k-th."""
    edge = np.partition(similarities, len(similarities) - k)[len(similarities) - k]
    return np.flatnonzero(similarities >= edge - ROUNDING)


def similarities_to(query: Floats, vectors: Floats, rows: Ints | None = None) -> Floats:
    """float64 `[c]`: inner products of a query `[d]` with all rows, or with those named, each summed by itself.

    A matrix product may give equal rows different last digits, depending on where they stand.
    """
    query = np.asarray(query, dtype=np.float64)
    count = len(vectors) if rows is None else len(rows)
    similarities = np.empty(count)
    for start in range(0, count, WIDENED_ROWS):
        part = slice(start, start + WIDENED_ROWS)
        block = vectors[part] if rows is None else vectors[rows[part]]
        similarities[part] = np.einsum("nd,d->n", block.astype(np.float64), query)
    return similarities


def within(queries: Floats, vectors: Floats, distance: float) -> list[tuple[Ints, Floats]]:
    """(indices in order, similarities float32) of the rows whose cosine distance to each query is at most `distance`.

    Distances go from 0 (the same direction) to 2 and are subject to the rounding of float32; `queries` `[q, d]` and
    `vectors` `[n, d]` are float32 unit rows.
    """
    check_rows(queries, vectors)
    hits: list[tuple[Ints, Floats]] = []
    step = max(1, BLOCK_CELLS // max(1, len(vectors)))
    for start in range(0, len(queries), step):
        for similarities in queries[start : start + step] @ vectors.T:
            rows = np.flatnonzero(similarities >= 1 - distance - ROUNDING / 10)
            hits.append((rows, similarities[rows]))
    return hits


def pair_similarities(vectors: Floats, others: Ints) -> Floats:
    """float32 `[n, k]`: inner products of each row with those that `others` `[n, k]` names, NaN where it is -1."""
    check_lengths(vectors=vectors, others=others)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    similarities = np.empty(others.shape, dtype=np.float32)
    for start in range(0, len(others), PAIR_ROWS):
        rows = np.arange(start, min(start + PAIR_ROWS, len(others)))
        similarities[rows] = inner_products(vectors, rows, np.maximum(others[rows], 0))
    similarities[others < 0] = np.nan
    return similarities


def inner_products(vectors: Floats, rows: Ints, others: Ints) -> Floats:
    """float32 `[q, c]`: inner products of rows `[q]` with others `[q, c]`, each summed by itself.

    A matrix product may give equal rows different last digits, depending on where they stand.
    """
    products = np.empty(others.shape, dtype=np.float32)
    faiss = import_faiss()
    if faiss is not None:  # without a copy of each pair's rows
        arrays = (products, vectors[rows], vectors, np.ascontiguousarray(others, dtype=np.int64))
        faiss.fvec_inner_products_by_idx(*map(faiss.swig_ptr, arrays), vectors.shape[1], *others.shape)
        return products
    step = max(1, GATHERED_NUMBERS // max(1, others.shape[1] * vectors.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        products[part] = (vectors[others[part]] * vectors[rows[part], None]).sum(axis=2)
    return products
