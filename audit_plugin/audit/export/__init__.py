"""Exports what an audit leaves of a data set: rows are removed and relabeled, and the reasons are written beside it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit_plugin.arrays import MODALITIES, AuditError
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.formats import ARCHIVE, ExportSample, Format, Layout, Writer, format_of
from audit_plugin.inputs.formats.parquet import RowTable
from audit_plugin.inputs.readers import DATASHEET, RELABELED, REMOVED

from .datasheet import RELABELED_COLUMNS, REMOVED_COLUMNS, ExportReport, datasheet
from .places import Place, opened_place
from .plan import UNREADABLE, ExportPlan, Key, Rules, ScoreTable, Verdict, plan_export
from .rows import AuditedRow, ManifestSource, RowSource, SamplesSource, folder_of, manifest_source, recorded_place

__all__ = [
    "ExportReport",
    "Key",
    "ManifestSource",
    "Progress",
    "RowSource",
    "Rules",
    "SamplesSource",
    "ScoreTable",
    "Verdict",
    "export_rows",
    "folder_of",
    "manifest_source",
    "recorded_place",
]

Progress = Callable[[str, int, int], None]
DOCUMENTS = (REMOVED, RELABELED, DATASHEET)
STEP = 256  # rows between two reports of progress


def export_rows(
    table: ScoreTable,
    source: RowSource,
    to: Path,
    format: str = "",  # noqa: A002 (as the option is called)
    rules: Rules | None = None,
    verdicts: Mapping[Key, Verdict] | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> ExportReport:
    """Writes the rows that stay to a new place, with `removed.parquet` and a datasheet, `audit.md`.

    Nothing appears under the name of the place before everything is written. The source is only read.

    Args:
        table: of scores.
        source: of the rows, in the order of the table.
        to: the new file or folder; a name that ends in .zip is a folder with everything, packed into one file.
        format: one of `FORMATS`; "": by the ending of `to`.
        rules: what is removed and relabeled; None: what the audit proposes is removed, and nothing is relabeled.
        verdicts: decisions of people by id and position of the caption, which overrule the audit.
        progress: called with (stage, rows done, rows).
        dry_run: nothing is written.

    Raises:
        AuditError: the place is taken, the source has other rows than the table, or a rule cannot be followed.
    """
    rules = rules or Rules()
    form = format_of(to, format, source.is_shards)
    plan = plan_export(table, rules, verdicts or {})
    report = ExportReport(to, form.name, unknown=plan.unknown)
    run = _Export(table, plan, report, progress)
    if dry_run:
        run.pass_rows(source, None)
        return report
    is_archive = to.suffix.lower() == ARCHIVE
    with opened_place(to, is_archive or not form.endings, DOCUMENTS) as place:
        # a table lies in its archive as data.csv
        name = f"data{form.endings[0]}" if is_archive and form.endings else ""
        final = Path(place.unpacked.name, name) if is_archive else place.to  # wherever it is unpacked
        folder = place.unpacked if is_archive else place.to.parent
        layout = source.layout(folder, form.needs_columns, len(table.captions) > 0)
        writer = form.writer(place.staged / name, layout)
        with _documents(run, place):
            run.pass_rows(source, writer)
            writer.close()
        use = _use(form, final, place.staged, layout)
        text = datasheet(report, table.summary, rules, source.name, table.name, use)
        place.document(DATASHEET).write_text(text, encoding="utf-8", errors="replace")
        place.finish(run.show_packing)
        report.documents = [path for name in DOCUMENTS if (path := place.final(name)).exists()]
    return report


@contextlib.contextmanager
def _documents(run: _Export, place: Place) -> Iterator[None]:
    run.removed = RowTable(place.document(REMOVED), REMOVED_COLUMNS)
    run.relabeled = RowTable(place.document(RELABELED), RELABELED_COLUMNS)
    yield
    run.removed.close()
    run.relabeled.close()
    if not run.report.relabeled:
        place.document(RELABELED).unlink()


@dataclass
class _Export:
    """One pass over the rows."""

    table: ScoreTable
    plan: ExportPlan
    report: ExportReport
    progress: Progress | None
    removed: RowTable | None = None
    relabeled: RowTable | None = None
    _scores: Any = field(init=False)

    def __post_init__(self) -> None:
        self._scores = self.table.numbers("misalignment")
        self._failures = self.table.texts("failure")

    def pass_rows(self, source: RowSource, writer: Writer | None) -> None:
        """Exports or removes each row; without a writer they are only counted."""
        total, row, shown = len(self.table), 0, 0
        self._show_progress(0)
        for audited in source.rows():
            rows = range(row, row + len(audited.texts))
            row = rows.stop
            self._check(source, audited, rows)
            self._pass(audited, rows, writer)
            if row - shown >= STEP:
                shown = row
                self._show_progress(row)
        if row != total:
            raise AuditError(_mismatch(source, self.table, f"it has {row:,} rows, the table {total:,}"))
        self._show_progress(total)

    def _show_progress(self, row: int) -> None:
        if self.progress:
            self.progress("exporting", row, len(self.table))

    def show_packing(self, done: int, total: int) -> None:
        """Reports the progress of an archive."""
        if self.progress:
            self.progress("packing", done, total)

    def _check(self, source: RowSource, audited: AuditedRow, rows: range) -> None:
        """Raises `AuditError` where the row of the source is not the one that was scored."""
        if rows.stop > len(self.table):
            raise AuditError(_mismatch(source, self.table, f"it has more than {len(self.table):,} rows"))
        for position, row in enumerate(rows):
            if audited.problem or self._failures[row]:
                continue  # such rows may have another id, and do not leave
            name = str(self.table.ids[row])
            is_caption = len(self.table.captions) == 0 or self.table.caption(row) == audited.first + position
            if name not in audited.ids or not is_caption:
                other = audited.ids[0] if audited.ids else "one that cannot be read"
                raise AuditError(
                    _mismatch(source, self.table, f"row {row + 1} is {other[:80]!r} there, and {name[:80]!r} here")
                )

    def _pass(self, audited: AuditedRow, rows: range, writer: Writer | None) -> None:
        report = self.report
        report.rows += len(rows)
        captions, texts, changes, proposals = [], [], [], 0
        for caption, (row, text) in enumerate(zip(rows, audited.texts, strict=True)):
            outcome = self.plan.outcome(row, text)
            report.stale += outcome.stale
            if outcome.why or audited.problem:
                why = outcome.why or f"cannot be read: {audited.problem}"
                self._remove(row, why, outcome.by if outcome.why else UNREADABLE)
                continue
            new = text if outcome.text is None else outcome.text
            captions.append(caption)
            texts.append(new)
            proposals += outcome.proposal is not None
            if new != text:
                changes.append((row, text, new, outcome.by))
        if not captions:
            return
        sample = ExportSample(
            str(self.table.ids[rows.start]),
            audited.media,
            tuple(texts),
            tuple(captions),
            audited.listed,
            audited.fields,
            audited.members,
            tuple(texts) != audited.texts,
            audited.box,
        )
        try:
            if writer:
                writer.add(sample)
        except MediaError as error:
            report.unreadable += len(captions)
            for caption in captions:
                self._remove(rows[caption], f"cannot be read: {error}", UNREADABLE)
            return
        report.exported += len(captions)
        report.samples += 1
        report.proposals += proposals
        for row, before, after, by in changes:
            report.relabeled[by] += 1
            if self.relabeled:
                self.relabeled.add(str(self.table.ids[row]), self.table.caption(row), before, after, by)

    def _remove(self, row: int, why: str, by: str) -> None:
        self.report.count_removed(why, by)
        if self.removed:
            score = float(self._scores[row])
            self.removed.add(str(self.table.ids[row]), self.table.caption(row), why, by, score)


def _mismatch(source: RowSource, table: ScoreTable, what: str) -> str:
    return (
        f"{source.name} does not hold the rows of {table.name}: {what}; name the manifest that was scored, or score it "
        "again"
    )


def _use(form: Format, to: Path, staged: Path, layout: Layout) -> str:
    """How to read the export at `to`; of shards, as many as are `staged`."""
    columns = {name: shlex.quote(layout.columns.get(name, name)) for name in MODALITIES}
    shards = sorted(path.name for path in staged.glob("*.tar"))
    numbers = [f"{number:05d}.tar" for number in range(len(shards))]
    pattern = f"{{00000..{len(shards) - 1:05d}}}.tar" if shards == numbers and len(shards) > 1 else "*.tar"
    comma = " --csv-separator ','" if to.suffix.lower() == ".csv" else ""  # open_clip takes tabs by default
    files = shards[0] if len(shards) == 1 else pattern
    path = shlex.quote(str(to))
    return form.use.format(to=str(to), path=path, shards=files, comma=comma, **columns)
