"""Training dynamics on the noisy set: what AUM, Datamap and the pair loss of a small CLIP are read from.

The heads, their loss, batches and schedule are those of `audit_plugin.trials.heads`, trained on all rows: a rival sees
the same capacity and the same epochs as ours. After each epoch every pair is held against a fixed pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import gelu, normalize

from audit_plugin.arrays import Floats, Ints
from audit_plugin.trials.heads import BATCH, LEARNING_RATE, TEMPERATURE, WEIGHT_DECAY, contrastive_loss, new_head

POOL = 2048


@dataclass(frozen=True)
class Dynamics:
    """What `Material` takes: margins, confidences and losses, all float32 `[epochs, n]`."""

    margins: Floats
    confidences: Floats
    losses: Floats


def train_dynamics(
    inputs: Sequence[torch.Tensor], repeats: Ints, epochs: int, seed: int, labels: Ints | None = None
) -> Dynamics:
    """Trains one pair of heads on all rows and describes every pair after each epoch.

    Margin: own logit (cosine / temperature) less the best of the pool. Confidence: softmax of the own logit among
    itself and the pool. Loss: minus its log. Free captions: the mean of both directions over a
    seeded pool of at most 2,048 rows, repeats masked. Classes: image against class prompts, the own class's masked.
    O(epochs n (batch + pool) o).

    Args:
        inputs: two modalities `[n, q]`, see `audit_plugin.trials.learners.head_inputs`, rows in canonical order.
        repeats: int `[n, c]`; rows equal in any column are no negatives of each other.
        epochs: passes over all rows.
        seed: of the start, the batches and the pool.
        labels: `[n]` class whose prompt the text is, for classification sets, or None.
    """
    generator = np.random.default_rng((seed, 1_000_003, 0))
    layers = [new_head(x.shape[1], [generator], x.device) for x in inputs]
    weights = [w.requires_grad_() for layer in layers for w in layer]
    n = len(inputs[0])
    steps = -(-n // BATCH)
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    same = torch.from_numpy(repeats).to(inputs[0].device)
    pool, other = draw_pool(repeats, labels, seed)
    seen = []
    for _ in range(epochs):
        order = torch.from_numpy(np.resize(generator.permutation(n), steps * (n // steps))[None])
        for step in order.to(inputs[0].device).split(n // steps, dim=1):
            optimizer.zero_grad(set_to_none=True)
            pairs = [_head(x[step], layer) for x, layer in zip(inputs, layers, strict=True)]
            contrastive_loss(pairs, same[step]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            image, text = (_head(x[None], layer)[0].cpu() for x, layer in zip(inputs, layers, strict=True))
            seen.append(describe(image, text, pool, other, both=labels is None))
    margins, confidences, losses = (np.stack(column) for column in zip(*seen, strict=True))
    return Dynamics(margins, confidences, losses)


def draw_pool(repeats: Ints, labels: Ints | None, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows of the pool `[p]`, bool `[n, p]`: may be held against the row); with labels one row per class."""
    if labels is not None:
        classes, pool = np.unique(labels, return_index=True)
        return torch.from_numpy(pool), torch.from_numpy(labels[:, None] != classes[None, :])
    n = len(repeats)
    pool = np.arange(n)
    if n > POOL:
        pool = np.sort(np.random.default_rng((seed, 1_000_033)).choice(n, POOL, replace=False))
    other = pool[None, :] != np.arange(n)[:, None]
    for column in repeats.T:
        other &= column[:, None] != column[None, pool]
    return torch.from_numpy(pool), torch.from_numpy(other)


def describe(
    image: torch.Tensor, text: torch.Tensor, pool: torch.Tensor, other: torch.Tensor, both: bool
) -> tuple[Floats, Floats, Floats]:
    """(margin, confidence, loss) `[n]` of every pair against the pool; a pair without any rival has margin 0.

    Args:
        image: unit `[n, o]`.
        text: unit `[n, o]`.
        pool: `[p]` rows.
        other: bool `[n, p]`, True where the pool's row may be held against the pair.
        both: mean of image -> texts and text -> images; else the first alone.
    """
    own = (image * text).sum(1) / TEMPERATURE
    sides = [(image, text), (text, image)] if both else [(image, text)]
    columns = []
    for left, right in sides:
        logits = (left @ right[pool].T / TEMPERATURE).masked_fill_(~other, -torch.inf)
        best = logits.max(1).values
        log_probability = own - torch.logaddexp(own, logits.logsumexp(1))
        margin = torch.where(torch.isfinite(best), own - best, 0)
        columns.append(torch.stack([margin, log_probability.exp(), -log_probability]))
    margin, confidence, loss = torch.stack(columns).mean(0).numpy()
    return margin, confidence, loss


def _head(x: torch.Tensor, layer: Sequence[torch.Tensor]) -> torch.Tensor:
    w1, b1, w2, b2 = layer
    return normalize(gelu(x @ w1 + b1) @ w2 + b2, dim=-1)
