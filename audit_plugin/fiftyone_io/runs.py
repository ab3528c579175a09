"""An audit as a FiftyOne custom run: listed, loaded and deleted like any other, with all that it wrote.

FiftyOne stores the dotted paths of these classes in the database, so neither they nor this module may be moved.

What a run owns is recorded before it is written and stays recorded until it was removed; `former` names what the runs
that it replaces owned. So an operation that was killed can be repeated, whatever it had reached.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
import fiftyone.core.runs as fors
from fiftyone.core.collections import SampleCollection
from pymongo.errors import PyMongoError

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig

from .database import collection, database
from .lease import check_lease, leased
from .leftovers import OUR_RUNS, SPOT_CHECKS, sweep
from .read.items import AuditedItems
from .records import (
    BRAIN_RUNS,
    RUNS,
    Document,
    collect_files,
    config_of,
    dataset_document,
    drop_view,
    finish_cleanup,
    forget_caches,
    forget_run,
    is_of,
    is_ours,
    keep_copy,
    list_files,
    results_files,
    results_of,
    run_document,
    run_documents,
    update_run,
)

# What an audit that is not finished was interrupted in, by its status.
INTERRUPTED = {
    "writing": "while it was written; run it again or delete it",
    "deleting": "while it was deleted; delete it",
}
CLEANUP_WAIT = 20.0  # seconds


class AuditRunConfig(fors.RunConfig):
    """The settings of an audit and what it owns in the dataset.

    Attributes set from keywords: settings (the AuditConfig), status ("writing", "adding" rows, "setting" a threshold,
    "deleting" or "done"), run_dir, fields, tags, saved_view, sidebar (whether the sidebar group was made by the run),
    slices (those of a grouped dataset that it wrote on; empty for any other), label_field (the field on whose objects
    it wrote; "" if it wrote on samples), thresholds (kind of flag -> the threshold that a person set; absent if none
    was), calibration (what labels say of the threshold of misaligned pairs; absent or None if they say nothing),
    former (what the runs that it replaces own until that is removed, see `owned_by`; absent or empty if there is
    nothing), copy_of (only of a copy that `collect_runs` needs: the id of the run that FiftyOne deleted).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"method": "audit", "slices": [], "label_field": "", **kwargs})


class OwningRun(fors.Run):
    """Removes what the run wrote when it is deleted, by `dataset.delete_run` too."""

    def get_fields(self, samples: SampleCollection, key: str) -> list[str]:  # noqa: ARG002 (FiftyOne's signature)
        """The fields that the run wrote; of objects the field that holds them, which every view of them has."""
        return [self.config.label_field] if self.config.label_field else list(self.config.fields)

    def cleanup(self, samples: SampleCollection, key: str) -> None:
        """Remove all that the run wrote.

        FiftyOne forgets the run itself, whatever happens here, and shows an error as a warning. Where another process
        has the lease nothing is written beside it: a copy of the record stays, by which `collect_runs` removes the
        rest.

        Raises:
            AuditError: another process is changing the dataset, or took it over; it is named.
        """
        root = samples._root_dataset
        try:
            with leased(root, f"deleting run {key!r}", CLEANUP_WAIT):
                loaded = root._doc.runs.get(key)
                root.reload()
                document = run_document(root, key)
                if document is not None:
                    clear(root, key, owned_by(document))
                    delete_indexes(root, key)
                    finish_cleanup(root, key, getattr(loaded, "results", None))
        except Exception as error:
            with contextlib.suppress(PyMongoError, AuditError):  # the first error is the one to be read
                keep_copy(root, key)
            raise AuditError(f"{error}; what run {key!r} wrote is removed when the panel is opened next") from error


class AuditRun(OwningRun):
    """An audit."""


class AuditRunResults(fors.RunResults):
    """`tagged`: tag -> ids of the samples (of objects: the labels) tagged; `summary`: counts, versions; `run_dir`.

    `explanations`: why each flagged sample was flagged (`audit_plugin.audit.explain`), stored here too, since the App
    may run where the run folder is not. `own`: the audit's own flags and suggested actions of the rows that thresholds
    changed; absent if no threshold was set. `added`: row -> ids of its samples, of rows that are just being added.
    """

    def get_meta(self) -> dict[str, Any]:
        """Counts, readable without loading the lists of ids."""
        return {"tagged": {tag: len(ids) for tag, ids in self.tagged.items()}}


def list_runs(samples: SampleCollection, kind: type[fors.RunConfig]) -> dict[str, Document]:
    """Key -> document of the runs whose settings are of a class, by key, as the database has them now."""
    root = samples._root_dataset
    documents = run_documents(root)
    if {key: document["_id"] for key, document in documents.items()} != {
        key: getattr(document, "id", None) for key, document in root._doc.runs.items()
    }:
        root.reload()  # FiftyOne's own functions must see them too
    return {key: document for key, document in sorted(documents.items()) if is_of(document, kind)}


def list_audits(samples: SampleCollection) -> list[str]:
    """Keys of the audits of a dataset, finished or not, sorted."""
    return list(list_runs(samples, AuditRunConfig))


def newest_first(documents: Mapping[str, Document]) -> list[str]:
    """The keys of the finished runs by the time when they were registered, the newest first."""
    finished = [key for key, document in documents.items() if document["config"].get("status") not in INTERRUPTED]
    return sorted(finished, key=lambda key: documents[key]["timestamp"], reverse=True)


def audits_newest_first(dataset: SampleCollection) -> list[str]:
    """Keys of the finished audits of a dataset, the newest first."""
    return newest_first(list_runs(dataset, AuditRunConfig))


def audit_info(samples: SampleCollection, run: str) -> AuditRunConfig:
    """What is recorded of an audit, finished or not: settings, status, fields, tags, run_dir.

    Raises:
        AuditError: the dataset has no audit of that key.
    """
    return config_of(audit_document(samples, run))


def finished_audit(samples: SampleCollection, run: str) -> AuditRunConfig:
    """What is recorded of an audit that is whole.

    Raises:
        AuditError: the dataset has no audit of that key, or it was interrupted while it was written or deleted.
    """
    return config_of(finished_document(samples, run))


def finished_document(samples: SampleCollection, run: str) -> Document:
    """The document of an audit that is whole, for `update_run`; raises as `finished_audit`."""
    document = audit_document(samples, run)
    check_finished(samples._root_dataset, f"audit {run!r}", document)
    return document


def check_finished(root: fo.Dataset, what: str, document: Document) -> None:
    """Raise an `AuditError` if a run was interrupted while it was written or deleted."""
    status = document["config"].get("status")
    if status in INTERRUPTED:
        raise AuditError(f"{what} of dataset {root.name!r} was interrupted {INTERRUPTED[status]}")
    if not document.get("results"):
        raise AuditError(f"the results of {what} of dataset {root.name!r} are missing; run it again or delete it")


def audit_results(samples: SampleCollection, run: str) -> AuditRunResults:
    """The results of an audit as the database has them now.

    Raises:
        AuditError: no such audit, or its results are missing.
    """
    root, document = samples._root_dataset, audit_document(samples, run)
    return run_results(root, f"audit {run!r}", document)


def run_results(root: fo.Dataset, what: str, document: Document) -> Any:
    """The results of a run.

    Raises:
        AuditError: they are missing.
    """
    values = results_of(document.get("results"))
    if values is None:
        raise AuditError(f"the results of {what} of dataset {root.name!r} are missing; run it again or delete it")
    return fors.RunResults.from_dict(values, root, config_of(document), document["key"])


def audited_items(samples: SampleCollection, run: str) -> AuditedItems:
    """What an audit wrote on.

    Raises:
        AuditError: the dataset has no audit of that key, or it was interrupted.
    """
    return items_of(samples._root_dataset, run, finished_audit(samples, run))


def items_of(dataset: fo.Dataset, run: str, record: Any) -> AuditedItems:
    """What the run of a record wrote on."""
    return AuditedItems(dataset, run, record.label_field, tuple(record.slices), tuple(record.fields))


def settings_of(record: AuditRunConfig) -> AuditConfig:
    """The settings of a run of this version or a former one."""
    return AuditConfig.from_dict(record.settings)


def delete_audit(dataset: SampleCollection, run: str) -> None:
    """Delete an audit, finished or not: fields, own tags, saved view, sidebar group, spot checks, indexes and record.

    The indexes are those that `similarity.build_index` made of it (`indexes_of`). Decisions, the user's own fields and
    tags, and other audits stay.

    Raises:
        AuditError: no such audit, another process is changing the dataset, or the database was lost (repeat it then).
    """
    delete_owning_run(dataset, run, f"audit {run!r}", AuditRunConfig)


def delete_owning_run(dataset: SampleCollection, run: str, what: str, kind: type[fors.RunConfig]) -> None:
    """Delete a run with all that it wrote.

    Raises:
        AuditError: as `delete_audit`.
    """
    root = dataset._root_dataset
    with database(f"deleting {what}"), leased(root, f"deleting {what}"):
        collect_runs(root)
        root.reload()
        documents = list_runs(root, kind)
        if run not in documents:
            raise AuditError(missing(root, what, list(documents)))
        record = config_of(documents[run])
        record.status = "deleting"
        update_run(root, documents[run], record)
        clear(root, run, owned_by(documents[run]))
        delete_indexes(root, run)
        forget_run(root, run)
        sweep()


def indexes_of(dataset: SampleCollection, run: str) -> list[str]:
    """Brain keys of the similarity indexes that were made of an audit, sorted: they go with it."""
    documents = run_documents(dataset._root_dataset, BRAIN_RUNS)
    ours = {key: document["config"] for key, document in documents.items() if is_ours(document)}
    return sorted(key for key, config in ours.items() if (config.get("audit") or {}).get("run") == run)


def delete_indexes(root: fo.Dataset, run: str) -> None:
    """Delete the similarity indexes of an audit: brain runs and files."""
    for key in indexes_of(root, run):
        document = run_document(root, key, BRAIN_RUNS)
        if document is not None:
            config_of(document).build().cleanup(root, key)


def collect_runs(root: fo.Dataset) -> None:
    """Remove the runs of this tool that the dataset does not name, with their results and with what they own.

    A kill left them, or FiftyOne, which deletes the record of a run even if another process has the lease.
    """
    document = dataset_document(root, RUNS, BRAIN_RUNS)
    keys = document.get(RUNS) or {}
    named = [*keys.values(), *(document.get(BRAIN_RUNS) or {}).values()]
    runs = foo.get_db_conn()["runs"]
    query = {"_dataset_id": root._doc.id, "_id": {"$nin": named}, **OUR_RUNS}
    for orphan in list(runs.find(query)):
        if orphan["config"].get("copy_of") in named:
            continue  # FiftyOne has not forgotten the run yet
        if "fields" in orphan["config"] and orphan["key"] not in keys:  # else they are those of a later run
            clear(root, orphan["key"], owned_by(orphan))
            delete_indexes(root, orphan["key"])
        check_lease(root)
        list_files(root, results_files(orphan))
        runs.delete_one({"_id": orphan["_id"]})
    collect_files(root)


def finish_deletions(dataset: SampleCollection) -> None:
    """Remove what runs own that FiftyOne deleted while another process had the lease; later, if one has it still."""
    root = dataset._root_dataset
    with database(f"reading dataset {root.name!r}"):
        copies = {"_dataset_id": root._doc.id, "config.copy_of": {"$exists": True}}
        if foo.get_db_conn()["runs"].find_one(copies, {"_id": 1}) is None:
            return
        with contextlib.suppress(AuditError), leased(root, "finishing a deletion", wait=0):
            root.reload()
            collect_runs(root)


def missing(root: fo.Dataset, what: str, keys: Sequence[str]) -> str:
    """The sentence on a run that does not exist, which `what` names after its kind."""
    kind = what.rsplit(" ", 1)[0]
    have = f"its {kind}s are {', '.join(keys)}" if keys else "it has none"
    return f"dataset {root.name!r} has no {what}; {have}"


def owned_by(document: Document) -> list[dict[str, Any]]:
    """What a run owns, then what the runs that it replaces owned, as far as that was not removed.

    Each: fields, tags, slices, label_field, saved_view, sidebar, and results, the file with the ids that it tagged.
    """
    config = document["config"]
    names = {"fields": [], "tags": [], "slices": [], "label_field": "", "saved_view": "", "sidebar": False}
    own = {name: config.get(name, default) for name, default in names.items()}
    return [{**own, "results": str(document.get("results") or "")}, *(config.get("former") or ())]


def clear(root: fo.Dataset, run: str, owned: Sequence[Mapping[str, Any]]) -> None:
    """Remove what runs of a key own (`owned_by`), and the spot check of that key.

    Each step may be repeated, so the next call completes a broken one.
    """
    for part in owned:
        items = AuditedItems(root, run, part["label_field"], tuple(part["slices"]), tuple(part["fields"]))
        results = results_of(part["results"])
        for tag, ids in ((results or {}).get("tagged") or {}).items():
            items.untag(ids, tag)
        if results is None:
            items.untag_flagged(part["tags"])
        drop_view(root, part["saved_view"])
        items.remove_fields()
        _clean_sidebar(root, run, part["fields"], part["sidebar"])
    check_lease(root)
    collection(SPOT_CHECKS, "dataset run").delete_many({"dataset": root._doc.id, "run": run})


def audit_document(samples: SampleCollection, run: str) -> Document:
    """The document of an audit as the database has it now, which FiftyOne's objects in memory follow.

    Raises:
        AuditError: the dataset has no audit of that key, or one that FiftyOne's `rename_run` gave it: what the audit
            wrote keeps the name that it had.
    """
    root = samples._root_dataset
    with database(f"reading dataset {root.name!r}"):
        document = run_document(root, run)
        loaded = root._doc.runs.get(run)
        if document is None or not is_of(document, AuditRunConfig):
            raise AuditError(missing(root, f"audit {run!r}", list_audits(root)))
        written = document["config"].get("settings", {}).get("run", run)
        if written != run:
            raise AuditError(
                f"audit {run!r} was called {written!r} when it was written, and so are its fields and tags "
                f"({written}_misalignment, {written}:misaligned, ...); rename the run back: "
                f"dataset.rename_run({run!r}, {written!r})"
            )
        same = loaded is not None and getattr(loaded, "id", None) == document["_id"]
        if not same or loaded.results.grid_id != document.get("results") or loaded.config != document["config"]:
            forget_caches(root, run)  # another process wrote, or this one did
        return document


def _clean_sidebar(dataset: fo.Dataset, run: str, fields: Iterable[str], own_group: bool) -> None:
    """Take fields out of the sidebar, and the group that the run made."""
    app, gone = dataset.app_config, set(fields)
    if not app.sidebar_groups:
        return  # interrupted before they were arranged
    groups = [(g.name, [path for path in g.paths if path not in gone]) for g in app.sidebar_groups]
    if groups == [(g.name, list(g.paths)) for g in app.sidebar_groups] and not own_group:
        return
    for group, (_, paths) in zip(app.sidebar_groups, groups, strict=True):
        group.paths = paths
    remaining = [g for g in app.sidebar_groups if not own_group or g.name != run or g.paths]
    default = fo.DatasetAppConfig.default_sidebar_groups(dataset)
    # None means "the default groups": what it was before, unless the user has arranged groups of their own
    same = [(g.name, list(g.paths)) for g in remaining] == [(g.name, list(g.paths)) for g in default]
    app.sidebar_groups = None if same else remaining
    check_lease(dataset)
    dataset.save()
