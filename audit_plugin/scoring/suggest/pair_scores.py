"""How well a medium fits a caption that is not its own, weighed as the misalignment of the set's own pairs is.

The *suspicion* of a pair (i, j) is the weighted mean of its evidence, each in robust deviations of the set's own pairs
(0: the set's median) and with the weights of their misalignment: the contrast of the mean held-out similarity, of the
frozen encoders where they share a space, of the votes of the neighbors of both, and of the linear predictions of both
but for those of classes. Any contrast is

    tau/2 * (log mean_k exp(M_ik / tau) + log mean_k exp(M_kj / tau)) - M_ij

where the two log means, the *hubs* of medium i and of caption j, are computed once for all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Ints
from audit_plugin.scoring import held_out, linear, neighbor_votes
from audit_plugin.scoring.contrast import FROZEN_TEMPERATURE, same_in_any
from audit_plugin.scoring.evidence import Evidence, Pair, text_sides
from audit_plugin.scoring.held_out import HeldOutEmbeddings, embed_held_out
from audit_plugin.scoring.linear import unit_predictions
from audit_plugin.scoring.neighbor_votes import NeighborVotes, votes_of_pair
from audit_plugin.scoring.scores import WEIGHTS, of_known, robust_scale

TRIALS = 32  # more change little, and each is read again
HUBS = 1024  # samples that the log means are taken over
BLOCK_ROWS = 512  # some 16 tables of so many x HUBS are in memory at once; changes no result
TEMPERATURES = {
    "contrast": held_out.TEMPERATURE,
    "zero_shot": FROZEN_TEMPERATURE,
    "neighbors_a": neighbor_votes.TEMPERATURE,
    "neighbors_b": neighbor_votes.TEMPERATURE,
    "linear_a": linear.TEMPERATURE,
    "linear_b": linear.TEMPERATURE,
}


@dataclass(frozen=True)
class Weighing:
    """What any pair of a medium and a caption is weighed with.

    Attributes:
        evidence: of the set.
        pair: the medium's modality and the text's.
        weights: kind of evidence -> its weight, above 0.
        votes: "neighbors_a": the media's neighbors on captions; "neighbors_b": the captions' neighbors on media.
        products: kind -> tables `[n, q]` of the media and of the captions whose inner products are its M.
        hubs: kind -> tau/2 * log means `[2, n]`, of the media and of the captions.
        own: kind -> contrast `[n]` of the pairs as they are.
        scale: kind -> (median, robust deviation) of `own`.
    """

    evidence: Evidence
    pair: Pair
    weights: Mapping[str, float]
    votes: Mapping[str, NeighborVotes]
    products: Mapping[str, tuple[Floats, Floats]]
    hubs: Mapping[str, Floats] = field(default_factory=dict)
    own: Mapping[str, Floats] = field(default_factory=dict)
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def text_pairs(evidence: Evidence) -> list[Pair]:
    """The pairs of a medium and a text, the text last."""
    sides = text_sides(evidence.modalities, evidence.text_modalities)
    return [evidence.pairs[at] if side else evidence.pairs[at][::-1] for at, side in sides.items()]


def weigh(evidence: Evidence, pair: Pair) -> Weighing:
    """Reads the trials for the hubs; O(r n HUBS o)."""
    position = _position(evidence, pair)
    products = _products(evidence, pair)
    defined = {"contrast", "neighbors_a", "neighbors_b", *products}
    weights = evidence.weights.get(evidence.pairs[position], WEIGHTS)
    weights = {kind: weight for kind, weight in weights.items() if weight > 0 and kind in defined}
    votes = {}
    if "neighbors_a" in weights:
        contrast = evidence.held_out["contrast"][position]
        both_sides = votes_of_pair(
            pair, evidence.neighbors, evidence.contents, evidence.projections, contrast, evidence.known
        )
        votes = {kind: side_votes for kind, _, _, side_votes in both_sides}
    products = {kind: tables for kind, tables in products.items() if kind in weights}
    without_hubs = Weighing(evidence, pair, weights, votes, products)
    hubs = _hubs(without_hubs)
    own = {kind: hubs[kind].sum(0) - similarity for kind, similarity in _own_similarities(without_hubs).items()}
    scale = {kind: robust_scale(of_known(values, evidence.known)) for kind, values in own.items()}
    return replace(without_hubs, hubs=hubs, own=own, scale=scale)


def _products(evidence: Evidence, pair: Pair) -> dict[str, tuple[Floats, Floats]]:
    """`Weighing.products`: of frozen encoders that share a space, and of linear predictions that are not of classes."""
    a, b = pair
    products = {}
    if sides := evidence.in_one_space(pair):
        products["zero_shot"] = sides
    names = evidence.pairs[_position(evidence, pair)]
    for kind, fit in evidence.linear_fits.get(names, {}).items():
        source, target = names if kind == "linear_a" else names[::-1]
        if target not in evidence.class_predictions:
            tables = {source: unit_predictions(fit), target: evidence.projections[target]}
            products[kind] = (tables[a], tables[b])
    return products


def _position(evidence: Evidence, pair: Pair) -> int:
    return next(position for position, names in enumerate(evidence.pairs) if set(names) == set(pair))


def _hubs(weighing: Weighing) -> dict[str, Floats]:
    """Kind of evidence -> hubs `[2, n]`. Samples that share a content or a group with a row are no rivals of it."""
    evidence = weighing.evidence
    n = len(evidence)
    pool = np.linspace(0, n - 1, min(HUBS, n)).astype(np.int64)  # the canonical order is that of digests: any rows
    columns = [evidence.contents[name] for name in weighing.pair] + [evidence.leave_together]
    shared_ids = torch.from_numpy(np.stack(columns, axis=1))
    blocks: dict[str, list[Floats]] = {kind: [] for kind in weighing.weights}
    hub_embeddings = embed_rows(weighing, pool)
    for rows in np.array_split(np.arange(n), range(BLOCK_ROWS, n, BLOCK_ROWS)):
        related = same_in_any(shared_ids[rows], shared_ids[pool]).numpy()
        embeddings = embed_rows(weighing, rows)
        forward = similarities(weighing, embeddings, hub_embeddings)
        backward = similarities(weighing, hub_embeddings, embeddings)
        for kind, kind_blocks in blocks.items():
            of_media = _half_log_mean(forward[kind], related, TEMPERATURES[kind])
            of_captions = _half_log_mean(backward[kind].T, related, TEMPERATURES[kind])
            kind_blocks.append(np.stack([of_media, of_captions]))
    return {kind: np.concatenate(kind_blocks, axis=1) for kind, kind_blocks in blocks.items()}


def _half_log_mean(similarity: Floats, related: Bools, tau: float) -> Floats:
    """float32 `[q]`: tau/2 * log mean exp(M / tau) over the known, unrelated ones of `[q, h]`; NaN without any."""
    known = np.isfinite(similarity) & ~related
    logits = np.where(known, similarity / tau, -np.inf)
    largest = logits.max(1, keepdims=True, initial=-1e30)
    with np.errstate(invalid="ignore", divide="ignore"):
        log_mean = largest[:, 0] + np.log(np.exp(logits - largest).sum(1) / known.sum(1))
    return (0.5 * tau * log_mean).astype(np.float32)


def _own_similarities(weighing: Weighing) -> dict[str, Floats]:
    """Kind of evidence -> M_ii `[n]`. A sample is no voter of its own."""
    evidence, (a, b) = weighing.evidence, weighing.pair
    own = {"contrast": evidence.held_out["cosine"][_position(evidence, weighing.pair)]}
    for kind, (of_media, of_captions) in weighing.products.items():
        own[kind] = np.einsum("nd,nd->n", of_media, of_captions)
    for kind, votes in weighing.votes.items():
        target = b if kind == "neighbors_a" else a
        own[kind] = np.einsum("nd,nd->n", votes.predictions, evidence.projections[target])
    return own


def similarities(weighing: Weighing, media: HeldOutEmbeddings, captions: HeldOutEmbeddings) -> dict[str, Floats]:
    """Kind of evidence -> M `[q, p]`: the media of q rows with the captions of p; NaN where no trial held out both."""
    evidence, (a, b) = weighing.evidence, weighing.pair
    rows, pool = media.rows, captions.rows
    by_kind = {"contrast": media.similarity(captions)}
    for kind, (of_media, of_captions) in weighing.products.items():
        by_kind[kind] = of_media[rows] @ of_captions[pool].T
    if weighing.votes:
        by_kind["neighbors_a"] = _vote_similarity(weighing.votes["neighbors_a"], evidence.projections[b], rows, pool)
        by_kind["neighbors_b"] = _vote_similarity(weighing.votes["neighbors_b"], evidence.projections[a], pool, rows).T
    return by_kind


def _vote_similarity(votes: NeighborVotes, target_vectors: Floats, rows: Ints, pool: Ints) -> Floats:
    """`[q, p]`: M_ik = <prediction_i, y_k> - sole_ik of the rows i and the pool's samples k, see `neighbor_votes`."""
    similarity = votes.predictions[rows] @ target_vectors[pool].T
    position = np.full(len(target_vectors) + 1, -1)  # in the pool; the last is for -1, no voter
    position[pool] = np.arange(len(pool))
    column = position[votes.voters[rows]]  # [q, k]
    row, voter = np.nonzero(column >= 0)
    np.subtract.at(similarity, (row, column[row, voter]), votes.sole_weights[rows][row, voter])
    return similarity


def suspicion(weighing: Weighing, media: HeldOutEmbeddings, captions: HeldOutEmbeddings) -> Floats:
    """float32 `[q, p]`: suspicion of the media of q rows with the captions of p; NaN where no trial held out both."""
    contrasts = similarities(weighing, media, captions)
    for kind, values in contrasts.items():  # in place: each is a large table
        media_hubs, caption_hubs = weighing.hubs[kind]
        np.subtract(media_hubs[media.rows][:, None] + caption_hubs[captions.rows], values, out=values)
    return _weighted_mean(contrasts, weighing)


def own_suspicion(weighing: Weighing) -> Floats:
    """float32 `[n]`: suspicion of the pairs as they are."""
    return _weighted_mean(weighing.own, weighing)


def weighted_sum(contrasts: Mapping[str, Floats], weighing: Weighing) -> Floats:
    """Weighted sum of the standardized contrasts, float32; evidence that a pair lacks counts as the median."""
    total = np.zeros(contrasts["contrast"].shape, np.float32)
    for kind, values in contrasts.items():
        median, deviation = weighing.scale[kind]
        total += weighing.weights[kind] * np.nan_to_num((values - median) / deviation)
    return total


def _weighted_mean(contrasts: Mapping[str, Floats], weighing: Weighing) -> Floats:
    mean = weighted_sum(contrasts, weighing) / np.float32(sum(weighing.weights[kind] for kind in contrasts))
    return np.where(np.isfinite(contrasts["contrast"]), mean, np.float32(np.nan))


def embed_rows(weighing: Weighing, rows: Ints) -> HeldOutEmbeddings:
    """The rows under at most `TRIALS` trials."""
    trials = weighing.evidence.required_trials
    a, b = (weighing.evidence.modalities.index(name) for name in weighing.pair)
    return embed_held_out(trials.embed, trials.member[:TRIALS], (a, b), rows)
