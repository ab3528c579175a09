"""The command line. Everything heavy is imported inside the commands, so that `--help` is quick.

Exit codes: 0 done, 1 nothing could be scored, 2 wrong use or bad input, 130 interrupted.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .arrays import AuditError
from .config import AuditConfig

if TYPE_CHECKING:
    from types import ModuleType

    from .arrays import AuditResult, Samples

NOTHING_SCORED, BAD_INPUT, INTERRUPTED = 1, 2, 130
# What each command names in its own way; every other setting is an option of every audit.
NAMING = ("image", "text", "run")
DEMO_DATASET = "audit-demo"

app = typer.Typer(
    name="audit-plugin",
    help="Finds misaligned pairs, outliers, duplicates and memorized samples in image-text datasets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Entry point of `audit-plugin`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    # doctor installs that version on purpose; a notice before every audit would only hide others.
    database = logging.getLogger("fiftyone.core.odm.database")
    database.addFilter(lambda record: "oldest supported major version" not in str(record.msg))
    for stream in (sys.stdout, sys.stderr):
        # A caption that the terminal's character set lacks must not end an hour's work.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app()


@contextmanager
def _told_errors() -> Iterator[None]:
    """Errors that a user can mend become one sentence and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        _stop(INTERRUPTED, "interrupted; the same command resumes where it stopped")
    except AuditError as error:
        _stop(BAD_INPUT, f"error: {error}")
    except BrokenPipeError:
        raise
    except ConnectionError as error:
        _stop(BAD_INPUT, f"error: the database is out of reach ({error}); see: audit-plugin doctor --fix")
    except OSError as error:
        place = repr(error.filename) if error.filename else "the disk"
        _stop(BAD_INPUT, f"error: cannot use {place} ({error.strerror or error}); check it and run again")


def _stop(code: int, sentence: str) -> NoReturn:
    from .display import clean

    typer.echo(clean(sentence), err=True)
    raise typer.Exit(code)


def _command(**overrides: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a command whose `config` is made of options, one per setting, written from the setting itself.

    Args:
        overrides: settings of `NAMING` that the command offers too -> help text ("" for the setting's own).
    """
    offered = {f.name: f for f in fields(AuditConfig) if f.name in overrides or f.name not in NAMING}

    def register(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "config"]
        made = [_option(f.name, f.default, overrides.get(f.name), f.metadata) for f in offered.values()]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            with _told_errors():
                config = AuditConfig(**{name: given.pop(name) for name in offered})
                command(config=config, **given)

        # The help shows what to read first, then the command's own options, then the settings.
        def rank(parameter: inspect.Parameter) -> tuple[bool, bool, bool]:
            option = parameter.kind is parameter.KEYWORD_ONLY
            return option, parameter.name not in overrides, parameter.name in offered

        parameters = sorted([*own, *made], key=rank)
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return app.command()(run)

    return register


def _option(name: str, default: Any, text: str | None, meta: Any) -> inspect.Parameter:
    text = text or meta["help"]
    if meta["choices"]:
        text += f" ({', '.join(meta['choices'])})"
    elif meta["low"] is not None:
        text += f" ({meta['low']} to {meta['high']})"
    info = typer.Option(f"--{name.replace('_', '-')}", help=text, show_default=default != "")
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[type(default), info]
    )


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"audit-plugin {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would take")]


@_command(image="Column with the image paths, relative to the manifest", text="Column with the captions")
def score(
    manifest: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet, one row per sample")],
    *,
    config: AuditConfig,
    out: Annotated[Path, typer.Option(help="Table to write: .parquet, .csv or .jsonl")] = Path("scores.parquet"),
    run_dir: Annotated[Path | None, typer.Option(help="Folder for unfinished work (default: in the cache)")] = None,
    dry_run: DryRun = False,
) -> None:
    """Score the rows of a manifest. Needs no FiftyOne."""
    from .manifest import check_output, read_manifest, write_scores

    named = {"image": config.image, "text": config.text}
    columns = {modality: column for modality, column in named.items() if column}
    samples = read_manifest(manifest, columns, config.group or None)
    check_output(out, manifest)
    if dry_run:
        from .pipeline import plan_audit

        _show_plan(plan_audit(samples, config))
        return
    result = _audit(samples, config, run_dir)
    write_scores(out, result, samples)
    _finish(result, samples, [f"scores: {out}", f"summary: {out.with_suffix('.json')}", f"run: {result.run_dir}"])


@_command(image="", text="", run="")
def audit(
    dataset: Annotated[str, typer.Argument(help="Name of a FiftyOne dataset")],
    *,
    config: AuditConfig,
    view: Annotated[str | None, typer.Option(help="Saved view: audit only its samples")] = None,
    dry_run: DryRun = False,
) -> None:
    """Audit a FiftyOne dataset: writes fields, tags and a run into it."""
    fiftyone_io = _fiftyone_io()
    chosen = fiftyone_io.load_view(dataset, view)
    if dry_run:
        _show_plan(fiftyone_io.preview_view(chosen, config))
        return
    samples = fiftyone_io.read_samples(chosen, config)
    with _progress() as progress:
        result = fiftyone_io.audit_view(chosen, config, progress)
    _finish(
        result,
        samples,
        [
            f"results: fields {config.run}_*, tags {config.run}:* and the saved view {config.run}_flagged",
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
    with _told_errors():
        from .demo import draw_demo, found_missed, swap_auroc
        from .display import console, show_found
        from .manifest import read_manifest, write_scores

        # The encoders that come inside packages: the same result on every machine, network or not.
        config = AuditConfig(encoder="offline", seed=seed)
        with _progress() as progress:
            manifest = draw_demo(out, samples, seed, progress)
        rows = read_manifest(manifest, {"image": "image", "text": "caption"})
        result = _audit(rows, config)
        write_scores(out / "scores.parquet", result, rows)
        dataset, sentence = _into_fiftyone(rows, result, config, out)
        _finish(result, rows, [])
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

        from . import fiftyone_io

        fo.list_datasets()
    # A missing package, a missing mongod, a port or folder that is taken: each has exceptions of its own.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AuditError(f"FiftyOne cannot start ({reason}); mend it: audit-plugin doctor --fix") from error
    return fiftyone_io


def _into_fiftyone(rows: Samples, result: AuditResult, config: AuditConfig, out: Path) -> tuple[Any, str]:
    """The audited demo as a FiftyOne dataset, or None; and the sentence that says how to see it, or why not."""
    import csv

    with (out / "truth.csv").open(encoding="utf-8", newline="") as file:
        planted = {row["id"]: row["fault"].replace("none", "") for row in csv.DictReader(file)}
    try:
        fiftyone_io = _fiftyone_io()
        dataset = fiftyone_io.load_manifest_dataset(DEMO_DATASET, rows, [planted[name] for name in rows.ids])
        in_dataset = replace(result, ids=tuple(dataset.values("id")))
        fiftyone_io.write_result(dataset, in_dataset, config)
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


@app.command()
def doctor(fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended")] = False) -> None:
    """Say what is installed, and how to mend what is not."""
    with _told_errors():
        from . import doctor

        raise typer.Exit(doctor.run(fix))


@app.command()
def link() -> None:
    """Put the plugin into FiftyOne's plugin folder."""
    with _told_errors():
        from . import linking

        typer.echo(linking.link())


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    from .display import StageDisplay, console

    pressed = threading.Event()

    def on_interrupt(*_: object) -> None:
        pressed.set()
        raise KeyboardInterrupt

    def progress(stage: str, done: int, total: int) -> None:
        if pressed.is_set():  # libraries swallow an interrupt that reaches them while they are imported
            raise KeyboardInterrupt
        display(stage, done, total)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        with StageDisplay(console(stderr=True)) as display:
            yield progress
    finally:
        signal.signal(signal.SIGINT, before)


def _audit(samples: Samples, config: AuditConfig, run_dir: Path | None = None) -> AuditResult:
    from .pipeline import run_audit

    with _progress() as progress:
        return run_audit(samples, config, progress, run_dir)


def _show_plan(plan: dict[str, Any]) -> None:
    from .display import console, show_plan

    show_plan(console(), plan)


def _finish(result: AuditResult, samples: Samples, places: list[str]) -> None:
    """Shows the result; ends with code 1 if not one row got a score."""
    from .display import any_score, console, show_result

    show_result(console(), result, samples, places)
    if not any_score(result):
        _stop(NOTHING_SCORED, "nothing could be scored; the column 'failure' says why, row by row")
