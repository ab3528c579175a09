"""Samples from what a program holds: tables, rows, pairs and datasets, with media in memory."""

from __future__ import annotations

import base64
import io
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from audit_plugin import AuditConfig, AuditError, Samples, run_audit, samples_from
from audit_plugin.inputs.images import read_image
from audit_plugin.inputs.pixels import png_of
from audit_plugin.store.inventory import chosen, delete, inventory

QUICK = AuditConfig(encoder="offline", trials=2, epochs=2)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pixels(row: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (side, side, 3), dtype=np.uint8)


class OfTorch:
    """A map-style dataset as torch defines it: a length and items, and no end of its own."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        return self.rows[number % len(self.rows)]


class Feature:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class OfHuggingFace:
    """What `datasets.Dataset` shows of itself: column names, features, and rows that are dicts."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.column_names = ["image", "label"]
        self.features = {"image": object(), "label": Feature(["cat", "dog"])}

    def __iter__(self) -> Any:
        return iter(self.rows)


# --- containers ----------------------------------------------------------------------------------------------------

ROWS = [{"id": f"n{row}", "image": f"{row}.png", "text": f"text {row}", "set": "train"} for row in range(3)]
CONTAINERS = {
    "DataFrame": pd.DataFrame(ROWS),
    "list of dicts": ROWS,
    "iterator of dicts": iter(ROWS),
    "columns": {name: [row[name] for row in ROWS] for name in ROWS[0]},
    "dataset of torch": OfTorch(ROWS),
}


@pytest.mark.parametrize("data", CONTAINERS.values(), ids=CONTAINERS)
def test_rows_keep_their_order_and_names(data: Any) -> None:
    samples = samples_from(data, split="set")
    assert samples.ids == ("n0", "n1", "n2")
    assert dict(samples.media) == {"image": ("0.png", "1.png", "2.png"), "text": ("text 0", "text 1", "text 2")}
    assert samples.splits == ("train",) * 3
    assert (samples.caption, samples.groups, samples.labels) == ((), (), ())


def test_other_columns_are_named() -> None:
    frame = pd.DataFrame({"photo": ["a.png"], "alt": ["a dress"], "sound": ["a.wav"], "brand": [7]})
    samples = samples_from(frame, image="photo", text="alt", audio="sound", group="brand")
    assert dict(samples.media) == {"image": ("a.png",), "text": ("a dress",), "audio": ("a.wav",)}
    assert (samples.ids, samples.groups) == (("0",), ("7",))
    assert dict(samples_from([("a dress", 1, "a.png")], image=2, text=0).media) == {
        "image": ("a.png",),
        "text": ("a dress",),
    }


def test_torch_itself() -> None:
    torch = pytest.importorskip("torch")
    images = torch.rand(3, 3, 4, 5)
    tensors = torch.utils.data.TensorDataset(images, torch.tensor([0, 1, 1]))
    tensors.classes = ["cat", "dog"]
    samples = samples_from(tensors)
    assert samples.media["text"] == ("cat", "dog", "dog")
    stored = np.asarray(read_image(samples.media["image"][1]))
    assert np.array_equal(stored, np.rint(images[1].numpy().transpose(1, 2, 0) * 255).astype(np.uint8))

    class Streamed(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter([("a.png", "a"), ("b.png", "b")])

    assert samples_from(Streamed()).media["text"] == ("a", "b")


@pytest.mark.usefixtures("cache")
def test_classes_of_hugging_face_are_named() -> None:
    data = OfHuggingFace([{"image": Image.fromarray(pixels(0)), "label": 1}, {"image": None, "label": 0}])
    samples = samples_from(data, image="image", text="label", label="label")
    assert (samples.media["text"], samples.labels) == (("dog", "cat"), ("dog", "cat"))
    assert samples.media["image"][1] is None
    with pytest.raises(AuditError, match=r"several datasets \(train, test\); give one: data\['train'\]"):
        samples_from({"train": data, "test": data})


def test_hugging_face_itself() -> None:
    datasets = pytest.importorskip("datasets")
    image = Image.fromarray(pixels(1))
    data = datasets.Dataset.from_list([{"image": image, "text": "a"}]).cast_column("image", datasets.Image())
    assert np.array_equal(np.asarray(read_image(samples_from(data).media["image"][0])), pixels(1))


# --- values --------------------------------------------------------------------------------------------------------

MISSING = [None, math.nan, np.nan, np.float32("nan"), pd.NA, pd.NaT]


@pytest.mark.parametrize("value", MISSING, ids=repr)
def test_missing_values_are_none(value: Any) -> None:
    rows = [{"id": value, "image": value, "text": "a", "group": value}, {"id": "x", "image": "b.png", "text": value}]
    samples = samples_from(rows, image="image", text="text")
    assert (samples.ids, samples.media["image"], samples.media["text"]) == (("0", "x"), (None, "b.png"), ("a", None))
    assert samples_from([rows[0], {**rows[0], "group": "g"}], group="group").groups == ("", "g")
    direct = Samples(("0", "1"), {"image": (value, "b.png"), "text": ["a", value]})
    assert dict(direct.media) == {"image": (None, "b.png"), "text": ("a", None)}


def test_paths_are_texts() -> None:
    media = {"image": [Path("a.png"), np.str_("b.png")], "text": ["a", np.str_("b")]}
    for samples in (Samples((0, np.int64(1)), media), samples_from(media)):
        assert dict(samples.media) == {"image": ("a.png", "b.png"), "text": ("a", "b")}
        assert {type(value) for values in samples.media.values() for value in values} == {str}
        assert samples.ids == ("0", "1")


def test_lists_of_texts_are_captions_of_one_sample() -> None:
    rows = [
        ("a.png", ["a", "b"]),
        ("b.png", "c"),
        ("c.png", []),
        ("d.png", np.array(["d", "e", "f"])),
        ("e.png", [None]),
    ]
    samples = samples_from(rows)
    assert samples.ids == ("0", "0", "1", "2", "3", "3", "3", "4")
    assert samples.caption == (0, 1, 0, 0, 0, 1, 2, 0)
    assert samples.media["text"] == ("a", "b", "c", None, "d", "e", "f", None)
    assert samples.media["image"] == ("a.png", "a.png", "b.png", "c.png", "d.png", "d.png", "d.png", "e.png")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a.png", 5), r"row 1: text is 5 \(int\); give a text"),
        (("a.png", 2.5), r"row 1: text is 2.5 \(float\)"),
        (("a.png", {"en": "a"}), "row 1: text is of type dict"),
        (("a.png", [["a"]]), "row 1: text is a list of lists"),
        (("a.png", ["a"] * 1001), "row 1: text is 1,001 texts; the limit is 1,000"),
        ((7, "a"), r"row 1: image is 7 \(int\); give a path, a PIL image, an array or bytes"),
        ((["a.png", "b.png"], "a"), "row 1: image is of type list"),
        ((object(), "a"), "row 1: image is of type object"),
        ((b"", "a"), "row 1: image is empty"),
        ((np.zeros((2, 3, 4, 4)), "a"), "row 1: image is an array of 2 x 3 x 4 x 4, which is a batch"),
        ((np.zeros((5, 5, 7)), "a"), "row 1: image is an array of 5 x 5 x 7"),
        ((np.zeros((0, 4)), "a"), "row 1: image is an array of 0 x 4"),
        ((np.array(3.0), "a"), "row 1: image is an array of one number"),
        ((np.full((4, 4, 3), -0.5), "a"), "row 1: image is an array of floats from -0.5 to -0.5; .*normalized"),
        ((np.full((4, 4), np.nan), "a"), "row 1: image is an array of floats from nan"),
        ((np.full((4, 4), 70_000), "a"), "row 1: image is an array of int64 from 70000"),
        ((np.full((4, 4), "x"), "a"), "row 1: image is an array of <U1"),
        (("a.png",), "row 1 has 1 values and no 1"),
        ("a.png", r"row 1 is 'a.png' \(str\); give mappings, or tuples"),
        (None, "row 1 is of type NoneType"),
        ({"text": "a"}, "row 1 has no column 0; its columns are 'text'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_values_are_refused_with_their_row(row: Any, message: str, cache: Path) -> None:
    with pytest.raises(AuditError, match=message):
        samples_from([(pixels(0), "a"), row])
    assert not list(cache.rglob("*.png")), "what was written before is removed"


@pytest.mark.parametrize(
    ("modality", "value"),
    [
        ("image", 3),
        ("image", Image.new("RGB", (2, 2))),
        ("image", b"a.png"),
        ("text", 3),
        ("text", ["a"]),
        ("text", Path("a")),
        ("text", True),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_samples_refuse_them_too(modality: str, value: Any) -> None:
    media = {"image": ["a.png", "b.png"], "text": ["a", "b"]}
    media[modality][1] = value
    kind = type(value).__name__
    with pytest.raises(AuditError, match=rf"row 1 \('y'\): {modality} is of type {kind}, not a .*samples_from"):
        Samples(("x", "y"), media)
    with pytest.raises(AuditError, match="row 1: its id is of type float"):
        Samples(("x", 1.5), {"image": ["a.png", "b.png"], "text": ["a", "b"]})


@pytest.mark.parametrize(
    ("data", "columns", "message"),
    [
        ([], {}, "there are no rows"),
        ([{"photo": "a", "alt": "b"}], {}, "of 'photo', 'alt'"),
        (ROWS, {"image": "image"}, "image alone cannot be compared"),
        (ROWS, {"image": "image", "picture": "text"}, "'picture' is not known"),
        (
            ROWS,
            {"image": "imgae", "text": "text"},
            "row 0 has no column 'imgae'; its columns are 'id', 'image', 'text', 'set'",
        ),
        ({"image": ["a"], "text": []}, {}, r"different lengths \(image 1, text 0\)"),
        ("pairs.csv", {}, "'pairs.csv' is no table of rows"),
        (Path("pairs.csv"), {}, "is no table of rows"),
        (5, {}, r"data is 5 \(int\)"),
    ],
    ids=str,
)
def test_what_is_no_table_is_refused(data: Any, columns: dict[str, str], message: str) -> None:
    with pytest.raises(AuditError, match=message):
        samples_from(data, **columns)


# --- images in memory ----------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


RGB = pixels(5)
GRAY = RGB[:, :, 0]
AS_RGB = np.stack([GRAY] * 3, axis=2)
IMAGES = {
    "PIL": (Image.fromarray(RGB), RGB),
    "PIL gray": (Image.fromarray(GRAY), AS_RGB),
    "PIL palette": (Image.fromarray(RGB).convert("P"), np.asarray(Image.fromarray(RGB).convert("P").convert("RGB"))),
    "PIL CMYK": (Image.fromarray(RGB).convert("CMYK"), np.asarray(Image.fromarray(RGB).convert("CMYK").convert("RGB"))),
    "PIL 32 bits": (Image.fromarray(GRAY.astype(np.int32)), AS_RGB),
    "PIL floats": (Image.fromarray((GRAY / 255).astype(np.float32)), AS_RGB),
    "uint8": (RGB, RGB),
    "int64": (RGB.astype(np.int64), RGB),
    "floats": (RGB / 255, RGB),
    "gray": (GRAY, AS_RGB),
    "one channel": (GRAY[:, :, None], AS_RGB),
    "channels first": (RGB.transpose(2, 0, 1), RGB),
    "bool": (GRAY > 99, np.stack([(GRAY > 99) * np.uint8(255)] * 3, axis=2)),
    "RGB of 16 bits": (RGB.astype(np.uint16) * 257, RGB),
    "opaque": (np.dstack([RGB, np.full_like(GRAY, 255)]), RGB),
    "not contiguous": (np.asfortranarray(RGB)[:, ::-1], RGB[:, ::-1]),
    "bytes of a PNG": (encoded(Image.fromarray(RGB), "PNG"), RGB),
    "bytes and path": ({"bytes": encoded(Image.fromarray(RGB), "BMP"), "path": None}, RGB),
}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("image", "expected"), IMAGES.values(), ids=IMAGES)
def test_images_in_memory_are_read_as_they_are(image: Any, expected: np.ndarray) -> None:
    (path,) = samples_from([(image, "a")]).media["image"]
    assert np.array_equal(np.asarray(read_image(path)), expected)


def test_images_are_upright_and_bare() -> None:
    lying = Image.fromarray(pixels(1, 6)[:3])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(io.BytesIO(_jpeg(lying, exif)))
    assert Image.open(io.BytesIO(png_of(turned))).size == (3, 6)
    noted = Image.fromarray(RGB)
    noted.info["comment"] = "secret"
    assert png_of(noted) == png_of(Image.fromarray(RGB)) == png_of(RGB)


def _jpeg(image: Image.Image, exif: Image.Exif) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    return out.getvalue()


def test_each_content_is_stored_once(cache: Path) -> None:
    rows = [(pixels(row % 2), f"text {row}") for row in range(6)]
    first, again = samples_from(rows), samples_from(iter(rows))
    assert first.media == again.media
    assert len(set(first.media["image"])) == 2
    stored = [path for path in (cache / "media").rglob("*") if path.is_file()]
    assert sorted(map(str, stored)) == sorted(set(first.media["image"]))
    assert stored[0].parent.stat().st_mode & 0o77 == 0
    Path(stored[0]).write_bytes(b"damaged")
    samples_from(rows)
    read_image(str(stored[0]))


def test_the_cache_lists_and_deletes_them(cache: Path) -> None:
    samples = samples_from([(pixels(0), "a"), (pixels(1), "b")])
    (entry,) = inventory(cache)
    assert (entry.kind, entry.source) == ("media", "2 files of Python programs")
    with pytest.raises(AuditError, match="within the last 10 minutes"):
        delete(entry)
    for path in samples.media["image"]:
        os.utime(path, (time.time() - 86_400,) * 2)
    (entry,) = inventory(cache)
    assert chosen([entry], older_than=3600) == [entry]
    assert delete(entry) > 0
    assert not list((cache / "media").iterdir())


@pytest.mark.usefixtures("cache")
def test_images_in_memory_are_audited_and_exported(pictures: list[str], captions: list[str], tmp_path: Path) -> None:
    samples = samples_from((Image.open(path), text) for path, text in zip(pictures, captions, strict=True))
    result = run_audit(samples, QUICK)
    assert np.isfinite(result.columns["misalignment"]).all()
    assert all(
        np.array_equal(read_image(a), read_image(b)) for a, b in zip(samples.media["image"], pictures, strict=True)
    )
    result.export(tmp_path / "clean.parquet", samples, "parquet-bytes")
    assert pq.read_table(tmp_path / "clean.parquet").num_rows == 60


def test_columns_with_the_usual_names_need_not_be_named() -> None:
    frame = pd.DataFrame({"filename": ["a.png", "b.png"], "Caption": ["x", "y"], "n": [1, 2]})
    assert samples_from(frame).media == {"image": ("a.png", "b.png"), "text": ("x", "y")}
    sounds = samples_from([{"path": "a.wav", "label": "x"}, {"path": "b.wav", "label": "y"}])
    assert sounds.media == {"audio": ("a.wav", "b.wav"), "text": ("x", "y")}
    with pytest.raises(AuditError, match="'caption' and 'sentence' could each be the text; name one: text='caption'"):
        samples_from([{"image": "a.png", "caption": "x", "sentence": "y"}])
    with pytest.raises(AuditError, match="several columns named 'text'; rename all but one"):
        samples_from(pd.DataFrame([["a.png", "x", "y"]], columns=["image", "text", "text"]))


@pytest.mark.usefixtures("cache")
def test_what_files_hold_is_the_same_in_tables() -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "a cat"}]
    address = "data:image/png;base64," + base64.b64encode(png_of(pixels(3))).decode()
    rows = [
        {"image": ["a.png"], "text": "['one', \"it's two\"]"},
        {"image": address, "text": turns},
        {"image": {"path": "c.png", "bytes": None}, "text": "[no list]"},
    ]
    samples = samples_from(rows)
    assert samples.media["text"] == ("one", "it's two", "a cat", "[no list]")
    assert samples.media["image"][:2] == ("a.png", "a.png")
    assert read_image(samples.media["image"][2]).tobytes() == Image.fromarray(pixels(3)).tobytes()
    assert samples_from(pa.Table.from_pylist([{"image": "a.png", "text": "x"}] * 3)).ids == ("0", "1", "2")


@pytest.mark.usefixtures("cache")
def test_a_subset_knows_the_classes_of_its_dataset() -> None:
    import torch

    whole = OfTorch([(pixels(row), row % 2) for row in range(4)])
    whole.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    assert samples_from(torch.utils.data.Subset(whole, [1, 2])).media["text"] == ("dog", "cat")  # type: ignore[arg-type]
