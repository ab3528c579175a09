"""The tab "Overview": a summary, then for each flag a card with its count, an estimate and a movable threshold."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError
from audit_plugin.review.flag_quality import FlagQuality
from audit_plugin.scoring.flags import FLAGS
from audit_plugin.scoring.memorized import ADVICE, NONE_BEYOND

from . import checks
from .audits import set_threshold
from .base import STALE, samples_text
from .panel_base import (
    UNCHANGED,
    box,
    changing,
    guarded,
    plain_text,
    run_of,
    say,
    set_state,
    set_view,
    with_token,
    wrapped,
)
from .panel_summary import Summary
from .review import repairs_of

SLIDER_STEPS = 400
MOST_REPAIRS = 5


class Overview(Summary):
    """Elements and handlers of the tab."""

    def show_overview(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The summary, new samples, repairs, and the cards."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import findings

        cards = findings.cards(ctx.dataset, run)
        self.show_summary(ctx, panel, run, cards)
        new = findings.count_new(ctx.dataset, run)
        if new:
            line = box(panel, "new")
            say(line, "text", f"**{new:,} new samples since the audit**")
            self.form_button(line, "scan_new", "Scan new samples", name="scan")
        self._show_repairs(ctx, panel, run)
        summary = fiftyone_io.audit_summary(ctx.dataset, run)
        is_listed = findings.is_of_lists(ctx.dataset, run)
        for card in cards:
            flag = FLAGS[card.kind]
            place = box(panel, card.kind)
            threshold = self._threshold(ctx, card)
            quality = findings.flag_quality(ctx.dataset, run) if card.kind == "misaligned" and card.score else None
            estimate = quality_text(quality) if quality else estimate_text(card, summary)
            lists = f" {memorized_text(ctx, run, card)}" if card.kind == "memorized" else ""
            count = samples_text(card.count) if is_listed else f"{card.count:,}"
            say(place, "title", f"**{flag.label}: {count}**\n\n{flag.help}. {estimate}{lists}")
            if card.score and card.high > card.low:
                if quality and threshold != card.threshold:
                    quality = findings.flag_quality(ctx.dataset, run, threshold)
                self._show_slider(ctx, place, run, card, threshold, quality.correct_text if quality else "")
            self._show_buttons(ctx, place, run, card, threshold)

    def _show_repairs(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The shifts, swaps and cycles that the audit suggests to repair, each with a button that accepts it."""
        from audit_plugin.scoring.suggest.join_bugs import batch_rows, batch_text

        for number, (sentence, repair) in enumerate(list(repairs_of(ctx.dataset, run).items())[:MOST_REPAIRS]):
            place = box(panel, f"repair{number}")
            plain_text(place, "what", "Suggested repair", f"{sentence}. The batch {batch_text(repair)}.")
            certain, uncertain, _ = batch_rows(repair)
            label, values = f"Relabel {samples_text(len(certain))}", {"repair": sentence}
            buttons = wrapped(place, "buttons")
            if certain:
                self.form_button(buttons, "decide_repair", label, values=values, name="accept", icon="auto_fix_high")
            if uncertain:
                label = f"Show the uncertain {samples_text(len(uncertain))}"
                buttons.btn("ask", label=label, variant="outlined", on_click=self.on_show_uncertain, params=values)

    def _show_buttons(self, ctx: Any, place: types.Object, run: str, card: Any, threshold: float) -> None:
        from audit_plugin.fiftyone_io.results import thresholds

        buttons, params = wrapped(place, "buttons"), {"kind": card.kind}
        moved = bool(card.score) and threshold != card.threshold
        is_highest = card.kind == "memorized" and not card.count and bool(card.score)
        if card.count or is_highest:
            label = "Show the highest" if is_highest else "Show"
            buttons.btn(f"show_{card.kind}", label=label, variant="outlined", on_click=self.on_show, params=params)
        if moved and thresholds.can_move_threshold(ctx.dataset, run, card.kind):
            signed = with_token(ctx, self.on_set, **params, run=run, threshold=threshold)
            buttons.btn(
                f"set_{card.kind}", label="Use this threshold", variant="contained", on_click=self.on_set, params=signed
            )
        if card.set_by_person:
            signed = with_token(ctx, self.on_reset, **params)
            buttons.btn(
                f"reset_{card.kind}", label="Reset threshold", variant="outlined", on_click=self.on_reset, params=signed
            )
        if card.count or moved:
            values = {"kind": card.kind, **({"threshold": threshold} if moved else {})}
            self.form_button(buttons, "decide_flagged", "Decide in bulk", values=values, name=f"all_{card.kind}")

    def _show_slider(self, ctx: Any, place: types.Object, run: str, card: Any, threshold: float, correct: str) -> None:
        """The slider, how many samples its threshold flags, and how many of them are `correct`, where that is known."""
        from audit_plugin.fiftyone_io.results import findings

        # a component of the plugin's script: the App's own slider waits for a quarter of a second, and keeps each value
        # in the panel's state, with which the App reads its page again
        slider = types.View(
            component="AuditThreshold",
            kind=card.kind,
            run=run,
            spoken=f"Threshold of {FLAGS[card.kind].label}",
            low=card.low,
            high=card.high,
            step=(card.high - card.low) / SLIDER_STEPS,
            threshold=threshold,
            on_slide=self.on_slide,
            on_rest=self.on_rest,
        )
        place.obj(f"threshold_{card.kind}", label="Threshold", view=slider)
        above = findings.count_above(ctx.dataset, run, card.kind, threshold)
        estimate = f"; {correct} probably correct" if correct else ""
        say(place, "above", f"**{samples_text(above)}** with a score of {threshold:.2f} or higher{estimate}")

    def _threshold(self, ctx: Any, card: Any) -> float:
        """The threshold of the slider; the audit's until it is moved."""
        moved = checks.number(ctx.panel.state.thresholds or {}, card.kind)
        if moved is None or abs(moved - card.threshold) < (card.high - card.low) / (2 * SLIDER_STEPS):
            return float(card.threshold)
        return float(min(max(moved, card.low), card.high))

    @guarded
    def on_slide(self, ctx: Any) -> Any:
        """Draw what the threshold of the slider flags."""
        if ctx.params.get("run") != run_of(ctx):
            return UNCHANGED
        ctx.panel_state["thresholds"] = thresholds_with_moved(ctx)
        return None

    @guarded
    def on_rest(self, ctx: Any) -> Any:
        """Once the slider rests: keep its threshold, and show the samples above it."""
        from audit_plugin.fiftyone_io.results import findings

        run = run_of(ctx)
        if ctx.params.get("run") != run:
            return UNCHANGED
        ctx.panel_state["thresholds"] = moved = thresholds_with_moved(ctx)
        card = next((card for card in findings.cards(ctx.dataset, run) if card.kind == ctx.params["kind"]), None)
        if card is not None:
            threshold = self._threshold(ctx, card)
            set_state(ctx, thresholds={**moved, card.kind: threshold})
            view = findings.scored_above(ctx.dataset, run, card.kind, threshold)
            set_view(ctx, view, fields=findings.shown_fields(ctx.dataset, run, card.kind))
        return None

    @guarded
    def on_show(self, ctx: Any) -> None:
        """Show the flagged samples; where none is memorized, those with the highest MultiMem."""
        from audit_plugin.fiftyone_io.results import findings

        kind, run = checks.required(checks.choice(ctx.params, "kind", FLAGS), "kind"), run_of(ctx)
        view = findings.flagged_as(ctx.dataset, run, kind)
        if kind == "memorized" and not any(findings.memorized_counts(ctx.dataset, run).values()):
            view = findings.most_memorized(ctx.dataset, run)
        set_view(ctx, view, fields=findings.shown_fields(ctx.dataset, run, kind))

    @guarded
    def on_show_uncertain(self, ctx: Any) -> None:
        """Show the samples at an end of a suggested shift that is not certain."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import findings

        run = run_of(ctx)
        sentence = checks.required(checks.choice(ctx.params, "repair", repairs_of(ctx.dataset, run)), "repair")
        rows = fiftyone_io.uncertain_rows(ctx.dataset, run, sentence)
        view = findings.view_of_rows(ctx.dataset, run, rows)
        set_view(ctx, view, fields=findings.shown_fields(ctx.dataset, run))

    @changing
    def on_set(self, ctx: Any) -> None:
        """Flag by the threshold that the button was drawn with."""
        kind = checks.required(checks.choice(ctx.params, "kind", FLAGS), "kind")
        if ctx.params.get("run") != run_of(ctx):  # the threshold is one of another audit
            raise AuditError(STALE)
        self._set_threshold(ctx, kind, checks.required(checks.number(ctx.params, "threshold"), "threshold"))

    @changing
    def on_reset(self, ctx: Any) -> None:
        """Flag by the audit's threshold."""
        kind = checks.required(checks.choice(ctx.params, "kind", FLAGS), "kind")
        self._set_threshold(ctx, kind, None)

    def _set_threshold(self, ctx: Any, kind: str, threshold: float | None) -> None:
        set_threshold(ctx, run_of(ctx), kind, threshold)
        moved = ctx.panel.state.thresholds or {}
        set_state(ctx, thresholds={name: value for name, value in moved.items() if name != kind})


def thresholds_with_moved(ctx: Any) -> dict[str, float]:
    """The thresholds of the sliders that were moved, with the one of this event.

    Raises:
        AuditError: no such slider, or no number.
    """
    kind = checks.required(checks.choice(ctx.params, "kind", FLAGS), "kind")
    value = checks.required(checks.number(ctx.params, "value"), "value")
    return {**(ctx.panel.state.thresholds or {}), kind: float(value)}


def quality_text(quality: FlagQuality) -> str:
    """How many samples of the set and of the flagged ones are wrong, and who says so; "" where nothing is known."""
    sentences = []
    if quality.wrong is not None:
        sentences.append(f"Wrong in the whole set: {quality.wrong_text}.")
    if quality.precision is not None and quality.flagged:
        sentences.append(f"Wrong among the flagged: {quality.precision_text}.")
    elif quality.is_checked and quality.flagged:
        sentences.append("The spot check was of other flags: start a new one to learn how many of these are wrong.")
    return f"{' '.join(sentences)} ({quality.source[0].upper()}{quality.source[1:]}.)" if sentences else ""


def memorized_text(ctx: Any, run: str, card: Any) -> str:
    """How many memorized samples are in each list and what to do with them; of none, that no sample stands out."""
    from audit_plugin.fiftyone_io.results import findings

    if not card.count:
        return f"{NONE_BEYOND}." if card.score else ""
    counts = findings.memorized_counts(ctx.dataset, run)
    return "; ".join(f"{count:,} {ADVICE[name]}" for name, count in counts.items() if count) + "."


def estimate_text(card: Any, summary: dict[str, Any]) -> str:
    """How many samples of another kind than misaligned are flagged by chance; "" if that is unknown."""
    if not card.count:
        return ""
    if FLAGS[card.kind].movable and not card.set_by_person and summary.get("false_positive_rate"):
        rate, total = float(summary["false_positive_rate"]), int(summary.get("samples") or 0)
        return f"Aimed at: at most {rate * total:,.0f} flagged by chance ({rate:.1%} of clean samples)."
    return ""
