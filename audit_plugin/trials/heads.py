"""Trains the trials: one small head per modality on frozen features, many trials at once.

All trials of a group are trained together as batched matrix products; each draws its start and its batches from
its own generator (seed, trial), so that a trial's result depends on nothing but the data, the settings and its number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import gelu, normalize

from audit_plugin.arrays import Bools, Ints, modality_pairs

TRIAL_GROUP = 8
HIDDEN_DIM = 256
OUTPUT_DIM = 128
TEMPERATURE = 1 / 25
BATCH = 256
READ_ROWS = 4096
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class Heads:
    """Weights of one group of trials: per modality (w1 `[r, d, h]`, b1, w2 `[r, h, o]`, b2)."""

    layers: tuple[tuple[torch.Tensor, ...], ...]

    def embed(self, inputs: Sequence[torch.Tensor], trial: int) -> list[torch.Tensor]:
        """Unit embeddings `[n, o]` per modality under one trial of the group."""
        with torch.inference_mode():
            return [
                _read(x, [w[trial : trial + 1] for w in layer]) for x, layer in zip(inputs, self.layers, strict=True)
            ]

    def arrays(self) -> dict[str, np.ndarray]:
        """Named arrays for the run folder."""
        return {f"head_{a}_{i}": w.cpu().numpy() for a, layer in enumerate(self.layers) for i, w in enumerate(layer)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray], modalities: int, device: str) -> Heads:
        """The way back from `arrays`."""
        return Heads(
            tuple(
                tuple(torch.from_numpy(arrays[f"head_{a}_{i}"]).to(device) for i in range(4)) for a in range(modalities)
            )
        )


def train_group(
    inputs: Sequence[torch.Tensor],
    member: Bools,
    trial_numbers: Sequence[int],
    repeats: Ints,
    epochs: int,
    seed: int,
    size: int,
) -> Heads:
    """Trains one group of trials with the symmetric InfoNCE loss, summed over pairs of modalities.

    Args:
        inputs: per modality `[n, d]`, on the device to train on.
        member: bool `[g, n]`, the rows of the group's trials.
        trial_numbers: `[g]`, their numbers in the whole run: seeds.
        repeats: int `[n, c]`; two samples that are equal in any column are never each other's negatives
            (same media, same text, same group).
        epochs: passes over the members.
        seed: the run's seed.
        size: members of a usual trial of the run: sets the steps of an epoch, which are the same for every trial.
    """
    device = inputs[0].device
    generators = [np.random.default_rng((seed, 1_000_003, t)) for t in trial_numbers]
    layers = tuple(new_head(x.shape[1], generators, device) for x in inputs)
    weights = [w.requires_grad_() for layer in layers for w in layer]
    rows = [np.flatnonzero(m) for m in member]
    steps = -(-size // BATCH)
    batch = size // steps
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    same = torch.from_numpy(telling(repeats)).to(device)
    for _ in range(epochs):
        order = np.stack([np.resize(g.permutation(r), steps * batch) for g, r in zip(generators, rows, strict=True)])
        for step in torch.from_numpy(order).to(device).split(batch, dim=1):
            optimizer.zero_grad(set_to_none=True)
            contrastive_loss(
                [_head(x[step], layer) for x, layer in zip(inputs, layers, strict=True)], same[step]
            ).backward()
            optimizer.step()
            schedule.step()
    return Heads(tuple(tuple(w.detach() for w in layer) for layer in layers))


def telling(repeats: Ints) -> Ints:
    """Columns `[n, 0 to c]` that mark what the columns of `[n, c]` mark: those without a repeat left out.

    Each costs a comparison of every two samples of every batch.
    """
    kept: list[Ints] = []
    for column in repeats.T:
        values, first, inverse = np.unique(column, return_index=True, return_inverse=True)
        named = first[inverse].astype(np.int32)  # the same for columns that only name their values differently
        if len(values) < len(column) and not any(np.array_equal(named, other) for other in kept):
            kept.append(named)
    return np.stack(kept, axis=1) if kept else np.zeros((len(repeats), 0), np.int32)


def new_head(dim: int, generators: Sequence[np.random.Generator], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Random weights of one head `[d]` -> `[OUTPUT_DIM]` per generator, see `Heads`."""

    def draw(fan_in: int, fan_out: int) -> torch.Tensor:
        values = [g.standard_normal((fan_in, fan_out), dtype=np.float32) / math.sqrt(fan_in) for g in generators]
        return torch.from_numpy(np.stack(values)).to(device)

    count = len(generators)
    return (
        draw(dim, HIDDEN_DIM),
        torch.zeros(count, 1, HIDDEN_DIM, device=device),
        draw(HIDDEN_DIM, OUTPUT_DIM),
        torch.zeros(count, 1, OUTPUT_DIM, device=device),
    )


def _head(x: torch.Tensor, layer: Sequence[torch.Tensor]) -> torch.Tensor:
    """`[g, b, d]` -> unit rows `[g, b, o]`."""
    w1, b1, w2, b2 = layer
    return normalize(gelu(x @ w1 + b1) @ w2 + b2, dim=-1)


def _read(x: torch.Tensor, layer: Sequence[torch.Tensor]) -> torch.Tensor:
    """`[n, d]` -> unit rows `[n, o]` by one head; on a CPU in blocks that stay in its cache, twice as fast."""
    if x.is_cuda or len(x) <= READ_ROWS:
        return _head(x[None], layer)[0]
    out = x.new_empty(len(x), layer[2].shape[-1])
    for rows, block in zip(x.split(READ_ROWS), out.split(READ_ROWS), strict=True):
        block.copy_(_head(rows[None], layer)[0])
    return out


def contrastive_loss(embeddings: list[torch.Tensor], same: torch.Tensor) -> torch.Tensor:
    """Sum over trials of the mean symmetric InfoNCE, mean over pairs; `same` `[g, b, c]` marks what is no negative."""
    repeated = None
    for column in same.unbind(2):
        equal = column[:, :, None] == column[:, None, :]
        repeated = equal if repeated is None else repeated.logical_or_(equal)
    if repeated is not None:
        repeated.diagonal(dim1=1, dim2=2).fill_(False)
    pairs = modality_pairs(tuple(map(str, range(len(embeddings)))))
    total = sum(_InfoNCE.apply(embeddings[a], embeddings[b], repeated) for a, b in pairs)
    return total / len(pairs)


class _InfoNCE(torch.autograd.Function):
    """Symmetric InfoNCE of unit rows `[g, b, o]`, summed over trials, with its gradient by hand.

    On a CPU the `[g, b, b]` logits cost more than the matrix products around them, so they are walked over few times:
    one exponential serves both directions, in place, and the gradient reuses it. Unit rows keep the logits within
    1 / TEMPERATURE = 25, so nothing overflows without the usual shift by the maximum.
    """

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, repeated: torch.Tensor | None) -> torch.Tensor:
        exponentials = torch.bmm(a / TEMPERATURE, b.transpose(1, 2))
        hit = exponentials.diagonal(dim1=1, dim2=2).clone()
        exponentials.exp_()
        if repeated is not None:
            exponentials.masked_fill_(repeated, 0)
        rows, columns = exponentials.sum(2), exponentials.sum(1)
        ctx.save_for_backward(a, b, exponentials, rows, columns)
        return (0.5 * (rows.log() + columns.log()) - hit).mean(1).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        a, b, exponentials, rows, columns = ctx.saved_tensors
        slope = exponentials * ((0.5 / rows)[:, :, None] + (0.5 / columns)[:, None, :])
        slope.diagonal(dim1=1, dim2=2).sub_(1)
        slope *= gradients[0] / (TEMPERATURE * a.shape[1])
        return torch.bmm(slope, b), torch.bmm(slope.transpose(1, 2), a), None
