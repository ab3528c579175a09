"""Who deletes an audit, a measurement or a dataset, by whatever way, leaves nothing of it in the database."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from tests.cross_modal_fixtures import made_up
from tests.fiftyone_fixtures import result_for, state
from tests.operator_requests import execute, filled_in, form_of, notices_of
from tests.test_lease import holder
from tests.test_run_records import CLEAN, collections, unnamed

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
fob = pytest.importorskip("fiftyone.brain")
fio = importlib.import_module("audit_plugin.fiftyone_io")
cross_modal = importlib.import_module("audit_plugin.fiftyone_io.cross_modal")
lease = importlib.import_module("audit_plugin.fiftyone_io.lease")
leftovers = importlib.import_module("audit_plugin.fiftyone_io.leftovers")
runs = importlib.import_module("audit_plugin.fiftyone_io.runs")
similarity = importlib.import_module("audit_plugin.fiftyone_io.similarity")

CONFIG = AuditConfig(text="caption")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and no long waits for a lease."""
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runs, "CLEANUP_WAIT", 0.2)
    monkeypatch.setattr(similarity, "CLEANUP_WAIT", 0.2)


def audit(dataset: Any, run: str = "audit") -> None:
    fio.write_result(dataset, result_for(dataset), AuditConfig(text="caption", run=run))


def measurement(dataset: Any, run: str = "audit") -> None:
    settings = AuditConfig(text="caption", label="caption", run=run)
    rows = fio.read_samples(dataset, settings)
    measured = made_up(dataset.values("id"), [f"person {row % 2}" for row in range(len(dataset))])
    cross_modal.write_cross_modal(dataset, rows, measured, settings)


def index(dataset: Any, monkeypatch: pytest.MonkeyPatch, run: str = "audit", name: str = "") -> None:
    """An index of an audit, with vectors at hand: those of real media need an encoder."""
    names = np.array(dataset.values("id"))
    vectors = similarity.Vectors(np.eye(len(names), 8, dtype=np.float32), names)
    record = {"run": run, "modality": "image", "encoder": "offline", "text_key": "", "blocks": [["image", 8, False]]}
    monkeypatch.setattr(similarity, "_audit_vectors", lambda *_: (vectors, record))
    similarity.build_index(dataset, run, "image", name or None)


def documents(dataset: Any) -> list[dict[str, Any]]:
    return list(dataset._sample_collection.find({}))


@pytest.fixture
def held() -> Iterator[Callable[[Any], Callable[[], None]]]:
    """Lets another process have the lease of a dataset; what comes back ends it."""
    processes = []

    def hold(dataset: Any) -> Callable[[], None]:
        process = holder(dataset.name)
        processes.append(process)

        def end() -> None:
            process.kill()
            process.wait()

        return end

    yield hold
    for process in processes:
        process.kill()
        process.wait()


# audits and measurements


@pytest.mark.parametrize(("write", "then"), [(audit, "panel"), (audit, "other"), (measurement, "again")])
def test_fiftyone_s_deletion_beside_another_process_is_finished_later(
    make_dataset: Callable[..., Any],
    held: Callable[[Any], Callable[[], None]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[..., None],
    then: str,
) -> None:
    dataset = make_dataset(6)
    dataset.limit(2).tag_samples("audit:outlier")
    before = state(dataset)
    write(dataset)
    index(dataset, monkeypatch) if write is audit else None
    written, views = documents(dataset), dataset.list_saved_views()
    end = held(dataset)
    dataset.delete_run("audit")  # which goes on whatever our cleanup raises
    assert "is being changed (writing audit '$NOW', by process" in caplog.text
    assert "what run 'audit' wrote is removed when the panel is opened next" in caplog.text
    assert "audit" not in dataset.list_runs()
    assert (documents(dataset), dataset.list_saved_views()) == (written, views), "written beside the other process"
    fio.finish_deletions(dataset)
    assert documents(dataset) == written
    end()
    if then == "panel":
        fio.finish_deletions(dataset)
    elif then == "again":
        write(dataset)
        fio.delete_audit(dataset, "audit") if write is audit else fio.delete_cross_modal_run(dataset, "audit")
    else:
        audit(dataset, "other")
        fio.delete_audit(dataset, "other")
    assert state(dataset) == before
    assert dataset.list_brain_runs() == []
    assert unnamed(dataset) == CLEAN


def test_an_audit_that_fiftyone_deleted_beside_another_process_does_not_stand_in_the_way(
    make_dataset: Callable[..., Any], held: Callable[[Any], Callable[[], None]]
) -> None:
    dataset = make_dataset(24)
    audit(dataset)
    end = held(dataset)
    dataset.delete_run("audit")
    end()
    quick = AuditConfig(text="caption", encoder="offline", trials=4, epochs=2, device="cpu")
    fio.audit_view(dataset, quick)  # refuses fields of the user's own, which these are not
    assert fio.list_audits(dataset) == ["audit"]


def test_an_index_that_fiftyone_deletes_beside_another_process_leaves_a_file_that_goes_later(
    make_dataset: Callable[..., Any],
    held: Callable[[Any], Callable[[], None]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = make_dataset(4)
    audit(dataset)
    index(dataset, monkeypatch)
    file = Path(dataset.get_brain_info("audit_image").config.vectors_path)
    end = held(dataset)
    with pytest.raises(AuditError, match="is being changed"):
        dataset.load_brain_results("audit_image").cleanup()
    dataset.delete_brain_run("audit_image")
    assert "is being changed (writing audit '$NOW', by process" in caplog.text
    assert (dataset.list_brain_runs(), file.exists()) == ([], True)
    end()
    os.utime(file, (1, 1))
    index(dataset, monkeypatch)
    assert not file.exists()
    assert unnamed(dataset) == CLEAN


def test_an_index_that_another_process_changed_is_not_overwritten(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(4)
    audit(dataset)
    index(dataset, monkeypatch)
    ids, vector = dataset.values("id"), np.ones((1, 8), dtype=np.float32)
    first, second = dataset.load_brain_results("audit_image"), None
    dataset._brain_cache.clear()
    second = dataset.load_brain_results("audit_image")
    assert first is not second
    assert first.total_index_size == second.total_index_size == 4  # both have read the vectors
    first.remove_from_index(sample_ids=ids[:1])
    monkeypatch.setattr(type(second), "_follow", lambda _: None)  # as if the file had gone only after it was looked for
    with pytest.raises(AuditError, match="run 'audit_image' .* was changed by another process since it was read"):
        second._keep(second._stored_vectors.rows(np.arange(2)), reload=False)
    monkeypatch.undo()
    second.reload()
    second.add_to_index(vector, ids[:1])
    dataset._brain_cache.clear()
    assert dataset.load_brain_results("audit_image").total_index_size == 4


def test_an_audit_goes_with_its_indexes_and_other_brain_runs_stay(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(4)
    audit(dataset)
    audit(dataset, "other")
    for run, name in (("audit", ""), ("audit", "named"), ("other", "")):
        index(dataset, monkeypatch, run, name)
    vectors = np.eye(4, 8, dtype=np.float32)
    fob.compute_similarity(dataset, embeddings=vectors, backend="audit_faiss", brain_key="own")
    fob.compute_similarity(dataset, embeddings=vectors, backend="sklearn", brain_key="sklearn")
    files = {name: Path(dataset.get_brain_info(name).config.vectors_path) for name in ("audit_image", "named")}
    text = form_of("delete_audit", dataset, run="audit")["what"]["view"]["label"]
    assert "2 similarity indexes (audit\\_image, named), tags" in text  # escaped: labels are Markdown
    assert "similarity" not in form_of("delete_audit", dataset)["what"]["view"]["label"]
    shown = filled_in("delete_audit", dataset, {"run": "audit"})
    index(dataset, monkeypatch, "audit", "later")  # which the form does not show
    (notice,) = notices_of(execute("delete_audit", shown)[1])
    assert "The form is out of date" in notice
    assert fio.list_audits(dataset) == ["audit", "other"]
    execute("delete_audit", filled_in("delete_audit", dataset, {"run": "audit"}))
    dataset.reload()
    assert dataset.list_brain_runs() == ["other_image", "own", "sklearn"]
    assert not any(path.exists() for path in files.values())
    assert fio.list_audits(dataset) == ["other"]
    assert unnamed(dataset) == CLEAN
    assert dataset.load_brain_results("other_image").total_index_size == 4


# datasets


def of_deleted(number: Any) -> int:
    """How many documents of ours belong to a dataset."""
    names = collections().list_collection_names(filter={"name": {"$regex": r"^audit_plugin|^runs$|^views$"}})
    query = {"$or": [{name: number} for name in ("dataset", "_dataset_id", "_id")]}
    return sum(collections()[name].count_documents(query) for name in names)


def used(make_dataset: Callable[..., Any]) -> Any:
    """A dataset with something of each kind."""
    dataset = make_dataset(6)
    audit(dataset)
    fio.start_spot_check(dataset, "audit", 2)
    fio.decide(dataset, dataset.values("id")[:2], "remove", reviewer="ann")
    fio.apply(dataset)
    return dataset


def open_panel(dataset: Any) -> None:
    from tests.panel_fixtures import App

    App(dataset).send("on_load")


def give_command(_: Any) -> None:
    from audit_plugin import cli

    done = CliRunner().invoke(cli.app, ["review", "list", "no such dataset"])
    assert "no such dataset" in done.output + done.stderr


@pytest.mark.parametrize("use", [open_panel, give_command])
def test_what_a_deleted_dataset_left_goes_when_the_tool_is_used_next(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, use: Callable[[Any], None]
) -> None:
    living, gone = used(make_dataset), used(make_dataset)
    leftovers.sweep()
    number = gone._doc.id
    gone.delete()
    assert of_deleted(number) > 3
    use(living)
    assert of_deleted(number) == 0
    assert leftovers.leftovers() == []
    assert len(fio.decisions(living)) == 2
    fio.undo(living)
    monkeypatch.setattr(leftovers, "sweep", lambda: pytest.fail("nothing was deleted since"))
    use(living)


def test_listing_the_cache_deletes_nothing(make_dataset: Callable[..., Any]) -> None:
    from audit_plugin import cli

    dataset = used(make_dataset)
    number = dataset._doc.id
    dataset.delete()
    for command in (["cache", "--database"], ["cache", "prune", "--database"]):
        done = CliRunner().invoke(cli.app, command)
        assert "audit_plugin.journal" in done.output
        assert of_deleted(number) > 3
    leftovers.sweep()


def test_a_dataset_that_was_deleted_while_a_process_changes_it_is_swept_afterward(
    make_dataset: Callable[..., Any],
) -> None:
    dataset = used(make_dataset)
    number = dataset._doc.id
    with lease.leased(dataset, "changing it") as own:
        dataset.delete()
        leftovers.sweep_deleted()
        leftovers.sweep()
        assert of_deleted(number) > 3, "what the process may still need"
        collections()["audit_plugin.leases"].delete_one({"_id": number})
        with pytest.raises(AuditError, match="was deleted while changing it"):
            own.check()
    leftovers.sweep()
    other = used(make_dataset)
    held_by_dead = {"owner": "dead", "expires": datetime.now(UTC) - timedelta(seconds=1)}
    collections()["audit_plugin.leases"].update_one({"_id": other._doc.id}, {"$set": held_by_dead})
    number = other._doc.id
    other.delete()
    leftovers.sweep_deleted()
    assert of_deleted(number) == 0


def test_a_sweep_that_was_killed_is_finished_by_the_next(
    make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = used(make_dataset)
    number = dataset._doc.id
    dataset.delete()
    queries = leftovers._queries
    with monkeypatch.context() as patch:

        def first_only() -> Iterator[Any]:
            yield next(queries())
            raise KeyboardInterrupt

        patch.setattr(leftovers, "_leftovers", lambda _: ["something"])
        patch.setattr(leftovers, "_queries", first_only)
        with pytest.raises(KeyboardInterrupt):
            leftovers.sweep()
    assert of_deleted(number) > 1
    leftovers.sweep_deleted()
    assert of_deleted(number) == 0
