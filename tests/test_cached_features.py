"""Features read from the disk in the order that is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.encoders.cached_features import BLOCK, StoredFeatures, stored_features, unit_features
from audit_plugin.store import FeatureCache


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredFeatures:
    """Four rows: two share a picture, the third has none, the last has no text."""
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path))
    FeatureCache("pictures").append({"a": np.array([3.0, 4.0]), "b": np.array([0.0, -2.0])})
    FeatureCache("words").append({"x": np.array([1.0, 0.0, 0.0]), "y": np.array([0.0, 0.5, 0.0])})
    digests = {"image": ("a", "b", "", "a"), "text": ("x", "y", "x", "")}
    return stored_features({"image": "pictures", "text": "words"}, digests)


def test_rows_come_in_the_order_that_is_asked_for(stored: StoredFeatures) -> None:
    assert stored.modalities == ("image", "text")
    assert stored.present.tolist() == [[True, True], [True, True], [False, True], [True, False]]
    selected = stored.rows(np.array([3, 1, 2, 1]))
    assert selected.present.tolist() == [[True, False], [True, True], [False, True], [True, True]]
    np.testing.assert_allclose(selected.vectors["image"], [[0.6, 0.8], [0, -1], [0, 0], [0, -1]], atol=1e-3)
    np.testing.assert_allclose(selected.vectors["text"], [[0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]], atol=1e-3)
    np.testing.assert_array_equal(stored.vectors["image"][[3, 1, 2, 1]], selected.vectors["image"])
    assert stored.rows(np.zeros(0, np.int64)).present.shape == (0, 2)


def test_features_that_went_away_since_are_an_error(stored: StoredFeatures) -> None:
    shutil.rmtree(stored.caches["text"].path)
    with pytest.raises(AuditError, match="2 text features are gone from the cache .* run the audit again"):
        stored.rows(np.array([0, 1, 3]))
    assert stored.rows(np.array([3])).present.tolist() == [[True, False]]


def test_rows_have_unit_length_however_many_there_are(tmp_path: Path) -> None:
    rng, cache = np.random.default_rng(0), FeatureCache("many", tmp_path)
    values = {f"{row:04d}": v for row, v in enumerate(rng.standard_normal((2 * BLOCK + 3, 8)) * 100)}
    cache.append(values)
    rows, is_stored = unit_features(cache, list(values))
    assert is_stored.all()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    for row, value in zip(rows, values.values(), strict=True):
        np.testing.assert_allclose(row, value / np.linalg.norm(value), atol=1e-3)
