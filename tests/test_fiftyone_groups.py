"""Grouped datasets, videos and other files: one row each, the result on every slice that was used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from tests.fiftyone_fixtures import result_for, state

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")


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
