"""What is known already, per flagged sample: the parts of its score, its neighbors' votes, its duplicates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints
from audit_plugin.audit.prepare import Prepared
from audit_plugin.audit.score import Scored
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.neighbor_votes import NeighborVotes, votes_of_pair
from audit_plugin.scoring.scores import of_known, pair_misalignment, robust_z

NEIGHBORS = 5  # voters named for each side of a pair
PARTNERS = 20  # ids named of a row's duplicates or conflicts
Records = dict[int, dict[str, Any]]  # row -> fields of its record, JSON-ready


def rounded(value: float) -> float | None:
    """JSON-ready: four decimals, None for NaN."""
    return round(float(value), 4) if math.isfinite(value) else None


def row_identity(row: int, prepared: Prepared) -> dict[str, Any]:
    """Id of a row's sample, which of its captions the row is, and the caption where there is one."""
    at, samples = prepared.order.rows[row], prepared.samples
    caption = samples.media[prepared.text_modalities[0]][at] if prepared.text_modalities else ""
    return {
        "id": samples.ids[at],
        "caption_index": int(samples.caption[at]) if samples.caption else 0,
        "caption": caption or "",
    }


def score_parts(evidence: Evidence, rows: Ints) -> Records:
    """Row -> `pairs`: pair -> score, and of each part its value, its robust deviation and its share of the score.

    A part's share is what the score would lose if that part stood at the set's median; the shares add up to the score.
    """
    records: Records = {int(row): {"pairs": {}} for row in rows}
    if not evidence.held_out:
        return records
    for pair in evidence.pairs:
        score, parts = pair_shares(evidence, pair, rows)
        for i, row in enumerate(rows.tolist()):
            of_row = {name: {key: rounded(v[i]) for key, v in part.items()} for name, part in parts.items()}
            records[row]["pairs"]["_".join(pair)] = {"score": rounded(score[i]), "parts": of_row}
    return records


def pair_shares(evidence: Evidence, pair: tuple[str, str], rows: Ints) -> tuple[Floats, dict[str, dict[str, Floats]]]:
    """(score `[q]`; part -> its "value", "standard" and "share", `[q]`)."""
    of_rows = {name: values[rows] for name, values in evidence.parts[pair].items()}
    score = pair_misalignment(evidence, pair, of_rows)
    parts = {}
    for name, values in of_rows.items():
        scale = of_known(evidence.parts[pair][name], evidence.known)
        at_median = {**of_rows, name: np.full_like(values, np.nanmedian(scale))}
        share: Floats = score - pair_misalignment(evidence, pair, at_median)
        parts[name] = {"value": values, "standard": robust_z(values, scale), "share": share}
    return score, parts


def neighbor_records(evidence: Evidence, rows: Ints, prepared: Prepared) -> Records:
    """Row -> `neighbors`: of each pair and side, the voters, ordered by how much they speak against the pair.

    `similarity` is the cosine of the frozen features on the side `near`, `agreement` that of the views on the `other`
    side (1: the same, 0: unrelated), `weight` the voter's share of the vote.
    """
    records: Records = {int(row): {"neighbors": []} for row in rows}
    if evidence.trials is None:
        return records
    # the weights of the votes are wanted, not what is voted
    no_targets = dict.fromkeys(evidence.modalities, np.zeros((len(evidence), 1), np.float32))
    for pair, contrast in zip(evidence.pairs, evidence.held_out["contrast"], strict=True):
        for _, source, target, votes in votes_of_pair(
            pair, evidence.neighbors, evidence.contents, no_targets, contrast, evidence.known
        ):
            for row in rows.tolist():
                voters = _voters(evidence, (source, target), row, votes, prepared)
                records[row]["neighbors"].append({"near": source, "other": target, "voters": voters})
    return records


def _voters(
    evidence: Evidence, sides: tuple[str, str], row: int, votes: NeighborVotes, prepared: Prepared
) -> list[dict[str, Any]]:
    """The neighbors on the first side of a row that weigh most against its other side."""
    voter, weight = votes.voters[row], votes.weights[row]
    vectors, view = evidence.vectors[sides[0]], evidence.projections[sides[1]]
    similarity, agreement = (side[np.maximum(voter, 0)] @ side[row] for side in (vectors, view))
    against = np.where(voter >= 0, weight * (1 - agreement), -1)
    voters = []
    for i in np.argsort(-against, kind="stable")[:NEIGHBORS]:
        if voter[i] >= 0:
            measures = {"weight": weight[i], "similarity": similarity[i], "agreement": agreement[i]}
            voters.append(row_identity(int(voter[i]), prepared) | {k: rounded(v) for k, v in measures.items()})
    return voters


def duplicate_records(scored: Scored, rows: Ints, prepared: Prepared) -> Records:
    """Row -> `duplicates` and `conflicts`: ids, at most `PARTNERS` each, in canonical order.

    Duplicates are the other samples of its group of copies in any modality that is not text (captions of one sample do
    not repeat each other); conflicts are the other rows of the group with another text, where the row is flagged so.
    """
    evidence = scored.evidence
    groups = [(group, np.argsort(group, kind="stable")) for group in evidence.copy_groups.values()]
    sorted_groups = [(group, group[order], order) for group, order in groups]
    texts = [evidence.contents[name] for name in evidence.text_modalities]

    def ids(partners: list[int]) -> list[str]:
        return [prepared.samples.ids[prepared.order.rows[row]] for row in partners[:PARTNERS]]

    records: Records = {}
    for row in rows.tolist():
        same_group: set[int] = set()
        for group, values, order in sorted_groups:
            first, last = np.searchsorted(values, [group[row], group[row] + 1])
            same_group |= set(order[first:last].tolist())
        others = sorted(same_group - {row})
        duplicates = [other for other in others if evidence.user_groups[other] != evidence.user_groups[row]]
        conflicts = []
        if scored.flags["conflict"][row]:
            conflicts = [other for other in others if any(text[other] != text[row] for text in texts)]
        records[row] = {"duplicates": ids(duplicates), "conflicts": ids(conflicts)}
    return records
