"""Cropped, mirrored, bordered and gray copies are found; other pictures, look-alikes and mirror images are not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from audit_plugin.arrays import Neighbors, SampleFacts, Samples
from audit_plugin.audit.run import run_audit
from audit_plugin.encoders.pixels import measure_pixels
from audit_plugin.neighbors.altered_copies import (
    LONGEST,
    LOOKS,
    AlteredCopies,
    _look,
    altered_copies,
    find_altered_copies,
)
from audit_plugin.neighbors.neighborhood import Neighborhood
from tests.pipeline_fixtures import QUICK
from tests.test_image_checks import scene

SIZE = (256, 192)
Way = Callable[[Image.Image], Image.Image]


def cropped(share: float, left: float = 0.5, top: float = 0.5) -> Way:
    """Without so much of each side, at that place."""

    def crop(image: Image.Image) -> Image.Image:
        width, height = (round(side * (1 - share)) for side in image.size)
        x, y = round((image.width - width) * left), round((image.height - height) * top)
        return image.crop((x, y, x + width, y + height))

    return crop


WAYS: dict[str, tuple[str, Way]] = {
    "mirrored": ("mirrored", ImageOps.mirror),
    "cropped 3%": ("cropped", cropped(0.03, 0, 0)),
    "cropped 5%": ("cropped", cropped(0.05, 1, 0)),
    "cropped 10%": ("cropped", cropped(0.1, 0.3, 1)),
    "mirrored and cropped": ("mirrored and cropped", lambda image: ImageOps.mirror(cropped(0.06, 0, 1)(image))),
    "black border": ("bordered", lambda image: ImageOps.expand(image, 14, "black")),
    "white border": ("bordered", lambda image: ImageOps.expand(image, 24, "white")),
    "gray": ("gray", lambda image: image.convert("L").convert("RGB")),
    "gray and cropped": ("cropped and gray", lambda image: cropped(0.08)(image.convert("L").convert("RGB"))),
}


def found_among(
    images: list[Image.Image], texts: list[int] | None = None, user_groups: list[int] | None = None
) -> AlteredCopies:
    """Every two images are candidates, by features that put each image next to the next one of its pair."""
    n = len(images)
    pairs = np.arange(n) ^ 1  # 0 and 1, 2 and 3, ...
    others = np.stack([np.roll(np.arange(n), -shift - 1) for shift in range(3)], axis=1)
    indices = np.concatenate([pairs[:, None], others], axis=1)
    similarities = np.tile(np.array([0.97, 0.8, 0.8, 0.8], dtype=np.float32), (n, 1))
    return compared(images, Neighbors(indices, similarities), texts, user_groups)


def compared(
    images: list[Image.Image], neighbors: Neighbors, texts: list[int] | None = None, groups: list[int] | None = None
) -> AlteredCopies:
    """The altered copies among images, each a content of its own."""
    pixels, each = np.stack([measure_pixels(image) for image in images]), np.arange(len(images))
    owners, same = each if groups is None else np.array(groups), np.array(texts or [0] * len(images))[:, None]
    return altered_copies(neighbors, each, pixels, each, same, owners, lambda row: images[row])


def beside(*nearest: list[int]) -> Neighbors:
    """Each row's nearest others, and one that is far, from which the usual distance is read."""
    indices = np.array([[*rows, rows[0]] for rows in nearest])
    similarities = np.full(indices.shape, 0.97, dtype=np.float32)
    similarities[:, -1] = 0.6
    return Neighbors(indices, similarities)


@pytest.mark.parametrize("way", WAYS)
def test_altered_copies_are_found_and_named(way: str) -> None:
    kind, change = WAYS[way]
    images = [image for seed in range(6) for image in (scene(seed, SIZE), change(scene(seed, SIZE)))]
    found = found_among(images)
    assert found.source.tolist() == [-1 if row % 2 == 0 else row - 1 for row in range(12)]
    assert set(found.how[1::2]) == {kind}


@pytest.mark.parametrize("way", [way for way in WAYS if way != "mirrored"])
def test_the_one_that_lost_something_is_the_copy_wherever_it_is(way: str) -> None:
    kind, change = WAYS[way]
    found = found_among([change(scene(1, SIZE)), scene(1, SIZE), scene(2, SIZE), change(scene(2, SIZE))])
    assert (found.source.tolist(), found.how.tolist()) == ([1, -1, -1, 2], [kind, "", "", kind])


def test_of_a_mirrored_pair_the_later_row_is_the_copy() -> None:
    found = found_among([ImageOps.mirror(scene(1, SIZE)), scene(1, SIZE)])
    assert (found.source.tolist(), found.how[1]) == ([-1, 0], "mirrored")


@pytest.mark.parametrize("gain", [1.12, 1.2, 1.3, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_another_brightness_is_not_called_cropped(gain: float, seed: int) -> None:
    image = scene(seed, SIZE)
    found = found_among([image, image.point(lambda value: min(255, round(value * gain)))])
    assert set(found.how) <= {"", "altered"}


MANY = (  # copies of one image, and copies of those
    lambda image: image,
    cropped(0.05),
    cropped(0.1),
    lambda image: ImageOps.expand(image, 14, "black"),
    lambda image: image.convert("L").convert("RGB"),
    lambda image: cropped(0.08)(image.convert("L").convert("RGB")),
    lambda image: ImageOps.expand(cropped(0.06)(image), 14, "white"),
)


@pytest.mark.parametrize("seed", range(6))
def test_the_same_images_are_copies_of_the_same_one_in_any_order_of_the_rows(seed: int) -> None:
    images = [change(scene(1, SIZE)) for change in MANY]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    place = np.argsort(order)
    near = [[0, *rng.permutation([other for other in range(1, len(images)) if other != at])[:2]] for at in order]
    near = [[at for at in nearest if at != image][:2] for nearest, image in zip(near, order, strict=True)]
    found = compared([images[at] for at in order], beside(*(place[nearest].tolist() for nearest in near)))
    by_image = {int(at): found.how[row] for row, at in enumerate(order)}
    assert by_image == {
        **{0: "", 1: "cropped", 2: "cropped", 3: "bordered", 4: "gray", 5: "cropped and gray"},
        6: "cropped and bordered",
    }
    assert {int(order[source]) for source in found.source if source >= 0} == {0}


@pytest.mark.parametrize("seed", range(6))
def test_no_source_is_a_copy_however_copies_are_linked(seed: int) -> None:
    """Chains of crops and mirrored ones, each next to some of the others only."""
    rng, image = np.random.default_rng(seed), scene(1, SIZE)
    images = [image, ImageOps.mirror(image)]
    for _ in range(6):
        change = list(WAYS.values())[rng.integers(len(WAYS))][1]
        images.append(change(images[rng.integers(len(images))]))
    order = rng.permutation(len(images))
    neighbors = beside(*(rng.permutation(np.delete(np.arange(8), row))[:2].tolist() for row in range(8)))
    found = compared([images[at] for at in order], neighbors)
    copies = np.flatnonzero(found.source >= 0)
    assert len(copies)
    assert (found.source[found.source[copies]] == -1).all()


def test_of_a_chain_the_end_is_the_source_and_how_is_by_the_two() -> None:
    """The second is beside the first and the third; these are not beside each other."""
    source = scene(1, SIZE)
    images = [source, cropped(0.04)(source), cropped(0.09)(ImageOps.mirror(source))]
    neighbors = beside([1], [0], [1])
    found = compared(images, neighbors)
    assert found.source.tolist() == [-1, 0, 0]
    assert found.how.tolist() == ["", "cropped", "mirrored and cropped"]


def test_a_crop_of_a_picture_on_a_plain_ground_is_the_copy() -> None:
    """Both have a margin, and that of the crop is smaller: it was not given a border."""
    whole = ImageOps.expand(scene(1, SIZE), 40, "white")
    found = found_among([cropped(0.1)(whole), whole])
    assert (found.source.tolist(), found.how[0]) == ([1, -1], "cropped")


def test_rows_of_one_user_group_are_not_copies_of_each_other() -> None:
    images = [scene(1, SIZE), cropped(0.05)(scene(1, SIZE)), scene(2, SIZE), ImageOps.mirror(scene(2, SIZE))]
    assert found_among(images).source.tolist() == [-1, 0, -1, 2]
    assert found_among(images, user_groups=[0, 0, 1, 1]).source.tolist() == [-1] * 4
    assert found_among(images, user_groups=[0, 0, 1, 2]).source.tolist() == [-1, -1, -1, 2]


def test_a_copy_in_another_user_group_is_found_behind_those_of_its_own() -> None:
    """Slices of a group that resemble each other hide no copy, and rows of one content are judged one by one."""
    views = [scene(1, SIZE), ImageOps.mirror(scene(1, SIZE)), cropped(0.06)(scene(1, SIZE))]
    found = compared(views, beside([1, 2], [0, 2], [0, 1]), groups=[0, 0, 1])
    assert found.source.tolist() == [-1, -1, 0]
    frames = [scene(seed, SIZE) for seed in range(6)] + [cropped(0.06)(scene(0, SIZE))]
    nearest = [[1, 2, 3, 4, 6], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    found = compared(frames, beside(*(near + near[:1] * (5 - len(near)) for near in nearest)), groups=[0] * 6 + [1])
    assert found.source.tolist() == [-1] * 6 + [0]
    images = [scene(1, SIZE), cropped(0.05)(scene(1, SIZE))]
    content = np.array([0, 1, 1])
    neighbors = beside([1], [0], [0])
    pixels = np.stack([measure_pixels(images[at]) for at in content])
    texts, owners = np.zeros((3, 0), dtype=np.int64), np.array([0, 0, 1])
    copies = altered_copies(neighbors, content, pixels, content, texts, owners, lambda row: images[content[row]])
    assert copies.source.tolist() == [-1, -1, 0]


@pytest.mark.parametrize(("groups", "sources"), [(None, [-1, 0, -1, 2]), ([0, 0, 1, 2], [-1, -1, -1, 2])])
def test_groups_of_the_user_and_gone_files_reach_the_search(
    groups: list[int] | None, sources: list[int], tmp_path: Path
) -> None:
    images = [scene(1, SIZE), cropped(0.05)(scene(1, SIZE)), scene(2, SIZE), cropped(0.05)(scene(2, SIZE))]
    paths = [str(tmp_path / f"{row}.png") for row in range(4)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    near, each = beside([1], [0], [3], [2]), np.arange(4)
    neighborhood = Neighborhood({}, {"image": near}, {"image": near.similarities}, {}, {}, each)
    facts = SampleFacts(
        contents={"image": each, "text": each},
        space={},
        words={"text": each},
        user_groups=None if groups is None else np.array(groups),
        pixels=np.stack([measure_pixels(image) for image in images]),
    )
    found = find_altered_copies(paths, facts, neighborhood, each, lambda *_: None)
    assert (found.source.tolist(), found.notes) == (sources, ())
    Path(paths[2]).unlink()
    found = find_altered_copies(paths, facts, neighborhood, each, lambda *_: None)
    assert found.source.tolist() == [*sources[:3], -1]
    assert found.notes[0].startswith("1 image could not be read again: whether")


def test_few_images_are_in_memory_and_few_are_read_twice() -> None:
    """Reduced, and pair after pair of one cluster: each is read once, in whatever order the rows are."""
    count = 2 * LOOKS
    images = [image for at in range(count // 2) for image in (scene(at, (64, 48)), cropped(0.06)(scene(at, (64, 48))))]
    order = np.random.default_rng(0).permutation(count)
    place = np.argsort(order)
    neighbors = beside(*([int(place[at ^ 1])] for at in order))
    pixels, each = np.stack([measure_pixels(images[at]) for at in order]), np.arange(count)
    reads, steps = [], []

    def read(row: int) -> Image.Image:
        reads.append(row)
        return images[order[row]]

    texts = np.zeros((count, 0), dtype=np.int64)
    found = altered_copies(neighbors, each, pixels, each, texts, each, read, lambda *step: steps.append(step))
    assert (found.source >= 0).sum() == count // 2
    assert sorted(reads) == list(range(count))
    assert steps == [("compare images", at + 1, count // 2) for at in range(count // 2)]


def test_a_large_image_is_reduced_before_it_is_kept() -> None:
    seen = _look(scene(1, (4000, 3000)))
    assert max(seen.image.size) <= LONGEST


def test_other_pictures_and_variants_are_none() -> None:
    recolored = Image.merge("RGB", scene(3, SIZE).split()[::-1])
    changed = scene(4, SIZE)
    changed.paste("black", (100, 80, 140, 120))
    upside_down = ImageOps.flip(scene(5, SIZE))
    images = [scene(1, SIZE), scene(2, SIZE), scene(3, SIZE), recolored, scene(4, SIZE), changed]
    images += [scene(5, SIZE), upside_down, scene(6, SIZE), cropped(0.4)(scene(6, SIZE))]
    assert found_among(images).source.tolist() == [-1] * 10


def test_mirror_images_with_different_texts_are_different_things() -> None:
    images = [scene(1, SIZE), ImageOps.mirror(scene(1, SIZE))]
    assert found_among(images, [0, 1]).source.tolist() == [-1, -1]
    assert found_among(images, [7, 7]).source.tolist() == [-1, 0]
    both = [scene(2, SIZE), cropped(0.05)(scene(2, SIZE))]
    assert found_among(both, [0, 1]).source.tolist() == [-1, 0]  # a cropped one shows the same


def test_a_crop_with_another_text_of_a_mirrored_copy_is_a_copy_of_its_source() -> None:
    mirrored = ImageOps.mirror(scene(1, SIZE))
    found = compared([scene(1, SIZE), mirrored, cropped(0.06)(mirrored)], beside([1], [0], [1]), texts=[7, 7, 8])
    assert found.source.tolist() == [-1, 0, 0]
    assert found.how[2] == "mirrored and cropped"


def test_contents_of_many_rows_are_compared_in_time() -> None:
    """Linear in the rows: of a mirrored pair in 40,000 rows each, all of other texts, none is a copy."""
    images, n = [scene(1, SIZE), ImageOps.mirror(scene(1, SIZE))], 80_000
    content = np.arange(n) % 2
    pixels = np.stack([measure_pixels(image) for image in images])[content]
    neighbors = Neighbors(np.stack([1 - content] * 2, axis=1), np.tile(np.float32([0.97, 0.6]), (n, 1)))
    texts, each = np.arange(n)[:, None], np.arange(n)
    began = time.process_time()
    found = altered_copies(neighbors, content, pixels, content, texts, each, lambda row: images[content[row]])
    assert not (found.source >= 0).any()
    assert time.process_time() - began < 20


def test_known_copies_unread_images_and_rows_of_one_content() -> None:
    images = [scene(1, SIZE), cropped(0.05)(scene(1, SIZE))]
    similarities = np.tile(np.array([0.99, 0.5], dtype=np.float32), (3, 1))
    neighbors = Neighbors(np.array([[1, 1], [0, 0], [1, 1]]), similarities)
    pixels = np.stack([measure_pixels(images[at]) for at in (0, 1, 0)])
    content, texts = np.array([0, 1, 0]), np.zeros((3, 0), dtype=np.int64)

    def found(groups: list[int], read: Callable[[int], Image.Image | None]) -> list[int]:
        groups_known = np.array(groups)
        return altered_copies(neighbors, content, pixels, groups_known, texts, np.arange(3), read).source.tolist()

    assert found([0, 1, 0], lambda row: images[content[row]]) == [-1, 0, -1]
    assert found([0, 0, 0], lambda row: images[content[row]]) == [-1, -1, -1]
    assert found([0, 1, 0], lambda _: None) == [-1, -1, -1]
    unmeasured = np.full_like(pixels, np.nan)
    copies = altered_copies(neighbors, content, unmeasured, content, texts, np.arange(3), lambda _: None)
    assert copies.source.tolist() == [-1] * 3


def test_an_audit_names_the_copies_of_photographs_and_their_sources(real_data: Path, tmp_path: Path) -> None:
    files = sorted((real_data / "clothing").rglob("*.jpg"))[::20][:150]
    images = [Image.open(file).convert("RGB") for file in files]
    texts = [f"photograph number {row} of the shop" for row in range(len(files))]
    for row, (_, change) in enumerate(WAYS.values()):
        images.append(change(images[10 * row]))
        texts.append(texts[10 * row])
    paths = []
    for row, image in enumerate(images):
        image.save(tmp_path / f"{row}.png")
        paths.append(str(tmp_path / f"{row}.png"))
    samples = Samples(tuple(f"s{row}" for row in range(len(paths))), {"image": tuple(paths), "text": tuple(texts)})
    result = run_audit(samples, replace(QUICK, trials=8), run_dir=tmp_path / "run")
    named = {}
    for row in np.flatnonzero(result.flagged("likely_copy")):
        how, source = result.columns["copy_of"][row].split(" copy of ")
        named[frozenset((result.ids[row], source))] = how
    expected = {frozenset((f"s{10 * at}", f"s{150 + at}")): kind for at, (kind, _) in enumerate(WAYS.values())}
    assert {pair: how for pair, how in named.items() if pair in expected}.items() <= expected.items()
    assert len(expected.keys() - named.keys()) <= 1  # features may put another photograph nearer
    assert named.keys() <= expected.keys()
    flagged = np.flatnonzero(result.flagged("likely_copy"))
    assert all(result.columns["action"][flagged] != "keep")
