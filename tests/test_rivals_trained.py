"""Pair loss, AUM and Datamap by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.rivals.material import Material
from benchmarks.rivals.trained import area_under_margin, datamap, pair_loss

EYE = np.eye(2)
MATERIAL = Material(
    EYE,
    EYE,
    EYE,
    margins=np.array([[1.0, -2], [3, 1]]),
    confidences=np.array([[0.2, 0.5], [0.6, 0.5]]),
    losses=np.array([[0.7, 1.0], [0.4, 2.0]]),
)


def test_by_hand():
    np.testing.assert_allclose(pair_loss(MATERIAL), [0.4, 2.0])
    np.testing.assert_allclose(area_under_margin(MATERIAL), [-2, 0.5])
    np.testing.assert_allclose(datamap(MATERIAL), [0.6, 0.5])
    np.testing.assert_allclose(datamap(MATERIAL, "variability"), [0.2, 0])
    np.testing.assert_allclose(datamap(MATERIAL, "hard"), [1 - np.sqrt(0.16 + 0.04), 0.5])


def test_a_share_is_the_first_epochs_at_least_one():
    for share in (0.5, 0.01):
        np.testing.assert_allclose(pair_loss(MATERIAL, share), [0.7, 1.0])
        np.testing.assert_allclose(area_under_margin(MATERIAL, share), [-1, 2])
        np.testing.assert_allclose(datamap(MATERIAL, share=share), [0.8, 0.5])


@pytest.mark.parametrize("method", [pair_loss, area_under_margin, datamap])
def test_without_training_they_say_so(method):
    with pytest.raises(ValueError, match="train first"):
        method(Material(EYE, EYE, EYE))
