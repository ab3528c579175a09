"""The FiftyOne edge against a real database: what is written, what is left alone, what can be taken back."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.config import AuditConfig
from tests.fiftyone_fixtures import result_for, state

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")


# reading


def test_read_samples_takes_ids_files_and_the_field_called_caption(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(5, note=lambda row: f"n{row}", image_caption=lambda row: f"c{row}", shop=lambda row: row % 2)
    samples = fio.read_samples(dataset[1:4], AuditConfig(group="shop"))
    assert samples.ids == tuple(dataset.values("id")[1:4])
    assert samples.media["image"] == tuple(dataset.values("filepath")[1:4])
    assert samples.media["text"] == ("c1", "c2", "c3")
    assert samples.groups == ("1", "0", "1")


def test_caption_field_falls_back_to_labels_and_to_the_only_string(make_dataset: Callable[..., Any]) -> None:
    labeled = make_dataset(3, ground_truth=lambda row: fo.Classification(label=f"l{row}"))
    assert fio.caption_field(labeled) == "ground_truth"
    assert fio.read_samples(labeled, AuditConfig()).media["text"] == ("l0", "l1", "l2")
    assert fio.read_samples(labeled, AuditConfig(text="ground_truth.label")).media["text"] == ("l0", "l1", "l2")
    odd = make_dataset(3, words=lambda row: f"w {row}", mask=lambda row: f"/masks/{row}.png")
    assert fio.caption_field(odd) == "words"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"text": "captoin"}, ["'captoin'", "does not exist", "caption"]),
        ({"text": "size"}, ["'size'", "IntField", "not a string"]),
        ({"text": "truh"}, ["'truh'", "does not exist", "truth"]),
        ({"text": "boxes"}, ["'boxes'", "holds objects", "--patches", "to_patches"]),
        ({"text": "boxes.detections.label"}, ["'boxes.detections.label'", "holds objects"]),
        ({"image": "size"}, ["image field 'size'", "not a string"]),
        ({"group": "shp"}, ["group field 'shp'", "shop"]),
    ],
)
def test_wrong_fields_are_named_with_a_remedy(
    make_dataset: Callable[..., Any], settings: dict[str, str], words: list[str]
) -> None:
    dataset = make_dataset(
        2,
        caption=str,
        size=int,
        shop=str,
        truth=lambda row: fo.Classification(label=str(row)),
        boxes=lambda row: fo.Detections(detections=[fo.Detection(label=str(row), bounding_box=[0, 0, 1, 1])]),
    )
    with pytest.raises(AuditError) as error:
        fio.read_samples(dataset, AuditConfig(**settings))
    assert all(word in str(error.value) for word in words), error.value


def test_views_that_cannot_be_audited(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(3, one=str, two=str)
    with pytest.raises(AuditError, match="one, two"):
        fio.read_samples(dataset, AuditConfig())
    with pytest.raises(AuditError, match="empty"):
        fio.read_samples(dataset.limit(3).match_tags("nobody"), AuditConfig(text="one"))
    clouds = fo.Dataset()
    clouds.add_sample(fo.Sample(filepath="/a.pcd", caption="x"))
    with pytest.raises(AuditError, match="point-cloud"):
        fio.read_samples(clouds, AuditConfig())
    clouds.delete()


def test_load_view_names_what_is_near(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(4)
    dataset.name = "penguins-on-ice"
    dataset.save_view("first", dataset.limit(1))
    assert fio.load_view("penguins-on-ice") is dataset
    assert len(fio.load_view("penguins-on-ice", "first")) == 1
    with pytest.raises(AuditError, match="'penguin-on-ice' does not exist.*penguins-on-ice"):
        fio.load_view("penguin-on-ice")
    with pytest.raises(AuditError, match="no saved view 'frist'.*first"):
        fio.load_view("penguins-on-ice", "frist")


# writing


def test_fields_tags_view_and_run_hold_the_result(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit_plugin.fiftyone_io.write.results.CHUNK", 4)
    dataset = make_dataset(6)
    result = result_for(dataset)
    seen: list[tuple[str, int, int]] = []
    fio.write_result(dataset, result, AuditConfig(), lambda *step: seen.append(step))
    assert dataset.values("audit_misalignment") == [None, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert dataset.values("audit_is_outlier") == [False, False, True, False, False, False]
    assert dataset.values("audit_failure") == ["no image"] + [None] * 5
    assert not dataset.has_sample_field("audit_clip_score")  # nothing was scored
    assert dataset.get_field("audit_misalignment").description
    assert dataset.values("tags")[1:4] == [
        ["own", "audit:misaligned"],
        ["own", "audit:outlier"],
        ["own", "audit:misaligned"],
    ]
    assert fio.list_audits(dataset) == ["audit"]
    assert fio.audit_info(dataset, "audit").status == "done"
    found = dataset.load_run_results("audit", cache=False)
    assert type(found) is importlib.import_module("audit_plugin.fiftyone_io.runs").AuditRunResults
    assert (found.summary, found.run_dir) == (dict(result.summary), "/runs/x")
    assert found.tagged["audit:outlier"] == [result.ids[2]]
    assert dataset.load_saved_view("audit_flagged").values("id") == [result.ids[i] for i in (3, 2, 1)]
    assert dataset.load_run_view("audit").values("id") == list(result.ids)
    group = dataset.app_config.sidebar_groups[-1]
    assert (group.name, "audit_misalignment" in group.paths) == ("audit", True)
    assert sum("audit_misalignment" in g.paths for g in dataset.app_config.sidebar_groups) == 1
    assert seen == [("write", 0, 6), ("write", 4, 6), ("write", 6, 6)]


@pytest.mark.parametrize("through", ["delete_audit", "delete_run"])
def test_delete_restores_the_exact_earlier_dataset(make_dataset: Callable[..., Any], through: str) -> None:
    dataset = make_dataset(6)
    dataset.match_tags("own").limit(2).tag_samples("audit:misaligned")  # the user's own, one of them on a hit
    before = state(dataset)
    fio.write_result(dataset, result_for(dataset), AuditConfig())
    assert state(dataset) != before
    fio.delete_audit(dataset, "audit") if through == "delete_audit" else dataset.delete_run("audit")
    assert state(dataset) == before
    assert fio.list_audits(dataset) == []
    with pytest.raises(AuditError, match="no audit 'audit'"):
        fio.delete_audit(dataset, "audit")


def test_only_the_samples_of_the_view_change(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    view = dataset[2:6]
    fio.write_result(view, result_for(view, misaligned=(0,), outlier=()), AuditConfig())
    assert dataset.values("audit_action")[:2] == dataset.values("audit_action")[6:] == [None, None]
    assert dataset.values("audit_action")[2:6] == ["review", "keep", "keep", "keep"]
    assert dataset.match_tags("audit:misaligned").values("id") == [view.values("id")[0]]
    assert dataset.load_run_view("audit").values("id") == view.values("id")


def test_a_rerun_replaces_and_never_mixes(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    fio.write_result(dataset, result_for(dataset), AuditConfig())
    view = dataset.load_saved_view("audit_flagged")  # defined by fields that the rerun takes away
    ids = view.values("id")
    fio.write_result(view, result_for(view, misaligned=(), outlier=(1,), base=100.0), AuditConfig())
    assert dataset.count("audit_action") == len(ids) == 3
    assert dataset.count_sample_tags() == {"own": 8, "audit:outlier": 1}
    assert dataset.select(ids, ordered=True).values("audit_misalignment") == [None, 101.0, 102.0]
    assert dataset.load_run_view("audit").count() == 3
    assert fio.list_audits(dataset) == ["audit"]


def test_two_runs_decisions_and_the_users_tags_live_side_by_side(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(6)
    ids = dataset.values("id")
    dataset.select(ids[4]).tag_samples(["audit:misaligned", "second:misaligned"])
    dataset.select(ids[1]).tag_samples("audit:misaligned")
    for name in ("audit_decision", "audit_note"):
        dataset.set_values(name, ["mine"] * 6)
    fio.write_result(dataset, result_for(dataset), AuditConfig())
    alone = state(dataset)
    fio.write_result(dataset, result_for(dataset, misaligned=(0, 1)), AuditConfig(run="second"))
    assert "audit_culprit" not in fio.string_fields(dataset)
    fio.delete_audit(dataset, "second")
    assert state(dataset) == alone
    fio.delete_audit(dataset, "audit")
    assert dataset.values("audit_decision") == ["mine"] * 6
    tags = dict(zip(range(6), dataset.values("tags"), strict=True))
    assert tags == {
        0: ["own"],
        1: ["own", "audit:misaligned"],
        2: ["own"],
        3: ["own"],
        4: ["own", "audit:misaligned", "second:misaligned"],
        5: ["own"],
    }


def test_nothing_is_written_where_a_name_is_taken(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(3)
    dataset.set_values("audit_misalignment", [1.0, 2.0, 3.0])
    before = state(dataset)
    with pytest.raises(AuditError, match="'audit_misalignment'.*choose another run key"):
        fio.write_result(dataset, result_for(dataset, (1,)), AuditConfig())
    assert state(dataset) == before
    dataset.save_view("second_flagged", dataset.limit(1))
    with pytest.raises(AuditError, match="saved view 'second_flagged'"):
        fio.write_result(dataset, result_for(dataset, (1,)), AuditConfig(run="second"))
    dataset.register_run("third", dataset.init_run(method="other"))
    with pytest.raises(AuditError, match="run 'third'.*is not an audit"):
        fio.check_writable(dataset, "third")


def test_a_sidebar_of_the_users_own_is_kept(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(4)
    groups = fo.DatasetAppConfig.default_sidebar_groups(dataset)
    dataset.app_config.sidebar_groups = [*groups, fo.SidebarGroupDocument(name="audit", paths=["caption"])]
    dataset.save()
    before = state(dataset)
    fio.write_result(dataset, result_for(dataset, (1,)), AuditConfig())
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


def test_a_manifest_becomes_a_dataset_that_only_a_manifest_replaces(pictures: list[str]) -> None:
    samples = Samples(("a", "b"), {"image": tuple(pictures[:2]), "text": ("one", None)})
    dataset = fio.load_manifest_dataset("audit-test-demo", samples, {"fault": ("planted", ["", "swap"])})
    try:
        assert dataset.persistent
        assert dataset.values("filepath") == pictures[:2]
        assert dataset.values("caption") == ["one", None]
        assert dataset.values("manifest_id") == ["a", "b"]
        assert dataset.values("fault") == [None, "swap"]
        assert len(fio.load_manifest_dataset("audit-test-demo", samples)) == 2
    finally:
        fo.delete_dataset("audit-test-demo")
    own = fo.Dataset("audit-test-own")
    with pytest.raises(AuditError, match="'audit-test-own' exists"):
        fio.load_manifest_dataset("audit-test-own", samples)
    own.delete()


# whole audits


def test_audit_view_scores_and_writes_only_the_view(make_dataset: Callable[..., Any], tmp_path: Path) -> None:
    dataset = make_dataset(36)
    before = state(dataset)
    stages: list[str] = []
    config = AuditConfig(encoder="offline", trials=4, epochs=2, device="cpu")
    result = fio.audit_view(dataset[:30], config, lambda stage, *_: stages.append(stage), tmp_path / "run")
    assert result.ids == tuple(dataset.values("id")[:30])
    assert dataset.values("audit_action") == [*result.columns["action"], *[None] * 6]
    assert np.allclose(np.array(dataset.values("audit_outlier")[:30], float), result.columns["outlier"], equal_nan=True)
    assert list(dict.fromkeys(stages))[-1] == "write"
    assert fio.estimate_cost(dataset, config)["rows"] == 36
    written, paths = state(dataset), dataset.values("filepath")
    dataset.set_values("filepath", [f"/not-mounted/{row}.png" for row in range(36)])
    with pytest.raises(AuditError, match=r"no sample can be scored .*file not found.*'audit' stay as they were"):
        fio.audit_view(dataset[:30], config, None, tmp_path / "other")
    dataset.set_values("filepath", paths)
    assert state(dataset) == written
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


def test_the_cost_of_a_large_view_is_judged_by_its_head(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(40)
    config = AuditConfig(encoder="offline", seed=5)
    whole, head = fio.estimate_cost(dataset, config), fio.estimate_cost(dataset, config, limit=20)
    assert (whole["rows"], head["rows"]) == (40, 40)
    assert head["encodes"] == {"image": 40, "text": 40} or whole["encodes"]["image"] < 40  # cached by another test
    assert head["minutes"] >= whole["minutes"]
