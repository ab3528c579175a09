"""HEIC, which pillow-heif reads in the processes that decode."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_plugin.inputs import reading
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.image_size import upright_size
from audit_plugin.inputs.images import HEIC_NEEDS, is_heic, read_image
from audit_plugin.inputs.modalities import MODALITIES, read_medium

pillow_heif = pytest.importorskip("pillow_heif")


def write_heic(path: Path, size: tuple[int, int] = (128, 96), brand: bytes = b"") -> str:
    """The left half red, the right half blue."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2], pixels[:, size[0] // 2 :] = (250, 10, 10), (10, 10, 250)
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(path, quality=90)
    content = path.read_bytes()
    path.write_bytes(content[:8] + (brand or content[8:12]) + content[12:])
    return str(path)


@pytest.mark.parametrize("name", ["a.heic", "a.heif", "a.jpg"])  # by their content, not by their names
@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_is_read_as_other_images(tmp_path: Path, name: str, brand: bytes) -> None:
    path = write_heic(tmp_path / name, brand=brand)
    image = read_medium("image", path)
    assert (image.mode, image.size) == ("RGB", (128, 96))
    left, right = np.array(image.getpixel((10, 40))), np.array(image.getpixel((120, 40)))
    assert np.abs(left - [250, 10, 10]).max() < 12
    assert np.abs(right - [10, 10, 250]).max() < 12


def test_only_the_processes_that_decode_read_it(tmp_path: Path) -> None:
    assert "HEIF" not in Image.OPEN
    with pytest.raises(MediaError):
        read_image(write_heic(tmp_path / "a.heic"))
    read_medium("image", str(tmp_path / "a.heic"))
    assert "HEIF" not in Image.OPEN


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_heic(tmp_path / "a.heic")
    (tmp_path / "shadow/pillow_heif").mkdir(parents=True)
    (tmp_path / "shadow/pillow_heif/__init__.py").write_text("raise ImportError('not here')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "shadow"), *sys.path])
    reading.close_workers()
    try:
        with pytest.raises(MediaError) as caught:
            read_medium("image", path)
    finally:
        reading.close_workers()
    assert str(caught.value) == HEIC_NEEDS
    assert 'pip install "audit-plugin[heic]"' in HEIC_NEEDS


def test_broken_ones_are_refused_in_one_line(tmp_path: Path) -> None:
    content = Path(write_heic(tmp_path / "a.heic")).read_bytes()
    for cut in (16, 40, 200, len(content) // 2, len(content) - 30):
        (tmp_path / "cut.heic").write_bytes(content[:cut])
        with pytest.raises(MediaError, match=r"^(not an image that can be read|image is damaged \(.*)$"):
            read_medium("image", str(tmp_path / "cut.heic"))


def test_the_limit_of_pixels_holds(tmp_path: Path) -> None:
    content = Path(write_heic(tmp_path / "a.heic")).read_bytes()
    at = content.index(b"ispe") + 8
    assert content[at : at + 8] == (128).to_bytes(4, "big") + (96).to_bytes(4, "big")
    (tmp_path / "large.heic").write_bytes(content.replace(content[at : at + 8], (20_000).to_bytes(4, "big") * 2))
    with pytest.raises(MediaError, match="megapixels|damaged"):
        read_medium("image", str(tmp_path / "large.heic"))


def test_avif_stays_with_pillow(tmp_path: Path) -> None:
    if "AVIF" not in Image.registered_extensions().values():
        pytest.skip("this Pillow reads no AVIF")
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "a.avif")
    content = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "b.avif").write_bytes(content[:8] + b"mif1" + content[12:])
    for name in ("a.avif", "b.avif"):
        assert not is_heic(str(tmp_path / name))
        assert read_medium("image", str(tmp_path / name)).size == (64, 48)


def test_members_of_shards_and_exports_know_it(tmp_path: Path) -> None:
    assert {"heic", "heif"} <= set(MODALITIES["image"].suffixes)
    assert upright_size(write_heic(tmp_path / "a.heic")) == (128, 96)
