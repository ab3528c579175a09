from __future__ import annotations

import numpy as np
import pytest

from audit_plugin.arrays import Neighbors
from audit_plugin.neighbors import exact_search
from audit_plugin.scoring import contrast
from audit_plugin.scoring import neighbor_votes as votes
from audit_plugin.scoring.contrast import draw_pool, make_negatives
from audit_plugin.scoring.neighbor_votes import KERNEL, TEMPERATURE, collect_votes, vote_contrast
from tests.core_fixtures import unit
from tests.test_contrast import with_owner

N, K = 40, 6


def world(seed: int = 0) -> dict[str, np.ndarray | Neighbors]:
    """Two sides with repeated contents: 0, 1 and 2 share side a; 5 and 6 are the same on both sides."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((N, 4))
    a, b = (unit(truth + 0.5 * rng.standard_normal((N, 4))).astype(np.float32) for _ in range(2))
    near, other = np.arange(N), np.arange(N)
    a[1:3], near[1:3] = a[0], 0
    a[6], b[6], near[6], other[6] = a[5], b[5], 5, 5
    near, other = (np.unique(v, return_inverse=True)[1] for v in (near, other))
    first = np.unique(near, return_index=True)[1]
    found = exact_search(a[first], K)
    indices = first[found.indices][near]
    return {"b": b, "near": near, "other": other, "found": Neighbors(indices, found.similarities[near]),
            "doubt": rng.standard_normal(N)}  # fmt: skip


def cast(w: dict) -> votes.NeighborVotes:
    return collect_votes(w["found"], w["near"], w["other"], w["b"], w["doubt"])


def naive_vote(w: dict, i: int) -> tuple[np.ndarray, dict[int, float]]:
    """(prediction, content -> weight) with the contents walked over one by one."""
    near, other, b, doubt = w["near"], w["other"], w["b"], np.clip(w["doubt"], -2, 3)
    means, logits = {}, {}
    for at, cosine in zip(w["found"].indices[i], w["found"].similarities[i], strict=True):
        rows = np.flatnonzero(near == near[at])
        means[near[at]], logits[near[at]] = b[rows].mean(0), cosine / KERNEL - doubt[rows].mean()
    rows = np.flatnonzero((near == near[i]) & (other != other[i]))
    if len(rows):
        means[near[i]] = b[rows].mean(0)
        logits[near[i]] = 1 / KERNEL - doubt[near == near[i]].mean()
    total = sum(np.exp(v) for v in logits.values())
    weight = {c: np.exp(v) / total for c, v in logits.items()}
    return sum(weight[c] * means[c] for c in means), weight


def test_a_vote_is_the_weighted_mean_over_contents() -> None:
    w = world()
    got = cast(w)
    for i in range(N):
        want, weight = naive_vote(w, i)
        np.testing.assert_allclose(got.prediction[i], want, atol=1e-5)
        np.testing.assert_allclose(got.weight[i], [weight[w["near"][j]] for j in got.voter[i]], atol=1e-5)
    assert (got.alone[got.voter == 0] == 0).all()  # its content is that of three samples


@pytest.mark.parametrize("pool", [None, 15])
def test_vote_contrast_is_the_double_loop(pool: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if pool:
        monkeypatch.setattr(contrast, "draw_pool", lambda rows, seed: draw_pool(rows, seed, pool))
    w = world()
    got, near, other = cast(w), w["near"], w["other"]
    repeats = np.stack([near, other], 1)
    every = np.tile(np.arange(N), (N, 1)) if pool else np.full((N, 1), -1)  # all of them hard: the sample is exact
    negatives = make_negatives(repeats, every, np.ones(N, bool), 3, "cpu")
    plants = np.array([[3, 9], [8, int(got.voter[8, 0])]])
    own, planted = vote_contrast(got, w["b"], negatives, plants, (0, 1))
    m = got.prediction @ w["b"].T
    for i in range(N):
        for at, weight in zip(got.voter[i], got.alone[i], strict=True):
            m[i, at] -= weight

    def log_mean(row: int, values: np.ndarray) -> float:
        use = [values[k] for k in range(N) if not (repeats[row] == repeats[k]).any()]
        return float(np.logaddexp.reduce(np.array(use) / TEMPERATURE) - np.log(len(use)))

    want = [TEMPERATURE / 2 * (log_mean(i, m[i]) + log_mean(i, m[:, i])) - m[i, i] for i in range(N)]
    np.testing.assert_allclose(own, want, atol=1e-4)
    for (i, j), value in zip(plants, planted, strict=True):
        forward = with_owner(log_mean(i, m[i]), m[i, i], np.bincount(other)[other[i]], N, TEMPERATURE)
        backward = with_owner(log_mean(j, m[:, j]), m[j, j], np.bincount(near)[near[j]], N, TEMPERATURE)
        assert value == pytest.approx(TEMPERATURE / 2 * (forward + backward) - m[i, j], abs=1e-4)


def test_suspects_count_less() -> None:
    w = world()
    calm = cast({**w, "doubt": np.zeros(N)})
    loud = np.zeros(N)
    loud[10] = 3.0
    wary = cast({**w, "doubt": loud})
    at = (calm.voter == 10) & (calm.weight > 0)
    assert at.any()
    assert (wary.weight[at] < calm.weight[at]).all()


def test_neighbors_who_say_otherwise_raise_suspicion() -> None:
    rng = np.random.default_rng(3)
    truth = np.repeat(rng.standard_normal((20, 8)), 10, axis=0)  # 20 kinds of ten
    a, b = (unit(truth + 0.3 * rng.standard_normal(truth.shape)).astype(np.float32) for _ in range(2))
    b[[0, 50, 100]] = b[[50, 100, 0]]
    rows = np.arange(len(a))
    got = collect_votes(exact_search(a, 9), rows, rows, b, np.zeros(len(a)))
    negatives = make_negatives(rows[:, None], np.full((len(a), 1), -1), np.ones(len(a), bool), 0, "cpu")
    own, _ = vote_contrast(got, b, negatives, np.zeros((0, 2), np.int64), (0, 0))
    assert np.sort(own)[-3] == pytest.approx(own[[0, 50, 100]].min())


def test_nobody_to_vote_is_no_evidence() -> None:
    w = world()
    lonely = Neighbors(np.full((N, 2), -1), np.full((N, 2), np.nan, np.float32))
    alone = np.arange(N)
    got = collect_votes(lonely, alone, alone, w["b"], np.zeros(N))
    negatives = make_negatives(alone[:, None], np.full((N, 1), -1), np.ones(N, bool), 0, "cpu")
    own, planted = vote_contrast(got, w["b"], negatives, np.array([[0, 1]]), (0, 0))
    assert np.isnan(own).all()
    assert np.isnan(planted).all()
