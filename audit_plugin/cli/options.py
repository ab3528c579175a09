"""The application, commands made from settings, and what becomes of errors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Annotated, Any, NoReturn

import typer

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig

NOTHING_SCORED, BAD_INPUT, INTERRUPTED = 1, 2, 130
# What each command names in its own way; every other setting is an option of every audit.
NAMING = ("image", "text", "audio", "video", "run")

app = typer.Typer(
    name="audit-plugin",
    help="Finds misaligned pairs, outliers, duplicates and memorized samples among images, texts, sounds and videos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would take")]


@contextmanager
def told_errors() -> Iterator[None]:
    """Errors that a user can mend become one sentence and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        stop(INTERRUPTED, "interrupted; the same command resumes where it stopped")
    except AuditError as error:
        stop(BAD_INPUT, f"error: {error}")
    except BrokenPipeError:
        raise
    except ConnectionError as error:
        stop(BAD_INPUT, f"error: the database is out of reach ({error}); see: audit-plugin doctor --fix")
    except OSError as error:
        place = repr(error.filename) if error.filename else "the disk"
        stop(BAD_INPUT, f"error: cannot use {place} ({error.strerror or error}); check it and run again")


def stop(code: int, sentence: str) -> NoReturn:
    """Ends the command with a sentence on stderr."""
    from audit_plugin.report.display import clean

    typer.echo(clean(sentence), err=True)
    raise typer.Exit(code)


def command(*only: str, **overrides: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a command whose `config` is made of options, one per setting, written from the setting itself.

    Args:
        only: settings that the command offers besides; none named: all.
        overrides: settings of `NAMING` that the command offers too -> help text ("" for the setting's own).
    """
    others = only or [f.name for f in fields(AuditConfig) if f.name not in NAMING]
    offered = {f.name: f for f in fields(AuditConfig) if f.name in overrides or f.name in others}

    def register(body: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(body, eval_str=True).parameters.values() if p.name != "config"]
        made = [_option(f.name, f.default, overrides.get(f.name), f.metadata) for f in offered.values()]

        @functools.wraps(body)
        def run(**given: Any) -> None:
            with told_errors():
                config = AuditConfig(**{name: given.pop(name) for name in offered})
                body(config=config, **given)

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
    if name == "trials":
        info = typer.Option("--trials", help=f"{text}, or auto: the same as 0", parser=_number_or_auto)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[type(default), info]
    )


def _number_or_auto(text: str) -> int:
    """`auto` for 0."""
    try:
        return 0 if str(text) == "auto" else int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a whole number nor auto") from None


def _version(wanted: bool) -> None:
    if wanted:
        from audit_plugin import __version__

        typer.echo(f"audit-plugin {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass
