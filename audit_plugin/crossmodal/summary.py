"""What answers add up to: recall with intervals, gap, transfer; or, where nothing was aligned, why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints

from .name_heads import CENTERED, STEPS, Answers
from .statistics import BOTH, NONE, aligned, gap, joint_table, per_identity, rate, recalled, transfer_ratio


def tables(answers: Answers, numbers: Ints) -> dict[tuple[str, str], Floats]:
    """(arm, modality) -> recall `[e]` of the identities `numbers`."""
    at = np.searchsorted(numbers, answers.identity)
    return {key: per_identity(hits, at, len(numbers)) for key, hits in answers.hits.items()}


def summarize(answers: Answers, names: tuple[str, str]) -> dict[str, Any]:
    """JSON-ready; see the module `measures` for the words.

    Without alignment the keys `gap`, `transfer_ratio`, `joint` and `mitigation` are left out and `refused` says why.
    """
    numbers = np.unique(answers.identity)
    recall = tables(answers, numbers)
    at = np.searchsorted(numbers, answers.identity)
    retrieval = rate(per_identity(answers.retrieval, at, len(numbers)))
    out: dict[str, Any] = {
        "modalities": list(names),
        "identities": len(numbers),
        "questions": len(answers.rows),
        "chance": answers.chance,
        "recall": {arm: {m: rate(recall[arm, m]) for m in names} for arm in (*names, BOTH, NONE)},
        "seeds": {arm: {m: [float(v) for v in answers.hits[arm, m].mean(1)] for m in names} for arm in (*names, BOTH)},
        "curve": {
            "steps": list(STEPS),
            **{arm: {m: answers.curve[arm, m].mean(0).tolist() for m in names} for arm in (*names, BOTH)},
        },
        "alignment": {"retrieval": retrieval, "chance": answers.retrieval_chance},
        "modality_gap": {"mean": float(answers.gap_norm.mean()), "seeds": answers.gap_norm.tolist()},
    }
    if not aligned(retrieval, answers.retrieval_chance):
        return out | {"refused": refusal(retrieval, answers.retrieval_chance)}
    return out | compared(recall, names, answers.chance, CENTERED)


def compared(
    recall: Mapping[tuple[str, str], Floats], names: tuple[str, str], chance: float, remedy: str
) -> dict[str, Any]:
    """Source against target, both ways.

    Args:
        recall: (arm, modality asked in) -> `[e]`.
        names: the modalities.
        chance: of a guessed name.
        remedy: what stands before a modality in the name of its mitigated arm.
    """
    ways = {source: (source, target) for source, target in (names, names[::-1])}
    return {
        "gap": {s: gap(recall[s, s], recall[s, t]) for s, t in ways.values()},
        "transfer_ratio": {s: transfer_ratio(recall[s, t], recall[BOTH, t], chance) for s, t in ways.values()},
        "joint": {s: joint_table(recall[s, s], recall[s, t]) for s, t in ways.values()},
        "mitigation": {s: mitigated(recall, remedy, s, t) for s, t in ways.values()},
    }


def mitigated(recall: Mapping[tuple[str, str], Floats], remedy: str, source: str, target: str) -> dict[str, Any]:
    """Recall of the arm that a remedy stands before, and what it gains in the target; `recall` as in `compared`."""
    return {
        "target": rate(recall[remedy + source, target]),
        "source": rate(recall[remedy + source, source]),
        "gain": gap(recall[remedy + source, target], recall[source, target]),
    }


def refusal(retrieval: Mapping[str, float], chance: float) -> str:
    """Why a gap would mean nothing."""
    return (
        f"the modalities are not aligned for sure: held-out pairs are retrieved in {retrieval['value']:.1%} of cases "
        f"({retrieval['low']:.1%} to {retrieval['high']:.1%}; chance is {chance:.1%}). What is not recalled across may "
        "then be a matter of the encoders, not of memory, so no gap is told. Give more identities or more pairs of "
        "them, or another encoder"
    )


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
    numbers = np.unique(answers.identity)
    recall = tables(answers, numbers)
    asked = np.bincount(np.searchsorted(numbers, answers.identity))
    stays = {s: recalled(recall[s, s]) & ~recalled(recall[s, t]) for s, t in (names, names[::-1])}
    found = []
    for at, number in enumerate(numbers.tolist()):
        cells = {f"recall_{a}_{m}": round(float(recall[a, m][at]), 4) for a in (*names, BOTH) for m in names}
        gaps = [float(recall[s, s][at] - recall[s, t][at]) for s, t in (names, names[::-1])]
        where = [name for name in names if stays[name][at]]
        record = {"identity": labels[number], "questions": int(asked[at]), **cells}
        found.append(record | {"gap": round(max(gaps), 4), "stays_in": " and ".join(where)})
    return sorted(found, key=lambda record: (-record["gap"], record["identity"]))
