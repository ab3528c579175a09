"""A modality is one entry: "depth" (see `depth_modality`) from the manifest to the report, in processes of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
ROWS = 60


def run(code: str, folder: Path) -> str:
    """What code prints that runs where the modality is known."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AUDIT_PLUGIN_CACHE": str(folder / "cache")}
    script = f"import tests.depth_modality\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command(folder: Path, *arguments: str) -> None:
    run(f"from audit_plugin.cli import app\napp({list(arguments)!r})", folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images of one color with depth maps as deep as they are red, and their manifest; one map is damaged."""
    folder = tmp_path_factory.mktemp("depth")
    rng = np.random.default_rng(0)
    with (folder / "m.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "picture", "map"))
        for row in range(ROWS):
            color = rng.integers(0, 256, 3)
            Image.new("RGB", (16, 16), tuple(color.tolist())).save(folder / f"{row}.png")
            np.save(folder / f"{row}.npy", color[0] + rng.uniform(1, 20, (4, 4)))
            rows.writerow((row, f"{row}.png", f"{row}.npy"))
    (folder / "7.npy").write_bytes(b"torn")
    return folder


@pytest.fixture(scope="module")
def scored(folder: Path) -> Path:
    settings = ("--encoder", "offline+tiny:any", "--trials", "4", "--epochs", "2", "--views", "1", "--device", "cpu")
    command(folder, "score", "m.csv", "--image", "picture", "--depth", "map", *settings)
    return folder


def test_it_is_an_option_of_the_commands(folder: Path) -> None:
    code = """
from typer.testing import CliRunner
from audit_plugin.cli import app

for name in ("score", "removal-study", "cross-modal", "audit", "report"):
    print("--depth" in CliRunner().invoke(app, [name, "--help"]).output)
"""
    assert run(code, folder).split() == ["True"] * 5


def test_its_pairs_are_scored(scored: Path) -> None:
    columns = pyarrow.parquet.read_table(scored / "scores.parquet").to_pydict()
    assert columns["failure"][7] == "depth: depth map cannot be read"
    assert np.flatnonzero(~np.isfinite(columns["misalignment_image_depth"])).tolist() == [7]
    summary = json.loads((scored / "scores.json").read_text())
    assert summary["encoder"]["depth"] == "tiny:depth"
    assert summary["config"]["depth"] == "map"


def test_reports_show_it(scored: Path) -> None:
    command(scored, "report", "scores.parquet", "--manifest", "m.csv", "--out", "r.html")
    assert (scored / "r.html").read_text().count("data:image/jpeg") > 10
    code = "from audit_plugin.report.markup import painter\nprint(painter()('depth', '3.npy', 72))"
    assert run(code, scored).startswith('<img alt="" width="4" height="4" src="data:image/jpeg')


def test_shards_hold_it(folder: Path) -> None:
    with tarfile.open(folder / "s.tar", "w") as shard:
        for name in ("3.png", "3.npy"):
            data = (folder / name).read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    code = """
from audit_plugin.inputs.samples import read_samples
from audit_plugin.inputs.modalities import MODALITIES
samples = read_samples("s.tar", {"image": "image", "depth": "depth"})
print(samples.ids, MODALITIES["depth"].read(samples.media["depth"][0]).shape)
"""
    assert run(code, folder) == "('3',) (4, 4)\n"


@pytest.mark.fiftyone
def test_datasets_are_audited_by_it(folder: Path) -> None:
    code = """
import fiftyone as fo
from audit_plugin import AuditConfig
from audit_plugin.fiftyone_io import estimate_cost, read_samples
from operators.forms import audit_form

dataset = fo.Dataset("depth")
dataset.add_samples([fo.Sample(filepath=f"{row}.png", map=f"{row}.npy", caption=str(row)) for row in range(3)])
form = audit_form(dataset.view(), {"advanced": True})
print(form.properties["depth"].type.__class__.__name__, form.properties["depth"].view.label)
print(read_samples(dataset, AuditConfig(image="filepath", depth="map")).modalities)
"""
    printed = run(code, folder).splitlines()
    assert printed[-2:] == ["Enum Depth field", "('image', 'depth')"]
