"""The operators of a review, as the App runs them: their forms, what they write, their notices."""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_plugin.scoring.suggest.join_bugs import UNCERTAIN
from tests.operator_requests import execute, filled_in, form_of, hidden_of, notices_of, request_of
from tests.review_fixtures import kinds, written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
runs = importlib.import_module("audit_plugin.fiftyone_io.runs")


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    """Ten samples, three of them misaligned, the worst first."""
    made = make_dataset(10)
    written(made, (4, 1, 6))
    yield made
    importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions").ledger().delete_many({"dataset": made._doc.id})


def notices(name: str, data: Any, selected: tuple[str, ...] = (), **params: Any) -> tuple[list[str], dict[str, Any]]:
    """Run an operator; (its notices, its results)."""
    results, steps = execute(name, filled_in(name, data, params, selected=list(selected)))
    return notices_of(steps), results


def test_a_key_never_replaces_a_decision_unasked(dataset: Any) -> None:
    """Of the open sample: the reviewer may not see that somebody, or another tab, decided on it before."""
    ids = dataset.values("id")

    def press(decision: str, **more: str) -> tuple[list[str], Any]:
        params = {"decision": decision, "from_modal": True, **more}
        results, steps = execute("decide", filled_in("decide", dataset, params, current_sample=ids[4]))
        return [step["params"]["message"] for step in steps if step["operator_uri"].endswith("notify")], results

    fio.decide(dataset, ids[4], "remove", "audit", reviewer="ann")
    messages, results = press("keep")
    assert messages == ["This sample was decided before: remove by ann. Press the key again to replace that decision."]
    (made,) = fio.decisions(dataset)
    assert (results["decided"], results["held"]) == (0, made.id)
    fio.decide(dataset, ids[4], "unsure", "audit", reviewer="bob")  # meanwhile
    assert "unsure by bob" in press("keep", seen=results["held"])[0][0]
    again = press("keep")[1]["held"]
    assert press("keep", seen=again)[1]["decided"] == 1
    assert [made.kind for made in fio.decisions(dataset)] == ["remove", "unsure", "keep"]


def test_a_selection_is_decided_and_undone(dataset: Any) -> None:
    ids = dataset.values("id")
    messages, results = notices("decide", dataset, (ids[4], ids[6]), decision="keep", note="both fine")
    assert messages == ["Keep: 2 samples · 2 of 3 decided"]
    assert len(results.pop("token")) > 64  # for the next key
    assert results == {"decided": 2, "done": 2, "total": 3}
    assert notices("decide", dataset, decision="keep")[0][0].startswith("no sample is open or selected")
    assert notices("undo_decision", dataset)[0] == ["Undone: 2 decisions"]
    assert notices("undo_decision", dataset)[0] == ["You have no decision to undo"]
    assert kinds(dataset) == [None] * 10


def test_a_bulk_decision_shows_the_count_first(dataset: Any) -> None:
    form = form_of("decide_flagged", dataset, kind="misaligned", decision="relabel")
    assert "Relabel 3 samples." in json.dumps(form["count"])
    messages = notices("decide_flagged", dataset, kind="misaligned", decision="relabel")[0]
    assert messages == ["Relabel: 3 samples decided"]
    assert [d.text for d in fio.decisions(dataset)] == ["better 4", "better 1", "better 6"]
    messages = notices("decide_flagged", dataset, kind="misaligned", decision="keep")[0]
    assert messages[0].startswith("no undecided samples match")
    assert form_of("decide_flagged", dataset, kind="misaligned", decision="keep")["count"]["invalid"]


def test_a_repair_is_accepted(dataset: Any) -> None:
    assert form_of("decide_repair", dataset)["no_repair"]["invalid"]
    results = dataset.load_run_results("audit", cache=False)
    results.summary = {**results.summary, "repairs": [{"kind": "shift", "rows": [1, 4, 6], "sentence": "why"}]}
    runs.fors.Run.save_run_results(dataset, "audit", results, cache=False)
    importlib.import_module("audit_plugin.fiftyone_io.results.tables")._tables.clear()
    assert form_of("decide_repair", dataset)["repair"]["type"]["values"] == ["why"]
    messages = notices("decide_repair", dataset, repair="why")[0]
    assert messages == ["Relabel: 3 samples decided; apply the decisions to change the captions"]
    assert notices("decide_repair", dataset, repair="another")[0] == ["The form is out of date; open it again"]


def test_a_batch_asks_about_the_rows_at_an_uncertain_end(dataset: Any) -> None:
    repair = {"kind": "shift", "rows": [1, 4, 6], "uncertain": [6], "same": [], "sentence": "why"}
    results = dataset.load_run_results("audit", cache=False)
    results.summary = {**results.summary, "repairs": [repair]}
    runs.fors.Run.save_run_results(dataset, "audit", results, cache=False)
    sample = dataset[dataset.values("id")[6]]
    sample["audit_reason"] = f"{UNCERTAIN}why"
    sample.save()
    importlib.import_module("audit_plugin.fiftyone_io.results.tables")._tables.clear()
    form = form_of("decide_repair", dataset)
    assert form["uncertain"]["default"] is False
    assert "Relabel the 1 sample at the uncertain end as well" in json.dumps(form["uncertain"])
    assert notices("decide_repair", dataset, repair="why")[0] == [
        "Relabel: 2 samples decided; apply the decisions to change the captions"
    ]
    assert notices("decide_repair", dataset, repair="why", uncertain=True)[0] == [
        "Relabel: 3 samples decided; apply the decisions to change the captions"
    ]


def upload(path: Path) -> dict[str, Any]:
    """A file as the App sends it."""
    return {"name": path.name, "content": base64.b64encode(path.read_bytes()).decode()}


def test_exports_come_back_in(dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_EXPORT_DIR", str(tmp_path))
    ids = dataset.values("id")
    fio.decide(dataset, ids[4], "remove", note="=cmd|' /C calc'!A0")
    table, removed = tmp_path / "made.csv", tmp_path / "removed.txt"
    assert notices("export_review", dataset, what="decisions", decisions="made.csv")[0] == [
        "Wrote 1 decision to made.csv"
    ]
    fio.apply(dataset)
    notices("export_review", dataset, what="removed", removed="removed.txt")
    assert removed.read_text().split() == [ids[4]]
    name = f"{dataset.name}-clean"
    assert notices("export_review", dataset, what="dataset", dataset=name)[0] == [
        f"Created dataset {name!r} with 9 samples"
    ]
    fo.delete_dataset(name)
    assert notices("import_decisions", dataset, file=upload(table))[0] == [
        "0 new decisions"
    ]  # the ledger has it already
    fio.undo(dataset)


def test_the_report_is_downloaded_and_the_server_keeps_nothing(
    dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_EXPORT_DIR", str(tmp_path / "exports"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    form = form_of("export_review", dataset, what="report")
    assert "No file of it is kept on the server" in form["report"]["view"]["description"]
    steps = execute("export_review", filled_in("export_review", dataset, {"what": "report", "report": "mine.html"}))[1]
    (download,) = [step["params"] for step in steps if step["operator_uri"].endswith("browser_download")]
    assert download["filename"] == "mine.html"
    start, _, content = download["url"].partition(",")
    assert start == "data:text/html;base64"
    assert "Audit report" in base64.b64decode(content).decode()
    assert re.fullmatch(r"Downloaded the report \([\d.]+ MB\) as mine.html", notices_of(steps)[0])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_is_replaced_only_as_it_was_shown(dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_EXPORT_DIR", str(tmp_path))
    chosen = {"what": "removed", "removed": "ids.txt"}
    notices("export_review", dataset, **chosen)
    (tmp_path / "ids.txt").write_text("of the user")
    form = form_of("export_review", dataset, **chosen)
    assert "Replace the file ids.txt (written " in form["replace"]["view"]["label"]
    assert form["replace"]["invalid"]
    assert "tick to replace it" in notices("export_review", dataset, **chosen)[0][0]
    assert (tmp_path / "ids.txt").read_text() == "of the user"
    request = filled_in("export_review", dataset, {**chosen, "replace": True})
    (tmp_path / "ids.txt").write_text("changed since it was shown")
    assert notices_of(execute("export_review", request)[1]) == ["The form is out of date; open it again"]
    assert (tmp_path / "ids.txt").read_text() == "changed since it was shown"
    assert notices("export_review", dataset, **chosen, replace=True)[0] == ["Wrote 0 ids to ids.txt"]
    assert os.listdir(tmp_path) == ["ids.txt"]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/cron.d/x.txt", "../x.txt", "a/b.txt", "a\\b.txt", "a:b.txt", ".ssh.txt", "-rf.txt", "~x.txt", "con.txt",
        "x.txt.", " x.txt", "x\0.txt", "x\ud800.txt", "x\n.txt", "x\u202e.txt", "x" * 300 + ".txt", "x.exe",
        "authorized_keys", ".txt",
    ],
)  # fmt: skip
def test_an_export_takes_no_paths_but_names(
    dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AUDIT_EXPORT_DIR", str(tmp_path / "exports"))
    form = form_of("export_review", dataset, what="removed", removed=name)
    assert form["refused"]["invalid"]
    assert "token" not in form
    token = {"token": hidden_of(form_of("export_review", dataset, what="removed"))["token"]}
    request = request_of(dataset, {"what": "removed", "removed": name, **token})
    (message,) = notices_of(execute("export_review", request)[1])
    assert "file name" in message or "U+" in message
    assert [str(path) for path in tmp_path.rglob("*")] in ([], [str(tmp_path / "exports")])


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_an_export_replaces_no_links_folders_or_devices(
    dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("AUDIT_EXPORT_DIR", str(tmp_path))
    target, place = tmp_path / "of-the-user", tmp_path / "ids.txt"
    target.write_text("precious")
    {"link": lambda: place.symlink_to(target), "folder": place.mkdir, "pipe": lambda: os.mkfifo(place)}[kind]()
    before = os.lstat(place)
    (message,) = notices("export_review", dataset, what="removed", removed="ids.txt", replace=True)[0]
    assert "out of date" in message
    assert (
        "is not a regular file"
        in form_of("export_review", dataset, what="removed", removed="ids.txt")["refused"]["error_message"]
    )
    assert os.lstat(place) == before
    assert target.read_text() == "precious"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"name": "x.csv", "content": "not base64!"}, "did not arrive"),
        ({"name": "x.exe", "content": "eA=="}, "does not end in .csv or .jsonl or .json or .xml"),
        ({"name": "/etc/passwd"}, "does not end in"),
        ({"name": "x.csv"}, "content of the file"),
        ("/etc/passwd", "must be an uploaded file"),
        (None, "no file was chosen"),
    ],
)
def test_only_uploaded_tables_are_imported(dataset: Any, file: Any, message: str) -> None:
    assert message in notices("import_decisions", dataset, file=file, path="/etc/passwd")[0][0]


def test_without_an_audit_every_operator_says_so(make_dataset: Callable[..., Any]) -> None:
    bare = make_dataset(4)
    for name, params in (
        ("decide", {"decision": "keep"}),
        ("open_next", {}),
        ("decide_flagged", {"kind": "outlier", "decision": "keep"}),
        ("decide_repair", {"repair": "x"}),
        ("start_spot_check", {"size": 4}),
        ("export_review", {"what": "report", "report": "x.html"}),
    ):
        ids, sentence = bare.values("id")[:1], f"dataset {bare.name!r} has no audit; run one first"
        token = importlib.import_module("audit_plugin.fiftyone_io.tokens").new_token(
            bare, name, ids if name == "decide" else None
        )
        request = request_of(bare, {**params, "token": token}, selected=ids)
        assert notices_of(execute(name, request)[1]) == [sentence], name
