"""The command line. Heavy packages are imported inside the commands, so that `--help` is fast.

Exit codes: 0 success, 1 nothing could be scored, 2 wrong usage or bad input, 3 a condition of `--fail-if` holds, 130
interrupted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import warnings
from types import FrameType
from typing import Any

from audit_plugin.store import plain_error

# Each module registers its commands, and the help lists them in this order.
# isort: off
from . import quickstart as quickstart
from . import manifests as manifests
from . import datasets as datasets
from . import review as review
from . import cross_modal as cross_modal
from . import report as report
from . import judge as judge
from . import cache as cache
from . import exports as exports
from . import install as install
from .memory_watch import start_memory_watch
from .options import BAD_INPUT, INTERRUPTED, app
# isort: on

__all__ = ["app", "main"]

SENTENCE = "interrupted; run the same command again to resume\n"
GRACE_SECONDS = 3.0  # from an interrupt to the end of the process


def main() -> None:
    """Entry point of `audit-plugin`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    # doctor installs that version on purpose; a notice before every audit would hide other messages.
    database = logging.getLogger("fiftyone.core.odm.database")
    database.addFilter(lambda record: "oldest supported major version" not in str(record.msg))
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # Captions may hold characters that the terminal cannot encode; these must not end a long run.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        interrupted = _end_on_interrupt()
        start_memory_watch()
    except (OSError, RuntimeError) as error:  # neither a pipe nor a thread can be had
        sys.stderr.write(f"error: {plain_error(error) or error}\n")
        sys.exit(BAD_INPUT)
    try:
        app()
    except BaseException as end:
        if not interrupted.is_set():
            _end_at_once_of_shortage(end)
            raise
        if not (isinstance(end, SystemExit) and end.code == INTERRUPTED):  # what an interrupted import led to later
            sys.stderr.write(SENTENCE)
        sys.exit(INTERRUPTED)


def _end_at_once_of_shortage(end: BaseException) -> None:
    """Ends the process where it lacks something, after a sentence: libraries without memory crash at a usual end."""
    sentence = plain_error(end)
    if sentence is None or (isinstance(end, SystemExit) and end.code != BAD_INPUT):
        return
    with contextlib.suppress(OSError):
        if not isinstance(end, SystemExit):  # else the command said it
            sys.stderr.write(f"error: {sentence}\n")
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(BAD_INPUT)


def _open_closed_streams() -> None:
    """Standard streams that were closed lead nowhere: the next file would get their number, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, so this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _end_on_interrupt() -> threading.Event:
    """Ends the process soon after an interrupt, at once after a second one; the event is set by the first.

    The main thread may be in a library that computes for long, or that swallows the exception; what was finished is
    stored as whole files, so the process can end anywhere.
    """
    interrupted = threading.Event()
    # Python runs handlers between steps of the main thread; the numbers of signals reach this pipe during a step too.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while os.read(reader, 1) != bytes([signal.SIGINT]):
            pass
        select.select([reader], [], [], GRACE_SECONDS)  # until another signal
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h")  # the cursor, which the display of progress hides
        os.write(2, SENTENCE.encode())
        os._exit(INTERRUPTED)

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def show_unraisable(problem: Any) -> None:
        if not issubclass(problem.exc_type, KeyboardInterrupt):  # in a destructor or callback: the next step raises it
            sys.__unraisablehook__(problem)

    def show_in_thread(problem: threading.ExceptHookArgs) -> None:
        # a thread without the memory to begin, of which Python cannot even say what is wrong
        if not issubclass(problem.exc_type, MemoryError | SystemError):
            threading.__excepthook__(problem)

    sys.unraisablehook, threading.excepthook = show_unraisable, show_in_thread
    signal.signal(signal.SIGINT, on_interrupt)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    return interrupted
