"""Trains the trials: one small head per modality on frozen features, many trials at once.

All trials of a group are trained together as batched matrix products, on a CPU a share of them in each thread. Each
draws its first weights and its batches from a generator of its own (seed, trial), so its result depends on the data,
the settings and its number alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import gelu, normalize

from audit_plugin.arrays import Bools, Ints, check_lengths, dense_ids, modality_pairs
from audit_plugin.encoders.devices import in_blocks, in_single_threads
from audit_plugin.inputs.threads import check_stopped

TRIAL_GROUP = 8  # trials trained together as batched products; stored runs are cut into such parts
HIDDEN_DIM = 256  # of the one hidden layer
OUTPUT_DIM = 128  # of the embeddings
TEMPERATURE = 1 / 25  # of the loss
BATCH = 256  # samples per step and trial, at most
READ_ROWS = 4096  # rows embedded at once on a CPU; changes no result
LEARNING_RATE = 5e-3  # of AdamW, at the start of the half cosine
WEIGHT_DECAY = 0.05  # of AdamW

Layers = tuple[torch.Tensor, ...]  # w1 `[g, d, h]`, b1 `[g, 1, h]`, w2 `[g, h, o]`, b2 `[g, 1, o]`


@dataclass(frozen=True)
class Heads:
    """Weights of the heads of g trainings, one head `[d]` -> `[o]` per modality and training."""

    layers: tuple[Layers, ...]

    def embed(self, inputs: Sequence[torch.Tensor], place: int) -> list[torch.Tensor]:
        """Unit embeddings `[n, o]` per modality by training `place` of the g, from inputs `[n, d]` per modality."""
        with torch.inference_mode():
            heads = [tuple(w[place : place + 1] for w in layers) for layers in self.layers]
            return [_embed_rows(x, layers) for x, layers in zip(inputs, heads, strict=True)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Named arrays for the run folder."""
        return {f"head_{a}_{i}": w.cpu().numpy() for a, layers in enumerate(self.layers) for i, w in enumerate(layers)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray], modalities: int, device: str) -> Heads:
        """The heads that `arrays` named."""
        names = [[f"head_{a}_{i}" for i in range(4)] for a in range(modalities)]
        return Heads(tuple(tuple(torch.from_numpy(arrays[name]).to(device) for name in head) for head in names))


def train_group(
    inputs: Sequence[torch.Tensor],
    member: Bools,
    trial_numbers: Sequence[int],
    shared_ids: Ints,
    epochs: int,
    seed: int,
    size: int,
) -> Heads:
    """Trains one group of trials with the symmetric InfoNCE loss, mean over pairs of modalities.

    Args:
        inputs: per modality `[n, d]`, on the device to train on.
        member: bool `[g, n]`, the rows of the group's trials.
        trial_numbers: `[g]`, their numbers in the whole run: seeds.
        shared_ids: int `[n, c]`; two samples that are equal in any column are never each other's negatives
            (same media, same text, same group).
        epochs: passes over the members.
        seed: of the run.
        size: members of a usual trial of the run: sets the steps of an epoch, which are the same for every trial.
    """
    check_lengths(trial_numbers=trial_numbers, member=member)

    def train(places: Ints) -> Heads:
        numbers = [trial_numbers[place] for place in places]
        return _train_together(inputs, member[places], numbers, shared_ids, epochs, seed, size)

    return train_in_shares(train, len(trial_numbers), inputs[0].device)


def train_in_shares(train: Callable[[Ints], Heads], count: int, device: torch.device) -> Heads:
    """The heads of `count` trainings by `train` (numbers of some of them -> theirs): on a CPU a share in each thread.

    A training is the same to the byte whatever is trained with it, and in whichever thread.
    """
    numbers = np.arange(count)
    if device.type == "cuda":
        return train(numbers)
    parts = in_single_threads(train, np.array_split(numbers, min(torch.get_num_threads(), count)))
    modalities = zip(*(part.layers for part in parts), strict=True)
    return Heads(tuple(tuple(map(torch.cat, zip(*of_parts, strict=True))) for of_parts in modalities))


def _train_together(
    inputs: Sequence[torch.Tensor],
    member: Bools,
    trial_numbers: Sequence[int],
    shared_ids: Ints,
    epochs: int,
    seed: int,
    size: int,
) -> Heads:
    """The trials of `train_group` as batched products."""
    device = inputs[0].device
    generators = [np.random.default_rng((seed, 1_000_003, number)) for number in trial_numbers]
    layers = [new_head(x.shape[1], generators, device) for x in inputs]
    rows = [np.flatnonzero(inside) for inside in member]
    steps = -(-size // BATCH)
    batch = size // steps

    def batches() -> Iterator[torch.Tensor]:
        for _ in range(epochs):
            # with fewer than steps * batch members, the first ones are drawn again; with more, the last are left out
            orders = [np.resize(g.permutation(r), steps * batch) for g, r in zip(generators, rows, strict=True)]
            yield from torch.from_numpy(np.stack(orders)).to(device).split(batch, dim=1)

    return optimize_heads(inputs, layers, batches(), epochs * steps, shared_ids, LEARNING_RATE)


def optimize_heads(
    inputs: Sequence[torch.Tensor],
    layers: Sequence[Layers],
    batches: Iterable[torch.Tensor],
    steps: int,
    shared_ids: Ints,
    learning_rate: float,
) -> Heads:
    """Trains g sets of heads by AdamW: those whose `layers` are given per modality, which are changed in place.

    The batches are int64 rows `[g, b]`, `steps` of them; `inputs` and `shared_ids` are those of `train_group`. The
    learning rate falls to 0 along a half cosine.
    """
    check_lengths(shared_ids=shared_ids, **{f"modality {a}": x for a, x in enumerate(inputs)})
    weights = [w.requires_grad_() for head in layers for w in head]
    update = AdamW(weights)
    same = torch.from_numpy(informative_columns(shared_ids)).to(inputs[0].device)
    for step, rows in enumerate(batches):
        check_stopped()
        embeddings = [normalize(head_outputs(x[rows], head), dim=-1) for x, head in zip(inputs, layers, strict=True)]
        contrastive_loss(embeddings, same[rows]).backward()
        update.step(learning_rate * (1 + math.cos(math.pi * step / steps)) / 2)
    return Heads(tuple(tuple(w.detach() for w in head) for head in layers))


class AdamW:
    """AdamW by the kernel that `torch.optim.AdamW(fused=True)` calls, whose class imports torch's compiler: 170 MB."""

    def __init__(self, weights: list[torch.Tensor]) -> None:
        self.weights = weights
        self.moments = [[torch.zeros_like(w) for w in weights] for _ in range(2)]  # of first and second order
        self.steps = [torch.zeros((), device=w.device) for w in weights]

    def step(self, learning_rate: float) -> None:
        """Updates the weights by their gradients, and clears these."""
        gradients = [w.grad for w in self.weights if w.grad is not None]
        with torch.no_grad():
            torch._foreach_add_(self.steps, 1)
            torch._fused_adamw_(
                self.weights,
                gradients,
                *self.moments,
                [],
                self.steps,
                lr=learning_rate,
                beta1=0.9,
                beta2=0.999,
                weight_decay=WEIGHT_DECAY,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )
        for w in self.weights:
            w.grad = None


def informative_columns(shared_ids: Ints) -> Ints:
    """int32 `[n, 0 to c]`: the columns of `[n, c]` without those that have no shared id or repeat another column.

    Each column costs a comparison of every two samples of every batch.
    """
    informative: list[Ints] = []
    for column in shared_ids.T:
        ids = dense_ids(column, by_first_row=True).astype(np.int32)  # equal for columns that differ in names alone
        has_repeats = int(ids.max(initial=-1)) + 1 < len(ids)
        if has_repeats and not any(np.array_equal(ids, other) for other in informative):
            informative.append(ids)
    return np.stack(informative, axis=1) if informative else np.zeros((len(shared_ids), 0), np.int32)


def new_head(dim: int, generators: Sequence[np.random.Generator], device: torch.device) -> Layers:
    """Random weights of one head `[dim]` -> `[OUTPUT_DIM]` per generator: N(0, 1 / inputs), biases 0."""

    def draw(fan_in: int, fan_out: int) -> torch.Tensor:
        values = [g.standard_normal((fan_in, fan_out), dtype=np.float32) / math.sqrt(fan_in) for g in generators]
        return torch.from_numpy(np.stack(values)).to(device)

    b1, b2 = (torch.zeros(len(generators), 1, size, device=device) for size in (HIDDEN_DIM, OUTPUT_DIM))
    return draw(dim, HIDDEN_DIM), b1, draw(HIDDEN_DIM, OUTPUT_DIM), b2


def head_outputs(x: torch.Tensor, layers: Layers) -> torch.Tensor:
    """`[g, b, d]` -> `[g, b, o]`, before they are normalized to unit rows."""
    w1, b1, w2, b2 = layers
    return gelu(x @ w1 + b1) @ w2 + b2


def _embed_rows(x: torch.Tensor, layers: Layers) -> torch.Tensor:
    """`[n, d]` -> unit rows `[n, o]` by one head; on a CPU in blocks that stay in its cache, twice as fast."""
    size = len(x) if x.is_cuda else READ_ROWS
    if not x.is_cuda and len(x) <= size:
        return normalize(head_outputs(x[None], layers), dim=-1)[0]
    embeddings = x.new_empty(len(x), layers[2].shape[-1])

    def embed(start: int, end: int) -> None:
        embeddings[start:end] = normalize(head_outputs(x[None, start:end], layers), dim=-1)[0]

    in_blocks(embed, len(x), size)
    return embeddings


def contrastive_loss(embeddings: Sequence[torch.Tensor], same: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE: sum over trainings, mean over pairs of modalities and over samples.

    Args:
        embeddings: unit rows `[g, b, o]` per modality.
        same: int `[g, b, c]`; samples that are equal in any column are not each other's negatives.
    """
    repeated = None  # bool [g, b, b]
    for column in same.unbind(2):
        equal = column[:, :, None] == column[:, None, :]
        repeated = equal if repeated is None else repeated.logical_or_(equal)
    if repeated is not None:
        repeated.diagonal(dim1=1, dim2=2).fill_(False)  # a sample's own partner stays
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
        exponentials = torch.bmm(a / TEMPERATURE, b.transpose(1, 2))  # logits, until they are replaced below
        own_logits = exponentials.diagonal(dim1=1, dim2=2).clone()
        exponentials.exp_()
        if repeated is not None:
            exponentials.masked_fill_(repeated, 0)
        row_sums, column_sums = exponentials.sum(2), exponentials.sum(1)
        ctx.save_for_backward(a, b, exponentials, row_sums, column_sums)
        # per sample: half of -log(e^own / row sum), half of -log(e^own / column sum)
        return (0.5 * (row_sums.log() + column_sums.log()) - own_logits).mean(1).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        a, b, exponentials, row_sums, column_sums = ctx.saved_tensors
        # d loss / d logit_ij = (softmax over the row + softmax over the column) / 2 - [i = j], over b samples
        slope = exponentials * ((0.5 / row_sums)[:, :, None] + (0.5 / column_sums)[:, None, :])
        slope.diagonal(dim1=1, dim2=2).sub_(1)
        slope *= gradients[0] / (TEMPERATURE * a.shape[1])
        return torch.bmm(slope, b), torch.bmm(slope.transpose(1, 2), a), None
