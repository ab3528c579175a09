"""Commands on what is stored: list the cache, and delete from it what was not used for long or belongs to nothing."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from audit_plugin.arrays import AuditError

from .options import app
from .running import fiftyone_io

if TYPE_CHECKING:
    from audit_plugin.store.inventory import Stored

SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
BYTES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}

cache = typer.Typer(help="List what is stored in the cache folder, and delete from it (cache prune).")
app.add_typer(cache, name="cache")

Database = Annotated[
    bool, typer.Option("--database", help="Look into FiftyOne's database too: what is left there of deleted datasets")
]


@cache.callback(invoke_without_command=True)
def list_cache(context: typer.Context, database: Database = False) -> None:
    """List all that is stored: features, runs, removal studies, indexes, fetched files, precisions; with sizes."""
    if context.invoked_subcommand:
        return
    from audit_plugin.store import cache_root, size_text
    from audit_plugin.store.inventory import inventory

    entries = inventory()
    typer.echo(f"{cache_root()}: {size_text(sum(entry.size for entry in entries))}")
    _show(entries)
    if database:
        _show_left_over()


@cache.command()
def prune(
    older_than: Annotated[str, typer.Option(help="Delete what was not used for so long: 12h, 30d, 8w")] = "",
    max_size: Annotated[
        str, typer.Option(help="Delete what was not used for the longest time until so much remains: 500MB, 5GB")
    ] = "",
    gone: Annotated[
        bool, typer.Option("--gone", help="Delete what belongs to manifests (with --database: datasets) that are gone")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it the command only lists what it would")] = False,
    database: Database = False,
) -> None:
    """Delete of all that is listed what any of the options names. Nothing is deleted without --yes."""
    from audit_plugin.store import cache_root, size_text
    from audit_plugin.store.inventory import chosen, delete, delete_leftovers, inventory

    if not (older_than or max_size or gone or database):
        raise AuditError("nothing says what to delete; name --older-than 30d, --max-size 5GB, --gone or --database")
    seconds = _amount("--older-than", older_than, SECONDS) if older_than else None
    size = int(_amount("--max-size", max_size, BYTES)) if max_size else None
    entries = inventory()
    named = chosen(entries, seconds, size, _gone(entries, database) if gone else ())
    typer.echo(f"{'deleting' if yes else 'would delete'} from {cache_root()}:")
    _show(named)
    if database:
        _show_left_over()
    if not yes:
        typer.echo("nothing was deleted; to delete these, add --yes")
        return
    freed, refusals = 0, []
    for entry in named:
        try:
            freed += delete(entry)
        except AuditError as error:
            refusals.append(str(error))
    delete_leftovers()
    if database:
        fiftyone_io(sweep=False).sweep()
    for refusal in refusals:
        typer.echo(f"not deleted: {refusal}")
    typer.echo(f"deleted: {size_text(freed)}")


def _gone(entries: list[Stored], database: bool) -> list[Stored]:
    """Those whose manifest, or dataset if the database is asked, does not exist any more."""
    from audit_plugin.inputs.patterns import is_gone
    from audit_plugin.store.inventory import gone

    if not database:
        return gone(entries, is_gone)
    names = fiftyone_io(sweep=False).existing_datasets()
    return gone(entries, is_gone, {str(number): name for number, name in names.items()})


def _show(entries: list[Stored]) -> None:
    from audit_plugin.report.display import console, show_table
    from audit_plugin.store import size_text

    rows = [
        (
            entry.kind,
            entry.source or "unknown",
            "" if entry.rows is None else f"{entry.rows:,}",
            size_text(entry.size),
            _ago(max(0.0, time.time() - entry.used)),
        )
        for entry in entries
    ]
    show_table(console(), "Stored", ("what", "belongs to", "rows", "size", "last used"), rows)


def _ago(seconds: float) -> str:
    """`5 min ago`, `30 days ago`."""
    for unit, size in (("days", 86_400), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds // 60:.0f} min ago"


def _show_left_over() -> None:
    from audit_plugin.report.display import console, show_table
    from audit_plugin.store import size_text

    rows = [
        (part.collection, f"{part.documents:,}", size_text(part.bytes)) for part in fiftyone_io(sweep=False).leftovers()
    ]
    show_table(console(), "Left in the database of deleted datasets", ("collection", "documents", "size"), rows)


def _amount(option: str, text: str, units: dict[str, int]) -> float:
    """`30d` in seconds, `5GB` in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]+)", text.strip().lower())
    if match is None or match[2] not in units:
        examples = " or ".join(f"30{unit if len(unit) == 1 else unit.upper()}" for unit in units)
        raise AuditError(f"{option} is {text!r}; write a number with a unit, such as {examples}")
    return float(match[1]) * units[match[2]]
