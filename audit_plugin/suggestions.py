"""Another caption for a misaligned sample: the one that fits its medium clearly better, by trials that saw neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .arrays import Bools, Floats, Ints
from .evidence import Gathered
from .held_out import TEMPERATURE, draw_pool
from .scores import Evidence

MARGIN = 2.0


def suggest(gathered: Gathered, misaligned: Bools, captions: Sequence[str], seed: int) -> Any:
    """Object `[n]`: a caption from the set for each misaligned row that has one above the margin, else ""."""
    evidence = gathered.evidence
    out = np.full(len(evidence), "", dtype=object)
    pair = next((_text_last(p, evidence) for p in evidence.pairs if sum(m in evidence.texts for m in p) == 1), None)
    rows = np.flatnonzero(misaligned)
    if evidence.trials is None or pair is None or not len(rows):
        return out
    position = next(i for i, p in enumerate(evidence.pairs) if set(p) == set(pair))
    pool = draw_pool(np.arange(len(evidence)), seed)
    contrast = candidate_contrast(gathered, pair, rows, pool)
    own = evidence.trials.held_out["contrast"][position]
    median = float(np.nanmedian(own))
    spread = 1.4826 * float(np.nanmedian(np.abs(own - median)))
    content = evidence.contents[pair[1]]
    contrast[content[rows][:, None] == content[pool][None, :]] = np.nan  # its own caption is no suggestion
    usable = np.isfinite(contrast).any(1)
    best = np.nanargmin(np.where(np.isfinite(contrast), contrast, np.inf), axis=1)
    value = contrast[np.arange(len(rows)), best]
    # it must fit like the set's better half, and beat the present caption by a margin
    fits = usable & (value < median) & (value < own[rows] - MARGIN * spread)
    for row, choice in zip(rows[fits], pool[best[fits]], strict=True):
        out[row] = captions[choice]
    return out


def _text_last(pair: tuple[str, str], evidence: Evidence) -> tuple[str, str]:
    return pair if pair[1] in evidence.texts else (pair[1], pair[0])


def candidate_contrast(gathered: Gathered, pair: tuple[str, str], rows: Ints, pool: Ints) -> Floats:
    """`[q, p]`: contrast of each row's medium with each pool caption, mean over trials that saw neither; else NaN."""
    assert gathered.plan is not None
    assert gathered.embed is not None
    a, b = (gathered.evidence.modalities.index(name) for name in pair)
    total, count = np.zeros((len(rows), len(pool)), np.float32), np.zeros((len(rows), len(pool)), np.int32)
    for number, member in enumerate(gathered.plan.member):
        embeddings = gathered.embed(number)
        mine, theirs = np.flatnonzero(~member[rows]), np.flatnonzero(~member[pool])
        at = np.ix_(mine, theirs)
        total[at] += _contrast_matrix(embeddings[a], embeddings[b], rows[mine], pool[theirs])
        count[at] += 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / count


def _contrast_matrix(left: torch.Tensor, right: torch.Tensor, rows: Ints, pool: Ints) -> Floats:
    """`[q, p]` contrast of rows' left side with the pool's right side, negatives from the pool.

    As in the held-out contrast of the present pairs, which it is weighed against, the pair itself is no negative.
    """
    q, p = torch.from_numpy(rows).to(left.device), torch.from_numpy(pool).to(left.device)
    logits = left[q] @ right[p].T / TEMPERATURE
    hubness = torch.cat([torch.logsumexp(block @ left[p].T / TEMPERATURE, 1) for block in right[p].split(2048)])
    forward = _without(torch.logsumexp(logits, 1, keepdim=True), logits)
    # a row outside the pool is not among the captions' negatives in the first place
    backward = torch.where(torch.isin(q, p)[:, None], _without(hubness[None], logits), hubness[None])
    log_mean = forward + backward - 2 * np.log(max(len(pool) - 1, 1))
    return (TEMPERATURE * (0.5 * log_mean - logits)).cpu().numpy()


def _without(total: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """log(exp(total) - exp(part)), held finite where the part is nearly all of the total."""
    return total + torch.log1p(-torch.exp(part - total).clamp(max=1 - 1e-6))
