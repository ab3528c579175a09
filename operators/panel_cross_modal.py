"""The tab "Cross-modal": recall between modalities as a matrix and curves, and the identities with the largest gaps."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from . import checks, traces
from .markdown import escaped
from .panel_base import Tab, box, guarded, plain_text, say, set_view, wrapped
from .panel_plots import NO_BAR
from .studies import CROSS_MODAL_RUN

MOST_IDENTITIES = 8


class CrossModal(Tab):
    """Elements and handlers of the tab."""

    def show_cross_modal(self, ctx: Any, panel: types.Object, _run: str = "") -> None:
        """The newest measurement, or what it measures and a button to start it."""
        from audit_plugin.fiftyone_io import cross_modal

        run = cross_modal.newest_cross_modal_run(ctx.dataset)
        form_values = {"run": CROSS_MODAL_RUN}  # not the key of the audit
        if not run:
            say(
                panel,
                "about",
                "**Cross-modal recall**: a model learns the names of identities or classes from images. Does it know "
                "them when asked with texts, and vice versa? Not measured yet.",
            )
            self.form_button(panel, "measure_cross_modal", "Measure cross-modal recall", values=form_values)
            return
        summary, identities = cross_modal.cross_modal_results(ctx.dataset, run)
        self._show_plots(panel, summary)
        self._show_sentences(panel, summary)
        if "refused" not in summary:
            self._show_identities(ctx, panel, run, summary, identities)
        self.form_button(panel, "measure_cross_modal", "Measure again", values=form_values)

    def _show_plots(self, panel: types.Object, summary: dict[str, Any]) -> None:
        about = (
            f"**Cross-modal recall** of the names of {summary['identities']:,} identities, by the modality they were "
            f"learned from and the modality asked, with 95% intervals. Chance level: {summary['chance']:.1%}."
        )
        say(panel, "about_matrix", about)
        hidden = {"showgrid": False, "zeroline": False, "color": traces.INK}
        layout = {
            **traces.plain_layout(300),
            "xaxis": {**hidden, "title": {"text": "asked in"}, "side": "top"},
            "yaxis": {**hidden, "autorange": "reversed"},
            "margin": {"l": 90, "r": 10, "t": 60, "b": 10},
        }
        panel.plot("matrix", layout=layout, config=NO_BAR)
        first, second = summary["modalities"]
        colors = f"Blue: learned from {first}; orange: learned from {second}; dashed: asked in the other modality."
        say(panel, "about_curves", f"**Recall during training.** {colors}")
        steps = list(summary["curve"]["steps"])
        x_axis = {**traces.axis("training steps"), "type": "log", "tickvals": steps, "ticktext": list(map(str, steps))}
        y_axis = {**traces.axis("share recalled"), "range": [0, 1.02]}
        layout = {**traces.plain_layout(260), "xaxis": x_axis, "yaxis": y_axis}
        panel.plot("curves", layout=layout, config=NO_BAR)

    def _show_sentences(self, panel: types.Object, summary: dict[str, Any]) -> None:
        from audit_plugin.crossmodal.sentences import sentences

        say(panel, "findings", "\n".join(f"* {escaped(sentence)}" for sentence in sentences(summary)))
        if "refused" not in summary:
            limit = "Measured with small heads on frozen features; a large model trained on the set may differ."
            say(panel, "limit", limit)

    def _show_identities(
        self, ctx: Any, panel: types.Object, run: str, summary: dict[str, Any], identities: list[dict[str, Any]]
    ) -> None:
        """The identities with the largest gaps, and a button for all that are recalled in one modality only."""
        one_sided = sum(bool(record["stays_in"]) for record in identities)
        place = box(panel, "people")
        title = f"**{one_sided:,} of {len(identities):,} identities are recalled in one modality only.**"
        say(place, "count", f"{title} Largest gaps:")
        for number, record in enumerate(identities[:MOST_IDENTITIES]):
            line = wrapped(place, f"identity{number}", align_y="center")
            text = f"{record['identity']}: {recall_text(record, summary['modalities'])}"
            plain_text(line, f"name{number}", "Identity", text)
            params = {"run": run, "identities": [record["identity"]]}
            line.btn(f"see{number}", label="Show", variant="outlined", on_click=self.on_people, params=params)
        if one_sided:
            params = {"view": ctx.dataset.get_run_info(run).config.saved_view}
            label = f"Show samples of all {one_sided:,}"
            place.btn("see_all", label=label, variant="contained", on_click=self.on_saved, params=params)

    def load_cross_modal(self, ctx: Any) -> None:
        """Send the data of the plots."""
        from audit_plugin.fiftyone_io import cross_modal

        run = cross_modal.newest_cross_modal_run(ctx.dataset)
        if run:
            summary, _ = cross_modal.cross_modal_results(ctx.dataset, run)
            ctx.panel.data.set("cross_modal.matrix", [traces.recall_matrix(summary)])
            ctx.panel.data.set("cross_modal.curves", traces.recall_curves(summary))

    @guarded
    def on_people(self, ctx: Any) -> None:
        """Show the samples of an identity."""
        from audit_plugin.fiftyone_io import cross_modal

        run = checks.choice(ctx.params, "run", cross_modal.list_cross_modal_runs(ctx.dataset))
        _, measured = cross_modal.cross_modal_results(ctx.dataset, checks.required(run, "run"))
        # names come from the data and may have any characters
        asked = checks.items(ctx.params, "identities")
        identities = [record["identity"] for record in measured if record["identity"] in asked]
        if not identities:
            raise AuditError("the newest measurement has no such identity; open the tab again")
        set_view(ctx, cross_modal.identities_view(ctx.dataset, run, identities))

    @guarded
    def on_saved(self, ctx: Any) -> None:
        """Show a saved view."""
        set_view(ctx, name=checks.required(checks.text(ctx.params, "view"), "view"))


def recall_text(record: dict[str, Any], modalities: list[str]) -> str:
    """`100% in text, 0% in image, learned from text`: the direction with the larger gap."""
    first, second = modalities

    def recall(learned: str, asked: str) -> float:
        return float(record[f"recall_{learned}_{asked}"])

    gap_from_first = recall(first, first) - recall(first, second)
    gap_from_second = recall(second, second) - recall(second, first)
    learned, other = (first, second) if gap_from_first >= gap_from_second else (second, first)
    return (
        f"{recall(learned, learned):.0%} in {learned}, {recall(learned, other):.0%} in {other}, learned from {learned}"
    )
