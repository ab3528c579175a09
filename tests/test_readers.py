"""Sources as people have them: dialects of CSV, JSON, Parquet and Arrow with media inside, shards with odd names."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.files import open_medium
from audit_plugin.inputs.samples import read_samples

COLUMNS = {"image": "image", "text": "caption"}
N = 12


def png(row: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (row * 20 % 256, 7, 9)).save(out, "PNG")
    return out.getvalue()


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path | str, columns: dict[str, str] | None = None, **more: Any) -> str:
    with pytest.raises(AuditError) as caught:
        read_samples(path, COLUMNS if columns is None else columns, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- CSV -----------------------------------------------------------------------------------------------------------


def table(mark: str, end: str = "\n", last: str = "") -> str:
    rows = [["image", "caption"], *([f"{row}.png", f"picture {row}"] for row in range(N))]
    return "".join(mark.join(cells) + last + end for cells in rows)


@pytest.mark.parametrize("mark", [",", ";", "\t", "|", "| "])
@pytest.mark.parametrize("name", ["m.csv", "captions.txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_delimiter_and_line_end_reads_the_same(tmp_path: Path, mark: str, name: str, end: str) -> None:
    samples = read_samples(write(tmp_path / name, table(mark, end)), COLUMNS)
    assert samples.media["text"] == tuple(f"picture {row}" for row in range(N))
    assert samples.media["image"][0] == str(tmp_path / "0.png")
    assert samples.problems == {}
    names = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", "| ": "bars"}
    assert (
        samples.notes[0] == f"read as CSV separated by {names[mark]}: image from 'image', text from 'caption'; 12 rows"
    )


@pytest.mark.parametrize("packed", [".gz", ".zst", ".bz2"])
def test_packed_tables_are_read(tmp_path: Path, packed: str) -> None:
    codec = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}[packed]
    for name, content in (("m.csv", table(",")), ("m.jsonl", json_lines())):
        with pa.CompressedOutputStream(str(tmp_path / f"{name}{packed}"), codec) as out:
            out.write(content.encode())
        assert read_samples(tmp_path / f"{name}{packed}", COLUMNS).media["text"][3] == "picture 3"
    whole = gzip.compress(table(",").encode())
    assert "cut off or damaged" in refusal(write(tmp_path / "cut.csv.gz", whole[: len(whole) // 2]))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_byte_order_marks_name_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "m.csv", table(",").replace("picture", "Bäume ☺").encode(encoding))
    assert read_samples(path, COLUMNS).media["text"][1] == "Bäume ☺ 1"


def test_an_empty_cell_at_the_end_of_each_line(tmp_path: Path) -> None:
    for last, head in ((",", True), (",", False)):
        text = table(",", last=last)
        text = text if head else text.replace("caption,\n", "caption\n", 1)
        assert read_samples(write(tmp_path / "m.csv", text), COLUMNS).problems == {}


def test_quotes_in_tables_with_tabs_may_stand_for_inches(tmp_path: Path) -> None:
    lines = [f'{row}.png\t"{row} inches" is a {row}" screen' for row in range(N)]
    samples = read_samples(write(tmp_path / "m.tsv", "image\tcaption\n" + "\n".join(lines)), COLUMNS)
    assert samples.media["text"][2] == '"2 inches" is a 2" screen'
    assert samples.problems == {}
    lines = [f'{row}.png\t"never closed {row}' for row in range(N)]
    samples = read_samples(write(tmp_path / "m.tsv", "image\tcaption\n" + "\n".join(lines)), COLUMNS)
    assert samples.media["text"][2] == '"never closed 2'


def test_quotes_behind_backslashes(tmp_path: Path) -> None:
    lines = [f'{row}.png,"he said \\"{row}, or more\\""' for row in range(N)]
    samples = read_samples(write(tmp_path / "m.csv", "image,caption\n" + "\n".join(lines)), COLUMNS)
    assert samples.media["text"][4] == 'he said "4, or more"'


@given(st.lists(st.text("ab,;|\t\"' \n", min_size=1).filter(str.strip), min_size=8, max_size=20))
def test_quoted_captions_of_any_signs_survive(tmp_path_factory: pytest.TempPathFactory, captions: list[str]) -> None:
    out = io.StringIO(newline="")
    rows = [("image", "caption"), *((f"{row}.png", text) for row, text in enumerate(captions))]
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
    path = write(tmp_path_factory.mktemp("quoted") / "m.csv", out.getvalue())
    assert read_samples(path, COLUMNS).media["text"] == tuple(captions)


def test_a_table_that_reads_equally_well_both_ways_asks(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", "image,a;caption\n" + "".join(f"{row}.png,x;y\n" for row in range(N)))
    assert "separated by commas or by semicolons; say which: --format csv-commas or csv-semicolons" in refusal(path)
    assert read_samples(path, {"image": "image", "text": "a;caption"}, format="csv-commas").media["text"][0] == "x;y"


def test_a_table_of_which_a_quarter_is_lost_is_refused_with_grouped_reasons(tmp_path: Path) -> None:
    rows = [f"{row}.png,one" if row % 3 else f"{row}.png,one,two,three" for row in range(30)]
    message = refusal(write(tmp_path / "m.csv", "image,caption\n" + "\n".join(rows)))
    assert "10 of 30 rows cannot be read: 10 times such as 'line 2 has 4 columns where the header names 2'" in message
    many = [f"{row}.png,one,two" for row in range(100_000)]
    assert len(refusal(write(tmp_path / "m.csv", "image,caption\n" + "\n".join(many)))) < 400


def test_a_table_without_a_header_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "captions.txt", "".join(f"{row}.jpg\ta picture\n" for row in range(N)))
    assert "begins with a sample ('0.jpg') and names no columns" in refusal(path)
    path = write(tmp_path / "m.tsv", "".join(f"a picture\thttps://example.org/{row}?x=1\n" for row in range(N)))
    assert "begins with a sample ('https://example.org/0?x=1') and names no columns" in refusal(path)
    path = write(tmp_path / "m.csv", "".join(f"{row},a picture\n" for row in range(N)))
    assert "where its first line is a sample already, add a line with names above it" in refusal(path, {})


# --- rows and columns ----------------------------------------------------------------------------------------------


def test_rows_with_one_medium_are_captions_of_one_sample(tmp_path: Path) -> None:
    lines = [f"{row}.png,caption {k} of {row}" for row in range(3) for k in range(5)]
    samples = read_samples(write(tmp_path / "m.csv", "image,caption\n" + "\n".join(lines)), COLUMNS)
    assert samples.ids == ("0",) * 5 + ("5",) * 5 + ("10",) * 5
    assert samples.caption == (0, 1, 2, 3, 4) * 3
    repeated = [f"{row}.png,the same" for row in (0, 0, 1)]  # a copy of a row is no further caption
    samples = read_samples(write(tmp_path / "m.csv", "image,caption\n" + "\n".join(repeated)), COLUMNS)
    assert (samples.ids, samples.caption) == (("0", "1", "2"), ())


def test_ids_of_images_repeat_and_ids_of_captions_do_not(tmp_path: Path) -> None:
    text = "id,image,caption\n7,a.png,x\n8,b.png,z\n7,a.png,y\n"
    samples = read_samples(write(tmp_path / "m.csv", text), COLUMNS)
    assert (samples.ids, samples.caption) == (("7", "8", "7"), (0, 0, 1))
    text = "id,image,caption\n1,a.png,x\n2,b.png,z\n3,a.png,y\n"
    samples = read_samples(write(tmp_path / "m.csv", text), COLUMNS)
    assert samples.ids == ("1", "2", "3")
    assert samples.groups[0] == samples.groups[2] != ""
    assert samples.groups[1] == ""


def test_of_rows_with_ids_the_same_medium_with_the_same_text_is_a_copy(tmp_path):
    rows = ["id,image,caption", "a,0.png,a dress", "b,1.png,a hat", "c,0.png,a red dress", "d,0.png,a dress"]
    samples = read_samples(write(tmp_path / "m.csv", "\n".join(rows)), COLUMNS)
    assert samples.ids == ("a", "b", "c", "d")
    assert samples.groups[0] == samples.groups[2] != ""
    assert samples.groups[1] == samples.groups[3] == ""


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("image,caption", {"image": "image", "text": "caption"}),
        ("filename,sentence,split", {"image": "filename", "text": "sentence", "split": "split"}),
        ("path,label", {"image": "path", "text": "label", "label": "label"}),
        ("img_path,text,class", {"image": "img_path", "text": "text", "label": "class"}),
    ],
)
def test_columns_with_the_usual_names_need_not_be_named(tmp_path: Path, header: str, taken: dict[str, str]) -> None:
    count = header.count(",") + 1
    path = write(
        tmp_path / "m.csv", header + "\n" + "".join(",".join([f"{r}.png", *"xy"][:count]) + "\n" for r in "ab")
    )
    samples = read_samples(path)
    assert dict(samples.columns).items() >= {k: v for k, v in taken.items() if k in ("image", "text")}.items()
    assert str(taken["text"]) in samples.notes[0]


def test_nothing_is_guessed_between_two(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", "image,caption,text\na.png,x,y\n")
    assert "'caption' and 'text' could each be the text; name one: --text caption" in refusal(path, {})
    assert read_samples(path, {"text": "text"}).media["text"] == ("y",)


def test_paths_as_other_programs_write_them(tmp_path: Path) -> None:
    composed, apart = unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")
    write(tmp_path / composed, png(0))
    write(tmp_path / "a b.png", png(1))
    rows = [apart, f"file://{tmp_path}/a%20b.png", f"file://{tmp_path}/none.png"]
    path = write(tmp_path / "m.csv", "image,caption\n" + "".join(f"{cell},x\n" for cell in rows))
    samples = read_samples(path, COLUMNS)
    assert samples.media["image"] == tuple(str(tmp_path / name) for name in (composed, "a b.png", "none.png"))


# --- JSON ----------------------------------------------------------------------------------------------------------

ROWS = [{"id": str(row), "image": f"{row}.png", "caption": f"picture {row}"} for row in range(N)]


def json_lines() -> str:
    return "\n".join(json.dumps(row) for row in ROWS)


DOCUMENTS: dict[str, Any] = {
    "list": ROWS,
    "records under a name": {"version": 2, "data": ROWS},
    "pandas columns": {name: {str(at): row[name] for at, row in enumerate(ROWS)} for name in ROWS[0]},
    "pandas lists": {name: [row[name] for row in ROWS] for name in ROWS[0]},
    "pandas split": {"columns": list(ROWS[0]), "index": list(range(N)), "data": [list(row.values()) for row in ROWS]},
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_json_documents_read_as_lines_do(tmp_path: Path, kind: str, indent: int | None) -> None:
    lines = read_samples(write(tmp_path / "lines.jsonl", json_lines()), COLUMNS)
    samples = read_samples(write(tmp_path / "m.json", json.dumps(DOCUMENTS[kind], indent=indent)), COLUMNS)
    assert (samples.ids, samples.media) == (lines.ids, lines.media)


@pytest.mark.parametrize("names", [("from", "value", "human", "gpt"), ("role", "content", "user", "assistant")])
def test_what_the_model_says_is_the_text_of_a_conversation(tmp_path: Path, names: tuple[str, ...]) -> None:
    speaker, said, person, model = names
    turns = [{speaker: person, said: "<image>\nDescribe."}, {speaker: model, said: "a cat"}]
    more = [*turns, {speaker: person, said: "Where?"}, {speaker: model, said: "on a mat"}]
    rows = [{"image": ["a.png"], "conversations": turns}, {"image": "b.png", "conversations": more}]
    samples = read_samples(write(tmp_path / "m.json", json.dumps(rows)), {"image": "image", "text": "conversations"})
    assert samples.media["text"] == ("a cat", "a cat\non a mat")
    assert samples.media["image"] == (str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    assert "conversations: 2" in samples.notes
    table = pa.table({"image": ["a.png", "b.png"], "conversations": [turns, more]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert read_samples(tmp_path / "m.parquet", {"image": "image", "text": "conversations"}).media["text"][1] == (
        "a cat\non a mat"
    )


def test_lists_that_are_written_as_text_are_lists(tmp_path: Path) -> None:
    out = io.StringIO()
    rows = [("image", "caption"), *((f"{row}.png", json.dumps(["one", f"two {row}"])) for row in range(3))]
    csv.writer(out).writerows(rows)
    samples = read_samples(write(tmp_path / "m.csv", out.getvalue()), COLUMNS)
    assert samples.media["text"] == ("one", "two 0", "one", "two 1", "one", "two 2")
    assert "lists written as text: 3" in samples.notes
    samples = read_samples(write(tmp_path / "m.csv", 'image,caption\na.png,[not JSON]\nb.png,"[1, 2]"\n'), COLUMNS)
    assert samples.media["text"] == ("[not JSON]", "[1, 2]")


# --- Parquet and Arrow ---------------------------------------------------------------------------------------------

BYTES = [png(row) for row in range(N)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CELLS = {
    "structs": pa.array([{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(BYTES)], STRUCT),
    "bytes": pa.array(BYTES),
    "large bytes": pa.array(BYTES, pa.large_binary()),
    "base64": pa.array([base64.b64encode(data * 9).decode() for data in BYTES]),
    "data addresses": pa.array([f"data:image/png;base64,{base64.b64encode(data * 9).decode()}" for data in BYTES]),
    "lists of one": pa.array([[data] for data in BYTES]),
    "lists of one struct": pa.array([[{"bytes": data, "path": "x.png"}] for data in BYTES], pa.list_(STRUCT)),
    "dictionary": pa.array(BYTES).dictionary_encode(),
}


def write_arrow(path: Path, data: pa.Table) -> None:
    if path.suffix == ".parquet":
        pq.write_table(data, path, row_group_size=5)
    else:
        new = pyarrow.ipc.new_file if path.suffix == ".feather" else pyarrow.ipc.new_stream
        with new(path, data.schema) as out:
            out.write_table(data, max_chunksize=5)


@pytest.mark.parametrize("name", ["m.parquet", "m.arrow", "m.feather"])
@pytest.mark.parametrize("kind", CELLS)
def test_media_inside_of_tables_are_read_in_place(tmp_path: Path, kind: str, name: str) -> None:
    captions = pa.array([f"picture {row}" for row in range(N)], pa.large_string())
    write_arrow(tmp_path / name, pa.table({"other": [b"\0"] * N, "image": CELLS[kind], "caption": captions}))
    samples = read_samples(tmp_path / name, COLUMNS)
    assert samples.problems == {}
    assert samples.media["text"][5] == "picture 5"
    wanted = [data * 9 for data in BYTES] if kind in ("base64", "data addresses") else BYTES
    for row in (*range(N), 3, 11, 0, 7):  # forward, and back
        with open_medium(samples.media["image"][row] or "") as file:
            assert file.read() == wanted[row]
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.parametrize("name", ["m.parquet", "m.arrow"])
def test_rows_of_structs_without_bytes_are_paths_or_missing(tmp_path: Path, name: str) -> None:
    cells = [{"bytes": BYTES[0], "path": None}, {"bytes": None, "path": "a.png"}, None, {"bytes": None, "path": None}]
    write_arrow(tmp_path / name, pa.table({"image": pa.array(cells, STRUCT), "caption": list("wxyz")}))
    inside, path, *missing = read_samples(tmp_path / name, COLUMNS).media["image"]
    assert "::" in (inside or "")
    assert path == str(tmp_path / "a.png")
    assert missing == [None, None]


def test_classes_of_hugging_face_are_named(tmp_path: Path) -> None:
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    data = pa.table({"image": BYTES[:3], "label": [1, 0, None]})
    data = data.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(data, tmp_path / "train-00000-of-00001.parquet")
    samples = read_samples(tmp_path / "train-00000-of-00001.parquet")
    assert samples.media["text"] == ("dog", "cat", None)
    assert samples.columns == {"image": "image", "text": "label"}


def test_folders_and_patterns_of_tables(tmp_path: Path) -> None:
    for part in range(2):
        rows = range(part, N, 2)
        data = pa.table({"image": [f"../{row}.png" for row in rows], "caption": [f"picture {row}" for row in rows]})
        (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(data, tmp_path / "set" / "data" / f"train-{part:05d}-of-00002.parquet")
    for place in ("set", "set/data", "set/data/train-*.parquet", "set/data/train-{00000..00001}-of-00002.parquet"):
        samples = read_samples(tmp_path / place, COLUMNS)
        assert len(set(samples.ids)) == N
        assert samples.media["image"][0] == str(tmp_path / "set" / "0.png")
        assert samples.notes[0].startswith("read as 2 files of Parquet")


def test_a_dataset_that_was_saved_to_the_disk(tmp_path: Path) -> None:
    for split, rows in (("train", range(8)), ("test", range(8, N))):
        folder = tmp_path / "saved" / split
        folder.mkdir(parents=True)
        cells = pa.array([{"bytes": BYTES[row], "path": None} for row in rows], STRUCT)
        write_arrow(
            folder / "data-00000-of-00001.arrow", pa.table({"image": cells, "text": [str(row) for row in rows]})
        )
        write(folder / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    write(tmp_path / "saved" / "dataset_dict.json", json.dumps({"splits": ["train", "test"]}))
    samples = read_samples(tmp_path / "saved")
    assert samples.splits == ("train",) * 8 + ("test",) * 4
    with open_medium(samples.media["image"][9] or "") as file:
        assert file.read() == BYTES[9]
    assert len(read_samples(tmp_path / "saved" / "test")) == 4
    for name in ("../train/data-00000-of-00001.arrow", "/etc/passwd", "..", ""):
        write(tmp_path / "saved" / "test" / "state.json", json.dumps({"_data_files": [{"filename": name}]}))
        assert "does not lie in it" in refusal(tmp_path / "saved" / "test")


# --- shards --------------------------------------------------------------------------------------------------------


def pack(path: Path, members: list[tuple[str, bytes | str]]) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, data in members:
            info, raw = tarfile.TarInfo(name), data.encode() if isinstance(data, str) else data
            info.size = len(raw)
            shard.addfile(info, io.BytesIO(raw))
    return path


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("s{}.input.png", "s{}.outputs.txt"), {"image": "image", "text": "text"}),
        (("s{}.input.png", "s{}.outputs.txt"), {"image": "input.png", "text": "outputs.txt"}),
        (("photo 2.0 (v{}).png", "photo 2.0 (v{}).txt"), {"image": "image", "text": "text"}),
        (("v1.{}.x.png", "v1.{}.x.txt"), {"image": "image", "text": "text"}),
        (("a/b.c/{}.png", "a/b.c/{}.cls"), {"image": "image", "text": "cls"}),
    ],
)
def test_members_may_be_named_in_any_way(tmp_path: Path, names: tuple[str, str], columns: dict[str, str]) -> None:
    members = [
        (name.format(row), data)
        for row in range(N)
        for name, data in zip(names, (BYTES[row], f"\ufeff{row}"), strict=True)
    ]
    samples = read_samples(pack(tmp_path / "s.tar", members), columns)
    assert samples.media["text"] == tuple(map(str, range(N)))  # without the byte order mark
    with open_medium(samples.media["image"][4] or "") as file:
        assert file.read() == BYTES[4]
    assert samples.problems == {}


def test_two_images_of_a_key_are_named_by_their_suffix(tmp_path: Path) -> None:
    members = [(f"{row}.{e}", d) for row in range(N) for e, d in (("png", BYTES[row]), ("jpg", b"x"), ("txt", "t"))]
    path = pack(tmp_path / "two.tar", members)
    assert "two members are its image; name one: jpg or png" in refusal(path, {"image": "image", "text": "text"})
    samples = read_samples(path, {"image": "png", "text": "text"})
    with open_medium(samples.media["image"][2] or "") as file:
        assert file.read() == BYTES[2]


def test_what_a_shard_holds_is_listed_where_nothing_fits(tmp_path: Path) -> None:
    path = pack(tmp_path / "s.tar", [(f"{row}.{e}", "x") for row in range(N) for e in ("npy", "meta")])
    assert "12 .npy, 12 .meta" in refusal(path, {"image": "image", "text": "text"})


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz"])
def test_packed_shards_say_that_unpacking_is_enough(tmp_path: Path, name: str) -> None:
    assert f"unpack it first: gunzip -k {name}" in refusal(write(tmp_path / name, gzip.compress(b"x" * 600)))


# --- what is no source ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.parquet", "m.arrow", "m.json", "m.csv.gz", "s.tar", "m.feather", "m.csv.zst"])
@pytest.mark.parametrize("content", [b"", b"\0" * 700, b"PK\3\4" * 300, b"image,caption\n"])
def test_another_format_under_an_ending_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    assert name in refusal(write(tmp_path / name, content))


def test_two_formats_in_a_folder_are_asked_about(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", table(","))
    write(tmp_path / "b.jsonl", json_lines())
    assert "say which: --format" in refusal(tmp_path)
    assert len(read_samples(tmp_path, COLUMNS, format="csv")) == N
    assert "format 'cvs' is not known" in refusal(tmp_path, format="cvs")


def test_a_column_split_is_taken_where_no_columns_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", "image,caption,split\na.png,x,train\nb.png,y,test\n")
    samples = read_samples(path)
    assert samples.splits == ("train", "test")
    assert "splits from 'split'" in samples.notes[0]
    assert read_samples(path, COLUMNS).splits == ()
