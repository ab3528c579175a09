"""What a kill, another process or FiftyOne itself leaves of a run can be read, repeated or deleted, and ends whole."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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
leftovers = importlib.import_module("audit_plugin.fiftyone_io.leftovers")
reports = importlib.import_module("audit_plugin.fiftyone_io.results.reports")
results = importlib.import_module("audit_plugin.fiftyone_io.write.results")
tables = importlib.import_module("audit_plugin.fiftyone_io.results.tables")
thresholds = importlib.import_module("audit_plugin.fiftyone_io.results.thresholds")
odm = importlib.import_module("fiftyone.core.odm")

CONFIG = AuditConfig(text="caption")


def collections() -> Any:
    return odm.get_db_conn()


def write(dataset: Any, **flags: Any) -> None:
    fio.write_result(dataset, result_for(dataset, **flags), CONFIG)


def stop_at(step: int) -> Callable[[str, int, int], None]:
    def stop(_stage: str, done: int, _total: int) -> None:
        if done >= step:
            raise KeyboardInterrupt

    return stop


def lose_results(dataset: Any) -> None:
    """As a kill of FiftyOne in the middle of its `save_run_results` or `delete_run` does."""
    document = collections()["runs"].find_one({"_dataset_id": dataset._doc.id, "key": "audit"})
    collections()["fs.files"].delete_one({"_id": document["results"]})
    collections()["fs.chunks"].delete_many({"files_id": document["results"]})


def unnamed(dataset: Any) -> dict[str, int]:
    """Documents of FiftyOne that belong to the dataset but that it does not name."""
    document = collections()["datasets"].find_one({"_id": dataset._doc.id})
    own = {"_dataset_id": dataset._doc.id}
    runs = list(document.get("runs", {}).values()) + list(document.get("brain_methods", {}).values())
    return {
        "runs": collections()["runs"].count_documents({**own, "_id": {"$nin": runs}}),
        "views": collections()["views"].count_documents({**own, "_id": {"$nin": document["saved_views"]}}),
        "listed files": collections()["audit_plugin.files"].count_documents({"dataset": dataset._doc.id}),
        "doubles": len(document["saved_views"]) - len(set(document["saved_views"])),
    }


CLEAN = {"runs": 0, "views": 0, "listed files": 0, "doubles": 0}


def test_a_renamed_run_says_how_to_get_its_findings_back(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(6)
    write(dataset)
    before = fio.queue_of(dataset, "audit").rows
    dataset.rename_run("audit", "spring")
    for read in (fio.queue_of, fio.audit_summary, fio.flagged_view, fio.start_spot_check):
        with pytest.raises(AuditError, match=r"called 'audit' .* dataset.rename_run\('spring', 'audit'\)"):
            read(dataset, "spring")
    with pytest.raises(AuditError, match="its audits are spring"):
        fio.queue_of(dataset, "audit")
    dataset.rename_run("spring", "audit")
    assert fio.queue_of(dataset, "audit").rows == before
    dataset.rename_run("audit", "spring")
    fio.delete_audit(dataset, "spring")  # nothing of it is left, whatever it is called
    assert not [name for name in dataset.get_field_schema() if name.startswith("audit_")]
    assert set(dataset.count_sample_tags()) == {"own"}


@pytest.mark.parametrize("remedy", ["delete", "again", "fiftyone"])
def test_a_run_whose_results_are_lost_can_be_deleted_or_written_again(
    make_dataset: Callable[..., Any], remedy: str
) -> None:
    dataset = make_dataset(6)
    before = state(dataset)
    write(dataset)
    lose_results(dataset)
    for use in (
        lambda: thresholds.set_threshold(dataset, "audit", "misaligned", 3.0),
        lambda: reports.review_report(dataset, "audit"),
        lambda: fio.audit_summary(dataset, "audit"),
        lambda: fio.explained(dataset, "audit", dataset.first().id),
    ):
        with pytest.raises(AuditError, match="results of audit 'audit'.*missing; run it again or delete it"):
            use()
    if remedy == "again":
        write(dataset, misaligned=(4,), outlier=())
        assert dataset.match_tags("audit:misaligned").values("id") == [dataset.values("id")[4]]
        assert reports.review_report(dataset, "audit").summary["samples"] == 6
    if remedy == "fiftyone":
        dataset.delete_run("audit")
    else:
        fio.delete_audit(dataset, "audit")
    assert state(dataset) == before
    assert unnamed(dataset) == CLEAN


@pytest.mark.parametrize("step", [0, 6])
@pytest.mark.parametrize("by_fiftyone", [False, True])
def test_a_second_audit_that_was_interrupted_owns_what_the_first_one_wrote(
    make_dataset: Callable[..., Any], step: int, by_fiftyone: bool
) -> None:
    dataset = make_dataset(6)
    dataset.limit(1).tag_samples("audit:outlier")
    before = state(dataset)
    write(dataset, misaligned=(1, 3), outlier=(2,))
    thresholds.set_threshold(dataset, "audit", "misaligned", 3.5)
    write_second = result_for(dataset, misaligned=(0, 5), outlier=(4,))
    columns = {name: values for name, values in write_second.columns.items() if name != "culprit"}
    second = type(write_second)(write_second.ids, columns, write_second.summary, write_second.run_dir)
    with pytest.raises(KeyboardInterrupt):
        fio.write_result(dataset, second, CONFIG, stop_at(step))
    assert fio.list_audits(dataset) == ["audit"]
    assert fio.audits_newest_first(dataset) == []
    with pytest.raises(AuditError, match="was interrupted while it was written; run it again or delete it"):
        reports.review_report(dataset, "audit")
    if by_fiftyone:
        dataset.delete_run("audit")
    else:
        fio.write_result(dataset, second, CONFIG)
        assert fio.audits_newest_first(dataset) == ["audit"]
        ids = dataset.values("id")
        assert dataset.match_tags("audit:misaligned").values("id") == [ids[0], ids[5]]
        assert dataset.match_tags("audit:outlier").values("id") == [ids[0], ids[4]]
        assert not dataset.has_sample_field("audit_culprit")
        fio.delete_audit(dataset, "audit")
    assert state(dataset) == before
    assert unnamed(dataset) == CLEAN


def test_an_interrupted_addition_of_rows_is_taken_back_and_repeated(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(6)
    first = dataset.limit(4)
    fio.write_result(first, result_for(first), CONFIG)
    whole = state(dataset)
    later = dataset.skip(4)
    added = result_for(later, misaligned=(1,), outlier=())
    results.add_result(later, added, CONFIG)
    expected = state(dataset), fio.audit_summary(dataset, "audit")
    write_again = result_for(first)
    fio.write_result(first, write_again, CONFIG)
    assert {**state(dataset), "sidebar": None} == {**whole, "sidebar": None}
    with pytest.raises(KeyboardInterrupt):
        results.add_result(later, added, CONFIG, stop_at(2))
    assert fio.audits_newest_first(dataset) == ["audit"], "the first rows are whole"
    results.take_back_added(dataset, "audit")
    assert len(fio.runs.audited_items(dataset, "audit").without_results()) == 2
    with pytest.raises(KeyboardInterrupt):
        results.add_result(later, added, CONFIG, stop_at(2))
    results.add_result(later, added, CONFIG)
    assert (state(dataset), fio.audit_summary(dataset, "audit")) == expected


def test_values_that_fiftyones_schema_does_not_know_go_with_their_audit(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(4)
    before = state(dataset)
    write(dataset, misaligned=(1,), outlier=())
    # a kill of FiftyOne between the schema and the values
    names = {"sample_fields": {"name": {"$in": ["audit_misalignment", "audit_reason"]}}}
    collections()["datasets"].update_one({"_id": dataset._doc.id}, {"$pull": names})
    dataset.reload()
    assert not dataset.has_sample_field("audit_reason")
    fio.delete_audit(dataset, "audit")
    values = dataset._sample_collection.find_one({})
    assert not [name for name in values if name.startswith("audit_")]
    assert state(dataset) == before


def test_a_view_is_saved_once_whatever_was_left_of_it(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(4)
    write(dataset, misaligned=(1,), outlier=())
    document = collections()["views"].find_one({"_dataset_id": dataset._doc.id})
    for is_named in (True, False):  # a kill between FiftyOne's two writes; two processes at once
        double = {**document, "_id": type(document["_id"])()}
        collections()["views"].insert_one(double)
        if is_named:
            collections()["datasets"].update_one({"_id": dataset._doc.id}, {"$push": {"saved_views": double["_id"]}})
    dataset.reload()
    write(dataset, misaligned=(2,), outlier=())
    assert dataset.list_saved_views() == ["audit_flagged"]
    assert collections()["views"].count_documents({"_dataset_id": dataset._doc.id}) == 1
    assert dataset.load_saved_view("audit_flagged").values("id") == [dataset.values("id")[2]]
    assert unnamed(dataset) == CLEAN


def test_a_spot_check_goes_with_its_audit_and_decisions_stay(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(8)
    write(dataset)
    check = fio.start_spot_check(dataset, "audit", 4)
    fio.record_spot_check(dataset, "audit", check.queue.rows[0], "remove", reviewer="ann")
    write(dataset)
    with pytest.raises(AuditError, match="no spot check"):
        fio.spot_check(dataset, "audit")
    fio.start_spot_check(dataset, "audit", 4)
    fio.delete_audit(dataset, "audit")
    checks = collections()["audit_plugin.spot_checks"]
    assert checks.count_documents({"dataset": dataset._doc.id}) == 0
    assert len(fio.decisions(dataset)) == 1


def test_what_belongs_to_deleted_datasets_is_listed_and_swept(make_dataset: Callable[..., Any]) -> None:
    living, gone = make_dataset(4), make_dataset(4)
    leftovers.sweep()
    assert leftovers.leftovers() == []
    for dataset in (living, gone):
        write(dataset)
        fio.start_spot_check(dataset, "audit", 2)
        fio.decide(dataset, dataset.values("id")[:2], "remove", reviewer="ann")
        fio.apply(dataset)
    number = gone._doc.id
    gone.delete()
    listed = {entry.collection: entry for entry in leftovers.leftovers()}
    assert {"audit_plugin.change_sets", "audit_plugin.journal", "audit_plugin.spot_checks"} <= set(listed)
    assert all(entry.documents > 0 and entry.bytes > 0 for entry in listed.values())
    assert fio.list_changes(living), "nothing was swept yet"
    write(living)  # an audit is written: the database is swept
    assert leftovers.leftovers() == []
    for name in collections().list_collection_names(filter={"name": {"$regex": "^audit_plugin"}}):
        assert collections()[name].count_documents({"$or": [{"dataset": number}, {"_id": number}]}) == 0, name
    assert len(fio.decisions(living)) == 2
    assert len(fio.list_changes(living)) == 1
    fio.undo(living)


# new datasets


def rows(pictures: list[str], count: int = 4) -> Samples:
    return Samples(
        tuple(f"row-{row}" for row in range(count)),
        {"image": tuple(pictures[:count]), "text": tuple(f"text {row}" for row in range(count))},
    )


def test_a_dataset_has_its_name_only_when_it_is_whole(pictures: list[str]) -> None:
    def fail(dataset: Any) -> None:
        assert not fo.dataset_exists("audit-test-new")
        assert len(dataset) == 4
        raise KeyboardInterrupt

    before = fo.list_datasets()
    with pytest.raises(KeyboardInterrupt):
        fio.load_manifest_dataset("audit-test-new", rows(pictures), complete=fail)
    assert fo.list_datasets() == before
    dataset = fio.load_manifest_dataset("audit-test-new", rows(pictures))
    dataset.save_view("own", dataset.limit(1))
    with pytest.raises(AssertionError):  # the former one stays until the new one is whole
        fio.load_manifest_dataset("audit-test-new", rows(pictures, 2), complete=fail)
    assert fo.load_dataset("audit-test-new").list_saved_views() == ["own"]
    assert len(fio.load_manifest_dataset("audit-test-new", rows(pictures, 2))) == 2
    assert fo.load_dataset("audit-test-new").list_saved_views() == []
    assert fo.list_datasets() == sorted([*before, "audit-test-new"])
    fo.delete_dataset("audit-test-new")


def test_unfinished_datasets_of_dead_processes_are_removed_and_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    own = leftovers.unfinished_name()
    begin, machine, _, end = own.rpartition("-")[0].rpartition("-")[0].rpartition("-")[0], *own.split("-")[2:5]
    dead = f"{begin}-{machine}-{done.pid}-{end}"
    elsewhere = f"{begin}-0a0b0c0d-{done.pid}-{end}"
    users = "audit-unfinished-work"
    for name in (own, dead, elsewhere, users):
        fo.Dataset(name, persistent=True)
    leftovers.sweep()
    assert {name for name in (own, dead, elsewhere, users) if fo.dataset_exists(name)} == {own, elsewhere, users}
    monkeypatch.setattr(leftovers, "ABANDONED", timedelta(seconds=-1))
    leftovers.sweep()  # however long a clone takes: its process lives; whether one on another machine does is not seen
    assert {name for name in (own, elsewhere, users) if fo.dataset_exists(name)} == {own, users}
    for name in (own, users):
        fo.delete_dataset(name)


def test_a_name_that_is_taken_meanwhile_or_not_valid_is_said(pictures: list[str]) -> None:
    def take(_: Any) -> None:
        fo.Dataset("Audit Test Taken")

    with pytest.raises(AuditError, match="'Audit Test Taken' exists"):
        fio.load_manifest_dataset("audit-test-taken", rows(pictures), complete=take)
    assert [name for name in fo.list_datasets() if "unfinished" in name] == []
    fo.delete_dataset("Audit Test Taken")
    with pytest.raises(AuditError, match="'!' is not valid"):
        fio.load_manifest_dataset("!", rows(pictures))
    for name in ("broken \udc80", "null\0", "x" * 10_000):
        with pytest.raises(AuditError, match="dataset name '.*give"):
            fio.load_manifest_dataset(name, rows(pictures))


# what other processes wrote


def test_rows_that_another_process_wrote_are_seen_whatever_its_clock_says(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(6)
    write(dataset, misaligned=(1, 3), outlier=())
    assert tables.read_columns(dataset, "audit", ["is_misaligned"])["is_misaligned"].tolist()[1]
    summary = fio.audit_summary(dataset, "audit")
    ahead = datetime.now(UTC) + timedelta(hours=1)
    dataset._sample_collection.update_one({}, {"$set": {"last_modified_at": ahead}})
    tables.read_columns(dataset, "audit", ["is_misaligned"])
    thresholds.set_threshold(dataset, "audit", "misaligned", 4.5)
    flags = tables.read_columns(dataset, "audit", ["is_misaligned"])["is_misaligned"].tolist()
    assert flags == [False] * 5 + [True]
    # as another process does it: FiftyOne's objects of this one know nothing of it
    write_elsewhere(dataset)
    assert tables.read_columns(dataset, "audit", ["is_misaligned"])["is_misaligned"].tolist() == [True] + [False] * 5
    assert fio.audit_summary(dataset, "audit")["samples"] == summary["samples"] + 100


def write_elsewhere(dataset: Any) -> None:
    """Another audit under the same key, by another process whose clock is behind."""
    runs, datasets = collections()["runs"], collections()["datasets"]
    document = runs.find_one({"_dataset_id": dataset._doc.id, "key": "audit"})
    files = importlib.import_module("gridfs").GridFS(collections())
    values = json.loads(files.get(document["results"]).read())
    values["summary"]["samples"] += 100
    new = {**document, "_id": type(document["_id"])(), "results": files.put(json.dumps(values).encode())}
    runs.insert_one(new)
    samples = dataset._sample_collection
    first = samples.find_one({}, sort=[("_id", 1)])["_id"]
    samples.update_many({}, {"$set": {"audit_is_misaligned": False}})
    samples.update_one({"_id": first}, {"$set": {"audit_is_misaligned": True}})
    datasets.update_one({"_id": dataset._doc.id}, {"$set": {"runs.audit": new["_id"]}})
    runs.delete_one({"_id": document["_id"]})


def test_a_removal_study_is_that_of_the_dataset_and_damaged_files_are_passed_over(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path))
    dataset = make_dataset(2)
    assert fio.removal_report(dataset) is None
    folder = tmp_path / "removal"
    (folder / str(dataset._doc.id)).mkdir(parents=True)
    (folder / "damaged.json").write_bytes(b"{\xff")
    (folder / "list.json").write_text("[1]")
    (folder / "former.json").write_text(json.dumps({"dataset": dataset.name, "rows": 1}))
    assert fio.removal_report(dataset) == {"dataset": dataset.name, "rows": 1}
    own = {"dataset": "renamed since", "dataset_id": str(dataset._doc.id), "rows": 2}
    (folder / str(dataset._doc.id) / "own.json").write_text(json.dumps(own))
    (folder / str(dataset._doc.id) / "torn.json").write_text('{"dataset')
    assert fio.removal_report(dataset) == own


def test_what_has_not_changed_is_not_loaded_again(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(4)
    write(dataset)
    thresholds.set_threshold(dataset, "audit", "misaligned", 2.5)
    fio.audit_summary(dataset, "audit")
    loads: list[str] = []
    reload = type(dataset).reload
    monkeypatch.setattr(type(dataset), "reload", lambda self: (loads.append("reload"), reload(self)))
    monkeypatch.setattr(tables, "audit_results", lambda *_: loads.append("results"))
    for _ in range(2):
        fio.audit_summary(dataset, "audit")
        fio.explained(dataset, "audit", "none")
        tables.read_columns(dataset, "audit", ["misalignment"])
        fio.audits_newest_first(dataset)
    assert loads == []


def test_an_index_is_replaced_whole_and_nothing_of_the_former_one_stays(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path))
    similarity = importlib.import_module("audit_plugin.fiftyone_io.similarity")
    dataset = make_dataset(4)
    write(dataset)
    names = np.array(dataset.values("id"))
    record = {
        "run": "audit",
        "modality": "image",
        "encoder": "offline",
        "text_key": "",
        "blocks": [["image", 4, False]],
    }
    vectors = similarity.Vectors(np.eye(4, dtype=np.float32), names)
    monkeypatch.setattr(similarity, "_audit_vectors", lambda *_: (vectors, record))
    similarity.build_index(dataset, "audit", "image")
    put_run = similarity.put_run
    monkeypatch.setattr(similarity, "put_run", stop_instead)
    with pytest.raises(KeyboardInterrupt):
        similarity.build_index(dataset, "audit", "image")
    assert dataset.load_brain_results("audit_image").total_index_size == 4
    monkeypatch.setattr(similarity, "put_run", put_run)
    similarity.build_index(dataset, "audit", "image")
    assert dataset.list_brain_runs() == ["audit_image"]
    assert dataset.sort_by_similarity(names[0], k=1, brain_key="audit_image").values("id") == [names[0]]
    (named,) = [Path(dataset.get_brain_info("audit_image").config.vectors_path)]
    stray = [path for path in named.parent.glob("*.npz") if path != named]
    assert len(stray) == 1, "the file of the interrupted one"
    os.utime(stray[0], (1, 1))
    similarity.build_index(dataset, "audit", "image")
    assert not stray[0].exists()
    assert len(list(named.parent.glob("*.npz"))) == 1
    assert unnamed(dataset) == CLEAN


def stop_instead(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_threshold_that_was_interrupted_is_completed_by_the_next_one(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(6)
    before = state(dataset)
    columns = {**result_for(dataset).columns, "outlier": np.arange(6.0)[::-1].copy()}
    fio.write_result(dataset, type(result_for(dataset))(tuple(dataset.values("id")), columns, {"samples": 6}), CONFIG)
    with monkeypatch.context() as patch:
        patch.setattr(type(fio.runs.audited_items(dataset, "audit")), "tag", stop_instead)
        with pytest.raises(KeyboardInterrupt):
            thresholds.set_threshold(dataset, "audit", "misaligned", 3.5)
    thresholds.set_threshold(dataset, "audit", "outlier", 3.5)  # the first row failed, but has this score
    ids = dataset.values("id")
    assert dataset.match_tags("audit:misaligned").values("id") == ids[4:]
    assert dataset.match_tags("audit:outlier").values("id") == ids[:2]
    assert dataset.values("audit_is_misaligned") == [False] * 4 + [True] * 2
    fio.delete_audit(dataset, "audit")
    assert state(dataset) == before


def test_a_run_of_a_class_that_is_gone_is_in_nobodys_way(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(4)
    write(dataset)
    dataset.register_run("other", dataset.init_run(method="other"))
    names = {"_dataset_id": dataset._doc.id, "key": "other"}
    collections()["runs"].update_one(names, {"$set": {"config.cls": "gone.Gone", "config.type": "brain"}})
    assert fio.list_audits(dataset) == ["audit"]
    assert fio.audits_newest_first(dataset) == ["audit"]
    with pytest.raises(AuditError, match="no audit 'other'; its audits are audit"):
        fio.audit_summary(dataset, "other")
    fio.delete_audit(dataset, "audit")


def test_while_another_process_changes_a_dataset_everything_is_refused_and_nothing_changes(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit_plugin.fiftyone_io.write.results.RESULT_WAIT_SECONDS", 0.5)
    dataset = make_dataset(4)
    write(dataset)
    before = state(dataset)
    lease = {"owner": "another", "doing": "applying decisions", "pid": 1, "host": "elsewhere", "machine": "elsewhere"}
    times = {"since": datetime.now(UTC), "expires": datetime.now(UTC) + timedelta(minutes=5)}
    collections()["audit_plugin.leases"].update_one({"_id": dataset._doc.id}, {"$set": {**lease, **times}})
    for change in (
        lambda: write(dataset, misaligned=(2,)),
        lambda: thresholds.set_threshold(dataset, "audit", "misaligned", 2.5),
        lambda: fio.delete_audit(dataset, "audit"),
    ):
        with pytest.raises(AuditError, match=r"is being changed \(applying decisions, by process 1 on elsewhere"):
            change()
    assert state(dataset) == before
    assert fio.audit_summary(dataset, "audit")["samples"] == 4, "reading needs no lease"
    collections()["audit_plugin.leases"].update_one({"_id": dataset._doc.id}, {"$set": {"expires": times["since"]}})
    fio.delete_audit(dataset, "audit")
