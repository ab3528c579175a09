"""One process at a time changes a dataset; the lease of a dead one is taken over; the counter only rises."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from audit_plugin.arrays import AuditError

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
lease = importlib.import_module("audit_plugin.fiftyone_io.lease")

ROOT = Path(__file__).resolve().parents[1]
HOLDER = """
import sys, time
import fiftyone as fo
from audit_plugin.fiftyone_io.lease import leased
with leased(fo.load_dataset(sys.argv[1]), "writing audit '$NOW'"):
    print("leased", flush=True)
    time.sleep(60)
"""


def holder(name: str) -> subprocess.Popen[str]:
    """Another process that has the lease of a dataset."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", HOLDER, name], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "leased" not in (line := process.stdout.readline()):
        assert line, "the other process died"
    return process


def test_another_process_is_refused_until_the_owner_is_dead(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(2)
    process = holder(dataset.name)
    try:
        with (
            pytest.raises(AuditError, match=rf"writing audit '\$NOW', by process {process.pid} on .*repeat"),
            lease.leased(dataset, "deciding", wait=0.3),
        ):
            pass
    finally:
        process.kill()  # and not waited for: a dead process that is not collected yet is dead
    time.sleep(0.2)
    with lease.leased(dataset, "deciding", wait=2) as own:
        own.check()
    process.wait()


def test_a_thread_has_its_own_lease_once_and_again_and_another_waits(make_dataset: Callable[..., Any]) -> None:
    dataset, order = make_dataset(2), []

    def second() -> None:
        with lease.leased(dataset, "second", wait=10):
            order.append("second")

    with lease.leased(dataset, "first"), lease.leased(dataset.view(), "the same thread") as inner:
        assert inner.doing == "first"
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_lease_that_was_taken_over_is_noticed_and_not_released(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(2)
    with lease.leased(dataset, "sleeping long") as lost:
        epoch = {"$set": {"expires": lease._leases().find_one({"_id": lost.dataset})["since"]}}
        lease._leases().update_one({"_id": lost.dataset}, epoch)
        time.sleep(0.01)
        other = lease.Lease(lost.dataset, dataset.name, "another")
        other.acquire(wait=0)
        with pytest.raises(AuditError, match="took over dataset .* sleeping long"):
            lost.check()
    other.check()
    other.release()


def test_a_lease_is_renewed_while_it_lasts(make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.05)
    dataset = make_dataset(2)
    with lease.leased(dataset, "long work") as own:
        first = lease._leases().find_one({"_id": own.dataset})["expires"]
        time.sleep(0.4)
        assert lease._leases().find_one({"_id": own.dataset})["expires"] > first


def test_an_error_releases_the_lease(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(2)
    with pytest.raises(ValueError, match="own"), lease.leased(dataset, "failing"):
        raise ValueError("own")
    with lease.leased(dataset, "next", wait=0):
        pass


def test_numbers_rise_and_belong_to_the_dataset(make_dataset: Callable[..., Any]) -> None:
    one, other = make_dataset(2), make_dataset(2)
    with lease.leased(one, "counting"):
        assert [lease.next_number(one) for _ in range(3)] == [1, 2, 3]
    assert lease.next_number(other) == 1
    assert lease.next_number(one.limit(1)) == 4


def test_operations_that_did_not_end_are_remembered_until_they_are_settled(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(2)
    process = holder(dataset.name)
    process.kill()
    process.wait()
    first = lease.Lease(dataset._doc.id, dataset.name, "failing")
    first.acquire(wait=10)
    first.release(failed=True)
    owners = [*first.interrupted, first.owner]
    assert len(owners) == 2  # the one that was killed, and the one that failed
    with lease.leased(dataset, "next") as own:
        assert list(own.interrupted) == owners
        own.settle(owners[0])
    with lease.leased(dataset, "next") as own:
        assert list(own.interrupted) == owners[1:]
    for _ in range(lease.MOST_INTERRUPTED + 5):
        with pytest.raises(ValueError, match="own"), lease.leased(dataset, "failing"):
            raise ValueError("own")
    with lease.leased(dataset, "next") as own:
        assert len(own.interrupted) == lease.MOST_INTERRUPTED


def test_a_lease_that_could_not_be_given_back_is_taken_over_by_its_own_process(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(2)
    with monkeypatch.context() as patched:

        def lost() -> Any:
            raise AutoReconnect("the database is gone")

        with pytest.raises(AutoReconnect), lease.leased(dataset, "first") as own:
            patched.setattr(lease, "_leases", lost)
    with lease.leased(dataset, "second", wait=0) as other:
        assert other.interrupted == (own.owner,)
