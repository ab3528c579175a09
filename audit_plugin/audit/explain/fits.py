"""Which captions of the set fit a medium better than its own, by trials that saw neither.

The *lift* of a text j for a medium i is `s_ij - tau log mean_k exp(s_kj / tau)` over a fixed draw of media k: how much
better it fits this medium than it fits media at large. A bare similarity favors texts that fit everything.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints
from audit_plugin.audit.prepare import Prepared
from audit_plugin.scoring.contrast import draw_pool
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.held_out import embed_held_out
from audit_plugin.scoring.suggest.pair_scores import text_pairs

from .parts import Found, named, number

TEMPERATURE = 1 / 20
REFERENCES = 512
RIVALS = 5


def reference_rows(evidence: Evidence, seed: int) -> Ints:
    """A fixed draw of at most `REFERENCES` known rows, whose media stand for media at large."""
    known = np.arange(len(evidence)) if evidence.known is None else np.flatnonzero(evidence.known)
    return draw_pool(known, seed, REFERENCES)


def lift(similarity: Floats, references: Floats) -> Floats:
    """Lift `[..., p]` of texts from similarities `[..., p]` and those to the references `[f, p]`, NaN where unknown."""
    with np.errstate(over="ignore"):
        weight = np.exp(references / TEMPERATURE)
    known = np.isfinite(references)
    mean = np.where(known, weight, 0).sum(0) / np.maximum(known.sum(0), 1)
    return similarity - TEMPERATURE * np.log(np.maximum(mean, 1e-30))


def rival_captions(evidence: Evidence, rows: Ints, ready: Prepared, seed: int) -> Found:
    """Row -> `rivals`: pair -> similarity and lift of the own caption, and of `RIVALS` captions with a higher lift."""
    out: Found = {int(row): {"rivals": {}} for row in rows}
    if not len(rows) or evidence.trials is None:
        return out
    for pair in text_pairs(evidence):
        content = evidence.contents[pair[1]]
        pool = np.union1d(draw_pool(np.unique(content, return_index=True)[1], seed), rows)
        references = reference_rows(evidence, seed)
        at = (evidence.modalities.index(pair[0]), evidence.modalities.index(pair[1]))
        asked = np.concatenate([rows, references])
        trials = evidence.trials
        embeddings = embed_held_out(trials.embed, trials.member, at, np.concatenate([asked, pool]))
        similarity = embeddings.similarity(asked, pool)
        lifts = lift(similarity[: len(rows)], similarity[len(rows) :])
        for i, row in enumerate(rows.tolist()):
            own = int(np.searchsorted(pool, row))
            better = np.where(lifts[i] > lifts[i, own], lifts[i], -np.inf)  # NaN is not above
            better[content[pool] == content[row]] = -np.inf
            chosen = _best_distinct(better, content[pool])
            out[row]["rivals"]["_".join(pair)] = {
                "own": _fit(similarity[i, own], lifts[i, own]),
                "better": [named(int(pool[j]), ready) | _fit(similarity[i, j], lifts[i, j]) for j in chosen],
            }
    return out


def _fit(similarity: float, value: float) -> dict[str, Any]:
    return {"similarity": number(similarity), "lift": number(value)}


def _best_distinct(values: Floats, content: Ints) -> list[int]:
    """Positions of the highest values, one per content, at most `RIVALS`."""
    chosen: list[int] = []
    seen: set[int] = set()
    for j in np.argsort(-values, kind="stable"):
        if len(chosen) == RIVALS or values[j] == -np.inf:
            break
        if content[j] not in seen:
            seen.add(int(content[j]))
            chosen.append(int(j))
    return chosen
