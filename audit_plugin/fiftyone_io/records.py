"""Run records, their results and saved views in FiftyOne's database, changed so that a kill at any write harms none.

FiftyOne itself deletes the results of a run before it writes new ones. Here what is new is written whole, then a single
update makes it valid, and only then what it replaced goes. Results files that may become useless are listed before
(`FILES`); `collect_files` deletes those that no run names. Everything is written under the lease of the dataset, and a
run's document changes only if it is as it was read: what another process wrote meanwhile is never overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
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
from pymongo import ReturnDocument

from audit_plugin.arrays import AuditError

from .database import collection
from .lease import check_lease, last_other_holder
from .leftovers import FILES

RUNS, BRAIN_RUNS = "runs", "brain_methods"  # of a dataset's document: key -> id of the run's document
Document = Mapping[str, Any]


_once: ContextVar[dict[Any, Any] | None] = ContextVar("once", default=None)  # what was read while something is drawn


@contextmanager
def read_once() -> Iterator[None]:
    """While something is drawn or decided, and no run is written: runs are read once, and all of it is of one state."""
    token = _once.set({})
    try:
        yield
    finally:
        _once.reset(token)


def once(what: tuple[Any, ...], read: Callable[[], Any]) -> Any:
    """The result of `read`, called once within `read_once`, and each time elsewhere."""
    known = _once.get()
    if known is None:
        return read()
    if what not in known:
        known[what] = read()
    return known[what]


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

    def read() -> Document | None:
        number = (dataset_document(root, kind).get(kind) or {}).get(key)
        return None if number is None else foo.get_db_conn()["runs"].find_one({"_id": number})

    document: Document | None = once(("run", root._doc.id, key, kind), read)
    return document


def config_of(document: Document) -> Any:
    """The settings of a run, in the class that it names."""
    return fors.RunConfig.from_dict(deepcopy(dict(document["config"])))


def is_ours(document: Document) -> bool:
    """Whether a run is of this tool; the settings of others may not even load."""
    return str(document["config"].get("cls", "")).startswith("audit_plugin.")


def is_of(document: Document, kind: type) -> bool:
    """Whether the settings of a run are of a class of this tool."""
    return is_ours(document) and isinstance(config_of(document), kind)


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


def collect_files(root: fo.Dataset) -> None:
    """Delete the results files of a dataset that were listed and that no run names.

    Raises:
        AuditError: the lease of the dataset was taken over.
    """
    runs = foo.get_db_conn()["runs"]
    for document in list(_listed().find({"dataset": root._doc.id})):
        check_lease(root)
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
) -> Document:
    """Write a run with its results, then let the dataset name it in the place of the one that it replaces, if any.

    The results file of the one replaced stays: `record.former` may name it. It is deleted once no run names it.

    Returns:
        The new run's document.

    Raises:
        AuditError: the key names another run by now, or the lease of the dataset was taken over.
    """
    check_lease(root)
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
    check_lease(root)
    if not datasets.update_one({"_id": root._doc.id, **expected}, {"$set": named}).matched_count:
        runs.delete_one({"_id": document["_id"]})
        raise AuditError(changed_text(root, key))
    if replaced:
        runs.delete_one({"_id": replaced["_id"]})
    forget_caches(root, key)
    return document


def update_run(root: fo.Dataset, read: Document, record: Any, results: Any = None, kind: str = RUNS) -> Document:
    """Give a run other settings, and other results where they are named, in one update; the old file goes then.

    `read` is the run's document as it was read before `record` and `results` were made of it.

    Returns:
        The run's document as it is now, for the next update.

    Raises:
        AuditError: the document is not as it was read: another process changed or deleted the run; or the lease of the
            dataset was taken over.
    """
    check_lease(root)
    key = read["key"]
    check_named(root, read, kind)
    change: dict[str, Any] = {"config": deepcopy(dict(record.serialize()))}
    if results is not None:
        list_files(root, [read.get("results")])
        change |= {"results": write_results(root, results), "results_meta": dict(results.get_meta() or {})}
    as_read = {"_id": read["_id"], "config": {"$eq": read["config"]}, "results": read.get("results")}
    check_lease(root)
    runs = foo.get_db_conn()["runs"]
    now = runs.find_one_and_update(as_read, {"$set": change}, return_document=ReturnDocument.AFTER)
    if now is None:
        raise AuditError(changed_text(root, key))
    collect_files(root)
    forget_caches(root, key)
    return dict(now)


def check_named(root: fo.Dataset, read: Document, kind: str = RUNS) -> None:
    """Raise an `AuditError` if the dataset does not name the run any more whose document was read."""
    number = (dataset_document(root, kind).get(kind) or {}).get(read["key"])
    if number is None:
        raise AuditError(f"run {read['key']!r} of dataset {root.name!r} was deleted by another process; nothing to do")
    if number != read["_id"]:
        raise AuditError(changed_text(root, read["key"]))


def changed_text(root: fo.Dataset, key: str) -> str:
    """The sentence on a run that is not as it was read: by whom it was changed as far as that is known, what to do."""
    other = last_other_holder(root)
    who = f" (the last other one to change the dataset: {other})" if other else ""
    return (
        f"run {key!r} of dataset {root.name!r} was changed by another process since it was read{who}; reload the "
        "dataset, then repeat the command"
    )


def forget_run(root: fo.Dataset, key: str, kind: str = RUNS) -> None:
    """Remove a run with its results; what it wrote elsewhere must have gone before.

    Raises:
        AuditError: the lease of the dataset was taken over.
    """
    document, connection = run_document(root, key, kind), foo.get_db_conn()
    if document is not None:
        list_files(root, results_files(document))
    change = {"$unset": {f"{kind}.{key}": ""}, "$set": {"last_modified_at": datetime.now(UTC)}}
    check_lease(root)
    connection["datasets"].update_one({"_id": root._doc.id}, change)
    if document is not None:
        connection["runs"].delete_one({"_id": document["_id"]})
    collect_files(root)
    forget_caches(root, key)


def finish_cleanup(root: fo.Dataset, key: str, file: Any) -> None:
    """Leave nothing but the run's document and the results file that FiftyOne itself is about to delete."""
    document = run_document(root, key)
    if document is not None:
        check_lease(root)
        list_files(root, results_files(document)[1:])
        as_read = {"_id": document["_id"], "config": {"$eq": document["config"]}}
        if not foo.get_db_conn()["runs"].update_one(as_read, {"$set": {"config.former": []}}).matched_count:
            raise AuditError(changed_text(root, key))
        collect_files(root)
        if document.get("results") != getattr(file, "grid_id", None):  # another process wrote: FiftyOne knows the old
            list_files(root, [document.get("results")])


def keep_copy(root: fo.Dataset, key: str) -> None:
    """Copy a run's document and results that FiftyOne is about to delete, for `collect_runs` to remove what it owns.

    Nothing that another process may have the lease for is written.
    """
    document = run_document(root, key)
    if document is None:
        return
    copy = {**document, "_id": ObjectId(), "config": {**document["config"], "copy_of": document["_id"]}}
    results = results_of(document.get("results"))
    if results is not None:
        copy["results"] = ObjectId()
    foo.get_db_conn()["runs"].insert_one(copy)  # before its file, which `collect_files` would delete
    if results is not None:
        _files().put(json_util.dumps(results).encode(), _id=copy["results"], content_type="application/json")


def results_files(document: Document) -> list[Any]:
    """The results file of a run, None where there is none, then those of the runs that it replaces."""
    return [document.get("results"), *(part.get("results") for part in document["config"].get("former") or ())]


def forget_caches(root: fo.Dataset, key: str) -> None:
    """Let this process read the dataset's runs, fields and views as the database has them now."""
    root._run_cache.pop(key, None)
    root._brain_cache.pop(key, None)
    root.reload()


# --- saved views --------------------------------------------------------------------------------------------------


def save_view(root: fo.Dataset, name: str, view: fo.DatasetView, description: str) -> None:
    """Save a view, exactly once, whatever a kill or another process left of an earlier one."""
    check_lease(root)
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
    check_lease(root)
    views.delete_many({"_id": {"$in": [document["_id"] for document in earlier[1:]]}})
    root.reload()


def drop_view(root: fo.Dataset, name: str) -> None:
    """Delete a saved view, and what a kill left of it."""
    views = foo.get_db_conn()["views"]
    earlier = list(views.find({"_dataset_id": root._doc.id, "name": name}))
    if earlier:
        check_lease(root)
        numbers = [document["_id"] for document in earlier]
        _name_views(root, numbers, [])
        _release_samples(root, earlier)
        check_lease(root)
        views.delete_many({"_id": {"$in": numbers}})
        root.reload()


def _name_views(root: fo.Dataset, old: list[Any], new: list[Any]) -> None:
    """Let the dataset name the new views in the place of the old ones, in one update."""
    check_lease(root)
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
