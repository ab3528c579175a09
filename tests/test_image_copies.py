from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from audit_plugin.arrays import Neighbors
from audit_plugin.neighbors import exact_search, image_copies
from audit_plugin.neighbors.image_copies import SIDE, copy_groups, difference, signature
from audit_plugin.synthetic.oddities import COPY_WAYS, altered
from tests.core_fixtures import unit


def drawing(seed: int, marks: int = 14) -> Image.Image:
    """A drawing of colored discs on white, 96 pixels wide."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (96, 96), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(marks):
        x, y, r = rng.integers(5, 90), rng.integers(5, 90), rng.integers(5, 20)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def reencoded(image: Image.Image) -> Image.Image:
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=90)
    return Image.open(packed).convert("RGB")


def varied(image: Image.Image) -> Image.Image:
    """The same drawing with one patch of it otherwise."""
    other = image.copy()
    ImageDraw.Draw(other).rectangle(
        (40, 40, 56, 56), fill=(0, 255, 0) if image.getpixel((48, 48))[1] < 128 else "black"
    )
    return other


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "same": lambda image: image,
    "re-encoded": reencoded,
    "resized": lambda image: image.resize((90, 90), Image.Resampling.BICUBIC),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.05),
    "cropped": lambda image: image.crop((1, 1, 96, 96)),
}


def apart(left: Image.Image, right: Image.Image) -> float:
    one = difference(signature(left)[None], signature(right)[None])
    other = difference(signature(right)[None], signature(left)[None])
    assert one == pytest.approx(other)
    return float(one[0])


@pytest.mark.parametrize("way", WAYS)
def test_altered_copies_are_within_what_is_allowed(way: str) -> None:
    assert max(apart(drawing(seed), WAYS[way](drawing(seed))) for seed in range(20)) <= 1


def test_another_picture_and_a_variant_of_the_same_one_are_not() -> None:
    assert min(apart(drawing(seed), drawing(seed + 1)) for seed in range(20)) > 1
    assert min(apart(drawing(seed), varied(drawing(seed))) for seed in range(20)) > 1


def clock(turn: float, side: int = 64) -> Image.Image:
    """A dial with one thin hand."""
    image = Image.new("RGB", (4 * side, 4 * side), "white")
    pen, middle = ImageDraw.Draw(image), 2 * side
    pen.ellipse((8, 8, 4 * side - 8, 4 * side - 8), fill=(224, 231, 240), outline=(150, 170, 180), width=24)
    end = (middle + 1.3 * side * np.cos(turn), middle + 1.3 * side * np.sin(turn))
    pen.line((middle, middle, *end), fill=(100, 115, 125), width=12)
    return image.resize((side, side), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("way", COPY_WAYS)
def test_copies_of_a_clock_are_found_and_another_hour_is_none(way: str) -> None:
    for hour in range(12):
        shown = clock(hour * np.pi / 6, 256)
        packed = io.BytesIO()
        shown.save(packed, "PNG")
        copy = Image.open(io.BytesIO(altered(packed.getvalue(), way)))
        assert apart(shown, copy) <= 1
        assert apart(clock((hour + 1) * np.pi / 6, 256), copy) > 1


def naive(left: np.ndarray, right: np.ndarray, busy: float, gain: float) -> float:
    """One direction, patch by patch, for values `[side, side, channels]`."""
    side, worst = len(left), 0.0
    for y, x, c in np.ndindex(left.shape):
        near = left[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2, c]
        wide = left[max(y - 2, 0) : min(y + 3, side), max(x - 2, 0) : min(x + 3, side), c]
        value = min(right[y, x, c] * gain, 255)
        beyond = max(value - near.max(), near.min() - value)
        worst = max(worst, beyond / (255 * image_copies.PLAIN + busy * (wide.max() - wide.min())))
    return worst


def test_the_difference_is_the_worst_patch_of_grey_and_of_color_in_the_better_direction() -> None:
    rng = np.random.default_rng(0)
    left = rng.integers(0, 200, (SIDE, SIDE, 3)).astype(np.uint8)
    right = np.clip(left + rng.normal(0, 25, left.shape), 0, 200).astype(np.uint8)
    gains = [
        float(np.clip((a * b).sum() / (b * b).sum(), *image_copies.GAIN))
        for a, b in (
            (left[::2, ::2].astype(float), right[::2, ::2].astype(float)),
            (right[::2, ::2].astype(float), left[::2, ::2].astype(float)),
        )
    ]
    worst = []
    for make, busy in ((grey, image_copies.BUSY_GREY), (halved, image_copies.BUSY_COLOR)):
        a, b = make(left), make(right)
        worst.append(min(naive(a, b, busy, gains[0]), naive(b, a, busy, gains[1])))
    assert difference(left[None], right[None])[0] == pytest.approx(max(worst), rel=1e-4)


def grey(values: np.ndarray) -> np.ndarray:
    return (values.astype(float) @ [0.299, 0.587, 0.114])[..., None]


def halved(values: np.ndarray) -> np.ndarray:
    v = values.astype(float)
    return (v[::2, ::2] + v[1::2, ::2] + v[::2, 1::2] + v[1::2, 1::2]) / 4


def test_another_color_of_the_same_brightness_is_no_copy() -> None:
    """Two flags: the same stripes, one in another red."""
    red, other = (Image.new("RGB", (64, 64), "white") for _ in range(2))
    ImageDraw.Draw(red).rectangle((0, 0, 63, 31), fill=(200, 40, 60))
    ImageDraw.Draw(other).rectangle((0, 0, 63, 31), fill=(40, 122, 60))
    assert apart(red, other) > 1


@pytest.mark.parametrize("size", [(96, 96), (5, 7), (1, 1), (300, 4)])
def test_a_signature_has_one_shape_whatever_the_picture(size: tuple[int, int]) -> None:
    values = signature(Image.new("RGB", size, (255, 0, 51)))
    assert values.shape == (SIDE, SIDE, 3)
    assert values.dtype == np.uint8
    assert (values == [255, 0, 51]).all()


def grouped(unreadable: tuple[int, ...] = ()) -> tuple[np.ndarray, list[int]]:
    """30 drawings; 0, 1, 2 copies, 3 a variant of 0, 4 and 5 one content; features find 0 to 3 alike. (groups, read)"""
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((30, 48)))
    vectors[1:4] = unit(vectors[0] + 0.01 * rng.standard_normal((3, 48)))
    vectors[5] = vectors[4]
    content = np.r_[0:5, 4, 5:29]
    pictures = [drawing(i) for i in range(30)]
    pictures[1:4] = WAYS["cropped"](pictures[0]), WAYS["re-encoded"](pictures[0]), varied(pictures[0])
    groups = np.r_[0, 0, 0, 0, 1, 1, 2:26]
    read: list[int] = []

    def look(row: int) -> Image.Image | None:
        read.append(row)
        return None if row in unreadable else pictures[row]

    first = np.unique(content, return_index=True)[1]
    among = exact_search(vectors[first], 8)
    near = Neighbors(first[among.indices][content], among.similarities[content])
    return copy_groups(near, content, groups, look), read


def test_pixels_tell_copies_from_a_look_alike_and_only_near_pictures_are_read() -> None:
    groups, read = grouped()
    assert groups.tolist() == [0, 0, 0, 1, 2, 2, *range(3, 27)]
    assert sorted(read) == [0, 1, 2, 3]


def test_pictures_that_were_let_go_are_read_again_with_equal_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    before = grouped()[0]
    monkeypatch.setattr(image_copies, "LOOKS", 1)
    groups, read = grouped()
    assert groups.tolist() == before.tolist()
    assert len(read) > len(set(read))


def test_a_picture_that_is_gone_keeps_the_group_that_features_gave_it() -> None:
    assert grouped(unreadable=(0, 1, 2, 3))[0].tolist() == [0, 0, 0, 0, 1, 1, *range(2, 26)]


def test_without_rows_there_are_no_groups() -> None:
    nothing = Neighbors(np.zeros((0, 3), int), np.zeros((0, 3), np.float32))
    assert copy_groups(nothing, np.zeros(0, int), np.zeros(0, int), lambda _: None).tolist() == []


def test_all_members_of_a_group_are_copies_of_one_of_them() -> None:
    """Grey cards 10 levels apart: the near ones are copies, the first and the last are not."""
    vectors = unit(np.eye(6)[:1] + 1e-4 * np.random.default_rng(1).standard_normal((6, 6)))
    content = np.arange(6)
    cards = [Image.new("RGB", (64, 64), (250 - 10 * i,) * 3) for i in range(6)]
    near = exact_search(vectors, 5)
    groups = copy_groups(near, content, np.zeros(6, int), lambda row: cards[row])
    signatures = np.stack([signature(card) for card in cards])
    copies = np.array([difference(signatures[[i] * 6], signatures) <= 1 for i in range(6)])
    assert copies.sum() > 6
    assert not copies[0, 5]
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        assert copies[np.ix_(members, members)].all(axis=1).any()
