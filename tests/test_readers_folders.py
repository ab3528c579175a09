"""Folders of images as people have them: by class, with texts, with boxes of COCO, VOC and YOLO, with metadata."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.export import ManifestSource, SamplesSource, ScoreTable, export_rows
from audit_plugin.inputs.images import crop_of, read_image_or_crop
from audit_plugin.inputs.readers import READERS
from audit_plugin.inputs.readers.folders import names_of, split_in
from audit_plugin.inputs.readers.voc import parsed_xml
from audit_plugin.inputs.readers.yolo import parsed_box
from audit_plugin.inputs.rows import MISSING
from audit_plugin.inputs.samples import read_samples

BOXED = {"image": "image", "text": "label"}


def picture(path: Path, width: int = 40, height: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (width % 256, height % 256, 7)).save(path)
    return path


def write(path: Path, content: object) -> Path:
    """A text, or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def pairs(samples: Samples) -> dict[str, tuple[str | None, str | None]]:
    """Id -> (image, text)."""
    return dict(zip(samples.ids, zip(samples.media["image"], samples.media["text"], strict=True), strict=True))


# --- real photographs ------------------------------------------------------------------------------------------------


def test_real_photographs_by_class(real_data):
    samples = read_samples(real_data / "clothing")
    files = sorted(str(path) for path in (real_data / "clothing").rglob("*.jpg"))
    assert sorted(samples.media["image"]) == files  # type: ignore[type-var]
    assert len(samples.ids) == len(set(samples.ids)) == 3781
    assert samples.labels == samples.media["text"]
    assert len(set(samples.labels)) == 10
    assert Counter(samples.splits) == {"train": 3068, "test": 372, "validation": 341}
    assert not samples.problems
    assert "read as images in folders of 10 classes in 3 splits" in samples.notes[0]


def test_real_boxes(real_data):
    samples = read_samples(real_data / "bccd")
    counts = Counter(samples.labels)
    assert {name: counts[name] for name in ("RBC", "WBC", "Platelets")} == {"RBC": 4153, "WBC": 372, "Platelets": 361}
    assert (
        sorted(samples.problems.values())
        == [  # two cells of the original have none
            "its box has no area (width 0.00%, height 0.00% of the image)"
        ]
        * 2
    )
    assert samples.ids[0] == "BloodImage_00000#1"
    # xmin 260, ymin 177, xmax 491, ymax 376, with a tenth of 231 x 199 on each side
    assert read_image_or_crop(samples.media["image"][0]).size == (277, 239)
    assert samples.groups[0] == "JPEGImages/BloodImage_00000.jpg"
    assert len(set(samples.groups) - {""}) == 364


# --- a folder per class ----------------------------------------------------------------------------------------------


def test_folders_of_classes(tmp_path):
    for name in ("cat/1.jpg", "cat/1.png", "cat/deep/2.jpg", "big_dog/1.JPG", ".git/x.jpg", "__MACOSX/cat/1.jpg"):
        picture(tmp_path / name)
    write(tmp_path / "README.txt", "hello")
    samples = read_samples(tmp_path)
    assert samples.ids == ("big_dog/1", "cat/1.jpg", "cat/1.png", "cat/deep/2")
    assert samples.labels == samples.media["text"] == ("big_dog", "cat", "cat", "cat")
    assert samples.media["image"][0] == str(tmp_path / "big_dog" / "1.JPG")
    assert not samples.splits


@pytest.mark.parametrize("splits", [("train", "val"), ("Training", "Testing"), ("train2017", "valid"), ("dev", "test")])
def test_folders_of_classes_in_splits(tmp_path, splits):
    for split in splits:
        for label in ("a", "b"):
            picture(tmp_path / split / label / "1.jpg")
    picture(tmp_path / "extra" / "1.jpg")
    samples = read_samples(tmp_path)
    assert Counter(samples.splits) == dict.fromkeys(splits, 2)
    assert Counter(samples.labels) == {"a": 2, "b": 2}
    assert any("extra" in note for note in samples.notes)


def test_splits_without_classes_are_no_classes(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "1.jpg")
    with pytest.raises(AuditError, match="holds nothing that is known"):
        read_samples(tmp_path)
    with pytest.raises(AuditError, match="no folders with images; put those of each class into one"):
        read_samples(tmp_path, format="image-folder")


def test_links_are_followed_once_and_confined_by_a_media_root(tmp_path):
    picture(tmp_path / "set" / "cat" / "1.jpg")
    picture(tmp_path / "elsewhere" / "2.jpg")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "cat" / "loop").symlink_to(tmp_path / "set")
    assert read_samples(tmp_path / "set").ids == ("cat/1", "dog/2")
    samples = read_samples(tmp_path / "set", media_root=tmp_path / "set")
    assert list(samples.problems) == [1]
    assert "outside of the media root" in samples.problems[1]


def test_pipes_and_devices_under_the_names_of_manifests_are_not_opened(tmp_path):
    (tmp_path / "annotations").mkdir()
    for name in ("data.yaml", "a.xml", "metadata.csv", "annotations/instances.json"):
        os.mkfifo(tmp_path / name)
    for form in ("yolo", "coco", "hf-folder"):
        with pytest.raises(AuditError):
            read_samples(tmp_path, format=form)
    assert "a named pipe" in read_samples(tmp_path, format="voc").problems[0]


def test_files_whose_names_are_not_utf8_are_rows_with_a_reason(tmp_path):
    picture(tmp_path / "a" / "1.jpg")
    image = picture(tmp_path / "b" / "1.jpg")
    try:
        os.rename(image, os.fsencode(image.parent) + b"/\xff.jpg")
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    samples = read_samples(tmp_path)
    assert "is not UTF-8" in samples.problems[1]
    "".join(samples.ids).encode()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["a.jpg", "a.png"], ["a.jpg", "a.png"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg", "a.png", "a.jpg'"]),
        (["x/a.jpg", "x/a.jpg"], ["x/a.jpg", "x/a.jpg'"]),
        (["a.b.jpg"], ["a.b"]),
    ],
)
def test_names_tell_files_apart(paths, names):
    assert names_of(paths) == names


@given(st.lists(st.text(min_size=1, max_size=5)))
def test_names_are_never_equal(paths):
    assert len(set(names_of(paths))) == len(paths)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_val2017", "val"),
        ("captions_train2014", "train"),
        ("test", "test"),
        ("retrain", ""),
        ("trainval", ""),
        ("train_and_test", ""),
        ("validation-00", "validation"),
    ],
)
def test_splits_in_names(name, split):
    assert split_in(name) == split


# --- texts beside images ---------------------------------------------------------------------------------------------


def test_texts_beside_images(tmp_path):
    for number in range(4):
        picture(tmp_path / "00000" / f"00000000{number}.jpg")
        write(tmp_path / "00000" / f"00000000{number}.json", {"caption": "other", "url": "u"})
    write(tmp_path / "00000" / "000000000.txt", "a dog\n")
    write(tmp_path / "00000" / "000000001.txt", "\ufeffein Hund, größer")
    write(tmp_path / "00000" / "000000002.caption", "two\nlines")
    write(tmp_path / "00000" / "alone.txt", "no image")
    write(tmp_path / "00000_stats.json", {"count": 3})
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    samples = read_samples(tmp_path)
    assert samples.media["text"] == ("a dog", "ein Hund, größer", "two\nlines", None)
    assert samples.ids[0] == "00000/000000000"
    assert any("1 text without its image" in note for note in samples.notes)


def test_texts_that_cannot_be_read_are_rows_with_a_reason(tmp_path):
    for number in range(12):
        picture(tmp_path / f"{number:02d}.png")
        write(tmp_path / f"{number:02d}.txt", "fine")
    (tmp_path / "00.txt").write_bytes(b"caf\xe9")
    (tmp_path / "01.txt").write_text("x" * (1 << 20) + "y")
    (tmp_path / "02.txt").unlink()
    os.mkfifo(tmp_path / "02.txt")
    samples = read_samples(tmp_path)
    assert ["is not UTF-8" in samples.problems[0], "the limit" in samples.problems[1]] == [True, True]
    assert "02.txt" in samples.problems[2]
    assert sorted(samples.problems) == [0, 1, 2]


def test_boxes_beside_images_are_not_taken_for_captions(tmp_path):
    picture(tmp_path / "a.png")
    write(tmp_path / "a.txt", "0 0.5 0.5 0.25 0.5\n")
    with pytest.raises(AuditError, match=r"boxes of YOLO; add a data\.yaml"):
        read_samples(tmp_path)
    write(tmp_path / "data.yaml", "train: .\nnames: [cat]")
    samples = read_samples(tmp_path)
    assert samples.labels == ("cat",)


# --- COCO ------------------------------------------------------------------------------------------------------------


def coco(images: Sequence[Any], annotations: Sequence[Any], categories: Sequence[Any] = ()) -> dict[str, Any]:
    return {"info": {}, "images": list(images), "annotations": list(annotations), "categories": list(categories)}


def captions(names: Sequence[str], count: int = 2) -> dict[str, Any]:
    return coco(
        [{"id": i, "file_name": name, "width": 40, "height": 20} for i, name in enumerate(names)],
        [{"id": j, "image_id": j % len(names), "caption": f"caption {j}"} for j in range(count * len(names))],
    )


def instances(names: Sequence[str]) -> dict[str, Any]:
    """A box of half the width and all of the height in each image."""
    return coco(
        [{"id": i, "file_name": name, "width": 40, "height": 20} for i, name in enumerate(names)],
        [{"id": i, "image_id": i, "category_id": 3, "bbox": [10, 0, 20, 20]} for i in range(len(names))],
        [{"id": 3, "name": "cat"}],
    )


@pytest.mark.parametrize("columns", [None, {"image": "file_name", "text": "caption"}])
@pytest.mark.parametrize("indent", [None, 1])
def test_coco_captions(tmp_path, columns, indent):
    names = ["a.png", "b.png"]
    for name in names:
        picture(tmp_path / "img" / name)
    document = captions([f"img/{name}" for name in names])
    document["images"].append({"id": 99, "file_name": "img/c.png"})
    write(tmp_path / "coco.json", json.dumps(document, indent=indent))
    samples = read_samples(tmp_path / "coco.json", columns)
    assert samples.ids == ("img/a", "img/a", "img/b", "img/b")
    assert samples.media["text"] == ("caption 0", "caption 2", "caption 1", "caption 3")
    assert list(samples.caption) == [0, 1, 0, 1]
    assert samples.media["image"][0] == str(tmp_path / "img" / "a.png")
    assert any("1 image without an annotation" in note for note in samples.notes)


@pytest.mark.parametrize(
    ("document", "image"),
    [
        ("coco.json", "a.png"),
        ("coco.json", "images/a.png"),
        ("coco.json", "train2017/a.png"),
        ("annotations/instances_val2017.json", "val2017/a.png"),
        ("annotations/instances_val2017.json", "images/val2017/a.png"),
        ("annotations/instances.json", "a.png"),
        ("annotations/instances.json", "anything/a.png"),
        ("train/_annotations.coco.json", "train/a.png"),
    ],
)
@pytest.mark.parametrize("as_folder", [False, True])
def test_coco_finds_its_images(tmp_path, document, image, as_folder):
    picture(tmp_path / image)
    path = write(tmp_path / document, instances(["a.png"]))
    samples = read_samples(tmp_path if as_folder else path)
    assert samples.media["image"] == (crop_of(str(tmp_path / image), (0.25, 0, 0.5, 1)),)
    assert samples.labels == samples.media["text"] == ("cat",)
    assert samples.ids == ("a#1",)
    assert read_image_or_crop(samples.media["image"][0]).size == (24, 20)  # with a tenth of 20 on each side


def test_coco_takes_no_image_of_another_split(tmp_path):
    picture(tmp_path / "train2017" / "a.png")
    write(tmp_path / "annotations" / "instances_val2017.json", instances(["a.png"]))
    samples = read_samples(tmp_path)
    assert "train2017" not in samples.media["image"][0]


def test_coco_of_several_splits(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / f"{split}2017" / "a.png")
        write(tmp_path / "annotations" / f"instances_{split}2017.json", instances(["a.png"]))
        write(tmp_path / "annotations" / f"person_keypoints_{split}2017.json", instances(["a.png"]))
    samples = read_samples(tmp_path)
    assert samples.splits == ("train", "val")
    assert samples.ids == ("train/a#1", "val/a#1")
    assert samples.groups == ("train2017/a.png", "val2017/a.png")
    assert any("left out: person_keypoints_train2017.json" in note for note in samples.notes)
    write(tmp_path / "annotations" / "captions_train2017.json", captions(["a.png"]))
    with pytest.raises(AuditError, match="captions and boxes"):
        read_samples(tmp_path)


def test_coco_says_what_it_does_not_read(tmp_path):
    picture(tmp_path / "a.png")
    document = instances(["a.png"])
    document["annotations"][0] |= {"segmentation": [[1, 2, 3, 4, 5, 6]], "keypoints": [1, 2, 2]}
    samples = read_samples(write(tmp_path / "c.json", document))
    assert any("1 annotations have a segmentation" in note for note in samples.notes)
    assert any("1 annotations have a keypoints" in note for note in samples.notes)


def test_coco_measures_images_whose_size_is_not_noted(tmp_path):
    picture(tmp_path / "a.png", 40, 20)
    document = instances(["a.png"])
    document["images"][0] |= {"width": None, "height": 0}
    samples = read_samples(write(tmp_path / "c.json", document))
    assert samples.media["image"] == (crop_of(str(tmp_path / "a.png"), (0.25, 0, 0.5, 1)),)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_id": 77}, "belongs to no image"),
        ({"image_id": [1]}, "belongs to no image"),
        ({"bbox": [1, 2, 3]}, "its bbox is"),
        ({"bbox": ["1", 2, 3, 4]}, "its bbox is"),
        ({"bbox": [1, 2, 0, 4]}, "no area"),
        ({"bbox": [1, 2, -3, 4]}, "no area"),
        ({"bbox": [100, 2, 3, 4]}, "outside of the image"),
        ({"bbox": [1, 2, float("nan"), 4]}, "its bbox is"),
        ({"bbox": [1e300, 2, 3, 4]}, "its bbox is"),
        ({"bbox": [10**400, 2, 3, 4]}, "its bbox is"),
    ],
)
def test_bad_annotations_of_coco_are_rows_with_a_reason(tmp_path, change, reason):
    names = [f"{number}.png" for number in range(20)]
    for name in names:
        picture(tmp_path / name)
    document = instances(names)
    document["annotations"][3] |= change
    samples = read_samples(write(tmp_path / "c.json", document))
    assert len(samples.ids) == 20
    assert len(samples.problems) == 1
    assert reason in next(iter(samples.problems.values()))


OUTSIDE = ["../up.png", "/etc/passwd", "a/../../b.png", "C:\\x.png", "..\\up.png", "http://x.org/a.png", "", "a\0b.png"]


@pytest.mark.parametrize("name", [*OUTSIDE, 5, None, ["a.png"], "x" * 5000])
def test_names_that_lead_out_are_rows_with_a_reason(tmp_path, name):
    folder = tmp_path / "set"
    picture(tmp_path / "up.png")
    names = [f"{number}.png" for number in range(20)]
    for each in names:
        picture(folder / each)
    document = instances(names)
    document["images"][3]["file_name"] = name
    samples = read_samples(write(folder / "c.json", document))
    assert list(samples.problems) == [3]
    assert samples.media["image"][3] is None


def test_a_coco_file_with_absolute_names_says_so_at_the_top(tmp_path):
    names = [str(picture(tmp_path / "other" / f"{number}.png")) for number in range(8)]
    path = write(tmp_path / "set" / "c.json", instances(names))
    with pytest.raises(AuditError, match="8 of 8 rows cannot be read.*lies outside of the folder"):
        read_samples(path)
    inside = write(tmp_path / "c.json", instances(names))
    assert not read_samples(inside).problems


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco([], []), "without captions and boxes"),
        (coco([{"id": 1, "file_name": "a.png"}], []), "without captions and boxes"),
        (coco([{"id": 1}], [{"image_id": 1, "segmentation": []}]), "without captions and boxes"),
        (
            coco([{"id": 1, "file_name": "a"}], [{"image_id": 1, "caption": "x"}, {"image_id": 1, "bbox": [1] * 4}]),
            "1 captions and 1 boxes",
        ),
        ('{"images": [{"id": 1}], "annotations": [{"image_id"', "cannot be parsed"),
        ('{"images": [' + "[" * 100_000, "cannot be parsed|rows that are known"),
    ],
)
def test_documents_that_cannot_be_used(tmp_path, content, message):
    with pytest.raises(AuditError, match=message):
        read_samples(write(tmp_path / "c.json", content))


def test_entries_that_are_no_objects(tmp_path):
    names = [f"{number}.png" for number in range(20)]
    for name in names:
        picture(tmp_path / name)
    document = instances(names)
    document["images"][15] = 7
    document["annotations"][12] = "x"
    document["categories"].append(None)
    samples = read_samples(write(tmp_path / "c.json", document))
    assert len(samples.problems) == 2


# --- Pascal VOC ------------------------------------------------------------------------------------------------------


def voc(name: str, objects: Sequence[tuple[str, tuple[float, float, float, float]]], size: str = "") -> str:
    size = size or "<size><width>40</width><height>20</height></size>"
    boxes = "".join(
        f"<object><name>{label}</name><part><name>hand</name></part><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for label, (a, b, c, d) in objects
    )
    return f"<annotation><folder>x</folder><filename>{name}</filename>{size}{boxes}</annotation>"


@pytest.mark.parametrize(
    ("xml", "image"),
    [
        ("Annotations/a.xml", "JPEGImages/a.png"),
        ("annotations/a.xml", "images/a.png"),
        ("a.xml", "a.png"),
        ("train/a.xml", "train/a.png"),
    ],
)
@pytest.mark.parametrize("named", ["a.png", "other.png", ""])
@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_voc(tmp_path, xml, image, named, size):
    picture(tmp_path / image)
    write(tmp_path / xml, voc(named, [("cat", (10, 0, 30, 20)), ("dog", (0, 0, 40, 10))], size))
    samples = read_samples(tmp_path)
    name = "train/a" if xml.startswith("train") else "a"
    assert pairs(samples) == {
        f"{name}#1": (crop_of(str(tmp_path / image), (0.25, 0, 0.5, 1)), "cat"),
        f"{name}#2": (crop_of(str(tmp_path / image), (0, 0, 1, 0.5)), "dog"),
    }
    assert samples.groups == (image, image)
    assert samples.splits == (("train", "train") if xml.startswith("train") else ())


def test_voc_splits_by_lists(tmp_path):
    for name in "abc":
        picture(tmp_path / "JPEGImages" / f"{name}.png")
        write(tmp_path / "Annotations" / f"{name}.xml", voc(f"{name}.png", [("cat", (1, 1, 5, 5))]))
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "a\n")
    write(tmp_path / "ImageSets" / "Main" / "val.txt", "b\n")
    assert read_samples(tmp_path).splits == ("train", "val", "")


LAUGHS = '<!DOCTYPE a [<!ENTITY l "ha"><!ENTITY m "&l;&l;&l;">]><annotation><filename>&m;</filename></annotation>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAUGHS, "declares a document type"),
        (EXTERNAL, "declares a document type"),
        ("", "not XML"),
        ("<annotation><object>", "not XML"),
        ("\0\1\2", "not XML"),
        ("<annotation>&undefined;</annotation>", "not XML"),
        ("<?xml version='1.0' encoding='no-such'?><annotation/>", "not XML"),
        ("<annotation>" + " " * (1 << 22) + "</annotation>", "the limit"),
    ],
)
def test_hostile_xml_is_refused(tmp_path, content, message):
    path = write(tmp_path / "a.xml", content)
    with pytest.raises(ValueError, match=message):
        parsed_xml(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="cannot be read"):
        parsed_xml(path)


def test_one_bad_file_of_voc_is_one_row_with_a_reason(tmp_path):
    for number in range(12):
        picture(tmp_path / "JPEGImages" / f"{number:02d}.png")
        write(tmp_path / "Annotations" / f"{number:02d}.xml", voc(f"{number:02d}.png", [("cat", (1, 1, 5, 5))]))
    write(tmp_path / "Annotations" / "03.xml", "<annotation>")
    write(tmp_path / "Annotations" / "04.xml", "<annotation><object><name>x</name></object></annotation>")
    write(tmp_path / "Annotations" / "05.xml", voc("../../x.png", [("cat", (1, 1, 5, 5))]))
    write(tmp_path / "Annotations" / "06.xml", voc("06.png", []))
    samples = read_samples(tmp_path)
    assert [samples.ids[row] for row in samples.problems] == ["03", "04#1", "05"]
    assert len(samples.ids) == 11
    assert any("1 image without objects" in note for note in samples.notes)


# --- YOLO ------------------------------------------------------------------------------------------------------------


def yolo(folder: Path, config: str, labels: Mapping[str, str]) -> Path:
    """A set with the images that the labels name."""
    write(folder / "data.yaml", config)
    for image, lines in labels.items():
        picture(folder / image)
        write((folder / image.replace("images", "labels")).with_suffix(".txt"), lines)
    return folder


NAMES = "names:\n  0: cat\n  1: dog\n"


@pytest.mark.parametrize(
    ("config", "images"),
    [
        ("train: images/train\nval: images/val\n", ("images/train/a.png", "images/val/a.png")),
        ("path: .\ntrain: images/train\nval: images/val\n", ("images/train/a.png", "images/val/a.png")),
        ("path: /nowhere/x\ntrain: images/train\nval: images/val\n", ("images/train/a.png", "images/val/a.png")),
        ("train: ../train/images\nval: ../val/images\n", ("train/images/a.png", "val/images/a.png")),
        ("train: [train/images]\nval: val/images\ntest:\n", ("train/images/a.png", "val/images/a.png")),
    ],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_yolo(tmp_path, config, images, as_file):
    folder = yolo(tmp_path, config + NAMES, {images[0]: "0 0.5 0.5 0.5 1\n1 .25 .5 .5 1", images[1]: "1 .5 .5 1 1\n"})
    samples = read_samples(folder / "data.yaml" if as_file else folder)
    assert pairs(samples) == {
        "train/a#1": (crop_of(str(tmp_path / images[0]), (0.25, 0, 0.5, 1)), "cat"),
        "train/a#2": (crop_of(str(tmp_path / images[0]), (0, 0, 0.5, 1)), "dog"),
        "val/a#1": (crop_of(str(tmp_path / images[1]), (0, 0, 1, 1)), "dog"),
    }
    assert samples.splits == ("train", "train", "val")
    assert samples.groups == (images[0], images[0], images[1])


def test_yolo_lists_of_images(tmp_path):
    folder = yolo(
        tmp_path, "train: train.txt\nval: val.txt\nnames: [cat]", {"images/a.png": "0 .5 .5 1 1", "images/b.png": ""}
    )
    write(folder / "train.txt", "./images/a.png\n")
    write(folder / "val.txt", f"images/b.png\n{folder}/images/a.png\n")
    samples = read_samples(folder)
    assert samples.ids == ("a#1",)
    assert any("1 image without boxes" in note for note in samples.notes)
    write(folder / "val.txt", "../../etc/passwd\n")
    assert any("lies outside" in note for note in read_samples(folder).notes)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2 0.5 0.5 0.5 0.25", (2, (0.25, 0.375, 0.5, 0.25))),
        ("2 0.5 0.5 0.5 0.25 0.9", (2, (0.25, 0.375, 0.5, 0.25))),  # with a confidence
        ("0 0.25 0.25 0.75 0.25 0.5 1", (0, (0.25, 0.25, 0.5, 0.75))),  # a triangle
        ("1 0 0 1 0 1 0.5 0 0.5", (1, (0, 0, 1, 0.5))),
    ],
)
def test_lines_of_yolo(line, expected):
    assert parsed_box(line) == expected


def test_boxes_with_key_points():
    assert parsed_box("0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 2", has_points=True) == (0, (0.25, 0.25, 0.5, 0.5))


@pytest.mark.parametrize(
    "line", ["0 1 2", "cat 0.1 0.1 0.2 0.2", "0", "7 .5 .5 1 1", "0 .5 .5 nan 1", "0 .5 .5 1e308 1", "inf 1 1 1 1",
             "0 .5 .5 0 0", "0 320 240 50 50", "0 1 2 3 4 5 6 7"],
)  # fmt: skip
def test_bad_lines_of_yolo_are_rows_with_a_reason(tmp_path, line):
    labels = {f"images/{number:02d}.png": "0 .5 .5 1 1" for number in range(20)}
    folder = yolo(tmp_path, "train: images\n" + NAMES, {**labels, "images/05.png": line})
    samples = read_samples(folder)
    assert list(samples.problems) == [5]
    assert samples.ids[5] == "05#1"


LAUGHING_YAML = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("train: images\nnc: 3\n", "no `names`"),
        ("names: [cat]\n", "names no images"),
        ("names: {cat: 1}\ntrain: images\n", "no `names`"),
        ("names: [cat]\ntrain: elsewhere\n", "'elsewhere' does not exist"),
        ("names: [cat]\ntrain: /etc\n", "lies outside"),
        ("names: [cat]\ntrain: http://x.org/a.zip\n", "is a URL"),
        ("names: [cat", "cannot be used"),
        ("", "no settings of YOLO"),
        ("!!python/object/apply:os.system ['true']", "cannot be used"),
        (LAUGHING_YAML + "names: *i\ntrain: images\n", "no `names`"),
        ("[" * 5000, "cannot be used"),
        ("#" * (1 << 20) + "\n", "the limit"),
    ],
)
def test_yaml_files_that_cannot_be_used(tmp_path, config, message):
    picture(tmp_path / "images" / "a.png")
    with pytest.raises(AuditError, match=message):
        read_samples(write(tmp_path / "data.yaml", config))


def test_labels_without_a_yaml_say_what_is_missing(tmp_path):
    folder = yolo(tmp_path, "x: 1", {"images/a.png": "0 .5 .5 1 1"})
    with pytest.raises(AuditError, match=r"no data\.yaml with the `names`"):
        read_samples(folder)


# --- Hugging Face ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl"])
def test_folders_with_metadata(tmp_path, table):
    rows = [{"file_name": f"img/{number}.png", "text": f"caption {number}", "label": "x"} for number in range(3)]
    for row in rows:
        picture(tmp_path / row["file_name"])
        picture(tmp_path / row["file_name"].replace("img", "more"))
    lines = ["file_name,text,label", *(",".join(row.values()) for row in rows)]
    write(tmp_path / table, "\n".join(lines if table.endswith("csv") else map(json.dumps, rows)) + "\n")
    samples = read_samples(tmp_path)
    assert samples.media["image"] == tuple(str(tmp_path / row["file_name"]) for row in rows)
    assert samples.media["text"] == ("caption 0", "caption 1", "caption 2")
    assert "a folder with metadata" in samples.notes[0]


def test_metadata_of_splits(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "a.png")
        write(tmp_path / split / "metadata.jsonl", json.dumps({"file_name": "a.png", "text": f"of {split}"}) + "\n")
    samples = read_samples(tmp_path)
    assert samples.splits == ("test", "train")
    assert samples.media["text"] == ("of test", "of train")
    assert samples.media["image"] == (str(tmp_path / "test" / "a.png"), str(tmp_path / "train" / "a.png"))


def test_metadata_without_names_of_files(tmp_path):
    write(tmp_path / "metadata.csv", "path,text\na.png,x\n")
    with pytest.raises(AuditError, match="no column 'file_name'"):
        read_samples(tmp_path)


def test_a_folder_with_one_manifest(tmp_path):
    picture(tmp_path / "images" / "a.png")
    write(tmp_path / "list.csv", "image,text\nimages/a.png,a cat\n")
    samples = read_samples(tmp_path)
    assert samples.media == {"image": (str(tmp_path / "images" / "a.png"),), "text": ("a cat",)}


def test_two_formats_are_never_guessed_between(tmp_path):
    for label in ("a", "b"):
        picture(tmp_path / label / "1.png")
    write(tmp_path / "list.csv", "image,text\na/1.png,a cat\n")
    with pytest.raises(AuditError, match="can be read as csv or as image-folder; say which: --format csv or"):
        read_samples(tmp_path)
    assert len(read_samples(tmp_path, format="image-folder").ids) == 2
    assert len(read_samples(tmp_path, format="csv").ids) == 1


# --- classes that are called as missing texts are ---------------------------------------------------------------------


def test_folders_of_classes_called_none_or_nan_are_classes(tmp_path):
    for label in ("None", "nan", "N", "cat"):
        picture(tmp_path / label / "1.png")
    samples = read_samples(tmp_path)
    assert samples.media["text"] == samples.labels == ("N", "None", "cat", "nan")
    assert "rows of a class called 'None' (where a row has none, leave its class empty): 1" in samples.notes
    source = ManifestSource(tmp_path, {"image": "image", "text": "label"})
    assert [row.texts for row in source.rows()] == [("N",), ("None",), ("cat",), ("nan",)]


@pytest.mark.parametrize(("column", "missing"), [("label", 1), ("class", 1), ("caption", 3)])
def test_none_is_a_class_in_a_column_of_classes_and_missing_in_captions(tmp_path, column, missing):
    words = ["None", "N/A", "nan", "cat", "dog"]
    for number in range(len(words)):
        picture(tmp_path / f"{number}.png")
    rows = [f"{number}.png,{word}" for number, word in enumerate(words)]
    samples = read_samples(write(tmp_path / "t.csv", "\n".join([f"image,{column}", *rows]) + "\n"))
    assert samples.media["text"] == (*(None if missing == 3 else word for word in words[:2]), None, "cat", "dog")
    assert f"captions that say nothing (such as nan): {missing}" in samples.notes


# --- tables with folders of media beside them -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "content", "media"),
    [
        ("captions.txt", 'image,caption\n1.png,A dog .\n2.png,"A cat , asleep ."\n', "Images"),
        ("annotations.csv", "file_name;caption\n1.png;A dog .\n2.png;A cat , asleep .\n", "images"),
        ("labels.tsv", "path\tlabel\n1.png\tA dog .\n2.png\tA cat , asleep .\n", "train"),
        (
            "list.jsonl",
            '{"image": "1.png", "text": "A dog ."}\n{"image": "2.png", "text": "A cat , asleep ."}\n',
            "é x",
        ),
        ("list.json", '[{"image": "1.png", "text": "A dog ."}, {"image": "2.png", "text": "A cat , asleep ."}]', "img"),
    ],
)
def test_media_of_a_table_are_found_in_the_folder_beside_it(tmp_path, table, content, media):
    for number in (1, 2):
        picture(tmp_path / media / f"{number}.png")
    (tmp_path / "docs").mkdir()
    write(tmp_path / "README.txt", "image,caption\nno.png,nothing of this is a sample\n")
    write(tmp_path / table, content)
    for source in (tmp_path, tmp_path / table):
        samples = read_samples(source)
        assert samples.media["image"] == tuple(str(tmp_path / media / f"{number}.png") for number in (1, 2))
        assert samples.media["text"] == ("A dog .", "A cat , asleep .")
        assert f"media found in {media}/:" in samples.notes[0]


def test_media_of_parquet_are_found_in_the_folder_beside_it(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    picture(tmp_path / "images" / "1.png")
    table = pa.table({"image": ["1.png"], "text": ["a dog"], "other": [{"bytes": b"x", "path": "1.png"}]})
    pyarrow.parquet.write_table(table, tmp_path / "list.parquet")
    samples = read_samples(tmp_path, {"image": "image", "text": "text"})
    assert samples.media["image"] == (str(tmp_path / "images" / "1.png"),)


def test_media_beside_the_table_come_first(tmp_path):
    for place in (tmp_path, tmp_path / "images"):
        picture(place / "1.png")
    samples = read_samples(write(tmp_path / "list.csv", "image,text\n1.png,a dog\n"))
    assert samples.media["image"] == (str(tmp_path / "1.png"),)
    assert "media found" not in samples.notes[0]


def test_two_folders_with_the_media_of_a_table_are_never_guessed_between(tmp_path):
    for place in ("train", "test"):
        picture(tmp_path / place / "1.png")
    write(tmp_path / "labels.csv", "image,label\n1.png,dog\n")
    with pytest.raises(AuditError, match=r"'1.png'\) lie in test and in train; .* such as test/1.png"):
        read_samples(tmp_path)


def test_two_texts_that_are_tables_are_never_guessed_between(tmp_path):
    picture(tmp_path / "images" / "1.png")
    for name in ("a.txt", "b.txt"):
        write(tmp_path / name, "image,caption\n1.png,a dog\n")
    with pytest.raises(AuditError, match="holds nothing that is known"):
        read_samples(tmp_path)


@pytest.mark.parametrize(
    "name", ["../secret/1.png", "/etc/1.png", "~/1.png", "x/../../1.png", "file:///1.png", "a:1.png"]
)
def test_paths_that_lead_elsewhere_are_not_looked_for_in_folders(tmp_path, name):
    picture(tmp_path / "secret" / "1.png")
    picture(tmp_path / "set" / "images" / "1.png")
    samples = read_samples(write(tmp_path / "set" / "list.csv", f"image,text\n{name},a dog\nb.png,a cat\n"))
    assert "media found" not in samples.notes[0]


FOLDERS = ("image-folder", "image-text", "coco", "voc", "yolo", "hf-folder")


@pytest.mark.parametrize("form", FOLDERS)
def test_folders_that_hold_nothing_of_a_format(tmp_path, form):
    with pytest.raises(AuditError):
        read_samples(tmp_path, format=form)
    write(tmp_path / "x.txt", "text")
    with pytest.raises(AuditError):
        read_samples(tmp_path, format=form)
    with pytest.raises(AuditError):
        read_samples(tmp_path / "x.txt", format=form)
    assert form in READERS


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
