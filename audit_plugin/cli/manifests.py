"""Commands on manifests: score the rows, and see what their removal does to a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig

from .options import DryRun, command
from .running import audited, finish, show_plan, shown_progress

if TYPE_CHECKING:
    from audit_plugin.arrays import AuditResult, Samples

MODALITIES = ("image", "text", "audio", "video")
COLUMNS = {
    "image": "Column with the image paths, relative to the manifest",
    "text": "Column with the captions",
    "audio": "Column with the paths of audio files",
    "video": "Column with the paths of videos",
}
Manifest = Annotated[
    Path,
    typer.Argument(
        help="CSV, TSV, JSONL or Parquet, one row per sample; or tar shards: a .tar, a folder of them, a pattern"
    ),
]
RunDir = Annotated[Path | None, typer.Option(help="Folder for unfinished work (default: in the cache)")]


@command(**COLUMNS)
def score(
    manifest: Manifest,
    *,
    config: AuditConfig,
    out: Annotated[Path, typer.Option(help="Table to write: .parquet, .csv or .jsonl")] = Path("scores.parquet"),
    run_dir: RunDir = None,
    extend: Annotated[
        Path | None, typer.Option(help="Finished run: score these new rows by what it trained, with its settings")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Score the rows of a manifest, by any two or more modalities. Needs no FiftyOne."""
    from audit_plugin.inputs.tables import check_output, write_scores

    if extend:
        _check_extension(config, run_dir, dry_run)
    samples = read_samples(manifest, config)
    check_output(out, manifest)
    if dry_run:
        from audit_plugin.audit.cost import plan_audit

        show_plan(plan_audit(samples, config))
        return
    result = _extended(samples, extend) if extend else audited(samples, config, run_dir)
    result = replace(result, summary={**result.summary, "manifest": str(manifest.absolute())})
    write_scores(out, result, samples)
    places = [f"scores: {out}", f"summary: {out.with_suffix('.json')}", *_picture(result, out.with_suffix(".png"))]
    finish(result, samples, [*places, f"run: {result.run_dir}"])


@command(**COLUMNS)
def mitigate(
    manifest: Manifest,
    *,
    config: AuditConfig,
    out: Annotated[Path, typer.Option(help="Report to write, .json; a picture is put beside it")] = Path(
        "removal.json"
    ),
    amounts: Annotated[str, typer.Option(help="Numbers of rows to remove, such as 20,50,100 (default: shares)")] = "",
    seeds: Annotated[int, typer.Option(min=2, help="Repetitions, from which the intervals are made")] = 5,
    run_dir: RunDir = None,
) -> None:
    """Find out whether removing the worst rows helps a model: removal curves against random removal and none."""
    from audit_plugin.audit.removal_study import removal_study
    from audit_plugin.report.display import console, show_removal

    samples, numbers = read_samples(manifest, config), _numbers(amounts)
    check_report(out, manifest)
    with shown_progress() as progress:
        report = removal_study(samples, config, numbers, seeds, progress, run_dir)
    show_removal(console(), report, [f"report: {out}", f"picture: {_write_report(report, out)}"])


def read_samples(manifest: Path, config: AuditConfig) -> Samples:
    """The rows of a manifest by the columns that the settings name."""
    from audit_plugin.inputs.manifest import read_manifest

    columns = {name: getattr(config, name) for name in MODALITIES if getattr(config, name)}
    keys = (getattr(config, name) or None for name in ("group", "label", "role", "split"))
    return read_manifest(manifest, columns, *keys)


def _check_extension(config: AuditConfig, run_dir: Path | None, dry_run: bool) -> None:
    """Refuses what an extension could not honor: its settings are those of the run that it extends."""
    usual = AuditConfig().scoring()
    given = [name for name, value in config.scoring().items() if value != usual[name]]
    given += ["engine"] if config.engine != AuditConfig().engine else []
    given += ["run_dir"] if run_dir else []
    given += ["dry_run"] if dry_run else []
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise AuditError(f"{option} cannot be given with --extend, which takes its settings from the run; leave it out")


def _extended(samples: Samples, run_dir: Path) -> AuditResult:
    from audit_plugin.audit.extend import extend_run

    with shown_progress() as progress:
        return extend_run(samples, run_dir, progress)


def _picture(result: AuditResult, path: Path) -> list[str]:
    """Draws what was memorized, where anything was measured; the line that says where."""
    import numpy as np

    from audit_plugin.report.plots import memorization_plot

    measured = result.columns.get("multimem")
    if measured is None or not np.isfinite(measured).any():
        return []
    memorization_plot(result.columns, path, result.summary.get("memorized", {}).get("cut"))
    return [f"picture: {path}"]


def _numbers(text: str) -> tuple[int, ...] | None:
    """`20,50` as numbers; None for "", which leaves the choice to the study."""
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else None
    except ValueError:
        raise AuditError(f"--amounts is {text!r}; give whole numbers with commas between, such as 20,50,100") from None


def check_report(out: Path, manifest: Path) -> None:
    """Refuses, before any work is done, a report that would overwrite the manifest or has no place."""
    if out.suffix.lower() != ".json":
        raise AuditError(f"--out {str(out)!r} ends in {out.suffix or 'nothing'!r}; the report is a .json file")
    if out.resolve() == manifest.resolve():
        raise AuditError(f"--out {str(out)!r} would overwrite the manifest; name another file")
    if out.is_dir():
        raise AuditError(f"--out {str(out)!r} is a folder; name a file in it")
    out.parent.mkdir(parents=True, exist_ok=True)


def _write_report(report: dict[str, Any], out: Path) -> Path:
    """Writes the report and its picture; the picture's path."""
    from audit_plugin.inputs.tables import write_json
    from audit_plugin.report.plots import removal_plot

    write_json(out, report)
    picture = out.with_suffix(".png")
    removal_plot(report, picture)
    return picture
