"""Files of embeddings: what is read from each format, which row belongs to which sample, what is refused."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from audit_plugin import cli
from audit_plugin.arrays import AuditError, Floats, Samples, VectorRows, count_text
from audit_plugin.inputs.embeddings import parse_embeddings, with_embeddings
from audit_plugin.inputs.samples import read_samples
from audit_plugin.inputs.vector_files import READERS, read_vectors

X = np.arange(12, dtype=np.float32).reshape(4, 3)
FLOATS = pa.list_(pa.float32())


def samples_of(*ids: str, **media: tuple[str | None, ...]) -> Samples:
    return Samples(ids, media or {"text": ids})


def refusal(source: object, samples: Samples | None = None) -> str:
    with pytest.raises(AuditError) as caught:
        with_embeddings(samples or samples_of(*"abcd"), f"image={source}")
    message = str(caught.value)
    assert len(message) < 500
    return message


def table(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def attached(source: object, samples: Samples) -> Floats:
    vectors = with_embeddings(samples, f"image={source}").vectors["image"]
    return np.asarray(vectors[0 : len(samples)])


# --- which file belongs to which modality --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("", {}),
        ("image=x.npy", {"image": "x.npy"}),
        ("text=y.parquet#v, image=x.npy", {"image": "x.npy", "text": "y.parquet#v"}),
        ("image=a,b=c.npy,text=d.npy", {"image": "a,b=c.npy", "text": "d.npy"}),
        ("image = field:clip , text=brain:sim", {"image": "field:clip", "text": "brain:sim"}),
    ],
)
def test_entries_name_a_modality_and_its_source(text: str, sources: dict[str, str]) -> None:
    assert parse_embeddings(text) == sources


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x.npy", "embeddings names 'x.npy'; write MODALITY=FILE for image, text, audio, video"),
        ("picture=x.npy", "embeddings names 'picture=x.npy'"),
        ("image=", "embeddings names 'image='"),
        ("image=x.npy,image=y.npy", "embeddings names image twice"),
    ],
)
def test_entries_that_name_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(AuditError, match=message):
        parse_embeddings(text)


def test_fields_and_brain_runs_are_those_of_datasets() -> None:
    for source in ("field:clip", "brain:key"):
        assert "only an audit of a FiftyOne dataset can read" in refusal(source)


# --- formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_stay_on_the_disk_whatever_their_layout(tmp_path: Path, dtype: str, order: Any) -> None:
    np.save(tmp_path / "x.npy", np.asarray(X.astype(dtype), order=order))
    (part,) = read_vectors(str(tmp_path / "x.npy")).parts
    assert isinstance(part, np.memmap)
    np.testing.assert_array_equal(attached(tmp_path / "x.npy", samples_of(*"abcd")), X)


def test_the_array_or_column_is_named_where_there_are_several(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", image=X, text=-X)
    message = refusal(tmp_path / "x.npz")
    assert "x.npz holds 2 arrays; name the one that is meant: x.npz#image, x.npz#text" in message
    np.testing.assert_array_equal(attached(f"{tmp_path}/x.npz#text", samples_of(*"abcd")), -X)
    assert "has no 'audio'; it holds 'image', 'text'" in refusal(f"{tmp_path}/x.npz#audio")
    path = table(tmp_path / "x.parquet", a=pa.array(X.tolist(), FLOATS), b=pa.array(X.tolist(), FLOATS), c=list("wxyz"))
    assert "name the one that is meant: x.parquet#a, x.parquet#b" in refusal(path)
    assert "x.parquet#c holds string, not vectors" in refusal(f"{path}#c")
    np.testing.assert_array_equal(attached(f"{path}#b", samples_of(*"abcd")), X)
    np.save(tmp_path / "one#two.npy", X)  # a file whose name holds the mark
    np.testing.assert_array_equal(attached(tmp_path / "one#two.npy", samples_of(*"abcd")), X)


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("make", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 3)])
def test_columns_of_lists_of_every_kind(tmp_path: Path, kind: Any, make: Callable[[Any], Any]) -> None:
    rows = [None if row is None else [np.float16(x) for x in row] for row in (*X.tolist(), None)]
    column = pa.array(rows, make(kind))
    expected = np.vstack([X, np.zeros(3)])  # no vector is a row of zeros
    with (
        pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file,
        pa.ipc.new_file(file, pa.schema([("v", column.type)])) as w,
    ):
        w.write_table(pa.table({"v": column}), max_chunksize=2)
    np.testing.assert_array_equal(attached(tmp_path / "x.arrow", samples_of(*"abcde")), expected)
    if kind != pa.float16() or not pa.types.is_fixed_size_list(column.type):
        path = table(tmp_path / "x.parquet", v=column)
        np.testing.assert_array_equal(attached(path, samples_of(*"abcde")), expected)


def test_a_column_of_tensors(tmp_path: Path) -> None:
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(X)
    np.testing.assert_array_equal(attached(table(tmp_path / "x.parquet", v=tensor), samples_of(*"abcd")), X)


def test_brain_floats_are_the_upper_half_of_single_precision(tmp_path: Path) -> None:
    halves = (X.view(np.uint32) >> 16).astype("<u2")  # exact for small whole numbers
    header = json.dumps({"v": {"dtype": "BF16", "shape": [4, 3], "data_offsets": [0, 24]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + halves.tobytes())
    np.testing.assert_array_equal(attached(tmp_path / "x.safetensors", samples_of(*"abcd")), X)


def test_files_of_a_folder_follow_the_numbers_in_their_names(tmp_path: Path) -> None:
    for number in range(12):
        np.save(tmp_path / f"emb_{number}.npy", np.full((2, 3), number, np.float32))
    (tmp_path / "about.txt").write_text("not read")
    expected = np.repeat(np.arange(12), 2)
    np.testing.assert_array_equal(attached(tmp_path, samples_of(*map(str, range(24))))[:, 0], expected)
    np.save(tmp_path / "emb_3.npy", np.zeros((2, 4), np.float32))
    assert "emb_3.npy holds float32 of 4 numbers without ids" in refusal(tmp_path, samples_of(*map(str, range(24))))


# --- rows ----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(6)), extra=st.integers(0, 2))
def test_ids_find_their_rows_in_any_order(tmp_path_factory: Any, order: list[int], extra: int) -> None:
    path = tmp_path_factory.mktemp("ids") / "x.parquet"
    names = [*(f"id {row}" for row in order), *(f"more {row}" for row in range(extra))]
    rows = [[float(row), 1.0] for row in (*order, *range(90, 90 + extra))]
    table(path, id=names, v=pa.array(rows, FLOATS))
    samples = samples_of(*(f"id {row}" for row in range(6)))
    own = with_embeddings(samples, f"image={path}").vectors["image"]
    assert own[0:6][:, 0].tolist() == list(range(6))
    assert isinstance(own, VectorRows)
    assert own.note == (f"{count_text(extra, 'id')} of {path} left out, which no sample has" if extra else "")


def test_ids_that_do_not_fit_are_named(tmp_path: Path) -> None:
    samples = samples_of("a", "b", "c", "d")
    v = pa.array(X.tolist(), FLOATS)
    message = refusal(table(tmp_path / "x.parquet", id=["a", "b", "b", "c"], v=v), samples)
    assert "x.parquet: id 'b' stands in rows 1 and 2 (counted from 0); keep one row of each id" in message
    message = refusal(table(tmp_path / "x.parquet", id=["a", "b", "e", "f"], v=v), samples)
    assert "it has no vector for 2 of 4 samples ('c', 'd'); add them, with a row of zeros" in message
    message = refusal(table(tmp_path / "x.parquet", id=["a.jpg", "b.jpg", "c.jpg", "d.jpg"], v=v), samples)
    assert "none of its 4 ids is the id of a sample (its ids are 'a.jpg', 'b.jpg', 'c.jpg'" in message
    assert "leave the column 'id' out to match rows by their order" in message
    message = refusal(table(tmp_path / "x.parquet", id=["a", None, "c", "d"], v=v), samples)
    assert "row 1 (counted from 0) has None in the column 'id'" in message
    by_number = table(tmp_path / "x.parquet", id=[3, 2, 1, 0], v=v)
    np.testing.assert_array_equal(attached(by_number, samples_of(*"0123")), X[::-1])
    np.savez(tmp_path / "x.npz", ids=np.array(["d", "c"]), v=X)
    assert "x.npz has 2 ids for 4 vectors" in refusal(tmp_path / "x.npz", samples)


def test_the_number_of_rows_is_that_of_the_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    message = refusal(tmp_path / "x.npy", samples_of(*"abc"))
    assert "x.npy has 4 rows for 3 samples; give one row per sample in their order" in message


def test_one_vector_per_row_of_the_manifest_serves_all_of_its_captions(tmp_path: Path) -> None:
    """Row 0 has two captions, row 1 one, row 2 three: images by row, texts by caption."""
    captions = ["a dog", "a big dog"], ["a cat"], ["x", "y", "z"]
    rows = [{"id": f"r{row}", "image": "gone.png", "text": texts} for row, texts in enumerate(captions)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(tmp_path / "image.npy", X[:3])
    np.save(tmp_path / "text.npy", np.arange(12, dtype=np.float32).reshape(6, 2))
    named = f"image={tmp_path}/image.npy,text={tmp_path}/text.npy"
    samples = read_samples(tmp_path / "m.jsonl", {"image": "image", "text": "text"}, embeddings=named)
    assert samples.vectors["image"][0:6][:, 0].tolist() == [0, 0, 3, 6, 6, 6]
    assert samples.vectors["text"][0:6][:, 0].tolist() == [0, 2, 4, 6, 8, 10]
    with pytest.raises(AuditError, match="image.npy has 3 rows for 6 captions; give one row per caption"):
        read_samples(tmp_path / "m.jsonl", {"image": "image", "text": "text"}, embeddings=f"text={tmp_path}/image.npy")
    by_id = table(
        tmp_path / "t.parquet",
        id=["r2", "r0", "r2", "r1", "r0", "r2"],
        v=pa.array([[x, 1.0] for x in range(6)], FLOATS),
    )
    samples = read_samples(tmp_path / "m.jsonl", {"image": "image", "text": "text"}, embeddings=f"text={by_id}")
    assert samples.vectors["text"][0:6][:, 0].tolist() == [1, 4, 3, 0, 2, 5]


def test_a_manifest_needs_no_column_of_what_is_given(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id,caption,url\n" + "".join(f"{c},text {c},http://x/{c}.jpg\n" for c in "abcd"))
    np.save(tmp_path / "x.npy", X)
    own = f"image={tmp_path}/x.npy"
    samples = read_samples(tmp_path / "m.csv", {"text": "caption"}, embeddings=own)
    assert samples.media["image"] == (None,) * 4
    # a URL cannot be read, and need not be
    samples = read_samples(tmp_path / "m.csv", {"image": "url", "text": "caption"}, embeddings=own)
    assert (samples.problems, samples.media["image"]) == ({}, (None,) * 4)
    samples = read_samples(tmp_path / "m.csv", {}, embeddings=f"{own},text={tmp_path}/x.npy")
    assert samples.ids == ("a", "b", "c", "d")
    # the captions are known by the name of their column
    assert read_samples(tmp_path / "m.csv", {}, embeddings=own).media["text"][0] == "text a"
    (tmp_path / "n.csv").write_text("id,url\n" + "".join(f"{c},http://x/{c}.jpg\n" for c in "abcd"))
    with pytest.raises(AuditError, match="1 modality named"):
        read_samples(tmp_path / "n.csv", {}, embeddings=own)


# --- what is wrong with files --------------------------------------------------------------------------------------


def npy_header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def safetensors_bytes(**entry: Any) -> bytes:
    header = json.dumps({"v": {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]} | entry}).encode()
    return len(header).to_bytes(8, "little") + header + X.tobytes()


def npz_bytes(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"", "cannot be read"),
        ("x.npy", b"no array at all", "cannot be read"),
        ("x.npy", npy_header((4, 3)) + X.tobytes()[:40], "is cut off"),
        ("x.npy", npy_header((10**9, 512)), "the limits are"),
        ("x.npy", npy_header((4_000_000, 512)), "is cut off: it has 128 bytes of 8,192,000,128"),
        ("x.npy", npy_header((4, 3), "|O"), "x.npy holds object, embeddings are"),
        ("x.npy", npy_header((4, 3), "<i4"), "x.npy holds int32, embeddings are"),
        ("x.npy", npy_header((12,)) + X.tobytes(), "x.npy has the shape 12"),
        ("x.npy", npy_header((0, 3)), "x.npy has the shape 0 x 3"),
        ("x.npz", b"PK\x03\x04 cut", "cannot be read"),
        ("x.npz", npz_bytes("v.npy", npy_header((4_000_000, 512))), "array 'v' is shorter than it says"),
        ("x.npz", npz_bytes("v.txt", b"text"), "holds no arrays"),
        ("x.npz", npz_bytes("v.npy", npy_header((12,)) + X.tobytes()), "holds no arrays"),
        ("x.safetensors", struct.pack("<Q", 1 << 60), "is no safetensors file"),
        ("x.safetensors", b"\x10\0\0\0\0\0\0\0{not json at all", "cannot be read"),
        ("x.safetensors", safetensors_bytes(dtype="I64"), "#v holds I64"),
        ("x.safetensors", safetensors_bytes(data_offsets=[0, 40]), "is damaged"),
        ("x.safetensors", safetensors_bytes(data_offsets=[-8, 40]), "is damaged"),
        ("x.safetensors", safetensors_bytes(data_offsets=[48, 96]), "is cut off"),
        ("x.safetensors", safetensors_bytes(shape=[12]), "holds no tensors"),
        ("x.parquet", b"PAR1 and nothing else", "cannot be read"),
        ("x.feather", b"ARROW1 and nothing else", "cannot be read"),
        ("x.csv", b"1,2,3\n", "ends in '.csv'; embeddings are read from .npy"),
    ],
)
def test_files_that_are_not_what_they_say_are_refused_in_one_sentence(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / name)


@pytest.mark.parametrize("ending", [ending for ending in READERS if ending != ".lance"])
def test_places_that_are_no_files_are_refused(tmp_path: Path, ending: str) -> None:
    assert "do not exist; check the path" in refusal(tmp_path / f"x{ending}")
    os.mkfifo(tmp_path / f"pipe{ending}")
    assert "cannot be read" in refusal(tmp_path / f"pipe{ending}")
    (tmp_path / f"folder{ending}").mkdir()
    assert "holds no file of" in refusal(tmp_path / f"folder{ending}")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 2.0], [1.0]], "row 1 (counted from 0) has 1 numbers where others have 2"),
        ([None, None], "holds no vector in any of its 2 rows"),
        ([], "holds no rows"),
    ],
)
def test_lists_that_are_no_vectors_are_refused(tmp_path: Path, rows: list[Any], message: str) -> None:
    assert message in refusal(table(tmp_path / "x.parquet", v=pa.array(rows, FLOATS)), samples_of(*"ab"))


def test_a_table_without_vectors_lists_what_it_holds(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", id=["a"], words=[["x"]], whole=[[1, 2]])
    assert "x.parquet holds no columns of vectors (it holds 'id', 'words', 'whole')" in refusal(path)


def test_numbers_that_are_null_are_not_finite(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", v=pa.array([[1.0, None], [1.0, 2.0]], FLOATS))
    assert np.isnan(attached(path, samples_of(*"ab"))[0, 1])


def test_lance_is_read_where_its_package_is_there(tmp_path: Path) -> None:
    try:
        import lance
    except ImportError:
        (tmp_path / "x.lance").mkdir()
        assert "which the package pylance reads; install it" in refusal(tmp_path / "x.lance")
        return
    lance.write_dataset(pa.table({"id": list("dcba"), "v": pa.array(X.tolist(), FLOATS)}), str(tmp_path / "x.lance"))
    np.testing.assert_array_equal(attached(tmp_path / "x.lance", samples_of(*"abcd")), X[::-1])


# --- the command line ----------------------------------------------------------------------------------------------


def test_score_takes_embeddings_in_all_of_its_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without media; planned; extended; with an error that names the file."""
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((80, 8)).astype(np.float32)
    for name, rows in (("old", slice(0, 60)), ("new", slice(60, 80))):
        np.save(f"{name}.npy", hidden[rows])
        table(Path(f"{name}.parquet"), v=pa.array((hidden[rows] + 0.1).tolist(), FLOATS))
        numbers = range(80)[rows]
        Path(f"{name}.csv").write_text("id,text\n" + "".join(f"s{row},the text {row}\n" for row in numbers))
    own = ["--text", "text", "--embeddings", "image=old.npy,text=old.parquet"]
    quick = ["--trials", "4", "--epochs", "4", "--same-space"]

    def score(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, ["score", *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        return done.exit_code, done.output

    code, out = score("old.csv", *own, *quick, "--dry-run")
    assert code == 0, out
    assert "to encode" not in out
    assert score("old.csv", *own, *quick, "--run-dir", "run", "--out", "old_scores.parquet")[0] == 0
    scores = pyarrow.parquet.read_table("old_scores.parquet").to_pandas()
    cosines = (hidden[:60] * (hidden[:60] + 0.1)).sum(1)
    cosines /= np.linalg.norm(hidden[:60], axis=1) * np.linalg.norm(hidden[:60] + 0.1, axis=1)
    np.testing.assert_allclose(scores["clip_score"], cosines, atol=1e-5)
    new = ["new.csv", "--text", "text", "--extend", "run", "--out", "new_scores.parquet"]
    assert score(*new, "--embeddings", "image=new.npy,text=new.parquet")[0] == 0
    assert len(pyarrow.parquet.read_table("new_scores.parquet")) == 20
    code, out = score(*new, "--embeddings", "image=new.npy")
    assert (code, "the run's text embeddings were given" in out.replace("\n", " ")) == (2, True)
    code, out = score("new.csv", *own)
    assert (code, "old.npy has 60 rows for 20 samples" in out) == (2, True)
