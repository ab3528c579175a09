"""The last decisions as a list in the queue: what, on which caption, when and by whom; each opens its case again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fiftyone.operators import types

from .base import samples_text
from .panel_base import box, of_parts, say
from .panel_words import shown, shown_name

if TYPE_CHECKING:
    from audit_plugin.review import Decision, ReviewQueue, Row

SHOWN, MOST_CHARACTERS, MOST_NAME = 10, 40, 20  # decisions, or batches; characters of a caption, of a name
MOST_SHOWN = 1_000  # characters of a caption that are looked at
LINE = {
    "padding": "0 6px",
    "width": "100%",
    "justifyContent": "flex-start",
    "textAlign": "left",
    "& .MuiTypography-root": {"fontSize": "13px", "overflowWrap": "anywhere"},
}


def show_history(ctx: Any, panel: types.Object, run: str, on_open: Any, blind: ReviewQueue | None = None) -> None:
    """Add a button for each of the last decisions, newest first; a batch is one.

    `blind`: a spot check, in which only its own decisions are known.
    """
    from audit_plugin import fiftyone_io
    from audit_plugin.fiftyone_io.results import cases

    place = box(panel, "history", gap=0)
    if blind is None:
        made = fiftyone_io.last_decisions(ctx.dataset, SHOWN)
    else:
        made = [[one] for one in sorted(blind.decided.values(), key=lambda d: d.order, reverse=True)[:SHOWN]]
    if not made:
        say(place, "none", "No decisions yet.")
        return
    say(place, "title", "**Last decisions**: click one to change it.")
    rows = [row_of(batch[0]) for batch in made]
    texts, now = cases.texts_of(ctx.dataset, run, rows), datetime.now(UTC)
    for number, (batch, row) in enumerate(zip(made, rows, strict=True)):
        label = line_text(batch, texts.get(row, ""), now)
        look = {"variant": "text", "disabled": row not in texts, **of_parts(button=LINE)}
        place.btn(f"made{number}", label=label, on_click=on_open, params={"row": list(row)}, **look)


def row_of(decision: Decision) -> Row:
    """The row of a queue that a decision is about."""
    return decision.label or decision.sample, decision.caption


def line_text(batch: Sequence[Decision], text: str, now: datetime) -> str:
    """`Relabel · a photo of a cat → a dog · 3 min ago · ann`; of a batch its number of samples."""
    from audit_plugin.inputs.spreadsheet import clean

    first = batch[0]
    what = f"{first.kind.capitalize()} {samples_text(len(batch))}" if len(batch) > 1 else first.kind.capitalize()
    caption = clean(shown(text, MOST_SHOWN, "(no caption)"), MOST_CHARACTERS)
    proposed = clean(shown(first.text, MOST_SHOWN), MOST_CHARACTERS)
    if first.kind == "relabel" and proposed != caption:
        caption += f" → {proposed}"
    return " · ".join((what, caption, ago(first.time, now), shown_name(first.reviewer, MOST_NAME)))


def ago(time: datetime, now: datetime) -> str:
    """`just now`, `5 min ago`, `3 h ago`, or the date of another day."""
    made = time if time.tzinfo else time.replace(tzinfo=UTC)  # the database gives times without their zone
    minutes = (now - made).total_seconds() / 60
    if minutes < 1:
        return "just now"
    if minutes < 60:
        return f"{minutes:.0f} min ago"
    return f"{minutes / 60:.0f} h ago" if minutes < 24 * 60 else f"{made:%Y-%m-%d}"
