from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from audit_plugin.arrays import AuditError, AuditResult, Features, Neighbors, Samples, Trials, modality_pairs


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
        Trials(np.zeros((2, 3), bool), np.zeros((2, 4), np.float32), np.zeros((2, 2, 3)), {})
    with pytest.raises(ValueError, match="3 trials are no whole blocks of 2"):
        Trials(np.zeros((3, 4), bool), np.zeros((3, 4), np.float32), np.zeros((2, 2, 4)), {})


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
