"""Class names as prompts: readable, put into templates, averaged as unit features."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.base import Encoder, EncoderIdentity
from audit_plugin.encoders.embed import digest_contents, embed, silent
from audit_plugin.encoders.prompts import (
    LABEL_TEMPLATES,
    prompted_encoders,
    prompted_identities,
    prompted_identity,
    prompts_of,
    readable_label,
    split_templates,
    with_first_prompt,
)

TEMPLATES = ("a {}", "one {} here")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("golden_retriever", "golden retriever"),
        ("goldenRetriever", "golden retriever"),
        ("GoldenRetriever", "golden retriever"),
        ("HTTPServer", "HTTP server"),
        ("Traffic_light__red ", "Traffic light red"),
        ("CD player", "CD player"),
        ("x-ray", "x-ray"),
        ("cat", "cat"),
        ("__", ""),
        ("éléphant", "éléphant"),
        ("大象", "大象"),
    ],
)
def test_a_class_name_becomes_words(label: str, words: str) -> None:
    assert readable_label(label) == words


@given(st.text(max_size=40))
def test_any_label_stands_in_every_template_and_is_never_a_format(label: str) -> None:
    prompts = prompts_of(label, TEMPLATES)
    assert prompts == [f"a {readable_label(label)}", f"one {readable_label(label)} here"]


def test_braces_in_a_label_are_only_braces() -> None:
    assert prompts_of("{0.__class__}", ("a {}",)) == ["a {0. class }"]


def test_templates_are_checked_and_split() -> None:
    assert split_templates("") == ()
    assert split_templates("a {} | one {}") == ("a {}", "one {}")
    assert all("{}" in template for template in split_templates(AuditConfig(template=LABEL_TEMPLATES).template))
    with pytest.raises(AuditError, match="template 'a photo' has no {}"):
        AuditConfig(template="a {}|a photo")


def letters(key: str) -> Encoder:
    """Encodes a text as the counts of a, b, c and the rest."""

    def prepare(text: str) -> list[np.ndarray]:
        counts = [text.count(letter) for letter in "abc"]
        return [np.array([*counts, len(text) - sum(counts)], dtype=np.float32)]

    return Encoder(EncoderIdentity(key), 4, prepare, lambda batch: batch)


def test_a_labels_feature_is_the_mean_of_its_prompts_unit_features(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path))
    encoder = prompted_encoders({"text": letters("letters")}, TEMPLATES)["text"]
    samples = Samples(("1", "2", "3"), {"text": ("ab_ba", "c", "")})
    contents = digest_contents(samples, silent)
    got = embed(samples, contents, {"text": encoder.identity.key}, lambda: {"text": encoder}, silent)
    for row, words in enumerate(("ab ba", "c")):
        vectors = [np.asarray(letters("x").prepare(t.replace("{}", words))[0], dtype=np.float64) for t in TEMPLATES]
        mean = np.mean([v / np.linalg.norm(v) for v in vectors], axis=0)
        expected = mean / np.linalg.norm(mean)
        assert np.allclose(got.features.vectors["text"][row], expected, atol=5e-4)  # stored as float16
    assert got.failures == {2: "text: text is empty"}


def test_other_templates_are_another_encoder_and_other_modalities_stay() -> None:
    encoders = {"image": letters("image"), "text": letters("text")}
    made = prompted_encoders(encoders, TEMPLATES)
    assert made["image"] is encoders["image"]
    keys = {prompted_identity(EncoderIdentity("text"), t).key for t in ((), TEMPLATES, TEMPLATES[:1], ("ab {}",))}
    assert len(keys) == 4
    identities = {name: encoder.identity for name, encoder in encoders.items()}
    assert prompted_identities(identities, TEMPLATES) == {name: encoder.identity for name, encoder in made.items()}
    assert prompted_identities(identities, ()) == identities
    assert prompted_encoders(encoders, ()) == encoders


def test_models_of_one_text_per_sample_read_the_first_template() -> None:
    samples = Samples(("1", "2", "3"), {"image": ("a_b.png",) * 3, "text": ("big_cat", None, " ")})
    assert with_first_prompt(samples, TEMPLATES).media == {"image": ("a_b.png",) * 3, "text": ("a big cat", None, " ")}
    assert with_first_prompt(samples, ()) is samples
