"""Threads that read media, or train, and that end at once when the work around them is given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

_current = threading.local()  # .threads: the `ReadingThreads` that a thread belongs to


class StoppedError(Exception):
    """Reading was given up; nobody waits for its result."""


class ReadingThreads(ThreadPoolExecutor):
    """A pool of threads; leaving its block by an error or an interrupt stops what they are reading."""

    def __init__(self, count: int) -> None:
        super().__init__(count, initializer=lambda: setattr(_current, "threads", self))
        self._lock = threading.Lock()
        self._stopped = False
        self._enders: set[Callable[[], None]] = set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with self._lock:
                self._stopped = True
                for end in self._enders:
                    end()
        self.shutdown(cancel_futures=kind is not None)

    def add(self, end: Callable[[], None]) -> None:
        """Registers what ends a read that is about to begin in one of the threads; ends it if it is too late."""
        with self._lock:
            self._enders.add(end)
            if self._stopped:
                end()

    def discard(self, end: Callable[[], None]) -> None:
        """Forgets what ended a read that is over."""
        with self._lock:
            self._enders.discard(end)

    def check(self) -> None:
        """Raises `StoppedError` where the work was given up."""
        if self._stopped:
            raise StoppedError


def current_threads() -> ReadingThreads | None:
    """The pool that the calling thread belongs to."""
    return getattr(_current, "threads", None)


def check_stopped() -> None:
    """Raises `StoppedError` where the work that the calling thread does was given up."""
    threads = current_threads()
    if threads is not None:
        threads.check()
