"""The summaries of real audits are as `docs/result.schema.json` documents them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from audit_plugin.arrays import Samples
from audit_plugin.audit.extend import extend_run
from audit_plugin.audit.result import AuditResult, write_scores
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from tests.pipeline_fixtures import QUICK, encoded_rows, rows_of
from tests.test_cli import NAMED, make_manifest, private_cache, run

__all__ = ["private_cache"]

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "result.schema.json").read_text(encoding="utf-8"))
ROWS, NEW = 120, 20
KINDS: dict[str, AuditConfig] = {
    "pairs": QUICK,
    "split": replace(QUICK, protocol="split", trials=8),
    "folds": replace(QUICK, folds=4, views=0),
}


def check(summary: Any) -> None:
    """Valid, and without a key that the schema lacks."""
    jsonschema.validate(summary, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert {*summary} <= {*SCHEMA["properties"]}


def written(result: AuditResult, folder: Path) -> Any:
    write_scores(folder / "s.parquet", result)
    return json.loads((folder / "s.json").read_text(encoding="utf-8"))


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Samples:
    cache, rows = encoded_rows(tmp_path, ROWS)
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(cache))
    return rows


def test_the_schema_is_one_and_describes_every_key() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert all(entry["description"] for entry in SCHEMA["properties"].values())
    assert {*SCHEMA["required"]} <= {*SCHEMA["properties"]}


@pytest.mark.parametrize("kind", KINDS)
def test_audits_of_each_kind(kind: str, samples: Samples, tmp_path: Path) -> None:
    check(written(run_audit(samples, KINDS[kind]), tmp_path))


def test_splits_that_share_an_image(samples: Samples, tmp_path: Path) -> None:
    images = (samples.media["image"][1], *samples.media["image"][1:])
    media = {"image": images, "text": samples.media["text"]}
    summary = written(run_audit(Samples(samples.ids, media, splits=("train", "test") * (ROWS // 2)), QUICK), tmp_path)
    assert any("copy in another split" in note for note in summary["notes"])
    check(summary)


def test_an_extension(samples: Samples, tmp_path: Path) -> None:
    run_audit(rows_of(samples, range(NEW, ROWS)), QUICK, run_dir=tmp_path / "run")
    check(written(extend_run(rows_of(samples, range(NEW)), tmp_path / "run"), tmp_path))


def test_few_rows_without_an_estimate(samples: Samples, tmp_path: Path) -> None:
    summary = written(run_audit(rows_of(samples, range(16)), QUICK), tmp_path)
    assert summary["estimated"] == {}
    check(summary)


@pytest.mark.usefixtures("private_cache")
def test_the_command_line_and_a_manifest_of_which_nothing_is_scored(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, 4)
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"")
    assert run("score", manifest, *NAMED, "--encoder", "offline", "--out", tmp_path / "s.parquet")[0] == 1
    summary = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert summary["failures"] == 4
    check(summary)


def test_a_summary_of_another_form_is_not_valid() -> None:
    with pytest.raises(jsonschema.ValidationError, match="required"):
        check({})
