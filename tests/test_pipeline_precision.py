"""What a run says of its precision, and how others that go on from it take the same one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.cost import plan_audit
from audit_plugin.audit.extend import extend_run
from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.encoders import precision
from audit_plugin.encoders.precision import BF16_SUFFIX, PrecisionChoice
from tests.clip_fixtures import MODEL, tiny_weights
from tests.pipeline_fixtures import cells, rows_of

pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> AuditConfig:
    """Quick settings with a model too small to know anything."""
    folder = tmp_path_factory.mktemp("clip")
    [weights] = tiny_weights(folder)
    for name, values in weights.items():  # as they are drawn, all pictures look nearly alike to it
        weights[name] = values * 4 if values.ndim > 1 else values
    torch.save(weights, folder / "a.pt")
    return AuditConfig(encoder=f"open_clip:{MODEL}:{folder / 'a.pt'}", trials=4, epochs=2, device="cpu")


@pytest.fixture(scope="module")
def samples(pictures: list[str], captions: list[str]) -> Samples:
    return Samples(tuple(map(str, range(60))), {"image": tuple(pictures), "text": tuple(captions)})


@pytest.fixture(scope="module")
def home(config: AuditConfig, samples: Samples, tmp_path_factory: pytest.TempPathFactory):
    """(cache and run folder, an audit of the first 50 rows after a trial that bf16 has won)."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_PLUGIN_CACHE", str(folder / "cache"))
        patch.setattr(precision, "try_bf16", lambda *_: PrecisionChoice("bf16", "computes in bf16, as claimed"))
        yield folder, run_audit(rows_of(samples, range(50)), config, run_dir=folder / "run")


@pytest.fixture
def elsewhere(home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine, on which a trial would end otherwise; the cache came along, what is decided did not."""
    monkeypatch.setattr(precision, "chip_name", lambda _device: "another chip")
    monkeypatch.setattr(precision, "try_bf16", lambda *_: PrecisionChoice("fp32", "stays fp32, as claimed"))


def keys_of(result: AuditResult) -> set[bool]:
    return {key.endswith(BF16_SUFFIX) for key in result.summary["encoder"].values()}


def test_a_run_names_its_precision_in_keys_and_notes(home) -> None:
    _, result = home
    assert keys_of(result) == {True}
    said = [note for note in result.summary["notes"] if "bf16" in note]
    assert said == [f"encoder {m} computes in bf16, as claimed" for m in ("image", "text")]


def test_a_dry_run_and_a_second_run_take_what_was_decided(home, config, samples, tmp_path: Path) -> None:
    _, before = home
    first = rows_of(samples, range(50))
    assert plan_audit(first, config)["encodes"] == {"image": 0, "text": 0}
    assert plan_audit(first, replace(config, precision="fp32"))["encodes"] == {"image": 50, "text": 50}
    again = run_audit(first, config, run_dir=tmp_path / "again")
    assert again.summary["encoded_now"] == {"image": 0, "text": 0}
    assert cells(again) == cells(before)
    assert set(again.summary["notes"]) == set(before.summary["notes"])


@pytest.mark.usefixtures("elsewhere")
def test_a_run_that_is_continued_on_another_machine_keeps_its_precision(home, config, samples) -> None:
    folder, before = home
    first = rows_of(samples, range(50))
    assert cells(run_audit(first, config, run_dir=folder / "run")) == cells(before)
    with pytest.raises(AuditError, match=r"belongs to another run \(image was '.*:bf16', now"):
        run_audit(first, replace(config, precision="fp32"), run_dir=folder / "run")


@pytest.mark.usefixtures("elsewhere")
def test_a_run_that_is_extended_on_another_machine_keeps_its_precision(home, samples) -> None:
    folder, _ = home
    result = extend_run(rows_of(samples, range(50, 60)), folder / "run")
    assert keys_of(result) == {True}
    assert np.isfinite(result.columns["misalignment"]).all()


@pytest.mark.usefixtures("elsewhere")
def test_full_precision_is_another_run(home, config, samples, tmp_path: Path) -> None:
    full = run_audit(rows_of(samples, range(50)), replace(config, precision="fp32"), run_dir=tmp_path / "full")
    assert keys_of(full) == {False}
    assert not [note for note in full.summary["notes"] if "bf16" in note]
