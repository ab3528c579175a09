"""The benchmark of recall across modalities: seeds are kept, and its tables say what the JSON says."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.crossmodal import __main__ as crossmodal
from benchmarks.crossmodal.stages import Schedule
from benchmarks.crossmodal.tables import controlled
from benchmarks.record import RESULTS

QUICK = Schedule(align=3, learn=2, forget=1, batch=8, curve=(1, 2))


def test_seeds_that_were_measured_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("python_avatars")
    given = argparse.Namespace(identities=5, background=12, seeds=1, data=tmp_path)
    first = crossmodal.measure_controlled(given, QUICK)
    assert "seed 0: align" in capsys.readouterr().out
    given.seeds = 2
    found = crossmodal.measure_controlled(given, QUICK)
    told = capsys.readouterr().out
    assert "seed 0" not in told
    assert "seed 1: align" in told
    assert found["settings"]["seeds_kept"] == [0]
    assert found["settings"]["seconds_per_seed"][0] == first["settings"]["seconds_per_seed"][0]
    assert found["seeds"]["image"]["image"][0] == first["seeds"]["image"]["image"][0]
    machine = {"cores": 2, "cpu": "a chip"}
    page = controlled({"design_a": json.loads(json.dumps(found)), "machine": machine})
    assert "5 people, 2 seeds fixed in advance" in page
    assert "| images, with replay of background pairs |" in page


def test_the_controls_of_the_committed_measurement_hold() -> None:
    report = json.loads((RESULTS / "crossmodal.json").read_text(encoding="utf-8"))
    found = report["design_a"]
    assert all(found["controls"].values())
    assert found["settings"]["seeds"] == 5
    assert sum(found["settings"]["seconds_per_seed"]) < 45 * 60
    assert report["design_b_persons"]["whole_seconds"] < 300
    assert report["drawing"]["seconds"] * 1000 / report["drawing"]["pictures"] < 60
