"""AuditResult -> fields, tags, a saved view and a run.

The order makes a crash harmless: the run is recorded first, with everything that it is about to own, and marked
done last; whatever lies between can be taken away by that record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.core.runs as fors
import numpy as np
from bson import ObjectId
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray
from pymongo import UpdateOne

from audit_plugin.arrays import AuditError, AuditResult
from audit_plugin.config import FLAG_KINDS, AuditConfig

from .reading import slice_samples
from .runs import (
    AuditRunConfig,
    AuditRunResults,
    audit_info,
    database,
    delete_audit,
    every_sample,
    list_audits,
    recorded_fields,
)
from .sources import modality_sources, used_slices

Progress = Callable[[str, int, int], None]
Columns = dict[str, tuple[type, list[Any]]]
CHUNK = 5_000
TO_DO = ("relabel", "remove", "review")


def check_writable(view: SampleCollection, run: str, columns: Iterable[str] = ()) -> None:
    """Make sure that nothing of the user's own bears a name that the run would write.

    Args:
        view: where the run would be written.
        run: its key.
        columns: columns it would write (default: all that the table of scores knows).

    Raises:
        AuditError: a field, saved view or run of that name is not an audit's.
    """
    from audit_plugin.columns import COLUMNS

    dataset = view._root_dataset
    with database(f"reading dataset {dataset.name!r}"):
        _check_names(dataset, run, columns or COLUMNS)


def write_result(
    view: SampleCollection, result: AuditResult, config: AuditConfig, progress: Progress | None = None
) -> None:
    """Write fields `{run}_{column}`, tags `{run}:{flag}`, the saved view `{run}_flagged` and the run itself.

    Only the samples of the result change; of a grouped view, those of its groups in the slices used. An earlier run of
    the same key is taken away first, everywhere.

    Raises:
        AuditError: a name is taken by something of the user's own (nothing is written then), or the database was
            lost (what was begun is taken away by the next audit of that key, or by `delete_audit`).
    """
    if len(set(result.ids)) != len(result):
        raise ValueError("a result with several rows per sample cannot be written into sample fields")
    kept = f"the scores are safe in {result.run_dir}; " if result.run_dir else ""
    remedy = f"{kept}start the database again and repeat the same audit"
    dataset = view._root_dataset
    with database(f"writing run {config.run!r} into dataset {dataset.name!r}", remedy):
        dataset.reload()  # another process may have written meanwhile
        slices, members = _slices(view, config), slice_samples(view, config)
        check_writable(dataset, config.run, result.columns)
        if config.run in list_audits(dataset):
            delete_audit(dataset, config.run)
        columns = _field_values(result)
        targets = [members.get(name, [name]) for name in result.ids]
        record = _register(dataset, result, config, columns, (slices, targets))
        _write_fields(dataset, targets, config.run, columns, progress)
        for kind in _flag_kinds(result):
            name = f"{config.run}_is_{kind}"
            every_sample(dataset).match(F(name) == True).tag_samples(f"{config.run}:{kind}")  # noqa: E712 (builds a query)
        _arrange(dataset, config.run, record)
        record.status = "done"
        fors.Run.update_run_config(dataset, config.run, record)


def flagged_view(dataset: SampleCollection, run: str) -> fo.DatasetView:
    """The samples with any flag of the run, or with anything proposed but to keep them; most misaligned first.

    Of a grouped dataset: the groups with such a sample.
    """
    root = dataset._root_dataset
    schema, places = root.get_field_schema(), _places(root, audit_info(root, run).slices)
    names = [name for name in (f"{run}_is_{kind}" for kind in FLAG_KINDS) if name in schema]
    marks = [F(place + name) == True for place in places for name in names]  # noqa: E712 (builds a query)
    marks += [F(f"{place}{run}_action").is_in(list(TO_DO)) for place in places]
    view = root.match(F.any(marks))
    worst = f"{run}_misalignment"
    return view.sort_by(places[0] + worst, reverse=True) if worst in schema else view


def _slices(view: SampleCollection, config: AuditConfig) -> list[str]:
    """The slices on which the results of a view are written; empty where the dataset is not grouped."""
    if view.media_type == "group":
        return used_slices(view, modality_sources(view, config))
    root = view._root_dataset
    return list(view.distinct(f"{root.group_field}.name")) if root.media_type == "group" else []


def _places(dataset: fo.Dataset, slices: list[str]) -> list[str]:
    """What stands before a field's name in a query, so that it finds groups whatever slice was written on.

    The default slice needs nothing, and is found without looking up the other samples of each group.
    """
    if not slices or dataset.default_group_slice in slices:
        return [""]
    return [f"groups.{name}." for name in slices]


def _check_names(dataset: fo.Dataset, run: str, columns: Iterable[str]) -> None:
    known = run in list_audits(dataset)
    if run in dataset.list_runs() and not known:
        raise AuditError(f"run {run!r} of dataset {dataset.name!r} is not an audit; choose another run key")
    own = recorded_fields(dataset, run)
    for name in (f"{run}_{column}" for column in columns):
        if name not in own and dataset.has_sample_field(name):
            raise AuditError(
                f"field {name!r} of dataset {dataset.name!r} was not written by an audit {run!r} and "
                "would be overwritten; choose another run key or rename the field"
            )
    if not known and dataset.has_saved_view(_saved_view(run)):
        raise AuditError(
            f"saved view {_saved_view(run)!r} of dataset {dataset.name!r} was not made by an audit "
            f"{run!r}; choose another run key or rename the view"
        )


def _register(
    dataset: fo.Dataset,
    result: AuditResult,
    config: AuditConfig,
    columns: Columns,
    where: tuple[list[str], list[list[str]]],
) -> AuditRunConfig:
    """Record the run with all that it is about to write, before any of it is written.

    `where`: the slices written on, and the sample ids of each row.
    """
    slices, targets = where
    run = config.run
    groups = dataset.app_config.sidebar_groups or []
    record = AuditRunConfig(
        settings=config.to_dict(),
        status="writing",
        run_dir=result.run_dir,
        fields=[f"{run}_{c}" for c in columns],
        tags=[f"{run}:{kind}" for kind in _flag_kinds(result)],
        saved_view=_saved_view(run),
        sidebar=all(g.name != run for g in groups),
        slices=slices,
    )
    # the audited samples, by a field: a view that the user chose by fields of the earlier run would lose its meaning
    audited = dataset.match(F.any([F(f"{place}{run}_action").exists() for place in _places(dataset, slices)]))
    audited.register_run(run, record)
    tagged = {}
    for kind in _flag_kinds(result):
        tag = f"{run}:{kind}"
        theirs = set(every_sample(dataset).match_tags(tag).values("id"))
        ids = [name for row in np.flatnonzero(result.flagged(kind)) for name in targets[row]]
        tagged[tag] = [name for name in ids if name not in theirs]
    found = AuditRunResults(audited, record, run, tagged=tagged, summary=_plain(result.summary), run_dir=result.run_dir)
    fors.Run.save_run_results(audited, run, found, cache=False)
    return record


def _write_fields(
    dataset: fo.Dataset, targets: list[list[str]], run: str, columns: Columns, progress: Progress | None
) -> None:
    from audit_plugin.columns import column_help

    for column, (kind, _) in columns.items():
        dataset.add_sample_field(f"{run}_{column}", kind, description=column_help(column))
    names = [f"{run}_{column}" for column in columns]
    rows = zip(*(values for _, values in columns.values()), strict=True)
    for start in range(0, len(targets), CHUNK):
        if progress:
            progress("write", start, len(targets))
        _write_rows(dataset, targets[start : start + CHUNK], names, rows)
    if progress:
        progress("write", len(targets), len(targets))


def _write_rows(
    dataset: fo.Dataset, targets: list[list[str]], names: list[str], rows: Iterator[tuple[Any, ...]]
) -> None:
    """Set all fields of a sample in one update.

    `set_values` takes one field at a time, which is as many times slower as there are fields, and a crash would leave
    samples half written.
    """
    now = datetime.now(UTC)
    updates, ids = [], []
    for samples, row in zip(targets, rows, strict=False):  # rows goes on after the chunk
        values = {name: value for name, value in zip(names, row, strict=True) if value is not None}
        change = {"$set": values | {"last_modified_at": now}}
        updates += [UpdateOne({"_id": ObjectId(sample)}, change) for sample in samples]
        ids += samples
    dataset._bulk_write(updates, ids=ids)


def _arrange(dataset: fo.Dataset, run: str, record: AuditRunConfig) -> None:
    """Put the run's fields into one sidebar group and save the view of flagged samples."""
    app, fields = dataset.app_config, list(record.fields)
    groups = app.sidebar_groups or fo.DatasetAppConfig.default_sidebar_groups(dataset)
    for group in groups:
        group.paths = [path for path in group.paths if path not in fields]
    home = next((g for g in groups if g.name == run), None)
    if home is None:
        home = fo.SidebarGroupDocument(name=run)
        groups.append(home)
    home.paths = [*home.paths, *fields]
    app.sidebar_groups = groups
    dataset.save()
    dataset.save_view(
        record.saved_view,
        flagged_view(dataset, run),
        overwrite=True,
        description=f"Samples that audit {run} flagged or proposes to change",
    )


def _field_values(result: AuditResult) -> Columns:
    """Column -> field type and values, None for what was not scored; columns without any value are left out."""
    found = {name: _as_field(np.asarray(values)) for name, values in result.columns.items()}
    return {
        name: (kind, values)
        for name, (kind, values) in found.items()
        if name == "action" or any(value is not None for value in values)
    }


def _as_field(values: NDArray[Any]) -> tuple[type, list[Any]]:
    if values.dtype.kind == "b":
        return fo.BooleanField, values.tolist()
    if values.dtype.kind == "f":
        return fo.FloatField, [value if value == value else None for value in values.tolist()]  # noqa: PLR0124 (NaN)
    if values.dtype.kind in "iu":
        return fo.IntField, [value if value >= 0 else None for value in values.tolist()]  # -1: in no group
    return fo.StringField, [str(value) if value not in (None, "") else None for value in values.tolist()]


def _flag_kinds(result: AuditResult) -> list[str]:
    return [kind for kind in FLAG_KINDS if f"is_{kind}" in result.columns and result.flagged(kind).any()]


def _saved_view(run: str) -> str:
    return f"{run}_flagged"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda v: v.item() if hasattr(v, "item") else str(v)))
