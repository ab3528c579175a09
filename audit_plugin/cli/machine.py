"""Commands on the machine: say what is installed, put the plugin where FiftyOne looks."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import app, told_errors


@app.command()
def doctor(fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended")] = False) -> None:
    """Say what is installed, and how to mend what is not."""
    with told_errors():
        from .install import doctor

        raise typer.Exit(doctor.run(fix))


@app.command()
def link() -> None:
    """Put the plugin into FiftyOne's plugin folder."""
    with told_errors():
        from .install import linking

        typer.echo(linking.link())
