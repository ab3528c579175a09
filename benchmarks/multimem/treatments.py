"""Trains heads with what the paper does to the most memorized samples: regrouped batches, and noise.

Trainings without a treatment are those of `audit_plugin.trials.continued_training`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import normalize

from audit_plugin.arrays import Bools, Ints
from audit_plugin.trials.continued_training import SharedShuffles
from audit_plugin.trials.heads import (
    LEARNING_RATE,
    WEIGHT_DECAY,
    Heads,
    contrastive_loss,
    head_outputs,
    informative_columns,
    new_head,
)
from audit_plugin.trials.mitigation import add_noise


@dataclass(frozen=True)
class Treatment:
    """How to train.

    Attributes:
        epochs: passes over the rows.
        seed: of the run.
        hot: bool `[g, n]`, equally many of each training's rows, or None.
        regroup: whether hot rows share batches only with hot rows.
        noise: modality position -> sigma on the unit vector before the last normalization.
        noise_on: "hot" rows or "all".
        from_epoch: before it neither regrouping nor noise: the paper's regrouping epoch.
    """

    epochs: int
    seed: int = 0
    hot: Bools | None = None
    regroup: bool = False
    noise: Mapping[int, float] = field(default_factory=dict)
    noise_on: str = "hot"
    from_epoch: int = 0


def train_treated(
    inputs: Sequence[torch.Tensor], rows: Sequence[Ints], streams: Sequence[int], shared_ids: Ints, treatment: Treatment
) -> Heads:
    """Trains g sets of heads together with the symmetric InfoNCE loss of the trials.

    Args:
        inputs: per modality `[n, d]`, on the device to train on.
        rows: g lists of rows to train on.
        streams: `[g]`, numbers of the random streams: trainings of one stream share start, order and noise, so that
            two of them differ only by what their rows differ in.
        shared_ids: int `[n, c]`; equal in any column means never each other's negatives.
        treatment: epochs, and what is done to hot rows.

    Raises:
        ValueError: trainings with unequal numbers of hot rows are to be regrouped.
    """
    device = inputs[0].device
    generators = [np.random.default_rng((treatment.seed, 2_000_003, stream, False)) for stream in streams]
    layers = [new_head(x.shape[1], generators, device) for x in inputs]
    batches = list(treated_batches(len(shared_ids), rows, treatment, generators))
    weights = [w.requires_grad_() for head in layers for w in head]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    same = torch.from_numpy(informative_columns(shared_ids)).to(device)
    for batch, is_treated in batches:
        chosen = torch.from_numpy(batch).to(device)
        outputs = [head_outputs(x[chosen], head) for x, head in zip(inputs, layers, strict=True)]
        if is_treated:
            outputs = _with_noise(outputs, batch, treatment, generators)
        optimizer.zero_grad(set_to_none=True)
        contrastive_loss([normalize(x, dim=-1) for x in outputs], same[chosen]).backward()
        optimizer.step()
        schedule.step()
    return Heads(tuple(tuple(w.detach() for w in head) for head in layers))


def _with_noise(
    outputs: list[torch.Tensor], batch: Ints, treatment: Treatment, generators: Sequence[np.random.Generator]
) -> list[torch.Tensor]:
    """The heads' outputs `[g, b, o]` per modality with the treatment's noise."""
    if treatment.noise_on == "all":
        noisy = np.ones(batch.shape, dtype=bool)
    elif treatment.hot is None:
        return outputs
    else:
        noisy = np.take_along_axis(treatment.hot, batch, axis=1)
    disturbed = list(outputs)
    for a, sigma in treatment.noise.items():
        device = outputs[a].device
        draw = np.stack([g.standard_normal(outputs[a].shape[1:], dtype=np.float32) for g in generators])
        disturbed[a] = add_noise(
            outputs[a], torch.from_numpy(noisy).to(device), sigma, torch.from_numpy(draw).to(device)
        )
    return disturbed


def treated_batches(
    n: int, rows: Sequence[Ints], treatment: Treatment, generators: Sequence[np.random.Generator]
) -> Iterator[tuple[Ints, bool]]:
    """(rows `[g, b]`, whether the treatment is in force) of every step."""
    mixer = np.random.default_rng((treatment.seed, 2_000_029))
    mixed = SharedShuffles(n, rows, generators)
    regroup_from = min(treatment.from_epoch, treatment.epochs) if treatment.regroup else treatment.epochs
    for epoch in range(regroup_from):
        for batch in mixed.next_epoch():
            yield batch, epoch >= treatment.from_epoch
    if regroup_from == treatment.epochs:
        return
    hot = treatment.hot if treatment.hot is not None else np.zeros((len(rows), n), dtype=bool)
    cold_rows = [listed[~is_hot[listed]] for listed, is_hot in zip(rows, hot, strict=True)]
    hot_rows = [listed[is_hot[listed]] for listed, is_hot in zip(rows, hot, strict=True)]
    if len({len(listed) for listed in hot_rows}) > 1:
        raise ValueError("trainings of one call need equally many hot rows")
    regrouped = [SharedShuffles(n, lists, generators) for lists in (cold_rows, hot_rows) if len(lists[0])]
    for _ in range(regroup_from, treatment.epochs):
        batches = [batch for shuffles in regrouped for batch in shuffles.next_epoch()]
        for at in mixer.permutation(len(batches)):
            yield batches[at], True
