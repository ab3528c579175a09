"""Commands of the review: list undecided samples, decide, apply, undo, export, import, spot-check."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.review import verdict

from .options import app
from .running import fiftyone_io

if TYPE_CHECKING:
    from types import ModuleType

    from rich.console import Console

    from audit_plugin.fiftyone_io.results.queues import ListedRow
    from audit_plugin.review.threshold_search import ThresholdSearch

group = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Review the results of an audit, and apply the decisions."
)
app.add_typer(group, name="review")

Dataset = Annotated[str, typer.Argument(help="Name of a FiftyOne dataset")]
Run = Annotated[str, typer.Option(help="Run key of the audit")]
OfRun = Annotated[str | None, typer.Option(help="Only decisions made in the review of this audit")]
NewClass = Annotated[
    bool, typer.Option("--new-class", help="For relabel: the text may be a class that the dataset does not have yet")
]
KIND_HELP = "Only this flag; may be repeated. Or 'most uncertain': the rows whose label would say most, flagged or not"
SCORES = ("misalignment", "probability")
TSV_HEADER = ("id", "caption_index", "path", "text", "suggestion", *SCORES, "flags", "action", "reason")
Reviewer = Annotated[str, typer.Option(help="Name of the reviewer (default: the user of this machine)")]


@group.command(name="list")
def list_(
    dataset: Dataset,
    run: Run = "audit",
    kind: Annotated[list[str] | None, typer.Option(help=KIND_HELP)] = None,
    limit: Annotated[int, typer.Option(min=0, help="Number of rows to show")] = 20,
) -> None:
    """List undecided samples, most suspicious first, and disagreements between reviewers.

    Memorized rows that another flag explains come after the others; where none is flagged, --kind memorized lists the
    highest MultiMem. A table on a terminal; in a pipe or file tab-separated values, with everything else on stderr.
    """
    from audit_plugin.report.display import console

    io, data = _opened(dataset)
    queue = io.queue_of(data, run, kind or ())
    out, rows, about = console(), queue.left[:limit], []
    if "memorized" in (kind or ()):
        lists = io.memorized_rows(data, run, limit)
        about = _about_memorized(lists)
        if kind == ["memorized"] and not queue.rows:
            rows = lists["highest"]
    _show_rows(out, io.list_rows(data, run, rows))
    for line in about:
        _echo(line, err=not out.is_terminal)
    progress = queue.progress
    timed = math.isfinite(progress.seconds)
    pace = f", {progress.seconds:.1f} s each, about {progress.minutes:.0f} min left" if timed else ""
    _echo(f"{progress.done} of {progress.total} decided{pace}", err=not out.is_terminal)
    for decisions in io.disagreements(data):
        words = "; ".join(f"{d.reviewer}: {d.kind} {d.text}".strip() for d in decisions)
        _echo(f"disagreement on {decisions[0].sample}: {words}", err=not out.is_terminal)


def _about_memorized(lists: Mapping[str, Sequence[Any]]) -> list[str]:
    """What is to be done with the lists of memorized rows; of none, that the highest are those of good pairs."""
    from audit_plugin.scoring.memorized import ADVICE, NONE_BEYOND

    if not any(lists[name] for name in ADVICE):
        return [f"{NONE_BEYOND}; the highest are listed" if lists["highest"] else "no row has a MultiMem"]
    return [f"{count_text(len(lists[name]), 'row')} {advice}" for name, advice in ADVICE.items() if lists[name]]


def _show_rows(out: Console, rows: Sequence[ListedRow]) -> None:
    from audit_plugin.inputs.spreadsheet import tsv_line
    from audit_plugin.report.display import show_queue

    if out.is_terminal:
        cells = [(row.name, row.caption, row.path, row.text, row.suggestion, row.scores, _why(row)) for row in rows]
        show_queue(out, cells)
        return
    typer.echo(tsv_line(TSV_HEADER))
    for row in rows:
        scores = [f"{row.scores[name]:.6g}" if name in row.scores else None for name in SCORES]
        flags = ",".join(row.flags)
        typer.echo(
            tsv_line(
                (row.name, row.caption, row.path, row.text, row.suggestion, *scores, flags, row.action, row.reason)
            )
        )


def _why(row: ListedRow) -> str:
    return f"{', '.join(row.flags)}{': ' if row.flags and row.reason else ''}{row.reason}"


@group.command()
def decide(
    dataset: Dataset,
    kind: Annotated[str, typer.Argument(help="keep, remove, relabel, skip or unsure")],
    ids: Annotated[list[str], typer.Argument(help="Ids of samples, or of objects")],
    run: Run = "audit",
    text: Annotated[str, typer.Option(help="For relabel: the new text (default: the audit's suggestion)")] = "",
    note: Annotated[str, typer.Option(help="Reason")] = "",
    reviewer: Reviewer = "",
    caption: Annotated[int, typer.Option(min=0, help="Position in a list of captions, counted from 0")] = 0,
    new_class: NewClass = False,
) -> None:
    """Make the same decision for one or more samples. Of several, those that it cannot be made for are skipped."""
    io, data = _opened(dataset)
    options = {"note": note, "reviewer": reviewer, "new_class": new_class}
    decisions, skipped = io.decide_batch(data, ids, kind, run, text, caption, **options)
    _echo(f"decided {kind} for {len(decisions)}; to apply the decisions: audit-plugin review apply {dataset}")
    for reason, count in Counter(skipped.values()).most_common():
        first = next(name for (name, _), why in skipped.items() if why == reason)
        _echo(f"skipped {count}: {reason} ({first}{', ...' if count > 1 else ''})", err=True)


@group.command()
def apply(
    dataset: Dataset,
    run: OfRun = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change without changing it")] = False,
    delete: Annotated[
        int | None,
        typer.Option(
            help="After applying, delete all removed samples from the dataset, those of this command and those removed "
            "before; give their number to confirm. A copy of each is kept, and `review undo` restores them"
        ),
    ] = None,
) -> None:
    """Apply the decisions: relabel and hide samples. Media files are kept. `review undo` reverts the changes."""
    io, data = _opened(dataset)
    if dry_run:
        plan = io.plan_of(data, run)
        _echo(
            f"{count_text(len(plan.changes), 'change')}, {count_text(len(plan.stale), 'stale decision')}, "
            f"{len(plan.lost)} on missing samples"
        )
        _echo(f"{count_text(io.count_removed(data), 'sample is', 'samples are')} marked as removed already")
        return
    change_set = io.apply(data, run)
    if change_set.id or delete is None:
        _echo(_summary(change_set))
    if change_set.counts["removed"]:
        _echo(f"without the removed samples: saved view {io.CLEAN!r}")
    if delete is not None:
        _echo(_summary(io.delete_removed(data, delete)))


@group.command()
def undo(
    dataset: Dataset,
    last_decision: Annotated[bool, typer.Option("--decision", help="Undo the last decision instead")] = False,
    change_set: Annotated[str | None, typer.Option(help="Id of the change set (default: the last one applied)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Undo even if values changed since, overwriting them")] = False,
    reviewer: Reviewer = "",
) -> None:
    """Undo the changes that were applied, or the last decision."""
    io, data = _opened(dataset)
    if last_decision:
        _echo(f"{count_text(len(io.undo_last(data, reviewer)), 'decision')} undone")
    else:
        _echo(_summary(io.undo(data, change_set, force)))


@group.command()
def export(  # noqa: PLR0913, PLR0917
    dataset: Dataset,
    to: Annotated[Path | None, typer.Option(help="Tasks to write for another tool: .json or .xml")] = None,
    format_: Annotated[
        str, typer.Option("--format", help="Tool that --to is for: label-studio or cvat")
    ] = "label-studio",
    kind: Annotated[list[str] | None, typer.Option(help=f"Of --to: {KIND_HELP[0].lower()}{KIND_HELP[1:]}")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Of --to: number of rows at most")] = None,
    media_root: Annotated[
        str,
        typer.Option(
            help="Of --to: folder from which the tool serves media (default: / for Label Studio, for CVAT the deepest "
            "that holds all images)"
        ),
    ] = "",
    decisions: Annotated[Path | None, typer.Option(help="Table of decisions to write, .csv or .jsonl")] = None,
    removed: Annotated[Path | None, typer.Option(help="Text file of removed samples to write")] = None,
    field: Annotated[str, typer.Option(help="Field that identifies a removed sample: id, filepath, ...")] = "id",
    clean: Annotated[str | None, typer.Option(help="Name of a new dataset without the removed samples")] = None,
    run: OfRun = None,
) -> None:
    """Write tasks for Label Studio or CVAT, the decisions, a list of removed samples, or a copy without these."""
    if not any((to, decisions, removed, clean)):
        raise AuditError("nothing to export; name --to, --decisions, --removed or --clean")
    io, data = _opened(dataset)
    if to:
        count, files = io.export_tasks(data, to, format_, run or "audit", kind or (), limit, media_root)
        _echo(f"{count_text(count, 'row')} to review: {files[0]}")
        for file in files[1:]:
            _echo(f"for the project of the tool: {file}")
    if decisions:
        _echo(f"{count_text(io.export_decisions(data, decisions, run), 'entry', 'entries')}: {decisions}")
    if removed:
        _echo(f"{io.export_removed(data, removed, field)} removed: {removed}")
    if clean:
        _echo(f"{count_text(io.count_samples(io.export_clean(data, clean)), 'sample')}: dataset {clean!r}")


@group.command(name="import")
def import_(
    dataset: Dataset,
    table: Annotated[
        Path,
        typer.Argument(
            help=".csv or .jsonl with at least the columns sample and kind; or an export of Label Studio (JSON or "
            "JSON-MIN, .json) or CVAT (CVAT for images 1.1, .xml)"
        ),
    ],
    run: Run = "audit",
    key: Annotated[str, typer.Option(help="Field that identifies the samples: id, filepath, ...")] = "id",
    reviewer: Reviewer = "",
) -> None:
    """Import decisions made elsewhere; those that were imported before are left out."""
    io, data = _opened(dataset)
    _echo(f"{io.import_decisions(data, table, run, key, reviewer)} new decisions")


@group.command(name="spot-check")
def spot_check(
    dataset: Dataset,
    run: Run = "audit",
    start: Annotated[int | None, typer.Option(help="Draw a new spot check of this size", min=2)] = None,
    decide: Annotated[str | None, typer.Option(help="Decide on --sample: keep, remove, relabel or unsure")] = None,
    sample: Annotated[str | None, typer.Option(help="Id of a sample in the spot check")] = None,
    text: Annotated[str, typer.Option(help="For relabel: the new text")] = "",
    reviewer: Reviewer = "",
    precision: Annotated[
        float | None,
        typer.Option(
            help="Find the threshold at which this share of the flagged samples is wrong, with a guarantee: label one "
            "sample after the other on a terminal; in a pipe, the next ones to decide on are listed"
        ),
    ] = None,
    labels: Annotated[
        int, typer.Option(min=1, help="With --precision: labels to make; more give a lower threshold that holds")
    ] = 40,
) -> None:
    """Review a random sample, half of it flagged, to estimate how accurate the flags are; or find a threshold."""
    if precision is not None:
        if start or decide:
            raise AuditError("--precision draws its own samples; leave out --start and --decide, or use review decide")
        _find_threshold(dataset, run, precision, labels, reviewer)
        return
    if decide and sample is None:
        raise AuditError("--decide needs --sample; name one of the samples that the spot check lists")
    io, data = _opened(dataset)
    check = io.start_spot_check(data, run, start) if start else io.spot_check(data, run)
    if decide:
        row = next((row for row in check.queue.rows if row[0] == sample), None)
        if row is None:
            raise AuditError(f"sample {sample!r} is not in the spot check; decide on one of those that it lists")
        io.record_spot_check(data, run, row, decide, text, reviewer=reviewer)
        check = io.spot_check(data, run)
    rows = check.queue.rows
    undecided = [row for row, verdict in zip(rows, check.verdicts, strict=True) if not verdict]
    _echo_rows(undecided[:10])
    _echo(f"{len(rows) - len(undecided)} of {len(rows)} decided")
    if len(undecided) == len(rows):
        return
    estimate = check.estimate()
    _echo(f"precision of the flags: {_interval(estimate.precision)}")
    _echo(f"share of unflagged rows that are wrong: {_interval(estimate.missed)}")
    _echo(f"recall of the flags: {_interval(estimate.recall)}")
    _echo(f"wrong rows in total: {_interval(estimate.wrong, digits=0)}")


KEYS = {"w": "remove", "r": "keep", "u": "unsure"}


def _find_threshold(dataset: str, run: str, precision: float, labels: int, reviewer: str) -> None:
    """Asks for labels on a terminal, or lists the next rows in a pipe; says what the labels so far guarantee."""
    from audit_plugin.report.display import console
    from audit_plugin.review.threshold_search import progress_text

    io, data = _opened(dataset)
    check, out = io.threshold_check(data, run), console()
    search = check.search(precision, labels)
    asks = out.is_terminal and sys.stdin.isatty()
    while asks and search.next_row is not None:
        _echo(progress_text(search, precision))
        row = check.rows[search.next_row]
        kind = _ask(io.list_rows(data, run, [row]))
        if kind is None:
            break
        io.decide(data, row[0], kind, run, reviewer=reviewer, caption=row[1])
        check = check.with_label(search.next_row, verdict(kind))
        search = check.search(precision, labels)
    if not asks:
        _show_rows(out, io.list_rows(data, run, check.ahead(precision, labels, 10)))
    _echo(progress_text(search, precision), err=not asks)
    for line in _conclusion(search, precision, dataset, run):
        _echo(line, err=not asks)


def _ask(rows: Sequence[ListedRow]) -> str | None:
    """The decision on a row by one key; None to quit."""
    for row in rows:
        scores = ", ".join(f"{name} {value:.2f}" for name, value in row.scores.items())
        for name, value in (("sample", row.name), ("file", row.path), ("text", row.text), ("scores", scores)):
            _echo(f"{name:>10}  {value}")
        if row.suggestion:
            _echo(f"suggestion  {row.suggestion}")
    typer.echo("w wrong (decides remove), r right (keep), u unsure, q quit: ", nl=False)
    while True:
        for key in typer.getchar().lower():  # keys that are pressed fast arrive together
            if key in {*KEYS, "q"}:
                typer.echo(key)
                return KEYS.get(key)


def _conclusion(search: ThresholdSearch, precision: float, dataset: str, run: str) -> list[str]:
    """The guarantee, how to set the threshold, and what is only estimated."""
    from audit_plugin.review.threshold_search import guarantee_text, percent_text

    lines = []
    if search.rows:
        lines.append(f"guarantee: {guarantee_text(search, precision)}")
        lines.append(
            f"to flag them: Calibrate in the tab Queue of the App, run {run!r}, which goes on from these labels; or "
            f"the operator Set threshold, flag misaligned, threshold {search.threshold!r} (the slider is coarser)"
        )
    elif search.next_row is None:
        lines.append(
            f"no threshold that keeps {percent_text(precision)} was found; try a lower --precision, or more --labels"
        )
    if search.next_row is not None:
        lines.append(
            f"the decisions are kept; to go on: the same command; to decide: audit-plugin review decide {dataset}"
        )
    if search.read:
        lines.append(
            f"the {search.read} highest scores hold about 80% of the wrong samples by the model's estimate; this has "
            "no guarantee, since no lower scores were drawn"
        )
    return lines


def _echo_rows(rows: Sequence[tuple[str, int]]) -> None:
    """One line per (sample, caption)."""
    for name, caption in rows:
        _echo(f"{name}{f' caption {caption}' if caption else ''}")


def _interval(estimate: Any, digits: int = 2) -> str:
    numbers = (estimate.value, estimate.low, estimate.high)
    value, low, high = (f"{x:.{digits}f}" if math.isfinite(x) else "unknown" for x in numbers)
    return f"{value} ({low} to {high})"


def _summary(change_set: Any) -> str:
    """A change set in one line."""
    counts = [f"{count} {name.replace('_', ' ')}" for name, count in change_set.counts.items() if count]
    name = f" (change set {change_set.id})" if change_set.id else ""
    parts = [f"{change_set.state}: {', '.join(counts) or 'nothing'}{name}"]
    if change_set.stale:
        parts.append(f"{change_set.stale} stale decisions skipped")
    if change_set.lost:
        parts.append(f"{count_text(change_set.lost, 'decision')} on missing samples")
    if change_set.missed:
        parts.append(f"{count_text(len(change_set.missed), 'sample')} changed by somebody else, left alone")
    return "; ".join(parts)


def _opened(name: str) -> tuple[ModuleType, Any]:
    io = fiftyone_io()
    return io, io.load_view(name)


def _echo(line: str, err: bool = False) -> None:
    from audit_plugin.inputs.spreadsheet import clean

    typer.echo(clean(line), err=err)
