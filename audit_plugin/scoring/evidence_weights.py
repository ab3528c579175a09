"""All evidence on whether a pair belongs together, for the samples and for the virtual plants alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from audit_plugin.arrays import Floats, Ints, modality_pairs
from audit_plugin.trials.run import split_plants

from .contrast import Negatives, frozen_contrast
from .neighbor_votes import collect_votes, vote_contrast
from .scores import Evidence, robust_z, scale_of

NEAR_MISS = "neighborhood"
VOTES = (0.0, 0.03, 0.06, 0.125, 0.2, 0.33, 0.5, 0.75)
AS_GOOD = 0.005
RANKED = 20_000  # samples that weights are chosen on


def weigh_pairs(
    evidence: Evidence, negatives: Negatives, plants: Mapping[str, Ints], contrast: Mapping[str, Floats]
) -> tuple[Evidence, dict[str, dict[str, Floats]]]:
    """Adds the frozen encoders' contrast and the neighbors' votes to what the trials held out.

    Args:
        evidence: with trials.
        negatives: of its samples.
        plants: kind -> rows (i, j) `[q, 2]`.
        contrast: kind -> held-out contrast of the plants `[p, q]`.

    Returns:
        (evidence whose `trials.held_out` has `zero_shot`, `neighbors_a` and `neighbors_b` `[p, n]` too;
        kind -> name -> `[p, q]` of the plants). NaN for pairs of encoders that share no space.
    """
    assert evidence.trials is not None
    rows = np.concatenate(list(plants.values()))
    held_out, planted = dict(evidence.trials.held_out), {kind: {"contrast": contrast[kind]} for kind in plants}
    sides = ("neighbors_a", "neighbors_b")
    found = {name: [] for name in ("zero_shot", *sides)}  # type: dict[str, list[tuple[Floats, Floats]]]
    for pair, (a, b) in zip(evidence.pairs, modality_pairs(evidence.modalities), strict=True):
        found["zero_shot"].append(_frozen(evidence, pair, negatives, rows, (a, b)))
        own = held_out["contrast"][evidence.pairs.index(pair)]
        distrust = robust_z(own, scale_of(own, evidence))
        for name, way, oriented in zip(sides, ((a, b), (b, a)), (rows, rows[:, ::-1]), strict=True):
            found[name].append(_votes(evidence, way, distrust, negatives, oriented))
    for name, values in found.items():
        held_out[name] = np.stack([own for own, _ in values])
        for kind, part in split_plants(np.stack([virtual for _, virtual in values]), plants).items():
            planted[kind][name] = part
    evidence = replace(evidence, trials=replace(evidence.trials, held_out=held_out))
    weights = {}
    for at, pair in enumerate(evidence.pairs):
        near = {name: values[at] for name, values in planted[NEAR_MISS].items()}
        weights[pair] = choose_weights(evidence.parts[pair], near, evidence)
    return replace(evidence, weights=weights), planted


def choose_weights(parts: Mapping[str, Floats], planted: Mapping[str, Floats], evidence: Evidence) -> dict[str, float]:
    """Weights of the evidence on one pair, by how well each part tells virtual near misses from the set.

    Near misses, because they are what sets differ in: random mismatches are found by any weights. No sample's truth is
    looked at. The contrast under the trained heads has weight 1. The frozen encoders have the ratio of their d' to the
    heads', as independent evidence should, at most 1. Both votes have the least weight of `VOTES` that does about as
    well as the best: plants come one by one, while votes suffer where many neighbors are wrong.

    Args:
        parts: evidence `[n]`.
        planted: the same of virtual pairs within a neighborhood `[q]`.
        evidence: whose known samples set the scale.
    """
    known = np.arange(len(evidence)) if evidence.known is None else np.flatnonzero(evidence.known)
    chosen = known[np.linspace(0, len(known) - 1, min(len(known), RANKED)).astype(np.int64)]
    scale = {name: scale_of(values, evidence) for name, values in parts.items()}
    own = {name: robust_z(values, scale[name]) for name, values in parts.items()}
    near = {name: robust_z(planted[name], scale[name]) for name in parts}
    frozen = 0.0
    if "zero_shot" in parts:
        ours, theirs = (detectability(own[name][chosen], near[name]) for name in ("contrast", "zero_shot"))
        frozen = round(min(theirs / max(ours, 1e-9), 1.0), 3)
    found = []
    for vote in VOTES:
        weights = {"contrast": 1.0, "zero_shot": frozen, "neighbors_a": vote, "neighbors_b": vote}
        found.append((separation(_weighted(own, weights)[chosen], _weighted(near, weights)), weights))
    best = max(value for value, _ in found)
    return next(weights for value, weights in found if value >= best - AS_GOOD)


def detectability(samples: Floats, planted: Floats) -> float:
    """d': distance of virtual pairs from the samples in standard deviations of both, as if normal; not below 0."""
    from scipy.stats import norm

    return float(np.sqrt(2) * norm.ppf(np.clip(separation(samples, planted), 0.5, 0.9999)))


def _weighted(parts: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    total = sum(weights[name] * np.nan_to_num(values) for name, values in parts.items() if name in weights)
    return np.where(np.isfinite(parts["contrast"]), total, np.nan)


def separation(samples: Floats, planted: Floats) -> float:
    """The chance that a virtual pair scores above a sample; -1 without either."""
    samples, planted = np.sort(samples[np.isfinite(samples)]), planted[np.isfinite(planted)]
    if not len(samples) or not len(planted):
        return -1.0
    return float(np.searchsorted(samples, planted).mean() / len(samples))


def _frozen(
    evidence: Evidence, pair: tuple[str, str], negatives: Negatives, rows: Ints, at: tuple[int, int]
) -> tuple[Floats, Floats]:
    space = [evidence.space[name] for name in pair]
    if not space[0] or space[0] != space[1]:
        return np.full(len(evidence), np.nan, np.float32), np.full(len(rows), np.nan, np.float32)
    a, b = (torch.from_numpy(evidence.vectors[name]).to(negatives.pool.device) for name in pair)
    return frozen_contrast(a, b, negatives, rows, at)


def _votes(
    evidence: Evidence, way: tuple[int, int], distrust: Floats, negatives: Negatives, rows: Ints
) -> tuple[Floats, Floats]:
    near, other = (evidence.modalities[at] for at in way)
    contents, views = evidence.contents, evidence.views
    votes = collect_votes(evidence.neighbors[near], contents[near], contents[other], views[other], distrust)
    return vote_contrast(votes, views[other], negatives, rows, way)
