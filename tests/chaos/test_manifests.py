"""Hostile manifests: each case has good rows beside the bad one, and private files that nothing may read."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audit_plugin.arrays import Samples
from audit_plugin.inputs.files import member_of
from audit_plugin.inputs.samples import read_samples

from .conftest import Chaos
from .hostile_files import Counts, holds_private_pixels, png, private_folder

COLUMNS = {"image": "image", "text": "caption"}
GOOD = [{"id": f"g{row}", "image": f"{row}.png", "caption": f"a green square, number {row}"} for row in range(3)]


def lines(folder: Path, *bad: str | dict[str, Any]) -> Path:
    """JSONL with good rows and these between them."""
    texts = [json.dumps(row) for row in GOOD]
    rows = [row if isinstance(row, str) else json.dumps(row) for row in bad]
    path = folder / "m.jsonl"
    path.write_text("\n".join([*texts[:2], *rows, *texts[2:]]) + "\n", encoding="utf-8", errors="surrogatepass")
    return path


def bad_path(value: Callable[[Path], object]) -> Callable[[Path, Path], Path]:
    return lambda folder, private: lines(folder, {"id": "b", "image": value(private), "caption": "bad"})


def bad_text(value: object) -> Callable[[Path, Path], Path]:
    return lambda folder, _: lines(folder, {"id": "b", "image": "0.png", "caption": value})


def csv_text(*bad: str, head: str = "id,image,caption", tail: str = "") -> str:
    rows = [",".join(row.values()).replace("square, ", "square ") + tail for row in GOOD]
    return "\n".join([head, *rows[:2], *bad, *rows[2:]]) + "\n"


def table(text: str | bytes, name: str = "m.csv") -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        path = folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def parquet(**columns: Any) -> Callable[[Path, Path], Path]:
    """A Parquet file with these columns, and else those of good rows."""

    def make(folder: Path, _: Path) -> Path:
        n = len(next(iter(columns.values())))
        good = {name: [row[name] for row in GOOD] + [None] * (n - 3) for name in GOOD[0]}
        good["id"] = [row["id"] for row in GOOD] + [f"b{row}" for row in range(3, n)]
        pq.write_table(pa.table({**good, **columns}), folder / "m.parquet")
        return folder / "m.parquet"

    return make


SURE = [row["image"] for row in GOOD]
SAID = [row["caption"] for row in GOOD]
CASES: dict[str, tuple[Callable[[Path, Path], Path], Sequence[str], str]] = {
    # name -> (file from folder and private folder, reasons of rows, or a part of the sentence with which it is refused)
    "null in a path": (bad_path(lambda _: "0.png\0,0,0,1,1"), ["null character"], ""),
    "line feed in a path": (bad_path(lambda _: "0\n.png"), ["not found"], ""),
    "file URL": (bad_path(lambda private: f"file://{private}/secret.png"), ["outside of"], ""),
    "web URL": (bad_path(lambda _: "http://127.0.0.1:9/x.png"), ["a URL"], ""),
    "data URL": (bad_path(lambda _: "data:image/png;base64,AAAA"), ["a medium in base64"], ""),
    "concat of FFmpeg": (bad_path(lambda private: f"concat:{private}/secret.png|0.png"), ["not found"], ""),
    "home": (bad_path(lambda _: "~/x.png"), ["not found"], ""),
    "device": (bad_path(lambda _: "/dev/zero"), ["outside of"], ""),
    "folder": (bad_path(lambda _: "."), ["outside of"], ""),
    "process": (bad_path(lambda _: "/proc/self/mem"), ["outside of"], ""),
    "absolute path": (bad_path(lambda private: f"{private}/secret.png"), ["outside of"], ""),
    "path with parents": (bad_path(lambda _: "../private/secret.png"), ["outside of"], ""),
    "link to a file": (bad_path(lambda _: "link.png"), ["outside of"], ""),
    "link to a folder": (bad_path(lambda _: "linked/secret.png"), ["outside of"], ""),
    "link to itself": (bad_path(lambda _: "loop.png"), ["cannot be read"], ""),
    "part of a tar file": (
        bad_path(lambda private: member_of(f"{private}/secret.tar", "0.png", 512, 400)),
        ["outside of"],
        "",
    ),
    "path of 1 MB": (bad_path(lambda _: "x/" * 500_000), ["1,000,000 characters"], ""),
    "path as object": (bad_path(lambda private: {"path": f"{private}/secret.png"}), ["outside of"], ""),
    "path as list": (bad_path(lambda private: [f"{private}/secret.png"]), ["outside of"], ""),
    "number as path": (bad_path(lambda _: 1e308), ["not found"], ""),
    "NaN as path": (bad_path(lambda _: float("nan")), ["no image"], ""),
    "text of 2 MB": (bad_text("x" * (2 << 20)), ["2,097,152 characters"], ""),
    "text of nested lists": (bad_text([["a"]]), ["holds list"], ""),
    "10,000 captions": (bad_text(["x"] * 10_000), ["a list of 10,000 texts"], ""),
    "lone surrogates": (bad_text("\ud800 \udfff"), [], ""),
    "duplicate keys": (
        lambda folder, _: lines(folder, '{"id": "b", "image": "0.png", "caption": "x", "image": "1.png"}'),
        ["stands in it twice"],
        "",
    ),
    "deep nesting": (lambda folder, _: lines(folder, "[" * 500_000, '{"a":' * 500_000), ["cannot be parsed"], ""),
    "huge number": (lambda folder, _: lines(folder, '{"caption": ' + "9" * 100_000 + "}"), ["cannot be parsed"], ""),
    "no JSON": (lambda folder, _: lines(folder, "nope", "{", "3", "\0"), ["cannot be parsed", "not a JSON object"], ""),
    "id of 1 MB": (lambda folder, _: lines(folder, {"id": "x" * 1_000_000, "image": "0.png"}), ["its 'id' holds"], ""),
    "id as object": (lambda folder, _: lines(folder, {"id": {"a": [1] * 9}, "image": "0.png", "caption": "x"}), [], ""),
    "id twice": (lambda folder, _: lines(folder, {"id": "g0", "image": "1.png"}), [], "stands in rows"),
    "id empty": (lambda folder, _: lines(folder, {"id": "", "image": "0.png"}), ["no text"], ""),
    "100,000 fields": (lambda folder, _: lines(folder, {f"k{at}": 1 for at in range(100_000)} | {"id": "b"}), [], ""),
    "list of a JSON": (table(json.dumps([*GOOD, 3, {"id": "b", "image": []}]), "m.json"), ["not an object"], ""),
    "list of nesting": (table("[" * 1_000_000, "m.json"), [], "starts as a JSON list"),
    "torn quotes": (table(csv_text('b,"x', 'b2,"x",y"z,"')), ["cannot be read"], ""),
    "cells too many": (table(csv_text("b,0.png,x" + ",y" * 100_000)), ["100,003 columns"], ""),
    "nulls in CSV": (table(csv_text("b,0\0.png,x\0y")), ["null character"], ""),
    "cell of 1 MB": (table(csv_text("b," + "x" * 1_000_000 + ",y")), ["1,000,000 characters"], ""),
    "byte order mark": (table("\ufeff" + csv_text()), [], ""),
    "byte order mark inside": (table(csv_text("\ufeffb,\ufeff0.png,x")), ["not found"], ""),
    "mixed encodings": (table(csv_text("b,0.png,x").encode() + b"c,1.png,caf\xe9\n"), [], "not UTF-8"),
    "UTF-16": (table(csv_text("b,no.png,x").encode("utf-16")), ["not found"], ""),
    "100,000 columns": (
        table(csv_text(head="id,image,caption" + "".join(f",c{at}" for at in range(100_000)), tail="," * 100_000)),
        [],
        "",
    ),
    "100,000 columns without the right one": (
        table(",".join(f"imag{at}" for at in range(100_000)) + "\n1\n"),
        [],
        "and 99,980 more",
    ),
    "a column twice": (table("id,image,caption,image\ng0,0.png,x,1.png\n"), [], "several columns"),
    "a column of 1 MB": (table("x" * 1_000_000 + "\n1\n"), [], "no column 'image'"),
    "line of 40 MB": (table(csv_text("b,0.png," + "x" * 40_000_000)), [], "line 4 has more than"),
    "quote of 40 MB": (table(csv_text('b,0.png,"' + "x\n" * 400)), [], "rows cannot be read"),
    "a million empty lines": (table(csv_text("\n" * 1_000_000)), [], ""),
    "a zip file": (table(b"PK\3\4\0\0" * 1000), [], "is a zip archive"),
    "a picture": (table(png()), [], "not UTF-8"),
    "Parquet of nothing": (table(b"PAR1" + bytes(100) + b"PAR1", "m.parquet"), [], "cannot be read as Parquet"),
    "Parquet of CSV": (table(csv_text(), "m.parquet"), [], "cannot be read as Parquet"),
    "Parquet of bytes": (parquet(image=[b"x", b"y", b"z"]), [], ""),
    "Parquet of objects": (parquet(caption=[{"a": 1}, {"a": 2}, {"a": 3}]), [], ""),
    "Parquet of deep lists": (parquet(caption=[[[["a"]]], [[["b"]]], None]), [], ""),
    "Parquet with dictionaries": (
        parquet(caption=pa.array([*SAID, "x"]).dictionary_encode(), image=[*SURE, "no.png"]),
        ["not found"],
        "",
    ),
    "Parquet with other objects": (parquet(other=[{"a": b"x"}] * 3), [], ""),
    "Parquet of nulls": (parquet(caption=[*SAID, *[None] * 20_000]), ["no image"], ""),
}
FILE_PER_ROW = ("Parquet of bytes", "Parquet of objects", "Parquet of deep lists")  # the column is of no use


def bombs(folder: Path, long: bool) -> dict[str, tuple[Path, str]]:
    """Files that stand for far more than their bytes: name -> (file, a part of the sentence)."""
    n = 4_000_000
    word = pa.array(["x" * 1_000_000])
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), word)
    short = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["0.png"]))
    pq.write_table(pa.table({"image": short, "caption": words}), folder / "words.parquet")
    rows = 60_000_000 if long else 6_000_000
    pq.write_table(pa.table({"image": pa.nulls(rows), "caption": pa.nulls(rows)}), folder / "nulls.parquet")
    offsets = pa.array([0, 25_000_000], pa.int32())
    texts = pa.ListArray.from_arrays(offsets, pa.nulls(25_000_000, pa.string()))
    pq.write_table(pa.table({"image": ["0.png"], "caption": texts}), folder / "list.parquet")
    for name in ("holes.csv", "holes.jsonl", "holes.json", "holes.parquet"):
        with (folder / name).open("wb") as file:
            file.write({"holes.csv": b"image,caption\n", "holes.json": b"["}.get(name, b""))
            file.truncate(1 << 40)
    return {
        "a text of 1 MB in 4 million rows": (folder / "words.parquet", "characters in the columns that are read"),
        "nulls": (folder / "nulls.parquet", "rows, the limit is"),
        "a list of 25 million": (folder / "list.parquet", "values in one column"),
        "1 TB of holes, CSV": (folder / "holes.csv", "line 2 has more than"),
        "1 TB of holes, JSONL": (folder / "holes.jsonl", "line 1 has more than"),
        "1 TB of holes, JSON": (folder / "holes.json", "more than 536,870,912 bytes"),
        "1 TB of holes, Parquet": (folder / "holes.parquet", "cannot be read as Parquet"),
    }


def not_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """What is no file: name -> (path, a part of the sentence)."""
    os.mkfifo(folder / "pipe.csv")
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "zero.csv").symlink_to("/dev/zero")
    (folder / "zero.parquet").symlink_to("/dev/zero")
    (folder / "none.csv").symlink_to("nowhere.csv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.csv"))
    return {
        "pipe": (folder / "pipe.csv", "a named pipe"),
        "device": (folder / "zero.csv", "a device"),
        "device, Parquet": (folder / "zero.parquet", "a device"),
        "socket": (folder / "socket.csv", "a socket"),
        "link to itself": (folder / "loop.csv", "cannot be read"),
        "link to nothing": (folder / "none.csv", "does not exist"),
        "standard input": (Path("/dev/stdin"), "a manifest is one of"),
        "null in the name": (Path(f"{folder}/a\0.csv"), "cannot be read"),
        "name of 5,000 characters": (folder / ("x" * 5000 + ".csv"), "does not exist"),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with good images, and links to private files."""
    private, folder = private_folder(tmp_path), tmp_path / "data"
    folder.mkdir()
    for row in GOOD:
        (folder / row["image"]).write_bytes(png())
    (folder / "link.png").symlink_to(private / "secret.png")
    (folder / "linked").symlink_to(private)
    (folder / "loop.png").symlink_to("loop.png")
    return folder


def test_hostile_manifests(chaos: Chaos, folder: Path) -> None:
    private = folder.parent / "private"
    counts = Counts(private)

    def reading(path: Path) -> Callable[[], Samples]:
        return lambda: read_samples(path, COLUMNS, media_root=folder)

    for name, (make, reasons, refused) in CASES.items():
        counts.good = () if name in FILE_PER_ROW else ("g0", "g1", "g2")
        counts.run(name, reading(make(folder, private)), refused, reasons)
    counts.good = ("g0", "g1", "g2")
    (folder / "whole").mkdir()
    for name, (path, refused) in {**bombs(folder / "whole", chaos.is_long), **not_files(folder / "whole")}.items():
        counts.run(name, reading(path), refused)
    for path in (folder / "whole").iterdir():
        path.unlink()
    faults = counts.check()
    chaos.record("hostile_manifests", counts.cases, "hostile inputs", **faults)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from audit_plugin.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_one_command_reads_all_of_them(chaos: Chaos, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not chaos.is_long:
        pytest.skip("trains models: only in the long form")
    private = folder.parent / "private"
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(folder.parent / "cache"))
    good = []
    for row in range(40):
        (folder / f"good{row}.png").write_bytes(png((0, 100 + 3 * row, 40), side=16 + row))
        good.append({"id": f"good{row}", "image": f"good{row}.png", "caption": f"a green square of shade {row}"})
    bad, taken = [], set()
    for name, (make, _, refused) in CASES.items():
        path = make(folder, private)
        if path.suffix != ".jsonl" or refused:
            continue
        for at, line in enumerate(path.read_text(encoding="utf-8", errors="surrogatepass").splitlines()):
            if '"g0"' in line or '"g1"' in line or '"g2"' in line:
                continue
            bad.append(line.replace('"id": "b"', json.dumps("id")[:-1] + '": ' + json.dumps(f"{name} {at}")))
            taken.add(name)
    manifest = folder / "all.jsonl"
    text = "\n".join([json.dumps(row) for row in good] + bad)
    manifest.write_text(text, encoding="utf-8", errors="surrogatepass")
    table, page = folder.parent / "scores.parquet", folder.parent / "report.html"
    columns = ["--image", "image", "--text", "caption", "--media-root", folder]
    scored = run("score", manifest, "--out", table, "--encoder", "offline", "--trials", 4, *columns)
    reported = run("report", table, "--manifest", manifest, "--out", page, *columns)
    html = page.read_text(encoding="utf-8") if page.exists() else ""
    print(scored.stdout[-600:], scored.stderr[-600:], reported.stderr[-600:])  # noqa: T201
    assert (scored.returncode, reported.returncode) == (0, 0)
    failures = dict(zip(*(pq.read_table(table)[name].to_pylist() for name in ("id", "failure")), strict=True))
    lost = [row["id"] for row in good if failures.get(row["id"], "missing")]
    print(lost)  # noqa: T201
    chaos.record(
        "hostile_manifest_commands",
        len(taken),
        "hostile inputs",
        tracebacks=sum("Traceback" in done.stderr for done in (scored, reported)),
        outside=int(holds_private_pixels(html) or "private text" in html or not html),
        good_rows_lost=len(lost),
    )
