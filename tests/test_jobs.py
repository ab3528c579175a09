"""The time left of a run, checked by hand with a clock that the test moves; and how a run is stopped."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from audit_plugin.arrays import AuditError

pytestmark = pytest.mark.fiftyone
pytest.importorskip("fiftyone")
jobs = importlib.import_module("audit_plugin.fiftyone_io.jobs")

STAGES = {"read": 0.1, "encode image": 0.5, "train": 0.4}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def job(clock: Clock) -> Any:
    return jobs.Job("Audit", STAGES, clock)


def test_share_and_text_follow_the_stages(job: Any) -> None:
    assert (job.share, job.text) == (0, "Starting")
    job.report("read", 5, 10)
    assert (job.share, job.text) == (pytest.approx(0.05), "Read: 5 of 10")
    job.report("encode image", 0, 40)
    assert job.share == pytest.approx(0.1)
    job.report("encode image, view 1", 20, 40)
    assert job.share == pytest.approx(0.35)
    job.report("train", 8, 8)
    assert job.share == pytest.approx(1)


@pytest.mark.parametrize("stage", ["no such stage", "read", "encode image", "", "train, again"])
def test_the_share_never_falls(job: Any, clock: Clock, stage: str) -> None:
    job.report("encode image", 30, 40)
    reached = job.share
    for done, total in ((0, 0), (0, 4), (1, 4), (4, 4), (2, 4)):
        clock.now += 10
        job.report(stage, done, total)
        assert reached <= job.share <= 1
        left = job.seconds_left()
        assert left is None or left >= 0
        reached = job.share
    job.report("train", 4, 8)
    assert job.share >= reached


def test_the_time_left_of_a_stage_without_a_share_is_its_own_and_that_of_the_rest(job: Any, clock: Clock) -> None:
    job.report("encode image", 40, 40)
    clock.now += 12
    job.report("no such stage", 0, 10)
    clock.now += 5
    job.report("no such stage", 5, 10)
    assert job.seconds_left() == pytest.approx(5 + 0.4 * 17 / 0.6)


def test_the_time_left_is_measured(job: Any, clock: Clock) -> None:
    job.report("read", 10, 10)
    clock.now = 102
    assert job.seconds_left() is None  # too early
    job.report("encode image", 0, 40)
    clock.now = 112
    job.report("encode image", 20, 40)  # 10 s for 20 steps; 12 s for a share of .35
    assert job.seconds_left() == pytest.approx(10 + 0.4 * 12 / 0.35)
    clock.now = 122
    job.report("encode image", 40, 40)
    assert job.seconds_left() == pytest.approx(0.4 * 22 / 0.6)
    job.report("train", 6, 8)  # a resumed run found six trials
    clock.now = 125
    assert job.seconds_left() is None
    job.report("train", 7, 8)
    assert job.seconds_left() == pytest.approx(3)


def test_a_stopped_job_ends_at_its_next_step_but_not_while_it_writes(job: Any) -> None:
    job.report("train", 1, 8)
    job.is_stopping = True
    job.report("write", 1, 8)
    with pytest.raises(jobs.StoppedError):
        job.report("train", 2, 8)


def test_jobs_are_known_by_dataset(make_dataset: Callable[..., Any]) -> None:
    first, second = make_dataset(1), make_dataset(1)
    job = jobs.begin_job(first, "Audit", STAGES)
    assert jobs.jobs_of(first) == [job]
    assert jobs.jobs_of(second) == []
    assert jobs.running_job(first, job.id) is job
    with pytest.raises(AuditError, match="has ended"):
        jobs.running_job(second, job.id)
    jobs.end_job(job, "done")
    assert jobs.jobs_of(first) == [job]
    with pytest.raises(AuditError, match="has ended"):
        jobs.running_job(first, job.id)
    job.ended -= 2 * jobs.KEPT_SECONDS
    later = jobs.begin_job(first, "Scan", STAGES)
    assert jobs.jobs_of(first) == [later]
