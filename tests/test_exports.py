"""What leaves a review: clean copies, tables of decisions there and back, lists of what was removed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_plugin.arrays import AuditError
from tests.review_fixtures import documents, kinds, written

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
        ("e.csv", b"\xff\xfe", "not in UTF-8"),
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
