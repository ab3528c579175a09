"""Trains heads on chosen rows, from a random start or from given weights: what a removal curve compares.

Unlike the trials of an audit, the trainings of one call may hold unequal numbers of rows. All of them take the same
number of steps of the same size, so that they differ in their data alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from audit_plugin.arrays import Ints, check_lengths

from .heads import BATCH, LEARNING_RATE, Heads, new_head, optimize_heads, train_in_shares


@dataclass(frozen=True)
class TrainingSchedule:
    """How long and how fast to train."""

    epochs: int
    size: int = 0  # rows that an epoch's steps are counted for; 0: those of the longest list
    learning_rate: float = LEARNING_RATE  # at the first step; falls to 0 along a half cosine


def train_heads(
    inputs: Sequence[torch.Tensor],
    rows: Sequence[Ints],
    seeds: Sequence[int],
    shared_ids: Ints,
    schedule: TrainingSchedule,
    start: Heads | None = None,
) -> Heads:
    """Trains g sets of heads together with the symmetric InfoNCE loss of the trials.

    Args:
        inputs: per modality `[n, d]`, on the device to train on.
        rows: g lists of rows to train on; those shorter than the schedule's size go round more often.
        seeds: `[g]`: trainings of one seed share start and order, so that two of them differ only by what their rows
            differ in.
        shared_ids: int `[n, c]`; equal in any column means never each other's negatives.
        schedule: of all of them.
        start: weights of g sets to start from, or None: a random start per seed.
    """
    check_lengths(rows=rows, seeds=seeds)
    device = inputs[0].device
    continued = start is not None  # other shuffles than those that the start was made with
    generators = [np.random.default_rng((0, 2_000_003, seed, continued)) for seed in seeds]
    if start is None:
        layers = [new_head(x.shape[1], generators, device) for x in inputs]
    else:
        layers = [tuple(w.detach() for w in head) for head in start.layers]
    shuffles = SharedShuffles(len(shared_ids), rows, generators, schedule.size)
    batches = [batch for _ in range(schedule.epochs) for batch in shuffles.next_epoch()]

    def train(numbers: Ints) -> Heads:
        on_device = (torch.from_numpy(batch[numbers]).to(device) for batch in batches)
        own = [tuple(w[numbers] for w in head) for head in layers]
        return optimize_heads(inputs, own, on_device, len(batches), shared_ids, schedule.learning_rate)

    return train_in_shares(train, len(seeds), device)


class SharedShuffles:
    """Cuts g endless shuffles of g lists of rows into batches `[g, b]`.

    A shuffle orders all n rows by random keys and keeps the list's: rows that two lists with equal generators share
    come in the same order in both. `size` rows per epoch (0: those of the longest list) set b and the steps.
    """

    def __init__(self, n: int, rows: Sequence[Ints], generators: Sequence[np.random.Generator], size: int = 0) -> None:
        size = size or max(len(listed) for listed in rows)
        self.steps = -(-size // BATCH)
        self.batch = size // self.steps
        self.generators = generators
        self.is_listed = [np.isin(np.arange(n), listed) for listed in rows]
        self.remaining = [np.zeros(0, dtype=np.int64) for _ in rows]

    def next_epoch(self) -> list[Ints]:
        """The batches of one more epoch."""
        needed = self.steps * self.batch
        for at, (generator, is_listed) in enumerate(zip(self.generators, self.is_listed, strict=True)):
            while len(self.remaining[at]) < needed:
                order = generator.random(len(is_listed)).argsort(kind="stable")
                self.remaining[at] = np.concatenate([self.remaining[at], order[is_listed[order]]])
        epoch = np.stack([remaining[:needed] for remaining in self.remaining])
        self.remaining = [remaining[needed:] for remaining in self.remaining]
        return np.split(epoch, self.steps, axis=1)
