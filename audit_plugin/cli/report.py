"""Commands on finished audits: write the report, and compare two of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit_plugin.arrays import AuditError

from .options import app, told_errors

if TYPE_CHECKING:
    from rich.table import Table

    from audit_plugin.arrays import Samples
    from audit_plugin.report import ReportContent
    from audit_plugin.review.comparison import Comparison

TABLE = ".parquet"
MODALITIES = ("image", "text", "audio", "video")
SHOWN = 10
AUDIT_HELP = "a table of scores (.parquet), or DATASET:RUN"


@app.command()
def report(  # noqa: PLR0913 (the options of a command)
    source: Annotated[str, typer.Argument(help="FiftyOne dataset, or a table that score wrote (.parquet)")],
    *,
    out: Annotated[Path, typer.Option(help="File to write")] = Path("report.html"),
    run: Annotated[str, typer.Option(help="Run key, of a dataset")] = "audit",
    no_media: Annotated[bool, typer.Option("--no-media", help="Leave the pictures out")] = False,
    manifest: Annotated[
        Path | None, typer.Option(help="The manifest that was scored: a table holds neither captions nor paths")
    ] = None,
    transfer: Annotated[
        Path | None,
        typer.Option(help="What audit-plugin transfer wrote of the same rows (.json): a section of its own"),
    ] = None,
    image: Annotated[str, typer.Option(help="Column of the manifest (default: as it was scored)")] = "",
    text: Annotated[str, typer.Option(help="Column of the manifest (default: as it was scored)")] = "",
    audio: Annotated[str, typer.Option(help="Column of the manifest (default: as it was scored)")] = "",
    video: Annotated[str, typer.Option(help="Column of the manifest (default: as it was scored)")] = "",
) -> None:
    """Write one self-contained HTML report of an audit: findings, plots, the worst rows and why, decisions."""
    with told_errors():
        from audit_plugin.report import write_report

        _check_out(out, source, manifest)
        if source.endswith(TABLE):
            columns = dict(zip(MODALITIES, (image, text, audio, video), strict=True))
            content = _of_table(Path(source), manifest, columns, transfer)
        else:
            if manifest or transfer:
                given = "--manifest" if manifest else "--transfer"
                raise AuditError(f"{given} goes with a table of scores, and {source!r} is a dataset; leave it out")
            content = _of_dataset(source, run)
        write_report(content, out, media=not no_media)
        typer.echo(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")


@app.command()
def compare(
    before: Annotated[str, typer.Argument(help=f"The earlier audit: {AUDIT_HELP}")],
    after: Annotated[str, typer.Argument(help=f"The later audit: {AUDIT_HELP}")],
) -> None:
    """Compare two audits of the same rows: what was fixed, what is still wrong, what is newly flagged."""
    with told_errors():
        from audit_plugin.report.display import console
        from audit_plugin.review.comparison import compare as compared

        found, out = compared(_scores(before), _scores(after)), console()
        out.print(_table(found))
        for sentence in sentences(found):
            out.print(sentence, soft_wrap=True)


def _of_table(path: Path, manifest: Path | None, columns: dict[str, str], transfer: Path | None) -> ReportContent:
    from audit_plugin.report import read_transfer, report_of_table

    rows = rows_of(path, manifest, columns) if manifest else None
    return report_of_table(path, rows, read_transfer(transfer) if transfer else None)


def rows_of(path: Path, manifest: Path, columns: dict[str, str]) -> Samples:
    """The manifest's rows by the columns named, or, where none is, by those that the audit recorded."""
    import json

    from audit_plugin.inputs.manifest import read_manifest

    if not any(columns.values()):
        beside = path.with_suffix(".json")
        config = json.loads(beside.read_text(encoding="utf-8")).get("config", {}) if beside.is_file() else {}
        columns = {name: str(config.get(name) or "") for name in columns}
    return read_manifest(manifest, {name: column for name, column in columns.items() if column})


def _of_dataset(name: str, run: str) -> ReportContent:
    from .datasets import _fiftyone_io

    dataset = _fiftyone_io().load_view(name)
    from audit_plugin.fiftyone_io.results.reports import review_report

    return review_report(dataset, run)


def _check_out(out: Path, source: str, manifest: Path | None) -> None:
    """Refuses a place that is not a file's, or that of what is read."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise AuditError(f"--out {str(out)!r} ends in {out.suffix or 'nothing'!r}; the report is a .html file")
    if out.is_dir():
        raise AuditError(f"--out {str(out)!r} is a folder; name a file in it")
    if out.resolve() in (Path(source).resolve(), manifest and manifest.resolve()):
        raise AuditError(f"--out {str(out)!r} would overwrite what it reports on; name another file")
    out.parent.mkdir(parents=True, exist_ok=True)


def _scores(name: str) -> dict[str, Any]:
    """The columns of an audit: of a Parquet table, or of a run in a dataset."""
    if name.endswith(TABLE):
        from audit_plugin.report import read_scores

        return read_scores(name)
    dataset, colon, run = name.rpartition(":")
    if not colon or not dataset or not run:
        raise AuditError(f"{name!r} is neither a {TABLE} file nor DATASET:RUN; write it like my-photos:audit")
    from .datasets import _fiftyone_io

    view = _fiftyone_io().load_view(dataset)
    from audit_plugin.fiftyone_io.results.reports import audit_scores

    return audit_scores(view, run)


def _table(found: Comparison) -> Table:
    from rich.table import Table

    from audit_plugin.review.comparison import ANY

    names = ("flag", "fixed", "still flagged", "newly flagged", "gone from the set", "new in the set", "not scored")
    table = Table(names[0], title="From the earlier audit to the later one", title_justify="left")
    for name in names[1:]:
        table.add_column(name, justify="right")
    for kind, change in found.kinds.items():
        counts = (change.fixed, change.still, change.newly, change.gone, change.added, change.unknown)
        table.add_row("any of them" if kind == ANY else kind, *(f"{len(keys):,}" for keys in counts))
    return table


def sentences(found: Comparison) -> list[str]:
    """What the table does not say: rows in common, agreement of the scores, the first rows newly misaligned."""
    from audit_plugin.report.display import clean

    lines = [f"{found.common:,} rows in both, {len(found.gone):,} gone, {len(found.added):,} new"]
    if found.correlation:
        told = ", ".join(f"{name} {value:.3f}" for name, value in found.correlation.items())
        lines.append(f"rank correlation of the scores (1: the same order): {told}")
    change = found.kinds["misaligned"]
    for what, keys in (("newly misaligned", change.newly), ("still misaligned", change.still)):
        if keys:
            names = ", ".join(clean(name, 40) + (f" (caption {at})" if at else "") for name, at in keys[:SHOWN])
            lines.append(f"{what}: {names}" + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""))
    return lines
