"""The work that this process does for the App: how far it is, how long it will take, and how it is stopped.

Time left, from what was measured: the stage that runs takes as long for its remaining steps as for those that it did
itself; for the later stages their usual shares of the time are scaled by the time that the work took so far,

    left = (end of the stage - share) / (share per second of the stage) + (1 - end of the stage) * seconds / share.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import fiftyone as fo

from audit_plugin.arrays import AuditError

LEAST_SECONDS = 3.0  # of work before the time left is reported
KEPT_SECONDS = 3600.0  # after its end a job can still be asked how it ended
UNSTOPPABLE = ("write",)  # stages that change the dataset


class StoppedError(AuditError):
    """The work was stopped by a person."""


@dataclass
class Job:
    """Work on a dataset.

    Attributes:
        label: of the operator.
        stages: name -> usual share of the time, in their order.
        outcome: "" while it runs, then done, stopped or failed.
        stage: that runs, with the steps `done` of `total`.
        is_stopping: whether a person asked for its end.
        is_hidden: whether it goes on without its page: a person closed it, or asked the App not to open it again at
            each progress.
        is_reported: whether a person was shown how it ended.
        error: why it failed.
        share: of the whole work that is done, from 0 to 1; it never falls, whatever the order of the stages.
    """

    label: str
    stages: Mapping[str, float]
    clock: Callable[[], float] = time.monotonic
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    outcome: str = ""
    stage: str = ""
    done: int = 0
    total: int = 0
    is_stopping: bool = False
    is_hidden: bool = False
    is_reported: bool = False
    error: str = ""
    share: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    stage_started: float = 0.0
    first_done: int = 0  # of the stage, when it began: a resumed run finds some steps done

    def __post_init__(self) -> None:
        self.started = self.stage_started = self.clock()

    def report(self, stage: str, done: int, total: int) -> None:
        """Take progress from the work.

        Raises:
            StoppedError: a person asked for the end; not in a stage that changes the dataset.
        """
        if self.is_stopping and stage not in UNSTOPPABLE:
            raise StoppedError("stopped")
        if stage != self.stage:
            self.stage, self.stage_started, self.first_done = stage, self.clock(), done
        self.done, self.total = done, total
        begin, end = self._span()
        self.share = min(max(self.share, begin + (end - begin) * (done / total if total else 1.0)), 1.0)

    @property
    def text(self) -> str:
        """`Encode image: 40 of 120`."""
        return f"{self.stage.capitalize()}: {self.done:,} of {self.total:,}" if self.stage else "Starting"

    @property
    def seconds(self) -> float:
        """Since it began, or that it took."""
        return (self.ended or self.clock()) - self.started

    def seconds_left(self) -> float | None:
        """Estimated from what was measured so far; None while that is too little."""
        now, share = self.clock(), self.share
        in_stage, steps = now - self.stage_started, self.done - self.first_done
        if now - self.started < LEAST_SECONDS or not share:
            return None
        _, end = self._span()
        later = max(0.0, 1 - max(end, share)) * (now - self.started) / share
        if self.done >= self.total:
            return later
        return None if steps <= 0 or in_stage <= 0 else (self.total - self.done) * in_stage / steps + later

    def _span(self) -> tuple[float, float]:
        """The shares at which the present stage begins and ends; of one that is not among the stages, where it is."""
        name = self.stage.partition(",")[0]  # of `encode image, view 2`
        if name not in self.stages:
            return self.share, self.share
        before = 0.0
        for other, share in self.stages.items():
            if other == name:
                break
            before += share
        return before, before + self.stages[name]


_jobs: dict[Any, list[Job]] = {}  # id of a dataset -> its jobs, oldest first
_lock = RLock()


def begin_job(dataset: fo.Dataset, label: str, stages: Mapping[str, float]) -> Job:
    """A new job on a dataset."""
    job = Job(label, dict(stages))
    with _lock:
        kept = [
            old for old in _jobs.get(dataset._doc.id, []) if not old.ended or job.started - old.ended < KEPT_SECONDS
        ]
        _jobs[dataset._doc.id] = [*kept, job]
    return job


def end_job(job: Job, outcome: str, error: str = "") -> None:
    """Note how a job ended, and why it failed."""
    job.ended, job.error = job.clock(), error
    job.outcome = outcome


def jobs_of(dataset: fo.Dataset) -> list[Job]:
    """The jobs of this process on a dataset, oldest first: those that run, and those that ended lately."""
    with _lock:
        return list(_jobs.get(dataset._doc.id, ()))


def running_job(dataset: fo.Dataset, name: str) -> Job:
    """The job of this id.

    Raises:
        AuditError: it has ended, or is none of this process.
    """
    job = next((job for job in jobs_of(dataset) if job.id == name and not job.outcome), None)
    if job is None:
        raise AuditError("this run has ended already")
    return job
