"""The queued (delegated) runs of this plugin's operators: those that wait or go on, and how they are stopped."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionResult

from audit_plugin.arrays import AuditError

PLUGIN = "@multimem/audit/"  # before the names of its operators
GOES_ON = ("scheduled", "queued", "running")
STOPPED = "Stopped in the panel Audit"

_watched: dict[Any, set[str]] = {}  # id of a dataset -> ids of its runs that went on when a panel looked last
_lock = Lock()


def queued_runs(dataset: fo.Dataset) -> list[Any]:
    """FiftyOne's records of the runs on a dataset that wait or go on, oldest first."""
    service = DelegatedOperationService()
    runs = [run for state in GOES_ON for run in service.list_operations(dataset_id=dataset._doc.id, run_state=state)]
    return sorted((run for run in runs if run.operator.startswith(PLUGIN)), key=lambda run: str(run.id))


def ended_since(dataset: fo.Dataset, going: Iterable[str]) -> list[str]:
    """Ids of the runs on a dataset that went on when a panel of this server looked last, and do not any more.

    So a run that ended while no panel was open is known to the next one, once. `going`: ids of those that go on; ids of
    jobs of this process may be among them.
    """
    now = set(filter(ObjectId.is_valid, going))
    with _lock:
        before = _watched.get(dataset._doc.id, set())
        _watched[dataset._doc.id] = now
    return sorted(before - now)


def queued_run(dataset: fo.Dataset, name: str) -> Any:
    """FiftyOne's record of the run with this id on a dataset; None if there is none, as after it was deleted."""
    if not ObjectId.is_valid(name):
        return None
    run = _record(ObjectId(name))
    is_ours = run is not None and run.operator.startswith(PLUGIN) and run.dataset_id == dataset._doc.id
    return run if is_ours else None


def was_deleted(name: str) -> bool:
    """Whether this is the id of a run that FiftyOne has no record of any more."""
    return ObjectId.is_valid(name) and _record(ObjectId(name)) is None


def is_given_up(operation: Any) -> bool:
    """Whether the run with this id is to stop: its record is marked as failed, or was deleted on FiftyOne's page."""
    run = _record(operation)
    return run is None or run.run_state == "failed"


def _record(operation: Any) -> Any:
    """FiftyOne's record of a run; None if it was deleted."""
    try:
        return DelegatedOperationService().get(operation)
    except ValueError:  # FiftyOne's "No operation found"
        return None


def stop_queued(run: Any) -> None:
    """Mark a queued run as failed: the process that carries it out stops it, or never begins it.

    Raises:
        AuditError: it has ended.
    """
    is_left = run.run_state in GOES_ON and _record(run.id) is not None
    if not is_left:
        raise AuditError("this run has ended already")
    DelegatedOperationService().set_failed(run.id, ExecutionResult(error=STOPPED))
