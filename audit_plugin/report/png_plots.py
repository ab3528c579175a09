"""Plots of a result as PNG: MultiMem, removal curves, cross-modal recall. Equal values give equal bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.store import write_atomically

# Okabe and Ito (2008): distinguishable with color blindness, and by brightness in print
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
GROUPS = {
    "f": "trained on by f only (candidates)",
    "g": "trained on by g only (independent)",
    "both": "trained on by both (shared)",
    "none": "trained on by neither (unseen)",
}
INK = "#444444"
BELOW: dict[str, Any] = {"fontsize": 9, "loc": "upper left", "bbox_to_anchor": (0, -0.16), "frameon": False}


def memorization_plot(columns: Mapping[str, Any], path: str | Path, cut: float | None = None) -> None:
    """Histogram of MultiMem, by group in the split protocol, with its attribution to modalities and pairs.

    The columns are those of an `AuditResult` or a scores table: `multimem` and, where present, its parts and `role`.
    `cut` is the MultiMem from which a sample is called memorized. Raises `AuditError` if no sample has a MultiMem.
    """
    values = np.asarray(columns["multimem"], dtype=np.float64)
    if not np.isfinite(values).any():
        raise AuditError("no sample has a MultiMem score, so there is nothing to draw; audit at least 32 samples")
    bars = _attribution(columns)
    with _figure(path, 2 if bars else 1) as axes:
        _histogram(axes[0], values, _groups(columns, values), cut)
        if bars:
            _bars(axes[1], bars)


def _groups(columns: Mapping[str, Any], values: Floats) -> dict[str, np.ndarray]:
    """Label -> bool `[n]`: the scored samples, by role where there is one."""
    known = np.isfinite(values)
    roles = np.asarray(columns.get("role", np.full(len(values), "")), dtype=object)
    groups = {label: known & (roles == role) for role, label in GROUPS.items()}
    return {label: rows for label, rows in groups.items() if rows.any()} or {"samples": known}


def _histogram(axis: Any, values: Floats, groups: Mapping[str, np.ndarray], cut: float | None) -> None:
    drawn = np.concatenate([values[rows] for rows in groups.values()])
    edges = np.histogram_bin_edges(drawn, bins=int(np.clip(2 * np.sqrt(len(drawn)), 12, 60)))
    style: dict[str, Any] = {"alpha": 0.85} if len(groups) == 1 else {"histtype": "step", "linewidth": 2}
    for at, (label, rows) in enumerate(groups.items()):
        weights = np.full(int(rows.sum()), 100 / rows.sum())  # bars in percent of the group
        text = f"{label}: n = {rows.sum():,}, mean {values[rows].mean():.3f}"
        axis.hist(values[rows], edges, weights=weights, color=COLORS[at], label=text, **style)
    axis.axvline(0, color=INK, linewidth=1)
    if cut is not None and np.isfinite(cut):
        axis.axvline(cut, color=COLORS[1], linestyle="--", label=f"flagged as memorized from {cut:.3f}")
    axis.set(title="MultiMem", xlabel="MultiMem (with minus without training on it)", ylabel="% of the group")
    axis.legend(**BELOW)


def _attribution(columns: Mapping[str, Any]) -> dict[str, Floats]:
    """Label -> values `[n]`: MultiMem lost without each modality, then held by each pair; {} with two modalities."""
    lost: dict[str, Floats] = {}
    pairs: dict[str, Floats] = {}
    for name in columns:
        part = name.removeprefix("multimem_")
        if part in (name, "stderr", "mean"):
            continue
        values = np.asarray(columns[name], dtype=np.float64)
        if not np.isfinite(values).any():
            continue
        if part.startswith("due_"):
            lost[f"without {part.removeprefix('due_')}"] = values
        else:
            pairs[part.replace("_", " + ")] = values
    return lost | pairs


def _bars(axis: Any, bars: Mapping[str, Floats]) -> None:
    from matplotlib.patches import Patch

    means = [float(np.nanmean(values)) for values in bars.values()]
    # 95% intervals of the means by the normal approximation
    errors = [1.96 * float(np.nanstd(values)) / np.sqrt(np.isfinite(values).sum()) for values in bars.values()]
    colors = [COLORS[1] if label.startswith("without ") else COLORS[0] for label in bars]
    axis.barh(range(len(bars)), means, xerr=errors, color=colors, ecolor=INK, capsize=3)
    axis.set_yticks(range(len(bars)), [label.replace("without ", "") for label in bars])
    axis.invert_yaxis()
    axis.axvline(0, color=INK, linewidth=1)
    axis.set(title="Attribution", xlabel="mean MultiMem")
    kinds = ((COLORS[1], "lost without this modality"), (COLORS[0], "held by this pair alone"))
    axis.legend(handles=[Patch(color=color, label=label) for color, label in kinds], **BELOW)


def removal_plot(report: Mapping[str, Any], path: str | Path, side: str = "test") -> None:
    """Top-5 retrieval accuracy against the number of samples removed, one line per method, with the control.

    The report is of `removal_study` or `removal_curve`; the side is "test", or "validation", on which N was chosen.
    """
    amounts = [n for n in report["amounts"] if n > 0]
    methods = report["methods"]
    # retrieval of the control: nothing removed, and the same amount of extra training
    base = next(iter(methods.values()))["amounts"]["0"][side]["retrieval_at_5"]["mean"]
    with _figure(path, 1) as (axis,):
        axis.axhline(100 * base, color=INK, linestyle="--", label="nothing removed, same extra training")
        label: str | None = "N chosen on the validation rows"
        for at, (name, method) in enumerate(methods.items()):
            shift = 0.09 * (at - (len(methods) - 1) / 2)  # side by side, so that error bars do not cover each other
            cells = [method["amounts"][str(n)][side]["retrieval_at_5"] for n in amounts]
            means = np.array([100 * c["mean"] for c in cells])
            errors = np.array([50 * (c["gain"]["high"] - c["gain"]["low"]) for c in cells])  # half widths in percent
            x, color = np.arange(len(amounts)) + shift, COLORS[at % len(COLORS)]
            style = {"color": color, "marker": MARKERS[at % len(MARKERS)], "capsize": 2, "linewidth": 1.5}
            axis.errorbar(x, means, errors, elinewidth=1, label=name.replace("_", " "), **style)
            if (best := method["recommended"]["amount"]) in amounts:
                chosen = amounts.index(best)
                ring = {"facecolors": "none", "edgecolors": "black", "linewidths": 1.8, "zorder": 5}
                axis.scatter(x[chosen], means[chosen], s=170, label=label, **ring)
                label = None  # once in the legend
        axis.set_xticks(range(len(amounts)), [f"{n:,}" for n in amounts])
        axis.set(
            title=f"Retrieval after removing the N highest-scored samples ({side} rows)",
            xlabel="N removed from the training rows",
            ylabel="Top-5 retrieval accuracy, %\n(bars: 95% interval of the difference\nfrom nothing removed)",
        )
        axis.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def cross_modal_plot(summary: Mapping[str, Any], path: str | Path) -> None:
    """Matrix of cross-modal recall, by modality learned from and recalled in, beside the learning curves."""
    with _figure(path, 2) as (left, right):
        _recall_matrix(left, summary)
        _learning_curves(right, summary)


def _recall_matrix(axis: Any, summary: Mapping[str, Any]) -> None:
    names, recall = summary["modalities"], summary["recall"]
    values = np.array([[cells[name]["value"] for name in names] for cells in recall.values()])
    axis.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for y, cells in enumerate(recall.values()):
        for x, name in enumerate(names):
            cell = cells[name]
            text = f"{cell['value']:.0%}\n{cell['low']:.0%} to {cell['high']:.0%}"
            axis.text(x, y, text, ha="center", va="center", color="white" if cell["value"] > 0.55 else "black")
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(recall)), ["nothing" if arm == "none" else arm for arm in recall])
    axis.grid(visible=False)
    title = "Names recalled" + (" (modalities not aligned)" if "refused" in summary else "")
    axis.set(title=title, xlabel="recalled in", ylabel="learned from")


def _learning_curves(axis: Any, summary: Mapping[str, Any]) -> None:
    names, curve = summary["modalities"], summary["curve"]
    for at, source in enumerate(names):
        for name in names:
            style, label = "-" if name == source else "--", f"learned from {source}, recalled in {name}"
            axis.plot(curve["steps"], curve[source][name], style, marker="o", color=COLORS[at], label=label)
    axis.axhline(summary["chance"], color=INK, linewidth=1, linestyle=":", label="chance")
    axis.set_xscale("log")
    axis.set_xticks(curve["steps"], [str(step) for step in curve["steps"]])
    axis.minorticks_off()
    axis.set(title="Learning curves", xlabel="training steps of the name head", ylabel="recall", ylim=(0, 1.02))
    axis.legend(**BELOW)


@contextmanager
def _figure(path: str | Path, panels: int) -> Iterator[Any]:
    """Axes of a figure 900 px wide that is written at the end, independent of the user's style and the date."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False  # a dollar sign in a name is no formula
        matplotlib.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
        page = Figure(figsize=(9, 4.8), dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(page)
        axes = page.subplots(1, panels, squeeze=False)[0]
        for axis in axes:
            axis.grid(axis="both", color="#e6e6e6", linewidth=0.8)
            axis.set_axisbelow(True)
        yield axes
        write_atomically(Path(path), lambda file: canvas.print_png(file, metadata={"Software": None}))
