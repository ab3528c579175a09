"""Measures of pixels by hand, and checks of images by them: each kind of fault, what is none, and what a style is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.run import run_audit
from audit_plugin.encoders.pixels import (
    MEASURES,
    MEASURES_KEY,
    measure_missing,
    measure_pixels,
    measuring,
    not_measured,
)
from audit_plugin.encoders.pixels import stored_measures as stored
from audit_plugin.inputs.files import file_digest
from audit_plugin.inputs.images import FULL_SIZE, crop_of, read_image_or_crop
from audit_plugin.inputs.modalities import read_medium
from audit_plugin.scoring.image_checks import CHECKS, ODD_SIZE, check_images
from audit_plugin.store import FeatureCache, cache_root
from tests.pipeline_fixtures import QUICK, draw


def measured(image: Image.Image) -> dict[str, float]:
    return dict(zip(MEASURES, measure_pixels(image).tolist(), strict=True))


def scene(seed: int, size: tuple[int, int] = (128, 96)) -> Image.Image:
    """Soft colored spots with fine noise over them: neither flat nor blurred, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = np.asarray(coarse, dtype=np.int16) + rng.normal(0, 12, (size[1], size[0], 1)).astype(np.int16)
    return Image.fromarray(fine.clip(0, 255).astype(np.uint8))


# --- measures ---------------------------------------------------------------------------------------------------------


def test_measures_of_a_plain_image_by_hand() -> None:
    of = measured(Image.new("RGB", (64, 16), (51, 51, 51)))
    assert of == {
        "log_width": 6.0,
        "log_height": 4.0,
        "dark": pytest.approx(0.2),
        "bright": pytest.approx(0.2),
        "blur": 0.0,
        "entropy": 0.0,
        "color": 0.0,
        "border": 0.0,
    }


def test_measures_of_two_halves_by_hand() -> None:
    image = Image.new("RGB", (64, 64), "black")
    image.paste((255, 0, 0), (32, 0, 64, 64))
    of = measured(image)
    assert of["entropy"] == pytest.approx(1.0)  # two gray values, half of the pixels each
    assert of["color"] == 1.0
    assert of["dark"] == pytest.approx(76 / 255, abs=0.01)  # 0.299 of 255
    assert of["bright"] == 0.0


def test_border_is_the_share_of_the_area_in_edges_of_one_color() -> None:
    inner = scene(0, (80, 60))
    framed = ImageOps.expand(inner, border=(10, 20, 10, 0), fill="white")
    assert measured(inner)["border"] == 0.0
    assert measured(framed)["border"] == pytest.approx(1 - 80 * 60 / (100 * 80))


def naive_blur(gray: np.ndarray, blurred: np.ndarray) -> float:
    shares = []
    for rows, soft in ((gray, blurred), (gray.T, blurred.T)):
        total = left = 0
        for row, soft_row in zip(rows.astype(int), soft.astype(int), strict=True):
            for at in range(len(row) - 1):
                total += abs(row[at + 1] - row[at])
                left += min(abs(row[at + 1] - row[at]), abs(soft_row[at + 1] - soft_row[at]))
        shares.append(left / max(total, 1))
    return max(shares)


@pytest.mark.parametrize("seed", range(3))
def test_blur_is_the_formula_of_the_naive_loops(seed: int) -> None:
    image = scene(seed, (40, 30))
    gray = image.convert("L")
    expected = naive_blur(np.asarray(gray), np.asarray(gray.filter(ImageFilter.BoxBlur(4))))
    assert measured(image)["blur"] == pytest.approx(expected, abs=1e-6)


def test_blur_grows_with_the_radius_and_does_not_depend_on_brightness() -> None:
    image = scene(1, (256, 192))
    blurs = [measured(image.filter(ImageFilter.GaussianBlur(radius)))["blur"] for radius in (0, 1, 2, 4)]
    assert blurs == sorted(blurs)
    assert blurs[0] < 0.3
    assert blurs[-1] > 0.7
    darker = image.point(lambda value: value // 2)
    assert measured(darker)["blur"] == pytest.approx(blurs[0], abs=0.05)


def test_sizes_are_those_of_the_whole_image_however_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    scene(0, (2400, 1200)).save(path)
    for image in (read_image_or_crop(str(path)), read_medium("image", str(path))):
        assert image.size[0] < 2400  # decoded at a part of its size
        assert image.info[FULL_SIZE] == (2400, 1200)
        assert 2 ** measured(image)["log_width"] == pytest.approx(2400, rel=1e-5)
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    scene(0, (2400, 1200)).save(turned, exif=exif)
    assert read_medium("image", str(turned)).info[FULL_SIZE] == (1200, 2400)
    crop = read_medium("image", crop_of(str(path), (0.25, 0.25, 0.5, 0.5)))
    assert crop.info[FULL_SIZE] == crop.size


# --- checks -----------------------------------------------------------------------------------------------------------

FAULTS = {  # kind -> the image of a scene
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
    "dark": lambda image: image.point(lambda value: value // 8),
    "bright": lambda image: image.point(lambda value: 255 - (255 - value) // 40),
    "little information": lambda image: Image.new("RGB", image.size, (90, 120, 200)),
    "odd shape": lambda image: image.resize((640, 96)),
    "no color": lambda image: image.convert("L").convert("RGB"),
    "plain border": lambda image: ImageOps.expand(image, border=12, fill="black"),
    ODD_SIZE: lambda image: image.resize((12, 9)),
}
CLEAN = np.stack([measure_pixels(scene(seed, (120 + seed % 16, 90 + seed % 12))) for seed in range(60)])


def kinds(problem: str) -> set[str]:
    return {part.split(" (")[0] for part in problem.split("; ") if part}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_named_and_clean_images_are_left_alone(kind: str) -> None:
    found = check_images(np.vstack([CLEAN, [measure_pixels(FAULTS[kind](scene(99)))]]))
    assert kind in kinds(found.problems[-1])
    assert not any(found.problems[:-1])
    assert not found.notes


SHOWN = {
    "blurred": r"blurred \(blur 0\.\d\d, where 0 is sharp and 1 has no detail\)",
    "dark": r"dark \(99% of the pixels are below \d+% of white\)",
    "bright": r"bright \(95% of the pixels are above 9\d% of white\)",
    "little information": r"little information \(0\.0 of 8 bits in the gray values\)",
    "odd shape": r"odd shape \(about 640 x 96 pixels\)",
    "no color": r"no color \(red, green and blue of 99% of the pixels differ by at most 0%\)",
    "plain border": r"plain border \(\d+% of the area\)",
    ODD_SIZE: r"odd size \(about 12 x 9 pixels\)",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_what_is_said_of_a_fault_names_the_number_and_its_scale(kind: str) -> None:
    found = check_images(np.vstack([CLEAN, [measure_pixels(FAULTS[kind](scene(99)))]]))
    (said,) = [part for part in found.problems[-1].split("; ") if part.startswith(kind)]
    assert re.fullmatch(SHOWN[kind], said), said


def test_every_check_has_an_example() -> None:
    assert set(FAULTS) == {ODD_SIZE, *(check.name for check in CHECKS)}


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind != ODD_SIZE])
def test_what_many_images_show_is_the_style_of_the_set(kind: str) -> None:
    many = np.stack([measure_pixels(FAULTS[kind](scene(seed))) for seed in range(100, 130)])
    found = check_images(np.vstack([CLEAN, many]))
    assert not any(kind in kinds(problem) for problem in found.problems)
    trait = next(check.trait for check in CHECKS if check.name == kind)
    if kind in ("no color", "plain border"):  # rare ones: a third of the set is beyond the tail of none of the others
        assert f"33% of the images {trait}: the style of the set, which is not flagged" in found.notes


def test_images_that_were_not_measured_have_no_problems_and_change_nothing() -> None:
    faulty = np.vstack([CLEAN, [measure_pixels(FAULTS["dark"](scene(99)))]])
    with_gaps = np.vstack([faulty, not_measured(20)])
    assert check_images(with_gaps).problems.tolist() == check_images(faulty).problems.tolist() + [""] * 20
    assert not any(check_images(not_measured(5)).problems)
    assert len(check_images(not_measured(0)).problems) == 0


def test_the_order_of_the_rows_does_not_matter() -> None:
    measures = np.vstack([CLEAN, [measure_pixels(fault(scene(99))) for fault in FAULTS.values()]])
    order = np.random.default_rng(0).permutation(len(measures))
    assert check_images(measures[order]).problems.tolist() == check_images(measures).problems[order].tolist()


# --- stored measures --------------------------------------------------------------------------------------------------


def test_measures_are_stored_where_the_work_is_given_up_too(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    scene(0).save(path)
    digest = file_digest(str(path))

    def give_up() -> None:
        with measuring("image") as watch:
            watch(digest, read_medium("image", str(path)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert np.array_equal(stored([digest])[0], measure_pixels(scene(0)).astype(np.float16).astype(np.float32))
    assert np.isnan(stored(["0" * 64])).all()
    with measuring("text") as watch:
        watch("1" * 64, "a text")
    assert np.isnan(stored(["1" * 64])).all()


@pytest.mark.parametrize("end", [KeyboardInterrupt, ValueError])
def test_a_full_disk_does_not_replace_an_interrupt(
    end: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the measures cannot be stored, what ended the work is still raised; where nothing did, that is."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "file" / "cache"))  # no folder can be made in a file

    def measure(error: BaseException | None) -> None:
        with measuring("image") as watch:
            watch("3" * 64, scene(0))
            if error:
                raise error

    with pytest.raises(end) as caught:
        measure(end("stopped"))
    assert "the measures of the images were not stored" in "".join(caught.value.__notes__)
    with pytest.raises((AuditError, OSError)):
        measure(None)


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"no image")
    seen: list[tuple[str, int, int]] = []
    measure_missing({"2" * 64: str(tmp_path / "no.png")}, lambda *step: seen.append(step))
    assert np.isnan(stored(["2" * 64])).all()
    assert seen == [("measure images", 1, 1)]


# --- in an audit ------------------------------------------------------------------------------------------------------


def test_an_audit_flags_them_and_measures_what_was_encoded_before(tmp_path: Path) -> None:
    texts = [draw(tmp_path / f"{row}.png", row) for row in range(96)]
    Image.new("RGB", (64, 64), (3, 3, 3)).save(tmp_path / "7.png")
    Image.open(tmp_path / "20.png").resize((640, 64)).save(tmp_path / "20.png")
    paths = tuple(str(tmp_path / f"{row}.png") for row in range(96))
    samples = Samples(tuple(map(str, range(96))), {"image": paths, "text": tuple(texts)})
    result = run_audit(samples, QUICK, run_dir=tmp_path / "run")
    assert np.flatnonzero(result.flagged("image_problem")).tolist() == [7, 20]
    assert "little information" in kinds(result.columns["image_problem"][7])
    assert "odd shape (about 640 x 64 pixels)" in result.columns["image_problem"][20]
    assert result.columns["action"][7] in ("review", "relabel")

    for file in FeatureCache(MEASURES_KEY).path.iterdir():
        assert cache_root() in file.parents
        file.unlink()
    again = run_audit(samples, QUICK, run_dir=tmp_path / "again")
    assert not any(again.summary["encoded_now"].values())
    assert again.columns["image_problem"].tolist() == result.columns["image_problem"].tolist()
