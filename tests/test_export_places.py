"""Nothing half under the final name, nothing overwritten, nothing left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.audit.export import ManifestSource, export_rows
from audit_plugin.audit.export.places import opened_place
from audit_plugin.inputs.formats import FORMATS
from audit_plugin.report import read_score_table
from tests.export_fixtures import COLUMNS, write_manifest, write_scores

ROWS = 400


def audited(folder: Path, rows: int = ROWS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for row in range(rows):
        (folder / f"{row}.jpg").write_bytes(b"\xff\xd8\xff" + bytes([row % 256]) * 500)
        entries.append({"id": f"s{row}", "image": f"{row}.jpg", "caption": f"caption {row}"})
    manifest = write_manifest(folder / "m.csv", entries)
    return write_scores(folder / "s.parquet", manifest, [entry["id"] for entry in entries])


def export(scores: Path, to: Path, form: str = "") -> None:
    export_rows(read_score_table(scores), ManifestSource(scores.parent / "m.csv", COLUMNS), to, form)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("to", "form"), [("out", "webdataset"), ("out", "hf-folder"), ("out.csv", ""), ("o.parquet", "")]
)
def test_the_source_is_not_written_to_and_nothing_is_left_over(tmp_path, to, form):
    scores = audited(tmp_path / "in", 20)
    before = state(tmp_path / "in")
    export(scores, tmp_path / "exports" / "deep" / to, form)
    assert state(tmp_path / "in") == before
    assert not hidden(tmp_path / "exports" / "deep")


@pytest.mark.parametrize("form", ["webdataset", "csv"])
def test_a_taken_place_is_refused_by_name(tmp_path, form):
    scores = audited(tmp_path / "in", 3)
    to = tmp_path / ("out" if form == "webdataset" else "out.csv")
    export(scores, to, form)
    before = state(tmp_path)
    with pytest.raises(AuditError, match=to.name):
        export(scores, to, form)
    assert state(tmp_path) == before


def test_the_place_may_be_an_empty_folder_or_file(tmp_path):
    scores = audited(tmp_path / "in", 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out.csv").touch()
    export(scores, tmp_path / "out", "webdataset")
    export(scores, tmp_path / "out.csv")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 4


def test_documents_of_others_are_not_overwritten(tmp_path):
    scores = audited(tmp_path / "in", 3)
    (tmp_path / "out.csv.audit.md").write_text("mine")
    with pytest.raises(AuditError, match=r"out.csv.audit.md exists \(4 bytes\)"):
        export(scores, tmp_path / "out.csv")
    assert (tmp_path / "out.csv.audit.md").read_text() == "mine"
    assert not (tmp_path / "out.csv").exists()


def test_links_and_what_stands_in_the_way_are_refused(tmp_path):
    scores = audited(tmp_path / "in", 3)
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(AuditError, match="link"):
        export(scores, tmp_path / "link", "webdataset")
    with pytest.raises(AuditError, match=r"m\.csv"):
        export(scores, tmp_path / "in" / "m.csv" / "out", "webdataset")
    with pytest.raises(AuditError, match=r"m\.csv exists"):
        export(scores, tmp_path / "in" / "m.csv")
    with pytest.raises(AuditError, match="in holds"):
        export(scores, tmp_path / "in", "webdataset")
    with pytest.raises(AuditError):
        export(scores, Path("a\0b"), "webdataset")
    assert not list((tmp_path / "target").iterdir())


def test_a_hidden_folder_of_somebody_else_is_not_deleted(tmp_path):
    scores = audited(tmp_path / "in", 3)
    with opened_place(tmp_path / "out", True, ()) as place:
        name = place.staged.parent
    name.mkdir()
    (name / "mine.txt").write_text("x")
    with pytest.raises(AuditError, match="holds other files"):
        export(scores, tmp_path / "out", "webdataset")
    assert (name / "mine.txt").exists()
    (name / "mine.txt").unlink()
    name.rmdir()
    name.symlink_to(tmp_path / "in")
    with pytest.raises(AuditError, match="taken"):
        export(scores, tmp_path / "out", "webdataset")
    assert len(list((tmp_path / "in").iterdir())) == 6


def test_a_source_of_other_rows_leaves_nothing(tmp_path):
    scores = audited(tmp_path / "in", 6)
    manifest = tmp_path / "in" / "m.csv"
    lines = manifest.read_text().splitlines(keepends=True)
    for changed, message in (
        (lines[:-1], "it has 5 rows, the table 6"),
        ([*lines, lines[-1].replace("s5", "s6")], "more than 6 rows"),
        ([*lines[:2], lines[3], lines[2], *lines[4:]], "row 2 is 's2' there, and 's1' here"),
    ):
        manifest.write_text("".join(changed))
        with pytest.raises(AuditError, match=message):
            export(scores, tmp_path / "out", "webdataset")
        assert not (tmp_path / "out").exists()
        assert not hidden(tmp_path)


def test_two_exports_to_one_place_at_once(tmp_path):
    scores = audited(tmp_path / "in")
    errors = []

    def run() -> None:
        try:
            export(scores, tmp_path / "out", "hf-folder")
        except AuditError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 3
    assert all("another process exports" in e or "out holds" in e or "somebody else" in e for e in errors), errors
    assert whole(tmp_path / "out")
    assert not hidden(tmp_path)


def whole(to: Path) -> bool:
    """Whether an hf-folder has all of its rows and files."""
    rows = [json.loads(line) for line in (to / "metadata.jsonl").read_text().splitlines()]
    complete = all((to / row["file_name"]).stat().st_size == 503 for row in rows)
    return len(rows) == ROWS and complete and (to / "audit.md").exists() and (to / "removed.parquet").exists()


SCRIPT = """
import sys
from pathlib import Path
from tests.test_export_places import export
print("ready", flush=True)
export(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


def test_killed_exports_are_never_half_there_and_start_again(tmp_path):
    scores = audited(tmp_path / "in")
    before = state(tmp_path / "in")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    killed = 0
    for to, form, delays in (
        ("out", "hf-folder", (0.0, 0.01, 0.03, 0.06)),
        ("out.csv", "csv", (0.0, 0.005, 0.01, 0.02)),
    ):
        for delay in delays:
            arguments = [sys.executable, "-c", SCRIPT, str(scores), str(tmp_path / to), form]
            process = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=env)
            assert process.stdout.readline() == b"ready\n"  # type: ignore[union-attr]
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait(60)
            killed += process.returncode == -signal.SIGKILL
            if (tmp_path / to).exists():
                break
        if not (tmp_path / to).exists():
            export(scores, tmp_path / to, form)
        assert not hidden(tmp_path)
    assert killed
    assert whole(tmp_path / "out")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == ROWS + 1
    assert (tmp_path / "out.csv.audit.md").exists()
    assert state(tmp_path / "in") == before


def test_an_interrupt_between_the_moves_leaves_nothing(tmp_path, monkeypatch):
    scores = audited(tmp_path / "in", 5)

    def interrupt(source: object, target: object) -> None:
        assert (tmp_path / "out.csv.audit.md").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("audit_plugin.audit.export.places.os.rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(scores, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_a_dead_export_left_goes_with_the_next_to_the_same_folder(tmp_path):
    scores = audited(tmp_path / "in", 5)
    with opened_place(tmp_path / "other", True, ()) as place:
        name = place.staged.parent
    name.mkdir()
    (name / "lock").touch()
    (name / "export").mkdir()
    (name / "export" / "00000.tar").write_bytes(b"x")
    (tmp_path / ".empty.0123abcd.export").mkdir()
    (tmp_path / ".mine.export").mkdir()
    (tmp_path / ".mine.export" / "notes").touch()
    export(scores, tmp_path / "out.csv")
    assert hidden(tmp_path) == [".mine.export"]


def test_an_interrupt_leaves_nothing(tmp_path):
    scores = audited(tmp_path / "in")

    def interrupt(_stage: str, done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    source = ManifestSource(scores.parent / "m.csv", COLUMNS)
    with pytest.raises(KeyboardInterrupt):
        export_rows(read_score_table(scores), source, tmp_path / "out", "webdataset", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_media_that_are_no_files_are_removed_with_a_reason(tmp_path):
    import pyarrow.parquet

    scores = audited(tmp_path / "in", 6)
    folder = tmp_path / "in"
    (folder / "0.jpg").unlink()
    (folder / "1.jpg").write_bytes(b"")
    (folder / "2.jpg").unlink()
    os.mkfifo(folder / "2.jpg")
    (folder / "3.jpg").unlink()
    (folder / "3.jpg").mkdir()
    (folder / "4.jpg").unlink()
    (folder / "4.jpg").symlink_to("/dev/zero")
    for to, form in (
        ("out", "webdataset"),
        ("hf", "hf-folder"),
        ("o.csv", "csv"),
        ("o.jsonl", "jsonl"),
        ("p", "hf-parquet"),
    ):
        export(scores, tmp_path / to, form)
        path = tmp_path / to / "removed.parquet" if form not in ("csv", "jsonl") else tmp_path / f"{to}.removed.parquet"
        rows = pyarrow.parquet.read_table(path).to_pylist()
        assert [row["id"] for row in rows] == [f"s{row}" for row in range(5)]
        assert {row["by"] for row in rows} == {"export"}
        assert all(row["why"].startswith("cannot be read: ") for row in rows)


@pytest.mark.parametrize("form", ["webdataset", "hf-folder", "coco", "csv", "parquet-bytes"])
def test_an_archive_holds_what_the_folder_would_and_the_documents(tmp_path, form):
    scores = audited(tmp_path / "in", 6)
    for row in range(6):  # COCO needs the sizes of pictures
        Image.new("RGB", (8, 8), (row, 0, 0)).save(tmp_path / "in" / f"{row}.jpg")
    report = export_rows(
        read_score_table(scores), ManifestSource(tmp_path / "in" / "m.csv", COLUMNS), tmp_path / "o" / "x.y.zip", form
    )
    assert (report.exported, report.documents) == (6, [])
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["x.y.zip"]
    with zipfile.ZipFile(tmp_path / "o" / "x.y.zip") as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {"x.y"}
        archive.extractall(tmp_path / "unpacked")
    unpacked = contents(tmp_path / "unpacked" / "x.y")
    ending = FORMATS[form].endings
    to = tmp_path / "plain" / (f"data{ending[0]}" if ending else "")
    export(scores, to, form)
    plain = {name.removeprefix(f"{to.name}."): data for name, data in contents(tmp_path / "plain").items()}
    assert set(unpacked) == set(plain)
    assert {name for name in unpacked if unpacked[name] != plain[name]} == {"audit.md"}
    sheet = unpacked["audit.md"].decode()
    assert str(tmp_path / "o") not in sheet  # it may be unpacked anywhere
    assert form == "parquet-bytes" or "x.y" in sheet.partition("To read it")[2].partition("\n")[0]


def test_an_archive_replaces_nothing_and_an_interrupted_one_leaves_nothing(tmp_path):
    scores = audited(tmp_path / "in")
    to = tmp_path / "o" / "x.zip"
    source = ManifestSource(tmp_path / "in" / "m.csv", COLUMNS)

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "packing" and 0 < done < total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_rows(read_score_table(scores), source, to, "hf-folder", progress=interrupt)
    assert not list((tmp_path / "o").iterdir())
    export(scores, to, "hf-folder")
    before = state(tmp_path / "o")
    with pytest.raises(AuditError, match=r"x\.zip exists"):
        export(scores, to, "hf-folder")
    with pytest.raises(AuditError, match="name it by --format"):
        export(scores, tmp_path / "o" / "y.zip")
    assert state(tmp_path / "o") == before
