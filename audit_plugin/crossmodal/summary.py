"""Answers summed up: recall with intervals, gap, what is recalled across; or, without alignment, why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints

from .name_heads import CENTERED, STEPS, Answers
from .statistics import BOTH, NONE, gap, is_aligned, is_recalled, joint_table, per_identity, rate, transfer_ratio

Recall = Mapping[tuple[str, str], Floats]  # (arm, modality asked in) -> recall `[e]` of the identities


def summarize(answers: Answers, names: tuple[str, str]) -> dict[str, Any]:
    """JSON-ready; the module `statistics` defines the terms.

    Without alignment the keys `gap`, `transfer_ratio`, `joint` and `mitigation` are left out and `refused` says why.
    """
    numbers, at = np.unique(answers.identity, return_inverse=True)
    recall = _recall(answers, numbers)
    retrieval = rate(per_identity(answers.retrieval, at.reshape(-1), len(numbers)))
    learning_arms = (*names, BOTH)
    out: dict[str, Any] = {
        "modalities": list(names),
        "identities": len(numbers),
        "questions": len(answers.rows),
        "chance": answers.chance,
        "recall": {arm: {m: rate(recall[arm, m]) for m in names} for arm in (*learning_arms, NONE)},
        "seeds": {arm: {m: answers.hits[arm, m].mean(1).tolist() for m in names} for arm in learning_arms},
        "curve": {
            "steps": list(STEPS),
            **{arm: {m: answers.curve[arm, m].mean(0).tolist() for m in names} for arm in learning_arms},
        },
        "alignment": {"retrieval": retrieval, "chance": answers.retrieval_chance},
        "modality_gap": {"mean": float(answers.gap_norm.mean()), "seeds": answers.gap_norm.tolist()},
    }
    if not is_aligned(retrieval, answers.retrieval_chance):
        refusal = (  # why a gap would mean nothing
            f"the modalities are not aligned: held-out pairs are retrieved in {retrieval['value']:.1%} of cases "
            f"({retrieval['low']:.1%} to {retrieval['high']:.1%}), which is not clearly above twice chance "
            f"({answers.retrieval_chance:.1%}). A gap could then be due to the encoders instead of memorization and is "
            "not reported. Give more identities, more pairs of them, or another encoder"
        )
        return out | {"refused": refusal}
    return out | compare_modalities(recall, names, answers.chance, CENTERED)


def _recall(answers: Answers, numbers: Ints) -> dict[tuple[str, str], Floats]:
    """`Recall` of the identities `numbers`."""
    at = np.searchsorted(numbers, answers.identity)
    return {key: per_identity(hits, at, len(numbers)) for key, hits in answers.hits.items()}


def compare_modalities(recall: Recall, names: tuple[str, str], chance: float, mitigation: str) -> dict[str, Any]:
    """Recall in the modality learned from against recall in the other, in both directions.

    `chance` is that of a guessed name, `mitigation` the prefix of a modality in the name of its mitigated arm.
    """
    out: dict[str, Any] = {"gap": {}, "transfer_ratio": {}, "joint": {}, "mitigation": {}}
    for source, target in (names, names[::-1]):
        within, across = recall[source, source], recall[source, target]
        out["gap"][source] = gap(within, across)
        out["transfer_ratio"][source] = transfer_ratio(across, recall[BOTH, target], chance)
        out["joint"][source] = joint_table(within, across)
        out["mitigation"][source] = mitigation_gain(recall, mitigation, source, target)
    return out


def mitigation_gain(recall: Recall, mitigation: str, source: str, target: str) -> dict[str, Any]:
    """Recall of the mitigated arm, and what it gains in the target; arguments as in `compare_modalities`."""
    return {
        "target": rate(recall[mitigation + source, target]),
        "source": rate(recall[mitigation + source, source]),
        "gain": gap(recall[mitigation + source, target], recall[source, target]),
    }


def row_columns(answers: Answers, names: tuple[str, str], n: int) -> dict[str, Floats]:
    """`recall_SOURCE_TARGET` float32 `[n]`: share of seeds that named the row; NaN for rows that were not asked."""
    columns = {}
    for arm in (*names, BOTH):
        for name in names:
            values = np.full(n, np.nan, np.float32)
            values[answers.rows] = answers.hits[arm, name].mean(0)
            columns[f"recall_{arm}_{name}"] = values
    return columns


def identity_table(answers: Answers, names: tuple[str, str], labels: list[str]) -> list[dict[str, Any]]:
    """One record per identity, the largest gap first: its recall in each cell, and what stays in one modality.

    `stays_in` names the modalities whose names are recalled there and not in the other.
    """
    numbers, questions = np.unique(answers.identity, return_counts=True)
    recall = _recall(answers, numbers)
    gaps, stays = {}, {}
    for source, target in (names, names[::-1]):
        gaps[source] = recall[source, source] - recall[source, target]
        stays[source] = is_recalled(recall[source, source]) & ~is_recalled(recall[source, target])
    records: list[dict[str, Any]] = []
    for at, number in enumerate(numbers.tolist()):
        record: dict[str, Any] = {"identity": labels[number], "questions": int(questions[at])}
        for arm in (*names, BOTH):
            record |= {f"recall_{arm}_{name}": round(float(recall[arm, name][at]), 4) for name in names}
        record["gap"] = round(max(float(gaps[name][at]) for name in names), 4)
        record["stays_in"] = " and ".join(name for name in names if stays[name][at])
        records.append(record)
    return sorted(records, key=lambda record: (-record["gap"], record["identity"]))
