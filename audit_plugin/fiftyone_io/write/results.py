"""AuditResult -> fields, tags, a saved view and a run.

The order makes a crash harmless: the run is recorded first, with everything that it is about to own, and marked
done last; whatever was written between can be removed by that record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError
from audit_plugin.audit.caption_lists import per_sample
from audit_plugin.audit.result import AuditResult
from audit_plugin.config import AuditConfig, current_names
from audit_plugin.fiftyone_io.database import database
from audit_plugin.fiftyone_io.lease import RESULT_WAIT_SECONDS, check_lease, leased
from audit_plugin.fiftyone_io.leftovers import sweep
from audit_plugin.fiftyone_io.read.items import (
    CHUNK,
    AuditedItems,
    check_editable,
    existing_attributes,
    objects_field,
    objects_path,
    ungrouped,
)
from audit_plugin.fiftyone_io.read.samples import samples_of_rows
from audit_plugin.fiftyone_io.read.sources import modality_sources, used_slices
from audit_plugin.fiftyone_io.records import (
    Document,
    config_of,
    put_run,
    results_of,
    run_document,
    save_view,
    update_run,
)
from audit_plugin.fiftyone_io.results.findings import flagged_rows
from audit_plugin.fiftyone_io.results.tables import read_rows
from audit_plugin.fiftyone_io.runs import (
    AuditRunConfig,
    AuditRunResults,
    audit_document,
    audit_info,
    clear,
    collect_runs,
    finished_document,
    items_of,
    list_audits,
    owned_by,
    run_results,
)
from audit_plugin.scoring.columns import CAPTION_INDEX, LIST, all_columns, column_help, list_columns
from audit_plugin.scoring.flags import FLAGS

if TYPE_CHECKING:
    from audit_plugin.encoders.embed import Progress

# Column -> how its field is declared, and a value per row.
FieldValues = dict[str, tuple[dict[str, type], list[Any]]]
Members = dict[str, list[str]]  # row id -> ids of the samples with its results, or tag -> ids


def check_writable(view: SampleCollection, run: str, columns: Iterable[str] = ()) -> None:
    """Raise an `AuditError` if what the run would write, by default all columns, belongs to something else."""
    dataset, field = view._root_dataset, objects_field(view)
    with database(f"reading dataset {dataset.name!r}"):
        is_audit = run in list_audits(dataset)
        if run in dataset.list_runs() and not is_audit:
            raise AuditError(f"run {run!r} of dataset {dataset.name!r} is not an audit; choose another run key")
        own = {path for part in _owned(dataset, run) for path in part["fields"]} if is_audit else set()
        names = [f"{run}_{column}" for column in columns or [*all_columns(), *list_columns()]]
        if field:
            new = [name for name in names if f"{objects_path(field)}.{name}" not in own]
            taken = [f"{field}.{name}" for name in existing_attributes(dataset, field, new)]
        else:
            taken = [name for name in names if name not in own and dataset.has_sample_field(name)]
        if taken:
            raise AuditError(
                f"field {taken[0]!r} of dataset {dataset.name!r} was not written by an audit {run!r} and "
                "would be overwritten; choose another run key or rename the field"
            )
        check_editable(dataset, [f"{field}.detections.tags" if field else "tags", *sorted(own)], f"audit {run!r}")
        if not is_audit and dataset.has_saved_view(flagged_view_name(run)):
            raise AuditError(
                f"saved view {flagged_view_name(run)!r} of dataset {dataset.name!r} was not made by an audit "
                f"{run!r}; choose another run key or rename the view"
            )


def _owned(dataset: fo.Dataset, run: str) -> list[dict[str, Any]]:
    document = run_document(dataset, run)
    return owned_by(document) if document else []


def write_result(
    view: SampleCollection,
    result: AuditResult,
    config: AuditConfig,
    progress: Progress | None = None,
    captions: Sequence[int] = (),
    explanations: Mapping[str, Any] | None = None,
) -> None:
    """Write fields `{run}_{column}`, tags `{run}:{flag}`, the saved view `{run}_flagged` and the run itself.

    Only the samples of the result change; of a grouped view, those of its groups in the slices used; of a view of
    patches, its labels, which get attributes and label tags. A run of the same key is replaced, everywhere: it stays
    as it was until the new one is recorded with all that it will own.

    Args:
        view: what was audited.
        result: one row per sample, group or object; or per text, where samples have lists of texts.
        config: of the audit.
        progress: called with the stage "write".
        captions: position of each row's text in its sample's list, -1 where that is empty; () where texts are no lists.
        explanations: id -> records of `audit_plugin.audit.explain`; None: those in the result's run folder.

    Raises:
        AuditError: a name is taken by something of the user's own (nothing is written then), or the database was
            lost (what was begun is removed by the next audit of that key, or by `delete_audit`).
    """
    result = per_sample(result, captions) if captions else result
    if len(set(result.ids)) != len(result):
        raise ValueError("rows of one sample need the positions of their texts")
    stored = f"the scores are safe in {result.run_dir}; " if result.run_dir else ""
    remedy = f"{stored}start the database again and repeat the same audit"
    dataset, run = view._root_dataset, config.run
    with (
        database(f"writing run {run!r} into dataset {dataset.name!r}", remedy),
        leased(dataset, f"writing audit {run!r}", RESULT_WAIT_SECONDS),
    ):
        collect_runs(dataset)
        dataset.reload()  # another process may have written meanwhile
        items, samples = target_of(view, result, config)
        check_writable(view, run, result.columns)
        fields = field_values(result)
        items = replace(items, fields=tuple(items.path(column) for column in fields))
        if explanations is None:
            explanations = _explanations(result.run_dir)
        flagged = _flagged_ids(items, result, samples)
        record, audited, read = _register(items, result, config, flagged, explanations)
        clear(dataset, run, record.former)
        items.remove_fields()  # values that a killed deletion left, and that FiftyOne does not show
        write_fields(items, samples, fields, progress)
        for tag, ids in flagged.items():
            items.tag(ids, tag)
        arrange(items, record)
        record.status, record.former = "done", []
        update_run(dataset, read, record)
        sweep()
        if items.label_field:  # views of patches hold copies of the labels
            audited.reload()
            view.reload()


def add_result(
    view: SampleCollection,
    result: AuditResult,
    config: AuditConfig,
    progress: Progress | None = None,
    captions: Sequence[int] = (),
) -> None:
    """Write the results of samples that came later into the existing run, as if it had seen them at once.

    What the run is about to own is recorded before it is written, so that `delete_audit` removes all of it; rows
    that a crash left out count as new again. The parameters are as in `write_result`.

    Raises:
        AuditError: no such run, a name is taken by something of the user's own, or the database was lost.
    """
    result = per_sample(result, captions) if captions else result
    dataset, run = view._root_dataset, config.run
    with (
        database(f"adding to run {run!r} of dataset {dataset.name!r}", "scan the new samples again"),
        leased(dataset, f"adding rows to audit {run!r}", RESULT_WAIT_SECONDS),
    ):
        collect_runs(dataset)
        take_back_added(dataset, run)
        dataset.reload()
        read = finished_document(dataset, run)
        record, results = config_of(read), run_results(dataset, f"audit {run!r}", read)
        items, samples = target_of(view, result, config)
        written = read_rows(items, result.ids, ["action"]).values()
        if len(written) == len(result) and all(row["action"] is not None for row in written):
            return  # the same command, again after all that counts had been done
        check_writable(view, run, result.columns)
        fields = field_values(result)
        flagged = _flagged_ids(items, result, samples)
        for tag, ids in _untagged(items, flagged).items():
            results.tagged[tag] = [*results.tagged.get(tag, ()), *ids]
        record.fields = list(dict.fromkeys([*record.fields, *(items.path(column) for column in fields)]))
        record.tags = list(dict.fromkeys([*record.tags, *results.tagged]))
        record.status, results.added = "adding", dict(samples)
        read = update_run(dataset, read, record, results)
        write_fields(items, samples, fields, progress)
        for tag, ids in flagged.items():
            items.tag(ids, tag)
        arrange(items_of(dataset, run, record), record)
        new = set(result.ids)
        added = {name: records for name, records in _explanations(result.run_dir).items() if name in new}
        results.explanations = {**(getattr(results, "explanations", None) or {}), **added}
        results.summary = _extended_summary(getattr(results, "summary", None) or {}, result.summary)
        record.status, results.added = "done", {}
        update_run(dataset, read, record, results)


def take_back_added(dataset: fo.Dataset, run: str) -> None:
    """Remove the rows whose addition was interrupted, so that they count as new again."""
    with database(f"reading audit {run!r} of dataset {dataset.name!r}"):
        if audit_info(dataset, run).status != "adding":
            return
        with leased(dataset, f"adding rows to audit {run!r}"):
            read = audit_document(dataset, run)
            record, results = config_of(read), run_results(dataset, f"audit {run!r}", read)
            if record.status != "adding":
                return  # another process took them back, or added them
            added: Mapping[str, Sequence[str]] = getattr(results, "added", None) or {}
            items = items_of(dataset, run, record)
            tagged = {*added, *(name for samples in added.values() for name in samples)}
            for tag, ids in results.tagged.items():
                items.untag([name for name in ids if name in tagged], tag)
                results.tagged[tag] = [name for name in ids if name not in tagged]
            nothing = dict.fromkeys(items.columns)
            items.write((name, samples, nothing) for name, samples in added.items())
            record.status, results.added = "done", {}
            update_run(dataset, read, record, results)


def _extended_summary(summary: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """A run's summary with the counts of later rows; what was estimated stays as it was for the first ones."""
    extended = current_names(summary)
    for name in ("flags", "actions"):
        counts = added.get(name) or {}
        extended[name] = {key: count + int(counts.get(key, 0)) for key, count in (extended.get(name) or counts).items()}
    for name in ("samples", "failures"):
        extended[name] = int(extended.get(name) or 0) + int(added.get(name) or 0)
    extended["scanned_later"] = int(extended.get("scanned_later") or 0) + int(added.get("samples") or 0)
    return extended


def target_of(view: SampleCollection, result: AuditResult, config: AuditConfig) -> tuple[AuditedItems, Members]:
    """What the rows of a result of the view are written on, and the samples of each row, in the rows' order."""
    view = ungrouped(view)
    members = samples_of_rows(view, config)
    root = view._root_dataset
    slices: tuple[str, ...] = ()
    if view.media_type == "group":
        slices = tuple(used_slices(view, modality_sources(view, config)))
    elif root.media_type == "group" and not objects_field(view):
        slices = tuple(view.distinct(f"{root.group_field}.name"))
    items = AuditedItems(root, config.run, objects_field(view), slices)
    return items, {name: members.get(name, [name]) for name in result.ids}


def _register(
    items: AuditedItems, result: AuditResult, config: AuditConfig, flagged: Members, explanations: Mapping[str, Any]
) -> tuple[AuditRunConfig, SampleCollection, Document]:
    """Record the run with all that it is about to write, before it does.

    Returns:
        (the record, the view written on, the run's document).
    """
    dataset, run = items.dataset, items.run
    replaced = run_document(dataset, run)
    former = owned_by(replaced) if replaced else []
    record = AuditRunConfig(
        settings=config.to_dict(),
        status="writing",
        run_dir=result.run_dir,
        fields=list(items.fields),
        tags=list(flagged),
        saved_view=flagged_view_name(run),
        sidebar=not items.label_field and own_sidebar_group(dataset, run, former),
        slices=list(items.slices),
        label_field=items.label_field,
        former=former,
    )
    # what was audited, by a field: a view that the user chose by fields of the earlier run would lose its meaning
    audited = items.where(lambda column: column("action").exists())
    results = AuditRunResults(
        audited,
        record,
        run,
        tagged=_untagged(items, flagged, former),
        summary=json.loads(json.dumps(result.summary, default=lambda v: v.item() if hasattr(v, "item") else str(v))),
        run_dir=result.run_dir,
        explanations=dict(explanations),
    )
    return record, audited, put_run(dataset, run, record, results, audited, replaced)


def _flagged_ids(items: AuditedItems, result: AuditResult, samples: Members) -> dict[str, list[str]]:
    """Tag -> ids of the samples, or of the labels, with that flag."""
    tags = {}
    for kind in FLAGS:
        if f"is_{kind}" in result.columns and result.flagged(kind).any():
            rows = [result.ids[row] for row in np.flatnonzero(result.flagged(kind))]
            tags[f"{items.run}:{kind}"] = rows if items.label_field else [name for row in rows for name in samples[row]]
    return tags


def _untagged(items: AuditedItems, flagged: Members, former: Sequence[Mapping[str, Any]] = ()) -> Members:
    """Tag -> ids that the run will tag, without those that have the tag already, set by the user.

    Tags of the runs that it replaces are removed before it writes its own.
    """
    of_former: dict[str, set[str]] = {}
    for part in former:
        for tag, ids in ((results_of(part["results"]) or {}).get("tagged") or {}).items():
            of_former.setdefault(tag, set()).update(ids)
    tags = {}
    for tag, ids in flagged.items():
        by_user = items.tagged(tag) - of_former.get(tag, set())
        tags[tag] = [name for name in ids if name not in by_user]
    return tags


def _explanations(run_dir: str) -> dict[str, Any]:
    """Sample id -> records, from the run folder; empty for a result that has none."""
    from audit_plugin.audit.explain import load_explanations

    try:
        return dict(load_explanations(run_dir)["samples"]) if run_dir else {}
    except AuditError:
        return {}


# --- fields -------------------------------------------------------------------------------------------------------


def field_values(result: AuditResult) -> FieldValues:
    """Column -> kind of field and values, None for what was not scored; columns without any value are left out."""
    listed = [name for name in list_columns() if name != CAPTION_INDEX and name in result.columns]
    # such as a suggestion for another text than the worst one, whose values are the sample's
    of_any_text = {name for name in listed if any(not _is_missing(v) for texts in result.columns[name] for v in texts)}
    fields: FieldValues = {}
    for name, column in result.columns.items():
        if name not in listed:
            kind, values = _as_field(np.asarray(column))
            has_value = any(value is not None for value in values) or f"{name}{LIST}" in of_any_text
            if name == "action" or has_value:
                fields[name] = {"ftype": kind}, values
    for name in listed:
        if (base := name.removesuffix(LIST)) in fields:
            # None has no place in FiftyOne's lists: what was not scored stays NaN, "" or False
            fields[name] = {"ftype": fo.ListField, "subfield": fields[base][0]["ftype"]}, list(result.columns[name])
    return fields


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and np.isnan(value))


def _as_field(values: NDArray[Any]) -> tuple[type, list[Any]]:
    if values.dtype.kind == "b":
        return fo.BooleanField, values.tolist()
    if values.dtype.kind == "f":
        return fo.FloatField, [None if np.isnan(value) else value for value in values.tolist()]
    if values.dtype.kind in "iu":
        return fo.IntField, [value if value >= 0 else None for value in values.tolist()]  # -1: in no group
    return fo.StringField, [str(value) if value not in (None, "") else None for value in values.tolist()]


def write_fields(
    items: AuditedItems,
    samples: Mapping[str, Sequence[str]],
    fields: FieldValues,
    progress: Progress | None,
    help_on: Callable[[str], str] = column_help,
) -> None:
    """Set the columns of rows, `CHUNK` at a time, with progress of the stage "write".

    `samples` are row id -> ids of the samples with its results, in the order of the values; `help_on` describes a
    column.
    """
    for column, (kind, _) in fields.items():
        check_lease(items.dataset)
        items.dataset.add_sample_field(items.path(column), **kind, description=help_on(column))
    ids = list(samples)
    for start in range(0, len(ids), CHUNK):
        if progress:
            progress("write", start, len(ids))
        rows = []
        for row, name in enumerate(ids[start : start + CHUNK], start):
            values = {column: values[row] for column, (_, values) in fields.items() if values[row] is not None}
            rows.append((name, samples[name], values))
        items.write(rows)
    if progress:
        progress("write", len(ids), len(ids))


def arrange(items: AuditedItems, record: AuditRunConfig) -> None:
    """Put the run's fields into one sidebar group and save the view of what is flagged.

    The App shows attributes of labels below their field: they need no group.
    """
    if not items.label_field:
        arrange_sidebar(items.dataset, items.run, record.fields)
    about = f"What audit {items.run} flagged or proposes to change"
    save_view(items.dataset, record.saved_view, flagged_rows(items), about)


def arrange_sidebar(dataset: fo.Dataset, run: str, fields: Sequence[str]) -> None:
    """Put fields into the sidebar group that is named after the run, made if there is none."""
    app = dataset.app_config
    groups = app.sidebar_groups or fo.DatasetAppConfig.default_sidebar_groups(dataset)
    for group in groups:
        group.paths = [path for path in group.paths if path not in fields]
    own = next((group for group in groups if group.name == run), None)
    if own is None:
        own = fo.SidebarGroupDocument(name=run)
        groups.append(own)
    own.paths = [*own.paths, *fields]
    app.sidebar_groups = groups
    check_lease(dataset)
    dataset.save()


def own_sidebar_group(dataset: fo.Dataset, run: str, former: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the sidebar group named after a run is, or will be, of the run's making."""
    exists = any(group.name == run for group in dataset.app_config.sidebar_groups or [])
    return not exists or any(part["sidebar"] for part in former)


def flagged_view_name(run: str) -> str:
    """Name of the saved view of what a run flagged."""
    return f"{run}_flagged"
