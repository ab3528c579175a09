"""Commands on the machine: check the installation, and link the plugin into FiftyOne."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import app


@app.command()
def doctor(fix: Annotated[bool, typer.Option("--fix", help="Try to fix problems")] = False) -> None:
    """Check the installation, and explain how to fix problems."""
    from .install import doctor

    raise typer.Exit(doctor.run(fix))


@app.command()
def link() -> None:
    """Put the plugin into FiftyOne's plugin folder."""
    from .install import linking

    typer.echo(linking.link())
