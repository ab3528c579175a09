"""Reads media in worker processes: a file that crashes, stalls or fills its decoder costs one medium, not the run.

A process decodes the next medium while the last one is used, so that handing over costs little. Nothing that it sends
is trusted (`packing`).
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError

from .files import MediaError
from .packing import body_size, unpacked
from .threads import check_stopped, current_threads
from .worker import EXTRA_SECONDS

TICK_SECONDS = 1.0
START_TICKS = 120  # until a new process has imported what it needs, on a busy machine
LATE_TICKS = 5  # after which a process that outlived its own alarm is ended from here
CPU_SECONDS = 40  # for one medium, of a processor
# After `PATIENCE` media that took too long within an hour each one gets a few seconds only: N media that stall cost
# PATIENCE x 40 s + N x 5 s, not N x 40 s, of one thread, in whatever order they come.
PATIENCE = 4
FEW_SECONDS = 5
HOUR = 3600.0
NONSENSE = "made the process that reads media answer nonsense; it is damaged, or hostile"
PIPE_BYTES = 1 << 20
PACKAGE_FOLDER = str(Path(__file__).parents[2])  # where a worker finds this package, however it was found here
MAX_HEADER = 1 << 16
LONGEST_VALUE = 5_000  # characters: longer than any path; two requests must fit into a pipe
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "PATH": os.devnull,  # a decoder that would start another program finds none
}
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from audit_plugin.inputs.worker import serve
serve(int(sys.argv[2]))
"""


class _DeadError(Exception):
    """A worker process ended (no message), or no longer answers as it should (what it did)."""


def too_long(seconds: int) -> str:
    """Why there is no medium after so many seconds."""
    cause = f", since {PATIENCE} media before it took longer than {CPU_SECONDS} s" if seconds < CPU_SECONDS else ""
    return f"took too long to be read (the limit is {seconds} s{cause})"


class _Limit:
    """Seconds that the next medium gets; one for all threads of this process."""

    def __init__(self) -> None:
        self.given_up: deque[float] = deque(maxlen=PATIENCE)  # when the last media were that took too long

    def seconds(self) -> int:
        is_short = len(self.given_up) == PATIENCE and time.monotonic() - self.given_up[0] < HOUR
        return FEW_SECONDS if is_short else CPU_SECONDS


_LIMIT = _Limit()


class _Worker:
    """One process that decodes; used by one thread at a time."""

    def __init__(self, lifeline: int) -> None:
        # not multiprocessing, which would import the user's main script
        folders = [*(folder for folder in sys.path if isinstance(folder, str)), PACKAGE_FOLDER]
        path = json.dumps([os.path.abspath(folder) for folder in folders])
        # -P: no module in the working folder, beside the data, is imported; -X: names of files must mean the same
        options = ("-B", "-P", "-X", f"utf8={sys.flags.utf8_mode}")
        self.process = subprocess.Popen(
            [sys.executable, *options, "-c", _CODE, path, str(lifeline)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(lifeline,),
            env={**os.environ, **ENVIRONMENT},
            process_group=0,  # an interrupt from the keyboard is handled here
        )
        assert isinstance(self.process.stdin, io.BufferedWriter)
        assert isinstance(self.process.stdout, io.BufferedReader)
        self.requests, self.replies = self.process.stdin, self.process.stdout
        self.has_started = self.is_overdue = False
        self.seconds = 0  # that the medium gets which is waited for
        # until it is overdue; counted by `_Workers`, since clocks go on in a suspended process
        self.ticks_left = math.inf
        self.waiting_since = 0.0
        with contextlib.suppress(AttributeError, OSError):  # a pipe of the usual size is slower, and no more
            fcntl.fcntl(self.replies, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def answers(self, reader: str, values: Sequence[str]) -> Iterator[Any]:
        """The medium, or the `MediaError`, of each value.

        Raises:
            _DeadError: the process died, stalled, or answered nonsense, about the first value without an answer.
            AuditError: it cannot start on this machine.
        """
        self._await_start()
        folder, seconds = _folder(), 0
        for value, following in zip([None, *values], [*values, None], strict=True):
            self.seconds, seconds = seconds, _LIMIT.seconds()
            if following is not None:  # it is decoded while the one before is used
                request = {"reader": reader, "value": following, "folder": folder, "seconds": seconds}
                with contextlib.suppress(OSError):  # that it died is seen from its answer
                    self.requests.write(json.dumps(request).encode() + b"\n")
                    self.requests.flush()
            if value is not None:
                yield _medium(*self._reply(self.seconds + EXTRA_SECONDS + LATE_TICKS))

    def end(self) -> None:
        """Ends the process at once; whoever waits for its reply learns that it died."""
        with contextlib.suppress(OSError):
            self.process.send_signal(signal.SIGKILL)

    def close(self) -> int:
        """Ends the process, and gives its pipes back; returns its exit status."""
        self.end()
        status = self.process.wait()
        for pipe in (self.requests, self.replies):
            with contextlib.suppress(OSError):
                pipe.close()
        return status

    def _await_start(self) -> None:
        if self.has_started:
            return
        try:
            self._reply(START_TICKS)
        except _DeadError as error:
            check_stopped()
            raise AuditError(
                f"the process that reads media does not start (exit status {self.process.poll()}); see why with: "
                f'{sys.executable} -c "import audit_plugin.inputs.worker"'
            ) from error
        self.has_started = True

    def _reply(self, ticks: int) -> tuple[dict[str, Any], bytearray]:
        """(header, body)."""
        self.ticks_left, self.waiting_since = ticks, time.monotonic()
        size = int.from_bytes(self._read(4), "big")
        if size > MAX_HEADER:
            raise _DeadError(NONSENSE)
        try:
            header = json.loads(self._read(size))
            body = self._read(body_size(header))
        except (AttributeError, ValueError, RecursionError) as error:
            raise _DeadError(NONSENSE) from error
        self.ticks_left = math.inf  # until the next answer is waited for
        return header, body

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        if self.replies.readinto(data) < size:  # a buffered reader: less only at the end
            raise _DeadError(too_long(self.seconds) if self.is_overdue else "")
        return data


class _Workers:
    """The worker processes of this process. Those that nobody uses wait for the next medium."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle: list[_Worker] = []
        self.busy: set[_Worker] = set()
        self.lifeline = (-1, -1)  # a pipe: when its writing end is gone, the kernel ends the workers

    def start(self, count: int) -> None:
        """Starts processes until `count` are idle, without waiting until they are ready."""
        while len(self.idle) < count:
            worker = self._new()
            with self.lock:
                self.idle.append(worker)

    def take(self) -> _Worker:
        """A process that was idle, or a new one."""
        with self.lock:
            while self.idle:
                worker = self.idle.pop()
                if worker.process.poll() is None:
                    self.busy.add(worker)
                    return worker
                worker.close()
        worker = self._new()
        with self.lock:
            self.busy.add(worker)
        return worker

    def give_back(self, worker: _Worker) -> None:
        with self.lock:
            self.busy.discard(worker)
            self.idle.append(worker)

    def drop(self, worker: _Worker) -> int:
        """Ends a process; returns its exit status."""
        with self.lock:
            self.busy.discard(worker)
        return worker.close()

    def close(self) -> None:
        """Ends all processes that are idle."""
        with self.lock:
            while self.idle:
                self.idle.pop().close()

    def forget(self) -> None:
        """After a fork: the processes are the parent's; here only the pipes to them are closed."""
        for worker in (*self.idle, *self.busy):
            for pipe in (worker.requests, worker.replies):
                # below its buffer: what is in it is the parent's to send, and a thread that is gone may hold its lock
                with contextlib.suppress(OSError):
                    pipe.raw.close()
        for end in self.lifeline:
            with contextlib.suppress(OSError):
                os.close(end)
        self.lock = threading.Lock()  # a thread that is gone may hold the former one
        self.idle, self.busy, self.lifeline = [], set(), (-1, -1)

    def _new(self) -> _Worker:
        try:
            with self.lock:
                if self.lifeline[1] < 0:
                    self.lifeline = os.pipe()
                    threading.Thread(target=self._watch, daemon=True).start()
            return _Worker(self.lifeline[0])
        except OSError as error:
            raise AuditError(
                f"no process can be started that reads media ({error.strerror or error}); close other programs, or "
                "raise the limits of processes and open files (ulimit -u, ulimit -n)"
            ) from error

    def _watch(self) -> None:
        """Ends processes that do not answer in time, whatever they did to their own alarm."""
        while True:
            time.sleep(TICK_SECONDS)
            with self.lock:
                for worker in self.busy:
                    worker.ticks_left -= 1
                    if worker.ticks_left < 0:
                        worker.is_overdue = True
                        worker.end()


_WORKERS = _Workers()
atexit.register(_WORKERS.close)
os.register_at_fork(after_in_child=_WORKERS.forget)


def close_workers() -> None:
    """Ends the processes that nobody uses."""
    _WORKERS.close()


def start_workers(count: int) -> None:
    """Starts processes that will be needed soon, while this one does something else."""
    _WORKERS.start(count)


@dataclass(frozen=True)
class ReadApart:
    """A `Modality.read` in other processes: raises what `read_each` returns."""

    reader: str  # one of `worker.READERS`

    def __call__(self, value: str) -> Any:
        (medium,) = read_each(self.reader, [value])
        if isinstance(medium, MediaError):
            raise medium
        return medium


def read_each(reader: str, values: Sequence[str]) -> Iterator[Any]:
    """The medium that one of `worker.READERS` makes of each value, or a `MediaError`, by another process.

    Raises:
        AuditError: no process can be started, or its open files are used up.
        StoppedError: the work that the calling thread does was given up.
    """
    done, crashes = 0, 0  # crashes by the first value without an answer
    while done < len(values):
        check_stopped()
        if len(values[done]) > LONGEST_VALUE:
            yield MediaError("file cannot be read (its name is too long)")
            done += 1
            continue
        short = list(_until_too_long(values[done:]))
        worker = _WORKERS.take()
        try:
            with _stoppable(worker):
                for medium in worker.answers(reader, short):
                    done, crashes = done + 1, 0
                    yield medium
        except _DeadError as error:
            status = _WORKERS.drop(worker)
            check_stopped()
            reason = str(error) or _reason(status, time.monotonic() - worker.waiting_since, worker.seconds)
            took_too_long = reason == too_long(worker.seconds)
            if took_too_long:
                _LIMIT.given_up.append(time.monotonic())
            crashes += 1
            if crashes == 2 or took_too_long:  # once again else: the system may have ended it to free memory
                yield MediaError(reason)
                done, crashes = done + 1, 0
        except BaseException:
            _WORKERS.drop(worker)
            raise
        else:
            _WORKERS.give_back(worker)


def _until_too_long(values: Sequence[str]) -> Iterator[str]:
    for value in values:
        if len(value) > LONGEST_VALUE:
            return
        yield value


@contextlib.contextmanager
def _stoppable(worker: _Worker) -> Iterator[None]:
    """Ends the worker inside where the pool of the calling thread is given up."""
    threads = current_threads()
    if threads is None:
        yield
        return
    threads.add(worker.end)
    try:
        yield
    finally:
        threads.discard(worker.end)


def _medium(header: dict[str, Any], body: bytearray) -> Any:
    """What a reply holds: a medium or a `MediaError`."""
    if "broken" in header:
        raise AuditError(_one_line(header["broken"]))
    if "failure" in header:
        return MediaError(_one_line(header["failure"]))
    try:
        return unpacked(header, body)
    except (KeyError, TypeError, ValueError) as error:
        raise _DeadError(NONSENSE) from error


def _one_line(text: object) -> str:
    """A sentence of a process that a hostile file may have taken over."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text)[:300])


def _reason(status: int, waited: float, limit: int) -> str:
    """Why there is no medium, by the exit status of the process, after so many seconds."""
    if status == -signal.SIGXCPU or (status == -signal.SIGALRM and waited > limit + EXTRA_SECONDS - 1):
        return too_long(limit)
    cause = f"exit status {status}"
    with contextlib.suppress(ValueError):
        cause = signal.Signals(-status).name
    return f"crashed the process that read it ({cause}); it is damaged, or hostile"


def _folder() -> str:
    """The working folder, "" where it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""
