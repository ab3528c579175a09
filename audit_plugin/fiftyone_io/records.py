"""Run records, their results and saved views in FiftyOne's database, changed so that a kill at any write harms none.

FiftyOne itself deletes the results of a run before it writes new ones. Here what is new is written whole, then a single
update makes it valid, and only then what it replaced goes. Results files that may become useless are listed before
(`FILES`); `collect_files` deletes those that no run names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import fiftyone as fo
import fiftyone.constants as foc
import fiftyone.core.dataset as fod
import fiftyone.core.odm as foo
import fiftyone.core.runs as fors
import fiftyone.core.utils as fou
import gridfs
from bson import ObjectId, json_util
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError

from .database import collection
from .leftovers import FILES, OUR_RUNS

RUNS, BRAIN_RUNS = "runs", "brain_methods"  # of a dataset's document: key -> id of the run's document
Document = Mapping[str, Any]


def dataset_document(root: fo.Dataset, *names: str) -> Document:
    """Parts of the dataset's document as they are now.

    Raises:
        AuditError: the dataset was deleted.
    """
    document = foo.get_db_conn()["datasets"].find_one({"_id": root._doc.id}, dict.fromkeys(names, 1))
    if document is None:
        raise AuditError(f"dataset {root.name!r} was deleted; choose another dataset")
    return dict(document)


def run_documents(root: fo.Dataset, kind: str = RUNS) -> dict[str, Document]:
    """Key -> document of each run, as the database has it now, which another process may have changed."""
    references = dataset_document(root, kind).get(kind) or {}
    documents = foo.get_db_conn()["runs"].find({"_id": {"$in": list(references.values())}})
    by_id = {document["_id"]: document for document in documents}
    return {key: by_id[number] for key, number in references.items() if number in by_id}


def run_document(root: fo.Dataset, key: str, kind: str = RUNS) -> Document | None:
    """The document of one run as the database has it now, None where there is none."""
    number = (dataset_document(root, kind).get(kind) or {}).get(key)
    return None if number is None else foo.get_db_conn()["runs"].find_one({"_id": number})


def config_of(document: Document) -> Any:
    """The settings of a run, in the class that it names."""
    return fors.RunConfig.from_dict(deepcopy(dict(document["config"])))


def is_of(document: Document, kind: type) -> bool:
    """Whether the settings of a run are of a class of this tool; those of others may not even load."""
    ours = str(document["config"].get("cls", "")).startswith("audit_plugin.")
    return ours and isinstance(config_of(document), kind)


def results_of(number: Any) -> dict[str, Any] | None:
    """What a results file holds; None where there is none."""
    if not number:
        return None
    try:
        return dict(json_util.loads(_files().get(ObjectId(str(number))).read().decode()))
    except gridfs.errors.NoFile:
        return None


def write_results(root: fo.Dataset, results: Any) -> ObjectId:
    """Write results that no run names yet."""
    number = ObjectId()
    list_files(root, [number])
    data = json_util.dumps(results.serialize()).encode()
    _files().put(data, _id=number, content_type="application/json")
    return number


def list_files(root: fo.Dataset, numbers: Sequence[Any]) -> None:
    """Note results files that `collect_files` shall delete once no run names them."""
    for number in filter(None, numbers):
        document = {"_id": ObjectId(str(number)), "dataset": root._doc.id}
        _listed().replace_one({"_id": document["_id"]}, document, upsert=True)


def collect_files(dataset: ObjectId) -> None:
    """Delete the results files of a dataset that were listed and that no run names. Only under the dataset's lease."""
    runs = foo.get_db_conn()["runs"]
    for document in list(_listed().find({"dataset": dataset})):
        number = document["_id"]
        if runs.find_one({"config.former.results": str(number)}, {"_id": 1}):
            continue  # still needed, and useless afterward
        if not runs.find_one({"results": number}, {"_id": 1}):
            _files().delete(number)
        _listed().delete_one({"_id": number})


def put_run(
    root: fo.Dataset,
    key: str,
    record: Any,
    results: Any,
    view: SampleCollection | None = None,
    replaced: Document | None = None,
    kind: str = RUNS,
) -> ObjectId:
    """Write a run with its results, then let the dataset name it in the place of the one that it replaces, if any.

    The results file of the one replaced stays: `record.former` may name it. It is deleted once no run names it.

    Returns:
        The id of the new run's document.

    Raises:
        AuditError: the key names another run by now.
    """
    runs, datasets = foo.get_db_conn()["runs"], foo.get_db_conn()["datasets"]
    file = write_results(root, results)
    if replaced:
        list_files(root, [replaced.get("results")])
    document = {
        "_id": ObjectId(),
        "_dataset_id": root._doc.id,
        "key": key,
        "version": foc.VERSION,
        "timestamp": datetime.now(UTC),
        "config": deepcopy(dict(record.serialize())),
        "view_stages": _stages(view) if isinstance(view, fo.DatasetView) else None,
        "results": file,
        "results_meta": dict(results.get_meta() or {}),
    }
    runs.insert_one(document)
    path = f"{kind}.{key}"
    before: Any = replaced["_id"] if replaced else _dangling(root, key, kind)
    expected = {path: before} if before else {path: {"$exists": False}}
    named = {path: document["_id"], "last_modified_at": datetime.now(UTC)}
    if not datasets.update_one({"_id": root._doc.id, **expected}, {"$set": named}).matched_count:
        runs.delete_one({"_id": document["_id"]})
        raise AuditError(f"run {key!r} of dataset {root.name!r} was changed by another process; repeat the command")
    if replaced:
        runs.delete_one({"_id": replaced["_id"]})
    forget_caches(root, key)
    return ObjectId(str(document["_id"]))


def update_run(root: fo.Dataset, key: str, record: Any, results: Any = None, kind: str = RUNS) -> None:
    """Give a run other settings, and other results where they are named, in one update; the old file goes then.

    Raises:
        AuditError: the run was deleted by another process.
    """
    document = run_document(root, key, kind)
    if document is None:
        raise AuditError(f"run {key!r} of dataset {root.name!r} was deleted by another process")
    change: dict[str, Any] = {"config": deepcopy(dict(record.serialize()))}
    if results is not None:
        list_files(root, [document.get("results")])
        change |= {"results": write_results(root, results), "results_meta": dict(results.get_meta() or {})}
    foo.get_db_conn()["runs"].update_one({"_id": document["_id"]}, {"$set": change})
    collect_files(root._doc.id)
    forget_caches(root, key)


def forget_run(root: fo.Dataset, key: str, kind: str = RUNS) -> None:
    """Remove a run with its results; what it wrote elsewhere must have gone before."""
    document, datasets = run_document(root, key, kind), foo.get_db_conn()["datasets"]
    if document is not None:
        former = document["config"].get("former") or ()
        list_files(root, [document.get("results"), *(part.get("results") for part in former)])
    datasets.update_one(
        {"_id": root._doc.id}, {"$unset": {f"{kind}.{key}": ""}, "$set": {"last_modified_at": datetime.now(UTC)}}
    )
    collect_runs(root)
    forget_caches(root, key)


def finish_cleanup(root: fo.Dataset, key: str, file: Any) -> None:
    """Leave nothing but the run's document and the results file that FiftyOne itself is about to delete."""
    document, runs = run_document(root, key), foo.get_db_conn()["runs"]
    if document is not None:
        list_files(root, [part.get("results") for part in document["config"].get("former") or ()])
        runs.update_one({"_id": document["_id"]}, {"$set": {"config.former": []}})
        collect_files(root._doc.id)
        if document.get("results") != getattr(file, "grid_id", None):  # another process wrote: FiftyOne knows the old
            list_files(root, [document.get("results")])


def collect_runs(root: fo.Dataset) -> None:
    """Remove the runs of this tool that the dataset does not name, and their results: a kill left them."""
    document = dataset_document(root, RUNS, BRAIN_RUNS)
    named = [number for kind in (RUNS, BRAIN_RUNS) for number in (document.get(kind) or {}).values()]
    runs = foo.get_db_conn()["runs"]
    query = {"_dataset_id": root._doc.id, "_id": {"$nin": named}, **OUR_RUNS}
    for orphan in list(runs.find(query, {"results": 1})):
        list_files(root, [orphan.get("results")])
        runs.delete_one({"_id": orphan["_id"]})
    collect_files(root._doc.id)


def forget_caches(root: fo.Dataset, key: str) -> None:
    """Let this process read the dataset's runs, fields and views as the database has them now."""
    root._run_cache.pop(key, None)
    root._brain_cache.pop(key, None)
    root.reload()


# --- saved views --------------------------------------------------------------------------------------------------


def save_view(root: fo.Dataset, name: str, view: fo.DatasetView, description: str) -> None:
    """Save a view, exactly once, whatever a kill or another process left of an earlier one."""
    views, now = foo.get_db_conn()["views"], datetime.now(UTC)
    if view._is_generated:  # its samples are a dataset of their own
        view._dataset._doc.persistent = True
        view._dataset.save()
    earlier = list(views.find({"_dataset_id": root._doc.id, "name": name}))
    number = earlier[0]["_id"] if earlier else ObjectId()
    facts = {"view_stages": _stages(view), "description": description, "last_modified_at": now}
    first = {"slug": fou.to_slug(name), "color": None, "created_at": now}
    query = {"_id": number, "_dataset_id": root._doc.id, "name": name}
    views.update_one(query, {"$set": facts, "$setOnInsert": first}, upsert=True)
    _name_views(root, [document["_id"] for document in earlier], [number])
    _release_samples(root, earlier)
    views.delete_many({"_id": {"$in": [document["_id"] for document in earlier[1:]]}})
    root.reload()


def drop_view(root: fo.Dataset, name: str) -> None:
    """Delete a saved view, and what a kill left of it."""
    views = foo.get_db_conn()["views"]
    earlier = list(views.find({"_dataset_id": root._doc.id, "name": name}))
    if earlier:
        numbers = [document["_id"] for document in earlier]
        _name_views(root, numbers, [])
        _release_samples(root, earlier)
        views.delete_many({"_id": {"$in": numbers}})
        root.reload()


def _name_views(root: fo.Dataset, old: list[Any], new: list[Any]) -> None:
    """Let the dataset name the new views in the place of the old ones, in one update."""
    others = {
        "$filter": {"input": {"$ifNull": ["$saved_views", []]}, "cond": {"$not": {"$in": ["$$this", [*old, *new]]}}}
    }
    change = {"saved_views": {"$concatArrays": [others, new]}, "last_modified_at": "$$NOW"}
    foo.get_db_conn()["datasets"].update_one({"_id": root._doc.id}, [{"$set": change}])


def _release_samples(root: fo.Dataset, documents: Sequence[Document]) -> None:
    """Let FiftyOne delete the datasets that hold the samples of views of objects which are no longer saved."""
    for document in documents:
        fod._handle_delete_generated_saved_view(root, SimpleNamespace(view_stages=document["view_stages"]))


def _stages(view: fo.DatasetView) -> list[str]:
    return [json_util.dumps(stage) for stage in view._serialize(include_uuids=False)]


def _dangling(root: fo.Dataset, key: str, kind: str) -> Any:
    """The id of a run that the dataset names but that does not exist any more: FiftyOne was killed deleting it."""
    number = (dataset_document(root, kind).get(kind) or {}).get(key)
    return number if number and not foo.get_db_conn()["runs"].find_one({"_id": number}, {"_id": 1}) else None


def _files() -> gridfs.GridFS:
    return gridfs.GridFS(foo.get_db_conn())


def _listed() -> Any:
    return collection(FILES, "dataset")
