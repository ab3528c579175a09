from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from audit_plugin.inputs.files import MediaError, file_digest, read_text, text_digest
from audit_plugin.inputs.images import crop_of, read_image
from audit_plugin.inputs.modalities import MODALITIES


def saved(folder: Path, image: Image.Image, name: str = "image.png", **options: object) -> str:
    path = folder / name
    image.save(path, **options)
    return str(path)


def why(path: str | Path) -> str:
    with pytest.raises(MediaError) as caught:
        read_image(str(path))
    return str(caught.value)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


# --- images --------------------------------------------------------------------------------------------------------


def test_a_plain_image_comes_back_pixel_for_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = read_image(saved(tmp_path, Image.fromarray(pixels)))
    assert (image.mode, image.size) == ("RGB", (7, 5))
    assert np.array_equal(np.asarray(image), pixels)


def test_transparent_palette_entries_become_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200] + [0] * 762)
    image.putpixel((1, 0), 1)
    read = read_image(saved(tmp_path, image, transparency=0))
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 200)]


def test_half_transparency_is_blended_with_white(tmp_path: Path) -> None:
    # 0 at alpha 51/255 = 0.2 on white: 255 * 0.8 = 204
    read = read_image(saved(tmp_path, Image.new("RGBA", (1, 1), (0, 0, 0, 51))))
    assert read.getpixel((0, 0)) == pytest.approx((204, 204, 204), abs=1)


def test_grey_with_transparency_is_laid_on_white(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path, Image.new("LA", (1, 1), (9, 0)))).getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    read = read_image(saved(tmp_path, Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "cyan.jpg"))
    red, green, blue = read.getpixel((4, 4))
    assert read.mode == "RGB"
    assert red < 60 < green
    assert blue > 60


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.array([[0, 1000, 30_000, 65_535]], dtype=np.uint16)
    read = np.asarray(read_image(saved(tmp_path, Image.fromarray(ramp))))
    # value / 65535 * 255, cut to whole numbers: 0, 3.9, 116.7, 255; clipping would give 0, 255, 255, 255
    assert read[0, :, 0].tolist() == [0, 3, 116, 255]


def test_floating_point_images_are_scaled_by_their_own_maximum(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32)
    read = np.asarray(read_image(saved(tmp_path, Image.fromarray(values), "float.tiff")))
    assert read[0, :, 1].tolist() == [0, 127, 255, 0]


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    read = read_image(saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:]))
    assert read.getpixel((0, 0)) == (255, 0, 0)


def test_orientation_of_the_camera_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the right side is up
    assert read_image(saved(tmp_path, Image.new("RGB", (4, 2)), "e.jpg", exif=exif)).size == (2, 4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image that can be read"),
        (b"no image at all", "not an image that can be read"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, "not an image that can be read"),
        (png_header(20, 20), "image is damaged"),
        (png_header(0, 10), "image"),
        (png_header(10_100, 10_000), "image has 101 megapixels, the limit is 100"),
        (png_header(60_000, 60_000), "image is over the limit of 100 megapixels"),
        (png_header(2**31 - 1, 2**31 - 1), "image"),
    ],
)
def test_hostile_bytes_give_a_short_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    message = why(path)
    assert reason in message
    assert "\n" not in message
    assert len(message) < 140


def test_a_large_image_within_the_limit_raises_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png_header(9_900, 10_000))  # 99 megapixels: Pillow warns from 89 on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "image is damaged" in why(path)
        assert "Bomb" not in why(path)


def scene(width: int, height: int) -> Image.Image:
    """Shapes over a ramp with some grain: detail at every scale, as in a photograph."""
    rng = np.random.default_rng(0)
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    pen = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.02, 0.2) * height
        pen.ellipse((x, y, x + size, y + size), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    grain = rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "read"),
    [
        ((1023, 900), (1023, 900)),  # half of it would have sides below 512
        ((1024, 1100), (512, 550)),
        ((4100, 2100), (1025, 525)),
        ((9000, 1030), (4500, 515)),  # the shorter side decides
    ],
)
def test_a_large_jpeg_is_read_reduced_with_both_sides_left_large(tmp_path: Path, size: tuple, read: tuple) -> None:
    path = saved(tmp_path, Image.new("RGB", size, (200, 30, 30)), "image.jpg")
    image = MODALITIES["image"].read(path)
    assert (image.size, image.mode) == (read, "RGB")
    assert read_image(path).size == size  # whole, for those who compare pixels
    assert MODALITIES["image"].read(saved(tmp_path, Image.new("RGB", size))).size == size  # PNG knows no such thing


def test_what_is_cut_out_of_a_large_jpeg_keeps_its_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGB", (2000, 2000)), "image.jpg")
    assert MODALITIES["image"].read(crop_of(path, (0.25, 0.25, 0.5, 0.5))).size == (1200, 1200)


def test_a_reduced_jpeg_is_upright_and_looks_as_the_whole_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, scene(2600, 1500), "image.jpg", exif=exif, quality=90)
    whole, reduced = read_image(path), MODALITIES["image"].read(path)
    assert (whole.size, reduced.size) == ((1500, 2600), (750, 1300))
    small = [np.asarray(i.resize((96, 96), Image.Resampling.BICUBIC), dtype=float) for i in (whole, reduced)]
    assert np.abs(small[0] - small[1]).mean() < 1.0


def test_a_truncated_image_is_damaged_not_grey(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    for name in ("cut.png", "cut.jpg"):
        path = Path(saved(tmp_path, noise, name))
        path.write_bytes(path.read_bytes()[:-600])
        assert why(path).startswith("image is damaged (")


def test_folders_and_missing_files_are_told_apart(tmp_path: Path) -> None:
    assert why(tmp_path / "none.png") == "file not found"
    assert why(tmp_path) == "is a folder, not a file"
    for path, reason in ((tmp_path / "none.png", "file not found"), (tmp_path, "is a folder, not a file")):
        with pytest.raises(MediaError, match=reason):
            file_digest(str(path))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 400), st.binary(min_size=1, max_size=30))
def test_a_damaged_png_is_read_or_refused_and_nothing_else(tmp_path: Path, at: int, junk: bytes) -> None:
    path = Path(saved(tmp_path, Image.new("RGB", (16, 16), "teal")))
    content = bytearray(path.read_bytes())
    content[at % len(content) : at % len(content) + len(junk)] = junk
    path.write_bytes(bytes(content))
    with contextlib.suppress(MediaError):  # any other exception fails the test
        assert read_image(str(path)).mode == "RGB"


# --- digests -------------------------------------------------------------------------------------------------------


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = b"ab" * 700_000  # more than one chunk
    (tmp_path / "a").write_bytes(content)
    assert file_digest(str(tmp_path / "a")) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("path", "reason"), [("a\0b", "path is not valid"), ("x" * 5000, "file cannot be read")])
def test_impossible_paths_are_failures(path: str, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        file_digest(path)


def test_a_file_that_grows_while_it_is_read_is_a_failure(tmp_path: Path) -> None:
    path, over = tmp_path / "a", threading.Event()
    path.write_bytes(bytes(30_000_000))

    def grow() -> None:
        with open(path, "ab", buffering=0) as file:
            while not over.is_set():
                file.write(bytes(1_000))

    thread = threading.Thread(target=grow)
    thread.start()
    with pytest.raises(MediaError, match="grows while it is read"):
        file_digest(str(path))
    over.set()
    thread.join()


@pytest.mark.parametrize("kind", ["named pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    for use in (file_digest, read_image):
        with pytest.raises(MediaError, match=f"is a {kind}, not a file"):
            use(str(path))


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(MediaError, match=r"file is empty \(0 bytes\)"):
        file_digest(str(tmp_path / "a"))


# --- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "\n\t  \u2003"])
def test_empty_texts_are_failures(text: str) -> None:
    with pytest.raises(MediaError, match="text is empty"):
        text_digest(text)


def test_lone_surrogates_become_replacement_characters_but_count_in_the_digest() -> None:
    assert read_text(" a\ud800b ") == "a?b"
    assert text_digest("a\ud800b") != text_digest("a?b")


def test_a_very_long_text_is_kept_whole() -> None:
    text = "word " * 20_000
    assert len(text) == 100_000
    assert read_text(text) == text.strip()


@settings(deadline=None)
@given(st.text(st.characters(), min_size=1))
def test_every_text_is_digested_or_empty_and_read_as_valid_unicode(text: str) -> None:
    read_text(text).encode("utf-8")
    if text.strip():
        assert len(text_digest(text)) == 64
    else:
        with pytest.raises(MediaError):
            text_digest(text)


# --- the table -----------------------------------------------------------------------------------------------------


def test_the_table_names_its_entries_and_knows_what_is_text() -> None:
    assert [(name, entry.is_text) for name, entry in MODALITIES.items()] == [
        ("image", False),
        ("text", True),  # after image: the pair's column is called misalignment_image_text
        ("audio", False),
        ("video", False),
    ]
    assert all(name == entry.name for name, entry in MODALITIES.items())


@pytest.mark.parametrize("name", [name for name, entry in MODALITIES.items() if not entry.is_text])
def test_every_reader_of_files_refuses_with_one_short_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("no medium, only words\n" * 50)
    (tmp_path / "zeros").write_bytes(bytes(5000))
    reasons = {
        "none": "file not found",
        "notes.txt": "can be read",
        "zeros": "read",
        "a\0b": "path|null",
        ".": "folder|directory",
    }
    for file, reason in reasons.items():
        with pytest.raises(MediaError, match=reason) as caught:
            MODALITIES[name].read(f"{tmp_path}/{file}")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 160


# --- objects in images ---------------------------------------------------------------------------------------------


def squares(folder: Path, name: str = "squares.png", **options: object) -> str:
    """100 by 50 pixels: the left half red, the right half blue."""
    image = Image.new("RGB", (100, 50), (255, 0, 0))
    image.paste((0, 0, 255), (50, 0, 100, 50))
    return saved(folder, image, name, **options)


def test_a_crop_is_the_box_with_a_margin_within_the_image(tmp_path: Path) -> None:
    read = MODALITIES["image"].read
    path = squares(tmp_path)
    inner = read(crop_of(path, (0.2, 0.2, 0.2, 0.4)))  # 20 by 20 pixels, a tenth of that on each side
    assert inner.size == (24, 24)
    assert inner.getcolors() == [(24 * 24, (255, 0, 0))]
    right = read(crop_of(path, (0.5, 0, 0.5, 1)))  # reaches 5 pixels into the red, ends with the image
    assert right.size == (55, 50)
    assert (right.getpixel((4, 0)), right.getpixel((5, 0))) == ((255, 0, 0), (0, 0, 255))
    assert read(crop_of(path, (-0.5, -0.5, 2, 2))).size == (100, 50)
    assert read(crop_of(path, (0.995, 0.99, 0.0001, 0.0001))).size == (1, 1)
    assert read(path).size == (100, 50)


def test_a_crop_lies_in_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = squares(tmp_path, "turned.jpg", exif=exif)  # 50 wide and 100 high when upright, the red above
    top = MODALITIES["image"].read(crop_of(path, (0, 0, 1, 0.4)))
    assert top.size == (50, 44)
    red, _, blue = top.getpixel((25, 10))
    assert red > 200
    assert blue < 60


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((0.1, 0.1, 0, 0.5), "no area"),
        ((0.1, 0.1, 0.5, -0.5), "no area"),
        ((0.1, 0.1, float("nan"), 0.5), "values that no box has"),
        ((0.1, float("inf"), 0.5, 0.5), "values that no box has"),
        ((1.2, 0.1, 0.5, 0.5), "outside"),
        ((-0.6, 0.1, 0.5, 0.5), "outside"),
        ((0.1, 0.1, 0.5), "not valid"),
    ],
)
def test_a_box_that_cannot_be_cut_is_a_reason(tmp_path: Path, box: tuple[float, ...], reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        MODALITIES["image"].read(crop_of(squares(tmp_path), box))


def test_a_crops_digest_holds_the_file_and_the_box(tmp_path: Path) -> None:
    digest = MODALITIES["image"].digest
    path, same = squares(tmp_path), squares(tmp_path, "with # , ? and 0.1,0.2,0.3,0.4.png")
    other = saved(tmp_path, Image.new("RGB", (100, 50)), "other.png")
    box = (0.1, 0.2, 0.3, 0.4)
    assert digest(crop_of(path, box)) == digest(crop_of(same, list(box)))
    assert digest(same) == file_digest(path)
    digests = [digest(v) for v in (path, crop_of(path, box), crop_of(path, (0.1, 0.2, 0.3, 0.41)), crop_of(other, box))]
    assert len(set(digests)) == 4
    with pytest.raises(MediaError, match="file not found"):
        digest(crop_of(f"{tmp_path}/none.png", box))
