"""The application: its commands and options, made from the settings, and exit codes for errors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from audit_plugin.arrays import MODALITIES, AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.inputs.spreadsheet import clean, place_line
from audit_plugin.store import plain_error

LONGEST = 2000  # characters of a message
NOTHING_SCORED, BAD_INPUT, GATE_FAILED, INTERRUPTED = 1, 2, 3, 130
USAGE_ERROR: Any = typer.BadParameter.__bases__[0]  # of click, or of the copy of it in newer versions of typer
# Each command words these in its own way; every other setting is an option of every audit.
NAMING = (*MODALITIES, "run")
# Names of the former version, hidden from the help: command -> what it stands for, with the output file it had.
FORMER_COMMANDS = {
    "transfer": ("cross-modal", "--out", "transfer.json"),
    "mitigate": ("removal-study",),
    "plant": ("plant-canaries", "--out", "planted"),
    "recall": ("canary-recall", "--out", "recall.json"),
}
FORMER_OPTIONS = {"--false-alarms": "--false-positive-rate", "--transfer": "--cross-modal"}


class _Application(TyperGroup):
    """The commands, under their former names too, and with user errors reported in one sentence."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, *rest = args
        current = []
        for argument in rest:
            option, equals, value = argument.partition("=")
            current.append(FORMER_OPTIONS.get(option, option) + equals + value)
        return super().resolve_command(ctx, [*FORMER_COMMANDS.get(name, (name,)), *current])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            stop(INTERRUPTED, "interrupted; run the same command again to resume")
        except USAGE_ERROR as error:
            error.message = one_line(error.message)  # it may repeat a hostile file name
            raise
        except AuditError as error:
            stop(BAD_INPUT, f"error: {error}")
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            _explain(error)
            raise


def _explain(error: Exception) -> None:
    """Ends the command with one sentence on an error of the machine; does nothing on any other."""
    if sentence := plain_error(error):
        stop(BAD_INPUT, f"error: {sentence}")
    if isinstance(error, ConnectionError):
        stop(BAD_INPUT, f"error: the database cannot be reached ({error}); see: audit-plugin doctor --fix")
    if isinstance(error, FileNotFoundError) and not error.filename:  # of all calls only that for the current folder
        stop(BAD_INPUT, "error: the current folder was deleted; change to another folder and run again")
    if isinstance(error, OSError):
        place = repr(error.filename) if error.filename else "the disk"
        stop(BAD_INPUT, f"error: cannot use {place} ({error.strerror or error}); check it and run again")


app = typer.Typer(
    name="audit-plugin",
    cls=_Application,
    help="Finds misaligned pairs, outliers, duplicates and memorized samples among images, texts, sounds and videos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate the cost without running the audit")]


def one_line(text: str) -> str:
    """Text that cannot act on the terminal, in one line, cut."""
    return clean(text, LONGEST)


def stop(code: int, sentence: str) -> NoReturn:
    """Ends the command with a sentence on stderr."""
    typer.echo(one_line(sentence), err=True)
    raise typer.Exit(code)


def say(line: str) -> None:
    """Prints a line, in which file names and values from a dataset cannot act on the terminal."""
    typer.echo(place_line(line))


def command(*only: str, **overrides: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a command with one option per setting; it receives them as `config`.

    Args:
        only: settings to offer besides those in `overrides`; none: all that are not in `NAMING`.
        overrides: setting -> help text in place of its own ("": its own).
    """
    names = only or [f.name for f in fields(AuditConfig) if f.name not in NAMING]
    offered = {f.name: f for f in fields(AuditConfig) if f.name in overrides or f.name in names}

    def register(body: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(body, eval_str=True).parameters.values() if p.name != "config"]
        place = "Field" if "run" in overrides else "Column"  # only audits of datasets have a run key
        texts = {
            name: overrides.get(name) or f.metadata["help"].replace("Field or column", place)
            for name, f in offered.items()
        }
        settings = [_option(f.name, f.default, texts[f.name], f.metadata) for f in offered.values()]

        @functools.wraps(body)
        def run(**values: Any) -> None:
            config = AuditConfig(**{name: values.pop(name) for name in offered})
            body(config=config, **values)

        # The help lists arguments first, then the inputs, then the command's own options, then the settings.
        def rank(parameter: inspect.Parameter) -> tuple[bool, bool, bool]:
            is_option = parameter.kind is parameter.KEYWORD_ONLY
            return is_option, parameter.name not in overrides, parameter.name in offered

        parameters = sorted([*own, *settings], key=rank)
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return app.command()(run)

    return register


def _option(name: str, default: Any, text: str, meta: Any) -> inspect.Parameter:
    if meta["choices"]:
        text += f" ({', '.join(meta['choices'])})"
    elif meta["low"] is not None:
        text += f" ({meta['low']} to {meta['high']})"
    info = typer.Option(f"--{name.replace('_', '-')}", help=text, show_default=default != "")
    if name == "trials":
        info = typer.Option("--trials", help=f"{text}, or auto, the same as 0", parser=_number_or_auto)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[type(default), info]
    )


def _number_or_auto(text: str) -> int:
    """`auto` as 0."""
    try:
        return 0 if str(text) == "auto" else int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a whole number nor auto") from None


def _version(show: bool) -> None:
    if show:
        from audit_plugin import __version__

        typer.echo(f"audit-plugin {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit")
    ] = False,
) -> None:
    pass
