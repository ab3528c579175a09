"""Commands on FiftyOne datasets: audit one, import part of a large audit, and make the demo."""

from __future__ import annotations

import contextlib
import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit_plugin.arrays import MODALITIES, AuditError, count_text
from audit_plugin.config import AuditConfig

from .gate import Gate, gated
from .manifests import MediaRoot, ScoredManifest, fetching
from .options import BAD_INPUT, DryRun, app, command, say
from .running import audited, fiftyone_io, finish, shown_progress

if TYPE_CHECKING:
    from audit_plugin.arrays import Samples
    from audit_plugin.audit.result import AuditResult

DEMO_DATASET = "audit-demo"
RUN_DIR_HELP = "Run folder of the audit (default: as recorded, if it lies beside the table or in the cache)"
SLICE = "or slice:NAME[.FIELD] of a grouped dataset"
FIELDS = {name: f"Field with {modality.content}, {SLICE}" for name, modality in MODALITIES.items()} | {
    "text": f"Field with the caption, a list of captions or class labels, {SLICE}. If fewer than two modalities are "
    "named, the sample's own file and a field that looks like a caption are used"
}


@command(**FIELDS, run="")
@gated
def audit(
    dataset: Annotated[str, typer.Argument(help="Name of a FiftyOne dataset")],
    *,
    config: AuditConfig,
    view: Annotated[str | None, typer.Option(help="Saved view: audit only its samples")] = None,
    patches: Annotated[
        str | None, typer.Option(help="Field of detections: audit each object's crop against its label")
    ] = None,
    dry_run: DryRun = False,
    gate: Gate,
) -> None:
    """Audit a FiftyOne dataset and write the results to it as fields, tags, a saved view and a run."""
    gate.check(dry_run=dry_run)
    io = fiftyone_io()
    chosen = io.load_view(dataset, view, patches)
    if dry_run:
        from audit_plugin.report.display import console, show_cost

        show_cost(console(), io.estimate_cost(chosen, config))
        return
    samples = io.read_samples(chosen, config)
    with shown_progress() as progress:
        result = io.audit_view(chosen, config, progress)
    run, fields = config.run, "attributes" if patches else "fields"
    written = f"results: {fields} {run}_*, tags {run}:* and the saved view {run}_flagged"
    finish(result, samples, [written, f"to open it: fiftyone app launch {dataset}", f"run: {result.run_dir}"], gate)


@app.command()
def demo(
    samples: Annotated[int, typer.Option(help="Rows to draw, about a fifth of them with a planted error")] = 600,
    out: Annotated[Path, typer.Option(help="Folder for images, manifest and scores")] = Path("audit-demo"),
    seed: Annotated[int, typer.Option(help="Random seed; another one draws other people")] = 0,
    open_app: Annotated[bool, typer.Option("--app", help="Open the flagged samples in the FiftyOne App")] = False,
) -> None:
    """Draw a data set with known errors, audit it, and report which errors were detected."""
    from audit_plugin.audit.result import write_scores
    from audit_plugin.inputs.samples import read_samples
    from audit_plugin.report.display import console, show_detected
    from audit_plugin.synthetic.demo import count_flagged_faults, draw_demo, swap_auroc

    # The encoders that come inside packages: the same result on every machine, with or without a network.
    config = AuditConfig(encoder="offline", seed=seed)
    with shown_progress() as progress:
        manifest = draw_demo(out, samples, seed, progress)
    columns = {"image": "image", "text": "caption"}
    rows = read_samples(manifest, columns)
    result = audited(rows, config)
    # what was scored, by which columns: report and export of the table ask for it
    scored = {"config": {**result.summary["config"], **columns}, "manifest": str(manifest.absolute())}
    write_scores(out / "scores.parquet", replace(result, summary={**result.summary, **scored}))
    dataset, sentence = _demo_dataset(rows, result, config, out)
    finish(result, rows, [])
    truth = out / "truth.csv"
    places = [f"scores: {out / 'scores.parquet'}", f"run: {result.run_dir}", sentence]
    show_detected(console(), count_flagged_faults(truth, result), swap_auroc(truth, result), places)
    if open_app and dataset is None:
        raise typer.Exit(BAD_INPUT)
    if open_app:
        import fiftyone as fo

        # the server reads the files of all plugins again for each click otherwise
        os.environ.setdefault("FIFTYONE_PLUGINS_CACHE_ENABLED", "true")
        session = fo.launch_app(dataset.load_saved_view(f"{config.run}_flagged"))
        typer.echo("press Ctrl-C to close the App")
        with contextlib.suppress(KeyboardInterrupt):
            session.wait(-1)


@app.command(name="import")
def import_(  # noqa: PLR0913, PLR0917
    scores: Annotated[Path, typer.Argument(help="Table written by score (.parquet)")],
    dataset: Annotated[str, typer.Option(help="Name of the FiftyOne dataset to create")],
    kind: Annotated[list[str] | None, typer.Option(help="Import only this flag; may be repeated")] = None,
    rows: Annotated[
        int | None, typer.Option(min=0, help="Maximum number of flagged rows, most suspicious first")
    ] = None,
    others: Annotated[int, typer.Option(min=0, help="Number of random unflagged rows to add")] = 200,
    run: Annotated[str, typer.Option(help="Run key of the audit in the dataset")] = "audit",
    media: Annotated[
        Path | None, typer.Option(help="Folder for media extracted from tar shards (default: beside the scores)")
    ] = None,
    manifest: ScoredManifest = None,
    run_dir: Annotated[Path | None, typer.Option(help=RUN_DIR_HELP)] = None,
    media_root: MediaRoot = None,
) -> None:
    """Import the flagged part of a large audit into FiftyOne, with evidence and random unflagged rows (--others)."""
    from audit_plugin.audit.export import recorded_place
    from audit_plugin.report import read_summary, report_of_table

    io = fiftyone_io()
    source: str | Path = manifest or ""
    if manifest is None:
        if not (recorded := read_summary(scores).get("manifest")):
            raise AuditError(f"{scores.stem}.json does not name the manifest of {scores.name}; name it: --manifest")
        source, folder = recorded_place(recorded)
        media_root = media_root or folder
        say(f"manifest, as recorded in {scores.stem}.json: {recorded}; media are read from {media_root} only")
    rows_of_manifest, columns = scored_rows(scores, source, media_root=media_root)
    if problems := rows_of_manifest.problems:
        row, reason = next(iter(problems.items()))
        say(f"{count_text(len(problems), 'row')} cannot be used; the first, {rows_of_manifest.ids[row]!r}: {reason}")
    content = report_of_table(scores, rows_of_manifest, None, run_dir, columns)
    folder = media or scores.with_name(f"{scores.stem}-media")
    imported = io.import_scores(content, dataset, run, folder, kind or (), rows, others)
    say(
        f"{count_text(io.count_samples(imported), 'sample')} "
        f"of {count_text(len(content.samples), 'row')}: dataset {dataset!r}"
    )
    say(f"to open it: fiftyone app launch {dataset}")


def scored_rows(
    scores: Path, manifest: str | Path, config: AuditConfig | None = None, media_root: Path | None = None
) -> tuple[Samples, str]:
    """(rows of the manifest that was scored, what names their media); columns as in settings, else as recorded."""
    from audit_plugin.inputs.samples import read_samples
    from audit_plugin.report import read_summary

    columns = {name: getattr(config, name, "") for name in MODALITIES}
    if not any(columns.values()):
        columns = read_summary(scores).get("config") or {}
    named = {name: str(columns[name]) for name in MODALITIES if columns.get(name)}
    media = [column for name, column in named.items() if not MODALITIES[name].is_text]
    source = f"column {' and '.join(map(repr, media))} of {Path(manifest).name}" if media else ""
    with fetching(manifest) as progress:
        return read_samples(manifest, named, media_root=media_root, progress=progress), source


def _demo_dataset(rows: Samples, result: AuditResult, config: AuditConfig, out: Path) -> tuple[Any, str]:
    """The audited demo as a FiftyOne dataset, or None; and a sentence on how to open it, or why it is missing."""
    from audit_plugin.audit.explain import load_explanations, renamed

    with (out / "truth.csv").open(encoding="utf-8", newline="") as file:
        faults = {row["id"]: row["fault"].replace("none", "") for row in csv.DictReader(file)}
    try:
        io = fiftyone_io()
        fault = ("The error planted in this sample", [faults[name] for name in rows.ids])
        explanations = load_explanations(result.run_dir)["samples"]

        def write_audit(dataset: Any) -> None:
            ids = dataset.values("id")
            explained = renamed(explanations, dict(zip(rows.ids, ids, strict=True)))
            io.write_result(dataset, replace(result, ids=tuple(ids)), config, explanations=explained)

        dataset = io.load_manifest_dataset(DEMO_DATASET, rows, {"fault": fault}, write_audit)
    except AuditError as error:
        return None, f"the demo was scored but not imported into FiftyOne: {error}"
    how = f"the same command with --app, or: fiftyone app launch {DEMO_DATASET}"
    return dataset, f"FiftyOne: dataset {DEMO_DATASET!r}, saved view '{config.run}_flagged'; to open it: {how}"
