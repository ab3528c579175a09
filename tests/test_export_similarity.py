"""`audit-plugin select --like`: rows near to a reference set, by the features that two audits have stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from audit_plugin.arrays import AuditError
from audit_plugin.audit.export.selection import select_rows
from audit_plugin.audit.export.similarity import NEAREST, reference_similarity
from audit_plugin.cli import app
from audit_plugin.report import read_score_table
from tests.export_fixtures import write_scores

COLORS = {"red": (210, 30, 30), "blue": (30, 40, 210)}
QUICK = ("--encoder", "offline", "--trials", "8", "--epochs", "5", "--device", "cpu")


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output.replace("\n", " ")


def audited(folder: Path, names: list[str], seed: int, *options: str) -> Path:
    """The scores of patterns in these colors."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    lines = ["image,caption"]
    for row, name in enumerate(names):
        coarse = rng.integers(0, 256, (6, 6, 1)) / 255 * np.array(COLORS[name])  # so different that none are copies
        Image.fromarray(coarse.astype(np.uint8)).resize((96, 96), Image.Resampling.NEAREST).save(folder / f"{row}.png")
        lines.append(f"{row}.png,a {name} pattern that was drawn with the number {rng.integers(10_000)}")
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    run("score", folder / "m.csv", *QUICK, "--out", folder / "s.parquet", *options)
    return folder / "s.parquet"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The scores of a set with red and blue patterns, and those of a reference set with red ones."""
    folder = tmp_path_factory.mktemp("like")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_PLUGIN_CACHE", str(folder / "cache"))
        yield audited(folder / "set", ["red", "blue"] * 20, 0), audited(folder / "reference", ["red"] * 40, 1)


def test_rows_near_to_the_reference_set_are_selected(tables: tuple[Path, Path], tmp_path: Path) -> None:
    scores, reference = tables
    out = run("select", scores, "--budget", "25%", "--like", reference, "--copies", 40, "--out", tmp_path / "k.parquet")
    assert f"mean cosine to the {NEAREST} nearest rows of s.parquet" in out
    chosen = [int(name) for name in pq.read_table(tmp_path / "k.parquet")["id"].to_pylist()]
    assert len(chosen) == 10
    assert sum(row % 2 == 0 for row in chosen) >= 8  # of the red ones; without --like it would be about half


def test_similarities_are_mean_cosines_to_the_nearest_rows(tables: tuple[Path, Path]) -> None:
    from audit_plugin.audit.extend import load_rows
    from audit_plugin.audit.prepare import encoders_of
    from audit_plugin.encoders.cached_features import stored_features
    from audit_plugin.store import RunFolder

    near = reference_similarity(*map(read_score_table, tables))
    vectors = []
    for table in tables:
        folder = json.loads(table.with_suffix(".json").read_text())["run_dir"]
        with RunFolder(Path(folder), None) as stored:
            rows = load_rows(stored)
            features = stored_features(encoders_of(folder), rows.digests).rows(np.arange(len(rows.samples)))
        vectors.append((rows.samples.ids, features.vectors))
    (ids, own), (_, others) = vectors
    for modality, values in near.items():
        cosines = np.sort(own[modality] @ others[modality].T, axis=1)[:, -NEAREST:].mean(axis=1)
        by_id = dict(zip(ids, cosines, strict=True))
        assert values == pytest.approx([by_id[str(row)] for row in range(40)], abs=1e-5)


def test_ranks_of_fit_and_similarity_are_averaged(tmp_path: Path) -> None:
    (tmp_path / "m.csv").touch()
    table = read_score_table(write_scores(tmp_path / "s.parquet", tmp_path / "m.csv", list("abcd")))  # a fits best
    near = {"image": np.array([0.1, 0.9, 0.5, np.nan], np.float32), "text": np.array([0, 1, 0, 1], np.float32)}
    # r(fit) is 1, 0.5, 0; r(image) 0, 1, 0.5; r(text) 0.25, 1, 0.25: in all 0.5625, 0.75, 0.1875
    assert select_rows(table, "1", similarity=near).rows.tolist() == [1]
    assert select_rows(table, "2", similarity=near).rows.tolist() == [0, 1]
    assert select_rows(table, "4", similarity=near).left_out["without features in the run"] == 1


def test_sets_that_cannot_be_compared_are_refused(tables: tuple[Path, Path], tmp_path: Path) -> None:
    scores, reference = tables
    other = tmp_path / "other.parquet"
    other.write_bytes(reference.read_bytes())
    with pytest.raises(AuditError, match="names no run folder"):
        reference_similarity(read_score_table(scores), read_score_table(other))
    summary = json.loads(reference.with_suffix(".json").read_text())
    other.with_suffix(".json").write_text(json.dumps({**summary, "run_dir": str(tmp_path)}))
    assert "is not the folder of a run" in run("select", scores, "--budget", "3", "--like", other, code=2)
    assert "does not exist" in run("select", scores, "--budget", "3", "--like", tmp_path / "no.parquet", code=2)


def test_another_encoder_is_no_common_space(tables: tuple[Path, Path], tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", vectors)
    options = ("--image", "image", "--text", "caption", "--embeddings", f"image={tmp_path / 'x.npy'}")
    other = audited(tmp_path / "own", ["red"] * 40, 1, *options)
    with pytest.raises(AuditError, match="was encoded by image .*: their features cannot be compared"):
        reference_similarity(read_score_table(tables[0]), read_score_table(other))
