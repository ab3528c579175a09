"""Memorized rows in a real database: queue, views and the command list those first that no other flag explains."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from audit_plugin.config import AuditConfig
from audit_plugin.scoring.flags import FLAGS
from tests.findings_fixtures import made_up

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")
findings = importlib.import_module("audit_plugin.fiftyone_io.results.findings")
thresholds = importlib.import_module("audit_plugin.fiftyone_io.results.thresholds")

MULTIMEM = [9, 8, 7, 6, 1, 2, np.nan, 3]
FLAGGED = {"memorized": [0, 1, 2, 3], "outlier": [0, 7], "misaligned": [2]}
ORDER = [1, 2, 3, 0]  # row 0 is an outlier


def written(dataset: Any, flagged: dict[str, list[int]], **more: Any) -> list[str]:
    """Writes an audit with these flags; the ids."""
    ids = dataset.values("id")
    result = made_up(ids)
    flags = {f"is_{kind}": np.isin(np.arange(len(ids)), flagged.get(kind, [])) for kind in FLAGS}
    columns = {**result.columns, **flags, "multimem": np.array(MULTIMEM), **more}
    columns["action"] = np.full(len(ids), "keep", dtype=object)
    fio.write_result(dataset, replace(result, columns=columns), AuditConfig())
    return ids


def listed(dataset: Any, *options: str) -> tuple[list[str], str]:
    """(ids that `review list` prints in a pipe, what it says beside)."""
    from audit_plugin.cli import app

    done = CliRunner().invoke(app, ["review", "list", dataset.name, *options])
    assert done.exit_code == 0, done.output
    return [line.split("\t")[0] for line in done.stdout.splitlines()[1:]], done.stderr


def test_what_another_flag_explains_comes_last_in_queue_view_and_list(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    ids = written(dataset, FLAGGED)
    expected = [ids[row] for row in ORDER]
    assert [name for name, _ in fio.queue_of(dataset, "audit", ["memorized"]).rows] == expected
    assert findings.flagged_as(dataset, "audit", "memorized").values("id") == expected
    names, beside = listed(dataset, "--kind", "memorized", "--limit", "3")
    assert names == expected[:3]
    for line in (
        "1 row memorized and misaligned: correct the caption",
        "2 rows memorized but fitting: rare, so keep",
        "1 row memorized, and explained by another flag",
        "0 of 4 decided",
    ):
        assert line in beside
    rows = fio.memorized_rows(dataset, "audit", 5)
    assert {name: [ids.index(sample) for sample, _ in of] for name, of in rows.items()} == {
        "misaligned": [2],
        "fitting": [1, 3],
        "explained": [0],
        "highest": [1, 2, 3, 5, 4],
    }
    assert findings.memorized_counts(dataset, "audit") == {"misaligned": 1, "fitting": 2, "explained": 1}


def test_where_none_is_flagged_the_highest_are_shown_and_it_is_said(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    ids = written(dataset, {"outlier": [0, 7]})
    order = [1, 2, 3, 5, 4, 0, 7]  # row 6 has no MultiMem
    assert findings.most_memorized(dataset, "audit").values("id") == [ids[row] for row in order]
    names, beside = listed(dataset, "--kind", "memorized", "--limit", "4")
    assert names == [ids[row] for row in order[:4]]
    assert "No row is memorized more than nearly all good pairs" in beside
    assert "the highest are listed" in beside
    assert listed(dataset, "--kind", "misaligned") == ([], "0 of 0 decided\n")


def test_a_view_of_memorized_objects_and_groups_has_this_order(
    make_dataset: Callable[..., Any], make_groups: Callable[..., Any]
) -> None:
    def boxes(_row: int) -> Any:
        both = [fo.Detection(label=name, bounding_box=[0.1, 0.1, 0.5, 0.5]) for name in "ab"]
        return fo.Detections(detections=both)

    dataset = make_dataset(4, boxes=boxes)
    patches = dataset.to_patches("boxes")
    config = AuditConfig(text="boxes")
    labels = [name for (name,) in zip(patches.values("id"), strict=True)]
    result = made_up(labels)
    flags = {f"is_{kind}": np.isin(np.arange(8), FLAGGED.get(kind, [])) for kind in FLAGS}
    result = replace(result, columns={**result.columns, **flags, "multimem": np.array(MULTIMEM)})
    fio.write_result(patches, result, config)
    assert findings.flagged_as(dataset, "audit", "memorized").values("id") == [labels[row] for row in ORDER]

    groups = make_groups(8)
    config = AuditConfig(image="slice:picture", audio="slice:sound.filepath", text="slice:picture.caption")
    samples = fio.read_samples(groups, config)
    fio.write_result(groups, replace(result, ids=samples.ids), config)
    pictures = groups.select_group_slices("picture").values("id")
    shown = findings.flagged_as(groups, "audit", "memorized").select_group_slices("picture").values("id")
    assert shown == [pictures[row] for row in ORDER]


def test_another_threshold_names_the_culprit_of_what_it_flags(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    rows = np.arange(8)
    parts = {
        "misalignment_image_text": np.where(rows % 2, 4.0, 0.0),  # of odd rows the text is wrong, of even ones audio
        "misalignment_image_audio": np.where(rows % 2, 0.0, 4.0),
        "misalignment_text_audio": np.full(8, 4.0),
        **{f"multimem_due_{name}": np.ones(8) for name in ("image", "text", "audio")},
        "culprit": np.array(["", "text", "", "audio", "", "", "", "text"], dtype=object),
        "misalignment": np.array([0.0, 3, 0, 4, 1, 2, 0, 5]),
        "failure": np.full(8, "", dtype=object),
    }
    written(dataset, {"misaligned": [1, 3, 7]}, **parts)
    before = dataset.values("audit_culprit")
    thresholds.set_threshold(dataset, "audit", "misaligned", 1.5)
    assert [name or "" for name in dataset.values("audit_culprit")] == ["", "text", "", "audio", "", "text", "", "text"]
    thresholds.set_threshold(dataset, "audit", "misaligned", 4.5)
    assert [name or "" for name in dataset.values("audit_culprit")] == [""] * 7 + ["text"]
    thresholds.set_threshold(dataset, "audit", "misaligned", None)
    assert dataset.values("audit_culprit") == before
