"""The lease of a dataset: one process at a time changes it, whatever the machine; and its counter, for order.

It is a document in the database with an owner and an expiry, which a thread of the owner renews. A lease whose owner
died is taken over: at once where the process can be seen to be dead, else when it has expired. All times are the
database server's, so that clocks of machines may differ.

Operations that did not end, since their process was killed or an error came, are remembered by their owners: a command
that failed is given again, though all that it asked for may be done. What an operation writes bears its owner.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import fiftyone.core.odm as foo
import psutil
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from pymongo import ReturnDocument, WriteConcern
from pymongo.errors import PyMongoError

from audit_plugin.arrays import AuditError

from .database import AWARE

LEASES = "audit_plugin.leases"
EXPIRY = timedelta(seconds=30)  # after the last renewal
RENEWAL_SECONDS = 5.0
POLL_SECONDS = 0.1
WAIT_SECONDS = 2.0  # for a short operation of another process
RESULT_WAIT_SECONDS = 30.0  # by what was computed for minutes or hours, and is to be written now
MOST_INTERRUPTED = 50  # operations that are remembered
JOURNALED = WriteConcern(w=1, j=True)  # an acknowledged write, and all before it, survives a kill of the database

_owners: set[str] = set()  # owners of the leases that this process has
_of_thread = threading.local()  # `leases`: (process, dataset) -> the lease that this thread has


class Lease:
    """The right to change a dataset, until it is released or taken over."""

    def __init__(self, dataset: ObjectId, name: str, doing: str) -> None:
        self.dataset, self.name, self.doing = dataset, name, doing
        self.owner = uuid.uuid4().hex
        self.interrupted: tuple[str, ...] = ()  # owners whose operation did not end, oldest first
        self._settled: list[str] = []
        self._released = threading.Event()

    def check(self) -> None:
        """Raise an `AuditError` if another process took the lease over, because this one did not answer for long.

        Called before every write that cannot be taken back, so that at most the one under way lands beside the other's.
        """
        now = _leases().find_one({"_id": self.dataset})
        if now is None:
            raise AuditError(f"dataset {self.name!r} was deleted while {self.doing}; choose another dataset")
        if now.get("owner") != self.owner:
            raise AuditError(
                f"{_place(now)} took over dataset {self.name!r} while {self.doing} stood still for more than "
                f"{EXPIRY.seconds} s; repeat the command"
            )

    def is_lost(self) -> bool:
        """Whether another process took the lease over."""
        return _leases().find_one({"_id": self.dataset, "owner": self.owner}, {"_id": 1}) is None

    def settle(self, owner: str) -> None:
        """An interrupted operation has been finished or repeated: forget it, once this one ends."""
        self._settled.append(owner)

    def acquire(self, wait: float) -> None:
        """Take the lease, as soon as it is free within `wait` seconds.

        Raises:
            AuditError: another process, or another thread of this one, has it.
        """
        deadline = time.monotonic() + wait
        _owners.add(self.owner)  # before another thread can see the lease
        while not self._take() and not self._take_over():
            if time.monotonic() >= deadline:
                _owners.discard(self.owner)
                raise AuditError(self._refusal())
            time.sleep(POLL_SECONDS)
        threading.Thread(target=self._renew, name="audit lease", daemon=True).start()

    def release(self, failed: bool = False) -> None:
        """Give the lease back; all that was written before is durable then. One that `failed` is remembered."""
        self._released.set()
        remembered = {"$not": {"$in": ["$$this", self._settled]}}
        left: Any = {"$filter": {"input": _remembered(), "cond": remembered}}
        interrupted = _last(left, [self.owner]) if failed else left
        nobody = {"owner": None, "doing": "", "expires": None, "interrupted": interrupted}
        try:
            leases = _leases().with_options(write_concern=JOURNALED)
            leases.update_one({"_id": self.dataset, "owner": self.owner}, [{"$set": nobody}])
        finally:
            _owners.discard(self.owner)  # where the database was lost, the next operation takes it over

    def _take(self) -> bool:
        """Take a lease that nobody has, or that has expired."""
        expired = {"$expr": {"$lt": ["$expires", "$$NOW"]}}
        free = {"_id": self.dataset, "$or": [{"owner": None}, expired]}
        if self._claim(free):
            return True
        # MongoDB inserts no document for such a query
        first = _leases().update_one({"_id": self.dataset}, {"$setOnInsert": {"owner": None}}, upsert=True)
        return first.upserted_id is not None and self._take()

    def _take_over(self) -> bool:
        """Take the lease of a process of this machine that is dead, or one that this process could not give back."""
        other = _leases().find_one({"_id": self.dataset})
        if other is None or other.get("machine") != machine_id():
            return False
        is_own = other.get("pid") == os.getpid()
        if other["owner"] in _owners if is_own else is_alive(other.get("pid")):
            return False
        return self._claim({"_id": self.dataset, "owner": other["owner"]})

    def _claim(self, query: dict[str, Any]) -> bool:
        """Become the owner of the lease, if it is as the query says; a former owner's operation was interrupted."""
        facts = {
            "owner": self.owner,
            "doing": self.doing,
            "host": socket.gethostname(),
            "machine": machine_id(),
            "pid": os.getpid(),
        }
        literal = {name: {"$literal": value} for name, value in facts.items()}  # a name may begin with a dollar
        former = {"$cond": [{"$ifNull": ["$owner", False]}, ["$owner"], []]}
        is_same = {"$and": [{"$eq": [f"${name}", literal[name]]} for name in ("machine", "pid")]}
        other = {"$cond": [is_same, "$other", {"host": "$host", "pid": "$pid"}]}  # the last process before this one
        times = {"since": "$$NOW", "expires": _expiry()}
        own = {**literal, **times, "interrupted": _last(_remembered(), former), "other": other}
        lease = _leases().find_one_and_update(query, [{"$set": own}], return_document=ReturnDocument.AFTER)
        if lease is None:
            return False
        self.interrupted = tuple(lease["interrupted"])
        return True

    def _renew(self) -> None:
        while not self._released.wait(RENEWAL_SECONDS):
            with contextlib.suppress(PyMongoError):  # the database may come back before the lease expires
                _leases().update_one({"_id": self.dataset, "owner": self.owner}, [{"$set": {"expires": _expiry()}}])

    def _refusal(self) -> str:
        other = _leases().find_one({"_id": self.dataset}) or {}
        if not other.get("owner"):
            return f"dataset {self.name!r} is being changed by others all the time; repeat the command"
        since = f"{other['since']:%Y-%m-%d %H:%M:%S} UTC"
        return (
            f"dataset {self.name!r} is being changed ({other['doing']}, by {_place(other)}, since {since}); wait until "
            "that is done and repeat the command"
        )


@contextlib.contextmanager
def leased(dataset: SampleCollection, doing: str, wait: float = WAIT_SECONDS) -> Iterator[Lease]:
    """Hold the lease of a dataset while its block runs; a thread that has it already goes on with it.

    Args:
        dataset: the dataset, or a view of it.
        doing: what others read who are refused, such as "applying decisions".
        wait: seconds that another's operation is waited for.

    Raises:
        AuditError: another process, or thread, is changing the dataset; it is named.
    """
    root = dataset._root_dataset
    leases = _leases_of_thread()
    key = os.getpid(), root._doc.id  # a forked child has no lease of its parent's
    if key in leases:
        yield leases[key]
        return
    lease = Lease(root._doc.id, root.name, doing)
    lease.acquire(wait)
    leases[key] = lease
    try:
        yield lease
    except BaseException:
        with contextlib.suppress(PyMongoError):  # the first error is the one to be read
            lease.release(failed=True)
        raise
    else:
        lease.release()
    finally:
        del leases[key]


def check_lease(dataset: SampleCollection) -> None:
    """Raise an `AuditError` if the lease of a dataset that this thread has was taken over: call it before a write.

    Raises:
        RuntimeError: this thread has no lease of the dataset.
    """
    root = dataset._root_dataset
    lease = _leases_of_thread().get((os.getpid(), root._doc.id))
    if lease is None:
        raise RuntimeError(f"dataset {root.name!r} is written to without its lease")
    lease.check()


def last_other_holder(dataset: SampleCollection) -> str:
    """`process 12 on host`: who had the lease of a dataset last, before the process that has it; "" if not known."""
    lease = _leases().find_one({"_id": dataset._root_dataset._doc.id}) or {}
    other = lease.get("other") or {}
    return _place(other) if "pid" in other else ""


def next_number(dataset: SampleCollection) -> int:
    """The next number of the dataset's counter, from 1: later records have higher numbers, whatever the clocks say."""
    query = {"_id": dataset._root_dataset._doc.id}
    document = _leases().find_one_and_update(
        query, {"$inc": {"last_number": 1}}, upsert=True, return_document=ReturnDocument.AFTER
    )
    return int(document["last_number"])


def _leases_of_thread() -> dict[tuple[int, ObjectId], Lease]:
    leases: dict[tuple[int, ObjectId], Lease] = _of_thread.__dict__.setdefault("leases", {})
    return leases


def _place(lease: dict[str, Any]) -> str:
    return f"process {lease['pid']} on {lease['host']}"


def _leases() -> Any:
    return foo.get_db_conn().get_collection(LEASES, codec_options=AWARE)


def _remembered() -> dict[str, Any]:
    return {"$ifNull": ["$interrupted", []]}


def _last(owners: Any, new: Any) -> dict[str, Any]:
    return {"$slice": [{"$concatArrays": [owners, new]}, -MOST_INTERRUPTED]}


def _expiry() -> dict[str, Any]:
    return {"$add": ["$$NOW", EXPIRY.seconds * 1000]}


@cache
def machine_id() -> str:
    """What processes that see each other have in common: the machine since it was started, and its process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {uuid.getnode()}"


def is_alive(pid: Any) -> bool:
    """Whether a process runs; a number that was given to another one since counts as alive until the lease expires."""
    try:
        return bool(psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
