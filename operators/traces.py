"""What plotly draws in the panel: traces and layouts, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLORS = "Portland"  # readable on a light and on a dark ground
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
        "marker": {"color": "#f59d5c"},
        "hovertemplate": "%{x:.2f}: %{y} samples<extra></extra>",
    }


def cloud(found: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """The trace of a scatter plot: two columns are places, the third is the color."""
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
        "marker": {"size": 5, "color": shade, "colorscale": COLORS, "colorbar": bar, **ends},
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


def removal_lines(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line per method of a removal study: the gain over removing nothing on the test rows, 95 % over seeds."""
    lines = []
    for name, method in report["methods"].items():
        amounts = sorted(int(amount) for amount in method["amounts"])
        gains = [method["amounts"][str(amount)]["test"]["retrieval_at_5"]["gain"] for amount in amounts]
        above = rounded([gain["high"] - gain["mean"] for gain in gains])
        lines.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name.replace("_", " "),
                "x": amounts,
                "y": rounded([gain["mean"] for gain in gains]),
                "error_y": {"type": "data", "array": above, "thickness": 1},
            }
        )
    return lines


def recall_matrix(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Recall by the modality learned from (down) and asked in (across), each cell with its interval."""
    names, arms = summary["modalities"], summary["recall"]
    cells = [[arms[arm][name] for name in names] for arm in arms]
    return {
        "type": "heatmap",
        "x": list(names),
        "y": ["nothing" if arm == "none" else arm for arm in arms],
        "z": [rounded([cell["value"] for cell in row]) for row in cells],
        "text": [[f"{c['value']:.0%}<br>{c['low']:.0%} to {c['high']:.0%}" for c in row] for row in cells],
        "texttemplate": "%{text}",
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "#5d6b7a"], [1, "#0b4a8f"]],  # white is read on all of it, in both themes
        "textfont": {"color": "#ffffff"},
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "hovertemplate": "learned from %{y}, asked in %{x}: %{text}<extra></extra>",
    }


def recall_curves(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line per modality learned from and asked in, over the steps of learning."""
    names, curve = summary["modalities"], summary["curve"]
    return [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"{source}, asked in {asked}",
            "x": list(curve["steps"]),
            "y": rounded(curve[source][asked]),
            "line": {"color": color, "dash": "solid" if asked == source else "dash"},
        }
        for source, color in zip(names, ("#4f8fd0", "#f59d5c"), strict=True)
        for asked in names
    ]
