"""Plotly traces and layouts of the panel, as plain values; names are escaped, since Plotly renders some HTML."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping
from typing import Any

COLORS = "Portland"  # readable in the light and the dark theme
BAR_COLOR = "#f59d5c"
HOVER_WIDTH, HOVER_LINES = 48, 3  # characters and lines of a text beside the pointer
INK, GRID = "#888888", "rgba(136, 136, 136, 0.25)"


def bars(counts: Any, edges: Any) -> dict[str, Any]:
    """The trace of a histogram."""
    middles = (edges[:-1] + edges[1:]) / 2
    widths = edges[1:] - edges[:-1]
    return {
        "type": "bar",
        "x": [round(float(x), 6) for x in middles],
        "y": counts.tolist(),
        "width": [round(float(w), 6) for w in widths],
        "marker": {"color": BAR_COLOR},
        "hovertemplate": "%{x:.2f}: %{y} samples<extra></extra>",
    }


def horizontal_bars(values: Mapping[str, float]) -> dict[str, Any]:
    """The trace of a bar per name."""
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(map(html.escape, values)),
        "x": list(values.values()),
        "marker": {"color": BAR_COLOR},
    }


def scatter(points: Mapping[str, Any], columns: tuple[str, str, str]) -> dict[str, Any]:
    """The trace of a scatter plot of `points`: two columns are the axes, the third is the color; `texts` are shown."""
    x_name, y_name, color_name = columns
    color = rounded(points[color_name])
    marker = {"size": 5, "color": color, "colorscale": COLORS}
    marker["colorbar"] = {
        "title": {"text": color_name, "font": {"color": INK}},
        "thickness": 10,
        "tickfont": {"color": INK},
    }
    known = sorted(value for value in color if value is not None)
    if known:  # the color scale ends at the 99th percentile, so that a few extreme scores do not use it up
        marker |= {"cmin": known[0], "cmax": known[int(0.99 * (len(known) - 1))]}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": rounded(points[x_name]),
        "y": rounded(points[y_name]),
        "ids": points["ids"],
        "marker": marker,
        "text": [_in_lines(text) for text in points["texts"]],
        "hovertemplate": "%{text}<br>%{x:.2f}, %{y:.2f}<extra></extra>",
    }


def _in_lines(text: str) -> str:
    """The beginning of a text in short lines, escaped."""
    beginning = text[: 2 * HOVER_WIDTH * HOVER_LINES]  # blanks are left out; a text may be long
    lines = textwrap.wrap(beginning, HOVER_WIDTH, max_lines=HOVER_LINES, placeholder=" …")
    return "<br>".join(map(html.escape, lines))


def rounded(values: Any) -> list[float | None]:
    """JSON-ready values; NaN becomes None."""
    return [round(float(value), 4) if value == value else None for value in values]  # noqa: PLR0124 (NaN)


def plain_layout(height: int) -> dict[str, Any]:
    """A layout with a transparent background, for both themes."""
    return {
        "height": height,
        "margin": {"l": 50, "r": 20, "t": 10, "b": 45},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK},
        "showlegend": False,
    }


def axis(title: str) -> dict[str, Any]:
    """An axis that is readable in both themes."""
    return {"title": {"text": title, "font": {"color": INK}}, "color": INK, "gridcolor": GRID, "zerolinecolor": GRID}


def note(text: str, side: str, end: str) -> dict[str, Any]:
    """An annotation with the name of a quadrant in its corner."""
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


def median_lines(x: Any, y: Any) -> list[dict[str, Any]]:
    """The borders of the quadrants: the medians, since MultiMem is above 0 for every trained pair."""
    if not len(x):
        return []
    line = {"type": "line", "line": {"color": INK, "width": 1, "dash": "dot"}}
    x_median, y_median = _upper_median(x), _upper_median(y)
    return [
        {**line, "x0": x_median, "x1": x_median, "yref": "paper", "y0": 0, "y1": 1},
        {**line, "y0": y_median, "y1": y_median, "xref": "paper", "x0": 0, "x1": 1},
    ]


def _upper_median(values: Any) -> float:
    return float(sorted(values)[len(values) // 2])


def removal_lines(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line per ranking of a removal study: gain over removing nothing on test samples, 95% interval over seeds."""
    lines = []
    for name, method in report["methods"].items():
        amounts = sorted(int(amount) for amount in method["amounts"])
        gains = [method["amounts"][str(amount)]["test"]["retrieval_at_5"]["gain"] for amount in amounts]
        half_widths = rounded([gain["high"] - gain["mean"] for gain in gains])
        lines.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": html.escape(name.replace("_", " ")),
                "x": amounts,
                "y": rounded([gain["mean"] for gain in gains]),
                "error_y": {"type": "data", "array": half_widths, "thickness": 1},
            }
        )
    return lines


def recall_matrix(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Heatmap of recall by the modality learned from (rows) and asked in (columns), each cell with its interval."""
    names, arms = summary["modalities"], summary["recall"]
    cells = [[arms[arm][name] for name in names] for arm in arms]
    return {
        "type": "heatmap",
        "x": list(map(html.escape, names)),
        "y": ["nothing" if arm == "none" else html.escape(arm) for arm in arms],
        "z": [rounded([cell["value"] for cell in row]) for row in cells],
        "text": [[f"{c['value']:.0%}<br>{c['low']:.0%} to {c['high']:.0%}" for c in row] for row in cells],
        "texttemplate": "%{text}",
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "#5d6b7a"], [1, "#0b4a8f"]],  # white text is readable on both ends
        "textfont": {"color": "#ffffff"},
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "hovertemplate": "learned from %{y}, asked in %{x}: %{text}<extra></extra>",
    }


def recall_curves(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line per modality learned from and asked in, over the training steps."""
    names, curve = summary["modalities"], summary["curve"]
    return [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": html.escape(f"{source}, asked in {asked}"),
            "x": list(curve["steps"]),
            "y": rounded(curve[source][asked]),
            "line": {"color": color, "dash": "solid" if asked == source else "dash"},
        }
        for source, color in zip(names, ("#4f8fd0", "#f59d5c"), strict=True)
        for asked in names
    ]
