"""Turns SVG texts into PNG files; run as a script it takes a batch on its standard input.

A batch is a process of its own because the renderer keeps Python's lock; and not a pool of `multiprocessing`,
because that runs a caller's unguarded script a second time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BATCH = 48  # pictures, about two seconds of work
DISK = 3  # exit code of a batch whose files cannot be written

Job = tuple[str, str]  # file to write, SVG text


def draw_batch(jobs: list[Job], side: int) -> None:
    """Writes each job's picture, `side` by `side` pixels."""
    import resvg_py

    for target, svg in jobs:
        # Nothing drawn here has text in it, and looking for fonts takes longer than drawing.
        png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True)
        try:
            Path(target).write_bytes(bytes(png))
        except OSError as error:  # one of writing names no file
            raise OSError(error.errno, error.strerror, target) from error


def draw_all(jobs: list[Job], side: int, progress: Callable[[int], None]) -> None:
    """Like `draw_batch`, on all processors; calls `progress` with the number of pictures done so far."""
    batches = [jobs[i : i + BATCH] for i in range(0, len(jobs), BATCH)]
    workers = min(os.cpu_count() or 1, len(batches))
    done = 0
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for batch, _ in zip(batches, pool.map(lambda b: _in_process(b, side), batches), strict=True):
            done += len(batch)
            progress(done)


def _in_process(batch: list[Job], side: int) -> None:
    """Raises `AuditError` where the process ends early: its own output is no message for users."""
    from audit_plugin.arrays import AuditError  # this file is a script too, which does not see the package
    from audit_plugin.store import disk_error

    work = json.dumps([batch, side])
    ended = subprocess.run(
        [sys.executable, __file__], input=work, encoding="utf-8", errors="replace", capture_output=True, check=False
    )
    if ended.returncode == DISK:
        number, reason, target = json.loads(ended.stdout)
        raise disk_error(Path(target), OSError(number, reason, target))
    if ended.returncode:
        reason = ended.stderr.strip().rpartition("\n")[2] or f"exit code {ended.returncode}"
        raise AuditError(f"the process that draws {batch[0][0]} ended early ({reason}); run the same command again")


def main() -> None:
    """Draws the batch on standard input; a file that cannot be written is named on standard output."""
    try:
        draw_batch(*json.loads(sys.stdin.buffer.read()))
    except OSError as error:
        json.dump([error.errno, error.strerror, str(error.filename)], sys.stdout)
        sys.exit(DISK)


if __name__ == "__main__":
    main()
