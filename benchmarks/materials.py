"""What rivals are given, from the same run that is audited: its trials, features and masks."""

from __future__ import annotations

from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints, dense_ids
from audit_plugin.audit.prepare import Prepared
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.scores import robust_z
from audit_plugin.trials.learners import head_inputs, head_projections
from benchmarks.rivals import RIVALS, Material, Rival
from benchmarks.rivals.dynamics import train_dynamics
from benchmarks.rivals.held_out import held_out_similarity

FOLDS = 5


def materials(ready: Prepared, evidence: Evidence) -> dict[tuple[str, str], list[Material]]:
    """Pair of modalities -> what its rivals read, rows in canonical order.

    Two materials where the encoders share a space: with the similarity of the trials that held the pair out, and with
    that of the frozen encoders, which is what people use as CLIP similarity.
    """
    return {pair: _of_pair(ready, evidence, pair) for pair in evidence.pairs}


def _of_pair(ready: Prepared, evidence: Evidence, pair: tuple[str, str]) -> list[Material]:
    a, b = (evidence.modalities.index(name) for name in pair)
    trials = evidence.trained
    similarity = held_out_similarity(lambda number: [trials.embed(number)[at] for at in (a, b)], trials.member)
    contents = [evidence.contents[name] for name in pair]
    repeats = np.stack([*contents, evidence.leave_together], axis=1)
    labels = _labels(ready)
    projections = head_projections(ready.features)
    inputs = [head_inputs(ready.features, projections, "cpu")[at] for at in (a, b)]
    seen = train_dynamics(inputs, repeats, 20, 0, labels)
    left, right = (evidence.vectors[name] for name in pair)
    given: dict[str, Any] = {
        "repeats": np.logical_or.reduce([column[:, None] == column[None] for column in repeats.T]),
        "labels": labels,
        "probabilities": None if labels is None else class_probabilities(evidence.views[pair[0]], labels),
        "margins": seen.margins,
        "confidences": seen.confidences,
        "losses": seen.losses,
    }
    found = [Material(similarity, left, right, **given)]
    if evidence.space[pair[0]] and evidence.space[pair[0]] == evidence.space[pair[1]]:
        found.append(Material(left @ right.T, left, right, **given))
    return found


def _labels(ready: Prepared) -> Ints | None:
    if not ready.samples.labels:
        return None
    given = np.array(ready.samples.labels, dtype=object)[ready.order.rows]
    return dense_ids(given)


def class_probabilities(features: Floats, labels: Ints) -> Floats:
    """`[n, c]` out-of-fold probabilities of a logistic regression on frozen features, trained on the given labels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=300, C=10.0)
    found = cross_val_predict(model, features, labels, cv=folds, method="predict_proba")
    return np.asarray(found, dtype=np.float64)


def rival_scores(
    found: dict[tuple[str, str], list[Material]], settings: dict[str, dict[str, Any]]
) -> dict[str, list[Floats]]:
    """Rival -> its suspicion `[n]`, once per kind of similarity; of several pairs the worst in robust deviations."""
    out: dict[str, list[Floats]] = {}
    for rival in RIVALS.values():
        columns = []
        for kind in range(len(next(iter(found.values())))):
            of_kind = [of_pair[kind] for of_pair in found.values()]
            if all(rival.runs_on(material) for material in of_kind):
                per_pair = [_score(rival, material, settings) for material in of_kind]
                columns.append(per_pair[0] if len(per_pair) == 1 else np.max([robust_z(v) for v in per_pair], axis=0))
        if columns:
            out[rival.name] = columns
    return out


def _score(rival: Rival, material: Material, settings: dict[str, dict[str, Any]]) -> Floats:
    values = rival.function(material, **settings.get(rival.name, {}))
    return np.nan_to_num(values, nan=float(np.nanmedian(values)))
