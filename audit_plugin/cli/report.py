"""Commands on finished audits: write the report, and compare two audits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit_plugin.arrays import MODALITIES, AuditError
from audit_plugin.config import AuditConfig

from .datasets import RUN_DIR_HELP, scored_rows
from .gate import Gate, gated
from .manifests import MediaRoot, ScoredManifest
from .options import GATE_FAILED, app, command, say, stop
from .running import check_output, fiftyone_io

if TYPE_CHECKING:
    from audit_plugin.report import ReportContent

TABLE = ".parquet"
AUDIT_HELP = "a table of scores (.parquet), or DATASET:RUN"
COLUMNS = dict.fromkeys(MODALITIES, "Column of the manifest (default: as it was scored)")


@command("run", run="Run key of the audit, for a dataset", **COLUMNS)
def report(
    source: Annotated[str, typer.Argument(help="FiftyOne dataset, or a table written by score (.parquet)")],
    *,
    config: AuditConfig,
    out: Annotated[Path, typer.Option(help="File to write, .html")] = Path("report.html"),
    no_media: Annotated[bool, typer.Option("--no-media", help="Leave out the images")] = False,
    manifest: ScoredManifest = None,
    cross_modal: Annotated[
        Path | None, typer.Option(help="Report written by cross-modal (.json): adds a section on cross-modal recall")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option(help=RUN_DIR_HELP)] = None,
    media_root: MediaRoot = None,
) -> None:
    """Write a self-contained HTML report of an audit: findings, plots, the worst rows with evidence, decisions."""
    from audit_plugin.report import read_cross_modal, write_report

    of_tables = {"--manifest": manifest, "--cross-modal": cross_modal, "--run-dir": run_dir, "--media-root": media_root}
    check_output(out, (".html", ".htm"), Path(source), *([Path(manifest)] if manifest else []))
    if source.endswith(TABLE):
        measured = read_cross_modal(cross_modal) if cross_modal else None
        content = _content_of_table(Path(source), manifest, config, media_root, (measured, run_dir))
    elif option := next((name for name, value in of_tables.items() if value), ""):
        raise AuditError(f"{option} needs a table of scores, but {source!r} is a dataset; leave it out")
    else:
        dataset = fiftyone_io().load_view(source)
        from audit_plugin.fiftyone_io.results.reports import review_report

        content = review_report(dataset, config.run)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_report(content, out, media=not no_media)
    say(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")


def _content_of_table(
    scores: Path, manifest: str | None, config: AuditConfig, media_root: Path | None, others: tuple[Any, Any]
) -> ReportContent:
    """The report of a table, with the captions and media of its manifest, named or else recorded.

    A recorded manifest that is gone, lies elsewhere or has other rows by now is left out, and said so.
    `others`: cross-modal recall and run folder, see `report_of_table`.
    """
    from audit_plugin.audit.export import recorded_place
    from audit_plugin.report import recorded_manifest, report_of_table
    from audit_plugin.store import raise_shortage

    if manifest:
        rows, media = scored_rows(scores, manifest, config, media_root)
        return report_of_table(scores, rows, *others, media)
    if not (recorded := recorded_manifest(scores)):
        content = report_of_table(scores, None, *others)
        say("without captions and images; to add them, name the manifest that was scored: --manifest")
        return content
    where = f"manifest, as recorded in {scores.stem}.json: {recorded}"
    try:
        path, folder = recorded_place(recorded)
        root = media_root or folder
        rows, media = scored_rows(scores, path, config, root)
        content = report_of_table(scores, rows, *others, media)
    except AuditError as error:
        raise_shortage(error)
        content = report_of_table(scores, None, *others)  # or what is wrong with the table itself
        say(f"{where}; captions and images are left out ({error}); to add them, name it: --manifest")
        return content
    say(f"{where}; media are read from {root} only")
    return content


@app.command()
@gated
def compare(
    before: Annotated[str, typer.Argument(help=f"The earlier audit: {AUDIT_HELP}")],
    after: Annotated[str, typer.Argument(help=f"The later audit, which --fail-if judges: {AUDIT_HELP}")],
    *,
    gate: Gate,
) -> None:
    """Compare two audits of the same rows: what was fixed, what is still flagged, what is newly flagged."""
    from audit_plugin.report.display import console, show_comparison
    from audit_plugin.review import comparison

    gate.check(*(Path(audit) for audit in (before, after) if audit.endswith(TABLE)))
    columns = _columns(after)
    show_comparison(console(), comparison.compare(_columns(before), columns))
    if failing := gate.report(columns, _summary(after) if gate.conditions else {}):
        stop(GATE_FAILED, failing)


def _columns(audit: str) -> dict[str, Any]:
    """The columns of an audit, from a Parquet table or from a run in a dataset."""
    if audit.endswith(TABLE):
        from audit_plugin.report import read_scores

        return read_scores(audit)
    view, run = _dataset_run(audit)
    from audit_plugin.fiftyone_io.results.reports import audit_scores

    return audit_scores(view, run)


def _summary(audit: str) -> dict[str, Any]:
    """The summary of an audit, from beside its table or from a run in a dataset."""
    if audit.endswith(TABLE):
        from audit_plugin.report import read_summary

        return read_summary(audit)
    view, run = _dataset_run(audit)
    return dict(fiftyone_io().audit_summary(view, run))


def _dataset_run(audit: str) -> tuple[Any, str]:
    """The dataset and the run key that DATASET:RUN names."""
    dataset, _, run = audit.rpartition(":")
    if not dataset or not run:
        raise AuditError(f"{audit!r} is neither a {TABLE} file nor DATASET:RUN; write it like my-photos:audit")
    return fiftyone_io().load_view(dataset), run
