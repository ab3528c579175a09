"""`audit-plugin export` of a FiftyOne dataset: to files, and as a clean copy."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from audit_plugin import AuditConfig
from audit_plugin.arrays import AuditError
from audit_plugin.cli import app
from tests.review_fixtures import written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    made = make_dataset(6)
    written(made, (4, 1))
    return made


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def lines(path: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}


def test_a_dataset_is_exported_with_its_decisions(dataset: Any, tmp_path: Path) -> None:
    ids, captions = dataset.values("id"), dataset.values("caption")
    fio.decide(dataset, ids[0], "remove", reviewer="ann")
    fio.decide(dataset, ids[1], "relabel", text="new", reviewer="ann")
    before = dataset.values("caption"), dataset.values("tags")
    out = run("export", dataset.name, "--to", tmp_path / "o.jsonl")
    assert "5 of 6 rows exported" in out
    assert "1 row: decision remove (by ann)" in out
    rows = lines(tmp_path / "o.jsonl")
    assert list(rows) == ids[1:]
    assert rows[ids[1]]["text"] == "new"
    assert rows[ids[2]]["text"] == captions[2]
    assert rows[ids[2]]["image"] == dataset.values("filepath")[2]
    assert (dataset.values("caption"), dataset.values("tags")) == before  # nothing was applied


def test_decisions_on_an_imported_dataset_are_about_the_rows_of_the_scores(
    make_dataset: Callable[..., Any], tmp_path: Path
) -> None:
    from tests.export_fixtures import write_manifest, write_scores

    dataset = make_dataset(3, caption=lambda row: f"caption {row}", manifest_id=lambda row: f"m{row}")
    entries = [
        {"id": f"m{row}", "image": path, "caption": f"caption {row}"}
        for row, path in enumerate(dataset.values("filepath"))
    ]
    scores = write_scores(
        tmp_path / "s.parquet", write_manifest(tmp_path / "m.jsonl", entries), [row["id"] for row in entries]
    )
    written(dataset, (1,))
    ids = dataset.values("id")
    fio.decide(dataset, ids[1], "remove", reviewer="ann")
    fio.decide(dataset, ids[2], "relabel", text="new", reviewer="ann")
    options = ("--manifest", tmp_path / "m.jsonl", "--decisions", dataset.name)
    run("export", scores, "--to", tmp_path / "o.jsonl", *options)
    assert {name: row["caption"] for name, row in lines(tmp_path / "o.jsonl").items()} == {
        "m0": "caption 0",
        "m2": "new",
    }
    dataset.delete_sample_field("manifest_id")
    out = run("export", scores, "--to", tmp_path / "p.jsonl", *options, code=2)
    assert "was not made by audit-plugin import" in out.replace("\n", " ")


def test_flags_of_a_dataset_are_dropped(dataset: Any, tmp_path: Path) -> None:
    ids = dataset.values("id")
    run("export", dataset.name, "--to", tmp_path / "out", "--format", "hf-folder", "--drop", "misaligned")
    assert set(lines(tmp_path / "out" / "metadata.jsonl")) == {
        name for row, name in enumerate(ids) if row not in (1, 4)
    }
    assert "no audit" in run("export", dataset.name, "--to", tmp_path / "x.csv", "--run", "none", code=2).replace(
        "\n", " "
    )


def test_a_clean_copy_of_a_dataset(dataset: Any) -> None:
    fio.decide(dataset, dataset.values("id")[0], "remove")
    fio.apply(dataset)
    name = f"{dataset.name}-clean"
    assert "5 of 6 samples would be exported" in run("export", dataset.name, "--to", name, "--dry-run")
    try:
        assert "5 of 6 samples" in run("export", dataset.name, "--to", name)
        assert len(fo.load_dataset(name)) == 5
        assert "exists already" in run("export", dataset.name, "--to", name, "--format", "fiftyone", code=2)
        assert "leave them out" in run("export", dataset.name, "--to", "x", "--drop", "outlier", code=2).replace(
            "\n", " "
        )
        assert "leave them out" in run("export", dataset.name, "--to", "x", "--relabel", code=2).replace("\n", " ")
    finally:
        fo.delete_dataset(name)


def test_objects_of_a_dataset_become_boxes(make_dataset: Callable[..., Any], tmp_path: Path) -> None:
    dataset = make_dataset(3)
    for number, sample in enumerate(dataset):
        boxes = [[0.25, 0.25, 0.5, 0.5], [0.0, 0.0, 0.5, 1.0]]
        sample["things"] = fo.Detections(
            detections=[fo.Detection(label=f"kind {at}", bounding_box=box) for at, box in enumerate(boxes)]
        )
        sample.save()
        assert number < 3
    view = dataset.to_patches("things")
    written(view, (3,), config=AuditConfig(text="things"))
    run("export", dataset.name, "--to", tmp_path / "yolo", "--format", "yolo", "--drop", "misaligned")
    labels = [path.read_text().splitlines() for path in sorted((tmp_path / "yolo" / "labels").rglob("*.txt"))]
    assert sorted(map(len, labels)) == [1, 2, 2]
    assert len(list((tmp_path / "yolo" / "images").rglob("*.*"))) == 3


def test_samples_are_read_in_parts_in_their_order(
    make_dataset: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = importlib.import_module("audit_plugin.fiftyone_io.results.audited_rows")
    parts = ("even", "odd")
    dataset = make_dataset(
        9, caption=lambda row: f"number {row}", uid=lambda row: f"{row:032x}", part=lambda row: parts[row % 2]
    )
    written(dataset, (4, 1), config=AuditConfig(text="caption", split="part"))
    dataset.delete_samples(dataset.values("id")[3:4])
    ids = dataset.values("id")
    whole = rows.export_audited(dataset, "audit", tmp_path / "whole.jsonl")
    sizes = []
    real = rows.read_samples
    monkeypatch.setattr(rows, "AT_ONCE", 3)
    monkeypatch.setattr(rows, "read_samples", lambda view, *a, **b: (sizes.append(len(view)), real(view, *a, **b))[1])
    report = rows.export_audited(dataset, "audit", tmp_path / "parts.jsonl")
    assert sizes == [1, 3, 3, 2]  # the first one says which columns there are
    assert report.exported == whole.exported == 8
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert [row["split"] for row in lines(tmp_path / "parts.jsonl").values()] == dataset.values("part")
    assert list(lines(tmp_path / "parts.jsonl")) == ids
    rows.export_audited(dataset, "audit", tmp_path / "uids.npy")
    assert np.load(tmp_path / "uids.npy")["f1"].tolist() == [0, 1, 2, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("form", ["webdataset", "jsonl"])
def test_what_stops_an_export_in_between_leaves_nothing(
    make_dataset: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    rows = importlib.import_module("audit_plugin.fiftyone_io.results.audited_rows")
    dataset = make_dataset(9)
    written(dataset, (4,))
    last = dataset.values("id")[-1]
    to = tmp_path / ("out" if form == "webdataset" else "out.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(rows, "AT_ONCE", 3)
        real = rows.StreamedSamples.rows

        def deleted_meanwhile(self: Any) -> Any:
            for number, row in enumerate(real(self)):
                if number == 4:
                    dataset.delete_samples([last])
                yield row

        patch.setattr(rows.StreamedSamples, "rows", deleted_meanwhile)
        with pytest.raises(AuditError, match=f"sample {last} of dataset .* was deleted while it was exported"):
            rows.export_audited(dataset, "audit", to, form)
    assert not list(tmp_path.iterdir())
    assert rows.export_audited(dataset, "audit", to, form).exported == 8
