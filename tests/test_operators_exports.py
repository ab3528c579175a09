"""The clean data as the App exports it: what the form shows, the one file that is downloaded, what stops it."""

from __future__ import annotations

import asyncio
import errno
import importlib
import json
import os
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.operator_requests import execute, filled_in, form_of, hidden_of, module_of, notices_of, request_of
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")

FILES = {"csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet", "parquet-bytes": ".parquet"}


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    """Ten samples; the audit proposes other captions for three, a person removes one and relabels one."""
    made = make_dataset(10)
    written(made, (4, 1, 6))
    ids = made.values("id")
    fio.decide(made, ids[0], "remove", reviewer="ann")
    fio.decide(made, ids[2], "relabel", text="new", reviewer="ann")
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUDIT_EXPORT_DIR", str(tmp_path / "exports"))
    return tmp_path / "exports"


def export(dataset: Any, **params: Any) -> list[dict[str, Any]]:
    """What the App is told to do."""
    return execute("export_review", filled_in("export_review", dataset, {"what": "data", **params}))[1]


def captions(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["id"]: row["text"] for row in rows}


def test_the_counts_are_shown_before_anything_is_written(dataset: Any, folder: Path) -> None:
    form = form_of("export_review", dataset, what="data")
    notice = form["count"]["view"]
    assert notice["label"] == "9 of 10 rows will be exported, 1 removed."
    assert "1 row: decision remove (by ann)" in notice["description"]
    assert "1 row gets a new caption (by ann)" in notice["description"]
    assert "3 rows keep their captions" in notice["description"]
    relabeled = form_of("export_review", dataset, what="data", relabel=True)["count"]["view"]["description"]
    assert "3 rows get a new caption (by audit)" in relabeled
    assert not list(folder.iterdir())


@pytest.mark.parametrize("form", FILES)
def test_a_table_is_one_file(dataset: Any, folder: Path, form: str) -> None:
    from audit_plugin.inputs.samples import read_samples

    steps = export(dataset, format=form, data="mine", relabel=True)
    assert notices_of(steps) == [f"Wrote 9 rows to mine{FILES[form]}"]
    assert os.listdir(folder) == [f"mine{FILES[form]}"]
    (download,) = [step["params"] for step in steps if step["operator_uri"].endswith("browser_download")]
    assert download["filename"] == f"mine{FILES[form]}"
    samples = read_samples(folder / f"mine{FILES[form]}", {"image": "image", "text": "text"})
    ids = dataset.values("id")
    texts = dict(zip(samples.ids, samples.media["text"], strict=True))
    assert list(texts) == ids[1:]
    assert [texts[ids[row]] for row in (1, 2, 4, 6)] == ["better 1", "new", "better 4", "better 6"]


@pytest.mark.parametrize("form", ["webdataset", "hf-folder", "hf-parquet", "coco", "csv"])
def test_a_folder_is_packed_with_what_was_removed_and_why(
    dataset: Any, folder: Path, form: str, tmp_path: Path
) -> None:
    from audit_plugin.inputs.tables import read_table

    steps = export(dataset, format=form, data="mine.zip")
    assert notices_of(steps) == ["Wrote 9 rows to mine.zip"]
    assert os.listdir(folder) == ["mine.zip"]
    with zipfile.ZipFile(folder / "mine.zip") as archive:
        archive.extractall(tmp_path)
    removed = read_table(tmp_path / "mine" / "removed.parquet")[0]
    assert (list(removed["id"]), list(removed["by"])) == (dataset.values("id")[:1], ["ann"])
    assert "rows exported | 9" in (tmp_path / "mine" / "audit.md").read_text()
    if form == "hf-folder":
        rows = [json.loads(line) for line in (tmp_path / "mine" / "metadata.jsonl").read_text().splitlines()]
        assert captions(rows)[dataset.values("id")[2]] == "new"


def test_objects_become_boxes(make_dataset: Callable[..., Any], folder: Path) -> None:
    import fiftyone as fo

    from audit_plugin import AuditConfig

    dataset = make_dataset(3)
    for sample in dataset:
        sample["things"] = fo.Detections(detections=[fo.Detection(label="cat", bounding_box=[0.25, 0.25, 0.5, 0.5])])
        sample.save()
    written(dataset.to_patches("things"), (1,), config=AuditConfig(text="things"))
    assert notices_of(export(dataset, format="yolo", data="boxes.zip")) == ["Wrote 3 rows to boxes.zip"]
    with zipfile.ZipFile(folder / "boxes.zip") as archive:
        assert {"boxes/data.yaml", "boxes/audit.md", "boxes/removed.parquet"} <= set(archive.namelist())


@pytest.mark.parametrize("form", ["yolo", "datacomp"])
def test_a_format_that_does_not_fit_says_so_and_leaves_nothing(dataset: Any, folder: Path, form: str) -> None:
    (message,) = notices_of(export(dataset, format=form))
    assert "choose another --format" in message
    assert not list(folder.iterdir())


def test_the_ending_follows_the_format(dataset: Any, folder: Path) -> None:
    export(dataset, format="jsonl", data="x.csv")  # typed before the format was changed
    export(dataset, format="csv", data="x.TSV")
    assert sorted(os.listdir(folder)) == ["x.TSV", "x.jsonl"]


@pytest.mark.parametrize("name", ["../x", "/etc/x.zip", "a\\b", ".x", "x\u202e", "con", "x" * 300])
def test_the_data_take_no_paths_but_names(dataset: Any, folder: Path, name: str) -> None:
    form = form_of("export_review", dataset, what="data", data=name)
    assert form["refused"]["invalid"]
    assert "token" not in form
    token = hidden_of(form_of("export_review", dataset, what="data"))
    (message,) = notices_of(execute("export_review", request_of(dataset, {"what": "data", "data": name, **token}))[1])
    assert "file name" in message
    assert not list(folder.iterdir())


def test_a_file_is_replaced_only_as_it_was_shown(dataset: Any, folder: Path) -> None:
    folder.mkdir()
    (folder / "x.csv").write_text("of the user")
    chosen = {"what": "data", "format": "csv", "data": "x"}
    form = form_of("export_review", dataset, **chosen)
    assert "Replace the file x.csv (written " in form["replace"]["view"]["label"]
    assert form["replace"]["invalid"]
    assert "tick to replace it" in notices_of(export(dataset, **chosen))[0]
    request = filled_in("export_review", dataset, {**chosen, "replace": True})
    (folder / "x.csv").write_text("changed since it was shown")
    assert notices_of(execute("export_review", request)[1]) == ["The form is out of date; open it again"]
    assert (folder / "x.csv").read_text() == "changed since it was shown"
    assert notices_of(export(dataset, **chosen, replace=True)) == ["Wrote 9 rows to x.csv"]
    assert os.listdir(folder) == ["x.csv"]


@pytest.mark.parametrize("change", ["decision", "format", "relabel", "caption"])
def test_what_was_not_shown_is_not_exported(dataset: Any, folder: Path, change: str) -> None:
    request = filled_in("export_review", dataset, {"what": "data", "format": "csv"})
    if change == "decision":
        fio.decide(dataset, dataset.values("id")[5], "remove")
    elif change == "caption":  # the decision on it is stale then
        sample = dataset[dataset.values("id")[0]]
        sample["caption"] = "another"
        sample.save()
    else:
        request["params"][change] = {"format": "jsonl", "relabel": True}[change]
    assert notices_of(execute("export_review", request)[1]) == ["The form is out of date; open it again"]
    assert not list(folder.iterdir())


def test_closing_the_page_stops_the_export(
    dataset: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from fiftyone.operators.executor import execute_or_delegate_operator

    monkeypatch.setattr("audit_plugin.audit.export.STEP", 1)
    closed, ended = threading.Event(), threading.Event()
    exports = module_of("exports")
    real = exports._write_data

    def write(samples: Any, target: Any, path: Path, progress: Any) -> str:
        def slow(stage: str, done: int, total: int) -> None:
            progress(stage, done, total)
            if done:
                assert closed.wait(60)
                progress(stage, done, total)  # nobody listens any more

        try:
            return real(samples, target, path, slow)
        finally:
            ended.set()

    monkeypatch.setattr(exports, "_write_data", write)
    request = filled_in("export_review", dataset, {"what": "data", "format": "hf-folder"})
    work = asyncio.run(execute_or_delegate_operator("@multimem/audit/export_review", request)).result
    next(work)  # the first progress
    work.close()  # as the server does when the connection is gone
    closed.set()
    assert ended.wait(60)
    for _ in range(600):  # the thread deletes what it wrote
        if not list(folder.iterdir()):
            break
        threading.Event().wait(0.05)
    assert not list(folder.iterdir())


def test_what_a_killed_export_left_is_removed_by_the_next_one(dataset: Any, folder: Path) -> None:
    import subprocess
    import sys

    folder.mkdir()
    code = (
        "import os, sys, tempfile, fcntl, time\n"
        "place = tempfile.mkdtemp(prefix='.export-', dir=sys.argv[1])\n"
        "lock = open(os.path.join(place, 'lock'), 'wb'); fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "open(os.path.join(place, 'half.zip'), 'wb').write(b'x'); print('ready', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        export(dataset, format="csv", data="a")
        assert len(os.listdir(folder)) == 2  # that of the living process stays
        other.kill()
    export(dataset, format="csv", data="b")
    assert sorted(os.listdir(folder)) == ["a.csv", "b.csv"]


def test_without_hard_links_a_file_is_whole_and_replaces_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = module_of("files")

    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with files.exported("a.txt", None) as path:
        path.write_text("whole")
        assert not (folder / "a.txt").exists()
    assert (folder / "a.txt").read_text() == "whole"

    def write_while_another_does() -> None:
        with files.exported("b.txt", None) as path:
            path.write_text("whole")
            (folder / "b.txt").write_text("another's")

    with pytest.raises(Exception, match="at the same time; open the form again"):
        write_while_another_does()
    assert (folder / "b.txt").read_text() == "another's"
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt"]
