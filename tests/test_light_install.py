"""What works without FiftyOne: commands in processes where it, and all that comes with it, cannot be imported."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MISSING = "FiftyOne is not installed: pip install 'audit-plugin[app]'"
# Python runs this file first in each process, in those that decode media too.
WITHOUT_FIFTYONE = """
import sys
from importlib.machinery import PathFinder

ABSENT = ("fiftyone", "eta", "mongoengine", "pymongo", "bson", "gridfs", "motor", "psutil", "faiss")

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, context):
        return () if context.name in ABSENT else super().find_distributions(context)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


@pytest.fixture(scope="module")
def light(tmp_path_factory, pictures, captions):
    """Runs a command in a folder with `pairs.csv`, where FiftyOne is not installed."""
    folder = tmp_path_factory.mktemp("light")
    (folder / "python").mkdir()
    (folder / "python" / "sitecustomize.py").write_text(WITHOUT_FIFTYONE)
    with (folder / "pairs.csv").open("w", newline="") as file:
        names = [Path(shutil.copy(picture, folder)).name for picture in pictures[:40]]
        csv.writer(file).writerows([("image", "caption"), *zip(names, captions[:40], strict=True)])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder / "python"), str(ROOT)]),
        "AUDIT_PLUGIN_CACHE": str(folder / "cache"),
        "FIFTYONE_DATABASE_URI": "mongodb://127.0.0.1:9/",  # never asked where FiftyOne is not there
    }

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def scores(light):
    done = light(*AUDIT, "score", "pairs.csv", "--image", "image", "--text", "caption", "--encoder", "offline", *QUICK)
    assert done.returncode == 0, done.stderr
    return light.folder / "scores.parquet"


AUDIT, QUICK = ("-m", "audit_plugin"), ("--trials", "2", "--epochs", "2")


def test_fiftyone_cannot_be_imported_here(light):
    for name in ("fiftyone", "pymongo", "psutil"):
        done = light("-c", f"import {name}")
        assert f"No module named '{name}'" in done.stderr


def test_scores_are_reported_exported_and_selected(light, scores):
    for command in (
        ("report", scores.name),
        ("export", scores.name, "--to", "clean.jsonl"),
        ("select", scores.name, "--budget", "50%"),
    ):
        done = light(*AUDIT, *command)
        assert done.returncode == 0, done.stderr
    assert "<img" in (light.folder / "report.html").read_text(encoding="utf-8")
    assert (light.folder / "clean.jsonl").stat().st_size
    assert (light.folder / "selected.parquet").is_file()


@pytest.mark.parametrize(
    "command",
    [
        ("audit", "a-dataset"),
        ("report", "a-dataset"),
        ("compare", "a-dataset:audit", "another:audit"),
        ("export", "a-dataset", "--to", "another"),
        ("import", "scores.parquet", "--dataset", "new"),
        ("review", "list", "a-dataset"),
        ("review", "apply", "a-dataset"),
        ("personas", "--dataset", "people"),
        ("cache", "--database"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("scores")
def test_commands_that_need_fiftyone_say_so_at_once(light, command):
    before = sorted(light.folder.iterdir())
    done = light(*AUDIT, *command)
    assert (done.returncode, done.stderr.strip()) == (2, f"error: {MISSING}")
    assert sorted(light.folder.iterdir()) == before


def test_python_says_so_too(light):
    done = light("-c", "from audit_plugin import audit_view")
    assert done.stderr.strip().endswith(f"ModuleNotFoundError: {MISSING}")


def test_the_doctor_takes_fiftyone_for_optional(light):
    done = light(*AUDIT, "doctor", "--fix")
    said = " ".join(done.stdout.split())
    assert "mongod: nothing to do, FiftyOne is not installed" in said
    assert "optional FiftyOne not installed" in said
    assert "to be fixed" not in said
    assert done.returncode == 0
