"""The command that brings a part of a large audit into FiftyOne."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from audit_plugin.arrays import AuditError

from .datasets import _fiftyone_io
from .options import app, told_errors
from .report import MODALITIES, rows_of


@app.command(name="import")
def import_(
    scores: Annotated[Path, typer.Argument(help="Table that score wrote (.parquet)")],
    dataset: Annotated[str, typer.Option(help="Name of the FiftyOne dataset to make")],
    kind: Annotated[list[str] | None, typer.Option(help="Only this flag; may be repeated")] = None,
    rows: Annotated[int | None, typer.Option(min=0, help="Flagged rows at most, the most suspicious first")] = None,
    others: Annotated[int, typer.Option(min=0, help="Random rows besides that are not flagged")] = 200,
    run: Annotated[str, typer.Option(help="Key of the audit in the dataset")] = "audit",
    media: Annotated[
        Path | None, typer.Option(help="Folder for media out of tar shards (default: beside the scores)")
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="What was scored (default: as it was recorded)")] = None,
) -> None:
    """Load the flagged part of a large audit into FiftyOne, with what its evidence names and a few other rows."""
    with told_errors():
        from audit_plugin.report import report_of_table

        content = report_of_table(scores, rows_of(scores, manifest or _recorded(scores), dict.fromkeys(MODALITIES, "")))
        folder = media or scores.with_name(f"{scores.stem}-media")
        made = _fiftyone_io().import_scores(content, dataset, run, folder, kind or (), rows, others)
        typer.echo(f"{made.count():,} samples of {len(content.samples):,} rows: dataset {dataset!r}")
        typer.echo(f"open it: fiftyone app launch {dataset}")


def _recorded(scores: Path) -> Path:
    """The manifest that a table was made from."""
    beside = scores.with_suffix(".json")
    found = json.loads(beside.read_text(encoding="utf-8")).get("manifest", "") if beside.is_file() else ""
    if not found:
        raise AuditError(f"{beside.name} does not say what {scores.name} was made from; name it: --manifest")
    return Path(found)
