from __future__ import annotations

import numpy as np
import pytest

from audit_plugin.scoring import outliers
from audit_plugin.scoring.outliers import (
    count_user_groups,
    in_tail_units,
    is_individual,
    mean_neighbor_distance,
    outlier_cut,
    tail_scale,
)
from tests.core_fixtures import unit


def naive(vectors: dict[str, np.ndarray], group: np.ndarray) -> list[float]:
    """The mean distance to every other group, sorted."""
    groups = np.unique(group)
    neighbors = max(outliers.MIN_NEIGHBORS, round(outliers.NEIGHBOR_SHARE * len(groups)))
    out = []
    for i in range(len(group)):
        far = [
            np.mean([1 - v[i] @ v[j] for v in vectors.values() for j in np.flatnonzero(group == g)])
            for g in groups
            if g != group[i]
        ]
        out.append(float(np.mean(sorted(far)[:neighbors])) if far else np.nan)
    return out


@pytest.mark.parametrize("n", [1, 2, 12, 150, 260])
def test_the_distance_is_the_mean_over_the_nearest_of_the_other_groups(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "BLOCK_ROWS", 64)
    rng = np.random.default_rng(n)
    vectors = {m: unit(rng.standard_normal((n, 6))) for m in ("image", "text")}
    group = rng.integers(0, max(1, n * 2 // 3), n)
    distances = mean_neighbor_distance(vectors, group, np.arange(n))
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, naive(vectors, group), rtol=1e-5, atol=1e-6)


def test_a_dozen_photographs_of_one_place_are_far_and_a_copied_picture_is_not() -> None:
    rng = np.random.default_rng(0)
    drawings = np.array([1.0, 0, 0, 0, 0, 0]) + 0.3 * rng.standard_normal((1200, 6))
    photos = np.array([0, 0, 1.0, 0, 0, 0]) + 0.01 * rng.standard_normal((14, 6))
    vectors = unit(np.concatenate([drawings, photos, np.tile(drawings[:1], (14, 1))]))
    group = np.concatenate([np.arange(1214), np.zeros(14, int)])
    far = mean_neighbor_distance({"image": vectors}, group, np.arange(len(group)))
    assert far[1200:1214].min() > np.quantile(far[:1200], 0.99)
    np.testing.assert_allclose(far[1214:], far[0], atol=1e-6)


def test_a_pool_stands_for_a_large_set(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    width = rng.uniform(0.1, 1, (1500, 1))
    vectors = {"image": unit(np.eye(5)[0] + width * rng.standard_normal((1500, 5)))}
    whole = mean_neighbor_distance(vectors, np.arange(1500), np.arange(1500))
    monkeypatch.setattr(outliers, "POOL_GROUPS", 500)
    assert np.corrcoef(whole, mean_neighbor_distance(vectors, np.arange(1500), np.arange(1500)))[0, 1] > 0.95


def test_only_known_rows_are_neighbors() -> None:
    vectors = unit(np.random.default_rng(2).standard_normal((80, 5)))
    vectors[60:] = vectors[59]
    known = mean_neighbor_distance({"image": vectors}, np.arange(80), np.arange(60))
    np.testing.assert_allclose(
        known[:60], mean_neighbor_distance({"image": vectors[:60]}, np.arange(60), np.arange(60)), rtol=1e-5
    )


def test_a_label_of_many_rows_is_not_individual() -> None:
    content = np.concatenate([np.zeros(11, int), np.repeat([1, 2], 10), np.arange(3, 20)])
    assert is_individual(content).tolist() == [False] * 11 + [True] * 37
    assert is_individual(np.zeros(0, int)).tolist() == []


def test_user_groups_are_counted_once_each() -> None:
    content, user_groups = np.array([0, 0, 0, 1, 1, 2]), np.array([7, 7, 8, 9, 9, 9])
    assert count_user_groups(content, user_groups).tolist() == [2, 2, 2, 1, 1, 1]
    assert count_user_groups(np.zeros(0, int), np.zeros(0, int)).tolist() == []


@pytest.mark.parametrize("bad", [0.0, 0.1])
def test_tail_units_are_logistic_quantiles(bad: float) -> None:
    rng = np.random.default_rng(3)
    good = rng.logistic(3, 2, 40_000)
    values = np.concatenate([good, np.full(int(bad * len(good)), 99.0)])
    units = in_tail_units(values.astype(np.float32), values)
    share = np.mean(units[: len(good)] > np.log(0.98 / 0.02))
    assert share <= 0.02 * 1.3
    assert bad or share >= 0.02 * 0.7
    assert (units[len(good) :] > 8).all()
    assert np.isnan(in_tail_units(np.array([np.nan], np.float32), values)).all()


def test_the_tail_scale_by_hand() -> None:
    # the 25, 50, 75 and 85 % quantiles of 0 ... 100 are 25, 50, 75 and 85
    assert tail_scale(np.arange(101.0)) == (50.0, pytest.approx(25 / np.log(3)))


@pytest.mark.parametrize("values", [[], [1.0, 2, 3], [np.nan] * 9])
def test_too_few_values_have_no_tail(values: list[float]) -> None:
    assert tail_scale(np.array(values, np.float32)) == (0.0, np.inf)


def largest_of_three(rng: np.random.Generator, n: int) -> np.ndarray:
    """As the outlier column is made: the largest of three distances in units of their tails."""
    return rng.normal(0, 1.6, (n, 3)).max(1)


@pytest.mark.parametrize("bad", [0.0, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_the_cut_keeps_its_rate_and_catches_outliers_just_beyond_the_bulk(bad: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    good = largest_of_three(rng, 4000)
    odd = rng.normal(9, 0.5, int(bad * 4000))
    cut = outlier_cut(np.concatenate([good, odd]), 0.01)
    assert (good > cut).mean() <= 0.01
    assert not bad or (odd > cut).mean() > 0.9


def test_a_few_more_outliers_move_the_cut_little() -> None:
    rng = np.random.default_rng(5)
    good = largest_of_three(rng, 4000)
    alone = outlier_cut(good, 0.01)
    with_odd = outlier_cut(np.concatenate([good, np.full(200, 40.0)]), 0.01)
    assert abs(with_odd - alone) < 0.1 * good.std()


def test_a_lower_rate_cuts_higher_and_the_cut_moves_with_unit_and_origin() -> None:
    values = largest_of_three(np.random.default_rng(6), 800)
    cuts = [outlier_cut(values, rate) for rate in (0.1, 0.05, 0.01, 0.001)]
    assert cuts == sorted(cuts)
    assert outlier_cut(3 * values + 7, 0.01) == pytest.approx(3 * cuts[2] + 7)


def test_the_cut_of_a_logistic_tail_is_its_quantile() -> None:
    share = (np.arange(20_000) + 0.5) / 20_000
    assert outlier_cut(np.log(share / (1 - share)), 0.01) == pytest.approx(np.log(99), rel=0.02)


@pytest.mark.parametrize("values", [[], [1.0, 2, 3], [np.nan] * 9])
def test_too_few_values_have_no_cut(values: list[float]) -> None:
    assert outlier_cut(np.array(values, np.float32), 0.01) == np.inf


def test_equal_values_are_not_beyond_their_cut() -> None:
    assert outlier_cut(np.full(50, 3.0), 0.01) > 3
