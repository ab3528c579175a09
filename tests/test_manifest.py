from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError
from audit_plugin.audit.result import AuditResult, write_scores
from audit_plugin.inputs.rows import MISSING
from audit_plugin.inputs.samples import read_samples

COLUMNS = {"image": "image", "text": "caption"}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path, columns: dict[str, str] = COLUMNS, group: str | None = None) -> str:
    with pytest.raises(AuditError) as caught:
        read_samples(path, columns, group)
    return str(caught.value)


def test_csv_gives_absolute_paths_and_texts_in_row_order(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", 'id,image,caption\nb,img/2.png,two cats\na,../1.png,"one, dog"\n')
    samples = read_samples(path, COLUMNS)
    assert samples.ids == ("b", "a")
    assert samples.media["image"] == (str(tmp_path / "img/2.png"), str(tmp_path.parent / "1.png"))
    assert samples.media["text"] == ("two cats", "one, dog")
    assert samples.modalities == ("image", "text")
    assert (samples.caption, samples.groups, dict(samples.problems)) == ((), (), {})


def test_relative_manifest_path_gives_absolute_media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "m.csv", "image,caption\n1.png,x\n")
    monkeypatch.chdir(tmp_path)
    assert read_samples("m.csv", COLUMNS).media["image"] == (str(tmp_path / "1.png"),)


ROWS = [{"id": "7", "image": "a.png", "caption": "a cat"}, {"id": "9", "image": "b.png", "caption": "zwei Hunde 🐕"}]


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.json", "list.json", "m.parquet"])
def test_every_format_reads_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "m.parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif name == "list.json":
        write(tmp_path, name, json.dumps(ROWS, indent=2))
    elif "json" in name:
        write(tmp_path, name, "\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    else:
        mark = "\t" if name == "m.tsv" else ","
        write(tmp_path, name, "\n".join(mark.join(cells) for cells in (ROWS[0], *(r.values() for r in ROWS))))
    samples = read_samples(path, COLUMNS)
    assert samples.ids == ("7", "9")
    assert samples.media["text"] == ("a cat", "zwei Hunde 🐕")
    assert samples.media["image"][1] == str(tmp_path / "b.png")
    assert not samples.problems


def test_rows_are_numbered_from_0_without_an_id_column(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", "image,caption\n1.png,x\n\n2.png,y\n")
    assert read_samples(path, COLUMNS).ids == ("0", "1")


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", b"\xef\xbb\xbfid,image,caption\r\n1,a.png,x\r\n")
    assert read_samples(path, COLUMNS).media["text"] == ("x",)


def test_line_separators_inside_a_caption_end_no_row(tmp_path: Path) -> None:
    caption = "one\u2028two\x85three\x0cfour"
    path = write(tmp_path, "m.csv", f'image,caption\na.png,{caption}\nb.png,"five\nsix"\n')
    assert read_samples(path, COLUMNS).media["text"] == (caption, "five\nsix")


def test_lists_of_captions_give_one_row_each(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "image": "a.png", "caption": ["one", "two", None]},
        {"id": "b", "image": "b.png", "caption": "three"},
        {"id": "c", "image": "c.png", "caption": []},
    ]
    path = write(tmp_path, "m.jsonl", "\n".join(json.dumps(row) for row in rows))
    samples = read_samples(path, COLUMNS)
    assert samples.ids == ("a", "a", "a", "b", "c")
    assert samples.caption == (0, 1, 2, 0, 0)
    assert samples.media["text"] == ("one", "two", None, "three", None)
    assert samples.media["image"][:3] == (str(tmp_path / "a.png"),) * 3

    pq.write_table(pa.table({"image": ["a.png", "b.png"], "caption": [["one", "two"], ["three"]]}), tmp_path / "m.pq")
    assert read_samples(tmp_path / "m.pq", COLUMNS).ids == ("0", "0", "1")


def test_numbers_become_text_and_null_becomes_none(tmp_path: Path) -> None:
    rows = [
        '{"id": 1, "image": "a.png", "caption": 1234, "shop": 5}',
        '{"id": 2, "image": null, "caption": null}',
        '{"id": 3, "image": "  ", "caption": NaN, "shop": null}',
        '{"id": 4, "image": "d.png", "caption": "", "shop": "x"}',
    ]
    samples = read_samples(write(tmp_path, "m.jsonl", "\n".join(rows)), COLUMNS, group="shop")
    assert samples.ids == ("1", "2", "3", "4")
    assert samples.media["text"] == ("1234", None, None, "")
    assert samples.media["image"] == (str(tmp_path / "a.png"), None, None, str(tmp_path / "d.png"))
    assert samples.groups == ("5", "", "", "x")
    assert not samples.problems


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "NULL", "null", "N/A", "<NA>", " nan "])
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_words_for_nothing_are_missing_captions_with_a_note(tmp_path: Path, word: str, name: str) -> None:
    rows = [{"image": "a.png", "caption": word}, {"image": "b.png", "caption": f"a {word} word"}]
    if name == "m.parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    elif name == "m.jsonl":
        write(tmp_path, name, "\n".join(json.dumps(row) for row in rows))
    else:
        write(tmp_path, name, "image,caption\n" + "".join(f"{row['image']},{row['caption']}\n" for row in rows))
    samples = read_samples(tmp_path / name, COLUMNS)
    assert samples.media["text"] == (None, f"a {word} word")
    assert "captions that say nothing (such as nan): 1" in samples.notes


def test_half_an_emoji_in_json_is_storable(tmp_path: Path) -> None:
    path = write(tmp_path, "m.jsonl", '{"image": "a.png", "caption": "cat \\ud83d"}\n')
    (text,) = read_samples(path, COLUMNS).media["text"]
    assert text == "cat \ufffd"


def test_a_torn_csv_row_harms_no_other(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", "id,image,caption\n1,a.png,x\n2,b.png\n3,c.png,z,extra\n4,d.png,w\n")
    samples = read_samples(path, COLUMNS)
    assert samples.ids == ("1", "2", "3", "4")
    assert samples.media["text"] == ("x", None, None, "w")
    assert samples.media["image"][1:3] == (None, None)
    assert dict(samples.problems) == {
        1: "line 3 has 2 columns where the header names 3",
        2: "line 4 has 4 columns where the header names 3",
    }


@pytest.mark.parametrize("later", ["3,c.png,z", '3,c.png,"z, quoted"'])
def test_a_quote_that_is_never_closed_swallows_no_rows(tmp_path: Path, later: str) -> None:
    path = write(tmp_path, "m.csv", f'id,image,caption\n1,a.png,x\n2,b.png,"oops\n{later}\n4,d.png,w\n')
    samples = read_samples(path, COLUMNS)
    assert len(samples) == 4
    assert list(samples.problems) == [1]
    assert samples.problems[1].startswith("line 3 cannot be read")
    assert samples.ids[2:] == ("3", "4")
    assert samples.media["text"][3] == "w"


def test_torn_rows_never_take_the_id_of_a_whole_row(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", "id,image,caption\n5,a.png\n5,b.png,x\nrow 3,c.png,y\n5\n")
    samples = read_samples(path, COLUMNS)
    assert samples.ids == ("row 1", "5", "row 3", "row 4")
    assert list(samples.problems) == [0, 3]


def test_torn_json_lines_and_cells_of_a_wrong_kind(tmp_path: Path) -> None:
    rows = [
        '{"image": "a.png", "caption": "x"}',
        '{"image": "b.png", "capt',
        '["c.png", "z"]',
        '{"image": ["d.png", "e.png"], "caption": "w"}',
        '{"image": "e.png", "caption": {"en": "w"}}',
        "[" * 100_000,
        '{"image": "f.png", "caption": "v"}',
    ]
    samples = read_samples(write(tmp_path, "m.jsonl", "\n".join(rows)), COLUMNS)
    assert samples.media["text"] == ("x", None, None, None, None, None, "v")
    assert sorted(samples.problems) == [1, 2, 3, 4, 5]
    assert samples.problems[2] == "line 3 is not a JSON object"
    assert samples.problems[3] == "column 'image' holds a list of 2 values, not a path"


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=8))
def test_any_text_survives_csv(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("image", "caption", "shop"), *((".", *row) for row in rows)])
    path = write(tmp_path_factory.mktemp("texts"), "m.csv", out.getvalue())
    samples = read_samples(path, COLUMNS, group="shop")
    assert samples.media["text"] == tuple(None if text.strip() in MISSING else text for text, _ in rows)
    assert samples.groups == tuple(shop.strip() for _, shop in rows)


def test_caption_of_a_million_characters(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = write(tmp_path, "m.csv", f"image,caption\na.png,{'x' * 1_000_000}\n")
    assert len(read_samples(path, COLUMNS).media["text"][0] or "") == 1_000_000
    assert csv.field_size_limit() == before


def test_missing_manifest(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.csv") == f"manifest {str(tmp_path / 'no.csv')!r} does not exist; check its path"
    assert "does not exist" in refusal(tmp_path / "no.parquet")


def test_a_folder_without_shards_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.csv").mkdir()
    assert "holds nothing that is known (it is empty)" in refusal(tmp_path / "m.csv")


def test_text_that_is_not_utf8_is_located(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", b"image,caption\na.png,ok\nb.png,caf\xe9\n")
    assert refusal(path) == (
        "m.csv is not UTF-8 (byte 32, line 3: 0xe9, perhaps Windows-1252); save it as UTF-8: iconv -f WINDOWS-1252 -t "
        "UTF-8 m.csv > utf8.csv"
    )


def test_a_wrong_column_name_is_answered_with_the_right_one(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", "id,image,Captions\n1,a.png,x\n")
    assert refusal(path) == (
        "m.csv has no column 'caption'; did you mean 'Captions'? its columns are 'id', 'image', 'Captions'"
    )
    assert "no column 'shop'; its columns are" in refusal(path, {"image": "image", "text": "Captions"}, "shop")


def test_two_columns_of_the_same_name(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", "image,caption,caption\na.png,x,y\n")
    assert "several columns named 'caption'" in refusal(path)


def test_duplicate_ids_name_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", "id,image,caption\na,1.png,x\nb,2.png,y\nb,3.png,z\na,4.png,w\n")
    assert refusal(path) == (
        "m.csv: id 'b' stands in rows 2 and 3, which show different things; give every sample an id of its own"
    )


def test_rows_without_an_id_are_named_by_their_row(tmp_path: Path) -> None:
    rows = [
        '{"id": 1, "image": "a", "caption": "x"}',
        '{"image": "b", "caption": "y"}',
        '{"id": "row 4", "image": "c", "caption": "z"}',
        '{"id": "", "image": "d", "caption": "w"}',
    ]
    samples = read_samples(write(tmp_path, "m.jsonl", "\n".join(rows)), COLUMNS)
    assert samples.ids == ("1", "row 2", "row 4", "row 4'")
    assert "named by number: 2 rows without an id" in samples.notes


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
@pytest.mark.parametrize("content", ["", " \n\n"])
def test_empty_files(tmp_path: Path, name: str, content: str) -> None:
    message = refusal(write(tmp_path, name, content))
    assert "is empty" in message or "cannot be read as Parquet" in message


def test_no_rows(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, "m.csv", "image,caption\n")) == (
        "m.csv has a header but no rows; add one row per sample"
    )
    pq.write_table(
        pa.table({"image": pa.array([], pa.string()), "caption": pa.array([], pa.string())}), tmp_path / "m.parquet"
    )
    assert "no rows" in refusal(tmp_path / "m.parquet")


@pytest.mark.parametrize("name", ["m.xyz", "m"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    assert "a manifest is one of .arrow, .csv" in refusal(write(tmp_path, name, "image,caption\n"))


def test_what_is_no_json_and_no_parquet(tmp_path: Path) -> None:
    assert "no line is a JSON object" in refusal(write(tmp_path, "m.jsonl", "image,caption\na.png,x\n"))
    assert "starts as a JSON list" in refusal(write(tmp_path, "m.json", '[{"image": "a"'))
    assert "cannot be read as Parquet" in refusal(write(tmp_path, "m.parquet", "image,caption\n"))


def test_one_modality_is_too_few(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", "image,what\na.png,x\n")
    assert refusal(path, {"image": "image"}).endswith(
        "name two or more columns by --image COL, --text COL, --audio COL, --video COL"
    )


def test_four_modalities_labels_and_roles(tmp_path: Path) -> None:
    rows = [
        {"p": "a.png", "t": ["x", "y"], "a": "a.wav", "v": "a.mp4", "class": "cat", "seen": " f "},
        {"p": "b.png", "t": "z", "a": None, "v": "b.mp4", "class": None, "seen": None, "shop": 3},
    ]
    path = write(tmp_path, "m.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n{torn")
    columns = {"image": "p", "text": "t", "audio": "a", "video": "v"}
    samples = read_samples(path, columns, "shop", "class", "seen")
    assert samples.modalities == ("image", "text", "audio", "video")
    assert samples.media["audio"] == (str(tmp_path / "a.wav"), str(tmp_path / "a.wav"), None, None)
    assert samples.media["video"][2] == str(tmp_path / "b.mp4")
    assert samples.labels == ("cat", "cat", "", "")
    assert samples.roles == ("f", "f", "", "")
    assert samples.groups == ("", "", "3", "")
    assert samples.caption == (0, 1, 0, 0)
    assert list(samples.problems) == [3]


def test_an_unknown_role_names_row_and_column(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", "image,caption,seen\na.png,x,both\nb.png,y,\nc.png,z,traine\n")
    with pytest.raises(AuditError) as caught:
        read_samples(path, COLUMNS, role="seen")
    assert str(caught.value) == (
        "m.csv: row 3 has 'traine' in column 'seen'; a role is one of both, f, g, none, reference, or nothing"
    )
    with pytest.raises(AuditError, match="no column 'sen'; did you mean 'seen'"):
        read_samples(path, COLUMNS, role="sen")


def test_parquet_reads_only_the_named_columns(tmp_path: Path) -> None:
    table = pa.table({"image": ["a.png"], "caption": ["x"], "pixels": [b"\xff" * 10], "when": [b"\xff"]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert read_samples(tmp_path / "m.parquet", COLUMNS).media["text"] == ("x",)
    assert read_samples(tmp_path / "m.parquet", {"image": "image", "text": "when"}).problems == {
        0: "column 'when' holds bytes, not text"
    }


def make_result(seconds: float = 1.0, run_dir: str = "/runs/1") -> AuditResult:
    columns = {
        "misalignment": np.array([0.1, np.nan, 2.5], np.float32),
        "culprit": np.array(["text", "", "=1+1"], dtype=object),
        "duplicate_group": np.array([-1, 4, 4], np.int64),
        "is_misaligned": np.array([False, False, True]),
        "suggestion": np.array(["a cat", "@cmd", "-5"], dtype=object),
    }
    summary = {
        "samples": 3,
        "failures": np.int64(1),
        "reliability": float("nan"),
        "recall": {"random": np.float32(0.5)},
        "seconds": {"train": seconds},
        "versions": {"torch": "2.15"},
        "encoder": {"image": "offline:b0"},
        "config": {"seed": 3, "trials": 8, "run": "audit", "device": "cpu", "image": "/private/x"},
    }
    return AuditResult(("a", "b", "c"), columns, summary, run_dir)


def test_parquet_holds_id_then_columns_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.parquet"
    write_scores(path, make_result())
    table = pq.read_table(path)
    assert table.column_names == ["id", "misalignment", "culprit", "duplicate_group", "is_misaligned", "suggestion"]
    assert [str(t) for t in table.schema.types] == ["string", "float", "string", "int64", "bool", "string"]
    assert table["id"].to_pylist() == ["a", "b", "c"]
    np.testing.assert_array_equal(table["misalignment"].to_numpy(), np.array([0.1, np.nan, 2.5], np.float32))
    assert table["misalignment"].null_count == 0
    assert table["suggestion"].to_pylist() == ["a cat", "@cmd", "-5"]
    assert sorted(os.listdir(path.parent)) == ["scores.json", "scores.parquet"]


def test_footer_holds_scoring_settings_only_and_summary_the_rest(tmp_path: Path) -> None:
    write_scores(tmp_path / "s.parquet", make_result(seconds=7.5))
    footer = json.loads(pq.read_schema(tmp_path / "s.parquet").metadata[b"audit_plugin"])
    assert footer == {
        "config": {"seed": 3, "trials": 8},
        "encoder": {"image": "offline:b0"},
        "seed": 3,
        "versions": {"torch": "2.15"},
    }
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["seconds"] == {"train": 7.5}
    assert summary["reliability"] is None
    assert summary["recall"] == {"random": 0.5}
    assert summary["run_dir"] == "/runs/1"


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_equal_runs_give_equal_bytes_whatever_their_timing(tmp_path: Path, suffix: str) -> None:
    write_scores(tmp_path / f"1{suffix}", make_result(1.0, "/runs/1"))
    write_scores(tmp_path / f"2{suffix}", make_result(2.0, "/runs/2"))
    assert (tmp_path / f"1{suffix}").read_bytes() == (tmp_path / f"2{suffix}").read_bytes()


def test_caption_index_stands_beside_the_id(tmp_path: Path) -> None:
    write_scores(tmp_path / "s.jsonl", replace(make_result(), ids=("a", "a", "c"), captions=(0, 1, 0)))
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [list(row)[:2] for row in rows] == [["id", "caption_index"]] * 3
    assert [(row["id"], row["caption_index"]) for row in rows] == [("a", 0), ("a", 1), ("c", 0)]
    assert [row["misalignment"] for row in rows] == [0.1, None, 2.5]


def test_csv_defuses_formulas_and_leaves_numbers(tmp_path: Path) -> None:
    write_scores(tmp_path / "s.csv", replace(make_result(), ids=("=HYPERLINK(1)", "-7", "+x")))
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["'=HYPERLINK(1)", "-7", "'+x"]
    assert [row["culprit"] for row in rows] == ["text", "", "'=1+1"]
    assert [row["suggestion"] for row in rows] == ["a cat", "'@cmd", "-5"]
    assert [row["misalignment"] for row in rows] == ["0.1", "", "2.5"]
    assert [row["is_misaligned"] for row in rows] == ["False", "False", "True"]


@given(st.lists(st.text(), min_size=1, max_size=5, unique=True))
def test_ids_survive_parquet(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "ids.parquet"
    columns = {"misalignment": np.zeros(len(ids), np.float32)}
    write_scores(path, AuditResult(tuple(ids), columns, {}))
    assert pq.read_table(path)["id"].to_pylist() == ids


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with 16 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_old_table_whole(full_disk: Path) -> None:
    path = full_disk / "scores.csv"
    write_scores(path, make_result())
    before = path.read_bytes()
    n = 5000
    big = AuditResult(tuple(map(str, range(n))), {"misalignment": np.random.default_rng(0).random(n, np.float32)}, {})
    with pytest.raises(AuditError, match="no space left"):
        write_scores(path, big)
    assert path.read_bytes() == before
    assert sorted(os.listdir(full_disk)) == ["scores.csv", "scores.json"]


def test_a_split_is_read_beside_the_media(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,text,part\na.png,one,train\nb.png,two,\n")
    samples = read_samples(tmp_path / "m.csv", {"image": "image", "text": "text"}, split="part")
    assert samples.splits == ("train", "")
    assert read_samples(tmp_path / "m.csv", {"image": "image", "text": "text"}).splits == ()
