"""Removes the N worst training samples, trains on, and measures held-out retrieval: the curve, on arrays.

The control removes nothing and gets the same extra training: as many steps of the same size, the same shuffles. N is
chosen on the validation rows alone; the test rows say what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from audit_plugin.arrays import AuditError, Bools, Floats, Ints, mean_interval
from audit_plugin.trials import multimem
from audit_plugin.trials.continued_training import TrainingSchedule, train_heads
from audit_plugin.trials.heads import Heads
from audit_plugin.trials.mitigation import ranked

TOP = 5  # partners among which a row's own is a hit
FINE_RATE = 2e-3  # below the training's rate: from the same rate again, seeds differ more than amounts do
GROUP = 8  # trainings batched together; more gains nothing on a CPU
REMOVED_SHARES = (0.0, 0.01, 0.02, 0.04, 0.08, 0.15)  # of the training rows
RANDOM = "random"
SIDES = ("validation", "test")
METRICS = ("retrieval_at_5", "consistency", "zero_shot")

Once = Callable[[str, Callable[[], dict[str, np.ndarray]]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Trainable:
    """Rows to train on and to hold out.

    Attributes:
        inputs: per modality `[n, d]`, what heads are trained on.
        shared_ids: int32 `[n, c]`: equal in any column (same medium, text, group) is no rival; the last holds groups.
        rows: "train", "validation" and "test" -> rows, apart from each other.
        texts: positions of the modalities that are text.
        classes: int `[n]`, -1 for none, or None: zero-shot accuracy is then NaN.
    """

    inputs: Sequence[torch.Tensor]
    shared_ids: Ints
    rows: Mapping[str, Ints]
    texts: Sequence[int] = ()
    classes: Ints | None = None


def extra_epochs(epochs: int) -> int:
    """Epochs after the removal, for a training of so many before it."""
    return max(1, epochs // 2)


def default_amounts(train: int) -> list[int]:
    """0, 1, 2, 4, 8 and 15% of the training rows: the paper's gain turns into a loss between 5 and 8%."""
    return sorted({round(share * train) for share in REMOVED_SHARES})


def removal_curve(
    data: Trainable,
    scores: Mapping[str, Floats],
    amounts: Sequence[int],
    seeds: Sequence[int],
    epochs: int,
    once: Once = lambda _name, make: make(),
) -> dict[str, Any]:
    """Trains on all training rows; then, per method and amount, on without the rows of the highest scores.

    Args:
        data: what to train and measure on.
        scores: method -> `[t]` over the training rows, higher is removed first, NaN never. "random" is added.
        amounts: how many rows to remove; 0, the control, is added.
        seeds: of start, order, and random removal.
        epochs: of the training before the removal; `extra_epochs` of it follow, for the control too.
        once: keeps one seed's finished part, see `RunFolder.once`.

    Returns:
        "amounts", and "methods" -> method -> "amounts" (N as str -> side -> metric -> values per seed, mean, 95%
        interval over the seeds, and the same for the gain over the control, paired) and "recommended".

    Raises:
        AuditError: an amount that leaves too little to train on, or less than two seeds.
    """
    train = len(data.rows["train"])
    amounts = sorted({0, *amounts})
    for amount in amounts:
        if not 0 <= amount <= train // 2:
            raise AuditError(f"{amount} of {train} training rows cannot be removed; choose 0 to {train // 2}")
    if len(seeds) < 2:
        raise AuditError(f"{len(seeds)} seed gives no interval; use 2 or more")
    train_seed = partial(_one_seed, data, scores, amounts, epochs)
    parts = [once(f"seed_{seed:04d}", partial(train_seed, seed)) for seed in seeds]
    measured = np.stack([part["measured"] for part in parts])
    hits = np.mean([part["hits"] for part in parts], axis=0)
    methods = {}
    for number, name in enumerate((*scores, RANDOM)):
        first = 1 + number * (len(amounts) - 1)  # variant 0 is the control, which all methods share
        methods[name] = _method(measured, hits, [0, *range(first, first + len(amounts) - 1)], amounts)
    return {"amounts": amounts, "methods": methods}


def _one_seed(
    data: Trainable, scores: Mapping[str, Floats], amounts: Sequence[int], epochs: int, seed: int
) -> dict[str, np.ndarray]:
    """measured `[1 + methods * (amounts - 1), sides, metrics]`, and hits `[.., test rows]`: share of hits per row."""
    train = data.rows["train"]
    drawn = np.random.default_rng((seed, 19)).random(len(train))
    orders = [ranked(values) for values in (*scores.values(), drawn)]
    remaining = [train] + [np.delete(train, order[:amount]) for order in orders for amount in amounts[1:]]
    base = train_heads(data.inputs, [train], [seed], data.shared_ids, TrainingSchedule(epochs))
    schedule = TrainingSchedule(extra_epochs(epochs), len(train), FINE_RATE)
    measured, hits = [], []
    for first in range(0, len(remaining), GROUP):
        rows = remaining[first : first + GROUP]
        start = Heads(tuple(tuple(w.repeat(len(rows), 1, 1) for w in layers) for layers in base.layers))
        heads = train_heads(data.inputs, rows, [seed] * len(rows), data.shared_ids, schedule, start)
        for at in range(len(rows)):
            embeddings = heads.embed(data.inputs, at)
            measured.append([measure(embeddings, data, data.rows[side]) for side in SIDES])
            hits.append(_hits(embeddings, data, data.rows["test"]))
    return {"measured": np.array(measured), "hits": np.array(hits, dtype=np.float32)}


def measure(embeddings: Sequence[torch.Tensor], data: Trainable, rows: Ints) -> list[float]:
    """The `METRICS` of unit embeddings `[n, o]` per modality, on the rows."""
    own = [e[torch.from_numpy(rows).to(e.device)].cpu().numpy() for e in embeddings]
    values = multimem.consistency(own, np.ones(len(rows), dtype=bool), data.shared_ids[rows, -1])
    known = np.isfinite(values)
    return [
        float(_hits(embeddings, data, rows).mean()),
        float(values[known].mean()) if known.any() else float("nan"),
        _zero_shot(embeddings, data, rows),
    ]


def _hits(embeddings: Sequence[torch.Tensor], data: Trainable, rows: Ints) -> Floats:
    """`[q]`: in how many directions (a to b and back, over the pairs) a row's own partner is among the first 5.

    Rows that share a medium, text or group are no rivals; a tie counts against, lest a collapsed model win.
    """
    chosen = torch.from_numpy(rows).to(embeddings[0].device)
    ids = torch.from_numpy(data.shared_ids[rows]).to(chosen.device)
    repeated = (ids[:, None, :] == ids[None, :, :]).any(-1)  # [q, q], with each row itself
    hits = []
    for a, b in combinations(range(len(embeddings)), 2):
        similarities = embeddings[a][chosen] @ embeddings[b][chosen].T
        own = similarities.diagonal().clone()
        rivals = similarities.masked_fill(repeated, -torch.inf)
        hits.append((rivals >= own[:, None]).sum(1) < TOP)
        hits.append((rivals >= own[None, :]).sum(0) < TOP)
    return torch.stack(hits).float().mean(0).cpu().numpy()


def _zero_shot(embeddings: Sequence[torch.Tensor], data: Trainable, rows: Ints) -> float:
    """Share of the rows whose medium is nearest to the mean text of its class in training; NaN without classes.

    The class vectors are made from all training rows, whatever was removed: they are to judge the model alone.
    """
    if data.classes is None or not data.texts:
        return float("nan")
    labeled = data.rows["train"][data.classes[data.rows["train"]] >= 0]
    names = np.unique(data.classes[labeled])
    judged = rows[np.isin(data.classes[rows], names)]
    if len(names) < 2 or not len(judged):
        return float("nan")
    text = embeddings[data.texts[0]]
    device = text.device
    # unit class vectors [c, o]: the sum of a class's texts, as its mean has the same direction
    belongs = torch.from_numpy(data.classes[labeled] == names[:, None]).to(device)
    vectors = normalize(belongs.float() @ text[torch.from_numpy(labeled).to(device)], dim=-1)
    truth = torch.from_numpy(np.searchsorted(names, data.classes[judged])).to(device)
    chosen = torch.from_numpy(judged).to(device)
    media = [e for a, e in enumerate(embeddings) if a not in data.texts]
    accuracies = [((e[chosen] @ vectors.T).argmax(1) == truth).float().mean() for e in media]
    return float(torch.stack(accuracies).mean()) if accuracies else float("nan")


def _method(measured: Floats, hits: Floats, variants: Sequence[int], amounts: Sequence[int]) -> dict[str, Any]:
    """One method's curve and recommendation, from its `variants`, one per amount, the first of which is the control.

    `measured` `[seeds, variants, sides, metrics]` and `hits` `[variants, test rows]` (seeds' mean) hold all methods.
    """
    known: Bools = np.asarray(np.isfinite(measured).any((0, 1)))  # [sides, metrics]
    curve: dict[str, Any] = {}
    for amount, variant in zip(amounts, variants, strict=True):
        values, gains = measured[:, variant], measured[:, variant] - measured[:, 0]
        curve[str(amount)] = {
            side: {
                metric: interval(values[:, s, m]) | {"gain": interval(gains[:, s, m])}
                for m, metric in enumerate(METRICS)
                if known[s, m]
            }
            for s, side in enumerate(SIDES)
        }
    validation, test = measured[:, variants, 0, 0], measured[:, variants, 1, 0]
    chosen = recommend(validation)
    test_gain = interval(test[:, chosen] - test[:, 0])
    row_gain = interval(hits[variants[chosen]] - hits[0])
    row_gain.pop("values")
    recommended = {
        "amount": int(amounts[chosen]),
        "beats_control": chosen > 0,
        "validation_gain": interval(validation[:, chosen] - validation[:, 0]),
        "test_gain": test_gain,
        "test_gain_over_rows": row_gain,
        # seeds vary by chance in training, rows by which are tested: either interval alone is too narrow
        "confirmed": min(test_gain["low"], row_gain["low"]) > 0,
    }
    return {"amounts": curve, "recommended": recommended}


def recommend(validation: Floats) -> int:
    """Position of the amount to take, by the one-standard-error rule; 0, the control, where none is better.

    Of `validation` `[seeds, amounts]` (the first amount being 0) the smallest amount whose gain over the control,
    paired by seed, lies within one standard error of the best's.
    """
    gain = validation - validation[:, :1]
    mean = gain.mean(0)
    best = int(mean.argmax())
    error = gain[:, best].std(ddof=1) / np.sqrt(len(gain))
    within_error: Bools = mean >= mean[best] - error
    return int(within_error.argmax()) if mean[best] > 0 else 0


def interval(values: Floats) -> dict[str, Any]:
    """JSON-ready mean of `[q]` with its 95% t-interval, and the values."""
    mean, low, high = mean_interval(values)
    return {"mean": mean, "low": low, "high": high, "values": np.asarray(values, dtype=np.float64).tolist()}
