"""The command on what is learned in one modality and recalled in the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig

from .manifests import COLUMNS, Manifest, check_report, read_samples
from .options import command
from .running import shown_progress

if TYPE_CHECKING:
    from audit_plugin.crossmodal.cross_modal_recall import TransferResult


@command(
    "encoder",
    "seed",
    "device",
    label="Column with the identity or class of each row",
    split="Column that says train, test or background (default: halves take turns)",
    **COLUMNS,
)
def transfer(
    manifest: Manifest,
    *,
    config: AuditConfig,
    out: Annotated[Path, typer.Option(help="Report to write, .json; tables and a picture are put beside it")] = Path(
        "transfer.json"
    ),
    scores: Annotated[
        Path | None, typer.Option(help="Table that score wrote of the same rows: are memorized ones those that stay?")
    ] = None,
) -> None:
    """Find the identities that a model knows from one modality only: names learned in one, asked in the other."""
    from audit_plugin.crossmodal.cross_modal_recall import memorization_link, run_transfer
    from audit_plugin.report import read_scores

    if not config.label:
        raise AuditError("name the column with the identity or class of each row: --label COL")
    samples = read_samples(manifest, config)
    check_report(out, manifest)
    known = read_scores(scores) if scores else {}
    with shown_progress() as progress:
        result = run_transfer(samples, config, progress)
    if "multimem" in known:
        memorized = dict(zip(map(str, known["id"]), known["multimem"].tolist(), strict=True))
        result.summary["memorization"] = memorization_link(result, memorized, samples.labels)
    _show(result, _write(result, out))


def _write(result: TransferResult, out: Path) -> list[str]:
    """Writes report, tables and picture; the lines that say where."""
    import numpy as np

    from audit_plugin.inputs.tables import write_csv, write_json
    from audit_plugin.report.transfer_plot import transfer_plot

    rows = out.with_name(f"{out.stem}-rows.csv")
    write_json(out, result.summary)
    write_csv(rows, {"id": np.array(result.ids, dtype=object), **result.columns})
    people = write_people(out, result.identities)
    transfer_plot(result.summary, out.with_suffix(".png"))
    return [f"report: {out}", f"rows: {rows}", f"identities: {people}", f"picture: {out.with_suffix('.png')}"]


def write_people(out: Path, records: list[dict[str, Any]]) -> Path:
    """The table with a line per identity beside a report; its path."""
    import numpy as np

    from audit_plugin.inputs.tables import write_csv

    path = out.with_name(f"{out.stem}-identities.csv")
    write_csv(path, {name: np.array([record[name] for record in records]) for name in records[0]})
    return path


def _show(result: TransferResult, places: list[str]) -> None:
    from rich.table import Table

    from audit_plugin.crossmodal.sentences import recall_rows, sentences
    from audit_plugin.report.display import clean, console

    out, summary = console(), result.summary
    table = Table("learned from", *(f"asked in {name}" for name in summary["modalities"]), title_justify="left")
    table.title = f"Names recalled, {summary['identities']} identities (chance {summary['chance']:.1%})"
    for row in recall_rows(summary):
        table.add_row(*(clean(cell) for cell in row))
    out.print(table)
    for line in (*sentences(summary), *(f"note: {note}" for note in summary["notes"]), *places):
        out.print(clean(line), soft_wrap=True)
