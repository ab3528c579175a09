"""Cross-modal recall of a dataset: measured, written into fields, and stored as a run that can be deleted.

FiftyOne stores the dotted paths of the run classes in the database, so neither they nor this module may be moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.core.runs as fors
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.result import AuditResult
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io.read.items import AuditedItems, objects_field, ungrouped
from audit_plugin.fiftyone_io.read.samples import read_samples
from audit_plugin.fiftyone_io.read.sources import key_field, resolve_settings
from audit_plugin.fiftyone_io.write.results import (
    arrange_sidebar,
    field_values,
    own_sidebar_group,
    target_of,
    write_fields,
)

from .database import database
from .lease import RESULT_WAIT_SECONDS, leased
from .leftovers import sweep
from .records import Document, config_of, put_run, run_document, save_view, update_run
from .results.tables import read_columns
from .runs import (
    OwningRun,
    audited_items,
    audits_newest_first,
    check_finished,
    clear,
    collect_runs,
    delete_owning_run,
    finish_deletions,
    items_of,
    list_runs,
    newest_first,
    owned_by,
    run_results,
)

if TYPE_CHECKING:
    from audit_plugin.crossmodal.cross_modal_recall import CrossModalResult
    from audit_plugin.encoders.embed import Progress

RUN = "transfer"
HELP = {
    "stays_in": "The modality from which the sample's identity is recalled while it is not from the other",
    "recall_gap": "Largest gap of the sample's identity between the modality learned from and the other",
}


class CrossModalRunConfig(fors.RunConfig):
    """The settings of a measurement and what it owns: settings, status, fields, saved_view, sidebar, slices."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"method": "cross_modal", "slices": [], "label_field": "", **kwargs})


class CrossModalRun(OwningRun):
    """A measurement."""


class CrossModalRunResults(fors.RunResults):
    """`summary` and `identities` as of a `CrossModalResult`; `tagged` is empty: nothing is tagged."""


def measure_cross_modal(
    view: SampleCollection, config: AuditConfig, progress: Progress | None = None, run: str = RUN
) -> CrossModalResult:
    """Measure which identities of a view are recalled in one modality but not in the other, and write it down.

    Where the dataset was audited, the summary holds the rank correlation of MultiMem with recall too. Written are the
    fields `{run}_recall_SOURCE_TARGET`, `{run}_stays_in`, `{run}_recall_gap`, the saved view `{run}_one_sided` and the
    run itself. An earlier measurement of that key is deleted first. `config.label` names the field with the identity or
    class; `progress` is called with the stages of `measure_cross_modal_recall`, then "write".

    Raises:
        AuditError: objects, no or too few identities, a name that is taken, or the database was lost.
    """
    from audit_plugin.crossmodal.cross_modal_recall import measure_cross_modal_recall, memorization_link

    if objects_field(view):
        raise AuditError("cross-modal recall is measured on samples, not on the patches of their objects; pass samples")
    view = ungrouped(view)
    config = replace(resolve_settings(view, config), run=run)
    finish_deletions(view)
    check_free(view._root_dataset, run)
    samples = read_samples(view, config)
    measured = measure_cross_modal_recall(samples, config, progress)
    if memorized := _memorized(view._root_dataset):
        measured.summary["memorization"] = memorization_link(measured, memorized, samples.labels)
    write_cross_modal(view, samples, measured, config, progress)
    return measured


def write_cross_modal(
    view: SampleCollection,
    samples: Samples,
    measured: CrossModalResult,
    config: AuditConfig,
    progress: Progress | None = None,
) -> None:
    """Write what `measure_cross_modal` measured on the samples, as run `config.run`."""
    dataset, run = view._root_dataset, config.run
    doing = f"writing measurement {run!r}"
    with (
        database(f"{doing} into dataset {dataset.name!r}", "start it again and repeat"),
        leased(dataset, doing, RESULT_WAIT_SECONDS),
    ):
        collect_runs(dataset)
        dataset.reload()
        check_free(dataset, run)
        result = _per_sample(samples, measured)
        fields = field_values(result)
        items, members = target_of(view, result, config)
        items = replace(items, fields=tuple(items.path(column) for column in fields))
        record, read = _register(items, measured, config)
        clear(dataset, run, record.former)
        items.remove_fields()
        write_fields(items, members, fields, progress, _help)
        arrange_sidebar(dataset, run, record.fields)
        if items.has("stays_in"):
            one_sided = items.where(lambda column: column("stays_in").exists(), "recall_gap")
            about = "Samples of identities that are recalled in one modality and not in the other"
            save_view(dataset, record.saved_view, one_sided, about)
        record.status, record.former = "done", []
        update_run(dataset, read, record)
        sweep()


def list_cross_modal_runs(dataset: SampleCollection) -> list[str]:
    """Keys of the measurements of a dataset, finished or not, the newest first."""
    documents = list_runs(dataset, CrossModalRunConfig)
    return sorted(documents, key=lambda run: documents[run]["timestamp"], reverse=True)


def newest_cross_modal_run(dataset: SampleCollection) -> str:
    """Key of the newest complete measurement; "" where there is none."""
    return next(iter(newest_first(list_runs(dataset, CrossModalRunConfig))), "")


def cross_modal_results(dataset: SampleCollection, run: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(summary, one record per identity, the largest gap first) of a measurement.

    Raises:
        AuditError: no such measurement, or it was interrupted while it was written or deleted.
    """
    root, document = dataset._root_dataset, _measurement(dataset, run)
    results = run_results(root, f"cross-modal measurement {run!r}", document)
    return dict(results.summary), list(results.identities)


def identities_view(dataset: SampleCollection, run: str, identities: Sequence[str]) -> fo.DatasetView:
    """The samples of some identities, the identity with the largest gap first."""
    root = dataset._root_dataset
    record = config_of(_measurement(root, run))
    path = key_field(root, "label", record.settings["label"])
    values: list[Any] = list(identities)
    if not isinstance(root.get_field(path), fo.StringField):  # identities were read as words
        values = [value for value in root.distinct(path) if str(value) in set(identities)]
    measured = items_of(root, run, record).where(lambda column: column("recall_gap").exists())
    return measured.match(F(path).is_in(values)).sort_by(f"{run}_recall_gap", reverse=True)


def delete_cross_modal_run(dataset: SampleCollection, run: str) -> None:
    """Delete a measurement, finished or not: its fields, its saved view, its sidebar group and its record.

    Raises:
        AuditError: no such measurement, another process changes the dataset, or the database was lost (repeat it then).
    """
    delete_owning_run(dataset, run, f"cross-modal measurement {run!r}", CrossModalRunConfig)


def _measurement(dataset: SampleCollection, run: str) -> Document:
    """The record of a measurement that is whole."""
    root, documents = dataset._root_dataset, list_runs(dataset, CrossModalRunConfig)
    if run not in documents:
        have = ", ".join(documents) or "none"
        raise AuditError(f"dataset {root.name!r} has no cross-modal measurement {run!r}; its measurements: {have}")
    check_finished(root, f"cross-modal measurement {run!r}", documents[run])
    return documents[run]


def check_free(dataset: fo.Dataset, run: str) -> None:
    """Raise an `AuditError` if a run, field or view that the measurement would write belongs to something else."""
    is_measurement = run in list_cross_modal_runs(dataset)
    if not is_measurement and run in dataset.list_runs():
        raise AuditError(
            f"run {run!r} of dataset {dataset.name!r} is not a cross-modal measurement; choose another run key"
        )
    document = run_document(dataset, run)
    own = {path for part in (owned_by(document) if is_measurement and document else ()) for path in part["fields"]}
    names = [n for n in dataset.get_field_schema() if n.startswith(f"{run}_recall_") or n == f"{run}_stays_in"]
    taken = [name for name in names if name not in own]
    if taken:
        raise AuditError(f"field {taken[0]!r} of dataset {dataset.name!r} would be overwritten; choose another key")
    if not is_measurement and dataset.has_saved_view(_saved_view(run)):
        raise AuditError(
            f"saved view {_saved_view(run)!r} of dataset {dataset.name!r} is in the way; choose another run key"
        )


def _register(
    items: AuditedItems, measured: CrossModalResult, config: AuditConfig
) -> tuple[CrossModalRunConfig, Document]:
    """Record the run with all that it is about to write, before any of it is written; its record and document."""
    dataset, run = items.dataset, items.run
    replaced = run_document(dataset, run)
    former = owned_by(replaced) if replaced else []
    record = CrossModalRunConfig(
        settings=config.to_dict(),
        status="writing",
        fields=list(items.fields),
        saved_view=_saved_view(run),
        sidebar=own_sidebar_group(dataset, run, former),
        slices=list(items.slices),
        former=former,
    )
    results = CrossModalRunResults(
        dataset, record, run, tagged={}, summary=measured.summary, identities=list(measured.identities)
    )
    return record, put_run(dataset, run, record, results, replaced=replaced)


def _memorized(dataset: fo.Dataset) -> dict[str, float]:
    """Sample id -> MultiMem of the newest audit that has it; empty where there is none."""
    for run in audits_newest_first(dataset):
        items = audited_items(dataset, run)
        if items.has("multimem") and not items.label_field:
            columns = read_columns(dataset, run, ["id", "multimem"])
            scored = np.isfinite(columns["multimem"])
            return dict(zip(columns["id"][scored].tolist(), columns["multimem"][scored].tolist(), strict=True))
    return {}


def _per_sample(samples: Samples, measured: CrossModalResult) -> AuditResult:
    """One row per sample: means over its texts, and the modality and gap of its identity."""
    ids = tuple(dict.fromkeys(measured.ids))
    numbers = {name: number for number, name in enumerate(ids)}
    sample_of_row = np.array([numbers[name] for name in measured.ids])
    columns: dict[str, Any] = {}
    for name, values in measured.columns.items():
        finite = np.isfinite(values)
        total = np.bincount(sample_of_row[finite], values[finite], len(ids))
        with np.errstate(invalid="ignore"):
            columns[name] = total / np.bincount(sample_of_row[finite], minlength=len(ids))
    first_rows = np.unique(sample_of_row, return_index=True)[1]
    by_identity = {record["identity"]: record for record in measured.identities}
    records = [by_identity.get(samples.labels[row], {}) if samples.labels else {} for row in first_rows]
    columns["stays_in"] = np.array([record.get("stays_in", "") for record in records], dtype=object)
    columns["recall_gap"] = np.array([record.get("gap", np.nan) for record in records], dtype=np.float64)
    return AuditResult(ids, columns, measured.summary)


def _help(column: str) -> str:
    if column in HELP:
        return HELP[column]
    source, target = column.removeprefix("recall_").split("_")
    learned = "both modalities" if source == "both" else source
    return f"Share of seeds that named the sample's identity from its {target}, having learned names from {learned}"


def _saved_view(run: str) -> str:
    return f"{run}_one_sided"
