"""The fields of a run: written in bulk, described, and put into a sidebar group of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
from bson import ObjectId
from pymongo import UpdateOne

from audit_plugin.audit.caption_lists import list_help
from audit_plugin.fiftyone_io.read.items import root_of, update_of
from audit_plugin.fiftyone_io.results.views import flagged_view
from audit_plugin.fiftyone_io.runs import AuditRunConfig

from .values import Columns

Progress = Callable[[str, int, int], None]
CHUNK = 5_000


@dataclass(frozen=True)
class Place:
    """What the rows of a result are written on.

    Attributes:
        samples: ids of the samples of each row: several where slices of a group share a result.
        slices: the slices of these; empty where the dataset is not grouped.
        objects: the label field whose objects the rows are; "" where they are samples.
    """

    samples: list[list[str]]
    slices: list[str]
    objects: str = ""

    def path(self, run: str, column: str) -> str:
        """Where a column of a run is."""
        return f"{root_of(self.objects)}.{run}_{column}" if self.objects else f"{run}_{column}"


def audit_help(column: str) -> str:
    """One line on a column of an audit."""
    from audit_plugin.scoring.columns import column_help

    return list_help(column) or column_help(column)


def write_fields(
    dataset: fo.Dataset,
    ids: Sequence[str],
    place: Place,
    run: str,
    columns: Columns,
    progress: Progress | None,
    help_on: Callable[[str], str] = audit_help,
) -> None:
    """Set the columns of some rows, `CHUNK` at a time; each field is described by `help_on` its column."""
    for column, (kind, _) in columns.items():
        dataset.add_sample_field(place.path(run, column), **kind, description=help_on(column))
    names = [f"{run}_{column}" for column in columns]
    rows = zip(*(values for _, values in columns.values()), strict=True)
    for start in range(0, len(ids), CHUNK):
        if progress:
            progress("write", start, len(ids))
        some = slice(start, start + CHUNK)
        _write_rows(dataset, list(zip(ids[some], place.samples[some], strict=True)), place.objects, names, rows)
    if progress:
        progress("write", len(ids), len(ids))


def _write_rows(
    dataset: fo.Dataset,
    targets: list[tuple[str, list[str]]],
    objects: str,
    names: list[str],
    rows: Iterator[tuple[Any, ...]],
) -> None:
    """Set all fields of a sample or an object in one update.

    `set_values` takes one field at a time, which is as many times slower as there are fields, and a crash would leave
    samples half written.
    """
    now = datetime.now(UTC)
    updates, ids = [], []
    for (name, samples), row in zip(targets, rows, strict=False):  # rows goes on after the chunk
        values = {name: value for name, value in zip(names, row, strict=True) if value is not None}
        change = {"$set": values | {"last_modified_at": now}}
        if objects:
            updates.append(update_of(objects, samples[0], name, values))
        else:
            updates += [UpdateOne({"_id": ObjectId(sample)}, change) for sample in samples]
        ids += samples
    dataset._bulk_write(updates, ids=ids)


def arrange(dataset: fo.Dataset, run: str, record: AuditRunConfig) -> None:
    """Put the run's fields into one sidebar group and save the view of what is flagged.

    The App shows attributes of labels below their field: they need no group.
    """
    if not record.label_field:
        arrange_sidebar(dataset, run, record.fields)
    dataset.save_view(
        record.saved_view,
        flagged_view(dataset, run),
        overwrite=True,
        description=f"What audit {run} flagged or proposes to change",
    )


def arrange_sidebar(dataset: fo.Dataset, run: str, fields: Sequence[str]) -> None:
    """Put fields into the sidebar group that is named after the run, made if there is none."""
    app = dataset.app_config
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


def saved_view(run: str) -> str:
    """Name of the view of what a run flagged."""
    return f"{run}_flagged"
