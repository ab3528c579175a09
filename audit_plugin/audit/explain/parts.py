"""What is known already, per flagged sample: the parts of its score, its neighbors' votes, its duplicates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints
from audit_plugin.audit.prepare import Prepared
from audit_plugin.audit.score import Scored
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.neighbor_votes import collect_votes
from audit_plugin.scoring.scores import combine, of_known, robust_z

NEIGHBORS = 5
PARTNERS = 20
Found = dict[int, dict[str, Any]]


def number(value: float) -> float | None:
    """JSON-ready: four decimals, None for NaN."""
    return round(float(value), 4) if math.isfinite(value) else None


def score_parts(evidence: Evidence, rows: Ints) -> Found:
    """Row -> `pairs`: pair -> score, and of each part its value, its robust deviation and its share of the score.

    A part's share is what the score would lose if that part stood at the set's median; the shares add up to the score.
    """
    out: Found = {int(row): {"pairs": {}} for row in rows}
    if evidence.trials is None:
        return out
    for pair in evidence.pairs:
        whole, parts = pair_shares(evidence, pair, rows)
        for i, row in enumerate(rows.tolist()):
            out[row]["pairs"]["_".join(pair)] = {
                "score": number(whole[i]),
                "parts": {
                    name: dict(zip(("value", "standard", "share"), (number(v[i]) for v in values), strict=True))
                    for name, values in parts.items()
                },
            }
    return out


def pair_shares(
    evidence: Evidence, pair: tuple[str, str], rows: Ints
) -> tuple[Floats, dict[str, tuple[Floats, Floats, Floats]]]:
    """(score `[q]`; part -> (value, standard, share), each `[q]`)."""
    scale = {name: of_known(values, evidence.known) for name, values in evidence.parts[pair].items()}
    mine = {name: values[rows] for name, values in evidence.parts[pair].items()}
    weights = evidence.weights.get(pair)
    whole: Floats = combine(mine, scale, weights)
    out: dict[str, tuple[Floats, Floats, Floats]] = {}
    for name, values in mine.items():
        usual = np.full_like(values, np.nanmedian(scale[name]))
        share: Floats = whole - combine({**mine, name: usual}, scale, weights)
        out[name] = values, robust_z(values, scale[name]), share
    return whole, out


def neighbor_records(evidence: Evidence, rows: Ints, ready: Prepared) -> Found:
    """Row -> `neighbors`: of each pair and side, the voters, ordered by how much they speak against the pair.

    `similarity` is the cosine of the frozen features on the side that is asked, `agreement` that of the views on the
    other side (1: the same, 0: unrelated), `weight` the voter's share of the vote.
    """
    out: Found = {int(row): {"neighbors": []} for row in rows}
    if evidence.trials is None:
        return out
    for position, (a, b) in enumerate(evidence.pairs):
        own = evidence.held_out["contrast"][position]
        distrust = robust_z(own, of_known(own, evidence.known))
        for near, other in ((a, b), (b, a)):
            content = evidence.contents
            nothing = np.zeros((len(evidence), 1), np.float32)  # only the weights are wanted, not what is voted
            votes = collect_votes(evidence.neighbors[near], content[near], content[other], nothing, distrust)
            for row in rows.tolist():
                voters = _voters(evidence, near, other, row, votes.voters[row], votes.weights[row], ready)
                out[row]["neighbors"].append({"near": near, "other": other, "voters": voters})
    return out


def _voters(
    evidence: Evidence, near: str, other: str, row: int, voter: Ints, weight: Floats, ready: Prepared
) -> list[dict[str, Any]]:
    agreement = evidence.views[other][np.maximum(voter, 0)] @ evidence.views[other][row]
    against = np.where(voter >= 0, weight * (1 - agreement), -1)
    chosen = [i for i in np.argsort(-against, kind="stable")[:NEIGHBORS] if voter[i] >= 0]
    return [
        {
            **named(int(voter[i]), ready),
            "weight": number(weight[i]),
            "similarity": number(evidence.cosines[near][row, i]),
            "agreement": number(agreement[i]),
        }
        for i in chosen
    ]


def named(row: int, ready: Prepared) -> dict[str, Any]:
    """Who a row is: id, which of its sample's captions, and the caption where there is one."""
    at, samples = ready.order.rows[row], ready.samples
    text = next((m for m in samples.modalities if MODALITIES[m].is_text), None)
    return {
        "id": samples.ids[at],
        "caption_index": int(samples.caption[at]) if samples.caption else 0,
        "caption": samples.media[text][at] or "" if text else "",
    }


def partners(scored: Scored, rows: Ints, ready: Prepared) -> Found:
    """Row -> `duplicates` and `conflicts`: ids, at most `PARTNERS` each, in canonical order.

    Duplicates are the others of its near-duplicate group in any modality that is not text; conflicts are those of them
    that have another text, where the row is flagged so.
    """
    evidence = scored.evidence
    groups = [(group, np.argsort(group, kind="stable")) for group in evidence.near_duplicates.values()]
    ranked = [(group[order], order) for group, order in groups]
    out: Found = {}
    for row in rows.tolist():
        same: set[int] = set()
        for (group, _), (values, order) in zip(groups, ranked, strict=True):
            first, last = np.searchsorted(values, [group[row], group[row] + 1])
            same |= set(order[first:last].tolist())
        others = sorted(same - {row})
        texts = [evidence.contents[name] for name in evidence.texts]
        against = [o for o in others if any(text[o] != text[row] for text in texts)]
        out[row] = {
            "duplicates": _ids(others, ready),
            "conflicts": _ids(against if scored.flags["conflict"][row] else [], ready),
        }
    return out


def _ids(rows: list[int], ready: Prepared) -> list[str]:
    return [ready.samples.ids[ready.order.rows[row]] for row in rows[:PARTNERS]]
