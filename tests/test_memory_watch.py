"""A command in which Python cannot go on for lack of memory is ended from outside, and no other one."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.conftest import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="addresses are counted on Linux only")
PATIENCE = 2

WATCHED = f"""
import ctypes, resource, time
from audit_plugin.cli import memory_watch

memory_watch.SHORT_SECONDS, memory_watch.BEAT_SECONDS, memory_watch.PATIENCE_SECONDS = 0.0, 0.2, {PATIENCE}
memory_watch.start_memory_watch()
time.sleep(1)

def limit(more):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more,) * 2)
"""
# Beyond 256 instructions, the place to which an error returns is a number that needs memory.
SPIN = """
source = "def fill(held):\\n" + "    x = 1\\n" * 300 + '''
    try:
        for at in range(len(held)):
            held[at] = at + 100_000
    finally:
        x = 2
'''
exec(source)
held = [None] * 10_000_000
limit(30_000_000)
fill(held)
"""
HOLD = f"ctypes.PyDLL(None).sleep({3 * PATIENCE})\nprint('done')\n"  # the interpreter's lock is held, as in a spin
WORK = f"end = time.monotonic() + {6 * PATIENCE}\nwhile time.monotonic() < end: pass\nprint('done')\n"
WAIT = f"time.sleep({6 * PATIENCE})\nprint('done')\n"
# The stack of the first thread is kept for the second one, which then has no memory for its first frame.
START = """
import threading
for at in range(2):
    thread = threading.Thread(target=str)
    if at:
        limit(0)
    thread.start()
    thread.join()
    time.sleep(0.2)
"""
CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {code!r}])
limit(0)
assert child.wait() == 0
print('done')
"""
IDLE_CHILD = CHILD.format(code=f"import time; time.sleep({6 * PATIENCE})")
BUSY_CHILD = CHILD.format(code=f"import time\nwhile time.process_time() < {6 * PATIENCE / 3}: pass")
SERVER = f"""
import socket, subprocess, sys
server = socket.create_server(("127.0.0.1", 0))
answer = "import socket, sys, time; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
answer += " time.sleep({6 * PATIENCE}); s.sendall(b'x')"
subprocess.Popen([sys.executable, "-c", answer, str(server.getsockname()[1])], start_new_session=True)
connection = server.accept()[0]
limit(0)
assert connection.recv(1) == b'x'
print('done')
"""
EVENT = f"import threading\nthreading.Timer({6 * PATIENCE}, event.set).start()\nlimit(0)\nevent.wait()\nprint('done')\n"
EVENT = "import threading\nevent = threading.Event()\n" + EVENT


def run(script: str) -> subprocess.CompletedProcess[str]:
    """The end of a watched process, and of what watched it, which holds the same stderr."""
    command = [sys.executable, "-c", WATCHED + script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("script", [SPIN, START])
def test_a_process_that_cannot_go_on_without_memory_is_ended_with_a_sentence(script: str) -> None:
    """It asks for memory for ever, or waits for ever for a thread that has no memory to start."""
    done = run(script)
    assert done.returncode == -9
    assert "error: the memory is too small" in done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("is_read", [False, True])
def test_it_is_ended_where_the_sentence_cannot_be_written(is_read: bool) -> None:
    """Nobody reads stderr any more, or whoever holds it does not read it: the pipe is full."""
    reader, writer = os.pipe()
    if is_read:
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(writer, b"." * 4096):
                pass
        os.set_blocking(writer, True)
    else:
        os.close(reader)
    process = subprocess.Popen([sys.executable, "-c", WATCHED + SPIN], cwd=ROOT, stderr=writer)
    os.close(writer)
    try:
        assert process.wait(timeout=100) == -9
    finally:
        process.kill()
        if is_read:
            os.close(reader)


def test_what_watches_holds_no_other_file_of_the_command() -> None:
    """A pipe that the command inherited and closes is closed, while the command goes on."""
    reader, writer = os.pipe()
    script = f"import os\nos.close({writer})\nprint('closed', flush=True)\ntime.sleep(60)\n"
    command = [sys.executable, "-c", WATCHED + script]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, pass_fds=(writer,))
    os.close(writer)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "closed\n"
        assert select.select([reader], [], [], 10)[0], "the pipe is still open"
        assert os.read(reader, 1) == b""
    finally:
        process.kill()
        process.communicate()
        os.close(reader)


def test_a_process_that_the_user_stopped_is_not_ended() -> None:
    script = "import os, signal\nlimit(0)\nos.kill(os.getpid(), signal.SIGSTOP)\nprint('done')\n"
    process = subprocess.Popen([sys.executable, "-c", WATCHED + script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    time.sleep(1 + 6 * PATIENCE)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=100)[0] == "done\n"
    assert process.returncode == 0


HEALTHY = {
    "holds the lock, no limit": HOLD,
    "holds the lock, memory left": "limit(100_000_000)\n" + HOLD,
    "works": "limit(0)\n" + WORK,
    "waits, no limit": WAIT,
    "sleeps near its limit": "limit(0)\n" + WAIT,
    "waits for a child that works": BUSY_CHILD,
    "waits for a child that waits": IDLE_CHILD,
    "waits for a server": SERVER,
    "waits for a thread": EVENT,
}


def test_no_other_process_is_ended() -> None:
    """One that holds the lock or waits without a limit or with addresses left; one without any that works or waits.

    Each takes 14 seconds or less, so five run at once.
    """
    with ThreadPoolExecutor(5) as threads:
        for name, done in zip(HEALTHY, threads.map(run, HEALTHY.values()), strict=True):
            assert (done.returncode, done.stdout) == (0, "done\n"), (name, done.stderr)


def test_nothing_is_left_running() -> None:
    start = time.monotonic()
    assert run("import os\nos._exit(5)\n").returncode == 5
    assert time.monotonic() - start < 60  # stderr is closed, so the watching process ended too
