"""The similarity backend against brute force, a real database and FiftyOne's own methods."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.store import cache_root

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fob = pytest.importorskip("fiftyone.brain")
fio = importlib.import_module("audit_plugin.fiftyone_io")
similarity = importlib.import_module("audit_plugin.fiftyone_io.similarity")

ROOT = Path(__file__).resolve().parents[1]
QUICK = AuditConfig(encoder="offline", trials=4, epochs=2, device="cpu")
N, D = 60, 12


def embeddings(n: int = N, d: int = D) -> np.ndarray:
    """Of different lengths, off center, with rows 3 and 7 and 8 the same."""
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((n, d)) + 0.7).astype(np.float32) * rng.uniform(0.5, 3, (n, 1)).astype(np.float32)
    values[[7, 8]] = values[3]
    return values


def distances(queries: np.ndarray, values: np.ndarray) -> np.ndarray:
    """1 - cosine, `[q, n]`, in float64."""
    q, v = queries.astype(np.float64), values.astype(np.float64)
    return 1 - (q / np.linalg.norm(q, axis=1)[:, None]) @ (v / np.linalg.norm(v, axis=1)[:, None]).T


def order_by(distance: np.ndarray) -> list[int]:
    """Rows by distance; what float32 cannot tell apart, by position."""
    return np.argsort(np.round(distance, 6), kind="stable").tolist()


@pytest.fixture
def indexed(make_dataset: Callable[..., Any]) -> tuple[Any, Any, np.ndarray]:
    """(dataset, index of all its samples, their embeddings)."""
    dataset, values = make_dataset(N), embeddings()
    return dataset, fob.compute_similarity(dataset, embeddings=values, backend="audit_faiss", brain_key="ours"), values


@pytest.fixture(scope="module")
def audited(pictures: list[str], captions: list[str]) -> Iterator[Any]:
    """48 colored squares with their captions, audited with the offline encoders."""
    dataset = fo.Dataset()
    dataset.add_samples(
        [fo.Sample(filepath=path, caption=text) for path, text in zip(pictures[:48], captions, strict=False)]
    )
    fio.audit_view(dataset, QUICK)
    yield dataset
    dataset.delete()


# searching


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("k", [1, 5, None])
def test_by_sample_and_by_vector_as_brute_force_orders_them(indexed: Any, k: int | None, reverse: bool) -> None:
    dataset, index, values = indexed
    ids = dataset.values("id")
    for row in (0, 3, 41):
        distance = distances(values[row : row + 1], values)[0]
        expected = [ids[i] for i in order_by(-distance if reverse else distance)][:k]
        found = [dataset.sort_by_similarity(q, k=k, reverse=reverse, brain_key="ours") for q in (ids[row], values[row])]
        assert [view.values("id") for view in found] == [expected, expected]
    assert index.sort_by_similarity(ids[3], k=3).values("id") == [ids[3], ids[7], ids[8]]


def test_a_view_is_searched_exactly_and_distances_are_written(indexed: Any) -> None:
    dataset, index, values = indexed
    ids = np.array(dataset.values("id"))
    rows = np.array([50, 4, 31, 8, 7, 20])
    view = dataset.select(list(ids[rows]), ordered=True)
    distance = distances(values[[3]], values[rows])[0]
    found = view.sort_by_similarity(ids[3], k=4, brain_key="ours", dist_field="far")
    assert found.values("id") == ids[rows[order_by(distance)[:4]]].tolist()
    assert found.values("id")[:2] == ids[[8, 7]].tolist()  # equal: in the order of the view
    np.testing.assert_allclose(found.values("far"), np.sort(distance)[:4], atol=1e-6)
    assert dataset.count("far") == 4
    assert not index.has_view
    assert view.match({"nothing": 1}).sort_by_similarity(ids[3], k=4, brain_key="ours").values("id") == []


@pytest.mark.parametrize("aggregation", ["mean", "post-mean", "post-min", "post-max"])
def test_several_queries_become_one_order(indexed: Any, aggregation: str) -> None:
    dataset, index, values = indexed
    ids, rows = dataset.values("id"), [5, 21, 40]
    each = distances(values[rows], values)
    whole = {
        "mean": distances(values[rows].mean(0, keepdims=True), values)[0],
        "post-mean": each.mean(0),
        "post-min": each.min(0),
        "post-max": each.max(0),
    }[aggregation]
    for query in ([ids[row] for row in rows], values[rows]):
        found = index.sort_by_similarity(query, k=9, aggregation=aggregation)
        assert found.values("id") == [ids[i] for i in order_by(whole)[:9]]
        backwards = index.sort_by_similarity(query, k=9, aggregation=aggregation, reverse=True)
        assert backwards.values("id") == [ids[i] for i in order_by(-whole)[:9]]
    with pytest.raises(AuditError, match="'sum' is not known; choose one of mean, post-mean"):
        index.sort_by_similarity(ids[0], aggregation="sum")


def test_the_same_query_gives_the_same_answer_which_the_default_backend_does_not(make_dataset: Any) -> None:
    dataset, values = make_dataset(N), embeddings()
    ids, query = dataset.values("id"), np.ones(D, np.float32)
    for backend, same in (("sklearn", False), ("audit_faiss", True)):
        index = fob.compute_similarity(dataset, embeddings=values.copy(), backend=backend, brain_key=f"by_{backend}")
        before = index.sort_by_similarity(query, k=10, dist_field="a").values(["id", "a"])
        index._kneighbors(query=ids[0], k=3)
        index.sort_by_similarity(ids[0], k=3)
        after = index.sort_by_similarity(query, k=10, dist_field="b").values(["id", "b"])
        assert (before == after) is same, backend
        assert np.array_equal(index.get_embeddings()[0], values) is same


def test_neighbors_of_every_row_and_within_a_distance(indexed: Any) -> None:
    dataset, index, values = indexed
    every = distances(values, values)
    np.fill_diagonal(every, np.inf)
    rows, far = index._kneighbors(k=4, return_dists=True)
    assert [list(r) for r in rows] == [order_by(line)[:4] for line in every]
    np.testing.assert_allclose(far, np.sort(every, axis=1)[:, :4], atol=1e-6)
    near, far = index._radius_neighbors(thresh=0.3, return_dists=True)
    assert [list(r) for r in near] == [np.flatnonzero(line <= 0.3).tolist() for line in every]
    np.testing.assert_allclose(np.concatenate(far), every[every <= 0.3], atol=1e-6)
    assert {row: list(r) for row, r in enumerate(index._radius_neighbors(thresh=0)) if len(r)} == {
        3: [7, 8],
        7: [3, 8],
        8: [3, 7],
    }
    with index.use_view(dataset[5:10]):  # positions are those of the view
        assert [list(r) for r in index._kneighbors(k=1)][2:4] == [[3], [2]]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (np.ones(5, np.float32), ["shape (5,)", "12 dimensions"]),
        (np.full(D, np.nan, np.float32), ["finite"]),
        ("0" * 24, ["0" * 24, "is not in", "add_to_index"]),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(indexed: Any, query: Any, words: list[str]) -> None:
    with pytest.raises(AuditError) as error:
        indexed[1].sort_by_similarity(query, k=2)
    assert all(word in str(error.value) for word in words)
    with pytest.raises(ValueError, match="prompts"):
        indexed[1].sort_by_similarity("a red square", k=2)


def test_a_grouped_dataset_is_searched_in_its_active_slice(make_groups: Callable[..., Any]) -> None:
    dataset = make_groups(30)
    fio.audit_view(dataset, AuditConfig(**{**QUICK.to_dict(), "image": "slice:picture", "text": "caption"}))
    index = similarity.build_index(dataset, modality="image")
    pictures = dataset.select_group_slices("picture")
    found = dataset.sort_by_similarity(pictures.first().id, k=5, brain_key="audit_image")
    assert len(found) == 5
    assert found.first().id == pictures.first().id
    assert {sample.group.name for sample in found} == {"picture"}
    assert index.total_index_size == 30


# objects


def test_labels_are_indexed_too(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(20)
    boxes = [[fo.Detection(label=f"{row}", bounding_box=[at / 2, 0, 0.5, 1]) for at in range(2)] for row in range(20)]
    dataset.set_values("truth", [fo.Detections(detections=found) for found in boxes])
    fio.audit_view(dataset.to_patches("truth"), QUICK)
    index = similarity.build_index(dataset, modality="image")
    labels = dataset.values("truth.detections.id", unwind=True)
    assert (index.config.patches_field, index.label_ids.tolist()) == ("truth", labels)
    assert index.sample_ids.tolist() == [name for name in dataset.values("id") for _ in range(2)]
    patches = dataset.to_patches("truth")
    found = patches.sort_by_similarity(labels[6], k=3, brain_key="audit_image")
    vectors = index.get_embeddings()[0]
    assert found.values("id") == [labels[i] for i in order_by(distances(vectors[[6]], vectors)[0])[:3]]
    assert len(index.get_embeddings(sample_ids=dataset.first().id)[0]) == 2
    index.remove_from_index(sample_ids=[dataset.first().id])
    assert index.total_index_size == 38


# indexes of audits


def test_an_index_reuses_what_the_audit_encoded(audited: Any) -> None:
    told: list[str] = []
    index = similarity.build_index(audited, modality="joint", progress=lambda stage, *_: told.append(stage))
    image, text = (similarity.build_index(audited, modality=m).get_embeddings()[0] for m in ("image", "text"))
    np.testing.assert_allclose(index.get_embeddings()[0], np.hstack([image, text]) / np.sqrt(2), atol=1e-6)
    assert image.shape == (48, 1280)
    assert text.shape == (48, 384)
    assert {"read", "encode image"} <= set(told)
    assert audited.list_brain_runs() == ["audit_image", "audit_joint", "audit_text"]
    again = similarity.build_index(audited[:10], modality="text")  # replaces
    assert again.total_index_size == 10
    assert len(list((cache_root() / "similarity" / str(audited._doc.id)).iterdir())) == 3


def test_words_find_captions_but_only_where_there_is_a_place_for_them(audited: Any) -> None:
    for modality in ("text", "joint"):
        index = similarity.build_index(audited, modality=modality)
        assert index.supports_prompts
        assert audited.get_brain_info(f"audit_{modality}").config.supports_prompts
        found = audited.sort_by_similarity("yellow color", k=8, brain_key=f"audit_{modality}")
        assert all("yellow" in caption for caption in found.values("caption"))
        exact = audited.sort_by_similarity("a grey square, number 16", k=1, brain_key=f"audit_{modality}")
        assert exact.values("caption") == ["a grey square, number 16"]
        two = index.sort_by_similarity(["a red square", "something red"], k=8)
        assert all("red" in caption for caption in two.values("caption"))
        with pytest.raises(AuditError, match="type a few words"):
            index.sort_by_similarity(["   "])
    assert not similarity.build_index(audited, modality="image").supports_prompts
    with pytest.raises(ValueError, match="prompts"):
        audited.sort_by_similarity("yellow", brain_key="audit_image")


def test_words_find_what_pictures_show_by_the_offline_encoders(real_data: Path) -> None:
    names = ("hat", "shoes", "pants")
    paths = [path for name in names for path in sorted((real_data / "clothing" / "test" / name).glob("*.jpg"))[:8]]
    shown = [path.parent.name for path in paths]
    captions = [f"photo {row} of {shown[row - 8]}" for row in range(24)]  # all wrong: it is the pictures that are found
    dataset = fo.Dataset()
    samples = [fo.Sample(filepath=str(path), caption=text) for path, text in zip(paths, captions, strict=True)]
    dataset.add_samples(samples, progress=False)
    fio.audit_view(dataset, QUICK)
    assert similarity.audited_modalities(dataset, "audit") == ("image", "text", "joint", "words")
    index = similarity.build_index(dataset, modality="words")
    assert index.supports_prompts
    vectors = index.get_embeddings()[0]
    assert vectors.shape == (24, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for words, name in (("a hat", "hat"), ("shoes", "shoes"), ("a pair of trousers", "pants")):
        found = dataset.sort_by_similarity(words, k=8, brain_key="audit_words").values("filepath")
        is_right = [Path(path).parent.name == name for path in found]
        assert all(is_right[:3]), words
        assert sum(is_right) >= 5, words
    dataset.delete()


def test_an_index_of_words_needs_texts_and_different_media(real_data: Path) -> None:
    paths = sorted((real_data / "clothing" / "test" / "hat").glob("*.jpg"))[:12]
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=str(path), caption=f"hat {path.stem}") for path in paths], progress=False)
    fio.audit_view(dataset, QUICK)
    with pytest.raises(AuditError, match="all media of the view are equal"):
        similarity.build_index(dataset[:1], modality="words")
    first = dataset.first()
    first["caption"] = None
    first.save()
    with pytest.raises(AuditError, match="no sample of the view has a text"):
        similarity.build_index(dataset[:1], modality="words")
    assert dataset.list_brain_runs() == []
    dataset.delete()


def test_what_shares_a_space_is_searched_by_words() -> None:
    from audit_plugin.encoders.base import EncoderIdentity
    from audit_plugin.fiftyone_io.similarity import PromptModel, _answers

    clip = {"image": EncoderIdentity("i", "s"), "text": EncoderIdentity("t", "s"), "audio": EncoderIdentity("a")}
    assert [_answers(name, clip) for name in clip] == [True, True, False]
    assert not _answers("image", {"image": EncoderIdentity("i", "s")})
    record = {"encoder": "offline", "text_key": "", "blocks": [["image", 384, True], ["audio", 5, False]]}
    (vector,) = PromptModel(record).embed_prompts(["a dog"])
    assert vector.shape == (389,)
    assert np.isclose(np.linalg.norm(vector[:384]), np.sqrt(0.5))
    assert not vector[384:].any()
    with pytest.raises(AuditError, match="weights of offline"):
        PromptModel({**record, "text_key": "others"}).embed_prompts(["a dog"])


def test_several_captions_of_a_sample_are_one_vector(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(20, captions=lambda row: [f"thing {row}", f"object {row}"] if row < 19 else [])
    fio.audit_view(dataset, QUICK)
    index = similarity.build_index(dataset, modality="text")
    assert index.sample_ids.tolist() == dataset.values("id")[:19]
    np.testing.assert_allclose(np.linalg.norm(index.get_embeddings()[0], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"run": "none"}, ["no audit 'none'"]),
        ({"modality": "audio"}, ["'audio'", "image, text, joint"]),
        ({"brain_key": "my key"}, ["'my key'", "letters"]),
        ({"brain_key": "taken"}, ["'taken'", "not an index of an audit"]),
    ],
)
def test_an_index_that_cannot_be_made_says_why(audited: Any, settings: dict[str, str], words: list[str]) -> None:
    if not audited.has_brain_runs or "taken" not in audited.list_brain_runs():
        fob.compute_similarity(audited, embeddings=np.eye(48, dtype=np.float32), brain_key="taken")
    with pytest.raises(AuditError) as error:
        similarity.build_index(audited, **settings)
    assert all(word in str(error.value) for word in words)
    assert "taken" in audited.list_brain_runs()
    audited.delete_brain_run("taken")


def test_the_similarity_search_of_the_app_takes_words(audited: Any) -> None:
    # what the magnifier of the App runs, with what it sends
    similarity.build_index(audited, modality="joint")
    found = importlib.import_module("fiftyone.operators").execute_operator(
        "@voxel51/panels/similarity_search",
        {"dataset": audited, "view": audited.match_tags("none", bool=False)},
        params={"brain_key": "audit_joint", "query_type": "text", "query": "a black square", "k": 5, "reverse": False},
    )
    stored = importlib.import_module("fiftyone.operators.store").ExecutionStore.create(
        "similarity_search_panel", audited._doc.id
    )
    assert found.error is None
    runs = [stored.get(key) for key in stored.list_keys()]
    (ids,) = [run["result_ids"] for run in runs if run and run.get("result_ids")]
    assert len(ids) == 5
    assert all("black" in caption for caption in audited.select(ids).values("caption"))


# files and records


def test_an_index_loads_in_a_session_that_has_not_heard_of_the_plugin(audited: Any) -> None:
    similarity.build_index(audited, modality="text")
    expected = audited.sort_by_similarity("blue", k=5, brain_key="audit_text").values("id")
    audited.persistent = True
    code = (
        f"import sys; sys.path.append({str(ROOT)!r})\nimport fiftyone as fo\n"
        f"dataset = fo.load_dataset({audited.name!r})\n"
        "assert 'audit_plugin' not in sys.modules\n"
        "index = dataset.load_brain_results('audit_text')\n"
        "print('FOUND', *index.sort_by_similarity('blue', k=5).values('id'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("FOUND")[1].split() == expected


def test_adding_and_removing_is_seen_by_whoever_loaded_before(indexed: Any) -> None:
    dataset, index, values = indexed
    ids = dataset.values("id")
    other = similarity.FaissSimilarityIndex(dataset, dataset.get_brain_info("ours").config, "ours")
    assert other.total_index_size == N
    was = index.config.vectors_path
    index.remove_from_index(sample_ids=ids[:10])
    assert not Path(was).exists()
    assert index.total_index_size == other.total_index_size == N - 10
    with pytest.raises(AuditError, match=ids[0]):
        other.sort_by_similarity(ids[0])
    index.add_to_index(values[:12] + 1, ids[:12], overwrite=False)
    np.testing.assert_array_equal(other.get_embeddings([ids[0], ids[10]])[0], [values[0] + 1, values[10]])
    index.add_to_index(values[:12] + 1, ids[:12])
    np.testing.assert_array_equal(other.get_embeddings([ids[10], ids[0]])[0], values[[10, 0]] + 1)
    assert other.get_embeddings(["f" * 24, ids[1]])[1].tolist() == [ids[1]]
    for wrong, word in (
        ((values[:2, :5], ids[:2]), "5 dimensions"),
        ((values[:2], ids[:3]), "3 ids"),
        ((values[:1] * np.nan, ids[:1]), "not finite"),
    ):
        with pytest.raises(AuditError, match=word):
            index.add_to_index(*wrong)
    with pytest.raises(AuditError, match="already"):
        index.add_to_index(values[:1], ids[:1], overwrite=False, allow_existing=False)
    with pytest.raises(AuditError, match="f{24}"):
        index.remove_from_index(["f" * 24], allow_missing=False)
    index.remove_from_index()
    for call in (index.get_embeddings, index.remove_from_index):  # an id of a label is no id of a sample
        with pytest.raises(AuditError, match="not labels"):
            call(label_ids=ids[:1])
    assert other.total_index_size == N


@pytest.mark.parametrize("first", ["clone", "original"])
def test_a_clone_searches_and_its_deletion_harms_nobody(indexed: Any, first: str) -> None:
    dataset, index, values = indexed
    file, query = Path(index.config.vectors_path), values[3]
    clone = dataset.clone()
    try:
        pair = (clone, dataset) if first == "clone" else (dataset, clone)
        expected = dataset.sort_by_similarity(query, k=4, brain_key="ours").values("id")
        assert clone.sort_by_similarity(query, k=4, brain_key="ours").values("id") == expected
        pair[0].delete_brain_run("ours")
        assert file.exists()
        assert pair[1].sort_by_similarity(query, k=4, brain_key="ours").values("id") == expected
        pair[1].delete_brain_run("ours")
        assert not file.exists()
    finally:
        clone.delete()


def test_a_clone_that_changes_its_index_leaves_the_original_alone(indexed: Any) -> None:
    dataset, index, _ = indexed
    clone = dataset.clone()
    try:
        copy = clone.load_brain_results("ours")
        copy.remove_from_index(sample_ids=clone.values("id")[:50])
        assert (copy.total_index_size, index.total_index_size) == (N - 50, N)
        index.reload()
        assert index.total_index_size == N
    finally:
        clone.delete()


def test_a_file_that_is_gone_or_changed_is_said(indexed: Any) -> None:
    dataset, index, values = indexed
    path = Path(index.config.vectors_path)
    whole = path.read_bytes()
    for content, word in ((whole[:-200], "damaged"), (None, "are gone")):
        path.unlink() if content is None else path.write_bytes(content)
        dataset._brain_cache.clear()
        with pytest.raises(AuditError, match=f"{word}.*index the dataset again"):
            dataset.sort_by_similarity(values[0], brain_key="ours")
    np.savez(path, values=values + 1, samples=np.array(dataset.values("id")))
    with pytest.raises(AuditError, match="does not hold"):
        dataset.load_brain_results("ours").reload() or dataset.load_brain_results("ours").total_index_size
    dataset.delete_brain_run("ours")
    assert not path.exists()


def test_no_file_outside_our_folder_is_ever_deleted(indexed: Any, tmp_path: Path) -> None:
    dataset, index, _ = indexed
    precious = tmp_path / "precious.npz"
    precious.write_bytes(b"mine")
    index.config.vectors_path = str(precious)
    index.save_config()
    dataset.delete_brain_run("ours")
    assert precious.read_bytes() == b"mine"


def test_without_a_key_nothing_is_written(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(N)
    index = fob.compute_similarity(dataset, embeddings=embeddings(), backend="audit_faiss")
    assert (index.total_index_size, index.config.vectors_path) == (N, "")
    assert not (cache_root() / "similarity" / str(dataset._doc.id)).exists()


# the Brain's own methods


def test_the_brain_s_other_methods_take_the_index(indexed: Any) -> None:
    dataset, index, values = indexed
    ids = dataset.values("id")
    fob.compute_uniqueness(dataset, similarity_index="ours")
    every = np.sort(distances(values, values), axis=1)[:, 1:4] @ [0.6, 0.3, 0.1]
    np.testing.assert_allclose(dataset.values("uniqueness"), every / every.max(), atol=1e-5)
    fob.compute_near_duplicates(dataset, threshold=1e-4, similarity_index=index)
    assert {name: [dup for dup, _ in found] for name, found in index.neighbors_map.items()} == {ids[3]: ids[7:9]}
    assert set(index.duplicates_view().values("id")) == {ids[3], ids[7], ids[8]}
    index.find_unique(5)
    assert len(index.unique_ids) == 5
    points = fob.compute_visualization(dataset, similarity_index="ours", method="pca", brain_key="map").points
    assert points.shape == (N, 2)
    fob.compute_representativeness(dataset, similarity_index="ours")
    assert dataset.count("representativeness") == N
    np.testing.assert_array_equal(index.get_embeddings()[0], values)


# the operator


def test_the_operator_indexes_and_says_what_can_be_asked(audited: Any) -> None:
    from tests.test_operators import form_of, operator, steps_of

    form = form_of("index_audit", audited)
    assert form["run"]["default"] == "audit"
    assert form["modality"]["type"]["values"] == ["image", "text", "joint", "words"]
    steps = steps_of("index_audit", audited, run="audit", modality="joint", brain_key="mine")
    messages = [step["params"]["message"] for step in steps if "message" in step["params"]]
    assert "of 48 vectors created; search by sample or text" in messages[-1]
    assert audited.load_brain_results("mine").total_index_size == 48
    assert "mine" in audited.list_brain_runs(type="similarity")
    audited.delete_brain_run("mine")
    assert operator("index_audit")(audited[:7], modality="image").total_index_size == 7
    wrong = steps_of("index_audit", audited, run="audit", modality="joint", brain_key="not a key")
    assert "'not a key' is not a valid name" in wrong[0]["params"]["message"]
    empty = fo.Dataset()
    assert form_of("index_audit", empty)["none"]["invalid"]
    empty.delete()


def test_loading_the_plugin_registers_the_backend() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport fiftyone.brain as fob\n"
        "import importlib.util as u\n"
        f"root = {str(ROOT)!r}\n"
        "spec = u.spec_from_file_location('entry', root + '/__init__.py', submodule_search_locations=[root])\n"
        "module = sys.modules['entry'] = u.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "module.register(type('P', (), {'register': lambda self, cls: None})())\n"
        "print(fob.brain_config.similarity_backends['audit_faiss'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "audit_plugin.fiftyone_io.similarity.FaissSimilarityConfig" in done.stdout, done.stderr
