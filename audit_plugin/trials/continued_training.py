"""Trains heads further, or anew, on chosen rows: for removal curves and for what mitigation does.

Unlike the trials of an audit, the trainings of one call may start from given weights, hold unequal numbers of rows,
and treat some rows as hot. All of them take the same number of steps of the same size, so that they differ in their
data alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import gelu, normalize

from audit_plugin.arrays import Bools, Ints

from .heads import BATCH, LEARNING_RATE, WEIGHT_DECAY, Heads, contrastive_loss, new_head
from .mitigation import add_noise


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the longest list of rows.
        seed: of the run.
        hot: bool `[g, n]`, equally many of each training's rows, or None.
        regroup: whether hot rows share batches only with hot rows.
        noise: modality position -> sigma on the unit vector before the last normalization.
        noise_on: "hot" rows or "all".
        size: rows that an epoch's steps are counted for; 0: those of the longest list.
        learning_rate: at the first step; falls to 0 along a half cosine.
        from_epoch: before it neither regrouping nor noise: the paper's regrouping epoch.
    """

    epochs: int
    seed: int = 0
    hot: Bools | None = None
    regroup: bool = False
    noise: Mapping[int, float] = field(default_factory=dict)
    noise_on: str = "hot"
    from_epoch: int = 0
    size: int = 0
    learning_rate: float = LEARNING_RATE


def train_heads(
    inputs: Sequence[torch.Tensor],
    rows: Sequence[Ints],
    streams: Sequence[int],
    repeats: Ints,
    recipe: Recipe,
    start: Heads | None = None,
) -> Heads:
    """Trains g sets of heads together with the symmetric InfoNCE loss of the trials.

    Args:
        inputs: per modality `[n, d]`, on the device to train on.
        rows: g lists of rows to train on; those shorter than the recipe's size go round more often.
        streams: `[g]`, numbers of the random streams: trainings of one stream share start, order and noise, so that
            two of them differ only by what their rows differ in.
        repeats: int `[n, c]`; equal in any column means never each other's negatives.
        recipe: epochs, and what is done to hot rows.
        start: weights of g sets to start from, or None: a random start per stream.
    """
    device = inputs[0].device
    further = start is not None  # other shuffles than those that the start was made with
    generators = [np.random.default_rng((recipe.seed, 2_000_003, s, further)) for s in streams]
    if start is None:
        layers = tuple(new_head(x.shape[1], generators, device) for x in inputs)
    else:
        layers = tuple(tuple(w.detach().clone() for w in layer) for layer in start.layers)
    weights = [w.requires_grad_() for layer in layers for w in layer]
    batches = list(_batches(len(repeats), rows, recipe, generators))
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    same = torch.from_numpy(repeats).to(device)
    for step, late in batches:
        chosen = torch.from_numpy(step).to(device)
        raw = [_raw(x[chosen], layer) for x, layer in zip(inputs, layers, strict=True)]
        if late:
            raw = _disturb(raw, step, recipe, generators)
        optimizer.zero_grad(set_to_none=True)
        contrastive_loss([normalize(x, dim=-1) for x in raw], same[chosen]).backward()
        optimizer.step()
        schedule.step()
    return Heads(tuple(tuple(w.detach() for w in layer) for layer in layers))


def _raw(x: torch.Tensor, layer: Sequence[torch.Tensor]) -> torch.Tensor:
    """`[g, b, d]` -> `[g, b, o]` before the last normalization."""
    w1, b1, w2, b2 = layer
    return gelu(x @ w1 + b1) @ w2 + b2


def _disturb(
    raw: list[torch.Tensor], step: Ints, recipe: Recipe, generators: Sequence[np.random.Generator]
) -> list[torch.Tensor]:
    """The raw embeddings `[g, b, o]` per modality with the recipe's noise."""
    if recipe.noise_on == "all":
        noisy = np.ones(step.shape, dtype=bool)
    elif recipe.hot is None:
        return raw
    else:
        noisy = np.take_along_axis(recipe.hot, step, axis=1)
    out = list(raw)
    for a, sigma in recipe.noise.items():
        draw = np.stack([g.standard_normal(raw[a].shape[1:], dtype=np.float32) for g in generators])
        rows, values = (torch.from_numpy(v).to(raw[a].device) for v in (noisy, draw))
        out[a] = add_noise(raw[a], rows, sigma, values)
    return out


def _batches(
    n: int, rows: Sequence[Ints], recipe: Recipe, generators: Sequence[np.random.Generator]
) -> Iterator[tuple[Ints, bool]]:
    """(rows `[g, b]`, whether mitigation is in force) of every step."""
    mixer = np.random.default_rng((recipe.seed, 2_000_029))
    together = _Stream(n, rows, generators, recipe.size)
    for _ in range(min(recipe.from_epoch, recipe.epochs) if recipe.regroup else recipe.epochs):
        for step in together.epoch():
            yield step, together.epochs > recipe.from_epoch
    if not recipe.regroup or recipe.from_epoch >= recipe.epochs:
        return
    hot = recipe.hot if recipe.hot is not None else np.zeros((len(rows), n), dtype=bool)
    sides = [[r[h[r] == side] for r, h in zip(rows, hot, strict=True)] for side in (False, True)]
    if len({len(r) for r in sides[1]}) > 1:
        raise ValueError("trainings of one call need equally many hot rows")
    apart = [_Stream(n, side, generators) for side in sides if len(side[0])]
    for _ in range(recipe.from_epoch, recipe.epochs):
        steps = [step for stream in apart for step in stream.epoch()]
        for at in mixer.permutation(len(steps)):
            yield steps[at], True


class _Stream:
    """Cuts g endless shuffles of g lists of rows into batches `[g, b]`; b and steps per epoch fit `size` rows.

    A shuffle orders all n rows by random keys and keeps the list's: rows that two lists of one stream share come in
    the same order in both.
    """

    def __init__(self, n: int, rows: Sequence[Ints], generators: Sequence[np.random.Generator], size: int = 0) -> None:
        size = size or max(len(r) for r in rows)
        self.steps = -(-size // BATCH)
        self.batch = size // self.steps
        self.generators, self.epochs = generators, 0
        self.kept = [np.isin(np.arange(n), r) for r in rows]
        self.left = [np.zeros(0, dtype=np.int64) for _ in rows]

    def epoch(self) -> list[Ints]:
        """The batches of one more epoch."""
        self.epochs += 1
        need = self.steps * self.batch
        for at, (generator, kept) in enumerate(zip(self.generators, self.kept, strict=True)):
            while len(self.left[at]) < need:
                order = generator.random(len(kept)).argsort(kind="stable")
                self.left[at] = np.concatenate([self.left[at], order[kept[order]]])
        order = np.stack([left[:need] for left in self.left])
        self.left = [left[need:] for left in self.left]
        return np.split(order, self.steps, axis=1)
