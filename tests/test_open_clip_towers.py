from __future__ import annotations

import functools
import gc
import json
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from audit_plugin.arrays import Samples
from audit_plugin.encoders import open_clip_towers as clip_encoders
from audit_plugin.encoders.base import Encoder
from audit_plugin.encoders.embed import digest_contents, encode_batch, silent
from audit_plugin.encoders.precision import bf16_encoder, choose_precision, try_bf16
from audit_plugin.encoders.prompts import prompted_encoders
from audit_plugin.encoders.registry import load_encoders
from audit_plugin.inputs.files import text_digest
from tests.media_fixtures import encode_contents

open_clip = pytest.importorskip("open_clip")
CONTEXT = 32
TEXTS = ("a cat", "two dogs and a bird near the harbour", "x " * 20, "eleven " * 26)
TEXT_CONFIG = {"context_length": CONTEXT, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 3}
# What open_clip builds differently: the first kind of model, the newer one, one whose texts look both ways.
KINDS = {
    "first": {},
    "newer": {"custom_text": True},
    "both-ways": {"custom_text": True, "text_cfg": {**TEXT_CONFIG, "no_causal_mask": True, "pool_type": "last"}},
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Kind -> name of a small random model with its weights."""
    folder, names = tmp_path_factory.mktemp("clip"), {}
    for kind, changes in KINDS.items():
        config = {
            "embed_dim": 48,
            "vision_cfg": {"image_size": 48, "layers": 2, "width": 64, "patch_size": 16, "head_width": 16},
            "text_cfg": TEXT_CONFIG,
        }
        path = folder / f"small-{kind}.json"
        path.write_text(json.dumps({**config, **changes}))
        open_clip.add_model_config(path)
        torch.manual_seed(0)
        model = open_clip.create_model(path.stem)
        for name, weight in model.named_parameters():  # random biases too, so that nothing is zero by chance
            if name.endswith("bias"):
                torch.nn.init.normal_(weight, std=0.1)
        torch.save(model.state_dict(), folder / f"{kind}.pt")
        names[kind] = f"open_clip:small-{kind}:{folder / f'{kind}.pt'}"
    return names


def loaded(name: str, modality: str) -> Encoder:
    return load_encoders(name, (modality,), "cpu")[modality]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def reference(name: str) -> tuple:
    """open_clip's own model, transform and tokenizer."""
    model, _, transform = open_clip.create_model_and_transforms(
        name.split(":")[1], pretrained=name.split(":", 2)[2], weights_only=True
    )
    return model.eval(), transform, open_clip.get_tokenizer(name.split(":")[1])


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(48, 48), (200, 90), (60, 131), (500, 500)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_bytes_give_the_features_of_the_models_own_transform(checkpoints: dict, kind: str) -> None:
    encoder, (model, transform, _) = loaded(checkpoints[kind], "image"), reference(checkpoints[kind])
    pieces = [encoder.prepare(image)[0] for image in pictures()]
    assert {(p.dtype.name, p.shape) for p in pieces} == {("uint8", (48, 48, 3))}
    with torch.inference_mode():
        expected = model.encode_image(torch.stack([transform(image) for image in pictures()])).numpy()
    np.testing.assert_allclose(encode_batch(pieces, encoder), expected, atol=1e-5)


def test_of_a_very_long_image_the_middle_is_resized_and_no_gigabytes(checkpoints: dict) -> None:
    encoder, (_, transform, _) = loaded(checkpoints["first"], "image"), reference(checkpoints["first"])
    ramp = np.broadcast_to(np.linspace(0, 255, 2_000)[:, None, None], (2_000, 7, 3)).astype(np.uint8)
    for values in (ramp, ramp.transpose(1, 0, 2)):
        image = Image.fromarray(np.ascontiguousarray(values))
        expected = image
        for step in transform.transforms[:-2]:
            expected = step(expected)
        np.testing.assert_allclose(encoder.prepare(image)[0], np.asarray(expected), atol=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for size in ((1, 100_000), (100_000, 1)):
        assert encoder.prepare(Image.new("RGB", size))[0].shape == (48, 48, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes; else 900 MB


@pytest.mark.parametrize(("kind", "lengths"), [("first", [8, 16, 32, 32]), ("newer", [8, 16, 32, 32])])
def test_texts_at_their_own_length_have_the_features_of_the_whole_context(
    checkpoints: dict, kind: str, lengths: list[int]
) -> None:
    encoder, (model, _, tokenizer) = loaded(checkpoints[kind], "text"), reference(checkpoints[kind])
    pieces = [encoder.prepare(text)[0] for text in TEXTS]
    assert [len(piece) for piece in pieces] == lengths
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(list(TEXTS))).numpy()
    features = np.concatenate([encode_batch([piece], encoder) for piece in pieces])
    np.testing.assert_allclose(unit(features), unit(expected), atol=1e-5)


def test_a_tower_that_looks_both_ways_keeps_the_whole_context(checkpoints: dict) -> None:
    encoder, (model, _, tokenizer) = loaded(checkpoints["both-ways"], "text"), reference(checkpoints["both-ways"])
    pieces = [encoder.prepare(text)[0] for text in TEXTS]
    assert {len(piece) for piece in pieces} == {CONTEXT}
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(list(TEXTS))).numpy()
        short = model.encode_text(tokenizer(list(TEXTS[:1]))[:, :8]).numpy()
    np.testing.assert_allclose(unit(encode_batch(pieces, encoder)), unit(expected), atol=1e-5)
    assert np.abs(unit(short) - unit(expected[:1])).max() > 1e-3  # what the check at loading has to notice


VISION = {"image_size": 48, "layers": 2, "width": 64, "patch_size": 16, "head_width": 16}
# Vision towers, and whether their last block is asked for the first token alone.
TOWERS = {
    "plain": ({}, True),
    "scaled": ({"ls_init_value": 0.5}, True),
    "norm-after": ({"final_ln_after_pool": True}, True),
    "mean": ({"pool_type": "avg"}, False),
    "attention": ({"attentional_pool": True, "attn_pooler_heads": 4}, False),
    "own-attention": ({"qk_norm": True}, False),
    "convolutions": ({"layers": [1, 1, 1, 1], "width": 16}, False),
}


@pytest.mark.parametrize("kind", TOWERS)
def test_the_last_block_is_shortened_only_where_nothing_else_is_read(tmp_path: Path, kind: str) -> None:
    changes, expected = TOWERS[kind]
    config = {"embed_dim": 48, "vision_cfg": {**VISION, **changes}, "text_cfg": TEXT_CONFIG}
    (tmp_path / f"tower-{kind}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"tower-{kind}.json")
    torch.manual_seed(1)
    model = open_clip.create_model(f"tower-{kind}").eval()
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.1)
    tower = clip_encoders._with_parts(model, lambda name: name == "visual")
    short = clip_encoders._with_first_token_block(tower, torch.device("cpu"))
    assert (short is not tower) == expected
    pixels = torch.randn(3, 3, 48, 48)
    with torch.inference_mode():
        whole, found = model.encode_image(pixels), short.encode_image(pixels)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    used = [type(module) for module in short.modules()]
    assert (clip_encoders.FirstToken in used) == expected
    assert clip_encoders.FirstToken not in [type(module) for module in model.modules()]  # the model is as it was
    packed = clip_encoders._with_packed_layers(short, torch.device("cpu"))
    reads_weights = kind == "convolutions"  # their attention pool
    assert (clip_encoders.Packed in [type(module) for module in packed.modules()]) != reads_weights
    assert clip_encoders.Packed not in [type(module) for module in (*model.modules(), *short.modules())]
    with torch.inference_mode():
        torch.testing.assert_close(packed.encode_image(pixels), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_layer_is_the_layer(bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 40, bias=bias).to(dtype)
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with pytest.raises(RuntimeError, match="cpu support"):  # towers stay as they are then (`_with_equal_visual`)
            clip_encoders.Packed(layer)
        return
    packed, x = clip_encoders.Packed(layer), torch.randn(2, 5, 24).to(dtype)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), layer(x), atol=2e-2 if dtype == torch.bfloat16 else 1e-6, rtol=1e-2)


class Reader(torch.nn.Module):
    """Reads the weights of its layer itself."""

    image_size = (4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(48, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.layer.weight.T


def test_a_tower_that_reads_its_layers_weights_is_left_as_it_is() -> None:
    tower = torch.nn.Module()
    tower.visual = Reader()
    assert clip_encoders._with_packed_layers(tower, torch.device("cpu")) is tower
    assert type(tower.visual.layer) is torch.nn.Linear


def test_a_texts_length_is_decided_by_itself_alone(checkpoints: dict) -> None:
    encoder = loaded(checkpoints["first"], "text")
    alone = {d: f for d, f, _ in encode_contents("text", {text_digest(TEXTS[0]): TEXTS[0]}, encoder)}
    together = {d: f for d, f, _ in encode_contents("text", {text_digest(t): t for t in TEXTS}, encoder)}
    digest = text_digest(TEXTS[0])
    assert alone[digest].tobytes() == together[digest].tobytes()


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_bf16_are_a_copy_with_nearly_the_same_features(checkpoints: dict, kind: str, modality: str) -> None:
    encoder = loaded(checkpoints[kind], modality)
    small = bf16_encoder(encoder)
    media = TEXTS if modality == "text" else pictures()
    for medium in media:
        piece = encoder.prepare(medium)
        before = encode_batch(piece, encoder)
        low = encode_batch(piece, small)
        assert low.dtype == np.float32
        assert (unit(low) * unit(before)).sum() > 0.999
        assert not np.array_equal(low, before)
        np.testing.assert_array_equal(encode_batch(piece, encoder), before)  # the original is as it was
    assert small.identity.key == encoder.identity.key + ":bf16"
    assert small.identity.space == encoder.identity.space


@pytest.mark.parametrize("modality", ["image", "text", "video"])
def test_weights_in_full_precision_are_let_go_where_bf16_is_taken(checkpoints: dict, modality: str) -> None:
    texts, name = TEXTS[:2], checkpoints["first"]
    load = functools.cache(lambda: prompted_encoders(load_encoders(name, (modality,), "cpu"), ("a photo of {}",)))
    samples = Samples(("0", "1"), {modality: texts})
    contents = digest_contents(samples, silent)
    identities = {modality: load()[modality].identity}
    settled = choose_precision(samples, contents, identities, load, "bf16", "cpu")
    assert {encoder.identity for encoder in settled.load().values()} == set(settled.identities.values())
    gc.collect()
    kinds = {p.dtype for p in gc.get_objects() if type(p) is torch.nn.Parameter and p.shape == (64, 64)}
    assert kinds == {torch.bfloat16}


def test_a_trial_of_a_real_model_ends_with_a_reason(checkpoints: dict) -> None:
    encoder = loaded(checkpoints["first"], "image")
    decision = try_bf16(encoder, np.stack([encoder.prepare(pictures()[0])[0]] * 8), "cpu")
    assert decision.precision in ("fp32", "bf16")
    assert "times as fast" in decision.reason


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_features_are_those_of_the_cpu(checkpoints: dict) -> None:
    for modality, media in (("image", pictures()), ("text", TEXTS)):
        here = loaded(checkpoints["first"], modality)
        there = load_encoders(checkpoints["first"], (modality,), "cuda")[modality]
        assert there.batch == 256
        for medium in media:
            pieces = here.prepare(medium)
            np.testing.assert_allclose(encode_batch(pieces, there), encode_batch(pieces, here), atol=1e-3)
