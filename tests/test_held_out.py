from __future__ import annotations

import numpy as np
import pytest
import torch

from audit_plugin import held_out
from audit_plugin.held_out import (
    CSLS_NEIGHBORS,
    MEASURES,
    TEMPERATURE,
    Negatives,
    compare,
    describe_trial,
    draw_pool,
    reference_fit,
    zero_shot,
)
from tests.core_fixtures import unit

N = 60


def sides(n: int = N, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, 6))
    return tuple(torch.from_numpy(unit(hidden + rng.standard_normal((n, 6)))) for _ in range(2))  # type: ignore[return-value]


def setting(n: int = N) -> tuple[np.ndarray, np.ndarray, Negatives]:
    """(member, repeats, negatives): two columns of repeats, and as hard ones each row's nearest on both sides."""
    rng = np.random.default_rng(1)
    repeats = np.stack([np.arange(n), np.arange(n)], 1)
    repeats[1], repeats[3, 0], repeats[5, 1] = repeats[0], repeats[2, 0], repeats[4, 1]
    hard = rng.integers(-1, n, (n, 8))
    hard[:, 4:] = hard[:, :4]  # near in both modalities
    member = rng.random(n) < 0.4
    negatives = Negatives(torch.from_numpy(repeats.astype(np.int32)), torch.from_numpy(hard), seed=3)
    return member, repeats, negatives


def own_negatives(row: int, member: np.ndarray, repeats: np.ndarray) -> list[int]:
    return [k for k in range(len(member)) if not member[k] and not (repeats[row] == repeats[k]).any()]


def naive(left: torch.Tensor, right: torch.Tensor, row: int, member: np.ndarray, repeats: np.ndarray,
          temperature: float = TEMPERATURE) -> tuple:  # fmt: skip
    """(log mean of exp(s / tau), mean of the ten highest s) over all negatives, one by one."""
    s = [float(left[row].double() @ right[k].double()) for k in own_negatives(row, member, repeats)]
    if not s:
        return -np.inf, 0.0
    log_mean = np.logaddexp.reduce(np.array(s) / temperature) - np.log(len(s))
    return log_mean, np.mean(sorted(s, reverse=True)[:CSLS_NEIGHBORS])


def run_compare(left: torch.Tensor, right: torch.Tensor, pool: np.ndarray, member: np.ndarray,
                negatives: Negatives) -> held_out.Directed:  # fmt: skip
    rows = torch.arange(len(member))
    return compare(left, right, rows, torch.from_numpy(~member), torch.from_numpy(pool), negatives)


def described(embeddings: list[torch.Tensor], pair: tuple[int, int], member: np.ndarray, negatives: Negatives,
              plants: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:  # fmt: skip
    """A trial of a run to which no sample was added."""
    return describe_trial(embeddings, pair, member, np.ones(len(member), bool), negatives, plants)


@pytest.mark.parametrize("block", [7, 2048])
def test_comparison_with_all_negatives_is_the_double_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "BLOCK", block)
    (a, b), (member, repeats, negatives) = sides(), setting()
    got = run_compare(a, b, np.flatnonzero(~member), member, negatives)
    want = np.array([naive(a, b, row, member, repeats) for row in range(N)])
    np.testing.assert_allclose(got.log_mean, want[:, 0], atol=1e-4)
    np.testing.assert_allclose(got.nearest, want[:, 1], atol=1e-5)


def test_the_sampled_mean_takes_hard_negatives_once_and_the_rest_by_weight() -> None:
    (a, b), (member, repeats, negatives) = sides(), setting()
    outside = np.flatnonzero(~member)
    pool = np.sort(np.random.default_rng(2).choice(outside, 15, replace=False))
    got = run_compare(a, b, pool, member, negatives)
    for row in range(N):
        able = set(own_negatives(row, member, repeats))
        hard = able & set(negatives.hard[row].tolist())
        rest = able & set(pool.tolist()) - hard
        weight = len(outside) / len(pool)

        def sum_of(rows: set[int], row: int = row) -> float:
            return sum(np.exp(float(a[row].double() @ b[k].double()) / TEMPERATURE) for k in rows)

        mean = (sum_of(hard) + weight * sum_of(rest)) / (len(hard) + weight * len(rest))
        assert float(got.log_mean[row]) == pytest.approx(np.log(mean), abs=2e-4)
        top = sorted((float(a[row] @ b[k]) for k in hard | rest), reverse=True)[:CSLS_NEIGHBORS]
        assert float(got.nearest[row]) == pytest.approx(np.mean(top), abs=1e-5)


def test_over_many_pools_the_sampled_mean_is_the_full_one() -> None:
    (a, b), (member, _, negatives) = sides(), setting()
    outside, rng = np.flatnonzero(~member), np.random.default_rng(4)
    full = run_compare(a, b, outside, member, negatives).log_mean.double()
    pools = [np.sort(rng.choice(outside, 15, replace=False)) for _ in range(600)]
    draws = torch.stack([run_compare(a, b, pool, member, negatives).log_mean.double() for pool in pools])
    ratio = (draws - full).exp()
    error = ratio.std(0) / np.sqrt(len(pools))
    # a ratio of two estimates has a bias of the order of 1 / pool, beside the noise of 600 draws
    assert ((ratio.mean(0) - 1).abs() < 4 * error + 0.05).all()
    assert abs(float(ratio.mean()) - 1) < 0.02


def test_hard_negatives_bring_the_sampled_contrast_near_the_full_one() -> None:
    n = 400
    a, b = sides(n)
    member, rows = np.zeros(n, bool), torch.arange(n)
    repeats = torch.arange(n, dtype=torch.int32)[:, None]
    nearest = (a @ b.T).fill_diagonal_(-9).topk(10, dim=1).indices
    outside, pool = torch.from_numpy(~member), torch.arange(0, n, 4)
    full = compare(a, b, rows, outside, rows, Negatives(repeats, nearest, 0)).log_mean
    near = compare(a, b, rows, outside, pool, Negatives(repeats, nearest, 0)).log_mean
    blind = compare(a, b, rows, outside, pool, Negatives(repeats, nearest * 0 - 1, 0)).log_mean
    error, error_blind = ((x - full).abs().mean() * TEMPERATURE for x in (near, blind))
    assert error < 0.005  # similarities range over 2
    assert error < 0.25 * error_blind


def test_without_a_negative_nothing_is_said() -> None:
    a, b = sides(6)
    together = Negatives(torch.zeros(6, 1, dtype=torch.int32), torch.full((6, 2), -1), 0)
    measures, _ = described([a, b], (0, 1), np.zeros(6, bool), together, np.zeros((0, 2), np.int64))
    assert np.isnan(measures["contrast"]).all()
    assert np.isfinite(measures["cosine"]).all()


# --- a trial -------------------------------------------------------------------------------------------------------


def test_measures_of_a_trial_by_the_double_loop() -> None:
    (a, b), (member, repeats, negatives) = sides(), setting()
    measures, _ = described([a, b], (0, 1), member, negatives, np.zeros((0, 2), np.int64))
    assert set(measures) == set(MEASURES)
    for row in range(N):
        if member[row]:
            assert all(np.isnan(values[row]) for values in measures.values())
            continue
        forward, backward = naive(a, b, row, member, repeats), naive(b, a, row, member, repeats)
        s = float(a[row] @ b[row])
        assert measures["cosine"][row] == pytest.approx(s, abs=1e-6)
        assert measures["contrast"][row] == pytest.approx(TEMPERATURE / 2 * (forward[0] + backward[0]) - s, abs=1e-5)
        assert measures["csls"][row] == pytest.approx(forward[1] + backward[1] - 2 * s, abs=1e-5)


def test_contrast_by_hand() -> None:
    # rows 0 and 1, media on the axes, texts exchanged. Row 0: own s = 0, its one negative s = 1, both ways:
    # tau/2 * (1/tau + 1/tau) - 0 = 1. With the texts in place: tau/2 * 0 - 1 = -1.
    axes = torch.eye(2)
    negatives = Negatives(torch.arange(2, dtype=torch.int32)[:, None], torch.full((2, 1), -1), 0)
    for texts, value in ((axes.flip(0), 1.0), (axes, -1.0)):
        got, _ = described([axes, texts], (0, 1), np.zeros(2, bool), negatives, np.zeros((0, 2), np.int64))
        np.testing.assert_allclose(got["contrast"], [value, value], atol=1e-6)


def test_virtual_pairs_take_one_side_from_each_row() -> None:
    (a, b), (member, repeats, negatives) = sides(), setting()
    out = np.flatnonzero(~member)
    plants = np.array([[out[0], out[0]], [out[1], out[5]], [out[5], out[1]], [out[2], np.flatnonzero(member)[0]]])
    measures, contrast = described([a, b], (0, 1), member, negatives, plants)
    assert contrast[0] == pytest.approx(measures["contrast"][out[0]], abs=1e-6)
    for (i, j), got in zip(plants[1:3], contrast[1:3], strict=True):
        logs = naive(a, b, i, member, repeats)[0] + naive(b, a, j, member, repeats)[0]
        assert got == pytest.approx(TEMPERATURE / 2 * logs - float(a[i] @ b[j]), abs=1e-5)
    assert np.isnan(contrast[3])  # one of them was a member


def test_samples_added_later_are_described_but_are_nobodys_negatives() -> None:
    (a, b), (member, repeats, negatives) = sides(), setting()
    none, known = np.zeros((0, 2), np.int64), np.arange(N) < 45
    got, _ = describe_trial([a, b], (0, 1), member, known, negatives, none)
    old = Negatives(negatives.repeats[known], torch.full((45, 1), -1), 3)
    before, _ = described([a[known], b[known]], (0, 1), member[known], old, none)
    for name in MEASURES:  # theirs are those of the run without the new ones
        np.testing.assert_allclose(got[name][known], before[name], atol=1e-5)
    for row in np.flatnonzero(~member & ~known):
        seen = member | ~known
        logs = naive(a, b, row, seen, repeats)[0] + naive(b, a, row, seen, repeats)[0]
        assert got["contrast"][row] == pytest.approx(TEMPERATURE / 2 * logs - float(a[row] @ b[row]), abs=1e-5)


def test_wrong_pairs_stand_out() -> None:
    rng = np.random.default_rng(5)
    x = torch.from_numpy(unit(rng.standard_normal((200, 8))))
    y = torch.from_numpy(unit(x.numpy() + 0.2 * rng.standard_normal((200, 8))))
    y[:10] = y[:10].roll(1, 0)
    negatives = Negatives(torch.arange(200, dtype=torch.int32)[:, None], torch.full((200, 1), -1), 0)
    got, _ = described([x, y], (0, 1), np.zeros(200, bool), negatives, np.zeros((0, 2), np.int64))
    assert got["contrast"][:10].min() > got["contrast"][10:].max()


def test_measures_follow_their_rows() -> None:
    (a, b), (member, _, negatives) = sides(), setting()
    order = np.random.default_rng(6).permutation(N)
    none = np.zeros((0, 2), np.int64)
    straight, _ = described([a, b], (0, 1), member, negatives, none)
    moved_negatives = Negatives(negatives.repeats[order], torch.full((N, 1), -1), 3)
    moved, _ = described([a[order], b[order]], (0, 1), member[order], moved_negatives, none)
    for name in MEASURES:
        np.testing.assert_allclose(moved[name], straight[name][order], atol=1e-5)


def test_the_other_direction_of_a_pair_gives_the_same_contrast() -> None:
    (a, b), (member, _, negatives) = sides(), setting()
    none = np.zeros((0, 2), np.int64)
    one, other = (described([a, b], pair, member, negatives, none)[0] for pair in ((0, 1), (1, 0)))
    np.testing.assert_allclose(one["contrast"], other["contrast"], atol=1e-6)


def test_the_pool_is_a_seeded_draw_in_ascending_order(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = np.arange(0, 300, 3)
    assert (draw_pool(outside, 0) == outside).all()
    monkeypatch.setattr(held_out, "POOL", 40)
    pool = draw_pool(outside, 0)
    assert len(set(pool.tolist())) == 40
    assert (np.diff(pool) > 0).all()
    assert set(pool.tolist()) <= set(outside.tolist())
    assert (pool == draw_pool(outside, 0)).all()
    assert (pool != draw_pool(outside, 1)).any()


def test_a_small_pool_ranks_pairs_like_the_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 400
    a, b = sides(n)
    hard = torch.cat([(x @ x.T).fill_diagonal_(-9).topk(20, dim=1).indices for x in (a, b)], dim=1)
    negatives = Negatives(torch.arange(n, dtype=torch.int32)[:, None], hard, 0)
    none, nobody = np.zeros((0, 2), np.int64), np.zeros(n, bool)
    full = described([a, b], (0, 1), nobody, negatives, none)[0]["contrast"]
    monkeypatch.setattr(held_out, "POOL", 100)
    sampled = described([a, b], (0, 1), nobody, negatives, none)[0]["contrast"]
    ranks = [np.argsort(np.argsort(x)) for x in (full, sampled)]
    assert np.corrcoef(*ranks)[0, 1] > 0.99
    assert np.abs(full - sampled).mean() < 0.02


def test_fit_to_references_is_the_plain_product_for_held_out_texts() -> None:
    a, b = sides(20)
    member, references = np.arange(20) % 4 == 0, np.array([3, 8, 11])
    got = reference_fit(b, a, member, references)
    want = (b @ a[references].T).numpy() * ~member[:, None]
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_the_contrast_of_frozen_encoders_is_the_same_over_all_rows_at_its_own_temperature() -> None:
    (a, b), (_, repeats, negatives) = sides(), setting()
    tau, nobody = held_out.CLIP_TEMPERATURE, np.zeros(N, bool)
    plants = np.array([[4, 4], [1, 7]])
    own, planted = zero_shot(a, b, negatives, plants)
    forward = [naive(a, b, row, nobody, repeats, tau)[0] for row in range(N)]
    backward = [naive(b, a, row, nobody, repeats, tau)[0] for row in range(N)]
    want = tau / 2 * (np.array(forward) + np.array(backward)) - (a * b).sum(1).numpy()
    np.testing.assert_allclose(own, want, atol=1e-5)
    crossed = tau / 2 * (forward[1] + backward[7]) - float(a[1] @ b[7])
    np.testing.assert_allclose(planted, [want[4], crossed], atol=1e-5)
