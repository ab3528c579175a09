from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.core_fixtures import unit

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(name: str, *arguments: str | Path, fails: bool = False) -> str:
    """What an example prints, run as a person would from the project's root."""
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env=env)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


def write_scores(path: Path, ids: list[str], scores: np.ndarray) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ids, "multimem": scores.astype(np.float32)}), path)
    return path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_every_example_explains_itself(path: Path) -> None:
    text = run(path.name, "--help")
    assert "--scores" in text
    assert "--sigma" in text


def test_open_clip_trains_with_both_mitigations(tmp_path: Path, pictures: list[str], captions: list[str]) -> None:
    ids = [f"p{row}" for row in range(60)]
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        rows = zip(ids, (os.path.relpath(p, tmp_path) for p in pictures), captions, strict=True)
        csv.writer(file).writerows([("id", "image", "caption"), *rows])
    values = np.linspace(1, 0, 60)
    values[::7] = np.nan
    scores = write_scores(tmp_path / "scores.parquet", ids, values)
    out = tmp_path / "model.pt"
    options = ("--epochs", 4, "--regroup-epoch", 2, "--batch-size", 20, "--share", 0.1, "--lr", 2e-3, "--out", out)
    text = run("train_open_clip.py", tmp_path / "pairs.csv", "--scores", scores, *options)
    found = re.findall(r"epoch \d/4: loss ([\d.]+), (\d+) samples regrouped", text)
    assert [int(hot) for _, hot in found] == [0, 0, 5, 5]
    losses = [float(loss) for loss, _ in found]
    assert losses[1] < losses[0]
    weights = torch.load(out, weights_only=True)
    assert all(torch.isfinite(w).all() for w in weights.values())
    strange = write_scores(tmp_path / "other.parquet", ["q1"], np.ones(1))
    assert "none of the 60 ids" in run("train_open_clip.py", tmp_path / "pairs.csv", "--scores", strange, fails=True)


def test_heads_train_with_and_without_mitigation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hidden, mix = rng.standard_normal((400, 8)), rng.standard_normal((8, 24))
    image, text = (unit(hidden @ mix + rng.standard_normal((400, 24))) for _ in range(2))
    ids = [f"p{row}" for row in range(400)]
    np.savez(tmp_path / "features.npz", ids=np.array(ids), image=image, text=text)
    scores = write_scores(tmp_path / "scores.parquet", ids, rng.random(400))
    printed = run("train_heads.py", tmp_path / "features.npz", "--scores", scores, "--epochs", 8)
    found = re.findall(r"(\w+): T@5 ([\d.]+) on 40 held-out rows, (\d+) hot rows", printed)
    assert [(name, int(hot)) for name, _, hot in found] == [("plain", 0), ("mitigated", 18)]
    assert all(float(value) > 0.5 for _, value, _ in found)
    off = run("train_heads.py", tmp_path / "features.npz", "--scores", scores, "--epochs", 8, "--share", 0)
    values = re.findall(r"T@5 ([\d.]+)", off)
    assert values[0] == values[1]
