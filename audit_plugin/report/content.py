"""What a report says, as plain values, and where it comes from when there is no FiftyOne: a table of scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.review.spot_check import SpotEstimate

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ReportContent:
    """Everything a report is made from.

    Attributes:
        title: name of the dataset or table.
        samples: `n` rows: ids, which caption, and media (none where only the scores are at hand).
        columns: of the audit, each `[n]`, in the order of `samples`.
        summary: of the audit; what it lacks is left out of the report.
        explanations: sample id -> records (see `audit_plugin.audit.explain`), of flagged rows.
        decisions: one mapping per decision with `sample`, `caption` (position, default 0), `kind` and, as far as
            known, `text`, `reviewer`, `note`, `time`, `stale`.
        spot: what a spot check said, in place of the model's estimates; or None.
        made: when the report was made, for people.
        transfer: summary of a measurement of recall across modalities with one record per identity in `people`; {} for
            none.
    """

    title: str
    samples: Samples
    columns: Columns
    summary: Mapping[str, Any] = field(default_factory=dict)
    explanations: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    decisions: Sequence[Mapping[str, Any]] = ()
    spot: SpotEstimate | None = None
    made: str = ""
    transfer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if len(values) != len(self.samples):
                raise ValueError(f"column {name!r} has {len(values)} values for {len(self.samples)} rows")

    def numbers(self, column: str) -> NDArray[np.float64]:
        """float64 `[n]`: a score, NaN throughout where the audit has no such column."""
        return np.asarray(self.columns.get(column, np.full(len(self.samples), np.nan)), dtype=np.float64)

    def flags(self, kind: str) -> NDArray[np.bool_]:
        """bool `[n]`: the rows flagged as `kind`."""
        return np.asarray(self.columns.get(f"is_{kind}", np.zeros(len(self.samples))), dtype=bool)

    def words(self, column: str) -> NDArray[Any]:
        """object `[n]`: a column of texts, "" where there is none."""
        values = self.columns.get(column, np.full(len(self.samples), ""))
        return np.array(["" if value is None else str(value) for value in values], dtype=object)

    def word(self, column: str, row: int) -> str:
        """One cell of `words`."""
        value = self.columns[column][row] if column in self.columns else None
        return "" if value is None else str(value)


def now() -> str:
    """Date and time for people, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def report_of_table(
    path: str | Path, samples: Samples | None = None, transfer: Mapping[str, Any] | None = None
) -> ReportContent:
    """The report of what `audit-plugin score` wrote: the table, `<stem>.json` beside it, the run folder's explanations.

    Args:
        path: the Parquet file.
        samples: the rows of the manifest that was scored: the table holds neither captions nor paths. None: a report
            without them.
        transfer: as `ReportContent`.

    Raises:
        AuditError: no such table, not a table of scores, or the manifest is of other rows.
    """
    path = Path(path)
    columns = read_scores(path)
    ids = tuple(map(str, columns.pop("id")))
    numbers = tuple(int(i) for i in columns.pop("caption_index", ()))
    if samples is None:
        samples = Samples(ids, {}, caption=numbers)
    elif samples.ids != ids or samples.caption != numbers:
        raise AuditError(
            f"the manifest has {len(samples)} rows that are not the {len(ids)} of {path.name}; name the manifest that "
            "was scored"
        )
    summary = _summary(path.with_suffix(".json"))
    found = _explanations(str(summary.get("run_dir") or ""))
    summary["notes"] = [*summary.get("notes", ()), *found.get("notes", ())]
    return ReportContent(
        path.name, samples, columns, summary, found.get("samples", {}), made=now(), transfer=transfer or {}
    )


def read_transfer(path: str | Path) -> dict[str, Any]:
    """The report that `audit-plugin transfer` wrote, with the identities of the table beside it.

    Raises:
        AuditError: no such report.
    """
    import csv

    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_hook=_unknown)
        if not isinstance(found, dict) or "recall" not in found or "modalities" not in found:
            raise ValueError("it holds no recall")
        with path.with_name(f"{path.stem}-identities.csv").open(encoding="utf-8", newline="") as file:
            return found | {"people": [_record(row) for row in csv.DictReader(file)]}
    except (OSError, ValueError, KeyError) as error:
        raise AuditError(
            f"{str(path)!r} and {path.stem}-identities.csv are no report of audit-plugin transfer ({error}); name its "
            ".json"
        ) from None


def _unknown(cell: dict[str, Any]) -> dict[str, Any]:
    """Numbers that are not known are null in JSON, which has no NaN."""
    return {name: float("nan") if value is None else value for name, value in cell.items()}


def _record(row: Mapping[str, str]) -> dict[str, Any]:
    return {k: float(v or "nan") if k == "gap" or k.startswith("recall_") else v for k, v in row.items()}


def read_scores(path: str | Path) -> dict[str, NDArray[Any]]:
    """Column -> values `[n]` of a Parquet table that `audit-plugin score` wrote, `id` first.

    Raises:
        AuditError: no such file, or not such a table.
    """
    import pyarrow.lib
    import pyarrow.parquet

    path = Path(path)
    try:
        table = pyarrow.parquet.read_table(path)
    except FileNotFoundError:
        raise AuditError(f"{str(path)!r} does not exist; name a table that audit-plugin score wrote") from None
    except (pyarrow.lib.ArrowException, OSError, UnicodeDecodeError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AuditError(
            f"{path.name} cannot be read as Parquet ({why}); score again with --out NAME.parquet"
        ) from None
    if missing := [name for name in ("id", "misalignment", "action") if name not in table.column_names]:
        raise AuditError(f"{path.name} has no column {missing[0]!r}; name a table that audit-plugin score wrote")
    return {name: table[name].to_numpy() for name in table.column_names}


def _summary(path: Path) -> dict[str, Any]:
    """The summary beside a table; empty where it was not kept."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"notes": [f"{path.name} is not beside the table: estimates, settings and versions are not known"]}
    except (OSError, ValueError) as error:
        raise AuditError(f"{path.name} cannot be read ({error}); score again, or remove it") from None
    if not isinstance(found, dict):
        raise AuditError(f"{path.name} holds no summary of an audit; score again, or remove it")
    return found


def _explanations(run_dir: str) -> dict[str, Any]:
    """Of the run folder; empty where it is gone."""
    from audit_plugin.audit.explain import load_explanations

    try:
        return dict(load_explanations(run_dir)) if run_dir else {}
    except AuditError:
        return {"notes": [f"the run folder {run_dir} holds no explanations any more: neighbors and words are left out"]}
