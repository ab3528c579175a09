"""Neighbors as fast as the machine allows: exact for few rows, else with a recall that is measured and reported.

A FAISS index or products in half precision propose candidates; float32 products of each pair by itself decide.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints, Neighbors
from audit_plugin.encoders.devices import has_bf16_unit, in_blocks

from .exact import check_rows, exact_search, import_faiss, inner_products, searches_on_gpu, top_others, top_products

EXACT_ROWS = 30_000  # up to so many rows, the search is exact
SPARE = 33  # candidates beyond k: self, and what half precision may have misplaced
TARGET = 0.99  # least recall, on the held-back rows
GOAL = 0.994  # aimed at on the tuning rows, so that the held-back rows reach the target
SAMPLED_ROWS = 500  # in each half, whose exact neighbors are known
WORTH = 0.15  # share of the rows that lists may look at: above it, products with all rows are faster
ROUNDING = 1e-6  # of float32 similarities
LIST_ROWS = 128  # on average
MOST_LISTS = 8192
FIT_ROWS = 48  # per list, to which the centers are fitted
FIT_ROUNDS = 6  # of k-means
PIECE = {"cpu": 2**14, "cuda": 2**17}  # rows that are searched as one piece of work; each copies all rows to a GPU
CELLS = {"cpu": 2**24, "cuda": 2**29}  # products that are in memory at once
LEAST_QUERIES = 64  # products of fewer are slow
MOST_ON_GPU = 2048  # candidates per row that FAISS finds on a GPU

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[Any, Any]]]
Report = Callable[[int, int], None]  # (rows done, of how many)
Propose = Callable[[Floats, Ints, int], Ints]  # (vectors, rows [q], c) -> c distinct candidates of each row, [q, c]
Proposal = tuple[Propose, Ints, str]  # candidates, all rows in the order in which to search, the method in words


@dataclass(frozen=True)
class SearchResult:
    """Neighbors of n rows and, for people, how they were found."""

    neighbors: Neighbors
    recall: float  # share of the true neighbors that are found, on a sample of rows; 1 for an exact search
    method: str


@dataclass(frozen=True)
class ExactSample:
    """A sample of rows `[s]` with their exact neighbors `[s, k]`."""

    rows: Ints
    similarities: Floats
    indices: Ints

    def recall(self, similarities: Floats) -> float:
        """Share of `[s, k]` found similarities that are at least the true k-th: equally near rows are as good."""
        return float((similarities >= self.similarities[:, -1:] - ROUNDING).mean())


def nearest_neighbors(
    vectors: Floats,
    k: int,
    device: str = "cpu",
    seed: int = 0,
    report: Report = lambda _done, _total: None,
    each: Each | None = None,
) -> SearchResult:
    """The k most similar other rows of each row by inner product: exact, or with a recall of `TARGET` and more.

    Up to `EXACT_ROWS` rows: `exact_search`. Above, on the CPU, candidates come from the lists of a FAISS index. How
    many lists are looked at is read from the exact neighbors of `SAMPLED_ROWS` rows; the recall is measured on as many
    others, and below `TARGET` the number is doubled. Where they would hold more than `WORTH` of all rows, without
    FAISS, and on a GPU, candidates come from the products with all rows in half precision, if the device multiplies
    those in hardware; else the search is exact. Similarities are always exact; of equally near rows, those that are
    found are ordered by index.

    Which neighbors an approximate search misses depends on the rows' order: pass them in canonical order. Memory,
    besides the result: a copy of the vectors in 16 bits a number, and blocks of fixed size.

    Args:
        vectors: float32 `[n, d]`, unit rows.
        k: neighbors wanted; fewer exist when n <= k.
        device: "cpu" or "cuda".
        seed: of the sample and the lists.
        report: called with (rows done, of how many).
        each: function, items -> (item, the function's value), in any order: runs the pieces of work of an approximate
            search on several machines. None: in this process. The result is the same.
    """
    check_rows(vectors)
    n = len(vectors)
    if n <= max(EXACT_ROWS, k + SPARE):
        return SearchResult(exact_search(vectors, k), 1.0, "exact")
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    sampled = np.random.default_rng(seed).choice(n, min(n, 2 * SAMPLED_ROWS), replace=False)
    halves = [np.sort(half) for half in np.array_split(sampled, 2)]
    tuning, held_back = (ExactSample(rows, *top_others(vectors, rows, k)) for rows in halves)
    faiss = import_faiss()
    proposals: Iterator[Proposal]
    if faiss is not None and device == "cpu":
        why = f" (lists would look at more than {WORTH:.0%} of all rows)"
        proposals = itertools.chain(list_proposals(faiss, vectors, tuning, seed), product_proposals(n, device, why))
    else:
        why, proposals = "", product_proposals(n, device)
    for propose, order, method in proposals:
        work = functools.partial(_neighbors_of, vectors, propose, k)
        recall = held_back.recall(work(held_back.rows)[1])
        if recall >= TARGET:
            pieces = np.array_split(order, -(-n // PIECE[device]))
            return SearchResult(_search_all(work, pieces, k, report, each), recall, method)
    return SearchResult(exact_search(vectors, k), 1.0, f"exact{why}")


def _search_all(
    work: Callable[[Ints], tuple[Ints, Floats]], pieces: list[Ints], k: int, report: Report, each: Each | None
) -> Neighbors:
    """Neighbors of all rows, piece by piece."""
    n = sum(map(len, pieces))
    indices = np.empty((n, k), dtype=np.int32)
    similarities = np.empty((n, k), dtype=np.float32)
    done = 0
    parts = ((piece, work(piece)) for piece in pieces) if each is None else each(work, pieces)
    for rows, (row_indices, row_similarities) in parts:
        indices[rows] = row_indices
        similarities[rows] = row_similarities
        done += len(rows)
        report(done, n)
    return Neighbors(indices, similarities)


def _neighbors_of(vectors: Floats, propose: Propose, k: int, rows: Ints) -> tuple[Ints, Floats]:
    """(indices `[q, k]`, similarities `[q, k]`): the best of the candidates of rows `[q]`, ties by index."""
    candidates = np.sort(propose(vectors, rows, k + SPARE), axis=1)  # so that a stable sort orders ties by index
    products = inner_products(vectors, rows, candidates)
    products[candidates == rows[:, None]] = -np.inf
    best = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(candidates, best, 1), np.take_along_axis(products, best, 1)


def list_proposals(faiss: ModuleType, vectors: Floats, tuning: ExactSample, seed: int) -> Iterator[Proposal]:
    """Candidates from lists, each time from twice as many, with all rows by list."""
    index = make_index(faiss, vectors, seed)
    members = [_rows_of_list(faiss, index, number) for number in range(index.nlist)]
    # the lists in the order in which each tuning row looks at them, and where its neighbors stand in that order
    order = index.quantizer.search(vectors[tuning.rows], index.nlist)[1]  # [s, l]
    neighbor_lists = index.quantizer.search(vectors[tuning.indices.ravel()], 1)[1].reshape(tuning.indices.shape)
    ranks = np.sort(np.take_along_axis(np.argsort(order, axis=1), neighbor_lists, 1), axis=None)
    count = int(ranks[int(np.ceil(GOAL * ranks.size)) - 1]) + 1
    sizes = np.array([len(rows) for rows in members])
    shares = sizes[order].cumsum(axis=1).mean(axis=0) / len(vectors)  # [l], of the rows in the first lists
    rows_by_list = np.concatenate(members)  # rows that look at the same lists, one after the other
    while count <= index.nlist and shares[count - 1] <= WORTH:
        method = f"{count:,} of {index.nlist:,} lists, {shares[count - 1]:.1%} of all rows"
        yield functools.partial(_from_lists, index, count), rows_by_list, method
        count *= 2


def make_index(faiss: ModuleType, vectors: Floats, seed: int) -> Any:
    """A FAISS index of the rows in 16 bits a number, in lists of about `LIST_ROWS` rows around k-means centers."""
    n, d = vectors.shape
    count = min(MOST_LISTS, max(1, n // LIST_ROWS))
    kinds = faiss.ScalarQuantizer
    kind = getattr(kinds, "QT_bf16", kinds.QT_fp16)  # before 1.9, FAISS has no bf16
    index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(d), d, count, kind, faiss.METRIC_INNER_PRODUCT, False)
    fit = index.cp
    fit.seed, fit.niter, fit.spherical = seed + 1, FIT_ROUNDS, True
    fit.min_points_per_centroid, fit.max_points_per_centroid = 1, FIT_ROWS + 1  # no warning, no sample of its own
    sampled = np.random.default_rng(seed).choice(n, min(n, FIT_ROWS * count), replace=False)
    index.train(vectors[np.sort(sampled)])
    index.add(vectors)
    return index


def _rows_of_list(faiss: ModuleType, index: Any, number: int) -> Ints:
    """The rows in a list, ascending."""
    size = index.invlists.list_size(number)
    if not size:  # fewer different rows than lists
        return np.zeros(0, np.int64)
    ids: Ints = faiss.rev_swig_ptr(index.invlists.get_ids(number), size).copy()
    return ids


def _from_lists(index: Any, count: int, vectors: Floats, rows: Ints, wanted: int) -> Ints:
    """Candidates from the `count` lists nearest to each row; from all rows where those hold too few."""
    faiss: Any = import_faiss()
    _, candidates = index.search(vectors[rows], wanted, params=faiss.SearchParametersIVF(nprobe=count))
    short = np.flatnonzero(candidates[:, -1] < 0)
    if len(short):
        candidates[short] = top_products(vectors, wanted, vectors[rows[short]])[1]
    return candidates


def product_proposals(n: int, device: str, why: str = "") -> Iterator[Proposal]:
    """Candidates from all rows, in the precisions in which the device is fast; `why` is added to the method."""
    on_cpu = ("bfloat16",) if has_bf16_unit("cpu") else ()
    for precision in ("float16", "float32") if device == "cuda" else on_cpu:
        yield functools.partial(_from_products, device, precision), np.arange(n), f"all products, in {precision}{why}"


def _from_products(device: str, precision: str, vectors: Floats, rows: Ints, wanted: int) -> Ints:
    """Candidates by products on the device: by FAISS on a GPU where it is usable, else by torch."""
    import torch

    coarse = torch.from_numpy(vectors).to(device, getattr(torch, precision))
    queries = coarse[torch.from_numpy(rows).to(device)]
    if device == "cuda" and wanted <= MOST_ON_GPU and searches_on_gpu():
        import faiss
        import faiss.contrib.torch_utils  # lets knn_gpu take tensors

        metric = faiss.METRIC_INNER_PRODUCT
        return faiss.knn_gpu(faiss.StandardGpuResources(), queries, coarse, wanted, metric=metric)[1].cpu().numpy()
    step = min(max(LEAST_QUERIES, CELLS[device] // len(coarse)), len(queries))
    products = coarse.new_empty(0, len(coarse))  # used again: fresh memory would take a third of a product's time

    def nearest(start: int, end: int) -> Any:
        nonlocal products
        if len(products) != end - start:  # at the first block, at the last one, and after the memory was too small
            products = products[: end - start]
            if len(products) < end - start:
                products = coarse.new_empty(end - start, len(coarse))
        return torch.mm(queries[start:end], coarse.T, out=products).topk(wanted, dim=1).indices

    return torch.cat(in_blocks(nearest, len(queries), step)).cpu().numpy()
