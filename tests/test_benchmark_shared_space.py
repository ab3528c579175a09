from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image

from audit_plugin.encoders.open_clip import locate
from audit_plugin.encoders.registry import load_encoders
from benchmarks import shared_space as bench


@pytest.fixture(scope="module")
def trunk():
    made = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    bench._load_trunk(made)
    return made


def blobs(count):
    """Colored noise of low frequency, which fills the frame."""
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(count)]
    return [image.resize((224, 224), Image.Resampling.BICUBIC) for image in small]


def test_the_trunk_sees_in_open_clips_pixels_what_the_offline_encoder_sees_in_its_own(trunk, tmp_path):
    paths = []
    for i, image in enumerate(blobs(6)):
        paths.append(str(tmp_path / f"{i}.png"))
        image.save(paths[-1])
    found = bench._trunk_features(SimpleNamespace(visual=SimpleNamespace(trunk=trunk)), paths, None, 1)[0].numpy()
    offline = load_encoders("offline", ("image",), "cpu")["image"]
    known = offline.encode(np.stack([offline.prepare(image)[0] for image in blobs(6)]))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, known)]
    assert (unit[0] * unit[1]).sum(1).min() > 0.999
    assert not any(p.requires_grad for p in trunk.parameters())


def test_altered_pictures_keep_their_size_and_change():
    image = blobs(1)[0]
    one, same, other = (bench._altered(image, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.size == image.size
    assert one.mode == "RGB"
    assert one.tobytes() == same.tobytes() != other.tobytes() != image.tobytes()


def test_the_rate_rises_and_falls():
    rate = bench._warm_then_cosine(100)
    rates = [rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=0.03)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_an_epoch_sees_every_row_once_and_never_two_sets_in_a_batch():
    kept = [np.arange(300), np.arange(50)]
    batches = bench._batches(kept, np.random.default_rng(0))
    for number, rows in enumerate(kept):
        assert sorted(np.concatenate([part for n, part in batches if n == number])) == rows.tolist()
    assert max(len(part) for _, part in batches) <= bench.BATCH
    held, trained = bench._split([range(40), range(20)], np.random.default_rng(0))[::-1]
    assert [len(rows) for rows in held] == [4, 2]
    assert all(set(a) | set(b) == set(range(n)) for a, b, n in zip(held, trained, (40, 20), strict=True))


def test_the_loss_is_the_mean_of_both_directions():
    logits = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    rows = np.log(1 + np.exp(-2)), np.log(2)
    columns = np.log(1 + np.exp(-1)), np.log(1 + np.exp(-1))
    assert float(bench._contrast(logits)) == pytest.approx((np.mean(rows) + np.mean(columns)) / 2, rel=1e-5)


def test_training_brings_pairs_together_and_the_encoder_loads_what_was_saved(monkeypatch, tmp_path):
    """Features that stand for a picture, eight captions: the projection and the text tower learn them by heart."""
    monkeypatch.setattr(bench, "EPOCHS", 25)
    folder = tmp_path / "shared_space"
    folder.mkdir()
    (folder / f"{bench.MODEL}.json").write_text(json.dumps(bench.CONFIG))
    bench.register(tmp_path)
    torch.manual_seed(0)
    model = open_clip.create_model(bench.MODEL)
    model.visual.trunk.requires_grad_(False)
    words = ["red", "green", "blue", "black", "white", "yellow", "brown", "pink"]
    views = torch.rand(2, 8, 1280)
    tokens = open_clip.get_tokenizer(bench.MODEL)(words)
    with torch.inference_mode():
        shorter = bench.WordTable(model, [tokens]).encode(model, tokens)
        assert torch.allclose(shorter, model.encode_text(tokens), atol=1e-5)
    before = bench._retrieval(model.eval(), views[0], tokens)
    loss = bench._fit(model, [views], [tokens], [np.arange(8)], np.random.default_rng(0))
    assert loss < 1.0 < np.log(8)
    assert bench._retrieval(model, views[0], tokens)["swap_auroc"] == 1.0 > before["swap_auroc"]
    torch.save(model.state_dict(), folder / "weights.pt")
    name = bench.encoder_name(tmp_path)
    assert locate(name).path == str(folder / "weights.pt")
    text = load_encoders(name, ("image", "text"), "cpu")["text"]
    got = text.encode(np.stack([text.prepare(word)[0] for word in words]))
    with torch.inference_mode():
        assert np.allclose(got, model.encode_text(tokens).numpy(), atol=1e-4)
