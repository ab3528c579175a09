"""Commands of the review: list what is to be decided, decide, apply, undo, export, import, spot-check."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit_plugin.arrays import AuditError

from .datasets import _fiftyone_io
from .options import app, told_errors

if TYPE_CHECKING:
    from types import ModuleType

group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Review what an audit found, and apply it.")
app.add_typer(group, name="review")

Dataset = Annotated[str, typer.Argument(help="Name of a FiftyOne dataset")]
Run = Annotated[str, typer.Option(help="Key of the audit")]
OfRun = Annotated[str | None, typer.Option(help="Only decisions made in the review of that audit")]
Reviewer = Annotated[str, typer.Option(help="Name (default: the user of this machine)")]


@group.command(name="list")
def list_(
    dataset: Dataset,
    run: Run = "audit",
    kind: Annotated[list[str] | None, typer.Option(help="Only this flag; may be repeated")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Rows to show")] = 20,
) -> None:
    """Show what is still to be decided, most suspicious first, and where reviewers disagree."""
    with told_errors():
        io, data = _opened(dataset)
        found = io.queue_of(data, run, kind or ())
        for name, caption in found.left[:limit]:
            _say(f"{name}{f' caption {caption}' if caption else ''}")
        done = found.progress
        timed = math.isfinite(done.seconds)
        pace = f", {done.seconds:.1f} s each, about {done.minutes:.0f} min left" if timed else ""
        _say(f"{done.done} of {done.total} decided{pace}")
        for decisions in io.disagreements(data):
            words = "; ".join(f"{d.reviewer}: {d.kind} {d.text}".strip() for d in decisions)
            _say(f"disagreement on {decisions[0].sample}: {words}")


@group.command()
def decide(
    dataset: Dataset,
    kind: Annotated[str, typer.Argument(help="keep, remove, relabel, skip or unsure")],
    ids: Annotated[list[str], typer.Argument(help="Ids of samples, or of objects")],
    run: Run = "audit",
    text: Annotated[str, typer.Option(help="For relabel: the new text (default: the audit's suggestion)")] = "",
    note: Annotated[str, typer.Option(help="Why")] = "",
    reviewer: Reviewer = "",
    caption: Annotated[int, typer.Option(min=0, help="Which text of a list, from 0")] = 0,
) -> None:
    """Decide the same for one sample or several."""
    with told_errors():
        io, data = _opened(dataset)
        made = io.decide(data, ids, kind, run, text, note, reviewer, caption)
        _say(f"decided {kind} for {len(made)}; carry it out: audit-plugin review apply {dataset}")


@group.command()
def apply(
    dataset: Dataset,
    run: OfRun = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change")] = False,
    delete: Annotated[
        int | None, typer.Option(help="Delete so many samples, all that are marked as removed, from the dataset")
    ] = None,
) -> None:
    """Relabel and hide what was decided; media files stay, and `undo` takes it back."""
    with told_errors():
        io, data = _opened(dataset)
        if dry_run:
            plan = io.plan_of(data, run)
            _say(f"{len(plan.changes)} changes, {len(plan.stale)} stale decisions, {len(plan.lost)} on lost samples")
            return
        if delete is not None:
            _say(_told(io.delete_removed(data, delete)))
            return
        done = io.apply(data, run)
        _say(_told(done))
        if done.counts["removed"]:
            _say(f"without the removed: saved view {io.CLEAN!r}")


@group.command()
def undo(
    dataset: Dataset,
    last_decision: Annotated[bool, typer.Option("--decision", help="Take back the last decision instead")] = False,
    change_set: Annotated[str | None, typer.Option(help="Id (default: the last that was applied)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also where values changed meanwhile")] = False,
    reviewer: Reviewer = "",
) -> None:
    """Take back what was applied, exactly; or the last decision."""
    with told_errors():
        io, data = _opened(dataset)
        if last_decision:
            _say(f"{len(io.undo_last(data, reviewer))} decisions taken back")
        else:
            _say(_told(io.undo(data, change_set, force)))


@group.command()
def export(
    dataset: Dataset,
    decisions: Annotated[Path | None, typer.Option(help="Table of decisions to write, .csv or .jsonl")] = None,
    removed: Annotated[Path | None, typer.Option(help="Text file of removed samples to write")] = None,
    field: Annotated[str, typer.Option(help="What names a removed sample: id, filepath, ...")] = "id",
    clean: Annotated[str | None, typer.Option(help="Name of a new dataset without the removed samples")] = None,
    run: OfRun = None,
) -> None:
    """Write decisions, a list of what was removed, or a clean copy of the dataset."""
    with told_errors():
        if decisions is None and removed is None and clean is None:
            raise AuditError("nothing is to be exported; name --decisions, --removed or --clean")
        io, data = _opened(dataset)
        if decisions:
            _say(f"{io.export_decisions(data, decisions, run)} entries: {decisions}")
        if removed:
            _say(f"{io.export_removed(data, removed, field)} removed: {removed}")
        if clean:
            _say(f"{io.export_clean(data, clean).count()} samples: dataset {clean!r}")


@group.command(name="import")
def import_(
    dataset: Dataset,
    table: Annotated[Path, typer.Argument(help=".csv or .jsonl with the columns sample and kind at least")],
    run: Run = "audit",
    key: Annotated[str, typer.Option(help="Field whose values name the samples: id, filepath, ...")] = "id",
    reviewer: Reviewer = "",
) -> None:
    """Read decisions made elsewhere."""
    with told_errors():
        io, data = _opened(dataset)
        _say(f"{io.import_decisions(data, table, run, key, reviewer)} new decisions")


@group.command(name="spot-check")
def spot_check(
    dataset: Dataset,
    run: Run = "audit",
    start: Annotated[int | None, typer.Option(help="Draw so many samples anew", min=2)] = None,
    decide: Annotated[str | None, typer.Option(help="keep, remove, relabel or unsure: decide on --sample")] = None,
    sample: Annotated[str | None, typer.Option(help="Id, one of those drawn")] = None,
    text: Annotated[str, typer.Option(help="For relabel: the new text")] = "",
    reviewer: Reviewer = "",
) -> None:
    """Review a random sample, half of it flagged, which tells how right the flags are."""
    with told_errors():
        io, data = _opened(dataset)
        check = io.start_spot_check(data, run, start) if start else io.spot_check(data, run)
        if decide:
            row = next((row for row in check.queue.rows if row[0] == sample), None)
            if row is None:
                raise AuditError(f"sample {sample!r} was not drawn; decide on one of those that the spot check lists")
            io.record_spot_check(data, run, row, decide, text, reviewer=reviewer)
            check = io.spot_check(data, run)
        _show_check(check)


def _show_check(check: Any) -> None:
    rows = check.queue.rows
    left = [row for row, verdict in zip(rows, check.verdicts, strict=True) if not verdict]
    for name, caption in left[:10]:
        _say(f"{name}{f' caption {caption}' if caption else ''}")
    _say(f"{len(rows) - len(left)} of {len(rows)} decided")
    if len(left) == len(rows):
        return
    found = check.estimate()
    shares = {"flags that are right": found.precision, "wrong among the others": found.missed, "recall": found.recall}
    for words, share in shares.items():
        _say(f"{words}: {_number(share.value)} ({_number(share.low)} to {_number(share.high)})")
    _say(f"wrong in all: {found.wrong.value:.0f} ({found.wrong.low:.0f} to {found.wrong.high:.0f})")


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "unknown"


def _told(done: Any) -> str:
    """A change set in one line."""
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in done.counts.items() if count) or "nothing"
    rest = [f"{done.stale} stale decisions left out"] if done.stale else []
    rest += [f"{done.lost} decisions on samples that are gone"] if done.lost else []
    rest += [f"{len(done.missed)} samples changed by somebody else meanwhile: left alone"] if done.missed else []
    return "; ".join([f"{done.state}: {counts}{f' (change set {done.id})' if done.id else ''}", *rest])


def _opened(name: str) -> tuple[ModuleType, Any]:
    io = _fiftyone_io()
    return io, io.load_view(name)


def _say(line: str) -> None:
    from audit_plugin.report.display import clean

    typer.echo(clean(line))
