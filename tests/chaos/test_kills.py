"""`score` killed or interrupted at any moment: the same command again gives the bytes of an uninterrupted one."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.conftest import ROOT, Chaos
from tests.pipeline_fixtures import draw

pytestmark = pytest.mark.timeout(3000)
ROWS = 48
QUIET_SECONDS, BUSY_SECONDS = 120, 600  # of a whole command
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (-15, 143), signal.SIGINT: (130, -2)}  # -2: before its first line ran


def is_busy() -> bool:
    """Whether others keep the machine busy just now, so that nothing ends in time."""
    return os.getloadavg()[0] >= 2 * (os.cpu_count() or 1)


def end_seconds() -> int:
    """Within which an interrupted command ends."""
    return 30 if is_busy() else 5


def command(base: Path, home: Path) -> subprocess.Popen[str]:
    """Starts `score` with a cache, a run folder and outputs in `home`."""
    options = ["--image", "image", "--text", "text", "--encoder", "offline", "--trials", "16", "--epochs", "3"]
    places = ["--out", str(home / "scores.parquet"), "--run-dir", str(home / "run")]
    return subprocess.Popen(
        [sys.executable, "-m", "audit_plugin", "score", str(base / "m.csv"), *options, *places],
        cwd=ROOT,
        env={**os.environ, "AUDIT_PLUGIN_CACHE": str(home / "cache"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(base: Path, home: Path) -> tuple[int, str]:
    """(exit code, stderr) of the whole command."""
    process = command(base, home)
    _, errors = process.communicate(timeout=BUSY_SECONDS if is_busy() else QUIET_SECONDS)
    return process.returncode, errors


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of drawn pictures, and in `whole` what an uninterrupted command makes of it, and how long it takes."""
    base = tmp_path_factory.mktemp("kills")
    with (base / "m.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "text"])
        writer.writerows([f"s{row}", f"{row}.png", draw(base / f"{row}.png", row)] for row in range(ROWS))
    (base / "whole").mkdir()
    began = time.monotonic()
    code, errors = finish(base, base / "whole")
    assert code == 0, errors
    (base / "seconds").write_text(str(time.monotonic() - began))
    return base


def stored(home: Path) -> dict[str, bytes]:
    """What must be equal: the table, and the parts of the run."""
    files = [home / "scores.parquet", *sorted((home / "run").iterdir())]
    return {path.name: path.read_bytes() for path in files if path.name != "about.json"}


def kill(base: Path, home: Path, rng: random.Random, number: int) -> tuple[str, str]:
    """(a fault, or "" for none; what the case was) of one kill at a random moment, and the same command after it."""
    home.mkdir()
    if number % 2 == 0:  # with features known, the moments lie in the training and the writing
        shutil.copytree(base / "whole" / "cache", home / "cache")
    which = list(CODES)[number % len(CODES)]
    after = 0.4 + rng.random() * float((base / "seconds").read_text())
    what = f"{which.name} after {after:.2f} s"
    process = command(base, home)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(which)
    try:
        _, errors = process.communicate(timeout=end_seconds())
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "hangs", what
    if process.returncode not in (0, *CODES[which]) or "Traceback" in errors:
        return "tracebacks", f"{what}: {process.returncode} {errors}"
    code, errors = finish(base, home)
    if code or "Traceback" in errors:
        return "lost", f"{what}: then {code} {errors}"
    if stored(home) != stored(base / "whole"):
        return "silent_wrong", what
    if leftovers := list(home.rglob("*.part")):
        return "half", f"{what}: {leftovers}"
    shutil.rmtree(home)
    return "", what


def test_a_killed_score_goes_on_to_the_same_bytes(chaos: Chaos, base: Path, tmp_path: Path) -> None:
    rng = random.Random(7)
    faults: dict[str, int] = {}
    count = chaos.count(2, 66)
    for number in range(count):
        fault, what = kill(base, tmp_path / f"home-{number}", rng, number)
        if fault:
            faults[fault] = faults.get(fault, 0) + 1
            print(f"{fault}: {what}")  # noqa: T201
    chaos.record("kills", count, "crash points and kills", **faults)


def test_a_second_interrupt_ends_at_once(base: Path, tmp_path: Path) -> None:
    process = command(base, tmp_path)
    while not (tmp_path / "cache").exists():  # it has begun
        time.sleep(0.05)
    began, limit = time.monotonic(), end_seconds()
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=limit)
    assert process.returncode in (130, -signal.SIGINT), errors  # which shells call 130 too
    assert time.monotonic() - began < limit
    assert "Traceback" not in errors
    assert "interrupted; run the same command again" in errors
