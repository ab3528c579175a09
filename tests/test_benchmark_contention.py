from __future__ import annotations

import subprocess
import time

import pytest

from benchmarks import contention
from benchmarks.sets import CLOTHING


def test_ratios_by_hand() -> None:
    alone = [{"encode": 10.0, "read": 0.1}, {"encode": 12.0, "read": 0.1}, {"encode": 11.0, "read": 0.1}]
    beside = [{"encode": 20.0, "read": 0.9}, {"encode": 30.0, "read": 0.9}, {"encode": 40.0, "read": 0.9}]
    report = contention.summarize({"alone": alone, "beside": beside})
    assert report["stages"]["encode"] == {"alone": 11.0, "beside": 30.0, "times": 2.73}
    assert report["slower"] == ["encode"]  # reading is too short to be judged


def test_busy_processes_end_with_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen] = []
    real = subprocess.Popen

    def remember(*args, **options):
        started.append(real(*args, **options))
        return started[-1]

    monkeypatch.setattr(contention.subprocess, "Popen", remember)

    def interrupted() -> None:
        with contention.spinning(2):
            time.sleep(0.05)
            assert [process.poll() for process in started] == [None, None]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(process.returncode is not None for process in started)


def test_a_small_audit_is_timed() -> None:
    if not CLOTHING.is_dir():
        pytest.skip(f"the photographs of clothing are not there ({CLOTHING})")
    seconds = contention.in_own_process(60, trials=2)
    assert seconds["whole"] > sum(value for stage, value in seconds.items() if stage != "whole")
    assert {"read", "encode", "train", "score"} < set(seconds)
