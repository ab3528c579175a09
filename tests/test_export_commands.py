"""`audit-plugin export` and `select`, and `AuditResult.export`."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from audit_plugin import AuditResult, Samples
from audit_plugin.arrays import AuditError
from audit_plugin.cli import app
from audit_plugin.inputs.files import open_medium
from audit_plugin.inputs.samples import read_samples
from audit_plugin.review import Decision, decisions_to_csv, decisions_to_jsonl, verdicts
from tests.export_fixtures import COLUMNS, marked, write_manifest, write_scores
from tests.test_shards import png

N = 10


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    entries = []
    for row in range(N):
        (folder / f"{row}.jpg").write_bytes(b"\xff\xd8\xff%d" % row)
        entries.append({"id": f"s{row}", "image": f"{row}.jpg", "caption": f"caption {row}", "uid": f"{row:032x}"})
    manifest = write_manifest(folder / "m.csv", entries)
    columns = {
        "action": marked(N, {1: "remove", 2: "relabel", 3: "review"}, "keep"),
        "reason": marked(N, {1: "exact duplicate of another sample"}),
        "suggestion": marked(N, {2: "a better caption"}),
        "is_misaligned": [row in (2, 3) for row in range(N)],
    }
    return write_scores(tmp_path / "scores.parquet", manifest, [entry["id"] for entry in entries], columns=columns)


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def ids(path: Path) -> tuple[str, ...]:
    return read_samples(path, COLUMNS).ids


def test_an_export_says_what_it_wrote(scores, tmp_path):
    out = run("export", scores, "--to", tmp_path / "clean.csv")
    assert "9 of 10 rows exported (9 samples), 1 removed" in out
    assert "1 row: action remove: exact duplicate of another sample (by audit)" in out
    assert "1 row keeps its caption, though the audit proposes another (see --relabel)" in out
    assert read_samples(tmp_path / "clean.csv", COLUMNS).media["text"][1] == "caption 2"
    for name in ("removed.parquet", "audit.md"):
        assert (tmp_path / f"clean.csv.{name}").exists()
        assert f"clean.csv.{name}" in out.replace("\n", "")
    assert not (tmp_path / "clean.csv.relabeled.parquet").exists()
    assert "| proposed captions that were not applied | 1 |" in (tmp_path / "clean.csv.audit.md").read_text()


def test_proposed_captions_are_applied_with_relabel(scores, tmp_path):
    out = run("export", scores, "--to", tmp_path / "clean.csv", "--relabel")
    assert "1 row gets a new caption (by audit)" in out
    assert "see --relabel" not in out
    assert read_samples(tmp_path / "clean.csv", COLUMNS).media["text"][1] == "a better caption"
    assert "clean.csv.relabeled.parquet" in out.replace("\n", "")
    text = (tmp_path / "clean.csv.audit.md").read_text()
    assert "| proposed captions that were not applied | 0 |" in text
    assert "Captions that the audit proposes are applied" in text


def test_the_datasheet_has_counts_settings_and_precision(scores, tmp_path):
    run("export", scores, "--to", tmp_path / "clean", "--format", "webdataset")
    text = (tmp_path / "clean" / "audit.md").read_text()
    for part in (
        "| rows of the audit | 10 |",
        "| rows exported | 9 |",
        "| action remove: exact duplicate of another sample | audit | 1 |",
        "Precision of the flag misaligned: at least 80% (model-based, not checked)",
        "Wrong pairs: at least 1 (model-based, not checked)",
        "Probe recall: swap 0.97",
        "| false\\_positive\\_rate | 0.02 |",
        "--dataset-type webdataset",
    ):
        assert part in text


@pytest.mark.parametrize("name", ["a 'b.csv", "clean.tsv"])
def test_open_clip_reads_a_table_as_the_datasheet_says(scores, tmp_path, name):
    import pandas as pd
    from open_clip_train.params import parse_args

    run("export", scores, "--to", tmp_path / "in" / name)
    line = next(x for x in (tmp_path / "in" / f"{name}.audit.md").read_text().splitlines() if "To read it" in x)
    assert "open_clip, in the folder of the file: " in line
    options = parse_args(shlex.split(line.partition("file: ")[2].rstrip("`")))
    rows = pd.read_csv(options.train_data, sep=options.csv_separator)  # as open_clip's CsvDataset does
    assert rows[options.csv_caption_key].tolist() == [f"caption {row}" for row in range(N) if row != 1]
    assert all((tmp_path / "in" / path).is_file() for path in rows[options.csv_img_key])


def test_a_dry_run_writes_nothing(scores, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    out = run("export", scores, "--to", tmp_path / "x" / "clean.csv", "--drop", "misaligned", "--dry-run")
    assert "8 of 10 rows exported" in out
    assert "2 rows: flag misaligned (by audit)" in out
    assert "nothing was written" in out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (("--drop", "misaligned"), {2, 3}),
        (("--drop", "misaligned, remove"), {1, 2, 3}),
        (("--top-n", "3"), {7, 8, 9}),
        (("--keep", "misaligned"), {1}),
    ],
)
def test_rules(scores, tmp_path, options, left):
    run("export", scores, "--to", tmp_path / "o.jsonl", *options)
    assert ids(tmp_path / "o.jsonl") == tuple(f"s{row}" for row in range(N) if row not in left)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_decisions_of_a_table_are_followed(scores, tmp_path, kind):
    entries = [
        Decision("s1", "keep", reviewer="ann", id="1"),
        Decision("s2", "relabel", text="written by\nann", reviewer="ann", id="2"),
        Decision("s5", "remove", reviewer="bob", note="watermark", id="3"),
        Decision("elsewhere", "remove", reviewer="bob", id="4"),
    ]
    table = tmp_path / f"d.{kind}"
    table.write_text(decisions_to_csv(entries) if kind == "csv" else decisions_to_jsonl(entries), newline="")
    out = run("export", scores, "--to", tmp_path / "o.jsonl", "--decisions", table)
    assert "1 decision is on a row that the audit does not have" in out
    samples = read_samples(tmp_path / "o.jsonl", COLUMNS)
    assert samples.ids == tuple(f"s{row}" for row in range(N) if row != 5)
    assert samples.media["text"][2] == "written by\nann"
    import pyarrow.parquet

    (row,) = pyarrow.parquet.read_table(tmp_path / "o.jsonl.removed.parquet").to_pylist()
    assert (row["id"], row["why"], row["by"]) == ("s5", "decision remove: watermark", "bob")
    assert row["score"] == pytest.approx(np.linspace(-1, 1, N)[5])
    (row,) = pyarrow.parquet.read_table(tmp_path / "o.jsonl.relabeled.parquet").to_pylist()
    assert row == {"id": "s2", "caption_index": 0, "before": "caption 2", "after": "written by\nann", "by": "ann"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--to", "{}/o.xyz"), "name it by --format: webdataset"),
        (("--to", "{}/o", "--format", "tfrecord"), "format 'tfrecord' is not known"),
        (("--to", "{}/o.txt", "--format", "csv"), "does not end in .csv or .tsv"),
        (("--to", "{}/o.csv", "--format", "coco"), "coco is a folder"),
        (("--to", "{}/o.csv", "--drop", "blurry"), "--drop 'blurry' is not a flag"),
        (("--to", "{}/o.csv", "--drop", "outlier", "--keep", "misaligned"), "exclude each other"),
        (("--to", "{}/o.csv", "--manifest", "{}/none.csv"), "none.csv' does not exist"),
        (("--to", "{}/o.csv", "--decisions", "{}/none.csv"), "none.csv"),
        (("--to", "{}/o.csv", "--select", "{}/none.csv"), "none.csv"),
        (("--to", "{}/in"), "name it by --format"),
        (("--to", "{}/in", "--format", "coco"), "in holds"),
        (("--to", "{}/o", "--format", "yolo"), "whole image"),
    ],
)
def test_errors_are_one_sentence(scores, tmp_path, arguments, sentence):
    before = sorted(tmp_path.rglob("*"))
    out = run("export", scores, *(a.format(tmp_path) for a in arguments), code=2).replace("\n", " ")
    assert sentence in out
    assert "error: " in out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("option", ["--manifest", "--media-root"])
def test_options_of_tables_are_refused_for_a_dataset(tmp_path, option):
    out = run("export", "a-dataset", "--to", tmp_path / "o.csv", option, tmp_path, code=2).replace("\n", " ")
    assert f"{option} is for a table of scores" in out


@pytest.mark.parametrize("name", ["tasks.json", "tasks.xml"])
def test_exports_of_annotation_tools_are_told_where_they_go(scores, tmp_path, name):
    out = run("export", scores, "--to", tmp_path / "o.csv", "--decisions", name, code=2).replace("\n", " ")
    assert "audit-plugin review import" in out


def test_decisions_in_a_pipe_are_refused_and_not_waited_for(scores, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    out = run("export", scores, "--to", tmp_path / "o.csv", "--decisions", tmp_path / "pipe.csv", code=2)
    assert "named pipe" in out


def test_tables_that_are_no_scores_are_refused(scores, tmp_path):
    assert "does not exist" in run("export", tmp_path / "none.parquet", "--to", tmp_path / "o.csv", code=2)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    assert "cannot be read as Parquet" in run("export", tmp_path / "bad.parquet", "--to", tmp_path / "o.csv", code=2)
    scores.with_suffix(".json").unlink()
    assert "summary (.json)" in run("export", scores, "--to", tmp_path / "o.csv", code=2)
    scores.with_suffix(".json").write_text("[")
    assert "cannot be read" in run("export", scores, "--to", tmp_path / "o.csv", code=2)


def test_a_selection_is_exported(scores, tmp_path):
    out = run("select", scores, "--budget", "30%", "--out", tmp_path / "keep.parquet")
    assert "3 of 10 rows selected (budget 3)" in out
    run("export", scores, "--to", tmp_path / "o.csv", "--select", tmp_path / "keep.parquet")
    assert ids(tmp_path / "o.csv") == ("s0", "s2", "s3")  # s1 is proposed to be removed
    run("select", scores, "--budget", "4", "--out", tmp_path / "keep.npy")
    assert np.load(tmp_path / "keep.npy").tolist() == [(0, 0), (0, 2), (0, 3), (0, 4)]
    assert "--budget is '0'" in run("select", scores, "--budget", "0", "--out", tmp_path / "x.csv", code=2)


def test_export_from_python(scores, tmp_path):
    rows = read_samples(tmp_path / "in" / "m.csv", COLUMNS)
    columns = {
        "misalignment": np.arange(N, dtype=np.float32),
        "action": np.array(marked(N, {1: "remove", 2: "relabel"}, "keep"), dtype=object),
        "suggestion": np.array(marked(N, {2: "new"}), dtype=object),
        "is_misaligned": np.arange(N) > 7,
    }
    summary = json.loads(scores.with_suffix(".json").read_text())
    result = AuditResult(rows.ids, columns, summary)
    report = result.export(tmp_path / "a.csv")  # from the manifest that the summary names
    assert (report.exported, report.proposals, report.relabeled) == (9, 1, {})
    report = result.export(tmp_path / "a.jsonl", relabel=True)
    assert (report.exported, report.proposals, report.relabeled) == (9, 0, {"audit": 1})
    report = result.export(tmp_path / "b", samples=rows, format="webdataset", drop=["misaligned"])
    assert (report.exported, dict(report.removed)) == (8, {("flag misaligned", "audit"): 2})
    decisions = verdicts([Decision("s1", "keep", reviewer="ann")])
    assert result.export(tmp_path / "c.csv", verdicts=decisions, dry_run=True).exported == 10
    run("select", scores, "--budget", "3", "--out", tmp_path / "keep.parquet")
    seen = []
    manifest = (tmp_path / "in" / "m.csv").rename(tmp_path / "in" / "moved.csv")
    report = result.export(
        tmp_path / "e.zip",
        format="csv",
        select=tmp_path / "keep.parquet",
        manifest=manifest,
        progress=lambda *event: seen.append(event),
    )
    assert (report.exported, (tmp_path / "e.zip").exists()) == (3, True)
    assert seen[-1][0] == "packing"
    with pytest.raises(AuditError, match="give one of them"):
        result.export(tmp_path / "f.csv", rows, manifest=manifest)
    other = Samples(tuple("abcdefghij"), rows.media)
    with pytest.raises(AuditError, match="row 1 is 'a' there, and 's0' here"):
        result.export(tmp_path / "d.csv", samples=other)


def test_samples_with_lists_of_captions_from_python(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"A")
    image = str(tmp_path / "a.jpg")
    samples = Samples(("x", "x", "y"), {"image": (image,) * 3, "text": ("1", "2", "3")}, caption=(0, 1, 0))
    columns = {"action": np.array(["remove", "keep", "keep"], dtype=object)}
    AuditResult(samples.ids, columns, {}, captions=samples.caption).export(tmp_path / "o.jsonl", samples)
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [(row["id"], row["text"]) for row in rows] == [("x", ["2"]), ("y", ["3"])]


def test_exports_load_no_models():
    import subprocess
    import sys

    script = "import sys, audit_plugin.audit.export, audit_plugin.audit.export.selection, audit_plugin.review\n"
    script += "assert not {'torch', 'fiftyone', 'faiss', 'PIL', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


def test_a_recorded_manifest_reads_nothing_outside_of_its_folder(scores, tmp_path):
    # scores may come from anybody, and must not make an export copy private files
    (tmp_path / "private.jpg").write_bytes(b"secret")
    manifest = tmp_path / "in" / "m.csv"
    for path in ("../private.jpg", str(tmp_path / "private.jpg"), "link.jpg"):
        (tmp_path / "in" / "link.jpg").unlink(missing_ok=True)
        (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "private.jpg")
        manifest.write_text(manifest.read_text().replace("s4,4.jpg", f"s4,{path}"))
        out = run("export", scores, "--to", tmp_path / "out", "--format", "webdataset", code=2)
        assert "row 's4' has a medium outside of" in out.replace("\n", " ")
        assert not (tmp_path / "out").exists()
        to = tmp_path / f"out-{len(path)}"
        run("export", scores, "--to", to, "--format", "webdataset", "--manifest", manifest)
        assert to.exists()
        manifest.write_text(manifest.read_text().replace(f"s4,{path}", "s4,4.jpg"))


@pytest.mark.parametrize(
    "change",
    [
        {"config": []},
        {"config": {"image": 3, "text": None}},
        {"manifest": 5},
        {"estimated": {"precision": "x", "precision_interval": 3}},
        {"probe_recall": {"swap": "much"}},
        {"flags": {"misaligned": "<b>"}},
        {"estimated": {"precision": 0.5, "precision_interval": [None, 1], "pairs": 1, "pairs_interval": [0]}},
    ],
)
def test_summaries_that_hold_other_things_end_in_a_sentence_or_a_datasheet(scores, tmp_path, change):
    summary = scores.with_suffix(".json")
    summary.write_text(json.dumps(json.loads(summary.read_text()) | change))
    result = CliRunner().invoke(app, ["export", str(scores), "--to", str(tmp_path / "o.csv")])
    assert result.exit_code in (0, 2), result.output
    assert (tmp_path / "o.csv").exists() == (result.exit_code == 0)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception


def test_a_table_scored_with_own_embeddings_is_exported_and_reported_without_naming_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    n, rng = 40, np.random.default_rng(0)
    images = [{"bytes": png(f"#{6 * row:02x}{255 - row:02x}00"), "path": None} for row in range(n)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells = {"image": pa.array(images, kind), "caption": [f"caption {row}" for row in range(n)]}
    pq.write_table(pa.table(cells), tmp_path / "set.parquet")
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", vectors)
    np.save(tmp_path / "y.npy", vectors + 0.1 * rng.normal(size=(n, 8)).astype(np.float32))
    given = f"image={tmp_path / 'x.npy'},text={tmp_path / 'y.npy'}"
    scores = tmp_path / "scores.parquet"
    out = run("score", tmp_path / "set.parquet", "--out", scores, "--embeddings", given, "--trials", 2)
    assert "image from 'image', text from 'caption'" in out
    run("export", scores, "--to", tmp_path / "shards", "--format", "webdataset")
    run("report", scores, "--out", tmp_path / "report.html")
    again = read_samples(tmp_path / "shards")
    removed = pq.read_table(tmp_path / "shards" / "removed.parquet").num_rows
    assert len(again) == n - removed
    for row, path in zip(again.ids, again.media["image"], strict=True):
        with open_medium(path) as file:
            assert file.read() == images[int(row)]["bytes"]


def test_media_root_confines_what_an_export_copies(scores, tmp_path):
    manifest = tmp_path / "in" / "m.csv"
    (tmp_path / "private.jpg").write_bytes(b"\xff\xd8\xffprivate")
    text = manifest.read_text().replace("0.jpg", str(tmp_path / "private.jpg"), 1)
    manifest.write_text(text)
    confined = ("--manifest", manifest, "--media-root", manifest.parent)
    out = run("export", scores, "--to", tmp_path / "shards", *confined, "--format", "webdataset", code=2)
    assert "has a medium outside of" in " ".join(out.split())
    assert not (tmp_path / "shards").exists()
    run("export", scores, "--to", tmp_path / "shards", "--manifest", manifest, "--format", "webdataset")
