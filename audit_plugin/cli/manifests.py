"""Commands on manifests: score the rows, and measure whether removing the worst ones helps a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit_plugin.arrays import MODALITIES, AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.inputs.spreadsheet import place_line

from .gate import Gate, gated
from .options import BAD_INPUT, DryRun, command, stop
from .running import audited, check_beside, check_output, finish, shown_progress

if TYPE_CHECKING:
    from audit_plugin.arrays import Samples
    from audit_plugin.audit.result import AuditResult

COLUMNS = {
    name: f"Column with {modality.content}" + ("" if modality.is_text else ", relative to the manifest")
    for name, modality in MODALITIES.items()
}
# Text, not a Path, which makes `s3:/b` of `s3://b`.
Manifest = Annotated[
    str,
    typer.Argument(
        help="CSV, TSV, JSON, JSONL or Parquet, one row per sample; tar shards: a .tar file, a folder of them, a "
        "pattern; a folder of media by class or with texts, or of images with boxes (COCO, VOC, YOLO); or the output "
        "folder of clip-retrieval; each on this machine, or s3://, gs://, hf://, https:// and what else fsspec reads"
    ),
]
ScoredManifest = Annotated[
    str | None,
    typer.Option(help="Manifest that was scored (default: as recorded; its media must then lie in its folder)"),
]
MediaRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder in which all media must lie, links followed; rows with media elsewhere fail (default: anywhere)"
    ),
]
Form = Annotated[str, typer.Option("--format", help="Format of the manifest (default: recognized by looking)")]
RunDir = Annotated[
    Path | None,
    typer.Option(
        help="Run folder: stored features and trained models, for resuming and for --extend (default: in the cache)"
    ),
]


@command(**COLUMNS)
@gated
def score(
    manifest: Manifest,
    *,
    config: AuditConfig,
    out: Annotated[Path, typer.Option(help="Table to write: .parquet, .csv or .jsonl")] = Path("scores.parquet"),
    run_dir: RunDir = None,
    extend: Annotated[
        Path | None, typer.Option(help="Folder of a finished run: score new rows with its models and settings")
    ] = None,
    media_root: MediaRoot = None,
    format: Form = "",  # noqa: A002 (as the option is called)
    dry_run: DryRun = False,
    gate: Gate,
) -> None:
    """Score the rows of a manifest, by any two or more modalities. Does not need FiftyOne."""
    from audit_plugin.audit.result import write_scores
    from audit_plugin.inputs.remote import name_of

    if extend:
        _check_extension(config, run_dir, dry_run)
    samples, config = read_samples(manifest, config, media_root, format)
    check_output(out, (".parquet", ".csv", ".jsonl"), Path(manifest), samples=samples)
    check_beside(out, (".json", ".png"), Path(manifest), samples=samples)
    gate.check(Path(manifest), out, samples=samples, dry_run=dry_run)
    tell(samples)
    if dry_run:
        from audit_plugin.audit.cost import plan_audit
        from audit_plugin.report.display import console, show_cost

        cost = plan_audit(samples, config)
        show_cost(console(), cost)
        if cost["unreadable"] == cost["rows"]:
            stop(BAD_INPUT, "error: none of the rows can be read; correct the paths of the manifest")
        return
    if extend:
        from audit_plugin.audit.extend import extend_run

        with shown_progress() as progress:
            result = extend_run(samples, extend, progress)
    else:
        result = audited(samples, config, run_dir)
    result = replace(result, summary={**result.summary, "manifest": name_of(manifest), "format": format})
    write_scores(out, result)
    places = [f"scores: {out}", f"summary: {out.with_suffix('.json')}", *_plot(result, out.with_suffix(".png"))]
    finish(result, samples, [*places, f"run: {result.run_dir}"], gate)


@command(**COLUMNS)
def removal_study(
    manifest: Manifest,
    *,
    config: AuditConfig,
    out: Annotated[Path, typer.Option(help="Report to write, .json; a plot is written beside it")] = Path(
        "removal.json"
    ),
    amounts: Annotated[str, typer.Option(help="Numbers of rows to remove, such as 20,50,100 (default: shares)")] = "",
    seeds: Annotated[int, typer.Option(min=2, help="Number of repetitions, for the confidence intervals")] = 5,
    run_dir: RunDir = None,
    media_root: MediaRoot = None,
    format: Form = "",  # noqa: A002 (as the option is called)
) -> None:
    """Measure whether removing the worst rows helps a model, compared with random and no removal."""
    from audit_plugin.audit import removal_study as study
    from audit_plugin.inputs.tables import write_json
    from audit_plugin.report.display import console, show_removal
    from audit_plugin.report.png_plots import removal_plot

    numbers = _numbers(amounts)
    samples, config = read_samples(manifest, config, media_root, format)
    check_output(out, (".json",), Path(manifest), samples=samples)
    check_beside(out, (".png",), Path(manifest), samples=samples)
    tell(samples)
    with shown_progress() as progress:
        report = study.removal_study(samples, config, numbers, seeds, progress, run_dir)
    write_json(out, report)
    removal_plot(report, out.with_suffix(".png"))
    show_removal(console(), report, [f"report: {out}", f"plot: {out.with_suffix('.png')}"])


@contextmanager
def fetching(manifest: str | Path | None) -> Iterator[Callable[[str, int, int], None] | None]:
    """Progress for reading a manifest, shown only where it is fetched from remote storage."""
    from audit_plugin.inputs.remote import is_remote

    if manifest is None or not is_remote(manifest):
        yield None
        return
    with shown_progress() as progress:
        yield progress


def read_samples(
    manifest: str | Path, config: AuditConfig, media_root: Path | None = None, form: str = ""
) -> tuple[Samples, AuditConfig]:
    """(the rows of a manifest, the settings with the columns that they were read from)."""
    from audit_plugin.inputs import samples as inputs

    columns = {name: getattr(config, name) for name in COLUMNS if getattr(config, name)}
    group, label, role, split = (getattr(config, name) or None for name in ("group", "label", "role", "split"))
    with fetching(manifest) as progress:
        samples = inputs.read_samples(
            manifest, columns, group, label, role, split, media_root, form, config.embeddings, progress
        )
    chosen: dict[str, Any] = dict(samples.columns)
    if samples.source.startswith("clip-retrieval folder") and not config.embeddings and len(samples.vectors) > 1:
        chosen["same_space"] = True  # they are of one model
    return samples, replace(config, **chosen)


def tell(samples: Samples) -> None:
    """Says on stderr how the rows were read."""
    for note in samples.notes:
        typer.echo(place_line(note), err=True)


def _check_extension(config: AuditConfig, run_dir: Path | None, dry_run: bool) -> None:
    """Refuses settings that differ from the run's: an extension uses those of the run."""
    defaults = AuditConfig()
    values = {**config.scoring(), "engine": config.engine}
    changed = [name for name, value in values.items() if value != getattr(defaults, name)]
    changed += [name for name, value in (("run_dir", run_dir), ("dry_run", dry_run)) if value]
    if changed:
        option = f"--{changed[0].replace('_', '-')}"
        raise AuditError(f"{option} cannot be combined with --extend, which uses the settings of the run; leave it out")


def _plot(result: AuditResult, path: Path) -> list[str]:
    """Draws MultiMem, if any row has one; the line that says where."""
    import numpy as np

    from audit_plugin.report.png_plots import memorization_plot

    multimem = result.columns.get("multimem")
    if multimem is None or not np.isfinite(multimem).any():
        return []
    memorization_plot(result.columns, path, result.summary.get("memorized", {}).get("cut"))
    return [f"plot: {path}"]


def _numbers(text: str) -> tuple[int, ...] | None:
    """`20,50` as numbers; None for "", which leaves the choice to the study."""
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else None
    except ValueError:
        raise AuditError(f"--amounts is {text!r}; give whole numbers separated by commas, such as 20,50,100") from None
