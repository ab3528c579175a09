"""As many trials as a reliable MultiMem takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.cost import plan_audit
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.trials import run as trials
from tests.pipeline_fixtures import QUICK, cells, encoded_rows

AUTO = replace(QUICK, trials=0)


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Samples:
    cache, found = encoded_rows(tmp_path, 120)
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(cache))
    return found


@pytest.mark.parametrize(("reliable", "count"), [(-1.0, 16), (2.0, 32)])
def test_trials_are_added_until_they_suffice(
    reliable: float, count: int, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "AUTO_TRIALS", (16, 32))
    monkeypatch.setattr(trials, "RELIABLE", reliable)
    found = run_audit(samples, AUTO, run_dir=tmp_path / "auto")
    assert found.summary["trials"] == count
    plain = run_audit(samples, replace(QUICK, trials=count), run_dir=tmp_path / "plain")
    assert cells(found) == cells(plain)
    again = run_audit(samples, AUTO, run_dir=tmp_path / "auto")
    assert cells(again) == cells(found)


def test_auto_is_for_halves_of_an_ensemble_and_has_an_estimate(samples: Samples) -> None:
    with pytest.raises(AuditError, match="trials is 0 .automatic., which needs"):
        AuditConfig(trials=0, protocol="split")
    with pytest.raises(AuditError, match="trials is 0"):
        AuditConfig(trials=0, folds=4)
    assert plan_audit(samples, AUTO)["minutes"] > 0
