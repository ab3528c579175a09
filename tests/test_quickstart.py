"""`audit-plugin quickstart`: real digits with some captions exchanged, and what it says of the ten worst."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from audit_plugin.arrays import AuditError
from audit_plugin.report import read_scores
from audit_plugin.synthetic.quickstart import DIGITS, EXCHANGED, NAMES, SIDE, write_digits


def test_digits_are_real_and_ten_captions_are_exchanged(tmp_path: Path) -> None:
    from PIL import Image

    first, again = write_digits(tmp_path / "a"), write_digits(tmp_path / "b")
    assert first.originals == again.originals
    assert first.manifest.read_bytes() == again.manifest.read_bytes()
    rows = list(csv.DictReader(first.manifest.open()))
    assert len(rows) == len({row["id"] for row in rows}) == DIGITS
    assert len(first.originals) == EXCHANGED
    digits = load_digits()
    for row in rows:
        number = int(row["id"].removeprefix("digit-"))
        named = row["caption"].removeprefix("the digit ")
        shown = NAMES[digits.target[number]]
        assert first.originals.get(row["id"], named) == shown
        assert (named != shown) == (row["id"] in first.originals)
        image = np.asarray(Image.open(tmp_path / "a" / row["image"]))
        assert image.shape == (SIDE, SIDE)
        assert np.corrcoef(image[4::8, 4::8].ravel(), -digits.images[number].ravel())[0, 1] > 0.8
    # exchanged in pairs, so that each digit is named as often as it is shown
    count = [sum(row["caption"].endswith(name) for row in rows) for name in NAMES]
    shown_digits = digits.target[[int(row["id"].removeprefix("digit-")) for row in rows]]
    assert count == np.bincount(shown_digits, minlength=10).tolist()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(AuditError, match="is not empty and is not a set of audit-plugin quickstart"):
        write_digits(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_ten_worst_are_listed_and_most_were_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "audit_plugin", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("quickstart")
    listed = re.findall(r"(digit-\d{4}) +│ ([\d.]+) +│ the digit (\w+) +│ (?:exchanged: shows an? (\w+))?", said)
    originals = write_digits(tmp_path / "audit-quickstart").originals
    assert [originals.get(name, "") for name, *_ in listed] == [shown for *_, shown in listed]
    assert "shows a eight" not in said
    caught = sum(bool(shown) for *_, shown in listed)
    assert len(listed) == 10
    assert caught >= 7
    assert f"{caught} of these 10 were exchanged before the audit, of 10 in all" in said
    assert "audit-plugin score pairs.csv --image IMAGE_COLUMN --text CAPTION_COLUMN" in said
    scores = read_scores(tmp_path / "audit-quickstart" / "scores.parquet")
    worst = np.argsort(-scores["misalignment"], kind="stable")[:10]
    assert [name for name, *_ in listed] == scores["id"][worst].tolist()
    # the command that it names next
    said = run("report", "audit-quickstart/scores.parquet")
    assert "manifest, as recorded in scores.json" in said
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<img" in html
    assert "the digit " in html
