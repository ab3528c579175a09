"""Weights of the evidence on a pair of modalities, by how well each kind separates probe pairs from the set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from audit_plugin.arrays import Bools, Floats

from .scores import of_known, robust_z

# Chosen on the development sets, see docs/detection.md.
VOTE_WEIGHTS = (0.0, 0.03, 0.06, 0.125, 0.2, 0.33, 0.5, 0.75)  # that are tried
TOLERANCE = 0.005  # separation that a smaller weight of the votes may cost
MAX_SAMPLES = 20_000  # that weights are chosen on


def choose_weights(
    evidence: Mapping[str, Floats], probe_evidence: Mapping[str, Floats], known: Bools | None
) -> dict[str, float]:
    """Weights of the evidence on one pair of modalities, by how well each kind separates near misses from the set.

    Near misses, because they are what sets differ in: random mismatches are found by any weights. No sample's truth is
    looked at. The contrast under the trained heads has weight 1. The frozen encoders have the ratio of their d' to the
    heads', as independent evidence should, at most 1. Both neighbor votes have the smallest of `VOTE_WEIGHTS` that does
    about as well as the best: probe pairs come one by one, while votes suffer where many neighbors are wrong.

    Args:
        evidence: kind -> its values on the samples `[n]`.
        probe_evidence: kind -> its values on near misses, probe pairs within a neighborhood `[q]`.
        known: bool `[n]`, the samples that set the scale, or None: all.
    """
    n = len(evidence["contrast"])
    samples = np.arange(n) if known is None else np.flatnonzero(known)
    samples = samples[np.linspace(0, len(samples) - 1, min(len(samples), MAX_SAMPLES)).astype(np.int64)]
    on_samples, on_probes = {}, {}
    for kind, values in evidence.items():
        reference = of_known(values, known)
        on_samples[kind] = robust_z(values, reference)[samples]
        on_probes[kind] = robust_z(probe_evidence[kind], reference)

    frozen = 0.0
    if "zero_shot" in evidence:
        of_heads = detectability(on_samples["contrast"], on_probes["contrast"])
        of_frozen = detectability(on_samples["zero_shot"], on_probes["zero_shot"])
        frozen = round(min(of_frozen / max(of_heads, 1e-9), 1.0), 3)

    candidates = []
    for vote in VOTE_WEIGHTS:
        weights = {"contrast": 1.0, "zero_shot": frozen, "neighbors_a": vote, "neighbors_b": vote}
        candidates.append((separation(_weighted(on_samples, weights), _weighted(on_probes, weights)), weights))
    best = max(value for value, _ in candidates)
    return next(weights for value, weights in candidates if value >= best - TOLERANCE)


def detectability(samples: Floats, probes: Floats) -> float:
    """d': distance of probe pairs from the samples in standard deviations of both, as if normal; not below 0."""
    from scipy.stats import norm

    return float(np.sqrt(2) * norm.ppf(np.clip(separation(samples, probes), 0.5, 0.9999)))


def _weighted(evidence: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """Weighted sum `[n]` of standardized evidence; what a pair lacks counts as the median, 0."""
    total = sum(weights[kind] * np.nan_to_num(values) for kind, values in evidence.items() if kind in weights)
    return np.where(np.isfinite(evidence["contrast"]), total, np.nan)


def separation(samples: Floats, probes: Floats) -> float:
    """The chance that a probe pair scores above a sample (AUROC); -1 without either."""
    samples, probes = np.sort(samples[np.isfinite(samples)]), probes[np.isfinite(probes)]
    if not len(samples) or not len(probes):
        return -1.0
    return float(np.searchsorted(samples, probes).mean() / len(samples))
