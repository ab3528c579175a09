"""A cold audit of photographs alone and beside busy processes: what does each stage lose?

Run as `python -m benchmarks.contention [--rows 1000] [--repeats 2]` on a machine that does nothing else. The sides take
turns, each audit in a process of its own with an empty cache; *beside*: a process that spins on every core. Photographs
of clothing with the names of their classes, a tenth exchanged, the defaults of an audit. Where two programs share the
cores evenly, twice the time is what they leave. Expected: no stage takes more than 2.5 times its time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from audit_plugin.encoders.devices import cpu_count
from benchmarks.record import write_report

ALLOWED = 2.5
SHORTEST = 1.0  # seconds that a stage takes alone, from which its ratio is judged


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both sides in turn and writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contention", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--trials", type=int, default=0, help="0: an audit's default")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.alone:
        print(json.dumps(audit(options.rows, options.trials)))
        return
    load = os.getloadavg()[0]
    runs: dict[str, list[dict[str, float]]] = {"alone": [], "beside": []}
    for _ in range(options.repeats):
        for side, busy in (("alone", 0), ("beside", cpu_count())):
            with spinning(busy):
                runs[side].append(in_own_process(options.rows, options.trials))
            print(side, json.dumps(runs[side][-1]), flush=True)
    report = {"rows": options.rows, "repeats": options.repeats, "load_before": load, **summarize(runs)}
    print(write_report("contention", "What does an audit lose beside a busy process on every core?", report))


def audit(rows: int, trials: int) -> dict[str, float]:
    """Stage -> seconds of one audit, and of all of it."""
    from audit_plugin import run_audit
    from audit_plugin.config import AuditConfig
    from benchmarks.noise import plant
    from benchmarks.sets import load_set

    planted = plant(load_set("clothing", rows), "random", 0.1)
    config = AuditConfig(device="cpu", trials=trials or AuditConfig().trials)
    return dict(run_audit(planted.samples, config).summary["seconds"])


def in_own_process(rows: int, trials: int) -> dict[str, float]:
    """`audit` in a new process with an empty cache, and the seconds of that process."""
    command = [sys.executable, "-m", "benchmarks.contention", "--alone", "--rows", str(rows), "--trials", str(trials)]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        settings = {**os.environ, "XDG_CACHE_HOME": home, "HOME": home}
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(command, cwd=root, env=settings, stdout=subprocess.PIPE, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "whole": time.perf_counter() - start}


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """So many processes that do nothing but take a core."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def summarize(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Stage -> median seconds of either side and their ratio; those that lose more than `ALLOWED`."""
    stages = {
        stage: {side: round(median(run[stage] for run in of_side), 2) for side, of_side in runs.items()}
        for stage in runs["alone"][0]
    }
    for seconds in stages.values():
        seconds["times"] = round(seconds["beside"] / max(seconds["alone"], 1e-9), 2)
    slow = [name for name, one in stages.items() if one["alone"] >= SHORTEST and one["times"] > ALLOWED]
    return {"stages": stages, "slower": slow, "allowed": ALLOWED, "runs": runs}


if __name__ == "__main__":
    main()
