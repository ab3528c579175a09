"""What former versions stored in FiftyOne's database still loads, by FiftyOne alone and through fiftyone_io."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.fiftyone
fo = pytest.importorskip("fiftyone")
bson = pytest.importorskip("bson")
fio = importlib.import_module("audit_plugin.fiftyone_io")
similarity = importlib.import_module("audit_plugin.fiftyone_io.similarity")

DATA = Path(__file__).parent / "data"
NAME = "stored_by_0eba912"
FOLDER = f"/tmp/{NAME}"  # in the recorded paths
EXPECTED = json.loads((DATA / f"{NAME}.json").read_text(encoding="utf-8"))
DATASETS = ("stored", "stored_people")

# The library is imported only by the dotted paths that the database names.
BY_FIFTYONE = """
import json, sys
import fiftyone as fo
assert not [name for name in sys.modules if name.startswith("audit_plugin")]
answer = {}
for name in ("stored", "stored_people"):
    dataset = fo.load_dataset(name)
    runs = {}
    for key in dataset.list_runs():
        config, results = dataset.get_run_info(key).config, dataset.load_run_results(key)
        runs[key] = {
            "classes": [f"{type(x).__module__}.{type(x).__qualname__}" for x in (config, config.build(), results)],
            "status": config.status,
            "fields": config.fields,
            "tagged": results.tagged,
            "samples": dataset.load_run_view(key).count(),
        }
    indexes = {}
    for key in dataset.list_brain_runs():
        index, first = dataset.load_brain_results(key), dataset.first().id
        config = dataset.get_brain_info(key).config
        indexes[key] = {
            "classes": [f"{type(x).__module__}.{type(x).__qualname__}" for x in (config, config.build(), index)],
            "size": index.total_index_size,
            "supports prompts": index.supports_prompts,
            "nearest": dataset.sort_by_similarity(first, k=6, brain_key=key).values("id"),
            "least": dataset.sort_by_similarity(first, k=3, reverse=True, brain_key=key).values("id"),
        }
    answer[name] = {"runs": runs, "indexes": indexes}
print("ANSWER" + json.dumps(answer))
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The dump in the database of the test session, with recorded paths in a folder of this test."""
    from fiftyone.core.odm import get_db_conn

    folder, database = tmp_path_factory.mktemp("stored"), get_db_conn()
    vectors = folder / "cache" / "similarity"
    added: list[tuple[str, Any]] = []
    for header, documents in read_dump(DATA / f"{NAME}.bson.gz", str(folder)):
        for document in documents:
            database[header["collection"]].insert_one(document)
            added.append((header["collection"], document["_id"]))
            if path := (document.get("config") or {}).get("vectors_path"):
                Path(path).parent.mkdir(parents=True)
                shutil.copy(DATA / f"{NAME}_vectors.npz", path)
    assert len(list(vectors.rglob("*.npz"))) == 1
    yield
    for name in DATASETS:
        if fo.dataset_exists(name):
            fo.delete_dataset(name)
    for collection, number in added:
        database[collection].delete_one({"_id": number})


def read_dump(path: Path, folder: str) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """(header, documents) of each collection; each document begins with its own length."""
    data, start = gzip.decompress(path.read_bytes()), 0

    def next_document() -> dict[str, Any]:
        nonlocal start
        size = struct.unpack_from("<i", data, start)[0]
        start += size
        return bson.decode(data[start - size : start])

    while start < len(data):
        header = next_document()
        yield header, [moved(next_document(), folder) for _ in range(header["count"])]


def moved(value: Any, folder: str) -> Any:
    """A document whose paths lie in another folder."""
    if isinstance(value, dict):
        return {name: moved(inner, folder) for name, inner in value.items()}
    if isinstance(value, list):
        return [moved(inner, folder) for inner in value]
    return value.replace(FOLDER, folder) if isinstance(value, str) else value


def known_then(settings: Any, former: dict[str, Any]) -> dict[str, Any]:
    """Settings without those that are new and have their defaults."""
    defaults = type(settings)().to_dict()
    return {name: value for name, value in settings.to_dict().items() if name in former or value != defaults[name]}


def plain(value: Any) -> Any:
    """As JSON has it: ids and times as strings, numbers that are not finite as "nan"."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else str(value)
    return value if value is None or isinstance(value, str | int) else str(value.isoformat())


def check(value: Any, expected: Any, path: str = "") -> None:
    """Equal, floats to 1e-4."""
    if isinstance(expected, dict):
        assert sorted(value) == sorted(expected), path
        for name, inner in expected.items():
            check(value[name], inner, f"{path}/{name}")
    elif isinstance(expected, list):
        assert len(value) == len(expected), path
        for number, inner in enumerate(expected):
            check(value[number], inner, f"{path}[{number}]")
    elif isinstance(expected, float):
        assert value == pytest.approx(expected, abs=1e-4), path
    else:
        assert value == expected, path


@pytest.mark.usefixtures("stored")
def test_fiftyone_alone_loads_runs_results_and_indexes() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", BY_FIFTYONE], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout.split("ANSWER")[1]), EXPECTED["fiftyone"])


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("name", DATASETS)
def test_the_library_reads_audits_decisions_and_changes(name: str) -> None:
    dataset = fio.load_view(name)
    (run,) = fio.list_audits(dataset)
    queue, plan = fio.queue_of(dataset, run), fio.plan_of(dataset)
    settings = fio.settings_of(fio.audit_info(dataset, run))
    fields = ("sample", "label", "kind", "before", "after", "field")
    answer = {
        "audits": [run],
        "settings_of": known_then(settings, EXPECTED["library"][name]["settings_of"]),
        "flagged_view": fio.flagged_view(dataset, run).values("id"),
        "caption_field": fio.caption_field(dataset),
        "decisions": [asdict(decision) for decision in fio.decisions(dataset)],
        "disagreements": [[asdict(decision) for decision in latest] for latest in fio.disagreements(dataset)],
        "changes": [asdict(change) for change in fio.list_changes(dataset)],
        "plan": {
            "changes": [{field: getattr(change, field) for field in fields} for change in plan.changes],
            "stale": len(plan.stale),
            "lost": len(plan.lost),
        },
        "queue": {
            "rows": queue.rows,
            "first left": queue.left[:1],
            "next": queue.next(),
            "decided": sorted([*row, decision.kind, decision.reviewer] for row, decision in queue.decided.items()),
            "progress": asdict(queue.progress),
        },
        "explained": [len(fio.explained(dataset, run, row)) for row, _ in queue.rows],
        "cross-modal runs": fio.list_cross_modal_runs(dataset),
        "clean_view": fio.clean_view(dataset).count(),
    }
    check(plain(answer), EXPECTED["library"][name])
    summary = fio.audit_summary(dataset, run)
    assert set(summary["probe_recall"]) == {"random", "neighborhood"}
    assert not {"recall", "neighbours", "false_alarms"} & {*summary, *summary["config"]}


@pytest.mark.usefixtures("stored")
def test_the_library_reads_spot_checks_indexes_and_cross_modal_recall() -> None:
    dataset, people = fio.load_view("stored"), fio.load_view("stored_people")
    spot = fio.spot_check(dataset, "audit")
    estimate = asdict(spot.estimate())
    assert estimate.pop("judged") == sum(spot.plan.sizes)  # which former versions did not say
    assert estimate.pop("flagged") == spot.plan.sizes[0]  # a former version did not tell
    summary, identities = fio.cross_modal_results(people, "transfer")
    answer = {
        "spot check": {
            "rows": spot.queue.rows,
            "verdicts": spot.verdicts,
            "sizes": spot.plan.sizes,
            "stratum": spot.plan.stratum,
            "estimate": estimate,
        },
        "audited_modalities": similarity.audited_modalities(dataset, "audit"),
        "cross-modal": {
            "summary": {name: value for name, value in summary.items() if name not in ("versions", "seconds")},
            "identities": identities,
            "view": fio.identities_view(people, "transfer", [identities[0]["identity"]]).values("id"),
        },
    }
    check(plain(answer), {name: EXPECTED["library"][name] for name in answer})


@pytest.mark.usefixtures("stored")
def test_stored_changes_are_undone_and_stored_runs_deleted() -> None:  # last: it changes the datasets
    dataset, people = fio.load_view("stored"), fio.load_view("stored_people")
    undone = [asdict(fio.undo(changed)) for changed in (dataset, people, people)]
    dataset.reload()
    people.reload()
    answer = {
        "undone": undone,
        "captions": dataset.values("caption"),
        "tags": dict(sorted(dataset.count_sample_tags().items())),
        "views": dataset.list_saved_views(),
        "people": len(people),
        "people views": people.list_saved_views(),
    }
    applied = asdict(fio.apply(dataset))
    answer["applied again"] = {name: value for name, value in applied.items() if name not in ("id", "time")}
    check(plain(answer), EXPECTED["library"]["after undo"])
    vectors = Path(dataset.get_brain_info("audit_text").config.vectors_path)
    fio.delete_audit(dataset, "audit")
    people.delete_run("transfer")
    dataset.delete_brain_runs()
    dataset.reload()
    people.reload()
    answer = {
        "stored": sorted(dataset.get_field_schema()),
        "stored tags": dict(sorted(dataset.count_sample_tags().items())),
        "stored_people": sorted(people.get_field_schema()),
        "runs": [dataset.list_runs(), people.list_runs()],
        "brain runs": dataset.list_brain_runs(),
        "decisions": [len(fio.decisions(dataset)), len(fio.decisions(people))],
    }
    check(plain(answer), EXPECTED["library"]["after deletion"])
    assert not vectors.exists()
