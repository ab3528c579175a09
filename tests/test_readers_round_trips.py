"""What is exported is read back as the input minus the removals: folders, boxes and captions of COCO."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_plugin.arrays import Samples
from audit_plugin.audit.export import ManifestSource, SamplesSource, ScoreTable, export_rows
from audit_plugin.inputs.images import crop_of, read_image_or_crop
from audit_plugin.inputs.rows import MISSING
from audit_plugin.inputs.samples import read_samples
from tests.readers_fixtures import BOXED, pairs, picture, voc, write

# --- round trips -----------------------------------------------------------------------------------------------------


def scores_of(samples: Samples, removed: Sequence[bool]) -> ScoreTable:
    action = np.array(["remove" if each else "keep" for each in removed], dtype=object)
    captions = np.asarray(samples.caption) if len(samples.caption) else np.zeros(0)
    return ScoreTable(np.array(samples.ids, dtype=object), captions, {"action": action}, {}, "scores")


def examples(count: int) -> Any:
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
LABEL = NAME.map(str.strip).filter(lambda text: text and text not in MISSING and not text.startswith("["))
SHARE = st.integers(1, 98).map(lambda percent: percent / 100)


@st.composite
def objects(draw: Any) -> list[tuple[str, int, tuple[float, float, float, float], str, bool]]:
    """(id, number of its image, box, label, is removed) of some objects."""
    rows = []
    for name in draw(st.lists(NAME, min_size=1, max_size=8, unique=True)):
        x, y = draw(SHARE), draw(SHARE)
        box = (x, y, (1 - x) * draw(SHARE), (1 - y) * draw(SHARE))
        rows.append((name, draw(st.integers(0, 2)), box, draw(LABEL), draw(st.booleans())))
    return rows


@pytest.mark.parametrize("form", ["coco", "yolo"])
@examples(20)
@given(rows=objects())
def test_boxes_read_back_as_the_input_minus_the_removals(form, rows):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = [picture(folder / f"{number}.png", 400 + number, 300) for number in range(3)]
        samples = Samples(
            tuple(row[0] for row in rows),
            {
                "image": tuple(crop_of(str(images[row[1]]), row[2]) for row in rows),
                "text": tuple(row[3] for row in rows),
            },
        )
        out = folder / "out"
        export_rows(scores_of(samples, [row[4] for row in rows]), SamplesSource(samples), out, form)
        staying = {row[0]: row for row in rows if not row[4]}
        if not staying:
            return
        after = read_samples(out)
        assert not after.problems
        assert set(after.ids) == set(staying)
        assert len(after.ids) == len(staying)
        for own, (value, text) in pairs(after).items():
            _, number, box, label, _ = staying[own]
            path, sides = str(value).split("\0")
            assert text == label
            assert Path(path).read_bytes() == images[number].read_bytes()
            # COCO notes hundredths of a pixel
            assert np.allclose([float(side) for side in sides.split(",")], box, atol=1e-4)


@examples(20)
@given(texts=st.lists(st.tuples(NAME, LABEL, LABEL, st.booleans()), min_size=1, max_size=6, unique_by=lambda t: t[0]))
def test_captions_of_coco_read_back_as_the_input_minus_the_removals(texts):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = [picture(folder / f"{number}.png", 10 + number, 8) for number in range(len(texts))]
        samples = Samples(
            tuple(text[0] for text in texts for _ in range(2)),
            {
                "image": tuple(str(image) for image in images for _ in range(2)),
                "text": tuple(caption for text in texts for caption in text[1:3]),
            },
            caption=(0, 1) * len(texts),
        )
        out = folder / "out"
        removed = [gone for text in texts for gone in (text[3], False)]
        export_rows(scores_of(samples, removed), SamplesSource(samples), out, "coco")
        after = read_samples(out)
        staying = [row for row in range(len(removed)) if not removed[row]]
        before = [samples.media["text"][row] for row in staying]
        assert list(after.ids) == [samples.ids[row] for row in staying]
        assert list(after.media["text"]) == before
        assert [Path(str(p)).read_bytes() for p in after.media["image"]] == [
            Path(str(samples.media["image"][row])).read_bytes() for row in staying
        ]


@pytest.mark.parametrize("form", ["hf-folder", "hf-parquet", "webdataset", "coco", "csv", "jsonl", "parquet"])
def test_an_image_folder_leaves_in_each_format_and_comes_back(tmp_path, form):
    source = tmp_path / "in"
    for number in range(6):
        picture(source / "train" / f"class {number % 2}" / f"é{number}.png", 10 + number, 9)
    before = read_samples(source)
    removed = [False, True, False, False, False, True]
    out = tmp_path / (f"out.{form}" if form in ("csv", "jsonl", "parquet") else "out")
    export_rows(scores_of(before, removed), ManifestSource(source, BOXED), out, form)
    after = read_samples(out)
    staying = [row for row in range(6) if not removed[row]]
    if form != "webdataset":  # whose keys are safe names
        assert list(after.ids) == [before.ids[row] for row in staying]
    assert list(after.media["text"]) == [before.labels[row] for row in staying]
    assert [len(read_image_or_crop(str(p)).tobytes()) for p in after.media["image"]] == [
        (10 + int(Path(str(before.media["image"][row])).stem[-1])) * 9 * 3 for row in staying
    ]


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_boxes_of_voc_leave_and_come_back(tmp_path, form):
    source = tmp_path / "in"
    for name in "ab":
        picture(source / "JPEGImages" / f"{name}.png", 40, 20)
        boxes = [("cat", (10, 0, 30, 20)), ("dog", (0, 0, 40, 10)), ("cat", (0, 0, 20, 10))]
        write(source / "Annotations" / f"{name}.xml", voc(f"{name}.png", boxes))
    before = read_samples(source)
    removed = [False, True, False, False, False, False]
    export_rows(scores_of(before, removed), ManifestSource(source, BOXED), tmp_path / "out", form)
    after = read_samples(tmp_path / "out")
    staying = [row for row in range(6) if not removed[row]]
    assert list(after.ids) == [before.ids[row] for row in staying]
    assert list(after.labels) == [before.labels[row] for row in staying]
    sides = [str(value).split("\0")[1] for value in after.media["image"]]
    assert sides == [str(before.media["image"][row]).split("\0")[1] for row in staying]
