"""What people have beside the common formats: odd dialects, layouts of JSON, endings that do not fit, and splits."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from audit_plugin.arrays import Samples
from audit_plugin.audit.export import ManifestSource, ScoreTable, export_rows
from audit_plugin.audit.reading_notes import unread_notes
from audit_plugin.inputs.files import open_medium
from audit_plugin.inputs.samples import read_samples
from tests.test_readers import BYTES, STRUCT, N, pack, png, refusal, write

NAMES = [f"{row}.png" for row in range(N)]
TEXTS = [f"picture {row}, of many" for row in range(N)]
ROWS = [{"image": name, "caption": text} for name, text in zip(NAMES, TEXTS, strict=True)]


def table(mark: str = ",", head: str = "image,caption", texts: list[str] | None = None) -> str:
    rows = [head.split(","), *([name, f'"{text}"'] for name, text in zip(NAMES, texts or TEXTS, strict=True))]
    return "".join(mark.join(cells) + "\n" for cells in rows)


def is_read(samples: Samples, folder: Path) -> bool:
    """Whether all rows were read as they are."""
    paths = tuple(str(folder / name) for name in NAMES)
    return (samples.media["image"], samples.media["text"], samples.problems) == (paths, tuple(TEXTS), {})


# --- CSV -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\r\n" + table(";").replace("\n", "\r\n"),
        "sep=,\n" + table(),
        "# made by hand\n# in two lines, with commas, and more\n" + table(),
        table(", "),
        table(",", " Image Path ,Caption "),
        table(",", "file-name,Sentence"),
    ],
)
def test_what_programs_add_to_tables_is_read(tmp_path: Path, content: str) -> None:
    assert is_read(read_samples(write(tmp_path / "m.csv", content)), tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.json"])
def test_wide_encodings_need_no_byte_order_mark(tmp_path: Path, name: str, encoding: str) -> None:
    text = {"csv": table(), "jsonl": "\n".join(map(json.dumps, ROWS)), "json": json.dumps(ROWS)}[name.split(".")[1]]
    assert is_read(read_samples(write(tmp_path / name, text.encode(encoding))), tmp_path)


@pytest.mark.parametrize("encoding", ["gbk", "cp1251", "euc-kr"])
def test_other_encodings_are_not_taken_for_western_ones(tmp_path: Path, encoding: str) -> None:
    word = {"gbk": "红色方块", "cp1251": "красный", "euc-kr": "빨간 사각형"}[encoding]
    message = refusal(write(tmp_path / "m.csv", table(texts=[word] * N).encode(encoding)))
    assert message.endswith("save it as UTF-8")
    assert "Windows" not in message


def test_lines_of_flickr_need_no_header(tmp_path: Path) -> None:
    for name in ("results.token", "Flickr8k.token.txt"):
        lines = "".join(f"{row}.jpg#{k}\t{text} {k}\n" for row, text in enumerate(TEXTS) for k in range(2))
        samples = read_samples(write(tmp_path / name, lines))
        assert samples.media["image"][:3] == (str(tmp_path / "0.jpg"),) * 2 + (str(tmp_path / "1.jpg"),)
        assert samples.media["text"][:2] == (f"{TEXTS[0]} 0", f"{TEXTS[0]} 1")
        assert samples.caption == (0, 1) * N


def test_one_bad_quote_takes_the_quotes_from_no_other_row(tmp_path: Path) -> None:
    lines = table("\t").splitlines()
    lines[5] = '4.png\t"never closed'
    samples = read_samples(write(tmp_path / "m.tsv", "\n".join(lines)))
    assert list(samples.problems) == [4]
    assert samples.media["text"][3] == TEXTS[3]
    words = "image,caption\n" + "".join(f'{name},"red" square\n' for name in NAMES)
    assert read_samples(write(tmp_path / "m.csv", words)).media["text"] == ('"red" square',) * N


@pytest.mark.parametrize(
    "print_list",
    [str, json.dumps, lambda texts: str(np.array(texts)), lambda texts: "[" + ",\n ".join(map(repr, texts)) + "]"],
)
def test_printed_lists_are_lists(tmp_path: Path, print_list: Any) -> None:
    texts = [print_list([f"one {row}", f'it\'s "two" {row}']).replace('"', '""') for row in range(N)]
    samples = read_samples(write(tmp_path / "m.csv", table(texts=texts)))
    assert samples.media["text"][:3] == ("one 0", 'it\'s "two" 0', "one 1")
    assert f"lists written as text: {N}" in samples.notes


@pytest.mark.parametrize(
    "text", ["['a', b]", "['a' + 'b']", "[f'a']", "['a'", "['a']]", "[]", "[x for x in 'a']", "['a\\']"]
)
def test_what_is_no_list_stays_a_text(tmp_path: Path, text: str) -> None:
    assert read_samples(write(tmp_path / "m.csv", table(texts=[text] * N))).media["text"] == (text,) * N


@pytest.mark.parametrize("print_turns", [str, json.dumps])
def test_printed_conversations_and_paths_are_read(tmp_path: Path, print_turns: Any) -> None:
    turns = [{"from": "human", "value": '<image>\n"What" is it?'}, {"from": "gpt", "value": "it's a cat"}]
    frame = pd.DataFrame({"image": [print_turns({"path": name, "bytes": None}) for name in NAMES]})
    frame["conversation"] = print_turns(turns)
    frame.to_csv(tmp_path / "m.csv", index=False)
    samples = read_samples(tmp_path / "m.csv")
    assert samples.media["text"] == ("it's a cat",) * N
    assert samples.media["image"][1] == str(tmp_path / "1.png")


def test_captions_that_are_objects_of_json_are_told(tmp_path: Path) -> None:
    text = json.dumps({"en": "a cat"})
    pd.DataFrame({"image": NAMES, "caption": text}).to_csv(tmp_path / "m.csv", index=False)
    samples = read_samples(tmp_path / "m.csv")
    assert samples.media["text"] == (text,) * N
    assert f"captions that are objects of JSON, read as they are written: {N}" in samples.notes


def test_escapes_of_json_are_those_of_json(tmp_path: Path) -> None:
    pd.DataFrame({"image": NAMES, "caption": r'["a\/b", "\u00e9"]'}).to_csv(tmp_path / "m.csv", index=False)
    assert read_samples(tmp_path / "m.csv").media["text"][:2] == ("a/b", "é")


def test_separators_of_windows_and_escaped_blanks(tmp_path: Path) -> None:
    write(tmp_path / "img" / "a b.png", png(0))
    write(tmp_path / "img" / "c\\d.png", png(0))
    cells = ["img\\a b.png", ".\\img\\a b.png", "img/a%20b.png", "img/c\\d.png", "img\\none.png"]
    samples = read_samples(write(tmp_path / "m.csv", "image,caption\n" + "".join(f"{cell},x\n" for cell in cells)))
    inside = str(tmp_path / "img" / "a b.png")
    assert samples.media["image"][:4] == (*[inside] * 3, str(tmp_path / "img" / "c\\d.png"))
    assert samples.media["image"][4] == str(tmp_path / "img\\none.png")
    write(tmp_path / "m.csv", "image,caption\n" + "..%2f..%2fetc/passwd,x\n" + "..\\..\\etc\\passwd,x\n" * 8)
    outside = read_samples(tmp_path / "m.csv", media_root=tmp_path / "img").problems
    assert ["outside" in reason for reason in outside.values()] == [True] * 9


# --- which column is what ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "modality"), [("wav", "audio"), ("mp3", "audio"), ("mp4", "video"), ("jpg", "image")]
)
@pytest.mark.parametrize("column", ["path", "File Name", "filename"])
def test_the_endings_of_files_say_what_a_path_is(tmp_path: Path, column: str, ending: str, modality: str) -> None:
    lines = f"{column}\tsentence\n" + "".join(f"{row}.{ending}\thello\n" for row in range(N))
    samples = read_samples(write(tmp_path / "m.tsv", lines))
    assert dict(samples.columns) == {modality: column, "text": "sentence"}


def test_a_column_with_media_goes_before_one_with_their_names(tmp_path: Path) -> None:
    images = pa.array([{"bytes": data, "path": None} for data in BYTES], STRUCT)
    pq.write_table(pa.table({"image": images, "caption": TEXTS, "filename": NAMES}), tmp_path / "m.parquet")
    assert read_samples(tmp_path / "m.parquet").columns["image"] == "image"
    path = write(tmp_path / "m.csv", "image,filename,caption\na.png,b.png,x\n")
    assert "'image' and 'filename' could each be the image" in refusal(path, {})


def test_a_folder_with_metadata_of_sounds_has_no_images(tmp_path: Path) -> None:
    write(tmp_path / "metadata.csv", "file_name,transcription\n" + "".join(f"{row}.wav,hello\n" for row in range(N)))
    samples = read_samples(tmp_path)
    assert dict(samples.columns) == {"audio": "file_name", "text": "transcription"}


def test_many_lines_of_json_are_known_by_the_first_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", "".join(json.dumps(ROWS[0]) + ",\n" for _ in range(300)))
    assert len(read_samples(path)) == 300
    message = refusal(write(tmp_path / "m.jsonl", '{"image": "a.png", "caption": 1\n' * 100_000), {})
    assert "none of the first 100 rows can be read: 100 times such as" in message
    assert len(message) < 300


def test_rows_of_which_none_can_be_used_are_refused_at_once(tmp_path: Path) -> None:
    rows = [{**row, "image": f"https://example.org/{row['image']}"} for row in ROWS]
    samples = read_samples(write(tmp_path / "m.json", json.dumps(rows)))  # by their place: each has its own reason
    assert ["holds a URL" in reason for reason in samples.problems.values()] == [True] * N
    rows = [{**row, "caption": {"en": "x", "de": "y"}} for row in ROWS]
    message = refusal(write(tmp_path / "m.json", json.dumps(rows)))
    assert f"none of its {N} rows can be used: {N} times such as" in message
    assert "'caption' holds an object with 'en', 'de', not text" in message
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    assert "holds an object with 'en', 'de', not text" in refusal(tmp_path / "m.parquet")


# --- JSON ----------------------------------------------------------------------------------------------------------


FRAME = pd.DataFrame(ROWS)


@pytest.mark.parametrize("index", [list(range(N)), [f"r{row}" for row in range(N)]])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("orient", ["split", "records", "index", "columns", "table"])
def test_all_layouts_of_pandas(tmp_path: Path, orient: Any, indent: int | None, index: list[Any]) -> None:
    text = FRAME.set_index(pd.Index(index)).to_json(orient=orient, indent=indent)
    samples = read_samples(write(tmp_path / "m.json", str(text)))
    assert is_read(samples, tmp_path)
    if orient == "index" and index[0] == "r0":
        assert samples.ids == tuple(index)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([list(row.values()) for row in ROWS], "is a list of lists without names; write a list of objects"),
        (NAMES, "is a list of texts without names"),
        ([], "holds no rows"),
        ({"a": {"x": "1", "y": "2"}, "b": {"x": "3", "y": "4"}}, "may be rows or columns"),
        (
            {"cats": ROWS, "dogs": ROWS},
            "holds lists of objects under 'cats' and 'dogs'; write the one with the samples",
        ),
        ({"image": {"0": "a.png"}, "caption": ["x"]}, "lists and objects at once|rows that are known"),
    ],
)
def test_documents_without_clear_rows_say_why(tmp_path: Path, document: object, reason: str) -> None:
    message = refusal(write(tmp_path / "m.json", json.dumps(document, indent=1)), {})
    assert any(part in message for part in reason.split("|"))


@pytest.mark.parametrize("name", ["annotations", "results", "images", "anything"])
def test_rows_under_a_name(tmp_path: Path, name: str) -> None:
    document = {"info": {"version": 1}, name: ROWS}
    assert is_read(read_samples(write(tmp_path / "m.json", json.dumps(document, indent=1))), tmp_path)


@pytest.mark.parametrize("indent", [None, 1])
def test_lists_of_splits_are_all_read(tmp_path: Path, indent: int | None) -> None:
    document = {"train": ROWS[:6], "val": ROWS[6:9], "test": ROWS[9:]}
    samples = read_samples(write(tmp_path / "m.json", json.dumps(document, indent=indent)))
    assert is_read(samples, tmp_path)
    assert samples.splits == ("train",) * 6 + ("val",) * 3 + ("test",) * 3


@pytest.mark.parametrize(
    "values", [TEXTS, [[text] for text in TEXTS], [{"caption": text, "tags": "x"} for text in TEXTS]]
)
def test_files_may_be_the_keys(tmp_path: Path, values: list[Any]) -> None:
    document = dict(zip(NAMES, values, strict=True))
    assert is_read(read_samples(write(tmp_path / "m.json", json.dumps(document))), tmp_path)


def test_karpathy_splits(tmp_path: Path) -> None:
    images = [
        {
            "filepath": "val2014",
            "filename": name,
            "split": "test" if row % 2 else "restval",
            "sentences": [{"raw": f"{TEXTS[row]} {k}", "tokens": ["a"]} for k in range(2)],
        }
        for row, name in enumerate(NAMES)
    ]
    samples = read_samples(write(tmp_path / "dataset_coco.json", json.dumps({"images": images, "dataset": "coco"})))
    assert samples.media["image"][2] == str(tmp_path / "val2014" / "1.png")
    assert samples.media["text"][2:4] == (f"{TEXTS[1]} 0", f"{TEXTS[1]} 1")
    assert samples.splits[:3] == ("restval", "restval", "test")


TURNS: list[Any] = [
    [{"user": "What?", "assistant": "a cat", "source": "x"}],
    [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
    ],
]


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("name", ["m.jsonl", "m.parquet"])
def test_conversations_of_other_programs(tmp_path: Path, turns: list[Any], name: str) -> None:
    rows = [{"image": name, "texts": turns} for name in NAMES]
    if name == "m.jsonl":
        write(tmp_path / name, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    assert read_samples(tmp_path / name).media["text"] == ("a cat",) * N


def test_a_conversation_in_which_nothing_is_said_has_no_text(tmp_path: Path) -> None:
    rows = [{"image": name, "conversations": [{"from": "human", "value": "What?"}]} for name in NAMES]
    samples = read_samples(write(tmp_path / "m.json", json.dumps(rows)))
    assert (samples.media["text"], samples.problems) == ((None,) * N, {})


def test_a_folder_with_an_object_per_sample(tmp_path: Path) -> None:
    for name, row in zip(NAMES, ROWS, strict=True):
        write(tmp_path / f"{int(name[:-4]):02d}.json", json.dumps(row, indent=1))
    assert is_read(read_samples(tmp_path), tmp_path)


def test_fields_of_objects_are_no_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", json.dumps({"image": "a.png", "meta": {"caption": "x"}}))
    assert "fields of its objects are no columns" in refusal(path, {"image": "image", "text": "meta.caption"})


def test_lines_of_json_under_another_ending(tmp_path: Path) -> None:
    assert is_read(read_samples(write(tmp_path / "m.txt", "\n".join(map(json.dumps, ROWS)))), tmp_path)


def test_images_of_lvis_are_named_by_their_address(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 1, "coco_url": "http://x.org/val2017/1.png", "width": 8, "height": 8}],
        "annotations": [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 2, "name": "cat"}],
    }
    write(tmp_path / "val2017" / "1.png", png(0))
    path = write(tmp_path / "lvis.json", json.dumps(document))
    image = read_samples(path).media["image"][0]
    assert image is not None
    assert image.startswith(str(tmp_path / "val2017" / "1.png"))
    document["annotations"][0]["category_id"] = 3  # type: ignore[index]
    path = write(tmp_path / "lvis.json", json.dumps(document))
    assert read_samples(path).problems == {0: "category '3' is not among the 1 categories"}


# --- Parquet and Arrow ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([{"bytes": None, "path": name} for name in NAMES]),
        pa.array([{"path": name} for name in NAMES]),
        pa.array([[{"path": name, "width": 8}] for name in NAMES]),
    ],
)
@pytest.mark.parametrize("name", ["m.parquet", "m.arrow"])
def test_structs_without_bytes_are_paths(tmp_path: Path, cells: pa.Array, name: str) -> None:
    captions = pa.array([[text] for text in TEXTS], pa.list_(pa.string(), 1))  # of a fixed size
    data = pa.table({"image": cells, "caption": captions})
    if name == "m.parquet":
        pq.write_table(data, tmp_path / name)
    else:
        with pa.ipc.new_file(tmp_path / name, data.schema) as out:
            out.write_table(data)
    assert is_read(read_samples(tmp_path / name), tmp_path)


@pytest.mark.parametrize(
    "cells",
    [
        [f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in BYTES],
        [base64.b64encode(data).decode() for data in BYTES],
        [base64.b64encode(data) for data in BYTES],
    ],
)
def test_small_images_in_base64(tmp_path: Path, cells: list[Any]) -> None:
    pq.write_table(pa.table({"image": cells, "caption": TEXTS}), tmp_path / "m.parquet")
    samples = read_samples(tmp_path / "m.parquet")
    for row in (0, 5):
        with open_medium(samples.media["image"][row] or "") as file:
            assert file.read() == BYTES[row]


def test_base64_in_texts_says_what_to_do(tmp_path: Path) -> None:
    rows = [
        {"image": base64.b64encode(data).decode(), "caption": text} for data, text in zip(BYTES, TEXTS, strict=True)
    ]
    path = write(tmp_path / "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert "holds a medium in base64, not a path; write the table as Parquet" in refusal(path)


def test_several_media_in_a_cell_are_told(tmp_path: Path) -> None:
    one = {"bytes": BYTES[0], "path": None}
    images = pa.array([[one] * (2 if row in (3, 4) else 1) for row in range(N)], pa.list_(STRUCT))
    pq.write_table(pa.table({"images": images, "caption": TEXTS}), tmp_path / "m.parquet")
    samples = read_samples(tmp_path / "m.parquet")
    assert dict(samples.problems) == dict.fromkeys((3, 4), "column 'images' holds a list of 2 media, not a path")


def test_lists_of_classes_are_named(tmp_path: Path) -> None:
    feature = {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "Sequence"}
    data = pa.table({"image": BYTES[:2], "labels": [[0, 1], [1]]})
    meta = {"huggingface": json.dumps({"info": {"features": {"labels": feature}}})}
    pq.write_table(data.replace_schema_metadata(meta), tmp_path / "m.parquet")
    assert read_samples(tmp_path / "m.parquet").media["text"] == ("cat", "dog", "dog")


def test_tables_with_media_inside_need_the_ending_of_their_format(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": BYTES, "caption": TEXTS}), tmp_path / "part-0")
    assert "rename it to part-0.parquet" in refusal(tmp_path / "part-0")
    pq.write_table(pa.table({"image": NAMES, "caption": TEXTS}), tmp_path / "part-1.arrow")
    assert is_read(read_samples(tmp_path / "part-1.arrow"), tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("data/test-00000-of-00001-1a2b.parquet", "data/train-00000-of-00001.parquet"),
        ("test.parquet", "train.parquet"),
        ("test/0000.parquet", "train/0000.parquet"),
        ("test.csv", "train.csv"),
        ("test.jsonl.gz", "train.jsonl.gz"),
    ],
)
def test_files_of_splits_have_a_split(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, rows in zip(names, (ROWS[:4], ROWS[4:]), strict=True):
        frame, out = pd.DataFrame(rows), tmp_path / name
        out.parent.mkdir(exist_ok=True)
        if name.endswith(".parquet"):
            frame.to_parquet(out)
        elif name.endswith(".csv"):
            frame.to_csv(out, index=False)
        else:
            frame.to_json(out, orient="records", lines=True)
    write(tmp_path / "dataset_infos.json", "{}")
    samples = read_samples(tmp_path)
    assert samples.media["text"] == tuple(TEXTS)
    assert samples.splits == ("test",) * 4 + ("train",) * (N - 4)


def test_splits_of_parquet_keep_the_folder_of_their_media(tmp_path: Path) -> None:
    for name, rows in (("test.parquet", ROWS[:4]), ("train.parquet", ROWS[4:])):
        pd.DataFrame(rows).to_parquet(tmp_path / name)
    for name in NAMES:
        write(tmp_path / "images" / name, png(0))
    samples = read_samples(tmp_path)
    assert is_read(samples, tmp_path / "images")
    assert samples.splits == ("test",) * 4 + ("train",) * (N - 4)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_ids_that_each_split_counts_have_the_split_before_them(tmp_path: Path, ending: str) -> None:
    for name, rows in (("test", ROWS[:4]), ("train", ROWS[4:])):
        frame = pd.DataFrame({"id": range(len(rows)), **pd.DataFrame(rows).to_dict("list")})
        writers = {"csv": frame.to_csv, "jsonl": frame.to_json, "parquet": frame.to_parquet}
        more = {"csv": {"index": False}, "jsonl": {"orient": "records", "lines": True}, "parquet": {}}[ending]
        writers[ending](tmp_path / f"{name}.{ending}", **more)
    samples = read_samples(tmp_path)
    assert is_read(samples, tmp_path)
    assert (samples.ids[3], samples.ids[4]) == ("test/3", "train/0")
    for name in NAMES:
        picture(tmp_path / name)
    scores = ScoreTable(
        np.array(samples.ids, dtype=object), np.zeros(0), {"action": np.array(["remove"] + ["keep"] * (N - 1))}, {}, "s"
    )
    export_rows(
        scores, ManifestSource(tmp_path, {"image": "image", "text": "caption"}), tmp_path / "out.parquet", "parquet"
    )
    after = pd.read_parquet(tmp_path / "out.parquet")
    assert list(after["id"]) == list(samples.ids[1:])
    assert list(after["split"]) == list(samples.splits[1:])


def test_damaged_arrow_files_are_refused(tmp_path: Path) -> None:
    data = pa.table({"image": pa.array(NAMES), "caption": pa.array(TEXTS)})
    with pa.ipc.new_file(tmp_path / "m.arrow", data.schema) as out:
        out.write_table(data)
    offsets = bytes(pa.array(TEXTS).buffers()[1])[: 4 * N]
    whole = (tmp_path / "m.arrow").read_bytes()
    assert whole.count(offsets) == 1
    beyond = b"".join((1 << 30).to_bytes(4, "little") for _ in range(N))  # far out of the file
    write(tmp_path / "m.arrow", whole.replace(offsets, beyond))
    assert "m.arrow' cannot be read" in refusal(tmp_path / "m.arrow")


def test_names_of_columns_that_stand_twice(tmp_path: Path) -> None:
    columns = [pa.array(BYTES), pa.array(TEXTS), pa.array(TEXTS)]
    pq.write_table(pa.Table.from_arrays(columns, ["image", "caption", "caption"]), tmp_path / "m.parquet")
    assert "m.parquet has several columns named 'caption'; rename all but one" in refusal(tmp_path / "m.parquet")
    write(tmp_path / "m.parquet.gz", gzip.compress((tmp_path / "m.parquet").read_bytes()))
    assert "is compressed as a whole" in refusal(tmp_path / "m.parquet.gz")


def test_a_shard_without_the_column_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", table())
    write(tmp_path / "b.csv", "image,other\n0.png,x\n")
    assert refusal(tmp_path).startswith("b.csv has no column 'caption'")


def test_rows_that_were_selected_by_indices_are_not_read_in_the_order_of_the_table(tmp_path: Path) -> None:
    state = {"_data_files": [{"filename": "a.arrow"}], "_indices_data_files": [{"filename": "indices.arrow"}]}
    write(tmp_path / "state.json", json.dumps(state))
    assert "flatten_indices()" in refusal(tmp_path)


# --- shards --------------------------------------------------------------------------------------------------------


def members(*, with_json: bool = True) -> list[tuple[str, bytes | str]]:
    out: list[tuple[str, bytes | str]] = []
    for row in range(N):
        out += [(f"{row}.png", BYTES[row]), (f"{row}.txt", f"{TEXTS[row]}\r\n")]
        out += [(f"{row}.json", json.dumps({"caption": "other", "url": "x"}))] if with_json else []
    return out


def test_members_go_before_the_fields_of_their_json(tmp_path: Path) -> None:
    samples = read_samples(pack(tmp_path / "s.tar", members()))
    assert samples.media["text"] == tuple(TEXTS)
    assert samples.columns["text"] == "text"


def test_the_one_class_of_a_shard_is_its_label(tmp_path: Path) -> None:
    entries = [
        (f"{row}.{end}", cell) for row in range(N) for end, cell in (("input.png", BYTES[row]), ("target.cls", "3"))
    ]
    path = pack(tmp_path / "s.tar", entries)
    samples = read_samples(path)
    assert (samples.columns["label"], samples.labels, samples.media["text"]) == ("target.cls", ("3",) * N, ("3",) * N)


def test_two_images_of_each_key_are_asked_about_with_names_that_work(tmp_path: Path) -> None:
    path = pack(tmp_path / "s.tar", [(f"{row}.{e}", BYTES[row]) for row in range(N) for e in ("jpg", "png", "txt")])
    assert "'jpg' and 'png' could each be the image; name one: --image jpg" in refusal(path, {})


def test_two_fields_of_json_are_not_guessed_between(tmp_path: Path) -> None:
    fields = json.dumps({"caption": "one", "text": "two"})
    cells = [(("png", BYTES[row]), ("json", fields)) for row in range(N)]
    path = pack(tmp_path / "s.tar", [(f"{row}.{end}", cell) for row in range(N) for end, cell in cells[row]])
    assert "'caption' and 'text' could each be the text" in refusal(path, {})


def test_shards_of_other_programs(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", [])
    pack(tmp_path / "b.tar", [*members(with_json=False), *[(f"__MACOSX/{row}.png", "x") for row in range(N)]])
    assert len(read_samples(tmp_path)) == N
    assert "holds no samples" in refusal(tmp_path / "a.tar", {})
    whole = (tmp_path / "b.tar").read_bytes()
    end = whole.rstrip(b"\0")
    write(tmp_path / "cut.tar", end + b"\0" * (-len(end) % 512))
    assert "cut.tar has no end mark, and may be cut off" in read_samples(tmp_path / "cut.tar").notes
    for name in ("c.tar.gz", "d.tgz"):
        write(tmp_path / "packed" / name, gzip.compress(whole))
        assert "unpack it first: gunzip -k" in refusal(tmp_path / "packed")


# --- other kinds of files ------------------------------------------------------------------------------------------


def zipped(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(name, "x")
    return out.getvalue()


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("m.parquet", POINTER, "is a pointer of Git LFS in place of the file; fetch the file: git lfs pull"),
        ("m.csv", POINTER, "git lfs pull"),
        (
            "m.csv",
            "<!DOCTYPE html>\n<html>Sign in, please</html>",
            "is a web page (HTML), as a failed download leaves it; download the file again",
        ),
        ("m.csv", zipped("[Content_Types].xml"), "is a workbook of Excel; save it as CSV"),
        ("m.xlsx", zipped("xl/workbook.xml"), "is a workbook of Excel; save it as CSV"),
        ("m.csv.zip", zipped("m.csv"), "is a zip archive; unpack it first: unzip m.csv.zip"),
        ("m.csv.xz", b"\xfd7zXZ\0x", "unpack it first: xz -dk m.csv.xz"),
        (
            "m.csv",
            gzip.compress(b"image,caption\n", mtime=0),
            "is compressed by gzip, which its name does not say; rename it to",
        ),
        ("m.json", bz2.compress(b"[]"), "rename it to m.json.bz2"),
        ("m.db", b"SQLite format 3\0", "is an SQLite database; write its rows as CSV, JSON Lines or Parquet"),
        ("m.pkl", b"\x80\x04", "is a pickle, which may run code when it is read"),
        ("m.tfrecord", b"\x01\0\0", "is a TFRecord file; write its samples as WebDataset shards or Parquet"),
        ("m.h5", b"\x89HDF\r\n", "is an HDF5 file"),
    ],
)
@pytest.mark.parametrize("form", ["", "csv"])
def test_other_kinds_of_files_say_what_they_are(tmp_path: Path, name: str, content: Any, what: str, form: str) -> None:
    message = refusal(write(tmp_path / name, content), {}, format=form)
    assert message.startswith(f"{name} ")
    assert what in message
    assert len(message) < 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tables_of_other_formats_say_what_they_are(tmp_path: Path) -> None:
    data = pa.table({"image": NAMES, "caption": TEXTS})
    pyarrow.orc.write_table(data, tmp_path / "m.orc")
    assert "is an ORC table; write it as Parquet" in refusal(tmp_path / "m.orc")
    pyarrow.feather.write_feather(data, tmp_path / "m.feather", version=1)
    assert "is Feather of version 1" in refusal(tmp_path / "m.feather")


def test_words_that_formats_begin_with_may_begin_a_table(tmp_path: Path) -> None:
    for word in ("orc", "ORC", "BZh", "Rar", "FEA1"):
        path = write(tmp_path / "m.csv", f"{word},image,caption\n" + "".join(f"x,{name},y\n" for name in NAMES))
        assert len(read_samples(path)) == N


# --- folders -------------------------------------------------------------------------------------------------------


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def test_a_folder_around_the_only_folder_is_looked_into(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        picture(tmp_path / "archive" / "animals" / name)
    write(tmp_path / "archive" / "README.md", "x")
    samples = read_samples(tmp_path)
    assert samples.labels == ("cat", "dog")
    assert samples.media["image"][0] == str(tmp_path / "archive" / "animals" / "cat" / "1.png")
    picture(tmp_path / "archive" / "plants" / "1.png")
    (tmp_path / "archive" / "plants" / "1.png").unlink()
    assert "name a folder in it, such as 'animals' or 'plants'" in refusal(tmp_path)


def test_splits_without_classes_are_left_out(tmp_path: Path) -> None:
    for name in ("train/n1/images/1.png", "train/n2/images/2.png", "val/images/3.png", "test/images/4.png"):
        picture(tmp_path / name)  # as tiny ImageNet has them
    samples = read_samples(tmp_path)
    assert samples.labels == ("n1", "n2")
    assert "left out: 2 folders without folders of classes: test, val" in samples.notes


@pytest.mark.parametrize(("rows", "share"), [(1000, "0.1%"), (2000, "less than 0.1%")])
def test_a_share_that_is_not_zero_is_not_told_as_zero(rows: int, share: str) -> None:
    samples = Samples(tuple(map(str, range(rows))), {"text": ("x",) * rows})
    (note,) = unread_notes(samples, {0: "its box has no area"})
    assert note.startswith(f"1 of {rows:,} rows ({share}) could not be read")


@pytest.mark.parametrize(
    ("file", "named"), [("a.JPG", "a.jpg"), ("A.jpg", "a.JPG"), ("a.png", "a"), ("b.png", "a.png")]
)
def test_a_file_with_almost_the_name_is_told(tmp_path: Path, file: str, named: str) -> None:
    write(tmp_path / file, b"x")
    samples = Samples(("0", "1"), {"image": (str(tmp_path / named), None), "text": ("x", "y")})
    (_, note) = unread_notes(samples, {0: "image: file not found"})
    assert (f"({file!r} is there: write the names as the files have them)" in note) is (file != "b.png")
    assert repr(str(tmp_path / named)) in note


def test_images_beside_the_classes_are_told(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "3.png"):
        picture(tmp_path / name)
    assert "left out: 1 image file beside the folders of the classes" in read_samples(tmp_path).notes


@pytest.mark.parametrize("named", ["C:\\Users\\me\\a.png", "/home/me/a.png", "C:/me/a.png"])
def test_images_of_voc_whose_path_is_that_of_another_machine(tmp_path: Path, named: str) -> None:
    picture(tmp_path / "JPEGImages" / "a.png")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    xml = f"<annotation><filename>{named}</filename><object><name>cat</name>{box}</object></annotation>"
    write(tmp_path / "Annotations" / "a.xml", xml)
    samples = read_samples(tmp_path)
    assert samples.problems == {}
    assert (samples.media["image"][0] or "").startswith(str(tmp_path / "JPEGImages" / "a.png"))


# --- media beside texts, and by class --------------------------------------------------------------------------------


@pytest.mark.parametrize(("modality", "ending"), [("image", "png"), ("audio", "flac"), ("video", "avi")])
def test_media_of_each_modality_by_class_and_with_texts(tmp_path: Path, modality: str, ending: str) -> None:
    for row in range(N):
        write(tmp_path / "classes" / ("train", "test")[row % 2] / f"c{row % 3}" / f"{row:02d}.{ending}", b"x")
        write(tmp_path / "texts" / f"{row:02d}.{ending.upper()}", b"x")
        write(tmp_path / "texts" / f"{row:02d}.{('txt', 'TXT')[row % 2]}", f"{TEXTS[row]}\n")
    samples = read_samples(tmp_path / "classes")
    assert dict(samples.columns) == {modality: modality, "text": "label", "label": "label", "split": "split"}
    assert samples.labels[:3] == ("c1", "c1", "c2") or set(samples.labels) == {"c0", "c1", "c2"}
    assert len(samples) == N
    samples = read_samples(tmp_path / "texts")
    assert samples.media["text"] == tuple(TEXTS)
    assert samples.media[modality][3] == str(tmp_path / "texts" / f"03.{ending.upper()}")
    assert read_samples(tmp_path / "texts", format=f"{modality}-text").ids == samples.ids


def test_folders_of_two_modalities_are_asked_about(tmp_path: Path) -> None:
    for label in "ab":
        write(tmp_path / label / "1.wav", b"x")
        write(tmp_path / label / "1.png", b"x")
    assert "can be read as image-folder or as audio-folder" in refusal(tmp_path, {})


def test_captions_in_json_beside_images(tmp_path: Path) -> None:
    for row in range(N):
        picture(tmp_path / "img" / f"{row:02d}.png")
        write(tmp_path / "img" / f"{row:02d}.json", json.dumps({"caption": TEXTS[row], "width": 8}))
    write(tmp_path / "img" / "03.json", json.dumps({"caption": "one", "text": "two"}))
    write(tmp_path / "img" / "04.json", "{")
    write(tmp_path / "img" / "05.json", json.dumps({"width": 8}))
    samples = read_samples(tmp_path)
    assert samples.media["text"][:3] == tuple(TEXTS[:3])
    assert samples.media["text"][5:7] == (None, TEXTS[6])
    assert "holds different texts under 'caption' and 'text'" in samples.problems[3]
    assert "cannot be parsed as JSON" in samples.problems[4]


def test_two_texts_of_an_image_are_two_columns(tmp_path: Path) -> None:
    for row in range(N):
        picture(tmp_path / f"{row:02d}.png")
        write(tmp_path / f"{row:02d}.txt", "tag, other tag")
        write(tmp_path / f"{row:02d}.caption", TEXTS[row])
    assert "'txt' and 'caption' could each be the text; name one: --text txt" in refusal(tmp_path, {})
    assert read_samples(tmp_path, {"text": "caption"}).media["text"] == tuple(TEXTS)


def test_lists_of_librispeech(tmp_path: Path) -> None:
    for row in range(4):
        write(tmp_path / "84" / "7" / f"84-7-{row:04d}.flac", b"x")
    write(tmp_path / "84" / "7" / "84-7.trans.txt", "".join(f"84-7-{row:04d} HELLO {row}\n" for row in range(3)))
    samples = read_samples(tmp_path)
    assert samples.media["text"] == ("HELLO 0", "HELLO 1", "HELLO 2", None)


def test_media_alone_say_what_is_missing(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    assert "put a text beside each medium (a.txt beside a.jpg), or the media into folders of classes" in refusal(
        tmp_path
    )


@pytest.mark.parametrize(
    ("images", "labels", "classes"),
    [
        ("images", "labels", "classes.txt"),
        ("images", "labels", "labels/classes.txt"),
        (".", ".", "classes.txt"),
        ("obj_train_data", "obj_train_data", "obj.names"),
    ],
)
def test_boxes_of_yolo_with_a_list_of_classes(tmp_path: Path, images: str, labels: str, classes: str) -> None:
    for row in range(N):
        picture(tmp_path / images / f"{row:02d}.png")
        write(tmp_path / labels / f"{row:02d}.txt", f"{row % 2} 0.5 0.5 0.5 0.5\n")
    assert "classes.txt" in refusal(tmp_path) or images != "images"
    write(tmp_path / classes, "cat\ndog\n")
    write(tmp_path / "notes.json", "{}")
    samples = read_samples(tmp_path)
    assert samples.labels == ("cat", "dog") * (N // 2)
    assert samples.problems == {}
    write(tmp_path / labels / "03.txt", "2 0.5 0.5 0.5 0.5\n")
    assert "class 2 is not among the 2 names" in read_samples(tmp_path).problems[3]
