"""How well a medium fits a caption that is not its own, weighed as the misalignment of the set's own pairs is.

The *suspicion* of a pair (i, j) is the weighted mean of its evidence, each in robust deviations of the set's own pairs
(0: the set's median) and with the weights of their misalignment: the contrast of the mean held-out similarity, of the
frozen encoders where they share a space, and of the votes of the neighbors of both. Any contrast is

    tau/2 * (log mean_k exp(M_ik / tau) + log mean_k exp(M_kj / tau)) - M_ij

where the two log means, the *hubs* of medium i and of caption j, are computed once for all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Ints
from audit_plugin.scoring import held_out
from audit_plugin.scoring import neighbor_votes as votes
from audit_plugin.scoring.contrast import FROZEN_TEMPERATURE, same_in_any
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.held_out import HeldOut
from audit_plugin.scoring.scores import WEIGHTS, of_known, robust_scale, robust_z

TRIALS = 32  # more change little, and each is read anew
HUBS = 1024
BLOCK = 2048  # rows: some 16 tables of so many x HUBS stand in memory at once
TEMPERATURES = {
    "contrast": held_out.TEMPERATURE,
    "zero_shot": FROZEN_TEMPERATURE,
    "neighbors_a": votes.TEMPERATURE,
    "neighbors_b": votes.TEMPERATURE,
}
Pair = tuple[str, str]


@dataclass(frozen=True)
class Weighing:
    """What any pair of a medium and a caption is weighed with.

    Attributes:
        evidence: of the set.
        pair: the medium's modality and the text's.
        weights: kind of evidence -> its weight, above 0.
        votes: "neighbors_a": the media's neighbors on captions; "neighbors_b": the captions' neighbors on media.
        hubs: kind -> tau/2 * log means `[2, n]`, of the media and of the captions.
        own: kind -> contrast `[n]` of the pairs as they are.
        scale: kind -> (median, robust deviation) of `own`.
    """

    evidence: Evidence
    pair: Pair
    weights: Mapping[str, float]
    votes: Mapping[str, votes.NeighborVotes]
    hubs: Mapping[str, Floats] = field(default_factory=dict)
    own: Mapping[str, Floats] = field(default_factory=dict)
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def text_pairs(evidence: Evidence) -> list[Pair]:
    """The pairs of a medium and a text, the text last."""
    one = [pair for pair in evidence.pairs if sum(m in evidence.texts for m in pair) == 1]
    return [pair if pair[1] in evidence.texts else (pair[1], pair[0]) for pair in one]


def weigh(evidence: Evidence, pair: Pair) -> Weighing:
    """Reads the trials for the hubs; O(r n HUBS o)."""
    weights = _weights(evidence, pair)
    bare = Weighing(evidence, pair, weights, _votes(evidence, pair) if "neighbors_a" in weights else {})
    hubs = _hubs(bare)
    own = {name: hubs[name].sum(0) - similarity for name, similarity in _own_similarities(bare).items()}
    scale = {name: robust_scale(of_known(values, evidence.known)) for name, values in own.items()}
    return replace(bare, hubs=hubs, own=own, scale=scale)


def _position(evidence: Evidence, pair: Pair) -> int:
    return next(i for i, p in enumerate(evidence.pairs) if set(p) == set(pair))


def _weights(evidence: Evidence, pair: Pair) -> dict[str, float]:
    given = evidence.weights.get(evidence.pairs[_position(evidence, pair)], WEIGHTS)
    shared = evidence.space[pair[0]] and evidence.space[pair[0]] == evidence.space[pair[1]]
    return {name: weight for name, weight in given.items() if weight > 0 and (shared or name != "zero_shot")}


def _votes(evidence: Evidence, pair: Pair) -> dict[str, votes.NeighborVotes]:
    contrast = evidence.held_out["contrast"][_position(evidence, pair)]
    distrust = robust_z(contrast, of_known(contrast, evidence.known))
    near, content, views = evidence.neighbors, evidence.contents, evidence.views
    return {
        name: votes.collect_votes(near[a], content[a], content[b], views[b], distrust)
        for name, (a, b) in (("neighbors_a", pair), ("neighbors_b", pair[::-1]))
    }


def _hubs(bare: Weighing) -> dict[str, Floats]:
    """Kind -> `[2, n]`. Who shares a medium, a text or a group with a row is not among those it is compared with."""
    evidence = bare.evidence
    n = len(evidence)
    pool = np.linspace(0, n - 1, min(HUBS, n)).astype(np.int64)  # the canonical order is that of digests: any rows
    columns = [evidence.contents[name] for name in bare.pair] + [evidence.leave_together]
    repeats = torch.from_numpy(np.stack(columns, axis=1))
    found: list[dict[str, Floats]] = []
    for rows in np.array_split(np.arange(n), range(BLOCK, n, BLOCK)):
        related = same_in_any(repeats[rows], repeats[pool]).numpy()
        held = hold(bare, np.concatenate([rows, pool]))
        back = {k: v.T for k, v in similarities(bare, pool, rows, held).items()}
        sides = similarities(bare, rows, pool, held), back
        found.append({k: np.stack([_log_mean(side[k], related, TEMPERATURES[k]) for side in sides]) for k in sides[0]})
    return {name: np.concatenate([part[name] for part in found], axis=1) for name in bare.weights}


def _log_mean(similarity: Floats, related: Bools, temperature: float) -> Floats:
    """`[n]`: tau/2 * log mean exp(. / tau) over the known, unrelated ones of `[n, h]`; NaN without any."""
    known = np.isfinite(similarity) & ~related
    logits = np.where(known, similarity / temperature, -np.inf)
    top = logits.max(1, keepdims=True, initial=-1e30)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (0.5 * temperature * (top[:, 0] + np.log(np.exp(logits - top).sum(1) / known.sum(1)))).astype(np.float32)


def _own_similarities(bare: Weighing) -> dict[str, Floats]:
    """Kind -> `[n]`: M_ii. A row is no neighbor of its own."""
    evidence, (a, b) = bare.evidence, bare.pair
    found = {"contrast": evidence.held_out["cosine"][_position(evidence, bare.pair)]}
    if "zero_shot" in bare.weights:
        found["zero_shot"] = np.einsum("nd,nd->n", evidence.vectors[a], evidence.vectors[b])
    for name, voted in bare.votes.items():
        found[name] = np.einsum("nd,nd->n", voted.predictions, evidence.views[b if name == "neighbors_a" else a])
    return found


def similarities(weighing: Weighing, rows: Ints, pool: Ints, held: HeldOut) -> dict[str, Floats]:
    """Kind of evidence -> M `[q, p]`: each row's medium with the pool's captions; NaN where no trial held out both."""
    evidence, (a, b) = weighing.evidence, weighing.pair
    found = {"contrast": held.similarity(rows, pool)}
    if "zero_shot" in weighing.weights:
        found["zero_shot"] = evidence.vectors[a][rows] @ evidence.vectors[b][pool].T
    if weighing.votes:
        found["neighbors_a"] = _voted(weighing.votes["neighbors_a"], evidence.views[b], rows, pool)
        found["neighbors_b"] = _voted(weighing.votes["neighbors_b"], evidence.views[a], pool, rows).T
    return found


def _voted(given: votes.NeighborVotes, vectors: Floats, rows: Ints, pool: Ints) -> Floats:
    """`[q, p]`: likeness of the pool's vectors to the rows' votes, without what the candidate itself had in them."""
    out = given.predictions[rows] @ vectors[pool].T
    at = np.full(len(vectors) + 1, -1)  # one more: -1 is no voter
    at[pool] = np.arange(len(pool))
    column = at[given.voters[rows]]
    row, voter = np.nonzero(column >= 0)
    np.subtract.at(out, (row, column[row, voter]), given.sole_weights[rows][row, voter])
    return out


def suspicion(weighing: Weighing, rows: Ints, pool: Ints, held: HeldOut | None = None) -> Floats:
    """float32 `[q, p]`: suspicion of each row's medium with each pool caption; NaN where no trial held out both.

    Args:
        weighing: of the set.
        rows: `[q]`.
        pool: `[p]`.
        held: both of them, and others, if they are asked more than once.
    """
    parts, held = {}, held or hold(weighing, np.concatenate([rows, pool]))
    for name, similarity in similarities(weighing, rows, pool, held).items():
        media, captions = weighing.hubs[name]
        parts[name] = media[rows][:, None] + captions[pool][None] - similarity
    return _mean(parts, weighing)


def own_suspicion(weighing: Weighing) -> Floats:
    """float32 `[n]`: suspicion of the pairs as they are."""
    return _mean(weighing.own, weighing)


def _mean(parts: Mapping[str, Floats], weighing: Weighing) -> Floats:
    """Weighted mean of the standardized parts; evidence that a pair lacks counts as the median."""
    total = np.zeros(parts["contrast"].shape, np.float32)
    for name, values in parts.items():
        median, spread = weighing.scale[name]
        total += weighing.weights[name] * np.nan_to_num((values - median) / spread)
    mean = total / np.float32(sum(weighing.weights[name] for name in parts))
    return np.where(np.isfinite(parts["contrast"]), mean, np.float32(np.nan))


def trials_of(evidence: Evidence, pair: Pair) -> Iterator[tuple[Bools, torch.Tensor, torch.Tensor]]:
    """(held out `[n]`, the pair's unit embeddings `[n, o]`) of at most `TRIALS` trials."""
    a, b = (evidence.modalities.index(name) for name in pair)
    for number, member in enumerate(evidence.trained.member[:TRIALS]):
        embeddings = evidence.trained.embed(number)
        yield ~member, embeddings[a].float(), embeddings[b].float()


def hold(weighing: Weighing, rows: Ints) -> HeldOut:
    """The rows under at most `TRIALS` trials."""
    evidence = weighing.evidence
    a, b = (evidence.modalities.index(name) for name in weighing.pair)
    return held_out.hold(evidence.trained.embed, evidence.trained.member[:TRIALS], (a, b), rows)
