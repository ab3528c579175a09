"""AuditResult -> fields, tags, a saved view and a run.

The order makes a crash harmless: the run is recorded first, with everything that it is about to own, and marked
done last; whatever lies between can be taken away by that record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
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

from .runs import AuditRunConfig, AuditRunResults, database, delete_audit, list_audits, recorded_fields

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

    Only the samples of the result change. An earlier run of the same key is taken away first, everywhere.

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
        check_writable(dataset, config.run, result.columns)
        if config.run in list_audits(dataset):
            delete_audit(dataset, config.run)
        columns = _field_values(result)
        record = _register(dataset, result, config, columns)
        _write_fields(dataset, result, config.run, columns, progress)
        for kind in _flag_kinds(result):
            name = f"{config.run}_is_{kind}"
            dataset.match(F(name) == True).tag_samples(f"{config.run}:{kind}")  # noqa: E712 (builds a query)
        _arrange(dataset, config.run, record)
        record.status = "done"
        fors.Run.update_run_config(dataset, config.run, record)


def flagged_view(dataset: SampleCollection, run: str) -> fo.DatasetView:
    """The samples with any flag of the run, or with anything proposed but to keep them; most misaligned first."""
    root = dataset._root_dataset
    schema = root.get_field_schema()
    marks = [F(name) == True for name in (f"{run}_is_{kind}" for kind in FLAG_KINDS) if name in schema]  # noqa: E712
    marks.append(F(f"{run}_action").is_in(list(TO_DO)))
    view = root.match(F.any(marks))
    worst = f"{run}_misalignment"
    return view.sort_by(worst, reverse=True) if worst in schema else view


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


def _register(dataset: fo.Dataset, result: AuditResult, config: AuditConfig, columns: Columns) -> AuditRunConfig:
    """Record the run with all that it is about to write, before any of it is written."""
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
    )
    # the audited samples, by a field: a view that the user chose by fields of the earlier run would lose its meaning
    audited = dataset.match(F(f"{run}_action").exists())
    audited.register_run(run, record)
    tagged = {}
    for kind in _flag_kinds(result):
        tag = f"{run}:{kind}"
        theirs = set(dataset.match_tags(tag).values("id"))
        flagged = np.flatnonzero(result.flagged(kind))
        tagged[tag] = [result.ids[i] for i in flagged if result.ids[i] not in theirs]
    found = AuditRunResults(audited, record, run, tagged=tagged, summary=_plain(result.summary), run_dir=result.run_dir)
    fors.Run.save_run_results(audited, run, found, cache=False)
    return record


def _write_fields(
    dataset: fo.Dataset, result: AuditResult, run: str, columns: Columns, progress: Progress | None
) -> None:
    from audit_plugin.columns import column_help

    for column, (kind, _) in columns.items():
        dataset.add_sample_field(f"{run}_{column}", kind, description=column_help(column))
    names = [f"{run}_{column}" for column in columns]
    rows = zip(*(values for _, values in columns.values()), strict=True)
    for start in range(0, len(result), CHUNK):
        if progress:
            progress("write", start, len(result))
        _write_rows(dataset, result.ids[start : start + CHUNK], names, rows)
    if progress:
        progress("write", len(result), len(result))


def _write_rows(dataset: fo.Dataset, ids: tuple[str, ...], names: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """Set all fields of a sample in one update.

    `set_values` takes one field at a time, which is as many times slower as there are fields, and a crash would leave
    samples half written.
    """
    now = datetime.now(timezone.utc)
    updates = []
    for sample, row in zip(ids, rows, strict=False):  # rows goes on after the chunk
        values = {name: value for name, value in zip(names, row, strict=True) if value is not None}
        updates.append(UpdateOne({"_id": ObjectId(sample)}, {"$set": values | {"last_modified_at": now}}))
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
