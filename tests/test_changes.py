"""Apply and undo in a real database: exactly what was decided changes, exactly that is taken back."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from tests.conftest import caption
from tests.review_fixtures import documents, some_decided, written

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fio = importlib.import_module("audit_plugin.fiftyone_io")

REMOVED = "audit:removed"


@pytest.fixture
def dataset(make_dataset: Callable[..., Any]) -> Any:
    made = make_dataset(8)
    written(made, (4, 1))
    return made


def test_apply_changes_what_was_decided_and_undo_takes_it_back(dataset: Any) -> None:
    before, views = documents(dataset), dataset.list_saved_views()
    ids = some_decided(dataset)
    done = fio.apply(dataset)
    assert done.state == "applied"
    assert done.counts == {"relabeled": 2, "captions_removed": 0, "removed": 2, "brought_back": 0}
    texts = [caption(row) for row in range(8)]
    texts[1], texts[4] = "new 1", "new 4"
    assert dataset.values("caption") == texts
    assert dataset.match_tags(REMOVED).values("id") == ids[2:4]
    assert dataset.load_saved_view("audit_clean").values("id") == [*ids[:2], *ids[4:]]
    assert all(Path(path).exists() for path in dataset.values("filepath"))
    assert fio.apply(dataset).id == ""  # each decision is carried out once
    undone = fio.undo(dataset)
    assert (undone.id, undone.state) == (done.id, "undone")
    assert documents(dataset) == before
    assert dataset.list_saved_views() == views
    assert [c.state for c in fio.list_changes(dataset)] == ["undone"]
    with pytest.raises(AuditError, match="nothing to undo"):
        fio.undo(dataset)


def test_what_apply_would_do_is_said_before(dataset: Any) -> None:
    ids = some_decided(dataset)
    dataset[ids[1]].set_field("caption", "edited")
    sample = dataset[ids[1]]
    sample["caption"] = "edited"
    sample.save()
    dataset.delete_samples(ids[2])
    plan = fio.plan_of(dataset)
    assert [c.kind for c in plan.changes] == ["text", "removed"]
    assert [d.sample for d in plan.stale] == [ids[1]]
    assert [d.sample for d in plan.lost] == [ids[2]]
    done = fio.apply(dataset)
    assert (done.stale, done.lost) == (1, 1)
    assert dataset[ids[1]]["caption"] == "edited"


def test_a_removal_is_brought_back_by_a_later_decision(dataset: Any) -> None:
    ids = some_decided(dataset)
    fio.apply(dataset)
    fio.decide(dataset, ids[2], "keep")
    assert fio.apply(dataset).counts["brought_back"] == 1
    assert dataset.match_tags(REMOVED).values("id") == [ids[3]]
    fio.undo(dataset)
    assert dataset.match_tags(REMOVED).values("id") == ids[2:4]


def test_only_the_decisions_of_a_run_are_applied_if_one_is_named(dataset: Any) -> None:
    ids = some_decided(dataset)
    fio.decide(dataset, ids[7], "remove", run="")
    assert fio.apply(dataset, "audit").counts["removed"] == 2
    assert fio.apply(dataset).counts["removed"] == 1


def test_a_sample_in_memory_follows(dataset: Any) -> None:
    sample = dataset.first()
    fio.decide(dataset, sample.id, "relabel", text="new")
    fio.apply(dataset)
    assert sample["caption"] == "new"
    fio.undo(dataset)
    assert sample["caption"] == caption(0)


def test_undo_refuses_what_changed_meanwhile_unless_forced(dataset: Any) -> None:
    before = documents(dataset)
    ids = some_decided(dataset)
    fio.apply(dataset)
    sample = dataset[ids[4]]
    sample["caption"] = "by hand"
    sample.save()
    applied = documents(dataset)
    with pytest.raises(AuditError, match=f"caption of sample {ids[4]} was changed"):
        fio.undo(dataset)
    assert documents(dataset) == applied
    fio.undo(dataset, force=True)
    assert documents(dataset) == before


def test_an_earlier_change_set_can_be_undone_by_its_id(dataset: Any) -> None:
    ids = dataset.values("id")
    fio.decide(dataset, ids[0], "relabel", text="one")
    first = fio.apply(dataset)
    fio.decide(dataset, ids[1], "relabel", text="two")
    fio.apply(dataset)
    fio.undo(dataset, first.id)
    assert dataset.values("caption")[:2] == [caption(0), "two"]
    for wrong in (first.id, "nonsense"):
        with pytest.raises(AuditError, match=wrong):
            fio.undo(dataset, wrong)


def test_a_view_of_the_users_own_is_left_alone(dataset: Any) -> None:
    dataset.save_view("audit_clean", dataset.limit(1))
    some_decided(dataset)
    before = documents(dataset)
    with pytest.raises(AuditError, match="'audit_clean'"):
        fio.apply(dataset)
    assert documents(dataset) == before
    assert len(dataset.load_saved_view("audit_clean")) == 1


def views(dataset: Any) -> tuple[list[str], list[str]]:
    """Names of the saved views by the dataset's list, and by their documents."""
    stored = importlib.import_module("fiftyone.core.odm").get_db_conn().views
    dataset.reload()
    return sorted(dataset.list_saved_views()), sorted(v["name"] for v in stored.find({"_dataset_id": dataset._doc.id}))


def test_what_a_crash_leaves_of_the_saved_view_is_mended_and_nothing_else(dataset: Any) -> None:
    stored = importlib.import_module("fiftyone.core.odm").get_db_conn()
    dataset.save_view("own", dataset.limit(1), description="Without what the review removed")
    some_decided(dataset)
    fio.apply(dataset)
    (clean,) = stored.views.find({"_dataset_id": dataset._doc.id, "name": "audit_clean"})
    second, unlisted = ({**clean, "_id": ObjectId()} for _ in range(2))
    stored.views.insert_many([second, unlisted])
    stored.datasets.update_one({"_id": dataset._doc.id}, {"$push": {"saved_views": second["_id"]}})
    fio.recover(dataset)
    names = ["audit_clean", "audit_flagged", "own"]
    assert views(dataset) == (names, names)
    assert len(dataset.load_saved_view("audit_clean")) == 6
    fio.undo(dataset)
    assert views(dataset) == (names[1:], names[1:])


# other places of texts


def test_lists_of_captions(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(3, captions=lambda row: [f"a{row}", f"b{row}", f"c{row}"])
    written(dataset, (1,), "captions")
    before, ids = documents(dataset), dataset.values("id")
    fio.decide(dataset, ids[0], "relabel", text="new", caption=2)
    fio.decide(dataset, ids[1], "remove", caption=0)
    fio.decide(dataset, ids[1], "relabel", text="other", caption=1)
    for at in range(3):
        fio.decide(dataset, ids[2], "remove", caption=at)
    done = fio.apply(dataset)
    assert dataset.values("captions") == [["a0", "b0", "new"], ["other", "c1"], ["a2", "b2", "c2"]]
    assert done.counts == {"relabeled": 1, "captions_removed": 1, "removed": 1, "brought_back": 0}
    assert fio.apply(dataset).id == ""
    assert fio.plan_of(dataset).stale == ()
    fio.undo(dataset)
    assert documents(dataset) == before


def test_labels_and_lists_of_labels(make_dataset: Callable[..., Any]) -> None:
    def many(row: int) -> Any:
        return fo.Classifications(classifications=[fo.Classification(label=f"k{at}", tags=["t"]) for at in range(2)])

    dataset = make_dataset(
        4, one=lambda row: fo.Classification(label=f"l{row}", confidence=0.5) if row else None, many=many
    )
    before, ids = documents(dataset), dataset.values("id")
    written(dataset, (1,), config=AuditConfig(text="one"))
    written(dataset, (1,), config=AuditConfig(text="many", run="second"))
    shape = documents(dataset)
    fio.decide(dataset, ids[0], "relabel", text="first")
    fio.decide(dataset, ids[1], "relabel", text="new")
    fio.decide(dataset, ids[2], "relabel", run="second", text="n1", caption=1)
    fio.decide(dataset, ids[3], "remove", run="second", caption=0)
    fio.apply(dataset)
    assert dataset.values("one.label") == ["first", "new", "l2", "l3"]
    assert dataset.values("one.confidence") == [None, 0.5, 0.5, 0.5]
    assert dataset.values("many.classifications.label")[2:] == [["k0", "n1"], ["k1"]]
    assert dataset.values("many.classifications.tags")[3] == [["t"]]
    fio.undo(dataset)
    assert documents(dataset) == shape
    for run in ("audit", "second"):
        fio.delete_audit(dataset, run)
    assert {k: set(d) for k, d in documents(dataset).items()} == {k: set(d) for k, d in before.items()}


def test_objects(make_dataset: Callable[..., Any]) -> None:
    def boxes(row: int) -> Any:
        both = [fo.Detection(label=f"{name}{row}", bounding_box=[0.1, 0.1, 0.5, 0.5]) for name in "ab"]
        return fo.Detections(detections=both)

    dataset = make_dataset(3, boxes=boxes)
    patches = dataset.to_patches("boxes")
    written(patches, (2, 3), config=AuditConfig(text="boxes"))
    before, ids = documents(dataset), patches.values("id")
    fio.decide(dataset, ids[1], "relabel", text="cat")
    fio.decide(dataset, ids[2], "remove")
    assert fio.apply(dataset).counts["removed"] == 1
    assert dataset.values("boxes.detections.label") == [["a0", "cat"], ["a1", "b1"], ["a2", "b2"]]
    assert dataset.count_label_tags("boxes")[REMOVED] == 1
    clean = dataset.load_saved_view("audit_clean")
    assert clean.values("boxes.detections.label") == [["a0", "cat"], ["b1"], ["a2", "b2"]]
    fio.undo(dataset)
    assert documents(dataset) == before


def test_groups(make_groups: Callable[..., Any]) -> None:
    dataset = make_groups(4, without=((2, "clip"),))
    config = AuditConfig(image="slice:picture", audio="slice:sound.filepath", text="slice:picture.caption")
    written(dataset, (1,), config=config)
    before, ids = documents(dataset), dataset.values("id")
    fio.decide(dataset, ids[1], "relabel", text="new")
    fio.decide(dataset, ids[2:], "remove")
    fio.apply(dataset)
    assert dataset.values("caption") == [caption(0), "new", caption(2), caption(3)]
    assert dataset.select_group_slices(_allow_mixed=True).match_tags(REMOVED).count() == 5
    assert dataset.load_saved_view("audit_clean").values("id") == ids[:2]
    assert fio.count_removed(dataset) == fio.count_removed(dataset.limit(1)) == 5  # of all slices
    fio.delete_removed(dataset, 5)
    assert fio.count_removed(dataset) == 0
    assert dataset.values("id") == ids[:2]
    fio.undo(dataset)
    fio.undo(dataset)
    assert documents(dataset) == before


# deleting


def test_deleted_samples_come_back_with_everything(dataset: Any) -> None:
    ids = some_decided(dataset)
    dataset.select(ids[2]).tag_samples("mine")
    dataset.add_sample_field("odd", fo.DictField)
    dataset.set_values("odd", {ids[2]: {"nested": [1, 2.5, None, {"x": "\u202e"}]}}, key_field="id")
    fio.apply(dataset)
    before = documents(dataset, but=())
    for count in (1, 3):
        with pytest.raises(AuditError, match=f"2 samples .* not {count}"):
            fio.delete_removed(dataset, count)
    assert len(dataset) == 8
    files = dataset.values("filepath")
    assert fio.delete_removed(dataset, 2).counts == {"deleted": 2}
    assert dataset.values("id") == [*ids[:2], *ids[4:]]
    assert all(Path(path).exists() for path in files)
    with pytest.raises(AuditError, match=f"sample {ids[2]} was changed, or the sample deleted"):
        fio.undo(dataset, fio.list_changes(dataset)[0].id)
    fio.undo(dataset)
    assert documents(dataset, but=()) == before  # to the byte: not even the times differ
    assert sorted(dataset.values("id")) == sorted(ids)
    assert fio.delete_removed(dataset, 2).state == "applied"
    dataset._sample_collection.insert_one(dict(before[next(iter(before))], _id=ObjectId(ids[2])))
    with pytest.raises(AuditError, match=f"{ids[2]} is in .* again"):
        fio.undo(dataset)
    fio.undo(dataset, force=True)
    assert documents(dataset, but=()) == before


def test_frames_come_back_too(clips: list[str]) -> None:
    dataset = fo.Dataset()
    try:
        samples = [fo.Sample(filepath=path, caption=f"clip {row}") for row, path in enumerate(clips[:3])]
        for sample in samples:
            sample.frames[1] = fo.Frame(seen=fo.Classification(label="x"))
            sample.frames[2] = fo.Frame(seen=fo.Classification(label="y"))
        dataset.add_samples(samples)
        before, name = documents(dataset), samples[1].id
        fio.decide(dataset, name, "remove", run="")
        fio.apply(dataset)
        fio.delete_removed(dataset, 1)
        assert len(documents(dataset)) == 2 + 4
        fio.undo(dataset)
        fio.undo(dataset)
        assert documents(dataset) == before
        assert dataset[name].frames[2].seen.label == "y"
    finally:
        dataset.delete()
