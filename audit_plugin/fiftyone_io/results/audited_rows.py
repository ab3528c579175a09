"""The rows of an audited dataset with their scores and decisions, as an export to files takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fiftyone.core.collections import SampleCollection
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.export import ExportReport, Progress, RowSource, Rules, SamplesSource, export_rows
from audit_plugin.audit.export.plan import NEEDED, Key, ScoreTable, Verdict
from audit_plugin.audit.export.rows import AuditedRow
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io.database import batches, database
from audit_plugin.fiftyone_io.ledger.decisions import decisions
from audit_plugin.fiftyone_io.ledger.entries import read_head
from audit_plugin.fiftyone_io.read.samples import read_samples
from audit_plugin.fiftyone_io.read.sources import modality_sources
from audit_plugin.fiftyone_io.runs import audit_info, audited_items, settings_of
from audit_plugin.inputs.formats import Layout
from audit_plugin.inputs.formats.datacomp import UID
from audit_plugin.review import verdicts
from audit_plugin.scoring.columns import LIST

from .tables import audit_summary, read_columns, read_fact

AT_ONCE = 10_000  # samples that are in memory at a time
IMPORTED_ID = "manifest_id"  # field with the ids of a table of scores that was imported


def export_audited(
    dataset: SampleCollection,
    run: str,
    to: str | Path,
    format: str = "",  # noqa: A002 (as the option is called)
    rules: Rules | None = None,
    decided: Mapping[Key, Verdict] | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> ExportReport:
    """Writes the rows of an audited dataset that stay, with the decisions of its review, to a new file or folder.

    Args:
        dataset: the dataset, or a view of it: all audited rows are exported.
        run: key of the audit.
        to: the new place; a name that ends in .zip is a folder, packed.
        format: one of `inputs.formats.FORMATS`; "": by the ending of `to`.
        rules: what is removed and relabeled; None: what the audit proposes is removed, and nothing is relabeled.
        decided: more decisions by id and position of the caption, which overrule those of the dataset.
        progress: called with (stage, rows done, rows).
        dry_run: nothing is written.

    Raises:
        AuditError: no such audit, the place is taken, or a rule cannot be followed.
    """
    table, rows, of_review = audited_rows(dataset, run)
    return export_rows(table, rows, Path(to), format, rules, {**of_review, **(decided or {})}, progress, dry_run)


def count_exported(dataset: SampleCollection, run: str, relabel: bool) -> ExportReport:
    """What `export_audited` would write and remove now; counted once per state of the dataset and its decisions."""
    root, rules = dataset._root_dataset, Rules(relabel=relabel)
    with database(f"reading the decisions on dataset {root.name!r}"):
        head = read_head(root)
    return read_fact(
        dataset,
        run,
        f"exported, relabel {relabel}, decisions {head.number} {head.gaps}",
        lambda: export_audited(dataset, run, "counted.jsonl", "jsonl", rules, dry_run=True),
    )


def audited_rows(dataset: SampleCollection, run: str) -> tuple[ScoreTable, RowSource, dict[Key, Verdict]]:
    """(scores, rows with their contents of now, decisions of people), all by the ids of samples or objects.

    Raises:
        AuditError: no such audit, nothing of it is left, or a list of captions changed since.
    """
    record, items = audit_info(dataset, run), audited_items(dataset, run)
    root = items.dataset
    names = [name for name in items.columns if name.removesuffix(LIST) in NEEDED or name.startswith("is_")]
    columns = dict(read_columns(root, run, ["id", *(name for name in names if name != "caption_index")]))
    config, name = settings_of(record), f"audit {run!r}"
    summary = {"config": config.to_dict(), **audit_summary(root, run)}
    with database(f"reading audit {run!r} of dataset {root.name!r}"):
        entries = list(decisions(root))
        is_streamed = items.are_samples and not any(source.many for source in modality_sources(root, config).values())
        if is_streamed and len(columns["id"]):
            ids = columns.pop("id")
            columns = {column: values for column, values in columns.items() if not column.endswith(LIST)}
            scores = ScoreTable(ids, np.zeros(0, dtype=np.int64), columns, summary, name)
            return scores, StreamedSamples(root, config, ids.tolist()), verdicts(entries)
        audited = root if items.slices else items.where(lambda column: column("action").exists())
        samples = read_samples(audited, config, only_media=True)
    position_of = {name: position for position, name in enumerate(columns.pop("id"))}
    positions = np.array([position_of.get(name, -1) for name in samples.ids], dtype=np.int64)
    if (positions < 0).any():
        name = samples.ids[int(np.flatnonzero(positions < 0)[0])]
        raise AuditError(f"sample {name} of dataset {root.name!r} has no scores of audit {run!r}; run the audit again")
    if samples.caption:
        _check_lists(columns, samples, positions, run)
    table = {name: _of_rows(name, columns, positions, samples.caption) for name in columns if not name.endswith(LIST)}
    captions = np.array(samples.caption, dtype=np.int64)
    scores = ScoreTable(np.array(samples.ids, dtype=object), captions, table, summary, name)
    return scores, SamplesSource(samples), verdicts(entries)


class StreamedSamples:
    """The rows of samples with one text each, of which `AT_ONCE` are in memory at a time.

    Args:
        root: the dataset.
        config: of the audit.
        ids: of the samples, in the order of the table of scores.
    """

    is_shards = False

    def __init__(self, root: SampleCollection, config: AuditConfig, ids: Sequence[str]) -> None:
        self.name, self._root, self._config, self._ids = f"dataset {root.name!r}", root, config, ids
        self._uid = next((field for field in (UID, IMPORTED_ID) if root.has_sample_field(field)), "")

    def layout(self, folder: Path, needs_columns: bool, listed: bool) -> Layout:
        first = SamplesSource(self._samples(self._ids[:1])).layout(folder, needs_columns, listed)
        return replace(first, header=(*first.header, UID)) if self._uid else first

    def rows(self) -> Iterator[AuditedRow]:
        """The rows as they are in the dataset now.

        Raises:
            AuditError: a sample is gone, or the database was lost.
        """
        for batch in batches(self._ids, AT_ONCE):
            rows = {row.ids[0]: row for row in SamplesSource(self._samples(batch)).rows()}
            uids = self._uids(batch) if self._uid else {}
            for name in batch:
                if name not in rows:
                    raise AuditError(f"sample {name} of {self.name} was deleted while it was exported; export again")
                row = rows[name]
                yield replace(row, fields={**row.fields, UID: uids.get(name)}) if self._uid else row

    def _samples(self, ids: Sequence[str]) -> Samples:
        return read_samples(self._root.select(list(ids)), self._config, only_media=True)

    def _uids(self, ids: Sequence[str]) -> dict[str, Any]:
        with database(f"reading {self.name}"):
            return dict(zip(*self._root.select(list(ids)).values(["id", self._uid]), strict=True))


def imported_verdicts(dataset: SampleCollection) -> dict[Key, Verdict]:
    """Decisions of people on a dataset that `import_scores` made, by the ids of the table of scores.

    Raises:
        AuditError: the dataset was made otherwise.
    """
    root = dataset._root_dataset
    if not root.has_sample_field(IMPORTED_ID):
        raise AuditError(
            f"dataset {root.name!r} was not made by audit-plugin import: its samples have no field manifest_id; name "
            "the one that was"
        )
    with database(f"reading the decisions on dataset {root.name!r}"):
        ids, manifest_ids = root.values(["id", IMPORTED_ID])
        entries = list(decisions(root))
    return verdicts(entries, dict(zip(ids, manifest_ids, strict=True)))


def _of_rows(
    name: str, columns: Mapping[str, NDArray[Any]], positions: NDArray[Any], captions: tuple[int, ...]
) -> NDArray[Any]:
    """A column with a value per caption, where the audit stored one: else that of the sample."""
    lists = columns.get(f"{name}{LIST}") if captions else None
    values = columns[name][positions].copy()
    if lists is not None:
        for row, (position, caption) in enumerate(zip(positions, captions, strict=True)):
            value = lists[position][caption]
            values[row] = ("" if values.dtype == object else np.nan) if value is None else value
    return values


def _check_lists(columns: Mapping[str, NDArray[Any]], samples: Samples, positions: NDArray[Any], run: str) -> None:
    """Raises `AuditError` where a sample has not as many captions as were scored."""
    lists = columns.get(f"action{LIST}")
    counts = np.bincount(positions, minlength=int(positions.max()) + 1)
    for row, position in enumerate(positions):
        scored = lists[position] if lists is not None else None
        if scored is None or len(scored) != counts[position]:
            raise AuditError(
                f"sample {samples.ids[row]} has {counts[position]} captions, and audit {run!r} scored "
                f"{0 if scored is None else len(scored)}; run the audit again"
            )
