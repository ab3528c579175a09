"""What the commands share: progress that an interrupt stops, pictures, and the closing page."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import NOTHING_SCORED, stop

if TYPE_CHECKING:
    from audit_plugin.arrays import AuditResult, Samples
    from audit_plugin.config import AuditConfig


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A `progress` for long work, shown on stderr; an interrupt ends the work at its next step."""
    from audit_plugin.report.display import StageDisplay, console

    pressed = threading.Event()

    def on_interrupt(*_: object) -> None:
        pressed.set()
        raise KeyboardInterrupt

    def progress(stage: str, done: int, total: int) -> None:
        if pressed.is_set():  # libraries swallow an interrupt that reaches them while they are imported
            raise KeyboardInterrupt
        display(stage, done, total)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        with StageDisplay(console(stderr=True)) as display:
            yield progress
    finally:
        signal.signal(signal.SIGINT, before)


def audited(samples: Samples, config: AuditConfig, run_dir: Path | None = None) -> AuditResult:
    """The audit of samples, its progress shown."""
    from audit_plugin.audit.run import run_audit

    with shown_progress() as progress:
        return run_audit(samples, config, progress, run_dir)


def show_plan(plan: dict[str, Any]) -> None:
    """Shows what an audit would cost."""
    from audit_plugin.report import display

    display.show_plan(display.console(), plan)


def finish(result: AuditResult, samples: Samples, places: list[str]) -> None:
    """Shows the result; ends with code 1 if not one row got a score."""
    from audit_plugin.report.display import any_score, console, show_result

    show_result(console(), result, samples, places)
    if not any_score(result):
        stop(NOTHING_SCORED, "nothing could be scored; the column 'failure' says why, row by row")
