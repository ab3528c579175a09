from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from audit_plugin.arrays import (
    AuditError,
    Features,
    Neighbors,
    Samples,
    Trials,
    check_lengths,
    dense_ids,
    mean_interval,
    modality_pairs,
    spearman,
)
from audit_plugin.audit.result import AuditResult


def test_modality_pairs_come_in_the_order_of_the_modalities() -> None:
    assert modality_pairs(("image", "text")) == [(0, 1)]
    assert modality_pairs(("a", "b", "c")) == [(0, 1), (0, 2), (1, 2)]
    assert modality_pairs(("a",)) == []


def test_samples_know_their_length_and_modalities() -> None:
    samples = Samples(("x", "y"), {"image": ("1.png", None), "text": ("one", "two")})
    assert len(samples) == 2
    assert samples.modalities == ("image", "text")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"media": {"text": ("only one",)}}, "media 'text' has 1 values for 2 ids"),
        ({"media": {}, "groups": ("g",)}, "1 groups for 2 ids"),
        ({"media": {}, "caption": (0, 1, 2)}, "3 caption for 2 ids"),
    ],
)
def test_samples_of_unequal_lengths_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Samples(("x", "y"), **arguments)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((2, 4), np.float64),  # another dtype
        np.zeros((3, 4), np.float32),  # another number of rows
        np.zeros(2, np.float32),  # no rows at all
    ],
)
def test_features_must_be_float32_rows(vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"image: expected float32 \[2, d\]"):
        Features({"image": vectors}, np.ones((2, 1), bool))


def test_features_need_one_presence_column_per_modality() -> None:
    with pytest.raises(ValueError, match="present has 2 modalities, vectors has 1"):
        Features({"image": np.zeros((2, 4), np.float32)}, np.ones((2, 2), bool))


def test_rows_of_features_follow_the_given_order() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    picked = Features({"text": vectors}, np.array([[True], [False], [True]])).rows(np.array([2, 1]))
    assert picked.vectors["text"].tolist() == [[4, 5], [2, 3]]
    assert picked.present.tolist() == [[True], [False]]
    assert picked.modalities == ("text",)


def test_paired_arrays_must_agree_in_shape() -> None:
    with pytest.raises(ValueError, match="differ"):
        Neighbors(np.zeros((2, 3), np.int64), np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="differ"):
        Trials(np.zeros((2, 3), bool), np.zeros((2, 4), np.float32), np.zeros((2, 2, 3)), np.ones(3, bool))
    with pytest.raises(ValueError, match="3 trials are not whole blocks of 2"):
        Trials(np.zeros((3, 4), bool), np.zeros((3, 4), np.float32), np.zeros((2, 2, 4)), np.ones(4, bool))


def test_a_result_refuses_a_column_of_another_length_and_reads_flags() -> None:
    with pytest.raises(ValueError, match="column 'outlier' has 1 values for 2 ids"):
        AuditResult(("a", "b"), {"outlier": np.zeros(1)}, {})
    result = AuditResult(("a", "b"), {"is_outlier": np.array([True, False])}, {})
    assert len(result) == 2
    assert result.flagged("outlier").tolist() == [True, False]


def test_values_are_frozen_and_user_errors_are_value_errors() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Samples((), {}).ids = ("a",)  # type: ignore[misc]
    assert issubclass(AuditError, ValueError)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), max_size=30))
def test_dense_ids_number_equal_rows_alike(pairs: list[tuple[int, int]]) -> None:
    left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    ordered = sorted(set(pairs))
    assert dense_ids(left, right).tolist() == [ordered.index(pair) for pair in pairs]
    first = list(dict.fromkeys(pairs))
    assert dense_ids(left, right, by_first_row=True).tolist() == [first.index(pair) for pair in pairs]
    assert dense_ids(left, right).dtype == np.int64


def test_dense_ids_number_texts_and_nothing() -> None:
    assert dense_ids(["b", "", "b", "a"]).tolist() == [2, 0, 2, 1]
    assert dense_ids(("b", "", "b", "a"), by_first_row=True).tolist() == [0, 1, 0, 2]
    assert dense_ids([]).shape == (0,)
    assert dense_ids(np.zeros(0), by_first_row=True).dtype == np.int64


def test_spearman_is_scipys_and_undefined_without_spread() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 9, 50).astype(float), rng.standard_normal(50)
    assert spearman(left, right) == pytest.approx(stats.spearmanr(left, right).statistic, abs=1e-12)
    assert spearman(left, 3 * left + 1) == pytest.approx(1)
    assert np.isnan(spearman(left, np.ones(50)))
    assert np.isnan(spearman(left[:2], right[:2]))


def test_the_interval_of_a_mean_is_students() -> None:
    mean, low, high = mean_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert mean == 3
    assert high - mean == pytest.approx(2.776445 * 1.581139 / 5**0.5, rel=1e-5)
    assert low == pytest.approx(2 * mean - high)
    single = mean_interval(np.array([2.0]))
    assert single[0] == 2
    assert np.isnan(single[1:]).all()


def test_lengths_that_differ_are_named() -> None:
    check_lengths(left=[1, 2], right=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="lengths differ: left 2, right 3"):
        check_lengths(left=[1, 2], right=np.zeros(3))
