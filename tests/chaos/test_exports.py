"""Exports that die at any of their steps on the disk: the place is empty or whole, and the next export makes it."""

from __future__ import annotations

import os
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.audit.export import ManifestSource, Rules, export_rows
from audit_plugin.report import read_score_table
from tests.export_fixtures import COLUMNS, marked, write_manifest, write_scores

ROWS = 5
STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", "os.scandir"}
KILLED = 9
PATIENCE = 60.0  # seconds
PLACES = {
    "webdataset": "out",
    "hf-folder": "out",
    "hf-parquet": "out",
    "csv": "out.csv",
    "parquet": "out.parquet",
    "parquet-bytes": "out.zip",
}


def audited(folder: Path) -> Path:
    folder.mkdir()
    entries = []
    for row in range(ROWS):
        (folder / f"{row}.jpg").write_bytes(b"\xff\xd8\xff" + bytes([row]) * 3000)
        entries.append({"id": f"s{row}", "image": f"{row}.jpg", "caption": f"caption {row}"})
    manifest = write_manifest(folder / "m.csv", entries)
    words = {"action": marked(ROWS, {1: "remove", 2: "relabel"}, "keep"), "suggestion": marked(ROWS, {2: "new"})}
    return write_scores(folder / "s.parquet", manifest, [entry["id"] for entry in entries], columns=words)


def export(scores: Path, to: Path, form: str) -> None:
    export_rows(
        read_score_table(scores), ManifestSource(scores.parent / "m.csv", COLUMNS), to, form, Rules(relabel=True)
    )


def killed_at(step: int, scores: Path, to: Path, form: str) -> str:
    """What became of an export that dies before its step on the disk: killed, finished or hangs."""
    child = os.fork()
    if child == 0:
        left = [step]

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            if event in STEPS and str(to.parent) in " ".join(map(str, arguments)):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(KILLED)

        sys.addaudithook(count)
        try:
            export(scores, to, form)
        except BaseException:
            os._exit(1)
        os._exit(0)
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return {0: "finished", KILLED: "killed"}.get(os.waitstatus_to_exitcode(status), "failed")
        time.sleep(0.002)
    os.kill(child, KILLED)
    os.waitpid(child, 0)
    return "hangs"


def contents(folder: Path, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Path below a folder -> bytes, without the documents that name the time or the place."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("audit.md", *but)))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def whole(to: Path) -> dict[str, bytes]:
    if to.suffix == ".zip":
        with zipfile.ZipFile(to) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("audit.md")}
    return contents(to) if to.is_dir() else {"": to.read_bytes()}


def steps(scores: Path, folder: Path, form: str, stride: int, first: int) -> Iterator[tuple[Path, str]]:
    """A new folder with what a killed export left in it, for every `stride`-th step until one finishes."""
    step = first
    while True:
        place = folder / f"{form}-{step}"
        place.mkdir()
        result = killed_at(step, scores, place / PLACES[form], form)
        yield place, result
        if result == "finished":
            return
        step += stride


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_export_may_die_at_any_step(chaos: Any, tmp_path: Path) -> None:
    scores = audited(tmp_path / "in")
    before = contents(tmp_path / "in")
    cases = half = lost = hangs = outside = silent = 0
    for number, form in enumerate(PLACES):
        export(scores, tmp_path / f"expected-{form}" / PLACES[form], form)
        expected = whole(tmp_path / f"expected-{form}" / PLACES[form])
        for place, result in steps(scores, tmp_path, form, chaos.count(6, 1), number):
            to = place / PLACES[form]
            cases += 1
            hangs += result == "hangs"
            half += result == "failed" or (to.exists() and whole(to) != expected)
            outside += contents(tmp_path / "in") != before
            outside += any(path.name != PLACES[form] and PLACES[form] not in path.name for path in place.iterdir())
            try:
                export(scores, to, form)
            except AuditError as error:
                silent += f"{to.name} " not in str(error) or whole(to) != expected
            lost += whole(to) != expected
            half += any(path.name.startswith(".") for path in place.iterdir())
    faults = {"half": half, "lost": lost, "hangs": hangs, "outside": outside, "silent_wrong": silent}
    chaos.record("exports", cases, "crash points and kills", **faults)
