"""Commands on the machine: check the installation, and link the plugin into FiftyOne."""

from __future__ import annotations

from typing import Annotated

import typer

from audit_plugin.cli.options import app


@app.command(name="doctor")
def check_installation(fix: Annotated[bool, typer.Option("--fix", help="Try to fix problems")] = False) -> None:
    """Check the installation, and explain how to fix problems."""
    from . import doctor

    raise typer.Exit(doctor.run(fix))


@app.command(name="link")
def link_plugin() -> None:
    """Put the plugin into FiftyOne's plugin folder."""
    from . import linking

    typer.echo(linking.link())
