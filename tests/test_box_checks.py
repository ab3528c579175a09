"""Checks of boxes: values by hand, a naive search for equal ones, invariances, planted faults, hostile values."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from audit_plugin.arrays import Boxes, dense_ids
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.inputs.boxes import boxes_of
from audit_plugin.inputs.images import NO_AREA, crop_of, is_box_fault
from audit_plugin.inputs.rows import kind_of
from audit_plugin.inputs.samples import read_samples
from audit_plugin.scoring.box_checks import (
    LEAST_OF_CLASS,
    MOST_COMPARED,
    SAME,
    BoxProblems,
    check_boxes,
    intersection_over_union,
    near_twins,
)
from benchmarks.boxes import FAULTS, found_in, plant, read_boxes

QUICK = AuditConfig(encoder="offline", device="cpu", trials=4, epochs=4)


def boxes_in(
    sides: Any, images: Sequence[int] = (), size: tuple[float, float] = (100, 100), objects: Sequence[int] = ()
) -> Boxes:
    """Boxes of one image of 100 x 100 pixels, of which a share is a percent, each of an object of its own."""
    values = np.array(sides, dtype=np.float64).reshape(-1, 4)
    n = len(values)
    return Boxes(
        rows=np.arange(n),
        images=np.array(images if len(images) else [0] * n),
        objects=np.array(objects if len(objects) else np.arange(n)),
        sides=values,
        sizes=np.tile(np.array(size, dtype=np.float64), (n, 1)),
    )


def check(boxes: Boxes, labels: Sequence[str] = (), are_classes: bool = True) -> BoxProblems:
    return check_boxes(boxes, labels or ["a"] * len(boxes), are_classes, len(boxes))


def texts_of(boxes: Boxes, labels: Sequence[str] = ()) -> list[str]:
    return list(check(boxes, labels).texts([f"id{row}" for row in range(len(boxes))]))


# --- alone -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ((0.0, 0.0, 1.0, 1.0), ""),
        ((-0.01, -0.01, 0.5, 0.5), ""),  # by one pixel
        ((0.5, 0.5, 0.51, 0.51), ""),
        ((-0.02, 0.1, 0.5, 0.5), "beyond the image (-2 to 48 of 100 pixels across, 10 to 60 of 100 down)"),
        ((0.1, 0.6, 0.2, 0.5), "beyond the image (10 to 30 of 100 pixels across, 60 to 110 of 100 down)"),
        ((0.5, 0.5, 0.02, 0.3), ""),  # two pixels
        ((0.5, 0.5, 0.015, 0.3), "tiny (50 to 51.5 of 100 pixels across, 50 to 80 of 100 down)"),
        ((0.5, 0.5, 0.0, 0.3), "the box has no area (width 0.00%, height 30.00% of the image)"),
        ((0.5, 0.5, -0.1, 0.3), "the box has no area (width -10.00%, height 30.00% of the image)"),
        ((0.5, np.nan, 0.1, 0.3), "the box holds values that no box has (0.5, nan, 0.1, 0.3)"),
        ((0.5, 0.1, np.inf, 0.3), "the box holds values that no box has (0.5, 0.1, inf, 0.3)"),
        ((0.0, 0.0, 1e300, 1e300), "beyond the image (0 to 1e+302 of 100 pixels across, 0 to 1e+302 of 100 down)"),
    ],
)
def test_where_a_box_lies(box: tuple[float, ...], text: str) -> None:
    boxes = boxes_in([box])
    assert texts_of(boxes) == [text]
    assert check(boxes).has_any.tolist() == [bool(text)]
    assert not check(boxes).notes


def test_what_many_boxes_show_is_a_style() -> None:
    sides = [(0.1, 0.1, 0.2, 0.2)] * 20
    sides[:2] = [(-0.1, 0.1, 0.3, 0.3)] * 2  # two of twenty, in images of their own
    assert check(boxes_in(sides, range(20))).has_any.sum() == 2
    sides[:3] = [(-0.1, 0.1, 0.3, 0.3)] * 3
    problems = check(boxes_in(sides, range(20)))
    assert not problems.has_any.any()
    assert problems.notes == ("15% of the boxes reach beyond their image: the style of the set, which is not flagged",)


def test_without_sizes_boxes_are_only_compared() -> None:
    sides = [(-0.5, 0.1, 0.8, 0.5), (-0.5, 0.1, 0.8, 0.5), (0.5, 0.5, 0.0001, 0.1)]
    problems = check(boxes_in(sides, size=(np.nan, np.nan)))
    assert problems.has_any.tolist() == [False, True, False]
    assert "the size of 1 image with boxes is not known" in problems.notes[0]


# --- twice -----------------------------------------------------------------------------------------------------------


def test_overlap_by_hand() -> None:
    first, second = (
        np.array([[0.0, 0.0, 4.0, 2.0]] * 4),
        np.array([[0, 0, 4, 2], [1, 0, 4, 2], [4, 0, 1, 1], [9, 9, 1, 1]]),
    )
    assert intersection_over_union(first, second).tolist() == [1, 6 / 10, 0, 0]


def test_the_second_box_of_an_object_is_named_and_two_classes_are_both() -> None:
    sides = [(0.1, 0.1, 0.5, 0.5), (0.1, 0.1, 0.5, 0.49), (0.1, 0.1, 0.5, 0.5), (0.1, 0.1, 0.5, 0.4)]
    boxes = boxes_in(sides)
    assert texts_of(boxes) == [
        "",
        "nearly the same box as id0, of the same class 'a' (overlap 98%)",
        "nearly the same box as id0, of the same class 'a' (overlap 100%)",
        "",
    ]
    many = boxes_in([*sides, *[(0.1, 0.1, 0.5, 0.5)] * 40], [0] * 4 + list(range(1, 41)))
    assert texts_of(many, ["a", "b", "a", "a", *"a" * 40])[:2] == [
        "nearly the same box as id1, of another class 'b' (overlap 98%)",
        "nearly the same box as id0, of another class 'a' (overlap 98%)",
    ]
    assert not check(boxes_in(sides, images=range(4))).has_any.any()  # each in an image of its own
    assert not check(boxes_in(sides, objects=[0] * 4)).has_any.any()  # texts of one object
    assert not check(boxes, ["a", "b", "c", "d"], are_classes=False).has_any.any()  # descriptions
    assert check(boxes, ["a", "a", "c", "d"], are_classes=False).has_any.tolist() == [False, True, False, False]
    assert check(boxes, ["a", "", "", "d"]).doubled.rows.tolist() == [-1, -1, 1, -1]  # those without a class
    assert check(boxes, ["a", "", "", "d"]).contested.rows.tolist() == [-1] * 4


def test_boxes_of_two_classes_may_be_the_style_of_a_set() -> None:
    sides = [(0.1, 0.1, 0.5, 0.5), (0.1, 0.1, 0.5, 0.5)] * 10
    problems = check(boxes_in(sides, np.arange(20) // 2), ["person", "woman"] * 10)
    assert not problems.has_any.any()
    assert problems.notes == (
        "100% of the boxes are nearly the same as one of another class: the style of the set, which is not flagged",
    )
    assert check(boxes_in(sides, np.arange(20) // 2)).has_any.sum() == 10  # a doubled box never is


def naive(boxes: Boxes, classes: np.ndarray) -> tuple[list[float], list[float]]:
    """The largest overlap with an earlier box of the class, and with any of another class, nan below `SAME`."""
    out: tuple[list[float], list[float]] = ([], [])
    for i in range(len(boxes)):
        best = [0.0, 0.0]
        for j in range(len(boxes)):
            if i == j or boxes.images[i] != boxes.images[j]:
                continue
            (a, b, w, h), (c, d, v, k) = boxes.sides[i], boxes.sides[j]
            shared = max(0.0, min(a + w, c + v) - max(a, c)) * max(0.0, min(b + h, d + k) - max(b, d))
            overlap = shared / (w * h + v * k - shared)
            if classes[i] != classes[j] or j < i:
                best[int(classes[i] != classes[j])] = max(best[int(classes[i] != classes[j])], overlap)
        for values, overlap in zip(out, best, strict=True):
            values.append(overlap if overlap >= SAME else np.nan)
    return out


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Boxes, np.ndarray]:
    """Up to 30 boxes around a few places in a few images, so that many are nearly the same."""
    n = draw(st.integers(1, 30))
    places = np.array(draw(st.lists(st.tuples(*[st.integers(1, 5)] * 4), min_size=n, max_size=n))) / 10
    noise = draw(hnp.arrays(np.float64, (n, 4), elements=st.floats(-0.02, 0.02)))
    images = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 2)))
    classes = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    spread = draw(st.sampled_from([0.0, 0.3, 1.0]))
    centers = np.array([0.2, 0.2, 0.5, 0.5]) * (1 - spread) + places * spread
    return boxes_in(centers + noise, images), classes


@settings(deadline=None, max_examples=100)
@given(crowds())
def test_near_twins_are_those_of_a_naive_search(crowd: tuple[Boxes, np.ndarray]) -> None:
    boxes, classes = crowd
    for twins, expected in zip(near_twins(boxes, classes), naive(boxes, classes), strict=True):
        at_limit = np.abs(np.nan_to_num(np.array(expected)) - SAME) < 1e-9
        np.testing.assert_allclose(twins.overlaps[~at_limit], np.array(expected)[~at_limit], rtol=1e-9)
        assert ((twins.rows >= 0) == np.isfinite(twins.overlaps)).all()


@settings(deadline=None, max_examples=50)
@given(crowds(), st.randoms(use_true_random=False), st.floats(0.5, 20))
def test_order_and_scale_of_images_do_not_matter(crowd: tuple[Boxes, np.ndarray], random: Any, scale: float) -> None:
    boxes, classes = crowd
    labels = [f"c{number}" for number in classes]
    order = np.array(random.sample(range(len(boxes)), len(boxes)))
    moved = Boxes(np.arange(len(boxes)), boxes.images[order], order, boxes.sides[order], boxes.sizes[order])
    before, after = check(boxes, labels), check(moved, [labels[row] for row in order])
    assert after.alone.tolist() == before.alone[order].tolist()
    assert (after.contested.rows >= 0).tolist() == (before.contested.rows >= 0)[order].tolist()
    larger = Boxes(boxes.rows, boxes.images, boxes.objects, boxes.sides, boxes.sizes * 1000 * scale)
    large = Boxes(boxes.rows, boxes.images, boxes.objects, boxes.sides, boxes.sizes * 1000)
    assert check(larger, labels).has_any.tolist() == check(large, labels).has_any.tolist()


def test_thousands_of_equal_boxes_need_little_memory() -> None:
    n = 5_000
    boxes = boxes_in([(0.1, 0.1, 0.5, 0.5)] * n)
    tracemalloc.start()
    problems = check(boxes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problems.has_any.tolist() == [False] + [True] * (n - 1)
    assert (problems.doubled.rows[1 : MOST_COMPARED + 1] == 0).all()
    assert peak < 1000 * n  # bytes; all pairs would have n²


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(4)), elements=st.floats(width=64)),
    st.sampled_from([(np.nan, np.nan), (1.0, 1.0), (640.0, 480.0), (1e5, 1.0)]),
)
def test_any_values_are_judged(sides: np.ndarray, size: tuple[float, float]) -> None:
    boxes = boxes_in(sides, size=size)
    problems = check(boxes, ["a", "b"] * len(boxes))
    is_none = ~(np.isfinite(sides).all(axis=1) & (sides[:, 2:] > 0).all(axis=1))
    assert problems.has_any[is_none].all()
    assert all(isinstance(text, str) for text in problems.texts([str(row) for row in range(len(boxes))]))


# --- odd for its class -----------------------------------------------------------------------------------------------


def drawn(n: int = 400, seed: int = 0, ratio: float = 1.0, spread: float = 0.3) -> Boxes:
    """One box in each of n images of 1,000 x 500 pixels, around 30 x 30 / ratio pixels."""
    rng = np.random.default_rng(seed)
    width = 0.03 * np.exp(spread * rng.normal(size=n))
    height = 2 * width / ratio * np.exp(0.1 * rng.normal(size=n))
    sides = np.stack([rng.uniform(0.05, 0.4, n), rng.uniform(0.01, 0.1, n), width, height], axis=1)
    return boxes_in(sides, np.arange(n), (1000, 500))


def test_sizes_and_shapes_that_no_other_box_of_the_class_has() -> None:
    boxes = drawn(ratio=0.4)
    clean = check(boxes)
    assert not clean.has_any.any()
    boxes.sides[3, 2:] /= 8
    boxes.sides[5, 2:] = boxes.sides[5, [3, 2]] * np.array([0.5, 2.0])  # width and height exchanged, in pixels
    boxes.sides[5, :2] = 0.01, 0.4
    problems = check(boxes)
    assert np.flatnonzero(problems.has_any).tolist() == [3, 5]
    assert problems.alone[3].startswith("odd size for the class 'a' (")
    width, height = boxes.sides[5, 2:] * (1000, 500)
    assert problems.alone[5].startswith(f"odd shape for the class 'a' (width / height {width / height:.3g}, where half")
    assert not check(boxes, [f"t{row}" for row in range(len(boxes))], are_classes=False).has_any.any()
    assert not check(boxes, [""] * len(boxes)).has_any.any()


def test_small_classes_are_not_judged() -> None:
    boxes = drawn(LEAST_OF_CLASS + 1)
    boxes.sides[0, 2:] *= 6
    assert check(boxes).has_any.tolist() == [True] + [False] * LEAST_OF_CLASS
    assert not check(boxes, ["a"] * (LEAST_OF_CLASS - 1) + ["b", "c"]).has_any.any()


def test_what_is_cut_off_at_the_edge_may_be_narrow_but_not_large() -> None:
    boxes = drawn()
    boxes.sides[0, :], boxes.sides[1, :] = (0.0, 0.05, 0.005, 0.2), (0.0, 0.0, 1.0, 1.0)
    assert np.flatnonzero(check(boxes).has_any).tolist() == [1]


def test_a_class_of_two_sizes_has_a_style() -> None:
    boxes = drawn(spread=0.05)
    boxes.sides[:40, 2:] /= 8
    problems = check(boxes)
    assert not problems.has_any.any()
    assert problems.notes == (
        "more than 5% of the boxes of 'a' have another size than most: the style of the class, which is not flagged",
    )


@pytest.mark.parametrize(("count", "flagged"), [(1, True), (9, True), (12, False), (150, False)])
def test_close_ups_are_odd_only_where_they_are_rare(count: int, flagged: bool) -> None:
    boxes = drawn(n=450)
    boxes.sides[:count] = 0.0, 0.001, 1.0, 0.99
    problems = check(boxes)
    assert problems.has_any.sum() == (count if flagged else 0)
    note = f"{count} boxes of 'a' reach from edge to edge of their image: close-ups, which are not taken for too large"
    assert (note in problems.notes) is not flagged


def test_no_boxes_have_no_problem() -> None:
    assert check_boxes(boxes_in([]), [], True, 0).has_any.tolist() == []
    assert check_boxes(boxes_in([]), ["a", "b"], True, 2).has_any.tolist() == [False, False]


# --- real boxes ------------------------------------------------------------------------------------------------------


def test_few_real_boxes_are_flagged_and_planted_faults_are_found(real_data: Path) -> None:
    clean = read_boxes(real_data / "bccd")
    before = check_boxes(*clean).has_any
    assert before.mean() < 0.01
    least = {"beyond the image": 0.99, "collapsed": 0.99, "doubled": 0.9, "another class": 0.9, "three times": 0.85}
    for name, share in least.items():
        fault = next(fault for fault in FAULTS if fault.name == name)
        boxes, labels, planted = plant(*clean[:2], fault, np.random.default_rng(1))
        found = found_in(boxes, labels)
        assert found[planted].mean() >= share, name
        assert found[~planted].mean() < 0.02, name


# --- in an audit -----------------------------------------------------------------------------------------------------


def coco(folder: Path, bad: Sequence[tuple[float, ...]]) -> Path:
    """16 images of 64 x 64 pixels with two boxes each, of two classes; `bad` boxes are added to the first image."""
    images, annotations = [], []
    for number in range(16):
        rng = np.random.default_rng(number)
        pixels = rng.integers(90, 160, (64, 64, 3))
        pixels[:28, :28], pixels[32:60, 32:60] = (200, 30, 30), (30, 30, 200)
        Image.fromarray((pixels + rng.integers(0, 40, pixels.shape)).astype(np.uint8)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        boxes = [(1, ((2, 2, 26, 26))), (2, (32, 32, 26, 26)), *((1, box) for box in bad if not number)]
        annotations += [{"image_id": number, "category_id": of, "bbox": list(box)} for of, box in boxes]
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    path = folder / "boxes.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_an_audit_of_a_manifest_flags_boxes_and_says_why(tmp_path: Path) -> None:
    manifest = coco(tmp_path, [(2, 2, 26, 27), (40, 40, 40, 20), (5, 5, 0, 9)])
    samples = read_samples(manifest)
    result = run_audit(samples, QUICK, run_dir=tmp_path / "run")
    flagged = [samples.ids[row] for row in np.flatnonzero(result.flagged("box_problem"))]
    assert flagged == ["0#3", "0#4", "0#5"]
    found = {name: result.columns["box_problem"][samples.ids.index(name)] for name in flagged}
    assert found["0#3"] == "nearly the same box as 0#1, of the same class 'red' (overlap 96%)"
    assert found["0#4"] == "beyond the image (40 to 80 of 64 pixels across, 40 to 60 of 64 down)"
    assert found["0#5"] == "its box has no area (width 0.00%, height 14.06% of the image)"
    row = samples.ids.index("0#4")
    assert result.columns["action"][row] in ("review", "relabel")
    assert found["0#4"] in result.columns["reason"][row]
    assert result.columns["action"][samples.ids.index("0#5")] == "fix"
    assert result.summary["flags"]["box_problem"] == 3


def test_boxes_in_the_values_of_images(tmp_path: Path) -> None:
    path = str(tmp_path / "turned.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by the camera: as people see it, it is high
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    values = ["", path, crop_of(path, (0.1, 0.2, 0.3, 0.4)), crop_of("no.jpg", (0, 0, 1, 1)), f"{path}\0damaged"]
    boxes = boxes_of([*values, values[2]], ["a", "b", "c", "d", "e", "c"])
    assert boxes is not None
    assert boxes.rows.tolist() == [2, 3, 5]
    assert boxes.images.tolist() == [0, 1, 0]
    assert boxes.objects.tolist() == dense_ids(["c", "d", "c"]).tolist()
    assert boxes.sides[0].tolist() == [0.1, 0.2, 0.3, 0.4]
    np.testing.assert_array_equal(boxes.sizes, [[20, 40], [np.nan, np.nan], [20, 40]])
    unread = boxes_of(values, list("abcde"), reads_files=False)
    assert unread is not None
    assert np.isnan(unread.sizes).all()
    assert boxes_of([path, ""], ["a", "b"]) is None


def test_reasons_of_boxes_that_show_nothing_are_of_one_kind() -> None:
    reasons = [f"its box has no area (width {w:.2%}, height {h:.2%} of the image)" for w, h in ((0, 0.5), (-0.1, 1e4))]
    assert len(set(map(kind_of, reasons))) == 1
    assert all(map(is_box_fault, reasons))
    assert is_box_fault(f"image: bounding box {NO_AREA} (width 0.00%, height 1.00% of the image)")
    assert is_box_fault("its bbox is [1, 2, 3]; a box has x, y, width and height in pixels")
    for other in ("image: file not found", f"image: cannot read 'its box {NO_AREA} (.jpg'", "label 'box has no area'"):
        assert not is_box_fault(other)
