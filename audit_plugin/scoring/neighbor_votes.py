"""Neighbor votes: what the samples with a similar source say the target should be, contrastively normalized.

A sample i is a pair of a *source* (unit vector x_i) and a *target* (unit vector y_i). All samples with one source
content c vote together, for the mean of their targets:

    mean_c       = mean over samples j with source content c of y_j
    distrust_c   = mean over these j of clip(distrust_j, MIN_DISTRUST, MAX_DISTRUST)
    w_ic         = exp(cos(x_i, x_c) / KERNEL_TEMPERATURE - distrust_c) / Z_i     over the k nearest contents c != c(i)
    w_i0         = exp(1 / KERNEL_TEMPERATURE - distrust_c(i)) / Z_i              0 where nothing is in mean_i0
    prediction_i = sum_c w_ic mean_c + w_i0 mean_i0

where mean_i0 is the mean over the samples that share i's source content but not its target content (captions of one
picture); they vote like a content with cosine 1, and Z_i makes all weights of i sum to 1. distrust_c(i) is that of the
whole content, i's own included. Suspect voters count less, as in LEMoN (Zhang et al., arXiv 2407.18941). How well any
target k fits the prediction is

    M_ik = <prediction_i, y_k> - sole_ik,      sole_ik = w_ic if k is the only sample with source content c, else 0

since near samples would else vote for themselves. The evidence on a pair is the contrast of M (`contrast`), because
M_ii alone says as much about how ordinary a target is as about whether it is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Ints, Neighbors, check_lengths, dense_ids

from .contrast import Negatives, SimilarityBlock, all_log_means, contrast_with_probes, tensor
from .scores import of_known, robust_z

# All chosen on the development sets, see docs/detection.md.
TEMPERATURE = 1 / 20  # of the contrast; votes are means, flatter than the similarities of single pairs
KERNEL_TEMPERATURE = 0.07  # of the weights over neighbors
MIN_DISTRUST, MAX_DISTRUST = -2.0, 3.0  # robust deviations; beyond them a voter counts neither more nor less
BATCH_ROWS = 4096  # rows whose votes are collected at once; bounds the memory, changes no result


@dataclass(frozen=True)
class NeighborVotes:
    """What the neighbors of n samples on the source side say of the target side.

    Attributes:
        predictions: float32 `[n, d]`, prediction_i; zero where nothing votes. n: all samples, or those asked for.
        voters: int32 `[n, k]`, one sample of each voting content, -1 where there are fewer than k.
        weights: float32 `[n, k]`, w_ic of the voters; a row sums to 1 - w_i0.
        sole_weights: float32 `[n, k]`, the weight where the voter is the only sample with its content, else 0; the
            array `weights` itself where all are.
    """

    predictions: Floats
    voters: Ints
    weights: Floats
    sole_weights: Floats


def collect_votes(
    neighbors: Neighbors,
    source_content: Ints,
    target_content: Ints,
    target_vectors: Floats,
    distrust: Floats,
    rows: Ints | None = None,
) -> NeighborVotes:
    """Predictions of the targets by the neighbors on the source side; O(n k d).

    Args:
        neighbors: over distinct source contents, `[n, k]`, one sample (row) for each content.
        source_content: `[n]` content numbers, equal where samples share the source.
        target_content: `[n]` the same for the target.
        target_vectors: float32 `[n, d]`, unit rows; equal contents have equal vectors.
        distrust: `[n]`, how suspect a sample is itself, in robust deviations; NaN counts as 0.
        rows: `[u]`, samples whose votes are collected, or None: all.
    """
    from scipy.sparse import csr_array

    check_lengths(
        neighbors=neighbors.indices,
        source_content=source_content,
        target_content=target_content,
        target_vectors=target_vectors,
        distrust=distrust,
    )

    content_size, content_mean, content_distrust = _content_means(source_content, target_vectors, distrust)
    pair_ids = dense_ids(source_content, target_content)
    repeats = np.bincount(pair_ids)[pair_ids]  # [n] samples, itself included, with a sample's source and target
    count = len(source_content) if rows is None else len(rows)
    weights = np.empty((count, neighbors.indices.shape[1]), np.float32)
    is_sole = np.empty(weights.shape, bool)
    predictions = np.empty((count, target_vectors.shape[1]), target_vectors.dtype)
    for start in range(0, count, BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        batch = part if rows is None else rows[part]
        own = source_content[batch]  # [q]
        indices, cosines = neighbors.indices[batch], neighbors.similarities[batch]
        voting = source_content[np.maximum(indices, 0)]  # [q, k]
        others = content_size[own] - repeats[batch]  # [q] samples with the same source and another target

        # log w_ic up to the constant log Z_i; the last column is the sample's own content, with cosine 1.
        logits = np.where(indices >= 0, cosines / KERNEL_TEMPERATURE - content_distrust[voting], -np.inf)
        own_logit = np.where(others > 0, 1 / KERNEL_TEMPERATURE - content_distrust[own], -np.inf)
        shares = _softmax(np.concatenate([logits, own_logit[:, None]], axis=1))  # [q, k + 1]
        weights[part] = shares[:, :-1]
        is_sole[part] = content_size[voting] == 1

        # sum_c w_ic mean_c, as a sparse [q, C] times a dense [C, d]
        row = np.repeat(np.arange(len(own)), voting.shape[1])
        voting_weights = csr_array((weights[part].ravel(), (row, voting.ravel())), (len(own), len(content_mean)))
        # w_i0 mean_i0: the content's sum of targets without the sample's own, which stands in it `repeats` times
        others_sum = content_mean[own] * content_size[own, None] - repeats[batch, None] * target_vectors[batch]
        others_share = shares[:, -1] / np.maximum(others, 1)
        predictions[part] = voting_weights @ content_mean + others_sum * others_share[:, None]

    del content_mean  # before another large table is made
    sole_weights = weights if is_sole.all() else np.where(is_sole, weights, np.float32(0))
    voters = neighbors.indices if rows is None else neighbors.indices[rows]
    return NeighborVotes(predictions, voters, weights, sole_weights)


def _content_means(source_content: Ints, target_vectors: Floats, distrust: Floats) -> tuple[Ints, Floats, Floats]:
    """Per source content c: its number of samples `[C]`, mean target `[C, d]` and mean distrust `[C]`, bounded."""
    from scipy.sparse import csr_array

    size = np.bincount(source_content)
    member_share = (1 / size[source_content]).astype(np.float32)
    membership = csr_array(
        (member_share, (source_content, np.arange(len(source_content)))), (len(size), len(source_content))
    )
    clipped = np.clip(np.nan_to_num(distrust), MIN_DISTRUST, MAX_DISTRUST)
    return size, membership @ target_vectors, np.bincount(source_content, clipped) / size


def votes_of_pair(
    pair: tuple[str, str],
    neighbors: Mapping[str, Neighbors],
    contents: Mapping[str, Ints],
    target_vectors: Mapping[str, Floats],
    contrast: Floats,
    known: Bools | None,
) -> Iterator[tuple[str, str, str, NeighborVotes]]:
    """Yields (kind of evidence, source, target, votes): the neighbors of either modality of a pair on the other one.

    The arguments are those of `votes_of_side`.
    """
    for kind, (source, target) in (("neighbors_a", pair), ("neighbors_b", pair[::-1])):
        # in no variable of this function: the caller may drop them before the next ones are made
        yield kind, source, target, votes_of_side(source, target, neighbors, contents, target_vectors, contrast, known)


def votes_of_side(
    source: str,
    target: str,
    neighbors: Mapping[str, Neighbors],
    contents: Mapping[str, Ints],
    target_vectors: Mapping[str, Floats],
    contrast: Floats,
    known: Bools | None,
    rows: Ints | None = None,
) -> NeighborVotes:
    """The votes of the neighbors of one modality on another one; the mappings are by modality, see `collect_votes`.

    The `contrast` `[n]` of the pair under the trained heads (or without any the frozen encoders), on the scale of the
    `known` samples, is how much a sample is distrusted as a voter.
    """
    distrust = robust_z(contrast, of_known(contrast, known))
    return collect_votes(neighbors[source], contents[source], contents[target], target_vectors[target], distrust, rows)


def _softmax(logits: Floats) -> Floats:
    """Softmax of the rows `[q, k]`; zeros where a row has no finite entry."""
    largest = logits.max(1, keepdims=True, initial=-1e30)  # finite, so that a row of -inf gives exp(-inf) = 0
    weight = np.exp(logits - largest)
    return weight / np.maximum(weight.sum(1, keepdims=True), 1e-30)


def vote_contrast(
    votes: NeighborVotes, target_vectors: Floats, negatives: Negatives, probes: Ints, content_columns: tuple[int, int]
) -> tuple[Floats, Floats]:
    """(contrast of each sample's own pair `[n]`, of the probe pairs `[q]`) under the votes; NaN without a voter.

    `target_vectors` are those that the votes of the source side were collected on; `probes` `[q, 2]` are rows (i, j),
    i's source with j's target; the rest is as in `contrast_with_probes`. ValueError when votes, vectors and negatives
    are not of the same samples.
    """
    n = len(votes.predictions)
    if votes.predictions.shape != target_vectors.shape or len(negatives.repeats) != n:
        raise ValueError(
            f"predictions {votes.predictions.shape}, target vectors {target_vectors.shape} and "
            f"{len(negatives.repeats)} negatives are not of the same samples"
        )
    device = negatives.pool.device
    parts = (votes.predictions, target_vectors, votes.voters, votes.sole_weights)
    similarity = _VoteSimilarity(*(tensor(values, device) for values in parts))
    log_means = all_log_means(lambda rows: similarity.block(rows, negatives), n, negatives, TEMPERATURE)

    own = (similarity.predictions * similarity.targets).sum(1)  # M_ii: a sample is no voter of its own
    left, right = tensor(probes[:, 0], device), tensor(probes[:, 1], device)
    probe = (similarity.predictions[left] * similarity.targets[right]).sum(1)
    probe -= similarity.sole(left, right[:, None])[:, 0]  # M_ij

    silent = (similarity.predictions == 0).all(1)  # nothing voted
    own[silent] = torch.nan
    probe[silent[left]] = torch.nan
    return contrast_with_probes(log_means, own, probe, probes, negatives, content_columns)


@dataclass(frozen=True)
class _VoteSimilarity:
    """The matrix M in parts, as tensors: `predictions` and `targets` `[n, d]`, `voters` and `sole_weights` `[n, k]`."""

    predictions: torch.Tensor
    targets: torch.Tensor
    voters: torch.Tensor
    sole_weights: torch.Tensor

    def block(self, rows: torch.Tensor, negatives: Negatives) -> SimilarityBlock:
        """M[rows, .] and M[., rows] for q rows, ascending, with the P samples of the pool and h hard negatives."""
        pool, hard = negatives.pool, negatives.hard[rows].long()
        forward = self.predictions[rows] @ self.targets[pool].T  # [q, P]
        self._subtract_sole(forward, rows, pool)
        backward = self.targets[rows] @ self.predictions[pool].T  # [q, P]
        self._subtract_sole(backward.T, pool, rows)

        candidates = hard.clamp_min(0)  # [q, h]
        forward_hard = torch.einsum("qd,qhd->qh", self.predictions[rows], self.targets[candidates])
        forward_hard -= self.sole(rows, candidates)
        backward_hard = torch.einsum("qd,qhd->qh", self.targets[rows], self.predictions[candidates])
        is_voter = self.voters[candidates] == rows[:, None, None]  # [q, h, k]
        backward_hard -= (self.sole_weights[candidates] * is_voter).sum(2)
        return SimilarityBlock(forward, backward, forward_hard, backward_hard)

    def sole(self, rows: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """`[q, h]`: sole_ik of the rows `[q]` and their candidates `[q, h]`."""
        is_voter = self.voters[rows, None, :] == candidates[:, :, None]  # [q, h, k]
        return (self.sole_weights[rows, None, :] * is_voter).sum(2)

    def _subtract_sole(self, similarity: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> None:
        """Subtracts sole_ik from `similarity` `[q, c]`, in place; `columns` ascending. O(q k log c), not O(q k c)."""
        voters = self.voters[rows].long()  # [q, k]
        position = torch.searchsorted(columns, voters).clamp_max(len(columns) - 1)
        row, voter = torch.nonzero(columns[position] == voters, as_tuple=True)
        weights = self.sole_weights[rows][row, voter]
        similarity.index_put_((row, position[row, voter]), -weights, accumulate=True)
