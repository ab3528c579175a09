"""Commands on FiftyOne datasets: audit one, and make the demo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig

from .options import BAD_INPUT, DryRun, app, command, told_errors
from .running import audited, finish, show_plan, shown_progress

if TYPE_CHECKING:
    from types import ModuleType

    from audit_plugin.arrays import AuditResult, Samples

DEMO_DATASET = "audit-demo"
SLICE = "or slice:NAME[.FIELD] of a grouped dataset"


@command(
    image=f"Field with the image's path, {SLICE}",
    text=f"Field with the caption, a list of captions or class labels, {SLICE}. Without two named modalities, the "
    "sample's own file and the field that looks like a caption are taken",
    audio=f"Field with the path of an audio file, {SLICE}",
    video=f"Field with the path of a video, {SLICE}",
    run="",
)
def audit(
    dataset: Annotated[str, typer.Argument(help="Name of a FiftyOne dataset")],
    *,
    config: AuditConfig,
    view: Annotated[str | None, typer.Option(help="Saved view: audit only its samples")] = None,
    patches: Annotated[
        str | None, typer.Option(help="Field of detections: audit each object's crop against its label")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Audit a FiftyOne dataset: writes fields, tags and a run into it."""
    fiftyone_io = _fiftyone_io()
    chosen = fiftyone_io.load_view(dataset, view, patches)
    if dry_run:
        show_plan(fiftyone_io.preview_view(chosen, config))
        return
    samples = fiftyone_io.read_samples(chosen, config)
    with shown_progress() as progress:
        result = fiftyone_io.audit_view(chosen, config, progress)
    finish(
        result,
        samples,
        [
            f"results: {'attributes' if patches else 'fields'} {config.run}_*, tags {config.run}:* and the saved view "
            f"{config.run}_flagged",
            f"open it: fiftyone app launch {dataset}",
            f"run: {result.run_dir}",
        ],
    )


@app.command()
def demo(
    samples: Annotated[int, typer.Option(help="Rows to draw, a good fifth of them with a planted fault")] = 600,
    out: Annotated[Path, typer.Option(help="Folder for pictures, manifest and scores")] = Path("audit-demo"),
    seed: Annotated[int, typer.Option(help="Another seed draws other persons")] = 0,
    open_app: Annotated[bool, typer.Option("--app", help="Open the flagged samples in the FiftyOne App")] = False,
) -> None:
    """Draw a set with known faults, audit it and say which were found."""
    with told_errors():
        from audit_plugin.inputs.manifest import read_manifest
        from audit_plugin.inputs.tables import write_scores
        from audit_plugin.report.display import console, show_found
        from audit_plugin.synthetic.demo import draw_demo, found_missed, swap_auroc

        # The encoders that come inside packages: the same result on every machine, network or not.
        config = AuditConfig(encoder="offline", seed=seed)
        with shown_progress() as progress:
            manifest = draw_demo(out, samples, seed, progress)
        rows = read_manifest(manifest, {"image": "image", "text": "caption"})
        result = audited(rows, config)
        write_scores(out / "scores.parquet", result, rows)
        dataset, sentence = _into_fiftyone(rows, result, config, out)
        finish(result, rows, [])
        truth = out / "truth.csv"
        show_found(console(), found_missed(truth, result), swap_auroc(truth, result))
        for line in (f"scores: {out / 'scores.parquet'}", f"run: {result.run_dir}", sentence):
            typer.echo(line)
        if open_app:
            _open_app(dataset, config.run)


def _fiftyone_io() -> ModuleType:
    """The module, once FiftyOne's database answers."""
    try:
        import fiftyone as fo

        from audit_plugin import fiftyone_io

        fo.list_datasets()
    # A missing package, a missing mongod, a port or folder that is taken: each has exceptions of its own.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AuditError(f"FiftyOne cannot start ({reason}); mend it: audit-plugin doctor --fix") from error
    return fiftyone_io


def _into_fiftyone(rows: Samples, result: AuditResult, config: AuditConfig, out: Path) -> tuple[Any, str]:
    """The audited demo as a FiftyOne dataset, or None; and the sentence that says how to see it, or why not."""
    import csv

    from audit_plugin.audit.explain import load_explanations, renamed

    with (out / "truth.csv").open(encoding="utf-8", newline="") as file:
        planted = {row["id"]: row["fault"].replace("none", "") for row in csv.DictReader(file)}
    try:
        fiftyone_io = _fiftyone_io()
        fault = ("What was planted in this sample", [planted[name] for name in rows.ids])
        dataset = fiftyone_io.load_manifest_dataset(DEMO_DATASET, rows, {"fault": fault})
        ids = dataset.values("id")
        told = renamed(load_explanations(result.run_dir)["samples"], dict(zip(rows.ids, ids, strict=True)))
        fiftyone_io.write_result(dataset, replace(result, ids=tuple(ids)), config, explained=told)
    except AuditError as error:
        return None, f"the demo is scored but not in FiftyOne: {error}"
    how = f"the same command with --app, or: fiftyone app launch {DEMO_DATASET}"
    return (dataset, f"FiftyOne: dataset {DEMO_DATASET!r}, saved view '{config.run}_flagged'; to open it: {how}")


def _open_app(dataset: Any, run: str) -> None:
    if dataset is None:
        raise typer.Exit(BAD_INPUT)
    import contextlib

    import fiftyone as fo

    session = fo.launch_app(dataset.load_saved_view(f"{run}_flagged"))
    typer.echo("Ctrl-C closes the App")
    with contextlib.suppress(KeyboardInterrupt):
        session.wait(-1)
