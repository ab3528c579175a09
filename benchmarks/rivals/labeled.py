"""Rivals from the `cleanlab` package: confident learning on class labels, Datalab's checks on features."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats

from .material import Material

QUALITIES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
DATALAB_NEIGHBORS = 10


def confident_learning(material: Material, method: str = "self_confidence", flagged_first: bool = True) -> Floats:
    """Confident learning (Northcutt et al., JAIR 2021), by `cleanlab` on held-out class probabilities.

    1 - label quality; with `flagged_first`, the label issues found by the confident joint (`filter.find_label_issues`,
    `prune_by_noise_rate`) stand above all others by 1. O(n c).
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    if material.labels is None or material.probabilities is None:
        raise ValueError("confident learning needs labels and held-out probabilities")
    suspicion = 1 - get_label_quality_scores(material.labels, material.probabilities, method=method)
    if flagged_first:
        suspicion = suspicion + find_label_issues(material.labels, material.probabilities, n_jobs=1)
    return suspicion


def datalab_pair_outlier(material: Material, k: int = DATALAB_NEIGHBORS) -> Floats:
    """Datalab's outlier check on image and text features side by side, `[x; y] / sqrt 2`: what it can say of a pair."""
    return datalab_outlier(np.hstack([material.image, material.text]) / np.sqrt(2), k)


def datalab_outlier(features: Floats, k: int = DATALAB_NEIGHBORS) -> Floats:
    """1 - Datalab's outlier score e^(-d / median d), d the mean cosine distance to the k nearest, `[n]`. O(n^2 d)."""
    return 1 - _issues("outlier", features, k)[1]


def datalab_outlier_flags(features: Floats, k: int = DATALAB_NEIGHBORS) -> Bools:
    """What Datalab flags: d > Q3 + 1.7 IQR."""
    return _issues("outlier", features, k)[0]


def datalab_near_duplicate(features: Floats, k: int = DATALAB_NEIGHBORS) -> Floats:
    """1 - Datalab's near-duplicate score 1 - e^(-d / median d), d the distance to the nearest, `[n]`."""
    return 1 - _issues("near_duplicate", features, k)[1]


def datalab_near_duplicate_flags(features: Floats, k: int = DATALAB_NEIGHBORS) -> Bools:
    """What Datalab flags: another row within 0.13 median nearest-neighbor distances."""
    return _issues("near_duplicate", features, k)[0]


def _issues(name: str, features: Floats, k: int) -> tuple[Bools, Floats]:
    """(flag, score) of one of Datalab's checks.

    The checks themselves are called: the `Datalab` class around them needs the `datasets` package and gives them
    nothing but its empty statistics.
    """
    from cleanlab.datalab.internal.issue_manager.duplicate import NearDuplicateIssueManager
    from cleanlab.datalab.internal.issue_manager.outlier import OutlierIssueManager

    managers: dict[str, Any] = {"outlier": OutlierIssueManager, "near_duplicate": NearDuplicateIssueManager}
    lab = SimpleNamespace(get_info=lambda _name: {})
    check = managers[name](lab, k=min(k, len(features) - 1))
    check.find_issues(features=features)
    table = check.issues
    return table[f"is_{name}_issue"].to_numpy(bool), table[f"{name}_score"].to_numpy(float)
