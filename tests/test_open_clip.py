from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.encoders import open_clip as clip
from audit_plugin.encoders.base import Encoder
from audit_plugin.encoders.embed import encode_batch
from audit_plugin.encoders.registry import load_encoders, resolve_name
from audit_plugin.inputs import images, video
from tests.clip_fixtures import MODEL, tiny_checkpoints

open_clip = pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with two checkpoints of a model too small to know anything."""
    from safetensors.torch import save_file

    folder = tiny_checkpoints(tmp_path_factory.mktemp("clip"), "a", "b")
    for name in "ab":
        weights = torch.load(folder / f"{name}.pt", weights_only=True)
        save_file({k: v.contiguous() for k, v in weights.items()}, folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def nothing_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights cache, and a hub that refuses connections."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def both(name: str) -> dict[str, Encoder]:
    return load_encoders(f"open_clip:{MODEL}:{name}", ("image", "text"), "cpu")


def refusal(name: str, modalities: tuple[str, ...] = ("image", "text")) -> str:
    with pytest.raises(AuditError) as caught:
        load_encoders(name, modalities, "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def feature(encoder: Encoder, medium: object) -> np.ndarray:
    return encode_batch(encoder.prepare(medium), encoder)


# --- local checkpoints ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_checkpoint_gives_the_features_of_its_model(tiny: Path, suffix: str) -> None:
    encoders = both(str(tiny / f"a.{suffix}"))
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(tiny / "a.pt"))
    model.eval()
    picture = Image.radial_gradient("L").convert("RGB")
    with torch.inference_mode():
        image = model.encode_image(transform(picture)[None]).numpy()
        text = model.encode_text(open_clip.get_tokenizer(MODEL)(["two cats"])).numpy()
    np.testing.assert_allclose(feature(encoders["image"], picture), image, atol=1e-5)
    np.testing.assert_allclose(feature(encoders["text"], "two cats"), text, atol=1e-5)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_for_texts_alone_the_image_tower_is_not_loaded(tiny: Path, suffix: str) -> None:
    name = f"open_clip:{MODEL}:{tiny / f'a.{suffix}'}"
    model, _ = clip._load_model(clip.locate(name), torch.device("cpu"), only_text=True)
    assert not [key for key, _ in model.named_parameters() if key.startswith("visual")]
    alone, beside = load_encoders(name, ("text",), "cpu")["text"], load_encoders(name, ("image", "text"), "cpu")["text"]
    assert alone.identity == beside.identity
    np.testing.assert_array_equal(feature(alone, "a red cat"), feature(beside, "a red cat"))


def test_what_cannot_be_loaded_by_halves_is_loaded_whole_or_named(tiny: Path, tmp_path: Path) -> None:
    weights = torch.load(tiny / "a.pt", weights_only=True)
    old, lacking = tmp_path / "old.pt", tmp_path / "lacking.pt"
    torch.save(weights, old, _use_new_zipfile_serialization=False)
    found = load_encoders(f"open_clip:{MODEL}:{old}", ("text",), "cpu")["text"]
    np.testing.assert_array_equal(feature(found, "a red cat"), feature(both(f"{tiny}/a.pt")["text"], "a red cat"))
    torch.save({key: value for key, value in weights.items() if key != "ln_final.weight"}, lacking)
    assert "lacking.pt' cannot be loaded" in refusal(f"open_clip:{MODEL}:{lacking}", ("text",))


def test_both_sides_share_a_space_and_a_changed_file_is_another_encoder(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    keys = []
    for name in ("a", "b"):  # overwritten in place
        path.write_bytes((tiny / f"{name}.pt").read_bytes())
        known = clip.identify(f"open_clip:{MODEL}:{path}", ("image", "text"))
        loaded = both(str(path))
        assert {m: e.identity for m, e in loaded.items()} == known
        assert known["image"].space == known["text"].space != ""
        keys += [known["image"].key, known["text"].key]
    assert len(set(keys)) == 4
    assert known["image"].key == clip.identify(f"open_clip:{MODEL}:{tiny / 'b.pt'}", ("image",))["image"].key


def test_a_checkpoint_that_would_run_code_is_refused_unrun(tiny: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pt")
    message = refusal(f"open_clip:{MODEL}:{tmp_path / 'bomb.pt'}")
    assert "bomb.pt' cannot be loaded as tiny-for-tests" in message
    assert "name a checkpoint of this model" in message
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_file_that_is_no_checkpoint_is_named(tiny: Path, tmp_path: Path, content: bytes) -> None:
    for name in ("x.pt", "x.safetensors"):
        (tmp_path / name).write_bytes(content)
        message = refusal(f"open_clip:{MODEL}:{tmp_path / name}")
        assert name in message


def test_a_checkpoint_of_another_model_is_named(tiny: Path, tmp_path: Path) -> None:
    torch.save({"positional_embedding": torch.zeros(3, 3)}, tmp_path / "other.pt")
    assert "other.pt' cannot be loaded as tiny-for-tests" in refusal(f"open_clip:{MODEL}:{tmp_path / 'other.pt'}")


def test_long_texts_are_split_and_all_parts_are_used(tiny: Path) -> None:
    text = both(str(tiny / "a.pt"))["text"]
    pieces = text.prepare("dog " * 40 + "zebra")
    assert len(pieces) >= 3
    assert {p.shape for p in pieces} <= {(8,), (16,)}
    dog, zebra = (text.prepare(word)[0][1] for word in ("dog", "zebra"))
    assert sum(int((p == dog).sum()) for p in pieces) == 40
    assert sum(int((p == zebra).sum()) for p in pieces) == 1
    assert len(text.prepare("a short one")) == 1


def test_a_feature_does_not_depend_on_its_batch(tiny: Path) -> None:
    encoder = both(str(tiny / "a.pt"))["image"]
    pieces = [encoder.prepare(Image.new("RGB", (40, 40), c))[0] for c in ("red", "green", "blue")]
    alone = encode_batch(pieces[2:], encoder)[0]
    assert alone.tobytes() == encode_batch(pieces, encoder)[2].tobytes()


def test_a_video_is_its_frames(tiny: Path) -> None:
    encoders = load_encoders(f"open_clip:{MODEL}:{tiny / 'a.pt'}", ("image", "text", "video"), "cpu")
    frames = [Image.new("RGB", (40, 30), c) for c in ("red", "blue", "red")]
    rows = feature(encoders["video"], frames)
    np.testing.assert_array_equal(rows, np.concatenate([feature(encoders["image"], f) for f in frames]))
    assert encoders["video"].identity.space == encoders["text"].identity.space
    assert encoders["video"].identity.key == encoders["image"].identity.key.replace(
        f":image:{images.READING}", f":video:{video.READING}"
    )


# --- names ---------------------------------------------------------------------------------------------------------


def test_unknown_models_tags_and_files_are_named_with_what_there_is() -> None:
    assert "open_clip knows no model 'ViT-B32'; did you mean ViT-B-32" in refusal("open_clip:ViT-B32")
    message = refusal("open_clip:ViT-B-32:laion3b")
    assert "'laion3b' is neither a checkpoint file nor weights that open_clip knows for ViT-B-32 (" in message
    assert "openai" in message
    assert "/nowhere/x.pt" in refusal("open_clip:ViT-B-32:/nowhere/x.pt")
    message = refusal("open_clip:ViT-B-32", ("image", "audio"))
    assert message.startswith("encoder 'open_clip:ViT-B-32' takes no audio; add one")
    assert message.endswith("such as open_clip:ViT-B-32+offline")
    with pytest.raises(AuditError, match="open_clip encodes image, text and video, not audio"):
        clip.load("open_clip:ViT-B-32", ("text", "audio"), torch.device("cpu"))
    with pytest.raises(AuditError, match="'clap:x' is not an open_clip model"):
        clip.locate("clap:x")


@pytest.mark.usefixtures("nothing_cached")
def test_auto_without_cached_weights_is_offline() -> None:
    assert resolve_name("auto", ("image", "text")) == "offline"
    assert resolve_name("open_clip:ViT-B-32:openai", ("image", "text")) == "open_clip:ViT-B-32:openai"


@pytest.mark.usefixtures("nothing_cached")
def test_a_modality_without_an_encoder_gets_the_offline_one() -> None:
    three = ("image", "text", "audio")
    assert resolve_name("open_clip:ViT-B-32:openai", three) == "open_clip:ViT-B-32:openai+offline"
    assert resolve_name("open_clip:ViT-B-32:openai+offline", three) == "open_clip:ViT-B-32:openai+offline"
    assert resolve_name("open_clip:ViT-B-32+clap:a/b", three) == "open_clip:ViT-B-32+clap:a/b"
    assert resolve_name("clap:a/b", ("text", "video", "audio")) == "clap:a/b+offline"
    assert resolve_name("auto", three) == "offline"
    with pytest.raises(AuditError, match="encoder 'timm:x' is not known"):
        resolve_name("timm:x", three)


def test_auto_with_cached_weights_is_the_default_model(nothing_cached: Path) -> None:
    repo = nothing_cached / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots" / "abc").mkdir(parents=True)
    weights = repo / "snapshots" / "abc" / "open_clip_model.safetensors"
    weights.write_bytes(b"weights")
    name = resolve_name("auto", ("image", "text"))
    assert name == "open_clip:ViT-B-32:laion2b_s34b_b79k"
    assert resolve_name("auto", ("audio", "text")) == name + "+offline"
    assert clip.locate(name).path == str(weights)
    assert clip.identify(name, ("text",))["text"].english


@pytest.mark.usefixtures("nothing_cached")
def test_without_a_network_one_sentence_says_so_at_once() -> None:
    start = time.monotonic()
    message = refusal("open_clip:ViT-B-32:laion2b_s34b_b79k")
    assert time.monotonic() - start < 5
    assert "'laion2b_s34b_b79k' of ViT-B-32 are not cached and their server is out of reach" in message
    assert "--encoder offline" in message
    assert clip.identify("open_clip:ViT-B-32:laion2b_s34b_b79k", ("image",)) == {}


def test_hub_switched_off_counts_as_out_of_reach(nothing_cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not clip.reachable({"hf_hub": "laion/x/"})


def test_the_default_source_is_what_open_clip_says() -> None:
    import open_clip

    assert open_clip.get_pretrained_cfg(*clip.DEFAULT_CLIP)["hf_hub"] == clip.DEFAULT_SOURCE["hf_hub"]
