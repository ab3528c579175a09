"""The most similar rows among some: products in the machine's fastest precision propose, float32 decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audit_plugin.arrays import Floats, Ints

if TYPE_CHECKING:
    from torch import Tensor

SPARE = 33  # candidates beyond k: self, and what a coarse product may have misplaced
MEMBERS = 2**17  # rows against which queries are multiplied at once
FOLD = 4  # rows in a group of which only the largest product is looked at first
CELLS = {"cpu": 2**24, "cuda": 2**29}  # products held at once
LEAST_QUERIES = 64  # products of fewer columns are slow
PAIR_ROWS = 2**14
DECIDED = 2**22  # numbers gathered at once for the exact products


@dataclass(frozen=True)
class Space:
    """Unit rows on a device.

    Attributes:
        exact: float32 `[n, d]`.
        coarse: the same in the precision of candidates.
        products: room for a block of products, and
        members: for rows multiplied at once. Fresh memory for each block would cost as much as the products.
    """

    exact: Tensor
    coarse: Tensor
    products: Tensor
    members: Tensor


def make_space(exact: Tensor, coarse: Tensor) -> Space:
    """A space of these rows; see `Space`."""
    block = min(MEMBERS, _few_sizes(len(coarse)))
    cells = max(CELLS[coarse.device.type], block * LEAST_QUERIES)
    return Space(exact, coarse, coarse.new_zeros(cells), coarse.new_zeros(block, coarse.shape[1]))


def scan(space: Space, rows: Tensor, members: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The k most similar of the members to each row, itself left out.

    Coarse products name `k + SPARE` candidates, float32 products of each pair by itself order them: ties by index.

    Args:
        space: n rows.
        rows: int64 `[q]`, queries.
        members: int64 `[c]`, distinct rows that may be found, `k + SPARE` or more; None for all.
        k: neighbors wanted.

    Returns:
        (indices int64 `[q, k]`, similarities float32 `[q, k]`, descending).
    """
    import torch

    total = min(MEMBERS, len(space.coarse) if members is None else len(members))
    fitting = len(space.products) // _few_sizes(total)
    step = max(LEAST_QUERIES, fitting // (unit := _unit(fitting)) * unit)
    found = []
    for some in rows.split(step):
        found.append(_decide(space.exact, some, _candidates(space, some, members, k + SPARE), k))
    return torch.cat([index for index, _ in found]), torch.cat([near for _, near in found])


def _candidates(space: Space, rows: Tensor, members: Tensor | None, wanted: int) -> Tensor:
    """int64 `[q, wanted]`: rows of the largest coarse products."""
    import torch

    queries = _chosen(space.coarse, rows, space.coarse.new_zeros(_few_sizes(len(rows)), space.coarse.shape[1]))
    bits, found = [], []
    for start in range(0, len(space.coarse) if members is None else len(members), MEMBERS):
        some = slice(start, start + MEMBERS)
        part = space.coarse[some] if members is None else _chosen(space.coarse, members[some], space.members)
        room = space.products[: len(part) * len(queries)].view(len(part), len(queries))
        products = torch.mm(part, queries.T, out=room)
        whole = products.view(torch.int16 if products.dtype == torch.bfloat16 else torch.int32)
        whole = whole[: len(part) if members is None else len(members[some]), : len(rows)]
        at = largest(whole, min(wanted, len(whole)))
        bits.append(whole.gather(0, at))
        found.append(at + start if members is None else members[some][at])
    if len(found) == 1:
        return found[0].T
    return torch.cat(found).gather(0, _select(torch.cat(bits), wanted)).T


def _chosen(coarse: Tensor, rows: Tensor, room: Tensor) -> Tensor:
    """The rows in the room, and behind them what is there already, up to one of few sizes."""
    import torch

    torch.index_select(coarse, 0, rows, out=room[: len(rows)])
    return room[: _few_sizes(len(rows))]


def _few_sizes(count: int) -> int:
    """The count rounded up: for each new shape of a product a CPU library first writes itself a program, for 7 ms."""
    return -(-count // (unit := _unit(count))) * unit


def _unit(count: int) -> int:
    return max(LEAST_QUERIES, 1 << max(0, count.bit_length() - 4))


def largest(bits: Tensor, wanted: int) -> Tensor:
    """int64 `[wanted, q]`: positions of the largest of each column of `[c, q]`, in no order.

    The rows are dealt into groups: the largest lie in the groups with the largest maxima, so that nearly all of them
    are read once, and in order. Floats are compared by their bits, as whole numbers: twice as fast, and right but among
    the negative, which are no one's neighbors where others are.
    """
    import torch

    total = len(bits)
    if total < 2 * FOLD * wanted:
        return _select(bits, wanted)
    groups = total // FOLD
    folded = bits[: groups * FOLD].view(FOLD, groups, -1)
    top = largest(folded.amax(0), wanted)
    rest = torch.arange(groups * FOLD, total, device=bits.device)[:, None].expand(-1, bits.shape[1])
    at = torch.cat([*(top + groups * turn for turn in range(FOLD)), rest])
    return at.gather(0, _select(bits.gather(0, at), wanted))


def _select(bits: Tensor, wanted: int) -> Tensor:
    """The same of few rows. On the CPU numpy parts numbers that carry their position: many times faster than topk."""
    import torch

    if bits.is_cuda:
        return bits.topk(wanted, dim=0, sorted=False).indices
    wide, shift = (torch.int32, 16) if bits.dtype == torch.int16 else (torch.int64, 32)
    packed = bits.T.contiguous().to(wide) << shift | torch.arange(len(bits), dtype=wide)
    kept = np.partition(packed.numpy(), len(bits) - wanted, axis=1)[:, len(bits) - wanted :]
    return torch.from_numpy(kept & (1 << shift) - 1).T.long()


def _decide(exact: Tensor, rows: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of the candidates `[q, c]` by float32 products, the row itself left out."""
    import torch

    candidates = candidates.sort(dim=1).values
    near = inner(exact, rows, candidates)
    near[candidates == rows[:, None]] = -torch.inf
    near, order = near.sort(dim=1, descending=True, stable=True)
    return candidates.gather(1, order[:, :k]), near[:, :k]


def inner(exact: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    """float32 `[q, c]`: inner products of rows `[q]` with others `[q, c]`, each summed by itself.

    A matrix product may give equal rows different last digits, depending on where they stand.
    """
    import torch

    if not exact.is_cuda and (found := _inner_by_faiss(exact, rows, others)) is not None:
        return found
    step = max(1, DECIDED // (others.shape[1] * exact.shape[1]))
    parts = [
        (exact[some] * exact[row][:, None]).sum(2)
        for row, some in zip(rows.split(step), others.split(step), strict=True)
    ]
    return torch.cat(parts)


def pair_similarities(vectors: Floats, others: Ints) -> Floats:
    """float32 `[n, k]`: inner products of each row with those that `others` `[n, k]` names, NaN where it is -1."""
    import torch

    exact, out = torch.from_numpy(np.ascontiguousarray(vectors)), np.empty(others.shape, dtype=np.float32)
    for start in range(0, len(others), PAIR_ROWS):
        some = slice(start, start + PAIR_ROWS)
        rows = torch.arange(len(others))[some]
        out[some] = inner(exact, rows, torch.from_numpy(np.maximum(others[some], 0))).numpy()
    return np.where(others >= 0, out, np.float32(np.nan))


def _inner_by_faiss(exact: Tensor, rows: Tensor, others: Tensor) -> Tensor | None:
    """The same without a copy of every pair's rows; None without faiss."""
    import torch

    try:
        import faiss
    except ImportError:
        return None
    out = torch.empty(others.shape, dtype=torch.float32)
    arrays = [one.contiguous().numpy() for one in (out, exact[rows], exact, others)]
    faiss.fvec_inner_products_by_idx(*map(faiss.swig_ptr, arrays), exact.shape[1], *others.shape)  # type: ignore[attr-defined]
    return out
