"""Little disk, memory, descriptors, and a database that does not answer: one sentence, code 2, and then it goes on."""

from __future__ import annotations

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import own_database
from tests.chaos.conftest import ROOT, Chaos
from tests.pipeline_fixtures import draw

pytestmark = pytest.mark.timeout(3000)
ROWS = 40
SECONDS = 600  # of a command, on a machine that computes other things too
DATABASE_SECONDS = 60  # until a command says that the database does not answer
BUSY_SECONDS = 240  # the same where the machine computes other things too
SCORE = ("--image", "image", "--text", "text", "--encoder", "offline", "--trials", "8", "--epochs", "2")


def run(
    arguments: list[str], home: Path, limits: Mapping[int, int] | None = None, seconds: float = SECONDS, **more: str
) -> tuple[int, str]:
    """(exit code, stderr) of a command under limits, with a cache in `home`."""

    def limit() -> None:
        for which, value in (limits or {}).items():
            resource.setrlimit(which, (value, value))

    done = subprocess.run(
        [sys.executable, "-m", "audit_plugin", *arguments],
        cwd=ROOT,
        env={**os.environ, "AUDIT_PLUGIN_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1", **more},
        capture_output=True,
        text=True,
        timeout=seconds,
        preexec_fn=limit,
        check=False,
    )
    return done.returncode, done.stderr


def fault_of(code: int, errors: str) -> str:
    """The fault of a command that lacked something: it must say so in its last line, and only there."""
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    is_plain = code == 2 and len(lines) == 1 and errors.rstrip().endswith(lines[0]) and ";" in lines[0]
    return "" if is_plain and "Traceback" not in errors else "tracebacks"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of drawn pictures, and in `whole` the cache, run folder and table of a command that lacked nothing."""
    base = tmp_path_factory.mktemp("low")
    with (base / "m.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "text"])
        writer.writerows([f"s{row}", f"{row}.png", draw(base / f"{row}.png", row)] for row in range(ROWS))
    code, errors = run(score(base, base / "whole"), base / "whole")
    assert code == 0, errors
    return base


def score(base: Path, home: Path, run_folder: Path | None = None, out: Path | None = None) -> list[str]:
    places = ["--out", str(out or home / "scores.parquet"), "--run-dir", str(run_folder or home / "run")]
    return ["score", str(base / "m.csv"), *SCORE, *places]


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=20)


def can_mount() -> bool:
    if os.getuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder) / "disk", 1 << 20):
                return True
        except (OSError, subprocess.SubprocessError):
            return False


FEW_FILES = [{resource.RLIMIT_NOFILE: count} for count in (8, 10, 12, 14)]
LITTLE_MEMORY = [{resource.RLIMIT_AS: int(size * 1e9)} for size in (1.5, 0.5, 1.0, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5)]
SMALL_FILES = [{resource.RLIMIT_FSIZE: size} for size in (100_000, 1000, 10_000, 1_000_000)]


def test_little_memory_files_and_descriptors(chaos: Chaos, base: Path, tmp_path: Path) -> None:
    count = chaos.count(1, 9)
    limits = [*FEW_FILES[:count], *LITTLE_MEMORY[:count], *SMALL_FILES[:count]]
    faults: dict[str, int] = {}
    shutil.copytree(base / "whole" / "cache", tmp_path / "cache")
    for limit in limits:
        code, errors = run(score(base, tmp_path), tmp_path, limit)
        if fault := fault_of(code, errors):
            faults[fault] = faults.get(fault, 0) + 1
            print(f"{fault}: {limit}: {code} {errors}")  # noqa: T201
    code, errors = run(score(base, tmp_path), tmp_path)
    assert code == 0, errors
    same = (tmp_path / "scores.parquet").read_bytes() == (base / "whole" / "scores.parquet").read_bytes()
    chaos.record("low_limits", len(limits), "crash points and kills", silent_wrong=int(not same), **faults)


@pytest.mark.skipif(not can_mount(), reason="only root can mount a small disk")
def test_a_small_disk(chaos: Chaos, base: Path, tmp_path: Path) -> None:
    faults: dict[str, int] = {}
    disk = tmp_path / "disk"
    wholes = base / "whole"
    cases: list[tuple[int, Callable[[], list[str]], dict[str, str]]] = [
        (1_000_000, lambda: score(base, tmp_path, run_folder=disk / "run"), {}),
        (8192, lambda: score(base, tmp_path, out=disk / "scores.parquet"), {}),
        (40_000, lambda: score(base, tmp_path), {"AUDIT_PLUGIN_CACHE": str(disk / "cache")}),
    ][: chaos.count(1, 3)]
    for size, command, more in cases:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        shutil.copytree(wholes / "cache", tmp_path / "cache")
        with small_disk(disk, size):
            code, errors = run(command(), tmp_path, **more)
            place = f"no space left in {disk}"
            if fault := fault_of(code, errors) or ("" if place in errors and "are free" in errors else "tracebacks"):
                faults[fault] = faults.get(fault, 0) + 1
                print(f"{fault}: {size}: {code} {errors}")  # noqa: T201
            subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True, timeout=20)
            code, errors = run(command(), tmp_path, **more)
            assert code == 0, errors
            table = next(path for path in (disk / "scores.parquet", tmp_path / "scores.parquet") if path.exists())
            if table.read_bytes() != (wholes / "scores.parquet").read_bytes():
                faults["silent_wrong"] = faults.get("silent_wrong", 0) + 1
            table.unlink()
        disk.rmdir()
    chaos.record("low_disk", len(cases), "crash points and kills", **faults)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """(process, address) of a database server that may be stopped."""
    program = own_database.mongod()
    if program is None:
        pytest.skip("FiftyOne has no mongod")
    (tmp_path / "db").mkdir()
    log = tmp_path / "mongod.log"
    command = [*own_database.command(program, tmp_path / "db"), "--logpath", str(log)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        port = _port(log)
        yield process.pid, f"mongodb://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(30)


def _port(log: Path) -> int:
    for _ in range(600):
        for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
            if '"Waiting for connections"' in line and '"port":' in line:
                return int(line.split('"port":')[1].split(",")[0].split("}")[0])
        time.sleep(0.1)
    raise TimeoutError(log.read_text())


def patience() -> float:
    """Seconds until a command that hears nothing from the database hangs."""
    return DATABASE_SECONDS if os.getloadavg()[0] < 2 * (os.cpu_count() or 1) else BUSY_SECONDS


@pytest.mark.fiftyone
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_database_that_does_not_answer(chaos: Chaos, server: tuple[int, str], tmp_path: Path, how: str) -> None:
    pid, address = server
    database = {"FIFTYONE_DATABASE_URI": address, "FIFTYONE_DATABASE_VALIDATION": "false"}
    commands = [
        ["cache", "--database"],
        ["audit", "photos", "--text", "caption"],
        ["review", "list", "photos"],
        ["report", "photos"],
    ][: chaos.count(1, 4)]
    os.kill(pid, signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
    faults: dict[str, int] = {}
    for command in commands:
        began = time.monotonic()
        try:
            code, errors = run(command, tmp_path, seconds=patience(), **database)
            fault = fault_of(code, errors)
            assert f"FiftyOne's database at {address.removeprefix('mongodb://')} does not answer" in errors
        except subprocess.TimeoutExpired:
            code, errors, fault = 0, "", "hangs"
        if fault:
            faults[fault] = faults.get(fault, 0) + 1
        print(f"{command[0]}: {code} after {time.monotonic() - began:.0f} s: {errors[-200:]}")  # noqa: T201
    if how == "stopped":
        os.kill(pid, signal.SIGCONT)
        assert run(["cache", "--database"], tmp_path, **database)[0] == 0  # it answers again
    chaos.record(f"database_{how}", len(commands), "crash points and kills", **faults)


LOAD = """
import csv, sys
from pathlib import Path
import fiftyone as fo

table = Path(sys.argv[1])
dataset = fo.Dataset("photos", persistent=True)
with table.open() as file:
    rows = list(csv.DictReader(file))
dataset.add_samples([fo.Sample(filepath=str(table.parent / row["image"]), caption=row["text"]) for row in rows])
"""


@pytest.mark.fiftyone
def test_a_database_that_stops_answering_in_the_middle(
    chaos: Chaos, base: Path, server: tuple[int, str], tmp_path: Path
) -> None:
    pid, address = server
    address += "" if chaos.is_long else "/?serverSelectionTimeoutMS=3000&connectTimeoutMS=3000"
    database = {"FIFTYONE_DATABASE_URI": address, "FIFTYONE_DATABASE_VALIDATION": "false"}
    environment = {**os.environ, "AUDIT_PLUGIN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", **database}
    subprocess.run([sys.executable, "-c", LOAD, str(base / "m.csv")], env=environment, check=True, timeout=SECONDS)
    audit = ["audit", "photos", "--text", "caption", "--trials", "8", "--epochs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "audit_plugin", *audit], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = list(iter(process.stderr.readline, "train: 0/8\n"))
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    faults: dict[str, int] = {}
    try:
        errors = "".join([*lines, process.communicate(timeout=patience())[1]])
        if fault := fault_of(process.returncode, errors):
            faults[fault] = 1
        if "the scores are safe in" not in errors:
            faults["lost"] = 1
    except subprocess.TimeoutExpired:
        faults["hangs"] = 1
        process.kill()
    print(f"audit: {process.returncode} after {time.monotonic() - began:.0f} s: {errors[-300:]}")  # noqa: T201
    os.kill(pid, signal.SIGCONT)
    code, errors = run(audit, tmp_path, **database)
    assert code == 0, errors
    chaos.record("database_stops", 1, "crash points and kills", **faults)
