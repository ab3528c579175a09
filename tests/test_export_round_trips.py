"""Whatever is exported reads back as the input minus the removals, byte for byte."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.export import ManifestSource, Rules, SamplesSource, ScoreTable, export_rows
from audit_plugin.inputs.files import open_medium
from audit_plugin.inputs.images import crop_of
from audit_plugin.inputs.samples import read_samples
from audit_plugin.report import read_score_table
from tests.export_fixtures import COLUMNS, marked, write_manifest, write_scores

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
ODD = [
    "",
    '"',
    "'=1+1",
    "a\nb",
    "a\r\nb",
    "\r",
    ",;\t|",
    "é",
    "e\u0301",
    "日本語",
    "👩‍👩‍👧",
    "\u2028",
    "\0",
    " x ",
    "#",
    "nan",
    "[1]",
]
CAPTIONS = st.one_of(TEXTS, st.sampled_from(ODD))
HOSTILE = [
    "../up",
    "/etc/passwd",
    "a/../../b",
    "C:\\x",
    "..",
    ".",
    "con",
    "NUL.txt",
    "com1",
    "x" * 300,
    "日" * 200,
    "A",
    "a",
    "é",
    "É",
    "e\u0301",
    "line\nbreak",
    "nul\0nul",
    "-rf",
    ".hidden",
    "trailing. ",
    "a b",
    "~root",
    "$HOME",
    "a\\b",
    "\u202egnp",
    "?*<>|:",
]
IDS = st.one_of(TEXTS.filter(bool), st.sampled_from(HOSTILE))


@st.composite
def rows(draw: Any) -> list[tuple[str, str, bytes, bool]]:
    """(id, caption, bytes, is removed) of some samples."""
    ids = draw(st.lists(IDS, min_size=1, max_size=8, unique=True))
    content = st.binary(min_size=1, max_size=2000)
    return [(name, draw(CAPTIONS), draw(content), draw(st.booleans())) for name in ids]


def examples(count: int) -> Any:
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


def audited(folder: Path, suffix: str, samples: Sequence[tuple[str, str, bytes, bool]]) -> tuple[Path, Path]:
    """(manifest, scores) of samples with their files."""
    entries = []
    for number, (name, caption, data, _) in enumerate(samples):
        (folder / f"f {number};é.jpg").write_bytes(data)
        entries.append({"id": name, "image": f"f {number};é.jpg", "caption": caption, "n": number})
    manifest = write_manifest(folder / f"manifest{suffix}", entries)
    action = ["remove" if removed else "keep" for *_, removed in samples]
    return manifest, write_scores(folder / "s.parquet", manifest, [s[0] for s in samples], columns={"action": action})


def exported(manifest: Path, scores: Path, to: Path, form: str = "", rules: Rules | None = None) -> Path:
    export_rows(read_score_table(scores), ManifestSource(manifest, COLUMNS), to, form, rules)
    return to


def data_of(samples: Samples, modality: str = "image") -> list[bytes]:
    return [open_medium(path).read() for path in samples.media[modality]]  # type: ignore[arg-type]


def within(root: Path, to: Path) -> None:
    """Everything that an export wrote lies in its place or beside it."""
    for path in root.rglob("*"):
        assert path.resolve().is_relative_to(root.resolve()), path
        if not (path.is_relative_to(to) or path.name.startswith(f"{to.name}.")):
            assert path.parent == root
            assert not path.name.startswith("."), f"left over: {path}"


@pytest.mark.parametrize("source", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("to", ["out.csv", "out.tsv", "out.jsonl", "out.parquet"])
@examples(12)
@given(samples=rows())
def test_tables_read_back_as_the_input_minus_the_removals(source, to, samples):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, scores = audited(folder, source, samples)
        staying = [row for row, sample in enumerate(samples) if not sample[3]]
        before = read_samples(manifest, COLUMNS)
        out = exported(manifest, scores, folder / to)
        if not staying:
            return
        after = read_samples(out, COLUMNS)
        assert after.ids == tuple(before.ids[row] for row in staying)
        assert list(after.media["text"]) == [before.media["text"][row] for row in staying]
        assert list(after.media["image"]) == [before.media["image"][row] for row in staying]
        assert data_of(after) == [samples[row][2] for row in staying]


@pytest.mark.parametrize("source", [".csv", ".jsonl"])
@examples(25)
@given(samples=rows())
def test_files_become_shards_with_the_same_bytes_and_safe_keys(source, samples):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in"
        folder.mkdir()
        manifest, scores = audited(folder, source, samples)
        before = read_samples(manifest, COLUMNS)
        out = exported(manifest, scores, Path(name) / "root" / "out", "webdataset")
        staying = [row for row, sample in enumerate(samples) if not sample[3]]
        members = members_of(out)
        keys = list(dict.fromkeys(member.partition(".")[0] for member, _ in members))
        assert all("/" not in key and "\\" not in key for key in keys)
        assert len({key.casefold() for key in keys}) == len(keys) == len(staying)
        content = dict(members)
        for key, row in zip(keys, staying, strict=True):
            assert content[f"{key}.jpg"] == samples[row][2]
            assert content[f"{key}.txt"].decode() == (before.media["text"][row] or samples[row][1])  # "nan" is missing
            fields = json.loads(content[f"{key}.json"])
            assert fields.get("original_id", key) == before.ids[row]
            assert str(fields["n"]) == str(row)
        if staying:
            after = read_samples(out, {"image": "image", "text": "text"})
            assert data_of(after) == [samples[row][2] for row in staying]
        within(out.parent, out)


def members_of(folder: Path) -> list[tuple[str, bytes]]:
    """(name, bytes) of all members of the shards in a folder, as the standard library reads them."""
    out = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as shard:
            out += [(member.name, shard.extractfile(member).read()) for member in shard]  # type: ignore[union-attr]
    return out


def pack(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as shard:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))


KEYS = st.text(st.characters(categories=["L", "N"], include_characters="_-/ "), min_size=1, max_size=150).filter(
    lambda key: all(part.strip() == part and part for part in key.split("/"))
)


@examples(30)
@given(
    keys=st.lists(KEYS, min_size=1, max_size=8, unique=True),
    caption=TEXTS,
    data=st.binary(min_size=1, max_size=1500),
    split=st.booleans(),
    removed=st.sets(st.integers(0, 7)),
)
def test_shards_keep_their_keys_and_the_bytes_of_all_members(keys, caption, data, split, removed):
    samples = []
    for number, key in enumerate(keys):
        fields = json.dumps({"caption": caption, "url": f"u{number}"}).encode()
        samples.append(
            [
                (f"{key}.jpg", data + bytes([number])),
                (f"{key}.txt", caption.encode()),
                (f"{key}.json", fields),
                (f"{key}.seg.npy", b"\x93NUMPY" + bytes([number])),
                (f"{key}.cls", b"3"),
            ]
        )
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "in"
        source.mkdir()
        half = len(keys) // 2 if split else 0
        if half:
            pack(source / "a.tar", [member for sample in samples[:half] for member in sample])
        pack(source / "b.tar", [member for sample in samples[half:] for member in sample])
        columns = {"image": "image", "text": "text"}
        before = read_samples(source, columns)
        assert before.ids == tuple(keys)
        action = ["remove" if row in removed else "keep" for row in range(len(keys))]
        scores = write_scores(Path(name) / "s.parquet", source, before.ids, columns={"action": action}, names=columns)
        out = Path(name) / "out"
        export_rows(read_score_table(scores), ManifestSource(source, columns), out)
        staying = [row for row in range(len(keys)) if row not in removed]
        assert members_of(out) == [member for row in staying for member in samples[row]]


def test_keys_that_repeat_stay_in_their_shards(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for shard in ("00000", "00001"):
        pack(source / f"{shard}.tar", [(f"{k}.{s}", f"{shard}{k}{s}".encode()) for k in "ab" for s in ("jpg", "txt")])
    columns = {"image": "image", "text": "text"}
    before = read_samples(source, columns)
    action = marked(4, {1: "remove"}, "keep")
    scores = write_scores(tmp_path / "s.parquet", source, before.ids, columns={"action": action}, names=columns)
    export_rows(read_score_table(scores), ManifestSource(source, columns), tmp_path / "out")
    after = read_samples(tmp_path / "out", columns)
    assert after.ids == ("00000/a", "00001/a", "00001/b")
    assert data_of(after) == [b"00000ajpg", b"00001ajpg", b"00001bjpg"]


def test_a_relabeled_member_changes_and_the_others_do_not(tmp_path):
    source = tmp_path / "in.tar"
    fields = json.dumps({"caption": "old", "url": "u"}).encode()
    pack(source, [("k.jpg", b"J"), ("k.txt", b"old"), ("k.json", fields), ("l.jpg", b"L"), ("l.json", fields)])
    for column, keys in (("text", ["k"]), ("caption", ["k", "l"])):
        columns = {"image": "image", "text": column}
        ids = read_samples(source, columns).ids
        words = {"action": marked(2, {0: "relabel"}, "keep"), "suggestion": marked(2, {0: "new “é”"})}
        if column == "text":
            words["failure"] = marked(2, {1: "text is missing"})
        scores = write_scores(tmp_path / f"{column}.parquet", source, ids, columns=words, names=columns)
        out = tmp_path / column
        export_rows(read_score_table(scores), ManifestSource(source, columns), out, "webdataset", Rules(relabel=True))
        content = dict(members_of(out))
        assert {name.partition(".")[0] for name in content} == set(keys)
        assert content["k.jpg"] == b"J"
        assert content["k.txt"].decode() == ("new “é”" if column == "text" else "old")
        new = json.loads(content["k.json"])
        assert new == {"caption": "old" if column == "text" else "new “é”", "url": "u"}


@pytest.mark.parametrize("name", ["../../up.jpg", "/abs/k.jpg", "a/../../k.jpg", "a\nb/k.jpg", "C:/k.jpg", "a//k.jpg"])
def test_hostile_members_of_shards_get_a_safe_name_that_notes_the_key(tmp_path, name):
    source = tmp_path / "in.tar"
    text = name.rpartition(".")[0] + ".txt"
    pack(source, [(name, b"J"), (text, b"a caption")])
    columns = {"image": "image", "text": "text"}
    ids = read_samples(source, columns).ids
    scores = write_scores(tmp_path / "s.parquet", source, ids, names=columns)
    export_rows(read_score_table(scores), ManifestSource(source, columns), tmp_path / "out")
    content = dict(members_of(tmp_path / "out"))
    key = next(iter(content)).partition(".")[0]
    assert "/" not in key
    assert content[f"{key}.jpg"] == b"J"
    assert content[f"{key}.txt"] == b"a caption"
    assert json.loads(content[f"{key}.json"])["original_id"] == ids[0]


# --- several captions -----------------------------------------------------------------------------------------------


LISTS = [["a dog", "ein\nHund"], ["one"], ["x", 'y "z"', "w"], []]


@pytest.mark.parametrize("source", [".jsonl", ".parquet"])
@pytest.mark.parametrize("form", ["out.jsonl", "out.parquet"])
def test_single_captions_leave_their_list(tmp_path, source, form):
    entries = []
    for number, captions in enumerate(LISTS):
        (tmp_path / f"{number}.jpg").write_bytes(b"J%d" % number)
        entries.append({"id": f"s{number}", "image": f"{number}.jpg", "caption": captions})
    manifest = write_manifest(tmp_path / f"m{source}", entries)
    before = read_samples(manifest, COLUMNS)
    n = len(before)
    # of s0 its first caption, s1 as a whole, of s2 the one in the middle
    words = {"action": marked(n, {0: "remove", 2: "remove", 4: "remove"}, "keep")}
    scores = write_scores(tmp_path / "s.parquet", manifest, before.ids, before.caption, words)
    after = read_samples(exported(manifest, scores, tmp_path / form), COLUMNS)
    assert after.ids == ("s0", "s2", "s2", "s3")
    assert after.media["text"] == ("ein\nHund", "x", "w", None)
    assert data_of(after) == [b"J0", b"J2", b"J2", b"J3"]


def test_a_table_without_lists_has_a_row_per_caption(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"J")
    manifest = write_manifest(tmp_path / "m.jsonl", [{"id": "s", "image": "a.jpg", "caption": ["x", "y,\n", "z"]}])
    scores = write_scores(
        tmp_path / "s.parquet", manifest, ["s"] * 3, [0, 1, 2], {"action": ["keep", "remove", "keep"]}
    )
    text = exported(manifest, scores, tmp_path / "o.csv").read_text()
    lines = text.splitlines()
    assert lines[0] == "id,caption_index,image,caption"
    assert [line.split(",")[1] for line in lines[1:]] == ["0", "2"]


# --- formats that others read -----------------------------------------------------------------------------------------


def picture(path: Path, width: int, height: int) -> bytes:
    Image.new("RGB", (width, height), (width, height, 7)).save(path)
    return path.read_bytes()


def pictures(folder: Path, names: Sequence[str]) -> tuple[Path, Path, list[bytes]]:
    """(manifest, scores, bytes) of pictures; the second is removed, the third has no readable file."""
    data, entries = [], []
    for number, name in enumerate(names):
        data.append(picture(folder / f"{number}.png", 10 + number, 20))
        entries.append({"id": name, "image": f"{number}.png", "caption": f"caption\n{number}", "n": number})
    (folder / "2.png").unlink()
    manifest = write_manifest(folder / "m.jsonl", entries)
    action = marked(len(names), {1: "remove"}, "keep")
    return manifest, write_scores(folder / "s.parquet", manifest, list(names), columns={"action": action}), data


def removed(to: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    path = to / "removed.parquet" if to.is_dir() else to.with_name(f"{to.name}.removed.parquet")
    return list(pyarrow.parquet.read_table(path).to_pylist())


@pytest.mark.parametrize("form", ["hf-folder", "coco", "webdataset", "hf-parquet"])
def test_every_hostile_name_stays_inside_and_is_noted(tmp_path, form):
    (tmp_path / "in").mkdir()
    manifest, scores, data = pictures(tmp_path / "in", HOSTILE)
    out = exported(manifest, scores, tmp_path / "root" / "out", form)
    within(tmp_path / "root", out)
    names = [path.name for path in out.rglob("*")]
    assert len({name.casefold() for name in names if name.endswith(".png")}) == len(
        [n for n in names if n.endswith(".png")]
    )
    assert all(len(name.encode()) < 200 and name.isprintable() for name in names)
    expected = {name: data[row] for row, name in enumerate(HOSTILE) if row not in (1, 2)}
    assert contents(out, form) == expected
    assert {row["id"]: row["by"] for row in removed(out)} == {HOSTILE[1]: "audit", HOSTILE[2]: "export"}
    assert "file not found" in next(row["why"] for row in removed(out) if row["id"] == HOSTILE[2])


def contents(out: Path, form: str) -> dict[str, bytes]:
    """Id -> bytes of an export, as the documentation of the format says, without any code of this package."""
    import pyarrow.parquet

    if form == "hf-folder":
        lines = (out / "metadata.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        return {row["id"]: (out / row["file_name"]).read_bytes() for row in map(json.loads, lines)}
    if form == "coco":
        whole = json.loads((out / "annotations.json").read_text(encoding="utf-8"))
        return {row["sample_id"]: (out / row["file_name"]).read_bytes() for row in whole["images"]}
    if form == "hf-parquet":
        (path,) = (out / "data").glob("*.parquet")
        assert path.name == "train-00000-of-00001.parquet"
        rows = pyarrow.parquet.read_table(path).to_pylist()
        assert all("/" not in row["image"]["path"] and "\\" not in row["image"]["path"] for row in rows)
        return {row["id"]: row["image"]["bytes"] for row in rows}
    members = members_of(out)
    ids = {n[:-5]: json.loads(data).get("original_id", n[:-5]) for n, data in members if n.endswith(".json")}
    return {ids[name[:-4]]: data for name, data in members if name.endswith(".png")}


def test_coco_has_sizes_and_captions(tmp_path):
    manifest, scores, _ = pictures(tmp_path, ["a", "b", "c", "d"])
    whole = json.loads((exported(manifest, scores, tmp_path / "out", "coco") / "annotations.json").read_text())
    assert [(row["width"], row["height"]) for row in whole["images"]] == [(10, 20), (13, 20)]
    assert [(row["image_id"], row["caption"]) for row in whole["annotations"]] == [(1, "caption\n0"), (2, "caption\n3")]
    assert whole["categories"] == []


def test_coco_notes_each_sample_of_an_image(tmp_path):
    picture(tmp_path / "x.png", 8, 8)
    entries = [{"id": name, "image": "x.png", "caption": f"caption of {name}"} for name in ("a", "b")]
    manifest = write_manifest(tmp_path / "m.jsonl", entries)
    out = exported(manifest, write_scores(tmp_path / "s.parquet", manifest, ["a", "b"]), tmp_path / "out", "coco")
    whole = json.loads((out / "annotations.json").read_text())
    assert len(whole["images"]) == 1
    found = [(row["image_id"], row["sample_id"], row["caption"]) for row in whole["annotations"]]
    assert found == [(1, "a", "caption of a"), (1, "b", "caption of b")]


def boxes(folder: Path) -> tuple[Samples, ScoreTable]:
    """Three objects in two images, of which the second one is removed."""
    picture(folder / "0.png", 100, 50)
    picture(folder / "1.png", 40, 40)
    box = [(0.1, 0.2, 0.5, 0.4), (0.0, 0.0, 1.0, 1.0), (0.25, 0.25, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)]
    images = [crop_of(str(folder / f"{number // 3}.png"), box[number]) for number in range(4)]
    samples = Samples(tuple("abcd"), {"image": tuple(images), "text": ("cat", "dog", "dog", 'a "cat"')})
    columns = {"action": np.array(["keep", "remove", "keep", "keep"], dtype=object)}
    return samples, ScoreTable(np.array(list("abcd"), dtype=object), np.zeros(0), columns, {}, "scores")


def test_objects_become_boxes_of_coco(tmp_path):
    samples, table = boxes(tmp_path)
    export_rows(table, SamplesSource(samples), tmp_path / "out", "coco")
    whole = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert len(whole["images"]) == 2
    names = {row["id"]: row["name"] for row in whole["categories"]}
    found = [
        (row["image_id"], names[row["category_id"]], row["bbox"], row["sample_id"]) for row in whole["annotations"]
    ]
    assert found == [
        (1, "cat", [10, 10, 50, 20], "a"),
        (1, "dog", [25, 12.5, 50, 25], "c"),
        (2, 'a "cat"', [20, 20, 20, 20], "d"),
    ]


def test_objects_become_labels_of_yolo(tmp_path):
    samples, table = boxes(tmp_path)
    out = tmp_path / "out"
    export_rows(table, SamplesSource(samples), out, "yolo")
    images = sorted(path.relative_to(out / "images") for path in (out / "images").rglob("*.png"))
    labels = [(out / "labels" / path).with_suffix(".txt").read_text().splitlines() for path in images]
    assert labels == [
        ["0 0.350000 0.400000 0.500000 0.400000", "1 0.500000 0.500000 0.500000 0.500000"],
        ["2 0.750000 0.750000 0.500000 0.500000"],
    ]
    import yaml

    settings = yaml.safe_load((out / "data.yaml").read_text())
    # Ultralytics takes the folder of the file only where it names no `path`
    assert settings == {"train": "images", "val": "images", "names": {0: "cat", 1: "dog", 2: 'a "cat"'}}
    ids = [json.loads(line)["id"] for line in (out / "samples.jsonl").read_text().splitlines()]
    assert ids == ["a", "c", "d"]


def test_yolo_refuses_whole_images(tmp_path):
    manifest, scores, _ = pictures(tmp_path, ["a", "b", "c", "d"])
    with pytest.raises(AuditError, match="whole image"):
        exported(manifest, scores, tmp_path / "out", "yolo")
    assert not (tmp_path / "out").exists()


@examples(20)
@given(st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=30, unique=True), st.booleans())
def test_uids_are_those_of_datacomp(numbers, as_column):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "x.jpg").write_bytes(b"J")
        uids = [f"{number:032x}" for number in numbers]
        entries = [{"id": str(i) if as_column else uid, "image": "x.jpg", "caption": "c"} for i, uid in enumerate(uids)]
        if as_column:
            entries = [{**entry, "uid": uid} for entry, uid in zip(entries, uids, strict=True)]
        manifest = write_manifest(folder / "m.jsonl", entries)
        action = marked(len(uids), {0: "remove"}, "keep")
        scores = write_scores(folder / "s.parquet", manifest, [e["id"] for e in entries], columns={"action": action})
        uids_out = np.load(exported(manifest, scores, folder / "keep.npy"))
        assert uids_out.dtype == np.dtype("u8,u8")
        # as the baselines of DataComp make them
        expected = np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids[1:]], np.dtype("u8,u8"))
        expected.sort()
        assert (uids_out == expected).all()


def test_sets_without_uids_are_refused(tmp_path):
    manifest, scores, _ = pictures(tmp_path, ["a", "b", "c", "d"])
    with pytest.raises(AuditError, match="no uid"):
        exported(manifest, scores, tmp_path / "out.npy")


def test_parquet_keeps_the_types_of_other_columns(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    (tmp_path / "a.jpg").write_bytes(b"J")
    table = pa.table(
        {
            "id": ["a", "b"],
            "image": ["a.jpg", "a.jpg"],
            "caption": ["x", "y"],
            "score": pa.array([1.5, None], pa.float32()),
            "tags": pa.array([["p", "q"], None], pa.list_(pa.string())),
            "when": pa.array([1, 2], pa.timestamp("ms")),
            "count": pa.array([2**62, 1], pa.int64()),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    scores = write_scores(
        tmp_path / "s.parquet", tmp_path / "m.parquet", ["a", "b"], columns={"action": ["keep", "remove"]}
    )
    out = pyarrow.parquet.read_table(exported(tmp_path / "m.parquet", scores, tmp_path / "o.parquet"))
    for name in ("score", "tags", "when", "count"):
        assert out.schema.field(name).type == table.schema.field(name).type
        assert out[name].to_pylist() == table[name].to_pylist()[:1]


def test_mixed_types_of_json_become_texts_of_json(tmp_path):
    import pyarrow.parquet

    (tmp_path / "a.jpg").write_bytes(b"J")
    values = [1, "two", {"three": [3]}, None, 2**70]
    entries = [
        {"id": str(i), "image": "a.jpg", "caption": "c", "x": x, "n": i, "f": i / 2} for i, x in enumerate(values)
    ]
    manifest = write_manifest(tmp_path / "m.jsonl", entries)
    scores = write_scores(tmp_path / "s.parquet", manifest, [entry["id"] for entry in entries])
    rows = pyarrow.parquet.read_table(exported(manifest, scores, tmp_path / "o.parquet")).to_pylist()
    assert [row["n"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["x"] for row in rows] == ["1", "two", '{"three": [3]}', None, str(2**70)]


def test_bytes_inside_a_table_are_exported_as_files(tmp_path):
    # tables with images inside are audited in place once they are read; their export does not unpack them either
    table = [
        {"id": str(i), "image": {"bytes": b"\xff\xd8\xff%d" % i, "path": "../x.jpg"}, "caption": "c"} for i in range(3)
    ]
    manifest = write_manifest(tmp_path / "m.parquet", table)
    scores = write_scores(tmp_path / "s.parquet", manifest, ["0", "1", "2"])
    assert dict(members_of(exported(manifest, scores, tmp_path / "out", "webdataset")))["1.jpg"] == b"\xff\xd8\xff1"


def test_equal_exports_have_equal_bytes(tmp_path):
    manifest, scores, _ = pictures(tmp_path, ["a", "b", "c", "d"])
    for form in ("webdataset", "hf-folder", "hf-parquet", "coco"):
        first, second = (exported(manifest, scores, tmp_path / f"{form}{i}", form) for i in range(2))
        for path in first.rglob("*"):
            if path.is_file() and path.name != "audit.md":
                assert path.read_bytes() == (second / path.relative_to(first)).read_bytes(), path
        shutil.rmtree(first)
