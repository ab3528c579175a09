"""Which captions of the set fit a medium better than its own.

The *lift* of a text j for a medium i is `s_ij - tau log mean_k exp(s_kj / tau)` over a fixed draw of media k, by trials
that saw neither: how much better it fits this medium than it fits media at large. A bare similarity favors texts that
fit everything.
"""

from __future__ import annotations

import numpy as np

from audit_plugin.arrays import Floats, Ints
from audit_plugin.audit.prepare import Prepared
from audit_plugin.scoring.contrast import draw_pool
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.held_out import embed_held_out
from audit_plugin.scoring.suggest.pair_scores import text_pairs

from .records import Records, rounded, row_identity

TEMPERATURE = 1 / 20  # of the lift
REFERENCES = 512  # media that stand for media at large
RIVALS = 5  # captions named for a row and pair


def lift(similarity: Floats, references: Floats) -> Floats:
    """Lift `[..., p]` of texts from similarities `[..., p]` and those to the references `[f, p]`, NaN where unknown.

    NaN where a text has no known similarity to a reference.
    """
    with np.errstate(over="ignore"):
        weight = np.exp(references / TEMPERATURE)
    is_known = np.isfinite(references)
    count = is_known.sum(0)
    mean = np.where(is_known, weight, 0).sum(0) / np.maximum(count, 1)
    return np.where(count > 0, similarity - TEMPERATURE * np.log(np.maximum(mean, 1e-30)), np.nan)


def rival_captions(evidence: Evidence, rows: Ints, prepared: Prepared, seed: int) -> Records:
    """Row -> `rivals`: pair -> similarity and lift of the own caption, and of `RIVALS` captions with a higher lift."""
    records: Records = {int(row): {"rivals": {}} for row in rows}
    if not len(rows) or evidence.trials is None:
        return records
    trials, references = evidence.trials, draw_pool(evidence.known_rows, seed, REFERENCES)
    for pair in text_pairs(evidence):
        content = evidence.contents[pair[1]]
        pool = np.union1d(draw_pool(np.unique(content, return_index=True)[1], seed), rows)
        positions = (evidence.modalities.index(pair[0]), evidence.modalities.index(pair[1]))
        media, captions = (
            embed_held_out(trials.embed, trials.member, positions, rows_of_side)
            for rows_of_side in (np.concatenate([rows, references]), pool)
        )
        similarity = media.similarity(captions)
        lifts = lift(similarity[: len(rows)], similarity[len(rows) :])
        for i, row in enumerate(rows.tolist()):
            own = int(np.searchsorted(pool, row))
            better = np.where(lifts[i] > lifts[i, own], lifts[i], -np.inf)  # NaN is not above
            better[content[pool] == content[row]] = -np.inf
            best = [own, *_best_distinct(better, content[pool])]
            fits = [{"similarity": rounded(similarity[i, j]), "lift": rounded(lifts[i, j])} for j in best]
            rivals = [row_identity(int(pool[j]), prepared) | fit for j, fit in zip(best[1:], fits[1:], strict=True)]
            records[row]["rivals"]["_".join(pair)] = {"own": fits[0], "better": rivals}
    return records


def _best_distinct(values: Floats, content: Ints) -> list[int]:
    """Positions of the highest values, one per content, at most `RIVALS`."""
    best: dict[int, int] = {}  # content -> position
    for position in np.argsort(-values, kind="stable"):
        if len(best) == RIVALS or values[position] == -np.inf:
            break
        best.setdefault(int(content[position]), int(position))
    return list(best.values())
