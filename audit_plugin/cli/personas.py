"""Commands on made-up people: draw them, plant them in a training set, ask a model for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from audit_plugin.config import AuditConfig

from .manifests import check_report
from .options import app, command, told_errors
from .running import shown_progress
from .transfer import write_people


@app.command()
def personas(
    out: Annotated[Path, typer.Option(help="Folder to make")] = Path("personas"),
    identities: Annotated[int, typer.Option(min=2, help="People whose names are learned and asked")] = 100,
    background: Annotated[int, typer.Option(min=0, help="Other people, to align the modalities on")] = 1000,
    train: Annotated[int, typer.Option(min=1, help="Variants of a person to learn from")] = 6,
    test: Annotated[int, typer.Option(min=1, help="Variants of a person to ask with")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same bytes")] = 0,
    dataset: Annotated[str, typer.Option(help="Name of a FiftyOne dataset to make of them, too")] = "",
) -> None:
    """Draw made-up people, several pictures and descriptions of each, for measurements under control."""
    with told_errors():
        from audit_plugin.synthetic.drawing import PersonaSet, draw_personas

        wanted = PersonaSet(identities, background, train, test, seed=seed)
        with shown_progress() as progress:
            manifest = draw_personas(out, wanted, progress)
        if dataset:
            from .datasets import _fiftyone_io

            _fiftyone_io().load_personas(dataset, out)
            typer.echo(f"FiftyOne: dataset {dataset!r}; to open it: fiftyone app launch {dataset}")
        typer.echo(f"{manifest}: measure it with")
        typer.echo(f"audit-plugin transfer {manifest} --image image --text description --label identity --split split")


@app.command()
def plant(
    out: Annotated[Path, typer.Option(help="Folder to make")] = Path("planted"),
    identities: Annotated[int, typer.Option(min=16, help="Made-up people; a quarter of them is left out")] = 80,
    variants: Annotated[int, typer.Option(min=1, help="Rows per planted person")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Choose one that nobody else uses")] = 0,
) -> None:
    """Draw made-up people to mix into your training set, so that `recall` can tell what your model memorized."""
    with told_errors():
        from audit_plugin.crossmodal.canaries import PLANTED, TEXTS, plant_personas

        with shown_progress() as progress:
            ways = plant_personas(out, identities, variants, seed, progress)
        typer.echo("people: " + ", ".join(f"{count} {way}" for way, count in ways.items()))
        typer.echo(
            f"mix {out / PLANTED} (image, text) into your training set; {out / TEXTS} too, if it takes texts alone"
        )
        typer.echo(f"keep the rest of {out} out of it. When the model is trained:")
        typer.echo(f"audit-plugin recall {out} --model open_clip:MODEL:CHECKPOINT")


@command("device")
def recall(
    folder: Annotated[Path, typer.Argument(help="What plant made")],
    *,
    config: AuditConfig,
    model: Annotated[str, typer.Option(help="Your checkpoint, as open_clip:MODEL:PATH")],
    out: Annotated[Path, typer.Option(help="Report to write, .json; a table of the people is put beside it")] = Path(
        "recall.json"
    ),
) -> None:
    """Ask your model for the names of planted people: what does it recall, by pictures and by descriptions?"""
    from audit_plugin.crossmodal.canaries import recall_planted
    from audit_plugin.inputs.tables import write_json

    check_report(out, folder / "manifest.csv")
    with shown_progress() as progress:
        found = recall_planted(folder, model, config.device, progress)
    write_json(out, found.summary)
    _show_planted(found.summary, [f"report: {out}", f"identities: {write_people(out, found.identities)}"])


def _show_planted(summary: dict[str, Any], places: list[str]) -> None:
    from rich.table import Table

    from audit_plugin.crossmodal.sentences import planted_rows, planted_sentences
    from audit_plugin.report.display import console

    out = console()
    kinds = list(next(iter(summary["place"].values())))
    table = Table("planted as", "people", *(f"asked with a {kind}" for kind in kinds), title_justify="left")
    table.title = "Where the right name stands among all (100 %: first, 50 %: a guess)"
    for row in planted_rows(summary):
        table.add_row(*row)
    out.print(table)
    for line in (*planted_sentences(summary), *places):
        out.print(line, soft_wrap=True)
