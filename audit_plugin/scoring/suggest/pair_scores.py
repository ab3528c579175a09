"""How well a medium fits a caption that is not its own, weighed as the misalignment of the set's own pairs is.

The *suspicion* of a pair (i, j) is the weighted mean of its evidence, each in robust deviations of the set's own pairs
(0: the set's median) and with the weights of their misalignment: the contrast of the mean held-out similarity, of the
frozen encoders where they share a space, of the votes of the neighbors of both, and of the linear predictions of both
but for those of classes. Any contrast is

    tau/2 * (log mean_k exp(M_ik / tau) + log mean_k exp(M_kj / tau)) - M_ij

where the two log means, the *hubs* of medium i and of caption j, are computed once for all pairs. What M is made of
besides the trials (`Tables`) is large: of all samples it is there for one kind of evidence at a time, then of the
samples alone whose pairs are weighed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Ints
from audit_plugin.scoring import held_out, linear, neighbor_votes
from audit_plugin.scoring.contrast import FROZEN_TEMPERATURE, same_in_any
from audit_plugin.scoring.evidence import Evidence, Pair, text_sides
from audit_plugin.scoring.held_out import HeldOutEmbeddings, embed_held_out
from audit_plugin.scoring.linear import unit_predictions
from audit_plugin.scoring.neighbor_votes import NeighborVotes, votes_of_side
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
class Tables:
    """What M of one kind of evidence is made of, for u samples: M_ik = <media_i, captions_k> less a sole voter's share.

    Attributes:
        rows: `[u]`, the samples, ascending.
        media: float32 `[u, q]`; captions: the same.
        votes: of the side that predicts the other one, `[u]`; None where no neighbors vote. A sample has no voice on
            itself: what it alone says of a neighbor is taken off.
        by_media: whether the media's neighbors vote; else the captions'.
    """

    rows: Ints
    media: Floats
    captions: Floats
    votes: NeighborVotes | None = None
    by_media: bool = True

    def similarity(self, media: Ints, captions: Ints) -> Floats:
        """float32 `[q, p]`: M of q media with p captions, numbers of samples that are among the rows."""
        medium, caption = self._places(media), self._places(captions)
        similarity = self.media[medium] @ self.captions[caption].T
        if self.votes is not None and self.by_media:
            _subtract_sole(similarity, self.votes, medium, captions)
        elif self.votes is not None:
            _subtract_sole(similarity.T, self.votes, caption, media)
        return similarity

    def _places(self, samples: Ints) -> Ints:
        """Where the samples are among the rows; ValueError if one is not."""
        places = np.minimum(np.searchsorted(self.rows, samples), len(self.rows) - 1)
        if not np.array_equal(self.rows[places], samples):
            raise ValueError("the tables are of other samples: name all that are compared in with_tables")
        return places


@dataclass(frozen=True)
class Weighing:
    """What any pair of a medium and a caption is weighed with.

    Attributes:
        evidence: of the set.
        pair: the medium's modality and the text's.
        weights: kind of evidence -> its weight, above 0.
        hubs: kind -> tau/2 * log means `[2, n]`, of the media and of the captions.
        own: kind -> contrast `[n]` of the pairs as they are.
        scale: kind -> (median, robust deviation) of `own`.
        tables: kind -> what its M is made of, of the samples that `with_tables` named; of "contrast" there is none.
    """

    evidence: Evidence
    pair: Pair
    weights: Mapping[str, float]
    hubs: Mapping[str, Floats] = field(default_factory=dict)
    own: Mapping[str, Floats] = field(default_factory=dict)
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    tables: Mapping[str, Tables] = field(default_factory=dict)


def text_pairs(evidence: Evidence) -> list[Pair]:
    """The pairs of a medium and a text, the text last."""
    sides = text_sides(evidence.modalities, evidence.text_modalities)
    return [evidence.pairs[at] if side else evidence.pairs[at][::-1] for at, side in sides.items()]


def weigh(evidence: Evidence, pair: Pair) -> Weighing:
    """Reads the trials for the hubs; O(r n HUBS o). Before pairs are weighed, `with_tables` names their samples."""
    position = _position(evidence, pair)
    weights = evidence.weights.get(evidence.pairs[position], WEIGHTS)
    weights = {kind: weight for kind, weight in weights.items() if weight > 0 and _is_defined(evidence, pair, kind)}
    bare, hubs, own = Weighing(evidence, pair, weights), {}, {}
    for kind in weights:
        hubs[kind], similarity = _hubs(bare, kind)
        own[kind] = hubs[kind].sum(0) - similarity
    scale = {kind: robust_scale(of_known(values, evidence.known)) for kind, values in own.items()}
    return replace(bare, hubs=hubs, own=own, scale=scale)


def with_tables(weighing: Weighing, rows: Ints) -> Weighing:
    """The same, with the tables of some samples (their numbers, in any order), whose pairs can then be weighed."""
    rows = np.unique(rows)
    kinds = [kind for kind in weighing.weights if kind != "contrast"]
    return replace(weighing, tables={kind: _tables(weighing.evidence, weighing.pair, kind, rows) for kind in kinds})


def _is_defined(evidence: Evidence, pair: Pair, kind: str) -> bool:
    """Whether there is this evidence on a pair; the linear predictions of classes say nothing of single captions."""
    if kind == "zero_shot":
        return evidence.in_one_space(pair) is not None
    if kind in ("linear_a", "linear_b"):
        names = evidence.pairs[_position(evidence, pair)]
        target = names[1] if kind == "linear_a" else names[0]
        return kind in evidence.linear_fits.get(names, {}) and target not in evidence.class_predictions
    return True


def _tables(evidence: Evidence, pair: Pair, kind: str, rows: Ints) -> Tables:
    """Those of a kind of evidence but "contrast", for samples in ascending order."""
    everything = len(rows) == len(evidence)

    def taken(values: Floats) -> Floats:
        return values if everything else values[rows]

    if kind == "zero_shot":
        sides = evidence.in_one_space(pair)
        assert sides is not None  # or the kind has no weight
        return Tables(rows, taken(sides[0]), taken(sides[1]))
    if kind in ("linear_a", "linear_b"):
        names = evidence.pairs[_position(evidence, pair)]
        source, target = names if kind == "linear_a" else names[::-1]
        fit = evidence.linear_fits[names][kind]
        sides_of = {source: unit_predictions(fit, rows), target: taken(evidence.projections[target])}
        return Tables(rows, sides_of[pair[0]], sides_of[pair[1]])
    by_media = kind == "neighbors_a"
    source, target = pair if by_media else pair[::-1]
    contrast = evidence.held_out["contrast"][_position(evidence, pair)]
    votes = votes_of_side(
        source,
        target,
        evidence.neighbors,
        evidence.contents,
        evidence.projections,
        contrast,
        evidence.known,
        None if everything else rows,
    )
    sides_of = {source: votes.predictions, target: taken(evidence.projections[target])}
    return Tables(rows, sides_of[pair[0]], sides_of[pair[1]], votes, by_media)


def _subtract_sole(similarity: Floats, votes: NeighborVotes, at: Ints, candidates: Ints) -> None:
    """Takes off, in place, sole_ik of the votes at `[q]` and the candidates k `[p]`: `[q, p]`, see `neighbor_votes`."""
    voters = votes.voters[at]  # [q, k]
    position = np.full(max(int(candidates.max(initial=-1)), int(voters.max(initial=-1))) + 2, -1)
    position[candidates] = np.arange(len(candidates))  # the last stays -1: no voter is numbered -1
    column = position[voters]
    row, voter = np.nonzero(column >= 0)
    np.subtract.at(similarity, (row, column[row, voter]), votes.sole_weights[at][row, voter])


def _position(evidence: Evidence, pair: Pair) -> int:
    return next(position for position, names in enumerate(evidence.pairs) if set(names) == set(pair))


Compare = Callable[[Ints], tuple[Floats, Floats]]  # q samples -> M of their media with the pool, of the pool with them


def _hubs(bare: Weighing, kind: str) -> tuple[Floats, Floats]:
    """(hubs `[2, n]`, M_ii `[n]`) of a kind of evidence. What shares a content or a group with a row is no rival."""
    evidence, (a, b) = bare.evidence, bare.pair
    n = len(evidence)
    pool = np.linspace(0, n - 1, min(HUBS, n)).astype(np.int64)  # the canonical order is that of digests: any rows
    if kind == "contrast":
        compare = _compare_held_out(bare, pool)
        own = evidence.held_out["cosine"][_position(evidence, bare.pair)]
    else:
        tables = _tables(evidence, bare.pair, kind, np.arange(n))
        compare = _compare_tables(tables, pool)
        own = np.einsum("nd,nd->n", tables.media, tables.captions)  # a sample is no voter of its own
    shared_ids = torch.from_numpy(np.stack([evidence.contents[a], evidence.contents[b], evidence.leave_together], 1))
    hubs = np.empty((2, n), np.float32)
    for rows in np.array_split(np.arange(n), range(BLOCK_ROWS, n, BLOCK_ROWS)):
        related = same_in_any(shared_ids[rows], shared_ids[pool]).numpy()
        forward, backward = compare(rows)
        hubs[0, rows] = _half_log_mean(forward, related, TEMPERATURES[kind])
        hubs[1, rows] = _half_log_mean(backward.T, related, TEMPERATURES[kind])
    return hubs, own


def _compare_held_out(bare: Weighing, pool: Ints) -> Compare:
    of_pool = embed_rows(bare, pool)

    def compare(rows: Ints) -> tuple[Floats, Floats]:
        of_rows = embed_rows(bare, rows)
        return of_rows.similarity(of_pool), of_pool.similarity(of_rows)

    return compare


def _compare_tables(tables: Tables, pool: Ints) -> Compare:
    return lambda rows: (tables.similarity(rows, pool), tables.similarity(pool, rows))


def _half_log_mean(similarity: Floats, related: Bools, tau: float) -> Floats:
    """float32 `[q]`: tau/2 * log mean exp(M / tau) over the known, unrelated ones of `[q, h]`; NaN without any."""
    known = np.isfinite(similarity) & ~related
    logits = np.where(known, similarity / tau, -np.inf)
    largest = logits.max(1, keepdims=True, initial=-1e30)
    with np.errstate(invalid="ignore", divide="ignore"):
        log_mean = largest[:, 0] + np.log(np.exp(logits - largest).sum(1) / known.sum(1))
    return (0.5 * tau * log_mean).astype(np.float32)


def similarities(weighing: Weighing, media: HeldOutEmbeddings, captions: HeldOutEmbeddings) -> dict[str, Floats]:
    """Kind of evidence -> M `[q, p]`: the media of q rows with the captions of p; NaN where no trial held out both.

    The rows must be among those of the tables.
    """
    kinds = [kind for kind in weighing.weights if kind != "contrast"]
    of_tables = {kind: weighing.tables[kind].similarity(media.rows, captions.rows) for kind in kinds}
    return {"contrast": media.similarity(captions), **of_tables}


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
