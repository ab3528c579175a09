"""Embeddings of the user's own: the scores of the same features through an encoder, without media, in every stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from audit_plugin.arrays import AuditError, Floats, Samples, VectorRows
from audit_plugin.audit.cost import plan_audit
from audit_plugin.audit.extend import embedding_map, extend_run
from audit_plugin.audit.removal_study import removal_study
from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.base import EncoderIdentity
from audit_plugin.encoders.cached_features import stored_features
from audit_plugin.encoders.embed import digest_contents, silent
from audit_plugin.encoders.offline import IDENTITIES
from audit_plugin.encoders.own_embeddings import store_own
from audit_plugin.inputs.embeddings import with_embeddings
from audit_plugin.inputs.files import file_digest, text_digest
from audit_plugin.store import FeatureCache
from tests.core_fixtures import unit
from tests.pipeline_fixtures import QUICK, encoded_rows

# What is decided by pixels and by single words needs the media; all other columns are equal.
BY_PIXELS = ("duplicate", "duplicate_group", "is_duplicate", "is_conflict", "action", "reason")
N = 120


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(samples with media, their features by the encoder as unit rows, the result of the audit, its cache)."""
    folder = tmp_path_factory.mktemp("encoded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_PLUGIN_CACHE", str(folder / "cache"))
        _, samples = encoded_rows(folder, N)
        result = run_audit(samples, QUICK)
        contents = digest_contents(samples, silent)
        keys = {name: IDENTITIES[name].key for name in samples.media}
        yield samples, stored_features(keys, contents.digests).vectors, result


def assert_equal_scores(result: AuditResult, expected: AuditResult, but: tuple[str, ...] = BY_PIXELS) -> None:
    assert list(result.columns) == list(expected.columns)
    place = {name: row for row, name in enumerate(result.ids)}
    order = [place[name] for name in expected.ids]
    for name, values in expected.columns.items():
        if name in but:
            continue
        if values.dtype == object:
            assert result.columns[name][order].tolist() == values.tolist(), name
        else:
            np.testing.assert_allclose(result.columns[name][order], values, rtol=0, atol=1e-5, err_msg=name)


def npy(path: Path, vectors: Floats, ids: tuple[str, ...]) -> str:
    np.save(path / "v.npy", vectors)
    return str(path / "v.npy")


def npz(path: Path, vectors: Floats, ids: tuple[str, ...]) -> str:
    turned = np.random.default_rng(0).permutation(len(ids))
    np.savez(path / "v.npz", id=np.array(ids)[turned], features=vectors[turned], other=np.zeros(3))
    return str(path / "v.npz")


def parquet(path: Path, vectors: Floats, ids: tuple[str, ...]) -> str:
    """By id, in another order, beside a second column of vectors and rows of other samples."""
    turned = np.random.default_rng(1).permutation(len(ids))
    rows = [*vectors[turned].tolist(), [1.0] * vectors.shape[1]]
    kind = pa.list_(pa.float32())
    table = {
        "id": [*(ids[row] for row in turned), "another"],
        "own": pa.array(rows, kind),
        "zero": pa.array(rows, kind),
    }
    pyarrow.parquet.write_table(pa.table(table), path / "v.parquet", row_group_size=50)
    return f"{path / 'v.parquet'}#own"


def feather(path: Path, vectors: Floats, ids: tuple[str, ...]) -> str:
    flat = pa.array(vectors.reshape(-1), pa.float32())
    column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    pyarrow.feather.write_feather(pa.table({"v": column}), str(path / "v.feather"), compression="zstd")
    return str(path / "v.feather")


def arrow_stream(path: Path, vectors: Floats, ids: tuple[str, ...]) -> str:
    column = pa.array(vectors.tolist(), pa.large_list(pa.float32()))
    table = pa.table({"v": column, "id": list(ids)})
    with pa.OSFile(str(path / "v.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=17)
    return str(path / "v.arrow")


def safetensors(path: Path, vectors: Floats, ids: tuple[str, ...]) -> str:
    from safetensors.numpy import save_file

    save_file({"v": np.ascontiguousarray(vectors), "bias": np.zeros(3, np.float32)}, path / "v.safetensors")
    return str(path / "v.safetensors")


def folder_of_parts(path: Path, vectors: Floats, ids: tuple[str, ...]) -> str:
    (path / "parts").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(ids)), 11)):
        np.save(path / "parts" / f"part_{number}.npy", vectors[rows])
    return str(path / "parts")


@pytest.mark.parametrize("write", [npy, npz, parquet, feather, arrow_stream, safetensors, folder_of_parts])
def test_the_encoders_own_features_from_a_file_give_its_scores(
    write: Callable[..., str], encoded: Any, tmp_path: Path
) -> None:
    samples, features, expected = encoded
    sources = []
    for name, vectors in features.items():
        (tmp_path / name).mkdir()
        sources.append(f"{name}={write(tmp_path / name, vectors, samples.ids)}")
    own = with_embeddings(samples, ",".join(sources))
    assert_equal_scores(run_audit(own, QUICK), expected)


def test_media_need_not_exist_and_notes_say_what_is_left_out(encoded: Any) -> None:
    samples, features, expected = encoded
    gone = {**samples.media, "image": tuple(f"/nowhere/{row}.png" for row in range(N))}
    for media in (gone, {"text": samples.media["text"]}):
        result = run_audit(replace(samples, media=media, vectors=features), QUICK)
        assert_equal_scores(result, expected)
        notes = "\n".join(result.summary["notes"])
        assert "image was not read" in notes
        assert "recognized by their vectors, not by their pixels" in notes
        assert "the encoder" not in notes
        assert result.summary["encoder"] == {"image": "own:float32:24", "text": "own:float32:24"}


@pytest.fixture
def labeled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(ids, paths, class labels, features as cached): many rows have one text; paths are ordered unlike ids."""
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(4)
    number, kind = rng.permutation(N), rng.integers(0, 5, N)
    paths, texts = [tmp_path / f"{place:03}.png" for place in number], [f"kind {k}" for k in kind]
    for row, path in enumerate(paths):
        Image.new("RGB", (1, 1), (row, 7, 0)).save(path)
    digests = {"image": [file_digest(str(p)) for p in paths], "text": [text_digest(t) for t in texts]}
    of_kind = {"image": rng.standard_normal((5, 24))[kind] + rng.standard_normal((N, 24))}
    of_kind["text"] = rng.standard_normal((5, 24))[kind]
    for name, names in digests.items():
        cache = FeatureCache(IDENTITIES[name].key, tmp_path / "cache" / "features")
        cache.append(dict(zip(names, unit(of_kind[name]), strict=True)))
    keys = {name: IDENTITIES[name].key for name in digests}
    features = stored_features(keys, {name: tuple(names) for name, names in digests.items()}).vectors
    return tuple(f"s{row}" for row in range(N)), tuple(map(str, paths)), tuple(texts), features


def test_class_labels_have_the_encoders_scores_whatever_names_the_rows(labeled: Any) -> None:
    ids, paths, texts, features = labeled
    expected = run_audit(Samples(ids, {"image": paths, "text": texts}), QUICK)
    assert np.isfinite(expected.columns["misalignment"]).all()
    for media in ({"image": paths, "text": texts}, {"text": texts}):  # ids of their own are enough
        assert_equal_scores(run_audit(Samples(ids, media, vectors=features), QUICK), expected)
    numbers = tuple(map(str, range(N)))  # of rows without ids, which are told apart by where their media are
    expected = run_audit(Samples(numbers, {"image": paths, "text": texts}), QUICK)
    own = Samples(numbers, {"image": paths, "text": texts}, vectors=features)
    assert_equal_scores(run_audit(own, QUICK), expected)


def test_the_order_of_rows_without_ids_does_not_matter(labeled: Any) -> None:
    _, paths, texts, _ = labeled
    numbers = tuple(map(str, range(N)))
    expected = run_audit(Samples(numbers, {"image": paths, "text": texts}), QUICK)
    order = np.random.default_rng(5).permutation(N)
    along = Samples(
        tuple(numbers[row] for row in order),
        {"image": tuple(paths[row] for row in order), "text": tuple(texts[row] for row in order)},
    )
    assert_equal_scores(run_audit(along, QUICK), expected, ())  # an id column that counts the rows, in another order
    turned = {"image": tuple(paths[row] for row in order), "text": tuple(texts[row] for row in order)}
    result = run_audit(Samples(numbers, turned), QUICK)
    for name in ("misalignment", "multimem", "outlier", "probability"):
        np.testing.assert_array_equal(result.columns[name], expected.columns[name][order], name)


def test_without_texts_nothing_is_suggested_and_all_else_is_scored(encoded: Any) -> None:
    samples, features, _ = encoded
    result = run_audit(Samples(samples.ids, {}, vectors=features), QUICK)
    assert np.isfinite(result.columns["misalignment"]).all()
    assert set(result.columns["suggestion"]) == {""}
    assert "relabel" not in result.columns["action"]
    assert not result.columns["is_vague"].any()
    assert "no text is known" in "\n".join(result.summary["notes"])


@pytest.mark.parametrize("given_one", ["image", "text"])
def test_one_modality_given_and_the_other_encoded(given_one: str, encoded: Any) -> None:
    samples, features, expected = encoded
    result = run_audit(replace(samples, vectors={given_one: features[given_one]}), QUICK)
    if given_one == "image":  # of an encoded image the contents are known by other names: another draw
        assert_equal_scores(result, expected)
    other = "text" if given_one == "image" else "image"
    assert result.summary["encoder"][other] == IDENTITIES[other].key
    assert result.summary["encoder"][given_one].startswith("own:")
    assert result.summary["encoder_name"] == "offline"
    if given_one == "text":  # the images are read, so that nothing at all differs
        assert_equal_scores(result, expected, ())


def test_precision_and_scale_of_the_numbers_do_not_matter(encoded: Any) -> None:
    samples, features, expected = encoded
    as_double = {name: values.astype(np.float64) for name, values in features.items()}
    assert_equal_scores(run_audit(replace(samples, vectors=as_double), QUICK), expected)
    half = {name: values.astype(np.float16) for name, values in features.items()}
    result = run_audit(replace(samples, vectors=half), QUICK)
    assert result.summary["encoder"]["image"] == "own:float16:24"
    rank = np.corrcoef(
        np.argsort(np.argsort(result.columns["outlier"])), np.argsort(np.argsort(expected.columns["outlier"]))
    )
    assert rank[0, 1] > 0.999
    for factor in (1e-30, 1e30):
        huge = {name: values.astype(np.float64) * factor for name, values in features.items()}
        assert np.isfinite(run_audit(replace(samples, vectors=huge), QUICK).columns["misalignment"]).all()


def test_same_space_gives_the_score_of_the_plain_cosine(encoded: Any) -> None:
    samples, features, _ = encoded
    result = run_audit(replace(samples, vectors=features), replace(QUICK, same_space=True))
    cosine = (features["image"] * features["text"]).sum(1)
    np.testing.assert_allclose(result.columns["clip_score"], cosine, atol=1e-5)
    assert "clip_score" not in run_audit(replace(samples, vectors=features), QUICK).columns


def test_rows_of_zeros_are_missing(encoded: Any) -> None:
    samples, features, _ = encoded
    vectors = {name: values.copy() for name, values in features.items()}
    vectors["image"][[3, 7]] = 0
    result = run_audit(replace(samples, vectors=vectors), QUICK)
    assert result.columns["failure"][3] == "image: no vector"
    assert np.flatnonzero(result.columns["failure"] != "").tolist() == [3, 7]
    assert np.isnan(result.columns["misalignment"][3])
    assert result.summary["failures"] == 2


def test_row_orders_by_hypothesis(encoded: Any) -> None:
    samples, features, _ = encoded
    few = 40
    base = Samples(
        samples.ids[:few], {"text": samples.media["text"][:few]}, vectors={n: v[:few] for n, v in features.items()}
    )
    expected = run_audit(base, QUICK)

    @settings(max_examples=6, deadline=None)
    @given(order=st.permutations(range(few)), by_rows=st.booleans())
    def check(order: list[int], by_rows: bool) -> None:
        rows = np.array(order)
        vectors: dict[str, Any] = {
            name: VectorRows((values[:few],), rows) if by_rows else values[:few][rows]
            for name, values in features.items()
        }
        turned = Samples(
            tuple(base.ids[row] for row in order),
            {"text": tuple(base.media["text"][row] for row in order)},
            vectors=vectors,
        )
        assert_equal_scores(run_audit(turned, QUICK), expected, ())

    check()


def test_a_run_resumes_with_its_vectors_and_refuses_others(encoded: Any, tmp_path: Path) -> None:
    samples, features, expected = encoded
    own = replace(samples, vectors=features)
    assert_equal_scores(run_audit(own, QUICK, run_dir=tmp_path / "run"), expected)
    stages: list[str] = []
    run_audit(own, QUICK, lambda stage, done, _: stages.append(f"{stage} {done}"), tmp_path / "run")
    assert "train 0" not in stages
    # the same numbers in another type are the same vectors
    as_double = {name: values.astype(np.float64) for name, values in features.items()}
    run_audit(replace(samples, vectors=as_double), QUICK, run_dir=tmp_path / "run")
    for name in features:
        other = {**features, name: features[name] + np.float32(0.01)}
        with pytest.raises(AuditError, match="belongs to another run .*data was"):
            run_audit(replace(samples, vectors=other), QUICK, run_dir=tmp_path / "run")
    with pytest.raises(AuditError, match="belongs to another run"):
        run_audit(own, replace(QUICK, same_space=True), run_dir=tmp_path / "run")


def rows_between(samples: Samples, features: Mapping[str, Floats], start: int, stop: int) -> Samples:
    media = {name: values[start:stop] for name, values in samples.media.items()}
    return Samples(samples.ids[start:stop], media, vectors={name: v[start:stop] for name, v in features.items()})


def test_new_rows_are_scored_with_their_vectors(encoded: Any, tmp_path: Path) -> None:
    samples, features, _ = encoded
    base = rows_between(samples, features, 0, 100)
    run_audit(base, QUICK, run_dir=tmp_path / "own")
    new = rows_between(samples, features, 100, N)
    extended = extend_run(new, tmp_path / "own")
    encoded_base = replace(base, vectors={})
    run_audit(encoded_base, QUICK, run_dir=tmp_path / "encoded")
    assert_equal_scores(extended, extend_run(replace(new, vectors={}), tmp_path / "encoded"))
    ids, positions = embedding_map(str(tmp_path / "own"))
    assert (len(ids), positions.shape) == (100, (100, 2))
    with pytest.raises(AuditError, match="the run's image embeddings were given; .* --embeddings image=FILE"):
        extend_run(replace(new, vectors={"text": new.vectors["text"]}), tmp_path / "own")
    with pytest.raises(AuditError, match="the run encoded image itself"):
        extend_run(new, tmp_path / "encoded")
    wide = {name: np.pad(np.asarray(v), ((0, 0), (0, 8))) for name, v in new.vectors.items()}
    with pytest.raises(AuditError, match="the new image embeddings have 32 numbers, the run's 24"):
        extend_run(replace(new, vectors=wide), tmp_path / "own")
    # of media that the run had too the vectors are known: others come from another model
    again = rows_between(samples, features, 90, N)
    extend_run(again, tmp_path / "own")
    other = {name: np.roll(np.asarray(v), 1, axis=1) for name, v in again.vectors.items()}
    with pytest.raises(
        AuditError, match="10 of the new samples repeat the image of one of the run with another vector"
    ):
        extend_run(replace(again, vectors=other), tmp_path / "own")


def test_the_removal_study_takes_given_vectors(encoded: Any, tmp_path: Path) -> None:
    samples, features, _ = encoded
    own = removal_study(replace(samples, vectors=features), QUICK, (10,), 2, silent, tmp_path / "own")
    theirs = removal_study(samples, QUICK, (10,), 2, silent, tmp_path / "encoded")
    assert own["removed"] == theirs["removed"]
    assert own["encoder"]["image"] == "own:float32:24"


def test_the_plan_encodes_only_what_is_not_given(encoded: Any) -> None:
    samples, features, _ = encoded
    assert plan_audit(replace(samples, vectors=features), QUICK)["encodes"] == {}
    assert plan_audit(replace(samples, vectors={"image": features["image"]}), QUICK)["encodes"] == {"text": 0}


def vectors(rows: int = 4, width: int = 3) -> Floats:
    return np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)


def with_value(value: float) -> Floats:
    values = vectors()
    values[2, 1] = value
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (vectors(3), "the vectors of image: it has 3 rows for 4 samples; give one row per sample"),
        (vectors()[:, 0], "the vectors of image: its shape is 4; embeddings are a table"),
        (vectors()[:, :1], "the vectors of image: its shape is 4 x 1"),
        (vectors()[:, None], "the vectors of image: its shape is 4 x 1 x 3"),
        (np.zeros((4, 3), np.int64), "the vectors of image: it holds int64, embeddings are float16, float32, float64"),
        (np.zeros((4, 3), np.complex64), "it holds complex64"),
        ([["a", "b"]] * 4, "it holds <U1"),
        (
            with_value(np.nan),
            r"the vectors of image: row 2 \(counted from 0; id 'c'\) holds a number that is not finite",
        ),
        (with_value(np.inf), r"row 2 \(counted from 0; id 'c'\) holds a number that is not finite"),
        (np.ones((4, 3)), "the vectors of image: all 4 vectors point in one direction"),
        (np.arange(1, 5)[:, None] * np.ones((4, 3)), "all 4 vectors point in one direction"),
        (np.zeros((4, 3)), "the vectors of image: all 4 rows are zeros, which stands for no vector"),
    ],
)
def test_what_is_wrong_with_vectors_is_named_with_the_row(values: Any, message: str) -> None:
    with pytest.raises(AuditError, match=message):
        run_audit(Samples(tuple("abcd"), {"text": tuple("wxyz")}, vectors={"image": values, "text": vectors()}), QUICK)


@pytest.mark.parametrize(
    ("changes", "given_for", "message"),
    [
        ({"same_space": True}, {"image": 3}, "same_space says .* given for image only"),
        ({"same_space": True}, {}, "given for none only"),
        ({"same_space": True}, {"image": 3, "text": 4}, "one number of dimensions, not image 3, text 4"),
        ({"views": 2}, {"image": 3}, "views is 2, but augmented views are encoded"),
        ({"train": "towers"}, {"image": 3, "text": 3}, "train is towers, which reads the media"),
    ],
)
def test_settings_that_need_media_or_encoders_are_refused_before_any_work(
    changes: dict[str, Any], given_for: dict[str, int], message: str
) -> None:
    given_vectors = {name: vectors(4, width) for name, width in given_for.items()}
    samples = Samples(tuple("abcd"), {"image": (None,) * 4, "text": tuple("wxyz")}, vectors=given_vectors)
    with pytest.raises(AuditError, match=message):
        run_audit(samples, replace(QUICK, **changes))
    with pytest.raises(AuditError, match=message):
        plan_audit(samples, replace(QUICK, **changes))


def test_vectors_are_stored_once_whatever_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    np.save(tmp_path / "v.npy", vectors(9000, 16).astype(np.float16))
    samples = Samples(tuple(map(str, range(9000))), {}, vectors={"image": np.load(tmp_path / "v.npy", mmap_mode="r")})
    for _ in range(2):
        own = store_own(samples, AuditConfig(), silent)
        assert isinstance(own.identities["image"], EncoderIdentity)
        stored = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.float16"))
        assert stored == 9000 * 16 * 2
    shutil.rmtree(tmp_path / "cache")


def test_new_rows_may_be_equal_or_lack_vectors(encoded: Any, tmp_path: Path) -> None:
    samples, features, _ = encoded
    run_audit(rows_between(samples, features, 0, 100), QUICK, run_dir=tmp_path / "run")
    new = rows_between(samples, features, 100, 103)
    vectors_of = {
        name: np.stack([np.asarray(v)[0]] * 2 + [np.zeros(24, np.float32)]) for name, v in new.vectors.items()
    }
    result = extend_run(replace(new, vectors=vectors_of), tmp_path / "run")
    assert np.isfinite(result.columns["misalignment"]).tolist() == [True, True, False]


def test_files_of_given_vectors_do_not_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After they are stored: their pages in memory, which the system counts as the process's."""
    if not Path("/proc/self/smaps").exists():
        pytest.skip("the system does not tell which pages are in memory")
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "v.npy"
    np.save(path, np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float16))
    mapped = VectorRows((np.load(path, mmap_mode="r"),))
    ids = tuple(map(str, range(4000)))
    assert np.isfinite(mapped[:]).all()
    assert resident_bytes(path) >= path.stat().st_size
    store_own(Samples(ids, {"image": (None,) * 4000}, vectors={"image": mapped}), QUICK, silent)
    assert resident_bytes(path) == 0
    assert np.isfinite(mapped[:]).all()


def resident_bytes(path: Path) -> int:
    """What of a mapped file is in this process's memory."""
    _, _, about = Path("/proc/self/smaps").read_text().partition(str(path))
    return 1024 * int(about.partition("Rss:")[2].split()[0])
