"""The FiftyOne edge against a real database: what is written, what is left alone, what can be taken back."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_plugin.arrays import AuditError, AuditResult, Samples
from audit_plugin.config import FLAG_KINDS, AuditConfig

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")

ROOT = Path(__file__).resolve().parents[1]
VOLATILE = {"last_modified_at", "_id", "_dataset_id", "created_at", "_media_type", "_rand"}


def result_for(
    view: Any,
    misaligned: tuple[int, ...] = (1, 3),
    outlier: tuple[int, ...] = (2,),
    run_dir: str = "/runs/x",
    base: float = 0.0,
    ids: tuple[str, ...] = (),
) -> AuditResult:
    """A hand-made result: two kinds of flags, one unscored row, one column without any value."""
    ids = ids or tuple(view.values("id"))
    n = len(ids)
    flags = {f"is_{kind}": np.zeros(n, dtype=bool) for kind in FLAG_KINDS}
    flags["is_misaligned"][list(misaligned)] = True
    flags["is_outlier"][list(outlier)] = True
    score = base + np.arange(n, dtype=np.float32)
    score[0] = np.nan
    action = np.array(
        ["review" if m or o else "keep" for m, o in zip(flags["is_misaligned"], flags["is_outlier"], strict=True)],
        dtype=object,
    )
    columns = {
        "misalignment": score,
        "culprit": np.full(n, "text", dtype=object),
        "clip_score": np.full(n, np.nan, dtype=np.float32),
        "duplicate_group": np.full(n, -1),
        **flags,
        "action": action,
        "reason": np.array([f"because of {i}" for i in range(n)], dtype=object),
        "failure": np.array(["no image", *[""] * (n - 1)], dtype=object),
    }
    return AuditResult(ids, columns, {"samples": n, "failures": 1, "reliability": 0.9}, run_dir)


def state(dataset: Any) -> dict[str, Any]:
    """Everything about a dataset that an audit may touch."""
    whole = dataset.select_group_slices(_allow_mixed=True) if dataset.media_type == "group" else dataset
    samples = {s.id: {k: v for k, v in s.to_dict(include_private=True).items() if k not in VOLATILE} for s in whole}
    schema = {name: (str(field), field.description) for name, field in dataset.get_field_schema(flat=True).items()}
    groups = dataset.app_config.sidebar_groups
    return {
        "samples": samples,
        "schema": schema,
        "runs": dataset.list_runs(),
        "views": dataset.list_saved_views(),
        "sidebar": groups and [(g.name, list(g.paths)) for g in groups],
        "tags": whole.count_sample_tags(),
        "label_tags": whole.count_label_tags(),
        "info": dict(dataset.info),
    }


# reading


def test_read_samples_takes_ids_files_and_the_field_called_caption(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(5, note=lambda row: f"n{row}", image_caption=lambda row: f"c{row}", shop=lambda row: row % 2)
    samples = fio.read_samples(dataset[1:4], AuditConfig(group="shop"))
    assert samples.ids == tuple(dataset.values("id")[1:4])
    assert samples.media["image"] == tuple(dataset.values("filepath")[1:4])
    assert samples.media["text"] == ("c1", "c2", "c3")
    assert samples.groups == ("1", "0", "1")


def test_caption_field_falls_back_to_labels_and_to_the_only_string(make_dataset: Callable[..., Any]) -> None:
    labelled = make_dataset(3, ground_truth=lambda row: fo.Classification(label=f"l{row}"))
    assert fio.caption_field(labelled) == "ground_truth"
    assert fio.read_samples(labelled, AuditConfig()).media["text"] == ("l0", "l1", "l2")
    assert fio.read_samples(labelled, AuditConfig(text="ground_truth.label")).media["text"] == ("l0", "l1", "l2")
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
    monkeypatch.setattr("audit_plugin.fiftyone_io.fields.CHUNK", 4)
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
    assert type(found) is fio.AuditRunResults
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


def test_a_slice_of_a_grouped_dataset(make_dataset: Callable[..., Any], pictures: list[str]) -> None:
    dataset = make_dataset(0)
    dataset.add_group_field("group", default="left")
    for row in range(3):
        group = fo.Group()
        dataset.add_samples(
            [
                fo.Sample(filepath=pictures[row], caption=f"{side}{row}", group=group.element(side))
                for side in ("left", "right")
            ]
        )
    with pytest.raises(AuditError, match=r"grouped.*left \(image\), right \(image\).*image=slice:left"):
        fio.read_samples(dataset, AuditConfig())
    view = dataset.select_group_slices("right")
    assert fio.read_samples(view, AuditConfig()).media["text"] == ("right0", "right1", "right2")
    fio.write_result(view, result_for(view, (0,), ()), AuditConfig())
    assert view.values("audit_is_misaligned") == [True, False, False]
    assert dataset.load_saved_view("audit_flagged").values("caption") == ["left0"]  # the group, by its default slice
    assert dataset.load_run_view("audit").count() == 3
    assert dataset.select_group_slices("left").values("audit_is_misaligned") == [None] * 3
    fio.delete_audit(dataset, "audit")
    assert view.count_sample_tags() == {}


GROUPED = {"image": "slice:picture", "text": "caption", "video": "slice:clip", "audio": "slice:sound"}


def slice_values(dataset: Any, name: str, field: str) -> list[Any]:
    return dataset.select_group_slices(name).values(field)


def test_groups_give_one_row_each_and_none_where_a_slice_is_missing(
    make_groups: Callable[..., Any], pictures: list[str], clips: list[str], sounds: list[str]
) -> None:
    dataset = make_groups(4, without=((1, "picture"), (2, "sound")))
    samples = fio.read_samples(dataset, AuditConfig(**GROUPED, group="shop"))
    assert samples.modalities == ("image", "text", "audio", "video")
    assert samples.media["image"] == (pictures[0], None, pictures[2], pictures[3])
    assert samples.media["audio"] == (sounds[0], sounds[1], None, sounds[3])
    assert samples.media["video"] == tuple(clips[:4])
    assert [text and text[-1] for text in samples.media["text"]] == ["0", None, "2", "3"]
    assert samples.groups == ("0", "", "0", "1")
    image = slice_values(dataset, "picture", "id")
    sound = slice_values(dataset, "sound", "id")
    assert samples.ids == (image[0], sound[1], image[1], image[2])  # the first slice that the group has
    some = fio.read_samples(dataset.match(fo.ViewField("shop") == 1), AuditConfig(**GROUPED))
    assert some.ids == (image[2],)


def test_a_grouped_dataset_offers_its_only_image_and_video_slice(make_groups: Callable[..., Any]) -> None:
    dataset = make_groups(3, default="sound")
    samples = fio.read_samples(dataset, AuditConfig())
    assert samples.modalities == ("image", "text", "video")
    assert samples.media["text"][2] == "a blue square, number 2"  # taken from whichever slice used has one
    two = fio.read_samples(dataset, AuditConfig(text="slice:picture.caption", audio="slice:sound"))
    assert two.modalities == ("text", "audio")
    assert two.media["text"] == samples.media["text"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image": "slice:pictur"}, ["'slice:pictur'", "no such slice", "picture"]),
        ({"audio": "slice:picture"}, ["of type image", "cannot be taken as audio"]),
        ({"text": "slice:picture"}, ["names no field", "slice:picture.FIELD", "caption"]),
        ({"audio": "slice:sound.sop"}, ["audio field 'sop' does not exist"]),
    ],
)
def test_wrong_slices_are_named_with_a_remedy(
    make_groups: Callable[..., Any], settings: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(AuditError) as error:
        fio.read_samples(make_groups(2), AuditConfig(**settings))
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("default", ["picture", "sound"])
def test_results_stand_on_every_slice_used_and_are_taken_away_again(
    make_groups: Callable[..., Any], default: str
) -> None:
    dataset = make_groups(5, without=((3, "picture"),), default=default)
    dataset.select_group_slices("clip").limit(2).tag_samples("audit:misaligned")  # the user's own, one on a hit
    before = state(dataset)
    config = AuditConfig(image="slice:picture", video="slice:clip", text="caption")
    rows = fio.read_samples(dataset, config).ids
    fio.write_result(dataset, result_for(dataset, misaligned=(1, 3), outlier=(2,), ids=rows), config)
    for name, groups in (("picture", [0, 1, 2, 4]), ("clip", [0, 1, 2, 3, 4])):
        assert slice_values(dataset, name, "audit_misalignment") == [float(g) if g else None for g in groups]
        assert slice_values(dataset, name, "audit_is_misaligned") == [g in (1, 3) for g in groups]
    assert slice_values(dataset, "sound", "audit_action") == [None] * 5
    tags = dataset.select_group_slices(_allow_mixed=True).count_sample_tags()
    assert tags == {"own": 14, "audit:misaligned": 3 + 1, "audit:outlier": 2}
    assert slice_values(dataset, "sound", "tags") == [["own"]] * 5
    shown = dataset.load_saved_view("audit_flagged")
    assert shown.media_type == "group"
    files = ["02.wav", "01.wav", "03.wav"] if default == "sound" else ["02.png", "01.png"]
    assert [Path(path).name for path in shown.values("filepath")] == files
    assert dataset.load_run_view("audit").count() == (5 if default == "sound" else 4)
    fio.write_result(dataset, result_for(dataset, ids=rows), config)  # replaces, never mixes
    assert dataset.select_group_slices(_allow_mixed=True).count_sample_tags() == tags
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


def test_only_the_groups_of_the_view_change(make_groups: Callable[..., Any]) -> None:
    dataset = make_groups(5)
    config = AuditConfig(**GROUPED)
    view = dataset[1:3]
    rows = fio.read_samples(view, config).ids
    assert len(rows) == 2
    fio.write_result(view, result_for(view, (0,), (), ids=rows), config)
    for name in ("picture", "clip", "sound"):
        assert slice_values(dataset, name, "audit_is_misaligned") == [None, True, False, None, None]


@pytest.fixture
def make_flat() -> Iterator[Callable[..., Any]]:
    """Makes datasets of files, with a caption and other fields."""
    made = []

    def make(paths: list[str], **fields: list[Any]) -> Any:
        made.append(fo.Dataset())
        texts = [caption(row) for row in range(len(paths))]
        rows = [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
        made[-1].add_samples(
            [
                fo.Sample(filepath=path, caption=text, tags=["own"], **row)
                for path, text, row in zip(paths, texts, rows or [{}] * len(paths), strict=True)
            ]
        )
        return made[-1]

    yield make
    for dataset in made:
        dataset.delete()


def caption(row: int) -> str:
    return f"a square, number {row}"


def test_a_video_dataset_is_video_and_text(
    make_flat: Callable[..., Any], clips: list[str], sounds: list[str], pictures: list[str]
) -> None:
    classes = [fo.Classification(label=f"c{i}") for i in range(3)]
    seen = ["f", None, "both"]
    dataset = make_flat(clips[:3], sound=sounds[:3], still=pictures[:3], kind=classes, seen=seen)
    samples = fio.read_samples(dataset, AuditConfig(label="kind", role="seen"))
    assert dict(samples.media) == {"text": tuple(map(caption, range(3))), "video": tuple(clips[:3])}
    assert (samples.labels, samples.roles) == (("c0", "c1", "c2"), ("f", "", "both"))
    assert fio.read_samples(dataset, AuditConfig(audio="sound")).modalities == ("text", "audio", "video")
    both = fio.read_samples(dataset, AuditConfig(audio="filepath", text="caption"))  # the sound track
    assert dict(both.media) == {"text": tuple(map(caption, range(3))), "audio": tuple(clips[:3])}
    three = fio.read_samples(dataset, AuditConfig(audio="sound", image="still", video="filepath"))
    assert three.modalities == ("image", "audio", "video")
    with pytest.raises(AuditError, match="of type video and cannot be taken as image"):
        fio.read_samples(dataset, AuditConfig(image="filepath"))
    with pytest.raises(AuditError, match="not grouped; name a field"):
        fio.read_samples(dataset, AuditConfig(image="slice:left"))
    with pytest.raises(AuditError, match="role field 'caption' of sample .* is 'a square, number 0'; a role is one of"):
        fio.read_samples(dataset, AuditConfig(role="caption"))
    with pytest.raises(AuditError, match="label field 'kid' does not exist.*kind"):
        fio.read_samples(dataset, AuditConfig(label="kid"))


def test_files_of_a_type_unknown_to_fiftyone_are_named(make_flat: Callable[..., Any], sounds: list[str]) -> None:
    dataset = make_flat(sounds[:3])
    with pytest.raises(AuditError, match="type unknown.*audio=filepath"):
        fio.read_samples(dataset, AuditConfig())
    samples = fio.read_samples(dataset, AuditConfig(audio="filepath"))
    assert samples.modalities == ("text", "audio")
    assert samples.media["audio"] == tuple(sounds[:3])


def test_a_manifest_becomes_a_dataset_that_only_a_manifest_replaces(pictures: list[str]) -> None:
    samples = Samples(("a", "b"), {"image": tuple(pictures[:2]), "text": ("one", None)})
    dataset = fio.load_manifest_dataset("audit-test-demo", samples, ["", "swap"])
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
    assert fio.preview_view(dataset, config)["rows"] == 36
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


def test_a_video_dataset_with_sounds_is_audited_and_restored(
    make_flat: Callable[..., Any], clips: list[str], sounds: list[str], tmp_path: Path
) -> None:
    (tmp_path / "torn.mp4").write_bytes(Path(clips[0]).read_bytes()[:200])
    dataset = make_flat([*clips[:39], str(tmp_path / "torn.mp4")], sound=[*sounds[:38], None, sounds[39]])
    before = state(dataset)
    config = AuditConfig(
        video="filepath", text="caption", audio="sound", encoder="offline", trials=4, epochs=2, device="cpu"
    )
    result = fio.audit_view(dataset, config, None, tmp_path / "run")
    why = dataset.values("audit_failure")
    assert [row for row in range(40) if why[row]] == [38, 39]
    assert dataset.values("audit_action") == list(result.columns["action"])
    assert dataset.count("audit_misalignment_audio_video") == 38
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


@pytest.mark.parametrize("step", [0, 6])
def test_an_interrupted_write_can_be_taken_away(make_dataset: Callable[..., Any], step: int) -> None:
    dataset = make_dataset(6)
    dataset.limit(2).tag_samples("audit:misaligned")
    before = state(dataset)

    def interrupt(stage: str, done: int, total: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fio.write_result(dataset, result_for(dataset), AuditConfig(), interrupt)
    assert fio.audit_info(dataset, "audit").status == "writing"
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


def test_the_cost_of_a_large_view_is_judged_by_its_head(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(40)
    config = AuditConfig(encoder="offline", seed=5)
    whole, head = fio.preview_view(dataset, config), fio.preview_view(dataset, config, limit=20)
    assert (whole["rows"], head["rows"]) == (40, 40)
    assert head["encodes"] == {"image": 40, "text": 40} or whole["encodes"]["image"] < 40  # cached by another test
    assert head["minutes"] >= whole["minutes"]


# a database that dies


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from test_fiftyone_io import result_for
    import fiftyone as fo
    from audit_plugin import fiftyone_io as fio
    from audit_plugin.arrays import AuditError
    from audit_plugin.config import AuditConfig

    dataset = fo.Dataset("victim", persistent=True)
    dataset.add_samples([fo.Sample(filepath=f"/{{i}}.png", caption=str(i), tags=["own"]) for i in range(6)])
    dataset.limit(2).tag_samples("audit:misaligned")
    def kill(stage, done, total):
        if done == total:
            os.kill({pid}, signal.SIGKILL)
    try:
        fio.write_result(dataset, result_for(dataset, run_dir="/runs/safe"), AuditConfig(), kill)
    except AuditError as error:
        print("AuditError:", error)
"""
HEAL = """
    import json, sys
    sys.path.insert(0, {tests!r})
    from test_fiftyone_io import result_for
    import fiftyone as fo
    from audit_plugin import fiftyone_io as fio
    from audit_plugin.config import AuditConfig

    dataset = fo.load_dataset("victim")
    states = [fio.audit_info(dataset, "audit").status]
    fio.write_result(dataset, result_for(dataset, misaligned=(4,), outlier=()), AuditConfig())
    states += [fio.audit_info(dataset, "audit").status, dataset.values("audit_is_misaligned")]
    fio.delete_audit(dataset, "audit")
    print(json.dumps([states, sorted(dataset.get_field_schema()), dataset.values("tags"), dataset.list_saved_views()]))
"""


@pytest.fixture
def mongod(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts private database servers on one port and one folder, so that a killed one can be started again."""
    from fiftyone.core.service import DatabaseService

    folder, started = tmp_path / "db", []
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ["VICTIM_URI"] = f"mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=2000"

    def start() -> subprocess.Popen[bytes]:
        program = DatabaseService.find_mongod()
        started.append(
            subprocess.Popen(
                [program, "--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1"],
                stdout=subprocess.DEVNULL,
            )
        )
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return started[-1]
            time.sleep(0.1)
        raise TimeoutError("mongod did not answer")

    yield start
    for process in started:
        process.kill()
        process.wait()


def run_script(script: str, **values: Any) -> str:
    source = textwrap.dedent(script).format(tests=str(ROOT / "tests"), **values)
    env = {**os.environ, "FIFTYONE_DATABASE_URI": os.environ["VICTIM_URI"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_database_killed_in_the_middle_of_a_write_heals(mongod: Callable[[], Any]) -> None:
    server = mongod()
    output = run_script(KILLED, pid=server.pid)
    assert "AuditError: FiftyOne's database failed while writing run 'audit'" in output
    assert "/runs/safe" in output
    assert len(output.strip().splitlines()) == 1
    assert server.wait() == -signal.SIGKILL
    mongod()
    states, schema, tags, views = json.loads(run_script(HEAL).strip().splitlines()[-1])
    assert states == ["writing", "done", [False] * 4 + [True, False]]
    assert schema == ["caption", "created_at", "filepath", "id", "last_modified_at", "metadata", "tags"]
    assert tags == [["own", "audit:misaligned"]] * 2 + [["own"]] * 4
    assert views == []
