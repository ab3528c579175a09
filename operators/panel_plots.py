"""The tab "Plots": plots whose bars and points choose which samples the grid shows."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from . import checks, traces
from .base import PLUGIN, TOKEN
from .markdown import escaped
from .panel_base import Tab, guarded, run_of, say

CORNERS = (("left", "top"), ("right", "top"), ("left", "bottom"), ("right", "bottom"))  # as `display.QUADRANTS`
QUADRANT_SCORES = ("alignment", "multimem")
WIDTH = {"responsive": True}  # that of the panel, also after a scroll bar appeared
NO_BAR = {**WIDTH, "displayModeBar": False}


class Plots(Tab):
    """Elements and handlers of the tab."""

    def show_plots(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The plots; their data were sent by `load_plots`."""
        from audit_plugin import fiftyone_io

        for name, label in _histograms(ctx, run).items():
            say(panel, f"about_{name}", f"**{label}** of all samples. Click a bar to show its samples.")
            axes = {"xaxis": traces.axis(label), "yaxis": traces.axis("samples")}
            layout = {**traces.plain_layout(200), **axes, "bargap": 0.05}
            panel.plot(f"hist_{name}", layout=layout, config=NO_BAR, on_click=self.on_bar)
        if _has_quadrants(ctx, run):
            self._show_quadrants(ctx, panel, run)
        if attribution(fiftyone_io.audit_summary(ctx.dataset, run)):
            about = "**Where memorization comes from**: share of MultiMem lost without each modality"
            say(panel, "about_due", about)
            layout = {
                **traces.plain_layout(200),
                "xaxis": traces.axis("share of MultiMem"),
                "yaxis": {"color": traces.INK},
                "margin": {"l": 110, "r": 20, "t": 10, "b": 45},
            }
            panel.plot("due", layout=layout, config=WIDTH)
        self._show_removal(ctx, panel)
        self._show_map(ctx, panel, run)

    def _show_removal(self, ctx: Any, panel: types.Object) -> None:
        """The removal curve of the newest removal study, or a button to start one."""
        from audit_plugin import fiftyone_io
        from audit_plugin.report.display import removal_advice

        report = fiftyone_io.removal_report(ctx.dataset)
        if report is None:
            about = "**Removal study**: does a model improve without the highest-scored samples? Not measured yet."
            say(panel, "about_removal", about)
            self.form_button(panel, "removal_study", "Run removal study", name="measure")
            return
        about = f"**Removal curve**: retrieval without the highest-scored samples. {escaped(removal_advice(report))}"
        say(panel, "about_removal", about)
        axes = {"xaxis": traces.axis("samples removed"), "yaxis": traces.axis("change of top-5 retrieval accuracy")}
        panel.plot("removal", layout={**traces.plain_layout(260), **axes, "showlegend": True}, config=WIDTH)

    def _show_quadrants(self, ctx: Any, panel: types.Object, run: str) -> None:
        from audit_plugin.fiftyone_io.results import findings
        from audit_plugin.report.display import QUADRANTS

        about = (
            "**Held-out alignment and MultiMem.** Draw a lasso around samples to show them. Samples in the upper left "
            "fit badly for models that have not seen them and well for models that have: they are memorized."
        )
        say(panel, "about_quadrants", about)
        points = findings.points(ctx.dataset, run, QUADRANT_SCORES)
        layout = {
            **traces.plain_layout(420),
            "xaxis": traces.axis("held-out alignment"),
            "yaxis": traces.axis("MultiMem"),
            "dragmode": "lasso",
            "annotations": [traces.note(name, *corner) for name, corner in zip(QUADRANTS, CORNERS, strict=True)],
            "shapes": traces.median_lines(*(points[name] for name in QUADRANT_SCORES)),
        }
        panel.plot("quadrants", layout=layout, config=WIDTH, on_selected=self.on_lasso, on_click=self.on_point)

    def _show_map(self, ctx: Any, panel: types.Object, run: str) -> None:
        from audit_plugin.fiftyone_io.results import findings

        if not findings.has_column(ctx.dataset, run, findings.MAP[0]):
            say(panel, "about_map", "**Map of the embeddings**: not computed for this audit yet.")
            panel.btn("make_map", label="Compute map", icon="scatter_plot", variant="outlined", on_click=self.on_map)
            return
        about = "**Map of the embeddings**, colored by misalignment. Draw a lasso around samples to show them."
        say(panel, "about_map", about)
        hidden = {"showticklabels": False, "zeroline": False, "gridcolor": traces.GRID}
        layout = {**traces.plain_layout(420), "xaxis": hidden, "yaxis": hidden, "dragmode": "lasso"}
        panel.plot("map", layout=layout, config=WIDTH, on_selected=self.on_lasso, on_click=self.on_point)

    def load_plots(self, ctx: Any) -> None:
        """Send the data of the plots: they stay in the browser and are not sent back with each event."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import findings

        run, data = ctx.panel.state.run, ctx.panel.data
        for name in _histograms(ctx, run):
            counts, edges = findings.histogram(ctx.dataset, run, name)
            data.set(f"plots.hist_{name}", [traces.bars(counts, edges)])
        if _has_quadrants(ctx, run):
            columns = (*QUADRANT_SCORES, "misalignment")
            points = findings.points(ctx.dataset, run, columns)
            data.set("plots.quadrants", [traces.scatter(points, columns)])
        if shares := attribution(fiftyone_io.audit_summary(ctx.dataset, run)):
            data.set("plots.due", [traces.horizontal_bars(shares)])
        if report := fiftyone_io.removal_report(ctx.dataset):
            data.set("plots.removal", traces.removal_lines(report))
        if findings.has_column(ctx.dataset, run, findings.MAP[0]):
            columns = (*findings.MAP, "misalignment")
            points = findings.points(ctx.dataset, run, columns)
            data.set("plots.map", [traces.scatter(points, columns)])

    @guarded
    def on_bar(self, ctx: Any) -> None:
        """Show the samples of a bar, by the range of their scores."""
        from audit_plugin.fiftyone_io.results import findings

        run, bar = run_of(ctx), checks.whole(ctx.params, "idx")
        name = str(ctx.params.get("path", "")).rpartition("hist_")[2]
        if bar is None or name not in _histograms(ctx, run):
            return
        _, edges = findings.histogram(ctx.dataset, run, name)
        if bar + 1 >= len(edges):
            return
        ctx.ops.set_view(findings.scored_between(ctx.dataset, run, name, float(edges[bar]), float(edges[bar + 1])))

    @guarded
    def on_lasso(self, ctx: Any) -> None:
        """Show the samples inside; the App sends an empty selection after each, which is ignored."""
        from audit_plugin.fiftyone_io.results import findings

        points = checks.items(ctx.params, "data")
        ids = checks.ids([point["id"] for point in points if isinstance(point, dict) and point.get("id")])
        if ids:
            ctx.ops.set_view(findings.view_of_rows(ctx.dataset, run_of(ctx), ids))

    @guarded
    def on_point(self, ctx: Any) -> None:
        """Show the sample of a point."""
        from audit_plugin.fiftyone_io.results import findings

        if name := checks.text(ctx.params, "id", most=100):
            ctx.ops.set_view(findings.view_of_rows(ctx.dataset, run_of(ctx), [name]))

    @guarded
    def on_map(self, ctx: Any) -> None:
        """Compute the map."""
        from audit_plugin.fiftyone_io import tokens

        # without a form, hence with its token
        params = {"run": run_of(ctx), TOKEN: tokens.new_token(ctx.dataset, "map_embeddings")}
        ctx.prompt(f"{PLUGIN}/map_embeddings", params=params, on_success=self.on_mapped, skip_prompt=True)

    @guarded
    def on_mapped(self, ctx: Any) -> None:
        ctx.dataset.reload()
        self.load_plots(ctx)


def _histograms(ctx: Any, run: str) -> dict[str, str]:
    """Name -> label of the scores that have a histogram: those of the table that the audit wrote."""
    from audit_plugin.fiftyone_io.results import findings
    from audit_plugin.scoring.scores import SCORES

    plotted = [score for score in SCORES.values() if score.plotted]
    return {score.name: score.label for score in plotted if findings.has_column(ctx.dataset, run, score.name)}


def _has_quadrants(ctx: Any, run: str) -> bool:
    from audit_plugin.fiftyone_io.results import findings

    return all(findings.has_column(ctx.dataset, run, name) for name in QUADRANT_SCORES)


def attribution(summary: dict[str, Any]) -> dict[str, float]:
    """Name of a modality or pair -> share of MultiMem; empty with two modalities, where it cannot be attributed."""
    from audit_plugin.report.display import part_name

    shares = summary.get("attribution") or {}
    if len(summary.get("encoder") or {}) < 3:
        return {}
    return {part_name(name): float(value) for name, value in shares.items()}
