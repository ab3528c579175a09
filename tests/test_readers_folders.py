"""Folders of images as people have them: by class, with texts, with metadata, beside tables."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError
from audit_plugin.audit.export import ManifestSource
from audit_plugin.inputs.images import read_image_or_crop
from audit_plugin.inputs.readers import READERS
from audit_plugin.inputs.readers.folders import names_of, split_in
from audit_plugin.inputs.samples import read_samples
from tests.readers_fixtures import picture, write

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
