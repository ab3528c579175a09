"""Audits by what a dataset already holds: fields of vectors and runs of the Brain, against a real database."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.cached_features import stored_features
from audit_plugin.encoders.embed import digest_contents, silent
from audit_plugin.encoders.offline import IDENTITIES
from tests.operator_requests import module_of
from tests.test_fiftyone_objects import make_scenes, scenes  # noqa: F401
from tests.test_own_embeddings import assert_equal_scores

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")

QUICK = AuditConfig(encoder="offline", trials=4, epochs=4, device="cpu")
D = 8


def features_of(samples: Any) -> dict[str, np.ndarray]:
    """The offline encoder's unit features of rows that were audited."""
    contents = digest_contents(samples, silent)
    return dict(stored_features({m: IDENTITIES[m].key for m in samples.modalities}, contents.digests).vectors)


def hidden_vectors(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, D)).astype(np.float32)


def test_a_field_and_a_brain_run_give_the_scores_of_the_encoder_they_came_from(real_data: Path) -> None:
    """Photographs of clothing (CC0), by class."""
    fob = pytest.importorskip("fiftyone.brain")
    classes = sorted((real_data / "clothing" / "test").iterdir())
    paths = [(path, folder.name) for folder in classes for path in sorted(folder.iterdir())[:6]]
    dataset = fo.Dataset()
    try:
        captions = [f"{name} number {number}" for number, (_, name) in enumerate(paths)]
        files = [str(path) for path, _ in paths]
        dataset.add_samples([fo.Sample(filepath=f, caption=c) for f, c in zip(files, captions, strict=True)])
        expected = fio.audit_view(dataset, replace(QUICK, text="caption"))
        samples = fio.read_samples(dataset, replace(QUICK, text="caption"))
        features = features_of(samples)
        dataset.add_sample_field("clip_emb", fo.VectorField)
        dataset.set_values("clip_emb", list(features["image"]))
        dataset.add_sample_field("text_emb", fo.ListField, subfield=fo.FloatField)
        dataset.set_values("text_emb", features["text"].tolist())
        fob.compute_similarity(dataset, embeddings="clip_emb", brain_key="sim", backend="sklearn")
        for number, image in enumerate(("field:clip_emb", "brain:sim")):
            config = replace(QUICK, text="caption", run=f"own{number}", embeddings=f"image={image},text=field:text_emb")
            result = fio.audit_view(dataset, config)
            assert_equal_scores(result, expected)
            np.testing.assert_allclose(dataset.values(f"own{number}_outlier"), expected.columns["outlier"], atol=1e-5)
        assert fio.settings_of(fio.audit_info(dataset, "own1")).embeddings == "image=brain:sim,text=field:text_emb"
    finally:
        dataset.delete()


def test_the_media_are_not_read_and_a_field_may_lack_some(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(48)
    dataset.set_values("filepath", [f"/gone/{row}.png" for row in range(48)])
    vectors: list[Any] = list(hidden_vectors(48))
    vectors[5] = None
    dataset.set_values("emb", vectors, dynamic=True)
    result = fio.audit_view(dataset, replace(QUICK, embeddings="image=field:emb"))
    assert result.columns["failure"].tolist() == ["image: no vector" if row == 5 else "" for row in range(48)]
    assert "image was not read" in "\n".join(result.summary["notes"])
    # what came later is read with the vectors of the same field
    dataset.add_sample(fo.Sample(filepath="/gone/48.png", caption="a late one", emb=hidden_vectors(49)[48]))
    assert len(fio.scan_new(dataset, "audit")) == 1


def test_results_stay_readable_after_the_vectors_are_gone(make_dataset: Callable[..., Any]) -> None:
    from audit_plugin.fiftyone_io.results.reports import report_of_dataset

    dataset = make_dataset(24)
    dataset.set_values("emb", list(hidden_vectors(24)), dynamic=True)
    fio.audit_view(dataset, replace(QUICK, embeddings="image=field:emb"))
    dataset.delete_sample_field("emb")
    assert len(report_of_dataset(dataset, "audit").samples) == 24


def test_a_dataset_without_captions_is_audited_by_vectors_alone(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(24, number=lambda row: row)
    a = hidden_vectors(24)
    b = a + np.float32(0.1)
    dataset.set_values("a", list(a), dynamic=True)
    dataset.set_values("b", list(b), dynamic=True)
    result = fio.audit_view(dataset, replace(QUICK, embeddings="image=field:a,text=field:b", same_space=True))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(result.columns["clip_score"], cosine, atol=1e-5)


@pytest.mark.parametrize("embeddings", ["image=field:emb,text=field:emb", "image=field:emb", "text=field:emb"])
def test_an_index_of_such_an_audit_answers_prompts_only_by_an_encoder(
    make_dataset: Callable[..., Any], embeddings: str
) -> None:
    from audit_plugin.fiftyone_io.similarity import build_index

    dataset = make_dataset(40)
    dataset.set_values("emb", list(hidden_vectors(40)), dynamic=True)
    fio.audit_view(dataset, replace(QUICK, embeddings=embeddings))
    index = build_index(dataset, "audit", "text")
    assert index.config.supports_prompts is ("text" not in embeddings)
    first = dataset.first().id
    assert dataset.sort_by_similarity(first, k=1, brain_key="audit_text").first().id == first


def test_objects_take_an_attribute_or_an_index_of_patches(make_scenes: Callable[..., Any]) -> None:  # noqa: F811
    fob = pytest.importorskip("fiftyone.brain")
    dataset = make_scenes(8)
    vectors = hidden_vectors(24).reshape(8, 3, D)
    dataset.set_values("truth.detections.emb", [[list(map(float, v)) for v in row] for row in vectors], dynamic=True)
    of_samples = dict(zip(dataset.values("id"), vectors, strict=True))
    fob.compute_similarity(dataset, patches_field="truth", embeddings=of_samples, brain_key="sim")
    view = dataset.to_patches("truth")
    by_field = fio.audit_view(view, replace(QUICK, run="f", embeddings="image=field:emb"))
    by_brain = fio.audit_view(view, replace(QUICK, run="b", embeddings="image=brain:sim"))
    assert_equal_scores(by_brain, by_field, ())
    assert by_field.summary["encoder"]["image"] == f"own:float32:{D}"
    fob.compute_similarity(dataset, embeddings=vectors[:, 0], brain_key="whole")
    with pytest.raises(AuditError, match="has vectors of whole samples, and objects are audited"):
        fio.audit_view(view, replace(QUICK, embeddings="image=brain:whole"))


def test_groups_take_the_vectors_of_the_modalitys_slice(make_groups: Callable[..., Any]) -> None:
    dataset = make_groups(12)
    flat = dataset.select_group_slices(_allow_mixed=True)
    vectors = hidden_vectors(len(flat))
    flat.set_values("emb", list(vectors), dynamic=True)
    config = replace(QUICK, image="slice:picture", audio="slice:sound", embeddings="image=field:emb,audio=field:emb")
    samples = fio.read_samples(dataset, config)
    row_of = {name: row for row, name in enumerate(flat.values("id"))}
    for modality, slice_name in (("image", "picture"), ("audio", "sound")):
        ids = dataset.select_group_slices(slice_name).values("id")
        np.testing.assert_array_equal(samples.vectors[modality][0:12], vectors[[row_of[name] for name in ids]])


def test_files_go_by_the_ids_of_samples_or_their_order(make_dataset: Callable[..., Any], tmp_path: Path) -> None:
    dataset = make_dataset(12)
    vectors = hidden_vectors(12)
    np.save(tmp_path / "x.npy", vectors)
    np.savez(tmp_path / "x.npz", id=np.array(dataset.values("id"))[::-1], v=vectors[::-1])
    for name in ("x.npy", "x.npz"):
        samples = fio.read_samples(dataset, replace(QUICK, embeddings=f"image={tmp_path}/{name}"))
        np.testing.assert_array_equal(samples.vectors["image"][0:12], vectors)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ("image=field:embb", "field 'embb' does not exist in dataset .*; fields of vectors there: emb"),
        ("image=field:caption", "field 'caption' is a StringField, not a field of vectors in dataset"),
        ("image=field:uneven", "has float64 of shape .3,. where others have 2 numbers"),
        ("image=field:none", "no sample of the view has a vector"),
        ("image=brain:nothing", "has no Brain run 'nothing'; there are no Brain keys"),
        ("image=x.npy", "embeddings 'x.npy' do not exist"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(
    make_dataset: Callable[..., Any], embeddings: str, message: str
) -> None:
    dataset = make_dataset(4)
    dataset.set_values("emb", list(hidden_vectors(4)), dynamic=True)
    dataset.set_values("uneven", [np.ones(2), np.ones(3), None, None], dynamic=True)
    dataset.add_sample_field("none", fo.VectorField)
    with pytest.raises(AuditError, match=message):
        fio.audit_view(dataset, replace(QUICK, embeddings=embeddings))


def test_one_vector_per_sample_cannot_serve_a_list_of_captions(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(4, captions=lambda row: [f"one {row}", f"two {row}"])
    dataset.set_values("emb", list(hidden_vectors(4)), dynamic=True)
    with pytest.raises(AuditError, match="gives one vector per sample, whose text is a list"):
        fio.audit_view(dataset, replace(QUICK, embeddings="text=field:emb"))
    samples = fio.read_samples(dataset, replace(QUICK, embeddings="image=field:emb"))
    np.testing.assert_array_equal(samples.vectors["image"][0:8], np.repeat(hidden_vectors(4), 2, axis=0))


def test_the_app_reads_embeddings_of_the_dataset_only(make_dataset: Callable[..., Any]) -> None:
    checks = module_of("checks")
    assert checks.settings({"embeddings": "image=field:emb", "same_space": True}).same_space is True
    with pytest.raises(AuditError, match="embeddings name a file of the server, image='/etc/x.npy'; the App reads"):
        checks.settings({"embeddings": "image=/etc/x.npy"})
    with pytest.raises(AuditError, match="same_space must be on or off"):
        checks.settings({"same_space": "yes"})
