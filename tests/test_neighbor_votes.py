from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from audit_plugin.arrays import Neighbors
from audit_plugin.neighbors import exact_search
from audit_plugin.scoring import contrast, neighbor_votes
from audit_plugin.scoring.contrast import Negatives, draw_pool, make_negatives
from audit_plugin.scoring.neighbor_votes import (
    KERNEL_TEMPERATURE,
    MAX_DISTRUST,
    MIN_DISTRUST,
    TEMPERATURE,
    NeighborVotes,
    collect_votes,
    vote_contrast,
)
from tests.core_fixtures import unit
from tests.test_contrast import with_owner

N, K = 40, 6


@dataclass(frozen=True)
class World:
    """Samples with repeated contents: 0, 1 and 2 share the source; 5 and 6 are the same on both sides."""

    y: np.ndarray
    source: np.ndarray
    target: np.ndarray
    neighbors: Neighbors
    distrust: np.ndarray

    def votes(self) -> NeighborVotes:
        return collect_votes(self.neighbors, self.source, self.target, self.y, self.distrust)


def world(seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((N, 4))
    x, y = (unit(truth + 0.5 * rng.standard_normal((N, 4))).astype(np.float32) for _ in range(2))
    source, target = np.arange(N), np.arange(N)
    x[1:3], source[1:3] = x[0], 0
    x[6], y[6], source[6], target[6] = x[5], y[5], 5, 5
    source, target = (np.unique(v, return_inverse=True)[1] for v in (source, target))
    first = np.unique(source, return_index=True)[1]  # one row of each content
    nearest = exact_search(x[first], K)
    neighbors = Neighbors(first[nearest.indices][source], nearest.similarities[source])
    return World(y, source, target, neighbors, 3 * rng.standard_normal(N))


def naive_prediction(w: World, i: int) -> tuple[np.ndarray, dict[int, float]]:
    """(prediction_i, voting content c -> w_ic), content by content, in the symbols of the module."""
    distrust = np.clip(w.distrust, MIN_DISTRUST, MAX_DISTRUST)
    mean, logit = {}, {}
    for voter, cosine in zip(w.neighbors.indices[i], w.neighbors.similarities[i], strict=True):
        c = w.source[voter]
        members = np.flatnonzero(w.source == c)
        mean[c] = w.y[members].mean(0)
        logit[c] = cosine / KERNEL_TEMPERATURE - distrust[members].mean()
    others = np.flatnonzero((w.source == w.source[i]) & (w.target != w.target[i]))
    if len(others):
        own = w.source[i]
        mean[own] = w.y[others].mean(0)
        logit[own] = 1 / KERNEL_TEMPERATURE - distrust[w.source == own].mean()
    z = sum(np.exp(value) for value in logit.values())
    weight = {c: np.exp(value) / z for c, value in logit.items()}
    return sum(weight[c] * mean[c] for c in mean), weight


def similarity_matrix(w: World, votes: NeighborVotes) -> np.ndarray:
    """M `[n, n]`: <prediction_i, y_k> less w_ic where k is the only sample of a voting content c."""
    size = np.bincount(w.source)
    m = votes.predictions @ w.y.T
    for i in range(N):
        for voter, weight in zip(votes.voters[i], votes.weights[i], strict=True):
            if size[w.source[voter]] == 1:
                m[i, voter] -= weight
    return m


def negatives_of(repeats: np.ndarray, near: np.ndarray | None = None) -> Negatives:
    near = np.full((len(repeats), 1), -1) if near is None else near
    return make_negatives(repeats, near, np.ones(len(repeats), bool), 3, "cpu")


@pytest.mark.parametrize("batch", [7, 16_384])
def test_a_prediction_is_the_weighted_mean_over_contents(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbor_votes, "BATCH_ROWS", batch)
    w = world()
    votes = w.votes()
    for i in range(N):
        prediction, weight = naive_prediction(w, i)
        np.testing.assert_allclose(votes.predictions[i], prediction, atol=1e-5)
        np.testing.assert_allclose(votes.weights[i], [weight[w.source[j]] for j in votes.voters[i]], atol=1e-5)
        rest = weight.get(w.source[i], 0.0)
        assert votes.weights[i].sum() == pytest.approx(1 - rest, abs=1e-5)
    size = np.bincount(w.source)[w.source]
    np.testing.assert_array_equal(votes.sole_weights, np.where(size[votes.voters] == 1, votes.weights, 0))
    assert (size[votes.voters] > 1).any()


def test_a_prediction_by_hand() -> None:
    # Two equally near, equally trusted voters with targets on the axes: the prediction is halfway between.
    y = np.eye(3, dtype=np.float32)
    neighbors = Neighbors(np.array([[1, 2], [-1, -1], [-1, -1]]), np.array([[0.5, 0.5]] + [[np.nan] * 2] * 2))
    votes = collect_votes(neighbors, np.arange(3), np.arange(3), y, np.zeros(3))
    np.testing.assert_allclose(votes.predictions, [[0, 0.5, 0.5], [0, 0, 0], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(votes.sole_weights, [[0.5, 0.5], [0, 0], [0, 0]], atol=1e-6)


@pytest.mark.parametrize("pool", [None, 15])
def test_vote_contrast_is_the_double_loop(pool: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if pool:
        monkeypatch.setattr(contrast, "draw_pool", lambda rows, seed: draw_pool(rows, seed, pool))
    w = world()
    votes = w.votes()
    repeats = np.stack([w.source, w.target], 1)
    negatives = negatives_of(repeats, np.tile(np.arange(N), (N, 1)) if pool else None)  # all hard: the sample is exact
    probes = np.array([[3, 9], [8, int(votes.voters[8, 0])]])
    own, probe = vote_contrast(votes, w.y, negatives, probes, (0, 1))
    m = similarity_matrix(w, votes)

    def log_mean(row: int, values: np.ndarray) -> float:
        unrelated = [values[k] for k in range(N) if not (repeats[row] == repeats[k]).any()]
        return float(np.logaddexp.reduce(np.array(unrelated) / TEMPERATURE) - np.log(len(unrelated)))

    expected = [TEMPERATURE / 2 * (log_mean(i, m[i]) + log_mean(i, m[:, i])) - m[i, i] for i in range(N)]
    np.testing.assert_allclose(own, expected, atol=1e-4)
    for (i, j), value in zip(probes, probe, strict=True):
        forward = with_owner(log_mean(i, m[i]), m[i, i], np.bincount(w.target)[w.target[i]], N, TEMPERATURE)
        backward = with_owner(log_mean(j, m[:, j]), m[j, j], np.bincount(w.source)[w.source[j]], N, TEMPERATURE)
        assert value == pytest.approx(TEMPERATURE / 2 * (forward + backward) - m[i, j], abs=1e-4)


def test_suspects_count_less() -> None:
    w = world()
    suspect = np.zeros(N)
    suspect[10] = 3.0
    trusted, wary = replace(w, distrust=np.zeros(N)).votes(), replace(w, distrust=suspect).votes()
    by_suspect = (trusted.voters == 10) & (trusted.weights > 0)
    assert by_suspect.any()
    assert (wary.weights[by_suspect] < trusted.weights[by_suspect]).all()


def test_distrust_is_clipped_and_nan_is_none() -> None:
    w = world()
    for value, same in ((1e6, MAX_DISTRUST), (-1e6, MIN_DISTRUST), (np.nan, 0.0)):
        changed, clipped = np.zeros(N), np.zeros(N)
        changed[10], clipped[10] = value, same
        one, other = replace(w, distrust=changed).votes(), replace(w, distrust=clipped).votes()
        np.testing.assert_array_equal(one.predictions, other.predictions)


def test_neighbors_that_disagree_raise_suspicion() -> None:
    rng = np.random.default_rng(3)
    truth = np.repeat(rng.standard_normal((20, 8)), 10, axis=0)  # 20 kinds of ten
    x, y = (unit(truth + 0.3 * rng.standard_normal(truth.shape)).astype(np.float32) for _ in range(2))
    y[[0, 50, 100]] = y[[50, 100, 0]]
    rows = np.arange(len(x))
    votes = collect_votes(exact_search(x, 9), rows, rows, y, np.zeros(len(x)))
    own, _ = vote_contrast(votes, y, negatives_of(rows[:, None]), np.zeros((0, 2), np.int64), (0, 0))
    assert np.sort(own)[-3] == pytest.approx(own[[0, 50, 100]].min())


def test_without_voters_there_is_no_evidence() -> None:
    w = world()
    nobody = Neighbors(np.full((N, 2), -1), np.full((N, 2), np.nan, np.float32))
    content = np.arange(N)
    votes = collect_votes(nobody, content, content, w.y, np.zeros(N))
    own, probe = vote_contrast(votes, w.y, negatives_of(content[:, None]), np.array([[0, 1]]), (0, 0))
    assert np.isnan(own).all()
    assert np.isnan(probe).all()


def test_arrays_of_different_samples_are_refused() -> None:
    w = world()
    with pytest.raises(ValueError, match="distrust 39"):
        replace(w, distrust=w.distrust[1:]).votes()
    with pytest.raises(ValueError, match="not of the same samples"):
        vote_contrast(w.votes(), w.y[1:], negatives_of(w.source[:, None]), np.zeros((0, 2), np.int64), (0, 0))
