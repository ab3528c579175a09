"""The ledger in a real database: who decided what, what the samples bear, batches, stale, several reviewers."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.review import Decision, stale
from tests.conftest import caption
from tests.review_fixtures import CrashError, clock_moved, crash_after, documents, kinds, written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
contents = importlib.import_module("audit_plugin.fiftyone_io.read.contents")

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "=cmd|' /C calc'!A0 <script>alert(1)</script>\x00\x1b[31m\u202e\ud800"


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    made = make_dataset(6)
    written(made, (4, 1))
    return made


def test_a_decision_is_recorded_and_shown_on_the_sample(dataset: Any) -> None:
    ids = dataset.values("id")
    (made,) = fio.decide(dataset, ids[1], "remove", note="blurred", reviewer="ann", seconds=2.5)
    assert (made.sample, made.kind, made.caption, made.field, made.run) == (ids[1], "remove", 0, "caption", "audit")
    assert (made.reviewer, made.note, made.seconds, made.source) == ("ann", "blurred", 2.5, "person")
    assert fio.decisions(dataset) == [made]
    assert kinds(dataset) == [None, "remove", None, None, None, None]
    fio.decide(dataset, ids[1], "keep", reviewer="bob")
    assert kinds(dataset)[1] == "keep"
    assert [[d.reviewer for d in found] for found in fio.disagreements(dataset)] == [["ann", "bob"]]


def test_nothing_but_the_copy_changes_on_samples_and_undoing_takes_it_away(dataset: Any) -> None:
    before = documents(dataset, but=("last_modified_at",))
    ids = dataset.values("id")
    fio.decide(dataset, ids[:3], "remove", reviewer="ann")
    fio.decide(dataset, ids[2], "keep", reviewer="ann")
    assert kinds(dataset) == ["remove", "remove", "keep", None, None, None]
    assert len(fio.undo_last(dataset, "ann")) == 1
    assert kinds(dataset)[2] == "remove"
    assert fio.undo_last(dataset, "bob") == []
    assert len(fio.undo_last(dataset, "ann")) == 3  # the batch as one
    assert documents(dataset, but=("last_modified_at",)) == before
    assert len(fio.decisions(dataset)) == 8  # nothing is taken out of the ledger


def test_redo_brings_back_what_undo_took_and_the_last_decisions_are_listed(dataset: Any) -> None:
    ids = dataset.values("id")
    batch = fio.decide(dataset, ids[:3], "remove", reviewer="ann")
    (single,) = fio.decide(dataset, ids[2], "keep", reviewer="ann")
    (other,) = fio.decide(dataset, ids[2], "unsure", reviewer="bob")
    state = fio.current_decisions(dataset)
    assert fio.last_decisions(dataset) == [[other], [single], batch[::-1]]
    assert fio.last_decisions(dataset, 2) == [[other], [single]]
    fio.undo_last(dataset, "ann")
    fio.undo_last(dataset, "ann")
    assert fio.last_decisions(dataset) == [[other]]
    assert kinds(dataset) == [None, None, "unsure", None, None, None]
    assert fio.redo_last(dataset, "bob") == []
    assert fio.redo_last(dataset, "ann") == batch
    assert kinds(dataset)[:3] == ["remove", "remove", "unsure"]
    assert fio.redo_last(dataset, "ann") == [single]
    assert fio.redo_last(dataset, "ann") == []
    assert fio.current_decisions(dataset) == state
    fio.undo_last(dataset, "ann")
    fio.decide(dataset, ids[4], "keep", reviewer="ann")
    assert fio.redo_last(dataset, "ann") == []
    assert len(fio.decisions(dataset)) == 5 + 4 + 4 + 1 + 1  # nothing is taken out of the ledger


def test_a_sample_in_memory_shows_the_decision(dataset: Any) -> None:
    sample = dataset.first()
    fio.decide(dataset, sample.id, "unsure")
    assert sample["audit_decision"] == "unsure"


def test_relabel_takes_the_suggestion_or_typed_text(dataset: Any) -> None:
    ids = dataset.values("id")
    assert [d.text for d in fio.decide(dataset, [ids[4], ids[1]], "relabel")] == ["better 4", "better 1"]
    assert fio.decide(dataset, ids[0], "relabel", text="typed")[0].text == "typed"
    before = fio.decisions(dataset)
    with pytest.raises(AuditError, match=f"no suggestion for {ids[2]}"):
        fio.decide(dataset, [ids[1], ids[2]], "relabel")
    assert fio.decisions(dataset) == before


def test_hostile_text_is_kept_as_it_is_but_for_what_no_database_takes(dataset: Any) -> None:
    (made,) = fio.decide(dataset, dataset.first().id, "relabel", text=HOSTILE, note=HOSTILE)
    assert fio.decisions(dataset) == [made]
    assert made.text == made.note == HOSTILE.replace("\ud800", "?")


@pytest.mark.parametrize(
    ("ids", "kind", "more", "words"),
    [
        (["0" * 24], "keep", {}, "0{24} is not a sample"),
        (["nonsense"], "keep", {}, "nonsense is not a sample"),
        (None, "delete", {}, "'delete'"),
        (None, "keep", {"caption": 3}, "has no caption 3, but 1"),
        (None, "keep", {"run": "other"}, "no audit 'other'"),
    ],
)
def test_what_cannot_be_decided(dataset: Any, ids: Any, kind: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(AuditError, match=words):
        fio.decide(dataset, ids or dataset.first().id, kind, **more)
    assert fio.decisions(dataset) == []


def test_a_decision_goes_stale_with_the_text_or_the_file(dataset: Any, tmp_path: Path) -> None:
    copy = tmp_path / "a.png"
    sample = dataset.first()
    copy.write_bytes(Path(sample.filepath).read_bytes())
    sample.filepath = str(copy)
    sample.save()
    (made,) = fio.decide(dataset, sample.id, "keep")

    def now() -> str:
        return contents.items_of_rows(dataset, "audit", [sample.id])[sample.id].content.digest(0)

    assert not stale(made, now())
    copy.unlink()
    assert not stale(made, now())  # out of reach tells nothing
    copy.write_bytes(b"other bytes")
    assert stale(made, now())
    (again,) = fio.decide(dataset, sample.id, "keep")
    sample["caption"] = "another"
    sample.save()
    assert stale(again, now())


def test_decisions_outlive_audits(dataset: Any) -> None:
    ids = dataset.values("id")
    made = fio.decide(dataset, ids[:2], "remove")
    fio.delete_audit(dataset, "audit")
    assert fio.decisions(dataset) == made
    assert kinds(dataset)[:2] == ["remove", "remove"]
    written(dataset, (0, 5))
    assert fio.decisions(dataset, "audit") == made
    assert fio.decisions(dataset, "other") == []
    assert kinds(dataset)[:2] == ["remove", "remove"]
    assert "audit_decision" not in fio.text_fields(dataset)


def test_other_datasets_have_other_ledgers(dataset: Any, make_dataset: Callable[..., Any]) -> None:
    fio.decide(dataset, dataset.first().id, "keep")
    assert fio.decisions(make_dataset(2)) == []


def test_a_field_of_the_users_own_is_left_alone(make_dataset: Callable[..., Any]) -> None:
    own = make_dataset(2, caption=caption, audit_decision=lambda row: row)
    with pytest.raises(AuditError, match="'audit_decision' .* IntField"):
        fio.decide(own, own.first().id, "keep", run="")
    assert own.values("audit_decision") == [0, 1]


def test_a_sample_bears_the_most_urgent_of_its_captions(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(3, captions=lambda row: [f"a{row}", f"b{row}"])
    written(dataset, (1,), "captions")
    ids = dataset.values("id")
    fio.decide(dataset, ids[0], "keep")
    fio.decide(dataset, ids[0], "relabel", text="new", caption=1)
    assert kinds(dataset)[0] == "relabel"
    found = fio.current_decisions(dataset).current
    assert {key[2]: d.kind for key, d in found.items()} == {0: "keep", 1: "relabel"}
    assert {d.field for d in found.values()} == {"captions"}


def test_slices_of_a_group_share_decisions(make_groups: Callable[..., Any]) -> None:
    dataset = make_groups(3)
    config = AuditConfig(image="slice:picture", audio="slice:sound.filepath", text="slice:picture.caption")
    written(dataset, (1,), config=config)
    every = dataset.select_group_slices(_allow_mixed=True)
    by_slice = dict(zip(every.values("group.name"), every.values("id"), strict=True))  # of the last group
    (made,) = fio.decide(dataset, by_slice["clip"], "remove")
    assert made.sample == by_slice["picture"]
    assert made.field == "slice:picture.caption"
    assert every.match(fo.ViewField("audit_decision") == "remove").values("id") == [*by_slice.values()]


def test_objects_are_decided_by_their_own_ids(make_dataset: Callable[..., Any]) -> None:
    def boxes(row: int) -> Any:
        both = [fo.Detection(label=f"{name}{row}", bounding_box=[0.1, 0.1, 0.5, 0.5]) for name in "ab"]
        return fo.Detections(detections=both)

    dataset = make_dataset(3, boxes=boxes)
    patches = dataset.to_patches("boxes")
    written(patches, (2, 3), config=AuditConfig(text="boxes"))
    ids = patches.values("id")
    (made,) = fio.decide(dataset, ids[3], "relabel")
    assert (made.sample, made.label, made.text) == (dataset.values("id")[1], ids[3], "better 3")
    assert made.field == "boxes.detections.label"
    fio.decide(dataset, ids[2], "remove")
    assert kinds(dataset) == [None, "remove", None]


def test_two_processes_both_keep_their_decisions(dataset: Any) -> None:
    import fiftyone.core.odm as foo

    dataset.persistent = True
    ids = dataset.values("id")
    code = (
        "import sys, fiftyone as fo; from audit_plugin import fiftyone_io as fio\n"
        "d = fo.load_dataset(sys.argv[1])\n"
        "for at in range(5): fio.decide(d, d.values('id'), sys.argv[2], reviewer=sys.argv[3])\n"
    )
    port = foo.get_db_client().address[1]
    environment = {**os.environ, "FIFTYONE_DATABASE_URI": f"mongodb://localhost:{port}", "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", code, dataset.name, kind, name], env=environment)
        for kind, name in (("keep", "ann"), ("remove", "bob"))
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    found = fio.decisions(dataset)
    assert [sum(d.reviewer == name for d in found) for name in ("ann", "bob")] == [30, 30]
    assert len(fio.disagreements(dataset)) == 6
    fio.refresh(dataset)
    current = fio.current_decisions(dataset).current
    assert kinds(dataset) == [current[name, "", 0].kind for name in ids]


def test_decide_many_takes_each_decision_as_it_is(dataset: Any) -> None:
    ids = dataset.values("id")
    proposed = [Decision(ids[0], "keep", reviewer="a"), Decision(ids[1], "remove", reviewer="b", source="spot-check")]
    made = fio.decide_many(dataset, proposed)
    assert [(d.kind, d.reviewer, d.source) for d in made] == [("keep", "a", "person"), ("remove", "b", "spot-check")]
    assert len({d.batch for d in made}) == 1
    assert [len(fio.undo_last(dataset, name)) for name in "ab"] == [1, 1]


# all or none, once, and in the order of the counter


def test_half_a_batch_does_not_count_and_the_same_command_completes_it(
    dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, ids[0], "keep", reviewer="ann")
    before, shown = fio.decisions(dataset), kinds(dataset)
    for steps in range(40):
        with monkeypatch.context() as patched:
            crash_after(patched, steps)
            try:
                fio.decide(dataset, ids[:4], "remove", reviewer="ann")
            except CrashError:
                crashed = True
            else:
                crashed = False
        found = fio.decisions(dataset)
        assert len(found) in (len(before), len(before) + 4), steps
        if crashed:
            fio.decide(dataset, ids[:4], "remove", reviewer="ann")
        assert [d.kind for d in fio.decisions(dataset)[len(before) :]] == ["remove"] * 4, steps
        assert kinds(dataset) == ["remove"] * 4 + [None] * 2, steps
        assert len(fio.undo_last(dataset, "ann")) == 4
        assert kinds(dataset) == shown
        before = fio.decisions(dataset)
        if not crashed:
            break
    assert steps > 5


def test_taking_back_again_after_a_crash_takes_back_once(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = dataset.first().id
    for steps in range(40):
        for kind in ("keep", "unsure", "remove"):
            fio.decide(dataset, name, kind, reviewer="ann")
        with monkeypatch.context() as patched:
            crash_after(patched, steps)
            try:
                fio.undo_last(dataset, "ann")
            except CrashError:
                crashed = True
            else:
                crashed = False
        if crashed:
            assert [d.kind for d in fio.undo_last(dataset, "ann")] == ["remove"], steps
        assert kinds(dataset)[0] == "unsure", steps
        assert [d.kind for d in fio.undo_last(dataset, "ann")] == ["unsure"], steps  # this one is asked for again
        if not crashed:
            break
    assert steps > 5


def test_redoing_again_after_a_crash_redoes_once(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = dataset.first().id
    for steps in range(40):
        for kind in ("keep", "unsure", "remove"):
            fio.decide(dataset, name, kind, reviewer="ann")
        for _ in range(2):
            fio.undo_last(dataset, "ann")
        with monkeypatch.context() as patched:
            crash_after(patched, steps)
            try:
                fio.redo_last(dataset, "ann")
            except CrashError:
                crashed = True
            else:
                crashed = False
        if crashed:
            assert [d.kind for d in fio.redo_last(dataset, "ann")] == ["unsure"], steps
        assert kinds(dataset)[0] == "unsure", steps
        assert [d.kind for d in fio.redo_last(dataset, "ann")] == ["remove"], steps  # this one is asked for again
        if not crashed:
            break
    assert steps > 5


def test_a_batch_that_another_process_took_over_is_refused_and_counts_for_nothing(
    dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = importlib.import_module("audit_plugin.fiftyone_io.ledger.entries")
    lease = importlib.import_module("audit_plugin.fiftyone_io.lease")
    ids, real, calls = dataset.values("id"), entries.batches, []

    def late(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:  # numbers are taken, nothing is written: stands still, and another process decides
            lease._leases().update_one({"_id": dataset._doc.id}, [{"$set": {"expires": "$since"}}])
            time.sleep(0.01)
            other = threading.Thread(target=lambda: fio.decide(dataset, ids[5], "keep", reviewer="bob"))
            other.start()
            other.join(60)
        return real(*args)

    monkeypatch.setattr(entries, "batches", late)
    with pytest.raises(AuditError, match="took over dataset .* none of them was written"):
        fio.decide(dataset, ids[:3], "remove", reviewer="ann")
    assert [(d.reviewer, d.kind) for d in fio.decisions(dataset)] == [("bob", "keep")]
    fio.decide(dataset, ids[:3], "remove", reviewer="ann")
    assert [d.reviewer for d in fio.decisions(dataset)] == ["bob", "ann", "ann", "ann"]
    assert entries.ledger().count_documents({"dataset": dataset._doc.id}) == 4


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(days=st.lists(st.integers(-400, 400), min_size=4, max_size=4))
def test_the_last_is_the_last_whatever_the_clock_says(make_dataset: Callable[..., Any], days: list[int]) -> None:
    made = make_dataset(1)
    name, texts = made.first().id, [caption(0)]
    for at, day in enumerate(days):
        with clock_moved(day):
            fio.decide(made, name, "relabel", run="", text=f"text {at}", reviewer="ann")
            fio.apply(made)
        texts.append(f"text {at}")
        assert fio.current_decisions(made).current[name, "", 0].text == texts[-1]
    assert [d.text for d in fio.decisions(made)] == texts[1:]
    for at in reversed(range(len(days))):
        with clock_moved(days[at] // 2):
            assert [d.text for d in fio.undo_last(made, "ann")] == [texts[at + 1]]
            fio.undo(made)
        assert made.values("caption") == [texts[at]]


def test_entries_of_former_versions_come_first_and_without_a_head_all_count(dataset: Any) -> None:
    entries = importlib.import_module("audit_plugin.fiftyone_io.ledger.entries")
    lease = importlib.import_module("audit_plugin.fiftyone_io.lease")
    name = dataset.first().id
    (made,) = fio.decide(dataset, name, "keep", reviewer="ann")
    former = {**asdict(made), "dataset": dataset._doc.id, "kind": "remove", "id": "former"}
    del former["number"]
    entries.ledger().insert_one({**former, "time": made.time + timedelta(days=9)})
    assert [d.kind for d in fio.decisions(dataset)] == ["remove", "keep"]
    lease._leases().update_one({"_id": dataset._doc.id}, {"$unset": {"ledger": ""}})  # a database put back in parts
    assert [d.kind for d in fio.decisions(dataset)] == ["remove", "keep"]
    fio.decide(dataset, name, "unsure", reviewer="ann")
    assert [d.kind for d in fio.decisions(dataset)] == ["remove", "keep", "unsure"]


def test_more_ids_than_one_query_holds_are_looked_up(dataset: Any) -> None:
    entries = importlib.import_module("audit_plugin.fiftyone_io.ledger.entries")
    (made,) = fio.decide(dataset, dataset.first().id, "keep")
    others = [f"{number:064d}" for number in range(250_000)]  # together more than the 16 MB of a query
    assert entries.ids_in_ledger(dataset, [*others, made.id]) == {made.id}


# what is passed is checked at the door


class Odd:
    """A value that nobody expects."""


REFUSED: dict[str, list[Any]] = {
    "reviewer": ["\ud800", {"$ne": 1}, 5, b"ann", "a\0b", "x" * 2000, ["ann"]],
    "text": [{"a": 1}, 7, b"x", "x" * 1_000_001],
    "note": [Odd(), 3.5, ["x"]],
    "run": [{"$gt": ""}, 1, "a\0", "\udfff"],
    "seconds": ["3", float("nan"), float("inf"), -1, 10**400, {}, True, [1.0]],
    "caption": [-1, 2**40, 10**5000, "0", 1.5, True, [0]],
    "kind": [{"a": 1}, 3, "undone", "\ud800", "k" * 500],
    "ids": [5, {"a": 1}, b"abc", [7], [("x", "y")], [{"$ne": 1}], ["\ud800"], [["a", 1, 2]]],
}
NAMED = {"kind": "decision .* unknown", "ids": "id|caption"}


@pytest.mark.parametrize("parameter", REFUSED)
def test_hostile_parameters_are_refused_in_a_sentence(dataset: Any, parameter: str) -> None:
    for value in REFUSED[parameter]:
        values = {"ids": dataset.first().id, "kind": "relabel", "text": "new", parameter: value}
        with pytest.raises(AuditError, match=NAMED.get(parameter, parameter)) as caught:
            fio.decide(dataset, **values)
        assert len(str(caught.value)) < 300
        assert "\n" not in str(caught.value)
    assert fio.decisions(dataset) == []


def test_numbers_of_numpy_and_lists_of_rows_are_taken(dataset: Any) -> None:
    rows = [[name, np.int64(0)] for name in dataset.values("id")[:2]]
    made = fio.decide(dataset, rows, "keep", seconds=np.float32(1.5), caption=np.int32(0))
    assert [(d.caption, d.seconds) for d in made] == [(0, 1.5)] * 2
    assert fio.decisions(dataset) == made


def test_an_id_of_a_decision_is_given_once(dataset: Any) -> None:
    ids = dataset.values("id")
    fio.decide_many(dataset, [Decision(ids[0], "keep", id="one")])
    for proposed, words in (
        ([Decision(ids[1], "keep", id="one")], "'one' is in the ledger"),
        ([Decision(ids[1], "keep", id="two"), Decision(ids[2], "keep", id="two")], "'two' is given twice"),
    ):
        with pytest.raises(AuditError, match=words):
            fio.decide_many(dataset, proposed)
    assert len(fio.decisions(dataset)) == 1
