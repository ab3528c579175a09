"""The first tab: a card per kind of finding, with its count, how sure that is, and a threshold to move."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError
from audit_plugin.config import FLAG_KINDS

from .batches import repairs_of
from .common import samples
from .panel_base import box, guarded, plain_text, say
from .panel_queue import spot_words

STEPS = 400
MOST_REPAIRS = 5


class Overview:
    """Handlers and elements of the tab; a part of the panel."""

    on_ask: Any  # of the panel: open an operator's form

    def show_overview(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The cards."""
        from audit_plugin.fiftyone_io.results import findings
        from audit_plugin.scoring.flags import FLAGS

        new = findings.count_new(ctx.dataset, run)
        if new:
            line = box(panel, "new")
            say(line, "text", f"**{new:,} new samples since the audit**")
            params = {"ask": "scan_new"}
            line.btn("scan", label="Scan them", variant="contained", on_click=self.on_ask, params=params)
        self._show_repairs(ctx, panel, run)
        summary, checked = findings.audit_summary(ctx.dataset, run), self._checked(ctx, run)
        for card in findings.cards(ctx.dataset, run):
            flag = FLAGS[card.kind]
            place = box(panel, card.kind)
            cut = self._cut(ctx, card)
            sure = checked if checked and card.kind == "misaligned" else sure_words(card, summary)
            say(place, "title", f"**{flag.label}: {card.count:,}**\n\n{flag.help}. {sure}")
            if card.score and card.high > card.low:
                self._slider(ctx, place, run, card, cut)
            self._buttons_of(place, card, cut)

    def _checked(self, ctx: Any, run: str) -> str:
        """What the spot check says; "" where there is none: a person's verdicts are worth more than a model's."""
        from audit_plugin import fiftyone_io

        try:
            return spot_words(fiftyone_io.spot_check(ctx.dataset, run))
        except AuditError:  # none was started
            return ""

    def _show_repairs(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The join bugs that the audit found, each to be mended at one stroke."""
        for number, (sentence, repair) in enumerate(list(repairs_of(ctx.dataset, run).items())[:MOST_REPAIRS]):
            place = box(panel, f"repair{number}")
            plain_text(place, "what", "Repair", sentence)
            label = f"Relabel {samples(len(repair['rows']))}"
            params = {"ask": "decide_repair", "fill": {"repair": sentence}}
            place.btn(
                "accept", label=label, icon="auto_fix_high", variant="outlined", on_click=self.on_ask, params=params
            )

    def _buttons_of(self, place: types.Object, card: Any, cut: float) -> None:
        """What can be done about a kind, as things stand."""
        buttons, moved = place.h_stack("buttons", gap=1), cut != card.threshold
        fill = {"kind": card.kind, **({"threshold": cut} if card.score and moved else {})}
        for wanted, name, label, variant, handler in (
            (card.count > 0, "show", "Show", "outlined", self.on_show),
            (bool(card.score) and moved, "keep", "Keep this threshold", "contained", self.on_keep),
            (card.kept, "reset", "Back to the audit's own", "outlined", self.on_reset),
        ):
            if wanted:
                params = {"kind": card.kind}
                buttons.btn(f"{name}_{card.kind}", label=label, variant=variant, on_click=handler, params=params)
        if card.count or moved:
            params = {"ask": "decide_flagged", "fill": fill}
            buttons.btn(
                f"all_{card.kind}", label="Decide for all", variant="outlined", on_click=self.on_ask, params=params
            )

    def _slider(self, ctx: Any, place: types.Object, run: str, card: Any, cut: float) -> None:
        from audit_plugin.fiftyone_io.results import findings

        step = (card.high - card.low) / STEPS
        place.float(
            f"cut_{card.kind}",
            min=card.low,
            max=card.high,
            default=cut,
            label="Threshold",
            view=types.SliderView(min=card.low, max=card.high, step=step, value_precision=2, label_position="left"),
            on_change=self.on_slide,
        )
        above = findings.count_above(ctx.dataset, run, card.kind, cut)
        fine = findings.false_positive_rate_above(ctx.dataset, run, card.kind, cut)
        about = "" if fine is None else f", of which about {fine:,.0f} are fine by the model"
        say(place, "above", f"**{above:,}** at or above {cut:.2f}{about}")

    def _cut(self, ctx: Any, card: Any) -> float:
        cut = (ctx.panel.state.cuts or {}).get(card.kind)
        return card.threshold if cut is None else float(cut)

    @guarded
    def on_slide(self, ctx: Any) -> None:
        """Count and show what the threshold would flag; the App repeats events, also when the slider appears."""
        from audit_plugin.fiftyone_io.results import findings

        kind = str(ctx.params.get("path", "")).rpartition("cut_")[2]
        value, run = ctx.params.get("value"), ctx.panel.state.run
        if kind not in FLAG_KINDS or value is None or not run:
            return
        card = next(card for card in findings.cards(ctx.dataset, run) if card.kind == kind)
        if abs(float(value) - self._cut(ctx, card)) < (card.high - card.low) / (2 * STEPS):
            return
        ctx.panel.state.cuts = {**(ctx.panel.state.cuts or {}), kind: float(value)}
        ctx.ops.set_view(findings.scored_above(ctx.dataset, run, kind, float(value)))

    @guarded
    def on_show(self, ctx: Any) -> None:
        """The flagged samples in the grid."""
        from audit_plugin.fiftyone_io.results import findings

        ctx.ops.set_view(findings.flagged_as(ctx.dataset, ctx.panel.state.run, ctx.params["kind"]))

    @guarded
    def on_keep(self, ctx: Any) -> None:
        """Flag by the threshold that the slider shows."""
        kind = ctx.params["kind"]
        self._set(ctx, kind, (ctx.panel.state.cuts or {}).get(kind))

    @guarded
    def on_reset(self, ctx: Any) -> None:
        """Flag as the audit did."""
        self._set(ctx, ctx.params["kind"], None)

    def _set(self, ctx: Any, kind: str, threshold: float | None) -> None:
        from audit_plugin.fiftyone_io.results import findings, thresholds

        run = ctx.panel.state.run
        changed = thresholds.set_threshold(ctx.dataset, run, kind, threshold)
        card = next(card for card in findings.cards(ctx.dataset, run) if card.kind == kind)
        cuts = {name: cut for name, cut in (ctx.panel.state.cuts or {}).items() if name != kind}
        ctx.panel.state.cuts = cuts
        ctx.panel.state.set(f"{kind}.cut_{kind}", card.threshold)
        ctx.ops.reload_samples()
        ctx.ops.notify(f"{samples(changed)} changed the flag {kind!r}", variant="success")


def sure_words(card: Any, summary: dict[str, Any]) -> str:
    """How many of the flagged are expected to be fine, and who says so."""
    if not card.count:
        return ""
    model = summary.get("wrong_model") or {}
    if card.kind == "misaligned" and not card.kept and model.get("precision") is not None:
        low, high = model["precision_interval"]
        share, wrong = 1 - model["precision"], f"{1 - high:.0%} to {1 - low:.0%}"
        return f"Estimated false alarms: about {share * card.count:,.0f} ({share:.0%}; {wrong}, by a model)."
    if card.kind == "misaligned" and card.false_positive_rate is not None:
        return f"Estimated false alarms: about {card.false_positive_rate:,.0f} (by a model)."
    if card.kind in ("memorized", "outlier") and not card.kept and summary.get("false_positive_rate"):
        rate, total = float(summary["false_positive_rate"]), int(summary.get("samples") or 0)
        return f"Estimated false alarms: at most about {rate * total:,.0f} ({rate:.1%} of clean samples, as asked)."
    return ""
