"""Rivals that read the similarity matrix alone: CLIP similarity, negCLIPLoss, CSLS, retrieval rank."""

from __future__ import annotations

import numpy as np

from audit_plugin.arrays import Bools, Floats

from .material import Material


def clip_similarity(material: Material) -> Floats:
    """1 - s_ii (CLIPScore, Hessel et al., EMNLP 2021; the filter of DataComp and LAION). Nothing to set. O(n)."""
    return 1 - material.own


def negclip_loss(material: Material, temperature: float = 0.01) -> Floats:
    """negCLIPLoss (Wang et al., NeurIPS 2024), its sign turned: higher is more suspicious.

    `tau/2 * [log mean_j e^(s_ij / tau) + log mean_j e^(s_ji / tau)] - s_ii`. The paper averages the sum over random
    batches of a set too large for one; here the full set is the one batch, which is the limit of many batches. The own
    pair stays in both means, as published. Repeats are left out, hence means in place of sums: with equal counts both
    rank alike. O(n^2).
    """
    use = material.negatives | np.eye(len(material), dtype=bool)
    forward = _log_mean_exp(material.similarity / temperature, use)
    backward = _log_mean_exp(material.similarity.T / temperature, use.T)
    return 0.5 * temperature * (forward + backward) - material.own


def csls(material: Material, k: int = 10) -> Floats:
    """Cross-domain similarity local scaling (Conneau et al., ICLR 2018), negated: `r(i) + r'(i) - 2 s_ii`.

    r(i) is the mean of the k highest similarities of image i to any text, its own among them, as published; r' that of
    text i to any image. O(n^2).
    """
    use = material.negatives | np.eye(len(material), dtype=bool)
    return _top_mean(material.similarity, use, k) + _top_mean(material.similarity.T, use.T, k) - 2 * material.own


def retrieval_rank(material: Material) -> Floats:
    """Mean over both directions of the log rank of the own partner among the negatives; ties count half. O(n^2)."""
    ranks = [_rank(s, use) for s, use in ((material.similarity, material.negatives), _turned(material))]
    return 0.5 * (np.log(ranks[0]) + np.log(ranks[1]))


def _turned(material: Material) -> tuple[Floats, Bools]:
    return material.similarity.T, material.negatives.T


def _rank(similarity: Floats, use: Bools) -> Floats:
    own = np.diagonal(similarity)[:, None]
    return 1 + (use & (similarity > own)).sum(1) + 0.5 * (use & (similarity == own)).sum(1)


def _log_mean_exp(logits: Floats, use: Bools) -> Floats:
    masked = np.where(use, logits, -np.inf)
    top = masked.max(1, keepdims=True)
    return top[:, 0] + np.log(np.exp(masked - top).sum(1) / use.sum(1))


def _top_mean(similarity: Floats, use: Bools, k: int) -> Floats:
    k = min(k, similarity.shape[1])
    top = -np.partition(np.where(use, -similarity, np.inf), k - 1, axis=1)[:, :k]
    known = np.isfinite(top)
    return np.where(known, top, 0).sum(1) / known.sum(1)
