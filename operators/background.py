"""Long work in a thread, its progress and its errors shown to whoever waits, in the App or in a queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from .forms import config_from
from .results import error_output

logger = logging.getLogger(__name__)
REFRESH_SECONDS = 0.3
# How long each stage usually takes beside the others: what makes one bar out of many counters.
STAGES = {
    "read": 0.02,
    "encode image": 0.45,
    "encode text": 0.08,
    "encode audio": 0.3,
    "encode video": 0.9,
    "neighbors": 0.03,
    "train": 0.35,
    "towers": 2.0,
    "score": 0.02,
    "explain": 0.02,
    "write": 0.05,
    "removal": 1.0,
}

Event = tuple[str, int, int]
Progress = Callable[[str, int, int], None]


def in_background(ctx: Any, work: Callable[[Progress], Any], stages: Mapping[str, float]) -> Generator[Any, None, Any]:
    """Run `work(progress)`; yield progress, then perhaps one sentence on why it failed.

    Returns:
        What the work gave; None if it failed.

    Raises:
        Exception: whatever the work raised, where it was queued: the queue shows it and marks the run as failed.
    """
    events: SimpleQueue[Event] = SimpleQueue()
    outcome: dict[str, Any] = {}
    thread = Thread(target=_run, args=(work, events, outcome), daemon=True)
    thread.start()
    for stage, done, total in _latest(events, thread.is_alive):
        share, label = overall(stage, done, total, stages)
        if ctx.delegated:
            ctx.set_progress(progress=share, label=label)
        else:
            yield ctx.ops.set_progress(progress=share, label=label)
    error = outcome.get("error")
    if error and ctx.delegated:
        raise error
    if error:
        yield from _show_error(ctx, error)
    return outcome.get("result")


def stages_of(view: Any, params: Mapping[str, Any], last: str = "write") -> dict[str, float]:
    """The stages of an audit of the view, `last` after them, each with its share of the time; all together 1."""
    from audit_plugin import fiftyone_io

    try:
        config = config_from(params)
        encodes = {f"encode {modality}" for modality in fiftyone_io.modality_sources(view, config)}
        training = "towers" if config.train == "towers" else "train"
    except AuditError:
        return {}  # the audit will say why
    others = {"read", "neighbors", training, "score", "explain", last}
    weights = {name: weight for name, weight in STAGES.items() if name in encodes | others}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def overall(stage: str, done: int, total: int, stages: Mapping[str, float]) -> tuple[float, str]:
    """Where the whole work stands: a share from 0 to 1 and a label."""
    names = list(stages)
    before = sum(stages[name] for name in names[: names.index(stage)]) if stage in stages else 0.0
    share = before + stages.get(stage, 0.0) * (done / total if total else 1.0)
    return min(share, 1.0), f"{stage.capitalize()}: {done:,} of {total:,}"


def _run(work: Callable[[Progress], Any], events: SimpleQueue[Event], outcome: dict[str, Any]) -> None:
    try:
        outcome["result"] = work(lambda *event: events.put(event))
    except Exception as error:  # must reach the person who waits, whatever it is
        if not isinstance(error, AuditError):
            logger.exception("The work failed")
        outcome["error"] = error


def _latest(events: SimpleQueue[Event], alive: Callable[[], bool]) -> Iterator[Event]:
    """The newest event every now and then, as long as the work lasts; older ones are passed over."""
    while alive():
        newest = None
        try:
            newest = events.get(timeout=REFRESH_SECONDS)
            while True:
                newest = events.get_nowait()
        except Empty:
            if newest:
                yield newest


def _show_error(ctx: Any, error: Exception) -> Iterator[Any]:
    known = isinstance(error, AuditError)
    sentence = str(error) if known else f"The work stopped: {error} ({type(error).__name__}); the log has more"
    yield ctx.ops.notify(sentence, variant="error")
    yield ctx.ops.show_output(types.Property(error_output(sentence)).to_json(), {})
