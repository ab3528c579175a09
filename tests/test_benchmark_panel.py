"""The benchmark of the panel sends events that the panel knows: on a small dataset, however long they take."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

pytestmark = pytest.mark.fiftyone
pytest.importorskip("fiftyone")
panel_open = importlib.import_module("benchmarks.panel_open")
decisions = importlib.import_module("audit_plugin.fiftyone_io.ledger.decisions")


def test_every_tab_opens_and_decisions_are_taken(tmp_path: Path) -> None:
    dataset, _ = panel_open.audited(100, tmp_path)
    try:
        seconds = panel_open.opened(dataset.name)
        assert set(panel_open.TABS) < set(seconds)
        assert len(decisions.decisions(dataset)) == 2
    finally:
        decisions.ledger().delete_many({"dataset": dataset._doc.id})
        dataset.delete()
