"""Images of more than 8 bits a value, written by Pillow and FFmpeg, read as 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_plugin.inputs.images import read_image
from audit_plugin.inputs.value_range import WHITES, to_eight_bits, value_range
from tests.media_fixtures import write_still

SIDE = 64
RAMP = np.add.outer(np.arange(SIDE), np.arange(SIDE)) * 2  # 0 to 252


def photograph(number: int) -> np.ndarray:
    """int64 `[64, 64]`, 0 to 255: a drawn scene of its own with light, shade and noise."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = sum(np.sin(a * x + b * y + c) for a, b, c in random.uniform(-12, 12, (5, 3)))
    scene = 128 + 20 * waves + random.normal(0, 8, (SIDE, SIDE))
    return np.clip(scene, 0, 255).astype(np.int64)


def read_back(tmp_path: Path, values: np.ndarray, name: str = "a.tiff") -> np.ndarray:
    """int64 `[height, width]`: one channel of the image as it is read."""
    Image.fromarray(values).save(tmp_path / name)
    read = np.asarray(read_image(str(tmp_path / name))).astype(np.int64)
    assert (read == read[..., :1]).all()
    return read[..., 0]


# from 8-bit values: how they are stored, under which name, how far each may be off
STORED = {
    "8 bits in 16": (lambda g: g.astype(np.uint16), "a.png", 0),
    "10 bits in 16": (lambda g: (g * 4).astype(np.uint16), "a.png", 1),
    "12 bits in 16": (lambda g: (g * 16).astype(np.uint16), "a.png", 1),
    "12 bits in 16, TIFF": (lambda g: (g * 16).astype(np.uint16), "a.tiff", 1),
    "12 bits in 16, big-endian": (lambda g: (g * 16).astype(">u2"), "a.tiff", 1),
    "14 bits in 16": (lambda g: (g * 64).astype(np.uint16), "a.png", 1),
    "all 16 bits": (lambda g: (g * 257).astype(np.uint16), "a.png", 0),
    "int32": (lambda g: g.astype(np.int32), "a.tiff", 0),
    "int32 of 12 bits": (lambda g: (g * 16).astype(np.int32), "a.tiff", 1),
    "floats of 0 to 1": (lambda g: (g / 255).astype(np.float32), "a.tiff", 1),
    "floats of 0 to 255": (lambda g: g.astype(np.float32), "a.tiff", 0),
}


@pytest.mark.parametrize("kind", STORED)
def test_what_was_eight_bits_is_read_as_eight_bits(tmp_path: Path, kind: str) -> None:
    store, name, tolerance = STORED[kind]
    for gray in (RAMP, photograph(1)):
        assert np.abs(read_back(tmp_path, store(gray), name) - gray).max() <= tolerance


# narrow bands and negative values are spread from black to white
SPREAD = {
    "CT": lambda g: (g * 8.0 - 1024).astype(np.float32),
    "CT in int32": lambda g: (g * 8 - 1024).astype(np.int32),
    "heat in hundredths of a kelvin": lambda g: (g * 12 + 28_000).astype(np.uint16),
    "meters": lambda g: (g / 40 + 2).astype(np.float32),
    "beyond 16 bits": lambda g: (g * 100_000).astype(np.int32),
    "classes of a mask": lambda g: (g // 16).astype(np.uint16),
    "tiny floats": lambda g: (g * 1e-9).astype(np.float32),
}


@pytest.mark.parametrize("kind", SPREAD)
def test_other_ranges_are_spread_from_black_to_white(tmp_path: Path, kind: str) -> None:
    gray = photograph(2)
    read = read_back(tmp_path, SPREAD[kind](gray))
    assert (read.min(), read.max()) == (0, 255)
    assert np.corrcoef(read.ravel(), gray.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("kind", [*STORED, *SPREAD])
def test_different_photographs_stay_different(tmp_path: Path, kind: str) -> None:
    store, name, _ = STORED.get(kind) or (SPREAD[kind], "a.tiff", 0)
    read = np.stack([read_back(tmp_path, store(photograph(number)), name) for number in range(20)]).astype(float)
    flat = read.reshape(20, -1)
    assert flat.std(axis=1).min() > 20  # none is black
    off_diagonal = np.corrcoef(flat)[~np.eye(20, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.9


def test_bright_and_dark_ones_of_a_set_are_told_apart(tmp_path: Path) -> None:
    bright, dark = (read_back(tmp_path, (RAMP * share + 200).astype(np.uint16)) for share in (15, 9))
    assert (bright.max(), dark.max()) == (247, 153)  # (252 * 15 + 200) / 4095 * 255 and (252 * 9 + 200) / 4095 * 255


@pytest.mark.parametrize(
    ("value", "dtype", "gray"),
    [(0, np.uint16, 0), (255, np.uint16, 255), (2048, np.uint16, 127), (65_535, np.uint16, 255), (1, np.uint16, 255),
     (-1000, np.int32, 127), (10**6, np.int32, 127), (0.5, np.float32, 127), (np.nan, np.float32, 0),
     (np.inf, np.float32, 255), (-np.inf, np.float32, 0)],
)  # fmt: skip
def test_plain_images(tmp_path: Path, value: float, dtype: type, gray: int) -> None:
    assert (read_back(tmp_path, np.full((8, 8), value, dtype)) == gray).all()


def test_stray_values_do_not_darken_the_rest(tmp_path: Path) -> None:
    values = (RAMP * 16).astype(np.uint16)
    values[5, 5] = values[40, 2] = 65_535  # a dead pixel, a mark
    read = read_back(tmp_path, values)
    assert read[5, 5] == 255
    read[5, 5], read[40, 2] = RAMP[5, 5], RAMP[40, 2]
    assert np.abs(read - RAMP).max() <= 1


def test_numbers_that_are_none_do_not_darken_the_rest(tmp_path: Path) -> None:
    values = (RAMP * 8.0 - 1024).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    read = read_back(tmp_path, values)
    assert read[0, :3].tolist() == [0, 255, 0]
    assert np.abs(read[1:] - RAMP[1:] * 255 / 252).max() < 8


def test_a_few_pixels_on_a_plain_ground_are_seen(tmp_path: Path) -> None:
    values = np.zeros((100, 100), np.uint16)
    values[50, 50] = 3
    assert read_back(tmp_path, values)[50, 50] == 255


@pytest.mark.parametrize("pixel_format", ["rgb48be", "rgba64be"])
@pytest.mark.parametrize("factor", [1, 4, 16, 64, 257])
@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_colors_of_sixteen_bits(tmp_path: Path, name: str, factor: int, pixel_format: str) -> None:
    if name == "a.tiff":
        pixel_format = pixel_format.replace("be", "le")
    colors = np.stack([RAMP, RAMP[::-1] // 2, np.full_like(RAMP, 30)], -1)
    values = np.dstack([colors * factor, np.full_like(RAMP, 255 * factor)])[..., : 4 if "rgba" in pixel_format else 3]
    path = write_still(tmp_path / name, values.astype(np.uint16), pixel_format)
    read = np.asarray(read_image(path)).astype(int)
    assert np.abs(read - colors).max() <= 1


def test_colors_of_sixteen_bits_are_upright_and_transparent(tmp_path: Path) -> None:
    values = np.full((4, 6, 4), 4095, np.uint16)
    values[:, 0, :3] = 0  # the left is black
    values[:, -1, 3] = 0  # the right is transparent
    values[0, 1, 0] = 0
    path = write_still(tmp_path / "a.png", values, "rgba64be")
    read = np.asarray(read_image(path))
    assert (read[:, 0] == 0).all()
    assert (read[:, -1] == 255).all()
    assert read[0, 1].tolist() == [0, 255, 255]


def test_a_large_image_is_sampled_and_scaled_in_strips(tmp_path: Path) -> None:
    values = np.zeros((2100, 2100), np.uint16)
    values[1000:1400, 300:900] = 4000
    read = read_back(tmp_path, values)
    assert read[1200, 600] == 249  # 4000 / 4095 * 255
    assert read[0, 0] == 0


def test_many_values_are_scaled_as_few() -> None:
    values = np.random.default_rng(0).integers(0, 65_536, 70_000).astype(np.uint16)
    few = np.concatenate([to_eight_bits(part, 300, 40_000) for part in np.array_split(values, 10)])
    for order in ("<u2", ">u2"):
        assert (to_eight_bits(values.astype(order), 300, 40_000) == few).all()


def test_the_range_by_hand() -> None:
    assert value_range([np.array([0, 1000, 4000])], 3) == (0, 4095)
    assert value_range([np.array([3500, 3600])], 2) == (3500, 3600)
    assert value_range([np.array([-5.0]), np.array([5.0])], 2) == (-5, 5)
    assert value_range([np.array([np.nan])], 1) == (0, 1)
    assert value_range([], 0) == (0, 1)
    assert to_eight_bits(np.array([-1.0, 0, 0.5, 1, 9]), 0, 1).tolist() == [0, 0, 127, 255, 255]
    assert WHITES == (1, 255, 511, 1023, 2047, 4095, 8191, 16_383, 32_767, 65_535)
