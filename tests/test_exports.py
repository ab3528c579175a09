"""What leaves a review: clean copies, tables of decisions there and back, lists of what was removed."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_plugin.arrays import AuditError
from tests.review_fixtures import CrashError, crash_after, documents, kinds, written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")

HOSTILE = "=cmd|' /C calc'!A0 <script>alert(1)</script>\x00\x1b[31m\u202e\r\nend"


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    made = make_dataset(6)
    written(made, (4, 1))
    return made


def test_a_clean_copy_lacks_the_removed_and_bears_the_new_texts(dataset: Any) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, ids[0], "remove")
    fio.decide(dataset, ids[1], "relabel", text="new")
    fio.apply(dataset)
    name = f"{dataset.name}-clean"
    clean = fio.export_clean(dataset, name)
    try:
        assert clean.persistent
        assert clean.values("caption") == dataset.values("caption")[1:]
        assert fio.decisions(clean) == []
        with pytest.raises(AuditError, match="exists already"):
            fio.export_clean(dataset, name)
    finally:
        clean.delete()
    assert len(dataset) == 6
    assert fio.clean_view(dataset).values("id") == ids[1:]


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_ledger_goes_out_and_comes_back(dataset: Any, tmp_path: Path, ending: str) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, ids[0], "relabel", text=HOSTILE, note=HOSTILE, reviewer="ann")
    fio.decide(dataset, ids[1:3], "remove", reviewer="ann")
    fio.undo_last(dataset, "ann")
    path = tmp_path / f"decisions{ending}"
    assert fio.export_decisions(dataset, path) == 5
    assert fio.import_decisions(dataset, path) == 0  # all known
    raw = path.read_bytes()
    assert not {0, 27} & set(raw)
    assert "\u202e".encode() not in raw
    assert b",=cmd" not in raw
    before, shown = fio.current_decisions(dataset).current, kinds(dataset)
    ledger = importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions").ledger()
    ledger.delete_many({"dataset": dataset._doc.id})
    assert fio.import_decisions(dataset, path) == 5
    found = fio.current_decisions(dataset).current
    assert {k: (d.kind, d.text, d.note, d.time, d.id, d.digest) for k, d in found.items()} == {
        k: (d.kind, d.text, d.note, d.time, d.id, d.digest) for k, d in before.items()
    }
    assert kinds(dataset) == shown


def test_decisions_made_elsewhere(dataset: Any, tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    files = dataset.values("filepath")
    path.write_text(f"sample,kind,text,note\n{files[0]},remove,,bad\n{files[1]},relabel,'=new,\n", encoding="utf-8")
    assert fio.import_decisions(dataset, path, "audit", key="filepath", reviewer="cid") == 2
    assert kinds(dataset)[:2] == ["remove", "relabel"]
    found = {d.kind: d for d in fio.decisions(dataset)}
    assert (found["relabel"].text, found["relabel"].reviewer, found["relabel"].source) == ("=new", "cid", "import")
    assert fio.apply(dataset).counts["relabeled"] == 1
    assert dataset.values("caption")[1] == "=new"


def test_a_table_with_a_bad_row_changes_nothing(dataset: Any, tmp_path: Path) -> None:
    ids, before = dataset.values("id"), documents(dataset, but=())
    for name, text, words in (
        ("a.csv", f"sample,kind\n{ids[0]},keep\n{'0' * 24},keep\n", "0{24} is not a sample"),
        ("b.csv", f"sample,kind\n{ids[0]},vanish\n", "row 2 .*'vanish'"),
        ("c.txt", "", "not as 'c.txt'"),
        ("d.jsonl", json.dumps({"sample": ids[0]}), "row 1 .* no 'kind'"),
        ("e.csv", b"\xff\xfe", "not UTF-8"),
    ):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(AuditError, match=words):
            fio.import_decisions(dataset, path)
    with pytest.raises(AuditError, match="cannot be read"):
        fio.import_decisions(dataset, tmp_path / "none.csv")
    with pytest.raises(AuditError, match="0 samples have the filepath"):
        fio.import_decisions(dataset, tmp_path / "a.csv", key="filepath")
    assert documents(dataset, but=()) == before
    assert fio.decisions(dataset) == []


def test_a_list_of_what_was_removed(dataset: Any, tmp_path: Path) -> None:
    ids, files = dataset.values("id"), dataset.values("filepath")
    fio.decide(dataset, ids[2:4], "remove")
    fio.apply(dataset)
    path = tmp_path / "removed.txt"
    assert fio.export_removed(dataset, path) == 2
    assert path.read_text().split() == ids[2:4]
    fio.export_removed(dataset, path, "filepath")
    assert path.read_text().splitlines() == files[2:4]
    with pytest.raises(AuditError, match="'nothing'"):
        fio.export_removed(dataset, path, "nothing")
    dataset.set_values("caption", {ids[2]: "two\nlines"}, key_field="id")
    with pytest.raises(AuditError, match="one line"):
        fio.export_removed(dataset, path, "caption")


# a table is read once, whatever happens


def test_rows_without_ids_are_read_once_and_equal_rows_count(dataset: Any, tmp_path: Path) -> None:
    ids = dataset.values("id")
    rows = [f"{ids[0]},remove,bad", f"{ids[1]},keep,", f"{ids[0]},keep,", f"{ids[1]},keep,"]
    path = tmp_path / "made.csv"
    path.write_text("\n".join(["sample,kind,note", *rows, ""]), encoding="utf-8")
    assert fio.import_decisions(dataset, path, reviewer="ann") == 4
    assert [d.kind for d in fio.decisions(dataset)] == ["remove", "keep", "keep", "keep"]
    assert len({d.batch for d in fio.decisions(dataset)}) == 1
    before = fio.decisions(dataset)
    assert fio.import_decisions(dataset, path, reviewer="ann") == 0
    path.write_text("\n".join(["sample,kind,note", *rows, rows[1], f"{ids[2]},keep,", ""]), encoding="utf-8")
    assert fio.import_decisions(dataset, path, reviewer="ann") == 2  # a third equal row, and another one
    assert fio.decisions(dataset)[:4] == before
    assert fio.import_decisions(dataset, path, reviewer="bob") == 6  # another reviewer's


def test_the_order_of_a_table_does_not_matter_where_it_has_numbers(dataset: Any, tmp_path: Path) -> None:
    name = dataset.first().id
    for kind in ("keep", "remove", "unsure"):
        fio.decide(dataset, name, kind, reviewer="ann")
    path = tmp_path / "decisions.csv"
    fio.export_decisions(dataset, path)
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([head, *reversed(rows), ""]), encoding="utf-8")
    importlib.import_module("audit_plugin.fiftyone_io.ledger.entries").ledger().delete_many({})
    assert fio.import_decisions(dataset, path) == 3
    assert [d.kind for d in fio.decisions(dataset)] == ["keep", "remove", "unsure"]


def test_an_import_that_was_killed_is_whole_when_it_is_repeated(
    dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, path = dataset.values("id"), tmp_path / "made.csv"
    for steps in range(40):
        lines = [f"{name},{kind},round {steps}" for name, kind in zip(ids, ["remove", "keep"] * 3, strict=True)]
        path.write_text("\n".join(["sample,kind,note", *lines, ""]), encoding="utf-8")
        before = fio.decisions(dataset)
        with monkeypatch.context() as patched:
            crash_after(patched, steps)
            try:
                fio.import_decisions(dataset, path, reviewer="ann")
            except CrashError:
                crashed = True
            else:
                crashed = False
        assert len(fio.decisions(dataset)) in (len(before), len(before) + 6), steps
        fio.import_decisions(dataset, path, reviewer="ann")
        found = fio.decisions(dataset)[len(before) :]
        assert [(d.sample, d.kind) for d in found] == list(zip(ids, ["remove", "keep"] * 3, strict=True)), steps
        assert kinds(dataset) == ["remove", "keep"] * 3
        if not crashed:
            break
    assert steps > 4


def test_a_copy_that_was_broken_off_is_removed_and_made(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = importlib.import_module("audit_plugin.fiftyone_io.ledger.exports")
    fio.decide(dataset, dataset.first().id, "remove")
    fio.apply(dataset)
    name, others = f"{dataset.name}-clean", set(fo.list_datasets())
    foreign = fo.Dataset("unfinished-work-of-somebody")
    for steps in range(30):
        with monkeypatch.context() as patched:
            crash_after(patched, steps, ("",))
            try:
                fio.export_clean(dataset, name)
            except CrashError:
                crashed = True
            else:
                crashed = False
        if crashed:
            assert len(fio.export_clean(dataset, name)) == 5, steps
        assert set(fo.list_datasets()) - others == {name, foreign.name}
        assert exports._exports().count_documents({"dataset": dataset._doc.id}) == 0
        fo.delete_dataset(name)
        if not crashed:
            break
    foreign.delete()
    assert steps > 4


def test_a_copy_that_is_out_of_date_is_not_taken_for_the_new_one(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{dataset.name}-clean"
    exports = importlib.import_module("audit_plugin.fiftyone_io.ledger.exports")
    with monkeypatch.context() as patched:
        real = exports._clone

        def clone(*args: Any) -> Any:
            real(*args)
            raise CrashError

        patched.setattr(exports, "_clone", clone)
        with pytest.raises(CrashError):
            fio.export_clean(dataset, name)
    assert fo.dataset_exists(name)
    fio.decide(dataset, dataset.first().id, "remove")
    with pytest.raises(AuditError, match="exists already"):
        fio.export_clean(dataset, name)
    fo.delete_dataset(name)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("sample,kind,seconds\nX,keep,nan\n", "row 2 .*seconds nan is not a time"),
        ("sample,kind,seconds\nX,keep,-1\n", "row 2 .*seconds"),
        (f"sample,kind,caption\nX,keep,{10**30}\n", "row 2 .*caption .* out of range"),
        ("sample,kind,reviewer\nX,keep,a\\ud800\n", "decision 1 .*reviewer"),
        ("sample,kind,id\nX,keep,a\\u0000b\n", "decision 1 .*id"),
        ("sample,kind,id\nX,keep,a\nX,remove,a\n", "'a' stands twice"),
        ("sample,kind\nX,undone\n", "decision 1 .*names no decision"),
        ("sample,kind,time\nX,keep,0001-01-01T00:00:00+23:59\n", "row 2"),
    ],
)
def test_hostile_tables_of_decisions(dataset: Any, tmp_path: Path, rows: str, words: str) -> None:
    path = tmp_path / "made.csv"
    path.write_text(rows.replace("X", dataset.first().id), encoding="utf-8")
    with pytest.raises(AuditError, match=words):
        fio.import_decisions(dataset, path)
    assert fio.decisions(dataset) == []


def test_hostile_json_of_decisions(dataset: Any, tmp_path: Path) -> None:
    path, name = tmp_path / "made.jsonl", dataset.first().id
    for values in (
        {"caption": True}, {"caption": 1.5}, {"seconds": "x"}, {"seconds": 1e400}, {"number": -1}, {"note": {"a": 1}},
        {"reviewer": "\ud800"}, {"time": 5}, {"kind": ["keep"]}, {"sample": "a\0"}, {"label": 3},
    ):  # fmt: skip
        path.write_text(json.dumps({"sample": name, "kind": "keep", **values}), encoding="utf-8")
        with pytest.raises(AuditError):
            fio.import_decisions(dataset, path)
    assert fio.decisions(dataset) == []


def test_what_is_no_file_or_no_name(dataset: Any, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    for path, words in (
        (pipe, "a named pipe, not a file"),
        ("a\0.csv", "not a path"),
        ("\ud800.csv", "path"),
        (5, "int"),
    ):
        with pytest.raises(AuditError, match=words):
            fio.import_decisions(dataset, path)
        if path != pipe:
            with pytest.raises(AuditError, match=words):
                fio.export_decisions(dataset, path)
    for name in ("a\0b", "\ud800", 7, "", "x" * 5000):
        with pytest.raises(AuditError):
            fio.export_clean(dataset, name)
    for key in ({"$gt": 1}, "a\0"):
        with pytest.raises(AuditError, match="key"):
            fio.import_decisions(dataset, tmp_path / "none.csv", key=key)
    for size, seed in (("4", 0), (1.5, 0), (10**400, 0), (4, -1), (4, "0"), (True, 0)):
        with pytest.raises(AuditError, match="size|seed"):
            fio.start_spot_check(dataset, "audit", size, seed)
    for change_set in (5, {"$ne": 1}, "a\0", "\ud800", "z" * 24):
        with pytest.raises(AuditError, match="change_set|change set"):
            fio.undo(dataset, change_set)
    for count in ("2", 1.5, -1, None, True):
        with pytest.raises(AuditError, match="confirm_count"):
            fio.delete_removed(dataset, count)
    for reviewer in ({"$ne": 1}, "\ud800", 5):
        with pytest.raises(AuditError, match="reviewer"):
            fio.undo_last(dataset, reviewer)
