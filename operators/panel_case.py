"""One row of a review in a panel: its media and texts, the buttons and fields that decide, and the evidence below."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fiftyone.operators import types

from audit_plugin.review import MOST_UNCERTAIN
from audit_plugin.scoring.flags import FLAGS

from . import checks
from .markdown import escaped
from .panel_base import AS_WIDE, box, column, of_parts, plain_text, say, with_token, wrapped
from .panel_words import changes_text, cut, editable, shown, shown_name

if TYPE_CHECKING:
    from audit_plugin.fiftyone_io.results.cases import ReviewCase
    from audit_plugin.review import Decision, Row

ALL, DIFFERING, SPOT_CHECK, CALIBRATE = "all findings", "reviewers disagree", "spot check", "calibrate"
BAR_BLOCKS = 10
MOST_CHARACTERS, MOST_OF_NEIGHBOR = 600, 160  # of a caption
SHOWN = ("image", "video")  # media that a panel can show
# Attributes by which the keyboard shortcuts (`ui/index.umd.js`) find what they press: keep the names.
KEY, DRAWN, FIELD = "data-audit-key", "data-audit-drawn", "data-audit-field"
NEW_CLASS = "Not in the list yet"  # label of the box to tick
ENTER = "Enter"  # presses the button that saves what is typed
# CSS: of the picture beside its texts; of buttons; of the decisions, which stay in sight below however long a caption.
SIDE_BY_SIDE = {"alignItems": "start", "gridTemplateColumns": "minmax(0, 2fr) minmax(0, 3fr)"}
SMALL = {"padding": "4px 6px", "minWidth": 0, "& .MuiTypography-root": {"fontSize": "13px", "whiteSpace": "nowrap"}}
SMALL_TEXT = {"fontSize": "14px", "& p": {"fontSize": "inherit", "margin": 0}}
IN_SIGHT = {
    "position": "sticky",
    "bottom": 0,
    "paddingBottom": "8px",
    "zIndex": 2,
    "backgroundColor": "background.mediaSpace",
}


def finding_kinds() -> tuple[str, ...]:
    """What a queue may show: findings, all or with one flag (more may be registered later), disagreements, checks."""
    return (ALL, *FLAGS, MOST_UNCERTAIN, DIFFERING, SPOT_CHECK, CALIBRATE)


def show_case(panel: types.Object, case: ReviewCase, blind: bool) -> None:
    """Add the media and texts of a row side by side; blind, without what the audit says of it."""
    key, texts = row_key(case.row), types.Object()
    place = types.Object()
    panel.define_property(f"case_{key}", place, view=column(gap=1, variant="outline", pad=1))
    columns = SIDE_BY_SIDE if case.media in SHOWN else AS_WIDE
    pair = types.Object()
    place.define_property("pair", pair, view=types.GridView(orientation="horizontal", gap=2, **of_parts(grid=columns)))
    show_file(pair, "picture", case.path, case.media, "28vh")
    small = of_parts(grid={**AS_WIDE, **SMALL_TEXT})
    pair.define_property("texts", texts, view=types.GridView(orientation="vertical", gap=1, **small))
    if case.decision is not None:
        who = f" by {escaped(shown_name(case.decision.reviewer))}" if case.decision.reviewer else ""
        say(texts, "decided", f"Decided: **{case.decision.kind}**{who}")
    plain_text(texts, "caption", text_label(case), shown(case.text, MOST_CHARACTERS))
    if blind:
        return
    if suggestion := case.texts.get("suggestion"):
        say(texts, "suggestion", f"Suggestion: {changes_text(case.text, suggestion, MOST_CHARACTERS)}")
    plain_text(texts, "reason", "Reason", case.texts.get("reason") or ", ".join(case.flags) or "no finding")
    if case.words:
        plain_text(texts, "words", "Words that fit least", ", ".join(case.words))


def show_differing(panel: types.Object, decisions: Sequence[Decision]) -> None:
    """Add what each reviewer decided, where they disagree."""
    sides = [
        f"{shown_name(d.reviewer)}: {d.kind}{f' to {cut(d.text, MOST_OF_NEIGHBOR)!r}' if d.text else ''}"
        for d in decisions
    ]
    plain_text(panel, "differing", "Reviewers disagree", "; ".join(sides))


def text_label(case: ReviewCase) -> str:
    """`Caption 2 of 5` in a list, `Class` where the texts are classes."""
    name = "Class" if case.classes else "Caption"
    return f"{name} {case.row[1] + 1} of {case.captions}" if case.captions > 1 else name


def remove_label(case: ReviewCase) -> str:
    """What the button removes: of a list its caption, and the sample if all of its other captions are removed."""
    if case.row[0] != case.sample:
        return "Remove object"
    if not case.captions:
        return "Remove"
    return "Remove sample" if case.is_last else "Remove caption"


def show_evidence(panel: types.Object, case: ReviewCase) -> None:
    """Add the scores, and the neighbors that disagree with the sample, side by side with their captions."""
    sides = [side for side in case.neighbors if side["voters"]]
    if not sides and not case.scores:
        return
    place = box(panel, f"evidence_{row_key(case.row)}")
    if case.scores:
        say(place, "scores", "\n".join(score_line(name, *score) for name, score in case.scores.items()))
    for number, side in enumerate(sides):
        title = (
            f"**Similar {side['near']}, different {side['other']}.** The number says how well the {side['other']} "
            "agrees (1 = same)."
        )
        say(place, f"side{number}_title", title)
        line, count = types.Object(), len(side["voters"])
        columns = of_parts(grid={"gridTemplateColumns": f"repeat({count}, minmax(0, 1fr))"})
        place.define_property(f"side{number}", line, view=types.GridView(orientation="horizontal", gap=1, **columns))
        for position, voter in enumerate(side["voters"]):
            neighbor = types.Object()
            line.define_property(f"voter{position}", neighbor, view=column(gap=0))
            show_file(neighbor, "picture", voter["path"], voter["media"], "90px")
            plain_text(neighbor, "caption", f"{voter['agreement'] or 0:.2f}", shown(voter["caption"], MOST_OF_NEIGHBOR))


def show_decisions(ctx: Any, panel: types.Object, case: ReviewCase, on_decide: Any, kind: str = ALL) -> None:
    """Add a button for each decision, and the fields for a new caption and a note.

    A button carries its row, the kind of findings and the decision that is shown beside it: what is pressed is recorded
    of that row, whatever the panel shows by then, and never over a decision that was not seen. The decision is timed
    from when the row was drawn.
    """
    choices = [("keep", "Keep", "1"), ("remove", remove_label(case), "2")]
    if case.texts.get("suggestion") and kind != SPOT_CHECK:
        choices.append(("suggested", "Suggestion", "3"))
    choices += [("skip", "Skip", "4")] if kind != CALIBRATE else []  # whose next row waits for a label
    choices += [("unsure", "Unsure", "5")]
    signed, drawn, seen = with_token(ctx, on_decide), new_drawing(), decision_id(case.decision)
    since = drawn_since(ctx, case.row)

    def add(place: types.Object, name: str, label: str, key: str) -> None:
        params = {"choice": name, "row": list(case.row), "kind": kind, "seen": seen, "since": since, **signed}
        look = {"variant": "outlined" if name in ("skip", "unsure") else "contained", **pressed_by(key, drawn)}
        place.btn(name, label=f"{label} ({key})", on_click=on_decide, params=params, **look)

    buttons = wrapped(panel, "buttons", item=IN_SIGHT)
    for name, label, key in choices:
        add(buttons, name, label, key)
    edit = types.Object()
    columns = of_parts(grid={"gridTemplateColumns": "minmax(0, 1fr) auto", "alignItems": "center"})
    panel.define_property("edit", edit, view=types.GridView(orientation="vertical", gap=1, **columns))
    show_new_text(edit, case, text_fields(ctx))
    add(edit, "typed", "Relabel", ENTER)
    view = types.TextFieldView(compact=True, **field_of("note", label="Note"))
    edit.str(f"note_{row_key(case.row)}", label="Note", view=view)


def show_new_text(place: types.Object, case: ReviewCase, typed: Mapping[str, Any]) -> None:
    """Add the field of the new caption, with the present one in it; for classes, a choice of them."""
    key = row_key(case.row)
    if not case.classes:
        shown = typed.get(f"typed_{key}")
        text = shown if isinstance(shown, str) else editable(case.text)
        # not the field's default: the App would keep one for each row that was shown, and send all with each event
        look = field_of("typed", label="New caption (e)", defaultValue=text, maxRows=3)
        place.str(f"typed_{key}", label="New caption", view=types.TextFieldView(compact=True, multiline=True, **look))
        return
    choice = types.Object()
    place.define_property("classes", choice, view=column(gap=0))
    view = types.AutocompleteView(**field_of("typed"))
    for name in case.classes:
        view.add_choice(name, label=name)
    choice.str(f"typed_{key}", label="New class (e)", view=view)
    choice.bool(f"new_{key}", label=NEW_CLASS, view=types.CheckboxView())


def field_of(name: str, **properties: Any) -> dict[str, Any]:
    """Properties of a text field, its label in its frame; the keyboard shortcuts find it by its name."""
    small = {"& .MuiInputBase-input": {"fontSize": "14px"}}
    return {"componentsProps": {"field": {"sx": small, **properties}, "container": {FIELD: name}}}


def pressed_by(key: str, drawn: str) -> dict[str, Any]:
    """Properties of a button that a key presses, once for each drawing of it (`ui/index.umd.js`)."""
    return {"componentsProps": {"button": {KEY: key, DRAWN: drawn, "sx": SMALL}}}


def new_drawing() -> str:
    """A name for what is drawn now: a key is ignored until what the former one pressed was drawn again."""
    return secrets.token_hex(4)


def text_fields(ctx: Any) -> Mapping[str, Any]:
    """The text fields in a panel's state, of the tab or of the panel of the open sample."""
    state = ctx.panel.state._data
    fields = (state.get("queue") or state).get("edit")
    if not isinstance(fields, Mapping):
        return {}
    inner = fields.get("classes")
    return {**fields, **inner} if isinstance(inner, Mapping) else fields


def show_file(parent: types.Object, name: str, path: str, media: str, height: str) -> None:
    """Add the sample's file, if a panel can show it: as large as fits, never distorted."""
    url = f"/media?filepath={quote(path)}"
    if media == "video":
        player = types.MediaPlayerView(controls=True, width="100%", height=height)
        parent.obj(name, view=player, default={"url": url})
    elif media == "image":
        style = {"objectFit": "contain", "objectPosition": "top", "width": "100%", "height": height, "display": "block"}
        parent.str(name, default=url, view=types.ImageView(alt="", componentsProps={"image": {"style": style}}))


def score_line(name: str, value: float, share_below: float) -> str:
    """A score as a name, a bar and a number; the bar is the share of rows with a lower score."""
    from audit_plugin.scoring.columns import all_columns

    full = round(share_below * BAR_BLOCKS)
    bar = f"`{'█' * full}{'░' * (BAR_BLOCKS - full)}`"
    percent = int(100 * share_below + 1e-9)  # rounded down: no sample is above 100% of a set that holds it
    return f"- {all_columns()[name].label}: {bar} {value:.2f}, higher than {percent}% of the set"


def decision_id(decision: Decision | None) -> str:
    """Its id; "" without a decision."""
    return decision.id if decision else ""


def drawn_since(ctx: Any, row: Row) -> float:
    """Unix time since which a row is drawn, as the button of this event has it; of a row that it does not have, now."""
    is_drawn = "since" in ctx.params and checks.row(ctx.params) == row
    return float(checks.number(ctx.params, "since", 0.0) if is_drawn else time.time())


def row_key(row: Row) -> str:
    """Part of the names of a row's elements, so that a text typed for one row is never used for the next."""
    return f"{row[0]}_{row[1]}"
