"""Plots as inline SVG, which follow the light or dark colors of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from markupsafe import Markup

from audit_plugin.arrays import Bools, Floats

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 28, 46
BINS = 40
MOST_POINTS = 2500
Scale = Callable[[float], float]  # value -> pixel
REACH = 0.002  # quantile at which the axes of the scatter plot end, so that outliers do not compress the rest


def histogram(values: Floats, flagged: Bools, cut: float | None) -> Markup:
    """Histogram of a score `[n]` (NaN: not scored), with flagged rows in another color and the threshold as a line.

    "" if no value is finite.
    """
    known = np.isfinite(values)
    if not known.any():
        return Markup("")
    edges = np.histogram_bin_edges(values[known], bins=BINS)
    total, _ = np.histogram(values[known], edges)
    bad, _ = np.histogram(values[known & flagged], edges)
    x, y = _scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT), _scale(0, total.max() * 1.05, HEIGHT - BOTTOM, TOP)
    parts = _axes(x, ticks(edges[0], edges[-1]), y, ticks(0, total.max()), "misalignment", "rows")
    for at, (count, bad_count) in enumerate(zip(total, bad, strict=True)):
        left, right = x(edges[at]), x(edges[at + 1])
        parts.append(_rect("bar", left + 0.5, y(count), right - left - 1, y(bad_count) - y(count)))
        parts.append(_rect("bad", left + 0.5, y(bad_count), right - left - 1, y(0) - y(bad_count)))
    if cut is not None:
        parts.append(_line("cut", x(cut), TOP - 12, x(cut), HEIGHT - BOTTOM))
        side = "end" if x(cut) > WIDTH * 0.6 else "start"
        parts.append(_text(x(cut) + (-6 if side == "end" else 6), TOP - 4, "flagged from here", side))
    return _svg("Histogram of misalignment", parts)


def scatter(across: Floats, up: Floats, flagged: Bools, names: Sequence[str]) -> Markup:
    """Scatter plot split into quadrants at the medians, with flagged rows in another color.

    Args:
        across: `[n]` held-out alignment.
        up: `[n]` MultiMem beyond what held-out alignment explains.
        flagged: bool `[n]`.
        names: of the upper left, upper right, lower left and lower right quadrant.

    Returns:
        The SVG, with a random sample of at most `MOST_POINTS` points; "" if no point is finite.
    """
    rows = np.flatnonzero(np.isfinite(across) & np.isfinite(up))
    if not len(rows):
        return Markup("")
    if len(rows) > MOST_POINTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_POINTS, replace=False))
    x_ends, y_ends = _ends(across[rows]), _ends(up[rows])
    x, y = _scale(*x_ends, LEFT, WIDTH - RIGHT), _scale(*y_ends, HEIGHT - BOTTOM, TOP)
    middle_x, middle_y = x(float(np.median(across[rows]))), y(float(np.median(up[rows])))
    parts = _axes(x, ticks(*x_ends), y, ticks(*y_ends), "held-out alignment", "MultiMem beyond that")
    parts.append(_line("split", middle_x, TOP, middle_x, HEIGHT - BOTTOM))
    parts.append(_line("split", LEFT, middle_y, WIDTH - RIGHT, middle_y))
    point = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>')
    for row in sorted(rows.tolist(), key=lambda r: bool(flagged[r])):  # the flagged ones on top
        px, py = x(np.clip(across[row], *x_ends)), y(np.clip(up[row], *y_ends))
        parts.append(point.format("badpoint" if flagged[row] else "point", px, py))
    corners = ((LEFT + 6, TOP + 12, "start"), (WIDTH - RIGHT - 4, TOP + 12, "end"))
    below = [(px, HEIGHT - BOTTOM - 7, side) for px, _, side in corners]
    parts += [_text(px, py, name, side, "name") for name, (px, py, side) in zip(names, [*corners, *below], strict=True)]
    return _svg("Held-out alignment, and MultiMem beyond it", parts)


def bars(shares: Mapping[str, float]) -> Markup:
    """Horizontal bars of shares (1: the total), with names and percentages; negative shares extend to the left."""
    low, high = min(0.0, *shares.values()), max(0.01, *shares.values())
    left, step = 170, 30
    x = _scale(low, high, left, WIDTH - 56)
    parts = [_line("axis", x(0), 4, x(0), 8 + step * len(shares))]
    for at, (name, share) in enumerate(shares.items()):
        top = 8 + step * at
        parts.append(_text(left - 10, top + 16, name, "end"))
        parts.append(_rect("bar", min(x(0), x(share)), top, abs(x(share) - x(0)), step - 8))
        parts.append(_text(max(x(0), x(share)) + 6, top + 16, f"{share:.0%}", "start"))
    return _svg("Attribution of MultiMem", parts, 12 + step * len(shares))


def curves(
    steps: Sequence[float], lines: Mapping[str, tuple[Sequence[float], int, bool]], below: str, beside: str
) -> Markup:
    """Lines of shares from 0 to 1 over steps on a logarithmic axis.

    Args:
        steps: `[s]`, above 0, ascending.
        lines: name -> (values `[s]`, number of the color, dashed).
        below: label of the x axis.
        beside: label of the y axis.
    """
    log_x = _scale(np.log(steps[0]), np.log(steps[-1]) + 1e-9, LEFT + 8, WIDTH - RIGHT - 8)
    y = _scale(0, 1.02, HEIGHT - BOTTOM, TOP)

    def x(step: float) -> float:
        return log_x(np.log(step))

    parts = _axes(x, steps, y, ticks(0, 1), below, beside)
    for at, (name, (values, color, dashed)) in enumerate(lines.items()):
        kind = f"curve c{color}" + (" dashed" if dashed else "")
        points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(steps, values, strict=True))
        parts.append(Markup('<polyline class="{}" points="{}"/>').format(kind, points))
        top = HEIGHT + 16 + 20 * at
        parts += [_line(kind, LEFT, top, LEFT + 28, top), _text(LEFT + 36, top + 4, name, "start")]
    return _svg("Recall during training", parts, HEIGHT + 10 + 20 * len(lines))


def _ends(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [REACH, 1 - REACH]).tolist()
    room = max(0.04 * (high - low), 1e-6)
    return low - room, high + room


def _scale(low: float, high: float, start: float, stop: float) -> Scale:
    step = (stop - start) / max(float(high) - float(low), 1e-9)
    return lambda value: start + (float(value) - float(low)) * step


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` + 1 round numbers (1, 2 or 5 times a power of ten apart) between two values."""
    raw = max((high - low) / most, 1e-9)
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = int(np.ceil(low / step - 1e-9))
    return [round(step * number, 10) for number in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def _axes(x: Scale, across: Sequence[float], y: Scale, up: Sequence[float], below: str, beside: str) -> list[Markup]:
    """Grid, ticks at values of both axes, and their labels."""
    bottom = HEIGHT - BOTTOM
    parts = []
    for value in up:
        parts.append(_line("grid", LEFT, y(value), WIDTH - RIGHT, y(value)))
        parts.append(_text(LEFT - 7, y(value) + 4, f"{value:,g}", "end"))
    for value in across:
        parts.append(_text(x(value), bottom + 17, f"{value:,g}", "middle"))
    parts.append(_line("axis", LEFT, bottom, WIDTH - RIGHT, bottom))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, below, "middle", "label"))
    parts.append(_text(4, 13, beside, "start", "label"))
    return parts


def _svg(title: str, parts: Sequence[Markup], height: int = HEIGHT) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, height, title)
    return head + Markup("").join(parts) + Markup("</svg>")


def _rect(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    if height <= 0 or width <= 0:
        return Markup("")
    shape = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
    return Markup(shape).format(kind, x, y, width, height)


def _line(kind: str, x: float, y: float, to_x: float, to_y: float) -> Markup:
    shape = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return shape.format(kind, x, y, to_x, to_y)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> Markup:
    shape = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return shape.format(kind, x, y, anchor, words)
