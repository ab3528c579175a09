"""Attacks on the code: short ones in the suite, long ones by `make chaos`, which keeps what they counted."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "chaos"
# What a record counts besides its cases: all must be 0. `outside`: files read, written or fetched that were not asked
# for; `half`: datasets or runs that are neither as before nor as after.
FAULTS = (
    "lost", "doubled", "half", "wrong_undo", "silent_wrong", "hangs", "tracebacks", "outside", "good_rows_lost"
)  # fmt: skip


@dataclass(frozen=True)
class Chaos:
    """How long the attacks are, and where their counts go."""

    is_long: bool
    begun: float

    def count(self, short: int, long: int) -> int:
        """The number of cases to run."""
        return long if self.is_long else short

    def record(self, name: str, cases: int, kind: str, **faults: int) -> None:
        """Print what an attack counted, keep it in the long form, and fail if any of `FAULTS` is not 0.

        `kind` is that of the table in docs/security.md: "crash points and kills", "races", "corruptions" or "hostile
        inputs".
        """
        unknown = set(faults) - set(FAULTS)
        assert not unknown, f"unknown faults {sorted(unknown)}"
        counts = {"kind": kind, "cases": cases, **{fault: faults.get(fault, 0) for fault in FAULTS}}
        print(f"\n{name}: " + ", ".join(f"{key} {value}" for key, value in counts.items()))  # noqa: T201
        if self.is_long:
            facts = {"seconds": round(time.time() - self.begun, 1), "machine": machine()}
            RESULTS.mkdir(parents=True, exist_ok=True)
            (RESULTS / f"{name}.json").write_text(json.dumps({**counts, **facts}, indent=2) + "\n", encoding="utf-8")
        assert cases > 0
        assert not any(counts[fault] for fault in FAULTS), counts


def machine() -> str:
    """What the counts were made on."""
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


@pytest.fixture
def chaos() -> Chaos:
    """Short attacks, or long ones where AUDIT_CHAOS is `long`."""
    return Chaos(os.environ.get("AUDIT_CHAOS") == "long", time.time())
