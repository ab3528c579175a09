"""Datasets to be reviewed: what an audit would have written, by hand, and all that the database holds of them."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from audit_plugin.audit.result import AuditResult
from audit_plugin.config import AuditConfig
from audit_plugin.scoring.flags import FLAGS

WRITES = (
    "bulk_write", "insert_one", "insert_many", "update_one", "update_many", "delete_one", "delete_many",
    "find_one_and_update",
)  # fmt: skip
VOLATILE = ("last_modified_at", "audit_decision")


def written(
    view: Any,
    flagged: tuple[int, ...],
    text: str = "caption",
    config: AuditConfig | None = None,
    failed: tuple[int, ...] = (),
) -> None:
    """Writes an audit: the rows `flagged` are misaligned, the first of them worst, with a suggestion each.

    The rows `failed` have a failure beside their score, as where one of three media is missing.
    """
    fio = importlib.import_module("audit_plugin.fiftyone_io")
    config = config or AuditConfig(text=text)
    samples = fio.read_samples(view, config)
    n = len(samples.ids)
    flags = {f"is_{kind}": np.zeros(n, dtype=bool) for kind in FLAGS}
    flags["is_misaligned"][list(flagged)] = True
    score = np.zeros(n, dtype=np.float32)
    score[list(flagged)] = np.arange(len(flagged), 0, -1)
    text_of = np.array([f"better {row}" if row in flagged else "" for row in range(n)], dtype=object)
    columns = {
        "misalignment": score,
        "probability": np.clip(score / 10, 0.01, 0.99),
        **flags,
        "action": np.where(flags["is_misaligned"], "relabel", "keep").astype(object),
        "reason": np.array(["why" if f else "" for f in flags["is_misaligned"]], dtype=object),
        "suggestion": text_of,
    }
    if failed:
        failures = ["scored without audio: no value" if row in failed else "" for row in range(n)]
        columns["failure"] = np.array(failures, dtype=object)
    result = AuditResult(samples.ids, columns, {"samples": n})
    fio.write_result(view, result, config, captions=fio.caption_numbers(samples))


def some_decided(dataset: Any) -> list[str]:
    """Two relabels, two removals, one keep; the ids of the dataset."""
    fio = importlib.import_module("audit_plugin.fiftyone_io")
    ids = dataset.values("id")
    fio.decide(dataset, ids[1], "relabel", text="new 1")
    fio.decide(dataset, ids[4], "relabel", text="new 4")
    fio.decide(dataset, ids[2:4], "remove")
    fio.decide(dataset, ids[5], "keep")
    return list(ids)


def documents(dataset: Any, but: tuple[str, ...] = VOLATILE) -> dict[Any, dict[str, Any]]:
    """Raw documents of all samples and frames, without what changes whenever anything is written."""
    found = list(dataset._sample_collection.find())
    if dataset._contains_videos(any_slice=True):
        found += list(dataset._frame_collection.find())
    return {d["_id"]: {name: value for name, value in d.items() if name not in but} for d in found}


def kinds(dataset: Any) -> list[str | None]:
    """The field `audit_decision` in the order of the dataset."""
    return dataset.values("audit_decision") if dataset.has_sample_field("audit_decision") else [None] * len(dataset)


@contextmanager
def clock_moved(days: int) -> Iterator[None]:
    """The clock of this process goes wrong by days, for its times and for new ids of the database."""
    real, seconds = time.time, 86_400.0 * days

    class Moved(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromtimestamp(real() + seconds, tz)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "time", lambda: real() + seconds)
        for name, module in list(sys.modules.items()):
            if name.startswith("audit_plugin") and getattr(module, "datetime", None) is datetime:
                patched.setattr(module, "datetime", Moved)
        yield


class CrashError(Exception):
    """What a test throws in the middle of writing."""


OURS = ("audit_plugin.", "samples.", "frames.")


def crash_after(monkeypatch: Any, steps: int, collections: tuple[str, ...] = OURS) -> Callable[[], int]:
    """Lets the database take `steps` writes of the collections (by how their names begin); of the next it takes half.

    Then it raises, at that write and all later ones.

    Returns:
        A function that gives the number of writes so far.
    """
    from pymongo.collection import Collection

    made = [0]

    def limited(name: str) -> None:
        real = getattr(Collection, name)

        def write(self: Any, first: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.name.startswith(collections):
                return real(self, first, *args, **kwargs)
            made[0] += 1
            if made[0] > steps:
                if isinstance(first, list) and len(first) > 1:
                    real(self, first[: len(first) // 2], *args, **kwargs)
                raise CrashError
            return real(self, first, *args, **kwargs)

        monkeypatch.setattr(Collection, name, write)

    for name in WRITES:
        limited(name)
    return lambda: made[0]
