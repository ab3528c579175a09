"""Inputs of the rivals from the audited run: its trials, features and masks."""

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
from benchmarks.rivals.linear import class_probabilities

TRAININGS = 16  # that margins are averaged over: as many as the trials that ours is made from


def materials(prepared: Prepared, evidence: Evidence) -> dict[tuple[str, str], list[Material]]:
    """Pair of modalities -> what its rivals read, rows in canonical order.

    Two materials where the encoders share a space, or both sides have a place among words: with the similarity of the
    trials that held the pair out, and with that of the frozen encoders, which is what people use as CLIP similarity.
    """
    return {pair: _of_pair(prepared, evidence, pair) for pair in evidence.pairs}


def _of_pair(prepared: Prepared, evidence: Evidence, pair: tuple[str, str]) -> list[Material]:
    a, b = (evidence.modalities.index(name) for name in pair)
    trials = evidence.required_trials
    similarity = held_out_similarity(lambda number: [trials.embed(number)[at] for at in (a, b)], trials.member)
    contents = [evidence.contents[name] for name in pair]
    repeats = np.stack([*contents, evidence.leave_together], axis=1)
    labels = _labels(prepared)
    projections = head_projections(prepared.features)
    inputs = [head_inputs(prepared.features, projections, "cpu")[at] for at in (a, b)]
    trainings = [train_dynamics(inputs, repeats, 20, seed, labels) for seed in range(TRAININGS)]
    left, right = (evidence.vectors[name] for name in pair)
    shared: dict[str, Any] = {
        "repeats": np.logical_or.reduce([column[:, None] == column[None] for column in repeats.T]),
        "labels": labels,
        "probabilities": None if labels is None else class_probabilities(evidence.vectors[pair[0]], labels),
        "margins": np.mean([training.margins for training in trainings], axis=0),
        "confidences": trainings[0].confidences,
        "losses": trainings[0].losses,
    }
    materials_of_pair = [Material(similarity, left, right, **shared)]
    if (in_one_space := evidence.in_one_space(pair)) is not None:
        one, other = in_one_space
        materials_of_pair.append(Material(one @ other.T, left, right, **shared))
    return materials_of_pair


def _labels(prepared: Prepared) -> Ints | None:
    if not prepared.samples.labels:
        return None
    labels = np.array(prepared.samples.labels, dtype=object)[prepared.order.rows]
    return dense_ids(labels)


def rival_scores(
    by_pair: dict[tuple[str, str], list[Material]], settings: dict[str, dict[str, Any]]
) -> dict[str, list[Floats]]:
    """Rival -> its suspicion `[n]`, once per kind of similarity; of several pairs the worst in robust deviations.

    A pair that has no similarity of the second kind enters with its first.
    """
    out: dict[str, list[Floats]] = {}
    for rival in RIVALS.values():
        columns = []
        for kind in range(max(map(len, by_pair.values()))):
            of_kind = [of_pair[min(kind, len(of_pair) - 1)] for of_pair in by_pair.values()]
            if all(rival.runs_on(material) for material in of_kind):
                per_pair = [_score(rival, material, settings) for material in of_kind]
                columns.append(per_pair[0] if len(per_pair) == 1 else np.max([robust_z(v) for v in per_pair], axis=0))
        if columns:
            out[rival.name] = columns
    return out


def _score(rival: Rival, material: Material, settings: dict[str, dict[str, Any]]) -> Floats:
    values = rival.function(material, **settings.get(rival.name, {}))
    return np.nan_to_num(values, nan=float(np.nanmedian(values)))
