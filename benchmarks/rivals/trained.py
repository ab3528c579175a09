"""Rivals from a model trained on the noisy set: the loss, margins and confidences of each pair.

Wrong pairs stand out most before a model has memorized them, and their papers stop early or train with a
large step (AUM: before the first drop of the learning rate). So each may look at the first `share` of the epochs alone.
"""

from __future__ import annotations

import numpy as np

from audit_plugin.arrays import Floats

from .material import Material

DATAMAP_VARIANTS = ("confidence", "variability", "hard")


def pair_loss(material: Material, share: float = 1.0) -> Floats:
    """Loss of the pair under a small CLIP trained on all of them (small loss, Han et al., NeurIPS 2018).

    That of the last of the first `share` of the epochs. O(n).
    """
    return _first(material.losses, "losses", share)[-1]


def area_under_margin(material: Material, share: float = 1.0) -> Floats:
    """AUM (Pleiss et al., NeurIPS 2020), negated: minus the mean margin over the first `share` of the epochs.

    A margin is the own logit less the best other. O(epochs n).
    """
    return -_first(material.margins, "margins", share).mean(0)


def datamap(material: Material, variant: str = "confidence", share: float = 1.0) -> Floats:
    """Dataset Cartography (Swayamdipta et al., EMNLP 2020) on the confidence p per epoch, mean mu and deviation sigma.

    confidence: 1 - mu; variability: sigma, the "ambiguous" region; hard: 1 - sqrt(mu^2 + sigma^2), nearness to the
    corner of low confidence and low variability, where the paper finds mislabeled samples. O(epochs n).
    """
    confidences = _first(material.confidences, "confidences", share)
    mean, deviation = confidences.mean(0), confidences.std(0)
    if variant == "variability":
        return deviation
    return 1 - (np.hypot(mean, deviation) if variant == "hard" else mean)


def _first(values: Floats | None, name: str, share: float) -> Floats:
    """The first `share` of the epochs, at least one."""
    if values is None:
        raise ValueError(f"the material has no {name}: train first (dynamics.train_dynamics)")
    return values[: max(1, round(share * len(values)))]
