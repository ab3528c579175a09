"""Samples that came after an audit: scanned by what it trained, written into it, taken away with it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from tests.conftest import caption

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
findings = importlib.import_module("audit_plugin.fiftyone_io.results.findings")
QUICK = AuditConfig(encoder="offline", trials=4, epochs=2, device="cpu", false_positive_rate=0.2)


def test_new_samples_join_the_audit_and_go_with_it(make_dataset: Callable[..., Any], tmp_path: Path) -> None:
    dataset = make_dataset(70, caption=lambda row: "asdf qwer zxcv" if row == 69 else caption(row))
    theirs = dataset.skip(69).first()
    theirs.tags.append("audit:outlier")  # the user's own tag stays the user's
    theirs.save()
    schema, captions = dataset.get_field_schema(flat=True).keys(), dataset.values("caption")
    first = fio.audit_view(dataset[:64], QUICK, None, tmp_path / "run")
    before = dataset[:64].values("audit_misalignment")
    assert findings.count_new(dataset, "audit") == 6
    assert fio.audit_summary(dataset, "audit")["samples"] == 64
    stages: list[str] = []
    found = fio.scan_new(dataset, "audit", lambda stage, *_: stages.append(stage))
    assert found.ids == tuple(dataset.values("id")[64:])
    assert findings.count_new(dataset, "audit") == 0
    assert dataset[:64].values("audit_misalignment") == before
    scores = np.array(dataset[64:].values("audit_misalignment"), float)
    assert np.allclose(scores, found.columns["misalignment"], equal_nan=True)
    assert dataset[64:].values("audit_multimem") == [None] * 6
    assert list(dict.fromkeys(stages))[-1] == "write"
    summary = fio.audit_summary(dataset, "audit")
    assert (summary["samples"], summary["scanned_later"]) == (70, 6)
    for kind, count in summary["flags"].items():
        assert count == first.summary["flags"][kind] + found.summary["flags"][kind]
        flagged = dataset.match(fo.ViewField(f"audit_is_{kind}") == True) if count else dataset[:0]  # noqa: E712
        assert set(flagged.values("id")) <= set(dataset.match_tags(f"audit:{kind}").values("id"))
    new = set(found.ids)
    assert {row for row, _ in fio.queue_of(dataset, "audit").rows} & new == {
        name for name, action in zip(found.ids, found.columns["action"], strict=True) if action != "keep"
    } | {name for at, name in enumerate(found.ids) if any(found.columns[f"is_{k}"][at] for k in summary["flags"])}
    with pytest.raises(AuditError, match="nothing to scan"):
        fio.scan_new(dataset, "audit")
    fio.delete_audit(dataset, "audit")
    assert dataset.get_field_schema(flat=True).keys() == schema
    assert dataset.values("caption") == captions
    assert dataset.match_tags("audit:outlier").values("id") == [theirs.id]
    assert not dataset.match_tags("audit:misaligned")


def test_new_objects_join_the_audit_of_objects(make_dataset: Callable[..., Any], tmp_path: Path) -> None:
    def boxes(row: int) -> Any:
        both = [[0.05, 0.05, 0.9, 0.4], [0.05, 0.5, 0.9, 0.45]]
        return fo.Detections(
            detections=[fo.Detection(label=f"kind {(row + at) % 3}", bounding_box=box) for at, box in enumerate(both)]
        )

    dataset = make_dataset(44, boxes=boxes)
    config = AuditConfig(text="boxes", encoder="offline", trials=4, epochs=2, device="cpu")
    fio.audit_view(dataset[:40].to_patches("boxes"), config, None, tmp_path / "run")
    assert findings.count_new(dataset, "audit") == 8
    found = fio.scan_new(dataset, "audit")
    assert len(found) == 8
    assert findings.count_new(dataset, "audit") == 0
    values = dataset.values("boxes.detections.audit_action", unwind=True)
    assert None not in values
    fio.delete_audit(dataset, "audit")
    assert "audit_action" not in (dataset.first().boxes.detections[0].to_dict())
