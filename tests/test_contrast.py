from __future__ import annotations

import numpy as np
import pytest
import torch

from audit_plugin.scoring import contrast as core
from audit_plugin.scoring.contrast import Negatives, all_log_means, draw_pool, embedding_contrast, make_negatives
from tests.core_fixtures import unit

N = 60
TAU = core.FROZEN_TEMPERATURE
NONE = np.zeros((0, 2), np.int64)


def sides(n: int = N, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, 6))
    left, right = (torch.from_numpy(unit(hidden + rng.standard_normal((n, 6)))) for _ in range(2))
    return left, right


def repeats_of(n: int = N) -> np.ndarray:
    """Two columns; rows 0 and 1 are the same, 2 and 3 share the first, 4 and 5 the second."""
    repeats = np.stack([np.arange(n), np.arange(n)], 1)
    repeats[1], repeats[3, 0], repeats[5, 1] = repeats[0], repeats[2, 0], repeats[4, 1]
    return repeats


def near_of(n: int = N) -> np.ndarray:
    near = np.random.default_rng(1).integers(-1, n, (n, 8))
    near[:, 4:] = near[:, :4]  # near in both modalities
    return near


def negatives_of(repeats: np.ndarray, near: np.ndarray, known: np.ndarray | None = None) -> Negatives:
    return make_negatives(repeats, near, np.ones(len(repeats), bool) if known is None else known, 3, "cpu")


def allowed(row: int, repeats: np.ndarray, known: np.ndarray | None = None) -> list[int]:
    return [k for k in range(len(repeats)) if (known is None or known[k]) and not (repeats[row] == repeats[k]).any()]


def naive(left: torch.Tensor, right: torch.Tensor, row: int, others: list[int]) -> float:
    """Log of the mean of exp(s / tau), one by one."""
    s = np.array([float(left[row].double() @ right[k].double()) for k in others])
    return float(np.logaddexp.reduce(s / TAU) - np.log(len(s)))


def with_owner(log_mean: float, own: float, copies: int, known: int = N, tau: float = TAU) -> float:
    """A probe pair's log mean: the true partner of i is a negative too, as often as the set has it."""
    return float(np.logaddexp(log_mean + np.log(known), own / tau + np.log(copies)) - np.log(known + copies))


def log_means(a: torch.Tensor, b: torch.Tensor, negatives: Negatives) -> core.LogMeans:
    """Of a plain matrix of cosines."""
    full = torch.cat([a @ b.T, torch.full((1, len(b)), -torch.inf)])

    def block_of(rows: torch.Tensor) -> core.SimilarityBlock:
        hard = negatives.hard[rows]
        parts = [m[rows][:, negatives.pool] for m in (full[:-1], full[:-1].T)]
        near = [m[rows[:, None], hard.clamp_min(0)].masked_fill(hard < 0, -torch.inf) for m in (full, full[:-1].T)]
        return core.SimilarityBlock(*parts, *near)

    return all_log_means(block_of, len(a), negatives, TAU)


@pytest.mark.parametrize("block", [7, 1024])
def test_contrast_is_the_double_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "BLOCK_ROWS", block)
    (a, b), repeats = sides(), repeats_of()
    probes = np.array([[0, 9], [7, 2]])
    own, probe = embedding_contrast(a, b, negatives_of(repeats, near_of()), probes, (0, 1))
    copies = [np.bincount(column)[column] for column in repeats.T]
    for row in range(N):
        others = allowed(row, repeats)
        want = TAU / 2 * (naive(a, b, row, others) + naive(b, a, row, others)) - float(a[row] @ b[row])
        assert own[row] == pytest.approx(want, abs=1e-5)
    for (i, j), got in zip(probes, probe, strict=True):
        forward = with_owner(naive(a, b, i, allowed(i, repeats)), float(a[i] @ b[i]), copies[1][i])
        backward = with_owner(naive(b, a, j, allowed(j, repeats)), float(a[j] @ b[j]), copies[0][j])
        assert got == pytest.approx(TAU / 2 * (forward + backward) - float(a[i] @ b[j]), abs=1e-5)


def test_arrays_of_different_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="nearest 5"):
        make_negatives(repeats_of(), near_of(5), np.ones(N, bool), 3, "cpu")
    with pytest.raises(ValueError, match="features of one space have one shape"):
        embedding_contrast(torch.eye(3), torch.eye(2), negatives_of(repeats_of(), near_of()), NONE, (0, 1))


def test_contrast_by_hand() -> None:
    # media on the axes, texts exchanged: own similarity 0, the one negative 1, both ways:
    # tau/2 * (1/tau + 1/tau) - 0 = 1. With the texts in place: tau/2 * 0 - 1 = -1.
    axes = torch.eye(2)
    negatives = negatives_of(np.arange(2)[:, None], np.full((2, 1), -1))
    for texts, value in ((axes.flip(0), 1.0), (axes, -1.0)):
        np.testing.assert_allclose(
            embedding_contrast(axes, texts, negatives, NONE, (0, 0))[0], [value, value], atol=1e-6
        )


def test_the_sampled_mean_takes_hard_negatives_once_and_the_rest_by_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "draw_pool", lambda rows, seed: draw_pool(rows, seed, 15))
    (a, b), repeats, near = sides(), repeats_of(), near_of()
    negatives = negatives_of(repeats, near)
    means = log_means(a, b, negatives)
    pool = set(negatives.pool.tolist())
    for row in range(N):
        able = set(allowed(row, repeats))
        hard = able & set(near[row].tolist())
        rest = able & pool - hard
        weight = (N - near.shape[1]) / len(pool)
        for left, right, got in ((a, b, means.forward), (b, a, means.backward)):
            sums = [sum(np.exp(float(left[row] @ right[k]) / TAU) for k in rows) for rows in (hard, rest)]
            mean = (sums[0] + weight * sums[1]) / (len(hard) + weight * len(rest))
            assert float(got[row]) == pytest.approx(np.log(mean), abs=2e-3)


def test_hard_negatives_bring_the_sampled_contrast_near_the_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 400
    a, b = sides(n)
    repeats = np.arange(n)[:, None]
    nearest = np.concatenate(
        [(m.fill_diagonal_(-9).topk(10, dim=1).indices).numpy() for m in (a @ b.T, (a @ b.T).T.clone())], axis=1
    )
    full = embedding_contrast(a, b, negatives_of(repeats, nearest), NONE, (0, 0))[0]
    monkeypatch.setattr(core, "draw_pool", lambda rows, seed: draw_pool(rows, seed, n // 4))
    near = embedding_contrast(a, b, negatives_of(repeats, nearest), NONE, (0, 0))[0]
    blind = embedding_contrast(a, b, negatives_of(repeats, nearest * 0 - 1), NONE, (0, 0))[0]
    assert np.abs(near - full).mean() < 0.005  # similarities range over 2
    assert np.abs(near - full).mean() < 0.25 * np.abs(blind - full).mean()


def test_samples_added_later_are_described_but_are_nobodys_negatives() -> None:
    (a, b), repeats, known = sides(), repeats_of(), np.arange(N) < 45
    got = embedding_contrast(a, b, negatives_of(repeats, near_of(), known), NONE, (0, 0))[0]
    before = embedding_contrast(a[:45], b[:45], negatives_of(repeats[:45], np.full((45, 1), -1)), NONE, (0, 0))[0]
    np.testing.assert_allclose(got[:45], before, atol=1e-5)
    for row in range(45, N):
        others = allowed(row, repeats, known)
        logs = naive(a, b, row, others) + naive(b, a, row, others)
        assert got[row] == pytest.approx(TAU / 2 * logs - float(a[row] @ b[row]), abs=1e-5)


def test_without_a_negative_the_contrast_is_nan() -> None:
    a, b = sides(6)
    together = negatives_of(np.zeros((6, 1), np.int64), np.full((6, 2), -1))
    assert np.isnan(embedding_contrast(a, b, together, NONE, (0, 0))[0]).all()


def test_contrasts_follow_their_rows() -> None:
    (a, b), repeats = sides(), repeats_of()
    order = np.random.default_rng(6).permutation(N)
    one = embedding_contrast(a, b, negatives_of(repeats, near_of()), NONE, (0, 0))[0]
    two = embedding_contrast(a[order], b[order], negatives_of(repeats[order], near_of()), NONE, (0, 0))[0]
    np.testing.assert_allclose(two, one[order], atol=1e-5)


def test_wrong_pairs_stand_out() -> None:
    rng = np.random.default_rng(5)
    x = torch.from_numpy(unit(rng.standard_normal((200, 8))))
    y = torch.from_numpy(unit(x.numpy() + 0.2 * rng.standard_normal((200, 8))))
    y[:10] = y[:10].roll(1, 0)
    got = embedding_contrast(x, y, negatives_of(np.arange(200)[:, None], np.full((200, 1), -1)), NONE, (0, 0))[0]
    assert got[:10].min() > got[10:].max()


def test_a_pool_is_a_seeded_part_or_everything() -> None:
    rows = np.arange(0, 300, 3)
    assert (draw_pool(rows, 0, 100) == rows).all()
    drawn = draw_pool(rows, 0, 40)
    assert len(set(drawn.tolist())) == 40
    assert (np.diff(drawn) > 0).all()
    assert set(drawn) <= set(rows)
    assert (draw_pool(rows, 0, 40) == drawn).all()
    assert (draw_pool(rows, 1, 40) != drawn).any()


def test_hard_negatives_are_distinct_known_and_no_repeats() -> None:
    known, repeats, near = np.arange(N) % 7 != 0, repeats_of(), near_of()
    usable = core._hard_negatives(near, repeats, known)
    for row, values in enumerate(usable):
        negatives = values[values >= 0].tolist()
        assert set(negatives) == set(near[row].tolist()) & set(allowed(row, repeats, known))
        assert len(negatives) == len(set(negatives))
