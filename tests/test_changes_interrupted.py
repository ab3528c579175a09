"""Crashes and late writers: what was broken off is finished or undone, and any sequence is as its model."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from bson import ObjectId
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from audit_plugin.arrays import AuditError
from tests.conftest import caption
from tests.review_fixtures import CrashError, crash_after, documents, some_decided, written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
changes = importlib.import_module("audit_plugin.fiftyone_io.ledger.changes")
journal = importlib.import_module("audit_plugin.fiftyone_io.ledger.journal")
lease = importlib.import_module("audit_plugin.fiftyone_io.lease")

REMOVED = "audit:removed"


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    made = make_dataset(8)
    written(made, (4, 1))
    return made


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


# a process that stood still so long that another one took over


def overtaken(dataset: Any, other: Callable[[], Any]) -> None:
    """What another process does once the lease has expired; here a thread, which has a lease of its own."""
    leases = lease._leases()
    leases.update_one({"_id": dataset._doc.id}, [{"$set": {"expires": "$since"}}])
    time.sleep(0.01)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            other()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not errors, errors


def once_before(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, other: Callable[[], Any]) -> None:
    """Lets `other` happen before the first call of a function."""
    real, calls = getattr(place, name), []

    def late(*args: Any, **how: Any) -> Any:
        calls.append(name)
        if len(calls) == 1:
            other()
        return real(*args, **how)

    monkeypatch.setattr(place, name, late)


def test_a_late_write_after_others_undid_the_changes_is_taken_back(
    dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_decided(dataset)
    before = everything(dataset)
    once_before(monkeypatch, changes, "write", lambda: overtaken(dataset, lambda: fio.undo(dataset)))
    with pytest.raises(AuditError, match="took over dataset .* applying decisions"):
        fio.apply(dataset)
    dataset.reload()
    assert everything(dataset) == before
    assert [c.state for c in fio.list_changes(dataset)] == ["undone"]
    assert fio.apply(dataset).counts["removed"] == 2  # and the decisions can be carried out as ever


def test_a_late_undo_after_others_applied_again_is_taken_back(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    some_decided(dataset)
    fio.apply(dataset)
    applied = everything(dataset)
    once_before(monkeypatch, changes, "write", lambda: overtaken(dataset, lambda: fio.apply(dataset)))
    with pytest.raises(AuditError, match="took over dataset .* undoing changes"):
        fio.undo(dataset)
    dataset.reload()
    assert everything(dataset) == applied
    assert [c.state for c in fio.list_changes(dataset)] == ["undone", "applied"]


def test_a_late_deletion_after_others_put_the_samples_back_is_taken_back(
    dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_decided(dataset)
    fio.apply(dataset)
    before = everything(dataset)
    once_before(monkeypatch, fo.Dataset, "delete_samples", lambda: overtaken(dataset, lambda: fio.recover(dataset)))
    with pytest.raises(AuditError, match="another process changed change set .* undone now"):
        fio.delete_removed(dataset, 2)
    assert everything(dataset) == before


def test_a_planned_change_set_that_others_discard_changes_nothing(
    dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_decided(dataset)
    before = everything(dataset)
    once_before(monkeypatch, journal, "advance", lambda: overtaken(dataset, lambda: fio.recover(dataset)))
    sets, entries = journal.change_sets().count_documents({}), journal.journal().count_documents({})
    with pytest.raises(AuditError, match="took the change set for a broken one"):
        fio.apply(dataset)
    assert everything(dataset) == before
    assert (journal.change_sets().count_documents({}), journal.journal().count_documents({})) == (sets, entries)


def test_a_change_set_that_is_being_carried_out_is_not_discarded(dataset: Any) -> None:
    some_decided(dataset)
    number = ObjectId(fio.apply(dataset).id)
    entries = journal.journal().count_documents({"set": number})
    for state in ("writing", "undoing", "applied", "undone"):
        journal.change_sets().update_one({"_id": number}, {"$set": {"state": state}})
        assert not journal.discard(number)
        assert journal.state_of(number) == state
    assert journal.journal().count_documents({"set": number}) == entries > 0
    with pytest.raises(AuditError, match="another process changed change set .* undone now"):
        changes.finish(number, "writing", "applied")


# a command that failed after all was done, and is given again


def failing_at_the_end(monkeypatch: pytest.MonkeyPatch, command: Callable[[], Any]) -> None:
    """The command, whose process dies before it gives its lease back."""
    with monkeypatch.context() as patched:

        def die(*_: Any, **__: Any) -> None:
            raise CrashError

        patched.setattr(lease.Lease, "release", die)
        with pytest.raises(CrashError):
            command()
    lease._owners.clear()  # the process is gone


def test_undoing_again_after_a_crash_at_the_end_undoes_once(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = dataset.values("id")
    for row in range(3):
        fio.decide(dataset, ids[row], "relabel", text=f"new {row}")
        fio.apply(dataset)
    failing_at_the_end(monkeypatch, lambda: fio.undo(dataset))
    last = fio.list_changes(dataset)[-1].id
    assert fio.undo(dataset).id == last
    assert dataset.values("caption")[:3] == ["new 0", "new 1", caption(2)]
    fio.undo(dataset)  # this one is asked for again
    assert dataset.values("caption")[:3] == ["new 0", caption(1), caption(2)]


def test_deleting_again_after_a_crash_at_the_end_is_no_error(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    some_decided(dataset)
    fio.apply(dataset)
    failing_at_the_end(monkeypatch, lambda: fio.delete_removed(dataset, 2))
    assert fio.delete_removed(dataset, 2).counts == {"deleted": 2}
    assert len(fio.list_changes(dataset)) == 2
    with pytest.raises(AuditError, match="0 samples .* not 2"):
        fio.delete_removed(dataset, 2)


def test_undo_after_a_deletion_that_broke_off_undoes_only_that(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    some_decided(dataset)
    fio.apply(dataset)
    before = everything(dataset)
    with monkeypatch.context() as patched:

        def die(*_: Any, **__: Any) -> None:
            raise CrashError

        patched.setattr(fo.Dataset, "delete_samples", die)
        with pytest.raises(CrashError):
            fio.delete_removed(dataset, 2)
    assert (fio.undo(dataset).kind, everything(dataset)) == ("delete", before)


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
