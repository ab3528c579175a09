"""`audit-plugin report scores.parquet` finds the manifest that was scored by itself, and no file of anybody else."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from audit_plugin import cli
from audit_plugin.report import recorded_manifest
from audit_plugin.store import RunFolder, digest_of


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: list[str]) -> Path:
    """A table of scores of three rows, the manifest beside it, and a cache."""
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "mine"
    place.mkdir()
    for row in range(3):
        (place / f"{row}.png").write_bytes(Path(pictures[row]).read_bytes())
    write_manifest(place / "pairs.csv")
    columns = {"id": ["0", "1", "2"], "misalignment": [0.5, 1.5, 2.5], "is_misaligned": [False, False, True]}
    pq.write_table(pa.table({**columns, "action": ["keep", "keep", "review"]}), place / "scores.parquet")
    return place / "scores.parquet"


def write_manifest(path: Path, rows: int = 3) -> Path:
    lines = ["image,caption", *(f"{row}.png,the text of row {row}" for row in range(rows))]
    path.write_text("\n".join(lines) + "\n")
    return path


def summarize(table: Path, manifest: object, **more: object) -> None:
    config = {"image": "image", "text": "caption"}
    table.with_suffix(".json").write_text(json.dumps({"config": config, "manifest": str(manifest), **more}))


def report(table: Path, *arguments: str) -> tuple[str, str]:
    """(what the command said, the page)."""
    out = table.parent / "report.html"
    done = CliRunner().invoke(cli.app, ["report", str(table), "--out", str(out), *arguments])
    assert done.exit_code == 0, done.output
    return done.output, out.read_text(encoding="utf-8")


def test_of_a_missing_table_only_that_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["report", str(tmp_path / "no.parquet"), "--out", str(tmp_path / "r.html")])
    assert done.exit_code == 2
    assert "does not exist" in done.output
    assert "without captions" not in done.output


def test_the_manifest_beside_the_table_is_found(table: Path) -> None:
    summarize(table, table.parent / "pairs.csv")
    said, page = report(table)
    assert f"manifest, as recorded in scores.json: {table.parent}/pairs.csv; media are read from {table.parent}" in said
    assert "the text of row 2" in page
    assert "<img" in page


def test_a_named_manifest_counts(table: Path) -> None:
    summarize(table, table.parent / "gone.csv")
    said, page = report(table, "--manifest", str(table.parent / "pairs.csv"))
    assert "recorded" not in said
    assert "the text of row 2" in page


@pytest.mark.parametrize(("rows", "reason"), [(0, "does not exist"), (2, "has 2 rows that are not the 3 of")])
def test_a_manifest_that_is_gone_or_changed_is_left_out(table: Path, rows: int, reason: str) -> None:
    manifest = table.parent / "other.csv"
    if rows:
        write_manifest(manifest, rows)
    summarize(table, manifest)
    said, page = report(table)
    assert "captions and images are left out" in said
    assert reason in said
    assert "name it: --manifest" in said
    assert "the text of row" not in page


def test_a_manifest_elsewhere_is_read_only_for_a_run_of_this_user(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    manifest = write_manifest(other / "pairs.csv")
    link = table.parent / "link.csv"
    link.symlink_to(manifest)
    identity = {"data": 1}
    run = RunFolder(tmp_path / "cache" / "runs" / digest_of(identity)[:16], identity)
    with run:
        run.describe(source=f"manifest {manifest}", rows=3)
    forged = RunFolder(table.parent / "runs" / "x", identity)
    with forged:
        forged.describe(source=f"manifest {manifest}", rows=3)
    for recorded, folder in ((manifest, ""), (link, ""), (manifest, forged.path), (other / "more.csv", run.path)):
        summarize(table, recorded, run_dir=str(folder))
        assert recorded_manifest(table) == "", recorded
        said, page = report(table)
        assert "without captions and images; to add them, name the manifest that was scored: --manifest" in said
        assert "the text of row" not in page
    summarize(table, manifest, run_dir=str(run.path))
    assert recorded_manifest(table) == str(manifest)


def test_a_table_without_a_summary_is_reported_without_captions(table: Path) -> None:
    assert recorded_manifest(table) == ""
    said, _ = report(table)
    assert "without captions and images" in said
