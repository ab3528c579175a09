"""Apply and undo in a real database: exactly what was decided changes, exactly that is taken back, crashes included."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from bson import ObjectId
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from tests.conftest import caption
from tests.review_fixtures import CrashError, crash_after, documents, written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
journal = importlib.import_module("audit_plugin.fiftyone_io.ledger.journal")

REMOVED = "audit:removed"


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    made = make_dataset(8)
    written(made, (4, 1))
    return made


def some_decided(dataset: Any) -> list[str]:
    """Two relabels, two removals, one keep; the ids of the dataset."""
    ids = dataset.values("id")
    fio.decide(dataset, ids[1], "relabel", text="new 1")
    fio.decide(dataset, ids[4], "relabel", text="new 4")
    fio.decide(dataset, ids[2:4], "remove")
    fio.decide(dataset, ids[5], "keep")
    return ids


def test_apply_changes_what_was_decided_and_undo_takes_it_back(dataset: Any) -> None:
    before, views = documents(dataset), dataset.list_saved_views()
    ids = some_decided(dataset)
    done = fio.apply(dataset)
    assert done.state == "applied"
    assert done.counts == {"relabeled": 2, "captions_removed": 0, "removed": 2, "brought_back": 0}
    texts = [caption(row) for row in range(8)]
    texts[1], texts[4] = "new 1", "new 4"
    assert dataset.values("caption") == texts
    assert dataset.match_tags(REMOVED).values("id") == ids[2:4]
    assert dataset.load_saved_view("audit_clean").values("id") == [*ids[:2], *ids[4:]]
    assert all(Path(path).exists() for path in dataset.values("filepath"))
    assert fio.apply(dataset).id == ""  # each decision is carried out once
    undone = fio.undo(dataset)
    assert (undone.id, undone.state) == (done.id, "undone")
    assert documents(dataset) == before
    assert dataset.list_saved_views() == views
    assert [c.state for c in fio.list_changes(dataset)] == ["undone"]
    with pytest.raises(AuditError, match="nothing to undo"):
        fio.undo(dataset)


def test_what_apply_would_do_is_said_before(dataset: Any) -> None:
    ids = some_decided(dataset)
    dataset[ids[1]].set_field("caption", "edited")
    sample = dataset[ids[1]]
    sample["caption"] = "edited"
    sample.save()
    dataset.delete_samples(ids[2])
    plan = fio.plan_of(dataset)
    assert [c.kind for c in plan.changes] == ["text", "removed"]
    assert [d.sample for d in plan.stale] == [ids[1]]
    assert [d.sample for d in plan.lost] == [ids[2]]
    done = fio.apply(dataset)
    assert (done.stale, done.lost) == (1, 1)
    assert dataset[ids[1]]["caption"] == "edited"


def test_a_removal_is_brought_back_by_a_later_decision(dataset: Any) -> None:
    ids = some_decided(dataset)
    fio.apply(dataset)
    fio.decide(dataset, ids[2], "keep")
    assert fio.apply(dataset).counts["brought_back"] == 1
    assert dataset.match_tags(REMOVED).values("id") == [ids[3]]
    fio.undo(dataset)
    assert dataset.match_tags(REMOVED).values("id") == ids[2:4]


def test_only_the_decisions_of_a_run_are_applied_if_one_is_named(dataset: Any) -> None:
    ids = some_decided(dataset)
    fio.decide(dataset, ids[7], "remove", run="")
    assert fio.apply(dataset, "audit").counts["removed"] == 2
    assert fio.apply(dataset).counts["removed"] == 1


def test_a_sample_in_memory_follows(dataset: Any) -> None:
    sample = dataset.first()
    fio.decide(dataset, sample.id, "relabel", text="new")
    fio.apply(dataset)
    assert sample["caption"] == "new"
    fio.undo(dataset)
    assert sample["caption"] == caption(0)


def test_undo_refuses_what_changed_meanwhile_unless_forced(dataset: Any) -> None:
    before = documents(dataset)
    ids = some_decided(dataset)
    fio.apply(dataset)
    sample = dataset[ids[4]]
    sample["caption"] = "by hand"
    sample.save()
    applied = documents(dataset)
    with pytest.raises(AuditError, match=f"caption of sample {ids[4]} was changed"):
        fio.undo(dataset)
    assert documents(dataset) == applied
    fio.undo(dataset, force=True)
    assert documents(dataset) == before


def test_an_earlier_change_set_can_be_undone_by_its_id(dataset: Any) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, ids[0], "relabel", text="one")
    first = fio.apply(dataset)
    fio.decide(dataset, ids[1], "relabel", text="two")
    fio.apply(dataset)
    fio.undo(dataset, first.id)
    assert dataset.values("caption")[:2] == [caption(0), "two"]
    for wrong in (first.id, "nonsense"):
        with pytest.raises(AuditError, match=wrong):
            fio.undo(dataset, wrong)


def test_a_view_of_the_users_own_is_left_alone(dataset: Any) -> None:
    dataset.save_view("audit_clean", dataset.limit(1))
    some_decided(dataset)
    before = documents(dataset)
    with pytest.raises(AuditError, match="'audit_clean'"):
        fio.apply(dataset)
    assert documents(dataset) == before
    assert len(dataset.load_saved_view("audit_clean")) == 1


# other places of texts


def test_lists_of_captions(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(3, captions=lambda row: [f"a{row}", f"b{row}", f"c{row}"])
    written(dataset, (1,), "captions")
    before, ids = documents(dataset), dataset.values("id")
    fio.decide(dataset, ids[0], "relabel", text="new", caption=2)
    fio.decide(dataset, ids[1], "remove", caption=0)
    fio.decide(dataset, ids[1], "relabel", text="other", caption=1)
    for at in range(3):
        fio.decide(dataset, ids[2], "remove", caption=at)
    done = fio.apply(dataset)
    assert dataset.values("captions") == [["a0", "b0", "new"], ["other", "c1"], ["a2", "b2", "c2"]]
    assert done.counts == {"relabeled": 1, "captions_removed": 1, "removed": 1, "brought_back": 0}
    assert fio.apply(dataset).id == ""
    assert fio.plan_of(dataset).stale == ()
    fio.undo(dataset)
    assert documents(dataset) == before


def test_labels_and_lists_of_labels(make_dataset: Callable[..., Any]) -> None:
    def many(row: int) -> Any:
        return fo.Classifications(classifications=[fo.Classification(label=f"k{at}", tags=["t"]) for at in range(2)])

    dataset = make_dataset(
        4, one=lambda row: fo.Classification(label=f"l{row}", confidence=0.5) if row else None, many=many
    )
    before, ids = documents(dataset), dataset.values("id")
    written(dataset, (1,), config=AuditConfig(text="one"))
    written(dataset, (1,), config=AuditConfig(text="many", run="second"))
    shape = documents(dataset)
    fio.decide(dataset, ids[0], "relabel", text="first")
    fio.decide(dataset, ids[1], "relabel", text="new")
    fio.decide(dataset, ids[2], "relabel", run="second", text="n1", caption=1)
    fio.decide(dataset, ids[3], "remove", run="second", caption=0)
    fio.apply(dataset)
    assert dataset.values("one.label") == ["first", "new", "l2", "l3"]
    assert dataset.values("one.confidence") == [None, 0.5, 0.5, 0.5]
    assert dataset.values("many.classifications.label")[2:] == [["k0", "n1"], ["k1"]]
    assert dataset.values("many.classifications.tags")[3] == [["t"]]
    fio.undo(dataset)
    assert documents(dataset) == shape
    for run in ("audit", "second"):
        fio.delete_audit(dataset, run)
    assert {k: set(d) for k, d in documents(dataset).items()} == {k: set(d) for k, d in before.items()}


def test_objects(make_dataset: Callable[..., Any]) -> None:
    def boxes(row: int) -> Any:
        both = [fo.Detection(label=f"{name}{row}", bounding_box=[0.1, 0.1, 0.5, 0.5]) for name in "ab"]
        return fo.Detections(detections=both)

    dataset = make_dataset(3, boxes=boxes)
    patches = dataset.to_patches("boxes")
    written(patches, (2, 3), config=AuditConfig(text="boxes"))
    before, ids = documents(dataset), patches.values("id")
    fio.decide(dataset, ids[1], "relabel", text="cat")
    fio.decide(dataset, ids[2], "remove")
    assert fio.apply(dataset).counts["removed"] == 1
    assert dataset.values("boxes.detections.label") == [["a0", "cat"], ["a1", "b1"], ["a2", "b2"]]
    assert dataset.count_label_tags("boxes")[REMOVED] == 1
    clean = dataset.load_saved_view("audit_clean")
    assert clean.values("boxes.detections.label") == [["a0", "cat"], ["b1"], ["a2", "b2"]]
    fio.undo(dataset)
    assert documents(dataset) == before


def test_groups(make_groups: Callable[..., Any]) -> None:
    dataset = make_groups(4, without=((2, "clip"),))
    config = AuditConfig(image="slice:picture", audio="slice:sound.filepath", text="slice:picture.caption")
    written(dataset, (1,), config=config)
    before, ids = documents(dataset), dataset.values("id")
    fio.decide(dataset, ids[1], "relabel", text="new")
    fio.decide(dataset, ids[2:], "remove")
    fio.apply(dataset)
    assert dataset.values("caption") == [caption(0), "new", caption(2), caption(3)]
    assert dataset.select_group_slices(_allow_mixed=True).match_tags(REMOVED).count() == 5
    assert dataset.load_saved_view("audit_clean").values("id") == ids[:2]
    fio.delete_removed(dataset, 5)
    assert dataset.values("id") == ids[:2]
    fio.undo(dataset)
    fio.undo(dataset)
    assert documents(dataset) == before


# deleting


def test_deleted_samples_come_back_with_everything(dataset: Any) -> None:
    ids = some_decided(dataset)
    dataset.select(ids[2]).tag_samples("mine")
    dataset.add_sample_field("odd", fo.DictField)
    dataset.set_values("odd", {ids[2]: {"nested": [1, 2.5, None, {"x": "\u202e"}]}}, key_field="id")
    fio.apply(dataset)
    before = documents(dataset, but=())
    for count in (1, 3):
        with pytest.raises(AuditError, match=f"2 samples .* not {count}"):
            fio.delete_removed(dataset, count)
    assert len(dataset) == 8
    files = dataset.values("filepath")
    assert fio.delete_removed(dataset, 2).counts == {"deleted": 2}
    assert dataset.values("id") == [*ids[:2], *ids[4:]]
    assert all(Path(path).exists() for path in files)
    with pytest.raises(AuditError, match=f"sample {ids[2]} was changed, or the sample deleted"):
        fio.undo(dataset, fio.list_changes(dataset)[0].id)
    fio.undo(dataset)
    assert documents(dataset, but=()) == before  # to the byte: not even the times differ
    assert sorted(dataset.values("id")) == sorted(ids)
    assert fio.delete_removed(dataset, 2).state == "applied"
    dataset._sample_collection.insert_one(dict(before[next(iter(before))], _id=ObjectId(ids[2])))
    with pytest.raises(AuditError, match=f"{ids[2]} is in .* again"):
        fio.undo(dataset)
    fio.undo(dataset, force=True)
    assert documents(dataset, but=()) == before


def test_frames_come_back_too(clips: list[str]) -> None:
    dataset = fo.Dataset()
    try:
        samples = [fo.Sample(filepath=path, caption=f"clip {row}") for row, path in enumerate(clips[:3])]
        for sample in samples:
            sample.frames[1] = fo.Frame(seen=fo.Classification(label="x"))
            sample.frames[2] = fo.Frame(seen=fo.Classification(label="y"))
        dataset.add_samples(samples)
        before, name = documents(dataset), samples[1].id
        fio.decide(dataset, name, "remove", run="")
        fio.apply(dataset)
        fio.delete_removed(dataset, 1)
        assert len(documents(dataset)) == 2 + 4
        fio.undo(dataset)
        fio.undo(dataset)
        assert documents(dataset) == before
        assert dataset[name].frames[2].seen.label == "y"
    finally:
        dataset.delete()


# crashes


def everything(dataset: Any) -> Any:
    return documents(dataset), sorted(dataset.list_saved_views())


DO = {"apply": fio.apply, "undo": fio.undo, "delete": lambda dataset: fio.delete_removed(dataset, 2)}


@pytest.mark.parametrize(
    ("prepared", "what", "reverse"),
    [
        ([], "apply", "undo"),
        (["apply"], "undo", "apply"),
        (["apply"], "delete", "undo"),
        (["apply", "delete"], "undo", "delete"),
    ],
    ids=["apply", "undo", "delete", "undelete"],
)
def test_a_crash_at_any_write_is_mended(
    dataset: Any, monkeypatch: pytest.MonkeyPatch, prepared: list[str], what: str, reverse: str
) -> None:
    monkeypatch.setattr(journal, "CHUNK", 2)
    some_decided(dataset)
    for step in prepared:
        DO[step](dataset)
    old, seen = everything(dataset), []
    for steps in range(60):
        with monkeypatch.context() as patched:
            crash_after(patched, steps)
            crashed = True
            try:
                DO[what](dataset)
                crashed = False
            except CrashError:
                pass
        if not crashed:
            break
        fio.recover(dataset)
        assert {c.state for c in fio.list_changes(dataset)} <= {"applied", "undone"}
        seen.append(everything(dataset))
        if seen[-1] != old:  # the recovery finished it
            DO[reverse](dataset)
        assert everything(dataset) == old, steps
    new = everything(dataset)
    assert new != old
    assert len(seen) >= 3
    assert all(found in (old, new) for found in seen)


def test_writers_that_are_quicker_win_and_are_named(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = some_decided(dataset)
    real = journal.write

    def late(root: Any, entries: list[Any], **how: Any) -> Any:
        root._sample_collection.update_one({"_id": ObjectId(ids[1])}, {"$set": {"caption": "quicker"}})
        return real(root, entries, **how)

    monkeypatch.setattr(importlib.import_module("audit_plugin.fiftyone_io.ledger.changes"), "write", late)
    done = fio.apply(dataset)
    monkeypatch.undo()
    assert done.missed == (ids[1],)
    dataset.reload()
    assert dataset.values("caption")[1] == "quicker"
    fio.undo(dataset)
    assert dataset.values("caption")[1] == "quicker"
    assert dataset.values("caption")[4] == caption(4)


class Reviewed(RuleBasedStateMachine):
    """Any sequence of decide, take back, apply, undo, delete and crash, against a model in plain Python."""

    make: Callable[..., Any]
    patch: pytest.MonkeyPatch

    @initialize()
    def start(self) -> None:
        self.dataset = self.make(3)
        self.original = documents(self.dataset)
        self.ids = self.dataset.values("id")
        self.now = {name: (caption(row), False) for row, name in enumerate(self.ids)}  # text, removed
        self.ledger: list[tuple[str, str, str]] = []  # sample, kind, text
        self.done: list[tuple[dict[str, Any], set[int]]] = []  # states before each change set, decisions carried out
        self.asked: dict[int, str] = {}  # decision -> text that it was decided on
        self.gone: set[int] = set()
        self.count = 0

    @rule(at=st.integers(0, 2), kind=st.sampled_from(["keep", "remove", "relabel"]), text=st.sampled_from(["x", "y=1"]))
    def decide(self, at: int, kind: str, text: str) -> None:
        name = self.ids[at]
        if name not in self.now:
            return
        fio.decide(self.dataset, name, kind, run="", text=text if kind == "relabel" else "", reviewer="ann")
        self.asked[len(self.ledger)] = self.now[name][0]
        self.ledger.append((name, kind, text))

    @precondition(lambda self: len(self.gone) < len(self.ledger))
    @rule()
    def take_back(self) -> None:
        fio.undo_last(self.dataset, "ann")
        self.gone.add(max(set(range(len(self.ledger))) - self.gone))

    def wanted(self) -> tuple[dict[str, Any], set[int]]:
        """What applying gives, and the decisions that it carries out."""
        latest = {self.ledger[n][0]: n for n in range(len(self.ledger)) if n not in self.gone}
        carried = {n for _, numbers in self.done for n in numbers}
        new, numbers = dict(self.now), set()
        for name, n in latest.items():
            _, kind, text = self.ledger[n]
            if name not in self.now:
                continue
            old, removed = self.now[name]
            fresh = n in carried or old == self.asked[n] or (kind == "relabel" and old == text)
            if not fresh:
                continue
            after = (old, removed)
            if kind == "remove" and n not in carried:
                after = (old, True)
            elif kind in ("keep", "relabel"):
                after = (text if kind == "relabel" and n not in carried else old, False)
            if after != (old, removed):
                new[name] = after
                numbers.add(n)
        return new, numbers

    @rule(crash=st.integers(0, 12))
    def apply(self, crash: int) -> None:
        new, numbers = self.wanted()
        if self.broken(crash, lambda: fio.apply(self.dataset)) and self.state() == self.now:
            return
        if new != self.now:
            self.done.append((self.now, numbers))
        self.now = new

    @precondition(lambda self: self.done)
    @rule(crash=st.integers(0, 12))
    def undo(self, crash: int) -> None:
        old, _ = self.done[-1]
        if self.broken(crash, lambda: fio.undo(self.dataset)) and self.state() == self.now:
            return
        self.now = old
        self.done.pop()

    @rule(crash=st.integers(0, 12))
    def delete(self, crash: int) -> None:
        marked = {name for name, (_, removed) in self.now.items() if removed}
        if self.broken(crash, lambda: fio.delete_removed(self.dataset, len(marked))) and self.state() == self.now:
            return
        if marked:
            self.done.append((self.now, set()))
            self.now = {name: state for name, state in self.now.items() if name not in marked}

    def broken(self, steps: int, do: Callable[[], Any]) -> bool:
        with self.patch.context() as patched:
            crash_after(patched, steps)
            try:
                do()
            except CrashError:
                crashed = True
            else:
                crashed = False
        if crashed:
            fio.recover(self.dataset)
        return crashed

    def state(self) -> dict[str, Any]:
        found = self.dataset._sample_collection.find()
        return {str(d["_id"]): (d["caption"], REMOVED in d["tags"]) for d in found}

    @rule()
    def look(self) -> None:
        assert self.state() == self.now

    def teardown(self) -> None:
        assert self.state() == self.now
        for _ in self.done:
            fio.undo(self.dataset)
        assert documents(self.dataset) == self.original
        assert not self.dataset.has_saved_view("audit_clean")
        self.dataset.delete()


def test_any_sequence_leaves_the_dataset_equal_to_its_model(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Reviewed.make, Reviewed.patch = staticmethod(make_dataset), monkeypatch
    monkeypatch.setattr(journal, "CHUNK", 2)
    few = settings(
        max_examples=int(os.environ.get("REVIEW_EXAMPLES", "12")),
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Reviewed, settings=few)


def test_ten_thousand_decisions_are_quick(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(10_000)
    ids = dataset.values("id")
    before = documents(dataset)
    server = psutil.Process(mongod())
    began = time.perf_counter(), spent(server)
    fio.decide(dataset, ids[:5000], "remove", run="")
    fio.decide(dataset, ids[5000:], "relabel", run="", text="new")
    decided = spent(server)
    assert fio.apply(dataset).counts["relabeled"] == 5000
    applied = spent(server)
    fio.undo(dataset)
    undone = spent(server)
    took = time.perf_counter() - began[0]
    parts = [decided - began[1], applied - decided, undone - applied]
    print("decide, apply, undo: CPU", *(f"{part:.1f}" for part in parts), f"s; {took:.1f} s in all")  # noqa: T201
    assert documents(dataset) == before
    assert sum(parts) < 20  # seconds of one core, the database's included: others may use this machine too


def mongod() -> int:
    """The process of the database."""
    import fiftyone.core.odm as foo

    return int(foo.get_db_client().admin.command("serverStatus")["pid"])


def spent(server: psutil.Process) -> float:
    """Seconds of CPU that this process and the database have used."""
    return time.process_time() + sum(server.cpu_times()[:2])
