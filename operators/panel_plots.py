"""The second tab: plots whose bars and points choose what the grid shows."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from .common import PLUGIN
from .panel_base import guarded, say

CORNERS = (("left", "top"), ("right", "top"), ("left", "bottom"), ("right", "bottom"))  # as `display.QUADRANTS`
COLOURS = "Portland"  # readable on a light and on a dark ground
INK, GRID = "#888888", "rgba(136, 136, 136, 0.25)"
HISTOGRAMS = {"misalignment": "Misalignment", "multimem": "MultiMem", "outlier": "Outlier score"}


class Plots:
    """Handlers and elements of the tab; a part of the panel."""

    def show_plots(self, ctx: Any, panel: types.Object, run: str) -> None:
        """The plots; their data were sent by `load_plots`."""
        from audit_plugin.fiftyone_io import findings

        for name, label in HISTOGRAMS.items():
            if findings.has_column(ctx.dataset, run, name):
                say(panel, f"about_{name}", f"**{label}** of all samples. Click a bar to see its samples.")
                layout = {**plain(200), "xaxis": axis(label), "yaxis": axis("samples"), "bargap": 0.05}
                panel.plot(f"hist_{name}", layout=layout, config={"displayModeBar": False}, on_click=self.on_bar)
        if findings.has_column(ctx.dataset, run, "alignment") and findings.has_column(ctx.dataset, run, "multimem"):
            self._show_scatter(ctx, panel, run)
        summary = findings.audit_summary(ctx.dataset, run)
        if attribution(summary):
            say(panel, "about_due", "**Where memorization comes from**: the share that goes away without each modality")
            layout = {**plain(200), "xaxis": axis("share of MultiMem"), "yaxis": {"color": INK}}
            panel.plot("due", layout={**layout, "margin": {"l": 110, "r": 20, "t": 10, "b": 45}})
        self._show_map(ctx, panel, run)

    def _show_scatter(self, ctx: Any, panel: types.Object, run: str) -> None:
        from audit_plugin.display import QUADRANTS
        from audit_plugin.fiftyone_io import findings

        about = (
            "**Held-out alignment against MultiMem.** Draw a lasso around samples to see them. Samples on the "
            "upper left fit badly when the model has not seen them and well when it has: it learnt them by heart."
        )
        say(panel, "about_quadrants", about)
        found = findings.points(ctx.dataset, run, ("alignment", "multimem"))
        layout = {
            **plain(420),
            "xaxis": axis("held-out alignment"),
            "yaxis": axis("MultiMem"),
            "dragmode": "lasso",
            "annotations": [note(name, *corner) for name, corner in zip(QUADRANTS, CORNERS, strict=True)],
            "shapes": middle_lines(found["alignment"], found["multimem"]),
        }
        panel.plot("quadrants", layout=layout, on_selected=self.on_lasso, on_click=self.on_point)

    def _show_map(self, ctx: Any, panel: types.Object, run: str) -> None:
        from audit_plugin.fiftyone_io import findings

        if findings.has_column(ctx.dataset, run, findings.MAP[0]):
            say(panel, "about_map", "**Map of the embeddings**, coloured by misalignment. Draw a lasso to see samples.")
            hidden = {"showticklabels": False, "zeroline": False, "gridcolor": GRID}
            layout = {**plain(420), "xaxis": hidden, "yaxis": hidden, "dragmode": "lasso"}
            panel.plot("map", layout=layout, on_selected=self.on_lasso, on_click=self.on_point)
            return
        say(panel, "about_map", "**Map of the embeddings**: not made for this audit yet.")
        panel.btn("make_map", label="Make the map", icon="scatter_plot", variant="outlined", on_click=self.on_map)

    def load_plots(self, ctx: Any) -> None:
        """Send the plots' data: they stay in the browser and are not sent back with every event."""
        from audit_plugin.fiftyone_io import findings

        run = ctx.panel.state.run
        for name in HISTOGRAMS:
            if findings.has_column(ctx.dataset, run, name):
                counts, edges = findings.histogram(ctx.dataset, run, name)
                ctx.panel.data.set(f"plots.hist_{name}", [bars(counts, edges)])
        if findings.has_column(ctx.dataset, run, "alignment") and findings.has_column(ctx.dataset, run, "multimem"):
            columns = ("alignment", "multimem", "misalignment")
            ctx.panel.data.set("plots.quadrants", [cloud(findings.points(ctx.dataset, run, columns), columns)])
        shares = attribution(findings.audit_summary(ctx.dataset, run))
        if shares:
            names, values = list(shares), list(shares.values())
            trace = {"type": "bar", "orientation": "h", "y": names, "x": values, "marker": {"color": "#f59d5c"}}
            ctx.panel.data.set("plots.due", [trace])
        if findings.has_column(ctx.dataset, run, findings.MAP[0]):
            columns = (*findings.MAP, "misalignment")
            ctx.panel.data.set("plots.map", [cloud(findings.points(ctx.dataset, run, columns), columns)])

    @guarded
    def on_bar(self, ctx: Any) -> None:
        """The samples of a bar, by the range of their scores."""
        from audit_plugin.fiftyone_io import findings

        run, at = ctx.panel.state.run, ctx.params.get("idx")
        name = str(ctx.params.get("path", "")).rpartition("hist_")[2]
        if at is None or name not in HISTOGRAMS:
            return
        _, edges = findings.histogram(ctx.dataset, run, name)
        ctx.ops.set_view(findings.scored_between(ctx.dataset, run, name, float(edges[at]), float(edges[at + 1])))

    @guarded
    def on_lasso(self, ctx: Any) -> None:
        """The samples inside; the App sends an empty selection after each, which means nothing."""
        from audit_plugin.fiftyone_io import findings

        ids = [point["id"] for point in ctx.params.get("data") or () if point.get("id")]
        if ids:
            ctx.ops.set_view(findings.chosen_rows(ctx.dataset, ctx.panel.state.run, ids))

    @guarded
    def on_point(self, ctx: Any) -> None:
        """The sample of a point."""
        from audit_plugin.fiftyone_io import findings

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


def bars(counts: Any, edges: Any) -> dict[str, Any]:
    """The trace of a histogram."""
    middles = (edges[:-1] + edges[1:]) / 2
    widths = edges[1:] - edges[:-1]
    return {
        "type": "bar",
        "x": [round(float(x), 6) for x in middles],
        "y": counts.tolist(),
        "width": [round(float(w), 6) for w in widths],
        "marker": {"color": "#f59d5c"},
        "hovertemplate": "%{x:.2f}: %{y} samples<extra></extra>",
    }


def cloud(found: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """The trace of a scatter plot: two columns are places, the third is the colour."""
    x, y, shade = (rounded(found[name]) for name in columns)
    known = sorted(value for value in shade if value is not None)
    ends = {"cmin": known[0], "cmax": known[int(0.99 * (len(known) - 1))]} if known else {}
    bar = {"title": {"text": columns[2], "font": {"color": INK}}, "thickness": 10, "tickfont": {"color": INK}}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": y,
        "ids": found["ids"],
        "marker": {"size": 5, "color": shade, "colorscale": COLOURS, "colorbar": bar, **ends},
        "hovertemplate": "%{x:.2f}, %{y:.2f}<extra></extra>",
    }


def rounded(values: Any) -> list[float | None]:
    """JSON-ready: NaN has no place there."""
    return [round(float(value), 4) if value == value else None for value in values]  # noqa: PLR0124 (NaN)


def plain(height: int) -> dict[str, Any]:
    """A layout without a ground of its own, so that it fits both themes."""
    return {
        "height": height,
        "margin": {"l": 50, "r": 20, "t": 10, "b": 45},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK},
        "showlegend": False,
    }


def axis(title: str) -> dict[str, Any]:
    """An axis that can be read on both themes."""
    return {"title": {"text": title, "font": {"color": INK}}, "color": INK, "gridcolor": GRID, "zerolinecolor": GRID}


def note(text: str, side: str, end: str) -> dict[str, Any]:
    """The name of a quadrant in its corner."""
    return {
        "text": text,
        "x": 0.01 if side == "left" else 0.99,
        "y": 0.99 if end == "top" else 0.01,
        "xanchor": side,
        "yanchor": end,
        "xref": "paper",
        "yref": "paper",
        "showarrow": False,
        "font": {"color": INK, "size": 12},
    }


def middle_lines(x: Any, y: Any) -> list[dict[str, Any]]:
    """What parts the quadrants: the medians, since every trained pair has a MultiMem above 0."""
    if not len(x):
        return []
    line = {"type": "line", "line": {"color": INK, "width": 1, "dash": "dot"}}
    at_x, at_y = (float(sorted(values)[len(values) // 2]) for values in (x, y))
    return [
        {**line, "x0": at_x, "x1": at_x, "yref": "paper", "y0": 0, "y1": 1},
        {**line, "y0": at_y, "y1": at_y, "xref": "paper", "x0": 0, "x1": 1},
    ]


def attribution(summary: dict[str, Any]) -> dict[str, float]:
    """Name of a modality or pair -> share of MultiMem; with two modalities there is nothing to tell apart."""
    from audit_plugin.display import part_name

    shares = summary.get("attribution") or {}
    if len(summary.get("encoder") or {}) < 3:
        return {}
    return {part_name(name): float(value) for name, value in shares.items()}
