"""One row with its evidence, and the buttons to decide: in the queue's tab, and beside the open sample."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fiftyone.operators import types

from .panel_base import box, plain_text, say
from .review import timed

if TYPE_CHECKING:
    from audit_plugin.fiftyone_io.results.cases import Case

BLOCKS = 10
LONG = 600  # characters of a caption that are shown
Row = tuple[str, int]  # id of a sample or object, position of the caption


def key_of(row: Row) -> str:
    """Part of an element's name: what was typed for one row is never taken for the next."""
    return f"{row[0]}_{row[1]}"


def show_case(panel: types.Object, case: Case, blind: bool) -> None:
    """Picture, texts and scores; blind, only what a reviewer must see who shall not be led."""
    place = box(panel, f"case_{key_of(case.row)}")
    if case.decision is not None:
        say(place, "decided", f"Decided before: **{case.decision.kind}**")
    pair = place.h_stack("pair", gap=2, align_y="top")
    show_file(pair, "picture", case.path, case.media, "220px")
    texts = types.Object()
    pair.define_property("texts", texts, view=types.GridView(orientation="vertical", gap=1))
    plain_text(texts, "caption", "Caption", case.text[:LONG] or "(none)")
    if blind:
        return
    if case.words:
        plain_text(texts, "words", "Words that fit least", ", ".join(case.words))
    if case.said.get("suggestion"):
        plain_text(texts, "suggestion", "Suggestion", case.said["suggestion"][:LONG])
    plain_text(texts, "reason", "Why", case.said.get("reason") or ", ".join(case.flags) or "nothing was found")
    if case.scores:
        say(place, "scores", "\n".join(bar_line(name, *score) for name, score in case.scores.items()))


def show_neighbors(panel: types.Object, case: Case) -> None:
    """Who disagrees, side by side with their captions."""
    sides = [side for side in case.neighbors if side["voters"]]
    if not sides:
        return
    place = box(panel, f"evidence_{key_of(case.row)}")
    for number, side in enumerate(sides):
        title = f"**Near by {side['near']}**, but their {side['other']} says something else (with how far it agrees):"
        say(place, f"side{number}_title", title)
        row = place.h_stack(f"side{number}", gap=2, align_y="top")
        for at, voter in enumerate(side["voters"]):
            one = types.Object()
            row.define_property(f"voter{at}", one, view=types.GridView(orientation="vertical", gap=0))
            show_file(one, "picture", voter["path"], "image", "90px")
            plain_text(one, "caption", f"{voter['agreement'] or 0:.2f}", voter["caption"][:160] or "(none)")


def decide_buttons(panel: types.Object, row: Row, suggestion: str, on_decide: Any) -> None:
    """Where a new caption and a note are typed, and a button for each decision."""
    key = key_of(row)
    panel.str(f"typed_{key}", label="New caption", view=types.TextFieldView())
    panel.str(f"note_{key}", label="Note", view=types.TextFieldView())
    choices = [("keep", "Keep", "check"), ("remove", "Remove", "delete")]
    choices += [("suggested", "Relabel to suggestion", "edit")] if suggestion else []
    choices += [("typed", "Relabel to typed text", "keyboard"), ("skip", "Skip", "redo"), ("unsure", "Unsure", "help")]
    buttons = panel.h_stack("buttons", gap=1)
    for name, label, icon in choices:
        params = {"what": name, "row": list(row)}
        buttons.btn(name, label=label, icon=icon, variant="contained", on_click=on_decide, params=params)


def decide_on(ctx: Any, run: str, row: Row, typed_in: Any, spot: bool = False) -> bool:
    """Write the decision of a button down.

    Args:
        ctx: of the button's event: `what` of `decide_buttons`.
        run: key of the audit.
        row: what is decided on.
        typed_in: part of the panel's state that has the text fields.
        spot: whether it belongs to a spot check.

    Returns:
        Whether a decision was made: there may be no text.

    Raises:
        AuditError: the row is gone, or has no suggestion.
    """
    from audit_plugin import fiftyone_io

    what, key = ctx.params["what"], key_of(row)
    typed, note = (str((typed_in or {}).get(f"{name}_{key}") or "") for name in ("typed", "note"))
    if what == "typed" and not typed.strip():
        ctx.ops.notify("Type the new caption first", variant="warning")
        return False
    kind = "relabel" if what in ("suggested", "typed") else what
    text = typed if what == "typed" else ""
    seconds = timed(time.time() - float(ctx.panel.state.since or 0))
    if spot:
        fiftyone_io.record_spot_check(ctx.dataset, run, row, kind, text, note, seconds=seconds)
    else:
        fiftyone_io.decide(ctx.dataset, [row], kind, run, text=text, note=note, seconds=seconds)
    return True


def bar_line(name: str, value: float, below: float) -> str:
    """A score as a word, a bar and a number: the bar says how many of the set's rows score lower."""
    from audit_plugin.report.display import SCORE_WORDS
    from audit_plugin.scoring.columns import COLUMNS

    label = next((label for column, label, *_ in SCORE_WORDS if column == name), COLUMNS[name].label)
    full = round(below * BLOCKS)
    bar = f"`{'█' * full}{'░' * (BLOCKS - full)}`"
    return f"- {label}: {bar} {value:.2f}, higher than {below:.0%} of the set"


def show_file(parent: types.Object, name: str, path: str, media: str, height: str) -> None:
    """The sample's file, as far as a panel can show it."""
    url = f"/media?filepath={quote(path)}"
    if media == "video":
        player = types.MediaPlayerView(controls=True, width="100%", height=height)
        parent.obj(name, view=player, default={"url": url})
    elif path:
        parent.str(name, default=url, view=types.ImageView(height=height, alt=""))
