"""The most similar of many rows: products in the machine's fastest precision propose, float32 products decide."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audit_plugin.arrays import Floats, Ints, check_lengths

if TYPE_CHECKING:
    from torch import Tensor

SPARE = 33  # candidates beyond k: self, and what a coarse product may have misplaced
MEMBERS = 2**17  # rows against which queries are multiplied at once
FOLD = 4  # rows in a group of which only the largest product is looked at first
CELLS = {"cpu": 2**24, "cuda": 2**29}  # products that are in memory at once
LEAST_QUERIES = 64  # products of fewer columns are slow
PAIR_ROWS = 2**14  # rows whose pairs `pair_similarities` multiplies at once
GATHERED_NUMBERS = 2**22  # gathered at once for the exact products


@dataclass(frozen=True)
class Space:
    """Unit rows on a device, with memory for products: fresh memory would cost as much as the products."""

    exact: Tensor  # float32 [n, d]
    coarse: Tensor  # the same in the precision of candidates
    product_buffer: Tensor  # for a block of products
    member_buffer: Tensor  # for rows multiplied at once


def make_space(exact: Tensor, coarse: Tensor) -> Space:
    """A space of these rows."""
    block = min(MEMBERS, _rounded_up(len(coarse)))
    cells = max(CELLS[coarse.device.type], block * LEAST_QUERIES)
    return Space(exact, coarse, coarse.new_zeros(cells), coarse.new_zeros(block, coarse.shape[1]))


def nearest_members(space: Space, rows: Tensor, members: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The k most similar of the members to each row, without the row itself.

    Coarse products name `k + SPARE` candidates, float32 products of each pair by itself order them: ties by index.

    Args:
        space: n rows.
        rows: int64 `[q]`, queries.
        members: int64 `[c]`, distinct rows that may be neighbors, `k + SPARE` or more; None for all.
        k: neighbors wanted.

    Returns:
        (indices int64 `[q, k]`, similarities float32 `[q, k]`, descending).
    """
    import torch

    member_count = min(MEMBERS, len(space.coarse) if members is None else len(members))
    queries_that_fit = len(space.product_buffer) // _rounded_up(member_count)
    unit = _unit(queries_that_fit)
    step = max(LEAST_QUERIES, queries_that_fit // unit * unit)
    indices, similarities = [], []
    for queries in rows.split(step):
        # sorted, so that a stable sort by similarity orders ties by index
        candidates = _candidates(space, queries, members, k + SPARE).sort(dim=1).values
        products = inner_products(space.exact, queries, candidates)
        products[candidates == queries[:, None]] = -torch.inf
        products, order = products.sort(dim=1, descending=True, stable=True)
        indices.append(candidates.gather(1, order[:, :k]))
        similarities.append(products[:, :k])
    return torch.cat(indices), torch.cat(similarities)


def _candidates(space: Space, rows: Tensor, members: Tensor | None, wanted: int) -> Tensor:
    """int64 `[q, wanted]`: the members of the largest coarse products with each row `[q]`, in no order."""
    import torch

    queries = _gathered(space.coarse, rows, space.coarse.new_zeros(_rounded_up(len(rows)), space.coarse.shape[1]))
    bits, indices = [], []  # per block of members, int `[wanted, q]`
    for start in range(0, len(space.coarse) if members is None else len(members), MEMBERS):
        block = slice(start, start + MEMBERS)
        if members is None:
            coarse = space.coarse[block]
            count = len(coarse)
        else:
            coarse = _gathered(space.coarse, members[block], space.member_buffer)
            count = len(members[block])
        buffer = space.product_buffer[: len(coarse) * len(queries)].view(len(coarse), len(queries))
        products = torch.mm(coarse, queries.T, out=buffer)  # [c, q], both padded to one of few sizes
        as_integers = products.view(torch.int16 if products.dtype == torch.bfloat16 else torch.int32)
        as_integers = as_integers[:count, : len(rows)]
        positions = largest(as_integers, min(wanted, count))
        bits.append(as_integers.gather(0, positions))
        indices.append(positions + start if members is None else members[block][positions])
    if len(indices) == 1:
        return indices[0].T
    return torch.cat(indices).gather(0, _largest_of_few(torch.cat(bits), wanted)).T


def _gathered(coarse: Tensor, rows: Tensor, buffer: Tensor) -> Tensor:
    """The rows in the buffer, and behind them whatever it holds, up to one of few sizes."""
    import torch

    torch.index_select(coarse, 0, rows, out=buffer[: len(rows)])
    return buffer[: _rounded_up(len(rows))]


def _rounded_up(count: int) -> int:
    """The count rounded up to one of few sizes: a CPU library compiles each new shape of a product, for 7 ms."""
    unit = _unit(count)
    return -(-count // unit) * unit


def _unit(count: int) -> int:
    """A sixteenth to an eighth of the count, as a power of two."""
    return max(LEAST_QUERIES, 1 << max(0, count.bit_length() - 4))


def largest(bits: Tensor, wanted: int) -> Tensor:
    """int64 `[wanted, q]`: positions of the largest of each column of `[c, q]`, in no order.

    The rows are dealt into groups of `FOLD`: the largest lie in the groups with the largest maxima, so that nearly all
    rows are read once, and in order. Floats are compared by their bits, as integers: twice as fast, and right except
    among negative ones, which are not neighbors where any other row is.
    """
    import torch

    total = len(bits)
    if total < 2 * FOLD * wanted:
        return _largest_of_few(bits, wanted)
    groups = total // FOLD
    # row `turn * groups + g` is in group g: [FOLD, groups, q]
    folded = bits[: groups * FOLD].view(FOLD, groups, -1)
    best_groups = largest(folded.amax(0), wanted)
    in_groups = [best_groups + groups * turn for turn in range(FOLD)]
    in_no_group = torch.arange(groups * FOLD, total, device=bits.device)[:, None].expand(-1, bits.shape[1])
    positions = torch.cat([*in_groups, in_no_group])
    return positions.gather(0, _largest_of_few(bits.gather(0, positions), wanted))


def _largest_of_few(bits: Tensor, wanted: int) -> Tensor:
    """`largest` of few rows. On the CPU numpy partitions numbers that carry their position, much faster than topk."""
    import torch

    if bits.is_cuda:
        return bits.topk(wanted, dim=0, sorted=False).indices
    wide, shift = (torch.int32, 16) if bits.dtype == torch.int16 else (torch.int64, 32)
    # value in the high bits, position in the low ones: [q, c]
    packed = bits.T.contiguous().to(wide) << shift | torch.arange(len(bits), dtype=wide)
    partitioned = np.partition(packed.numpy(), len(bits) - wanted, axis=1)
    positions = partitioned[:, len(bits) - wanted :] & (1 << shift) - 1
    return torch.from_numpy(positions).T.long()


def inner_products(exact: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    """float32 `[q, c]`: inner products of rows `[q]` with others `[q, c]`, each summed by itself.

    A matrix product may give equal rows different last digits, depending on where they stand.
    """
    import torch

    if not exact.is_cuda:
        with contextlib.suppress(ImportError):  # without a copy of each pair's rows
            import faiss

            products = torch.empty(others.shape, dtype=torch.float32)
            arrays = [tensor.contiguous().numpy() for tensor in (products, exact[rows], exact, others)]
            pointers = [faiss.swig_ptr(array) for array in arrays]
            faiss.fvec_inner_products_by_idx(*pointers, exact.shape[1], *others.shape)  # type: ignore[attr-defined]
            return products
    step = max(1, GATHERED_NUMBERS // (others.shape[1] * exact.shape[1]))
    parts = [
        (exact[part_others] * exact[part_rows][:, None]).sum(2)
        for part_rows, part_others in zip(rows.split(step), others.split(step), strict=True)
    ]
    return torch.cat(parts)


def pair_similarities(vectors: Floats, others: Ints) -> Floats:
    """float32 `[n, k]`: inner products of each row with those that `others` `[n, k]` names, NaN where it is -1."""
    import torch

    check_lengths(vectors=vectors, others=others)
    exact = torch.from_numpy(np.ascontiguousarray(vectors))
    similarities = np.empty(others.shape, dtype=np.float32)
    for start in range(0, len(others), PAIR_ROWS):
        part = slice(start, start + PAIR_ROWS)
        rows = torch.arange(len(others))[part]
        similarities[part] = inner_products(exact, rows, torch.from_numpy(np.maximum(others[part], 0)).long()).numpy()
    similarities[others < 0] = np.nan
    return similarities
