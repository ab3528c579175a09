from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from audit_plugin.arrays import AuditError
from audit_plugin.encoders import clap
from audit_plugin.encoders.base import Encoder
from audit_plugin.encoders.embed import encode_batch
from audit_plugin.encoders.registry import identify, load_encoders
from audit_plugin.inputs.audio import RATE, Sound
from tests.media_fixtures import tone

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a CLAP model too small to know anything, as its library saves it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    config = ClapConfig(
        text_config={
            "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "max_position_embeddings": 34, "pad_token_id": 1, "projection_dim": 12,
        },
        audio_config={
            "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [1, 2], "num_hidden_layers": 2,
            "hidden_size": 16, "spec_size": 64, "num_mel_bins": 16, "window_size": 2, "projection_dim": 12,
        },
        projection_dim=12,
    )  # fmt: skip
    ClapModel(config).save_pretrained(folder)
    # a 1 s window, so that pieces have to be cut
    ClapFeatureExtractor(
        feature_size=16, max_length_s=1, frequency_max=14_000, truncation="rand_trunc", sampling_rate=RATE
    ).save_pretrained(folder)
    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "dog", "cat", "barks", "loud", "rain", "sun", "zebra"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(tiny: Path) -> dict[str, Encoder]:
    return load_encoders(f"clap:{tiny}", ("audio", "text"), "cpu")


def feature(encoder: Encoder, medium: object) -> np.ndarray:
    return encode_batch(encoder.prepare(medium), encoder)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


WAVES = tuple(tone(hertz, seconds, RATE).astype(np.float32) for hertz, seconds in ((300, 0.4), (700, 1.0)))


def test_features_are_those_of_the_model(tiny: Path, loaded: dict[str, Encoder]) -> None:
    model = transformers.ClapModel.from_pretrained(tiny).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tiny)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    with torch.inference_mode():
        sounds = model(
            **extractor(list(WAVES), sampling_rate=RATE, return_tensors="pt"),
            **tokenizer(["a dog barks"] * 2, return_tensors="pt"),
        )
    rows = feature(loaded["audio"], Sound(WAVES, 1.4))
    assert rows.shape == (2, 12)
    np.testing.assert_allclose(unit(rows), sounds.audio_embeds, atol=1e-5)
    np.testing.assert_allclose(unit(feature(loaded["text"], "a dog barks")), sounds.text_embeds[:1], atol=1e-5)


def test_both_sides_share_a_space_and_are_known_before_they_are_loaded(tiny: Path, loaded: dict[str, Encoder]) -> None:
    assert identify(f"clap:{tiny}", ("audio", "text")) == {m: loaded[m].identity for m in ("audio", "text")}
    assert loaded["audio"].identity.space == loaded["text"].identity.space != ""
    assert loaded["audio"].identity.key != loaded["text"].identity.key


def test_a_feature_does_not_depend_on_its_batch_or_on_chance(loaded: dict[str, Encoder]) -> None:
    pieces = loaded["audio"].prepare(Sound(WAVES, 1.4))
    both = encode_batch(pieces, loaded["audio"])
    assert encode_batch(pieces[1:], loaded["audio"])[0].tobytes() == both[1].tobytes()
    long = Sound((tone(300, 2.5, RATE).astype(np.float32),), 2.5)
    first, second = (feature(loaded["audio"], long) for _ in range(2))
    assert len(first) == 3  # cut here, in order, not at random
    assert first.tobytes() == second.tobytes()


def test_long_texts_are_split_and_all_parts_are_used(loaded: dict[str, Encoder]) -> None:
    pieces = loaded["text"].prepare("dog " * 100 + "zebra")
    assert all(len(p) == 32 for p in pieces)
    assert sum(int((p == 5).sum()) for p in pieces) == 100
    assert sum(int((p == 11).sum()) for p in pieces) == 1
    assert np.isfinite(encode_batch(pieces, loaded["text"])).all()
    assert np.isfinite(feature(loaded["text"], "x")).all()


@pytest.mark.parametrize(
    ("remove", "reason"),
    [("model.safetensors", "holds no weights"), ("preprocessor_config.json", "cannot be loaded as CLAP")],
)
def test_an_incomplete_folder_is_named(tiny: Path, tmp_path: Path, remove: str, reason: str) -> None:
    shutil.copytree(tiny, tmp_path / "part")
    (tmp_path / "part" / remove).unlink()
    with pytest.raises(AuditError, match=reason) as caught:
        load_encoders(f"clap:{tmp_path / 'part'}", ("audio", "text"), "cpu")
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    shutil.copytree(tiny, tmp_path / "other")
    save_file({"x": torch.zeros(2)}, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    with pytest.raises(AuditError, match="weights are missing"):
        load_encoders(f"clap:{tmp_path / 'other'}", ("audio",), "cpu")


def test_names_that_are_nothing_and_models_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1")
    with pytest.raises(AuditError, match="neither a folder nor the name of a model"):
        load_encoders("clap:/none/at/all", ("audio",), "cpu")
    assert clap.identify("clap:some/model", ("audio",)) == {}
    with pytest.raises(AuditError, match="'some/model' is not cached and its server is out of reach"):
        load_encoders("clap:some/model", ("audio",), "cpu")


def test_a_cached_model_is_found(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    repo = tmp_path / "models--some--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    shutil.copytree(tiny, repo / "snapshots" / "abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert identify("clap:some/model", ("audio",)) == identify(f"clap:{tiny}", ("audio",))
    assert load_encoders("clap:some/model", ("audio",), "cpu")["audio"].identity.space.startswith("clap:")
