"""The fields of a run: typed, written in bulk, described, and put into a sidebar group of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray

from audit_plugin.audit.result import AuditResult
from audit_plugin.fiftyone_io.read.items import AuditedItems
from audit_plugin.fiftyone_io.results.findings import flagged_view
from audit_plugin.fiftyone_io.runs import AuditRunConfig
from audit_plugin.scoring.columns import CAPTION_INDEX, LIST, column_help, list_columns

if TYPE_CHECKING:
    from audit_plugin.encoders.embed import Progress

# Column -> how its field is declared, and a value per row.
FieldValues = dict[str, tuple[dict[str, type], list[Any]]]
CHUNK = 5_000


def field_values(result: AuditResult) -> FieldValues:
    """Column -> kind of field and values, None for what was not scored; columns without any value are left out."""
    listed = [name for name in list_columns() if name != CAPTION_INDEX and name in result.columns]
    fields: FieldValues = {}
    for name, column in result.columns.items():
        if name not in listed:
            kind, values = _as_field(np.asarray(column))
            if name == "action" or any(value is not None for value in values):
                fields[name] = {"ftype": kind}, values
    for name in listed:
        if (base := name.removesuffix(LIST)) in fields:
            # None has no place in FiftyOne's lists: what was not scored stays NaN, "" or False
            fields[name] = {"ftype": fo.ListField, "subfield": fields[base][0]["ftype"]}, list(result.columns[name])
    return fields


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
    items.dataset.save_view(
        record.saved_view,
        flagged_view(items.dataset, items.run),
        overwrite=True,
        description=f"What audit {items.run} flagged or proposes to change",
    )


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
    dataset.save()


def flagged_view_name(run: str) -> str:
    """Name of the saved view of what a run flagged."""
    return f"{run}_flagged"
