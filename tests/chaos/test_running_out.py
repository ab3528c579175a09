"""Disk, memory and open files run out in the middle of commands: one sentence, code 2, then the same bytes.

The limits form ladders, from what a command refuses at its start to what it needs.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.csv
import pymongo
import pytest
from pyarrow import parquet

from tests.chaos.attack import Tally
from tests.chaos.conftest import ROOT, Chaos
from tests.chaos.test_low_resources import (
    LOAD,
    ROWS,
    SCORE,
    SECONDS,
    base,
    can_mount,
    fault_of,
    run,
    score,
    server,
    small_disk,
)

pytestmark = pytest.mark.timeout(6000)
__all__ = ["base", "server"]  # fixtures
Limits = Mapping[int, int]
TIME = re.compile(rb"20\d\d-\d\d-\d\d \d\d:\d\d UTC")  # in a report
LARGE = 200_000_000  # bytes of a disk that is large enough


def scores(base: Path) -> str:
    return str(base / "whole" / "scores.parquet")


# What each command makes in `home`, of a manifest that was scored.
COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "select": lambda base, home: ["select", scores(base), "--budget", "30%", "--out", str(home / "selected.parquet")],
    "export": lambda base, home: ["export", scores(base), "--to", str(home / "out"), "--format", "webdataset"],
    "export zip": lambda base, home: ["export", scores(base), "--to", str(home / "out.zip"), "--format", "hf-parquet"],
    "compare": lambda base, _: ["compare", scores(base), scores(base)],
    "report": lambda base, home: ["report", scores(base), "--out", str(home / "report.html")],
    "score": score,
}


def made(home: Path) -> dict[str, bytes]:
    """Path -> bytes of what a command made, without its cache and what names times."""
    files = [path for path in sorted(home.rglob("*")) if path.is_file() and "cache" not in path.parts]
    timed = ("about.json", "audit.md", "scores.json", ".zip")
    kept = [path for path in files if not path.name.endswith(timed)]
    return {str(path.relative_to(home)): TIME.sub(b"", path.read_bytes()) for path in kept}


@dataclass
class Ladder:
    """A command under one limit after the other; `wanted` is what it makes without any."""

    name: str
    base: Path
    home: Path
    wanted: dict[str, bytes]
    tally: Tally

    def run(self, limits: Limits | None = None, **environment: str) -> tuple[int, str]:
        return run(COMMANDS[self.name](self.base, self.home), self.home, limits, **environment)

    def clear(self) -> None:
        """As before the command; with features known, so that it soon writes."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.base / "whole" / "cache", self.home / "cache")

    def step(self, what: str, limits: Limits) -> bool:
        """Whether the command succeeded; where it was refused, it is given again without the limit."""
        self.clear()
        code, errors = self.run(limits)
        self.judge(f"{self.name}, {what}", code, errors)
        return code == 0

    def judge(self, name: str, code: int, errors: str) -> None:
        """Counts what is wrong with the end of a command under a limit; where it was refused, it is given again."""
        self.tally.cases += 1
        if code and not was_ended(code, errors) and (fault := fault_of(code, errors)):
            self.tally.add(fault, f"{name}: {code} {errors[-1500:]}")
        self.compare(name, *(self.run() if code else (code, errors)))

    def compare(self, name: str, code: int, errors: str) -> None:
        """Counts what is wrong with the end of a command that lacks nothing any more."""
        if code:
            self.tally.add("lost", f"{name}: then {code} {errors[-1500:]}")
        elif made(self.home) != self.wanted:
            names = [path for path, data in self.wanted.items() if made(self.home).get(path) != data]
            self.tally.add("silent_wrong", f"{name}: {names}")
        elif parts := [path for path in self.home.rglob("*.part") if path.is_file()]:
            self.tally.add("half", f"{name}: {parts}")


@pytest.fixture
def ladders(base: Path, tmp_path: Path) -> Iterator[Callable[[str], Ladder]]:
    """Of one command each, all with one tally."""
    tally = Tally()

    def ladder(name: str) -> Ladder:
        it = Ladder(name, base, tmp_path / name.replace(" ", "-"), {}, tally)
        it.clear()
        code, errors = it.run()
        assert code == 0, errors
        it.wanted = made(it.home)
        return it

    yield ladder
    tally.show()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "export zip"])
def test_few_open_files(chaos: Chaos, ladders: Callable[[str], Ladder], name: str) -> None:
    if not (chaos.is_long or name == "select"):
        pytest.skip("in the long form")
    ladder = ladders(name)
    for count in range(8, 25) if chaos.is_long else (8, 24):
        ladder.step(f"{count} open files", {resource.RLIMIT_NOFILE: count})
    tally = ladder.tally
    chaos.record(f"few_files_{name}", tally.cases, "crash points and kills", **tally.faults)


# The libraries alone need the addresses between the first and the last: what needs torch, 5 GB.
FEW_LIBRARIES = [size * 1_000_000 for size in (100, 490, *range(520, 3_000, 240), *range(3_200, 4_400, 200))]
MEMORY = {
    "select": FEW_LIBRARIES,
    "export": FEW_LIBRARIES,
    "compare": FEW_LIBRARIES,
    "report": [size * 1_000_000 for size in (100, 490, *range(500, 6_200, 300), 6_500)],
    "score": [size * 1_000_000 for size in (100, 490, *range(500, 5_600, 600))],
}


@pytest.mark.parametrize("name", MEMORY)
def test_little_memory(chaos: Chaos, ladders: Callable[[str], Ladder], name: str) -> None:
    if not (chaos.is_long or name == "select"):
        pytest.skip("in the long form")
    ladder = ladders(name)
    sizes = MEMORY[name] if chaos.is_long else MEMORY[name][:4]
    succeeded = [ladder.step(f"{size / 1e6:.0f} MB", {resource.RLIMIT_AS: size}) for size in sizes]
    assert not succeeded[0]
    assert succeeded[-1] or not chaos.is_long
    tally = ladder.tally
    chaos.record(f"little_memory_{name}", tally.cases, "crash points and kills", **tally.faults)


@pytest.mark.parametrize("name", ["score", "report", "export"])
def test_memory_that_runs_out_in_the_middle(chaos: Chaos, ladders: Callable[[str], Ladder], name: str) -> None:
    """At a random moment the process may have so much more memory than it has by then."""
    if not (chaos.is_long or name == "export"):
        pytest.skip("in the long form")
    ladder, rng = ladders(name), random.Random(3)
    began = time.monotonic()
    ladder.step("no limit", {})
    seconds = time.monotonic() - began
    for number in range(chaos.count(2, 12)):
        more, after = (0, 1_000_000, 30_000_000)[number % 3], (0.3 + 0.7 * rng.random()) * seconds
        ladder.clear()
        ladder.judge(f"{name}, {more / 1e6:.0f} MB more after {after:.1f} s", *squeezed(ladder, after, more))
    tally = ladder.tally
    chaos.record(f"squeezed_memory_{name}", tally.cases, "crash points and kills", **tally.faults)


def was_ended(code: int, errors: str) -> bool:
    """Whether a process without any memory was ended from outside, with a sentence, or by a library of C++."""
    if code == -signal.SIGKILL:
        return "Python cannot go on" in errors and "Traceback" not in errors
    return code == -signal.SIGABRT and bool(re.search(r"[Bb]ad_?[Aa]lloc", errors))


def squeezed(ladder: Ladder, after: float, more: int) -> tuple[int, str]:
    """(exit code, stderr) of a command that after so many seconds gets no more addresses than `more`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "audit_plugin", *COMMANDS[ladder.name](ladder.base, ladder.home)],
        cwd=ROOT,
        env={**os.environ, "AUDIT_PLUGIN_CACHE": str(ladder.home / "cache"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, errors = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        _, errors = process.communicate(timeout=SECONDS)
    return process.returncode, errors


# --- a disk that fills ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not can_mount(), reason="only root can mount a small disk")
@pytest.mark.parametrize("name", ["score", "report", "export", "export zip"])
def test_a_disk_that_fills(chaos: Chaos, ladders: Callable[[str], Ladder], name: str, tmp_path: Path) -> None:
    """All that the command writes lies on it: outputs, run folder, cache, temporary files."""
    if not (chaos.is_long or name == "export"):
        pytest.skip("in the long form")
    ladder, disk = ladders(name), tmp_path / "disk"
    ladder.home, tally = disk / "home", ladder.tally

    def command() -> tuple[int, str]:
        (ladder.home / "tmp").mkdir(parents=True, exist_ok=True)
        return ladder.run(TMPDIR=str(ladder.home / "tmp"))

    with small_disk(disk, LARGE):
        code, errors = command()
        assert code == 0, errors
        ladder.wanted, used = made(ladder.home), shutil.disk_usage(disk).used
    count = chaos.count(2, 12)
    sizes = sorted({max(used * number // (count + 1) // 4096, 1) * 4096 for number in range(1, count + 1)})
    for size in sizes:
        what = f"{name}, a disk of {size:,} of {used:,} bytes"
        with small_disk(disk, size):
            code, errors = command()
            tally.cases += 1
            is_told = f"no space left in {disk}" in errors and " needs " in errors and " free;" in errors
            if fault := fault_of(code, errors) or ("" if is_told else "tracebacks"):
                tally.add(fault, f"{what}: {code} {errors[-1500:]}")
            subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(disk)], check=True, timeout=20)
            ladder.compare(what, *command())
    chaos.record(f"full_disk_{name.replace(' ', '_')}", tally.cases, "crash points and kills", **tally.faults)


@pytest.mark.fiftyone
@pytest.mark.skipif(not can_mount(), reason="only root can mount a small disk")
def test_a_disk_that_fills_under_an_audit(chaos: Chaos, base: Path, server: tuple[int, str], tmp_path: Path) -> None:
    """Of a FiftyOne dataset: its cache and run folder lie on the disk."""
    if not chaos.is_long:
        pytest.skip("in the long form")
    disk, tally = tmp_path / "disk", Tally()
    database = {"FIFTYONE_DATABASE_URI": server[1], "FIFTYONE_DATABASE_VALIDATION": "false"}
    load = [sys.executable, "-c", LOAD, str(base / "m.csv")]
    subprocess.run(load, env={**os.environ, **database}, check=True, timeout=SECONDS)
    audit = ["audit", "photos", "--text", "caption", "--encoder", "offline", "--trials", "8", "--epochs", "2"]
    with small_disk(disk, LARGE):
        code, errors = run(audit, disk, **database)
        assert code == 0, errors
        wanted, used = results_of(server[1]), shutil.disk_usage(disk).used
    assert len(wanted) == ROWS
    for number in range(1, 7):
        what = f"audit, a disk of {used * number // 7:,} of {used:,} bytes"
        with small_disk(disk, used * number // 7):
            tally.cases += 1
            code, errors = run(audit, disk, **database)
            if fault := fault_of(code, errors) or ("" if f"no space left in {disk}" in errors else "tracebacks"):
                tally.add(fault, f"{what}: {code} {errors[-1500:]}")
            if results_of(server[1]) != wanted:
                tally.add("half", what)  # the results of the former audit stay until the new ones are whole
            subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(disk)], check=True, timeout=20)
            code, errors = run(audit, disk, **database)
            if code:
                tally.add("lost", f"{what}: then {code} {errors[-1500:]}")
            if results_of(server[1]) != wanted:
                tally.add("silent_wrong", what)
    tally.show()
    chaos.record("full_disk_audit", tally.cases, "crash points and kills", **tally.faults)


@pytest.mark.fiftyone
@pytest.mark.skipif(not can_mount(), reason="only root can mount a small disk")
def test_a_disk_that_fills_under_an_import(chaos: Chaos, base: Path, server: tuple[int, str], tmp_path: Path) -> None:
    """Of a table that holds its pictures: they are unpacked on the disk."""
    if not chaos.is_long:
        pytest.skip("in the long form")
    disk, tally, table, scored = tmp_path / "disk", Tally(), tmp_path / "m.parquet", tmp_path / "scores.parquet"
    database = {"FIFTYONE_DATABASE_URI": server[1], "FIFTYONE_DATABASE_VALIDATION": "false"}
    rows = pyarrow.csv.read_csv(base / "m.csv").to_pylist()
    pictures = [{"bytes": (base / row["image"]).read_bytes(), "path": row["image"]} for row in rows]
    parquet.write_table(pyarrow.table({"image": pictures, "text": [row["text"] for row in rows]}), table)
    code, errors = run(
        ["score", str(table), *SCORE, "--out", str(scored), "--run-dir", str(tmp_path / "run")], tmp_path
    )
    assert code == 0, errors

    def imported(name: str) -> tuple[int, str]:
        return run(["import", str(scored), "--dataset", name, "--media", str(disk / "media")], disk, **database)

    with small_disk(disk, LARGE):
        code, errors = imported("whole")
        assert code == 0, errors
        wanted, media, used = results_of(server[1], "whole"), made(disk), shutil.disk_usage(disk).used
    assert len(media) == ROWS
    for number in range(1, 7):
        what, name = f"import, a disk of {used * number // 7:,} of {used:,} bytes", f"part{number}"
        with small_disk(disk, used * number // 7):
            tally.cases += 1
            code, errors = imported(name)
            if fault := fault_of(code, errors) or ("" if f"no space left in {disk}" in errors else "tracebacks"):
                tally.add(fault, f"{what}: {code} {errors[-1500:]}")
            if results_of(server[1], name):
                tally.add("half", what)
            subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(disk)], check=True, timeout=20)
            code, errors = imported(name)
            if code:
                tally.add("lost", f"{what}: then {code} {errors[-1500:]}")
            elif results_of(server[1], name) != wanted or made(disk) != media:
                tally.add("silent_wrong", what)
    tally.show()
    chaos.record("full_disk_import", tally.cases, "crash points and kills", **tally.faults)


def results_of(address: str, name: str = "photos") -> dict[str, str]:
    """Path -> tags and fields of the audit, of each sample; empty without such a dataset."""
    with pymongo.MongoClient(address) as client:
        facts = client["fiftyone"]["datasets"].find_one({"name": name})
        if facts is None:
            return {}
        samples = list(client["fiftyone"][facts["sample_collection_name"]].find())
    return {
        sample["filepath"]: str(
            sorted((name, value) for name, value in sample.items() if name[:6] in ("audit_", "tags"))
        )
        for sample in samples
    }


# Of 8 GB, all but so many bytes are taken by a mapping that nothing uses: what `import torch` needs, or a little less.
NEARLY_FULL = """
import mmap, resource, sys

LIMIT = 8_000_000_000
resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
taken = mmap.mmap(-1, LIMIT - used - int(sys.argv.pop(1)))
from audit_plugin.__main__ import main
main()
"""
NEED = """
import torch
print([int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmPeak")][0])
"""
# What libraries and the loader of programs (glibc) say when they end the process themselves, without a Python error.
ENDED_BY_LIBRARY = re.compile(
    r"thread-local data: ABORT|OpenBLAS error: Memory allocation still failed|^out of memory$", re.MULTILINE
)


def test_libraries_that_are_imported_with_little_memory(chaos: Chaos, base: Path, tmp_path: Path) -> None:
    """C extensions fail without an error then (SystemError), or with any: one sentence, code 2."""
    if not chaos.is_long:
        pytest.skip("in the long form")
    environment = {**os.environ, "AUDIT_PLUGIN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    shutil.copytree(base / "whole" / "cache", tmp_path / "cache")

    def output_of(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    tally, need = Tally(), int(output_of([NEED]).stdout)
    for less in range(0, 240_000_000, 10_000_000):
        done = output_of([NEARLY_FULL, str(need - less), *score(base, tmp_path)])
        tally.cases += 1
        is_ended = was_ended(done.returncode, done.stderr) or ENDED_BY_LIBRARY.search(done.stderr)
        if done.returncode and not is_ended and (fault := fault_of(done.returncode, done.stderr)):
            left = f"{(need - less) / 1e6:.0f} MB left, torch needs {need / 1e6:.0f}"
            tally.add(fault, f"{left}: {done.returncode} {done.stderr[-1500:]}")
    tally.show()
    chaos.record("little_memory_at_import", tally.cases, "crash points and kills", **tally.faults)
