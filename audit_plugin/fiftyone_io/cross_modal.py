"""Recall across modalities of a dataset: measured, written into fields, and kept as a run that can be deleted.

FiftyOne stores the dotted paths of the run classes, so neither they nor this module may be moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.core.runs as fors
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, AuditResult, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io.read.items import objects_field
from audit_plugin.fiftyone_io.read.samples import load_manifest_dataset, read_samples
from audit_plugin.fiftyone_io.read.sources import resolve
from audit_plugin.fiftyone_io.results.findings import audits_newest_first
from audit_plugin.fiftyone_io.results.views import places_of
from audit_plugin.fiftyone_io.write.fields import Place, Progress, arrange_sidebar, write_fields
from audit_plugin.fiftyone_io.write.results import place_of
from audit_plugin.fiftyone_io.write.values import Columns, field_values

from .runs import clear, database

if TYPE_CHECKING:
    from audit_plugin.crossmodal.cross_modal_recall import CrossModalResult

RUN = "transfer"
HELP = {
    "stays_in": "The modality from which the sample's identity is recalled while it is not from the other",
    "recall_gap": "Largest gap of the sample's identity between the modality learned from and the other",
}


class TransferRunConfig(fors.RunConfig):
    """What was asked and what the run owns: settings, status, fields, saved_view, sidebar, slices."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"method": "transfer", "slices": [], "label_field": "", **kwargs})


class TransferRun(fors.Run):
    """Knows how to take away what it wrote; called by `dataset.delete_run` too."""

    def get_fields(self, samples: SampleCollection, key: str) -> list[str]:  # noqa: ARG002 (FiftyOne's signature)
        """The fields that the run wrote."""
        return list(self.config.fields)

    def cleanup(self, samples: SampleCollection, key: str) -> None:
        """Remove all that the run wrote; FiftyOne forgets the run itself."""
        clear(samples._root_dataset, key, self.config)


class TransferRunResults(fors.RunResults):
    """`summary` and `identities` as of a `CrossModalResult`; `tagged` is empty: nothing is tagged."""


def transfer_view(
    view: SampleCollection, config: AuditConfig, progress: Progress | None = None, run: str = RUN
) -> CrossModalResult:
    """Measure which identities of a view are recalled in one modality but not in the other, and write it down.

    Where the dataset was audited, the rank correlation of MultiMem with recall is told too. Written are the fields
    `{run}_recall_SOURCE_TARGET`, `{run}_stays_in`, `{run}_recall_gap`, the saved view `{run}_one_sided` and the run
    itself. An earlier measurement of that key is taken away first.

    Args:
        view: of samples with two modalities; only these are changed.
        config: of which `label` names the field with the identity or class.
        progress: told of the stages of `measure_cross_modal_recall`, then "write".
        run: key of the measurement.

    Raises:
        AuditError: objects, no or too few identities, a name that is taken, or the database was lost.
    """
    from audit_plugin.crossmodal.cross_modal_recall import measure_cross_modal_recall, memorization_link

    if objects_field(view):
        raise AuditError("recall across modalities is measured on samples, not on the patches of their objects")
    config = replace(resolve(view, config), run=run)
    check_free(view._root_dataset, run)
    samples = read_samples(view, config)
    found = measure_cross_modal_recall(samples, config, progress)
    if memorized := _memorized(view._root_dataset):
        found.summary["memorization"] = memorization_link(found, memorized, samples.labels)
    write_transfer(view, samples, found, config, progress, run)
    return found


def write_transfer(
    view: SampleCollection,
    samples: Samples,
    found: CrossModalResult,
    config: AuditConfig,
    progress: Progress | None = None,
    run: str = RUN,
) -> None:
    """What `transfer_view` writes, of the samples `found` is about."""
    dataset = view._root_dataset
    with database(f"writing measurement {run!r} into dataset {dataset.name!r}", "start it again and repeat"):
        dataset.reload()
        if run in list_transfers(dataset):
            delete_transfer(dataset, run)
        result = _per_sample(samples, found)
        columns, place = field_values(result), place_of(view, result, config)
        record = _register(dataset, found, config, columns, place, run)
        write_fields(dataset, result.ids, place, run, columns, progress, _help)
        arrange_sidebar(dataset, run, record.fields)
        stays = F.any([F(f"{at}{run}_stays_in").exists() for at in places_of(dataset, place.slices)])
        one_sided = dataset.match(stays).sort_by(f"{run}_recall_gap", reverse=True)
        about = "Samples of identities that are recalled in one modality and not in the other"
        if f"{run}_stays_in" in record.fields:
            dataset.save_view(record.saved_view, one_sided, overwrite=True, description=about)
        record.status = "done"
        fors.Run.update_run_config(dataset, run, record)


def list_transfers(dataset: SampleCollection) -> list[str]:
    """Keys of the measurements of a dataset, the newest first."""
    root = dataset._root_dataset
    runs = root.list_runs(type=TransferRun)
    return sorted(runs, key=lambda run: root.get_run_info(run).timestamp, reverse=True)


def newest_transfer(dataset: SampleCollection) -> str:
    """Key of the newest measurement that was written to its end; "" where there is none."""
    root = dataset._root_dataset
    done = (run for run in list_transfers(root) if root.get_run_info(run).config.status == "done")
    return next(done, "")


def transfer_found(dataset: SampleCollection, run: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(summary, one record per identity, the largest gap first) of a measurement.

    Raises:
        AuditError: no such measurement.
    """
    root = dataset._root_dataset
    results = root.load_run_results(run, load_view=False) if run in list_transfers(root) else None
    if results is None:
        have = ", ".join(list_transfers(root)) or "none"
        raise AuditError(f"dataset {root.name!r} has no measurement of recall {run!r} (it has: {have})")
    return dict(results.summary), list(results.identities)


def people_view(dataset: SampleCollection, run: str, identities: Sequence[str]) -> fo.DatasetView:
    """The samples of some identities, the identity with the largest gap first."""
    root = dataset._root_dataset
    record = root.get_run_info(run).config
    field = record.settings["label"]
    kind = root.get_field(field)
    path = f"{field}.label" if isinstance(kind, fo.EmbeddedDocumentField) else field
    wanted: list[Any] = list(identities)
    if not isinstance(root.get_field(path), fo.StringField):  # identities were read as words
        wanted = [value for value in root.distinct(path) if str(value) in set(identities)]
    asked = root.match(F.any([F(f"{at}{run}_recall_gap").exists() for at in places_of(root, record.slices)]))
    return asked.match(F(path).is_in(wanted)).sort_by(f"{run}_recall_gap", reverse=True)


def delete_transfer(dataset: SampleCollection, run: str) -> None:
    """Take a measurement away: its fields, its saved view, its sidebar group and its record.

    Raises:
        AuditError: no such measurement, or the database was lost (repeat it then).
    """
    root = dataset._root_dataset
    if run not in list_transfers(root):
        raise AuditError(f"dataset {root.name!r} has no measurement of recall {run!r}")
    with database(f"deleting measurement {run!r}"):
        clear(root, run, root.get_run_info(run).config)
        fors.Run.delete_run(root, run, cleanup=False)


def check_free(dataset: fo.Dataset, run: str) -> None:
    """Make sure that nothing of somebody else bears a name that the measurement would write.

    Raises:
        AuditError: a run, field or saved view of that name is not a measurement's of that key.
    """
    mine = run in list_transfers(dataset)
    if not mine and run in dataset.list_runs():
        raise AuditError(f"run {run!r} of dataset {dataset.name!r} measures no recall; choose another run key")
    own = set(dataset.get_run_info(run).config.fields) if mine else set()
    fields = [name for name in dataset.get_field_schema() if name.startswith(f"{run}_recall_") and name not in own]
    fields += [name for name in (f"{run}_stays_in",) if dataset.has_sample_field(name) and name not in own]
    if fields:
        raise AuditError(f"field {fields[0]!r} of dataset {dataset.name!r} would be overwritten; choose another key")
    if not mine and dataset.has_saved_view(_saved_view(run)):
        raise AuditError(
            f"saved view {_saved_view(run)!r} of dataset {dataset.name!r} is in the way; choose another run key"
        )


def load_personas(name: str, folder: str | Path) -> fo.Dataset:
    """A persistent dataset of a drawn persona set: caption, identity, split, and each identity's traits and facts.

    Args:
        name: of the dataset; one of that name is replaced only if it was made of drawn rows too.
        folder: of `draw_personas`.

    Raises:
        AuditError: no persona set, a dataset of somebody else's, or the database was lost.
    """
    import csv

    from audit_plugin.inputs.manifest import read_manifest

    folder = Path(folder)
    rows = read_manifest(
        folder / "manifest.csv", {"image": "image", "text": "description"}, label="identity", split="split"
    )
    with (folder / "facts.csv").open(encoding="utf-8", newline="") as file:
        people = {record.pop("identity"): record for record in csv.DictReader(file)}
    fields: dict[str, tuple[str, Sequence[str]]] = {
        "identity": ("Name of the person drawn", rows.labels),
        "split": ("train: to learn names from; test: to ask with; background: to align on", rows.splits),
    }
    for fact in next(iter(people.values())):
        told = [people[who][fact] for who in rows.labels]
        fields[fact.replace(" ", "_")] = (f"The person's {fact}", told)
    return load_manifest_dataset(name, rows, fields)


def _register(
    dataset: fo.Dataset, found: CrossModalResult, config: AuditConfig, columns: Columns, place: Place, run: str
) -> TransferRunConfig:
    """Record the run with all that it is about to write, before any of it is written."""
    record = TransferRunConfig(
        settings=config.to_dict(),
        status="writing",
        fields=[place.path(run, column) for column in columns],
        saved_view=_saved_view(run),
        sidebar=all(group.name != run for group in dataset.app_config.sidebar_groups or []),
        slices=place.slices,
    )
    dataset.register_run(run, record)
    results = TransferRunResults(
        dataset, record, run, tagged={}, summary=found.summary, identities=list(found.identities)
    )
    fors.Run.save_run_results(dataset, run, results, cache=False)
    return record


def _memorized(dataset: fo.Dataset) -> dict[str, float]:
    """Sample id -> MultiMem of the newest audit that has it; empty where there is none."""
    for run in audits_newest_first(dataset):
        if dataset.has_sample_field(f"{run}_multimem"):
            ids, values = dataset.values(["id", f"{run}_multimem"])
            return {name: value for name, value in zip(ids, values, strict=True) if value is not None}
    return {}


def _per_sample(samples: Samples, found: CrossModalResult) -> AuditResult:
    """One row per sample: means over its texts, and what is said of its identity."""
    first = {name: at for at, name in reversed(list(enumerate(found.ids)))}
    ids = tuple(dict.fromkeys(found.ids))
    number = {name: at for at, name in enumerate(ids)}
    at = np.array([number[name] for name in found.ids])
    columns: dict[str, Any] = {}
    for name, values in found.columns.items():
        known = np.isfinite(values)
        total = np.bincount(at[known], values[known], len(ids))
        with np.errstate(invalid="ignore"):
            columns[name] = total / np.bincount(at[known], minlength=len(ids))
    people = {record["identity"]: record for record in found.identities}
    who = [people.get(samples.labels[first[name]]) if samples.labels else None for name in ids]
    columns["stays_in"] = np.array([one["stays_in"] if one else "" for one in who], dtype=object)
    columns["recall_gap"] = np.array([one["gap"] if one else np.nan for one in who], dtype=np.float64)
    return AuditResult(ids, columns, found.summary)


def _help(column: str) -> str:
    if column in HELP:
        return HELP[column]
    source, target = column.removeprefix("recall_").split("_")
    learned = "both modalities" if source == "both" else source
    return f"Share of seeds that named the sample's identity from its {target}, having learned names from {learned}"


def _saved_view(run: str) -> str:
    return f"{run}_one_sided"
