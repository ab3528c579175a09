"""Commands that write what an audit leaves: export the clean rows, and select rows within a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audit_plugin.arrays import AuditError, count_text

from .manifests import MediaRoot, ScoredManifest, fetching
from .options import app, say
from .running import check_output, fiftyone_io, shown_progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from audit_plugin.audit.export import ExportReport, RowSource, ScoreTable
    from audit_plugin.audit.export.plan import Key, Verdict

TABLE = ".parquet"
FORMATS = "webdataset, csv, jsonl, parquet, parquet-bytes, hf-folder, hf-parquet, coco, yolo, datacomp, fiftyone"


@app.command()
def export(  # noqa: PLR0913 (one per option)
    source: Annotated[
        str, typer.Argument(metavar="SCORES", help="Table written by score (.parquet), or a FiftyOne dataset")
    ],
    *,
    to: Annotated[
        str,
        typer.Option(
            help="New file or folder; NAME.zip is a folder, packed; with --format fiftyone, the name of a clean copy "
            "of the dataset"
        ),
    ],
    format: Annotated[  # noqa: A002 (the name of the option)
        str,
        typer.Option(
            help=f"{FORMATS}; default: by the ending of --to; shards for shards, a copy for a FiftyOne dataset"
        ),
    ] = "",
    drop: Annotated[
        str,
        typer.Option(help="Flags whose rows are removed, such as misaligned,duplicate, instead of what is proposed"),
    ] = "",
    keep: Annotated[str, typer.Option(help="Flags whose rows stay, whatever is proposed for them")] = "",
    top_n: Annotated[
        int | None,
        typer.Option(min=0, help="Remove only the N most misaligned rows, of those with a flag of --drop if any"),
    ] = None,
    relabel: Annotated[
        bool,
        typer.Option("--relabel", help="Apply the captions that the audit proposes; those of decisions always are"),
    ] = False,
    decisions: Annotated[
        str, typer.Option(help="Decisions to follow: a table (.csv, .jsonl), or a FiftyOne dataset that import made")
    ] = "",
    select: Annotated[Path | None, typer.Option(help="Export only these rows: a table written by select")] = None,
    manifest: ScoredManifest = None,
    media_root: MediaRoot = None,
    run: Annotated[str, typer.Option(help="Run key of the audit, for a FiftyOne dataset")] = "audit",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many rows would be removed and why, without writing")
    ] = False,
) -> None:
    """Write the rows that stay, ready to train on, with a list of the removed ones and a datasheet."""
    if not source.endswith(TABLE) and _is_copy(to, format):
        options = (drop, keep, relabel, decisions, select, manifest, media_root)
        _copy_dataset(source, to, any(options) or top_n is not None, dry_run)
        return
    from audit_plugin.audit.export import Rules, export_rows
    from audit_plugin.audit.export.selection import read_selection

    is_table = source.endswith(TABLE)
    if not is_table and (manifest or media_root):
        given = "--manifest" if manifest else "--media-root"
        raise AuditError(f"{given} is for a table of scores; the samples of a FiftyOne dataset know their files")
    table, rows, verdicts = _table_rows(source, manifest, media_root) if is_table else _dataset_rows(source, run)
    rules = Rules(_kinds(drop), _kinds(keep), top_n, read_selection(select) if select else None, relabel)
    verdicts |= _verdicts(decisions) if decisions else {}
    with shown_progress() as progress:
        report = export_rows(table, rows, Path(to), format, rules, verdicts, progress, dry_run)
    _show(report, dry_run)


@app.command()
def select(
    scores: Annotated[Path, typer.Argument(help="Table written by score (.parquet)")],
    *,
    budget: Annotated[str, typer.Option(help="Rows to select: a share such as 30%, or a number")] = "",
    memorized: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Select exactly one list of memorized rows instead, for your trainer or a review: misaligned (correct "
            "the captions), fitting (rare: keep, collect more, or regroup), explained (another flag says why), or "
            "highest, the --budget highest MultiMem, rows that no other flag explains first",
        ),
    ] = "",
    out: Annotated[
        Path, typer.Option(help="Keep-list with weights to write: .parquet, .csv or .jsonl; .npy: uids for DataComp")
    ] = Path("selected.parquet"),
    copies: Annotated[int, typer.Option(min=1, help="Samples of one group of near-duplicates, at most")] = 1,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="REFERENCE",
            help="Prefer rows that are near to a reference set: its table of scores, of an audit with the same encoder",
        ),
    ] = None,
    manifest: ScoredManifest = None,
) -> None:
    """Select the rows that fit best, within a budget and with few near-duplicates, or a list of memorized rows."""
    from audit_plugin.audit.export import manifest_source
    from audit_plugin.audit.export.selection import ENDINGS, select_memorized, select_rows, write_selection
    from audit_plugin.audit.export.similarity import NEAREST
    from audit_plugin.report import read_score_table
    from audit_plugin.scoring.memorized import ADVICE

    check_output(out, ENDINGS, scores, *(Path(path) for path in (manifest, like) if path))
    _check_choice(budget, memorized, changed=like is not None or copies != 1)
    table = read_score_table(scores)
    if memorized:
        selection = select_memorized(table, memorized, budget)
    else:
        selection = select_rows(table, budget, copies, _similarity(table, like))
    needs_uids = out.suffix.lower() == ".npy"
    with fetching(manifest) as progress:
        rows = manifest_source(table.summary, manifest, table.name, progress) if needs_uids else None
    write_selection(out, table, selection, rows)
    chosen = f"list {memorized!r} of memorized rows" if memorized else f"budget {selection.budget:,}"
    say(f"{len(selection.rows):,} of {count_text(len(table), 'row')} selected ({chosen}): {out}")
    for why, count in selection.left_out.items():
        say(f"  {count:,} {why}")
    if like:
        say(
            f"by the mean of two ranks: of the fit, and of the mean cosine to the {NEAREST} nearest rows of {like.name}"
        )
    if memorized in ADVICE:
        say(f"{ADVICE[memorized]} (docs/multimem.md)")
    if not needs_uids:
        purpose = "export" if memorized else "train on"
        command = f"audit-plugin export {scores} --select {out} --to NEW_FOLDER --format webdataset"
        say(f"to {purpose} them: {command}")


def _check_choice(budget: str, memorized: str, changed: bool) -> None:
    """Refuse options that contradict each other; `changed`: others choose among the rows as well."""
    if memorized and changed:
        raise AuditError("--memorized is a list of its own, which --like and --copies would change; leave them out")
    if not memorized and not budget:
        raise AuditError("nothing says how many rows; name a --budget such as 30%, or a list with --memorized")


def _similarity(table: ScoreTable, like: Path | None) -> dict[str, NDArray[np.float32]] | None:
    """Modality -> similarity `[n]` to the reference set; None without one."""
    from audit_plugin.audit.export.similarity import reference_similarity
    from audit_plugin.report import read_score_table

    if like is None:
        return None
    with shown_progress() as progress:
        return reference_similarity(table, read_score_table(like), progress)


def _kinds(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _verdicts(decisions: str) -> dict[Key, Verdict]:
    """The decisions of a table, or of a FiftyOne dataset that `import` made."""
    path = Path(decisions)
    if path.suffix in (".csv", ".jsonl"):
        from audit_plugin.review import read_decisions, verdicts

        return verdicts(read_decisions(path))
    if path.suffix in (".json", ".xml"):
        raise AuditError(
            f"{decisions!r} is an export of an annotation tool; read it into its FiftyOne dataset by audit-plugin "
            "review import, and name that dataset"
        )
    data = fiftyone_io().load_view(decisions)
    from audit_plugin.fiftyone_io.results.audited_rows import imported_verdicts

    return imported_verdicts(data)


def _table_rows(
    source: str, manifest: str | None, media_root: Path | None
) -> tuple[ScoreTable, RowSource, dict[Key, Verdict]]:
    """The scores of a table and the rows of its manifest."""
    from audit_plugin.audit.export import manifest_source
    from audit_plugin.report import read_score_table

    table = read_score_table(Path(source))
    with fetching(manifest) as progress:
        rows = manifest_source(table.summary, manifest, table.name, progress, media_root)
    if rows.media_root and manifest is None:
        where = f"media are read from {rows.media_root} only"
        say(f"manifest, as recorded in {Path(source).stem}.json: {rows.name}; {where}")
    return table, rows, {}


def _dataset_rows(name: str, run: str) -> tuple[ScoreTable, RowSource, dict[Key, Verdict]]:
    """The scores, rows and decisions of a FiftyOne dataset."""
    data = fiftyone_io().load_view(name)
    from audit_plugin.fiftyone_io.results.audited_rows import audited_rows

    return audited_rows(data, run)


def _is_copy(to: str, form: str) -> bool:
    """Whether `to` is the name of a FiftyOne dataset to make, not a place on the disk."""
    from audit_plugin.inputs.formats import ARCHIVE, FORMATS

    endings = {ARCHIVE, *(ending for entry in FORMATS.values() for ending in entry.endings)}
    return form == "fiftyone" or (not form and Path(to).suffix.lower() not in endings and "/" not in to)


def _copy_dataset(name: str, to: str, has_options: bool, dry_run: bool) -> None:
    """Makes a clean copy of a FiftyOne dataset."""
    if has_options:
        raise AuditError(
            f"{to!r} would be a copy of the FiftyOne dataset {name!r} without what the review removed, for which "
            "the other options mean nothing; leave them out, or name the --format of files"
        )
    io = fiftyone_io()
    data = io.load_view(name)
    total = io.count_samples(data)
    if dry_run:
        left = io.count_samples(io.clean_view(data))
        say(f"{left:,} of {count_text(total, 'sample')} would be exported; {total - left:,} marked as removed")
        return
    pending = io.plan_of(data).changes
    say(f"{io.count_samples(io.export_clean(data, to)):,} of {count_text(total, 'sample')}: dataset {to!r}")
    if pending:
        changes = count_text(len(pending), "decided change is", "decided changes are")
        say(f"{changes} not applied, and not in the copy; to apply them first: audit-plugin review apply {name}")


def _show(report: ExportReport, dry_run: bool) -> None:
    for line in report.lines():
        say(line)
    if dry_run:
        say(f"nothing was written; without --dry-run: {report.to} ({report.format})")
    else:
        say(f"{report.format}: {report.to}")
        for name in report.documents:
            say(f"  {name}")
