"""The second tab: plots whose bars and points choose what the grid shows."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from . import traces
from .common import PLUGIN
from .panel_base import guarded, say

CORNERS = (("left", "top"), ("right", "top"), ("left", "bottom"), ("right", "bottom"))  # as `display.QUADRANTS`
HISTOGRAMS = {"misalignment": "Misalignment", "multimem": "MultiMem", "outlier": "Outlier score"}


class Plots:
    """Handlers and elements of the tab; a part of the panel."""

    on_ask: Any  # of the panel: open an operator's form

    def show_plots(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The plots; their data were sent by `load_plots`."""
        from audit_plugin.fiftyone_io.results import findings

        for name, label in HISTOGRAMS.items():
            if findings.has_column(ctx.dataset, run, name):
                say(panel, f"about_{name}", f"**{label}** of all samples. Click a bar to see its samples.")
                layout = {
                    **traces.plain(200),
                    "xaxis": traces.axis(label),
                    "yaxis": traces.axis("samples"),
                    "bargap": 0.05,
                }
                panel.plot(f"hist_{name}", layout=layout, config={"displayModeBar": False}, on_click=self.on_bar)
        if findings.has_column(ctx.dataset, run, "alignment") and findings.has_column(ctx.dataset, run, "multimem"):
            self._show_scatter(ctx, panel, run)
        summary = findings.audit_summary(ctx.dataset, run)
        if attribution(summary):
            say(panel, "about_due", "**Where memorization comes from**: the share that goes away without each modality")
            layout = {**traces.plain(200), "xaxis": traces.axis("share of MultiMem"), "yaxis": {"color": traces.INK}}
            panel.plot("due", layout={**layout, "margin": {"l": 110, "r": 20, "t": 10, "b": 45}})
        self._show_removal(ctx, panel)
        self._show_map(ctx, panel, run)

    def _show_removal(self, ctx: Any, panel: types.Object) -> None:
        """What removing the worst samples does to a model, where that was measured."""
        from audit_plugin.fiftyone_io.results import reports
        from audit_plugin.report.display import removal_advice

        report = reports.removal_report(ctx.dataset)
        if report is None:
            say(panel, "about_removal", "**Removal curve**: does a model gain without the worst samples? Not measured.")
            params = {"ask": "removal_curve"}
            panel.btn("measure", label="Measure it", variant="outlined", on_click=self.on_ask, params=params)
            return
        say(panel, "about_removal", f"**Removal curve**: retrieval without the worst samples. {removal_advice(report)}")
        layout = {**traces.plain(260), "xaxis": traces.axis("samples removed"), "showlegend": True}
        panel.plot("removal", layout={**layout, "yaxis": traces.axis("change of T@5 on test rows")})

    def _show_scatter(self, ctx: Any, panel: types.Object, run: str) -> None:
        from audit_plugin.fiftyone_io.results import findings
        from audit_plugin.report.display import QUADRANTS

        about = (
            "**Held-out alignment against MultiMem.** Draw a lasso around samples to see them. Samples on the "
            "upper left fit badly when the model has not seen them and well when it has: it learned them by heart."
        )
        say(panel, "about_quadrants", about)
        found = findings.points(ctx.dataset, run, ("alignment", "multimem"))
        layout = {
            **traces.plain(420),
            "xaxis": traces.axis("held-out alignment"),
            "yaxis": traces.axis("MultiMem"),
            "dragmode": "lasso",
            "annotations": [traces.note(name, *corner) for name, corner in zip(QUADRANTS, CORNERS, strict=True)],
            "shapes": traces.middle_lines(found["alignment"], found["multimem"]),
        }
        panel.plot("quadrants", layout=layout, on_selected=self.on_lasso, on_click=self.on_point)

    def _show_map(self, ctx: Any, panel: types.Object, run: str) -> None:
        from audit_plugin.fiftyone_io.results import findings

        if findings.has_column(ctx.dataset, run, findings.MAP[0]):
            say(panel, "about_map", "**Map of the embeddings**, colored by misalignment. Draw a lasso to see samples.")
            hidden = {"showticklabels": False, "zeroline": False, "gridcolor": traces.GRID}
            layout = {**traces.plain(420), "xaxis": hidden, "yaxis": hidden, "dragmode": "lasso"}
            panel.plot("map", layout=layout, on_selected=self.on_lasso, on_click=self.on_point)
            return
        say(panel, "about_map", "**Map of the embeddings**: not made for this audit yet.")
        panel.btn("make_map", label="Make the map", icon="scatter_plot", variant="outlined", on_click=self.on_map)

    def load_plots(self, ctx: Any) -> None:
        """Send the plots' data: they stay in the browser and are not sent back with every event."""
        from audit_plugin.fiftyone_io.results import findings, reports

        run = ctx.panel.state.run
        for name in HISTOGRAMS:
            if findings.has_column(ctx.dataset, run, name):
                counts, edges = findings.histogram(ctx.dataset, run, name)
                ctx.panel.data.set(f"plots.hist_{name}", [traces.bars(counts, edges)])
        if findings.has_column(ctx.dataset, run, "alignment") and findings.has_column(ctx.dataset, run, "multimem"):
            columns = ("alignment", "multimem", "misalignment")
            ctx.panel.data.set("plots.quadrants", [traces.cloud(findings.points(ctx.dataset, run, columns), columns)])
        shares = attribution(findings.audit_summary(ctx.dataset, run))
        if shares:
            names, values = list(shares), list(shares.values())
            trace = {"type": "bar", "orientation": "h", "y": names, "x": values, "marker": {"color": "#f59d5c"}}
            ctx.panel.data.set("plots.due", [trace])
        if report := reports.removal_report(ctx.dataset):
            ctx.panel.data.set("plots.removal", traces.removal_lines(report))
        if findings.has_column(ctx.dataset, run, findings.MAP[0]):
            columns = (*findings.MAP, "misalignment")
            ctx.panel.data.set("plots.map", [traces.cloud(findings.points(ctx.dataset, run, columns), columns)])

    @guarded
    def on_bar(self, ctx: Any) -> None:
        """The samples of a bar, by the range of their scores."""
        from audit_plugin.fiftyone_io.results import findings

        run, at = ctx.panel.state.run, ctx.params.get("idx")
        name = str(ctx.params.get("path", "")).rpartition("hist_")[2]
        if at is None or name not in HISTOGRAMS:
            return
        _, edges = findings.histogram(ctx.dataset, run, name)
        ctx.ops.set_view(findings.scored_between(ctx.dataset, run, name, float(edges[at]), float(edges[at + 1])))

    @guarded
    def on_lasso(self, ctx: Any) -> None:
        """The samples inside; the App sends an empty selection after each, which means nothing."""
        from audit_plugin.fiftyone_io.results import findings

        ids = [point["id"] for point in ctx.params.get("data") or () if point.get("id")]
        if ids:
            ctx.ops.set_view(findings.chosen_rows(ctx.dataset, ctx.panel.state.run, ids))

    @guarded
    def on_point(self, ctx: Any) -> None:
        """The sample of a point."""
        from audit_plugin.fiftyone_io.results import findings

        if ctx.params.get("id"):
            ctx.ops.set_view(findings.chosen_rows(ctx.dataset, ctx.panel.state.run, [ctx.params["id"]]))

    @guarded
    def on_map(self, ctx: Any) -> None:
        """Ask for the map."""
        params = {"run": ctx.panel.state.run}
        ctx.prompt(f"{PLUGIN}/map_embeddings", params=params, on_success=self.on_mapped, skip_prompt=True)

    @guarded
    def on_mapped(self, ctx: Any) -> None:
        """The map is there: draw it."""
        ctx.dataset.reload()
        self.load_plots(ctx)


def attribution(summary: dict[str, Any]) -> dict[str, float]:
    """Name of a modality or pair -> share of MultiMem; with two modalities there is nothing to tell apart."""
    from audit_plugin.report.display import part_name

    shares = summary.get("attribution") or {}
    if len(summary.get("encoder") or {}) < 3:
        return {}
    return {part_name(name): float(value) for name, value in shares.items()}
