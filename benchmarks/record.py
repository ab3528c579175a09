"""The record of a measurement: machine, versions, commit; and where its JSON is stored."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from audit_plugin.audit.result import versions

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """What it ran on."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    named = (line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name"))
    units = [unit for unit in ("amx_bf16", "avx512_bf16") if f" {unit}" in text]  # what decides most of our times
    about = {"cpu": next(named, platform.processor()), "units": units, "cores": os.cpu_count()}
    return {**about, "python": platform.python_version(), "system": platform.system()}


def git_hash(folder: Path = Path(__file__).parent) -> str:
    """The commit that was measured, marked where the tree differed from it in more than the results of measurements."""
    others = ("--untracked-files=no", "--", ":/", ":(exclude,top)benchmarks/results")
    head, changed = _git(folder, "describe", "--always", "--abbrev=12"), _git(folder, "status", "--porcelain", *others)
    return head + ("-dirty" if changed else "") or "unknown"


def _git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", *command], capture_output=True, text=True, check=False, cwd=folder)
    return done.stdout.strip()


def write_report(name: str, question: str, report: dict[str, Any]) -> Path:
    """Writes `results/NAME.json` with what it was measured on; returns its path."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"question": question, "machine": machine(), "versions": versions(), "git": git_hash(), **report}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return path


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    line, *lines = (f"| {' | '.join(cells)} |" for cells in (header, *rows))
    return [line, "|---" * len(header) + "|", *lines]
