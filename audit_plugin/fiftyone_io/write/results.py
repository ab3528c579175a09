"""AuditResult -> fields, tags, a saved view and a run.

The order makes a crash harmless: the run is recorded first, with everything that it is about to own, and marked
done last; whatever lies between can be taken away by that record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.runs as fors
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, AuditResult
from audit_plugin.audit.caption_lists import list_columns, per_sample
from audit_plugin.config import FLAG_KINDS, AuditConfig
from audit_plugin.fiftyone_io.read.items import (
    objects_field,
    objects_where,
    root_of,
    samples_of,
    tag_objects,
    tagged_objects,
    taken_attributes,
)
from audit_plugin.fiftyone_io.read.samples import slice_samples
from audit_plugin.fiftyone_io.read.sources import modality_sources, used_slices
from audit_plugin.fiftyone_io.results.views import places_of
from audit_plugin.fiftyone_io.runs import (
    AuditRunConfig,
    AuditRunResults,
    audit_info,
    batches,
    database,
    delete_audit,
    every_sample,
    list_audits,
    recorded_fields,
)

from .fields import Place, Progress, arrange, saved_view, write_fields
from .values import Columns, field_values


def check_writable(view: SampleCollection, run: str, columns: Iterable[str] = ()) -> None:
    """Make sure that nothing of the user's own bears a name that the run would write.

    Args:
        view: where the run would be written.
        run: its key.
        columns: columns it would write (default: all that the table of scores knows).

    Raises:
        AuditError: a field, saved view or run of that name is not an audit's.
    """
    from audit_plugin.scoring.columns import COLUMNS

    dataset = view._root_dataset
    with database(f"reading dataset {dataset.name!r}"):
        field = objects_field(view)
        _check_names(dataset, field, run, columns or [*COLUMNS, *list_columns()])


def write_result(
    view: SampleCollection,
    result: AuditResult,
    config: AuditConfig,
    progress: Progress | None = None,
    captions: Sequence[int] = (),
    explained: Mapping[str, Any] | None = None,
) -> None:
    """Write fields `{run}_{column}`, tags `{run}:{flag}`, the saved view `{run}_flagged` and the run itself.

    Only the samples of the result change; of a grouped view, those of its groups in the slices used; of a view of
    patches, its labels, which get attributes and label tags. An earlier run of the same key is taken away first,
    everywhere.

    Args:
        view: what was audited.
        result: one row per sample, group or object; or per text, where samples have lists of texts.
        config: of the audit.
        progress: told of the stage "write".
        captions: position of each row's text in its sample's list, -1 where that is empty; () where texts are no lists.
        explained: id -> records of `audit_plugin.audit.explain`; None: those in the result's run folder.

    Raises:
        AuditError: a name is taken by something of the user's own (nothing is written then), or the database was
            lost (what was begun is taken away by the next audit of that key, or by `delete_audit`).
    """
    result = per_sample(result, captions) if captions else result
    if len(set(result.ids)) != len(result):
        raise ValueError("rows of one sample need the positions of their texts")
    kept = f"the scores are safe in {result.run_dir}; " if result.run_dir else ""
    remedy = f"{kept}start the database again and repeat the same audit"
    dataset = view._root_dataset
    with database(f"writing run {config.run!r} into dataset {dataset.name!r}", remedy):
        dataset.reload()  # another process may have written meanwhile
        place = place_of(view, result, config)
        check_writable(view, config.run, result.columns)
        if config.run in list_audits(dataset):
            delete_audit(dataset, config.run)
        columns = field_values(result)
        told = _explanations(result.run_dir) if explained is None else dict(explained)
        record, audited = _register(dataset, result, config, columns, place, told)
        write_fields(dataset, result.ids, place, config.run, columns, progress)
        _tag(dataset, result, place, config.run)
        arrange(dataset, config.run, record)
        record.status = "done"
        fors.Run.update_run_config(dataset, config.run, record)
        if place.objects:  # views of patches hold copies of the labels
            audited.reload()
            view.reload()


def add_result(
    view: SampleCollection,
    result: AuditResult,
    config: AuditConfig,
    progress: Progress | None = None,
    captions: Sequence[int] = (),
) -> None:
    """Write the results of samples that came later into the run that is there, as if it had seen them at once.

    What the run is about to own is recorded before it is written, so that `delete_audit` takes all of it away; rows
    that a crash left out count as new again.

    Args:
        view: the new samples.
        result: their rows, as in `write_result`.
        config: the run's.
        progress: told of the stage "write".
        captions: as in `write_result`.

    Raises:
        AuditError: no such run, a name is taken by something of the user's own, or the database was lost.
    """
    result = per_sample(result, captions) if captions else result
    dataset, run = view._root_dataset, config.run
    with database(f"adding to run {run!r} of dataset {dataset.name!r}", "scan the new samples again"):
        dataset.reload()
        record, place = audit_info(dataset, run), place_of(view, result, config)
        check_writable(view, run, result.columns)
        columns = field_values(result)
        found = dataset.load_run_results(run, cache=False, load_view=False)
        for tag, names in _to_tag(dataset, result, place, run).items():
            found.tagged[tag] = [*found.tagged.get(tag, ()), *names]
        new = set(result.ids)
        extra = {name: told for name, told in _explanations(result.run_dir).items() if name in new}
        found.explanations = {**(getattr(found, "explanations", None) or {}), **extra}
        found.summary = _sum_of(getattr(found, "summary", None) or {}, result.summary)
        record.fields = list(dict.fromkeys([*record.fields, *(place.path(run, column) for column in columns)]))
        record.tags = list(dict.fromkeys([*record.tags, *found.tagged]))
        fors.Run.save_run_results(dataset, run, found, cache=False)
        fors.Run.update_run_config(dataset, run, record)
        write_fields(dataset, result.ids, place, run, columns, progress)
        _tag(dataset, result, place, run)
        arrange(dataset, run, record)


def _sum_of(summary: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """A run's summary with the counts of later rows; what was estimated stays as it was for the first ones."""
    out = dict(summary)
    for name in ("flags", "actions"):
        counts = added.get(name) or {}
        out[name] = {key: count + int(counts.get(key, 0)) for key, count in (out.get(name) or counts).items()}
    for name in ("samples", "failures"):
        out[name] = int(out.get(name) or 0) + int(added.get(name) or 0)
    out["scanned_later"] = int(out.get("scanned_later") or 0) + int(added.get("samples") or 0)
    return out


def place_of(view: SampleCollection, result: AuditResult, config: AuditConfig) -> Place:
    """Where the rows of a result of the view go."""
    if field := objects_field(view):
        images = samples_of(view)
        return Place([[images[name]] for name in result.ids], [], field)
    members = slice_samples(view, config)
    return Place([members.get(name, [name]) for name in result.ids], _slices(view, config))


def _slices(view: SampleCollection, config: AuditConfig) -> list[str]:
    """The slices on which the results of a view are written; empty where the dataset is not grouped."""
    if view.media_type == "group":
        return used_slices(view, modality_sources(view, config))
    root = view._root_dataset
    return list(view.distinct(f"{root.group_field}.name")) if root.media_type == "group" else []


def _check_names(dataset: fo.Dataset, field: str, run: str, columns: Iterable[str]) -> None:
    known = run in list_audits(dataset)
    if run in dataset.list_runs() and not known:
        raise AuditError(f"run {run!r} of dataset {dataset.name!r} is not an audit; choose another run key")
    own, names = recorded_fields(dataset, run), [f"{run}_{column}" for column in columns]
    if field:
        free = [name for name in names if f"{root_of(field)}.{name}" not in own]
        taken = [f"{field}.{name}" for name in taken_attributes(dataset, field, free)]
    else:
        taken = [name for name in names if name not in own and dataset.has_sample_field(name)]
    if taken:
        raise AuditError(
            f"field {taken[0]!r} of dataset {dataset.name!r} was not written by an audit {run!r} and "
            "would be overwritten; choose another run key or rename the field"
        )
    if not known and dataset.has_saved_view(saved_view(run)):
        raise AuditError(
            f"saved view {saved_view(run)!r} of dataset {dataset.name!r} was not made by an audit "
            f"{run!r}; choose another run key or rename the view"
        )


def _register(
    dataset: fo.Dataset,
    result: AuditResult,
    config: AuditConfig,
    columns: Columns,
    place: Place,
    explained: dict[str, Any],
) -> tuple[AuditRunConfig, SampleCollection]:
    """Record the run with all that it is about to write, before any of it is written.

    Returns:
        The record, and the view of what the run wrote on.
    """
    run, objects = config.run, place.objects
    groups = dataset.app_config.sidebar_groups or []
    record = AuditRunConfig(
        settings=config.to_dict(),
        status="writing",
        run_dir=result.run_dir,
        fields=[place.path(run, column) for column in columns],
        tags=[f"{run}:{kind}" for kind in _flag_kinds(result)],
        saved_view=saved_view(run),
        sidebar=not objects and all(g.name != run for g in groups),
        slices=place.slices,
        label_field=objects,
    )
    # what was audited, by a field: a view that the user chose by fields of the earlier run would lose its meaning
    if objects:
        audited = objects_where(dataset, objects, F(f"{run}_action").exists())
    else:
        audited = dataset.match(F.any([F(f"{at}{run}_action").exists() for at in places_of(dataset, place.slices)]))
    audited.register_run(run, record)
    found = AuditRunResults(
        audited,
        record,
        run,
        tagged=_to_tag(dataset, result, place, run),
        summary=_plain(result.summary),
        run_dir=result.run_dir,
        explanations=explained,
    )
    fors.Run.save_run_results(audited, run, found, cache=False)
    return record, audited


def _to_tag(dataset: fo.Dataset, result: AuditResult, place: Place, run: str) -> dict[str, list[str]]:
    """Tag -> ids that the run will tag, without those that bear the tag already: these are the user's."""
    tagged = {}
    for kind in _flag_kinds(result):
        tag = f"{run}:{kind}"
        if place.objects:
            theirs = tagged_objects(dataset, place.objects, tag)
        else:
            theirs = set(every_sample(dataset).match_tags(tag).values("id"))
        tagged[tag] = [name for name in _flagged_ids(result, place, kind) if name not in theirs]
    return tagged


def _explanations(run_dir: str) -> dict[str, Any]:
    """Sample id -> records, from the run folder; empty for a result that has none."""
    from audit_plugin.audit.explain import load_explanations

    try:
        return dict(load_explanations(run_dir)["samples"]) if run_dir else {}
    except AuditError:
        return {}


def _flagged_ids(result: AuditResult, place: Place, kind: str) -> list[str]:
    """Ids of the samples, or of the labels, that a flag is on."""
    rows = np.flatnonzero(result.flagged(kind))
    return [name for row in rows for name in ([result.ids[row]] if place.objects else place.samples[row])]


def _tag(dataset: fo.Dataset, result: AuditResult, place: Place, run: str) -> None:
    for kind in _flag_kinds(result):
        tag = f"{run}:{kind}"
        if place.objects:
            for batch in batches(_flagged_ids(result, place, kind)):
                tag_objects(dataset, place.objects, batch, tag)
        else:
            for batch in batches(_flagged_ids(result, place, kind)):
                every_sample(dataset).select(batch).tag_samples(tag)


def _flag_kinds(result: AuditResult) -> list[str]:
    return [kind for kind in FLAG_KINDS if f"is_{kind}" in result.columns and result.flagged(kind).any()]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda v: v.item() if hasattr(v, "item") else str(v)))
