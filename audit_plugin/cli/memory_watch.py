"""Ends a command from outside in which Python cannot go on for lack of memory.

CPython 3.11 to 3.13 asks for memory to enter an `except`, `finally` or `with` block after an error. Where there is none
it asks again, for ever, and holds its lock: no thread and no handler of a signal runs, Ctrl-C included. And a thread
that has no memory to start leaves the one that starts it waiting for ever. Only another process can end both. It is
this file, run as a program, which imports nothing else of this package. A command that waits for anything else near its
limit, such as a child or a server, is healthy, and goes on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from types import FrameType

SHORT_SECONDS = 2.0  # commands that end sooner are not watched
BEAT_SECONDS = 1.0
FREE, STARTING = b".", b"s"  # beats: whether a thread of the command waits until another one has started
PATIENCE_SECONDS = 20.0  # of spinning without a beat, and twice that without any work, until a process is ended
CHECK_SHARE = 0.25  # of the patience, between two looks at a process
LEAST_TICKS = 3  # of the processor between two looks, which are work: beats are less
NEAR = 8_000_000  # bytes below the limit of addresses: one arena of Python's and one of the C library are less


def start_memory_watch() -> None:
    """Starts a thread that starts the watching process and sends it beats, as long as Python runs; on Linux only."""
    if os.path.exists("/proc/self/statm"):
        threading.Thread(target=_send_beats, daemon=True).start()


def _send_beats() -> None:
    import subprocess  # not needed by the watching process

    time.sleep(SHORT_SECONDS)
    with contextlib.suppress(OSError):  # it cannot be started, or was ended: the command goes on without it
        reader, writer = os.pipe()
        program = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(PATIENCE_SECONDS)]
        # a process group of its own: Ctrl-C is for the command alone; of the command's files it has stderr only
        watcher = subprocess.Popen(program, stdin=reader, stdout=subprocess.DEVNULL, process_group=0, close_fds=True)
        os.close(reader)
        while True:
            with contextlib.suppress(MemoryError):
                if watcher.poll() is not None:
                    return
                os.write(writer, _beat())
            time.sleep(BEAT_SECONDS)


def _beat() -> bytes:
    """`STARTING` where a thread of this process is in `Thread.start`, which returns when the new thread runs."""
    with contextlib.suppress(MemoryError):
        for innermost in sys._current_frames().values():
            frame: FrameType | None = innermost
            while frame is not None:
                if frame.f_code is threading.Thread.start.__code__:
                    return STARTING
                frame = frame.f_back
    return FREE


def watch(process: int, patience: float) -> None:
    """Waits for the end of the process; ends it where it has no more addresses and cannot go on.

    That is, for `patience` seconds it worked without a beat (it spins), or for twice as long neither it nor a child of
    it worked, and no beat said that no thread waits for the start of another one.
    """
    last_beat = last_free = last_idle = last_work = last_look = time.monotonic()
    own_ticks = family_ticks = 0
    while os.getppid() == process:
        if select.select([0], [], [], CHECK_SHARE * patience)[0]:
            if not (beats := os.read(0, 4096)):
                return  # it ended
            last_beat = time.monotonic()
            last_free = last_beat if FREE in beats else last_free
        now = time.monotonic()
        if now - last_look < CHECK_SHARE * patience:
            continue
        last_look = now
        limit = _exhausted(process)
        state, own, family = _processor_use(process) if limit else ("", 0, 0)
        if not limit or state in "Tt":  # memory is left, or it was stopped by the user, who will let it go on
            last_beat = last_free = last_idle = last_work = now
        if own < own_ticks + LEAST_TICKS:
            last_idle = now
        if abs(family - family_ticks) >= LEAST_TICKS:  # fewer where a child ended
            last_work = now
        own_ticks, family_ticks = own, family
        spins = min(now - last_beat, now - last_idle) > patience
        if spins or min(now - last_free, now - last_work) > 2 * patience:
            _end(process, limit)
            return


def _end(process: int, limit: int) -> None:
    """Ends the process, then says why, where there is anyone to read it."""
    os.kill(process, signal.SIGKILL)
    with contextlib.suppress(OSError):
        sys.stderr.write(
            f"\nerror: the memory is too small: all {limit / 1e6:.0f} MB that the process may have (ulimit -v) are "
            "in use, and Python cannot go on; raise the limit, or use fewer --trials or rows, and run the same "
            "command again: finished parts are kept\n"
        )
        sys.stderr.flush()


def _processor_use(process: int) -> tuple[str, int, int]:
    """(letter of the state of a process, ticks of the processor that it has used, and with its descendants but us)."""
    state: dict[int, str] = {}
    children: dict[int, list[int]] = {}
    ticks: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            with open(f"/proc/{entry}/stat") as file:
                values = file.read().rpartition(")")[2].split()
            number = int(entry)
            state[number], ticks[number] = values[0], [int(value) for value in values[11:15]]
            children.setdefault(int(values[1]), []).append(number)
    family, following = 0, [process]
    while following:
        number = following.pop()
        if number != os.getpid():
            family += sum(ticks.get(number, ()))  # its own, and those of children that it waited for
            following += children.get(number, ())
    return state.get(process, "X"), sum(ticks.get(process, ())[:2]), family


def _exhausted(process: int) -> int:
    """The limit of the process's addresses, where it uses nearly all of them; else 0."""
    import resource

    limit = resource.prlimit(process, resource.RLIMIT_AS)[0]
    with open(f"/proc/{process}/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    return limit if limit != resource.RLIM_INFINITY and used > limit - NEAR else 0


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # the process ended meanwhile
        watch(int(sys.argv[1]), float(sys.argv[2]))
