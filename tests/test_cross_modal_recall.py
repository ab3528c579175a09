"""Recall across modalities on samples with media: persons who are drawn, and people's tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.crossmodal.cross_modal_recall import (
    STAGE,
    CrossModalResult,
    fold_identities,
    measure_cross_modal_recall,
    memorization_link,
)
from audit_plugin.inputs.samples import read_samples
from audit_plugin.synthetic.personas import PersonaSet, draw_personas

COLUMNS = {"image": "image", "text": "description"}
CONFIG = AuditConfig(encoder="offline", device="cpu")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("python_avatars")
    wanted = PersonaSet(identities=12, background=180, train=4, test=2, pairs=1, side=128)
    return draw_personas(tmp_path_factory.mktemp("transfer") / "personas", wanted)


@pytest.fixture(scope="module")
def samples(manifest: Path) -> Samples:
    return read_samples(manifest, COLUMNS, label="identity", split="split")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(cache))


def test_drawn_persons_are_recalled_from_both_and_across(samples: Samples) -> None:
    told: list[str] = []
    result = measure_cross_modal_recall(samples, CONFIG, lambda stage, *_: told.append(stage))
    summary = result.summary
    assert summary["identities"] == 12
    assert "refused" not in summary
    assert summary["recall"]["image"]["image"]["value"] > 0.7
    assert summary["recall"]["text"]["text"]["value"] > 0.7
    assert summary["recall"]["image"]["text"]["value"] > 2 * summary["chance"]
    assert {"read", "encode image", "encode text", STAGE} <= set(told)
    asked = np.isfinite(result.columns["recall_image_text"])
    assert [s == "test" for s in samples.splits] == asked.tolist()
    assert {record["identity"] for record in result.identities} == {
        name for name, split in zip(samples.labels, samples.splits, strict=True) if split == "test"
    }


def test_without_splits_halves_take_turns_and_every_row_is_asked(samples: Samples) -> None:
    rows = [row for row, split in enumerate(samples.splits) if split != "background"]
    bare = Samples(
        tuple(samples.ids[row] for row in rows),
        {m: tuple(values[row] for row in rows) for m, values in samples.media.items()},
        labels=tuple(samples.labels[row] for row in rows),
    )
    result = measure_cross_modal_recall(bare, CONFIG)
    assert all(np.isfinite(values).all() for values in result.columns.values())
    assert result.summary["questions"] == len(rows)


def test_the_control_without_alignment_is_refused(samples: Samples) -> None:
    assert "not aligned" in measure_cross_modal_recall(samples, CONFIG, align=False).summary["refused"]


def test_the_link_to_memorization_is_a_rank_correlation_over_identities() -> None:
    rng = np.random.default_rng(0)
    labels = [f"who {row // 5}" for row in range(100)]
    recall = rng.random(100).astype(np.float32)
    recall[::5] = np.nan
    result = CrossModalResult(tuple(map(str, range(100))), {"recall_image_text": recall}, [], {})
    memorized = {str(row): float(-recall[row]) for row in range(100) if row != 7}
    link = memorization_link(result, memorized, labels)["recall_image_text"]
    assert link["value"] == pytest.approx(-1)
    assert link["identities"] == 20


def test_folds_keep_identities_whole_and_leave_out_who_cannot_be_asked() -> None:
    number = np.r_[np.repeat(np.arange(10), 4), 10, -1]
    learn = np.arange(len(number)) % 2 == 0
    fold, notes = fold_identities(number, ((learn, ~learn), (~learn, learn)), np.zeros(len(number), bool), 0)
    assert fold[-2:].tolist() == [-1, -1]
    assert all(len(set(fold[number == who])) == 1 for who in range(10))
    assert np.bincount(fold[:40]).tolist() == [20, 20]
    assert notes == ["1 of 11 identities have too few rows and were not asked about"]
    with pytest.raises(AuditError, match="2 of 2 identities have rows .* at least 8 are needed"):
        fold_identities(np.repeat([0, 1], 4), ((learn[:8], ~learn[:8]),), np.zeros(8, bool), 0)


def test_what_cannot_be_measured_is_said_in_one_sentence(samples: Samples) -> None:
    from dataclasses import replace

    with pytest.raises(AuditError, match="no row names an identity; name the column or field that does: label"):
        measure_cross_modal_recall(replace(samples, labels=()), CONFIG)
    with pytest.raises(AuditError, match="cross-modal recall is measured between two modalities, not 1: text"):
        measure_cross_modal_recall(replace(samples, media={"text": samples.media["text"]}), CONFIG)
    few = replace(
        samples, splits=tuple("" if s == "background" and i % 20 else s for i, s in enumerate(samples.splits))
    )
    with pytest.raises(AuditError, match="pairs are left to align the modalities on"):
        measure_cross_modal_recall(few, CONFIG)


def scored(path: Path, ids: list[str]) -> Path:
    """A table as `audit-plugin score` writes it, of random scores."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = np.random.default_rng(0).random(len(ids))
    columns = {"id": ids, "misalignment": values, "multimem": values, "action": ["keep"] * len(ids)}
    pq.write_table(pa.table(columns), path)
    return path


def test_the_commands_draw_measure_and_write(manifest: Path, tmp_path: Path) -> None:
    from audit_plugin.cli import app

    out = tmp_path / "found" / "report.json"
    named = ["--image", "image", "--text", "description", "--label", "identity", "--split", "split"]
    done = CliRunner().invoke(app, ["cross-modal", str(manifest), *named, "--encoder", "offline", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "image to text" in done.output
    summary = json.loads(out.read_text())
    assert summary["modalities"] == ["image", "text"]
    assert (out.parent / "report.png").read_bytes().startswith(b"\x89PNG")
    with (out.parent / "report-identities.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
    with (out.parent / "report-rows.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12 * 6 + 180
    assert CliRunner().invoke(app, ["transfer", str(manifest), *named[:4]]).exit_code == 2
    scores = scored(tmp_path / "scores.parquet", [row["id"] for row in csv.DictReader(manifest.open(newline=""))])
    linked = [*named, "--encoder", "offline", "--out", str(out), "--scores", str(scores)]
    done = CliRunner().invoke(app, ["transfer", str(manifest), *linked])
    assert "rank correlation of MultiMem" in done.output
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", str(scores), "--transfer", str(out), "--out", str(page)])
    assert done.exit_code == 0, done.output
    assert ">Cross-modal recall</h2>" in page.read_text()
    made = CliRunner().invoke(
        app,
        [
            "personas",
            "--out",
            str(tmp_path / "p"),
            "--identities",
            "2",
            "--background",
            "0",
            "--train",
            "1",
            "--test",
            "1",
        ],
    )
    assert made.exit_code == 0, made.output
    assert "audit-plugin cross-modal" in made.output
