from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import planted
from benchmarks.oddities import copy_figures, outlier_figures, rate


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[planted.PlantedRow]:
    """300 small pictures; the last two are one picture under two names."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    rows = []
    for i in range(300):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(path)
        rows.append(planted.PlantedRow(f"r{i}", path, (f"caption {i}", f"other words for {i}")))
    Path(rows[299].image).write_bytes(Path(rows[298].image).read_bytes())
    return rows


def test_only_what_is_the_same_byte_for_byte_is_set_aside(clean: list[planted.PlantedRow]) -> None:
    assert planted.repeated(clean) == {"r298", "r299"}


def test_copies_take_the_place_of_rows_and_nothing_else_changes(clean: list[planted.PlantedRow]) -> None:
    rows = planted.plant_copies(clean, 0)
    faults = Counter(row.fault for row in rows)
    assert faults["copy"] == faults["conflict"] == planted.COPIES
    assert faults["placeholder"] == planted.PLACEHOLDERS
    own = {row.id: row for row in clean}
    for row in rows:
        assert row == own[row.id] or row.fault
        if row.fault == "copy":
            assert row.captions == own[row.source].captions
        if row.fault == "conflict":
            assert row.captions == (own[row.id].captions[0], own[row.source].captions[1])


def test_outliers_take_one_side_of_a_pair(clean: list[planted.PlantedRow]) -> None:
    own = {row.id: row for row in clean}
    for row in planted.plant_outliers(clean, 0):
        changed = (row.image != own[row.id].image, row.captions[0] != own[row.id].captions[0])
        assert changed == (row.fault in ("photo", "noise"), row.fault in ("letters", "words"))
        assert row.captions[1:] == own[row.id].captions[1:]


@pytest.mark.parametrize("way", planted.WAYS)
def test_altered_copies_look_the_same_and_most_have_other_bytes(way: str) -> None:
    packed, (y, x) = io.BytesIO(), np.mgrid[:64, :64]
    smooth = np.stack([40 + 2 * x, 40 + 2 * y, 120 + x - y], axis=2)
    Image.fromarray((smooth + np.random.default_rng(0).integers(-2, 3, smooth.shape)).astype(np.uint8)).save(
        packed, "PNG"
    )
    copy = planted.altered(packed.getvalue(), way)
    assert (copy == packed.getvalue()) is (way == "exact")
    shown = np.asarray(Image.open(io.BytesIO(copy)).convert("RGB").resize((64, 64)), float)
    own = np.asarray(Image.open(packed), float)
    assert np.abs(shown - own).max() < 20


def test_figures_of_copies_by_hand() -> None:
    ids = np.array(["a", "b", "c", "d", "e", "f", "g"])
    truth = {"a": ("copy", "b"), "c": ("conflict", "d"), "e": ("conflict", "f"), "b": ("", ""), "g": ("", "")}
    fault = np.array(["copy", "", "conflict", "", "conflict", "", ""])
    flags = {
        "duplicate": np.array([1, 1, 1, 1, 0, 0, 1], bool),
        "conflict": np.array([0, 0, 0, 1, 1, 0, 1], bool),  # of the first pair the wrong side, of the second the right
        "placeholder": np.zeros(7, bool),
    }
    found = copy_figures(ids, fault, np.zeros(7, int), truth, flags)
    third = round(1 / 3, 4)
    assert found["recall"] == {"duplicate": round(2 / 3, 4), "conflict": 1.0, "wrong_caption": 0.5, "placeholder": None}
    assert found["precision"] == {
        "duplicate": 0.8,
        "conflict": round(2 / 3, 4),
        "wrong_caption": third,
        "placeholder": None,
    }


def test_figures_of_outliers_by_hand() -> None:
    fault = np.array(["photo", "noise", "letters", "words", "", ""])
    found = outlier_figures(fault, np.array([3.0, 2, 5, 1, 0, 2.5]), np.array([1, 0, 1, 0, 0, 0], bool))
    assert found["auroc"] == {"photo": 1.0, "noise": 0.5, "letters": 1.0, "words": 0.5, "all": 0.75}
    assert found["recall"] == {"photo": 1.0, "noise": 0.0, "letters": 1.0, "words": 0.0, "all": 0.5}


def test_nothing_has_no_rate() -> None:
    assert rate(np.zeros(0, bool)) is None
    assert rate(np.array([True, False])) == 0.5
