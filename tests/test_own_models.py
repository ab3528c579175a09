from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.encoders.embed import digest_contents, silent
from audit_plugin.encoders.own_models import checkpoint_features, embed_with
from tests.clip_fixtures import MODEL, tiny_checkpoints

open_clip = pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the checkpoints f.pt and g.pt of a model too small to know anything."""
    return tiny_checkpoints(tmp_path_factory.mktemp("checkpoints"), "f", "g")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))


def mean_color(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.float64).mean((0, 1)) for image in images])


def letters(texts: list[Any]) -> np.ndarray:
    return np.array([[text.count(c) for c in "aeiou "] for text in texts])


FUNCTIONS = {"image": mean_color, "text": letters}


# --- open_clip checkpoints -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_cache")
def test_two_checkpoints_of_one_model(tiny: Path, pictures: list[str], captions: list[str]) -> None:
    samples = Samples(tuple(captions[:9]), {"image": tuple(pictures[:9]), "text": tuple(captions[:9])})
    contents = digest_contents(samples, silent)
    names = [f"open_clip:{MODEL}:{tiny / name}.pt" for name in "fg"]
    f, g = (checkpoint_features(samples, contents, name, "cpu", silent) for name in names)
    model = open_clip.create_model(MODEL, pretrained=str(tiny / "f.pt")).eval()
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer(MODEL)(captions[:9]), normalize=True).numpy()
    np.testing.assert_allclose(f.features.vectors["text"], expected, atol=5e-4)  # stored as float16
    assert abs(f.features.vectors["image"] - g.features.vectors["image"]).max() > 0.01
    again = checkpoint_features(samples, contents, names[0], "cpu", silent)
    assert f.encoded == {"image": 9, "text": 9}
    assert again.encoded == {"image": 0, "text": 0}  # from the cache, to the bit
    np.testing.assert_array_equal(again.features.vectors["image"], f.features.vectors["image"])


@pytest.mark.parametrize(
    ("name", "says"),
    [("", "--checkpoint-f"), ("resnet:50", "is not an open_clip model"), (f"open_clip:{MODEL}:/no/f.pt", "neither")],
)
def test_names_that_are_no_checkpoint(tiny: Path, name: str, says: str) -> None:
    samples = Samples(("a",), {"image": (None,), "text": ("a",)})
    with pytest.raises(AuditError, match=says):
        checkpoint_features(samples, digest_contents(samples, silent), name, "cpu", silent)


# --- any functions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_functions_by_hand(pictures: list[str], captions: list[str], batch: int) -> None:
    from PIL import Image

    sizes: list[int] = []

    def text(values: list[Any]) -> torch.Tensor:  # a tensor that needs gradients, as a model gives it
        sizes.append(len(values))
        return torch.tensor(letters(values), dtype=torch.bfloat16).requires_grad_()

    embedded = embed_with({"image": pictures[:20], "text": captions[:20]}, {**FUNCTIONS, "text": text}, batch)
    colors = mean_color([Image.open(p) for p in pictures[:20]])
    np.testing.assert_allclose(
        embedded.features.vectors["image"], colors / np.linalg.norm(colors, axis=1, keepdims=True), rtol=1e-5
    )
    words = letters(captions[:20])
    np.testing.assert_allclose(
        embedded.features.vectors["text"], words / np.linalg.norm(words, axis=1, keepdims=True), rtol=1e-5
    )
    assert embedded.features.present.all()
    assert not embedded.failures
    assert max(sizes) <= batch
    assert sum(sizes) == 20


def test_bad_media_are_failures_of_their_rows(pictures: list[str], tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(Path(pictures[0]).read_bytes()[:100])
    images = [pictures[0], str(tmp_path / "torn.png"), None, pictures[1]]
    embedded = embed_with({"image": images, "text": ["a", "b", None, "e"]}, FUNCTIONS, 2)
    assert embedded.features.present.tolist() == [[True, True], [False, True], [False, False], [True, True]]
    assert embedded.failures[1].startswith("image: image is damaged")
    assert embedded.failures[2] == "image: no value; text: no value"
    assert set(embedded.failures) == {1, 2}
    assert not embedded.features.vectors["image"][1:3].any()
    assert embedded.encoded == {"image": 2, "text": 3}


def test_the_rest_of_the_rows_does_not_matter(pictures: list[str], captions: list[str]) -> None:
    whole = embed_with({"image": pictures[:10], "text": captions[:10]}, FUNCTIONS, 4).features
    part = embed_with({"image": pictures[3:6], "text": captions[3:6]}, FUNCTIONS, 4).features
    np.testing.assert_array_equal(part.vectors["image"], whole.vectors["image"][3:6])


def test_a_modality_of_which_nothing_can_be_used(captions: list[str]) -> None:
    embedded = embed_with({"image": [None] * 3, "text": captions[:3]}, FUNCTIONS)
    assert embedded.features.vectors["image"].shape == (3, 1)
    assert not embedded.features.present[:, 0].any()


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda texts: np.zeros(len(texts)), r"must return \[2, d\]"),
        (lambda texts: np.zeros((len(texts) - 1, 4)), r"shape \(1, 4\) for 2 media"),
        (lambda texts: np.full((len(texts), 4), np.inf), "not finite"),
        (lambda texts: np.ones((len(texts), 3 + ("c" in texts))), "returned 3 dimensions, then 4"),
    ],
)
def test_functions_that_give_something_else(function: Any, says: str) -> None:
    with pytest.raises(AuditError, match=says):
        embed_with({"text": ["a", "b", "c", "d"]}, {"text": function}, 2)


def test_a_function_is_needed_for_every_modality() -> None:
    with pytest.raises(AuditError, match="no function for image"):
        embed_with({"image": [None], "text": ["a"]}, {"text": letters})
