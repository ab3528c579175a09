"""Linear probes by scikit-learn, out of fold: what two seconds on frozen features say of a pair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats

from .contrastive import negclip_loss
from .material import Material, canonical

FOLDS, REPEATS = 5, 3
ALPHAS = np.geomspace(0.01, 100, 9)  # of ridge regression; the best is chosen by generalized cross-validation


def logistic_regression(material: Material, margin: bool = True) -> Floats:
    """Held-out class probabilities: the best other class' less the given class' (`margin`), or 1 - the given class'."""
    if material.labels is None or material.probabilities is None:
        raise ValueError("logistic regression needs labels and held-out probabilities")
    rows = np.arange(len(material))
    given = material.probabilities[rows, material.labels]
    if not margin:
        return 1 - given
    others = material.probabilities.copy()
    others[rows, material.labels] = -np.inf
    return others.max(1) - given


def class_probabilities(features: Floats, labels: Any, strength: float = 3.0) -> Floats:
    """`[n, c]` out-of-fold probabilities of logistic regressions on the given labels, mean over `REPEATS` divisions."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    total = np.zeros((len(labels), int(labels.max()) + 1))
    for repeat in range(REPEATS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=repeat)
        model = LogisticRegression(C=strength, max_iter=500)
        total += cross_val_predict(model, features, labels, cv=folds, method="predict_proba")
    return total / REPEATS


def ridge(material: Material, temperature: float = 0.02) -> Floats:
    """Ridge regression of each side on the other, out of fold; mean of both predictions' negCLIPLoss.

    With y' the prediction of side y from the other, s_ij = cos(y'_i - mean y, y_j - mean y). O(n d (n + d)).
    """
    values = []
    for source, target, turned in ((material.image, material.text, False), (material.text, material.image, True)):
        mean = target.mean(0)
        similarity = _unit(_out_of_fold(source, target) - mean) @ _unit(target - mean).T
        values.append(negclip_loss(replace(material, similarity=similarity.T if turned else similarity), temperature))
    return np.mean(values, axis=0)


def _out_of_fold(source: Floats, target: Floats) -> Floats:
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict

    order = canonical(source)  # folds that do not depend on the order of the rows
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    predicted = np.empty_like(target)
    predicted[order] = cross_val_predict(RidgeCV(ALPHAS), source[order], target[order], cv=folds)
    return predicted


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
