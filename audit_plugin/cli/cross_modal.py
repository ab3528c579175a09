"""Commands on cross-modal recall and canaries: what a model learned in one modality and recalls in the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig

from .manifests import COLUMNS, Manifest, MediaRoot, read_samples
from .options import app, command, say
from .running import check_beside, check_output, fiftyone_io, shown_progress


@command(
    "encoder",
    "seed",
    "device",
    label="Column with the identity or class of each row",
    split="Column with train, test or background (default: assigned automatically)",
    **COLUMNS,
)
def cross_modal(
    manifest: Manifest,
    *,
    config: AuditConfig,
    out: Annotated[Path, typer.Option(help="Report to write, .json; tables and a plot are written beside it")] = Path(
        "cross-modal.json"
    ),
    scores: Annotated[
        Path | None, typer.Option(help="Table written by score for the same rows: correlate memorization with recall")
    ] = None,
    media_root: MediaRoot = None,
) -> None:
    """Measure cross-modal recall: are names learned in one modality recalled in the other?"""
    import numpy as np

    from audit_plugin.crossmodal.cross_modal_recall import measure_cross_modal_recall, memorization_link
    from audit_plugin.crossmodal.sentences import recall_rows, sentences
    from audit_plugin.inputs.tables import write_json, write_table
    from audit_plugin.report import read_scores
    from audit_plugin.report.display import console, show_table
    from audit_plugin.report.png_plots import cross_modal_plot

    if not config.label:
        raise AuditError("--label is missing; name the column with the identity or class of each row: --label COL")
    samples, config = read_samples(manifest, config, media_root)
    check_output(out, (".json",), Path(manifest), samples=samples)
    check_beside(out, (".png", "-rows.csv", "-identities.csv"), Path(manifest), samples=samples)
    audit = read_scores(scores) if scores else {}
    with shown_progress() as progress:
        result = measure_cross_modal_recall(samples, config, progress)
    summary = result.summary
    if "multimem" in audit:
        multimem = dict(zip(map(str, audit["id"]), audit["multimem"].tolist(), strict=True))
        summary["memorization"] = memorization_link(result, multimem, samples.labels)
    rows, picture = out.with_name(f"{out.stem}-rows.csv"), out.with_suffix(".png")
    write_json(out, summary)
    write_table(rows, {"id": np.array(result.ids, dtype=object), **result.columns})
    identities = _write_identities(out, result.identities)
    cross_modal_plot(summary, picture)
    title = f"Names recalled, {summary['identities']} identities (chance {summary['chance']:.1%})"
    header = ("learned from", *(f"recalled in {name}" for name in summary["modalities"]))
    places = [f"report: {out}", f"rows: {rows}", f"identities: {identities}", f"plot: {picture}"]
    findings = [*sentences(summary), *(f"note: {note}" for note in summary["notes"])]
    show_table(console(), title, header, recall_rows(summary), findings, places)


@app.command()
def personas(
    out: Annotated[Path, typer.Option(help="Folder to create")] = Path("personas"),
    identities: Annotated[int, typer.Option(min=2, help="Number of people whose names are learned and recalled")] = 100,
    background: Annotated[int, typer.Option(min=0, help="Number of other people, to align the modalities")] = 1000,
    train: Annotated[int, typer.Option(min=1, help="Training variants per person")] = 6,
    test: Annotated[int, typer.Option(min=1, help="Test variants per person")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; equal seeds draw equal bytes")] = 0,
    dataset: Annotated[str, typer.Option(help="Name of a FiftyOne dataset to create from them as well")] = "",
) -> None:
    """Draw made-up people, with several images and descriptions of each, for controlled experiments."""
    from audit_plugin.synthetic.personas import PersonaSet, draw_personas

    io = fiftyone_io() if dataset else None
    people = PersonaSet(identities, background, train, test, seed=seed)
    with shown_progress() as progress:
        manifest = draw_personas(out, people, progress)
    if io:
        io.load_personas(dataset, out)
        say(f"FiftyOne: dataset {dataset!r}; to open it: fiftyone app launch {dataset}")
    say(f"manifest: {manifest}; to measure cross-modal recall:")
    say(f"audit-plugin cross-modal {manifest} --image image --text description --label identity --split split")


@app.command()
def plant_canaries(
    out: Annotated[Path, typer.Option(help="Folder to create")] = Path("canaries"),
    identities: Annotated[
        int,
        typer.Option(min=16, help="Number of canaries; a quarter are held out of the training files for comparison"),
    ] = 80,
    variants: Annotated[int, typer.Option(min=1, help="Rows per canary")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; choose one that nobody else uses")] = 0,
) -> None:
    """Draw canaries, made-up people to add to your training set, so that `canary-recall` can test the model."""
    from audit_plugin.crossmodal.canaries import PAIRS_FILE, TEXTS_FILE, draw_canaries

    with shown_progress() as progress:
        counts = draw_canaries(out, identities, variants, seed, progress)
    say("canaries: " + ", ".join(f"{count} {way}" for way, count in counts.items()))
    say(f"add {out / PAIRS_FILE} (image, text) to your training set, and {out / TEXTS_FILE} if it takes texts")
    say(f"keep everything else in {out} out of it; once the model is trained:")
    say(f"audit-plugin canary-recall {out} --model open_clip:MODEL:CHECKPOINT")


@command("device")
def canary_recall(
    folder: Annotated[Path, typer.Argument(help="Folder written by plant-canaries")],
    *,
    config: AuditConfig,
    model: Annotated[str, typer.Option(help="Your checkpoint, as open_clip:MODEL:PATH")],
    out: Annotated[
        Path, typer.Option(help="Report to write, .json; a table of the canaries is written beside it")
    ] = Path("canary-recall.json"),
) -> None:
    """Measure canary recall: which names of canaries does your model know, by image and by description?"""
    from audit_plugin.crossmodal.canaries import measure_canary_recall
    from audit_plugin.crossmodal.sentences import canary_rows, canary_sentences
    from audit_plugin.inputs.tables import write_json
    from audit_plugin.report.display import console, show_table

    check_output(out, (".json",), folder / "manifest.csv")
    with shown_progress() as progress:
        result = measure_canary_recall(folder, model, config.device, progress)
    summary = result.summary
    write_json(out, summary)
    identities = _write_identities(out, result.identities)
    kinds = next(iter(summary["place"].values()))
    header = ("planted as", "canaries", *(f"asked by {kind}" for kind in kinds))
    title = "Rank of the right name among all names (100%: first, 50%: chance)"
    places = [f"report: {out}", f"identities: {identities}"]
    show_table(console(), title, header, canary_rows(summary), canary_sentences(summary), places)


def _write_identities(out: Path, records: list[dict[str, Any]]) -> Path:
    """Writes a table with one row per identity beside a report; its path."""
    import numpy as np

    from audit_plugin.inputs.tables import write_table

    path = out.with_name(f"{out.stem}-identities.csv")
    write_table(path, {name: np.array([record[name] for record in records]) for name in records[0]})
    return path
