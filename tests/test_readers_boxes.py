"""Boxes as people have them: COCO (with captions), Pascal VOC and YOLO."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.images import crop_of, read_image_or_crop
from audit_plugin.inputs.readers.voc import parsed_xml
from audit_plugin.inputs.readers.yolo import parsed_box
from audit_plugin.inputs.samples import read_samples
from tests.readers_fixtures import pairs, picture, voc, write

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
