"""The tab "Plots": plots whose bars and points choose which samples the grid shows."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from . import checks, traces
from .base import MOST_NAME, PLUGIN, TOKEN
from .markdown import escaped
from .panel_base import UNCHANGED, Tab, box, guarded, run_of, say, set_view
from .panel_case import show_case

CORNERS = (("left", "top"), ("right", "top"), ("left", "bottom"), ("right", "bottom"))  # as `display.QUADRANTS`
QUADRANT_SCORES = ("alignment", "multimem")
HOW_TO_CHOOSE = "Click a sample to see it, or draw a lasso around some to show them, the most misaligned first."
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
        from audit_plugin.report.display import QUADRANTS

        about = (
            "**What is memorized beyond misalignment.** MultiMem is nearly held-out alignment turned round; up "
            "is how far it lies above its fit on that: samples at the top are memorized more than alignment explains. "
            f"{HOW_TO_CHOOSE}"
        )
        say(panel, "about_quadrants", about)
        points = _quadrant_points(ctx, run)
        layout = {
            **traces.plain_layout(420),
            "xaxis": traces.axis("held-out alignment"),
            "yaxis": traces.axis("MultiMem beyond that"),
            "dragmode": "lasso",
            "annotations": [traces.note(name, *corner) for name, corner in zip(QUADRANTS, CORNERS, strict=True)],
            "shapes": traces.median_lines(points["alignment"], points["beyond"]),
        }
        panel.plot("quadrants", layout=layout, config=WIDTH, on_selected=self.on_lasso, on_click=self.on_point)
        self._show_point(ctx, panel, run, "quadrants")

    def _show_map(self, ctx: Any, panel: types.Object, run: str) -> None:
        from audit_plugin.fiftyone_io.results import findings

        if not findings.has_column(ctx.dataset, run, findings.MAP[0]):
            say(panel, "about_map", "**Map of the embeddings**: not computed for this audit yet.")
            panel.btn("make_map", label="Compute map", icon="scatter_plot", variant="outlined", on_click=self.on_map)
            return
        say(panel, "about_map", f"**Map of the embeddings**, colored by misalignment. {HOW_TO_CHOOSE}")
        hidden = {"showticklabels": False, "zeroline": False, "gridcolor": traces.GRID}
        layout = {**traces.plain_layout(420), "xaxis": hidden, "yaxis": hidden, "dragmode": "lasso"}
        panel.plot("map", layout=layout, config=WIDTH, on_selected=self.on_lasso, on_click=self.on_point)
        self._show_point(ctx, panel, run, "map")

    def _show_point(self, ctx: Any, panel: types.Object, run: str, plot: str) -> None:
        """The picture and text of the point of this plot that was clicked."""
        from audit_plugin.fiftyone_io.results import cases, findings

        point = ctx.panel.state.point or {}
        name = point.get("id")
        if not isinstance(name, str) or not name or point.get("plot") != plot or point.get("run") != run:
            return
        place = box(panel, f"point_{plot}")
        try:
            case = cases.case_of(ctx.dataset, run, findings.row_of(ctx.dataset, run, name))
        except AuditError as error:  # deleted since the plot was drawn
            say(place, "gone", escaped(str(error)))
            return
        show_case(place, case, blind=False)
        place.btn("show_point", label="Show", variant="outlined", params={"id": name}, on_click=self.on_show_point)

    def load_plots(self, ctx: Any) -> None:
        """Send the data of the plots: they stay in the browser and are not sent back with each event."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import findings

        run, data = ctx.panel.state.run, ctx.panel.data
        for name in _histograms(ctx, run):
            counts, edges = findings.histogram(ctx.dataset, run, name)
            data.set(f"plots.hist_{name}", [traces.bars(counts, edges)])
        if _has_quadrants(ctx, run):
            points = _with_texts(ctx, run, _quadrant_points(ctx, run))
            data.set("plots.quadrants", [traces.scatter(points, ("alignment", "beyond", "misalignment"))])
        if shares := attribution(fiftyone_io.audit_summary(ctx.dataset, run)):
            data.set("plots.due", [traces.horizontal_bars(shares)])
        if report := fiftyone_io.removal_report(ctx.dataset):
            data.set("plots.removal", traces.removal_lines(report))
        if findings.has_column(ctx.dataset, run, findings.MAP[0]):
            columns = (*findings.MAP, "misalignment")
            points = _with_texts(ctx, run, findings.points(ctx.dataset, run, columns))
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
        set_view(ctx, findings.scored_between(ctx.dataset, run, name, float(edges[bar]), float(edges[bar + 1])))

    @guarded
    def on_lasso(self, ctx: Any) -> Any:
        """Show the samples inside, worst first; the App sends an empty selection after each, which is ignored."""
        from audit_plugin.fiftyone_io.results import findings

        points = checks.items(ctx.params, "data")
        ids = checks.ids([point["id"] for point in points if isinstance(point, dict) and point.get("id")])
        if ids:
            set_view(ctx, findings.view_of_rows(ctx.dataset, run_of(ctx), ids))
        return UNCHANGED

    @guarded
    def on_point(self, ctx: Any) -> None:
        """Show the picture and text of a point below its plot."""
        name, path = checks.text(ctx.params, "id", most=MOST_NAME), str(ctx.params.get("path", ""))
        if name:
            ctx.panel.state.point = {"id": name, "plot": path.rpartition(".")[2], "run": run_of(ctx)}

    @guarded
    def on_show_point(self, ctx: Any) -> None:
        """Show the sample of a point in the grid."""
        from audit_plugin.fiftyone_io.results import findings

        if name := checks.text(ctx.params, "id", most=MOST_NAME):
            set_view(ctx, findings.view_of_rows(ctx.dataset, run_of(ctx), [name]))

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


def _with_texts(ctx: Any, run: str, points: dict[str, Any]) -> dict[str, Any]:
    """Points (`findings.points`) with the `texts` of their rows."""
    from audit_plugin.fiftyone_io.results import findings

    return {**points, "texts": findings.texts_of_rows(ctx.dataset, run, points["ids"])}


def _quadrant_points(ctx: Any, run: str) -> dict[str, Any]:
    """Points with `beyond`: MultiMem beyond what held-out alignment explains."""
    from audit_plugin.fiftyone_io.results import findings
    from audit_plugin.scoring.memorized import beyond_alignment

    points = findings.points(ctx.dataset, run, (*QUADRANT_SCORES, "misalignment"))
    return {**points, "beyond": beyond_alignment(points["multimem"], points["alignment"])}


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
