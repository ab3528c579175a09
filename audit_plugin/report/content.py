"""The content of a report as plain values, how it is read from a table of scores, and the part of it to review."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Ints, Samples
from audit_plugin.audit.result import count_outcomes
from audit_plugin.config import current_names
from audit_plugin.inputs.spreadsheet import original
from audit_plugin.inputs.tables import read_table
from audit_plugin.review import queue
from audit_plugin.review.spot_check import SpotEstimate

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report is made from.

    Attributes:
        title: name of the dataset or table.
        samples: `n` rows: ids, which caption, and media (none where only the scores are at hand).
        columns: of the audit, each `[n]`, in the order of `samples`.
        summary: of the audit; sections without values are left out of the report.
        explanations: sample id -> records (see `audit_plugin.audit.explain`), of flagged rows.
        decisions: one mapping per decision with `sample`, `caption` (position, default 0), `kind` and, as far as
            known, `text`, `reviewer`, `note`, `time`, `stale`.
        spot: estimate of a spot check, which replaces the model's; or None.
        made: date and time of the report.
        cross_modal: summary of a cross-modal recall measurement, with one record per identity in `people`; {}: none.
    """

    title: str
    samples: Samples
    columns: Columns
    summary: Mapping[str, Any] = field(default_factory=dict)
    explanations: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    decisions: Sequence[Mapping[str, Any]] = ()
    spot: SpotEstimate | None = None
    made: str = ""
    cross_modal: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if len(values) != len(self.samples):
                raise ValueError(f"column {name!r} has {len(values)} values for {len(self.samples)} rows")

    def numbers(self, column: str) -> NDArray[np.float64]:
        """float64 `[n]`: a score, all NaN if the audit has no such column."""
        return np.asarray(self.columns.get(column, np.full(len(self.samples), np.nan)), dtype=np.float64)

    def flags(self, kind: str) -> NDArray[np.bool_]:
        """bool `[n]`: the rows flagged as `kind`."""
        return np.asarray(self.columns.get(f"is_{kind}", np.zeros(len(self.samples))), dtype=bool)

    def texts(self, column: str) -> NDArray[Any]:
        """object `[n]`: a column of texts, all "" if there is none."""
        values = self.columns.get(column, np.full(len(self.samples), ""))
        return np.array(["" if value is None else str(value) for value in values], dtype=object)

    def text(self, column: str, row: int) -> str:
        """One cell of `texts`."""
        value = self.columns[column][row] if column in self.columns else None
        return "" if value is None else str(value)


def now() -> str:
    """Current date and time in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def report_of_table(
    path: str | Path, samples: Samples | None = None, cross_modal: Mapping[str, Any] | None = None
) -> ReportContent:
    """The report of a Parquet table that `audit-plugin score` wrote, with its summary and explanations.

    `samples` are the rows of the manifest that was scored, with captions and paths, which the table lacks. Raises
    `AuditError` if the table is missing or not one of scores, or the manifest has other rows.
    """
    path = Path(path)
    columns = read_scores(path)
    ids = tuple(map(str, columns.pop("id")))
    captions = tuple(int(i) for i in columns.pop("caption_index", ()))
    if samples is None:
        samples = Samples(ids, {}, caption=captions)
    elif samples.ids != ids or samples.caption != captions:
        raise AuditError(
            f"the manifest has {len(samples)} rows that are not the {len(ids)} of {path.name}; name the manifest that "
            "was scored"
        )
    summary = read_summary(path)
    notes = [*summary.get("notes", ())]
    explained: Mapping[str, Any] = {}
    if run_dir := summary.get("run_dir"):
        from audit_plugin.audit.explain import load_explanations

        try:
            explained = load_explanations(run_dir)
        except AuditError:
            notes.append(f"the run folder {run_dir} has no explanations: neighbors and marked words are left out")
        notes += explained.get("notes", ())
    summary["notes"] = notes
    return ReportContent(
        path.name, samples, columns, summary, explained.get("samples", {}), made=now(), cross_modal=cross_modal or {}
    )


def read_cross_modal(path: str | Path) -> dict[str, Any]:
    """The report that `audit-plugin cross-modal` wrote, with the table of identities beside it as `people`."""
    path = Path(path)
    try:
        summary = json.loads(path.read_text(encoding="utf-8"), object_hook=_null_as_nan)  # JSON has no NaN
        if not isinstance(summary, dict) or "recall" not in summary or "modalities" not in summary:
            raise ValueError("it has no recall")
        with path.with_name(f"{path.stem}-identities.csv").open(encoding="utf-8", newline="") as file:
            people = [_identity(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError) as error:
        raise AuditError(
            f"{str(path)!r} and {path.stem}-identities.csv are not a report of audit-plugin cross-modal ({error}); "
            "name its .json"
        ) from None
    return summary | {"people": people}


def _null_as_nan(record: dict[str, Any]) -> dict[str, Any]:
    return {name: float("nan") if value is None else value for name, value in record.items()}


def _identity(row: Mapping[str, str]) -> dict[str, Any]:
    return {k: float(v or "nan") if k == "gap" or k.startswith("recall_") else original(v) for k, v in row.items()}


def read_scores(path: str | Path) -> dict[str, NDArray[Any]]:
    """Column -> values `[n]` of a Parquet table that `audit-plugin score` wrote; `AuditError` if it is not one."""
    path = Path(path)
    if not path.exists():
        raise AuditError(f"{str(path)!r} does not exist; name a table written by audit-plugin score")
    columns, _ = read_table(path)
    if missing := [name for name in ("id", "misalignment", "action") if name not in columns]:
        raise AuditError(f"{path.name} has no column {missing[0]!r}; name a table written by audit-plugin score")
    return columns


def read_summary(table: Path) -> dict[str, Any]:
    """The summary beside a table of scores, under the current names; only a note if it is missing.

    Raises:
        AuditError: it cannot be read, or is the summary of another table.
    """
    path = table.with_suffix(".json")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"notes": [f"{path.name} is not beside the table: estimates, settings and versions are unknown"]}
    except (OSError, ValueError) as error:
        raise AuditError(f"{path.name} cannot be read ({error}); score again, or remove it") from None
    if not isinstance(summary, dict):
        raise AuditError(f"{path.name} is not the summary of an audit; score again, or remove it")
    digest = summary.pop("table_sha256", None)
    if digest and table.is_file() and digest != _digest(table):
        raise AuditError(
            f"{path.name} is not the summary of {table.name} as it is now: a run stopped between the two, or one of "
            f"them was changed; score again, or remove {path.name}"
        )
    return current_names(summary)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def choose_rows(content: ReportContent, medium: str, kinds: Sequence[str], rows: int | None, others: int) -> Ints:
    """Positions of the rows that a reviewer needs, ascending; a sample with a list of texts comes with all of them.

    The random rows without flags are for spot checks, which estimate from them what was missed.

    Args:
        content: of the audit.
        medium: modality that a row must have.
        kinds: flags of which a row must have one; none: all that a review would show.
        rows: flagged rows at most, the most suspicious first; None for all.
        others: random rows that are not flagged.
    """
    samples, suspicious = content.samples, queue(content.columns)
    flagged = (queue(content.columns, kinds) if kinds else suspicious)[:rows]
    names = {samples.ids[row] for row in flagged}
    for sample in list(names):
        names.update(named_ids(content.explanations.get(sample, ())))
    group = content.texts("duplicate_group")
    names.update(str(group[row]) for row in flagged if group[row])
    unflagged = content.texts("failure") == ""
    unflagged[suspicious] = False
    rest = np.flatnonzero(unflagged)
    drawn = np.random.default_rng(0).choice(rest, min(others, len(rest)), replace=False)
    names.update(samples.ids[row] for row in drawn)
    files = samples.media[medium]
    return np.array([row for row, sample in enumerate(samples.ids) if sample in names and files[row]], dtype=np.int64)


def named_ids(explanation: Any, key: str = "") -> Iterator[str]:
    """The ids of samples that explanations name."""
    if isinstance(explanation, Mapping):
        for name, inner in explanation.items():
            yield from named_ids(inner, name)
    elif isinstance(explanation, list | tuple):
        for inner in explanation:
            yield from named_ids(inner, key)
    elif key in ("id", "duplicates", "conflicts"):
        yield str(explanation)


def subset_summary(content: ReportContent, columns: Columns) -> dict[str, Any]:
    """The audit's summary with the counts of some of its rows; estimates stay those of the whole."""
    rows, total = len(columns["action"]), len(content.samples)
    note = f"{rows:,} of the {total:,} rows of {content.title} were imported; estimates are of all of them"
    notes = [note, *content.summary.get("notes", ())]
    return {**content.summary, "samples": rows, **count_outcomes(columns), "notes": notes}
