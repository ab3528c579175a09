"""Attacks on the code: short ones in the suite, long ones by `make chaos`, which keeps what they counted."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.chaos_tables import FAULTS, KINDS
from benchmarks.record import git_hash, machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "chaos"


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

        `kind` is one of `KINDS`, the parts of the table in docs/security.md.
        """
        unknown = set(faults) - set(FAULTS)
        assert not unknown, f"unknown faults {sorted(unknown)}"
        assert kind in KINDS, f"unknown kind {kind!r}"
        counts = {"kind": kind, "cases": cases, **{fault: faults.get(fault, 0) for fault in FAULTS}}
        print(f"\n{name}: " + ", ".join(f"{key} {value}" for key, value in counts.items()))  # noqa: T201
        if self.is_long:
            facts = {"seconds": round(time.time() - self.begun, 1), "machine": machine(), "git": git_hash()}
            RESULTS.mkdir(parents=True, exist_ok=True)
            (RESULTS / f"{name}.json").write_text(json.dumps({**counts, **facts}, indent=2) + "\n", encoding="utf-8")
        assert cases > 0
        assert not any(counts[fault] for fault in FAULTS), counts


@pytest.fixture
def chaos() -> Chaos:
    """Short attacks, or long ones where AUDIT_CHAOS is `long`."""
    return Chaos(os.environ.get("AUDIT_CHAOS") == "long", time.time())
