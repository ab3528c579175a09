"""Weights of the evidence on a pair of modalities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from audit_plugin.arrays import Bools, Floats

from .scores import WEIGHTS, of_known

# Where texts are classes, the linear classifier of the medium says the most; votes would make the tail of good pairs so
# heavy that fewer wrong ones are told from them. Chosen on the development sets, see docs/detection.md.
CLASS_WEIGHTS = {"contrast": 0.25, "neighbors_a": 0.0, "neighbors_b": 0.0, "linear_a": 1.0, "linear_b": 0.25}
MAX_FROZEN_WEIGHT = 4.0  # as much as all other evidence together
FULL_SAMPLES = 300  # from which weights are as chosen for the set; see benchmarks/small_sets.py
# Of samples that are too few to train on: the frozen encoders count as much as the votes of both sides.
UNTRAINED_WEIGHTS = {"zero_shot": 1.5, "neighbors_a": 0.75, "neighbors_b": 0.75}


def weigh_evidence(
    evidence: Mapping[str, Floats], probe_evidence: Mapping[str, Floats], known: Bools | None, class_side: int | None
) -> dict[str, float]:
    """Kind of evidence -> its weight in the misalignment of one pair of modalities.

    All weights are fixed, but for that of the frozen encoders, which fit some sets far better than others:

        w = (d'_frozen / d'_best)^2       d': distance of near misses from the samples, see `detectability`

    relative to the best other evidence, at most `MAX_FROZEN_WEIGHT`. No sample's truth is looked at.

    What few samples say of the weights is uncertain, and classes of few samples are learned badly, so the weights of n
    known samples are shrunk to the usual ones:

        w_k + t (w_k(set) - w_k),        t = min(n / FULL_SAMPLES, 1)        w_k: `WEIGHTS`

    Args:
        evidence: kind -> its values on the samples `[n]`.
        probe_evidence: kind -> its values on near misses, probe pairs within a neighborhood `[q]`.
        known: bool `[n]`, the samples that set the scale, or None: all.
        class_side: the side whose texts are classes (0 or 1), or None.
    """
    weights = dict(WEIGHTS)
    if class_side is not None:
        weights |= CLASS_WEIGHTS
        if class_side == 0:  # the classifier predicts side a from b
            weights["linear_a"], weights["linear_b"] = weights["linear_b"], weights["linear_a"]
    weights = {kind: weight for kind, weight in weights.items() if kind in evidence}
    if "zero_shot" in evidence:
        distance = {kind: detectability(of_known(v, known), probe_evidence[kind]) for kind, v in evidence.items()}
        frozen = distance.pop("zero_shot")
        ratio = frozen / max(*distance.values(), 1e-9)
        weights["zero_shot"] = min(ratio**2, MAX_FROZEN_WEIGHT)
    n = len(of_known(next(iter(evidence.values())), known))
    trust = min(n / FULL_SAMPLES, 1.0)
    return {kind: round(WEIGHTS[kind] + trust * (weight - WEIGHTS[kind]), 3) for kind, weight in weights.items()}


def detectability(samples: Floats, probes: Floats) -> float:
    """d': distance of probe pairs from the samples in standard deviations of both, as if normal; not below 0."""
    from scipy.stats import norm

    return float(np.sqrt(2) * norm.ppf(np.clip(separation(samples, probes), 0.5, 0.9999)))


def separation(samples: Floats, probes: Floats) -> float:
    """The chance that a probe pair scores above a sample (AUROC); -1 without either."""
    samples, probes = np.sort(samples[np.isfinite(samples)]), probes[np.isfinite(probes)]
    if not len(samples) or not len(probes):
        return -1.0
    return float(np.searchsorted(samples, probes).mean() / len(samples))
