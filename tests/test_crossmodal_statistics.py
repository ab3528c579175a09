"""Recall across modalities: hand-worked values, intervals, and what is left undefined."""

from __future__ import annotations

import numpy as np
import pytest

from audit_plugin.crossmodal import statistics as measures
from audit_plugin.crossmodal.statistics import (
    gap,
    is_aligned,
    joint_table,
    modality_gap,
    pair_retrieval,
    per_identity,
    rank_correlation,
    rate,
    retrieval_chance,
    transfer_ratio,
)
from benchmarks.crossmodal.controlled import residual
from tests.core_fixtures import unit


def test_an_identity_is_the_mean_over_its_questions_and_seeds() -> None:
    hits = np.array([[1, 0, 1, 1], [0, 0, 1, 1]], dtype=np.float32)
    found = per_identity(hits, np.array([0, 0, 2, 2]), 3)
    assert found[[0, 2]].tolist() == [0.25, 1.0]
    assert np.isnan(found[1])


def test_gap_and_transfer_by_hand() -> None:
    source, target, ceiling = np.array([1.0, 1, 1, 1]), np.array([1.0, 0, 0.5, 0.5]), np.array([1.0, 0.5, 1, 0.5])
    assert gap(source, target)["value"] == pytest.approx(0.5)
    assert transfer_ratio(target, ceiling, 0.1)["value"] == pytest.approx(0.4 / 0.65)
    assert residual(np.ones(4), np.full(4, 0.6), np.full(4, 0.2))["value"] == pytest.approx(0.5)
    assert joint_table(source, np.array([1.0, 0, 0.49, np.nan])) == {
        "both": 1,
        "source only": 2,
        "target only": 0,
        "neither": 0,
    }


def test_what_no_one_learned_has_no_transfer() -> None:
    assert np.isnan(transfer_ratio(np.full(5, 0.1), np.full(5, 0.12), 0.1)["value"])
    assert np.isnan(residual(np.full(5, 0.1), np.full(5, 0.1), np.full(5, 0.1))["value"])
    nothing = rate(np.full(3, np.nan))
    assert np.isnan(nothing["value"])
    assert nothing["identities"] == 0


def test_intervals_cover_the_truth_and_pairing_makes_them_narrow() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        found = rate((rng.random(60) < 0.7).astype(float))
        covered += found["low"] <= 0.7 <= found["high"]
    assert covered >= 180
    shared = rng.random(200)
    close = gap(shared, shared - 0.1)
    assert close["value"] == pytest.approx(0.1)
    assert close["high"] - close["low"] < 1e-9
    assert rate(shared) == rate(shared)


def test_pairs_are_retrieved_by_identity_in_both_directions() -> None:
    left = np.eye(4, dtype=np.float32)
    right = left[[0, 2, 1, 3]]
    identity = np.array([0, 1, 1, 2])
    assert pair_retrieval(left, right, identity).tolist() == [1, 1, 1, 1]
    assert pair_retrieval(left, right, np.arange(4)).tolist() == [1, 0, 0, 1]
    assert retrieval_chance(identity) == pytest.approx((1 + 4 + 1) / 16)
    rng = np.random.default_rng(1)
    many = np.repeat(np.arange(20), 5)
    stray = [pair_retrieval(*(unit(rng.standard_normal((100, 8))) for _ in range(2)), many).mean() for _ in range(40)]
    assert np.mean(stray) == pytest.approx(retrieval_chance(many), abs=0.015)


def test_alignment_has_to_be_sure() -> None:
    assert is_aligned({"value": 0.5, "low": 0.4, "high": 0.6}, 0.1)
    assert not is_aligned({"value": 0.25, "low": 0.15, "high": 0.35}, 0.1)
    assert not is_aligned({"value": np.nan, "low": np.nan, "high": np.nan}, 0.1)


def test_the_modality_gap_is_the_distance_of_the_means() -> None:
    left = np.array([[1.0, 0], [0, 1]], dtype=np.float32)
    assert modality_gap(left, left) == 0
    assert modality_gap(left, -left) == pytest.approx(np.sqrt(2))


def test_rank_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 6, 80).astype(float), rng.random(80)
    assert rank_correlation(a, b)["value"] == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_rank_correlation_draws_units_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "DRAWS", 200)
    rng = np.random.default_rng(0)
    unit_of = np.repeat(np.arange(30), 10)
    level = rng.standard_normal(30)
    a, b = level[unit_of] + 0.01 * rng.standard_normal((2, 300))
    b = b + 2 * rng.standard_normal(30)[unit_of]
    loose, tight = rank_correlation(a, b, unit_of), rank_correlation(a, b)
    assert loose["value"] == tight["value"]
    assert loose["high"] - loose["low"] > 2 * (tight["high"] - tight["low"])
    assert rank_correlation(a, 3 * a + 1, unit_of)["value"] == pytest.approx(1)
    assert np.isnan(rank_correlation(a, np.ones(300))["value"])
    a[:5] = np.nan
    assert np.isfinite(rank_correlation(a, b, unit_of)["value"])
