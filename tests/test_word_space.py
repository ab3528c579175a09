from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit_plugin.arrays import Samples
from audit_plugin.audit.prepare import Clock, prepare
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.encoders import word_space
from audit_plugin.encoders.base import EncoderIdentity
from audit_plugin.encoders.embed import silent
from audit_plugin.encoders.offline import IDENTITIES, class_head, class_names
from audit_plugin.encoders.word_space import SCALE, SOFTNESS, word_vectors
from audit_plugin.scoring.evidence import vectors_in_one_space


def photographs(real_data: Path, per_class: int = 8) -> tuple[Samples, list[str]]:
    """Photographs of clothing with the names of their classes, and these names."""
    classes = sorted(folder.name for folder in (real_data / "clothing" / "test").iterdir())
    files = {name: sorted((real_data / "clothing" / "test" / name).glob("*.jpg"))[:per_class] for name in classes}
    paths = tuple(str(path) for name in classes for path in files[name])
    labels = [name for name in classes for _ in files[name]]
    return Samples(paths, {"image": paths, "text": tuple(labels)}), labels


def identities() -> dict[str, EncoderIdentity]:
    return {name: IDENTITIES[name] for name in ("image", "text")}


def test_the_names_are_those_of_the_class_head() -> None:
    weight, bias = class_head()
    assert weight.shape == (1000, 1280)
    assert bias.shape == (1000,)
    assert len(set(class_names())) >= 998  # "crane" and "maillot" are two things each
    assert "jersey, T-shirt, tee shirt" in class_names()
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    assert class_names() == tuple(info.index_to_description(number) for number in range(1000))


def test_photographs_lie_near_the_words_for_what_they_show(real_data: Path) -> None:
    samples, labels = photographs(real_data)
    prepared = prepare(samples, AuditConfig(device="cpu"), Clock(silent))
    features = {name: prepared.embedded.features.vectors[name] for name in ("image", "text")}
    placed = word_vectors(identities(), features)
    cosines = SOFTNESS * placed["image"] @ placed["text"].T
    own = np.array([[one == other for other in labels] for one in labels])
    better = cosines[own][:, None] > cosines[~own][None, ::7]
    assert better.mean() > 0.65  # without a single pair to learn from
    rank = np.argsort(-cosines, axis=1)
    assert np.mean([labels[rank[row, 0]] == labels[row] for row in range(len(labels))]) > 2 / len(set(labels))


def test_an_image_is_the_mean_of_the_names_weighted_by_the_softened_softmax() -> None:
    rng = np.random.default_rng(0)
    image = np.abs(rng.standard_normal((5, 1280))).astype(np.float32)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text = rng.standard_normal((5, 384)).astype(np.float32)
    known = np.array([True, True, True, False, False])
    placed = word_vectors(identities(), {"image": image, "text": text}, known)["image"]
    weight, bias = class_head()
    means = []
    for row in image.astype(np.float64):
        logits = SCALE * weight @ row + bias / 2
        share = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        means.append(share @ word_space._name_vectors())
    centered = np.array(means) - np.mean(means[:3], axis=0)
    expected = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    np.testing.assert_allclose(SOFTNESS**0.5 * placed, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("image", "text", "expected"),
    [
        ("offline:tf_efficientnet_lite0:224:x", "offline:all-MiniLM-L6-v2", True),
        ("own:float32:1280", "own:float16:384", True),
        ("own:float32:1280", "offline:all-MiniLM-L6-v2:prompts", True),
        ("open_clip:ViT-B-32:image", "offline:all-MiniLM-L6-v2", False),
    ],
)
def test_only_what_may_be_the_offline_encoders_features_is_placed(image: str, text: str, expected: bool) -> None:
    keys = {"image": EncoderIdentity(image), "text": EncoderIdentity(text)}
    vectors = {"image": np.eye(3, 1280, dtype=np.float32), "text": np.eye(3, 384, dtype=np.float32)}
    assert bool(word_vectors(keys, vectors)) is expected
    assert not word_vectors(keys, vectors | {"image": np.eye(3, 512, dtype=np.float32)})


@pytest.mark.filterwarnings("error")
def test_of_no_rows_and_of_rows_that_are_all_equal_nothing_is_said() -> None:
    def placed(rows: int) -> dict[str, np.ndarray]:
        vectors = {"image": np.zeros((rows, 1280), np.float32), "text": np.zeros((rows, 384), np.float32)}
        return word_vectors(identities(), vectors)

    assert placed(0) == {}
    assert all((values == 0).all() for values in placed(4).values())


def test_encoders_that_share_a_space_of_their_own_are_not_asked_in_that_of_words() -> None:
    vectors = {"image": np.eye(2), "text": np.eye(2)[::-1]}
    words = {"image": np.ones((2, 3)), "text": np.zeros((2, 3))}
    own, apart = dict.fromkeys(vectors, "clip"), dict.fromkeys(vectors, "")
    assert vectors_in_one_space(("image", "text"), vectors, own, words)[0] is vectors["image"]
    assert vectors_in_one_space(("image", "text"), vectors, apart, words)[0] is words["image"]
    assert vectors_in_one_space(("image", "text"), vectors, apart, {"text": words["text"]}) is None


def test_given_features_of_the_offline_encoders_are_scored_as_they_are(real_data: Path) -> None:
    samples, labels = photographs(real_data)
    texts = tuple(f"{label}, number {row}" for row, label in enumerate(labels))  # equal ones would leave the order open
    samples = replace(samples, media={**samples.media, "text": texts})
    config = AuditConfig(trials=2, epochs=2, device="cpu")
    encoded = run_audit(samples, config)
    features = prepare(samples, config, Clock(silent)).embedded.features.vectors
    given = run_audit(replace(samples, vectors={name: features[name] for name in ("image", "text")}), config)
    np.testing.assert_allclose(given.columns["misalignment"], encoded.columns["misalignment"], atol=1e-5)


def test_photographs_that_are_too_few_to_train_on_are_scored_in_the_space_of_words(real_data: Path) -> None:
    samples, labels = photographs(real_data, 3)
    wrong = np.zeros(len(labels), dtype=bool)
    for one, other in (("hat", "shoes"), ("pants", "dress")):
        rows = [labels.index(one), labels.index(other)]
        labels[rows[0]], labels[rows[1]] = other, one
        wrong[rows] = True
    exchanged = replace(samples, media={**samples.media, "text": tuple(labels)})
    result = run_audit(exchanged, AuditConfig(device="cpu"))
    assert np.isnan(result.columns["multimem"]).all()
    scores = result.columns["misalignment"]
    assert (scores[wrong][:, None] > scores[~wrong]).mean() > 0.7  # chance: 0.5
    cosines = result.columns["clip_score"]
    features = prepare(exchanged, AuditConfig(device="cpu"), Clock(silent)).embedded.features.vectors
    placed = word_vectors(identities(), {name: features[name] for name in ("image", "text")})
    np.testing.assert_allclose(cosines, SOFTNESS * (placed["image"] * placed["text"]).sum(1), atol=1e-4)
    assert cosines[wrong].mean() < cosines[~wrong].mean()
    assert any("misalignment by the frozen encoders" in note for note in result.summary["notes"])
    assert any("where 50% would be chance" in note for note in result.summary["notes"])
