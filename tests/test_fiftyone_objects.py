"""Views of patches: each object's crop against its label, results on the labels, against a real database."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.prompts import LABEL_TEMPLATES
from audit_plugin.inputs.modalities import MODALITIES
from tests.conftest import COLORS
from tests.fiftyone_fixtures import result_for, state

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")

QUICK = AuditConfig(encoder="offline", trials=4, epochs=8, device="cpu")
BOXES = [(0.0, 0.0, 0.4, 0.5), (0.5, 0.0, 0.4, 0.5), (0.0, 0.5, 0.4, 0.5)]


def label_of(row: int, place: int) -> str:
    return f"{COLORS[(row + place) % 3][0]}Thing"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """20 images with three colored rectangles each, one of the names with what other tools would split at."""
    folder = tmp_path_factory.mktemp("scenes")
    paths = [str(folder / (f"{row}#xywh=1,2,3,4.png" if row == 3 else f"{row}.png")) for row in range(20)]
    for row, path in enumerate(paths):
        rng = np.random.default_rng(row)
        pixels = rng.integers(90, 160, (80, 100, 3))
        for place, (left, top, width, height) in enumerate(BOXES):
            area = (slice(int(80 * top), int(80 * (top + height))), slice(int(100 * left), int(100 * (left + width))))
            noise = rng.integers(-30, 30, pixels[area].shape)
            pixels[area] = np.clip(np.array(COLORS[(row + place) % 3][1]) + noise, 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return paths


@pytest.fixture
def make_scenes(scenes: list[str]) -> Iterator[Callable[..., Any]]:
    """Makes datasets of n images with three objects each, one image without any."""
    made = []

    def make(n: int = 4, wrong: tuple[tuple[int, int], ...] = (), empty: int = -1) -> Any:
        """`wrong`: (image, object) that bears the next label."""
        dataset = fo.Dataset()
        made.append(dataset)
        for row in range(n):
            objects = [
                fo.Detection(
                    label=label_of(row, place + ((row, place) in wrong)), bounding_box=list(box), tags=["own"], note="x"
                )
                for place, box in enumerate(BOXES)
            ]
            found = fo.Detections(detections=[] if row == empty else objects)
            dataset.add_sample(fo.Sample(filepath=scenes[row], truth=found, tags=["own"], kind="k"))
        dataset.add_dynamic_sample_fields()
        return dataset

    yield make
    for dataset in made:
        if not dataset.deleted:
            dataset.delete()


def nested(dataset: Any, name: str) -> list[Any]:
    return [value for values in dataset.values(f"truth.detections.{name}") for value in values or []]


# reading


def test_an_object_is_a_row_with_its_crop_and_label(make_scenes: Callable[..., Any], scenes: list[str]) -> None:
    dataset = make_scenes(5, empty=1)
    view = dataset.to_patches("truth")
    samples = fio.read_samples(view, AuditConfig())
    assert samples.ids == tuple(nested(dataset, "id")) == tuple(view.values("id"))
    assert samples.media["text"] == tuple(label_of(row, place) for row in (0, 2, 3, 4) for place in range(3))
    ids = dataset.values("id")
    assert samples.groups == tuple(ids[row] for row in (0, 2, 3, 4) for _ in range(3))  # an image's leave together
    for at in (0, 7):
        crop = np.asarray(MODALITIES["image"].read(samples.media["image"][at]), dtype=float)
        assert crop.shape == ((44, 44, 3), (44, 48, 3))[at % 3]
        color = dict(COLORS)[samples.media["text"][at].removesuffix("Thing")]
        assert np.abs(np.median(crop, axis=(0, 1)) - color).max() < 15
    assert fio.resolve_settings(view, AuditConfig()).template == LABEL_TEMPLATES
    assert fio.resolve_settings(view, AuditConfig()).text == "truth"
    assert fio.text_fields(view) == ["truth", "truth.note"]
    assert fio.read_samples(view, AuditConfig(text="truth.note")).media["text"] == ("x",) * 12
    assert fio.read_samples(view[2:4], AuditConfig()).ids == samples.ids[2:4]


def test_views_that_are_no_objects_are_refused_with_a_sentence(
    make_scenes: Callable[..., Any], clips: list[str]
) -> None:
    dataset = make_scenes(2)
    view = dataset.to_patches("truth")
    with pytest.raises(AuditError, match="leave image, audio, video out"):
        fio.read_samples(view, AuditConfig(text="truth", audio="truth.note"))
    with pytest.raises(AuditError, match="text field 'kind' does not exist.*truth"):
        fio.read_samples(view, AuditConfig(text="kind"))
    with pytest.raises(AuditError, match="are not single detections"):
        fio.read_samples(dataset.to_patches("truth", keep_label_lists=True), AuditConfig())
    with pytest.raises(AuditError, match="'truth' in dataset .* is empty|objects 'truth' of dataset .* is empty"):
        fio.read_samples(view.limit(2).match_tags("nobody"), AuditConfig())
    dataset.add_sample_field("lines", fo.EmbeddedDocumentField, embedded_doc_type=fo.Polylines)
    line = fo.Polyline(label="a", points=[[(0, 0), (1, 1)]])
    dataset.set_values("lines", [fo.Polylines(polylines=[line.copy()]) for _ in range(2)])
    with pytest.raises(AuditError, match="'lines' .* are not single detections"):
        fio.read_samples(dataset.to_patches("lines"), AuditConfig())
    videos = fo.Dataset()
    videos.add_sample(fo.Sample(filepath=clips[0], events=fo.TemporalDetection(label="a", support=[1, 2])))
    with pytest.raises(AuditError, match="frames, clips or evaluated patches"):
        fio.read_samples(videos.to_clips("events"), AuditConfig())
    videos.delete()


def test_load_view_makes_the_patches(make_scenes: Callable[..., Any]) -> None:
    dataset = make_scenes(2)
    dataset.save_view("first", dataset.limit(1))
    assert len(fio.load_view(dataset.name, "first", "truth")) == 3
    for wrong in ("kind", "truht"):
        with pytest.raises(AuditError, match=f"patches field '{wrong}'.*detections are truth"):
            fio.load_view(dataset.name, None, wrong)


# writing


def test_attributes_tags_view_and_run_hold_the_result(
    make_scenes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit_plugin.fiftyone_io.write.results.CHUNK", 4)
    dataset = make_scenes(3)
    view = dataset.to_patches("truth")
    ids = view.values("id")
    dataset.select_labels(ids=[ids[1], ids[5]]).tag_labels("audit:misaligned", label_fields="truth")  # the user's own
    before = state(dataset)
    fio.write_result(view, result_for(view, misaligned=(1, 3)), AuditConfig())
    assert nested(dataset, "audit_misalignment") == [None, *map(float, range(1, 9))]
    assert view.values("truth.audit_misalignment") == nested(dataset, "audit_misalignment")  # at once, in the view too
    assert dataset.get_field("truth.detections.audit_misalignment").description
    own, mine, theirs = ["own"], ["own", "audit:misaligned"], ["own", "audit:outlier"]
    assert nested(dataset, "tags") == [own, mine, theirs, mine, own, mine, own, own, own]
    assert dataset.count_sample_tags() == {"own": 3}
    assert dataset.load_run_results("audit", cache=False).tagged == {
        "audit:misaligned": [ids[3]],
        "audit:outlier": [ids[2]],
    }
    assert dataset.load_saved_view("audit_flagged").values("id") == [ids[3], ids[2], ids[1]]
    assert dataset.load_run_view("audit").values("id") == ids
    assert len(dataset.load_run_view("audit", select_fields=True)) == 9
    record = fio.audit_info(dataset, "audit")
    assert (record.status, record.label_field) == ("done", "truth")
    fio.write_result(view, result_for(view, misaligned=(5,), outlier=()), AuditConfig())  # replaces, never mixes
    assert nested(dataset, "tags") == [own, mine, own, own, own, mine, own, own, own]
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


def test_boxes_of_objects_are_checked(make_scenes: Callable[..., Any], tmp_path: Path) -> None:
    """Of a dataset without metadata: the sizes of the images are read from their files, 100 x 80 pixels."""
    dataset = make_scenes(12)
    sample = dataset.first()
    bad = [(0.0, 0.0, 0.4, 0.48), (0.7, 0.5, 0.5, 0.4), (0.2, 0.2, 0.0, 0.3), (0.5, 0.0, 0.39, 0.5)]
    labels = [label_of(0, 0), "redThing", "redThing", label_of(0, 2)]
    for label, box in zip(labels, bad, strict=True):
        sample.truth.detections.append(fo.Detection(label=label, bounding_box=list(box)))
    sample.save()
    assert dataset.values("metadata") == [None] * 12
    fio.audit_view(dataset.to_patches("truth"), QUICK, None, tmp_path / "run")
    detections = dataset.first().truth.detections
    found = nested(dataset.limit(1), "audit_box_problem")
    ids = [detection.id for detection in detections]
    equal = sorted((0, 3), key=lambda at: ids[at])  # of equal labels the first id stays
    assert found[equal[0]] is None
    assert found[equal[1]].startswith(f"nearly the same box as {ids[equal[0]]}, of the same class")
    assert found[1].startswith(f"nearly the same box as {ids[6]}, of another class '{label_of(0, 2)}'")
    assert found[6].startswith(f"nearly the same box as {ids[1]}, of another class '{label_of(0, 1)}'")
    assert found[4] == "beyond the image (70 to 120 of 100 pixels across, 40 to 72 of 80 down)"
    assert found[5] == "image: bounding box has no area (width 0.00%, height 30.00% of the image)"
    flagged = [bool(detection["audit_is_box_problem"]) for detection in detections]
    assert flagged == [text is not None for text in found]
    assert sum(map(bool, nested(dataset, "audit_is_box_problem"))) == 5
    assert detections[5]["audit_action"] == "fix"
    assert "audit:box_problem" in detections[4].tags


def test_delete_run_takes_all_away_too(make_scenes: Callable[..., Any]) -> None:
    dataset = make_scenes(3)
    before, view = state(dataset), dataset.to_patches("truth")
    fio.write_result(view, result_for(view), AuditConfig())
    dataset.delete_run("audit")
    assert state(dataset) == before


def test_only_the_objects_of_the_view_change_and_a_flagged_view_can_be_audited(make_scenes: Callable[..., Any]) -> None:
    dataset = make_scenes(4)
    view = dataset.to_patches("truth")[2:8]
    fio.write_result(view, result_for(view), AuditConfig())
    assert [value is not None for value in nested(dataset, "audit_action")] == [False] * 2 + [True] * 6 + [False] * 4
    flagged = dataset.load_saved_view("audit_flagged")  # defined by attributes that the rerun takes away
    ids = flagged.values("id")
    fio.write_result(flagged, result_for(flagged, misaligned=(2,), outlier=(), base=50.0), AuditConfig())
    assert [a for a in nested(dataset, "audit_action") if a] == [
        {ids[0]: "keep", ids[1]: "keep", ids[2]: "review"}[i] for i in nested(dataset, "id") if i in ids
    ]
    assert dataset.count_label_tags() == {"own": 12, "audit:misaligned": 1}


def test_objects_samples_and_a_second_run_live_side_by_side(make_scenes: Callable[..., Any]) -> None:
    dataset = make_scenes(3)
    fio.write_result(dataset, result_for(dataset, (1,), (2,)), AuditConfig())
    alone = state(dataset)
    view = dataset.to_patches("truth")
    fio.write_result(view, result_for(view), AuditConfig(run="second"))
    assert fio.text_fields(dataset.to_patches("truth")) == ["truth", "truth.note"]
    assert fio.text_fields(dataset) == ["kind"]
    fio.delete_audit(dataset, "second")
    assert state(dataset) == alone
    fio.write_result(view, result_for(view), AuditConfig())  # the same key, now on objects
    assert not dataset.has_sample_field("audit_misalignment")
    assert dataset.count_sample_tags() == {"own": 3}


@pytest.mark.parametrize("declared", [True, False])
def test_an_attribute_of_the_users_own_is_never_overwritten(make_scenes: Callable[..., Any], declared: bool) -> None:
    dataset = make_scenes(2)
    sample = dataset.last()
    sample.truth.detections[1]["audit_misalignment"] = 0.5
    sample.save()
    if declared:
        dataset.add_dynamic_sample_fields()
    before, view = state(dataset), dataset.to_patches("truth")
    with pytest.raises(AuditError, match="'truth.audit_misalignment'.*choose another run key"):
        fio.write_result(view, result_for(view), AuditConfig())
    assert state(dataset) == before
    fio.check_writable(dataset, "audit")  # the samples themselves are free
    fio.check_writable(view, "other")


@pytest.mark.parametrize("step", [0, 9])
def test_an_interrupted_write_can_be_taken_away(make_scenes: Callable[..., Any], step: int) -> None:
    dataset = make_scenes(3)
    before, view = state(dataset), dataset.to_patches("truth")

    def interrupt(_stage: str, done: int, _total: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fio.write_result(view, result_for(view), AuditConfig(), interrupt)
    assert fio.audit_info(dataset, "audit").status == "writing"
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


def test_a_slice_of_images_of_a_grouped_dataset(scenes: list[str]) -> None:
    dataset = fo.Dataset()
    dataset.add_group_field("group", default="left")
    for row in range(2):
        group = fo.Group()
        found = [fo.Detection(label=label_of(row, 0), bounding_box=list(BOXES[0]))]
        for side in ("left", "right"):
            kept = fo.Detections(detections=[d.copy() for d in found]) if side == "right" else None
            dataset.add_sample(fo.Sample(filepath=scenes[row], truth=kept, group=group.element(side)))
    before = state(dataset)
    view = fio.load_view(dataset.name, None, "truth")
    assert len(view) == 2
    fio.write_result(view, result_for(view, (1,), ()), AuditConfig())
    assert dataset.select_group_slices("right").values("truth.detections.audit_misalignment") == [[None], [1.0]]
    assert len(dataset.load_saved_view("audit_flagged")) == 1
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before
    dataset.delete()


# a whole audit


def test_objects_are_audited_and_the_dataset_restored(make_scenes: Callable[..., Any], tmp_path: Path) -> None:
    wrong = ((2, 1), (9, 0))
    dataset = make_scenes(20, wrong, empty=19)
    before = state(dataset)
    view = dataset.to_patches("truth")
    stages: list[str] = []
    result = fio.audit_view(view, QUICK, lambda stage, *_: stages.append(stage), tmp_path / "run")
    assert result.ids == tuple(view.values("id"))
    assert stages[-1] == "write"
    worst = np.argsort(-result.columns["misalignment"])[:4]
    assert {3 * row + place for row, place in wrong} <= set(worst.tolist())
    assert np.allclose(nested(dataset, "audit_misalignment"), result.columns["misalignment"], atol=1e-6)
    assert nested(dataset, "audit_action") == list(result.columns["action"])
    settings = fio.audit_info(dataset, "audit").settings
    assert (settings["text"], settings["template"]) == ("truth", LABEL_TEMPLATES)
    again = fio.audit_view(view, dataclasses.replace(QUICK, false_positive_rate=0.1), None, tmp_path / "run")
    assert np.array_equal(again.columns["misalignment"], result.columns["misalignment"])
    assert fio.estimate_cost(view, QUICK)["encodes"] == {"image": 0, "text": 0}
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before
