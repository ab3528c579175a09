"""The third tab: one sample after the other, with what speaks against it, and what to do about it."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from fiftyone.operators import types

from audit_plugin.config import FLAG_KINDS

from .panel_base import box, guarded, plain_text, say

ALL = "all findings"
BLOCKS = 10
LONG = 600  # characters of a caption that are shown
PAUSE = 600.0  # seconds: who takes longer has left the room, and the decision is not timed
WORDS = {
    "misalignment": "Misalignment",
    "multimem": "Memorization",
    "outlier": "Outlier",
    "duplicate": "Copy",
    "alignment": "Held-out alignment",
    "clip_score": "Cosine of the encoder",
}


class Queue:
    """Handlers and elements of the tab; a part of the panel."""

    def show_queue(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The filter, the progress, the sample and the buttons."""
        from audit_plugin.fiftyone_io import cases

        state = ctx.panel.state
        queue = cases.review_queue(ctx.dataset, run, self._kinds(ctx))
        choices = types.DropdownView()
        for name in (ALL, *FLAG_KINDS):
            choices.add_choice(name, label=name.capitalize())
        top = panel.h_stack("top", gap=2, align_y="center")
        kind = state.kind or ALL
        top.enum("kind", [ALL, *FLAG_KINDS], default=kind, label="Findings", view=choices, on_change=self.on_kind)
        say(top, "progress", progress_words(queue.progress))
        row = state.row if state.row in queue.rows else queue.next()
        if not row:
            say(panel, "done", "Everything is decided. Go to *Apply* to carry it out, or choose other findings.")
            self._buttons(panel, "", "")
            return
        case = cases.case_of(ctx.dataset, run, row, queue.decided.get(row))
        place = box(panel, f"case_{row}")
        self._show_case(place, case)
        self._buttons(panel, row, case.said.get("suggestion", ""))
        if case.neighbors:  # below the buttons, which one need not scroll for
            place = box(panel, f"evidence_{row}")
            for number, side in enumerate(case.neighbors):
                if side["voters"]:
                    self._show_side(place, f"side{number}", side)

    def _show_case(self, place: types.Object, case: Any) -> None:
        if case.decision is not None:
            say(place, "decided", f"Decided before: **{case.decision.kind}**")
        pair = place.h_stack("pair", gap=2, align_y="top")
        picture(pair, "picture", case.path, case.media, "220px")
        texts = types.Object()
        pair.define_property("texts", texts, view=types.GridView(orientation="vertical", gap=1))
        plain_text(texts, "caption", "Caption", case.text[:LONG] or "(none)")
        if case.words:
            plain_text(texts, "words", "Words that fit least", ", ".join(case.words))
        if case.said.get("suggestion"):
            plain_text(texts, "suggestion", "Suggestion", case.said["suggestion"][:LONG])
        plain_text(texts, "reason", "Why", case.said.get("reason") or ", ".join(case.flags) or "proposed for review")
        say(place, "scores", "\n".join(bar_line(name, *score) for name, score in case.scores.items()))

    def _show_side(self, place: types.Object, name: str, side: Any) -> None:
        say(place, f"{name}_title", f"**Near by {side['near']}**, but their {side['other']} says something else:")
        row = place.h_stack(name, gap=2, align_y="top")
        for at, voter in enumerate(side["voters"]):
            one = types.Object()
            row.define_property(f"voter{at}", one, view=types.GridView(orientation="vertical", gap=0))
            picture(one, "picture", voter["path"], "image", "90px")
            plain_text(one, "caption", f"agreement {voter['agreement'] or 0:.2f}", voter["caption"][:160] or "(none)")

    def _buttons(self, panel: types.Object, row: str, suggestion: str) -> None:
        """Names carry the row, so that what was typed for one sample is never taken for the next."""
        if row:
            panel.str(f"typed_{row}", label="New caption", view=types.TextFieldView())
            panel.str(f"note_{row}", label="Note", view=types.TextFieldView())
        buttons = panel.h_stack("buttons", gap=1)
        choices = [("keep", "Keep", "check"), ("remove", "Remove", "delete")] if row else []
        choices += [("suggested", "Relabel to suggestion", "edit")] if suggestion else []
        choices += [("typed", "Relabel to typed text", "keyboard"), ("skip", "Skip", "redo")] if row else []
        for name, label, icon in choices:
            params = {"what": name, "row": row}
            buttons.btn(name, label=label, icon=icon, variant="contained", on_click=self.on_decide, params=params)
        moves = panel.h_stack("moves", gap=1)
        moves.btn("previous", label="Previous", icon="arrow_back", variant="outlined", on_click=self.on_previous)
        moves.btn("next", label="Next", icon="arrow_forward", variant="outlined", on_click=self.on_next)
        moves.btn("undo", label="Undo last decision", icon="undo", variant="outlined", on_click=self.on_undo_last)
        if row:
            moves.btn("open", label="Open", icon="open_in_full", variant="outlined", on_click=self.on_open)

    def load_queue(self, ctx: Any) -> None:
        """Begin with the first row that is not decided."""
        if not ctx.panel.state.row:
            self._go(ctx, "")

    def _kinds(self, ctx: Any) -> tuple[str, ...]:
        kind = ctx.panel.state.kind
        return (kind,) if kind in FLAG_KINDS else ()

    def _go(self, ctx: Any, after: str) -> None:
        from audit_plugin.fiftyone_io import cases

        queue = cases.review_queue(ctx.dataset, ctx.panel.state.run, self._kinds(ctx))
        ctx.panel.state.row = queue.next(after)
        ctx.panel.state.since = time.time()

    @guarded
    def on_kind(self, ctx: Any) -> None:
        """Other findings."""
        value = ctx.params.get("value")
        if value and value != (ctx.panel.state.kind or ALL):
            ctx.panel.state.kind = value
            self._go(ctx, "")

    @guarded
    def on_decide(self, ctx: Any) -> None:
        """Write the decision down and go on."""
        from audit_plugin.fiftyone_io.decisions import decide

        what, row = ctx.params["what"], ctx.params["row"]
        if row != ctx.panel.state.row:
            return  # a second event of the same click
        state = ctx.panel.state.get("queue") or {}
        typed, note = (str(state.get(f"{name}_{row}") or "") for name in ("typed", "note"))
        kind = "relabel" if what in ("suggested", "typed") else what
        if what == "typed" and not typed.strip():
            ctx.ops.notify("Type the new caption first", variant="warning")
            return
        text = typed if what == "typed" else ""
        taken = time.time() - float(ctx.panel.state.since or 0)
        seconds = taken if taken < PAUSE else float("nan")
        run = ctx.panel.state.run
        decide(ctx.dataset, row, kind, run, text=text, note=note, caption=self._caption(ctx, row), seconds=seconds)
        self._go(ctx, row)

    def _caption(self, ctx: Any, row: str) -> int:
        from audit_plugin.fiftyone_io import cases

        return int(cases.case_of(ctx.dataset, ctx.panel.state.run, row).caption)

    @guarded
    def on_next(self, ctx: Any) -> None:
        """The next row that is not decided."""
        self._go(ctx, ctx.panel.state.row or "")

    @guarded
    def on_previous(self, ctx: Any) -> None:
        """The row before, decided or not."""
        from audit_plugin.fiftyone_io import cases

        queue = cases.review_queue(ctx.dataset, ctx.panel.state.run, self._kinds(ctx))
        ctx.panel.state.row = queue.previous(ctx.panel.state.row or "")
        ctx.panel.state.since = time.time()

    @guarded
    def on_undo_last(self, ctx: Any) -> None:
        """Take the last decision back and show its sample."""
        from audit_plugin.fiftyone_io.decisions import undo_last

        gone = undo_last(ctx.dataset)
        if not gone:
            ctx.ops.notify("There is no decision to take back", variant="info")
            return
        ctx.panel.state.row = gone[-1].label or gone[-1].sample
        ctx.panel.state.since = time.time()

    @guarded
    def on_open(self, ctx: Any) -> None:
        """The sample in the large view."""
        from audit_plugin.fiftyone_io import cases

        case = cases.case_of(ctx.dataset, ctx.panel.state.run, ctx.panel.state.row)
        ctx.ops.open_sample(id=case.sample)


def progress_words(progress: Any) -> str:
    """`**37 of 412** decided, 8 s each, about 50 min left`."""
    words = f"**{progress.done:,} of {progress.total:,}** decided"
    if progress.seconds == progress.seconds:
        words += f", {progress.seconds:.0f} s each, about {progress.minutes:.0f} min left"
    return words


def bar_line(name: str, value: float, below: float) -> str:
    """A score as a word, a bar and a number: the bar says how many of the set's rows score lower."""
    full = round(below * BLOCKS)
    return f"- {WORDS[name]}: `{'█' * full}{'░' * (BLOCKS - full)}` {value:.2f}, higher than {below:.0%} of the set"


def picture(parent: types.Object, name: str, path: str, media: str, height: str) -> None:
    """The sample's file, as far as the panel can show it."""
    url = f"/media?filepath={quote(path)}"
    if media == "video":
        player = types.MediaPlayerView(controls=True, width="100%", height=height)
        parent.obj(name, view=player, default={"url": url})
    elif path:
        parent.str(name, default=url, view=types.ImageView(height=height, alt=""))
