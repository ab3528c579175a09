"""What is wrong, what is decided and what is left, at the top of the tab "Overview", with the button to go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fiftyone.operators import types

from audit_plugin.review.headline import WORST, flagged_text, review_sentence, weakness_sentence, wrong_sentence
from audit_plugin.scoring.flags import FLAGS

from .panel_base import Tab, box, guarded, run_of, say, set_view, wrapped
from .panel_case import ALL


class Summary(Tab):
    """Elements and handlers of the summary."""

    load_tab: Callable[[Any], None]  # of the panel: sends the data of the chosen tab

    def show_summary(self, ctx: Any, panel: types.Object, run: str, cards: list[Any]) -> None:
        """The headline for the flags and decisions as they are, the button to go on, and counts per kind."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import findings, queues

        summary = fiftyone_io.audit_summary(ctx.dataset, run)
        kinds = [card.kind for card in cards]
        all_findings, *by_kind = queues.queues_of(ctx.dataset, run, [(), *((kind,) for kind in kinds)])
        place = box(panel, "summary")
        sentences = []
        misaligned = next((card for card in cards if card.kind == "misaligned" and card.score), None)
        if misaligned is not None:
            quality = findings.flag_quality(ctx.dataset, run)
            sentences.append(wrong_sentence(quality))
        noun = "caption" if findings.is_of_lists(ctx.dataset, run) else ""
        sentences.append(review_sentence(all_findings.progress.total, all_findings.progress.done, noun))
        say(place, "headline", "  \n".join(f"**{sentence}**" for sentence in sentences))
        weakness = weakness_sentence(summary, is_own=misaligned is not None and not misaligned.set_by_person)
        if weakness:
            say(place, "weakness", weakness)
        buttons = wrapped(place, "buttons")
        if all_findings.left:
            buttons.btn("review", label="Review", icon="gavel", variant="contained", on_click=self.on_review)
        elif all_findings.rows:
            buttons.btn("finish", label="Report and apply", variant="contained", on_click=self.on_finish)
        if weakness or (misaligned is not None and not all_findings.rows):
            label = f"Show the worst {WORST}"
            buttons.btn("show_worst", label=label, variant="outlined", on_click=self.on_show_worst)
        progress = {kind: queue.progress for kind, queue in zip(kinds, by_kind, strict=True)}
        if counts := counts_text(progress, noun):
            say(place, "counts", counts)

    @guarded
    def on_review(self, ctx: Any) -> None:
        """Open the queue of all findings at the first undecided one."""
        ctx.panel.state.kind = ALL
        ctx.panel.state.row = None
        ctx.panel.state.set("queue.top.kind", ALL)
        self._open_tab(ctx, "queue")

    @guarded
    def on_finish(self, ctx: Any) -> None:
        """Open the tab where decisions are applied."""
        self._open_tab(ctx, "apply")

    @guarded
    def on_show_worst(self, ctx: Any) -> None:
        """Show the samples with the highest misalignment, flagged or not."""
        from audit_plugin.fiftyone_io.results import findings

        run = run_of(ctx)
        worst = findings.most_misaligned(ctx.dataset, run, WORST)
        set_view(ctx, worst, fields=findings.shown_fields(ctx.dataset, run))

    def _open_tab(self, ctx: Any, tab: str) -> None:
        ctx.panel.state.tab = tab
        ctx.panel.state.redrawn = (ctx.panel.state.redrawn or 0) + 1
        self.load_tab(ctx)


def counts_text(progress: dict[str, Any], noun: str = "") -> str:
    """A line for each kind of finding: flagged, decided and left; "" where nothing is flagged.

    `noun`: what is counted, where it is not samples.
    """
    return "  \n".join(
        f"{FLAGS[kind].label}: {flagged_text(each.total, noun)}, {each.done:,} decided, {each.total - each.done:,} left"
        for kind, each in progress.items()
        if each.total
    )
