"""An audit as a FiftyOne custom run: listed, loaded and deleted like any other, with all that it wrote.

FiftyOne stores the dotted paths of these classes in the database, so neither they nor this module may be moved.
"""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.core.runs as fors
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig

from .database import database
from .read.items import AuditedItems


class AuditRunConfig(fors.RunConfig):
    """The settings of an audit and what it owns in the dataset.

    Attributes set from keywords: settings (the AuditConfig), status ("writing" or "done"), run_dir, fields, tags,
    saved_view, sidebar (whether the sidebar group was made by the run), slices (those of a grouped dataset that it
    wrote on; empty for any other), label_field (the field on whose objects it wrote; "" if it wrote on samples),
    thresholds (kind of flag -> the threshold that a person set; absent if none was).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"method": "audit", "slices": [], "label_field": "", **kwargs})


class OwningRun(fors.Run):
    """Removes what the run wrote when it is deleted, by `dataset.delete_run` too."""

    def get_fields(self, samples: SampleCollection, key: str) -> list[str]:  # noqa: ARG002 (FiftyOne's signature)
        """The fields that the run wrote; of objects the field that holds them, which every view of them has."""
        return [self.config.label_field] if self.config.label_field else list(self.config.fields)

    def cleanup(self, samples: SampleCollection, key: str) -> None:
        """Remove all that the run wrote; FiftyOne forgets the run itself."""
        clear(samples._root_dataset, key, self.config)


class AuditRun(OwningRun):
    """An audit."""


class AuditRunResults(fors.RunResults):
    """`tagged`: tag -> ids of the samples (of objects: the labels) tagged; `summary`: counts, versions; `run_dir`.

    `explanations`: why each flagged sample was flagged (`audit_plugin.audit.explain`), stored here too, since the App
    may run where the run folder is not. `own`: the audit's own flags and suggested actions of the rows that thresholds
    changed; absent if no threshold was set.
    """

    def get_meta(self) -> dict[str, Any]:
        """Counts, readable without loading the lists of ids."""
        return {"tagged": {tag: len(ids) for tag, ids in self.tagged.items()}}


def list_audits(samples: SampleCollection) -> list[str]:
    """Keys of the audits of a dataset, finished or not, sorted."""
    return list(samples._root_dataset.list_runs(type=AuditRun))


def newest_first(dataset: fo.Dataset, runs: list[str]) -> list[str]:
    """The keys of runs by the time when they were registered, the newest first."""
    return sorted(runs, key=lambda run: dataset.get_run_info(run).timestamp, reverse=True)


def audits_newest_first(dataset: SampleCollection) -> list[str]:
    """Keys of the audits of a dataset, the newest first."""
    return newest_first(dataset._root_dataset, list_audits(dataset))


def audit_info(samples: SampleCollection, run: str) -> AuditRunConfig:
    """What is recorded of an audit: settings, status, fields, tags, run_dir.

    Raises:
        AuditError: the dataset has no audit of that key.
    """
    audits = list_audits(samples)
    if run not in audits:
        have = f"its audits are {', '.join(audits)}" if audits else "it has none"
        raise AuditError(f"dataset {samples._root_dataset.name!r} has no audit {run!r}; {have}")
    return samples._root_dataset.get_run_info(run).config


def audited_items(samples: SampleCollection, run: str) -> AuditedItems:
    """What an audit wrote on.

    Raises:
        AuditError: the dataset has no audit of that key.
    """
    return items_of(samples._root_dataset, run, audit_info(samples, run))


def items_of(dataset: fo.Dataset, run: str, record: Any) -> AuditedItems:
    """What the run of a record wrote on."""
    return AuditedItems(dataset, run, record.label_field, tuple(record.slices), tuple(record.fields))


def settings_of(record: AuditRunConfig) -> AuditConfig:
    """The settings of a run of this version or a former one."""
    return AuditConfig.from_dict(record.settings)


def delete_audit(dataset: SampleCollection, run: str) -> None:
    """Delete an audit: its fields, its own tags, its saved view, its sidebar group and its record.

    Decisions, the user's own fields and tags, and other audits stay.

    Raises:
        AuditError: no such audit, or the database was lost (repeat it then).
    """
    root = dataset._root_dataset
    with database(f"deleting audit {run!r}"):
        root.reload()
        # FiftyOne only logs an error of the cleanup and forgets the run: clean up first, where an error stops all
        clear(root, run, audit_info(root, run))
        fors.Run.delete_run(root, run, cleanup=False)


def clear(dataset: fo.Dataset, run: str, record: Any) -> None:
    """Remove everything that a run wrote. Each step may be repeated, so the next call completes a broken one."""
    results = dataset.load_run_results(run, cache=False, load_view=False)
    items = items_of(dataset, run, record)
    for tag, ids in (results.tagged if results else {}).items():
        items.untag(ids, tag)
    if dataset.has_saved_view(record.saved_view):
        dataset.delete_saved_view(record.saved_view)
    dataset.delete_sample_fields([f for f in record.fields if dataset.has_sample_field(f)])
    if record.sidebar:
        _drop_sidebar_group(dataset, run)


def _drop_sidebar_group(dataset: fo.Dataset, run: str) -> None:
    app = dataset.app_config
    if not app.sidebar_groups:
        return  # interrupted before they were arranged
    groups = [g for g in app.sidebar_groups if g.name != run or g.paths]
    default = fo.DatasetAppConfig.default_sidebar_groups(dataset)
    # None means "the default groups": what it was before, unless the user has arranged groups of their own
    same = [(g.name, list(g.paths)) for g in groups] == [(g.name, list(g.paths)) for g in default]
    app.sidebar_groups = None if same else groups
    dataset.save()
