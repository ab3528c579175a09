"""The content of a report as plain values, how it is read from a table of scores, and the part of it to review."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Ints, Samples, count_text
from audit_plugin.config import current_names
from audit_plugin.inputs.files import first_line
from audit_plugin.inputs.remote import is_remote, name_of
from audit_plugin.inputs.rows import brief
from audit_plugin.inputs.spreadsheet import original
from audit_plugin.inputs.tables import read_json, read_table
from audit_plugin.review import queue
from audit_plugin.review.flag_quality import Calibration
from audit_plugin.review.headline import KindProgress
from audit_plugin.review.spot_check import SpotEstimate
from audit_plugin.scoring.columns import all_columns
from audit_plugin.store import Damaged, cache_root, open_regular
from audit_plugin.store import read_json as stored_json
from audit_plugin.store.runs import ABOUT

Columns = Mapping[str, NDArray[Any]]
COLUMN = re.compile(r"[a-z][a-z0-9_]{0,99}")  # names of columns that an audit writes
IDENTITIES = 1_000_000
NOTES = 100
# What a summary holds, as far as the readers of it go by name
SHAPES: Mapping[str, type] = {
    "config": dict,
    "notes": list,
    "repairs": list,
    "run_dir": str,
    "manifest": str,
    **dict.fromkeys(("versions", "seconds", "neighbors", "encoder", "flags", "probe_recall", "attribution"), dict),
    **dict.fromkeys(("estimated", "memorized"), dict),
}


@dataclass(frozen=True)
class TextChange:
    """A caption that a reviewer replaced: of which sample or object, old, new, and whether it was applied."""

    id: str
    before: str
    after: str
    is_applied: bool


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
        media_source: what names the media of the samples, such as "column image of m.csv"; "" where there are none.
        thresholds: kind of flag -> the threshold that a person set, where one did.
        calibration: of that threshold of misaligned pairs, where labels were found to keep a precision at it; or None.
        progress: how far the review is, of all findings and of each kind; () where there is no review.
        relabels: the captions that reviewers replaced.
        to_apply: number of changes that decisions ask for and that were not applied yet.
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
    media_source: str = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    calibration: Calibration | None = None
    progress: Sequence[KindProgress] = ()
    relabels: Sequence[TextChange] = ()
    to_apply: int = 0

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
    path: str | Path,
    samples: Samples | None = None,
    cross_modal: Mapping[str, Any] | None = None,
    run_dir: str | Path | None = None,
    media_source: str = "",
) -> ReportContent:
    """The report of a Parquet table that `audit-plugin score` wrote, with its summary and explanations.

    A table may come from elsewhere. Of the files that its summary names, only the explanations in the run folder are
    read, and only if that folder lies beside the table or is a default one, in the cache.

    Args:
        path: the table; its summary is `<stem>.json` beside it.
        samples: the rows of the manifest that was scored, with captions and paths, which the table lacks.
        cross_modal: see `read_cross_modal`.
        run_dir: run folder with the explanations, instead of the recorded one.
        media_source: see `ReportContent`.

    Raises:
        AuditError: the table is missing or not one of scores, or the manifest has other rows.
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
    explained = _explanations_beside(path, summary, run_dir)
    return ReportContent(
        path.name,
        samples,
        columns,
        summary,
        explained.get("samples", {}),
        made=now(),
        cross_modal=cross_modal or {},
        media_source=media_source,
    )


def _explanations_beside(path: Path, summary: dict[str, Any], run_dir: str | Path | None) -> Mapping[str, Any]:
    """The explanations in the run folder of a table, {} where they are not read; `summary` gets a note on it."""
    from audit_plugin.audit.explain import load_explanations

    notes = [*summary.get("notes", ())]
    explained: Mapping[str, Any] = {}
    recorded = summary.get("run_dir")
    if run_dir is None and recorded and not _belongs_to(path, recorded):
        notes.append(
            f"the run folder {recorded} lies elsewhere and was not read: neighbors and marked words are left out, "
            "unless it is named by --run-dir"
        )
        recorded = summary["run_dir"] = ""
    if folder := run_dir or recorded:
        try:
            explained = load_explanations(folder)
        except AuditError:
            notes.append(f"the run folder {folder} has no explanations: neighbors and marked words are left out")
        notes += explained.get("notes", ())
    summary["notes"] = notes
    return explained


def recorded_manifest(table: str | Path) -> str:
    """The manifest that the summary beside a table names, if it is read without being asked for; else "".

    A table may come from elsewhere, and a report goes to others: the manifest lies in the folder of the table, or was
    scored by a run in the cache, which is this user's own.
    """
    table, summary = Path(table), read_summary(table)
    if not (recorded := summary.get("manifest")):
        return ""
    manifest = name_of(recorded)
    if not is_remote(manifest) and Path(os.path.realpath(manifest)).is_relative_to(os.path.realpath(table.parent)):
        return manifest
    run = Path(summary.get("run_dir") or "")
    with contextlib.suppress(OSError, Damaged):
        is_own = Path(os.path.realpath(run)).parent == Path(os.path.realpath(cache_root() / "runs"))
        if is_own and stored_json(run / ABOUT, ABOUT)[0].get("source") == f"manifest {manifest}":
            return manifest
    return ""


def _belongs_to(table: Path, run_dir: str) -> bool:
    """Whether a run folder lies beside the table, or is a default one, whose name nobody knows without the data."""
    place = Path(os.path.realpath(run_dir))
    beside, runs = os.path.realpath(table.parent), os.path.realpath(cache_root() / "runs")
    return place.is_relative_to(beside) or place.is_relative_to(runs)


def read_cross_modal(path: str | Path) -> dict[str, Any]:
    """The report that `audit-plugin cross-modal` wrote, with the table of identities beside it as `people`."""
    path = Path(path)
    table = path.with_name(f"{path.stem}-identities.csv")
    try:
        summary = _null_as_nan(read_json(path))  # JSON has no NaN
        if "recall" not in summary or "modalities" not in summary:
            raise ValueError("it has no recall")
        with io.TextIOWrapper(open_regular(table), "utf-8", newline="") as file:
            people = [_identity(row) for row in itertools.islice(csv.DictReader(file), IDENTITIES)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise AuditError(
            f"{str(path)!r} and {path.stem}-identities.csv are not a report of audit-plugin cross-modal "
            f"({first_line(error)}); name its .json"
        ) from None
    return summary | {"people": people}


def _null_as_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: float("nan") if inner is None else _null_as_nan(inner) for name, inner in value.items()}
    return [_null_as_nan(inner) for inner in value] if isinstance(value, list) else value


def _identity(row: Mapping[str, str]) -> dict[str, Any]:
    return {k: float(v or "nan") if k == "gap" or k.startswith("recall_") else original(v) for k, v in row.items()}


def read_scores(path: str | Path, is_wanted: Callable[[str], bool] | None = None) -> dict[str, NDArray[Any]]:
    """Column -> values `[n]` of a Parquet table that `audit-plugin score` wrote; `AuditError` if it is not one.

    `is_wanted`: whether a column of a name is read; None: all are.
    """
    path = Path(path)
    if not path.exists():
        raise AuditError(f"{str(path)!r} does not exist; name a table written by audit-plugin score")
    columns, _ = read_table(path, is_wanted)
    if missing := [name for name in ("id", "misalignment", "action") if name not in columns]:
        raise AuditError(f"{path.name} has no column {missing[0]!r}; name a table written by audit-plugin score")
    kinds = {column.name: column.kind for column in all_columns().values()} | {"id": "text", "caption_index": "score"}
    for name in kinds.keys() & columns.keys():
        expected = {"score": "fiu", "flag": "b", "text": "O"}[kinds[name]]
        if len(columns[name]) and columns[name].dtype.kind not in expected:
            raise AuditError(
                f"{path.name}: column {name!r} holds {columns[name].dtype}, not what audit-plugin score writes"
            )
    if "caption_index" in columns and not np.isfinite(columns["caption_index"]).all():
        raise AuditError(f"{path.name}: column 'caption_index' has empty cells; name a table written by score")
    return {name: values for name, values in columns.items() if COLUMN.fullmatch(name)}


def read_summary(table: str | Path) -> dict[str, Any]:
    """The summary beside a table of scores, under the current names; only a note if it is missing.

    Raises:
        AuditError: it cannot be read, or is not the summary of an audit, or not that of the table.
    """
    table = Path(table)
    path = table.with_suffix(".json")
    try:
        summary = current_names(read_json(path))
    except FileNotFoundError:
        return {"notes": [f"{path.name} is not beside the table: estimates, settings and versions are unknown"]}
    digest = summary.pop("table_sha256", None)
    if digest and table.is_file() and digest != _digest(table):
        raise AuditError(
            f"{path.name} is not the summary of {table.name} as it is now: a run stopped between the two, or one of "
            f"them was changed; score again, or remove {path.name}"
        )
    for name, kind in SHAPES.items():
        if not isinstance(summary.get(name), kind | None):
            raise AuditError(
                f"{path.name} is not the summary of an audit ({name!r} is {brief(summary[name])}); score again, or "
                "remove it"
            )
    summary["notes"] = [str(note) for note in (summary.get("notes") or [])[:NOTES]]
    return summary


@contextlib.contextmanager
def as_written(name: str) -> Iterator[None]:
    """Reports values of a form that an audit does not write, in what was read beside a table, as an `AuditError`."""
    try:
        yield
    except AuditError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise AuditError(
            f"what was read with {name} does not have the form that audit-plugin score writes "
            f"({type(error).__name__}: {first_line(error)}); score again"
        ) from error


def _digest(path: Path) -> str:
    with open_regular(path) as file:
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
    from audit_plugin.audit.result import count_outcomes  # with it come models

    rows, total = len(columns["action"]), len(content.samples)
    note = f"{rows:,} of the {count_text(total, 'row')} of {content.title} were imported; estimates are of all of them"
    notes = [note, *content.summary.get("notes", ())]
    return {**content.summary, "samples": rows, **count_outcomes(columns), "notes": notes}
