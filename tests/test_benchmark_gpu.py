"""The benchmark for a machine with a GPU, run on the CPU: on the day nothing but the device is new."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, record

ARGUMENTS = ["--device", "cpu", "--small", "--name", "gpu-small"]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    return tmp_path / "gpu-small.json"


def parts(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(results.read_text())["parts"]
    return found


def test_the_limits_leave_eight_minutes() -> None:
    assert sum(limit for _, limit in gpu.PARTS.values()) <= 480


@pytest.mark.timeout(1200)
def test_every_part_runs_on_the_cpu(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = {name: (part, 4 * limit) for name, (part, limit) in gpu.PARTS.items()}  # a busy machine is no fault
    monkeypatch.setattr(gpu, "PARTS", longer)
    gpu.main(ARGUMENTS)
    found = parts(results)
    assert {name: part["status"] for name, part in found.items()} == dict.fromkeys(gpu.PARTS, "ok"), found
    whole = json.loads(results.read_text())
    assert whole["chip"]["name"]
    assert {"question", "machine", "versions", "git", "settings", "load_before"} <= set(whole)
    features = found["features"]
    assert all(value >= gpu.LEAST_COSINE for key, value in features.items() if key[-5:] in ("image", "_text"))
    assert sum(key.endswith("bf16") for key in features) == 2
    assert all(value >= gpu.LEAST_COSINE_BF16 for key, value in features.items() if key.endswith("bf16"))
    assert all(found["scores"][f"ranks_{score}"] == 1 for score in gpu.SCORES)
    assert found["scores"]["equal_bytes_twice"]
    assert found["encoding"]["images_per_second"] > 0
    assert found["trials"]["seconds_trials"] > 0
    assert {key for key in found["neighbors"] if key.startswith("torch")} == {"torch_400", "torch_600"}
    assert min(value["recall"] for value in found["neighbors"].values() if isinstance(value, dict)) >= 0.99
    assert {"train", "trials", "neighbors"} <= set(found["audit"]["stages"])


def test_a_part_that_takes_too_long_keeps_what_it_told_and_the_others_run(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu.PARTS, "trials", (gpu.train, 0))
    monkeypatch.setattr(gpu.sys, "executable", "/bin/sh")  # given "-m", it ends at once with an error
    gpu.main([*ARGUMENTS, "--parts", "trials", "neighbors"])
    found = parts(results)
    assert found["trials"]["status"] in ("over its time", "failed")
    assert found["neighbors"]["status"] == "failed"
    assert found["neighbors"]["errors"]


def test_figures_told_before_the_end_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text(
        '#!/bin/sh\necho \'{"first": 1}\'\necho "a line of a library"\necho \'{"second": 2}\'\nsleep 60\n'
    )
    script.chmod(0o700)
    monkeypatch.setattr(gpu.sys, "executable", str(script))
    monkeypatch.setitem(gpu.PARTS, "trials", (gpu.train, 1))
    start = time.monotonic()
    found = gpu.in_own_process("trials", gpu.options(ARGUMENTS))
    assert time.monotonic() - start < 30, "what the part started ended with it"
    assert (found["status"], found["first"], found["second"]) == ("over its time", 1, 2)


def test_the_json_is_written_after_each_part(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[list[str]] = []

    def run(name: str, _args: Any) -> dict[str, Any]:
        written.append(list(parts(results)) if results.exists() else [])
        if name == "scores":
            raise KeyboardInterrupt
        return {"status": "ok"}

    monkeypatch.setattr(gpu, "in_own_process", run)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(ARGUMENTS)
    assert written == [[], ["tests"], ["tests", "features"]]
    assert list(parts(results)) == ["tests", "features"]
