"""The ledger in a real database: who decided what, what the samples bear, batches, stale, several reviewers."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.review import Decision, stale
from tests.conftest import caption
from tests.review_fixtures import documents, kinds, written

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


def test_a_clock_that_is_set_back_does_not_turn_decisions_round(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions")
    name = dataset.first().id
    fio.decide(dataset, name, "keep", reviewer="ann")

    class Earlier(module.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return module.datetime.__mro__[1].now(tz) - timedelta(days=1)

    monkeypatch.setattr(module, "datetime", Earlier)
    fio.decide(dataset, name, "remove", reviewer="ann")
    assert fio.current_decisions(dataset).current[name, "", 0].kind == "remove"


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
