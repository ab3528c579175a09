"""The README is run, and its tables are those of the code and of the committed measurements."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from audit_plugin.columns import COLUMNS
from benchmarks.readme import columns_table, fill

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_blocks_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    exec(compile(block, "README.md", "exec"), {})


def test_there_is_a_block_to_run() -> None:
    assert BLOCKS


def test_tables_are_up_to_date() -> None:
    assert fill(README) == README, "run: python -m benchmarks.readme"


def test_every_column_is_explained() -> None:
    table = columns_table()
    assert all(f"`{name}`" in table for name in COLUMNS)


def test_measured_numbers_are_those_of_the_committed_json() -> None:
    report = json.loads((ROOT / "benchmarks/results/detection-google.json").read_text(encoding="utf-8"))
    numbers = [f"{signals['misalignment']:.3f}" for signals in report["means"].values()]
    assert f"| misalignment | {' | '.join(numbers)} |" in README
